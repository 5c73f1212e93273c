//! `--initial skip`: what both sides have when they first meet is taken as it is, and only what changes from then on is sent.
//!
//! The start is the end of the first walk: its number in the journal is in the state before anybody connects, so that what changes
//! afterwards is sent whenever the target can be reached. The first comparison gives numbers to what is equal and to directories that
//! both sides have; every other entry up to that number is withheld, as under [`Sparing`](driftless_protocol::message::Sparing), until it
//! changes. A later comparison leaves what is withheld as it is, and what only the target has.
//!
//! Which entries those are is in the catalog. Without it nobody knows any more, so everything is taken as it is once again, and
//! that is told.

use super::{DELETES, Source};
use crate::daemon::ledger::flags;
use crate::daemon::{DaemonError, Initial};
use crate::store::{CatalogRead, Change, Entry, IncarnationEnd, StoreError};
use driftless_protocol::limits::PATH_ELEMENTS_MAX;
use driftless_protocol::message::{Cursor, Place, Row};
use driftless_protocol::{Kind, ObjectId};
use std::collections::HashMap;

/// In the state.
const INITIAL: &str = "initial";
/// In the catalog: that what it knows and the target were compared. Without its catalog a mirror meets its target anew.
const META_MET: &str = "met";
/// In the catalog: the token of the start that it knows of.
const META_INITIAL: &str = "initial";
/// In the state: nothing is left as it is any more.
const FULL: &[u8] = b"full";
/// Records of the journal that are taken at a time.
const AT_A_TIME: usize = 4_096;

/// The start of a mirror whose first comparison changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// What has a higher number in the journal changed later.
    through: u64,
    /// The first comparison is done.
    is_done: bool,
    /// Tells one start from another.
    token: u64,
}

impl Start {
    fn to_bytes(self) -> Vec<u8> {
        let mut bytes = vec![u8::from(self.is_done)];
        bytes.extend(self.through.to_be_bytes());
        bytes.extend(self.token.to_be_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Start> {
        let (is_done, rest) = bytes.split_first()?;
        let (through, token) = rest.split_first_chunk::<8>()?;
        Some(Start {
            through: u64::from_be_bytes(*through),
            is_done: *is_done == 1,
            token: u64::from_be_bytes(token.try_into().ok()?),
        })
    }

    /// Whether the first comparison is done.
    pub fn is_done(self) -> bool {
        self.is_done
    }
}

/// Something that was left as it is on the target, and is gone here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gone {
    /// Its number here.
    pub object: ObjectId,
    /// Where it stood.
    pub place: Place,
    /// What it was.
    pub kind: Kind,
    /// The number of its removal in the journal.
    pub sequence: u64,
}

impl Source {
    /// Finds out whether anything was left as it is, before the walk at the start: what that finds moved or gone may be among it.
    pub fn load_initial(&mut self, target: &str) -> Result<(), StoreError> {
        self.acknowledged = match self.state.acknowledged(target)? {
            Some(cursor) if self.is_of_this_journal(&cursor)? => cursor.sequence,
            _ => 0,
        };
        let stored = self.state.value(INITIAL)?;
        let known = self.catalog.read(|view| view.meta(META_INITIAL))?;
        let start = stored.and_then(|bytes| Start::from_bytes(&bytes));
        self.start = start.filter(|start| known.is_some_and(|token| token == start.token.to_be_bytes()));
        Ok(())
    }

    /// Whether a cursor counts by the numbers of the present journal: one of before a catalog was lost does not.
    pub fn is_of_this_journal(&self, cursor: &Cursor) -> Result<bool, StoreError> {
        Ok(match self.state.incarnation_end(cursor.incarnation)? {
            Some(IncarnationEnd::Running) => true,
            Some(IncarnationEnd::Ended(end)) => cursor.sequence <= end,
            None => false,
        })
    }

    /// Decides whether anything is left as it is, after the walk at the start. `wanted` is none where what was decided first holds.
    pub fn note_initial(&mut self, wanted: Option<Initial>) -> Result<(), DaemonError> {
        let outcome = self.begin_initial(wanted);
        outcome.map_err(|error| DaemonError::failed(error.to_string()))
    }

    fn begin_initial(&mut self, wanted: Option<Initial>) -> Result<(), StoreError> {
        let stored = self.state.value(INITIAL)?;
        let stored = stored.and_then(|bytes| Start::from_bytes(&bytes));
        match (wanted, stored) {
            (Some(Initial::Full), Some(_)) => self.take_up_all(),
            (_, Some(_)) if self.start.is_some() => Ok(()),
            (_, Some(_)) => {
                self.warnings.push(
                    "the catalog was lost, and with it what had been left as it is on the target (initial = \"skip\"): what differs now is \
                     left from here on; `--initial full` brings everything over"
                        .to_owned(),
                );
                self.begin_again()
            }
            (Some(Initial::Skip), None) if self.state.value(super::session::RULES)?.is_some() => {
                self.warnings.push(
                    "--initial skip has no effect: the target was compared before, and is kept like the source".to_owned(),
                );
                Ok(())
            }
            (Some(Initial::Skip), None) => self.begin_again(),
            (_, None) => Ok(()),
        }
    }

    /// From here on changes are sent, and what differs already is left. The state goes last: without it, it is begun once more.
    fn begin_again(&mut self) -> Result<(), StoreError> {
        let token = getrandom::u64().unwrap_or(self.first_of_run.0);
        let through = self.catalog.update(true, |t| {
            t.set_meta(META_INITIAL, &token.to_be_bytes())?;
            t.last_sequence()
        })?;
        let start = Start {
            through,
            is_done: false,
            token,
        };
        self.state.put_value(INITIAL, &start.to_bytes())?;
        self.start = Some(start);
        Ok(())
    }

    /// Nothing is left as it is any more.
    fn take_up_all(&mut self) -> Result<(), StoreError> {
        self.start = None;
        self.take_up_withheld()?;
        self.rules_changed = true;
        self.state.put_value(INITIAL, FULL)
    }

    /// What was withheld counts and is to be compared again.
    pub fn take_up_withheld(&mut self) -> Result<(), StoreError> {
        self.catalog.clone().update(true, |t| {
            let mut withheld = Vec::new();
            t.for_each(&mut |entry: Entry| {
                withheld.extend((entry.flags & flags::WITHHELD != 0).then_some(entry));
                Ok(())
            })?;
            for mut entry in withheld {
                entry.flags &= !(flags::WITHHELD | flags::OFFER);
                entry.sequence = t.next_sequence()?;
                self.put(t, &entry)?;
            }
            Ok(())
        })
    }

    /// The first comparison is done, and what it left is in the catalog, durably.
    pub fn conclude_initial(&mut self) -> Result<(), StoreError> {
        let Some(start) = self.start.filter(|start| !start.is_done) else {
            return Ok(());
        };
        let start = Start {
            is_done: true,
            ..start
        };
        self.state.put_value(INITIAL, &start.to_bytes())?;
        self.start = Some(start);
        Ok(())
    }

    /// Whether an entry is left as it is on the target until it changes.
    pub fn is_left(&self, entry: &Entry) -> bool {
        self.start.is_some() && entry.flags & flags::WITHHELD != 0 && entry.sequence == 0
    }

    /// Whether an entry that differs from what the target has in its place, if anything, is to be left as it is there.
    pub fn leaves(&self, entry: &Entry, theirs: Option<&Row>) -> bool {
        let is_directory = |row: &Row| row.kind == Kind::Directory;
        // What is in them is followed, and is addressed by their numbers.
        let are_directories = entry.kind == Kind::Directory && theirs.is_some_and(is_directory);
        !are_directories && (self.is_left(entry) || self.is_from_before(entry))
    }

    /// Whether an entry that is compared for the first time is as it was at the start.
    pub fn is_from_before(&self, entry: &Entry) -> bool {
        let is_first = |start: Start| !start.is_done && entry.sequence <= start.through;
        self.start.is_some_and(is_first)
    }

    /// Whether an entry is as it was when both sides first met, so that showing it in another way is no change of it.
    pub fn is_as_at_the_start(&self, entry: &Entry) -> bool {
        self.is_left(entry) || self.is_from_before(entry)
    }

    /// Whether this mirror and its target have met: what each had then was compared as a whole, and it is decided what becomes of
    /// what only the target had.
    pub fn is_start_decided(&self) -> Result<bool, StoreError> {
        match self.start {
            Some(start) => Ok(start.is_done()),
            None => Ok(self.state.value(DELETES)?.is_some()),
        }
    }

    /// Whether all that this mirror and its target have was compared since there is this catalog. Where the target may not be deleted
    /// from that decides nothing about what only the target has.
    pub fn has_met(&self) -> Result<bool, StoreError> {
        match self.start {
            Some(start) => Ok(start.is_done()),
            None => self.catalog.read(|view| Ok(view.meta(META_MET)?.is_some())),
        }
    }

    /// What both have was compared, or is known to be equal.
    pub fn note_met(&self) -> Result<(), StoreError> {
        if self.start.is_some() || self.has_met()? {
            return Ok(());
        }
        self.catalog.update(true, |t| t.set_meta(META_MET, b"yes"))
    }

    /// Notes the removals that the target may not have heard of: what is gone here may have been left there, under no number that is
    /// known here. What was gone before the start is no change: the target keeps what it has there.
    pub fn note_gone(&mut self) -> Result<(), StoreError> {
        let Some(start) = self.start else {
            return Ok(());
        };
        let mut after = self.acknowledged.max(start.through);
        // What waits for its successor since an earlier connection is in the journal no more.
        self.left_gone.retain(|gone| gone.sequence <= after);
        loop {
            let page = self.catalog.read(|view| view.changed_after(after, AT_A_TIME))?;
            let Some((last, _)) = page.last() else {
                return Ok(());
            };
            after = *last;
            for (sequence, change) in page {
                if let Change::Removed {
                    object, place, kind, ..
                } = change
                {
                    self.left_gone.push(Gone {
                        object,
                        place,
                        kind,
                        sequence,
                    });
                }
            }
        }
    }

    /// What is gone and is to be looked for on the target now. What has a successor here waits until that has taken the place on the
    /// target, or is gone as well: a file that cannot be put must not cost the target the one that it has.
    pub fn take_gone(&mut self) -> Result<Vec<Gone>, StoreError> {
        let (mut free, mut waiting) = (Vec::new(), Vec::new());
        let gone = std::mem::take(&mut self.left_gone);
        let places: HashMap<ObjectId, Place> = gone
            .iter()
            .map(|gone| (gone.object, gone.place.clone()))
            .collect();
        self.catalog.read(|view| {
            for gone in gone {
                // A directory that took the place of its own may have been made of that on the target, with all that was in it.
                let successor = successor_of(view, gone.place.directory, &places)?;
                let place = match successor {
                    Some(directory) if !is_there(view, directory)? => {
                        waiting.push(gone);
                        continue;
                    }
                    Some(directory) => Place {
                        directory,
                        name: gone.place.name.clone(),
                    },
                    None => gone.place.clone(),
                };
                match view.lookup(place.directory, &place.name)? {
                    None => free.push(Gone { place, ..gone }),
                    Some(object) if !is_there(view, object)? => waiting.push(gone),
                    Some(_) => {}
                }
            }
            Ok(())
        })?;
        self.left_gone = waiting;
        Ok(free)
    }
}

/// Whether the target has an object where it is.
fn is_there(view: &impl CatalogRead, object: ObjectId) -> Result<bool, StoreError> {
    let is_there = |entry: Entry| {
        let there = entry.flags & (flags::ON_TARGET | flags::MOVED);
        there == flags::ON_TARGET
    };
    Ok(view.get(object)?.is_some_and(is_there))
}

/// The directory that stands where one stood that is gone; `places` of what is gone.
fn successor_of(
    view: &impl CatalogRead,
    directory: ObjectId,
    places: &HashMap<ObjectId, Place>,
) -> Result<Option<ObjectId>, StoreError> {
    let (mut names, mut above) = (Vec::new(), directory);
    while view.get(above)?.is_none() && above != ObjectId::ROOT {
        let Some(place) = places.get(&above).filter(|_| names.len() < PATH_ELEMENTS_MAX) else {
            return Ok(None);
        };
        names.push(&place.name);
        above = place.directory;
    }
    if above == directory {
        return Ok(None);
    }
    for name in names.into_iter().rev() {
        match view.lookup(above, name)? {
            Some(next) => above = next,
            None => return Ok(None),
        }
    }
    let is_directory = |entry: Entry| entry.kind == Kind::Directory;
    Ok(view.get(above)?.is_some_and(is_directory).then_some(above))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_read_as_it_was_written() {
        let start = Start {
            through: 7 << 40,
            is_done: true,
            token: u64::MAX - 3,
        };
        assert_eq!(Start::from_bytes(&start.to_bytes()), Some(start));
        for bytes in [FULL, b"", b"\x01\x00"] {
            assert_eq!(Start::from_bytes(bytes), None, "{bytes:?}");
        }
    }
}
