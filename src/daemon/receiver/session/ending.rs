//! How ops end: each of them once.

use super::*;

impl<'a> Session<'a> {
    pub(super) fn handle_done(&mut self, done: Done) -> Result<(), SessionError> {
        match done {
            Done::Staged(number, file) => {
                self.release(number);
                self.finish_job(number);
                self.confirms.note_complete(number);
                self.has_mounts |= file.device != self.device;
                if self.pending.contains_key(&number) {
                    self.batch_bytes += file.size;
                    self.batch.push((number, file));
                }
                Ok(())
            }
            Done::Failed(number, error) => {
                self.finish_job(number);
                self.end_failed(number, Err(error))
            }
            Done::Flushed(files, outcome) => self.handle_flushed(files, outcome),
            Done::Compared(number, same) => {
                self.comparing -= 1;
                let Some(pending) = self.pending.get_mut(&number) else {
                    return Ok(());
                };
                match pending.offer.and_then(|(_, digest)| digest).filter(|_| same) {
                    Some(digest) => self.finish_same(number, digest),
                    None => {
                        pending.offer = pending.offer.map(|(size, _)| (size, None));
                        self.offers.push_front(number);
                        Ok(())
                    }
                }
            }
        }
    }

    /// Only inline files are counted as outstanding jobs; offered ones may take as long as they like.
    fn finish_job(&mut self, number: u64) {
        self.asked.remove(&number);
        if self
            .pending
            .get(&number)
            .is_some_and(|pending| pending.offer.is_none())
        {
            self.outstanding -= 1;
        }
    }

    /// The offered content is already here: number and attributes are all that is missing.
    pub(super) fn finish_same(&mut self, number: u64, digest: Digest) -> Result<(), SessionError> {
        let Some(Pending {
            place,
            object,
            attributes,
            xattrs,
            ..
        }) = self.pending.remove(&number)
        else {
            return Ok(());
        };
        let catalog = self.replica.catalog.clone();
        catalog.update(false, |tables| {
            let outcome = self.take_over(tables, &place, object, digest);
            let outcome =
                outcome.and_then(|()| self.replica.set_attributes(tables, object, attributes, &xattrs));
            if outcome.is_ok() {
                named::note_content(&self.status, tables, &place, None);
            }
            self.end(tables, number, (Some(object), Some(&place)), outcome);
            Ok(())
        })?;
        Ok(())
    }

    pub(super) fn take_over(
        &mut self,
        tables: &mut Tables<'_>,
        place: &Place,
        object: ObjectId,
        digest: Digest,
    ) -> Result<(), ApplyError> {
        let occupant = self.replica.occupant(tables, place)?;
        let Some(mut entry) = occupant else {
            return Err(ApplyError::mismatch("the basis vanished"));
        };
        if entry.object != object {
            if !entry.object.is_local() {
                return Err(ApplyError::mismatch("the basis belongs to another object"));
            }
            self.replica.adopt(tables, place, object)?;
            entry.object = object;
        }
        entry.digest = Some(digest);
        Ok(self.replica.put(tables, &entry)?)
    }

    pub(super) fn end_failed(
        &mut self,
        number: u64,
        outcome: Result<(), ApplyError>,
    ) -> Result<(), SessionError> {
        let Some(pending) = self.pending.remove(&number) else {
            return Ok(());
        };
        let catalog = self.replica.catalog.clone();
        catalog.read(|view| {
            self.end(
                view,
                number,
                (Some(pending.object), Some(&pending.place)),
                outcome,
            );
            Ok(())
        })?;
        Ok(())
    }

    /// Every op passes here exactly once.
    pub(super) fn end(
        &mut self,
        tables: &impl CatalogRead,
        number: u64,
        (object, place): (Option<ObjectId>, Option<&Place>),
        outcome: Result<(), ApplyError>,
    ) {
        if let Err(ApplyError { kind, text }) = outcome {
            if kind != FailureKind::Withheld {
                self.replica.note_failed(tables, object, place);
            }
            // It is in no sum: unless it is noted, nobody looks for it at the next connection.
            self.replica.has_new_strangers |= object.is_some_and(ObjectId::is_local);
            tracing::warn!(op = number, ?kind, "{text}");
            self.status.count_failed(&text);
            let held = place.and_then(|place| self.replica.held(tables, place));
            let text = text.as_str().into();
            let _ = self.link.control().send(ToSender::Failed {
                number,
                kind,
                text,
                held,
            });
        } else {
            self.status.count_applied();
            if let Some(object) = object {
                self.replica.publishing.note_done(object);
            }
        }
        self.release(number);
        self.confirms.note_complete(number);
        self.replica.former.date(self.order.marks_passed());
        self.order.handle_ended(number);
    }
}
