//! Contents that were read: in which form they travel, and what happens when a file will not hold still.

use super::*;
use crate::daemon::sender::owner_keys;
use crate::engine::delta::Patch;
use driftless_protocol::Attributes;
use driftless_protocol::limits::PATCH_LITERALS_BYTES_MAX;
use driftless_protocol::message::{DeltaParts, PatchLiterals};

/// How a content that was read can travel.
pub(super) enum Form {
    /// All of it is here.
    Bytes(Vec<u8>),
    /// As a delta against a content of this digest.
    Patch(Digest, Patch),
    /// Only when the receiver asks.
    Ranges,
}

/// A patch, if it fits an op.
fn patch_content(patch: Patch, size: u64, digest: Digest, basis: Digest, level: i32) -> Option<Content> {
    let literals = match patch.literals.as_slice() {
        [] => Vec::new(),
        literals => zstd::bulk::compress(literals, level).ok()?,
    };
    (literals.len() <= PATCH_LITERALS_BYTES_MAX).then_some(Content::Patch {
        size,
        digest,
        basis,
        parts: DeltaParts(patch.parts),
        literals: PatchLiterals(literals),
    })
}

/// Whether the content is all that might be new in a file for the target, which acknowledged all else as it is.
fn is_nothing_else_new(entry: &Entry) -> bool {
    let read_again = flags::STALE | flags::HIDES;
    entry.flags & !read_again == flags::ON_TARGET
}

impl Session<'_, '_> {
    pub(super) fn handle_read(&mut self, done: ReadDone) -> Result<(), Ended> {
        if let Some(object) = done.read_ahead()
            && !self.digesting.remove(&object)
        {
            self.reading -= 1;
        }
        match done {
            ReadDone::Hides(object, hides) => self.note_hidden(object, hides),
            ReadDone::Whole(file, bytes, digest, stat) => {
                self.context.counters.content_bytes += bytes.len() as u64;
                self.send_content(&file, digest, stat, Form::Bytes(bytes))
            }
            ReadDone::Digest(file, digest, stat, patch) => {
                self.assumed
                    .note(&file, &stat, self.context.options.pending.max_delay);
                let form = patch.map_or(Form::Ranges, |(basis, patch)| Form::Patch(basis, patch));
                self.send_content(&file, digest, stat, form)
            }
            ReadDone::TooLarge(file, stat) => {
                self.free(file.object);
                if let Some(entry) = self.context.source.catalog.read(|view| view.get(file.object))?
                    && !self.is_kept_out(&entry)?
                {
                    self.offer(&entry, None, Some(&stat));
                }
                Ok(())
            }
            ReadDone::Moved(file) => {
                self.free(file.object);
                self.try_later(file.object);
                Ok(())
            }
            ReadDone::Vanished(object) => {
                self.free(object);
                self.look_again(object)
            }
            ReadDone::Unreadable(object, text) => {
                self.free(object);
                self.fail(object, u8::MAX, &text, None)
            }
            ReadDone::Streamed(number, object, digest, size, stat, still) => {
                self.handle_streamed(number, object, digest, size, &stat, still)
            }
            ReadDone::Abandoned(number, object, error) => {
                if self.window.get_mut(number).is_some() {
                    self.withdraw(number, object);
                    match error {
                        Some(text) => self.fail(object, u8::MAX, &text, None)?,
                        None => self.look_again(object)?,
                    }
                }
                Ok(())
            }
        }
    }

    pub(super) fn handle_streamed(
        &mut self,
        number: u64,
        object: ObjectId,
        digest: Digest,
        size: u64,
        stat: &Stat,
        still: bool,
    ) -> Result<(), Ended> {
        let sent = self.window.get_mut(number);
        let Some(InFlight::Content {
            place,
            sequence,
            attributes: offered,
            ..
        }) = sent.as_ref().map(|sent| &sent.flight)
        else {
            return Ok(());
        };
        let (place, sequence, offered) = (place.clone(), *sequence, *offered);
        tracing::debug!(number, object = object.0, size, still, "all of a file was sent");
        let tries = self.tries.entry(object).or_insert(0);
        if !still && *tries < UNSTABLE_TRIES {
            *tries += 1;
            self.withdraw(number, object);
            self.try_later(object);
            return Ok(());
        }
        self.context.counters.content_bytes += size;
        // The extended attributes are those that went with the offer. An owner of whom the target has not heard gets the file
        // afterwards.
        let mut attributes = stat.attributes.completed(&offered);
        if self.context.source.ledger.carried().owner && !self.context.named.knows(&owner_keys(&attributes)) {
            let Attributes { mode, uid, gid, .. } = offered;
            attributes = Attributes {
                mode,
                uid,
                gid,
                ..attributes
            };
        }
        // A file that never holds still is published as it was read and stays stale: it is read again.
        let stamp = still.then_some(stat.stamp);
        let digest_known = Some(digest);
        let flight = InFlight::Content {
            object,
            sequence,
            place,
            digest: digest_known,
            stamp,
            attributes,
        };
        if let Some(sent) = self.window.get_mut(number) {
            (sent.flight, sent.offer) = (flight, Some(Offer::Closed));
        }
        self.send(
            OpMessage::Seal(SealOp {
                number,
                size,
                digest,
                attributes,
            }),
            96,
        );
        if !still {
            self.try_later(object);
        }
        Ok(())
    }

    /// The content of a file was read: decides in which form it travels, if at all.
    pub(super) fn send_content(
        &mut self,
        file: &FileRef,
        digest: Digest,
        stat: Stat,
        form: Form,
    ) -> Result<(), Ended> {
        let object = file.object;
        self.free(object);
        let Some(entry) = self.entry_as_read(object, &stat)? else {
            return Ok(());
        };
        // While it was read it may have moved to where it has to wait.
        if self.is_kept_out(&entry)? {
            return Ok(());
        }
        let (place, mut attributes) = (entry.place.clone(), stat.attributes.completed(&entry.attributes));
        // Read within a tick of its last change, it stays stale and is read once more.
        // And so does one of which only the end was read.
        let is_whole = !self.assumed.is_assumed(object);
        let stamp = Some(stat.stamp).filter(|stamp| is_whole && !file.is_young && !is_within_tick(stamp));
        let mut flight = InFlight::Content {
            object,
            sequence: file.sequence,
            place: place.clone(),
            digest: Some(digest),
            stamp,
            attributes,
        };
        let on_target = entry.flags & flags::ON_TARGET != 0;
        tracing::trace!(object = object.0, %digest, known = ?entry.digest, "was read");
        if is_nothing_else_new(&entry) && entry.digest == Some(digest) && entry.attributes == attributes {
            match self.xattrs_now(file) {
                // Read once more to be sure, and it is what the target acknowledged.
                Some(xattrs) if xattrs == attributes.xattrs => {
                    self.as_acknowledged.push(flight);
                    return Ok(());
                }
                // Changed within a tick of the clock, so that no look could see it.
                Some(xattrs) => {
                    attributes.xattrs = xattrs;
                    flight.set_xattrs(xattrs);
                    self.note_xattrs(entry, xattrs)?;
                    self.submit(OpBody::SetAttributes { object, attributes }, flight);
                    return Ok(());
                }
                None => {}
            }
        }
        if on_target && entry.digest == Some(digest) {
            self.submit(OpBody::SetAttributes { object, attributes }, flight);
            return Ok(());
        }
        if let Some(content) = self.copy_of(object, digest, stat.size)? {
            let body = OpBody::PutFile {
                place,
                object,
                attributes,
                content,
            };
            self.context.counters.files_sent += 1;
            self.submit(body, flight);
            return Ok(());
        }
        let delta_pays = on_target && !self.goes_whole(object) && self.delta_pays(stat.size)?;
        if delta_pays && stat.size < work::DELTA_BYTES_MIN && !self.bulk_has_room() {
            // It is read again when its turn comes.
            self.bulk.push(object);
            return Ok(());
        }
        let content = match form {
            Form::Bytes(bytes) if !delta_pays && entry.flags & flags::OFFER == 0 => Some(Content::Inline {
                digest,
                bytes: InlineContent(bytes),
            }),
            Form::Patch(basis, patch) if on_target && entry.digest == Some(basis) => {
                let level = self.context.options.link.compression.framing_level();
                patch_content(patch, stat.size, digest, basis, level)
            }
            _ => None,
        };
        match content {
            Some(content) => {
                let body = OpBody::PutFile {
                    place: place.clone(),
                    object,
                    attributes,
                    content,
                };
                self.context.counters.files_sent += 1;
                self.submit(body, flight);
            }
            None => self.offer(&entry, Some(digest), Some(&stat)),
        }
        Ok(())
    }

    /// Whether to ask for what the target has of a file of this size takes less than to send the file.
    fn delta_pays(&mut self, size: u64) -> Result<bool, StoreError> {
        if size >= work::DELTA_BYTES_MIN {
            return Ok(true);
        }
        // Between two directories of one machine bytes cost nothing.
        if size < work::DELTA_AMONG_MANY_BYTES_MIN || self.link.bulk().is_local() {
            return Ok(false);
        }
        if !self.is_crowded {
            let last = self.context.source.catalog.read(|view| view.last_sequence())?;
            let waiting = self.page.len().max(last.saturating_sub(self.scanned) as usize);
            self.is_crowded = waiting + self.bulk.len() + self.window.len() >= work::MANY;
        }
        Ok(self.is_crowded)
    }

    /// Takes files for acknowledged that were read once more and are as they were: all of a round in one transaction.
    pub(super) fn take_as_acknowledged(&mut self) -> Result<(), Ended> {
        match std::mem::take(&mut self.as_acknowledged) {
            none if none.is_empty() => Ok(()),
            flights => self.take_acknowledged(&flights),
        }
    }

    /// The digest of the extended attributes that a file has now, which may be none. `None` if that cannot be told.
    fn xattrs_now(&self, file: &FileRef) -> Option<Option<Digest>> {
        let classes = self.context.source.ledger.carried().xattrs;
        if classes.is_empty() {
            return Some(None);
        }
        let found = file.directory.xattrs(&file.name, classes).ok()?;
        Some(found.xattrs.digest())
    }

    fn note_xattrs(&mut self, mut entry: Entry, xattrs: Option<Digest>) -> Result<(), StoreError> {
        let source = &mut *self.context.source;
        entry.attributes.xattrs = xattrs;
        entry.flags |= flags::ATTRIBUTES;
        source.catalog.clone().update(false, |t| source.put(t, &entry))
    }

    /// What the catalog has of a file, with what a read of it found. Most reads find what the last look found, and then
    /// nothing is written: a transaction for each file would cost more than to read it.
    fn entry_as_read(&mut self, object: ObjectId, stat: &Stat) -> Result<Option<Entry>, StoreError> {
        let source = &mut *self.context.source;
        let known = source.catalog.read(|view| view.get(object))?;
        let is_known = |entry: &Entry| {
            stamp_of(entry) == Some(stat.stamp)
                && entry.size == stat.size
                && entry.attributes == stat.attributes.completed(&entry.attributes)
        };
        if known.as_ref().is_none_or(is_known) {
            return Ok(known);
        }
        source.catalog.clone().update(false, |t| {
            let Some(mut entry) = t.get(object)? else {
                return Ok(None);
            };
            if stamp_of(&entry).is_some_and(|known| is_no_older(&stat.stamp, &known)) {
                source.take_read(t, &mut entry, stat)?;
            }
            Ok(Some(entry))
        })
    }

    /// Whether an object is sent without a look at what the target has of it.
    pub(super) fn goes_whole(&self, object: ObjectId) -> bool {
        self.context.options.whole_files || self.whole.contains(&object)
    }

    /// The content as that of another file on the target, if one has it and nothing is under way for that.
    fn copy_of(
        &mut self,
        object: ObjectId,
        digest: Digest,
        size: u64,
    ) -> Result<Option<Content>, StoreError> {
        if self.uncopied.contains(&object) {
            return Ok(None);
        }
        let source = &mut *self.context.source;
        let from = source.contents.find(&source.catalog, object, digest)?;
        let is_known = from.is_some();
        let from = from.filter(|from| !self.busy.contains(from));
        if from.is_none() {
            tracing::debug!(object = object.0, is_known, "is not sent as a copy");
        }
        Ok(from.map(|from| Content::Copy { size, digest, from }))
    }

    /// Whether a file has to be read again at the next look at it, whatever its times say.
    fn note_hidden(&mut self, object: ObjectId, hides: bool) -> Result<(), Ended> {
        let source = &mut *self.context.source;
        source.catalog.clone().update(false, |t| {
            if let Some(mut entry) = t.get(object)? {
                entry.flags &= !flags::HIDES;
                if hides {
                    entry.flags |= flags::HIDES;
                }
                source.put(t, &entry)?;
            }
            Ok(())
        })?;
        Ok(())
    }

    /// The target does not have the content that we remember, or not as we remember it.
    pub(super) fn forget_basis(&mut self, object: ObjectId) {
        self.context.source.signatures.remove(object);
    }

    pub(super) fn try_later(&mut self, object: ObjectId) {
        let tries = self.tries.entry(object).or_insert(0);
        *tries += 1;
        let delay = Duration::from_millis(50) * 2u32.saturating_pow((*tries).min(6));
        self.delayed.insert((Instant::now() + delay, object));
    }

    pub(super) fn look_again(&mut self, object: ObjectId) -> Result<(), Ended> {
        if let Some(entry) = self.context.source.catalog.read(|view| view.get(object))? {
            let Place { directory, name } = entry.place;
            self.context.source.look(&[(directory, name)], &[], &[])?;
        }
        Ok(())
    }
}
