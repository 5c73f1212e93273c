//! Directories are listed on threads of their own, and what they hold is compared with the catalog.

use super::rules::{Admission, Standing};
use super::{Look, Reach, Source, is_unchanged, stamp_of};
use crate::daemon::ledger::flags;
use crate::fs::{Directory, FsError, Listing, Stat};
use crate::store::{CatalogRead, Children, Entry, StoreError, Tables};
use crate::watch::{WatchError, Watcher};
use crossbeam_channel::unbounded;
use driftless_protocol::{Kind, Name, ObjectId};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

const LISTING_THREADS: usize = 2;
/// Directories that are being listed, or wait for a thread that lists them.
const LISTINGS_MAX: usize = 8;

/// In a simulation one, so that they are looked at in the same order each time.
fn listings_max() -> usize {
    #[cfg(test)]
    if crate::daemon::simulation::is_here() {
        return 1;
    }
    LISTINGS_MAX
}

/// What a thread found in a directory, and the directory's own `stat` from after it was watched.
type Listed = (
    ObjectId,
    Arc<Directory>,
    Result<(Stat, Listing), FsError>,
    Option<WatchError>,
);

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
        let (jobs, job_queue) = unbounded::<(ObjectId, Arc<Directory>)>();
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
                            let _ = jobs.send((object, handle));
                        }
                        Ok(Reach::Gone | Reach::Unmounted) => {}
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

    pub(super) fn take_listing(
        &mut self,
        t: &mut Tables<'_>,
        listed: Listed,
        look: &mut Look,
    ) -> Result<(), StoreError> {
        let (directory, handle, listing, unwatched) = listed;
        if let Some(error) = unwatched {
            self.warnings.push(error.to_string());
        }
        let (stat, listing) = match listing {
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
        for (name, stat) in listing.entries {
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
            self.see(t, &handle, directory, name, &stat, look)?;
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
    jobs: &crossbeam_channel::Receiver<(ObjectId, Arc<Directory>)>,
    results: &crossbeam_channel::Sender<Listed>,
    watcher: &Mutex<Box<dyn Watcher>>,
) {
    use std::os::fd::AsFd;
    for (object, handle) in jobs {
        let watched = watcher
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .watch(object, handle.as_fd());
        // Its own times are read after it is watched: what changes them later raises an event.
        let listing = handle.stat_self().and_then(|stat| Ok((stat, handle.list()?)));
        if results.send((object, handle, listing, watched.err())).is_err() {
            return;
        }
    }
}
