//! The tree in which the next state of a name is made: as what stands there, with directories of its own.

use super::*;
use crate::daemon::receiver::replica::{is_same_state, kind_of};
use crate::fs::{Directory, FsErrorKind, Metadata, RenameMode, Staged};
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
                return self.share(t, from, (parent, aside), entry, known);
            }
        }
        let mut made: Vec<(Entry, Stamp)> = Vec::new();
        let mut turns = vec![Pair {
            from: (parent.clone(), at.name.clone()),
            to: (parent.clone(), aside.clone()),
            object: entry.map(|entry| entry.object),
        }];
        while let Some(Pair { from, to, object }) = turns.pop() {
            // Opened when their turn comes: a level can have more directories than a process descriptors.
            let from = Arc::new(from.0.open_dir_same_mount(&from.1)?);
            let to = Arc::new(to.0.make_dir(&to.1)?);
            let was = copy_directory(&from, &to, self.can_carry())?;
            known.note(&was);
            if let Some(entry) = object.map(|object| t.get(object)).transpose()?.flatten() {
                let stamp = entry.stamp.and_then(|known| Stamp::from_bytes(&known));
                if stamp.is_some_and(|stamp| !stamp.same_object(&was.stamp)) {
                    let text = format!("{} was replaced by another directory", from.shown());
                    return Err(ApplyError::mismatch(text));
                }
                made.push((entry, to.stat_self()?.stamp));
            }
            let listing = from.list()?;
            if let Some((_, error)) = listing.problems.into_iter().next() {
                return Err(error.into());
            }
            for (name, stat) in listing.entries {
                let entry = match object {
                    Some(directory) => {
                        let name = name.clone();
                        self.occupant(t, &Place { directory, name })?
                    }
                    None => None,
                };
                match kind_of(stat.file_type) {
                    // It is carried over when the other tree is complete.
                    None => {}
                    Some(Kind::Directory) => turns.push(Pair {
                        from: (from.clone(), name.clone()),
                        to: (to.clone(), name),
                        object: entry
                            .filter(|entry| entry.kind == Kind::Directory)
                            .map(|entry| entry.object),
                    }),
                    Some(_) => self.share(t, (&from, &name, &stat), (&to, &name), entry, known)?,
                }
            }
        }
        for (mut entry, stamp) in made {
            entry.stamp = Some(stamp.to_bytes());
            self.forget_handle(entry.object);
            // Their times are set, and they are flushed, with all others.
            self.touched.insert(entry.object);
            self.unsynced.insert(entry.object);
            self.put_stamp(t, &entry)?;
        }
        Ok(())
    }

    /// Gives what is no directory a second name. Where that cannot be, a copy of a file does.
    fn share(
        &mut self,
        t: &mut Tables<'_>,
        (from, name, stat): (&Directory, &Name, &Stat),
        (to, new): (&Arc<Directory>, &Name),
        entry: Option<Entry>,
        known: &mut Known,
    ) -> Outcome {
        known.note(stat);
        let linked = from.hard_link(name, Some(&stat.stamp), to, new, RenameMode::NoReplace);
        let now = match linked {
            Ok(now) => now,
            Err(error) if error.kind() == FsErrorKind::NotFound => return Ok(()),
            Err(error) => match stat.file_type {
                FileType::Regular if error.kind() != FsErrorKind::NoSpace => {
                    copy_file((from, name), (to, new), self.can_carry())?
                }
                _ => return Err(error.into()),
            },
        };
        // One more name moves the ctime, and nothing else: what was as it is known still is.
        if let Some(mut entry) = entry.filter(|entry| is_same_state(entry, stat)) {
            entry.stamp = Some(now.stamp.to_bytes());
            self.put_stamp(t, &entry)?;
        }
        Ok(())
    }
}

/// Notes all that stands at a name, and is to go as it is.
pub(super) fn note_all(parent: &Arc<Directory>, name: &Name, known: &mut Known) -> Outcome {
    let mut turns = vec![(parent.clone(), name.clone())];
    while let Some((parent, name)) = turns.pop() {
        let directory = Arc::new(parent.open_dir_same_mount(&name)?);
        for (name, stat) in directory.list()?.entries {
            known.note(&stat);
            if stat.file_type == FileType::Directory {
                turns.push((directory.clone(), name));
            }
        }
    }
    Ok(())
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

fn copy_file(
    (from, name): (&Directory, &Name),
    (to, new): (&Arc<Directory>, &Name),
    carried: Carried,
) -> Result<Stat, ApplyError> {
    let (basis, stat) = from.open_file(name)?;
    let xattrs = from.xattrs(name, carried.xattrs)?.xattrs;
    let staged = Staged::create(to.clone())?;
    staged.copy_from(&basis, 0, 0, stat.size)?;
    staged.set_len(stat.size)?;
    let mut wanted = Metadata::plain(&stat.attributes, carried);
    wanted.xattrs = Some(Cow::Borrowed(&xattrs));
    if let Some((error, _)) = staged.set_metadata(&wanted)?.refused {
        return Err(error.into());
    }
    staged.sync()?;
    Ok(staged.publish(new)?.stat)
}
