//! Files, links and devices: making them complete aside, and bringing them to their place.

use super::*;

impl Replica {
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
                let aside = self.aside_name(&place.name, occupant.as_ref());
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
        if !is_same_state(&anchor, &stat) {
            // Left as it is in the catalog it would be believed by every comparison, and never become an anchor.
            let mut seen = anchor.clone();
            doubt(&mut seen, &stat);
            seen.attributes = stat.attributes.completed(&seen.attributes);
            seen.stamp = Some(stat.stamp.to_bytes());
            self.put(t, &seen)?;
        }
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
        let outcome = self.put_made(t, place, (object, what), (attributes, xattrs), make);
        if let Some(now) = from.stat(&anchor.place.name)? {
            self.publishing.note_set(&stat.stamp, &now.stamp);
        }
        outcome
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
                let aside = self.aside_name(&place.name, occupant.as_ref());
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
                let aside = self.aside_name(&place.name, occupant.as_ref());
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

    /// Swaps what stands under the private name `aside` into its place. The former occupant is parked under that
    /// private name if its own op is still to come, and removed otherwise.
    pub(super) fn install(
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
        match parent.swap(aside, &place.name) {
            Ok(()) => match occupant {
                Some(entry) if !entry.object.is_local() => {
                    self.note_parked(t, parent, aside, entry, before)?;
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

    /// The catalog's entry for something that was just renamed to the private name `aside`; `before` says what it was.
    pub(super) fn note_parked(
        &mut self,
        t: &mut Tables<'_>,
        parent: &Directory,
        aside: &Name,
        entry: &Entry,
        before: Option<Stat>,
    ) -> Outcome {
        let mut parked = entry.clone();
        parked.place.name = aside.clone();
        if let Some(stat) = parent.stat(aside)? {
            // Its ctime has moved with its name.
            let unmoved = before.filter(|before| is_unmoved(before, &stat));
            doubt(&mut parked, &unmoved.unwrap_or(stat));
            parked.stamp = Some(stat.stamp.to_bytes());
        }
        self.parked.insert(parked.object);
        Ok(self.put(t, &parked)?)
    }

    /// As [`Replica::install`], for what was just made: if that fails it is removed again.
    pub(super) fn install_new(
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

    /// An object was put at another place than it has here.
    fn clear_former_place(&mut self, t: &mut Tables<'_>, old: Entry) -> Outcome {
        // A private name has no place in any tree, and no listing shows it. A keeper, and what is published at once, would take what
        // has no number of the sender for somebody's edit.
        let takes_strangers = !self.keeper.is_needed() && !self.publishing.is_used();
        if !old.place.name.is_reserved() && takes_strangers {
            return self.give_up_place(t, old.object);
        }
        let parent = self.writable_directory(t, old.place.directory)?;
        match self.keeper.is_needed() {
            true => self.leave(t, &parent, &old)?,
            false => ignore_missing(match self.protects {
                true => parent.remove_file(&old.place.name),
                false => parent.remove_tree(&old.place.name).map(|_| ()),
            })?,
        }
        Ok(self.drop_entry(t, old.object)?)
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
            self.clear_former_place(t, old)?;
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
}
