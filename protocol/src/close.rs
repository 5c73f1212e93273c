//! Why a connection ended, as the application error code of QUIC's CONNECTION_CLOSE (RFC 9000, section 19.19).

/// Codes are never reused. The reason text that travels beside a code is for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum CloseCode {
    /// The work is done or the daemon stops; reconnecting later is right.
    Done = 0,
    /// The peer's key is not known here, or has no right to what it asked for. The same code for both, before any
    /// path, name or size is revealed.
    NotAllowed = 1,
    /// There is no common protocol version.
    Version = 2,
    /// The peer broke a rule of the protocol.
    Violation = 3,
    /// The peer went over a limit of this side.
    Limit = 4,
    /// No module of that name (said only to peers that are allowed some module).
    NoModule = 5,
    /// The module path is kept by another mirror, or is in use by another connection.
    Busy = 6,
    /// The receiver's disk or configuration does not let it go on.
    Unable = 7,
    /// The pairing code is wrong, spent or expired.
    Pairing = 8,
    /// What would be written comes from the place where it would be written to.
    Circle = 9,
    /// What was kept of the mirror is gone, as it was asked for; the text says what was left.
    Forgotten = 10,
    /// The module was promoted: what is on the receiver counts, and it takes nothing until it is demoted.
    Promoted = 11,
    /// The sender has done its work: both trees were equal at the last mark. Otherwise as `Done`.
    Equal = 12,
}

impl CloseCode {
    /// The number on the wire.
    pub fn number(self) -> u32 {
        self as u32
    }

    /// The code of a number; a number of a newer version reads as [`CloseCode::Violation`] to be careful.
    pub fn from_number(number: u64) -> CloseCode {
        match number {
            0 => CloseCode::Done,
            1 => CloseCode::NotAllowed,
            2 => CloseCode::Version,
            4 => CloseCode::Limit,
            5 => CloseCode::NoModule,
            6 => CloseCode::Busy,
            7 => CloseCode::Unable,
            8 => CloseCode::Pairing,
            9 => CloseCode::Circle,
            10 => CloseCode::Forgotten,
            11 => CloseCode::Promoted,
            12 => CloseCode::Equal,
            _ => CloseCode::Violation,
        }
    }

    /// Whether trying again without anybody's help can succeed.
    pub fn is_temporary(self) -> bool {
        matches!(
            self,
            CloseCode::Done
                | CloseCode::Busy
                | CloseCode::Unable
                | CloseCode::Limit
                | CloseCode::Promoted
                | CloseCode::Equal
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_pinned() {
        let codes = [
            CloseCode::Done,
            CloseCode::NotAllowed,
            CloseCode::Version,
            CloseCode::Violation,
            CloseCode::Limit,
            CloseCode::NoModule,
            CloseCode::Busy,
            CloseCode::Unable,
            CloseCode::Pairing,
            CloseCode::Circle,
            CloseCode::Forgotten,
            CloseCode::Promoted,
            CloseCode::Equal,
        ];
        for (number, code) in codes.into_iter().enumerate() {
            assert_eq!(code.number() as usize, number);
            assert_eq!(CloseCode::from_number(number as u64), code);
        }
        assert_eq!(CloseCode::from_number(u64::MAX), CloseCode::Violation);
    }
}
