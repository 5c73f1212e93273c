//! Files of which nothing was told but a rename, until all is heard that had happened before they were looked at.
//!
//! The look that finds such a file takes over its times, and they may be those of a later write that is not told yet. What
//! is told in time brings the file into doubt. What is lost with the kernel's queue, or with the process, does not: so
//! these files are noted in the catalog, too, and read again then.

use crate::store::{CatalogRead, StoreError, Tables};
use crossbeam_channel::{Receiver, Select, Sender, TryRecvError, bounded};
use driftless_protocol::message::Place;
use driftless_protocol::{Name, ObjectId};
use std::collections::{BTreeSet, HashMap};

const META_UNHEARD: &str = "only renamed";

/// So many names; a file that is renamed beyond them is read again.
const NAMES_MAX: usize = 10_000;

/// Files that were taken for only renamed.
#[derive(Debug, Default)]
pub struct Unheard {
    /// Their names before and after, and how many questions had been asked when they were looked at.
    names: HashMap<(ObjectId, Name), (ObjectId, u64)>,
    /// Of which more was told, or may have been.
    doubted: Vec<ObjectId>,
    /// How often the kernel was asked for what it had not told yet.
    asked: u64,
    /// Disconnects when it has told that.
    answer: Option<Receiver<()>>,
    /// The catalog has others.
    has_news: bool,
}

impl Unheard {
    /// Those that a catalog knows of are in doubt. Stored are their numbers (8 bytes, big endian).
    pub fn load(catalog: &impl CatalogRead) -> Result<Unheard, StoreError> {
        let bytes = catalog.meta(META_UNHEARD)?.unwrap_or_default();
        let objects = bytes.as_chunks::<8>().0.iter();
        Ok(Unheard {
            doubted: objects
                .map(|&bytes| ObjectId(u64::from_be_bytes(bytes)))
                .collect(),
            ..Unheard::default()
        })
    }

    /// Writes them to the catalog, if there are others than it has.
    pub fn store(&mut self, t: &mut Tables<'_>) -> Result<(), StoreError> {
        if !std::mem::take(&mut self.has_news) {
            return Ok(());
        }
        let renamed = self.names.values().map(|(object, _)| object);
        let objects: BTreeSet<&ObjectId> = renamed.chain(&self.doubted).collect();
        if objects.is_empty() {
            return t.delete_meta(META_UNHEARD).map(|_| ());
        }
        let bytes: Vec<u8> = objects.iter().flat_map(|object| object.0.to_be_bytes()).collect();
        t.set_meta(META_UNHEARD, &bytes)
    }

    /// Whether another file can be noted.
    pub fn has_room(&self) -> bool {
        self.names.len() + 2 <= NAMES_MAX
    }

    /// A file was found at another place, and nothing but a rename was told of it.
    pub fn note(&mut self, object: ObjectId, places: [&Place; 2]) {
        for place in places {
            let noted = (object, self.asked);
            self.names.insert((place.directory, place.name.clone()), noted);
        }
        self.has_news = true;
    }

    /// More was told of what has, or had, a name.
    pub fn handle_told(&mut self, directory: ObjectId, name: &Name) {
        if !self.names.is_empty() {
            let noted = self.names.remove(&(directory, name.clone()));
            self.doubted.extend(noted.map(|(object, _)| object));
        }
    }

    /// Some of what happened will not be told.
    pub fn handle_lost(&mut self) {
        self.doubted
            .extend(self.names.drain().map(|(_, (object, _))| object));
    }

    /// Files of which more was told after all: whoever takes them has them read again, and stores the others.
    pub fn take_doubted(&mut self) -> Vec<ObjectId> {
        self.has_news |= !self.doubted.is_empty();
        std::mem::take(&mut self.doubted)
    }

    /// What the kernel is to drop when it has told everything, if there is a reason to ask.
    pub fn ask(&mut self) -> Option<Sender<()>> {
        if self.names.is_empty() || self.answer.is_some() {
            return None;
        }
        let (done, answer) = bounded(0);
        (self.answer, self.asked) = (Some(answer), self.asked + 1);
        Some(done)
    }

    /// Whether the kernel has told what was asked for. Ask before its events are taken.
    pub fn is_answered(&self) -> bool {
        let is_over = |answer: &Receiver<()>| answer.try_recv() == Err(TryRecvError::Disconnected);
        self.answer.as_ref().is_some_and(is_over)
    }

    /// What it told was taken in: of what had been looked at before the question, everything is known.
    pub fn handle_answer(&mut self) {
        self.answer = None;
        self.names.retain(|_, (_, asked)| *asked >= self.asked);
        self.has_news = true;
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

    fn place(number: u64) -> Place {
        Place {
            directory: ObjectId(number / 1_000),
            name: Name::new(number.to_string().as_bytes()).unwrap(),
        }
    }

    fn tell(unheard: &mut Unheard, number: u64) {
        unheard.handle_told(place(number).directory, &place(number).name);
    }

    #[test]
    fn more_that_is_told_of_either_name_counts_once() {
        for told in [1, 2] {
            let mut unheard = Unheard::default();
            unheard.note(ObjectId(7), [&place(1), &place(2)]);
            tell(&mut unheard, 3);
            assert!(unheard.take_doubted().is_empty());
            tell(&mut unheard, told);
            tell(&mut unheard, told);
            assert_eq!(unheard.take_doubted(), [ObjectId(7)]);
            assert!(unheard.take_doubted().is_empty());
        }
    }

    #[test]
    fn what_was_looked_at_before_the_question_is_heard_with_the_answer() {
        let mut unheard = Unheard::default();
        assert!(unheard.ask().is_none());
        unheard.note(ObjectId(7), [&place(1), &place(2)]);
        let done = unheard.ask().unwrap();
        assert!(unheard.ask().is_none(), "it is asked once at a time");
        unheard.note(ObjectId(8), [&place(3), &place(4)]);
        assert!(!unheard.is_answered());
        drop(done);
        assert!(unheard.is_answered());
        unheard.handle_answer();
        tell(&mut unheard, 1);
        tell(&mut unheard, 4);
        assert_eq!(unheard.take_doubted(), [ObjectId(8)]);
        // Its other name is still there, and asked for.
        drop(unheard.ask().unwrap());
        unheard.handle_answer();
        assert!(unheard.ask().is_none());
    }

    #[test]
    fn what_is_lost_may_have_been_about_each_of_them() {
        let mut unheard = Unheard::default();
        unheard.note(ObjectId(7), [&place(1), &place(2)]);
        unheard.note(ObjectId(8), [&place(3), &place(4)]);
        unheard.handle_lost();
        let doubted: BTreeSet<_> = unheard.take_doubted().into_iter().collect();
        assert_eq!(doubted, BTreeSet::from([ObjectId(7), ObjectId(8)]));
    }

    #[test]
    fn there_is_room_for_so_many() {
        let mut unheard = Unheard::default();
        let mut number = 0;
        while unheard.has_room() {
            unheard.note(ObjectId(number), [&place(2 * number), &place(2 * number + 1)]);
            number += 1;
        }
        assert_eq!(unheard.names.len(), NAMES_MAX);
    }
}
