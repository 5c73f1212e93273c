//! Changes to the catalog, and what keeps its tables consistent.
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | `names` | directory (u64 big endian), name | object |
//! | `objects` | object | its record |
//! | `changed` | sequence | object |
//! | `tombstones` | sequence | object, place, kind and number of entries of what was removed |
//! | `inodes` | device, inode | object; a sender's catalog only |
//! | `meta` | text | whatever the owner of the catalog keeps there |
//! | `counters` | text | schema, role, next numbers, last sequence |
//!
//! After every change:
//! - a name that leads to an object is that object's place (the reverse may fail: see [`Tables::put`]);
//! - an object with a sequence has exactly that slot in `changed`, one without has none, and no sequence is both in
//!   `changed` and in `tombstones`;
//! - an inode that leads to an object is in that object's stamp.

use super::read::{CatalogRead, NameKey, children_of};
use super::record::{decode_entry, decode_tombstone, encode_entry, encode_tombstone, inode_of};
use super::{Entry, Role, StoreError};
use driftless_protocol::message::Place;
use driftless_protocol::{Kind, Name, ObjectId};
use redb::{ReadableTable, ReadableTableMetadata, Table, TableDefinition, WriteTransaction};

pub(super) const NAMES: TableDefinition<'_, &[u8], u64> = TableDefinition::new("names");
pub(super) const OBJECTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("objects");
pub(super) const CHANGED: TableDefinition<'_, u64, u64> = TableDefinition::new("changed");
pub(super) const TOMBSTONES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("tombstones");
pub(super) const INODES: TableDefinition<'_, (u64, u64), u64> = TableDefinition::new("inodes");
pub(super) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
pub(super) const COUNTERS: TableDefinition<'_, &str, u64> = TableDefinition::new("counters");

pub(super) const LAST_SEQUENCE: &str = "last-sequence";
pub(super) const NEXT_OBJECT: &str = "next-object";
pub(super) const NEXT_LOCAL: &str = "next-local";

/// Where a value is kept that was made of all objects; see [`Tables::keep_sum`].
pub(super) const KEPT_SUM: &str = "kept-sum";

/// Numbers reserved on disk at a time; see [`Series`].
const RESERVED_AHEAD: u64 = 1 << 20;

/// Children handled at a time where a whole directory is.
const CHUNK: usize = 1_024;

/// Numbers that are never given out twice.
///
/// A number may leave this machine before the transaction that gave it out is on stable storage, so the disk always
/// holds a bound above all of them: it is raised by a million whenever it is reached, in a commit that is made
/// durable for it. A restart goes on at the bound and skips what is below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Series {
    /// The next to give out.
    pub(super) next: u64,
    /// What the disk says.
    pub(super) reserved: u64,
    /// Where the series ends.
    end: u64,
}

impl Series {
    fn take(&mut self) -> Result<ObjectId, StoreError> {
        if self.next >= self.end {
            return Err(StoreError::NumbersExhausted);
        }
        self.next += 1;
        Ok(ObjectId(self.next - 1))
    }

    fn raise(&mut self, next: u64) {
        self.next = self.next.max(next);
    }
}

/// What the catalog counts, kept in memory between transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) objects: Series,
    pub(super) locals: Series,
    pub(super) sequence: u64,
}

impl Counts {
    pub(super) fn load(table: &impl ReadableTable<&'static str, u64>) -> Result<Counts, StoreError> {
        let series = |key, first: u64, end: u64| -> Result<Series, StoreError> {
            let reserved = table
                .get(key)?
                .map_or(first, |value| value.value())
                .clamp(first, end);
            Ok(Series {
                next: reserved,
                reserved,
                end,
            })
        };
        let first_local = ObjectId::FIRST_LOCAL.0;
        Ok(Counts {
            objects: series(NEXT_OBJECT, ObjectId::ROOT.0 + 1, first_local)?,
            locals: series(NEXT_LOCAL, first_local, u64::MAX)?,
            sequence: table.get(LAST_SEQUENCE)?.map_or(0, |value| value.value()),
        })
    }
}

/// Whether two entries of an object are the same but for what no kept sum is made of: how it looks on this disk, and where it
/// is in the journal.
fn is_summed_alike(old: &Entry, new: &Entry) -> bool {
    let Entry {
        object,
        kind,
        place,
        attributes,
        size,
        digest,
        stamp: _,
        sequence: _,
        flags,
    } = old;
    (*object, *kind, *size, *digest, *flags) == (new.object, new.kind, new.size, new.digest, new.flags)
        && *place == new.place
        && *attributes == new.attributes
}

/// One write transaction on the catalog; see [`super::Catalog::update`]. Reading is in [`CatalogRead`].
pub struct Tables<'t> {
    pub(super) names: Table<'t, &'static [u8], u64>,
    pub(super) objects: Table<'t, u64, &'static [u8]>,
    pub(super) changed: Table<'t, u64, u64>,
    pub(super) tombstones: Table<'t, u64, &'static [u8]>,
    pub(super) inodes: Table<'t, (u64, u64), u64>,
    pub(super) meta: Table<'t, &'static str, &'static [u8]>,
    counters: Table<'t, &'static str, u64>,
    pub(super) counts: Counts,
    counted: Counts,
    role: Role,
    buffer: Vec<u8>,
    /// What was kept of all objects holds no more.
    is_sum_stale: bool,
}

impl<'t> Tables<'t> {
    pub(super) fn new(
        transaction: &'t WriteTransaction,
        role: Role,
        counts: Counts,
    ) -> Result<Tables<'t>, StoreError> {
        Ok(Tables {
            names: transaction.open_table(NAMES)?,
            objects: transaction.open_table(OBJECTS)?,
            changed: transaction.open_table(CHANGED)?,
            tombstones: transaction.open_table(TOMBSTONES)?,
            inodes: transaction.open_table(INODES)?,
            meta: transaction.open_table(META)?,
            counters: transaction.open_table(COUNTERS)?,
            counts,
            counted: counts,
            role,
            buffer: Vec::new(),
            is_sum_stale: false,
        })
    }

    /// Writes the counters; says what they are now and whether this transaction must be durable because of them.
    pub(super) fn finish(mut self) -> Result<(Counts, bool), StoreError> {
        if self.is_sum_stale && self.meta.get(KEPT_SUM)?.is_some() {
            self.meta.remove(KEPT_SUM)?;
        }
        if self.counts.sequence != self.counted.sequence {
            self.counters.insert(LAST_SEQUENCE, self.counts.sequence)?;
        }
        let mut must_last = false;
        for (key, series) in [
            (NEXT_OBJECT, &mut self.counts.objects),
            (NEXT_LOCAL, &mut self.counts.locals),
        ] {
            if series.next > series.reserved {
                series.reserved = series.next.saturating_add(RESERVED_AHEAD).min(series.end);
                self.counters.insert(key, series.reserved)?;
                must_last = true;
            }
        }
        Ok((self.counts, must_last))
    }

    /// Inserts or replaces the entry of `entry.object`.
    ///
    /// The object's former name, slot in the journal and inode go. If another object has the place, the name leads
    /// to this one from now on; the other keeps its record, which then has a place that does not lead to it, until
    /// it is put elsewhere or removed. A `sequence` must come from [`Tables::next_sequence`] or be the one that the
    /// object already has; one that another object or a tombstone holds is refused.
    pub fn put(&mut self, entry: &Entry) -> Result<(), StoreError> {
        let object = entry.object.0;
        encode_entry(entry, &mut self.buffer);
        let old = self
            .objects
            .insert(object, self.buffer.as_slice())?
            .map(|record| decode_entry(entry.object, record.value()))
            .transpose()?;
        let old = old.as_ref();
        self.is_sum_stale |= old.is_none_or(|old| !is_summed_alike(old, entry));

        let key = NameKey::of(&entry.place);
        match old {
            Some(old) if old.place == entry.place => {
                let holder = self.names.get(key.as_bytes())?.map(|holder| holder.value());
                if holder != Some(object) {
                    self.names.insert(key.as_bytes(), object)?;
                }
            }
            _ => {
                if let Some(old) = old {
                    self.drop_name(old)?;
                }
                self.names.insert(key.as_bytes(), object)?;
            }
        }

        let old_sequence = old.map_or(0, |old| old.sequence);
        if old_sequence != entry.sequence {
            if old_sequence != 0 {
                self.changed.remove(old_sequence)?;
            }
            if entry.sequence != 0 {
                self.claim_sequence(entry.sequence)?;
                if self.changed.insert(entry.sequence, object)?.is_some() {
                    return Err(StoreError::SequenceTaken {
                        sequence: entry.sequence,
                    });
                }
            }
        }

        if self.role == Role::Sender {
            let old_inode = old.and_then(|old| old.stamp.as_ref()).map(inode_of);
            let inode = entry.stamp.as_ref().map(inode_of);
            if old_inode != inode {
                self.drop_inode(entry.object, old_inode)?;
            }
            if let Some(inode) = inode {
                let holder = self.inodes.get(inode)?.map(|holder| holder.value());
                if holder != Some(object) {
                    self.inodes.insert(inode, object)?;
                }
            }
        }
        self.saw(entry.object);
        Ok(())
    }

    /// Removes an object and returns what it was. With a `tombstone`, a sequence from [`Tables::next_sequence`], the
    /// journal remembers the removal; nothing is remembered of an object that was not there.
    ///
    /// Its name goes if it still leads to it. What stands below a directory stays: see [`Tables::remove_below`].
    pub fn remove(&mut self, object: ObjectId, tombstone: Option<u64>) -> Result<Option<Entry>, StoreError> {
        let Some(entry) = self
            .objects
            .remove(object.0)?
            .map(|record| decode_entry(object, record.value()))
            .transpose()?
        else {
            return Ok(None);
        };
        self.is_sum_stale = true;
        self.drop_name(&entry)?;
        if entry.sequence != 0 {
            self.changed.remove(entry.sequence)?;
        }
        self.drop_inode(object, entry.stamp.as_ref().map(inode_of))?;
        if let Some(sequence) = tombstone {
            self.claim_sequence(sequence)?;
            let record = encode_tombstone(object, &entry.place, entry.kind, 1);
            self.tombstones.insert(sequence, record.as_slice())?;
            if self.changed.get(sequence)?.is_some() {
                return Err(StoreError::SequenceTaken { sequence });
            }
        }
        Ok(Some(entry))
    }

    /// Says of a tombstone for how many entries it counts: those that went with its object, and the object itself.
    pub fn weigh_tombstone(&mut self, sequence: u64, entries: u64) -> Result<(), StoreError> {
        let known = self.tombstones.get(sequence)?;
        let known = known.map(|record| decode_tombstone(record.value())).transpose()?;
        if let Some((object, place, kind, _)) = known {
            let record = encode_tombstone(object, &place, kind, entries);
            self.tombstones.insert(sequence, record.as_slice())?;
        }
        Ok(())
    }

    /// Removes everything below `directory`, not itself, without tombstones. `each` sees every entry, a directory
    /// before what is in it. Uses no recursion and memory only for directories still to be looked into.
    pub fn remove_below(
        &mut self,
        directory: ObjectId,
        mut each: impl FnMut(&Entry),
    ) -> Result<(), StoreError> {
        let mut directories = vec![directory];
        while let Some(&at) = directories.last() {
            let children = self.some_children(at)?;
            if children.is_empty() {
                directories.pop();
                continue;
            }
            // Each round takes names away, so this ends even if the places run in a circle.
            for (name, object) in children {
                self.names.remove(NameKey::new(at, &name).as_bytes())?;
                if let Some(entry) = self.remove(object, None)? {
                    if entry.kind == Kind::Directory {
                        directories.push(object);
                    }
                    each(&entry);
                }
            }
        }
        Ok(())
    }

    /// Gives the object `old` the number `new`, with its name, slot, inode and, for a directory, everything in it.
    /// Says whether there was such an object.
    ///
    /// A `new` that is in the catalog is refused with [`StoreError::NumberTaken`]; if that can be stale, remove it
    /// first. Tombstones keep their numbers.
    pub fn relabel(&mut self, old: ObjectId, new: ObjectId) -> Result<bool, StoreError> {
        if old == new {
            return Ok(self.objects.get(old.0)?.is_some());
        }
        if self.objects.get(new.0)?.is_some() {
            return Err(StoreError::NumberTaken { object: new });
        }
        let Some(record) = self.objects.remove(old.0)?.map(|record| record.value().to_vec()) else {
            return Ok(false);
        };
        self.is_sum_stale = true;
        self.objects.insert(new.0, record.as_slice())?;
        let entry = decode_entry(old, &record)?;
        let key = NameKey::of(&entry.place);
        if self
            .names
            .get(key.as_bytes())?
            .is_some_and(|holder| holder.value() == old.0)
        {
            self.names.insert(key.as_bytes(), new.0)?;
        }
        if entry.sequence != 0 {
            self.changed.insert(entry.sequence, new.0)?;
        }
        if let Some(inode) = entry.stamp.as_ref().map(inode_of)
            && self
                .inodes
                .get(inode)?
                .is_some_and(|holder| holder.value() == old.0)
        {
            self.inodes.insert(inode, new.0)?;
        }
        if entry.kind == Kind::Directory {
            self.adopt_children(old, new)?;
        }
        self.saw(new);
        Ok(true)
    }

    /// Keeps a value with the catalog; it goes when the catalog does.
    pub fn set_meta(&mut self, key: &str, value: &[u8]) -> Result<(), StoreError> {
        self.meta.insert(key, value)?;
        Ok(())
    }

    /// Forgets a value; says whether there was one.
    pub fn delete_meta(&mut self, key: &str) -> Result<bool, StoreError> {
        Ok(self.meta.remove(key)?.is_some())
    }

    /// Keeps a value that was made of all objects as they are now, so that it need not be made again at the next start. The
    /// first change of any object takes it away, in the same transaction: [`Catalog::kept_sum`] never gives an outdated one.
    /// It may not depend on stamps and sequences, which change without that.
    ///
    /// [`Catalog::kept_sum`]: super::Catalog::kept_sum
    pub fn keep_sum(&mut self, value: &[u8]) -> Result<(), StoreError> {
        self.is_sum_stale = false;
        self.set_meta(KEPT_SUM, value)
    }

    /// A number that this catalog has neither given out nor seen: 2 at first, increasing.
    ///
    /// It is never given out again, not even after a crash that loses this transaction; a restart leaves a gap.
    /// Only deleting the catalog starts over: a sender that must not reuse numbers then calls
    /// [`Tables::raise_next_object`] with what its state remembers.
    pub fn next_object(&mut self) -> Result<ObjectId, StoreError> {
        self.counts.objects.take()
    }

    /// As [`Tables::next_object`], from [`ObjectId::FIRST_LOCAL`] up, for what a receiver finds on its own disk.
    pub fn next_local(&mut self) -> Result<ObjectId, StoreError> {
        loop {
            let number = self.counts.locals.take()?;
            if self.objects.get(number.0)?.is_none() {
                return Ok(number);
            }
        }
    }

    /// Makes [`Tables::next_object`] give out nothing below `floor`.
    pub fn raise_next_object(&mut self, floor: ObjectId) {
        self.counts.objects.raise(floor.0.min(ObjectId::FIRST_LOCAL.0));
    }

    /// The next place in the journal: 1 at first. Those of a transaction that fails are given out again.
    pub fn next_sequence(&mut self) -> Result<u64, StoreError> {
        let next = self
            .counts
            .sequence
            .checked_add(1)
            .ok_or(StoreError::NumbersExhausted)?;
        self.counts.sequence = next;
        Ok(next)
    }

    /// Makes [`Tables::next_sequence`] give out nothing up to `last`: for a new catalog whose predecessor's numbers
    /// are known elsewhere.
    pub fn raise_last_sequence(&mut self, last: u64) {
        self.counts.sequence = self.counts.sequence.max(last);
    }

    /// Forgets the tombstones up to `sequence`, which every target has passed.
    pub fn drop_tombstones_through(&mut self, sequence: u64) -> Result<(), StoreError> {
        Ok(self.tombstones.retain_in(..=sequence, |_, _| false)?)
    }

    /// The tombstones up to `sequence`: the number of each, and what was removed from where.
    pub fn tombstones_through(&self, sequence: u64) -> Result<Vec<(u64, ObjectId, Place)>, StoreError> {
        let mut found = Vec::new();
        for tombstone in self.tombstones.range(..=sequence)? {
            let (number, record) = tombstone?;
            let (object, place, ..) = decode_tombstone(record.value())?;
            found.push((number.value(), object, place));
        }
        Ok(found)
    }

    /// Removes all objects, the journal and all values. Counters stay: what was given out is not given out again.
    pub fn clear(&mut self) -> Result<(), StoreError> {
        self.names.retain(|_, _| false)?;
        self.objects.retain(|_, _| false)?;
        self.changed.retain(|_, _| false)?;
        self.tombstones.retain(|_, _| false)?;
        self.inodes.retain(|_, _| false)?;
        self.meta.retain(|_, _| false)?;
        Ok(())
    }

    fn adopt_children(&mut self, old: ObjectId, new: ObjectId) -> Result<(), StoreError> {
        loop {
            let children = self.some_children(old)?;
            if children.is_empty() {
                return Ok(());
            }
            for (name, child) in children {
                self.names.remove(NameKey::new(old, &name).as_bytes())?;
                self.names.insert(NameKey::new(new, &name).as_bytes(), child.0)?;
                let mut entry = self.get(child)?.ok_or_else(|| {
                    StoreError::damaged(format!("object {} has a name but no record", child.0))
                })?;
                entry.place.directory = new;
                encode_entry(&entry, &mut self.buffer);
                self.objects.insert(child.0, self.buffer.as_slice())?;
            }
        }
    }

    fn some_children(&self, directory: ObjectId) -> Result<Vec<(Name, ObjectId)>, StoreError> {
        children_of(&self.names, directory)?.take(CHUNK).collect()
    }

    fn drop_name(&mut self, entry: &Entry) -> Result<(), StoreError> {
        let key = NameKey::of(&entry.place);
        let holder = self.names.get(key.as_bytes())?.map(|holder| holder.value());
        if holder == Some(entry.object.0) {
            self.names.remove(key.as_bytes())?;
        }
        Ok(())
    }

    fn drop_inode(&mut self, object: ObjectId, inode: Option<(u64, u64)>) -> Result<(), StoreError> {
        let Some(inode) = inode else { return Ok(()) };
        let holder = self.inodes.get(inode)?.map(|holder| holder.value());
        if holder == Some(object.0) {
            self.inodes.remove(inode)?;
        }
        Ok(())
    }

    /// Checks against the tombstones; the caller checks against the slots.
    fn claim_sequence(&mut self, sequence: u64) -> Result<(), StoreError> {
        if !self.tombstones.is_empty()? && self.tombstones.get(sequence)?.is_some() {
            return Err(StoreError::SequenceTaken { sequence });
        }
        self.raise_last_sequence(sequence);
        Ok(())
    }

    /// Keeps a sender's series ahead of what is in its catalog. A receiver's objects are numbered by its sender, which
    /// must not be able to use up the numbers here.
    fn saw(&mut self, object: ObjectId) {
        if self.role == Role::Sender && !object.is_local() {
            self.counts.objects.raise(object.0 + 1);
        }
    }
}
