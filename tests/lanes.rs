//! A large file on its way over a slow link holds up nothing else: not edits, renames, removals, nor what takes its
//! place.

mod support;

use std::fs;
use std::path::Path;
use std::time::Instant;
use support::relay::Relay;
use support::{Following, PATIENCE, Pair};

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

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "still not: {what}");
        std::thread::park_timeout(std::time::Duration::from_millis(5));
    }
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
