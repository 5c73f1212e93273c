//! Removals: what waits for them, and what they wait for.

use super::*;
use crate::daemon::sender::extras_in::ExtrasIn;
use crate::daemon::sender::initial::Gone;

/// Something that the target has and the source has not.
#[derive(Debug)]
pub(super) struct Removal {
    pub(super) object: ObjectId,
    /// The number that it had here, if the target has it under one of its own.
    pub(super) was: Option<ObjectId>,
    pub(super) place: Place,
    /// Where it stood here when it was removed, if it has a name on the target that it never had here.
    pub(super) stood: Option<Place>,
    pub(super) kind: Kind,
    /// It and everything below it.
    pub(super) entries: u64,
    /// There are not too many of them, or somebody approved.
    pub(super) is_admitted: bool,
    /// Another object of the source takes its place: keeping it is no choice.
    pub(super) is_replaced: bool,
    /// It is kept because deletions are not wanted.
    pub(super) is_spared: bool,
    /// The filter was asked about it, or has nothing to say.
    pub(super) is_judged: bool,
    /// It is left where it is.
    pub(super) is_kept: bool,
}

impl Removal {
    /// Something that the target is to count as its own from now on, or to clear away if it has no name that anybody sees and holds nothing.
    pub(super) fn to_release(object: ObjectId, place: Place, kind: Kind) -> Removal {
        Removal {
            object,
            was: None,
            place,
            stood: None,
            kind,
            entries: 1,
            is_admitted: true,
            is_replaced: false,
            is_spared: false,
            is_judged: true,
            is_kept: true,
        }
    }
}

/// The object that takes the place of a removed one.
pub(super) enum Successor {
    /// It is there, or there is none.
    InPlace,
    /// It is being sent, or will be.
    OnItsWay,
    /// It could not be put there.
    Failed(ObjectId),
}

impl Session<'_, '_> {
    /// Sends removals, when everything that may have left the removed directories is on its way.
    pub(super) fn send_removals(&mut self) -> Result<(), Ended> {
        if self.removes.is_empty() {
            self.settle_graves();
            return Ok(());
        }
        if self.is_a_move_waiting()? || !self.judge_removals()? || !self.may_delete()? {
            return Ok(());
        }
        let sparing = self.context.source.sparing;
        let spares = sparing.missing || sparing.existing || sparing.newer;
        if !self.context.source.may_protect() && !spares && !self.held.is_empty() {
            // They only waited until all of this was admitted. What comes out of a removed directory leaves it before that goes.
            self.settle_graves();
            return Ok(());
        }
        self.withdraw_removed()?;
        let anew = self.send_anew()?;
        let mut is_renumbered = false;
        for removal in std::mem::take(&mut self.removes) {
            if self.window.len() >= IN_FLIGHT_MAX {
                self.removes.push_back(removal);
                continue;
            }
            let goes_anew = anew.contains(&removal.object);
            match self.successor(&removal)? {
                _ if goes_anew => {}
                Successor::InPlace => {}
                Successor::OnItsWay => {
                    self.removes.push_back(removal);
                    continue;
                }
                Successor::Failed(successor) => {
                    self.postponed.push((successor, removal));
                    continue;
                }
            }
            // What the listing showed at a former place is put, and so moved, by its own op; or its number went to what
            // it belongs to, and what stands there has another by now. The number says nothing any more: look again.
            let catalog = &self.context.source.catalog;
            let is_another = (self.renumbered).contains(&(removal.object, removal.place.clone()));
            let is_present = catalog.read(|view| view.get(removal.object))?.is_some() && !goes_anew;
            if is_present && !is_another && self.busy.contains(&removal.object) {
                // How that op ends says whether it has left.
                self.removes.push_back(removal);
                continue;
            }
            if let Some(successor) = self.merged(&removal)? {
                ExtrasIn::add(self.context.source, successor)?;
                self.must_reconcile = true;
                continue;
            }
            let is_left = self.is_left_to_its_successor(&removal)?;
            let Removal {
                object,
                place,
                kind,
                is_spared,
                is_kept,
                ..
            } = removal;
            if is_another || is_present {
                // What could not be put or moved is in error, and would be found at its former place for ever; what waits leaves it yet.
                let is_expected = self.context.failed.contains_key(&object) || self.held.contains(&object);
                is_renumbered |= is_another || !is_expected;
                if is_another && !(is_spared || is_kept) {
                    self.note_nameless(object, place, kind);
                }
                continue;
            }
            // What is in it is to be judged.
            self.must_reconcile |= is_left && kind == Kind::Directory;
            let is_left = is_spared || is_kept || is_left;
            let flight = InFlight::Remove {
                object,
                place: place.clone(),
                kind,
                is_left,
            };
            let body = match is_left {
                true => OpBody::Release { object, place },
                false => OpBody::Remove { object, place },
            };
            self.submit(body, flight);
        }
        if self.removes.is_empty() {
            self.settle_graves();
        }
        self.must_reconcile |= is_renumbered;
        Ok(())
    }

    /// The directory that takes the place of one that has a number of the target's own: there it becomes that one, with whatever is in it.
    /// What of that goes, a comparison says.
    fn merged(&self, removal: &Removal) -> Result<Option<ObjectId>, StoreError> {
        let keeps = removal.is_spared || removal.is_kept;
        if keeps || removal.kind != Kind::Directory || !removal.object.is_local() {
            return Ok(None);
        }
        let Place { directory, name } = &removal.place;
        self.context.source.catalog.read(|view| {
            let Some(successor) = view.lookup(*directory, name)? else {
                return Ok(None);
            };
            let entry = view.get(successor)?;
            let is_directory = entry.is_some_and(|entry| entry.kind == Kind::Directory);
            Ok(is_directory.then_some(successor))
        })
    }

    /// What waits for the place of a directory that it is in itself, or of one in which something waits for that, can't leave before it
    /// is gone, and it has to be empty for that. So it goes with it, as whatever is in it does, and is sent anew.
    fn send_anew(&mut self) -> Result<HashSet<ObjectId>, StoreError> {
        let source = &mut *self.context.source;
        if self.held.is_empty() || source.graves.is_empty() {
            return Ok(HashSet::new());
        }
        let (held, graves, busy) = (&self.held, &source.graves, &self.busy);
        let directories = self
            .removes
            .iter()
            .filter(|removal| removal.kind == Kind::Directory);
        let above = directories.map(|removal| (removal.object, removal.place.directory));
        let above: HashMap<ObjectId, ObjectId> = above.collect();
        let catalog = source.catalog.clone();
        let anew = catalog.read(|view| {
            // Of what waits: the directories that go and that it is in, and the one that it waits for.
            let mut waiting = Vec::new();
            for removal in self
                .removes
                .iter()
                .filter(|removal| held.contains(&removal.object))
            {
                let entry = view.get(removal.object)?;
                if let Some(&grave) = entry.and_then(|entry| graves.get(&entry.place)) {
                    waiting.push((removal.object, chain(&above, removal.place.directory), grave));
                }
            }
            let mut anew = in_circles(&waiting);
            let tops = anew.clone();
            for removal in self
                .removes
                .iter()
                .filter(|removal| !busy.contains(&removal.object))
            {
                if view.get(removal.object)?.is_some() && is_in_any(view, removal.object, &tops)? {
                    anew.insert(removal.object);
                }
            }
            Ok(anew)
        })?;
        catalog.update(false, |t| {
            for &object in &anew {
                if let Some(mut entry) = t.get(object)? {
                    entry.flags &= !(flags::ON_TARGET | flags::MOVED);
                    entry.sequence = t.next_sequence()?;
                    source.put(t, &entry)?;
                }
            }
            Ok(())
        })?;
        Ok(anew)
    }

    /// After a comparison: what could not be removed before and was not found now is asked about once more. Most often the receiver has
    /// cleared it away by itself, and nothing of it is in error any more. What it holds under a private name is in no listing: it tries
    /// again, and what fails again stays in error. What it shows under its name after all is not deleted by this. Below a directory that is
    /// to be removed nothing was listed: what is there stays the mirror's.
    pub(super) fn release_unfound(&mut self) -> Result<(), StoreError> {
        if self.context.failed.is_empty() {
            return Ok(());
        }
        let postponed = self.postponed.iter().map(|(_, removal)| removal);
        let waiting: Vec<&Removal> = self.removes.iter().chain(postponed).collect();
        let failed = &self.context.failed;
        let unfound = self
            .context
            .source
            .catalog
            .read(|view| unfound(view, failed, &waiting))?;
        self.removes.extend(unfound);
        Ok(())
    }

    /// Something could not be removed.
    pub(super) fn note_unremoved(&mut self, flight: InFlight) {
        if let InFlight::Remove {
            object,
            place,
            kind,
            is_left,
        } = flight
        {
            let removal = Removal {
                kind,
                is_kept: is_left,
                ..Removal::to_release(object, place, kind)
            };
            self.unremoved.insert(object, removal);
        }
    }

    /// Tries again to remove something, unless a comparison has decided about it since.
    pub(super) fn retry_removal(&mut self, object: ObjectId) {
        if let Some(removal) = self.unremoved.remove(&object) {
            self.removes.push_back(removal);
        }
    }

    /// What the mirror put there has a number of the target's own by now, as what is left to the target has.
    fn note_nameless(&mut self, object: ObjectId, place: Place, kind: Kind) {
        let source = &mut *self.context.source;
        if source.start.is_some() {
            let sequence = self.scanned;
            source.left_gone.push(Gone {
                object,
                place,
                kind,
                sequence,
            });
        }
    }

    /// What becomes of the object that takes the place of a removed one. Until it is there the old one stays: a path is
    /// absent only where it is so in the source.
    pub(super) fn successor(&self, removal: &Removal) -> Result<Successor, StoreError> {
        let Place { directory, name } = &removal.place;
        // With a filter that protects, and while removals wait for approval, it is the successor that waits.
        let source = &self.context.source;
        let is_directory = removal.kind == driftless_protocol::Kind::Directory;
        let does_not_wait = source.filter_may_protect() || source.may_protect() && is_directory;
        if does_not_wait || removal.is_spared || removal.is_kept {
            return Ok(Successor::InPlace);
        }
        self.context.source.catalog.read(|view| {
            let Some(successor) = view.lookup(*directory, name)? else {
                return Ok(Successor::InPlace);
            };
            if self.held.contains(&successor) {
                return Ok(Successor::InPlace);
            }
            let is_there = |entry: &Entry| {
                // What is withheld takes no place.
                let is_withheld = entry.flags & flags::WITHHELD != 0 && entry.sequence == 0;
                entry.flags & (flags::ON_TARGET | flags::MOVED) == flags::ON_TARGET || is_withheld
            };
            Ok(match view.get(successor)?.is_none_or(|entry| is_there(&entry)) {
                true => Successor::InPlace,
                false if self.context.failed.contains_key(&successor) => Successor::Failed(successor),
                false => Successor::OnItsWay,
            })
        })
    }

    /// Whether an object has moved whose move cannot be sent yet: the removal of its old directory would take it along.
    pub(super) fn is_a_move_waiting(&self) -> Result<bool, StoreError> {
        let failed = &self.context.failed;
        let delayed = self.delayed.iter().map(|(_, object)| object);
        let waiting = delayed
            .filter(|object| !failed.contains_key(object))
            .chain(&self.deferred);
        self.context.source.catalog.read(|view| {
            for &object in waiting {
                if view
                    .get(object)?
                    .is_some_and(|entry| entry.flags & flags::MOVED != 0)
                {
                    return Ok(true);
                }
            }
            Ok(false)
        })
    }
}

/// A directory and those above it, as far as is known which directories are in which.
fn chain(above: &HashMap<ObjectId, ObjectId>, directory: ObjectId) -> Vec<ObjectId> {
    let next = |at: &ObjectId| above.get(at).copied();
    std::iter::successors(Some(directory), next)
        .take(above.len() + 1)
        .collect()
}

/// Of objects that are in some directories and wait until another is gone: those that wait, directly or by way of others, for one that
/// they are in themselves.
fn in_circles(waiting: &[(ObjectId, Vec<ObjectId>, ObjectId)]) -> HashSet<ObjectId> {
    let waits_for_itself = |(_, inside, grave): &&(ObjectId, Vec<ObjectId>, ObjectId)| {
        let (mut reached, mut open) = (HashSet::from([*grave]), vec![*grave]);
        while let Some(at) = open.pop() {
            let next = waiting.iter().filter(|(_, inside, _)| inside.contains(&at));
            open.extend(
                next.map(|(_, _, grave)| *grave)
                    .filter(|grave| reached.insert(*grave)),
            );
        }
        inside.iter().any(|directory| reached.contains(directory))
    };
    waiting
        .iter()
        .filter(waits_for_itself)
        .map(|(object, ..)| *object)
        .collect()
}

/// Whether an object is in one of these, however deep.
fn is_in_any(
    view: &impl CatalogRead,
    object: ObjectId,
    tops: &HashSet<ObjectId>,
) -> Result<bool, StoreError> {
    let mut at = object;
    while !tops.is_empty() && at != ObjectId::ROOT {
        let Some(entry) = view.get(at)? else { break };
        at = entry.place.directory;
        if tops.contains(&at) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What is in error, is gone here, and waits for no removal, so that a comparison that just ended would have found it if it were to be
/// seen: all but what stands below a directory that is to be removed.
fn unfound(
    view: &impl CatalogRead,
    failed: &HashMap<ObjectId, Failed>,
    waiting: &[&Removal],
) -> Result<Vec<Removal>, StoreError> {
    let queued: HashSet<ObjectId> = waiting.iter().map(|removal| removal.object).collect();
    let is_any_directory = waiting.iter().any(|removal| removal.kind == Kind::Directory);
    let mut unfound = Vec::new();
    for (&object, failed) in failed {
        let is_listed = !is_any_directory || view.get(failed.place.directory)?.is_some();
        if is_listed && !queued.contains(&object) && view.get(object)?.is_none() {
            unfound.push(Removal::to_release(object, failed.place.clone(), Kind::File));
        }
    }
    Ok(unfound)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::store::{Catalog, Role};
    use driftless_protocol::Attributes;

    pub(in super::super) fn entry(object: u64, directory: u64, name: &str, kind: Kind) -> Entry {
        let name = Name::new(name.as_bytes()).unwrap();
        let directory = ObjectId(directory);
        Entry {
            object: ObjectId(object),
            place: Place { directory, name },
            kind,
            attributes: Attributes::default(),
            size: 0,
            digest: None,
            stamp: None,
            sequence: 0,
            flags: 0,
        }
    }

    fn failed(object: u64, directory: u64) -> (ObjectId, Failed) {
        let failed = Failed {
            object: ObjectId(object),
            place: entry(object, directory, &format!("gone-{object}"), Kind::File).place,
            kind: FailureKind::Permission as u8,
            text: "it stays".to_owned(),
            held: None,
            since: 0,
            tries: 1,
            refused: None,
        };
        (failed.object, failed)
    }

    fn removal(object: u64, kind: Kind) -> Removal {
        let place = entry(object, 1, &format!("removed-{object}"), kind).place;
        Removal {
            is_kept: false,
            ..Removal::to_release(ObjectId(object), place, kind)
        }
    }

    /// Of these: 10 is in the root, 11 in a directory that is there, 12 in one that is gone, 13 waits for its removal, and 14 is there.
    fn found_unfound(waiting: &[Removal]) -> Vec<u64> {
        let home = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(&home.path().join("catalog"), Role::Sender)
            .unwrap()
            .catalog;
        let here = [
            entry(1, 0, "root", Kind::Directory),
            entry(2, 1, "here", Kind::Directory),
            entry(14, 1, "file", Kind::File),
        ];
        catalog
            .update(false, |t| here.iter().try_for_each(|entry| t.put(entry)))
            .unwrap();
        let failed = HashMap::from([
            failed(10, 1),
            failed(11, 2),
            failed(12, 3),
            failed(13, 1),
            failed(14, 1),
        ]);
        let waiting: Vec<&Removal> = waiting.iter().collect();
        let unfound = catalog.read(|view| unfound(view, &failed, &waiting)).unwrap();
        let mut objects: Vec<u64> = unfound.iter().map(|removal| removal.object.0).collect();
        objects.sort_unstable();
        assert!(unfound.iter().all(|removal| removal.is_kept), "{unfound:?}");
        objects
    }

    #[test]
    fn what_waits_for_itself_is_told_from_what_waits_for_others() {
        let waiting = |inside: &[u64], grave: u64| {
            let object = ObjectId(100 + inside[0]);
            (
                object,
                inside.iter().copied().map(ObjectId).collect::<Vec<_>>(),
                ObjectId(grave),
            )
        };
        let circles = |waiting: &[_]| {
            let mut found: Vec<u64> = in_circles(waiting).iter().map(|object| object.0).collect();
            found.sort_unstable();
            found
        };
        assert_eq!(circles(&[waiting(&[2, 1], 1)]), [102], "its own");
        assert!(
            circles(&[waiting(&[1], 2), waiting(&[2], 3), waiting(&[3], 4)]).is_empty(),
            "a chain"
        );
        let circle = [
            waiting(&[1], 2),
            waiting(&[2], 3),
            waiting(&[3], 1),
            waiting(&[4], 1),
        ];
        assert_eq!(
            circles(&circle),
            [101, 102, 103],
            "the last waits for a circle that it is not in"
        );
        let above = HashMap::from([(ObjectId(3), ObjectId(2)), (ObjectId(2), ObjectId(3))]);
        assert_eq!(chain(&above, ObjectId(3)).len(), 3, "a circle ends, too");
    }

    #[test]
    fn what_is_below_a_directory_that_is_to_be_removed_is_not_released() {
        let file = || removal(13, Kind::File);
        assert_eq!(found_unfound(&[file()]), [10, 11, 12]);
        assert_eq!(found_unfound(&[file(), removal(3, Kind::Directory)]), [10, 11]);
    }
}
