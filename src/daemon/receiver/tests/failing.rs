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
