//! trees deeper than any path can be long.

use driftless::fs::Directory;
use driftless_protocol::Name;
use rustix::fs::{CWD, Mode, OFlags, openat};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use support::Pair;

mod support;

/// The kernel takes 4,096 bytes of path at a time, and each level is two. With `DRIFTLESS_SOAK`, 5,000 levels.
fn levels() -> usize {
    match std::env::var_os("DRIFTLESS_SOAK") {
        Some(_) => 5_000,
        None => 2_200,
    }
}

fn enter(at: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    openat(
        at,
        "d",
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW,
        Mode::empty(),
    )
}

fn open(root: &Path) -> OwnedFd {
    openat(CWD, root, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap()
}

/// The lowest directory, and how many are above it.
fn lowest(root: &Path) -> (OwnedFd, usize) {
    let (mut at, mut level) = (open(root), 0);
    while let Ok(below) = enter(&at) {
        (at, level) = (below, level + 1);
    }
    (at, level)
}

fn write(directory: &OwnedFd, text: &str) {
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::TRUNC;
    let file = openat(directory, "leaf", flags, Mode::from_raw_mode(0o644)).unwrap();
    File::from(file).write_all(text.as_bytes()).unwrap();
}

fn read(directory: &OwnedFd) -> String {
    let file = openat(directory, "leaf", OFlags::RDONLY, Mode::empty()).unwrap();
    let mut text = String::new();
    File::from(file).read_to_string(&mut text).unwrap();
    text
}

/// What no path reaches cannot be removed by one.
fn remove(root: &Path) {
    let root = Directory::open_root(root).unwrap();
    root.remove_tree(&Name::new(*b"d").unwrap()).unwrap();
}

#[test]
fn x_05_a_tree_deeper_than_paths_are_long_is_mirrored_changed_and_removed() {
    let mut pair = Pair::new();
    pair.deletes = driftless::daemon::Deletes::Always;
    let mut at = open(&pair.src());
    for _ in 0..levels() {
        rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
        at = enter(&at).unwrap();
    }
    write(&at, "first");
    assert!(pair.seed().unwrap().in_sync);
    let (there, found) = lowest(&pair.dst());
    assert_eq!((found, read(&there).as_str()), (levels(), "first"));
    write(&at, "second version");
    std::fs::write(pair.src().join("beside"), b"beside").unwrap();
    assert!(pair.seed().unwrap().in_sync);
    assert_eq!(read(&lowest(&pair.dst()).0), "second version");
    drop((at, there));
    remove(&pair.src());
    assert!(pair.seed().unwrap().in_sync);
    assert_eq!(lowest(&pair.dst()).1, 0, "the target keeps what is gone");
}
