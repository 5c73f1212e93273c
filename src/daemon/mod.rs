//! The loops that join the layers: receivers, senders, and what tells about them.

pub mod control;
pub mod home;
pub mod ledger;
mod memory;
mod options;
pub mod receiver;
pub mod sender;
pub mod status;
pub mod verify;

pub use options::{
    Deletes, FailedEntry, LargeFiles, ModuleOptions, Observer, Phase, ReceiverOptions, SendCounters,
    SenderOptions, Silent, Summary, TargetOptions,
};

pub use crate::watch::{WatchChoice, WatchOptions};

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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

/// A wish to stop, shared between threads.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    requested: Arc<AtomicBool>,
    wakers: Arc<std::sync::Mutex<Vec<crossbeam_channel::Sender<()>>>>,
}

impl Stop {
    /// Asks to stop, once and for all.
    pub fn request(&self) {
        self.requested.store(true, Ordering::Release);
        self.wakers
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clear();
    }

    /// Whether that was asked.
    pub fn is_requested(&self) -> bool {
        self.requested.load(Ordering::Acquire)
    }

    /// A channel that disconnects when stopping is asked, to be waited on beside others.
    pub fn channel(&self) -> crossbeam_channel::Receiver<()> {
        let (sender, receiver) = crossbeam_channel::bounded(0);
        let mut wakers = self
            .wakers
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if !self.is_requested() {
            wakers.push(sender);
        }
        receiver
    }
}
