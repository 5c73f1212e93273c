//! Contents that do not add up: copies, patches, ranges, seals.

use super::bench::*;

/// Only what the mirror itself put there under that number, with that content, is copied.
#[test]
fn copies_of_what_is_not_there_as_told_fail() {
    let bench = Bench::new();
    fs::write(bench.dst("local"), "of another").unwrap();
    let mut peer = bench.open();
    let mut ops = peer.op_stream();
    let text = "x".repeat(1_000);
    let mut next = peer.send_ops(&mut ops, 1, [inline(place(1, "known"), 2, &text)]);
    peer.wait_applied(1);
    let (right, secret) = (Digest::of(text.as_bytes()), Digest::of(b"of another"));
    for (digest, size, from, works) in [
        (right, 1_000, 2, true),
        (right, 999, 2, false),
        (Digest::of(b"other"), 1_000, 2, false),
        (right, 1_000, 99, false),
        (right, 0, 1, false),
        (secret, 10, 1 << 63, false),
    ] {
        let name = format!("copy{next}");
        let from = ObjectId(from);
        let body = OpBody::PutFile {
            place: place(1, &name),
            object: ObjectId(10 + next),
            attributes: attributes(0o644),
            content: Content::Copy { size, digest, from },
        };
        let number = next;
        next = peer.send_ops(&mut ops, next, [body]);
        peer.wait_applied(number);
        let kind = peer.failed.get(&number).copied();
        assert_eq!(kind, (!works).then_some(FailureKind::Basis), "{size} of {from:?}");
        assert_eq!(bench.dst(&name).exists(), works);
    }
    peer.leave();
}

#[test]
fn patches_that_do_not_fit_never_replace_a_file() {
    let bench = Bench::new();
    let old = "the old content ".repeat(10_000);
    let mut peer = bench.open();
    let mut ops = peer.op_stream();
    let mut next = peer.send_ops(&mut ops, 1, [inline(place(1, "f"), 10, &old)]);
    peer.wait_applied(next - 1);
    let size = old.len() as u64;
    let zstd = |bytes: &[u8]| zstd::bulk::compress(bytes, 1).unwrap();
    let all = || DeltaPart::Copy {
        offset: 0,
        length: size as u32,
    };
    let past = DeltaPart::Copy {
        offset: 1,
        length: size as u32,
    };
    let literal = |length| DeltaPart::Literal { length };
    let (right, wrong) = (Digest::of(old.as_bytes()), Digest::of(b"something else"));
    let bomb = zstd(&vec![0; 8 << 20]);
    let (basis, broken) = (FailureKind::Basis, FailureKind::WrongDigest);
    for (what, object, size, digest, from, parts, literals, kind) in [
        (
            "another basis",
            10,
            size,
            right,
            wrong,
            vec![all()],
            vec![],
            basis,
        ),
        (
            "another object",
            11,
            size,
            right,
            right,
            vec![all()],
            vec![],
            basis,
        ),
        (
            "a copy past the end",
            10,
            size,
            right,
            right,
            vec![past],
            vec![],
            broken,
        ),
        (
            "parts that fall short",
            10,
            size + 1,
            right,
            right,
            vec![all()],
            vec![],
            broken,
        ),
        (
            "literals that lack",
            10,
            size + 1,
            right,
            right,
            vec![all(), literal(1)],
            vec![],
            broken,
        ),
        (
            "literals left over",
            10,
            size,
            right,
            right,
            vec![all()],
            zstd(b"x"),
            broken,
        ),
        (
            "no zstd frame",
            10,
            4,
            right,
            right,
            vec![literal(4)],
            b"xxxx".to_vec(),
            broken,
        ),
        (
            "a bomb",
            10,
            8 << 20,
            right,
            right,
            vec![literal(8 << 20)],
            bomb,
            broken,
        ),
        (
            "another digest",
            10,
            1,
            wrong,
            right,
            vec![literal(1)],
            zstd(b"x"),
            broken,
        ),
    ] {
        let content = Content::Patch {
            size,
            digest,
            basis: from,
            parts: DeltaParts(parts),
            literals: PatchLiterals(literals),
        };
        let body = OpBody::PutFile {
            place: place(1, "f"),
            object: ObjectId(object),
            attributes: attributes(0o644),
            content,
        };
        next = peer.send_ops(&mut ops, next, [body]);
        let number = next - 1;
        peer.wait(what, |peer| peer.failed.contains_key(&number));
        assert_eq!(peer.failed[&number], kind, "{what}");
        assert_eq!(
            fs::read(bench.pair.dst().join("f")).unwrap(),
            old.as_bytes(),
            "{what}"
        );
    }
    peer.leave();
    bench.check();
}

#[test]
fn contents_that_do_not_add_up_never_replace_a_file() {
    let bench = Bench::new();
    let old = "the old content ".repeat(10_000);
    let mut peer = bench.open();
    let mut ops = peer.op_stream();
    let mut next = peer.send_ops(&mut ops, 1, [inline(place(1, "f"), 10, &old)]);
    peer.wait_applied(next - 1);
    let new = vec![b'n'; 100_000];
    let zstd = |bytes: &[u8]| RangeBytes(zstd::bulk::compress(bytes, 1).unwrap());
    let raw = |range: std::ops::Range<usize>| {
        (
            range.start as u64,
            range.len() as u32,
            RangeBody::Raw(RangeBytes(new[range].to_vec())),
        )
    };
    let delta = |length: u32, parts: Vec<DeltaPart>, literals: RangeBytes| {
        vec![(
            0,
            length,
            RangeBody::Delta {
                parts: DeltaParts(parts),
                literals,
            },
        )]
    };
    let (size, basis) = (new.len() as u32, old.len() as u64);
    type Ranges = Vec<(u64, u32, RangeBody)>;
    let cases: Vec<(&str, Ranges)> = vec![
        ("overlap", vec![raw(0..60_000), raw(50_000..100_000)]),
        ("twice", vec![raw(0..60_000), raw(0..60_000)]),
        (
            "other length",
            vec![(0, size, RangeBody::Raw(RangeBytes(vec![0; 99_999])))],
        ),
        (
            "other length packed",
            vec![(0, size, RangeBody::Zstd(zstd(&new[1..])))],
        ),
        (
            "bomb",
            vec![(0, size, RangeBody::Zstd(zstd(&vec![0; 300_000_000])))],
        ),
        (
            "garbage",
            vec![(0, size, RangeBody::Zstd(RangeBytes(vec![7; 100])))],
        ),
        ("wrong bytes", vec![(0, size, RangeBody::Zeros)]),
        ("bytes that are not held", vec![(0, size, RangeBody::Held)]),
        (
            "copy past the basis",
            delta(
                size,
                vec![DeltaPart::Copy {
                    offset: basis - 5,
                    length: size,
                }],
                RangeBytes(vec![]),
            ),
        ),
        (
            "copy that overflows",
            delta(
                size,
                vec![DeltaPart::Copy {
                    offset: u64::MAX,
                    length: size,
                }],
                RangeBytes(vec![]),
            ),
        ),
        (
            "parts too short",
            delta(
                size,
                vec![DeltaPart::Copy { offset: 0, length: 5 }],
                RangeBytes(vec![]),
            ),
        ),
        (
            "literals missing",
            delta(size, vec![DeltaPart::Literal { length: size }], zstd(b"few")),
        ),
        (
            "literals left over",
            delta(5, vec![DeltaPart::Copy { offset: 0, length: 5 }], zstd(b"more")),
        ),
        (
            "delta with wrong result",
            delta(
                size,
                vec![DeltaPart::Copy {
                    offset: 0,
                    length: size,
                }],
                RangeBytes(vec![]),
            ),
        ),
    ];
    for (what, ranges) in cases {
        let number = next;
        next = peer.send_ops(
            &mut ops,
            number,
            [offer(place(1, "f"), 10, u64::from(size), Some(Digest::of(&new)))],
        );
        peer.wait(what, |peer| peer.needs.iter().any(|need| need.0 == number));
        let ranges: Vec<_> = ranges
            .into_iter()
            .map(|(offset, length, body)| BulkFrame {
                number,
                offset,
                length,
                body,
            })
            .collect();
        let (digest, attributes) = (Digest::of(&new), attributes(0o644));
        peer.seal(
            &mut ops,
            SealOp {
                number,
                size: u64::from(size),
                digest,
                attributes,
            },
        );
        peer.send_ranges(&ranges);
        peer.wait_applied(number);
        assert_eq!(
            peer.failed.get(&number),
            Some(&FailureKind::WrongDigest),
            "{what}"
        );
        assert_eq!(fs::read_to_string(bench.dst("f")).unwrap(), old, "{what}");
    }
    // Past the end of the sealed size: never complete, so never published; the sender may withdraw.
    let number = next;
    next = peer.send_ops(&mut ops, number, [offer(place(1, "f"), 10, 5, None)]);
    peer.wait("past the end", |peer| {
        peer.needs.iter().any(|need| need.0 == number)
    });
    peer.seal(
        &mut ops,
        SealOp {
            number,
            size: 5,
            digest: Digest::of(&new[..5]),
            attributes: attributes(0o644),
        },
    );
    let (offset, length, body) = raw(0..100);
    let past = BulkFrame {
        number,
        offset,
        length,
        body,
    };
    // An honest one behind it on the same stream: when that is there, the lie was taken.
    let honest = next;
    next = peer.send_ops(&mut ops, honest, [offer(place(1, "g"), 11, 5, None)]);
    peer.wait("the honest one", |peer| {
        peer.needs.iter().any(|need| need.0 == honest)
    });
    let (offset, length, body) = raw(0..5);
    let good = BulkFrame {
        number: honest,
        offset,
        length,
        body,
    };
    peer.seal(
        &mut ops,
        SealOp {
            number: honest,
            size: 5,
            digest: Digest::of(&new[..5]),
            attributes: attributes(0o644),
        },
    );
    peer.send_ranges(&[past, good]);
    crate::support::until("the honest file", || bench.dst("g").exists());
    ops.send_message(&encode(&OpFrame(vec![OpMessage::Withdraw { number }])).unwrap());
    peer.wait_applied(honest);
    assert_eq!(fs::read_to_string(bench.dst("f")).unwrap(), old);
    // An inline content with another digest.
    let content = Content::Inline {
        digest: Digest::of(b"y"),
        bytes: InlineContent(b"x".to_vec()),
    };
    let lie = OpBody::PutFile {
        place: place(1, "f"),
        object: ObjectId(10),
        attributes: attributes(0o644),
        content,
    };
    let last = peer.send_ops(&mut ops, next, [lie]);
    peer.wait_applied(last - 1);
    assert_eq!(peer.failed.get(&(last - 1)), Some(&FailureKind::WrongDigest));
    // Ranges, seals and withdrawals of what has ended or never was are ignored.
    let digest = Digest::of(b"");
    for number in [1, 5_000] {
        peer.seal(
            &mut ops,
            SealOp {
                number,
                size: 0,
                digest,
                attributes: attributes(0),
            },
        );
        ops.send_message(&encode(&OpFrame(vec![OpMessage::Withdraw { number }])).unwrap());
        peer.send_ranges(&[BulkFrame {
            number,
            offset: 0,
            length: 1,
            body: RangeBody::Zeros,
        }]);
    }
    let end = peer.send_ops(&mut ops, last, [inline(place(1, "h"), 12, "h")]);
    peer.wait_applied(end - 1);
    assert_eq!(fs::read_to_string(bench.dst("f")).unwrap(), old);
    peer.leave();
    crate::support::assert_no_leftovers(&bench.pair.dst());
    bench.check();
}

#[test]
fn files_are_wanted_within_the_limit() {
    let bench = Bench::new();
    let mut peer = bench.open();
    let mut ops = peer.op_stream();
    let count = 3 * WANTED_FILES_MAX as u64;
    let bodies = (0..count).map(|n| offer(place(1, &format!("f{n}")), 100 + n, 10, None));
    let frame = bodies.zip(1..).map(|(body, number)| {
        OpMessage::Op(Op {
            number,
            after: 0,
            barrier: false,
            body,
            xattrs: Xattrs::default(),
        })
    });
    ops.send_message(&encode(&OpFrame(frame.collect())).unwrap());
    peer.wait("some needs", |peer| peer.needs.len() >= 20);
    while let Ok(message) = peer.incoming.recv_timeout(Duration::from_millis(300)) {
        if let ToSender::Need { number, basis } = message {
            peer.needs.push((number, basis));
        }
    }
    assert!(
        peer.needs.len() <= WANTED_FILES_MAX,
        "{} wanted at a time",
        peer.needs.len()
    );
    // Those that are withdrawn make room for the others.
    let mut answered = 0;
    while answered < count as usize {
        peer.wait("more needs", |peer| peer.needs.len() > answered);
        let withdrawn = peer.needs[answered..]
            .iter()
            .map(|&(number, _)| OpMessage::Withdraw { number })
            .collect::<Vec<_>>();
        answered = peer.needs.len();
        ops.send_message(&encode(&OpFrame(withdrawn)).unwrap());
    }
    peer.wait_applied(count);
    peer.leave();
    bench.check_empty();
    bench.check();
}

#[test]
fn withdrawing_what_was_never_offered_does_not_stop_the_session() {
    let bench = Bench::new();
    let mut peer = bench.open();
    let mut ops = peer.op_stream();
    let body = inline(place(1, "f"), 10, &"x".repeat(200_000));
    let op = OpMessage::Op(Op {
        number: 1,
        after: 0,
        barrier: false,
        body,
        xattrs: Xattrs::default(),
    });
    ops.send_message(&encode(&OpFrame(vec![op])).unwrap());
    ops.send_message(&encode(&OpFrame(vec![OpMessage::Withdraw { number: 1 }])).unwrap());
    peer.send_ops(&mut ops, 2, [inline(place(1, "g"), 11, "g")]);
    peer.wait_applied(2);
    assert!(bench.dst("f").exists() && bench.dst("g").exists());
    peer.leave();
    bench.check();
}
