//! Both ends of a mirror connection.

use super::compression::{Compression, Queue, Steering, Stint};
use super::congestion::{PathMemory, Permit, memory_of};
use super::gather::collect_ops;
use super::lanes::OpSender;
use super::packed::{
    Packer, Pieces, UnpackError, pieces, read_pieces, unpack, unpack_now_and_then, write_pieces,
};
use super::shift::Outlet;
use super::shortcut::{Origin, Room, Side};
use super::silence::{self, Silence};
use super::sockets::any;
use super::spread::Spread;
use super::transport::{
    BULK_STREAMS, CONNECTION_WINDOW_BYTES, ConnectError, LinkOptions, OP_STREAMS, connect_error, endpoint,
    escaped, no_answer, transport,
};
use crossbeam_channel::{Receiver, Sender, bounded};
use driftless_certs::{Fingerprint, SERVER_NAME};
use driftless_protocol::CloseCode;
use driftless_protocol::codec::{self, FRAME_PREFIX_BYTES, Message};
use driftless_protocol::limits::BULK_FRAME_BYTES_MAX;
use driftless_protocol::message::{BulkFrame, OpFrame, RangeBody, Runs, ToReceiver, ToSender};
use driftless_protocol::version::{Features, HELLO_BYTES, Hello};
use quinn::crypto::rustls::QuicClientConfig;
use std::cell::Cell;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
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

/// A range that has arrived.
#[derive(Debug)]
pub struct Range {
    /// The range.
    pub frame: BulkFrame,
    /// The sum of its bytes if it is a span, as its sender took it: known only if that is in this process, so that the bytes
    /// are those in the same memory.
    pub sum: Option<[u8; 32]>,
    /// Where its bytes stand, at the same offset, if the frame has none of them.
    pub origin: Option<Origin>,
    /// Where the memory of its bytes is used again.
    pub(super) spare: Option<Sender<Vec<u8>>>,
}

impl Drop for Range {
    fn drop(&mut self) {
        if let (Some(spare), RangeBody::Raw(bytes)) = (&self.spare, &mut self.frame.body) {
            let _ = spare.try_send(std::mem::take(&mut bytes.0));
        }
    }
}

thread_local! {
    /// Since this thread handed over its last range.
    static STINT: Cell<Option<Stint>> = const { Cell::new(None) };
}

/// Hands ranges to the bulk streams.
#[derive(Debug, Clone)]
pub struct BulkSender {
    pub(super) way: BulkWay,
    pub(super) steering: Arc<Steering>,
}

/// Where ranges go.
#[derive(Debug, Clone)]
pub(super) enum BulkWay {
    Network(mpsc::Sender<Vec<u8>>),
    Here(Arc<Room>),
}

impl BulkSender {
    /// At which level of zstd the next range should be compressed; none if it should not.
    pub fn level(&self) -> Option<i32> {
        self.steering.level()
    }

    /// The level for what travels in zstd's format in any case.
    pub fn framing_level(&self) -> i32 {
        self.steering.framing_level()
    }

    /// A copy of a range's bytes. Memory comes from ranges that were taken, where that can be: to get it anew from the kernel
    /// takes as long as to hash what is in it.
    pub fn copy(&self, bytes: &[u8]) -> Vec<u8> {
        match &self.way {
            BulkWay::Network(_) => bytes.to_vec(),
            BulkWay::Here(room) => {
                let mut copy = room.spare();
                copy.extend_from_slice(bytes);
                copy
            }
        }
    }

    /// Waits for room. `sum` is that of the range's bytes, if they are a span and it is known; `origin` is where a receiver
    /// in this process gets them from, and then the frame needs none.
    pub fn send(&self, frame: BulkFrame, sum: Option<[u8; 32]>, origin: Option<Origin>) -> Result<(), Ended> {
        let frames = match &self.way {
            BulkWay::Network(frames) => frames,
            BulkWay::Here(room) => return room.send_bulk(frame, sum, origin),
        };
        let bytes = codec::encode_frame(&frame).map_err(|_| Ended)?;
        let queue = Queue::of(frames.capacity(), frames.max_capacity());
        let had_processor = STINT.get().is_some_and(|stint| stint.had_processor());
        self.steering.observe(queue, had_processor);
        let sent = frames.blocking_send(bytes).map_err(|_| Ended);
        STINT.set(Some(Stint::begin()));
        sent
    }

    /// Whether the receiver is in this process, so that packing its bytes is of no use.
    pub fn is_local(&self) -> bool {
        matches!(&self.way, BulkWay::Here(room) if room.is_near())
    }
}

/// The sender's end.
#[derive(Debug)]
pub struct SenderLink {
    pub(super) shared: Shared,
    pub(super) control: Outlet<ToReceiver>,
    pub(super) incoming: Receiver<ToSender>,
    pub(super) ops: OpSender,
    pub(super) bulk: BulkSender,
    pub(super) features: Features,
    pub(super) silence: Arc<Silence>,
    pub(super) _endpoint: Option<quinn::Endpoint>,
}

impl SenderLink {
    /// Connects to the first address that answers, or answers the receiver that has called, and sends the first messages. Blocks;
    /// not for threads of the runtime.
    pub fn connect(
        runtime: &tokio::runtime::Handle,
        tls: rustls::ClientConfig,
        addresses: &[SocketAddr],
        first: Vec<ToReceiver>,
        options: &LinkOptions,
    ) -> Result<SenderLink, ConnectError> {
        if let Some(shortcut) = &options.shortcut {
            let failed = |error: std::io::Error| ConnectError::Failed(error.to_string());
            let link = shortcut.connect(first).map_err(failed)?;
            return link.ok_or_else(|| ConnectError::Failed("the receiver has ended".to_owned()));
        }
        if let Some(calls) = &options.calls {
            return calls.answer(runtime, first, options);
        }
        let mut last = ConnectError::Failed("there is no address to connect to".to_owned());
        for &address in addresses {
            match runtime.block_on(dial(tls.clone(), address, options, 0)) {
                Ok((endpoint, connection, permit)) => {
                    let watched = connection.clone();
                    let link = Self::open(runtime, endpoint, connection, &permit, first, address, options)?;
                    let (control, silence) = (link.control.clone(), link.silence.clone());
                    runtime.spawn(silence::watch(watched, permit, 0, silence, move || {
                        // Asks for what is promised already: it has to be acknowledged, and means nothing.
                        let _ = control.offer(ToReceiver::Flush { number: 0 });
                    }));
                    return Ok(link);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Begins the control stream. Our first messages go right behind our hello, in the first flight after the handshake: to
    /// wait for the receiver's hello would cost a round trip, and the ALPN has settled what they look like.
    fn open(
        runtime: &tokio::runtime::Handle,
        endpoint: quinn::Endpoint,
        connection: quinn::Connection,
        permit: &Arc<Permit>,
        first: Vec<ToReceiver>,
        address: SocketAddr,
        options: &LinkOptions,
    ) -> Result<SenderLink, ConnectError> {
        let (send, mut receive) = runtime
            .block_on(say_hello(&connection))
            .map_err(|error| connect_error(&error, address, options))?;
        let shared = Shared::new(Line::Network(connection.clone()));
        let control = shared.send_control(runtime, send, options.compression, permit);
        // A connection that is gone by now says why when the hello is waited for.
        for message in first {
            let _ = control.send(message);
        }
        let features = runtime.block_on(hear_hello(&connection, &mut receive, address, options))?;
        let incoming = shared.receive_control(runtime, receive);
        let (ops, bulk) = Self::start(runtime, &connection, &shared, permit, options);
        Ok(SenderLink {
            shared,
            control,
            incoming,
            ops,
            bulk,
            features,
            silence: Arc::default(),
            _endpoint: Some(endpoint),
        })
    }

    /// Starts the op and bulk streams.
    pub(super) fn start(
        runtime: &tokio::runtime::Handle,
        connection: &quinn::Connection,
        shared: &Shared,
        permit: &Arc<Permit>,
        options: &LinkOptions,
    ) -> (OpSender, BulkSender) {
        let compression = options.compression;
        let lanes = (0..OP_STREAMS).map(|_| {
            let (packed, to_write) = pieces();
            runtime.spawn(write_new_stream(connection.clone(), PRIORITY_OPS, to_write));
            let stream = Packer::new(packed, compression, permit.clone(), &[OP_STREAM]);
            Outlet::new(
                "ops-out",
                OP_QUEUE / OP_STREAMS as usize,
                vec![stream],
                shared.clone(),
                |stream, waiting| stream.pack(waiting, collect_ops),
            )
        });
        let ops = OpSender::by(lanes.collect());
        let (bulk, frames) = mpsc::channel(BULK_QUEUE);
        let frames = Arc::new(tokio::sync::Mutex::new(frames));
        let spread = Arc::new(Spread::of(connection.clone()));
        for stream in 0..BULK_STREAMS {
            let (connection, frames, spread) = (connection.clone(), frames.clone(), spread.clone());
            runtime.spawn(async move {
                spread.wait_for(stream).await;
                write_bulk(connection, &spread, frames).await;
            });
        }
        let bulk = BulkSender {
            way: BulkWay::Network(bulk),
            steering: Arc::new(Steering::new(compression, permit.clone())),
        };
        (ops, bulk)
    }

    /// Messages to the receiver.
    pub fn control(&self) -> &Outlet<ToReceiver> {
        &self.control
    }

    /// Messages from the receiver; disconnected once the link has ended.
    pub fn incoming(&self) -> &Receiver<ToSender> {
        &self.incoming
    }

    /// The op streams.
    pub fn ops(&self) -> OpSender {
        self.ops.clone()
    }

    /// The bulk streams.
    pub fn bulk(&self) -> BulkSender {
        self.bulk.clone()
    }

    /// What both sides can do.
    pub fn features(&self) -> Features {
        self.features
    }

    /// What was moved.
    pub fn statistics(&self) -> LinkStatistics {
        self.shared.statistics()
    }

    /// What the next connection to this peer may make use of.
    pub fn path_memory(&self) -> Option<PathMemory> {
        match &self.shared.line {
            Line::Network(connection) => memory_of(connection.congestion_state()),
            Line::Here(..) => None,
        }
    }

    /// Ends the link.
    pub fn close(&self, code: CloseCode, text: &str) {
        self.shared.close(code, text);
    }

    /// Whether the receiver acknowledges nothing any more.
    pub fn silence(&self) -> &Silence {
        &self.silence
    }

    /// Why the link ended, if it did.
    pub fn ended(&self) -> Option<LinkEnd> {
        self.shared.ended()
    }

    /// Why the link ended; blocks until it does.
    pub fn wait_ended(&self) -> LinkEnd {
        while self.incoming.recv().is_ok() {}
        self.ended().unwrap_or(LinkEnd::Lost {
            text: "the control stream ended".to_owned(),
        })
    }
}

impl Drop for SenderLink {
    fn drop(&mut self) {
        self.shared.close(CloseCode::Done, "");
    }
}

/// Shakes hands. The peer may open so many streams of one direction, and no others.
pub(super) async fn dial(
    tls: rustls::ClientConfig,
    address: SocketAddr,
    options: &LinkOptions,
    uni_streams: u32,
) -> Result<(quinn::Endpoint, quinn::Connection, Arc<Permit>), ConnectError> {
    let failed = |error: &dyn fmt::Display| ConnectError::Failed(error.to_string());
    let shared = options.sockets.as_ref();
    let shared = shared.filter(|sockets| sockets.are_limited() == options.limiter.is_some());
    let endpoint = match shared {
        Some(sockets) => sockets.endpoint_for(address),
        None => endpoint(any(address), None, None, options.limiter.clone()),
    };
    let endpoint = endpoint.map_err(|error| failed(&error))?;
    let crypto = QuicClientConfig::try_from(tls).map_err(|error| failed(&error))?;
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    let permit = Arc::<Permit>::default();
    let window = CONNECTION_WINDOW_BYTES;
    config.transport_config(transport(options, uni_streams, 0, window, permit.clone()));
    let connecting = endpoint
        .connect_with(config, address, SERVER_NAME)
        .map_err(|error| {
            if let Some(sockets) = shared {
                sockets.forget(address);
            }
            failed(&error)
        })?;
    match tokio::time::timeout(options.connect_timeout, connecting).await {
        Ok(Ok(connection)) => Ok((endpoint, connection, permit)),
        Ok(Err(error)) => Err(connect_error(&error, address, options)),
        Err(_) => Err(no_answer(address, options)),
    }
}

/// Opens the control stream with our hello.
pub(super) async fn say_hello(
    connection: &quinn::Connection,
) -> Result<(quinn::SendStream, quinn::RecvStream), quinn::ConnectionError> {
    let (mut send, receive) = connection.open_bi().await?;
    let _ = send.set_priority(PRIORITY_CONTROL);
    match send.write_all(&Hello::OURS.to_bytes()).await {
        Ok(()) => Ok((send, receive)),
        Err(_) => Err(connection.closed().await),
    }
}

/// Waits for the receiver's hello. QUIC's handshake ends for the sender before the receiver has judged its key; this
/// says that it has.
pub(super) async fn hear_hello(
    connection: &quinn::Connection,
    receive: &mut quinn::RecvStream,
    address: SocketAddr,
    options: &LinkOptions,
) -> Result<Features, ConnectError> {
    let mut bytes = [0; HELLO_BYTES];
    let hearing = async {
        match receive.read_exact(&mut bytes).await {
            Ok(()) => Ok(()),
            Err(_) => Err(connection.closed().await),
        }
    };
    match tokio::time::timeout(options.hello_timeout, hearing).await {
        Ok(Ok(())) => match Hello::from_bytes(&bytes) {
            Ok(hello) => Ok(hello.features.common(Features::OURS)),
            Err(fault) => {
                connection.close(CloseCode::Version.number().into(), fault.to_string().as_bytes());
                Err(ConnectError::Refused {
                    code: CloseCode::Version,
                    text: fault.to_string(),
                })
            }
        },
        Ok(Err(error)) => Err(connect_error(&error, address, options)),
        Err(_) => Err(no_answer(address, options)),
    }
}

/// Connects for pairing.
pub(super) async fn dial_and_greet(
    tls: rustls::ClientConfig,
    address: SocketAddr,
    options: &LinkOptions,
) -> Result<
    (
        quinn::Endpoint,
        quinn::Connection,
        quinn::SendStream,
        quinn::RecvStream,
    ),
    ConnectError,
> {
    let (endpoint, connection, _) = dial(tls, address, options, 0).await?;
    let (send, mut receive) = say_hello(&connection)
        .await
        .map_err(|error| connect_error(&error, address, options))?;
    hear_hello(&connection, &mut receive, address, options).await?;
    Ok((endpoint, connection, send, receive))
}

/// Opens a stream when there is something to write, and writes it.
async fn write_new_stream(connection: quinn::Connection, priority: i32, mut pieces: Pieces) {
    let first = tokio::select! {
        first = pieces.recv() => first,
        // Else whoever packs would never hear of it.
        _ = connection.closed() => None,
    };
    let Some(first) = first else { return };
    let Ok(mut stream) = connection.open_uni().await else {
        return;
    };
    let _ = stream.set_priority(priority);
    if stream.write_chunk(first.into()).await.is_ok() {
        write_pieces(stream, pieces).await;
    }
}

/// Opens a bulk stream with the first frame it gets, and writes frames for as long as there are any.
async fn write_bulk(
    connection: quinn::Connection,
    spread: &Spread,
    frames: Arc<tokio::sync::Mutex<mpsc::Receiver<Vec<u8>>>>,
) {
    let mut stream: Option<quinn::SendStream> = None;
    loop {
        let next = frames.lock().await.recv().await;
        let Some(frame) = next else { break };
        if stream.is_none() {
            let Ok(mut opened) = connection.open_uni().await else {
                break;
            };
            let _ = opened.set_priority(PRIORITY_BULK);
            if opened.write_all(&[BULK_STREAM]).await.is_err() {
                break;
            }
            stream = Some(opened);
        }
        let Some(open) = stream.as_mut() else { break };
        if open.write_chunk(frame.into()).await.is_err() {
            break;
        }
        spread.follow();
    }
    if connection.close_reason().is_some() {
        // Whoever waits for room in the queue must hear of it.
        frames.lock().await.close();
    }
}

/// The receiver's end.
#[derive(Debug)]
pub struct ReceiverLink {
    pub(super) shared: Shared,
    pub(super) peer: Fingerprint,
    pub(super) control: Outlet<ToSender>,
    pub(super) incoming: Receiver<ToReceiver>,
    pub(super) ops: Receiver<OpFrame>,
    pub(super) bulk: Receiver<Range>,
}

impl ReceiverLink {
    pub(super) fn start(
        runtime: &tokio::runtime::Handle,
        connection: quinn::Connection,
        peer: Fingerprint,
        send: quinn::SendStream,
        receive: quinn::RecvStream,
        options: &LinkOptions,
        permit: Arc<Permit>,
    ) -> std::io::Result<ReceiverLink> {
        let shared = Shared::new(Line::Network(connection.clone()));
        let control = shared.send_control(runtime, send, options.compression, &permit);
        let incoming = shared.receive_control(runtime, receive);
        let asking = control.clone();
        runtime.spawn(silence::watch(
            connection.clone(),
            permit,
            OP_STREAMS + BULK_STREAMS,
            Arc::default(),
            move || {
                // Says nothing, but has to be acknowledged.
                let _ = asking.offer(ToSender::Ended(Runs::default()));
            },
        ));
        let (op_frames, ops) = bounded::<OpFrame>(RECEIVED_FRAMES);
        let (bulk_frames, bulk) = bounded::<Range>(RECEIVED_FRAMES);
        let (raw_bulk, mut raw_frames) = mpsc::channel::<Vec<u8>>(BULK_STREAMS as usize);
        let bulk_shared = shared.clone();
        thread("bulk-in", move || {
            while let Some(frame) = raw_frames.blocking_recv() {
                match codec::decode(&frame) {
                    Ok(frame) => {
                        let range = Range {
                            frame,
                            sum: None,
                            origin: None,
                            spare: None,
                        };
                        if bulk_frames.send(range).is_err() {
                            return;
                        }
                    }
                    Err(fault) => return bulk_shared.refuse(&fault.into()),
                }
            }
        })?;
        runtime.spawn(accept_streams(connection, shared.clone(), op_frames, raw_bulk));
        Ok(ReceiverLink {
            shared,
            peer,
            control,
            incoming,
            ops,
            bulk,
        })
    }

    /// Whose key is on the other side.
    pub fn peer(&self) -> Fingerprint {
        self.peer
    }

    /// Whether the sender is in this process.
    pub fn is_local(&self) -> bool {
        matches!(&self.shared.line, Line::Here(room, _) if room.is_near())
    }

    /// Where it is, for messages.
    pub fn remote(&self) -> String {
        match &self.shared.line {
            Line::Network(connection) => connection.remote_address().to_string(),
            Line::Here(..) => "this process".to_owned(),
        }
    }

    /// The peer's address; none for a sender in this process.
    pub fn remote_address(&self) -> Option<IpAddr> {
        self.shared.remote_address()
    }

    /// Messages to the sender.
    pub fn control(&self) -> &Outlet<ToSender> {
        &self.control
    }

    /// Messages from the sender.
    pub fn incoming(&self) -> &Receiver<ToReceiver> {
        &self.incoming
    }

    /// Frames of ops, in the order of each stream; disconnected once the link has ended.
    pub fn ops(&self) -> &Receiver<OpFrame> {
        &self.ops
    }

    /// Ranges of large files; disconnected once the link has ended.
    pub fn bulk(&self) -> &Receiver<Range> {
        &self.bulk
    }

    /// What was moved.
    pub fn statistics(&self) -> LinkStatistics {
        self.shared.statistics()
    }

    /// Ends the link.
    pub fn close(&self, code: CloseCode, text: &str) {
        self.shared.close(code, text);
    }

    /// Why the link ended, if it did.
    pub fn ended(&self) -> Option<LinkEnd> {
        self.shared.ended()
    }

    /// What another thread may know of the link, and do to it.
    pub fn handle(&self) -> LinkHandle {
        LinkHandle {
            shared: self.shared.clone(),
            control: self.control.clone(),
        }
    }
}

/// A hold on a receiver's link for those who do not serve it. It keeps the link from nothing but its memory.
#[derive(Debug, Clone)]
pub struct LinkHandle {
    shared: Shared,
    control: Outlet<ToSender>,
}

impl LinkHandle {
    /// Ends the link.
    pub fn close(&self, code: CloseCode, text: &str) {
        self.shared.close(code, text);
    }

    /// Whether the peer still answers. Blocks for `patience`, or four round trips if that is longer, when it does not.
    pub fn is_alive(&self, patience: Duration) -> bool {
        // Says nothing, but has to be acknowledged.
        let ask = || self.control.offer(ToSender::Ended(Runs::default())).is_ok();
        self.shared.answers(patience, ask)
    }
}

impl Drop for ReceiverLink {
    fn drop(&mut self) {
        self.shared.close(CloseCode::Done, "");
    }
}

/// Takes the peer's streams. Holding the senders of both channels here keeps them open until the connection ends.
async fn accept_streams(
    connection: quinn::Connection,
    shared: Shared,
    ops: Sender<OpFrame>,
    bulk: mpsc::Sender<Vec<u8>>,
) {
    while let Ok(mut stream) = connection.accept_uni().await {
        let (shared, ops, bulk) = (shared.clone(), ops.clone(), bulk.clone());
        tokio::spawn(async move {
            let mut kind = [0];
            if stream.read_exact(&mut kind).await.is_err() {
                return;
            }
            match kind[0] {
                OP_STREAM => {
                    let (to_read, mut read) = pieces();
                    let unpacking = shared.clone();
                    if thread("ops-in", move || unpacking.unpack_all(&mut read, &ops)).is_ok() {
                        shared.read(stream, to_read).await;
                    }
                }
                BULK_STREAM => {
                    if let Err(text) = read_bulk(stream, bulk).await {
                        shared.close(CloseCode::Violation, &text);
                    }
                }
                other => shared.close(
                    CloseCode::Violation,
                    &format!("there is no stream of kind {other}"),
                ),
            }
        });
    }
}

async fn read_bulk(mut stream: quinn::RecvStream, frames: mpsc::Sender<Vec<u8>>) -> Result<(), String> {
    let mut prefix = [0; FRAME_PREFIX_BYTES];
    let cut = |error: &dyn fmt::Display| Err(format!("a bulk stream broke off: {error}"));
    loop {
        match stream.read_exact(&mut prefix).await {
            Ok(()) => {}
            Err(quinn::ReadExactError::FinishedEarly(0)) => return Ok(()),
            Err(error) => return cut(&error),
        }
        let length = u32::from_be_bytes(prefix) as usize;
        if length > BULK_FRAME_BYTES_MAX {
            return Err(format!("a bulk frame of {length} bytes is over its limit"));
        }
        let mut frame = vec![0; length];
        if let Err(error) = stream.read_exact(&mut frame).await {
            return cut(&error);
        }
        if frames.send(frame).await.is_err() {
            return Ok(());
        }
    }
}
