//! Owner, mode and times.
//!
//! Between the first and the last call that changes them, nobody may do more than the old or the new attributes allow.
//! Owner and mode cannot be set in one call, so when the owner or group changes, the mode first goes down to the bits
//! that are in both the old and the new mode. Judged by the old owner that is within the old attributes, and judged by
//! the new owner within the new. Then comes the owner, then the new mode (chown clears set-id bits anyway), then the
//! times. A crash in between leaves the object with too few rights, and the next comparison finds it.

use super::directory::Directory;
use super::error::{FsError, FsErrorKind, Result};
use super::stat::{FileType, Stamp, Stat, stat_handle};
use driftless_protocol::entry::{Attributes, Carried, Kind, Timestamp};
use driftless_protocol::name::Name;
use rustix::fs::{AtFlags, CWD, Gid, Mode, Timespec, Timestamps, UTIME_OMIT, Uid};
use rustix::io::Errno;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

const SET_ATTRIBUTES: &str = "set the attributes of";

/// Bits that are dropped while the owner changes: who runs a file must never become the wrong user.
const SET_ID: u16 = 0o6000;
const STICKY: u16 = 0o1000;

impl Directory {
    /// Gives `name`, which must be a `kind`, these attributes, and answers what it then is: the kernel may drop a
    /// set-group bit, or the file system round a time.
    ///
    /// The object is held by a handle meanwhile, so swapping the name has no effect. Only what differs is changed.
    /// A symbolic link keeps its mode. RACE: who may write to this directory can put another object of the same kind
    /// here first, such as a hard link to a file of somebody else; use [`Directory::set_attributes_of`] where the
    /// object is known.
    pub fn set_attributes(&self, name: &Name, kind: Kind, a: &Attributes, carried: Carried) -> Result<Stat> {
        self.set_attributes_if(name, kind, a, carried, |_| true)
    }

    /// Like [`Directory::set_attributes`], but only on the object that `expected` was taken of.
    pub fn set_attributes_of(
        &self,
        name: &Name,
        kind: Kind,
        expected: &Stamp,
        a: &Attributes,
        carried: Carried,
    ) -> Result<Stat> {
        self.set_attributes_if(name, kind, a, carried, |stat| stat.stamp.same_object(expected))
    }

    fn set_attributes_if(
        &self,
        name: &Name,
        kind: Kind,
        a: &Attributes,
        carried: Carried,
        accept: impl FnOnce(&Stat) -> bool,
    ) -> Result<Stat> {
        let fd = self.open_path(SET_ATTRIBUTES, name)?;
        let now = stat_handle(&fd).map_err(self.failed_at(SET_ATTRIBUTES, name))?;
        if now.file_type.kind() != Some(kind) {
            return Err(FsError::substituted(
                SET_ATTRIBUTES,
                self.shown_name(name),
                now.file_type.unexpected(),
            ));
        }
        if !accept(&now) {
            let cause = "another object took its place";
            return Err(FsError::substituted(SET_ATTRIBUTES, self.shown_name(name), cause));
        }
        apply(Handle::Path(fd.as_fd()), &now, a, carried)
            .map_err(|fault| fault.into_error(self.shown_name(name)))
    }

    /// Gives this directory itself these attributes, and answers what it then is.
    pub fn set_self_attributes(&self, a: &Attributes, carried: Carried) -> Result<Stat> {
        apply(Handle::Open(self.as_fd()), &self.stat_self()?, a, carried)
            .map_err(|fault| fault.into_error(self.shown().to_owned()))
    }

    /// Sets the modification time of this directory itself.
    pub fn set_self_mtime(&self, mtime: Timestamp) -> Result<()> {
        set_mtime(Handle::Open(self.as_fd()), mtime).map_err(|f| f.into_error(self.shown().to_owned()))
    }
}

/// A handle to the object itself.
#[derive(Clone, Copy)]
pub(super) enum Handle<'a> {
    /// Open for reading or writing.
    Open(BorrowedFd<'a>),
    /// Opened with `O_PATH`.
    Path(BorrowedFd<'a>),
}

impl Handle<'_> {
    fn fd(&self) -> BorrowedFd<'_> {
        match *self {
            Handle::Open(fd) | Handle::Path(fd) => fd,
        }
    }
}

/// Why attributes could not be set.
pub(super) enum MetaFault {
    Kernel(Errno),
    /// `/proc`, through which this kernel must go, is not there.
    NoProc,
    /// The attributes hold a value that means something else to the kernel, or nothing.
    Value(&'static str),
}

impl MetaFault {
    pub(super) fn into_error(self, path: String) -> FsError {
        let error = |errno| FsError::new(SET_ATTRIBUTES, path, errno);
        match self {
            MetaFault::Kernel(errno) => error(errno),
            MetaFault::NoProc => error(Errno::NOENT).explained(FsErrorKind::Unsupported, NO_PROC),
            MetaFault::Value(cause) => error(Errno::INVAL).explained(FsErrorKind::Unsupported, cause),
        }
    }
}

impl From<Errno> for MetaFault {
    fn from(errno: Errno) -> MetaFault {
        MetaFault::Kernel(errno)
    }
}

/// Takes an object from `now` to `wanted` and answers what it then is.
pub(super) fn apply(
    handle: Handle<'_>,
    now: &Stat,
    wanted: &Attributes,
    carried: Carried,
) -> Result<Stat, MetaFault> {
    if wanted.mode > 0o7777 {
        return Err(MetaFault::Value("the mode has bits that are no permissions"));
    }
    let has_mode = now.file_type != FileType::Symlink;
    let mut mode = now.attributes.mode;
    let mut changed = false;
    if carried.owner && (wanted.uid, wanted.gid) != (now.attributes.uid, now.attributes.gid) {
        // This number asks the kernel to leave the owner as it is.
        if wanted.uid == u32::MAX || wanted.gid == u32::MAX {
            return Err(MetaFault::Value(
                "the owner or group has a number that nobody can have",
            ));
        }
        let between = narrowed(now.file_type, mode, wanted.mode);
        if has_mode && between != mode {
            set_mode(handle, between)?;
        }
        if let Err(errno) = set_owner(handle, wanted) {
            if has_mode && between != mode {
                // Nothing has changed hands: the old mode is right again. Failing here leaves too few rights.
                let _ = set_mode(handle, mode);
            }
            return Err(errno.into());
        }
        // What is left of the set-id bits depends on type and file system; look instead of guessing.
        mode = stat_handle(handle.fd())?.attributes.mode;
        changed = true;
    }
    if has_mode && mode != wanted.mode {
        set_mode(handle, wanted.mode)?;
        changed = true;
    }
    if now.attributes.mtime != wanted.mtime {
        set_mtime(handle, wanted.mtime)?;
        changed = true;
    }
    if changed {
        Ok(stat_handle(handle.fd())?)
    } else {
        Ok(*now)
    }
}

/// The mode while the owner changes: no bit that is not in both, except the sticky bit, which takes rights away.
fn narrowed(file_type: FileType, old: u16, new: u16) -> u16 {
    let both = old & new & !STICKY;
    let set_id = if file_type == FileType::Directory {
        0
    } else {
        SET_ID
    };
    (both & !set_id) | ((old | new) & STICKY)
}

fn set_owner(handle: Handle<'_>, wanted: &Attributes) -> Result<(), Errno> {
    let (uid, gid) = (Uid::from_raw(wanted.uid), Gid::from_raw(wanted.gid));
    rustix::fs::chownat(handle.fd(), "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?;
    #[cfg(test)]
    steps::record(handle);
    Ok(())
}

fn set_mode(handle: Handle<'_>, mode: u16) -> Result<(), MetaFault> {
    let mode = Mode::from_raw_mode(u32::from(mode));
    match handle {
        Handle::Open(fd) => rustix::fs::fchmod(fd, mode)?,
        // fchmod refuses such handles. Linux 6.6 has a call for them.
        Handle::Path(fd) => match fchmodat2(fd, mode) {
            Err(Errno::NOSYS | Errno::PERM | Errno::OPNOTSUPP) => set_mode_through_proc(fd, mode)?,
            other => other?,
        },
    }
    #[cfg(test)]
    steps::record(handle);
    Ok(())
}

fn set_mtime(handle: Handle<'_>, mtime: Timestamp) -> Result<(), MetaFault> {
    let times = Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: mtime.seconds(),
            tv_nsec: mtime.nanoseconds().into(),
        },
    };
    match handle {
        Handle::Open(fd) => Ok(rustix::fs::futimens(fd, &times)?),
        Handle::Path(fd) => match rustix::fs::utimensat(fd, "", &times, AtFlags::EMPTY_PATH) {
            // Before Linux 5.8.
            Err(Errno::INVAL) => set_times_through_proc(fd, &times),
            other => Ok(other?),
        },
    }
}

/// The way before Linux 6.6: the entry in `/proc` is the object itself. It must not be a link, whose mode cannot be
/// set; callers have looked.
fn set_mode_through_proc(fd: BorrowedFd<'_>, mode: Mode) -> Result<(), MetaFault> {
    rustix::fs::chmodat(CWD, proc_path(fd), mode, AtFlags::empty()).map_err(through_proc)
}

/// The way before Linux 5.8. The entry of a link's handle is the link: it is not followed further.
fn set_times_through_proc(fd: BorrowedFd<'_>, times: &Timestamps) -> Result<(), MetaFault> {
    rustix::fs::utimensat(CWD, proc_path(fd), times, AtFlags::empty()).map_err(through_proc)
}

/// `fchmodat2(fd, "", mode, AT_EMPTY_PATH)`, since Linux 6.6.
fn fchmodat2(fd: BorrowedFd<'_>, mode: Mode) -> Result<(), Errno> {
    static MISSING: AtomicBool = AtomicBool::new(false);
    if MISSING.load(Ordering::Relaxed) {
        return Err(Errno::NOSYS);
    }
    // SAFETY: the handle lives through the call, the path is a string that ends in zero, and the kernel only reads it.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_fchmodat2,
            fd.as_raw_fd(),
            c"".as_ptr(),
            mode.as_raw_mode(),
            libc::AT_EMPTY_PATH,
        )
    };
    if answer == 0 {
        return Ok(());
    }
    let errno = super::directory::errno_of(&std::io::Error::last_os_error());
    if errno == Errno::NOSYS {
        MISSING.store(true, Ordering::Relaxed);
    }
    Err(errno)
}

/// What to say when the only way is through a file system that is not there.
pub(super) const NO_PROC: &str =
    "/proc is not mounted, and this kernel or these privileges offer no other way";

/// The name of an open object in `/proc`.
pub(super) fn proc_path(fd: impl AsFd) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

fn through_proc(errno: Errno) -> MetaFault {
    if errno == Errno::NOENT {
        MetaFault::NoProc
    } else {
        MetaFault::Kernel(errno)
    }
}

/// What an object is after every single step, for tests: a look from another thread can fall between the kernel's
/// own stores and show what never was.
#[cfg(test)]
pub(super) mod steps {
    use super::{Attributes, Handle, stat_handle};
    use std::cell::RefCell;

    thread_local! {
        static SEEN: RefCell<Vec<Attributes>> = const { RefCell::new(Vec::new()) };
    }

    pub(super) fn record(handle: Handle<'_>) {
        let now = stat_handle(handle.fd()).unwrap().attributes;
        SEEN.with_borrow_mut(|seen| seen.push(now));
    }

    /// Everything that this thread's calls went through since the last time.
    pub(in super::super) fn take() -> Vec<Attributes> {
        SEEN.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use driftless_protocol::entry::Timestamp;

    /// What older kernels need, on any kernel: both ways change the object that is held, and nothing behind it.
    #[test]
    fn the_ways_through_proc_reach_the_object_itself() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Directory::open_root(temp.path()).unwrap();
        std::fs::write(temp.path().join("file"), "").unwrap();
        std::fs::create_dir(temp.path().join("dir")).unwrap();
        std::os::unix::fs::symlink("file", temp.path().join("link")).unwrap();
        let name = |n: &str| Name::new(n.as_bytes()).unwrap();
        let stat = |n: &str| dir.stat(&name(n)).unwrap().unwrap();
        for (second, n) in [(10, "file"), (20, "dir"), (30, "link")] {
            let fd = dir.open_path("open", &name(n)).unwrap();
            let at = Timespec {
                tv_sec: second,
                tv_nsec: 9,
            };
            let times = Timestamps {
                last_access: at,
                last_modification: at,
            };
            assert!(set_times_through_proc(fd.as_fd(), &times).is_ok());
            assert_eq!(stat(n).attributes.mtime, Timestamp::new(second, 9).unwrap());
            if n != "link" {
                assert!(set_mode_through_proc(fd.as_fd(), Mode::from_raw_mode(0o2751)).is_ok());
                assert_eq!(stat(n).attributes.mode, 0o2751);
            }
        }
        assert_eq!(stat("file").attributes.mtime, Timestamp::new(10, 9).unwrap());
    }

    #[test]
    fn the_mode_in_between_is_within_both() {
        assert_eq!(narrowed(FileType::Regular, 0o4755, 0o4750), 0o750);
        assert_eq!(narrowed(FileType::Regular, 0o660, 0o606), 0o600);
        assert_eq!(narrowed(FileType::Directory, 0o2770, 0o3775), 0o3770);
        assert_eq!(narrowed(FileType::Directory, 0o1777, 0o777), 0o1777);
    }
}
