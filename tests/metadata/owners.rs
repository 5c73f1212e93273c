//! Whose things are: maps of users and groups, judged by rsync with the same options.

use crate::support::waiting::wait_until;
use crate::support::{Following, Pair, is_root, skip};
use driftless::daemon::{Deletes, Summary};
use driftless::engine::owners::OwnerRules;
use driftless_protocol::OwnerKind;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Users and groups of which some have names on every system, and some on none.
const IDS: [u32; 6] = [0, 1, 2, 3_000_000, 3_000_001, 65_534];

fn fill(src: &Path) {
    fs::create_dir(src.join("directory")).unwrap();
    for (number, id) in IDS.into_iter().enumerate() {
        let path = src.join(format!("directory/file-{id}"));
        fs::write(&path, id.to_string()).unwrap();
        chown(&path, Some(id), Some(IDS[(number + 1) % IDS.len()])).unwrap();
        let path = src.join(format!("link-{id}"));
        symlink("nowhere", &path).unwrap();
        lchown(&path, Some(id), Some(id)).unwrap();
    }
    chown(src.join("directory"), Some(1), Some(2)).unwrap();
    fs::hard_link(src.join("directory/file-2"), src.join("second")).unwrap();
    fs::write(src.join("large"), vec![7; 600_000]).unwrap();
    chown(src.join("large"), Some(2), Some(1)).unwrap();
}

/// Who owns what.
fn owners(root: &Path) -> BTreeMap<PathBuf, (u32, u32)> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(path) = waiting.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let name = path.strip_prefix(root).unwrap().to_owned();
        if name.to_string_lossy().starts_with(".driftless") {
            continue;
        }
        if meta.is_dir() {
            waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        found.insert(name, (meta.uid(), meta.gid()));
    }
    found
}

fn rules(options: &[&str]) -> OwnerRules {
    let mut rules = OwnerRules::default();
    for option in options {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        match name {
            "--numeric-ids" => rules = rules.numeric(true),
            "--usermap" => rules.extend(&OwnerRules::of_map(OwnerKind::User, value).unwrap()),
            "--groupmap" => rules.extend(&OwnerRules::of_map(OwnerKind::Group, value).unwrap()),
            "--chown" => rules.extend(&OwnerRules::of_chown(value).unwrap()),
            other => panic!("{other}"),
        }
    }
    rules
}

/// What rsync makes of it, with the same options.
fn by_rsync(pair: &Pair, options: &[&str]) -> Option<BTreeMap<PathBuf, (u32, u32)>> {
    let to = pair.path("by-rsync");
    let outcome = Command::new("rsync")
        .arg("-aH")
        .args(options)
        .arg(format!("{}/", pair.src().display()))
        .arg(format!("{}/", to.display()))
        .status();
    match outcome {
        Ok(status) => {
            assert!(status.success());
            let found = owners(&to);
            fs::remove_dir_all(&to).unwrap();
            Some(found)
        }
        Err(error) => {
            skip(&format!("no rsync: {error}"));
            None
        }
    }
}

fn assert_idle(summary: &Summary) {
    assert!(summary.in_sync && summary.failed.is_empty(), "{summary:?}");
    // The mark of the new run.
    assert!(summary.counters.ops_done <= 1, "{summary:?}");
}

fn assert_verified(pair: &Pair) {
    let receiver = pair.receive();
    let options = pair.sender_options(receiver.address(), false);
    let report = crate::compared(&options);
    receiver.stop();
    assert!(
        report.differences.is_empty() && report.unreadable.is_empty(),
        "{report:?}"
    );
}

const MAPS: [&[&str]; 9] = [
    &[],
    &["--usermap=0-99:nobody,3000000:daemon,*:4242"],
    &["--usermap=daemon:bin,bin:daemon", "--groupmap=?*:nogroup,:77"],
    &["--chown=daemon:bin"],
    &["--chown=:33"],
    &["--chown=33"],
    &["--numeric-ids", "--usermap=daemon:5,1:6", "--groupmap=:7"],
    &["--numeric-ids"],
    &["--usermap=*:0", "--groupmap=3000000-3000005:0"],
];

/// One mirror, with one map after the other: each is as if the target had been made with it, and costs no content.
#[test]
fn d_27_maps_are_those_of_rsync_and_a_change_of_them_arrives() {
    if !is_root() {
        return skip("giving files away needs root");
    }
    let mut pair = Pair::new();
    fill(&pair.src());
    for (number, options) in MAPS.into_iter().enumerate() {
        pair.owners = rules(options);
        let summary = pair.seed().unwrap();
        assert!(
            summary.in_sync && summary.failed.is_empty(),
            "{options:?}: {summary:?}"
        );
        if number > 0 {
            assert_eq!(summary.counters.files_sent, 0, "{options:?}: {summary:?}");
        }
        if let Some(expected) = by_rsync(&pair, options) {
            assert_eq!(owners(&pair.dst()), expected, "{options:?}");
        }
        assert_verified(&pair);
        // Both start again: nothing has to be compared, though several owners are one there.
        assert_idle(&pair.seed().unwrap());
    }
}

/// The names of a tree that was there before are those of this disk.
#[test]
fn d_27_a_tree_that_is_there_is_taken_over_under_a_map() {
    if !is_root() {
        return skip("giving files away needs root");
    }
    let mut pair = Pair::new();
    fill(&pair.src());
    let options = ["--usermap=daemon:bin,bin:daemon,3000000-4000000:nobody"];
    pair.owners = rules(&options);
    let status = Command::new("rsync")
        .args(["-aH", options[0]])
        .args([
            format!("{}/", pair.src().display()),
            format!("{}/", pair.dst().display()),
        ])
        .status();
    if !status.is_ok_and(|status| status.success()) {
        return skip("no rsync");
    }
    pair.deletes = Deletes::Always;
    let before = owners(&pair.dst());
    let summary = pair.seed().unwrap();
    assert!(summary.in_sync && summary.failed.is_empty(), "{summary:?}");
    assert_eq!(owners(&pair.dst()), before);
    // What somebody changes there is put right.
    chown(pair.dst().join("directory/file-1"), Some(1), None).unwrap();
    lchown(pair.dst().join("link-3000000"), Some(3_000_000), None).unwrap();
    chown(pair.dst().join("directory"), Some(1), None).unwrap();
    let summary = pair.seed().unwrap();
    assert!(summary.in_sync && summary.failed.is_empty(), "{summary:?}");
    assert_eq!(owners(&pair.dst()), before);
    assert_idle(&pair.seed().unwrap());
}

/// Owners that turn up while a mirror is at work are mapped from their first file on.
#[test]
fn d_27_new_owners_under_a_live_mirror() {
    if !is_root() {
        return skip("giving files away needs root");
    }
    let mut pair = Pair::new();
    fs::write(pair.src().join("first"), "root's").unwrap();
    pair.owners = rules(&[
        "--usermap=5000000-5000099:nobody,daemon:bin",
        "--groupmap=5000000-5000099:daemon",
    ]);
    let receiver = pair.receive();
    let following = Following::start(pair.sender_options(receiver.address(), true));
    let arrived = |name: &str, uid: u32, gid: u32| {
        wait_until(name, || {
            fs::symlink_metadata(pair.dst().join(name))
                .is_ok_and(|meta| (meta.uid(), meta.gid()) == (uid, gid))
        });
    };
    arrived("first", 0, 0);
    for number in 0..40u32 {
        let aside = pair.path("aside");
        fs::write(&aside, vec![7; if number % 10 == 0 { 700_000 } else { 100 }]).unwrap();
        chown(&aside, Some(5_000_000 + number), Some(5_000_000 + number / 2)).unwrap();
        fs::rename(&aside, pair.src().join(format!("new-{number}"))).unwrap();
    }
    fs::create_dir(pair.src().join("directory")).unwrap();
    chown(pair.src().join("directory"), Some(1), Some(5_000_099)).unwrap();
    chown(pair.src().join("first"), Some(5_000_050), Some(44)).unwrap();
    for number in 0..40 {
        arrived(&format!("new-{number}"), 65_534, 1);
    }
    arrived("directory", 2, 1);
    arrived("first", 65_534, 44);
    let summary = following.stop().unwrap();
    assert!(summary.failed.is_empty(), "{summary:?}");
    receiver.stop();
    assert_verified(&pair);
    let summary = pair.seed().unwrap();
    assert!(summary.in_sync && summary.counters.files_sent == 0, "{summary:?}");
}

/// Who is to get something must exist: nothing is given to anybody else.
#[test]
fn d_27_a_name_that_the_target_lacks_is_refused() {
    if !is_root() {
        return skip("giving files away needs root");
    }
    let mut pair = Pair::new();
    fs::write(pair.src().join("file"), "x").unwrap();
    pair.owners = rules(&["--chown=nobody-has-this-name:daemon"]);
    let error = pair.seed().unwrap_err().to_string();
    assert!(error.contains("no user nobody-has-this-name"), "{error}");
    assert!(!pair.dst().join("file").exists());
    pair.owners = rules(&["--groupmap=*:nobody-has-this-name"]);
    let error = pair.seed().unwrap_err().to_string();
    assert!(error.contains("no group nobody-has-this-name"), "{error}");
    pair.owners = rules(&[]);
    assert!(pair.seed().unwrap().in_sync);
}
