//! Signatures: their format, their limits, and hostile ones.

use super::*;
use crate::engine::delta::signature::{BLOCK_BYTES_MAX, HEADER_BYTES, Shape};
use driftless_protocol::limits::{FILE_BYTES_MAX, SIGNATURE_BYTES_MAX};

/// The bytes of a small signature, as they have to stay.
#[test]
fn the_format_is_what_it_was() {
    let basis: Vec<u8> = (0..2_500u32).map(|n| (n / 10) as u8).collect();
    let signed = sign(&basis, &options(StrongKind::KeyedBlake3, 1 << 10));
    let hex = data_encoding_hex(&signed.signature);
    let header = "64727367 01 01 0a 04 08 00000000000000 c409000000000000".replace(' ', "");
    assert!(hex.starts_with(&header), "{hex}");
    assert_eq!(&hex[48..112], "07".repeat(32));
    assert_eq!(hex.len(), 2 * (HEADER_BYTES + 3 * 12));
    assert_eq!(&hex[112..], KEYED_COLUMNS);
    let signed = sign(&basis, &options(StrongKind::SeededXxh3, 1 << 10));
    assert_eq!(&data_encoding_hex(&signed.signature)[112..], SEEDED_COLUMNS);
}

const KEYED_COLUMNS: &str = "8f4ab57522d7a061398fd9c3ebb9cbf68d5b71998c89d91faa8d3129be117bc827238120";
const SEEDED_COLUMNS: &str = "8f4ab57522d7a061398fd9c3444f2d26ea55330a56214ab100dcfaf69eab4a373c7029f3";

fn data_encoding_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A second writer, as slow and plain as the text in `protocol/SPEC.md`.
fn sign_by_the_book(basis: &[u8], key: [u8; 32], block: usize) -> Vec<u8> {
    use blake3::hazmat::HasherExt;
    let base = u64::from_le_bytes(key[8..16].try_into().unwrap()) & !7 | 5;
    let weak = |bytes: &[u8]| {
        let add = |sum: u64, &byte: &u8| sum.wrapping_add(u64::from(byte)).wrapping_mul(base);
        (bytes.iter().fold(0, add) >> 32) as u32
    };
    let strong = |at: usize, bytes: &[u8]| {
        let mut value = [0; 32];
        if bytes.iter().any(|&byte| byte != 0) {
            let mut hasher = blake3::Hasher::new();
            value = hasher
                .set_input_offset(at as u64)
                .update(bytes)
                .finalize_non_root();
        }
        blake3::keyed_hash(&key, &value).as_bytes()[..8].to_vec()
    };
    let mut out = Vec::from(*b"drsg");
    out.extend([1, 1, block.ilog2() as u8, 4, 8, 0, 0, 0, 0, 0, 0, 0]);
    out.extend((basis.len() as u64).to_le_bytes());
    out.extend(key);
    out.extend(basis.chunks(block).flat_map(|bytes| weak(bytes).to_le_bytes()));
    let blocks = basis.chunks(block).enumerate();
    out.extend(blocks.flat_map(|(number, bytes)| strong(number * block, bytes)));
    if block < 64 << 10 {
        let groups = basis.chunks_exact(64 << 10).enumerate();
        out.extend(groups.flat_map(|(number, bytes)| strong(number * (64 << 10), bytes)));
    }
    out
}

#[test]
fn signatures_are_what_the_specification_says() {
    let mut basis = noise(400_001, 31);
    basis[70_000..230_000].fill(0);
    let key = *blake3::hash(b"a key").as_bytes();
    for block in [1 << 10, 4 << 10, 32 << 10, 64 << 10, 512 << 10] {
        for bytes in [1, block, 200_000, 262_144, 400_001] {
            let basis = &basis[..bytes.min(basis.len())];
            for digest in [true, false] {
                let options = SignatureOptions {
                    key,
                    digest,
                    ..options(StrongKind::KeyedBlake3, block as u64)
                };
                let expected = sign_by_the_book(basis, key, block);
                assert!(
                    sign(basis, &options).signature == expected,
                    "{bytes} bytes, blocks of {block}"
                );
            }
        }
    }
}

#[test]
fn block_sizes_follow_the_square_root_and_fit_the_wire() {
    let block = |bytes| block_bytes(bytes, StrongKind::KeyedBlake3, SIGNATURE_BYTES_MAX);
    assert_eq!(block(0), Some(1 << 10));
    assert_eq!(block(16 << 10), Some(1 << 10));
    assert_eq!(block(64 << 20), Some(8 << 10));
    assert_eq!(block(256 << 20), Some(16 << 10));
    assert_eq!(block(100 << 30), Some(256 << 10));
    assert_eq!(block(16 << 40), Some(4 << 20));
    assert_eq!(block(64 << 40), Some(16 << 20), "grown until it fits the wire");
    assert_eq!(block(FILE_BYTES_MAX), None, "no signature is small enough");
    // A smaller limit makes larger blocks.
    let small = block_bytes(1 << 30, StrongKind::SeededXxh3, 64 << 10);
    assert_eq!(small, Some(256 << 10));
    for bytes in [1, 1 << 20, 100 << 30, 1 << 45] {
        let block = block(bytes).unwrap();
        let shape = Shape::new(StrongKind::KeyedBlake3, block.ilog2(), bytes);
        assert!(shape.length() <= SIGNATURE_BYTES_MAX as u64 && block <= BLOCK_BYTES_MAX);
    }
    // Asked for pages, a large file gets the smallest blocks that fit.
    let options = SignatureOptions::remembered([1; 32], 1 << 20);
    assert_eq!(
        SignatureBuilder::new(64 << 20, &options).unwrap().block_bytes(),
        4 << 10
    );
    assert_eq!(
        SignatureBuilder::new(4 << 30, &options).unwrap().block_bytes(),
        64 << 10
    );
}

/// S-08: hostile signatures are refused, whatever they say.
#[test]
fn s08_hostile_signatures_are_refused() {
    let good = sign(&noise(100_000, 4), &options(StrongKind::KeyedBlake3, 1 << 10)).signature;
    let with = |at: usize, bytes: &[u8]| {
        let mut signature = good.clone();
        signature[at..at + bytes.len()].copy_from_slice(bytes);
        Signature::parse(signature)
    };
    let cases: [(usize, &[u8]); 18] = [
        (0, b"rsync"),
        (4, &[0]),
        (4, &[2]),
        (5, &[0]),
        (5, &[3]),
        (6, &[0]),
        (6, &[9]),
        (6, &[25]),
        (6, &[255]),
        (7, &[3]),
        (7, &[9]),
        (8, &[7]),
        (8, &[17]),
        (9, &[1]),
        (15, &[1]),
        (16, &u64::MAX.to_le_bytes()),
        (16, &(1u64 << 62).to_le_bytes()),
        (16, &0u64.to_le_bytes()),
    ];
    for (at, bytes) in cases {
        let parsed = with(at, bytes);
        assert!(
            matches!(parsed, Err(DeltaFault::Signature(_))),
            "{bytes:?} at {at}"
        );
    }
    assert!(Signature::parse(good[..good.len() - 1].to_vec()).is_err());
    assert!(Signature::parse([&good[..], &[0]].concat()).is_err());
    assert!(Signature::parse(good[..HEADER_BYTES - 1].to_vec()).is_err());
    assert!(Signature::parse(Vec::new()).is_err());
    assert!(Signature::parse(vec![0; SIGNATURE_BYTES_MAX + 1]).is_err());
    assert!(Signature::parse(good).is_ok());
}

/// Any bytes behind a header that is in order are a signature that can be searched; nothing comes of it but literals.
#[test]
fn a_signature_of_noise_is_harmless() {
    let target = noise(200_000, 5);
    for kind in [StrongKind::KeyedBlake3, StrongKind::SeededXxh3] {
        for fill in [None, Some(0), Some(255)] {
            let mut signature = sign(&noise(500_123, 4), &options(kind, 1 << 10)).signature;
            let body = signature.len() - HEADER_BYTES;
            let bytes = fill.map_or_else(|| noise(body, 6), |byte| vec![byte; body]);
            signature[HEADER_BYTES..].copy_from_slice(&bytes);
            let index = Index::new(Signature::parse(signature).unwrap());
            assert_eq!(literal_bytes(&delta(&index, &target)), target.len());
        }
    }
}

/// fast_rsync's signatures have their own checks, before it sees them.
#[test]
fn s08_hostile_fast_rsync_signatures_are_refused() {
    let mut builder = fast_rsync::SignatureBuilder::new(100_000).unwrap();
    builder.push(&noise(100_000, 4));
    let good = builder.finish();
    let with = |at: usize, word: u32| {
        let mut bytes = good.clone();
        bytes[at..at + 4].copy_from_slice(&word.to_be_bytes());
        fast_rsync::parse_signature(bytes)
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
        let parsed = with(at, word);
        assert!(
            matches!(parsed, Err(DeltaFault::Signature(_))),
            "word {word} at {at}"
        );
    }
    assert!(fast_rsync::parse_signature(good[..good.len() - 1].to_vec()).is_err());
    assert!(fast_rsync::parse_signature(Vec::new()).is_err());
    assert!(fast_rsync::parse_signature(good).is_ok());
}

#[test]
fn either_engine_is_known_by_its_signature() {
    let basis = noise(100_000, 11);
    let target = [&basis[..50_000], b"new", &basis[50_000..]].concat();
    for engine in [Engine::Driftless, Engine::FastRsync] {
        assert_eq!(engine.to_string().parse(), Ok(engine));
        let mut signer = BasisSigner::new(engine, basis.len() as u64, [3; 32]).unwrap();
        let step = signer.step();
        basis.chunks(step).for_each(|piece| signer.push(piece));
        let (signature, digest) = signer.finish().unwrap();
        assert!(digest.is_none_or(|digest| digest == *blake3::hash(&basis).as_bytes()));
        let signature = PeerSignature::parse(signature).unwrap();
        assert_eq!(
            matches!(signature, PeerSignature::FastRsync(_)),
            engine == Engine::FastRsync
        );
        let mut matcher = signature.matcher();
        let mut ranges = Vec::new();
        for piece in target.chunks(777) {
            ranges.append(&mut matcher.push(piece));
        }
        ranges.append(&mut matcher.finish());
        assert_eq!(rebuild(&basis, &ranges), target);
        assert!(literal_bytes(&ranges) < 5_000, "{engine}");
    }
    assert!("rsync".parse::<Engine>().is_err());
    assert!(BasisSigner::new(Engine::Driftless, 1 << 40, [0; 32]).is_some());
    assert!(BasisSigner::new(Engine::FastRsync, 5 << 30, [0; 32]).is_none());
    assert!(BasisSigner::new(Engine::Driftless, BASIS_BYTES_MIN - 1, [0; 32]).is_none());
    assert!(PeerSignature::parse(b"neither of them".to_vec()).is_err());
}
