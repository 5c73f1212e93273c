//! S-27: what hostile and unlucky data cost, in counted work and not in time.

use super::*;
use crate::engine::delta::signature::HEADER_BYTES;

/// Work in units of one byte rolled over. Block hashes run some three to five times faster than the rolling sum, a
/// look-up of two cache lines takes as long as two to four bytes.
fn cost(work: Work) -> u64 {
    work.rolled + work.hashed / 3 + 4 * work.looked_up
}

fn work_of(index: &Index, target: &[u8]) -> Work {
    let mut matcher = Matcher::new(index);
    for piece in target.chunks(1 << 20) {
        matcher.push(piece);
    }
    matcher.work()
}

const BYTES: usize = 4 << 20;
const BLOCK: usize = 2 << 10;

/// Blocks that differ and have the same rolling sum under any base: the Thue-Morse sequence and its complement, at
/// as many places as a block has room for.
fn thue_morse_blocks(count: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(count * BLOCK);
    for block in 0..count {
        for at in 0..BLOCK {
            let sequence = (at as u32).count_ones() & 1;
            let complement = u32::from(block & 1 == 1);
            // The upper bits name the block, in bytes that the sums of a pair share.
            out.push((sequence ^ complement) as u8 + 2 * (block / 2 % 100) as u8);
        }
    }
    out
}

#[test]
fn s27_hostile_data_cost_at_most_three_times_what_noise_costs() {
    let noisy = index(&noise(BYTES, 1), &options(StrongKind::KeyedBlake3, BLOCK as u64));
    let normal = cost(work_of(&noisy, &noise(BYTES, 2)));
    let periodic: Vec<u8> = noise(100, 3).into_iter().cycle().take(BYTES).collect();
    let shifted: Vec<u8> = noise(100, 3).into_iter().cycle().skip(37).take(BYTES).collect();
    let other_period: Vec<u8> = noise(101, 3).into_iter().cycle().take(BYTES).collect();
    let equal: Vec<u8> = noise(BLOCK, 4).into_iter().cycle().take(BYTES).collect();
    let equal_shifted: Vec<u8> = [&noise(77, 9)[..], &equal].concat();
    let mut broken = equal.clone();
    broken.iter_mut().step_by(BLOCK - 1).for_each(|byte| *byte ^= 1);
    let collisions = thue_morse_blocks(BYTES / BLOCK);
    let swapped: Vec<u8> = collisions.iter().map(|byte| byte ^ 1).collect();
    let windows: Vec<u8> = collisions[BLOCK..2 * BLOCK]
        .iter()
        .copied()
        .cycle()
        .take(BYTES)
        .collect();
    let zeros = vec![0; BYTES];
    let ones = vec![1; BYTES];
    let cases: [(&str, &[u8], &[u8]); 10] = [
        ("equal blocks", &equal, &equal),
        ("equal blocks, shifted", &equal, &equal_shifted),
        ("equal blocks, each broken", &equal, &broken),
        ("a period, shifted", &periodic, &shifted),
        ("a period, nearly", &periodic, &other_period),
        ("colliding blocks", &collisions, &swapped),
        (
            "one colliding block, again and again",
            &collisions[..BLOCK],
            &windows,
        ),
        ("zeros", &zeros, &ones),
        ("zeros, broken", &zeros, &broken),
        ("noise in zeros", &zeros, &noisy_zeros()),
    ];
    for (what, basis, target) in cases {
        for kind in [StrongKind::KeyedBlake3, StrongKind::SeededXxh3] {
            let work = work_of(&index(basis, &options(kind, BLOCK as u64)), target);
            assert!(
                cost(work) <= 3 * normal,
                "{what}, {kind:?}: {work:?}, noise costs {normal}"
            );
        }
    }
}

fn noisy_zeros() -> Vec<u8> {
    let mut out = vec![0; BYTES];
    out.iter_mut().step_by(1_500).for_each(|byte| *byte = 1);
    out
}

/// A signature made so that every sum passes the filter and every bucket is full, searched with data that hits them.
#[test]
fn s27_a_hostile_signature_cannot_make_look_ups_long() {
    let mut signature = sign(&noise(BYTES, 1), &options(StrongKind::KeyedBlake3, 1 << 10)).signature;
    let blocks = BYTES >> 10;
    // All sums the same but for the lowest bits: one home, one filter bit.
    for block in 0..blocks {
        let sum = (block as u32 % 7) | 0x5555_5500;
        signature[HEADER_BYTES + 4 * block..][..4].copy_from_slice(&sum.to_le_bytes());
    }
    let index = Index::new(Signature::parse(signature).unwrap());
    assert_eq!(index.dropped(), blocks as u64 - 7 * 4);
    let most = (0..=255u64)
        .map(|low| index.blocks_of((0x5555_5500 | low) << 32).count())
        .max();
    assert_eq!(most, Some(4));
}

/// A signature all of whose sums are those of every window of the target, and none of whose hashes is: each byte of the
/// target looks like the beginning of four blocks. When the credit is used up, they are not hashed any more.
#[test]
fn s27_false_hits_are_bounded_by_the_bytes_that_went_by() {
    let target = vec![1; BYTES];
    let ones = sign(&target[..BLOCK], &options(StrongKind::KeyedBlake3, BLOCK as u64)).signature;
    let mut signature = sign(&noise(BYTES, 1), &options(StrongKind::KeyedBlake3, BLOCK as u64)).signature;
    for block in 0..BYTES / BLOCK {
        signature[HEADER_BYTES + 4 * block..][..4].copy_from_slice(&ones[HEADER_BYTES..][..4]);
    }
    let index = Index::new(Signature::parse(signature).unwrap());
    let work = work_of(&index, &target);
    let normal = work_of(&index, &noise(BYTES, 2));
    assert!(
        work.looked_up > 100,
        "every position is meant to look right: {work:?}"
    );
    assert!(work.hashed <= target.len() as u64 + 80 * BLOCK as u64, "{work:?}");
    assert!(cost(work) <= 3 * cost(normal), "{work:?}, noise {normal:?}");
}

/// Honest data lose no match to all that: a thousand blocks that occur twice each are all found.
#[test]
fn what_occurs_often_is_found() {
    let half = noise(1 << 20, 7);
    let basis = [&half[..], &half, &half, &half, &half, &half].concat();
    let index = index(&basis, &options(StrongKind::KeyedBlake3, 1 << 10));
    assert!(index.dropped() > 0);
    let target = [&[1; 333][..], &basis].concat();
    assert_eq!(literal_bytes(&delta(&index, &target)), 333);
}
