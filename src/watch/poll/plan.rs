//! Which directory is looked at when. Pure: time is an argument.

use driftless_protocol::ObjectId;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

/// How often to look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PollOptions {
    /// Every directory is looked at once in this time, if there are not too many.
    pub interval: Duration,
    /// Above this many directories in a second the interval gets longer instead.
    pub directories_per_second: u32,
}

impl Default for PollOptions {
    fn default() -> PollOptions {
        PollOptions {
            interval: Duration::from_secs(60),
            directories_per_second: 500,
        }
    }
}

/// Directories that take turns: each is looked at once in a round, and the looks are spread over the round, so that
/// neither the disk nor the processor is busy in bursts.
#[derive(Debug)]
pub struct Plan {
    options: PollOptions,
    /// By whose turn it is.
    turns: BTreeMap<u64, ObjectId>,
    numbers: HashMap<ObjectId, u64>,
    next: u64,
    /// When the last turn was taken; the next comes one spacing later.
    last: Option<Instant>,
}

impl Plan {
    /// Looks at nothing yet.
    pub fn new(options: PollOptions) -> Plan {
        Plan {
            options,
            turns: BTreeMap::new(),
            numbers: HashMap::new(),
            next: 0,
            last: None,
        }
    }

    /// Takes in a directory, which was just looked at: its turn comes after those of all others.
    pub fn add(&mut self, now: Instant, directory: ObjectId) {
        self.last.get_or_insert(now);
        if !self.numbers.contains_key(&directory) {
            self.append(directory);
        }
    }

    /// Takes out a directory. Whether it was in.
    pub fn remove(&mut self, directory: ObjectId) -> bool {
        let number = self.numbers.remove(&directory);
        if let Some(number) = number {
            self.turns.remove(&number);
        }
        if self.turns.is_empty() {
            self.last = None;
        }
        number.is_some()
    }

    /// How many directories take turns.
    pub fn len(&self) -> usize {
        self.turns.len()
    }

    /// All of them, the next first.
    pub fn directories(&self) -> impl Iterator<Item = ObjectId> {
        self.turns.values().copied()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    /// How long a round takes.
    pub fn round(&self) -> Duration {
        self.spacing()
            .saturating_mul(u32::try_from(self.len()).unwrap_or(u32::MAX))
    }

    /// The directory whose turn it is, if it is any's. Ask until there is none; after a long pause that is a whole
    /// round at most.
    pub fn poll_due(&mut self, now: Instant) -> Option<ObjectId> {
        let due = self.poll_deadline()?;
        if due > now {
            return None;
        }
        // What a suspended machine missed is made up for once, not as often as it was missed.
        let missed = self.round().saturating_sub(self.spacing());
        let earliest = now.checked_sub(missed).unwrap_or(due);
        self.last = Some(due.max(earliest));
        let (_, directory) = self.turns.pop_first()?;
        self.append(directory);
        Some(directory)
    }

    /// When the next turn comes; `None` when there are no directories.
    pub fn poll_deadline(&self) -> Option<Instant> {
        let last = self.last.filter(|_| !self.is_empty())?;
        Some(last + self.spacing())
    }

    fn append(&mut self, directory: ObjectId) {
        self.turns.insert(self.next, directory);
        self.numbers.insert(directory, self.next);
        self.next += 1;
    }

    /// The time between two turns.
    fn spacing(&self) -> Duration {
        let count = u32::try_from(self.len()).unwrap_or(u32::MAX).max(1);
        let least = Duration::from_secs(1) / self.options.directories_per_second.max(1);
        (self.options.interval / count).max(least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn plan(count: u64) -> (Plan, Instant) {
        let start = Instant::now();
        let mut plan = Plan::new(PollOptions {
            interval: Duration::from_secs(60),
            directories_per_second: 10,
        });
        (2..count + 2).for_each(|number| plan.add(start, ObjectId(number)));
        (plan, start)
    }

    /// Everything that is due until then, asked for whenever something is.
    fn run(plan: &mut Plan, until: Instant) -> Vec<(Instant, ObjectId)> {
        let mut taken = Vec::new();
        while let Some(due) = plan.poll_deadline().filter(|due| *due <= until) {
            assert_eq!(
                due.checked_sub(Duration::from_nanos(1))
                    .and_then(|early| plan.poll_due(early)),
                None
            );
            taken.push((due, plan.poll_due(due).unwrap()));
        }
        taken
    }

    #[test]
    fn all_take_turns_spread_over_the_interval() {
        let (mut plan, start) = plan(6);
        let taken = run(&mut plan, start + Duration::from_secs(120));
        let seconds: Vec<_> = taken.iter().map(|(at, _)| (*at - start).as_secs()).collect();
        assert_eq!(seconds, [10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120]);
        let objects: Vec<_> = taken.iter().map(|(_, object)| object.0).collect();
        assert_eq!(objects, [2, 3, 4, 5, 6, 7, 2, 3, 4, 5, 6, 7]);
        // One that is added waits for its turn, one that is taken out has none.
        plan.add(start, ObjectId(9));
        plan.add(start, ObjectId(9));
        assert!(plan.remove(ObjectId(2)) && !plan.remove(ObjectId(2)));
        let objects: Vec<_> = run(&mut plan, start + Duration::from_secs(180))
            .iter()
            .map(|(_, object)| object.0)
            .collect();
        assert_eq!(objects, [3, 4, 5, 6, 7, 9]);
    }

    #[test]
    fn too_many_take_longer_and_not_more_at_a_time() {
        let (mut plan, start) = plan(6_000);
        assert_eq!(plan.round(), Duration::from_secs(600));
        let taken = run(&mut plan, start + Duration::from_secs(60));
        assert_eq!(taken.len(), 600);
        assert_eq!(
            taken
                .iter()
                .map(|(_, object)| object)
                .collect::<HashSet<_>>()
                .len(),
            600
        );
    }

    #[test]
    fn a_long_pause_is_made_up_for_once() {
        let (mut plan, start) = plan(6);
        let late = start + Duration::from_secs(1_000_000);
        let taken: Vec<_> = std::iter::from_fn(|| plan.poll_due(late)).collect();
        assert_eq!(taken.len(), 6, "{taken:?}");
        assert!(plan.poll_deadline().unwrap() > late);
    }

    #[test]
    fn nothing_is_due_when_there_is_nothing() {
        let (mut plan, start) = plan(1);
        plan.remove(ObjectId(2));
        assert_eq!(plan.poll_deadline(), None);
        assert_eq!(plan.poll_due(start + Duration::from_secs(1_000)), None);
        // The first of a new set waits as long as any.
        let later = start + Duration::from_secs(500);
        plan.add(later, ObjectId(3));
        assert_eq!(plan.poll_deadline(), Some(later + Duration::from_secs(60)));
    }
}
