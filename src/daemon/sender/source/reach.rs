//! Handles of the directories of the source: found by the places that the catalog has, and kept.

use super::{Source, stamp_of};
use crate::fs::{Directory, FsError, FsErrorKind};
use crate::store::{CatalogRead, StoreError};
use driftless_protocol::ObjectId;
use std::sync::Arc;

/// What came of the wish to open a directory.
pub(super) enum Reach {
    Open(Arc<Directory>),
    /// It does not stand where the catalog has it.
    Gone,
    /// It may be there.
    Unknown(FsError),
    /// It is out of sight, on a file system that is not mounted any more.
    Unmounted,
}

impl Source {
    /// The handle of a directory of the source that is open already.
    pub fn open_directory(&self, object: ObjectId) -> Option<Arc<Directory>> {
        match object {
            ObjectId::ROOT => Some(self.root.clone()),
            _ => self.handles.get(&object).cloned(),
        }
    }

    /// A handle of a directory of the source; `None` if it cannot be had, for whatever reason.
    pub fn directory(
        &mut self,
        catalog: &impl CatalogRead,
        object: ObjectId,
    ) -> Result<Option<Arc<Directory>>, StoreError> {
        Ok(match self.reach(catalog, object)? {
            Reach::Open(handle) => Some(handle),
            Reach::Gone | Reach::Unmounted => None,
            Reach::Unknown(error) => {
                tracing::debug!("{error}");
                None
            }
        })
    }

    pub(super) fn reach(
        &mut self,
        catalog: &impl CatalogRead,
        object: ObjectId,
    ) -> Result<Reach, StoreError> {
        let mut climb = Vec::new();
        let mut at = object;
        let mut handle = loop {
            if at == ObjectId::ROOT {
                break self.root.clone();
            }
            if let Some(handle) = self.handles.get(&at) {
                break handle.clone();
            }
            let Some(entry) = catalog.get(at)?.filter(|_| climb.len() < 100_000) else {
                return Ok(Reach::Gone);
            };
            at = entry.place.directory;
            climb.push(entry);
        };
        for entry in climb.into_iter().rev() {
            let name = &entry.place.name;
            let mut opened = handle.open_dir(name);
            if opened
                .as_ref()
                .is_err_and(|error| error.kind() == FsErrorKind::TooManyOpen)
            {
                self.handles.clear();
                opened = handle.open_dir(name);
            }
            let may_keep = self.may_keep(stamp_of(&entry));
            let next = match opened {
                Ok(opened) => opened,
                Err(error) if matches!(error.kind(), FsErrorKind::NotFound | FsErrorKind::Substituted) => {
                    let is_unmounted = self.is_unmounted(catalog, &entry, &handle, None)?;
                    return Ok(if is_unmounted {
                        Reach::Unmounted
                    } else {
                        Reach::Gone
                    });
                }
                Err(error) => return Ok(Reach::Unknown(error)),
            };
            let found = match next.stat_self() {
                Ok(stat) => stat.stamp,
                Err(error) => return Ok(Reach::Unknown(error)),
            };
            if !may_keep && self.is_unmounted(catalog, &entry, &handle, Some(&found))? {
                return Ok(Reach::Unmounted);
            }
            // Another one may stand there by now: what is in it is not to be taken for what is in this one.
            if stamp_of(&entry).is_some_and(|known| !known.same_object(&found)) {
                return Ok(Reach::Gone);
            }
            handle = Arc::new(next);
            if may_keep {
                self.remember(entry.object, &handle);
            }
        }
        Ok(Reach::Open(handle))
    }

    pub(super) fn remember(&mut self, object: ObjectId, handle: &Arc<Directory>) {
        if self.handles.len() >= self.handles_max {
            self.handles.clear();
        }
        self.handles.insert(object, handle.clone());
    }
}
