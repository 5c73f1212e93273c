//! File systems that are mounted in the tree, and those that are not mounted any more.
//!
//! A directory on another device than the one that it stands in is where a file system is mounted (or a subvolume
//! begins). When it is gone, and what it held was not removed before, then that is still there and only out of
//! sight: nothing is deleted for it. A bind mount from the same file system cannot be told from any other directory.

use super::{Source, stamp_of};
use crate::fs::{Directory, FileType, Stamp, Stat};
use crate::store::{CatalogRead, Entry, StoreError, Tables};
use driftless_protocol::message::Place;
use driftless_protocol::{Kind, Name, ObjectId};

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
        if self.lookouts.is_followed(entry.object) {
            let is_out_of_sight = known.device != above.device
                && catalog.has_children(entry.object)?
                && leads_to_nothing(parent, &entry.place.name);
            return match is_out_of_sight {
                true => self.note_unmounted(catalog, entry).map(|()| true),
                false => Ok(false),
            };
        }
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
        self.note_unmounted(catalog, entry)?;
        Ok(true)
    }

    /// Tells it once.
    fn note_unmounted(&mut self, catalog: &impl CatalogRead, entry: &Entry) -> Result<(), StoreError> {
        if self.unmounted.insert(entry.object) {
            let names = catalog.path_of(entry.object)?.unwrap_or_default();
            let path = names.iter().map(Name::to_string).collect::<Vec<_>>().join("/");
            self.warnings.push(format!(
                "what was mounted at {path} is not mounted any more: nothing of it is deleted on the target; if it was \
                 removed for good, run once with --accept-root"
            ));
        }
        Ok(())
    }

    /// A file system has another device number than at the last look, as after a restart of the machine or when it was
    /// mounted anew: what is catalogued of it from its topmost directory `top` on gets the number of today. Returns whether
    /// that was so.
    pub(super) fn follow_device(
        &mut self,
        t: &mut Tables<'_>,
        top: &Entry,
        now: &Stamp,
    ) -> Result<bool, StoreError> {
        let Some(known) =
            stamp_of(top).filter(|known| known.device != now.device && is_renumbered(known, now))
        else {
            return Ok(false);
        };
        let mut entries = vec![top.clone()];
        while let Some(entry) = entries.pop() {
            let Some(mut stamp) = stamp_of(&entry).filter(|stamp| stamp.device == known.device) else {
                continue;
            };
            if entry.kind == Kind::Directory {
                entries.extend(t.child_entries(entry.object)?);
            }
            stamp.device = now.device;
            t.put(&Entry {
                stamp: Some(stamp.to_bytes()),
                ..entry
            })?;
        }
        Ok(true)
    }

    /// Says once for each mount point whether what is mounted there is mirrored.
    pub(super) fn note_mount(
        &mut self,
        t: &Tables<'_>,
        device: u64,
        directory: ObjectId,
        name: &Name,
        stat: &Stat,
    ) -> Result<(), StoreError> {
        let is_mount = stat.file_type == FileType::Directory && stat.stamp.device != device;
        if !is_mount || stat.is_followed {
            return Ok(());
        }
        let place = Place {
            directory,
            name: name.clone(),
        };
        if self.mounts.insert(place) {
            let mut names = t.path_of(directory)?.unwrap_or_default();
            names.push(name.clone());
            let path = names.iter().map(Name::to_string).collect::<Vec<_>>().join("/");
            let text = match self.is_cut(stat) {
                true => "is not mirrored, and is kept on the target",
                false => "is mirrored, too (--one-file-system leaves it out)",
            };
            self.warnings
                .push(format!("{path} is a mount point: what is mounted there {text}"));
        }
        Ok(())
    }

    /// Whether the handle of a directory may be kept: on another file system it would keep that from being unmounted.
    pub(super) fn may_keep(&self, stamp: Option<Stamp>) -> bool {
        stamp.is_none_or(|stamp| stamp.device == self.device)
    }
}

/// Whether a link is there that leads nowhere, or to an empty directory, as one does that led into a file system which is not
/// mounted any more.
fn leads_to_nothing(parent: &Directory, link: &Name) -> bool {
    let is_empty = |directory: Directory| directory.list().is_ok_and(|listing| listing.entries.is_empty());
    match parent.stat(link) {
        Ok(Some(stat)) if stat.is_followed => {
            stat.file_type != FileType::Directory || parent.open_dir(link).is_ok_and(is_empty)
        }
        Ok(_) => false,
        Err(_) => true,
    }
}

/// Whether two stamps are of one object, but for the number of its device. Without a time of birth nobody can tell.
fn is_renumbered(known: &Stamp, now: &Stamp) -> bool {
    known.birth.is_some() && (known.inode, known.birth) == (now.inode, now.birth)
}
