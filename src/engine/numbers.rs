//! Sets of numbers that mostly follow each other: which ops have ended, and which of these are still to be told.

use driftless_protocol::message::Run;
use std::collections::BTreeMap;

/// A set of numbers, kept as runs. Its size in memory is that of its gaps.
#[derive(Debug, Clone, Default)]
pub struct RunSet {
    /// First to last, disjoint, never adjacent.
    runs: BTreeMap<u64, u64>,
}

impl RunSet {
    /// Adds a number; false if it was there.
    pub fn insert(&mut self, number: u64) -> bool {
        if self.contains(number) {
            return false;
        }
        let last = number
            .checked_add(1)
            .and_then(|next| self.runs.remove(&next))
            .unwrap_or(number);
        match self.runs.range_mut(..number).next_back() {
            Some((_, before)) if *before + 1 == number => *before = last,
            _ => {
                self.runs.insert(number, last);
            }
        }
        true
    }

    /// Whether a number is in the set.
    pub fn contains(&self, number: u64) -> bool {
        let run = self.runs.range(..=number).next_back();
        run.is_some_and(|(_, &last)| number <= last)
    }

    /// Takes out every number up to this one.
    pub fn remove_through(&mut self, number: u64) {
        while let Some(entry) = self.runs.first_entry().filter(|run| *run.key() <= number) {
            let last = entry.remove();
            if last > number {
                self.runs.insert(number + 1, last);
            }
        }
    }

    /// Takes out the run that begins with this number, and tells its end.
    fn take_run_from(&mut self, first: u64) -> Option<u64> {
        self.runs.remove(&first)
    }

    /// Takes out up to `most` of the lowest runs.
    pub fn take(&mut self, most: usize) -> Vec<Run> {
        let lowest = std::iter::from_fn(|| self.runs.pop_first());
        lowest
            .take(most)
            .map(|(first, last)| Run { first, last })
            .collect()
    }
}

/// Numbers from 1 on, that fill up with gaps.
#[derive(Debug, Clone, Default)]
pub struct NumberSet {
    prefix: u64,
    above: RunSet,
    count: u64,
}

impl NumberSet {
    /// Adds a number; false if it was there.
    pub fn insert(&mut self, number: u64) -> bool {
        if self.contains(number) {
            return false;
        }
        self.count += 1;
        if number == self.prefix + 1 {
            self.prefix = self.above.take_run_from(number + 1).unwrap_or(number);
        } else {
            self.above.insert(number);
        }
        true
    }

    /// Whether a number is in the set; 0 always is.
    pub fn contains(&self, number: u64) -> bool {
        number <= self.prefix || self.above.contains(number)
    }

    /// Every number up to this one is in the set, and the next is not.
    pub fn prefix(&self) -> u64 {
        self.prefix
    }

    /// How many numbers are in the set, without 0.
    pub fn count(&self) -> u64 {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn numbers(runs: &[Run]) -> Vec<u64> {
        runs.iter().flat_map(|run| run.first..=run.last).collect()
    }

    proptest! {
        #[test]
        fn a_number_set_is_a_set(picks in prop::collection::vec(1u64..60, 0..120)) {
            let (mut set, mut model) = (NumberSet::default(), BTreeSet::new());
            for number in picks {
                prop_assert_eq!(set.insert(number), model.insert(number));
                prop_assert_eq!(set.count(), model.len() as u64);
                prop_assert_eq!(set.prefix(), (1..).take_while(|n| model.contains(n)).count() as u64);
            }
            prop_assert!((1..70).all(|number| set.contains(number) == model.contains(&number)));
        }

        #[test]
        fn runs_come_out_once_in_order_and_never_touch(
            picks in prop::collection::vec(1u64..60, 0..120), cut in 0u64..60, most in 1usize..8,
        ) {
            let (mut set, mut model) = (RunSet::default(), BTreeSet::new());
            for number in picks {
                prop_assert_eq!(set.insert(number), model.insert(number));
            }
            set.remove_through(cut);
            model.retain(|&number| number > cut);
            let mut taken = Vec::new();
            loop {
                let runs = set.take(most);
                if runs.is_empty() { break; }
                prop_assert!(runs.len() <= most);
                taken.extend(runs);
            }
            prop_assert!(taken.windows(2).all(|pair| pair[0].last + 1 < pair[1].first));
            prop_assert_eq!(numbers(&taken), model.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_largest_number_does_not_overflow() {
        let mut set = RunSet::default();
        assert!(set.insert(u64::MAX) && set.insert(u64::MAX - 1));
        assert_eq!(numbers(&set.take(9)), [u64::MAX - 1, u64::MAX]);
    }
}
