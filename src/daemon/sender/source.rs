//! The source tree and its catalog: what is there, what changed, what has to go to the target.
//!
//! Everything here decides by `stat` against the catalog; no file is opened. A changed object gets a new number in the
//! journal (one slot per object); reading its content is the session's business.

mod acl_owners;
mod carrying;
mod doubt;
mod gone;
mod links;
mod listing;
mod lookouts;
mod mounts;
mod moved;
mod reach;
mod root;
mod rules;
mod seen;

pub use rules::{Fate, Standing, TreeFiles, fate_by};

use super::contents::Contents;
use super::initial::{Gone, Start};
use super::touched::Touched;
use super::unheard::Unheard;
use crate::daemon::home::Home;
use crate::daemon::ledger::{Ledger, flags};
use crate::daemon::{DaemonError, SenderOptions};
use crate::engine::compare::Compare;
use crate::engine::newcomers::Newcomers;
use crate::fs::{Directory, FoundXattrs, FsError, FsErrorKind, Stamp, Stat, descriptors_for};
use crate::store::{
    Catalog, CatalogRead, Entry, Role, SIGNATURE_CACHE_BYTES, Signatures, State, StoreError, Tables,
};
use crate::watch::{WatchError, WatchEvent, Watcher};
use acl_owners::AclOwners;
use crossbeam_channel::Receiver;
use driftless_protocol::message::{Place, Sparing};
use driftless_protocol::{Kind, Name, ObjectId, RelPath, XattrClasses};
use lookouts::Lookouts;
use reach::Reach;
use rules::{Admission, Rules};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Directories kept open, where the limit of descriptors allows it.
const HANDLES_MAX: usize = 1_024;
/// Numbers set aside at each start: more than any run gives out, and 2^31 starts fit into 63 bits.
const NUMBERS_PER_RUN: u64 = 1 << 32;

/// What a look at the tree found.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Entries seen.
    pub entries: u64,
    /// Entries of kinds that are not carried.
    pub skipped: u64,
    /// Entries that the filter leaves out; a directory counts as one.
    pub excluded: u64,
    /// Directories or entries that could not be read.
    pub unreadable: u64,
    /// Objects that got a new number in the journal.
    pub changed: u64,
}

/// The source tree of a mirror.
pub struct Source {
    /// Its root.
    pub root: Arc<Directory>,
    /// Where it is.
    pub path: PathBuf,
    /// Objects and names.
    pub catalog: Arc<Catalog>,
    /// Mirror id, incarnations, cursors, failed set.
    pub state: State,
    /// Of the contents that the target was last sent.
    pub signatures: Arc<Signatures>,
    /// And the sums of the spans of the large ones, by content.
    pub spans: Arc<Signatures>,
    /// The sum over what is known of the tree.
    pub ledger: Ledger,
    /// What the target holds.
    pub contents: Contents,
    /// How contents are compared that one side never read.
    pub compare: Compare,
    /// Lines for the user that have not been shown yet.
    pub warnings: Vec<String>,
    /// Names of which events were told that have not been looked at yet.
    pub touched: Touched,
    /// Rules changed since a comparison last judged what only the target has.
    pub rules_changed: bool,
    /// Where directories stood that are gone, and whose removal has not been sent. If the filter may protect something
    /// in them on the target, or somebody has to approve so many deletions, nothing may take their places before that is
    /// settled.
    pub graves: HashMap<Place, ObjectId>,
    /// Where the target has directories that have moved since they were known to be there.
    pub left: HashMap<Place, ObjectId>,
    /// A directory is gone that had moved, and where the target has it is not known.
    pub has_lost_place: bool,
    /// Where the journal stood when this run began, before its first walk.
    opened_at: u64,
    /// The target keeps some or all of what is removed here (`--delete never`, `startup`, `running`).
    pub keeps_removed: bool,
    /// What is left as it is on the target.
    pub sparing: Sparing,
    /// When the mirror began, if what differed then is left as it is on the target.
    pub start: Option<Start>,
    /// What was left so, and went since that was last looked at on the target.
    pub left_gone: Vec<Gone>,
    /// The target has everything durably that has no higher number in the journal.
    pub acknowledged: u64,
    /// Objects from this number on were first seen in this run.
    pub first_of_run: ObjectId,
    /// How many entries went since removals were last all sent, but for those that had come lately.
    pub unsent_deletions: u64,
    /// What came so lately that it is no loss when it goes. Marked only where somebody counts.
    pub newcomers: Newcomers,
    /// Directories that got another name, and below which nothing has been looked at since. That can wait until the
    /// rename has been sent: it takes long for a large directory, and mostly finds nothing.
    pub renamed: Vec<ObjectId>,
    /// Directories that were to be entered and did not stand where the catalog has them: what is in them has not been looked at, and may
    /// not be watched.
    unentered: BTreeSet<ObjectId>,
    /// The extended attributes that count.
    classes: XattrClasses,
    /// Those of the entry that is looked at, if they were read when its directory was listed.
    xattrs_at_hand: Option<(Stamp, Result<FoundXattrs, FsError>)>,
    /// Devices are carried.
    devices: bool,
    /// Objects that were found to have extended attributes of other classes, each time one was looked at.
    pub foreign_xattrs: u64,
    /// The users and groups whom ACLs name.
    pub acl_owners: AclOwners,
    rules: Option<Rules>,
    /// Mount points that the user was told of.
    mounts: HashSet<Place>,
    /// Where file systems were mounted that are not any more, as far as the user was told.
    unmounted: HashSet<ObjectId>,
    /// The user said that what is not mounted any more is gone.
    accepts_unmounted: bool,
    /// That the root is on.
    device: u64,
    /// The root's own attributes are not carried.
    leaves_root: bool,
    is_summed: bool,
    watcher: Arc<Mutex<Box<dyn Watcher>>>,
    handles: HashMap<ObjectId, Arc<Directory>>,
    handles_max: usize,
    /// Files with several names, by device and inode: a write through one name raises no event at the others.
    linked: HashMap<(u64, u64), BTreeSet<ObjectId>>,
    /// Of these, what was seen lately to have more names than are known.
    half_known: BTreeSet<(u64, u64)>,
    /// What links lead to that are followed.
    lookouts: Lookouts,
}

/// A look in progress: objects whose names were not found where the catalog has them.
#[derive(Debug, Default)]
struct Look {
    found: Found,
    orphans: Vec<ObjectId>,
    /// Other names of files that changed.
    linked: Vec<ObjectId>,
    /// Where links are that led by way of a directory that is gone from the tree.
    behind: Vec<Place>,
    /// Objects with several names of which one changed, by device and inode.
    groups: BTreeSet<(u64, u64)>,
    /// Directories that have to be listed, and walked unless they are among the next. The last goes first, and each is
    /// opened when its turn comes: a level can have more directories than a process descriptors.
    enter: Vec<ObjectId>,
    /// Directories of which the names are to be looked at, and not what is below them.
    shallow: HashSet<ObjectId>,
    /// What is looked at now was found by listing a directory. It may be new, or have been listed because of doubt: what
    /// happened in it was not told.
    is_untold: bool,
    /// Something was written through a name that was gone before anybody looked at it.
    has_missed: bool,
    /// Names of which nothing was taken in, whatever is there: what was told of them may be about something that the catalog has
    /// under another name.
    passed_over: HashSet<(ObjectId, Name)>,
}

impl Source {
    /// Opens the tree and its databases. Nothing is walked yet.
    pub fn open(options: &SenderOptions) -> Result<Source, DaemonError> {
        use std::os::fd::AsFd;
        let failed = |error: &dyn std::fmt::Display| DaemonError::failed(error.to_string());
        let path = options.source.clone();
        let root = Directory::open_root(&path).map_err(|error| failed(&error))?;
        let root = Arc::new(root.with_view(options.view()));
        let device = root.stat_self().map_err(|error| failed(&error))?.stamp.device;
        let rules = Rules::new(&options.filter, &root)?;
        let watcher = open_watcher(options, root.as_fd()).map_err(|error| failed(&error))?;
        let key = Home::mirror_key(&path, &options.target.display);
        let home = options.home.mirror_dir(&key);
        std::fs::create_dir_all(&home)
            .map_err(|error| DaemonError::failed(format!("cannot make {}: {error}", home.display())))?;
        let state = State::open(&home.join("state.redb")).map_err(|error| failed(&error))?;
        let opened =
            Catalog::open(&home.join("catalog.redb"), Role::Sender).map_err(|error| failed(&error))?;
        let catalog = opened.catalog;
        // Numbers are never given out twice, whatever a crash or a lost catalog forgot.
        let reserve = state.object_reserve().map_err(|error| failed(&error))?;
        let next = catalog
            .update(true, |t| {
                t.raise_next_object(ObjectId(reserve));
                t.next_object()
            })
            .map_err(|error| failed(&error))?;
        state
            .raise_object_reserve(next.0 + NUMBERS_PER_RUN)
            .map_err(|error| failed(&error))?;
        let cache = |name: &str| {
            Signatures::open(&home.join(name), SIGNATURE_CACHE_BYTES).map_err(|error| {
                DaemonError::failed(format!(
                    "cannot use the signatures in {}: {error}",
                    home.display()
                ))
            })
        };
        let (signatures, spans) = (cache("signatures")?, cache("spans")?);
        let kept = catalog.read(|view| {
            let (owners, unheard) = (AclOwners::load(view)?, Unheard::load(view)?);
            Ok((owners, unheard, view.last_sequence()?))
        });
        let (acl_owners, unheard, opened_at) = kept.map_err(|error| failed(&error))?;
        let mut warnings = Vec::new();
        if let Some(reason) = opened.rebuilt {
            warnings.push(format!(
                "the catalog of {} is rebuilt by a scan: {reason}",
                path.display()
            ));
        }
        Ok(Source {
            root,
            path,
            first_of_run: next,
            sparing: options.sparing,
            start: None,
            left_gone: Vec::new(),
            acknowledged: 0,
            catalog: Arc::new(catalog),
            state,
            signatures: Arc::new(signatures),
            spans: Arc::new(spans),
            ledger: Ledger::default(),
            contents: Contents::default(),
            compare: options.compare,
            warnings,
            touched: Touched::after(unheard),
            rules_changed: false,
            graves: HashMap::new(),
            left: HashMap::new(),
            has_lost_place: false,
            opened_at,
            unsent_deletions: 0,
            keeps_removed: false,
            newcomers: Newcomers::default(),
            renamed: Vec::new(),
            unentered: BTreeSet::new(),
            classes: XattrClasses::NONE,
            xattrs_at_hand: None,
            devices: false,
            foreign_xattrs: 0,
            acl_owners,
            rules,
            mounts: HashSet::new(),
            unmounted: HashSet::new(),
            accepts_unmounted: options.accept_root,
            device,
            leaves_root: options.leaves_root,
            is_summed: false,
            watcher: Arc::new(Mutex::new(watcher)),
            handles: HashMap::new(),
            handles_max: descriptors_for(8, HANDLES_MAX),
            linked: HashMap::new(),
            half_known: BTreeSet::new(),
            lookouts: Lookouts::default(),
        })
    }

    /// Where the watcher's events come out.
    pub fn events(&self) -> Receiver<WatchEvent> {
        self.watcher().events()
    }

    /// Drops `done` when everything that was told up to now is in the channel of events.
    pub fn flush_events(&self, done: crossbeam_channel::Sender<()>) {
        self.watcher().flush(done);
    }

    /// What stands at a path in the tree now, whatever the catalog says.
    pub fn stat_at(&self, path: &RelPath) -> Option<Stat> {
        let Some((name, above)) = path.names().split_last() else {
            return self.root.stat_self().ok();
        };
        let mut handle = self.root.clone();
        for name in above {
            handle = Arc::new(handle.open_dir(name).ok()?);
        }
        handle.stat(name).ok().flatten()
    }

    /// Whether anything stands at a path in the tree now.
    pub fn is_there(&self, path: &RelPath) -> bool {
        self.stat_at(path).is_some()
    }

    /// Which back end watches, and what it does less well than it could.
    pub fn watching(&self) -> (&'static str, Vec<String>) {
        let watcher = self.watcher();
        (watcher.name(), watcher.degradations())
    }

    /// That a part of the tree is only looked at now and then, although that was not asked for.
    pub fn shortfall(&self) -> Option<String> {
        self.watcher().shortfall()
    }

    /// Whether nobody waits for what happens in it.
    pub fn set_patient(&self, is_patient: bool) {
        self.watcher().set_patient(is_patient);
    }

    /// Asks the kernel for what it has not told yet, if that may change what was made of what it told.
    fn hear(&mut self) {
        if let Some(done) = self.touched.unheard.ask() {
            self.watcher().hear(done);
        }
    }

    /// What it told then was taken in.
    pub fn handle_heard(&mut self) -> Result<(), StoreError> {
        let is_news = self.touched.unheard.handle_answer();
        self.hear();
        match is_news {
            true => self
                .catalog
                .clone()
                .update(false, |t| self.touched.unheard.store(t)),
            false => Ok(()),
        }
    }

    fn watcher(&self) -> MutexGuard<'_, Box<dyn Watcher>> {
        self.watcher.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the source path still leads to the root that was opened.
    pub fn root_is_in_place(&self) -> bool {
        let same = |stamp: &Stamp| {
            self.root
                .stat_self()
                .is_ok_and(|stat| stat.stamp.same_object(stamp))
        };
        Directory::open_root(&self.path)
            .and_then(|root| root.stat_self())
            .is_ok_and(|stat| same(&stat.stamp))
    }

    /// Walks the whole tree: every directory is watched first and listed after.
    pub fn scan(&mut self) -> Result<Found, DaemonError> {
        let root = self.root.clone();
        let stat = root
            .stat_self()
            .map_err(|error| DaemonError::failed(error.to_string()))?;
        let catalog = self.catalog.clone();
        let outcome = catalog.update(true, |t| {
            let mut look = Look::default();
            let doubted = self.touched.unheard.take_doubted(t)?;
            if let Some(known) = t.get(ObjectId::ROOT)? {
                self.follow_device(t, &known, &stat.stamp)?;
            }
            self.see_root(t, &stat, &mut look)?;
            look.enter.push(ObjectId::ROOT);
            self.enter_directories(t, &mut look)?;
            self.settle(t, &mut look)?;
            if !self.unentered.is_empty() {
                self.enter_missed(t, &mut look)?;
                self.settle(t, &mut look)?;
            }
            // By now all names of each are known.
            self.doubt_all(t, doubted, &mut look)?;
            Ok(look.found)
        });
        self.touched.unheard.handle_walked();
        self.hear();
        outcome.map_err(|error| DaemonError::failed(error.to_string()))
    }

    /// Looks at names that something happened to, at all names of whole directories, and at directories' own
    /// attributes.
    pub fn look(
        &mut self,
        names: &[(ObjectId, Name)],
        directories: &[ObjectId],
        attributes: &[ObjectId],
    ) -> Result<Found, DaemonError> {
        let catalog = self.catalog.clone();
        let outcome = catalog.update(false, |t| {
            let mut look = Look::default();
            let doubted = self.touched.unheard.take_doubted(t)?;
            self.doubt_all(t, doubted, &mut look)?;
            // New names first: an object that moved is recognised at its new name before its old name is given to
            // another object.
            let mut known = Vec::new();
            for (directory, name) in names {
                if t.lookup(*directory, name)?.is_some() {
                    known.push((*directory, name));
                } else {
                    self.look_at(t, *directory, name, &mut look)?;
                }
            }
            for (directory, name) in known {
                self.look_at(t, directory, name, &mut look)?;
            }
            for &directory in directories {
                look.enter.push(directory);
                look.shallow.insert(directory);
            }
            for &directory in directories.iter().chain(attributes) {
                self.look_at_itself(t, directory, &mut look)?;
            }
            self.look_at_linked(t, &mut look)?;
            // A name that came or went moved its directory's times, which raises no event of its own.
            let parents: BTreeSet<ObjectId> = names.iter().map(|(directory, _)| *directory).collect();
            for directory in parents {
                if let Some(handle) = self.directory(t, directory)?
                    && let Ok(stat) = handle.stat_self()
                {
                    self.see_itself(t, directory, &stat, &mut look)?;
                }
            }
            self.enter_directories(t, &mut look)?;
            self.enter_missed(t, &mut look)?;
            self.settle(t, &mut look)?;
            self.touched.unheard.store(t)?;
            Ok(look)
        });
        self.hear();
        let look = outcome.map_err(|error| DaemonError::failed(error.to_string()))?;
        for (directory, name) in names {
            // By the time that all is calm nothing is known any more under a name that it left for one of these.
            if !look.passed_over.contains(&(*directory, name.clone())) {
                self.touched.forget(*directory, name);
            }
        }
        Ok(look.found)
    }

    /// Looks at what is below directories that were renamed.
    pub fn look_below(&mut self, renamed: Vec<ObjectId>) -> Result<Found, DaemonError> {
        let catalog = self.catalog.clone();
        let outcome = catalog.update(false, |t| {
            let mut look = Look::default();
            for object in renamed {
                // It may have been removed since.
                if t.get(object)?.is_some() {
                    look.enter.push(object);
                }
            }
            self.enter_directories(t, &mut look)?;
            self.settle(t, &mut look)?;
            Ok(look.found)
        });
        outcome.map_err(|error| DaemonError::failed(error.to_string()))
    }

    /// The path of an object, escaped, for messages.
    pub fn path_of(&self, object: ObjectId) -> String {
        let names = self.catalog.read(|view| view.path_of(object)).ok().flatten();
        match names {
            Some(names) if names.is_empty() => ".".to_owned(),
            Some(names) => names.iter().map(Name::to_string).collect::<Vec<_>>().join("/"),
            None => format!("object {}", object.0),
        }
    }

    /// The same, or that of its place for an object that is gone from here.
    pub fn path_or_place(&self, object: ObjectId, place: &Place) -> String {
        match self.has(object) {
            true => self.path_of(object),
            false => self.path_at(place),
        }
    }

    /// The path of a place, for people, as far as it is known here.
    pub fn path_at(&self, Place { directory, name }: &Place) -> String {
        match *directory {
            ObjectId::ROOT => name.to_string(),
            directory if self.has(directory) => format!("{}/{name}", self.path_of(directory)),
            _ => format!("…/{name}"),
        }
    }

    fn has(&self, object: ObjectId) -> bool {
        let entry = self.catalog.read(|view| view.get(object));
        entry.is_ok_and(|entry| entry.is_some())
    }

    /// At least as many as there ever were since the catalog was made: each had a number in the journal.
    pub fn entries_ever(&self) -> Result<u64, StoreError> {
        self.catalog
            .read(|view| Ok(view.count()?.max(view.last_sequence()?)))
    }

    /// Before anything new is looked at: what is found from now on came now.
    pub fn mark_newcomers(&mut self, now: Instant) -> Result<(), StoreError> {
        if self.newcomers.is_due(now) {
            let next = self.catalog.update(false, |t| t.next_object())?;
            self.newcomers.mark(now, next);
        }
        Ok(())
    }

    /// Writes an entry and keeps the sum in step.
    pub fn put(&mut self, t: &mut Tables<'_>, entry: &Entry) -> Result<(), StoreError> {
        let old = t.get(entry.object)?;
        self.ledger.replace(old.as_ref(), Some(entry));
        // Not after the digests of the attributes that name them.
        self.acl_owners.store(t)?;
        t.put(entry)
    }

    fn look_at(
        &mut self,
        t: &mut Tables<'_>,
        directory: ObjectId,
        name: &Name,
        look: &mut Look,
    ) -> Result<(), StoreError> {
        if name.is_reserved() {
            look.passed_over.insert((directory, name.clone()));
            return Ok(());
        }
        let handle = match self.reach(t, directory)? {
            Reach::Open(handle) => handle,
            Reach::Gone | Reach::Unmounted => return Ok(()),
            Reach::Unknown(error) => {
                look.passed_over.insert((directory, name.clone()));
                self.note_unreadable(&error, look);
                return Ok(());
            }
        };
        let found = handle.stat(name);
        if let Ok(stat) = &found
            && let Some(top) = self.take_rule_news(directory, name, stat.as_ref())
        {
            look.enter.push(top);
        }
        if self.touched.is_doubtful(directory, name)
            && self.is_another(t, directory, name, found.as_ref().ok().and_then(Option::as_ref))?
        {
            self.touched.unheard.note_passed(directory, name);
        }
        match found {
            Ok(Some(stat)) => {
                let standing = self.standing(t, directory)?;
                match self.admission(&standing, name, &stat) {
                    Admission::In => self.see(t, &handle, directory, name.clone(), &stat, look),
                    Admission::Out => {
                        look.passed_over.insert((directory, name.clone()));
                        look.found.excluded += 1;
                        look.orphans.extend(t.lookup(directory, name)?);
                        Ok(())
                    }
                    Admission::Unknown => {
                        look.passed_over.insert((directory, name.clone()));
                        Ok(())
                    }
                }
            }
            Ok(None) => {
                let place = Place {
                    directory,
                    name: name.clone(),
                };
                let known = t.lookup(directory, name)?;
                look.has_missed |= known.is_none() && self.touched.contains(&place);
                look.orphans.extend(known);
                self.forget_link(&place);
                Ok(())
            }
            Err(error) => {
                look.passed_over.insert((directory, name.clone()));
                self.note_unreadable(&error, look);
                Ok(())
            }
        }
    }

    /// Whether what was told of a name may have been about something else than what is found there now.
    fn is_another(
        &self,
        t: &Tables<'_>,
        directory: ObjectId,
        name: &Name,
        found: Option<&Stat>,
    ) -> Result<bool, StoreError> {
        let Some(found) = found else { return Ok(true) };
        let known = match t.lookup(directory, name)? {
            Some(object) => t.get(object)?.and_then(|entry| stamp_of(&entry)),
            None => None,
        };
        Ok(match known {
            Some(known) => !known.same_object(&found.stamp),
            None => self.touched.has_arrived(&Place {
                directory,
                name: name.clone(),
            }),
        })
    }

    /// A file changed that has other names: they changed with it.
    fn look_at_linked(&mut self, t: &mut Tables<'_>, look: &mut Look) -> Result<(), StoreError> {
        // Each name is seen as changed once, so this ends.
        while let Some(object) = look.linked.pop() {
            if let Some(entry) = t.get(object)? {
                self.look_at(t, entry.place.directory, &entry.place.name, look)?;
            }
        }
        while let Some(place) = look.behind.pop() {
            self.look_at(t, place.directory, &place.name, look)?;
        }
        Ok(())
    }

    /// A directory's own attributes changed, or its inside has to be listed again.
    fn look_at_itself(
        &mut self,
        t: &mut Tables<'_>,
        directory: ObjectId,
        look: &mut Look,
    ) -> Result<(), StoreError> {
        if directory == ObjectId::ROOT {
            if let Ok(stat) = self.root.stat_self() {
                self.see_root(t, &stat, look)?;
            }
        } else if let Some(entry) = t.get(directory)? {
            self.look_at(t, entry.place.directory, &entry.place.name, look)?;
        }
        Ok(())
    }

    fn note_unreadable(&mut self, error: &FsError, look: &mut Look) {
        if error.kind() != FsErrorKind::NotFound {
            look.found.unreadable += 1;
            self.warnings.push(error.to_string());
        }
    }
}

/// What tells of changes in the tree.
fn open_watcher(options: &SenderOptions, root: BorrowedFd<'_>) -> Result<Box<dyn Watcher>, WatchError> {
    #[cfg(test)]
    if let Some(watcher) = crate::daemon::simulation::watcher() {
        return Ok(watcher);
    }
    Ok(Box::new(crate::watch::open(&options.watch, root)?))
}

fn new_entry(object: ObjectId, kind: Kind, place: Place) -> Entry {
    let flags = if kind == Kind::File { flags::STALE } else { 0 };
    Entry {
        object,
        kind,
        place,
        attributes: driftless_protocol::Attributes::default(),
        size: 0,
        digest: None,
        stamp: None,
        sequence: 0,
        flags,
    }
}

/// The local identity that an entry was last seen with.
pub fn stamp_of(entry: &Entry) -> Option<Stamp> {
    entry.stamp.and_then(|bytes| Stamp::from_bytes(&bytes))
}

fn is_unchanged(entry: &Entry, stat: &Stat) -> bool {
    let same_attributes = entry.attributes.told_by_stat() == stat.attributes;
    match entry.kind {
        Kind::Directory => {
            let known = stamp_of(entry);
            same_attributes && known.is_some_and(|known| known.ctime == stat.stamp.ctime)
        }
        _ => same_attributes && entry.stamp == Some(stat.stamp.to_bytes()),
    }
}

#[cfg(test)]
mod tests;
