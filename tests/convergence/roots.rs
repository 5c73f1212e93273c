//! What becomes of the root of a source, and of file systems that are mounted in it.

use crate::mirror::{CHOICES, Mirror, identities, watched_by};
use crate::support::image::{Image, Mounted};
use crate::support::waiting::wait_until;
use crate::support::{Pair, is_root, skip, tree};
use driftless::daemon::WatchChoice;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

/// A root of `name` in the pair's directory, filled and mirrored.
fn mirrored(choice: WatchChoice) -> Mirror {
    let mut pair = Pair::new();
    watched_by(&mut pair, choice);
    for name in ["a/b/one", "a/two", "three"] {
        fs::create_dir_all(pair.src().join(name).parent().unwrap()).unwrap();
        fs::write(pair.src().join(name), name).unwrap();
    }
    Mirror::start(pair)
}

/// What is done to a root, given it and a name that is free beside it.
type Blow = fn(&Path, &Path);

const BLOWS: [(&str, Blow); 5] = [
    ("renamed", |root, aside| fs::rename(root, aside).unwrap()),
    ("replaced by a directory", |root, aside| {
        fs::rename(root, aside).unwrap();
        fs::create_dir(root).unwrap();
        fs::write(root.join("other"), b"of another tree").unwrap();
    }),
    ("replaced by an empty directory", |root, aside| {
        fs::rename(root, aside).unwrap();
        fs::create_dir(root).unwrap();
    }),
    ("replaced by a file", |root, aside| {
        fs::rename(root, aside).unwrap();
        fs::write(root, b"a file").unwrap();
    }),
    ("replaced by a link", |root, aside| {
        let elsewhere = aside.with_extension("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        fs::write(elsewhere.join("other"), b"of another tree").unwrap();
        fs::rename(root, aside).unwrap();
        symlink(elsewhere, root).unwrap();
    }),
];

/// Undoes any of them.
fn put_back(root: &Path, aside: &Path) {
    match fs::symlink_metadata(root) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(root).unwrap(),
        Ok(_) => fs::remove_file(root).unwrap(),
        Err(_) => {}
    }
    fs::rename(aside, root).unwrap();
}

#[test]
fn d_14_a_root_that_is_moved_or_replaced_halts_and_deletes_nothing() {
    for choice in CHOICES {
        for (what, blow) in BLOWS {
            let mut mirror = mirrored(choice);
            let (src, dst, aside) = (mirror.pair.src(), mirror.pair.dst(), mirror.pair.path("aside"));
            let before = identities(&dst);
            blow(&src, &aside);
            let error = mirror.halted();
            assert!(error.contains("nothing deleted"), "{choice:?}, {what}: {error}");
            mirror.pause().expect_err("it halted");
            assert_eq!(identities(&dst), before, "{choice:?}, {what}");
            // Nor when it is started again; but when the root is back, it goes on.
            let again = mirror.pair.seed_to(mirror.address());
            assert!(again.is_err(), "{choice:?}, {what}: {again:?}");
            assert_eq!(identities(&dst), before, "{choice:?}, {what}, again");
            put_back(&src, &aside);
            fs::write(src.join("three"), b"after all").unwrap();
            mirror.resume();
            mirror.settle();
            mirror.end();
        }
    }
}

/// While nobody watches.
#[test]
fn d_14_a_root_that_is_another_at_the_start_halts_and_deletes_nothing() {
    let emptied: Blow = |root, aside| {
        fs::create_dir(aside).unwrap();
        for entry in fs::read_dir(root).unwrap() {
            let entry = entry.unwrap();
            fs::rename(entry.path(), aside.join(entry.file_name())).unwrap();
        }
    };
    for (what, blow) in BLOWS.into_iter().chain([("emptied", emptied)]) {
        let mut mirror = mirrored(WatchChoice::Auto);
        mirror.pause().unwrap();
        let before = tree(&mirror.pair.dst());
        blow(&mirror.pair.src(), &mirror.pair.path("aside"));
        let again = mirror.pair.seed_to(mirror.address());
        assert!(again.is_err(), "{what}: {again:?}");
        assert_eq!(tree(&mirror.pair.dst()), before, "{what}");
        mirror.stop();
    }
}

fn has_fanotify() -> bool {
    let mirror = Mirror::start(Pair::new());
    let watcher = mirror.said().watcher;
    mirror.end();
    if watcher != "fanotify" {
        skip(&format!("{watcher} watches here"));
    }
    watcher == "fanotify"
}

/// An empty root is removed.
fn removed(choice: WatchChoice) {
    let mut pair = Pair::new();
    watched_by(&mut pair, choice);
    let mut mirror = Mirror::start(pair);
    fs::remove_dir(mirror.pair.src()).unwrap();
    let error = mirror.halted();
    assert!(error.contains("nothing deleted"), "{choice:?}: {error}");
    mirror.pause().expect_err("it halted");
    assert!(mirror.pair.dst().is_dir());
    mirror.stop();
}

#[test]
fn d_14_a_root_that_is_removed_halts() {
    removed(WatchChoice::Poll);
    removed(WatchChoice::Inotify);
    if has_fanotify() {
        removed(WatchChoice::Fanotify);
    }
}

/// The place where it was mounted is empty, and another directory.
#[test]
fn d_13_a_root_that_is_not_mounted_deletes_nothing() {
    let mut pair = Pair::new();
    let Some(mut image) = Image::new("ext4") else {
        return;
    };
    fs::remove_dir(pair.src()).unwrap();
    symlink(image.path(), pair.src()).unwrap();
    watched_by(&mut pair, WatchChoice::Auto);
    fs::write(image.path().join("file"), b"file").unwrap();
    let outcome = pair.seed();
    assert!(outcome.is_ok_and(|summary| summary.in_sync));
    let before = identities(&pair.dst());
    assert!(before.contains_key(Path::new("file")));
    image.detach();
    let again = pair.seed().unwrap_err().to_string();
    assert!(again.contains("nothing deleted"), "{again}");
    assert_eq!(identities(&pair.dst()), before);
}

/// What was mounted in the tree is out of sight, and not gone: nothing is deleted, whether the sender runs or not, and
/// whether the mount point stays or not.
#[test]
fn d_13_what_is_unmounted_below_the_root_is_not_deleted() {
    for choice in CHOICES {
        for (is_running, is_removed) in [(true, false), (true, true), (false, false), (false, true)] {
            let mut pair = Pair::new();
            watched_by(&mut pair, choice);
            let Some(mut image) = Image::new("ext4") else {
                return;
            };
            let (src, point) = (pair.src(), pair.src().join("d/point"));
            fs::create_dir_all(&point).unwrap();
            fs::create_dir_all(image.path().join("x/y")).unwrap();
            fs::write(image.path().join("x/y/file"), b"file").unwrap();
            let path = image.path().display().to_string();
            let mount = Mounted::new(&["--bind", &path], &point).unwrap();
            let mut mirror = Mirror::start(pair);
            let before = identities(&mirror.pair.dst());
            assert!(before.contains_key(Path::new("d/point/x/y/file")));
            if !is_running {
                mirror.pause().unwrap();
            }
            mount.unmount();
            if is_removed {
                fs::remove_dir(&point).unwrap();
            }
            // The directory is looked at, and another change arrives.
            fs::write(src.join("d/other"), b"other").unwrap();
            if !is_running {
                mirror.resume();
            }
            let there = mirror.pair.dst();
            wait_until("the other change", || there.join("d/other").exists());
            let text = "not mounted any more";
            if is_removed || !is_running {
                wait_until("a warning", || {
                    mirror.said().warnings.iter().any(|told| told.contains(text))
                });
            }
            let after = identities(&there);
            for (path, identity) in before.iter().filter(|(path, _)| path.starts_with("d/point/x")) {
                assert_eq!(
                    after.get(path),
                    Some(identity),
                    "{choice:?}, {is_running}, {is_removed}: {path:?}"
                );
            }
            // Back, and with something new.
            if is_removed {
                fs::create_dir(&point).unwrap();
            }
            fs::write(image.path().join("x/new"), b"new").unwrap();
            mirror.pause().unwrap();
            let mount = Mounted::new(&["--bind", &path], &point).unwrap();
            mirror.resume();
            mirror.settle();
            assert_eq!(fs::read(there.join("d/point/x/new")).unwrap(), b"new");
            mirror.pause().unwrap();
            // Removed for good, the user says.
            mount.unmount();
            mirror.pair.accept_root = true;
            assert!(
                mirror
                    .pair
                    .seed_to(mirror.address())
                    .is_ok_and(|summary| summary.in_sync)
            );
            assert!(!there.join("d/point/x").exists());
            mirror.stop();
            image.detach();
        }
    }
}

/// A file system that is mounted in the tree is part of it, by whatever it has to be watched.
#[test]
fn d_13_file_systems_mounted_below_the_root_are_mirrored() {
    if !is_root() {
        return skip("mounting needs root");
    }
    let mut pair = Pair::new();
    watched_by(&mut pair, WatchChoice::Auto);
    let (inner, bound) = (pair.src().join("inner"), pair.src().join("bound"));
    for directory in [&inner, &bound, &pair.path("elsewhere")] {
        fs::create_dir(directory).unwrap();
    }
    let tmpfs = Mounted::new(&["-t", "tmpfs", "tmpfs"], &inner).unwrap();
    let elsewhere = pair.path("elsewhere").display().to_string();
    let bind = Mounted::new(&["--bind", &elsewhere], &bound).unwrap();
    fs::write(inner.join("first"), b"first").unwrap();
    fs::write(bound.join("first"), b"first").unwrap();
    let mirror = Mirror::start(pair);
    fs::create_dir(inner.join("d")).unwrap();
    fs::write(inner.join("d/second"), b"second").unwrap();
    // Through the other way in, where nobody watches by name.
    fs::write(mirror.pair.path("elsewhere/second"), b"second").unwrap();
    mirror.settle();
    let pair = mirror.pair.dst();
    assert_eq!(fs::read(pair.join("inner/d/second")).unwrap(), b"second");
    mirror.end();
    drop((tmpfs, bind));
}
