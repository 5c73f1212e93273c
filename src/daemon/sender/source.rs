//! The source tree and its catalog: what is there, what changed, what has to go to the target.
//!
//! Everything here decides by `stat` against the catalog; no file is opened. A changed object gets a new number in the
//! journal (one slot per object); reading its content is the session's business.

mod acl_owners;
mod carrying;
mod links;
mod listing;
mod lookouts;
mod mounts;
mod root;
mod rules;

pub use rules::{Fate, Standing, TreeFiles, fate_by};

use super::contents::Contents;
use super::touched::Touched;
use crate::daemon::home::Home;
use crate::daemon::ledger::{Ledger, flags};
use crate::daemon::receiver::cheap_digest;
use crate::daemon::{DaemonError, SenderOptions};
use crate::engine::compare::Compare;
use crate::fs::{Directory, FileType, FsError, FsErrorKind, Stamp, Stat, descriptors_for};
use crate::store::{
    Catalog, CatalogRead, Entry, Role, SIGNATURE_CACHE_BYTES, Signatures, State, StoreError, Tables,
    root_place,
};
use crate::watch::{WatchError, WatchEvent, Watcher};
use acl_owners::AclOwners;
use crossbeam_channel::Receiver;
use driftless_protocol::message::{Place, Sparing};
use driftless_protocol::{Kind, Name, ObjectId, RelPath, XattrClasses};
use links::note_half_known;
use lookouts::Lookouts;
use rules::{Admission, Rules};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
    /// What is left as it is on the target.
    pub sparing: Sparing,
    /// Objects from this number on were first seen in this run.
    pub first_of_run: ObjectId,
    /// How many entries went since removals were last all sent.
    pub unsent_deletions: u64,
    /// Directories that got another name, and below which nothing has been looked at since. That can wait until the
    /// rename has been sent: it takes long for a large directory, and mostly finds nothing.
    pub renamed: Vec<ObjectId>,
    /// The extended attributes that count.
    classes: XattrClasses,
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
}

/// What came of the wish to open a directory.
enum Reach {
    Open(Arc<Directory>),
    /// It does not stand where the catalog has it.
    Gone,
    /// It may be there.
    Unknown(FsError),
    /// It is out of sight, on a file system that is not mounted any more.
    Unmounted,
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
        let acl_owners = catalog
            .read(|view| AclOwners::load(view))
            .map_err(|error| failed(&error))?;
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
            catalog: Arc::new(catalog),
            state,
            signatures: Arc::new(signatures),
            spans: Arc::new(spans),
            ledger: Ledger::default(),
            contents: Contents::default(),
            compare: options.compare,
            warnings,
            touched: Touched::default(),
            rules_changed: false,
            graves: HashMap::new(),
            unsent_deletions: 0,
            renamed: Vec::new(),
            classes: XattrClasses::NONE,
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
            if let Some(known) = t.get(ObjectId::ROOT)? {
                self.follow_device(t, &known, &stat.stamp)?;
            }
            self.see_root(t, &stat, &mut look)?;
            look.enter.push(ObjectId::ROOT);
            self.enter_directories(t, &mut look)?;
            self.settle(t, &mut look)?;
            for object in self.touched.take_doubted() {
                self.doubt(t, object, &mut look)?;
            }
            Ok(look.found)
        });
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
            for object in self.touched.take_doubted() {
                self.doubt(t, object, &mut look)?;
            }
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
            self.settle(t, &mut look)?;
            Ok(look.found)
        });
        for (directory, name) in names {
            self.touched.forget(*directory, name);
        }
        outcome.map_err(|error| DaemonError::failed(error.to_string()))
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

    /// The handle of a directory of the source that is open already.
    pub fn open_directory(&self, object: ObjectId) -> Option<Arc<Directory>> {
        match object {
            ObjectId::ROOT => Some(self.root.clone()),
            _ => self.handles.get(&object).cloned(),
        }
    }

    /// A handle of a directory of the source; `None` if it cannot be had, for whatever reason.
    pub fn directory(
        &mut self,
        catalog: &impl CatalogRead,
        object: ObjectId,
    ) -> Result<Option<Arc<Directory>>, StoreError> {
        Ok(match self.reach(catalog, object)? {
            Reach::Open(handle) => Some(handle),
            Reach::Gone | Reach::Unmounted => None,
            Reach::Unknown(error) => {
                tracing::debug!("{error}");
                None
            }
        })
    }

    fn reach(&mut self, catalog: &impl CatalogRead, object: ObjectId) -> Result<Reach, StoreError> {
        let mut climb = Vec::new();
        let mut at = object;
        let mut handle = loop {
            if at == ObjectId::ROOT {
                break self.root.clone();
            }
            if let Some(handle) = self.handles.get(&at) {
                break handle.clone();
            }
            let Some(entry) = catalog.get(at)?.filter(|_| climb.len() < 100_000) else {
                return Ok(Reach::Gone);
            };
            at = entry.place.directory;
            climb.push(entry);
        };
        for entry in climb.into_iter().rev() {
            let name = &entry.place.name;
            let mut opened = handle.open_dir(name);
            if opened
                .as_ref()
                .is_err_and(|error| error.kind() == FsErrorKind::TooManyOpen)
            {
                self.handles.clear();
                opened = handle.open_dir(name);
            }
            let may_keep = self.may_keep(stamp_of(&entry));
            let next = match opened {
                Ok(opened) => opened,
                Err(error) if matches!(error.kind(), FsErrorKind::NotFound | FsErrorKind::Substituted) => {
                    let is_unmounted = self.is_unmounted(catalog, &entry, &handle, None)?;
                    return Ok(if is_unmounted {
                        Reach::Unmounted
                    } else {
                        Reach::Gone
                    });
                }
                Err(error) => return Ok(Reach::Unknown(error)),
            };
            let found = match next.stat_self() {
                Ok(stat) => stat.stamp,
                Err(error) => return Ok(Reach::Unknown(error)),
            };
            if !may_keep && self.is_unmounted(catalog, &entry, &handle, Some(&found))? {
                return Ok(Reach::Unmounted);
            }
            // Another one may stand there by now: what is in it is not to be taken for what is in this one.
            if stamp_of(&entry).is_some_and(|known| !known.same_object(&found)) {
                return Ok(Reach::Gone);
            }
            handle = Arc::new(next);
            if may_keep {
                self.remember(entry.object, &handle);
            }
        }
        Ok(Reach::Open(handle))
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

    /// Writes an entry and keeps the sum in step.
    pub fn put(&mut self, t: &mut Tables<'_>, entry: &Entry) -> Result<(), StoreError> {
        let old = t.get(entry.object)?;
        self.ledger.replace(old.as_ref(), Some(entry));
        // Not after the digests of the attributes that name them.
        self.acl_owners.store(t)?;
        t.put(entry)
    }

    /// Forgets an object and everything below it; the journal keeps a tombstone.
    fn bury(&mut self, t: &mut Tables<'_>, object: ObjectId, look: &mut Look) -> Result<(), StoreError> {
        let Some(entry) = t.get(object)? else {
            return Ok(());
        };
        let sequence = t.next_sequence()?;
        // The object itself first: half-seen renames can place two directories in each other for a moment, and what is
        // below this one may then lead back to it.
        t.remove(object, Some(sequence))?;
        let mut gone = vec![entry.clone()];
        if entry.kind == Kind::Directory {
            t.remove_below(object, |entry| gone.push(entry.clone()))?;
            t.weigh_tombstone(sequence, gone.len() as u64)?;
            self.graves.insert(entry.place.clone(), object);
        }
        self.unsent_deletions += gone.len() as u64;
        gone.iter().for_each(|entry| self.compare_if_withheld(entry));
        let mut watcher = self.watcher.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in &gone {
            self.ledger.replace(Some(entry), None);
            self.signatures.remove(entry.object);
            self.recall_names(entry, look);
            if entry.kind == Kind::Directory {
                watcher.unwatch(entry.object);
                self.handles.remove(&entry.object);
                self.lookouts.drop_directory(entry.object, look);
                if let Some(rules) = &mut self.rules {
                    rules.drop_directory(entry.object);
                }
            }
        }
        // The top one may have led nowhere for a moment only: its link is still there then.
        let inner = gone.iter().skip(1);
        for outpost in inner.flat_map(|entry| self.lookouts.forget(&entry.place)) {
            watcher.unwatch(outpost);
        }
        drop(watcher);
        // What moved in here, and was not heard of on the target yet, stands elsewhere there: it needs its own record.
        for moved in gone
            .into_iter()
            .skip(1)
            .filter(|entry| entry.flags & flags::MOVED != 0)
        {
            let sequence = t.next_sequence()?;
            t.put(&Entry {
                sequence: 0,
                ..moved.clone()
            })?;
            t.remove(moved.object, Some(sequence))?;
        }
        Ok(())
    }

    /// The target knows nothing of what is withheld: when that goes or moves, only a comparison tells what to do with what
    /// stands there.
    fn compare_if_withheld(&mut self, entry: &Entry) {
        let left_there = self.sparing.existing || self.sparing.newer;
        self.rules_changed |= left_there && entry.flags & flags::WITHHELD != 0;
    }

    /// An object goes from one of its names: what was done to it through that one was told under no other.
    fn recall_names(&self, entry: &Entry, look: &mut Look) {
        if entry.kind != Kind::Directory {
            look.linked.extend(self.linked_with(entry));
        }
    }

    fn see_root(&mut self, t: &mut Tables<'_>, stat: &Stat, look: &mut Look) -> Result<(), StoreError> {
        let known = t.get(ObjectId::ROOT)?;
        let mut entry = known
            .clone()
            .unwrap_or_else(|| new_entry(ObjectId::ROOT, Kind::Directory, root_place()));
        if self.leaves_root {
            entry.flags = flags::ON_TARGET;
            entry.stamp = Some(stat.stamp.to_bytes());
            return match known.is_some_and(|known| known == entry) {
                true => Ok(()),
                false => self.put(t, &entry),
            };
        }
        let root = self.root.clone();
        entry.attributes = self.attributes_now(&root, &entry, stat);
        let is_same = known
            .as_ref()
            .is_some_and(|known| known.attributes == entry.attributes);
        entry.stamp = Some(stat.stamp.to_bytes());
        if is_same {
            return match known.is_some_and(|known| known.stamp == entry.stamp) {
                true => Ok(()),
                false => t.put(&entry),
            };
        }
        look.found.changed += 1;
        entry.sequence = t.next_sequence()?;
        entry.flags = flags::ON_TARGET | flags::ATTRIBUTES;
        self.put(t, &entry)
    }

    /// A directory's own attributes, whatever happened to its names. Its inside is not looked at.
    fn see_itself(
        &mut self,
        t: &mut Tables<'_>,
        directory: ObjectId,
        stat: &Stat,
        look: &mut Look,
    ) -> Result<(), StoreError> {
        if directory == ObjectId::ROOT {
            return self.see_root(t, stat, look);
        }
        let Some(mut entry) = t.get(directory)? else {
            return Ok(());
        };
        // Another object may have taken its name a moment ago: writing the entry would take the name back.
        let named = t.lookup(entry.place.directory, &entry.place.name)? == Some(directory);
        let same = stamp_of(&entry).is_some_and(|known| known.same_object(&stat.stamp));
        if !named || !same || is_unchanged(&entry, stat) {
            return Ok(());
        }
        let Some(parent) = self.directory(t, entry.place.directory)? else {
            return Ok(());
        };
        let attributes = self.attributes_now(&parent, &entry, stat);
        if attributes == entry.attributes {
            entry.stamp = Some(stat.stamp.to_bytes());
            return t.put(&entry);
        }
        look.found.changed += 1;
        entry.attributes = attributes;
        entry.stamp = Some(stat.stamp.to_bytes());
        entry.flags |= flags::ATTRIBUTES;
        entry.sequence = t.next_sequence()?;
        self.put(t, &entry)
    }

    fn look_at(
        &mut self,
        t: &mut Tables<'_>,
        directory: ObjectId,
        name: &Name,
        look: &mut Look,
    ) -> Result<(), StoreError> {
        if name.is_reserved() {
            return Ok(());
        }
        let handle = match self.reach(t, directory)? {
            Reach::Open(handle) => handle,
            Reach::Gone | Reach::Unmounted => return Ok(()),
            Reach::Unknown(error) => {
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
        match found {
            Ok(Some(stat)) => {
                let standing = self.standing(t, directory)?;
                match self.admission(&standing, name, &stat) {
                    Admission::In => self.see(t, &handle, directory, name.clone(), &stat, look),
                    Admission::Out => {
                        look.found.excluded += 1;
                        look.orphans.extend(t.lookup(directory, name)?);
                        Ok(())
                    }
                    Admission::Unknown => Ok(()),
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
                self.note_unreadable(&error, look);
                Ok(())
            }
        }
    }

    /// A file has to be read again, whatever `stat` says of it. So it has under each of its names: none that is not in
    /// doubt may stand for the others.
    fn doubt(&mut self, t: &mut Tables<'_>, object: ObjectId, look: &mut Look) -> Result<(), StoreError> {
        let Some(entry) = t.get(object)? else {
            return Ok(());
        };
        let others: Vec<ObjectId> = self.linked_with(&entry).collect();
        for name in others.into_iter().chain([object]) {
            self.doubt_name(t, name, look)?;
        }
        Ok(())
    }

    fn doubt_name(
        &mut self,
        t: &mut Tables<'_>,
        object: ObjectId,
        look: &mut Look,
    ) -> Result<(), StoreError> {
        let Some(mut entry) = t.get(object)?.filter(|entry| entry.kind == Kind::File) else {
            return Ok(());
        };
        // A name that another object took is not to be taken back.
        if t.lookup(entry.place.directory, &entry.place.name)? == Some(object) {
            look.found.changed += 1;
            entry.flags |= flags::STALE;
            entry.sequence = t.next_sequence()?;
            tracing::trace!(object = object.0, "its content is in doubt");
            self.put(t, &entry)?;
        }
        Ok(())
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

    /// Something stands at a name. Decides whether it is what the catalog has there, something that moved here, or
    /// something new.
    fn see(
        &mut self,
        t: &mut Tables<'_>,
        handle: &Arc<Directory>,
        directory: ObjectId,
        name: Name,
        stat: &Stat,
        look: &mut Look,
    ) -> Result<(), StoreError> {
        look.found.entries += 1;
        let watched = self.look_behind(handle, directory, &name, stat);
        let stat = watched.as_ref().unwrap_or(stat);
        let mut old = match t.lookup(directory, &name)? {
            Some(object) => t.get(object)?,
            None => None,
        };
        if let Some(top) = old.as_ref().filter(|old| old.kind == Kind::Directory)
            && self.follow_device(t, top, &stat.stamp)?
        {
            old = t.get(top.object)?;
        }
        if let Some(old) = &old
            && self.is_unmounted(t, old, handle, Some(&stat.stamp))?
        {
            return Ok(());
        }
        if let Some(old) = old
            .as_ref()
            .filter(|old| old.kind == Kind::Directory && stat.file_type == FileType::Directory)
        {
            self.lookouts.note_followed(old.object, stat.is_followed);
        }
        let Some(kind) = self.kind_of(stat) else {
            look.found.skipped += 1;
            look.orphans.extend(old.map(|old| old.object));
            return Ok(());
        };
        let place = Place { directory, name };
        let inode = (stat.stamp.device, stat.stamp.inode);
        let is_linked = stat.links > 1 && kind != Kind::Directory;
        if is_linked {
            let known = t.by_inode(inode.0, inode.1)?;
            let names = self.linked.entry(inode).or_default();
            names.extend(known);
            names.extend(old.as_ref().map(|old| old.object));
        }
        let mut only_renamed = false;
        let mut is_moved = false;
        let mut entry = match old {
            Some(mut old)
                if old.kind == kind && stamp_of(&old).is_some_and(|s| s.same_object(&stat.stamp)) =>
            {
                let hides = old.flags & flags::HIDES != 0;
                if hides && (look.is_untold || self.touched.contains(&place)) {
                    old.flags |= flags::STALE;
                } else if is_unchanged(&old, stat) {
                    let hides = stat.is_device && look.is_untold;
                    if kind == Kind::File && (hides || self.touched.was_written(&place)) {
                        self.doubt(t, old.object, look)?;
                    }
                    return Ok(());
                }
                // What moved the ctime of a directory is most often something in it.
                if kind == Kind::Directory {
                    let mut same = old.clone();
                    same.stamp = Some(stat.stamp.to_bytes());
                    if self.attributes_now(handle, &old, stat) == old.attributes {
                        return t.put(&same);
                    }
                }
                old
            }
            old => match self.moved_here(t, kind, &place, stat, look)? {
                Some(mut moved) => {
                    look.orphans.extend(old.map(|old| old.object));
                    // What is written through one name is told under that one only.
                    let is_linked = stat.links > 1 || self.linked.contains_key(&inode);
                    only_renamed = !look.is_untold
                        && !is_linked
                        && self.touched.tells_only_of_a_rename(&moved.place, &place);
                    if only_renamed && kind == Kind::File {
                        self.touched.only_renamed(moved.object, [&moved.place, &place]);
                    }
                    if kind == Kind::Directory {
                        // Handles know where they were opened.
                        if self.root.is_seen_by_place() {
                            self.handles.clear();
                        }
                        self.forget_rules(moved.object);
                    }
                    self.compare_if_withheld(&moved);
                    moved.place = place.clone();
                    moved.flags |= flags::MOVED;
                    is_moved = true;
                    moved
                }
                // Editors save by renaming a new file over the old one: it stays the same object, with the old
                // content as basis.
                None if kind == Kind::Directory && self.is_passing(t, handle, &place.name, stat)? => {
                    return Ok(());
                }
                None => match old.filter(|old| old.kind == kind && kind != Kind::Directory) {
                    Some(mut old) => {
                        self.recall_names(&old, look);
                        // Another object: what the name was linked with before says nothing.
                        old.attributes.link_group = ObjectId(0);
                        // The text of a link is read at once, in `refresh`.
                        if kind == Kind::File {
                            old.flags |= flags::STALE;
                        }
                        old
                    }
                    None => {
                        look.orphans.extend(t.lookup(directory, &place.name)?);
                        new_entry(t.next_object()?, kind, place.clone())
                    }
                },
            },
        };
        self.refresh(&mut entry, handle, stat, only_renamed);
        if kind == Kind::Directory && stat.is_followed {
            self.lookouts.note_followed(entry.object, true);
        }
        entry.sequence = t.next_sequence()?;
        look.found.changed += 1;
        tracing::trace!(
            object = entry.object.0,
            directory = directory.0,
            name = %entry.place.name,
            flags = entry.flags,
            only_renamed,
            "changed"
        );
        self.put(t, &entry)?;
        if is_linked {
            let names = self.linked.entry(inode).or_default();
            names.insert(entry.object);
            let is_half_known = stat.links as usize > names.len();
            note_half_known(&mut self.half_known, inode, is_half_known && !look.is_untold);
            // Once for all of them.
            if look.groups.insert(inode) {
                look.linked
                    .extend(names.iter().copied().filter(|&object| object != entry.object));
            }
        } else {
            note_half_known(&mut self.half_known, inode, false);
        }
        if kind == Kind::Directory && !self.is_cut(stat) {
            // With rules, the new name may leave out what is below it.
            match is_moved && !look.is_untold && self.rules.is_none() {
                true => self.renamed.push(entry.object),
                false => look.enter.push(entry.object),
            }
        }
        Ok(())
    }

    /// Believes no digest of a file any more: each is read again when its turn comes.
    pub fn doubt_contents(&mut self) -> Result<(), StoreError> {
        let catalog = self.catalog.clone();
        let mut files = Vec::new();
        catalog.read(|view| {
            view.for_each(&mut |entry: Entry| {
                if entry.kind == Kind::File && entry.flags & flags::STALE == 0 {
                    files.push(entry.object);
                }
                Ok(())
            })
        })?;
        catalog.update(true, |t| {
            for object in files {
                if let Some(mut entry) = t.get(object)? {
                    entry.flags |= flags::STALE;
                    entry.sequence = t.next_sequence()?;
                    self.put(t, &entry)?;
                }
            }
            Ok(())
        })
    }

    /// The catalogued object that stood elsewhere and now stands here: same inode, and gone from its old name. (Still
    /// at its old name, it is a hard link.)
    ///
    /// Of several names it is one whose place is free. Where another file stands by now the name may have been renamed over,
    /// without being absent for a moment: to move the object away would make it so on the target. The same can be true of the
    /// only name that is known, unless its rename was told.
    fn moved_here(
        &mut self,
        t: &Tables<'_>,
        kind: Kind,
        place: &Place,
        stat: &Stat,
        look: &Look,
    ) -> Result<Option<Entry>, StoreError> {
        let inode = (stat.stamp.device, stat.stamp.inode);
        let mut names: BTreeSet<ObjectId> = t.by_inode(inode.0, inode.1)?.into_iter().collect();
        names.extend(self.linked.get(&inode).into_iter().flatten());
        let is_new_name = !look.is_untold && !self.touched.has_arrived(place);
        let has_others = stat.links > 1 || names.len() > 1 || is_new_name;
        for object in names {
            let Some(entry) = t.get(object)? else { continue };
            let same = entry.kind == kind
                && entry.place != *place
                && object != ObjectId::ROOT
                && stamp_of(&entry).is_some_and(|known| known.same_object(&stat.stamp));
            if !same {
                continue;
            }
            let is_linked = has_others || entry.attributes.link_group != ObjectId(0);
            let is_free = match self.reach(t, entry.place.directory)? {
                Reach::Open(old) => match old.stat(&entry.place.name).ok().flatten() {
                    Some(found) => {
                        !found.stamp.same_object(&stat.stamp) && (kind == Kind::Directory || !is_linked)
                    }
                    None => true,
                },
                Reach::Gone => true,
                Reach::Unknown(_) | Reach::Unmounted => false,
            };
            if is_free {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    /// Whether a directory that was seen here is back at the place where the catalog has it. Taken for a new one, it would
    /// take over the other's watch, and end it when its events tell that it is gone.
    fn is_passing(
        &mut self,
        t: &Tables<'_>,
        handle: &Directory,
        name: &Name,
        stat: &Stat,
    ) -> Result<bool, StoreError> {
        let known = match t.by_inode(stat.stamp.device, stat.stamp.inode)? {
            Some(object) => t.get(object)?.and_then(|entry| stamp_of(&entry)),
            None => None,
        };
        let is_known = known.is_some_and(|known| known.same_object(&stat.stamp));
        let is_here = |found: Option<Stat>| found.is_some_and(|found| found.stamp.same_object(&stat.stamp));
        Ok(is_known && !handle.stat(name).is_ok_and(is_here))
    }

    /// Takes over what `stat` says. `only_renamed`: nothing else happened to it since the last look.
    fn refresh(&mut self, entry: &mut Entry, handle: &Directory, stat: &Stat, only_renamed: bool) {
        let known = stamp_of(entry);
        let attributes = self.attributes_now(handle, entry, stat);
        if entry.attributes != attributes {
            entry.flags |= flags::ATTRIBUTES;
        }
        match entry.kind {
            Kind::Directory => {}
            Kind::Symlink | Kind::Fifo | Kind::CharDevice | Kind::BlockDevice => {
                let digest = cheap_digest(handle, &entry.place.name, stat).ok().flatten();
                if digest.is_none() || digest != entry.digest {
                    entry.digest = digest;
                    entry.flags &= !flags::ON_TARGET;
                }
            }
            Kind::File => {
                // A rename moves ctime alone; any other change of it may hide a change of content.
                let unchanged = known.is_some_and(|known| {
                    known.size == stat.stamp.size
                        && known.mtime == stat.stamp.mtime
                        && (only_renamed || known.ctime == stat.stamp.ctime)
                });
                if !unchanged {
                    entry.flags |= flags::STALE;
                }
            }
        }
        entry.attributes = attributes;
        entry.size = stat.size;
        entry.stamp = Some(stat.stamp.to_bytes());
    }

    /// Takes over what a read of the content found, if it is no older than what is known.
    pub fn take_read(
        &mut self,
        t: &mut Tables<'_>,
        entry: &mut Entry,
        stat: &Stat,
    ) -> Result<(), StoreError> {
        let handle = self.directory(t, entry.place.directory)?;
        entry.attributes = match &handle {
            Some(handle) => self.attributes_now(handle, entry, stat),
            None => stat.attributes.completed(&entry.attributes),
        };
        entry.size = stat.size;
        entry.stamp = Some(stat.stamp.to_bytes());
        self.put(t, entry)
    }

    /// Says once for each mount point whether what is mounted there is mirrored.
    fn note_mount(
        &mut self,
        t: &Tables<'_>,
        device: u64,
        directory: ObjectId,
        name: &Name,
        stat: &Stat,
    ) -> Result<(), StoreError> {
        let is_mount = stat.file_type == crate::fs::FileType::Directory && stat.stamp.device != device;
        if !is_mount || stat.is_followed {
            return Ok(());
        }
        let place = Place {
            directory,
            name: name.clone(),
        };
        if self.mounts.insert(place) {
            let mut names = t.path_of(directory)?.unwrap_or_default();
            names.push(name.clone());
            let path = names.iter().map(Name::to_string).collect::<Vec<_>>().join("/");
            let text = match self.is_cut(stat) {
                true => "is not mirrored, and is kept on the target",
                false => "is mirrored, too (--one-file-system leaves it out)",
            };
            self.warnings
                .push(format!("{path} is a mount point: what is mounted there {text}"));
        }
        Ok(())
    }

    /// Buries what is really gone. What turned up elsewhere meanwhile is left alone.
    fn settle_orphans(&mut self, t: &mut Tables<'_>, look: &mut Look) -> Result<(), StoreError> {
        for object in std::mem::take(&mut look.orphans) {
            let Some(entry) = t.get(object)? else { continue };
            let named = t.lookup(entry.place.directory, &entry.place.name)? == Some(object);
            let there = named
                && match self.reach(t, entry.place.directory)? {
                    Reach::Open(handle) => match handle.stat(&entry.place.name) {
                        Ok(Some(stat)) if self.kind_of(&stat) == Some(entry.kind) => {
                            let standing = self.standing(t, entry.place.directory)?;
                            self.admission(&standing, &entry.place.name, &stat) != Admission::Out
                        }
                        Ok(found) => {
                            if found.is_none() {
                                self.forget_link(&entry.place);
                            }
                            self.is_unmounted(t, &entry, &handle, found.as_ref().map(|stat| &stat.stamp))?
                        }
                        // Not knowing is no reason to delete.
                        Err(_) => true,
                    },
                    Reach::Gone => false,
                    Reach::Unknown(_) | Reach::Unmounted => true,
                };
            if !there {
                look.found.changed += 1;
                tracing::trace!(object = object.0, "gone");
                self.bury(t, object, look)?;
            }
        }
        Ok(())
    }

    fn remember(&mut self, object: ObjectId, handle: &Arc<Directory>) {
        if self.handles.len() >= self.handles_max {
            self.handles.clear();
        }
        self.handles.insert(object, handle.clone());
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
        _ => same_attributes && stamp_of(entry) == Some(stat.stamp),
    }
}

#[cfg(test)]
mod tests;
