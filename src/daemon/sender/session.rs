//! One connection to a target: from the opening to "in sync", and then along with every change.
//!
//! The session thread owns the source's catalog and decides; reader threads open files; a pump hands the link those ops
//! for which it has no room at once, so that a slow receiver never keeps this thread from taking acknowledgements. An
//! object has at most one op in flight; what changes meanwhile waits in its one slot of the journal.

mod assumed;
mod backlog;
mod barriers;
mod content;
mod context;
mod deletions;
mod dispatch;
mod extras;
mod groups;
mod initial;
mod opening;
mod outcome;
mod quiet;
mod removals;
mod settling;
mod sparing;
mod window;

pub use backlog::tell_backlog_apart;
pub use barriers::{is_below, resolve};
pub use context::{Context, failed_entries};
pub use extras::RULES;

use super::barriers::Barriers;
use super::owners::Named;
use super::reader::{FileRef, Memory, ReadDone, ReadJob, read_file};
use super::reconcile::{Beforehand, Covered, Extra, ReconcileError, Reconciled, reconcile, withhold};
use super::source::{Source, stamp_of};
use super::work::{self, InFlight, Next};
use crate::daemon::crew::Crew;
use crate::daemon::ledger::flags;
use crate::daemon::memory::Spent;
use crate::daemon::upstream;
use crate::daemon::waiting;
use crate::daemon::{
    Backlog, DaemonError, Deletes, FailedEntry, Observer, Phase, SendCounters, SenderOptions, Stop, Turn,
};
use crate::engine::ages::Ages;
use crate::engine::fuse::DeleteFuse;
use crate::engine::pending::Pending;
use crate::fs::{Directory, FileType, Stamp, Stat, descriptors_for};
use crate::net::SenderLink;
use crate::store::{CatalogRead, Change, Entry, Failed, StoreError};
use assumed::Assumed;
use crossbeam_channel::{Receiver, Select, unbounded};
use driftless_protocol::limits::INLINE_IN_FLIGHT_BYTES_MAX;
use driftless_protocol::message::{
    Content, Cursor, FailureKind, InlineContent, LinkTarget, OpBody, OpMessage, Opened, Place, Relays, Run,
    SealOp, Sparing, ToReceiver, ToSender,
};
use driftless_protocol::{CloseCode, Digest, Kind, Name, ObjectId, Xattrs};
use groups::Groups;
use removals::Removal;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use window::{Offer, Window};

const READER_THREADS: usize = 2;
const STREAM_THREADS: usize = 2;
const READS_MAX: usize = 64;
const IN_FLIGHT_MAX: usize = 16_384;
/// Offered files on their way. A receiver asks for some tens of them at a time.
const OFFERS_MAX: usize = 256;
/// Files up to this size are read in the lane of small files.
const SMALL_BYTES_MAX: u64 = 8 << 20;
const PUMP_BYTES_MAX: usize = 16 << 20;
const UNSTABLE_TRIES: u32 = 3;
/// How often an op that met another state than believed is tried again, at growing distances, before it counts as
/// failed.
const ORDER_TRIES: u32 = 8;
/// How often a directory that holds something is compared and removed again; less often than a session compares.
const REMOVE_TRIES: u32 = 3;
/// How often sums may disagree before that is an error instead of another comparison.
const RECONCILES_MAX: u32 = 5;
/// Pause of a daemon after that many comparisons in a row.
const RECONCILE_PAUSE: Duration = Duration::from_secs(2);
const FIRST_RETRY: Duration = Duration::from_secs(30);
/// Longest tick of a file system's clock: 100 Hz, and some.
pub const CLOCK_TICK: Duration = Duration::from_millis(12);
/// How long a stop waits for the answers to what was sent before.
const LAST_ANSWERS: Duration = Duration::from_secs(2);
/// How often counters are told.
const REPORT_EVERY: Duration = Duration::from_millis(100);
/// How often it is looked at most whether others feed the source than before.
const LOOK_UPSTREAM: Duration = Duration::from_secs(1);
const DURABLE_EVERY: Duration = Duration::from_secs(3);
/// How often is looked, while the receiver is silent, for what the user wants.
const SILENT_LOOK: Duration = Duration::from_secs(1);
/// What the user decided at first contact, or `always` where nothing was in question.
pub const DELETES: &str = "deletes";
const EXTRAS_KEPT: &str = "extras-kept";

/// How a session ended.
#[derive(Debug)]
pub enum Ended {
    /// In sync, and nothing more was asked.
    InSync(u64),
    /// Asked to stop; in sync at this number, if it was.
    Stopped(Option<u64>),
    /// Asked to send nothing for now.
    Paused,
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

impl From<ReconcileError> for Ended {
    fn from(error: ReconcileError) -> Self {
        match error {
            ReconcileError::Store(error) => Ended::from(error),
            ReconcileError::Stopped => Ended::Stopped(None),
            error => Ended::Lost(error.to_string()),
        }
    }
}

/// Objects that wait for their turn, each once, first come first served.
#[derive(Debug, Default)]
struct BulkLane {
    queue: VecDeque<ObjectId>,
    queued: HashSet<ObjectId>,
}

impl BulkLane {
    fn push(&mut self, object: ObjectId) {
        if self.queued.insert(object) {
            self.queue.push_back(object);
        }
    }

    fn pop(&mut self) -> Option<ObjectId> {
        let object = self.queue.pop_front()?;
        self.queued.remove(&object);
        Some(object)
    }

    fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    fn len(&self) -> usize {
        self.queue.len()
    }
}

/// A connection at work.
pub struct Session<'a, 'c> {
    context: &'a mut Context<'c>,
    link: &'a SenderLink,
    pump: Crew<(OpMessage, usize)>,
    pump_bytes: Arc<AtomicUsize>,
    jobs: Crew<ReadJob>,
    streams: Crew<ReadJob>,
    done: Receiver<ReadDone>,
    window: Window,
    /// Objects that are being read, or have an op in the window.
    busy: HashSet<ObjectId>,
    /// Busy objects that changed again.
    deferred: BTreeSet<ObjectId>,
    /// Names of one object that wait for each other.
    groups: Groups,
    again: VecDeque<ObjectId>,
    /// Large files that wait for their turn: few are on their way at a time, so that they hold up nothing else.
    bulk: BulkLane,
    page: VecDeque<(u64, Change)>,
    scanned: u64,
    /// Numbers to be given to what the target has, parents first, and whether its content is assumed.
    adopts: VecDeque<(Place, ObjectId, bool)>,
    removes: VecDeque<Removal>,
    /// Records of the journal that are known to be no news.
    covered: Covered,
    /// What the last listing showed under a number that something else was given after it.
    renumbered: HashSet<(ObjectId, Place)>,
    /// Removals of what stands where another object could not be put, by that object: better the old than nothing.
    postponed: Vec<(ObjectId, Removal)>,
    /// Objects whose places are free when removals are settled.
    held: HashSet<ObjectId>,
    /// Directories that stood elsewhere on the target at the last comparison, and where: others wait until they have moved.
    leaving: HashMap<ObjectId, Place>,
    /// Objects whose places hold something protected, and these places.
    blocked: HashMap<ObjectId, Place>,
    /// Directories of the target that hold what cannot be listed.
    stuck: HashSet<ObjectId>,
    /// Small files that are being read, and how many may be at a time.
    reading: usize,
    reads_max: usize,
    offers_max: usize,
    /// So much was to be sent at once that nobody waits for one of it, until all of that is done.
    is_crowded: bool,
    /// Large files that are being read for their digest.
    digesting: HashSet<ObjectId>,
    signatures: HashMap<u64, Vec<u8>>,
    /// What the receiver kept of offered files, by op.
    spans_held: HashMap<u64, HashMap<u64, [u8; 32]>>,
    tries: HashMap<ObjectId, u32>,
    /// Which version of an object is being tried.
    tried: HashMap<ObjectId, u64>,
    /// Objects whose delta was refused: sent whole.
    whole: HashSet<ObjectId>,
    /// Objects that could not be copied from another: their content is sent.
    uncopied: HashSet<ObjectId>,
    /// Files that were sent without a look at what the target held of them.
    assumed: Assumed,
    /// What went from the source with its directory, by that, and its number here, as far as the target may have it under a number of its
    /// own: it was not durable there when this session began, or later.
    went_along: HashMap<ObjectId, HashMap<(Name, Kind), ObjectId>>,
    /// Files that were read once more and are as the target acknowledged them, since the last round.
    as_acknowledged: Vec<InFlight>,
    delayed: BTreeSet<(Instant, ObjectId)>,
    /// What could not be removed since the last comparison, to be tried again.
    unremoved: HashMap<ObjectId, Removal>,
    /// Why this run ends without some removals, once all else is sent.
    refused: Option<String>,
    /// Since when it is refused.
    refused_since: Option<Instant>,
    /// How often each object was begun since nothing more is looked at.
    begun_last: HashMap<ObjectId, u32>,
    /// Some op failed since the last comparison.
    has_failed_since: bool,
    /// Of these, when what is in error is tried again.
    retries: HashMap<ObjectId, Instant>,
    /// When everything was tried again that found no space on the target.
    space_retried: Option<Instant>,
    /// Large files that changed, and when they may go.
    large_due: HashMap<ObjectId, Instant>,
    marked: Option<u64>,
    /// An op failed since a mark said that nothing is in error.
    has_failed: bool,
    cursor: Option<Cursor>,
    /// The cursor of an earlier run that the receiver still has, and that holds for this one, too.
    kept_cursor: Option<Cursor>,
    must_reconcile: bool,
    reconcile_due: Option<Instant>,
    reconciles: u32,
    /// Comparisons in this connection.
    reconciles_ever: u32,
    /// Whether the receiver permits deletions.
    may_delete: bool,
    /// Once a stop was asked: when this ends, whatever has been answered by then.
    stops_at: Option<Instant>,
    in_sync: bool,
    was_in_sync: bool,
    spent: Spent,
    last_report: Instant,
    /// Something happened since that was not told.
    is_report_due: bool,
    last_backlog: Instant,
    /// When the oldest removal that waits was heard of.
    removals_since: Option<Instant>,
    last_durable: Instant,
    /// When it was last looked who feeds the source.
    last_fed: Instant,
    /// Why this connection can't go on.
    lost: Option<String>,
    /// Nothing left yet since the trees were equal, or since the beginning.
    is_first_to_leave: bool,
    /// Who has to end before changes may leave.
    before: Option<Receiver<()>>,
    /// Whether this may end by itself.
    rest: quiet::Rest,
}

impl<'a, 'c> Session<'a, 'c> {
    /// Works until in sync (without `follow`), stopped, or cut off.
    pub fn run(context: &'a mut Context<'c>, link: &'a SenderLink, opened: &Opened) -> Ended {
        let (done, done_queue) = unbounded();
        let pump_bytes = Arc::new(AtomicUsize::new(0));
        let halt = Stop::default();
        let (ops, pumped) = (link.ops().clone(), pump_bytes.clone());
        let pump = Crew::new("pump", 1, move |(message, bytes)| {
            if ops.send(message).is_ok() {
                pumped.fetch_sub(bytes, Ordering::AcqRel);
            }
        });
        let readers = |name, threads| {
            let (done, bulk, halt) = (done.clone(), link.bulk(), halt.clone());
            let memory = Memory {
                signatures: context.source.signatures.clone(),
                spans: context.source.spans.clone(),
                readings: context.options.readings.clone(),
            };
            Crew::new(name, threads, move |job| {
                if !halt.is_requested() {
                    read_file(job, &done, &bulk, &memory);
                }
            })
        };
        let (jobs, streams) = (readers("read", READER_THREADS), readers("stream", STREAM_THREADS));
        let quiet = context.options.quiet.as_ref();
        let rest = quiet::Rest::new(quiet.map(crate::daemon::Quiet::share));
        let mut session = Session {
            context,
            link,
            pump,
            pump_bytes,
            jobs,
            streams,
            done: done_queue,
            window: Window::default(),
            busy: HashSet::new(),
            deferred: BTreeSet::new(),
            groups: Groups::default(),
            again: VecDeque::new(),
            bulk: BulkLane::default(),
            page: VecDeque::new(),
            scanned: 0,
            adopts: VecDeque::new(),
            removes: VecDeque::new(),
            covered: Covered::default(),
            renumbered: HashSet::new(),
            postponed: Vec::new(),
            held: HashSet::new(),
            leaving: HashMap::new(),
            blocked: HashMap::new(),
            stuck: HashSet::new(),
            reading: 0,
            reads_max: descriptors_for(16, READS_MAX),
            offers_max: descriptors_for(16, OFFERS_MAX),
            is_crowded: false,
            digesting: HashSet::new(),
            signatures: HashMap::new(),
            spans_held: HashMap::new(),
            tries: HashMap::new(),
            tried: HashMap::new(),
            whole: HashSet::new(),
            uncopied: HashSet::new(),
            assumed: Assumed::default(),
            went_along: HashMap::new(),
            as_acknowledged: Vec::new(),
            delayed: BTreeSet::new(),
            unremoved: HashMap::new(),
            refused: None,
            refused_since: None,
            begun_last: HashMap::new(),
            has_failed_since: false,
            retries: HashMap::new(),
            space_retried: None,
            large_due: HashMap::new(),
            marked: None,
            has_failed: false,
            cursor: None,
            kept_cursor: None,
            must_reconcile: false,
            reconcile_due: None,
            reconciles: 0,
            reconciles_ever: 0,
            may_delete: opened.may_delete,
            stops_at: None,
            in_sync: false,
            was_in_sync: false,
            spent: Spent::default(),
            last_report: Instant::now(),
            is_report_due: false,
            last_backlog: Instant::now(),
            removals_since: None,
            last_durable: Instant::now(),
            last_fed: Instant::now(),
            lost: None,
            is_first_to_leave: true,
            before: None,
            rest,
        };
        session.window.awaits_removals = session.context.source.may_protect();
        session.retry_failed_later();
        // What an earlier connection sent and never heard of again is found anew.
        session.context.counters.ops_total = session.context.counters.ops_done;
        let ended = session
            .begin(opened)
            .and_then(|()| session.serve(opened))
            .unwrap_or_else(|ended| ended);
        halt.request();
        session.report(true);
        let code = match &ended {
            Ended::InSync(_) if session.context.failed.is_empty() => CloseCode::Equal,
            _ => CloseCode::Done,
        };
        link.close(code, "");
        ended
    }

    fn target(&self) -> &'a str
    where
        'c: 'a,
    {
        &self.context.options.target.display
    }

    /// What is held back is told anew after this, for as long as it is.
    fn tell_sending(&mut self) {
        self.context.held = None;
        self.context.observer.phase(&Phase::Sending);
    }

    fn serve(&mut self, opened: &Opened) -> Result<Ended, Ended> {
        self.tell_sending();
        let (stop, mut gate) = (self.context.stop.channel(), self.context.options.gate.channel());
        loop {
            self.context.options.gate.renew(&mut gate);
            if self.context.stop.is_requested() && self.may_stop()? {
                return Ok(Ended::Stopped(self.in_sync.then_some(self.scanned)));
            }
            if self.context.options.gate.is_closed() {
                return Ok(Ended::Paused);
            }
            if self.wait_out_silence()? {
                continue;
            }
            self.rest.note_flushed();
            self.take_events()?;
            self.take_approvals();
            self.take_messages()?;
            while let Ok(done) = self.done.try_recv() {
                self.handle_read(done)?;
            }
            self.take_as_acknowledged()?;
            self.dispatch()?;
            if let Some(error) = self.lost.take() {
                return Err(Ended::Lost(error));
            }
            self.serve_barriers()?;
            if self.must_reconcile && self.window.is_empty() && self.is_done_reading() {
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
                    self.wait(&stop, &gate);
                    continue;
                }
                self.reconcile_due = None;
                self.reconcile(opened, false)?;
                self.tell_sending();
                continue;
            }
            if let Some(sequence) = self.settle()? {
                if !self.in_sync {
                    self.in_sync = true;
                    self.is_crowded = false;
                    self.was_in_sync = true;
                    self.is_first_to_leave = true;
                    self.context.turn = None;
                    self.context.was_ever_in_sync = true;
                    self.reconciles = 0;
                    self.context.ages.handle_all_done();
                    self.report(true);
                    self.spent.rest(self.context.counters.content_bytes);
                    if !self.context.failed.is_empty() {
                        // What they are in may have moved since they were told.
                        self.context.tell_failed();
                    }
                    self.context.observer.phase(&Phase::InSync { sequence });
                    // With entries in error the trees are not equal, though nothing is left to do.
                    if self.context.failed.is_empty() {
                        // That the connection has ended is heard where its messages come from.
                        let _ = self.link.control().send(ToReceiver::InSync { sequence });
                    }
                    if self.stops_at.is_some() {
                        continue;
                    }
                    self.prepare_for_changes()?;
                    if self.context.options.follow && self.is_fed_by_others() {
                        return Ok(Ended::Lost(
                            "the source is fed by other trees than it was".to_owned(),
                        ));
                    }
                }
                self.context.held = None;
                if !self.context.options.follow || self.is_quiet(sequence) {
                    return Ok(Ended::InSync(sequence));
                }
            } else {
                self.rest.handle_busy();
                if std::mem::take(&mut self.in_sync) && self.context.held.is_none() {
                    // What is held back was told in this very round otherwise, and is told once.
                    self.context.observer.phase(&Phase::Sending);
                }
            }
            self.report(false);
            self.wait(&stop, &gate);
        }
    }

    /// Whether the source is a copy of other trees than the target was told.
    fn is_fed_by_others(&mut self) -> bool {
        if self.last_fed.elapsed() < LOOK_UPSTREAM {
            return false;
        }
        self.last_fed = Instant::now();
        let (home, source) = (&self.context.options.home, &self.context.source.path);
        upstream::of_source(home, source) != self.context.upstream
    }

    fn is_done_reading(&self) -> bool {
        self.reading == 0 && self.digesting.is_empty()
    }

    /// While the receiver acknowledges nothing, changes are noted and not looked at, as while it is not connected.
    /// Whether that was so.
    fn wait_out_silence(&mut self) -> Result<bool, Ended> {
        let silence = self.link.silence();
        while silence.ended().try_recv().is_ok() {}
        if !silence.is_now() {
            return Ok(false);
        }
        tracing::debug!("{} is silent", self.target());
        let deadline = Instant::now() + SILENT_LOOK;
        super::wait_following(self.context, Some(silence.ended()), deadline)?;
        Ok(true)
    }

    /// Blocks until there is something to do.
    fn wait(&self, stop: &Receiver<()>, gate: &Receiver<()>) {
        let due = !self.again.is_empty() && self.may_dispatch();
        let reconcile = self.must_reconcile && self.reconcile_due.is_none();
        if (due && !self.must_reconcile) || (reconcile && self.window.is_empty() && self.is_done_reading()) {
            return;
        }
        let over = self.rest.over();
        let mut select = Select::new();
        select.recv(self.link.incoming());
        select.recv(&self.done);
        select.recv(&self.context.events);
        if self.stops_at.is_none() {
            select.recv(stop);
        }
        select.recv(gate);
        if let Some(approvals) = &self.context.options.approvals {
            select.recv(approvals);
        }
        let looks_away = self.looks_away();
        if !looks_away {
            self.context.register(&mut select);
        }
        if let Some(before) = &self.before {
            select.recv(before);
        }
        self.rest.register(&mut select, over.as_ref());
        // While bytes are under way the pump may make room without a message to us.
        let is_pump_full = self.pump_bytes.load(Ordering::Acquire) >= PUMP_BYTES_MAX;
        let deadlines = [
            self.context.deadline().filter(|_| !looks_away),
            self.rest.deadline().filter(|_| self.in_sync),
            self.reconcile_due,
            self.is_report_due.then(|| self.last_report + REPORT_EVERY),
            self.context.barriers.deadline(),
            self.delayed.first().map(|(due, _)| *due),
            is_pump_full.then(|| Instant::now() + Duration::from_millis(20)),
            self.stops_at,
        ];
        let deadline = deadlines.into_iter().flatten().min();
        waiting::ready(&mut select, deadline);
    }

    fn take_events(&mut self) -> Result<(), Ended> {
        let now = Instant::now();
        match self.looks_away() {
            // The next run looks at everything.
            true => while self.context.events.try_recv().is_ok() {},
            false => super::take_events(self.context, now)?,
        }
        let is_limited = self.context.fuse.has_limit();
        self.must_reconcile |= self.context.source.rules_changed;
        self.must_reconcile |= self.context.source.has_lost_place && is_limited;
        while let Some(&(due, object)) = self.delayed.first().filter(|(due, _)| *due <= now) {
            self.delayed.remove(&(due, object));
            self.again.push_back(object);
        }
        Ok(())
    }

    fn report(&mut self, now: bool) {
        self.is_report_due = !now && self.last_report.elapsed() < REPORT_EVERY;
        if !self.is_report_due {
            self.last_report = Instant::now();
            self.tell_backlog(now);
            let statistics = self.link.statistics();
            // It is a figure for people; the next report may have it.
            if let Ok(entries) = self.context.source.catalog.read(|view| view.count()) {
                self.context.counters.entries = entries;
            }
            self.context.counters.foreign_xattrs = self.context.source.foreign_xattrs;
            self.context.counters.withheld = self.context.source.ledger.withheld();
            self.context.counters.initial_skipped = u64::from(self.context.source.start.is_some());
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
pub fn is_within_tick(stamp: &Stamp) -> bool {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| now.as_nanos() as i128);
    let changed = i128::from(stamp.ctime.seconds()) * 1_000_000_000 + i128::from(stamp.ctime.nanoseconds());
    (0..CLOCK_TICK.as_nanos() as i128).contains(&(now - changed))
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
