//! Owners, modes and links as they are to appear on the target: a dry run knows them, too.

use crate::dry_run::path_of;
use crate::pairs::{all, fill, set_time};
use crate::rsync::{OPTIONS, sorted};
use crate::support::exact::{Judge, exact};
use crate::support::random::Random;
use crate::support::{is_root, skip};
use crate::{Desk, has, rsync};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::Path;

const JUDGE: Judge = Judge {
    owners: true,
    namespaces: &["user.", "system.posix_acl_"],
    links: true,
    holes: false,
};

/// Nobody has this name.
const MISSING: &str = "driftless-tests-nobody";

/// Links that lead out of the tree, and one that does not, on both sides and on one.
fn add_links(random: &mut Random, src: &Path, dst: &Path) {
    for (n, text) in ["/etc/passwd", "../out", "in/it", "a/../../b"]
        .into_iter()
        .enumerate()
    {
        let name = format!("link {n}");
        for side in [src, dst] {
            if random.one_in(2) {
                symlink(text, side.join(&name)).unwrap();
                set_time(&side.join(&name), 1_000_000_000, 0);
            }
        }
    }
}

/// Whose things are, so that maps have something to do.
fn scatter(random: &mut Random, root: &Path) {
    if !is_root() {
        return;
    }
    for path in all(root) {
        let number = |random: &mut Random| [0, 1, 2, 4_000_001][random.below(4)];
        let (user, group) = (number(random), number(random));
        lchown(&path, Some(user), Some(group)).unwrap();
    }
}

/// That a dry run and a run with some options tell the same, and that it is the truth.
pub fn check(desk: &Desk, options: &[&str], shown: &str) {
    check_but(desk, options, shown, |_| false);
}

/// The same, but of these paths no changes are told.
pub fn check_but(desk: &Desk, options: &[&str], shown: &str, untold: impl Fn(&[u8]) -> bool) {
    let dst = desk.path("dst");
    let before = exact(&dst, JUDGE);
    let look = |flag: &str| -> BTreeSet<String> {
        desk.items(&[&["--once", flag], options].concat())
            .into_iter()
            .collect()
    };
    let announced = look("-n");
    assert_eq!(
        exact(&dst, JUDGE),
        before,
        "{shown}: a dry run changed the target"
    );
    assert_eq!(look("-i"), announced, "{shown}");
    let after = exact(&dst, JUDGE);
    let told: BTreeSet<Vec<u8>> = announced.iter().map(|line| path_of(line)).collect();
    for path in before.keys().chain(after.keys()) {
        let changed = before.get(path) != after.get(path);
        let path_shown = path.escape_ascii();
        assert!(
            !changed || told.contains(path) || untold(path),
            "{shown}: {path_shown} changed unannounced"
        );
    }
    assert_eq!(look("-n"), BTreeSet::new(), "{shown}: something is left");
}

#[test]
fn what_is_changed_on_the_way_is_announced_as_it_is_done() {
    let maps: &[&[&str]] = match is_root() {
        true => &[
            &["--chown", "3:4"],
            &["--usermap", "0-1:5,*:6", "--groupmap", "4000001:7"],
            &["--numeric-ids", "--usermap", "2:1"],
            &["--chown", "1:2", "--chmod", "Dg+s,F600", "--safe-links"],
        ],
        false => &[],
    };
    let others: &[&[&str]] = &[
        &["--chmod", "D750,F640"],
        &["--chmod", "go-w,a+X"],
        &["--no-links"],
        &["--safe-links"],
    ];
    for (n, options) in others.iter().chain(maps).enumerate() {
        for round in 0..4 {
            let mut random = Random(900 + 10 * n as u64 + round);
            let desk = Desk::new();
            let (src, dst) = (desk.path("src"), desk.path("dst"));
            fill(&mut random, &src, &dst, false);
            add_links(&mut random, &src, &dst);
            scatter(&mut random, &src);
            check(&desk, options, &format!("{options:?}, round {round}"));
            // And with what a run left, under no such option.
            check(&desk, &[], &format!("after {options:?}, round {round}"));
        }
    }
}

#[test]
fn owners_and_modes_are_announced_as_rsync_does() {
    if !has("rsync") {
        return;
    }
    if !is_root() {
        return skip("only root has files of others");
    }
    for (n, options) in [
        &["--chmod=D750,F640"][..],
        &["--chmod=go-w,a+X"],
        &["--chown=3:4"],
        &["--usermap=0-1:5,*:6", "--groupmap=4000001:7"],
        &["--numeric-ids"],
    ]
    .into_iter()
    .enumerate()
    {
        for round in 0..4 {
            let mut random = Random(700 + 10 * n as u64 + round);
            let desk = Desk::new();
            fill(&mut random, &desk.path("src"), &desk.path("dst"), false);
            scatter(&mut random, &desk.path("src"));
            let theirs = sorted(rsync(&desk, &[OPTIONS, &["-n"], options].concat()));
            let ours = sorted(desk.items(&[&["--once", "-n"], options].concat()));
            assert_eq!(ours, theirs, "{options:?}, round {round}");
        }
    }
}

/// A run names all whom something is to belong to before it does anything, and so ends before it does anything.
#[test]
fn a_user_who_is_missing_there_is_announced() {
    if !is_root() {
        return skip("only root gives files away");
    }
    let desk = Desk::new();
    fs::create_dir(desk.path("src/d")).unwrap();
    fs::write(desk.path("src/a"), "a").unwrap();
    fs::write(desk.path("src/d/other"), "b").unwrap();
    lchown(desk.path("src/d/other"), Some(4_000_001), None).unwrap();
    let map = format!("4000001:{MISSING}");
    for flag in ["-n", "-i"] {
        let ended = desk.mirror(&["--once", flag, "--usermap", &map]);
        assert_eq!(ended.status, Some(1), "{flag}: {ended:#?}");
        assert!(ended.err.contains("there is no user"), "{flag}: {ended:#?}");
        assert_eq!(crate::items(&ended.out), Vec::<String>::new(), "{flag}");
        assert_eq!(fs::read_dir(desk.path("dst")).unwrap().count(), 0, "{flag}");
    }
    // Of one who has nothing, nobody asks.
    let map = format!("4000002:{MISSING}");
    check(&desk, &["--usermap", &map], "a rule for nobody");
    assert_eq!(
        fs::symlink_metadata(desk.path("dst/d/other")).unwrap().uid(),
        4_000_001
    );
    assert_eq!(
        fs::metadata(desk.path("dst/a")).unwrap().permissions().mode(),
        fs::metadata(desk.path("src/a")).unwrap().permissions().mode()
    );
}
