//! Both ends of a mirror connection.

mod bulk;
mod dial;
mod receiver;
mod sender;

pub(super) use bulk::BulkWay;
pub use bulk::{BulkSender, Range};
pub(super) use dial::{dial, dial_and_greet, hear_hello, say_hello};
pub(super) use receiver::PackedBulk;
pub use receiver::{LinkHandle, ReceiverLink};
pub use sender::{Ahead, SenderLink};

use super::compression::Compression;
use super::packed::{Packer, Pieces, UnpackError, pieces, unpack, unpack_now_and_then};
use super::separation::Wire;
use super::session::Session;
use super::shift::Outlet;
use super::shortcut::{Room, Side};
use super::transport::{escaped, resolve};
use crossbeam_channel::{Receiver, Sender, bounded};
use driftless_protocol::CloseCode;
use driftless_protocol::codec::Message;
use driftless_protocol::message::{ToReceiver, ToSender};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(super) const PRIORITY_NOTES: i32 = 3;
pub(super) const PRIORITY_CONTROL: i32 = 2;
const PRIORITY_OPS: i32 = 1;
const PRIORITY_BULK: i32 = 0;
/// Places are allocated from the start, some 150 bytes each.
pub(super) const CONTROL_QUEUE: usize = 64;
pub(super) const OP_QUEUE: usize = 64;
const BULK_QUEUE: usize = 8;
/// Frames of ops, and of ranges, that have arrived and that nobody has taken yet.
pub(super) const RECEIVED_FRAMES: usize = 4;

/// Why a link ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkEnd {
    /// One side closed it.
    Closed {
        /// Why.
        code: CloseCode,
        /// In words.
        text: String,
        /// Whether that was the other side.
        by_peer: bool,
    },
    /// The peer vanished, or the network did.
    Lost {
        /// In words.
        text: String,
    },
}

impl fmt::Display for LinkEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LinkEnd::Closed { text, .. } if !text.is_empty() => f.write_str(text),
            LinkEnd::Closed { by_peer: true, .. } => f.write_str("the other side ended the connection"),
            LinkEnd::Closed { .. } => f.write_str("the connection was ended"),
            LinkEnd::Lost { text } => write!(f, "the connection was lost: {text}"),
        }
    }
}

/// The link has ended; [`SenderLink::ended`] says why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the connection has ended")]
pub struct Ended;

/// What a link has moved so far. Where several links share a connection, its handshake, acknowledgements and the like count for
/// the first of them, and the bytes of their streams for the others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkStatistics {
    /// UDP payload sent.
    pub bytes_sent: u64,
    /// UDP payload received.
    pub bytes_received: u64,
    /// Packets of the connection found lost.
    pub packets_lost: u64,
    /// Present estimate of the round trip.
    pub round_trip: std::time::Duration,
}

/// What travels on a control stream.
pub(super) trait Control: Message + PartialEq + Send + Sync + 'static {
    /// Says nothing, but has to be acknowledged. Links say it by themselves, at any time, so whoever waits for a certain message
    /// must not meet it.
    const SIGN_OF_LIFE: Self;
}

impl Control for ToReceiver {
    const SIGN_OF_LIFE: ToReceiver = ToReceiver::SIGN_OF_LIFE;
}

impl Control for ToSender {
    const SIGN_OF_LIFE: ToSender = ToSender::SIGN_OF_LIFE;
}

/// What messages travel on.
#[derive(Debug, Clone)]
pub(super) enum Line {
    Network(Arc<Session>),
    /// The other end is in this process.
    Here(Arc<Room>, Side),
    /// Another process speaks to the network.
    Apart(Arc<Wire>),
}

/// The part that both ends share.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    line: Line,
}

impl Shared {
    pub(super) fn new(line: Line) -> Shared {
        Shared { line }
    }

    /// The peer's address; none for one in this process.
    pub(super) fn remote_address(&self) -> Option<IpAddr> {
        self.remote_socket().map(|remote| remote.ip())
    }

    /// The same with the port.
    pub(super) fn remote_socket(&self) -> Option<SocketAddr> {
        match &self.line {
            Line::Network(session) => Some(session.trunk().connection().remote_address()),
            Line::Here(..) => None,
            Line::Apart(wire) => Some(wire.remote()),
        }
    }

    #[cfg(test)]
    pub(super) fn line(&self) -> &Line {
        &self.line
    }

    pub(super) fn close(&self, code: CloseCode, text: &str) {
        match &self.line {
            Line::Network(session) => session.close(code, text),
            Line::Here(room, side) => room.close(*side, code, text),
            Line::Apart(wire) => wire.close(code, text),
        }
    }

    /// Has the link end if its peer is silent and this name, by which it was found, leads elsewhere by then.
    fn follow_name(&self, runtime: &tokio::runtime::Handle, host: &str, port: u16) {
        let name = (host.to_owned(), port);
        match &self.line {
            Line::Network(session) => session.trunk().follow_name(session, name, Arc::new(resolve)),
            Line::Here(..) => {}
            Line::Apart(wire) => wire.follow_name(runtime, name, Arc::new(resolve)),
        }
    }

    /// Whether the peer sends anything within `patience`, or four round trips if that is longer, when `ask` hands something to the
    /// link that it has to acknowledge. Blocks.
    pub(super) fn answers(&self, patience: Duration, ask: impl FnOnce() -> bool) -> bool {
        let session = match &self.line {
            Line::Network(session) => session,
            Line::Here(..) => return self.ended().is_none(),
            Line::Apart(wire) => return wire.answers(patience),
        };
        let connection = session.trunk().connection();
        let before = connection.stats();
        if session.ended().is_some() || !ask() {
            return false;
        }
        let deadline = Instant::now() + patience.max(4 * before.path.rtt);
        while session.ended().is_none() && Instant::now() < deadline {
            if connection.stats().udp_rx.datagrams > before.udp_rx.datagrams {
                return true;
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
        false
    }

    pub(super) fn ended(&self) -> Option<LinkEnd> {
        match &self.line {
            Line::Network(session) => session.ended(),
            Line::Here(room, side) => room.ended(*side),
            Line::Apart(wire) => wire.ended(),
        }
    }

    fn statistics(&self) -> LinkStatistics {
        match &self.line {
            Line::Network(session) => session.statistics(),
            Line::Here(..) | Line::Apart(_) => LinkStatistics::default(),
        }
    }

    /// A peer that broke a rule is told so.
    fn refuse(&self, error: &UnpackError) {
        self.close(CloseCode::Violation, &error.to_string());
    }

    /// Starts our direction of a session's control stream.
    pub(super) fn send_control<Out: Control>(
        runtime: &tokio::runtime::Handle,
        session: &Arc<Session>,
        send: quinn::SendStream,
        compression: Compression,
    ) -> Outlet<Out> {
        let (packed, to_write) = pieces();
        runtime.spawn(write_control(session.clone(), send, to_write));
        let stream = Packer::new(packed, compression, session.trunk().permit().clone(), &[]);
        Outlet::new(
            "control-out",
            CONTROL_QUEUE,
            vec![stream],
            Shared::new(Line::Network(session.clone())),
            |stream, waiting| stream.pack(waiting, |message, _| message),
        )
    }

    /// Starts the peer's direction of a session's control stream.
    pub(super) fn receive_control<In: Control>(
        runtime: &tokio::runtime::Handle,
        session: &Arc<Session>,
        receive: quinn::RecvStream,
    ) -> Receiver<In> {
        let (messages, incoming) = bounded::<In>(CONTROL_QUEUE);
        let (to_read, read) = pieces();
        let reading = session.clone();
        runtime.spawn(async move { reading.read_pieces(receive, to_read, false).await });
        let unpacking = Shared::new(Line::Network(session.clone()));
        runtime.spawn(async move {
            // `messages` lives on: whoever takes them must not see their end before it is said why.
            if let Err(error) = unpack_now_and_then(read, &messages).await {
                unpacking.refuse(&error);
            }
        });
        incoming
    }

    fn unpack_all<M: Message>(&self, pieces: &mut Pieces, messages: &Sender<M>) {
        if let Err(error) = unpack(pieces, messages) {
            self.refuse(&error);
        }
    }
}

/// Writes what was packed, until nothing more is packed or the session ends.
async fn write_control(session: Arc<Session>, mut stream: quinn::SendStream, mut pieces: Pieces) {
    while let Some(piece) = next_piece(&session, &mut pieces).await {
        if !session.write(&mut stream, piece, false).await {
            return;
        }
    }
    session.leave(stream);
}

/// What is to be written next; none if nothing is, or the session has ended.
async fn next_piece(session: &Session, pieces: &mut Pieces) -> Option<Vec<u8>> {
    tokio::select! {
        piece = pieces.recv() => piece,
        () = session.over() => None,
    }
}

pub(super) fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map(|_| ())
}

pub(super) fn link_end(error: &quinn::ConnectionError) -> LinkEnd {
    match error {
        quinn::ConnectionError::ApplicationClosed(close) => LinkEnd::Closed {
            code: CloseCode::from_number(close.error_code.into_inner()),
            text: escaped(&close.reason),
            by_peer: true,
        },
        quinn::ConnectionError::LocallyClosed => LinkEnd::Closed {
            code: CloseCode::Done,
            text: String::new(),
            by_peer: false,
        },
        quinn::ConnectionError::TimedOut => LinkEnd::Lost {
            text: "the peer does not answer any more".to_owned(),
        },
        error => LinkEnd::Lost {
            text: error.to_string(),
        },
    }
}
