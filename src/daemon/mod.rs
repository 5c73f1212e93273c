//! The loops that join the layers: receivers, senders, and what tells about them.

mod backoff;
pub mod barrier;
pub mod control;
mod crew;
pub mod divergence;
pub mod events;
pub mod fence;
pub mod forget;
pub mod home;
pub mod hooks;
pub mod keeping;
pub mod ledger;
mod memory;
pub mod metrics;
pub mod notify;
pub mod offers;
mod options;
mod pace;
mod quiet;
pub mod receiver;
pub mod roots;
pub mod sender;
#[cfg(test)]
mod simulation;
pub mod status;
pub mod survey;
mod turns;
pub mod upkeep;
mod upstream;
pub mod verify;
mod waiting;
pub mod watchdog;
pub mod web;

pub use memory::Rested;
pub use options::{
    Backlog, Deletes, FailedEntry, Initial, KeptAs, LargeFiles, ModuleOptions, Observer, Own, Phase,
    ReceiverOptions, SendCounters, SenderOptions, Silent, Summary, TakenAs, TargetOptions, verbs,
};

pub use quiet::Quiet;
pub use turns::{Turn, Turns};

pub use crate::watch::{WatchChoice, WatchOptions};

use std::sync::{Arc, OnceLock};
use std::time::Instant;
use thiserror::Error;

/// Why a daemon or a command ended without having done its work. One line: what, where, why, what to do.
#[derive(Debug, Clone, Error)]
pub enum DaemonError {
    /// It failed.
    #[error("{0}")]
    Failed(String),
    /// It was asked for something that cannot be.
    #[error("{0}")]
    Usage(String),
}

impl DaemonError {
    /// A failure.
    pub fn failed(text: impl Into<String>) -> DaemonError {
        DaemonError::Failed(text.into())
    }

    /// The process's exit status.
    pub fn exit_status(&self) -> u8 {
        match self {
            DaemonError::Failed(_) => 1,
            DaemonError::Usage(_) => 2,
        }
    }
}

/// A gate that is open until somebody closes it, shared between threads: whether a mirror is paused.
#[derive(Debug, Clone, Default)]
pub struct Gate {
    inner: Arc<std::sync::Mutex<GateInner>>,
}

#[derive(Debug)]
struct GateInner {
    is_closed: bool,
    /// Replaced at each change, which everybody who waits for the next one sees.
    change: (crossbeam_channel::Sender<()>, crossbeam_channel::Receiver<()>),
}

impl Default for GateInner {
    fn default() -> GateInner {
        GateInner {
            is_closed: false,
            change: crossbeam_channel::bounded(0),
        }
    }
}

impl Gate {
    /// Closes or opens it. Says whether that was a change.
    pub fn set_closed(&self, is_closed: bool) -> bool {
        let mut inner = self.lock();
        let is_change = std::mem::replace(&mut inner.is_closed, is_closed) != is_closed;
        if is_change {
            inner.change = crossbeam_channel::bounded(0);
        }
        is_change
    }

    /// Whether it is closed.
    pub fn is_closed(&self) -> bool {
        self.lock().is_closed
    }

    /// A channel that disconnects when the gate is next opened or closed, to be waited on beside others. Who asks for it
    /// again and again leaves nothing behind.
    pub fn channel(&self) -> crossbeam_channel::Receiver<()> {
        self.lock().change.1.clone()
    }

    /// Replaces a channel that has told of a change, and would otherwise tell of it for ever.
    pub fn renew(&self, channel: &mut crossbeam_channel::Receiver<()>) {
        if channel.try_recv() == Err(crossbeam_channel::TryRecvError::Disconnected) {
            *channel = self.channel();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, GateInner> {
        self.inner
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A wish to stop, shared between threads.
#[derive(Debug, Clone)]
pub struct Stop {
    requested: Arc<OnceLock<Instant>>,
    /// Taken when stopping is asked, which everybody who waits for `gone` sees.
    open: Arc<std::sync::Mutex<Option<crossbeam_channel::Sender<()>>>>,
    gone: crossbeam_channel::Receiver<()>,
}

impl Default for Stop {
    fn default() -> Stop {
        let (open, gone) = crossbeam_channel::bounded(0);
        Stop {
            requested: Arc::default(),
            open: Arc::new(std::sync::Mutex::new(Some(open))),
            gone,
        }
    }
}

impl Stop {
    /// Asks to stop, once and for all.
    pub fn request(&self) {
        self.requested.get_or_init(Instant::now);
        self.open
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take();
    }

    /// Whether that was asked.
    pub fn is_requested(&self) -> bool {
        self.requested_at().is_some()
    }

    /// When that was asked first.
    pub fn requested_at(&self) -> Option<Instant> {
        self.requested.get().copied()
    }

    /// A channel that disconnects when stopping is asked, to be waited on beside others. All have the same one, so that who
    /// asks for it again and again leaves nothing behind.
    pub fn channel(&self) -> crossbeam_channel::Receiver<()> {
        self.gone.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::TryRecvError;

    #[test]
    fn a_gate_tells_of_changes_and_of_nothing_else() {
        let gate = Gate::default();
        let mut channel = gate.channel();
        assert!(!gate.set_closed(false));
        assert_eq!(channel.try_recv(), Err(TryRecvError::Empty));
        assert!(gate.set_closed(true) && gate.is_closed());
        assert_eq!(channel.try_recv(), Err(TryRecvError::Disconnected));
        gate.renew(&mut channel);
        assert_eq!(channel.try_recv(), Err(TryRecvError::Empty));
    }

    #[test]
    fn a_stop_is_told_to_all_who_asked_before_and_after() {
        let stop = Stop::default();
        let before = stop.channel();
        assert_eq!(before.try_recv(), Err(TryRecvError::Empty));
        assert_eq!(stop.requested_at(), None);
        stop.clone().request();
        let at = stop.requested_at();
        stop.request();
        assert!(stop.is_requested() && at.is_some() && stop.requested_at() == at);
        for channel in [before, stop.channel()] {
            assert_eq!(channel.try_recv(), Err(TryRecvError::Disconnected));
        }
    }
}
