//! What the catalog notes about itself: the cursor, what its digests are of, and whether all of it is on stable storage. And what the state
//! notes of the mirror: whether it ever sent anything.

use super::*;

const META_CURSOR: &str = "cursor";

const META_XATTRS: &str = "xattr classes";

/// Whether the names that the catalog has are on stable storage, too.
const META_FLUSHED: &str = "flushed";

/// Whether there are entries that no sum counts, see [`Replica::has_strangers`].
const META_STRANGERS: &str = "strangers";

/// In the state, from before a mirror is bound until its first op: see [`Replica::is_unmet`].
const UNMET: &str = "unmet";

const DURABLE_EVERY: Duration = Duration::from_secs(3);

impl Replica {
    /// The stored cursor.
    pub fn cursor(&self) -> Result<Option<Cursor>, StoreError> {
        self.catalog.read(|view| stored_cursor(view))
    }

    /// A mirror is about to be bound that has sent nothing yet.
    pub fn note_unmet(&mut self) -> Result<(), StoreError> {
        self.state.put_value(UNMET, b"yes")
    }

    /// Whether the mirror that is bound has sent nothing yet.
    pub fn has_not_met(&self) -> Result<bool, StoreError> {
        Ok(self.state.value(UNMET)?.is_some())
    }

    /// The mirror sends something, for the first time or not. A sender compares before that, asks whoever has to decide what becomes
    /// of what only this side has, and takes on trust what neither end knows: if its connection breaks before it is done, the next one
    /// does all of that again. Durable before anything is done of what is sent, since none of that may be taken on trust.
    pub fn note_met(&mut self) -> Result<(), StoreError> {
        if std::mem::replace(&mut self.is_unmet, false) {
            self.state.delete_value(UNMET)?;
        }
        Ok(())
    }

    /// Says, durably and before it happens, which contents are about to be committed: after a crash they are known
    /// for our own, not for somebody's edits. Intents are kept until the catalog itself is durable.
    pub fn intend(&mut self, intents: &[(ObjectId, Digest)]) -> Result<(), StoreError> {
        match std::mem::replace(&mut self.has_intents, true) {
            true => self.state.add_intents(intents),
            false => self.state.set_intents(intents),
        }
    }

    /// In a long run of batches the catalog is made durable now and then: its file would grow without end otherwise.
    pub fn is_durable_commit_due(&mut self) -> bool {
        let due = self.last_durable.elapsed() >= DURABLE_EVERY;
        if due {
            self.last_durable = Instant::now();
        }
        due
    }

    /// Whether a walk found entries that no sum counts, and no comparison has dealt with them since: equal sums say nothing then.
    pub fn has_strangers(&self) -> Result<bool, StoreError> {
        self.catalog
            .read(|view| Ok(view.meta(META_STRANGERS)?.is_some_and(|value| value == [1])))
    }

    /// Notes that something here lost its number, which only a comparison finds out.
    pub fn note_stranger(&mut self, t: &mut Tables<'_>) -> Result<(), StoreError> {
        self.has_new_strangers = true;
        note_strangers(t, true)
    }

    /// Stores the cursor with everything the catalog holds, durably. `are_compared` says that the sender has dealt with all that
    /// is here.
    pub fn commit_durably(&mut self, cursor: Option<Cursor>, are_compared: bool) -> Result<(), StoreError> {
        self.has_intents = false;
        self.last_durable = Instant::now();
        self.catalog.update(true, |tables| {
            note_flushed(tables, true)?;
            // What was left at former places goes with a mark that is still to come.
            if are_compared && self.former.is_empty() {
                note_strangers(tables, false)?;
            }
            if let Some(cursor) = cursor {
                tables.set_meta(META_CURSOR, &encode_cursor(&cursor))?;
            }
            self.ledger.keep(tables)
        })?;
        self.is_flushed = true;
        Ok(())
    }

    /// From now on the catalog has names that are not on stable storage.
    pub(super) fn note_change(&mut self, tables: &mut Tables<'_>) -> Result<(), StoreError> {
        if std::mem::take(&mut self.is_flushed) {
            note_flushed(tables, false)?;
        }
        Ok(())
    }

    /// Those of these directories that are on another file system than this one: mounted below the root, where a flush of its file system
    /// does not reach.
    pub fn directories_off(
        &self,
        device: u64,
        objects: impl IntoIterator<Item = ObjectId>,
    ) -> Result<Vec<ObjectId>, StoreError> {
        self.catalog.read(|view| {
            let mut elsewhere = Vec::new();
            for object in objects {
                let stamp = view.get(object)?.and_then(|entry| entry.stamp);
                let stamp = stamp.and_then(|known| Stamp::from_bytes(&known));
                if stamp.is_some_and(|stamp| stamp.device != device) {
                    elsewhere.push(object);
                }
            }
            Ok(elsewhere)
        })
    }

    /// What a process published that was killed before it flushed is visible, and nobody else will flush it: without this
    /// it would count as durable as soon as the sums are equal.
    pub(super) fn flush_leftovers(&mut self, report: &WalkReport) -> Result<(), ReplicaError> {
        let is_flushed = self
            .catalog
            .read(|view| Ok(view.meta(META_FLUSHED)?.is_none_or(|value| value == [1])))?;
        if !is_flushed || report.unlike > 0 || report.swept > 0 {
            self.root.sync_filesystem()?;
            // Elsewhere files are flushed before they have a name; the names are not.
            let device = self.root.stat_self()?.stamp.device;
            let catalog = self.catalog.clone();
            let directories = catalog.read(|view| directories(view))?;
            for object in self.directories_off(device, directories)? {
                if let Ok(handle) = catalog.read(|view| Ok(self.directory(view, object)))? {
                    handle.sync()?;
                }
            }
            self.catalog.update(true, |tables| note_flushed(tables, true))?;
        }
        Ok(())
    }
}

/// All directories that a catalog has.
fn directories(view: &impl CatalogRead) -> Result<Vec<ObjectId>, StoreError> {
    let mut directories = Vec::new();
    view.for_each(&mut |entry: Entry| {
        if entry.kind == Kind::Directory {
            directories.push(entry.object);
        }
        Ok(())
    })?;
    Ok(directories)
}

/// The classes of extended attributes that the digests in a catalog are of.
pub fn xattr_classes(catalog: &impl CatalogRead) -> Result<XattrClasses, StoreError> {
    let bits = catalog.meta(META_XATTRS)?;
    Ok(bits.map_or(XattrClasses::NONE, |bits| {
        XattrClasses(bits.first().copied().unwrap_or(0))
    }))
}

/// Up to where the catalog of a module path is its sender's doing, durably.
pub fn stored_cursor(catalog: &impl CatalogRead) -> Result<Option<Cursor>, StoreError> {
    let bytes = catalog.meta(META_CURSOR)?;
    Ok(bytes.and_then(|bytes| decode_cursor(&bytes)))
}

/// Notes the classes that the digests in a catalog are of.
pub fn note_xattr_classes(t: &mut Tables<'_>, classes: XattrClasses) -> Result<(), StoreError> {
    t.set_meta(META_XATTRS, &[classes.0])
}

/// Notes whether the names in a catalog are on stable storage, too.
pub(super) fn note_flushed(t: &mut Tables<'_>, are_flushed: bool) -> Result<(), StoreError> {
    let value = [u8::from(are_flushed)];
    match t.meta(META_FLUSHED)?.is_some_and(|present| present == value) {
        true => Ok(()),
        false => t.set_meta(META_FLUSHED, &value),
    }
}

/// Whether that is noted.
pub(super) fn are_strangers_noted(t: &Tables<'_>) -> Result<bool, StoreError> {
    Ok(t.meta(META_STRANGERS)?.is_some_and(|value| value == [1]))
}

/// Notes whether a walk found entries that were not catalogued, and no comparison has dealt with them since.
pub(super) fn note_strangers(t: &mut Tables<'_>, are_there: bool) -> Result<(), StoreError> {
    let value = [u8::from(are_there)];
    match t
        .meta(META_STRANGERS)?
        .map_or(!are_there, |present| present == value)
    {
        true => Ok(()),
        false => t.set_meta(META_STRANGERS, &value),
    }
}

/// The objects whose digest of extended attributes may be another when other classes count. What has none of more
/// classes has none of fewer.
pub fn with_other_xattrs(
    catalog: &impl CatalogRead,
    known: XattrClasses,
    classes: XattrClasses,
) -> Result<Vec<ObjectId>, StoreError> {
    let all = !known.contains(classes);
    let mut objects = Vec::new();
    catalog.for_each(&mut |entry: Entry| {
        if all || entry.attributes.xattrs.is_some() {
            objects.push(entry.object);
        }
        Ok(())
    })?;
    Ok(objects)
}

fn encode_cursor(cursor: &Cursor) -> Vec<u8> {
    let mut bytes = cursor.incarnation.to_be_bytes().to_vec();
    bytes.extend_from_slice(&cursor.sequence.to_be_bytes());
    bytes.extend_from_slice(&cursor.sum.0);
    bytes
}

fn decode_cursor(bytes: &[u8]) -> Option<Cursor> {
    let (incarnation, rest) = bytes.split_first_chunk::<16>()?;
    let (sequence, sum) = rest.split_first_chunk::<8>()?;
    Some(Cursor {
        incarnation: u128::from_be_bytes(*incarnation),
        sequence: u64::from_be_bytes(*sequence),
        sum: driftless_protocol::TreeSum(sum.try_into().ok()?),
    })
}
