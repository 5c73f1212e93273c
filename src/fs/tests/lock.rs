//! One driftless per tree.

use super::*;

fn refused(path: &Path) -> (LockRelation, String) {
    match TreeLock::acquire(path) {
        Err(error @ LockError::Held { which, .. }) => (which, error.to_string()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn same_ancestor_and_descendant_exclude_each_other() {
    let place = Place::new();
    place.mkdir("a/b/c");
    place.mkdir("a/sibling");
    place.symlink("a/b", "alias");
    let at = |n: &str| place.path().join(n);
    let lock = TreeLock::acquire(&at("a/b")).unwrap();
    for same in ["a/b", "alias"] {
        assert_eq!(refused(&at(same)).0, LockRelation::Same);
    }
    let (which, message) = refused(&at("a/b/c"));
    assert_eq!(which, LockRelation::Ancestor);
    assert!(
        message.ends_with("/a/b, which is in use by another driftless"),
        "{message}"
    );
    for above in ["a", "."] {
        let (which, message) = refused(&at(above));
        assert_eq!(which, LockRelation::Descendant, "{message}");
    }
    // Beside each other is fine, also twice below one parent.
    let beside = TreeLock::acquire(&at("a/sibling")).unwrap();
    drop(lock);
    let again = TreeLock::acquire(&at("a/b/c")).unwrap();
    assert_eq!(refused(&at("a/b")).0, LockRelation::Descendant);
    drop((beside, again));
    TreeLock::acquire(&at("a")).unwrap();
}

#[test]
fn a_refused_lock_leaves_nothing_locked() {
    let place = Place::new();
    place.mkdir("a/b/c");
    let at = |n: &str| place.path().join(n);
    let lock = TreeLock::acquire(&at("a")).unwrap();
    refused(&at("a/b/c"));
    drop(lock);
    TreeLock::acquire(&at("a/b")).unwrap();
}

#[test]
fn the_lock_goes_by_the_directory_not_by_its_name() {
    let place = Place::new();
    place.mkdir("old/sub");
    let at = |n: &str| place.path().join(n);
    let root = Directory::open_root(&at("old")).unwrap();
    let _lock = TreeLock::acquire_on(&root).unwrap();
    std::fs::rename(at("old"), at("new")).unwrap();
    assert_eq!(refused(&at("new")).0, LockRelation::Same);
    assert_eq!(refused(&at("new/sub")).0, LockRelation::Ancestor);
    place.mkdir("old");
    TreeLock::acquire(&at("old")).unwrap();
}

#[test]
fn what_is_no_directory_cannot_be_locked() {
    let place = Place::new();
    place.write("f", "");
    for n in ["f", "none"] {
        assert!(matches!(
            TreeLock::acquire(&place.path().join(n)),
            Err(LockError::Failed(_))
        ));
    }
    TreeLock::acquire(Path::new("/proc/self"))
        .map(drop)
        .unwrap_or_default();
}

/// The kernel gives the lock back when its process is killed.
#[test]
fn a_lock_in_another_process_counts_and_dies_with_it() {
    use std::io::{BufRead, BufReader};
    let place = Place::new();
    place.mkdir("a/b");
    let target = place.path().join("a");
    let script = "exec flock --exclusive --nonblock --no-fork \"$0\" sh -c 'echo held; exec sleep 60'";
    let spawned = std::process::Command::new("sh")
        .args(["-c", script])
        .arg(&target)
        .stdout(std::process::Stdio::piped())
        .spawn();
    let Ok(mut child) = spawned else { return };
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    if line.trim() == "held" {
        assert_eq!(refused(&target).0, LockRelation::Same);
        assert_eq!(refused(&target.join("b")).0, LockRelation::Ancestor);
    }
    child.kill().unwrap();
    child.wait().unwrap();
    TreeLock::acquire(&target).unwrap();
}
