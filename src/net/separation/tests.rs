//! What comes from the other process is judged like what comes from a peer.

use super::door::{Door, SOCKETS, doors};
use super::frames::{FrameFault, Frames};
use super::inside::Transport;
use super::messages::{CALLS_FROM, Encoded, End, Order, Report};
use super::outside::{Callee, take_all};
use crate::net::endpoint::{Accepted, Alpn, Authorise, Verdict};
use crate::net::link::{LinkEnd, ReceiverLink};
use crate::net::ranges::Arrived;
use bytes::Bytes;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use driftless_certs::Fingerprint;
use driftless_protocol::CloseCode;
use driftless_protocol::codec::{CodecFault, decode, encode, encode_frame};
use driftless_protocol::limits::{
    BULK_FRAME_BYTES_MAX, CONTROL_MESSAGE_BYTES_MAX, OP_FRAME_BYTES_MAX, RANGE_BYTES_MAX,
};
use driftless_protocol::message::{
    BulkFrame, ModuleName, OpFrame, PairRequest, RangeBody, RangeBytes, Runs, ToReceiver, ToSender,
};
use rustix::net::{SendFlags, send};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

fn flush(number: u64) -> ToReceiver {
    ToReceiver::Flush { number }
}

fn zeros(number: u64) -> BulkFrame {
    BulkFrame {
        number,
        offset: 0,
        length: 1,
        body: RangeBody::Zeros,
    }
}

#[test]
fn frames_arrive_in_any_pieces() {
    struct Dribble<'a>(&'a [u8]);
    impl Read for Dribble<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let some = buffer.len().min(self.0.len()).min(3);
            buffer[..some].copy_from_slice(&self.0[..some]);
            self.0 = &self.0[some..];
            Ok(some)
        }
    }
    let bytes: Vec<u8> = (0..100)
        .flat_map(|n| encode_frame(&flush(n << 20)).unwrap())
        .collect();
    let mut frames = Frames::new(Dribble(&bytes));
    for number in 0..100 {
        assert_eq!(frames.next().unwrap(), Some(flush(number << 20)));
    }
    assert_eq!(frames.next::<ToReceiver>().unwrap(), None);
}

#[test]
fn frames_that_break_off_are_faults() {
    let bytes = encode_frame(&flush(u64::MAX)).unwrap();
    for length in 1..bytes.len() {
        let outcome = Frames::new(&bytes[..length]).next::<ToReceiver>();
        assert!(matches!(outcome, Err(FrameFault::Cut)), "{length}: {outcome:?}");
    }
}

#[test]
fn frames_over_their_limit_are_refused_before_they_are_read() {
    struct Endless(u64);
    impl Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            assert!(self.0 < 4, "read beyond the length");
            buffer[0] = 0xff;
            self.0 += 1;
            Ok(1)
        }
    }
    let outcomes = [
        Frames::new(Endless(0)).next::<BulkFrame>(),
        Frames::new(Endless(0)).next_range(),
    ];
    for outcome in outcomes {
        let Err(FrameFault::Codec(CodecFault::TooLong { bytes, limit, .. })) = outcome else {
            panic!("{outcome:?}");
        };
        assert_eq!((bytes, limit), (u32::MAX as usize, BULK_FRAME_BYTES_MAX));
    }
}

/// Ranges of all kinds, and bytes that are none, with their lengths in front.
fn bulk_bodies() -> Vec<Vec<u8>> {
    let range = |bytes: usize| BulkFrame {
        body: RangeBody::Raw(RangeBytes((0..bytes).map(|at| (at % 251) as u8).collect())),
        length: bytes as u32,
        ..zeros(1 << 40)
    };
    let mut bodies: Vec<_> = [0, 1, 40, 1_000, 300_000, RANGE_BYTES_MAX]
        .map(|bytes| encode(&range(bytes)).unwrap())
        .into();
    bodies.push(encode(&zeros(9)).unwrap());
    let mut longer = encode(&range(100)).unwrap();
    longer.push(7);
    bodies.extend([longer, Vec::new(), vec![0xff; 300]]);
    bodies
}

/// Whatever way a frame takes, it is what the codec says.
#[test]
fn ranges_are_read_as_the_codec_reads_them() {
    for body in bulk_bodies() {
        let whole = decode::<BulkFrame>(&body);
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        let framed = [&length[..], &body].concat();
        for step in [1, 37, 600, usize::MAX] {
            let mut arrived = Arrived::default();
            for piece in body.chunks(step) {
                arrived.push(Bytes::copy_from_slice(piece));
            }
            assert_eq!(arrived.decode(), whole);
            let mut written = Vec::new();
            arrived.write_to(&mut written).unwrap();
            assert_eq!(written, framed);
        }
        let mut frames = Frames::new(&framed[..]);
        match (frames.next_range(), &whole) {
            (Ok(Some(read)), Ok(whole)) => assert_eq!(read, *whole),
            (Err(FrameFault::Codec(fault)), Err(whole)) => assert_eq!(fault, *whole),
            (read, whole) => panic!("{read:?} for {whole:?}"),
        }
    }
}

#[test]
fn ranges_that_break_off_are_faults() {
    let frame = encode_frame(&BulkFrame {
        body: RangeBody::Raw(RangeBytes(vec![7; 300])),
        length: 300,
        ..zeros(1)
    });
    let bytes = frame.unwrap();
    for length in 1..bytes.len() {
        let outcome = Frames::new(&bytes[..length]).next_range();
        assert!(matches!(outcome, Err(FrameFault::Cut)), "{length}: {outcome:?}");
    }
    assert!(matches!(Frames::new(&b""[..]).next_range(), Ok(None)));
}

#[test]
fn frames_of_another_kind_or_with_more_behind_are_faults() {
    let mut longer = encode(&flush(7)).unwrap();
    longer.push(0);
    for body in [&b""[..], b"\xff\xff\xff\xff", &[250; 40], &longer] {
        let mut bytes = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
        bytes.extend_from_slice(body);
        let outcome = Frames::new(&bytes[..]).next::<ToReceiver>();
        assert!(
            matches!(outcome, Err(FrameFault::Codec(_))),
            "{body:?}: {outcome:?}"
        );
    }
}

/// A process outside of the test's own making.
struct Made {
    door: Door,
    /// The other end, as the process inside has it.
    inside: OwnedFd,
    transport: Transport,
    accepted: Receiver<Accepted>,
}

fn peer() -> Fingerprint {
    Fingerprint::from_bytes([7; 32])
}

fn remote() -> SocketAddr {
    "192.0.2.1:4433".parse().unwrap()
}

fn made() -> Made {
    let (ours, theirs) = doors().unwrap();
    let (door, inside) = (Door::from(theirs), ours.as_fd().try_clone_to_owned().unwrap());
    let ready = Report::Ready {
        identity: Fingerprint::from_bytes([1; 32]),
        address: Some(remote()),
        lacking: Vec::new(),
    };
    door.send(&ready, &[]).unwrap();
    let (transport, lacking) = Transport::greet(ours).unwrap();
    assert_eq!(lacking, []);
    assert_eq!(transport.identity(), Fingerprint::from_bytes([1; 32]));
    transport.attend().unwrap();
    let authorise: Authorise = Arc::new(|who, alpn| Verdict::of(who == peer() && alpn == Alpn::Mirror));
    let accepted = transport.listen(authorise);
    assert!(matches!(door.receive().unwrap(), Some(Order::Listen)));
    Made {
        door,
        inside,
        transport,
        accepted,
    }
}

impl Made {
    fn mirror(&self, number: u64) {
        let (peer, remote) = (peer(), remote());
        let report = Report::Mirror { number, peer, remote };
        self.door.send(&report, &[]).unwrap();
    }

    /// Both ends of a new connection.
    fn link(&self, number: u64) -> (ReceiverLink, [UnixStream; SOCKETS]) {
        self.mirror(number);
        let (order, sockets) = self.door.receive_sockets::<Order>().unwrap().unwrap();
        assert!(
            matches!(order, Order::Take { number: taken } if taken == number),
            "{order:?}"
        );
        let Ok(Accepted::Mirror(link)) = self.accepted.recv_timeout(PATIENCE) else {
            panic!("no link");
        };
        let sockets: Vec<_> = sockets.into_iter().map(UnixStream::from).collect();
        (link, sockets.try_into().unwrap())
    }

    fn end(&self, number: u64, text: &str) {
        let end = End::Closed {
            code: CloseCode::Busy.number(),
            text: text.to_owned(),
            by_peer: true,
        };
        self.door.send(&Report::Ended { number, end }, &[]).unwrap();
    }

    #[track_caller]
    fn is_gone(&self) {
        let gone = self.transport.gone().recv_timeout(PATIENCE);
        assert_eq!(gone, Err(RecvTimeoutError::Disconnected));
        let none = self.accepted.recv_timeout(PATIENCE);
        assert_eq!(none.err(), Some(RecvTimeoutError::Disconnected));
    }
}

#[test]
fn a_connection_carries_all_kinds_of_messages_and_ends_with_its_reason() {
    let made = made();
    let (link, [mut control, mut ops, mut bulk]) = made.link(1);
    assert_eq!(
        (link.peer(), link.remote_address()),
        (peer(), Some(remote().ip()))
    );
    control.write_all(&encode_frame(&flush(3)).unwrap()).unwrap();
    ops.write_all(&encode_frame(&OpFrame::default()).unwrap())
        .unwrap();
    bulk.write_all(&encode_frame(&zeros(5)).unwrap()).unwrap();
    assert_eq!(link.incoming().recv_timeout(PATIENCE), Ok(flush(3)));
    assert_eq!(link.ops().recv_timeout(PATIENCE), Ok(OpFrame::default()));
    assert_eq!(link.bulk().recv_timeout(PATIENCE).unwrap().frame, zeros(5));
    let said = ToSender::Ended(Runs::default());
    link.control().send(said.clone()).unwrap();
    assert_eq!(Frames::new(&control).next().unwrap(), Some(said));
    assert_eq!(link.ended(), None);

    // What was written before the end arrives, and then the reason is known.
    control.write_all(&encode_frame(&flush(4)).unwrap()).unwrap();
    drop((control, ops, bulk));
    made.end(1, "somebody else\nis here");
    assert_eq!(link.incoming().recv_timeout(PATIENCE), Ok(flush(4)));
    assert_eq!(
        link.incoming().recv_timeout(PATIENCE),
        Err(RecvTimeoutError::Disconnected)
    );
    let end = LinkEnd::Closed {
        code: CloseCode::Busy,
        text: "somebody else\u{fffd}is here".to_owned(),
        by_peer: true,
    };
    assert_eq!(link.ended(), Some(end));
    assert!(!link.handle().is_alive(Duration::ZERO));
}

#[test]
fn a_connection_that_this_side_ends_is_ended_outside() {
    let made = made();
    let (link, [control, ..]) = made.link(1);
    link.close(CloseCode::NotAllowed, "no longer allowed");
    let order = made.door.receive().unwrap();
    let Some(Order::Close {
        number: 1,
        code,
        text,
    }) = order
    else {
        panic!("{order:?}");
    };
    assert_eq!(
        (code, text.as_str()),
        (CloseCode::NotAllowed.number(), "no longer allowed")
    );
    assert_eq!((&control).read(&mut [0]).unwrap(), 0);
    assert!(link.incoming().recv_timeout(PATIENCE).is_err());
    assert!(matches!(
        link.ended(),
        Some(LinkEnd::Closed { by_peer: false, .. })
    ));
}

#[test]
fn a_door_that_nobody_reads_holds_up_no_end() {
    let made = made();
    let (link, [control, ..]) = made.link(1);
    let (other, _sockets) = made.link(2);
    // The orders to the process outside, as many as there is room for.
    let full = loop {
        match send(&made.inside, b"{}", SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(_) => {}
            Err(errno) => break errno,
        }
    };
    assert_eq!(full, rustix::io::Errno::AGAIN);
    let closing = std::thread::spawn(move || {
        link.close(CloseCode::NotAllowed, "no longer allowed");
        link
    });
    // Shorter than a sender waits at the door.
    control.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    assert_eq!((&control).read(&mut [0]).unwrap(), 0);
    // Nor does it stay so for ever: it is broken, and all connections are over.
    made.is_gone();
    assert!(other.incoming().recv_timeout(PATIENCE).is_err());
    let link = closing.join().unwrap();
    assert!(matches!(
        link.ended(),
        Some(LinkEnd::Closed { by_peer: false, .. })
    ));
}

#[test]
fn what_is_said_after_the_end_of_a_connection_holds_up_nobody() {
    let made = made();
    let (link, sockets) = made.link(1);
    let link = Arc::new(link);
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (taken, waiting) = (link.clone(), theirs.try_clone().unwrap());
    let taking = std::thread::spawn(move || take_all(&waiting, &taken));
    // As a session says it whose peer takes nothing.
    let bytes = encode_frame(&ToSender::Ended(Runs::default())).unwrap();
    let bytes = bytes.repeat((64 << 10) / bytes.len());
    ours.set_nonblocking(true).unwrap();
    let mut written = 0;
    while let Ok(more) = (&ours).write(&bytes[written..]) {
        written = (written + more) % bytes.len();
    }
    drop(sockets);
    made.end(1, "");
    ours.set_nonblocking(false).unwrap();
    ours.set_write_timeout(Some(PATIENCE)).unwrap();
    (&ours).write_all(&bytes[written..]).unwrap();
    for _ in 0..100 {
        (&ours).write_all(&bytes).unwrap();
    }
    drop(ours);
    taking.join().unwrap();
}

#[test]
fn wrong_frames_end_their_connection_and_no_other() {
    let made = made();
    let (good, [mut good_control, ..]) = made.link(1);
    let limits = [
        CONTROL_MESSAGE_BYTES_MAX,
        BULK_FRAME_BYTES_MAX,
        OP_FRAME_BYTES_MAX,
    ];
    let oversize = limits.into_iter().max().unwrap() as u32 + 1;
    for (number, wrong) in [
        (2, oversize.to_be_bytes().to_vec()),
        (3, vec![0, 0, 0, 2, 255, 255]),
    ] {
        for socket in 0..SOCKETS {
            let number = number * 10 + socket as u64;
            let (link, mut sockets) = made.link(number);
            sockets[socket].write_all(&wrong).unwrap();
            let order = made.door.receive().unwrap();
            assert!(
                matches!(&order, Some(Order::Close { number: closed, code, .. })
                    if *closed == number && *code == CloseCode::Violation.number()),
                "{order:?}"
            );
            assert!(link.ops().recv_timeout(PATIENCE).is_err());
        }
    }
    good_control.write_all(&encode_frame(&flush(1)).unwrap()).unwrap();
    assert_eq!(good.incoming().recv_timeout(PATIENCE), Ok(flush(1)));
}

#[test]
fn a_connection_that_nobody_reads_holds_up_no_other() {
    let made = made();
    let (stalled, [_, _, stalled_bulk]) = made.link(1);
    stalled_bulk.set_nonblocking(true).unwrap();
    let frame = encode_frame(&zeros(1)).unwrap();
    // As much as the sockets and queues hold, which has an end.
    let mut written = 0;
    let deadline = std::time::Instant::now() + PATIENCE;
    let mut full = 0;
    while full < 20 && std::time::Instant::now() < deadline {
        match (&stalled_bulk).write(&frame) {
            Ok(bytes) => (written, full) = (written + bytes, 0),
            Err(_) => {
                full += 1;
                std::thread::park_timeout(Duration::from_millis(10));
            }
        }
    }
    assert!((1..64 << 20).contains(&written), "{written}");
    let (other, [mut control, ..]) = made.link(2);
    control.write_all(&encode_frame(&flush(9)).unwrap()).unwrap();
    assert_eq!(other.incoming().recv_timeout(PATIENCE), Ok(flush(9)));
    drop(stalled);
    let order = made.door.receive().unwrap();
    assert!(matches!(order, Some(Order::Close { number: 1, .. })), "{order:?}");
}

#[test]
fn peers_are_judged_here() {
    let made = made();
    for (question, who, alpn, wanted) in [
        (1, peer(), Alpn::Mirror, true),
        (2, Fingerprint::from_bytes([8; 32]), Alpn::Mirror, false),
        (3, peer(), Alpn::Pull, false),
    ] {
        let asks = Report::Asks {
            question,
            peer: who,
            alpn,
        };
        made.door.send(&asks, &[]).unwrap();
        let order = made.door.receive().unwrap();
        let Some(Order::Answer {
            question: answered,
            verdict,
        }) = order
        else {
            panic!("{order:?}");
        };
        assert_eq!((answered, verdict), (question, Verdict::of(wanted)));
    }
}

#[test]
fn a_receiver_that_stops_refuses_nobody_for_good() {
    let made = made();
    made.transport.stop();
    assert!(matches!(made.door.receive().unwrap(), Some(Order::Stop)));
    let asks = Report::Asks {
        question: 1,
        peer: peer(),
        alpn: Alpn::Mirror,
    };
    made.door.send(&asks, &[]).unwrap();
    made.mirror(1);
    let order = made.door.receive().unwrap();
    let Some(Order::Close { number: 1, code, .. }) = order else {
        panic!("{order:?}");
    };
    assert!(CloseCode::from_number(code.into()).is_temporary());
}

#[test]
fn a_guest_that_nobody_answers_is_sent_away() {
    let made = made();
    let request = PairRequest {
        secret: [3; 16],
        name: "guest".into(),
    };
    let report = Report::Pair {
        number: 1,
        peer: peer(),
        remote: remote(),
        request: Encoded::of(&request).unwrap(),
    };
    made.door.send(&report, &[]).unwrap();
    drop(made.accepted.recv_timeout(PATIENCE).unwrap());
    let order = made.door.receive().unwrap();
    assert!(matches!(order, Some(Order::Close { number: 1, .. })), "{order:?}");
}

#[test]
fn only_who_was_named_is_called() {
    let other: SocketAddr = "192.0.2.2:4433".parse().unwrap();
    let pinned = Callee {
        fingerprint: Some(peer()),
        ip: Some(remote().ip()),
        port: Some(4433),
    };
    assert!(pinned.is_meant(peer(), &[remote()]));
    assert!(!pinned.is_meant(Fingerprint::from_bytes([8; 32]), &[remote()]));
    assert!(!pinned.is_meant(peer(), &[remote(), other]));
    assert!(!pinned.is_meant(peer(), &[SocketAddr::new(remote().ip(), 53)]));
    let named = Callee {
        fingerprint: None,
        ip: None,
        port: None,
    };
    assert!(named.is_meant(peer(), &[remote(), other]));
}

/// The process outside knows no names: it tells of silences, and the one inside looks the name up.
#[test]
fn a_silent_peer_whose_name_leads_elsewhere_is_left() {
    let made = made();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let links = [made.link(1), made.link(2), made.link(3)];
    let here = remote().ip().to_string();
    for ((link, _), host) in links.iter().zip(["127.0.0.1", &here, "127.0.0.1"]) {
        link.follow_name(runtime.handle(), host, 4433);
    }
    for number in [1, 2] {
        let is_silent = true;
        made.door
            .send(&Report::Silent { number, is_silent }, &[])
            .unwrap();
    }
    let order = made.door.receive().unwrap();
    assert!(matches!(order, Some(Order::Close { number: 1, .. })), "{order:?}");
    let [left, others @ ..] = links.map(|(link, _)| link.ended());
    assert!(
        matches!(&left, Some(LinkEnd::Closed { by_peer: false, text, .. }) if text.contains("nobody answers at 192.0.2.1")),
        "{left:?}"
    );
    assert_eq!(others, [None, None]);
}

#[test]
fn peers_are_asked_for_by_the_other_process() {
    let made = made();
    let (link, _sockets) = made.link(1);
    for wanted in [true, false] {
        let handle = link.handle();
        let asking = std::thread::spawn(move || handle.is_alive(Duration::from_secs(1)));
        let order = made.door.receive().unwrap();
        let Some(Order::Probe {
            number: 1, question, ..
        }) = order
        else {
            panic!("{order:?}");
        };
        made.door
            .send(
                &Report::Alive {
                    question,
                    yes: wanted,
                },
                &[],
            )
            .unwrap();
        assert_eq!(asking.join().unwrap(), wanted);
    }
}

#[test]
fn whoever_breaks_the_rules_of_the_door_is_left_with_all_connections() {
    let numbers: [(u64, &str); 2] = [(1, "a number that is in use"), (CALLS_FROM + 5, "one of a call")];
    for (number, what) in numbers {
        let made = made();
        let (link, _sockets) = made.link(1);
        made.mirror(number);
        made.is_gone();
        assert!(link.incoming().recv_timeout(PATIENCE).is_err(), "{what}");
        assert!(matches!(link.ended(), Some(LinkEnd::Lost { text }) if text.contains("has ended")));
    }
    let long = vec![b' '; 60 << 10];
    for bytes in [
        &b"{}"[..],
        b"[",
        b"\xff\xfe",
        b"\"listen\"",
        b"{\"mirror\":{\"number\":1}}",
        b"{\"ended\":{\"number\":1,\"end\":{\"lost\":{\"text\":\"x\",\"more\":1}}}}",
        &long,
    ] {
        let made = made();
        send(made.door.as_fd(), bytes, SendFlags::empty()).unwrap();
        made.is_gone();
        // There is nobody to let in any more.
        assert!(!made.transport.end(Duration::ZERO) || made.accepted.recv().is_err());
    }
    let made = made();
    let again = Report::Failed {
        text: String::new(),
        is_usage: false,
    };
    made.door.send(&again, &[]).unwrap();
    made.is_gone();
}

#[test]
fn a_process_that_ends_before_it_heard_everything_has_ended() {
    let (ours, theirs) = doors().unwrap();
    ours.send(&Order::Listen, &[]).unwrap();
    drop(theirs);
    assert!(matches!(ours.receive::<Report>(), Ok(None)));
}

#[test]
fn nothing_that_was_opened_outside_comes_in() {
    let made = made();
    let (kept, given) = UnixStream::pair().unwrap();
    let end = End::Lost { text: String::new() };
    made.door
        .send(&Report::Ended { number: 1, end }, &[given.as_fd()])
        .unwrap();
    drop(given);
    // The kernel closed it, so its other end is at its end.
    kept.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!((&kept).read(&mut [0]).unwrap(), 0);
    let (_link, _sockets) = made.link(1);
}

#[test]
fn calls_are_answered_once_or_not_at_all() {
    let made = made();
    let call = |made: &Made| {
        let transport = made.transport.clone();
        std::thread::spawn(move || transport.call(peer(), &[remote()], &ModuleName(b"www".to_vec())))
    };
    let calling = call(&made);
    let order = made.door.receive().unwrap();
    let Some(Order::Call {
        number,
        addresses,
        tree,
        ..
    }) = order
    else {
        panic!("{order:?}");
    };
    assert_eq!((addresses, tree), (vec![remote()], b"www".to_vec()));
    let outcome = Ok(remote());
    made.door.send(&Report::Called { number, outcome }, &[]).unwrap();
    assert!(calling.join().unwrap().is_ok());
    let calling = call(&made);
    while !matches!(made.door.receive().unwrap(), Some(Order::Call { .. })) {}
    let outcome = Ok(remote());
    made.door.send(&Report::Called { number, outcome }, &[]).unwrap();
    made.is_gone();
    let error = calling.join().unwrap().unwrap_err();
    assert!(error.to_string().contains("has ended"), "{error}");
}
