//! Directories are opened and listed on threads of their own while a walk compares what was listed before.

#[cfg(test)]
mod tests;

use super::super::lock;
use super::*;
use crate::fs::Listing;
use crossbeam_channel::{Receiver, Sender, unbounded};
use std::sync::{Condvar, Mutex, PoisonError};

const LISTING_THREADS: usize = 2;
/// Directories that are being listed, or wait for a thread that lists them.
const LISTINGS_MAX: usize = 8;
/// While the listings that are held have this many entries, no further directory is listed. Directories can have millions.
const ENTRIES_AHEAD: usize = 100_000;

/// In a simulation one, so that they are looked at in the same order each time.
fn listings_max() -> usize {
    #[cfg(test)]
    if crate::daemon::simulation::is_here() {
        return 1;
    }
    LISTINGS_MAX
}

/// A directory that has to be looked at: opened when its turn comes, since a level can have more directories than a process
/// descriptors.
#[derive(Debug)]
pub(super) struct Visit {
    pub(super) object: ObjectId,
    /// The directory itself, or the one that it stands in.
    pub(super) handle: Arc<Directory>,
    /// Its name there.
    pub(super) name: Option<Name>,
}

/// A directory, and what stands in it. `None` if it could not be opened, which was told.
pub(super) type Visited = Option<(ObjectId, Arc<Directory>, Result<Listing, FsError>)>;

impl Visit {
    pub(super) fn list(self) -> Visited {
        let handle = match &self.name {
            None => self.handle,
            Some(name) => match self.handle.open_dir(name) {
                Ok(inner) => Arc::new(inner),
                Err(error) => {
                    tracing::warn!("{error}");
                    return None;
                }
            },
        };
        let listing = handle.list();
        Some((self.object, handle, listing))
    }
}

/// The entries of listings that are in memory.
#[derive(Debug)]
struct Held {
    /// No listing begins while there are so many.
    limit: usize,
    state: Mutex<HeldState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct HeldState {
    entries: usize,
    /// Threads that wait for room.
    waiting: usize,
    /// Nobody takes listings any more.
    is_over: bool,
}

impl Held {
    fn new(limit: usize) -> Held {
        Held {
            limit,
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Waits until another listing may begin; false if none may any more. Room comes: what is held was sent to who takes it.
    fn wait_for_room(&self) -> bool {
        let mut state = lock(&self.state);
        while !state.is_over && state.entries >= self.limit {
            state.waiting += 1;
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
        !state.is_over
    }

    fn add(&self, entries: usize) {
        lock(&self.state).entries += entries;
    }

    fn release(&self, entries: usize) {
        let mut state = lock(&self.state);
        state.entries -= entries;
        if state.waiting > 0 {
            self.changed.notify_all();
        }
    }
}

/// Whoever waits for room ends with it, also if the one who takes listings panics.
struct Taking<'a>(&'a Held);

impl Drop for Taking<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).is_over = true;
        self.0.changed.notify_all();
    }
}

/// Visits directories, and what `take` adds to them, in any order. An error of `take` ends it.
pub(super) fn visit_all<E>(
    directories: Vec<Visit>,
    take: impl FnMut(Visited, &mut Vec<Visit>) -> Result<(), E>,
) -> Result<(), E> {
    visit_with(&Held::new(ENTRIES_AHEAD), Visit::list, directories, take)
}

fn visit_with<E>(
    held: &Held,
    list: impl Fn(Visit) -> Visited + Sync,
    mut directories: Vec<Visit>,
    mut take: impl FnMut(Visited, &mut Vec<Visit>) -> Result<(), E>,
) -> Result<(), E> {
    let (jobs, job_queue) = unbounded();
    let (results, result_queue) = unbounded();
    let list = &list;
    std::thread::scope(|scope| {
        let _taking = Taking(held);
        for _ in 0..LISTING_THREADS {
            let (job_queue, results) = (job_queue.clone(), results.clone());
            scope.spawn(move || list_each(held, list, &job_queue, &results));
        }
        drop(results);
        let mut outstanding = 0;
        let outcome = loop {
            while outstanding < listings_max()
                && let Some(visit) = directories.pop()
            {
                outstanding += 1;
                let _ = jobs.send(visit);
            }
            if outstanding == 0 {
                break Ok(());
            }
            let Ok(visited) = result_queue.recv() else {
                break Ok(());
            };
            outstanding -= 1;
            let entries = entries_of(&visited);
            if let Err(error) = take(visited, &mut directories) {
                break Err(error);
            }
            held.release(entries);
        };
        // The threads end with this, also for what was not listed yet.
        while job_queue.try_recv().is_ok() {}
        drop(jobs);
        outcome
    })
}

fn list_each(
    held: &Held,
    list: impl Fn(Visit) -> Visited,
    jobs: &Receiver<Visit>,
    results: &Sender<Visited>,
) {
    for visit in jobs {
        if !held.wait_for_room() {
            return;
        }
        let visited = list(visit);
        held.add(entries_of(&visited));
        if results.send(visited).is_err() {
            return;
        }
    }
}

/// How many names a listing holds.
fn entries_of(visited: &Visited) -> usize {
    match visited {
        Some((_, _, Ok(listing))) => listing.entries.len() + listing.problems.len(),
        _ => 0,
    }
}
