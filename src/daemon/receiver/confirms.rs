//! Which ops have arrived with all of their content, and who asked to be told.
//!
//! An op that carries its content has arrived when it was read from its stream; an offered file when its content was staged, or
//! was found to be here already. Whatever ended has arrived.

use crate::engine::numbers::NumberSet;
use driftless_protocol::limits::CONFIRMS_MAX;
use driftless_protocol::message::{Content, Op, OpBody};
use std::collections::BTreeSet;

/// The arrivals of one connection.
#[derive(Debug, Default)]
pub(super) struct Confirms {
    arrived: NumberSet,
    /// Offers that have arrived without their content.
    incomplete: BTreeSet<u64>,
    /// What is asked: a token, and an op number.
    open: Vec<(u64, u64)>,
}

impl Confirms {
    /// An op was read.
    pub(super) fn note_op(&mut self, op: &Op) {
        self.arrived.insert(op.number);
        if let OpBody::PutFile {
            content: Content::Offer { .. },
            ..
        } = op.body
        {
            self.incomplete.insert(op.number);
        }
    }

    /// All of an op's content is here, or the op has ended.
    pub(super) fn note_complete(&mut self, number: u64) {
        self.incomplete.remove(&number);
    }

    /// Takes in a question. False if there are too many.
    pub(super) fn ask(&mut self, token: u64, through: u64) -> bool {
        self.open.push((token, through));
        self.open.len() <= CONFIRMS_MAX
    }

    /// The tokens of what can be answered by now.
    pub(super) fn poll(&mut self) -> Vec<u64> {
        if self.open.is_empty() {
            return Vec::new();
        }
        let here = self.arrived.prefix();
        let complete = self.incomplete.first().map_or(here, |first| here.min(first - 1));
        self.open
            .extract_if(.., |(_, through)| *through <= complete)
            .map(|(token, _)| token)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use driftless_protocol::message::{InlineContent, Place};
    use driftless_protocol::{Attributes, Digest, Name, ObjectId, Xattrs};

    fn put(number: u64, content: Content) -> Op {
        let body = OpBody::PutFile {
            place: Place {
                directory: ObjectId::ROOT,
                name: Name::new(b"a".as_slice()).unwrap(),
            },
            object: ObjectId(number + 1),
            attributes: Attributes::default(),
            content,
        };
        Op {
            number,
            after: 0,
            barrier: false,
            body,
            xattrs: Xattrs::default(),
        }
    }

    #[test]
    fn an_offer_has_arrived_when_its_content_has() {
        let mut confirms = Confirms::default();
        let inline = || Content::Inline {
            digest: Digest::of(b"x"),
            bytes: InlineContent(b"x".to_vec()),
        };
        let offer = Content::Offer {
            size: 1 << 20,
            digest: None,
        };
        assert!(confirms.ask(10, 1) && confirms.ask(20, 2) && confirms.ask(30, 3) && confirms.ask(5, 0));
        assert_eq!(confirms.poll(), [5]);
        confirms.note_op(&put(3, inline()));
        assert!(confirms.poll().is_empty());
        confirms.note_op(&put(1, inline()));
        assert_eq!(confirms.poll(), [10]);
        confirms.note_op(&put(2, offer));
        assert!(confirms.poll().is_empty());
        confirms.note_complete(2);
        assert_eq!(confirms.poll(), [20, 30]);
        assert!((0..CONFIRMS_MAX as u64).all(|token| confirms.ask(token, 4)));
        assert!(!confirms.ask(0, 4));
    }
}
