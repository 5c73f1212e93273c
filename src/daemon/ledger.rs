//! The tree sum of a catalog, kept in step with it.

mod kept;

use crate::engine::sum::{Element, SumState};
use crate::store::{CatalogRead, Entry, StoreError};
use driftless_protocol::{Attributes, Carried, EntrySum, Kind, ObjectId, OwnerKind, TreeSum};
use std::collections::HashSet;

/// Flags of a sender's catalog entries. A receiver's entries have none.
pub mod flags {
    /// The target is known to hold this object, as of its last durable acknowledgement.
    pub const ON_TARGET: u8 = 1;
    /// The digest is that of an older content: read the file again.
    pub const STALE: u8 = 2;
    /// The object moved since the target heard of it.
    pub const MOVED: u8 = 4;
    /// Attributes changed since the target heard of them.
    pub const ATTRIBUTES: u8 = 8;
    /// The target has a file of the same size and time here, of unknown content: offer before sending.
    pub const OFFER: u8 = 16;
    /// When the file was read, somebody could write to it through a mapping without moving its times. A look without an
    /// event has it read again, written out first.
    pub const HIDES: u8 = 32;
    /// The target is to be left as it is here: the entry is in no sum. Without a number in the journal it waits for its next
    /// change. With `OFFER`, a directory that holds something stands there, and is no part of the mirror.
    pub const WITHHELD: u8 = 64;
    /// One of several names of a file, of which the target may have made a file of its own: to have the right content is not
    /// enough, it has to become a link to the others.
    pub const PARTED: u8 = 128;
}

/// The running sum over the entries of a catalog, and how many are not in it yet.
#[derive(Debug, Default)]
pub struct Ledger {
    sum: SumState,
    carried: Carried,
    /// Entries whose content is not known for certain.
    unknown: u64,
    /// Entries that the target does not get.
    withheld: u64,
    owners: OwnerIds,
    /// It was made in an earlier run.
    is_from_before: bool,
}

/// Users and groups by number.
#[derive(Debug, Default)]
pub struct OwnerIds {
    users: HashSet<u32>,
    groups: HashSet<u32>,
    /// A sum over all of them, by which one set is told from another.
    sum: u128,
    /// The last that were noted: most often they are those of the next.
    last: Option<(u32, u32)>,
}

impl OwnerIds {
    fn note(&mut self, attributes: &Attributes) {
        let owner = (attributes.uid, attributes.gid);
        if self.last.replace(owner) != Some(owner) {
            self.note_one(OwnerKind::User, owner.0);
            self.note_one(OwnerKind::Group, owner.1);
        }
    }

    fn note_one(&mut self, kind: OwnerKind, id: u32) {
        let (ids, tag) = match kind {
            OwnerKind::User => (&mut self.users, b'u'),
            OwnerKind::Group => (&mut self.groups, b'g'),
        };
        if ids.insert(id) {
            let [a, b, c, d] = id.to_be_bytes();
            let mut sum = [0; 16];
            sum.copy_from_slice(&blake3::hash(&[tag, a, b, c, d]).as_bytes()[..16]);
            self.sum = self.sum.wrapping_add(u128::from_be_bytes(sum));
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (OwnerKind, u32)> {
        let users = self.users.iter().map(|&id| (OwnerKind::User, id));
        users.chain(self.groups.iter().map(|&id| (OwnerKind::Group, id)))
    }
}

impl Ledger {
    /// Sums up a whole catalog, streaming. See [`Ledger::of_catalog`] for what need not be summed up.
    pub fn of(catalog: &impl CatalogRead, carried: Carried) -> Result<Ledger, StoreError> {
        let mut ledger = Ledger {
            carried,
            ..Ledger::default()
        };
        catalog.for_each(&mut |entry: Entry| {
            ledger.replace(None, Some(&entry));
            Ok(())
        })?;
        Ok(ledger)
    }

    /// One entry took the place of another; either may be none.
    pub fn replace(&mut self, old: Option<&Entry>, new: Option<&Entry>) {
        let is_left = |entry: &&Entry| self.carried.leaves_root && entry.object == ObjectId::ROOT;
        let (old, new) = (
            old.filter(|entry| !is_left(entry)),
            new.filter(|entry| !is_left(entry)),
        );
        let is_withheld = |entry: &&Entry| entry.flags & flags::WITHHELD != 0;
        self.withheld -= u64::from(old.as_ref().is_some_and(is_withheld));
        self.withheld += u64::from(new.as_ref().is_some_and(is_withheld));
        if let Some(entry) = old.filter(|entry| !is_withheld(entry)) {
            match counted(entry, self.carried) {
                Some(sum) => self.sum.remove(&element(entry, sum)),
                None => self.unknown -= u64::from(!entry.object.is_local()),
            }
        }
        if let Some(entry) = new {
            self.owners.note(&entry.attributes);
        }
        if let Some(entry) = new.filter(|entry| !is_withheld(entry)) {
            match counted(entry, self.carried) {
                Some(sum) => self.sum.add(&element(entry, sum)),
                None => self.unknown += u64::from(!entry.object.is_local()),
            }
        }
    }

    /// The sum now.
    pub fn fold(&self) -> TreeSum {
        self.sum.fold()
    }

    /// A copy of the running sum, to try changes on.
    pub fn state(&self) -> SumState {
        self.sum.clone()
    }

    /// How many entries are not in the sum because their content is not known for certain.
    pub fn unknown(&self) -> u64 {
        self.unknown
    }

    /// The users and groups that entries have or had.
    pub fn owners(&self) -> &OwnerIds {
        &self.owners
    }

    /// How many entries the target is not to get.
    pub fn withheld(&self) -> u64 {
        self.withheld
    }

    /// The attributes that the sum covers.
    pub fn carried(&self) -> Carried {
        self.carried
    }
}

/// The entry as an element of sums.
pub fn element(entry: &Entry, sum: EntrySum) -> Element<'_> {
    Element {
        directory: entry.place.directory,
        name: entry.place.name.as_bytes(),
        object: entry.object,
        sum,
    }
}

/// The entry's sum, with a zero digest where the content is not known.
pub fn entry_sum(entry: &Entry, carried: Carried) -> EntrySum {
    let digest = entry.digest.unwrap_or_default();
    EntrySum::of(entry.kind, entry.attributes, carried, entry.size, digest)
}

/// The entry's sum if it counts: not a receiver's own find, and of known content.
pub fn counted(entry: &Entry, carried: Carried) -> Option<EntrySum> {
    let known = entry.kind == Kind::Directory || (entry.digest.is_some() && entry.flags & flags::STALE == 0);
    (known && !entry.object.is_local()).then(|| entry_sum(entry, carried))
}
