//! The system calls that rustix lacks. The only unsafe code of the watchers.
//!
//! fanotify-rs makes the two calls of its name. Nothing else of it is used: its readers do not know the records of a
//! group that reports handles.

use super::records::HandleRef;
use fanotify::low_level::{fanotify_init, fanotify_mark};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// `MAX_HANDLE_SZ`: no handle has more bytes.
pub(in crate::watch) const HANDLE_BYTES_MAX: usize = 128;

/// The directory that a descriptor is open on, which may be an `O_PATH` one.
const SELF: &str = ".";

/// A file handle with room for the longest. The layout is that of `struct file_handle`.
#[repr(C)]
struct RawHandle {
    length: u32,
    kind: i32,
    bytes: [u8; HANDLE_BYTES_MAX],
}

/// What `statfs` says of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::watch) struct FileSystem {
    /// The magic number of its type.
    pub(in crate::watch) magic: u64,
    /// Its id, with the bytes in the order in which events have them.
    pub(super) id: [u8; 8],
}

/// A new notification group.
pub(super) fn init(flags: u32) -> Result<OwnedFd, Errno> {
    let fd = fanotify_init(flags, libc::O_RDONLY as u32).map_err(errno)?;
    // SAFETY: the descriptor is new, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Adds or removes a mark on the directory `directory`, or on its file system.
pub(super) fn mark(group: &OwnedFd, flags: u32, mask: u64, directory: BorrowedFd<'_>) -> Result<(), Errno> {
    fanotify_mark(group.as_raw_fd(), flags, mask, directory.as_raw_fd(), SELF).map_err(errno)
}

/// Gives the handle of the directory that `directory` is open on to `take`.
pub(super) fn with_handle<T>(
    directory: BorrowedFd<'_>,
    take: impl FnOnce(i32, &[u8]) -> T,
) -> Result<T, Errno> {
    let mut handle = RawHandle {
        length: HANDLE_BYTES_MAX as u32,
        kind: 0,
        bytes: [0; HANDLE_BYTES_MAX],
    };
    let mut mount_id = 0;
    // SAFETY: `RawHandle` begins like `struct file_handle` and has the room that `length` promises; the kernel writes
    // no more than that. The mount id is a local variable.
    let answer = unsafe {
        libc::name_to_handle_at(
            directory.as_raw_fd(),
            c"".as_ptr(),
            std::ptr::from_mut(&mut handle).cast(),
            &mut mount_id,
            libc::AT_EMPTY_PATH,
        )
    };
    check(answer)?;
    let length = usize::try_from(handle.length).unwrap_or(usize::MAX);
    let bytes = handle.bytes.get(..length).ok_or(Errno::OVERFLOW)?;
    Ok(take(handle.kind, bytes))
}

/// Opens the directory that has a handle, for reference only. `mount` is any directory of the same file system.
pub(super) fn open_handle(mount: BorrowedFd<'_>, handle: &HandleRef<'_>) -> Result<OwnedFd, Errno> {
    let mut raw = RawHandle {
        length: handle.bytes.len() as u32,
        kind: handle.kind,
        bytes: [0; HANDLE_BYTES_MAX],
    };
    raw.bytes
        .get_mut(..handle.bytes.len())
        .ok_or(Errno::INVAL)?
        .copy_from_slice(handle.bytes);
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
    // SAFETY: `RawHandle` begins like `struct file_handle`, and `length` bytes of it are set. A descriptor that is
    // answered is new, and nobody else's.
    unsafe {
        let fd = libc::open_by_handle_at(mount.as_raw_fd(), std::ptr::from_mut(&mut raw).cast(), flags);
        check(fd).map(|fd| OwnedFd::from_raw_fd(fd))
    }
}

/// The type and the id of the file system that a descriptor is on.
pub(in crate::watch) fn file_system(fd: BorrowedFd<'_>) -> Result<FileSystem, Errno> {
    // SAFETY: `statfs` is plain numbers, for which zero is a value, and the call fills in one of it. `fsid_t` is two
    // 32-bit numbers, and eight bytes in any case; its fields are private to libc.
    unsafe {
        let mut answer: libc::statfs = std::mem::zeroed();
        check(libc::fstatfs(fd.as_raw_fd(), &mut answer))?;
        Ok(FileSystem {
            magic: answer.f_type as u64 & 0xffff_ffff,
            id: std::mem::transmute::<libc::fsid_t, [u8; 8]>(answer.f_fsid),
        })
    }
}

fn check(answer: libc::c_int) -> Result<libc::c_int, Errno> {
    if answer >= 0 {
        return Ok(answer);
    }
    Err(errno(io::Error::last_os_error()))
}

fn errno(error: io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}
