//! One connection to a target: from the opening to "in sync", and then along with every change.
//!
//! The session thread owns the source's catalog and decides; reader threads open files; a pump thread hands ops to the
//! link, so that a slow receiver never keeps this thread from taking acknowledgements. An object has at most one op in
//! flight; what changes meanwhile waits in its one slot of the journal.

use super::reader::{FileRef, ReadDone, ReadJob, read_files};
use super::reconcile::{Extra, ReconcileError, Reconciled, reconcile};
use super::source::{Source, stamp_of};
use super::work::{self, InFlight, Next};
use crate::daemon::ledger::flags;
use crate::daemon::{DaemonError, Deletes, FailedEntry, Observer, Phase, SendCounters, SenderOptions, Stop};
use crate::engine::pending::Pending;
use crate::fs::{Stamp, Stat};
use crate::net::SenderLink;
use crate::store::{CatalogRead, Change, Entry, Failed, IncarnationEnd, StoreError};
use crossbeam_channel::{Receiver, Select, Sender, unbounded};
use driftless_protocol::limits::INLINE_IN_FLIGHT_BYTES_MAX;
use driftless_protocol::message::{
    Content, Cursor, FailureKind, InlineContent, LinkTarget, Op, OpBody, OpMessage, Opened, Place, Progress,
    SealOp, ToSender,
};
use driftless_protocol::{Digest, ObjectId};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const READER_THREADS: usize = 2;
const STREAM_THREADS: usize = 2;
const READS_MAX: usize = 64;
const IN_FLIGHT_MAX: usize = 16_384;
const PUMP_BYTES_MAX: usize = 16 << 20;
const UNSTABLE_TRIES: u32 = 3;
/// How often an op that met another state than believed is tried again, at growing distances, before it counts as
/// failed.
const ORDER_TRIES: u32 = 8;
/// How often sums may disagree before that is an error instead of another comparison.
const RECONCILES_MAX: u32 = 5;
/// Pause of a daemon after that many comparisons in a row.
const RECONCILE_PAUSE: Duration = Duration::from_secs(2);
const FIRST_RETRY: Duration = Duration::from_secs(30);
/// Longest tick of a file system's clock: 100 Hz, and some.
const CLOCK_TICK: Duration = Duration::from_millis(12);
const DURABLE_EVERY: Duration = Duration::from_secs(3);
/// What the user decided at first contact, or `always` where nothing was in question.
const DELETES: &str = "deletes";
const EXTRAS_KEPT: &str = "extras-kept";

/// How a session ended.
#[derive(Debug)]
pub enum Ended {
    /// In sync, and nothing more was asked.
    InSync(u64),
    /// Asked to stop; in sync at this number, if it was.
    Stopped(Option<u64>),
    /// The link is gone; connecting again is right.
    Lost(String),
    /// Somebody has to decide.
    Halted(DaemonError),
}

impl From<StoreError> for Ended {
    fn from(error: StoreError) -> Self {
        Ended::Halted(DaemonError::failed(error.to_string()))
    }
}

impl From<DaemonError> for Ended {
    fn from(error: DaemonError) -> Self {
        Ended::Halted(error)
    }
}

/// What outlives a connection.
pub struct Context<'a> {
    /// What to do.
    pub options: &'a SenderOptions,
    /// The tree.
    pub source: &'a mut Source,
    /// What may have changed.
    pub pending: &'a mut Pending,
    /// Kernel events.
    pub events: Receiver<crate::engine::pending::WatchEvent>,
    /// Who wants to know.
    pub observer: Arc<dyn Observer>,
    /// Counters of the whole run.
    pub counters: SendCounters,
    /// Objects in error.
    pub failed: HashMap<ObjectId, Failed>,
    /// The sender's run.
    pub incarnation: u128,
    /// When to end.
    pub stop: Stop,
    /// When to look at everything, because not everything can be watched.
    pub next_rescan: Option<Instant>,
}

impl Context<'_> {
    /// Tells which entries are in error.
    pub fn tell_failed(&self) {
        self.observer.failed(&failed_entries(self.source, &self.failed));
    }

    /// When something has to be looked at, if nothing happens before.
    pub fn deadline(&self) -> Option<Instant> {
        let due = self.pending.poll_deadline();
        due.into_iter().chain(self.next_rescan).min()
    }
}

/// Something that the target has and the source has not.
#[derive(Debug)]
struct Removal {
    object: ObjectId,
    place: Place,
    /// Another object of the source takes its place: keeping it is no choice.
    is_replaced: bool,
}

/// A connection at work.
pub struct Session<'a, 'c> {
    context: &'a mut Context<'c>,
    link: &'a SenderLink,
    pump: Sender<(OpMessage, usize)>,
    pump_bytes: Arc<AtomicUsize>,
    jobs: Sender<ReadJob>,
    streams: Sender<ReadJob>,
    done: Receiver<ReadDone>,
    number: u64,
    last_move: u64,
    /// The op of this session that put a directory in place.
    placed: HashMap<ObjectId, u64>,
    in_flight: BTreeMap<u64, InFlight>,
    busy: HashSet<ObjectId>,
    deferred: BTreeSet<ObjectId>,
    again: VecDeque<ObjectId>,
    page: VecDeque<(u64, Change)>,
    scanned: u64,
    /// Numbers to be given to what the target has, parents first.
    adopts: VecDeque<(Place, ObjectId)>,
    removes: VecDeque<Removal>,
    reading: usize,
    /// Content inside ops that the target has not applied yet, by op.
    inline: VecDeque<(u64, usize)>,
    inline_bytes: usize,
    signatures: HashMap<u64, Vec<u8>>,
    /// Offers that the receiver asked about.
    asked: BTreeSet<u64>,
    tries: HashMap<ObjectId, u32>,
    /// Objects whose delta was refused: sent whole.
    whole: HashSet<ObjectId>,
    delayed: BTreeSet<(Instant, ObjectId)>,
    marked: Option<u64>,
    cursor: Option<Cursor>,
    must_reconcile: bool,
    reconcile_due: Option<Instant>,
    reconciles: u32,
    /// Comparisons in this connection.
    reconciles_ever: u32,
    in_sync: bool,
    was_in_sync: bool,
    last_report: Instant,
    last_durable: Instant,
}

impl<'a, 'c> Session<'a, 'c> {
    /// Works until in sync (without `follow`), stopped, or cut off.
    pub fn run(context: &'a mut Context<'c>, link: &'a SenderLink, opened: &Opened) -> Ended {
        let (pump, pump_queue) = unbounded::<(OpMessage, usize)>();
        let (jobs, job_queue) = unbounded();
        let (streams, stream_queue) = unbounded();
        let (done, done_queue) = unbounded();
        let pump_bytes = Arc::new(AtomicUsize::new(0));
        let halt = Stop::default();
        std::thread::scope(|scope| {
            let ops = link.ops();
            let pumped = pump_bytes.clone();
            scope.spawn(move || {
                for (message, bytes) in pump_queue {
                    if ops.send(message).is_err() {
                        return;
                    }
                    pumped.fetch_sub(bytes, Ordering::AcqRel);
                }
            });
            for queue in [&job_queue; READER_THREADS]
                .into_iter()
                .chain([&stream_queue; STREAM_THREADS])
            {
                let (queue, done, bulk, halt) = (queue.clone(), done.clone(), link.bulk(), halt.clone());
                scope.spawn(move || read_files(&queue, &done, &bulk, &halt));
            }
            let mut session = Session {
                context,
                link,
                pump,
                pump_bytes,
                jobs,
                streams,
                done: done_queue,
                number: 0,
                last_move: 0,
                placed: HashMap::new(),
                in_flight: BTreeMap::new(),
                busy: HashSet::new(),
                deferred: BTreeSet::new(),
                again: VecDeque::new(),
                page: VecDeque::new(),
                scanned: 0,
                adopts: VecDeque::new(),
                removes: VecDeque::new(),
                reading: 0,
                inline: VecDeque::new(),
                inline_bytes: 0,
                signatures: HashMap::new(),
                asked: BTreeSet::new(),
                tries: HashMap::new(),
                whole: HashSet::new(),
                delayed: BTreeSet::new(),
                marked: None,
                cursor: None,
                must_reconcile: false,
                reconcile_due: None,
                reconciles: 0,
                reconciles_ever: 0,
                in_sync: false,
                was_in_sync: false,
                last_report: Instant::now(),
                last_durable: Instant::now(),
            };
            session.retry_failed_later();
            let ended = session
                .begin(opened)
                .and_then(|()| session.serve(opened))
                .unwrap_or_else(|ended| ended);
            halt.request();
            session.report(true);
            link.close(driftless_protocol::CloseCode::Done, "");
            ended
        })
    }

    fn target(&self) -> &'a str
    where
        'c: 'a,
    {
        &self.context.options.target.display
    }

    /// Finds out what the target lacks: nothing, what came after its cursor, or whatever a comparison finds.
    fn begin(&mut self, opened: &Opened) -> Result<(), Ended> {
        let source = &mut *self.context.source;
        source.set_carried(opened.carried)?;
        let last = source.catalog.read(|view| view.last_sequence())?;
        let target = &self.context.options.target.display;
        let equal = source.ledger.unknown() == 0 && source.ledger.fold() == opened.sum;
        let acknowledged = source.state.acknowledged(target)?;
        let resumable = opened.bound && opened.cursor.is_some() && opened.cursor == acknowledged;
        let valid = |cursor: &Cursor| match source.state.incarnation_end(cursor.incarnation) {
            Ok(Some(IncarnationEnd::Running)) => true,
            Ok(Some(IncarnationEnd::Ended(end))) => cursor.sequence <= end,
            _ => false,
        };
        let first = !opened.bound || source.state.value(DELETES)?.is_none();
        let kept = source
            .state
            .value(EXTRAS_KEPT)?
            .and_then(|bytes| bytes.try_into().ok());
        self.context.counters.extras_kept = kept.map_or(0, u64::from_be_bytes);
        if equal && !first {
            tracing::debug!("sums are equal");
            self.scanned = last;
            // What is flagged is on the target all the same; a later change finds out.
            self.scanned = opened
                .cursor
                .filter(|_| resumable)
                .map_or(0, |cursor| cursor.sequence);
            Ok(())
        } else if let Some(cursor) = opened
            .cursor
            .filter(|cursor| resumable && !first && valid(cursor) && cursor.sum == opened.sum)
        {
            tracing::debug!(cursor.sequence, "resuming at the cursor");
            self.scanned = cursor.sequence;
            Ok(())
        } else {
            self.reconcile(opened)
        }
    }

    fn reconcile(&mut self, opened: &Opened) -> Result<(), Ended> {
        self.context.observer.phase(&Phase::Comparing);
        // Whatever this connection put in place is in the listings now.
        self.placed.clear();
        self.last_move = 0;
        self.reconciles += 1;
        self.reconciles_ever += 1;
        let outcome = reconcile(self.context.source, self.link, opened).map_err(|error| match error {
            ReconcileError::Store(error) => Ended::from(error),
            error => Ended::Lost(error.to_string()),
        })?;
        self.decide_on_extras(opened, outcome)?;
        // The root's own attributes are in no listing.
        let source = &mut *self.context.source;
        source.catalog.clone().update(false, |t| {
            let Some(mut root) = t.get(ObjectId::ROOT)? else {
                return Ok(());
            };
            root.flags |= flags::ATTRIBUTES;
            root.sequence = t.next_sequence()?;
            source.put(t, &root)
        })?;
        self.scanned = 0;
        self.page.clear();
        self.marked = None;
        self.must_reconcile = false;
        Ok(())
    }

    /// First contact deletes nothing unasked.
    fn decide_on_extras(&mut self, opened: &Opened, outcome: Reconciled) -> Result<(), Ended> {
        let Reconciled {
            adopt,
            extras,
            replaced,
            ..
        } = outcome;
        let add = |sum: u64, extra: &Extra| sum.saturating_add(extra.entries);
        let count = extras.iter().chain(&replaced).fold(0, add);
        let blocked = replaced.iter().fold(0, |sum: u64, extra| {
            sum.saturating_add(extra.entries.saturating_sub(1))
        });
        let deletes = self.deletes()?;
        // A receiver that does not know this mirror, any more or yet, may offer another tree than last time.
        // Later in the same connection, what is extra is what the source lost meanwhile.
        let unknown = !opened.bound && self.reconciles_ever == 1;
        let first = unknown || self.context.source.state.value(DELETES)?.is_none();
        let asked = self.context.options.deletes != Deletes::Ask;
        if (first && count > 0 && !asked) || (deletes == Deletes::Never && blocked > 0) {
            let text = format!(
                "{} holds {count} {} that {} lacks: nothing was sent and nothing deleted; run again with \
                 `--delete always` to delete{}",
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
        state.put_value(DELETES, decided)?;
        let kept = if deletes == Deletes::Never {
            extras.iter().fold(0, add)
        } else {
            0
        };
        state.put_value(EXTRAS_KEPT, &u64::to_be_bytes(kept))?;
        self.context.counters.extras_kept = kept;
        self.adopts.extend(adopt);
        for Extra { place, object, .. } in extras {
            if deletes != Deletes::Never || !object.is_local() {
                self.removes.push_back(Removal {
                    object,
                    place,
                    is_replaced: false,
                });
            }
        }
        self.removes.extend(replaced.into_iter().map(|extra| {
            let Extra { place, object, .. } = extra;
            Removal {
                object,
                place,
                is_replaced: true,
            }
        }));
        Ok(())
    }

    /// What was asked for now, or else what was decided at first contact.
    fn deletes(&self) -> Result<Deletes, StoreError> {
        Ok(match self.context.options.deletes {
            Deletes::Ask => match self.context.source.state.value(DELETES)?.as_deref() {
                Some(b"never") => Deletes::Never,
                _ => Deletes::Always,
            },
            asked => asked,
        })
    }

    fn serve(&mut self, opened: &Opened) -> Result<Ended, Ended> {
        self.context.observer.phase(&Phase::Sending);
        let stop = self.context.stop.channel();
        loop {
            if self.context.stop.is_requested() {
                return Ok(Ended::Stopped(self.in_sync.then_some(self.scanned)));
            }
            self.take_events()?;
            self.take_messages()?;
            while let Ok(done) = self.done.try_recv() {
                self.handle_read(done)?;
            }
            self.dispatch()?;
            if self.must_reconcile && self.in_flight.is_empty() && self.reading == 0 {
                if self.reconciles >= RECONCILES_MAX {
                    let text = format!(
                        "{} and {} still differ after {} comparisons; run `driftless verify` to see where",
                        self.context.source.path.display(),
                        self.target(),
                        self.reconciles
                    );
                    if !self.context.options.follow {
                        return Err(Ended::Halted(DaemonError::failed(text)));
                    }
                    // A tree that changes all the time can differ for a while; a daemon goes on, at a distance.
                    self.context.observer.warning(&text);
                    self.reconciles = 0;
                    self.reconcile_due = Some(Instant::now() + RECONCILE_PAUSE);
                }
                if self.reconcile_due.is_some_and(|due| Instant::now() < due) {
                    self.report(false);
                    self.wait(&stop);
                    continue;
                }
                self.reconcile_due = None;
                self.reconcile(opened)?;
                self.context.observer.phase(&Phase::Sending);
                continue;
            }
            if let Some(sequence) = self.settle()? {
                if !self.in_sync {
                    self.in_sync = true;
                    self.was_in_sync = true;
                    self.reconciles = 0;
                    self.report(true);
                    self.context.observer.phase(&Phase::InSync { sequence });
                }
                if !self.context.options.follow {
                    return Ok(Ended::InSync(sequence));
                }
            } else if std::mem::take(&mut self.in_sync) {
                self.context.observer.phase(&Phase::Sending);
            }
            self.report(false);
            self.wait(&stop);
        }
    }

    /// Blocks until there is something to do.
    fn wait(&self, stop: &Receiver<()>) {
        let due = !self.again.is_empty() && self.may_dispatch();
        let reconcile = self.must_reconcile && self.reconcile_due.is_none();
        if (due && !self.must_reconcile) || (reconcile && self.in_flight.is_empty() && self.reading == 0) {
            return;
        }
        let mut select = Select::new();
        select.recv(self.link.incoming());
        select.recv(&self.done);
        select.recv(&self.context.events);
        select.recv(stop);
        let now = Instant::now();
        let mut deadline = self.context.deadline();
        if let Some(due) = self.reconcile_due {
            deadline = Some(deadline.map_or(due, |deadline| deadline.min(due)));
        }
        if let Some((due, _)) = self.delayed.first() {
            deadline = Some(deadline.map_or(*due, |deadline| deadline.min(*due)));
        }
        // While bytes are under way the pump may make room without a message to us.
        if self.pump_bytes.load(Ordering::Acquire) >= PUMP_BYTES_MAX {
            deadline = Some(now + Duration::from_millis(20));
        }
        match deadline {
            Some(deadline) => {
                let _ = select.ready_timeout(deadline.saturating_duration_since(now));
            }
            None => {
                select.ready();
            }
        }
    }

    fn take_events(&mut self) -> Result<(), Ended> {
        let now = Instant::now();
        super::take_events(self.context, now)?;
        while let Some(&(due, object)) = self.delayed.first().filter(|(due, _)| *due <= now) {
            self.delayed.remove(&(due, object));
            self.again.push_back(object);
        }
        Ok(())
    }

    fn take_messages(&mut self) -> Result<(), Ended> {
        let mut progress = None;
        loop {
            match self.link.incoming().try_recv() {
                Ok(ToSender::Progress(now)) => progress = Some(now),
                Ok(message) => self.handle_message(message)?,
                Err(crossbeam_channel::TryRecvError::Empty) => break,
                Err(crossbeam_channel::TryRecvError::Disconnected) => {
                    return Err(match self.link.ended() {
                        Some(end) => super::link_end(&end),
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

    fn handle_message(&mut self, message: ToSender) -> Result<(), Ended> {
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
    fn is_offer(&mut self, number: u64) -> bool {
        matches!(self.in_flight.get(&number), Some(InFlight::Content { .. })) && self.asked.insert(number)
    }

    /// The receiver wants the content of an offered file.
    fn stream(&mut self, number: u64, signature: Option<Vec<u8>>) -> Result<(), Ended> {
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

    fn file_ref(&mut self, object: ObjectId) -> Result<Option<FileRef>, StoreError> {
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

    fn handle_progress(&mut self, progress: Progress) -> Result<(), Ended> {
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

    fn handle_failed(
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
    fn fail(
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

    fn fail_at(
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
    fn retry_failed_later(&mut self) {
        if self.context.options.follow {
            let due = Instant::now() + FIRST_RETRY;
            self.delayed
                .extend(self.context.failed.keys().map(|&object| (due, object)));
        }
    }

    /// Nothing is under way for an object any more; what changed meanwhile has its turn.
    fn free(&mut self, object: ObjectId) {
        self.busy.remove(&object);
        if self.deferred.remove(&object) {
            self.again.push_back(object);
        }
    }

    fn may_dispatch(&self) -> bool {
        self.reading < READS_MAX
            && self.in_flight.len() < IN_FLIGHT_MAX
            && self.inline_bytes < INLINE_IN_FLIGHT_BYTES_MAX / 2
            && self.pump_bytes.load(Ordering::Acquire) < PUMP_BYTES_MAX
    }

    /// Takes the journal in order, as far as the windows allow.
    fn dispatch(&mut self) -> Result<(), Ended> {
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
    fn dispatch_object(&mut self, object: ObjectId) -> Result<(), Ended> {
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

    fn start(&mut self, entry: Entry) -> Result<(), Ended> {
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
    fn is_too_fresh(&self, entry: &Entry) -> bool {
        let sent = entry.flags & flags::ON_TARGET != 0 && entry.digest.is_some();
        sent && stamp_of(entry).is_some_and(|stamp| is_within_tick(&stamp))
    }

    fn fly(&mut self, number: u64, flight: InFlight) {
        if let Some(object) = flight.object() {
            self.busy.insert(object);
        }
        self.in_flight.insert(number, flight);
    }

    fn offer(&mut self, entry: &Entry, digest: Option<Digest>, stat: Option<&Stat>) {
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

    fn handle_read(&mut self, done: ReadDone) -> Result<(), Ended> {
        if !matches!(done, ReadDone::Streamed(..) | ReadDone::Abandoned(..)) {
            self.reading -= 1;
        }
        match done {
            ReadDone::Whole(file, bytes, stat) => {
                let digest = Digest::of(&bytes);
                self.context.counters.content_bytes += bytes.len() as u64;
                self.send_content(file.object, digest, stat, Some(bytes))
            }
            ReadDone::Digest(file, digest, stat) => self.send_content(file.object, digest, stat, None),
            ReadDone::TooLarge(file, stat) => {
                self.free(file.object);
                match self.context.source.catalog.read(|view| view.get(file.object))? {
                    Some(entry) => self.offer(&entry, None, Some(&stat)),
                    None => return Ok(()),
                }
                Ok(())
            }
            ReadDone::Moved(file) => {
                self.free(file.object);
                self.try_later(file.object);
                Ok(())
            }
            ReadDone::Vanished(object) => {
                self.free(object);
                self.look_again(object)
            }
            ReadDone::Unreadable(object, text) => {
                self.free(object);
                self.fail(object, u8::MAX, &text, None)
            }
            ReadDone::Streamed(number, object, digest, size, stat, still) => {
                self.handle_streamed(number, object, digest, size, &stat, still)
            }
            ReadDone::Abandoned(number, object, error) => {
                if let Some(flight) = self.in_flight.get_mut(&number) {
                    *flight = InFlight::Withdrawn { object };
                    self.send(OpMessage::Withdraw { number }, 16);
                    match error {
                        Some(text) => self.fail(object, u8::MAX, &text, None)?,
                        None => self.look_again(object)?,
                    }
                }
                Ok(())
            }
        }
    }

    fn handle_streamed(
        &mut self,
        number: u64,
        object: ObjectId,
        digest: Digest,
        size: u64,
        stat: &Stat,
        still: bool,
    ) -> Result<(), Ended> {
        let Some(InFlight::Content { place, .. }) = self.in_flight.get(&number) else {
            return Ok(());
        };
        let place = place.clone();
        let tries = self.tries.entry(object).or_insert(0);
        if !still && *tries < UNSTABLE_TRIES {
            *tries += 1;
            self.in_flight.insert(number, InFlight::Withdrawn { object });
            self.send(OpMessage::Withdraw { number }, 16);
            self.try_later(object);
            return Ok(());
        }
        self.context.counters.content_bytes += size;
        let attributes = stat.attributes;
        // A file that never holds still is published as it was read and stays stale: it is read again.
        let stamp = still.then_some(stat.stamp);
        let digest_known = Some(digest);
        let flight = InFlight::Content {
            object,
            place,
            digest: digest_known,
            stamp,
            attributes,
        };
        self.in_flight.insert(number, flight);
        self.send(
            OpMessage::Seal(SealOp {
                number,
                size,
                digest,
                attributes,
            }),
            96,
        );
        if !still {
            self.try_later(object);
        }
        Ok(())
    }

    /// The content of a file was read: decides in which form it travels, if at all.
    fn send_content(
        &mut self,
        object: ObjectId,
        digest: Digest,
        stat: Stat,
        bytes: Option<Vec<u8>>,
    ) -> Result<(), Ended> {
        self.free(object);
        let source = &mut *self.context.source;
        let entry = source.catalog.clone().update(false, |t| {
            let Some(mut entry) = t.get(object)? else {
                return Ok(None);
            };
            if stamp_of(&entry).is_some_and(|known| is_no_older(&stat.stamp, &known)) {
                entry.attributes = stat.attributes;
                entry.size = stat.size;
                entry.stamp = Some(stat.stamp.to_bytes());
                source.put(t, &entry)?;
            }
            Ok(Some(entry))
        })?;
        let Some(entry) = entry else { return Ok(()) };
        let (place, attributes) = (entry.place.clone(), stat.attributes);
        // Read within a tick of its last change, it stays stale and is read once more.
        let stamp = Some(stat.stamp).filter(|stamp| !is_within_tick(stamp));
        let flight = InFlight::Content {
            object,
            place: place.clone(),
            digest: Some(digest),
            stamp,
            attributes,
        };
        let on_target = entry.flags & flags::ON_TARGET != 0;
        if on_target && entry.digest == Some(digest) {
            let number = self.emit_after(&place, object, OpBody::SetAttributes { object, attributes });
            self.fly(number, flight);
            return Ok(());
        }
        let delta_pays = on_target && stat.size >= crate::engine::delta::BASIS_BYTES_MIN;
        match bytes.filter(|_| !delta_pays && entry.flags & flags::OFFER == 0) {
            Some(bytes) => {
                let weight = bytes.len();
                let content = Content::Inline {
                    digest,
                    bytes: InlineContent(bytes),
                };
                let body = OpBody::PutFile {
                    place: place.clone(),
                    object,
                    attributes,
                    content,
                };
                let after = self.dependency(&place, object);
                let number = self.emit(after, false, body, weight);
                self.context.counters.files_sent += 1;
                self.fly(number, flight);
            }
            None => self.offer(&entry, Some(digest), Some(&stat)),
        }
        Ok(())
    }

    fn try_later(&mut self, object: ObjectId) {
        let tries = self.tries.entry(object).or_insert(0);
        *tries += 1;
        let delay = Duration::from_millis(50) * 2u32.saturating_pow((*tries).min(6));
        self.delayed.insert((Instant::now() + delay, object));
    }

    fn look_again(&mut self, object: ObjectId) -> Result<(), Ended> {
        if let Some(entry) = self.context.source.catalog.read(|view| view.get(object))? {
            let Place { directory, name } = entry.place;
            self.context.source.look(&[(directory, name)], &[], &[])?;
        }
        Ok(())
    }

    fn dependency(&self, place: &Place, object: ObjectId) -> u64 {
        let placed = |object: &ObjectId| self.placed.get(object).copied().unwrap_or(0);
        placed(&place.directory).max(placed(&object)).max(self.last_move)
    }

    fn emit_after(&mut self, place: &Place, object: ObjectId, body: OpBody) -> u64 {
        let after = self.dependency(place, object);
        let barrier = matches!(body, OpBody::Move { .. });
        let makes = matches!(body, OpBody::MakeDirectory { .. });
        let number = self.emit(after, barrier, body, 0);
        if makes {
            self.placed.insert(object, number);
        }
        number
    }

    fn emit(&mut self, after: u64, barrier: bool, body: OpBody, weight: usize) -> u64 {
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

    fn send(&self, message: OpMessage, bytes: usize) {
        self.pump_bytes.fetch_add(bytes, Ordering::AcqRel);
        let _ = self.pump.send((message, bytes));
    }

    /// Once everything known is sent: removals, a mark, and the comparison of sums. `Some` when in sync.
    fn settle(&mut self) -> Result<Option<u64>, Ended> {
        let quiet = self.page.is_empty()
            && self.again.is_empty()
            && self.deferred.is_empty()
            && self.adopts.is_empty()
            && self.reading == 0
            && !self.must_reconcile
            && self.context.pending.is_empty()
            && (self.delayed.is_empty()
                || self
                    .delayed
                    .iter()
                    .all(|(_, object)| self.context.failed.contains_key(object)));
        let last = self.context.source.catalog.read(|view| view.last_sequence())?;
        if !quiet || self.scanned < last && self.has_more()? {
            return Ok(None);
        }
        self.scanned = self.scanned.max(last);
        if !self.removes.is_empty() {
            let deletes = self.deletes()?;
            while self.in_flight.len() < IN_FLIGHT_MAX {
                let Some(Removal {
                    object,
                    place,
                    is_replaced,
                }) = self.removes.pop_front()
                else {
                    break;
                };
                // What the listing showed at a former place is put, and so moved, by its own op.
                if self
                    .context
                    .source
                    .catalog
                    .read(|view| view.get(object))?
                    .is_some()
                {
                    continue;
                }
                let flight = InFlight::Remove {
                    object,
                    place: place.clone(),
                };
                let body = match deletes {
                    Deletes::Never if !is_replaced => OpBody::Release { object, place },
                    _ => OpBody::Remove { object, place },
                };
                let number = self.emit(0, true, body, 0);
                self.in_flight.insert(number, flight);
            }
            if !self.removes.is_empty() {
                return Ok(None);
            }
        }
        if self.marked != Some(self.scanned) {
            self.marked = Some(self.scanned);
            let number = self.emit(
                0,
                false,
                OpBody::Mark {
                    sequence: self.scanned,
                },
                0,
            );
            self.in_flight.insert(number, InFlight::Other);
        }
        let Some(cursor) = self.cursor.filter(|cursor| {
            cursor.sequence == self.scanned && cursor.incarnation == self.context.incarnation
        }) else {
            return Ok(None);
        };
        if !self.in_flight.is_empty() {
            return Ok(None);
        }
        let ledger = &self.context.source.ledger;
        // With entries in error the two sums differ by design; every one of them is reported.
        let equal = ledger.unknown() == 0 && ledger.fold() == cursor.sum;
        if equal || (!self.context.failed.is_empty() && self.reconciles_ever > 0) {
            return Ok(Some(cursor.sequence));
        }
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

    fn has_more(&self) -> Result<bool, StoreError> {
        let more = self
            .context
            .source
            .catalog
            .read(|view| view.changed_after(self.scanned, 1))?;
        Ok(!more.is_empty())
    }

    fn report(&mut self, now: bool) {
        if now || self.last_report.elapsed() >= Duration::from_millis(100) {
            self.last_report = Instant::now();
            let statistics = self.link.statistics();
            let mut counters = self.context.counters;
            counters.wire_bytes_sent += statistics.bytes_sent;
            counters.wire_bytes_received += statistics.bytes_received;
            self.context.observer.counters(&counters);
        }
    }
}

/// Whether what a read saw is the state that the catalog knows, or a later one. A look that came after the read must
/// not be overruled by it: the change that it saw would be lost.
fn is_no_older(read: &Stamp, known: &Stamp) -> bool {
    read.same_object(known) && read.ctime >= known.ctime
}

/// Whether a file changed so lately that another write could carry the same time stamps.
fn is_within_tick(stamp: &Stamp) -> bool {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| now.as_nanos() as i128);
    let changed = i128::from(stamp.ctime.seconds()) * 1_000_000_000 + i128::from(stamp.ctime.nanoseconds());
    (0..CLOCK_TICK.as_nanos() as i128).contains(&(now - changed))
}

/// The failed set, for people.
pub fn failed_entries(source: &Source, failed: &HashMap<ObjectId, Failed>) -> Vec<FailedEntry> {
    let mut entries: Vec<_> = failed
        .values()
        .map(|failed| FailedEntry {
            path: source.path_of(failed.object),
            error: failed.text.clone(),
        })
        .collect();
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    entries
}

#[cfg(test)]
mod tests {
    use super::*;
    use driftless_protocol::Timestamp;

    #[test]
    fn a_read_never_overrules_a_later_look() {
        let at = |seconds| Timestamp::new(seconds, 0).unwrap();
        let stamp = |ctime| Stamp {
            device: 1,
            inode: 2,
            birth: None,
            ctime: at(ctime),
            mtime: at(1),
            size: 3,
        };
        assert!(is_no_older(&stamp(5), &stamp(5)) && is_no_older(&stamp(6), &stamp(5)));
        assert!(!is_no_older(&stamp(5), &stamp(6)));
        assert!(!is_no_older(&Stamp { inode: 3, ..stamp(9) }, &stamp(5)));
    }
}
