//! One direction of an emulated link as a pure scheduler: time comes in as an argument, there is no clock.
//!
//! What happens to a packet, in this order:
//!
//! 1. *Queue.* The bytes that earlier packets still have to put on the line are the backlog. A packet that
//!    would raise the backlog above the queue size is dropped (drop-tail).
//! 2. *Rate.* The packet starts when the line is free and occupies it for `bytes * 8 / rate`, without any
//!    rounding that could add up: the part of a nanosecond left over is carried to the next packet.
//! 3. *Loss.* A lost packet vanishes after it has used the line, as on a real path behind its bottleneck.
//! 4. *Delay.* `rtt / 2` plus the jitter of the moment of departure. The jitter is a random line: a point
//!    drawn evenly from `-jitter..=+jitter` for every `4 * jitter` of time (at least 1 ms), joined by
//!    straight segments. It therefore never falls faster than time passes, so jitter alone keeps packets in
//!    order and leaves the mean delay as it is.
//! 5. *Reordering.* The chosen fraction of packets arrives [`EARLY`] (or the jitter, when that is longer)
//!    sooner, but not before it has left the line, and so ahead of the packets sent shortly before it.
//!
//! Each random decision has its own generator, advanced once for every packet that arrives. So the n-th packet
//! of a direction meets the same fate for the same seed, whatever the other settings are and whether or not
//! packets before it found the queue full.

use std::collections::VecDeque;
use std::time::Duration;

use super::counters::Counters;
use super::spec::{Fraction, LinkSpec};

/// How much sooner a reordered packet arrives, unless the jitter is longer.
pub const EARLY: Duration = Duration::from_millis(1);
/// Shortest stretch of time between two points of the jitter line, in nanoseconds.
const MIN_JITTER_PERIOD: u64 = 1_000_000;
/// A packet is counted as late when it leaves the emulator this many nanoseconds after it was due.
const LATE: u64 = 1_000_000;
const NANOS: u64 = 1_000_000_000;

/// Which way a direction runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// From side A to side B.
    AToB,
    /// From side B to side A.
    BToA,
}

/// What became of a packet handed to [`Direction::push`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is under way and will be delivered.
    Accepted,
    /// It used the line and was then lost.
    Lost,
    /// The queue was full.
    QueueFull,
}

#[derive(Debug)]
struct UnderWay<T> {
    due: u64,
    bytes: u64,
    payload: T,
}

/// One direction of a link. `T` is the packet; all times are nanoseconds since any fixed moment.
#[derive(Debug)]
pub struct Direction<T> {
    rate: u64,
    queue: u64,
    delay: u64,
    jitter: u64,
    jitter_period: u64,
    early_by: u64,
    loss: Fraction,
    reorder: Fraction,
    loss_draws: SplitMix,
    reorder_draws: SplitMix,
    jitter_seed: u64,
    /// The latest time seen; time never runs backwards in here.
    now: u64,
    /// When the line has sent everything accepted so far, rounded down to a nanosecond...
    line_free: u64,
    /// ...and the rest, in units of 1/rate nanoseconds.
    line_rest: u64,
    /// Packets that keep their order. Their due times never decrease, and neither do those of `early`: two
    /// queues are a complete timer here, without a heap.
    in_order: VecDeque<UnderWay<T>>,
    early: VecDeque<UnderWay<T>>,
    counters: Counters,
}

impl<T> Direction<T> {
    /// The direction `flow` of the link `spec`.
    #[must_use]
    pub fn new(spec: &LinkSpec, flow: Flow) -> Direction<T> {
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 8);
        let jitter = nanos(spec.jitter.min(spec.rtt / 2));
        let mut seeds = SplitMix(
            spec.seed
                .wrapping_mul(2)
                .wrapping_add(u64::from(flow == Flow::BToA)),
        );
        Direction {
            rate: spec.rate.max(1),
            queue: spec.queue_bytes(),
            delay: nanos(spec.rtt / 2),
            jitter,
            jitter_period: (4 * jitter).max(MIN_JITTER_PERIOD),
            early_by: jitter.max(nanos(EARLY)),
            loss: spec.loss,
            reorder: spec.reorder,
            loss_draws: SplitMix(seeds.next()),
            reorder_draws: SplitMix(seeds.next()),
            jitter_seed: seeds.next(),
            now: 0,
            line_free: 0,
            line_rest: 0,
            in_order: VecDeque::new(),
            early: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    /// Takes a packet of `bytes` bytes that arrives at `now` nanoseconds.
    pub fn push(&mut self, now: u64, bytes: usize, payload: T) -> Verdict {
        self.now = self.now.max(now);
        let bytes = bytes as u64;
        self.counters.packets_in += 1;
        self.counters.bytes_in += bytes;
        let lost = self.loss_draws.hits(self.loss);
        let early = self.reorder_draws.hits(self.reorder);

        let backlog = self.backlog_bytes(self.now) + bytes;
        if backlog > self.queue {
            self.counters.packets_queue_full += 1;
            self.counters.bytes_queue_full += bytes;
            return Verdict::QueueFull;
        }
        self.counters.max_backlog_bytes = self.counters.max_backlog_bytes.max(backlog);

        if self.line_free < self.now {
            (self.line_free, self.line_rest) = (self.now, 0);
        }
        let occupied = bytes * 8 * NANOS + self.line_rest;
        self.line_free += occupied / self.rate;
        self.line_rest = occupied % self.rate;
        if lost {
            self.counters.packets_lost += 1;
            self.counters.bytes_lost += bytes;
            return Verdict::Lost;
        }

        let departs = self.line_free;
        let arrives = (departs + self.delay).saturating_add_signed(self.jitter_at(departs));
        let (queue, due) = if early {
            (
                &mut self.early,
                arrives.saturating_sub(self.early_by).max(departs),
            )
        } else {
            (&mut self.in_order, arrives)
        };
        let due = queue.back().map_or(due, |last| last.due.max(due));
        let mean = departs + self.delay;
        let counters = &mut self.counters;
        counters.max_sooner_nanos = counters.max_sooner_nanos.max(mean.saturating_sub(due));
        counters.max_later_nanos = counters.max_later_nanos.max(due.saturating_sub(mean));
        queue.push_back(UnderWay { due, bytes, payload });
        Verdict::Accepted
    }

    /// When the next packet has to be delivered, in nanoseconds; `None` when nothing is under way.
    #[must_use]
    pub fn next_due(&self) -> Option<u64> {
        let due = |queue: &VecDeque<UnderWay<T>>| queue.front().map(|packet| packet.due);
        due(&self.in_order).into_iter().chain(due(&self.early)).min()
    }

    /// Takes out the next packet due at `now` nanoseconds or before, and counts it as delivered.
    pub fn pop_due(&mut self, now: u64) -> Option<T> {
        let due = self.next_due().filter(|due| *due <= now)?;
        let early_first = self.early.front().is_some_and(|packet| packet.due == due);
        let packet = if early_first {
            self.early.pop_front()
        } else {
            self.in_order.pop_front()
        }?;
        self.counters.packets_delivered += 1;
        self.counters.bytes_delivered += packet.bytes;
        self.counters.packets_late += u64::from(now - due > LATE);
        self.counters.max_late_nanos = self.counters.max_late_nanos.max(now - due);
        Some(packet.payload)
    }

    /// Counts a packet of `bytes` bytes just taken out as not delivered: the receiving side did not take it.
    pub fn refused(&mut self, bytes: usize) {
        self.counters.packets_delivered -= 1;
        self.counters.bytes_delivered -= bytes as u64;
        self.counters.packets_refused += 1;
    }

    /// Bytes accepted before `now` nanoseconds that are not yet on the line, rounded up.
    #[must_use]
    pub fn backlog_bytes(&self, now: u64) -> u64 {
        let ahead = u128::from(self.line_free.saturating_sub(now));
        u64::try_from((ahead * u128::from(self.rate)).div_ceil(8 * u128::from(NANOS))).unwrap_or(u64::MAX)
    }

    /// How many packets are queued, on the line or on their way.
    #[must_use]
    pub fn packets_under_way(&self) -> usize {
        self.in_order.len() + self.early.len()
    }

    /// Counters since the last call; they start at zero again.
    pub fn take_counters(&mut self) -> Counters {
        std::mem::take(&mut self.counters)
    }

    /// Deviation from the mean delay for a packet that leaves the line at `time`, in nanoseconds.
    fn jitter_at(&self, time: u64) -> i64 {
        if self.jitter == 0 {
            return 0;
        }
        let (period, into) = (time / self.jitter_period, time % self.jitter_period);
        let point = |index: u64| {
            let draw = SplitMix(self.jitter_seed ^ index.wrapping_mul(0xD134_2543_DE82_EF95)).next();
            ((u128::from(draw) * (2 * u128::from(self.jitter) + 1)) >> 64) as i128 - i128::from(self.jitter)
        };
        let (from, to) = (point(period), point(period + 1));
        let deviation = from + (to - from) * i128::from(into) / i128::from(self.jitter_period);
        i64::try_from(deviation).unwrap_or(0)
    }
}

/// The SplitMix64 generator: small, and good enough for independent draws.
#[derive(Debug)]
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// True for `fraction` of the draws.
    fn hits(&mut self, fraction: Fraction) -> bool {
        let draw = (u128::from(self.next()) * u128::from(Fraction::WHOLE)) >> 64;
        draw < u128::from(fraction.parts_per_billion())
    }
}
