//! Catalogs in which bytes went bad between two runs: nothing is lost, and it is found out.
//!
//! `DRIFTLESS_ROT_ROUNDS` sets the rounds (default 16).

mod support;

use driftless::daemon::Deletes;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use support::random::Random;
use support::{Pair, tree};

const PAGE: u64 = 4_096;

fn rounds() -> u64 {
    std::env::var("DRIFTLESS_ROT_ROUNDS").map_or(16, |text| text.parse().unwrap())
}

fn catalog_below(home: &Path) -> PathBuf {
    let mut directories = vec![home.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap().map(Result::unwrap) {
            if entry.file_name() == "catalog.redb" {
                return entry.path();
            }
            if entry.file_type().unwrap().is_dir() {
                directories.push(entry.path());
            }
        }
    }
    panic!("no catalog below {}", home.display());
}

/// Flips bits in pages that hold something.
fn flip(catalog: &Path, random: &mut Random) {
    let file = OpenOptions::new().read(true).write(true).open(catalog).unwrap();
    let pages = file.metadata().unwrap().len() / PAGE;
    for _ in 0..3 {
        let mut page = [0; PAGE as usize];
        let at = loop {
            // The first page says how the file is built, and is checked at each open.
            let at = (1 + random.below(pages as usize - 1) as u64) * PAGE;
            file.read_exact_at(&mut page, at).unwrap();
            if page.iter().any(|&byte| byte != 0) {
                break at;
            }
        };
        let used: Vec<_> = (0..page.len()).filter(|&byte| page[byte] != 0).collect();
        let byte = used[random.below(used.len())];
        let flipped = page[byte] ^ 1 << random.below(8);
        file.write_all_at(&[flipped], at + byte as u64).unwrap();
    }
}

fn make_tree(root: &Path) {
    for n in 0..400 {
        let directory = root.join(format!("d{}/e{}", n % 7, n % 3));
        fs::create_dir_all(&directory).unwrap();
        fs::write(
            directory.join(format!("file-{n}")),
            format!("file {n}\n").repeat(n),
        )
        .unwrap();
    }
}

fn change(root: &Path, round: u64) {
    let n = round as usize;
    let path = |n: usize| root.join(format!("d{}/e{}/file-{n}", n % 7, n % 3));
    fs::write(path(n), format!("round {round}")).unwrap();
    fs::remove_file(path(399 - n)).unwrap();
    fs::write(root.join(format!("new-{round}")), b"new").unwrap();
    fs::rename(path(100 + n), root.join(format!("moved-{round}"))).unwrap();
    File::open(path(200 + n))
        .unwrap()
        .set_modified(std::time::UNIX_EPOCH)
        .unwrap();
}

#[test]
fn a_rotten_catalog_loses_nothing() {
    let pair = Pair {
        deletes: Deletes::Always,
        ..Pair::new()
    };
    make_tree(&pair.src());
    assert!(pair.seed().unwrap().in_sync);
    let catalogs = ["home-s", "home-r"].map(|home| catalog_below(&pair.path(home)));
    let damaged = catalogs
        .each_ref()
        .map(|catalog| catalog.with_file_name("catalog.redb.damaged"));
    let mut random = Random(7);
    let mut found = [0, 0];
    for round in 0..rounds().min(90) {
        let side = round as usize % 2;
        flip(&catalogs[side], &mut random);
        // Every other time something has changed, too.
        if round % 4 < 2 {
            change(&pair.src(), round);
        }
        let source = tree(&pair.src());
        let summary = pair.seed().unwrap();
        assert!(
            summary.in_sync && summary.failed.is_empty(),
            "round {round}: {summary:?}"
        );
        assert_eq!(
            tree(&pair.src()),
            source,
            "round {round}: the source was written to"
        );
        pair.assert_equal();
        // A bit may be flipped where nothing is kept any more.
        found[side] += u64::from(damaged[side].exists());
        let _ = fs::remove_file(&damaged[side]);
    }
    assert!(found.iter().all(|&found| found > 0), "{found:?}");
}
