//! Which names something was told of that may have changed a content, since they were last looked at.
//!
//! A rename moves a file's ctime, and so does a write whose mtime was put back. Where every event is told, the second
//! is told under the name at which it happened; so a file that was only renamed need not be read again. A look sees
//! more than was told until then: what is told afterwards, of a file that was taken for only renamed, brings it back
//! into doubt.
//!
//! Kernels move a file's times before they copy what is written into it, and tell of the write after. Who reads in
//! between gets the new times with the old content, so a write that is told of a file that looks unchanged puts its
//! content in doubt, too.

use crate::engine::pending::{Hint, WatchEvent};
use driftless_protocol::message::Place;
use driftless_protocol::{Name, ObjectId};
use std::collections::HashMap;

/// Above so many, every name counts.
const NAMES_MAX: usize = 100_000;

/// Of how many files is remembered that they were only renamed. The events of what happened before a look are seconds
/// behind it at most.
const RENAMED_MAX: usize = 10_000;

/// Names whose content is in doubt.
#[derive(Debug, Default)]
pub struct Touched {
    /// With whether a write was among what was told.
    names: HashMap<ObjectId, HashMap<Name, bool>>,
    count: usize,
    is_everything: bool,
    /// The names that files had before and after they were only renamed.
    renamed: HashMap<(ObjectId, Name), ObjectId>,
    doubted: Vec<ObjectId>,
}

impl Touched {
    /// Takes in an event. A name that is new holds no content that is known.
    pub fn note(&mut self, event: &WatchEvent) {
        if let WatchEvent::At {
            directory,
            name,
            hint: hint @ (Hint::Modified | Hint::Closed | Hint::Attributes),
            is_directory: false,
        } = event
        {
            let is_write = *hint == Hint::Modified;
            if !self.renamed.is_empty() {
                let key = (*directory, name.clone());
                self.doubted.extend(self.renamed.remove(&key));
            }
            if self.is_everything {
                return;
            }
            let names = self.names.entry(*directory).or_default();
            if let Some(written) = names.get_mut(name) {
                *written |= is_write;
            } else {
                names.insert(name.clone(), is_write);
                self.count += 1;
            }
            if self.count > NAMES_MAX {
                self.looked_at_all();
                self.is_everything = true;
            }
        }
    }

    /// Whether the content at a place may have changed.
    pub fn contains(&self, place: &Place) -> bool {
        let names = self.names.get(&place.directory);
        self.is_everything || names.is_some_and(|names| names.contains_key(&place.name))
    }

    /// Whether a write was told of the file at a place.
    pub fn was_written(&self, place: &Place) -> bool {
        let names = self.names.get(&place.directory);
        self.is_everything || names.and_then(|names| names.get(&place.name)) == Some(&true)
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

    /// All was looked at.
    pub fn looked_at_all(&mut self) {
        self.names.clear();
        self.count = 0;
        self.is_everything = false;
    }

    /// A file was found at another place, and nothing but a rename was told of it.
    pub fn only_renamed(&mut self, object: ObjectId, places: [&Place; 2]) {
        if self.renamed.len() >= RENAMED_MAX {
            self.renamed.clear();
        }
        for place in places {
            self.renamed.insert((place.directory, place.name.clone()), object);
        }
    }

    /// Files that more was told of after all.
    pub fn take_doubted(&mut self) -> Vec<ObjectId> {
        std::mem::take(&mut self.doubted)
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

    fn place(number: u64) -> Place {
        Place {
            directory: ObjectId(number / 1_000),
            name: Name::new(number.to_string().as_bytes()).unwrap(),
        }
    }

    #[test]
    fn only_what_may_change_a_content_counts_and_until_it_is_looked_at() {
        let mut touched = Touched::default();
        for hint in [Hint::Created, Hint::MovedIn, Hint::Vanished] {
            touched.note(&told(1, hint));
            assert!(!touched.contains(&place(1)));
        }
        for hint in [Hint::Modified, Hint::Closed, Hint::Attributes] {
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
            touched.only_renamed(ObjectId(7), [&place(1), &place(2)]);
            touched.note(&told(1, Hint::Vanished));
            touched.note(&told(2, Hint::MovedIn));
            touched.note(&told(3, Hint::Modified));
            assert!(touched.take_doubted().is_empty());
            touched.note(&told(late, Hint::Attributes));
            touched.note(&told(late, Hint::Attributes));
            assert_eq!(touched.take_doubted(), [ObjectId(7)]);
            assert!(touched.take_doubted().is_empty());
        }
    }
}
