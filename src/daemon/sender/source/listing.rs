//! Directories are listed on threads of their own, and what they hold is compared with the catalog.

use super::rules::{Admission, Standing};
use super::{Look, Reach, Source, is_unchanged, stamp_of};
use crate::daemon::ledger::flags;
use crate::fs::{Directory, FoundXattrs, FsError, Listing, Stat};
use crate::store::{CatalogRead, Children, Entry, StoreError, Tables};
use crate::watch::{WatchError, Watcher};
use crossbeam_channel::unbounded;
use driftless_protocol::{Kind, Name, ObjectId, XattrClasses};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

const LISTING_THREADS: usize = 2;
/// Directories that are being listed, or wait for a thread that lists them.
const LISTINGS_MAX: usize = 8;

/// Of the extended attributes of a directory's entries that are read along with it: the rest are read one by one. So many entries,
const XATTR_ENTRIES_MAX: usize = 65_536;
/// and so many bytes.
const XATTR_BYTES_MAX: usize = if cfg!(test) { 64 } else { 1 << 20 };

/// In a simulation one, so that they are looked at in the same order each time.
fn listings_max() -> usize {
    #[cfg(test)]
    if crate::daemon::simulation::is_here() {
        return 1;
    }
    LISTINGS_MAX
}

/// A directory that a thread is to watch and to list.
struct Job {
    directory: ObjectId,
    handle: Arc<Directory>,
    /// Of which classes it reads the extended attributes of the entries: where they are new, each will be asked for.
    classes: XattrClasses,
}

/// What it found.
pub(super) struct Listed {
    directory: ObjectId,
    handle: Arc<Directory>,
    listing: Result<ListedEntries, FsError>,
    unwatched: Option<WatchError>,
}

struct ListedEntries {
    /// The directory's own, from after it was watched.
    stat: Stat,
    listing: Listing,
    /// Of the first entries.
    xattrs: Vec<Result<FoundXattrs, FsError>>,
}

impl Source {
    /// Watches and lists directories on several threads, and everything that turns up below them.
    pub(super) fn enter_directories(
        &mut self,
        t: &mut Tables<'_>,
        look: &mut Look,
    ) -> Result<(), StoreError> {
        if look.enter.is_empty() {
            return Ok(());
        }
        look.is_untold = true;
        let (jobs, job_queue) = unbounded::<Job>();
        let (results, result_queue) = unbounded::<Listed>();
        let watcher = self.watcher.clone();
        std::thread::scope(|scope| {
            for _ in 0..LISTING_THREADS {
                let (job_queue, results, watcher) = (job_queue.clone(), results.clone(), watcher.clone());
                scope.spawn(move || list_directories(&job_queue, &results, &watcher));
            }
            let mut outstanding = 0;
            let outcome = loop {
                while outstanding < listings_max()
                    && let Some(object) = look.enter.pop()
                {
                    match self.reach(t, object) {
                        Ok(Reach::Open(handle)) => {
                            outstanding += 1;
                            let classes = match self.is_new(t, object)? {
                                true => self.classes,
                                false => XattrClasses::NONE,
                            };
                            let _ = jobs.send(Job {
                                directory: object,
                                handle,
                                classes,
                            });
                        }
                        Ok(Reach::Gone) => {
                            self.unentered.insert(object);
                        }
                        Ok(Reach::Unmounted) => {}
                        Ok(Reach::Unknown(error)) => self.note_unreadable(&error, look),
                        Err(error) => {
                            drop(jobs);
                            return Err(error);
                        }
                    }
                }
                if outstanding == 0 {
                    break Ok(());
                }
                let Ok(listed) = result_queue.recv() else {
                    break Ok(());
                };
                outstanding -= 1;
                if let Err(error) = self.take_listing(t, listed, look) {
                    break Err(error);
                }
            };
            drop(jobs);
            outcome
        })
    }

    /// Enters what a walk did not find where it was, and may be there again: a directory that is renamed, and back, is the same to those
    /// who only look at its name, and what was done in it before that is told by nobody.
    pub(super) fn enter_missed(&mut self, t: &mut Tables<'_>, look: &mut Look) -> Result<(), StoreError> {
        for object in std::mem::take(&mut self.unentered) {
            if t.get(object)?.is_some_and(|entry| entry.kind == Kind::Directory) {
                look.enter.push(object);
            }
        }
        self.enter_directories(t, look)
    }

    pub(super) fn take_listing(
        &mut self,
        t: &mut Tables<'_>,
        listed: Listed,
        look: &mut Look,
    ) -> Result<(), StoreError> {
        let Listed {
            directory,
            handle,
            listing,
            unwatched,
        } = listed;
        if let Some(error) = unwatched {
            self.warnings.push(error.to_string());
        }
        let ListedEntries {
            stat,
            listing,
            xattrs,
        } = match listing {
            Ok(listed) => listed,
            // Never read as empty: what is catalogued below stays as it is.
            Err(error) => {
                self.note_unreadable(&error, look);
                return Ok(());
            }
        };
        // Renamed since its name was seen, and another stands there now: an event, or the next look, tells where. What
        // was listed is not what the catalog has under this number.
        if directory != ObjectId::ROOT
            && let Some(entry) = t.get(directory)?
            && stamp_of(&entry).is_some_and(|known| !known.same_object(&stat.stamp))
        {
            self.unentered.insert(directory);
            return Ok(());
        }
        self.note_directory(directory, &stat);
        self.see_itself(t, directory, &stat, look)?;
        let device = stat.stamp.device;
        // If it is also one that came from elsewhere, it is entered twice, and the other time walks below it.
        let is_shallow = look.shallow.remove(&directory);
        let is_walk = self.take_listed_news(directory, &listing) || !is_shallow;
        let standing = self.standing(t, directory)?;
        if let Standing::Unknown = standing {
            look.found.unreadable += 1;
            return Ok(());
        }
        let mut problems = HashSet::new();
        for (name, error) in listing.problems {
            problems.extend(Name::new(name));
            self.note_unreadable(&error, look);
        }
        let missing = |entry: Entry| (!problems.contains(&entry.place.name)).then_some(entry.object);
        let mut catalogued = Children::of(directory);
        // Where the catalog stood when its entries were fetched.
        let mut fetched = (0, 0);
        let mut xattrs = xattrs.into_iter();
        for (name, stat) in listing.entries {
            let xattrs = xattrs.next();
            while let Some(entry) = catalogued.next_before(t, Some(&name))? {
                look.orphans.extend(missing(entry));
            }
            let known = catalogued.next_at(t, &name)?;
            if fetched.0 != catalogued.rounds() {
                fetched = (catalogued.rounds(), look.found.changed);
            }
            if self.admission(&standing, &name, &stat) != Admission::In {
                look.found.excluded += 1;
                look.orphans.extend(known.and_then(missing));
                continue;
            }
            if let Some(known) = &known
                && fetched.1 == look.found.changed
                && self.is_plainly_unchanged(known, &stat)
            {
                look.found.entries += 1;
                continue;
            }
            self.note_mount(t, device, directory, &name, &stat)?;
            let before = look.enter.len();
            let known = known.map(|known| known.object);
            self.xattrs_at_hand = xattrs.map(|found| (stat.stamp, found));
            self.see(t, &handle, directory, name, &stat, look)?;
            self.xattrs_at_hand = None;
            // In a walk an unchanged directory is entered, too.
            if is_walk
                && stat.file_type == crate::fs::FileType::Directory
                && look.enter.len() == before
                && let Some(object) = known
            {
                if self.is_cut(&stat) {
                    let below = t.children(object)?;
                    look.orphans.extend(below.into_iter().map(|(_, object)| object));
                } else {
                    look.enter.push(object);
                }
            }
        }
        while let Some(entry) = catalogued.next_before(t, None)? {
            look.orphans.extend(missing(entry));
        }
        Ok(())
    }

    /// Whether nothing that is in a directory was known before this run.
    fn is_new(&self, t: &Tables<'_>, directory: ObjectId) -> Result<bool, StoreError> {
        Ok(match directory {
            ObjectId::ROOT => Children::of(directory).next_before(t, None)?.is_none(),
            _ => directory >= self.first_of_run,
        })
    }

    /// Whether `stat` shows a catalogued entry as it is, and nothing about it asks for a closer look (see [`Source::see`]): in a
    /// walk, nearly all of a tree.
    fn is_plainly_unchanged(&self, known: &Entry, stat: &Stat) -> bool {
        let is_plain = known.kind != Kind::Directory && stat.links == 1 && known.flags & flags::HIDES == 0;
        // What a link leads to that is followed is watched, whether it changed or not; of a device nobody can tell.
        is_plain
            && !stat.is_followed
            && !stat.is_device
            && self.kind_of(stat) == Some(known.kind)
            && is_unchanged(known, stat)
            && (known.kind != Kind::File || !self.touched.was_written(&known.place))
    }
}

fn list_directories(
    jobs: &crossbeam_channel::Receiver<Job>,
    results: &crossbeam_channel::Sender<Listed>,
    watcher: &Mutex<Box<dyn Watcher>>,
) {
    use std::os::fd::AsFd;
    for job in jobs {
        let (directory, handle) = (job.directory, job.handle);
        let watched = watcher
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .watch(directory, handle.as_fd());
        let listing = list_entries(&handle, job.classes);
        let listed = Listed {
            directory,
            handle,
            listing,
            unwatched: watched.err(),
        };
        if results.send(listed).is_err() {
            return;
        }
    }
}

/// What is in a directory that is watched: what changes its own times later raises an event.
fn list_entries(handle: &Directory, classes: XattrClasses) -> Result<ListedEntries, FsError> {
    let stat = handle.stat_self()?;
    let listing = handle.list()?;
    let mut xattrs = Vec::new();
    let mut bytes = 0;
    if !classes.is_empty() {
        for (name, _) in listing.entries.iter().take(XATTR_ENTRIES_MAX) {
            let found = handle.xattrs(name, classes);
            bytes += found.as_ref().map_or(0, |found| found.xattrs.bytes());
            xattrs.push(found);
            if bytes > XATTR_BYTES_MAX {
                break;
            }
        }
    }
    Ok(ListedEntries {
        stat,
        listing,
        xattrs,
    })
}
