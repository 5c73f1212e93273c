//! A module path and what is known about it: root handle, catalog, state, sum.
//!
//! Opening a replica always walks the tree (stat only) and mends the catalog where the disk says otherwise, so that
//! whatever happened while no daemon ran, the catalog describes the disk. Content is never assumed: a file whose
//! stamp is not the one that was catalogued loses its digest and is compared again by content.

use super::displaced::Recovery;
use super::keeper::Keeper;
use super::owners::{META_OWNERS, Terms};
use super::previous::Previous;
use super::root::{self, Generations};
use super::scrub::Window;
use super::spans::SPAN_CACHE_BYTES;
use crate::daemon::keeping::{Keeping, KeepingCounters};
use crate::daemon::ledger::Ledger;
use crate::engine::owners::OwnerMap;
use crate::fs::{
    Directory, FileType, FsError, FsErrorKind, ReadOutcome, Staged, Stamp, Stat, TreeLock, boot_id,
    descriptors_for, read_whole,
};
use crate::store::{
    Binding, Catalog, CatalogRead, Children, Entry, Partials, Role, Signatures, State, StoreError, Tables,
    root_place,
};
use driftless_protocol::message::{Cursor, FailureKind, Place, Sparing};
use driftless_protocol::{Attributes, Carried, Digest, Kind, Name, ObjectId, XattrClasses};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use thiserror::Error;

/// Directory handles kept open at a time, where the limit of descriptors allows it.
const HANDLES_MAX: usize = 1_024;
const META_CURSOR: &str = "cursor";
const META_XATTRS: &str = "xattr classes";
/// A number, the identity of the state, and what is between and behind them.
const GENERATION_BYTES_MAX: usize = 64;
/// Whether the names that the catalog has are on stable storage, too.
const META_FLUSHED: &str = "flushed";
/// Whether there are entries that no sum counts, see [`Replica::has_strangers`].
const META_STRANGERS: &str = "strangers";
const DURABLE_EVERY: Duration = Duration::from_secs(3);

/// A module path that could not be opened.
#[derive(Debug, Error)]
pub enum ReplicaError {
    /// The disk.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// The databases.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another daemon works here.
    #[error("{0}")]
    Locked(String),
    /// Another directory stands at its path.
    #[error("{0}")]
    OtherRoot(String),
    /// It cannot begin as a version of another.
    #[error("{0}")]
    Version(String),
    /// The entries of an earlier mirror could not be let go.
    #[error("cannot let go of the entries of the mirror before: {0}")]
    Disown(String),
    /// Its home cannot be used.
    #[error("cannot use {path}: {source}")]
    Home {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Why an op could not be carried out.
#[derive(Debug)]
pub struct ApplyError {
    /// For the sender's decision.
    pub kind: FailureKind,
    /// For people.
    pub text: String,
}

impl ApplyError {
    /// The receiver's catalog is not as the sender believes.
    pub fn mismatch(text: impl Into<String>) -> ApplyError {
        ApplyError {
            kind: FailureKind::Mismatch,
            text: text.into(),
        }
    }
}

impl From<FsError> for ApplyError {
    fn from(error: FsError) -> ApplyError {
        let kind = match error.kind() {
            FsErrorKind::NoSpace => FailureKind::NoSpace,
            FsErrorKind::Permission => FailureKind::Permission,
            FsErrorKind::NotFound | FsErrorKind::Substituted | FsErrorKind::Exists => FailureKind::Mismatch,
            FsErrorKind::Unsupported => FailureKind::Unsupported,
            _ => FailureKind::Io,
        };
        ApplyError {
            kind,
            text: error.to_string(),
        }
    }
}

impl From<StoreError> for ApplyError {
    fn from(error: StoreError) -> ApplyError {
        ApplyError {
            kind: FailureKind::Io,
            text: error.to_string(),
        }
    }
}

/// What the walk at start found.
#[derive(Debug, Default, Clone, Copy)]
pub struct WalkReport {
    /// Entries seen.
    pub entries: u64,
    /// Entries that somebody else changed, or that were not catalogued.
    pub changed: u64,
    /// Entries that are not as they were catalogued, by whomever, but for directories whose inside moved.
    pub unlike: u64,
    /// Leftovers of an earlier run that were removed or put where they belong.
    pub swept: u64,
    /// Entries that were not catalogued. They may be somebody's, or ours: a process that is killed between a deed and its note
    /// leaves one that no sum counts.
    pub strangers: u64,
}

/// A module path, held by this process.
pub struct Replica {
    /// Handle of its root.
    pub root: Arc<Directory>,
    /// Where it is, for messages.
    pub path: PathBuf,
    /// Objects and names.
    pub catalog: Arc<Catalog>,
    /// What must never be guessed.
    pub state: State,
    /// The sum over what the sender put here.
    pub ledger: Ledger,
    /// What is carried in this session, and whose things are here.
    pub terms: Terms,
    /// Nothing that holds anything is removed or displaced: the sender's filter may protect some of it.
    pub protects: bool,
    /// What the sender wants left as it is.
    pub sparing: Sparing,
    /// The sender has no use for signatures.
    pub whole_files: bool,
    /// The space of files that come whole is reserved.
    pub preallocates: bool,
    /// Files are written under their name.
    pub writes_in_place: bool,
    /// Objects have names in other versions of the tree, which are not to change with it.
    pub is_version: bool,
    /// Directories whose attributes must be set again, because their inside was touched.
    pub touched: HashSet<ObjectId>,
    /// Directories with names that are not on stable storage yet.
    pub unsynced: HashSet<ObjectId>,
    /// Sums of the spans of large files, by content.
    pub spans: Arc<Signatures>,
    handles: HashMap<ObjectId, Arc<Directory>>,
    handles_max: usize,
    /// Objects that were displaced in this run and wait for their own op under a private name.
    pub parked: HashSet<ObjectId>,
    /// The classes of extended attributes that the file system can hold.
    held_xattrs: XattrClasses,
    /// What was kept of files that arrived in part.
    pub partials: Arc<Partials>,
    /// Where things go that lose their name.
    pub keeper: Keeper,
    /// Something here changed without the sender's doing: it has to compare, whatever the sums say. What only the receiver has
    /// counts in none.
    pub wants_comparison: bool,
    /// What the scrub sees of it.
    pub window: Arc<Window>,
    /// Nothing was changed since the catalog was last committed with the note that its names are on stable storage.
    is_flushed: bool,
    /// Whether intents were stored since the catalog was last committed durably.
    has_intents: bool,
    /// Something lost its number since this was last looked at.
    pub has_new_strangers: bool,
    last_durable: Instant,
    _lock: TreeLock,
}

impl Drop for Replica {
    fn drop(&mut self) {
        // A database that somebody else still holds cannot be opened again.
        self.window.close();
    }
}

impl fmt::Debug for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Replica({})", self.path.display())
    }
}

impl Replica {
    /// Opens the tree below `root`, whose databases are in `home`. `path` is for messages.
    pub fn open(
        root: Directory,
        path: &Path,
        home: &Path,
        (keeping, counters): (&Keeping, Arc<KeepingCounters>),
        previous: Option<&Previous>,
    ) -> Result<(Replica, WalkReport), ReplicaError> {
        let lock = TreeLock::acquire_on(&root).map_err(|error| ReplicaError::Locked(error.to_string()))?;
        fs::create_dir_all(home).map_err(|source| ReplicaError::Home {
            path: home.to_owned(),
            source,
        })?;
        let root = Arc::new(root);
        let cache = home.join("spans");
        let spans = Signatures::open(&cache, SPAN_CACHE_BYTES)
            .map_err(|source| ReplicaError::Home { path: cache, source })?;
        let state = State::open(&home.join("state.redb"))?;
        let opened = Catalog::open(&home.join("catalog.redb"), Role::Receiver)?;
        if let Some(reason) = opened.rebuilt {
            tracing::warn!(path = %path.display(), "the catalog is rebuilt by a walk: {reason}");
        }
        let xattrs = opened.catalog.read(|view| xattr_classes(view))?;
        let owners = opened.catalog.read(|view| view.meta(META_OWNERS))?;
        let owners = owners.and_then(|bytes| OwnerMap::from_bytes(&bytes));
        let carried = Carried {
            xattrs,
            ..own_carried(&root)
        };
        let terms = Terms::new(carried, owners.unwrap_or_default());
        let partials = Partials::open(&home.join("partials"), boot_id());
        let partials = partials.map_err(|source| ReplicaError::Home {
            path: home.join("partials"),
            source,
        })?;
        let mut replica = Replica {
            keeper: Keeper::new(root.clone(), keeping.clone(), counters),
            held_xattrs: root.holds_xattrs(own_carried(&root).xattrs),
            root,
            path: path.to_owned(),
            catalog: Arc::new(opened.catalog),
            state,
            ledger: Ledger::default(),
            terms,
            protects: false,
            sparing: Sparing::default(),
            whole_files: false,
            preallocates: false,
            writes_in_place: false,
            is_version: false,
            touched: HashSet::new(),
            unsynced: HashSet::new(),
            spans: Arc::new(spans),
            handles: HashMap::new(),
            handles_max: descriptors_for(8, HANDLES_MAX),
            parked: HashSet::new(),
            partials: Arc::new(partials),
            has_intents: false,
            has_new_strangers: false,
            is_flushed: true,
            wants_comparison: false,
            window: Arc::default(),
            last_durable: Instant::now(),
            _lock: lock,
        };
        replica.check_root(home)?;
        replica.check_generation()?;
        replica.begin_version(previous)?;
        let report = replica.walk()?;
        replica.flush_leftovers(&report)?;
        replica.window.open(&replica.catalog, &replica.root);
        Ok((replica, report))
    }

    /// What a process published that was killed before it flushed is visible, and nobody else will flush it: without this
    /// it would count as durable as soon as the sums are equal.
    fn flush_leftovers(&mut self, report: &WalkReport) -> Result<(), ReplicaError> {
        let is_flushed = self
            .catalog
            .read(|view| Ok(view.meta(META_FLUSHED)?.is_none_or(|value| value == [1])))?;
        if !is_flushed || report.unlike > 0 || report.swept > 0 {
            self.root.sync_filesystem()?;
            self.catalog.update(true, |tables| note_flushed(tables, true))?;
        }
        Ok(())
    }

    /// Sums up the catalog again.
    pub fn recount(&mut self) -> Result<(), StoreError> {
        self.ledger = self.catalog.read(|view| Ledger::of(view, self.terms.carried))?;
        Ok(())
    }

    /// What this process can set here.
    pub fn can_carry(&self) -> Carried {
        Carried {
            xattrs: self.held_xattrs,
            ..own_carried(&self.root)
        }
    }

    /// What is to be carried in this session.
    pub fn set_carried(&mut self, carried: Carried) -> Result<(), StoreError> {
        let known = self.catalog.read(|view| xattr_classes(view))?;
        if known != carried.xattrs {
            let catalog = self.catalog.clone();
            catalog.update(true, |t| self.read_xattrs_again(t, known, carried.xattrs))?;
        }
        let before = std::mem::replace(&mut self.terms.carried, carried);
        if carried.owner && !before.owner {
            let catalog = self.catalog.clone();
            catalog.update(true, |t| self.read_owners_again(t))?;
        }
        if before != carried || self.ledger.carried() != carried {
            self.ledger = self.catalog.read(|view| Ledger::of(view, carried))?;
        }
        Ok(())
    }

    /// Other classes of extended attributes count from now on: their digests are those of the disk.
    fn read_xattrs_again(
        &mut self,
        t: &mut Tables<'_>,
        known: XattrClasses,
        classes: XattrClasses,
    ) -> Result<(), StoreError> {
        for object in with_other_xattrs(t, known, classes)? {
            self.read_xattrs_of(t, object, classes)?;
        }
        note_xattr_classes(t, classes)
    }

    /// The digest of an object's extended attributes is that of the disk, in the sender's terms.
    pub fn read_xattrs_of(
        &mut self,
        t: &mut Tables<'_>,
        object: ObjectId,
        classes: XattrClasses,
    ) -> Result<(), StoreError> {
        let Some(mut entry) = t.get(object)? else {
            return Ok(());
        };
        let found = match object {
            ObjectId::ROOT => self.root.self_xattrs(classes).map_err(ApplyError::from),
            _ => self
                .directory(t, entry.place.directory)
                .and_then(|parent| Ok(parent.xattrs(&entry.place.name, classes)?)),
        };
        // What cannot be read differs, and is set again.
        let digest = found.map_or_else(
            |_| Some(Digest::default()),
            |found| self.terms.seen_xattrs(&found.xattrs),
        );
        if digest != entry.attributes.xattrs {
            entry.attributes.xattrs = digest;
            self.put(t, &entry)?;
        }
        Ok(())
    }

    /// Counts nothing as part of a mirror any more; everything stays where it is, and its content stays known.
    pub fn disown(&mut self) -> Result<(), ReplicaError> {
        let catalog = self.catalog.clone();
        let released = catalog.update(true, |tables| {
            let released = tables.child_entries(ObjectId::ROOT)?;
            Ok(released
                .into_iter()
                .try_for_each(|entry| self.release(tables, entry.object)))
        })?;
        released.map_err(|error| ReplicaError::Disown(error.text))
    }

    /// Believes no digest of a file any more: each is read when it is compared.
    pub fn doubt_contents(&mut self) -> Result<(), StoreError> {
        let catalog = self.catalog.clone();
        let mut files = Vec::new();
        catalog.read(|view| {
            view.for_each(&mut |entry: Entry| {
                if entry.kind == Kind::File && entry.digest.is_some() {
                    files.push(entry.object);
                }
                Ok(())
            })
        })?;
        catalog.update(true, |t| {
            for object in files {
                if let Some(mut entry) = t.get(object)? {
                    entry.digest = None;
                    t.put(&entry)?;
                }
            }
            Ok(())
        })?;
        self.recount()
    }

    /// The stored cursor.
    pub fn cursor(&self) -> Result<Option<Cursor>, StoreError> {
        self.catalog.read(|view| stored_cursor(view))
    }

    /// Says, durably and before it happens, which contents are about to be committed: after a crash they are known
    /// for our own, not for somebody's edits. Intents are kept until the catalog itself is durable.
    pub fn intend(&mut self, intents: &[(ObjectId, Digest)]) -> Result<(), StoreError> {
        match std::mem::replace(&mut self.has_intents, true) {
            true => self.state.add_intents(intents),
            false => self.state.set_intents(intents),
        }
    }

    /// In a long run of batches the catalog is made durable now and then: its file would grow without end otherwise.
    pub fn is_durable_commit_due(&mut self) -> bool {
        let due = self.last_durable.elapsed() >= DURABLE_EVERY;
        if due {
            self.last_durable = Instant::now();
        }
        due
    }

    /// Whether a walk found entries that no sum counts, and no comparison has dealt with them since: equal sums say nothing then.
    pub fn has_strangers(&self) -> Result<bool, StoreError> {
        self.catalog
            .read(|view| Ok(view.meta(META_STRANGERS)?.is_some_and(|value| value == [1])))
    }

    /// Notes that something here lost its number, which only a comparison finds out.
    pub fn note_stranger(&mut self, t: &mut Tables<'_>) -> Result<(), StoreError> {
        self.has_new_strangers = true;
        note_strangers(t, true)
    }

    /// Stores the cursor with everything the catalog holds, durably. `are_compared` says that the sender has dealt with all that
    /// is here.
    pub fn commit_durably(&mut self, cursor: Option<Cursor>, are_compared: bool) -> Result<(), StoreError> {
        self.has_intents = false;
        self.last_durable = Instant::now();
        self.catalog.update(true, |tables| {
            note_flushed(tables, true)?;
            if are_compared {
                note_strangers(tables, false)?;
            }
            match cursor {
                Some(cursor) => tables.set_meta(META_CURSOR, &encode_cursor(&cursor)),
                None => Ok(()),
            }
        })?;
        self.is_flushed = true;
        Ok(())
    }

    /// Whom the path belongs to, if anybody.
    pub fn binding(&self) -> Result<Option<Binding>, StoreError> {
        self.state.binding()
    }

    /// A handle of a directory, found by its number. Each step is checked against the catalog, so that a directory
    /// that somebody swapped on the disk is refused instead of written into.
    pub fn directory(
        &mut self,
        catalog: &impl CatalogRead,
        object: ObjectId,
    ) -> Result<Arc<Directory>, ApplyError> {
        if object == ObjectId::ROOT {
            return Ok(self.root.clone());
        }
        let mut climb = Vec::new();
        let mut at = object;
        let mut handle = loop {
            if at == ObjectId::ROOT {
                break self.root.clone();
            }
            if let Some(handle) = self.handles.get(&at) {
                break handle.clone();
            }
            let entry = catalog.get(at)?.filter(|entry| entry.kind == Kind::Directory);
            let Some(entry) = entry else {
                return Err(ApplyError::mismatch(format!(
                    "there is no directory of number {}",
                    at.0
                )));
            };
            if climb.len() > 100_000 {
                return Err(ApplyError::mismatch("the catalog's directories form a circle"));
            }
            at = entry.place.directory;
            climb.push(entry);
        };
        while let Some(entry) = climb.pop() {
            let next = handle.open_dir(&entry.place.name)?;
            let stamp = next.stat_self()?.stamp;
            let known = entry.stamp.and_then(|known| Stamp::from_bytes(&known));
            if known.is_some_and(|known| !known.same_object(&stamp)) {
                let path = next.shown();
                return Err(ApplyError::mismatch(format!(
                    "{path} was replaced by another directory"
                )));
            }
            handle = Arc::new(next);
            if self.handles.len() >= self.handles_max {
                self.handles.clear();
            }
            self.handles.insert(entry.object, handle.clone());
        }
        Ok(handle)
    }

    /// As [`Replica::directory`], made writable for its owner if it is not: root needs no permission, others may
    /// meet a mirrored directory of mode 0555. The mode is set back with the touched directories.
    pub fn writable_directory(
        &mut self,
        catalog: &impl CatalogRead,
        object: ObjectId,
    ) -> Result<Arc<Directory>, ApplyError> {
        let handle = self.directory(catalog, object)?;
        if !self.terms.carried.owner {
            let mut attributes = handle.stat_self()?.attributes;
            if attributes.mode & 0o700 != 0o700 {
                attributes.mode |= 0o700;
                handle.set_self_attributes(&attributes, Carried::default())?;
            }
        }
        self.touched.insert(object);
        self.unsynced.insert(object);
        Ok(handle)
    }

    /// Forgets a handle, after the directory of this number became another one.
    pub fn forget_handle(&mut self, object: ObjectId) {
        self.handles.remove(&object);
    }

    /// Writes an entry and keeps the sum in step.
    pub fn put(&mut self, tables: &mut Tables<'_>, entry: &Entry) -> Result<(), StoreError> {
        self.note_change(tables)?;
        let old = tables.get(entry.object)?;
        self.ledger.replace(old.as_ref(), Some(entry));
        tables.put(entry)
    }

    /// From now on the catalog has names that are not on stable storage.
    fn note_change(&mut self, tables: &mut Tables<'_>) -> Result<(), StoreError> {
        if std::mem::take(&mut self.is_flushed) {
            note_flushed(tables, false)?;
        }
        Ok(())
    }

    /// Drops an entry and everything below it.
    pub fn drop_entry(&mut self, tables: &mut Tables<'_>, object: ObjectId) -> Result<(), StoreError> {
        self.note_change(tables)?;
        let Some(entry) = tables.remove(object, None)? else {
            return Ok(());
        };
        if entry.kind == Kind::Directory {
            let mut dropped = Vec::new();
            tables.remove_below(object, |entry| dropped.push(entry.clone()))?;
            for (kept, place) in self.partials.places() {
                let is_below = |entry: &Entry| entry.object == place.directory;
                if place.directory == object || dropped.iter().any(is_below) {
                    self.partials.forget(kept);
                }
            }
            for entry in &dropped {
                self.ledger.replace(Some(entry), None);
                self.handles.remove(&entry.object);
                self.touched.remove(&entry.object);
                self.unsynced.remove(&entry.object);
            }
            self.handles.remove(&object);
            self.touched.remove(&object);
            self.unsynced.remove(&object);
        }
        self.ledger.replace(Some(&entry), None);
        Ok(())
    }

    /// Sets the attributes of all touched directories again, but for those in which something is still to be put.
    pub fn finish_directories(&mut self, busy: &HashSet<ObjectId>) -> Result<(), StoreError> {
        self.root.clear_litter();
        let touched: Vec<ObjectId> = self.touched.extract_if(|object| !busy.contains(object)).collect();
        let wanted = self.catalog.read(|view| {
            touched
                .iter()
                .map(|&object| view.get(object))
                .collect::<Result<Vec<_>, _>>()
        })?;
        let leaves_root = self.terms.carried.leaves_root;
        for entry in wanted
            .into_iter()
            .flatten()
            .filter(|entry| entry.kind == Kind::Directory)
            .filter(|entry| entry.object != ObjectId::ROOT || !leaves_root)
        {
            let catalog = self.catalog.clone();
            let handle = match catalog.read(|view| Ok(self.directory(view, entry.object)))? {
                Ok(handle) => handle,
                Err(error) => {
                    tracing::warn!(path = %entry.place.name, "cannot finish a directory: {}", error.text);
                    continue;
                }
            };
            let outcome = self
                .terms
                .metadata(&entry.attributes, None)
                .and_then(|wanted| Ok(handle.set_self_metadata(&wanted)?));
            if let Err(error) = outcome {
                tracing::warn!(path = %entry.place.name, "cannot finish a directory: {}", error.text);
                self.note_unfinished(entry, &handle)?;
            }
        }
        Ok(())
    }

    /// A directory did not get its attributes back. The catalog has what is there instead, so that the sums differ, the
    /// sender compares, and the op that mends it tells whether it can be mended.
    fn note_unfinished(&mut self, mut entry: Entry, handle: &Directory) -> Result<(), StoreError> {
        let found = handle.stat_self().map(|stat| stat.attributes).unwrap_or_default();
        entry.attributes = Attributes {
            xattrs: entry.attributes.xattrs,
            ..found
        };
        let catalog = self.catalog.clone();
        catalog.update(false, |tables| self.put(tables, &entry))
    }

    /// Another root than before is refused; of one that is meant to be another, nothing is known.
    fn check_root(&mut self, home: &Path) -> Result<(), ReplicaError> {
        let generations = Generations {
            known: self.state.generation()?,
            on_disk: generation_in(&self.root, &self.state)?,
        };
        match root::check(&self.state, (&self.root, &self.path), home, generations)? {
            root::Standing::Same => Ok(()),
            root::Standing::New => {
                tracing::warn!(path = %self.path.display(), "the root is another directory than before: a first contact");
                self.catalog.update(true, |tables| tables.clear())?;
                Ok(self.state.unbind()?)
            }
        }
    }

    /// The module's own generation is stored in the tree, too: if the disk was put back from an older image, what the
    /// catalog says about contents is not believed. A tree without any is not the one that the mirror was bound to.
    fn check_generation(&mut self) -> Result<(), ReplicaError> {
        let known = self.state.generation()?;
        if self.binding()?.is_none() {
            return Ok(());
        }
        let on_disk = generation_in(&self.root, &self.state)?;
        if on_disk != Some(known) {
            tracing::warn!(path = %self.path.display(),
                "the tree is of generation {on_disk:?}, the state of {known}: all contents will be compared again");
            self.catalog.update(true, |tables| tables.clear())?;
        }
        if on_disk.is_none() {
            self.state.unbind()?;
            return Ok(());
        }
        self.write_generation()
    }

    /// Begins a new generation; called when a mirror is bound, and at every start.
    pub fn write_generation(&mut self) -> Result<(), ReplicaError> {
        let next = self.state.bump_generation()?;
        // The root's own time is the sender's to set.
        let before = self.root.stat_self()?.attributes.mtime;
        let staged = Staged::create(self.root.clone())?;
        // Numbers are small, and those of two targets often the same.
        let text = format!("{next} {:032x}\n", self.state.mirror_id()?);
        staged.write_all_at(text.as_bytes(), 0)?;
        staged.sync()?;
        staged.publish(&generation_file())?;
        self.root.set_self_mtime(before)?;
        self.root.sync()?;
        Ok(())
    }

    /// Brings the catalog in step with the disk.
    fn walk(&mut self) -> Result<WalkReport, ReplicaError> {
        let mut report = WalkReport::default();
        let root = self.root.clone();
        for object in self.partials.stale(SystemTime::now()) {
            self.partials.forget(object);
        }
        let known = WalkKnowledge {
            intents: self.state.intents()?.into_iter().collect(),
            kept: self
                .partials
                .places()
                .into_iter()
                .map(|(_, place)| place.name)
                .collect(),
        };
        let (terms, keeper) = (&self.terms, &mut self.keeper);
        self.catalog.update(true, |tables| {
            let mut walk = Walk {
                terms,
                knowledge: &known,
                keeper: Some(keeper),
                report: &mut report,
            };
            let outcome = walk.tree(tables, &root);
            if report.strangers > 0 {
                note_strangers(tables, true)?;
            }
            if report.unlike > 0 || report.swept > 0 {
                // The next walk finds it as it is catalogued from now on, but nobody may have flushed it then.
                note_flushed(tables, false)?;
            }
            Ok(outcome)
        })??;
        self.keeper.sync()?;
        if self.is_version {
            self.leave_lonely_groups()?;
        }
        self.ledger = self.catalog.read(|view| Ledger::of(view, self.terms.carried))?;
        Ok(report)
    }
}

/// The generation that this state stored in a tree; `None` if there is none, or that of another state.
pub(super) fn generation_in(root: &Directory, state: &State) -> Result<Option<u64>, ReplicaError> {
    let text = match read_whole(root, &generation_file(), GENERATION_BYTES_MAX) {
        Ok(ReadOutcome::Content(bytes, _)) => bytes,
        Ok(_) => return Ok(None),
        Err(error) if error.kind() == FsErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let whose = format!("{:032x}", state.mirror_id()?);
    let words = std::str::from_utf8(&text)
        .ok()
        .and_then(|text| text.trim().split_once(' '));
    Ok(words
        .filter(|(_, id)| *id == whose)
        .and_then(|(number, _)| number.parse().ok()))
}

/// The name of the file with the generation, at the root.
fn generation_file() -> Name {
    #[expect(clippy::expect_used, reason = "a constant")]
    Name::new(&b".driftless-generation"[..]).expect("a plain word is a name")
}

/// What this process can set on a file system that holds everything: owners and what gives power, if it is root.
pub fn own_carried(root: &Directory) -> Carried {
    // What is kept in attributes needs no privilege.
    let is_root = root.fakes_super() || rustix::process::geteuid().is_root();
    Carried {
        owner: is_root,
        devices: is_root,
        leaves_root: false,
        xattrs: match is_root {
            true => XattrClasses::ALL,
            false => XattrClasses::USER.union(XattrClasses::ACL),
        },
    }
}

/// The classes of extended attributes that the digests in a catalog are of.
pub fn xattr_classes(catalog: &impl CatalogRead) -> Result<XattrClasses, StoreError> {
    let bits = catalog.meta(META_XATTRS)?;
    Ok(bits.map_or(XattrClasses::NONE, |bits| {
        XattrClasses(bits.first().copied().unwrap_or(0))
    }))
}

/// Up to where the catalog of a module path is its sender's doing, durably.
pub fn stored_cursor(catalog: &impl CatalogRead) -> Result<Option<Cursor>, StoreError> {
    let bytes = catalog.meta(META_CURSOR)?;
    Ok(bytes.and_then(|bytes| decode_cursor(&bytes)))
}

/// Notes the classes that the digests in a catalog are of.
pub fn note_xattr_classes(t: &mut Tables<'_>, classes: XattrClasses) -> Result<(), StoreError> {
    t.set_meta(META_XATTRS, &[classes.0])
}

/// Notes whether the names in a catalog are on stable storage, too.
fn note_flushed(t: &mut Tables<'_>, are_flushed: bool) -> Result<(), StoreError> {
    let value = [u8::from(are_flushed)];
    match t.meta(META_FLUSHED)?.is_some_and(|present| present == value) {
        true => Ok(()),
        false => t.set_meta(META_FLUSHED, &value),
    }
}

/// Notes whether a walk found entries that were not catalogued, and no comparison has dealt with them since.
fn note_strangers(t: &mut Tables<'_>, are_there: bool) -> Result<(), StoreError> {
    let value = [u8::from(are_there)];
    match t
        .meta(META_STRANGERS)?
        .map_or(!are_there, |present| present == value)
    {
        true => Ok(()),
        false => t.set_meta(META_STRANGERS, &value),
    }
}

/// The objects whose digest of extended attributes may be another when other classes count. What has none of more
/// classes has none of fewer.
pub fn with_other_xattrs(
    catalog: &impl CatalogRead,
    known: XattrClasses,
    classes: XattrClasses,
) -> Result<Vec<ObjectId>, StoreError> {
    let all = !known.contains(classes);
    let mut objects = Vec::new();
    catalog.for_each(&mut |entry: Entry| {
        if all || entry.attributes.xattrs.is_some() {
            objects.push(entry.object);
        }
        Ok(())
    })?;
    Ok(objects)
}

/// What a walk must know beside the catalog.
#[derive(Debug, Default)]
pub(super) struct WalkKnowledge {
    /// What was about to be committed.
    intents: HashMap<ObjectId, Digest>,
    /// Private names that are not swept: files that arrived in part.
    kept: HashSet<Name>,
}

/// Brings a catalog in step with the disk.
pub(super) struct Walk<'a> {
    /// What counts, and whose things are here.
    pub(super) terms: &'a Terms,
    pub(super) knowledge: &'a WalkKnowledge,
    /// The policy of the tree; only a walk of all of it has one.
    pub(super) keeper: Option<&'a mut Keeper>,
    pub(super) report: &'a mut WalkReport,
}

impl Walk<'_> {
    fn tree(&mut self, tables: &mut Tables<'_>, root: &Arc<Directory>) -> Result<(), ReplicaError> {
        let stat = root.stat_self()?;
        let known = tables.get(ObjectId::ROOT)?;
        let classes = self.terms.carried.xattrs;
        if !known
            .as_ref()
            .is_some_and(|known| is_as_catalogued(known, &stat, self.terms))
        {
            let mut entry = local_entry(ObjectId::ROOT, Kind::Directory, root_place(), &stat, None);
            let expected = known.map(|known| known.attributes);
            entry.attributes = self.terms.seen(entry.attributes, expected.as_ref());
            if !classes.is_empty() {
                entry.attributes.xattrs = self.terms.seen_xattrs(&root.self_xattrs(classes)?.xattrs);
            }
            tables.put(&entry)?;
        }
        self.below(tables, ObjectId::ROOT, root)
    }

    fn below(
        &mut self,
        tables: &mut Tables<'_>,
        start: ObjectId,
        handle: &Arc<Directory>,
    ) -> Result<(), ReplicaError> {
        // Opened when their turn comes: a level can have more directories than a process descriptors.
        let mut directories: Vec<(ObjectId, Arc<Directory>, Option<Name>)> =
            vec![(start, handle.clone(), None)];
        while let Some((object, mut handle, below)) = directories.pop() {
            if let Some(name) = below {
                match handle.open_dir(&name) {
                    Ok(inner) => handle = Arc::new(inner),
                    Err(error) => {
                        tracing::warn!("{error}");
                        continue;
                    }
                }
            }
            let before = handle.stat_self()?.attributes.mtime;
            let swept = handle.sweep(|name| self.knowledge.kept.contains(name))?;
            if !swept.removed.is_empty() {
                // Nobody else would notice: what the directory is was looked at before.
                handle.set_self_mtime(before)?;
            }
            self.report.swept += (swept.removed.len() + swept.displaced.len()) as u64;
            for aside in &swept.displaced {
                self.recover(tables, object, &handle, aside);
            }
            let listing = handle.list()?;
            let mut catalogued = Children::of(object);
            for (name, stat) in listing.entries {
                while let Some(gone) = catalogued.next_before(tables, Some(&name))? {
                    self.forget(tables, &gone)?;
                }
                let known = catalogued.next_at(tables, &name)?;
                self.report.entries += 1;
                let place = Place {
                    directory: object,
                    name,
                };
                let is_taboo = self.keeper.as_ref().is_some_and(|keeper| keeper.is_taboo(&place));
                let Some(kind) = kind_of(stat.file_type).filter(|_| !is_taboo) else {
                    // What the catalog has of it from before goes, as if it were not there.
                    if let Some(gone) = known {
                        self.forget(tables, &gone)?;
                    }
                    continue;
                };
                let known = known.filter(|entry| entry.kind == kind);
                let entry = match known {
                    // Nothing is written for what is as it was: that would be the whole catalog at each start.
                    Some(known) if is_as_catalogued(&known, &stat, self.terms) => known,
                    known => {
                        let entry = self.entry(tables, &handle, place, known, kind, &stat)?;
                        tables.put(&entry)?;
                        entry
                    }
                };
                if kind == Kind::Directory {
                    directories.push((entry.object, handle.clone(), Some(entry.place.name)));
                }
            }
            while let Some(gone) = catalogued.next_before(tables, None)? {
                self.forget(tables, &gone)?;
            }
        }
        Ok(())
    }

    /// What is not there any more.
    fn forget(&mut self, tables: &mut Tables<'_>, gone: &Entry) -> Result<(), StoreError> {
        self.report.changed += 1;
        self.report.unlike += 1;
        tables.remove_below(gone.object, |_| ())?;
        tables.remove(gone.object, None)?;
        Ok(())
    }

    /// Deals with what was displaced when an earlier run was cut off.
    fn recover(&mut self, t: &Tables<'_>, object: ObjectId, directory: &Directory, aside: &Name) {
        let Some(keeper) = self.keeper.as_deref_mut() else {
            return;
        };
        let intents = &self.knowledge.intents;
        let recovery = Recovery {
            directory,
            object,
            aside,
        };
        if let Err(error) = recovery.run(t, keeper, |found| {
            intents.values().any(|intended| intended == found)
        }) {
            tracing::warn!("{}", error.text);
        }
    }

    /// What the catalog is to have of something that stands at a place and is not as it knows it.
    pub(super) fn entry(
        &mut self,
        tables: &mut Tables<'_>,
        handle: &Directory,
        place: Place,
        known: Option<Entry>,
        kind: Kind,
        stat: &Stat,
    ) -> Result<Entry, ReplicaError> {
        let object = match &known {
            Some(entry) if is_as_catalogued_but_for_owner(entry, stat) => {
                let mut entry = entry.clone();
                let seen = self.terms.seen(stat.attributes, Some(&entry.attributes));
                (entry.attributes.uid, entry.attributes.gid) = (seen.uid, seen.gid);
                self.report.changed += 1;
                return Ok(entry);
            }
            Some(entry) => entry.object,
            None => {
                if let Some(other) = tables.lookup(place.directory, &place.name)? {
                    tables.remove_below(other, |_| ())?;
                    tables.remove(other, None)?;
                }
                self.report.strangers += 1;
                tables.next_local()?
            }
        };
        let mut digest = cheap_digest(handle, &place.name, stat)?;
        let intents = &self.knowledge.intents;
        if let Some(&intended) = intents.get(&object).filter(|_| kind == Kind::File) {
            digest = own_commit(handle, &place.name, intended);
        }
        // Only touched, or edited? Where that matters, it is read.
        if let Some(content) = known
            .as_ref()
            .filter(|known| kind == Kind::File && known.size == stat.size)
            && let Some(was) = content.digest.filter(|_| digest.is_none())
            && self.keeper.as_ref().is_some_and(|keeper| keeper.judges())
        {
            digest = own_commit(handle, &place.name, was);
        }
        let mut entry = local_entry(object, kind, place, stat, digest);
        let expected = known.as_ref().map(|known| &known.attributes);
        entry.attributes = self.terms.seen(entry.attributes, expected);
        entry.attributes.xattrs = self.terms.xattrs_on_disk(handle, &entry.place.name);
        let is_same = |known: &Entry| kind == Kind::Directory && known.attributes == entry.attributes;
        let is_news = known
            .as_ref()
            .is_none_or(|known| digest.is_none() && !is_same(known));
        self.report.changed += u64::from(is_news);
        self.report.unlike += u64::from(known.as_ref().is_none_or(|known| !is_same(known)));
        Ok(entry)
    }
}

/// Catalogues something that was found on the disk and is not known, with everything below it.
pub fn catalogue(
    tables: &mut Tables<'_>,
    parent: &Arc<Directory>,
    place: &Place,
    terms: &Terms,
) -> Result<(), ApplyError> {
    let Some(stat) = parent.stat(&place.name)? else {
        return Ok(());
    };
    let Some(kind) = kind_of(stat.file_type) else {
        return Ok(());
    };
    let digest = cheap_digest(parent, &place.name, &stat)?;
    let mut entry = local_entry(tables.next_local()?, kind, place.clone(), &stat, digest);
    entry.attributes = terms.seen(entry.attributes, None);
    entry.attributes.xattrs = terms.xattrs_on_disk(parent, &place.name);
    tables.put(&entry)?;
    if kind == Kind::Directory {
        let inner = Arc::new(parent.open_dir(&place.name)?);
        let mut walk = Walk {
            terms,
            knowledge: &WalkKnowledge::default(),
            keeper: None,
            report: &mut WalkReport::default(),
        };
        walk.below(tables, entry.object, &inner)
            .map_err(|error| ApplyError {
                kind: FailureKind::Io,
                text: error.to_string(),
            })?;
    }
    Ok(())
}

/// The digest of a file that we were about to commit when we were stopped, if that is what stands there.
fn own_commit(directory: &Directory, name: &Name, intended: Digest) -> Option<Digest> {
    let (file, _) = directory.open_file(name).ok()?;
    super::digest_of(&file).ok().filter(|found| *found == intended)
}

/// The kind of a file type that is mirrored.
pub fn kind_of(file_type: FileType) -> Option<Kind> {
    file_type.kind()
}

pub(super) fn is_as_catalogued(entry: &Entry, stat: &Stat, terms: &Terms) -> bool {
    is_catalogued_as(entry, stat, &terms.seen(stat.attributes, Some(&entry.attributes)))
}

/// Nothing happened to it since: it is the owner who was not looked at then, or is called otherwise here by now.
fn is_as_catalogued_but_for_owner(entry: &Entry, stat: &Stat) -> bool {
    let seen = Attributes {
        uid: entry.attributes.uid,
        gid: entry.attributes.gid,
        ..stat.attributes
    };
    is_catalogued_as(entry, stat, &seen)
}

fn is_catalogued_as(entry: &Entry, stat: &Stat, seen: &Attributes) -> bool {
    let Some(stamp) = entry.stamp.and_then(|bytes| Stamp::from_bytes(&bytes)) else {
        return false;
    };
    let same_attributes = entry.attributes.told_by_stat() == *seen;
    match entry.kind {
        // A directory's times move with its inside; that is looked at anyway. But what else moves its ctime is not told.
        Kind::Directory => {
            let same_xattrs = stamp.ctime == stat.stamp.ctime;
            stamp.same_object(&stat.stamp) && same_xattrs && same_attributes
        }
        _ => is_same_state(entry, stat) && same_attributes,
    }
}

/// An entry as the disk shows it.
pub fn local_entry(object: ObjectId, kind: Kind, place: Place, stat: &Stat, digest: Option<Digest>) -> Entry {
    let attributes = Attributes {
        link_group: local_group(stat),
        ..stat.attributes
    };
    let stamp = Some(stat.stamp.to_bytes());
    Entry {
        object,
        kind,
        place,
        attributes,
        size: stat.size,
        digest,
        stamp,
        sequence: 0,
        flags: 0,
    }
}

/// The digest of a link's text or of a device number, which is cheap to know; none for anything else.
pub fn cheap_digest(directory: &Directory, name: &Name, stat: &Stat) -> Result<Option<Digest>, FsError> {
    Ok(match stat.file_type {
        FileType::Symlink => Some(Digest::of(&directory.read_link(name)?)),
        FileType::Special(special) => Some(special.digest()),
        _ => None,
    })
}

/// The hard-link group of something on this disk with several names that no sender has told of: by its inode.
pub fn local_group(stat: &Stat) -> ObjectId {
    match stat.links > 1 && stat.file_type != FileType::Directory {
        true => ObjectId(ObjectId::FIRST_LOCAL.0 | stat.stamp.inode),
        false => ObjectId(0),
    }
}

/// Whether something is as it was when it was catalogued. The ctime of what has several names moves with each of them;
/// its names are looked at one by one.
pub fn is_same_state(entry: &Entry, stat: &Stat) -> bool {
    let Some(known) = entry.stamp.and_then(|bytes| Stamp::from_bytes(&bytes)) else {
        return false;
    };
    match entry.attributes.link_group {
        ObjectId(0) => known == stat.stamp,
        _ => {
            known
                == Stamp {
                    ctime: known.ctime,
                    ..stat.stamp
                }
        }
    }
}

fn encode_cursor(cursor: &Cursor) -> Vec<u8> {
    let mut bytes = cursor.incarnation.to_be_bytes().to_vec();
    bytes.extend_from_slice(&cursor.sequence.to_be_bytes());
    bytes.extend_from_slice(&cursor.sum.0);
    bytes
}

fn decode_cursor(bytes: &[u8]) -> Option<Cursor> {
    let (incarnation, rest) = bytes.split_first_chunk::<16>()?;
    let (sequence, sum) = rest.split_first_chunk::<8>()?;
    Some(Cursor {
        incarnation: u128::from_be_bytes(*incarnation),
        sequence: u64::from_be_bytes(*sequence),
        sum: driftless_protocol::TreeSum(sum.try_into().ok()?),
    })
}
