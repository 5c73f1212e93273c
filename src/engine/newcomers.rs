//! What came so lately that it is no loss when it goes again.
//!
//! The delete fuse asks before a target loses much of what it had when the fuse's window began. A file that came since then and goes
//! again, as programs make them by the thousand, is none of that. Numbers of objects only grow, so the numbers that were next at a few
//! moments tell which objects are that young, and no list of them is kept.
//!
//! What takes the place of something older counts as that did. Where it is not known what took whose place, everything that is there
//! counts as old: the fuse asks too often then, and never too seldom.

use super::fuse::WINDOW;
use driftless_protocol::ObjectId;
use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

/// How far the moments are apart at least.
const RESOLUTION: Duration = Duration::from_secs(10);
/// Of so many young objects it is known at most that they took the place of older ones.
const HEIRS_MAX: usize = 10_000;

/// Which objects came within the window.
#[derive(Debug, Default)]
pub struct Newcomers {
    /// Moments, and a number that no object had until then.
    marks: VecDeque<(Instant, ObjectId)>,
    /// Young objects in the places of older ones.
    heirs: HashSet<ObjectId>,
}

impl Newcomers {
    /// Whether a moment is to be marked before anything new is looked at.
    pub fn is_due(&self, now: Instant) -> bool {
        let is_old = |(at, _): &(Instant, ObjectId)| now.saturating_duration_since(*at) >= RESOLUTION;
        self.marks.back().is_none_or(is_old)
    }

    /// All that comes from now on has `next` or a higher number.
    pub fn mark(&mut self, now: Instant, next: ObjectId) {
        while self.marks.front().is_some_and(|(at, _)| is_over(now, *at)) {
            self.marks.pop_front();
        }
        if self.heirs.len() > HEIRS_MAX {
            self.forget();
        }
        self.marks.push_back((now, next));
        let first = self.marks.front().map_or(next, |(_, next)| *next);
        self.heirs.retain(|heir| *heir >= first);
    }

    /// Whether an object came within the window, and took the place of nothing older.
    pub fn includes(&self, now: Instant, object: ObjectId) -> bool {
        // A receiver's own numbers say nothing of when something came.
        let first = self.marks.iter().find(|(at, _)| !is_over(now, *at));
        let is_young = first.is_some_and(|(_, next)| object >= *next && !object.is_local());
        is_young && !self.heirs.contains(&object)
    }

    /// An object has taken the place of one that was there before the window.
    pub fn handle_heir(&mut self, object: ObjectId) {
        if self.marks.front().is_some_and(|(_, next)| object >= *next) {
            self.heirs.insert(object);
        }
    }

    /// Everything that is there now counts as old.
    pub fn forget(&mut self) {
        self.marks.clear();
        self.heirs.clear();
    }
}

fn is_over(now: Instant, at: Instant) -> bool {
    now.saturating_duration_since(at) >= WINDOW
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn an_object_is_young_for_no_longer_than_the_window() {
        let start = Instant::now();
        let mut newcomers = Newcomers::default();
        // What was found by the walk at the start may have been there for years.
        assert!(!newcomers.includes(start, ObjectId(7)) && newcomers.is_due(start));
        newcomers.mark(start, ObjectId(10));
        assert!(!newcomers.is_due(start + seconds(9)) && newcomers.is_due(start + seconds(10)));
        newcomers.mark(start + seconds(300), ObjectId(20));
        let young = |after, object| newcomers.includes(start + after, ObjectId(object));
        assert!(!young(seconds(300), 9) && young(seconds(300), 10) && young(seconds(300), 20));
        assert!(!young(WINDOW, 19) && young(WINDOW, 20));
        assert!(!young(WINDOW + seconds(300), 20));
        assert!(!young(seconds(1), ObjectId::FIRST_LOCAL.0 + 30));
    }

    #[test]
    fn what_takes_the_place_of_something_older_is_as_old() {
        let now = Instant::now();
        let mut newcomers = Newcomers::default();
        newcomers.mark(now, ObjectId(10));
        newcomers.handle_heir(ObjectId(11));
        assert!(newcomers.includes(now, ObjectId(10)) && !newcomers.includes(now, ObjectId(11)));
        newcomers.forget();
        assert!(!newcomers.includes(now, ObjectId(10)));
        // Too many to remember: all of them count.
        newcomers.mark(now, ObjectId(20));
        (0..=HEIRS_MAX as u64).for_each(|heir| newcomers.handle_heir(ObjectId(30 + heir)));
        newcomers.mark(now, ObjectId(1_000_000));
        assert!(!newcomers.includes(now, ObjectId(20)) && newcomers.includes(now, ObjectId(1_000_000)));
    }
}
