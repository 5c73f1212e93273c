//! What a sender can be asked while it runs, and how it answers: barriers, checkpoints, explanations, looks.
//!
//! A *barrier* is a point in time of one mirror and target: it is reached when everything that was done in the tree before it
//! is on the target. A *checkpoint* is a barrier with a name that outlives the sender; when it was reached is kept.

use super::status::unix_now;
use crossbeam_channel::Sender;
use driftless_protocol::RelPath;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Weak};

/// Checkpoints that are kept of a mirror and target; the oldest that were reached go first.
pub const CHECKPOINTS_MAX: usize = 64;

/// Bytes in the name of a checkpoint.
pub const CHECKPOINT_NAME_BYTES_MAX: usize = 128;

/// Requests that wait for a sender; more are refused.
pub const REQUESTS_MAX: usize = 256;

/// What "there" means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// The target has the bytes, in memory or set aside. A crash of the target loses them, and they are sent again.
    Received,
    /// Visible on the target. A power cut there can undo it.
    Applied,
    /// On the target's stable storage.
    Durable,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Level::Received => "received",
            Level::Applied => "applied",
            Level::Durable => "durable",
        })
    }
}

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Level, String> {
        let all = [Level::Received, Level::Applied, Level::Durable];
        let named = all.into_iter().find(|level| level.to_string() == text);
        named.ok_or_else(|| format!("{text:?} is not one of received, applied, durable"))
    }
}

/// How a barrier ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BarrierEnd {
    /// All is there but for entries that are in error: so many.
    Reached {
        /// How many.
        failed: u64,
    },
    /// It makes no sense, and why: one line.
    Refused(String),
}

/// The wish to hear when everything up to now is on the target.
#[derive(Debug, Clone)]
pub struct BarrierRequest {
    /// What is asked about; the root for everything.
    pub below: RelPath,
    /// What "there" means.
    pub level: Level,
    /// Where to answer. Without an answer it disconnects: the sender ended, and its successor has to be asked.
    pub answer: Sender<BarrierEnd>,
    /// Whether anybody still waits: nobody does when all strong references are gone.
    pub asker: Weak<()>,
}

impl BarrierRequest {
    /// A request that counts for as long as `asker` lives.
    pub fn new(below: RelPath, level: Level, answer: Sender<BarrierEnd>, asker: &Arc<()>) -> BarrierRequest {
        BarrierRequest {
            below,
            level,
            answer,
            asker: Arc::downgrade(asker),
        }
    }
}

/// A point that has a name, on one target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Its name.
    pub name: String,
    /// When it was taken.
    pub taken: u64,
    /// When everything before it was durable on the target, if that is so already.
    pub completed: Option<u64>,
    /// Entries that were in error then.
    #[serde(default)]
    pub failed: u64,
}

impl Checkpoint {
    /// One that is taken now.
    pub fn now(name: String) -> Checkpoint {
        Checkpoint {
            name,
            taken: unix_now(),
            completed: None,
            failed: 0,
        }
    }
}

/// Whether a checkpoint may have this name; otherwise what is wrong with it.
pub fn check_name(name: &str) -> Result<(), String> {
    let is_plain = |c: char| !c.is_control();
    if name.is_empty() || name.len() > CHECKPOINT_NAME_BYTES_MAX || !name.chars().all(is_plain) {
        return Err(format!(
            "a checkpoint's name has 1 to {CHECKPOINT_NAME_BYTES_MAX} bytes without control characters"
        ));
    }
    Ok(())
}

/// What a running sender can be asked.
#[derive(Debug)]
pub enum Request {
    /// Tell when everything up to now is there.
    Barrier(BarrierRequest),
    /// Take a checkpoint of this name, in place of an older one.
    Checkpoint {
        /// The name.
        name: String,
        /// Answered when it is recorded durably.
        answer: Sender<Result<Checkpoint, String>>,
    },
    /// Forget a checkpoint.
    ForgetCheckpoint {
        /// The name.
        name: String,
        /// Whether there was one.
        answer: Sender<Result<bool, String>>,
    },
    /// Tell what is known of a path.
    Explain {
        /// The path in the tree.
        path: RelPath,
        /// The answer.
        answer: Sender<Explanation>,
    },
    /// Look again at everything below a path, and try again what is in error there.
    Rescan {
        /// The path in the tree.
        path: RelPath,
        /// How many entries in error are tried again.
        answer: Sender<Result<u64, String>>,
    },
}

/// What a sender knows of a path.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// What the configuration calls the mirror.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<String>,
    /// The tree.
    pub source: String,
    /// Where to.
    pub target: String,
    /// The path in the tree, escaped.
    pub path: String,
    /// `in-sync`, `pending`, `in-error`, `excluded`, `private` (a name of driftless's own), `missing` or `unknown` (it is there,
    /// and was not looked at yet).
    pub state: String,
    /// Why, in words.
    pub reason: String,
    /// The rule that decides, and where it stands; none if no rule does.
    pub rule: Option<String>,
    /// `file`, `directory`, ...
    pub kind: Option<String>,
    /// Size in bytes.
    pub size: Option<u64>,
    /// Digest of the content, in hexadecimal, if it is known.
    pub digest: Option<String>,
    /// The number of its last change in the journal.
    pub version: Option<u64>,
    /// What the target said last, if the entry is in error.
    pub error: Option<String>,
    /// How often it was tried, if it is in error.
    pub tries: Option<u32>,
}
