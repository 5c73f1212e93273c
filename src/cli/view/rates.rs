//! How fast things go: counters that were read again and again, as numbers per second.

use super::row::{Key, counted};
use crate::daemon::status::DaemonStatus;
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// Over which time rates are taken.
const WINDOW: Duration = Duration::from_secs(5);

/// Below this a rate would be noise.
const SHORTEST: Duration = Duration::from_millis(400);

/// Per second.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Rate {
    /// Ops that ended.
    pub(super) ops: f64,
    /// Content in bytes.
    pub(super) bytes: f64,
}

/// The counters of a target, or of a sender that is connected here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) ops: u64,
    pub(super) bytes: u64,
}

/// The counters of late.
#[derive(Debug, Default)]
pub(super) struct Rates(HashMap<Key, VecDeque<(Instant, Counted)>>);

impl Rates {
    /// Notes the counters of now. What is not there any more is forgotten.
    pub(super) fn note(&mut self, daemons: &[DaemonStatus], now: Instant) {
        let mut before = std::mem::take(&mut self.0);
        for (key, counted) in counted(daemons) {
            let mut seen = before.remove(&key).unwrap_or_default();
            // Another run counts from zero.
            if seen
                .back()
                .is_some_and(|(_, last)| counted.ops < last.ops || counted.bytes < last.bytes)
            {
                seen.clear();
            }
            seen.push_back((now, counted));
            while seen.len() > 2 && now.saturating_duration_since(seen[1].0) >= WINDOW {
                seen.pop_front();
            }
            self.0.insert(key, seen);
        }
    }

    /// The rate of one of them; none before it was seen twice.
    pub(super) fn of(&self, key: &Key) -> Option<Rate> {
        let seen = self.0.get(key)?;
        let ((from, first), (to, last)) = (seen.front()?, seen.back()?);
        let time = to.saturating_duration_since(*from);
        let per_second = |now: u64, before: u64| now.saturating_sub(before) as f64 / time.as_secs_f64();
        (time >= SHORTEST).then(|| Rate {
            ops: per_second(last.ops, first.ops),
            bytes: per_second(last.bytes, first.bytes),
        })
    }
}
