//! Contents that several targets of a tree want: read and digested once.
//!
//! Each target decides for itself what it needs and when; the targets of one tree mostly want the same at the same moment. Who
//! comes first reads, those who come meanwhile wait for the result, and who comes soon after finds it. What a target that is
//! behind wants later it reads itself, so that it costs the others nothing.
//!
//! A content is found by the stamp that the catalog has of the file. Equal stamps mean the same content only if the file was
//! at rest when it was read. What was read within a tick of its last change is *young*: who gets it has to read again later,
//! as if it had read itself, and by then it is kept no longer. What was read when the stamp was another is not kept at all. Files whose times do not tell of all that is written to them never come here.

use crate::engine::delta::Patch;
use crate::fs::{Stamp, Stat};
use driftless_protocol::Digest;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What is kept at most, in bytes: of contents, patches and signatures.
const KEPT_BYTES_MAX: usize = 32 << 20;
/// What an entry costs beside these.
const ENTRY_BYTES: usize = 512;
/// How long anything is kept: targets that are in step want it within milliseconds.
const KEPT_FOR: Duration = Duration::from_secs(5);

/// What is wanted: a file as the catalog knows it, and for a patch the content that the target holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Wanted {
    /// Of the file.
    pub stamp: Stamp,
    /// The basis of a patch; none for the whole content of a small file.
    pub purpose: Purpose,
}

/// What a content is read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// To be sent as it is.
    Whole,
    /// To find out its digest, and what changed since this content.
    Digest(Option<Digest>),
}

/// What came of reading a file.
#[derive(Debug)]
pub enum Reading {
    /// A small one.
    Whole(Vec<u8>, Digest, Stat),
    /// A larger one: its digest, what changed since the basis, and what the next time needs.
    Digest {
        /// Of all of it.
        digest: Digest,
        /// When it had it.
        stat: Stat,
        /// The basis, and what changed.
        patch: Option<(Digest, Patch)>,
        /// Its signature.
        signature: Option<Vec<u8>>,
        /// The sums of its spans.
        spans: Option<Vec<u8>>,
    },
}

impl Reading {
    fn bytes(&self) -> usize {
        ENTRY_BYTES
            + match self {
                Reading::Whole(bytes, ..) => bytes.len(),
                Reading::Digest {
                    patch,
                    signature,
                    spans,
                    ..
                } => {
                    let patch = patch.as_ref().map_or(0, |(_, patch)| {
                        patch.literals.len() + std::mem::size_of_val(patch.parts.as_slice())
                    });
                    let length = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
                    patch + length(signature) + length(spans)
                }
            }
    }
}

/// The readings that targets share.
#[derive(Debug, Clone, Default)]
pub struct Readings(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// A reading has ended, well or badly.
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    slots: HashMap<Wanted, Slot>,
    /// Those that are kept, oldest first.
    order: VecDeque<(Instant, Wanted)>,
    bytes: usize,
    /// How many were found here, ever.
    found: u64,
}

#[derive(Debug)]
enum Slot {
    /// Somebody reads it.
    Reading,
    Kept {
        reading: Arc<Reading>,
        /// Until when, if it is young.
        young_until: Option<Instant>,
    },
}

/// What to do about something that is wanted.
#[derive(Debug)]
pub enum Turn {
    /// It is here. Whether it is young.
    Found(Arc<Reading>, bool),
    /// Read it, and say what came of it.
    Read(Reader),
}

/// The duty to read something; whoever drops it without a result leaves it to the next.
#[derive(Debug)]
pub struct Reader {
    shared: Arc<Shared>,
    wanted: Wanted,
}

impl Readings {
    /// Finds a reading, or makes it the caller's to read. Waits while somebody else reads it.
    pub fn find(&self, wanted: Wanted) -> Turn {
        let mut state = self.0.state();
        state.drop_old(Instant::now());
        loop {
            match state.slots.get(&wanted) {
                Some(Slot::Kept { reading, young_until })
                    if young_until.is_none_or(|until| Instant::now() < until) =>
                {
                    let found = Turn::Found(reading.clone(), young_until.is_some());
                    state.found += 1;
                    return found;
                }
                Some(Slot::Reading) => {
                    state = self.0.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                Some(Slot::Kept { .. }) | None => {
                    state.forget(&wanted);
                    state.slots.insert(wanted, Slot::Reading);
                    let shared = self.0.clone();
                    return Turn::Read(Reader { shared, wanted });
                }
            }
        }
    }

    /// How many were found, ever.
    pub fn found(&self) -> u64 {
        self.0.state().found
    }

    /// Forgets what has been kept for too long. To be called now and then.
    pub fn tend(&self) {
        self.0.state().drop_old(Instant::now());
    }
}

impl Reader {
    /// Keeps what was read, for others; for so long only, if it is young. The caller has made sure that it belongs to the
    /// stamp.
    pub fn keep(self, reading: Arc<Reading>, young_for: Option<Duration>) {
        let mut state = self.shared.state();
        state.bytes += reading.bytes();
        let young_until = young_for.map(|time| Instant::now() + time);
        state
            .slots
            .insert(self.wanted, Slot::Kept { reading, young_until });
        state.order.push_back((Instant::now(), self.wanted));
        state.drop_over();
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        if matches!(state.slots.get(&self.wanted), Some(Slot::Reading)) {
            state.slots.remove(&self.wanted);
        }
        self.shared.ended.notify_all();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn drop_old(&mut self, now: Instant) {
        while self
            .order
            .front()
            .is_some_and(|(since, _)| now.saturating_duration_since(*since) > KEPT_FOR)
        {
            self.drop_first();
        }
    }

    fn drop_over(&mut self) {
        while self.bytes > KEPT_BYTES_MAX {
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        if let Some((_, wanted)) = self.order.pop_front() {
            self.forget(&wanted);
        }
    }

    /// Forgets what is kept, and nothing that is being read.
    fn forget(&mut self, wanted: &Wanted) {
        if let Some(Slot::Kept { reading, .. }) = self.slots.get(wanted) {
            self.bytes -= reading.bytes();
            self.slots.remove(wanted);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use driftless_protocol::Timestamp;

    fn wanted(inode: u64) -> Wanted {
        let at = Timestamp::new(1, 0).unwrap();
        let stamp = Stamp {
            device: 1,
            inode,
            birth: None,
            ctime: at,
            mtime: at,
            size: 3,
        };
        Wanted {
            stamp,
            purpose: Purpose::Whole,
        }
    }

    fn reading(bytes: usize) -> Arc<Reading> {
        let directory = tempfile::tempdir().unwrap();
        let stat = crate::fs::Directory::open_root(directory.path())
            .unwrap()
            .stat_self()
            .unwrap();
        Arc::new(Reading::Whole(vec![0; bytes], Digest([0; 32]), stat))
    }

    fn take(readings: &Readings, inode: u64) -> Reader {
        match readings.find(wanted(inode)) {
            Turn::Read(reader) => reader,
            Turn::Found(..) => panic!("nobody has read it"),
        }
    }

    #[test]
    fn many_who_want_one_content_have_it_read_once() {
        let readings = Readings::default();
        let reader = take(&readings, 1);
        std::thread::scope(|scope| {
            let waiting: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| matches!(readings.find(wanted(1)), Turn::Found(_, false))))
                .collect();
            // Another file is nobody's business here.
            drop(take(&readings, 2));
            reader.keep(reading(3), None);
            assert!(waiting.into_iter().all(|thread| thread.join().unwrap()));
        });
        assert_eq!(readings.found(), 8);
        let other = Wanted {
            purpose: Purpose::Digest(None),
            ..wanted(1)
        };
        assert!(matches!(readings.find(other), Turn::Read(_)));
    }

    #[test]
    fn a_reading_that_fails_is_left_to_the_next() {
        let readings = Readings::default();
        let reader = take(&readings, 1);
        std::thread::scope(|scope| {
            let next = scope.spawn(|| matches!(readings.find(wanted(1)), Turn::Read(_)));
            drop(reader);
            assert!(next.join().unwrap());
        });
        assert!(readings.0.state().slots.is_empty());
    }

    #[test]
    fn a_young_reading_serves_those_who_come_at_once_and_is_then_made_anew() {
        let readings = Readings::default();
        take(&readings, 1).keep(reading(3), Some(Duration::from_secs(60)));
        assert!(matches!(readings.find(wanted(1)), Turn::Found(_, true)));
        take(&readings, 2).keep(reading(3), Some(Duration::ZERO));
        let reader = take(&readings, 2);
        // What was kept before is forgotten in its time, and nobody's reading with it.
        let mut state = readings.0.state();
        state.drop_old(Instant::now() + 2 * KEPT_FOR);
        assert_eq!((state.slots.len(), state.bytes), (1, 0));
        drop(state);
        reader.keep(reading(3), None);
        assert!(matches!(readings.find(wanted(2)), Turn::Found(_, false)));
    }

    #[test]
    fn what_is_kept_is_bounded_in_bytes_and_in_time() {
        let readings = Readings::default();
        for inode in 0..10 {
            take(&readings, inode).keep(reading(KEPT_BYTES_MAX / 4), None);
        }
        let mut state = readings.0.state();
        assert_eq!((state.slots.len(), state.order.len()), (3, 3));
        assert!(state.bytes <= KEPT_BYTES_MAX && state.slots.contains_key(&wanted(9)));
        state.drop_old(Instant::now() + KEPT_FOR + Duration::from_secs(1));
        assert_eq!((state.slots.len(), state.order.len(), state.bytes), (0, 0, 0));
    }
}
