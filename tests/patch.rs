//! A small change of a large file is one small op: the sender remembers what the target holds.

mod support;

use driftless::daemon::receiver::ReceiverDaemon;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::time::Duration;
use support::relay::Relay;
use support::waiting::wait_until_some;
use support::{Following, Pair, wait_equal};

const LARGE_BYTES: usize = 8 << 20;

fn incompressible(seed: u8, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new()
        .update(&[seed])
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

struct Bench {
    pair: Pair,
    receiver: ReceiverDaemon,
    relay: Relay,
    following: Following,
}

impl Bench {
    /// A pair in sync over a relay, with one large file.
    fn new() -> Bench {
        Bench::with(Pair::new())
    }

    fn with(pair: Pair) -> Bench {
        fs::write(pair.src().join("large"), incompressible(0, LARGE_BYTES)).unwrap();
        let receiver = pair.receive();
        let relay = Relay::start(receiver.address(), 100 << 20);
        let following = Following::start(pair.sender_options(relay.address(), true));
        let bench = Bench {
            pair,
            receiver,
            relay,
            following,
        };
        bench.settle();
        bench
    }

    fn settle(&self) {
        wait_equal(&self.pair.src(), &self.pair.dst());
        self.following.watching.wait_in_sync();
    }

    /// Bytes that a change takes on the wire, both ways, until all is settled.
    fn cost(&self, change: impl FnOnce(&fs::File)) -> u64 {
        let large = self.pair.src().join("large");
        let before = self.relay.passed();
        change(&OpenOptions::new().write(true).open(large).unwrap());
        self.settle();
        self.relay.passed() - before
    }

    fn end(self) {
        self.following.stop().unwrap();
        self.receiver.stop();
        self.pair.assert_equal();
        support::assert_no_leftovers(&self.pair.dst());
    }
}

#[test]
fn a_page_in_the_middle_takes_about_a_page() {
    let bench = Bench::new();
    for (round, at) in [3 << 20, 5 << 20, 0].into_iter().enumerate() {
        let page = incompressible(round as u8 + 1, 4096);
        let cost = bench.cost(|file| file.write_all_at(&page, at).unwrap());
        assert!((4_096..12_000).contains(&cost), "{cost} bytes for one page");
    }
    bench.end();
}

#[test]
fn many_pages_are_no_reason_to_ask_what_the_target_has() {
    const PAGES: usize = 140;
    let bench = Bench::new();
    let pages = incompressible(1, PAGES * 4096);
    let cost = bench.cost(|file| {
        for (page, at) in pages.chunks(4096).zip((0..).step_by(3 * 4096)) {
            file.write_all_at(page, at).unwrap();
        }
    });
    // A signature of 8 MiB would be some 30 kB more.
    let at_most = pages.len() as u64 * 105 / 100;
    assert!(cost < at_most, "{cost} bytes for {} of pages", pages.len());
    bench.end();
}

#[test]
fn what_is_appended_is_all_that_is_sent() {
    let bench = Bench::new();
    for round in 0..3 {
        let at = LARGE_BYTES as u64 + round * 1024;
        let cost = bench.cost(|file| file.write_all_at(&incompressible(round as u8, 1024), at).unwrap());
        assert!(cost < 4_000, "{cost} bytes for 1 KiB in round {round}");
    }
    let cost = bench.cost(|file| file.set_len(1 << 20).unwrap());
    assert!(cost < 4_000, "{cost} bytes for a cut");
    bench.end();
}

#[test]
fn what_is_cut_is_not_asked_for() {
    let bench = Bench::new();
    let cost = bench.cost(|file| file.set_len(6 << 20).unwrap());
    assert!(cost < 4_000, "{cost} bytes for a cut");
    let cost = bench.cost(|file| {
        file.set_len(0).unwrap();
        file.write_all_at(&incompressible(1, 3_000), 0).unwrap();
    });
    assert!(cost < 8_000, "{cost} bytes for a log that was begun anew");
    bench.end();
}

/// What a file that only grows is assumed to be is sent at once; what it is, soon after.
#[test]
fn what_only_grows_is_not_read_before_it_leaves() {
    let mut pair = Pair::new();
    pair.append_only.add(b"/large").unwrap();
    pair.pending.max_delay = Duration::from_secs(5);
    let bench = Bench::with(pair);
    let (copy, line) = (bench.pair.dst().join("large"), incompressible(1, 1_024));
    for round in 0..3 {
        let at = (LARGE_BYTES + round * line.len()) as u64;
        let cost = bench.cost(|file| file.write_all_at(&line, at).unwrap());
        assert!(
            cost < 6_000,
            "{cost} bytes for an append and the word that it was right"
        );
    }
    // Each was read once more, as a whole: as it was right, nobody had to be told.
    let said = bench.following.watching.said();
    assert_eq!(said.applied, vec![("put", "large".to_owned()); 3]);
    // It did not only grow: nobody looks before what was added has left.
    let at = (LARGE_BYTES + 3 * line.len()) as u64;
    let source = OpenOptions::new()
        .write(true)
        .open(bench.pair.src().join("large"))
        .unwrap();
    let before = fs::read(&copy).unwrap();
    source.write_all_at(b"changed", 100).unwrap();
    source.write_all_at(&line, at).unwrap();
    drop(source);
    let grown = wait_until_some("what was added", || {
        fs::read(&copy)
            .ok()
            .filter(|content| content.len() > before.len())
    });
    assert!(grown.starts_with(&before) && grown.ends_with(&line));
    bench.settle();
    assert_eq!(fs::read(&copy).unwrap()[100..107], *b"changed");
    bench.end();
}

#[test]
fn a_sender_that_was_restarted_still_remembers() {
    let mut bench = Bench::new();
    bench.following.stop().unwrap();
    let before = bench.relay.passed();
    let file = OpenOptions::new()
        .write(true)
        .open(bench.pair.src().join("large"))
        .unwrap();
    file.write_all_at(&incompressible(9, 4096), 1 << 20).unwrap();
    drop(file);
    bench.following = Following::start(bench.pair.sender_options(bench.relay.address(), true));
    bench.settle();
    let cost = bench.relay.passed() - before;
    assert!(cost < 30_000, "a handshake and a page took {cost} bytes");
    bench.end();
}

#[test]
fn a_target_that_was_edited_is_not_patched_but_repaired() {
    let bench = Bench::new();
    let there = OpenOptions::new()
        .write(true)
        .open(bench.pair.dst().join("large"))
        .unwrap();
    there.write_all_at(b"somebody else's", 100).unwrap();
    drop(there);
    let cost = bench.cost(|file| file.write_all_at(&incompressible(1, 4096), 2 << 20).unwrap());
    // By an exchange of signatures: far from the whole file.
    assert!(cost < LARGE_BYTES as u64 / 4, "{cost} bytes for a repair");
    let cost = bench.cost(|file| file.write_all_at(&incompressible(2, 4096), 4 << 20).unwrap());
    assert!(cost < 12_000, "{cost} bytes for a page after the repair");
    bench.end();
}
