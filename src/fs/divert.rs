//! Names that lead elsewhere for this process.
//!
//! What is to change at once is made under another name of the same directory. Until that has taken its place, everything that
//! this process does under the name is done there, through whatever handle below the root; everybody else sees what stood at
//! the name before. Nothing of this is on the disk: what is left under the other name after a crash is found by its name, which
//! should be a [`private_name`](super::private_name).

use super::directory::Directory;
use super::error::Result;
use driftless_protocol::name::Name;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// A directory, by file system and inode.
type Place = (u64, u64);

/// All diversions below one root.
#[derive(Debug, Default)]
pub(super) struct Diversions {
    /// How many there are: most trees never have any, and should not pay for it.
    number: AtomicUsize,
    /// Where each name leads, by its bytes.
    names: RwLock<HashMap<Place, BTreeMap<Vec<u8>, Name>>>,
}

/// A name that leads elsewhere, until this is dropped.
#[must_use]
#[derive(Debug)]
pub struct Diversion {
    all: Arc<Diversions>,
    place: Place,
    name: Vec<u8>,
}

impl Drop for Diversion {
    fn drop(&mut self) {
        let mut names = self.all.names.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(here) = names.get_mut(&self.place) {
            if here.remove(&self.name).is_some() {
                self.all.number.fetch_sub(1, Ordering::Release);
            }
            if here.is_empty() {
                names.remove(&self.place);
            }
        }
    }
}

impl Directory {
    /// From now on what is done at `name` in this directory, through any handle that was opened below the same root, is done at
    /// `aside` in its place. There must be no diversion of that name.
    pub fn divert(&self, name: &Name, aside: &Name) -> Result<Diversion> {
        let place = self.place()?;
        let name = name.as_bytes().to_vec();
        let mut names = self
            .diversions
            .names
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let here = names.entry(place).or_default();
        if here.insert(name.clone(), aside.clone()).is_none() {
            self.diversions.number.fetch_add(1, Ordering::Release);
        }
        let all = self.diversions.clone();
        Ok(Diversion { all, place, name })
    }

    /// A handle of this directory for which no name leads elsewhere, nor below it.
    pub fn undiverted(&self) -> Result<Directory> {
        self.try_clone().map(Directory::without_diversions)
    }

    pub(super) fn without_diversions(mut self) -> Directory {
        self.diversions = Arc::default();
        self
    }

    /// What is on the disk for a name in this directory.
    pub(super) fn on_disk<'a>(&self, name: &'a [u8]) -> Cow<'a, [u8]> {
        if self.diversions.number.load(Ordering::Acquire) == 0 {
            return Cow::Borrowed(name);
        }
        let Ok(place) = self.place() else {
            return Cow::Borrowed(name);
        };
        let names = self
            .diversions
            .names
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        match names.get(&place).and_then(|here| here.get(name)) {
            Some(aside) => Cow::Owned(aside.as_bytes().to_vec()),
            None => Cow::Borrowed(name),
        }
    }

    /// The names in this directory that lead elsewhere.
    pub(super) fn diverted(&self) -> Vec<Name> {
        if self.diversions.number.load(Ordering::Acquire) == 0 {
            return Vec::new();
        }
        let Ok(place) = self.place() else {
            return Vec::new();
        };
        let names = self
            .diversions
            .names
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        names.get(&place).map_or_else(Vec::new, |here| {
            here.keys().filter_map(|name| Name::new(&name[..]).ok()).collect()
        })
    }

    fn place(&self) -> Result<Place> {
        let stat = rustix::fs::fstat(self).map_err(self.failed("look at"))?;
        Ok((stat.st_dev, stat.st_ino))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{RenameMode, Staged, private_name};
    use super::*;
    use std::fs;

    fn name(text: &str) -> Name {
        Name::new(text.as_bytes()).unwrap()
    }

    fn names(directory: &Directory) -> Vec<String> {
        let listing = directory.list().unwrap();
        listing.entries.iter().map(|(name, _)| name.to_string()).collect()
    }

    #[test]
    fn everything_under_a_diverted_name_happens_aside() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("in/current")).unwrap();
        fs::write(dir.path().join("in/current/a"), "old").unwrap();
        let root = Arc::new(Directory::open_root(dir.path()).unwrap());
        let parent = root.open_dir(&name("in")).unwrap();
        let (current, new, aside) = (name("current"), name("new"), private_name());
        parent.make_dir(&aside).unwrap();
        let diversion = parent.divert(&current, &aside).unwrap();
        // Through another handle of the same directory.
        let other = Arc::new(root.open_dir(&name("in")).unwrap());
        let inner = Arc::new(other.open_dir(&current).unwrap());
        let staged = Staged::create(inner.clone()).unwrap();
        staged.write_all_at(b"new", 0).unwrap();
        staged.publish(&name("a")).unwrap();
        assert_eq!(
            fs::read_to_string(dir.path().join("in/current/a")).unwrap(),
            "old"
        );
        assert_eq!(names(&other), ["current"]);
        assert_eq!(
            other.stat(&current).unwrap().unwrap().stamp.inode,
            inner.stat_self().unwrap().stamp.inode
        );
        // A name that is free for everybody else.
        let hidden = private_name();
        let other_diversion = other.divert(&new, &hidden).unwrap();
        assert_eq!(names(&other), ["current"]);
        other
            .rename(&current, &other, &new, RenameMode::NoReplace)
            .unwrap();
        assert_eq!(names(&other), ["new"]);
        assert!(other.stat(&current).unwrap().is_none() && !dir.path().join("in/new").exists());
        assert!(dir.path().join("in/current").exists());
        other
            .rename(&new, &other, &current, RenameMode::NoReplace)
            .unwrap();
        drop(other_diversion);
        // The exchange, by a handle that knows of nothing.
        let plain = other.undiverted().unwrap();
        plain
            .rename(&aside, &plain, &current, RenameMode::Exchange)
            .unwrap();
        drop(diversion);
        assert_eq!(
            fs::read_to_string(dir.path().join("in/current/a")).unwrap(),
            "new"
        );
        plain.remove_tree(&aside).unwrap();
        assert_eq!(names(&parent), ["current"]);
        assert_eq!(fs::read_dir(dir.path().join("in")).unwrap().count(), 1);
    }

    #[test]
    fn a_directory_above_is_removed_with_both() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("in/current/deep")).unwrap();
        let root = Directory::open_root(dir.path()).unwrap();
        let parent = root.open_dir(&name("in")).unwrap();
        let aside = private_name();
        fs::create_dir(dir.path().join("in").join(aside.to_string())).unwrap();
        let _diversion = parent.divert(&name("current"), &aside).unwrap();
        root.remove_tree(&name("in")).unwrap();
        assert!(!dir.path().join("in").exists());
    }
}
