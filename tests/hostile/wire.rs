//! Frames and streams that lie about themselves.

use super::bench::*;

/// Each must end the connection as a violation, and leave nothing behind.
#[test]
fn x03_x04_frames_and_streams_that_lie() {
    type Lie = (&'static str, fn(&mut Peer) -> Option<Packed>);
    let bench = Bench::new();
    let lies: &[Lie] = &[
        ("op frame over its limit", |peer| {
            let mut ops = peer.op_stream();
            ops.send_bytes(&(OP_FRAME_BYTES_MAX as u32 + 1).to_be_bytes());
            Some(ops)
        }),
        ("control frame of 4 GB", |peer| {
            peer.control.send_bytes(&u32::MAX.to_be_bytes());
            None
        }),
        ("bulk frame over its limit", |peer| {
            let length = (BULK_FRAME_BYTES_MAX as u32 + 1).to_be_bytes();
            Some(peer.stream(&[&[2, 0], &length[..]].concat(), 20))
        }),
        ("bomb of 300 MB of zeros inside frames", |peer| {
            let mut ops = peer.op_stream();
            let mut bytes = (OP_FRAME_BYTES_MAX as u32).to_be_bytes().to_vec();
            bytes.resize(300_000_000, 0);
            ops.send_bytes(&bytes);
            Some(ops)
        }),
        ("window of 2^27", |peer| {
            let mut ops = peer.stream(&[1, 0], 27);
            ops.send_message(&encode(&frame_of(1, OpBody::Mark { sequence: 1 })).unwrap());
            Some(ops)
        }),
        ("garbage in place of zstd", |peer| {
            Some(peer.stream(&[&[1, 0], &[0xa5; 64][..]].concat(), 20))
        }),
        ("garbage in a frame", |peer| {
            let mut ops = peer.op_stream();
            ops.send_message(&[0xff; 64]);
            Some(ops)
        }),
        ("empty frame", |peer| {
            let mut ops = peer.op_stream();
            ops.send_message(&[]);
            Some(ops)
        }),
        ("count of messages over its limit", |peer| {
            let mut ops = peer.op_stream();
            ops.send_message(&[0xfd, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]);
            Some(ops)
        }),
        ("bytes left over", |peer| {
            let mut ops = peer.op_stream();
            let mut message = encode(&frame_of(1, OpBody::Mark { sequence: 1 })).unwrap();
            message.push(0);
            ops.send_message(&message);
            Some(ops)
        }),
        ("garbage on a bulk stream", |peer| {
            Some(peer.stream(&[&[2, 0, 0, 0, 0, 9], &[0xff; 9][..]].concat(), 20))
        }),
        ("unknown kind of stream", |peer| Some(peer.stream(&[9], 20))),
        ("op stream that ends inside a frame", |peer| {
            let mut ops = peer.op_stream();
            ops.send_bytes(&[0, 0, 1]);
            ops.finish();
            None
        }),
        ("bulk stream that ends inside a frame", |peer| {
            peer.stream(&[2, 0, 0, 0, 1, 0, 7], 20).finish();
            None
        }),
        ("op stream that is reset", |peer| {
            let mut ops = peer.op_stream();
            peer.send_ops(&mut ops, 1, [OpBody::Mark { sequence: 1 }]);
            peer.wait_applied(1);
            ops.reset();
            None
        }),
        ("second opening", |peer| {
            peer.send(&ToReceiver::Open(opening(b"dst", MIRROR)));
            None
        }),
    ];
    for (what, lie) in lies {
        let mut peer = bench.open();
        let held = lie(&mut peer);
        let (code, text) = peer.closed();
        assert_eq!(code, CloseCode::Violation, "{what}: {text}");
        assert!(!text.is_empty(), "{what}");
        drop(held);
    }
    bench.check_empty();
    bench.check();
}
