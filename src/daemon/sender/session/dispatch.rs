//! From the journal to ops: what goes next, what has to wait for what.

use super::*;
use crate::daemon::sender::{OwnerKey, owner_keys, owner_messages};
use crate::engine::delta::Engine;
use crate::engine::owners::acl_owners;
use driftless_protocol::message::ToReceiver;

impl Session<'_, '_> {
    /// Nothing is under way for an object any more; what changed meanwhile has its turn.
    pub(super) fn free(&mut self, object: ObjectId) {
        self.busy.remove(&object);
        self.groups.free(object, &mut self.again);
        if self.deferred.remove(&object) {
            self.again.push_back(object);
        }
    }

    pub(super) fn may_dispatch(&self) -> bool {
        self.before.is_none()
            && self.reading < self.reads_max
            && self.window.len() < IN_FLIGHT_MAX
            && self.window.inline_bytes() < INLINE_IN_FLIGHT_BYTES_MAX / 2
            && self.pump_bytes.load(Ordering::Acquire) < PUMP_BYTES_MAX
    }

    /// Whether changes have to wait for something that runs before they leave.
    fn waits_before_batch(&mut self) -> Result<bool, StoreError> {
        if let Some(before) = &self.before {
            if before.try_recv() == Err(crossbeam_channel::TryRecvError::Empty) {
                return Ok(true);
            }
            self.before = None;
        }
        let is_about_to_leave =
            self.is_first_to_leave && (!self.again.is_empty() || !self.page.is_empty() || self.has_more()?);
        if is_about_to_leave {
            self.is_first_to_leave = false;
            self.before = self.context.observer.before_batch();
        }
        Ok(self.before.is_some())
    }

    /// Takes the journal in order, as far as the windows allow.
    pub(super) fn dispatch(&mut self) -> Result<(), Ended> {
        if self.must_reconcile || self.waits_before_batch()? {
            return Ok(());
        }
        let catalog = self.context.source.catalog.clone();
        while self.may_dispatch() {
            if let Some((place, object, assumed)) = self.adopts.pop_front() {
                let body = OpBody::Adopt {
                    place,
                    object,
                    assumed,
                };
                self.submit(body, InFlight::Adopt { object });
                continue;
            }
            if let Some(object) = self.again.pop_front() {
                self.dispatch_object(object)?;
                continue;
            }
            if self.page.is_empty() {
                self.page = catalog
                    .read(|view| view.changed_after(self.scanned, 1_024))?
                    .into();
            }
            let Some((sequence, change)) = self.page.pop_front() else {
                // Bulk goes when nothing else is to be done, and only so much of it.
                if self.bulk_has_room()
                    && let Some(object) = self.bulk.pop()
                {
                    self.dispatch_object(object)?;
                    continue;
                }
                break;
            };
            self.scanned = sequence;
            match change {
                Change::Object(object) => self.dispatch_object(object)?,
                Change::Removed { .. } if self.covered.includes(sequence) => {}
                Change::Removed {
                    object,
                    place,
                    kind,
                    entries,
                } => {
                    // The record of a place that it left.
                    let is_elsewhere = || catalog.read(|view| Ok(view.get(object)?.is_some()));
                    if self.context.source.start.is_some() && is_elsewhere()? {
                        continue;
                    }
                    let is_spared = self.spares(sequence)?;
                    let heard = self.context.ages.since(sequence);
                    self.removals_since = self.removals_since.into_iter().chain(heard).min();
                    self.removes.push_back(Removal {
                        object,
                        was: None,
                        place,
                        stood: None,
                        kind,
                        entries,
                        is_admitted: false,
                        is_replaced: false,
                        is_spared,
                        is_judged: is_spared || !self.context.source.may_protect(),
                        is_kept: false,
                    });
                }
            }
        }
        Ok(())
    }

    /// Starts what an object needs, its directories first.
    pub(super) fn dispatch_object(&mut self, object: ObjectId) -> Result<(), Ended> {
        let catalog = self.context.source.catalog.clone();
        let mut climb = catalog.read(|view| {
            let mut climb = Vec::new();
            let mut at = object;
            while let Some(entry) = view.get(at)?.filter(|_| climb.len() < 100_000) {
                at = entry.place.directory;
                let here = entry.flags & flags::ON_TARGET != 0 || self.window.is_being_placed(entry.object);
                let settled = here && entry.object != object;
                if settled {
                    break;
                }
                climb.push(entry);
            }
            Ok(climb)
        })?;
        if climb.is_empty() {
            self.retry_removal(object);
        }
        if climb
            .first()
            .is_some_and(|entry| self.context.source.is_left(entry))
        {
            return Ok(());
        }
        while let Some(entry) = climb.pop() {
            let entry = self.take_up(entry)?;
            if !self.busy.contains(&entry.object) {
                self.start(entry)?;
            } else if entry.object == object {
                self.deferred.insert(object);
            }
        }
        Ok(())
    }

    pub(super) fn start(&mut self, entry: Entry) -> Result<(), Ended> {
        let object = entry.object;
        if self.is_begun_too_often(object) || self.is_kept_out(&entry)? || self.is_spared(&entry)? {
            return Ok(());
        }
        let retry = self.tries.get(&object).copied().unwrap_or(0) >= UNSTABLE_TRIES;
        let next = self.next_of(&entry, retry)?;
        if entry.attributes.link_group != ObjectId(0) && self.start_as_link(&entry, &next)? {
            return Ok(());
        }
        if !matches!(next, Next::Nothing) {
            self.tried.insert(object, entry.sequence);
            self.context
                .ages
                .handle_waiting(object, entry.sequence, Instant::now());
        }
        let digest_against = match next {
            Next::Nothing => return Ok(()),
            Next::Op(body, flight) => {
                self.submit(body, flight);
                return Ok(());
            }
            Next::Link => {
                let Some(file) = self.file_ref_of(&entry)? else {
                    return Ok(());
                };
                if let Some((body, digest)) = put_small(&entry, &file) {
                    let attributes = entry.attributes;
                    let flight = InFlight::Link {
                        object,
                        digest,
                        attributes,
                    };
                    self.submit(body, flight);
                }
                return Ok(());
            }
            Next::Read | Next::Digest | Next::Offer if self.has_to_wait(&entry) => return Ok(()),
            Next::Offer | Next::Digest if !self.bulk_has_room() => {
                self.bulk.push(object);
                return Ok(());
            }
            Next::Offer => {
                self.offer(&entry, None, None);
                return Ok(());
            }
            Next::Read | Next::Digest if self.assumed.due(&entry).is_some() => {
                self.delayed
                    .extend(self.assumed.due(&entry).map(|due| (due, object)));
                return Ok(());
            }
            // Of one that only grows the end is read at once: it is looked at again in any case.
            Next::Read | Next::Digest if self.is_too_fresh(&entry) && !self.may_read_end(&entry)? => {
                self.delayed.insert((Instant::now() + CLOCK_TICK, object));
                return Ok(());
            }
            Next::Read => None,
            // What the target holds is the basis, if we remember it.
            Next::Digest => {
                let on_target = entry.flags & flags::ON_TARGET != 0 && !self.goes_whole(object);
                Some(entry.digest.filter(|_| on_target && self.remembers_contents()))
            }
        };
        if let Some(file) = self.file_ref_of(&entry)? {
            let job = match digest_against {
                None => ReadJob::Whole(file),
                Some(basis) => ReadJob::Digest { file, basis },
            };
            self.busy.insert(object);
            self.groups.carry(entry.attributes.link_group, object);
            self.context.counters.files_read += 1;
            // A large file is read where it keeps no small one waiting.
            if entry.size > SMALL_BYTES_MAX {
                self.digesting.insert(object);
                self.streams.submit(job);
            } else {
                self.reading += 1;
                self.jobs.submit(job);
            }
        }
        Ok(())
    }

    /// Whether what changed is found by what is remembered of the target's contents: not if another engine is to find it.
    fn remembers_contents(&self) -> bool {
        self.context.options.delta_engine != Some(Engine::FastRsync)
    }

    /// What an object needs. A large file that may be a copy is read before it is offered.
    fn next_of(&mut self, entry: &Entry, retry: bool) -> Result<Next, StoreError> {
        let source = &mut *self.context.source;
        Ok(match work::next(entry, retry) {
            Next::Offer if !retry && source.contents.has_size(&source.catalog, entry.size)? => Next::Digest,
            next => next,
        })
    }

    /// Large files may have a slower rhythm than the rest, so that one which changes all the time is not sent all the time.
    /// Not before everything was in sync once.
    fn has_to_wait(&mut self, entry: &Entry) -> bool {
        let Some(large) = self.context.options.large_files.filter(|_| self.was_in_sync) else {
            return false;
        };
        if entry.size < large.bytes || self.context.barriers.wants(entry.object) {
            return false;
        }
        let now = Instant::now();
        let due = *self.large_due.entry(entry.object).or_insert(now + large.delay);
        if due <= now {
            self.large_due.remove(&entry.object);
            return false;
        }
        self.delayed.insert((due, entry.object));
        true
    }

    /// A file that was sent before and changed within the same tick of its file system's clock looks the same after
    /// the next write: it is read again when that cannot happen any more ("racily clean").
    pub(super) fn is_too_fresh(&self, entry: &Entry) -> bool {
        let sent = entry.flags & flags::ON_TARGET != 0 && entry.digest.is_some();
        sent && stamp_of(entry).is_some_and(|stamp| is_within_tick(&stamp))
    }

    /// Whether another large file may be offered or read, or a small one that is to be offered. What is being read may be
    /// offered, too: otherwise many would be read for one place, and read again.
    pub(super) fn bulk_has_room(&self) -> bool {
        self.window.offers() + self.digesting.len() + self.reading < self.offers_max
    }

    pub(super) fn offer(&mut self, entry: &Entry, digest: Option<Digest>, stat: Option<&Stat>) {
        let object = entry.object;
        let attributes = stat.map_or(entry.attributes, |stat| {
            stat.attributes.completed(&entry.attributes)
        });
        let size = stat.map_or(entry.size, |stat| stat.size);
        let content = Content::Offer { size, digest };
        let body = OpBody::PutFile {
            place: entry.place.clone(),
            object,
            attributes,
            content,
        };
        let stamp = stat.map(|stat| stat.stamp);
        self.context.counters.files_sent += 1;
        self.context.counters.content_bytes_total += size;
        let flight = InFlight::Content {
            object,
            sequence: entry.sequence,
            place: entry.place.clone(),
            digest,
            stamp,
            attributes,
        };
        self.submit(body, flight);
    }

    /// Sends an op. What it does is remembered until it has ended.
    pub(super) fn submit(&mut self, mut body: OpBody, mut flight: InFlight) {
        let xattrs = self.read_xattrs(&mut body, &mut flight);
        let waits_for_owners = body
            .attributes()
            .map(owner_keys)
            .is_some_and(|keys| !self.has_named(&[&keys, &acl_owners(&xattrs)[..]].concat()));
        if let Err(error) = self.note_parting(&body, &flight) {
            self.lost = Some(error.to_string());
        }
        if self.lost.is_some() {
            return;
        }
        if let OpBody::Move { to: place, .. }
        | OpBody::MakeDirectory { place, .. }
        | OpBody::PutFile { place, .. }
        | OpBody::PutSymlink { place, .. }
        | OpBody::PutSpecial { place, .. }
        | OpBody::Link { place, .. } = &body
            && let Some((number, object)) = self.window.sending_to(place)
            && flight.object() != Some(object)
        {
            self.withdraw(number, object);
        }
        self.context.counters.ops_total += 1;
        self.busy.extend(flight.object());
        tracing::trace!(?flight, "sent");
        self.groups.note_carrier(&body, &flight);
        let mut op = self.window.issue(body, xattrs, flight);
        op.barrier |= waits_for_owners;
        if let Some(sent) = self.window.get_mut(op.number) {
            self.context.barriers.handle_sent(op.number, &sent.flight);
        }
        let (number, weight) = (op.number, op.held_bytes());
        let is_mark = matches!(op.body, OpBody::Mark { .. });
        if !is_mark {
            // Also what is tried again, which the journal does not tell of, is followed by a mark: a receiver that publishes at
            // once waits for it.
            self.marked = None;
        }
        let is_last = is_mark && !self.context.options.follow;
        self.send(OpMessage::Op(op), weight + 128);
        if is_last && self.link.control().send(ToReceiver::Flush { number }).is_err() {
            self.lost = Some("the connection ended".to_owned());
        }
    }

    /// Whether the target knows these users and groups. If it does not, it is told.
    fn has_named(&mut self, keys: &[OwnerKey]) -> bool {
        if !self.context.source.ledger.carried().owner || self.context.named.knows(keys) {
            return true;
        }
        match self.context.named.news(&self.context.options.owners, keys) {
            Ok(news) => {
                for rows in owner_messages(news) {
                    let told = rows.0.iter().map(|row| (row.kind, row.id)).collect();
                    let bytes = rows.0.len() * 64;
                    let op =
                        self.window
                            .issue(OpBody::Owners(rows), Xattrs::default(), InFlight::Owners { told });
                    self.context.counters.ops_total += 1;
                    self.send(OpMessage::Op(op), bytes + 128);
                }
            }
            // Without an answer nothing may go to whom the number may belong there: the connection is given up, and the
            // next one begins with a look at all of them.
            Err(error) => self.lost = Some(error),
        }
        self.context.named.knows(keys)
    }

    /// The extended attributes that go with an op. If they are others by now than when the object was looked at, the op
    /// says so; the look that follows the event finds out, too.
    fn read_xattrs(&mut self, body: &mut OpBody, flight: &mut InFlight) -> Xattrs {
        let (Some(attributes), Some(object)) = (body.attributes_mut(), flight.object()) else {
            return Xattrs::default();
        };
        if attributes.xattrs.is_none() {
            return Xattrs::default();
        }
        let classes = self.context.source.ledger.carried().xattrs;
        let found = match object {
            ObjectId::ROOT => self.context.source.root.self_xattrs(classes).ok(),
            _ => match self.file_ref(object) {
                Ok(Some(file)) => file.directory.xattrs(&file.name, classes).ok(),
                _ => None,
            },
        };
        let xattrs = found.map_or_else(Xattrs::default, |found| found.xattrs);
        attributes.xattrs = xattrs.digest();
        flight.set_xattrs(attributes.xattrs);
        xattrs
    }

    /// Gives up the transfer of a file whose place is another's now, or that is gone.
    pub(super) fn withdraw(&mut self, number: u64, object: ObjectId) {
        if self.window.withdraw(number, object) {
            self.spans_held.remove(&number);
            self.context.barriers.handle_given_up(object);
            tracing::debug!(
                number,
                object = object.0,
                "the transfer of a file is given up for now"
            );
            self.send(OpMessage::Withdraw { number }, 16);
        }
    }

    /// Withdraws what is being sent and is not there any more.
    pub(super) fn withdraw_removed(&mut self) -> Result<(), StoreError> {
        for (number, object) in self.window.sending() {
            if self
                .context
                .source
                .catalog
                .read(|view| view.get(object))?
                .is_none()
            {
                self.withdraw(number, object);
            }
        }
        Ok(())
    }

    /// Never waits: what has no room yet is the pump's, and all that comes after it, so that it leaves in this order.
    pub(super) fn send(&self, mut message: OpMessage, bytes: usize) {
        if self.pump_bytes.load(Ordering::Acquire) == 0 {
            match self.link.ops().try_send(message) {
                Ok(()) => return,
                Err(back) => message = back,
            }
        }
        self.pump_bytes.fetch_add(bytes, Ordering::AcqRel);
        self.pump.submit((message, bytes));
    }
}

/// The op that puts a symbolic link, a pipe or a device, and the digest of what it is. `None` if it is gone.
fn put_small(entry: &Entry, file: &FileRef) -> Option<(OpBody, Digest)> {
    let (place, object, attributes) = (entry.place.clone(), entry.object, entry.attributes);
    if entry.kind == Kind::Symlink {
        let target = file.directory.read_link(&file.name).ok()?;
        let digest = Digest::of(&target);
        let target = LinkTarget(target);
        let body = OpBody::PutSymlink {
            place,
            object,
            attributes,
            target,
        };
        return Some((body, digest));
    }
    match file.directory.stat(&file.name).ok()??.file_type {
        FileType::Special(special) if special.kind() == entry.kind => {
            let body = OpBody::PutSpecial {
                place,
                object,
                attributes,
                special,
            };
            Some((body, special.digest()))
        }
        _ => None,
    }
}
