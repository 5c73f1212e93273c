//! A place inside a tree for what lost its name there: `SHELF/TIME/PATH`, by renaming only.
//!
//! There is no index: where something stood is its path below the directory of a time, and when it came is that
//! directory's name. So a crash between any two calls leaves a shelf that is right, at most with an empty directory
//! too many, and `ls` and `mv` do what our own command does. Directories above what was shelved are made anew, open to
//! their owner only.

use super::directory::{Directory, RenameMode};
use super::error::{FsError, FsErrorKind, Result};
use super::stat::{FileType, Stat};
use driftless_protocol::name::Name;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use rustix::io::Errno;
use std::collections::HashMap;
use std::sync::Arc;

/// How long one directory of a time is used, in seconds.
const BATCH_SECONDS: u64 = 60;
/// Directories below that of a time which stay open.
const OPEN_MAX: usize = 64;
/// Directories of one second, and tries to find a free place.
const TRIES_MAX: u32 = 10_000;
const TIME_FORMAT: &str = "%Y%m%dT%H%M%SZ";

/// A shelf at the root of a tree.
#[derive(Debug)]
pub struct Shelf {
    root: Arc<Directory>,
    name: Name,
    batch: Option<Batch>,
}

/// The directory of a time that is in use.
#[derive(Debug)]
struct Batch {
    since: u64,
    label: Name,
    directory: Arc<Directory>,
    /// Directories below it, by path.
    inner: HashMap<Vec<Name>, Arc<Directory>>,
    /// A flush of some of it failed. Another one that succeeds would not say that everything is there.
    is_condemned: bool,
}

/// What was shelved within about a minute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShelfBatch {
    /// The name of its directory.
    pub label: Name,
    /// When it began, in unix seconds.
    pub time: u64,
}

/// Something on a shelf.
#[derive(Debug, Clone)]
pub struct Shelved {
    /// Where it stood, from the root of the tree.
    pub path: Vec<Name>,
    /// What it is.
    pub stat: Stat,
}

impl Shelf {
    /// The shelf of this name, which is one that driftless keeps for itself. It is made with the first thing put there.
    pub fn new(root: Arc<Directory>, name: &str) -> Shelf {
        #[expect(clippy::expect_used, reason = "a constant of the caller")]
        let name = Name::new(name.as_bytes()).expect("a shelf has a plain name");
        debug_assert!(name.is_reserved(), "a mirror would delete it");
        Shelf {
            root,
            name,
            batch: None,
        }
    }

    /// Moves `from/name`, which stood at `path` in the tree, to the shelf. `now` is in unix seconds. Answers where it is,
    /// from the root of the tree. Durable after [`Shelf::sync`], if the directory that it left is flushed, too.
    ///
    /// An error is about this one, unless [`Shelf::is_condemned`] then. Fails with [`FsErrorKind::CrossDevice`] if it is not on the file system of the root.
    pub fn put(&mut self, now: u64, from: &Directory, name: &Name, path: &[Name]) -> Result<Vec<Name>> {
        let Some((last, above)) = path.split_last() else {
            return Err(FsError::new("set aside", from.shown_name(name), Errno::INVAL));
        };
        for _ in 0..TRIES_MAX {
            let shelf = self.name.clone();
            let batch = self.batch(now)?;
            match batch.put(from, name, above, last) {
                Ok(()) => {
                    let label = batch.label.clone();
                    return Ok([shelf, label].into_iter().chain(path.iter().cloned()).collect());
                }
                // The place is taken, or somebody emptied the shelf.
                Err(error)
                    if matches!(
                        error.kind(),
                        FsErrorKind::Exists | FsErrorKind::Substituted | FsErrorKind::NotFound
                    ) =>
                {
                    if from.stat(name)?.is_none() {
                        return Err(error);
                    }
                    self.sync()?;
                    self.batch = None;
                }
                Err(error) => return Err(error),
            }
        }
        Err(FsError::new("set aside", from.shown_name(name), Errno::EXIST))
    }

    /// The directory of about now.
    fn batch(&mut self, now: u64) -> Result<&mut Batch> {
        let in_use = |batch: &Batch| (batch.since..batch.since + BATCH_SECONDS).contains(&now);
        if !self.batch.as_ref().is_some_and(in_use) {
            // Nobody will flush the one before any more.
            self.sync()?;
            let shelf = self.root.enter_or_make_unnoticed(&self.name)?;
            let (label, directory) = new_batch(&shelf, now)?;
            // The shelf and its root change rarely; what is in a batch is flushed by `sync`.
            let flushed = shelf.sync().and_then(|()| self.root.sync());
            self.batch = Some(Batch {
                since: now,
                label,
                directory: Arc::new(directory),
                inner: HashMap::new(),
                is_condemned: flushed.is_err(),
            });
            flushed?;
        }
        #[expect(clippy::expect_used, reason = "it was set above")]
        Ok(self.batch.as_mut().expect("there is one"))
    }

    /// Flushes what was put here, all of it. Once a flush has failed, every other one fails, too.
    pub fn sync(&mut self) -> Result<()> {
        self.batch.as_mut().map_or(Ok(()), Batch::sync)
    }

    /// Whether a flush has failed, so that nobody knows whether what was put here stays.
    pub fn is_condemned(&self) -> bool {
        self.batch.as_ref().is_some_and(|batch| batch.is_condemned)
    }

    /// What is there, oldest first.
    pub fn batches(&self) -> Result<Vec<ShelfBatch>> {
        let Some(shelf) = self.open()? else {
            return Ok(Vec::new());
        };
        let mut batches = Vec::new();
        for (label, stat) in shelf.list()?.entries {
            if let Some(time) = shelf_time(&label).filter(|_| stat.file_type == FileType::Directory) {
                batches.push(ShelfBatch { label, time });
            }
        }
        // By time, then by the number that follows it.
        batches.sort_by_cached_key(|batch| {
            (
                batch.time,
                batch.label.as_bytes().len(),
                batch.label.as_bytes().to_vec(),
            )
        });
        Ok(batches)
    }

    /// Calls `each` for everything in a batch that is no directory, and for empty directories, in the order of paths.
    /// Needs a descriptor for each level.
    pub fn for_each(&self, batch: &ShelfBatch, each: &mut dyn FnMut(Shelved) -> Result<()>) -> Result<()> {
        let Some(top) = self.open_batch(batch)? else {
            return Ok(());
        };
        let mut waiting = reversed(&Arc::new(top), &[])?;
        while let Some((parent, path, stat)) = waiting.pop() {
            if stat.file_type == FileType::Directory
                && let Some(name) = path.last()
            {
                let inner = reversed(&Arc::new(parent.open_dir(name)?), &path)?;
                if !inner.is_empty() {
                    waiting.extend(inner);
                    continue;
                }
            }
            each(Shelved { path, stat })?;
        }
        Ok(())
    }

    /// Moves what stood at `path` back from a batch to a name that is free. False if the batch does not hold it.
    pub fn take(&self, batch: &ShelfBatch, path: &[Name], to: &Directory, name: &Name) -> Result<bool> {
        let Some((directory, last)) = self.find(batch, path)? else {
            return Ok(false);
        };
        directory.rename(&last, to, name, RenameMode::NoReplace)?;
        to.sync()?;
        directory.sync()?;
        // Directories that hold nothing any more go, up to the shelf.
        for depth in (0..path.len()).rev() {
            let (above, name) = match depth {
                0 => (self.open()?, &batch.label),
                _ => (
                    self.find(batch, &path[..depth])?.map(|(above, _)| above),
                    &path[depth - 1],
                ),
            };
            match above {
                Some(above) if above.remove_dir(name).is_ok() => {}
                _ => break,
            }
        }
        Ok(true)
    }

    /// Whether a batch holds what stood at `path`, and what it is.
    pub fn look(&self, batch: &ShelfBatch, path: &[Name]) -> Result<Option<Stat>> {
        match self.find(batch, path)? {
            Some((directory, name)) => directory.stat(&name),
            None => Ok(None),
        }
    }

    /// The directory in which something is, and its name there; none if it is not there.
    fn find(&self, batch: &ShelfBatch, path: &[Name]) -> Result<Option<(Directory, Name)>> {
        let (Some(mut at), Some((last, above))) = (self.open_batch(batch)?, path.split_last()) else {
            return Ok(None);
        };
        for name in above {
            at = match at.open_dir(name) {
                Ok(inner) => inner,
                Err(error) if matches!(error.kind(), FsErrorKind::NotFound | FsErrorKind::Substituted) => {
                    return Ok(None);
                }
                Err(error) => return Err(error),
            };
        }
        Ok(at.stat(last)?.map(|_| (at, last.clone())))
    }

    /// Removes a batch for good; answers how many objects that were.
    pub fn discard(&self, batch: &ShelfBatch) -> Result<u64> {
        match self.open()? {
            Some(shelf) => shelf.remove_tree(&batch.label),
            None => Ok(0),
        }
    }

    /// Removes what came before `horizon`, in unix seconds. Answers how many objects went, and when the oldest that is
    /// left came.
    pub fn expire(&self, horizon: u64) -> Result<(u64, Option<u64>)> {
        let mut removed = 0;
        for batch in self.batches()? {
            // The last of a batch may have come as late as this.
            if batch.time + BATCH_SECONDS > horizon {
                return Ok((removed, Some(batch.time + BATCH_SECONDS)));
            }
            removed += self.discard(&batch)?;
        }
        Ok((removed, None))
    }

    fn open(&self) -> Result<Option<Directory>> {
        match self.root.open_dir(&self.name) {
            Ok(shelf) => Ok(Some(shelf)),
            Err(error) if error.kind() == FsErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn open_batch(&self, batch: &ShelfBatch) -> Result<Option<Directory>> {
        match self.open()?.map(|shelf| shelf.open_dir(&batch.label)) {
            Some(Err(error)) if error.kind() == FsErrorKind::NotFound => Ok(None),
            opened => opened.transpose(),
        }
    }
}

impl Batch {
    fn sync(&mut self) -> Result<()> {
        if self.is_condemned {
            return Err(self.directory.unflushed());
        }
        let mut all = self.inner.values().chain([&self.directory]);
        let flushed = all.try_for_each(|directory| directory.sync());
        self.is_condemned = flushed.is_err();
        flushed
    }

    fn put(&mut self, from: &Directory, name: &Name, above: &[Name], last: &Name) -> Result<()> {
        let directory = self.enter(above)?;
        match from.rename(name, &directory, last, RenameMode::NoReplace) {
            // What was in a directory may have come before it; then nothing but its place is left to be kept.
            Err(error) if error.kind() == FsErrorKind::Exists && from.remove_dir(name).is_ok() => Ok(()),
            outcome => outcome,
        }
    }

    /// The directory of a path below this, made as far as it is missing.
    fn enter(&mut self, path: &[Name]) -> Result<Arc<Directory>> {
        if let Some(known) = self.inner.get(path) {
            return Ok(known.clone());
        }
        let mut at = self.directory.clone();
        for (depth, name) in path.iter().enumerate() {
            at = match self.inner.get(&path[..=depth]) {
                Some(known) => known.clone(),
                None => {
                    let inner = Arc::new(at.enter_or_make(name)?);
                    if self.inner.len() >= OPEN_MAX {
                        self.sync()?;
                        self.inner.clear();
                    }
                    self.inner.insert(path[..=depth].to_vec(), inner.clone());
                    inner
                }
            };
        }
        Ok(at)
    }
}

impl Directory {
    /// Opens a directory, and makes it if nothing has its name.
    pub fn enter_or_make(&self, name: &Name) -> Result<Directory> {
        match self.open_dir(name) {
            Err(error) if error.kind() == FsErrorKind::NotFound => match self.make_dir(name) {
                Err(error) if error.kind() == FsErrorKind::Exists => self.open_dir(name),
                made => made,
            },
            opened => opened,
        }
    }

    /// As [`Directory::enter_or_make`], for what a mirror's own directories do not count: this one keeps its modification time,
    /// which is the source's.
    pub fn enter_or_make_unnoticed(&self, name: &Name) -> Result<Directory> {
        match self.open_dir(name) {
            Err(error) if error.kind() == FsErrorKind::NotFound => {
                let before = self.stat_self()?;
                let made = self.enter_or_make(name)?;
                self.set_self_mtime(before.attributes.mtime)?;
                Ok(made)
            }
            opened => opened,
        }
    }
}

/// A directory, the path of something in it, and what that is.
type Found = (Arc<Directory>, Vec<Name>, Stat);

/// What is in a directory, last name first.
fn reversed(directory: &Arc<Directory>, path: &[Name]) -> Result<Vec<Found>> {
    let entries = directory.list()?.entries;
    let below = |name: Name| path.iter().cloned().chain([name]).collect();
    let all = entries.into_iter().rev();
    Ok(all
        .map(|(name, stat)| (directory.clone(), below(name), stat))
        .collect())
}

/// When a batch began, in unix seconds, by the name of its directory.
pub fn shelf_time(label: &Name) -> Option<u64> {
    let text = std::str::from_utf8(label.as_bytes()).ok()?;
    let time = text.split_once('-').map_or(text, |(time, _)| time);
    let time = DateTime::strptime(TIME_FORMAT, time).ok()?;
    let time = time.to_zoned(TimeZone::UTC).ok()?;
    time.timestamp().as_second().try_into().ok()
}

fn new_batch(shelf: &Directory, now: u64) -> Result<(Name, Directory)> {
    let failed = |errno| FsError::new("set aside in", shelf.shown(), errno);
    let seconds = i64::try_from(now)
        .ok()
        .and_then(|now| Timestamp::from_second(now).ok());
    let time = seconds
        .ok_or_else(|| failed(Errno::OVERFLOW))?
        .strftime(TIME_FORMAT)
        .to_string();
    for number in 0..TRIES_MAX {
        let label = match number {
            0 => time.clone(),
            _ => format!("{time}-{number}"),
        };
        let label = Name::new(label.into_bytes()).map_err(|_| failed(Errno::INVAL))?;
        match shelf.make_dir(&label) {
            Ok(directory) => return Ok((label, directory)),
            Err(error) if error.kind() == FsErrorKind::Exists => {}
            Err(error) => return Err(error),
        }
    }
    Err(failed(Errno::EXIST))
}
