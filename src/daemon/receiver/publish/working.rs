//! The tree in which the next state of a name is made: as what stands there, with directories of its own.

use super::carry::is_but_for_ctime;
use super::*;
use crate::daemon::receiver::replica::{is_same_state, kind_of};
use crate::fs::{Applied, FsErrorKind, Metadata, RenameMode, Staged, is_private_name};
use crate::store::Entry;
use driftless_protocol::Carried;
use std::borrow::Cow;
use std::sync::Arc;

/// Two directories of the same content, by where they stand.
struct Pair {
    from: (Arc<Directory>, Name),
    to: (Arc<Directory>, Name),
    /// The number of the directory, if it has one.
    object: Option<ObjectId>,
    spot: Spot,
}

impl Replica {
    /// Makes at `aside` what stands at a place, and has the catalog describe that from then on.
    pub(super) fn make_working_tree(
        &mut self,
        t: &mut Tables<'_>,
        parent: &Arc<Directory>,
        (at, stat): (&Place, &Stat),
        aside: &Name,
        known: &mut Known,
    ) -> Outcome {
        let entry = self.occupant(t, at)?;
        match kind_of(stat.file_type) {
            None => return Ok(()),
            Some(Kind::Directory) => {}
            Some(_) => {
                let from = (&**parent, &at.name, stat);
                return self.share(t, from, (parent, aside), (entry, Spot::TOP), known);
            }
        }
        let mut made: Vec<(Entry, Stamp)> = Vec::new();
        let mut turns = vec![Pair {
            from: (parent.clone(), at.name.clone()),
            to: (parent.clone(), aside.clone()),
            object: entry.map(|entry| entry.object),
            spot: Spot::TOP,
        }];
        while let Some(turn) = turns.pop() {
            let Pair {
                from,
                to,
                object,
                spot,
            } = turn;
            // Opened when their turn comes: a level can have more directories than a process descriptors.
            let from = match from.0.open_dir_same_mount(&from.1) {
                Ok(from) => Arc::new(from),
                // Somebody removed it, or put something else there. That is looked at before the trees are exchanged.
                Err(error) if is_gone(&error) => continue,
                Err(error) => return Err(error.into()),
            };
            refuse_foreign_names(&from)?;
            let to = Arc::new(to.0.make_dir(&to.1)?);
            let was = copy_directory(&from, &to, self.can_carry())?;
            known.note(spot, &was);
            if let Some(entry) = object.map(|object| t.get(object)).transpose()?.flatten() {
                let stamp = entry.stamp.and_then(|known| Stamp::from_bytes(&known));
                if stamp.is_some_and(|stamp| !stamp.same_object(&was.stamp)) {
                    let text = format!("{} was replaced by another directory", from.shown());
                    return Err(ApplyError::mismatch(text));
                }
                made.push((entry, to.stat_self()?.stamp));
            }
            for (name, stat) in whole_listing(&from)? {
                let entry = match object {
                    Some(directory) => {
                        let name = name.clone();
                        self.occupant(t, &Place { directory, name })?
                    }
                    None => None,
                };
                match kind_of(stat.file_type) {
                    // It is moved over when the other tree is complete.
                    None => {}
                    Some(Kind::Directory) => turns.push(Pair {
                        spot: spot.of(&name),
                        from: (from.clone(), name.clone()),
                        to: (to.clone(), name),
                        object: entry
                            .filter(|entry| entry.kind == Kind::Directory)
                            .map(|entry| entry.object),
                    }),
                    Some(_) => {
                        let about = (entry, spot.of(&name));
                        self.share(t, (&from, &name, &stat), (&to, &name), about, known)?;
                    }
                }
            }
        }
        for (mut entry, stamp) in made {
            entry.stamp = Some(stamp.to_bytes());
            self.forget_handle(entry.object);
            // Their times are set, and they are flushed, with all others. Those without an entry are finished when what somebody
            // else did is carried over.
            self.touched.insert(entry.object);
            self.unsynced.insert(entry.object);
            self.put_stamp(t, &entry)?;
        }
        Ok(())
    }

    /// What had a second name for a moment is as it was, but for its ctime.
    pub(super) fn settle_stamps(&mut self, t: &mut Tables<'_>, key: &Key) -> Outcome {
        let mut turns: Vec<ObjectId> = t.lookup(key.0, &key.1)?.into_iter().collect();
        while let Some(directory) = turns.pop() {
            for mut entry in t.child_entries(directory)? {
                if entry.kind == Kind::Directory {
                    turns.push(entry.object);
                    continue;
                }
                let Some(was) = entry.stamp.and_then(|known| Stamp::from_bytes(&known)) else {
                    continue;
                };
                let parent = self.directory(t, directory)?;
                if let Some(now) = parent.stat(&entry.place.name)?
                    && now.stamp != was
                    && is_but_for_ctime(&was, &now.stamp)
                {
                    entry.stamp = Some(now.stamp.to_bytes());
                    self.put_stamp(t, &entry)?;
                }
            }
        }
        Ok(())
    }

    /// Gives what is no directory a second name. Where that cannot be, a copy does.
    fn share(
        &mut self,
        t: &mut Tables<'_>,
        (from, name, stat): (&Directory, &Name, &Stat),
        (to, new): (&Arc<Directory>, &Name),
        (entry, spot): (Option<Entry>, Spot),
        known: &mut Known,
    ) -> Outcome {
        let now = match from.hard_link(name, Some(&stat.stamp), to, new, RenameMode::NoReplace) {
            Ok(now) => now,
            // Somebody removed or replaced it since it was listed. What is there then is carried over.
            Err(error) if is_gone(&error) => return Ok(()),
            Err(error) => match self.copy_instead(error, (from, name, stat), (to, new), known)? {
                Some(copy) => copy,
                None => return Ok(()),
            },
        };
        known.note(spot, stat);
        known.note(spot, &now);
        // One more name moves the ctime, and nothing else: what was as it is known still is.
        if let Some(mut entry) = entry.filter(|entry| is_same_state(entry, stat)) {
            entry.stamp = Some(now.stamp.to_bytes());
            self.put_stamp(t, &entry)?;
        }
        Ok(())
    }

    /// Copies what could not have a second name, for whatever reason: there are file systems without, a file can have too many, and a
    /// process that is not root may not link everything (`fs.protected_hardlinks`). None for what is gone by now, and for what would
    /// belong to somebody else as a copy: that is moved over when the trees are exchanged.
    pub(super) fn copy_instead(
        &self,
        error: FsError,
        (from, name, stat): (&Directory, &Name, &Stat),
        (to, new): (&Arc<Directory>, &Name),
        known: &mut Known,
    ) -> Result<Option<Stat>, ApplyError> {
        if matches!(
            error.kind(),
            FsErrorKind::NoSpace | FsErrorKind::TooManyOpen | FsErrorKind::Busy
        ) {
            return Err(error.into());
        }
        let carried = self.can_carry();
        if !carried.owner && stat.attributes.uid != rustix::process::geteuid().as_raw() {
            return Ok(None);
        }
        match copy_object((from, name, stat), (to, new), carried) {
            Ok(copy) => {
                known.must_flush = true;
                Ok(Some(copy))
            }
            // It is not what it was: what it is when the trees are exchanged counts.
            Err(error) if is_gone(&error) || error.kind() == FsErrorKind::ShortBasis => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Notes all that stands at a name, and is to go as it is.
pub(super) fn note_all(parent: &Arc<Directory>, name: &Name, known: &mut Known) -> Outcome {
    let mut turns = vec![(parent.clone(), name.clone(), Spot::TOP)];
    while let Some((parent, name, spot)) = turns.pop() {
        let directory = match parent.open_dir_same_mount(&name) {
            Ok(directory) => Arc::new(directory),
            Err(error) if is_gone(&error) => continue,
            Err(error) => return Err(error.into()),
        };
        refuse_foreign_names(&directory)?;
        known.note(spot, &directory.stat_self()?);
        for (name, stat) in whole_listing(&directory)? {
            let spot = spot.of(&name);
            if stat.file_type == FileType::Directory {
                turns.push((directory.clone(), name, spot));
            } else {
                known.note(spot, &stat);
            }
        }
    }
    Ok(())
}

/// What is in a directory, all of it but what changed at this very moment.
pub(super) fn whole_listing(directory: &Directory) -> Result<Vec<(Name, Stat)>, FsError> {
    let listing = directory.list()?;
    match listing.problems.into_iter().find(|(_, error)| !is_gone(error)) {
        Some((_, error)) => Err(error),
        None => Ok(listing.entries),
    }
}

/// Whether a name led to nothing, or to something else than it just did.
pub(super) fn is_gone(error: &FsError) -> bool {
    matches!(error.kind(), FsErrorKind::NotFound | FsErrorKind::Substituted)
}

/// What is kept here under a name of ours, such as the trash of another module, would stay behind and go with the old tree.
fn refuse_foreign_names(directory: &Directory) -> Outcome {
    let names = directory.reserved_names()?;
    match names.iter().find(|name| !is_private_name(name)) {
        Some(name) => Err(ApplyError {
            kind: FailureKind::Unsupported,
            text: format!(
                "{} is a name that driftless keeps, perhaps for another module, inside of what is published at once (--publish): \
                 move it away, or let the pattern match something else",
                directory.shown_name(name)
            ),
        }),
        None => Ok(()),
    }
}

/// Gives a directory owner, mode and extended attributes of another, which it answers. Its times come last of all.
pub(super) fn copy_directory(from: &Directory, to: &Directory, carried: Carried) -> Result<Stat, ApplyError> {
    let stat = from.stat_self()?;
    let xattrs = from.self_xattrs(carried.xattrs)?.xattrs;
    let mut attributes = stat.attributes;
    // Something is going to be made in it.
    attributes.mode |= 0o700;
    let mut wanted = Metadata::plain(&attributes, carried);
    wanted.xattrs = Some(Cow::Borrowed(&xattrs));
    match to.set_self_metadata(&wanted)?.refused {
        Some((error, _)) => Err(error.into()),
        None => Ok(stat),
    }
}

/// Makes the same once more, unflushed. It replaces anything but a directory.
fn copy_object(
    (from, name, stat): (&Directory, &Name, &Stat),
    (to, new): (&Arc<Directory>, &Name),
    carried: Carried,
) -> Result<Stat, FsError> {
    let xattrs = from.xattrs(name, carried.xattrs)?.xattrs;
    let mut wanted = Metadata::plain(&stat.attributes, carried);
    wanted.xattrs = Some(Cow::Borrowed(&xattrs));
    let applied = match stat.file_type {
        FileType::Symlink => to.make_symlink(&from.read_link(name)?, new, &wanted)?,
        FileType::Special(special) => to.make_special(special, new, &wanted)?,
        _ => {
            let (basis, now) = from.open_file(name)?;
            let staged = Staged::create(to.clone())?;
            staged.copy_from(&basis, 0, 0, now.size)?;
            staged.set_len(now.size)?;
            let applied = staged.set_metadata(&wanted)?;
            let stat = staged.publish(new)?.stat;
            Applied { stat, ..applied }
        }
    };
    match applied.refused {
        Some((error, _)) => Err(error),
        None => Ok(applied.stat),
    }
}
