//! A token bucket. Time is an argument.

use std::time::{Duration, Instant};

/// A pause of so long may be made up for by a burst.
const DEPTH: Duration = Duration::from_millis(20);
/// The least depth: timers are late, and two packets have to fit.
const DEPTH_BYTES_MIN: f64 = 4_096.0;
/// A batch of packets takes at most so long at the rate.
const BATCH: Duration = Duration::from_millis(5);

/// Bytes that may go. They may be owed: a packet goes if there is anything at all.
#[derive(Debug, Clone)]
pub struct Bucket {
    bytes: f64,
    at: Instant,
}

impl Bucket {
    /// An empty one.
    pub fn new(now: Instant) -> Bucket {
        Bucket { bytes: 0.0, at: now }
    }

    /// Whether something may go at `now`, at `rate` bytes a second; otherwise when.
    pub fn admit(&mut self, now: Instant, rate: u64) -> Result<(), Instant> {
        let rate = rate.max(1) as f64;
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        let depth = (rate * DEPTH.as_secs_f64()).max(DEPTH_BYTES_MIN);
        (self.bytes, self.at) = ((self.bytes + passed * rate).min(depth), self.at.max(now));
        if self.bytes > 0.0 {
            return Ok(());
        }
        // One byte more, so that rounding never makes it ask again at once.
        Err(now + Duration::from_secs_f64((1.0 - self.bytes) / rate))
    }

    /// Takes what went.
    pub fn charge(&mut self, bytes: u64) {
        self.bytes -= bytes as f64;
    }
}

/// How many packets of at most `packet` bytes go together at `rate` bytes a second.
pub fn batch(rate: u64, packet: u64) -> usize {
    let packets = rate as f64 * BATCH.as_secs_f64() / packet.max(1) as f64;
    (packets as usize).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that go in `time` if packets of 1,400 bytes always wait and timers are a millisecond late.
    fn pass(rate: u64, time: Duration) -> u64 {
        let begin = Instant::now();
        let (mut bucket, mut now, mut passed) = (Bucket::new(begin), begin, 0);
        while now < begin + time {
            match bucket.admit(now, rate) {
                Ok(()) => {
                    let bytes = 1_400 * batch(rate, 1_400).min(10) as u64;
                    bucket.charge(bytes);
                    passed += bytes;
                }
                Err(when) => now = when + Duration::from_millis(1),
            }
        }
        passed
    }

    #[test]
    fn the_rate_is_kept_in_the_long_run() {
        for rate in [10_000, 500_000, 12_500_000, 100_000_000] {
            let passed = pass(rate, Duration::from_secs(20)) as f64 / 20.0;
            let share = passed / rate as f64;
            assert!((0.97..=1.03).contains(&share), "{rate}: {passed}");
        }
    }

    #[test]
    fn a_pause_is_not_saved_up() {
        let begin = Instant::now();
        let mut bucket = Bucket::new(begin);
        let later = begin + Duration::from_secs(3_600);
        let mut burst = 0;
        while bucket.admit(later, 1_000_000).is_ok() {
            bucket.charge(1_000);
            burst += 1_000;
        }
        assert_eq!(burst, 20_000);
    }

    #[test]
    fn a_batch_is_short() {
        assert_eq!(batch(1_000, 1_400), 1);
        assert_eq!(batch(2_800_000, 1_400), 10);
    }
}
