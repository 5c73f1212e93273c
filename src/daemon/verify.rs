//! `verify`: both disks are read, and every entry is compared by attributes and content digest. Changes nothing.

mod owners;

use super::receiver::{cheap_digest, digest_of, kind_of, own_carried};
use super::sender::{
    Fate, ReconcileError, Standing, TreeFiles, fate_by, listing_from, open_link, owner_keys,
};
use super::{DaemonError, FailedEntry, Observer, Phase, SenderOptions};
use crate::engine::filter::{Filter, Role};
use crate::engine::owners::acl_owners;
use crate::fs::{Directory, FsError, Stat};
use crate::net::SenderLink;
use driftless_protocol::message::{ModuleName, Open, Purpose, Recheck, Relays, Row, Sparing, ToReceiver};
use driftless_protocol::{Attributes, Carried, Digest, Kind, Name, ObjectId, RelPath, Xattrs};
use owners::Owners;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

/// Directories asked for ahead of the one that is compared.
const ASK_AHEAD: usize = 8;

/// A way in which an entry differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Its path, escaped.
    pub path: String,
    /// What differs.
    pub what: String,
}

/// What a verification found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// Entries of the source that were compared.
    pub compared: u64,
    /// Bytes of the source that were read.
    pub bytes: u64,
    /// What differs.
    pub differences: Vec<Difference>,
    /// Entries of the source that could not be read, or directories of the target that could not.
    pub unreadable: Vec<FailedEntry>,
}

/// Compares a source with a target.
pub fn run(
    options: &SenderOptions,
    runtime: &tokio::runtime::Handle,
    observer: &dyn Observer,
) -> Result<VerifyReport, DaemonError> {
    observer.phase(&Phase::Connecting);
    let root = Directory::open_root(&options.source)
        .map_err(|error| DaemonError::failed(error.to_string()))?
        .with_view(options.view());
    let open = Open {
        purpose: Purpose::Verify,
        module: ModuleName(options.target.module.clone().into_bytes()),
        path: options.target.path.clone(),
        mirror: 0,
        source: options.source.display().to_string().as_str().into(),
        incarnation: 0,
        carried: Carried {
            xattrs: root.holds_xattrs(own_carried(&root).xattrs),
            ..own_carried(&root)
        },
        sum: None,
        protects: false,
        sparing: Sparing::default(),
        whole_files: false,
        recheck: Recheck::Nothing,
        upstream: Relays::default(),
        engine: None,
    };
    let (link, opened) =
        open_link(options, runtime, Vec::new(), open).map_err(|error| DaemonError::failed(error.text))?;
    observer.phase(&Phase::Comparing);
    let root = Arc::new(root);
    let device = root
        .stat_self()
        .map_err(|error| DaemonError::failed(error.to_string()))?
        .stamp
        .device;
    let mut verifier = Verifier {
        link: &link,
        carried: opened.carried,
        owners: Owners::new(&link, &options.owners),
        filter: &options.filter,
        root,
        device,
        only_there: BTreeSet::new(),
        links: HashMap::new(),
        linked_there: HashMap::new(),
        report: VerifyReport::default(),
    };
    let outcome = verifier.compare_tree();
    link.close(driftless_protocol::CloseCode::Done, "");
    verifier.tell_only_there();
    outcome.map(|()| verifier.report)
}

/// A directory that is to be compared.
struct Job {
    path: RelPath,
    /// `None` if only the target has it: then it is looked through for what has to go there.
    directory: Option<Arc<Directory>>,
    standing: Standing,
}

struct Verifier<'a> {
    link: &'a SenderLink,
    carried: Carried,
    owners: Owners<'a>,
    filter: &'a Filter,
    root: Arc<Directory>,
    /// The file system of the root.
    device: u64,
    /// Directories that only the target has and that hold nothing protected, as far as they were looked through.
    only_there: BTreeSet<Vec<u8>>,
    /// What the target tells of the objects with several names, by their device and inode here; and the other way round.
    links: HashMap<(u64, u64), ObjectId>,
    linked_there: HashMap<ObjectId, (u64, u64)>,
    report: VerifyReport,
}

impl Verifier<'_> {
    fn compare_tree(&mut self) -> Result<(), DaemonError> {
        let mut waiting = VecDeque::from([Job {
            path: RelPath::root(),
            directory: Some(self.root.clone()),
            standing: self.root_standing()?,
        }]);
        let mut asked = 0;
        while !waiting.is_empty() {
            for Job { path, .. } in waiting.iter().take(ASK_AHEAD).skip(asked) {
                let ask = ToReceiver::ListDisk(path.clone());
                self.link
                    .control()
                    .send(ask)
                    .map_err(|_| DaemonError::failed("the receiver is gone"))?;
                asked += 1;
            }
            let Some(job) = waiting.pop_front() else {
                break;
            };
            let path = &job.path;
            asked -= 1;
            let rows = match listing_from(|| self.owners.next_message()) {
                Ok(rows) => rows,
                Err(ReconcileError::Unlisted(text)) => {
                    self.unreadable(path, &format!("on the target: {text}"));
                    continue;
                }
                Err(error) => return Err(DaemonError::failed(format!("cannot verify {path}: {error}"))),
            };
            self.compare_directory(&job, rows, &mut waiting)?;
        }
        Ok(())
    }

    fn root_standing(&self) -> Result<Standing, DaemonError> {
        if self.filter.passes_everything() && !self.filter.one_file_system() {
            return Ok(Standing::Everything);
        }
        let mut files = TreeFiles::new(&self.root, None);
        let rules = self.filter.root(Role::Both, &mut files);
        rules
            .map(Standing::Rules)
            .map_err(|error| DaemonError::failed(error.to_string()))
    }

    /// The rules in a subdirectory, whichever side has it. `None`, and reported, if they can't be known.
    fn enter(&mut self, standing: &Standing, path: &RelPath, name: &Name) -> Option<Standing> {
        let Standing::Rules(rules) = standing else {
            return Some(standing.clone());
        };
        match rules.enter(name, &mut TreeFiles::new(&self.root, None)) {
            Ok(rules) => Some(Standing::Rules(rules)),
            Err(error) => {
                self.unreadable(path, &error.to_string());
                None
            }
        }
    }

    fn compare_directory(
        &mut self,
        job: &Job,
        rows: Vec<Row>,
        waiting: &mut VecDeque<Job>,
    ) -> Result<(), DaemonError> {
        let Job { path, standing, .. } = job;
        let Some(directory) = &job.directory else {
            self.judge_extras(job, only_theirs(rows), waiting);
            return Ok(());
        };
        let listing = match directory.list() {
            Ok(listing) => listing,
            Err(error) => {
                self.unreadable(path, &error.to_string());
                return Ok(());
            }
        };
        if self.carried.owner {
            let owners = listing.entries.iter();
            let owners = owners.flat_map(|(_, stat)| owner_keys(&stat.attributes));
            self.owners.learn(owners)?;
        }
        let mut theirs: BTreeMap<Name, Row> = rows.into_iter().map(|row| (row.name.clone(), row)).collect();
        for (name, error) in &listing.problems {
            if let Ok(name) = Name::new(name.as_slice()) {
                theirs.remove(&name);
            }
            self.unreadable(path, &error.to_string());
        }
        for (name, stat) in listing.entries {
            let Some(kind) = kind_of(stat.file_type) else {
                continue;
            };
            if let Standing::Rules(rules) = standing {
                if kind == Kind::File && !self.filter.admits_size(stat.size) {
                    // Whatever the target has of it stays.
                    theirs.remove(&name);
                    continue;
                }
                if !rules.verdict(&name, kind).transfer {
                    continue;
                }
            }
            let path = path.join(&name);
            self.report.compared += 1;
            match theirs.remove(&name) {
                None => self.differs(&path, "missing on the target"),
                Some(row) if row.kind != kind => self.differs(&path, "of another type on the target"),
                Some(row) => {
                    self.compare_entry(&path, directory, &name, kind, &stat, &row);
                    let is_cut = self.filter.one_file_system() && stat.stamp.device != self.device;
                    if kind == Kind::Directory
                        && !is_cut
                        && let Some(standing) = self.enter(standing, &path, &name)
                    {
                        match directory.open_dir(&name) {
                            Ok(inner) => waiting.push_back(Job {
                                path,
                                directory: Some(Arc::new(inner)),
                                standing,
                            }),
                            Err(error) => self.unreadable(&path, &error.to_string()),
                        }
                    }
                }
            }
        }
        self.judge_extras(job, only_theirs(theirs.into_values()), waiting);
        Ok(())
    }

    /// Reports what the target has too much of. A filter may want some of it to stay, and the directories around that.
    fn judge_extras(
        &mut self,
        job: &Job,
        theirs: impl Iterator<Item = (Name, Kind)>,
        waiting: &mut VecDeque<Job>,
    ) {
        for (name, kind) in theirs {
            let path = job.path.join(&name);
            if fate_by(&job.standing, &name, kind, job.directory.is_none()) == Fate::Kept {
                let shown = path.to_bytes();
                for (end, _) in shown.iter().enumerate().filter(|&(_, &byte)| byte == b'/') {
                    self.only_there.remove(&shown[..end]);
                }
            } else if kind == Kind::Directory && self.filter.may_protect() {
                self.only_there.insert(path.to_bytes());
                if let Some(standing) = self.enter(&job.standing, &path, &name) {
                    waiting.push_back(Job {
                        path,
                        directory: None,
                        standing,
                    });
                }
            } else {
                self.differs(&path, "only on the target");
            }
        }
    }

    fn tell_only_there(&mut self) {
        for path in std::mem::take(&mut self.only_there) {
            if let Ok(path) = RelPath::parse(&path) {
                self.differs(&path, "only on the target");
            }
        }
    }

    fn compare_entry(
        &mut self,
        path: &RelPath,
        directory: &Directory,
        name: &Name,
        kind: Kind,
        stat: &Stat,
        row: &Row,
    ) {
        if let Some(what) = self.compare_links(stat, kind, row.attributes.link_group) {
            self.differs(path, what);
        }
        match content(directory, name, kind, stat) {
            Ok(digest) => {
                self.report.bytes += stat.size;
                if digest != row.digest {
                    let what = if row.digest.is_none() {
                        "unreadable on the target"
                    } else {
                        "content"
                    };
                    self.differs(path, what);
                }
            }
            Err(error) => self.unreadable(path, &error),
        }
        let mut ours = stat.attributes;
        if !self.carried.xattrs.is_empty() {
            match directory.xattrs(name, self.carried.xattrs) {
                Ok(found) => match self.xattrs_there(&found.xattrs) {
                    Ok(digest) => ours.xattrs = digest,
                    Err(error) => self.unreadable(path, &error),
                },
                Err(error) => self.unreadable(path, &error.to_string()),
            }
        }
        if self.carried.owner {
            match self.owners.there(&ours) {
                Ok(there) => (ours.uid, ours.gid) = (there.uid, there.gid),
                Err(error) => self.differs(path, &error.to_string()),
            }
        }
        if let Some(what) = differing(ours.carried(self.carried), row.attributes.carried(self.carried)) {
            self.differs(path, &what);
        }
    }

    /// The digest of extended attributes as they should be on the target.
    fn xattrs_there(&mut self, xattrs: &Xattrs) -> Result<Option<Digest>, String> {
        if !self.carried.owner {
            return Ok(xattrs.digest());
        }
        let learnt = self.owners.learn(acl_owners(xattrs).into_iter());
        learnt.map_err(|error| error.to_string())?;
        let there = self.owners.xattrs_there(xattrs);
        there.map_err(|error| error.to_string())
    }

    /// Whether names of one object here are names of one object there, and of others are not.
    fn compare_links(&mut self, stat: &Stat, kind: Kind, there: ObjectId) -> Option<&'static str> {
        if kind == Kind::Directory || (stat.links < 2 && there == ObjectId(0)) {
            return None;
        }
        let here = (stat.stamp.device, stat.stamp.inode);
        let is_shared = there != ObjectId(0);
        if self
            .links
            .insert(here, there)
            .is_some_and(|other| !is_shared || other != there)
        {
            return Some("not a link to the same file as here");
        }
        let first = *self.linked_there.entry(there).or_insert(here);
        (is_shared && first != here).then_some("a link to a file that is another one here")
    }

    fn differs(&mut self, path: &RelPath, what: &str) {
        self.report.differences.push(Difference {
            path: path.to_string(),
            what: what.to_owned(),
        });
    }

    fn unreadable(&mut self, path: &RelPath, error: &str) {
        self.report.unreadable.push(FailedEntry {
            path: path.to_string(),
            error: error.to_owned(),
        });
    }
}

/// What the target should not have. A receiver marks its backups as its own.
fn only_theirs(rows: impl IntoIterator<Item = Row>) -> impl Iterator<Item = (Name, Kind)> {
    let rows = rows.into_iter().filter(|row| !row.object.is_local());
    rows.map(|row| (row.name, row.kind))
}

fn content(directory: &Directory, name: &Name, kind: Kind, stat: &Stat) -> Result<Option<Digest>, String> {
    let text = |error: FsError| error.to_string();
    match kind {
        Kind::Directory => Ok(None),
        Kind::Symlink | Kind::Fifo | Kind::CharDevice | Kind::BlockDevice => {
            cheap_digest(directory, name, stat).map_err(text)
        }
        Kind::File => {
            let (file, _) = directory.open_file(name).map_err(text)?;
            digest_of(&file)
                .map(Some)
                .map_err(|error| format!("cannot read {name}: {error}"))
        }
    }
}

/// Which attributes differ, in words.
fn differing(ours: Attributes, theirs: Attributes) -> Option<String> {
    let mut what = Vec::new();
    if ours.mode != theirs.mode {
        what.push(format!("mode {:04o} here, {:04o} there", ours.mode, theirs.mode));
    }
    if (ours.uid, ours.gid) != (theirs.uid, theirs.gid) {
        what.push(format!(
            "owner {}:{} wanted, {}:{} there",
            ours.uid, ours.gid, theirs.uid, theirs.gid
        ));
    }
    if ours.mtime != theirs.mtime {
        what.push("time of modification".to_owned());
    }
    if ours.xattrs != theirs.xattrs {
        what.push("extended attributes".to_owned());
    }
    (!what.is_empty()).then(|| what.join(", "))
}
