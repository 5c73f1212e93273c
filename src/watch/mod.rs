//! Kernel events in, plain events out.
//!
//! A watcher says that something happened at a place; what happened, the core finds out by looking. So a watcher may
//! say too much, say it twice, or say it late, but there are two things that it must never do: lose an event without
//! saying so ([`WatchEvent::Overflow`]), and wait for anybody while the kernel has more to say.
//!
//! The order that leaves no gap is *watch first, then list*: what happens in a directory before
//! [`Watcher::watch`] returns need not be told, because the listing comes after it.
//!
//! | module | holds |
//! | --- | --- |
//! | [`inotify`] | one watch for each directory, no privilege needed |
//! | [`scripted`] | a watcher that says what a test tells it to |

pub mod inotify;
mod outgoing;
pub mod scripted;

pub use inotify::Inotify;
pub use scripted::Scripted;

pub use crate::engine::pending::WatchEvent;

use crossbeam_channel::Receiver;
use driftless_protocol::ObjectId;
use std::os::fd::BorrowedFd;
use std::{fmt, io};
use thiserror::Error;

/// Something that tells about changes in the directories that it was given.
pub trait Watcher: Send {
    /// Watches the directory that `handle` is open on, under the number `directory`. Needs permission to read the
    /// directory, not just a handle on it. The handle may be closed afterwards.
    ///
    /// A directory that is watched already gets the new number; a number that watched another directory leaves it.
    fn watch(&mut self, directory: ObjectId, handle: BorrowedFd<'_>) -> Result<(), WatchError>;

    /// Stops watching. No event that is read from the kernel after this carries the number; those already in the
    /// channel still do. Does nothing when the number is not watched.
    fn unwatch(&mut self, directory: ObjectId);

    /// What to call this watcher in messages.
    fn name(&self) -> &'static str;

    /// How many directories are watched.
    fn watched(&self) -> usize;

    /// Where events come out. Every event comes out once, whichever receiver takes it. A channel that is
    /// disconnected says that the watcher no longer works.
    fn events(&self) -> Receiver<WatchEvent>;
}

/// Why a directory is not watched.
#[derive(Debug, Error)]
pub enum WatchError {
    /// The user has as many watches as the system allows.
    #[error("cannot watch {path}: all inotify watches of this user are in use; raise the sysctl {limit}")]
    LimitReached {
        /// The directory, escaped.
        path: String,
        /// What to raise.
        limit: Limit,
    },
    /// The user has as many watchers as the system allows.
    #[error(
        "cannot start inotify: all inotify instances of this user are in use (raise the sysctl {limit}), \
         or this process has too many open files"
    )]
    InstancesReached {
        /// What to raise.
        limit: Limit,
    },
    /// The directory was removed while the watch was being set up.
    #[error("cannot watch {path}: it was removed")]
    Removed {
        /// The directory, escaped.
        path: String,
    },
    /// The watch could not be set up.
    #[error("cannot watch {path}: {source}")]
    Watch {
        /// The directory, escaped.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The watcher could not be started.
    #[error("cannot start inotify: {source}")]
    Start {
        /// What the kernel said.
        source: io::Error,
    },
}

/// A limit that the system sets, shown as `fs.inotify.max_user_watches, which is 8192`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// The name of the sysctl.
    pub sysctl: &'static str,
    /// Its present value, if it could be read.
    pub value: Option<u64>,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sysctl)?;
        self.value.map_or(Ok(()), |value| write!(f, ", which is {value}"))
    }
}
