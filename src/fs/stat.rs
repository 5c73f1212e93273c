//! What stat says about an object.

use super::follow::{CIRCLE, NOWHERE};
use driftless_protocol::entry::{Attributes, Kind, ObjectId, Special, Timestamp};
use rustix::fs::{AtFlags, Statx, StatxFlags, StatxTimestamp};
use rustix::io::Errno;
use std::os::fd::AsFd;

/// What an object is, as the file system says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileType {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A pipe or a device.
    Special(Special),
    /// Something that is not mirrored: `socket` or `unknown object`.
    Other(&'static str),
}

/// By what an object and its state are recognised on this machine. Never sent.
///
/// Equal stamps mean: the same object, and nothing was changed since, as far as the clock of the file system
/// resolves it (writes through a mapping count when they are written out).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stamp {
    /// The file system it is on. Not stable across reboots everywhere.
    pub device: u64,
    /// Its number there. Reused after it is gone, hence `birth`.
    pub inode: u64,
    /// When it was created, where the file system knows.
    pub birth: Option<Timestamp>,
    /// When anything about it last changed.
    pub ctime: Timestamp,
    /// When its content last changed, or what somebody set.
    pub mtime: Timestamp,
    /// Bytes of a file or of a link's text; 0 for directories.
    pub size: u64,
}

/// An object's type, attributes and stamp at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// What it is.
    pub file_type: FileType,
    /// What a mirror carries of it; a symbolic link has mode 0.
    pub attributes: Attributes,
    /// Bytes of a file or of a link's text; 0 for directories.
    pub size: u64,
    /// How many names it has.
    pub links: u32,
    /// By what it is recognised here.
    pub stamp: Stamp,
    /// A symbolic link stands there, and this is what it leads to, or that it leads nowhere.
    pub is_followed: bool,
    /// It is a block device that is taken for a file. Its times do not tell of what is written to it.
    pub is_device: bool,
}

impl FileType {
    /// As what a mirror carries it, if it does.
    pub fn kind(self) -> Option<Kind> {
        match self {
            FileType::Regular => Some(Kind::File),
            FileType::Directory => Some(Kind::Directory),
            FileType::Symlink => Some(Kind::Symlink),
            FileType::Special(special) => Some(special.kind()),
            FileType::Other(_) => None,
        }
    }

    /// Why what a link leads to is not mirrored in its place, if that is so.
    pub fn unfollowable(self) -> Option<&'static str> {
        match self {
            NOWHERE => Some("the link leads nowhere"),
            CIRCLE => Some("the directory would contain itself"),
            _ => None,
        }
    }

    /// The complaint that this type is not the one meant.
    pub(super) fn unexpected(self) -> &'static str {
        match self {
            FileType::Regular => "a file stands there",
            FileType::Directory => "a directory stands there",
            FileType::Symlink => "a symbolic link stands there",
            FileType::Other("socket") => "a socket stands there",
            FileType::Special(Special::Fifo) => "a FIFO stands there",
            FileType::Special(_) => "a device stands there",
            FileType::Other(_) => "something of an unknown type stands there",
        }
    }
}

impl Stamp {
    /// Length of [`Stamp::to_bytes`].
    pub const BYTES: usize = 64;

    /// Whether both are of the same object, changed or not.
    pub fn same_object(&self, other: &Stamp) -> bool {
        (self.device, self.inode, self.birth) == (other.device, other.inode, other.birth)
    }

    /// A fixed form for storing, integers big endian: device (8), inode (8), birth known (1) and birth (12), ctime
    /// (12), mtime (12), size (8), and 3 zero bytes.
    pub fn to_bytes(&self) -> [u8; Stamp::BYTES] {
        let mut bytes = [0; Stamp::BYTES];
        bytes[0..8].copy_from_slice(&self.device.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.inode.to_be_bytes());
        bytes[16] = u8::from(self.birth.is_some());
        bytes[17..29].copy_from_slice(&time_to_bytes(self.birth.unwrap_or_default()));
        bytes[29..41].copy_from_slice(&time_to_bytes(self.ctime));
        bytes[41..53].copy_from_slice(&time_to_bytes(self.mtime));
        bytes[53..61].copy_from_slice(&self.size.to_be_bytes());
        bytes
    }

    /// Reads what [`Stamp::to_bytes`] wrote; `None` for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Option<Stamp> {
        let bytes: &[u8; Stamp::BYTES] = bytes.try_into().ok()?;
        let number = |at: usize| Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let birth = time_from_bytes(&bytes[17..29])?;
        let stamp = Stamp {
            device: number(0)?,
            inode: number(8)?,
            birth: (bytes[16] == 1).then_some(birth),
            ctime: time_from_bytes(&bytes[29..41])?,
            mtime: time_from_bytes(&bytes[41..53])?,
            size: number(53)?,
        };
        (stamp.to_bytes() == *bytes).then_some(stamp)
    }
}

fn time_to_bytes(time: Timestamp) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&time.seconds().to_be_bytes());
    bytes[8..].copy_from_slice(&time.nanoseconds().to_be_bytes());
    bytes
}

fn time_from_bytes(bytes: &[u8]) -> Option<Timestamp> {
    let seconds = i64::from_be_bytes(bytes.get(..8)?.try_into().ok()?);
    Timestamp::new(seconds, u32::from_be_bytes(bytes.get(8..12)?.try_into().ok()?))
}

impl Stat {
    fn from_statx(x: &Statx) -> Stat {
        let mode = u32::from(x.stx_mode);
        let file_type = match rustix::fs::FileType::from_raw_mode(mode) {
            rustix::fs::FileType::RegularFile => FileType::Regular,
            rustix::fs::FileType::Directory => FileType::Directory,
            rustix::fs::FileType::Symlink => FileType::Symlink,
            rustix::fs::FileType::Fifo => FileType::Special(Special::Fifo),
            rustix::fs::FileType::Socket => FileType::Other("socket"),
            rustix::fs::FileType::CharacterDevice => FileType::Special(Special::CharDevice {
                major: x.stx_rdev_major,
                minor: x.stx_rdev_minor,
            }),
            rustix::fs::FileType::BlockDevice => FileType::Special(Special::BlockDevice {
                major: x.stx_rdev_major,
                minor: x.stx_rdev_minor,
            }),
            _ => FileType::Other("unknown object"),
        };
        let size = match file_type {
            FileType::Directory | FileType::Special(_) => 0,
            _ => x.stx_size,
        };
        let mtime = timestamp(x.stx_mtime);
        Stat {
            file_type,
            attributes: Attributes {
                mode: if file_type == FileType::Symlink {
                    0
                } else {
                    x.stx_mode & 0o7777
                },
                uid: x.stx_uid,
                gid: x.stx_gid,
                mtime,
                xattrs: None,
                link_group: ObjectId(0),
            },
            size,
            links: x.stx_nlink,
            stamp: Stamp {
                device: rustix::fs::makedev(x.stx_dev_major, x.stx_dev_minor),
                inode: x.stx_ino,
                birth: (x.stx_mask & StatxFlags::BTIME.bits() != 0).then(|| timestamp(x.stx_btime)),
                ctime: timestamp(x.stx_ctime),
                mtime,
                size,
            },
            is_followed: false,
            is_device: false,
        }
    }
}

/// A kernel time. Some file systems give out nanoseconds that their disk format allows but no clock shows.
fn timestamp(time: StatxTimestamp) -> Timestamp {
    Timestamp::new(time.tv_sec, time.tv_nsec.min(999_999_999)).unwrap_or_default()
}

/// Stat of what a handle (also one opened with `O_PATH`) leads to.
pub(super) fn stat_handle(handle: impl AsFd) -> Result<Stat, Errno> {
    statx(handle, b"", AtFlags::EMPTY_PATH)
}

/// Stat of an open file.
pub fn stat_open(file: &std::fs::File) -> std::io::Result<Stat> {
    stat_handle(file).map_err(std::io::Error::from)
}

/// Stat of what `name` in `directory` is, never of what it points to.
pub(super) fn stat_at(directory: impl AsFd, name: &[u8]) -> Result<Stat, Errno> {
    statx(directory, name, AtFlags::NO_AUTOMOUNT)
}

fn statx(fd: impl AsFd, name: &[u8], flags: AtFlags) -> Result<Stat, Errno> {
    let fields = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    let flags = flags | AtFlags::SYMLINK_NOFOLLOW;
    rustix::io::retry_on_intr(|| rustix::fs::statx(&fd, name, flags, fields)).map(|x| Stat::from_statx(&x))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_time() -> impl Strategy<Value = Timestamp> {
        (any::<i64>(), 0u32..1_000_000_000).prop_map(|(s, n)| Timestamp::new(s, n).unwrap())
    }

    proptest! {
        #[test]
        fn stamps_are_stored_and_read_back(
            (device, inode, size) in any::<(u64, u64, u64)>(),
            birth in proptest::option::of(any_time()), ctime in any_time(), mtime in any_time(),
        ) {
            let stamp = Stamp { device, inode, birth, ctime, mtime, size };
            prop_assert_eq!(Stamp::from_bytes(&stamp.to_bytes()), Some(stamp));
        }

        #[test]
        fn arbitrary_bytes_are_a_stamp_or_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..70)) {
            if let Some(stamp) = Stamp::from_bytes(&bytes) {
                prop_assert_eq!(&stamp.to_bytes()[..], &bytes[..]);
            }
        }
    }
}
