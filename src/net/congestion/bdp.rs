//! `bdp`: a congestion controller that keeps about one bandwidth-delay product in flight.
//!
//! It models the path as BBR does (Cardwell et al., "BBR: Congestion-Based Congestion Control", ACM Queue 2016; losses
//! as in draft-ietf-ccwg-bbr): the highest delivery rate and the lowest round trip of the last two cycles. Unlike BBR it
//! does not pace at its rate, because quinn's pacer is a function of the window (1.25 windows a smoothed round trip).
//! The window itself is therefore set near the product, and acknowledgements clock it.
//!
//! - **Startup** doubles the window each round trip, as slow start does, but never goes beyond [`STARTUP_GAIN`] times the
//!   product measured so far, and ends as soon as the round trip grows (HyStart++, RFC 9406), the rate does not, or
//!   losses exceed what random loss explains: before the queue overflows, not because it did.
//! - **Cruise** holds the product and a little more.
//! - **Up** adds a quarter for two round trips, every eight or so, to find out whether there is more; if there is, startup
//!   continues from there. **Down** goes below the product for a round trip: our own queue drains, and the round trip
//!   without it shows. A queue that others fill remains and counts as part of the path, or they would push us aside.
//!
//! Random loss changes nothing. Losses beyond that ([`is_excess`]) hold the window down until the path has shown
//! to take more again.

use super::INITIAL_WINDOW;
use super::PathMemory;
use super::delivery::{Deliveries, Sample};
use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics};
use quinn_proto::RttEstimator;
use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Growth of the window in startup, of the product measured so far. Doubling takes 2; pacing and late
/// acknowledgements take some more.
const STARTUP_GAIN: f64 = 2.3;
/// Below [`SMALL_WINDOW`] the window is tripled, since what may be too much is little.
const STARTUP_GAIN_SMALL: f64 = 3.5;
const SMALL_WINDOW: u64 = 768 << 10;
/// Startup goes on as long as the rate grows by this factor in [`PLATEAU_ROUNDS`] rounds.
const GROWTH: f64 = 1.25;
const PLATEAU_ROUNDS: u32 = 2;
/// Samples of the round trip that a round needs before startup may end because of them.
const DELAY_SAMPLES: usize = 8;
/// A round trip longer by an eighth means a queue, within these bounds (RFC 9406, section 4.2).
const DELAY_LEAST: Duration = Duration::from_millis(4);
const DELAY_MOST: Duration = Duration::from_millis(16);
/// What is added to the product in cruise: what is under way while acknowledgements are late.
const CRUISE_GAIN: f64 = 1.05;
const CRUISE_SLACK: Duration = Duration::from_millis(2);
const CRUISE_PACKETS: u64 = 10;
const CRUISE_ROUNDS: u32 = 6;
const UP_GAIN_MOST: f64 = 1.25;
const UP_GAIN_LEAST: f64 = 1.05;
const UP_ROUNDS: u32 = 2;
/// More growth than this in a round of probing, and startup goes on.
const UP_GROWTH: f64 = 1.12;
const DOWN_GAIN: f64 = 0.9;
/// The window after losses that random loss does not explain.
const LOSS_GAIN: f64 = 0.85;
/// Random loss that is nobody's queue.
const RANDOM_LOSS: f64 = 0.02;
/// What quinn's pacer multiplies the window by.
const PACER_GAIN: f64 = 1.25;
const MIN_PACKETS: u64 = 4;

/// Makes the controllers of a connection's paths.
#[derive(Debug, Clone, Default)]
pub struct BdpConfig {
    /// What an earlier connection found.
    pub remembered: Option<PathMemory>,
}

impl ControllerFactory for BdpConfig {
    fn build(self: Arc<Self>, _now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Bdp::new(current_mtu, self.remembered))
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    /// `best` is the rate when it last grew, `plateau` the rounds since.
    Startup {
        best: f64,
        plateau: u32,
    },
    Cruise {
        rounds: u32,
    },
    /// `before` is the rate when it began.
    Up {
        rounds: u32,
        before: f64,
    },
    Down {
        drained: bool,
    },
}

/// The highest or lowest of the present and the last cycle.
#[derive(Debug, Clone, Copy, Default)]
struct Cycles<T> {
    last: Option<T>,
    present: Option<T>,
}

impl<T: PartialOrd + Copy> Cycles<T> {
    fn highest(self) -> Option<T> {
        match (self.last, self.present) {
            (Some(last), Some(present)) => Some(if last > present { last } else { present }),
            (last, present) => last.or(present),
        }
    }

    fn lowest(self) -> Option<T> {
        match (self.last, self.present) {
            (Some(last), Some(present)) => Some(if last < present { last } else { present }),
            (last, present) => last.or(present),
        }
    }

    /// A cycle without any value keeps those it has.
    fn turn(&mut self) {
        if self.present.is_some() {
            (self.last, self.present) = (self.present, None);
        }
    }
}

/// What was seen in a round trip.
#[derive(Debug, Clone, Copy, Default)]
struct Round {
    /// It ends when a packet is acknowledged that left when this much had been delivered.
    ends_at: u64,
    acked: u64,
    lost: u64,
    app_limited: bool,
}

/// The controller of one path.
#[derive(Debug, Clone)]
pub struct Bdp {
    mtu: u64,
    window: u64,
    phase: Phase,
    deliveries: Deliveries,
    round: Round,
    /// Bytes per second.
    rate: Cycles<f64>,
    round_trip: Cycles<Duration>,
    up_gain: f64,
    /// Set by losses.
    ceiling: Option<u64>,
    /// Losses of packets that left before this were answered.
    answered: Option<Instant>,
    last_sent: Option<Instant>,
    /// Until the first round trip shows whether it is still true.
    remembered: Option<PathMemory>,
    /// As quinn's pacer knows it.
    smoothed: Duration,
    /// The last round trips, in a ring.
    recent: [Duration; DELAY_SAMPLES],
    recent_at: usize,
}

impl Bdp {
    /// A path of which nothing is known but what is `remembered`.
    pub fn new(mtu: u16, remembered: Option<PathMemory>) -> Bdp {
        Bdp {
            mtu: u64::from(mtu),
            window: INITIAL_WINDOW,
            phase: Phase::Startup {
                best: 0.0,
                plateau: 0,
            },
            deliveries: Deliveries::new(),
            round: Round::default(),
            rate: Cycles::default(),
            round_trip: Cycles::default(),
            up_gain: UP_GAIN_MOST,
            ceiling: None,
            answered: None,
            last_sent: None,
            remembered,
            smoothed: Duration::ZERO,
            recent: [Duration::ZERO; DELAY_SAMPLES],
            recent_at: 0,
        }
    }

    /// Bytes that fill the path, as far as it is known.
    fn product(&self) -> Option<f64> {
        Some(self.rate.highest()? * self.round_trip.lowest()?.as_secs_f64())
    }

    /// What the next connection may make use of. A window that was never filled says nothing.
    pub fn memory(&self) -> Option<PathMemory> {
        let is_known = self.product()? > INITIAL_WINDOW as f64;
        is_known.then_some(PathMemory {
            rate: self.rate.highest()? as u64,
            round_trip: self.round_trip.lowest()?,
        })
    }

    fn at_least(&self, window: f64) -> u64 {
        (window as u64).max(MIN_PACKETS * self.mtu)
    }

    fn cruise_window(&self) -> Option<f64> {
        let slack = self.rate.highest()? * CRUISE_SLACK.as_secs_f64() + (CRUISE_PACKETS * self.mtu) as f64;
        Some(self.product()? * CRUISE_GAIN + slack)
    }

    fn learn(&mut self, sample: &Sample) {
        if let Some(rate) = sample.rate
            && (!sample.app_limited || self.rate.highest().is_none_or(|highest| rate > highest))
            && self.rate.present.is_none_or(|present| rate > present)
        {
            self.rate.present = Some(rate);
        }
        if self
            .round_trip
            .present
            .is_none_or(|present| sample.round_trip < present)
        {
            self.round_trip.present = Some(sample.round_trip);
        }
        self.recent[self.recent_at] = sample.round_trip;
        self.recent_at = (self.recent_at + 1) % self.recent.len();
        self.round.acked += sample.acked;
        self.round.app_limited |= sample.app_limited;
    }

    fn on_sample(&mut self, sample: &Sample, in_flight: u64, app_limited: bool) {
        self.learn(sample);
        if let Some(window) = self
            .remembered
            .take()
            .and_then(|path| path.window(sample.round_trip))
        {
            self.window = self.window.max(window);
        }
        if matches!(self.phase, Phase::Startup { .. }) && self.is_queue_growing() {
            self.enter_down();
        }
        if sample.delivered_before >= self.round.ends_at {
            self.end_round();
            self.round = Round {
                ends_at: self.deliveries.delivered(),
                ..Round::default()
            };
        }
        self.set_window(sample.acked, app_limited);
        let low = self
            .product()
            .map(|product| self.below_ceiling(product) * DOWN_GAIN);
        if let Phase::Down { drained } = &mut self.phase {
            *drained |= low.is_none_or(|low| in_flight <= self.mtu + low as u64);
        }
    }

    /// HyStart++: the lowest round trip of this round is above that of the path.
    fn is_queue_growing(&self) -> bool {
        let (Some(base), Some(lowest)) = (self.round_trip.lowest(), self.recent.iter().min()) else {
            return false;
        };
        *lowest >= base + (base / 8).clamp(DELAY_LEAST, DELAY_MOST)
    }

    fn end_round(&mut self) {
        let rate = self.rate.highest().unwrap_or(0.0);
        match self.phase {
            Phase::Startup { best, .. } if rate >= best * GROWTH => {
                self.phase = Phase::Startup {
                    best: rate,
                    plateau: 0,
                };
            }
            Phase::Startup { .. } if self.round.app_limited => {}
            Phase::Startup { best, plateau } if plateau + 1 < PLATEAU_ROUNDS => {
                self.phase = Phase::Startup {
                    best,
                    plateau: plateau + 1,
                };
            }
            Phase::Startup { .. } => self.enter_down(),
            // Without anything to send there is nothing to find out.
            Phase::Cruise { .. } if self.round.app_limited => {}
            Phase::Cruise { rounds } if rounds > 1 => self.phase = Phase::Cruise { rounds: rounds - 1 },
            Phase::Cruise { .. } => {
                self.phase = Phase::Up {
                    rounds: UP_ROUNDS,
                    before: rate,
                }
            }
            Phase::Up { before, .. } if rate >= before * UP_GROWTH => {
                self.ceiling = None;
                self.phase = Phase::Startup {
                    best: rate,
                    plateau: 0,
                };
            }
            Phase::Up { rounds, before } if rounds > 1 => {
                self.phase = Phase::Up {
                    rounds: rounds - 1,
                    before,
                };
            }
            Phase::Up { .. } => {
                self.up_gain = (self.up_gain + 0.05).min(UP_GAIN_MOST);
                self.raise_ceiling();
                self.enter_down();
            }
            Phase::Down { drained: false } => {}
            Phase::Down { drained: true } => {
                self.rate.turn();
                self.round_trip.turn();
                // Not all flows of a line at the same time.
                let rounds = CRUISE_ROUNDS + (self.deliveries.delivered() / self.mtu % 3) as u32;
                self.phase = Phase::Cruise { rounds };
            }
        }
    }

    fn enter_down(&mut self) {
        self.answered = self.last_sent;
        self.phase = Phase::Down { drained: false };
    }

    fn raise_ceiling(&mut self) {
        let raised = self.ceiling.map(|ceiling| (ceiling as f64 * self.up_gain) as u64);
        let wanted = self.cruise_window().map_or(u64::MAX, |window| window as u64);
        self.ceiling = raised.filter(|&raised| raised < wanted);
    }

    fn set_window(&mut self, acked: u64, app_limited: bool) {
        let (Some(product), Some(cruise)) = (self.product(), self.cruise_window()) else {
            if !app_limited {
                self.window += acked;
            }
            return;
        };
        let wanted = match self.phase {
            Phase::Startup { .. } if app_limited => return,
            Phase::Startup { .. } => {
                let (growth, gain) = match self.window < SMALL_WINDOW {
                    true => (2 * acked, STARTUP_GAIN_SMALL),
                    false => (acked, STARTUP_GAIN),
                };
                let most = (product * gain).max(INITIAL_WINDOW as f64);
                self.window = self.window.max(((self.window + growth) as f64).min(most) as u64);
                return;
            }
            Phase::Cruise { .. } => self.below_ceiling(cruise),
            Phase::Up { .. } => self.below_ceiling(cruise) * self.up_gain,
            Phase::Down { .. } => self.below_ceiling(product) * DOWN_GAIN.max(self.pacing_share()),
        };
        self.window = self.at_least(wanted);
    }

    /// The share of the product at which quinn's pacer, which divides by the smoothed round trip, still sends at the
    /// rate of the path. Below it the line would run dry while a long queue drains.
    fn pacing_share(&self) -> f64 {
        let base = self.round_trip.lowest().unwrap_or(self.smoothed);
        self.smoothed.as_secs_f64() / base.as_secs_f64().max(1e-9) / PACER_GAIN
    }

    fn below_ceiling(&self, window: f64) -> f64 {
        self.ceiling.map_or(window, |ceiling| window.min(ceiling as f64))
    }

    fn on_loss(&mut self, sent: Instant, lost: u64, marked: bool) {
        self.round.lost += lost;
        if self.answered.is_some_and(|answered| sent <= answered) {
            return;
        }
        let packets = (self.round.acked + self.round.lost).max(self.window) / self.mtu;
        if !marked && !is_excess(self.round.lost / self.mtu, packets) {
            return;
        }
        match self.phase {
            Phase::Startup { .. } => {}
            Phase::Up { .. } => self.up_gain = (1.0 + (self.up_gain - 1.0) / 2.0).max(UP_GAIN_LEAST),
            Phase::Cruise { .. } | Phase::Down { .. } => {
                self.ceiling = Some(self.at_least(self.window as f64 * LOSS_GAIN));
            }
        }
        self.enter_down();
        self.set_window(0, false);
    }

    fn start_again(&mut self) {
        self.window = MIN_PACKETS * self.mtu;
        self.phase = Phase::Startup {
            best: 0.0,
            plateau: 0,
        };
        (self.rate, self.round_trip, self.ceiling) = (Cycles::default(), Cycles::default(), None);
    }
}

/// Whether so many losses among so many packets are more than random loss brings: more than three standard deviations
/// above [`RANDOM_LOSS`], and two.
fn is_excess(lost: u64, packets: u64) -> bool {
    let expected = packets as f64 * RANDOM_LOSS;
    lost as f64 > expected + 3.0 * expected.sqrt() + 2.0
}

impl Controller for Bdp {
    fn on_sent(&mut self, now: Instant, _bytes: u64, _last_packet_number: u64) {
        self.deliveries.depart(now);
        self.last_sent = Some(now);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, _app_limited: bool, rtt: &RttEstimator) {
        self.smoothed = rtt.get();
        self.deliveries.acknowledge(now, sent, bytes);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, _largest: Option<u64>) {
        if let Some(sample) = self.deliveries.sample(now, in_flight, app_limited) {
            self.on_sample(&sample, in_flight, app_limited);
        }
    }

    fn on_congestion_event(&mut self, _now: Instant, sent: Instant, is_persistent: bool, lost_bytes: u64) {
        if is_persistent {
            self.start_again();
        } else {
            self.on_loss(sent, lost_bytes, lost_bytes == 0);
        }
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.mtu = u64::from(new_mtu);
        self.window = self.window.max(MIN_PACKETS * self.mtu);
    }

    fn window(&self) -> u64 {
        self.window
    }

    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = ControllerMetrics::default();
        metrics.congestion_window = self.window;
        metrics.pacing_rate = self.rate.highest().map(|rate| (rate * 8.0) as u64);
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        INITIAL_WINDOW
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
