//! How a receiver looks after what it has: its options, and what is told of it.

use super::status::unix_now;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Options of a module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Upkeep {
    /// All contents are read and compared with what is known of them, again and again.
    pub scrub: Option<ScrubOptions>,
    /// It is watched for what somebody else does there.
    pub drift_watch: Option<DriftWatch>,
}

/// What happens to what somebody else does in a module path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DriftWatch {
    /// It is told.
    Alarm,
    /// It is told, and the sender puts it right.
    Repair,
}

/// How contents are read again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScrubOptions {
    /// In this time all of it.
    pub every: Duration,
    /// What is found wrong is fetched from the sender again.
    pub repairs: bool,
}

/// How far the scrub of a module path is, and what it found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubReport {
    /// The path in the module.
    #[serde(default)]
    pub path: String,
    /// When the present round began, in seconds since 1970.
    #[serde(default)]
    pub began: u64,
    /// When the last complete round ended; none before the first.
    #[serde(default)]
    pub finished: Option<u64>,
    /// Whether the present round is done, and the next one waits for its time.
    #[serde(default)]
    pub rests: bool,
    /// Files that were read in the present round.
    #[serde(default)]
    pub files: u64,
    /// Their bytes.
    #[serde(default)]
    pub bytes: u64,
    /// What all files had when the round began, as far as they are the mirror's.
    #[serde(default)]
    pub bytes_total: u64,
    /// Files found corrupt or unreadable, in all rounds.
    #[serde(default)]
    pub corrupt: u64,
    /// Files found changed by somebody else, in all rounds.
    #[serde(default)]
    pub edited: u64,
    /// The latest of both, escaped, and what is wrong with them.
    #[serde(default)]
    pub latest: Vec<Finding>,
}

/// A file that is not as it was put.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Its path, escaped.
    pub path: String,
    /// What is wrong.
    pub what: String,
    /// When it was found, in seconds since 1970.
    pub at: u64,
}

/// Findings that are told by name.
const LATEST_MAX: usize = 20;

impl Finding {
    /// Notes something that is found now, in place of what was found there before, among the latest.
    pub fn note(latest: &mut Vec<Finding>, path: String, what: String) {
        latest.retain(|finding| finding.path != path);
        if latest.len() >= LATEST_MAX {
            latest.remove(0);
        }
        let at = unix_now();
        latest.push(Finding { path, what, at });
    }
}

/// How a module path is watched for local edits, and what was seen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriftReport {
    /// The path in the module.
    #[serde(default)]
    pub path: String,
    /// The back end that watches; empty until one does.
    #[serde(default)]
    pub watcher: String,
    /// What it sees late or not at all.
    #[serde(default)]
    pub degradations: Vec<String>,
    /// Local edits that were told since the receiver started.
    #[serde(default)]
    pub edits: u64,
    /// The latest of them.
    #[serde(default)]
    pub latest: Vec<Finding>,
}
