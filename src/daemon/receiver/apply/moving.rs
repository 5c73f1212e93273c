//! Moves and removals.

use super::*;

impl Replica {
    /// Moves an object to a place. `comes` says which object will be moved to a place by an op that is known already: two
    /// that change places are exchanged, so that neither name is absent for a moment.
    pub fn move_object(
        &mut self,
        t: &mut Tables<'_>,
        object: ObjectId,
        to: Place,
        comes: impl FnOnce(&Place) -> Option<ObjectId>,
    ) -> Outcome {
        let mut entry = self.known(t, object)?;
        if entry.place == to {
            return Ok(());
        }
        let from_dir = self.writable_directory(t, entry.place.directory)?;
        let before = self.fresh_stat(&from_dir, &entry.place.name)?;
        doubt(&mut entry, &before);
        let to_dir = self.writable_directory(t, to.directory)?;
        if from_dir.stat_self()?.stamp.device != to_dir.stat_self()?.stamp.device {
            return self.leave_behind(t, &entry, &from_dir);
        }
        if entry.kind == Kind::Directory && entry.place.directory != to.directory && !self.terms.carried.owner
        {
            // To write its `..` takes permission, too.
            self.writable_directory(t, object)?;
        }
        let occupant = self.occupant(t, &to)?;
        if self.keeper.refuses() && occupant.is_some() {
            self.look(t, &to_dir, &to.name, occupant.as_ref(), None)?;
        }
        match occupant {
            None => match from_dir.rename(&entry.place.name, &to_dir, &to.name, RenameMode::NoReplace) {
                Err(error) if error.kind() == FsErrorKind::Exists => return self.admit(t, &to_dir, &to),
                // One file system, but mounted twice.
                Err(error) if error.kind() == FsErrorKind::CrossDevice => {
                    return self.leave_behind(t, &entry, &from_dir);
                }
                outcome => outcome?,
            },
            Some(other)
                if !self.keeper.is_needed()
                    && other.object.is_local()
                    && other.kind != Kind::Directory
                    && entry.kind != Kind::Directory =>
            {
                from_dir.rename(&entry.place.name, &to_dir, &to.name, RenameMode::Replace)?;
                self.drop_entry(t, other.object)?;
            }
            Some(other) => {
                let stays = self.must_stay(&to_dir, &to.name)?
                    || (!other.object.is_local() && comes(&entry.place) == Some(other.object));
                let is_tree = entry.kind == Kind::Directory && !self.keeper.is_needed();
                if (stays || is_tree)
                    && self.trade_places(t, &entry, &other, (&from_dir, &to_dir), &to, stays)?
                {
                    return Ok(());
                }
                let aside = match entry.kind {
                    // What moves may hold something, too.
                    Kind::Directory if !self.keeper.is_needed() => parked_name(),
                    _ => self.aside_name(&to.name, Some(&other)),
                };
                from_dir.rename(&entry.place.name, &to_dir, &aside, RenameMode::NoReplace)?;
                let aside_place = Place {
                    directory: to.directory,
                    name: aside.clone(),
                };
                let from = std::mem::replace(&mut entry.place, aside_place);
                self.put(t, &entry)?;
                if let Err(error) = self.install(t, &to_dir, &aside, &to, Some(&other)) {
                    // Back to where it was: nobody would look for it under that name.
                    let is_there = t.lookup(to.directory, &aside)? == Some(object);
                    let back = || to_dir.rename(&aside, &from_dir, &from.name, RenameMode::NoReplace);
                    if is_there && back().is_ok() {
                        entry.place = from;
                        self.put(t, &entry)?;
                    }
                    return Err(error);
                }
            }
        }
        entry.place = to;
        entry.stamp = Some(self.fresh_stat(&to_dir, &entry.place.name)?.stamp.to_bytes());
        Ok(self.put(t, &entry)?)
    }

    /// Moves an object to the place of another, and that to where the object stood, in one step: a tree that moves is never absent, nor under
    /// a private name after a crash. If the other one does not stay there, it is parked, or
    /// removed if nothing will come for it. Answers false where that can't be done in one step, and may be done in several.
    fn trade_places(
        &mut self,
        t: &mut Tables<'_>,
        entry: &Entry,
        other: &Entry,
        (from_dir, to_dir): (&Arc<Directory>, &Arc<Directory>),
        to: &Place,
        stays: bool,
    ) -> Result<bool, ApplyError> {
        if stays && other.object.is_local() {
            return Err(ApplyError::mismatch(format!(
                "{}/{} is a directory that holds something, and may not be replaced",
                to_dir.shown(),
                to.name
            )));
        }
        let from = &entry.place;
        let Some(before) = to_dir.stat(&to.name)? else {
            return Ok(false);
        };
        if other.kind == Kind::Directory && from.directory != to.directory && !self.terms.carried.owner {
            // To write its `..` takes permission, too. Without it the other one can still be parked.
            let writable = self.writable_directory(t, other.object);
            if stays {
                writable?;
            }
        }
        let may_park = [FsErrorKind::Unsupported, FsErrorKind::Permission];
        match from_dir.rename(&from.name, to_dir, &to.name, RenameMode::Exchange) {
            Err(error) if !stays && may_park.contains(&error.kind()) => return Ok(false),
            outcome => outcome?,
        }
        // One name can't be two objects', not even for a moment.
        let (mut entry, mut other) = (entry.clone(), other.clone());
        other.place = Place {
            directory: from.directory,
            name: private_name(),
        };
        self.put(t, &other)?;
        let from = std::mem::replace(&mut entry.place, to.clone());
        entry.stamp = Some(self.fresh_stat(to_dir, &to.name)?.stamp.to_bytes());
        self.put(t, &entry)?;
        let Some(left) = from_dir.stat(&from.name)? else {
            self.drop_entry(t, other.object)?;
            return Ok(true);
        };
        // Its ctime has moved with its name.
        let unmoved = Some(before).filter(|before| is_unmoved(before, &left));
        doubt(&mut other, &unmoved.unwrap_or(left));
        other.stamp = Some(left.stamp.to_bytes());
        other.place = from;
        self.put(t, &other)?;
        if !stays {
            self.clear_traded(t, &other, &left, (from_dir, to_dir), to)?;
        }
        Ok(true)
    }

    /// What was exchanged with a directory that moved to its place is not to be seen where that came from. If it cannot be helped, its
    /// own op finds it there, or a comparison.
    fn clear_traded(
        &mut self,
        t: &mut Tables<'_>,
        other: &Entry,
        stat: &Stat,
        (from_dir, to_dir): (&Arc<Directory>, &Arc<Directory>),
        to: &Place,
    ) -> Outcome {
        if other.object.is_local() {
            let removed = self.remove(t, other.object);
            if removed.is_err() {
                // It is in no sum, and is where it never was.
                self.note_stranger(t)?;
            }
            return removed;
        }
        // Not in a directory that may go before its own op comes.
        let aside = parked_name();
        if from_dir
            .rename(&other.place.name, to_dir, &aside, RenameMode::NoReplace)
            .is_err()
        {
            return Ok(());
        }
        let mut parked = other.clone();
        parked.place.directory = to.directory;
        self.note_parked(t, to_dir, &aside, &parked, Some(*stat))
    }

    /// Removes an object with everything below it, wherever it stands: numbers are never used again, so an object that
    /// the sender removes has no other place to be.
    pub fn remove(&mut self, t: &mut Tables<'_>, object: ObjectId) -> Outcome {
        self.drop_kept(t, object);
        let Some(entry) = t.get(object)? else {
            return Ok(());
        };
        if object == ObjectId::ROOT {
            return Err(ApplyError::mismatch("the root of a mirror is never removed"));
        }
        // Another object may have taken the name of one that somebody removed from the disk.
        if t.lookup(entry.place.directory, &entry.place.name)? != Some(object) {
            return Ok(self.drop_entry(t, object)?);
        }
        if entry.kind == Kind::Directory {
            self.drop_below(t, object)?;
        }
        let parent = self.writable_directory(t, entry.place.directory)?;
        if self.keeper.is_needed() && !(entry.kind == Kind::Directory && self.protects) {
            return self.take_object(t, &parent, &entry);
        }
        let outcome = match entry.kind {
            Kind::Directory if self.protects => return self.remove_empty(t, &parent, &entry),
            Kind::Directory => parent.remove_tree(&entry.place.name).map(|_| ()),
            _ => parent.remove_file(&entry.place.name),
        };
        match outcome {
            Err(error) if error.kind() != FsErrorKind::NotFound => Err(error.into()),
            _ => Ok(self.drop_entry(t, object)?),
        }
    }

    /// Whether a directory stands at a name that holds what a filter may protect.
    pub(in super::super) fn must_stay(&self, parent: &Directory, name: &Name) -> Result<bool, ApplyError> {
        if !self.protects {
            return Ok(false);
        }
        match parent.stat(name)? {
            Some(stat) if stat.file_type == FileType::Directory => {
                let listing = parent.open_dir(name)?.list()?;
                Ok(!(listing.entries.is_empty() && listing.problems.is_empty()))
            }
            _ => Ok(false),
        }
    }

    /// Removes a directory in which nothing is left. What turns up in it is catalogued, for the sender to judge.
    fn remove_empty(&mut self, t: &mut Tables<'_>, parent: &Arc<Directory>, entry: &Entry) -> Outcome {
        let name = &entry.place.name;
        // Files on their way to a directory that goes do not keep it.
        self.drop_kept_in(t, entry.object);
        match parent.remove_dir(name) {
            Err(error) if error.kind() == FsErrorKind::NotEmpty => {}
            Err(error) if error.kind() != FsErrorKind::NotFound => return Err(error.into()),
            _ => return Ok(self.drop_entry(t, entry.object)?),
        }
        let inner = Arc::new(parent.open_dir(name)?);
        let mut is_listed = false;
        for (name, stat) in inner.list()?.entries {
            let place = Place {
                directory: entry.object,
                name,
            };
            is_listed |= kind_of(stat.file_type).is_some();
            if t.lookup(entry.object, &place.name)?.is_none() {
                catalogue(t, &inner, &place, &self.terms)?;
            }
        }
        let kind = match is_listed {
            true => FailureKind::Mismatch,
            false => FailureKind::Unsupported,
        };
        let text = format!("{} holds something that is not part of the mirror", inner.shown());
        Err(ApplyError { kind, text })
    }

    /// Nothing can be moved to another file system. The catalog takes what is there for a stranger, and the op fails, so that
    /// the sender compares again: it puts the object where it is now, and removes the stranger.
    fn leave_behind(&mut self, t: &mut Tables<'_>, entry: &Entry, parent: &Arc<Directory>) -> Outcome {
        let mut place = entry.place.clone();
        if is_parked_name(&place.name) {
            // Nobody would see it.
            place.name = unpark_in(parent, &place.name)?;
        }
        self.drop_entry(t, entry.object)?;
        catalogue(t, parent, &place, &self.terms)?;
        Err(ApplyError::mismatch(format!(
            "{}/{} cannot be moved to another file system: it is sent anew",
            parent.shown(),
            place.name
        )))
    }

    /// Removes what was displaced and whose own op will not come any more: each of them, whatever becomes of the others, since nobody
    /// else is going to. A directory that holds something gets a name that a listing shows: what the target keeps in it is for the
    /// sender to judge.
    pub fn remove_parked(&mut self, t: &mut Tables<'_>) -> Outcome {
        let mut outcome = Ok(());
        for object in std::mem::take(&mut self.parked) {
            let Some(entry) = t.get(object)?.filter(|entry| entry.place.name.is_reserved()) else {
                continue;
            };
            outcome = outcome.and(match self.unpark(t, &entry) {
                Ok(false) => self.remove(t, object),
                unparked => unparked.map(drop),
            });
        }
        outcome
    }

    /// Gives a parked directory a name that anybody sees. False for what is none, and if nothing is in it: that may be removed.
    pub(super) fn unpark(&mut self, t: &mut Tables<'_>, parked: &Entry) -> Result<bool, ApplyError> {
        // Another object may have taken the name of one that somebody removed from the disk. What a policy keeps has its name in another.
        let is_known = t.lookup(parked.place.directory, &parked.place.name)? == Some(parked.object);
        if parked.kind != Kind::Directory || !is_known || !is_parked_name(&parked.place.name) {
            return Ok(false);
        }
        let parent = self.writable_directory(t, parked.place.directory)?;
        match parent.remove_dir(&parked.place.name) {
            Err(error) if error.kind() == FsErrorKind::NotEmpty => {}
            outcome => {
                ignore_missing(outcome)?;
                return Ok(false);
            }
        }
        let mut entry = parked.clone();
        entry.place.name = unpark_in(&parent, &parked.place.name)?;
        if let (Some(stat), Some(known)) = (
            parent.stat(&entry.place.name)?,
            parked.stamp.and_then(|known| Stamp::from_bytes(&known)),
        ) && known.same_object(&stat.stamp)
        {
            entry.stamp = Some(stat.stamp.to_bytes());
        }
        self.put(t, &entry)?;
        if entry.object.is_local() {
            // No sum tells of it.
            self.note_stranger(t)?;
        }
        Ok(true)
    }
}

/// Gives a parked directory a name that anybody sees, and answers it.
pub(in super::super) fn unpark_in(parent: &Directory, parked: &Name) -> Result<Name, FsError> {
    let name = unparked_name();
    parent.rename(parked, parent, &name, RenameMode::NoReplace)?;
    tracing::info!(
        path = parent.shown_name(&name),
        "a directory that made room for another is here until the sender has compared"
    );
    Ok(name)
}

pub(in super::super) fn ignore_missing(outcome: Result<(), FsError>) -> Result<(), FsError> {
    match outcome {
        Err(error) if error.kind() != FsErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
