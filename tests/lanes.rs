//! A large file on its way over a slow link holds up nothing else: not edits, renames, removals, nor what takes its
//! place.

mod support;

use driftless::daemon::receiver::ReceiverDaemon;
use driftless::daemon::{LargeFiles, Phase, Summary};
use driftless::engine::pending::Writes;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};
use support::relay::Relay;
use support::waiting::wait_until;
use support::{Following, Pair};

/// A link on which the large file takes half a minute.
const LINK_BYTES_PER_SECOND: u64 = 2 << 20;
const LARGE_BYTES: usize = 64 << 20;

fn incompressible(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

/// A file that comes whole, as by a rename: nobody is writing it any more.
fn place(pair: &Pair, name: &str, content: &[u8]) {
    fs::write(pair.path("aside"), content).unwrap();
    fs::rename(pair.path("aside"), pair.src().join(name)).unwrap();
}

fn holds(path: &Path, content: &[u8]) -> bool {
    fs::read(path).is_ok_and(|found| found == content)
}

#[test]
fn small_changes_overtake_a_large_file() {
    let pair = Pair::new();
    let receiver = pair.receive();
    let relay = Relay::start(receiver.address(), LINK_BYTES_PER_SECOND);
    let (src, dst) = (pair.src(), pair.dst());
    fs::create_dir_all(src.join("dir/inner")).unwrap();
    for name in ["edited", "removed", "dir/inner/file", "small"] {
        fs::write(src.join(name), name).unwrap();
    }
    let following = Following::start(pair.sender_options(relay.address(), true));
    following.watching.wait_in_sync();

    let before = relay.passed();
    place(&pair, "large", &incompressible(LARGE_BYTES));
    wait_until("the large file is on its way", || {
        relay.passed() > before + (1 << 20)
    });

    for content in [&b"first"[..], b"second", b"third"] {
        fs::write(src.join("edited"), content).unwrap();
        wait_until("an edit", || holds(&dst.join("edited"), content));
    }
    fs::rename(src.join("dir"), src.join("renamed")).unwrap();
    wait_until("a rename", || {
        holds(&dst.join("renamed/inner/file"), b"dir/inner/file")
    });
    fs::remove_file(src.join("removed")).unwrap();
    wait_until("a removal", || !dst.join("removed").exists());
    fs::remove_dir_all(src.join("renamed")).unwrap();
    wait_until("the removal of a directory", || !dst.join("renamed").exists());
    assert!(!dst.join("large").exists(), "the large file was not overtaken");

    // Its place is taken: what was on its way is given up, and never shows.
    fs::rename(src.join("small"), src.join("large")).unwrap();
    wait_until("the other file at its place", || {
        holds(&dst.join("large"), b"small")
    });
    following.watching.wait_in_sync();
    assert!(
        relay.passed() < LARGE_BYTES as u64,
        "the large file was sent to its end: {} bytes",
        relay.passed()
    );
    following.stop().unwrap();
    receiver.stop();
    pair.assert_equal();
}

/// Starts a pair that is in sync, with small files in it.
fn following(pair: &Pair) -> (ReceiverDaemon, Following) {
    let receiver = pair.receive();
    let following = Following::start(pair.sender_options(receiver.address(), true));
    following.watching.wait_in_sync();
    (receiver, following)
}

fn end(pair: &Pair, receiver: ReceiverDaemon, following: Following) -> Summary {
    following.watching.wait_in_sync();
    let summary = following.stop().unwrap();
    receiver.stop();
    pair.assert_equal();
    summary
}

#[test]
fn with_a_delay_changes_leave_together() {
    let mut pair = Pair::new();
    pair.pending.delay = Duration::from_secs(1);
    let (receiver, following) = following(&pair);
    let began = Instant::now();
    for name in ["one", "two", "three"] {
        fs::write(pair.src().join(name), name).unwrap();
    }
    for name in ["one", "two", "three"] {
        wait_until(name, || holds(&pair.dst().join(name), name.as_bytes()));
    }
    assert!(began.elapsed() >= pair.pending.delay);
    end(&pair, receiver, following);
}

#[test]
fn a_full_batch_leaves_early() {
    let mut pair = Pair::new();
    pair.pending.delay = Duration::from_secs(3_600);
    pair.pending.batch_max = 3;
    let (receiver, following) = following(&pair);
    for name in ["one", "two", "three"] {
        place(&pair, name, name.as_bytes());
    }
    wait_until("a full batch", || pair.dst().join("three").exists());
    let summary = following.stop().unwrap();
    assert_eq!(summary.counters.files_sent, 3);
    receiver.stop();
    pair.assert_equal();
}

#[test]
fn large_files_have_a_rhythm_of_their_own() {
    let mut pair = Pair::new();
    let delay = Duration::from_secs(2);
    pair.large_files = Some(LargeFiles {
        bytes: 1 << 20,
        delay,
    });
    let (receiver, following) = following(&pair);
    let before = following.watching.wait_for(|_| true);
    assert!(matches!(before, Phase::InSync { .. }));
    let began = Instant::now();
    let (mut first, last) = (incompressible(2 << 20), incompressible(2 << 20));
    first[0] ^= 1;
    place(&pair, "large", &first);
    place(&pair, "small", b"small");
    wait_until("the small file", || holds(&pair.dst().join("small"), b"small"));
    place(&pair, "large", &last);
    wait_until("the large file as it is now", || {
        holds(&pair.dst().join("large"), &last)
    });
    assert!(began.elapsed() >= delay, "it left after {:?}", began.elapsed());
    let summary = end(&pair, receiver, following);
    assert_eq!(
        summary.counters.files_sent, 2,
        "the first version was sent as well"
    );
}

#[test]
fn a_file_that_stays_open_is_left_alone_when_asked() {
    let mut pair = Pair::new();
    pair.pending.writes = Writes::Closed;
    let (receiver, following) = following(&pair);
    fs::write(pair.src().join("log"), b"first\n").unwrap();
    wait_until("the log", || holds(&pair.dst().join("log"), b"first\n"));
    // A file that was read within a tick of its last change is read once more.
    following.watching.wait_in_sync();
    let mut log = fs::OpenOptions::new()
        .append(true)
        .open(pair.src().join("log"))
        .unwrap();
    log.write_all(b"second\n").unwrap();
    // What comes after two rounds of other changes would have come after the open file's, had that been sent.
    for name in ["one", "two"] {
        place(&pair, name, name.as_bytes());
        wait_until(name, || holds(&pair.dst().join(name), name.as_bytes()));
    }
    assert!(holds(&pair.dst().join("log"), b"first\n"));
    drop(log);
    wait_until("the closed log", || {
        holds(&pair.dst().join("log"), b"first\nsecond\n")
    });
    end(&pair, receiver, following);
}

#[test]
fn a_large_file_that_is_removed_is_given_up() {
    let pair = Pair::new();
    let receiver = pair.receive();
    let relay = Relay::start(receiver.address(), LINK_BYTES_PER_SECOND);
    let following = Following::start(pair.sender_options(relay.address(), true));
    following.watching.wait_in_sync();
    fs::create_dir(pair.src().join("dir")).unwrap();
    place(&pair, "dir/large", &incompressible(LARGE_BYTES));
    wait_until("the large file is on its way", || relay.passed() > 1 << 20);
    fs::remove_dir_all(pair.src().join("dir")).unwrap();
    wait_until("the removal", || !pair.dst().join("dir").exists());
    following.watching.wait_in_sync();
    assert!(relay.passed() < LARGE_BYTES as u64, "it was sent to its end");
    following.stop().unwrap();
    receiver.stop();
    pair.assert_equal();
    support::assert_no_leftovers(&pair.dst());
}

#[test]
fn a_large_file_that_is_renamed_while_it_is_sent_is_not_sent_again() {
    let pair = Pair::new();
    let receiver = pair.receive();
    let relay = Relay::start(receiver.address(), 8 * LINK_BYTES_PER_SECOND);
    let following = Following::start(pair.sender_options(relay.address(), true));
    following.watching.wait_in_sync();
    let content = incompressible(LARGE_BYTES);
    place(&pair, "large", &content);
    wait_until("the large file is on its way", || relay.passed() > 1 << 20);
    fs::rename(pair.src().join("large"), pair.src().join("renamed")).unwrap();
    wait_until("the file at its new name", || {
        holds(&pair.dst().join("renamed"), &content)
    });
    following.watching.wait_in_sync();
    assert!(
        relay.passed() < content.len() as u64 * 3 / 2,
        "it was sent again: {} bytes",
        relay.passed()
    );
    following.stop().unwrap();
    receiver.stop();
    pair.assert_equal();
}
