//! The sender's end.

use super::{
    BULK_QUEUE, BulkSender, BulkWay, Line, LinkEnd, LinkStatistics, OP_QUEUE, PRIORITY_BULK,
    PRIORITY_CONTROL, PRIORITY_OPS, Shared, dial, next_piece,
};
use crate::net::compression::Steering;
use crate::net::congestion::{PathMemory, memory_of};
use crate::net::gather::collect_ops;
use crate::net::lanes::OpSender;
use crate::net::packed::{Packer, Pieces, pieces};
use crate::net::ranges::Leaving;
use crate::net::session::Session;
use crate::net::sharing::{Key, Reached};
use crate::net::shift::Outlet;
use crate::net::silence::{self, Silence};
use crate::net::spread::Spread;
use crate::net::transport::{
    BULK_STREAMS, ConnectError, LinkOptions, NOTE_STREAMS, OP_STREAMS, connect_error, no_answer,
};
use crate::net::trunk::{Place, Role, Trunk};
use crossbeam_channel::Receiver;
use driftless_protocol::CloseCode;
use driftless_protocol::message::{ToReceiver, ToSender};
use driftless_protocol::stream::{StreamKind, head};
use driftless_protocol::version::{Features, HELLO_BYTES, Hello};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

/// How many connections that others use may end, or be without an answer, when a session joins them, before it has one alone.
const JOIN_TRIES: usize = 3;
/// The least that a receiver may let be under way in a session that has a window.
const WINDOW_BYTES_MIN: u32 = 65_536;
/// How long a connection is kept on which no session begins: half of what a receiver waits for the first one.
const AHEAD_FOR: Duration = Duration::from_secs(5);
/// What an op stream says without a pause before its ranges' turn comes: on a connection that several sessions share, one that has
/// so much to say takes turns with the ranges of the others.
const BURST_BYTES: usize = 1 << 20;

/// The sender's end.
#[derive(Debug)]
pub struct SenderLink {
    pub(in crate::net) shared: Shared,
    pub(in crate::net) control: Outlet<ToReceiver>,
    pub(in crate::net) incoming: Receiver<ToSender>,
    pub(in crate::net) ops: OpSender,
    pub(in crate::net) bulk: BulkSender,
    pub(in crate::net) features: Features,
    pub(in crate::net) silence: Arc<Silence>,
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
            match Self::connect_to(runtime, &tls, address, &first, options) {
                Ok(link) => return Ok(link),
                Err(Unconnected { error, has_answered }) if has_answered => return Err(error),
                Err(Unconnected { error, .. }) => last = error,
            }
        }
        Err(last)
    }

    fn connect_to(
        runtime: &Handle,
        tls: &rustls::ClientConfig,
        address: SocketAddr,
        first: &[ToReceiver],
        options: &LinkOptions,
    ) -> Result<SenderLink, Unconnected> {
        let alone = LinkOptions {
            sharing: None,
            ..options.clone()
        };
        let mut tries = 0;
        loop {
            tries += 1;
            // Whatever becomes of shared ones, the last connection is this mirror's own.
            let options = if tries > JOIN_TRIES { &alone } else { options };
            let key = Key::of(address, options).filter(|_| options.sockets.is_some());
            let reached = runtime.block_on(reach(runtime, tls, address, options));
            let Reached { place, is_joined } = reached.map_err(|error| Unconnected {
                error,
                has_answered: false,
            })?;
            let trunk = place.trunk().clone();
            let Unopened { error, session } = match Self::open(runtime, place, first, address, options) {
                Ok(link) => return Ok(link),
                Err(unopened) => unopened,
            };
            let has_ended = trunk.connection().close_reason().is_some();
            if let Some(sockets) = &options.sockets
                && let Some(key) = &key
                && (has_ended || matches!(error, ConnectError::NoAnswer { .. }))
            {
                sockets.trunks().give_up(key, &trunk);
            }
            // A connection may end for the reason of its first session, which who dialled need not have.
            let is_anothers = has_ended && key.is_some() && session != Some(0);
            let is_stale = is_joined && matches!(error, ConnectError::NoAnswer { .. });
            if is_anothers || is_stale {
                continue;
            }
            let has_answered = true;
            return Err(Unconnected { error, has_answered });
        }
    }

    /// Begins the control stream. Our first messages go right behind our hello, in the first flight after the handshake: to
    /// wait for the receiver's hello would cost a round trip, and the ALPN has settled what they look like.
    fn open(
        runtime: &Handle,
        place: Place,
        first: &[ToReceiver],
        address: SocketAddr,
        options: &LinkOptions,
    ) -> Result<SenderLink, Unopened> {
        let begun = runtime.block_on(begin(place, address, options));
        let (session, send, mut receive) = begun.map_err(|error| Unopened { error, session: None })?;
        let control = Shared::send_control(runtime, &session, send, options.compression);
        // A session that is gone by now says why when the hello is waited for.
        for message in first {
            let _ = control.send(message.clone());
        }
        let heard = runtime.block_on(hear(&session, &mut receive, address, options));
        let hello = heard.map_err(|error| {
            session.close(CloseCode::Done, "");
            Unopened {
                error,
                session: Some(session.number()),
            }
        })?;
        session.set_window(hello.window);
        let features = hello.features.common(Features::OURS);
        Ok(Self::start(
            runtime,
            &session,
            (control, receive),
            features,
            options,
        ))
    }

    /// Starts the rest of a session.
    pub(in crate::net) fn start(
        runtime: &Handle,
        session: &Arc<Session>,
        (control, receive): (Outlet<ToReceiver>, quinn::RecvStream),
        features: Features,
        options: &LinkOptions,
    ) -> SenderLink {
        let incoming = Shared::receive_control(runtime, session, receive);
        let (ops, bulk) = Self::start_streams(runtime, session, options);
        let asking = control.clone();
        session.ask_by(move || asking.try_send(ToReceiver::SIGN_OF_LIFE).is_ok());
        SenderLink {
            shared: Shared::new(Line::Network(session.clone())),
            control,
            incoming,
            ops,
            bulk,
            features,
            silence: session.silence().clone(),
        }
    }

    /// Starts the op and bulk streams.
    fn start_streams(
        runtime: &Handle,
        session: &Arc<Session>,
        options: &LinkOptions,
    ) -> (OpSender, BulkSender) {
        let (compression, permit) = (options.compression, session.trunk().permit());
        let lanes = (0..OP_STREAMS).map(|_| {
            let (packed, to_write) = pieces();
            runtime.spawn(write_ops(session.clone(), to_write));
            let begin = head(StreamKind::Ops, session.number());
            let stream = Packer::new(packed, compression, permit.clone(), &begin);
            Outlet::new(
                "ops-out",
                OP_QUEUE / OP_STREAMS as usize,
                vec![stream],
                Shared::new(Line::Network(session.clone())),
                |stream, waiting| stream.pack(waiting, collect_ops),
            )
        });
        let ops = OpSender::by(lanes.collect());
        let (bulk, frames) = mpsc::channel(BULK_QUEUE);
        let frames = Arc::new(tokio::sync::Mutex::new(frames));
        let spread = Arc::new(Spread::of(session.clone()));
        for stream in 0..BULK_STREAMS {
            let (session, frames, spread) = (session.clone(), frames.clone(), spread.clone());
            runtime.spawn(async move {
                spread.wait_for(stream).await;
                write_bulk(&session, &spread, frames).await;
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
    pub fn ops(&self) -> &OpSender {
        &self.ops
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
            Line::Network(session) => memory_of(session.trunk().connection().congestion_state()),
            Line::Here(..) | Line::Apart(_) => None,
        }
    }

    /// Has the link end if its receiver is silent and this name, by which it was found, leads elsewhere by then.
    pub fn follow_name(&self, runtime: &Handle, host: &str, port: u16) {
        self.shared.follow_name(runtime, host, port);
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

/// A connection that was dialled before it is needed; given up when this is dropped, if no link is on it by then.
#[derive(Debug)]
pub struct Ahead {
    held: Arc<Mutex<Option<Reached>>>,
    dialling: AbortHandle,
}

impl Ahead {
    /// Shakes hands with an address, for a [`SenderLink::connect`] with the same options that comes soon: that joins, also while the
    /// handshake lasts, and shares its failure then. None for links that share no connection.
    pub fn dial(
        runtime: &Handle,
        tls: rustls::ClientConfig,
        resolve: impl FnOnce() -> Option<SocketAddr> + Send + 'static,
        options: &LinkOptions,
    ) -> Option<Ahead> {
        let is_shared = options.sockets.is_some() && options.limiter.is_none() && options.sharing.is_some();
        if !is_shared || options.shortcut.is_some() || options.calls.is_some() {
            return None;
        }
        let (handle, options, held) = (runtime.clone(), options.clone(), Arc::default());
        let to_hold: Arc<Mutex<Option<Reached>>> = Arc::clone(&held);
        let dialling = runtime.spawn(async move {
            let Ok(Some(address)) = handle.spawn_blocking(resolve).await else {
                return;
            };
            match reach(&handle, &tls, address, &options).await {
                Ok(reached) => *lock(&to_hold) = Some(reached),
                Err(error) => tracing::debug!("dialling ahead: {error}"),
            }
            tokio::time::sleep(AHEAD_FOR).await;
            lock(&to_hold).take();
        });
        let dialling = dialling.abort_handle();
        Some(Ahead { held, dialling })
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        // Whoever waits for the same handshake has it from here on.
        self.dialling.abort();
        lock(&self.held).take();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// There is no link.
struct Unconnected {
    error: ConnectError,
    /// Whoever answered has decided: it is no use to ask at another address.
    has_answered: bool,
}

/// There is no session.
struct Unopened {
    error: ConnectError,
    /// The number that it would have had, if it had one.
    session: Option<u64>,
}

/// A place for a session, on a connection of its own or on one that others use.
async fn reach(
    runtime: &Handle,
    tls: &rustls::ClientConfig,
    address: SocketAddr,
    options: &LinkOptions,
) -> Result<Reached, ConnectError> {
    let dial = || async {
        let (endpoint, connection, permit) = dial(tls.clone(), address, options, NOTE_STREAMS).await?;
        let trunk = Trunk::new(runtime, connection, permit, Role::Sender, Some(endpoint));
        runtime.spawn(silence::watch(trunk.clone()));
        trunk.join().ok_or_else(|| gone(&trunk, address, options))
    };
    if let Some(sockets) = &options.sockets
        && let Some(key) = Key::of(address, options)
    {
        return sockets.trunks().reach(&key, dial).await;
    }
    let (place, is_joined) = (dial().await?, false);
    Ok(Reached { place, is_joined })
}

/// Opens a session's control stream and says hello.
async fn begin(
    place: Place,
    address: SocketAddr,
    options: &LinkOptions,
) -> Result<(Arc<Session>, quinn::SendStream, quinn::RecvStream), ConnectError> {
    let trunk = place.trunk();
    let opening = trunk.connection().open_bi();
    let (mut send, receive) = match tokio::time::timeout(options.hello_timeout, opening).await {
        Ok(Ok(streams)) => streams,
        Ok(Err(error)) => return Err(connect_error(&error, address, options)),
        Err(_) => return Err(no_answer(address, options)),
    };
    let _ = send.set_priority(PRIORITY_CONTROL);
    let session = trunk.begin(send.id().index(), 0);
    // A connection that is gone by now says why when the hello is waited for.
    session
        .write(&mut send, Hello::OURS.to_bytes().to_vec(), false)
        .await;
    Ok((session, send, receive))
}

/// Waits for the receiver's hello. QUIC's handshake ends for the sender before the receiver has judged its key; this says that it
/// has.
async fn hear(
    session: &Session,
    receive: &mut quinn::RecvStream,
    address: SocketAddr,
    options: &LinkOptions,
) -> Result<Hello, ConnectError> {
    let mut bytes = [0; HELLO_BYTES];
    let hearing = async {
        let is_complete = tokio::select! {
            biased;
            read = receive.read_exact(&mut bytes) => read.is_ok(),
            () = session.over() => false,
        };
        if !is_complete {
            session.over().await;
        }
        is_complete
    };
    match tokio::time::timeout(options.hello_timeout, hearing).await {
        Ok(true) => {
            session.note_read(HELLO_BYTES, false);
            let refused = |code: CloseCode, text: String| {
                session.close(code, &text);
                ConnectError::Refused { code, text }
            };
            let hello = Hello::from_bytes(&bytes);
            let hello = hello.map_err(|fault| refused(CloseCode::Version, fault.to_string()))?;
            match hello.window {
                0 | WINDOW_BYTES_MIN.. => Ok(hello),
                window => Err(refused(
                    CloseCode::Violation,
                    format!("a session's window of {window} bytes is too small"),
                )),
            }
        }
        Ok(false) => Err(match session.told_end() {
            Some(LinkEnd::Closed { code, text, .. }) => ConnectError::Refused { code, text },
            Some(LinkEnd::Lost { text }) => ConnectError::Failed(text),
            None => gone(session.trunk(), address, options),
        }),
        Err(_) => Err(no_answer(address, options)),
    }
}

/// Why there is no connection any more.
fn gone(trunk: &Trunk, address: SocketAddr, options: &LinkOptions) -> ConnectError {
    match trunk.connection().close_reason() {
        Some(error) => connect_error(&error, address, options),
        None => ConnectError::Failed("the connection is about to end".to_owned()),
    }
}

/// Opens a stream when there are ops, and writes what was packed.
async fn write_ops(session: Arc<Session>, mut pieces: Pieces) {
    let Some(mut piece) = next_piece(&session, &mut pieces).await else {
        return;
    };
    let Some(mut stream) = session.open_uni().await else {
        return;
    };
    let (mut burst, mut priority) = (0, None);
    loop {
        burst += piece.len();
        let wanted = match burst > BURST_BYTES && session.trunk().is_shared() {
            true => PRIORITY_BULK,
            false => PRIORITY_OPS,
        };
        if priority != Some(wanted) {
            let _ = stream.set_priority(wanted);
            priority = Some(wanted);
        }
        if !session.write(&mut stream, piece, true).await {
            return;
        }
        if pieces.is_empty() {
            burst = 0;
        }
        match next_piece(&session, &mut pieces).await {
            Some(next) => piece = next,
            None => return session.leave(stream),
        }
    }
}

/// Opens a bulk stream with the first frame it gets, and writes frames for as long as there are any.
async fn write_bulk(
    session: &Session,
    spread: &Spread,
    frames: Arc<tokio::sync::Mutex<mpsc::Receiver<Leaving>>>,
) {
    let mut stream: Option<quinn::SendStream> = None;
    'frames: loop {
        let next = tokio::select! {
            next = async { frames.lock().await.recv().await } => next,
            () = session.over() => None,
        };
        let Some(frame) = next else { break };
        if stream.is_none() {
            let Some(mut opened) = session.open_uni().await else {
                break;
            };
            let _ = opened.set_priority(PRIORITY_BULK);
            let begin = head(StreamKind::Bulk, session.number());
            if !session.write(&mut opened, begin, true).await {
                break;
            }
            stream = Some(opened);
        }
        let Some(open) = stream.as_mut() else { break };
        for part in frame.into_parts() {
            if !session.write(open, part, true).await {
                break 'frames;
            }
        }
        spread.follow();
    }
    stream.into_iter().for_each(|stream| session.leave(stream));
    if session.ended().is_some() {
        // Whoever waits for room in the queue must hear of it.
        frames.lock().await.close();
    }
}
