//! Making things visible, and bringing them to stable storage.

use super::*;

impl<'a> Session<'a> {
    /// Makes a batch of staged files visible.
    pub(super) fn commit_batch(&mut self) -> Result<(), SessionError> {
        let batch = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        let mut failed = Vec::new();
        let mut whole = true;
        let mut flushed = Vec::with_capacity(batch.len());
        if batch.len() > FSYNC_FILES_MAX {
            if let Err(error) = self.replica.root.sync_filesystem() {
                whole = false;
                failed.extend(
                    batch
                        .into_iter()
                        .map(|(number, _)| (number, ApplyError::from(error.clone()))),
                );
            } else {
                flushed = batch;
            }
        } else {
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
            whole = false;
        }
        if whole {
            let kept = self.replica.keeper.refuse_condemned();
            kept.map_err(|error| SessionError::Unable(error.to_string()))?;
            // The flush of the file system also covered everything published before.
            self.durable = self.durable.max(self.order.prefix());
        }
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
                let mtime = Some(file.attributes.mtime);
                let spared = self.replica.spare_at(tables, &place, object, Kind::File, mtime);
                let outcome =
                    spared.and_then(|()| self.replica.put_file(tables, place.clone(), object, file));
                if outcome.is_ok() {
                    self.replica.drop_kept(tables, object);
                }
                self.end(tables, number, Some(&place), outcome);
            }
            Ok(())
        })?;
        for (number, error) in failed {
            self.end_failed(number, Err(error))?;
        }
        Ok(())
    }

    /// A flush that was asked for ahead of its op waits until that op has ended.
    pub(super) fn flush_if_wanted(&mut self) -> Result<(), SessionError> {
        if self.flush_wanted > self.durable && self.flush_wanted <= self.order.prefix() {
            self.reach_durable()?;
        }
        Ok(())
    }

    /// Brings everything that is visible to stable storage.
    pub(super) fn reach_durable(&mut self) -> Result<(), SessionError> {
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
        let (prefix, ended) = (self.order.prefix(), self.order.ended());
        let busy = self
            .pending
            .values()
            .map(|pending| pending.place.directory)
            .collect();
        self.replica.finish_directories(&busy)?;
        let unable = |error: &dyn std::fmt::Display| SessionError::Unable(error.to_string());
        let unsynced = std::mem::take(&mut self.replica.unsynced);
        if unsynced.len() > FSYNC_FILES_MAX {
            self.replica
                .root
                .sync_filesystem()
                .map_err(|error| unable(&error))?;
            let kept = self.replica.keeper.refuse_condemned();
            kept.map_err(|error| unable(&error))?;
        } else {
            let catalog = self.replica.catalog.clone();
            for object in unsynced {
                let handle = catalog.read(|view| Ok(self.replica.directory(view, object)))?;
                // A directory that was removed meanwhile needs no flush: its parent is in the list.
                if let Ok(handle) = handle {
                    handle.sync().map_err(|error| unable(&error))?;
                }
            }
            // Where there are more of them than handles, some were opened up once more for that.
            self.replica.finish_directories(&busy)?;
            self.replica.keeper.sync().map_err(|error| unable(&error))?;
        }
        if let Some(sequence) = self.order.passed_mark() {
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
            .is_some_and(|before| before != self.order.passed_mark());
        self.replica.commit_durably(self.cursor, are_compared)?;
        (self.durable, self.flushed) = (prefix, ended);
        self.tell_progress();
        self.status.tell_durable();
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
