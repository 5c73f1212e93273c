//! Checking a file that was built from another without reading all of it: what was copied to where it stood before needs
//! no look, if the sums of its spans are remembered from when they were checked.
//!
//! The basis is known to be as it was then by its times, and by nothing else: only `verify` finds what rots on a disk.

use crate::engine::rangesum::{RangeSums, SPAN_BYTES};
use crate::engine::span_sums::{SpanSum, SpanSums, span_bytes};
use crate::store::{Signatures, content_key};
use driftless_protocol::Digest;
use driftless_protocol::message::DeltaPart;
use std::ops::RangeInclusive;

/// Of all sums of a module: enough for 2 TB of files.
pub const SPAN_CACHE_BYTES: u64 = 64 << 20;

/// Of which files sums are remembered: smaller ones are hashed soon enough.
const SPANNED_BYTES: RangeInclusive<u64> = 8 << 20..=256 << 30;

/// For the sums of a file of this length; none if they would take up too much memory, as a peer says how long it is.
pub fn unknown(bytes: u64) -> Option<RangeSums> {
    (bytes <= *SPANNED_BYTES.end()).then(|| RangeSums::new(bytes))
}

/// What is known of a file that is put together from a basis, by parts that were found to fit it.
pub fn carried_over(
    cache: &Signatures,
    basis: &Digest,
    basis_bytes: u64,
    bytes: u64,
    parts: &[DeltaPart],
) -> SpanSums {
    let mut sums = SpanSums::default();
    let stored = cache.get(content_key(basis), basis);
    let old = stored.and_then(|stored| RangeSums::from_bytes(basis_bytes, &stored).ok());
    // The value of an only span is of another kind.
    let Some(old) = old.filter(|_| bytes > SPAN_BYTES && basis_bytes > SPAN_BYTES) else {
        return sums;
    };
    let mut at = 0;
    for part in parts {
        let (stays, length) = match *part {
            DeltaPart::Copy { offset, length } => (offset == at, u64::from(length)),
            DeltaPart::Literal { length } => (false, u64::from(length)),
        };
        let end = at + length;
        let mut span = at.div_ceil(SPAN_BYTES);
        while stays && span * SPAN_BYTES < end {
            let whole = span_bytes(span, bytes);
            if span * SPAN_BYTES + u64::from(whole) <= end
                && old.span_bytes(span) == u64::from(whole)
                && let Some(sum) = old.sum(span)
            {
                sums.insert(span, SpanSum { bytes: whole, sum });
            }
            span += 1;
        }
        at = end;
    }
    sums
}

/// Remembers the sums of a content that was found to be right, instead of those of another.
pub fn remember(cache: &Signatures, content: &Digest, sums: &RangeSums, instead_of: Option<&Digest>) {
    let Some(stored) = sums.to_bytes().filter(|_| SPANNED_BYTES.contains(&sums.bytes())) else {
        return;
    };
    if let Some(old) = instead_of.filter(|old| *old != content) {
        cache.remove(content_key(old));
    }
    if let Err(error) = cache.put(content_key(content), content, &stored) {
        tracing::debug!("cannot keep the sums of a file: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: u64 = SPAN_BYTES;

    fn known(parts: &[DeltaPart], bytes: u64) -> Vec<u64> {
        let directory = tempfile::tempdir().unwrap();
        let cache = Signatures::open(directory.path(), SPAN_CACHE_BYTES).unwrap();
        let content = vec![7; 10 * SPAN as usize + 10];
        let mut sums = RangeSums::new(content.len() as u64);
        for (span, bytes) in (0..).zip(content.chunks(SPAN as usize)) {
            sums.set(span, bytes).unwrap();
        }
        let digest = Digest(sums.digest().unwrap());
        remember(&cache, &digest, &sums, None);
        let sums = carried_over(&cache, &digest, content.len() as u64, bytes, parts);
        sums.iter().map(|(span, _)| span).collect()
    }

    fn copy(offset: u64, length: u64) -> DeltaPart {
        let length = length as u32;
        DeltaPart::Copy { offset, length }
    }

    #[test]
    fn only_whole_spans_that_stay_where_they_were_are_known() {
        let literal = |length| DeltaPart::Literal { length };
        let all = 10 * SPAN + 10;
        assert_eq!(known(&[copy(0, all)], all), (0..11).collect::<Vec<_>>());
        // The last span is longer now.
        assert_eq!(
            known(&[copy(0, all), literal(5)], all + 5),
            (0..10).collect::<Vec<_>>()
        );
        let page = [copy(0, SPAN + 5), literal(7), copy(SPAN + 12, 9 * SPAN - 2)];
        assert_eq!(known(&page, all), [0, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
        assert_eq!(known(&[literal(1), copy(0, all)], all + 1), [0u64; 0]);
        assert_eq!(known(&[copy(SPAN, 2 * SPAN)], 2 * SPAN), [0u64; 0]);
        assert_eq!(
            known(&[copy(0, SPAN)], SPAN),
            [0u64; 0],
            "a root is of another kind"
        );
    }
}
