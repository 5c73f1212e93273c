//! Directories that stand elsewhere than the catalog has them.
//!
//! After a crash the disk can be ahead of the catalog: two directories have changed places, say. To take each for the one that stood
//! there would mistake all that is in them: what the target keeps in one would be changed to what is in the other. A file is told
//! by its content.

use super::seen::stamp_of;
use crate::fs::{Stamp, Stat};
use crate::store::{CatalogRead, Entry, StoreError, Tables};
use driftless_protocol::{Kind, ObjectId, Timestamp};
use std::collections::{HashMap, HashSet};

/// Device, inode, and when it was made.
type Identity = (u64, u64, Option<Timestamp>);

/// The same where the device may have another number by now, as a reboot can give it.
type InodeAndBirth = (u64, Option<Timestamp>);

/// The directories that a catalog knows, those that a walk took out of it included.
#[derive(Debug, Default)]
pub(super) struct Identities {
    /// All of them, once somebody asked.
    known: Option<HashSet<Identity>>,
    /// Those that the walk took out of the catalog before that.
    gone: HashSet<Identity>,
    /// Numbers, as the catalog had them when somebody first looked for one.
    numbers: Option<HashMap<InodeAndBirth, ObjectId>>,
}

impl Identities {
    /// Notes something that is no longer catalogued.
    pub(super) fn note_gone(&mut self, entry: &Entry) {
        if self.known.is_none() {
            self.gone.extend(identity_of(entry));
        }
    }

    /// Whether what stands at the place of a catalogued directory is another one of the catalog's. One that the catalog does not know is
    /// taken for that which stood there, as is each on a device of another number, which a reboot can change.
    ///
    /// The first time that one is not the same costs a look at all of the catalog.
    pub(super) fn is_another(
        &mut self,
        tables: &Tables<'_>,
        entry: &Entry,
        stat: &Stat,
    ) -> Result<bool, StoreError> {
        // A start asks this for each entry: that of a file is not even read.
        if entry.kind != Kind::Directory {
            return Ok(false);
        }
        let may_be = |known: Stamp| known.device == stat.stamp.device && !known.same_object(&stat.stamp);
        if !stamp_of(entry).is_some_and(may_be) {
            return Ok(false);
        }
        if self.known.is_none() {
            let mut known = std::mem::take(&mut self.gone);
            tables.for_each(&mut |entry: Entry| {
                known.extend(identity_of(&entry));
                Ok(())
            })?;
            self.known = Some(known);
        }
        let found = identity(&stat.stamp);
        Ok(self.known.as_ref().is_some_and(|known| known.contains(&found)))
    }

    /// The entry of a directory, wherever the catalog has it. The first one that is looked for costs a look at all of the catalog.
    pub(super) fn find(&mut self, tables: &Tables<'_>, stamp: &Stamp) -> Result<Option<Entry>, StoreError> {
        let numbers = match &mut self.numbers {
            Some(numbers) => numbers,
            none => {
                let mut numbers = HashMap::new();
                tables.for_each(&mut |entry: Entry| {
                    let known = identity_of(&entry).map(|(_, inode, birth)| (inode, birth));
                    numbers.extend(known.map(|known| (known, entry.object)));
                    Ok(())
                })?;
                none.insert(numbers)
            }
        };
        let Some(&object) = numbers.get(&(stamp.inode, stamp.birth)) else {
            return Ok(None);
        };
        // The walk may have removed or changed it since.
        let is_it = |known: Stamp| {
            (known.inode, known.birth) == (stamp.inode, stamp.birth)
                && (known.birth.is_some() || known.device == stamp.device)
        };
        let entry = tables.get(object)?;
        Ok(entry.filter(|entry| entry.kind == Kind::Directory && stamp_of(entry).is_some_and(is_it)))
    }
}

fn identity(stamp: &Stamp) -> Identity {
    (stamp.device, stamp.inode, stamp.birth)
}

fn identity_of(entry: &Entry) -> Option<Identity> {
    match entry.kind {
        Kind::Directory => stamp_of(entry).map(|stamp| identity(&stamp)),
        _ => None,
    }
}
