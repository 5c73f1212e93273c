//! How long whoever connects waits before it tries again.

use std::time::Duration;

const BACKOFF_FIRST: Duration = Duration::from_millis(200);
/// Between tries at a peer that refuses, or cannot work just now: it shall go on soon after that has changed.
pub const BACKOFF_MAX: Duration = Duration::from_secs(20);
/// Between tries at a peer that does not answer. Such a try costs a few packets, and nobody any work.
pub const SILENCE_BACKOFF_MAX: Duration = Duration::from_secs(2);

/// Doubles from 200 ms to the longest, each time a random part between a half and the whole of it, so that many who
/// connect do not come back at the same moment.
pub fn backoff(tries: u32, longest: Duration) -> Duration {
    let full = BACKOFF_FIRST
        .saturating_mul(2u32.saturating_pow(tries.saturating_sub(1)))
        .min(longest);
    let mut byte = [128];
    let _ = getrandom::fill(&mut byte);
    full / 2 + full / 2 * u32::from(byte[0]) / 256
}
