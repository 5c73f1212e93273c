//! The whole system read-only, but for what has to be written: in a mount namespace of this process's own.
//!
//! Landlock and seccomp do not see that a mode, an owner, a time or an attribute is changed; a read-only mount refuses all of
//! it, for root as well. Paths stay what they are. Mounts that come and go in the system come and go here, too.

use super::Needs;
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    MountPropagationFlags, MoveMountFlags, OpenTreeFlags, mount_change, move_mount, open_tree,
};
use rustix::thread::UnshareFlags;
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

pub(super) fn restrict(needs: &Needs) -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("only root can have mounts of its own".to_owned());
    }
    let failed = |what: &'static str| move |errno: Errno| format!("cannot {what}: {errno}");
    // SAFETY: a mount namespace of its own takes no descriptor from this thread, and there is no other thread yet.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) }
        .map_err(failed("leave the mount namespace"))?;
    // Nothing that is done here shows outside.
    mount_change(
        "/",
        MountPropagationFlags::REC | MountPropagationFlags::DOWNSTREAM,
    )
    .map_err(failed("separate the mounts from the system's"))?;
    let mut kept = Vec::new();
    for path in outermost(&needs.writable) {
        let flags =
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
        let tree = open_tree(CWD, &path, flags).map_err(failed("keep a directory writable"))?;
        kept.push((path, tree));
    }
    set_read_only(CWD, c"/").map_err(failed("make the system read-only"))?;
    kept.iter().try_for_each(|(path, tree)| put_back(path, tree))
}

/// Puts a tree that was taken before over its read-only self.
fn put_back(path: &Path, tree: &OwnedFd) -> Result<(), String> {
    move_mount(
        tree.as_fd(),
        "",
        CWD,
        path,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
    .map_err(|errno| format!("cannot keep {} writable: {errno}", path.display()))
}

/// The paths that are below no other of them.
fn outermost(paths: &[PathBuf]) -> Vec<PathBuf> {
    let mut sorted = paths.to_vec();
    sorted.sort();
    let mut kept: Vec<PathBuf> = Vec::new();
    for path in sorted {
        if !kept.iter().any(|above| path.starts_with(above)) {
            kept.push(path);
        }
    }
    kept
}

/// Sets a mount and all below it read-only; the call that rustix lacks.
fn set_read_only(directory: BorrowedFd<'_>, path: &CStr) -> Result<(), Errno> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: the path ends with a zero byte, the attributes live through the call, and their size is told.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            directory.as_raw_fd(),
            path.as_ptr(),
            libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    match answer {
        0 => Ok(()),
        _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_inside_another_comes_with_it() {
        let paths = ["/srv/m/home", "/srv/m", "/srv/m2", "/srv/m", "/etc"].map(PathBuf::from);
        let expected = ["/etc", "/srv/m", "/srv/m2"].map(PathBuf::from);
        assert_eq!(outermost(&paths), expected);
    }
}
