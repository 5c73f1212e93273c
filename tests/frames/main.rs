//! Peers that are trusted and whose QUIC is made to do harm, N-14 and N-15: floods of path challenges and of identifiers,
//! acknowledgements of what was never sent, streams in single bytes with gaps. quinn is to bound all that; here it is
//! shown that it does, in the receiver as it is shipped. No other peer may notice, and memory stays as it was.

mod forger;
#[path = "../operating/site.rs"]
#[allow(dead_code, reason = "shared with the tests of operating")]
mod site;
#[path = "../support/mod.rs"]
mod support;

use driftless_certs::{Fingerprint, Identity, sender_config};
use driftless_protocol::message::{ToReceiver, ToSender};
use driftless_protocol::version::ALPN_MIRROR;
use forger::{Forger, put_number};
use quinn::congestion::CubicConfig;
use quinn::{ConnectionError, TransportErrorCode};
use site::{Daemon, Site};
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use support::peer::{Peer, dial_with, opening};
use support::{PATIENCE, runtime};

const PADDING: u8 = 0x00;
const ACK: u64 = 0x02;
const CRYPTO: u64 = 0x06;
/// STREAM with an offset and a length.
const STREAM: u64 = 0x0e;
const NEW_CONNECTION_ID: u64 = 0x18;
const PATH_CHALLENGE: u64 = 0x1a;

/// What a flood may add to the memory of the receiver's processes: all that they keep for a connection is some windows.
const GROWTH_KIB: u64 = 8 << 10;

/// A receiver, and a peer of it that will do harm.
struct Bed {
    site: Site,
    receiver: Daemon,
    address: SocketAddr,
    server: Fingerprint,
    forger: Arc<Forger>,
}

impl Bed {
    fn new() -> Bed {
        let site = Site::new(&[]);
        let (receiver, target) = site.receiver("dst");
        // driftless://FINGERPRINT@ADDRESS/dst
        let target = target.trim_start_matches("driftless://").trim_end_matches("/dst");
        let (server, address) = target.split_once('@').unwrap();
        Bed {
            receiver,
            address: address.parse().unwrap(),
            server: server.parse().unwrap(),
            forger: Arc::default(),
            site,
        }
    }

    /// A connection that has said hello, by which the forger may say what it likes.
    fn greet(&self) -> Peer {
        self.greet_by(&self.forger)
    }

    fn greet_by(&self, forger: &Arc<Forger>) -> Peer {
        let identity = Identity::load_or_create(&self.site.home().identity_dir()).unwrap();
        let tls = sender_config(&identity, self.server, &[ALPN_MIRROR]).unwrap();
        let mut config = forger.config(tls);
        let mut transport = quinn::TransportConfig::default();
        // It does not wait for acknowledgements.
        let mut congestion = CubicConfig::default();
        congestion.initial_window(64 << 20);
        transport
            .congestion_controller_factory(Arc::new(congestion))
            .mtu_discovery_config(None);
        config.transport_config(Arc::new(transport));
        Peer::greet(dial_with(self.address, config).unwrap()).unwrap()
    }

    /// Sends packets in the name of some streams, none of which the other side ever hears of.
    fn flood(&self, peer: &Peer, streams: usize) {
        let connection = &peer.dialled.connection;
        for _ in 0..streams {
            let _ = runtime().block_on(async {
                let mut stream = connection.open_uni().await?;
                // Less than a stream's window, which nobody widens.
                stream.write_all(&vec![PADDING; 2 << 20]).await?;
                let _ = stream.finish();
                // Every packet was acknowledged, or the connection has ended.
                let _ = tokio::time::timeout(PATIENCE, stream.stopped()).await;
                Ok::<_, quinn::WriteError>(())
            });
        }
    }

    /// How the receiver ended the connection.
    fn closed(&self, peer: &Peer) -> (TransportErrorCode, String) {
        let closed = peer.dialled.connection.closed();
        let error = runtime().block_on(async { tokio::time::timeout(PATIENCE, closed).await });
        match error.expect("the connection stays open") {
            ConnectionError::ConnectionClosed(close) => (
                close.error_code,
                String::from_utf8_lossy(&close.reason).into_owned(),
            ),
            other => panic!("not closed by the receiver's QUIC: {other:?}"),
        }
    }

    /// Resident memory of the receiver's processes.
    fn kib(&self) -> u64 {
        let process = self.receiver.process();
        let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap();
        let children: String = tasks
            .filter_map(|task| fs::read_to_string(task.ok()?.path().join("children")).ok())
            .collect();
        let own = process.to_string();
        let processes = children.split_whitespace().chain([own.as_str()]);
        processes
            .filter_map(|process| fs::read_to_string(format!("/proc/{process}/status")).ok())
            .filter_map(|status| {
                let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
                line.trim().trim_end_matches(" kB").parse::<u64>().ok()
            })
            .sum()
    }

    /// A peer that does no harm gets in, and its session is opened.
    fn assert_served(&self) {
        let honest = Arc::new(Forger::default());
        let mut peer = self.greet_by(&honest);
        peer.send(&ToReceiver::Open(opening(b"dst", 1)));
        let answer = peer.next();
        assert!(matches!(answer, Some(ToSender::Opened(_))), "{answer:?}");
        peer.leave();
    }

    fn assert_unharmed(&mut self, before: u64) {
        let after = self.kib();
        println!(
            "{} packets forged; {before} KiB, then {after} KiB",
            self.forger.forged()
        );
        assert!(self.forger.forged() > 0, "nothing was forged");
        assert!(after < before + GROWTH_KIB, "{before} KiB, then {after} KiB");
        self.assert_served();
        assert!(
            self.receiver.status().is_none(),
            "{:#?}",
            self.receiver.said_now()
        );
    }
}

/// Fills the packet with frames, as many as fit.
fn fill(frames: &mut Vec<u8>, room: usize, mut frame: impl FnMut(&mut Vec<u8>)) {
    loop {
        let length = frames.len();
        frame(frames);
        if frames.len() > room {
            return frames.truncate(length);
        }
    }
}

#[test]
fn n_14_path_challenges_are_answered_in_bounds() {
    let mut bed = Bed::new();
    bed.assert_served();
    let peer = bed.greet();
    let before = bed.kib();
    let mut number = 0u64;
    bed.forger.forge(move |frames, room| {
        fill(frames, room, |frames| {
            number += 1;
            frames.push(PATH_CHALLENGE as u8);
            frames.extend(number.to_be_bytes());
        });
    });
    bed.flood(&peer, 4);
    // That is no reason to end a connection, and only so many are remembered.
    assert!(peer.dialled.connection.close_reason().is_none());
    bed.assert_unharmed(before);
}

/// Each new identifier retires the one before, which has to be confirmed; nothing that the receiver says is acknowledged.
#[test]
fn n_14_identifiers_that_are_never_acknowledged_end_the_connection() {
    let mut bed = Bed::new();
    bed.assert_served();
    let peer = bed.greet();
    let (before, own) = (bed.kib(), bed.forger.own_id());
    bed.forger.be_deaf();
    let mut number = 8u64;
    bed.forger.forge(move |frames, room| {
        fill(frames, room, |frames| {
            number += 1;
            put_number(frames, NEW_CONNECTION_ID);
            put_number(frames, number);
            put_number(frames, number);
            frames.push(own.len() as u8);
            // The same one, so that its answers arrive.
            frames.extend(&own);
            frames.extend(blake3::hash(&number.to_be_bytes()).as_bytes()[..16].iter());
        });
    });
    bed.flood(&peer, 1);
    let (code, reason) = bed.closed(&peer);
    assert_eq!(code, TransportErrorCode::CONNECTION_ID_LIMIT_ERROR, "{reason}");
    bed.assert_unharmed(before);
}

/// Acknowledgements of packets that were never sent would open a window to send ever faster.
#[test]
fn n_14_acknowledgements_of_what_was_never_sent_end_the_connection() {
    let mut bed = Bed::new();
    bed.assert_served();
    let peer = bed.greet();
    let before = bed.kib();
    bed.forger.forge(|frames, room| {
        if room >= 64 {
            // The largest, the delay, no further ranges, and how many before the largest.
            for number in [ACK, 1 << 20, 0, 0, 1 << 19] {
                put_number(frames, number);
            }
        }
    });
    bed.flood(&peer, 1);
    let (code, reason) = bed.closed(&peer);
    assert_eq!(code, TransportErrorCode::PROTOCOL_VIOLATION, "{reason}");
    bed.assert_unharmed(before);
}

/// Every second byte of a stream, so that none can be joined to another.
fn gaps(stream: Option<u64>, first: u64) -> impl FnMut(&mut Vec<u8>, usize) + Send + 'static {
    let mut offset = first;
    move |frames, room| {
        fill(frames, room, |frames| {
            offset += 2;
            match stream {
                Some(stream) => {
                    put_number(frames, STREAM);
                    put_number(frames, stream);
                }
                None => put_number(frames, CRYPTO),
            }
            put_number(frames, offset);
            put_number(frames, 1);
            frames.push(7);
        });
    }
}

#[test]
fn n_15_a_stream_of_single_bytes_with_gaps_ends_the_connection() {
    let mut bed = Bed::new();
    bed.assert_served();
    let mut peer = bed.greet();
    // One that the receiver knows, as it has begun honestly.
    let stream = peer.op_stream();
    let before = bed.kib();
    bed.forger.forge(gaps(Some(stream.id().index() << 2 | 2), 1_000));
    bed.flood(&peer, 1);
    let (code, reason) = bed.closed(&peer);
    assert!(reason.contains("gaps"), "{code}: {reason}");
    bed.assert_unharmed(before);
}

#[test]
fn n_15_a_handshake_that_goes_on_with_gaps_ends_the_connection() {
    let mut bed = Bed::new();
    bed.assert_served();
    let peer = bed.greet();
    let before = bed.kib();
    bed.forger.forge(gaps(None, 1_000));
    bed.flood(&peer, 1);
    let (code, reason) = bed.closed(&peer);
    assert!(
        reason.contains("gaps") || code == TransportErrorCode::CRYPTO_BUFFER_EXCEEDED,
        "{code}: {reason}"
    );
    bed.assert_unharmed(before);
}
