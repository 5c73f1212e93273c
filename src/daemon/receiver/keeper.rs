//! Where the things go that lose their name in a module path: nowhere, to the trash, to a backup, or, if they are local
//! edits, aside. Always by renaming; what cannot be kept is an error, and then it stays where it is.

use super::replica::ApplyError;
use crate::daemon::keeping::{Backup, Drift, KEPT, Keeping, KeepingCounters, OldVersions, TRASH};
use crate::daemon::status::unix_now;
use crate::fs::{Directory, FsError, RenameMode, Shelf};
use crate::store::Entry;
use driftless_protocol::message::{FailureKind, Place};
use driftless_protocol::{Kind, Name, ObjectId};
use std::collections::HashMap;
use std::sync::Arc;

/// Directories of backups that stay open.
const OPEN_MAX: usize = 64;

/// The policy of a module path, at work.
#[derive(Debug)]
pub struct Keeper {
    policy: Keeping,
    root: Arc<Directory>,
    trash: Shelf,
    kept: Shelf,
    /// Directories of backups, by path below the module path's root.
    backups: HashMap<Vec<Name>, Arc<Directory>>,
    /// A flush failed.
    is_condemned: bool,
    counters: Arc<KeepingCounters>,
}

impl Keeper {
    /// A keeper for the tree below `root`.
    pub fn new(root: Arc<Directory>, policy: Keeping, counters: Arc<KeepingCounters>) -> Keeper {
        Keeper {
            policy,
            trash: Shelf::new(root.clone(), TRASH),
            kept: Shelf::new(root.clone(), KEPT),
            root,
            backups: HashMap::new(),
            is_condemned: false,
            counters,
        }
    }

    /// Whether anything has to be looked at before it loses its name, or kept after.
    pub fn is_needed(&self) -> bool {
        self.policy != Keeping::default()
    }

    /// Whether local edits are told from what the mirror put there.
    pub fn judges(&self) -> bool {
        self.policy.drift != Drift::Overwrite
    }

    /// Whether local edits stay where they are.
    pub fn refuses(&self) -> bool {
        self.policy.drift == Drift::Refuse
    }

    /// Whether a directory without local edits can be kept as it is, with all in it.
    pub fn takes_trees(&self) -> bool {
        matches!(self.policy.old, OldVersions::Trash { .. })
    }

    /// Whether backups stand beside what they are of.
    pub fn leaves_backups_beside(&self) -> bool {
        self.policy.leaves_backups_beside()
    }

    /// Whether something at this place is not part of any mirror: the directory of backups.
    pub fn is_taboo(&self, place: &Place) -> bool {
        place.directory == ObjectId::ROOT && self.policy.is_backup_directory(&place.name)
    }

    /// Refuses what an op would do where no mirror has anything to do.
    pub fn check(&self, place: &Place) -> Result<(), ApplyError> {
        match self.is_taboo(place) {
            false => Ok(()),
            true => Err(ApplyError {
                kind: FailureKind::Unsupported,
                text: format!(
                    "{} is where this receiver keeps backups (--backup-dir): nothing can be mirrored there",
                    place.name
                ),
            }),
        }
    }

    /// Whether an entry of the catalog is a backup, which no sender has to know of. What a sender put there is none.
    pub fn is_backup(&self, entry: &Entry) -> bool {
        entry.object.is_local()
            && entry.kind != Kind::Directory
            && self.policy.is_backup_name(&entry.place.name)
    }

    /// Whether a name is one that backups have which stand beside their files.
    pub fn is_backup_name(&self, name: &Name) -> bool {
        self.policy.is_backup_name(name)
    }

    /// Moves a local edit aside, which stands at `from/at` and stood at `path`.
    pub fn set_aside(&mut self, from: &Directory, at: &Name, path: &[Name]) -> Result<(), FsError> {
        let place = self.kept.put(unix_now(), from, at, path)?;
        let (was, is) = (shown(path), shown(&place));
        tracing::warn!(
            path = was,
            "a local edit was set aside: it is {is} in {} now",
            self.root.shown()
        );
        self.counters.count_kept(is);
        Ok(())
    }

    /// Does to an old version at `from/at` what the policy says. It is no directory, or one that may go as a whole.
    pub fn put_away(
        &mut self,
        from: &Directory,
        at: &Name,
        path: &[Name],
        is_dir: bool,
    ) -> Result<(), FsError> {
        match &self.policy.old {
            OldVersions::Discard if is_dir => from.remove_tree(at).map(|_| ()),
            OldVersions::Discard => from.remove_file(at),
            OldVersions::Trash { .. } => {
                self.trash.put(unix_now(), from, at, path)?;
                self.counters.count_trashed();
                Ok(())
            }
            OldVersions::Backup(_) if is_dir => self.set_aside(from, at, path),
            OldVersions::Backup(backup) => {
                let backup = backup.clone();
                self.back_up(&backup, from, at, path)?;
                self.counters.count_backup();
                Ok(())
            }
        }
    }

    fn back_up(
        &mut self,
        backup: &Backup,
        from: &Directory,
        at: &Name,
        path: &[Name],
    ) -> Result<(), FsError> {
        let Some((last, above)) = path.split_last() else {
            return Ok(());
        };
        let name = Name::new([last.as_bytes(), &backup.suffix].concat()).map_err(|_| {
            from.unusable(
                "back up",
                last,
                "its name and the suffix are longer than 255 bytes",
            )
        })?;
        let Some(directory) = &backup.directory else {
            return from.rename(at, from, &name, RenameMode::Replace);
        };
        let key: Vec<Name> = [directory].into_iter().chain(above).cloned().collect();
        let to = match self.backups.get(&key) {
            Some(known) => known.clone(),
            None => {
                let mut to = self.root.clone();
                for name in &key {
                    to = Arc::new(to.enter_or_make_unnoticed(name)?);
                }
                if self.backups.len() >= OPEN_MAX {
                    self.sync()?;
                    self.backups.clear();
                }
                self.backups.insert(key, to.clone());
                to
            }
        };
        from.rename(at, &to, &name, RenameMode::Replace)
    }

    /// Counts an op that a local edit kept from being carried out.
    pub fn count_refused(&self) {
        self.counters.count_refused();
    }

    /// Flushes what was kept.
    pub fn sync(&mut self) -> Result<(), FsError> {
        self.refuse_condemned()?;
        let shelves = [&mut self.trash, &mut self.kept].into_iter();
        let flushed: Result<(), FsError> = shelves
            .map(Shelf::sync)
            .chain(self.backups.values().map(|directory| directory.sync()))
            .collect();
        self.is_condemned = flushed.is_err();
        flushed
    }

    /// An error if a flush of something that was kept has failed before: none that follows, not even one of the whole file
    /// system, says that it is on stable storage.
    pub fn refuse_condemned(&self) -> Result<(), FsError> {
        match self.is_condemned || self.trash.is_condemned() || self.kept.is_condemned() {
            true => Err(self.root.unflushed()),
            false => Ok(()),
        }
    }
}

/// A path for people.
pub fn shown(path: &[Name]) -> String {
    let mut text = String::new();
    for name in path {
        if !text.is_empty() {
            text.push('/');
        }
        text.push_str(&name.to_string());
    }
    text
}
