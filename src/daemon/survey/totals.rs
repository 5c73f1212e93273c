//! What a survey counts.

use crate::engine::itemize::{Change, Item};
use driftless_protocol::Kind;
use serde::Serialize;

/// Numbers of a survey, as `rsync --stats` counts them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Entries of the source that are mirrored, the root included.
    pub entries: Kinds,
    /// Those that the target has not.
    pub created: Kinds,
    /// Entries that only the target has and that go.
    pub deleted: Kinds,
    /// Entries that only the target has and that stay.
    pub extras_kept: u64,
    /// Files whose content is sent, or compared.
    pub transferred: u64,
    /// Bytes of all files of the source.
    pub bytes: u64,
    /// Bytes of those that are transferred.
    pub transferred_bytes: u64,
}

/// Entries by what they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Kinds {
    /// Regular files.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Symbolic links.
    pub links: u64,
    /// Devices.
    pub devices: u64,
    /// FIFOs.
    pub specials: u64,
}

impl Kinds {
    fn of(&mut self, kind: Kind) -> &mut u64 {
        match kind {
            Kind::File => &mut self.files,
            Kind::Directory => &mut self.directories,
            Kind::Symlink => &mut self.links,
            Kind::CharDevice | Kind::BlockDevice => &mut self.devices,
            Kind::Fifo => &mut self.specials,
        }
    }

    pub(super) fn count(&mut self, kind: Kind) {
        *self.of(kind) += 1;
    }

    /// All of them.
    pub fn all(&self) -> u64 {
        self.files + self.directories + self.links + self.devices + self.specials
    }
}

impl Totals {
    /// The numbers that an item counts in, and by how much.
    fn shares(&mut self, item: &Item) -> Vec<(&mut u64, u64)> {
        let Some(differences) = item.differences() else {
            return vec![(self.deleted.of(item.kind), 1)];
        };
        let mut shares = Vec::new();
        if differences.is_new {
            shares.push((self.created.of(item.kind), 1));
        }
        if differences.transfer && matches!(item.change, Change::Update(_)) {
            shares.push((&mut self.transferred, 1));
            shares.push((&mut self.transferred_bytes, item.bytes));
        }
        shares
    }

    pub(super) fn add(&mut self, item: &Item) {
        for (number, by) in self.shares(item) {
            *number += by;
        }
    }

    /// An item that was counted did not come to pass.
    pub fn take_back(&mut self, item: &Item) {
        for (number, by) in self.shares(item) {
            *number = number.saturating_sub(by);
        }
    }
}
