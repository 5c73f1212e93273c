//! What link to emulate: the specification, its text form and the presets.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::parse::{BYTES, PERCENT, RATE, TIME, print_scaled, scaled};

/// The largest IP packet the emulated link carries, in bytes.
pub const MTU: u16 = 1500;
/// The smallest queue a link may have, in bytes; `queue=bdp` is never smaller either.
pub const MIN_QUEUE: u64 = 10 * MTU as u64;
const MAX_QUEUE: u64 = 1 << 30;
const MIN_RATE: u64 = 8_000;
const MAX_RATE: u64 = 10_000_000_000;
const MAX_RTT: Duration = Duration::from_secs(10);

const KEYS: &str = "rtt, rate, loss, jitter, reorder, queue, seed";
const PRESETS: &str = "loop, w0, w1, w2";

/// Why a link specification was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// An item that is neither a preset nor `key=value`.
    #[error(
        "link: `{0}` is neither a preset ({PRESETS}; only as the first item) nor KEY=VALUE with one of the keys {KEYS}"
    )]
    NotAnItem(String),
    /// `loop` with anything beside it.
    #[error("link: `loop` means no emulation and takes no further settings, but `{0}` follows it")]
    LoopWith(String),
    /// `loop` where an emulated link is required.
    #[error(
        "link: `loop` is not an emulated link; use a preset (w0, w1, w2) or at least rtt=... and rate=..."
    )]
    NotEmulated,
    /// A key this version does not know.
    #[error("link: unknown key `{0}`; accepted are {KEYS}")]
    UnknownKey(String),
    /// A key given twice.
    #[error("link: key `{0}` is given twice")]
    Repeated(&'static str),
    /// A key that has no default is missing.
    #[error("link: key `{0}` is missing; a link that starts from no preset (w0, w1, w2) needs rtt and rate")]
    Missing(&'static str),
    /// A value that cannot be read or is out of range.
    #[error("link: bad value `{value}` for key `{key}`; accepted: {accepted}")]
    BadValue {
        /// The key.
        key: &'static str,
        /// The value as given.
        value: String,
        /// What would have been accepted.
        accepted: &'static str,
    },
}

/// A fraction of packets, in parts per 10^9.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Fraction(u32);

impl Fraction {
    /// No packet.
    pub const ZERO: Fraction = Fraction(0);
    /// The number that stands for every packet.
    pub(super) const WHOLE: u32 = 1_000_000_000;

    /// `n` packets in a million.
    ///
    /// # Panics
    /// When `n` is above one million.
    #[must_use]
    pub const fn per_million(n: u32) -> Fraction {
        assert!(n <= 1_000_000, "a fraction is at most 100 %");
        Fraction(n * 1000)
    }

    /// The fraction in parts per 10^9.
    #[must_use]
    pub fn parts_per_billion(self) -> u32 {
        self.0
    }

    /// The fraction as a number from 0 to 1.
    #[must_use]
    pub fn as_f64(self) -> f64 {
        f64::from(self.0) / f64::from(Self::WHOLE)
    }
}

/// How much a direction may hold back before it drops packets that arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queue {
    /// One bandwidth-delay product of the link: `rate * rtt`, at least [`MIN_QUEUE`].
    Bdp,
    /// That many bytes.
    Bytes(u64),
}

/// A link to emulate: the same in both directions.
///
/// The text form is `rtt=80ms,rate=200mbit,loss=0.1%,jitter=5ms,reorder=1%,queue=bdp,seed=1`, where only `rtt`
/// and `rate` are required, or a preset (`w0`, `w1`, `w2`) with optional settings after it that replace the
/// preset's (`w0,loss=1%`). [`fmt::Display`] prints the canonical form, without the settings that are at
/// their default; it reads back as the same value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct LinkSpec {
    /// Round-trip propagation delay; each direction takes half. At most 10 s.
    pub rtt: Duration,
    /// Rate of each direction in bits per second, counted over whole IP packets. 8 kbit/s to 10 Gbit/s.
    pub rate: u64,
    /// Fraction of the packets of each direction that vanish on the wire, each independently.
    pub loss: Fraction,
    /// How far each direction's propagation delay wanders to either side of `rtt / 2`; at most `rtt / 2`.
    pub jitter: Duration,
    /// Fraction of the packets of each direction that arrive early, ahead of packets sent before them.
    pub reorder: Fraction,
    /// Size of each direction's drop-tail queue.
    pub queue: Queue,
    /// Seed of every random decision.
    pub seed: u64,
}

impl LinkSpec {
    /// Seed used when none is given.
    pub const DEFAULT_SEED: u64 = 1;
    /// Preset `w0`: 80 ms, 200 Mbit/s, no loss.
    pub const W0: LinkSpec = LinkSpec::new(Duration::from_millis(80), 200_000_000);
    /// Preset `w1`: `w0` with 0.1 % loss.
    pub const W1: LinkSpec = LinkSpec {
        loss: Fraction::per_million(1_000),
        ..LinkSpec::W0
    };
    /// Preset `w2`: 200 ms, 100 Mbit/s, 1 % loss.
    pub const W2: LinkSpec = LinkSpec {
        loss: Fraction::per_million(10_000),
        ..LinkSpec::new(Duration::from_millis(200), 100_000_000)
    };

    /// A link without loss, jitter and reordering, with a queue of one bandwidth-delay product.
    ///
    /// `rate` is in bits per second.
    #[must_use]
    pub const fn new(rtt: Duration, rate: u64) -> LinkSpec {
        LinkSpec {
            rtt,
            rate,
            loss: Fraction::ZERO,
            jitter: Duration::ZERO,
            reorder: Fraction::ZERO,
            queue: Queue::Bdp,
            seed: LinkSpec::DEFAULT_SEED,
        }
    }

    /// The bandwidth-delay product in bytes: how much is under way when the link is just full.
    #[must_use]
    pub fn bdp_bytes(&self) -> u64 {
        u64::try_from(u128::from(self.rate) * self.rtt.as_nanos() / 8_000_000_000).unwrap_or(u64::MAX)
    }

    /// The size of each direction's queue in bytes.
    #[must_use]
    pub fn queue_bytes(&self) -> u64 {
        match self.queue {
            Queue::Bdp => self.bdp_bytes().max(MIN_QUEUE),
            Queue::Bytes(bytes) => bytes,
        }
    }

    /// The first setting that is out of range, with what is accepted for it.
    fn out_of_range(&self) -> Option<(&'static str, String, &'static str)> {
        let time = |duration: Duration| {
            let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
            print_scaled(nanos, TIME)
        };
        if self.rtt > MAX_RTT {
            return Some(("rtt", time(self.rtt), RTT_ACCEPTS));
        }
        if !(MIN_RATE..=MAX_RATE).contains(&self.rate) {
            return Some(("rate", print_scaled(self.rate, RATE), RATE_ACCEPTS));
        }
        if self.jitter > self.rtt / 2 {
            return Some(("jitter", time(self.jitter), JITTER_ACCEPTS));
        }
        match self.queue {
            Queue::Bytes(bytes) if !(MIN_QUEUE..=MAX_QUEUE).contains(&bytes) => {
                Some(("queue", bytes.to_string(), QUEUE_ACCEPTS))
            }
            _ => None,
        }
    }

    /// Whether every setting is in the range its field states.
    ///
    /// # Errors
    /// [`SpecError::BadValue`] naming the first setting that is not.
    pub fn validate(&self) -> Result<(), SpecError> {
        self.out_of_range().map_or(Ok(()), |(key, value, accepted)| {
            Err(SpecError::BadValue { key, value, accepted })
        })
    }
}

const RTT_ACCEPTS: &str = "a time from 0ms to 10s with one of the units us, ms, s (e.g. 80ms)";
const RATE_ACCEPTS: &str =
    "a rate from 8kbit to 10gbit with one of the units kbit, mbit, gbit (e.g. 200mbit)";
const FRACTION_ACCEPTS: &str = "a percentage from 0% to 100%, with at most 7 decimals (e.g. 0.1%)";
const JITTER_ACCEPTS: &str = "a time from 0ms to half the rtt with one of the units us, ms, s (e.g. 5ms)";
const QUEUE_ACCEPTS: &str =
    "bdp, or a size from 15000 bytes to 1 GiB as plain bytes or with one of the units kB, MB, KiB, MiB";
const SEED_ACCEPTS: &str = "a whole number from 0 to 18446744073709551615";

impl fmt::Display for LinkSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time =
            |duration: Duration| print_scaled(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX), TIME);
        write!(f, "rtt={},rate={}", time(self.rtt), print_scaled(self.rate, RATE))?;
        if self.loss != Fraction::ZERO {
            write!(f, ",loss={}", self.loss)?;
        }
        if !self.jitter.is_zero() {
            write!(f, ",jitter={}", time(self.jitter))?;
        }
        if self.reorder != Fraction::ZERO {
            write!(f, ",reorder={}", self.reorder)?;
        }
        if let Queue::Bytes(bytes) = self.queue {
            write!(f, ",queue={bytes}")?;
        }
        if self.seed != LinkSpec::DEFAULT_SEED {
            write!(f, ",seed={}", self.seed)?;
        }
        Ok(())
    }
}

impl fmt::Display for Fraction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&print_scaled(u64::from(self.0), PERCENT))
    }
}

impl FromStr for LinkSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<LinkSpec, SpecError> {
        let mut items = text.split(',').map(str::trim).peekable();
        let preset = match items.peek().copied() {
            Some("w0") => Some(LinkSpec::W0),
            Some("w1") => Some(LinkSpec::W1),
            Some("w2") => Some(LinkSpec::W2),
            Some("loop") => return Err(SpecError::NotEmulated),
            _ => None,
        };
        if preset.is_some() {
            items.next();
        }
        let mut spec = preset.unwrap_or(LinkSpec::new(Duration::ZERO, MIN_RATE));
        let mut seen: Vec<(&'static str, &str)> = Vec::new();
        for item in items {
            let (key, value) = item
                .split_once('=')
                .ok_or_else(|| SpecError::NotAnItem(item.to_owned()))?;
            let key = spec.set(key, value)?;
            if seen.iter().any(|(earlier, _)| *earlier == key) {
                return Err(SpecError::Repeated(key));
            }
            seen.push((key, value));
        }
        for required in ["rtt", "rate"] {
            if preset.is_none() && seen.iter().all(|(key, _)| *key != required) {
                return Err(SpecError::Missing(required));
            }
        }
        // Ranges are checked last, as jitter depends on rtt, but reported with the value as it was written.
        if let Some((key, printed, accepted)) = spec.out_of_range() {
            let given = seen.iter().find(|(seen, _)| *seen == key);
            let value = given.map_or(printed, |(_, value)| (*value).to_owned());
            return Err(SpecError::BadValue { key, value, accepted });
        }
        Ok(spec)
    }
}

impl LinkSpec {
    /// Sets one key; returns its name.
    fn set(&mut self, key: &str, value: &str) -> Result<&'static str, SpecError> {
        let bad = |key, accepted| SpecError::BadValue {
            key,
            value: value.to_owned(),
            accepted,
        };
        let fraction = |key| {
            let parts = scaled(value, PERCENT).and_then(|parts| u32::try_from(parts).ok());
            let parts = parts.filter(|parts| *parts <= Fraction::WHOLE);
            parts.map(Fraction).ok_or_else(|| bad(key, FRACTION_ACCEPTS))
        };
        let time = |key, accepted| {
            scaled(value, TIME)
                .map(Duration::from_nanos)
                .ok_or_else(|| bad(key, accepted))
        };
        Ok(match key {
            "rtt" => {
                self.rtt = time("rtt", RTT_ACCEPTS)?;
                "rtt"
            }
            "rate" => {
                self.rate = scaled(value, RATE).ok_or_else(|| bad("rate", RATE_ACCEPTS))?;
                "rate"
            }
            "loss" => {
                self.loss = fraction("loss")?;
                "loss"
            }
            "jitter" => {
                self.jitter = time("jitter", JITTER_ACCEPTS)?;
                "jitter"
            }
            "reorder" => {
                self.reorder = fraction("reorder")?;
                "reorder"
            }
            "queue" => {
                self.queue = match value {
                    "bdp" => Queue::Bdp,
                    _ => Queue::Bytes(scaled(value, BYTES).ok_or_else(|| bad("queue", QUEUE_ACCEPTS))?),
                };
                "queue"
            }
            "seed" => {
                // `u64::from_str` also takes a leading `+`.
                let digits = value.bytes().all(|byte| byte.is_ascii_digit());
                let seed = value.parse().ok().filter(|_| digits);
                self.seed = seed.ok_or_else(|| bad("seed", SEED_ACCEPTS))?;
                "seed"
            }
            _ => return Err(SpecError::UnknownKey(key.to_owned())),
        })
    }
}

impl From<LinkSpec> for String {
    fn from(spec: LinkSpec) -> String {
        spec.to_string()
    }
}

impl TryFrom<String> for LinkSpec {
    type Error = SpecError;

    fn try_from(text: String) -> Result<LinkSpec, SpecError> {
        text.parse()
    }
}

/// What the bench runs over: an emulated link, or nothing in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Link {
    /// `loop`: no emulation; both sides share the loopback interface of this machine.
    Loop,
    /// An emulated wide-area link.
    Wan(LinkSpec),
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Link::Loop => f.write_str("loop"),
            Link::Wan(spec) => spec.fmt(f),
        }
    }
}

impl FromStr for Link {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Link, SpecError> {
        match text.split_once(',') {
            None if text.trim() == "loop" => Ok(Link::Loop),
            Some((first, rest)) if first.trim() == "loop" => Err(SpecError::LoopWith(rest.to_owned())),
            _ => text.parse().map(Link::Wan),
        }
    }
}

impl From<LinkSpec> for Link {
    fn from(spec: LinkSpec) -> Link {
        Link::Wan(spec)
    }
}

impl From<Link> for String {
    fn from(link: Link) -> String {
        link.to_string()
    }
}

impl TryFrom<String> for Link {
    type Error = SpecError;

    fn try_from(text: String) -> Result<Link, SpecError> {
        text.parse()
    }
}
