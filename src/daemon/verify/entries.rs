//! A directory of both sides, compared entry by entry.

use super::*;

/// A directory that is to be compared.
pub(super) struct Job {
    pub(super) path: RelPath,
    pub(super) place: Place,
    pub(super) standing: Standing,
}

/// Where a directory is here.
pub(super) enum Place {
    Root,
    /// In this one. It is opened when its turn comes: there can be more of them than descriptors.
    In(Arc<Directory>, Name),
    /// Only the target has it: it is looked through for what has to go there.
    Nowhere,
}

impl Verifier<'_> {
    pub(super) fn root_standing(&self) -> Result<Standing, DaemonError> {
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
        let entered = standing.enter(name, &self.root);
        entered
            .map_err(|error| self.unreadable(path, &error.to_string()))
            .ok()
    }

    pub(super) fn compare_directory(
        &mut self,
        job: &Job,
        rows: Vec<Row>,
        stack: &mut Vec<Job>,
    ) -> Result<(), DaemonError> {
        let Job {
            path,
            standing,
            place,
        } = job;
        let opened = match place {
            Place::Nowhere => {
                self.judge_extras(job, only_theirs(rows), stack);
                return Ok(());
            }
            Place::Root => Ok(self.root.clone()),
            Place::In(parent, name) => parent.open_dir(name).map(Arc::new),
        };
        let listed = opened.and_then(|directory| Ok((directory.list()?, directory)));
        let (listing, directory) = match listed {
            Ok(found) => found,
            Err(error) => {
                self.unreadable(path, &error.to_string());
                return Ok(());
            }
        };
        if self.carried.owner {
            let owners = listing.entries.iter();
            let owners = owners.flat_map(|(_, stat)| owner_keys(&stat.attributes));
            self.learn_owners(owners)?;
        }
        let mut theirs: BTreeMap<Name, Row> = rows.into_iter().map(|row| (row.name.clone(), row)).collect();
        for (name, error) in &listing.problems {
            if let Ok(name) = Name::new(name.as_slice()) {
                theirs.remove(&name);
            }
            self.unreadable(path, &error.to_string());
        }
        let mut gathered = Gathering::default();
        for (name, stat) in listing.entries {
            if self.is_stopped() {
                return Ok(());
            }
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
            let entry = path.join(&name);
            let row = theirs.remove(&name);
            let is_there = row.as_ref().is_some_and(|row| row.kind == kind);
            if !self.is_done(path, &name) {
                gathered.entries += 1;
                if self.compare_entry(&entry, &directory, &name, &stat, row.as_ref())? {
                    gathered.bytes = gathered.bytes.saturating_add(stat.size);
                    gathered.files.push((name.clone(), stat));
                }
            }
            let is_cut = self.filter.one_file_system() && stat.stamp.device != self.device;
            if kind == Kind::Directory
                && is_there
                && !is_cut
                && !self.is_below_done(path, &name)
                && let Some(standing) = self.enter(standing, &entry, &name)
            {
                stack.push(Job {
                    path: entry,
                    place: Place::In(directory.clone(), name.clone()),
                    standing,
                });
            }
            let is_full = gathered.files.len() >= BATCH_FILES_MAX || gathered.bytes >= BATCH_BYTES_MAX;
            if is_full || gathered.entries >= BATCH_ENTRIES_MAX as u64 {
                let position = Position {
                    directory: path.clone(),
                    done: Done::through(&name),
                };
                self.flush(&mut gathered, &directory, position)?;
            }
        }
        self.judge_extras(job, only_theirs(theirs.into_values()), stack);
        if matches!(self.resume.share(path), Share::From(_)) {
            return Ok(());
        }
        let position = Position {
            directory: path.clone(),
            done: Done::All,
        };
        self.flush(&mut gathered, &directory, position)
    }

    /// Whether an earlier run compared an entry itself.
    fn is_done(&self, directory: &RelPath, name: &Name) -> bool {
        match self.resume.share(directory) {
            Share::Whole => false,
            Share::Rest(done) => done.covers(name),
            Share::From(_) => true,
        }
    }

    /// Whether an earlier run compared everything below a directory.
    fn is_below_done(&self, parent: &RelPath, name: &Name) -> bool {
        matches!(self.resume.share(parent), Share::From(next) if name < next)
    }

    /// Notes what the target has too much of. A filter may want some of it to stay, and the directories around that.
    fn judge_extras(&mut self, job: &Job, theirs: impl Iterator<Item = (Name, Kind)>, stack: &mut Vec<Job>) {
        let is_only_there = matches!(job.place, Place::Nowhere);
        for (name, kind) in theirs {
            if self.is_below_done(&job.path, &name) {
                continue;
            }
            let path = job.path.join(&name);
            if fate_by(&job.standing, &name, kind, is_only_there) == Fate::Kept {
                let shown = path.to_bytes();
                for (end, _) in shown.iter().enumerate().filter(|&(_, &byte)| byte == b'/') {
                    self.progress.only_there.remove(&shown[..end]);
                }
            } else if kind == Kind::Directory && self.filter.may_protect() {
                if !self.is_done(&job.path, &name) {
                    self.progress.only_there.insert(path.to_bytes());
                }
                if let Some(standing) = self.enter(&job.standing, &path, &name) {
                    stack.push(Job {
                        path,
                        place: Place::Nowhere,
                        standing,
                    });
                }
            } else {
                self.differs(&path, ONLY_THERE);
            }
        }
    }

    /// Compares everything of an entry but the content of a file; whether that is to be compared, too.
    pub(super) fn compare_entry(
        &mut self,
        path: &RelPath,
        directory: &Directory,
        name: &Name,
        stat: &Stat,
        row: Option<&Row>,
    ) -> Result<bool, DaemonError> {
        let Some(kind) = kind_of(stat.file_type) else {
            return Ok(false);
        };
        let Some(row) = row else {
            self.differs(path, MISSING);
            return Ok(false);
        };
        if row.kind != kind {
            self.differs(path, "of another type on the target");
            return Ok(false);
        }
        if let Some(what) = self.compare_links(stat, kind, row.attributes.link_group) {
            self.differs(path, what);
        }
        if !matches!(kind, Kind::File | Kind::Directory) {
            match cheap_digest(directory, name, stat) {
                Ok(digest) if digest == row.digest => {}
                Ok(_) if row.digest.is_none() => self.differs(path, "unreadable on the target"),
                Ok(_) => self.differs(path, "content"),
                Err(error) => self.unreadable(path, &error.to_string()),
            }
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
        Ok(kind == Kind::File)
    }

    /// The digest of extended attributes as they should be on the target.
    pub(super) fn xattrs_there(&mut self, xattrs: &Xattrs) -> Result<Option<Digest>, String> {
        if !self.carried.owner {
            return Ok(xattrs.digest());
        }
        let learnt = self.learn_owners(acl_owners(xattrs).into_iter());
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
}

/// What the target should not have. A receiver marks its backups as its own.
fn only_theirs(rows: impl IntoIterator<Item = Row>) -> impl Iterator<Item = (Name, Kind)> {
    let rows = rows.into_iter().filter(|row| !row.object.is_local());
    rows.map(|row| (row.name, row.kind))
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
