//! Numbers that are not the sender's to give, and things that were not agreed on.

use super::bench::*;

#[test]
fn numbers_that_are_not_the_senders_to_give() {
    let bench = Bench::new();
    fs::write(bench.dst("local"), "local").unwrap();
    let mut peer = bench.open();
    let mut ops = peer.op_stream();
    let next = peer.send_ops(
        &mut ops,
        1,
        [
            directory(place(1, "d"), 10),
            inline(place(10, "f"), 11, "f"),
            inline(place(1, "g"), 12, "g"),
        ],
    );
    peer.wait_applied(next - 1);
    let (local, root) = (1 << 63, ObjectId::ROOT);
    let bad = vec![
        directory(place(1, "n"), local + 5),
        inline(place(1, "n"), local + 5, "n"),
        offer(place(1, "n"), local + 5, 9, None),
        link(place(1, "n"), local + 5, "n"),
        OpBody::Adopt {
            place: place(1, "g"),
            object: ObjectId(local + 5),
            assumed: false,
        },
        inline(place(1, "n"), 1, "n"),
        link(place(1, "n"), 1, "n"),
        inline(place(1, "n"), 0, "n"),
        OpBody::Move {
            object: root,
            to: place(10, "n"),
        },
        OpBody::Remove {
            object: root,
            place: place(0, "root"),
        },
        OpBody::Release {
            object: root,
            place: place(0, "root"),
        },
        OpBody::Adopt {
            place: place(0, "root"),
            object: ObjectId(13),
            assumed: false,
        },
        inline(place(0, "root"), 14, "n"),
        // Taken by another kind; a directory must not vanish for a file.
        inline(place(1, "n"), 10, "n"),
        link(place(1, "n"), 10, "n"),
        directory(place(1, "n"), 12),
        // No such directory.
        inline(place(99, "n"), 15, "n"),
        directory(place(11, "n"), 16),
    ];
    let last = peer.send_ops(&mut ops, next, bad);
    peer.wait_applied(last - 1);
    for number in next..last {
        assert_eq!(
            peer.failed.get(&number),
            Some(&FailureKind::Mismatch),
            "op {number}"
        );
    }
    // A directory into itself is refused by the kernel.
    let end = peer.send_ops(
        &mut ops,
        last,
        [OpBody::Move {
            object: ObjectId(10),
            to: place(10, "n"),
        }],
    );
    peer.wait_applied(end - 1);
    assert!(peer.failed.contains_key(&last));
    peer.leave();
    let names: Vec<_> = tree(&bench.pair.dst()).into_keys().collect();
    assert_eq!(names, [&b"d"[..], b"d/f", b"g", b"local"]);
    bench.check();
}

#[test]
fn numbers_of_ops_that_break_the_rules() {
    let bench = Bench::new();
    let op = |number, after| Op {
        number,
        after,
        barrier: false,
        body: directory(place(1, "d"), 10),
        xattrs: Xattrs::default(),
    };
    let window = OPS_IN_FLIGHT_MAX as u64;
    for ops in [
        vec![op(0, 0)],
        vec![op(u64::MAX, 0)],
        vec![op(window + 1, 0)],
        vec![op(2, 2)],
        vec![op(2, 3)],
        vec![op(5, 0), op(5, 0)],
    ] {
        let what = format!("{ops:?}");
        let mut peer = bench.open();
        let mut stream = peer.op_stream();
        stream.send_message(&encode(&OpFrame(ops.into_iter().map(OpMessage::Op).collect())).unwrap());
        assert_eq!(peer.closed().0, CloseCode::Violation, "{what}");
    }
    let mut peer = bench.open();
    let mut stream = peer.op_stream();
    peer.send_ops(&mut stream, 1, [OpBody::Mark { sequence: 1 }]);
    peer.wait_applied(1);
    peer.send_ops(&mut stream, 1, [OpBody::Mark { sequence: 1 }]);
    assert_eq!(peer.closed().0, CloseCode::Violation, "used again after it ended");
    bench.check();
}

/// S-19: what was not agreed on is neither made nor set, whatever a sender sends.
#[test]
fn s19_devices_and_attributes_that_were_not_agreed_on_are_refused() {
    let bench = Bench::new();
    let mut peer = bench.open();
    let mut ops = peer.op_stream();
    let next = peer.send_ops(&mut ops, 1, [inline(place(1, "f"), 50, "x")]);
    let null = Special::CharDevice { major: 1, minor: 3 };
    let disk = Special::BlockDevice { major: 8, minor: 0 };
    let next = peer.send_ops(
        &mut ops,
        next,
        [
            special(place(1, "null"), 51, null),
            special(place(1, "disk"), 52, disk),
        ],
    );
    let names = [
        "user.a",
        "trusted.a",
        "security.capability",
        "security.a",
        "system.posix_acl_access",
        "odd",
    ];
    for (number, name) in (next..).zip(names) {
        let xattrs = Xattrs::new(vec![Xattr {
            name: name.into(),
            value: b"1".to_vec(),
        }])
        .unwrap();
        let body = OpBody::SetAttributes {
            object: ObjectId(50),
            attributes: Attributes {
                xattrs: xattrs.digest(),
                ..attributes(0o600)
            },
        };
        let op = Op {
            number,
            after: 0,
            barrier: true,
            body,
            xattrs,
        };
        ops.send_message(&encode(&OpFrame(vec![OpMessage::Op(op)])).unwrap());
    }
    let last = next + names.len() as u64;
    // Attributes that are promised and do not come.
    let promised = OpBody::SetAttributes {
        object: ObjectId(50),
        attributes: Attributes {
            xattrs: Some(Digest::of(b"never sent")),
            ..attributes(0o600)
        },
    };
    peer.send_ops(&mut ops, last, [promised]);
    peer.wait_applied(last);
    for number in 2..last {
        assert_eq!(
            peer.failed.get(&number),
            Some(&FailureKind::Unsupported),
            "op {number}"
        );
    }
    assert_eq!(peer.failed.get(&last), Some(&FailureKind::WrongDigest));
    let file = bench.dst("f");
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o644);
    assert_eq!(rustix::fs::llistxattr(&file, &mut [0; 100][..]), Ok(0));
    assert!(!bench.dst("null").exists() && !bench.dst("disk").exists());
    peer.leave();
    bench.check();
}
