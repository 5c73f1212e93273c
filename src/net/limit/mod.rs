//! `--bwlimit`: no more bytes a second than the user allows, over all connections of a process.
//!
//! The limit sits between QUIC and the socket, so it counts what crosses the network (UDP payload: with encryption,
//! acknowledgements and what is sent again), and nothing above it bursts: QUIC chooses what goes next at the moment when
//! something may go. Timers run only while a packet waits.

mod bucket;
mod schedule;
mod socket;

pub use schedule::{Schedule, ScheduleError, keep_time_zone};
pub(super) use socket::LimitedSocket;

use bucket::Bucket;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a rate that was looked up in the schedule holds.
const LOOK_UP_EVERY: Duration = Duration::from_secs(1);

/// Shares a rate among all sockets that hold it.
pub struct Limiter {
    schedule: Schedule,
    state: Mutex<State>,
}

struct State {
    bucket: Bucket,
    /// Bytes per second; none for no limit.
    rate: Option<u64>,
    looked_up: Option<Instant>,
}

impl fmt::Debug for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Limiter({:?})", self.schedule)
    }
}

impl Limiter {
    /// A full bucket.
    pub fn new(schedule: Schedule) -> Limiter {
        let state = State {
            bucket: Bucket::new(Instant::now()),
            rate: None,
            looked_up: None,
        };
        Limiter {
            schedule,
            state: Mutex::new(state),
        }
    }

    /// Whether something may go now; otherwise when to ask again.
    fn admit(&self, now: Instant) -> Result<(), Instant> {
        self.with(now, |state| match state.rate {
            None => Ok(()),
            Some(rate) => state.bucket.admit(now, rate),
        })
    }

    /// Something went.
    fn charge(&self, now: Instant, bytes: usize) {
        self.with(now, |state| {
            if state.rate.is_some() {
                state.bucket.charge(bytes as u64);
            }
        });
    }

    /// Packets of at most `packet` bytes that go together, so that a slow line is not silent for long.
    fn batch(&self, now: Instant, packet: u64) -> usize {
        self.with(now, |state| match state.rate {
            None => usize::MAX,
            Some(rate) => bucket::batch(rate, packet),
        })
    }

    fn with<T>(&self, now: Instant, work: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_old = |at: Instant| now.saturating_duration_since(at) >= LOOK_UP_EVERY;
        if state.looked_up.is_none_or(is_old) {
            state.looked_up = Some(now);
            state.rate = self.schedule.rate_now();
        }
        work(&mut state)
    }
}
