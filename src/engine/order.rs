//! The order in which a receiver carries out ops.
//!
//! Ops arrive on several streams, so in almost any order. An op is ready when the op it names has ended, and, if it
//! is a barrier, when all ops with lower numbers have, but for offered and patched files: these need only be known,
//! so that a file of any size holds up nothing behind it. [`OpOrder`] also knows which ops have ended, which is what is acknowledged.

use super::numbers::{NumberSet, RunSet};
use driftless_protocol::ObjectId;
use driftless_protocol::limits::OPS_IN_FLIGHT_MAX;
use driftless_protocol::message::{Content, Op, OpBody, Place, Run};
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
    ended: NumberSet,
    /// What a barrier does not wait for: ops that have ended, and offered or patched files that have arrived.
    passable: NumberSet,
    /// Ops that ended above the prefix and were not told.
    untold: RunSet,
    highest: u64,
    ready: VecDeque<Op>,
    started: BTreeSet<u64>,
    /// Ops that wait for another op, by that op's number.
    waiting: HashMap<u64, Vec<Op>>,
    barriers: BTreeMap<u64, Op>,
    marks: BTreeMap<u64, u64>,
    passed_mark: Option<u64>,
    marks_passed: u64,
    gate: Option<Gate>,
}

/// What keeps ops behind a mark from starting before that was ended.
#[derive(Debug, Default)]
struct Gate {
    arrived: NumberSet,
    /// Ops that have to wait.
    held: BTreeMap<u64, Op>,
    /// The number of the mark that was ended last.
    ended: Option<u64>,
}

impl OpOrder {
    /// An order in which marks divide: a mark ends when it is told to ([`OpOrder::end_mark`]), and until then nothing behind it
    /// starts. What is carried out at that moment is what was sent before the mark, all of it and nothing else.
    pub fn divided() -> OpOrder {
        OpOrder {
            gate: Some(Gate::default()),
            ..OpOrder::default()
        }
    }

    /// An op arrived.
    pub fn handle_op(&mut self, op: Op) -> Result<(), OrderFault> {
        let number = op.number;
        let highest = self.highest.max(number);
        if number == 0 || highest - self.ended.count() > OPS_IN_FLIGHT_MAX as u64 {
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
        self.highest = highest;
        if let Some(gate) = &mut self.gate {
            gate.arrived.insert(number);
        }
        if let OpBody::Mark { sequence } = op.body {
            self.marks.insert(number, sequence);
            match self.gate {
                Some(_) => self.open_gate(),
                None => self.handle_ended(number),
            }
            return Ok(());
        }
        let is_offer = matches!(
            &op.body,
            OpBody::PutFile {
                content: Content::Offer { .. } | Content::Patch { .. },
                ..
            }
        );
        match &mut self.gate {
            Some(gate) => _ = gate.held.insert(number, op),
            None => self.place(op),
        }
        if is_offer {
            self.pass(number);
        }
        self.open_gate();
        Ok(())
    }

    /// Lets start what no mark holds up: ops of which all before them have arrived, so that every mark before them is known.
    fn open_gate(&mut self) {
        let Some(gate) = &mut self.gate else { return };
        let mark = self.marks.first_key_value().map_or(u64::MAX, |(mark, _)| *mark);
        let open = gate.arrived.prefix().min(mark - 1);
        let rest = gate.held.split_off(&(open + 1));
        for op in std::mem::replace(&mut gate.held, rest).into_values() {
            self.place(op);
        }
    }

    /// Whether all before the next mark has ended, in an order that marks divide.
    pub fn is_mark_due(&self) -> bool {
        let mark = self.marks.first_key_value().map(|(mark, _)| *mark);
        self.gate.is_some() && mark == Some(self.prefix() + 1)
    }

    /// Whether the mark that is due says again what the one before it said, with no op between the two: by that a sender tells that
    /// nothing is in error for all that it knows.
    pub fn is_mark_repeated(&self) -> bool {
        let Some((number, sequence)) = self.marks.first_key_value() else {
            return false;
        };
        let follows = |gate: &Gate| gate.ended.is_some_and(|ended| ended + 1 == *number);
        self.is_mark_due() && self.passed_mark == Some(*sequence) && self.gate.as_ref().is_some_and(follows)
    }

    /// Ends the mark that is due, and lets start what is behind it.
    pub fn end_mark(&mut self) {
        if self.is_mark_due() {
            let mark = self.prefix() + 1;
            self.handle_ended(mark);
            if let Some(gate) = &mut self.gate {
                gate.ended = Some(mark);
            }
            self.open_gate();
        }
    }

    /// The next op that may start.
    pub fn poll(&mut self) -> Option<Op> {
        self.ready.pop_front()
    }

    /// An op ended, whatever its outcome.
    pub fn handle_ended(&mut self, number: u64) {
        self.started.remove(&number);
        if self.ended.insert(number) {
            self.untold.insert(number);
        }
        let prefix = self.prefix();
        while let Some(entry) = self.marks.first_entry().filter(|mark| *mark.key() <= prefix) {
            self.passed_mark = Some(entry.remove());
            self.marks_passed += 1;
        }
        for op in self.waiting.remove(&number).unwrap_or_default() {
            self.place(op);
        }
        self.pass(number);
    }

    /// Every op up to this number has ended.
    pub fn prefix(&self) -> u64 {
        self.ended.prefix()
    }

    /// How many ops have ended.
    pub fn ended(&self) -> u64 {
        self.ended.count()
    }

    /// Up to `most` runs of ops that ended above [`OpOrder::prefix`], each op once.
    pub fn take_ended_above_prefix(&mut self, most: usize) -> Vec<Run> {
        self.untold.remove_through(self.ended.prefix());
        self.untold.take(most)
    }

    /// The number of the journal that the last passed mark named.
    pub fn passed_mark(&self) -> Option<u64> {
        self.passed_mark
    }

    /// How many marks were passed. One may name the same number of the journal as the one before it.
    pub fn marks_passed(&self) -> u64 {
        self.marks_passed
    }

    /// Whether an op of this number has ended.
    pub fn has_ended(&self, number: u64) -> bool {
        self.ended.contains(number)
    }

    /// The object that a waiting op moves to this place, if there is one. Looks through everything that waits.
    pub fn waits_to_move_to(&self, place: &Place) -> Option<ObjectId> {
        let waiting = self.waiting.values().flatten();
        let held = self.gate.iter().flat_map(|gate| gate.held.values());
        let mut all = waiting
            .chain(self.barriers.values())
            .chain(&self.ready)
            .chain(held);
        all.find_map(|op| match &op.body {
            OpBody::Move { object, to } if to == place => Some(*object),
            _ => None,
        })
    }

    /// Whether nothing has arrived that has not ended.
    pub fn is_idle(&self) -> bool {
        self.started.is_empty()
    }

    fn place(&mut self, op: Op) {
        if !self.has_ended(op.after) {
            self.waiting.entry(op.after).or_default().push(op);
        } else if op.barrier && self.passable.prefix() + 1 < op.number {
            self.barriers.insert(op.number, op);
        } else {
            self.ready.push_back(op);
        }
    }

    fn pass(&mut self, number: u64) {
        self.passable.insert(number);
        let open = self.passable.prefix() + 1;
        while let Some(entry) = self
            .barriers
            .first_entry()
            .filter(|barrier| *barrier.key() <= open)
        {
            self.ready.push_back(entry.remove());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use driftless_protocol::Xattrs;
    use driftless_protocol::{Attributes, Name};
    use proptest::prelude::*;

    fn op(number: u64, after: u64, barrier: bool) -> Op {
        let body = OpBody::SetAttributes {
            object: ObjectId(number),
            attributes: Attributes::default(),
        };
        with_body(number, after, barrier, body)
    }

    fn offer(number: u64, after: u64) -> Op {
        let place = Place {
            directory: ObjectId::ROOT,
            name: Name::new(number.to_string().into_bytes()).unwrap(),
        };
        let body = OpBody::PutFile {
            place,
            object: ObjectId(number),
            attributes: Attributes::default(),
            content: Content::Offer {
                size: 1,
                digest: None,
            },
        };
        with_body(number, after, false, body)
    }

    fn with_body(number: u64, after: u64, barrier: bool, body: OpBody) -> Op {
        Op {
            number,
            after,
            barrier,
            body,
            xattrs: Xattrs::default(),
        }
    }

    proptest! {
        /// Whatever the order of arrival and of ending: each op starts once, after what it waits for.
        #[test]
        fn dependencies_and_barriers_hold(
            shape in prop::collection::vec((0u64..100, prop::bool::weighted(0.2), prop::bool::weighted(0.2)), 1..60),
            arrival in prop::collection::vec(any::<u16>(), 60),
            picks in prop::collection::vec(any::<u16>(), 60),
        ) {
            let make = |at: u64, after: u64, barrier: bool, is_offer: bool| match is_offer {
                true => offer(at + 1, after % (at + 1)),
                false => op(at + 1, after % (at + 1), barrier),
            };
            let ops: Vec<Op> = (0..).zip(&shape)
                .map(|(at, &(after, barrier, is_offer))| make(at, after, barrier, is_offer)).collect();
            let is_offer = |number: u64| shape[number as usize - 1].2;
            let mut arriving: Vec<usize> = (0..ops.len()).collect();
            arriving.sort_by_key(|&at| arrival[at]);
            let mut order = OpOrder::default();
            let mut running: Vec<u64> = Vec::new();
            let (mut done, mut told) = (BTreeSet::new(), BTreeSet::new());
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
                        prop_assert!((1..op.number).all(|n| done.contains(&n) || is_offer(n)));
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
                for run in order.take_ended_above_prefix(2) {
                    for number in run.first..=run.last {
                        prop_assert!(done.contains(&number) && number > order.prefix() && told.insert(number));
                    }
                }
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
    fn an_offered_file_holds_up_nothing_but_what_names_it() {
        let mut order = OpOrder::default();
        order.handle_op(op(3, 0, true)).unwrap();
        order.handle_op(op(4, 1, false)).unwrap();
        order.handle_op(offer(1, 0)).unwrap();
        assert_eq!(order.poll().map(|op| op.number), Some(1));
        assert!(
            order.poll().is_none(),
            "op 2 is not known: the barrier waits for it"
        );
        order.handle_op(op(2, 0, false)).unwrap();
        assert_eq!(order.poll().map(|op| op.number), Some(2));
        order.handle_ended(2);
        assert_eq!(order.poll().map(|op| op.number), Some(3));
        order.handle_ended(3);
        assert_eq!(order.take_ended_above_prefix(9), [Run { first: 2, last: 3 }]);
        assert!(order.poll().is_none(), "op 4 waits for the file");
        order.handle_ended(1);
        assert_eq!(order.poll().map(|op| op.number), Some(4));
        assert!(order.take_ended_above_prefix(9).is_empty());
    }

    #[test]
    fn what_overtakes_does_not_use_up_the_window() {
        let mut order = OpOrder::default();
        order.handle_op(offer(1, 0)).unwrap();
        for number in 2..OPS_IN_FLIGHT_MAX as u64 + 100 {
            order.handle_op(op(number, 0, false)).unwrap();
            order.handle_ended(number);
        }
        assert_eq!(
            (order.prefix(), order.ended()),
            (0, OPS_IN_FLIGHT_MAX as u64 + 98)
        );
    }

    fn mark(number: u64, sequence: u64) -> Op {
        with_body(number, 0, false, OpBody::Mark { sequence })
    }

    proptest! {
        /// Whatever the order of arrival and of ending: when a mark is due, what has ended is all before it and nothing behind it,
        /// and in the end everything has started once.
        #[test]
        fn marks_divide(
            shape in prop::collection::vec((0u64..100, prop::bool::weighted(0.2), 0u8..6), 1..60),
            arrival in prop::collection::vec(any::<u16>(), 60),
            picks in prop::collection::vec(any::<u16>(), 60),
        ) {
            let is_mark = |number: u64| shape[number as usize - 1].2 == 0;
            let make = |at: u64, after: u64, barrier: bool, kind: u8| match kind {
                0 => mark(at + 1, at),
                1 => offer(at + 1, after % (at + 1)),
                _ => op(at + 1, after % (at + 1), barrier),
            };
            let ops: Vec<Op> = (0..).zip(&shape)
                .map(|(at, &(after, barrier, kind))| make(at, after, barrier, kind)).collect();
            let mut arriving: Vec<usize> = (0..ops.len()).collect();
            arriving.sort_by_key(|&at| arrival[at]);
            let mut order = OpOrder::divided();
            let (mut running, mut done) = (Vec::new(), BTreeSet::new());
            let mut arriving = arriving.into_iter();
            let mut pick = picks.iter().cycle();
            loop {
                let next = arriving.next();
                if let Some(at) = next {
                    order.handle_op(ops[at].clone()).unwrap();
                }
                while let Some(op) = order.poll() {
                    prop_assert!((1..op.number).all(|n| !is_mark(n) || done.contains(&n)), "a mark was overtaken");
                    running.push(op.number);
                }
                if order.is_mark_due() {
                    let mark = order.prefix() + 1;
                    prop_assert!(is_mark(mark) && running.is_empty());
                    prop_assert_eq!(done.last().copied().unwrap_or(0), mark - 1);
                    prop_assert_eq!(done.len() as u64, mark - 1);
                    order.end_mark();
                    prop_assert_eq!(order.passed_mark(), Some(mark - 1));
                    prop_assert!(done.insert(mark));
                    continue;
                }
                if running.is_empty() {
                    if next.is_none() { break; }
                    continue;
                }
                let ending = running.swap_remove(*pick.next().unwrap() as usize % running.len());
                prop_assert!(done.insert(ending));
                order.handle_ended(ending);
            }
            // What arrived while the last ops ended may still have to start.
            prop_assert_eq!(done.len(), ops.len());
            prop_assert!(order.is_idle());
        }
    }

    #[test]
    fn nothing_starts_behind_a_mark_that_may_be_on_its_way() {
        let mut order = OpOrder::divided();
        order.handle_op(op(1, 0, false)).unwrap();
        order.handle_op(op(3, 0, false)).unwrap();
        assert_eq!(order.poll().map(|op| op.number), Some(1));
        assert!(order.poll().is_none(), "the op before it may be a mark");
        order.handle_op(mark(2, 9)).unwrap();
        assert!(order.poll().is_none() && !order.is_mark_due());
        order.handle_ended(1);
        assert!(order.is_mark_due() && order.poll().is_none());
        assert_eq!((order.prefix(), order.passed_mark()), (1, None));
        order.end_mark();
        assert_eq!((order.prefix(), order.passed_mark()), (2, Some(9)));
        assert_eq!(order.poll().map(|op| op.number), Some(3));
    }

    #[test]
    fn a_mark_that_says_the_same_again_is_known_for_it() {
        let mut order = OpOrder::divided();
        for op in [
            mark(1, 5),
            mark(2, 5),
            op(3, 0, false),
            mark(4, 5),
            mark(5, 6),
            mark(6, 6),
        ] {
            order.handle_op(op).unwrap();
        }
        let mut repeated = Vec::new();
        while order.prefix() < 6 {
            while let Some(op) = order.poll() {
                order.handle_ended(op.number);
            }
            repeated.push(order.is_mark_repeated());
            order.end_mark();
        }
        assert_eq!(repeated, [false, true, false, false, true]);
        assert!(!order.is_mark_repeated());
        assert_eq!((order.passed_mark(), order.marks_passed()), (Some(6), 5));
    }

    #[test]
    fn a_mark_counts_once_everything_before_it_has_ended() {
        let mut order = OpOrder::default();
        let mark = mark(2, 77);
        order.handle_op(mark).unwrap();
        order.handle_op(op(1, 0, false)).unwrap();
        assert_eq!(order.passed_mark(), None);
        order.handle_ended(1);
        assert_eq!((order.prefix(), order.passed_mark()), (2, Some(77)));
    }
}
