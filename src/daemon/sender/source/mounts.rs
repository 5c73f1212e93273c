//! File systems that are mounted in the tree, and those that are not mounted any more.
//!
//! A directory on another device than the one that it stands in is where a file system is mounted (or a subvolume
//! begins). When it is gone, and what it held was not removed before, then that is still there and only out of
//! sight: nothing is deleted for it. A bind mount from the same file system cannot be told from any other directory.

use super::{Source, stamp_of};
use crate::fs::{Directory, Stamp};
use crate::store::{CatalogRead, Entry, StoreError};
use driftless_protocol::{Kind, Name};

impl Source {
    /// Whether a directory of the catalog was a file system of its own, held something, and is not there any more. `now` is
    /// what stands at its place in `parent`, if anything does.
    pub(super) fn is_unmounted(
        &mut self,
        catalog: &impl CatalogRead,
        entry: &Entry,
        parent: &Directory,
        now: Option<&Stamp>,
    ) -> Result<bool, StoreError> {
        if self.accepts_unmounted || entry.kind != Kind::Directory {
            return Ok(false);
        }
        let above = catalog.get(entry.place.directory)?;
        let (Some(known), Some(above)) = (stamp_of(entry), above.as_ref().and_then(stamp_of)) else {
            return Ok(false);
        };
        let was_mounted = known.device != above.device;
        let is_same = now.is_some_and(|now| now.same_object(&known));
        if !was_mounted || is_same || !catalog.has_children(entry.object)? {
            return Ok(false);
        }
        // Another file system in its place, or the same under another number: what it holds is what counts.
        if let Some(now) = now
            && parent
                .stat_self()
                .is_ok_and(|stat| stat.stamp.device != now.device)
        {
            return Ok(false);
        }
        if self.unmounted.insert(entry.object) {
            let names = catalog.path_of(entry.object)?.unwrap_or_default();
            let path = names.iter().map(Name::to_string).collect::<Vec<_>>().join("/");
            self.warnings.push(format!(
                "what was mounted at {path} is not mounted any more: nothing of it is deleted on the target; if it was \
                 removed for good, run once with --accept-root"
            ));
        }
        Ok(true)
    }

    /// Whether the handle of a directory may be kept: on another file system it would keep that from being unmounted.
    pub(super) fn may_keep(&self, stamp: Option<Stamp>) -> bool {
        stamp.is_none_or(|stamp| stamp.device == self.device)
    }
}
