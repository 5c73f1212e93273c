//! A filter of system calls: what a receiver never calls fails with `EPERM`.
//!
//! A list of what is forbidden, not of what is permitted: the runtime and the C library call what they like, and another
//! version of them must not make a daemon fail years later on somebody's disk. What is on the list is what leads out.

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter, apply_filter_all_threads, sock_filter,
};
use std::collections::BTreeMap;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Programs, other processes, the kernel, mounts, namespaces, identities, keys, clocks. `open_by_handle_at` opens files
/// without a path, and the ring of io_uring makes calls that no filter sees.
const NEVER: &[libc::c_long] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_open_by_handle_at,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_fanotify_init,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_setgroups,
    libc::SYS_personality,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    libc::SYS_nfsservctl,
    libc::SYS_lookup_dcookie,
];

/// What only some architectures have.
#[cfg(target_arch = "x86_64")]
const NEVER_HERE: &[libc::c_long] = &[
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
    libc::SYS_uselib,
    libc::SYS_kexec_file_load,
];
#[cfg(not(target_arch = "x86_64"))]
const NEVER_HERE: &[libc::c_long] = &[];

/// Everything that has a path, or leads from one file to another, or to another process.
const FILES: &[libc::c_long] = &[
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_name_to_handle_at,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_linkat,
    libc::SYS_symlinkat,
    libc::SYS_unlinkat,
    libc::SYS_readlinkat,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fchmodat,
    libc::SYS_fchownat,
    libc::SYS_utimensat,
    libc::SYS_truncate,
    libc::SYS_chdir,
    libc::SYS_fchdir,
    libc::SYS_statfs,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_getxattr,
    libc::SYS_lgetxattr,
    libc::SYS_listxattr,
    libc::SYS_llistxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_inotify_init1,
    libc::SYS_inotify_add_watch,
    libc::SYS_mq_open,
    libc::SYS_shmget,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    FCHMODAT2,
    SETXATTRAT,
    GETXATTRAT,
    LISTXATTRAT,
    REMOVEXATTRAT,
    FILE_GETATTR,
    FILE_SETATTR,
    libc::SYS_tkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_pidfd_send_signal,
];

/// Calls of newer kernels than the library knows; their numbers are the same on all architectures.
const FCHMODAT2: libc::c_long = 452;
const SETXATTRAT: libc::c_long = 463;
const GETXATTRAT: libc::c_long = 464;
const LISTXATTRAT: libc::c_long = 465;
const REMOVEXATTRAT: libc::c_long = 466;
const FILE_GETATTR: libc::c_long = 468;
const FILE_SETATTR: libc::c_long = 469;

/// What only some architectures have.
#[cfg(target_arch = "x86_64")]
const FILES_HERE: &[libc::c_long] = &[
    libc::SYS_open,
    libc::SYS_creat,
    libc::SYS_mkdir,
    libc::SYS_mknod,
    libc::SYS_rename,
    libc::SYS_link,
    libc::SYS_symlink,
    libc::SYS_unlink,
    libc::SYS_rmdir,
    libc::SYS_readlink,
    libc::SYS_access,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_lchown,
    libc::SYS_utime,
    libc::SYS_utimes,
    libc::SYS_futimesat,
    libc::SYS_inotify_init,
    libc::SYS_stat,
    libc::SYS_lstat,
];
#[cfg(not(target_arch = "x86_64"))]
const FILES_HERE: &[libc::c_long] = &[];

/// For once all sockets are there. Of pairs see [`pairs`].
const SOCKETS: &[libc::c_long] = &[
    libc::SYS_socket,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
];

/// Filters the calls of this thread and of those that it starts.
pub(super) fn restrict() -> Result<(), String> {
    let mut rules = always(NEVER.iter().chain(NEVER_HERE));
    rules.insert(libc::SYS_clone, clones()?);
    rules.insert(libc::SYS_ioctl, terminals()?);
    // Its flags are behind a pointer, where no filter sees them; the C library then uses `clone`.
    let hidden = always(&[libc::SYS_clone3]);
    for (rules, error) in [(hidden, libc::ENOSYS), (rules, libc::EPERM)] {
        apply_filter(&compiled(rules, error)?).map_err(|error| error.to_string())?;
    }
    if cfg!(target_arch = "x86_64") {
        apply_filter(&no_x32()).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Filters the calls of all threads, those that run already as well.
pub(super) fn restrict_sockets() -> Result<(), String> {
    let mut rules = always(SOCKETS);
    rules.insert(libc::SYS_socketpair, pairs()?);
    let filter = compiled(rules, libc::EPERM)?;
    apply_filter_all_threads(&filter).map_err(|error| error.to_string())
}

/// The same for a process that is given all that it needs.
pub(super) fn restrict_all_sockets() -> Result<(), String> {
    let filter = compiled(always(SOCKETS.iter().chain(&[libc::SYS_socketpair])), libc::EPERM)?;
    apply_filter_all_threads(&filter).map_err(|error| error.to_string())
}

/// Filters away all calls that name a file or another process, for this thread and those that it starts.
pub(super) fn restrict_files() -> Result<(), String> {
    let mut rules = always(FILES.iter().chain(FILES_HERE));
    // To outlive who started it.
    let parent = u64::from(libc::PR_SET_PDEATHSIG.cast_unsigned());
    rules.insert(libc::SYS_prctl, vec![argument(0, SeccompCmpOp::Eq, parent)?]);
    // A program that aborts sends a signal to itself.
    let own = u64::from(std::process::id());
    for call in [libc::SYS_kill, libc::SYS_tgkill] {
        rules.insert(call, vec![argument(0, SeccompCmpOp::Ne, own)?]);
    }
    rules.insert(libc::SYS_prlimit64, vec![argument(0, SeccompCmpOp::Ne, 0)?]);
    apply_filter(&compiled(rules, libc::EPERM)?).map_err(|error| error.to_string())
}

/// Pairs of sockets but for streams of this machine, which are connected with each other and lead nowhere else. Those of
/// datagrams could be used to send to anybody who has a name.
fn pairs() -> Result<Vec<SeccompRule>, String> {
    /// The kind, without flags.
    const KIND: u64 = 0xf;
    let other_family = argument(0, SeccompCmpOp::Ne, u64::from(libc::AF_UNIX.cast_unsigned()));
    let other_kinds = [libc::SOCK_DGRAM, libc::SOCK_RAW, libc::SOCK_SEQPACKET]
        .map(|kind| argument(1, SeccompCmpOp::MaskedEq(KIND), u64::from(kind.cast_unsigned())));
    std::iter::once(other_family).chain(other_kinds).collect()
}

fn always<'a>(calls: impl IntoIterator<Item = &'a libc::c_long>) -> Rules {
    calls.into_iter().map(|&call| (call, Vec::new())).collect()
}

fn compiled(rules: Rules, error: libc::c_int) -> Result<BpfProgram, String> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|error| error.to_string())?;
    let refused = SeccompAction::Errno(error.unsigned_abs());
    SeccompFilter::new(rules, SeccompAction::Allow, refused, arch)
        .and_then(BpfProgram::try_from)
        .map_err(|error| error.to_string())
}

/// Threads are started, processes and namespaces are not.
fn clones() -> Result<Vec<SeccompRule>, String> {
    const NAMESPACES: [libc::c_int; 7] = [
        libc::CLONE_NEWNS,
        libc::CLONE_NEWCGROUP,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
    ];
    let bit = |flag: libc::c_int| u64::from(flag.cast_unsigned());
    let thread = bit(libc::CLONE_THREAD);
    let process = argument(0, SeccompCmpOp::MaskedEq(thread), 0);
    let namespaces = NAMESPACES
        .iter()
        .map(|&flag| argument(0, SeccompCmpOp::MaskedEq(bit(flag)), bit(flag)));
    std::iter::once(process).chain(namespaces).collect()
}

/// Typing into the administrator's terminal.
#[allow(clippy::unnecessary_cast, reason = "musl has another type for them")]
fn terminals() -> Result<Vec<SeccompRule>, String> {
    [libc::TIOCSTI, libc::TIOCLINUX]
        .into_iter()
        .map(|request| argument(1, SeccompCmpOp::Eq, request as u64))
        .collect()
}

fn argument(index: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompRule, String> {
    SeccompCondition::new(index, SeccompCmpArgLen::Dword, operator, value)
        .and_then(|condition| SeccompRule::new(vec![condition]))
        .map_err(|error| error.to_string())
}

/// The other set of numbers that the kernel may know for the same calls on this architecture.
fn no_x32() -> BpfProgram {
    const X32: u32 = 0x4000_0000;
    let statement = |code: u32, k: u32| sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    };
    vec![
        // The number of the call is the first field of what a filter sees.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        sock_filter {
            jf: 1,
            ..statement(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, X32)
        },
        statement(
            libc::BPF_RET | libc::BPF_K,
            libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs(),
        ),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ]
}
