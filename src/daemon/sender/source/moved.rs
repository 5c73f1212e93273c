//! Objects that stand at another place than the catalog has them.

use super::{Look, Reach, Source, stamp_of};
use crate::daemon::ledger::flags;
use crate::fs::{Directory, Stat};
use crate::store::{CatalogRead, Entry, StoreError, Tables};
use driftless_protocol::message::Place;
use driftless_protocol::{Kind, Name, ObjectId};
use std::collections::BTreeSet;

impl Source {
    /// The catalogued object that stood elsewhere and now stands here: same inode, and gone from its old name. (Still
    /// at its old name, it is a hard link.)
    ///
    /// Of several names it is one whose place is free. Where another file stands by now the name may have been renamed over,
    /// without being absent for a moment: to move the object away would make it so on the target. The same can be true of the
    /// only name that is known, unless its rename was told.
    pub(super) fn moved_here(
        &mut self,
        t: &Tables<'_>,
        kind: Kind,
        place: &Place,
        stat: &Stat,
        look: &Look,
    ) -> Result<Option<Entry>, StoreError> {
        let inode = (stat.stamp.device, stat.stamp.inode);
        let mut names: BTreeSet<ObjectId> = t.by_inode(inode.0, inode.1)?.into_iter().collect();
        names.extend(self.linked.get(&inode).into_iter().flatten());
        let is_new_name = !look.is_untold && !self.touched.has_arrived(place);
        let has_others = stat.links > 1 || names.len() > 1 || is_new_name;
        for object in names {
            let Some(entry) = t.get(object)? else { continue };
            let same = entry.kind == kind
                && entry.place != *place
                && object != ObjectId::ROOT
                && stamp_of(&entry).is_some_and(|known| known.same_object(&stat.stamp));
            // What the target has of it has no number that could be moved.
            let is_left = self.start.is_some() && entry.flags & flags::WITHHELD != 0;
            if !same || is_left {
                continue;
            }
            let is_linked = has_others || entry.attributes.link_group != ObjectId(0);
            let is_free = match self.reach(t, entry.place.directory)? {
                Reach::Open(old) => match old.stat(&entry.place.name).ok().flatten() {
                    Some(found) => {
                        !found.stamp.same_object(&stat.stamp) && (kind == Kind::Directory || !is_linked)
                    }
                    None => true,
                },
                Reach::Gone => true,
                Reach::Unknown(_) | Reach::Unmounted => false,
            };
            if is_free {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    /// Whether a directory that was seen here is back at the place where the catalog has it. Taken for a new one, it would
    /// take over the other's watch, and end it when its events tell that it is gone.
    pub(super) fn is_passing(
        &mut self,
        t: &Tables<'_>,
        handle: &Directory,
        name: &Name,
        stat: &Stat,
    ) -> Result<bool, StoreError> {
        let known = match t.by_inode(stat.stamp.device, stat.stamp.inode)? {
            Some(object) => t.get(object)?.and_then(|entry| stamp_of(&entry)),
            None => None,
        };
        let is_known = known.is_some_and(|known| known.same_object(&stat.stamp));
        let is_here = |found: Option<Stat>| found.is_some_and(|found| found.stamp.same_object(&stat.stamp));
        Ok(is_known && !handle.stat(name).is_ok_and(is_here))
    }
}
