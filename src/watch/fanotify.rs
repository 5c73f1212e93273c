//! fanotify: one mark for a whole file system, and no watch for each directory.
//!
//! One notification group, one mark for each file system that its trees reach, and one thread that reads events and does
//! nothing else. All trees of a process whose roots are on one file system share them (`Fanotify::join`): each event is
//! read once, however many mirrors there are. What the kernel lost is lost to all of them. An event names the directory by its file handle, so all that a watched directory costs is a place
//! in a map; the kernel keeps nothing for it. The price is that everything on the file system is told, also
//! what happens far from the tree: such *foreign* events are found by one look into that map, and directories where
//! there are too many of them are silenced (`noise`).
//!
//! What has to be known about it:
//!
//! - It needs `CAP_SYS_ADMIN` and `CAP_DAC_READ_SEARCH` in the initial user namespace, Linux 5.9, and a file system
//!   with handles and an id; [`Unsupported`] has the reasons why not. From 5.17 on a rename is one event with
//!   both names, before that two.
//! - Equal events in a row are merged, and so are different ones at the same name: creating, writing and closing a file
//!   may be one event, which is told as [`Hint::Created`], [`Hint::Modified`] and [`Hint::Closed`].
//! - A change of a directory's attributes is told as [`WatchEvent::Itself`], and not at its name in its parent. So a
//!   directory that cannot be opened, and is not watched, can be changed without a word; the second capability is there to
//!   open every directory.
//! - The root of the tree is [`WatchEvent::Gone`] when any directory was renamed or removed beside it: whether it was
//!   the root has to be looked at. Other directories never are; their parents say what happened to them.
//! - The events carry no handle of the object itself (`FAN_REPORT_TARGET_FID`), though they could: with it, every change
//!   of an inode would be told twice, once without any name, for the whole file system.
//! - An unmount is not told. Watching a directory sets its file system's mark again, which costs about as much as to find
//!   out whether that is needed, so nothing is lost when another file system took the place of the first.
//! - A write is told under the name that the file was opened by, under no other. Files written by the kernel's NFS
//!   server may have no name, and then are not told at all.
//! - Stores through a memory mapping are not told before the file is closed, nor are changes made on another machine.
//!
//! [`Hint::Created`]: crate::engine::pending::Hint::Created
//! [`Hint::Modified`]: crate::engine::pending::Hint::Modified
//! [`Hint::Closed`]: crate::engine::pending::Hint::Closed

mod directories;
mod noise;
mod reader;
mod records;
pub(super) mod sys;
#[cfg(test)]
mod tests;

use super::flush::Wishes;
use super::outgoing::{Audience, Outgoing};
use super::roster::Roster;
use super::table::Member;
use super::unsupported::{Unsupported, remote};
use super::{WatchError, WatchEvent, Watcher, shown};
use crossbeam_channel::{Receiver, Sender, bounded};
use directories::{Directories, Refused};
use driftless_protocol::ObjectId;
use noise::Noise;
use records::HandleRef;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, capabilities};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

/// A file system's mark, with renames as one event.
const MASK: u64 = MASK_BEFORE_RENAME & !(libc::FAN_MOVED_FROM | libc::FAN_MOVED_TO) | libc::FAN_RENAME;
/// The same for kernels before 5.17.
const MASK_BEFORE_RENAME: u64 = libc::FAN_CREATE
    | libc::FAN_DELETE
    | libc::FAN_ATTRIB
    | libc::FAN_MODIFY
    | libc::FAN_CLOSE_WRITE
    | libc::FAN_MOVED_FROM
    | libc::FAN_MOVED_TO
    | libc::FAN_ONDIR;

/// How many noisy directories may wait to be silenced.
const NOISY_WAITING: usize = 16;

/// How a [`Fanotify`] is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FanotifyOptions {
    /// How many events may wait to be taken. Their places (some 60 bytes each) are allocated at once, names as they
    /// come. When all are full, [`WatchEvent::Overflow`] takes the place of further events.
    pub queue_events: usize,
    /// How many of 65,536 foreign events in a row have to come from one directory for it to be silenced.
    pub noisy_events: u32,
}

impl Default for FanotifyOptions {
    fn default() -> FanotifyOptions {
        FanotifyOptions {
            queue_events: 65_536,
            noisy_events: 1_000,
        }
    }
}

/// A watcher on fanotify. See the [module](self).
pub struct Fanotify {
    group: Arc<Group>,
    /// Who this is among those that share the group.
    member: Member,
    receiver: Receiver<WatchEvent>,
}

/// A notification group and its threads, which end with the last watcher that uses it.
struct Group {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// The groups that watchers of this process share, by the file system of their trees' roots.
static GROUPS: Roster<[u8; 8], Group> = Roster::new();

/// What the threads and their owners all use. Whoever takes several locks takes them in this order: `noise`, `directories`,
/// `audience`.
struct Shared {
    group: OwnedFd,
    /// Readable when the reader is to end.
    stop: OwnedFd,
    flushes: Wishes,
    /// Whether the kernel tells a rename in one event, as far as is known.
    has_rename: AtomicBool,
    noise: Mutex<Noise>,
    directories: Mutex<Directories>,
    audience: Mutex<Audience>,
    foreign: AtomicU64,
}

impl Fanotify {
    /// Starts watching nothing, with the default options.
    pub fn start() -> Result<Fanotify, Unsupported> {
        Fanotify::start_with(&FanotifyOptions::default())
    }

    /// Starts watching nothing, with a group of its own.
    pub fn start_with(options: &FanotifyOptions) -> Result<Fanotify, Unsupported> {
        let (outgoing, receiver) = Outgoing::new(options.queue_events);
        check_capabilities()?;
        let group = Arc::new(Group::start(options)?);
        Ok(Fanotify::enter(group, outgoing, receiver))
    }

    /// Starts watching nothing of the tree whose root is given, with the group of that file system, and tells what happens
    /// through a queue that others may use as well. Options for the group are those of whoever came first.
    pub(super) fn join(
        options: &FanotifyOptions,
        root: BorrowedFd<'_>,
        outgoing: Outgoing,
        receiver: Receiver<WatchEvent>,
    ) -> Result<Fanotify, Unsupported> {
        check_capabilities()?;
        let file_system = sys::file_system(root).map_err(Unsupported::from_mark)?;
        let group = GROUPS.find_or_make(file_system.id, || Group::start(options))?;
        let fanotify = Fanotify::enter(group, outgoing, receiver);
        fanotify.try_file_system(root)?;
        Ok(fanotify)
    }

    fn enter(group: Arc<Group>, outgoing: Outgoing, receiver: Receiver<WatchEvent>) -> Fanotify {
        let member = group.shared.audience().join(outgoing);
        Fanotify {
            group,
            member,
            receiver,
        }
    }

    /// Whether the file system that a directory is on can be watched. If it can, it is from now on.
    pub fn try_file_system(&self, directory: BorrowedFd<'_>) -> Result<(), Unsupported> {
        let file_system = sys::file_system(directory).map_err(Unsupported::from_mark)?;
        if let Some(kind) = remote(file_system.magic) {
            return Err(Unsupported::Remote { kind });
        }
        sys::with_handle(directory, |_, _| ()).map_err(Unsupported::from_handle)?;
        self.mark(directory)
    }

    /// How many events had nothing to do with any watched directory.
    pub fn foreign(&self) -> u64 {
        self.group.shared.foreign.load(Ordering::Relaxed)
    }

    /// Marks the file system that a directory is on. Does nothing if it is marked.
    fn mark(&self, directory: BorrowedFd<'_>) -> Result<(), Unsupported> {
        let shared = &self.group.shared;
        let mark = |mask| {
            let flags = libc::FAN_MARK_ADD | libc::FAN_MARK_FILESYSTEM | libc::FAN_MARK_ONLYDIR;
            sys::mark(&shared.group, flags, mask, directory)
        };
        let mut marked = Err(Errno::INVAL);
        if shared.has_rename.load(Ordering::Relaxed) {
            marked = mark(MASK);
        }
        if marked == Err(Errno::INVAL) {
            marked = mark(MASK_BEFORE_RENAME);
            if marked.is_ok() {
                shared.has_rename.store(false, Ordering::Relaxed);
            }
        }
        marked.map_err(Unsupported::from_mark)
    }

    fn try_watch(&self, directory: ObjectId, handle: BorrowedFd<'_>) -> Result<(), Unsupported> {
        let file_system = sys::file_system(handle).map_err(Unsupported::from_mark)?;
        if let Some(kind) = remote(file_system.magic) {
            return Err(Unsupported::Remote { kind });
        }
        let device = rustix::fs::fstat(handle).map_err(Unsupported::other)?.st_dev;
        let above = (directory == ObjectId::ROOT).then(|| above(handle)).flatten();
        // From here on nobody silences it; then its events are ours; then there are events.
        let shared = &self.group.shared;
        let mut noise = shared.noise();
        noise.watched(&shared.group, handle);
        let id = file_system.id;
        let inserted = sys::with_handle(handle, |kind, bytes| {
            let handle = HandleRef {
                file_system: id,
                kind,
                bytes,
            };
            shared
                .directories()
                .insert(self.member, &handle, device, directory)
        });
        match inserted.map_err(Unsupported::from_handle)? {
            Ok(()) => {}
            Err(Refused::TooMany) => return Err(Unsupported::TooManyFileSystems),
            Err(Refused::SameId) => return Err(Unsupported::SharedId),
        }
        if let Err(error) = self.mark(handle) {
            shared.directories().remove(self.member, directory);
            return Err(error);
        }
        if directory == ObjectId::ROOT {
            noise.set_root(self.member, handle, id);
            self.set_above(above.as_ref());
        }
        Ok(())
    }

    /// Notes which directory the root stands in. When that cannot be found out, the root is never said to be gone.
    fn set_above(&self, above: Option<&OwnedFd>) {
        let Some(above) = above else {
            return self.group.shared.directories().set_above_root(self.member, None);
        };
        let Ok(file_system) = sys::file_system(above.as_fd()) else {
            return;
        };
        let _ = sys::with_handle(above.as_fd(), |kind, bytes| {
            let handle = HandleRef {
                file_system: file_system.id,
                kind,
                bytes,
            };
            let mut directories = self.group.shared.directories();
            directories.set_above_root(self.member, Some(&handle));
        });
    }
}

impl Watcher for Fanotify {
    fn watch(&mut self, directory: ObjectId, handle: BorrowedFd<'_>) -> Result<(), WatchError> {
        self.try_watch(directory, handle)
            .map_err(|reason| WatchError::Unsupported {
                path: shown(handle),
                reason,
            })
    }

    fn unwatch(&mut self, directory: ObjectId) {
        self.group.shared.directories().remove(self.member, directory);
    }

    fn name(&self) -> &'static str {
        "fanotify"
    }

    fn watched(&self) -> usize {
        self.group.shared.directories().len(self.member)
    }

    fn hear(&mut self, done: Sender<()>) {
        self.group.shared.flushes.add(done);
    }

    fn events(&self) -> Receiver<WatchEvent> {
        self.receiver.clone()
    }
}

impl Drop for Fanotify {
    fn drop(&mut self) {
        let shared = &self.group.shared;
        shared.noise().forget_root(self.member);
        shared.directories().remove_member(self.member);
        shared.audience().leave(self.member);
    }
}

impl Group {
    fn start(options: &FanotifyOptions) -> Result<Group, Unsupported> {
        let flags =
            libc::FAN_CLASS_NOTIF | libc::FAN_CLOEXEC | libc::FAN_NONBLOCK | libc::FAN_REPORT_DFID_NAME;
        let group = sys::init(flags).map_err(Unsupported::from_init)?;
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(Unsupported::other)?;
        let shared = Arc::new(Shared {
            group,
            stop,
            flushes: Wishes::new().map_err(Unsupported::other)?,
            has_rename: AtomicBool::new(true),
            noise: Mutex::default(),
            directories: Mutex::default(),
            audience: Mutex::default(),
            foreign: AtomicU64::new(0),
        });
        let (noisy_sender, noisy) = bounded(NOISY_WAITING);
        let mut group = Group {
            shared: shared.clone(),
            threads: Vec::new(),
        };
        let noisy_events = options.noisy_events.max(1);
        group.spawn("fanotify", {
            let shared = shared.clone();
            move || reader::run(&shared, &noisy_sender, noisy_events)
        })?;
        group.spawn("fanotify-noise", move || noise::run(&shared, &noisy))?;
        Ok(group)
    }

    fn spawn(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), Unsupported> {
        let thread = thread::Builder::new().name(name.to_owned()).spawn(run);
        let thread = thread.map_err(|error| Unsupported::Other {
            errno: error.raw_os_error().unwrap_or(libc::EAGAIN),
        })?;
        self.threads.push(thread);
        Ok(())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Adding 1 to a fresh counter cannot fail; were it to, waiting for the reader would take for ever. The other
        // thread ends with the reader.
        if rustix::io::write(&self.shared.stop, &1u64.to_ne_bytes()).is_ok() {
            for thread in self.threads.drain(..) {
                let _ = thread.join();
            }
        }
    }
}

impl Shared {
    fn directories(&self) -> MutexGuard<'_, Directories> {
        // Nothing between two changes of the maps can panic, so they agree even if another thread did.
        self.directories.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn audience(&self) -> MutexGuard<'_, Audience> {
        self.audience.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn noise(&self) -> MutexGuard<'_, Noise> {
        self.noise.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The directory that a directory stands in; `None` for the root of everything.
fn above(directory: BorrowedFd<'_>) -> Option<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let above = rustix::fs::openat(directory, "..", flags, Mode::empty()).ok()?;
    let [this, that] = [directory, above.as_fd()].map(|fd| rustix::fs::fstat(fd).ok());
    let (this, that) = (this?, that?);
    ((this.st_dev, this.st_ino) != (that.st_dev, that.st_ino)).then_some(above)
}

fn check_capabilities() -> Result<(), Unsupported> {
    let held = capabilities(None).map_err(Unsupported::other)?.effective;
    for (needed, capability) in [
        (CapabilitySet::SYS_ADMIN, "CAP_SYS_ADMIN"),
        (CapabilitySet::DAC_READ_SEARCH, "CAP_DAC_READ_SEARCH"),
    ] {
        if !held.contains(needed) {
            return Err(Unsupported::NotPermitted {
                capability: Some(capability),
            });
        }
    }
    Ok(())
}
