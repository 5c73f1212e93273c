//! System calls that fail: what was not done is told, and keeps nothing else from being done.

use super::*;
use crate::fs::{Call, Disk, with_disk};
use std::cell::RefCell;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

/// Asked before each call of this thread that changes a name or flushes: whether it succeeds.
struct Judge(RefCell<Box<dyn FnMut(Call) -> bool>>);

impl Disk for Judge {
    fn begin(&self, call: Call) -> bool {
        (self.0.borrow_mut())(call)
    }
    fn renamed(&self) {}
    fn flushed(&self, _: BorrowedFd<'_>) {}
    fn all_flushed(&self) {}
}

pub(super) fn judge(judge: impl FnMut(Call) -> bool + 'static) {
    with_disk(Rc::new(Judge(RefCell::new(Box::new(judge)))));
}

/// Fails the calls of these numbers, counted from 1, that change a name.
pub(super) fn fail(numbers: &'static [usize]) {
    let mut calls = 0;
    judge(move |call| {
        calls += usize::from(call == Call::Name);
        call != Call::Name || !numbers.contains(&calls)
    });
}

pub(super) fn nothing_fails() {
    judge(|_| true);
}

#[test]
fn one_that_cannot_be_removed_keeps_no_other_from_it() {
    let mut bench = Bench::new();
    for at in 0..4 {
        let name = at.to_string();
        bench.make(10 + at, place(1, &name));
        bench.put(20 + at, place(1, &name), "a file now");
    }
    assert_eq!(bench.replica.parked.len(), 4, "their own ops are lost");
    fail(&[1]);
    let outcome = bench.apply(|replica, t| replica.remove_parked(t));
    nothing_fails();
    let text = outcome.unwrap_err().text;
    assert!(text.contains("cannot remove"), "{text}");
    let left: Vec<_> = bench
        .names()
        .into_iter()
        .filter(|name| name.starts_with(".driftless-"))
        .collect();
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(text.contains(&left[0]), "{text} is about {left:?}");
}

/// A tree that takes another's place never has a private name: what is in it and not the mirror's would be swept with that.
#[test]
fn a_tree_that_moves_over_something_is_whole_wherever_the_disk_ends() {
    for other in ["a file", "a file of the target's own", "an empty directory"] {
        let mut ends_at = 1;
        loop {
            let mut bench = Bench::new();
            bench.replica.protects = true;
            bench.make(10, place(1, "away"));
            bench.make(11, place(10, "tree"));
            bench.put(12, place(11, "inside"), "the mirror's");
            fs::write(bench.path("away/tree/kept"), "the target's").unwrap();
            match other {
                "an empty directory" => bench.make(13, place(1, "to")),
                _ => bench.put(13, place(1, "to"), "in the way"),
            }
            if other == "a file of the target's own" {
                bench
                    .apply(|replica, t| replica.release(t, ObjectId(13)))
                    .unwrap();
            }
            bench.replica.commit_durably(None, true).unwrap();
            let (mut calls, ended) = (0, Rc::new(std::cell::Cell::new(false)));
            let has_ended = ended.clone();
            judge(move |call| {
                calls += usize::from(call == Call::Name);
                has_ended.set(calls >= ends_at);
                calls < ends_at
            });
            let outcome = bench.shift(11, place(1, "to"));
            nothing_fails();
            if !ended.get() {
                outcome.unwrap();
                assert!(ends_at > 2, "{other}: nothing was cut off");
                assert_eq!(bench.read("to/kept"), "the target's", "{other}");
                break;
            }
            let bench = bench.reopen(&Keeping::default());
            let at = ["to", "away/tree"].into_iter().find(|at| bench.path(at).exists());
            let is_whole = |at: &&str| {
                ["inside", "kept"]
                    .iter()
                    .all(|name| bench.path(at).join(name).exists())
            };
            let whole = ["to", "away/tree"].iter().any(is_whole);
            assert!(
                whole,
                "{other}, cut off at {ends_at}: {at:?} of {:?}",
                bench.names()
            );
            ends_at += 1;
        }
    }
}

#[test]
fn what_was_in_the_way_of_a_tree_and_stays_is_looked_for() {
    let mut bench = Bench::new();
    bench.make(10, place(1, "tree"));
    bench.put(11, place(1, "to"), "the target's own");
    bench
        .apply(|replica, t| replica.release(t, ObjectId(11)))
        .unwrap();
    bench.replica.commit_durably(None, true).unwrap();
    // The exchange, and then the removal.
    fail(&[2]);
    let outcome = bench.shift(10, place(1, "to"));
    nothing_fails();
    assert!(outcome.unwrap_err().text.contains("cannot remove"));
    assert_eq!(bench.names(), ["to", "tree"]);
    assert!(bench.replica.has_strangers().unwrap() && bench.replica.has_new_strangers);
}
