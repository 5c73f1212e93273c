//! How long changes wait: when the changes of a journal were first heard of, and which object has waited longest.
//!
//! Times are kept for runs of the journal, not for each change, and of these no more than `RUNS_MAX`: beyond, neighbours are
//! taken together under the earlier time. So a change is never said to be younger than it is.

use driftless_protocol::ObjectId;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Instant;

/// Runs of the journal whose times are told apart.
const RUNS_MAX: usize = 1_024;

/// The ages of what has not arrived. Pure: times are arguments.
#[derive(Debug, Clone, Default)]
pub struct Ages {
    /// By the last number of a run: when the first of it was heard of.
    runs: BTreeMap<u64, Instant>,
    waiting: BTreeSet<(Instant, ObjectId)>,
    since: HashMap<ObjectId, Instant>,
}

impl Ages {
    /// The journal has grown up to this number, by what was first heard of at `since`.
    pub fn handle_grown(&mut self, through: u64, since: Instant) {
        if self
            .runs
            .last_key_value()
            .is_some_and(|(&last, _)| last >= through)
        {
            return;
        }
        self.runs.insert(through, since);
        if self.runs.len() > RUNS_MAX {
            self.thin_out();
        }
    }

    /// When a change of this number was first heard of, at the latest; `None` if it is from before this run of the program.
    pub fn since(&self, sequence: u64) -> Option<Instant> {
        self.runs.range(sequence..).map(|(_, &since)| since).min()
    }

    /// An object has to be sent because of the change of this number. What waits already keeps its time.
    pub fn handle_waiting(&mut self, object: ObjectId, sequence: u64, now: Instant) {
        if !self.since.contains_key(&object) {
            let since = self.since(sequence).unwrap_or(now);
            self.since.insert(object, since);
            self.waiting.insert((since, object));
        }
    }

    /// An object does not wait any more.
    pub fn handle_done(&mut self, object: ObjectId) {
        if let Some(since) = self.since.remove(&object) {
            self.waiting.remove(&(since, object));
        }
    }

    /// The object that has waited longest, and since when.
    pub fn oldest(&self) -> Option<(Instant, ObjectId)> {
        self.waiting.first().copied()
    }

    /// How many objects wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Nothing waits, and everything up to now has arrived.
    pub fn handle_all_done(&mut self) {
        *self = Ages::default();
    }

    /// The connection ended: what waited is found again in the journal.
    pub fn forget_waiting(&mut self) {
        self.waiting.clear();
        self.since.clear();
    }

    fn thin_out(&mut self) {
        let runs: Vec<(u64, Instant)> = std::mem::take(&mut self.runs).into_iter().collect();
        for pair in runs.chunks(2) {
            let through = pair.iter().map(|(through, _)| *through).max();
            let since = pair.iter().map(|(_, since)| *since).min();
            self.runs.extend(through.zip(since));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    proptest! {
        /// However many runs there are: no change is said to be younger than it is, and the order of times is kept.
        #[test]
        fn nothing_gets_younger(steps in prop::collection::vec((1u64..5, 0u64..50), 1..5_000)) {
            let start = Instant::now();
            let (mut ages, mut truth) = (Ages::default(), Vec::new());
            let (mut last, mut now) = (0, start);
            for (grown, later) in steps {
                now += Duration::from_millis(later);
                truth.push((last + 1, now));
                last += grown;
                ages.handle_grown(last, now);
                prop_assert!(ages.runs.len() <= RUNS_MAX);
            }
            for (first, heard) in truth {
                prop_assert!(ages.since(first).is_some_and(|since| since <= heard));
            }
            prop_assert_eq!(ages.since(last + 1), None);
        }
    }

    #[test]
    fn the_oldest_is_the_one_that_has_waited_longest() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut ages = Ages::default();
        ages.handle_grown(10, at(1));
        ages.handle_grown(20, at(5));
        ages.handle_waiting(ObjectId(7), 15, at(9));
        ages.handle_waiting(ObjectId(8), 10, at(9));
        ages.handle_waiting(ObjectId(9), 21, at(9));
        assert_eq!((ages.oldest(), ages.waiting()), (Some((at(1), ObjectId(8))), 3));
        // It changed again: it still waits since then.
        ages.handle_waiting(ObjectId(8), 20, at(9));
        ages.handle_done(ObjectId(7));
        assert_eq!(ages.oldest(), Some((at(1), ObjectId(8))));
        ages.handle_done(ObjectId(8));
        assert_eq!(ages.oldest(), Some((at(9), ObjectId(9))));
        ages.forget_waiting();
        assert_eq!((ages.oldest(), ages.since(12)), (None, Some(at(5))));
        ages.handle_all_done();
        assert_eq!(ages.since(12), None);
    }
}
