//! Private names that could not be removed when they had served.
//!
//! On a disk that answers with errors the clearing up after a failure can fail, too. What is left then is noted with the
//! directory it is in, and tried again; only a process that ends with something noted leaves it to the next start
//! ([`Directory::sweep`]).

use super::directory::Directory;
use super::error::{FsErrorKind, Result};
use driftless_protocol::name::Name;
use std::sync::{Arc, Mutex, PoisonError};

/// So many names are noted; each holds a descriptor.
const NOTED_MAX: usize = 64;

/// What is noted for all directories below one root.
#[derive(Debug, Default)]
pub(super) struct Litter(Mutex<Vec<(Directory, Name)>>);

impl Litter {
    fn note(&self, directory: Directory, name: Name) {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if noted.len() < NOTED_MAX {
            noted.push((directory, name));
        }
    }

    fn take(&self) -> Vec<(Directory, Name)> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Directory {
    /// Noted names hold directories that note nothing themselves, or they would hold each other.
    fn with_litter(mut self, litter: Arc<Litter>) -> Directory {
        self.litter = litter;
        self
    }

    /// Removes something of ours that has a private or displaced name, with all that is below it. If that fails, it is
    /// tried again by [`Directory::clear_litter`].
    pub fn remove_private(&self, name: &Name) -> Result<()> {
        let outcome = self.remove_tree(name);
        if let Err(error) = &outcome
            && error.kind() != FsErrorKind::NotFound
            && let Ok(directory) = self.try_clone()
        {
            self.litter
                .note(directory.with_litter(Arc::default()), name.clone());
        }
        outcome.map(|_| ())
    }

    /// Tries again to remove what could not be, anywhere below the root that this directory was reached from. The times of
    /// the directories stay as they are.
    pub fn clear_litter(&self) {
        for (directory, name) in self.litter.take() {
            let mtime = directory.stat_self().map(|stat| stat.attributes.mtime);
            match directory.remove_tree(&name) {
                Err(error) if error.kind() != FsErrorKind::NotFound => self.litter.note(directory, name),
                _ => {
                    // One that is not set right is noticed like any other time that is wrong.
                    let _ = mtime.and_then(|mtime| directory.set_self_mtime(mtime));
                }
            }
        }
    }
}
