//! Which contents the target holds: so that a copy of one of them need not be sent.
//!
//! An index over the catalog's digests, in memory and bounded. It is only a hint: the catalog says whether the file that it
//! names still has that content on the target, and the receiver looks again.

use crate::daemon::ledger::flags;
use crate::store::{CatalogRead, Entry, StoreError};
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
    /// By the first bytes of the digest.
    by_digest: HashMap<u64, ObjectId>,
    /// Sizes of files that would be offered without having been read.
    sizes: HashSet<u64>,
}

impl Contents {
    /// What the catalog says is on the target.
    pub fn of(catalog: &impl CatalogRead) -> Result<Contents, StoreError> {
        let mut contents = Contents::default();
        catalog.for_each(&mut |entry| {
            contents.note(&entry);
            Ok(())
        })?;
        Ok(contents)
    }

    /// Notes what the target holds of an object now.
    pub fn note(&mut self, entry: &Entry) {
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

    /// Whether a large file of this size may be a copy, so that it is worth reading before it is offered.
    pub fn has_size(&self, bytes: u64) -> bool {
        self.sizes.contains(&bytes)
    }

    /// Whether a file may have this content on the target.
    pub fn may_hold(&self, digest: &Digest) -> bool {
        self.by_digest.contains_key(&key(digest))
    }

    /// Another file than `object` that has this content on the target.
    pub fn find(
        &self,
        catalog: &impl CatalogRead,
        object: ObjectId,
        digest: Digest,
    ) -> Result<Option<ObjectId>, StoreError> {
        let Some(&from) = self.by_digest.get(&key(&digest)).filter(|&&from| from != object) else {
            return Ok(None);
        };
        let entry = catalog.get(from)?;
        Ok(entry.filter(|entry| held(entry) == Some(digest)).map(|_| from))
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
