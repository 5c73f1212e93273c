//! How many deletions may go, and who has to be asked.

use super::*;
use driftless_protocol::Kind;

/// Then each object is begun so often at most: to be made, to get its content, its attributes, and once more.
const REFUSED_TRIES: u32 = 4;
/// So long a run that is refused goes on to look at what changes.
const REFUSED_LOOKS: Duration = Duration::from_secs(2);

impl Session<'_, '_> {
    /// What becomes of what a comparison finds on the target only: always or never.
    pub(super) fn deletes_extras(&self) -> Result<Deletes, StoreError> {
        if !self.may_delete {
            return Ok(Deletes::Never);
        }
        Ok(match self.context.options.deletes {
            Deletes::Ask => match self.context.source.state.value(DELETES)?.as_deref() {
                Some(b"never") => Deletes::Never,
                _ => Deletes::Always,
            },
            Deletes::Startup if !self.context.was_ever_in_sync => Deletes::Always,
            Deletes::Startup | Deletes::Running => Deletes::Never,
            asked => asked,
        })
    }

    /// Whether the target keeps what was removed from the source, at this number of the journal.
    pub(super) fn spares(&self, sequence: u64) -> Result<bool, StoreError> {
        if !self.may_delete {
            return Ok(true);
        }
        Ok(match self.context.options.deletes {
            Deletes::Startup => sequence > self.context.started_at,
            Deletes::Running => sequence <= self.context.started_at,
            _ => self.deletes_extras()? == Deletes::Never,
        })
    }

    /// Whether the removals that wait may be sent. If not, it was told how many wait; without anybody to ask, that is the end once
    /// all else is sent.
    pub(super) fn may_delete(&mut self) -> Result<bool, Ended> {
        if self.refused.is_some() && self.looks_away() {
            return Ok(false);
        }
        let waiting = self.waiting_deletions()?;
        let present = self.context.source.catalog.read(|view| view.count())?;
        let was_approved = self.context.fuse.is_approved();
        self.refused = None;
        if self.context.fuse.admit(Instant::now(), waiting, present) {
            if was_approved {
                // It was decided beside what is there now.
                self.context.source.newcomers.forget();
            }
            for removal in &mut self.removes {
                removal.is_admitted = true;
            }
            self.refused_since = None;
            if self.context.held.take().is_some() {
                self.context.observer.phase(&Phase::Sending);
            }
            return Ok(true);
        }
        if self.context.held == Some(waiting) {
            return Ok(false);
        }
        let text = format!(
            "{waiting} of {} entries are gone from {}, more than may be deleted unasked",
            waiting.saturating_add(present),
            self.context.source.path.display(),
        );
        if !self.context.options.follow || self.context.options.approvals.is_none() {
            self.refused_since.get_or_insert_with(Instant::now);
            self.refused = Some(format!(
                "{text}: none of them was deleted from {}; if that is right, run once with `--max-delete none`",
                self.target()
            ));
            return Ok(false);
        }
        self.context.held = Some(waiting);
        // Somebody's answer may take days, and nobody else waits for it.
        self.context.turn = None;
        self.context.observer.phase(&Phase::Held {
            deletions: waiting,
            text: format!(
                "{text}: they stay on the target until they are back, or until `driftless approve {} --deletes {waiting}`",
                self.target()
            ),
        });
        Ok(false)
    }

    /// Whether nothing more is looked at, since this run is refused and only ends what it has begun. What changes all the time would keep
    /// it from ending.
    pub(super) fn looks_away(&self) -> bool {
        self.refused_since
            .is_some_and(|since| since.elapsed() > REFUSED_LOOKS)
    }

    /// Whether a run that is refused leaves an object as it is on the target by now: it is written to all the time.
    pub(super) fn is_begun_too_often(&mut self, object: ObjectId) -> bool {
        if !self.looks_away() {
            return false;
        }
        let begun = self.begun_last.entry(object).or_default();
        *begun += 1;
        *begun > REFUSED_TRIES
    }

    /// Takes in what somebody approved.
    pub(super) fn take_approvals(&mut self) {
        if let Some(approvals) = &self.context.options.approvals {
            for deletions in approvals.try_iter() {
                self.context.fuse.approve(deletions);
                self.context.held = None;
            }
        }
    }

    /// Whether what is gone from the source will have to be approved, as far as can be told before it is compared with
    /// what took its place.
    pub(super) fn is_fuse_in_danger(&self) -> Result<bool, Ended> {
        let present = self.context.source.catalog.read(|view| view.count())?;
        let unsent = self.context.source.unsent_deletions;
        Ok(self.context.held.is_some() || self.context.fuse.would_refuse(Instant::now(), unsent, present))
    }

    /// Entries that would be gone from the target if all removals were sent.
    fn waiting_deletions(&mut self) -> Result<u64, Ended> {
        let removes = &self.removes;
        let lost = (self.context.source.catalog).read(|view| entries_lost(view, removes))?;
        let newcomers = &mut self.context.source.newcomers;
        for (successor, removal) in lost.heirs.into_iter().filter(|(_, removal)| removal.entries > 0) {
            match removal.kind == Kind::Directory {
                // What in it took which place is not told.
                true => newcomers.forget(),
                false => newcomers.handle_heir(successor),
            }
        }
        Ok(lost.entries)
    }
}

/// What removals would take from the target.
#[derive(Default)]
struct Lost<'a> {
    entries: u64,
    /// What stands in the stead of which.
    heirs: Vec<(ObjectId, &'a Removal)>,
}

/// What removals that nobody decided on would take from the target. What stands at a removed entry's path by now is there in its stead,
/// also if the directories above it are others: a tree that was copied back is there again.
fn entries_lost<'a>(view: &impl CatalogRead, removes: &'a VecDeque<Removal>) -> Result<Lost<'a>, StoreError> {
    let stood = |removal: &'a Removal| removal.stood.as_ref().unwrap_or(&removal.place);
    let directories = removes.iter().filter(|removal| removal.kind == Kind::Directory);
    let places: HashMap<ObjectId, &Place> = directories
        .map(|removal| (removal.object, stood(removal)))
        .collect();
    let mut successors = HashMap::new();
    let mut lost = Lost::default();
    for removal in removes {
        let is_decided = removal.is_admitted || removal.is_kept || removal.is_spared;
        if is_decided || view.get(removal.object)?.is_some() {
            continue;
        }
        let Place { directory, name } = stood(removal);
        let directory = match successors.get(directory) {
            Some(&known) => known,
            None => {
                let found = stands_in(view, *directory, &places)?;
                successors.insert(*directory, found);
                found
            }
        };
        let successor = match directory {
            Some(directory) => view.lookup(directory, name)?,
            None => None,
        };
        let there = match successor {
            Some(successor) => {
                lost.heirs.push((successor, removal));
                count_below(view, successor, removal.entries)?
            }
            None => 0,
        };
        let gone = removal.entries.saturating_sub(there);
        lost.entries = lost.entries.saturating_add(gone);
    }
    Ok(lost)
}

/// The directory itself, or what stands at its path since it was removed from one of these places.
fn stands_in(
    view: &impl CatalogRead,
    directory: ObjectId,
    removed: &HashMap<ObjectId, &Place>,
) -> Result<Option<ObjectId>, StoreError> {
    let mut names = Vec::new();
    let mut top = directory;
    while view.get(top)?.is_none() {
        // Places that run in a circle lead nowhere.
        let Some(place) = removed.get(&top).filter(|_| names.len() < removed.len()) else {
            return Ok(None);
        };
        names.push(&place.name);
        top = place.directory;
    }
    for name in names.into_iter().rev() {
        match view.lookup(top, name)? {
            Some(next) => top = next,
            None => return Ok(None),
        }
    }
    Ok(Some(top))
}

/// An entry and what is below it, counted no further than `enough`.
fn count_below(view: &impl CatalogRead, top: ObjectId, enough: u64) -> Result<u64, StoreError> {
    let mut count = 1;
    let mut directories = vec![top];
    while let Some(directory) = directories.pop().filter(|_| count < enough) {
        for (_, object) in view.children(directory)? {
            count += 1;
            directories.push(object);
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::sender::session::removals::tests::entry;
    use crate::store::{Catalog, Role};

    /// A directory of three files was removed and copied back, and the connection broke while the target had the old one under another
    /// name.
    #[test]
    fn what_was_copied_back_is_not_lost_wherever_the_target_has_the_old_one() {
        let home = tempfile::tempdir().unwrap();
        let opened = Catalog::open(&home.path().join("catalog"), Role::Sender).unwrap();
        let here = [
            entry(1, 0, "root", Kind::Directory),
            entry(41, 1, "d", Kind::Directory),
            entry(42, 41, "one", Kind::File),
            entry(43, 41, "two", Kind::File),
        ];
        let catalog = opened.catalog;
        catalog
            .update(false, |t| here.iter().try_for_each(|entry| t.put(entry)))
            .unwrap();
        let gone = entry(10, 1, "driftless-parked-0123456789abcdef", Kind::Directory);
        let removal = |stood: Option<Place>| Removal {
            entries: 4,
            is_admitted: false,
            is_kept: false,
            stood,
            ..Removal::to_release(gone.object, gone.place.clone(), gone.kind)
        };
        let lost = |stood| {
            let removes = VecDeque::from([removal(stood)]);
            catalog
                .read(|view| Ok(entries_lost(view, &removes)?.entries))
                .unwrap()
        };
        assert_eq!(lost(None), 4);
        assert_eq!(lost(Some(here[1].place.clone())), 1, "the third file");
        assert_eq!(lost(Some(entry(10, 41, "other", Kind::Directory).place)), 4);
    }
}
