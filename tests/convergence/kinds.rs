//! Entries that are no files, and files with holes.

use crate::mirror::{CHOICES, Mirror, watched_by};
use crate::support::churn::{allocate, exchange, fifo, punch_hole};
use crate::support::random::Random;
use crate::support::{Pair, is_root, tree};
use crate::{scaled, seed};
use rustix::fs::{CWD, FileType, Mode};
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::os::unix::net::UnixListener;
use std::path::Path;

fn device(path: &Path) {
    if is_root() {
        // The null device.
        rustix::fs::mknodat(
            CWD,
            path,
            FileType::CharacterDevice,
            Mode::from(0o600),
            rustix::fs::makedev(1, 3),
        )
        .unwrap();
    }
}

/// Nobody writes to the FIFOs: whoever opens one waits for ever.
#[test]
fn d_23_what_is_no_file_is_never_opened_and_blocks_nothing() {
    for choice in CHOICES {
        let mut pair = Pair::new();
        watched_by(&mut pair, choice);
        let src = pair.src();
        fs::create_dir(src.join("d")).unwrap();
        fifo(&src.join("d/fifo"));
        device(&src.join("d/device"));
        // The listener stays, as a daemon's does.
        let _socket = UnixListener::bind(src.join("d/socket")).unwrap();
        fs::write(src.join("d/file"), b"file").unwrap();
        let mut mirror = Mirror::start(pair);
        // While it runs, and where files were.
        fifo(&src.join("later"));
        device(&src.join("device"));
        fs::remove_file(src.join("d/file")).unwrap();
        fifo(&src.join("d/file"));
        fs::write(src.join("behind"), b"behind").unwrap();
        mirror.settle();
        assert_eq!(tree(&mirror.pair.dst()).len(), 2, "d and behind");
        let there = |name: &str| mirror.pair.dst().join(name).symlink_metadata();
        assert!(there("d/file").unwrap().file_type().is_fifo());
        assert!(there("d/socket").is_err());
        // Swapped in for a file in one step, and out again; the file itself is at the other name meanwhile.
        fs::write(src.join("d/one"), b"one").unwrap();
        mirror.settle();
        for _ in 0..scaled(5) {
            exchange(&src.join("later"), &src.join("d/one"));
            mirror.settle();
        }
        // A file takes the place of a FIFO.
        fs::write(src.join("aside"), b"no fifo").unwrap();
        fs::rename(src.join("aside"), src.join("d/fifo")).unwrap();
        mirror.settle();
        mirror.pause().unwrap();
        fs::remove_file(src.join("behind")).unwrap();
        fifo(&src.join("behind"));
        mirror.resume();
        mirror.settle();
        let summary = mirror.end_and_compare();
        assert!(summary.counters.skipped > 0, "{summary:?}");
    }
}

/// A file that turns into a FIFO between the look and the read, again and again.
#[test]
fn d_23_a_fifo_in_the_place_of_a_file_that_is_about_to_be_read() {
    let mirror = Mirror::start(Pair::new());
    let src = mirror.pair.src();
    let mut random = Random(seed(23));
    for number in 0..scaled(150) {
        let path = src.join(format!("f{}", number % 10));
        let aside = src.join("aside");
        if random.one_in(2) {
            fifo(&aside);
        } else {
            fs::write(&aside, random.bytes()).unwrap();
        }
        fs::rename(&aside, &path).unwrap();
    }
    mirror.settle();
    mirror.end_and_compare();
}

#[test]
fn d_24_holes_are_punched_filled_and_grown() {
    let pair = Pair::new();
    let path = pair.src().join("sparse");
    let apparent = 32 << 20;
    let mut random = Random(seed(24));
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .unwrap();
    file.set_len(apparent).unwrap();
    file.write_all_at(&random.exactly(100_000), 5 << 20).unwrap();
    let mirror = Mirror::start(pair);
    for _ in 0..scaled(1) {
        // Filled in the middle of a hole.
        file.write_all_at(b"data in a hole", apparent / 2).unwrap();
        mirror.settle();
        // Punched into data: bytes change, the size does not.
        punch_hole(&file, (5 << 20) + 10_000, 50_000);
        mirror.settle();
        // Grown past its end: a hole first, data behind it.
        let size = file.metadata().unwrap().len();
        file.write_all_at(b"behind the end", size + (1 << 20)).unwrap();
        mirror.settle();
        let size = file.metadata().unwrap().len();
        allocate(&file, size, 1 << 20);
        mirror.settle();
        // Only blocks are reserved: nothing that a reader sees.
        allocate(&file, 10 << 20, 1 << 20);
        mirror.settle();
        file.set_len(apparent).unwrap();
        mirror.settle();
    }
    // Nothing but holes.
    punch_hole(&file, 0, apparent);
    mirror.settle();
    fs::write(mirror.pair.src().join("empty"), b"").unwrap();
    mirror.end_and_compare();
}
