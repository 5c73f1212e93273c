//! Owner, mode and times.
//!
//! Between the first and the last call that changes them, nobody may do more than the old or the new attributes allow.
//! Owner and mode cannot be set in one call, so when the owner or group changes, the mode first goes down to the bits
//! that are in both the old and the new mode. Judged by the old owner that is within the old attributes, and judged by
//! the new owner within the new. Then comes the owner, then the new mode (chown clears set-id bits anyway), then the
//! times. A crash in between leaves the object with too few rights, and the next comparison finds it.
//!
//! Extended attributes go between these: what has to go goes first, and so does what the owner must be allowed to write;
//! an access ACL changes while the group class has no permission at all; what gives power comes when everything else is
//! right, capabilities last (chown would clear them).

use super::device::is_taken_for_file;
use super::directory::Directory;
use super::error::{FsError, FsErrorKind, Result};
use super::fake::{self, FakeSuper};
use super::stat::{FileType, Stamp, Stat, stat_handle};
use super::view::{View, overlaid};
use super::xattr::{self, Plan, XattrFault};
use crate::engine::owners::Owner;
use driftless_protocol::entry::{Attributes, Carried, Digest, Kind, Timestamp};
use driftless_protocol::name::Name;
use driftless_protocol::xattr::{ACL_ACCESS, Xattr, Xattrs};
use rustix::fs::{AtFlags, CWD, Gid, Mode, Timespec, Timestamps, UTIME_OMIT, Uid};
use rustix::io::Errno;
use std::borrow::Cow;
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
        self.set_metadata(name, kind, &Metadata::plain(a, carried))
            .map(|applied| applied.stat)
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
        let same = |stat: &Stat| stat.stamp.same_object(expected);
        self.set_metadata_if(name, kind, &Metadata::plain(a, carried), same)
            .map(|applied| applied.stat)
    }

    /// Like [`Directory::set_attributes`], with extended attributes.
    pub fn set_metadata(&self, name: &Name, kind: Kind, wanted: &Metadata<'_>) -> Result<Applied> {
        self.set_metadata_if(name, kind, wanted, |_| true)
    }

    fn set_metadata_if(
        &self,
        name: &Name,
        kind: Kind,
        wanted: &Metadata<'_>,
        accept: impl FnOnce(&Stat) -> bool,
    ) -> Result<Applied> {
        let fd = self.open_path(SET_ATTRIBUTES, name)?;
        let now = stat_handle(&fd).map_err(self.failed_at(SET_ATTRIBUTES, name))?;
        let handle = Handle::Path(fd.as_fd());
        let taken_for = self.overlaid(handle, now)?.file_type;
        if taken_for.kind() != Some(kind) {
            return Err(FsError::substituted(
                SET_ATTRIBUTES,
                self.shown_name(name),
                taken_for.unexpected(),
            ));
        }
        if !accept(&now) {
            let cause = "another object took its place";
            return Err(FsError::substituted(SET_ATTRIBUTES, self.shown_name(name), cause));
        }
        let shown = || self.shown_name(name);
        self.give(handle, &now, taken_for, wanted, shown)
    }

    /// Makes an object what is wanted, or one that is taken for `file_type` with all that. `now` is what it is.
    pub(super) fn give(
        &self,
        handle: Handle<'_>,
        now: &Stat,
        file_type: FileType,
        wanted: &Metadata<'_>,
        shown: impl Fn() -> String,
    ) -> Result<Applied> {
        give(self.view.as_deref(), handle, now, file_type, wanted, shown)
    }

    /// Gives this directory itself these attributes, and answers what it then is.
    pub fn set_self_attributes(&self, a: &Attributes, carried: Carried) -> Result<Stat> {
        self.set_self_metadata(&Metadata::plain(a, carried))
            .map(|applied| applied.stat)
    }

    /// Like [`Directory::set_self_attributes`], with extended attributes.
    pub fn set_self_metadata(&self, wanted: &Metadata<'_>) -> Result<Applied> {
        let shown = || self.shown().to_owned();
        let now = stat_handle(self).map_err(self.failed(SET_ATTRIBUTES))?;
        self.give(Handle::Open(self.as_fd()), &now, now.file_type, wanted, shown)
    }

    /// Sets the modification time of this directory itself.
    pub fn set_self_mtime(&self, mtime: Timestamp) -> Result<()> {
        set_mtime(Handle::Open(self.as_fd()), mtime).map_err(|f| f.into_error(self.shown().to_owned()))
    }
}

/// What an object is to get.
#[derive(Debug, Clone)]
pub struct Metadata<'a> {
    /// Owner, mode and times.
    pub attributes: &'a Attributes,
    /// Extended attributes: all that it has of the carried classes. `None` leaves them as they are.
    pub xattrs: Option<Cow<'a, Xattrs>>,
    /// What of all this is to be set.
    pub carried: Carried,
    /// User and group on this machine, where those in the attributes may be another's.
    pub owner: Owner,
}

impl<'a> Metadata<'a> {
    /// Without extended attributes, and with owners that are called the same everywhere.
    pub fn plain(attributes: &'a Attributes, carried: Carried) -> Metadata<'a> {
        Metadata {
            attributes,
            xattrs: None,
            carried,
            owner: Owner {
                uid: attributes.uid,
                gid: attributes.gid,
            },
        }
    }
}

/// What an object got.
#[derive(Debug, Clone)]
pub struct Applied {
    /// What it is now.
    pub stat: Stat,
    /// Extended attributes could not be set as wanted: why, and the digest of those that it has now.
    pub refused: Option<(FsError, Option<Digest>)>,
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
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
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

/// See [`Directory::give`].
pub(super) fn give(
    view: Option<&View>,
    handle: Handle<'_>,
    now: &Stat,
    file_type: FileType,
    wanted: &Metadata<'_>,
    shown: impl Fn() -> String,
) -> Result<Applied> {
    match view.is_some_and(|view| view.fake_super == FakeSuper::Kept) {
        true => fake::apply(handle, now, file_type, wanted, &shown),
        false => apply(handle, now, wanted, &shown),
    }
    .map_err(|fault| fault.into_error(shown()))
    .and_then(|applied| {
        let stat = match is_taken_for_file(view, &applied.stat) {
            true => overlaid(view, handle, applied.stat, &shown)?,
            false => applied.stat,
        };
        Ok(Applied { stat, ..applied })
    })
}

/// Takes an object from `now` to `wanted` and answers what it then is.
pub(super) fn apply(
    handle: Handle<'_>,
    now: &Stat,
    wanted: &Metadata<'_>,
    shown: impl Fn() -> String,
) -> Result<Applied, MetaFault> {
    let Metadata {
        attributes,
        carried,
        owner,
        ..
    } = *wanted;
    let xattrs = wanted.xattrs.as_deref();
    if attributes.mode > 0o7777 {
        return Err(MetaFault::Value("the mode has bits that are no permissions"));
    }
    let has_mode = now.file_type != FileType::Symlink;
    let mut mode = now.attributes.mode;
    let mut changed = false;
    if carried.owner && (owner.uid, owner.gid) != (now.attributes.uid, now.attributes.gid) {
        mode = change_owner(handle, now, attributes.mode, owner)?;
        changed = true;
    }
    let mut change = XattrChange::begin(handle, xattrs, carried);
    if let Some(change) = &mut change {
        changed = true;
        change.set_first(mode, has_mode);
        mode = change.set_acl(mode, attributes.mode, now.file_type)?;
    }
    let mut final_mode = attributes.mode;
    if let Some(change) = &change {
        final_mode &= change.mode_max;
    }
    if has_mode && mode != final_mode {
        set_mode(handle, final_mode)?;
        changed = true;
    }
    let refused = change.and_then(|mut change| {
        change.set_last();
        let (name, errno) = change.failed?;
        tracing::debug!(name = %name.escape_ascii(), %errno, "an extended attribute was refused");
        // What it has is what counts from now on.
        let digest = xattr::digest(handle, carried.xattrs).unwrap_or(None);
        let error = FsError::new("set the extended attributes of", shown(), errno);
        Some((error, digest))
    });
    if now.attributes.mtime != attributes.mtime {
        set_mtime(handle, attributes.mtime)?;
        changed = true;
    }
    let stat = match changed {
        true => stat_handle(handle.fd())?,
        false => *now,
    };
    Ok(Applied { stat, refused })
}

/// Changes the owner, with fewer rights meanwhile; answers the mode that is left.
fn change_owner(handle: Handle<'_>, now: &Stat, wanted_mode: u16, wanted: Owner) -> Result<u16, MetaFault> {
    // This number asks the kernel to leave the owner as it is.
    if wanted.uid == u32::MAX || wanted.gid == u32::MAX {
        return Err(MetaFault::Value(
            "the owner or group has a number that nobody can have",
        ));
    }
    let has_mode = now.file_type != FileType::Symlink;
    let mode = now.attributes.mode;
    let between = narrowed(now.file_type, mode, wanted_mode);
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
    Ok(stat_handle(handle.fd())?.attributes.mode)
}

/// A change of extended attributes under way. What is refused is remembered, and the rest goes on.
struct XattrChange<'a> {
    handle: Handle<'a>,
    plan: Plan,
    /// The first that could not be set or removed.
    failed: Option<(Vec<u8>, Errno)>,
    /// Bits that the mode may have: less for the group if its ACL could not be set.
    mode_max: u16,
}

impl<'a> XattrChange<'a> {
    /// `None` if nothing has to change.
    fn begin(handle: Handle<'a>, wanted: Option<&Xattrs>, carried: Carried) -> Option<XattrChange<'a>> {
        let (plan, failed) = match Plan::new(handle, wanted?, carried.xattrs) {
            Ok(plan) if plan.is_empty() => return None,
            Ok(plan) => (plan, None),
            Err(XattrFault::Kernel(errno)) => (Plan::default(), Some((Vec::new(), errno))),
            Err(XattrFault::TooMany(_)) => (Plan::default(), Some((Vec::new(), Errno::TOOBIG))),
        };
        Some(XattrChange {
            handle,
            plan,
            failed,
            mode_max: 0o7777,
        })
    }

    fn note(&mut self, name: &[u8], outcome: Result<(), Errno>) {
        if let Err(errno) = outcome {
            self.failed.get_or_insert((name.to_vec(), errno));
        }
    }

    /// What has to go, and what has to be set while the owner may write. `mode` is the present one.
    fn set_first(&mut self, mode: u16, has_mode: bool) {
        for name in std::mem::take(&mut self.plan.remove) {
            let outcome = self.as_writer(mode, has_mode, || xattr::remove(self.handle, &name));
            self.note(&name, outcome);
        }
        for Xattr { name, value } in std::mem::take(&mut self.plan.set_first) {
            let outcome = self.as_writer(mode, has_mode, || xattr::set(self.handle, &name, &value));
            self.note(&name, outcome);
        }
    }

    /// Only who may write an object may change its `user.*`; the owner of a read-only one gives himself the right.
    fn as_writer(
        &self,
        mode: u16,
        has_mode: bool,
        change: impl Fn() -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        match change() {
            Err(Errno::ACCESS) if has_mode && mode & 0o200 == 0 => {
                let writable = mode & 0o1777 | 0o200;
                set_mode(self.handle, writable).map_err(|_| Errno::ACCESS)?;
                let outcome = change();
                // Too few rights at worst: the caller's mode comes after.
                let _ = set_mode(self.handle, mode);
                outcome
            }
            other => other,
        }
    }

    /// Changes the access ACL; answers the mode that is then there. The group bits of the mode are the mask: while they
    /// are off, neither the old nor the new ACL gives anybody anything but the owner and others.
    fn set_acl(&mut self, mode: u16, wanted_mode: u16, file_type: FileType) -> Result<u16, MetaFault> {
        const GROUP: u16 = 0o070;
        let Some(acl) = self.plan.acl.take() else {
            return Ok(mode);
        };
        let between = narrowed(file_type, mode, wanted_mode) & !GROUP;
        if between != mode {
            set_mode(self.handle, between)?;
        }
        let outcome = match &acl {
            Some(acl) => xattr::set(self.handle, ACL_ACCESS, acl),
            None => xattr::remove(self.handle, ACL_ACCESS),
        };
        #[cfg(test)]
        steps::record(self.handle);
        if let Err(errno) = outcome {
            self.note(ACL_ACCESS, Err(errno));
            // The group bits of the mode stand for the mask of an ACL that is not there.
            let group = acl.as_deref().and_then(xattr::owning_group_mode).unwrap_or(0);
            self.mode_max = !GROUP & 0o7777 | group;
        }
        Ok(stat_handle(self.handle.fd())?.attributes.mode)
    }

    /// What gives power.
    fn set_last(&mut self) {
        for Xattr { name, value } in std::mem::take(&mut self.plan.set_last) {
            let outcome = xattr::set(self.handle, &name, &value);
            self.note(&name, outcome);
        }
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

fn set_owner(handle: Handle<'_>, wanted: Owner) -> Result<(), Errno> {
    let (uid, gid) = (Uid::from_raw(wanted.uid), Gid::from_raw(wanted.gid));
    rustix::fs::chownat(handle.fd(), "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?;
    #[cfg(test)]
    steps::record(handle);
    Ok(())
}

pub(super) fn set_mode(handle: Handle<'_>, mode: u16) -> Result<(), MetaFault> {
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

pub(super) fn set_mtime(handle: Handle<'_>, mtime: Timestamp) -> Result<(), MetaFault> {
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
    use super::{ACL_ACCESS, Attributes, Handle, stat_handle, xattr};
    use driftless_protocol::xattr::XattrClasses;
    use std::cell::RefCell;

    /// Attributes, and the access ACL if there is one.
    pub(in super::super) type Step = (Attributes, Option<Vec<u8>>);

    thread_local! {
        static SEEN: RefCell<Vec<Step>> = const { RefCell::new(Vec::new()) };
    }

    pub(super) fn record(handle: Handle<'_>) {
        let now = stat_handle(handle.fd()).unwrap().attributes;
        let found = xattr::read_all(&xattr::Target::Handle(handle), XattrClasses::ACL);
        let acl = found
            .ok()
            .and_then(|found| found.xattrs.get(ACL_ACCESS).map(<[u8]>::to_vec));
        SEEN.with_borrow_mut(|seen| seen.push((now, acl)));
    }

    /// Everything that this thread's calls went through since the last time.
    pub(in super::super) fn take() -> Vec<Attributes> {
        SEEN.take()
            .into_iter()
            .map(|(attributes, _)| attributes)
            .collect()
    }

    /// The same, with ACLs.
    pub(in super::super) fn take_with_acls() -> Vec<Step> {
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
