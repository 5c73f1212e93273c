//! Notices that a peer acknowledges nothing any more, and asks again and again until it does.
//!
//! See [`super::congestion::Permit`] for why QUIC's own probes are not enough. Each end does so for what it sent itself.
//! One packet in [`ASK_EVERY`] is less than any congestion control would allow, and it ends with the connection, which
//! a silent peer loses at the idle timeout.

use super::congestion::Permit;
use super::session::Session;
use super::transport::resolve;
use super::trunk::Trunk;
use crossbeam_channel::{Receiver, Sender, bounded};
use driftless_protocol::CloseCode;
use quinn::Connection;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// So long without an acknowledgement, or three round trips, is a silence.
const SILENCE: Duration = Duration::from_secs(1);
/// How often is asked in a silence.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// How often the name of a silent peer is looked up.
const LOOK_UP_EVERY: Duration = Duration::from_secs(2);

/// Whether the peer of a connection is silent, for who has work that only it can use.
#[derive(Debug)]
pub struct Silence {
    is_now: AtomicBool,
    begun: Notify,
    end: Sender<()>,
    ended: Receiver<()>,
}

impl Default for Silence {
    /// A peer that is not silent.
    fn default() -> Silence {
        let (end, ended) = bounded(1);
        Silence {
            is_now: AtomicBool::new(false),
            begun: Notify::new(),
            end,
            ended,
        }
    }
}

impl Silence {
    /// Whether something is not acknowledged for longer than a path takes.
    pub fn is_now(&self) -> bool {
        self.is_now.load(Ordering::Acquire)
    }

    /// Holds a message once a silence has ended, by an acknowledgement or with the connection; to be emptied before
    /// [`Silence::is_now`] is asked again.
    pub fn ended(&self) -> &Receiver<()> {
        &self.ended
    }

    pub(super) fn begin(&self) {
        self.is_now.store(true, Ordering::Release);
        self.begun.notify_one();
    }

    pub(super) fn end(&self) {
        if self.is_now.swap(false, Ordering::AcqRel) {
            // One message says it as well as two.
            let _ = self.end.try_send(());
        }
    }
}

/// What a connection has sent and heard, as far as it shows whether somebody is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Heard {
    /// Frames that the peer has to acknowledge.
    asked: u64,
    /// Acknowledgements of something that was not acknowledged before.
    answered: u64,
    /// Bytes that were in flight after the last of these.
    open: u64,
}

impl Heard {
    fn of(connection: &Connection, permit: &Permit) -> Heard {
        let sent = connection.stats().frame_tx;
        let streams = sent.stream + sent.reset_stream + sent.stop_sending + sent.crypto;
        let windows = sent.max_data + sent.max_stream_data + sent.max_streams_uni + sent.max_streams_bidi;
        let blocked = sent.data_blocked + sent.stream_data_blocked + sent.streams_blocked_uni;
        let ids = sent.new_connection_id + sent.retire_connection_id;
        Heard {
            // QUIC's own probes are `immediate_ack`.
            asked: streams + windows + blocked + ids + sent.ping + sent.immediate_ack,
            answered: permit.acknowledged(),
            open: permit.open(),
        }
    }
}

/// Watches a connection until it ends: in a silence one of its sessions says something that the peer has to acknowledge. All of
/// them are told.
pub(super) async fn watch(trunk: Arc<Trunk>) {
    let (connection, permit) = (trunk.connection(), trunk.permit());
    let mut before = Heard::of(connection, permit);
    // The estimate of the round trip is no help after an outage: late acknowledgements count as a long one.
    let mut shortest = connection.rtt();
    while connection.close_reason().is_none() {
        tokio::select! {
            () = permit.departed() => {}
            _ = connection.closed() => return,
        }
        shortest = shortest.min(connection.rtt());
        let mut pause = SILENCE.max(3 * shortest);
        let mut is_silent = false;
        loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = permit.heard(), if is_silent => {}
                _ = connection.closed() => {}
            }
            if connection.close_reason().is_some() {
                trunk.note_silent(false);
                return;
            }
            let now = Heard::of(connection, permit);
            if now.answered != before.answered || (now.asked == before.asked && before.open == 0) {
                if std::mem::take(&mut is_silent) {
                    trunk.note_silent(false);
                }
                before = now;
                if now.open == 0 {
                    break;
                }
                continue;
            }
            tracing::debug!(peer = %connection.remote_address(), "nothing is acknowledged; asking");
            if !std::mem::replace(&mut is_silent, true) {
                trunk.note_silent(true);
            }
            permit.give();
            trunk.ask();
            trunk.poke();
            pause = ASK_EVERY;
        }
    }
}

/// As many answers in a row have to lead elsewhere: some servers tell a part of the addresses at a time.
const ELSEWHERE_MIN: u32 = 2;

/// Ends a session whose peer is silent and whose name leads elsewhere by now: a peer that was moved, and died unheard at its
/// old address, is found without the idle timeout. A name that cannot be looked up says nothing.
pub(super) async fn watch_name(session: Arc<Session>, host: String, port: u16) {
    let silence = session.silence();
    loop {
        tokio::select! {
            () = silence.begun.notified() => {}
            () = session.over() => return,
        }
        let mut elsewhere = 0;
        while silence.is_now() {
            tokio::select! {
                () = tokio::time::sleep(LOOK_UP_EVERY) => {}
                () = session.over() => return,
            }
            let name = host.clone();
            let found = tokio::task::spawn_blocking(move || resolve(&name, port)).await;
            let here = session.trunk().connection().remote_address();
            let is_here = |address: &SocketAddr| address.ip().to_canonical() == here.ip().to_canonical();
            match found {
                Ok(Ok(found)) if !found.is_empty() && !found.iter().any(is_here) => elsewhere += 1,
                _ => elsewhere = 0,
            }
            if silence.is_now() && elsewhere >= ELSEWHERE_MIN {
                let text = format!("{host} has another address now, and nobody answers at {here}");
                session.close(CloseCode::Busy, &text);
                return;
            }
        }
    }
}
