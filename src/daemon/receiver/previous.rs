//! A target that begins as a version of another directory: `--link-dest` and `--copy-dest`.
//!
//! Before the first comparison an empty target gets every entry of the earlier version: as a further link to the same object,
//! or as a copy that shares its blocks where the file system can do that. What the source has unchanged then needs nothing;
//! what it changed is replaced, and what it lacks is removed, as in any mirror. The earlier version stays as it is: contents are
//! always put under a new object, and before the attributes of an object with names outside the target are changed, the name
//! gets an object of its own (`set_attributes`).
//!
//! Files that have several names within the version are copied once and linked among themselves: a change of their attributes
//! is one of all their names, which could not be told from that of the version's.
//!
//! A marker in the root says that the target is not in sync for the first time yet; the next try begins again with what is
//! missing. A mirror that is to be no version takes it away: what is there is its own from then on.

use super::replica::{Replica, ReplicaError, own_carried};
use crate::fs::{Directory, FsError, FsErrorKind, Metadata, RenameMode, Staged, Stat};
use crate::store::{CatalogRead, Entry, StoreError};
use driftless_protocol::{Kind, Name, ObjectId};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// In the state: the target has names of objects that are not only its own.
const KEY: &str = "version";

/// The marker in the root of a target that begins as a version and is not in sync for the first time yet.
pub const BEGUN: &str = ".driftless-version-begun";

/// What a target begins as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Previous {
    /// The earlier version.
    pub path: PathBuf,
    /// Its files are copied, not linked.
    pub copies: bool,
}

/// Whether a target is empty, or was when a version was begun in it that is not complete. Nothing in it is anybody else's.
pub fn is_fresh(target: &Directory) -> Result<bool, FsError> {
    Ok(target.list()?.entries.is_empty() || target.stat(&marker())?.is_some())
}

/// Notes that a target is what it was to be: from now on it is a mirror like any other.
pub fn conclude(target: &Path) -> Result<(), FsError> {
    conclude_in(&Directory::open_root(target)?)
}

/// The same of a target that is open.
pub(super) fn conclude_in(target: &Directory) -> Result<(), FsError> {
    // The root's own time is the source's.
    let before = target.stat_self()?.attributes.mtime;
    match target.remove_dir(&marker()) {
        Ok(()) => {
            target.set_self_mtime(before)?;
            target.sync()
        }
        Err(error) if error.kind() == FsErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// The name of the marker; no name of a mirror's, and none that a walk sweeps.
fn marker() -> Name {
    #[expect(clippy::expect_used, reason = "a constant")]
    Name::new(BEGUN.as_bytes()).expect("a plain word is a name")
}

impl Previous {
    /// Gives a fresh target all that the version has.
    fn begin(&self, target: &Arc<Directory>) -> Result<(), ReplicaError> {
        let failed = |error: FsError| ReplicaError::Version(self.explained(&error));
        if !is_fresh(target).map_err(failed)? {
            return Ok(());
        }
        let version = Arc::new(Directory::open_root(&self.path).map_err(failed)?);
        if target.stat(&marker()).map_err(failed)?.is_none() {
            target.make_dir(&marker()).map_err(failed)?;
            target.sync().map_err(failed)?;
        }
        let mut filling = Filling {
            copies: self.copies,
            names: HashMap::new(),
        };
        filling.fill(&version, target).map_err(failed)
    }

    fn explained(&self, error: &FsError) -> String {
        match error.kind() {
            FsErrorKind::CrossDevice => format!(
                "{error}: {} is on another file system, and no file can have names on two (use --copy-dest)",
                self.path.display()
            ),
            _ => error.to_string(),
        }
    }
}

struct Filling {
    copies: bool,
    /// Where files with several names stand in the target, by device and inode in the version; and whether that is a copy.
    names: HashMap<(u64, u64), (Arc<Directory>, Name, bool)>,
}

impl Filling {
    fn fill(&mut self, version: &Arc<Directory>, target: &Arc<Directory>) -> Result<(), FsError> {
        // Opened when their turn comes: a level can have more directories than a process descriptors.
        let mut turns = vec![(version.clone(), target.clone(), None::<Name>)];
        while let Some((mut from, mut to, below)) = turns.pop() {
            if let Some(name) = below {
                to = Arc::new(match to.make_dir(&name) {
                    Err(error) if error.kind() == FsErrorKind::Exists => to.open_dir(&name)?,
                    made => made?,
                });
                from = Arc::new(from.open_dir(&name)?);
            }
            for (name, stat) in from.list()?.entries {
                match stat.file_type.kind() {
                    None => {}
                    Some(Kind::Directory) => turns.push((from.clone(), to.clone(), Some(name))),
                    Some(kind) => self.give(kind, &from, &to, &name, &stat)?,
                }
            }
        }
        Ok(())
    }

    fn give(
        &mut self,
        kind: Kind,
        from: &Directory,
        to: &Arc<Directory>,
        name: &Name,
        stat: &Stat,
    ) -> Result<(), FsError> {
        if to.stat(name)?.is_some() {
            return Ok(());
        }
        let inode = (stat.stamp.device, stat.stamp.inode);
        let known = (stat.links > 1)
            .then(|| self.names.get(&inode).cloned())
            .flatten();
        let is_copy = match (known, kind) {
            // Of other kinds one name is enough to begin with: the rest costs one message each.
            (Some(_), kind) if kind != Kind::File => return Ok(()),
            (Some((first_dir, first, true)), _) => {
                first_dir.hard_link(&first, None, to, name, RenameMode::NoReplace)?;
                return Ok(());
            }
            (Some((first_dir, first, false)), _) => {
                copy(from, to, name, stat)?;
                to.hard_link(name, None, &first_dir, &first, RenameMode::Replace)?;
                true
            }
            (None, Kind::File) if self.copies => {
                copy(from, to, name, stat)?;
                true
            }
            (None, _) if self.copies => return Ok(()),
            (None, _) => {
                match from.hard_link(name, Some(&stat.stamp), to, name, RenameMode::NoReplace) {
                    Err(error) if error.kind() == FsErrorKind::CrossDevice => return Err(error),
                    // As many links as there can be, or one that may not be linked: it is sent.
                    Err(error) => {
                        tracing::debug!("{error}");
                        return Ok(());
                    }
                    Ok(_) => false,
                }
            }
        };
        if stat.links > 1 {
            self.names.insert(inode, (to.clone(), name.clone(), is_copy));
        }
        Ok(())
    }
}

/// With owner, mode and times. Extended attributes are the mirror's business.
fn copy(from: &Directory, to: &Arc<Directory>, name: &Name, stat: &Stat) -> Result<(), FsError> {
    let (basis, found) = from.open_file(name)?;
    let staged = Staged::create(to.clone())?;
    staged.copy_from(&basis, 0, 0, found.size)?;
    staged.set_len(found.size)?;
    staged.set_metadata(&Metadata::plain(&stat.attributes, own_carried(to)))?;
    staged.publish(name)?;
    Ok(())
}

impl Replica {
    /// Has an empty tree begin as the version that is wanted. That objects have other names outside is remembered.
    pub(super) fn begin_version(&mut self, previous: Option<&Previous>) -> Result<(), ReplicaError> {
        if let Some(previous) = previous {
            previous.begin(&self.root)?;
            if !previous.copies {
                self.state.put_value(KEY, &[1])?;
            }
        }
        self.is_version = self.state.value(KEY)?.is_some();
        Ok(())
    }

    /// Objects whose other names are all outside the tree are none of several: their numbers of links say nothing here.
    pub(super) fn leave_lonely_groups(&self) -> Result<(), StoreError> {
        let mut members: HashMap<ObjectId, (u64, ObjectId)> = HashMap::new();
        self.catalog.read(|view| {
            view.for_each(&mut |entry: Entry| {
                let group = entry.attributes.link_group;
                if group.is_local() {
                    members.entry(group).or_insert((0, entry.object)).0 += 1;
                }
                Ok(())
            })
        })?;
        self.catalog.update(true, |t| {
            for (_, object) in members.into_values().filter(|(names, _)| *names == 1) {
                if let Some(mut entry) = t.get(object)? {
                    entry.attributes.link_group = ObjectId(0);
                    t.put(&entry)?;
                }
            }
            Ok(())
        })
    }
}
