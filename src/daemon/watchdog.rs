//! Tells a service manager that this process is alive, for as long as it is: what `WatchdogSec=` of a systemd unit waits for.
//!
//! A thread of its own would only tell that this thread runs. So a timer of the network's runtime tells it, and only if the
//! thread that the process hangs on has come round its loop since the last time, or is at work on something that may take
//! as long as it takes, such as the walk of a module. What is not watched is a single mirror: those fail and start again
//! apart from each other, and a disk that hangs must not end the others.

use super::notify::{State, notify};
use crossbeam_channel::Receiver;
use std::ffi::OsString;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::time::MissedTickBehavior;

/// Watches over one loop.
#[derive(Debug)]
pub struct Watchdog {
    /// How often the loop has to come round; none if nobody waits for it.
    every: Option<Duration>,
    pulse: Arc<Pulse>,
}

#[derive(Debug, Default)]
struct Pulse {
    /// The loop came round since this was looked at.
    has_beaten: AtomicBool,
    is_busy: AtomicBool,
}

impl Pulse {
    fn take(&self) -> bool {
        // Both, whatever the first one is.
        self.has_beaten.swap(false, Ordering::AcqRel) | self.is_busy.load(Ordering::Acquire)
    }
}

impl Watchdog {
    /// Begins, if the environment says that somebody waits for it (`$WATCHDOG_USEC`, and `$WATCHDOG_PID` if set).
    pub fn start(runtime: &Handle) -> Watchdog {
        let timeout = timeout(&|name| std::env::var_os(name), std::process::id());
        let watchdog = Watchdog {
            // Twice between two times of telling, which are two in a timeout.
            every: timeout.map(|timeout| timeout / 4),
            pulse: Arc::default(),
        };
        if let Some(timeout) = timeout {
            runtime.spawn(tell(watchdog.pulse.clone(), timeout / 2));
        }
        watchdog
    }

    /// Ticks as often as the loop has to come round, for its `select!`.
    pub fn ticks(&self) -> Receiver<Instant> {
        self.every
            .map_or_else(crossbeam_channel::never, crossbeam_channel::tick)
    }

    /// The loop came round.
    pub fn beat(&self) {
        self.pulse.has_beaten.store(true, Ordering::Release);
    }

    /// Does what may take any time.
    pub fn during<T>(&self, work: impl FnOnce() -> T) -> T {
        self.pulse.is_busy.store(true, Ordering::Release);
        let outcome = work();
        self.beat();
        self.pulse.is_busy.store(false, Ordering::Release);
        outcome
    }
}

async fn tell(pulse: Arc<Pulse>, every: Duration) {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if pulse.take() {
            notify(State::Alive, "");
        }
    }
}

/// After how long without a word the service manager takes this process for dead.
fn timeout(variable: &dyn Fn(&str) -> Option<OsString>, process: u32) -> Option<Duration> {
    let number = |name: &str| variable(name)?.to_str()?.parse::<u64>().ok();
    let is_for_another = number("WATCHDOG_PID").is_some_and(|pid| pid != u64::from(process));
    let micros = number("WATCHDOG_USEC").filter(|micros| *micros > 0 && !is_for_another)?;
    Some(Duration::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeout_of(variables: &[(&str, &str)]) -> Option<Duration> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(other, _)| *other == name)?;
            Some(OsString::from(found.1))
        };
        timeout(&variable, 7)
    }

    #[test]
    fn the_environment_says_whether_somebody_waits() {
        let minute = Some(Duration::from_secs(60));
        assert_eq!(timeout_of(&[("WATCHDOG_USEC", "60000000")]), minute);
        assert_eq!(
            timeout_of(&[("WATCHDOG_USEC", "60000000"), ("WATCHDOG_PID", "7")]),
            minute
        );
        assert_eq!(
            timeout_of(&[("WATCHDOG_USEC", "60000000"), ("WATCHDOG_PID", "8")]),
            None
        );
        for wrong in ["", "0", "soon", "-1"] {
            assert_eq!(timeout_of(&[("WATCHDOG_USEC", wrong)]), None, "{wrong}");
        }
        assert_eq!(timeout_of(&[]), None);
    }

    #[test]
    fn a_loop_that_stands_still_is_not_alive_unless_it_is_at_work() {
        let watchdog = Watchdog {
            every: None,
            pulse: Arc::default(),
        };
        assert!(!watchdog.pulse.take());
        watchdog.beat();
        assert!(watchdog.pulse.take() && !watchdog.pulse.take());
        watchdog.during(|| assert!(watchdog.pulse.take() && watchdog.pulse.take()));
        assert!(watchdog.pulse.take() && !watchdog.pulse.take());
    }
}
