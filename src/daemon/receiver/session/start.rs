//! Ops that start: most are carried out at once, contents of files go to the staging threads.

use super::*;

impl<'a> Session<'a> {
    /// Carries out every op that may start; file contents go to the staging threads.
    pub(super) fn start_ready(&mut self) -> Result<(), SessionError> {
        let Some(first) = self.next_op() else {
            return Ok(());
        };
        let mut next = Some(first);
        let catalog = self.replica.catalog.clone();
        catalog.update(false, |tables| {
            while let Some(op) = next.take().or_else(|| self.next_op()) {
                self.start(tables, op)?;
            }
            Ok(())
        })?;
        Ok(())
    }

    /// The next op that may start, while there are descriptors for what it may stage.
    fn next_op(&mut self) -> Option<Op> {
        let flushing = self.flushing.as_ref().map_or(0, |flushing| flushing.files);
        let staged = self.outstanding + self.batch.len() + flushing;
        (staged < 3 * self.batch_files_max).then(|| self.order.poll())?
    }

    fn start(&mut self, tables: &mut Tables<'_>, op: Op) -> Result<(), StoreError> {
        let number = op.number;
        let place = place_of(&op.body).cloned();
        let about = object_of(&op.body);
        let subject = subject_of(&op.body);
        let xattrs = op.xattrs;
        let permitted = rights::check(tables, &op.body, self.rights)?;
        let refusal = permitted
            .and_then(|()| check(&op.body))
            .and_then(|()| check_xattrs(&op.body, &xattrs, self.replica.terms.carried))
            .and_then(|()| {
                place
                    .as_ref()
                    .map_or(Ok(()), |place| self.replica.keeper.check(place))
            });
        let refusal = refusal.and_then(|()| self.replica.spare(tables, &op.body));
        if let Err(refusal) = refusal {
            self.end(tables, number, (subject, place.as_ref()), Err(refusal));
            return Ok(());
        }
        if let Err(error) = self.replica.stage_for(tables, &op.body) {
            self.end_mended(tables, number, about, (subject, place.as_ref()), Err(error));
            return Ok(());
        }
        let change = named::Change::of(&op.body);
        let outcome = match op.body {
            OpBody::PutFile {
                place,
                object,
                attributes,
                content,
            } => {
                let pending = Pending {
                    place,
                    object,
                    attributes,
                    xattrs: Arc::new(xattrs),
                    offer: None,
                };
                let outcome = self.start_file(tables, number, pending, content);
                if outcome.is_ok() {
                    return Ok(());
                }
                self.pending.remove(&number);
                outcome
            }
            OpBody::MakeDirectory {
                place,
                object,
                attributes,
            } => self
                .replica
                .make_directory(tables, place, object, attributes, &xattrs),
            OpBody::PutSymlink {
                place,
                object,
                attributes,
                target,
            } => self
                .replica
                .put_symlink(tables, place, object, attributes, &xattrs, &target.0),
            OpBody::PutSpecial {
                place,
                object,
                attributes,
                special,
            } => self
                .replica
                .put_special(tables, place, object, attributes, &xattrs, special),
            OpBody::Link {
                place,
                object,
                attributes,
                to,
                digest,
            } => {
                // What had come of it as a file of its own is not needed any more.
                self.replica.drop_kept(tables, object);
                self.replica
                    .put_link(tables, place, object, (attributes, &xattrs), (to, digest))
            }
            OpBody::SetAttributes { object, attributes } => {
                self.replica.set_attributes(tables, object, attributes, &xattrs)
            }
            OpBody::Move { object, to } => {
                let order = &self.order;
                let comes = |place: &Place| order.waits_to_move_to(place);
                self.replica.move_object(tables, object, to, comes)
            }
            OpBody::Remove { object, .. } => self.replica.remove(tables, object),
            OpBody::Adopt {
                place,
                object,
                assumed,
            } => {
                let adopted = self.replica.adopt(tables, &place, object);
                adopted.and_then(|()| match assumed {
                    true => self.replica.assume(tables, object),
                    false => Ok(()),
                })
            }
            OpBody::Release { object, .. } => self.replica.release(tables, object),
            OpBody::Mark { .. } => Ok(()),
            OpBody::Owners(rows) => self.replica.name_owners(tables, &rows.0),
        };
        if let Some(change) = change.filter(|_| outcome.is_ok()) {
            change.note(&self.status, tables);
        }
        self.end_mended(tables, number, about, (subject, place.as_ref()), outcome);
        Ok(())
    }

    /// As [`Session::end`], for the object that is meant. If the disk was not as the op believed, the catalog is brought in step with it first.
    fn end_mended(
        &mut self,
        tables: &mut Tables<'_>,
        number: u64,
        about: Option<ObjectId>,
        (subject, place): (Option<ObjectId>, Option<&Place>),
        outcome: Result<(), ApplyError>,
    ) {
        if outcome
            .as_ref()
            .is_err_and(|error| error.kind == FailureKind::Mismatch)
        {
            for object in place.map(|place| place.directory).into_iter().chain(about) {
                if let Err(error) = self.replica.mend(tables, object) {
                    tracing::warn!("cannot bring the catalog in step with the disk: {}", error.text);
                }
            }
        }
        self.end(tables, number, (subject, place), outcome);
    }

    fn start_file(
        &mut self,
        tables: &Tables<'_>,
        number: u64,
        mut pending: Pending,
        content: Content,
    ) -> Result<(), ApplyError> {
        let directory = self.replica.writable_directory(tables, pending.place.directory)?;
        let (attributes, xattrs) = (pending.attributes, pending.xattrs.clone());
        match content {
            Content::Inline { digest, bytes } => {
                let job = Job::Inline {
                    number,
                    directory,
                    digest,
                    bytes: bytes.0,
                    attributes,
                    xattrs,
                };
                self.outstanding += 1;
                let _ = self.staging.jobs.send(job);
            }
            Content::Patch {
                size,
                digest,
                basis,
                parts,
                literals,
            } => {
                let file = self
                    .replica
                    .basis(tables, &pending.place, pending.object, basis)?;
                let seal = SealOp {
                    number,
                    size,
                    digest,
                    attributes,
                };
                pending.offer = Some((size, Some(digest)));
                self.asked.insert(number);
                let _ = self.staging.file_jobs.send(Job::Patch {
                    seal,
                    directory,
                    basis: file,
                    basis_digest: basis,
                    parts: parts.0,
                    literals: literals.0,
                    xattrs,
                });
            }
            Content::Copy { size, digest, from } => {
                let source = self.replica.copy_source(tables, from, size, digest)?;
                let seal = SealOp {
                    number,
                    size,
                    digest,
                    attributes,
                };
                // As with offers, nobody waits for a large one.
                let is_large = size > INLINE_CONTENT_BYTES_MAX as u64;
                pending.offer = is_large.then_some((size, Some(digest)));
                let job = Job::Copy {
                    seal,
                    directory,
                    source,
                    xattrs,
                };
                if is_large {
                    self.asked.insert(number);
                    let _ = self.staging.file_jobs.send(job);
                } else {
                    self.outstanding += 1;
                    let _ = self.staging.jobs.send(job);
                }
            }
            Content::Offer { size, digest } => {
                pending.offer = Some((size, digest));
                self.offers.push_back(number);
            }
        }
        self.pending.insert(number, pending);
        Ok(())
    }

    /// Asks for the next offered contents, as many as may be on their way at a time.
    pub(super) fn want_more(&mut self) -> Result<(), SessionError> {
        if self.is_batch_full() && self.flushing.is_some() {
            return Ok(());
        }
        while let Some(&number) = self.offers.front() {
            let offer = self.pending.get(&number).and_then(|pending| pending.offer);
            let wanted_max = match offer {
                Some((size, _)) if size < SMALL_WANTED_BYTES => self.small_wanted_max,
                _ => self.wanted_max,
            };
            if self.asked.len() + self.comparing >= wanted_max {
                break;
            }
            self.offers.pop_front();
            let Some(pending) = self.pending.get(&number) else {
                continue;
            };
            let (place, offer) = (pending.place.clone(), pending.offer);
            let xattrs = pending.xattrs.clone();
            let Some((size, offered)) = offer else { continue };
            let catalog = self.replica.catalog.clone();
            let present = catalog.read(|view| Ok(self.replica.occupant(view, &place)))?;
            let present = present.ok().flatten().filter(|entry| entry.kind == Kind::File);
            let directory =
                catalog.read(|view| Ok(self.replica.writable_directory(view, place.directory)))?;
            let directory = match directory {
                Ok(directory) => directory,
                Err(error) => {
                    self.end_failed(number, Err(error))?;
                    continue;
                }
            };
            if let (Some(entry), Some(digest)) = (&present, offered) {
                if entry.digest == Some(digest) {
                    self.finish_same(number, digest)?;
                    continue;
                }
                if entry.digest.is_none_or(|known| known.is_assumed())
                    && entry.size == size
                    && let Ok((basis, _)) = directory.open_file(&place.name)
                {
                    self.comparing += 1;
                    let _ = self.staging.file_jobs.send(Job::CompareBasis {
                        number,
                        basis,
                        digest,
                    });
                    continue;
                }
            }
            let ahead = catalog.read(|view| {
                let new = offered.map(|digest| (size, digest));
                Ok(self.replica.look_ahead(view, &place, new))
            })?;
            if ahead.is_err() {
                self.end_failed(number, ahead)?;
                continue;
            }
            let object = pending.object;
            let keep = catalog.read(|view| Ok(self.replica.keep(view, object, place.directory, size)))?;
            let basis = present.and_then(|_| directory.open_file(&place.name).ok());
            let basis = basis.map(|(file, stat)| (file, stat.size));
            self.asked.insert(number);
            let _ = self.staging.file_jobs.send(Job::Want {
                number,
                directory,
                basis,
                size,
                xattrs,
                keep,
            });
            self.status.count_wanted();
        }
        Ok(())
    }
}
