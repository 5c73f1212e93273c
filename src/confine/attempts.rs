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
    let calls = [
        ("executing a program", libc::SYS_execve),
        ("tracing a process", libc::SYS_ptrace),
        ("loading a program into the kernel", libc::SYS_bpf),
        ("unmounting", libc::SYS_umount2),
        ("opening a file by its handle", libc::SYS_open_by_handle_at),
    ];
    let possible = calls.into_iter().find(|(_, call)| is_possible(*call, [-1, 0, 0]));
    possible.map(|(deed, _)| deed)
}

/// The same of a process that has no files, and nothing to say to other processes.
pub(super) fn forbidden_outside() -> Option<&'static str> {
    let parent = rustix::process::getppid().map_or(1, |pid| pid.as_raw_pid().into());
    let calls = [
        ("changing a mode", libc::SYS_fchmodat, [-1, 0, 0]),
        ("changing an attribute", libc::SYS_setxattr, [0, 0, 0]),
        ("looking at a file", libc::SYS_statx, [-1, 0, 0]),
        // There is no such signal.
        ("a signal to another process", libc::SYS_kill, [parent, -1, 0]),
        ("a signal to a thread", libc::SYS_tgkill, [parent, parent, -1]),
        // Nor one to be told of its parent's end by.
        (
            "outliving who started it",
            libc::SYS_prctl,
            [libc::PR_SET_PDEATHSIG.into(), -1, 0],
        ),
    ];
    let possible = calls
        .into_iter()
        .find(|(_, call, with)| is_possible(*call, *with));
    possible.map(|(deed, ..)| deed)
}

/// Whether a call fails for another reason than that it is forbidden. To be given arguments that the kernel refuses.
fn is_possible(call: libc::c_long, [first, second, third]: [libc::c_long; 3]) -> bool {
    // SAFETY: null pointers and impossible numbers; the kernel refuses each of these calls with them.
    let answer = unsafe { libc::syscall(call, first, second, third, 0_isize, 0_isize) };
    let errno = std::io::Error::last_os_error().raw_os_error();
    answer != -1 || errno != Some(libc::EPERM)
}
