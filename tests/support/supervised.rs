//! A program whose system calls wait, one after the other, until the test has decided what becomes of them.
//!
//! The kernel's seccomp notifications do it (Linux 5.0, no privilege needed): the child has a filter that hands the calls
//! of interest to this process. So calls are counted over all threads in the order in which they come, and one of them
//! can fail, be left out, be cut short, or be the last one before SIGKILL.

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use std::ffi::{c_long, c_uint};
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread::JoinHandle;

/// `fchmodat2`, which not every version of the libc crate has; the number is the same on all architectures.
const SYS_FCHMODAT2: c_long = 452;

/// What opens with these flags makes something.
const CREATING: u64 = (libc::O_CREAT | 0o20_000_000) as u64;

/// The calls that change something on a disk, or bring it there.
pub const MUTATING: &[(c_long, &str)] = &[
    (libc::SYS_write, "write"),
    (libc::SYS_pwrite64, "pwrite64"),
    (libc::SYS_ftruncate, "ftruncate"),
    (libc::SYS_fallocate, "fallocate"),
    (libc::SYS_copy_file_range, "copy_file_range"),
    (libc::SYS_fsync, "fsync"),
    (libc::SYS_fdatasync, "fdatasync"),
    (libc::SYS_syncfs, "syncfs"),
    (libc::SYS_openat, "openat"),
    (libc::SYS_openat2, "openat2"),
    (libc::SYS_linkat, "linkat"),
    (libc::SYS_renameat, "renameat"),
    (libc::SYS_renameat2, "renameat2"),
    (libc::SYS_unlinkat, "unlinkat"),
    (libc::SYS_mkdirat, "mkdirat"),
    (libc::SYS_symlinkat, "symlinkat"),
    (libc::SYS_mknodat, "mknodat"),
    (libc::SYS_fchmod, "fchmod"),
    (libc::SYS_fchmodat, "fchmodat"),
    (SYS_FCHMODAT2, "fchmodat2"),
    (libc::SYS_fchown, "fchown"),
    (libc::SYS_fchownat, "fchownat"),
    (libc::SYS_utimensat, "utimensat"),
    (libc::SYS_setxattr, "setxattr"),
    (libc::SYS_lsetxattr, "lsetxattr"),
    (libc::SYS_fsetxattr, "fsetxattr"),
    (libc::SYS_removexattr, "removexattr"),
    (libc::SYS_fremovexattr, "fremovexattr"),
];

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The kernel carries it out.
    Pass,
    /// It is not carried out and fails.
    Fail(Errno),
    /// It is not carried out and succeeds.
    LeaveOut,
    /// Half of the bytes are written. Only for `write` and `pwrite64`.
    Halve,
    /// It is not carried out, and nothing after it: SIGKILL.
    Kill,
}

/// A call that waits.
#[derive(Debug)]
pub struct Call {
    /// Which.
    pub name: &'static str,
    thread: u32,
    arguments: [u64; 6],
}

impl Call {
    /// The path of the descriptor that the call works on: the file, or the directory in which a name is changed.
    pub fn path(&self) -> Option<PathBuf> {
        std::fs::read_link(self.descriptor()).ok()
    }

    /// That descriptor, as a link to what it is for.
    pub fn descriptor(&self) -> PathBuf {
        let at = match self.name {
            "linkat" | "renameat" | "renameat2" | "copy_file_range" => 2,
            "symlinkat" => 1,
            _ => 0,
        };
        let descriptor = self.arguments[at] as i32;
        format!("/proc/{}/fd/{descriptor}", self.thread).into()
    }

    /// Its first descriptor, as a link to what it is for: of `linkat` by handle the file, not the directory.
    pub fn first_descriptor(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", self.thread, self.arguments[0] as i32).into()
    }

    /// Whether it works on something in `directory`.
    pub fn is_in(&self, directory: &Path) -> bool {
        self.path().is_some_and(|path| path.starts_with(directory))
    }

    /// The bytes that the call writes, if it says where.
    pub fn written(&self) -> Option<std::ops::Range<u64>> {
        let [_, _, length, offset, ..] = self.arguments;
        (self.name == "pwrite64").then(|| offset..offset.saturating_add(length))
    }

    /// Opening without making anything changes nothing.
    fn is_harmless(&self) -> bool {
        match self.name {
            "openat" => self.arguments[2] & CREATING == 0,
            "openat2" => {
                let mut flags = [0; 8];
                let read = File::open(format!("/proc/{}/mem", self.thread))
                    .and_then(|memory| memory.read_exact_at(&mut flags, self.arguments[2]));
                read.is_err() || u64::from_ne_bytes(flags) & CREATING == 0
            }
            _ => false,
        }
    }

    /// Writes half of what the caller wants to write, and answers how much that is.
    fn write_half(&self) -> io::Result<u64> {
        let bytes = self.arguments[2].div_ceil(2);
        let mut buffer = vec![0; usize::try_from(bytes).unwrap()];
        File::open(format!("/proc/{}/mem", self.thread))?.read_exact_at(&mut buffer, self.arguments[1])?;
        let path = format!("/proc/{}/fd/{}", self.thread, self.arguments[0] as i32);
        let file = OpenOptions::new().write(true).open(path)?;
        assert_eq!(self.name, "pwrite64", "only writes at an offset can be halved");
        file.write_all_at(&buffer, self.arguments[3])?;
        Ok(bytes)
    }
}

/// A supervised program; dropping it kills it.
pub struct Supervised {
    pub child: Child,
    supervisor: Option<JoinHandle<()>>,
}

impl Supervised {
    /// Starts a program of which `judge` decides about each mutating call.
    pub fn start(
        command: &mut Command,
        judge: impl FnMut(&Call) -> Verdict + Send + 'static,
    ) -> io::Result<Supervised> {
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        let filter = filter();
        // SAFETY: between fork and exec only system calls are made; nothing is allocated or locked.
        unsafe {
            command.pre_exec(move || {
                let listener = install(&filter)?;
                hand_over(theirs.as_fd(), listener)
            });
        }
        let child = command.spawn()?;
        let listener = take_over(&ours)?;
        let process = child.id();
        let supervisor = std::thread::spawn(move || supervise(&listener, process, judge));
        Ok(Supervised {
            child,
            supervisor: Some(supervisor),
        })
    }

    /// SIGKILL; returns once the process is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(supervisor) = self.supervisor.take()
            && let Err(panic) = supervisor.join()
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }

    /// Waits until the process is gone.
    pub fn wait(&mut self) -> std::process::ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The filter: mutating calls are notified, all others pass.
fn filter() -> Vec<libc::sock_filter> {
    let statement = |code: u32, k: u32| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    };
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let mut program = vec![statement(load, 0)];
    for (index, (number, _)) in MUTATING.iter().enumerate() {
        let to_the_end = u8::try_from(MUTATING.len() - index).unwrap();
        program.push(libc::sock_filter {
            code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
            jt: to_the_end,
            jf: 0,
            k: *number as u32,
        });
    }
    let answer = libc::BPF_RET | libc::BPF_K;
    program.push(statement(answer, libc::SECCOMP_RET_ALLOW));
    program.push(statement(answer, libc::SECCOMP_RET_USER_NOTIF));
    program
}

/// Puts the calling process under the filter; the answer is the descriptor at which its calls are heard.
fn install(filter: &[libc::sock_filter]) -> io::Result<RawFd> {
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: numbers only.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let (mode, flags) = (
        libc::SECCOMP_SET_MODE_FILTER,
        libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
    );
    // SAFETY: the program outlives the call, and its length is that of the filter.
    let listener = unsafe { libc::syscall(libc::SYS_seccomp, mode as c_uint, flags, &raw const program) };
    match listener {
        -1 => Err(io::Error::last_os_error()),
        listener => Ok(listener as RawFd),
    }
}

fn hand_over(socket: BorrowedFd<'_>, listener: RawFd) -> io::Result<()> {
    // SAFETY: it was just opened, and stays open until the program replaces this one.
    let listener = [unsafe { BorrowedFd::borrow_raw(listener) }];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&listener));
    rustix::net::sendmsg(socket, &[IoSlice::new(b"l")], &mut ancillary, SendFlags::empty())?;
    Ok(())
}

fn take_over(socket: &OwnedFd) -> io::Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, flags)?;
    ancillary
        .drain()
        .find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        })
        .ok_or_else(|| io::Error::other("the child sent no descriptor"))
}

/// Answers calls until the last thread is gone.
fn supervise(listener: &OwnedFd, process: u32, mut judge: impl FnMut(&Call) -> Verdict) {
    while let Some(notice) = next(listener) {
        let Some(&(_, name)) = MUTATING
            .iter()
            .find(|(number, _)| *number == c_long::from(notice.data.nr))
        else {
            continue;
        };
        let call = Call {
            name,
            thread: notice.pid,
            arguments: notice.data.args,
        };
        let verdict = if call.is_harmless() {
            Verdict::Pass
        } else {
            judge(&call)
        };
        // SAFETY: all bytes zero is a value of this plain structure.
        let mut answer: libc::seccomp_notif_resp = unsafe { std::mem::zeroed() };
        answer.id = notice.id;
        match verdict {
            Verdict::Pass => answer.flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32,
            Verdict::Fail(errno) => answer.error = -errno.raw_os_error(),
            Verdict::LeaveOut => {}
            Verdict::Halve => answer.val = call.write_half().unwrap() as i64,
            Verdict::Kill => {
                let process = rustix::process::Pid::from_raw(process as i32).unwrap();
                let _ = rustix::process::kill_process(process, rustix::process::Signal::KILL);
                continue;
            }
        }
        // SAFETY: the structure lives across the call. A call whose thread is gone takes no answer.
        unsafe {
            libc::ioctl(
                listener.as_raw_fd(),
                libc::SECCOMP_IOCTL_NOTIF_SEND,
                &raw mut answer,
            )
        };
    }
}

/// The next call; none when nobody is left to make one.
fn next(listener: &OwnedFd) -> Option<libc::seccomp_notif> {
    use rustix::event::{PollFd, PollFlags, poll};
    loop {
        let mut polled = [PollFd::new(listener, PollFlags::IN)];
        match poll(&mut polled, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => panic!("waiting for system calls: {error}"),
        }
        let events = polled[0].revents();
        if !events.contains(PollFlags::IN) {
            if events.contains(PollFlags::HUP) {
                return None;
            }
            continue;
        }
        // SAFETY: all bytes zero is a value of this plain structure, and what the kernel wants.
        let mut notice: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: the structure lives across the call.
        let received = unsafe {
            libc::ioctl(
                listener.as_raw_fd(),
                libc::SECCOMP_IOCTL_NOTIF_RECV,
                &raw mut notice,
            )
        };
        if received == 0 {
            return Some(notice);
        }
        // The thread was killed, or interrupted, before its call was taken.
    }
}
