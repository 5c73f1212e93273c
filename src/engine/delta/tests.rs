use super::*;
use proptest::prelude::*;

fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut out = vec![0; bytes];
    blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut out);
    out
}

fn signature(basis: &[u8]) -> Vec<u8> {
    let mut builder =
        SignatureBuilder::new(basis.len() as u64).expect("the basis is of a size that is matched");
    let step = builder.step();
    basis.chunks(step).for_each(|piece| builder.push(piece));
    builder.finish()
}

/// What a receiver does, on slices.
fn rebuild(basis: &[u8], ranges: &[RangeDelta]) -> Vec<u8> {
    let mut out = Vec::new();
    for range in ranges {
        check_parts(
            &range.parts,
            range.length,
            range.literals.len(),
            basis.len() as u64,
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

fn delta(basis: &[u8], target: &[u8]) -> Vec<RangeDelta> {
    let signature = parse_signature(signature(basis)).unwrap();
    let index = signature.index();
    target
        .chunks(SEGMENT_BYTES)
        .flat_map(|segment| diff(&index, segment).unwrap())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn any_edit_is_rebuilt(
        seed in any::<u64>(),
        length in 20_000usize..400_000,
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0usize..3_000, 0usize..3_000), 0..6),
    ) {
        let basis = noise(length, seed);
        let mut target = basis.clone();
        for (n, (at, cut, insert)) in edits.into_iter().enumerate() {
            let at = at.index(target.len());
            let end = (at + cut).min(target.len());
            target.splice(at..end, noise(insert, seed ^ n as u64));
            if target.is_empty() { target.push(1); }
        }
        prop_assert_eq!(rebuild(&basis, &delta(&basis, &target)), target);
    }
}

#[test]
fn similar_data_costs_little_and_foreign_data_costs_itself() {
    let basis = noise(3 << 20, 1);
    let mut target = basis.clone();
    target[1_000_000] ^= 1;
    let literals = |ranges: &[RangeDelta]| ranges.iter().map(|r| r.literals.len()).sum::<usize>();
    let ranges = delta(&basis, &target);
    assert!(literals(&ranges) < 3 * block_bytes(3 << 20) as usize);
    assert!(
        ranges
            .iter()
            .all(|range| range.length as usize <= RANGE_BYTES_MAX)
    );
    let foreign = noise(2 << 20, 2);
    assert_eq!(literals(&delta(&basis, &foreign)), foreign.len());
}

#[test]
fn a_run_of_copies_is_one_part() {
    let basis = noise(1 << 20, 3);
    let whole = basis.len() / block_bytes(1 << 20) as usize * block_bytes(1 << 20) as usize;
    let ranges = delta(&basis, &basis[..whole]);
    assert_eq!(ranges.len(), 1);
    assert_eq!(
        ranges[0].parts,
        [DeltaPart::Copy {
            offset: 0,
            length: whole as u32
        }]
    );
}

/// S-08: hostile signatures are refused before fast_rsync sees them.
#[test]
fn s08_hostile_signatures_are_refused() {
    let good = signature(&noise(100_000, 4));
    let with = |at: usize, word: u32| {
        let mut bytes = good.clone();
        bytes[at..at + 4].copy_from_slice(&word.to_be_bytes());
        parse_signature(bytes)
    };
    for (at, word) in [
        (0, 0),
        (0, 0x7273_0137),
        (4, 0),
        (4, 511),
        (4, (1 << 20) + 1),
        (8, 0),
        (8, 8),
        (8, u32::MAX),
    ] {
        assert!(
            matches!(with(at, word), Err(DeltaFault::Signature(_))),
            "word {word} at {at}"
        );
    }
    assert!(parse_signature(good[..good.len() - 1].to_vec()).is_err());
    assert!(parse_signature(Vec::new()).is_err());
    assert!(parse_signature(good).is_ok());
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
