//! The first bytes of a one-way stream: what it carries, and of which session.
//!
//! The number of a session is the place of its control stream among the two-way streams of the connection, from 0. So it is never
//! said of a control stream, and two sessions cannot have one number. (Sessions of WebTransport are numbered alike:
//! draft-ietf-webtrans-http3.)

/// What a one-way stream carries: its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum StreamKind {
    /// Ops of a session, packed.
    Ops = 1,
    /// Ranges of a session, in plain frames.
    Bulk = 2,
    /// Notes about sessions, in plain frames: one such stream in each direction of a connection.
    Notes = 3,
}

impl StreamKind {
    /// The kind of a first byte; none if there is no such kind.
    pub fn from_byte(byte: u8) -> Option<StreamKind> {
        match byte {
            1 => Some(StreamKind::Ops),
            2 => Some(StreamKind::Bulk),
            3 => Some(StreamKind::Notes),
            _ => None,
        }
    }
}

/// The first bytes of a stream of ops or ranges: its kind, then the number of its session, as a variable-length integer of QUIC
/// (RFC 9000, section 16). `session` is below 2^60, as the number of any stream is.
pub fn head(kind: StreamKind, session: u64) -> Vec<u8> {
    let mut bytes = vec![kind as u8];
    let (marked, length) = match session {
        0..0x40 => (session, 1),
        0x40..0x4000 => (session | 1 << 14, 2),
        0x4000..0x4000_0000 => (session | 2 << 30, 4),
        _ => (session | 3 << 62, 8),
    };
    bytes.extend_from_slice(&marked.to_be_bytes()[8 - length..]);
    bytes
}

/// How many bytes a variable-length integer has, by its first one: 1, 2, 4 or 8.
pub fn varint_bytes(first: u8) -> usize {
    1 << (first >> 6)
}

/// The value of a variable-length integer that is all of `bytes`; none if it has another length than its first byte says.
pub fn varint(bytes: &[u8]) -> Option<u64> {
    let (&first, rest) = bytes.split_first()?;
    if bytes.len() != varint_bytes(first) {
        return None;
    }
    let high = u64::from(first & 0x3f);
    Some(
        rest.iter()
            .fold(high, |value, &byte| value << 8 | u64::from(byte)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_they_were_written() {
        for session in [
            0,
            1,
            63,
            64,
            499,
            16_383,
            16_384,
            (1 << 30) - 1,
            1 << 30,
            (1 << 60) - 1,
        ] {
            let bytes = head(StreamKind::Bulk, session);
            assert_eq!(StreamKind::from_byte(bytes[0]), Some(StreamKind::Bulk));
            assert_eq!(bytes.len(), 1 + varint_bytes(bytes[1]));
            assert_eq!(varint(&bytes[1..]), Some(session));
            assert_eq!(varint(&bytes[1..bytes.len() - 1]), None);
        }
        // The examples of RFC 9000, section A.1.
        assert_eq!(varint(&[0x7b, 0xbd]), Some(15_293));
        assert_eq!(varint(&[0x9d, 0x7f, 0x3e, 0x7d]), Some(494_878_333));
        assert_eq!(
            varint(&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c]),
            Some(151_288_809_941_952_652)
        );
        // A longer form than needed is the same number.
        assert_eq!(varint(&[0x40, 0x25]), Some(37));
        assert_eq!(varint(&[]), None);
    }

    #[test]
    fn there_are_three_kinds() {
        let kinds = (0..=u8::MAX).filter_map(|byte| Some((byte, StreamKind::from_byte(byte)? as u8)));
        assert_eq!(kinds.collect::<Vec<_>>(), [(1, 1), (2, 2), (3, 3)]);
    }
}
