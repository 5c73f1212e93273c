//! Why fanotify cannot be used, in words that a status can print.

use rustix::io::Errno;
use std::{fmt, io};

/// Why fanotify watches nothing, or not this directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unsupported {
    /// This process may not.
    NotPermitted {
        /// The capability that it lacks, if that is known.
        capability: Option<&'static str>,
    },
    /// The kernel is older than 5.9, or built without it.
    Kernel,
    /// The user has as many notification groups as the system allows.
    GroupLimit,
    /// The user has as many marks as the system allows.
    MarkLimit,
    /// The directory is in a subvolume, which has another id than the file system.
    Subvolume,
    /// The file system has no file handles that lead back to the file.
    NoHandles,
    /// The file system has no id.
    NoId,
    /// Others may change the file system without this kernel's knowledge.
    Remote {
        /// Its type.
        kind: &'static str,
    },
    /// Another file system in the tree has the same id: a copy of it, perhaps a snapshot.
    SharedId,
    /// The tree reaches more file systems than are looked at.
    TooManyFileSystems,
    /// Something else.
    Other {
        /// What the kernel said.
        errno: i32,
    },
}

impl Unsupported {
    /// What `fanotify_init` said.
    pub(super) fn from_init(errno: Errno) -> Unsupported {
        match errno {
            Errno::PERM => Unsupported::NotPermitted { capability: None },
            Errno::INVAL | Errno::NOSYS => Unsupported::Kernel,
            Errno::MFILE => Unsupported::GroupLimit,
            errno => Unsupported::other(errno),
        }
    }

    /// What `fanotify_mark` said.
    pub(super) fn from_mark(errno: Errno) -> Unsupported {
        match errno {
            Errno::PERM => Unsupported::NotPermitted { capability: None },
            Errno::INVAL | Errno::NOSYS => Unsupported::Kernel,
            Errno::NOSPC => Unsupported::MarkLimit,
            Errno::XDEV => Unsupported::Subvolume,
            Errno::NODEV => Unsupported::NoId,
            Errno::OPNOTSUPP => Unsupported::NoHandles,
            errno => Unsupported::other(errno),
        }
    }

    /// What `name_to_handle_at` said.
    pub(super) fn from_handle(errno: Errno) -> Unsupported {
        match errno {
            Errno::OPNOTSUPP | Errno::OVERFLOW => Unsupported::NoHandles,
            errno => Unsupported::other(errno),
        }
    }

    /// What anything else said.
    pub(super) fn other(errno: Errno) -> Unsupported {
        Unsupported::Other {
            errno: errno.raw_os_error(),
        }
    }
}

/// Completes "fanotify ...".
impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unsupported::NotPermitted {
                capability: Some(capability),
            } => write!(f, "fanotify needs {capability}, which this process does not have"),
            Unsupported::NotPermitted { capability: None } => {
                f.write_str("fanotify is not permitted here (in a container or user namespace?)")
            }
            Unsupported::Kernel => f.write_str("fanotify needs Linux 5.9 or later, built with CONFIG_FANOTIFY"),
            Unsupported::GroupLimit => f.write_str(
                "all fanotify groups of this user are in use; raise the sysctl fs.fanotify.max_user_groups",
            ),
            Unsupported::MarkLimit => f.write_str(
                "all fanotify marks of this user are in use; raise the sysctl fs.fanotify.max_user_marks",
            ),
            Unsupported::Subvolume => f.write_str("fanotify cannot mark btrfs subvolumes"),
            Unsupported::NoHandles => {
                f.write_str("fanotify cannot mark file systems without lasting file handles (overlay and others)")
            }
            Unsupported::NoId => f.write_str("fanotify cannot mark file systems without an id"),
            Unsupported::Remote { kind } => {
                write!(f, "fanotify does not see what other machines or programs change on {kind}")
            }
            Unsupported::SharedId => {
                f.write_str("fanotify cannot tell a file system from another one in the tree with the same id (its copy?)")
            }
            Unsupported::TooManyFileSystems => f.write_str("the tree reaches more than 64 file systems"),
            Unsupported::Other { errno } => {
                write!(f, "fanotify failed: {}", io::Error::from_raw_os_error(*errno))
            }
        }
    }
}

/// The name of a type of file system whose files others may change without this kernel's knowledge; `None` for those
/// that only this kernel changes, as far as is known. By the number that `statfs` answers.
pub(super) fn remote(magic: u64) -> Option<&'static str> {
    const REMOTE: [(u64, &str); 14] = [
        (0x6969, "NFS"),
        (0x517b, "SMB"),
        (0xff53_4d42, "CIFS"),
        (0xfe53_4d42, "SMB"),
        (0x564c, "NCP"),
        (0x5346_414f, "AFS"),
        (0x6b41_4653, "AFS"),
        (0x7375_7245, "Coda"),
        (0x00c3_6400, "Ceph"),
        (0x0102_1997, "9P"),
        (0x0bd0_0bd0, "Lustre"),
        (0x0116_1970, "GFS2"),
        (0x7461_636f, "OCFS2"),
        (0x6573_5546, "FUSE"),
    ];
    let (_, name) = REMOTE.into_iter().find(|(number, _)| *number == magic)?;
    Some(name)
}
