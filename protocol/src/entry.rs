//! What a tree is made of: objects, their attributes, the digests of their contents, and sums over them.

use crate::codec::checked;
use crate::limits::MODE_MAX;
use bincode::de::{Decode, Decoder};
use bincode::error::DecodeError;
use bincode::{BorrowDecode, Encode};
use std::fmt;

/// The number of a file system object. Issued by the sender in walk order, never reused; both sides know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, bincode::Decode)]
pub struct ObjectId(pub u64);

impl ObjectId {
    /// The root directory of a mirror.
    pub const ROOT: ObjectId = ObjectId(1);

    /// First of the numbers that a receiver gives to what it found on its own disk. A sender never issues them.
    pub const FIRST_LOCAL: ObjectId = ObjectId(1 << 63);

    /// Whether a receiver made this number for something that no sender has named yet.
    pub fn is_local(self) -> bool {
        self >= ObjectId::FIRST_LOCAL
    }
}

/// What an object is. Other types (devices, FIFOs, sockets) are counted and reported by the sender, not carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, bincode::Decode)]
#[repr(u8)]
pub enum Kind {
    /// A regular file.
    File = 0,
    /// A directory.
    Directory = 1,
    /// A symbolic link, carried as text.
    Symlink = 2,
}

/// Seconds and nanoseconds since 1970, negative before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode)]
pub struct Timestamp {
    seconds: i64,
    nanoseconds: u32,
}

impl Timestamp {
    /// A time; `None` when `nanoseconds` is not below 1,000,000,000.
    pub fn new(seconds: i64, nanoseconds: u32) -> Option<Timestamp> {
        (nanoseconds < 1_000_000_000).then_some(Timestamp { seconds, nanoseconds })
    }

    /// Whole seconds, rounded down.
    pub fn seconds(self) -> i64 {
        self.seconds
    }

    /// Nanoseconds past [`Timestamp::seconds`], 0 to 999,999,999.
    pub fn nanoseconds(self) -> u32 {
        self.nanoseconds
    }
}

impl<C> Decode<C> for Timestamp {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let (seconds, nanoseconds) = Decode::decode(decoder)?;
        Timestamp::new(seconds, nanoseconds).ok_or(DecodeError::Other("nanoseconds out of range"))
    }
}

impl<'de, C> BorrowDecode<'de, C> for Timestamp {
    fn borrow_decode<D: bincode::de::BorrowDecoder<'de, Context = C>>(
        decoder: &mut D,
    ) -> Result<Self, DecodeError> {
        Timestamp::decode(decoder)
    }
}

/// The attributes of an object that a mirror carries. Symbolic links have mode 0 here (Linux ignores theirs).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Attributes {
    /// Permission bits with set-id and sticky, `0o7777` at most.
    pub mode: u16,
    /// Owner, by number.
    pub uid: u32,
    /// Group, by number.
    pub gid: u32,
    /// Time of the last modification.
    pub mtime: Timestamp,
}

checked!(
    Attributes {
        mode,
        uid,
        gid,
        mtime
    },
    |attributes: &Attributes| {
        if attributes.mode > MODE_MAX {
            Err("a mode has bits that are no permissions")
        } else {
            Ok(())
        }
    }
);

/// Which attributes a mirror carries, agreed in the handshake; sums cover just these, so that a receiver that may
/// not change owners can still be exactly in sync with what it can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Encode, bincode::Decode)]
pub struct Carried {
    /// Owner and group are carried.
    pub owner: bool,
}

impl Attributes {
    /// These attributes with everything that is not carried set to zero.
    pub fn carried(self, carried: Carried) -> Attributes {
        if carried.owner {
            self
        } else {
            Attributes {
                uid: 0,
                gid: 0,
                ..self
            }
        }
    }
}

macro_rules! hash_value {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, bincode::Decode)]
        pub struct $name(pub [u8; 32]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

hash_value! {
    /// BLAKE3 of a file's whole content, or of a symbolic link's text.
    Digest
}

hash_value! {
    /// BLAKE3 over everything that a mirror carries of one entry: kind, attributes, size, content digest.
    EntrySum
}

hash_value! {
    /// The sum of a whole tree, folded to 32 bytes. Equal sums mean equal trees.
    TreeSum
}

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(blake3::hash(bytes).into())
    }
}

impl EntrySum {
    /// The sum of an entry. `size` and `digest` are zero for directories.
    ///
    /// The input is a fixed 71-byte record (all integers big endian), so no two entries share one:
    /// kind (1), mode (2), uid (4), gid (4), mtime seconds (8), nanoseconds (4), size (8), digest (32), and 8 zero
    /// bytes kept for later attributes.
    pub fn of(kind: Kind, attributes: Attributes, carried: Carried, size: u64, digest: Digest) -> EntrySum {
        let a = attributes.carried(carried);
        let mut record = [0u8; 71];
        record[0] = kind as u8;
        record[1..3].copy_from_slice(&a.mode.to_be_bytes());
        record[3..7].copy_from_slice(&a.uid.to_be_bytes());
        record[7..11].copy_from_slice(&a.gid.to_be_bytes());
        record[11..19].copy_from_slice(&a.mtime.seconds.to_be_bytes());
        record[19..23].copy_from_slice(&a.mtime.nanoseconds.to_be_bytes());
        record[23..31].copy_from_slice(&size.to_be_bytes());
        record[31..63].copy_from_slice(&digest.0);
        EntrySum(blake3::hash(&record).into())
    }
}
