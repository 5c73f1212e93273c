//! Where the target has what is to be deleted, and no sum tells of it.
//!
//! A receiver that lost power may not know that it put an entry there, or what is in it; such an entry is in no sum. And a removal that is
//! refused, held or cut off is known to the session alone. So the directories are written down until they are dealt with, and a session that finds some
//! compares them, whatever the sums say.

use super::reconcile::Reconciled;
use super::source::Source;
use crate::store::{CatalogRead, StoreError};
use driftless_protocol::ObjectId;
use std::collections::HashSet;

/// In the state: the numbers, eight bytes each. More than [`DIRECTORIES_MAX`] of them stand for all.
const EXTRAS_IN: &str = "extras-in";
/// More than this are not told apart: everything is compared.
const DIRECTORIES_MAX: usize = 10_000;

/// Directories of the source.
#[derive(Debug, Default)]
pub struct ExtrasIn {
    found: HashSet<ObjectId>,
    /// Those and all above them.
    ways: HashSet<ObjectId>,
    is_everywhere: bool,
}

impl ExtrasIn {
    /// Those that were written down.
    pub fn read(source: &Source) -> Result<ExtrasIn, StoreError> {
        let bytes = source.state.value(EXTRAS_IN)?.unwrap_or_default();
        let numbers = bytes.as_chunks::<8>().0;
        let found: HashSet<_> = numbers
            .iter()
            .map(|bytes| ObjectId(u64::from_be_bytes(*bytes)))
            .collect();
        let mut ways = HashSet::new();
        source.catalog.read(|view| {
            for &directory in &found {
                let mut at = directory;
                while at != ObjectId::ROOT && ways.insert(at) {
                    let Some(entry) = view.get(at)? else { break };
                    at = entry.place.directory;
                }
            }
            Ok(())
        })?;
        Ok(ExtrasIn {
            is_everywhere: found.len() > DIRECTORIES_MAX,
            found,
            ways,
        })
    }

    /// Whether any is written down.
    pub fn is_any(source: &Source) -> Result<bool, StoreError> {
        Ok(source.state.value(EXTRAS_IN)?.is_some())
    }

    /// Whether a directory is one of them, or above one.
    pub fn leads_to_one(&self, directory: ObjectId) -> bool {
        self.is_everywhere || self.ways.contains(&directory)
    }

    /// All that the target has in a directory is looked at.
    pub fn note_listed(&mut self, directory: ObjectId) {
        self.found.remove(&directory);
    }

    /// Notes what a comparison found. What it did not come to stays noted.
    pub fn find(&mut self, outcome: &Reconciled) {
        // A number that goes to something else is none that this has then.
        let numbers: HashSet<ObjectId> = outcome.adopt.iter().map(|(_, object, _)| *object).collect();
        let extras = outcome.extras.iter().chain(&outcome.replaced);
        let own = extras.filter(|extra| !extra.is_summed || numbers.contains(&extra.object));
        self.found.extend(own.map(|extra| extra.place.directory));
    }

    /// Writes them down.
    pub fn write(&self, source: &Source) -> Result<(), StoreError> {
        match self.found.is_empty() {
            true => ExtrasIn::forget(source),
            false => {
                let bytes: Vec<u8> = self
                    .found
                    .iter()
                    .take(DIRECTORIES_MAX + 1)
                    .flat_map(|number| number.0.to_be_bytes())
                    .collect();
                source.state.put_value(EXTRAS_IN, &bytes)
            }
        }
    }

    /// Writes down one more.
    pub fn add(source: &Source, directory: ObjectId) -> Result<(), StoreError> {
        let mut all = ExtrasIn::read(source)?;
        all.found.insert(directory);
        all.write(source)
    }

    /// All of that is deleted.
    pub fn forget(source: &Source) -> Result<(), StoreError> {
        if ExtrasIn::is_any(source)? {
            source.state.delete_value(EXTRAS_IN)?;
        }
        Ok(())
    }
}
