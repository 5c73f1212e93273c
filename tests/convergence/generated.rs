//! Random changes: on every file system by every watcher, while the sender starts, while it is stopped.

use crate::mirror::{CHOICES, Mirror, watched_by};
use crate::support::Pair;
use crate::support::churn::{Churn, OPERATIONS, OnPanic};
use crate::support::image::Image;
use crate::{scaled, seed};
use driftless::daemon::WatchChoice;
use std::collections::BTreeSet;

/// Bursts of random changes on one file system, by one watcher.
fn churned(image: &Image, choice: WatchChoice, seed: u64) {
    let mut pair = Pair::in_directory(image.directory());
    watched_by(&mut pair, choice);
    let mut churn = Churn::new(&pair, seed);
    let mut guard = OnPanic(format!("{choice:?}, seed {seed}"), Vec::new());
    churn.many(40);
    let mirror = Mirror::start(pair);
    for _ in 0..2 {
        churn.bursts(60);
        guard.1.append(&mut churn.log);
        mirror.settle();
    }
    mirror.end_and_compare();
}

fn churned_on(kind: &str, first: u64) {
    let Some(image) = Image::new(kind) else { return };
    let first = seed(first);
    for seed in first..first + scaled(1) as u64 {
        for (number, choice) in CHOICES.into_iter().enumerate() {
            churned(&image, choice, 10 * seed + number as u64);
        }
    }
}

#[test]
fn d_01_random_changes_arrive_on_ext4() {
    churned_on("ext4", 101);
}

#[test]
fn d_01_random_changes_arrive_on_xfs() {
    churned_on("xfs", 102);
}

#[test]
fn d_01_random_changes_arrive_on_btrfs() {
    churned_on("btrfs", 103);
}

#[test]
fn d_01_random_changes_arrive_on_tmpfs() {
    churned_on("tmpfs", 104);
}

/// Nothing falls between the first listing and the watch, whenever a sender starts and whenever it is stopped.
#[test]
fn d_18_a_sender_that_starts_during_changes_misses_none() {
    for (number, choice) in CHOICES.into_iter().enumerate() {
        let mut pair = Pair::new();
        watched_by(&mut pair, choice);
        let seed = seed(18) + number as u64;
        let mut churn = Churn::new(&pair, seed);
        let mut guard = OnPanic(format!("{choice:?}, seed {seed}"), Vec::new());
        churn.many(50);
        let mut mirror = Mirror::stopped(pair);
        for round in 0..scaled(5) {
            let changing = std::thread::spawn(move || {
                churn.many(60);
                churn
            });
            mirror.resume();
            if round % 2 == 0 {
                // Stopped in the middle of it as well.
                let _ = mirror.pause().unwrap();
                mirror.resume();
            }
            churn = changing.join().unwrap();
            guard.1.append(&mut churn.log);
            mirror.settle();
            mirror.pause().unwrap();
        }
        mirror.resume();
        mirror.end_and_compare();
    }
}

/// What is done while nobody watches is found by the first look.
#[test]
fn d_19_changes_while_the_sender_is_stopped_are_found() {
    let pair = Pair::new();
    let seed = seed(19);
    let mut churn = Churn::new(&pair, seed);
    let mut guard = OnPanic(format!("seed {seed}"), Vec::new());
    churn.many(150);
    let mut mirror = Mirror::start(pair);
    let mut done = BTreeSet::new();
    for _ in 0..scaled(4) {
        mirror.pause().unwrap();
        done.extend(churn.each_kind());
        guard.1.append(&mut churn.log);
        mirror.resume();
        mirror.settle();
    }
    let missing: Vec<_> = OPERATIONS
        .iter()
        .map(|operation| operation.name)
        .filter(|name| !done.contains(name) && (*name != "set an owner" || crate::support::is_root()))
        .collect();
    assert!(missing.is_empty(), "never done: {missing:?}");
    mirror.end_and_compare();
}

/// One operation, one look: each kind by itself, with nothing around it that would bring it along.
#[test]
fn d_19_each_kind_of_change_alone_is_found_at_the_start() {
    let pair = Pair::new();
    let mut churn = Churn::new(&pair, seed(190));
    churn.many(60);
    let mut mirror = Mirror::seeded(pair);
    for operation in OPERATIONS {
        let found = crate::support::churn::Found::look(&churn.root);
        let done = (operation.act)(&mut churn, &found);
        let again = mirror.pair.seed_to(mirror.address()).unwrap();
        let found = crate::support::differences(&mirror.pair.src(), &mirror.pair.dst());
        assert!(
            again.in_sync && found.is_empty(),
            "{} {done:?}: {again:?} {found:?}",
            operation.name
        );
    }
    mirror.stop();
}
