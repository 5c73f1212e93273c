//! Holes: what takes no room here takes none there.

use crate::mirror::Mirror;
use crate::support::Pair;
use crate::support::churn::punch_hole;
use crate::support::image::Image;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

const MIB: u64 = 1 << 20;

fn create(path: &Path) -> File {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)
        .unwrap()
}

fn allocated(path: &Path) -> u64 {
    fs::metadata(path).unwrap().blocks() * 512
}

/// Bytes without a run of zeros.
fn data(count: usize) -> Vec<u8> {
    (0..count).map(|at| (at % 251) as u8 + 1).collect()
}

fn mirror_holes(pair: Pair) {
    let src = pair.src();
    // Islands of data that are smaller than what travels at a time, at odd places, and a hole at the end.
    let islands = create(&src.join("islands"));
    for number in 0..24 {
        islands
            .write_all_at(&data(10_000), number * MIB + number * 1_000)
            .unwrap();
    }
    islands.set_len(40 * MIB).unwrap();
    let nothing = create(&src.join("nothing"));
    nothing.set_len(64 * MIB).unwrap();
    // Small enough to travel inside an op.
    let small = create(&src.join("small"));
    small.write_all_at(b"head", 0).unwrap();
    small.write_all_at(b"tail", 200_000).unwrap();
    fs::write(src.join("dense"), data(3 << 20)).unwrap();
    let mirror = Mirror::start(pair);
    let there = |name: &str| mirror.pair.dst().join(name);
    assert!(allocated(&there("nothing")) < 64 << 10);
    assert!(allocated(&there("small")) < 64 << 10);
    assert!(allocated(&there("islands")) < 2 * MIB);

    let dense = OpenOptions::new().write(true).open(src.join("dense")).unwrap();
    punch_hole(&dense, 64 << 10, MIB);
    mirror.settle("a hole in what was data");
    assert!(allocated(&there("dense")) < 5 * MIB / 2);
    islands.write_all_at(&data(300_000), 30 * MIB + 5).unwrap();
    mirror.settle("data in what was a hole");
    islands.write_all_at(b"far away", 100 * MIB).unwrap();
    mirror.settle("growth behind a hole");
    assert!(allocated(&there("islands")) < 3 * MIB);
    islands.set_len(20 * MIB).unwrap();
    mirror.settle("a cut");
    small.write_all_at(b"middle", 100_000).unwrap();
    mirror.settle("a change of a small file");
    let (here, taken) = (allocated(&src.join("small")), allocated(&there("small")));
    // XFS sets some room aside for a while where a shared block was written.
    assert!(taken < 128 << 10, "{taken} bytes are taken there, {here} here");
    mirror.end();
}

#[test]
fn d_24_holes_are_kept() {
    mirror_holes(Pair::new());
}

#[test]
fn d_24_holes_are_kept_on_other_file_systems() {
    for kind in ["ext4", "xfs", "btrfs"] {
        if let Some(image) = Image::new(kind) {
            mirror_holes(Pair::in_directory(image.directory()));
        }
    }
}
