//! Modes, owners and times: exact, and without content.

use crate::mirror::{CHOICES, Mirror, watched_by};
use crate::support::random::Random;
use crate::support::{Pair, is_root};
use crate::{scaled, seed};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::Path;

/// Sets a time, also that of a link itself, and returns what the file system made of it.
fn set_time(path: &Path, seconds: i64, nanoseconds: i64) -> (i64, i64) {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    let meta = fs::symlink_metadata(path).unwrap();
    (meta.mtime(), meta.mtime_nsec())
}

/// Far from every clock that runs here: no decision may rest on the difference between a stamp and now.
#[test]
fn d_16_times_before_1970_after_2106_and_odd_nanoseconds() {
    const TIMES: [(i64, i64); 10] = [
        (-2_147_483_648, 0),
        (-1, 999_999_999),
        (-1, 1),
        (0, 0),
        (0, 1),
        (1, 123_456_789),
        (2_147_483_647, 999_999_999),
        (2_147_483_648, 7),
        (4_294_967_296, 500_000_001),
        (7_258_118_400, 3),
    ];
    let pair = Pair::new();
    let src = pair.src();
    let mut kept = 0;
    let make = |name: &str| {
        fs::write(src.join(format!("{name}-file")), name).unwrap();
        fs::create_dir(src.join(format!("{name}-directory"))).unwrap();
        fs::write(src.join(format!("{name}-directory/inner")), name).unwrap();
        symlink(name, src.join(format!("{name}-link"))).unwrap();
    };
    // Half of them before the sender starts, half while it runs.
    for (number, &(seconds, nanoseconds)) in TIMES.iter().enumerate() {
        make(&number.to_string());
        for kind in ["file", "directory", "link"] {
            let path = src.join(format!("{number}-{kind}"));
            kept += usize::from(set_time(&path, seconds, nanoseconds) == (seconds, nanoseconds));
        }
    }
    assert!(kept > 0, "the file system kept none of the times");
    let mirror = Mirror::start(pair);
    for (number, &(seconds, nanoseconds)) in TIMES.iter().rev().enumerate() {
        for kind in ["file", "directory", "link"] {
            set_time(&src.join(format!("{number}-{kind}")), seconds, nanoseconds ^ 1);
        }
    }
    mirror.settle();
    // What was changed in the far future or past is changed again, and noticed.
    for number in 0..TIMES.len() {
        fs::write(src.join(format!("{number}-file")), "changed again").unwrap();
        set_time(&src.join(format!("{number}-file")), -5, 5);
    }
    mirror.settle();
    mirror.end_and_compare();
}

#[test]
fn d_22_attributes_alone_travel_without_content() {
    for choice in CHOICES {
        let mut pair = Pair::new();
        watched_by(&mut pair, choice);
        let src = pair.src();
        let mut random = Random(seed(22));
        let files = 20;
        for number in 0..files {
            let content = random.exactly(200_000);
            fs::write(src.join(format!("file{number}")), content).unwrap();
            fs::create_dir(src.join(format!("directory{number}"))).unwrap();
            symlink("anywhere", src.join(format!("link{number}"))).unwrap();
        }
        let mut mirror = Mirror::seeded(pair);
        mirror.resume();
        mirror.settle();
        for round in 0..scaled(2) {
            for number in 0..files {
                for kind in ["file", "directory", "link"] {
                    let path = src.join(format!("{kind}{number}"));
                    if kind != "link" {
                        let mode = [0o600, 0o755, 0o1777, 0o640, 0o711][random.below(5)];
                        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
                    }
                    if is_root() {
                        let owner = 1_000 + random.below(100) as u32;
                        lchown(&path, Some(owner), Some(owner + 1)).unwrap();
                    }
                    set_time(&path, 1_000_000_000 + round as i64, number as i64);
                }
            }
            mirror.settle();
        }
        // One kind of change at a time, of everything.
        for number in 0..files {
            let path = src.join(format!("file{number}"));
            fs::set_permissions(path, Permissions::from_mode(0o444)).unwrap();
        }
        mirror.settle();
        for number in 0..files {
            set_time(&src.join(format!("link{number}")), 5, 5);
            set_time(&src.join(format!("directory{number}")), 6, 6);
        }
        mirror.settle();
        let counters = mirror.end_and_compare().counters;
        assert_eq!(counters.files_sent, 0, "{choice:?}: {counters:?}");
        assert!(
            counters.wire_bytes_sent < 20 * 200_000 / 4,
            "{choice:?}: {counters:?}"
        );
    }
}
