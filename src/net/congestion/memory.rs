//! What a connection leaves to the next one over the same path.
//!
//! As in draft-ietf-tsvwg-careful-resume: the next connection believes it only once its own round trip is like the
//! remembered one, begins with half of what was in flight, paced over a round trip, and goes on from there by what it
//! measures itself.

use std::time::Duration;

/// Older knowledge is forgotten: paths change.
const LIFETIME: Duration = Duration::from_secs(24 * 3_600);
const VERSION: u8 = 1;

/// A path as it was.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PathMemory {
    /// Bytes per second that it carried.
    pub rate: u64,
    /// Round trip without a queue of our own.
    pub round_trip: Duration,
}

impl PathMemory {
    /// The window to begin with on a path with this round trip; none if that is another path.
    pub(super) fn window(&self, round_trip: Duration) -> Option<u64> {
        let alike = round_trip >= self.round_trip / 2 && round_trip <= self.round_trip * 3 / 2;
        alike.then(|| (self.rate as f64 * self.round_trip.min(round_trip).as_secs_f64() / 2.0) as u64)
    }

    /// Whether this differs so much from what is stored that it is worth a write.
    pub fn is_news_to(&self, stored: Option<PathMemory>) -> bool {
        stored.is_none_or(|stored| self.rate.abs_diff(stored.rate) > stored.rate / 4)
    }

    /// As bytes, learned at `now` (Unix seconds).
    pub fn to_bytes(self, now: u64) -> Vec<u8> {
        let microseconds = u64::try_from(self.round_trip.as_micros()).unwrap_or(u64::MAX);
        let mut bytes = vec![VERSION];
        for number in [now, self.rate, microseconds] {
            bytes.extend(number.to_be_bytes());
        }
        bytes
    }

    /// From bytes; none if they are too old at `now`, or of another version.
    pub fn from_bytes(bytes: &[u8], now: u64) -> Option<PathMemory> {
        let (version, rest) = bytes.split_first()?;
        let (numbers, rest) = rest.as_chunks::<8>();
        let [learned, rate, microseconds] = *numbers else {
            return None;
        };
        let age = now.abs_diff(u64::from_be_bytes(learned));
        let usable = *version == VERSION && rest.is_empty() && age < LIFETIME.as_secs();
        usable.then(|| PathMemory {
            rate: u64::from_be_bytes(rate),
            round_trip: Duration::from_micros(u64::from_be_bytes(microseconds)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: PathMemory = PathMemory {
        rate: 25_000_000,
        round_trip: Duration::from_millis(80),
    };

    #[test]
    fn half_of_the_product_is_believed_on_a_path_that_looks_the_same() {
        assert_eq!(PATH.window(Duration::from_millis(80)), Some(1_000_000));
        assert_eq!(PATH.window(Duration::from_millis(40)), Some(500_000));
        assert_eq!(PATH.window(Duration::from_millis(30)), None);
        assert_eq!(PATH.window(Duration::from_millis(130)), None);
    }

    #[test]
    fn a_day_later_it_is_forgotten() {
        let bytes = PATH.to_bytes(1_000_000);
        assert_eq!(PathMemory::from_bytes(&bytes, 1_000_000 + 86_399), Some(PATH));
        assert_eq!(PathMemory::from_bytes(&bytes, 1_000_000 + 86_400), None);
        assert_eq!(PathMemory::from_bytes(&bytes[1..], 1_000_000), None);
        assert_eq!(PathMemory::from_bytes(&[], 0), None);
    }

    #[test]
    fn small_differences_are_not_written() {
        assert!(PATH.is_news_to(None));
        assert!(
            !PathMemory {
                rate: 24_000_000,
                ..PATH
            }
            .is_news_to(Some(PATH))
        );
        assert!(
            PathMemory {
                rate: 50_000_000,
                ..PATH
            }
            .is_news_to(Some(PATH))
        );
    }
}
