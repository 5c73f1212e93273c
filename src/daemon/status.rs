//! What daemons tell about themselves: counters that cost nothing to keep, and the JSON that is made of them.
//!
//! The JSON is part of the command line contract: fields are added, never changed or removed, and a reader must ignore
//! those that it does not know. Times are unix seconds. Paths are escaped.

mod session;

pub use session::{SessionReport, SessionStatus};

use super::barrier::{Checkpoint, REQUESTS_MAX, Request};
use super::events::{self, AppliedChange, BATCH_NAMED_MAX, What};
use super::home::Home;
use super::keeping::KeepingReport;
use super::{Backlog, Deletes, FailedEntry, Observer, Phase, SendCounters, SenderOptions, Summary};
use crossbeam_channel::{Receiver, Sender};
use driftless_protocol::RelPath;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The version of all JSON that driftless prints.
pub const STATUS_VERSION: u32 = 1;

/// Failed entries that are listed; the rest is counted.
pub const FAILED_LISTED_MAX: usize = 100;

/// What one daemon is doing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "role", rename_all = "kebab-case")]
pub enum DaemonStatus {
    /// A receiver.
    Receiver(ReceiverStatus),
    /// A sender: one source, one target.
    Sender(Box<SenderStatus>),
}

/// The last thing that went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastError {
    /// What.
    pub text: String,
    /// When.
    pub at: u64,
}

impl LastError {
    fn now(text: &str) -> LastError {
        LastError {
            text: text.to_owned(),
            at: unix_now(),
        }
    }
}

/// What a receiver is doing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReceiverStatus {
    /// Process.
    pub pid: u32,
    /// Fingerprint.
    pub identity: String,
    /// Home.
    pub home: String,
    /// When the process started.
    pub since: u64,
    /// Where it listens; none if it only pulls.
    pub address: Option<SocketAddr>,
    /// What it offers.
    pub modules: Vec<ModuleStatus>,
    /// Trees that receivers may pull here.
    #[serde(default)]
    pub trees: Vec<String>,
    /// Modules that are filled by pulling.
    #[serde(default)]
    pub pulls: Vec<PullStatus>,
    /// What its process gave up; empty if it was not asked to.
    #[serde(default)]
    pub protections: Vec<ProtectionStatus>,
}

/// A module that is filled by pulling.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullStatus {
    /// The module.
    pub module: String,
    /// Who offers the tree, and the tree.
    pub from: String,
    /// The sender's fingerprint.
    pub peer: String,
    /// `connecting`, `preparing` (the sender is connected and looks at its tree), `receiving`, or `waiting` to try again.
    pub phase: String,
    /// Since when.
    pub since: u64,
    /// Why the last try or connection ended; none while it receives.
    pub error: Option<String>,
}

/// One of the measures by which a process confines itself, or that guard a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProtectionStatus {
    /// Its name.
    pub name: String,
    /// Whether it holds here.
    pub holds: bool,
    /// Why not.
    pub reason: Option<String>,
}

impl ReceiverStatus {
    /// The status of a receiver in this process.
    pub fn new(
        identity: String,
        home: &Home,
        address: SocketAddr,
        modules: Vec<ModuleStatus>,
    ) -> ReceiverStatus {
        let (pid, since) = (std::process::id(), process_start());
        ReceiverStatus {
            pid,
            identity,
            home: home.to_string(),
            since,
            address: Some(address),
            modules,
            trees: Vec::new(),
            pulls: Vec::new(),
            protections: Vec::new(),
        }
    }
}

/// What goes on in a module.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModuleStatus {
    /// Its name.
    pub name: String,
    /// The directory.
    pub path: String,
    /// Since when it is promoted, so that senders are refused; none if it is a replica.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promoted_since: Option<u64>,
    /// Who is connected.
    pub sessions: Vec<SessionReport>,
    /// What was kept of what was replaced, deleted or changed by somebody else, since the receiver started.
    #[serde(default)]
    pub keeping: KeepingReport,
    /// How far the scrub of its paths is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scrubs: Vec<super::upkeep::ScrubReport>,
    /// How its paths are watched for local edits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drift: Vec<super::upkeep::DriftReport>,
    /// What is made aside, to become visible at once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub publishing: Vec<PublishReport>,
}

/// The next state of something that is published at once, while it is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishReport {
    /// Where it is going to be, below the module, escaped.
    pub path: String,
    /// When that was begun, in unix seconds.
    pub since: u64,
    /// Entries in error that keep it from becoming visible.
    pub in_error: u64,
}

/// What a sender is doing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SenderStatus {
    /// Process.
    pub pid: u32,
    /// Fingerprint.
    pub identity: String,
    /// Home.
    pub home: String,
    /// When the process started.
    pub since: u64,
    /// What the configuration calls the mirror, if it has a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<String>,
    /// The tree.
    pub source: String,
    /// Where to.
    pub target: String,
    /// `starting`, `scanning`, `connecting`, `comparing`, `sending`, `in-sync`, `held`, `waiting`, `paused`, `halted`, `ended`
    /// or `stopped`.
    pub phase: String,
    /// Since when.
    pub phase_since: u64,
    /// Why it waits or is halted.
    pub reason: Option<String>,
    /// How many deletions wait for approval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<u64>,
    /// Whether it has a connection.
    #[serde(default)]
    pub connected: bool,
    /// Where both trees were last known to be equal and durable.
    pub in_sync_at: Option<InSyncAt>,
    /// How far the target is behind; both numbers are lower bounds while the source is scanned.
    pub behind: Behind,
    /// See [`SendCounters`].
    pub counters: BTreeMap<String, u64>,
    /// What is in error, the first hundred.
    pub failed: Vec<FailedStatus>,
    /// What went wrong last.
    pub last_error: Option<LastError>,
    /// How changes are noticed, once known.
    pub watcher: Option<WatcherStatus>,
    /// Its checkpoints, the oldest first.
    #[serde(default)]
    pub checkpoints: Vec<Checkpoint>,
    /// What keeps the target from harm, and what of it was given up.
    #[serde(default)]
    pub protections: Vec<ProtectionStatus>,
}

/// One mirror and target.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TargetLabel {
    /// What the configuration calls the mirror, if it has a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<String>,
    /// The tree.
    pub source: String,
    /// Where to.
    pub target: String,
}

/// When the trees were equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct InSyncAt {
    /// The number of the journal.
    pub sequence: u64,
    /// When.
    pub at: u64,
}

/// How far a target is behind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Behind {
    /// Ops that have no outcome yet.
    pub ops: u64,
    /// How long ago the oldest change was made that is not on the target, in milliseconds; none if all are. Before both trees
    /// were first found equal, nobody knows: then it is how long the sender has tried.
    pub oldest_ms: Option<u64>,
    /// Entries that have to be put, removed or looked at.
    #[serde(default)]
    pub entries: u64,
    /// Content that has to be read for them, in bytes, as far as known.
    #[serde(default)]
    pub bytes: u64,
    /// Ops on their way.
    #[serde(default)]
    pub in_flight: u64,
    /// Large files on their way, the first sixteen.
    #[serde(default)]
    pub sending: Vec<String>,
}

/// An entry in error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedStatus {
    /// Its path.
    pub path: String,
    /// Why.
    pub error: String,
}

/// How changes are noticed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatcherStatus {
    /// `fanotify`, `inotify` or `poll`.
    pub name: String,
    /// What it cannot see, if anything.
    pub degradations: Vec<String>,
}

/// Keeps what a sender tells, for whoever asks for its status.
#[derive(Debug)]
pub struct StatusBoard {
    identity: String,
    home: String,
    mirror: Option<String>,
    source: String,
    target: String,
    facts: Mutex<Facts>,
    approvals: (Sender<u64>, Receiver<u64>),
    requests: (Sender<Request>, Receiver<Request>),
}

#[derive(Debug)]
struct Facts {
    phase: Option<Phase>,
    ended: bool,
    phase_since: u64,
    in_sync_at: Option<InSyncAt>,
    counters: SendCounters,
    started: Instant,
    backlog: Backlog,
    protections: Vec<ProtectionStatus>,
    failed: Vec<FailedStatus>,
    last_error: Option<LastError>,
    watcher: Option<WatcherStatus>,
    source_path: Option<PathBuf>,
    /// What its sender was last told, and where it runs.
    sender: Option<(SenderOptions, tokio::runtime::Handle)>,
    /// The target as messages of the sender name it, which is not always how it was written.
    target_named: Option<String>,
    checkpoints: Vec<Checkpoint>,
}

impl StatusBoard {
    /// A board for one sender; `source` is escaped.
    pub fn new(identity: String, home: &Home, source: String, target: String) -> Arc<StatusBoard> {
        StatusBoard::named(None, identity, home, source, target)
    }

    /// A board for one sender of a mirror that has a name.
    pub fn named(
        mirror: Option<String>,
        identity: String,
        home: &Home,
        source: String,
        target: String,
    ) -> Arc<StatusBoard> {
        let facts = Facts {
            phase: None,
            ended: false,
            phase_since: unix_now(),
            in_sync_at: None,
            counters: SendCounters::default(),
            started: Instant::now(),
            backlog: Backlog::default(),
            protections: Vec::new(),
            failed: Vec::new(),
            last_error: None,
            watcher: None,
            source_path: None,
            sender: None,
            target_named: None,
            checkpoints: Vec::new(),
        };
        Arc::new(StatusBoard {
            identity,
            home: home.to_string(),
            mirror,
            source,
            target,
            facts: Mutex::new(facts),
            approvals: crossbeam_channel::unbounded(),
            requests: crossbeam_channel::bounded(REQUESTS_MAX),
        })
    }

    /// Whether somebody who says `name` means this mirror: its name, its source or its target, as it was written or as
    /// messages have it.
    pub fn is_named(&self, name: &str) -> bool {
        let names = [Some(&self.source), Some(&self.target), self.mirror.as_ref()];
        names.into_iter().flatten().any(|own| own == name)
            || lock(&self.facts).target_named.as_deref() == Some(name)
    }

    /// What the configuration calls the mirror, if it has a name.
    pub fn mirror(&self) -> Option<&str> {
        self.mirror.as_deref()
    }

    /// Where the sender hears of approvals.
    pub fn approvals(&self) -> Receiver<u64> {
        self.approvals.1.clone()
    }

    /// Where the sender hears of requests.
    pub fn requests(&self) -> Receiver<Request> {
        self.requests.1.clone()
    }

    /// Asks the sender something; it answers when it runs, and as soon as it is not busy. False if too much waits already.
    pub fn request(&self, request: Request) -> bool {
        self.requests.0.try_send(request).is_ok()
    }

    /// Notes what a sender was told: where the tree is, and what guards the target; and on which runtime it runs.
    pub fn set_options(&self, options: &SenderOptions, runtime: &tokio::runtime::Handle) {
        let mut facts = lock(&self.facts);
        facts.source_path = Some(options.source.clone());
        facts.target_named = Some(options.target.display.clone());
        facts.protections = guards(options);
        facts.sender = Some((options.clone(), runtime.clone()));
    }

    /// What its sender was last told, and on which runtime it runs; none if it never started, or has ended.
    pub fn sender(&self) -> Option<(SenderOptions, tokio::runtime::Handle)> {
        let facts = lock(&self.facts);
        facts.sender.clone().filter(|_| !facts.ended)
    }

    /// The part of the tree that an absolute path means; `None` if it does not lie in the tree.
    pub fn relative(&self, path: &Path) -> Option<RelPath> {
        let facts = lock(&self.facts);
        let root = match &facts.source_path {
            Some(root) => root.clone(),
            // Never started: what is written has to do. An escaped path names no file that there is.
            None => PathBuf::from(&self.source),
        };
        let below = path.strip_prefix(&root).ok()?;
        RelPath::parse(below.as_os_str().as_bytes()).ok()
    }

    /// Who this is, for lists of targets.
    pub fn label(&self) -> TargetLabel {
        TargetLabel {
            mirror: self.mirror.clone(),
            source: self.source.clone(),
            target: self.target.clone(),
        }
    }

    /// Approves deletions that wait. Says how many these are, or why that is not right.
    pub fn approve(&self, deletions: u64) -> Result<u64, String> {
        let waiting = match lock(&self.facts).phase {
            Some(Phase::Held { deletions, .. }) => deletions,
            _ => return Err(format!("no deletions of {} wait for approval", self.target)),
        };
        if waiting > deletions {
            return Err(format!(
                "{waiting} deletions wait, more than {deletions}: nothing was approved; look again, and approve that many"
            ));
        }
        let _ = self.approvals.0.send(deletions);
        Ok(waiting)
    }

    /// Says how changes are noticed, and what is missed that way.
    pub fn set_watcher(&self, name: &str, degradations: &[String]) {
        let watcher = WatcherStatus {
            name: name.to_owned(),
            degradations: degradations.to_vec(),
        };
        lock(&self.facts).watcher = Some(watcher);
    }

    /// How changes are noticed, if that is known.
    pub fn watcher(&self) -> Option<String> {
        lock(&self.facts)
            .watcher
            .as_ref()
            .map(|watcher| watcher.name.clone())
    }

    /// Replaces the list of entries in error.
    pub fn set_failed(&self, failed: &[FailedEntry]) {
        let listed = failed.iter().take(FAILED_LISTED_MAX);
        let listed = listed.map(|entry| FailedStatus {
            path: entry.path.clone(),
            error: entry.error.clone(),
        });
        let listed: Vec<_> = listed.collect();
        let before = std::mem::replace(&mut lock(&self.facts).failed, listed.clone());
        if !events::is_anybody_listening() {
            return;
        }
        for FailedStatus { path, error } in listed.iter().filter(|entry| !before.contains(entry)) {
            self.publish(What::Error {
                path: path.clone(),
                error: error.clone(),
            });
        }
        let is_gone = |entry: &&FailedStatus| failed.iter().all(|other| other.path != entry.path);
        for entry in before.iter().filter(is_gone) {
            let path = entry.path.clone();
            self.publish(What::Recovered { path });
        }
    }

    fn publish(&self, what: What) {
        if events::is_anybody_listening() {
            events::publish(Some(&self.label()), what);
        }
    }

    /// Tells listeners what a phase means for them.
    fn publish_phase(&self, before: Option<&Phase>, now: &Phase) {
        let (name, reason) = describe(now);
        let reason = reason.map(str::to_owned);
        let was = before.map(|phase| describe(phase).0);
        if was != Some(name) {
            self.publish(What::Phase {
                phase: name.to_owned(),
                reason: reason.clone(),
            });
        }
        match (before.is_some_and(is_connected), is_connected(now)) {
            (false, true) => self.publish(What::Connected),
            (true, false) => self.publish(What::Disconnected { reason }),
            _ => {}
        }
        match now {
            Phase::InSync { sequence } => self.publish(What::InSync { sequence: *sequence }),
            _ if was == Some("in-sync") => self.publish(What::OutOfSync),
            _ => {}
        }
        if let Phase::Held { deletions, .. } = now {
            self.publish(What::Held {
                deletions: *deletions,
            });
        }
    }

    /// The sender ended.
    pub fn finish(&self, outcome: Result<&Summary, &str>) {
        if let Ok(summary) = outcome {
            self.set_failed(&summary.failed);
            self.counters(&summary.counters);
        }
        self.publish(What::Ended {
            error: outcome.err().map(str::to_owned),
        });
        let mut facts = lock(&self.facts);
        facts.ended = true;
        facts.phase_since = unix_now();
        if let Err(text) = outcome {
            facts.last_error = Some(LastError::now(text));
        }
    }

    /// Whether it waits before it tries again.
    pub fn is_waiting(&self) -> bool {
        matches!(lock(&self.facts).phase, Some(Phase::Waiting { .. }))
    }

    /// Where the trees are equal and durable, if the sender knows of nothing that is left to do.
    pub fn in_sync(&self) -> Option<u64> {
        let facts = lock(&self.facts);
        match facts.phase {
            Some(Phase::InSync { sequence }) if pending(&facts.counters) == 0 => Some(sequence),
            _ => None,
        }
    }

    /// Everything, as it is now.
    pub fn status(&self) -> SenderStatus {
        let facts = lock(&self.facts);
        let (phase, reason) = match &facts.phase {
            _ if facts.ended => ("ended", None),
            None => ("starting", None),
            Some(phase) => describe(phase),
        };
        let was_compared = facts.in_sync_at.is_some();
        let oldest = match facts.backlog.oldest {
            None if !was_compared => Some(facts.started),
            oldest => oldest,
        };
        let oldest = oldest.map(|since| since.elapsed().as_millis().try_into().unwrap_or(u64::MAX));
        SenderStatus {
            pid: std::process::id(),
            identity: self.identity.clone(),
            home: self.home.clone(),
            since: process_start(),
            mirror: self.mirror.clone(),
            source: self.source.clone(),
            target: self.target.clone(),
            phase: phase.to_owned(),
            phase_since: facts.phase_since,
            reason: reason.map(str::to_owned),
            held: match &facts.phase {
                Some(Phase::Held { deletions, .. }) if !facts.ended => Some(*deletions),
                _ => None,
            },
            connected: !facts.ended && facts.phase.as_ref().is_some_and(is_connected),
            in_sync_at: facts.in_sync_at,
            behind: Behind {
                ops: pending(&facts.counters),
                oldest_ms: oldest,
                entries: facts.backlog.entries,
                bytes: facts.backlog.bytes,
                in_flight: facts.backlog.in_flight,
                sending: facts.backlog.sending.clone(),
            },
            counters: named(&facts.counters),
            failed: facts.failed.clone(),
            last_error: facts.last_error.clone(),
            watcher: facts.watcher.clone(),
            checkpoints: facts.checkpoints.clone(),
            protections: facts.protections.clone(),
        }
    }
}

impl Observer for StatusBoard {
    fn watcher(&self, name: &str, degradations: &[String]) {
        self.set_watcher(name, degradations);
    }

    fn failed(&self, entries: &[FailedEntry]) {
        self.set_failed(entries);
    }

    fn checkpoints(&self, checkpoints: &[Checkpoint]) {
        let before = std::mem::replace(&mut lock(&self.facts).checkpoints, checkpoints.to_vec());
        for checkpoint in checkpoints.iter().filter(|known| known.completed.is_some()) {
            let was_open = |old: &Checkpoint| old.name == checkpoint.name && old.completed.is_none();
            if before.iter().any(was_open) {
                self.publish(What::Checkpoint(checkpoint.clone()));
            }
        }
    }

    fn batch(&self, applied: u64, changes: &[AppliedChange]) {
        let changes = changes.iter().take(BATCH_NAMED_MAX).cloned().collect();
        self.publish(What::Batch { applied, changes });
    }

    fn drift(&self) {
        self.publish(What::Drift);
    }

    fn phase(&self, phase: &Phase) {
        if events::is_anybody_listening() {
            let before = lock(&self.facts).phase.clone();
            self.publish_phase(before.as_ref(), phase);
        }
        let mut facts = lock(&self.facts);
        if let Phase::InSync { sequence } = phase {
            facts.in_sync_at = Some(InSyncAt {
                sequence: *sequence,
                at: unix_now(),
            });
            facts.backlog = Backlog::default();
        }
        if let Phase::Waiting { error, .. } | Phase::Halted { error } | Phase::Held { text: error, .. } =
            phase
        {
            facts.last_error = Some(LastError::now(error));
        }
        if facts.phase.as_ref().map(describe).map(|(name, _)| name) != Some(describe(phase).0) {
            facts.phase_since = unix_now();
        }
        facts.phase = Some(phase.clone());
    }

    fn counters(&self, counters: &SendCounters) {
        lock(&self.facts).counters = *counters;
    }

    fn backlog(&self, backlog: &Backlog) {
        lock(&self.facts).backlog = backlog.clone();
    }

    fn warning(&self, text: &str) {
        self.publish(What::Warning {
            text: text.to_owned(),
        });
        lock(&self.facts).last_error = Some(LastError::now(text));
    }
}

/// Whether a sender in this phase has a connection.
fn is_connected(phase: &Phase) -> bool {
    match phase {
        Phase::Comparing | Phase::Sending | Phase::InSync { .. } | Phase::Held { .. } => true,
        Phase::Scanning
        | Phase::Connecting
        | Phase::Waiting { .. }
        | Phase::Queued
        | Phase::Paused
        | Phase::Halted { .. } => false,
    }
}

/// What keeps a target from harm.
fn guards(options: &SenderOptions) -> Vec<ProtectionStatus> {
    let guard = |name: &str, given_up: Option<String>| ProtectionStatus {
        name: name.to_owned(),
        holds: given_up.is_none(),
        reason: given_up,
    };
    let root = options
        .accept_root
        .then(|| "--accept-root lets another or an empty source through".to_owned());
    let first = (options.deletes == Deletes::Always)
        .then(|| "--delete always removes what only the target has, also on first contact".to_owned());
    let many = match options.delete_limit {
        Some(_) => None,
        None => Some("--max-delete none lets any number of deletions through".to_owned()),
    };
    vec![
        guard("source-root", root),
        guard("first-contact", first),
        guard("max-delete", many),
    ]
}

/// The name of a phase, and the reason if it has one.
pub fn describe(phase: &Phase) -> (&'static str, Option<&str>) {
    match phase {
        Phase::Scanning => ("scanning", None),
        Phase::Connecting => ("connecting", None),
        Phase::Comparing => ("comparing", None),
        Phase::Sending => ("sending", None),
        Phase::InSync { .. } => ("in-sync", None),
        Phase::Held { text, .. } => ("held", Some(text)),
        Phase::Waiting { error, .. } => ("waiting", Some(error)),
        Phase::Queued => (
            "queued",
            Some("as many mirrors as max-transfers allows are being brought in sync"),
        ),
        Phase::Paused => ("paused", None),
        Phase::Halted { error } => ("halted", Some(error)),
    }
}

fn pending(counters: &SendCounters) -> u64 {
    counters.ops_total.saturating_sub(counters.ops_done)
}

/// The counters by name, as `SendCounters` writes them.
fn named(counters: &SendCounters) -> BTreeMap<String, u64> {
    let value = serde_json::to_value(counters).unwrap_or_default();
    let fields = value.as_object().into_iter().flatten();
    fields
        .filter_map(|(name, value)| Some((name.clone(), value.as_u64()?)))
        .collect()
}

/// Now, in unix seconds; a clock set before 1970 counts as 1970.
pub fn unix_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// When this was first asked in this process; `main` asks first.
pub fn process_start() -> u64 {
    static START: OnceLock<u64> = OnceLock::new();
    *START.get_or_init(unix_now)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
