//! A core that only remembers names: it watches, lists, and looks where events point, as the real one does.

use super::super::*;
use super::Bench;
use driftless_protocol::Name;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

pub(super) struct Walker<'a> {
    bench: &'a mut Bench,
    /// Path of each directory by its number.
    directories: BTreeMap<u64, PathBuf>,
    /// Number of each directory by its inode.
    inodes: BTreeMap<u64, u64>,
    known: BTreeMap<PathBuf, u64>,
    next: u64,
}

impl<'a> Walker<'a> {
    pub(super) fn new(bench: &'a mut Bench) -> Walker<'a> {
        let mut walker = Walker {
            bench,
            directories: BTreeMap::new(),
            inodes: BTreeMap::new(),
            known: BTreeMap::new(),
            next: 1,
        };
        walker.enter(PathBuf::new());
        walker
    }

    /// Takes events until `done`, and everything that happened before that.
    pub(super) fn follow_until(&mut self, done: impl Fn() -> bool) {
        let mut fence = None;
        loop {
            if fence.is_none() && done() {
                fence = Some("fence");
                std::os::unix::fs::symlink("x", self.bench.path("fence")).unwrap();
            }
            let wait = if fence.is_some() {
                super::LONG
            } else {
                std::time::Duration::from_millis(20)
            };
            let Ok(event) = self.bench.events.recv_timeout(wait) else {
                assert!(fence.is_none(), "the fence never came");
                continue;
            };
            match event {
                WatchEvent::At { directory, name, .. } => {
                    let is_fence = fence.is_some_and(|fence| fence.as_bytes() == name.as_bytes());
                    self.look(directory, &name);
                    if is_fence {
                        return;
                    }
                }
                WatchEvent::Renamed { to, .. } => self.look(to.0, &to.1),
                WatchEvent::Itself { .. } | WatchEvent::Gone { .. } => {}
                event => panic!("{event:?}"),
            }
        }
    }

    /// What it knows is what is there.
    #[track_caller]
    pub(super) fn expect_all(&self) {
        let mut there = Vec::new();
        let mut directories = vec![PathBuf::new()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(self.bench.path(&directory)).unwrap() {
                let entry = entry.unwrap();
                let path = directory.join(entry.file_name());
                if entry.file_type().unwrap().is_dir() {
                    directories.push(path.clone());
                }
                there.push(path);
            }
        }
        there.sort();
        let known: Vec<_> = self.known.keys().cloned().collect();
        assert_eq!(known, there);
    }

    fn look(&mut self, directory: ObjectId, name: &Name) {
        let Some(parent) = self.directories.get(&directory.0) else {
            return;
        };
        let path = parent.join(std::ffi::OsStr::from_bytes(name.as_bytes()));
        self.see(path);
    }

    fn see(&mut self, path: PathBuf) {
        match fs::symlink_metadata(self.bench.path(&path)) {
            Ok(found) => {
                let former = self.known.insert(path.clone(), found.ino());
                if found.is_dir() && former != Some(found.ino()) {
                    self.enter(path);
                }
            }
            Err(_) => self.known.retain(|known, _| !known.starts_with(&path)),
        }
    }

    /// Watches first, and lists after.
    fn enter(&mut self, path: PathBuf) {
        let Ok(handle) = File::open(self.bench.path(&path)) else {
            return;
        };
        let inode = handle.metadata().unwrap().ino();
        let number = *self.inodes.entry(inode).or_insert_with(|| {
            self.next += 1;
            self.next - 1
        });
        self.directories.insert(number, path.clone());
        self.bench
            .watcher
            .watch(ObjectId(number), handle.as_fd())
            .unwrap();
        for name in names(&self.bench.path(&path)) {
            self.see(path.join(name));
        }
    }
}

/// What is in a directory now; nothing if it is gone.
fn names(path: &Path) -> Vec<std::ffi::OsString> {
    let entries = fs::read_dir(path).into_iter().flatten();
    entries
        .filter_map(|entry| Some(entry.ok()?.file_name()))
        .collect()
}
