//! The same question, put to our filter.

use crate::generate::Case;
use crate::{Answer, Outcome};
use driftless::engine::filter::{
    Deletion, DirRules, Filter, FilterBuilder, FilterError, ReadFault, Role, RuleFiles,
};
use driftless_protocol::{Kind, Name};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

struct OnDisk(PathBuf);

fn read(path: &Path) -> Result<Option<Vec<u8>>, ReadFault> {
    match fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.kind().into()),
    }
}

impl RuleFiles for OnDisk {
    fn named(&mut self, path: &[u8]) -> Result<Option<Vec<u8>>, ReadFault> {
        read(Path::new(OsStr::from_bytes(path)))
    }

    fn in_tree(&mut self, directory: &[u8], name: &[u8]) -> Result<Option<Vec<u8>>, ReadFault> {
        read(
            &self
                .0
                .join(OsStr::from_bytes(directory))
                .join(OsStr::from_bytes(name)),
        )
    }

    fn above_tree(&mut self, path: &[u8]) -> Result<Option<Vec<u8>>, ReadFault> {
        read(Path::new(OsStr::from_bytes(path)))
    }
}

/// One side: its filter and its files.
struct Side {
    filter: Filter,
    files: OnDisk,
}

pub fn answer(case: &Case) -> Outcome {
    let side = |root: &Path| {
        let mut files = OnDisk(root.to_owned());
        let filter = build(case, root, &mut files)?;
        Ok::<_, FilterError>(Side { filter, files })
    };
    let (mut source, mut target) = (side(&case.source).ok()?, side(&case.target).ok()?);
    let mut answer = Answer::default();
    let rules = source.filter.root(Role::Source, &mut source.files).ok()?;
    source.walk(&rules, &mut answer.sent).ok()?;
    let rules = target.filter.root(Role::Target, &mut target.files).ok()?;
    target.delete_extras(&rules, &mut answer).ok()?;
    assert_eq!(
        source.filter.fingerprint(),
        target.filter.fingerprint(),
        "the same rules have the same fingerprint wherever the tree is"
    );
    Some(answer)
}

fn build(case: &Case, root: &Path, files: &mut OnDisk) -> Result<Filter, FilterError> {
    let mut builder = FilterBuilder::new(root.as_os_str().as_bytes());
    let is_set = |option: &str| case.arguments.iter().any(|argument| argument == option);
    builder
        .zeros(is_set("--from0"))
        .delete_excluded(is_set("--delete-excluded"));
    let home = read(&case.home.join(".cvsignore")).unwrap().unwrap_or_default();
    builder.cvs_lists(&home, case.cvsignore.as_deref().unwrap_or_default().as_bytes());
    for argument in &case.arguments {
        let text = argument.as_bytes();
        let value = |option: &str| text.strip_prefix(option.as_bytes());
        if let Some(pattern) = value("--exclude=") {
            builder.exclude(pattern)?;
        } else if let Some(pattern) = value("--include=") {
            builder.include(pattern)?;
        } else if let Some(rule) = value("--filter=") {
            builder.filter(rule, files)?;
        } else if let Some(path) = value("--exclude-from=") {
            builder.exclude_from(path, files)?;
        } else if let Some(path) = value("--include-from=") {
            builder.include_from(path, files)?;
        } else if text == b"-F" {
            builder.dir_filters()?;
        } else if text == b"-C" {
            builder.cvs_exclude();
        }
    }
    builder.build()
}

fn list(directory: &Path) -> BTreeMap<Name, Kind> {
    fs::read_dir(directory)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let kind = match entry.file_type().unwrap().is_dir() {
                true => Kind::Directory,
                false => Kind::File,
            };
            (Name::new(entry.file_name().as_bytes()).unwrap(), kind)
        })
        .collect()
}

/// A name as rsync prints it.
fn shown(rules: &DirRules, name: &Name, kind: Kind) -> Vec<u8> {
    let mut path = rules.path().to_vec();
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name.as_bytes());
    if kind == Kind::Directory {
        path.push(b'/');
    }
    path
}

impl Side {
    fn list(&self, rules: &DirRules) -> BTreeMap<Name, Kind> {
        list(&self.files.0.join(OsStr::from_bytes(rules.path())))
    }

    fn walk(&mut self, rules: &DirRules, sent: &mut BTreeSet<Vec<u8>>) -> Result<(), FilterError> {
        for (name, kind) in self.list(rules) {
            let verdict = rules.verdict(&name, kind);
            assert_eq!(verdict.descend, verdict.transfer && kind == Kind::Directory);
            if verdict.transfer {
                sent.insert(shown(rules, &name, kind));
            }
            if verdict.descend {
                let below = rules.enter(&name, &mut self.files)?;
                self.walk(&below, sent)?;
            }
        }
        Ok(())
    }

    /// In every directory that the source has, too, what the source did not send goes, unless it is protected.
    fn delete_extras(&mut self, rules: &DirRules, answer: &mut Answer) -> Result<(), FilterError> {
        for (name, kind) in self.list(rules) {
            let path = shown(rules, &name, kind);
            if !answer.sent.contains(&path) {
                let is_at_risk = rules.verdict(&name, kind).delete == Deletion::AtRisk;
                self.delete(rules, &name, kind, is_at_risk, answer)?;
            } else if kind == Kind::Directory {
                let below = rules.enter(&name, &mut self.files)?;
                self.delete_extras(&below, answer)?;
            }
        }
        Ok(())
    }

    /// Deletes an entry that is at risk, a directory with all below it that is; whether it is gone.
    fn delete(
        &mut self,
        rules: &DirRules,
        name: &Name,
        kind: Kind,
        is_at_risk: bool,
        answer: &mut Answer,
    ) -> Result<bool, FilterError> {
        if !is_at_risk {
            return Ok(false);
        }
        let path = shown(rules, name, kind);
        let mut is_empty = true;
        if kind == Kind::Directory {
            let below = rules.enter(name, &mut self.files)?;
            for (name, kind) in self.list(&below) {
                let is_at_risk = below.verdict_in_removed(&name, kind).delete == Deletion::AtRisk;
                is_empty &= self.delete(&below, &name, kind, is_at_risk, answer)?;
            }
        }
        match is_empty {
            true => answer.deleted.insert(path),
            false => answer.not_empty.insert(path),
        };
        Ok(is_empty)
    }
}
