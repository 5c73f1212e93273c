//! Links that are mirrored as what they lead to, and links that lead nowhere on the target; judged by rsync with the same
//! options.

use crate::support::waiting::wait_until;
use crate::support::{Following, Pair, skip};
use driftless::daemon::{Deletes, WatchChoice, WatchOptions};
use driftless::engine::links::{FollowedLinks, LinkPolicy};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::Command;

const ALL: FollowedLinks = FollowedLinks {
    all: true,
    leading_out: false,
    to_directories: false,
};
const LEADING_OUT: FollowedLinks = FollowedLinks {
    all: false,
    leading_out: true,
    to_directories: false,
};
const TO_DIRECTORIES: FollowedLinks = FollowedLinks {
    all: false,
    leading_out: false,
    to_directories: true,
};
const NONE: FollowedLinks = FollowedLinks {
    all: false,
    leading_out: false,
    to_directories: false,
};

fn write(path: &Path, content: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// Links of every kind, to files and directories in the tree and outside of it.
fn fill(pair: &Pair) {
    let (src, out) = (pair.src(), pair.path("outside"));
    write(&src.join("file"), "in the tree");
    write(&src.join("dir/inner/deep"), "deep");
    write(&src.join("dir/two"), "with two names");
    fs::hard_link(src.join("dir/two"), src.join("dir/two-again")).unwrap();
    write(&out.join("file"), "outside");
    write(&out.join("tree/a/b"), "below");
    fs::create_dir(src.join("links")).unwrap();
    let link = |name: &str, text: &Path| symlink(text, src.join("links").join(name)).unwrap();
    link("to-file", Path::new("../file"));
    link("to-dir", Path::new("../dir"));
    link("to-two", Path::new("../dir/two"));
    link("by-the-root", Path::new("../dir/../file"));
    link("out-file", &out.join("file"));
    link("out-dir", &out.join("tree"));
    link("out-climbing", Path::new("../../outside/file"));
    // From link to link.
    symlink(out.join("tree"), out.join("current")).unwrap();
    link("chain", &out.join("current/a"));
    symlink("b", out.join("tree/a/c")).unwrap();
}

/// What rsync with these options would still do.
fn assert_rsync_agrees(pair: &Pair, options: &[&str]) {
    let output = Command::new("rsync")
        .args(["-aHAXnic", "--delete", "--exclude=.driftless*"])
        .args(options)
        .args([
            format!("{}/", pair.src().display()),
            format!("{}/", pair.dst().display()),
        ])
        .output();
    match output {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(
                output.status.success() && text.is_empty(),
                "{options:?}: {text}{errors}"
            );
        }
        Err(error) => skip(&format!("no rsync: {error}")),
    }
}

#[test]
fn links_are_followed_as_rsync_does() {
    let mut pair = Pair::new();
    pair.deletes = Deletes::Always;
    fill(&pair);
    for (follows, links, options) in [
        (ALL, LinkPolicy::All, &["--copy-links"][..]),
        (NONE, LinkPolicy::All, &[]),
        (LEADING_OUT, LinkPolicy::All, &["--copy-unsafe-links"]),
        (TO_DIRECTORIES, LinkPolicy::All, &["--copy-dirlinks"]),
        (
            LEADING_OUT,
            LinkPolicy::Safe,
            &["--copy-unsafe-links", "--safe-links"],
        ),
        (ALL, LinkPolicy::None, &["--copy-links", "--no-links"]),
    ] {
        pair.taken_as.followed_links = follows;
        pair.links = links;
        let summary = pair.seed().unwrap();
        assert!(
            summary.in_sync && summary.failed.is_empty(),
            "{options:?}: {summary:?}"
        );
        assert_rsync_agrees(&pair, options);
        crate::assert_verified(&pair);
        let again = pair.seed().unwrap();
        assert_eq!(again.counters.files_sent, 0, "{options:?}: {again:?}");
    }
}

/// What links lead to is read only if an option says so, whatever was asked before.
#[test]
fn nothing_outside_is_read_without_an_option() {
    let pair = Pair::new();
    fill(&pair);
    assert!(pair.seed().unwrap().in_sync);
    pair.assert_equal();
    let meta = fs::symlink_metadata(pair.dst().join("links/out-file")).unwrap();
    assert!(meta.is_symlink());
}

#[test]
fn circles_and_links_that_lead_nowhere_are_left_out_and_told() {
    let mut pair = Pair::new();
    pair.taken_as.followed_links = ALL;
    let (src, out) = (pair.src(), pair.path("outside"));
    write(&src.join("a/b/file"), "x");
    symlink("../..", src.join("a/b/up")).unwrap();
    symlink(".", src.join("a/self")).unwrap();
    symlink("itself", src.join("itself")).unwrap();
    symlink("nothing", src.join("dangling")).unwrap();
    // Out of the tree and back.
    fs::create_dir(&out).unwrap();
    symlink(&src, out.join("back")).unwrap();
    symlink(&out, src.join("a/out")).unwrap();
    let receiver = pair.receive();
    let following = Following::start(pair.sender_options(receiver.address(), true));
    following.watching.wait_in_sync();
    let warnings = following.watching.said().warnings;
    assert!(following.stop().unwrap().failed.is_empty());
    receiver.stop();
    for (name, why) in [
        ("a/b/up", "contain itself"),
        ("a/self", "contain itself"),
        ("a/out/back", "contain itself"),
        ("itself", "leads nowhere"),
        ("dangling", "leads nowhere"),
    ] {
        let told = warnings
            .iter()
            .any(|line| line.contains(&format!("/{name} ")) && line.contains(why));
        assert!(told, "{name}: {warnings:?}");
        assert!(fs::symlink_metadata(pair.dst().join(name)).is_err(), "{name}");
    }
    assert_eq!(fs::read(pair.dst().join("a/b/file")).unwrap(), b"x");
    assert!(pair.dst().join("a/out").is_dir());
    crate::assert_verified(&pair);
}

fn has(path: &Path, content: &str) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file())
        && fs::read(path).is_ok_and(|found| found == content.as_bytes())
}

/// What is behind links is watched: in the tree, outside of it, and all of the way there.
fn follow_live(choice: WatchChoice) {
    let mut pair = Pair::new();
    pair.deletes = Deletes::Always;
    pair.taken_as.followed_links = ALL;
    pair.watch = WatchOptions {
        choice,
        ..WatchOptions::default()
    };
    fill(&pair);
    let (src, out, dst) = (pair.src(), pair.path("outside"), pair.dst());
    let receiver = pair.receive();
    let following = Following::start(pair.sender_options(receiver.address(), true));
    following.watching.wait_in_sync();
    let there = |name: &str| dst.join("links").join(name);
    fs::write(out.join("file"), "outside, again").unwrap();
    wait_until("a file outside", || {
        has(&there("out-file"), "outside, again") && has(&there("out-climbing"), "outside, again")
    });
    fs::write(src.join("file"), "in the tree, again").unwrap();
    wait_until("a file in the tree, under all of its names", || {
        has(&dst.join("file"), "in the tree, again")
            && has(&there("to-file"), "in the tree, again")
            && has(&there("by-the-root"), "in the tree, again")
    });
    write(&out.join("tree/new/file"), "new");
    wait_until("a new directory outside", || {
        has(&there("out-dir/new/file"), "new")
    });
    write(&src.join("dir/inner/new"), "new");
    wait_until("a directory of the tree, at both places", || {
        has(&dst.join("dir/inner/new"), "new") && has(&there("to-dir/inner/new"), "new")
    });
    fs::write(src.join("links/to-dir/inner/new"), "newer").unwrap();
    wait_until("and written by way of the link", || {
        has(&dst.join("dir/inner/new"), "newer") && has(&there("to-dir/inner/new"), "newer")
    });
    // A release is switched.
    write(&out.join("next/a/b"), "the next one");
    symlink("next", out.join("switch")).unwrap();
    fs::rename(out.join("switch"), out.join("current")).unwrap();
    wait_until("a link on the way", || has(&there("chain/b"), "the next one"));
    write(&out.join("next/a/later"), "later");
    wait_until("what is behind it now", || has(&there("chain/later"), "later"));
    // An editor's save, and a directory on the way that is moved off and comes back.
    write(&out.join("file.new"), "saved");
    fs::rename(out.join("file.new"), out.join("file")).unwrap();
    wait_until("a file that was renamed over", || {
        has(&there("out-file"), "saved")
    });
    fs::rename(&out, pair.path("elsewhere")).unwrap();
    wait_until("what leads nowhere goes", || {
        !there("out-file").exists() && !there("out-dir").exists()
    });
    fs::rename(pair.path("elsewhere"), &out).unwrap();
    wait_until("and comes back", || {
        has(&there("out-file"), "saved") && has(&there("out-dir/a/b"), "below")
    });
    fs::write(out.join("tree/a/b"), "changed after that").unwrap();
    wait_until("and is watched", || {
        has(&there("out-dir/a/b"), "changed after that")
    });
    // A link that goes, one that becomes another, and the last name of a directory that is left.
    fs::remove_file(src.join("links/out-dir")).unwrap();
    fs::remove_file(src.join("links/to-file")).unwrap();
    symlink(out.join("file"), src.join("links/to-file")).unwrap();
    wait_until("links that changed", || {
        !there("out-dir").exists() && has(&there("to-file"), "saved")
    });
    fs::rename(src.join("dir"), out.join("dir")).unwrap();
    fs::remove_file(src.join("links/to-dir")).unwrap();
    symlink(out.join("dir"), src.join("links/to-dir")).unwrap();
    wait_until("a directory that left the tree", || {
        !dst.join("dir").exists() && has(&there("to-dir/inner/new"), "newer")
    });
    fs::write(out.join("dir/inner/new"), "newest").unwrap();
    wait_until("and is watched there", || {
        has(&there("to-dir/inner/new"), "newest")
    });
    following.watching.wait_in_sync();
    assert!(following.stop().unwrap().failed.is_empty());
    receiver.stop();
    // They lead nowhere now.
    fs::remove_file(src.join("links/to-two")).unwrap();
    fs::remove_file(src.join("links/by-the-root")).unwrap();
    assert!(pair.seed().unwrap().in_sync);
    assert_rsync_agrees(&pair, &["--copy-links"]);
    crate::assert_verified(&pair);
}

#[test]
fn what_links_lead_to_is_followed_live() {
    follow_live(WatchChoice::Auto);
}

#[test]
fn what_links_lead_to_is_followed_live_by_inotify() {
    follow_live(WatchChoice::Inotify);
}

fn text(path: &Path) -> String {
    let text = fs::read_link(path).unwrap();
    String::from_utf8_lossy(text.as_os_str().as_bytes()).into_owned()
}

#[test]
fn munged_links_lead_nowhere_and_come_back() {
    let mut pair = Pair::new();
    pair.kept_as.munged_links = true;
    let src = pair.src();
    fs::create_dir(src.join("d")).unwrap();
    let texts = ["/etc/passwd", "d", "/rsyncd-munged/x", "../.."];
    for (number, text) in texts.into_iter().enumerate() {
        symlink(text, src.join(format!("d/{number}"))).unwrap();
    }
    let summary = pair.seed().unwrap();
    assert!(summary.in_sync && summary.failed.is_empty(), "{summary:?}");
    for (number, wanted) in texts.into_iter().enumerate() {
        let path = pair.dst().join(format!("d/{number}"));
        assert_eq!(text(&path), format!("/rsyncd-munged/{wanted}"));
    }
    assert_eq!(pair.seed().unwrap().counters.files_sent, 0);
    crate::assert_verified(&pair);
    // rsync reads them as they were.
    let by_rsync = pair.path("by-rsync");
    let outcome = Command::new("rsync")
        .args(["-a", "--munge-links", "--exclude=.driftless*"])
        .args([
            format!("{}/", pair.dst().display()),
            format!("{}/", by_rsync.display()),
        ])
        .status();
    match outcome {
        Ok(status) => {
            assert!(status.success());
            for (number, wanted) in texts.into_iter().enumerate() {
                assert_eq!(text(&by_rsync.join(format!("d/{number}"))), wanted);
            }
        }
        Err(error) => skip(&format!("no rsync: {error}")),
    }
    // Somebody put one there without the prefix: it is put right.
    let odd = pair.dst().join("d/0");
    fs::remove_file(&odd).unwrap();
    symlink("/etc/passwd", &odd).unwrap();
    assert!(pair.seed().unwrap().in_sync);
    assert_eq!(text(&odd), "/rsyncd-munged//etc/passwd");
    // And so do we, out of what is kept like that.
    let mut back = Pair::new();
    back.taken_as.unmunged_links = true;
    fs::create_dir(back.src().join("d")).unwrap();
    for number in 0..texts.len() {
        let name = format!("d/{number}");
        symlink(text(&pair.dst().join(&name)), back.src().join(&name)).unwrap();
    }
    symlink("plain", back.src().join("plain")).unwrap();
    assert!(back.seed().unwrap().in_sync);
    for (number, wanted) in texts.into_iter().enumerate() {
        let path = back.dst().join(format!("d/{number}"));
        assert_eq!(text(&path), wanted);
        assert_eq!(fs::symlink_metadata(&path).unwrap().size(), wanted.len() as u64);
    }
    assert_eq!(text(&back.dst().join("plain")), "plain");
    crate::assert_verified(&back);
}
