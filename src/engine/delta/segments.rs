//! Matching the segments of one target on several threads.
//!
//! The caller brings the threads: they share an [`Index`], each calls [`match_segment`] for segments of its own, and
//! [`Joiner`] puts the results together in the order of the target. A segment is matched with some bytes beyond its
//! end, so that a block across the seam is found from the left; what the right segment says of those bytes is dropped.

use super::index::Index;
use super::matcher::{Matcher, Work};
use super::ranges::{Output, RangeCutter, RangeDelta};

/// What a segment was found to be: its parts up to its end or a little beyond.
#[derive(Debug)]
pub struct SegmentDelta {
    start: u64,
    parts: Vec<Part>,
    literals: Vec<u8>,
    work: Work,
}

#[derive(Debug, Clone, Copy)]
enum Part {
    Copy { offset: u64, length: u64 },
    Literal { length: u64 },
}

#[derive(Debug, Default)]
struct Parts {
    parts: Vec<Part>,
    literals: Vec<u8>,
}

/// How many bytes beyond the end of a segment [`match_segment`] makes use of.
pub fn overlap_bytes(index: &Index) -> usize {
    2 * index.signature().shape().block_bytes() as usize
}

/// Matches the first `length` bytes of `data`, which lie at `start` of the target. `data` also has
/// [`overlap_bytes`] more; fewer only if the target ends with it.
pub fn match_segment(index: &Index, start: u64, data: &[u8], length: usize) -> SegmentDelta {
    let is_last = data.len() - length.min(data.len()) < overlap_bytes(index);
    let mut matcher = Matcher::starting_at(index, start, Parts::default());
    matcher.advance(data, length, is_last);
    let work = matcher.work();
    let Parts { parts, literals } = matcher.into_output();
    SegmentDelta {
        start,
        parts,
        literals,
        work,
    }
}

impl SegmentDelta {
    /// What the work was.
    pub fn work(&self) -> Work {
        self.work
    }
}

impl Output for Parts {
    fn copy(&mut self, offset: u64, length: u64) {
        if let Some(Part::Copy {
            offset: start,
            length: so_far,
        }) = self.parts.last_mut()
            && *start + *so_far == offset
        {
            *so_far += length;
        } else {
            self.parts.push(Part::Copy { offset, length });
        }
    }

    fn literal(&mut self, bytes: &[u8]) {
        let length = bytes.len() as u64;
        if let Some(Part::Literal { length: so_far }) = self.parts.last_mut() {
            *so_far += length;
        } else {
            self.parts.push(Part::Literal { length });
        }
        self.literals.extend_from_slice(bytes);
    }
}

/// Puts the deltas of segments together.
#[derive(Debug, Default)]
pub struct Joiner {
    cutter: RangeCutter,
    end: u64,
}

impl Joiner {
    /// The next segment. What an earlier one said of its first bytes holds.
    pub fn push(&mut self, segment: &SegmentDelta) {
        debug_assert!(segment.start <= self.end, "a segment is missing");
        let mut known = self.end - segment.start;
        let mut literals = &segment.literals[..];
        for part in &segment.parts {
            let (Part::Copy { length, .. } | Part::Literal { length }) = *part;
            let skip = known.min(length);
            known -= skip;
            match *part {
                Part::Copy { offset, length } => self.cutter.copy(offset + skip, length - skip),
                Part::Literal { length } => {
                    let (own, later) = literals.split_at(length as usize);
                    self.cutter.literal(&own[skip as usize..]);
                    literals = later;
                }
            }
            self.end += length - skip;
        }
    }

    /// The ranges that are complete by now.
    pub fn ranges(&mut self) -> Vec<RangeDelta> {
        self.cutter.take()
    }

    /// The remaining ranges.
    pub fn finish(self) -> Vec<RangeDelta> {
        self.cutter.finish()
    }
}
