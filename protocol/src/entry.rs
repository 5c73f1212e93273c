//! What a tree is made of: objects, their attributes, the digests of their contents, and sums over them.

use crate::codec::checked;
use crate::limits::MODE_MAX;
use crate::xattr::XattrClasses;
use bincode::de::{Decode, Decoder};
use bincode::error::DecodeError;
use bincode::{BorrowDecode, Encode};
use std::fmt;

/// The number of a file system object. Issued by the sender in walk order, never reused; both sides know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, bincode::Decode)]
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

/// What an object is. Sockets are counted and reported by the sender, not carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, bincode::Decode)]
#[repr(u8)]
pub enum Kind {
    /// A regular file.
    File = 0,
    /// A directory.
    Directory = 1,
    /// A symbolic link, carried as text.
    Symlink = 2,
    /// A named pipe.
    Fifo = 3,
    /// A character device.
    CharDevice = 4,
    /// A block device.
    BlockDevice = 5,
}

impl Kind {
    /// Whether only root can make such an object.
    pub fn is_device(self) -> bool {
        matches!(self, Kind::CharDevice | Kind::BlockDevice)
    }
}

/// An object that has neither content nor text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, bincode::Decode)]
pub enum Special {
    /// A named pipe.
    Fifo,
    /// A character device.
    CharDevice {
        /// Which driver.
        major: u32,
        /// Which of its devices.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Which driver.
        major: u32,
        /// Which of its devices.
        minor: u32,
    },
}

impl Special {
    /// What kind of object this is.
    pub fn kind(self) -> Kind {
        match self {
            Special::Fifo => Kind::Fifo,
            Special::CharDevice { .. } => Kind::CharDevice,
            Special::BlockDevice { .. } => Kind::BlockDevice,
        }
    }

    /// What stands for a content: BLAKE3 of the major and minor number (4 bytes each, big endian), of nothing for a
    /// pipe.
    pub fn digest(self) -> Digest {
        match self {
            Special::Fifo => Digest::of(b""),
            Special::CharDevice { major, minor } | Special::BlockDevice { major, minor } => {
                Digest::of(&[major.to_be_bytes(), minor.to_be_bytes()].concat())
            }
        }
    }
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
    /// Digest of the extended attributes that are carried ([`Xattrs::digest`](crate::Xattrs::digest)); none if there
    /// are none.
    pub xattrs: Option<Digest>,
    /// Number of the hard-link group: entries with the same number are names of one object. 0 for an object that has
    /// one name in the mirror.
    pub link_group: ObjectId,
}

checked!(
    Attributes {
        mode,
        uid,
        gid,
        mtime,
        xattrs,
        link_group,
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
    /// Extended attributes of these classes are carried.
    pub xattrs: XattrClasses,
    /// Devices are carried.
    pub devices: bool,
    /// The root's own attributes are not carried, whatever else is: each end has those that it has.
    pub leaves_root: bool,
}

impl Carried {
    /// What both sides can carry.
    pub fn common(self, other: Carried) -> Carried {
        Carried {
            owner: self.owner && other.owner,
            xattrs: self.xattrs.common(other.xattrs),
            devices: self.devices && other.devices,
            leaves_root: self.leaves_root || other.leaves_root,
        }
    }
}

impl Attributes {
    /// These attributes with everything that is not carried set to zero.
    pub fn carried(self, carried: Carried) -> Attributes {
        let owner = |id: u32| if carried.owner { id } else { 0 };
        Attributes {
            uid: owner(self.uid),
            gid: owner(self.gid),
            xattrs: self.xattrs.filter(|_| !carried.xattrs.is_empty()),
            ..self
        }
    }

    /// These attributes without what `stat` does not tell.
    pub fn told_by_stat(self) -> Attributes {
        Attributes {
            xattrs: None,
            link_group: ObjectId(0),
            ..self
        }
    }

    /// These attributes, which `stat` told, with the rest from `known`.
    pub fn completed(self, known: &Attributes) -> Attributes {
        Attributes {
            xattrs: known.xattrs,
            link_group: known.link_group,
            ..self
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

/// By its second half an assumed digest is recognised. That a content has such a digest is as unlikely as guessing a key of
/// 128 bits.
const ASSUMED: [u8; 32] = *b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0nobody read this";

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(blake3::hash(bytes).into())
    }

    /// What stands for the content of a file that nobody read, because size and time are those of the copy: it is equal on
    /// both sides, and no digest of any content. Made of the file's number and its size.
    pub fn assumed(object: ObjectId, size: u64) -> Digest {
        let hash = blake3::hash(&[object.0.to_be_bytes(), size.to_be_bytes()].concat());
        let mut digest = Digest(ASSUMED);
        digest.0[..16].copy_from_slice(&hash.as_bytes()[..16]);
        digest
    }

    /// Whether this stands for a content that nobody read.
    pub fn is_assumed(&self) -> bool {
        self.0[16..] == ASSUMED[16..]
    }
}

impl EntrySum {
    /// The sum of an entry. `size` and `digest` are zero for directories.
    ///
    /// The input is a fixed 103-byte record (all integers big endian), so no two entries share one:
    /// kind (1), mode (2), uid (4), gid (4), mtime seconds (8), nanoseconds (4), size (8), digest (32), digest of the
    /// extended attributes (32), hard-link group (8).
    pub fn of(kind: Kind, attributes: Attributes, carried: Carried, size: u64, digest: Digest) -> EntrySum {
        let a = attributes.carried(carried);
        let mut record = [0u8; 103];
        record[0] = kind as u8;
        record[1..3].copy_from_slice(&a.mode.to_be_bytes());
        record[3..7].copy_from_slice(&a.uid.to_be_bytes());
        record[7..11].copy_from_slice(&a.gid.to_be_bytes());
        record[11..19].copy_from_slice(&a.mtime.seconds.to_be_bytes());
        record[19..23].copy_from_slice(&a.mtime.nanoseconds.to_be_bytes());
        record[23..31].copy_from_slice(&size.to_be_bytes());
        record[31..63].copy_from_slice(&digest.0);
        record[63..95].copy_from_slice(&a.xattrs.unwrap_or_default().0);
        record[95..103].copy_from_slice(&a.link_group.0.to_be_bytes());
        EntrySum(blake3::hash(&record).into())
    }
}
