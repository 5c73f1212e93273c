//! Roots that are not what they were: unmounted, exchanged, replaced, made again; on both ends.

mod support;

use driftless::daemon::home::Home;
use driftless::daemon::receiver::ReceiverDaemon;
use driftless::daemon::{DaemonError, Deletes, roots};
use driftless_protocol::RelPath;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use support::image::Image;
use support::{Pair, assert_equal, runtime};

/// A file system for a test: one that loop images of can be made.
const KINDS: [&str; 2] = ["ext4", "xfs"];

/// A pair with something to mirror.
fn pair() -> Pair {
    let pair = Pair::new();
    fs::create_dir(pair.src().join("d")).unwrap();
    fs::write(pair.src().join("d/file"), "content").unwrap();
    pair
}

/// Has a path of the pair lead to another directory.
fn lead(path: &Path, to: &Path) {
    match path.symlink_metadata() {
        Ok(meta) if meta.is_dir() => fs::remove_dir(path).unwrap(),
        Ok(_) => fs::remove_file(path).unwrap(),
        Err(_) => {}
    }
    symlink(to, path).unwrap();
}

fn refused(pair: &Pair) -> String {
    let started = ReceiverDaemon::start(pair.receiver_options(), &runtime());
    let Err(DaemonError::Failed(text)) = started else {
        panic!("the root was taken");
    };
    let dst = pair.dst().display().to_string();
    let remedy = format!("driftless approve --root {dst}");
    for word in ["nothing was written", dst.as_str(), remedy.as_str()] {
        assert!(text.contains(word), "no {word:?} in {text}");
    }
    text
}

fn approve(pair: &Pair, home: &str, root: &Path) -> Result<Vec<String>, Vec<String>> {
    roots::approve(&Home::at(pair.path(home)), &root.display().to_string()).unwrap()
}

fn in_sync(pair: &Pair) {
    let summary = pair.seed().unwrap();
    assert!(summary.in_sync && summary.failed.is_empty(), "{summary:?}");
    pair.assert_equal();
}

fn is_empty(path: &Path) -> bool {
    fs::read_dir(path).unwrap().next().is_none()
}

#[test]
fn a_target_that_is_not_mounted_is_not_filled_below() {
    for kind in KINDS {
        let Some(mut image) = Image::new(kind) else {
            continue;
        };
        let mut pair = pair();
        pair.deletes = Deletes::Always;
        lead(&pair.dst(), &image.path());
        in_sync(&pair);
        image.unmount();
        for _ in 0..2 {
            let text = refused(&pair);
            assert!(text.contains("another file system"), "{kind}: {text}");
            assert!(is_empty(&image.path()), "{kind}");
        }
        image.mount_again();
        fs::write(pair.src().join("later"), "later").unwrap();
        in_sync(&pair);
        // Nothing is left that would let the next one through.
        image.unmount();
        refused(&pair);
        image.mount_again();
    }
}

/// The target is a path below the module's root: that root counts, before anything is made in it.
#[test]
fn a_module_that_is_not_mounted_gets_no_paths() {
    let Some(mut image) = Image::new("ext4") else {
        return;
    };
    let mut pair = pair();
    pair.deletes = Deletes::Always;
    lead(&pair.dst(), &image.path());
    let below = |pair: &Pair, receiver: &ReceiverDaemon| {
        let mut options = pair.sender_options(receiver.address(), false);
        options.target.path = RelPath::parse(b"a/b").unwrap();
        options.gives_up = true;
        let silent = std::sync::Arc::new(driftless::daemon::Silent);
        driftless::daemon::sender::run(&options, &runtime(), silent, &Default::default())
    };
    let receiver = pair.receive();
    assert!(below(&pair, &receiver).unwrap().in_sync);
    assert_equal(&pair.src(), &image.path().join("a/b"));
    receiver.stop();
    image.unmount();
    refused(&pair);
    assert!(is_empty(&image.path()));
    image.mount_again();
    // Nor while it runs.
    let receiver = pair.receive();
    assert!(below(&pair, &receiver).unwrap().in_sync);
    image.detach();
    fs::write(pair.src().join("later"), "later").unwrap();
    let error = below(&pair, &receiver).unwrap_err().to_string();
    assert!(
        error.contains("not the directory that was written to before"),
        "{error}"
    );
    assert!(is_empty(&image.path()), "{error}");
    receiver.stop();
}

#[test]
fn a_new_disk_is_adopted_by_one_command() {
    for kind in KINDS {
        let (Some(old), Some(new)) = (Image::new(kind), Image::new(kind)) else {
            continue;
        };
        let mut pair = pair();
        pair.deletes = Deletes::Always;
        lead(&pair.dst(), &old.path());
        in_sync(&pair);
        let _ = fs::remove_dir(new.path().join("lost+found"));
        fs::write(new.path().join("somebody's"), "other").unwrap();
        lead(&pair.dst(), &new.path());
        assert_eq!(approve(&pair, "home-r", &pair.dst()), Err(vec![]));
        refused(&pair);
        let elsewhere = approve(&pair, "home-r", Path::new("/nowhere"));
        assert_eq!(elsewhere, Err(vec![pair.dst().display().to_string()]));
        // By another way to it.
        approve(&pair, "home-r", &new.path()).unwrap();
        // What was approved is that disk, and no other.
        lead(&pair.dst(), &pair.path("home-s"));
        refused(&pair);
        lead(&pair.dst(), &new.path());
        // A first contact: without being told to, nothing would be deleted.
        pair.deletes = Deletes::Ask;
        let asked = pair.seed().unwrap_err().to_string();
        assert!(
            asked.contains("--delete always") && new.path().join("somebody's").exists(),
            "{asked}"
        );
        pair.deletes = Deletes::Always;
        in_sync(&pair);
        assert_equal(&pair.src(), &new.path());
    }
}

/// A copy with everything that is in the old one is recognised, wherever it is.
#[test]
fn a_copy_on_another_disk_needs_no_approval() {
    let Some(image) = Image::new("ext4") else { return };
    let pair = pair();
    in_sync(&pair);
    let _ = fs::remove_dir(image.path().join("lost+found"));
    let copied = Command::new("cp")
        .args(["-a", "."])
        .arg(image.path())
        .current_dir(pair.dst())
        .status();
    assert!(copied.unwrap().success());
    fs::rename(pair.dst(), pair.path("former")).unwrap();
    lead(&pair.dst(), &image.path());
    fs::write(pair.src().join("later"), "later").unwrap();
    in_sync(&pair);
    assert!(!pair.path("former").join("later").exists());
}

#[test]
fn another_tree_at_the_path_is_never_cleaned_up() {
    let mut pair = pair();
    pair.deletes = Deletes::Always;
    in_sync(&pair);
    fs::rename(pair.dst(), pair.path("former")).unwrap();
    fs::create_dir(pair.dst()).unwrap();
    fs::write(pair.dst().join("precious"), "somebody's").unwrap();
    let text = refused(&pair);
    assert!(text.contains("moved or replaced"), "{text}");
    assert_eq!(
        fs::read_to_string(pair.dst().join("precious")).unwrap(),
        "somebody's"
    );
    // Nor is the target of another mirror, though it has as many generations.
    let (mut pair, other) = (self::pair(), self::pair());
    pair.deletes = Deletes::Always;
    fs::write(other.src().join("other"), "of the other").unwrap();
    for pair in [&pair, &other] {
        in_sync(pair);
        in_sync(pair);
    }
    fs::rename(pair.dst(), pair.path("former")).unwrap();
    fs::rename(other.dst(), pair.dst()).unwrap();
    refused(&pair);
    assert!(pair.dst().join("other").exists());
    // An older, empty directory may be where something has to be mounted.
    let pair = self::pair();
    fs::create_dir(pair.path("older")).unwrap();
    in_sync(&pair);
    fs::rename(pair.dst(), pair.path("former")).unwrap();
    fs::rename(pair.path("older"), pair.dst()).unwrap();
    refused(&pair);
    assert!(is_empty(&pair.dst()));
}

#[test]
fn a_target_that_was_removed_and_made_again_is_filled_again() {
    let pair = pair();
    in_sync(&pair);
    fs::remove_dir_all(pair.dst()).unwrap();
    fs::create_dir(pair.dst()).unwrap();
    in_sync(&pair);
}

/// Both file systems have the same number for their root.
#[test]
fn a_source_on_another_file_system_deletes_nothing() {
    for kind in KINDS {
        let (Some(old), Some(new)) = (Image::new(kind), Image::new(kind)) else {
            continue;
        };
        let mut pair = pair();
        pair.deletes = Deletes::Always;
        for image in [&old, &new] {
            let _ = fs::remove_dir(image.path().join("lost+found"));
        }
        fs::remove_dir_all(pair.src()).unwrap();
        lead(&pair.src(), &old.path());
        fs::write(old.path().join("file"), "old").unwrap();
        in_sync(&pair);
        fs::write(new.path().join("other"), "new").unwrap();
        lead(&pair.src(), &new.path());
        let text = pair.seed().unwrap_err().to_string();
        assert!(
            text.contains("nothing deleted") && text.contains("driftless approve --root"),
            "{text}"
        );
        assert!(pair.dst().join("file").exists());
        approve(&pair, "home-s", &pair.src()).unwrap();
        in_sync(&pair);
        // For once.
        lead(&pair.src(), &old.path());
        assert!(pair.seed().is_err(), "{kind}");
        assert!(pair.dst().join("other").exists());
    }
}

/// What mkfs leaves in a new file system is no content.
#[test]
fn a_source_with_nothing_but_lost_and_found_is_empty() {
    let Some(image) = Image::new("ext4") else { return };
    let mut pair = pair();
    pair.deletes = Deletes::Always;
    fs::remove_dir_all(pair.src()).unwrap();
    lead(&pair.src(), &image.path());
    assert!(image.path().join("lost+found").exists());
    // Nothing else was ever there: no reason to doubt.
    in_sync(&pair);
    in_sync(&pair);
    fs::write(image.path().join("file"), "file").unwrap();
    in_sync(&pair);
    fs::remove_file(image.path().join("file")).unwrap();
    let text = pair.seed().unwrap_err().to_string();
    assert!(text.contains("is empty"), "{text}");
    assert!(pair.dst().join("file").exists());
    approve(&pair, "home-s", &pair.src()).unwrap();
    in_sync(&pair);
    assert!(!pair.dst().join("file").exists());
}

/// The commands, from the refusal to the end.
#[test]
fn the_command_that_the_refusal_names_is_the_remedy() {
    let pair = pair();
    let driftless = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_driftless"))
            .args(arguments)
            .env("DRIFTLESS_HOME", pair.path("home-r"))
            .env_remove("RUST_LOG")
            .current_dir(pair.directory.path())
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    };
    let mirror = || driftless(&["mirror", "--once", "src", "dst"]);
    assert_eq!(mirror().0, Some(0));
    let (status, text) = driftless(&["approve", "--root", "dst"]);
    assert!(status == Some(1) && text.contains("none was"), "{text}");
    fs::rename(pair.dst(), pair.path("former")).unwrap();
    fs::create_dir(pair.dst()).unwrap();
    fs::write(pair.dst().join("precious"), "somebody's").unwrap();
    let (status, text) = mirror();
    assert_eq!(status, Some(1), "{text}");
    let remedy = text.split('`').nth(1).unwrap();
    let words: Vec<_> = remedy.split(' ').skip(1).collect();
    assert_eq!(words[..2], ["approve", "--root"], "{text}");
    let (status, text) = driftless(&words);
    assert!(status == Some(0) && text.starts_with("approved: "), "{text}");
    // A first contact: what is there is asked about.
    let (status, text) = mirror();
    assert!(status == Some(1) && text.contains("--delete always"), "{text}");
    let kept = driftless(&["mirror", "--once", "--delete", "never", "src", "dst"]);
    assert_eq!(kept.0, Some(0), "{kept:?}");
    assert!(pair.dst().join("precious").exists() && pair.dst().join("d/file").exists());
    // A destination that a mirror would make where nothing is mounted.
    let usage = driftless(&["approve", "dst"]);
    assert_eq!(usage.0, Some(2), "{usage:?}");
}
