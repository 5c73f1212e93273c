//! Attempts to do what must not be possible any more, each harmless where it is possible after all.

use super::{Measure, Needs};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType};
use std::os::fd::BorrowedFd;
use std::path::Path;

/// What a measure should have stopped and did not.
pub(super) fn broken(measure: Measure, needs: &Needs) -> Option<&'static str> {
    match measure {
        Measure::NoNewPrivileges => {
            (!rustix::thread::no_new_privs().unwrap_or(false)).then_some("gaining privileges")
        }
        Measure::ReadOnlySystem => outside(needs).and_then(change_outside),
        Measure::Capabilities => {
            let kept = super::capabilities::kept(needs);
            let held = rustix::thread::capabilities(None);
            let has_more = held.is_ok_and(|held| !kept.contains(held.permitted | held.effective));
            has_more.then_some("using another capability")
        }
        Measure::Landlock => outside(needs).and_then(open_outside),
        Measure::SystemCalls => forbidden_calls(),
        Measure::Sockets => {
            let made = rustix::net::socket(AddressFamily::UNIX, SocketType::DGRAM, None);
            made.is_ok().then_some("making a socket")
        }
        Measure::NoNetwork => reach_a_network(),
        Measure::HiddenKey => needs.hidden.as_deref().and_then(look_into),
        // That is another process's to find out.
        Measure::TransportFiles | Measure::TransportCalls => None,
    }
}

/// Whether a socket of this process leads to a network, or one can be made.
fn reach_a_network() -> Option<&'static str> {
    for family in [AddressFamily::INET, AddressFamily::INET6] {
        if rustix::net::socket(family, SocketType::DGRAM, None).is_ok() {
            return Some("making a socket of a network");
        }
    }
    let Ok(open) = std::fs::read_dir("/proc/self/fd") else {
        return Some("having sockets that nobody can look for");
    };
    let numbers = open.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    for number in numbers {
        // SAFETY: whatever the number stands for now, it is asked for its kind only, and not closed.
        let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
        let family = rustix::net::sockopt::socket_domain(descriptor);
        if family.is_ok_and(|family| family != AddressFamily::UNIX) {
            return Some("using a socket of a network");
        }
    }
    None
}

/// Whether anything can be seen in a directory, or its key read.
fn look_into(hidden: &Path) -> Option<&'static str> {
    let mut found = std::fs::read_dir(hidden).into_iter().flatten();
    let is_read = std::fs::read(hidden.join("identity.key")).is_ok();
    (found.next().is_some() || is_read).then_some("looking at the identity's directory")
}

/// A directory that everybody may list, and that is none of ours.
fn outside(needs: &Needs) -> Option<&'static Path> {
    ["/", "/usr", "/etc"].into_iter().map(Path::new).find(|path| {
        !needs.may_write(path) && !needs.readable.iter().any(|readable| path.starts_with(readable))
    })
}

fn change_outside(path: &Path) -> Option<&'static str> {
    // Changes nothing, and yet needs a mount that can be written to.
    let changed = rustix::fs::chownat(CWD, path, None, None, AtFlags::empty());
    (changed != Err(Errno::ROFS)).then_some("changing metadata outside")
}

fn open_outside(path: &Path) -> Option<&'static str> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let opened = rustix::fs::open("/etc/passwd", flags, Mode::empty());
    // An unnamed file is gone when it is closed.
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    let made = rustix::fs::open(path, flags, Mode::RUSR);
    match (opened, made) {
        (Ok(_), _) => Some("opening a file outside"),
        (_, Ok(_)) => Some("making a file outside"),
        _ => None,
    }
}

/// Calls with arguments that no kernel accepts: only their errors tell.
pub(super) fn forbidden_calls() -> Option<&'static str> {
    let calls: [(&str, libc::c_long); 5] = [
        ("executing a program", libc::SYS_execve),
        ("tracing a process", libc::SYS_ptrace),
        ("loading a program into the kernel", libc::SYS_bpf),
        ("unmounting", libc::SYS_umount2),
        ("opening a file by its handle", libc::SYS_open_by_handle_at),
    ];
    let is_possible = |call: libc::c_long| {
        // SAFETY: null pointers and impossible numbers; the kernel refuses each of these calls with them.
        let answer = unsafe { libc::syscall(call, -1_isize, 0_isize, 0_isize, 0_isize, 0_isize) };
        let errno = std::io::Error::last_os_error().raw_os_error();
        answer != -1 || errno != Some(libc::EPERM)
    };
    calls
        .into_iter()
        .find(|(_, call)| is_possible(*call))
        .map(|(deed, _)| deed)
}
