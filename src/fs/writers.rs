//! Whether the times of a file will tell of what others write to it.
//!
//! `write` moves mtime and ctime each time. A store through a shared mapping does so only when it is the first into its
//! page since that page was written to the disk: then the page is write-protected, and the store is noticed. As long as
//! the page is dirty, further stores leave no trace. So a file that is read while somebody can write to it may change
//! behind the read, and no time ever says so, unless nothing of it was dirty when its times were taken.

use super::read::{StableRead, write_out};
use rustix::io::Errno;
use std::fs::File;
use std::os::fd::AsRawFd;

/// What the kernel calls `F_SETSIG`.
const F_SETSIG: libc::c_int = 10;
/// The number of `cachestat`, the same on all architectures but alpha.
const SYS_CACHESTAT: libc::c_long = 451;

/// File systems that write-protect a page when they write it out, and count dirty pages where `cachestat` looks: ext4,
/// xfs, btrfs, f2fs. (tmpfs never moves a time for a store; overlayfs keeps the pages elsewhere.)
const TELLING: [u64; 4] = [0xef53, 0x5846_5342, 0x9123_683e, 0xf2f5_2010];

/// The pages of a file of up to this size are counted before it is asked who has it open.
const COUNTED_BYTES_MAX: u64 = 8 << 20;

#[repr(C)]
struct CacheRange {
    offset: u64,
    length: u64,
}

#[repr(C)]
#[derive(Default)]
struct CacheCounts {
    cached: u64,
    dirty: u64,
    writeback: u64,
    evicted: u64,
    recently_evicted: u64,
}

impl StableRead {
    /// Whether any store after the file's times were taken moves them, seen from now on; to be asked before the first
    /// read. With `write`, dirty pages are written to the disk first, which takes a while and makes nothing durable.
    ///
    /// Where nothing can be found out (a file of somebody else on an unusual file system), yes is assumed.
    pub fn will_tell(&self, write: bool) -> bool {
        let file = self.file();
        // To count the pages of a large file takes milliseconds; to ask for writers first saves that nearly always.
        if self.stat().size > COUNTED_BYTES_MAX && has_writer(file) == Some(false) {
            return true;
        }
        let is_telling = rustix::fs::fstatfs(file)
            .is_ok_and(|found| TELLING.contains(&(found.f_type as u64 & 0xffff_ffff)));
        if is_telling && (is_clean(file) == Some(true) || write && write_out(file, 0, 0).is_ok()) {
            return true;
        }
        !has_writer(file).unwrap_or(is_telling)
    }
}

/// Whether no page of a file is dirty. `None` where that cannot be asked (before Linux 6.5).
fn is_clean(file: &File) -> Option<bool> {
    page_counts(file).map(|counts| counts.dirty + counts.writeback == 0)
}

/// Whether no page of a file is in memory. `None` where that cannot be asked (before Linux 6.5).
pub(super) fn is_uncached(file: &File) -> Option<bool> {
    page_counts(file).map(|counts| counts.cached == 0)
}

fn page_counts(file: &File) -> Option<CacheCounts> {
    let range = CacheRange { offset: 0, length: 0 };
    let mut counts = CacheCounts::default();
    // SAFETY: both structures are those of `linux/mman.h` and live through the call, which writes to the second only.
    let answer = unsafe {
        libc::syscall(
            SYS_CACHESTAT,
            file.as_raw_fd(),
            std::ptr::from_ref(&range),
            std::ptr::from_mut(&mut counts),
            0,
        )
    };
    (answer == 0).then_some(counts)
}

/// Whether anybody has a file open for writing, which whoever maps it to write has. `None` where that cannot be asked:
/// for others' files without `CAP_LEASE`, and on file systems without leases.
///
/// A read lease is granted only if there is no writer. It is given back in the same breath; a writer that opens the file in
/// between waits for as long as that takes. The signal that it would cause is one which is ignored unless asked for.
fn has_writer(file: &File) -> Option<bool> {
    let fcntl = |operation, argument: libc::c_int| {
        // SAFETY: these operations take a number, and the handle lives through the call.
        match unsafe { libc::fcntl(file.as_raw_fd(), operation, argument) } {
            -1 => Err(Errno::from_io_error(&std::io::Error::last_os_error())),
            _ => Ok(()),
        }
    };
    fcntl(F_SETSIG, libc::SIGURG).ok()?;
    match fcntl(libc::F_SETLEASE, libc::F_RDLCK) {
        Ok(()) => fcntl(libc::F_SETLEASE, libc::F_UNLCK).ok().map(|()| false),
        Err(Some(Errno::AGAIN)) => Some(true),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::Directory;
    use driftless_protocol::Name;
    use std::fs::OpenOptions;
    use std::io::Write;

    #[test]
    fn a_writer_is_seen_until_it_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let mut writer = File::create(&path).unwrap();
        writer.write_all(b"text").unwrap();
        let file = File::open(&path).unwrap();
        assert_eq!(has_writer(&file), Some(true));
        drop(writer);
        assert_eq!(has_writer(&file), Some(false));
        // Asking left nothing behind: nobody waits, and nobody is killed.
        OpenOptions::new().append(true).open(&path).unwrap();
    }

    #[test]
    fn what_is_written_out_is_clean_whoever_has_it_open() {
        let directory = tempfile::tempdir().unwrap();
        let root = Directory::open_root(directory.path()).unwrap();
        let mut writer = File::create(directory.path().join("file")).unwrap();
        writer.write_all(&[1; 10_000]).unwrap();
        let open = || StableRead::open(&root, &Name::new(*b"file").unwrap()).unwrap();
        assert!(!open().will_tell(false));
        let is_telling = rustix::fs::statfs(directory.path())
            .is_ok_and(|found| TELLING.contains(&(found.f_type as u64 & 0xffff_ffff)));
        assert_eq!(open().will_tell(true), is_telling);
        if is_clean(&writer).is_some() {
            assert_eq!(open().will_tell(false), is_telling, "clean from then on");
        }
        drop(writer);
        assert!(open().will_tell(false));
    }
}
