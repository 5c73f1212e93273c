//! Filters through the real daemons: what is sent, what is kept, what is deleted, and the same beside rsync.

mod support;

use driftless::daemon::{DaemonError, Deletes, Phase, Summary};
use driftless::engine::compare::Compare;
use driftless::engine::filter::{Filter, FilterBuilder, NamedPaths, NoRuleFiles};
use driftless_protocol::message::{FailureKind, LinkTarget, OpBody, Open, Place};
use driftless_protocol::{Attributes, Name, ObjectId};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use support::peer::{Peer, opening};
use support::{Following, Pair, tree, wait_equal};

/// Builds a filter from rsync's options, those that need no file of this machine.
fn filter(root: &Path, arguments: &[&str]) -> Filter {
    let mut builder = FilterBuilder::new(root.as_os_str().as_bytes());
    builder
        .delete_excluded(arguments.contains(&"--delete-excluded"))
        .one_file_system(arguments.contains(&"-x"));
    for argument in arguments {
        let (option, value) = argument.split_once('=').unwrap_or((argument, ""));
        let value = value.as_bytes();
        match option {
            "--exclude" => builder.exclude(value).map(drop),
            "--include" => builder.include(value).map(drop),
            "--filter" => builder.filter(value, &mut NoRuleFiles).map(drop),
            "-F" => builder.dir_filters().map(drop),
            "-C" => {
                builder.cvs_exclude();
                Ok(())
            }
            "--max-size" => {
                builder.max_size(String::from_utf8_lossy(value).parse().unwrap());
                Ok(())
            }
            _ => Ok(()),
        }
        .unwrap();
    }
    builder.build().unwrap()
}

fn pair(arguments: &[&str]) -> Pair {
    let mut pair = Pair::new();
    pair.deletes = Deletes::Always;
    pair.filter = filter(&pair.src(), arguments);
    pair
}

/// Writes files, and the directories above them. A path that ends in a slash is a directory.
fn write(root: &Path, paths: &[&str]) {
    for path in paths {
        let at = root.join(path);
        if path.ends_with('/') {
            fs::create_dir_all(at).unwrap();
        } else {
            fs::create_dir_all(at.parent().unwrap()).unwrap();
            fs::write(at, path).unwrap();
        }
    }
}

fn paths(root: &Path) -> BTreeSet<String> {
    tree(root)
        .into_keys()
        .map(|path| String::from_utf8_lossy(&path).into_owned())
        .collect()
}

fn assert_paths(root: &Path, expected: &[&str]) {
    let expected: BTreeSet<String> = expected.iter().map(|path| (*path).to_owned()).collect();
    assert_eq!(paths(root), expected);
}

fn in_sync(outcome: Result<Summary, DaemonError>) -> Summary {
    let summary = outcome.unwrap();
    assert!(summary.in_sync && summary.failed.is_empty(), "{summary:?}");
    summary
}

#[test]
fn what_is_excluded_is_neither_sent_nor_deleted() {
    let pair = pair(&["--exclude=*.o", "--exclude=/cache/"]);
    write(
        &pair.src(),
        &["a.c", "a.o", "d/b.o", "d/b.c", "cache/x", "d/cache/y"],
    );
    write(
        &pair.dst(),
        &[
            "old.o",
            "cache/mine",
            "gone/deep/kept.o",
            "gone/deep/x",
            "gone/y",
            "z",
        ],
    );
    let summary = in_sync(pair.seed());
    assert_eq!((summary.counters.excluded, summary.counters.unreadable), (3, 0));
    assert_paths(
        &pair.dst(),
        &[
            "a.c",
            "d",
            "d/b.c",
            "d/cache",
            "d/cache/y",
            "old.o",
            "cache",
            "cache/mine",
            "gone",
            "gone/deep",
            "gone/deep/kept.o",
        ],
    );
    // Nothing is left to do, and nothing is compared.
    let again = in_sync(pair.seed());
    assert_eq!((again.counters.files_sent, again.counters.files_read), (0, 0));
}

#[test]
fn delete_excluded_deletes_what_is_hidden_and_keeps_what_is_protected() {
    let pair = pair(&["--delete-excluded", "--exclude=*.o", "--filter=P /local/"]);
    write(&pair.src(), &["a.c", "a.o"]);
    write(&pair.dst(), &["old.o", "d/old.o", "local/x", "z"]);
    in_sync(pair.seed());
    assert_paths(&pair.dst(), &["a.c", "local", "local/x"]);
}

#[test]
fn only_what_the_change_of_a_rule_concerns_is_touched() {
    let mut pair = pair(&[]);
    for number in 0..50 {
        write(
            &pair.src(),
            &[
                &format!("d{}/f{number}", number % 5),
                &format!("log/{number}.log"),
            ],
        );
    }
    in_sync(pair.seed());
    // Newly excluded: kept where it is, and no part of the mirror any more.
    pair.filter = filter(&pair.src(), &["--exclude=7.log"]);
    let summary = in_sync(pair.seed());
    assert_eq!(summary.counters.files_sent, 0);
    assert!(summary.counters.ops_total <= 5, "{summary:?}");
    assert!(pair.dst().join("log/7.log").exists());
    fs::write(pair.src().join("log/7.log"), "changed").unwrap();
    fs::remove_file(pair.src().join("log/8.log")).unwrap();
    in_sync(pair.seed());
    assert_eq!(fs::read(pair.dst().join("log/7.log")).unwrap(), b"log/7.log");
    assert!(!pair.dst().join("log/8.log").exists());
    // Admitted again: the one file goes.
    pair.filter = filter(&pair.src(), &[]);
    let summary = in_sync(pair.seed());
    assert_eq!(summary.counters.files_sent, 1);
    pair.assert_equal();
    // Excluded with --delete-excluded: deleted.
    pair.filter = filter(&pair.src(), &["--delete-excluded", "--exclude=9.log"]);
    in_sync(pair.seed());
    assert!(!pair.dst().join("log/9.log").exists() && pair.dst().join("log/7.log").exists());
}

/// In the session that met the target, too, whatever makes it compare once more.
#[test]
fn what_waits_for_an_approval_is_not_filled_when_rules_change() {
    let mut pair = pair(&["-F"]);
    pair.delete_limit = Some("2".parse().unwrap());
    let (_approve, approvals) = crossbeam_channel::unbounded();
    pair.approvals = Some(approvals);
    write(
        &pair.src(),
        &["data/a", "data/b", "data/c", "data/d", "data/e", "other/a"],
    );
    let receiver = pair.receive();
    let following = Following::start(pair.sender_options(receiver.address(), true));
    following.watching.wait_in_sync();
    let data = pair.src().join("data");
    fs::rename(&data, pair.path("outside")).unwrap();
    fs::rename(pair.src().join("other"), &data).unwrap();
    let is_held = |phase: &Phase| matches!(phase, Phase::Held { .. });
    following.watching.wait_for(is_held);
    fs::write(pair.src().join(".rsync-filter"), "- *.tmp\n").unwrap();
    write(&pair.src(), &["later"]);
    support::until("what comes later arrives", || pair.dst().join("later").exists());
    following.watching.wait_for(is_held);
    assert_eq!(fs::read(pair.dst().join("data/a")).unwrap(), b"data/a");
    assert_eq!(fs::read(pair.dst().join("other/a")).unwrap(), b"other/a");
    following.stop().unwrap();
    receiver.stop();
}

#[test]
fn rules_hold_while_changes_are_followed() {
    let mut pair = pair(&["--exclude=*.tmp", "--exclude=build/"]);
    pair.accept_root = true;
    write(&pair.src(), &["keep", "d/e/f"]);
    let receiver = pair.receive();
    let following = Following::start(pair.sender_options(receiver.address(), true));
    following.watching.wait_in_sync();
    write(&pair.src(), &["x.tmp", "build/out", "d/new/y", "d/new/y.tmp"]);
    fs::rename(pair.src().join("x.tmp"), pair.src().join("x")).unwrap();
    // As for a file that was removed: its new name is nobody's concern.
    fs::rename(pair.src().join("keep"), pair.src().join("keep.tmp")).unwrap();
    write(&pair.src(), &["last"]);
    support::until("the target has what is mirrored", || {
        paths(&pair.dst())
            == ["d", "d/e", "d/e/f", "d/new", "d/new/y", "last", "x"]
                .map(str::to_owned)
                .into()
    });
    assert_eq!(following.stop().unwrap().failed, []);
    receiver.stop();
}

#[test]
fn a_removed_directory_leaves_what_is_protected_even_if_it_came_later() {
    let pair = pair(&["--exclude=*.tmp"]);
    write(&pair.src(), &["d/a", "d/e/b", "d/e/g/c", "f/x", "end"]);
    let receiver = pair.receive();
    let following = Following::start(pair.sender_options(receiver.address(), true));
    following.watching.wait_in_sync();
    // The receiver does not watch: it meets these when it is to remove what is around them.
    write(&pair.dst(), &["d/e/mine.tmp", "d/e/g/at-risk"]);
    fs::remove_dir_all(pair.src().join("d")).unwrap();
    fs::remove_dir_all(pair.src().join("f")).unwrap();
    support::until("only what is protected is left", || {
        paths(&pair.dst()) == ["d", "d/e", "d/e/mine.tmp", "end"].map(str::to_owned).into()
    });
    following.watching.wait_in_sync();
    assert_eq!(following.stop().unwrap().failed, []);
    receiver.stop();
}

#[test]
fn a_directory_that_is_made_anew_keeps_what_is_protected_in_it() {
    let pair = pair(&["--exclude=*.tmp"]);
    write(&pair.src(), &["d/a", "d/e/b", "end"]);
    let receiver = pair.receive();
    let following = Following::start(pair.sender_options(receiver.address(), true));
    following.watching.wait_in_sync();
    write(&pair.dst(), &["d/mine.tmp", "d/e/mine.tmp"]);
    fs::rename(pair.src().join("d"), pair.path("aside")).unwrap();
    write(&pair.src(), &["d/a2", "d/e/b2"]);
    support::until("the new directories are there, and what is protected", || {
        paths(&pair.dst())
            == ["d", "d/a2", "d/e", "d/e/b2", "d/e/mine.tmp", "d/mine.tmp", "end"]
                .map(str::to_owned)
                .into()
    });
    following.watching.wait_in_sync();
    assert_eq!(following.stop().unwrap().failed, []);
    receiver.stop();
}

#[test]
fn directories_swap_their_names_with_what_is_protected_in_them() {
    let pair = pair(&["--exclude=*.tmp"]);
    write(&pair.src(), &["a/x", "b/y"]);
    let receiver = pair.receive();
    let following = Following::start(pair.sender_options(receiver.address(), true));
    following.watching.wait_in_sync();
    write(&pair.dst(), &["a/1.tmp", "b/2.tmp"]);
    let (a, b, c) = (pair.src().join("a"), pair.src().join("b"), pair.path("c"));
    fs::rename(&a, &c).unwrap();
    fs::rename(&b, &a).unwrap();
    fs::rename(&c, &b).unwrap();
    support::until("the names are swapped", || {
        let found = paths(&pair.dst());
        ["a/y", "b/x"].iter().all(|path| found.contains(*path))
            && found.iter().filter(|path| path.ends_with(".tmp")).count() == 2
            && !found.contains("a/x")
    });
    following.watching.wait_in_sync();
    assert_eq!(following.stop().unwrap().failed, []);
    receiver.stop();
}

#[test]
fn a_file_never_takes_the_place_of_a_directory_that_holds_what_is_protected() {
    let pair = pair(&["--exclude=*.tmp"]);
    write(&pair.src(), &["d", "e", "f"]);
    write(&pair.dst(), &["d/mine.tmp", "d/x", "e/y"]);
    let summary = pair.seed().unwrap();
    assert_eq!(summary.failed.len(), 1, "{summary:?}");
    assert_eq!(summary.failed[0].path, "d");
    assert_paths(&pair.dst(), &["d", "d/mine.tmp", "e", "f"]);
    assert_eq!(fs::read(pair.dst().join("e")).unwrap(), b"e");
}

#[test]
fn a_protected_file_outlives_its_source() {
    let pair = pair(&["--filter=P keep*"]);
    write(
        &pair.src(),
        &["keep1", "go1", "d/keep2", "d/go2", "d/keep/x", "end"],
    );
    let receiver = pair.receive();
    let following = Following::start(pair.sender_options(receiver.address(), true));
    following.watching.wait_in_sync();
    for path in ["keep1", "go1", "d/keep2", "d/go2"] {
        fs::remove_file(pair.src().join(path)).unwrap();
    }
    fs::remove_dir_all(pair.src().join("d/keep")).unwrap();
    support::until("only what is protected outlives its source", || {
        paths(&pair.dst())
            == ["d", "d/keep", "d/keep/x", "d/keep2", "end", "keep1"]
                .map(str::to_owned)
                .into()
    });
    // Made again, it is mirrored again.
    fs::write(pair.src().join("keep1"), "new").unwrap();
    support::until("the file is mirrored again", || {
        fs::read(pair.dst().join("keep1")).unwrap() == b"new"
    });
    assert_eq!(following.stop().unwrap().failed, []);
    receiver.stop();
}

#[test]
fn what_no_listing_shows_keeps_its_directory() {
    let pair = pair(&["--exclude=*.tmp"]);
    write(&pair.src(), &["a/f", "b/c/f"]);
    in_sync(pair.seed());
    write(&pair.dst(), &["d/e/f"]);
    let sockets = ["a/s", "b/c/s", "d/e/s"].map(|path| UnixListener::bind(pair.dst().join(path)).unwrap());
    fs::remove_dir_all(pair.src().join("a")).unwrap();
    fs::remove_dir_all(pair.src().join("b")).unwrap();
    write(&pair.src(), &["end"]);
    in_sync(pair.seed());
    assert_paths(&pair.dst(), &["a", "b", "b/c", "d", "d/e", "end"]);
    drop(sockets);
    in_sync(pair.seed());
}

/// Each waited for the other: the file for the place of the directory, and the directory until nothing was left in it.
#[test]
fn what_takes_the_place_of_the_directory_that_it_was_in_gets_there() {
    let pair = pair(&["--exclude=*.tmp"]);
    write(
        &pair.src(),
        &[
            "a/f", "b/c/d/f", "b/c/g", "d/e/f", "d/g", "h/i", "h/k", "m/f", "n/g",
        ],
    );
    in_sync(pair.seed());
    write(&pair.dst(), &["h/k.tmp"]);
    for (directory, inner) in [("a", "f"), ("b", "c"), ("d", "e/f"), ("h", "i")] {
        let [directory, aside] = [directory, "aside"].map(|name| pair.src().join(name));
        fs::rename(directory.join(inner), &aside).unwrap();
        fs::remove_dir_all(&directory).unwrap();
        fs::rename(&aside, &directory).unwrap();
    }
    // Two that take each other's place.
    for (from, to) in [("m/f", "aside"), ("n/g", "other")] {
        fs::rename(pair.src().join(from), pair.src().join(to)).unwrap();
    }
    for (from, to) in [("aside", "n"), ("other", "m")] {
        fs::remove_dir(pair.src().join(to)).unwrap();
        fs::rename(pair.src().join(from), pair.src().join(to)).unwrap();
    }
    // What is protected keeps its directory, and that its place; what would take that stays in it, and nothing else waits.
    let summary = pair.seed().unwrap();
    assert!(!summary.failed.is_empty(), "{summary:?}");
    let rest = ["a", "b", "b/d", "b/d/f", "b/g", "d", "m", "n"];
    let kept = ["h", "h/i", "h/k.tmp"];
    assert_paths(&pair.dst(), &[&rest[..], &kept[..]].concat());
    fs::remove_file(pair.dst().join("h/k.tmp")).unwrap();
    in_sync(pair.seed());
    assert_paths(&pair.dst(), &[&rest[..], &["h"][..]].concat());
    assert_eq!(
        fs::read(pair.dst().join("h")).unwrap(),
        fs::read(pair.src().join("h")).unwrap()
    );
}

/// The receiver trusts no listing: as long as a filter may protect something, directories go when they are empty.
#[test]
fn a_receiver_removes_and_displaces_no_directory_that_holds_anything() {
    let pair = Pair::new();
    write(&pair.dst(), &["local/mine"]);
    let receiver = pair.receive();
    let open = Open {
        protects: true,
        ..opening(b"dst", 7)
    };
    let (mut peer, _) = Peer::open(&pair, receiver.address(), &open).unwrap();
    let mut ops = peer.op_stream();
    let place = |name: &str| Place {
        directory: ObjectId::ROOT,
        name: Name::new(name.as_bytes()).unwrap(),
    };
    let make = |number: u64, name: &str| OpBody::MakeDirectory {
        place: place(name),
        object: ObjectId(number),
        attributes: Attributes::default(),
    };
    let link = |number: u64, name: &str| OpBody::PutSymlink {
        place: place(name),
        object: ObjectId(number),
        attributes: Attributes::default(),
        target: LinkTarget(b"x".to_vec()),
    };
    peer.send_ops(&mut ops, 1, [make(10, "d"), make(11, "e"), link(12, "l")]);
    peer.wait_applied(3);
    write(&pair.dst(), &["d/came-later"]);
    let remove = |number: u64, name: &str| OpBody::Remove {
        object: ObjectId(number),
        place: place(name),
    };
    let onto_local = OpBody::Move {
        object: ObjectId(12),
        to: place("local"),
    };
    let next = [
        remove(10, "d"),
        link(13, "d"),
        make(14, "d"),
        link(15, "local"),
        onto_local,
        remove(11, "e"),
    ];
    peer.send_ops(&mut ops, 4, next);
    peer.wait_applied(9);
    for number in 4..=8 {
        assert_eq!(
            peer.failed.get(&number),
            Some(&FailureKind::Mismatch),
            "op {number}"
        );
    }
    assert_eq!(peer.failed.get(&9), None);
    peer.leave();
    receiver.stop();
    assert_paths(&pair.dst(), &["d", "d/came-later", "l", "local", "local/mine"]);
    support::assert_no_leftovers(&pair.dst());
}

#[test]
fn a_rule_file_counts_for_its_directory_and_at_once() {
    let pair = pair(&["-F"]);
    write(&pair.src(), &["d/a.o", "d/e/b.o", "d/e/b.c", "o/a.o"]);
    fs::write(pair.src().join("d/.rsync-filter"), "- *.o\n").unwrap();
    let receiver = pair.receive();
    let following = Following::start(pair.sender_options(receiver.address(), true));
    following.watching.wait_in_sync();
    assert_paths(
        &pair.dst(),
        &["d", "d/.rsync-filter", "d/e", "d/e/b.c", "o", "o/a.o"],
    );
    fs::write(pair.src().join("d/.rsync-filter"), "+ b.o\n- *.o\n- *.c\n").unwrap();
    support::until("the new rules hold", || {
        pair.dst().join("d/e/b.o").exists() && !pair.dst().join("d/a.o").exists()
    });
    // What a rule newly leaves out is kept.
    following.watching.wait_in_sync();
    assert!(pair.dst().join("d/e/b.c").exists());
    fs::remove_file(pair.src().join("d/.rsync-filter")).unwrap();
    wait_equal(&pair.src(), &pair.dst());
    assert_eq!(following.stop().unwrap().failed, []);
    receiver.stop();
}

#[test]
fn a_faulty_rule_file_stops_its_directory_alone() {
    let pair = pair(&["-F"]);
    write(&pair.src(), &["bad/secret", "bad/e/f", "good/x"]);
    fs::write(pair.src().join("bad/.rsync-filter"), "password=hunter2\n").unwrap();
    write(&pair.dst(), &["bad/there", "good/gone"]);
    let summary = pair.seed().unwrap();
    assert!(summary.counters.unreadable > 0);
    assert_paths(&pair.dst(), &["bad", "bad/there", "good", "good/x"]);
    fs::write(pair.src().join("bad/.rsync-filter"), "- secret\n").unwrap();
    in_sync(pair.seed());
    assert_paths(
        &pair.dst(),
        &["bad", "bad/.rsync-filter", "bad/e", "bad/e/f", "good", "good/x"],
    );
    // The root's own: nothing is known about anything.
    fs::write(pair.src().join(".rsync-filter"), "password=hunter2\n").unwrap();
    let error = pair.seed().unwrap_err().to_string();
    assert!(
        error.contains(".rsync-filter, line 1") && !error.contains("hunter2"),
        "{error}"
    );
}

#[test]
fn a_rule_file_is_never_read_through_a_link() {
    let pair = pair(&["-F"]);
    write(&pair.src(), &["d/a", "x"]);
    fs::write(pair.path("outside"), "- a\n").unwrap();
    std::os::unix::fs::symlink(pair.path("outside"), pair.src().join("d/.rsync-filter")).unwrap();
    let summary = pair.seed().unwrap();
    assert!(summary.counters.unreadable > 0);
    assert_paths(&pair.dst(), &["d", "x"]);
}

#[test]
fn files_of_the_wrong_size_are_neither_sent_nor_deleted() {
    let pair = pair(&["--max-size=10"]);
    write(&pair.src(), &["small", "d/s"]);
    fs::write(pair.src().join("large"), [0; 11]).unwrap();
    write(&pair.dst(), &["large", "gone"]);
    in_sync(pair.seed());
    assert_eq!(fs::read(pair.dst().join("large")).unwrap(), b"large");
    assert!(!pair.dst().join("gone").exists());
    // A file that grows out of the mirror leaves its last copy.
    fs::write(pair.src().join("small"), [1; 11]).unwrap();
    in_sync(pair.seed());
    assert_eq!(fs::read(pair.dst().join("small")).unwrap(), b"small");
    // Of a size again: it goes.
    fs::write(pair.src().join("small"), "tiny").unwrap();
    let summary = in_sync(pair.seed());
    assert_eq!(summary.counters.files_sent, 1);
    assert_eq!(fs::read(pair.dst().join("small")).unwrap(), b"tiny");
}

#[test]
fn only_named_paths_are_created_replaced_or_deleted() {
    let mut pair = pair(&[]);
    let mut builder = FilterBuilder::new(pair.src().as_os_str().as_bytes());
    builder.only_named(NamedPaths::parse(b"d/a\ne/f\ngone\n", false, true).unwrap());
    pair.filter = builder.build().unwrap();
    write(&pair.src(), &["d/a", "d/b", "e/f/g", "e/h", "top"]);
    write(
        &pair.dst(),
        &["d/mine", "e/f/extra", "e/extra", "gone", "other/x"],
    );
    in_sync(pair.seed());
    assert_paths(
        &pair.dst(),
        &[
            "d", "d/a", "d/mine", "e", "e/extra", "e/f", "e/f/g", "other", "other/x",
        ],
    );
}

/// A hostile receiver sees what the sender's catalog has: ops are made from it and from nothing else.
#[test]
fn no_excluded_name_enters_the_senders_catalog() {
    let pair = pair(&["--exclude=*secret*", "-F"]);
    write(&pair.src(), &["a-secret-file", "d/my-secret-dir/x", "d/y"]);
    fs::write(pair.src().join("d/.rsync-filter"), "- hush*\n").unwrap();
    write(&pair.src(), &["d/hush-1"]);
    in_sync(pair.seed());
    for home in ["home-s", "home-r"] {
        let mut directories = vec![pair.path(home)];
        let mut files = 0;
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    directories.push(path);
                    continue;
                }
                files += 1;
                let bytes = fs::read(&path).unwrap();
                for name in [&b"secret"[..], b"hush-1"] {
                    let found = bytes.windows(name.len()).any(|part| part == name);
                    assert!(!found, "{} has an excluded name", path.display());
                }
            }
        }
        assert!(files > 0);
    }
}

/// Small random numbers, the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }
}

fn random_tree(root: &Path, dice: &mut Dice, depth: usize) {
    // No rule names `mix`, which is one thing here and another there. (A directory that is itself protected is emptied
    // by rsync when a file of the source takes its name, and kept whole by us.)
    let files = ["a", "b.o", "c.txt", "core", "d.bak", "e.tmp", "x~", "mix"];
    let directories = ["build", "cache", "src", "lib.o", "mix"];
    for name in files {
        if dice.roll(2) == 0 {
            fs::write(root.join(name), format!("{}", dice.roll(1_000))).unwrap();
        }
    }
    for name in directories {
        let path = root.join(name);
        if depth > 0 && dice.roll(3) > 0 && !path.exists() {
            fs::create_dir(&path).unwrap();
            random_tree(&path, dice, depth - 1);
        }
    }
}

/// Kinds and contents, without times: those of kept directories are nobody's concern.
fn shape(root: &Path) -> BTreeSet<String> {
    let shown = |(path, seen): (Vec<u8>, support::Seen)| {
        let content = seen.content.first().copied().unwrap_or_default();
        format!("{} {} {content:02x}", seen.kind, path.escape_ascii())
    };
    tree(root).into_iter().map(shown).collect()
}

#[test]
fn the_target_is_what_rsync_would_make_of_it() {
    let is_missing = Command::new("rsync").arg("--version").output().is_err();
    if is_missing {
        eprintln!("skipped: rsync is not installed");
        return;
    }
    let sets: &[&[&str]] = &[
        &["--exclude=*.o", "--exclude=cache/"],
        &["--include=*/", "--include=*.txt", "--exclude=*"],
        &["--filter=P *.bak", "--filter=- build/", "--filter=H core"],
        &["--delete-excluded", "--exclude=*.o", "--filter=P cache/"],
        &["--delete-excluded", "--exclude=src/", "--exclude=/a"],
        &["--filter=-p *.tmp", "--exclude=/build/*", "--include=/build/a"],
        &["-C"],
        &["--filter=R *.o", "--filter=- *.o", "--filter=S e.tmp"],
        &[
            "--exclude=build/**/a",
            "--exclude=src/*.txt",
            "--filter=P lib.o/**",
        ],
    ];
    for (seed, arguments) in (1..).zip(sets.iter().cycle()).take(3 * sets.len()) {
        let mut pair = pair(arguments);
        // Both trees are written within the same tick of the clock: that times are equal says nothing.
        pair.compare = Compare::Contents;
        let mut dice = Dice(seed);
        random_tree(&pair.src(), &mut dice, 2);
        random_tree(&pair.dst(), &mut dice, 2);
        let other = pair.path("rsync");
        let copied = Command::new("cp")
            .arg("-a")
            .arg(pair.dst())
            .arg(&other)
            .status()
            .unwrap();
        assert!(copied.success());
        let source = format!("{}/", pair.src().display());
        // --force: a directory gives way to a file, as far as nothing in it is protected.
        let output = Command::new("rsync")
            .args(["-a", "--delete", "--force", "--checksum"])
            .args(*arguments)
            .arg(source)
            .arg(&other)
            .env_remove("CVSIGNORE")
            .env("HOME", pair.path("home-s"))
            .output()
            .unwrap();
        let code = output.status.code();
        // 23: something protected is in the way.
        assert!(matches!(code, Some(0 | 23)), "{arguments:?}: {output:?}");
        let summary = pair.seed().unwrap();
        assert!(summary.in_sync, "{arguments:?}: {summary:?}");
        assert_eq!(
            summary.failed.is_empty(),
            code == Some(0),
            "{arguments:?}: {summary:?} {output:?}"
        );
        let (ours, theirs) = (shape(&pair.dst()), shape(&other));
        let differing: Vec<_> = ours.symmetric_difference(&theirs).collect();
        assert!(
            differing.is_empty(),
            "{arguments:?}, seed {seed}: these differ: {differing:#?} {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
