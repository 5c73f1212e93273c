//! Questions to the catalog, the same inside and outside a write transaction.

use super::record::{decode_entry, decode_tombstone};
use super::tables::{CHANGED, COUNTERS, INODES, LAST_SEQUENCE, META, NAMES, OBJECTS, TOMBSTONES, Tables};
use super::{Entry, NOWHERE, StoreError};
use driftless_protocol::message::Place;
use driftless_protocol::{Kind, Name, ObjectId};
use redb::{
    AccessGuard, Key, ReadOnlyTable, ReadTransaction, ReadableTable, ReadableTableMetadata, StorageError,
    TableDefinition, Value,
};
use std::cell::OnceCell;
use std::ops::Bound;

/// One thing that the journal says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The object has changed; its entry says what it is now.
    Object(ObjectId),
    /// The object is gone.
    Removed {
        /// Its number.
        object: ObjectId,
        /// Where it stood last.
        place: Place,
        /// What it was.
        kind: Kind,
        /// It and everything that went with it.
        entries: u64,
    },
}

/// The tables as something that answers; both kinds of transaction have them.
pub(super) trait Source {
    fn names(&self) -> Result<&impl ReadableTable<&'static [u8], u64>, StoreError>;
    fn objects(&self) -> Result<&impl ReadableTable<u64, &'static [u8]>, StoreError>;
    fn changed(&self) -> Result<&impl ReadableTable<u64, u64>, StoreError>;
    fn tombstones(&self) -> Result<&impl ReadableTable<u64, &'static [u8]>, StoreError>;
    fn inodes(&self) -> Result<&impl ReadableTable<(u64, u64), u64>, StoreError>;
    fn metadata(&self) -> Result<&impl ReadableTable<&'static str, &'static [u8]>, StoreError>;
    fn sequence(&self) -> Result<u64, StoreError>;
}

/// Questions that both [`View`] and [`Tables`] answer.
///
/// In a [`Tables`] the answers include what its own transaction has changed so far.
pub trait CatalogRead {
    /// The entry of an object.
    fn get(&self, object: ObjectId) -> Result<Option<Entry>, StoreError>;

    /// The object that a name stands for. Its entry's place is this place.
    fn lookup(&self, directory: ObjectId, name: &Name) -> Result<Option<ObjectId>, StoreError>;

    /// The names in a directory, in byte order.
    fn children(&self, directory: ObjectId) -> Result<Vec<(Name, ObjectId)>, StoreError>;

    /// The entries in a directory, in byte order of their names.
    fn child_entries(&self, directory: ObjectId) -> Result<Vec<Entry>, StoreError>;

    /// As [`CatalogRead::child_entries`], one at a time, for directories of any size. An error from `each` ends it.
    fn for_each_child(
        &self,
        directory: ObjectId,
        each: &mut dyn FnMut(Entry) -> Result<(), StoreError>,
    ) -> Result<(), StoreError>;

    /// At most `limit` of the entries in a directory that come after a name, in byte order of their names. Fewer mean: that
    /// was all.
    fn some_child_entries(
        &self,
        directory: ObjectId,
        after: Option<&Name>,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError>;

    /// Whether anything stands in a directory.
    fn has_children(&self, directory: ObjectId) -> Result<bool, StoreError>;

    /// The object with this identity on the local disk; always `None` in a receiver's catalog. Of several objects
    /// with one inode (hard links) it is the one put last.
    fn by_inode(&self, device: u64, inode: u64) -> Result<Option<ObjectId>, StoreError>;

    /// The journal after `sequence`, in order, at most `limit` changes. Fewer than `limit` means: that was all.
    fn changed_after(&self, sequence: u64, limit: usize) -> Result<Vec<(u64, Change)>, StoreError>;

    /// The highest sequence ever given out or used here; 0 for none. It does not sink when its object goes or its
    /// tombstone is dropped.
    fn last_sequence(&self) -> Result<u64, StoreError>;

    /// A value kept with the catalog.
    fn meta(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// How many objects there are. Costs nothing.
    fn count(&self) -> Result<u64, StoreError>;

    /// Every entry, in the order of their numbers. An error from `each` ends it.
    fn for_each(&self, each: &mut dyn FnMut(Entry) -> Result<(), StoreError>) -> Result<(), StoreError>;

    /// The names from the root down to an object: empty for [`ObjectId::ROOT`] and for whatever stands in
    /// [`NOWHERE`]. `None` when the object, or a directory on the way, is not in the catalog, or when the places
    /// run in a circle.
    fn path_of(&self, object: ObjectId) -> Result<Option<Vec<Name>>, StoreError>;

    /// Up to `limit` entries with numbers above `object`, in their order.
    fn entries_above(&self, object: ObjectId, limit: usize) -> Result<Vec<Entry>, StoreError>;
}

impl<S: Source> CatalogRead for S {
    fn get(&self, object: ObjectId) -> Result<Option<Entry>, StoreError> {
        self.objects()?
            .get(object.0)?
            .map(|record| decode_entry(object, record.value()))
            .transpose()
    }

    fn lookup(&self, directory: ObjectId, name: &Name) -> Result<Option<ObjectId>, StoreError> {
        let key = NameKey::new(directory, name);
        Ok(self
            .names()?
            .get(key.as_bytes())?
            .map(|object| ObjectId(object.value())))
    }

    fn children(&self, directory: ObjectId) -> Result<Vec<(Name, ObjectId)>, StoreError> {
        children_of(self.names()?, directory)?.collect()
    }

    fn child_entries(&self, directory: ObjectId) -> Result<Vec<Entry>, StoreError> {
        let mut entries = Vec::new();
        self.for_each_child(directory, &mut |entry| {
            entries.push(entry);
            Ok(())
        })?;
        Ok(entries)
    }

    fn for_each_child(
        &self,
        directory: ObjectId,
        each: &mut dyn FnMut(Entry) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut records = Records::of(self.objects()?);
        for item in names_in(self.names()?, directory)? {
            each(records.entry(item?.1.value())?)?;
        }
        Ok(())
    }

    fn some_child_entries(
        &self,
        directory: ObjectId,
        after: Option<&Name>,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let mut records = Records::of(self.objects()?);
        let names = names_after(self.names()?, directory, after)?;
        names
            .take(limit)
            .map(|item| records.entry(item?.1.value()))
            .collect()
    }

    fn has_children(&self, directory: ObjectId) -> Result<bool, StoreError> {
        Ok(names_in(self.names()?, directory)?.next().transpose()?.is_some())
    }

    fn by_inode(&self, device: u64, inode: u64) -> Result<Option<ObjectId>, StoreError> {
        Ok(self
            .inodes()?
            .get((device, inode))?
            .map(|object| ObjectId(object.value())))
    }

    fn changed_after(&self, sequence: u64, limit: usize) -> Result<Vec<(u64, Change)>, StoreError> {
        let after = (Bound::Excluded(sequence), Bound::Unbounded);
        let mut slots = self.changed()?.range::<u64>(after)?;
        let mut tombstones = self.tombstones()?.range::<u64>(after)?;
        let mut slot = slots.next().transpose()?;
        let mut tombstone = tombstones.next().transpose()?;
        let mut changes = Vec::new();
        while changes.len() < limit {
            let key = |item: &Option<(AccessGuard<'_, u64>, _)>| item.as_ref().map(|(key, _)| key.value());
            let slot_key = slot.as_ref().map(|(key, _)| key.value());
            match (slot_key, key(&tombstone)) {
                (None, None) => break,
                (Some(at), other) if other.is_none_or(|other| at < other) => {
                    let object = slot.as_ref().map(|(_, object)| ObjectId(object.value()));
                    changes.extend(object.map(|object| (at, Change::Object(object))));
                    slot = slots.next().transpose()?;
                }
                (_, at) => {
                    if let (Some(at), Some((_, record))) = (at, &tombstone) {
                        let (object, place, kind, entries) = decode_tombstone(record.value())?;
                        changes.push((
                            at,
                            Change::Removed {
                                object,
                                place,
                                kind,
                                entries,
                            },
                        ));
                    }
                    tombstone = tombstones.next().transpose()?;
                }
            }
        }
        Ok(changes)
    }

    fn last_sequence(&self) -> Result<u64, StoreError> {
        self.sequence()
    }

    fn meta(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.metadata()?.get(key)?.map(|value| value.value().to_vec()))
    }

    fn count(&self) -> Result<u64, StoreError> {
        Ok(self.objects()?.len()?)
    }

    fn for_each(&self, each: &mut dyn FnMut(Entry) -> Result<(), StoreError>) -> Result<(), StoreError> {
        for item in self.objects()?.iter()? {
            let (object, record) = item?;
            each(decode_entry(ObjectId(object.value()), record.value())?)?;
        }
        Ok(())
    }

    fn entries_above(&self, object: ObjectId, limit: usize) -> Result<Vec<Entry>, StoreError> {
        let above = (Bound::Excluded(object.0), Bound::Unbounded);
        let range = self.objects()?.range::<u64>(above)?.take(limit);
        let entries = range.map(|item| {
            let (object, record) = item?;
            decode_entry(ObjectId(object.value()), record.value())
        });
        entries.collect()
    }

    fn path_of(&self, object: ObjectId) -> Result<Option<Vec<Name>>, StoreError> {
        let mut names = Vec::new();
        let mut at = object;
        // Brent's way to notice a circle: meet a place that was noted, and note another ever more seldom.
        let mut noted = object;
        while at != ObjectId::ROOT {
            let Some(entry) = self.get(at)? else {
                return Ok(None);
            };
            if entry.place.directory == NOWHERE {
                break;
            }
            names.push(entry.place.name);
            at = entry.place.directory;
            if at == noted {
                return Ok(None);
            }
            if names.len().is_power_of_two() {
                noted = at;
            }
        }
        names.reverse();
        Ok(Some(names))
    }
}

type NamesRange<'a> = redb::Range<'a, &'static [u8], u64>;

/// The range of the names table that is one directory.
pub(super) fn names_in(
    names: &impl ReadableTable<&'static [u8], u64>,
    directory: ObjectId,
) -> Result<NamesRange<'_>, StorageError> {
    names_after(names, directory, None)
}

/// The part of it that comes after a name.
fn names_after<'a>(
    names: &'a impl ReadableTable<&'static [u8], u64>,
    directory: ObjectId,
    after: Option<&Name>,
) -> Result<NamesRange<'a>, StorageError> {
    let start = directory.0.to_be_bytes();
    let after = after.map(|name| NameKey::new(directory, name));
    let lower = after.as_ref().map_or(Bound::Included(&start[..]), |after| {
        Bound::Excluded(after.as_bytes())
    });
    let end = directory.0.checked_add(1).map(u64::to_be_bytes);
    let upper = end
        .as_ref()
        .map_or(Bound::Unbounded, |end| Bound::Excluded(&end[..]));
    names.range::<&[u8]>((lower, upper))
}

/// Records by number. Those of one directory mostly follow each other, as they were given out, and then one step in a range does
/// for a look-up.
struct Records<'a, T> {
    objects: &'a T,
    last: Option<u64>,
    ahead: Option<redb::Range<'a, u64, &'static [u8]>>,
}

impl<'a, T: ReadableTable<u64, &'static [u8]>> Records<'a, T> {
    fn of(objects: &'a T) -> Records<'a, T> {
        Records {
            objects,
            last: None,
            ahead: None,
        }
    }

    fn entry(&mut self, object: u64) -> Result<Entry, StoreError> {
        let follows = self.last.replace(object).and_then(|last| last.checked_add(1)) == Some(object);
        if !follows {
            self.ahead = None;
        } else if self.ahead.is_none() {
            self.ahead = Some(self.objects.range(object..)?);
        }
        let found = match &mut self.ahead {
            Some(ahead) => ahead.next().transpose()?.filter(|(key, _)| key.value() == object),
            None => None,
        };
        let record = match found {
            Some((_, record)) => Some(record),
            None => self.objects.get(object)?,
        };
        let record =
            record.ok_or_else(|| StoreError::damaged(format!("object {object} has a name but no record")))?;
        decode_entry(ObjectId(object), record.value())
    }
}

/// As [`names_in`], decoded.
pub(super) fn children_of(
    names: &impl ReadableTable<&'static [u8], u64>,
    directory: ObjectId,
) -> Result<impl Iterator<Item = Result<(Name, ObjectId), StoreError>>, StorageError> {
    Ok(names_in(names, directory)?.map(|item| {
        let (key, object) = item?;
        let name = key.value().get(8..).and_then(|bytes| Name::new(bytes).ok());
        let name = name.ok_or_else(|| StoreError::damaged("a key of the names makes no sense"))?;
        Ok((name, ObjectId(object.value())))
    }))
}

/// A key of the names table: directory, big endian so that a directory is one range, then the name.
pub(super) struct NameKey {
    bytes: [u8; 8 + 255],
    length: usize,
}

impl NameKey {
    pub(super) fn new(directory: ObjectId, name: &Name) -> NameKey {
        let name = name.as_bytes();
        let length = 8 + name.len();
        let mut bytes = [0; 8 + 255];
        bytes[..8].copy_from_slice(&directory.0.to_be_bytes());
        bytes[8..length].copy_from_slice(name);
        NameKey { bytes, length }
    }

    pub(super) fn of(place: &Place) -> NameKey {
        NameKey::new(place.directory, &place.name)
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// The catalog as of the last commit before this view was opened. Later commits don't change it.
///
/// While a view is open the pages that it shows are not reused: keep it short where much is written. Tables are opened when they
/// are asked: to open all takes longer than most questions.
pub struct View<'a> {
    names: OnceCell<ReadOnlyTable<&'static [u8], u64>>,
    objects: OnceCell<ReadOnlyTable<u64, &'static [u8]>>,
    changed: OnceCell<ReadOnlyTable<u64, u64>>,
    tombstones: OnceCell<ReadOnlyTable<u64, &'static [u8]>>,
    inodes: OnceCell<ReadOnlyTable<(u64, u64), u64>>,
    meta: OnceCell<ReadOnlyTable<&'static str, &'static [u8]>>,
    counters: OnceCell<ReadOnlyTable<&'static str, u64>>,
    transaction: &'a ReadTransaction,
}

impl<'a> View<'a> {
    pub(super) fn new(transaction: &'a ReadTransaction) -> View<'a> {
        View {
            names: OnceCell::new(),
            objects: OnceCell::new(),
            changed: OnceCell::new(),
            tombstones: OnceCell::new(),
            inodes: OnceCell::new(),
            meta: OnceCell::new(),
            counters: OnceCell::new(),
            transaction,
        }
    }

    /// Whether every table is there and of its types.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        self.names()?;
        self.objects()?;
        self.changed()?;
        self.tombstones()?;
        self.inodes()?;
        self.metadata()?;
        self.sequence()?;
        Ok(())
    }

    fn table<'t, K: Key + 'static, V: Value + 'static>(
        &self,
        table: &'t OnceCell<ReadOnlyTable<K, V>>,
        definition: TableDefinition<'_, K, V>,
    ) -> Result<&'t ReadOnlyTable<K, V>, StoreError> {
        if let Some(open) = table.get() {
            return Ok(open);
        }
        let open = self.transaction.open_table(definition)?;
        Ok(table.get_or_init(|| open))
    }
}

impl Source for View<'_> {
    fn names(&self) -> Result<&impl ReadableTable<&'static [u8], u64>, StoreError> {
        self.table(&self.names, NAMES)
    }

    fn objects(&self) -> Result<&impl ReadableTable<u64, &'static [u8]>, StoreError> {
        self.table(&self.objects, OBJECTS)
    }

    fn changed(&self) -> Result<&impl ReadableTable<u64, u64>, StoreError> {
        self.table(&self.changed, CHANGED)
    }

    fn tombstones(&self) -> Result<&impl ReadableTable<u64, &'static [u8]>, StoreError> {
        self.table(&self.tombstones, TOMBSTONES)
    }

    fn inodes(&self) -> Result<&impl ReadableTable<(u64, u64), u64>, StoreError> {
        self.table(&self.inodes, INODES)
    }

    fn metadata(&self) -> Result<&impl ReadableTable<&'static str, &'static [u8]>, StoreError> {
        self.table(&self.meta, META)
    }

    fn sequence(&self) -> Result<u64, StoreError> {
        let counters = self.table(&self.counters, COUNTERS)?;
        Ok(counters.get(LAST_SEQUENCE)?.map_or(0, |value| value.value()))
    }
}

impl Source for Tables<'_> {
    fn names(&self) -> Result<&impl ReadableTable<&'static [u8], u64>, StoreError> {
        Ok(&self.names)
    }

    fn objects(&self) -> Result<&impl ReadableTable<u64, &'static [u8]>, StoreError> {
        Ok(&self.objects)
    }

    fn changed(&self) -> Result<&impl ReadableTable<u64, u64>, StoreError> {
        Ok(&self.changed)
    }

    fn tombstones(&self) -> Result<&impl ReadableTable<u64, &'static [u8]>, StoreError> {
        Ok(&self.tombstones)
    }

    fn inodes(&self) -> Result<&impl ReadableTable<(u64, u64), u64>, StoreError> {
        Ok(&self.inodes)
    }

    fn metadata(&self) -> Result<&impl ReadableTable<&'static str, &'static [u8]>, StoreError> {
        Ok(&self.meta)
    }

    fn sequence(&self) -> Result<u64, StoreError> {
        Ok(self.counts.sequence)
    }
}
