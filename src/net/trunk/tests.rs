//! Sessions that share a connection, over the loopback device.

use crate::net::sharing::Key;
use crate::net::shift::Outlet;
use crate::net::silence::LookUp;
use crate::net::{
    Accepted, Ahead, Authorise, Congestion, ConnectError, LinkEnd, LinkOptions, Parties, ReceiverEndpoint,
    ReceiverLink, SenderLink, Sockets, Verdict,
};
use driftless_certs::{Identity, receiver_config, sender_config};
use driftless_protocol::CloseCode;
use driftless_protocol::codec::encode_frame;
use driftless_protocol::message::{BulkFrame, OpFrame, RangeBody, RangeBytes, ToReceiver, ToSender};
use driftless_protocol::stream::{StreamKind, head};
use driftless_protocol::version::{ALPN_MIRROR, Hello};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const RANGE_BYTES: usize = 256 << 10;

struct Site {
    runtime: Runtime,
    sender: Identity,
    receiver: Identity,
    endpoint: ReceiverEndpoint,
    options: LinkOptions,
}

impl Site {
    fn new() -> Site {
        Site::with(Arc::new(|_, _| Verdict::Allowed))
    }

    fn with(authorise: Authorise) -> Site {
        let runtime = Runtime::new().unwrap();
        let (sender, receiver) = (Identity::ephemeral().unwrap(), Identity::ephemeral().unwrap());
        let endpoint = ReceiverEndpoint::bind(
            runtime.handle(),
            receiver_config(&receiver, &[ALPN_MIRROR]).unwrap(),
            "127.0.0.1:0".parse().unwrap(),
            &[7; 32],
            &LinkOptions::default(),
            (Arc::new(|_| true), authorise),
        );
        let options = LinkOptions {
            sockets: Some(Sockets::default()),
            sharing: Some(Parties {
                own: sender.fingerprint(),
                peer: receiver.fingerprint(),
            }),
            hello_timeout: PATIENCE,
            connect_timeout: PATIENCE,
            ..LinkOptions::default()
        };
        Site {
            runtime,
            sender,
            receiver,
            endpoint: endpoint.unwrap(),
            options,
        }
    }

    fn try_connect(
        &self,
        number: u64,
        address: SocketAddr,
        options: &LinkOptions,
    ) -> Result<SenderLink, ConnectError> {
        let tls = sender_config(&self.sender, self.receiver.fingerprint(), &[ALPN_MIRROR]).unwrap();
        let first = vec![flush(number)];
        SenderLink::connect(self.runtime.handle(), tls, &[address], first, options)
    }

    fn connect(&self, number: u64) -> SenderLink {
        self.try_connect(number, self.endpoint.local_address(), &self.options)
            .unwrap()
    }

    /// The next session that has come, and what its sender said first.
    fn accept(&self) -> (u64, ReceiverLink) {
        let accepted = self.endpoint.accept().recv_timeout(PATIENCE).unwrap();
        let Accepted::Mirror(link) = accepted else {
            panic!("{accepted:?}");
        };
        (said(&link), link)
    }

    /// Both ends of so many sessions.
    fn pairs(&self, count: u64) -> Vec<(SenderLink, ReceiverLink)> {
        (0..count)
            .map(|number| {
                let sender = self.connect(number);
                let (said, receiver) = self.accept();
                assert_eq!(said, number);
                (sender, receiver)
            })
            .collect()
    }
}

/// A message with a number; that of 0 is a sign of life.
fn flush(number: u64) -> ToReceiver {
    ToReceiver::Flush { number: number + 1 }
}

/// The number of the next [`flush`].
fn said(link: &ReceiverLink) -> u64 {
    match link.incoming().recv_timeout(PATIENCE) {
        Ok(ToReceiver::Flush { number }) => number - 1,
        other => panic!("{other:?}"),
    }
}

/// Both ends still understand each other.
fn check_alive((sender, receiver): &(SenderLink, ReceiverLink), number: u64) {
    sender.control().send(flush(number)).unwrap();
    assert_eq!(said(receiver), number);
    let message = ToSender::Need { number, basis: false };
    receiver.control().send(message.clone()).unwrap();
    assert_eq!(sender.incoming().recv_timeout(PATIENCE), Ok(message));
}

fn trunk_of(shared: &crate::net::link::Shared) -> *const super::Trunk {
    Arc::as_ptr(session_of(shared).trunk())
}

fn session_of(shared: &crate::net::link::Shared) -> &Arc<crate::net::session::Session> {
    match shared.line() {
        crate::net::link::Line::Network(session) => session,
        crate::net::link::Line::Here(..) | crate::net::link::Line::Apart(_) => panic!("there is a network"),
    }
}

#[track_caller]
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "still not: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

fn range(number: u64) -> BulkFrame {
    BulkFrame {
        number,
        offset: 0,
        length: RANGE_BYTES as u32,
        body: RangeBody::Raw(RangeBytes(vec![number as u8; RANGE_BYTES])),
    }
}

/// Sends ranges on a thread until so many have left or the link ends; the last one sent has its number in the atomic.
fn pump(link: &SenderLink, ranges: u64) -> Arc<std::sync::atomic::AtomicU64> {
    let (bulk, sent) = (link.bulk(), Arc::<std::sync::atomic::AtomicU64>::default());
    let told = sent.clone();
    std::thread::spawn(move || {
        for number in 1..=ranges {
            if bulk.send(range(number), None, None).is_err() {
                return;
            }
            told.store(number, std::sync::atomic::Ordering::Release);
        }
    });
    sent
}

#[test]
fn links_of_one_process_to_one_peer_share_a_connection() {
    let site = Site::new();
    // At once, so that most of them wait for one to dial.
    let senders: Vec<_> = std::thread::scope(|scope| {
        let connecting: Vec<_> = (0..12)
            .map(|number| (number, &site))
            .map(|(number, site)| scope.spawn(move || (number, site.connect(number))))
            .collect();
        connecting.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let mut receivers: Vec<_> = (0..12).map(|_| site.accept()).collect();
    receivers.sort_by_key(|(number, _)| *number);
    let trunk = trunk_of(&senders[0].1.shared);
    assert!(senders.iter().all(|(_, link)| trunk_of(&link.shared) == trunk));
    let theirs = trunk_of(&receivers[0].1.shared);
    assert!(receivers.iter().all(|(_, link)| trunk_of(&link.shared) == theirs));
    let pairs = senders.into_iter().zip(receivers);
    for ((number, sender), (said, receiver)) in pairs {
        assert_eq!(number, said, "they come in order of their numbers");
        check_alive(&(sender, receiver), number + 100);
    }

    // Other settings of the connection, or a wish to be alone, make another one.
    let kept = site.connect(20);
    let others = [
        LinkOptions {
            congestion: Congestion::Cubic,
            ..site.options.clone()
        },
        LinkOptions {
            sharing: None,
            ..site.options.clone()
        },
    ];
    for options in others {
        let other = site
            .try_connect(21, site.endpoint.local_address(), &options)
            .unwrap();
        assert_ne!(trunk_of(&other.shared), trunk_of(&kept.shared));
    }
    assert_eq!(trunk_of(&site.connect(22).shared), trunk_of(&kept.shared));
}

/// How large the packets of a link may be by now.
fn packet_bytes((sender, _): &(SenderLink, ReceiverLink)) -> u16 {
    let connection = session_of(&sender.shared).trunk().connection();
    connection.stats().path.current_mtu
}

/// Has both ends speak until packets have a size.
fn wait_for_packets_of(bytes: u16, pair: &(SenderLink, ReceiverLink)) {
    let mut number = 0;
    wait_until("packets have found their size", || {
        number += 1;
        check_alive(pair, number);
        packet_bytes(pair) == bytes
    });
}

#[test]
fn packets_to_this_machine_are_large_and_arrive() {
    const RANGES: u64 = 40;
    let site = Site::new();
    let pair = site.pairs(1).remove(0);
    wait_for_packets_of(6_500, &pair);
    pump(&pair.0, RANGES);
    for _ in 0..RANGES {
        let taken = pair.1.bulk().recv_timeout(PATIENCE).unwrap();
        assert_eq!(taken.frame, range(taken.frame.number));
    }
    let sent = session_of(&pair.0.shared).trunk().connection().stats();
    let datagrams = sent.udp_tx.datagrams;
    // Of the usual size they would be 7,222.
    assert!(
        datagrams * 3_000 < RANGES * RANGE_BYTES as u64,
        "{datagrams} datagrams"
    );
    assert_eq!(sent.path.black_holes_detected, 0);
}

/// Its limit is kept in steps of such packets.
#[test]
fn packets_of_a_limited_link_are_not() {
    let mut site = Site::new();
    let schedule = "1G".parse().unwrap();
    site.options.limiter = Some(Arc::new(crate::net::Limiter::new(schedule)));
    wait_for_packets_of(1_452, &site.pairs(1).remove(0));
}

#[test]
fn the_end_of_one_session_is_not_that_of_the_others() {
    let site = Site::new();
    let mut pairs = site.pairs(4);
    let (sender, receiver) = pairs.remove(1);
    receiver.close(CloseCode::Busy, "no room here");
    let end = LinkEnd::Closed {
        code: CloseCode::Busy,
        text: "no room here".to_owned(),
        by_peer: true,
    };
    assert_eq!(sender.wait_ended(), end);
    assert!(matches!(
        receiver.ended(),
        Some(LinkEnd::Closed { by_peer: false, .. })
    ));
    let (sender, receiver) = pairs.remove(0);
    sender.close(CloseCode::Unable, "the disk");
    wait_until("the receiver hears of it", || receiver.ended().is_some());
    let Some(LinkEnd::Closed { code, text, by_peer }) = receiver.ended() else {
        panic!("{:?}", receiver.ended());
    };
    assert_eq!(
        (code, text.as_str(), by_peer),
        (CloseCode::Unable, "the disk", true)
    );
    assert!(
        receiver.incoming().recv_timeout(PATIENCE).is_err(),
        "disconnected"
    );
    drop((sender, receiver));
    for (number, pair) in pairs.iter().enumerate() {
        check_alive(pair, 50 + number as u64);
    }
    // Whoever comes later joins, and with the last one the connection ends.
    let before = trunk_of(&pairs[0].0.shared);
    let late = site.connect(9);
    assert_eq!(trunk_of(&late.shared), before);
    let (_, late_receiver) = site.accept();
    let (senders, receivers): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    drop(senders);
    drop(late);
    wait_until("all have ended", || {
        let mut links = receivers.iter().chain([&late_receiver]);
        links.all(|link| link.ended().is_some())
    });
    let again = site.connect(10);
    let (_, receiver) = site.accept();
    check_alive(&(again, receiver), 11);
}

/// Streams are given up after the connection was closed: whoever sees that first takes it for a violation.
#[test]
fn a_session_alone_ends_as_it_was_told_and_not_by_its_streams() {
    let site = Site::new();
    for round in 0..60 {
        let sender = site.connect(round);
        let (_, receiver) = site.accept();
        // A receiver with something to say has a stream to give up.
        let message = ToSender::Need {
            number: round,
            basis: false,
        };
        receiver.control().send(message.clone()).unwrap();
        assert_eq!(sender.incoming().recv_timeout(PATIENCE), Ok(message));
        let text = format!("round {round}");
        receiver.close(CloseCode::Promoted, &text);
        let end = LinkEnd::Closed {
            code: CloseCode::Promoted,
            text,
            by_peer: true,
        };
        assert_eq!(sender.wait_ended(), end);
    }
}

/// Seven of eight sessions are not read, with as much to say as they like: each holds its share, and the eighth gets everything
/// through.
#[test]
fn sessions_that_stand_still_hold_up_no_other() {
    const RANGES: u64 = 100;
    let site = Site::new();
    let pairs = site.pairs(8);
    let pumped: Vec<_> = pairs.iter().map(|(sender, _)| pump(sender, RANGES)).collect();
    let (stalled, moving) = pairs.split_at(7);
    for number in 1..=RANGES {
        let range = moving[0].1.bulk().recv_timeout(PATIENCE);
        let range = range.unwrap_or_else(|error| panic!("range {number}: {error}"));
        assert_eq!(range.frame.length as usize, RANGE_BYTES);
    }
    for (number, pair) in stalled.iter().enumerate() {
        check_alive(pair, 200 + number as u64);
    }
    // What a session with a window had under way at most: that, what readers hold, and what waits before the wire.
    let held = pumped[6].load(std::sync::atomic::Ordering::Acquire) * RANGE_BYTES as u64;
    let window = u64::from(super::FURTHER_WINDOW_BYTES);
    assert!(held <= window + 64 * RANGE_BYTES as u64, "{held} bytes");
    assert!(held < RANGES * RANGE_BYTES as u64, "it was never held up");
    // Now they are read, and nothing is missing.
    for (_, receiver) in stalled {
        for _ in 1..=RANGES {
            receiver.bulk().recv_timeout(PATIENCE).unwrap();
        }
    }
}

#[test]
fn bytes_are_counted_for_the_session_that_moved_them() {
    let site = Site::new();
    let pairs = site.pairs(2);
    pump(&pairs[1].0, 8);
    for _ in 0..8 {
        pairs[1].1.bulk().recv_timeout(PATIENCE).unwrap();
    }
    let moved = 8 * RANGE_BYTES as u64;
    // A write counts when it is done, which may be after the other side has read it.
    wait_until("all is counted", || pairs[1].0.statistics().bytes_sent >= moved);
    let (first, second) = (pairs[0].0.statistics(), pairs[1].0.statistics());
    assert!(
        second.bytes_sent >= moved && second.bytes_sent < moved + (64 << 10),
        "{second:?}"
    );
    // Handshake, headers and acknowledgements.
    assert!(
        first.bytes_sent > 1_000 && first.bytes_sent < moved / 2,
        "{first:?}"
    );
    let received = pairs[1].1.statistics();
    assert!(received.bytes_received >= moved, "{received:?}");
    assert!(pairs[0].1.statistics().bytes_received < moved / 2);
}

#[test]
fn a_failure_to_connect_is_shared_and_forgotten() {
    let site = Site::new();
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = nobody.local_addr().unwrap();
    let options = LinkOptions {
        connect_timeout: Duration::from_millis(500),
        ..site.options.clone()
    };
    std::thread::scope(|scope| {
        for number in 0..6 {
            let (site, options) = (&site, &options);
            scope.spawn(move || {
                let error = site.try_connect(number, address, options).unwrap_err();
                assert!(matches!(error, ConnectError::NoAnswer { .. }), "{error}");
            });
        }
    });
    let key = Key::of(address, &options).unwrap();
    assert!(!options.sockets.as_ref().unwrap().trunks().knows(&key));
}

/// A receiver may take longer than a sender waits, or the path may be out: the end of a session comes before its turn.
#[test]
fn a_session_may_end_before_the_receiver_has_come_to_it() {
    let calls = std::sync::atomic::AtomicU64::default();
    let (hold, held) = crossbeam_channel::bounded::<()>(0);
    // The first one decides about the connection, and each further one about a session, until the other end is gone.
    let site = Site::with(Arc::new(move |_, _| {
        if calls.fetch_add(1, std::sync::atomic::Ordering::AcqRel) > 0 {
            let _ = held.recv_timeout(PATIENCE);
        }
        Verdict::Allowed
    }));
    let first = site.pairs(1);
    let ours = session_of(&first[0].0.shared).trunk().clone();
    let theirs = session_of(&first[0].1.shared).trunk().clone();
    for _ in 0..3 {
        let place = ours.join().unwrap();
        let (mut send, receive) = site.runtime.block_on(ours.connection().open_bi()).unwrap();
        let session = ours.begin(send.id().index(), 0);
        let hello = Hello::OURS.to_bytes().to_vec();
        assert!(site.runtime.block_on(session.write(&mut send, hello, false)));
        session.close(CloseCode::Done, "");
        drop((place, send, receive));
    }
    wait_until("it is told of the end of sessions to come", || {
        theirs.lock().ended_early.len() == 2
    });
    check_alive(&first[0], 5);
    drop(hold);
    wait_until("their turn has come", || {
        let sessions = theirs.lock();
        sessions.next == 4 && sessions.ended_early.is_empty() && sessions.count() == 1
    });
    check_alive(&first[0], 6);
    let late = site.connect(7);
    assert_eq!(trunk_of(&late.shared), Arc::as_ptr(&ours));
    let (said, late_receiver) = site.accept();
    assert_eq!(said, 7);
    check_alive(&(late, late_receiver), 8);
}

#[test]
fn sessions_that_come_and_go_do_not_widen_their_connection() {
    const ROUNDS: u64 = 20;
    let site = Site::new();
    let kept = site.pairs(1);
    let ours = session_of(&kept[0].0.shared).trunk().clone();
    let come_and_go = || {
        let sender = site.connect(1);
        let (_, receiver) = site.accept();
        let pair = (sender, receiver);
        check_alive(&pair, 2);
        drop(pair);
        let theirs = session_of(&kept[0].1.shared).trunk();
        wait_until("it is gone", || theirs.lock().count() == 1);
        check_alive(&kept[0], 3);
    };
    come_and_go();
    // Growth is told in a frame of its own; what is read here is far too little to be told of.
    let told = || ours.connection().stats().frame_rx.max_data;
    let before = told();
    (0..ROUNDS).for_each(|_| come_and_go());
    let more = told() - before;
    assert!(more < ROUNDS / 2, "the window grew {more} times");
}

/// A store that cannot be read for a moment says nothing against those who are here.
#[test]
fn a_session_that_cannot_be_judged_ends_alone_and_may_come_again() {
    let verdict = Arc::new(std::sync::Mutex::new(Verdict::Allowed));
    let asked = verdict.clone();
    let site = Site::with(Arc::new(move |_, _| *asked.lock().unwrap()));
    let first = site.pairs(1);
    *verdict.lock().unwrap() = Verdict::Unknown;
    let refused = site.try_connect(1, site.endpoint.local_address(), &site.options);
    match refused.unwrap_err() {
        ConnectError::Refused { code, .. } => assert!(code.is_temporary(), "{code:?}"),
        error => panic!("{error}"),
    }
    check_alive(&first[0], 2);
    *verdict.lock().unwrap() = Verdict::Allowed;
    let late = site.connect(3);
    assert_eq!(trunk_of(&late.shared), trunk_of(&first[0].0.shared));
    let (_, late_receiver) = site.accept();
    check_alive(&(late, late_receiver), 4);
}

/// The handshake is over, or is waited for, when the link is made; nobody else holds the connection then.
#[test]
fn a_link_is_on_the_connection_that_was_dialled_ahead() {
    let site = Site::new();
    let address = site.endpoint.local_address();
    let tls = || sender_config(&site.sender, site.receiver.fingerprint(), &[ALPN_MIRROR]).unwrap();
    let dial =
        |options: &LinkOptions| Ahead::dial(site.runtime.handle(), tls(), move || Some(address), options);
    let sockets = site.options.sockets.as_ref().unwrap();
    let key = Key::of(address, &site.options).unwrap();
    for is_waited_for in [true, false] {
        let ahead = dial(&site.options).unwrap();
        let dialled = is_waited_for.then(|| {
            wait_until("it is dialled", || sockets.trunks().trunk(&key).is_some());
            sockets.trunks().trunk(&key).unwrap()
        });
        let pair = site.pairs(1).remove(0);
        let used = Arc::as_ptr(session_of(&pair.0.shared).trunk());
        assert!(dialled.is_none_or(|dialled| Arc::as_ptr(&dialled) == used));
        assert_eq!(
            sockets.trunks().trunk(&key).map(|trunk| Arc::as_ptr(&trunk)),
            Some(used)
        );
        drop(ahead);
        check_alive(&pair, 1);
        let connection = session_of(&pair.0.shared).trunk().connection().clone();
        pair.0.close(CloseCode::Done, "");
        wait_until("it has ended", || connection.close_reason().is_some());
    }
    let alone = LinkOptions {
        sharing: None,
        ..site.options.clone()
    };
    assert!(dial(&alone).is_none());
}

/// On a shared connection that answers no more another one is dialled at once.
#[test]
fn who_joins_a_connection_that_does_not_answer_dials_another() {
    let calls = std::sync::atomic::AtomicU64::default();
    let (hold, held) = crossbeam_channel::bounded::<()>(0);
    // The second question, about the session that joins, has no answer.
    let site = Site::with(Arc::new(move |_, _| {
        if calls.fetch_add(1, std::sync::atomic::Ordering::AcqRel) == 1 {
            let _ = held.recv_timeout(PATIENCE);
        }
        Verdict::Allowed
    }));
    let first = site.pairs(1);
    let options = LinkOptions {
        hello_timeout: Duration::from_secs(3),
        ..site.options.clone()
    };
    let late = site.try_connect(1, site.endpoint.local_address(), &options);
    let late = late.unwrap();
    assert_ne!(trunk_of(&late.shared), trunk_of(&first[0].0.shared));
    let (said, late_receiver) = site.accept();
    assert_eq!(said, 1);
    check_alive(&(late, late_receiver), 2);
    check_alive(&first[0], 3);
    drop(hold);
}

/// Each has a thread until its ops are taken, whether its bytes have all come or not.
#[test]
fn op_streams_that_have_ended_count_until_they_are_taken() {
    let site = Site::new();
    let pairs = site.pairs(1);
    let (sender, receiver) = &pairs[0];
    let ours = session_of(&sender.shared).trunk().clone();
    let frames = encode_frame(&OpFrame::default()).unwrap().repeat(16);
    let mut bytes = head(StreamKind::Ops, 0);
    bytes.extend(zstd::encode_all(&frames[..], 1).unwrap());
    let sending = site.runtime.spawn(async move {
        for _ in 0..3 * super::STREAMS_PER_SESSION {
            let Ok(mut stream) = ours.connection().open_uni().await else {
                return;
            };
            let _ = stream.write_all(&bytes).await;
            let _ = stream.finish();
        }
    });
    wait_until("there are too many", || receiver.ended().is_some());
    let Some(LinkEnd::Closed { code, text, .. }) = receiver.ended() else {
        panic!("{:?}", receiver.ended());
    };
    assert_eq!(code, CloseCode::Violation, "{text}");
    sending.abort();
}

/// The note may be late, for a path that was out: no reason to halt.
#[test]
fn a_session_whose_streams_are_given_up_without_a_note_is_lost_and_breaks_no_rule() {
    let site = Site::new();
    let pairs = site.pairs(2);
    let (sender, receiver) = &pairs[1];
    let session = session_of(&sender.shared);
    let before = receiver.statistics().bytes_received;
    let mut stream = site
        .runtime
        .block_on(session.trunk().connection().open_uni())
        .unwrap();
    let begin = head(StreamKind::Bulk, session.number());
    site.runtime.block_on(stream.write_all(&begin)).unwrap();
    let counted = before + begin.len() as u64;
    wait_until("its first bytes are counted", || {
        receiver.statistics().bytes_received >= counted
    });
    stream.reset(0u32.into()).unwrap();
    wait_until("it has ended", || receiver.ended().is_some());
    assert!(matches!(receiver.ended(), Some(LinkEnd::Lost { .. })));
    check_alive(&pairs[0], 2);
}

/// Two mirrors connect at once, and either may have dialled; the connection ends with a refusal before there is a session. It is an
/// answer to whoever was to have the first, and the other one asks for itself.
#[test]
fn the_refusal_of_one_mirror_is_no_answer_to_another() {
    for _ in 0..8 {
        let calls = std::sync::atomic::AtomicU64::default();
        let (hold, held) = crossbeam_channel::bounded::<()>(0);
        let site = Site::with(Arc::new(move |_, _| {
            if calls.fetch_add(1, std::sync::atomic::Ordering::AcqRel) > 0 {
                return Verdict::Allowed;
            }
            let _ = held.recv_timeout(PATIENCE);
            Verdict::Refused
        }));
        let address = site.endpoint.local_address();
        let key = Key::of(address, &site.options).unwrap();
        let outcomes: Vec<_> = std::thread::scope(|scope| {
            let connecting: Vec<_> = (0..2)
                .map(|number| (number, &site))
                .map(|(number, site)| {
                    scope.spawn(move || (number, site.try_connect(number, address, &site.options)))
                })
                .collect();
            let trunks = site.options.sockets.as_ref().unwrap().trunks();
            wait_until("both have a place on one connection", || {
                trunks.trunk(&key).is_some_and(|trunk| trunk.is_shared())
            });
            drop(hold);
            connecting.into_iter().map(|one| one.join().unwrap()).collect()
        });
        let (welcome, refused): (Vec<_>, Vec<_>) =
            outcomes.into_iter().partition(|(_, outcome)| outcome.is_ok());
        let refused: Vec<_> = refused
            .into_iter()
            .map(|(_, outcome)| outcome.unwrap_err())
            .collect();
        assert!(
            matches!(
                &refused[..],
                [ConnectError::Refused {
                    code: CloseCode::NotAllowed,
                    ..
                }]
            ),
            "{refused:?}"
        );
        for (number, sender) in welcome {
            let (said, receiver) = site.accept();
            assert_eq!(said, number);
            check_alive(&(sender.unwrap(), receiver), 5);
        }
    }
}

/// Whoever waits for the answer to an opening, or for a listing, meets nothing else.
#[test]
fn a_sign_of_life_is_no_message_to_anybody() {
    let site = Site::new();
    let pair = &site.pairs(1)[0];
    for number in 1..4 {
        for link in [&pair.0.shared, &pair.1.shared] {
            assert!(session_of(link).ask());
        }
        assert!(pair.1.handle().is_alive(PATIENCE));
        check_alive(pair, number);
    }
}

/// In a silence something is to be acknowledged. Sessions whose queue is full say nothing new.
#[test]
fn a_sign_of_life_is_asked_of_a_session_that_can_give_it() {
    let site = Site::new();
    let pairs = site.pairs(3);
    let sessions: Vec<_> = pairs
        .iter()
        .map(|(sender, _)| session_of(&sender.shared))
        .collect();
    let stuck: Vec<_> = sessions[..2]
        .iter()
        .map(|session| {
            let (queue, waiting) = crossbeam_channel::bounded(1);
            let outlet = Outlet::to(queue);
            assert!(outlet.try_send(flush(0)).is_ok());
            session.ask_by(move || outlet.try_send(ToReceiver::SIGN_OF_LIFE).is_ok());
            waiting
        })
        .collect();
    let asked = Arc::<std::sync::atomic::AtomicU64>::default();
    let counted = asked.clone();
    sessions[2].ask_by(move || {
        counted.fetch_add(1, std::sync::atomic::Ordering::AcqRel);
        true
    });
    let asked = || asked.load(std::sync::atomic::Ordering::Acquire);
    for _ in 0..10 {
        let before = asked();
        sessions[0].trunk().ask();
        assert!(asked() > before);
    }
    assert!(stuck.iter().all(|waiting| waiting.len() == 1));
}

#[test]
fn a_connection_without_sessions_has_one_timer() {
    const ENDS: usize = 300;
    let site = Site::new();
    let pairs = site.pairs(2);
    let ours = session_of(&pairs[0].0.shared).trunk().clone();
    let theirs = session_of(&pairs[0].1.shared).trunk().clone();
    // Its sender is about to begin another session, or it would close the connection.
    let place = ours.join().unwrap();
    drop(pairs);
    wait_until("there is no session", || theirs.lock().count() == 0);
    let tasks = || site.runtime.metrics().num_alive_tasks();
    let before = tasks();
    for _ in 0..ENDS {
        drop(theirs.join().unwrap());
    }
    let after = tasks();
    assert!(after < before + ENDS / 10, "{before} tasks, then {after}");
    drop(place);
}

/// However many sessions a connection has, a name of the peer's is looked up once at a time.
#[test]
fn a_silent_peers_name_is_looked_up_once_for_all_sessions() {
    const MOVED: &str = "moved.example";
    let site = Site::new();
    let pairs = site.pairs(40);
    let counted = Arc::<Mutex<Vec<String>>>::default();
    let counting = counted.clone();
    let look_up: LookUp = Arc::new(move |host, port| {
        counting.lock().unwrap().push(host.to_owned());
        let last = if host == MOVED { 9 } else { 1 };
        Ok(vec![([127, 0, 0, last], port).into()])
    });
    let sessions = pairs.iter().map(|(sender, _)| session_of(&sender.shared));
    for (number, session) in sessions.enumerate() {
        let host = if number < 35 { MOVED } else { "here.example" };
        let name = (host.to_owned(), 4433);
        session.trunk().follow_name(session, name, look_up.clone());
    }
    let trunk = session_of(&pairs[39].0.shared).trunk().clone();
    let (moved, here) = pairs.split_at(35);
    wait_until("who moved is left", || {
        // Again and again, since the peer is heard in fact.
        trunk.note_silent(true);
        moved.iter().all(|(sender, _)| sender.ended().is_some())
    });
    trunk.note_silent(false);
    assert!(here.iter().all(|(sender, _)| sender.ended().is_none()));
    let counted = counted.lock().unwrap().clone();
    let of_moved = counted.iter().filter(|host| *host == MOVED).count();
    assert!(of_moved >= 2 && counted.len() <= 10, "{counted:?}");
    check_alive(&pairs[39], 50);
}
