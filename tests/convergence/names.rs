//! Renames, moves in and out, names that are used again at once.

use crate::mirror::{CHOICES, Mirror, identities, watched_by};
use crate::support::churn::{exchange, fifo};
use crate::support::random::Random;
use crate::support::{Pair, tree};
use crate::{scaled, seed};
use driftless::daemon::WatchChoice;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::time::Duration;

/// The files themselves stay, and no content travels.
#[test]
fn d_06_pure_renames_send_no_content() {
    const LARGE_BYTES: usize = 1 << 20;
    let small = scaled(1_000).min(100_000);
    let mut pair = Pair::new();
    // A look that falls between two renames of one file finds it nowhere: then it is sent as a new one.
    pair.pending.delay = Duration::from_secs(3);
    let src = pair.src();
    let mut random = Random(seed(6));
    fs::create_dir_all(src.join("many")).unwrap();
    for number in 0..small {
        fs::write(src.join(format!("many/{number}")), random.exactly(100)).unwrap();
    }
    for number in 0..20 {
        fs::write(src.join(format!("log.{number}")), random.exactly(LARGE_BYTES)).unwrap();
    }
    let mut mirror = Mirror::seeded(pair);
    mirror.resume();
    mirror.settle();
    let before = identities(&mirror.pair.dst());
    let rename = |from: &str, to: &str| fs::rename(src.join(from), src.join(to)).unwrap();

    exchange(&src.join("log.0"), &src.join("log.1"));
    // A chain of ten, as logs are rotated.
    for number in (2..12).rev() {
        rename(&format!("log.{number}"), &format!("log.{}", number + 100));
    }
    for number in (102..112).rev() {
        rename(&format!("log.{number}"), &format!("log.{}", number - 99));
    }
    rename("log.13", "log.14");
    rename("log.15", "LOG.15");
    rename("many", "renamed");
    rename("log.16", "away");
    rename("away", "log.16");
    mirror.settle();
    rename("renamed", "many");
    rename("many", "again");
    mirror.settle();

    let after = identities(&mirror.pair.dst());
    assert_eq!(
        after[Path::new("LOG.15")],
        before[Path::new("log.15")],
        "renamed by case"
    );
    assert_eq!(after[Path::new("log.0")], before[Path::new("log.1")], "exchanged");
    for number in 0..small {
        let name = |directory: &str| Path::new(directory).join(number.to_string());
        assert_eq!(after[&name("again")], before[&name("many")], "file {number}");
    }
    let known: Vec<_> = before.values().collect();
    let anew: Vec<_> = after
        .iter()
        .filter(|(_, identity)| !known.contains(identity))
        .collect();
    assert!(anew.is_empty(), "sent again: {anew:?}");
    let counters = mirror.end_and_compare().counters;
    // What took another's place may be offered, what was renamed back is read; no content travels.
    assert_eq!(counters.content_bytes, 0, "{counters:?}");
    let (moved, content) = (
        counters.wire_bytes_sent + counters.wire_bytes_received,
        20 * LARGE_BYTES as u64,
    );
    assert!(
        moved * 100 < content,
        "{moved} bytes for renames of {content} bytes"
    );
}

fn populate(directory: &Path, random: &mut Random) {
    for name in ["a/b/c", "a/d", "e"] {
        fs::create_dir_all(directory.join(name)).unwrap();
        for number in 0..3 {
            fs::write(directory.join(name).join(format!("f{number}")), random.bytes()).unwrap();
        }
    }
}

/// Content follows without events of its own.
#[test]
fn d_07_populated_directories_move_in_and_out() {
    for choice in CHOICES {
        let mut pair = Pair::new();
        watched_by(&mut pair, choice);
        let mut random = Random(seed(7));
        let (src, outside) = (pair.src(), pair.path("outside"));
        populate(&outside.join("tree"), &mut random);
        populate(&src.join("here"), &mut random);
        let mirror = Mirror::start(pair);
        fs::rename(outside.join("tree"), src.join("tree")).unwrap();
        mirror.settle();
        fs::rename(src.join("tree"), outside.join("tree")).unwrap();
        mirror.settle();
        // Out, changed there, and in again, at once.
        fs::rename(src.join("here"), outside.join("here")).unwrap();
        fs::write(outside.join("here/a/new"), b"new").unwrap();
        fs::remove_dir_all(outside.join("here/e")).unwrap();
        fs::rename(outside.join("here"), src.join("here")).unwrap();
        mirror.settle();
        // What is in at last is watched.
        fs::write(src.join("here/a/b/c/later"), b"later").unwrap();
        mirror.settle();
        mirror.end_and_compare();
    }
}

/// Two sources, each of which sees half of every move.
#[test]
fn d_07_directories_move_between_two_sources() {
    let here = Pair::new();
    let there = Pair::in_directory(tempfile::tempdir_in(here.directory.path()).unwrap());
    let mut random = Random(seed(77));
    populate(&here.src().join("tree"), &mut random);
    let (one, other) = (here.src().join("tree"), there.src().join("tree"));
    let (here, there) = (Mirror::start(here), Mirror::start(there));
    for round in 0..scaled(4) {
        fs::rename(&one, &other).unwrap();
        fs::write(other.join("a/b/edited"), random.bytes()).unwrap();
        if round % 2 == 0 {
            here.settle();
            there.settle();
        }
        fs::rename(&other, &one).unwrap();
        fs::write(one.join("a/b/c/edited"), random.bytes()).unwrap();
        here.settle();
        there.settle();
    }
    there.end();
    here.end();
}

/// What moves in while the tree is walked for the first time is walked too.
#[test]
fn d_07_directories_move_during_the_first_walk() {
    let pair = Pair::new();
    let mut random = Random(seed(78));
    let (src, outside) = (pair.src(), pair.path("outside"));
    for number in 0..200 {
        populate(&src.join(format!("d{number}")), &mut random);
    }
    populate(&outside.join("tree"), &mut random);
    let mut mirror = Mirror::stopped(pair);
    mirror.resume();
    for number in 0..200 {
        // From a directory that may be done to one that may not, and the other way round.
        let (one, other) = (format!("d{number}/a"), format!("d{}/e/a", 199 - number));
        fs::rename(src.join(one), src.join(other)).unwrap();
    }
    fs::rename(outside.join("tree"), src.join("d199/in")).unwrap();
    mirror.settle();
    mirror.end_and_compare();
}

/// Directories that grow faster than anybody can watch them.
#[test]
fn d_08_nothing_is_missed_between_creation_and_watch() {
    for choice in [WatchChoice::Auto, WatchChoice::Inotify] {
        let mut pair = Pair::new();
        watched_by(&mut pair, choice);
        let mirror = Mirror::start(pair);
        let (src, mut random) = (mirror.pair.src(), Random(seed(8)));
        for number in 0..scaled(150) {
            let mut at = src.join(format!("chain{number}"));
            for depth in 0..1 + random.below(8) {
                fs::create_dir(&at).unwrap();
                fs::write(at.join("file"), format!("{number} {depth}")).unwrap();
                at.push("deeper");
            }
            if random.one_in(30) {
                std::thread::park_timeout(Duration::from_millis(random.below(20) as u64));
            }
        }
        mirror.settle();
        mirror.end_and_compare();
    }
}

fn make(path: &Path, kind: usize) {
    match kind {
        0 => fs::write(path, "a file").unwrap(),
        1 => {
            fs::create_dir_all(path.join("inner/most")).unwrap();
            fs::write(path.join("inner/file"), "in a directory").unwrap();
        }
        2 => symlink("to nowhere", path).unwrap(),
        _ => fifo(path),
    }
}

fn remove(path: &Path) {
    if fs::symlink_metadata(path).unwrap().is_dir() {
        fs::remove_dir_all(path).unwrap();
    } else {
        fs::remove_file(path).unwrap();
    }
}

/// From each type to each other, one by one and several at once.
#[test]
fn d_09_a_name_that_changes_its_type() {
    for choice in CHOICES {
        let mut pair = Pair::new();
        watched_by(&mut pair, choice);
        pair.pending.delay = Duration::from_millis(100);
        let src = pair.src();
        for number in 0..16 {
            make(&src.join(format!("n{number}")), number / 4);
        }
        let mirror = Mirror::start(pair);
        for number in 0..16 {
            let path = src.join(format!("n{number}"));
            remove(&path);
            make(&path, number % 4);
        }
        mirror.settle();
        let mut random = Random(seed(9));
        for _ in 0..scaled(60) {
            let path = src.join(format!("n{}", random.below(16)));
            remove(&path);
            make(&path, random.below(4));
        }
        mirror.settle();
        mirror.end_and_compare();
    }
}

/// The number of a file that is gone is used again, with the same size and the same time.
#[test]
fn d_15_a_reused_inode_is_another_file() {
    let pair = Pair::new();
    let path = pair.src().join("file");
    fs::write(&path, b"00000000").unwrap();
    let mut mirror = Mirror::start(pair);
    let mut reused = 0;
    for round in 0..scaled(12) {
        let is_stopped = round % 3 == 2;
        if is_stopped {
            mirror.pause().unwrap();
        }
        let before = fs::metadata(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, format!("{round:08}")).unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(before.modified().unwrap()).unwrap();
        reused += usize::from(file.metadata().unwrap().ino() == before.ino());
        if is_stopped {
            mirror.resume();
        }
        mirror.settle();
    }
    eprintln!("{reused} of {} numbers were used again", scaled(12));
    mirror.end_and_compare();
}

/// However often something is told, and in which order: one final state, one transfer.
#[test]
fn d_17_each_final_state_is_sent_once() {
    let mut pair = Pair::new();
    pair.pending.delay = Duration::from_secs(3);
    let mut mirror = Mirror::seeded(pair);
    mirror.resume();
    mirror.settle();
    let src = mirror.pair.src();
    let files = 40;
    for number in 0..files {
        let path = src.join(format!("f{number}"));
        for version in 0..3 {
            fs::write(&path, format!("{number} {version}")).unwrap();
            fs::remove_file(&path).unwrap();
        }
        fs::write(&path, format!("{number} for good")).unwrap();
    }
    for number in 0..files {
        fs::write(src.join(format!("gone{number}")), b"soon gone").unwrap();
        fs::remove_file(src.join(format!("gone{number}"))).unwrap();
    }
    mirror.settle();
    // The tree itself, and no name that was never to stay.
    assert_eq!(tree(&mirror.pair.dst()).len(), files);
    let sent = mirror.end_and_compare().counters.files_sent;
    assert_eq!(sent, files as u64, "each file once");
}
