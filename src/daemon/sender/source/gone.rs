//! What is not found any more: out of the catalog, into the journal.

use super::rules::Admission;
use super::{Look, Reach, Source};
use crate::daemon::ledger::flags;
use crate::daemon::sender::initial::Gone;
use crate::daemon::sender::reconcile::Covered;
use crate::store::{CatalogRead, Change, Entry, StoreError, Tables};
use driftless_protocol::{Kind, ObjectId};
use std::collections::HashSet;
use std::sync::PoisonError;
use std::time::Instant;

/// Records of the journal that are taken at a time.
const RECORDS_AT_A_TIME: usize = 4_096;

impl Source {
    /// Buries what is really gone. What turned up elsewhere meanwhile is left alone.
    pub(super) fn settle_orphans(&mut self, t: &mut Tables<'_>, look: &mut Look) -> Result<(), StoreError> {
        for object in std::mem::take(&mut look.orphans) {
            let Some(entry) = t.get(object)? else { continue };
            let named = t.lookup(entry.place.directory, &entry.place.name)? == Some(object);
            let there = named
                && match self.reach(t, entry.place.directory)? {
                    Reach::Open(handle) => match handle.stat(&entry.place.name) {
                        Ok(Some(stat)) if self.kind_of(&stat) == Some(entry.kind) => {
                            let standing = self.standing(t, entry.place.directory)?;
                            self.admission(&standing, &entry.place.name, &stat) != Admission::Out
                        }
                        Ok(found) => {
                            if found.is_none() {
                                self.forget_link(&entry.place);
                            }
                            self.is_unmounted(t, &entry, &handle, found.as_ref().map(|stat| &stat.stamp))?
                        }
                        // Not knowing is no reason to delete.
                        Err(_) => true,
                    },
                    Reach::Gone => false,
                    Reach::Unknown(_) | Reach::Unmounted => true,
                };
            if there && look.is_untold && entry.kind == Kind::Directory {
                self.unentered.insert(object);
            }
            if !there {
                look.found.changed += 1;
                tracing::trace!(object = object.0, "gone");
                self.bury(t, object, look)?;
            }
        }
        Ok(())
    }

    /// Forgets an object and everything below it; the journal keeps a tombstone.
    pub(super) fn bury(
        &mut self,
        t: &mut Tables<'_>,
        object: ObjectId,
        look: &mut Look,
    ) -> Result<(), StoreError> {
        let Some(entry) = t.get(object)? else {
            return Ok(());
        };
        let sequence = t.next_sequence()?;
        // The object itself first: half-seen renames can place two directories in each other for a moment, and what is
        // below this one may then lead back to it.
        t.remove(object, Some(sequence))?;
        let mut gone = vec![entry.clone()];
        if entry.kind == Kind::Directory {
            t.remove_below(object, |entry| gone.push(entry.clone()))?;
            self.graves.insert(entry.place.clone(), object);
        }
        self.note_left_graves(&gone);
        // As a deletion counts what had not just come.
        let now = Instant::now();
        let is_new = |entry: &Entry| self.newcomers.includes(now, entry.object);
        let lost = gone.iter().filter(|entry| !is_new(entry)).count() as u64;
        if lost != 1 {
            t.weigh_tombstone(sequence, lost)?;
        }
        self.unsent_deletions += lost;
        if self.start.is_some() && entry.flags & flags::WITHHELD != 0 {
            self.note_left_gone(&entry, sequence);
        }
        gone.iter().for_each(|entry| self.compare_if_withheld(entry));
        let mut watcher = self.watcher.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in &gone {
            self.ledger.replace(Some(entry), None);
            self.signatures.remove(entry.object);
            self.recall_names(entry, look);
            if entry.kind == Kind::Directory {
                watcher.unwatch(entry.object);
                self.handles.remove(&entry.object);
                self.lookouts.drop_directory(entry.object, look);
                if let Some(rules) = &mut self.rules {
                    rules.drop_directory(entry.object);
                }
            }
        }
        // The top one may have led nowhere for a moment only: its link is still there then.
        let inner = gone.iter().skip(1);
        for outpost in inner.flat_map(|entry| self.lookouts.forget(&entry.place)) {
            watcher.unwatch(outpost);
        }
        drop(watcher);
        // What moved in here, and was not heard of on the target yet, stands elsewhere there: it needs its own record. So does what a
        // target that crashes may have under no number, where it could take that for its own, and keep it, and a file with several
        // names that was left as it is there: it may be equal, and has no number of ours all the same.
        let (start, acknowledged) = (self.start.is_some(), self.acknowledged);
        let is_left = |entry: &Entry| {
            let has_names = entry.attributes.link_group != ObjectId(0);
            start && entry.flags & flags::WITHHELD != 0 && has_names
        };
        let needs_its_own = |entry: &Entry| {
            entry.flags & flags::MOVED != 0 || start && entry.sequence > acknowledged || is_left(entry)
        };
        for inner in gone.into_iter().skip(1).filter(needs_its_own) {
            let sequence = t.next_sequence()?;
            if is_left(&inner) {
                self.note_left_gone(&inner, sequence);
            }
            t.put(&Entry {
                sequence: 0,
                ..inner.clone()
            })?;
            t.remove(inner.object, Some(sequence))?;
            if self.newcomers.includes(now, inner.object) {
                t.weigh_tombstone(sequence, 0)?;
            }
        }
        Ok(())
    }

    /// Finds out what is gone and the target was not told of, by the records after this number. An earlier run may have found it, which
    /// did not come to tell, or was refused: what takes the places of directories waits in this one, too.
    pub fn recall_graves(&mut self, mut after: u64, covered: &Covered) -> Result<(), StoreError> {
        let mut unsent = 0u64;
        loop {
            let page = self.catalog.read(|view| {
                let mut gone = Vec::new();
                let page = view.changed_after(after, RECORDS_AT_A_TIME)?;
                let last = page.last().map(|(sequence, _)| *sequence);
                for (sequence, change) in page {
                    if let Change::Removed { object, place, kind, entries } = change
                        && !covered.includes(sequence)
                        // Not the record of a place that it left.
                        && view.get(object)?.is_none()
                    {
                        gone.push((object, place, kind, entries));
                    }
                }
                Ok(last.map(|last| (last, gone)))
            })?;
            let Some((last, gone)) = page else { break };
            after = last;
            for (object, place, kind, entries) in gone {
                unsent = unsent.saturating_add(entries);
                if kind == Kind::Directory {
                    self.graves.insert(place, object);
                }
            }
        }
        self.unsent_deletions = self.unsent_deletions.max(unsent);
        Ok(())
    }

    /// Of what is gone, the target has these directories where they were before they moved.
    fn note_left_graves(&mut self, gone: &[Entry]) {
        let is_moved = |entry: &&Entry| entry.kind == Kind::Directory && entry.flags & flags::MOVED != 0;
        let moved: HashSet<ObjectId> = gone.iter().filter(is_moved).map(|entry| entry.object).collect();
        if !moved.is_empty() {
            let known = self.left.values().filter(|object| moved.contains(object)).count();
            self.has_lost_place |= known < moved.len();
            let graves = self.left.extract_if(|_, object| moved.contains(object));
            self.graves.extend(graves);
        }
    }

    /// A directory leaves its place. Of several in a row the target has the first.
    pub(super) fn note_leaving(&mut self, entry: &Entry) {
        let stands = entry.flags & (flags::ON_TARGET | flags::MOVED) == flags::ON_TARGET;
        if entry.kind == Kind::Directory && stands {
            self.left.insert(entry.place.clone(), entry.object);
        }
    }

    /// Whether a directory has moved, by the records after this number, of which is not known where the target has it. Those of
    /// another run do not tell of what is gone.
    pub fn has_lost_one(&self, mut after: u64) -> Result<bool, StoreError> {
        let known: HashSet<ObjectId> = self.left.values().copied().collect();
        if self.has_lost_place {
            return Ok(true);
        }
        loop {
            let page = self.catalog.read(|view| {
                let page = view.changed_after(after, RECORDS_AT_A_TIME)?;
                let last = page.last().map(|(sequence, _)| *sequence);
                for (sequence, change) in page {
                    let object = match change {
                        Change::Object(object) => object,
                        Change::Removed { kind, .. }
                            if kind == Kind::Directory && sequence <= self.opened_at =>
                        {
                            return Ok((last, true));
                        }
                        Change::Removed { .. } => continue,
                    };
                    let entry = view.get(object)?.filter(|entry| entry.kind == Kind::Directory);
                    let moved = flags::ON_TARGET | flags::MOVED;
                    if entry.is_some_and(|entry| entry.flags & moved == moved) && !known.contains(&object) {
                        return Ok((last, true));
                    }
                }
                Ok((last, false))
            })?;
            match page {
                (_, true) => return Ok(true),
                (Some(last), _) => after = last,
                (None, _) => return Ok(false),
            }
        }
    }

    /// What was left as it is on the target is gone here: it is looked for there.
    fn note_left_gone(&mut self, entry: &Entry, sequence: u64) {
        self.left_gone.push(Gone {
            object: entry.object,
            place: entry.place.clone(),
            kind: entry.kind,
            sequence,
        });
    }

    /// Has the journal remember the place that an object leaves; it is put where it stands now after this. A receiver that crashes
    /// after it put something there may not know whose that is, and no comparison removes what it has by numbers of its own.
    pub(super) fn record_leaving(&mut self, t: &mut Tables<'_>, entry: &Entry) -> Result<(), StoreError> {
        let sequence = t.next_sequence()?;
        t.remove(entry.object, Some(sequence))?;
        self.ledger.replace(Some(entry), None);
        Ok(())
    }

    /// The target knows nothing of what is withheld: when that goes or moves, only a comparison tells what to do with what
    /// stands there.
    pub(super) fn compare_if_withheld(&mut self, entry: &Entry) {
        let left_there = self.sparing.existing || self.sparing.newer;
        self.rules_changed |= left_there && entry.flags & flags::WITHHELD != 0;
    }

    /// An object goes from one of its names: what was done to it through that one was told under no other.
    pub(super) fn recall_names(&self, entry: &Entry, look: &mut Look) {
        if entry.kind != Kind::Directory {
            look.linked.extend(self.linked_with(entry));
        }
    }
}
