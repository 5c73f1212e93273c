//! One connected sender, as the receiver counts it.

use super::{LastError, lock, unix_now};
use crate::daemon::events::{self, What};
use driftless_protocol::message::Progress;
use serde::{Deserialize, Serialize};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What a connected sender has done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionReport {
    /// The path inside the module.
    pub path: String,
    /// The sender's fingerprint.
    pub peer: String,
    /// The tree that it sends, as it says.
    pub source: String,
    /// When it connected.
    pub since: u64,
    /// Ops applied.
    pub applied: u64,
    /// Ops failed.
    pub failed: u64,
    /// Files whose content was asked for.
    pub wanted: u64,
    /// Content bytes written.
    pub bytes: u64,
    /// Every op up to this one is visible.
    pub applied_to: u64,
    /// Every op up to this one is on stable storage.
    pub durable_to: u64,
    /// The sender's journal is here completely and durably up to this number.
    pub sequence: Option<u64>,
    /// What went wrong last.
    pub last_error: Option<LastError>,
}

/// The counters of one session on a receiver. Writers never wait for readers.
#[derive(Debug)]
pub struct SessionStatus {
    since: u64,
    applied: AtomicU64,
    failed: AtomicU64,
    wanted: AtomicU64,
    bytes: AtomicU64,
    applied_to: AtomicU64,
    durable_to: AtomicU64,
    /// One more than the number, 0 for none.
    sequence: AtomicU64,
    last_error: Mutex<Option<LastError>>,
    /// Of [`SessionStatus::applied`], how many were told to be durable.
    told_durable: AtomicU64,
    /// The module, and the fingerprint of the sender.
    of: Option<(String, String)>,
    /// Nothing more is to be applied.
    is_cut: AtomicBool,
}

impl Default for SessionStatus {
    fn default() -> SessionStatus {
        SessionStatus {
            since: unix_now(),
            applied: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            wanted: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            applied_to: AtomicU64::new(0),
            durable_to: AtomicU64::new(0),
            sequence: AtomicU64::new(0),
            last_error: Mutex::default(),
            told_durable: AtomicU64::new(0),
            of: None,
            is_cut: AtomicBool::new(false),
        }
    }
}

impl SessionStatus {
    /// The counters of a session in a module.
    pub fn named(module: String, peer: String) -> SessionStatus {
        SessionStatus {
            of: Some((module, peer)),
            ..SessionStatus::default()
        }
    }

    /// Has the session end as it is: what arrived and is not applied yet is left alone.
    pub fn cut(&self) {
        self.is_cut.store(true, Ordering::Release);
    }

    /// Whether the session has to end.
    pub fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::Acquire)
    }

    /// Everything that was applied is on stable storage: tells listeners, if that is news.
    pub fn tell_durable(&self) {
        let applied = self.applied.load(Ordering::Relaxed);
        let told = self.told_durable.swap(applied, Ordering::Relaxed);
        if let Some((module, peer)) = self.of.as_ref().filter(|_| applied > told) {
            events::publish(
                None,
                What::ModuleDurable {
                    module: module.clone(),
                    peer: peer.clone(),
                    applied: applied - told,
                },
            );
        }
    }

    /// An op was applied.
    pub fn count_applied(&self) {
        self.applied.fetch_add(1, Ordering::Relaxed);
    }

    /// An op failed.
    pub fn count_failed(&self, text: &str) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        *lock(&self.last_error) = Some(LastError::now(text));
    }

    /// Content was written.
    pub fn count_bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A file's content was asked for.
    pub fn count_wanted(&self) {
        self.wanted.fetch_add(1, Ordering::Relaxed);
    }

    /// The sender was told this.
    pub fn set_progress(&self, progress: &Progress) {
        self.applied_to.store(progress.applied, Ordering::Relaxed);
        self.durable_to.store(progress.durable, Ordering::Relaxed);
        if let Some(cursor) = &progress.cursor {
            self.sequence
                .store(cursor.sequence.saturating_add(1), Ordering::Relaxed);
        }
    }

    /// The counters as they are now.
    pub fn report(&self, path: String, peer: String, source: String) -> SessionReport {
        SessionReport {
            path,
            peer,
            source,
            since: self.since,
            applied: self.applied.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            wanted: self.wanted.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            applied_to: self.applied_to.load(Ordering::Relaxed),
            durable_to: self.durable_to.load(Ordering::Relaxed),
            sequence: self.sequence.load(Ordering::Relaxed).checked_sub(1),
            last_error: lock(&self.last_error).clone(),
        }
    }
}
