//! Which symbolic links are mirrored, judged by rsync with the same options.

use crate::support::waiting::wait_until;
use crate::support::{Following, Pair, skip};
use driftless::daemon::Deletes;
use driftless::engine::links::LinkPolicy;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

const TEXTS: [&str; 16] = [
    "file",
    "..",
    "../file",
    "../..",
    "../../file",
    "../../../file",
    "/etc/passwd",
    "a/../file",
    "./file",
    "../a/..",
    "a//b",
    "..//file",
    "a/...",
    "..a",
    "../.",
    "./..",
];

fn fill(src: &Path) {
    fs::create_dir_all(src.join("a/b")).unwrap();
    for directory in ["", "a", "a/b"] {
        fs::write(src.join(directory).join("file"), "x").unwrap();
        for (number, text) in TEXTS.into_iter().enumerate() {
            symlink(text, src.join(directory).join(format!("link-{number}"))).unwrap();
        }
    }
}

fn links(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(path) = waiting.pop() {
        for entry in fs::read_dir(&path).unwrap() {
            let path = entry.unwrap().path();
            let file_type = fs::symlink_metadata(&path).unwrap().file_type();
            if file_type.is_dir() {
                waiting.push(path);
            } else if file_type.is_symlink() {
                let text = fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec();
                found.insert(path.strip_prefix(root).unwrap().to_owned(), text);
            }
        }
    }
    found
}

fn by_rsync(pair: &Pair, option: &str) -> Option<BTreeMap<PathBuf, Vec<u8>>> {
    let to = pair.path("by-rsync");
    let outcome = Command::new("rsync")
        .args(["-a", option])
        .args([format!("{}/", pair.src().display()), format!("{}/", to.display())])
        .status();
    if !outcome.is_ok_and(|status| status.success()) {
        skip("no rsync");
        return None;
    }
    let found = links(&to);
    fs::remove_dir_all(&to).unwrap();
    Some(found)
}

#[test]
fn d_29_links_are_kept_or_left_out_as_rsync_does() {
    let mut pair = Pair::new();
    pair.deletes = Deletes::Always;
    fill(&pair.src());
    for (policy, option) in [
        (LinkPolicy::Safe, "--safe-links"),
        (LinkPolicy::All, "--links"),
        (LinkPolicy::None, "--no-links"),
        (LinkPolicy::Safe, "--safe-links"),
    ] {
        pair.links = policy;
        let summary = pair.seed().unwrap();
        assert!(
            summary.in_sync && summary.failed.is_empty(),
            "{option}: {summary:?}"
        );
        let found = links(&pair.dst());
        if let Some(expected) = by_rsync(&pair, option) {
            assert_eq!(found, expected, "{option}");
        }
        let left_out = 3 * TEXTS.len() - found.len();
        assert_eq!(summary.counters.skipped, left_out as u64, "{option}: {summary:?}");
        crate::assert_verified(&pair);
    }
}

/// A link is judged by where it stands, also after its directory has moved.
#[test]
fn d_29_safe_links_under_a_live_mirror() {
    let mut pair = Pair::new();
    pair.links = LinkPolicy::Safe;
    let (src, dst) = (pair.src(), pair.dst());
    fs::create_dir_all(src.join("a/b/c")).unwrap();
    symlink("../../file", src.join("a/b/c/link")).unwrap();
    symlink("/etc", src.join("a/out")).unwrap();
    let receiver = pair.receive();
    let following = Following::start(pair.sender_options(receiver.address(), true));
    let is_there = |name: &str| fs::symlink_metadata(dst.join(name)).is_ok();
    wait_until("the seed", || is_there("a/b/c/link"));
    assert!(!is_there("a/out"));
    // One level below the root it leads out.
    fs::rename(src.join("a/b/c"), src.join("c")).unwrap();
    wait_until("a directory that moved up", || {
        is_there("c") && !is_there("c/link")
    });
    fs::rename(src.join("c"), src.join("a/b/d")).unwrap();
    wait_until("and down again", || is_there("a/b/d/link"));
    // In place of a safe one, and back.
    fs::remove_file(src.join("a/b/d/link")).unwrap();
    symlink("../../../../file", src.join("a/b/d/link")).unwrap();
    wait_until("one that leads out in its place", || !is_there("a/b/d/link"));
    fs::remove_file(src.join("a/b/d/link")).unwrap();
    symlink("x", src.join("a/b/d/link")).unwrap();
    wait_until("a safe one", || is_there("a/b/d/link"));
    assert!(following.stop().unwrap().failed.is_empty());
    receiver.stop();
    // It may have been stopped before the times of directories were set.
    assert!(pair.seed().unwrap().in_sync);
    crate::assert_verified(&pair);
}
