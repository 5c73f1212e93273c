//! The walk that brings a catalog in step with the disk.

use super::ahead::{self, Visit, Visited};
use super::identities::Identities;
use super::*;
use crate::daemon::receiver::apply::unpark_in;

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

impl Replica {
    /// Brings the catalog in step with the disk.
    pub(super) fn walk(&mut self) -> Result<WalkReport, ReplicaError> {
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
            let mut walk = Walk::new(terms, &known, Some(keeper), &mut report);
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
        // Of what the last session carried, which may be less than this process can: the next one most likely carries the same.
        if let Some(kept) = Ledger::kept_in(&self.catalog)? {
            self.ledger = kept;
        } else {
            self.recount()?;
            self.catalog.update(true, |tables| self.ledger.keep(tables))?;
        }
        Ok(report)
    }
}

/// What a walk must know beside the catalog.
#[derive(Debug, Default)]
pub(in super::super) struct WalkKnowledge {
    /// What was about to be committed.
    intents: HashMap<ObjectId, Digest>,
    /// Private names that are not swept: files that arrived in part.
    kept: HashSet<Name>,
}

/// Brings a catalog in step with the disk.
pub(in super::super) struct Walk<'a> {
    /// What counts, and whose things are here.
    terms: &'a Terms,
    knowledge: &'a WalkKnowledge,
    /// The policy of the tree; only a walk of all of it has one.
    keeper: Option<&'a mut Keeper>,
    report: &'a mut WalkReport,
    identities: Identities,
}

impl<'a> Walk<'a> {
    pub(in super::super) fn new(
        terms: &'a Terms,
        knowledge: &'a WalkKnowledge,
        keeper: Option<&'a mut Keeper>,
        report: &'a mut WalkReport,
    ) -> Walk<'a> {
        let identities = Identities::default();
        Walk {
            terms,
            knowledge,
            keeper,
            report,
            identities,
        }
    }

    pub(super) fn tree(
        &mut self,
        tables: &mut Tables<'_>,
        root: &Arc<Directory>,
    ) -> Result<(), ReplicaError> {
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
        let start = Visit {
            object: ObjectId::ROOT,
            handle: root.clone(),
            name: None,
        };
        ahead::visit_all(vec![start], |visited, directories| {
            self.take_visited(tables, visited, directories)
        })
    }

    pub(super) fn below(
        &mut self,
        tables: &mut Tables<'_>,
        start: ObjectId,
        handle: &Arc<Directory>,
    ) -> Result<(), ReplicaError> {
        let mut directories = vec![Visit {
            object: start,
            handle: handle.clone(),
            name: None,
        }];
        while let Some(visit) = directories.pop() {
            self.take_visited(tables, visit.list(), &mut directories)?;
        }
        Ok(())
    }

    /// Compares what stands in a directory with the catalog, and adds the directories there to those that are to be visited.
    fn take_visited(
        &mut self,
        tables: &mut Tables<'_>,
        visited: Visited,
        directories: &mut Vec<Visit>,
    ) -> Result<(), ReplicaError> {
        let Some((object, handle, listing)) = visited else {
            return Ok(());
        };
        let mut listing = listing?;
        if listing.has_reserved {
            self.sweep(tables, object, &handle)?;
            listing = handle.list()?;
        }
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
            let mut known = known.filter(|entry| entry.kind == kind);
            if let (Some(entry), Some(_)) = (&known, &self.keeper)
                && self.identities.is_another(tables, entry, &stat)?
            {
                known = None;
            }
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
                directories.push(Visit {
                    object: entry.object,
                    handle: handle.clone(),
                    name: Some(entry.place.name),
                });
            }
        }
        while let Some(gone) = catalogued.next_before(tables, None)? {
            self.forget(tables, &gone)?;
        }
        Ok(())
    }

    /// Removes what an earlier run left in a directory, and deals with what it displaced there.
    fn sweep(
        &mut self,
        tables: &mut Tables<'_>,
        object: ObjectId,
        handle: &Directory,
    ) -> Result<(), ReplicaError> {
        let before = handle.stat_self()?.attributes.mtime;
        let swept = handle.sweep(|name| self.knowledge.kept.contains(name))?;
        self.report.swept += (swept.removed.len() + swept.displaced.len() + swept.parked.len()) as u64;
        for aside in &swept.displaced {
            self.recover(tables, object, handle, aside);
        }
        for parked in &swept.parked {
            self.unpark(tables, object, handle, parked)?;
        }
        if !(swept.removed.is_empty() && swept.parked.is_empty()) {
            // Nobody else would notice: what the directory is was looked at before.
            handle.set_self_mtime(before)?;
        }
        Ok(())
    }

    /// Gives a directory that made room for another a name that a listing shows, and its number, if the catalog knows it: so the
    /// sender moves it to where it belongs, with what the target keeps in it.
    fn unpark(
        &mut self,
        tables: &mut Tables<'_>,
        object: ObjectId,
        handle: &Directory,
        parked: &Name,
    ) -> Result<(), ReplicaError> {
        let name = match unpark_in(handle, parked) {
            Ok(name) => name,
            Err(error) => {
                // Nobody sees it, and nothing is lost: the next start tries again.
                tracing::warn!("a directory that made room for another stays out of sight: {error}");
                return Ok(());
            }
        };
        // What is found between ops is not of a crash, and no walk but the first is about all of the catalog.
        let stat = handle.stat(&name)?.filter(|_| self.keeper.is_some());
        let known = stat.map(|stat| self.identities.find(tables, &stat.stamp));
        // One of the target's own is a stranger here: no sum tells of it.
        let known = known.transpose()?.flatten();
        if let Some(mut known) = known.filter(|known| !known.object.is_local()) {
            known.place = Place {
                directory: object,
                name,
            };
            tables.put(&known)?;
        }
        Ok(())
    }

    /// What is not there any more.
    pub(super) fn forget(&mut self, tables: &mut Tables<'_>, gone: &Entry) -> Result<(), StoreError> {
        self.report.changed += 1;
        self.report.unlike += 1;
        self.remove(tables, gone.object)
    }

    /// Takes an object out of the catalog, with all below it.
    fn remove(&mut self, tables: &mut Tables<'_>, object: ObjectId) -> Result<(), StoreError> {
        tables.remove_below(object, |gone| self.identities.note_gone(gone))?;
        if let Some(gone) = tables.remove(object, None)? {
            self.identities.note_gone(&gone);
        }
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
    pub(in super::super) fn entry(
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
                    self.remove(tables, other)?;
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
        let (knowledge, mut report) = (WalkKnowledge::default(), WalkReport::default());
        let mut walk = Walk::new(terms, &knowledge, None, &mut report);
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
    digest_of(&file).ok().filter(|found| *found == intended)
}
