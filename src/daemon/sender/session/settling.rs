//! When a session is in sync.

use super::*;
use crate::daemon::sender::extras_in::ExtrasIn;

impl Session<'_, '_> {
    /// Once everything known is sent: removals, a mark, and the comparison of sums. `Some` when in sync.
    pub(super) fn settle(&mut self) -> Result<Option<u64>, Ended> {
        let calm = self.page.is_empty()
            && self.again.is_empty()
            && self.adopts.is_empty()
            && self.reading == 0
            && !self.must_reconcile
            && (self.context.is_calm() || self.looks_away());
        let last = self.context.source.catalog.read(|view| view.last_sequence())?;
        if !calm || self.scanned < last && self.has_more()? {
            return Ok(None);
        }
        self.scanned = self.scanned.max(last);
        if !self.remove_left()? {
            return Ok(None);
        }
        self.send_removals()?;
        let is_waiting = |object: &ObjectId| !self.context.failed.contains_key(object);
        // What waited for removals has been put into `again` by them.
        let is_all_sent = self.again.is_empty()
            && self.deferred.is_empty()
            && self.groups.is_calm()
            && self.bulk.is_empty()
            && self.digesting.is_empty()
            && !self.delayed.iter().any(|(_, object)| is_waiting(object));
        if is_all_sent
            && self.window.is_empty()
            && let Some(text) = self.refused.clone()
        {
            // What failed may be mended by a comparison, as it is in a session that goes on.
            if self.has_failed_since && self.reconciles <= 1 {
                self.must_reconcile = true;
                return Ok(None);
            }
            return Err(Ended::Halted(DaemonError::failed(text)));
        }
        if !is_all_sent || !self.removes.is_empty() || self.is_more_to_follow()? {
            return Ok(None);
        }
        // Something failed, and nothing is in error any more: the same mark again says so. A receiver that publishes at once has kept
        // something back for it.
        let is_mended = self.has_failed
            && self.marked == Some(self.scanned)
            && self.window.is_empty()
            && self.context.failed.is_empty();
        if self.marked != Some(self.scanned) || is_mended {
            self.has_failed &= !is_mended;
            self.marked = Some(self.scanned);
            let sequence = self.scanned;
            self.submit(OpBody::Mark { sequence }, InFlight::Mark);
        }
        let ours = |cursor: &Cursor| cursor.incarnation == self.context.incarnation;
        let cursor = self.cursor.filter(ours).or(self.kept_cursor);
        let Some(cursor) = cursor.filter(|cursor| cursor.sequence == self.scanned) else {
            return Ok(None);
        };
        if !self.window.is_empty() {
            return Ok(None);
        }
        self.tried.clear();
        if !self.in_sync && self.context.failed.is_empty() {
            ExtrasIn::forget(self.context.source)?;
        }
        // With entries in error the two sums differ by design; every one of them is reported.
        if !self.context.source.differs_from(cursor.sum)? {
            self.forget_failures()?;
            return Ok(Some(cursor.sequence));
        }
        if !self.context.failed.is_empty() && self.reconciles_ever > 0 {
            return Ok(Some(cursor.sequence));
        }
        if self.was_in_sync {
            self.context.observer.drift();
        }
        let ledger = &self.context.source.ledger;
        tracing::debug!(unknown = ledger.unknown(), "sums differ at {}", cursor.sequence);
        if ledger.unknown() > 0 && tracing::enabled!(tracing::Level::DEBUG) {
            self.context.source.catalog.read(|view| {
                view.for_each(&mut |entry: Entry| {
                    if crate::daemon::ledger::counted(&entry, ledger.carried()).is_none() {
                        let named = view.lookup(entry.place.directory, &entry.place.name)?;
                        tracing::debug!(?entry, ?named, "content is not known");
                    }
                    Ok(())
                })
            })?;
        }
        self.must_reconcile = true;
        Ok(None)
    }

    /// Whether something on its way to another place gets more when it is there: a mark before that would say that all of it was sent, and
    /// a session that goes on from there would not know.
    fn is_more_to_follow(&self) -> Result<bool, StoreError> {
        if self.marked == Some(self.scanned) {
            return Ok(false);
        }
        let more = flags::STALE | flags::OFFER | flags::ATTRIBUTES;
        self.context.source.catalog.read(|view| {
            for object in self.window.moves() {
                if view.get(object)?.is_some_and(|entry| entry.flags & more != 0) {
                    return Ok(true);
                }
            }
            Ok(false)
        })
    }

    /// Whether a stop that was asked may be now. Where nothing is missing but answers, and second looks at what changed a moment ago,
    /// it waits a little for these: who waits for a change to be durable and stops this then is to hear that the trees are in sync, as
    /// they are. Nothing is begun for that: whatever else there is to do ends it.
    pub(super) fn may_stop(&mut self) -> Result<bool, StoreError> {
        let until = *self.stops_at.get_or_insert_with(|| Instant::now() + LAST_ANSWERS);
        let is_over = self.in_sync || Instant::now() >= until || self.link.silence().is_now();
        Ok(is_over || !self.awaits_only_answers()?)
    }

    fn awaits_only_answers(&self) -> Result<bool, StoreError> {
        let is_content_under_way = self.window.offers() > 0 || self.window.inline_bytes() > 0;
        let is_idle = !self.must_reconcile
            && !is_content_under_way
            && self.page.is_empty()
            && self.adopts.is_empty()
            && self.removes.is_empty()
            && self.deferred.is_empty()
            && self.groups.is_calm()
            && self.bulk.is_empty()
            && self.context.is_calm();
        Ok(is_idle && !self.has_more()?)
    }

    /// What takes long in a large tree is done while nobody waits for it.
    pub(super) fn prepare_for_changes(&mut self) -> Result<(), StoreError> {
        let source = &mut *self.context.source;
        source.keep_sum()?;
        match self.context.options.follow {
            true => source.contents.load(&source.catalog),
            false => Ok(()),
        }
    }

    /// Equal sums leave no room for entries in error: what is still listed was removed at the source meanwhile. But for what has a
    /// number of the target's own, and so is in no sum: it stays in error until it is gone.
    pub(super) fn forget_failures(&mut self) -> Result<(), StoreError> {
        let is_over = |object: &ObjectId| !(object.is_local() && self.unremoved.contains_key(object));
        let over: Vec<_> = self
            .context
            .failed
            .extract_if(|object, _| is_over(object))
            .collect();
        if over.is_empty() {
            return Ok(());
        }
        for (object, _) in over {
            let state = &self.context.source.state;
            state.clear_failed(&self.context.options.target.display, object)?;
            self.delayed.retain(|(_, delayed)| *delayed != object);
        }
        self.context.counters.failed = self.context.failed.len() as u64;
        self.context.tell_failed();
        Ok(())
    }

    pub(super) fn has_more(&self) -> Result<bool, StoreError> {
        let more = self
            .context
            .source
            .catalog
            .read(|view| view.changed_after(self.scanned, 1))?;
        Ok(!more.is_empty())
    }
}
