//! Notices that a peer acknowledges nothing any more, and asks again and again until it does.
//!
//! See [`super::congestion::Permit`] for why QUIC's own probes are not enough. Each end does so for what it sent itself.
//! One packet in [`ASK_EVERY`] is less than any congestion control would allow, and it ends with the connection, which
//! a silent peer loses at the idle timeout.

use super::congestion::Permit;
use super::session::Session;
use super::transport::ConnectError;
use super::trunk::Trunk;
use crossbeam_channel::{Receiver, Sender, bounded};
use quinn::Connection;
use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch as state;

/// So long without an acknowledgement, or three round trips, is a silence.
const SILENCE: Duration = Duration::from_secs(1);
/// How often is asked in a silence.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// How often the name of a silent peer is looked up.
const LOOK_UP_EVERY: Duration = Duration::from_secs(2);

/// Whether the peer of a connection is silent, for who has work that only it can use.
#[derive(Debug)]
pub struct Silence {
    is_now: state::Sender<bool>,
    end: Sender<()>,
    ended: Receiver<()>,
}

impl Default for Silence {
    /// A peer that is not silent.
    fn default() -> Silence {
        let (end, ended) = bounded(1);
        Silence {
            is_now: state::channel(false).0,
            end,
            ended,
        }
    }
}

impl Silence {
    /// Whether something is not acknowledged for longer than a path takes.
    pub fn is_now(&self) -> bool {
        *self.is_now.borrow()
    }

    /// Sees it begin and end from now on.
    pub(super) fn changes(&self) -> state::Receiver<bool> {
        self.is_now.subscribe()
    }

    /// Holds a message once a silence has ended, by an acknowledgement or with the connection; to be emptied before
    /// [`Silence::is_now`] is asked again.
    pub fn ended(&self) -> &Receiver<()> {
        &self.ended
    }

    pub(super) fn begin(&self) {
        self.is_now.send_replace(true);
    }

    pub(super) fn end(&self) {
        if self.is_now.send_replace(false) {
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

/// A host's name and a port, by which a peer was found.
pub(super) type HostName = (String, u16);

/// Finds the addresses of a name. Blocks.
pub(super) type LookUp = Arc<dyn Fn(&str, u16) -> Result<Vec<SocketAddr>, ConnectError> + Send + Sync>;

/// A connection whose peer was found by names: a receiver may have several, and mirrors that share a connection to it need not use
/// the same.
pub(super) trait Named: Send + Sync + 'static {
    /// Whether the peer is silent.
    fn silence(&self) -> &Silence;

    /// Waits for the end of the connection.
    fn over(&self) -> impl Future<Output = ()> + Send;

    /// Where the peer is, or was.
    fn remote(&self) -> SocketAddr;

    /// The names, each once however many use it.
    fn names(&self) -> BTreeSet<HostName>;

    /// Ends what was found by this name.
    fn leave(&self, name: &HostName, text: &str);
}

/// Ends what was found by a name that leads elsewhere by now, while the peer is silent: a peer that was moved, and died unheard at
/// its old address, is found without the idle timeout. A name that cannot be looked up says nothing. One of these is
/// enough for a connection.
pub(super) async fn watch_names(peer: Arc<impl Named>, look_up: LookUp) {
    let mut silence = peer.silence().changes();
    let watching = async {
        while silence.wait_for(|&is_now| is_now).await.is_ok() {
            let mut elsewhere = HashMap::<HostName, u32>::new();
            while peer.silence().is_now() {
                tokio::time::sleep(LOOK_UP_EVERY).await;
                for name in peer.names() {
                    let leads_elsewhere = leads_elsewhere(&*peer, &name, &look_up).await;
                    let count = elsewhere.entry(name.clone()).or_default();
                    *count = if leads_elsewhere { *count + 1 } else { 0 };
                    if *count >= ELSEWHERE_MIN && peer.silence().is_now() {
                        let (host, here) = (&name.0, peer.remote());
                        let text = format!("{host} has another address now, and nobody answers at {here}");
                        peer.leave(&name, &text);
                    }
                }
            }
        }
    };
    tokio::select! {
        () = watching => {}
        () = peer.over() => {}
    }
}

/// Whether a name has addresses, and the peer's is not among them.
async fn leads_elsewhere(peer: &impl Named, (host, port): &HostName, look_up: &LookUp) -> bool {
    let (host, port, look_up) = (host.clone(), *port, look_up.clone());
    let found = tokio::task::spawn_blocking(move || look_up(&host, port)).await;
    let here = peer.remote().ip().to_canonical();
    let is_here = |address: &SocketAddr| address.ip().to_canonical() == here;
    matches!(found, Ok(Ok(found)) if !found.is_empty() && !found.iter().any(is_here))
}

/// Tells when a session's silences begin and end, until the session does.
pub(super) async fn tell(session: Arc<Session>, tell: impl Fn(bool) + Send + 'static) {
    let mut silence = session.silence().changes();
    if *silence.borrow() {
        tell(true);
    }
    loop {
        tokio::select! {
            // The sender of the channel is in `session`.
            _ = silence.changed() => tell(*silence.borrow_and_update()),
            () = session.over() => return,
        }
    }
}
