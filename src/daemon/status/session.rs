//! One connected sender, as the receiver counts it.

use super::{LastError, PublishReport, lock, unix_now};
use crate::daemon::events::{self, AppliedChange, CHANGES_BYTES_MAX, CHANGES_NAMED_MAX, What};
use driftless_protocol::RelPath;
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

/// What was done since it was last told to be durable, for who wants the names.
#[derive(Debug, Default)]
struct Changes {
    named: Vec<AppliedChange>,
    bytes: usize,
    is_truncated: bool,
}

impl Changes {
    fn note(&mut self, change: Option<AppliedChange>) {
        match change {
            Some(change)
                if self.named.len() < CHANGES_NAMED_MAX
                    && self.bytes + change.path.len() <= CHANGES_BYTES_MAX =>
            {
                self.bytes += change.path.len();
                self.named.push(change);
            }
            _ => self.is_truncated = true,
        }
    }
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
    changes: Mutex<Changes>,
    /// One more than the last number that was told to be in sync, 0 for none.
    told_in_sync: AtomicU64,
    /// The module, and the fingerprint of the sender.
    of: Option<(String, String)>,
    /// What paths begin with in the module: empty, or the path that is mirrored to and a slash.
    prefix: String,
    /// Nothing more is to be applied.
    is_cut: AtomicBool,
    /// What is made aside, and is not visible yet.
    publishing: Mutex<Vec<PublishReport>>,
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
            changes: Mutex::default(),
            told_in_sync: AtomicU64::new(0),
            of: None,
            prefix: String::new(),
            is_cut: AtomicBool::new(false),
            publishing: Mutex::default(),
        }
    }
}

impl SessionStatus {
    /// The counters of a session in a module.
    pub fn named(module: String, path: &RelPath, peer: String) -> SessionStatus {
        SessionStatus {
            of: Some((module, peer)),
            prefix: match path.is_root() {
                true => String::new(),
                false => format!("{path}/"),
            },
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
        let changes = std::mem::take(&mut *lock(&self.changes));
        if let Some((module, peer)) = self.of.as_ref().filter(|_| applied > told) {
            events::publish(
                None,
                What::ModuleDurable {
                    module: module.clone(),
                    peer: peer.clone(),
                    applied: applied - told,
                    changes: changes.named,
                    truncated: changes.is_truncated,
                },
            );
        }
    }

    /// An entry was changed; none if its path is not known.
    pub fn note_change(&self, change: Option<AppliedChange>) {
        let change = change.map(|change| AppliedChange {
            path: format!("{}{}", self.prefix, change.path),
            ..change
        });
        lock(&self.changes).note(change);
    }

    /// The sender says that both trees are equal at this number: tells listeners, if that is news.
    pub fn tell_in_sync(&self, sequence: u64) {
        let now = sequence.saturating_add(1);
        let told = self.told_in_sync.swap(now, Ordering::Relaxed);
        if let Some((module, peer)) = self.of.as_ref().filter(|_| now != told) {
            let (module, peer) = (module.clone(), peer.clone());
            events::publish(
                None,
                What::ModuleInSync {
                    module,
                    peer,
                    sequence,
                },
            );
        }
    }

    /// This is made aside now.
    pub fn set_publishing(&self, reports: Vec<PublishReport>) {
        *lock(&self.publishing) = reports;
    }

    /// What is made aside.
    pub fn publishing(&self) -> Vec<PublishReport> {
        lock(&self.publishing).clone()
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
