//! Kernels that lack calls: a filter (seccomp) makes them fail in a process of its own as if nobody had ever heard of them.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

const fn statement(code: u32, value: u32) -> libc::sock_filter {
    jump(code, value, 0)
}

const fn jump(code: u32, value: u32, unequal: u8) -> libc::sock_filter {
    libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: unequal,
        k: value,
    }
}

fn filter(calls: &[libc::c_long]) -> Vec<libc::sock_filter> {
    let answer = |value| statement(libc::BPF_RET | libc::BPF_K, value);
    // The number of the call is the first field of what a filter sees.
    let mut filter = vec![statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0)];
    for &call in calls {
        filter.push(jump(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, call as u32, 1));
        filter.push(answer(libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32));
    }
    filter.push(answer(libc::SECCOMP_RET_ALLOW));
    filter
}

/// Lets these calls fail with `ENOSYS` in what the command runs. Without any, nothing is changed.
pub fn without(command: &mut Command, calls: &[libc::c_long]) {
    if calls.is_empty() {
        return;
    }
    let mut filter = filter(calls);
    let install = move || {
        let program = libc::sock_fprog {
            len: filter.len() as u16,
            filter: filter.as_mut_ptr(),
        };
        // SAFETY: between fork and exec two calls without allocation; the filter lives through them.
        let answers = unsafe {
            [
                libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
                libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program),
            ]
        };
        match answers {
            [0, 0] => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: see above.
    unsafe { command.pre_exec(install) };
}
