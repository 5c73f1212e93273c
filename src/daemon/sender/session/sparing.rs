//! Entries that are left as they are on the target: `--ignore-existing`, `--existing`, `--update`.
//!
//! Such an entry is *withheld*: it is in the catalog, but in no sum, and the receiver counts what it has there as none
//! of the mirror's. So "in sync" keeps its meaning, and the status says how many there are. A comparison finds most of them
//! in the receiver's listing (`Source::spares`); for what changes later the receiver looks at its disk and fails the op
//! with [`FailureKind::Withheld`]. A withheld entry that is not in the journal waits for its next change.

use super::*;

impl Session<'_, '_> {
    /// Whether nothing is to be sent of an entry, because it is left as it is there.
    pub(super) fn is_spared(&mut self, entry: &Entry) -> Result<bool, Ended> {
        let sparing = self.context.options.sparing;
        if self.is_left(entry) {
            return Ok(true);
        }
        if sparing == Sparing::default() {
            return Ok(false);
        }
        let is_withheld = entry.flags & flags::WITHHELD != 0;
        if is_withheld && entry.sequence == 0 {
            return Ok(true);
        }
        let above = self
            .context
            .source
            .catalog
            .read(|view| view.get(entry.place.directory))?;
        if sparing.missing && above.is_some_and(|above| above.flags & flags::WITHHELD != 0) {
            self.withhold(entry.object)?;
            return Ok(true);
        }
        let on_target = entry.flags & flags::ON_TARGET != 0;
        let changed = entry.flags & (flags::STALE | flags::ATTRIBUTES) != 0;
        let moved = entry.flags & flags::MOVED != 0;
        if sparing.existing
            && on_target
            && changed
            && !moved
            && entry.kind != Kind::Directory
            && entry.object < self.context.source.first_of_run
        {
            self.withhold(entry.object)?;
            self.let_go(entry.place.clone(), entry.object);
            return Ok(true);
        }
        Ok(false)
    }

    /// Whether what stands at the place of a removal is for the object that takes the place to judge: it may have to be left.
    pub(super) fn is_left_to_its_successor(&self, removal: &Removal) -> Result<bool, StoreError> {
        let sparing = self.context.options.sparing;
        if !(sparing.existing || sparing.newer) {
            return Ok(false);
        }
        let Place { directory, name } = &removal.place;
        let catalog = &self.context.source.catalog;
        catalog.read(|view| Ok(view.lookup(*directory, name)?.is_some()))
    }

    /// Tells the target that what it has under this number is not the mirror's.
    pub(super) fn let_go(&mut self, place: Place, object: ObjectId) {
        let flight = InFlight::Remove {
            object,
            place: place.clone(),
            kind: Kind::File,
            is_left: true,
        };
        self.submit(OpBody::Release { object, place }, flight);
    }

    /// Takes an entry out of the sums, with everything below it.
    pub(super) fn withhold(&mut self, object: ObjectId) -> Result<(), Ended> {
        // What changed meanwhile keeps its turn.
        let (scanned, has_changed) = (self.scanned, self.deferred.contains(&object));
        let source = &mut *self.context.source;
        source.catalog.clone().update(false, |t| {
            let mut waiting = vec![object];
            while let Some(next) = waiting.pop() {
                let Some(mut entry) = t.get(next)? else { continue };
                if !(entry.sequence > scanned || has_changed && next == object) {
                    entry.sequence = 0;
                }
                withhold(&mut entry);
                source.put(t, &entry)?;
                if entry.kind == Kind::Directory {
                    waiting.extend(t.children(next)?.into_iter().map(|(_, child)| child));
                }
            }
            Ok(())
        })?;
        self.tries.remove(&object);
        self.forget_failed(object)
    }

    /// The target leaves something as it is.
    pub(super) fn handle_withheld(&mut self, flight: &InFlight, object: ObjectId) -> Result<(), Ended> {
        self.withhold(object)?;
        // What it has at the place where this stood before is to be judged.
        self.must_reconcile |= matches!(flight, InFlight::Move { .. });
        self.free(object);
        Ok(())
    }

    fn forget_failed(&mut self, object: ObjectId) -> Result<(), Ended> {
        if self.context.failed.remove(&object).is_some() {
            let state = &self.context.source.state;
            state.clear_failed(&self.context.options.target.display, object)?;
            self.delayed.retain(|(_, delayed)| *delayed != object);
            self.context.counters.failed = self.context.failed.len() as u64;
            self.context.tell_failed();
        }
        Ok(())
    }
}
