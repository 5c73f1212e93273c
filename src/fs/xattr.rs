//! Extended attributes: reading them all, and finding out what has to change.
//!
//! Objects held by `O_PATH` are reached through `/proc/self/fd`, where the entry is the object itself and is not
//! followed further; names in a directory through the entry of the directory's handle, so that one call suffices.

use super::directory::{Directory, errno_of};
use super::error::{FsError, FsErrorKind, Result};
use super::fake;
use super::meta::{Handle, NO_PROC, proc_path};
use super::stage::Staged;
use super::stat::Stat;
use super::view::View;
use driftless_protocol::limits::{XATTR_SET_BYTES_MAX, XATTR_VALUE_BYTES_MAX, XATTRS_MAX};
use driftless_protocol::xattr::{ACL_ACCESS, ACL_DEFAULT};
use driftless_protocol::{Digest, Name, Xattr, XattrClasses, Xattrs};
use rustix::fs::XattrFlags;
use rustix::io::Errno;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

const READ: &str = "read the extended attributes of";

/// The kernel's own limit for the list of names.
const LIST_BYTES_MAX: usize = 64 << 10;

/// What an object has, and what was left out of that.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FoundXattrs {
    /// Attributes of the classes asked for.
    pub xattrs: Xattrs,
    /// Attributes that a mirror could carry, of other classes.
    pub others: u32,
}

impl FoundXattrs {
    fn shown_by(self, view: &View, shown: &Stat) -> FoundXattrs {
        FoundXattrs {
            xattrs: view.show_xattrs(self.xattrs, shown),
            ..self
        }
    }
}

impl Staged {
    /// The extended attributes of these classes that the file has.
    pub fn xattrs(&self, classes: XattrClasses) -> Result<FoundXattrs> {
        let target = Target::Handle(Handle::Open(self.file().as_fd()));
        let found = match self.fakes_super() {
            true => fake::xattrs(&target, self.stat()?.attributes.mode, classes),
            false => read_all(&target, classes),
        };
        found.map_err(|fault| fault.into_error(READ, "a new file".to_owned()))
    }
}

impl Directory {
    /// The extended attributes of `name`, of these classes. None where the file system has none.
    pub fn xattrs(&self, name: &Name, classes: XattrClasses) -> Result<FoundXattrs> {
        if let Some(fd) = self.open_followed_path(name)? {
            let found = read_all(&Target::Handle(Handle::Path(fd.as_fd())), classes)
                .map_err(|fault| fault.into_error(READ, self.shown_name(name)))?;
            return self.as_shown(name, found);
        }
        let path = self.path_of(name);
        let target = Target::At {
            directory: self.as_fd(),
            name,
            path: &path,
        };
        let found = match self.fakes_super() {
            true => {
                let stat = self
                    .stat(name)?
                    .ok_or_else(|| self.failed_at(READ, name)(Errno::NOENT))?;
                fake::xattrs(&target, stat.attributes.mode, classes)
            }
            false => read_all(&target, classes),
        };
        let found = found.map_err(|fault| fault.into_error(READ, self.shown_name(name)))?;
        self.as_shown(name, found)
    }

    fn as_shown(&self, name: &Name, found: FoundXattrs) -> Result<FoundXattrs> {
        match &self.view {
            Some(view) if !found.xattrs.is_empty() => {
                let shown = self
                    .stat(name)?
                    .ok_or_else(|| self.failed_at(READ, name)(Errno::NOENT))?;
                Ok(found.shown_by(view, &shown))
            }
            _ => Ok(found),
        }
    }

    /// The extended attributes of this directory itself, of these classes.
    pub fn self_xattrs(&self, classes: XattrClasses) -> Result<FoundXattrs> {
        let target = Target::Handle(Handle::Open(self.as_fd()));
        let found = match self.fakes_super() {
            true => fake::xattrs(&target, self.stat_self()?.attributes.mode, classes),
            false => read_all(&target, classes),
        };
        let found = found.map_err(|fault| fault.into_error(READ, self.shown().to_owned()))?;
        match &self.view {
            Some(view) if !found.xattrs.is_empty() => Ok(found.shown_by(view, &self.stat_self()?)),
            _ => Ok(found),
        }
    }

    /// Which of these classes the file system of this directory can hold. Nothing is written.
    pub fn holds_xattrs(&self, classes: XattrClasses) -> XattrClasses {
        let probes: [(XattrClasses, &[u8]); 5] = [
            (XattrClasses::USER, b"user.driftless"),
            (XattrClasses::ACL, ACL_DEFAULT),
            (XattrClasses::CAPABILITY, b"security.capability"),
            (XattrClasses::SECURITY, b"security.driftless"),
            (XattrClasses::TRUSTED, b"trusted.driftless"),
        ];
        let holds = |name: &[u8]| {
            let answer = get(&Target::Handle(Handle::Open(self.as_fd())), name, 0);
            !matches!(answer, Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL))
        };
        // Without /proc nothing but directories can be asked.
        if rustix::fs::stat("/proc/self/fd").is_err() {
            return XattrClasses::NONE;
        }
        if self.fakes_super() {
            return match holds(b"user.driftless") {
                true => classes,
                false => XattrClasses::NONE,
            };
        }
        probes
            .into_iter()
            .filter(|(class, name)| classes.contains(*class) && holds(name))
            .fold(XattrClasses::NONE, |held, (class, _)| held.union(class))
    }
}

impl Directory {
    /// The way to a name through `/proc`, which is not followed further if it is a link.
    pub(super) fn path_of(&self, name: &Name) -> Vec<u8> {
        let mut path = proc_path(self).into_bytes();
        path.push(b'/');
        path.extend_from_slice(&self.on_disk(name.as_bytes()));
        path
    }
}

/// Whose attributes.
pub(super) enum Target<'a> {
    Handle(Handle<'a>),
    /// A path through `/proc/self/fd`, whose last element is not followed.
    Name(&'a [u8]),
    /// A name in a directory, which is not followed, and the same as such a path.
    At {
        directory: BorrowedFd<'a>,
        name: &'a Name,
        path: &'a [u8],
    },
}

/// Why attributes could not be read or set.
pub(super) enum XattrFault {
    Kernel(Errno),
    /// They are over what can be carried.
    TooMany(&'static str),
}

impl XattrFault {
    pub(super) fn into_error(self, operation: &'static str, path: String) -> FsError {
        match self {
            XattrFault::Kernel(Errno::NOENT) if rustix::fs::stat("/proc/self/fd").is_err() => {
                FsError::new(operation, path, Errno::NOENT).explained(FsErrorKind::Unsupported, NO_PROC)
            }
            XattrFault::Kernel(errno) => FsError::new(operation, path, errno),
            XattrFault::TooMany(cause) => {
                FsError::new(operation, path, Errno::TOOBIG).explained(FsErrorKind::Unsupported, cause)
            }
        }
    }
}

impl From<Errno> for XattrFault {
    fn from(errno: Errno) -> XattrFault {
        XattrFault::Kernel(errno)
    }
}

/// Reads all attributes of these classes.
pub(super) fn read_all(target: &Target<'_>, classes: XattrClasses) -> Result<FoundXattrs, XattrFault> {
    let names = match list(target) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(FoundXattrs::default()),
        other => other?,
    };
    let mut found = Vec::new();
    let (mut others, mut bytes) = (0, 0);
    for name in names.split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        if !classes.admits(name) {
            others += u32::from(XattrClasses::ALL.admits(name));
            continue;
        }
        let value = match get(target, name, XATTR_VALUE_BYTES_MAX) {
            // It went since the list was made, or is listed by a file system that cannot tell it.
            Err(Errno::NODATA | Errno::OPNOTSUPP) => continue,
            other => other?,
        };
        bytes += name.len() + value.len();
        if bytes > XATTR_SET_BYTES_MAX || found.len() == XATTRS_MAX {
            return Err(XattrFault::TooMany(
                "there are more of them than can be carried (256 KiB or 1,024 for one object)",
            ));
        }
        found.push(Xattr {
            name: name.to_vec(),
            value,
        });
    }
    let xattrs = Xattrs::new(found).map_err(XattrFault::TooMany)?;
    Ok(FoundXattrs { xattrs, others })
}

/// Digest of all attributes of these classes.
pub(super) fn digest(handle: Handle<'_>, classes: XattrClasses) -> Result<Option<Digest>, XattrFault> {
    Ok(read_all(&Target::Handle(handle), classes)?.xattrs.digest())
}

fn list(target: &Target<'_>) -> Result<Vec<u8>, Errno> {
    // Most objects have no attribute at all, or a few.
    let mut buffer = vec![0; 256];
    loop {
        let answer = match target {
            Target::Handle(Handle::Open(fd)) => rustix::fs::flistxattr(fd, buffer.as_mut_slice()),
            Target::Handle(Handle::Path(fd)) => rustix::fs::listxattr(proc_path(fd), buffer.as_mut_slice()),
            Target::Name(path) => rustix::fs::llistxattr(*path, buffer.as_mut_slice()),
            Target::At {
                directory,
                name,
                path,
            } => match listxattrat(*directory, name, &mut buffer) {
                Err(Errno::NOSYS) => rustix::fs::llistxattr(*path, buffer.as_mut_slice()),
                other => other,
            },
        };
        match answer {
            Err(Errno::RANGE) if buffer.len() < LIST_BYTES_MAX => buffer = vec![0; LIST_BYTES_MAX],
            Err(errno) => return Err(errno),
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
        }
    }
}

/// The names of the attributes of a name in a directory, which is not followed: nearly every new file is asked for them, and most
/// have none. Since Linux 6.13; [`Errno::NOSYS`] before, which is asked for once. The way through `/proc` takes several times as long.
fn listxattrat(directory: BorrowedFd<'_>, name: &Name, buffer: &mut [u8]) -> Result<usize, Errno> {
    /// The number of the call, the same on all architectures but alpha.
    const SYS_LISTXATTRAT: libc::c_long = 465;
    static MISSING: AtomicBool = AtomicBool::new(false);
    if MISSING.load(Ordering::Relaxed) {
        return Err(Errno::NOSYS);
    }
    let name = CString::new(name.as_bytes()).map_err(|_| Errno::INVAL)?;
    // SAFETY: the handle and the string, which ends in zero, live through the call; it writes to the buffer only, and no more
    // than it is said to hold.
    let answer = unsafe {
        libc::syscall(
            SYS_LISTXATTRAT,
            directory.as_raw_fd(),
            name.as_ptr(),
            libc::AT_SYMLINK_NOFOLLOW,
            buffer.as_mut_ptr(),
            buffer.len(),
        )
    };
    match usize::try_from(answer) {
        Ok(length) => Ok(length),
        // Who filters calls may not know this one yet.
        Err(_) => match errno_of(&std::io::Error::last_os_error()) {
            Errno::NOSYS | Errno::PERM => {
                MISSING.store(true, Ordering::Relaxed);
                Err(Errno::NOSYS)
            }
            errno => Err(errno),
        },
    }
}

/// A value of at most `max` bytes; with 0, only whether there is one.
pub(super) fn get(target: &Target<'_>, name: &[u8], max: usize) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; max.min(256)];
    loop {
        let answer = match target {
            Target::Handle(Handle::Open(fd)) => rustix::fs::fgetxattr(fd, name, buffer.as_mut_slice()),
            Target::Handle(Handle::Path(fd)) => {
                rustix::fs::getxattr(proc_path(fd), name, buffer.as_mut_slice())
            }
            Target::Name(path) | Target::At { path, .. } => {
                rustix::fs::lgetxattr(*path, name, buffer.as_mut_slice())
            }
        };
        match answer {
            Err(Errno::RANGE) if buffer.len() < max => buffer = vec![0; max],
            Err(errno) => return Err(errno),
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
        }
    }
}

pub(super) fn set(handle: Handle<'_>, name: &[u8], value: &[u8]) -> Result<(), Errno> {
    match handle {
        Handle::Open(fd) => rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty()),
        Handle::Path(fd) => rustix::fs::setxattr(proc_path(fd), name, value, XattrFlags::empty()),
    }
}

/// Takes an attribute away, if it is there.
pub(super) fn remove(handle: Handle<'_>, name: &[u8]) -> Result<(), Errno> {
    let answer = match handle {
        Handle::Open(fd) => rustix::fs::fremovexattr(fd, name),
        Handle::Path(fd) => rustix::fs::removexattr(proc_path(fd), name),
    };
    match answer {
        Err(Errno::NODATA) => Ok(()),
        other => other,
    }
}

/// What has to be done to get from the attributes that are there to those that are wanted.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// To be taken away: everything but an access ACL, which changes together with the mode.
    pub(super) remove: Vec<Vec<u8>>,
    /// To be set while the owner may still write: `user.*`, and what else needs no order.
    pub(super) set_first: Vec<Xattr>,
    /// To be set when owner, mode and ACL are right: what gives power.
    pub(super) set_last: Vec<Xattr>,
    /// The access ACL changes: to this one, or to none.
    pub(super) acl: Option<Option<Vec<u8>>>,
}

impl Plan {
    /// Compares what `handle` has of these classes with `wanted`.
    pub(super) fn new(
        handle: Handle<'_>,
        wanted: &Xattrs,
        classes: XattrClasses,
    ) -> Result<Plan, XattrFault> {
        let mut plan = Plan::default();
        if classes.is_empty() {
            return Ok(plan);
        }
        let present = match read_all(&Target::Handle(handle), classes) {
            Ok(found) => found.xattrs,
            // Too many to be read are not those that are wanted; only their names are needed to take them away.
            Err(XattrFault::TooMany(_)) => names_only(handle, classes)?,
            Err(fault) => return Err(fault),
        };
        for old in present.iter().filter(|old| wanted.get(&old.name).is_none()) {
            match old.name.as_slice() {
                ACL_ACCESS => plan.acl = Some(None),
                _ => plan.remove.push(old.name.clone()),
            }
        }
        let differs = |new: &&Xattr| present.get(&new.name) != Some(&new.value);
        for new in wanted
            .iter()
            .filter(|new| classes.admits(&new.name))
            .filter(differs)
        {
            match XattrClasses::of(&new.name) {
                _ if new.name == ACL_ACCESS => plan.acl = Some(Some(new.value.clone())),
                XattrClasses::USER | XattrClasses::ACL => plan.set_first.push(new.clone()),
                _ => plan.set_last.push(new.clone()),
            }
        }
        // Of those that give power, capabilities are the very last.
        plan.set_last
            .sort_by_key(|xattr| XattrClasses::of(&xattr.name) == XattrClasses::CAPABILITY);
        Ok(plan)
    }

    /// Whether everything is as it should be.
    pub(super) fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set_first.is_empty() && self.set_last.is_empty() && self.acl.is_none()
    }
}

/// Attributes with empty values, for those that are only to be removed.
fn names_only(handle: Handle<'_>, classes: XattrClasses) -> Result<Xattrs, XattrFault> {
    let names = list(&Target::Handle(handle))?;
    let listed = names
        .split(|&byte| byte == 0)
        .filter(|name| classes.admits(name))
        .take(XATTRS_MAX)
        .map(|name| Xattr {
            name: name.to_vec(),
            value: Vec::new(),
        });
    Xattrs::new(listed.collect()).map_err(XattrFault::TooMany)
}

/// An access ACL with the permissions of a mode: for the owner, for others, and in the mask (or for the owning group, if it has no
/// mask). That is what chmod(2) does. Bytes that are no ACL are left as they are.
pub(super) fn with_mode(acl: &[u8], mode: u16) -> Vec<u8> {
    const USER_OBJ: u16 = 1;
    const GROUP_OBJ: u16 = 4;
    const MASK: u16 = 16;
    const OTHER: u16 = 32;
    let mut changed = acl.to_vec();
    let is_acl = acl.len() >= 4 && (acl.len() - 4).is_multiple_of(8);
    let Some(entries) = changed.get_mut(4..).filter(|_| is_acl) else {
        return acl.to_vec();
    };
    let tag = |entry: &[u8]| u16::from_le_bytes([entry[0], entry[1]]);
    let group = match entries.chunks_exact(8).any(|entry| tag(entry) == MASK) {
        true => MASK,
        false => GROUP_OBJ,
    };
    for entry in entries.chunks_exact_mut(8) {
        let permissions = match tag(entry) {
            USER_OBJ => mode >> 6,
            OTHER => mode,
            tag if tag == group => mode >> 3,
            _ => continue,
        };
        entry[2..4].copy_from_slice(&(permissions & 7).to_le_bytes());
    }
    changed
}

/// The permissions that an access ACL gives the owning group, within its mask, as bits of a mode. None if the bytes
/// are no ACL: then the kernel refuses them.
pub(super) fn owning_group_mode(acl: &[u8]) -> Option<u16> {
    // The form that the kernel takes: a version, then entries of tag, permissions, id; little endian.
    const GROUP_OBJ: u16 = 4;
    const MASK: u16 = 16;
    let (version, entries) = acl.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*version) != 2 || entries.len() % 8 != 0 {
        return None;
    }
    let permissions = |wanted: u16| {
        entries.chunks_exact(8).find_map(|entry| {
            let field = |at: usize| u16::from_le_bytes([entry[at], entry[at + 1]]);
            (field(0) == wanted).then(|| field(2) & 7)
        })
    };
    Some((permissions(GROUP_OBJ)? & permissions(MASK).unwrap_or(7)) << 3)
}
