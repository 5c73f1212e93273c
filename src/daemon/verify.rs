//! `verify`: both disks are read, and every entry is compared by attributes and content digest.
//!
//! Directories are looked through in one order, depth first, so that a place in it says what is done: that and what was found is
//! written down now and then, and the next run goes on from there (`Progress`). Several questions are on their way to the
//! receiver at a time, and answered in their order; while it reads, files are read here. Both ends read at the same bounded rate
//! and leave their page caches as they were.
//!
//! Beside a mirror at work differences come and go. Those that were found are looked at again once what changed up to then has
//! arrived; only what still differs, while nobody touches it here, is one. To mend, the receiver is told to believe nothing that it
//! knows of these places, and the mirror itself does the rest by its own rules.

mod again;
mod answers;
mod entries;
mod owners;
mod progress;

use super::home::Home;
use super::pace::{Pace, digest_at_pace};
use super::receiver::{cheap_digest, kind_of, own_carried};
use super::sender::{
    Allowance, Fate, ReconcileError, Standing, TreeFiles, fate_by, listing_from, open_link, owner_keys,
    question,
};
use super::status::unix_now;
use super::{DaemonError, FailedEntry, Observer, Phase, SenderOptions, Stop};
use crate::engine::filter::{Filter, Role};
use crate::engine::owners::acl_owners;
use crate::fs::{Directory, Stat};
use crate::net::{Schedule, SenderLink};
use answers::{Asked, Gathering};
use driftless_protocol::limits::CONTROL_MESSAGE_BYTES_MAX;
use driftless_protocol::message::{Names, Open, Paths, Purpose, Row, ToReceiver, ToSender};
use driftless_protocol::{Attributes, Carried, Digest, Kind, Name, ObjectId, RelPath, Xattrs};
use entries::{Job, Place};
use owners::Owners;
use progress::{Done, Position, Progress, Share};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Directories asked for ahead of the one that is compared.
const ASK_AHEAD: usize = 8;
/// Batches of entries whose contents are being read there.
const BATCHES_MAX: usize = 4;
/// Entries, files and bytes in one batch.
const BATCH_ENTRIES_MAX: usize = 2_048;
const BATCH_FILES_MAX: usize = 256;
const BATCH_BYTES_MAX: u64 = 16 << 20;
/// How often the progress is written down.
const STORE_EVERY: Duration = Duration::from_secs(5);

const ONLY_THERE: &str = "only on the target";
const MISSING: &str = "missing on the target";

/// A way in which an entry differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// Its path, escaped.
    pub path: String,
    /// What differs.
    pub what: String,
}

/// What a verification found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyReport {
    /// Entries of the source that were compared.
    pub compared: u64,
    /// Bytes of the source that were read.
    pub bytes: u64,
    /// What differs, and was not mended.
    pub differences: Vec<Difference>,
    /// What differed, and was mended.
    pub repaired: Vec<Difference>,
    /// Entries that changed whenever they were looked at, so that nothing can be said of them.
    pub changing: u64,
    /// Entries of the source that could not be read, or directories of the target that could not.
    pub unreadable: Vec<FailedEntry>,
    /// When the run that was gone on with began, in seconds since 1970; none if it was begun anew.
    pub resumed: Option<u64>,
    /// It was stopped before its end; the next one goes on from there.
    pub cut_off: bool,
}

/// How to verify.
pub struct How<'a> {
    /// How fast each end reads at most, if there is a limit.
    pub rate: Option<Schedule>,
    /// Begin anew, although an earlier run was cut off.
    pub restart: bool,
    /// Where the progress is kept.
    pub progress: PathBuf,
    /// Waits until what changed up to now is on the target, if a mirror of these trees is at work.
    pub settle: Option<&'a dyn Fn() -> Result<(), DaemonError>>,
    /// Has the target brought in sync, if what differs is to be mended. It was told what to look at again by then.
    pub repair: Option<&'a dyn Fn() -> Result<(), DaemonError>>,
    /// When to break off.
    pub stop: &'a Stop,
}

/// Compares a source with a target.
pub fn run(
    options: &SenderOptions,
    how: &How<'_>,
    runtime: &tokio::runtime::Handle,
    observer: &dyn Observer,
) -> Result<VerifyReport, DaemonError> {
    observer.phase(&Phase::Connecting);
    let root = Directory::open_root(&options.source)
        .map_err(|error| DaemonError::failed(error.to_string()))?
        .with_view(options.view());
    let open = Open {
        carried: Carried {
            xattrs: root.holds_xattrs(own_carried(&root).xattrs),
            ..own_carried(&root)
        },
        ..question(options, Purpose::Verify)
    };
    let (link, opened) =
        open_link(options, runtime, Vec::new(), open).map_err(|error| DaemonError::failed(error.text))?;
    observer.phase(&Phase::Comparing);
    let root = Arc::new(root);
    let device = root
        .stat_self()
        .map_err(|error| DaemonError::failed(error.to_string()))?
        .stamp
        .device;
    let of = comparison(options);
    let earlier = match how.restart {
        true => None,
        false => Progress::load(&how.progress, &of),
    };
    let resumed = earlier.as_ref().map(|earlier| earlier.began);
    let progress = earlier.unwrap_or_else(|| Progress {
        began: unix_now(),
        ..Progress::default()
    });
    let mut verifier = Verifier {
        how,
        link: &link,
        carried: opened.carried,
        owners: Owners::new(&options.owners),
        filter: &options.filter,
        root,
        device,
        of,
        pace: Pace::new(0),
        asked: VecDeque::new(),
        listings: HashMap::new(),
        batches: 0,
        resume: progress.position.clone(),
        links: HashMap::new(),
        linked_there: HashMap::new(),
        told_there: HashMap::new(),
        progress,
        stored: Instant::now(),
    };
    let outcome = verifier.verify();
    link.close(driftless_protocol::CloseCode::Done, "");
    let mut report = outcome?;
    report.resumed = resumed;
    Ok(report)
}

/// Where the progress of verifying a mirror is kept.
pub fn progress_file(options: &SenderOptions) -> PathBuf {
    let key = Home::mirror_key(&options.source, &options.target.display);
    options.home.mirror_dir(&key).join("verify.json")
}

/// What tells one comparison from another.
fn comparison(options: &SenderOptions) -> String {
    let rules = format!(
        "{}\n{}\n{:?}\n{:?}\n{:?}",
        options.source.display(),
        options.target.display,
        options.owners,
        options.modes,
        options.links
    );
    let mut hasher = blake3::Hasher::new();
    hasher.update(rules.as_bytes());
    hasher.update(&options.filter.fingerprint());
    hasher.finalize().to_hex().to_string()
}

struct Verifier<'a> {
    how: &'a How<'a>,
    link: &'a SenderLink,
    carried: Carried,
    owners: Owners<'a>,
    filter: &'a Filter,
    root: Arc<Directory>,
    /// The file system of the root.
    device: u64,
    /// Which comparison this is.
    of: String,
    pace: Pace,
    asked: VecDeque<Asked>,
    /// Listings that came before their turn.
    listings: HashMap<RelPath, Result<Vec<Row>, String>>,
    /// Batches that were asked for.
    batches: usize,
    /// Where an earlier run was cut off.
    resume: Position,
    /// What the target tells of the objects with several names, by their device and inode here; and the other way round.
    links: HashMap<(u64, u64), ObjectId>,
    linked_there: HashMap<ObjectId, (u64, u64)>,
    /// What the target last told of places that differed.
    told_there: HashMap<Vec<u8>, Option<Attributes>>,
    progress: Progress,
    /// When the progress was last written down.
    stored: Instant,
}

impl Verifier<'_> {
    fn verify(&mut self) -> Result<VerifyReport, DaemonError> {
        self.compare_tree()?;
        if self.is_stopped() {
            self.take_whole()?;
            self.store();
            return Ok(self.report(BTreeMap::new(), 0));
        }
        for path in std::mem::take(&mut self.progress.only_there) {
            self.progress
                .found
                .entry(path)
                .or_default()
                .insert(ONLY_THERE.to_owned());
        }
        let changing = self.look_twice()?;
        let repaired = self.repair()?;
        let report = self.report(repaired, changing);
        match report.cut_off {
            true => self.store(),
            // Gone already if the run was a short one.
            false => drop(std::fs::remove_file(&self.how.progress)),
        }
        Ok(report)
    }

    fn report(&self, repaired: BTreeMap<Vec<u8>, BTreeSet<String>>, changing: u64) -> VerifyReport {
        let listed = |found: &BTreeMap<Vec<u8>, BTreeSet<String>>| {
            let each = found.iter().flat_map(|(path, what)| {
                let path = RelPath::parse(path).unwrap_or_default().to_string();
                what.iter().map(move |what| Difference {
                    path: path.clone(),
                    what: what.clone(),
                })
            });
            each.collect()
        };
        VerifyReport {
            compared: self.progress.compared,
            bytes: self.progress.bytes,
            differences: listed(&self.progress.found),
            repaired: listed(&repaired),
            changing,
            unreadable: self
                .progress
                .unreadable
                .iter()
                .map(|(path, error)| FailedEntry {
                    path: path.clone(),
                    error: error.clone(),
                })
                .collect(),
            resumed: None,
            cut_off: self.is_stopped(),
        }
    }

    fn is_stopped(&self) -> bool {
        self.how.stop.is_requested()
    }

    /// Writes the progress down. That it cannot be costs the next run its time, and nothing else.
    fn store(&mut self) {
        self.stored = Instant::now();
        if let Err(error) = self.progress.store(&self.how.progress, &self.of) {
            tracing::warn!("cannot write down how far this is: {error}");
        }
    }

    fn compare_tree(&mut self) -> Result<(), DaemonError> {
        let mut stack = vec![Job {
            path: RelPath::root(),
            place: Place::Root,
            standing: self.root_standing()?,
        }];
        while let Some(job) = stack.pop() {
            if self.is_stopped() {
                return Ok(());
            }
            let ahead = stack.iter().rev().map(|job| &job.path).take(ASK_AHEAD);
            let ahead: Vec<RelPath> = std::iter::once(&job.path).chain(ahead).cloned().collect();
            ahead.into_iter().try_for_each(|path| self.ask_listing(path))?;
            let rows = match self.rows_of(&job.path)? {
                Ok(rows) => rows,
                Err(text) => {
                    self.unreadable(&job.path, &format!("on the target: {text}"));
                    continue;
                }
            };
            let first = stack.len();
            self.compare_directory(&job, rows, &mut stack)?;
            // The first of them is to come first.
            stack[first..].sort_by(|a, b| b.path.names().cmp(a.path.names()));
        }
        while !self.asked.is_empty() && !self.is_stopped() {
            self.take_answer()?;
        }
        Ok(())
    }

    fn differs(&mut self, path: &RelPath, what: &str) {
        self.progress
            .found
            .entry(path.to_bytes())
            .or_default()
            .insert(what.to_owned());
    }

    fn unreadable(&mut self, path: &RelPath, error: &str) {
        // The source may be read late, and the target tells of it then.
        if !self.is_stopped() {
            self.progress
                .unreadable
                .insert((path.to_string(), error.to_owned()));
        }
    }
}
