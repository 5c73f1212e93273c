//! Making things visible, and bringing them to stable storage.

use super::*;
use crate::daemon::receiver::publish::Replaced;

impl<'a> Session<'a> {
    /// Flushes a batch of staged files and makes them visible: few of them at once, many when a flush of the whole file system has ended,
    /// beside which this thread goes on.
    pub(super) fn commit_batch(&mut self) -> Result<(), SessionError> {
        let began = Instant::now();
        let batch = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        if batch.len() > FSYNC_FILES_MAX && self.may_flush_all {
            self.flushing = Some(Flushing {
                began,
                files: batch.len(),
                covers: self.order.prefix(),
            });
            self.flusher.submit(batch);
            return Ok(());
        }
        let mut failed = Vec::new();
        let mut flushed = Vec::with_capacity(batch.len());
        for (number, file) in batch {
            // A file whose flush failed is given up, never flushed again: the kernel may have dropped its pages.
            match if file.is_flushed {
                Ok(())
            } else {
                file.staged.sync()
            } {
                Ok(()) => flushed.push((number, file)),
                Err(error) => failed.push((number, ApplyError::from(error))),
            }
        }
        self.publish_batch(flushed)?;
        for (number, error) in failed {
            self.end_failed(number, Err(error))?;
        }
        self.batches.note(began, Instant::now());
        Ok(())
    }

    /// A flush of the whole file system has ended.
    pub(super) fn handle_flushed(
        &mut self,
        files: Vec<(u64, StagedFile)>,
        outcome: Result<(), FsError>,
    ) -> Result<(), SessionError> {
        let Some(flushing) = self.flushing.take() else {
            return Ok(());
        };
        match outcome {
            Ok(()) => {
                let kept = self.replica.keeper.refuse_condemned();
                kept.map_err(|error| SessionError::Unable(error.to_string()))?;
                // It also covered everything published before it, if that is on this file system, and visible.
                if !self.has_mounts && !self.replica.publishing.is_used() {
                    self.durable = self.durable.max(flushing.covers);
                }
                self.publish_batch(files)?;
            }
            Err(error) => {
                // The kernel tells it once. What was staged meanwhile, and directories, may be hit, too: they are asked one by one, which
                // each of them answers for itself.
                self.may_flush_all = false;
                tracing::warn!("{error}; from now on each file is flushed by itself in this session");
                // What was copied into a working tree is flushed in no other way: it is made anew.
                if self.replica.publishing.must_flush() {
                    return Err(SessionError::Unable(error.to_string()));
                }
                for (number, _) in files {
                    self.end_failed(number, Err(ApplyError::from(error.clone())))?;
                }
            }
        }
        self.batches.note(flushing.began, Instant::now());
        Ok(())
    }

    /// Waits until no flush is under way. Two at a time would not both hear of a failure: the kernel tells it once.
    pub(super) fn settle_flush(&mut self) -> Result<(), SessionError> {
        let done = self.done.clone();
        while self.flushing.is_some() {
            let Some(done) = waiting::receive(&done, None) else {
                break;
            };
            self.handle_done(done)?;
        }
        Ok(())
    }

    /// Makes files visible that are on stable storage.
    fn publish_batch(&mut self, flushed: Vec<(u64, StagedFile)>) -> Result<(), SessionError> {
        let intents: Vec<_> = flushed
            .iter()
            .filter_map(|(number, file)| Some((self.pending.get(number)?.object, file.digest)))
            .collect();
        self.replica.intend(&intents)?;
        let durable = self.replica.is_durable_commit_due();
        let catalog = self.replica.catalog.clone();
        catalog.update(durable, |tables| {
            for (number, file) in flushed {
                let Some(pending) = self.pending.remove(&number) else {
                    continue;
                };
                let Pending { place, object, .. } = pending;
                self.status.count_bytes(file.size);
                self.published += file.size;
                let (mtime, bytes) = (Some(file.attributes.mtime), file.size);
                let spared = self.replica.spare_at(tables, &place, object, Kind::File, mtime);
                let outcome =
                    spared.and_then(|()| self.replica.put_file(tables, place.clone(), object, file));
                if outcome.is_ok() {
                    self.replica.drop_kept(tables, object);
                    named::note_content(&self.status, tables, &place, Some(bytes));
                }
                self.end(tables, number, (Some(object), Some(&place)), outcome);
            }
            Ok(())
        })?;
        Ok(())
    }

    /// A flush that was asked for ahead of its op waits until that op has ended.
    pub(super) fn flush_if_wanted(&mut self) -> Result<(), SessionError> {
        let reached = self.order.prefix() + u64::from(self.order.is_mark_due());
        if self.flush_wanted > self.durable && self.flush_wanted <= reached {
            self.reach_durable()?;
        }
        Ok(())
    }

    /// Brings everything that is visible to stable storage.
    pub(super) fn reach_durable(&mut self) -> Result<(), SessionError> {
        self.settle_flush()?;
        let began = Instant::now();
        let outcome = self.flush_all();
        self.flushes.note(began, Instant::now());
        outcome
    }

    fn flush_all(&mut self) -> Result<(), SessionError> {
        // What lies elsewhere by now is of no use to whoever is told that it is safe here.
        if !self.replica.root.stands_at(&self.replica.path) {
            return Err(SessionError::Unable(format!(
                "{} is no longer the directory that was opened there: it was moved, replaced or unmounted; put it back",
                self.replica.root.shown()
            )));
        }
        self.remove_former()?;
        let is_mark_due = self.order.is_mark_due();
        let ready = match is_mark_due {
            true => {
                let knows_none = self.order.is_mark_repeated();
                let ready = self.replica.prepare_publishing(knows_none);
                ready.map_err(|error| SessionError::Unable(error.text))?
            }
            false => Vec::new(),
        };
        let busy = self
            .pending
            .values()
            .map(|pending| pending.place.directory)
            .collect();
        self.replica.finish_directories(&busy)?;
        self.sync_names(&busy)?;
        // All of it is on stable storage: names may lead to it.
        let mut replaced = Vec::new();
        if !ready.is_empty() {
            let published = self.replica.publish(ready);
            replaced = published.replaced;
            if let Err(error) = published.outcome {
                self.dispose_of(replaced)?;
                return Err(SessionError::Unable(error.text));
            }
        }
        // Nothing ends in between but the mark.
        if is_mark_due {
            self.order.end_mark();
            self.marked = Some(self.order.ended());
        }
        let (prefix, ended) = (self.order.prefix(), self.order.ended());
        // What is not visible yet is behind the last mark.
        let passed = self.order.passed_mark().filter(|_| !self.awaits_mark());
        if let Some(sequence) = passed {
            let sum = self.replica.ledger.fold();
            self.cursor = Some(Cursor {
                incarnation: self.incarnation,
                sequence,
                sum,
            });
        }
        // A mark comes after everything that a comparison found has been dealt with, unless that left something for the next.
        if std::mem::take(&mut self.replica.has_new_strangers) {
            self.listed = None;
        }
        let are_compared = self
            .listed
            .is_some_and(|before| before != self.order.marks_passed());
        self.replica.commit_durably(self.cursor, are_compared)?;
        self.dispose_of(replaced)?;
        (self.durable, self.flushed) = (prefix, ended);
        self.tell_progress();
        // Who hears that acts on what is visible.
        if !self.awaits_mark() {
            self.status.tell_durable();
        }
        if is_mark_due {
            for token in self.awaiting.drain(..) {
                let _ = self.link.control().send(ToSender::Confirmed { token });
            }
        }
        Ok(())
    }

    /// Flushes the directories in which names changed.
    fn sync_names(&mut self, busy: &HashSet<ObjectId>) -> Result<(), SessionError> {
        let unable = |error: &dyn std::fmt::Display| SessionError::Unable(error.to_string());
        let unsynced = std::mem::take(&mut self.replica.unsynced);
        if unsynced.len() > FSYNC_FILES_MAX && self.may_flush_all {
            self.replica
                .root
                .sync_filesystem()
                .map_err(|error| unable(&error))?;
            let kept = self.replica.keeper.refuse_condemned();
            kept.map_err(|error| unable(&error))?;
            let elsewhere = self.replica.directories_off(self.device, unsynced)?;
            self.sync_directories(elsewhere)?;
        } else {
            self.sync_directories(unsynced)?;
            // Where there are more of them than handles, some were opened up once more for that.
            self.replica.finish_directories(busy)?;
            self.replica.keeper.sync().map_err(|error| unable(&error))?;
        }
        Ok(())
    }

    fn sync_directories(&mut self, objects: impl IntoIterator<Item = ObjectId>) -> Result<(), SessionError> {
        let catalog = self.replica.catalog.clone();
        for object in objects {
            let handle = catalog.read(|view| Ok(self.replica.directory(view, object)))?;
            // A directory that was removed meanwhile needs no flush: its parent is in the list.
            if let Ok(handle) = handle {
                handle
                    .sync()
                    .map_err(|error| SessionError::Unable(error.to_string()))?;
            }
        }
        Ok(())
    }

    /// Whether something was done that a mark which is still to come is going to publish. What an entry in error keeps back waits for
    /// another op, and so for nothing that is known to come.
    pub(super) fn awaits_mark(&self) -> bool {
        self.replica.publishing.is_awaited() && self.marked.is_none_or(|marked| self.order.ended() > marked)
    }

    /// Who is told that all is well finds nothing of what was replaced.
    pub(super) fn dispose_of(&mut self, replaced: Vec<Replaced>) -> Result<(), SessionError> {
        if replaced.is_empty() && !self.replica.is_disposal_due() {
            return Ok(());
        }
        if self.replica.dispose_of(replaced)? {
            // Before the sender hears of a sum that was right until now.
            let _ = self.link.control().send(ToSender::Changed);
        }
        Ok(self.replica.commit_durably(self.cursor, false)?)
    }

    /// What stood in the way of nothing, and has no number of the sender any more, goes with the mark after it.
    fn remove_former(&mut self) -> Result<(), SessionError> {
        let marks_passed = self.order.marks_passed();
        if !self.replica.former.is_due(marks_passed) {
            return Ok(());
        }
        let catalog = self.replica.catalog.clone();
        let outcome = catalog.update(false, |t| Ok(self.replica.remove_former(t, marks_passed)))?;
        if outcome.map_err(|error| SessionError::Unable(error.text))? {
            // It is in no sum: without a comparison the sender would take both for equal.
            let _ = self.link.control().send(ToSender::Changed);
        }
        Ok(())
    }

    pub(super) fn tell_progress(&mut self) {
        let now = Progress {
            applied: self.order.prefix(),
            durable: self.durable,
            cursor: self.cursor,
        };
        if now != self.told {
            self.told = now;
            self.status.set_progress(&now);
            let _ = self.link.control().send(ToSender::Progress(now));
        }
        loop {
            let runs = self.order.take_ended_above_prefix(ENDED_RUNS_MAX);
            if runs.is_empty() {
                return;
            }
            let _ = self.link.control().send(ToSender::Ended(Runs(runs)));
        }
    }
}
