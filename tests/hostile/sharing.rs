//! Several sessions of one connection: what one of them does wrong is its own affair, and what belongs to none ends all.

use super::bench::*;
use crate::support::PATIENCE;
use crossbeam_channel::Receiver;
use driftless_protocol::codec::encode_frame;
use driftless_protocol::stream::{StreamKind, head};

/// Waits for the end of a session.
fn ended(notes: &Receiver<Note>, number: u64) -> (CloseCode, String) {
    loop {
        match notes.recv_timeout(PATIENCE) {
            Ok(Note::Ended { session, code, text }) if session == number => {
                return (CloseCode::from_number(code.into()), text.to_string());
            }
            Ok(_) => {}
            Err(error) => panic!("session {number} does not end: {error}"),
        }
    }
}

fn open(peer: &mut Peer, module: &[u8]) {
    peer.send(&ToReceiver::Open(opening(module, MIRROR)));
    let answer = peer.next();
    assert!(matches!(answer, Some(ToSender::Opened(_))), "{answer:?}");
}

/// The session takes ops and carries them out.
fn check_serves(peer: &mut Peer, ops: &mut Packed, number: u64) {
    let place = place(1, &format!("file {number}"));
    peer.send_ops(ops, number, [inline(place, 100 + number, "content")]);
    peer.wait_applied(number);
}

#[test]
fn what_one_session_does_wrong_ends_it_alone() {
    let bench = Bench::with(|_, options| options.link.hello_timeout = Duration::from_secs(5));
    let mut good = bench.open();
    let notes = good.notes();
    let mut ops = good.op_stream();
    type Lie = (&'static str, CloseCode, fn(&mut Peer) -> Option<Packed>);
    let lies: &[Lie] = &[
        ("garbage in a frame", CloseCode::Violation, |peer| {
            let mut ops = peer.op_stream();
            ops.send_message(&[0xff; 64]);
            Some(ops)
        }),
        ("bulk frame over its limit", CloseCode::Violation, |peer| {
            let mut bytes = head(StreamKind::Bulk, peer.number);
            bytes.extend((BULK_FRAME_BYTES_MAX as u32 + 1).to_be_bytes());
            Some(peer.stream(&bytes, 20))
        }),
        ("op stream that is reset", CloseCode::Violation, |peer| {
            let mut ops = peer.op_stream();
            peer.send_ops(&mut ops, 1, [OpBody::Mark { sequence: 1 }]);
            peer.wait_applied(1);
            ops.reset();
            None
        }),
        ("second opening", CloseCode::Violation, |peer| {
            peer.send(&ToReceiver::Open(opening(b"third", MIRROR)));
            None
        }),
        (
            "more streams than a session may have",
            CloseCode::Violation,
            |peer| {
                let streams: Vec<_> = (0..30).map(|_| peer.op_stream()).collect();
                std::mem::forget(streams);
                None
            },
        ),
    ];
    let mut number = 0;
    for (what, code, lie) in lies {
        let mut bad = good.beside().unwrap();
        open(&mut bad, b"third");
        let held = lie(&mut bad);
        let (told, text) = ended(&notes, bad.number);
        assert_eq!(told, *code, "{what}: {text}");
        assert!(!text.is_empty(), "{what}");
        // What is sent in it after its end disturbs nobody.
        let _late = bad.op_stream();
        number += 1;
        check_serves(&mut good, &mut ops, number);
        drop(held);
        // The module is free again.
        bench.check();
    }
    // Refused, and half-open.
    let mut refused = good.beside().unwrap();
    refused.send(&ToReceiver::Open(opening(b"no such", MIRROR)));
    assert_eq!(ended(&notes, refused.number).0, CloseCode::NoModule);
    let streams = runtime().block_on(async {
        let (mut send, receive) = good.dialled.connection.open_bi().await.unwrap();
        send.write_all(&Hello::OURS.to_bytes()[..7]).await.unwrap();
        (send, receive)
    });
    assert_eq!(ended(&notes, streams.0.id().index()).0, CloseCode::Limit);
    let silent = good.beside().unwrap();
    assert_eq!(ended(&notes, silent.number).0, CloseCode::Limit);
    check_serves(&mut good, &mut ops, number + 1);
    good.leave();
    bench.check();
}

#[test]
fn what_belongs_to_no_session_ends_the_connection() {
    type Lie = (&'static str, fn(&mut Peer) -> Vec<Packed>);
    let bench = Bench::new();
    let lies: &[Lie] = &[
        ("ops of a session that nobody began", |peer| {
            vec![peer.stream(&head(StreamKind::Ops, 2), 20)]
        }),
        ("ranges of a session far away", |peer| {
            vec![peer.stream(&head(StreamKind::Bulk, (1 << 60) - 1), 20)]
        }),
        ("two streams of notes", |peer| {
            vec![peer.stream(&[3], 20), peer.stream(&[3], 20)]
        }),
        ("a note about a session that nobody began", |peer| {
            let note = Note::Window {
                session: 7,
                through: 1,
            };
            let bytes = [&[3], &encode_frame(&note).unwrap()[..]].concat();
            vec![peer.stream(&bytes, 20)]
        }),
        ("the end of a session that cannot have been begun", |peer| {
            let note = Note::Ended {
                session: 1 << 20,
                code: 0,
                text: "".into(),
            };
            let bytes = [&[3], &encode_frame(&note).unwrap()[..]].concat();
            vec![peer.stream(&bytes, 20)]
        }),
        ("a note over its limit", |peer| {
            let length = (NOTE_BYTES_MAX as u32 + 1).to_be_bytes();
            vec![peer.stream(&[&[3], &length[..]].concat(), 20)]
        }),
        ("garbage in a note", |peer| {
            vec![peer.stream(&[3, 0, 0, 0, 2, 0xff, 0xff], 20)]
        }),
        ("notes that break off", |peer| {
            peer.stream(&[3, 0, 0, 0, 2, 0xff], 20).finish();
            Vec::new()
        }),
    ];
    for (what, lie) in lies {
        let mut peer = bench.open();
        let mut other = peer.beside().unwrap();
        open(&mut other, b"third");
        let held = lie(&mut peer);
        let (code, text) = peer.closed();
        assert_eq!(code, CloseCode::Violation, "{what}: {text}");
        assert!(!text.is_empty(), "{what}");
        drop(held);
    }
    bench.check_empty();
    bench.check();
}

/// Sessions count like connections, so one identity has no more of them by having them on one connection.
#[test]
fn sessions_without_end_meet_the_limit_of_their_identity() {
    const TRIED: u64 = 1_500;
    let bench = Bench::with(|_, options| options.link.hello_timeout = Duration::from_secs(300));
    let mut good = bench.open();
    let notes = good.notes();
    let connection = good.dialled.connection.clone();
    let half_open = runtime().block_on(async {
        let mut streams = Vec::new();
        for _ in 0..TRIED {
            let (mut send, receive) = connection.open_bi().await.unwrap();
            send.write_all(&Hello::OURS.to_bytes()[..1]).await.unwrap();
            streams.push((send, receive));
        }
        streams
    });
    // All but those that may be there have been told.
    for _ in 1_024..=TRIED {
        match notes.recv_timeout(PATIENCE) {
            Ok(Note::Ended { code, .. }) => {
                assert_eq!(CloseCode::from_number(code.into()), CloseCode::Limit);
            }
            other => panic!("{other:?}"),
        }
    }
    let mut ops = good.op_stream();
    check_serves(&mut good, &mut ops, 1);
    drop(half_open);
    good.leave();
    let refusals = std::cell::RefCell::new(Vec::new());
    crate::support::until("their places are free again", || {
        match bench.try_open(&opening(b"dst", MIRROR)) {
            Ok((peer, _)) => peer.leave(),
            Err((code, _)) => {
                refusals.borrow_mut().push(code);
                return false;
            }
        }
        true
    });
    assert!(
        refusals.into_inner().iter().all(|code| *code == CloseCode::Limit),
        "who is known is not told that it is not allowed"
    );
    bench.check();
}

#[test]
fn a_further_session_of_a_peer_that_was_removed_ends_all() {
    let bench = Bench::new();
    let identity = Identity::ephemeral().unwrap();
    let mut store = TrustStore::open(&bench.options.home.peers_file()).unwrap();
    store
        .add(Trusted {
            name: "peer".to_owned(),
            fingerprint: identity.fingerprint(),
            modules: vec![Grant::all("dst")],
            added: 1,
            expires: None,
            address: None,
        })
        .unwrap();
    let (peer, _) = Peer::open_as(&bench.pair, &identity, bench.address(), &opening(b"dst", MIRROR)).unwrap();
    TrustStore::open(&bench.options.home.peers_file())
        .unwrap()
        .remove("peer")
        .unwrap();
    assert_eq!(peer.beside().err().unwrap().0, CloseCode::NotAllowed);
    bench.check();
}
