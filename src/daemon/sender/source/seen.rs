//! What `stat` shows of an object, against what the catalog has of it.

use super::links::note_half_known;
use super::{Look, Source, is_unchanged, new_entry, stamp_of};
use crate::daemon::ledger::flags;
use crate::daemon::receiver::cheap_digest;
use crate::fs::{Directory, FileType, Stat};
use crate::store::{CatalogRead, Entry, StoreError, Tables, root_place};
use driftless_protocol::message::Place;
use driftless_protocol::{Kind, Name, ObjectId};
use std::sync::Arc;

impl Source {
    pub(super) fn see_root(
        &mut self,
        t: &mut Tables<'_>,
        stat: &Stat,
        look: &mut Look,
    ) -> Result<(), StoreError> {
        let known = t.get(ObjectId::ROOT)?;
        let mut entry = known
            .clone()
            .unwrap_or_else(|| new_entry(ObjectId::ROOT, Kind::Directory, root_place()));
        if self.leaves_root {
            entry.flags = flags::ON_TARGET;
            entry.stamp = Some(stat.stamp.to_bytes());
            return match known.is_some_and(|known| known == entry) {
                true => Ok(()),
                false => self.put(t, &entry),
            };
        }
        let root = self.root.clone();
        entry.attributes = self.attributes_now(&root, &entry, stat);
        let is_same = known
            .as_ref()
            .is_some_and(|known| known.attributes == entry.attributes);
        entry.stamp = Some(stat.stamp.to_bytes());
        if is_same {
            return match known.is_some_and(|known| known.stamp == entry.stamp) {
                true => Ok(()),
                false => t.put(&entry),
            };
        }
        look.found.changed += 1;
        entry.sequence = t.next_sequence()?;
        entry.flags = flags::ON_TARGET | flags::ATTRIBUTES;
        self.put(t, &entry)
    }

    /// A directory's own attributes, whatever happened to its names. Its inside is not looked at.
    pub(super) fn see_itself(
        &mut self,
        t: &mut Tables<'_>,
        directory: ObjectId,
        stat: &Stat,
        look: &mut Look,
    ) -> Result<(), StoreError> {
        if directory == ObjectId::ROOT {
            return self.see_root(t, stat, look);
        }
        let Some(mut entry) = t.get(directory)? else {
            return Ok(());
        };
        // Another object may have taken its name a moment ago: writing the entry would take the name back.
        let named = t.lookup(entry.place.directory, &entry.place.name)? == Some(directory);
        let same = stamp_of(&entry).is_some_and(|known| known.same_object(&stat.stamp));
        if !named || !same || is_unchanged(&entry, stat) {
            return Ok(());
        }
        let Some(parent) = self.directory(t, entry.place.directory)? else {
            return Ok(());
        };
        let attributes = self.attributes_now(&parent, &entry, stat);
        if attributes == entry.attributes {
            entry.stamp = Some(stat.stamp.to_bytes());
            return t.put(&entry);
        }
        // Only the view of it is another, by `--chmod` say.
        if entry.stamp == Some(stat.stamp.to_bytes()) && self.is_as_at_the_start(&entry) {
            entry.attributes = attributes;
            return self.put(t, &entry);
        }
        look.found.changed += 1;
        entry.attributes = attributes;
        entry.stamp = Some(stat.stamp.to_bytes());
        entry.flags |= flags::ATTRIBUTES;
        entry.sequence = t.next_sequence()?;
        self.put(t, &entry)
    }

    /// Something stands at a name. Decides whether it is what the catalog has there, something that moved here, or
    /// something new.
    pub(super) fn see(
        &mut self,
        t: &mut Tables<'_>,
        handle: &Arc<Directory>,
        directory: ObjectId,
        name: Name,
        stat: &Stat,
        look: &mut Look,
    ) -> Result<(), StoreError> {
        look.found.entries += 1;
        let watched = self.look_behind(handle, directory, &name, stat);
        let stat = watched.as_ref().unwrap_or(stat);
        let mut old = match t.lookup(directory, &name)? {
            Some(object) => t.get(object)?,
            None => None,
        };
        if let Some(top) = old.as_ref().filter(|old| old.kind == Kind::Directory)
            && self.follow_device(t, top, &stat.stamp)?
        {
            old = t.get(top.object)?;
        }
        if let Some(old) = &old
            && self.is_unmounted(t, old, handle, Some(&stat.stamp))?
        {
            return Ok(());
        }
        if let Some(old) = old
            .as_ref()
            .filter(|old| old.kind == Kind::Directory && stat.file_type == FileType::Directory)
        {
            self.lookouts.note_followed(old.object, stat.is_followed);
        }
        let Some(kind) = self.kind_of(stat) else {
            look.found.skipped += 1;
            look.orphans.extend(old.map(|old| old.object));
            return Ok(());
        };
        let place = Place { directory, name };
        let inode = (stat.stamp.device, stat.stamp.inode);
        let is_linked = stat.links > 1 && kind != Kind::Directory;
        if is_linked {
            let known = t.by_inode(inode.0, inode.1)?;
            let names = self.linked.entry(inode).or_default();
            names.extend(known);
            names.extend(old.as_ref().map(|old| old.object));
        }
        let mut only_renamed = false;
        let mut is_moved = false;
        let mut entry = match old {
            Some(mut old)
                if old.kind == kind && stamp_of(&old).is_some_and(|s| s.same_object(&stat.stamp)) =>
            {
                let hides = old.flags & flags::HIDES != 0;
                if hides && (look.is_untold || self.touched.contains(&place)) {
                    old.flags |= flags::STALE;
                } else if is_unchanged(&old, stat) {
                    let hides = stat.is_device && look.is_untold;
                    if kind == Kind::File && (hides || self.touched.was_written(&place)) {
                        self.doubt(t, old.object, look)?;
                    }
                    return Ok(());
                }
                // Only the view of it is another, by `--chmod` say.
                if old.stamp == Some(stat.stamp.to_bytes()) && self.is_as_at_the_start(&old) {
                    old.attributes = self.attributes_now(handle, &old, stat);
                    return self.put(t, &old);
                }
                // What moved the ctime of a directory is most often something in it.
                if kind == Kind::Directory {
                    let mut same = old.clone();
                    same.stamp = Some(stat.stamp.to_bytes());
                    if self.attributes_now(handle, &old, stat) == old.attributes {
                        return t.put(&same);
                    }
                }
                old
            }
            old => match self.moved_here(t, kind, &place, stat, look)? {
                Some(mut moved) => {
                    look.orphans.extend(old.map(|old| old.object));
                    // What is written through one name is told under that one only.
                    let is_linked = stat.links > 1 || self.linked.contains_key(&inode);
                    only_renamed = !look.is_untold
                        && !is_linked
                        && self.touched.tells_only_of_a_rename(&moved.place, &place);
                    if only_renamed && kind == Kind::File {
                        let (places, last) = ([&moved.place, &place], t.last_sequence()?);
                        self.touched.unheard.note_renamed(moved.object, places, last);
                    }
                    if kind == Kind::Directory {
                        // Handles know where they were opened.
                        if self.root.is_seen_by_place() {
                            self.handles.clear();
                        }
                        self.forget_rules(moved.object);
                    }
                    self.compare_if_withheld(&moved);
                    if self.start.is_some() {
                        self.record_leaving(t, &moved)?;
                    }
                    self.note_leaving(&moved);
                    moved.place = place.clone();
                    moved.flags |= flags::MOVED;
                    is_moved = true;
                    moved
                }
                // Editors save by renaming a new file over the old one: it stays the same object, with the old
                // content as basis.
                None if kind == Kind::Directory && self.is_passing(t, handle, &place.name, stat)? => {
                    return Ok(());
                }
                None => match old.filter(|old| old.kind == kind && kind != Kind::Directory) {
                    Some(mut old) => {
                        self.recall_names(&old, look);
                        // Another object: what the name was linked with before says nothing.
                        old.attributes.link_group = ObjectId(0);
                        // The text of a link is read at once, in `refresh`.
                        if kind == Kind::File {
                            old.flags |= flags::STALE;
                        }
                        old
                    }
                    None => {
                        look.orphans.extend(t.lookup(directory, &place.name)?);
                        new_entry(t.next_object()?, kind, place.clone())
                    }
                },
            },
        };
        self.refresh(&mut entry, handle, stat, only_renamed);
        if kind == Kind::Directory && stat.is_followed {
            self.lookouts.note_followed(entry.object, true);
        }
        entry.sequence = t.next_sequence()?;
        look.found.changed += 1;
        tracing::trace!(
            object = entry.object.0,
            directory = directory.0,
            name = %entry.place.name,
            flags = entry.flags,
            only_renamed,
            "changed"
        );
        self.put(t, &entry)?;
        if is_linked {
            let names = self.linked.entry(inode).or_default();
            names.insert(entry.object);
            let is_half_known = stat.links as usize > names.len();
            note_half_known(&mut self.half_known, inode, is_half_known && !look.is_untold);
            // Once for all of them.
            if look.groups.insert(inode) {
                look.linked
                    .extend(names.iter().copied().filter(|&object| object != entry.object));
            }
        } else {
            note_half_known(&mut self.half_known, inode, false);
        }
        if kind == Kind::Directory && !self.is_cut(stat) {
            // With rules, the new name may leave out what is below it.
            match is_moved && !look.is_untold && self.rules.is_none() {
                true => self.renamed.push(entry.object),
                false => look.enter.push(entry.object),
            }
        }
        Ok(())
    }

    /// Takes over what `stat` says. `only_renamed`: nothing else happened to it since the last look.
    pub(super) fn refresh(&mut self, entry: &mut Entry, handle: &Directory, stat: &Stat, only_renamed: bool) {
        let known = stamp_of(entry);
        let attributes = self.attributes_now(handle, entry, stat);
        if entry.attributes != attributes {
            entry.flags |= flags::ATTRIBUTES;
        }
        match entry.kind {
            Kind::Directory => {}
            Kind::Symlink | Kind::Fifo | Kind::CharDevice | Kind::BlockDevice => {
                let digest = cheap_digest(handle, &entry.place.name, stat).ok().flatten();
                if digest.is_none() || digest != entry.digest {
                    entry.digest = digest;
                    entry.flags &= !flags::ON_TARGET;
                }
            }
            Kind::File => {
                // A rename moves ctime alone; any other change of it may hide a change of content.
                let unchanged = known.is_some_and(|known| {
                    known.size == stat.stamp.size
                        && known.mtime == stat.stamp.mtime
                        && (only_renamed || known.ctime == stat.stamp.ctime)
                });
                if !unchanged {
                    entry.flags |= flags::STALE;
                }
            }
        }
        entry.attributes = attributes;
        entry.size = stat.size;
        entry.stamp = Some(stat.stamp.to_bytes());
    }

    /// Takes over what a read of the content found, if it is no older than what is known.
    pub fn take_read(
        &mut self,
        t: &mut Tables<'_>,
        entry: &mut Entry,
        stat: &Stat,
    ) -> Result<(), StoreError> {
        let handle = self.directory(t, entry.place.directory)?;
        let attributes = match &handle {
            Some(handle) => self.attributes_now(handle, entry, stat),
            None => stat.attributes.completed(&entry.attributes),
        };
        if entry.attributes != attributes {
            entry.attributes = attributes;
            entry.flags |= flags::ATTRIBUTES;
        }
        entry.size = stat.size;
        entry.stamp = Some(stat.stamp.to_bytes());
        self.put(t, entry)
    }
}
