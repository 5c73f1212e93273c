//! Seeding through two daemons and real QUIC, judged by an independent walk of both trees.

mod support;

use driftless::daemon::home::Home;
use driftless::daemon::receiver::ReceiverDaemon;
use driftless::daemon::{Deletes, ReceiverOptions, roots};
use driftless::engine::delta::Engine;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use support::{Pair, assert_equal, assert_no_leftovers, runtime};

fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut out = vec![0; bytes];
    blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut out);
    out
}

/// Every kind of entry, small and large, plain and odd.
fn make_tree(root: &Path) {
    for n in 0..300 {
        write(
            &root.join(format!("d{}/e{}/f{n}", n % 7, n % 3)),
            format!("file {n}\n").repeat(n).as_bytes(),
        );
    }
    write(&root.join("empty"), b"");
    write(&root.join("large"), &noise(3_500_000, 1));
    write(&root.join("zeros"), &vec![0; 2_000_000]);
    symlink("../no/where", root.join("link")).unwrap();
    symlink("d1", root.join("to-directory")).unwrap();
    fs::create_dir(root.join("empty-directory")).unwrap();
    write(&root.join("read-only/file"), b"x");
    fs::set_permissions(root.join("read-only/file"), fs::Permissions::from_mode(0o400)).unwrap();
    fs::set_permissions(root.join("read-only"), fs::Permissions::from_mode(0o555)).unwrap();
    write(&root.join("d1/-rf \n\u{1b}[31m"), b"odd");
    let invalid: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"inv\xff\xfealid");
    write(&root.join(invalid), b"bytes");
}

#[test]
fn a_tree_arrives_whole_and_a_second_seed_costs_next_to_nothing() {
    let pair = Pair::new();
    make_tree(&pair.src());
    let first = pair.seed().unwrap();
    assert!(first.in_sync && first.failed.is_empty(), "{first:?}");
    pair.assert_equal();
    assert_no_leftovers(&pair.dst());
    let second = pair.seed().unwrap();
    assert!(second.in_sync);
    let moved = second.counters.wire_bytes_sent + second.counters.wire_bytes_received;
    assert!(moved < 10_000, "a second seed moved {moved} bytes");
    assert_eq!(second.counters.files_read, 0);
}

#[test]
fn edits_between_seeds_arrive() {
    let pair = Pair::new();
    make_tree(&pair.src());
    pair.seed().unwrap();
    let src = pair.src();
    let mut large = fs::read(src.join("large")).unwrap();
    large.splice(1_000_000..1_000_000, *b"inserted");
    fs::write(src.join("large"), large).unwrap();
    fs::rename(src.join("d2"), src.join("renamed")).unwrap();
    fs::remove_dir_all(src.join("d3")).unwrap();
    fs::remove_file(src.join("empty")).unwrap();
    write(&src.join("empty/now-a-directory"), b"y");
    fs::remove_dir_all(src.join("d4")).unwrap();
    write(&src.join("d4"), b"now a file");
    fs::set_permissions(src.join("d5"), fs::Permissions::from_mode(0o700)).unwrap();
    let second = pair.seed().unwrap();
    assert!(second.in_sync && second.failed.is_empty(), "{second:?}");
    pair.assert_equal();
    assert_no_leftovers(&pair.dst());
    let sent = second.counters.wire_bytes_sent;
    assert!(sent < 200_000, "a delta and a rename took {sent} bytes");
}

/// Whichever engine the receiver signs with, the sender matches with the same.
#[test]
fn either_delta_engine_carries_only_what_changed() {
    for delta_engine in [Engine::Driftless, Engine::FastRsync] {
        let pair = Pair::new();
        let image = pair.src().join("image");
        let mut bytes = noise(20 << 20, 5);
        write(&image, &bytes);
        let seed = || {
            let options = ReceiverOptions {
                delta_engine,
                ..pair.receiver_options()
            };
            let receiver = ReceiverDaemon::start(options, &runtime()).unwrap();
            let outcome = pair.seed_to(receiver.address()).unwrap();
            receiver.stop();
            outcome
        };
        assert!(seed().in_sync);
        // Moves all that follows, leaves a range that is new from end to end, cuts and appends.
        bytes.splice(1_000_000..1_000_000, noise(2_500_000, 6));
        bytes.drain(9_000_000..9_000_077);
        bytes[12_345_678] ^= 1;
        bytes.extend_from_slice(&noise(1_000, 7));
        write(&image, &bytes);
        let second = seed();
        assert!(
            second.in_sync && second.failed.is_empty(),
            "{delta_engine}: {second:?}"
        );
        pair.assert_equal();
        let sent = second.counters.wire_bytes_sent;
        assert!(
            sent < 2_700_000,
            "{delta_engine}: {sent} bytes were sent for 2.5 MB"
        );
    }
}

/// A sender may choose, too; what it remembers of the target's contents is no part of the other engine.
#[test]
fn a_sender_may_choose_the_engine() {
    let mut received = Vec::new();
    for delta_engine in [None, Some(Engine::Driftless), Some(Engine::FastRsync)] {
        let pair = Pair {
            delta_engine,
            ..Pair::new()
        };
        let image = pair.src().join("image");
        let mut bytes = noise(20 << 20, 5);
        write(&image, &bytes);
        let receiver = ReceiverDaemon::start(pair.receiver_options(), &runtime()).unwrap();
        assert!(pair.seed_to(receiver.address()).unwrap().in_sync);
        bytes[12_345_678] ^= 1;
        write(&image, &bytes);
        let second = pair.seed_to(receiver.address()).unwrap();
        receiver.stop();
        assert!(
            second.in_sync && second.failed.is_empty(),
            "{delta_engine:?}: {second:?}"
        );
        pair.assert_equal();
        assert!(
            second.counters.wire_bytes_sent < 200_000,
            "{delta_engine:?}: {second:?}"
        );
        received.push(second.counters.wire_bytes_received);
    }
    // Only the other engine asks for a signature of what the target has.
    assert!(received[0] < 20_000 && received[1] < 20_000, "{received:?}");
    assert!(received[2] > 30_000, "{received:?}");
}

#[test]
fn a_lost_catalog_on_either_side_is_rebuilt_and_nothing_is_deleted() {
    let pair = Pair::new();
    make_tree(&pair.src());
    pair.seed().unwrap();
    for home in ["home-s", "home-r"] {
        let mut removed = 0;
        let mut directories = vec![pair.path(home)];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    directories.push(path);
                } else if path.file_name().unwrap() == "catalog.redb" {
                    fs::remove_file(path).unwrap();
                    removed += 1;
                }
            }
        }
        assert_eq!(removed, 1, "{home}");
        let again = pair.seed().unwrap();
        assert!(again.in_sync && again.failed.is_empty(), "{home}: {again:?}");
        pair.assert_equal();
        assert!(again.counters.wire_bytes_sent < 400_000, "{home}: {again:?}");
    }
}

#[test]
fn first_contact_deletes_nothing_unasked() {
    let mut pair = Pair::new();
    make_tree(&pair.src());
    write(&pair.dst().join("precious/data"), b"not in the source");
    write(&pair.dst().join("more"), b"not in the source");
    let refused = pair.seed().unwrap_err().to_string();
    assert!(
        refused.contains("3 entries") && refused.contains("--delete"),
        "{refused}"
    );
    assert!(!pair.dst().join("large").exists());
    pair.deletes = Deletes::Never;
    let kept = pair.seed().unwrap();
    assert!(kept.in_sync);
    assert_eq!(kept.counters.extras_kept, 3);
    assert_eq!(
        fs::read(pair.dst().join("precious/data")).unwrap(),
        b"not in the source"
    );
    fs::remove_file(pair.src().join("large")).unwrap();
    assert!(pair.seed().unwrap().in_sync);
    assert!(
        pair.dst().join("large").exists(),
        "with --delete never, what the source removes stays"
    );
    // The decision is remembered: a run without the flag deletes nothing either.
    pair.deletes = Deletes::Ask;
    write(&pair.dst().join("later"), b"made on the receiver");
    write(&pair.src().join("newer"), b"made in the source");
    let again = pair.seed().unwrap();
    assert!(again.in_sync, "{again:?}");
    assert!(pair.dst().join("precious/data").exists() && pair.dst().join("later").exists());
    assert!(pair.dst().join("newer").exists());
}

#[test]
fn first_contact_with_delete_always_makes_both_equal() {
    let mut pair = Pair::new();
    make_tree(&pair.src());
    write(&pair.dst().join("d1/extra"), b"goes");
    write(&pair.dst().join("d2"), b"of another kind");
    write(
        &pair.dst().join("large"),
        &fs::read(pair.src().join("large")).unwrap(),
    );
    pair.deletes = Deletes::Always;
    let summary = pair.seed().unwrap();
    assert!(summary.in_sync && summary.failed.is_empty(), "{summary:?}");
    pair.assert_equal();
    assert_no_leftovers(&pair.dst());
}

#[test]
fn d14_a_root_that_is_empty_or_another_one_deletes_nothing() {
    let mut pair = Pair::new();
    make_tree(&pair.src());
    pair.seed().unwrap();
    let aside = pair.path("aside");
    fs::rename(pair.src(), &aside).unwrap();
    let missing = pair.seed().unwrap_err().to_string();
    assert!(missing.contains("src"), "{missing}");
    fs::create_dir(pair.src()).unwrap();
    let replaced = pair.seed().unwrap_err().to_string();
    assert!(
        replaced.contains("another directory") && replaced.contains("--accept-root"),
        "{replaced}"
    );
    assert_equal(&aside, &pair.dst());
    fs::remove_dir(pair.src()).unwrap();
    fs::rename(&aside, pair.src()).unwrap();
    assert!(pair.seed().unwrap().in_sync);
    for entry in fs::read_dir(pair.src()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            fs::remove_dir_all(path).unwrap()
        } else {
            fs::remove_file(path).unwrap()
        }
    }
    let emptied = pair.seed().unwrap_err().to_string();
    assert!(
        emptied.contains("is empty") && pair.dst().join("large").exists(),
        "{emptied}"
    );
    pair.accept_root = true;
    assert!(pair.seed().unwrap().in_sync);
    pair.assert_equal();
}

#[test]
fn one_unreadable_or_odd_entry_does_not_stop_the_rest() {
    let pair = Pair::new();
    make_tree(&pair.src());
    let _socket = std::os::unix::net::UnixListener::bind(pair.src().join("socket")).unwrap();
    let summary = pair.seed().unwrap();
    assert_eq!(summary.counters.skipped, 1);
    assert!(summary.in_sync);
    pair.assert_equal();
}

/// The module's name leads to another directory than before: that is refused, and once it is approved a first contact
/// again, whatever the sender remembers.
#[test]
fn another_tree_behind_the_same_module_loses_nothing() {
    let pair = Pair::new();
    make_tree(&pair.src());
    pair.seed().unwrap();
    fs::rename(pair.dst(), pair.path("former")).unwrap();
    write(&pair.dst().join("precious"), b"somebody's");
    let started = ReceiverDaemon::start(pair.receiver_options(), &runtime());
    let refused = started.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(refused.contains("nothing was written"), "{refused}");
    let (home, root) = (Home::at(pair.path("home-r")), pair.dst().display().to_string());
    roots::approve(&home, &root).unwrap().unwrap();
    let refused = pair.seed().unwrap_err().to_string();
    assert!(
        refused.contains("1 entry") && refused.contains("--delete"),
        "{refused}"
    );
    // Nothing was decided by that.
    let refused = pair.seed().unwrap_err().to_string();
    assert!(
        refused.contains("1 entry") && refused.contains("--delete"),
        "{refused}"
    );
    assert_eq!(fs::read(pair.dst().join("precious")).unwrap(), b"somebody's");
    assert_equal(&pair.src(), &pair.path("former"));
}

/// C-15: the receiver's disk is put back to an older state; both ends believe in a newer one.
#[test]
fn c15_a_receiver_put_back_to_an_older_state_is_compared_and_repaired() {
    let pair = Pair::new();
    make_tree(&pair.src());
    pair.seed().unwrap();
    let copied = std::process::Command::new("cp")
        .args(["-a", "dst", "old"])
        .current_dir(pair.directory.path())
        .status();
    assert!(copied.unwrap().success());
    write(&pair.src().join("d1/new"), b"arrives twice");
    fs::remove_file(pair.src().join("empty")).unwrap();
    pair.seed().unwrap();
    fs::rename(pair.dst(), pair.path("newer")).unwrap();
    fs::rename(pair.path("old"), pair.dst()).unwrap();
    let again = pair.seed().unwrap();
    assert!(again.in_sync && again.failed.is_empty(), "{again:?}");
    pair.assert_equal();
    assert!(
        again.counters.wire_bytes_sent < 400_000,
        "contents that are there were sent again: {again:?}"
    );
}

/// Seeds a tree with a file whose content changes later under the same time and size, when the homes that are named were put
/// back to before there was such a file.
fn notes_are_lost_and_a_time_is_put_back(homes: &[&str]) {
    let pair = Pair::new();
    make_tree(&pair.src());
    pair.seed().unwrap();
    let older = |home: &str| pair.path(&format!("older-{home}"));
    for home in homes {
        let mut copy = std::process::Command::new("cp");
        let copied = copy.arg("-a").args([pair.path(home), older(home)]).status();
        assert!(copied.unwrap().success());
    }
    let file = pair.src().join("d1/new");
    write(&file, b"what the target has");
    pair.seed().unwrap();
    let written = fs::metadata(&file).unwrap().modified().unwrap();
    write(&file, b"what the source has");
    fs::File::open(&file).unwrap().set_modified(written).unwrap();
    for home in homes {
        fs::remove_dir_all(pair.path(home)).unwrap();
        fs::rename(older(home), pair.path(home)).unwrap();
    }
    let again = pair.seed().unwrap();
    assert!(again.in_sync && again.failed.is_empty(), "{again:?}");
    pair.assert_equal();
}

/// C-14: a sender whose last notes were lost, as by a kill, does not believe a time that was put back about a file of which
/// they were: the target has what that very mirror sent, which says nothing of what is here now.
#[test]
fn c_14_a_file_of_which_the_notes_were_lost_is_read() {
    notes_are_lost_and_a_time_is_put_back(&["home-s"]);
}

/// C-14: the same where the target lost its notes as well, and takes the file for one of its own.
#[test]
fn c_14_a_file_of_which_both_lost_their_notes_is_read() {
    notes_are_lost_and_a_time_is_put_back(&["home-s", "home-r"]);
}

#[test]
fn c_14_a_file_of_which_the_target_lost_its_notes_is_read() {
    notes_are_lost_and_a_time_is_put_back(&["home-r"]);
}

#[test]
fn a_sender_that_lost_its_state_takes_up_its_target_again() {
    let pair = Pair::new();
    fs::create_dir_all(pair.src().join("a/b")).unwrap();
    for n in 0..20 {
        fs::write(pair.src().join(format!("a/b/{n}")), vec![n; 3_000]).unwrap();
    }
    assert!(pair.seed().unwrap().in_sync);
    fs::remove_dir_all(pair.path("home-s")).unwrap();
    fs::create_dir(pair.path("home-s")).unwrap();
    // Numbers are given out in another order than before.
    fs::rename(pair.src().join("a/b"), pair.src().join("0")).unwrap();
    fs::rename(pair.src().join("0"), pair.src().join("a/b")).unwrap();
    fs::write(pair.src().join("a/b/3"), b"changed meanwhile").unwrap();
    let summary = pair.seed().unwrap();
    assert!(summary.in_sync);
    assert_eq!(
        summary.counters.files_sent, 1,
        "what the target has was sent again"
    );
    pair.assert_equal();
    // From here on it is the old pair again.
    fs::write(pair.src().join("a/b/4"), b"changed later").unwrap();
    let summary = pair.seed().unwrap();
    assert_eq!((summary.in_sync, summary.counters.files_read), (true, 1));
    pair.assert_equal();
}
