//! The exchange of what stands at a name for what was made beside it, and the end of what stood there.
//!
//! Nothing that somebody else made in the visible tree meanwhile is lost with it: it gets a name in the new tree before that is
//! exchanged ([`Replica::prepare_publishing`]); what comes in the moment after that is moved there when the old tree goes, or set
//! aside where it has no place there ([`Replica::dispose_of`]).

use super::working::copy_directory;
use super::*;
use crate::daemon::receiver::replica::kind_of;
use crate::fs::{Directory, FsErrorKind, RenameMode};
use crate::store::Entry;
use std::sync::Arc;

/// What stood at a name until something else took its place.
#[derive(Debug)]
pub struct Replaced {
    key: Key,
    /// Where it is now.
    pub(super) aside: Name,
    known: Known,
}

impl Replica {
    /// Carries over what somebody else made meanwhile, and answers what may be exchanged: all but trees with an entry that
    /// could not be put.
    pub(in super::super) fn prepare_publishing(&mut self) -> Result<Vec<Key>, StoreError> {
        self.publishing
            .failed
            .retain(|_, (_, at)| at.elapsed() < FAILED_FOR);
        let failed: HashSet<&Key> = self.publishing.failed.values().map(|(key, _)| key).collect();
        let stages = self.publishing.stages.keys();
        let mut ready: Vec<Key> = stages.filter(|key| !failed.contains(key)).cloned().collect();
        let catalog = self.catalog.clone();
        let mut kept = Vec::new();
        for key in ready.drain(..) {
            let Some(mut stage) = self.publishing.stages.remove(&key) else {
                continue;
            };
            let carried = catalog.read(|view| Ok(self.carry_over(view, &key, &mut stage)))?;
            self.publishing.stages.insert(key.clone(), stage);
            match carried {
                Ok(()) => kept.push(key),
                Err(error) => tracing::warn!(name = %key.1, "it is not published: {}", error.text),
            }
        }
        Ok(kept)
    }

    fn carry_over(&mut self, t: &impl CatalogRead, key: &Key, stage: &mut Stage) -> Outcome {
        let parent = match self.directory(t, key.0) {
            Ok(parent) => parent.undiverted()?,
            // It is gone, and with it the name.
            Err(_) => return Ok(()),
        };
        let is_directory =
            |stat: Option<Stat>| stat.is_some_and(|stat| stat.file_type == FileType::Directory);
        if !is_directory(parent.stat(&key.1)?) || !is_directory(parent.stat(&stage.aside)?) {
            return Ok(());
        }
        let from = Arc::new(parent.open_dir_same_mount(&key.1)?);
        let to = Arc::new(parent.open_dir_same_mount(&stage.aside)?);
        let mut turns = vec![(from, Some(to))];
        while let Some((from, to)) = turns.pop() {
            let mut is_touched = false;
            let before = to.as_ref().map(|to| to.stat_self()).transpose()?;
            for (name, stat) in from.list()?.entries {
                let is_known = stage.known.has(&stat);
                if stat.file_type == FileType::Directory {
                    let inner = Arc::new(from.open_dir_same_mount(&name)?);
                    let (there, is_made) = self.counterpart(&inner, to.as_deref(), &name, is_known)?;
                    is_touched |= is_made;
                    turns.push((inner, there.map(Arc::new)));
                } else if let (false, Some(_), Some(to)) = (is_known, kind_of(stat.file_type), &to) {
                    let mode = match to.stat(&name)? {
                        None => RenameMode::NoReplace,
                        // What the mirror has changed, too, it decides; and the other is set aside.
                        Some(there) if !stage.known.has(&there) => continue,
                        Some(_) => RenameMode::Replace,
                    };
                    from.hard_link(&name, Some(&stat.stamp), to, &name, mode)?;
                    stage.known.note(&stat);
                    is_touched = true;
                }
            }
            if let (true, Some(to), Some(before)) = (is_touched, &to, before) {
                to.set_self_mtime(before.attributes.mtime)?;
                to.sync()?;
            }
        }
        Ok(())
    }

    /// The directory of this name in the working tree, and whether it was just made: one that somebody made in the visible one
    /// meanwhile has none yet.
    fn counterpart(
        &self,
        inner: &Directory,
        to: Option<&Directory>,
        name: &Name,
        is_known: bool,
    ) -> Result<(Option<Directory>, bool), ApplyError> {
        let Some(to) = to else {
            return Ok((None, false));
        };
        match to.stat(name)? {
            Some(stat) if stat.file_type == FileType::Directory => {
                Ok((Some(to.open_dir_same_mount(name)?), false))
            }
            None if !is_known => {
                let made = to.make_dir(name)?;
                let stat = copy_directory(inner, &made, self.can_carry())?;
                made.set_self_attributes(&stat.attributes, self.can_carry())?;
                Ok((Some(made), true))
            }
            _ => Ok((None, false)),
        }
    }

    /// Exchanges what is ready, what appears before what goes. Everything in it has to be on stable storage. The names are, when
    /// this is done; what stood there is to be disposed of.
    pub(in super::super) fn publish(&mut self, ready: Vec<Key>) -> Result<Vec<Replaced>, ApplyError> {
        let catalog = self.catalog.clone();
        let mut ranked = Vec::with_capacity(ready.len());
        for key in ready {
            let rank = catalog.read(|view| Ok(self.rank(view, &key)))??;
            ranked.push((rank, key));
        }
        ranked.sort_unstable();
        let mut replaced = Vec::new();
        let mut parents = HashSet::new();
        for (_, key) in ranked {
            let began = Instant::now();
            match catalog.update(false, |t| Ok(self.exchange(t, &key)))? {
                Ok(old) => {
                    parents.insert(key.0);
                    tracing::info!(name = %key.1, micros = began.elapsed().as_micros() as u64, "published at once");
                    replaced.extend(old);
                }
                // It stays staged, and the next mark tries again.
                Err(error) => tracing::error!(name = %key.1, "it is not published: {}", error.text),
            }
        }
        self.finish_directories(&HashSet::new())?;
        for parent in parents {
            if let Ok(parent) = catalog.read(|view| Ok(self.directory(view, parent)))? {
                parent.sync()?;
            }
            self.unsynced.remove(&parent);
        }
        // Some may have been opened up once more for that.
        self.finish_directories(&HashSet::new())?;
        Ok(replaced)
    }

    /// In which turn a name is published: trees first, then what may lead to them, then what goes.
    fn rank(&mut self, t: &impl CatalogRead, key: &Key) -> Result<u8, ApplyError> {
        let stage = self.publishing.stages.get(key);
        let (Some(aside), Ok(parent)) = (stage.map(|stage| stage.aside.clone()), self.directory(t, key.0))
        else {
            return Ok(2);
        };
        Ok(match parent.undiverted()?.stat(&aside)? {
            Some(stat) if stat.file_type == FileType::Directory => 0,
            Some(_) => 1,
            None => 2,
        })
    }

    /// Has a name lead to what was made for it, in one step. Answers what stood there; none if nothing did.
    pub(super) fn exchange(&mut self, t: &mut Tables<'_>, key: &Key) -> Result<Option<Replaced>, ApplyError> {
        let Some(aside) = self.publishing.stages.get(key).map(|stage| stage.aside.clone()) else {
            return Ok(None);
        };
        let Ok(parent) = self.writable_directory(t, key.0) else {
            // The directory is gone: so is all of it.
            self.publishing.stages.remove(key);
            return Ok(None);
        };
        let parent = parent.undiverted()?;
        let (name, no_replace) = (&key.1, RenameMode::NoReplace);
        let is_missing = |error: &crate::fs::FsError| error.kind() == FsErrorKind::NotFound;
        let stood = match parent.stat(&aside)? {
            Some(_) => match parent.rename(&aside, &parent, name, RenameMode::Exchange) {
                Err(error) if is_missing(&error) => {
                    parent.rename(&aside, &parent, name, no_replace)?;
                    false
                }
                exchanged => exchanged.map(|()| true)?,
            },
            None => match parent.rename(name, &parent, &aside, no_replace) {
                Err(error) if is_missing(&error) => false,
                moved => moved.map(|()| true)?,
            },
        };
        // With it the name leads to what everybody sees.
        let known = self.publishing.stages.remove(key).map(|stage| stage.known);
        let place = Place {
            directory: key.0,
            name: name.clone(),
        };
        // Its ctime has moved with its name.
        if let (Some(mut entry), Some(stat)) = (self.occupant(t, &place)?, parent.stat(name)?) {
            let stamp = entry.stamp.and_then(|known| Stamp::from_bytes(&known));
            let is_it = |stamp: &Stamp| match entry.kind {
                Kind::Directory => stamp.same_object(&stat.stamp),
                _ => is_but_for_ctime(stamp, &stat.stamp),
            };
            if stamp.as_ref().is_some_and(is_it) {
                entry.stamp = Some(stat.stamp.to_bytes());
                self.put_stamp(t, &entry)?;
            }
        }
        Ok(known.filter(|_| stood).map(|known| Replaced {
            key: key.clone(),
            aside,
            known,
        }))
    }

    /// Removes what stood at a name, but for what somebody else made in it that the new tree does not have.
    pub(in super::super) fn dispose_of(&mut self, replaced: Replaced) -> Result<(), StoreError> {
        let catalog = self.catalog.clone();
        let outcome = catalog.update(false, |t| Ok(self.dispose(t, &replaced)))?;
        if let Err(error) = outcome {
            // It has a private name, and the next start sweeps it.
            tracing::warn!(name = %replaced.key.1, "what was replaced at once is not removed: {}", error.text);
        }
        Ok(())
    }

    fn dispose(&mut self, t: &mut Tables<'_>, replaced: &Replaced) -> Outcome {
        let Replaced { key, aside, known } = replaced;
        let parent = self.directory(t, key.0)?;
        let before = parent.stat_self()?.attributes.mtime;
        let is_tree = parent
            .stat(aside)?
            .is_some_and(|stat| stat.file_type == FileType::Directory);
        let shared = match is_tree {
            true => self.save_strangers(t, &parent, key, aside, known)?,
            false => Vec::new(),
        };
        // What is set aside has no other name than that on the shelf.
        self.keeper.sync()?;
        ignore_missing(parent.remove_private(aside))?;
        parent.set_self_mtime(before)?;
        // One name less moves the ctime, and nothing else.
        for mut entry in shared {
            let Ok(directory) = self.directory(t, entry.place.directory) else {
                continue;
            };
            let (Some(now), stamp) = (directory.stat(&entry.place.name)?, entry.stamp) else {
                continue;
            };
            let was = stamp.and_then(|bytes| Stamp::from_bytes(&bytes));
            if was.is_some_and(|was| is_but_for_ctime(&was, &now.stamp)) {
                entry.stamp = Some(now.stamp.to_bytes());
                self.put_stamp(t, &entry)?;
            }
        }
        Ok(())
    }

    /// Takes what is nobody's but somebody else's out of an old tree. Answers the entries of which it still has a name.
    fn save_strangers(
        &mut self,
        t: &mut Tables<'_>,
        parent: &Arc<Directory>,
        key: &Key,
        aside: &Name,
        known: &Known,
    ) -> Result<Vec<Entry>, ApplyError> {
        let mut path = t.path_of(key.0)?.unwrap_or_default();
        path.push(key.1.clone());
        let object = t.lookup(key.0, &key.1)?;
        let top = Arc::new(parent.open_dir_same_mount(aside)?);
        let new = parent.open_dir(&key.1).ok().map(Arc::new);
        let mut shared = Vec::new();
        let mut turns = vec![(top, new, object, path)];
        while let Some((old, new, object, path)) = turns.pop() {
            for (name, stat) in old.list()?.entries {
                let entry = match object {
                    Some(directory) => {
                        let name = name.clone();
                        self.occupant(t, &Place { directory, name })?
                    }
                    None => None,
                };
                let path: Vec<Name> = path.iter().chain([&name]).cloned().collect();
                if stat.file_type == FileType::Directory {
                    let inner = Arc::new(old.open_dir_same_mount(&name)?);
                    let there = new.as_ref().and_then(|new| new.open_dir(&name).ok());
                    let object = entry.filter(|entry| entry.kind == Kind::Directory);
                    turns.push((inner, there.map(Arc::new), object.map(|entry| entry.object), path));
                } else if known.has(&stat) {
                    let is_its = |entry: &Entry| entry.stamp == Some(stat.stamp.to_bytes());
                    shared.extend(entry.filter(is_its));
                } else if !self.bring_over(&old, new.as_deref(), &name)? && kind_of(stat.file_type).is_some()
                {
                    self.keeper.set_aside(&old, &name, &path)?;
                }
            }
        }
        Ok(shared)
    }

    /// Moves something to the same name in the new tree, if that is free.
    fn bring_over(&self, old: &Directory, new: Option<&Directory>, name: &Name) -> Result<bool, ApplyError> {
        let Some(new) = new else { return Ok(false) };
        let before = new.stat_self()?.attributes.mtime;
        let is_moved = old.rename(name, new, name, RenameMode::NoReplace).is_ok();
        if is_moved {
            new.set_self_mtime(before)?;
            new.sync()?;
        }
        Ok(is_moved)
    }
}

/// Whether one object was given a name or lost one, and nothing else. Its ctime tells no more than that.
fn is_but_for_ctime(was: &Stamp, is: &Stamp) -> bool {
    *was == Stamp {
        ctime: was.ctime,
        ..*is
    }
}
