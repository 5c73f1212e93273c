//! A dry run that follows: what a sender would do about each change, while the target stays as it is.

use super::far::Far;
use super::{FarEnd, Job, Survey, SurveyReport, walk_all};
use crate::daemon::sender::{Changed, watch};
use crate::daemon::{DaemonError, Deletes, Observer, SenderOptions, Stop};
use crate::engine::itemize::{Change, Differences, Item};
use crate::fs::Directory;
use driftless_protocol::RelPath;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Hands on what a run would change, and then what each change would make of that, until asked to stop. An entry that is as the
/// target has it again is told as an update without differences. `home` of the options is for this alone.
pub fn follow(
    options: &SenderOptions,
    decisions: &SenderOptions,
    end: FarEnd<'_>,
    observer: Arc<dyn Observer>,
    stop: &Stop,
    on_item: &mut dyn FnMut(Item),
    on_begin: &mut dyn FnMut(&SurveyReport),
) -> Result<(), DaemonError> {
    if matches!(options.deletes, Deletes::Startup | Deletes::Running) {
        return Err(DaemonError::Usage(
            "a dry run that follows cannot tell what was there before (use `--delete always` or `never`)"
                .to_owned(),
        ));
    }
    let failed = |error: &dyn std::fmt::Display| DaemonError::failed(error.to_string());
    let root = Directory::open_root(&options.source).map_err(|error| failed(&error))?;
    let root = Arc::new(root.with_view(options.view()));
    let far = std::cell::RefCell::new(Far::open(options, &root, end)?);
    let told = std::cell::RefCell::new(Told::default());
    let on_item = std::cell::RefCell::new(on_item);
    let outcome = watch(
        options,
        observer,
        stop,
        &mut || {
            let mut items = Vec::new();
            let there = Some(HashSet::new());
            let (report, there) = walk_all(decisions, &mut far.borrow_mut(), &root, there, &mut |item| {
                items.push(item);
            })?;
            if let Some(refusal) = &report.refusal {
                return Err(DaemonError::failed(refusal));
            }
            let mut told = told.borrow_mut();
            told.there = there;
            for item in items {
                told.tell(item, &mut **on_item.borrow_mut());
            }
            on_begin(&report);
            Ok(())
        },
        &mut |changed| {
            let mut told = told.borrow_mut();
            let items = look_at(decisions, &mut far.borrow_mut(), &root, changed, &told.there)?;
            told.take_over(changed, items, &mut **on_item.borrow_mut());
            Ok(())
        },
    );
    far.into_inner().close();
    outcome
}

/// What was told, so that it is not told again.
#[derive(Debug, Default)]
struct Told {
    items: HashMap<Vec<u8>, Item>,
    /// Directories that the target has.
    there: HashSet<Vec<u8>>,
}

impl Told {
    fn tell(&mut self, item: Item, on_item: &mut dyn FnMut(Item)) {
        if self.items.get(&item.path) != Some(&item) {
            self.items.insert(item.path.clone(), item.clone());
            on_item(item);
        }
    }

    /// Takes what was found in some directories in the place of what was told of them.
    fn take_over(&mut self, changed: &Changed, items: Vec<Item>, on_item: &mut dyn FnMut(Item)) {
        let found: HashSet<Vec<u8>> = items.iter().map(|item| item.path.clone()).collect();
        let mut settled: Vec<_> = self
            .items
            .keys()
            .filter(|path| is_covered(path, changed) && !found.contains(*path))
            .cloned()
            .collect();
        settled.sort();
        for path in settled {
            if let Some(item) = self.items.remove(&path) {
                let change = Change::Update(Differences::default());
                on_item(Item { change, ..item });
            }
        }
        for item in items {
            self.tell(item, on_item);
        }
    }
}

/// Whether an entry was looked at with these directories.
fn is_covered(path: &[u8], changed: &Changed) -> bool {
    let Ok(path) = RelPath::parse(path) else {
        return false;
    };
    let names = path.names();
    let above = |length: usize| RelPath::from_names(names[..length].to_vec()).ok();
    if names.is_empty() {
        return changed.contains_key(&path);
    }
    (0..names.len()).any(|length| {
        let is_parent = length + 1 == names.len();
        above(length).is_some_and(|above| changed.get(&above).is_some_and(|&is_deep| is_parent || is_deep))
    })
}

/// What would be done in some directories.
fn look_at(
    options: &SenderOptions,
    far: &mut Far,
    root: &Arc<Directory>,
    changed: &Changed,
    there: &HashSet<Vec<u8>>,
) -> Result<Vec<Item>, DaemonError> {
    let mut items = Vec::new();
    let mut take = |item| items.push(item);
    let mut survey = Survey::new(options, far, root.clone(), &mut take)?;
    for (path, &is_deep) in changed {
        survey.look_at(path, is_deep, there)?;
    }
    for item in std::mem::take(&mut survey.deletions) {
        (survey.on_item)(item);
    }
    Ok(items)
}

impl Survey<'_> {
    /// Looks at one directory, and at all below it if that is wanted. One that is gone is told where its name stood.
    fn look_at(
        &mut self,
        path: &RelPath,
        is_deep: bool,
        there: &HashSet<Vec<u8>>,
    ) -> Result<(), DaemonError> {
        let mut directory = self.root.clone();
        let mut standing = self.root_standing()?;
        let mut at = RelPath::root();
        for name in path.names() {
            at = at.join(name);
            let Some(inner) = self.enter(&standing, &at, name) else {
                return Ok(());
            };
            standing = inner;
            directory = match directory.open_dir(name) {
                Ok(inner) => Arc::new(inner),
                Err(_) => return Ok(()),
            };
        }
        let is_there = |path: &RelPath| there.contains(&path.to_bytes());
        if path.is_root() {
            let stat = directory.stat_self();
            let stat = stat.map_err(|error| DaemonError::failed(error.to_string()))?;
            if let Some(item) = self.root_item(&stat)? {
                self.emit(item);
            }
        }
        let mut jobs = vec![Job {
            path: path.clone(),
            above: directory,
            name: None,
            standing,
            is_there: is_there(path),
            item: None,
        }];
        while let Some(job) = jobs.pop() {
            if let Some(item) = job.item.clone() {
                self.emit(item);
            }
            let is_top = job.name.is_none();
            // What is in a directory that the target lacks was all told with it, or will be.
            if !is_top && !is_deep {
                continue;
            }
            let directory = match &job.name {
                None => job.above.clone(),
                Some(name) => match job.above.open_dir(name) {
                    Ok(inner) => Arc::new(inner),
                    Err(_) => continue,
                },
            };
            if let Some(rows) = self.rows(&job)? {
                let inner = self.compare_directory(&job, &directory, rows)?;
                jobs.extend(inner.into_iter().rev());
            }
        }
        Ok(())
    }
}
