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

mod owners;
mod progress;

use super::home::Home;
use super::pace::{Pace, digest_at_pace};
use super::receiver::{cheap_digest, kind_of, own_carried};
use super::sender::{
    Fate, ReconcileError, Standing, TreeFiles, fate_by, listing_from, open_link, owner_keys,
};
use super::status::unix_now;
use super::{DaemonError, FailedEntry, Observer, Phase, SenderOptions, Stop};
use crate::engine::filter::{Filter, Role};
use crate::engine::owners::acl_owners;
use crate::fs::{Directory, Stat};
use crate::net::{Schedule, SenderLink};
use driftless_protocol::limits::CONTROL_MESSAGE_BYTES_MAX;
use driftless_protocol::message::{
    ModuleName, Names, Open, Paths, Purpose, Recheck, Relays, Row, Sparing, ToReceiver, ToSender,
};
use driftless_protocol::{Attributes, Carried, Digest, Kind, Name, ObjectId, RelPath, Xattrs};
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
/// How often an entry is looked at that changes all the time, and one that is to be mended.
const TRIES: u32 = 3;
const REPAIR_TRIES: u32 = 20;
/// Between two looks at what is to be mended.
const REPAIR_PAUSE: Duration = Duration::from_millis(500);
/// Bytes of paths in one message: half of what it may have, since they are encoded with their lengths.
const DOUBT_BYTES_MAX: usize = CONTROL_MESSAGE_BYTES_MAX / 2;
const DOUBT_PATHS_MAX: usize = 256;

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
        purpose: Purpose::Verify,
        module: ModuleName(options.target.module.clone().into_bytes()),
        path: options.target.path.clone(),
        mirror: 0,
        source: options.source.display().to_string().as_str().into(),
        incarnation: 0,
        carried: Carried {
            xattrs: root.holds_xattrs(own_carried(&root).xattrs),
            ..own_carried(&root)
        },
        sum: None,
        protects: false,
        sparing: Sparing::default(),
        whole_files: false,
        recheck: Recheck::Nothing,
        upstream: Relays::default(),
        engine: None,
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
        owners: Owners::new(&link, &options.owners),
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

/// A directory that is to be compared.
struct Job {
    path: RelPath,
    place: Place,
    standing: Standing,
}

/// Where a directory is here.
enum Place {
    Root,
    /// In this one. It is opened when its turn comes: there can be more of them than descriptors.
    In(Arc<Directory>, Name),
    /// Only the target has it: it is looked through for what has to go there.
    Nowhere,
}

/// What the receiver was asked, in the order of its answers, and what is noted between them.
enum Asked {
    Listing(RelPath),
    Contents(Batch),
    /// Nothing: everything before is done then.
    Passed(Position, u64),
}

/// Files of one directory whose contents are being compared.
struct Batch {
    directory: RelPath,
    /// All of them were read here.
    is_whole: bool,
    files: Vec<(Name, Result<Digest, String>)>,
}

/// Entries that wait to become a batch.
#[derive(Default)]
struct Gathering {
    entries: u64,
    files: Vec<(Name, Stat)>,
    bytes: u64,
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

    fn send(&self, message: ToReceiver) -> Result<(), DaemonError> {
        self.link
            .control()
            .send(message)
            .map_err(|_| DaemonError::failed("the receiver is gone"))
    }

    fn ask_listing(&mut self, path: RelPath) -> Result<(), DaemonError> {
        let is_asked = |asked: &Asked| matches!(asked, Asked::Listing(other) if *other == path);
        if self.listings.contains_key(&path) || self.asked.iter().any(is_asked) {
            return Ok(());
        }
        self.send(ToReceiver::ListDisk(path.clone()))?;
        self.asked.push_back(Asked::Listing(path));
        Ok(())
    }

    fn rows_of(&mut self, path: &RelPath) -> Result<Result<Vec<Row>, String>, DaemonError> {
        self.ask_listing(path.clone())?;
        loop {
            if let Some(rows) = self.listings.remove(path) {
                return Ok(rows);
            }
            self.take_answer()?;
        }
    }

    /// Takes the answers about all that was read here before this was stopped.
    fn take_whole(&mut self) -> Result<(), DaemonError> {
        while let Some(asked) = self.asked.front() {
            if matches!(asked, Asked::Contents(batch) if !batch.is_whole) {
                break;
            }
            self.take_answer()?;
        }
        Ok(())
    }

    /// Takes the next answer of the receiver, and notes what is done by then.
    fn take_answer(&mut self) -> Result<(), DaemonError> {
        let broken =
            || DaemonError::failed("the receiver broke the protocol while it was asked for contents");
        match self.asked.pop_front() {
            None => return Err(broken()),
            Some(Asked::Passed(..)) => {}
            Some(Asked::Listing(path)) => {
                let rows = match listing_from(|| self.owners.next_message()) {
                    Ok(rows) => Ok(rows),
                    Err(ReconcileError::Unlisted(text)) => Err(text),
                    Err(error) => return Err(DaemonError::failed(format!("cannot verify {path}: {error}"))),
                };
                self.listings.insert(path, rows);
            }
            Some(Asked::Contents(batch)) => {
                let gone = || DaemonError::failed("the receiver is gone");
                let Batch { directory, files, .. } = batch;
                let theirs = match self.owners.next_message().ok_or_else(gone)? {
                    ToSender::Contents(digests) if digests.0.len() == files.len() => digests.0,
                    _ => return Err(broken()),
                };
                self.batches -= 1;
                for ((name, ours), theirs) in files.into_iter().zip(theirs) {
                    let path = directory.join(&name);
                    match (ours, theirs) {
                        (Ok(ours), Some(theirs)) if ours == theirs => {}
                        (Ok(_), Some(_)) => self.differs(&path, "content"),
                        (Ok(_), None) => self.differs(&path, "unreadable on the target"),
                        (Err(error), _) => self.unreadable(&path, &error),
                    }
                }
            }
        }
        while let Some(Asked::Passed(..)) = self.asked.front() {
            if let Some(Asked::Passed(position, entries)) = self.asked.pop_front() {
                self.progress.position = position;
                self.progress.compared += entries;
            }
        }
        if self.stored.elapsed() >= STORE_EVERY {
            self.store();
        }
        Ok(())
    }

    /// Has the contents of what was gathered compared, and notes that everything up to `position` is done then.
    fn flush(
        &mut self,
        gathered: &mut Gathering,
        directory: &Directory,
        position: Position,
    ) -> Result<(), DaemonError> {
        let Gathering { entries, files, .. } = std::mem::take(gathered);
        if !files.is_empty() {
            self.ask_contents(directory, &position.directory, files)?;
        }
        if !self.is_stopped() {
            self.asked.push_back(Asked::Passed(position, entries));
        }
        while self.batches > BATCHES_MAX {
            self.take_answer()?;
        }
        Ok(())
    }

    /// Asks for contents there, and reads them here meanwhile.
    fn ask_contents(
        &mut self,
        directory: &Directory,
        path: &RelPath,
        files: Vec<(Name, Stat)>,
    ) -> Result<(), DaemonError> {
        let names = files.iter().map(|(name, _)| name.clone()).collect();
        // It may be one for this time of day.
        let rate = self.how.rate.as_ref().and_then(Schedule::rate_now).unwrap_or(0);
        self.pace.set_rate(rate);
        self.send(ToReceiver::ReadContents {
            path: path.clone(),
            names: Names(names),
            rate,
        })?;
        self.batches += 1;
        let stopping = self.how.stop.channel();
        let stop = self.how.stop;
        let mut wait = |time: Duration| {
            let is_open = |time| stopping.recv_timeout(time).is_err_and(|error| error.is_timeout());
            !stop.is_requested() && (time.is_zero() || is_open(time))
        };
        let mut read = Vec::with_capacity(files.len());
        for (name, _) in files {
            let opened = directory.open_file(&name).map_err(|error| error.to_string());
            let ours = opened.and_then(|(file, stat)| {
                let digest = digest_at_pace(&file, &mut self.pace, &mut wait);
                let digest = digest.map_err(|error| format!("cannot read {name}: {error}"))?;
                self.progress.bytes += stat.size;
                digest.ok_or_else(|| "reading it was broken off".to_owned())
            });
            read.push((name, ours));
        }
        self.asked.push_back(Asked::Contents(Batch {
            directory: path.clone(),
            is_whole: !stop.is_requested(),
            files: read,
        }));
        Ok(())
    }

    fn root_standing(&self) -> Result<Standing, DaemonError> {
        if self.filter.passes_everything() && !self.filter.one_file_system() {
            return Ok(Standing::Everything);
        }
        let mut files = TreeFiles::new(&self.root, None);
        let rules = self.filter.root(Role::Both, &mut files);
        rules
            .map(Standing::Rules)
            .map_err(|error| DaemonError::failed(error.to_string()))
    }

    /// The rules in a subdirectory, whichever side has it. `None`, and reported, if they can't be known.
    fn enter(&mut self, standing: &Standing, path: &RelPath, name: &Name) -> Option<Standing> {
        let Standing::Rules(rules) = standing else {
            return Some(standing.clone());
        };
        match rules.enter(name, &mut TreeFiles::new(&self.root, None)) {
            Ok(rules) => Some(Standing::Rules(rules)),
            Err(error) => {
                self.unreadable(path, &error.to_string());
                None
            }
        }
    }

    fn compare_directory(
        &mut self,
        job: &Job,
        rows: Vec<Row>,
        stack: &mut Vec<Job>,
    ) -> Result<(), DaemonError> {
        let Job {
            path,
            standing,
            place,
        } = job;
        let opened = match place {
            Place::Nowhere => {
                self.judge_extras(job, only_theirs(rows), stack);
                return Ok(());
            }
            Place::Root => Ok(self.root.clone()),
            Place::In(parent, name) => parent.open_dir(name).map(Arc::new),
        };
        let listed = opened.and_then(|directory| Ok((directory.list()?, directory)));
        let (listing, directory) = match listed {
            Ok(found) => found,
            Err(error) => {
                self.unreadable(path, &error.to_string());
                return Ok(());
            }
        };
        if self.carried.owner {
            let owners = listing.entries.iter();
            let owners = owners.flat_map(|(_, stat)| owner_keys(&stat.attributes));
            self.owners.learn(owners)?;
        }
        let mut theirs: BTreeMap<Name, Row> = rows.into_iter().map(|row| (row.name.clone(), row)).collect();
        for (name, error) in &listing.problems {
            if let Ok(name) = Name::new(name.as_slice()) {
                theirs.remove(&name);
            }
            self.unreadable(path, &error.to_string());
        }
        let mut gathered = Gathering::default();
        for (name, stat) in listing.entries {
            if self.is_stopped() {
                return Ok(());
            }
            let Some(kind) = kind_of(stat.file_type) else {
                continue;
            };
            if let Standing::Rules(rules) = standing {
                if kind == Kind::File && !self.filter.admits_size(stat.size) {
                    // Whatever the target has of it stays.
                    theirs.remove(&name);
                    continue;
                }
                if !rules.verdict(&name, kind).transfer {
                    continue;
                }
            }
            let entry = path.join(&name);
            let row = theirs.remove(&name);
            let is_there = row.as_ref().is_some_and(|row| row.kind == kind);
            if !self.is_done(path, &name) {
                gathered.entries += 1;
                if self.compare_entry(&entry, &directory, &name, &stat, row.as_ref())? {
                    gathered.bytes = gathered.bytes.saturating_add(stat.size);
                    gathered.files.push((name.clone(), stat));
                }
            }
            let is_cut = self.filter.one_file_system() && stat.stamp.device != self.device;
            if kind == Kind::Directory
                && is_there
                && !is_cut
                && !self.is_below_done(path, &name)
                && let Some(standing) = self.enter(standing, &entry, &name)
            {
                stack.push(Job {
                    path: entry,
                    place: Place::In(directory.clone(), name.clone()),
                    standing,
                });
            }
            let is_full = gathered.files.len() >= BATCH_FILES_MAX || gathered.bytes >= BATCH_BYTES_MAX;
            if is_full || gathered.entries >= BATCH_ENTRIES_MAX as u64 {
                let position = Position {
                    directory: path.clone(),
                    done: Done::through(&name),
                };
                self.flush(&mut gathered, &directory, position)?;
            }
        }
        self.judge_extras(job, only_theirs(theirs.into_values()), stack);
        if matches!(self.resume.share(path), Share::From(_)) {
            return Ok(());
        }
        let position = Position {
            directory: path.clone(),
            done: Done::All,
        };
        self.flush(&mut gathered, &directory, position)
    }

    /// Whether an earlier run compared an entry itself.
    fn is_done(&self, directory: &RelPath, name: &Name) -> bool {
        match self.resume.share(directory) {
            Share::Whole => false,
            Share::Rest(done) => done.covers(name),
            Share::From(_) => true,
        }
    }

    /// Whether an earlier run compared everything below a directory.
    fn is_below_done(&self, parent: &RelPath, name: &Name) -> bool {
        matches!(self.resume.share(parent), Share::From(next) if name < next)
    }

    /// Notes what the target has too much of. A filter may want some of it to stay, and the directories around that.
    fn judge_extras(&mut self, job: &Job, theirs: impl Iterator<Item = (Name, Kind)>, stack: &mut Vec<Job>) {
        let is_only_there = matches!(job.place, Place::Nowhere);
        for (name, kind) in theirs {
            if self.is_below_done(&job.path, &name) {
                continue;
            }
            let path = job.path.join(&name);
            if fate_by(&job.standing, &name, kind, is_only_there) == Fate::Kept {
                let shown = path.to_bytes();
                for (end, _) in shown.iter().enumerate().filter(|&(_, &byte)| byte == b'/') {
                    self.progress.only_there.remove(&shown[..end]);
                }
            } else if kind == Kind::Directory && self.filter.may_protect() {
                if !self.is_done(&job.path, &name) {
                    self.progress.only_there.insert(path.to_bytes());
                }
                if let Some(standing) = self.enter(&job.standing, &path, &name) {
                    stack.push(Job {
                        path,
                        place: Place::Nowhere,
                        standing,
                    });
                }
            } else {
                self.differs(&path, ONLY_THERE);
            }
        }
    }

    /// Compares everything of an entry but the content of a file; whether that is to be compared, too.
    fn compare_entry(
        &mut self,
        path: &RelPath,
        directory: &Directory,
        name: &Name,
        stat: &Stat,
        row: Option<&Row>,
    ) -> Result<bool, DaemonError> {
        let Some(kind) = kind_of(stat.file_type) else {
            return Ok(false);
        };
        let Some(row) = row else {
            self.differs(path, MISSING);
            return Ok(false);
        };
        if row.kind != kind {
            self.differs(path, "of another type on the target");
            return Ok(false);
        }
        if let Some(what) = self.compare_links(stat, kind, row.attributes.link_group) {
            self.differs(path, what);
        }
        if !matches!(kind, Kind::File | Kind::Directory) {
            match cheap_digest(directory, name, stat) {
                Ok(digest) if digest == row.digest => {}
                Ok(_) if row.digest.is_none() => self.differs(path, "unreadable on the target"),
                Ok(_) => self.differs(path, "content"),
                Err(error) => self.unreadable(path, &error.to_string()),
            }
        }
        let mut ours = stat.attributes;
        if !self.carried.xattrs.is_empty() {
            match directory.xattrs(name, self.carried.xattrs) {
                Ok(found) => match self.xattrs_there(&found.xattrs) {
                    Ok(digest) => ours.xattrs = digest,
                    Err(error) => self.unreadable(path, &error),
                },
                Err(error) => self.unreadable(path, &error.to_string()),
            }
        }
        if self.carried.owner {
            match self.owners.there(&ours) {
                Ok(there) => (ours.uid, ours.gid) = (there.uid, there.gid),
                Err(error) => self.differs(path, &error.to_string()),
            }
        }
        if let Some(what) = differing(ours.carried(self.carried), row.attributes.carried(self.carried)) {
            self.differs(path, &what);
        }
        Ok(kind == Kind::File)
    }

    /// The digest of extended attributes as they should be on the target.
    fn xattrs_there(&mut self, xattrs: &Xattrs) -> Result<Option<Digest>, String> {
        if !self.carried.owner {
            return Ok(xattrs.digest());
        }
        let learnt = self.owners.learn(acl_owners(xattrs).into_iter());
        learnt.map_err(|error| error.to_string())?;
        let there = self.owners.xattrs_there(xattrs);
        there.map_err(|error| error.to_string())
    }

    /// Whether names of one object here are names of one object there, and of others are not.
    fn compare_links(&mut self, stat: &Stat, kind: Kind, there: ObjectId) -> Option<&'static str> {
        if kind == Kind::Directory || (stat.links < 2 && there == ObjectId(0)) {
            return None;
        }
        let here = (stat.stamp.device, stat.stamp.inode);
        let is_shared = there != ObjectId(0);
        if self
            .links
            .insert(here, there)
            .is_some_and(|other| !is_shared || other != there)
        {
            return Some("not a link to the same file as here");
        }
        let first = *self.linked_there.entry(there).or_insert(here);
        (is_shared && first != here).then_some("a link to a file that is another one here")
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

    /// What differs beside a mirror at work may have been on its way. Forgets what does not differ when it is looked at again, or
    /// what changes whenever that is done; how many the latter are.
    fn look_twice(&mut self) -> Result<u64, DaemonError> {
        let Some(settle) = self.how.settle else {
            return Ok(0);
        };
        let mut unsure: Vec<RelPath> = self.paths_found();
        for _ in 0..TRIES {
            if unsure.is_empty() || self.is_stopped() {
                break;
            }
            settle()?;
            let mut still = Vec::new();
            for path in unsure {
                if self.is_stopped() {
                    return Ok(0);
                }
                if !self.look_again(&path)? {
                    still.push(path);
                }
            }
            unsure = still;
        }
        for path in &unsure {
            self.progress.found.remove(&path.to_bytes());
        }
        Ok(unsure.len() as u64)
    }

    fn paths_found(&self) -> Vec<RelPath> {
        let paths = self.progress.found.keys();
        paths.filter_map(|path| RelPath::parse(path).ok()).collect()
    }

    /// Looks at an entry that differed again. False if it still does and changed on either side since the last look, so that nothing
    /// can be said: a directory on the target has other times for as long as something is done in it.
    fn look_again(&mut self, path: &RelPath) -> Result<bool, DaemonError> {
        let key = path.to_bytes();
        let Some(before) = self.progress.found.remove(&key) else {
            return Ok(true);
        };
        let Some((name, above)) = path.names().split_last() else {
            return Ok(true);
        };
        let parent = RelPath::from_names(above.to_vec()).unwrap_or_default();
        let rows = self.rows_of(&parent)?.unwrap_or_default();
        let row = rows.into_iter().find(|row| row.name == *name);
        let attributes = row.as_ref().map(|row| row.attributes);
        let told_before = self.told_there.insert(key.clone(), attributes);
        let is_same_there = told_before == Some(attributes);
        // What the filter leaves out may be here all the same.
        if before.contains(ONLY_THERE) {
            if row.is_some() {
                self.progress.found.insert(key, before);
                return Ok(is_same_there);
            }
            return Ok(true);
        }
        let directory = above
            .iter()
            .try_fold(self.root.clone(), |at, name| at.open_dir(name).map(Arc::new));
        let stat = directory.and_then(|directory| Ok((directory.stat(name)?, directory)));
        let (stat, directory) = match stat {
            Ok((Some(stat), directory)) => (stat, directory),
            // It is gone here.
            Ok((None, _)) | Err(_) => {
                if row.is_some() {
                    self.differs(path, ONLY_THERE);
                    return Ok(is_same_there);
                }
                return Ok(true);
            }
        };
        if self.carried.owner {
            self.owners.learn(owner_keys(&stat.attributes).into_iter())?;
        }
        if self.compare_entry(path, &directory, name, &stat, row.as_ref())? {
            self.ask_contents(&directory, &parent, vec![(name.clone(), stat)])?;
            while self.batches > 0 {
                self.take_answer()?;
            }
        }
        let is_still = directory
            .stat(name)
            .is_ok_and(|now| now.is_some_and(|now| now.stamp == stat.stamp));
        if !is_still {
            self.progress.found.insert(key, before);
            return Ok(false);
        }
        Ok(is_same_there || !self.progress.found.contains_key(&key))
    }

    /// Has what differs mended, if that is wanted; what was.
    fn repair(&mut self) -> Result<BTreeMap<Vec<u8>, BTreeSet<String>>, DaemonError> {
        let mut repaired = BTreeMap::new();
        let Some(repair) = self.how.repair.filter(|_| !self.is_stopped()) else {
            return Ok(repaired);
        };
        if self.progress.found.is_empty() {
            return Ok(repaired);
        }
        self.doubt()?;
        // A mirror at work hears of it by another connection: it may believe for a moment that nothing is to be done.
        for attempt in 0..REPAIR_TRIES {
            if self.progress.found.is_empty() || self.is_stopped() {
                break;
            }
            if attempt > 0 {
                if self.how.settle.is_none() {
                    break;
                }
                let _ = self.how.stop.channel().recv_timeout(REPAIR_PAUSE);
            }
            repair()?;
            for path in self.paths_found() {
                let key = path.to_bytes();
                let before = self.progress.found.get(&key).cloned().unwrap_or_default();
                self.look_again(&path)?;
                if !self.progress.found.contains_key(&key) {
                    repaired.insert(key, before);
                }
            }
        }
        Ok(repaired)
    }

    /// Tells the receiver where it is not to believe what it knows.
    fn doubt(&mut self) -> Result<(), DaemonError> {
        let mut paths: VecDeque<RelPath> = self.paths_found().into();
        while !paths.is_empty() {
            let (mut some, mut bytes) = (Vec::new(), 0);
            while let Some(path) = paths.pop_front() {
                bytes += path.to_bytes().len() + 2 * path.names().len();
                if !some.is_empty() && (bytes > DOUBT_BYTES_MAX || some.len() >= DOUBT_PATHS_MAX) {
                    paths.push_front(path);
                    break;
                }
                some.push(path);
            }
            self.send(ToReceiver::Doubt(Paths(some)))?;
            match self.owners.next_message() {
                Some(ToSender::Doubted { .. }) => {}
                Some(_) => {
                    return Err(DaemonError::failed(
                        "the receiver broke the protocol while it was told of differences",
                    ));
                }
                None => {
                    let end = self.link.wait_ended();
                    return Err(DaemonError::failed(format!("the receiver mends nothing: {end}")));
                }
            }
        }
        Ok(())
    }
}

/// What the target should not have. A receiver marks its backups as its own.
fn only_theirs(rows: impl IntoIterator<Item = Row>) -> impl Iterator<Item = (Name, Kind)> {
    let rows = rows.into_iter().filter(|row| !row.object.is_local());
    rows.map(|row| (row.name, row.kind))
}

/// Which attributes differ, in words.
fn differing(ours: Attributes, theirs: Attributes) -> Option<String> {
    let mut what = Vec::new();
    if ours.mode != theirs.mode {
        what.push(format!("mode {:04o} here, {:04o} there", ours.mode, theirs.mode));
    }
    if (ours.uid, ours.gid) != (theirs.uid, theirs.gid) {
        what.push(format!(
            "owner {}:{} wanted, {}:{} there",
            ours.uid, ours.gid, theirs.uid, theirs.gid
        ));
    }
    if ours.mtime != theirs.mtime {
        what.push("time of modification".to_owned());
    }
    if ours.xattrs != theirs.xattrs {
        what.push("extended attributes".to_owned());
    }
    (!what.is_empty()).then(|| what.join(", "))
}
