//! What a receiver does with what it replaces and deletes, and with what somebody else changed there.

use driftless_protocol::Name;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The shelf of what was replaced or deleted, in the root of a module path.
pub const TRASH: &str = ".driftless-trash";
/// The shelf of local edits that were set aside, in the root of a module path.
pub const KEPT: &str = ".driftless-kept";

/// Paths of local edits that are told; more are counted.
const LATEST_MAX: usize = 20;

/// What becomes of what loses its name on a receiver.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Keeping {
    /// Of what somebody else changed.
    pub drift: Drift,
    /// Of the mirror's own old versions; and, if edits are overwritten, of these.
    pub old: OldVersions,
}

/// What happens to a local edit: content, a link's text or an object that the mirror did not put there. Attributes are
/// not an edit; they are set back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Drift {
    /// It is replaced or deleted like everything else.
    #[default]
    Overwrite,
    /// It is moved to [`KEPT`].
    Keep,
    /// It stays where it is, and the op fails.
    Refuse,
}

/// What happens to what the mirror replaces or deletes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum OldVersions {
    /// It is gone.
    #[default]
    Discard,
    /// It is moved to [`TRASH`], and goes from there in time.
    Trash {
        /// How long it stays there, at least.
        retention: Duration,
    },
    /// Files get another name, and stay.
    Backup(Backup),
}

/// Backups as rsync makes them: one of each file, which the next one replaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// A directory in the root of the module path that takes their paths; beside the file without.
    pub directory: Option<Name>,
    /// What is put behind the name. Not empty without a directory.
    pub suffix: Vec<u8>,
}

impl Keeping {
    /// Whether a name in the root of the module path is that of the directory of backups.
    pub fn is_backup_directory(&self, name: &Name) -> bool {
        match &self.old {
            OldVersions::Backup(backup) => backup.directory.as_ref() == Some(name),
            _ => false,
        }
    }

    /// Whether backups stand beside what they are of.
    pub fn leaves_backups_beside(&self) -> bool {
        matches!(self.old, OldVersions::Backup(Backup { directory: None, .. }))
    }

    /// Whether a name is one that backups have which stand beside their files.
    pub fn is_backup_name(&self, name: &Name) -> bool {
        let name = name.as_bytes();
        match &self.old {
            OldVersions::Backup(Backup {
                directory: None,
                suffix,
            }) => name.len() > suffix.len() && name.ends_with(suffix),
            _ => false,
        }
    }
}

/// What was kept in a module since its receiver started. Writers never wait for readers.
#[derive(Debug, Default)]
pub struct KeepingCounters {
    kept: AtomicU64,
    refused: AtomicU64,
    trashed: AtomicU64,
    backups: AtomicU64,
    latest: Mutex<VecDeque<String>>,
}

/// [`KeepingCounters`] at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeepingReport {
    /// Local edits that were set aside.
    #[serde(default)]
    pub edits_kept: u64,
    /// Ops that failed because of a local edit; the same one counts each time.
    #[serde(default)]
    pub edits_refused: u64,
    /// What was moved to the trash; a directory counts as one.
    #[serde(default)]
    pub trashed: u64,
    /// Backups made.
    #[serde(default)]
    pub backups: u64,
    /// Where the latest local edits are that were set aside, from the module path's root, escaped.
    #[serde(default)]
    pub latest_edits: Vec<String>,
}

impl KeepingCounters {
    /// A local edit was set aside.
    pub fn count_kept(&self, path: String) {
        self.kept.fetch_add(1, Ordering::Relaxed);
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if latest.len() == LATEST_MAX {
            latest.pop_front();
        }
        latest.push_back(path);
    }

    /// A local edit kept an op from being carried out.
    pub fn count_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Something went to the trash.
    pub fn count_trashed(&self) {
        self.trashed.fetch_add(1, Ordering::Relaxed);
    }

    /// A backup was made.
    pub fn count_backup(&self) {
        self.backups.fetch_add(1, Ordering::Relaxed);
    }

    /// The counters as they are now.
    pub fn report(&self) -> KeepingReport {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        KeepingReport {
            edits_kept: self.kept.load(Ordering::Relaxed),
            edits_refused: self.refused.load(Ordering::Relaxed),
            trashed: self.trashed.load(Ordering::Relaxed),
            backups: self.backups.load(Ordering::Relaxed),
            latest_edits: latest.iter().cloned().collect(),
        }
    }
}
