//! Directories that others write to all the time are made silent.
//!
//! A mark on a file system reports all of it: a compiler at work in a neighbouring tree costs a look-up for each event,
//! and room in the kernel's queue. So the reader counts what it throws away, and a directory that is the place of many
//! such events is given to a second thread, which sets an *ignore mark* on it. The reader itself never does that: to
//! open a directory by its handle may mean to wait for a disk.
//!
//! A silent directory must not stay so when it becomes part of the tree. Moving it there is told, because renames and
//! whatever happens to directories are never ignored; the walk that follows watches it, and [`Noise::watched`] removes the mark
//! before [`Watcher::watch`](super::super::Watcher::watch) returns and the directory is listed. A file that is renamed
//! out of a silent directory into the tree is told for the same reason.
//!
//! The marks are evictable: they hold no inode in memory, and are gone when the kernel drops it. The directory then is
//! noisy again, and is silenced again.

use super::super::table::Member;
use super::directories::Key;
use super::records::HandleRef;
use super::{Shared, sys};
use crossbeam_channel::Receiver;
use rustix::io::Errno;
use std::collections::{HashMap, HashSet, VecDeque};
use std::os::fd::{BorrowedFd, OwnedFd};

/// What is no longer told of files in a silent directory. Not renames, which may lead into the tree; not what happens
/// to directories, the root of the tree perhaps.
pub(super) const IGNORED: u64 =
    libc::FAN_CREATE | libc::FAN_DELETE | libc::FAN_MODIFY | libc::FAN_CLOSE_WRITE | libc::FAN_ATTRIB;

/// How many foreign events make up a window.
const WINDOW_EVENTS: u32 = 65_536;
/// How many directories are counted in a window.
const COUNTED_MAX: usize = 4_096;
/// How many directories are silent at a time.
const SILENT_MAX: usize = 1_024;

/// Counts foreign events by directory. Windows are counted in events, not in time: what is rare costs nothing, however
/// long it goes on.
#[derive(Debug)]
pub(super) struct Counts {
    noisy_events: u32,
    counts: HashMap<Key, u32>,
    left: u32,
}

impl Counts {
    /// Finds the directories with `noisy_events` or more foreign events in a window.
    pub(super) fn new(noisy_events: u32) -> Counts {
        Counts {
            noisy_events,
            counts: HashMap::new(),
            left: WINDOW_EVENTS,
        }
    }

    /// Counts a foreign event. Answers its directory when that is to be silenced, once in a window.
    pub(super) fn note(&mut self, key: Key) -> Option<Key> {
        self.left -= 1;
        if self.left == 0 {
            self.left = WINDOW_EVENTS;
            self.counts.clear();
        }
        match self.counts.get_mut(&key) {
            Some(count) => {
                *count += 1;
                (*count == self.noisy_events).then_some(key)
            }
            None => {
                if self.counts.len() < COUNTED_MAX {
                    self.counts.insert(key, 1);
                }
                None
            }
        }
    }
}

/// The directories that were silenced.
#[derive(Debug, Default)]
pub(super) struct Noise {
    /// The roots of the trees and the ids of their file systems. Directories of other file systems are never silenced: what
    /// opens them would keep their file system from being unmounted.
    roots: HashMap<Member, (OwnedFd, [u8; 8])>,
    silent: HashSet<Key>,
    /// The same, oldest first.
    order: VecDeque<Key>,
    /// Whether a mark was ever set.
    is_used: bool,
    /// Whether the kernel cannot do it (before 6.0).
    pub(super) is_unsupported: bool,
}

impl Noise {
    /// Opens the way to the file system of a tree's root.
    pub(super) fn set_root(&mut self, member: Member, root: BorrowedFd<'_>, file_system: [u8; 8]) {
        if let Ok(root) = root.try_clone_to_owned() {
            self.roots.insert(member, (root, file_system));
        }
    }

    /// Closes it: the mount that it leads through is not kept busy for the sake of other trees.
    pub(super) fn forget_root(&mut self, member: Member) {
        self.roots.remove(&member);
    }

    /// Makes sure that everything in a directory is told. The caller notes the directory as watched before it gives up
    /// the lock that this is called under.
    pub(super) fn watched(&mut self, group: &OwnedFd, directory: BorrowedFd<'_>) {
        if self.is_used {
            // Also when it is not known to be silent: forgetting one costs nothing then. Fails if there is no mark.
            let _ = sys::mark(group, REMOVE, IGNORED | libc::FAN_EVENT_ON_CHILD, directory);
        }
    }

    /// How many directories were silenced, and not dropped since.
    #[cfg(test)]
    pub(super) fn silent(&self) -> usize {
        self.silent.len()
    }

    fn silence(&mut self, shared: &Shared, key: Key) {
        // Under this lock nobody begins to watch it.
        if self.is_unsupported || !shared.directories().get(&key).is_empty() {
            return;
        }
        // RACE: it may have been removed meanwhile.
        let Some(directory) = self.open(shared, &key) else {
            return;
        };
        self.is_used = true;
        match sys::mark(
            &shared.group,
            ADD,
            IGNORED | libc::FAN_EVENT_ON_CHILD,
            shared_fd(&directory),
        ) {
            Ok(()) => self.remember(shared, key),
            Err(Errno::INVAL) => self.is_unsupported = true,
            // The user has no more marks, or no memory: it stays noisy.
            Err(_) => {}
        }
    }

    fn remember(&mut self, shared: &Shared, key: Key) {
        if !self.silent.insert(key.clone()) {
            return;
        }
        self.order.push_back(key);
        if self.order.len() > SILENT_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.silent.remove(&oldest);
            if let Some(directory) = self.open(shared, &oldest) {
                let mask = IGNORED | libc::FAN_EVENT_ON_CHILD;
                let _ = sys::mark(&shared.group, REMOVE, mask, shared_fd(&directory));
            }
        }
    }

    fn open(&self, shared: &Shared, key: &Key) -> Option<OwnedFd> {
        let (root, file_system) = self.roots.values().next()?;
        let (kind, bytes) = key.handle();
        let handle = HandleRef {
            file_system: *file_system,
            kind,
            bytes,
        };
        // A handle means nothing on another file system.
        (shared.directories().key(&handle).as_ref() == Some(key))
            .then(|| sys::open_handle(shared_fd(root), &handle).ok())
            .flatten()
    }
}

const ADD: u32 = libc::FAN_MARK_ADD | libc::FAN_MARK_IGNORE_SURV | libc::FAN_MARK_EVICTABLE;
const REMOVE: u32 = libc::FAN_MARK_REMOVE | libc::FAN_MARK_IGNORE;

fn shared_fd(fd: &OwnedFd) -> BorrowedFd<'_> {
    use std::os::fd::AsFd;
    fd.as_fd()
}

/// Silences what comes, until the reader ends.
pub(super) fn run(shared: &Shared, noisy: &Receiver<Key>) {
    for key in noisy {
        shared.noise().silence(shared, key);
    }
}

#[cfg(test)]
mod tests {
    use super::super::directories::Directories;
    use super::*;
    use driftless_protocol::ObjectId;

    fn key(number: u32) -> Key {
        let mut directories = Directories::default();
        let bytes = number.to_ne_bytes();
        let handle = HandleRef {
            file_system: [1; 8],
            kind: 1,
            bytes: &bytes,
        };
        directories.insert(Member(0), &handle, 1, ObjectId(2)).unwrap();
        directories.key(&handle).unwrap()
    }

    #[test]
    fn a_directory_is_noisy_once_in_a_window() {
        let mut counts = Counts::new(100);
        let noisy: Vec<_> = (0..1_000).filter_map(|_| counts.note(key(1))).collect();
        assert_eq!(noisy, [key(1)]);
        // What is spread over many directories silences none of them, and is counted in bounded memory.
        let quiet = (0..60_000)
            .filter_map(|number| counts.note(key(number % 10_000)))
            .count();
        assert_eq!(quiet, 0);
        assert!(counts.counts.len() <= COUNTED_MAX);
        // In the next window it is noisy again.
        (0..WINDOW_EVENTS - 61_000)
            .for_each(|_| assert_eq!(counts.note(key(2)).filter(|found| *found != key(2)), None));
        let noisy = (0..1_000).filter_map(|_| counts.note(key(1))).count();
        assert_eq!(noisy, 1);
    }
}
