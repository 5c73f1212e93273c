//! What ends a look: what is gone, and files that have several names.

use super::{Look, Source, stamp_of};
use crate::daemon::ledger::flags;
use crate::store::{CatalogRead, Entry, StoreError, Tables};
use driftless_protocol::{Kind, ObjectId};
use std::collections::{BTreeSet, HashSet};

/// So many files are remembered that have names which are not known. Most of these are elsewhere than in the tree.
const HALF_KNOWN_MAX: usize = 1_000;

/// Notes whether a file has names that are not known.
pub(super) fn note_half_known(half_known: &mut BTreeSet<(u64, u64)>, inode: (u64, u64), is_so: bool) {
    match is_so {
        true if half_known.len() < HALF_KNOWN_MAX => _ = half_known.insert(inode),
        true => {}
        false => _ = half_known.remove(&inode),
    }
}

impl Source {
    /// Ends a look: with what is gone, and with what else was written through names that are gone.
    pub(super) fn settle(&mut self, t: &mut Tables<'_>, look: &mut Look) -> Result<(), StoreError> {
        if std::mem::take(&mut look.has_missed) {
            // It may have been another name of any of these, and nothing was told under theirs.
            let names = self.half_known.iter().filter_map(|inode| self.linked.get(inode));
            look.linked.extend(names.flatten());
        }
        // Each round buries something, so this ends. At another name of a file a new directory may stand by now.
        while !(look.orphans.is_empty()
            && look.linked.is_empty()
            && look.behind.is_empty()
            && look.enter.is_empty())
        {
            self.settle_orphans(t, look)?;
            self.look_at_linked(t, look)?;
            self.enter_directories(t, look)?;
        }
        for inode in std::mem::take(&mut look.groups) {
            self.settle_group(t, inode)?;
        }
        Ok(())
    }

    /// Gives all names of one object the same group, and forgets names that lead elsewhere by now. If its content is in
    /// doubt at one of them, it is at all.
    fn settle_group(&mut self, t: &mut Tables<'_>, inode: (u64, u64)) -> Result<(), StoreError> {
        let mut members = Vec::new();
        for object in self.linked.remove(&inode).unwrap_or_default() {
            let Some(entry) = t.get(object)? else { continue };
            let is_here = stamp_of(&entry).is_some_and(|stamp| (stamp.device, stamp.inode) == inode);
            if is_here && t.lookup(entry.place.directory, &entry.place.name)? == Some(object) {
                members.push(entry);
            }
        }
        if members.is_empty() {
            return Ok(());
        }
        self.linked
            .insert(inode, members.iter().map(|entry| entry.object).collect());
        if members.len() < 2 {
            return Ok(());
        }
        let known = members.iter().map(|entry| entry.attributes.link_group);
        let group = match known.filter(|group| *group != ObjectId(0)).min() {
            Some(group) => group,
            None => t.next_object()?,
        };
        let doubt = members.iter().fold(0, |all, entry| all | entry.flags) & flags::STALE;
        for mut entry in members {
            let known = (entry.attributes.link_group, entry.flags);
            if entry.attributes.link_group != group {
                entry.attributes.link_group = group;
                entry.flags |= flags::ATTRIBUTES;
            }
            entry.flags |= doubt;
            if known != (entry.attributes.link_group, entry.flags) {
                entry.sequence = t.next_sequence()?;
                self.put(t, &entry)?;
            }
        }
        Ok(())
    }

    /// The target gets, or keeps, a file of its own for one of several names: what it has under the others, or is about to
    /// have by what is in flight, has to be linked with that.
    pub fn part_names(
        &mut self,
        t: &mut Tables<'_>,
        object: ObjectId,
        in_flight: &HashSet<ObjectId>,
    ) -> Result<(), StoreError> {
        let Some(mut entry) = t.get(object)? else {
            return Ok(());
        };
        for name in self.linked_with(&entry).collect::<Vec<_>>() {
            let Some(mut other) = t.get(name)? else { continue };
            let is_there = other.flags & flags::ON_TARGET != 0 || in_flight.contains(&name);
            if is_there && other.kind == Kind::File && other.flags & flags::PARTED == 0 {
                other.flags |= flags::PARTED | flags::STALE;
                other.sequence = t.next_sequence()?;
                self.put(t, &other)?;
            }
        }
        if entry.flags & flags::PARTED != 0 {
            entry.flags &= !flags::PARTED;
            self.put(t, &entry)?;
        }
        Ok(())
    }

    /// The other names of the object that an entry is a name of.
    pub fn linked_with(&self, entry: &Entry) -> impl Iterator<Item = ObjectId> {
        let inode = stamp_of(entry).map(|stamp| (stamp.device, stamp.inode));
        let names = inode.and_then(|inode| self.linked.get(&inode));
        let object = entry.object;
        names
            .into_iter()
            .flatten()
            .copied()
            .filter(move |&other| other != object)
    }
}
