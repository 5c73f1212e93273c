//! Which contents the target holds: so that a copy of one of them need not be sent.
//!
//! An index over the catalog's digests, in memory and bounded. It is only a hint: the catalog says whether the file that it
//! names still has that content on the target, and the receiver looks again. It is made when it is first asked for: by a run
//! that ends and finds nothing changed never, by one that follows once it is in sync.

use crate::daemon::ledger::flags;
use crate::store::{Catalog, CatalogRead, Entry, StoreError};
use driftless_protocol::limits::INLINE_CONTENT_BYTES_MAX;
use driftless_protocol::{Digest, Kind, ObjectId};
use std::collections::{HashMap, HashSet};

/// A smaller content is sent: that takes no more bytes than to name it.
const BYTES_MIN: u64 = 256;
/// Contents that are known at a time (some 24 MB).
const CONTENTS_MAX: usize = 1 << 20;

/// The contents on the target.
#[derive(Debug, Default)]
pub struct Contents {
    index: Option<Index>,
}

#[derive(Debug, Default)]
struct Index {
    /// By the first bytes of the digest.
    by_digest: HashMap<u64, ObjectId>,
    /// Sizes of files that would be offered without having been read.
    sizes: HashSet<u64>,
}

impl Contents {
    /// Makes the index of what the catalog says is on the target, if there is none.
    pub fn load(&mut self, catalog: &Catalog) -> Result<(), StoreError> {
        self.loaded(catalog).map(|_| ())
    }

    fn loaded(&mut self, catalog: &Catalog) -> Result<&mut Index, StoreError> {
        match &mut self.index {
            Some(index) => Ok(index),
            none => Ok(none.insert(catalog.read(|view| Index::of(view))?)),
        }
    }

    /// Notes what the target holds of an object now, as the catalog does.
    pub fn note(&mut self, entry: &Entry) {
        if let Some(index) = &mut self.index {
            index.note(entry);
        }
    }

    /// Whether a large file of this size may be a copy, so that it is worth reading before it is offered.
    pub fn has_size(&mut self, catalog: &Catalog, bytes: u64) -> Result<bool, StoreError> {
        Ok(self.loaded(catalog)?.sizes.contains(&bytes))
    }

    /// Another file than `object` that has this content on the target.
    pub fn find(
        &mut self,
        catalog: &Catalog,
        object: ObjectId,
        digest: Digest,
    ) -> Result<Option<ObjectId>, StoreError> {
        let index = self.loaded(catalog)?;
        let Some(&from) = index.by_digest.get(&key(&digest)).filter(|&&from| from != object) else {
            return Ok(None);
        };
        let entry = catalog.read(|view| view.get(from))?;
        Ok(entry.filter(|entry| held(entry) == Some(digest)).map(|_| from))
    }
}

impl Index {
    fn of(catalog: &impl CatalogRead) -> Result<Index, StoreError> {
        let mut index = Index::default();
        catalog.for_each(&mut |entry| {
            index.note(&entry);
            Ok(())
        })?;
        Ok(index)
    }

    fn note(&mut self, entry: &Entry) {
        let Some(digest) = held(entry) else { return };
        let known = self.by_digest.len();
        match self.by_digest.get_mut(&key(&digest)) {
            Some(object) => *object = entry.object,
            None if known < CONTENTS_MAX => {
                self.by_digest.insert(key(&digest), entry.object);
            }
            None => return,
        }
        if entry.size > INLINE_CONTENT_BYTES_MAX as u64 {
            self.sizes.insert(entry.size);
        }
    }
}

/// The content that the target holds of an object, if it is worth a copy. The file here may be another by now.
fn held(entry: &Entry) -> Option<Digest> {
    let on_target = entry.kind == Kind::File && entry.flags & flags::ON_TARGET != 0;
    entry
        .digest
        .filter(|digest| on_target && entry.size >= BYTES_MIN && !digest.is_assumed())
}

fn key(digest: &Digest) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = digest.0;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}
