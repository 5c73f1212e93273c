//! Whether the directory at a module's path is the one that was written to before.
//!
//! An unmounted mount point looks like a target that lost everything: to fill it again would put a second copy onto the disk
//! below, and the mirror's own would be out of sight as soon as that is mounted again. Another tree at the path would have its
//! entries deleted as something that the source lacks. So whatever is not certainly the same directory is refused, until
//! somebody approves it.
//!
//! Certainly the same is: the directory of before, by file system, inode and time of birth; or one that has the generation
//! file that this state wrote last, such as a copy on a new disk; or an older version of it on the same file system, which
//! is compared anew. An empty directory on the same file system that is younger than the last start was removed and made
//! again: somebody wants it filled. (A mount point is older than what is mounted on it.) A module whose path was changed was
//! changed by the administrator.

use super::replica::ReplicaError;
use crate::daemon::roots::{self, RootIdentity};
use crate::fs::Directory;
use crate::store::State;
use driftless_protocol::name;
use serde::{Deserialize, Serialize};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

const KEY: &str = "root";

/// For how long a note need not be made again, if nothing else is new: it costs two flushes. A mount point that was covered
/// then is older than the note, whatever its age.
const NOTED_FOR_SECONDS: i64 = 86_400;

/// What the state knows of the root.
#[derive(Debug, Serialize, Deserialize)]
struct Known {
    path: String,
    root: RootIdentity,
    /// When it was found to be the one, a day ago at most: seconds and nanoseconds.
    seen: (i64, u32),
}

/// What a root is found to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// The one that the state speaks of.
    Same,
    /// Another one that may be used: nothing of the state holds for it.
    New,
}

/// The numbers of the generation in the state and on the disk; the first is 0 if there was none yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Generations {
    pub(super) known: u64,
    pub(super) on_disk: Option<u64>,
}

/// Finds out which root it is, and notes it. `home` is where the state is.
pub(super) fn check(
    state: &State,
    (root, path): (&Directory, &Path),
    home: &Path,
    generations: Generations,
) -> Result<Standing, ReplicaError> {
    let now = RootIdentity::of(root)?;
    let shown = shown(path);
    let known = state.value(KEY)?;
    let known: Option<Known> = known.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let standing = match &known {
        None => Standing::Same,
        Some(known) => match judge(known, &now, generations, || is_empty(root)) {
            Ok(standing) => standing,
            Err(_) if known.path != shown || roots::is_approved(home, &now) => Standing::New,
            Err(reason) => {
                roots::refuse(home, std::slice::from_ref(&shown), &now);
                return Err(ReplicaError::OtherRoot(format!(
                    "{shown} is not the directory that was written to before: {reason} (is a file system not mounted?); \
                     nothing was written; if it is meant, run `driftless approve --root {shown}` on the machine that has it"
                )));
            }
        },
    };
    let seen = now_in_seconds();
    let is_noted = known.is_some_and(|known| {
        let age = seen.0.saturating_sub(known.seen.0);
        known.path == shown && known.root == now && (0..NOTED_FOR_SECONDS).contains(&age)
    });
    if !is_noted {
        let known = Known {
            path: shown,
            root: now,
            seen,
        };
        state.put_value(KEY, &serde_json::to_vec(&known).unwrap_or_default())?;
    }
    roots::settle(home);
    Ok(standing)
}

fn judge(
    known: &Known,
    now: &RootIdentity,
    generations: Generations,
    is_empty: impl FnOnce() -> bool,
) -> Result<Standing, &'static str> {
    let shares = now.shares_file_system(&known.root);
    let is_copy = generations.known > 0 && generations.on_disk == Some(generations.known);
    if known.root.is_of(now) || is_copy {
        return Ok(Standing::Same);
    }
    if shares == Some(false) {
        return Err("it is on another file system");
    }
    // What lies on a file system that cannot be told apart from another may be anything.
    if shares == Some(true) && generations.on_disk.is_some() {
        return Ok(Standing::Same);
    }
    if shares == Some(true) && now.is_younger_than(known.seen) && is_empty() {
        return Ok(Standing::New);
    }
    Err("it was moved or replaced")
}

/// Escaped as in messages.
fn shown(path: &Path) -> String {
    let mut text = String::new();
    // Writing into a string cannot fail.
    let _ = name::escape(path.as_os_str().as_bytes(), &mut text);
    text
}

fn is_empty(root: &Directory) -> bool {
    root.list().is_ok_and(|listing| listing.entries.is_empty())
}

/// Since 1970, with nanoseconds.
fn now_in_seconds() -> (i64, u32) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    (seconds, now.subsec_nanos())
}
