//! Removing whole trees.
//!
//! Iterative and by handles: no path is ever built, so neither depth nor links can lead astray. Only the deepest
//! [`OPEN_LEVELS`] directories stay open; further up, the way back leads through `..`, and the directory found there
//! is used only if it is the one that we came from.

use super::directory::Directory;
use super::error::{FsError, FsErrorKind, Result};
use super::private::{displaced_from, is_private};
use super::stat::{FileType, Stamp, stat_at};
use driftless_protocol::name::{Name, RESERVED_PREFIX};
use rustix::fs::FileType as EntryType;
use rustix::io::Errno;
use std::sync::Arc;

/// How many directories of the branch that is being removed stay open.
const OPEN_LEVELS: usize = 64;

impl Directory {
    /// Removes `name` and, if it is a directory, everything below it; answers how many objects went.
    ///
    /// Never follows a link, enters no mount point and no other file system ([`FsErrorKind::CrossDevice`]), and
    /// removes a directory only by the handle of the one it saw. Reserved names that are not private ones
    /// ([`is_private_name`](super::is_private_name)) stay, and with them the directories they are in. Goes on after
    /// an error and answers the first one.
    pub fn remove_tree(&self, name: &Name) -> Result<u64> {
        let there = self.on_disk(name.as_bytes());
        let stat = stat_at(self, &there).map_err(self.failed_at("remove", name))?;
        if stat.file_type != FileType::Directory {
            self.remove_file(name)?;
            return Ok(1);
        }
        let mut removal = Removal {
            removed: 0,
            first_error: None,
        };
        removal.run(self, name, stat.stamp);
        removal.first_error.map_or(Ok(removal.removed), Err)
    }

    /// Whether the directory `name` may leave its place with all that is in it; false if it holds something that was
    /// displaced. That a file system is mounted in it, or that it holds reserved names but those of temporaries, is an error.
    /// Needs a descriptor for each level.
    pub fn is_whole(&self, name: &Name) -> Result<bool> {
        let mut waiting = vec![Arc::new(self.open_dir_same_mount(name)?)];
        let mut names: Vec<(Arc<Directory>, Name)> = Vec::new();
        let mut is_whole = true;
        loop {
            while let Some(directory) = waiting.pop() {
                let (mut inner, mut kept) = (Vec::new(), None);
                directory.for_each_name(|bytes, entry_type| {
                    let Ok(name) = Name::new(bytes) else { return };
                    if bytes.starts_with(RESERVED_PREFIX) {
                        let is_displaced = displaced_from(&name).is_some();
                        is_whole &= !is_displaced;
                        let is_ours = is_private(bytes) || is_displaced;
                        kept = (!is_ours).then_some(name).or(kept.take());
                    } else if matches!(entry_type, EntryType::Directory | EntryType::Unknown) {
                        inner.push(name);
                    }
                })?;
                if let Some(name) = kept {
                    return Err(kept_name(&directory, &name));
                }
                names.extend(inner.into_iter().map(|name| (directory.clone(), name)));
            }
            let Some((parent, name)) = names.pop() else {
                return Ok(is_whole);
            };
            match parent.open_dir_same_mount(&name) {
                Ok(inner) => waiting.push(Arc::new(inner)),
                // What the listing could not tell the type of.
                Err(error) if matches!(error.kind(), FsErrorKind::NotFound | FsErrorKind::Substituted) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn kept_name(directory: &Directory, name: &Name) -> FsError {
    let error = FsError::new("remove", directory.shown_name(name), Errno::NOTEMPTY);
    error.explained(
        FsErrorKind::NotEmpty,
        "driftless keeps this name, perhaps for another module",
    )
}

struct Removal {
    removed: u64,
    first_error: Option<FsError>,
}

/// A directory on the branch from the top down to where we are.
struct Level {
    name: Name,
    stamp: Stamp,
    shown: String,
    /// Closed while we are far below.
    handle: Option<Directory>,
    /// Directories in it that are still to be removed.
    waiting: Vec<(Name, Stamp)>,
    /// Something in it could not be removed, so neither can it.
    stuck: bool,
}

impl Removal {
    fn run(&mut self, top: &Directory, name: &Name, stamp: Stamp) {
        let Some(first) = self.enter(top, name.clone(), stamp) else {
            return;
        };
        let mut branch = vec![first];
        while let Some(level) = branch.last_mut() {
            if let Some((name, stamp)) = level.waiting.pop() {
                let below = level
                    .handle
                    .as_ref()
                    .and_then(|handle| self.enter(handle, name, stamp));
                match below {
                    Some(below) => {
                        branch.push(below);
                        if let Some(far) = branch.len().checked_sub(OPEN_LEVELS + 1) {
                            branch[far].handle = None;
                        }
                    }
                    None => level.stuck = true,
                }
                continue;
            }
            let Some(done) = branch.pop() else { return };
            let parent = match branch.last_mut() {
                None => Some(top),
                Some(above) => {
                    above.stuck |= done.stuck;
                    if above.handle.is_none() {
                        above.handle = self.back_up(&done, above);
                    }
                    above.handle.as_ref()
                }
            };
            let gone = match parent {
                Some(parent) if !done.stuck => self.note(parent.remove_dir(&done.name)),
                Some(_) => false,
                // There is no way back to what is left above; nothing more can be done.
                None => return,
            };
            if let Some(above) = branch.last_mut() {
                above.stuck |= !gone;
            }
        }
    }

    /// Opens the directory that `done` was found in.
    fn back_up(&mut self, done: &Level, above: &Level) -> Option<Directory> {
        let parent = done.handle.as_ref()?.open_parent(above.shown.clone());
        let parent = parent.and_then(|parent| {
            if parent.stat_self()?.stamp.same_object(&above.stamp) {
                Ok(parent)
            } else {
                Err(FsError::substituted(
                    "remove",
                    done.shown.as_str(),
                    "it was moved elsewhere meanwhile",
                ))
            }
        });
        self.keep(parent)
    }

    /// Opens the directory `name`, removes what is no directory in it, and lists the rest.
    fn enter(&mut self, parent: &Directory, name: Name, stamp: Stamp) -> Option<Level> {
        // Below what is removed no name leads elsewhere: all that is on the disk goes.
        let opened = parent.open_dir_same_mount(&name).and_then(|handle| {
            let handle = handle.without_diversions();
            let now = handle.stat_self()?.stamp;
            if !now.same_object(&stamp) {
                return Err(FsError::substituted(
                    "remove",
                    handle.shown(),
                    "another directory took its place",
                ));
            }
            if now.device != parent.stat_self()?.stamp.device {
                let error = FsError::new("remove", handle.shown(), Errno::XDEV);
                return Err(error.explained(FsErrorKind::CrossDevice, "it is on another file system"));
            }
            let mut names = Vec::new();
            handle.for_each_name(|bytes, entry_type| names.push((Box::<[u8]>::from(bytes), entry_type)))?;
            Ok((handle, names))
        });
        let (handle, names) = self.keep(opened)?;
        let mut level = Level {
            name,
            stamp,
            shown: handle.shown().to_owned(),
            handle: None,
            waiting: Vec::new(),
            stuck: false,
        };
        for (bytes, entry_type) in names {
            let went = match Name::new(bytes) {
                Ok(name) if name.as_bytes().starts_with(RESERVED_PREFIX) && !is_private(name.as_bytes()) => {
                    self.note(Err(kept_name(&handle, &name)))
                }
                Ok(name) => self.remove_or_wait(&handle, name, entry_type, &mut level.waiting),
                Err(_) => self.note(Err(handle.failed("remove a name in")(Errno::NAMETOOLONG))),
            };
            level.stuck |= !went;
        }
        level.handle = Some(handle);
        Some(level)
    }

    fn remove_or_wait(
        &mut self,
        handle: &Directory,
        name: Name,
        entry_type: EntryType,
        waiting: &mut Vec<(Name, Stamp)>,
    ) -> bool {
        if !matches!(entry_type, EntryType::Directory | EntryType::Unknown) {
            return self.note(handle.remove_file(&name));
        }
        match handle.stat(&name) {
            Ok(Some(stat)) if stat.file_type == FileType::Directory => {
                waiting.push((name, stat.stamp));
                true
            }
            Ok(Some(_)) => self.note(handle.remove_file(&name)),
            Ok(None) => true,
            Err(error) => self.note(Err(error)),
        }
    }

    /// Counts a removal; whether the name is gone now.
    fn note(&mut self, result: Result<()>) -> bool {
        match result {
            Ok(()) => {
                self.removed += 1;
                true
            }
            Err(error) if error.kind() == FsErrorKind::NotFound => true,
            Err(error) => {
                self.first_error.get_or_insert(error);
                false
            }
        }
    }

    fn keep<T>(&mut self, result: Result<T>) -> Option<T> {
        result
            .inspect_err(|error| {
                self.first_error.get_or_insert_with(|| error.clone());
            })
            .ok()
    }
}
