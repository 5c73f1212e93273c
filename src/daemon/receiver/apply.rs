//! Carrying out single ops on a replica.
//!
//! Every deed changes the disk first and the catalog after it. A path that is replaced is, at every moment, its old
//! or its new self: files by rename, everything else by exchange. What stood in the way and has a number of its own
//! is *parked* under a private name, because its own op (a move or a removal) is still to come.

use super::displaced::{discard_aside, is_unmoved};
use super::inplace::Written;
use super::replica::{ApplyError, Replica, cheap_digest, is_same_state, kind_of, local_entry};
use crate::fs::{
    Applied, Directory, FileType, FsError, FsErrorKind, Metadata, RenameMode, Staged, Stamp, Stat,
    private_name,
};
use crate::store::{CatalogRead, Entry, Tables};
use driftless_protocol::message::{FailureKind, Place};
use driftless_protocol::{Attributes, Digest, EntrySum, Kind, Name, ObjectId, Special, Xattrs};
use std::sync::Arc;

type Outcome = Result<(), ApplyError>;

/// A file whose content is complete, verified, and has its attributes; only its name is missing.
#[derive(Debug)]
pub struct StagedFile {
    /// The file.
    pub staged: Staged,
    /// Its size in bytes.
    pub size: u64,
    /// BLAKE3 of its content.
    pub digest: Digest,
    /// The attributes it was given.
    pub attributes: Attributes,
    /// Why it has other extended attributes than it should.
    pub refused: Option<ApplyError>,
    /// Whether its content is on stable storage already.
    pub is_flushed: bool,
}

/// What the catalog is to have of an object that was given attributes: those that were wanted (a time that the file
/// system stores more coarsely is still the one that was carried), unless something was refused; then those that it has.
pub fn settled(wanted: Attributes, applied: Applied) -> (Attributes, Option<ApplyError>) {
    match applied.refused {
        None => (wanted, None),
        Some((error, xattrs)) => {
            let attributes = Attributes {
                mode: applied.stat.attributes.mode,
                xattrs,
                ..wanted
            };
            (attributes, Some(error.into()))
        }
    }
}

/// What was done ends well, or with what was refused.
fn ended(refused: Option<ApplyError>) -> Outcome {
    refused.map_or(Ok(()), Err)
}

/// A file to copy.
#[derive(Debug)]
pub struct CopySource {
    directory: Arc<Directory>,
    /// What it must be.
    entry: Entry,
}

impl CopySource {
    /// Opens it, if nobody changed it.
    pub fn open(&self) -> Result<std::fs::File, ApplyError> {
        let changed = |text: String| ApplyError {
            kind: FailureKind::Basis,
            text,
        };
        let (file, stat) = self
            .directory
            .open_file(&self.entry.place.name)
            .map_err(|error| changed(error.to_string()))?;
        if !is_same_state(&self.entry, &stat) {
            return Err(changed(format!(
                "{} was changed by somebody else",
                self.entry.place.name
            )));
        }
        Ok(file)
    }
}

impl Replica {
    /// Makes a directory, or adopts, moves and adjusts the one that is there.
    pub fn make_directory(
        &mut self,
        t: &mut Tables<'_>,
        place: Place,
        object: ObjectId,
        attributes: Attributes,
        xattrs: &Xattrs,
    ) -> Outcome {
        if object == ObjectId::ROOT {
            return self.set_attributes(t, object, attributes, xattrs);
        }
        if t.get(object)?.is_some_and(|entry| entry.kind == Kind::Directory) {
            self.move_object(t, object, place, |_| None)?;
            return self.set_attributes(t, object, attributes, xattrs);
        }
        check_kind(t, object, Kind::Directory)?;
        let occupant = self.occupant(t, &place)?;
        if let Some(entry) = occupant
            .as_ref()
            .filter(|e| e.kind == Kind::Directory && e.object.is_local())
        {
            self.relabel(t, entry.object, object)?;
            return self.set_attributes(t, object, attributes, xattrs);
        }
        let wanted = self.wanted(&attributes, xattrs)?;
        let parent = self.writable_directory(t, place.directory)?;
        let made = match parent.make_dir(&place.name) {
            Ok(made) => made,
            Err(error) if error.kind() == FsErrorKind::Exists && occupant.is_none() => {
                return self.admit(t, &parent, &place);
            }
            Err(error) if error.kind() == FsErrorKind::Exists => {
                let aside = self.aside_name(&place.name);
                let made = parent.make_dir(&aside)?;
                self.install_new(t, &parent, &aside, &place, occupant.as_ref())?;
                made
            }
            Err(error) => return Err(error.into()),
        };
        let applied = made.set_self_metadata(&wanted)?;
        let mut entry = local_entry(object, Kind::Directory, place, &applied.stat, None);
        let (attributes, refused) = settled(attributes, applied);
        entry.attributes = attributes;
        self.touched.insert(object);
        self.unsynced.insert(object);
        self.put(t, &entry)?;
        ended(refused)
    }

    /// Publishes a staged file.
    pub fn put_file(
        &mut self,
        t: &mut Tables<'_>,
        place: Place,
        object: ObjectId,
        file: StagedFile,
    ) -> Outcome {
        check_kind(t, object, Kind::File)?;
        let parent = self.writable_directory(t, place.directory)?;
        let occupant = self.occupant(t, &place)?;
        let in_the_way = occupant.as_ref().filter(|entry| {
            entry.kind == Kind::Directory || (entry.object != object && !entry.object.is_local())
        });
        let content = (file.size, file.digest);
        let (mut file, mut is_spoiled) = (file, false);
        let is_device = self.root.takes_devices_for_files()
            && parent.stat(&place.name)?.is_some_and(|stat| stat.is_device);
        if is_device && in_the_way.is_some() {
            return Err(ApplyError::mismatch(format!(
                "{} is a device that stands for another file of the source: it is not replaced",
                place.name
            )));
        }
        if (self.writes_in_place && !self.is_version || is_device) && in_the_way.is_none() {
            match self.write_in_place(t, &parent, &place, file, occupant.as_ref())? {
                Written::Not(staged) => file = staged,
                Written::Spoiled(staged) => (file, is_spoiled) = (staged, true),
                Written::Done(stat, attributes, refused) => {
                    let (kind, content) = (Kind::File, Some(content));
                    self.finish_put(t, place, object, kind, attributes, &stat, content, occupant)?;
                    return ended(refused);
                }
            }
        }
        let stat = match in_the_way {
            // What this very op made of a file is nobody's edit.
            None if self.keeper.is_needed() && !is_spoiled => {
                match self.publish_over(t, &parent, &place, file.staged, occupant.as_ref(), content)? {
                    Some(stat) => stat,
                    None => return self.admit(t, &parent, &place),
                }
            }
            None => match file.staged.publish(&place.name) {
                Ok(published) => published.stat,
                Err(error) if error.kind() == FsErrorKind::Exists => {
                    // A directory that came since the walk.
                    return self.admit(t, &parent, &place);
                }
                Err(error) => return Err(error.into()),
            },
            Some(_) => {
                let aside = self.aside_name(&place.name);
                file.staged.publish(&aside)?;
                self.install_new(t, &parent, &aside, &place, in_the_way)?
            }
        };
        let wanted = Some(content);
        self.finish_put(
            t,
            place,
            object,
            Kind::File,
            file.attributes,
            &stat,
            wanted,
            occupant,
        )?;
        ended(file.refused)
    }

    /// Creates or replaces a symbolic link.
    pub fn put_symlink(
        &mut self,
        t: &mut Tables<'_>,
        place: Place,
        object: ObjectId,
        attributes: Attributes,
        xattrs: &Xattrs,
        target: &[u8],
    ) -> Outcome {
        let what = (Kind::Symlink, target.len() as u64, Digest::of(target));
        let make = |parent: &Directory, name: &Name, wanted: &Metadata<'_>| {
            parent.make_symlink(target, name, wanted)
        };
        self.put_made(t, place, (object, what), (attributes, xattrs), make)
    }

    /// Creates or replaces a pipe or a device.
    pub fn put_special(
        &mut self,
        t: &mut Tables<'_>,
        place: Place,
        object: ObjectId,
        attributes: Attributes,
        xattrs: &Xattrs,
        special: Special,
    ) -> Outcome {
        if special.kind().is_device() && !self.terms.carried.devices {
            return Err(ApplyError {
                kind: FailureKind::Unsupported,
                text: format!("{} is a device, and devices are not carried here", place.name),
            });
        }
        if self.root.takes_devices_for_files() && special.kind() == Kind::BlockDevice {
            // A file that came to its name later would be written to that device: only its own administrator makes one.
            return Err(ApplyError {
                kind: FailureKind::Unsupported,
                text: format!(
                    "{} is a block device, and files are written to devices here: it is not made",
                    place.name
                ),
            });
        }
        let what = (special.kind(), 0, special.digest());
        let make = |parent: &Directory, name: &Name, wanted: &Metadata<'_>| {
            parent.make_special(special, name, wanted)
        };
        self.put_made(t, place, (object, what), (attributes, xattrs), make)
    }

    /// Makes a place another name of what `to` is, which must have this content.
    pub fn put_link(
        &mut self,
        t: &mut Tables<'_>,
        place: Place,
        object: ObjectId,
        (attributes, xattrs): (Attributes, &Xattrs),
        (to, digest): (ObjectId, Digest),
    ) -> Outcome {
        let anchor = self.known(t, to)?;
        let from = self.directory(t, anchor.place.directory)?;
        let stat = self.fresh_stat(&from, &anchor.place.name)?;
        if to == object
            || attributes.link_group == ObjectId(0)
            || anchor.kind == Kind::Directory
            || anchor.digest != Some(digest)
            || anchor.attributes.link_group != attributes.link_group
            || !is_same_state(&anchor, &stat)
        {
            let path = format!("{}/{}", from.shown(), anchor.place.name);
            return Err(ApplyError::mismatch(format!(
                "{path} is not as the sender believes, and gets no second name"
            )));
        }
        let what = (anchor.kind, anchor.size, digest);
        let make = |parent: &Directory, name: &Name, wanted: &Metadata<'_>| {
            let mode = RenameMode::Replace;
            from.hard_link(&anchor.place.name, Some(&stat.stamp), parent, name, mode)?;
            parent.set_metadata(name, anchor.kind, wanted)
        };
        self.put_made(t, place, (object, what), (attributes, xattrs), make)
    }

    /// Puts something at a place that `make` makes at once, complete.
    fn put_made(
        &mut self,
        t: &mut Tables<'_>,
        place: Place,
        (object, what): (ObjectId, (Kind, u64, Digest)),
        (attributes, xattrs): (Attributes, &Xattrs),
        make: impl Fn(&Directory, &Name, &Metadata<'_>) -> Result<Applied, FsError>,
    ) -> Outcome {
        let (kind, size, digest) = what;
        check_kind(t, object, kind)?;
        let parent = self.writable_directory(t, place.directory)?;
        let occupant = self.occupant(t, &place)?;
        let in_the_way = occupant.as_ref().filter(|entry| {
            entry.kind == Kind::Directory || (entry.object != object && !entry.object.is_local())
        });
        let wanted = self.wanted(&attributes, xattrs)?;
        let applied = match in_the_way {
            None if self.keeper.is_needed() => {
                if parent
                    .stat(&place.name)?
                    .is_some_and(|stat| stat.file_type == FileType::Directory)
                {
                    return self.admit(t, &parent, &place);
                }
                let aside = self.aside_name(&place.name);
                let applied = make(&parent, &aside, &wanted)?;
                let new = Some((size, digest));
                let swapped = self.swap_in(t, &parent, &aside, &place, occupant.as_ref(), new);
                let stat = swapped.inspect_err(|_| discard_aside(&parent, &aside, &applied.stat))?;
                Applied { stat, ..applied }
            }
            None => match make(&parent, &place.name, &wanted) {
                // A directory that came since the walk.
                Err(error) if error.kind() == FsErrorKind::Exists => {
                    return self.admit(t, &parent, &place);
                }
                outcome => outcome?,
            },
            Some(_) => {
                let aside = self.aside_name(&place.name);
                let applied = make(&parent, &aside, &wanted)?;
                let stat = self.install_new(t, &parent, &aside, &place, in_the_way)?;
                Applied { stat, ..applied }
            }
        };
        let stat = applied.stat;
        let (attributes, refused) = settled(attributes, applied);
        let content = Some((size, digest));
        self.finish_put(t, place, object, kind, attributes, &stat, content, occupant)?;
        ended(refused)
    }

    /// These attributes, as far as they are carried.
    fn wanted<'a>(&self, attributes: &'a Attributes, xattrs: &'a Xattrs) -> Result<Metadata<'a>, ApplyError> {
        self.terms.metadata(attributes, Some(xattrs))
    }

    /// Sets the attributes of an object.
    pub fn set_attributes(
        &mut self,
        t: &mut Tables<'_>,
        object: ObjectId,
        attributes: Attributes,
        xattrs: &Xattrs,
    ) -> Outcome {
        let mut entry = self.known(t, object)?;
        let wanted = self.wanted(&attributes, xattrs)?;
        let applied = if object == ObjectId::ROOT {
            self.root.set_self_metadata(&wanted)?
        } else {
            let parent = self.directory(t, entry.place.directory)?;
            let stat = self.fresh_stat(&parent, &entry.place.name)?;
            let known = entry.stamp.and_then(|known| Stamp::from_bytes(&known));
            if known.is_some_and(|known| !known.same_object(&stat.stamp)) {
                let text = format!("{}/{} was replaced by another", parent.shown(), entry.place.name);
                if kind_of(stat.file_type) == Some(entry.kind) && entry.kind != Kind::Directory {
                    // Its content is unknown until the sender compares again.
                    let link = cheap_digest(&parent, &entry.place.name, &stat)?;
                    let mut found = local_entry(object, entry.kind, entry.place, &stat, link);
                    found.attributes = self.terms.seen(found.attributes, Some(&attributes));
                    found.attributes.xattrs = self.terms.xattrs_on_disk(&parent, &found.place.name);
                    self.put(t, &found)?;
                }
                return Err(ApplyError::mismatch(text));
            }
            if self.keeper.refuses() && entry.kind != Kind::Directory {
                self.look(t, &parent, &entry.place.name, Some(&entry), None)?;
            }
            doubt(&mut entry, &stat);
            let (was, is) = (entry.attributes.link_group, attributes.link_group);
            let leaves_group = (was != is && !(was.is_local() && is != ObjectId(0)))
                || (self.is_version && is == ObjectId(0));
            let applied = match entry.kind != Kind::Directory && stat.links > 1 && leaves_group {
                true => {
                    let parent = self.writable_directory(t, entry.place.directory)?;
                    unshare(&parent, &entry, &stat, &wanted)?
                }
                false => parent.set_metadata(&entry.place.name, entry.kind, &wanted)?,
            };
            entry.stamp = Some(applied.stat.stamp.to_bytes());
            applied
        };
        let (attributes, refused) = settled(attributes, applied);
        entry.attributes = attributes;
        self.unsynced.insert(if entry.kind == Kind::Directory {
            object
        } else {
            entry.place.directory
        });
        self.put(t, &entry)?;
        ended(refused)
    }

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
        let occupant = self.occupant(t, &to)?;
        if self.keeper.refuses() && occupant.is_some() {
            self.look(t, &to_dir, &to.name, occupant.as_ref(), None)?;
        }
        match occupant {
            None => match from_dir.rename(&entry.place.name, &to_dir, &to.name, RenameMode::NoReplace) {
                Err(error) if error.kind() == FsErrorKind::Exists => return self.admit(t, &to_dir, &to),
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
            Some(other)
                if self.must_stay(&to_dir, &to.name)?
                    || (!other.object.is_local() && comes(&entry.place) == Some(other.object)) =>
            {
                return self.trade_places(t, entry, &other, &from_dir, &to_dir, to);
            }
            Some(other) => {
                let aside = self.aside_name(&to.name);
                from_dir.rename(&entry.place.name, &to_dir, &aside, RenameMode::NoReplace)?;
                let aside_place = Place {
                    directory: to.directory,
                    name: aside.clone(),
                };
                let from = std::mem::replace(&mut entry.place, aside_place);
                self.put(t, &entry)?;
                if let Err(error) = self.install(t, &to_dir, &aside, &to, Some(&other)) {
                    // Back to where it was: a private name would be swept with what it leads to.
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
    pub(super) fn must_stay(&self, parent: &Directory, name: &Name) -> Result<bool, ApplyError> {
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
                super::replica::catalogue(t, &inner, &place, &self.terms)?;
            }
        }
        let kind = match is_listed {
            true => FailureKind::Mismatch,
            false => FailureKind::Unsupported,
        };
        let text = format!("{} holds something that is not part of the mirror", inner.shown());
        Err(ApplyError { kind, text })
    }

    /// Moves an object to the place of a directory, and that to where the object stood: under a private name it could be
    /// swept together with what is protected in it.
    fn trade_places(
        &mut self,
        t: &mut Tables<'_>,
        mut entry: Entry,
        other: &Entry,
        from_dir: &Directory,
        to_dir: &Directory,
        to: Place,
    ) -> Outcome {
        if other.object.is_local() {
            return Err(ApplyError::mismatch(format!(
                "{}/{} is a directory that holds something, and may not be replaced",
                to_dir.shown(),
                to.name
            )));
        }
        let before = self.fresh_stat(to_dir, &to.name)?;
        from_dir.rename(&entry.place.name, to_dir, &to.name, RenameMode::Exchange)?;
        let from = std::mem::replace(&mut entry.place, to);
        // One name can't be two objects', not even for a moment.
        let mut other = other.clone();
        doubt(&mut other, &before);
        other.place = Place {
            directory: from.directory,
            name: private_name(),
        };
        self.put(t, &other)?;
        entry.stamp = Some(self.fresh_stat(to_dir, &entry.place.name)?.stamp.to_bytes());
        self.put(t, &entry)?;
        other.stamp = Some(self.fresh_stat(from_dir, &from.name)?.stamp.to_bytes());
        other.place = from;
        Ok(self.put(t, &other)?)
    }

    /// Gives what stands at a place the sender's number.
    pub fn adopt(&mut self, t: &mut Tables<'_>, place: &Place, object: ObjectId) -> Outcome {
        let Some(present) = t.lookup(place.directory, &place.name)? else {
            return Err(ApplyError::mismatch(format!(
                "there is no {} to adopt",
                place.name
            )));
        };
        if present == object {
            return Ok(());
        }
        if let Some(holder) = t.get(object)? {
            let here = self.known(t, present)?;
            if (holder.kind == Kind::Directory) != (here.kind == Kind::Directory) {
                return Err(ApplyError::mismatch(format!("number {} is taken", object.0)));
            }
            if holder.place.name.is_reserved() {
                // It was displaced, and its own op is this one, which found the same at another place: no listing would show the
                // holder, and no sum counts what has no number of the sender.
                self.remove(t, object)?;
                return self.relabel(t, present, object);
            }
            // Names were swapped: the holder gets its own number by an adoption that follows, or is an extra that the
            // next comparison finds. There must be one then, even if this connection breaks before it.
            let local = t.next_local()?;
            self.relabel(t, object, local)?;
            self.note_stranger(t)?;
        }
        self.relabel(t, present, object)
    }

    /// What stands for the content of a file that nobody knows and nobody is going to read.
    pub fn assume(&mut self, t: &mut Tables<'_>, object: ObjectId) -> Outcome {
        let mut entry = self.known(t, object)?;
        if entry.kind != Kind::File || entry.digest.is_some() {
            return Ok(());
        }
        let directory = self.directory(t, entry.place.directory)?;
        let stat = self.fresh_stat(&directory, &entry.place.name)?;
        if !is_same_state(&entry, &stat) {
            let mut now = local_entry(object, entry.kind, entry.place, &stat, None);
            now.attributes = stat.attributes.completed(&entry.attributes);
            self.put(t, &now)?;
            return Err(ApplyError::mismatch("a file was changed by somebody else"));
        }
        entry.digest = Some(Digest::assumed(object, entry.size));
        Ok(self.put(t, &entry)?)
    }

    /// Leaves an object on the disk, but no longer counts it as part of the mirror.
    pub fn release(&mut self, t: &mut Tables<'_>, object: ObjectId) -> Outcome {
        let Some(entry) = t.get(object)? else {
            return Ok(());
        };
        if entry.place.name.is_reserved() {
            // Something of the source took its name: there is no place left to keep it at.
            return self.remove(t, object);
        }
        let mut below = vec![entry];
        while let Some(entry) = below.pop() {
            if !entry.object.is_local() {
                let local = t.next_local()?;
                self.relabel(t, entry.object, local)?;
                if entry.digest.is_some_and(|digest| digest.is_assumed()) {
                    let mut released = self.known(t, local)?;
                    released.digest = None;
                    self.put(t, &released)?;
                }
                if entry.kind == Kind::Directory {
                    below.extend(t.child_entries(local)?);
                }
            }
        }
        Ok(())
    }

    /// Something stands where the catalog has nothing: somebody made it since the walk. It is catalogued, and the op
    /// fails, so that the sender compares again and decides.
    fn admit(&mut self, t: &mut Tables<'_>, parent: &Arc<Directory>, place: &Place) -> Outcome {
        super::replica::catalogue(t, parent, place, &self.terms)?;
        Err(ApplyError::mismatch(format!(
            "{}/{} was made by somebody else",
            parent.shown(),
            place.name
        )))
    }

    /// Removes what was displaced and whose own op will not come any more.
    pub fn remove_parked(&mut self, t: &mut Tables<'_>) -> Outcome {
        for object in std::mem::take(&mut self.parked) {
            if t.get(object)?.is_some_and(|entry| entry.place.name.is_reserved()) {
                self.remove(t, object)?;
            }
        }
        Ok(())
    }

    /// Brings the catalog in step with the disk along the way to an object that an op did not find as believed.
    pub fn mend(&mut self, t: &mut Tables<'_>, object: ObjectId) -> Outcome {
        let mut way = Vec::new();
        let mut at = object;
        while let Some(entry) = t
            .get(at)?
            .filter(|entry| entry.object != ObjectId::ROOT && way.len() < 100_000)
        {
            at = entry.place.directory;
            way.push(entry);
        }
        let mut handle = self.root.clone();
        while let Some(entry) = way.pop() {
            let found = handle.stat(&entry.place.name)?;
            let known = entry.stamp.and_then(|known| Stamp::from_bytes(&known));
            let same = |stat: &Stat| known.is_none_or(|known| known.same_object(&stat.stamp));
            if !found.as_ref().is_some_and(same) {
                self.drop_entry(t, entry.object)?;
                if found.is_some() {
                    super::replica::catalogue(t, &handle, &entry.place, &self.terms)?;
                }
                return Ok(());
            }
            if entry.kind == Kind::Directory {
                handle = Arc::new(handle.open_dir(&entry.place.name)?);
            }
        }
        Ok(())
    }

    /// What the catalog has at a place, as a failed op reports it.
    pub fn held(&self, t: &impl CatalogRead, place: &Place) -> Option<(ObjectId, EntrySum)> {
        let object = t.lookup(place.directory, &place.name).ok()??;
        let entry = t.get(object).ok()??;
        let sum = crate::daemon::ledger::counted(&entry, self.terms.carried)?;
        Some((object, sum))
    }

    /// The file at a place, and its size, if it is this object with exactly this content.
    pub fn basis(
        &mut self,
        t: &impl CatalogRead,
        place: &Place,
        object: ObjectId,
        content: Digest,
    ) -> Result<(std::fs::File, u64), ApplyError> {
        let other = |text: String| ApplyError {
            kind: FailureKind::Basis,
            text,
        };
        let entry = self
            .occupant(t, place)?
            .filter(|entry| entry.object == object && entry.digest == Some(content))
            .ok_or_else(|| {
                other(format!(
                    "{} is not known to have the content of the basis",
                    place.name
                ))
            })?;
        let (file, stat) = self.directory(t, place.directory)?.open_file(&place.name)?;
        if !is_same_state(&entry, &stat) {
            return Err(other(format!("{} was changed by somebody else", place.name)));
        }
        Ok((file, stat.size))
    }

    /// A file that has exactly this content, for a copy: one that the sender gave its number to, so that nobody learns of
    /// another's files.
    pub fn copy_source(
        &mut self,
        t: &impl CatalogRead,
        from: ObjectId,
        size: u64,
        content: Digest,
    ) -> Result<CopySource, ApplyError> {
        let entry = t.get(from)?.filter(|entry| {
            let known = entry.kind == Kind::File && !entry.object.is_local();
            known && entry.digest == Some(content) && entry.size == size
        });
        let Some(entry) = entry else {
            return Err(ApplyError {
                kind: FailureKind::Basis,
                text: format!("object {} is not known to have the content to be copied", from.0),
            });
        };
        let directory = self.directory(t, entry.place.directory)?;
        Ok(CopySource { directory, entry })
    }

    /// The catalog's entry at a place.
    pub fn occupant(&self, t: &impl CatalogRead, place: &Place) -> Result<Option<Entry>, ApplyError> {
        match t.lookup(place.directory, &place.name)? {
            Some(object) => Ok(t.get(object)?),
            None => Ok(None),
        }
    }

    /// Swaps what stands under the private name `aside` into its place. The former occupant is parked under that
    /// private name if its own op is still to come, and removed otherwise.
    fn install(
        &mut self,
        t: &mut Tables<'_>,
        parent: &Arc<Directory>,
        aside: &Name,
        place: &Place,
        occupant: Option<&Entry>,
    ) -> Result<Stat, ApplyError> {
        if self.must_stay(parent, &place.name)? {
            return Err(ApplyError::mismatch(format!(
                "{}/{} is a directory that holds something, and may not be replaced",
                parent.shown(),
                place.name
            )));
        }
        let parks = occupant.is_some_and(|entry| !entry.object.is_local());
        if self.keeper.is_needed() && !parks {
            let stat = self.swap_in(t, parent, aside, place, occupant, None)?;
            if let Some(entry) = occupant {
                self.drop_entry(t, entry.object)?;
            }
            return Ok(stat);
        }
        let before = match self.keeper.refuses() {
            true => self.look(t, parent, &place.name, occupant, None)?.stat,
            false => parent.stat(&place.name)?,
        };
        match parent.rename(aside, parent, &place.name, RenameMode::Exchange) {
            Ok(()) => match occupant {
                Some(entry) if !entry.object.is_local() => {
                    let mut parked = entry.clone();
                    parked.place.name = aside.clone();
                    if let Some(stat) = parent.stat(aside)? {
                        // Its ctime has moved with its name.
                        let unmoved = before.filter(|before| is_unmoved(before, &stat));
                        doubt(&mut parked, &unmoved.unwrap_or(stat));
                        parked.stamp = Some(stat.stamp.to_bytes());
                    }
                    self.parked.insert(parked.object);
                    self.put(t, &parked)?;
                }
                _ => {
                    parent.remove_private(aside)?;
                    if let Some(entry) = occupant {
                        self.drop_entry(t, entry.object)?;
                    }
                }
            },
            Err(error) if error.kind() == FsErrorKind::NotFound => {
                parent.rename(aside, parent, &place.name, RenameMode::NoReplace)?;
                // What the catalog has here is gone from the disk.
                if let Some(entry) = occupant {
                    self.drop_entry(t, entry.object)?;
                }
            }
            Err(error) => return Err(error.into()),
        }
        self.fresh_stat(parent, &place.name)
    }

    /// As [`Replica::install`], for what was just made: if that fails it is removed again.
    fn install_new(
        &mut self,
        t: &mut Tables<'_>,
        parent: &Arc<Directory>,
        aside: &Name,
        place: &Place,
        occupant: Option<&Entry>,
    ) -> Result<Stat, ApplyError> {
        let made = self.fresh_stat(parent, aside)?;
        let outcome = self.install(t, parent, aside, place, occupant);
        // After an exchange the name leads to the former occupant, which may be known to be parked there.
        if outcome.is_err() && t.lookup(place.directory, aside)?.is_none() {
            discard_aside(parent, aside, &made);
        }
        outcome
    }

    /// Writes the catalog's entry for something that was just put in place.
    #[expect(
        clippy::too_many_arguments,
        reason = "the facts of one entry, used by two callers"
    )]
    fn finish_put(
        &mut self,
        t: &mut Tables<'_>,
        place: Place,
        object: ObjectId,
        kind: Kind,
        attributes: Attributes,
        stat: &Stat,
        content: Option<(u64, Digest)>,
        occupant: Option<Entry>,
    ) -> Outcome {
        // The object may have stood elsewhere, or this name may have been another's.
        if let Some(old) = t.get(object)?.filter(|old| old.place != place) {
            let parent = self.writable_directory(t, old.place.directory)?;
            match self.keeper.is_needed() {
                true => self.leave(t, &parent, &old)?,
                false => ignore_missing(match self.protects {
                    true => parent.remove_file(&old.place.name),
                    false => parent.remove_tree(&old.place.name).map(|_| ()),
                })?,
            }
            self.drop_entry(t, object)?;
        }
        if let Some(old) = occupant.filter(|old| old.object != object && old.object.is_local()) {
            self.drop_entry(t, old.object)?;
        }
        let mut entry = local_entry(object, kind, place, stat, None);
        entry.attributes = attributes;
        if let Some((size, digest)) = content {
            entry.size = size;
            entry.digest = Some(digest);
        }
        Ok(self.put(t, &entry)?)
    }

    /// Changes an object's number, and the sum with it (a directory's number is part of its children's elements).
    pub fn relabel(&mut self, t: &mut Tables<'_>, old: ObjectId, new: ObjectId) -> Outcome {
        let before = self.known(t, old)?;
        for child in t.child_entries(old)? {
            self.ledger.replace(Some(&child), None);
        }
        t.relabel(old, new)?;
        let after = self.known(t, new)?;
        for child in t.child_entries(new)? {
            self.ledger.replace(None, Some(&child));
        }
        self.ledger.replace(Some(&before), Some(&after));
        self.forget_handle(old);
        for set in [&mut self.touched, &mut self.unsynced, &mut self.parked] {
            if set.remove(&old) {
                set.insert(new);
            }
        }
        Ok(())
    }

    fn known(&self, t: &impl CatalogRead, object: ObjectId) -> Result<Entry, ApplyError> {
        t.get(object)?
            .ok_or_else(|| ApplyError::mismatch(format!("there is no object of number {}", object.0)))
    }

    pub(super) fn fresh_stat(&self, directory: &Directory, name: &Name) -> Result<Stat, ApplyError> {
        directory.stat(name)?.ok_or_else(|| ApplyError {
            kind: FailureKind::Mismatch,
            text: format!("{}/{name} vanished while it was changed", directory.shown()),
        })
    }
}

/// Gives a name that shares its object with others an object of its own, with the same content.
fn unshare(
    parent: &Arc<Directory>,
    entry: &Entry,
    stat: &Stat,
    wanted: &Metadata<'_>,
) -> Result<Applied, ApplyError> {
    let name = &entry.place.name;
    match stat.file_type {
        FileType::Symlink => Ok(parent.make_symlink(&parent.read_link(name)?, name, wanted)?),
        FileType::Special(special) => Ok(parent.make_special(special, name, wanted)?),
        _ => {
            let (basis, basis_stat) = parent.open_file(name)?;
            let staged = Staged::create(parent.clone())?;
            staged.copy_from(&basis, 0, 0, basis_stat.size)?;
            staged.set_len(basis_stat.size)?;
            let applied = staged.set_metadata(wanted)?;
            staged.sync()?;
            let stat = staged.publish(name)?.stat;
            Ok(Applied { stat, ..applied })
        }
    }
}

/// A number stands for one object, and no object ever becomes another kind.
fn check_kind(t: &impl CatalogRead, object: ObjectId, kind: Kind) -> Outcome {
    match t.get(object)?.filter(|entry| entry.kind != kind) {
        Some(entry) => Err(ApplyError::mismatch(format!(
            "number {} is taken by a {:?}",
            object.0, entry.kind
        ))),
        None => Ok(()),
    }
}

pub(super) fn ignore_missing(outcome: Result<(), FsError>) -> Result<(), FsError> {
    match outcome {
        Err(error) if error.kind() != FsErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A file that is not as it was catalogued was edited here: its content is not known until it is compared.
fn doubt(entry: &mut Entry, stat: &Stat) {
    if entry.kind == Kind::File && !is_same_state(entry, stat) {
        entry.digest = None;
    }
}
