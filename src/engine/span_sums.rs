//! What is known of a file that arrives in pieces, in any order: the sums of its complete spans.
//!
//! A file's spans are the aligned runs of [`SPAN_BYTES`]; the sum of one is the BLAKE3 chaining value of its bytes at
//! their place (see [`super::rangesum`]). A receiver that sums each span when it is complete has nothing to read back in
//! the end, and one that was cut off can tell what it holds.

use super::rangesum::{SPAN_BYTES, Tree, subtree};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// Spans whose sums are kept of one file (4 TiB); those beyond are read again in the end.
const SPANS_MAX: usize = 4 << 20;

/// The sum of one span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanSum {
    /// How many bytes it has: fewer than [`SPAN_BYTES`] only at the end of the file.
    pub bytes: u32,
    /// The chaining value.
    pub sum: [u8; 32],
}

impl SpanSum {
    /// Of the bytes of a span.
    pub fn of(span: u64, bytes: &[u8]) -> SpanSum {
        SpanSum {
            bytes: bytes.len() as u32,
            sum: subtree(span.saturating_mul(SPAN_BYTES), bytes),
        }
    }
}

/// Sums of some spans of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpanSums(BTreeMap<u64, SpanSum>);

impl SpanSums {
    /// Notes the sum of a span.
    pub fn insert(&mut self, span: u64, sum: SpanSum) {
        if self.0.len() < SPANS_MAX {
            self.0.insert(span, sum);
        }
    }

    /// The sum of a span, if it is known and that of so many bytes.
    pub fn get(&self, span: u64, bytes: u32) -> Option<SpanSum> {
        self.0.get(&span).filter(|sum| sum.bytes == bytes).copied()
    }

    /// Takes the sum of a span out, if it is known and that of so many bytes.
    pub fn take(&mut self, span: u64, bytes: u32) -> Option<SpanSum> {
        let found = self.get(span, bytes)?;
        self.0.remove(&span);
        Some(found)
    }

    /// Forgets the sums of all spans of which some bytes are about to change.
    pub fn forget(&mut self, offset: u64, length: u64) {
        for span in touched(offset, length) {
            self.0.remove(&span);
        }
    }

    /// How many are known.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, by number.
    pub fn iter(&self) -> impl Iterator<Item = (u64, SpanSum)> + '_ {
        self.0.iter().map(|(&span, &sum)| (span, sum))
    }
}

impl FromIterator<(u64, SpanSum)> for SpanSums {
    fn from_iter<I: IntoIterator<Item = (u64, SpanSum)>>(sums: I) -> SpanSums {
        let mut all = SpanSums::default();
        sums.into_iter().for_each(|(span, sum)| all.insert(span, sum));
        all
    }
}

/// The spans that a range has bytes of.
pub fn touched(offset: u64, length: u64) -> RangeInclusive<u64> {
    if length == 0 {
        // Empty.
        return RangeInclusive::new(1, 0);
    }
    offset / SPAN_BYTES..=offset.saturating_add(length - 1) / SPAN_BYTES
}

/// How many bytes a span of a file of `size` bytes has.
pub fn span_bytes(span: u64, size: u64) -> u32 {
    size.saturating_sub(span.saturating_mul(SPAN_BYTES))
        .min(SPAN_BYTES) as u32
}

/// BLAKE3 of a file of more than one span, from the sums of its spans, which `sum` gives one after the other; none for a
/// file of one span, whose digest is not made of sums.
pub fn digest<E>(
    size: u64,
    mut sum: impl FnMut(u64, u32) -> Result<[u8; 32], E>,
) -> Result<Option<[u8; 32]>, E> {
    if size <= SPAN_BYTES {
        return Ok(None);
    }
    let mut tree = Tree::default();
    for span in 0..size.div_ceil(SPAN_BYTES) {
        tree.push(0, sum(span, span_bytes(span, size))?);
    }
    Ok(tree.root())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    fn content(bytes: usize) -> Vec<u8> {
        (0..bytes as u32)
            .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
            .collect()
    }

    #[test]
    fn the_digest_follows_from_sums_in_any_order() {
        let span = SPAN_BYTES as usize;
        for bytes in [span + 1, 2 * span, 5 * span + 77] {
            let content = content(bytes);
            let spans: Vec<_> = content.chunks(span).enumerate().collect();
            let sums: SpanSums = spans
                .iter()
                .rev()
                .map(|(at, bytes)| (*at as u64, SpanSum::of(*at as u64, bytes)))
                .collect();
            let made = digest(bytes as u64, |span, bytes| {
                Ok::<_, Infallible>(sums.get(span, bytes).unwrap().sum)
            });
            assert_eq!(made, Ok(Some(*blake3::hash(&content).as_bytes())), "{bytes}");
        }
        let none = digest(SPAN_BYTES, |_, _| Err("a single span has no parent"));
        assert_eq!(none, Ok(None));
    }

    #[test]
    fn a_write_takes_the_spans_it_touches_and_no_others() {
        let sum = SpanSum {
            bytes: 9,
            sum: [1; 32],
        };
        let all: SpanSums = (0..6).map(|span| (span, sum)).collect();
        let left = |offset, length| {
            let mut sums = all.clone();
            sums.forget(offset, length);
            sums.iter().map(|(span, _)| span).collect::<Vec<_>>()
        };
        assert_eq!(left(SPAN_BYTES, SPAN_BYTES), [0, 2, 3, 4, 5]);
        assert_eq!(left(SPAN_BYTES - 1, 2), [2, 3, 4, 5]);
        assert_eq!(left(2 * SPAN_BYTES, 2 * SPAN_BYTES + 1), [0, 1, 5]);
        assert_eq!(left(SPAN_BYTES, 0).len(), 6);
        assert_eq!(left(u64::MAX - 1, 2).len(), 6);
        let mut sums = all.clone();
        assert_eq!(
            (sums.take(3, 8), sums.take(3, 9), sums.take(3, 9)),
            (None, Some(sum), None)
        );
    }
}
