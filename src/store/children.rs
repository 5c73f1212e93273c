//! What stands in a directory, to be compared with a listing of it.

use super::{CatalogRead, Entry, StoreError};
use driftless_protocol::{Name, ObjectId};
use std::collections::VecDeque;

/// Entries fetched at a time.
const FETCHED: usize = 1_024;

/// The entries in a directory in byte order of their names, some at a time: the catalog may be changed in between, and a directory
/// may be of any size. An entry that comes at a name that was passed is not seen.
#[derive(Debug)]
pub struct Children {
    directory: ObjectId,
    fetched: VecDeque<Entry>,
    /// The last that was fetched.
    last: Option<Name>,
    is_at_end: bool,
    rounds: u64,
}

impl Children {
    /// Those of a directory, from the first.
    pub fn of(directory: ObjectId) -> Children {
        Children {
            directory,
            fetched: VecDeque::new(),
            last: None,
            is_at_end: false,
            rounds: 0,
        }
    }

    /// The next entry, if its name comes before `name`, or whatever its name is.
    pub fn next_before(
        &mut self,
        catalog: &impl CatalogRead,
        name: Option<&Name>,
    ) -> Result<Option<Entry>, StoreError> {
        self.fetch(catalog)?;
        let is_before = |entry: &Entry| name.is_none_or(|name| entry.place.name < *name);
        Ok(self.fetched.pop_front_if(|entry| is_before(entry)))
    }

    /// The next entry, if it has this name.
    pub fn next_at(&mut self, catalog: &impl CatalogRead, name: &Name) -> Result<Option<Entry>, StoreError> {
        self.fetch(catalog)?;
        Ok(self.fetched.pop_front_if(|entry| entry.place.name == *name))
    }

    /// How often entries were fetched: those that were handed out between two equal answers are of one moment.
    pub fn rounds(&self) -> u64 {
        self.rounds
    }

    fn fetch(&mut self, catalog: &impl CatalogRead) -> Result<(), StoreError> {
        if self.is_at_end || !self.fetched.is_empty() {
            return Ok(());
        }
        self.rounds += 1;
        let fetched = catalog.some_child_entries(self.directory, self.last.as_ref(), FETCHED)?;
        self.is_at_end = fetched.len() < FETCHED;
        if let Some(last) = fetched.last() {
            self.last = Some(last.place.name.clone());
        }
        self.fetched = fetched.into();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Catalog, Role};
    use driftless_protocol::message::Place;
    use driftless_protocol::{Attributes, Kind};

    const DIRECTORY: ObjectId = ObjectId(5);

    fn name(text: &str) -> Name {
        Name::new(text.as_bytes()).unwrap()
    }

    fn entry(object: u64, directory: ObjectId, text: &str) -> Entry {
        Entry {
            object: ObjectId(object),
            kind: Kind::File,
            place: Place {
                directory,
                name: name(text),
            },
            attributes: Attributes::default(),
            size: object,
            digest: None,
            stamp: None,
            sequence: 0,
            flags: 0,
        }
    }

    /// Numbers that follow each other, go back, and jump; a directory on each side; more than is fetched at a time.
    #[test]
    fn all_are_seen_once_and_in_their_order_while_the_catalog_changes() {
        let home = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(&home.path().join("catalog"), Role::Sender)
            .unwrap()
            .catalog;
        let number = |at: u64| match at {
            0..1_000 => 10_000 + at,
            1_000..1_500 => 9_000 - at,
            _ => 20_000 + 3 * at,
        };
        let text = |at: u64| format!("file-{at:05}");
        let outcome = catalog.update(false, |t| {
            t.put(&entry(2, ObjectId(4), "zzz"))?;
            t.put(&entry(3, ObjectId(6), "aaa"))?;
            for at in 0..3_000 {
                t.put(&entry(number(at), DIRECTORY, &text(at)))?;
            }
            let mut children = Children::of(DIRECTORY);
            for at in 0..3_000 {
                let wanted = name(&text(at));
                if at % 3 == 0 {
                    assert_eq!(children.next_at(t, &name("file-0"))?, None);
                    assert_eq!(children.next_before(t, Some(&wanted))?, None);
                    assert_eq!(
                        children.next_at(t, &wanted)?,
                        Some(entry(number(at), DIRECTORY, &text(at)))
                    );
                } else {
                    let later = name(&text(at + 1));
                    assert_eq!(
                        children.next_before(t, Some(&later))?,
                        Some(entry(number(at), DIRECTORY, &text(at)))
                    );
                }
                // What comes and goes at a name that was passed does no harm.
                t.remove(ObjectId(number(at)), None)?;
                t.put(&entry(100_000 + at, DIRECTORY, &text(at)))?;
            }
            assert!(children.next_before(t, None)?.is_none());
            assert_eq!(children.rounds(), 3);
            Ok(())
        });
        outcome.unwrap();
    }
}
