//! The exchange of what stands at a name for what was made beside it, and the end of what stood there.

use super::carry::{OldTree, is_but_for_ctime};
use super::*;
use crate::fs::{FsErrorKind, RenameMode};
use crate::store::Replacement;
use driftless_protocol::Timestamp;
use std::sync::Arc;

/// What stood at a name until something else took its place.
#[derive(Debug)]
pub struct Replaced {
    pub(super) key: Key,
    /// Where it is now.
    pub(super) aside: Name,
    pub(super) known: Known,
}

/// What came of a publication.
#[derive(Debug)]
#[must_use]
pub struct Published {
    /// What is to be disposed of: that it was replaced is on stable storage.
    pub replaced: Vec<Replaced>,
    /// Whether all that was to be published is.
    pub outcome: Result<(), ApplyError>,
}

impl Replica {
    /// Carries over what somebody else made meanwhile, and answers what may be exchanged: all but trees with an entry that
    /// could not be put. `knows_none` says that the sender knows of no such entry any more.
    ///
    /// After an error nothing of what was to become visible may be told to be.
    pub(in super::super) fn prepare_publishing(&mut self, knows_none: bool) -> Result<Vec<Key>, ApplyError> {
        let ready = self.publishing.ready(knows_none);
        let catalog = self.catalog.clone();
        for key in &ready {
            let Some(mut stage) = self.publishing.stages.remove(key) else {
                continue;
            };
            let carried = catalog.read(|view| match self.is_gone(view, key.0)? {
                true => Ok(Ok(())),
                false => Ok(self.carry_over(view, key, &mut stage)),
            });
            let path = stage.path.clone();
            self.publishing.stages.insert(key.clone(), stage);
            carried?.map_err(|error| unpublished(&path, error))?;
        }
        Ok(ready)
    }

    /// Whether a directory was removed, and all in it.
    fn is_gone(&self, t: &impl CatalogRead, directory: ObjectId) -> Result<bool, StoreError> {
        Ok(directory != ObjectId::ROOT && t.get(directory)?.is_none())
    }

    /// Exchanges what is ready, what appears before what goes. Everything in it has to be on stable storage, but for what was carried
    /// over. The names are, when this is done.
    pub(in super::super) fn publish(&mut self, ready: Vec<Key>) -> Published {
        let mut replaced = Vec::new();
        let exchanged = self.exchange_all(ready, &mut replaced);
        if exchanged.is_err() && replaced.is_empty() {
            return Published {
                replaced,
                outcome: exchanged,
            };
        }
        match self.flush_parents(&replaced) {
            Ok(()) => Published {
                replaced,
                outcome: exchanged,
            },
            // Nobody knows which of the trees a loss of power would leave: both stay.
            Err(error) => Published {
                replaced: Vec::new(),
                outcome: exchanged.and(Err(error)),
            },
        }
    }

    fn exchange_all(&mut self, ready: Vec<Key>, replaced: &mut Vec<Replaced>) -> Outcome {
        let catalog = self.catalog.clone();
        let mut flushed = HashSet::new();
        let mut ranked = Vec::with_capacity(ready.len());
        for key in ready {
            let Some(stage) = self.publishing.stages.get(&key) else {
                continue;
            };
            let (path, aside, must_flush) = (stage.path.clone(), stage.aside.clone(), stage.known.must_flush);
            if catalog.read(|view| self.is_gone(view, key.0))? {
                self.publishing.drop_stage(&key);
                continue;
            }
            let parent = catalog.read(|view| Ok(self.directory(view, key.0)))?;
            let ranking = parent.and_then(|parent| {
                let parent = parent.undiverted()?;
                if must_flush && flushed.insert(parent.stat_self()?.stamp.device) {
                    parent.sync_filesystem()?;
                }
                Ok(rank(&parent, &aside)?)
            });
            ranked.push((ranking.map_err(|error| unpublished(&path, error))?, key, path));
        }
        ranked.sort_unstable();
        for (_, key, path) in ranked {
            let began = Instant::now();
            let old = catalog.update(false, |t| Ok(self.exchange(t, &key)))?;
            replaced.extend(old.map_err(|error| unpublished(&path, error))?);
            tracing::info!(
                path = shown(&path),
                micros = began.elapsed().as_micros() as u64,
                "published at once"
            );
        }
        Ok(())
    }

    /// Brings the names that lead elsewhere now to stable storage.
    fn flush_parents(&mut self, replaced: &[Replaced]) -> Outcome {
        self.finish_directories(&HashSet::new())?;
        let mut parents: HashSet<ObjectId> = replaced.iter().map(|replaced| replaced.key.0).collect();
        // Also those in which a name appeared that led to nothing before.
        parents.extend(std::mem::take(&mut self.publishing.unsynced));
        let catalog = self.catalog.clone();
        for parent in parents {
            // One that was removed since, with all that was published in it, needs no flush: what is above it was flushed.
            if catalog.read(|view| self.is_gone(view, parent))? {
                continue;
            }
            catalog.read(|view| Ok(self.directory(view, parent)))??.sync()?;
            self.unsynced.remove(&parent);
        }
        // Some may have been opened up once more for that.
        Ok(self.finish_directories(&HashSet::new())?)
    }

    /// Has a name lead to what was made for it, in one step. Answers what stood there; none if nothing did.
    pub(super) fn exchange(&mut self, t: &mut Tables<'_>, key: &Key) -> Result<Option<Replaced>, ApplyError> {
        let Some(stage) = self.publishing.stages.get(key) else {
            return Ok(None);
        };
        let aside = stage.aside.clone();
        let place = Place {
            directory: key.0,
            name: key.1.clone(),
        };
        let parent = self.writable_directory(t, key.0)?.undiverted()?;
        self.note_replacement(t, &parent, key)?;
        let stands = match (parent.stat(&aside)?, self.occupant(t, &place)?) {
            (Some(_), _) => put_in_place(&parent, &aside, &key.1)?,
            (None, None) => self.take_from_place(&parent, &aside, key)?,
            (None, Some(_)) => {
                return Err(ApplyError {
                    kind: FailureKind::Io,
                    text: format!(
                        "what was made for it is not at {} any more, because somebody removed it",
                        parent.shown_name(&aside)
                    ),
                });
            }
        };
        self.publishing.unsynced.insert(key.0);
        // With it the name leads to what everybody sees.
        let known = self.publishing.drop_stage(key);
        // Its ctime has moved with its name.
        if let (Some(mut entry), Some(stat)) = (self.occupant(t, &place)?, parent.stat(&key.1)?) {
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
        Ok(known.filter(|_| stands).map(|known| Replaced {
            key: key.clone(),
            aside,
            known,
        }))
    }

    /// Writes down that a tree is about to be replaced, so that the next process can take it apart if this one cannot.
    fn note_replacement(&self, t: &impl CatalogRead, parent: &Directory, key: &Key) -> Outcome {
        let (Some(stage), Some(stat)) = (self.publishing.stages.get(key), parent.stat(&key.1)?) else {
            return Ok(());
        };
        let Some(mut path) = t.path_of(key.0)? else {
            return Ok(());
        };
        path.push(key.1.clone());
        let written = self.replacements.write(&Replacement {
            aside: stage.aside.clone(),
            path,
            top: stat.stamp.to_bytes(),
            known: stage.known.stamps.values().map(Stamp::to_bytes).collect(),
            spots: stage
                .known
                .spots
                .iter()
                .map(|(spot, inode)| (spot.0, *inode))
                .collect(),
        });
        written.map_err(|error| ApplyError {
            kind: FailureKind::Io,
            text: format!("cannot write down in the receiver's home what is about to be replaced: {error}"),
        })
    }

    /// Takes what the mirror removed from its name. Whether it stood there: what somebody else put there since stays.
    fn take_from_place(&self, parent: &Directory, aside: &Name, key: &Key) -> Result<bool, FsError> {
        let stage = self.publishing.stages.get(key);
        match parent.stat(&key.1)? {
            Some(stat) if stage.is_some_and(|stage| stage.known.is_at(Spot::TOP, &stat)) => {
                match parent.rename(&key.1, parent, aside, RenameMode::NoReplace) {
                    Err(error) if error.kind() == FsErrorKind::NotFound => Ok(false),
                    moved => moved.map(|()| true),
                }
            }
            _ => Ok(false),
        }
    }

    /// Removes what stood at names, but for what somebody else made in it that the new trees do not have. What cannot be is tried
    /// again when this is called after a while. True if a directory is not as it was because of that, which the catalog
    /// has by now and the sender does not know.
    pub(in super::super) fn dispose_of(&mut self, replaced: Vec<Replaced>) -> Result<bool, StoreError> {
        let now = Instant::now();
        let undisposed = &mut self.publishing.undisposed;
        let again: Vec<_> = undisposed.extract_if(.., |old| old.due <= now).collect();
        let again = again.into_iter().map(|again| (again.old, Some(again.wait)));
        let catalog = self.catalog.clone();
        for (old, waited) in again.chain(replaced.into_iter().map(|old| (old, None))) {
            let Err(error) = catalog.update(false, |t| Ok(self.dispose(t, &old)))? else {
                continue;
            };
            // It went with the directory that it was in.
            if catalog.read(|view| self.is_gone(view, old.key.0))? {
                continue;
            }
            let path = catalog.read(|view| Ok(view.path_of(old.key.0)?.unwrap_or_default()))?;
            let path = shown(&[path, vec![old.key.1.clone()]].concat());
            // If this process ends before, the next one goes on with it.
            match waited {
                None => tracing::warn!(
                    path,
                    "what was replaced at once is not removed yet: {}",
                    error.text
                ),
                Some(_) => tracing::debug!(path, "nor is it now: {}", error.text),
            }
            if self.publishing.undisposed.len() < UNDISPOSED_MAX {
                let wait = waited.map_or(DISPOSE_AFTER, |waited| (waited * 2).min(DISPOSE_AFTER_MAX));
                let due = Instant::now() + wait;
                self.publishing.undisposed.push(Undisposed { old, due, wait });
            }
        }
        Ok(std::mem::take(&mut self.publishing.has_other_times))
    }

    /// Whether an old tree that could not be taken apart is to be tried again.
    pub(in super::super) fn is_disposal_due(&self) -> bool {
        let now = Instant::now();
        self.publishing.undisposed.iter().any(|old| old.due <= now)
    }

    /// Has all of them tried again now. How long each of them would have waited, and more if it fails once more.
    pub(in super::super) fn hurry_disposals(&mut self) -> Vec<Duration> {
        let undisposed = self.publishing.undisposed.iter_mut();
        let waits = undisposed.map(|old| {
            old.due = Instant::now();
            old.wait
        });
        waits.collect()
    }

    pub(super) fn dispose(&mut self, t: &mut Tables<'_>, replaced: &Replaced) -> Outcome {
        let parent = self.directory(t, replaced.key.0)?;
        let before = parent.stat_self()?.attributes.mtime;
        let mut path = t.path_of(replaced.key.0)?.unwrap_or_default();
        path.push(replaced.key.1.clone());
        let old = OldTree {
            name: &replaced.key.1,
            aside: &replaced.aside,
            path,
            object: t.lookup(replaced.key.0, &replaced.key.1)?,
            known: &replaced.known,
        };
        let outcome = self.end_old(t, &parent, old);
        // Whatever came of it: the next try would take the time that this one left for the right one.
        self.restore_time(t, &parent, replaced.key.0, before)?;
        // What is set aside has no other name than that on the shelf.
        self.keeper.sync()?;
        outcome?;
        self.replacements.forget(&replaced.aside);
        Ok(())
    }

    /// Gives a directory the time back that it had. If that cannot be, the catalog gets the other one, so that a comparison finds it,
    /// which the sender has to be told of.
    fn restore_time(
        &mut self,
        t: &mut Tables<'_>,
        directory: &Directory,
        object: ObjectId,
        mtime: Timestamp,
    ) -> Result<(), StoreError> {
        let Err(error) = directory.set_self_mtime(mtime) else {
            return Ok(());
        };
        tracing::warn!("{error}");
        if let (Some(mut entry), Ok(now)) = (t.get(object)?, directory.stat_self()) {
            entry.attributes.mtime = now.attributes.mtime;
            self.put(t, &entry)?;
            self.publishing.has_other_times = true;
        }
        Ok(())
    }

    /// The end of what stood at a name: a tree is taken apart, anything else goes, if nobody else wrote it or put it there.
    pub(super) fn end_old(
        &mut self,
        t: &mut Tables<'_>,
        parent: &Arc<Directory>,
        old: OldTree<'_>,
    ) -> Outcome {
        match parent.stat(old.aside)? {
            Some(stat) if stat.file_type == FileType::Directory => self.take_apart(t, parent, old),
            Some(stat) if old.known.has(Spot::TOP, &stat) => Ok(parent.remove_file(old.aside)?),
            // A second name of what stands there, that was written to through either.
            Some(stat) if is_at(parent, old.name, &stat)? => Ok(parent.remove_file(old.aside)?),
            Some(_) => Ok(self.keeper.set_aside(parent, old.aside, &old.path)?),
            None => Ok(()),
        }
    }
}

/// Whether a name leads to this object.
fn is_at(parent: &Directory, name: &Name, stat: &Stat) -> Result<bool, FsError> {
    let there = parent.stat(name)?;
    Ok(there.is_some_and(|there| there.stamp.same_object(&stat.stamp)))
}

/// In which turn a name is published: trees first, then what may lead to them, then what goes.
fn rank(parent: &Directory, aside: &Name) -> Result<u8, FsError> {
    Ok(match parent.stat(aside)? {
        Some(stat) if stat.file_type == FileType::Directory => 0,
        Some(_) => 1,
        None => 2,
    })
}

/// Has a name lead to what is at another one. Whether something stood there, which is at the other name then.
fn put_in_place(parent: &Directory, aside: &Name, name: &Name) -> Result<bool, FsError> {
    match parent.rename(aside, parent, name, RenameMode::Exchange) {
        Err(error) if error.kind() == FsErrorKind::NotFound => {
            parent.rename(aside, parent, name, RenameMode::NoReplace)?;
            Ok(false)
        }
        exchanged => exchanged.map(|()| true),
    }
}

/// Why nothing of what was sent before a mark may be told to be visible.
fn unpublished(path: &[Name], error: impl Into<ApplyError>) -> ApplyError {
    let ApplyError { kind, text } = error.into();
    ApplyError {
        kind,
        text: format!(
            "{} is not published (--publish), and stays as it was: {text}; mend that, or leave the pattern out at this receiver",
            shown(path)
        ),
    }
}
