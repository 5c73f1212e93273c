//! How hard to compress.
//!
//! With `auto` the level follows the link. A window of the network that is full, with more waiting behind it, means that the
//! network is slower than this processor, so a higher level costs no time. Queues alone do not tell: one runs full as well
//! because the other end is slow, and empty because this thread does not get the processor. Both are nothing that another
//! level would mend.

use super::congestion::Permit;
use rustix::time::{ClockId, Timespec, clock_gettime};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Levels of zstd that `auto` chooses from: from 340 MB/s a core to 50 MB/s on program text. Below level 1 nothing is saved: what
/// more leaves takes as long to encrypt, send and decrypt as level 1 takes.
const LADDER: [i32; 5] = [1, 3, 5, 7, 9];
/// Where it begins: the step of level 3.
const FIRST_STEP: usize = 1;
/// So many times in a row the link has to be full, or the queue empty, before the level changes.
const PATIENCE: i32 = 8;
/// The least that zstd can do where the wire has its format in any case.
const LEAST_LEVEL: i32 = -50;
/// The highest level that needs no window above what receivers accept.
const LEVEL_MAX: i32 = 19;
/// Who has the processor for less of the time than this (in percent) shares it with others.
const OWN_PROCESSOR_PERCENT: u128 = 80;

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

/// A piece of work of one thread, to find out whether it had the processor all the time.
#[derive(Debug, Clone, Copy)]
pub struct Stint {
    begun: Instant,
    used: Duration,
}

impl Stint {
    /// Begins now, on this thread.
    pub fn begin() -> Stint {
        Stint {
            begun: Instant::now(),
            used: processor_time(),
        }
    }

    /// Whether this thread neither waited nor shared its processor since.
    pub fn had_processor(&self) -> bool {
        let used = processor_time().saturating_sub(self.used);
        used.as_nanos() * 100 >= self.begun.elapsed().as_nanos() * OWN_PROCESSOR_PERCENT
    }
}

/// What this thread has used so far.
fn processor_time() -> Duration {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(tv_sec.try_into().unwrap_or(0), tv_nsec.try_into().unwrap_or(0))
}

/// The level of one queue. Shared by all that fill it.
#[derive(Debug)]
pub struct Steering {
    wanted: Compression,
    link: Arc<Permit>,
    step: AtomicUsize,
    /// Above zero: so many times full in a row; below: empty.
    run: AtomicI32,
}

impl Steering {
    /// Begins in the middle. `link` tells whether the network's window is full.
    pub fn new(wanted: Compression, link: Arc<Permit>) -> Steering {
        Steering {
            wanted,
            link,
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

    /// Something is about to be queued, behind which more waits; `had_processor` while it was made. Two that tell at once may
    /// lose one of their votes, which does no harm.
    pub fn observe(&self, queue: Queue, had_processor: bool) {
        if self.wanted != Compression::Auto {
            return;
        }
        let (run, step) = (
            self.run.load(Ordering::Relaxed),
            self.step.load(Ordering::Relaxed),
        );
        let is_link_full = self.link.is_full();
        // A high level is for a full link's sake, so it goes with that. The first one goes only if it is what the link waits for:
        // where processors are short, a lower one gives the others little, and sends more, which costs them as much.
        let may_sink = had_processor || step > FIRST_STEP;
        let run = match queue {
            Queue::Full if is_link_full && had_processor => run.max(0) + 1,
            Queue::Empty if !is_link_full && may_sink => run.min(0) - 1,
            _ => 0,
        };
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

    /// A steering, and the link that it looks at.
    fn steering() -> (Steering, Arc<Permit>) {
        let link = Arc::<Permit>::default();
        (Steering::new(Compression::Auto, link.clone()), link)
    }

    #[test]
    fn a_slow_network_raises_the_level_and_a_fast_one_lowers_it() {
        let (steering, link) = steering();
        assert_eq!(steering.level(), Some(3));
        link.note_full(true);
        (0..PATIENCE).for_each(|_| steering.observe(Queue::Full, true));
        assert_eq!(steering.level(), Some(5));
        (0..1_000).for_each(|_| steering.observe(Queue::Full, true));
        assert_eq!(steering.level(), Some(9));
        link.note_full(false);
        (0..1_000).for_each(|_| steering.observe(Queue::Empty, true));
        assert_eq!(steering.level(), Some(1));
    }

    /// An end that takes nothing is no slow network, and a thread that has to wait for the processor no fast one.
    #[test]
    fn what_the_link_does_not_say_changes_nothing() {
        let (steering, link) = steering();
        (0..1_000).for_each(|_| steering.observe(Queue::Full, true));
        assert_eq!(steering.level(), Some(3), "the other end is slow");
        (0..1_000).for_each(|_| steering.observe(Queue::Empty, false));
        assert_eq!(steering.level(), Some(3), "the processor is");
        link.note_full(true);
        (0..1_000).for_each(|_| steering.observe(Queue::Full, false));
        assert_eq!(steering.level(), Some(3), "both are");
        (0..1_000).for_each(|_| steering.observe(Queue::Empty, true));
        assert_eq!(steering.level(), Some(3), "what left last is still under way");
    }

    /// It was raised for the link, which now waits: whether for want of processors does not matter.
    #[test]
    fn a_high_level_goes_when_the_link_waits() {
        let (steering, link) = steering();
        link.note_full(true);
        (0..1_000).for_each(|_| steering.observe(Queue::Full, true));
        link.note_full(false);
        (0..1_000).for_each(|_| steering.observe(Queue::Empty, false));
        assert_eq!(steering.level(), Some(3));
    }

    #[test]
    fn what_changes_all_the_time_changes_nothing() {
        let (steering, link) = steering();
        for _ in 0..100 {
            link.note_full(true);
            (1..PATIENCE).for_each(|_| steering.observe(Queue::Full, true));
            steering.observe(Queue::Partly, true);
            link.note_full(false);
            (1..PATIENCE).for_each(|_| steering.observe(Queue::Empty, true));
        }
        assert_eq!(steering.level(), Some(3));
    }

    #[test]
    fn who_sleeps_has_no_processor() {
        let stint = Stint::begin();
        std::thread::sleep(Duration::from_millis(30));
        assert!(!stint.had_processor());
    }

    #[test]
    fn a_level_that_was_asked_for_stays() {
        for (wanted, level) in [(Compression::Level(7), Some(7)), (Compression::Off, None)] {
            let link = Arc::<Permit>::default();
            link.note_full(true);
            let steering = Steering::new(wanted, link);
            (0..100).for_each(|_| steering.observe(Queue::Full, true));
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
