//! inotify: one watch for each directory, no privilege needed.
//!
//! One descriptor, and one thread that reads it and does nothing else. Watches are set on `/proc/self/fd/N`, so a
//! directory is watched by the handle that the walk opened, and not by a path that may lead elsewhere by now.
//!
//! What inotify does not say, and the core has to know:
//!
//! - It reports a directory's own names only; a new directory must be watched and then listed. It says
//!   [`Hint::Created`] for new files, new symbolic links and further links alike.
//! - A removed directory is [`WatchEvent::Gone`] when the last handle on it is closed, not before. Its parent's watch
//!   says [`Hint::Vanished`] at once. The *root* is kept open for as long as it is watched, so the directory that it
//!   stands in is watched, too, if it may be read: the root is `Gone` when any directory was removed or renamed beside
//!   it. Whether it was the root has to be looked at.
//! - A directory that is renamed keeps its watch and its number. It is `Vanished` and `MovedIn` in its parents, as far
//!   as these are watched, and then `Gone`, which here means: find out where it is.
//! - A write is reported under the name that the file was opened by. Its other names are not mentioned, and when that
//!   name is outside of the tree, nothing is. A change of the link count is not reported under the other names either.
//! - Stores through a memory mapping and changes made on another machine are not reported.
//!
//! A watch descriptor is a number that the kernel takes from a counter (`idr_alloc_cyclic`), so one that was given up
//! comes back only after some 2^31 others. An event with a number that is not in the map is of a watch that was
//! given up, and is ignored.
//! RACE: were a number given out again while events of its former holder are still unread, these would count as
//! events of the new one: needless looks, and its `IN_IGNORED` would end the new mapping. The reader would have to
//! be 2^31 watches behind, but the kernel's queue ends at `fs.inotify.max_queued_events`.
//!
//! [`Hint::Created`]: crate::engine::pending::Hint::Created
//! [`Hint::Vanished`]: crate::engine::pending::Hint::Vanished

mod reader;
#[cfg(test)]
mod tests;

use super::flush::Wishes;
use super::outgoing::Outgoing;
use super::table::Table;
use super::{Limit, WatchError, WatchEvent, Watcher, shown};
use crossbeam_channel::{Receiver, Sender};
use driftless_protocol::ObjectId;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::inotify::{self as sys, CreateFlags, WatchFlags};
use rustix::io::Errno;
use std::collections::HashSet;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::{fs, io};

/// How an [`Inotify`] is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InotifyOptions {
    /// How many events may wait to be taken. Their places (some 60 bytes each) are allocated at once, names as they
    /// come. When all are full, [`WatchEvent::Overflow`] takes the place of further events.
    pub queue_events: usize,
}

impl Default for InotifyOptions {
    fn default() -> InotifyOptions {
        InotifyOptions { queue_events: 65_536 }
    }
}

/// A watcher on inotify. See the [module](self).
pub struct Inotify {
    shared: Arc<Shared>,
    receiver: Receiver<WatchEvent>,
    reader: Option<JoinHandle<()>>,
}

/// What the reader and its owner both use.
struct Shared {
    inotify: OwnedFd,
    /// Readable when the reader is to end.
    stop: OwnedFd,
    flushes: Wishes,
    watches: Mutex<Watches>,
}

/// Which watch is which directory.
#[derive(Default)]
struct Watches {
    table: Table<i32>,
    /// The watch of the directory that the root stands in. A tree can lead back into that one by a bind mount; then it
    /// is the same watch.
    above_root: Option<i32>,
    /// While a watch is being added, the watches that ended meanwhile: perhaps the one being added.
    ended: Option<HashSet<i32>>,
}

impl Inotify {
    /// Starts watching nothing, with the default options.
    pub fn start() -> Result<Inotify, WatchError> {
        Inotify::start_with(&InotifyOptions::default())
    }

    /// Starts watching nothing.
    pub fn start_with(options: &InotifyOptions) -> Result<Inotify, WatchError> {
        let (outgoing, receiver) = Outgoing::new(options.queue_events);
        Inotify::start_into(outgoing, receiver)
    }

    /// Watches the directory that the root stands in. Without permission to read it, a removed root is noticed only
    /// when something else has the root looked at.
    fn watch_above(&self, root: &str) {
        let mask = WatchFlags::DELETE | WatchFlags::MOVED_FROM | WatchFlags::MOVED_TO;
        // Added to what is watched there if the tree reaches that directory, too.
        let mask = mask | WatchFlags::ONLYDIR | WatchFlags::MASK_ADD;
        let added = sys::add_watch(&self.shared.inotify, format!("{root}/.."), mask).ok();
        let mut watches = self.shared.watches();
        let former = std::mem::replace(&mut watches.above_root, added);
        let former = former.filter(|former| added != Some(*former) && watches.table.get(former).is_none());
        drop(watches);
        if let Some(former) = former {
            let _ = sys::remove_watch(&self.shared.inotify, former);
        }
    }

    /// Starts watching nothing, and tells what happens through a queue that others may use as well.
    pub(super) fn start_into(
        outgoing: Outgoing,
        receiver: Receiver<WatchEvent>,
    ) -> Result<Inotify, WatchError> {
        let start = |source: io::Error| WatchError::Start {
            name: "inotify",
            source,
        };
        let inotify =
            sys::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(|errno| match errno {
                Errno::MFILE => WatchError::InstancesReached {
                    limit: lower("fs.inotify.max_user_instances", "user.max_inotify_instances"),
                },
                errno => start(errno.into()),
            })?;
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| start(errno.into()))?;
        let shared = Arc::new(Shared {
            inotify,
            stop,
            flushes: Wishes::new().map_err(|errno| start(errno.into()))?,
            watches: Mutex::default(),
        });
        let reader = thread::Builder::new()
            .name("inotify".to_owned())
            .spawn({
                let shared = shared.clone();
                move || reader::run(&shared, &outgoing)
            })
            .map_err(start)?;
        Ok(Inotify {
            shared,
            receiver,
            reader: Some(reader),
        })
    }
}

impl Watcher for Inotify {
    fn watch(&mut self, directory: ObjectId, handle: BorrowedFd<'_>) -> Result<(), WatchError> {
        let link = format!("/proc/self/fd/{}", handle.as_raw_fd());
        // The lock is not held meanwhile: the reader waits for nobody, and on a network file system this may take
        // long. So the reader may meet events of a watch that is not in the map yet; they are before our return,
        // and the listing that follows it will see what they say. Only the end of a watch must be remembered.
        self.shared.watches().ended = Some(HashSet::new());
        let added = sys::add_watch(&self.shared.inotify, &*link, mask());
        let mut watches = self.shared.watches();
        let ended = watches.ended.take().unwrap_or_default();
        let descriptor = added.map_err(|errno| failed(errno, handle))?;
        if ended.contains(&descriptor) {
            return Err(WatchError::Removed { path: shown(handle) });
        }
        let former = watches.table.insert(descriptor, directory);
        let former = former.filter(|&former| watches.above_root != Some(former));
        drop(watches);
        if let Some(former) = former {
            let _ = sys::remove_watch(&self.shared.inotify, former);
        }
        if directory == ObjectId::ROOT {
            self.watch_above(&link);
        }
        Ok(())
    }

    fn unwatch(&mut self, directory: ObjectId) {
        let mut watches = self.shared.watches();
        let removed = watches.table.remove(directory);
        let removed = removed.filter(|&descriptor| watches.above_root != Some(descriptor));
        drop(watches);
        if let Some(descriptor) = removed {
            // Fails when the kernel has ended the watch already, and we have not read so yet.
            let _ = sys::remove_watch(&self.shared.inotify, descriptor);
        }
    }

    fn name(&self) -> &'static str {
        "inotify"
    }

    fn watched(&self) -> usize {
        self.shared.watches().table.len()
    }

    fn flush(&mut self, done: Sender<()>) {
        self.shared.flushes.add(done);
    }

    fn events(&self) -> Receiver<WatchEvent> {
        self.receiver.clone()
    }
}

impl Drop for Inotify {
    fn drop(&mut self) {
        // Adding 1 to a fresh counter cannot fail; were it to, waiting for the reader would take for ever.
        let told = rustix::io::write(&self.shared.stop, &1u64.to_ne_bytes());
        if let (Ok(_), Some(reader)) = (told, self.reader.take()) {
            let _ = reader.join();
        }
    }
}

impl Shared {
    fn watches(&self) -> MutexGuard<'_, Watches> {
        // Nothing between two changes of the maps can panic, so they agree even if another thread did.
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watches {
    /// Notes that the kernel ended a watch.
    fn end(&mut self, descriptor: i32) {
        self.table.remove_key(&descriptor);
        self.above_root = self.above_root.filter(|&above| above != descriptor);
        if let Some(ended) = &mut self.ended {
            ended.insert(descriptor);
        }
    }
}

fn mask() -> WatchFlags {
    WatchFlags::CREATE
        | WatchFlags::DELETE
        | WatchFlags::MODIFY
        | WatchFlags::CLOSE_WRITE
        | WatchFlags::ATTRIB
        | WatchFlags::MOVED_FROM
        | WatchFlags::MOVED_TO
        | WatchFlags::DELETE_SELF
        | WatchFlags::MOVE_SELF
        | WatchFlags::ONLYDIR
        | WatchFlags::EXCL_UNLINK
}

fn failed(errno: Errno, handle: BorrowedFd<'_>) -> WatchError {
    let path = shown(handle);
    match errno {
        Errno::NOSPC => WatchError::LimitReached {
            path,
            limit: lower("fs.inotify.max_user_watches", "user.max_inotify_watches"),
        },
        errno => WatchError::Watch {
            path,
            source: errno.into(),
        },
    }
}

/// Of the limit of the whole system and that of this user namespace (a container), the one that is met first.
fn lower(system: &'static str, namespace: &'static str) -> Limit {
    let [system, namespace] = [system, namespace].map(|sysctl| Limit {
        sysctl,
        value: value(sysctl),
    });
    let counts = namespace.value.is_some() && (system.value.is_none() || namespace.value < system.value);
    if counts { namespace } else { system }
}

fn value(sysctl: &str) -> Option<u64> {
    fs::read_to_string(format!("/proc/sys/{}", sysctl.replace('.', "/")))
        .ok()?
        .trim()
        .parse()
        .ok()
}
