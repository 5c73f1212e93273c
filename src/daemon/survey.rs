//! What a run would change: both trees are looked at, names and attributes, and contents only if these are to be compared.
//! Nothing is changed, on either side, no database included.
//!
//! The two walks go along together, in the order of rsync: in each directory its files, then each directory with what is in it.
//! What is to be deleted comes last, since it takes the whole walk to know how many that are.

mod extras;
mod far;
mod follow;
mod links;
mod memory;
mod owners;
mod sparing;
mod totals;
mod xattrs;

pub use far::FarEnd;
pub use follow::follow;
pub use totals::{Kinds, Totals};

use super::receiver::{cheap_digest, digest_of, kind_of};
use super::sender::{Standing, TreeFiles, owner_keys};
use super::{DaemonError, Deletes, FailedEntry, SenderOptions};
use crate::engine::compare::Compare;
use crate::engine::filter::Role;
use crate::engine::fuse::DeleteFuse;
use crate::engine::itemize::{Change, Differences, Item, Look};
use crate::fs::{Directory, Stat};
use driftless_protocol::message::Row;
use driftless_protocol::{Digest, Kind, Name, ObjectId, RelPath, XattrClasses};
use far::Far;
use links::Links;
use memory::Memory;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Instant;
use xattrs::Split;

/// What a survey found, beside the items.
#[derive(Debug, Clone, Default)]
pub struct SurveyReport {
    /// How much.
    pub totals: Totals,
    /// Why a run would end without having done all of it.
    pub refusal: Option<String>,
    /// It would do nothing at all, and there are no items.
    pub does_nothing: bool,
    /// What could not be looked at, or could not be put.
    pub unreadable: Vec<FailedEntry>,
}

/// Looks at both trees and hands on what a run with these options would change.
pub fn run(
    options: &SenderOptions,
    end: FarEnd<'_>,
    on_item: &mut dyn FnMut(Item),
) -> Result<SurveyReport, DaemonError> {
    let failed = |error: &dyn std::fmt::Display| DaemonError::failed(error.to_string());
    let root = Directory::open_root(&options.source).map_err(|error| failed(&error))?;
    let root = Arc::new(root.with_view(options.view()));
    let mut far = Far::open(options, &root, end)?;
    let outcome = walk_all(options, &mut far, &root, None, on_item);
    far.close();
    outcome.map(|(report, _)| report)
}

/// Looks at everything. Adds the directories that the target has to `there`.
fn walk_all(
    options: &SenderOptions,
    far: &mut Far,
    root: &Arc<Directory>,
    there: Option<HashSet<Vec<u8>>>,
    on_item: &mut dyn FnMut(Item),
) -> Result<(SurveyReport, HashSet<Vec<u8>>), DaemonError> {
    let memory = Memory::of(options);
    let asks = options.deletes == Deletes::Ask && memory.decision.is_none() && far.grants().delete;
    let mut survey = Survey::new(options, far, root.clone(), on_item)?;
    survey.there = there;
    survey.holds_back = asks || survey.keeps || options.owners.demands_names();
    let stat = root.stat_self();
    let stat = stat.map_err(|error| DaemonError::failed(error.to_string()))?;
    if let Some(refusal) = survey.refuses_root(&memory)? {
        survey.report.refusal = Some(refusal);
        survey.report.does_nothing = true;
        return Ok((survey.report, HashSet::new()));
    }
    survey.walk(&stat)?;
    survey.conclude(asks);
    Ok((survey.report, survey.there.unwrap_or_default()))
}

/// A directory of the source whose turn comes.
struct Job {
    path: RelPath,
    /// Opened late: a level can have more directories than a process descriptors.
    above: Arc<Directory>,
    name: Option<Name>,
    standing: Standing,
    /// Whether the target has it.
    is_there: bool,
    item: Option<Item>,
}

struct Survey<'a> {
    options: &'a SenderOptions,
    far: &'a mut Far,
    root: Arc<Directory>,
    /// The file system of the root.
    device: u64,
    /// Extended attributes that count.
    classes: XattrClasses,
    links: Links,
    /// What only the target has stays.
    keeps: bool,
    deletions: Vec<Item>,
    /// Entries that go because something of another kind takes their place, and what is in those that are directories.
    replaced: u64,
    blocked: u64,
    /// Items that are not handed on before it is certain that the run would do anything.
    kept_back: Vec<Item>,
    holds_back: bool,
    on_item: &'a mut dyn FnMut(Item),
    /// Directories that were found there, if that is of interest.
    there: Option<HashSet<Vec<u8>>>,
    report: SurveyReport,
}

impl<'a> Survey<'a> {
    fn new(
        options: &'a SenderOptions,
        far: &'a mut Far,
        root: Arc<Directory>,
        on_item: &'a mut dyn FnMut(Item),
    ) -> Result<Survey<'a>, DaemonError> {
        let stat = root.stat_self();
        let stat = stat.map_err(|error| DaemonError::failed(error.to_string()))?;
        let keeps = !far.grants().delete || Memory::of(options).keeps_extras(options);
        Ok(Survey {
            options,
            classes: far.carried().xattrs,
            far,
            device: stat.stamp.device,
            root,
            links: Links::default(),
            keeps,
            deletions: Vec::new(),
            replaced: 0,
            blocked: 0,
            kept_back: Vec::new(),
            holds_back: false,
            on_item,
            there: None,
            report: SurveyReport::default(),
        })
    }

    fn walk(&mut self, stat: &Stat) -> Result<(), DaemonError> {
        let standing = self.root_standing()?;
        let item = self.root_item(stat)?;
        let mut jobs = vec![Job {
            path: RelPath::root(),
            above: self.root.clone(),
            name: None,
            standing,
            is_there: self.far.is_there(),
            item,
        }];
        while let Some(job) = jobs.pop() {
            let open = |job: &Job| match &job.name {
                None => Ok(job.above.clone()),
                Some(name) => job.above.open_dir(name).map(Arc::new),
            };
            let directory = match open(&job) {
                Ok(directory) => directory,
                Err(error) => {
                    self.unreadable(&job.path, &error.to_string());
                    continue;
                }
            };
            if let Some(item) = job.item.clone() {
                self.emit(item);
            }
            let rows = match self.rows(&job)? {
                Some(rows) => rows,
                None => continue,
            };
            let inner = self.compare_directory(&job, &directory, rows)?;
            jobs.extend(inner.into_iter().rev());
            let soon = jobs.iter().rev().filter(|job| job.is_there);
            self.far
                .ask_ahead(soon.map(|job| &job.path), self.reads_contents())?;
        }
        for item in self.links.unshared() {
            self.emit(item);
        }
        Ok(())
    }

    fn reads_contents(&self) -> bool {
        self.options.compare == Compare::Contents
    }

    fn root_standing(&self) -> Result<Standing, DaemonError> {
        let filter = &self.options.filter;
        if filter.passes_everything() && !filter.one_file_system() {
            return Ok(Standing::Everything);
        }
        let rules = filter.root(Role::Both, &mut TreeFiles::new(&self.root, None));
        rules
            .map(Standing::Rules)
            .map_err(|error| DaemonError::failed(error.to_string()))
    }

    fn root_item(&mut self, stat: &Stat) -> Result<Option<Item>, DaemonError> {
        self.report.totals.entries.count(Kind::Directory);
        let carried = self.far.carried();
        let Some(attributes) = self.attributes_there(stat.attributes)? else {
            return Ok(None);
        };
        let ours = Look {
            kind: Kind::Directory,
            attributes: attributes.carried(carried),
            size: 0,
            digest: None,
        };
        let theirs = self.far.root().map(|attributes| Look {
            attributes: attributes.carried(carried),
            ..ours
        });
        if carried.leaves_root && theirs.is_some() {
            return Ok(None);
        }
        let mut differences = Differences::between(&ours, theirs.as_ref(), self.options.compare);
        if let Some(theirs) = theirs {
            let found = self.root.self_xattrs(self.classes);
            let found = found.map_err(|error| DaemonError::failed(error.to_string()))?;
            let here = self.xattrs_there(&found.xattrs)?;
            differences.xattrs = here.is_ok_and(|here| here != theirs.attributes.xattrs);
        }
        Ok(differences.any().then(|| Item {
            path: Vec::new(),
            kind: Kind::Directory,
            bytes: 0,
            length: 0,
            attributes: stat.attributes,
            change: Change::Update(differences),
        }))
    }

    /// What the target has in a directory; `None`, and reported, if it cannot tell.
    fn rows(&mut self, job: &Job) -> Result<Option<Vec<Row>>, DaemonError> {
        if !job.is_there {
            return Ok(Some(Vec::new()));
        }
        if let Some(there) = &mut self.there {
            there.insert(job.path.to_bytes());
        }
        let contents = self.reads_contents();
        match self.far.rows(&job.path, self.classes, contents)? {
            Ok(rows) => Ok(Some(rows)),
            Err(text) => {
                self.unreadable(&job.path, &format!("on the target: {text}"));
                Ok(None)
            }
        }
    }

    fn compare_directory(
        &mut self,
        job: &Job,
        directory: &Arc<Directory>,
        rows: Vec<Row>,
    ) -> Result<Vec<Job>, DaemonError> {
        let mut listing = match directory.list() {
            Ok(listing) => listing,
            Err(error) => {
                self.unreadable(&job.path, &error.to_string());
                return Ok(Vec::new());
            }
        };
        listing.entries.sort_by(|(a, _), (b, _)| a.cmp(b));
        // All at once, and not one by one.
        let owners = listing.entries.iter();
        self.far
            .learn(owners.flat_map(|(_, stat)| owner_keys(&stat.attributes)))?;
        let mut theirs: BTreeMap<Name, Row> = rows.into_iter().map(|row| (row.name.clone(), row)).collect();
        for (name, error) in &listing.problems {
            if let Ok(name) = Name::new(name.as_slice()) {
                theirs.remove(&name);
            }
            self.unreadable(&job.path, &error.to_string());
        }
        let mut split = None;
        let mut inner = Vec::new();
        for (name, stat) in listing.entries {
            let Some(kind) = kind_of(stat.file_type) else {
                continue;
            };
            if kind.is_device() && !self.far.carried().devices {
                continue;
            }
            if let Standing::Rules(rules) = &job.standing {
                if kind == Kind::File && !self.options.filter.admits_size(stat.size) {
                    // Whatever the target has of it stays.
                    theirs.remove(&name);
                    continue;
                }
                if !rules.verdict(&name, kind).transfer {
                    continue;
                }
            }
            let path = job.path.join(&name);
            let row = theirs.remove(&name);
            let is_spared = self.spares(kind, &stat, row.as_ref());
            if is_spared && row.as_ref().is_none_or(|row| row.kind != kind) {
                self.note(&stat, kind);
                continue;
            }
            if let Some(row) = row.as_ref().filter(|row| row.kind != kind)
                && !self.replace(job, &path, row)?
            {
                continue;
            }
            let row = row.filter(|row| row.kind == kind);
            let item = self.item(job, directory, &name, &stat, row.as_ref(), &mut split)?;
            let item = item.filter(|_| !is_spared);
            self.note(&stat, kind);
            if kind != Kind::Directory {
                if let Some(item) = item {
                    self.emit(item);
                }
                continue;
            }
            let is_cut = self.options.filter.one_file_system() && stat.stamp.device != self.device;
            match self.enter(&job.standing, &path, &name).filter(|_| !is_cut) {
                Some(standing) => inner.push(Job {
                    path,
                    above: directory.clone(),
                    name: Some(name),
                    standing,
                    is_there: row.is_some(),
                    item,
                }),
                None => {
                    if let Some(item) = item {
                        self.emit(item);
                    }
                }
            }
        }
        // A receiver marks its backups as its own.
        for (name, row) in theirs.into_iter().filter(|(_, row)| !row.object.is_local()) {
            self.judge_extra(&job.standing, &job.path.join(&name), &name, row.kind)?;
        }
        Ok(inner)
    }

    /// What becomes of an entry, if anything.
    fn item(
        &mut self,
        job: &Job,
        directory: &Arc<Directory>,
        name: &Name,
        stat: &Stat,
        row: Option<&Row>,
        split: &mut Option<Split>,
    ) -> Result<Option<Item>, DaemonError> {
        let Some(kind) = kind_of(stat.file_type) else {
            return Ok(None);
        };
        let (path, carried) = (job.path.join(name), self.far.carried());
        let Some(attributes) = self.attributes_there(stat.attributes)? else {
            return Ok(None);
        };
        let ours = Look {
            kind,
            attributes: attributes.carried(carried),
            size: stat.size,
            digest: match self.digest(directory, name, stat, row) {
                Ok(digest) => digest,
                Err(text) => {
                    self.unreadable(&path, &text);
                    return Ok(None);
                }
            },
        };
        let theirs = row.map(|row| Look {
            kind: row.kind,
            attributes: row.attributes.carried(carried),
            size: row.size,
            digest: row.digest,
        });
        let compare = match stat.is_device {
            true => Compare::Always,
            false => self.options.compare,
        };
        let mut differences = Differences::between(&ours, theirs.as_ref(), compare);
        match row {
            Some(row) if !self.classes.is_empty() => {
                self.compare_xattrs(&job.path, directory, row, split, &mut differences)?;
            }
            // Nothing is compared, but whom an ACL names may be missing there.
            None if self.classes.contains(XattrClasses::ACL) && self.options.owners.demands_names() => {
                if let Ok(found) = directory.xattrs(name, XattrClasses::ACL) {
                    let _ = self.xattrs_there(&found.xattrs)?;
                }
            }
            _ => {}
        }
        let bytes = path.to_bytes();
        let change = self.links.change(&bytes, stat, row, differences);
        let change = match change {
            Change::Update(differences) if kind == Kind::Symlink => {
                let text = directory.read_link(name).unwrap_or_default();
                Change::Symlink(differences, text)
            }
            change => change,
        };
        let item = Item {
            path: bytes,
            kind,
            bytes: if kind == Kind::File { stat.size } else { 0 },
            length: stat.size,
            attributes: stat.attributes,
            change,
        };
        let is_news = match &item.change {
            Change::Link(..) | Change::Unlink(_) | Change::Delete => true,
            Change::Update(differences) | Change::Symlink(differences, _) => differences.any(),
        };
        let is_set_id = kind != Kind::Directory && attributes.mode & SET_ID != 0;
        if is_news && is_set_id && !self.far.grants().set_id {
            let text = "this machine may not set the set-user-ID or set-group-ID bit of files on the target";
            self.unreadable(&path, text);
            return Ok(None);
        }
        Ok(is_news.then_some(item))
    }

    /// A file is read only where the target has one of the same size.
    fn digest(
        &self,
        directory: &Directory,
        name: &Name,
        stat: &Stat,
        row: Option<&Row>,
    ) -> Result<Option<Digest>, String> {
        if stat.file_type.kind() != Some(Kind::File) {
            return cheap_digest(directory, name, stat).map_err(|error| error.to_string());
        }
        if !self.reads_contents() || row.is_none_or(|row| row.size != stat.size) {
            return Ok(None);
        }
        let (file, _) = directory.open_file(name).map_err(|error| error.to_string())?;
        let digest = digest_of(&file).map_err(|error| format!("cannot read {name}: {error}"))?;
        Ok(Some(digest))
    }

    fn note(&mut self, stat: &Stat, kind: Kind) {
        self.report.totals.entries.count(kind);
        if kind == Kind::File {
            self.report.totals.bytes += stat.size;
        }
    }

    /// The rules in a subdirectory, whichever side has it. `None`, and reported, if they can't be known.
    fn enter(&mut self, standing: &Standing, path: &RelPath, name: &Name) -> Option<Standing> {
        let entered = standing.enter(name, &self.root);
        entered
            .map_err(|error| self.unreadable(path, &error.to_string()))
            .ok()
    }

    fn emit(&mut self, item: Item) {
        if self.holds_back {
            self.kept_back.push(item);
        } else {
            self.hand_on(item);
        }
    }

    fn hand_on(&mut self, item: Item) {
        self.report.totals.add(&item);
        (self.on_item)(item);
    }

    /// Hands on what was kept back, if the run would get so far.
    fn conclude(&mut self, asks: bool) {
        if self.report.does_nothing {
            return;
        }
        let deletions = self.deletions.len() as u64;
        let at_risk = deletions + self.replaced;
        let (source, target) = (self.options.source.display(), &self.options.target);
        if (asks && at_risk > 0) || (self.keeps && self.blocked > 0) {
            self.report.refusal = Some(format!(
                "{target} holds {at_risk} {} that {source} lacks: nothing would be sent and nothing deleted; look again with \
                 `--delete always` or `--delete never`",
                if at_risk == 1 { "entry" } else { "entries" },
            ));
            self.report.does_nothing = true;
            return;
        }
        for item in std::mem::take(&mut self.kept_back) {
            self.hand_on(item);
        }
        let mut fuse = DeleteFuse::new(self.options.delete_limit);
        let present = self.report.totals.entries.all();
        if !fuse.admit(Instant::now(), deletions, present) {
            self.report.refusal = Some(format!(
                "{deletions} of {} entries are gone from {source}, more than may be deleted unasked: none of them would be \
                 deleted from {target}; `--max-delete none` lets them go",
                deletions.saturating_add(present),
            ));
            return;
        }
        for item in std::mem::take(&mut self.deletions) {
            self.hand_on(item);
        }
    }

    fn unreadable(&mut self, path: &RelPath, error: &str) {
        self.report.unreadable.push(FailedEntry {
            path: path.to_string(),
            error: error.to_owned(),
        });
    }
}

/// Nothing shares a number with what has but one name.
const ALONE: ObjectId = ObjectId(0);

/// The set-user-ID and set-group-ID bits.
const SET_ID: u16 = 0o6000;
