//! How a connection begins: what does the target lack, and what does it have that the source has not?

use super::*;
use crate::daemon::sender::extras_in::ExtrasIn;
use crate::fs::is_unparked_name;
use driftless_protocol::{Carried, Kind, XattrClasses};

impl Session<'_, '_> {
    /// Finds out what the target lacks: nothing, what came after its cursor, or whatever a comparison finds.
    pub(super) fn begin(&mut self, opened: &Opened) -> Result<(), Ended> {
        let source = &mut *self.context.source;
        let lacking = lacking(source.can_carry(), opened.carried);
        if !lacking.is_empty() && self.reconciles_ever == 0 {
            let text = format!(
                "{} does not take {lacking}: they are left out there",
                opened.root_path
            );
            self.context.observer.warning(&text);
        }
        if !opened.may_delete && self.reconciles_ever == 0 {
            let text = format!(
                "this machine may not delete on {}: what is removed here stays there",
                opened.root_path
            );
            self.context.observer.warning(&text);
        }
        if source.set_carried(opened.carried)? {
            let found = source.scan().map_err(Ended::Halted)?;
            self.context.counters.skipped = found.skipped;
        }
        let target = &self.context.options.target.display;
        let equal = !source.differs_from(opened.sum)?;
        let acknowledged = source.state.acknowledged(target)?;
        source.acknowledged = match acknowledged {
            Some(cursor) if source.is_of_this_journal(&cursor)? => cursor.sequence,
            _ => 0,
        };
        source.note_gone()?;
        let resumable = opened.bound && opened.cursor.is_some() && opened.cursor == acknowledged;
        let valid = |cursor: &Cursor| source.is_of_this_journal(cursor).unwrap_or(false);
        let compared = source.compared_through()?;
        let is_decided = source.is_start_decided()?;
        let first = !opened.bound || opened.demoted || !is_decided;
        let kept = source
            .state
            .value(EXTRAS_KEPT)?
            .and_then(|bytes| bytes.try_into().ok());
        self.context.counters.extras_kept = kept.map_or(0, u64::from_be_bytes);
        let distrusts = self.context.options.compare.reads_all() && !self.context.was_compared;
        if source.rules_changed || distrusts || ExtrasIn::is_any(source)? {
            tracing::debug!(distrusts, "compared whatever is known");
            self.reconcile(opened, opened.is_empty)
        } else if equal && !first {
            tracing::debug!("sums are equal");
            source.note_met()?;
            // Nothing that these tell of is there.
            self.covered.through = compared;
            // What is flagged is on the target all the same; a later change finds out.
            let cursor = opened.cursor.filter(|_| resumable);
            self.scanned = cursor.map_or(0, |cursor| cursor.sequence);
            // A cursor is told when all before it is durable: nothing is left to ask for, and a mark would cost a round trip.
            self.kept_cursor = cursor.filter(|cursor| valid(cursor) && cursor.sum == opened.sum);
            self.marked = self.kept_cursor.map(|cursor| cursor.sequence);
            Ok(source.recall_graves(self.scanned, &self.covered)?)
        } else if let Some(cursor) = opened
            .cursor
            .filter(|cursor| resumable && !first && valid(cursor) && cursor.sum == opened.sum)
            .filter(|cursor| cursor.sequence >= compared)
        {
            tracing::debug!(cursor.sequence, "resuming at the cursor");
            source.note_met()?;
            self.scanned = cursor.sequence;
            source.recall_graves(self.scanned, &self.covered)?;
            let is_limited = self.context.fuse.has_limit() && !source.graves.is_empty();
            match is_limited && source.has_lost_one(self.scanned)? {
                // What takes the place that it has there would displace it, and it may have to wait itself.
                true => self.reconcile(opened, opened.is_empty),
                false => Ok(()),
            }
        } else {
            self.reconcile(opened, opened.is_empty)
        }
    }

    /// Compares everything. `is_empty`: the receiver's tree holds nothing, as it said and as long as nothing was sent.
    pub(super) fn reconcile(&mut self, opened: &Opened, is_empty: bool) -> Result<(), Ended> {
        self.context.observer.phase(&Phase::Comparing);
        self.reconciles += 1;
        self.reconciles_ever += 1;
        self.has_failed_since = false;
        self.context.source.has_lost_place = false;
        self.context.barriers.ask_again();
        // What took whose place on the target is found out without a record of what went.
        self.context.source.newcomers.forget();
        // By this session, or by an earlier one that was the last to write there.
        let is_met = self.reconciles_ever > 1 || opened.bound && !opened.demoted;
        let beforehand = Beforehand {
            is_empty,
            may_move: is_met && self.deletes_extras()? == Deletes::Always,
            tried: &self.tries,
            may_delete: self.deletes_extras()? == Deletes::Always,
        };
        let (source, stop) = (&mut *self.context.source, &self.context.stop);
        let mut outcome = reconcile(source, self.link, opened, beforehand, stop)?;
        self.unremoved.clear();
        self.covered = std::mem::take(&mut outcome.covered);
        if self.covered.through > 0 {
            // They are found again, or told by the journal once more.
            let is_decided = |removal: &Removal| removal.is_admitted || removal.is_kept || removal.is_spared;
            self.removes.retain(is_decided);
        }
        self.decide_on_extras(opened, outcome)?;
        if !self.covered.but.is_empty() {
            // What they tell of is none of what was found.
            let source = &mut *self.context.source;
            let found = std::mem::take(&mut source.unsent_deletions);
            source.recall_graves(0, &self.covered)?;
            source.unsent_deletions = source.unsent_deletions.saturating_add(found);
        }
        self.release_unfound()?;
        self.context.source.note_met()?;
        self.context.source.conclude_initial()?;
        // The root's own attributes are in no listing.
        let source = &mut *self.context.source;
        source.rules_changed = false;
        source.state.put_value(extras::RULES, &source.rules_print())?;
        source.catalog.clone().update(false, |t| {
            let Some(mut root) = t.get(ObjectId::ROOT)?.filter(|_| !opened.carried.leaves_root) else {
                return Ok(());
            };
            root.flags |= flags::ATTRIBUTES;
            root.sequence = t.next_sequence()?;
            source.put(t, &root)
        })?;
        self.scanned = 0;
        self.page.clear();
        self.marked = None;
        self.kept_cursor = None;
        self.must_reconcile = false;
        self.context.was_compared = true;
        Ok(())
    }

    /// First contact deletes nothing unasked.
    pub(super) fn decide_on_extras(&mut self, opened: &Opened, outcome: Reconciled) -> Result<(), Ended> {
        let Reconciled {
            adopt,
            mut extras,
            replaced,
            let_go,
            ..
        } = outcome;
        let add = |sum: u64, extra: &Extra| sum.saturating_add(extra.entries);
        let is_initial_skipped = self.context.source.start.is_some();
        let mut left = 0;
        if is_initial_skipped {
            // What only the target has, and not from here.
            let own = extras.extract_if(.., |extra| extra.object.is_local());
            left = own.fold(0, |sum: u64, extra| sum.saturating_add(extra.entries));
        }
        let deletes = self.deletes_extras()?;
        let judged = match self.context.source.may_protect() && deletes != Deletes::Never {
            true => Some(self.judge_extras(extras.clone(), replaced.clone())?),
            false => None,
        };
        let all = || extras.iter().chain(&replaced).fold(0, add);
        let count = judged.as_ref().map_or_else(all, |judged| judged.at_risk);
        let blocked = replaced.iter().fold(0, |sum: u64, extra| {
            sum.saturating_add(extra.entries.saturating_sub(1))
        });
        // A receiver that does not know this mirror, any more or yet, may offer another tree than last time.
        // Later in the same connection, what is extra is what the source lost meanwhile.
        // One that was demoted holds what was done there meanwhile.
        let unknown = (!opened.bound || opened.demoted) && self.reconciles_ever == 1;
        let first = unknown || self.context.source.state.value(DELETES)?.is_none();
        let first = first && !is_initial_skipped;
        let asked = self.context.options.deletes != Deletes::Ask;
        let keeps_all = deletes == Deletes::Never && blocked > 0;
        if (first && count > 0 && !asked && self.may_delete) || (first && keeps_all) {
            let text = format!(
                "{} holds {count} {} that {} lacks: nothing was sent and nothing deleted; run again with \
                 `--delete always` to delete{} (in a configuration: the key `delete` of the mirror)",
                self.context.options.target,
                if count == 1 { "entry" } else { "entries" },
                self.context.source.path.display(),
                if blocked > 0 {
                    " (directories stand where the source has something else, so they cannot be kept)"
                } else {
                    ", or `--delete never` to keep them"
                },
            );
            return Err(Ended::Halted(DaemonError::failed(text)));
        }
        let decided: &[u8] = if deletes == Deletes::Never {
            b"never"
        } else {
            b"always"
        };
        let state = &self.context.source.state;
        if self.may_delete && (asked || !is_initial_skipped) {
            // Otherwise nothing was decided here: whoever may delete one day is asked then.
            state.put_value(DELETES, decided)?;
        }
        let kept = if deletes == Deletes::Never {
            extras.iter().fold(left, add)
        } else {
            left
        };
        state.put_value(EXTRAS_KEPT, &u64::to_be_bytes(kept))?;
        self.context.counters.extras_kept = kept;
        for (place, object) in let_go {
            self.let_go(place, object);
        }
        let numbers: HashSet<ObjectId> = adopt.iter().map(|(_, object, _)| *object).collect();
        let others = extras.iter().chain(&replaced);
        self.renumbered = others
            .filter(|extra| numbers.contains(&extra.object))
            .map(|extra| (extra.object, extra.place.clone()))
            .collect();
        self.adopts.extend(adopt);
        self.settle_graves();
        if let Some(judged) = judged {
            // What takes their places waits until they are gone.
            // Without a filter that protects, what is no directory stays until they can take its place.
            let all_make_room = self.context.source.filter_may_protect();
            let in_the_way = |removal: &&Removal| {
                let makes_room = all_make_room && removal.is_replaced || removal.kind == Kind::Directory;
                !removal.is_kept && makes_room
            };
            let graves = judged.removals.iter().filter(in_the_way);
            let graves = graves
                .map(|removal| (removal.place.clone(), removal.object))
                .collect();
            self.add_graves(graves)?;
            self.queue_removals(judged.removals);
            return self.block(&judged.blocked);
        }
        let stood = self.stood_elsewhere(&extras)?;
        let removal = |extra: Extra, is_replaced| Removal {
            object: extra.object,
            was: None,
            stood: stood.get(&extra.object).cloned(),
            place: extra.place,
            kind: extra.kind,
            entries: extra.entries,
            is_admitted: false,
            is_replaced,
            is_spared: deletes == Deletes::Never && !is_replaced,
            is_judged: true,
            is_kept: false,
        };
        let is_removed = |extra: &Extra| deletes != Deletes::Never || !extra.object.is_local();
        let extras = extras.into_iter().filter(is_removed);
        let extras = extras.map(|extra| removal(extra, false));
        // A directory that the target keeps keeps its place as well, and what belongs there is in error.
        let holds_any = |extra: &Extra| keeps_all && extra.entries > 1;
        let (kept, replaced): (Vec<_>, Vec<_>) = replaced.into_iter().partition(holds_any);
        let places: Vec<Place> = kept.iter().map(|extra| extra.place.clone()).collect();
        let kept = (kept.into_iter()).filter(|extra| !extra.object.is_local());
        let kept = kept.map(|extra| Removal {
            is_kept: true,
            ..removal(extra, true)
        });
        let replaced = replaced.into_iter().map(|extra| removal(extra, true));
        let removals: Vec<_> = extras.chain(kept).chain(replaced).collect();
        self.block(&places)?;
        let unspared = (removals.iter()).filter(|removal| !(removal.is_spared || removal.is_kept));
        // Something may take the place of any of these only later.
        let is_directory =
            |removal: &&Removal| !(removal.is_spared || removal.is_kept) && removal.kind == Kind::Directory;
        let graves = removals.iter().filter(is_directory);
        let graves = graves
            .map(|removal| (removal.place.clone(), removal.object))
            .collect();
        self.context.source.unsent_deletions =
            unspared.fold(0, |sum: u64, removal| sum.saturating_add(removal.entries));
        self.add_graves(graves)?;
        self.queue_removals(removals);
        Ok(())
    }

    /// Where directories stood here when they were removed that made room for others on the target when the connection broke, and so have
    /// names there that they never had here.
    fn stood_elsewhere(&self, extras: &[Extra]) -> Result<HashMap<ObjectId, Place>, StoreError> {
        let trees = extras
            .iter()
            .filter(|extra| extra.is_tree_of_the_mirror() && is_unparked_name(&extra.place.name));
        let found: HashSet<ObjectId> = trees.map(|extra| extra.object).collect();
        if found.is_empty() {
            return Ok(HashMap::new());
        }
        let catalog = &self.context.source.catalog;
        let gone = catalog.update(false, |t| t.tombstones_through(t.last_sequence()?))?;
        let theirs = gone.into_iter().filter(|(_, object, _)| found.contains(object));
        Ok(theirs.map(|(_, object, place)| (object, place)).collect())
    }

    /// Queues what a comparison found. What is held back since an earlier one was found again, and counts once.
    fn queue_removals(&mut self, found: impl IntoIterator<Item = Removal>) {
        let found: Vec<Removal> = found.into_iter().collect();
        let again: HashSet<(ObjectId, &Place)> = found
            .iter()
            .map(|removal| (removal.object, &removal.place))
            .collect();
        self.removes
            .retain(|queued| !again.contains(&(queued.object, &queued.place)));
        drop(again);
        self.removes.extend(found);
    }
}

/// What could be carried from here and is not taken there, in words.
fn lacking(here: Carried, there: Carried) -> String {
    let class = |class: XattrClasses| here.xattrs.contains(class) && !there.xattrs.contains(class);
    let words = [
        (here.owner && !there.owner, "owners and groups"),
        (here.devices && !there.devices, "devices"),
        (class(XattrClasses::USER), "user.* attributes"),
        (class(XattrClasses::ACL), "ACLs"),
        (class(XattrClasses::CAPABILITY), "file capabilities"),
    ];
    let lacking: Vec<_> = words
        .iter()
        .filter(|(lacks, _)| *lacks)
        .map(|(_, word)| *word)
        .collect();
    lacking.join(", ")
}
