//! The thread that reads events, and what it makes of them.

use super::super::WatchEvent;
use super::super::flush::Flushes;
use super::super::table::Member;
use super::super::writing::Writing;
use super::{Shared, Watches};
use crate::engine::pending::Hint;
use driftless_protocol::{Name, ObjectId};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{Event, ReadFlags, Reader};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::mem::MaybeUninit;

/// Room for some 2,000 events in one call.
const BUFFER_BYTES: usize = 64 * 1024;

/// Of how many things that left a directory is remembered which, until it is told where they came. The kernel tells both
/// in one breath, but others may speak between.
const LEAVING_MAX: usize = 64;

/// What left a watched directory last: the cookie that its arrival will have, who watches, and its place.
type Leaving = VecDeque<(u32, Member, (ObjectId, Name))>;

/// Reads until told to stop, or until the kernel gives no more events. The channel is disconnected afterwards.
pub(super) fn run(shared: &Shared) {
    let mut buffer = vec![MaybeUninit::uninit(); BUFFER_BYTES];
    let mut leaving = Leaving::new();
    let mut flushes = Flushes::new(&shared.flushes);
    let mut writing = Writing::default();
    loop {
        let mut waiting = [
            PollFd::new(&shared.inotify, PollFlags::IN),
            PollFd::new(&shared.stop, PollFlags::IN),
            PollFd::new(&shared.flushes, PollFlags::IN),
        ];
        match poll(&mut waiting, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return shared.audience().close(),
        }
        if !waiting[1].revents().is_empty() {
            return;
        }
        flushes.take(|| rustix::io::ioctl_fionread(&shared.inotify).ok());
        let mut pause = None;
        match read_buffer(shared, &mut buffer, &mut leaving) {
            Ok(read) => {
                flushes.note_read(read.bytes);
                pause = writing.note(read.only_writes);
            }
            Err(Errno::AGAIN) => flushes.note_empty(),
            Err(Errno::INTR) => {}
            Err(_) => return shared.audience().close(),
        }
        let patience = shared.audience().patience();
        let patience = patience.and_then(|time| Timespec::try_from(time).ok());
        if let Some(pause) = patience.or(pause) {
            let mut waiting = [
                PollFd::new(&shared.stop, PollFlags::IN),
                PollFd::new(&shared.flushes, PollFlags::IN),
            ];
            let _ = poll(&mut waiting, Some(&pause));
        }
    }
}

/// What was read at once.
struct Read {
    /// How much room it took in the kernel's queue.
    bytes: u64,
    /// Whether there was nothing but writes to open files.
    only_writes: bool,
}

/// Reads once, and passes on what came.
fn read_buffer(
    shared: &Shared,
    buffer: &mut [MaybeUninit<u8>],
    leaving: &mut Leaving,
) -> Result<Read, Errno> {
    let mut events = Reader::new(&shared.inotify, buffer);
    // The read itself happens without the lock. What was read can't be about a watch that is in the map only later,
    // except before `watch` returned.
    let mut event = events.next()?;
    let mut watches = shared.watches();
    let audience = shared.audience();
    let mut read = Read {
        bytes: 0,
        only_writes: true,
    };
    loop {
        read.bytes += length(&event);
        read.only_writes &= event.events() == ReadFlags::MODIFY;
        for member in roots_that_may_have_moved(&event, &watches) {
            let directory = ObjectId::ROOT;
            audience.tell(member, WatchEvent::Gone { directory });
        }
        let happened = event.events();
        if happened.contains(ReadFlags::QUEUE_OVERFLOW) {
            audience.tell_of_loss();
        } else if happened.contains(ReadFlags::IGNORED) {
            // `Gone` was said by the event before this one, unless the watch was given up by us.
            watches.end(event.wd());
        } else {
            for &(member, directory) in watches.table.get(&event.wd()) {
                if let Some(event) = translate(&event, member, directory, leaving) {
                    audience.tell(member, event);
                }
            }
        }
        if events.is_buffer_empty() {
            return Ok(read);
        }
        event = events.next()?;
    }
}

/// How long an event is in the kernel's queue: names are padded to the size of the fixed part.
fn length(event: &Event<'_>) -> u64 {
    const FIXED_BYTES: u64 = 16;
    let name = event.file_name().map_or(0, |name| name.count_bytes() as u64 + 1);
    FIXED_BYTES + name.next_multiple_of(FIXED_BYTES)
}

/// The trees whose root may be what left, or was put in the place of another directory, where it stands.
fn roots_that_may_have_moved<'a>(
    event: &Event<'_>,
    watches: &'a Watches,
) -> impl Iterator<Item = Member> + use<'a> {
    const LEAVES: ReadFlags = ReadFlags::DELETE
        .union(ReadFlags::MOVED_FROM)
        .union(ReadFlags::MOVED_TO);
    let (happened, descriptor) = (event.events(), event.wd());
    let is_told = happened.contains(ReadFlags::ISDIR) && happened.intersects(LEAVES);
    let above = watches.above_roots.iter();
    above
        .filter(move |(_, above)| is_told && **above == descriptor)
        .map(|(member, _)| *member)
}

/// What an event means to one who watches the directory under this number.
fn translate(
    event: &Event<'_>,
    member: Member,
    directory: ObjectId,
    leaving: &mut Leaving,
) -> Option<WatchEvent> {
    let happened = event.events();
    match event.file_name() {
        // A name that can't be a `Name` (longer than 255 bytes) can't be mirrored either.
        Some(name) => {
            let place = (directory, Name::new(name.to_bytes()).ok()?);
            if happened.contains(ReadFlags::MOVED_FROM) {
                leaving.truncate(LEAVING_MAX - 1);
                leaving.push_front((event.cookie(), member, place.clone()));
            }
            let left = leaving
                .iter()
                .position(|(cookie, who, _)| (*cookie, *who) == (event.cookie(), member));
            if happened.contains(ReadFlags::MOVED_TO)
                && let Some((_, _, from)) = left.and_then(|at| leaving.remove(at))
            {
                return Some(WatchEvent::Renamed {
                    from,
                    to: place,
                    is_directory: happened.contains(ReadFlags::ISDIR),
                });
            }
            at(place.0, place.1, happened)
        }
        None if happened.intersects(ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::UNMOUNT) => {
            Some(WatchEvent::Gone { directory })
        }
        // To set nothing but the time of change is a modification, also of a directory.
        None if happened.intersects(ReadFlags::ATTRIB | ReadFlags::MODIFY) => {
            Some(WatchEvent::Itself { directory })
        }
        None => None,
    }
}

fn at(directory: ObjectId, name: Name, happened: ReadFlags) -> Option<WatchEvent> {
    const HINTS: [(ReadFlags, Hint); 6] = [
        (ReadFlags::CREATE, Hint::Created),
        (ReadFlags::MOVED_TO, Hint::MovedIn),
        (ReadFlags::DELETE.union(ReadFlags::MOVED_FROM), Hint::Vanished),
        (ReadFlags::CLOSE_WRITE, Hint::Closed),
        (ReadFlags::MODIFY, Hint::Modified),
        (ReadFlags::ATTRIB, Hint::Attributes),
    ];
    let (_, hint) = HINTS.into_iter().find(|(flags, _)| happened.intersects(*flags))?;
    Some(WatchEvent::At {
        directory,
        name,
        hint,
        is_directory: happened.contains(ReadFlags::ISDIR),
    })
}
