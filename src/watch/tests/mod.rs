//! What every back end has to tell: the same cases for all of them, on real directories. Every wait is for an event,
//! with a time limit; nothing sleeps.

mod cases;
mod combined;
mod walker;

use super::fanotify::FanotifyOptions;
use super::*;
use crate::engine::pending::Hint;
use driftless_protocol::Name;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub(in crate::watch) const ROOT: ObjectId = ObjectId::ROOT;
pub(in crate::watch) const LONG: Duration = Duration::from_secs(20);

/// A test that cannot run here says so, and fails where everything has to run.
pub(in crate::watch) fn skip(reason: &str) {
    assert!(
        std::env::var_os("DRIFTLESS_TEST_NO_SKIP").is_none_or(|value| value != "1"),
        "skipped: {reason}"
    );
    eprintln!("skipped: {reason}");
}

/// A fanotify watcher and a directory that it can watch, or `None`, with the reason printed.
pub(in crate::watch) fn fanotify(options: &FanotifyOptions) -> Option<(Fanotify, TempDir)> {
    let watcher = match Fanotify::start_with(options) {
        Ok(watcher) => watcher,
        Err(reason) => {
            skip(&reason.to_string());
            return None;
        }
    };
    let mut refused = None;
    // In a container the first may be on overlay; the second never is.
    for place in [std::env::temp_dir(), PathBuf::from("/dev/shm")] {
        let Ok(directory) = tempfile::tempdir_in(&place) else {
            continue;
        };
        match watcher.try_file_system(File::open(directory.path()).unwrap().as_fd()) {
            Ok(()) => return Some((watcher, directory)),
            Err(reason) => refused = Some(reason),
        }
    }
    skip(&refused.map_or("no directory".to_owned(), |reason| reason.to_string()));
    None
}

/// A tree, its root watched, and a directory outside of it on the same file system.
pub(in crate::watch) struct Bench {
    pub(in crate::watch) watcher: Box<dyn Watcher>,
    pub(in crate::watch) events: Receiver<WatchEvent>,
    directory: TempDir,
    fences: u32,
}

/// What was told, by place.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::watch) struct Told {
    names: BTreeMap<(u64, Vec<u8>), BTreeSet<u8>>,
    itself: BTreeSet<u64>,
    overflows: usize,
}

const HINTS: [Hint; 6] = [
    Hint::Created,
    Hint::MovedIn,
    Hint::Modified,
    Hint::Closed,
    Hint::Attributes,
    Hint::Vanished,
];

impl Bench {
    pub(in crate::watch) fn new(watcher: impl Watcher + 'static, directory: TempDir) -> Bench {
        let mut bench = Bench {
            events: watcher.events(),
            watcher: Box::new(watcher),
            directory,
            fences: 0,
        };
        fs::create_dir(bench.path("")).unwrap();
        fs::create_dir(bench.outside("")).unwrap();
        bench.watch(1, "");
        bench
    }

    pub(in crate::watch) fn path(&self, below: impl AsRef<Path>) -> PathBuf {
        self.directory.path().join("root").join(below)
    }

    pub(in crate::watch) fn outside(&self, below: impl AsRef<Path>) -> PathBuf {
        self.directory.path().join("outside").join(below)
    }

    pub(in crate::watch) fn watch(&mut self, object: u64, below: impl AsRef<Path>) {
        let handle = File::open(self.path(below)).unwrap();
        self.watcher.watch(ObjectId(object), handle.as_fd()).unwrap();
    }

    pub(in crate::watch) fn next(&self) -> WatchEvent {
        self.events.recv_timeout(LONG).expect("an event")
    }

    /// Everything that was told of what happened up to now. What comes after this name, which nobody else uses, happened later.
    pub(in crate::watch) fn told(&mut self) -> Told {
        self.fences += 1;
        let name = format!("fence-{}", self.fences);
        symlink("x", self.path(&name)).unwrap();
        let mut told = Told::default();
        loop {
            match self.next() {
                WatchEvent::At {
                    directory: ROOT,
                    name: found,
                    ..
                } if found.as_bytes() == name.as_bytes() => return told,
                WatchEvent::At {
                    directory,
                    name,
                    hint,
                    ..
                } => {
                    let place = (directory.0, name.as_bytes().to_vec());
                    let hint = HINTS.iter().position(|known| *known == hint).unwrap();
                    told.names.entry(place).or_default().insert(hint as u8);
                }
                WatchEvent::Renamed { to, .. } => {
                    let moved_in = HINTS.iter().position(|known| *known == Hint::MovedIn).unwrap();
                    let place = (to.0.0, to.1.as_bytes().to_vec());
                    told.names.entry(place).or_default().insert(moved_in as u8);
                }
                WatchEvent::Itself { directory } => _ = told.itself.insert(directory.0),
                WatchEvent::Gone { .. } => {}
                WatchEvent::Listing { directory } => panic!("nobody polls {directory:?}"),
                WatchEvent::Overflow => told.overflows += 1,
            }
        }
    }

    /// Exactly these places were told, each with exactly these hints.
    #[track_caller]
    pub(in crate::watch) fn expect(&mut self, places: &[(u64, &[u8], &[Hint])]) -> Told {
        let told = self.told();
        let mut expected: Vec<_> = places
            .iter()
            .map(|(directory, name, hints)| (*directory, name.escape_ascii().to_string(), hints.to_vec()))
            .collect();
        let mut found = told.shown();
        for list in [&mut expected, &mut found] {
            list.sort_by(|one, other| (one.0, &one.1).cmp(&(other.0, &other.1)));
        }
        assert_eq!(found, expected);
        assert_eq!(told.overflows, 0);
        told
    }
}

impl Told {
    fn shown(&self) -> Vec<(u64, String, Vec<Hint>)> {
        let names = self.names.iter();
        names
            .map(|((directory, name), hints)| {
                let hints = hints.iter().map(|&hint| HINTS[usize::from(hint)]).collect();
                (*directory, name.escape_ascii().to_string(), hints)
            })
            .collect()
    }

    /// Whether anything was told of a name.
    pub(in crate::watch) fn is_told(&self, directory: u64, name: &[u8]) -> bool {
        self.names.contains_key(&(directory, name.to_vec()))
    }

    fn is_itself(&self, directory: u64) -> bool {
        self.itself.contains(&directory)
    }

    /// Leaves out what is said of a name, which not every back end does.
    fn without(mut self, directory: u64, name: &str) -> Told {
        self.names.remove(&(directory, name.as_bytes().to_vec()));
        self
    }
}

/// Every case, with every back end.
macro_rules! conformance {
    ($($case:ident)*) => {
        mod with_inotify {
            $(#[test]
            fn $case() {
                let watcher = super::Inotify::start().unwrap();
                super::cases::$case(super::Bench::new(watcher, tempfile::tempdir().unwrap()));
            })*
        }
        mod with_fanotify {
            $(#[test]
            fn $case() {
                if let Some((watcher, directory)) = super::fanotify(&Default::default()) {
                    super::cases::$case(super::Bench::new(watcher, directory));
                }
            })*
        }
        /// As it is before Linux 5.17.
        mod with_fanotify_and_halves_of_renames {
            $(#[test]
            fn $case() {
                if let Some((watcher, directory)) = super::fanotify(&Default::default()) {
                    // It has marked the file system, with renames.
                    drop(watcher);
                    let watcher = super::Fanotify::start().unwrap();
                    watcher.pretend_without_renames();
                    super::cases::$case(super::Bench::new(watcher, directory));
                }
            })*
        }
        mod with_the_best {
            $(#[test]
            fn $case() {
                let directory = tempfile::tempdir().unwrap();
                let handle = std::fs::File::open(directory.path()).unwrap();
                let watcher = super::open(&Default::default(), std::os::fd::AsFd::as_fd(&handle)).unwrap();
                super::cases::$case(super::Bench::new(watcher, directory));
            })*
        }
    };
}

conformance! {
    a_file_is_made_written_and_closed
    a_write_under_an_open_writer_is_no_close
    a_rename_is_told_at_both_names
    a_rename_between_directories_is_told_in_both
    a_move_from_outside_is_told_by_its_new_name_only
    a_move_to_outside_is_told_by_its_old_name_only
    a_rename_over_another_is_told_at_both_names
    an_exchange_is_told_at_both_names_twice
    a_further_link_is_told_by_its_own_name_only
    a_symbolic_link_is_made
    attributes_and_sizes
    attributes_of_a_watched_directory
    removals
    directories_come_and_go
    a_moved_directory_keeps_its_number
    the_handle_counts_and_not_the_path
    unwatched_is_silent_and_can_be_watched_again
    the_last_number_of_a_directory_counts
    odd_names_arrive_to_the_byte
    reading_is_silent
    a_root_that_is_moved_away_is_gone
    a_root_that_is_exchanged_is_gone
    a_root_that_is_removed_is_gone
    deep_trees_that_grow_quickly_are_seen_whole
    the_reader_ends_with_its_owner
    watches_come_and_go_under_load
    patience_loses_nothing
}

/// Waits until `done` holds, which something else brings about.
pub(in crate::watch) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < LONG, "waited in vain: {what}");
        std::thread::yield_now();
    }
}

pub(in crate::watch) fn name(text: &[u8]) -> Name {
    Name::new(text).unwrap()
}
