//! What a look takes for known although the kernel has not told everything that happened before it.
//!
//! The look that finds a file which was only renamed takes over its times, and they may be those of a later write that is not
//! told yet. What is told in time brings the file into doubt. What is lost with the kernel's queue, or with the process, does not: so
//! the catalog keeps the number that its journal had before the first of these looks, and what changed since then is read again.
//!
//! And a look that does not find under a name what it was told of there loses a doubt that was about something which has
//! another name by now: the rename that brought it there is told next, and has to take the doubt along.
//!
//! Both is over when the kernel has told what it held after the look.

use crate::store::{CatalogRead, Change, StoreError, Tables};
use crossbeam_channel::{Receiver, Select, Sender, TryRecvError, bounded};
use driftless_protocol::message::Place;
use driftless_protocol::{Name, ObjectId};
use std::collections::{HashMap, HashSet};

const META_UNHEARD: &str = "unheard since";

/// So many names of each kind: a file that is renamed beyond them is read again.
const NAMES_MAX: usize = 100_000;

/// What was looked at too early.
#[derive(Debug, Default)]
pub struct Unheard {
    /// Before the kernel was asked.
    asked: Looks,
    /// And since.
    since: Looks,
    /// Disconnects when it has told what it held.
    answer: Option<Receiver<()>>,
    /// Files of which more was told.
    pub(super) doubted: Vec<ObjectId>,
    /// The number that the journal had before the first look at one of them.
    doubted_since: Option<u64>,
    /// What changed after this number of the journal is in doubt: more of it may have been told to an earlier run, or to nobody.
    lost_since: Option<u64>,
    /// Events were lost, and the tree has not been walked since.
    is_lost: bool,
    /// The catalog has another number.
    is_unsaved: bool,
}

#[derive(Debug, Default)]
struct Looks {
    /// Files that were taken for only renamed, by their names before and after.
    renamed: HashMap<(ObjectId, Name), Vec<ObjectId>>,
    /// The number that the journal had before the first of them.
    since: Option<u64>,
    /// Names of which more was told than was found there.
    passed: HashSet<(ObjectId, Name)>,
    /// Any name may be one of these.
    has_passed_all: bool,
}

impl Looks {
    fn is_empty(&self) -> bool {
        self.renamed.is_empty() && self.passed.is_empty() && !self.has_passed_all
    }
}

impl Unheard {
    /// What an earlier run had not heard. The catalog has the number of the journal (8 bytes, big endian).
    pub fn load(catalog: &impl CatalogRead) -> Result<Unheard, StoreError> {
        let bytes = catalog.meta(META_UNHEARD)?;
        let since = bytes.and_then(|bytes| Some(u64::from_be_bytes(bytes.try_into().ok()?)));
        Ok(Unheard {
            lost_since: since,
            ..Unheard::default()
        })
    }

    /// Writes the number to the catalog, if it has another.
    pub fn store(&mut self, t: &mut Tables<'_>) -> Result<(), StoreError> {
        if !std::mem::take(&mut self.is_unsaved) {
            return Ok(());
        }
        match self.first() {
            Some(since) => t.set_meta(META_UNHEARD, &since.to_be_bytes()),
            None => t.delete_meta(META_UNHEARD).map(|_| ()),
        }
    }

    /// The least of the numbers of the journal after which something may be in doubt.
    fn first(&self) -> Option<u64> {
        let all = [
            self.lost_since,
            self.doubted_since,
            self.asked.since,
            self.since.since,
        ];
        all.into_iter().flatten().min()
    }

    /// Whether a file may be taken for only renamed.
    pub fn takes_renames(&self) -> bool {
        !self.is_lost && self.asked.renamed.len() + self.since.renamed.len() + 2 <= NAMES_MAX
    }

    /// A file was found at another place, and nothing but a rename was told of it. `last` is the number of the journal before that.
    pub fn note_renamed(&mut self, object: ObjectId, places: [&Place; 2], last: u64) {
        for place in places {
            let names = &mut self.since.renamed;
            let key = (place.directory, place.name.clone());
            names.entry(key).or_default().push(object);
        }
        if self.since.since.is_none() {
            self.since.since = Some(last);
            self.is_unsaved = true;
        }
    }

    /// What was told of a name was about something that is not there any more.
    pub fn note_passed(&mut self, directory: ObjectId, name: &Name) {
        match self.asked.passed.len() + self.since.passed.len() < NAMES_MAX {
            true => _ = self.since.passed.insert((directory, name.clone())),
            false => self.note_passed_all(),
        }
    }

    /// The same of more names than are remembered.
    pub fn note_passed_all(&mut self) {
        self.since.has_passed_all = true;
        self.since.passed.clear();
    }

    /// Whether something that comes from a name now may have been told of under it.
    pub fn has_passed(&self, directory: ObjectId, name: &Name) -> bool {
        let mut both = [&self.asked, &self.since].into_iter();
        both.any(|looks| {
            looks.has_passed_all
                || !looks.passed.is_empty() && looks.passed.contains(&(directory, name.clone()))
        })
    }

    /// More was told of what has, or had, a name.
    pub fn handle_told(&mut self, directory: ObjectId, name: &Name) {
        let (known, first) = (self.doubted.len(), self.first());
        for looks in [&mut self.asked, &mut self.since] {
            if !looks.renamed.is_empty() {
                let known = looks.renamed.remove(&(directory, name.clone()));
                self.doubted.extend(known.into_iter().flatten());
            }
        }
        if self.doubted.len() > known {
            self.doubted_since = first;
        }
    }

    /// Some of what happened will not be told.
    pub fn handle_lost(&mut self) {
        self.lost_since = self.first();
        for looks in [&mut self.asked, &mut self.since] {
            (looks.since, looks.renamed) = (None, HashMap::new());
        }
        self.is_lost = true;
    }

    /// The tree was walked.
    pub fn handle_walked(&mut self) {
        self.is_lost = false;
    }

    /// Takes what is in doubt: whoever takes it has it read again, and stores what is left.
    pub fn take_doubted(&mut self, catalog: &impl CatalogRead) -> Result<Vec<ObjectId>, StoreError> {
        let mut doubted = std::mem::take(&mut self.doubted);
        self.is_unsaved |= self.doubted_since.take().is_some();
        if let Some(since) = self.lost_since.take() {
            let changed = catalog.changed_after(since, usize::MAX)?;
            doubted.extend(changed.into_iter().filter_map(|(_, change)| match change {
                Change::Object(object) => Some(object),
                Change::Removed { .. } => None,
            }));
            self.is_unsaved = true;
        }
        Ok(doubted)
    }

    /// What the kernel is to drop when it has told everything, if there is a reason to ask.
    pub fn ask(&mut self) -> Option<Sender<()>> {
        if self.since.is_empty() || self.answer.is_some() {
            return None;
        }
        let (done, answer) = bounded(0);
        self.answer = Some(answer);
        self.asked = std::mem::take(&mut self.since);
        Some(done)
    }

    /// Whether the kernel has told what it was asked for. To be asked before its events are taken.
    pub fn is_answered(&self) -> bool {
        let is_over = |answer: &Receiver<()>| answer.try_recv() == Err(TryRecvError::Disconnected);
        self.answer.as_ref().is_some_and(is_over)
    }

    /// What it told was taken in: of what had been looked at before the question, everything is known. Whether the catalog has to hear
    /// of that.
    pub fn handle_answer(&mut self) -> bool {
        self.answer = None;
        let asked = std::mem::take(&mut self.asked);
        self.is_unsaved |= asked.since.is_some();
        self.is_unsaved
    }

    /// Adds what a thread has to wait for.
    pub fn register<'a>(&'a self, select: &mut Select<'a>) {
        if let Some(answer) = &self.answer {
            select.recv(answer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Catalog, Role};

    fn place(number: u64) -> Place {
        Place {
            directory: ObjectId(number / 1_000),
            name: Name::new(number.to_string().as_bytes()).unwrap(),
        }
    }

    fn tell(unheard: &mut Unheard, number: u64) {
        unheard.handle_told(place(number).directory, &place(number).name);
    }

    fn pass(unheard: &mut Unheard, number: u64) {
        unheard.note_passed(place(number).directory, &place(number).name);
    }

    fn has_passed(unheard: &Unheard, number: u64) -> bool {
        unheard.has_passed(place(number).directory, &place(number).name)
    }

    #[test]
    fn more_that_is_told_of_either_name_counts_once() {
        for told in [1, 2] {
            let mut unheard = Unheard::default();
            unheard.note_renamed(ObjectId(7), [&place(1), &place(2)], 0);
            tell(&mut unheard, 3);
            assert!(unheard.doubted.is_empty());
            tell(&mut unheard, told);
            tell(&mut unheard, told);
            assert_eq!(unheard.doubted, [ObjectId(7)]);
        }
    }

    #[test]
    fn two_that_changed_places_are_both_known_by_both_names() {
        for told in [1, 2] {
            let mut unheard = Unheard::default();
            unheard.note_renamed(ObjectId(7), [&place(1), &place(2)], 0);
            unheard.note_renamed(ObjectId(8), [&place(2), &place(1)], 0);
            tell(&mut unheard, told);
            assert_eq!(unheard.doubted, [ObjectId(7), ObjectId(8)]);
        }
    }

    #[test]
    fn what_was_looked_at_before_the_question_is_heard_with_the_answer() {
        let mut unheard = Unheard::default();
        assert!(unheard.ask().is_none());
        unheard.note_renamed(ObjectId(7), [&place(1), &place(2)], 10);
        pass(&mut unheard, 5);
        let done = unheard.ask().unwrap();
        assert!(unheard.ask().is_none(), "it is asked once at a time");
        unheard.note_renamed(ObjectId(8), [&place(3), &place(4)], 20);
        pass(&mut unheard, 6);
        assert_eq!(unheard.first(), Some(10));
        assert!(!unheard.is_answered());
        drop(done);
        assert!(unheard.is_answered());
        assert!(unheard.handle_answer());
        assert_eq!(unheard.first(), Some(20));
        assert!(!has_passed(&unheard, 5) && has_passed(&unheard, 6));
        tell(&mut unheard, 1);
        tell(&mut unheard, 4);
        assert_eq!(unheard.doubted, [ObjectId(8)]);
        drop(unheard.ask().unwrap());
        unheard.handle_answer();
        // It is in doubt until it is taken.
        assert_eq!((unheard.first(), has_passed(&unheard, 6)), (Some(20), false));
        assert!(unheard.ask().is_none());
    }

    #[test]
    fn what_is_lost_may_have_been_about_all_that_changed_since() {
        let home = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(&home.path().join("catalog"), Role::Sender)
            .unwrap()
            .catalog;
        let mut unheard = Unheard::default();
        unheard.note_renamed(ObjectId(7), [&place(1), &place(2)], 10);
        drop(unheard.ask());
        unheard.note_renamed(ObjectId(8), [&place(3), &place(4)], 20);
        unheard.handle_lost();
        assert!(!unheard.takes_renames(), "before the next walk");
        catalog.update(false, |t| unheard.store(t)).unwrap();
        // As after a restart.
        let mut unheard = catalog.read(|view| Unheard::load(view)).unwrap();
        assert_eq!(unheard.lost_since, Some(10));
        assert!(unheard.takes_renames());
        let doubted = catalog.update(false, |t| {
            let doubted = unheard.take_doubted(t)?;
            unheard.store(t)?;
            Ok(doubted)
        });
        assert!(doubted.unwrap().is_empty(), "the catalog is empty");
        let unheard = catalog.read(|view| Unheard::load(view)).unwrap();
        assert_eq!(unheard.first(), None);
    }

    #[test]
    fn beyond_so_many_names_nothing_is_taken_for_known() {
        let mut unheard = Unheard::default();
        let mut number = 0;
        while unheard.takes_renames() {
            unheard.note_renamed(ObjectId(number), [&place(2 * number), &place(2 * number + 1)], 0);
            number += 1;
        }
        assert_eq!(unheard.since.renamed.len(), NAMES_MAX);
        for number in 0..NAMES_MAX as u64 {
            assert!(!has_passed(&unheard, 1 << 40));
            pass(&mut unheard, number);
        }
        pass(&mut unheard, NAMES_MAX as u64);
        assert!(has_passed(&unheard, 1 << 40));
        assert!(unheard.since.passed.is_empty());
    }
}
