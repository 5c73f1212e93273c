//! Lets single packets pass a full congestion window, so that a path which came back is noticed soon.
//!
//! When nothing is acknowledged any more, QUIC sends probes at intervals that double (RFC 9002, section 6.2.1): after an
//! outage of five seconds the next one can be six seconds away. The window is full of what was lost, and nothing else may
//! leave. [`Probing`] adds room for one packet each time it is permitted; who permits it, and how often, decides
//! `net::silence`.

use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics};
use quinn_proto::RttEstimator;
use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;
use tokio::sync::Notify;

/// Packets of room that a permit gives: quinn wants to be strictly below the window.
const ROOM_PACKETS: u64 = 2;

/// What the controllers of a connection share with who watches it.
#[derive(Debug, Default)]
pub struct Permit {
    is_given: AtomicBool,
    departed: Notify,
    heard: Notify,
    acknowledged: AtomicU64,
    open: AtomicU64,
    is_full: AtomicBool,
}

impl Permit {
    /// Lets one more packet leave, whatever the window.
    pub fn give(&self) {
        self.is_given.store(true, Ordering::Relaxed);
    }

    /// How often something was acknowledged that was not before.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Bytes that were in flight after the last acknowledgement.
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// Whether the window, at the last acknowledgement, held back something that was there to be sent.
    pub fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }

    /// Notes whether the window holds back something.
    pub fn note_full(&self, is_full: bool) {
        self.is_full.store(is_full, Ordering::Relaxed);
    }

    /// Waits until something is acknowledged, or was since the last time.
    pub async fn heard(&self) {
        self.heard.notified().await;
    }

    /// Waits until something leaves.
    pub async fn departed(&self) {
        self.departed.notified().await;
    }
}

/// Makes controllers that take permits.
pub struct ProbingConfig {
    /// Makes the controllers themselves.
    pub inner: Arc<dyn ControllerFactory + Send + Sync>,
    /// Of this connection.
    pub permit: Arc<Permit>,
}

impl ControllerFactory for ProbingConfig {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Probing {
            inner: self.inner.clone().build(now, current_mtu),
            permit: self.permit.clone(),
            mtu: u64::from(current_mtu),
            in_flight: 0,
        })
    }
}

/// Any controller, with permits.
struct Probing {
    inner: Box<dyn Controller>,
    permit: Arc<Permit>,
    mtu: u64,
    /// Bytes in flight, or a little more: what leaves is counted with its acknowledgements.
    in_flight: u64,
}

impl Controller for Probing {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.in_flight += bytes;
        self.permit.is_given.store(false, Ordering::Relaxed);
        self.permit.departed.notify_one();
        self.inner.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.inner.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest: Option<u64>) {
        self.in_flight = in_flight;
        self.permit.acknowledged.fetch_add(1, Ordering::Relaxed);
        self.permit.open.store(in_flight, Ordering::Relaxed);
        self.permit.note_full(!app_limited);
        self.permit.heard.notify_one();
        self.inner.on_end_acks(now, in_flight, app_limited, largest);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, is_persistent: bool, lost_bytes: u64) {
        self.in_flight = self.in_flight.saturating_sub(lost_bytes);
        self.inner
            .on_congestion_event(now, sent, is_persistent, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.mtu = u64::from(new_mtu);
        self.inner.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        let window = self.inner.window();
        match self.permit.is_given.load(Ordering::Relaxed) {
            true => window.max(self.in_flight + ROOM_PACKETS * self.mtu),
            false => window,
        }
    }

    fn metrics(&self) -> ControllerMetrics {
        self.inner.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Probing {
            inner: self.inner.clone_box(),
            permit: self.permit.clone(),
            ..*self
        })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self.inner.into_any()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quinn::congestion::NewRenoConfig;

    #[test]
    fn a_window_is_full_when_it_holds_something_back() {
        let permit = Arc::new(Permit::default());
        let config = ProbingConfig {
            inner: Arc::new(NewRenoConfig::default()),
            permit: permit.clone(),
        };
        let now = Instant::now();
        let mut controller = Arc::new(config).build(now, 1_200);
        assert!(!permit.is_full());
        controller.on_end_acks(now, 1_200, false, Some(1));
        assert!(permit.is_full());
        controller.on_end_acks(now, 1_200, true, Some(2));
        assert!(!permit.is_full());
    }

    #[test]
    fn a_permit_is_for_one_packet_beyond_what_is_in_flight() {
        let permit = Arc::new(Permit::default());
        let config = ProbingConfig {
            inner: Arc::new(NewRenoConfig::default()),
            permit: permit.clone(),
        };
        let now = Instant::now();
        let mut controller = Arc::new(config).build(now, 1_200);
        let window = controller.window();
        controller.on_sent(now, window + 5_000, 1);
        permit.give();
        assert_eq!(controller.window(), window + 5_000 + 2_400);
        controller.on_sent(now, 1_200, 2);
        assert_eq!(controller.window(), window);
        // A window with room needs no permit.
        controller.on_end_acks(now, 0, false, Some(2));
        permit.give();
        assert_eq!(controller.window(), window);
    }
}
