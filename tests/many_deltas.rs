//! Many files of medium size that change at once: what travels is what changed in them.

mod support;

use std::fs;
use support::random::Random;
use support::{Pair, assert_no_leftovers};

const FILES: usize = 400;

/// Noise, so that nothing but a delta makes it smaller.
fn make(pair: &Pair, sizes: impl Fn(usize) -> usize) -> u64 {
    let mut random = Random(5);
    let mut bytes = 0;
    for n in 0..FILES {
        fs::write(pair.src().join(format!("file-{n}")), random.exactly(sizes(n))).unwrap();
        bytes += sizes(n) as u64;
    }
    bytes
}

fn insert(pair: &Pair, files: std::ops::Range<usize>) {
    for n in files {
        let path = pair.src().join(format!("file-{n}"));
        let mut content = fs::read(&path).unwrap();
        let middle = content.len() / 2;
        content.splice(middle..middle, *b"one line more\n");
        fs::write(path, content).unwrap();
    }
}

/// Bytes that a seed sent, after which both sides are equal.
fn seed(pair: &Pair) -> u64 {
    let summary = pair.seed().unwrap();
    assert!(summary.in_sync && summary.failed.is_empty(), "{summary:?}");
    pair.assert_equal();
    assert_no_leftovers(&pair.dst());
    summary.counters.wire_bytes_sent
}

#[test]
fn of_many_files_that_changed_a_little_little_is_sent() {
    let pair = Pair::new();
    let whole = make(&pair, |n| 9_000 + n * 130);
    assert!(seed(&pair) > whole);
    insert(&pair, 0..FILES);
    let changed = seed(&pair);
    assert!(changed < whole / 5, "{changed} of {whole} bytes");
}

#[test]
fn of_very_small_ones_all_is_sent_and_at_once() {
    let pair = Pair::new();
    let whole = make(&pair, |_| 3_000);
    seed(&pair);
    insert(&pair, 0..FILES);
    let changed = seed(&pair);
    assert!(changed > whole, "{changed} of {whole} bytes");
}

/// Few changes at a time wait for no answer.
#[test]
fn of_a_few_files_all_is_sent_and_at_once() {
    let pair = Pair::new();
    make(&pair, |_| 20_000);
    seed(&pair);
    insert(&pair, 0..20);
    let changed = seed(&pair);
    assert!(changed > 20 * 20_000, "{changed} bytes");
}

/// What was put in the place of a file in the middle of that is found out, and every byte arrives.
#[test]
fn a_target_that_has_other_contents_gets_the_right_ones() {
    let pair = Pair::new();
    make(&pair, |_| 12_000);
    seed(&pair);
    insert(&pair, 0..FILES);
    let mut random = Random(8);
    for n in (0..FILES).step_by(3) {
        fs::write(pair.dst().join(format!("file-{n}")), random.exactly(12_014)).unwrap();
    }
    for n in (1..FILES).step_by(7) {
        fs::remove_file(pair.dst().join(format!("file-{n}"))).unwrap();
    }
    seed(&pair);
}
