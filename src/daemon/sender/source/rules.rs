//! The filter in the source tree: which rules hold in each directory, and what they say about its entries.
//!
//! Per-directory rule files are read through directory handles below the root, so no symbolic link leads out of the tree. What
//! was read is kept for each directory together with the stamps of its rule files: an event at one of them, or a listing
//! that shows another stamp, has the directory walked again under its new rules. A directory whose rules are not known
//! (a faulty or unreadable file) is left as it was: nothing of it is sent, nothing is deleted there.

use super::Source;
use crate::daemon::DaemonError;
use crate::engine::filter::{
    Deletion, DirRules, Filter, FilterError, RULE_FILE_BYTES_MAX, ReadFault, Role, RuleFiles,
};
use crate::fs::{Directory, FileType, FsError, FsErrorKind, Listing, ReadOutcome, Stamp, Stat, read_whole};
use crate::store::{CatalogRead, StoreError};
use driftless_protocol::message::Place;
use driftless_protocol::{Kind, Name, ObjectId};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

/// Directories whose rules are kept where there are no rule files, so that they are cheap to find again.
const KNOWN_MAX: usize = 65_536;
/// How often a rule file that is being written is read again before that counts as a read error.
const READ_TRIES: u32 = 3;

/// What holds for the entries of a directory.
#[derive(Debug, Clone)]
pub enum Standing {
    /// There is no filter: all of it is mirrored.
    Everything,
    /// These rules.
    Rules(DirRules),
    /// The rules are not known, or the directory is not.
    Unknown,
    /// It is on another file system, which is not entered: nothing is mirrored, and nothing deleted.
    Cut,
}

impl Standing {
    /// What holds in a subdirectory, whichever side has it; rule files are those of this root. Fails where they cannot be
    /// read.
    pub fn enter(&self, name: &Name, root: &Arc<Directory>) -> Result<Standing, FilterError> {
        match self {
            Standing::Rules(rules) => rules
                .enter(name, &mut TreeFiles::new(root, None))
                .map(Standing::Rules),
            other => Ok(other.clone()),
        }
    }
}

/// What becomes of an entry of the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// It is mirrored.
    In,
    /// It is left out.
    Out,
    /// Nobody knows: what the catalog has stays as it is.
    Unknown,
}

/// What becomes of an entry of the target that the source lacks or leaves out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It stays.
    Kept,
    /// A mirror that deletes removes it.
    AtRisk,
    /// Its directory is not in the catalog any more.
    Unknown,
}

/// The rules of a tree, as far as they were read.
#[derive(Debug)]
pub(super) struct Rules {
    filter: Filter,
    may_protect: bool,
    root: Arc<Directory>,
    /// The file system of the root.
    device: u64,
    known: HashMap<ObjectId, Known>,
    /// Some directory looks for rule files.
    has_files: bool,
    /// The names under which rule files were looked for.
    names: HashSet<Name>,
    /// Rule files that other directories than their own merge.
    elsewhere: HashSet<PlaceOnDisk>,
    /// The hash of each rule file that was found.
    hashes: BTreeMap<PlaceOnDisk, [u8; 32]>,
}

/// A directory's path from the root, and a name.
type PlaceOnDisk = (Vec<u8>, Vec<u8>);

#[derive(Debug)]
struct Known {
    standing: Standing,
    /// The rule files that were looked for in this directory.
    files: Vec<(Name, Option<Stamp>)>,
}

impl Rules {
    /// `None` if the filter lets everything pass.
    pub(super) fn new(filter: &Filter, root: &Arc<Directory>) -> Result<Option<Rules>, DaemonError> {
        if filter.passes_everything() && !filter.one_file_system() {
            return Ok(None);
        }
        let failed = |error: &dyn std::fmt::Display| DaemonError::failed(error.to_string());
        let device = root.stat_self().map_err(|error| failed(&error))?.stamp.device;
        let mut rules = Rules {
            filter: filter.clone(),
            may_protect: filter.may_protect(),
            root: root.clone(),
            device,
            known: HashMap::new(),
            has_files: false,
            names: HashSet::new(),
            elsewhere: HashSet::new(),
            hashes: BTreeMap::new(),
        };
        // Without the rules of the root nothing is known about anything.
        rules
            .enter_root()
            .map_err(|error| DaemonError::failed(format!("{error}: nothing was sent and nothing deleted")))?;
        Ok(Some(rules))
    }

    fn enter_root(&mut self) -> Result<Standing, FilterError> {
        let (filter, root) = (self.filter.clone(), self.root.clone());
        let mut files = TreeFiles::new(&root, Some((Vec::new(), root.clone())));
        let outcome = filter.root(Role::Both, &mut files);
        let (found, standing) = (files.found, outcome.as_ref().ok().cloned().map(Standing::Rules));
        self.keep(
            ObjectId::ROOT,
            b"",
            standing.clone().unwrap_or(Standing::Unknown),
            found,
        );
        outcome.map(Standing::Rules)
    }

    /// The rules in a subdirectory, which are kept.
    fn enter(
        &mut self,
        parent: &Standing,
        object: ObjectId,
        name: &Name,
        handle: Option<Arc<Directory>>,
    ) -> Result<Standing, FilterError> {
        let Standing::Rules(parent) = parent else {
            self.keep(object, b"", parent.clone(), Found::default());
            return Ok(parent.clone());
        };
        let Some(handle) = handle else {
            return Ok(Standing::Unknown);
        };
        if self.is_cut(&handle) {
            self.keep(object, b"", Standing::Cut, Found::default());
            return Ok(Standing::Cut);
        }
        let mut path = parent.path().to_vec();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name.as_bytes());
        let root = self.root.clone();
        let mut files = TreeFiles::new(&root, Some((path.clone(), handle)));
        let outcome = parent.enter(name, &mut files);
        let found = files.found;
        let standing = match &outcome {
            Ok(rules) => Standing::Rules(rules.clone()),
            Err(_) => Standing::Unknown,
        };
        self.keep(object, &path, standing.clone(), found);
        outcome.map(|_| standing)
    }

    fn is_cut(&self, handle: &Directory) -> bool {
        self.filter.one_file_system()
            && handle
                .stat_self()
                .is_ok_and(|stat| stat.stamp.device != self.device)
    }

    fn keep(&mut self, object: ObjectId, path: &[u8], standing: Standing, found: Found) {
        self.has_files |= !found.here.is_empty();
        if !self.has_files && self.known.len() >= KNOWN_MAX {
            self.known.clear();
        }
        self.names.extend(found.here.iter().map(|(name, _)| name.clone()));
        self.elsewhere.extend(found.elsewhere);
        for (name, _) in &found.here {
            self.hashes.remove(&(path.to_vec(), name.as_bytes().to_vec()));
        }
        self.hashes.extend(found.hashes);
        let files = found.here;
        self.known.insert(object, Known { standing, files });
    }

    /// Forgets the rules of a directory and of everything below it.
    fn forget(&mut self, object: ObjectId) {
        match self.known.get(&object).map(|known| known.standing.clone()) {
            Some(Standing::Rules(rules)) if object != ObjectId::ROOT => {
                let top = rules.path();
                self.known.retain(|_, known| match &known.standing {
                    Standing::Rules(rules) => {
                        let path = rules.path();
                        !(path.starts_with(top) && matches!(path.get(top.len()), None | Some(b'/')))
                    }
                    _ => false,
                });
            }
            _ => self.known.clear(),
        }
    }

    /// A directory is gone. Its number is not used again.
    pub(super) fn drop_directory(&mut self, object: ObjectId) {
        self.known.remove(&object);
    }

    /// Whether a rule file of a directory is not the one that was read.
    fn is_news(&self, directory: ObjectId, name: &Name, stat: Option<&Stat>) -> bool {
        if !self.has_files {
            return false;
        }
        let stamp = stat.map(|stat| stat.stamp);
        match self.known.get(&directory) {
            Some(known) => known
                .files
                .iter()
                .any(|(file, before)| file == name && *before != stamp),
            None => self.names.contains(name),
        }
    }

    /// Whether another directory's rules come from this name.
    fn is_merged_elsewhere(&self, directory: ObjectId, name: &Name) -> bool {
        if self.elsewhere.is_empty() {
            return false;
        }
        match self.known.get(&directory).map(|known| &known.standing) {
            Some(Standing::Rules(rules)) => {
                let place = (rules.path().to_vec(), name.as_bytes().to_vec());
                self.elsewhere.contains(&place)
            }
            _ => false,
        }
    }

    fn has_news(&self, directory: ObjectId, listing: &Listing) -> bool {
        let Some(known) = self.known.get(&directory).filter(|known| !known.files.is_empty()) else {
            return false;
        };
        known.files.iter().any(|(file, before)| {
            let found = listing.entries.iter().find(|(name, _)| name == file);
            found.map(|(_, stat)| stat.stamp) != *before
        })
    }
}

impl Source {
    /// What holds for the entries of a directory.
    pub fn standing(
        &mut self,
        catalog: &impl CatalogRead,
        directory: ObjectId,
    ) -> Result<Standing, StoreError> {
        let Some(rules) = &self.rules else {
            return Ok(Standing::Everything);
        };
        let mut climb = Vec::new();
        let mut at = directory;
        let mut standing = loop {
            if let Some(known) = rules.known.get(&at) {
                break Some(known.standing.clone());
            }
            if at == ObjectId::ROOT {
                break None;
            }
            let Some(entry) = catalog.get(at)?.filter(|_| climb.len() < 100_000) else {
                return Ok(Standing::Unknown);
            };
            at = entry.place.directory;
            climb.push((entry.object, entry.place.name));
        };
        if standing.is_none() {
            let entered = self.rules.as_mut().map(Rules::enter_root);
            standing = entered.map(|outcome| self.or_unknown(outcome));
        }
        let mut standing = standing.unwrap_or(Standing::Unknown);
        for (object, name) in climb.into_iter().rev() {
            let handle = self.directory(catalog, object)?;
            let Some(rules) = &mut self.rules else { break };
            let outcome = rules.enter(&standing, object, &name, handle);
            standing = self.or_unknown(outcome);
        }
        Ok(standing)
    }

    fn or_unknown(&mut self, outcome: Result<Standing, FilterError>) -> Standing {
        outcome.unwrap_or_else(|error| {
            self.warnings.push(format!(
                "{error}: until that is mended, nothing in this directory is sent or deleted"
            ));
            Standing::Unknown
        })
    }

    /// What holds in a directory that only the target has, below one with these rules. Rule files are those of the source,
    /// if it has any there.
    pub fn standing_of_extra(&mut self, parent: &Standing, name: &Name) -> Standing {
        let outcome = parent.enter(name, &self.root);
        self.or_unknown(outcome)
    }

    /// What becomes of an entry that only the target has.
    pub fn fate(
        &mut self,
        catalog: &impl CatalogRead,
        place: &Place,
        kind: Kind,
    ) -> Result<Fate, StoreError> {
        let standing = self.standing(catalog, place.directory)?;
        let fate = fate_by(&standing, &place.name, kind, false);
        let withholds = self
            .rules
            .as_ref()
            .is_some_and(|rules| rules.filter.has_size_limits());
        if fate == Fate::AtRisk
            && withholds
            && kind == Kind::File
            && let Some(handle) = self.directory(catalog, place.directory)?
        {
            // A file that is only too large or too small is still part of the mirror.
            let stat = handle.stat(&place.name);
            let is_gone = stat.is_ok_and(|stat| stat.is_none_or(|stat| stat.file_type != FileType::Regular));
            return Ok(if is_gone { Fate::AtRisk } else { Fate::Kept });
        }
        if fate == Fate::Kept && catalog.get(place.directory)?.is_none() {
            return Ok(Fate::Unknown);
        }
        Ok(fate)
    }

    /// Whether the filter may keep entries that only the target has, or the start does, or what was removed here is kept there, so that
    /// none may be removed or displaced unseen.
    pub fn may_protect(&self) -> bool {
        self.filter_may_protect() || self.start.is_some() || self.keeps_removed
    }

    /// Whether the filter may keep entries that only the target has.
    pub fn filter_may_protect(&self) -> bool {
        self.rules.as_ref().is_some_and(|rules| rules.may_protect)
    }

    /// A hash of all rules, those of the tree's rule files included.
    pub fn rules_print(&self) -> [u8; 32] {
        let Some(rules) = &self.rules else {
            return Filter::everything().fingerprint();
        };
        let mut hash = blake3::Hasher::new_derive_key("driftless 2026 rules in force 1");
        hash.update(&rules.filter.fingerprint());
        for ((directory, name), content) in &rules.hashes {
            hash.update(blake3::hash(directory).as_bytes());
            hash.update(blake3::hash(name).as_bytes());
            hash.update(content);
        }
        hash.finalize().into()
    }

    /// Whether an entry of the source is mirrored.
    pub(super) fn admission(&self, standing: &Standing, name: &Name, stat: &Stat) -> Admission {
        let (rules, filter) = match (standing, &self.rules) {
            (Standing::Everything, _) | (_, None) => return Admission::In,
            (Standing::Unknown, _) => return Admission::Unknown,
            (Standing::Cut, _) => return Admission::Out,
            (Standing::Rules(rules), Some(own)) => (rules, &own.filter),
        };
        // What is of no kind is counted as skipped, and goes no further.
        let Some(kind) = stat.file_type.kind() else {
            return Admission::In;
        };
        let fits = kind != Kind::File || filter.admits_size(stat.size);
        match fits && rules.verdict(name, kind).transfer {
            true => Admission::In,
            false => Admission::Out,
        }
    }

    /// Whether a directory is one that another file system is mounted on, and that is not entered therefore.
    pub(super) fn is_cut(&self, stat: &Stat) -> bool {
        self.rules.as_ref().is_some_and(|rules| {
            rules.filter.one_file_system()
                && stat.file_type == FileType::Directory
                && stat.stamp.device != rules.device
        })
    }

    /// Looks whether a name is that of a rule file with news. If so, answers the directory below which all rules have to be
    /// applied again.
    pub(super) fn take_rule_news(
        &mut self,
        directory: ObjectId,
        name: &Name,
        stat: Option<&Stat>,
    ) -> Option<ObjectId> {
        let rules = self.rules.as_mut()?;
        let top = if rules.is_merged_elsewhere(directory, name) {
            ObjectId::ROOT
        } else if rules.is_news(directory, name, stat) {
            directory
        } else {
            return None;
        };
        rules.forget(top);
        self.rules_changed = true;
        Some(top)
    }

    /// As [`Source::take_rule_news`], for all names of a directory.
    pub(super) fn take_listed_news(&mut self, directory: ObjectId, listing: &Listing) -> bool {
        let Some(rules) = &mut self.rules else {
            return false;
        };
        if !rules.has_news(directory, listing) {
            return false;
        }
        rules.forget(directory);
        self.rules_changed = true;
        true
    }

    /// A directory has another path now.
    pub(super) fn forget_rules(&mut self, directory: ObjectId) {
        if let Some(rules) = &mut self.rules {
            rules.forget(directory);
        }
    }
}

/// What rules say about an entry that only the target has; `in_removed`: in a directory that is being removed itself.
pub fn fate_by(standing: &Standing, name: &Name, kind: Kind, in_removed: bool) -> Fate {
    let rules = match standing {
        Standing::Everything => return Fate::AtRisk,
        Standing::Unknown | Standing::Cut => return Fate::Kept,
        Standing::Rules(rules) => rules,
    };
    let verdict = match in_removed {
        true => rules.verdict_in_removed(name, kind),
        false => rules.verdict(name, kind),
    };
    match verdict.delete {
        Deletion::Protected => Fate::Kept,
        Deletion::AtRisk => Fate::AtRisk,
    }
}

/// What was read for one directory.
#[derive(Debug, Default)]
struct Found {
    here: Vec<(Name, Option<Stamp>)>,
    elsewhere: Vec<PlaceOnDisk>,
    hashes: Vec<(PlaceOnDisk, [u8; 32])>,
}

/// Rule files of a tree.
pub struct TreeFiles<'a> {
    root: &'a Arc<Directory>,
    /// The directory that is being entered, which is open already.
    here: Option<(Vec<u8>, Arc<Directory>)>,
    found: Found,
}

impl<'a> TreeFiles<'a> {
    /// The files below a root.
    pub fn new(root: &'a Arc<Directory>, here: Option<(Vec<u8>, Arc<Directory>)>) -> TreeFiles<'a> {
        let found = Found::default();
        TreeFiles { root, here, found }
    }

    fn open(&self, path: &[u8]) -> Result<Option<Arc<Directory>>, ReadFault> {
        let mut directory = self.root.clone();
        for part in path.split(|&byte| byte == b'/').filter(|part| !part.is_empty()) {
            let Ok(name) = Name::new(part) else {
                return Ok(None);
            };
            directory = match directory.open_dir(&name) {
                Ok(next) => Arc::new(next),
                Err(error) if is_absent(&error) => return Ok(None),
                Err(error) => return Err(fault(&error)),
            };
        }
        Ok(Some(directory))
    }
}

impl RuleFiles for TreeFiles<'_> {
    fn named(&mut self, _path: &[u8]) -> Result<Option<Vec<u8>>, ReadFault> {
        Ok(None)
    }

    fn in_tree(&mut self, directory: &[u8], name: &[u8]) -> Result<Option<Vec<u8>>, ReadFault> {
        let Ok(name) = Name::new(name) else {
            return Ok(None);
        };
        let place = (directory.to_vec(), name.as_bytes().to_vec());
        let here = self.here.as_ref().filter(|(path, _)| path == directory);
        let handle = match here {
            Some((_, handle)) => {
                // Before the read: what comes after it shows as another stamp.
                let stamp = handle.stat(&name).ok().flatten().map(|stat| stat.stamp);
                self.found.here.push((name.clone(), stamp));
                handle.clone()
            }
            None => {
                self.found.elsewhere.push(place.clone());
                match self.open(directory)? {
                    Some(handle) => handle,
                    None => return Ok(None),
                }
            }
        };
        let content = read_rules(&handle, &name)?;
        if let Some(content) = &content {
            self.found.hashes.push((place, blake3::hash(content).into()));
        }
        Ok(content)
    }

    fn above_tree(&mut self, path: &[u8]) -> Result<Option<Vec<u8>>, ReadFault> {
        let read = |path: &Path| -> io::Result<Vec<u8>> {
            let file = File::open(path)?;
            if !file.metadata()?.is_file() {
                return Err(io::ErrorKind::IsADirectory.into());
            }
            let mut content = Vec::new();
            file.take(RULE_FILE_BYTES_MAX as u64 + 1)
                .read_to_end(&mut content)?;
            Ok(content)
        };
        match read(Path::new(OsStr::from_bytes(path))) {
            Ok(content) => Ok(Some(content)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.kind().into()),
        }
    }
}

fn read_rules(directory: &Directory, name: &Name) -> Result<Option<Vec<u8>>, ReadFault> {
    for _ in 0..READ_TRIES {
        match read_whole(directory, name, RULE_FILE_BYTES_MAX) {
            Ok(ReadOutcome::Content(content, _)) => return Ok(Some(content)),
            // The filter says what is wrong with that many bytes.
            Ok(ReadOutcome::TooLarge(_)) => return Ok(Some(vec![0; RULE_FILE_BYTES_MAX + 1])),
            Ok(ReadOutcome::Moved) => {}
            Err(error) if error.kind() == FsErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(fault(&error)),
        }
    }
    Err(ReadFault::Failed)
}

/// No such directory, or something else by that name.
fn is_absent(error: &FsError) -> bool {
    matches!(error.kind(), FsErrorKind::NotFound | FsErrorKind::Substituted)
}

fn fault(error: &FsError) -> ReadFault {
    match error.kind() {
        FsErrorKind::Permission => ReadFault::Denied,
        FsErrorKind::Substituted => ReadFault::NotAFile,
        _ => ReadFault::Failed,
    }
}
