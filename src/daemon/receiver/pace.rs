//! How often something that flushes is done: at once for a few who come now and then, and with rests for a crowd.
//!
//! Each flush costs everybody who uses the disk, the source's own programs among them when it is on the same one. While
//! changes come one after the other, as from a compiler, a flush for each of them makes no change safer by more than
//! moments; those that come while one rests share the next.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// When something is due again that was done before.
#[derive(Debug)]
pub struct Pace {
    /// From the start of one to the start of the next, at least.
    every: Duration,
    /// A rest is this many times as long as what came before it.
    rests: u32,
    /// No rest is longer.
    rest_max: Duration,
    /// So many make a crowd, if they come at shorter intervals; 0 if everybody is one.
    crowd: usize,
    /// When the last of them began.
    began: VecDeque<Instant>,
    next: Option<Instant>,
}

impl Pace {
    /// For making staged files visible: short enough not to be felt, long enough to let some gather.
    pub const fn of_batches() -> Pace {
        Pace {
            every: Duration::ZERO,
            rests: 1,
            rest_max: Duration::from_millis(10),
            crowd: 0,
            began: VecDeque::new(),
            next: None,
        }
    }

    /// For bringing everything to stable storage, where nobody asks for it.
    pub const fn of_flushes() -> Pace {
        Pace {
            every: Duration::from_millis(100),
            rests: 4,
            rest_max: Duration::from_secs(1),
            // A change, what a barrier asks for and the mark behind it are three.
            crowd: 5,
            began: VecDeque::new(),
            next: None,
        }
    }

    /// When it is due, if that is still to come.
    pub fn due(&self, now: Instant) -> Option<Instant> {
        self.next.filter(|next| *next > now)
    }

    /// Notes that it was done.
    pub fn note(&mut self, began: Instant, ended: Instant) {
        self.began.push_back(began);
        while self.began.len() > self.crowd.max(1) {
            self.began.pop_front();
        }
        let span = self.every * u32::try_from(self.crowd).unwrap_or(u32::MAX);
        let is_full = self.began.len() == self.crowd;
        let is_crowd = is_full && self.began.front().is_some_and(|first| began - *first < span);
        if self.crowd > 0 && !is_crowd {
            self.next = None;
            return;
        }
        let rest = ended.saturating_duration_since(began) * self.rests;
        self.next = Some((ended + rest.min(self.rest_max)).max(began + self.every));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn who_comes_alone_waits_for_nothing() {
        let now = Instant::now();
        for mut pace in [Pace::of_batches(), Pace::of_flushes()] {
            assert_eq!(pace.due(now), None);
            pace.note(now, now + 2 * MS);
            assert_eq!(pace.due(now + 200 * MS), None);
        }
    }

    #[test]
    fn a_crowd_shares() {
        let now = Instant::now();
        let mut batches = Pace::of_batches();
        batches.note(now, now + 3 * MS);
        assert_eq!(batches.due(now + 4 * MS), Some(now + 6 * MS));
        batches.note(now, now + 300 * MS);
        assert_eq!(batches.due(now + 301 * MS), Some(now + 310 * MS));
        let mut flushes = Pace::of_flushes();
        for before in (1..5).rev() {
            flushes.note(now - before * MS, now);
            assert_eq!(flushes.due(now), None, "a few are no crowd");
        }
        flushes.note(now, now + 3 * MS);
        assert_eq!(flushes.due(now + 4 * MS), Some(now + 100 * MS));
        // A slow disk has four fifths of its time for others.
        flushes.note(now, now + 50 * MS);
        assert_eq!(flushes.due(now + 51 * MS), Some(now + 250 * MS));
        flushes.note(now, now + 2_000 * MS);
        assert_eq!(flushes.due(now + 2_001 * MS), Some(now + 3_000 * MS));
    }
}
