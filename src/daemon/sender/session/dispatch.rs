//! From the journal to ops: what goes next, what has to wait for what.

use super::*;

impl Session<'_, '_> {
    /// Nothing is under way for an object any more; what changed meanwhile has its turn.
    pub(super) fn free(&mut self, object: ObjectId) {
        self.busy.remove(&object);
        if self.deferred.remove(&object) {
            self.again.push_back(object);
        }
    }

    pub(super) fn may_dispatch(&self) -> bool {
        self.reading < READS_MAX
            && self.in_flight.len() < IN_FLIGHT_MAX
            && self.inline_bytes < INLINE_IN_FLIGHT_BYTES_MAX / 2
            && self.pump_bytes.load(Ordering::Acquire) < PUMP_BYTES_MAX
    }

    /// Takes the journal in order, as far as the windows allow.
    pub(super) fn dispatch(&mut self) -> Result<(), Ended> {
        if self.must_reconcile {
            return Ok(());
        }
        let catalog = self.context.source.catalog.clone();
        while self.may_dispatch() {
            if let Some((place, object)) = self.adopts.pop_front() {
                let parent = self.placed.get(&place.directory).copied().unwrap_or(0);
                let number = self.emit(parent, false, OpBody::Adopt { place, object }, 0);
                self.placed.insert(object, number);
                self.in_flight.insert(number, InFlight::Other);
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
                break;
            };
            self.scanned = sequence;
            match change {
                Change::Object(object) => self.dispatch_object(object)?,
                Change::Removed { object, place, .. } => {
                    self.removes.push_back(Removal {
                        object,
                        place,
                        is_replaced: false,
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
                let here = entry.flags & flags::ON_TARGET != 0 || self.placed.contains_key(&entry.object);
                let settled = here && entry.object != object;
                if settled {
                    break;
                }
                climb.push(entry);
            }
            Ok(climb)
        })?;
        while let Some(entry) = climb.pop() {
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
        let retry = self.tries.get(&object).copied().unwrap_or(0) >= UNSTABLE_TRIES;
        let body = match work::next(&entry, retry) {
            Next::Nothing => return Ok(()),
            Next::Op(body, flight) => {
                let number = self.emit_after(&entry.place, object, body);
                if matches!(flight, InFlight::Move { .. }) {
                    self.last_move = number;
                }
                self.fly(number, flight);
                return Ok(());
            }
            Next::Link => {
                let Some(file) = self.file_ref(object)? else {
                    return Ok(());
                };
                let Ok(target) = file.directory.read_link(&file.name) else {
                    return Ok(());
                };
                let flight = InFlight::Link {
                    object,
                    digest: Digest::of(&target),
                    attributes: entry.attributes,
                };
                let (place, attributes) = (entry.place.clone(), entry.attributes);
                let body = OpBody::PutSymlink {
                    place,
                    object,
                    attributes,
                    target: LinkTarget(target),
                };
                let number = self.emit_after(&entry.place, object, body);
                self.fly(number, flight);
                return Ok(());
            }
            Next::Offer => {
                self.offer(&entry, None, None);
                return Ok(());
            }
            Next::Read | Next::Digest if self.is_too_fresh(&entry) => {
                self.delayed.insert((Instant::now() + CLOCK_TICK, object));
                return Ok(());
            }
            Next::Read => ReadJob::Whole as fn(FileRef) -> ReadJob,
            Next::Digest => ReadJob::Digest as fn(FileRef) -> ReadJob,
        };
        if let Some(file) = self.file_ref(object)? {
            self.busy.insert(object);
            self.reading += 1;
            self.context.counters.files_read += 1;
            let _ = self.jobs.send(body(file));
        }
        Ok(())
    }

    /// A file that was sent before and changed within the same tick of its file system's clock looks the same after
    /// the next write: it is read again when that cannot happen any more ("racily clean").
    pub(super) fn is_too_fresh(&self, entry: &Entry) -> bool {
        let sent = entry.flags & flags::ON_TARGET != 0 && entry.digest.is_some();
        sent && stamp_of(entry).is_some_and(|stamp| is_within_tick(&stamp))
    }

    pub(super) fn fly(&mut self, number: u64, flight: InFlight) {
        if let Some(object) = flight.object() {
            self.busy.insert(object);
        }
        self.in_flight.insert(number, flight);
    }

    pub(super) fn offer(&mut self, entry: &Entry, digest: Option<Digest>, stat: Option<&Stat>) {
        let object = entry.object;
        let attributes = stat.map_or(entry.attributes, |stat| stat.attributes);
        let size = stat.map_or(entry.size, |stat| stat.size);
        let content = Content::Offer { size, digest };
        let body = OpBody::PutFile {
            place: entry.place.clone(),
            object,
            attributes,
            content,
        };
        let number = self.emit_after(&entry.place, object, body);
        let stamp = stat.map(|stat| stat.stamp);
        self.context.counters.files_sent += 1;
        self.context.counters.content_bytes_total += size;
        self.fly(
            number,
            InFlight::Content {
                object,
                place: entry.place.clone(),
                digest,
                stamp,
                attributes,
            },
        );
    }

    pub(super) fn dependency(&self, place: &Place, object: ObjectId) -> u64 {
        let placed = |object: &ObjectId| self.placed.get(object).copied().unwrap_or(0);
        placed(&place.directory).max(placed(&object)).max(self.last_move)
    }

    pub(super) fn emit_after(&mut self, place: &Place, object: ObjectId, body: OpBody) -> u64 {
        let after = self.dependency(place, object);
        let barrier = matches!(body, OpBody::Move { .. });
        let makes = matches!(body, OpBody::MakeDirectory { .. });
        let number = self.emit(after, barrier, body, 0);
        if makes {
            self.placed.insert(object, number);
        }
        number
    }

    pub(super) fn emit(&mut self, after: u64, barrier: bool, body: OpBody, weight: usize) -> u64 {
        self.number += 1;
        let number = self.number;
        self.context.counters.ops_total += 1;
        if weight > 0 {
            self.inline_bytes += weight;
            self.inline.push_back((number, weight));
        }
        self.send(
            OpMessage::Op(Op {
                number,
                after,
                barrier,
                body,
            }),
            weight + 128,
        );
        number
    }

    pub(super) fn send(&self, message: OpMessage, bytes: usize) {
        self.pump_bytes.fetch_add(bytes, Ordering::AcqRel);
        let _ = self.pump.send((message, bytes));
    }
}
