//! A sender that follows: whatever is done to the source, and whenever, both trees end up equal.

mod support;

use driftless::daemon::receiver::ReceiverDaemon;
use driftless::daemon::{Deletes, Phase, ReceiverOptions, WatchChoice};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};
use support::churn::{Churn, OnPanic};
use support::random::Random;
use support::settled::{SETTLES, wait_settled};
use support::{Following, Pair, assert_no_leftovers, runtime};

/// A thousand operations, all kinds, under a sender that follows.
fn churned(seed: u64) {
    churned_and_watched(seed, WatchChoice::Auto);
}

fn churned_and_watched(seed: u64, choice: WatchChoice) {
    let mut pair = Pair::new();
    pair.watch.choice = choice;
    // For what is polled: many rounds within the time that trees have to become equal.
    pair.watch.poll.interval = Duration::from_millis(200);
    pair.watch.poll.directories_per_second = 5_000;
    let mut churn = Churn::new(&pair, seed);
    let mut guard = OnPanic(
        format!("seed {seed}, tree in {}", pair.directory.path().display()),
        Vec::new(),
    );
    churn.many(100);
    let receiver = pair.receive();
    let following = Following::start(pair.sender_options(receiver.address(), true));
    following.watching.wait_in_sync();
    for _ in 0..4 {
        churn.many(250);
        churn.hard_links(5);
        guard.1.append(&mut churn.log);
        wait_settled(&pair, &following);
    }
    let summary = following.stop().unwrap();
    assert!(summary.failed.is_empty(), "{summary:?}");
    receiver.stop();
    assert_no_leftovers(&pair.dst());
    // What was believed is what a fresh comparison finds.
    let again = pair.seed().unwrap();
    assert!(again.in_sync && again.failed.is_empty(), "{again:?}");
    pair.assert_equal();
}

#[test]
fn a_thousand_random_changes_arrive_seed_1() {
    churned(1);
}

#[test]
fn a_thousand_random_changes_arrive_seed_2() {
    churned(2);
}

#[test]
fn a_thousand_random_changes_arrive_seed_3() {
    churned(3);
}

/// The others take the best watcher, which is fanotify for root.
#[test]
fn a_thousand_random_changes_arrive_by_inotify() {
    churned_and_watched(4, WatchChoice::Inotify);
}

/// With nothing but listings: what changes between two of them, and changes back, need not be told.
#[test]
fn a_thousand_random_changes_arrive_by_polling() {
    churned_and_watched(5, WatchChoice::Poll);
}

/// `DRIFTLESS_SOAK=n` runs n more seeds, from `DRIFTLESS_SEED` on.
#[test]
fn more_random_changes_arrive_when_asked() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let first = number("DRIFTLESS_SEED").unwrap_or(100);
    for seed in first..first + number("DRIFTLESS_SOAK").unwrap_or(0) {
        churned(seed);
    }
}

#[test]
fn a_sender_that_starts_in_the_middle_of_changes_misses_none() {
    let pair = Pair::new();
    let receiver = pair.receive();
    let mut churn = Churn::new(&pair, 17);
    let mut guard = OnPanic("seed 17".to_owned(), Vec::new());
    churn.many(50);
    for _round in 0..20 {
        let options = pair.sender_options(receiver.address(), true);
        let changing = std::thread::spawn(move || {
            churn.many(60);
            churn
        });
        let following = Following::start(options);
        churn = changing.join().unwrap();
        guard.1.append(&mut churn.log);
        wait_settled(&pair, &following);
        following.stop().unwrap();
    }
    receiver.stop();
}

fn receive_at(pair: &Pair, listen: std::net::SocketAddr) -> ReceiverDaemon {
    let options = ReceiverOptions {
        listen,
        ..pair.receiver_options()
    };
    ReceiverDaemon::start(options, &runtime()).unwrap()
}

#[test]
fn a_receiver_that_restarts_in_the_middle_of_changes_loses_none() {
    let pair = Pair::new();
    let mut receiver = pair.receive();
    let address = receiver.address();
    let mut churn = Churn::new(&pair, 23);
    let mut guard = OnPanic("seed 23".to_owned(), Vec::new());
    churn.many(100);
    let following = Following::start(pair.sender_options(address, true));
    following.watching.wait_in_sync();
    for _round in 0..5 {
        let changing = std::thread::spawn(move || {
            churn.many(150);
            churn
        });
        receiver.stop();
        receiver = receive_at(&pair, address);
        churn = changing.join().unwrap();
        guard.1.append(&mut churn.log);
        wait_settled(&pair, &following);
    }
    following.stop().unwrap();
    receiver.stop();
    assert_no_leftovers(&pair.dst());
}

#[test]
fn a_receiver_that_comes_later_gets_everything() {
    let pair = Pair::new();
    let mut churn = Churn::new(&pair, 29);
    churn.many(100);
    // A port that was just free; nobody listens there now.
    let receiver = pair.receive();
    let address = receiver.address();
    receiver.stop();
    let following = Following::start(pair.sender_options(address, true));
    following
        .watching
        .wait_for(|phase| matches!(phase, Phase::Waiting { .. }));
    churn.many(100);
    let receiver = receive_at(&pair, address);
    wait_settled(&pair, &following);
    following.stop().unwrap();
    receiver.stop();
}

#[test]
fn three_thousand_files_at_once_arrive() {
    let pair = Pair::new();
    let receiver = pair.receive();
    let following = Following::start(pair.sender_options(receiver.address(), true));
    following.watching.wait_in_sync();
    for n in 0..3_000 {
        let directory = pair.src().join(format!("d{}", n % 30));
        if n < 30 {
            fs::create_dir(&directory).unwrap();
        }
        fs::write(directory.join(format!("f{n}")), format!("content {n}")).unwrap();
    }
    wait_settled(&pair, &following);
    fs::remove_dir_all(pair.src().join("d7")).unwrap();
    wait_settled(&pair, &following);
    let summary = following.stop().unwrap();
    assert!(summary.failed.is_empty(), "{summary:?}");
    receiver.stop();
}

#[test]
fn renaming_a_directory_costs_next_to_nothing() {
    let pair = Pair::new();
    let receiver = pair.receive();
    let old = pair.src().join("old/name");
    fs::create_dir_all(&old).unwrap();
    for n in 0..500 {
        fs::write(old.join(format!("f{n}")), Random(n).bytes()).unwrap();
    }
    assert!(pair.seed_to(receiver.address()).unwrap().in_sync);
    let following = Following::start(pair.sender_options(receiver.address(), true));
    following.watching.wait_in_sync();
    let inodes = |root: &Path| {
        use std::os::unix::fs::MetadataExt;
        let found = fs::read_dir(root)
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().ino());
        found.collect::<BTreeSet<_>>()
    };
    let before = inodes(&pair.dst().join("old/name"));
    fs::rename(&old, pair.src().join("renamed")).unwrap();
    wait_settled(&pair, &following);
    assert_eq!(
        inodes(&pair.dst().join("renamed")),
        before,
        "the files themselves stayed"
    );
    let counters = following.stop().unwrap().counters;
    let moved = counters.wire_bytes_sent + counters.wire_bytes_received;
    assert!(moved < 40_000, "a handshake and a rename moved {moved} bytes");
    assert_eq!(counters.files_sent, 0);
    assert_eq!(counters.files_read, 0);
    receiver.stop();
}

#[test]
fn no_rename_is_taken_for_a_new_file() {
    let pair = Pair::new();
    let receiver = pair.receive();
    for directory in ["a", "b"] {
        fs::create_dir(pair.src().join(directory)).unwrap();
    }
    for n in 0..50 {
        fs::write(pair.src().join(format!("a/{n}")), Random(n).bytes()).unwrap();
    }
    assert!(pair.seed_to(receiver.address()).unwrap().in_sync);
    let following = Following::start(pair.sender_options(receiver.address(), true));
    following.watching.wait_in_sync();
    for (from, to) in [("a", "b"), ("b", "a"), ("a", "b"), ("b", "a")] {
        for n in 0..50 {
            let name = |directory: &str| pair.src().join(format!("{directory}/{n}"));
            fs::rename(name(from), name(to)).unwrap();
            // The two halves of a rename reach the sender apart from each other, now and then.
            std::thread::yield_now();
        }
        wait_settled(&pair, &following);
    }
    let counters = following.stop().unwrap().counters;
    assert_eq!((counters.files_sent, counters.files_read), (0, 0));
    receiver.stop();
}

#[test]
fn deletes_never_keeps_what_the_source_removes() {
    let mut pair = Pair::new();
    pair.deletes = Deletes::Never;
    let receiver = pair.receive();
    let (src, dst) = (pair.src(), pair.dst());
    for name in ["a/b/one", "a/two", "three"] {
        fs::create_dir_all(src.join(name).parent().unwrap()).unwrap();
        fs::write(src.join(name), name).unwrap();
    }
    let following = Following::start(pair.sender_options(receiver.address(), true));
    wait_settled(&pair, &following);
    fs::remove_dir_all(src.join("a")).unwrap();
    fs::remove_file(src.join("three")).unwrap();
    // What comes after the removals tells that they have been dealt with.
    fs::write(src.join("last"), b"last").unwrap();
    let deadline = Instant::now() + SETTLES;
    while !dst.join("last").exists() {
        assert!(Instant::now() < deadline, "the last file did not arrive");
        std::thread::park_timeout(Duration::from_millis(5));
    }
    following.watching.wait_in_sync();
    // The name of something kept is used again.
    fs::write(src.join("three"), b"anew").unwrap();
    while fs::read(dst.join("three")).unwrap() != b"anew" {
        assert!(Instant::now() < deadline, "a kept name was not written again");
        std::thread::park_timeout(Duration::from_millis(5));
    }
    following.watching.wait_in_sync();
    following.stop().unwrap();
    receiver.stop();
    assert_eq!(fs::read(dst.join("a/b/one")).unwrap(), b"a/b/one");
    assert_eq!(fs::read(dst.join("a/two")).unwrap(), b"a/two");
}
