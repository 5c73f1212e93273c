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
//! | `combined` | [`open`]: the best of these for each directory |
//! | [`fanotify`] | one mark for a whole file system, for root |
//! | [`inotify`] | one watch for each directory, no privilege needed |
//! | [`poll`] | listings by turns, where nothing is told |
//! | [`scripted`] | a watcher that says what a test tells it to |

mod combined;
pub mod fanotify;
mod flush;
pub mod inotify;
mod outgoing;
pub mod poll;
mod roster;
pub mod scripted;
mod table;
#[cfg(test)]
mod tests;
mod unsupported;
mod writing;

pub use combined::{Combined, WatchChoice, WatchOptions, open};
pub use fanotify::Fanotify;
pub use inotify::Inotify;
pub use poll::Poll;
pub use scripted::Scripted;
pub use unsupported::Unsupported;

pub use crate::engine::pending::WatchEvent;

use crossbeam_channel::{Receiver, Sender};
use driftless_protocol::ObjectId;
use driftless_protocol::name::escape;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::{fmt, fs, io};
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

    /// Whether nobody waits for events for now: they may come some tens of milliseconds later then, in larger numbers, which
    /// costs less.
    fn set_patient(&mut self, _is_patient: bool) {}

    /// Drops `done` when every event that the kernel held at the time of the call is in the channel. A channel whose senders
    /// are all dropped so tells that nothing earlier is still to come.
    fn hear(&mut self, done: Sender<()>) {
        drop(done);
    }

    /// The same, and looks at what is not watched are asked for, too, which takes time.
    fn flush(&mut self, done: Sender<()>) {
        self.hear(done);
    }

    /// What is watched less well than it could be, and why; one line each.
    fn degradations(&self) -> Vec<String> {
        Vec::new()
    }

    /// That some directories are only looked at now and then, although that was not asked for, and why: users should be
    /// told this aloud. It is one of the degradations.
    fn shortfall(&self) -> Option<String> {
        None
    }

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
    /// This back end cannot do it; another one may.
    #[error("cannot watch {path}: {reason}")]
    Unsupported {
        /// The directory, escaped.
        path: String,
        /// Why not.
        reason: Unsupported,
    },
    /// The watcher could not be started.
    #[error("cannot start {name}: {source}")]
    Start {
        /// Which.
        name: &'static str,
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

/// Where a handle leads, escaped, for messages only.
fn shown(handle: BorrowedFd<'_>) -> String {
    let link = format!("/proc/self/fd/{}", handle.as_raw_fd());
    match fs::read_link(&link) {
        Ok(path) => {
            let mut text = String::new();
            // Writing to a string does not fail.
            let _ = escape(path.as_os_str().as_bytes(), &mut text);
            text
        }
        Err(_) => format!("{link} (is /proc mounted?)"),
    }
}
