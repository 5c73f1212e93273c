//! Attributes to give to things.

use crate::support::exact::{EVERYTHING, Judge};
use crate::support::is_root;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, XattrFlags};
use std::path::Path;

/// What this process can set, and so what a mirror of its own carries.
pub fn judge() -> Judge {
    if is_root() {
        return EVERYTHING;
    }
    Judge {
        owners: false,
        namespaces: &["user.", "system.posix_acl_"],
        ..EVERYTHING
    }
}

pub fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, XattrFlags::empty())
        .unwrap_or_else(|error| panic!("{name} of {}: {error}", path.display()));
}

pub fn remove_xattr(path: &Path, name: &str) {
    rustix::fs::lremovexattr(path, name).unwrap();
}

/// Sets the time of modification, also that of a link itself.
pub fn set_time(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// An access ACL as the kernel takes it, with an entry for a user and one for a group, and the mode that belongs to it.
pub fn acl(user: u32, owner: u16, other: u16, mask: u16) -> Vec<u8> {
    const NOBODY: u32 = u32::MAX;
    let entries: [(u16, u16, u32); 6] = [
        (0x01, owner, NOBODY),
        (0x02, 6, user),
        (0x04, 4, NOBODY),
        (0x08, 5, user + 1),
        (0x10, mask, NOBODY),
        (0x20, other, NOBODY),
    ];
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

/// The capability to bind low ports, effective.
pub fn capability() -> Vec<u8> {
    let words: [u32; 5] = [0x0200_0001, 1 << 10, 0, 0, 0];
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}
