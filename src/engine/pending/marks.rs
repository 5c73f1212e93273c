//! Whole directories that wait to be looked at.

use driftless_protocol::ObjectId;
use std::collections::HashMap;
use std::time::Instant;

/// Directories marked for one reason or another, each with the number that tells which mark came first. Marks are
/// always ready.
#[derive(Debug, Clone, Default)]
pub(super) struct Marks {
    pub(super) listing: HashMap<ObjectId, u64>,
    pub(super) attributes: HashMap<ObjectId, u64>,
    pub(super) gone: HashMap<ObjectId, u64>,
    /// Of the oldest change behind these marks, or behind a rescan.
    pub(super) since: Option<Instant>,
}

impl Marks {
    pub(super) fn len(&self) -> usize {
        self.listing.len() + self.attributes.len() + self.gone.len()
    }

    pub(super) fn forget(&mut self, directory: ObjectId) {
        self.listing.remove(&directory);
        self.attributes.remove(&directory);
        self.gone.remove(&directory);
    }
}

/// The marked directories, first marked first.
pub(super) fn in_order(marks: HashMap<ObjectId, u64>) -> Vec<ObjectId> {
    let mut marks: Vec<_> = marks.into_iter().collect();
    marks.sort_unstable_by_key(|&(_, number)| number);
    marks.into_iter().map(|(directory, _)| directory).collect()
}
