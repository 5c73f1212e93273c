//! Changes a tree at random: every kind of operation that a program can do to it, in an order that follows from a seed.

mod operations;
mod sys;

use super::Pair;
use super::random::Random;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use operations::OPERATIONS;
#[allow(unused_imports, reason = "each test file uses its part")]
pub use sys::{allocate, exchange, fifo, punch_hole};

/// Above so many entries more is removed than made.
const ENTRIES_MAX: usize = 300;

/// What stands in a tree, sorted; the root is left out.
#[derive(Default)]
pub struct Found {
    pub files: Vec<PathBuf>,
    pub links: Vec<PathBuf>,
    pub directories: Vec<PathBuf>,
    /// FIFOs, sockets, devices.
    pub specials: Vec<PathBuf>,
    /// All of these.
    pub everything: Vec<PathBuf>,
}

impl Found {
    pub fn look(root: &Path) -> Found {
        let mut found = Found::default();
        let mut queue = vec![root.to_owned()];
        while let Some(directory) = queue.pop() {
            for entry in fs::read_dir(&directory).unwrap() {
                let entry = entry.unwrap();
                let path = entry.path();
                found.everything.push(path.clone());
                match entry.file_type().unwrap() {
                    kind if kind.is_dir() => {
                        queue.push(path.clone());
                        found.directories.push(path);
                    }
                    kind if kind.is_symlink() => found.links.push(path),
                    kind if kind.is_fifo() || kind.is_socket() => found.specials.push(path),
                    _ => found.files.push(path),
                }
            }
        }
        for list in [
            &mut found.files,
            &mut found.links,
            &mut found.directories,
            &mut found.specials,
            &mut found.everything,
        ] {
            list.sort();
        }
        found
    }
}

/// One kind of operation.
pub struct Operation {
    pub name: &'static str,
    /// How often it is chosen, compared with the others.
    pub weight: usize,
    /// Does it and says to what; `None` if the tree has nothing that it could be done to.
    pub act: fn(&mut Churn, &Found) -> Option<String>,
}

/// Changes a tree at random.
pub struct Churn {
    pub root: PathBuf,
    /// On the same file system: where things are moved out to, and come from.
    pub outside: PathBuf,
    pub random: Random,
    pub log: Vec<String>,
    number: u64,
}

impl Churn {
    pub fn new(pair: &Pair, seed: u64) -> Churn {
        Churn::in_tree(pair.src(), pair.path("outside"), seed)
    }

    pub fn in_tree(root: PathBuf, outside: PathBuf, seed: u64) -> Churn {
        fs::create_dir_all(&outside).unwrap();
        Churn {
            root,
            outside,
            random: Random(seed),
            log: Vec::new(),
            number: 0,
        }
    }

    pub fn many(&mut self, operations: usize) {
        for _ in 0..operations {
            self.step();
        }
    }

    /// Bursts, and pauses between them in which the daemons see a half-way state.
    pub fn bursts(&mut self, operations: usize) {
        let mut left = operations;
        while left > 0 {
            let burst = (1 + self.random.below(30)).min(left);
            self.many(burst);
            left -= burst;
            std::thread::park_timeout(Duration::from_millis(self.random.below(40) as u64));
        }
    }

    /// One operation, chosen by weight.
    pub fn step(&mut self) {
        let found = Found::look(&self.root);
        let operation = if found.everything.len() > ENTRIES_MAX && self.random.one_in(3) {
            by_name("remove a directory")
        } else {
            self.choose()
        };
        self.run(operation, &found);
        // Now and then the daemons get to see a half-way state.
        if self.random.one_in(25) {
            std::thread::park_timeout(Duration::from_micros(self.random.below(30_000) as u64));
        }
    }

    /// Some more names for files; for the end of a series of operations, before the daemons come to rest. That a file was
    /// written through a name which was made for it and is gone again before anybody looked is told by no kernel.
    pub fn hard_links(&mut self, links: usize) {
        for _ in 0..links {
            let found = Found::look(&self.root);
            self.run(by_name("hard link"), &found);
        }
    }

    /// Every kind of operation once, as far as the tree has something for it. Returns the names of those that were done.
    pub fn each_kind(&mut self) -> Vec<&'static str> {
        let mut done = Vec::new();
        for operation in OPERATIONS {
            let found = Found::look(&self.root);
            if self.run(operation, &found) {
                done.push(operation.name);
            }
        }
        done
    }

    fn run(&mut self, operation: &Operation, found: &Found) -> bool {
        let done = (operation.act)(self, found);
        if let Some(text) = &done {
            self.log.push(format!("{}: {text}", operation.name));
        }
        done.is_some()
    }

    fn choose(&mut self) -> &'static Operation {
        let total = OPERATIONS.iter().map(|operation| operation.weight).sum();
        let mut left = self.random.below(total);
        for operation in OPERATIONS {
            if left < operation.weight {
                return operation;
            }
            left -= operation.weight;
        }
        unreachable!("the weights add up")
    }

    /// A name that is free.
    fn fresh(&mut self, found: &Found) -> PathBuf {
        self.number += 1;
        let in_root = self.random.one_in(4);
        let parent = self
            .random
            .pick(&found.directories)
            .filter(|_| !in_root)
            .unwrap_or_else(|| self.root.clone());
        // Few names, so that they are used again, by other kinds too; a fresh number where one is taken.
        let name = parent.join(format!("n{}", self.random.below(60)));
        if name.symlink_metadata().is_ok() {
            parent.join(format!("m{}", self.number))
        } else {
            name
        }
    }

    fn shown(&self, path: &Path) -> String {
        path.strip_prefix(&self.root)
            .unwrap_or(path)
            .display()
            .to_string()
    }
}

fn by_name(name: &str) -> &'static Operation {
    OPERATIONS
        .iter()
        .find(|operation| operation.name == name)
        .expect("an operation of this name")
}

/// Says what led to a failure.
pub struct OnPanic(pub String, pub Vec<String>);

impl Drop for OnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let last = self.1.len().saturating_sub(40);
            eprintln!("{}; last operations: {:#?}", self.0, &self.1[last..]);
        }
    }
}
