//! A filter of system calls for a process that only computes and tells its result.
//!
//! Here it is a list of what is permitted: such a process lives for seconds and has few needs, and a call that is missing
//! from the list fails, which at worst ends it.

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter_all_threads};

/// Memory, threads that run already, the clock, what is open, and the end.
const PERMITTED: &[libc::c_long] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_clock_gettime,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_tgkill,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Leaves all threads of this process nothing but to compute, and to use what is open. Threads cannot be started later.
pub fn compute_only() -> Result<(), String> {
    super::no_new_privileges()?;
    apply_filter_all_threads(&filter()?).map_err(|error| error.to_string())
}

fn filter() -> Result<BpfProgram, String> {
    let rules = PERMITTED.iter().map(|call| (*call, Vec::new())).collect();
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|error| error.to_string())?;
    let denied = SeccompAction::Errno(libc::EPERM as u32);
    SeccompFilter::new(rules, denied, SeccompAction::Allow, arch)
        .and_then(BpfProgram::try_from)
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use seccompiler::apply_filter;
    use std::io::ErrorKind;

    /// The same for one thread, so that the other tests go on.
    #[test]
    fn nothing_can_be_opened_or_started() {
        let confined = std::thread::spawn(|| {
            super::super::no_new_privileges().unwrap();
            apply_filter(&filter().unwrap()).unwrap();
            let opened = std::fs::read("/etc/hostname").map(drop);
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").map(drop);
            let started = std::process::Command::new("/bin/true").status().map(drop);
            let removed = std::fs::remove_file("/nonexistent/file");
            let text = "x".repeat(10 << 20);
            ([opened, socket, started, removed], text.len())
        });
        let (outcomes, length) = confined.join().unwrap();
        let kinds = outcomes.map(|outcome| outcome.unwrap_err().kind());
        assert_eq!(kinds, [ErrorKind::PermissionDenied; 4]);
        assert_eq!(length, 10 << 20);
    }
}
