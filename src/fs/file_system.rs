//! Which file system a directory is on.

use super::directory::Directory;
use std::os::fd::{AsFd, AsRawFd};

/// File systems whose `f_fsid` is made of what is stored in them, or drawn when they are mounted for the first time: ext4,
/// btrfs (where subvolumes differ), tmpfs, ZFS, bcachefs. That of others is most often the number of a device, which another
/// disk has after the next start.
const TELLING: [u64; 5] = [0xef53, 0x9123_683e, 0x0102_1994, 0x2fc1_2fc1, 0xca45_1a4e];

/// `FS_IOC_GETFSUUID`, which Linux has from 6.9 on.
const GET_UUID: libc::Ioctl = 0x8011_1500u32 as libc::Ioctl;

/// `struct fsuuid2`.
#[repr(C)]
struct Uuid {
    length: u8,
    bytes: [u8; 16],
}

impl Directory {
    /// What tells its file system from every other one, also when it was unmounted and mounted again. `None` where the kernel
    /// cannot say.
    pub fn file_system_id(&self) -> Option<Vec<u8>> {
        let found = rustix::fs::fstatfs(self.as_fd()).ok()?;
        if TELLING.contains(&(found.f_type as u64 & 0xffff_ffff)) {
            let id = rustix::fs::fstatvfs(self.as_fd()).ok()?.f_fsid;
            return (id != 0).then(|| id.to_be_bytes().to_vec());
        }
        let mut uuid = Uuid {
            length: 0,
            bytes: [0; 16],
        };
        // SAFETY: the descriptor and the structure, which the kernel fills in at most, live across the call.
        let answer = unsafe { libc::ioctl(self.as_fd().as_raw_fd(), GET_UUID, &raw mut uuid) };
        let bytes = uuid.bytes.get(..usize::from(uuid.length))?;
        (answer == 0 && bytes.iter().any(|&byte| byte != 0)).then(|| bytes.to_vec())
    }
}
