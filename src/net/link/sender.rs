//! The sender's end.

use super::{
    BULK_QUEUE, BULK_STREAM, BulkSender, BulkWay, Line, LinkEnd, LinkStatistics, OP_QUEUE, OP_STREAM,
    PRIORITY_BULK, PRIORITY_OPS, Shared, dial, hear_hello, say_hello,
};
use crate::net::compression::Steering;
use crate::net::congestion::{PathMemory, Permit, memory_of};
use crate::net::gather::collect_ops;
use crate::net::lanes::OpSender;
use crate::net::packed::{Packer, Pieces, pieces, write_pieces};
use crate::net::shift::Outlet;
use crate::net::silence::{self, Silence};
use crate::net::spread::Spread;
use crate::net::transport::{BULK_STREAMS, ConnectError, LinkOptions, OP_STREAMS, connect_error};
use crossbeam_channel::Receiver;
use driftless_protocol::CloseCode;
use driftless_protocol::message::{ToReceiver, ToSender};
use driftless_protocol::version::Features;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::mpsc;

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
    pub(in crate::net) _endpoint: Option<quinn::Endpoint>,
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
    pub(in crate::net) fn start(
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
