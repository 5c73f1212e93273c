//! A module path and what is known about it: root handle, catalog, state, sum.
//!
//! Opening a replica always walks the tree (stat only) and mends the catalog where the disk says otherwise, so that
//! whatever happened while no daemon ran, the catalog describes the disk. Content is never assumed: a file whose
//! stamp is not the one that was catalogued loses its digest and is compared again by content.

mod ahead;
mod error;
mod former;
mod generation;
mod identities;
mod notes;
mod seen;
mod walk;

pub use error::{ApplyError, ReplicaError};
use former::Former;
pub(super) use generation::generation_in;
use notes::{note_flushed, note_strangers};
pub use notes::{note_xattr_classes, stored_cursor, with_other_xattrs, xattr_classes};
pub(super) use seen::is_as_catalogued;
use seen::is_as_catalogued_but_for_owner;
pub use seen::{cheap_digest, is_same_state, kind_of, local_entry, local_group};
pub(super) use walk::{Walk, WalkKnowledge};
pub use walk::{WalkReport, catalogue};

use super::displaced::Recovery;
use super::keeper::Keeper;
use super::owners::{META_OWNERS, Terms};
use super::previous::Previous;
use super::publish::Publishing;
use super::root::{self, Generations};
use super::scrub::Window;
use super::spans::SPAN_CACHE_BYTES;
use super::staging::digest_of;
use crate::daemon::keeping::{Keeping, KeepingCounters};
use crate::daemon::ledger::Ledger;
use crate::engine::owners::OwnerMap;
use crate::fs::{
    Directory, FileType, FsError, FsErrorKind, ReadOutcome, Staged, Stamp, Stat, TreeLock, boot_id,
    descriptors_for, read_whole,
};
use crate::store::{
    Binding, Catalog, CatalogRead, Children, Entry, Partials, Replacements, Role, Signatures, State,
    StoreError, Tables, root_place,
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
    /// What changes at once, and what was done there that nobody sees yet.
    pub publishing: Publishing,
    /// What is replaced at once and may not have been taken apart yet.
    pub replacements: Replacements,
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
    /// Directories of the target's own that had numbers of the mirror, which went elsewhere in this session.
    pub stranded: HashSet<ObjectId>,
    /// What objects left that were put elsewhere.
    pub former: Former,
    /// The classes of extended attributes that the file system can hold.
    held_xattrs: XattrClasses,
    /// What was kept of files that arrived in part.
    pub partials: Arc<Partials>,
    /// Where things go that lose their name.
    pub keeper: Keeper,
    /// Something here changed without the sender's doing: it has to compare, whatever the sums say. What only the receiver has
    /// counts in none.
    pub wants_comparison: bool,
    /// The mirror that is bound to it has sent nothing yet: to its sender it is as it was when they first met.
    pub is_unmet: bool,
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

/// What an owner without privilege needs of a directory to work in it.
const USABLE: u16 = 0o500;

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
            publishing: Publishing::default(),
            replacements: Replacements::at(home.join("replaced")),
            touched: HashSet::new(),
            unsynced: HashSet::new(),
            spans: Arc::new(spans),
            handles: HashMap::new(),
            handles_max: descriptors_for(8, HANDLES_MAX),
            parked: HashSet::new(),
            stranded: HashSet::new(),
            former: Former::default(),
            partials: Arc::new(partials),
            has_intents: false,
            has_new_strangers: false,
            is_flushed: true,
            wants_comparison: false,
            is_unmet: false,
            window: Arc::default(),
            last_durable: Instant::now(),
            _lock: lock,
        };
        replica.check_root(home)?;
        replica.check_generation()?;
        replica.begin_version(previous)?;
        replica.end_replacements()?;
        let report = replica.walk()?;
        replica.flush_leftovers(&report)?;
        replica.window.open(&replica.catalog, &replica.root);
        Ok((replica, report))
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
            self.ledger = Ledger::of_catalog(&self.catalog, carried)?;
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
            let next = self.open_entry(&handle, &entry)?;
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

    /// Opens a directory of the catalog in the one above it. Root needs no permission; others may meet a mirrored directory
    /// of mode 0300, 0111 or 0, which is of no use to its owner either: as its owner, they may open it up. Its mode is set
    /// back with the touched directories.
    fn open_entry(&mut self, above: &Directory, entry: &Entry) -> Result<Directory, FsError> {
        let name = &entry.place.name;
        let opened = above.open_dir(name);
        if self.terms.carried.owner {
            return opened;
        }
        match &opened {
            Ok(directory) if directory.stat_self()?.attributes.mode & USABLE == USABLE => return opened,
            Err(error) if error.kind() != FsErrorKind::Permission => return opened,
            _ => {}
        }
        let known = entry.stamp.and_then(|known| Stamp::from_bytes(&known));
        let Some(found) = above.stat(name)? else {
            return opened;
        };
        let is_ours = known.is_none_or(|known| known.same_object(&found.stamp));
        if !is_ours || found.attributes.mode & USABLE == USABLE {
            return opened;
        }
        let attributes = Attributes {
            mode: found.attributes.mode | 0o700,
            ..found.attributes
        };
        let carried = Carried::default();
        let opening_up = above.set_attributes_of(name, Kind::Directory, &found.stamp, &attributes, carried);
        if opening_up.is_err() {
            // Somebody else's: why it could not be opened says more.
            return opened;
        }
        self.touched.insert(entry.object);
        above.open_dir(name)
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

    /// Writes an entry of which nothing has changed that a sum covers.
    pub fn put_stamp(&mut self, tables: &mut Tables<'_>, entry: &Entry) -> Result<(), StoreError> {
        self.note_change(tables)?;
        tables.put(entry)
    }

    /// Writes an entry and keeps the sum in step.
    pub fn put(&mut self, tables: &mut Tables<'_>, entry: &Entry) -> Result<(), StoreError> {
        self.note_change(tables)?;
        let old = tables.get(entry.object)?;
        self.ledger.replace(old.as_ref(), Some(entry));
        tables.put(entry)
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
        loop {
            let touched: Vec<ObjectId> = self.touched.extract_if(|object| !busy.contains(object)).collect();
            if touched.is_empty() {
                return Ok(());
            }
            // To reach one, those above it may have been opened up once more: they are next, and so on up to the root.
            self.finish_these(&touched)?;
        }
    }

    fn finish_these(&mut self, touched: &[ObjectId]) -> Result<(), StoreError> {
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
            let opened = catalog.read(|view| Ok(self.directory(view, entry.object)))?;
            // It may have been opened up for this.
            self.touched.remove(&entry.object);
            let handle = match opened {
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
            } else if !self.terms.carried.owner && entry.attributes.mode & USABLE != USABLE {
                // Whoever needs it next has to open it up.
                self.handles.remove(&entry.object);
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
