//! Which number stands for what: adopting, releasing, and mending what is not as an op believes.

use super::*;

impl Replica {
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
            if holder.place.name.is_reserved() && !self.unpark(t, &holder)? {
                // It was displaced, holds nothing, and its own op is this one, which found the same at another place: no listing would show
                // the holder, and no sum counts what has no number of the sender.
                self.remove(t, object)?;
                return self.relabel(t, present, object);
            }
            // Names were swapped: the holder gets its own number by an adoption that follows, or is an extra that the
            // next comparison finds. There must be one then, even if this connection breaks before it.
            let local = t.next_local()?;
            self.relabel(t, object, local)?;
            self.note_stranger(t)?;
            if holder.kind == Kind::Directory {
                self.stranded.insert(local);
            }
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
        let Some(mut entry) = t.get(object)? else {
            return Ok(());
        };
        if entry.place.name.is_reserved() {
            if !self.unpark(t, &entry)? {
                // Something of the source took its name: there is no place left to keep it at.
                return self.remove(t, object);
            }
            entry = self.known(t, object)?;
            self.note_stranger(t)?;
        }
        self.release_tree(t, entry)
    }

    /// Gives an entry and all below it numbers of the target's own.
    fn release_tree(&mut self, t: &mut Tables<'_>, top: Entry) -> Outcome {
        let mut below = vec![top];
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

    /// Releases what is in directories whose numbers went elsewhere, where they may stay: no comparison lists what is in a directory
    /// that has no number of the mirror and stays, but the sum would count it for ever. Called when a comparison begins: whatever the
    /// one before found in there is where it belongs.
    pub fn release_stranded(&mut self, t: &mut Tables<'_>) -> Outcome {
        for directory in std::mem::take(&mut self.stranded) {
            if !self.protects || t.get(directory)?.is_none() {
                continue;
            }
            for child in t.child_entries(directory)? {
                self.release_tree(t, child)?;
            }
        }
        Ok(())
    }

    /// Something stands where the catalog has nothing: somebody made it since the walk. It is catalogued, and the op
    /// fails, so that the sender compares again and decides.
    pub(super) fn admit(&mut self, t: &mut Tables<'_>, parent: &Arc<Directory>, place: &Place) -> Outcome {
        catalogue(t, parent, place, &self.terms)?;
        Err(ApplyError::mismatch(format!(
            "{}/{} was made by somebody else",
            parent.shown(),
            place.name
        )))
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
                    catalogue(t, &handle, &entry.place, &self.terms)?;
                }
                return Ok(());
            }
            if entry.kind == Kind::Directory {
                handle = Arc::new(handle.open_dir(&entry.place.name)?);
            }
        }
        Ok(())
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
        self.publishing.relabel(old, new);
        for set in [&mut self.touched, &mut self.unsynced, &mut self.parked] {
            if set.remove(&old) {
                set.insert(new);
            }
        }
        Ok(())
    }
}
