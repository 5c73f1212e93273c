//! What somebody else makes or writes in a visible tree while the next one is made: it is not lost with the old tree.
//!
//! Before the exchange it gets a name in the new tree ([`Replica::carry_over`]). What comes after it was looked for there, and what
//! cannot have two names, is moved when the old tree goes ([`Replica::take_apart`]), or set aside if it has no place in the new one.
//! A directory of the old tree goes when the kernel says that it is empty, and not because of an earlier look.

use super::working::{copy_directory, is_gone, whole_listing};
use super::*;
use crate::daemon::receiver::replica::kind_of;
use crate::fs::{FsErrorKind, RenameMode, displaced_from, is_private_name};
use driftless_protocol::Timestamp;
use std::sync::Arc;

/// So often something new may turn up in a directory that is to go.
const ROUNDS_MAX: u32 = 100;

/// A directory of the visible tree, and the one in the working tree.
struct Level {
    from: Arc<Directory>,
    to: Arc<Directory>,
    object: Option<ObjectId>,
    spot: Spot,
    /// The directories in it that are still to be looked into.
    waiting: Vec<Name>,
    /// The time of the new one before anything was put into it. None if the catalog does not have it: then it is to be what the
    /// other one is.
    mtime: Option<Timestamp>,
    is_touched: bool,
}

/// An old tree.
#[derive(Debug)]
pub(super) struct OldTree<'a> {
    /// Where it stood, in the same directory.
    pub(super) name: &'a Name,
    /// Where it is.
    pub(super) aside: &'a Name,
    /// Where it stood, from the root.
    pub(super) path: Vec<Name>,
    /// The number of what stands there now.
    pub(super) object: Option<ObjectId>,
    pub(super) known: &'a Known,
}

/// A directory of an old tree that is taken apart.
struct OldLevel {
    parent: Arc<Directory>,
    name: Name,
    from: Arc<Directory>,
    /// The one at its place in the new tree.
    to: Option<Arc<Directory>>,
    object: Option<ObjectId>,
    path: Vec<Name>,
    spot: Spot,
    waiting: Vec<Name>,
    rounds: u32,
}

impl Replica {
    /// Gives what somebody else made in a visible tree, or wrote, a name in the working tree, too; and finishes the directories there
    /// that the catalog does not have.
    pub(super) fn carry_over(&mut self, t: &impl CatalogRead, key: &Key, stage: &mut Stage) -> Outcome {
        let parent = self.directory(t, key.0)?.undiverted()?;
        let is_directory =
            |stat: Option<Stat>| stat.is_some_and(|stat| stat.file_type == FileType::Directory);
        if !is_directory(parent.stat(&key.1)?) || !is_directory(parent.stat(&stage.aside)?) {
            return Ok(());
        }
        let from = match parent.open_dir_same_mount(&key.1) {
            Ok(from) => Arc::new(from),
            Err(error) if is_gone(&error) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let to = Arc::new(parent.open_dir_same_mount(&stage.aside)?);
        let object = t.lookup(key.0, &key.1)?;
        let top = (object, Spot::TOP);
        let mut branch = vec![self.carry_level(t, (from, to), top, &mut stage.known)?];
        while let Some(level) = branch.last_mut() {
            if let Some(name) = level.waiting.pop() {
                let below = self.carry_below(t, level, name, &mut stage.known)?;
                branch.extend(below);
            } else if let Some(done) = branch.pop() {
                self.finish_level(&done, &mut stage.known)?;
            }
        }
        Ok(())
    }

    fn carry_level(
        &self,
        t: &impl CatalogRead,
        (from, to): (Arc<Directory>, Arc<Directory>),
        (object, spot): (Option<ObjectId>, Spot),
        known: &mut Known,
    ) -> Result<Level, ApplyError> {
        let entry = object.map(|object| t.get(object)).transpose()?.flatten();
        let mut level = Level {
            mtime: entry
                .map(|_| to.stat_self())
                .transpose()?
                .map(|stat| stat.attributes.mtime),
            from,
            to,
            object,
            spot,
            waiting: Vec::new(),
            is_touched: false,
        };
        let listing = match whole_listing(&level.from) {
            // The directory itself.
            Err(error) if is_gone(&error) => return Ok(level),
            listing => listing?,
        };
        let names: HashSet<Name> = listing.iter().map(|(name, _)| name.clone()).collect();
        for (name, stat) in listing {
            if stat.file_type == FileType::Directory {
                level.waiting.push(name);
            } else if kind_of(stat.file_type).is_some() && !known.has(spot.of(&name), &stat) {
                level.is_touched |=
                    self.carry_one((&level.from, &name, &stat), (&level.to, spot.of(&name)), known)?;
            }
        }
        self.drop_absent(t, &mut level, &names, known)?;
        Ok(level)
    }

    /// What only this side had, and somebody has renamed or removed since, does not come back. Nothing goes with it that anybody sees:
    /// if it has another name by now, it has that in the visible tree.
    fn drop_absent(
        &self,
        t: &impl CatalogRead,
        level: &mut Level,
        names: &HashSet<Name>,
        known: &Known,
    ) -> Outcome {
        for (name, there) in whole_listing(&level.to)? {
            let was_here = there.file_type != FileType::Directory && known.has(level.spot.of(&name), &there);
            if names.contains(&name) || !was_here {
                continue;
            }
            let entry = match level.object {
                Some(directory) => self.occupant(
                    t,
                    &Place {
                        directory,
                        name: name.clone(),
                    },
                )?,
                None => None,
            };
            if entry.is_none_or(|entry| entry.object.is_local()) {
                ignore_missing(level.to.remove_file(&name))?;
                level.is_touched = true;
            }
        }
        Ok(())
    }

    /// Gives something that is no directory, and is not as it was, a name in the working tree if it has a place there. Whether it did.
    fn carry_one(
        &self,
        (from, name, stat): (&Directory, &Name, &Stat),
        (to, spot): (&Arc<Directory>, Spot),
        known: &mut Known,
    ) -> Result<bool, ApplyError> {
        let mode = match to.stat(name)? {
            // It was written to where it stands, and stands in both trees.
            Some(there) if there.stamp.same_object(&stat.stamp) => {
                known.note(spot, stat);
                return Ok(false);
            }
            Some(there) if there.file_type != FileType::Directory && known.has(spot, &there) => {
                RenameMode::Replace
            }
            // What the mirror has changed, too, it decides: the other one is set aside with the old tree.
            Some(_) => return Ok(false),
            // The mirror removed it from here.
            None if known.is_at(spot, stat) => return Ok(false),
            None => RenameMode::NoReplace,
        };
        match from.hard_link(name, Some(&stat.stamp), to, name, mode) {
            Ok(now) => known.note(spot, &now),
            // It has changed once more. What it is when the old tree goes counts.
            Err(error) if is_gone(&error) || error.kind() == FsErrorKind::Exists => return Ok(false),
            Err(error) => match self.copy_instead(error, (from, name, stat), (to, name), known)? {
                Some(copy) => {
                    known.note(spot, stat);
                    known.note(spot, &copy);
                }
                None => return Ok(false),
            },
        }
        Ok(true)
    }

    /// A directory in one that is gone through, with its counterpart. None if it has no place in the working tree, because the mirror
    /// removed it.
    fn carry_below(
        &self,
        t: &impl CatalogRead,
        level: &mut Level,
        name: Name,
        known: &mut Known,
    ) -> Result<Option<Level>, ApplyError> {
        let inner = match level.from.open_dir_same_mount(&name) {
            Ok(inner) => Arc::new(inner),
            Err(error) if is_gone(&error) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let spot = level.spot.of(&name);
        let to = match level.to.stat(&name)? {
            Some(there) if there.file_type == FileType::Directory => level.to.open_dir_same_mount(&name)?,
            None if !known.is_at(spot, &inner.stat_self()?) => {
                let made = level.to.make_dir(&name)?;
                level.is_touched = true;
                known.note(spot, &copy_directory(&inner, &made, self.can_carry())?);
                made
            }
            _ => return Ok(None),
        };
        let object = self.directory_at(t, level.object, name)?;
        Ok(Some(self.carry_level(
            t,
            (inner, Arc::new(to)),
            (object, spot),
            known,
        )?))
    }

    /// The number of a directory of this name, if it has one.
    fn directory_at(
        &self,
        t: &impl CatalogRead,
        above: Option<ObjectId>,
        name: Name,
    ) -> Result<Option<ObjectId>, ApplyError> {
        let Some(directory) = above else { return Ok(None) };
        let entry = self.occupant(t, &Place { directory, name })?;
        let entry = entry.filter(|entry| entry.kind == Kind::Directory);
        Ok(entry.map(|entry| entry.object))
    }

    /// All below it is done, so that nothing more happens to its mode and times.
    fn finish_level(&self, level: &Level, known: &mut Known) -> Outcome {
        match level.mtime {
            None => {
                let attributes = level.from.stat_self()?.attributes;
                level.to.set_self_attributes(&attributes, self.can_carry())?;
            }
            Some(mtime) if level.is_touched => level.to.set_self_mtime(mtime)?,
            Some(_) => return Ok(()),
        }
        known.must_flush = true;
        Ok(())
    }

    /// Removes an old tree, but for what somebody else made in it that the new tree does not have.
    pub(super) fn take_apart(
        &mut self,
        t: &mut Tables<'_>,
        parent: &Arc<Directory>,
        old: OldTree<'_>,
    ) -> Outcome {
        let known = old.known;
        let to = match parent.stat(old.name)? {
            Some(stat) if stat.file_type == FileType::Directory => {
                Some(Arc::new(parent.open_dir_same_mount(old.name)?))
            }
            _ => None,
        };
        let mut branch = vec![OldLevel {
            parent: parent.clone(),
            name: old.aside.clone(),
            from: Arc::new(parent.open_dir_same_mount(old.aside)?),
            to,
            object: old.object,
            path: old.path,
            spot: Spot::TOP,
            waiting: Vec::new(),
            rounds: 0,
        }];
        if let Some(top) = branch.last_mut() {
            self.clear(t, top, known)?;
        }
        while let Some(level) = branch.last_mut() {
            if let Some(name) = level.waiting.pop() {
                if let Some(mut below) = self.enter_old(t, level, name, known)? {
                    self.clear(t, &mut below, known)?;
                    branch.push(below);
                }
                continue;
            }
            match level.parent.remove_dir(&level.name) {
                // Somebody has made something in it meanwhile.
                Err(error) if error.kind() == FsErrorKind::NotEmpty && level.rounds < ROUNDS_MAX => {
                    level.rounds += 1;
                    self.clear(t, level, known)?;
                }
                outcome => {
                    ignore_missing(outcome)?;
                    branch.pop();
                }
            }
        }
        Ok(())
    }

    /// Takes everything out of a directory of an old tree but directories, which are noted.
    fn clear(&mut self, t: &mut Tables<'_>, level: &mut OldLevel, known: &Known) -> Outcome {
        for name in level.from.reserved_names()? {
            if is_private_name(&name) {
                ignore_missing(level.from.remove_tree(&name).map(drop))?;
            } else if let Some(was) = displaced_from(&name) {
                let path: Vec<Name> = level.path.iter().chain([&was]).cloned().collect();
                self.keeper.set_aside(&level.from, &name, &path)?;
            }
        }
        for (name, _) in whole_listing(&level.from)? {
            self.take_out(t, level, name, known)?;
        }
        Ok(())
    }

    /// Removes a name of an old tree, or brings what somebody else put there to where it is not lost.
    fn take_out(&mut self, t: &mut Tables<'_>, level: &mut OldLevel, name: Name, known: &Known) -> Outcome {
        // RACE: what somebody renames to this name between this look and the removal goes with it. They would have to be in the old
        // directory for that, which nobody finds by its name any more.
        let Some(stat) = level.from.stat(&name)? else {
            return Ok(());
        };
        if stat.file_type == FileType::Directory {
            level.waiting.push(name);
            return Ok(());
        }
        let entry = match level.object {
            Some(directory) => {
                let name = name.clone();
                self.occupant(t, &Place { directory, name })?
            }
            None => None,
        };
        let entry = entry.filter(|entry| entry.stamp == Some(stat.stamp.to_bytes()));
        let spot = level.spot.of(&name);
        // Written to where it stands, it stands elsewhere, too.
        let is_elsewhere = known.is_at(spot, &stat) && stat.links > 1;
        if known.has(spot, &stat) || is_elsewhere {
            ignore_missing(level.from.remove_file(&name))?;
        } else if !bring_over(level, &name, &stat, known)? {
            match kind_of(stat.file_type) {
                Some(_) => {
                    let path: Vec<Name> = level.path.iter().chain([&name]).cloned().collect();
                    self.keeper.set_aside(&level.from, &name, &path)?;
                }
                // Nobody waits at a socket whose name is another's by now.
                None => ignore_missing(level.from.remove_file(&name))?,
            }
        }
        // One name less, or another one, moves the ctime, and nothing else.
        let now = level.to.as_ref().map(|to| to.stat(&name)).transpose()?.flatten();
        if let (Some(mut entry), Some(now)) = (entry, now)
            && is_but_for_ctime(&stat.stamp, &now.stamp)
        {
            entry.stamp = Some(now.stamp.to_bytes());
            self.put_stamp(t, &entry)?;
        }
        Ok(())
    }

    /// A directory in one that is taken apart. None if it is gone, or was moved over as it is.
    fn enter_old(
        &mut self,
        t: &Tables<'_>,
        level: &OldLevel,
        name: Name,
        known: &Known,
    ) -> Result<Option<OldLevel>, ApplyError> {
        let inner = match level.from.open_dir_same_mount(&name) {
            Ok(inner) => Arc::new(inner),
            Err(error) if is_gone(&error) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let there = level.to.as_ref().map(|to| to.stat(&name)).transpose()?.flatten();
        if let (Some(to), None) = (&level.to, &there)
            && !known.is_at(level.spot.of(&name), &inner.stat_self()?)
            && move_over(&level.from, to, &name, RenameMode::NoReplace)?
        {
            return Ok(None);
        }
        let to = match (&level.to, there) {
            (Some(to), Some(there)) if there.file_type == FileType::Directory => {
                Some(Arc::new(to.open_dir_same_mount(&name)?))
            }
            _ => None,
        };
        Ok(Some(OldLevel {
            parent: level.from.clone(),
            from: inner,
            to,
            object: self.directory_at(t, level.object, name.clone())?,
            path: level.path.iter().chain([&name]).cloned().collect(),
            spot: level.spot.of(&name),
            name,
            waiting: Vec::new(),
            rounds: 0,
        }))
    }
}

/// Brings something of an old tree to the same name in the new one, if it has a place there. Whether it is in no need of another.
fn bring_over(level: &OldLevel, name: &Name, stat: &Stat, known: &Known) -> Result<bool, ApplyError> {
    let Some(to) = &level.to else { return Ok(false) };
    let spot = level.spot.of(name);
    let mode = match to.stat(name)? {
        Some(there) if there.stamp.same_object(&stat.stamp) => {
            ignore_missing(level.from.remove_file(name))?;
            return Ok(true);
        }
        // That is what this one was when it was looked at last.
        Some(there) if there.file_type != FileType::Directory && known.has(spot, &there) => {
            RenameMode::Replace
        }
        Some(_) => return Ok(false),
        // The mirror removed it from here.
        None if known.is_at(spot, stat) => return Ok(false),
        None => RenameMode::NoReplace,
    };
    move_over(&level.from, to, name, mode)
}

/// Moves a name to another directory, whose time stays. False if that name is taken, or this one free by now.
fn move_over(from: &Directory, to: &Directory, name: &Name, mode: RenameMode) -> Result<bool, ApplyError> {
    let mtime = to.stat_self()?.attributes.mtime;
    match from.rename(name, to, name, mode) {
        Err(error) if matches!(error.kind(), FsErrorKind::Exists | FsErrorKind::NotFound) => Ok(false),
        Err(error) => Err(error.into()),
        Ok(()) => {
            to.set_self_mtime(mtime)?;
            to.sync()?;
            Ok(true)
        }
    }
}

/// Whether one object was given a name or lost one, and nothing else. Its ctime tells no more than that.
pub(super) fn is_but_for_ctime(was: &Stamp, is: &Stamp) -> bool {
    *was == Stamp {
        ctime: was.ctime,
        ..*is
    }
}
