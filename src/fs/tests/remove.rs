//! Removing trees.

use super::*;
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
fn files_links_and_trees_are_removed_and_counted() {
    let place = Place::new();
    place.mkdir("t/a/b");
    place.mkdir("t/c");
    for n in ["t/1", "t/a/2", "t/a/b/3", "f"] {
        place.write(n, "x");
    }
    place.symlink("..", "t/a/up");
    place.fifo("t/c/fifo");
    let remove = |n: &str| place.dir.remove_tree(&name(n));
    assert_eq!(remove("t").unwrap(), 9);
    assert_eq!(remove("f").unwrap(), 1);
    assert_eq!(remove("f").unwrap_err().kind(), FsErrorKind::NotFound);
    assert_eq!(place.names(), [""; 0]);
}

#[test]
fn single_removals_know_their_kind() {
    let place = Place::new();
    place.mkdir("d/x");
    place.write("f", "");
    let dir = &place.dir;
    assert_eq!(
        dir.remove_file(&name("d")).unwrap_err().kind(),
        FsErrorKind::Substituted
    );
    assert_eq!(
        dir.remove_dir(&name("f")).unwrap_err().kind(),
        FsErrorKind::Substituted
    );
    assert_eq!(
        dir.remove_dir(&name("d")).unwrap_err().kind(),
        FsErrorKind::NotEmpty
    );
    dir.remove_file(&name("f")).unwrap();
    assert_eq!(
        dir.remove_file(&name("f")).unwrap_err().kind(),
        FsErrorKind::NotFound
    );
    dir.open_dir(&name("d")).unwrap().remove_dir(&name("x")).unwrap();
    dir.remove_dir(&name("d")).unwrap();
}

/// Deeper than a path, the stack of a thread and the limit of open files would allow.
#[test]
fn a_very_deep_tree_is_removed() {
    let place = Place::new();
    let mut at = place.dir.make_dir(&name("deep")).unwrap();
    for level in 0..3_000 {
        if level % 100 == 0 {
            let staged = Staged::create(Arc::new(at.try_clone().unwrap())).unwrap();
            staged.publish(&name("file")).unwrap();
            at.make_dir(&name("side")).unwrap();
        }
        at = at
            .make_dir(&name(
                "a name of some length, so that no path could hold all of it",
            ))
            .unwrap();
    }
    drop(at);
    let small_stack = std::thread::Builder::new().stack_size(128 << 10);
    let removed = std::thread::scope(|scope| {
        let thread = small_stack
            .spawn_scoped(scope, || place.dir.remove_tree(&name("deep")))
            .unwrap();
        thread.join().unwrap()
    });
    assert_eq!(removed.unwrap(), 3_001 + 30 + 30);
    assert_eq!(place.names(), [""; 0]);
}

#[test]
fn other_reserved_names_stay_and_private_ones_go() {
    let place = Place::new();
    place.mkdir("t/kept");
    place.mkdir("t/gone");
    place.write("t/kept/.driftless-generation", "");
    place.write("t/kept/x", "");
    place.write("t/gone/.driftless-0123456789abcdef", "");
    let error = place.dir.remove_tree(&name("t")).unwrap_err();
    assert_eq!(error.kind(), FsErrorKind::NotEmpty, "{error}");
    assert!(error.path().ends_with("t/kept/.driftless-generation"));
    let kept = std::fs::read_dir(place.path().join("t")).unwrap().count();
    assert_eq!(kept, 1, "everything else went");
}

#[test]
fn what_may_not_be_removed_stops_nothing_else() {
    let place = Place::new();
    place.mkdir("t/locked");
    place.write("t/locked/f", "");
    for at in 0..20 {
        place.write(&format!("t/{at}"), "");
    }
    let locked = place.path().join("t/locked");
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&locked, std::fs::Permissions::from_mode(0o500)).unwrap();
    let result = place.dir.remove_tree(&name("t"));
    if is_root() {
        assert_eq!(result.unwrap(), 23);
    } else {
        assert_eq!(result.unwrap_err().kind(), FsErrorKind::Permission);
        assert_eq!(std::fs::read_dir(place.path().join("t")).unwrap().count(), 1);
        std::fs::set_permissions(&locked, std::fs::Permissions::from_mode(0o700)).unwrap();
    }
}

/// S-02: while a tree is removed, somebody puts links to the outside in the place of its directories.
#[test]
fn s02_a_swapped_link_never_carries_a_removal_outside() {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    let (outside, place) = (Place::new(), Place::new());
    for n in ["a", "b", "c"] {
        outside.write(n, "kept");
    }
    place.mkdir("attack");
    place.symlink(outside.path(), "attack/link");
    for _ in 0..60 {
        for sub in 0..20 {
            place.mkdir(&format!("t/{sub}/inner"));
            place.write(&format!("t/{sub}/inner/f"), "");
        }
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let link = place.path().join("attack/link");
                while !done.load(Ordering::Relaxed) {
                    for sub in 0..20 {
                        for at in [format!("t/{sub}"), format!("t/{sub}/inner")] {
                            let at = place.path().join(at);
                            let _ = renameat_with(CWD, &link, CWD, &at, RenameFlags::EXCHANGE);
                            let _ = renameat_with(CWD, &link, CWD, &at, RenameFlags::EXCHANGE);
                        }
                    }
                }
            });
            let _ = place.dir.remove_tree(&name("t"));
            done.store(true, Ordering::Relaxed);
        });
        assert_eq!(outside.names(), ["a", "b", "c"]);
        // Whatever the swaps left is removed in peace.
        match place.dir.remove_tree(&name("t")) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), FsErrorKind::NotFound, "{error}"),
        }
        if !place.path().join("attack/link").is_symlink() {
            place.dir.remove_tree(&name("attack")).unwrap();
            place.mkdir("attack");
            place.symlink(outside.path(), "attack/link");
        }
    }
}

/// Far below, the way back up leads through `..`: a branch that was moved away must not take others along.
#[test]
fn s02_a_branch_moved_away_is_not_followed_up() {
    let place = Place::new();
    place.mkdir("away");
    place.write("away/kept", "");
    for _ in 0..10 {
        let mut at = place.dir.make_dir(&name("t")).unwrap();
        for _ in 0..150 {
            at = at.make_dir(&name("d")).unwrap();
        }
        drop(at);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let from = place.path().join("t/d/d/d");
                for _ in 0..200 {
                    let _ = std::fs::rename(&from, place.path().join("away/d"));
                }
            });
            let _ = place.dir.remove_tree(&name("t"));
        });
        assert!(place.path().join("away/kept").exists());
        let _ = place.dir.remove_tree(&name("t"));
        let _ = place.dir.open_dir(&name("away")).unwrap().remove_tree(&name("d"));
    }
}

/// A file system that an administrator mounted into the tree survives the removal of what is around it.
#[test]
fn a_mount_point_is_not_entered() {
    use std::process::Command;
    let place = Place::new();
    place.mkdir("t/mounted");
    place.mkdir("t/other");
    let at = place.path().join("t/mounted");
    let mount = |kind: &[&str]| {
        is_root()
            && Command::new("mount")
                .args(kind)
                .arg(&at)
                .status()
                .is_ok_and(|s| s.success())
    };
    let outside = Place::new();
    outside.write("kept", "");
    // A bind mount has the same device number: only the kernel can tell.
    let bind = ["--bind", outside.path().to_str().unwrap()];
    for kind in [&["-t", "tmpfs", "none"][..], &bind] {
        if !mount(kind) {
            return;
        }
        std::fs::write(at.join("kept"), "").unwrap();
        let error = place.dir.remove_tree(&name("t")).unwrap_err();
        let kept = at.join("kept").exists();
        assert!(Command::new("umount").arg(&at).status().unwrap().success());
        assert!(kept);
        assert_eq!(error.kind(), FsErrorKind::CrossDevice, "{error}");
        assert!(
            error
                .to_string()
                .ends_with("t/mounted: a file system is mounted there"),
            "{error}"
        );
    }
    assert!(!place.path().join("t/other").exists());
}

#[test]
fn a_directory_is_whole_if_all_in_it_is_the_mirrors() {
    let place = Place::new();
    place.mkdir("d/e/f");
    place.write("d/e/f/x", "x");
    place.write(&format!("d/e/{}", private_name()), "a temporary");
    assert!(place.dir.is_whole(&name("d")).unwrap());
    let displaced = displaced_name(&name("x"));
    place.write(&format!("d/e/f/{displaced}"), "parked");
    assert!(!place.dir.is_whole(&name("d")).unwrap());
    place.mkdir("d/e/.driftless-trash");
    let error = place.dir.is_whole(&name("d")).unwrap_err();
    assert_eq!(error.kind(), FsErrorKind::NotEmpty);
    assert!(error.to_string().contains("another module"), "{error}");
    assert_eq!(
        place.dir.is_whole(&name("none")).unwrap_err().kind(),
        FsErrorKind::NotFound
    );
}

#[test]
fn what_could_not_be_cleared_away_is_tried_again() {
    let place = Place::new();
    place.mkdir("in");
    let inner = place.dir.open_dir(&name("in")).unwrap();
    let left = private_name();
    let shown = format!("in/{left}");
    // A reserved name that is not a private one keeps what it is in.
    place.mkdir(&shown);
    let keeps = format!("{shown}/.driftless-generation");
    place.write(&keeps, "");
    assert_eq!(
        inner.remove_private(&left).unwrap_err().kind(),
        FsErrorKind::NotEmpty
    );
    place.dir.clear_litter();
    assert!(place.path().join(&keeps).exists());
    std::fs::remove_file(place.path().join(&keeps)).unwrap();
    let before = inner.stat_self().unwrap().attributes.mtime;
    place.dir.clear_litter();
    assert!(!place.path().join(&shown).exists());
    assert_eq!(inner.stat_self().unwrap().attributes.mtime, before);
    // What is gone is nothing to be noted.
    assert_eq!(
        inner.remove_private(&left).unwrap_err().kind(),
        FsErrorKind::NotFound
    );
}
