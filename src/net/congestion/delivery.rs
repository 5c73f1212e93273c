//! Samples of the delivery rate: how fast the path carried what is acknowledged now.
//!
//! The method is that of draft-ietf-ccwg-bbr (section 4.1, "delivery rate samples"): each departure remembers how much
//! had been delivered when it left. When it is acknowledged, what was delivered in between, by the longer of the time
//! it took to send and the time it took to be acknowledged, is a rate the path has shown to carry. Losses make the
//! amount smaller but never end the sample, so the rate survives random loss.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Departures that are remembered. At ten packets each they are more than any window of this program.
const DEPARTURES_MAX: usize = 16_384;
/// After so long without an acknowledgement nobody waits for a departure's sample.
const FORGET_AFTER: Duration = Duration::from_secs(10);

/// What was known when packets left. All packets that quinn makes in one go have one time, and one departure.
#[derive(Debug, Clone, Copy)]
struct Departure {
    at: Instant,
    /// When the flight began that this departure is measured against.
    flight_start: Instant,
    /// Bytes delivered until then.
    delivered: u64,
    /// When the last of these was acknowledged.
    delivered_at: Instant,
}

/// What one acknowledgement tells of the path.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Bytes per second. None if the time between was too short to say anything.
    pub rate: Option<f64>,
    /// From the departure of the newest packet that was acknowledged to now; with the peer's delay.
    pub round_trip: Duration,
    /// Bytes that had been delivered when the newest acknowledged packet left.
    pub delivered_before: u64,
    /// Bytes that this acknowledgement added.
    pub acked: u64,
    /// Whether the sender had nothing to send then, so that the path may carry more than `rate`.
    pub app_limited: bool,
}

/// Keeps count of departures and deliveries.
#[derive(Debug, Clone)]
pub struct Deliveries {
    departures: VecDeque<Departure>,
    delivered: u64,
    delivered_at: Option<Instant>,
    flight_start: Option<Instant>,
    /// Whether nothing was in flight after the last acknowledgement: the next departure begins a new flight.
    idle: bool,
    /// What left before this many bytes were delivered left while there was nothing more to send.
    app_limited_until: u64,
    /// The newest departure of which a packet was acknowledged since the last [`Deliveries::sample`].
    newest: Option<Departure>,
    acked: u64,
}

impl Deliveries {
    /// Nothing has left yet.
    pub fn new() -> Deliveries {
        Deliveries {
            departures: VecDeque::new(),
            delivered: 0,
            delivered_at: None,
            flight_start: None,
            idle: true,
            app_limited_until: 0,
            newest: None,
            acked: 0,
        }
    }

    /// Bytes delivered so far.
    pub fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Packets leave.
    pub fn depart(&mut self, now: Instant) {
        if self.idle {
            (self.delivered_at, self.flight_start, self.idle) = (Some(now), Some(now), false);
        }
        if self.departures.back().is_some_and(|last| last.at >= now) {
            return;
        }
        while let Some(oldest) = self.departures.front()
            && (self.departures.len() >= DEPARTURES_MAX
                || now.saturating_duration_since(oldest.at) > FORGET_AFTER)
        {
            self.departures.pop_front();
        }
        self.departures.push_back(Departure {
            at: now,
            flight_start: self.flight_start.unwrap_or(now),
            delivered: self.delivered,
            delivered_at: self.delivered_at.unwrap_or(now),
        });
    }

    /// A packet that left at `sent` was acknowledged.
    pub fn acknowledge(&mut self, now: Instant, sent: Instant, bytes: u64) {
        self.delivered += bytes;
        self.acked += bytes;
        self.delivered_at = Some(now);
        if self.newest.is_some_and(|newest| newest.at >= sent) {
            return;
        }
        if let Ok(at) = self
            .departures
            .binary_search_by(|departure| departure.at.cmp(&sent))
        {
            self.newest = Some(self.departures[at]);
        }
    }

    /// What the packets acknowledged since the last call tell. `in_flight` bytes are still under way; `app_limited`
    /// means that there was nothing more to send just now.
    pub fn sample(&mut self, now: Instant, in_flight: u64, app_limited: bool) -> Option<Sample> {
        let acked = std::mem::take(&mut self.acked);
        self.idle = in_flight == 0;
        let sample = self.newest.take().map(|departure| {
            self.flight_start = Some(departure.at);
            let sending = departure.at.saturating_duration_since(departure.flight_start);
            let acknowledging = now.saturating_duration_since(departure.delivered_at);
            let seconds = sending.max(acknowledging).as_secs_f64();
            let delivered = self.delivered - departure.delivered;
            let round_trip = now.saturating_duration_since(departure.at);
            Sample {
                // Less than half a round trip is a burst of acknowledgements, not a rate.
                rate: (seconds > 0.0 && seconds >= round_trip.as_secs_f64() / 2.0)
                    .then(|| delivered as f64 / seconds),
                round_trip,
                delivered_before: departure.delivered,
                acked,
                app_limited: departure.delivered < self.app_limited_until,
            }
        });
        if app_limited {
            self.app_limited_until = self.delivered + in_flight.max(1);
        }
        sample
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(base: Instant, ms: u64) -> Instant {
        base + Duration::from_millis(ms)
    }

    #[test]
    fn a_steady_flight_shows_the_rate_of_the_path() {
        let (base, mut deliveries, mut last) = (Instant::now(), Deliveries::new(), None);
        // 1,000 bytes every 10 ms, acknowledged 50 ms later.
        for step in 0..100 {
            deliveries.depart(ms(base, step * 10));
            if step >= 5 {
                deliveries.acknowledge(ms(base, step * 10), ms(base, (step - 5) * 10), 1_000);
                last = deliveries.sample(ms(base, step * 10), 5_000, false);
            }
        }
        let sample = last.unwrap();
        let rate = sample.rate.unwrap();
        assert!((rate - 100_000.0).abs() < 1.0, "{rate}");
        assert_eq!(sample.round_trip, Duration::from_millis(50));
        assert!(!sample.app_limited);
    }

    #[test]
    fn lost_packets_lower_a_sample_by_their_share_only() {
        let (base, mut deliveries, mut last) = (Instant::now(), Deliveries::new(), None);
        for step in 0..200 {
            deliveries.depart(ms(base, step * 10));
            if step >= 20 && step % 10 != 0 {
                deliveries.acknowledge(ms(base, step * 10), ms(base, (step - 20) * 10), 1_000);
                last = deliveries.sample(ms(base, step * 10), 20_000, false);
            }
        }
        let rate = last.unwrap().rate.unwrap();
        assert!((85_000.0..=95_000.0).contains(&rate), "{rate}");
    }

    #[test]
    fn a_pause_is_not_counted_and_is_no_limit_of_the_path() {
        let (base, mut deliveries) = (Instant::now(), Deliveries::new());
        deliveries.depart(base);
        deliveries.acknowledge(ms(base, 50), base, 1_000);
        assert!(deliveries.sample(ms(base, 50), 0, true).is_some());
        // A minute later.
        deliveries.depart(ms(base, 60_000));
        deliveries.acknowledge(ms(base, 60_050), ms(base, 60_000), 1_000);
        let sample = deliveries.sample(ms(base, 60_050), 0, true).unwrap();
        assert!(sample.app_limited);
        assert!((sample.rate.unwrap() - 20_000.0).abs() < 1.0, "{sample:?}");
    }

    #[test]
    fn what_was_never_seen_to_leave_gives_no_sample() {
        let (base, mut deliveries) = (Instant::now(), Deliveries::new());
        deliveries.acknowledge(ms(base, 1), base, 1_000);
        assert_eq!(deliveries.sample(ms(base, 1), 0, false), None);
        assert_eq!(deliveries.delivered(), 1_000);
    }

    #[test]
    fn memory_is_bounded() {
        let (base, mut deliveries) = (Instant::now(), Deliveries::new());
        for step in 0..3 * DEPARTURES_MAX as u64 {
            deliveries.depart(base + Duration::from_micros(step));
        }
        assert_eq!(deliveries.departures.len(), DEPARTURES_MAX);
    }
}
