//! What a process gives up that speaks to the network for another one: every file there is.
//!
//! It was given its socket, its key and a way to the other process, and needs nothing else of the machine. What is forbidden is
//! forbidden twice where it can be, by Landlock without a single rule and by a filter of system calls. So it holds, too, where the
//! kernel has only one of them.

use super::{Measure, attempts, calls, landlock};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::net::{AddressFamily, SocketType};
use rustix::process::{
    Resource, Rlimit, Signal, getegid, geteuid, getgid, getuid, set_parent_process_death_signal, setrlimit,
};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, set_capabilities,
};

/// Closes what whoever started this process may have left open, but for its input and its outputs. To be called before anything
/// is opened.
pub fn drop_inherited() {
    // SAFETY: numbers only; nothing in this process has opened a descriptor yet.
    let _ = unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, 0_u32) };
}

/// Gives up all files. To be called before there is any other thread, after whoever was root has become nobody.
pub fn enter() {
    // Where one of them is missing the other one holds; what counts is tried by `close`.
    let _ = super::no_new_privileges();
    // It sees the end of the process that started it by itself, unless it is stopped or taken over.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    let nothing = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    // It writes to no file, and its memory goes nowhere.
    for resource in [Resource::Fsize, Resource::Core] {
        let _ = setrlimit(resource, nothing);
    }
    // Those that a service manager gave to somebody who is not root.
    let _ = clear_ambient_capability_set();
    let _ = set_capabilities(None, no_capabilities());
    let taken = [
        landlock::restrict_all(),
        calls::restrict(),
        calls::restrict_files(),
    ];
    for reason in taken.into_iter().filter_map(Result::err) {
        tracing::debug!("the process that speaks to the network goes without a measure: {reason}");
    }
}

/// Gives up new sockets, for all threads, and tries then to do what must not be possible. Tells what was, and by which name the
/// measure is known that should have stopped it.
pub fn close() -> Vec<(Measure, String)> {
    let sockets = calls::restrict_all_sockets();
    let mut lacking = Vec::new();
    if let Some(deed) = open_anything() {
        lacking.push((Measure::TransportFiles, format!("{deed} is possible")));
    }
    let made = rustix::net::socket(AddressFamily::UNIX, SocketType::DGRAM, None);
    let forbidden = attempts::forbidden_calls().or_else(attempts::forbidden_outside);
    let deed = match (forbidden, made) {
        (Some(deed), _) => Some(deed),
        (None, Ok(_)) => Some("making a socket"),
        (None, Err(_)) => None,
    };
    if let Some(deed) = deed {
        let why = sockets.err().unwrap_or_else(|| "it is not filtered".to_owned());
        lacking.push((Measure::TransportCalls, format!("{deed} is possible: {why}")));
    }
    lacking
}

/// Which rights of root are left, if there are any.
pub fn rights_left() -> Option<(Measure, String)> {
    let held = capabilities(None);
    // The group of somebody who was not root before stays.
    let kept_group = getuid().as_raw() == NOBODY && (getgid().is_root() || getegid().is_root());
    let is_root = getuid().is_root() || geteuid().is_root() || kept_group;
    let deed = match held {
        _ if is_root => "it could not become nobody",
        Ok(held) if held == no_capabilities() => return None,
        Ok(_) => "it keeps capabilities",
        Err(_) => "its capabilities cannot be found out",
    };
    Some((Measure::TransportCalls, deed.to_owned()))
}

/// Who root becomes.
const NOBODY: u32 = 65_534;

fn no_capabilities() -> CapabilitySets {
    CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    }
}

/// Attempts that leave nothing behind where they succeed.
fn open_anything() -> Option<&'static str> {
    let attempts: [(&str, &str, OFlags); 4] = [
        ("opening a file", "/etc/passwd", OFlags::RDONLY),
        ("opening a device", "/dev/null", OFlags::WRONLY),
        (
            "opening a directory",
            "/",
            OFlags::RDONLY.union(OFlags::DIRECTORY),
        ),
        // An unnamed file is gone when it is closed.
        ("making a file", "/tmp", OFlags::RDWR.union(OFlags::TMPFILE)),
    ];
    let is_possible = |path: &str, flags: OFlags| {
        rustix::fs::openat(CWD, path, flags | OFlags::CLOEXEC, Mode::RUSR).is_ok()
    };
    attempts
        .into_iter()
        .find(|(_, path, flags)| is_possible(path, *flags))
        .map(|(deed, ..)| deed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Gid, Uid};
    use rustix::thread::{set_keep_capabilities, set_thread_groups, set_thread_res_gid, set_thread_res_uid};

    /// As the process does that has the network, but for one thread. Who is not root cannot, and need not.
    fn become_nobody() {
        let group = Gid::from_raw(NOBODY);
        let _ = set_thread_groups(&[]);
        let _ = set_thread_res_gid(group, group, group);
        let user = Uid::from_raw(NOBODY);
        let _ = set_thread_res_uid(user, user, user);
    }

    /// What is left after this. For the kernel a user, groups and rights are a thread's.
    fn left(after: impl FnOnce() + Send + 'static) -> Option<String> {
        let thread = std::thread::spawn(move || {
            after();
            rights_left().map(|(_, deed)| deed)
        });
        thread.join().unwrap()
    }

    fn set_user() {
        let user = Uid::from_raw(NOBODY);
        set_thread_res_uid(user, user, user).unwrap();
    }

    #[test]
    fn whoever_could_not_become_nobody_says_so() {
        assert_eq!(left(become_nobody), None);
        if !getuid().is_root() {
            return;
        }
        let is_root = Some("it could not become nobody".to_owned());
        assert_eq!(left(|| {}), is_root);
        // Without the rights of root, but in its group.
        assert_eq!(left(set_user), is_root);
        let keeps = || {
            let group = Gid::from_raw(NOBODY);
            set_keep_capabilities(true).unwrap();
            set_thread_res_gid(group, group, group).unwrap();
            set_user();
        };
        assert_eq!(left(keeps), Some("it keeps capabilities".to_owned()));
    }
}
