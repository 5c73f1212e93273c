//! Looking again at what stands at a path, because somebody has reason to doubt what the catalog says of it: `verify` found a
//! difference, the scrub a rotten content, the watch an edit.
//!
//! The catalog is brought in step with the disk, and what it then has is not what the sender believes: the sums differ, the sender
//! compares and puts things right by its own rules. Whoever holds the replica does it, which is the session that works on it, or
//! nobody else while it rests; so nothing of our own doing is ever half done at that moment.

use super::replica::{
    ApplyError, Replica, Walk, WalkKnowledge, WalkReport, catalogue, is_as_catalogued, kind_of,
};
use crate::fs::{Directory, Stamp, Stat};
use crate::store::{CatalogRead, Entry, StoreError, Tables};
use crossbeam_channel::Sender;
use driftless_protocol::message::{FailureKind, Place};
use driftless_protocol::{Kind, ObjectId, RelPath};
use std::collections::HashSet;
use std::sync::Arc;

/// What to do about what is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Bring the catalog in step, and believe no content, whatever its stamp: it was read and is wrong.
    Doubt,
    /// Bring the catalog in step where something was changed.
    Mend,
    /// Only say what was changed.
    Tell,
}

/// A wish to look at paths again.
#[derive(Debug)]
pub struct Look {
    /// The paths, below the root of the replica.
    pub paths: Vec<RelPath>,
    /// What to do.
    pub how: How,
    /// Where to answer.
    pub answer: Sender<Found>,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// The paths at which something else is known now, or would be, and what.
    pub changed: Vec<(RelPath, &'static str)>,
    /// The sender has to compare.
    pub must_compare: bool,
}

const MADE: &str = "made";
const REMOVED: &str = "removed";
const REPLACED: &str = "replaced";
const CONTENT: &str = "content changed";
const ATTRIBUTES: &str = "attributes changed";

/// What is to be known of a place from now on.
struct Judged {
    place: Place,
    parent: Arc<Directory>,
    known: Option<Entry>,
    stat: Option<Stat>,
    what: &'static str,
}

impl Replica {
    /// Looks at paths again. What cannot be looked at is left to the next walk.
    pub fn look_again(&mut self, paths: &[RelPath], how: How) -> Result<Found, StoreError> {
        let mut found = Found::default();
        let mut groups = HashSet::new();
        let catalog = self.catalog.clone();
        for path in paths {
            let outcome = match how {
                How::Tell => catalog.read(|view| Ok(self.judge(view, path, how)))?,
                How::Doubt | How::Mend => catalog.update(false, |t| {
                    Ok(self.judge(t, path, how).and_then(|judged| match judged {
                        Some(judged) => self.take_in(t, judged, how, &mut groups).map(Some),
                        None => Ok(None),
                    }))
                })?,
            };
            match outcome {
                Ok(Some(judged)) => found.changed.push((path.clone(), judged.what)),
                Ok(None) => {}
                Err(error) => tracing::warn!("cannot look at {path} again: {}", error.text),
            }
        }
        if !groups.is_empty() {
            catalog.update(false, |t| self.doubt_groups(t, &groups))?;
        }
        found.must_compare = how != How::Tell && !found.changed.is_empty();
        self.wants_comparison |= found.must_compare;
        Ok(found)
    }

    /// What stands at a path that is not what the catalog says of it; none if it is.
    fn judge(
        &mut self,
        t: &impl CatalogRead,
        path: &RelPath,
        how: How,
    ) -> Result<Option<Judged>, ApplyError> {
        let mut at = ObjectId::ROOT;
        let mut names = path.names().iter().peekable();
        let place = loop {
            let Some(name) = names.next() else {
                return Ok(None);
            };
            let place = Place {
                directory: at,
                name: name.clone(),
            };
            if name.is_reserved() || self.keeper.is_taboo(&place) {
                return Ok(None);
            }
            let known = self.occupant(t, &place)?;
            match known.filter(|known| known.kind == Kind::Directory && names.peek().is_some()) {
                Some(directory) => at = directory.object,
                // What is below something that is not known is looked at with it.
                None => break place,
            }
        };
        let is_meant = names.peek().is_none();
        let parent = match self.directory(t, place.directory) {
            Ok(parent) => parent,
            // A directory above was replaced or is gone. Whoever looks there finds that.
            Err(error) if error.kind == FailureKind::Mismatch => {
                let above = RelPath::from_names(
                    path.names()
                        .split_last()
                        .map_or(Vec::new(), |(_, above)| above.to_vec()),
                );
                let above = above.unwrap_or_default();
                return match above.is_root() {
                    true => Err(error),
                    false => self.judge(t, &above, how),
                };
            }
            Err(error) => return Err(error),
        };
        let stat = parent.stat(&place.name)?;
        let stat = stat.filter(|stat| kind_of(stat.file_type).is_some());
        let known = self.occupant(t, &place)?;
        let what = match (&known, &stat) {
            (None, None) => None,
            (None, Some(_)) => Some(MADE),
            (Some(_), None) => Some(REMOVED),
            (Some(known), Some(stat)) => self.what_changed(known, stat, how, is_meant),
        };
        Ok(what.map(|what| Judged {
            place,
            parent,
            known,
            stat,
            what,
        }))
    }

    fn what_changed(&self, known: &Entry, stat: &Stat, how: How, is_meant: bool) -> Option<&'static str> {
        let stamp = known.stamp.and_then(|bytes| Stamp::from_bytes(&bytes));
        if Some(known.kind) != kind_of(stat.file_type) {
            return Some(REPLACED);
        }
        // The sender does not have it: that it is known here is no news, but what becomes of it is to be decided.
        if how == How::Doubt && is_meant && known.object.is_local() {
            return Some(MADE);
        }
        if known.kind == Kind::Directory {
            if stamp.is_some_and(|stamp| !stamp.same_object(&stat.stamp)) {
                return Some(REPLACED);
            }
            // Its times are those of what was done in it last, until they are set again.
            let mut seen = self.terms.seen(stat.attributes, Some(&known.attributes));
            if how == How::Tell || self.touched.contains(&known.object) {
                seen.mtime = known.attributes.mtime;
            }
            return (known.attributes.told_by_stat() != seen).then_some(ATTRIBUTES);
        }
        if !is_as_catalogued(known, stat, &self.terms) {
            let is_written = stamp.is_none_or(|stamp| {
                (stamp.size, stamp.mtime) != (stat.stamp.size, stat.stamp.mtime)
                    || !stamp.same_object(&stat.stamp)
            });
            let seen = self.terms.seen(stat.attributes, Some(&known.attributes));
            let is_told = !is_written && known.attributes.told_by_stat() != seen;
            return Some(if is_told { ATTRIBUTES } else { CONTENT });
        }
        let doubts = how == How::Doubt && is_meant && known.kind == Kind::File && known.digest.is_some();
        doubts.then_some(CONTENT)
    }

    /// Has the catalog say what was found. Notes the group of a file in doubt that has several names.
    fn take_in(
        &mut self,
        t: &mut Tables<'_>,
        judged: Judged,
        how: How,
        groups: &mut HashSet<ObjectId>,
    ) -> Result<Judged, ApplyError> {
        let Judged {
            place,
            parent,
            known,
            stat,
            what,
        } = &judged;
        let Some(stat) = stat else {
            if let Some(known) = known {
                self.drop_entry(t, known.object)?;
            }
            return Ok(judged);
        };
        let stays = known.as_ref().filter(|_| *what == CONTENT || *what == ATTRIBUTES);
        let Some(known) = stays else {
            if let Some(known) = known {
                self.drop_entry(t, known.object)?;
            }
            catalogue(t, parent, place, &self.terms)?;
            return Ok(judged);
        };
        let mut entry = known.clone();
        if !is_as_catalogued(known, stat, &self.terms) {
            let (knowledge, mut report) = (WalkKnowledge::default(), WalkReport::default());
            let mut walk = Walk::new(&self.terms, &knowledge, Some(&mut self.keeper), &mut report);
            let found = walk.entry(t, parent, place.clone(), Some(known.clone()), known.kind, stat);
            entry = found.map_err(|error| ApplyError {
                kind: FailureKind::Io,
                text: error.to_string(),
            })?;
        }
        if how == How::Doubt && entry.kind == Kind::File {
            entry.digest = None;
        }
        let group = known.attributes.link_group;
        self.put(t, &entry)?;
        if how == How::Doubt && group != ObjectId(0) {
            groups.insert(group);
        }
        Ok(judged)
    }

    /// Believes the content of none of the names of these files. One that was believed would be what the others are made of. To find
    /// the names takes a look at all of the catalog, so it is done once for all files.
    fn doubt_groups(&mut self, t: &mut Tables<'_>, groups: &HashSet<ObjectId>) -> Result<(), StoreError> {
        #[cfg(test)]
        SCANS.set(SCANS.get() + 1);
        let mut names = Vec::new();
        t.for_each(&mut |entry: Entry| {
            let is_in_doubt = groups.contains(&entry.attributes.link_group);
            if is_in_doubt && entry.digest.is_some() && entry.kind == Kind::File {
                names.push(entry);
            }
            Ok(())
        })?;
        for mut entry in names {
            entry.digest = None;
            self.put(t, &entry)?;
        }
        Ok(())
    }
}

#[cfg(test)]
thread_local! {
    /// Looks at a whole catalog.
    pub(super) static SCANS: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}
