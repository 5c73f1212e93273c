//! Copying from a basis.

use super::*;
use proptest::prelude::*;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};

fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    (0..len)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect()
}

fn basis(place: &Place, content: &[u8]) -> File {
    place.write("basis", content);
    place.dir.open_file(&name("basis")).unwrap().0
}

fn content(staged: &Staged) -> Vec<u8> {
    let mut all = vec![0; usize::try_from(staged.stat().unwrap().size).unwrap()];
    assert_eq!(staged.read_at(&mut all, 0).unwrap(), all.len());
    all
}

/// What the copies should give, on a slice.
fn copied(model: &mut Vec<u8>, basis: &[u8], from: usize, to: usize, length: usize) {
    if length > 0 {
        model.resize(model.len().max(to + length), 0);
        model[to..to + length].copy_from_slice(&basis[from..from + length]);
    }
}

#[test]
fn aligned_and_odd_ranges_are_copied() {
    let place = Place::new();
    let bytes = noise(1_000_003, 1);
    let basis = basis(&place, &bytes);
    let staged = place.staged(b"");
    let mut model = Vec::new();
    let ranges = [
        (0, 0, 1_000_003),
        (4_096, 8_192, 65_536),
        (1, 0, 4_095),
        (7, 100_001, 300_000),
        (999_424, 2_000_896, 579),
        (5, 5, 0),
    ];
    for (from, to, length) in ranges {
        staged.copy_from(&basis, from, to, length).unwrap();
        copied(&mut model, &bytes, from as usize, to as usize, length as usize);
        assert!(content(&staged) == model, "{from} {to} {length}");
    }
    let through_memory = place.staged(b"");
    through_memory.copy_through_memory(&basis, 1, 3, 700_000).unwrap();
    assert!(content(&through_memory)[3..] == bytes[1..700_001]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn any_ranges_give_what_a_slice_gives(
        ranges in proptest::collection::vec((0usize..40_000, 0usize..60_000, 0usize..40_000), 1..8), seed: u64,
        holes in proptest::collection::vec((0usize..5, 0usize..3), 0..4),
    ) {
        let place = Place::new();
        let mut bytes = noise(40_000, seed);
        let basis = basis(&place, &bytes);
        for (at, blocks) in holes {
            let (at, end) = (at * 8_192, ((at * 8_192) + blocks * 4_096).min(40_000));
            bytes[at..end].fill(0);
            let writer = File::options().write(true).open(place.path().join("basis")).unwrap();
            let flags = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
            if end > at && rustix::fs::fallocate(&writer, flags, at as u64, (end - at) as u64).is_err() {
                writer.write_all_at(&vec![0; end - at], at as u64).unwrap();
            }
        }
        let staged = place.staged(b"");
        let mut model = Vec::new();
        for (from, to, length) in ranges {
            let result = staged.copy_from(&basis, from as u64, to as u64, length as u64);
            if from + length > bytes.len() {
                prop_assert_eq!(result.unwrap_err().kind(), FsErrorKind::ShortBasis);
            } else {
                result.unwrap();
                copied(&mut model, &bytes, from, to, length);
                prop_assert!(content(&staged) == model);
            }
        }
    }
}

#[test]
fn a_short_basis_is_an_error() {
    let place = Place::new();
    let basis = basis(&place, &noise(10_000, 2));
    let staged = place.staged(b"");
    for (from, length) in [
        (0, 10_001),
        (10_000, 1),
        (8_192, 4_096),
        (u64::MAX - 1, 1),
        (20_000, 0),
    ] {
        let error = staged.copy_from(&basis, from, 0, length).unwrap_err();
        assert_eq!(error.kind(), FsErrorKind::ShortBasis, "{error}");
    }
    assert!(staged.copy_from(&basis, u64::MAX, 0, 2).is_err());
    assert!(staged.copy_from(&basis, 0, u64::MAX, 2).is_err());
    let through_memory = staged.copy_through_memory(&basis, 9_999, 0, 2).unwrap_err();
    assert_eq!(through_memory.kind(), FsErrorKind::ShortBasis);
    staged.copy_from(&basis, 0, 0, 10_000).unwrap();
    assert_eq!(staged.stat().unwrap().size, 10_000);
}

#[test]
fn holes_stay_holes() {
    let place = Place::new();
    let sparse = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .open(place.path().join("basis"))
        .unwrap();
    let size = 64 << 20;
    sparse.set_len(size).unwrap();
    sparse.write_all_at(b"data", 32 << 20).unwrap();
    let (basis, stat) = place.dir.open_file(&name("basis")).unwrap();
    assert_eq!(stat.size, size);
    let staged = place.staged(&noise(8_192, 3));
    staged
        .cannot_clone
        .store(true, std::sync::atomic::Ordering::Relaxed);
    staged.copy_from(&basis, 1, 0, size - 1).unwrap();
    let meta = staged.file().metadata().unwrap();
    assert_eq!(meta.len(), size - 1);
    assert!(meta.blocks() * 512 < 1 << 20, "{} blocks", meta.blocks());
    let mut part = [1; 8];
    staged.read_at(&mut part, (32 << 20) - 3).unwrap();
    assert_eq!(&part, b"\0\0data\0\0");
    staged.read_at(&mut part, 0).unwrap();
    assert_eq!(part, [0; 8]);
}

#[test]
fn writing_reading_and_cutting_a_staged_file() {
    let place = Place::new();
    let staged = place.staged(b"");
    staged.write_all_at(b"end", 1_000_000).unwrap();
    staged.write_all_at(b"start", 0).unwrap();
    staged.start_writeout(0, 0);
    let mut buffer = [9; 10];
    assert_eq!(staged.read_at(&mut buffer, 999_998).unwrap(), 5);
    assert_eq!(&buffer[..5], b"\0\0end");
    assert_eq!(staged.read_at(&mut buffer, 2_000_000).unwrap(), 0);
    staged.set_len(5).unwrap();
    staged.sync().unwrap();
    assert_eq!(content(&staged), b"start");
    assert!(staged.set_len(u64::MAX).is_err());
    assert!(staged.write_all_at(b"x", u64::MAX).is_err());
}

/// Ranges of a file arrive on several threads: a hole that makes it longer cuts nothing that lies behind.
#[test]
fn a_hole_at_the_end_does_not_cut_what_is_written_meanwhile() {
    const STEP: u64 = 8_192;
    let place = Place::new();
    for _ in 0..20 {
        let staged = place.staged(b"");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for at in 0..100 {
                    staged.make_hole(at * 2 * STEP, STEP).unwrap();
                }
            });
            for at in 0..100 {
                staged
                    .write_all_at(&[7; STEP as usize], (at * 2 + 1) * STEP)
                    .unwrap();
            }
        });
        let found = content(&staged);
        assert_eq!(found.len() as u64, 200 * STEP);
        let is_right = |(at, &byte): (usize, &u8)| byte == 7 * (at as u64 / STEP % 2) as u8;
        assert!(found.iter().enumerate().all(is_right));
    }
}
