//! The whole system read-only, but for what has to be written: in a mount namespace of this process's own.
//!
//! Landlock and seccomp do not see that a mode, an owner, a time or an attribute is changed; a read-only mount refuses all of
//! it, for root as well. Paths stay what they are. Mounts that come and go in the system come and go here, too, where the system
//! shares them, as systemd does. Where it does not, a copy here would keep a file system busy after it was unmounted there;
//! therefore what this process has no need of is not kept.

use super::Needs;
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, mount_change,
    move_mount, open_tree, unmount,
};
use rustix::thread::UnshareFlags;
use std::ffi::{CStr, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// What any process may come to read: libraries, names of users and hosts, time zones, sockets of name services.
const SYSTEM: [&str; 7] = ["/etc", "/lib", "/nix", "/run", "/usr", "/var/lib/sss", "/var/run"];
/// What is mounted below these belongs to the system as well.
const SYSTEM_TREES: [&str; 5] = ["/dev", "/etc", "/proc", "/sys", "/usr"];

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
    detach_unneeded(needs);
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

/// Puts an empty directory, in which nothing can be made, over one. Only for a process that has mounts of its own.
pub(super) fn hide(path: &Path) -> Result<(), String> {
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("none", path, "tmpfs", flags, c"mode=0,nr_inodes=1")
        .map_err(|errno| format!("cannot hide {}: {errno}", path.display()))
}

/// Lets go of the file systems that this process will not look at. What cannot be let go of is only kept busy: no error.
fn detach_unneeded(needs: &Needs) {
    let Ok(mounted) = std::fs::read("/proc/self/mountinfo") else {
        return;
    };
    // Later ones lie upon earlier ones.
    for mount in mount_points(&mounted).iter().rev() {
        if !is_needed(mount, needs) {
            let _ = unmount(mount, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
        }
    }
}

/// Whether a mount leads to what is needed, or lies in it.
fn is_needed(mount: &Path, needs: &Needs) -> bool {
    let leads = needs.writable.iter().chain(&needs.readable).map(PathBuf::as_path);
    leads
        .chain(SYSTEM.map(Path::new))
        .any(|path| path.starts_with(mount))
        || needs.may_write(mount)
        || SYSTEM_TREES.iter().any(|tree| mount.starts_with(tree))
}

/// The mount points in the text of `/proc/self/mountinfo` (proc(5)), in its order.
fn mount_points(text: &[u8]) -> Vec<PathBuf> {
    let field = |line: &[u8]| line.split(|&byte| byte == b' ').nth(4).map(unescaped);
    text.split(|&byte| byte == b'\n').filter_map(field).collect()
}

/// A path in which blanks, line ends and backslashes are written as a backslash and three octal digits.
fn unescaped(text: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, after @ ..] = rest {
        let digits = after
            .first_chunk::<3>()
            .and_then(|digits| std::str::from_utf8(digits).ok());
        let value = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match (first, value) {
            (b'\\', Some(value)) => {
                path.push(value);
                rest = &after[3..];
            }
            _ => {
                path.push(*first);
                rest = after;
            }
        }
    }
    PathBuf::from(OsString::from_vec(path))
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

    #[test]
    fn mount_points_are_read_with_their_escapes() {
        let text = b"22 1 254:0 / / rw - ext4 /dev/vda rw\n\
            30 22 0:28 / /mnt/a\\040b\\134 rw shared:5 - tmpfs tmpfs rw\n\
            31 22 7:0 / /mnt/\\9 rw - ext4 /dev/loop0 rw\n";
        let expected = ["/", "/mnt/a b\\", "/mnt/\\9"].map(PathBuf::from);
        assert_eq!(mount_points(text), expected);
    }

    #[test]
    fn mounts_that_lead_to_or_lie_in_what_is_needed_stay() {
        let needs = Needs {
            writable: vec!["/srv/m".into()],
            readable: vec!["/opt/keys/ca.pem".into()],
            ..Needs::default()
        };
        for needed in [
            "/",
            "/srv",
            "/srv/m",
            "/srv/m/disk2",
            "/opt/keys",
            "/proc/fs/nfsd",
            "/etc/hosts",
            "/run",
            "/var",
        ] {
            assert!(is_needed(Path::new(needed), &needs), "{needed}");
        }
        for unneeded in [
            "/srv/m2",
            "/home",
            "/opt/other",
            "/run/media/usb",
            "/var/lib/docker/x/merged",
            "/tmp",
        ] {
            assert!(!is_needed(Path::new(unneeded), &needs), "{unneeded}");
        }
    }
}
