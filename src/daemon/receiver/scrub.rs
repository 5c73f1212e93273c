//! The scrub: every content that the mirror put here is read again in so many days, and compared with its digest.
//!
//! Silent corruption moves no time stamp: a file whose stamp is the one that was catalogued and whose content is not is corrupt; one
//! with another stamp was changed by somebody. Reading is spread over the whole period, at no more than [`RATE_MAX`], and leaves the
//! page cache as it was. What lies in the cache is read from there: a rotten block shows once the file is not in use any more.
//!
//! The catalog is looked into for a moment at a time ([`Window`]), since nobody may hold it when it is opened anew. Our own writing
//! goes on meanwhile. Therefore what seems wrong is judged a second time: a corrupt file by its stamp and digest as they are
//! catalogued after it was read, a changed one by whoever holds the replica, between two ops.

use super::patrol::Patrols;
use super::replica::is_same_state;
use super::{Found, How, lock};
use crate::daemon::Stop;
use crate::daemon::events::{self, What};
use crate::daemon::pace::{Pace, digest_at_pace};
use crate::daemon::status::unix_now;
use crate::daemon::upkeep::{Finding, ScrubOptions, ScrubReport};
use crate::fs::Directory;
use crate::store::{Catalog, CatalogRead, Entry, StoreError};
use driftless_protocol::{Digest, Kind, Name, ObjectId, RelPath};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Entries taken from the catalog at a time.
const BATCH: usize = 512;
/// Bytes a second. The slowest keeps a round of a small tree short, the fastest leaves something of a disk to others.
const RATE_MIN: u64 = 1 << 20;
const RATE_MAX: u64 = 100 << 20;
/// What looking for a file and opening it costs, in bytes.
const FILE_COST: u64 = 16 << 10;
/// How often the progress is written down.
const STORE_EVERY: Duration = Duration::from_secs(30);
/// Between two tries where nothing can be read.
const PAUSE: Duration = Duration::from_secs(1);
/// Its name in the directory of the module path's state.
const FILE: &str = "scrub.json";

/// What may be seen of a replica by others than the one who works on it. Empty while the replica is closed.
#[derive(Default)]
pub struct Window(Mutex<Option<(Arc<Catalog>, Arc<Directory>)>>);

impl std::fmt::Debug for Window {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Window")
    }
}

impl Window {
    pub(super) fn open(&self, catalog: &Arc<Catalog>, root: &Arc<Directory>) {
        *lock(&self.0) = Some((catalog.clone(), root.clone()));
    }

    /// Waits for whoever looks through it.
    pub(super) fn close(&self) {
        lock(&self.0).take();
    }

    /// Whether the path is not open any more. Whoever opens it again has another window.
    pub(super) fn is_closed(&self) -> bool {
        lock(&self.0).is_none()
    }

    /// For a moment only: it holds up the end of the replica.
    pub(super) fn look<T>(&self, look: impl FnOnce(&Catalog, &Arc<Directory>) -> T) -> Option<T> {
        let inside = lock(&self.0);
        inside.as_ref().map(|(catalog, root)| look(catalog, root))
    }
}

/// Has whoever holds a module path look at it again: the module, the path in it, and paths below that. Gives up when asked to stop.
pub type Ask = Arc<dyn Fn(&str, &RelPath, &[RelPath], How, &Stop) -> Result<Found, String> + Send + Sync>;

/// A part of a module, and what is needed to look after it.
#[derive(Clone)]
pub struct Place {
    /// The module.
    pub module: String,
    /// The path in it.
    pub top: RelPath,
    /// What can be seen of it.
    pub window: Arc<Window>,
    /// Whom to ask for more.
    pub ask: Ask,
}

/// Begins to scrub a module path, if that is wanted, in place of what was begun there before. `home` is the directory of its state.
pub fn start(patrols: &Patrols<ScrubReport>, options: Option<&ScrubOptions>, place: &Place, home: &Path) {
    let Some(options) = options.cloned() else { return };
    let (at, file) = (place.clone(), home.join(FILE));
    patrols.start("scrub", (&place.module, &place.top), move |stop, report| {
        let Place {
            module,
            top,
            window,
            ask,
        } = at;
        let scrubber = Scrubber {
            module,
            top,
            options,
            window,
            file,
            ask,
            stop,
            report,
        };
        scrubber.run();
    });
}

/// What is kept of a round.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Round {
    /// The last object that is done.
    after: u64,
    #[serde(flatten)]
    report: ScrubReport,
}

struct Scrubber<'a> {
    module: String,
    top: RelPath,
    options: ScrubOptions,
    window: Arc<Window>,
    file: PathBuf,
    ask: Ask,
    stop: &'a Stop,
    report: &'a Mutex<ScrubReport>,
}

/// What is the matter with a file.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Nothing, or nothing can be said of it now.
    Passed,
    /// Its content is not the one that was put, and nothing tells that anybody wrote to it.
    Corrupt(String),
    /// Somebody changed it.
    Edited,
    /// There is no time to look at it any more.
    Stopped,
}

impl Scrubber<'_> {
    fn run(&self) {
        let mut round = self.load();
        if round.report.began == 0 {
            round.report.began = unix_now();
        }
        round.report.path = self.top.to_string();
        self.tell(&round);
        while self.rest(&mut round) {
            if !self.go_through(&mut round) {
                break;
            }
            round.report.finished = Some(unix_now());
            round.report.rests = true;
            round.after = 0;
            self.tell(&round);
            self.store(&round);
            let ScrubReport { files, bytes, .. } = round.report;
            tracing::info!(module = %self.module, path = %self.top, files, bytes, "all contents were read again");
        }
        self.store(&round);
    }

    /// After a complete round, waits until the next one is due. False when it is to end.
    fn rest(&self, round: &mut Round) -> bool {
        let every = self.options.every;
        while round.report.rests {
            let age = Duration::from_secs(unix_now().saturating_sub(round.report.began));
            if age >= every {
                let began = unix_now();
                let report = &mut round.report;
                (report.began, report.rests, report.files, report.bytes) = (began, false, 0, 0);
                break;
            }
            // An hour is the longest sleep: wall clocks are set, and machines suspended.
            if !self.wait((every - age).min(Duration::from_secs(3_600))) {
                return false;
            }
        }
        !self.stop.is_requested()
    }

    fn wait(&self, time: Duration) -> bool {
        let stop = self.stop.channel();
        !self.stop.is_requested()
            && (time.is_zero() || stop.recv_timeout(time).is_err_and(|error| error.is_timeout()))
    }

    /// Reads all that is left of the round. False when it is to end.
    fn go_through(&self, round: &mut Round) -> bool {
        round.report.bytes_total = match self.bytes_above(0) {
            Some(total) => total,
            None => return self.wait(PAUSE) && self.go_through_later(round),
        };
        let mut left = self.bytes_above(round.after).unwrap_or(0);
        let mut pace = Pace::new(RATE_MIN);
        let mut stored = Instant::now();
        self.tell(round);
        loop {
            let Some(batch) = self.batch(round.after) else {
                if !self.wait(PAUSE) {
                    return false;
                }
                continue;
            };
            if batch.is_empty() {
                return true;
            }
            for entry in batch {
                let cost = cost_of(&entry);
                if let Some(cost) = cost {
                    pace.set_rate(self.rate(round, left));
                    match self.examine(&entry, &mut pace) {
                        Verdict::Stopped => return false,
                        Verdict::Passed => {}
                        verdict => self.handle(&entry, verdict, round),
                    }
                    round.report.files += 1;
                    round.report.bytes += entry.size;
                    left = left.saturating_sub(cost);
                    if !self.wait(pace.charge(Instant::now(), FILE_COST)) {
                        return false;
                    }
                }
                round.after = entry.object.0;
                self.tell(round);
                if stored.elapsed() >= STORE_EVERY {
                    stored = Instant::now();
                    self.store(round);
                }
            }
        }
    }

    fn go_through_later(&self, round: &mut Round) -> bool {
        while self.bytes_above(0).is_none() {
            if self.window.is_closed() || !self.wait(PAUSE) {
                return false;
            }
        }
        self.go_through(round)
    }

    /// What is left in the time that is left.
    fn rate(&self, round: &Round, left: u64) -> u64 {
        let age = Duration::from_secs(unix_now().saturating_sub(round.report.began));
        let time = self.options.every.saturating_sub(age).max(Duration::from_secs(1));
        // A little faster, so that it is done in time.
        let wanted = left as f64 / time.as_secs_f64() * 1.1;
        (wanted as u64).clamp(RATE_MIN, RATE_MAX)
    }

    fn batch(&self, after: u64) -> Option<Vec<Entry>> {
        self.read(|view| view.entries_above(ObjectId(after), BATCH))
    }

    /// What reading all above an object costs.
    fn bytes_above(&self, object: u64) -> Option<u64> {
        let (mut at, mut sum) = (object, 0_u64);
        loop {
            let batch = self.batch(at)?;
            let Some(last) = batch.last() else {
                return Some(sum);
            };
            at = last.object.0;
            sum = batch.iter().filter_map(cost_of).fold(sum, u64::saturating_add);
            if self.stop.is_requested() {
                return Some(sum);
            }
        }
    }

    fn read<T>(&self, read: impl FnOnce(&crate::store::View<'_>) -> Result<T, StoreError>) -> Option<T> {
        let outcome = self.window.look(|catalog, _| catalog.read(read))?;
        outcome
            .inspect_err(|error| tracing::warn!("cannot scrub module {}: {error}", self.module))
            .ok()
    }

    fn path_of(&self, entry: &Entry) -> Option<RelPath> {
        let names = self.read(|view| view.path_of(entry.object))??;
        let is_private = names.iter().any(Name::is_reserved);
        RelPath::from_names(names).ok().filter(|_| !is_private)
    }

    /// Reads a file and says what is the matter with it.
    fn examine(&self, entry: &Entry, pace: &mut Pace) -> Verdict {
        let Some(path) = self.path_of(entry) else {
            return Verdict::Passed;
        };
        let opened = self.window.look(|_, root| {
            let (name, above) = path.names().split_last()?;
            let mut at = root.clone();
            for name in above {
                at = Arc::new(at.open_dir(name).ok()?);
            }
            // What is gone, or is no file, is no matter of contents.
            Some((at.open_file(name).ok()?, at, name.clone()))
        });
        let Some(Some(((file, stat), directory, name))) = opened else {
            return Verdict::Passed;
        };
        let mut wait = |time| self.wait(time);
        let found = match digest_at_pace(&file, pace, &mut wait) {
            Ok(Some(found)) => found,
            Ok(None) => return Verdict::Stopped,
            Err(error) => return self.unreadable(entry, &error),
        };
        if Some(found) == entry.digest {
            return Verdict::Passed;
        }
        let is_still = directory
            .stat(&name)
            .is_ok_and(|now| now.is_some_and(|now| now.stamp == stat.stamp));
        if !is_still || !self.is_catalogued_still(entry) {
            return Verdict::Passed;
        }
        if is_same_state(entry, &stat) {
            return Verdict::Corrupt(
                "its content is not the one that was written, though its times are".to_owned(),
            );
        }
        let paths = std::slice::from_ref(&path);
        match (self.ask)(&self.module, &self.top, paths, How::Tell, self.stop) {
            Ok(found) if !found.changed.is_empty() => Verdict::Edited,
            _ => Verdict::Passed,
        }
    }

    fn unreadable(&self, entry: &Entry, error: &io::Error) -> Verdict {
        match self.is_catalogued_still(entry) {
            true => Verdict::Corrupt(format!("it cannot be read: {error}")),
            false => Verdict::Passed,
        }
    }

    fn is_catalogued_still(&self, entry: &Entry) -> bool {
        let now = self.read(|view| view.get(entry.object)).flatten();
        now.is_some_and(|now| {
            now.digest == entry.digest && now.stamp == entry.stamp && now.place == entry.place
        })
    }

    /// Tells what was found, and has it fetched again if that is wanted.
    fn handle(&self, entry: &Entry, verdict: Verdict, round: &mut Round) {
        let Some(path) = self.path_of(entry) else {
            return;
        };
        let (what, how) = match verdict {
            Verdict::Corrupt(what) => {
                round.report.corrupt += 1;
                (what, How::Doubt)
            }
            _ => {
                round.report.edited += 1;
                ("somebody changed it".to_owned(), How::Mend)
            }
        };
        let fetches = match self.options.repairs {
            true => "it is fetched again",
            false => "it stays as it is: scrub-repair is not set",
        };
        tracing::error!(module = %self.module, path = %path, "scrub: {what}; {fetches}");
        let shown = path.to_string();
        let told = What::Corrupt {
            module: self.module.clone(),
            path: shown.clone(),
            what: what.clone(),
        };
        events::publish(None, told);
        Finding::note(&mut round.report.latest, shown, what);
        if self.options.repairs
            && let Err(error) = {
                let paths = std::slice::from_ref(&path);
                (self.ask)(&self.module, &self.top, paths, how, self.stop)
            }
        {
            // The next round finds it again.
            tracing::error!(module = %self.module, path = %path, "scrub: it cannot be fetched again: {error}");
        }
    }

    fn tell(&self, round: &Round) {
        *lock(self.report) = round.report.clone();
    }

    fn load(&self) -> Round {
        let stored = fs::read(&self.file).ok();
        stored
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default()
    }

    /// That it cannot be costs the next run its time, and nothing else.
    fn store(&self, round: &Round) {
        let write = || {
            let aside = self.file.with_extension("new");
            fs::write(&aside, serde_json::to_vec(round).map_err(io::Error::other)?)?;
            fs::rename(aside, &self.file)
        };
        if let Err(error) = write() {
            tracing::warn!(
                "cannot write down how far the scrub of {} is: {error}",
                self.module
            );
        }
    }
}

/// What reading an entry costs; none if there is nothing to compare it with.
fn cost_of(entry: &Entry) -> Option<u64> {
    let is_known = entry.digest.is_some_and(|digest: Digest| !digest.is_assumed());
    let is_ours = entry.kind == Kind::File && is_known && !entry.place.name.is_reserved();
    is_ours.then(|| entry.size.saturating_add(FILE_COST))
}
