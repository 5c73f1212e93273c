//! Versions, features, and the first bytes of a connection.
//!
//! The ALPN settles the incompatible part of the version inside the TLS handshake. Everything else is a named
//! [`Feature`]: code asks [`Features::supports`], never compares numbers.

use thiserror::Error;

/// ALPN of a mirror connection. A change that an older peer could misread gets a new name.
pub const ALPN_MIRROR: &[u8] = b"driftless/1";

/// ALPN of a pairing connection, the only kind that an unknown peer may open.
pub const ALPN_PAIR: &[u8] = b"driftless-pair/1";

/// ALPN of a mirror connection that the receiver opens, to have a tree sent that is offered there.
pub const ALPN_PULL: &[u8] = b"driftless-pull/1";

/// Version of the messages that this crate speaks.
pub const VERSION: u16 = 1;

/// Oldest version that this crate still understands.
pub const VERSION_OLDEST: u16 = 1;

/// Length of a [`Hello`] in bytes; it never changes.
pub const HELLO_BYTES: usize = 24;

const MAGIC: [u8; 8] = *b"drftless";

/// Something that a peer may be able to do. Bits are never reused; new ones are appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Feature {
    /// Deltas: signatures of either format, which tells who made them.
    Deltas = 1 << 0,
    /// `verify`: listings that are read from the disk, with fresh digests.
    Verify = 1 << 1,
}

/// A set of features. Unknown bits of a newer peer are kept and ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Features(pub u64);

impl Features {
    /// What this version supports.
    pub const OURS: Features = Features(Feature::Deltas as u64 | Feature::Verify as u64);

    /// Whether the set holds `feature`.
    pub fn supports(self, feature: Feature) -> bool {
        self.0 & feature as u64 != 0
    }

    /// The features that both sides support.
    pub fn common(self, other: Features) -> Features {
        Features(self.0 & other.0)
    }
}

/// The first bytes that each side sends on the control stream. Their shape never changes:
///
/// ```text
/// offset  bytes
///      0      8  "drftless"
///      8      2  version spoken, big endian
///     10      2  oldest version understood, big endian
///     12      8  features, big endian
///     20      4  window, big endian
/// ```
///
/// It stands outside the compressed part of the stream, so that any later version can read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// Version that the peer speaks.
    pub version: u16,
    /// Oldest version that it understands.
    pub oldest: u16,
    /// What it can do.
    pub features: Features,
    /// In a receiver's hello: how many bytes of ops and ranges of this session the sender may have under way before they are
    /// taken; 0 for as many as QUIC's windows allow. Zero in a sender's, and not looked at there.
    pub window: u32,
}

/// Why a first message was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HelloFault {
    /// The bytes are not a driftless hello.
    #[error("the first bytes are not those of a driftless peer")]
    NotDriftless,
    /// There is no version that both sides understand.
    #[error(
        "the peer speaks protocol versions {oldest} to {version}, this side {VERSION_OLDEST} to {VERSION}: upgrade the older side"
    )]
    NoCommonVersion {
        /// Newest version of the peer.
        version: u16,
        /// Oldest version of the peer.
        oldest: u16,
    },
}

impl Hello {
    /// The hello of this version.
    pub const OURS: Hello = Hello {
        version: VERSION,
        oldest: VERSION_OLDEST,
        features: Features::OURS,
        window: 0,
    };

    /// The bytes to send.
    pub fn to_bytes(self) -> [u8; HELLO_BYTES] {
        let mut bytes = [0; HELLO_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&self.version.to_be_bytes());
        bytes[10..12].copy_from_slice(&self.oldest.to_be_bytes());
        bytes[12..20].copy_from_slice(&self.features.0.to_be_bytes());
        bytes[20..].copy_from_slice(&self.window.to_be_bytes());
        bytes
    }

    /// Reads a peer's hello and checks that there is a common version.
    pub fn from_bytes(bytes: &[u8; HELLO_BYTES]) -> Result<Hello, HelloFault> {
        if bytes[..8] != MAGIC {
            return Err(HelloFault::NotDriftless);
        }
        let number = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let (version, oldest) = (number(8), number(10));
        if version < VERSION_OLDEST || oldest > VERSION || oldest > version {
            return Err(HelloFault::NoCommonVersion { version, oldest });
        }
        let mut features = [0; 8];
        features.copy_from_slice(&bytes[12..20]);
        let window = u32::from_be_bytes([bytes[20], bytes[21], bytes[22], bytes[23]]);
        Ok(Hello {
            version,
            oldest,
            features: Features(u64::from_be_bytes(features)),
            window,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hello_bytes_are_pinned() {
        // A difference here breaks peers that are already deployed.
        #[rustfmt::skip]
        let pinned = [
            b'd', b'r', b'f', b't', b'l', b'e', b's', b's', // magic, never changes
            0, 1,                                           // version
            0, 1,                                           // oldest understood
            0, 0, 0, 0, 0, 0, 0, 3,                         // features: deltas, verify
            0, 0, 0, 0,                                     // window: QUIC's alone
        ];
        assert_eq!(Hello::OURS.to_bytes(), pinned);
        assert_eq!(Hello::from_bytes(&pinned), Ok(Hello::OURS));
    }

    #[test]
    fn a_newer_peer_that_still_understands_us_is_accepted() {
        let newer = Hello {
            version: 9,
            oldest: 1,
            features: Features(u64::MAX),
            window: 1 << 20,
        };
        let seen = Hello::from_bytes(&newer.to_bytes()).unwrap();
        assert_eq!(seen, newer);
        assert_eq!(seen.features.common(Features::OURS), Features::OURS);
    }

    #[test]
    fn strangers_and_incompatible_versions_are_refused() {
        let mut bytes = Hello::OURS.to_bytes();
        bytes[0] = b'D';
        assert_eq!(Hello::from_bytes(&bytes), Err(HelloFault::NotDriftless));
        for (version, oldest) in [(9, 2), (0, 0), (1, 2)] {
            let bytes = Hello {
                version,
                oldest,
                features: Features(0),
                window: 0,
            }
            .to_bytes();
            assert_eq!(
                Hello::from_bytes(&bytes),
                Err(HelloFault::NoCommonVersion { version, oldest })
            );
        }
    }
}
