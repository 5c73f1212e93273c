//! What both sides had when they first met is left as it is: see [`crate::daemon::sender::initial`].

use super::*;
use crate::daemon::sender::{Allowance, receive_listing};
use driftless_protocol::limits::LIST_DIRECTORIES_MAX;
use driftless_protocol::message::{Directories, ToReceiver};
use std::collections::BTreeMap;

/// Directories asked for in one message.
const ASK_AT_A_TIME: usize = if LIST_DIRECTORIES_MAX < 256 {
    LIST_DIRECTORIES_MAX
} else {
    256
};

impl Session<'_, '_> {
    /// Whether nothing is sent of an entry that was left as it is. Where a directory of the target's own would have to go for what
    /// changed, a comparison has its entries counted as deletions first.
    pub(super) fn is_left(&mut self, entry: &Entry) -> bool {
        if self.context.source.is_left(entry) {
            return true;
        }
        let is_blocked = flags::WITHHELD | flags::OFFER;
        let must_compare = self.context.source.start.is_some() && entry.flags & is_blocked == is_blocked;
        self.must_reconcile |= must_compare;
        must_compare
    }

    /// Takes up a directory that was left out of the target, because something in it changed.
    pub(super) fn take_up(&mut self, mut entry: Entry) -> Result<Entry, StoreError> {
        if !self.context.source.is_left(&entry) {
            return Ok(entry);
        }
        let source = &mut *self.context.source;
        source.catalog.clone().update(false, |t| {
            entry.flags &= !flags::WITHHELD;
            entry.sequence = t.next_sequence()?;
            source.put(t, &entry)
        })?;
        Ok(entry)
    }

    /// Notes what is gone and stood in directories that are gone as well: it is looked for when these are listed.
    pub(super) fn note_went_along(&mut self) -> Result<(), StoreError> {
        let Source {
            catalog, left_gone, ..
        } = &*self.context.source;
        let went_along = &mut self.went_along;
        catalog.read(|view| {
            for gone in left_gone {
                let Place { directory, name } = &gone.place;
                if view.get(*directory)?.is_none() {
                    let names = went_along.entry(*directory).or_default();
                    names.insert((name.clone(), gone.kind), gone.object);
                }
            }
            Ok(())
        })
    }

    /// Queues the removal of what was left as it is on the target and is gone here. The target knows it by numbers of its own, so
    /// the directories are listed. False if that has to wait until nothing is under way.
    pub(super) fn remove_left(&mut self) -> Result<bool, Ended> {
        if self.context.source.left_gone.is_empty() {
            return Ok(true);
        }
        if !(self.window.is_empty() && self.is_done_reading()) {
            return Ok(false);
        }
        self.note_went_along()?;
        let gone = self.context.source.take_gone()?;
        if gone.is_empty() {
            return Ok(true);
        }
        // Several have stood at one place, each of its kind: the target has any one of them.
        let mut wanted: BTreeMap<ObjectId, HashMap<_, _>> = BTreeMap::new();
        for gone in gone {
            let names = wanted.entry(gone.place.directory).or_default();
            names.insert((gone.place.name, gone.kind), (gone.sequence, gone.object));
        }
        // What went with its directory is looked for when that is listed; what was in none that the target has needs nothing.
        let directories = self.context.source.catalog.read(|view| {
            let mut directories = Vec::new();
            for &directory in wanted.keys() {
                let is_there = |entry: Entry| entry.flags & flags::ON_TARGET != 0;
                if directory == ObjectId::ROOT || view.get(directory)?.is_some_and(is_there) {
                    directories.push(directory);
                }
            }
            Ok(directories)
        })?;
        // Whatever comes in beside the listings is passed over.
        self.context.barriers.ask_again();
        let mut allowance = Allowance::of_mirror(self.context.source.entries_ever()?);
        for some in directories.chunks(ASK_AT_A_TIME) {
            let lost = || Ended::Lost("the link ended".to_owned());
            let message = ToReceiver::List(Directories(some.to_vec()));
            self.link.control().send(message).map_err(|_| lost())?;
            for directory in some {
                let rows = receive_listing(self.link, &self.context.stop, &mut allowance)?;
                let names = wanted.remove(directory).unwrap_or_default();
                for row in rows.into_iter().filter(|row| row.object.is_local()) {
                    let Some(&(sequence, was)) = names.get(&(row.name.clone(), row.kind)) else {
                        continue;
                    };
                    if self.spares(sequence)? {
                        continue;
                    }
                    self.removes.push_back(Removal {
                        object: row.object,
                        was: Some(was),
                        place: Place {
                            directory: *directory,
                            name: row.name,
                        },
                        stood: None,
                        kind: row.kind,
                        // The journal's record of the removal counts for the entry itself.
                        entries: row.entries,
                        is_admitted: false,
                        is_replaced: false,
                        is_spared: false,
                        is_judged: !self.context.source.may_protect(),
                        is_kept: false,
                    });
                }
            }
        }
        Ok(true)
    }
}
