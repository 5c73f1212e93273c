//! Subtrees that change at once: what matches a pattern is never seen between two states.
//!
//! | stage | what happens |
//! | --- | --- |
//! | an op is about something at or below a matched name | what stands at the name gets a *working tree* beside it, under a private name: directories of its own, and links to the files ([`working`]). From then on the name leads there for everything that this process does ([`Directory::divert`](crate::fs::Directory::divert)), and the catalog describes that |
//! | ops | go on as ever. What the two trees share is given an inode of its own before its attributes change; contents and names never change in what is shared |
//! | a mark is due | all before it has ended and nothing behind it has begun ([`OpOrder::divided`](crate::engine::order::OpOrder::divided)): all is flushed, and each working tree exchanged with what stands at its name ([`exchange`]); then the mark ends, and with it the cursor may be told |
//! | after that | the old tree is taken apart; what somebody else did in either meanwhile is not lost with it ([`carry`]) |
//!
//! If any of this fails the mark is not ended: the session is, with the reason. A working tree does not outlive the process: what a
//! crash leaves of it has a private name, is swept, and what was in it is fetched again. An old tree is taken apart by the next
//! process ([`recovery`]). What stands at the name is the old or the new tree at any moment.

mod carry;
mod exchange;
mod recovery;
mod working;

pub(super) use exchange::Replaced;

use super::apply::ignore_missing;
use super::keeper::shown;
use super::replica::{ApplyError, Replica};
use crate::daemon::status::{PublishReport, unix_now};
use crate::engine::path_pattern::PathPattern;
use crate::fs::{Directory, Diversion, FileType, FsError, Stamp, Stat, private_name};
use crate::store::{CatalogRead, StoreError, Tables};
use driftless_protocol::message::{FailureKind, OpBody, Place};
use driftless_protocol::{Kind, Name, ObjectId, RelPath};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

type Outcome = Result<(), ApplyError>;

/// A name: its directory, and what it is called there.
type Key = (ObjectId, Name);

/// A failed entry keeps its tree from being published for so long after it was tried last, if its sender does not say that all is well
/// before: a sender tries what is in error again far sooner.
const FAILED_FOR: Duration = Duration::from_secs(1_200);
/// So many old trees that could not be taken apart are tried again.
const UNDISPOSED_MAX: usize = 16;
/// After so long one of them is tried again, then after twice that, and so on up to the other.
const DISPOSE_AFTER: Duration = Duration::from_secs(60);
const DISPOSE_AFTER_MAX: Duration = Duration::from_secs(3_600);
/// So long nothing is tried again that would copy a whole tree and has just failed, on a full disk most often.
const REFUSED_FOR: Duration = Duration::from_secs(5);

/// What is published at once in a module path, and what waits for that.
#[derive(Debug, Default)]
pub struct Publishing {
    patterns: Vec<PathPattern>,
    /// The module path, below the root of the module.
    top: RelPath,
    stages: BTreeMap<Key, Stage>,
    /// Entries that could not be put.
    failed: HashMap<ObjectId, Failure>,
    /// The last working tree that could not be made, and why: each op would try again.
    refused: Option<(Key, Instant, ApplyError)>,
    /// Directories in which names lead elsewhere since they were flushed.
    unsynced: HashSet<ObjectId>,
    /// Old trees that could not be taken apart.
    undisposed: Vec<Undisposed>,
    /// A directory did not get its time back after one was.
    has_other_times: bool,
    /// The file systems that can exchange names.
    able: HashSet<u64>,
    /// Something else is to be told of it than was told last.
    has_news: bool,
}

/// An entry that could not be put.
#[derive(Debug)]
struct Failure {
    /// The trees that it belongs to.
    trees: HashSet<Key>,
    /// Whether these are all: it may belong to any other if its place was not known when it was tried last.
    are_known: bool,
    /// When that was.
    at: Instant,
}

impl Failure {
    fn keeps(&self, tree: &Key) -> bool {
        !self.are_known || self.trees.contains(tree)
    }
}

/// An old tree that could not be taken apart.
#[derive(Debug)]
struct Undisposed {
    old: Replaced,
    /// When it is tried again, and after how long once more.
    due: Instant,
    wait: Duration,
}

/// A name at which something else is to appear.
#[derive(Debug)]
struct Stage {
    /// Where it is made.
    aside: Name,
    known: Known,
    /// Where it stood when it was begun, below the root of the replica.
    path: Vec<Name>,
    /// When that was, in unix seconds.
    since: u64,
    /// Has the name lead there.
    _diversion: Diversion,
}

/// A path below what is published at once: a BLAKE3 (128 bits) of that of the directory and the name, all zeros for the top.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Spot([u8; 16]);

impl Spot {
    const TOP: Spot = Spot([0; 16]);

    /// That of a name in the directory that is here.
    fn of(self, name: &Name) -> Spot {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.0).update(name.as_bytes());
        let mut spot = Spot::TOP;
        hasher.finalize_xof().fill(&mut spot.0);
        spot
    }
}

/// What a working tree has of what stood at its name, so that what the mirror changes is told from what somebody else does. What is
/// known, but not where it is found, was brought there by somebody else: that is as new as what is not known at all.
#[derive(Debug, Default)]
struct Known {
    /// By inode: what stood there when it was begun or was carried over since, and copies of it.
    stamps: HashMap<u64, Stamp>,
    /// Where it stood, by inode.
    spots: HashSet<(Spot, u64)>,
    /// Something was made for it that is not flushed with the directories of the catalog.
    must_flush: bool,
}

impl Known {
    fn note(&mut self, spot: Spot, stat: &Stat) {
        self.stamps.insert(stat.stamp.inode, stat.stamp);
        self.spots.insert((spot, stat.stamp.inode));
    }

    /// What is known and was as it is known has other attributes by now.
    fn note_set(&mut self, was: &Stamp, is: &Stamp) {
        if let Some(known) = self.stamps.get_mut(&was.inode)
            && known.same_object(was)
            && known.same_object(is)
            && (known.mtime, known.size) == (was.mtime, was.size)
            && is.size == was.size
        {
            *known = *is;
        }
    }

    fn is_same_object(&self, stat: &Stat) -> bool {
        let known = self.stamps.get(&stat.stamp.inode);
        known.is_some_and(|known| known.same_object(&stat.stamp))
    }

    /// Whether something stood here then, written to or not.
    fn is_at(&self, spot: Spot, stat: &Stat) -> bool {
        self.is_same_object(stat) && self.spots.contains(&(spot, stat.stamp.inode))
    }

    /// Whether something stood here then, and nobody wrote to it. Of directories it is what is in them that counts.
    fn has(&self, spot: Spot, stat: &Stat) -> bool {
        let known = self.stamps.get(&stat.stamp.inode);
        let is_written =
            known.is_none_or(|known| (known.mtime, known.size) != (stat.stamp.mtime, stat.stamp.size));
        self.is_at(spot, stat) && (stat.file_type == FileType::Directory || !is_written)
    }
}

/// Where a place is.
enum Within {
    /// Not in what is published at once.
    Outside,
    /// At or below this name, which stands at this path below the root of the replica.
    Name(Place, Vec<Name>),
    /// Nobody knows: a directory above it could not be made, or stands under a private name.
    Unknown,
}

impl Publishing {
    /// Whether anything is published at once here.
    pub fn is_used(&self) -> bool {
        !self.patterns.is_empty()
    }

    /// Whether something was done that is not visible.
    pub fn is_awaited(&self) -> bool {
        !self.stages.is_empty()
    }

    /// A sender is there, and puts again whatever failed before.
    pub fn begin_session(&mut self) {
        self.failed.clear();
        self.refused = None;
        self.has_news = true;
    }

    /// Whether there is something else to be told than at the last time.
    pub fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.has_news)
    }

    /// What is being made, for people.
    pub fn reports(&self) -> Vec<PublishReport> {
        let reports = self.stages.iter().map(|(key, stage)| PublishReport {
            path: shown(&[self.top.names(), &stage.path[..]].concat()),
            since: stage.since,
            in_error: self.failed.values().filter(|failure| failure.keeps(key)).count() as u64,
        });
        reports.collect()
    }

    /// The names that may be published: all but those with an entry in error. `knows_none` says that the sender knows of no such
    /// entry any more.
    fn ready(&mut self, knows_none: bool) -> Vec<Key> {
        self.failed
            .retain(|_, failure| !knows_none && failure.at.elapsed() < FAILED_FOR);
        self.has_news = true;
        if self.failed.values().any(|failure| !failure.are_known) {
            return Vec::new();
        }
        let failed: HashSet<&Key> = self.failed.values().flat_map(|failure| &failure.trees).collect();
        let stages = self.stages.keys();
        stages.filter(|key| !failed.contains(key)).cloned().collect()
    }

    /// From now on a name leads to what stands there. Answers what did when its working tree was begun.
    fn drop_stage(&mut self, key: &Key) -> Option<Known> {
        self.has_news = true;
        self.stages.remove(key).map(|stage| stage.known)
    }

    /// Where a place is.
    fn find(&self, t: &impl CatalogRead, place: &Place) -> Result<Within, StoreError> {
        let Some(mut names) = t.path_of(place.directory)? else {
            return Ok(Within::Unknown);
        };
        names.push(place.name.clone());
        if names.iter().any(Name::is_reserved) {
            return Ok(Within::Unknown);
        }
        let path = [self.top.names(), &names[..]].concat();
        let levels = self
            .patterns
            .iter()
            .filter_map(|pattern| pattern.matches_start(&path));
        let level = levels
            .min()
            .and_then(|levels| levels.checked_sub(self.top.names().len()));
        names.truncate(level.unwrap_or_default());
        let Some((name, above)) = names.split_last() else {
            return Ok(Within::Outside);
        };
        let mut directory = ObjectId::ROOT;
        for step in above {
            match t.lookup(directory, step)? {
                Some(inner) => directory = inner,
                None => return Ok(Within::Unknown),
            }
        }
        let name = name.clone();
        Ok(Within::Name(Place { directory, name }, names))
    }

    /// Whether a tree that people see has this very object, too.
    pub(super) fn shares(&self, stat: &Stat) -> bool {
        stat.links > 1 && self.stages.values().any(|stage| stage.known.is_same_object(stat))
    }

    /// The mirror gave something other attributes, which may have names in trees that people see: nobody else did that.
    pub(super) fn note_set(&mut self, was: &Stamp, is: &Stamp) {
        let stages = self.stages.values_mut().map(|stage| &mut stage.known);
        let undisposed = self.undisposed.iter_mut().map(|again| &mut again.old.known);
        for known in stages.chain(undisposed) {
            known.note_set(was, is);
        }
    }

    /// An object has another number.
    pub(super) fn relabel(&mut self, old: ObjectId, new: ObjectId) {
        let moved: Vec<Key> = self.stages.keys().filter(|key| key.0 == old).cloned().collect();
        for (directory, name) in moved {
            if let Some(stage) = self.stages.remove(&(directory, name.clone())) {
                self.stages.insert((new, name), stage);
            }
        }
        if let Some(failed) = self.failed.remove(&old) {
            self.failed.insert(new, failed);
        }
        for Failure { trees, .. } in self.failed.values_mut() {
            let moved: Vec<Key> = trees.extract_if(|key| key.0 == old).collect();
            trees.extend(moved.into_iter().map(|(_, name)| (new, name)));
        }
        if self.unsynced.remove(&old) {
            self.unsynced.insert(new);
        }
        for again in self.undisposed.iter_mut().filter(|again| again.old.key.0 == old) {
            again.old.key.0 = new;
        }
    }

    /// Whether something was made that only a flush of its whole file system brings to stable storage.
    pub(super) fn must_flush(&self) -> bool {
        self.stages.values().any(|stage| stage.known.must_flush)
    }

    /// An op about an object ended well.
    pub(super) fn note_done(&mut self, object: ObjectId) {
        self.has_news |= self.failed.remove(&object).is_some();
    }
}

impl Replica {
    /// Has what matches these patterns change at once. `top` is the module path, below the root of the module, which the patterns
    /// are about. Fails where that cannot be.
    pub fn publish_at_once(&mut self, patterns: &[PathPattern], top: &RelPath) -> Outcome {
        let unsupported = |text: String| ApplyError {
            kind: FailureKind::Unsupported,
            text,
        };
        let covers = |pattern: &&PathPattern| pattern.matches_start(top.names()).is_some();
        if let Some(pattern) = patterns.iter().find(covers) {
            return Err(unsupported(format!(
                "{} lies in what its module publishes at once (publish = {pattern}), and cannot be exchanged while it is held: mirror \
                 to a path above that",
                self.path.display()
            )));
        }
        self.publishing = Publishing {
            patterns: patterns.to_vec(),
            top: top.clone(),
            ..Publishing::default()
        };
        match self.publishing.is_used() {
            true => self.check_exchange(&self.root.clone()),
            false => Ok(()),
        }
    }

    /// Refuses a directory in which names cannot be exchanged: without that there is a moment in which a name leads to nothing.
    fn check_exchange(&mut self, directory: &Directory) -> Outcome {
        let device = directory.stat_self()?.stamp.device;
        if self.publishing.able.contains(&device) {
            return Ok(());
        }
        match directory.can_exchange() {
            Ok(true) => _ = self.publishing.able.insert(device),
            Ok(false) => {
                return Err(ApplyError {
                    kind: FailureKind::Unsupported,
                    text: format!(
                        "the file system of {} cannot exchange two names in one step (renameat2 with RENAME_EXCHANGE), so nothing \
                         can be published at once there (publish, --publish): leave that out, or put the module on ext4, xfs or btrfs",
                        directory.shown()
                    ),
                });
            }
            // Where nothing can be made ops say so, and the next one tries again.
            Err(error) => tracing::debug!("whether names can be exchanged is not known: {error}"),
        }
        Ok(())
    }

    /// Makes sure that what an op changes is not what people see, where that changes at once.
    pub(super) fn stage_for(&mut self, t: &mut Tables<'_>, body: &OpBody) -> Outcome {
        if !self.publishing.is_used() {
            return Ok(());
        }
        match body {
            OpBody::SetAttributes { object, .. } => self.stage_object(t, *object, true),
            // What is to go as a whole needs no working tree, unless somebody looks at each thing that goes.
            OpBody::Remove { object, .. } => {
                self.stage_object(t, *object, self.keeper.is_needed() || self.protects)
            }
            OpBody::Move { object, to } => {
                self.refuse_strangers(t, *object, to)?;
                self.stage_object(t, *object, true)?;
                self.stage(t, to, true)
            }
            OpBody::MakeDirectory { place, object, .. } if *object != ObjectId::ROOT => {
                // One that is known is moved there.
                self.refuse_strangers(t, *object, place)?;
                self.stage_object(t, *object, true)?;
                self.stage(t, place, true)
            }
            OpBody::MakeDirectory { .. } => Ok(()),
            OpBody::PutFile { place, object, .. }
            | OpBody::PutSymlink { place, object, .. }
            | OpBody::PutSpecial { place, object, .. }
            | OpBody::Link { place, object, .. } => {
                self.stage_object(t, *object, true)?;
                self.stage(t, place, true)
            }
            // Numbers are nothing that anybody sees.
            OpBody::Adopt { .. } | OpBody::Release { .. } | OpBody::Mark { .. } | OpBody::Owners(_) => Ok(()),
        }
    }

    fn stage_object(&mut self, t: &mut Tables<'_>, object: ObjectId, copies: bool) -> Outcome {
        match t.get(object)?.filter(|entry| entry.object != ObjectId::ROOT) {
            Some(entry) => self.stage(t, &entry.place, copies),
            None => Ok(()),
        }
    }

    /// Begins a working tree for what a place is at or below, if that changes at once and has none. It begins empty if the op is
    /// about the whole of it and needs no copy.
    fn stage(&mut self, t: &mut Tables<'_>, place: &Place, copies: bool) -> Outcome {
        let Within::Name(at, path) = self.publishing.find(t, place)? else {
            return Ok(());
        };
        let key = (at.directory, at.name.clone());
        if self.publishing.stages.contains_key(&key) {
            return Ok(());
        }
        let refused = self.publishing.refused.as_ref();
        if let Some((_, _, error)) =
            refused.filter(|(refused, when, _)| *refused == key && when.elapsed() < REFUSED_FOR)
        {
            return Err(error.clone());
        }
        let parent = self.writable_directory(t, at.directory)?;
        self.check_exchange(&parent)?;
        let (aside, mut known) = (private_name(), Known::default());
        let stat = parent.stat(&at.name)?;
        match stat {
            Some(stat) if copies || at != *place => {
                let made = self.make_working_tree(t, &parent, (&at, &stat), &aside, &mut known);
                made.inspect_err(|error| self.give_up(t, (&parent, &aside), &key, error))?;
            }
            Some(stat) if stat.file_type == FileType::Directory => {
                working::note_all(&parent, &at.name, &mut known)?
            }
            Some(stat) => known.note(Spot::TOP, &stat),
            None => {}
        }
        tracing::debug!(path = shown(&path), "its next state is made aside");
        let stage = Stage {
            _diversion: parent.divert(&at.name, &aside)?,
            aside,
            known,
            path,
            since: unix_now(),
        };
        self.publishing.stages.insert(key, stage);
        self.publishing.has_news = true;
        Ok(())
    }

    /// A working tree could not be made: nothing of it stays.
    fn give_up(
        &mut self,
        t: &mut Tables<'_>,
        (parent, aside): (&Directory, &Name),
        key: &Key,
        error: &ApplyError,
    ) {
        // What stays is noted.
        let _ = parent.remove_private(aside);
        if let Err(error) = self.settle_stamps(t, key) {
            tracing::debug!(
                "what had a second name for a moment is read again: {}",
                error.text
            );
        }
        // One that believes something else of the disk is put right before it is tried again.
        if error.kind != FailureKind::Mismatch {
            self.publishing.refused = Some((key.clone(), Instant::now(), error.clone()));
        }
    }

    /// What only this side has would be in nothing but the working tree, and a crash would lose it.
    fn refuse_strangers(&mut self, t: &Tables<'_>, object: ObjectId, to: &Place) -> Outcome {
        let Some(entry) = t.get(object)?.filter(|entry| entry.kind == Kind::Directory) else {
            return Ok(());
        };
        let comes_in = matches!(self.publishing.find(t, to)?, Within::Name(..))
            && !matches!(self.publishing.find(t, &entry.place)?, Within::Name(..));
        let mut below = match comes_in {
            true => vec![entry.object],
            false => Vec::new(),
        };
        // RACE: what somebody makes there between this look and the move is in the working tree only until that is published.
        while let Some(object) = below.pop() {
            let directory = self.directory(t, object)?;
            for (name, _) in working::whole_listing(&directory)? {
                let place = Place {
                    directory: object,
                    name,
                };
                match self.occupant(t, &place)?.filter(|entry| !entry.object.is_local()) {
                    Some(entry) if entry.kind == Kind::Directory => below.push(entry.object),
                    Some(_) => {}
                    None => {
                        return Err(ApplyError {
                            kind: FailureKind::Unsupported,
                            text: format!(
                                "{} is not part of the mirror, and so cannot be moved with its directory to where changes are \
                                 published at once (--publish): move it away",
                                directory.shown_name(&place.name)
                            ),
                        });
                    }
                }
            }
        }
        Ok(())
    }

    /// Notes that an op about something at a place failed: its tree stays as people see it until that is put right.
    pub(super) fn note_failed(
        &mut self,
        t: &impl CatalogRead,
        object: Option<ObjectId>,
        place: Option<&Place>,
    ) {
        if !self.publishing.is_used() {
            return;
        }
        let known = object.and_then(|object| Some(t.get(object).ok()??.place));
        let Some(object) = object.or_else(|| place.map(|place| place.directory)) else {
            return;
        };
        let mut trees = HashSet::new();
        let mut are_known = true;
        for at in [place, known.as_ref()].into_iter().flatten() {
            match self.publishing.find(t, at) {
                Ok(Within::Name(name, _)) => _ = trees.insert((name.directory, name.name)),
                Ok(Within::Outside) => {}
                Ok(Within::Unknown) => are_known = false,
                // Nothing is going to be committed either.
                Err(_) => return,
            }
        }
        let before = self.publishing.failed.get(&object);
        // It is of no tree, and never was.
        if trees.is_empty() && are_known && before.is_none_or(|before| before.trees.is_empty()) {
            self.publishing.note_done(object);
            return;
        }
        // What failed before in another tree is not put right there either.
        trees.extend(before.into_iter().flat_map(|before| before.trees.iter().cloned()));
        let failure = Failure {
            trees,
            are_known,
            at: Instant::now(),
        };
        self.publishing.failed.insert(object, failure);
        self.publishing.has_news = true;
    }

    /// Has nothing wait any more below a directory that goes with all in it.
    pub(super) fn drop_below(&mut self, t: &mut Tables<'_>, object: ObjectId) -> Outcome {
        let keys: Vec<Key> = self.publishing.stages.keys().cloned().collect();
        for key in keys {
            if !is_within(t, key.0, object)? {
                continue;
            }
            let Some(aside) = self.publishing.stages.get(&key).map(|stage| stage.aside.clone()) else {
                continue;
            };
            let parent = self.writable_directory(t, key.0)?;
            let is_made = parent.stat(&aside)?.is_some();
            // What was removed is visible still, and would keep the directory. What was not keeps it.
            let is_taken = self.protects && !is_made;
            // What was moved into a working tree is kept from where it was moved to, and not lost with that.
            let is_kept = !self.protects && self.keeper.is_needed();
            if is_taken || is_kept {
                if let Some(replaced) = self.exchange(t, &key)? {
                    self.dispose(t, &replaced)?;
                }
            } else if !self.protects {
                self.publishing.drop_stage(&key);
                ignore_missing(parent.remove_private(&aside))?;
            }
        }
        Ok(())
    }
}

/// Whether a directory is another one or below it.
fn is_within(t: &impl CatalogRead, directory: ObjectId, above: ObjectId) -> Result<bool, StoreError> {
    let (mut at, mut steps) = (directory, 0);
    while at != above && at != ObjectId::ROOT && steps < 100_000 {
        match t.get(at)? {
            Some(entry) => at = entry.place.directory,
            None => return Ok(false),
        }
        steps += 1;
    }
    Ok(at == above)
}
