//! Subtrees that change at once: what matches a pattern is never seen between two states.
//!
//! | stage | what happens |
//! | --- | --- |
//! | an op is about something at or below a matched name | what stands at the name gets a *working tree* beside it, under a private name: directories of its own, and links to the files ([`working`]). From then on the name leads there for everything that this process does ([`Directory::divert`](crate::fs::Directory::divert)), and the catalog describes that |
//! | ops | go on as ever. What the two trees share is given an inode of its own before its attributes change; contents and names never change in what is shared |
//! | a mark is due | all before it has ended and nothing behind it has begun ([`OpOrder::divided`](crate::engine::order::OpOrder::divided)): all is flushed, and each working tree exchanged with what stands at its name ([`exchange`]); then the mark ends, and with it the cursor may be told |
//! | after that | what somebody else did in the old tree meanwhile is carried over, the rest of it removed |
//!
//! Nothing of this outlives the process: a working tree that a crash leaves has a private name, is swept, and what was in it is
//! fetched again. What stands at the name is the old or the new tree at any moment.

mod exchange;
mod working;

pub(super) use exchange::Replaced;

use super::apply::ignore_missing;
use super::replica::{ApplyError, Replica};
use crate::engine::path_pattern::PathPattern;
use crate::fs::{Diversion, FileType, Stamp, Stat, private_name};
use crate::store::{CatalogRead, StoreError, Tables};
use driftless_protocol::message::{FailureKind, OpBody, Place};
use driftless_protocol::{Kind, Name, ObjectId, RelPath};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

type Outcome = Result<(), ApplyError>;

/// A name: its directory, and what it is called there.
type Key = (ObjectId, Name);

/// A failed entry keeps its tree from being published for so long after it was tried last: by then its sender has either tried again
/// or given it up, because it is gone from the source.
const FAILED_FOR: Duration = Duration::from_secs(1_200);
/// So long nothing is tried again that would copy a whole tree and has just failed, on a full disk most often.
const REFUSED_FOR: Duration = Duration::from_secs(5);

/// What is published at once in a module path, and what waits for that.
#[derive(Debug, Default)]
pub struct Publishing {
    patterns: Vec<PathPattern>,
    /// The module path, below the root of the module.
    top: RelPath,
    stages: BTreeMap<Key, Stage>,
    /// Entries that could not be put, to which tree they belong, and when they were tried last.
    failed: HashMap<ObjectId, (Key, Instant)>,
    /// The last working tree that could not be made, and why: each op would try again.
    refused: Option<(Key, Instant, ApplyError)>,
}

/// A name at which something else is to appear.
#[derive(Debug)]
struct Stage {
    /// Where it is made.
    aside: Name,
    known: Known,
    /// Has the name lead there.
    _diversion: Diversion,
}

/// What stood at a name when its working tree was begun.
#[derive(Debug, Default)]
struct Known {
    /// By inode.
    stamps: HashMap<u64, Stamp>,
}

impl Known {
    fn note(&mut self, stat: &Stat) {
        self.stamps.insert(stat.stamp.inode, stat.stamp);
    }

    fn is_same_object(&self, stat: &Stat) -> bool {
        let known = self.stamps.get(&stat.stamp.inode);
        known.is_some_and(|known| known.same_object(&stat.stamp))
    }

    /// Whether something is what it was then, and nobody wrote to it. Of directories it is what is in them that counts.
    fn has(&self, stat: &Stat) -> bool {
        let known = self.stamps.get(&stat.stamp.inode);
        known.is_some_and(|known| {
            let is_written = (known.mtime, known.size) != (stat.stamp.mtime, stat.stamp.size);
            known.same_object(&stat.stamp) && (stat.file_type == FileType::Directory || !is_written)
        })
    }
}

impl Publishing {
    /// For a module path `top` of a module with these patterns.
    pub fn new(patterns: &[PathPattern], top: &RelPath) -> Publishing {
        Publishing {
            patterns: patterns.to_vec(),
            top: top.clone(),
            ..Publishing::default()
        }
    }

    /// The pattern that the module path itself lies in: it cannot be exchanged while it is held.
    pub fn holds_top(&self) -> Option<&PathPattern> {
        let covers = |pattern: &&PathPattern| pattern.matches_start(self.top.names()).is_some();
        self.patterns.iter().find(covers)
    }

    /// Whether anything is published at once here.
    pub fn is_used(&self) -> bool {
        !self.patterns.is_empty()
    }

    /// Whether something was done that is not visible.
    pub fn is_awaited(&self) -> bool {
        !self.stages.is_empty()
    }

    /// The matched name that a place is at or below, if there is one. What is parked is at no name that anybody knows.
    fn name_of(&self, t: &impl CatalogRead, place: &Place) -> Result<Option<Place>, StoreError> {
        let Some(mut names) = t.path_of(place.directory)? else {
            return Ok(None);
        };
        names.push(place.name.clone());
        if names.iter().any(Name::is_reserved) {
            return Ok(None);
        }
        let path = [self.top.names(), &names[..]].concat();
        let levels = self
            .patterns
            .iter()
            .filter_map(|pattern| pattern.matches_start(&path));
        let level = levels
            .min()
            .and_then(|levels| levels.checked_sub(self.top.names().len()));
        let Some(((name, above), _)) =
            level.and_then(|level| Some((names.get(..level)?.split_last()?, level)))
        else {
            return Ok(None);
        };
        let mut directory = ObjectId::ROOT;
        for step in above {
            match t.lookup(directory, step)? {
                Some(inner) => directory = inner,
                None => return Ok(None),
            }
        }
        Ok(Some(Place {
            directory,
            name: name.clone(),
        }))
    }

    /// Whether a tree that people see has this very object, too.
    pub(super) fn shares(&self, stat: &Stat) -> bool {
        stat.links > 1 && self.stages.values().any(|stage| stage.known.is_same_object(stat))
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
        for (key, _) in self.failed.values_mut() {
            if key.0 == old {
                key.0 = new;
            }
        }
    }

    /// An op about an object ended well.
    pub(super) fn note_done(&mut self, object: ObjectId) {
        self.failed.remove(&object);
    }
}

impl Replica {
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
            OpBody::MakeDirectory { place, object, .. }
            | OpBody::PutFile { place, object, .. }
            | OpBody::PutSymlink { place, object, .. }
            | OpBody::PutSpecial { place, object, .. }
            | OpBody::Link { place, object, .. } => {
                if *object == ObjectId::ROOT {
                    return Ok(());
                }
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
        let Some(at) = self.publishing.name_of(t, place)? else {
            return Ok(());
        };
        let key = (at.directory, at.name.clone());
        if self.publishing.stages.contains_key(&key) {
            return Ok(());
        }
        if let Some((_, _, error)) = self
            .publishing
            .refused
            .as_ref()
            .filter(|(refused, at, _)| *refused == key && at.elapsed() < REFUSED_FOR)
        {
            return Err(error.clone());
        }
        let parent = self.writable_directory(t, at.directory)?;
        let (aside, mut known) = (private_name(), Known::default());
        let stat = parent.stat(&at.name)?;
        if let Some(stat) = stat.filter(|_| copies || at != *place) {
            let made = self.make_working_tree(t, &parent, (&at, &stat), &aside, &mut known);
            made.inspect_err(|error| {
                // What stays is noted.
                let _ = parent.remove_private(&aside);
                // One that believes something else of the disk is put right before it is tried again.
                if error.kind != FailureKind::Mismatch {
                    self.publishing.refused = Some((key.clone(), Instant::now(), error.clone()));
                }
            })?;
        } else if stat.is_some_and(|stat| stat.file_type == FileType::Directory) {
            working::note_all(&parent, &at.name, &mut known)?;
        }
        let stage = Stage {
            _diversion: parent.divert(&at.name, &aside)?,
            aside,
            known,
        };
        self.publishing.stages.insert(key, stage);
        Ok(())
    }

    /// What only this side has would be in nothing but the working tree, and a crash would lose it.
    fn refuse_strangers(&mut self, t: &Tables<'_>, object: ObjectId, to: &Place) -> Outcome {
        let Some(entry) = t.get(object)?.filter(|entry| entry.kind == Kind::Directory) else {
            return Ok(());
        };
        let comes_in =
            self.publishing.name_of(t, to)?.is_some() && self.publishing.name_of(t, &entry.place)?.is_none();
        let mut below = match comes_in {
            true => vec![entry],
            false => Vec::new(),
        };
        while let Some(directory) = below.pop() {
            for entry in t.child_entries(directory.object)? {
                if entry.object.is_local() {
                    return Err(ApplyError {
                        kind: FailureKind::Unsupported,
                        text: format!(
                            "{} in {} is not part of the mirror, and so cannot be moved with it to where changes are published at \
                             once (--publish); move it away",
                            entry.place.name, directory.place.name
                        ),
                    });
                }
                if entry.kind == Kind::Directory {
                    below.push(entry);
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
        for at in [place.cloned(), known].into_iter().flatten() {
            // Where that cannot be told nothing is going to be committed either.
            if let Ok(Some(name)) = self.publishing.name_of(t, &at) {
                let key = (name.directory, name.name);
                self.publishing.failed.insert(object, (key, Instant::now()));
                return;
            }
        }
    }

    /// Publishes what is made below a directory that goes: it is about to be looked at as it is on the disk.
    pub(super) fn publish_below(&mut self, t: &mut Tables<'_>, object: ObjectId) -> Outcome {
        let keys: Vec<Key> = self.publishing.stages.keys().cloned().collect();
        for key in keys {
            if !is_within(t, key.0, object)? {
                continue;
            }
            if let Some(replaced) = self.exchange(t, &key)? {
                let parent = self.directory(t, key.0)?;
                ignore_missing(parent.remove_private(&replaced.aside))?;
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
