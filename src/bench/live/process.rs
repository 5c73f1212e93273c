//! What daemons cost while nothing, or something else, happens: processor time to the nanosecond, resident memory, and what
//! they hold in the kernel.

use super::super::runner::family;
use std::fs;
use std::time::Duration;

/// Processor time so far of a process and of everything it started. That of what has ended already is known in clock
/// ticks only (10 ms).
pub(super) fn cpu(id: u32) -> Duration {
    family(id)
        .into_iter()
        .map(|id| own_cpu(id) + ended_children(id))
        .sum()
}

fn own_cpu(id: u32) -> Duration {
    let (mut clock, mut time) = (
        0,
        libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        },
    );
    let Ok(id) = libc::pid_t::try_from(id) else {
        return Duration::ZERO;
    };
    // SAFETY: both pointers are to live values of the right types; a process that is gone is reported as an error.
    let failed = unsafe {
        libc::clock_getcpuclockid(id, &mut clock) != 0 || libc::clock_gettime(clock, &mut time) != 0
    };
    if failed {
        return Duration::ZERO;
    }
    Duration::new(
        time.tv_sec.try_into().unwrap_or_default(),
        time.tv_nsec.try_into().unwrap_or_default(),
    )
}

/// What the children that a process waited for took, with what they waited for.
fn ended_children(id: u32) -> Duration {
    let fields = stat_fields(id);
    let ticks: u64 = [13, 14]
        .iter()
        .filter_map(|at| fields.get(*at)?.parse::<u64>().ok())
        .sum();
    Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// The fields of the kernel's line on a process that follow its name; the state is the first.
fn stat_fields(id: u32) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    // The name, in parentheses, may hold anything.
    let fields = text.rsplit_once(')').map_or("", |(_, fields)| fields);
    fields.split_whitespace().map(str::to_owned).collect()
}

/// Whether a process is there and has not ended.
pub(super) fn is_running(id: u32) -> bool {
    stat_fields(id)
        .first()
        .is_some_and(|state| state != "Z" && state != "X")
}

/// The name of the program that a process runs, as far as the kernel keeps it.
pub(super) fn program(id: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default();
    name.trim_end().to_owned()
}

/// Resident memory of a process and of everything it started that still runs, in bytes. What they share counts for each.
pub(super) fn resident(id: u32) -> u64 {
    let of_one = |id: u32| {
        let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|rest| rest.trim().split(' ').next()?.parse::<u64>().ok())
            .unwrap_or_default()
            * 1024
    };
    family(id).into_iter().map(of_one).sum()
}

/// Bytes that a process has written to files and pipes, not to sockets, if the kernel tells.
pub(super) fn written(id: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{id}/io")).ok()?;
    text.lines()
        .find_map(|line| line.strip_prefix("wchar: "))?
        .parse()
        .ok()
}

/// How many inotify watches and fanotify marks a process holds.
pub(super) fn watches(id: u32) -> u64 {
    let files = fs::read_dir(format!("/proc/{id}/fdinfo"))
        .into_iter()
        .flatten()
        .flatten();
    files
        .filter_map(|file| fs::read_to_string(file.path()).ok())
        .map(|text| watches_in(&text))
        .sum()
}

/// How many a descriptor holds, by what the kernel tells about it.
fn watches_in(fdinfo: &str) -> u64 {
    let is_watch = |line: &&str| {
        // Of fanotify, the line with flags is about the group, those with a mask are about marks.
        line.starts_with("inotify wd:") || (line.starts_with("fanotify ") && line.contains("mask:"))
    };
    fdinfo.lines().filter(is_watch).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::inotify;
    use std::os::fd::AsRawFd;

    #[test]
    fn work_and_watches_of_this_process_are_counted() {
        let (id, directory) = (std::process::id(), tempfile::tempdir().unwrap());
        let before = cpu(id);
        let instance = inotify::init(inotify::CreateFlags::CLOEXEC).unwrap();
        for name in ["a", "b"] {
            let path = directory.path().join(name);
            fs::create_dir(&path).unwrap();
            inotify::add_watch(&instance, &path, inotify::WatchFlags::CREATE).unwrap();
        }
        let fdinfo = format!("/proc/self/fdinfo/{}", instance.as_raw_fd());
        assert_eq!(watches_in(&fs::read_to_string(fdinfo).unwrap()), 2);
        assert!(watches(id) >= 2);
        let mut sum = 0_u64;
        while cpu(id) < before + Duration::from_millis(5) {
            sum = (0..100_000).fold(sum, |sum, n| std::hint::black_box(sum ^ n));
        }
        assert!(resident(id) > 1 << 20);
        let before = written(id).unwrap();
        fs::write(directory.path().join("c"), [0; 5000]).unwrap();
        assert!(written(id).unwrap() >= before + 5000);
        assert!(is_running(id));
    }

    #[test]
    fn a_process_that_ended_does_not_run_even_before_it_was_waited_for() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let began = std::time::Instant::now();
        while is_running(child.id()) {
            assert!(began.elapsed() < Duration::from_secs(20));
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(child.wait().unwrap().success());
    }
}
