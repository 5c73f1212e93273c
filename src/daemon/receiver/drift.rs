//! The watch on local edits: what somebody else does in a module path is told at once, or put right.
//!
//! Events say where to look, as at a sender. Whoever holds the replica looks, between two ops, when the catalog has all that was done
//! here; so our own doing is none. Directories are watched by their numbers in the catalog, which lead to where they are
//! now; one that somebody made has none unless it is to be put right, and what happens below it belongs to it.

use super::lock;
use super::patrol::Patrols;
use super::scrub::Place;
use super::{Found, How};
use crate::daemon::Stop;
use crate::daemon::events::{self, What};
use crate::daemon::upkeep::{DriftReport, DriftWatch, Finding};
use crate::fs::Directory;
use crate::store::{CatalogRead, StoreError, View};
use crate::watch::{WatchEvent, WatchOptions, Watcher};
use crossbeam_channel::{Receiver, Select};
use driftless_protocol::{Kind, Name, ObjectId, RelPath};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long events gather, so that a file that is written in many pieces is looked at once.
const GATHER: Duration = Duration::from_millis(200);
/// Paths that are looked at in one go; with more the rest of them waits.
const PATHS_AT_A_TIME: usize = 256;
/// A path that is edited again and again is told so often at most.
const TELL_AGAIN: Duration = Duration::from_secs(60);
/// Paths of which it is known when they were told.
const TOLD_MAX: usize = 4_096;
/// Entries taken from the catalog at a time.
const BATCH: usize = 1_024;
/// Between two tries where nothing can be watched.
const PAUSE: Duration = Duration::from_secs(5);

/// Begins to watch a module path, if that is wanted, in place of what was begun there before.
pub fn start(patrols: &Patrols<DriftReport>, options: Option<DriftWatch>, place: &Place) {
    let Some(policy) = options else { return };
    let at = place.clone();
    patrols.start("drift-watch", (&place.module, &place.top), move |stop, report| {
        let watch = Watch {
            place: at,
            how: match policy {
                DriftWatch::Alarm => How::Tell,
                DriftWatch::Repair => How::Mend,
            },
            stop,
            report,
        };
        watch.run();
    });
}

struct Watch<'a> {
    place: Place,
    how: How,
    stop: &'a Stop,
    report: &'a Mutex<DriftReport>,
}

/// Where something may have happened.
#[derive(Default)]
struct Heard {
    paths: BTreeSet<RelPath>,
    /// Directories of which nobody knows what happened in them.
    listings: BTreeSet<RelPath>,
    /// Anywhere.
    everywhere: bool,
}

impl Watch<'_> {
    fn run(&self) {
        lock(self.report).path = self.place.top.to_string();
        while !self.stop.is_requested() {
            if self.place.window.is_closed() {
                // Whoever opens the path again begins anew.
                return;
            }
            if let Err(error) = self.watch()
                && !self.stop.is_requested()
            {
                tracing::warn!(module = %self.place.module, "local edits are not noticed now: {error}");
                let _ = self.stop.channel().recv_timeout(PAUSE);
            }
        }
    }

    /// Watches until it is to end, or nothing can be watched any more.
    fn watch(&self) -> Result<(), String> {
        let root = self.place.window.look(|_, root| root.clone());
        let root = root.ok_or("the module path is not open")?;
        let options = WatchOptions {
            audit: None,
            ..WatchOptions::default()
        };
        let mut watcher = crate::watch::open(&options, root.as_fd()).map_err(|error| error.to_string())?;
        let events = watcher.events();
        self.watch_below(&mut watcher, &root, ObjectId::ROOT)?;
        self.tell_watcher(&watcher);
        drop(root);
        let stop = self.stop.channel();
        let mut told = HashMap::new();
        loop {
            // For as long as nothing happens, nothing is done.
            let mut select = Select::new();
            select.recv(&events);
            select.recv(&stop);
            select.ready();
            if self.stop.is_requested() || !self.gather_time(&stop) {
                return Ok(());
            }
            let heard = self.take(&events)?;
            let directories = self.handle(heard, &mut told)?;
            for directory in &directories {
                self.watch_new(&mut watcher, directory)?;
            }
            // What happened in them before they were watched was not told.
            let unheard = Heard {
                listings: directories.into_iter().collect(),
                ..Heard::default()
            };
            for directory in self.handle(unheard, &mut told)? {
                self.watch_new(&mut watcher, &directory)?;
            }
            self.tell_watcher(&watcher);
        }
    }

    fn gather_time(&self, stop: &Receiver<()>) -> bool {
        stop.recv_timeout(GATHER).is_err_and(|error| error.is_timeout())
    }

    fn tell_watcher(&self, watcher: &dyn Watcher) {
        let mut report = lock(self.report);
        watcher.name().clone_into(&mut report.watcher);
        report.degradations = watcher.degradations();
    }

    /// What the kernel told up to now.
    fn take(&self, events: &Receiver<WatchEvent>) -> Result<Heard, String> {
        let mut heard = Heard::default();
        let mut numbered: Vec<(ObjectId, Option<Name>, bool)> = Vec::new();
        loop {
            match events.try_recv() {
                Ok(WatchEvent::At { directory, name, .. }) => numbered.push((directory, Some(name), false)),
                Ok(WatchEvent::Renamed { from, to, .. }) => {
                    numbered.push((from.0, Some(from.1), false));
                    numbered.push((to.0, Some(to.1), false));
                }
                Ok(WatchEvent::Listing { directory }) => numbered.push((directory, None, true)),
                Ok(WatchEvent::Itself { directory } | WatchEvent::Gone { directory }) => {
                    numbered.push((directory, None, false));
                }
                Ok(WatchEvent::Overflow) => heard.everywhere = true,
                Err(crossbeam_channel::TryRecvError::Empty) => break,
                Err(crossbeam_channel::TryRecvError::Disconnected) => {
                    return Err("the thread that reads the kernel's events has ended".to_owned());
                }
            }
        }
        let directories: BTreeSet<ObjectId> = numbered.iter().map(|(directory, ..)| *directory).collect();
        let paths = self.read(|view| {
            let mut paths = BTreeMap::new();
            for directory in directories {
                let path = view.path_of(directory)?;
                paths.extend(path.and_then(|names| Some((directory, RelPath::from_names(names).ok()?))));
            }
            Ok(paths)
        })?;
        for (directory, name, is_listing) in numbered {
            // One that is not known any more had its removal, or its new number, told of in the directory above.
            let Some(path) = paths.get(&directory) else {
                continue;
            };
            match name {
                Some(name) if name.is_reserved() => {}
                Some(name) => _ = heard.paths.insert(path.join(&name)),
                None if is_listing => _ = heard.listings.insert(path.clone()),
                None => _ = heard.paths.insert(path.clone()),
            }
        }
        Ok(heard)
    }

    /// Looks where something may have happened; the directories among that.
    fn handle(&self, mut heard: Heard, told: &mut HashMap<RelPath, Instant>) -> Result<Vec<RelPath>, String> {
        if heard.everywhere {
            tracing::warn!(module = %self.place.module, "events were lost: the whole module path is looked at for local edits");
            heard.listings.extend(self.all_directories()?);
        }
        for directory in std::mem::take(&mut heard.listings) {
            let names = self.names_in(&directory)?;
            heard.paths.extend(names.iter().map(|name| directory.join(name)));
        }
        let paths: Vec<RelPath> = heard.paths.into_iter().filter(|path| !path.is_root()).collect();
        for some in paths.chunks(PATHS_AT_A_TIME) {
            if self.stop.is_requested() {
                return Ok(Vec::new());
            }
            let Place { module, top, ask, .. } = &self.place;
            let found = ask(module, top, some, self.how, self.stop)?;
            self.tell(found, told);
        }
        let is_directory = |view: &View<'_>, path: &RelPath| -> Result<bool, StoreError> {
            let entry = object_at(view, path)?
                .map(|object| view.get(object))
                .transpose()?;
            Ok(entry.flatten().is_some_and(|entry| entry.kind == Kind::Directory))
        };
        self.read(|view| {
            let mut directories = Vec::new();
            for path in paths {
                if is_directory(view, &path)? {
                    directories.push(path);
                }
            }
            Ok(directories)
        })
    }

    fn tell(&self, found: Found, told: &mut HashMap<RelPath, Instant>) {
        let now = Instant::now();
        for (path, what) in found.changed {
            if told
                .get(&path)
                .is_some_and(|at| now.duration_since(*at) < TELL_AGAIN)
            {
                continue;
            }
            if told.len() >= TOLD_MAX {
                told.retain(|_, at| now.duration_since(*at) < TELL_AGAIN);
            }
            if told.len() < TOLD_MAX {
                told.insert(path.clone(), now);
            }
            let (module, shown) = (self.place.module.clone(), path.to_string());
            tracing::warn!(%module, path = %shown, "local edit: {what}");
            let what = what.to_owned();
            events::publish(
                None,
                What::LocalEdit {
                    module,
                    path: shown.clone(),
                    what: what.clone(),
                },
            );
            let mut report = lock(self.report);
            report.edits += 1;
            Finding::note(&mut report.latest, shown, what);
        }
    }

    /// Watches a directory that came, and all below it; what happened in it before is looked at after that.
    fn watch_new(&self, watcher: &mut impl Watcher, path: &RelPath) -> Result<(), String> {
        let Some(object) = self.read(|view| object_at(view, path))? else {
            return Ok(());
        };
        let root = self.place.window.look(|_, root| root.clone());
        let root = root.ok_or("the module path is not open")?;
        let opened = path
            .names()
            .iter()
            .try_fold(root, |at, name| at.open_dir(name).map(Arc::new));
        match opened {
            Ok(directory) => self.watch_below(watcher, &directory, object),
            // It is gone again, which is told of in the directory above.
            Err(_) => Ok(()),
        }
    }

    /// Watches a directory and those below it, by their numbers in the catalog.
    fn watch_below(
        &self,
        watcher: &mut impl Watcher,
        top: &Arc<Directory>,
        object: ObjectId,
    ) -> Result<(), String> {
        let mut stack = vec![(top.clone(), object, None::<Name>)];
        while let Some((mut directory, object, name)) = stack.pop() {
            if self.stop.is_requested() {
                return Ok(());
            }
            if let Some(name) = name {
                match directory.open_dir(&name) {
                    Ok(inner) => directory = Arc::new(inner),
                    Err(_) => continue,
                }
            }
            watcher
                .watch(object, directory.as_fd())
                .map_err(|error| error.to_string())?;
            let inner = self.read(|view| view.child_entries(object))?;
            let inner = inner
                .into_iter()
                .filter(|entry| entry.kind == Kind::Directory && !entry.place.name.is_reserved());
            stack.extend(inner.map(|entry| (directory.clone(), entry.object, Some(entry.place.name))));
        }
        Ok(())
    }

    fn all_directories(&self) -> Result<Vec<RelPath>, String> {
        let (mut paths, mut at) = (vec![RelPath::root()], ObjectId(0));
        loop {
            let batch = self.read(|view| {
                let batch = view.entries_above(at, BATCH)?;
                let mut found = Vec::new();
                for entry in batch.iter().filter(|entry| entry.kind == Kind::Directory) {
                    found.extend(
                        view.path_of(entry.object)?
                            .and_then(|names| RelPath::from_names(names).ok()),
                    );
                }
                Ok((batch.last().map(|entry| entry.object), found))
            })?;
            paths.extend(batch.1);
            match batch.0 {
                Some(last) if !self.stop.is_requested() => at = last,
                _ => return Ok(paths),
            }
        }
    }

    /// What is in a directory, on the disk or in the catalog.
    fn names_in(&self, path: &RelPath) -> Result<BTreeSet<Name>, String> {
        let known = self.read(|view| match object_at(view, path)? {
            Some(object) => view.children(object),
            None => Ok(Vec::new()),
        })?;
        let mut names: BTreeSet<Name> = known.into_iter().map(|(name, _)| name).collect();
        let root = self.place.window.look(|_, root| root.clone());
        let root = root.ok_or("the module path is not open")?;
        let opened = path
            .names()
            .iter()
            .try_fold(root, |at, name| at.open_dir(name).map(Arc::new));
        if let Ok(listing) = opened.and_then(|directory| directory.list()) {
            names.extend(listing.entries.into_iter().map(|(name, _)| name));
        }
        names.retain(|name| !name.is_reserved());
        Ok(names)
    }

    fn read<T>(&self, read: impl FnOnce(&View<'_>) -> Result<T, StoreError>) -> Result<T, String> {
        let outcome = self.place.window.look(|catalog, _| catalog.read(read));
        let outcome = outcome.ok_or("the module path is not open")?;
        outcome.map_err(|error| error.to_string())
    }
}

/// The object at a path, if it is known.
fn object_at(view: &View<'_>, path: &RelPath) -> Result<Option<ObjectId>, StoreError> {
    let mut at = ObjectId::ROOT;
    for name in path.names() {
        match view.lookup(at, name)? {
            Some(object) => at = object,
            None => return Ok(None),
        }
    }
    Ok(Some(at))
}
