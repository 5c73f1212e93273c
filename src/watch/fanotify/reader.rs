//! The thread that reads events, and what it makes of them.

use super::super::WatchEvent;
use super::super::flush::Flushes;
use super::super::outgoing::Audience;
use super::super::table::Member;
use super::super::writing::Writing;
use super::Shared;
use super::directories::{Directories, Key};
use super::noise::{Counts, IGNORED};
use super::records::{Event, Place, events};
use crate::engine::pending::Hint;
use crossbeam_channel::Sender;
use driftless_protocol::{Name, ObjectId};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::sync::atomic::Ordering;

/// Room for some 3,000 events in one call.
const BUFFER_BYTES: usize = 256 * 1024;

/// What happens at a name, and what it is called. A merged event has several bits; nobody knows in which order they
/// came, and nobody has to, since the core looks.
const HINTS: [(u64, Hint); 6] = [
    (libc::FAN_CREATE, Hint::Created),
    (libc::FAN_MOVED_TO, Hint::MovedIn),
    (libc::FAN_MODIFY, Hint::Modified),
    (libc::FAN_CLOSE_WRITE, Hint::Closed),
    (libc::FAN_ATTRIB, Hint::Attributes),
    (libc::FAN_DELETE | libc::FAN_MOVED_FROM, Hint::Vanished),
];

/// What can happen to the root of the tree, seen from the directory that it stands in.
const LEAVES: u64 = libc::FAN_DELETE | libc::FAN_RENAME | libc::FAN_MOVED_FROM | libc::FAN_MOVED_TO;

/// How long foreign events gather. Most of what one costs is to be woken for it, so after a batch that was none of our
/// business the next one is left to grow. An event of ours that comes in this time is late by as much.
const GATHER: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 2_000_000,
};

/// Reads until told to stop, or until the kernel gives no more events. The channel is disconnected in the latter case.
pub(super) fn run(shared: &Shared, noisy: &Sender<Key>, noisy_events: u32) {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut counts = Counts::new(noisy_events);
    let mut flushes = Flushes::new(&shared.flushes);
    let mut writing = Writing::default();
    loop {
        flushes.take(|| queued(shared));
        let waited = match rustix::io::read(&shared.group, &mut buffer) {
            Ok(length) => {
                let (directories, audience) = (shared.directories(), shared.audience());
                let mut batch = Batch {
                    directories: &directories,
                    audience: &audience,
                    counts: &mut counts,
                    noisy,
                    foreign: 0,
                    ours: 0,
                    only_writes: true,
                };
                batch.take(&buffer[..length]);
                let (foreign, ours, only_writes) = (batch.foreign, batch.ours, batch.only_writes);
                let patience = audience.patience();
                drop((audience, directories));
                shared.foreign.fetch_add(foreign, Ordering::Relaxed);
                flushes.note_read(foreign + ours);
                let writing = writing.note(only_writes);
                let wait = match patience {
                    Some(patience) => Timespec::try_from(patience).unwrap_or(GATHER),
                    None if ours == 0 => GATHER,
                    None => writing.unwrap_or_default(),
                };
                pause(shared, &wait)
            }
            Err(Errno::AGAIN) => {
                flushes.note_empty();
                wait_for_events(shared)
            }
            Err(Errno::INTR) => Ok(false),
            Err(errno) => Err(errno),
        };
        match waited {
            Ok(false) | Err(Errno::INTR) => {}
            Ok(true) => return,
            Err(_) => return shared.audience().close(),
        }
    }
}

/// Waits until there are events, or for the wish to stop. Whether it was that.
fn wait_for_events(shared: &Shared) -> Result<bool, Errno> {
    let mut waiting = [
        PollFd::new(&shared.stop, PollFlags::IN),
        PollFd::new(&shared.group, PollFlags::IN),
        PollFd::new(&shared.flushes, PollFlags::IN),
    ];
    poll(&mut waiting, None)?;
    Ok(!waiting[0].revents().is_empty())
}

/// Waits for a time, or for the wish to stop, or until somebody waits for what is queued. Whether it was to stop.
fn pause(shared: &Shared, time: &Timespec) -> Result<bool, Errno> {
    let mut waiting = [
        PollFd::new(&shared.stop, PollFlags::IN),
        PollFd::new(&shared.flushes, PollFlags::IN),
    ];
    poll(&mut waiting, Some(time))?;
    Ok(!waiting[0].revents().is_empty())
}

/// How many events the kernel holds. It tells the length of their fixed parts, and no other.
fn queued(shared: &Shared) -> Option<u64> {
    const FIXED_BYTES: u64 = size_of::<libc::fanotify_event_metadata>() as u64;
    let bytes = rustix::io::ioctl_fionread(&shared.group).ok()?;
    Some(bytes.div_ceil(FIXED_BYTES))
}

/// One buffer of events, on its way out.
struct Batch<'a> {
    directories: &'a Directories,
    audience: &'a Audience,
    counts: &'a mut Counts,
    noisy: &'a Sender<Key>,
    foreign: u64,
    ours: u64,
    /// Whether nothing was told but writes to open files.
    only_writes: bool,
}

impl Batch<'_> {
    fn take(&mut self, buffer: &[u8]) {
        for event in events(buffer) {
            match event {
                Ok(event) if event.mask & libc::FAN_Q_OVERFLOW == 0 => {
                    self.only_writes &= event.mask == libc::FAN_MODIFY;
                    self.translate(&event);
                }
                // The kernel's queue was full; or what it says is not understood, and so as good as lost.
                Ok(_) | Err(_) => {
                    self.ours += 1;
                    self.audience.tell_of_loss();
                }
            }
        }
    }

    fn translate(&mut self, event: &Event<'_>) {
        let sides = [
            (event.place, event.mask),
            (event.from, libc::FAN_MOVED_FROM),
            (event.to, libc::FAN_MOVED_TO),
        ];
        let is_directory = event.mask & libc::FAN_ONDIR != 0;
        let mut is_foreign = true;
        // Where something was, in each tree that watches that directory, if the kernel says where it is since.
        let mut left: Vec<(Member, (ObjectId, Name))> = Vec::new();
        for (place, mask) in sides {
            let Some(place) = place else { continue };
            let Some(key) = self.directories.key(&place.directory) else {
                continue;
            };
            let watchers = self.directories.get(&key);
            is_foreign &= watchers.is_empty();
            for &(member, directory) in watchers {
                let from = left.iter().position(|(who, _)| *who == member);
                let from = from.map(|at| left.swap_remove(at).1);
                if mask == libc::FAN_MOVED_FROM && event.to.is_some() {
                    left.extend(Name::new(place.name).ok().map(|name| (member, (directory, name))));
                }
                match from.zip(Name::new(place.name).ok()) {
                    Some((from, name)) => {
                        let to = (directory, name);
                        let renamed = WatchEvent::Renamed {
                            from,
                            to,
                            is_directory,
                        };
                        self.audience.tell(member, renamed);
                    }
                    None => self.tell(member, directory, &place, mask, is_directory),
                }
            }
            if is_directory && event.mask & LEAVES != 0 {
                for member in self.directories.roots_in(&key) {
                    if watchers.iter().all(|(watcher, _)| *watcher != member) {
                        is_foreign = false;
                        let directory = ObjectId::ROOT;
                        self.audience.tell(member, WatchEvent::Gone { directory });
                    }
                }
            }
            if watchers.is_empty()
                && mask & IGNORED != 0
                && !is_directory
                && let Some(key) = self.counts.note(key)
            {
                // Full when the other thread is behind: there will be a next window.
                let _ = self.noisy.try_send(key);
            }
        }
        if is_foreign {
            self.foreign += 1;
        } else {
            self.ours += 1;
        }
    }

    /// Says what happened at a place in a watched directory.
    fn tell(&self, member: Member, directory: ObjectId, place: &Place<'_>, mask: u64, is_directory: bool) {
        if matches!(place.name, b"." | b"") {
            // To set nothing but the time of change is a modification, also of a directory.
            if mask & (libc::FAN_ATTRIB | libc::FAN_MODIFY) != 0 {
                self.audience.tell(member, WatchEvent::Itself { directory });
            }
            return;
        }
        // A name that can't be a `Name` can't be mirrored either.
        let Ok(name) = Name::new(place.name) else { return };
        for (_, hint) in HINTS.into_iter().filter(|(bits, _)| mask & bits != 0) {
            let event = WatchEvent::At {
                directory,
                name: name.clone(),
                hint,
                is_directory,
            };
            self.audience.tell(member, event);
        }
    }
}
