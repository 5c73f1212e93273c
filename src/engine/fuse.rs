//! The delete fuse: when a target is about to lose much of what it has, somebody is asked first.
//!
//! Deletions are counted over a window of time, because `rm -rf`, an emptied directory or a file system that went away
//! arrive as a stream and not as one number. They blow the fuse when they are more than a number *and* more than a share
//! of what was there. Then nothing more is deleted until that many are approved, or what was missing is back.
//! What came within that time and goes again is no loss, and is not counted: see [`super::newcomers`].

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};
use thiserror::Error;

/// How long a deletion counts.
pub const WINDOW: Duration = Duration::from_secs(600);

/// Deletions this close together are counted as at the moment of the first.
const RESOLUTION: Duration = Duration::from_secs(1);

/// How many deletions pass unasked: no more than `entries`, or no more than `percent` of what was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeleteLimit {
    /// This many always pass.
    pub entries: u64,
    /// As many as this share always pass, in percent of the entries before; 0 to 100.
    pub percent: u8,
}

impl Default for DeleteLimit {
    fn default() -> DeleteLimit {
        DeleteLimit {
            entries: 1_000,
            percent: 25,
        }
    }
}

impl DeleteLimit {
    /// Whether so many deletions of `before` entries are too many.
    fn is_passed_by(&self, deletions: u64, before: u64) -> bool {
        let share = u128::from(deletions) * 100;
        deletions > self.entries && share > u128::from(before) * u128::from(self.percent)
    }
}

impl fmt::Display for DeleteLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.entries, self.percent) {
            (entries, 0) => write!(f, "{entries}"),
            (0, percent) => write!(f, "{percent}%"),
            (entries, percent) => write!(f, "{entries},{percent}%"),
        }
    }
}

/// A limit that is none.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "{0:?} is no limit of deletions: give a number, a percentage of 0% to 100%, or both as in `1000,25%`"
)]
pub struct DeleteLimitError(String);

impl FromStr for DeleteLimit {
    type Err = DeleteLimitError;

    /// Reads `N`, `N%` or `N,N%`.
    fn from_str(text: &str) -> Result<DeleteLimit, DeleteLimitError> {
        let error = || DeleteLimitError(text.to_owned());
        let percent_of = |text: &str| {
            let number = text.strip_suffix('%')?;
            number.parse().ok().filter(|percent| *percent <= 100)
        };
        let (entries, percent) = match text.split_once(',') {
            Some((entries, percent)) => (entries.parse().ok(), percent_of(percent)),
            None if text.ends_with('%') => (Some(0), percent_of(text)),
            None => (text.parse().ok(), Some(0)),
        };
        Ok(DeleteLimit {
            entries: entries.ok_or_else(error)?,
            percent: percent.ok_or_else(error)?,
        })
    }
}

/// What was deleted lately, and what may be.
#[derive(Debug, Clone)]
pub struct DeleteFuse {
    limit: Option<DeleteLimit>,
    recent: VecDeque<(Instant, u64)>,
    approved: u64,
}

impl DeleteFuse {
    /// Nothing was deleted yet. Without a limit everything passes.
    pub fn new(limit: Option<DeleteLimit>) -> DeleteFuse {
        DeleteFuse {
            limit,
            recent: VecDeque::new(),
            approved: 0,
        }
    }

    /// Whether `waiting` deletions would not be admitted unless approved.
    pub fn would_refuse(&self, now: Instant, waiting: u64, present: u64) -> bool {
        let counts = |&&(at, _): &&(Instant, u64)| now.saturating_duration_since(at) < WINDOW;
        let recent: u64 = self.recent.iter().filter(counts).map(|(_, count)| count).sum();
        let deletions = recent.saturating_add(waiting);
        let is_too_many =
            |limit: DeleteLimit| limit.is_passed_by(deletions, deletions.saturating_add(present));
        waiting > 0 && self.limit.is_some_and(is_too_many)
    }

    /// Whether all of `waiting` may be deleted now, where `present` entries are left. If so they count as deleted.
    pub fn admit(&mut self, now: Instant, waiting: u64, present: u64) -> bool {
        if waiting == 0 {
            return true;
        }
        let old = |at: &Instant| now.saturating_duration_since(*at) >= WINDOW;
        while self.recent.front().is_some_and(|(at, _)| old(at)) {
            self.recent.pop_front();
        }
        if self.would_refuse(now, waiting, present) {
            if self.approved < waiting {
                return false;
            }
            // What somebody decided on says nothing about what comes next.
            self.recent.clear();
        } else if self.limit.is_some() {
            self.note(now, waiting);
        }
        self.approved = 0;
        true
    }

    /// Whether anything is ever refused.
    pub fn has_limit(&self) -> bool {
        self.limit.is_some()
    }

    /// Whether somebody approved what has not passed yet.
    pub fn is_approved(&self) -> bool {
        self.approved > 0
    }

    fn note(&mut self, now: Instant, deletions: u64) {
        match self.recent.back_mut() {
            Some((at, count)) if now.saturating_duration_since(*at) < RESOLUTION => *count += deletions,
            _ => self.recent.push_back((now, deletions)),
        }
    }

    /// Somebody wants up to so many of the waiting deletions. Holds until the next ones pass.
    pub fn approve(&mut self, deletions: u64) {
        self.approved = deletions;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fuse(text: &str) -> DeleteFuse {
        DeleteFuse::new(Some(text.parse().unwrap()))
    }

    #[test]
    fn limits_are_read_as_they_are_shown() {
        for text in ["0", "1000", "25%", "1000,25%", "100%"] {
            assert_eq!(text.parse::<DeleteLimit>().unwrap().to_string(), text);
        }
        assert_eq!(DeleteLimit::default().to_string(), "1000,25%");
        for text in [
            "",
            "-1",
            "x",
            "101%",
            "%",
            "5,",
            ",5%",
            "5%,5",
            "5,5",
            "1000, 25%",
        ] {
            let error = text.parse::<DeleteLimit>().unwrap_err();
            assert!(error.to_string().contains("1000,25%"), "{error}");
        }
    }

    #[test]
    fn both_bounds_have_to_be_passed() {
        let now = Instant::now();
        // A small tree may lose all it has, a large one a thousand times as much.
        assert!(fuse("1000,25%").admit(now, 1_000, 0));
        assert!(!fuse("1000,25%").admit(now, 1_001, 0));
        assert!(fuse("1000,25%").admit(now, 250_000, 750_000));
        assert!(!fuse("1000,25%").admit(now, 250_001, 749_999));
        assert!(!fuse("0").admit(now, 1, u64::MAX));
        assert!(fuse("100%").admit(now, u64::MAX, 0));
        assert!(DeleteFuse::new(None).admit(now, u64::MAX, 0));
    }

    #[test]
    fn a_stream_counts_as_one_until_it_is_over() {
        let start = Instant::now();
        let mut fuse = fuse("1000,25%");
        let mut left = 10_000;
        let mut deleted = 0;
        for step in 0.. {
            if !fuse.admit(start + Duration::from_millis(step), 100, left - 100) {
                break;
            }
            left -= 100;
            deleted += 100;
        }
        assert_eq!(deleted, 2_500);
        // Later the same ones are few of what is there now.
        assert!(fuse.admit(start + WINDOW + Duration::from_millis(100), 100, left - 100));
    }

    #[test]
    fn an_approval_is_for_what_was_shown_and_used_once() {
        let now = Instant::now();
        let mut fuse = fuse("10");
        assert!(!fuse.admit(now, 50, 100));
        fuse.approve(49);
        assert!(!fuse.admit(now, 50, 100));
        fuse.approve(50);
        assert!(!fuse.admit(now, 51, 99), "more are missing by now");
        assert!(fuse.admit(now, 50, 100));
        // What was approved is settled.
        assert!(fuse.admit(now, 10, 90));
        assert!(!fuse.admit(now, 1, 89));
        fuse.approve(5);
        assert!(fuse.admit(now, 1, 89));
        assert!(fuse.admit(now, 10, 79));
        assert!(!fuse.admit(now, 5, 79), "the approval was used");
    }

    #[test]
    fn what_comes_back_needs_no_approval() {
        let now = Instant::now();
        let mut fuse = fuse("10");
        assert!(!fuse.admit(now, 50, 100));
        assert!(fuse.admit(now, 3, 147));
    }
}
