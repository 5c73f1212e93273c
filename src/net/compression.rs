//! How hard to compress.
//!
//! With `auto` the level follows the queue towards the network: one that is full means that the network is slower than
//! this processor, so a higher level costs no time; one that is empty means the opposite.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

/// Levels of zstd that `auto` chooses from: from 400 MB/s a core to 50 MB/s on program text.
const LADDER: [i32; 7] = [-5, -1, 1, 3, 5, 7, 9];
/// Where it begins: the step of level 3.
const FIRST_STEP: usize = 3;
/// So many times in a row the queue has to be full, or empty, before the level changes.
const PATIENCE: i32 = 8;
/// The least that zstd can do where the wire has its format in any case.
const LEAST_LEVEL: i32 = -50;
/// The highest level that needs no window above what receivers accept.
const LEVEL_MAX: i32 = 19;

/// What the user wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// As much as the network leaves time for.
    #[default]
    Auto,
    /// None.
    Off,
    /// Always this level of zstd, 1 to 19.
    Level(i32),
}

impl Compression {
    /// The level of what is compressed once, where the wire has zstd's format whatever is wanted.
    pub fn framing_level(self) -> i32 {
        self.usual_level().unwrap_or(LEAST_LEVEL)
    }

    /// The level to begin with; none for `off`.
    fn usual_level(self) -> Option<i32> {
        match self {
            Compression::Auto => Some(LADDER[FIRST_STEP]),
            Compression::Off => None,
            Compression::Level(level) => Some(level),
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Compression::Auto => f.write_str("auto"),
            Compression::Off => f.write_str("off"),
            Compression::Level(level) => write!(f, "{level}"),
        }
    }
}

impl FromStr for Compression {
    type Err = String;

    fn from_str(text: &str) -> Result<Compression, String> {
        match text {
            "auto" => Ok(Compression::Auto),
            "off" => Ok(Compression::Off),
            _ => match text.parse() {
                Ok(level) if (1..=LEVEL_MAX).contains(&level) => Ok(Compression::Level(level)),
                _ => Err(format!(
                    "{text:?} is not auto, off or a level from 1 to {LEVEL_MAX}"
                )),
            },
        }
    }
}

/// What fills a queue towards the network found there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queue {
    /// No room: whoever fills it waits for the network.
    Full,
    /// Nothing: the network waits.
    Empty,
    /// Something between.
    Partly,
}

impl Queue {
    /// Of what a channel tells.
    pub fn of(room: usize, most: usize) -> Queue {
        match room {
            0 => Queue::Full,
            room if room >= most => Queue::Empty,
            _ => Queue::Partly,
        }
    }
}

/// The level of one queue. Shared by all that fill it.
#[derive(Debug)]
pub struct Steering {
    wanted: Compression,
    step: AtomicUsize,
    /// Above zero: so many times full in a row; below: empty.
    run: AtomicI32,
}

impl Steering {
    /// Begins in the middle.
    pub fn new(wanted: Compression) -> Steering {
        Steering {
            wanted,
            step: AtomicUsize::new(FIRST_STEP),
            run: AtomicI32::new(0),
        }
    }

    /// The present level; none if nothing is to be compressed.
    pub fn level(&self) -> Option<i32> {
        match self.wanted {
            Compression::Auto => LADDER.get(self.step.load(Ordering::Relaxed)).copied(),
            other => other.usual_level(),
        }
    }

    /// The present level where the wire has zstd's format whatever is wanted.
    pub fn framing_level(&self) -> i32 {
        self.level().unwrap_or(LEAST_LEVEL)
    }

    /// Something is about to be queued. Two that tell at once may lose one of their votes, which does no harm.
    pub fn observe(&self, queue: Queue) {
        if self.wanted != Compression::Auto {
            return;
        }
        let run = self.run.load(Ordering::Relaxed);
        let run = match queue {
            Queue::Full => run.max(0) + 1,
            Queue::Empty => run.min(0) - 1,
            Queue::Partly => 0,
        };
        let step = self.step.load(Ordering::Relaxed);
        let (run, step) = match run {
            PATIENCE.. => (0, (step + 1).min(LADDER.len() - 1)),
            run if run <= -PATIENCE => (0, step.saturating_sub(1)),
            _ => (run, step),
        };
        self.run.store(run, Ordering::Relaxed);
        self.step.store(step, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_network_raises_the_level_and_a_fast_one_lowers_it() {
        let steering = Steering::new(Compression::Auto);
        assert_eq!(steering.level(), Some(3));
        (0..PATIENCE).for_each(|_| steering.observe(Queue::Full));
        assert_eq!(steering.level(), Some(5));
        (0..1_000).for_each(|_| steering.observe(Queue::Full));
        assert_eq!(steering.level(), Some(9));
        (0..1_000).for_each(|_| steering.observe(Queue::Empty));
        assert_eq!(steering.level(), Some(-5));
    }

    #[test]
    fn what_changes_all_the_time_changes_nothing() {
        let steering = Steering::new(Compression::Auto);
        for _ in 0..100 {
            (1..PATIENCE).for_each(|_| steering.observe(Queue::Full));
            steering.observe(Queue::Partly);
            (1..PATIENCE).for_each(|_| steering.observe(Queue::Empty));
        }
        assert_eq!(steering.level(), Some(3));
    }

    #[test]
    fn a_level_that_was_asked_for_stays() {
        for (wanted, level) in [(Compression::Level(7), Some(7)), (Compression::Off, None)] {
            let steering = Steering::new(wanted);
            (0..100).for_each(|_| steering.observe(Queue::Full));
            assert_eq!(steering.level(), level);
        }
    }

    #[test]
    fn a_queue_is_full_or_empty_or_neither() {
        assert_eq!(
            [0, 1, 8].map(|room| Queue::of(room, 8)),
            [Queue::Full, Queue::Partly, Queue::Empty]
        );
    }

    #[test]
    fn what_is_shown_is_read_again() {
        for wanted in [
            Compression::Auto,
            Compression::Off,
            Compression::Level(1),
            Compression::Level(19),
        ] {
            assert_eq!(wanted.to_string().parse(), Ok(wanted));
        }
        for text in ["", "0", "20", "-1", "fast"] {
            assert!(text.parse::<Compression>().is_err(), "{text}");
        }
    }
}
