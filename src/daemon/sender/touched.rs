//! Which names something was told of that may have changed a content, since they were last looked at.
//!
//! A rename moves a file's ctime, and so does a write whose mtime was put back. Where every event is told, the second
//! is told under the name at which it happened; so a file that was only renamed need not be read again. That it was
//! only renamed is known if its arrival was told, and where it came from: doubt about the old name goes along to the
//! new one, through any chain of names, and what comes from outside of the tree, where nobody watches, is in doubt. A
//! look sees more than was told until then: what is told afterwards, of a file that was taken for only renamed, brings
//! it back into doubt ([`Unheard`]).
//!
//! Kernels move a file's times before they copy what is written into it, and tell of the write after. Who reads in
//! between gets the new times with the old content, so a write that is told of a file that looks unchanged puts its
//! content in doubt, too.

use super::unheard::Unheard;
use crate::engine::pending::{Hint, WatchEvent};
use driftless_protocol::message::Place;
use driftless_protocol::{Name, ObjectId};
use std::collections::HashMap;

/// Above so many, every name counts.
const NAMES_MAX: usize = 100_000;

/// Names whose content is in doubt.
#[derive(Debug, Default)]
pub struct Touched {
    names: HashMap<ObjectId, HashMap<Name, Told>>,
    count: usize,
    is_everything: bool,
    /// Files that were taken for only renamed.
    pub unheard: Unheard,
}

/// What was told of a name.
#[derive(Debug, Default, Clone, Copy)]
struct Told {
    /// Its content may be another.
    is_doubtful: bool,
    /// It was written to.
    is_written: bool,
    /// Something came here from another watched place.
    has_arrived: bool,
}

impl Touched {
    /// Nothing was told yet, but for what an earlier run left.
    pub fn after(unheard: Unheard) -> Touched {
        Touched {
            unheard,
            ..Touched::default()
        }
    }

    /// Takes in an event. A name that is new holds no content that is known.
    pub fn note(&mut self, event: &WatchEvent) {
        match event {
            WatchEvent::At {
                directory,
                name,
                hint: hint @ (Hint::Modified | Hint::Closed | Hint::Attributes | Hint::MovedIn),
                is_directory: false,
            } => self.doubt(*directory, name, *hint == Hint::Modified),
            WatchEvent::Renamed {
                from,
                to,
                is_directory: false,
            } => {
                let mut before = self.told(from.0, &from.1);
                let has_passed = self.unheard.has_passed(from.0, &from.1);
                before.is_doubtful |= has_passed;
                before.is_written |= has_passed;
                if let Some(told) = self.told_mut(to.0, &to.1) {
                    told.is_doubtful |= before.is_doubtful;
                    told.is_written |= before.is_written;
                    told.has_arrived = true;
                }
            }
            WatchEvent::Overflow => self.unheard.handle_lost(),
            _ => {}
        }
    }

    fn doubt(&mut self, directory: ObjectId, name: &Name, is_write: bool) {
        self.unheard.handle_told(directory, name);
        if let Some(told) = self.told_mut(directory, name) {
            told.is_doubtful = true;
            told.is_written |= is_write;
        }
    }

    fn told(&self, directory: ObjectId, name: &Name) -> Told {
        let names = self.names.get(&directory);
        names
            .and_then(|names| names.get(name))
            .copied()
            .unwrap_or_default()
    }

    /// `None` if every name counts.
    fn told_mut(&mut self, directory: ObjectId, name: &Name) -> Option<&mut Told> {
        let is_known = self
            .names
            .get(&directory)
            .is_some_and(|names| names.contains_key(name));
        self.count += usize::from(!is_known && !self.is_everything);
        if self.count > NAMES_MAX {
            self.looked_at_all();
            self.is_everything = true;
        }
        if self.is_everything {
            return None;
        }
        let names = self.names.entry(directory).or_default();
        Some(names.entry(name.clone()).or_default())
    }

    /// Whether the content at a place may have changed.
    pub fn contains(&self, place: &Place) -> bool {
        self.is_everything || self.told(place.directory, &place.name).is_doubtful
    }

    /// Whether a write was told of the file at a place.
    pub fn was_written(&self, place: &Place) -> bool {
        self.is_everything || self.told(place.directory, &place.name).is_written
    }

    /// Whether it was told that the file at a place was renamed to it. Where too much was told, this is forgotten.
    pub fn has_arrived(&self, place: &Place) -> bool {
        self.told(place.directory, &place.name).has_arrived
    }

    /// Whether a file that was at one place and is at another now was renamed, and nothing else. It is to be noted then until all
    /// is heard.
    pub fn tells_only_of_a_rename(&self, from: &Place, to: &Place) -> bool {
        self.has_arrived(to) && !self.contains(from) && !self.contains(to) && self.unheard.takes_renames()
    }

    /// A name was looked at.
    pub fn forget(&mut self, directory: ObjectId, name: &Name) {
        if let Some(names) = self.names.get_mut(&directory)
            && names.remove(name).is_some()
        {
            self.count -= 1;
            if names.is_empty() {
                self.names.remove(&directory);
            }
        }
    }

    /// Whether it was told of a name that its content may have changed.
    pub fn is_doubtful(&self, directory: ObjectId, name: &Name) -> bool {
        self.told(directory, name).is_doubtful
    }

    /// All was looked at.
    pub fn looked_at_all(&mut self) {
        if self.is_everything {
            self.unheard.note_passed_all();
        }
        for (directory, names) in &self.names {
            let doubtful = names.iter().filter(|(_, told)| told.is_doubtful);
            doubtful.for_each(|(name, _)| self.unheard.note_passed(*directory, name));
        }
        self.names.clear();
        self.count = 0;
        self.is_everything = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(number: u64, hint: Hint) -> WatchEvent {
        WatchEvent::At {
            directory: ObjectId(number / 1_000),
            name: place(number).name,
            hint,
            is_directory: false,
        }
    }

    fn renamed(from: u64, to: u64) -> WatchEvent {
        let place = |number| (place(number).directory, place(number).name);
        WatchEvent::Renamed {
            from: place(from),
            to: place(to),
            is_directory: false,
        }
    }

    fn place(number: u64) -> Place {
        Place {
            directory: ObjectId(number / 1_000),
            name: Name::new(number.to_string().as_bytes()).unwrap(),
        }
    }

    #[test]
    fn only_what_may_change_a_content_counts_and_until_it_is_looked_at() {
        let mut touched = Touched::default();
        for hint in [Hint::Created, Hint::Vanished] {
            touched.note(&told(1, hint));
            assert!(!touched.contains(&place(1)));
        }
        for hint in [Hint::Modified, Hint::Closed, Hint::Attributes, Hint::MovedIn] {
            touched.note(&told(1, hint));
            assert!(touched.contains(&place(1)) && !touched.contains(&place(2)));
        }
        assert!(touched.was_written(&place(1)) && !touched.was_written(&place(2)));
        touched.forget(place(1).directory, &place(1).name);
        assert!(!touched.contains(&place(1)));
        assert!(touched.names.is_empty() && touched.count == 0);
    }

    #[test]
    fn only_a_write_is_a_write() {
        let mut touched = Touched::default();
        for hint in [Hint::Created, Hint::Closed, Hint::Attributes] {
            touched.note(&told(1, hint));
            assert!(!touched.was_written(&place(1)));
        }
        touched.note(&told(1, Hint::Modified));
        touched.note(&told(1, Hint::Closed));
        assert!(touched.was_written(&place(1)));
        touched.forget(place(1).directory, &place(1).name);
        assert!(!touched.was_written(&place(1)));
    }

    #[test]
    fn too_many_are_all() {
        let mut touched = Touched::default();
        for number in 0..=NAMES_MAX as u64 {
            assert!(!touched.contains(&place(1 << 40)));
            touched.note(&told(number, Hint::Modified));
        }
        assert!(touched.contains(&place(1 << 40)) && touched.was_written(&place(1 << 40)));
        assert!(touched.names.is_empty());
        touched.looked_at_all();
        assert!(!touched.contains(&place(1)));
    }

    #[test]
    fn what_is_told_late_brings_a_renamed_file_back_into_doubt() {
        for late in [1, 2] {
            let mut touched = Touched::default();
            touched
                .unheard
                .note_renamed(ObjectId(7), [&place(1), &place(2)], 0);
            touched.note(&told(1, Hint::Vanished));
            touched.note(&renamed(1, 2));
            assert!(touched.unheard.doubted.is_empty());
            touched.note(&told(late, Hint::Attributes));
            assert_eq!(touched.unheard.doubted, [ObjectId(7)]);
        }
    }

    #[test]
    fn where_events_were_lost_a_renamed_file_is_in_doubt() {
        let mut touched = Touched::default();
        touched
            .unheard
            .note_renamed(ObjectId(7), [&place(1), &place(2)], 0);
        touched.note(&renamed(3, 4));
        assert!(touched.tells_only_of_a_rename(&place(3), &place(4)));
        touched.note(&WatchEvent::Overflow);
        assert!(!touched.tells_only_of_a_rename(&place(3), &place(4)));
    }

    #[test]
    fn doubt_about_what_passed_goes_along_with_a_rename_that_is_told_later() {
        for is_looked_at in [false, true] {
            let mut touched = Touched::default();
            touched.note(&renamed(1, 2));
            touched.note(&told(2, Hint::Modified));
            match is_looked_at {
                true => {
                    touched.unheard.note_passed(place(2).directory, &place(2).name);
                    touched.forget(place(2).directory, &place(2).name);
                }
                false => touched.looked_at_all(),
            }
            touched.note(&renamed(2, 3));
            assert!(touched.contains(&place(3)) && touched.was_written(&place(3)));
            touched.looked_at_all();
            touched.note(&renamed(3, 4));
            assert!(!touched.tells_only_of_a_rename(&place(1), &place(4)));
        }
    }

    #[test]
    fn doubt_goes_along_with_a_file_through_its_names() {
        let is_clean = |events: &[WatchEvent], from, to| {
            let mut touched = Touched::default();
            events.iter().for_each(|event| touched.note(event));
            touched.tells_only_of_a_rename(&place(from), &place(to))
        };
        assert!(is_clean(&[renamed(1, 2), renamed(2, 3)], 1, 3));
        // An exchange.
        let exchange = [renamed(1, 2), renamed(2, 1)];
        assert!(is_clean(&exchange, 1, 2) && is_clean(&exchange, 2, 1));
        // Written under the name between.
        let written = told(2, Hint::Closed);
        assert!(!is_clean(&[renamed(1, 2), written.clone(), renamed(2, 3)], 1, 3));
        assert!(!is_clean(&[renamed(1, 2), renamed(2, 3), written], 1, 2));
        // Out of the tree and back.
        let back = [told(1, Hint::Vanished), told(2, Hint::MovedIn), renamed(2, 3)];
        assert!(!is_clean(&back, 1, 3) && !is_clean(&back[..2], 1, 2));
        // Into a directory that nobody watches yet.
        assert!(!is_clean(&[told(1, Hint::Vanished)], 1, 2));
    }
}
