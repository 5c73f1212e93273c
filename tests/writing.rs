//! How files are written on the target: whole, with their space reserved.

mod support;

use driftless::daemon::keeping::Drift;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
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

/// Names, numbers and contents of what is written in place.
#[test]
fn a_file_that_is_written_in_place_stays_the_same_object() {
    let mut pair = Pair::new();
    pair.inplace = true;
    for name in ["small", "large", "narrow", "kind"] {
        fs::write(
            pair.src().join(name),
            noise(if name == "large" { 3_000_000 } else { 5_000 }, name),
        )
        .unwrap();
    }
    assert!(pair.seed().unwrap().in_sync);
    let number = |name: &str| fs::symlink_metadata(pair.dst().join(name)).unwrap().ino();
    let before = ["small", "large", "narrow"].map(number);
    let further = pair.path("further");
    fs::hard_link(pair.dst().join("large"), &further).unwrap();
    let open = fs::File::open(pair.dst().join("small")).unwrap();
    // In the middle, at the end, shorter; another mode and another kind.
    let mut large = noise(3_000_000, "large");
    large[1_000_000] ^= 1;
    large.extend(b"more");
    fs::write(pair.src().join("large"), &large).unwrap();
    fs::write(pair.src().join("small"), "short").unwrap();
    fs::write(pair.src().join("narrow"), "secret").unwrap();
    fs::set_permissions(pair.src().join("narrow"), PermissionsExt::from_mode(0o400)).unwrap();
    fs::remove_file(pair.src().join("kind")).unwrap();
    std::os::unix::fs::symlink("small", pair.src().join("kind")).unwrap();
    let summary = pair.seed().unwrap();
    assert!(summary.in_sync && summary.failed.is_empty(), "{summary:?}");
    pair.assert_equal();
    assert_eq!(["small", "large", "narrow"].map(number), before);
    assert_eq!(fs::read(&further).unwrap(), large);
    assert_eq!(std::io::read_to_string(open).unwrap(), "short");
    // A local edit that is to be kept is not written over.
    pair.keeping.drift = Drift::Keep;
    fs::write(pair.dst().join("small"), "edited").unwrap();
    fs::write(pair.src().join("small"), "changed").unwrap();
    assert!(pair.seed().unwrap().in_sync);
    pair.assert_equal();
    let kept = fs::read_dir(pair.dst().join(".driftless-kept"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    assert_eq!(fs::read_to_string(kept.path().join("small")).unwrap(), "edited");
}
