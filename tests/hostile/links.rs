//! Symbolic and hard links, sent, planted and pointed at: nothing is ever followed.

use super::bench::*;

#[test]
fn s02_a_link_is_no_directory() {
    let bench = Bench::new();
    let mut peer = bench.open();
    let mut ops = peer.op_stream();
    let next = peer.send_ops(
        &mut ops,
        1,
        [
            link(place(1, "l"), 10, "../canary"),
            inline(place(1, "f"), 11, "f"),
            directory(place(1, "d"), 12),
        ],
    );
    peer.wait_applied(next - 1);
    let through = [
        directory(place(10, "new"), 20),
        inline(place(10, "secret"), 21, "x"),
        offer(place(10, "secret"), 22, 5, None),
        link(place(10, "secret"), 23, "x"),
        OpBody::Move {
            object: ObjectId(11),
            to: place(10, "secret"),
        },
        OpBody::Move {
            object: ObjectId(12),
            to: place(10, "e"),
        },
        OpBody::Adopt {
            place: place(10, "secret"),
            object: ObjectId(24),
            assumed: false,
        },
    ];
    let last = peer.send_ops(&mut ops, next, through);
    peer.wait_applied(last - 1);
    for number in next..last {
        assert_eq!(
            peer.failed.get(&number),
            Some(&FailureKind::Mismatch),
            "op {number}"
        );
    }
    // These change nothing and so may succeed: what they name is not there.
    let last = peer.send_ops(
        &mut ops,
        last,
        [
            remove(place(10, "secret"), 25),
            OpBody::Release {
                object: ObjectId(26),
                place: place(10, "d"),
            },
        ],
    );
    peer.wait_applied(last - 1);
    peer.leave();
    assert_eq!(fs::read_link(bench.dst("l")).unwrap().to_str(), Some("../canary"));
    bench.check();
}

#[test]
fn s02_a_listing_follows_no_link() {
    let bench = Bench::new();
    let mut peer = bench.open();
    let mut ops = peer.op_stream();
    peer.send_ops(&mut ops, 1, [link(place(1, "l"), 10, "../canary")]);
    peer.wait_applied(1);
    peer.leave();
    let verify = Open {
        purpose: Purpose::Verify,
        ..opening(b"dst", MIRROR)
    };
    let (mut peer, _) = bench.try_open(&verify).unwrap();
    for path in ["l", "l/d"] {
        peer.send(&ToReceiver::ListDisk(RelPath::parse(path.as_bytes()).unwrap()));
        loop {
            match peer.next() {
                Some(ToSender::ListingFailed(_)) => break,
                Some(ToSender::Listing { rows, .. }) => panic!("{path} was listed: {rows:?}"),
                Some(_) => {}
                None => panic!("{:?}", peer.closed()),
            }
        }
    }
    // Nor does the path of an opening.
    peer.leave();
    for purpose in [Purpose::Mirror, Purpose::Verify] {
        let path = RelPath::parse(b"l/d").unwrap();
        let outcome = bench.try_open(&Open {
            path,
            purpose,
            ..opening(b"dst", MIRROR + 1)
        });
        assert_eq!(outcome.err().map(|closed| closed.0), Some(CloseCode::Unable));
    }
    bench.check();
}

#[test]
fn s02_a_name_that_is_link_and_directory_at_once() {
    let bench = Bench::new();
    let mut peer = bench.open();
    let mut ops = peer.op_stream();
    let last = peer.send_ops(
        &mut ops,
        1,
        [
            link(place(1, "x"), 20, "../canary/d"),
            directory(place(1, "x"), 21),
            inline(place(21, "f"), 22, "x"),
            remove(place(1, "x"), 20),
            directory(place(1, "y"), 30),
            link(place(1, "y"), 31, "../canary/d"),
            inline(place(30, "f"), 32, "x"),
            inline(place(31, "f"), 33, "x"),
        ],
    );
    peer.wait_applied(last - 1);
    assert_eq!(peer.failed.keys().copied().collect::<Vec<_>>(), [8]);
    peer.leave();
    assert!(fs::symlink_metadata(bench.dst("x")).unwrap().is_dir());
    assert_eq!(fs::read_to_string(bench.dst("x/f")).unwrap(), "x");
    assert!(fs::symlink_metadata(bench.dst("y")).unwrap().is_symlink());
    bench.check();
}

#[test]
fn s02_links_that_a_local_user_planted() {
    let mut bench = Bench::new();
    let mut peer = bench.open();
    let mut ops = peer.op_stream();
    let texts = ["leaf", "gone", "attributes", "hard", "hard-attributes", "big"];
    let files = texts
        .iter()
        .zip(50..)
        .map(|(name, object)| inline(place(1, name), object, name));
    let directories = [
        directory(place(1, "d"), 40),
        directory(place(1, "p"), 41),
        directory(place(41, "q"), 42),
        directory(place(1, "live"), 43),
    ];
    let last = peer.send_ops(&mut ops, 1, directories.into_iter().chain(files));
    peer.wait_applied(last - 1);
    peer.leave();
    // So that no handle of before is left; the walk sees everything as it should be.
    bench.restart();
    let mut peer = bench.open();
    let mut ops = peer.op_stream();
    let next = peer.send_ops(&mut ops, 1, [inline(place(43, "f"), 60, "before")]);
    peer.wait_applied(1);
    for (name, target) in [("d", "canary/d"), ("p", "canary"), ("live", "canary/d")] {
        fs::rename(bench.dst(name), bench.dst(&format!("{name}-away"))).unwrap();
        symlink(bench.pair.path(target), bench.dst(name)).unwrap();
    }
    for name in ["leaf", "gone", "attributes", "big"] {
        fs::remove_file(bench.dst(name)).unwrap();
        symlink(bench.pair.path("canary/secret"), bench.dst(name)).unwrap();
    }
    fs::remove_file(bench.dst("hard")).unwrap();
    fs::hard_link(bench.pair.path("canary/secret"), bench.dst("hard")).unwrap();
    let last = peer.send_ops(
        &mut ops,
        next,
        [
            inline(place(40, "f"), 70, "x"),
            directory(place(40, "n"), 71),
            inline(place(42, "f"), 72, "x"),
            remove(place(42, "f"), 73),
            set(40, 0o777),
            inline(place(43, "f"), 60, "after"),
            inline(place(1, "leaf"), 50, "new leaf"),
            remove(place(1, "gone"), 51),
            set(52, 0o777),
            inline(place(1, "hard"), 53, "new hard"),
            offer(place(1, "big"), 55, 3_000_000, None),
        ],
    );
    peer.wait("the offer", |peer| !peer.needs.is_empty());
    assert!(!peer.needs[0].1, "the signature of a file outside was offered");
    ops.send_message(&encode(&OpFrame(vec![OpMessage::Withdraw { number: last - 1 }])).unwrap());
    peer.wait_applied(last - 1);
    bench.check_canary();
    for number in [2, 3, 4] {
        assert_eq!(
            peer.failed.get(&number),
            Some(&FailureKind::Mismatch),
            "op {number}: {:?}",
            peer.failed
        );
    }
    for (name, text) in [("leaf", "new leaf"), ("hard", "new hard")] {
        assert!(fs::symlink_metadata(bench.dst(name)).unwrap().is_file());
        assert_eq!(fs::read_to_string(bench.dst(name)).unwrap(), text);
    }
    assert!(fs::symlink_metadata(bench.dst("gone")).is_err());
    peer.leave();
    bench.restart();
    bench.check();
}

#[test]
fn s02_attributes_never_reach_a_hard_link_from_outside() {
    let bench = Bench::new();
    let mut peer = bench.open();
    let mut ops = peer.op_stream();
    let next = peer.send_ops(&mut ops, 1, [inline(place(1, "hard"), 50, "x")]);
    peer.wait_applied(1);
    fs::remove_file(bench.dst("hard")).unwrap();
    fs::hard_link(bench.pair.path("canary/secret"), bench.dst("hard")).unwrap();
    let last = peer.send_ops(&mut ops, next, [set(50, 0o666)]);
    peer.wait_applied(last - 1);
    assert_eq!(peer.failed.get(&2), Some(&FailureKind::Mismatch));
    bench.check();
}

/// A second name is given to what the sender put there, and to nothing else.
#[test]
fn s02_links_lead_to_what_the_sender_knows() {
    let bench = Bench::new();
    fs::write(bench.dst("local"), "x").unwrap();
    let mut peer = bench.open();
    let mut ops = peer.op_stream();
    let in_group = |body: OpBody| match body {
        OpBody::PutFile {
            place,
            object,
            content,
            ..
        } => OpBody::PutFile {
            place,
            object,
            attributes: Attributes {
                link_group: ObjectId(77),
                ..attributes(0o644)
            },
            content,
        },
        other => other,
    };
    let next = peer.send_ops(
        &mut ops,
        1,
        [
            in_group(inline(place(1, "f"), 50, "x")),
            in_group(inline(place(1, "g"), 51, "y")),
            inline(place(1, "h"), 52, "x"),
            directory(place(1, "d"), 53),
            hard_link(place(53, "good"), 60, 50),
        ],
    );
    peer.wait_applied(next - 1);
    assert!(peer.failed.is_empty(), "{:?}", peer.failed);
    // Somebody puts a link to a file from outside in the place of one.
    fs::remove_file(bench.dst("f")).unwrap();
    fs::hard_link(bench.pair.path("canary/secret"), bench.dst("f")).unwrap();
    let bad = [
        hard_link(place(1, "n"), 61, 50),      // not what was put there
        hard_link(place(1, "n"), 61, 51),      // of another content
        hard_link(place(1, "n"), 61, 52),      // of no group
        hard_link(place(1, "n"), 61, 53),      // a directory
        hard_link(place(1, "n"), 61, 61),      // itself
        hard_link(place(1, "n"), 61, 99),      // nothing
        hard_link(place(1, "n"), 61, 1 << 63), // found here, of no group
        hard_link(place(1, "d"), 53, 60),      // a number that a directory has
        hard_link(place(1, "n"), 1, 60),
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
    assert!(!bench.dst("n").exists() && bench.dst("d").is_dir());
    assert_eq!(fs::read(bench.dst("d/good")).unwrap(), b"x");
    peer.leave();
    bench.check();
}
