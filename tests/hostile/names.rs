//! Names that are none, or not for a peer to use.

use super::bench::*;

#[test]
fn s01_odd_names_end_the_connection_wherever_they_stand() {
    let bench = Bench::new();
    let long = [b'n'; 256];
    let canary = bench.pair.path("canary/x");
    let names: [&[u8]; 11] = [
        b"../x",
        b"..",
        b".",
        b"",
        b"a/b",
        b"/",
        b"x/",
        b"../canary/secret",
        b"a\0b",
        &long,
        canary.as_os_str().as_bytes(),
    ];
    let violated = |peer: &Peer, what: &str| {
        let (code, text) = peer.closed();
        assert_eq!(code, CloseCode::Violation, "{what}: {text}");
    };
    for name in names {
        let shown = name.escape_ascii().to_string();
        for body in every_position(&place(1, STAND_IN)) {
            let what = format!("{shown} in {body:?}");
            let message = with_name(&encode(&frame_of(1, body)).unwrap(), name);
            let mut peer = bench.open();
            peer.op_stream().send_message(&message);
            violated(&peer, &what);
        }
        let path = RelPath::from_names(vec![Name::new(STAND_IN.as_bytes()).unwrap()]).unwrap();
        let verify = Open {
            purpose: Purpose::Verify,
            ..opening(b"dst", MIRROR)
        };
        let mut peer = bench.try_open(&verify).unwrap().0;
        let asking = ToReceiver::ListDisk(path.clone());
        peer.control
            .send_message(&with_name(&encode(&asking).unwrap(), name));
        violated(&peer, &format!("{shown} in ListDisk"));
        let mut peer =
            Peer::greet(dial(bench.address(), tls(&bench.pair, &bench.pair.sender)).unwrap()).unwrap();
        let open = ToReceiver::Open(Open {
            path,
            ..opening(b"dst", MIRROR)
        });
        peer.control
            .send_message(&with_name(&encode(&open).unwrap(), name));
        violated(&peer, &format!("{shown} in Open"));
    }
    bench.check_empty();
    bench.check();
}

#[test]
fn s01_what_came_before_an_odd_name_stands() {
    let bench = Bench::new();
    let mut peer = bench.open();
    let mut ops = peer.op_stream();
    peer.send_ops(&mut ops, 1, [inline(place(1, "legal"), 10, "legal")]);
    peer.wait_applied(1);
    let good = encode(&OpFrame(vec![
        OpMessage::Op(Op {
            number: 2,
            after: 0,
            barrier: false,
            body: inline(place(1, "beside"), 11, "x"),
            xattrs: Xattrs::default(),
        }),
        OpMessage::Op(Op {
            number: 3,
            after: 0,
            barrier: false,
            body: inline(place(1, STAND_IN), 12, "x"),
            xattrs: Xattrs::default(),
        }),
    ]));
    ops.send_message(&with_name(&good.unwrap(), b".."));
    assert_eq!(peer.closed().0, CloseCode::Violation);
    bench.open().leave();
    let names: Vec<_> = tree(&bench.pair.dst()).into_keys().collect();
    assert_eq!(
        names,
        [b"legal"],
        "nothing of the offending message is carried out"
    );
    bench.check();
}

#[test]
fn reserved_names_are_unsupported_in_every_position() {
    let bench = Bench::new();
    let mut peer = bench.open();
    let mut ops = peer.op_stream();
    let mut next = peer.send_ops(
        &mut ops,
        1,
        [directory(place(1, "d"), 899), inline(place(1, "f"), 900, "f")],
    );
    peer.wait_applied(next - 1);
    let generation = bench.dst(".driftless-generation");
    let (before, inode) = (
        fs::read(&generation).unwrap(),
        fs::metadata(&generation).unwrap().ino(),
    );
    for name in [
        ".driftless-generation",
        ".driftless",
        ".driftless-generation.new",
        ".driftless-0123",
    ] {
        for at in [place(1, name), place(899, name)] {
            let last = peer.send_ops(&mut ops, next, every_position(&at));
            peer.wait_applied(last - 1);
            for number in next..last {
                assert_eq!(
                    peer.failed.get(&number),
                    Some(&FailureKind::Unsupported),
                    "{name}, op {number}"
                );
            }
            next = last;
        }
    }
    assert_eq!(fs::read(&generation).unwrap(), before);
    assert_eq!(fs::metadata(&generation).unwrap().ino(), inode);
    peer.leave();
    bench.check();
}
