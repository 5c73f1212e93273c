//! Reading in the background: so many bytes a second, and the page cache left as it was.

use crate::fs::read_quietly;
use driftless_protocol::Digest;
use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// How far reading may fall behind its rate before that is forgiven: what is made up for comes in a burst.
const BURST: Duration = Duration::from_millis(200);

/// A rate, and how far it is used up.
#[derive(Debug)]
pub struct Pace {
    /// Bytes a second; 0 for as fast as it goes.
    rate: u64,
    due: Option<Instant>,
}

impl Pace {
    /// At most so many bytes a second; 0 for as fast as it goes.
    pub fn new(rate: u64) -> Pace {
        Pace { rate, due: None }
    }

    /// Another rate from now on.
    pub fn set_rate(&mut self, rate: u64) {
        self.rate = rate;
    }

    /// Notes what was read, and says how long to wait before more is.
    pub fn charge(&mut self, now: Instant, bytes: u64) -> Duration {
        if self.rate == 0 {
            return Duration::ZERO;
        }
        let begun = self
            .due
            .map_or(now, |due| due.max(now.checked_sub(BURST).unwrap_or(now)));
        // A day at most: a file system may tell of sizes that make no sense.
        let cost = Duration::from_secs_f64((bytes as f64 / self.rate as f64).min(86_400.0));
        let due = begun + cost;
        self.due = Some(due);
        due.saturating_duration_since(now)
    }
}

/// The digest of a file's content. `wait` is called again and again with the time to wait, which may be none; when it says false
/// the rest is not read, and there is no digest.
pub fn digest_at_pace(
    file: &File,
    pace: &mut Pace,
    wait: &mut dyn FnMut(Duration) -> bool,
) -> io::Result<Option<Digest>> {
    let mut hasher = blake3::Hasher::new();
    let ended = read_quietly(file, |piece| {
        hasher.update(piece);
        match wait(pace.charge(Instant::now(), piece.len() as u64)) {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    })?;
    Ok(ended.is_continue().then(|| Digest(hasher.finalize().into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_kept_and_what_was_missed_is_not_made_up_for() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut pace = Pace::new(1_000);
        assert_eq!(pace.charge(at(0), 500), Duration::from_millis(500));
        assert_eq!(pace.charge(at(500), 500), Duration::from_millis(500));
        // A minute later a short burst is free, and not a minute's worth.
        assert_eq!(pace.charge(at(60_000), 100), Duration::ZERO);
        assert_eq!(pace.charge(at(60_000), 1_000), Duration::from_millis(900));
        assert_eq!(Pace::new(0).charge(at(0), u64::MAX), Duration::ZERO);
    }

    #[test]
    fn a_digest_is_that_of_the_content_or_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, vec![7; 600_000]).unwrap();
        let file = File::open(&path).unwrap();
        let found = digest_at_pace(&file, &mut Pace::new(0), &mut |_| true).unwrap();
        assert_eq!(found, Some(Digest::of(&vec![7; 600_000])));
        let mut calls = 0;
        let stopped = digest_at_pace(&file, &mut Pace::new(1), &mut |wait| {
            calls += 1;
            assert!(wait > Duration::from_secs(1_000));
            false
        });
        assert_eq!((stopped.unwrap(), calls), (None, 1));
    }
}
