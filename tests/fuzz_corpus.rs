//! The fuzz targets over their corpus and over mutations of it: S-23, X-03 and X-04, with any toolchain.
//!
//! `DRIFTLESS_FUZZ_ROUNDS` sets the mutations of each target (default 3,000), `DRIFTLESS_SEED` where they begin.
//! `DRIFTLESS_WRITE_CORPUS=1` writes the corpus anew.

mod support;

#[path = "../fuzz/targets.rs"]
mod targets;

use driftless::engine::delta::{SignatureBuilder, SignatureOptions};
use driftless_protocol::codec::{encode, encode_frame};
use driftless_protocol::message::*;
use driftless_protocol::{Attributes, Digest, Name, ObjectId, Xattrs};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use support::peer::opening;
use support::random::Random;

/// No input may take longer, even in a debug build on a busy machine.
const INPUT_MAX: Duration = Duration::from_secs(10);

fn corpus() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

/// What the corpus is made of: good inputs of each kind, and those that were somebody's undoing.
fn seeds() -> BTreeMap<(&'static str, &'static str), Vec<u8>> {
    let mut seeds = BTreeMap::new();
    let mut add = |target, name, bytes: Vec<u8>| assert!(seeds.insert((target, name), bytes).is_none());

    let open = encode(&ToReceiver::Open(opening(b"module", 7))).unwrap();
    add("messages", "open", open);
    let op = |body| {
        OpFrame(vec![OpMessage::Op(Op {
            number: 1,
            after: 0,
            barrier: false,
            body,
            xattrs: Xattrs::default(),
        })])
    };
    let place = || Place {
        directory: ObjectId(1),
        name: Name::new(*b"name").unwrap(),
    };
    let file = |content| OpBody::PutFile {
        place: place(),
        object: ObjectId(9),
        attributes: Attributes::default(),
        content,
    };
    let inline = op(file(Content::Inline {
        digest: Digest::of(b"text"),
        bytes: InlineContent(b"text".to_vec()),
    }));
    let link = op(OpBody::PutSymlink {
        place: place(),
        object: ObjectId(9),
        attributes: Attributes::default(),
        target: LinkTarget(b"../../etc/passwd".to_vec()),
    });
    add("messages", "inline", encode(&inline).unwrap());
    add("messages", "link", encode(&link).unwrap());
    // rsync 2007-4091 and 2021-21404 of Syncthing: a length that is more than there is, or negative.
    let mut lying = encode(&inline).unwrap();
    lying.splice(0..1, [0xfd, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    add("messages", "length-of-all-ones", lying);
    add("messages", "marker-128-bits", vec![0xfe; 40]);
    // rsync 2022-29154 and 2004-0426: names that lead out.
    let stand_in = encode(&inline).unwrap();
    let at = stand_in.windows(4).position(|bytes| bytes == b"name").unwrap();
    for (name, bytes) in [
        ("name-dot-dot", &b"a/.."[..]),
        ("name-nul", b"a\0bc"),
        ("name-dots", b"...."),
    ] {
        let mut odd = stand_in.clone();
        odd.splice(at..at + 4, bytes.iter().copied());
        add("messages", name, odd);
    }

    let pack = |bytes: &[u8], window_log: u32| {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
        encoder.window_log(window_log).unwrap();
        encoder.write_all(bytes).unwrap();
        [vec![255], encoder.finish().unwrap()].concat()
    };
    let frames = [encode_frame(&inline).unwrap(), encode_frame(&link).unwrap()].concat();
    add("packed", "two-frames", pack(&frames, 20));
    add("packed", "cut", pack(&frames[..frames.len() - 3], 20));
    // ruzstd RUSTSEC-2024-0400 and others: little in, very much out; a window that nobody has memory for.
    add("packed", "bomb", pack(&vec![0; 20 << 20], 20));
    add("packed", "window-2-to-the-27", pack(&vec![1; 3 << 20], 27));
    add(
        "packed",
        "empty-frames",
        pack(&encode_frame(&OpFrame(vec![])).unwrap().repeat(5000), 20),
    );
    add("packed", "frame-too-long", pack(&[0x7f, 0xff, 0xff, 0xff, 0], 20));

    let basis: Vec<u8> = (0..40_000u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let mut builder =
        SignatureBuilder::new(basis.len() as u64, &SignatureOptions::exchanged([3; 32])).unwrap();
    builder.push(&basis);
    let signed = builder.finish().unwrap().signature;
    let with_file = |signature: &[u8]| [&20_000u16.to_be_bytes(), &basis[7..20_007], signature].concat();
    add("signature", "own", with_file(&signed));
    // rsync 2024-12084, 2026-53792: a strong sum longer than its place, blocks of no bytes, counts that lie.
    let librsync = |block: u32, strong: u32, blocks: usize| {
        let mut bytes = [0x7273_0136u32, block, strong].map(u32::to_be_bytes).concat();
        bytes.resize(12 + blocks * (4 + strong.min(64) as usize), 0xab);
        with_file(&bytes)
    };
    add("signature", "librsync", librsync(2048, 16, 20));
    add("signature", "block-0", librsync(0, 16, 1));
    add("signature", "strong-0", librsync(2048, 0, 20));
    add("signature", "strong-too-long", librsync(2048, u32::MAX, 2));
    // rsync 2026-70453: many blocks with one weak sum.
    add(
        "signature",
        "equal-blocks",
        [&20_000u16.to_be_bytes()[..], &[0; 20_000], &signed].concat(),
    );

    let range = |length, parts, literals: &[u8]| {
        let literals = RangeBytes(zstd::bulk::compress(literals, 3).unwrap());
        let body = RangeBody::Delta {
            parts: DeltaParts(parts),
            literals,
        };
        let frame = BulkFrame {
            number: 1,
            offset: 0,
            length,
            body,
        };
        encode(&frame).unwrap()
    };
    let copy = |offset, length| DeltaPart::Copy { offset, length };
    add(
        "delta",
        "good",
        range(15, vec![copy(9, 10), DeltaPart::Literal { length: 5 }], b"fives"),
    );
    add("delta", "past-the-basis", range(10, vec![copy(99_995, 10)], b""));
    add("delta", "overflow", range(10, vec![copy(u64::MAX - 3, 10)], b""));
    add(
        "delta",
        "literals-missing",
        range(10, vec![DeltaPart::Literal { length: 10 }], b"few"),
    );
    add(
        "delta",
        "one-byte-copies",
        range(4000, vec![copy(0, 1); 4000], b""),
    );

    for (name, text) in [
        ("rules", &b"\x01- *.o\n+ /src/**\nP keep\n! \n"[..]),
        ("merge-itself", b"\x00. rules\n"),
        ("dir-merge-itself", b"\x07: rules\n- x\n"),
        // rsync 2026-70461: a backslash at the end.
        ("backslash", b"\x02a\\\n[a\\\n[[:alpha:\n"),
        ("stars", b"\x02*a*a*a*a*a*a*a*a*a*a*a*a*b\n"),
        ("expression", b"\x03(a+)+$\n((a*)*)*\n"),
        ("gitignore", b"\x04*.o\n!keep.o\n/dir/\n\\#x\n"),
        ("clsync", b"\x05-d^.git$\n+*.*\n"),
        ("lsyncd", b"\x06- *.bak\n+ x\n"),
    ] {
        add("filter_rules", name, text.to_vec());
    }

    for (name, text) in [
        ("code-short", "driftless-pair1-"),
        (
            "code-letters",
            "driftless-pair1-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        ),
        (
            "fingerprint",
            "v4jutopv7gq2nicajxvdnxgjjgn4wjojvxarfn6mtkj4vza7gjra",
        ),
        ("rights", "push,delete,verify,no-owner"),
        ("rights-unknown", "push,root"),
        ("schedule", "08:00,512k 12:00,10M 23:00,off"),
        // rsync 2026-70457: a size whose digits do not fit.
        ("size", "99999999999999999999999999999999999999G"),
        ("limit", "1000,25%"),
    ] {
        add("texts", name, text.as_bytes().to_vec());
    }
    let code = driftless_certs::PairingCode::new(
        vec!["nas.lan:4433".to_owned(), "[fd00::7]:4433".to_owned()],
        driftless_certs::Fingerprint::from_bytes([7; 32]),
        "photos".to_owned(),
        driftless_certs::Secret::from_bytes([9; 16]),
        1_800_000_000,
    );
    add("texts", "code", code.unwrap().to_string().into_bytes());

    for (name, text) in [
        ("server", include_str!("../examples/backup-server.toml")),
        ("client", include_str!("../examples/backup-client.toml")),
        ("fan-out", include_str!("../examples/web-farm.toml")),
        ("unknown-key", "[[mirror]]\nsource = \"/a\"\nsorce = 1\n"),
        ("wrong-kind", "[[module]]\nname = [1]\npath = {}\n"),
        ("cut", "[[mirror]]\nsource = \"/a"),
        ("control-bytes", "[[mirror]]\n\"\\u001b[2J\" = \"\\u0007\"\n"),
        ("deep", "a.b.c.d.e.f.g.h.i.j.k = [[[[[[[[1]]]]]]]]\n"),
    ] {
        add("configuration", name, text.as_bytes().to_vec());
    }

    add("certificate", "empty", vec![]);
    add(
        "certificate",
        "sequence-without-end",
        vec![0x30, 0x84, 0xff, 0xff, 0xff, 0xff],
    );
    add("certificate", "nested", [0x30, 0x80].repeat(2000));
    seeds
}

#[test]
fn the_corpus_is_complete() {
    let seeds = seeds();
    if std::env::var_os("DRIFTLESS_WRITE_CORPUS").is_some() {
        for ((target, name), bytes) in &seeds {
            fs::create_dir_all(corpus().join(target)).unwrap();
            fs::write(corpus().join(target).join(name), bytes).unwrap();
        }
    }
    // Their bytes may be those of an older protocol or zstd: that makes them no worse.
    for (target, name) in seeds.keys() {
        let is_there = corpus().join(target).join(name).exists();
        assert!(
            is_there,
            "{target}/{name} is missing: write the corpus with DRIFTLESS_WRITE_CORPUS=1"
        );
    }
    for (target, _) in targets::TARGETS {
        assert!(seeds.keys().any(|(of, _)| of == target), "{target} has no corpus");
    }
}

fn run(target: &str, function: fn(&[u8]), bytes: &[u8], what: &str) {
    let began = Instant::now();
    let outcome = std::panic::catch_unwind(|| function(bytes));
    let took = began.elapsed();
    if outcome.is_err() || took > INPUT_MAX {
        let path = std::env::temp_dir().join(format!("driftless-fuzz-{target}-{}", std::process::id()));
        fs::write(&path, bytes).unwrap();
        panic!(
            "{target}, {what}: failed after {took:?}; the input is {}",
            path.display()
        );
    }
}

/// Changes an input here and there, or puts two together.
fn mutate(random: &mut Random, from: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = from[random.below(from.len())].clone();
    for _ in 0..=random.below(6) {
        let at = random.below(bytes.len() + 1);
        let end = (at + random.below(24)).min(bytes.len());
        match random.below(7) {
            0 => bytes
                .iter_mut()
                .skip(at)
                .take(1)
                .for_each(|byte| *byte = random.next() as u8),
            1 => bytes
                .iter_mut()
                .skip(at)
                .take(1)
                .for_each(|byte| *byte ^= 1 << random.below(8)),
            2 => drop(bytes.drain(at..end)),
            3 => {
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
            // Edges of numbers, and their markers.
            4 => {
                let edge = [0, 1, 0x7f, 0x80, 0xfa, 0xfb, 0xfc, 0xfd, 0xfe, 0xff][random.below(10)];
                let count = 1 + random.below(8);
                bytes.splice(at..at, vec![edge; count]);
            }
            5 => bytes.truncate(at),
            _ => {
                let other = &from[random.below(from.len())];
                let start = random.below(other.len() + 1);
                bytes.truncate(at);
                bytes.extend_from_slice(&other[start..]);
            }
        }
    }
    bytes.truncate(256 << 10);
    bytes
}

#[test]
fn s23_no_input_makes_a_target_panic_or_hang() {
    let number = |name: &str, default| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let (rounds, seed) = (
        number("DRIFTLESS_FUZZ_ROUNDS", 3000),
        number("DRIFTLESS_SEED", 23),
    );
    for (target, function) in targets::TARGETS {
        let mut inputs = Vec::new();
        for entry in fs::read_dir(corpus().join(target)).unwrap() {
            let path = entry.unwrap().path();
            let bytes = fs::read(&path).unwrap();
            run(target, *function, &bytes, &path.display().to_string());
            inputs.push(bytes);
        }
        // In the order of their names, or a seed would not say everything.
        inputs.sort();
        let mut random = Random(seed);
        let began = Instant::now();
        let mut round = 0;
        // A slow machine does fewer.
        while round < rounds && (rounds > 3000 || began.elapsed() < Duration::from_secs(6)) {
            let bytes = mutate(&mut random, &inputs);
            run(target, *function, &bytes, &format!("seed {seed}, round {round}"));
            round += 1;
        }
        eprintln!(
            "{target}: {} inputs, {round} mutations, {:?}",
            inputs.len(),
            began.elapsed()
        );
    }
}
