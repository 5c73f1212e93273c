//! Files whose content is in doubt: they are read again, whatever `stat` says of them.

use super::{Look, Source};
use crate::daemon::ledger::flags;
use crate::store::{CatalogRead, Entry, StoreError, Tables};
use driftless_protocol::{Kind, ObjectId};

impl Source {
    /// A file has to be read again, whatever `stat` says of it. So it has under each of its names: none that is not in
    /// doubt may stand for the others.
    pub(super) fn doubt(
        &mut self,
        t: &mut Tables<'_>,
        object: ObjectId,
        look: &mut Look,
    ) -> Result<(), StoreError> {
        let Some(entry) = t.get(object)? else {
            return Ok(());
        };
        let others: Vec<ObjectId> = self.linked_with(&entry).collect();
        for name in others.into_iter().chain([object]) {
            self.doubt_name(t, name, look)?;
        }
        Ok(())
    }

    /// More was told of these than was known when they were looked at, or may have been.
    pub(super) fn doubt_all(
        &mut self,
        t: &mut Tables<'_>,
        objects: Vec<ObjectId>,
        look: &mut Look,
    ) -> Result<(), StoreError> {
        for object in objects {
            self.doubt(t, object, look)?;
        }
        self.touched.unheard.store(t)
    }

    pub(super) fn doubt_name(
        &mut self,
        t: &mut Tables<'_>,
        object: ObjectId,
        look: &mut Look,
    ) -> Result<(), StoreError> {
        let Some(mut entry) = t.get(object)?.filter(|entry| entry.kind == Kind::File) else {
            return Ok(());
        };
        // A name that another object took is not to be taken back.
        if t.lookup(entry.place.directory, &entry.place.name)? == Some(object) {
            look.found.changed += 1;
            entry.flags |= flags::STALE;
            entry.sequence = t.next_sequence()?;
            tracing::trace!(object = object.0, "its content is in doubt");
            self.put(t, &entry)?;
        }
        Ok(())
    }

    /// Believes no digest of a file any more: each is read again when its turn comes.
    pub fn doubt_contents(&mut self) -> Result<(), StoreError> {
        let catalog = self.catalog.clone();
        let mut files = Vec::new();
        catalog.read(|view| {
            view.for_each(&mut |entry: Entry| {
                if entry.kind == Kind::File && entry.flags & flags::STALE == 0 {
                    files.push(entry.object);
                }
                Ok(())
            })
        })?;
        catalog.update(true, |t| {
            for object in files {
                if let Some(mut entry) = t.get(object)? {
                    entry.flags |= flags::STALE;
                    entry.sequence = t.next_sequence()?;
                    self.put(t, &entry)?;
                }
            }
            Ok(())
        })
    }
}
