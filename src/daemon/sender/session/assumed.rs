//! Files that only grow, as the user says: what was added is sent at once, and the rest is looked at soon after.

use super::super::reader::FileRef;
use super::super::source::stamp_of;
use crate::fs::{Stamp, Stat};
use crate::store::Entry;
use driftless_protocol::ObjectId;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// What was assumed of files, and not verified yet.
#[derive(Debug, Default)]
pub(super) struct Assumed(HashMap<ObjectId, Assumption>);

#[derive(Debug)]
struct Assumption {
    /// When it has to be verified.
    due: Instant,
    /// What the file was when its end was read.
    stamp: Stamp,
}

impl Assumed {
    /// Whether the beginning of a file may go unread now.
    pub(super) fn may_assume(&self, object: ObjectId) -> bool {
        let assumption = self.0.get(&object);
        assumption.is_none_or(|assumption| Instant::now() < assumption.due)
    }

    /// A file was read, whole or only what was added.
    pub(super) fn note(&mut self, file: &FileRef, stat: &Stat, verify_within: Duration) {
        if !file.only_grows {
            self.0.remove(&file.object);
            return;
        }
        let stamp = stat.stamp;
        let due = Instant::now() + verify_within;
        let assumption = self.0.entry(file.object).or_insert(Assumption { due, stamp });
        assumption.stamp = stamp;
    }

    /// Whether the content that was read last is partly an assumption.
    pub(super) fn is_assumed(&self, object: ObjectId) -> bool {
        self.0.contains_key(&object)
    }

    /// When a file has to be verified, if nothing was added since its end was read. None: it may be read now.
    pub(super) fn due(&self, entry: &Entry) -> Option<Instant> {
        let assumption = self.0.get(&entry.object)?;
        let is_news = stamp_of(entry) != Some(assumption.stamp);
        (!is_news && Instant::now() < assumption.due).then_some(assumption.due)
    }
}
