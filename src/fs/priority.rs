//! How much of the processor and of the disks this process takes beside others.

use rustix::io::Errno;
use std::io;

/// A class of the I/O schedulers, which those that have no classes ignore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IoPriority {
    /// Before everybody else, by levels; needs a privilege.
    Realtime(u8),
    /// As everybody, by levels.
    BestEffort(u8),
    /// When nobody else wants the disk.
    Idle,
}

impl IoPriority {
    /// The lowest level; 0 is the highest.
    pub const LEVEL_MAX: u8 = 7;

    fn to_kernel(self) -> libc::c_int {
        let (class, level) = match self {
            IoPriority::Realtime(level) => (1, level),
            IoPriority::BestEffort(level) => (2, level),
            IoPriority::Idle => (3, 0),
        };
        class << 13 | libc::c_int::from(level)
    }
}

/// Sets the niceness, from -20 to 19, of this thread and of those that it starts from now on.
pub fn set_niceness(niceness: i32) -> io::Result<()> {
    Ok(rustix::process::setpriority_process(None, niceness)?)
}

/// Sets the I/O priority of this thread and of those that it starts from now on.
pub fn set_io_priority(priority: IoPriority) -> io::Result<()> {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    // SAFETY: the call takes numbers only; 0 is the calling thread.
    let answer = unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, priority.to_kernel()) };
    match answer {
        0 => Ok(()),
        _ => Err(Errno::from_io_error(&io::Error::last_os_error())
            .unwrap_or(Errno::IO)
            .into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn io_priority() -> libc::c_long {
        // SAFETY: the call takes numbers only.
        unsafe { libc::syscall(libc::SYS_ioprio_get, 1, 0) }
    }

    #[test]
    fn threads_that_are_started_later_have_them() {
        std::thread::spawn(|| {
            set_niceness(7).unwrap();
            for (priority, kernel) in [
                (IoPriority::BestEffort(5), 2 << 13 | 5),
                (IoPriority::Idle, 3 << 13),
            ] {
                set_io_priority(priority).unwrap();
                let found =
                    std::thread::spawn(|| (io_priority(), rustix::process::getpriority_process(None)));
                assert_eq!(found.join().unwrap(), (kernel, Ok(7)));
            }
        })
        .join()
        .unwrap();
    }
}
