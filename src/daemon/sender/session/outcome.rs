//! What the receiver says: contents it needs, ops that ended, ops that failed.

use super::*;

impl Session<'_, '_> {
    pub(super) fn take_messages(&mut self) -> Result<(), Ended> {
        let mut progress = None;
        loop {
            match self.link.incoming().try_recv() {
                Ok(ToSender::Progress(now)) => progress = Some(now),
                Ok(message) => self.handle_message(message)?,
                Err(crossbeam_channel::TryRecvError::Empty) => break,
                Err(crossbeam_channel::TryRecvError::Disconnected) => {
                    return Err(match self.link.ended() {
                        Some(end) => super::super::link_end(&end),
                        None => Ended::Lost("the connection ended".to_owned()),
                    });
                }
            }
        }
        match progress {
            Some(progress) => self.handle_progress(progress),
            None => Ok(()),
        }
    }

    pub(super) fn handle_message(&mut self, message: ToSender) -> Result<(), Ended> {
        match message {
            ToSender::Need { number, .. } if !self.is_offer(number) => Ok(()),
            ToSender::Need { number, basis: true } => {
                self.signatures.insert(number, Vec::new());
                Ok(())
            }
            ToSender::Need { number, basis: false } => self.stream(number, None),
            ToSender::Signature { number, part, last } => {
                let Some(signature) = self.signatures.get_mut(&number) else {
                    return Ok(());
                };
                if signature.len() + part.0.len() > driftless_protocol::limits::SIGNATURE_BYTES_MAX {
                    return Err(Ended::Lost("the receiver sent an endless signature".to_owned()));
                }
                signature.extend_from_slice(&part.0);
                if last {
                    let signature = self.signatures.remove(&number);
                    return self.stream(number, signature);
                }
                Ok(())
            }
            ToSender::Failed {
                number,
                kind,
                text,
                held,
            } => self.handle_failed(number, kind, &text.to_string(), held),
            ToSender::Progress(_)
            | ToSender::Opened(_)
            | ToSender::Listing { .. }
            | ToSender::ListingFailed(_) => Ok(()),
        }
    }

    /// Whether an op is an offer that nobody asked about yet.
    pub(super) fn is_offer(&mut self, number: u64) -> bool {
        matches!(self.in_flight.get(&number), Some(InFlight::Content { .. })) && self.asked.insert(number)
    }

    /// The receiver wants the content of an offered file.
    pub(super) fn stream(&mut self, number: u64, signature: Option<Vec<u8>>) -> Result<(), Ended> {
        let Some(InFlight::Content { object, .. }) = self.in_flight.get(&number) else {
            return Ok(());
        };
        let object = *object;
        let signature = signature.filter(|_| !self.whole.contains(&object));
        match self.file_ref(object)? {
            Some(file) => {
                let _ = self.streams.send(ReadJob::Stream {
                    number,
                    file,
                    signature,
                });
            }
            None => {
                self.in_flight.insert(number, InFlight::Withdrawn { object });
                self.send(OpMessage::Withdraw { number }, 16);
            }
        }
        Ok(())
    }

    pub(super) fn file_ref(&mut self, object: ObjectId) -> Result<Option<FileRef>, StoreError> {
        let source = &mut *self.context.source;
        let catalog = source.catalog.clone();
        catalog.read(|view| {
            let Some(entry) = view.get(object)? else {
                return Ok(None);
            };
            let directory = source.directory(view, entry.place.directory)?;
            Ok(directory.map(|directory| FileRef {
                object,
                directory,
                name: entry.place.name,
            }))
        })
    }

    pub(super) fn handle_progress(&mut self, progress: Progress) -> Result<(), Ended> {
        while let Some((_, bytes)) = self
            .inline
            .pop_front_if(|(number, _)| *number <= progress.applied)
        {
            self.inline_bytes -= bytes;
        }
        let later = self.in_flight.split_off(&progress.durable.saturating_add(1));
        let ended = std::mem::replace(&mut self.in_flight, later);
        self.asked = self.asked.split_off(&progress.durable.saturating_add(1));
        if !ended.is_empty() {
            self.context.counters.ops_done += ended.len() as u64;
            let mut cleared = Vec::new();
            // Digests that took reading are kept through a crash, and the database reuses its pages.
            let durable = self.last_durable.elapsed() >= DURABLE_EVERY;
            if durable {
                self.last_durable = Instant::now();
            }
            let source = &mut *self.context.source;
            source.catalog.clone().update(durable, |t| {
                for flight in ended.values() {
                    if let Some(object) = work::acknowledge(source, t, flight)? {
                        cleared.push(object);
                    }
                }
                Ok(())
            })?;
            for flight in ended.values() {
                let Some(object) = flight.object() else { continue };
                self.free(object);
                self.again.push_back(object);
                if self.was_in_sync {
                    let path = self.context.source.path_of(object);
                    self.context.observer.applied(flight.verb(), &path);
                }
            }
            for object in cleared {
                self.tries.remove(&object);
                self.whole.remove(&object);
                if self.context.failed.remove(&object).is_some() {
                    self.context
                        .source
                        .state
                        .clear_failed(&self.context.options.target.display, object)?;
                    self.context.counters.failed = self.context.failed.len() as u64;
                    self.context.tell_failed();
                }
            }
        }
        if let Some(cursor) = progress.cursor.filter(|cursor| Some(*cursor) != self.cursor) {
            self.cursor = Some(cursor);
            if cursor.incarnation == self.context.incarnation {
                let source = &mut *self.context.source;
                // The cursor must never be ahead of the catalog that it speaks of.
                source
                    .catalog
                    .update(true, |t| t.drop_tombstones_through(cursor.sequence))?;
                source
                    .state
                    .set_acknowledged(&self.context.options.target.display, cursor)?;
            }
        }
        Ok(())
    }

    pub(super) fn handle_failed(
        &mut self,
        number: u64,
        kind: FailureKind,
        text: &str,
        held: Option<(ObjectId, driftless_protocol::EntrySum)>,
    ) -> Result<(), Ended> {
        let Some(flight) = self.in_flight.remove(&number) else {
            return Ok(());
        };
        self.signatures.remove(&number);
        self.context.counters.ops_done += 1;
        if let InFlight::Remove { object, place } = &flight {
            return self.fail_at(*object, place.clone(), kind as u8, text, held);
        }
        let Some(object) = flight.object() else {
            self.must_reconcile |= kind == FailureKind::Mismatch;
            return Ok(());
        };
        self.free(object);
        let tries = self.tries.entry(object).or_insert(0);
        *tries += 1;
        match kind {
            FailureKind::WrongDigest if *tries < UNSTABLE_TRIES => {
                self.whole.insert(object);
                self.again.push_back(object);
                Ok(())
            }
            // Often only the order of a moment: what is in the way has an op of its own coming.
            FailureKind::Mismatch | FailureKind::Io if *tries < ORDER_TRIES => {
                tracing::debug!(number, "the target is not as believed: {text}");
                self.must_reconcile |= kind == FailureKind::Mismatch && *tries >= ORDER_TRIES / 2;
                self.try_later(object);
                Ok(())
            }
            _ => self.fail(object, kind as u8, text, held),
        }
    }

    /// An entry that cannot be carried now: remembered, told, tried again later. Nothing else waits for it.
    pub(super) fn fail(
        &mut self,
        object: ObjectId,
        kind: u8,
        text: &str,
        held: Option<(ObjectId, driftless_protocol::EntrySum)>,
    ) -> Result<(), Ended> {
        let Some(entry) = self.context.source.catalog.read(|view| view.get(object))? else {
            return Ok(());
        };
        self.fail_at(object, entry.place, kind, text, held)
    }

    pub(super) fn fail_at(
        &mut self,
        object: ObjectId,
        place: Place,
        kind: u8,
        text: &str,
        held: Option<(ObjectId, driftless_protocol::EntrySum)>,
    ) -> Result<(), Ended> {
        let source = &mut *self.context.source;
        let tries = self.context.failed.get(&object).map_or(0, |failed| failed.tries) + 1;
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let failed = Failed {
            object,
            place,
            kind,
            text: text.to_owned(),
            held,
            since,
            tries,
        };
        source
            .state
            .set_failed(&self.context.options.target.display, &failed)?;
        if tries == 1 {
            let path = source.path_of(object);
            self.context.observer.warning(&format!("{path}: {text}"));
        }
        self.context.failed.insert(object, failed);
        self.context.counters.failed = self.context.failed.len() as u64;
        self.context.tell_failed();
        let delay = FIRST_RETRY * 2u32.saturating_pow(tries.min(5) - 1);
        if self.context.options.follow {
            self.delayed.insert((Instant::now() + delay, object));
        }
        Ok(())
    }

    /// What is in error is tried again in this connection, too.
    pub(super) fn retry_failed_later(&mut self) {
        if self.context.options.follow {
            let due = Instant::now() + FIRST_RETRY;
            self.delayed
                .extend(self.context.failed.keys().map(|&object| (due, object)));
        }
    }
}
