//! When senders that follow end by themselves: nothing has changed for a while, and every target has everything.
//!
//! The senders of one tree end together. One that ended while another was still busy would miss what changes meanwhile, and
//! its target would not be what the user thinks it is.

use super::Stop;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The wish to end when it is quiet, shared by the senders of one tree.
#[derive(Debug, Clone)]
pub struct Quiet {
    /// For how long nothing has to have changed.
    pub time: Duration,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Senders that have not come to rest.
    busy: Mutex<usize>,
    over: Stop,
}

/// One sender's part in it. It counts as busy until it says otherwise.
#[derive(Debug)]
pub struct Share {
    quiet: Quiet,
    is_at_rest: bool,
}

impl Quiet {
    /// For as many senders of one tree, each of which takes one [`Quiet::share`] at a time.
    pub fn new(time: Duration, senders: usize) -> Quiet {
        Quiet {
            time,
            shared: Arc::new(Shared {
                busy: Mutex::new(senders),
                over: Stop::default(),
            }),
        }
    }

    /// What one sender holds while it is connected.
    pub fn share(&self) -> Share {
        Share {
            quiet: self.clone(),
            is_at_rest: false,
        }
    }

    /// A sender ended for another reason: the others wait for it no longer.
    pub fn leave(&self) {
        let mut busy = self.shared.busy.lock().unwrap_or_else(PoisonError::into_inner);
        *busy = busy.saturating_sub(1);
        self.conclude(*busy);
    }

    fn conclude(&self, busy: usize) {
        if busy == 0 {
            self.shared.over.request();
        }
    }
}

impl Share {
    /// Says whether this sender is at rest. Whether all are, or were at one moment: then each ends as soon as it is in sync.
    pub fn set_at_rest(&mut self, is_at_rest: bool) -> bool {
        let shared = &self.quiet.shared;
        let mut busy = shared.busy.lock().unwrap_or_else(PoisonError::into_inner);
        match (self.is_at_rest, is_at_rest) {
            (false, true) => *busy = busy.saturating_sub(1),
            (true, false) => *busy += 1,
            _ => {}
        }
        self.is_at_rest = is_at_rest;
        self.quiet.conclude(*busy);
        shared.over.is_requested()
    }

    /// For how long nothing has to have changed.
    pub fn time(&self) -> Duration {
        self.quiet.time
    }

    /// A channel that disconnects when all are at rest.
    pub fn channel(&self) -> crossbeam_channel::Receiver<()> {
        self.quiet.shared.over.channel()
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set_at_rest(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senders_end_together() {
        let quiet = Quiet::new(Duration::from_secs(1), 2);
        let (mut one, mut other) = (quiet.share(), quiet.share());
        assert!(!one.set_at_rest(true));
        assert!(!one.set_at_rest(false) && !other.set_at_rest(true));
        // A connection that is lost is no rest.
        drop(other);
        assert!(!one.set_at_rest(true));
        let mut other = quiet.share();
        assert!(other.set_at_rest(true));
        // Whoever is busy at that moment ends later.
        assert!(one.set_at_rest(false) && one.set_at_rest(true));
    }

    #[test]
    fn nobody_waits_for_one_that_gave_up() {
        let quiet = Quiet::new(Duration::from_secs(1), 2);
        let mut one = quiet.share();
        assert!(!one.set_at_rest(true));
        quiet.leave();
        assert!(one.set_at_rest(true));
    }
}
