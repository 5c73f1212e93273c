//! inotify: one watch for each directory, no privilege needed.
//!
//! One descriptor, and one thread that reads it and does nothing else; trees of a process whose roots are on one device
//! share both, because a user has 128 instances, and watches of one directory are one. Watches are set on `/proc/self/fd/N`, so a
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
use super::outgoing::{Audience, Outgoing};
use super::roster::Roster;
use super::table::{Member, Table};
use super::{Limit, WatchError, WatchEvent, Watcher, shown};
use crossbeam_channel::{Receiver, Sender};
use driftless_protocol::ObjectId;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::inotify::{self as sys, CreateFlags, WatchFlags};
use rustix::io::Errno;
use std::collections::{HashMap, HashSet};
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
    instance: Arc<Instance>,
    /// Who this is among those that share the instance.
    member: Member,
    receiver: Receiver<WatchEvent>,
}

/// An instance and its reader, which ends with the last watcher that uses it.
struct Instance {
    shared: Arc<Shared>,
    reader: Option<JoinHandle<()>>,
}

/// The instances that watchers of this process share, by the device of their trees' roots.
static INSTANCES: Roster<u64, Instance> = Roster::new();

/// What the reader and its owners all use. Whoever takes several locks takes them in this order: `changing`, `watches`,
/// `audience`.
struct Shared {
    inotify: OwnedFd,
    /// Readable when the reader is to end.
    stop: OwnedFd,
    flushes: Wishes,
    /// Held while a watch is added and noted, or forgotten and removed: the kernel has one for all who watch a directory,
    /// and it must not be removed for one while another believes to have it.
    changing: Mutex<()>,
    watches: Mutex<Watches>,
    audience: Mutex<Audience>,
}

/// Which watch is which directory.
#[derive(Default)]
struct Watches {
    table: Table<i32>,
    /// The watches of the directories that roots stand in. A tree can lead back into that one by a bind mount; then it
    /// is the same watch.
    above_roots: HashMap<Member, i32>,
    /// While a watch is being added, the watches that ended meanwhile: perhaps the one being added.
    ended: Option<HashSet<i32>>,
}

impl Inotify {
    /// Starts watching nothing, with the default options.
    pub fn start() -> Result<Inotify, WatchError> {
        Inotify::start_with(&InotifyOptions::default())
    }

    /// Starts watching nothing, with an instance of its own.
    pub fn start_with(options: &InotifyOptions) -> Result<Inotify, WatchError> {
        let (outgoing, receiver) = Outgoing::new(options.queue_events);
        Ok(Inotify::enter(Arc::new(Instance::start()?), outgoing, receiver))
    }

    /// Starts watching nothing of a tree whose root is on the device `device`, with the instance of that device, and tells
    /// what happens through a queue that others may use as well.
    pub(super) fn join(
        device: u64,
        outgoing: Outgoing,
        receiver: Receiver<WatchEvent>,
    ) -> Result<Inotify, WatchError> {
        let instance = INSTANCES.find_or_make(device, Instance::start)?;
        Ok(Inotify::enter(instance, outgoing, receiver))
    }

    fn enter(instance: Arc<Instance>, outgoing: Outgoing, receiver: Receiver<WatchEvent>) -> Inotify {
        let member = instance.shared.audience().join(outgoing);
        Inotify {
            instance,
            member,
            receiver,
        }
    }

    /// Watches the directory that the root stands in. Without permission to read it, a removed root is noticed only
    /// when something else has the root looked at.
    fn watch_above(&self, root: &str) {
        let shared = &self.instance.shared;
        let mask = WatchFlags::DELETE | WatchFlags::MOVED_FROM | WatchFlags::MOVED_TO;
        // Added to what is watched there if a tree reaches that directory, too.
        let mask = mask | WatchFlags::ONLYDIR | WatchFlags::MASK_ADD;
        let added = sys::add_watch(&shared.inotify, format!("{root}/.."), mask).ok();
        let mut watches = shared.watches();
        let former = match added {
            Some(added) => watches.above_roots.insert(self.member, added),
            None => watches.above_roots.remove(&self.member),
        };
        let unused = former.filter(|&former| watches.is_unused(former));
        drop(watches);
        shared.remove_watches(unused);
    }
}

impl Instance {
    fn start() -> Result<Instance, WatchError> {
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
            changing: Mutex::default(),
            watches: Mutex::default(),
            audience: Mutex::default(),
        });
        let reader = thread::Builder::new()
            .name("inotify".to_owned())
            .spawn({
                let shared = shared.clone();
                move || reader::run(&shared)
            })
            .map_err(start)?;
        Ok(Instance {
            shared,
            reader: Some(reader),
        })
    }
}

impl Watcher for Inotify {
    fn watch(&mut self, directory: ObjectId, handle: BorrowedFd<'_>) -> Result<(), WatchError> {
        let (shared, member) = (&self.instance.shared, self.member);
        let link = format!("/proc/self/fd/{}", handle.as_raw_fd());
        let _changing = shared.changing();
        // The reader's lock is not held meanwhile: the reader waits for nobody, and on a network file system this may take
        // long. So the reader may meet events of a watch that is not in the map yet; they are before our return,
        // and the listing that follows it will see what they say. Only the end of a watch must be remembered.
        shared.watches().ended = Some(HashSet::new());
        let added = sys::add_watch(&shared.inotify, &*link, mask());
        let mut watches = shared.watches();
        let ended = watches.ended.take().unwrap_or_default();
        let descriptor = added.map_err(|errno| failed(errno, handle))?;
        if ended.contains(&descriptor) {
            return Err(WatchError::Removed { path: shown(handle) });
        }
        let former = watches.table.insert(member, descriptor, directory);
        let unused = former.filter(|&former| watches.is_unused(former));
        drop(watches);
        shared.remove_watches(unused);
        if directory == ObjectId::ROOT {
            self.watch_above(&link);
        }
        Ok(())
    }

    fn unwatch(&mut self, directory: ObjectId) {
        let shared = &self.instance.shared;
        let _changing = shared.changing();
        let mut watches = shared.watches();
        let removed = watches.table.remove(self.member, directory);
        let unused = removed.filter(|&descriptor| watches.is_unused(descriptor));
        drop(watches);
        shared.remove_watches(unused);
    }

    fn name(&self) -> &'static str {
        "inotify"
    }

    fn watched(&self) -> usize {
        self.instance.shared.watches().table.len(self.member)
    }

    fn hear(&mut self, done: Sender<()>) {
        self.instance.shared.flushes.add(done);
    }

    fn events(&self) -> Receiver<WatchEvent> {
        self.receiver.clone()
    }
}

impl Drop for Inotify {
    fn drop(&mut self) {
        let shared = &self.instance.shared;
        let _changing = shared.changing();
        let mut watches = shared.watches();
        let above = watches.above_roots.remove(&self.member);
        let mut unused: HashSet<_> = watches.table.remove_member(self.member).into_iter().collect();
        unused.extend(above);
        unused.retain(|&descriptor| watches.is_unused(descriptor));
        drop(watches);
        // The last one takes the whole instance along, which is quicker.
        if Arc::strong_count(&self.instance) > 1 {
            shared.remove_watches(unused);
        }
        shared.audience().leave(self.member);
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // Adding 1 to a fresh counter cannot fail; were it to, waiting for the reader would take for ever.
        let told = rustix::io::write(&self.shared.stop, &1u64.to_ne_bytes());
        if let (Ok(_), Some(reader)) = (told, self.reader.take()) {
            let _ = reader.join();
        }
    }
}

impl Shared {
    fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watches(&self) -> MutexGuard<'_, Watches> {
        // Nothing between two changes of the maps can panic, so they agree even if another thread did.
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn audience(&self) -> MutexGuard<'_, Audience> {
        self.audience.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives up watches. The caller holds `changing`.
    fn remove_watches(&self, descriptors: impl IntoIterator<Item = i32>) {
        for descriptor in descriptors {
            // Fails when the kernel has ended the watch already, and we have not read so yet.
            let _ = sys::remove_watch(&self.inotify, descriptor);
        }
    }
}

impl Watches {
    /// Whether nobody has any use of a watch.
    fn is_unused(&self, descriptor: i32) -> bool {
        self.table.get(&descriptor).is_empty() && !self.above_roots.values().any(|&above| above == descriptor)
    }

    /// Notes that the kernel ended a watch.
    fn end(&mut self, descriptor: i32) {
        self.table.remove_key(&descriptor);
        self.above_roots.retain(|_, above| *above != descriptor);
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
