//! What a signature, a matcher and their output must be, on any data.

mod cost;
mod format;
mod properties;

use super::*;
use driftless_protocol::limits::{DELTA_PARTS_MAX, RANGE_BYTES_MAX};
use driftless_protocol::message::DeltaPart;

fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut out = vec![0; bytes];
    blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut out);
    out
}

/// Options of either kind, with blocks of a size.
fn options(kind: StrongKind, block_bytes: u64) -> SignatureOptions {
    SignatureOptions {
        kind,
        block_bytes: Some(block_bytes),
        ..SignatureOptions::exchanged([7; 32])
    }
}

fn sign(basis: &[u8], options: &SignatureOptions) -> Signed {
    let mut builder = SignatureBuilder::new(basis.len() as u64, options).expect("the signature fits");
    builder.push(basis);
    builder.finish().expect("the basis has its length")
}

fn index(basis: &[u8], options: &SignatureOptions) -> Index {
    Index::new(Signature::parse(sign(basis, options).signature).expect("our own signature is usable"))
}

/// What a receiver does, on slices.
fn rebuild(basis: &[u8], ranges: &[RangeDelta]) -> Vec<u8> {
    let mut out = Vec::new();
    for range in ranges {
        assert!(range.length as usize <= RANGE_BYTES_MAX && range.parts.len() <= DELTA_PARTS_MAX);
        let basis_bytes = basis.len() as u64;
        check_parts(
            &range.parts,
            u64::from(range.length),
            range.literals.len(),
            basis_bytes,
        )
        .unwrap();
        let mut literals = &range.literals[..];
        for part in &range.parts {
            match *part {
                DeltaPart::Copy { offset, length } => {
                    out.extend_from_slice(&basis[offset as usize..][..length as usize]);
                }
                DeltaPart::Literal { length } => {
                    let (now, later) = literals.split_at(length as usize);
                    out.extend_from_slice(now);
                    literals = later;
                }
            }
        }
    }
    out
}

fn delta(index: &Index, target: &[u8]) -> Vec<RangeDelta> {
    let mut matcher = Matcher::new(index);
    matcher.push(target);
    matcher.finish()
}

fn literal_bytes(ranges: &[RangeDelta]) -> usize {
    ranges.iter().map(|range| range.literals.len()).sum()
}

fn part_count(ranges: &[RangeDelta]) -> usize {
    ranges.iter().map(|range| range.parts.len()).sum()
}

#[test]
fn the_same_file_is_one_copy_a_range() {
    for bytes in [1, 1_023, 1_024, 1_025, 5_000, 1 << 20, (1 << 20) + 4_321] {
        let basis = noise(bytes, 1);
        for kind in [StrongKind::KeyedBlake3, StrongKind::SeededXxh3] {
            let ranges = delta(&index(&basis, &options(kind, 1 << 10)), &basis);
            assert_eq!(rebuild(&basis, &ranges), basis);
            assert_eq!(literal_bytes(&ranges), 0, "{bytes} bytes, {kind:?}");
            assert_eq!(part_count(&ranges), ranges.len());
        }
    }
}

#[test]
fn the_short_last_block_is_found_before_an_append_and_at_the_end() {
    let basis = noise(100_500, 3);
    let index = index(&basis, &options(StrongKind::KeyedBlake3, 4 << 10));
    let appended = [&basis[..], &noise(10_000, 4)].concat();
    assert_eq!(literal_bytes(&delta(&index, &appended)), 10_000);
    let shifted = [&noise(77, 5)[..], &basis].concat();
    assert_eq!(literal_bytes(&delta(&index, &shifted)), 77);
    let only_the_end = [&noise(50, 5)[..], &basis[98_304..]].concat();
    assert_eq!(literal_bytes(&delta(&index, &only_the_end)), 50);
}

#[test]
fn an_overwritten_page_costs_its_block() {
    let basis = noise(4 << 20, 6);
    let mut target = basis.clone();
    for at in [0, 123_456, 2_000_000, (4 << 20) - 1] {
        target[at] ^= 1;
    }
    for kind in [StrongKind::KeyedBlake3, StrongKind::SeededXxh3] {
        let signed = sign(&basis, &options(kind, 4 << 10));
        for index in [
            Index::new(Signature::parse(signed.signature.clone()).unwrap()),
            Index::aligned(Signature::parse(signed.signature).unwrap()),
        ] {
            let ranges = delta(&index, &target);
            assert_eq!(rebuild(&basis, &ranges), target);
            assert_eq!(literal_bytes(&ranges), 4 * 4096);
        }
    }
}

#[test]
fn without_a_search_only_equal_offsets_match() {
    let basis = noise(1 << 20, 8);
    let signed = sign(&basis, &options(StrongKind::SeededXxh3, 4 << 10));
    let index = Index::aligned(Signature::parse(signed.signature).unwrap());
    let mut target = basis.clone();
    target.insert(500_000, 1);
    let ranges = delta(&index, &target);
    assert_eq!(rebuild(&basis, &ranges), target);
    let kept = 500_000 / 4096 * 4096;
    assert_eq!(literal_bytes(&ranges), target.len() - kept);
    let mut matcher = Matcher::new(&index);
    matcher.push(&target);
    assert_eq!(matcher.work().rolled, 0);
}

#[test]
fn a_range_taken_apart_is_the_same_range() {
    let basis = noise(300_000, 9);
    let mut target = basis.clone();
    target.splice(100_000..100_010, noise(5_000, 10));
    let ranges = delta(
        &index(&basis, &options(StrongKind::KeyedBlake3, 1 << 10)),
        &target,
    );
    let apart: Vec<_> = ranges
        .into_iter()
        .flat_map(RangeDelta::into_single_parts)
        .collect();
    assert!(apart.len() > 2 && apart.iter().all(|range| range.parts.len() == 1));
    assert!(apart.iter().any(RangeDelta::is_literal));
    assert_eq!(rebuild(&basis, &apart), target);
}

#[test]
fn lying_deltas_are_refused() {
    let copy = |offset, length| DeltaPart::Copy { offset, length };
    let past = check_parts(&[copy(90, 20)], 20, 0, 100);
    assert_eq!(
        past,
        Err(DeltaFault::CopyPastBasis {
            offset: 90,
            length: 20,
            basis_bytes: 100
        })
    );
    assert!(check_parts(&[copy(u64::MAX, 2)], 2, 0, 100).is_err());
    assert!(check_parts(&[copy(0, 10)], 11, 0, 100).is_err());
    assert!(check_parts(&[DeltaPart::Literal { length: 5 }], 5, 4, 100).is_err());
    assert!(check_parts(&[DeltaPart::Literal { length: 5 }], 5, 5, 100).is_ok());
}

#[test]
fn coverage_knows_overlaps_and_completeness() {
    let mut coverage = Coverage::default();
    assert!(coverage.is_complete(0));
    assert!(coverage.add(10, 10) && coverage.add(0, 5) && !coverage.add(4, 2) && !coverage.add(19, 5));
    assert!(!coverage.is_complete(20));
    assert!(coverage.add(5, 5));
    assert!(coverage.is_complete(20) && !coverage.is_complete(21));
    assert_eq!(coverage.span_count(), 1);
    assert!(!coverage.add(u64::MAX, 2));
}
