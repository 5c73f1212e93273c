//! The order in which a receiver carries out ops.
//!
//! Ops arrive on several streams, so in almost any order. An op is ready when the op it names has ended, and, if it
//! is a barrier, when all ops with lower numbers have. [`OpOrder`] also knows the contiguous prefix of ended ops,
//! which is what is acknowledged.

use driftless_protocol::limits::OPS_IN_FLIGHT_MAX;
use driftless_protocol::message::{Op, OpBody};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use thiserror::Error;

/// A rule of the op sequence that a peer broke.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OrderFault {
    /// The number was used before.
    #[error("op {0} came twice")]
    Repeated(u64),
    /// More ops in flight than allowed, or number 0.
    #[error("op {0} is outside the window of {OPS_IN_FLIGHT_MAX} ops in flight")]
    OutsideWindow(u64),
    /// An op waits for itself or for a later one.
    #[error("op {number} waits for op {after}")]
    Forward {
        /// The op.
        number: u64,
        /// What it names.
        after: u64,
    },
}

/// The ops of one connection that have arrived and not yet ended.
#[derive(Debug, Default)]
pub struct OpOrder {
    prefix: u64,
    ended: BTreeSet<u64>,
    ready: VecDeque<Op>,
    started: BTreeSet<u64>,
    /// Ops that wait for another op, by that op's number.
    waiting: HashMap<u64, Vec<Op>>,
    barriers: BTreeMap<u64, Op>,
    marks: BTreeMap<u64, u64>,
    passed_mark: Option<u64>,
    waiting_count: usize,
}

impl OpOrder {
    /// An op arrived.
    pub fn handle_op(&mut self, op: Op) -> Result<(), OrderFault> {
        let number = op.number;
        if number == 0 || number > self.prefix + OPS_IN_FLIGHT_MAX as u64 {
            return Err(OrderFault::OutsideWindow(number));
        }
        if op.after >= number {
            return Err(OrderFault::Forward {
                number,
                after: op.after,
            });
        }
        if self.has_ended(number) || !self.started.insert(number) {
            return Err(OrderFault::Repeated(number));
        }
        if let OpBody::Mark { sequence } = op.body {
            self.marks.insert(number, sequence);
            self.handle_ended(number);
        } else {
            self.place(op);
        }
        Ok(())
    }

    /// The next op that may start.
    pub fn poll(&mut self) -> Option<Op> {
        self.ready.pop_front()
    }

    /// An op ended, whatever its outcome.
    pub fn handle_ended(&mut self, number: u64) {
        self.started.remove(&number);
        self.ended.insert(number);
        while self.ended.remove(&(self.prefix + 1)) {
            self.prefix += 1;
        }
        while let Some(entry) = self.marks.first_entry().filter(|mark| *mark.key() <= self.prefix) {
            self.passed_mark = Some(entry.remove());
        }
        for op in self.waiting.remove(&number).unwrap_or_default() {
            self.waiting_count -= 1;
            self.place(op);
        }
        if let Some(entry) = self
            .barriers
            .first_entry()
            .filter(|b| *b.key() == self.prefix + 1)
        {
            self.ready.push_back(entry.remove());
        }
    }

    /// Every op up to this number has ended.
    pub fn prefix(&self) -> u64 {
        self.prefix
    }

    /// The number of the journal that the last passed mark named.
    pub fn passed_mark(&self) -> Option<u64> {
        self.passed_mark
    }

    /// Whether an op of this number has ended.
    pub fn has_ended(&self, number: u64) -> bool {
        number <= self.prefix || self.ended.contains(&number)
    }

    /// Whether nothing has arrived that has not ended.
    pub fn is_idle(&self) -> bool {
        self.started.is_empty()
    }

    fn place(&mut self, op: Op) {
        if op.after != 0 && !self.has_ended(op.after) {
            self.waiting_count += 1;
            self.waiting.entry(op.after).or_default().push(op);
        } else if op.barrier && self.prefix + 1 != op.number {
            self.barriers.insert(op.number, op);
        } else {
            self.ready.push_back(op);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use driftless_protocol::{Attributes, ObjectId};
    use proptest::prelude::*;

    fn op(number: u64, after: u64, barrier: bool) -> Op {
        let body = OpBody::SetAttributes {
            object: ObjectId(number),
            attributes: Attributes::default(),
        };
        Op {
            number,
            after,
            barrier,
            body,
        }
    }

    proptest! {
        /// Whatever the order of arrival and of ending: each op starts once, after what it waits for.
        #[test]
        fn dependencies_and_barriers_hold(
            shape in prop::collection::vec((0u64..100, prop::bool::weighted(0.2)), 1..60),
            arrival in prop::collection::vec(any::<u16>(), 60),
            picks in prop::collection::vec(any::<u16>(), 60),
        ) {
            let ops: Vec<Op> = shape.iter().enumerate()
                .map(|(at, &(after, barrier))| op(at as u64 + 1, after % (at as u64 + 1), barrier)).collect();
            let mut arriving: Vec<usize> = (0..ops.len()).collect();
            arriving.sort_by_key(|&at| arrival[at]);
            let mut order = OpOrder::default();
            let mut running: Vec<u64> = Vec::new();
            let mut done = BTreeSet::new();
            let mut arriving = arriving.into_iter();
            let mut pick = picks.iter().cycle();
            loop {
                let next = arriving.next();
                if let Some(at) = next {
                    order.handle_op(ops[at].clone()).unwrap();
                }
                while let Some(op) = order.poll() {
                    prop_assert!(op.after == 0 || done.contains(&op.after));
                    if op.barrier {
                        prop_assert!((1..op.number).all(|n| done.contains(&n)));
                    }
                    running.push(op.number);
                }
                if running.is_empty() {
                    if next.is_none() { break; }
                    continue;
                }
                let ending = running.swap_remove(*pick.next().unwrap() as usize % running.len());
                prop_assert!(done.insert(ending));
                order.handle_ended(ending);
            }
            prop_assert_eq!(done.len(), ops.len());
            prop_assert_eq!(order.prefix(), ops.len() as u64);
            prop_assert!(order.is_idle());
        }
    }

    #[test]
    fn a_peer_that_breaks_the_sequence_is_told() {
        let mut order = OpOrder::default();
        order.handle_op(op(1, 0, false)).unwrap();
        assert_eq!(order.handle_op(op(1, 0, false)), Err(OrderFault::Repeated(1)));
        assert_eq!(
            order.handle_op(op(0, 0, false)),
            Err(OrderFault::OutsideWindow(0))
        );
        let far = OPS_IN_FLIGHT_MAX as u64 + 1;
        assert_eq!(
            order.handle_op(op(far, 0, false)),
            Err(OrderFault::OutsideWindow(far))
        );
        assert_eq!(
            order.handle_op(op(3, 3, false)),
            Err(OrderFault::Forward { number: 3, after: 3 })
        );
        order.handle_ended(1);
        assert_eq!(order.handle_op(op(1, 0, false)), Err(OrderFault::Repeated(1)));
    }

    #[test]
    fn a_mark_counts_once_everything_before_it_has_ended() {
        let mut order = OpOrder::default();
        let mark = Op {
            number: 2,
            after: 0,
            barrier: false,
            body: OpBody::Mark { sequence: 77 },
        };
        order.handle_op(mark).unwrap();
        order.handle_op(op(1, 0, false)).unwrap();
        assert_eq!(order.passed_mark(), None);
        order.handle_ended(1);
        assert_eq!((order.prefix(), order.passed_mark()), (2, Some(77)));
    }
}
