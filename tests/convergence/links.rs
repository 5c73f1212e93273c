//! Files with several names: edits by any of them arrive at all. That they are names of one file on the target, too, is
//! tested with the other metadata.

use crate::mirror::{CHOICES, Mirror, watched_by};
use crate::scaled;
use crate::support::Pair;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

/// In place: the file stays the same, whatever its names.
fn edit(path: &Path, text: &str) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(text.as_bytes(), 0).unwrap();
}

#[test]
fn d_10_hard_links_are_edited_by_any_name() {
    for choice in CHOICES {
        let mut pair = Pair::new();
        watched_by(&mut pair, choice);
        let src = pair.src();
        fs::create_dir_all(src.join("a/b")).unwrap();
        fs::create_dir(src.join("c")).unwrap();
        fs::write(src.join("a/one"), b"content of one, at first").unwrap();
        fs::hard_link(src.join("a/one"), src.join("a/b/two")).unwrap();
        let mut mirror = Mirror::start(pair);

        // Edited by either name, across directories; no event tells of the other.
        edit(&src.join("a/one"), "one");
        mirror.settle();
        edit(&src.join("a/b/two"), "two");
        mirror.settle();
        // One more, made and edited at once.
        fs::hard_link(src.join("a/b/two"), src.join("c/three")).unwrap();
        edit(&src.join("c/three"), "three");
        mirror.settle();
        // A name goes, one is renamed, and what is left is edited.
        fs::remove_file(src.join("a/one")).unwrap();
        fs::rename(src.join("c/three"), src.join("a/three")).unwrap();
        edit(&src.join("a/three"), "3");
        mirror.settle();
        // One name is written anew: the other keeps its content.
        fs::write(src.join("anew"), b"anew").unwrap();
        fs::rename(src.join("anew"), src.join("a/b/two")).unwrap();
        edit(&src.join("a/three"), "4");
        mirror.settle();
        // Made while nobody watched, edited while somebody did.
        mirror.pause().unwrap();
        fs::hard_link(src.join("a/three"), src.join("c/four")).unwrap();
        mirror.resume();
        mirror.settle();
        edit(&src.join("a/three"), "5");
        mirror.settle();
        edit(&src.join("c/four"), "6");
        mirror.settle();
        let names = ["a/three", "c/four"].map(|name| fs::metadata(mirror.pair.dst().join(name)).unwrap());
        assert_eq!(names[0].ino(), names[1].ino(), "names of one file");
        assert_eq!(names[0].nlink(), 2);
        mirror.end_and_compare();
    }
}

/// The write is told under a name that is gone when somebody looks: what it was written to is still there.
#[test]
fn d_10_edits_by_a_name_that_goes_at_once_arrive() {
    for choice in CHOICES {
        let mut pair = Pair::new();
        watched_by(&mut pair, choice);
        let src = pair.src();
        let outside = pair.path("outside");
        for directory in [&outside, &src.join("d"), &src.join("e")] {
            fs::create_dir(directory).unwrap();
        }
        fs::write(src.join("kept"), b"content at first").unwrap();
        let mirror = Mirror::start(pair);
        for round in 0..scaled(6) {
            let second = src.join("d/second");
            fs::hard_link(src.join("kept"), &second).unwrap();
            mirror.settle();
            edit(&second, &format!("round {round}"));
            match round % 3 {
                0 => fs::remove_file(&second).unwrap(),
                1 => fs::rename(&second, outside.join(round.to_string())).unwrap(),
                // With all that it stands in.
                _ => {
                    fs::rename(src.join("d"), outside.join("d")).unwrap();
                    fs::create_dir(src.join("d")).unwrap();
                    fs::remove_dir_all(outside.join("d")).unwrap();
                }
            }
            mirror.settle();
        }
        mirror.end_and_compare();
    }
}

/// Nobody is told of a write through a name outside the tree: an audit has to find it.
#[test]
fn d_10_edits_by_a_name_outside_are_found_by_the_audit() {
    let mut pair = Pair::new();
    pair.watch.audit = Some(Duration::from_secs(1));
    let outside = pair.path("outside");
    for number in 0..10 {
        fs::write(pair.src().join(number.to_string()), b"content at first").unwrap();
    }
    fs::create_dir(&outside).unwrap();
    fs::hard_link(pair.src().join("5"), outside.join("5")).unwrap();
    let mirror = Mirror::start(pair);
    for round in 0..scaled(2) {
        edit(&outside.join("5"), &format!("round {round}"));
        mirror.settle();
    }
    mirror.end_and_compare();
}

/// More groups than names per group, all edited by turns.
#[test]
fn d_10_many_groups_of_hard_links() {
    let pair = Pair::new();
    let src = pair.src();
    let groups = scaled(30);
    for directory in ["x", "y", "z"] {
        fs::create_dir(src.join(directory)).unwrap();
    }
    for group in 0..groups {
        fs::write(src.join(format!("x/{group}")), format!("content of {group}")).unwrap();
        for other in ["y", "z"] {
            let name = |directory: &str| src.join(format!("{directory}/{group}"));
            fs::hard_link(name("x"), name(other)).unwrap();
        }
    }
    let mirror = Mirror::start(pair);
    for directory in ["z", "x", "y"] {
        for group in 0..groups {
            edit(&src.join(format!("{directory}/{group}")), directory);
        }
        mirror.settle();
    }
    mirror.end_and_compare();
}
