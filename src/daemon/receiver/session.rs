//! One connection of a sender to one module path: ops in, outcomes out.
//!
//! The session thread owns the replica; staging threads write contents aside. A lone change is committed at once;
//! while a commit runs, others gather and form the next batch. A batch is: flush the staged files (a large one on a thread
//! of its own, while the next is staged), publish them, write the catalog, tell *applied*. When nothing is left to do,
//! directories and catalog are flushed and *durable* is told.

mod arriving;
mod durable;
mod ending;
mod start;

use super::apply::StagedFile;
use super::confirms::Confirms;
use super::listing;
use super::look::Look;
use super::named;
use super::pace::Pace;
use super::replica::{ApplyError, Replica};
use super::rights;
use super::staging::{Done, Job, Staging, Wanted};
use super::subject::{check, check_xattrs, object_of, place_of, subject_of};
use crate::daemon::crew::Crew;
use crate::daemon::memory::Spent;
use crate::daemon::status::SessionStatus;
use crate::daemon::waiting;
use crate::engine::delta::Engine;
use crate::engine::order::OpOrder;
use crate::fs::{FsError, descriptors_for};
use crate::net::{Range, ReceiverLink};
use crate::store::{CatalogRead, StoreError, Tables};
use crossbeam_channel::{Receiver, Select, TryRecvError, unbounded};
use driftless_certs::Rights;
use driftless_protocol::limits::{
    CONFIRMS_MAX, ENDED_RUNS_MAX, INLINE_CONTENT_BYTES_MAX, INLINE_IN_FLIGHT_BYTES_MAX, OWNERS_TOTAL_MAX,
    WANTED_FILES_MAX,
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
const FSYNC_FILES_MAX: usize = if cfg!(test) {
    // Simulated trees are small, and both ways are to be taken.
    3
} else {
    64
};
/// Files asked for at a time.
const WANTED_MAX: usize = if WANTED_FILES_MAX < 32 {
    WANTED_FILES_MAX
} else {
    32
};
/// The same, for files of less than [`SMALL_WANTED_BYTES`]: with few of them on their way most of the time would be round trips.
const SMALL_WANTED_MAX: usize = if WANTED_FILES_MAX < 128 {
    WANTED_FILES_MAX
} else {
    128
};
const SMALL_WANTED_BYTES: u64 = 64 << 10;
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

/// A batch whose file system is being flushed.
#[derive(Debug)]
struct Flushing {
    began: Instant,
    /// How many files it has.
    files: usize,
    /// All ops up to this one had ended before.
    covers: u64,
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
    /// Who asked to be told when all is durable, and is when what was done is also visible.
    awaiting: Vec<u64>,
    /// How many ops had ended with the last mark of this session.
    marked: Option<u64>,
    pending: HashMap<u64, Pending>,
    offers: VecDeque<u64>,
    /// Offered files that were asked for and are not complete.
    asked: HashSet<u64>,
    staging: Staging,
    done: Receiver<Done>,
    batch: Vec<(u64, StagedFile)>,
    batch_bytes: u64,
    /// Flushes the file system of large batches, one at a time.
    flusher: Crew<Vec<(u64, StagedFile)>>,
    flushing: Option<Flushing>,
    /// No flush of the whole file system has failed in this session.
    may_flush_all: bool,
    /// The root's file system.
    device: u64,
    /// Files were put on others, which are mounted below.
    has_mounts: bool,
    batches: Pace,
    flushes: Pace,
    /// Content inside ops that have arrived and are not staged yet, by op.
    inline: HashMap<u64, usize>,
    inline_bytes: usize,
    /// Jobs on contents inside ops that have not reported.
    outstanding: usize,
    /// As many make a full batch; three times as many that came inside ops may be staged: those that are flushed, those that wait, and
    /// those to come.
    batch_files_max: usize,
    wanted_max: usize,
    small_wanted_max: usize,
    /// Present files that are being compared with what was offered.
    comparing: usize,
    told: Progress,
    durable: u64,
    /// How many ops had ended at the last flush.
    flushed: u64,
    /// The highest op that the sender wants durable soon.
    flush_wanted: u64,
    cursor: Option<Cursor>,
    /// The tree was listed for a comparison; how many marks had been passed then.
    listed: Option<u64>,
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
            is_near: link.is_local(),
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
            let (root, flushed) = (replica.root.clone(), staging.done.clone());
            // If that cannot be told, every file is flushed by itself.
            let device = root.stat_self().map_or(0, |stat| stat.stamp.device);
            let flusher = Crew::new("flush", 1, move |files: Vec<(u64, StagedFile)>| {
                let outcome = root.sync_filesystem().and_then(|()| {
                    // It reaches nothing that is mounted below.
                    let elsewhere = |file: &StagedFile| file.device != device && !file.is_flushed;
                    let mut left = files.iter().filter(|(_, file)| elsewhere(file));
                    left.try_for_each(|(_, file)| file.staged.sync())
                });
                // Nobody takes it when the session has ended.
                let _ = flushed.send(Done::Flushed(files, outcome));
            });
            let order = match replica.publishing.is_used() {
                true => OpOrder::divided(),
                false => OpOrder::default(),
            };
            let mut session = Session {
                link,
                replica,
                status,
                incarnation,
                rights,
                looks,
                order,
                confirms: Confirms::default(),
                awaiting: Vec::new(),
                marked: None,
                pending: HashMap::new(),
                offers: VecDeque::new(),
                asked: HashSet::new(),
                staging,
                done: done_queue,
                batch: Vec::new(),
                batch_bytes: 0,
                flusher,
                flushing: None,
                may_flush_all: true,
                device,
                has_mounts: false,
                batches: Pace::of_batches(),
                flushes: Pace::of_flushes(),
                inline: HashMap::new(),
                inline_bytes: 0,
                outstanding: 0,
                batch_files_max: descriptors_for(16, BATCH_FILES_MAX),
                wanted_max: descriptors_for(32, WANTED_MAX),
                small_wanted_max: descriptors_for(32, SMALL_WANTED_MAX),
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
            session.replica.publishing.begin_session();
            // Why they failed may be over.
            session.replica.hurry_disposals();
            let outcome = session.dispose_of(Vec::new()).and_then(|()| session.serve());
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
            let full = self.is_batch_full();
            let gathered = self.outstanding == 0 && ops.is_empty();
            let hurries = ended || self.flush_wanted > self.durable;
            let now = Instant::now();
            let rest = self.batches.due(now).filter(|_| !hurries);
            let is_due = full || (gathered && !self.batch.is_empty() && rest.is_none());
            if is_due && self.flushing.is_none() {
                self.commit_batch()?;
                continue;
            }
            self.tell_progress();
            if self.replica.publishing.take_news() {
                self.status.set_publishing(self.replica.publishing.reports());
            }
            self.confirm_received();
            self.flush_if_wanted()?;
            if ended && self.flushing.is_some() {
                self.settle_flush()?;
                continue;
            }
            if ended {
                return Ok(());
            }
            let mut due = rest.filter(|_| gathered && !self.batch.is_empty() && self.flushing.is_none());
            let is_behind = self.flushed < self.order.ended() || self.order.is_mark_due();
            if gathered && self.batch.is_empty() && self.flushing.is_none() && is_behind {
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

    fn is_batch_full(&self) -> bool {
        self.batch.len() >= self.batch_files_max || self.batch_bytes >= BATCH_BYTES_MAX
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
}
