//! Any basis, any target, any cutting into pieces: basis and delta make the target, and cost no more than fast_rsync's.

use super::*;
use driftless_protocol::message::DeltaPart;
use proptest::prelude::*;
use proptest::sample::Index as Choice;
use proptest::strategy::ValueTree;

/// Data with and without structure.
#[derive(Debug, Clone, Copy)]
enum Texture {
    Noise,
    Zeros,
    Periodic(usize),
    /// Noise with long runs of zeros, like a disk image.
    Sparse,
    /// Few different bytes in lines, like a log.
    Text,
}

impl Texture {
    fn make(self, bytes: usize, seed: u64) -> Vec<u8> {
        let mut out = noise(bytes, seed);
        match self {
            Texture::Noise => {}
            Texture::Zeros => out.fill(0),
            Texture::Periodic(period) => (period..bytes).for_each(|at| out[at] = out[at - period]),
            Texture::Sparse => {
                for (number, page) in out.chunks_mut(3_000).enumerate() {
                    if number % 4 != 0 {
                        page.fill(0);
                    }
                }
            }
            Texture::Text => {
                for (number, line) in out.chunks_mut(64).enumerate() {
                    let text = format!(
                        "2026-01-01 12:00:{:02} host service[42]: request {number:08} served\n",
                        number % 60
                    );
                    line.iter_mut()
                        .zip(text.bytes().cycle())
                        .for_each(|(to, byte)| *to = byte);
                }
            }
        }
        out
    }
}

fn texture() -> impl Strategy<Value = Texture> {
    prop_oneof![
        3 => Just(Texture::Noise),
        1 => Just(Texture::Zeros),
        1 => prop_oneof![Just(1), Just(2), Just(64), Just(100), Just(1024), Just(1500)].prop_map(Texture::Periodic),
        2 => Just(Texture::Sparse),
        1 => Just(Texture::Text),
    ]
}

#[derive(Debug, Clone)]
enum Edit {
    Insert(Choice, usize, Texture),
    Remove(Choice, usize),
    Overwrite(Choice, usize, Texture),
    Move(Choice, Choice, usize),
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let at = any::<Choice>;
    let size = || prop_oneof![1usize..60, 60usize..6_000];
    let edit = prop_oneof![
        (at(), size(), texture()).prop_map(|(at, bytes, texture)| Edit::Insert(at, bytes, texture)),
        (at(), size()).prop_map(|(at, bytes)| Edit::Remove(at, bytes)),
        (at(), size(), texture()).prop_map(|(at, bytes, texture)| Edit::Overwrite(at, bytes, texture)),
        (at(), at(), size()).prop_map(|(from, to, bytes)| Edit::Move(from, to, bytes)),
    ];
    prop::collection::vec(edit, 0..8)
}

fn edited(basis: &[u8], edits: &[Edit], seed: u64) -> Vec<u8> {
    let mut target = basis.to_vec();
    for (number, edit) in edits.iter().enumerate() {
        let at = |choice: &Choice| choice.index(target.len() + 1);
        let seed = seed ^ (number as u64 + 1);
        match edit {
            Edit::Insert(choice, bytes, texture) => {
                let at = at(choice);
                target.splice(at..at, texture.make(*bytes, seed));
            }
            Edit::Remove(choice, bytes) => {
                let at = at(choice);
                target.drain(at..(at + bytes).min(target.len()));
            }
            Edit::Overwrite(choice, bytes, texture) => {
                let at = at(choice);
                let end = (at + bytes).min(target.len());
                target.splice(at..end, texture.make(end - at, seed));
            }
            Edit::Move(from, to, bytes) => {
                let (from, to) = (at(from), at(to));
                let piece: Vec<u8> = target[from..(from + bytes).min(target.len())].to_vec();
                target.splice(to..to, piece);
            }
        }
    }
    target
}

fn lengths() -> impl Strategy<Value = usize> {
    let border = (1usize..200, 0usize..3).prop_map(|(blocks, off)| blocks * 1024 + off - 1);
    prop_oneof![1 => 0usize..5_000, 2 => border, 3 => 5_000usize..500_000]
}

fn kind() -> impl Strategy<Value = StrongKind> {
    prop_oneof![Just(StrongKind::KeyedBlake3), Just(StrongKind::SeededXxh3)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]
    #[test]
    fn basis_and_delta_make_the_target(
        seed in any::<u64>(),
        texture in texture(),
        length in lengths(),
        edits in edits(),
        kind in kind(),
        block_log in 10u32..13,
        pieces in prop::collection::vec(prop_oneof![1usize..100, 100usize..20_000, 200_000usize..400_000], 1..8),
    ) {
        let basis = texture.make(length, seed);
        let target = edited(&basis, &edits, seed);
        let index = index(&basis, &options(kind, 1 << block_log));
        let whole = delta(&index, &target);
        prop_assert_eq!(rebuild(&basis, &whole), target.clone());
        // However the target is cut into pieces, the result is as good.
        let (mut matcher, mut ranges) = (Matcher::new(&index), Vec::new());
        let (mut rest, mut pieces) = (&target[..], pieces.into_iter().cycle());
        while !rest.is_empty() {
            let (piece, later) = rest.split_at(pieces.next().unwrap().min(rest.len()));
            matcher.push(piece);
            ranges.append(&mut matcher.ranges());
            rest = later;
        }
        ranges.append(&mut matcher.finish());
        prop_assert_eq!(rebuild(&basis, &ranges), target);
        prop_assert_eq!(literal_bytes(&ranges), literal_bytes(&whole));
    }

    /// Segments matched apart and joined are as good as the whole, but for a part of a block at a seam: with what a block was overwritten
    /// may begin as another one does, which only who sees both sides of it copies.
    #[test]
    fn seams_between_segments_cost_less_than_a_block(
        seed in any::<u64>(),
        texture in texture(),
        length in 50_000usize..500_000,
        edits in edits(),
        kind in kind(),
        segment in 5_000usize..200_000,
    ) {
        let basis = texture.make(length, seed);
        let target = edited(&basis, &edits, seed);
        let index = index(&basis, &options(kind, 1 << 10));
        let mut joiner = Joiner::default();
        let mut start = 0;
        while start < target.len() {
            let length = segment.min(target.len() - start);
            let end = (start + length + overlap_bytes(&index)).min(target.len());
            joiner.push(&match_segment(&index, start as u64, &target[start..end], length));
            start += length;
        }
        let joined = joiner.finish();
        prop_assert_eq!(rebuild(&basis, &joined), target.clone());
        if matches!(texture, Texture::Noise) {
            let seams = target.len() / segment;
            let (joined, whole) = (literal_bytes(&joined), literal_bytes(&delta(&index, &target)));
            prop_assert!(joined <= whole + seams * (1 << 10), "{joined} of {whole}, {seams} seams");
        }
    }

    /// One pass gives the signature and the digest, in whatever pieces and with holes told or read.
    #[test]
    fn a_signature_does_not_depend_on_pieces(
        seed in any::<u64>(),
        texture in texture(),
        length in lengths(),
        kind in kind(),
        digest in any::<bool>(),
        block_log in 10u32..14,
        piece in prop_oneof![1usize..3_000, 3_000usize..100_000],
    ) {
        let basis = texture.make(length, seed);
        let options = SignatureOptions { digest, ..options(kind, 1 << block_log) };
        let whole = sign(&basis, &options);
        prop_assert_eq!(whole.digest, digest.then(|| *blake3::hash(&basis).as_bytes()));
        let mut builder = SignatureBuilder::new(length as u64, &options).unwrap();
        for piece in basis.chunks(piece) {
            if piece.iter().all(|&byte| byte == 0) {
                builder.push_zeros(piece.len() as u64);
            } else {
                builder.push(piece);
            }
        }
        prop_assert_eq!(builder.finish().unwrap(), whole);
    }

    /// At the same block size our delta is no larger than fast_rsync's. Where the basis repeats itself, both take the
    /// first of many matches, and where the next edit cuts them off is luck: at most a block an edit. Elsewhere a seam more can
    /// cost what it saves.
    #[test]
    fn fast_rsync_finds_no_more(
        seed in any::<u64>(),
        texture in texture(),
        length in 20_000usize..500_000,
        edits in edits(),
        kind in kind(),
    ) {
        let basis = texture.make(length, seed);
        let target = edited(&basis, &edits, seed);
        let ours = delta(&index(&basis, &options(kind, 1 << 10)), &target);
        let theirs = by_fast_rsync(&basis, &target, 1 << 10);
        prop_assert_eq!(rebuild(&basis, &theirs), target);
        let luck = if matches!(texture, Texture::Noise) { 8 } else { 1_100 } * edits.len();
        prop_assert!(
            wire_bytes(&ours) <= wire_bytes(&theirs) + luck,
            "{} bytes in {} parts, fast_rsync {} in {}",
            literal_bytes(&ours), part_count(&ours), literal_bytes(&theirs), part_count(&theirs)
        );
    }
}

/// Luck evens out: summed over many files of each texture, we need less.
#[test]
fn fast_rsync_finds_no_more_on_the_whole() {
    let textures = [
        Texture::Noise,
        Texture::Zeros,
        Texture::Periodic(100),
        Texture::Periodic(1_500),
        Texture::Sparse,
        Texture::Text,
    ];
    for texture in textures {
        let (mut ours, mut theirs) = (0, 0);
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        for seed in 0..60 {
            let edits = edits().new_tree(&mut runner).unwrap().current();
            let basis = texture.make(60_000 + 997 * seed as usize, seed);
            let target = edited(&basis, &edits, seed);
            let index = index(&basis, &options(StrongKind::KeyedBlake3, 1 << 10));
            ours += wire_bytes(&delta(&index, &target));
            theirs += wire_bytes(&by_fast_rsync(&basis, &target, 1 << 10));
        }
        println!("{texture:?}: {ours} bytes, fast_rsync {theirs}");
        assert!(ours <= theirs, "{texture:?}: {ours} bytes, fast_rsync {theirs}");
    }
}

/// Literals, and about what a part takes.
fn wire_bytes(ranges: &[RangeDelta]) -> usize {
    literal_bytes(ranges) + 8 * part_count(ranges)
}

fn by_fast_rsync(basis: &[u8], target: &[u8], block_size: u32) -> Vec<RangeDelta> {
    let options = ::fast_rsync::SignatureOptions {
        block_size,
        crypto_hash_size: 16,
    };
    let signature = ::fast_rsync::Signature::calculate(basis, options);
    fast_rsync::diff(&signature.index(), target).unwrap()
}

/// Where blocks, groups and the tree's levels begin and end.
#[test]
fn the_digest_of_one_pass_is_right_at_every_edge() {
    let source = noise(300_000, 21);
    for block in [1usize << 10, 4 << 10, 64 << 10] {
        for edge in [block, 2 * block, 64 << 10, 128 << 10, 192 << 10, 256 << 10] {
            for length in [edge - 1, edge, edge + 1] {
                let basis = &source[..length];
                let signed = sign(basis, &options(StrongKind::KeyedBlake3, block as u64));
                let digest = *blake3::hash(basis).as_bytes();
                assert_eq!(signed.digest, Some(digest), "{length} bytes, blocks of {block}");
            }
        }
    }
}

#[test]
fn a_basis_of_another_length_than_announced_is_an_error() {
    for (announced, given) in [(5_000, 4_999), (5_000, 5_001), (0, 1), (1_024, 0)] {
        let mut builder =
            SignatureBuilder::new(announced, &options(StrongKind::KeyedBlake3, 1 << 10)).unwrap();
        builder.push(&noise(given, 1));
        let made = given as u64;
        assert_eq!(
            builder.finish(),
            Err(DeltaFault::Length {
                made,
                wanted: announced
            })
        );
    }
}

#[test]
fn a_hole_is_not_hashed_and_ends_up_as_one_copy() {
    let hole = 1u64 << 40;
    let without_digest = SignatureOptions {
        digest: false,
        ..SignatureOptions::exchanged([9; 32])
    };
    let mut builder = SignatureBuilder::new(hole + 5, &without_digest).unwrap();
    builder.push_zeros(hole);
    builder.push(b"after");
    let index = Index::new(Signature::parse(builder.finish().unwrap().signature).unwrap());
    let ranges = delta(&index, &vec![0; 3 << 20]);
    assert!(
        ranges
            .iter()
            .all(|range| matches!(range.parts[..], [DeltaPart::Copy { .. }]))
    );
}

/// The index of a small file has a place for every block: one without is missed wherever it moves.
#[test]
fn small_files_lose_no_block_to_a_full_index() {
    for seed in 0..500 {
        let basis = Texture::Noise.make(106_496, seed);
        let index = index(&basis, &options(StrongKind::SeededXxh3, 1 << 10));
        assert_eq!(index.dropped(), 0, "seed {seed}");
    }
}
