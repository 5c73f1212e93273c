//! How files are written on the target: whole, with their space reserved.

mod support;

use std::fs;
use std::os::unix::fs::MetadataExt;
use support::Pair;

/// Bytes that nothing compresses.
fn noise(bytes: usize, seed: &str) -> Vec<u8> {
    let mut out = vec![0; bytes];
    let mut hasher = blake3::Hasher::new();
    hasher.update(seed.as_bytes());
    hasher.finalize_xof().fill(&mut out);
    out
}

#[test]
fn whole_files_travel_without_a_look_for_differences() {
    let mut sent = Vec::new();
    for whole in [false, true] {
        let mut pair = Pair::new();
        pair.whole_files = whole;
        // One whose content travels inside an op, one that is offered.
        let sizes = [("small", 200_000), ("large", 4_000_000)];
        for (name, bytes) in sizes {
            fs::write(pair.src().join(name), noise(bytes, name)).unwrap();
        }
        assert!(pair.seed().unwrap().in_sync);
        for (name, bytes) in sizes {
            let mut content = noise(bytes, name);
            content[bytes / 2] ^= 1;
            fs::write(pair.src().join(name), content).unwrap();
        }
        let summary = pair.seed().unwrap();
        assert!(summary.in_sync && summary.failed.is_empty(), "{summary:?}");
        pair.assert_equal();
        sent.push(summary.counters.wire_bytes_sent);
    }
    assert!(sent[0] < 300_000, "deltas: {sent:?}");
    assert!((4_200_000..5_000_000).contains(&sent[1]), "whole: {sent:?}");
}

#[test]
fn preallocated_files_have_no_holes() {
    for preallocate in [false, true] {
        let mut pair = Pair::new();
        pair.preallocate = preallocate;
        for (name, bytes) in [("small", 200_000), ("large", 12 << 20)] {
            let mut content = vec![0; bytes];
            content[bytes / 2..].fill(7);
            fs::write(pair.src().join(name), content).unwrap();
        }
        let summary = pair.seed().unwrap();
        assert!(summary.in_sync && summary.failed.is_empty(), "{summary:?}");
        pair.assert_equal();
        for name in ["small", "large"] {
            let meta = fs::metadata(pair.dst().join(name)).unwrap();
            let is_full = meta.blocks() * 512 >= meta.len();
            assert_eq!(is_full, preallocate, "{name}: {} blocks", meta.blocks());
        }
    }
}
