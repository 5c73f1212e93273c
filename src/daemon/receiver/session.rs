//! One connection of a sender to one module path: ops in, outcomes out.
//!
//! The session thread owns the replica; staging threads write contents aside. A lone change is committed at once;
//! while a commit runs, others gather and form the next batch. A batch is: flush the staged files, publish them,
//! write the catalog, tell *applied*. When nothing is left to do, directories and catalog are flushed and *durable* is
//! told.

use super::apply::StagedFile;
use super::confirms::Confirms;
use super::listing;
use super::look::Look;
use super::pace::Pace;
use super::replica::{ApplyError, Replica};
use super::rights;
use super::staging::{Done, Job, Staging, Wanted};
use super::subject::{check, check_xattrs, object_of, place_of};
use crate::daemon::memory::Spent;
use crate::daemon::status::SessionStatus;
use crate::daemon::waiting;
use crate::engine::delta::Engine;
use crate::engine::order::OpOrder;
use crate::fs::descriptors_for;
use crate::net::{Range, ReceiverLink};
use crate::store::{CatalogRead, StoreError, Tables};
use crossbeam_channel::{Receiver, Select, TryRecvError, unbounded};
use driftless_certs::Rights;
use driftless_protocol::limits::{
    ENDED_RUNS_MAX, INLINE_CONTENT_BYTES_MAX, INLINE_IN_FLIGHT_BYTES_MAX, OWNERS_TOTAL_MAX, WANTED_FILES_MAX,
};
use driftless_protocol::message::{
    Content, Cursor, FailureKind, Op, OpBody, OpFrame, OpMessage, Place, Progress, Runs, SealOp, ToReceiver,
    ToSender,
};
use driftless_protocol::{Attributes, CloseCode, Digest, Kind, ObjectId, Xattrs};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

/// Files in one batch at most.
const BATCH_FILES_MAX: usize = 1_024;
/// Content bytes in one batch at most.
const BATCH_BYTES_MAX: u64 = 64 << 20;
/// Up to this many files are flushed one by one; more by one flush of the file system.
const FSYNC_FILES_MAX: usize = 64;
/// Files asked for at a time.
const WANTED_MAX: usize = if WANTED_FILES_MAX < 32 {
    WANTED_FILES_MAX
} else {
    32
};
/// Threads that stage contents that came inside ops.
const STAGING_THREADS: usize = 2;
/// Threads that sign, compare, check and flush whole files, which may take long.
const FILE_THREADS: usize = 2;
const RANGE_THREADS: usize = 2;

/// Why a session cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The peer broke a rule.
    #[error("{0}")]
    Violation(String),
    /// The peer went over a limit.
    #[error("{0}")]
    Limit(String),
    /// The databases or the disk.
    #[error("{0}")]
    Unable(String),
}

impl SessionError {
    /// What to tell the peer.
    pub fn close_code(&self) -> CloseCode {
        match self {
            SessionError::Violation(_) => CloseCode::Violation,
            SessionError::Limit(_) => CloseCode::Limit,
            SessionError::Unable(_) => CloseCode::Unable,
        }
    }
}

impl From<StoreError> for SessionError {
    fn from(error: StoreError) -> Self {
        SessionError::Unable(error.to_string())
    }
}

/// A file op that has started: what is needed to finish it.
#[derive(Debug)]
struct Pending {
    place: Place,
    object: ObjectId,
    attributes: Attributes,
    xattrs: Arc<Xattrs>,
    /// What the sender offered, for a file whose content is not inside its op.
    offer: Option<(u64, Option<Digest>)>,
}

/// One connection at work.
pub struct Session<'a> {
    link: &'a ReceiverLink,
    replica: &'a mut Replica,
    status: Arc<SessionStatus>,
    incarnation: u128,
    rights: Rights,
    /// Where somebody else found something.
    looks: Receiver<Look>,
    order: OpOrder,
    confirms: Confirms,
    pending: HashMap<u64, Pending>,
    offers: VecDeque<u64>,
    /// Offered files that were asked for and are not complete.
    asked: HashSet<u64>,
    staging: Staging,
    done: Receiver<Done>,
    batch: Vec<(u64, StagedFile)>,
    batch_bytes: u64,
    batches: Pace,
    flushes: Pace,
    /// Content inside ops that have arrived and are not staged yet, by op.
    inline: HashMap<u64, usize>,
    inline_bytes: usize,
    /// Jobs on contents inside ops that have not reported.
    outstanding: usize,
    /// As many as may be published at once; twice as many may be staged.
    batch_files_max: usize,
    wanted_max: usize,
    /// Present files that are being compared with what was offered.
    comparing: usize,
    told: Progress,
    durable: u64,
    /// How many ops had ended at the last flush.
    flushed: u64,
    /// The highest op that the sender wants durable soon.
    flush_wanted: u64,
    cursor: Option<Cursor>,
    /// The tree was listed for a comparison; the mark that had been passed then.
    listed: Option<Option<u64>>,
    /// Content bytes that were made visible.
    published: u64,
    spent: Spent,
    /// Users and groups that were named in ops.
    owners: usize,
}

impl<'a> Session<'a> {
    /// Serves the link until it ends. The replica is left flushed and consistent.
    pub fn run(
        link: &'a ReceiverLink,
        replica: &'a mut Replica,
        status: Arc<SessionStatus>,
        incarnation: u128,
        engine: Engine,
        rights: Rights,
        looks: Receiver<Look>,
    ) -> Result<(), SessionError> {
        let (jobs, job_queue) = unbounded();
        let (file_jobs, file_queue) = unbounded();
        let (done, done_queue) = unbounded();
        let control = link.control().clone();
        let staging = Staging {
            wanted: Wanted::default(),
            done,
            jobs,
            file_jobs,
            control,
            terms: replica.terms.clone(),
            engine,
            spans: replica.spans.clone(),
            takes_whole: link.is_local() || replica.whole_files,
            preallocates: replica.preallocates,
        };
        #[cfg(test)]
        let _work = crate::daemon::simulation::take_over(|| {
            let staged = [&job_queue, &file_queue].map(|queue| staging.clone().simulated_work(queue.clone()));
            let ranges = staging.clone().simulated_ranges(link.bulk().clone());
            staged.into_iter().chain([ranges]).collect()
        });
        #[cfg(test)]
        let is_simulated = _work.is_some();
        #[cfg(not(test))]
        let is_simulated = false;
        std::thread::scope(|scope| {
            let queues = [&job_queue; STAGING_THREADS]
                .into_iter()
                .chain([&file_queue; FILE_THREADS])
                .filter(|_| !is_simulated);
            for queue in queues {
                let (staging, queue) = (staging.clone(), queue.clone());
                scope.spawn(move || staging.work(&queue));
            }
            for _ in (0..RANGE_THREADS).filter(|_| !is_simulated) {
                let (staging, ranges): (Staging, Receiver<Range>) = (staging.clone(), link.bulk().clone());
                scope.spawn(move || staging.take_ranges(&ranges));
            }
            let mut session = Session {
                link,
                replica,
                status,
                incarnation,
                rights,
                looks,
                order: OpOrder::default(),
                confirms: Confirms::default(),
                pending: HashMap::new(),
                offers: VecDeque::new(),
                asked: HashSet::new(),
                staging,
                done: done_queue,
                batch: Vec::new(),
                batch_bytes: 0,
                batches: Pace::of_batches(),
                flushes: Pace::of_flushes(),
                inline: HashMap::new(),
                inline_bytes: 0,
                outstanding: 0,
                batch_files_max: descriptors_for(16, BATCH_FILES_MAX),
                wanted_max: descriptors_for(32, WANTED_MAX),
                comparing: 0,
                told: Progress {
                    applied: 0,
                    durable: 0,
                    cursor: None,
                },
                durable: 0,
                flushed: 0,
                flush_wanted: 0,
                cursor: None,
                listed: None,
                published: 0,
                spent: Spent::default(),
                owners: 0,
            };
            session.replica.root.clear_litter();
            let outcome = session.serve();
            if let Err(error) = &outcome {
                // Before the threads are joined: the range threads end with the link.
                link.close(error.close_code(), &error.to_string());
            } else if link.ended().is_none() {
                // One that has ended keeps its reason.
                link.close(CloseCode::Done, "");
            }
            // What did not arrive holds up no directory any more.
            session.pending.clear();
            let flushed = match &outcome {
                // A flush that failed is not tried again: that it succeeds then would say nothing.
                Err(SessionError::Unable(_)) => Ok(()),
                _ => session.reach_durable(),
            };
            session.stop_threads();
            outcome.and(flushed)
        })
    }

    fn stop_threads(&self) {
        for _ in 0..STAGING_THREADS {
            let _ = self.staging.jobs.send(Job::Stop);
        }
        for _ in 0..FILE_THREADS {
            let _ = self.staging.file_jobs.send(Job::Stop);
        }
    }

    fn serve(&mut self) -> Result<(), SessionError> {
        let (incoming, ops) = (self.link.incoming().clone(), self.link.ops().clone());
        loop {
            if self.status.is_cut() {
                return Ok(());
            }
            let mut ended = false;
            let mut frames = 0;
            // A bounded look at the op streams, so that commits and answers are never starved by arrivals.
            while frames < 8 {
                match ops.try_recv() {
                    Ok(frame) => self.take_frame(frame)?,
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => {
                        ended = true;
                        break;
                    }
                }
                frames += 1;
            }
            loop {
                match incoming.try_recv() {
                    Ok(message) => self.handle_control(message)?,
                    Err(TryRecvError::Empty) => break,
                    // A sender that ends its control stream has ended the session.
                    Err(TryRecvError::Disconnected) => {
                        ended = true;
                        break;
                    }
                }
            }
            while let Ok(done) = self.done.try_recv() {
                self.handle_done(done)?;
            }
            self.take_looks()?;
            self.start_ready()?;
            self.want_more()?;
            let full = self.batch.len() >= self.batch_files_max || self.batch_bytes >= BATCH_BYTES_MAX;
            let gathered = self.outstanding == 0 && ops.is_empty();
            let hurries = ended || self.flush_wanted > self.durable;
            let now = Instant::now();
            let rest = self.batches.due(now).filter(|_| !hurries);
            if full || (gathered && !self.batch.is_empty() && rest.is_none()) {
                self.commit_batch()?;
                self.batches.note(now, Instant::now());
                continue;
            }
            self.tell_progress();
            self.confirm_received();
            self.flush_if_wanted()?;
            if ended {
                return Ok(());
            }
            let mut due = rest.filter(|_| gathered && !self.batch.is_empty());
            if gathered && self.batch.is_empty() && self.flushed < self.order.ended() {
                due = self.flushes.due(now);
                if due.is_none() {
                    self.reach_durable()?;
                    if self.pending.is_empty() {
                        self.spent.rest(self.published);
                    }
                    continue;
                }
            }
            self.wait(&incoming, &ops, due);
        }
    }

    /// Blocks until there is something to do, or it is time for what rests.
    fn wait(&self, incoming: &Receiver<ToReceiver>, ops: &Receiver<OpFrame>, due: Option<Instant>) {
        let mut select = Select::new();
        select.recv(&self.done);
        select.recv(ops);
        select.recv(incoming);
        select.recv(&self.looks);
        waiting::ready(&mut select, due);
    }

    /// Looks again where somebody found something. Between ops the catalog has everything that was done here, so what differs
    /// was not done by us.
    fn take_looks(&mut self) -> Result<(), SessionError> {
        let mut is_told = false;
        while let Ok(look) = self.looks.try_recv() {
            let found = self.replica.look_again(&look.paths, look.how)?;
            if found.must_compare && !std::mem::replace(&mut is_told, true) {
                // Before it is answered: who asked may then rely on it.
                let _ = self.link.control().send(ToSender::Changed);
            }
            let _ = look.answer.send(found);
        }
        Ok(())
    }

    fn take_frame(&mut self, frame: OpFrame) -> Result<(), SessionError> {
        for message in frame.0 {
            match message {
                OpMessage::Op(op) => {
                    self.hold(&op)?;
                    self.count_owners(&op.body)?;
                    self.confirms.note_op(&op);
                    self.order
                        .handle_op(op)
                        .map_err(|fault| SessionError::Violation(fault.to_string()))?;
                }
                OpMessage::Seal(seal) => match rights::check_attributes(&seal.attributes, self.rights) {
                    Ok(()) => self.staging.handle_seal(seal),
                    Err(refusal) => self.refuse_seal(seal.number, refusal)?,
                },
                OpMessage::Withdraw { number } => {
                    // Only an offer can be withdrawn: an inline file's thread reports whatever happens.
                    if self
                        .pending
                        .get(&number)
                        .is_some_and(|pending| pending.offer.is_some())
                    {
                        self.pending.remove(&number);
                        self.asked.remove(&number);
                        self.staging.wanted.withdraw(number);
                        self.offers.retain(|&offer| offer != number);
                        self.confirms.note_complete(number);
                        self.order.handle_ended(number);
                    }
                }
            }
        }
        Ok(())
    }

    /// An offered file that turned out to be something that this peer may not make.
    fn refuse_seal(&mut self, number: u64, refusal: ApplyError) -> Result<(), SessionError> {
        if self
            .pending
            .get(&number)
            .is_none_or(|pending| pending.offer.is_none())
        {
            return Ok(());
        }
        self.asked.remove(&number);
        self.staging.wanted.withdraw(number);
        self.offers.retain(|&offer| offer != number);
        self.end_failed(number, Err(refusal))
    }

    /// A sender has so many users and groups at most.
    fn count_owners(&mut self, body: &OpBody) -> Result<(), SessionError> {
        if let OpBody::Owners(rows) = body {
            self.owners += rows.0.len();
        }
        match self.owners > OWNERS_TOTAL_MAX {
            true => Err(SessionError::Limit(format!(
                "more than {OWNERS_TOTAL_MAX} users and groups were named"
            ))),
            false => Ok(()),
        }
    }

    /// Counts content that sits in memory. A sender knows the limit, too.
    fn hold(&mut self, op: &Op) -> Result<(), SessionError> {
        let bytes = op.held_bytes();
        if bytes == 0 {
            return Ok(());
        }
        self.inline_bytes += bytes;
        self.inline.insert(op.number, bytes);
        if self.inline_bytes > INLINE_IN_FLIGHT_BYTES_MAX {
            let text =
                format!("more than {INLINE_IN_FLIGHT_BYTES_MAX} bytes of content are in flight inside ops");
            return Err(SessionError::Limit(text));
        }
        Ok(())
    }

    fn release(&mut self, number: u64) {
        self.inline_bytes -= self.inline.remove(&number).unwrap_or(0);
    }

    fn handle_control(&mut self, message: ToReceiver) -> Result<(), SessionError> {
        match message {
            ToReceiver::Open(_) => Err(SessionError::Violation("the session was opened twice".to_owned())),
            ToReceiver::List(directories) => {
                if directories.0.contains(&ObjectId::ROOT) {
                    self.replica.wants_comparison = false;
                }
                self.remove_parked()?;
                self.listed = Some(self.order.passed_mark());
                listing::send_listings(self.replica, self.link, &directories.0)
            }
            ToReceiver::ListDisk(_)
            | ToReceiver::Survey { .. }
            | ToReceiver::ReadContents { .. }
            | ToReceiver::Doubt(_) => Err(SessionError::Violation(
                "a look at the disk was asked for on a connection that mirrors".to_owned(),
            )),
            ToReceiver::Owners(_) => Err(SessionError::Violation(
                "owners were named outside of an op on a connection that mirrors".to_owned(),
            )),
            ToReceiver::Flush { number } => {
                self.flush_wanted = self.flush_wanted.max(number);
                self.flush_if_wanted()
            }
            ToReceiver::ConfirmReceived { token, through } => match self.confirms.ask(token, through) {
                true => Ok(()),
                false => Err(SessionError::Limit(
                    "too many confirmations are asked for".to_owned(),
                )),
            },
            ToReceiver::ConfirmDurable { token } => {
                // Told first, so that the sender has heard of every op that the flush is about.
                self.tell_progress();
                self.reach_durable()?;
                let _ = self.link.control().send(ToSender::Confirmed { token });
                Ok(())
            }
        }
    }

    fn confirm_received(&mut self) {
        for token in self.confirms.poll() {
            let _ = self.link.control().send(ToSender::Confirmed { token });
        }
    }

    /// A sender compares when nothing is under way: what is still parked then has lost its own op.
    fn remove_parked(&mut self) -> Result<(), SessionError> {
        let catalog = self.replica.catalog.clone();
        let outcome = catalog.update(false, |tables| Ok(self.replica.remove_parked(tables)))?;
        outcome.map_err(|error| SessionError::Unable(error.text))
    }

    /// A flush that was asked for ahead of its op waits until that op has ended.
    fn flush_if_wanted(&mut self) -> Result<(), SessionError> {
        if self.flush_wanted > self.durable && self.flush_wanted <= self.order.prefix() {
            self.reach_durable()?;
        }
        Ok(())
    }

    /// Carries out every op that may start; file contents go to the staging threads.
    fn start_ready(&mut self) -> Result<(), SessionError> {
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
        let staged = self.outstanding + self.batch.len();
        (staged < 2 * self.batch_files_max).then(|| self.order.poll())?
    }

    fn start(&mut self, tables: &mut Tables<'_>, op: Op) -> Result<(), StoreError> {
        let number = op.number;
        let place = place_of(&op.body).cloned();
        let about = object_of(&op.body);
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
            self.end(tables, number, place.as_ref(), Err(refusal));
            return Ok(());
        }
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
        if outcome
            .as_ref()
            .is_err_and(|error| error.kind == FailureKind::Mismatch)
        {
            for object in place.iter().map(|place| place.directory).chain(about) {
                if let Err(error) = self.replica.mend(tables, object) {
                    tracing::warn!("cannot bring the catalog in step with the disk: {}", error.text);
                }
            }
        }
        self.end(tables, number, place.as_ref(), outcome);
        Ok(())
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
    fn want_more(&mut self) -> Result<(), SessionError> {
        while self.asked.len() + self.comparing < self.wanted_max {
            let Some(number) = self.offers.pop_front() else {
                break;
            };
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

    fn handle_done(&mut self, done: Done) -> Result<(), SessionError> {
        match done {
            Done::Staged(number, file) => {
                self.release(number);
                self.finish_job(number);
                self.confirms.note_complete(number);
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
    fn finish_same(&mut self, number: u64, digest: Digest) -> Result<(), SessionError> {
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
            self.end(tables, number, Some(&place), outcome);
            Ok(())
        })?;
        Ok(())
    }

    fn take_over(
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

    fn end_failed(&mut self, number: u64, outcome: Result<(), ApplyError>) -> Result<(), SessionError> {
        let Some(pending) = self.pending.remove(&number) else {
            return Ok(());
        };
        let catalog = self.replica.catalog.clone();
        catalog.read(|view| {
            self.end(view, number, Some(&pending.place), outcome);
            Ok(())
        })?;
        Ok(())
    }

    /// Every op passes here exactly once.
    fn end(
        &mut self,
        tables: &impl CatalogRead,
        number: u64,
        place: Option<&Place>,
        outcome: Result<(), ApplyError>,
    ) {
        if let Err(ApplyError { kind, text }) = outcome {
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
        }
        self.release(number);
        self.confirms.note_complete(number);
        self.order.handle_ended(number);
    }

    /// Makes a batch of staged files visible.
    fn commit_batch(&mut self) -> Result<(), SessionError> {
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

    /// Brings everything that is visible to stable storage.
    fn reach_durable(&mut self) -> Result<(), SessionError> {
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

    fn tell_progress(&mut self) {
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
