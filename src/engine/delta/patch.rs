//! A whole delta that is small enough to travel inside its op.

use super::ranges::Output;
use driftless_protocol::limits::{DELTA_PARTS_MAX, RANGE_BYTES_MAX};
use driftless_protocol::message::DeltaPart;

/// A delta of a whole file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Patch {
    /// Copies and literals from the target's beginning to its end.
    pub parts: Vec<DeltaPart>,
    /// The literals of all parts, one after the other; at most [`RANGE_BYTES_MAX`] bytes.
    pub literals: Vec<u8>,
}

/// Collects a delta as long as it stays within what an op may hold.
#[derive(Debug, Default)]
pub struct PatchCollector {
    patch: Patch,
    is_too_large: bool,
}

impl PatchCollector {
    /// The patch; none if it got too large.
    pub fn finish(self) -> Option<Patch> {
        (!self.is_too_large).then_some(self.patch)
    }

    /// Whether what was found so far does not fit an op any more.
    pub fn is_too_large(&self) -> bool {
        self.is_too_large
    }

    fn push(&mut self, part: DeltaPart) {
        if self.patch.parts.len() == DELTA_PARTS_MAX {
            self.give_up();
        } else {
            self.patch.parts.push(part);
        }
    }

    fn give_up(&mut self) {
        self.is_too_large = true;
        self.patch = Patch::default();
    }
}

impl Output for PatchCollector {
    fn copy(&mut self, mut offset: u64, mut length: u64) {
        while length > 0 && !self.is_too_large {
            let mut taken = length.min(u64::from(u32::MAX)) as u32;
            match self.patch.parts.last_mut() {
                Some(DeltaPart::Copy {
                    offset: start,
                    length,
                }) if *start + u64::from(*length) == offset && *length < u32::MAX => {
                    taken = taken.min(u32::MAX - *length);
                    *length += taken;
                }
                _ => self.push(DeltaPart::Copy {
                    offset,
                    length: taken,
                }),
            }
            offset += u64::from(taken);
            length -= u64::from(taken);
        }
    }

    fn literal(&mut self, bytes: &[u8]) {
        if self.is_too_large || bytes.is_empty() {
            return;
        }
        if self.patch.literals.len() + bytes.len() > RANGE_BYTES_MAX {
            return self.give_up();
        }
        // Within the limit above, and so within `u32`.
        let added = bytes.len() as u32;
        match self.patch.parts.last_mut() {
            Some(DeltaPart::Literal { length }) => *length += added,
            _ => self.push(DeltaPart::Literal { length: added }),
        }
        if !self.is_too_large {
            self.patch.literals.extend_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_merged() {
        let mut collector = PatchCollector::default();
        collector.copy(0, 10);
        collector.copy(10, 5);
        collector.literal(b"ab");
        collector.literal(b"c");
        collector.copy(40, 1);
        let patch = collector.finish().unwrap();
        let copy = |offset, length| DeltaPart::Copy { offset, length };
        assert_eq!(
            patch.parts,
            [copy(0, 15), DeltaPart::Literal { length: 3 }, copy(40, 1)]
        );
        assert_eq!(patch.literals, b"abc");
    }

    #[test]
    fn copies_of_any_length_are_cut_to_what_a_part_holds() {
        let mut collector = PatchCollector::default();
        let length = u64::from(u32::MAX) * 2 + 7;
        collector.copy(5, length);
        let parts = collector.finish().unwrap().parts;
        let ends: Vec<_> = parts
            .iter()
            .map(|part| match *part {
                DeltaPart::Copy { offset, length } => (offset, offset + u64::from(length)),
                DeltaPart::Literal { .. } => unreachable!("no literal was given"),
            })
            .collect();
        assert!(ends.windows(2).all(|pair| pair[0].1 == pair[1].0));
        assert_eq!((ends[0].0, ends.last().map(|end| end.1)), (5, Some(5 + length)));
    }

    #[test]
    fn too_much_is_given_up_and_stays_so() {
        let mut collector = PatchCollector::default();
        collector.literal(&vec![1; RANGE_BYTES_MAX]);
        assert!(!collector.is_too_large());
        collector.literal(b"x");
        collector.copy(0, 10);
        assert_eq!(collector.finish(), None);

        let mut collector = PatchCollector::default();
        for at in 0..DELTA_PARTS_MAX as u64 + 1 {
            collector.copy(at * 2, 1);
        }
        assert_eq!(collector.finish(), None);
    }
}
