//! One driftless per tree.
//!
//! A lock is an exclusive flock on the tree's root directory and a shared one on every directory above it. So two locks
//! exclude each other when they are for the same directory, or when one lies inside the other; siblings do not. The
//! kernel drops them with the process. They go by the directory, not by its name: another path, a symbolic link or a
//! bind mount to it make no difference (but the directories *above* a bind mount are those of the path given).
//!
//! Not covered: network file systems that know no flock on directories, and directories above that this process may
//! not read or not reach (root always may). And who may read a directory may also flock
//! it: a local user can keep driftless from starting. That is visible, names the directory, and harms no data.

use super::directory::Directory;
use super::error::{FsError, FsErrorKind, Result};
use super::stat::stat_handle;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use thiserror::Error;

/// Held, no other lock on the same directory, one above it or one inside it can be taken, in any process.
#[derive(Debug)]
pub struct TreeLock {
    /// The root first, then upwards.
    handles: Vec<OwnedFd>,
}

/// Where the other lock is, seen from the directory to be locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LockRelation {
    /// On the directory itself.
    Same,
    /// On a directory above.
    Ancestor,
    /// On a directory somewhere inside.
    Descendant,
}

/// Why a tree could not be locked.
#[derive(Debug, Error)]
pub enum LockError {
    /// Somebody else has it.
    #[error("{}", in_use(.path, .which, .held))]
    Held {
        /// The directory to be locked, escaped for display.
        path: String,
        /// Where the other lock is.
        which: LockRelation,
        /// The directory that could not be locked: `path`, or the one above it that is taken.
        held: String,
    },
    /// The directory could not be opened or locked at all.
    #[error(transparent)]
    Failed(#[from] FsError),
}

fn in_use(path: &str, which: &LockRelation, held: &str) -> String {
    match which {
        LockRelation::Same => format!("{path} is in use by another driftless"),
        LockRelation::Ancestor => format!("{path} lies inside {held}, which is in use by another driftless"),
        LockRelation::Descendant => format!("a directory inside {path} is in use by another driftless"),
    }
}

impl TreeLock {
    /// Locks the directory at `path`, whose symbolic links are followed. Never waits.
    pub fn acquire(path: &Path) -> Result<TreeLock, LockError> {
        TreeLock::acquire_on(&Directory::open_root(path)?)
    }

    /// Locks a directory that is open already, wherever its path leads by now. Never waits.
    pub fn acquire_on(root: &Directory) -> Result<TreeLock, LockError> {
        let failed = |errno| FsError::new("lock", root.shown(), errno);
        let open = |at: BorrowedFd<'_>, name: &str, how: OFlags| {
            let flags = how | OFlags::DIRECTORY | OFlags::CLOEXEC;
            retry_on_intr(|| rustix::fs::openat(at, name, flags, Mode::empty()))
        };
        let held = |which, held| LockError::Held {
            path: root.shown().to_owned(),
            which,
            held,
        };

        let own = open(root.as_fd(), ".", OFlags::RDONLY).map_err(failed)?;
        // From here on, every way out unlocks what is in here.
        let mut lock = TreeLock { handles: vec![own] };
        let own = &lock.handles[0];
        match rustix::fs::flock(own, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                // Beside a shared lock there is room for another shared one.
                let which = match rustix::fs::flock(own, FlockOperation::NonBlockingLockShared) {
                    Ok(()) => LockRelation::Descendant,
                    Err(_) => LockRelation::Same,
                };
                return Err(held(which, root.shown().to_owned()));
            }
            Err(errno @ (Errno::BADF | Errno::INVAL | Errno::NOLCK | Errno::OPNOTSUPP)) => {
                let cause = "this file system has no locks on directories";
                return Err(failed(errno).explained(FsErrorKind::Unsupported, cause).into());
            }
            Err(errno) => return Err(failed(errno).into()),
        }

        let mut stamp = stat_handle(own).map_err(failed)?.stamp;
        let mut at = open(own.as_fd(), ".", OFlags::PATH).map_err(failed)?;
        loop {
            at = match open(at.as_fd(), "..", OFlags::PATH) {
                Ok(above) => above,
                // There is no way up without the right to search this one.
                Err(Errno::ACCESS) => return Ok(lock),
                Err(errno) => return Err(failed(errno).into()),
            };
            let above = stat_handle(&at).map_err(failed)?.stamp;
            // Above the top is the top.
            if above.same_object(&stamp) {
                return Ok(lock);
            }
            stamp = above;
            // What we may not read we cannot lock.
            let Ok(lockable) = open(at.as_fd(), ".", OFlags::RDONLY) else {
                continue;
            };
            match rustix::fs::flock(&lockable, FlockOperation::NonBlockingLockShared) {
                Ok(()) => lock.handles.push(lockable),
                Err(Errno::WOULDBLOCK) => return Err(held(LockRelation::Ancestor, path_of(&lockable))),
                // A file system without such locks: nobody can have locked this one.
                Err(_) => {}
            }
        }
    }
}

impl Drop for TreeLock {
    fn drop(&mut self) {
        for handle in &self.handles {
            // Closing would do, were it not for a child process between fork and exec that has copies of the handles.
            let _ = rustix::fs::flock(handle, FlockOperation::Unlock);
        }
    }
}

/// Where an open directory is now, for a message.
fn path_of(fd: &OwnedFd) -> String {
    match std::fs::read_link(super::meta::proc_path(fd)) {
        Ok(path) => super::directory::shown_path(&path),
        Err(_) => "a directory above".to_owned(),
    }
}
