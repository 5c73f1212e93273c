//! What the receiver says: contents it needs, ops that ended, ops that failed.

use super::*;
use crate::daemon::events::AppliedChange;

/// How long until an entry is tried again that found no space on the target.
const SPACE_RETRY: Duration = Duration::from_secs(10);
/// So many entries are tried that often; more would keep the line busy for nothing.
const SPACE_SCOUTS: usize = 16;

impl Session<'_, '_> {
    pub(super) fn take_messages(&mut self) -> Result<(), Ended> {
        let (mut progress, mut runs) = (None, Vec::new());
        loop {
            match self.link.incoming().try_recv() {
                Ok(ToSender::Progress(now)) => progress = Some(now),
                Ok(ToSender::Ended(now)) => runs.extend(now.0),
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
        self.handle_ended(progress.map_or(0, |progress| progress.applied), &runs)?;
        progress.map_or(Ok(()), |progress| self.handle_cursor(progress.cursor))
    }

    pub(super) fn handle_message(&mut self, message: ToSender) -> Result<(), Ended> {
        match message {
            ToSender::Need { number, .. } if !self.is_new_need(number) => Ok(()),
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
            ToSender::Held { number, spans } => {
                if self
                    .window
                    .get_mut(number)
                    .is_some_and(|sent| sent.offer == Some(Offer::Made))
                {
                    let held = self.spans_held.entry(number).or_default();
                    if held.len() + spans.0.len() > driftless_protocol::limits::HELD_SPANS_TOTAL_MAX {
                        return Err(Ended::Lost(
                            "the receiver holds more of a file than it may".to_owned(),
                        ));
                    }
                    held.extend(spans.0.iter().map(|held| (held.span, held.sum)));
                }
                Ok(())
            }
            ToSender::Failed {
                number,
                kind,
                text,
                held,
            } => self.handle_failed(number, kind, &text.to_string(), held),
            ToSender::Confirmed { token } => {
                self.context.barriers.handle_confirmed(token);
                Ok(())
            }
            ToSender::Changed => {
                if self.was_in_sync && !self.must_reconcile {
                    self.context.observer.drift();
                }
                self.must_reconcile = true;
                Ok(())
            }
            ToSender::Contents(_)
            | ToSender::Doubted { .. }
            | ToSender::Progress(_)
            | ToSender::Ended(_)
            | ToSender::Opened(_)
            | ToSender::Owners(_)
            | ToSender::SurveyRoot { .. }
            | ToSender::Diverged { .. }
            | ToSender::Listing { .. }
            | ToSender::ListingFailed(_) => Ok(()),
        }
    }

    /// Notes that the content of an offer is wanted; false if it is no offer, or was wanted before.
    fn is_new_need(&mut self, number: u64) -> bool {
        match self.window.get_mut(number) {
            Some(sent) if sent.offer == Some(Offer::Made) => {
                sent.offer = Some(Offer::Asked);
                true
            }
            _ => false,
        }
    }

    /// The receiver wants the content of an offered file.
    pub(super) fn stream(&mut self, number: u64, signature: Option<Vec<u8>>) -> Result<(), Ended> {
        let held = self.spans_held.remove(&number).unwrap_or_default();
        let sent = self.window.get_mut(number);
        let Some(InFlight::Content { object, .. }) = sent.map(|sent| &sent.flight) else {
            return Ok(());
        };
        let object = *object;
        let signature = signature.filter(|_| !self.goes_whole(object));
        match self.file_ref(object)? {
            Some(file) => {
                let is_steady = !self.tries.contains_key(&object);
                self.streams.submit(ReadJob::Stream {
                    number,
                    file,
                    signature,
                    held,
                    is_steady,
                });
            }
            None => {
                self.withdraw(number, object);
            }
        }
        Ok(())
    }

    pub(super) fn file_ref(&mut self, object: ObjectId) -> Result<Option<FileRef>, StoreError> {
        let entry = self.context.source.catalog.read(|view| view.get(object))?;
        entry.map_or(Ok(None), |entry| self.file_ref_of(&entry))
    }

    /// As [`Session::file_ref`], of an entry as the catalog has it now.
    pub(super) fn file_ref_of(&mut self, entry: &Entry) -> Result<Option<FileRef>, StoreError> {
        let only_grows = self.may_read_end(entry)?;
        let source = &mut *self.context.source;
        let parent = entry.place.directory;
        if let Some(directory) = source.open_directory(parent) {
            return Ok(Some(file_ref(entry, directory, only_grows)));
        }
        let catalog = source.catalog.clone();
        catalog.read(|view| {
            let directory = source.directory(view, parent)?;
            Ok(directory.map(|directory| file_ref(entry, directory, only_grows)))
        })
    }

    /// Whether the user says that a file only grows, and it may be believed for now.
    pub(super) fn may_read_end(&self, entry: &Entry) -> Result<bool, StoreError> {
        let append_only = &self.context.options.append_only;
        if append_only.is_empty() || !self.assumed.may_assume(entry.object) {
            return Ok(false);
        }
        let parent = entry.place.directory;
        let names = self.context.source.catalog.read(|view| view.path_of(parent))?;
        let is_meant = names.is_some_and(|names| {
            let names: Vec<_> = names.iter().map(driftless_protocol::Name::as_bytes).collect();
            append_only.has(&names.join(&b'/'), entry.place.name.as_bytes())
        });
        Ok(is_meant)
    }

    /// Ops ended: their objects may change again. What is not on stable storage there yet is forgotten by a receiver
    /// that crashes, and found by the comparison of sums.
    fn handle_ended(&mut self, through: u64, runs: &[Run]) -> Result<(), Ended> {
        let ended = self.window.end_all(through, runs);
        if !ended.is_empty() {
            self.context.counters.ops_done += ended.len() as u64;
            self.take_acknowledged(&ended)?;
            self.tell_applied(&ended)?;
        }
        Ok(())
    }

    /// The target holds what these would make of it: that is written down, and their objects may change again.
    pub(super) fn take_acknowledged(&mut self, ended: &[InFlight]) -> Result<(), Ended> {
        let mut cleared = Vec::new();
        // Digests that took reading are kept through a crash, and the database reuses its pages.
        let durable = self.last_durable.elapsed() >= DURABLE_EVERY;
        if durable {
            self.last_durable = Instant::now();
        }
        let source = &mut *self.context.source;
        source.catalog.clone().update(durable, |t| {
            for flight in ended {
                cleared.extend(work::acknowledge(source, t, flight)?);
            }
            Ok(())
        })?;
        let settled: HashSet<ObjectId> = cleared
            .iter()
            .filter(|done| done.is_settled)
            .map(|done| done.object)
            .collect();
        for object in &settled {
            self.context.ages.handle_done(*object);
        }
        for flight in ended {
            if let InFlight::Owners { told } = flight {
                self.context.named.acknowledge(told);
            }
            self.context.barriers.handle_applied(flight);
            if let InFlight::Remove { object, .. } = flight {
                self.forget_failed_removal(*object)?;
            }
            let Some(object) = flight.object() else { continue };
            self.free(object);
            let is_put = matches!(flight, InFlight::Move { .. } | InFlight::Make { .. });
            if is_put {
                self.open_left_grave(object);
            }
            if !settled.contains(&object) {
                self.again.push_back(object);
            }
        }
        cleared
            .into_iter()
            .try_for_each(|done| self.forget_failure(done.object))
    }

    /// What could not be removed is gone from the target.
    fn forget_failed_removal(&mut self, object: ObjectId) -> Result<(), Ended> {
        let is_gone = |object| {
            self.context
                .source
                .catalog
                .read(|view| Ok(view.get(object)?.is_none()))
        };
        match self.context.failed.contains_key(&object) && is_gone(object)? {
            true => self.forget_failure(object),
            false => Ok(()),
        }
    }

    /// All is well with an object now.
    fn forget_failure(&mut self, object: ObjectId) -> Result<(), Ended> {
        self.tries.remove(&object);
        self.tried.remove(&object);
        self.whole.remove(&object);
        self.uncopied.remove(&object);
        let Some(failed) = self.context.failed.remove(&object) else {
            return Ok(());
        };
        // Nothing is "in sync" while something waits for its time.
        self.forget_retry(object);
        if failed.kind == FailureKind::NoSpace as u8 {
            self.retry_for_space();
        }
        let replaced = self
            .postponed
            .extract_if(.., |(successor, _)| *successor == object);
        self.removes.extend(replaced.map(|(_, removal)| removal));
        self.context
            .source
            .state
            .clear_failed(&self.context.options.target.display, object)?;
        self.context.counters.failed = self.context.failed.len() as u64;
        self.context.tell_failed();
        Ok(())
    }

    /// Names what is visible on the target now.
    fn tell_applied(&self, ended: &[InFlight]) -> Result<(), StoreError> {
        let is_change = |flight: &InFlight| {
            !matches!(
                flight,
                InFlight::Withdrawn { .. }
                    | InFlight::Adopt { .. }
                    | InFlight::Owners { .. }
                    | InFlight::Mark
            )
        };
        let applied = ended.iter().filter(|flight| is_change(flight)).count() as u64;
        let mut changes = Vec::new();
        let is_audited = self.context.options.audit;
        let is_told = self.was_in_sync || self.context.observer.wants_all_changes();
        if is_told || is_audited {
            let source = &self.context.source;
            for flight in ended {
                let (path, bytes) = match (flight, flight.object()) {
                    (InFlight::Content { object, .. }, _) => {
                        let entry = source.catalog.read(|view| view.get(*object))?;
                        (source.path_of(*object), entry.map(|entry| entry.size))
                    }
                    (InFlight::Remove { place, .. }, _) => (source.path_at(place), None),
                    (_, Some(object)) => (source.path_of(object), None),
                    (_, None) => continue,
                };
                let verb = flight.verb();
                if is_told && flight.object().is_some() {
                    self.context.observer.applied(verb, &path);
                }
                if is_audited && is_change(flight) {
                    let (from, to) = (source.path.display(), self.target());
                    let mirror = self.context.options.mirror.as_deref();
                    tracing::info!(target: "driftless::audit", mirror, source = %from, target = to, op = verb, path, bytes, "applied");
                }
                if is_change(flight) {
                    changes.push(AppliedChange {
                        verb: verb.to_owned(),
                        path,
                        bytes,
                    });
                }
            }
        }
        if applied > 0 {
            self.context.observer.batch(applied, &changes);
        }
        Ok(())
    }

    fn handle_cursor(&mut self, cursor: Option<Cursor>) -> Result<(), Ended> {
        if let Some(cursor) = cursor.filter(|cursor| Some(*cursor) != self.cursor) {
            self.cursor = Some(cursor);
            if cursor.incarnation == self.context.incarnation {
                let source = &mut *self.context.source;
                // The cursor must never be ahead of the catalog that it speaks of.
                source.catalog.update(true, |t| {
                    t.drop_tombstones_through(cursor.sequence)?;
                    source.ledger.keep(t)
                })?;
                source
                    .state
                    .set_acknowledged(&self.context.options.target.display, cursor)?;
                source.acknowledged = cursor.sequence;
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
        let Some(flight) = self.window.end(number).map(|sent| sent.flight) else {
            return Ok(());
        };
        self.signatures.remove(&number);
        self.spans_held.remove(&number);
        self.context.counters.ops_done += 1;
        self.has_failed |= kind != FailureKind::Withheld;
        self.has_failed_since |= kind != FailureKind::Withheld;
        if let InFlight::Remove { object, place, .. } = &flight {
            let (object, place) = (*object, place.clone());
            if self.handle_not_removed(object, place.clone(), kind) {
                return Ok(());
            }
            self.note_unremoved(flight);
            return self.fail_at(object, place, kind as u8, text, held);
        }
        if let InFlight::Owners { .. } = flight {
            // Nothing must go to the wrong owner; another connection tells them anew.
            return Err(Ended::Lost(format!(
                "the target cannot tell whose things are whose: {text}"
            )));
        }
        let Some(object) = flight.object() else {
            self.must_reconcile |= kind == FailureKind::Mismatch;
            return Ok(());
        };
        if kind == FailureKind::Withheld {
            return self.handle_withheld(&flight, object);
        }
        self.context.barriers.handle_given_up(object);
        self.free(object);
        let tries = self.tries.entry(object).or_insert(0);
        *tries += 1;
        match kind {
            FailureKind::Basis if *tries < ORDER_TRIES => {
                self.forget_basis(object);
                self.uncopied.insert(object);
                self.again.push_back(object);
                Ok(())
            }
            FailureKind::WrongDigest if *tries < UNSTABLE_TRIES => {
                self.forget_basis(object);
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
        let refused = match self.tried.remove(&object) {
            Some(tried) => Some(tried),
            None => source
                .catalog
                .read(|view| Ok(view.get(object)?.map(|entry| entry.sequence)))?,
        };
        // A comparison tries what is in error before its time, and shows nothing about how long that will last.
        let is_early = (self.retries.get(&object)).is_some_and(|due| *due > Instant::now());
        let tried = self.context.failed.get(&object).map_or(0, |failed| failed.tries);
        let tries = (tried + u32::from(!is_early)).max(1);
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
            refused,
        };
        source
            .state
            .set_failed(&self.context.options.target.display, &failed)?;
        if tried == 0 {
            let path = source.path_or_place(object, &failed.place);
            self.context.observer.warning(&format!("{path}: {text}"));
        }
        self.context.failed.insert(object, failed);
        self.context.ages.handle_done(object);
        self.context.counters.failed = self.context.failed.len() as u64;
        self.context.tell_failed();
        // Some find out whether there is space again; when there is, the others follow at once.
        let is_scout = kind == FailureKind::NoSpace as u8 && self.context.failed.len() <= SPACE_SCOUTS;
        let delay = match is_scout {
            true => SPACE_RETRY,
            false => FIRST_RETRY * 2u32.saturating_pow(tries.min(5) - 1),
        };
        self.forget_retry(object);
        if self.context.options.follow {
            self.retry_at(Instant::now() + delay, object);
        }
        Ok(())
    }

    fn retry_at(&mut self, due: Instant, object: ObjectId) {
        self.delayed.insert((due, object));
        self.retries.insert(object, due);
    }

    /// What was in error and is not any more has nothing to wait for.
    fn forget_retry(&mut self, object: ObjectId) {
        if let Some(due) = self.retries.remove(&object) {
            self.delayed.remove(&(due, object));
        }
    }

    /// There is space again on the target: whatever waits for it is tried now. Where space comes in drops, not with each.
    fn retry_for_space(&mut self) {
        if self.space_retried.is_some_and(|at| at.elapsed() < SPACE_RETRY) {
            return;
        }
        self.space_retried = Some(Instant::now());
        let waits = |failed: &&Failed| failed.kind == FailureKind::NoSpace as u8;
        let waiting = self.context.failed.values().filter(waits);
        self.again.extend(waiting.map(|failed| failed.object));
    }

    /// What is in error is tried again in this connection, too.
    pub(super) fn retry_failed_later(&mut self) {
        if self.context.options.follow {
            let due = Instant::now() + FIRST_RETRY;
            let failed: Vec<_> = self.context.failed.keys().copied().collect();
            for object in failed {
                self.retry_at(due, object);
            }
        }
    }
}

fn file_ref(entry: &Entry, directory: Arc<Directory>, only_grows: bool) -> FileRef {
    FileRef {
        object: entry.object,
        directory,
        name: entry.place.name.clone(),
        sequence: entry.sequence,
        hides: entry.flags & flags::HIDES != 0,
        only_grows,
        stamp: stamp_of(entry),
        is_young: false,
    }
}
