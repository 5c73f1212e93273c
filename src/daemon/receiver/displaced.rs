//! What loses its name on a replica, when that is not simply the end of it.
//!
//! With a policy (see [`Keeping`](crate::daemon::keeping::Keeping)) nothing is unlinked unseen. A replace is an exchange:
//! what it displaced has a name of its own then ([`displaced_name`]), is compared with what the catalog expects, and
//! goes where the policy says; if that fails, the exchange is undone, and the op failed. A removal first takes the name
//! away and does the same. So an edit is caught whenever it is made, not only if an earlier look would have seen it.
//!
//! After a crash the walk finds what has such a name ([`Recovery`]). Nothing is lost with it: if the name that it had is
//! free, it gets it back; if it is the mirror's own, the policy for old versions has it; anything else is set aside.

use super::apply::ignore_missing;
use super::keeper::{Keeper, shown};
use super::replica::{ApplyError, Replica, catalogue, cheap_digest, is_same_state, kind_of};
use super::staging::digest_of;
use crate::fs::{
    Directory, FileType, FsErrorKind, RenameMode, Staged, Stamp, Stat, displaced_from, displaced_name,
    is_private_name, parked_name, private_name,
};
use crate::store::{CatalogRead, Entry, Tables};
use driftless_protocol::message::{FailureKind, Place};
use driftless_protocol::{Digest, Kind, Name, ObjectId};
use std::sync::Arc;

type Outcome = Result<(), ApplyError>;

/// Size and digest of content that is to be put, or that is known.
pub type Content = (u64, Digest);

/// What stood at a name, and whether that is a local edit.
#[derive(Debug)]
pub struct Looked {
    /// What it was.
    pub stat: Option<Stat>,
    /// Whether it is what somebody else put there; known only where the policy asks.
    pub is_edit: bool,
}

impl Replica {
    /// A name for something that is to be exchanged with what stands at `name`, and is known as `occupant`.
    pub(super) fn aside_name(&self, name: &Name, occupant: Option<&Entry>) -> Name {
        let is_numbered = occupant.is_some_and(|entry| !entry.object.is_local());
        match self.keeper.is_needed() {
            true => displaced_name(name),
            false if is_numbered => parked_name(),
            false => private_name(),
        }
    }

    /// Looks at what stands at a name before it is replaced or removed. A local edit is an error if the policy refuses to
    /// touch it.
    pub(super) fn look(
        &mut self,
        t: &impl CatalogRead,
        parent: &Arc<Directory>,
        name: &Name,
        entry: Option<&Entry>,
        new: Option<Content>,
    ) -> Result<Looked, ApplyError> {
        let stat = parent.stat(name)?;
        let is_edit = match &stat {
            Some(stat) if self.keeper.judges() => self.is_edit(t, parent, name, stat, entry, new)?,
            _ => false,
        };
        if is_edit && self.keeper.refuses() {
            return Err(self.refused(parent, name));
        }
        Ok(Looked { stat, is_edit })
    }

    /// As [`Replica::look`] at a place, for a content that is not there yet.
    pub(super) fn look_ahead(
        &mut self,
        t: &impl CatalogRead,
        place: &Place,
        new: Option<Content>,
    ) -> Outcome {
        if !self.keeper.refuses() {
            return Ok(());
        }
        let parent = self.directory(t, place.directory)?;
        let entry = self.occupant(t, place)?;
        self.look(t, &parent, &place.name, entry.as_ref(), new)
            .map(|_| ())
    }

    /// Whether what stands at a name is neither what the mirror put there, by the catalog's `entry`, nor the `new`
    /// content. Of a directory it is what is in it that counts.
    fn is_edit(
        &mut self,
        t: &impl CatalogRead,
        parent: &Arc<Directory>,
        name: &Name,
        stat: &Stat,
        entry: Option<&Entry>,
        new: Option<Content>,
    ) -> Result<bool, ApplyError> {
        let kind = kind_of(stat.file_type);
        let ours = entry.filter(|entry| !entry.object.is_local() && Some(entry.kind) == kind);
        if kind == Some(Kind::Directory) {
            let known = entry.and_then(known_stamp);
            let object = entry.filter(|_| known.is_none_or(|known| known.same_object(&stat.stamp)));
            let inside = Arc::new(parent.open_dir(name)?);
            let found = self.find_edit(t, inside, object.map(|entry| entry.object))?;
            return Ok(found.is_some());
        }
        if ours.is_some_and(|entry| entry.digest.is_some() && is_same_state(entry, stat)) {
            return Ok(false);
        }
        let known = ours.and_then(|entry| Some((entry.size, entry.digest?)));
        let mut expected = [known, new].into_iter().flatten();
        if stat.file_type != FileType::Regular {
            let found = cheap_digest(parent, name, stat)?;
            return Ok(!expected.any(|(_, digest)| Some(digest) == found));
        }
        // Read only if it can be one of these.
        let expected: Vec<Digest> = expected
            .filter(|(size, _)| *size == stat.size)
            .map(|(_, digest)| digest)
            .collect();
        if expected.is_empty() {
            return Ok(true);
        }
        // What nobody can read may be anybody's: it is kept, and the mirror goes on.
        let unreadable = |error: &dyn std::fmt::Display| {
            let path = parent.shown_name(name);
            tracing::warn!(path, "counts as a local edit, since it cannot be read: {error}");
            true
        };
        let file = match parent.open_file(name) {
            Ok((file, _)) => file,
            Err(error) if error.kind() == FsErrorKind::Permission => return Ok(unreadable(&error)),
            Err(error) => return Err(error.into()),
        };
        match digest_of(&file) {
            Ok(found) => Ok(!expected.contains(&found)),
            Err(error) if is_of_the_disk(&error) => Ok(unreadable(&error)),
            Err(error) => Err(ApplyError {
                kind: FailureKind::Io,
                text: format!("cannot read {}: {error}", parent.shown_name(name)),
            }),
        }
    }

    /// A local edit below a directory, if there is any. `object` is its number, if it is one of the mirror's.
    fn find_edit(
        &mut self,
        t: &impl CatalogRead,
        top: Arc<Directory>,
        object: Option<ObjectId>,
    ) -> Result<Option<String>, ApplyError> {
        let mut waiting: Vec<(Arc<Directory>, Option<Name>, Option<ObjectId>)> = vec![(top, None, object)];
        while let Some((mut handle, below, object)) = waiting.pop() {
            if let Some(name) = below {
                handle = Arc::new(handle.open_dir(&name)?);
            }
            for (name, stat) in handle.list()?.entries {
                let entry = self.entry_at(t, object, &name)?;
                if stat.file_type == FileType::Directory {
                    let inner = entry.filter(|entry| entry.kind == Kind::Directory);
                    waiting.push((handle.clone(), Some(name), inner.map(|entry| entry.object)));
                } else if self.is_edit(t, &handle, &name, &stat, entry.as_ref(), None)? {
                    return Ok(Some(handle.shown_name(&name)));
                }
            }
        }
        Ok(None)
    }

    fn entry_at(
        &self,
        t: &impl CatalogRead,
        directory: Option<ObjectId>,
        name: &Name,
    ) -> Result<Option<Entry>, ApplyError> {
        let Some(directory) = directory else {
            return Ok(None);
        };
        self.occupant(
            t,
            &Place {
                directory,
                name: name.clone(),
            },
        )
    }

    /// Publishes a staged file over whatever stands at its place but for a directory: then `None`.
    pub(super) fn publish_over(
        &mut self,
        t: &mut Tables<'_>,
        parent: &Arc<Directory>,
        place: &Place,
        staged: Staged,
        occupant: Option<&Entry>,
        new: Content,
    ) -> Result<Option<Stat>, ApplyError> {
        let looked = self.look(t, parent, &place.name, occupant, Some(new))?;
        if is_directory(looked.stat.as_ref()) {
            return Ok(None);
        }
        let published = staged.publish_exchanging(&place.name)?;
        if let Some((aside, _)) = published.displaced {
            let settled = self.settle(t, parent, &aside, place, &looked, occupant, Some(new));
            settled.inspect_err(|_| discard_aside(parent, &aside, &published.stat))?;
        }
        Ok(Some(published.stat))
    }

    /// Puts what stands at `aside` in its place, and does what is right with what stood there. If that fails, everything
    /// is as it was.
    pub(super) fn swap_in(
        &mut self,
        t: &mut Tables<'_>,
        parent: &Arc<Directory>,
        aside: &Name,
        place: &Place,
        entry: Option<&Entry>,
        new: Option<Content>,
    ) -> Result<Stat, ApplyError> {
        let looked = self.look(t, parent, &place.name, entry, new)?;
        match parent.rename(aside, parent, &place.name, RenameMode::Exchange) {
            Ok(()) => {
                self.settle(t, parent, aside, place, &looked, entry, new)?;
            }
            Err(error) if error.kind() == FsErrorKind::NotFound => {
                parent.rename(aside, parent, &place.name, RenameMode::NoReplace)?;
            }
            Err(error) => return Err(error.into()),
        }
        self.fresh_stat(parent, &place.name)
    }

    /// After an exchange: what stood at `place` is at `aside`. On an error it is back, and what was to replace it is at
    /// `aside` again.
    #[expect(clippy::too_many_arguments, reason = "the facts of one exchange")]
    fn settle(
        &mut self,
        t: &mut Tables<'_>,
        parent: &Arc<Directory>,
        aside: &Name,
        place: &Place,
        looked: &Looked,
        entry: Option<&Entry>,
        new: Option<Content>,
    ) -> Outcome {
        let (there, installed) = (parent.stat(aside)?, parent.stat(&place.name)?);
        if let (Some(there), Some(installed)) = (&there, &installed)
            && there.stamp.same_object(&installed.stamp)
        {
            // Two names of one object: the kernel exchanges nothing.
            return Ok(parent.remove_private(aside)?);
        }
        let path = self.path_to(t, place)?;
        let outcome = self.part_with(t, parent, aside, looked, &path, entry, new);
        if outcome.is_err() {
            parent.rename(aside, parent, &place.name, RenameMode::Exchange)?;
        }
        outcome
    }

    /// The end of what stood at `path` and has the name `aside` now.
    #[expect(clippy::too_many_arguments, reason = "the facts of one object")]
    fn part_with(
        &mut self,
        t: &mut Tables<'_>,
        parent: &Arc<Directory>,
        aside: &Name,
        looked: &Looked,
        path: &[Name],
        entry: Option<&Entry>,
        new: Option<Content>,
    ) -> Outcome {
        let Some(now) = parent.stat(aside)? else {
            return Ok(());
        };
        if is_directory(Some(&now)) {
            return self.take_tree(t, parent, aside, path, entry.map(|entry| entry.object));
        }
        let mut is_edit = looked.is_edit;
        if self.keeper.judges()
            && !looked
                .stat
                .as_ref()
                .is_some_and(|before| is_unmoved(before, &now))
        {
            is_edit = self.is_edit(t, parent, aside, &now, entry, new)?;
        }
        match is_edit {
            true if self.keeper.refuses() => {
                let name = path.last().unwrap_or(aside);
                Err(self.refused(parent, name))
            }
            true => Ok(self.keeper.set_aside(parent, aside, path)?),
            false => Ok(self.keeper.put_away(parent, aside, path, false)?),
        }
    }

    /// Takes an object of the catalog from its place, with all in it, and forgets it.
    pub(super) fn take_object(
        &mut self,
        t: &mut Tables<'_>,
        parent: &Arc<Directory>,
        entry: &Entry,
    ) -> Outcome {
        let at = &entry.place.name;
        let mut path = self.path_to(t, &entry.place)?;
        if let (Some(was), Some(last)) = (displaced_from(at), path.last_mut()) {
            *last = was;
        }
        match parent.stat(at)? {
            Some(stat) if stat.file_type == FileType::Directory => {
                if self.must_stay(parent, at)? {
                    return Err(ApplyError::mismatch(format!(
                        "{} is a directory that holds something, and may not be removed",
                        parent.shown_name(at)
                    )));
                }
                let object = (entry.kind == Kind::Directory).then_some(entry.object);
                self.take_tree(t, parent, at, &path, object)?;
            }
            Some(_) => self.take_one(t, parent, at, &path, Some(entry))?,
            None => {}
        }
        self.drop_entry(t, entry.object)?;
        if !at.is_reserved() && parent.stat(at)?.is_some() {
            // Backups, or what somebody was quick to put there.
            catalogue(t, parent, &entry.place, &self.terms)?;
        }
        Ok(())
    }

    /// Takes an object from a place where it stood, after it was put elsewhere. A local edit that may not be touched is
    /// left, and is no object of the mirror any more.
    pub(super) fn leave(&mut self, t: &mut Tables<'_>, parent: &Arc<Directory>, old: &Entry) -> Outcome {
        match self.take_object(t, parent, old) {
            Err(error) if error.kind == FailureKind::Refused => {
                self.drop_entry(t, old.object)?;
                catalogue(t, parent, &old.place, &self.terms)
            }
            outcome => outcome,
        }
    }

    /// Takes something that is no directory from its place.
    fn take_one(
        &mut self,
        t: &mut Tables<'_>,
        parent: &Arc<Directory>,
        at: &Name,
        path: &[Name],
        entry: Option<&Entry>,
    ) -> Outcome {
        let looked = self.look(t, parent, at, entry, None)?;
        if displaced_from(at).is_some() {
            return self.part_with(t, parent, at, &looked, path, entry, None);
        }
        let aside = displaced_name(at);
        match parent.rename(at, parent, &aside, RenameMode::NoReplace) {
            Err(error) if error.kind() == FsErrorKind::NotFound => return Ok(()),
            moved => moved?,
        }
        let outcome = self.part_with(t, parent, &aside, &looked, path, entry, None);
        if outcome.is_err() {
            let _ = parent.rename(&aside, parent, at, RenameMode::NoReplace);
        }
        outcome
    }

    /// Takes a directory from its place: as it is if all of it may go the same way, piece by piece otherwise.
    fn take_tree(
        &mut self,
        t: &mut Tables<'_>,
        parent: &Arc<Directory>,
        at: &Name,
        path: &[Name],
        object: Option<ObjectId>,
    ) -> Outcome {
        let mut has_edits = false;
        if self.keeper.judges() {
            let inside = Arc::new(parent.open_dir_same_mount(at)?);
            let found = self.find_edit(t, inside, object)?;
            if let Some(found) = found.as_ref().filter(|_| self.keeper.refuses()) {
                return Err(self.refused_below(found));
            }
            has_edits = found.is_some();
        }
        if self.keeper.takes_trees() && !has_edits && parent.is_whole(at)? {
            return Ok(self.keeper.put_away(parent, at, path, true)?);
        }
        self.dismantle(t, parent, at, path, object)
    }

    /// Takes everything in a directory from its place, deepest first, and then the directory. Backups that stand beside
    /// their files keep it.
    fn dismantle(
        &mut self,
        t: &mut Tables<'_>,
        parent: &Arc<Directory>,
        at: &Name,
        path: &[Name],
        object: Option<ObjectId>,
    ) -> Outcome {
        let mut first = None;
        let mut branch = vec![self.enter(t, parent, at.clone(), path.to_vec(), object, &mut first)?];
        while let Some(level) = branch.last_mut() {
            if let Some((name, object)) = level.waiting.pop() {
                let (handle, mut path) = (level.handle.clone(), level.path.clone());
                path.push(name.clone());
                match self.enter(t, &handle, name, path, object, &mut first) {
                    Ok(level) => branch.push(level),
                    Err(error) => _ = first.get_or_insert(error),
                }
                continue;
            }
            let Some(done) = branch.pop() else { break };
            let may_stay = self.keeper.leaves_backups_beside();
            match done.parent.remove_dir(&done.name) {
                Err(error) if error.kind() == FsErrorKind::NotEmpty && may_stay => {}
                outcome => {
                    if let Err(error) = ignore_missing(outcome) {
                        first.get_or_insert(error.into());
                    }
                }
            }
        }
        first.map_or(Ok(()), Err)
    }

    /// Opens a directory, takes away what is no directory in it, and lists the rest.
    fn enter(
        &mut self,
        t: &mut Tables<'_>,
        parent: &Arc<Directory>,
        name: Name,
        path: Vec<Name>,
        object: Option<ObjectId>,
        first: &mut Option<ApplyError>,
    ) -> Result<Level, ApplyError> {
        let handle = Arc::new(parent.open_dir_same_mount(&name)?);
        let mut waiting = Vec::new();
        let mut note = |outcome: Outcome| {
            if let Err(error) = outcome {
                first.get_or_insert(error);
            }
        };
        for name in handle.reserved_names()? {
            if is_private_name(&name) {
                note(handle.remove_tree(&name).map(|_| ()).map_err(ApplyError::from));
            } else if let Some(was) = displaced_from(&name) {
                let entry = self.entry_at(t, object, &name)?;
                let mut path = path.clone();
                path.push(was);
                let stat = handle.stat(&name)?;
                note(match is_directory(stat.as_ref()) {
                    true => self.take_tree(t, &handle, &name, &path, entry.map(|entry| entry.object)),
                    false => self.take_one(t, &handle, &name, &path, entry.as_ref()),
                });
            }
        }
        let listing = handle.list()?;
        note(
            listing
                .problems
                .into_iter()
                .next()
                .map_or(Ok(()), |(_, error)| Err(error.into())),
        );
        for (name, stat) in listing.entries {
            let entry = self.entry_at(t, object, &name)?;
            if stat.file_type == FileType::Directory {
                let inner = entry.filter(|entry| entry.kind == Kind::Directory);
                waiting.push((name, inner.map(|entry| entry.object)));
            } else if !(entry.is_none() && self.keeper.is_backup_name(&name)) {
                let mut path = path.clone();
                path.push(name.clone());
                note(self.take_one(t, &handle, &name, &path, entry.as_ref()));
            }
        }
        Ok(Level {
            parent: parent.clone(),
            name,
            handle,
            path,
            waiting,
        })
    }

    /// The path of a place, from the root.
    fn path_to(&self, t: &impl CatalogRead, place: &Place) -> Result<Vec<Name>, ApplyError> {
        let above = t.path_of(place.directory)?;
        let mut path = above.ok_or_else(|| {
            ApplyError::mismatch(format!("there is no directory of number {}", place.directory.0))
        })?;
        path.push(place.name.clone());
        Ok(path)
    }

    pub(super) fn refused(&self, parent: &Directory, name: &Name) -> ApplyError {
        self.refused_below(&parent.shown_name(name))
    }

    fn refused_below(&self, path: &str) -> ApplyError {
        self.keeper.count_refused();
        ApplyError {
            kind: FailureKind::Refused,
            text: format!(
                "{path} was changed or made on the target by somebody else, and its receiver keeps such things (--drift \
                 refuse): move it away there, or start the receiver with --drift keep or --drift overwrite"
            ),
        }
    }
}

/// A directory on the branch that is being dismantled.
struct Level {
    parent: Arc<Directory>,
    name: Name,
    handle: Arc<Directory>,
    path: Vec<Name>,
    /// Directories in it, with their numbers if they are the mirror's.
    waiting: Vec<(Name, Option<ObjectId>)>,
}

/// What a crash left under a displaced name, found by the walk.
#[derive(Debug)]
pub struct Recovery<'a> {
    /// Its directory.
    pub directory: &'a Directory,
    /// The number of its directory.
    pub object: ObjectId,
    /// The name that it has.
    pub aside: &'a Name,
}

impl Recovery<'_> {
    /// Deals with it. `is_intended` says whether a content was about to be committed.
    pub fn run(
        &self,
        t: &impl CatalogRead,
        keeper: &mut Keeper,
        is_intended: impl Fn(&Digest) -> bool,
    ) -> Result<(), ApplyError> {
        let Recovery {
            directory,
            object,
            aside,
        } = *self;
        let (Some(stat), Some(was)) = (directory.stat(aside)?, displaced_from(aside)) else {
            return Ok(());
        };
        let is_dir = stat.file_type == FileType::Directory;
        let Some(there) = directory.stat(&was)? else {
            // It was to be removed, or to be moved here; whichever, it has not happened.
            return Ok(directory.rename(aside, directory, &was, RenameMode::NoReplace)?);
        };
        let mut path = t.path_of(object)?.unwrap_or_default();
        path.push(was.clone());
        tracing::info!(path = shown(&path), "an exchange that a crash cut off is ended");
        // It may have stood anywhere. The whole catalog is read for it: a crash leaves few of these.
        let mut is_ours = false;
        t.for_each(&mut |entry: Entry| {
            is_ours |= !entry.object.is_local()
                && known_stamp(&entry).is_some_and(|known| {
                    known.same_object(&stat.stamp)
                        && (is_dir || (known.mtime, known.size) == (stat.stamp.mtime, stat.stamp.size))
                });
            Ok(())
        })?;
        if !is_ours
            && stat.file_type == FileType::Regular
            && let Ok((file, _)) = directory.open_file(aside)
            && digest_of(&file).is_ok_and(|found| is_intended(&found))
        {
            let place = Place {
                directory: object,
                name: was,
            };
            let known = t.lookup(place.directory, &place.name)?;
            let known = known.map(|object| t.get(object)).transpose()?.flatten();
            let is_unneeded = known.is_some_and(|known| is_same_state(&known, &there));
            return match is_unneeded {
                // It was to take the place of what is there still.
                true => Ok(directory.remove_file(aside)?),
                // It had its place since the catalog was last stored, as likely as not.
                false => Ok(keeper.put_away(directory, aside, &path, is_dir)?),
            };
        }
        // In a directory that is the mirror's there can be edits.
        if is_ours && !(is_dir && keeper.judges()) || !keeper.judges() && keeper.takes_trees() {
            return Ok(keeper.put_away(directory, aside, &path, is_dir)?);
        }
        Ok(keeper.set_aside(directory, aside, &path)?)
    }
}

/// Removes what was made aside and is of no use, if it is still that.
pub fn discard_aside(parent: &Directory, aside: &Name, made: &Stat) {
    let found = parent.stat(aside).ok().flatten();
    if found.is_some_and(|found| found.stamp.same_object(&made.stamp)) {
        // What stays is noted.
        let _ = parent.remove_private(aside);
    }
}

/// Whether a content cannot be read at all, and not just at this moment.
fn is_of_the_disk(error: &std::io::Error) -> bool {
    let io = rustix::io::Errno::IO.raw_os_error();
    error.raw_os_error() == Some(io) || error.kind() == std::io::ErrorKind::PermissionDenied
}

fn known_stamp(entry: &Entry) -> Option<Stamp> {
    entry.stamp.and_then(|known| Stamp::from_bytes(&known))
}

fn is_directory(stat: Option<&Stat>) -> bool {
    stat.is_some_and(|stat| stat.file_type == FileType::Directory)
}

/// Whether nobody wrote to something between two looks, although it was renamed, which moves its ctime.
pub fn is_unmoved(before: &Stat, after: &Stat) -> bool {
    before.file_type == after.file_type
        && before.stamp.same_object(&after.stamp)
        && (before.stamp.mtime, before.stamp.size) == (after.stamp.mtime, after.stamp.size)
}
