//! Sessions that are used for what they are not for.

use super::bench::*;

#[test]
fn verify_changes_nothing() {
    let bench = Bench::new();
    fs::write(bench.dst("f"), "f").unwrap();
    let before = tree(&bench.pair.dst());
    for (number, body) in every_position(&place(1, "f"))
        .into_iter()
        .chain([OpBody::Mark { sequence: 1 }])
        .enumerate()
    {
        let verify = Open {
            purpose: Purpose::Verify,
            ..opening(b"dst", MIRROR + number as u128)
        };
        let (mut peer, opened) = bench.try_open(&verify).unwrap();
        assert!(!opened.bound, "a verification bound the module");
        let mut ops = peer.op_stream();
        peer.send_ops(&mut ops, 1, [body]);
        let (code, text) = peer.closed();
        assert_eq!(code, CloseCode::Violation, "{text}");
    }
    let path = RelPath::parse(b"no/such").unwrap();
    let missing = Open {
        purpose: Purpose::Verify,
        path,
        ..opening(b"dst", MIRROR)
    };
    assert_eq!(bench.try_open(&missing).err().unwrap().0, CloseCode::Unable);
    let (peer, opened) = bench.try_open(&opening(b"dst", MIRROR)).unwrap();
    assert!(!opened.bound && opened.cursor.is_none());
    peer.leave();
    assert_eq!(tree(&bench.pair.dst()), before);
    bench.check();
}

#[test]
fn a_second_mirror_is_told_who_has_the_module() {
    let bench = Bench::new();
    bench.open().leave();
    let other = Open {
        source: "another tree of the same peer".into(),
        ..opening(b"dst", MIRROR + 1)
    };
    let (code, text) = bench.try_open(&other).err().unwrap();
    assert_eq!(code, CloseCode::Busy);
    let owner = bench.pair.sender.fingerprint().to_string();
    assert!(
        text.contains("the peer of the tests") && text.contains(&owner),
        "{text}"
    );
    bench.open().leave();
    bench.check();
}

#[test]
fn a_flush_ahead_of_its_op_is_remembered() {
    let bench = Bench::new();
    let mut peer = bench.open();
    peer.send(&ToReceiver::Flush { number: 3 });
    peer.send(&ToReceiver::Flush { number: u64::MAX });
    peer.send(&ToReceiver::Flush { number: 1 });
    let mut ops = peer.op_stream();
    peer.send_ops(
        &mut ops,
        1,
        [
            inline(place(1, "a"), 10, "a"),
            directory(place(1, "d"), 11),
            set(11, 0o700),
        ],
    );
    peer.wait("durable", |peer| peer.durable >= 3);
    peer.leave();
    bench.check();
}
