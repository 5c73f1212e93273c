//! Both ends of a mirror connection.

mod bulk;
mod dial;
mod receiver;
mod sender;

pub(super) use bulk::BulkWay;
pub use bulk::{BulkSender, Range};
pub(super) use dial::{dial, dial_and_greet, hear_hello, say_hello};
pub use receiver::{LinkHandle, ReceiverLink};
pub use sender::SenderLink;

use super::compression::Compression;
use super::congestion::Permit;
use super::packed::{
    Packer, Pieces, UnpackError, pieces, read_pieces, unpack, unpack_now_and_then, write_pieces,
};
use super::shift::Outlet;
use super::shortcut::{Room, Side};
use super::transport::escaped;
use crossbeam_channel::{Receiver, Sender, bounded};
use driftless_protocol::CloseCode;
use driftless_protocol::codec::Message;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

const OP_STREAM: u8 = 1;
const BULK_STREAM: u8 = 2;
const PRIORITY_CONTROL: i32 = 2;
const PRIORITY_OPS: i32 = 1;
const PRIORITY_BULK: i32 = 0;
/// Places are allocated from the start, some 150 bytes each.
const CONTROL_QUEUE: usize = 64;
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

/// What a link has moved so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkStatistics {
    /// UDP payload sent.
    pub bytes_sent: u64,
    /// UDP payload received.
    pub bytes_received: u64,
    /// Packets found lost.
    pub packets_lost: u64,
    /// Present estimate of the round trip.
    pub round_trip: std::time::Duration,
}

/// What messages travel on.
#[derive(Debug, Clone)]
pub(super) enum Line {
    Network(quinn::Connection),
    /// The other end is in this process.
    Here(Arc<Room>, Side),
}

/// The part that both ends share.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    line: Line,
    end: Arc<Mutex<Option<LinkEnd>>>,
}

impl Shared {
    pub(super) fn new(line: Line) -> Shared {
        Shared {
            line,
            end: Arc::default(),
        }
    }

    /// The peer's address; none for one in this process.
    pub(super) fn remote_address(&self) -> Option<IpAddr> {
        match &self.line {
            Line::Network(connection) => Some(connection.remote_address().ip()),
            Line::Here(..) => None,
        }
    }

    pub(super) fn close(&self, code: CloseCode, text: &str) {
        let connection = match &self.line {
            Line::Network(connection) => connection,
            Line::Here(room, side) => return room.close(*side, code, text),
        };
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        if end.is_none() && connection.close_reason().is_none() {
            *end = Some(LinkEnd::Closed {
                code,
                text: text.to_owned(),
                by_peer: false,
            });
        }
        let text = &text[..text.floor_char_boundary(driftless_protocol::limits::TEXT_BYTES_MAX)];
        connection.close(code.number().into(), text.as_bytes());
    }

    /// Whether the peer sends anything within `patience`, or four round trips if that is longer, when `ask` hands something to the
    /// link that it has to acknowledge. Blocks.
    pub(super) fn answers(&self, patience: Duration, ask: impl FnOnce() -> bool) -> bool {
        let Line::Network(connection) = &self.line else {
            return self.ended().is_none();
        };
        let before = connection.stats();
        if !ask() {
            return false;
        }
        let deadline = Instant::now() + patience.max(4 * before.path.rtt);
        while connection.close_reason().is_none() && Instant::now() < deadline {
            if connection.stats().udp_rx.datagrams > before.udp_rx.datagrams {
                return true;
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
        false
    }

    pub(super) fn ended(&self) -> Option<LinkEnd> {
        let connection = match &self.line {
            Line::Network(connection) => connection,
            Line::Here(room, side) => return room.ended(*side),
        };
        let ours = self.end.lock().unwrap_or_else(PoisonError::into_inner).clone();
        ours.or_else(|| connection.close_reason().map(|error| link_end(&error)))
    }

    fn statistics(&self) -> LinkStatistics {
        let Line::Network(connection) = &self.line else {
            return LinkStatistics::default();
        };
        let statistics = connection.stats();
        LinkStatistics {
            bytes_sent: statistics.udp_tx.bytes,
            bytes_received: statistics.udp_rx.bytes,
            packets_lost: statistics.path.lost_packets,
            round_trip: statistics.path.rtt,
        }
    }

    /// A peer that broke a rule is told so.
    fn refuse(&self, error: &UnpackError) {
        self.close(CloseCode::Violation, &error.to_string());
    }

    /// Starts our direction of the control stream.
    pub(super) fn send_control<Out: Message + Send + 'static>(
        &self,
        runtime: &tokio::runtime::Handle,
        send: quinn::SendStream,
        compression: Compression,
        permit: &Arc<Permit>,
    ) -> Outlet<Out> {
        let (packed, to_write) = pieces();
        runtime.spawn(write_pieces(send, to_write));
        let stream = Packer::new(packed, compression, permit.clone(), &[]);
        Outlet::new(
            "control-out",
            CONTROL_QUEUE,
            vec![stream],
            self.clone(),
            |stream, waiting| stream.pack(waiting, |message, _| message),
        )
    }

    /// Starts the peer's direction of the control stream.
    pub(super) fn receive_control<In: Message + Send + 'static>(
        &self,
        runtime: &tokio::runtime::Handle,
        receive: quinn::RecvStream,
    ) -> Receiver<In> {
        let (messages, incoming) = bounded::<In>(CONTROL_QUEUE);
        let (to_read, read) = pieces();
        let (reading, unpacking) = (self.clone(), self.clone());
        runtime.spawn(async move { reading.read(receive, to_read).await });
        runtime.spawn(async move {
            // `messages` lives on: whoever takes them must not see their end before it is said why.
            if let Err(error) = unpack_now_and_then(read, &messages).await {
                unpacking.refuse(&error);
            }
        });
        incoming
    }

    async fn read(&self, stream: quinn::RecvStream, pieces: mpsc::Sender<Vec<u8>>) {
        if !read_pieces(stream, pieces).await {
            self.close(CloseCode::Violation, "a stream was reset");
        }
    }

    fn unpack_all<M: Message>(&self, pieces: &mut Pieces, messages: &Sender<M>) {
        if let Err(error) = unpack(pieces, messages) {
            self.refuse(&error);
        }
    }
}

pub(super) fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map(|_| ())
}

fn link_end(error: &quinn::ConnectionError) -> LinkEnd {
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
