//! A sender of our own making, which can say anything: quinn, the codec and zstd, and nothing of driftless's own ends.
#![allow(dead_code, reason = "each test file uses its part")]

use crate::support::waiting::wait_until_some;
use crate::support::{PATIENCE, Pair, runtime};
use crossbeam_channel::{Receiver, unbounded};
use driftless_certs::{Identity, SERVER_NAME, sender_config};
use driftless_protocol::Xattrs;
use driftless_protocol::codec::{FrameReader, Message, encode, encode_frame};
use driftless_protocol::message::{
    BulkFrame, FailureKind, ModuleName, Note, Op, OpBody, OpFrame, OpMessage, Open, Opened, Purpose, Recheck,
    Relays, SealOp, ToReceiver, ToSender,
};
use driftless_protocol::stream::{StreamKind, head};
use driftless_protocol::version::{ALPN_MIRROR, HELLO_BYTES, Hello};
use driftless_protocol::{Carried, CloseCode, RelPath};
use quinn::crypto::rustls::QuicClientConfig;
use std::collections::HashMap;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use zstd::stream::raw::{Decoder, InBuffer, Operation, OutBuffer};

/// A finished handshake.
#[derive(Clone)]
pub struct Dialled {
    pub connection: quinn::Connection,
    _endpoint: quinn::Endpoint,
}

/// One zstd stream over one QUIC stream.
pub struct Packed {
    stream: quinn::SendStream,
    encoder: zstd::stream::write::Encoder<'static, Vec<u8>>,
}

/// A session, opened or not.
pub struct Peer {
    pub dialled: Dialled,
    /// Which session of the connection this is.
    pub number: u64,
    pub control: Packed,
    pub incoming: Receiver<ToSender>,
    /// What was read while something else was waited for.
    pub failed: HashMap<u64, FailureKind>,
    pub applied: u64,
    pub durable: u64,
    pub needs: Vec<(u64, bool)>,
}

/// Why an attempt to open ended.
pub type Closed = (CloseCode, String);

/// Shakes hands with any TLS configuration.
pub fn dial(address: SocketAddr, tls: rustls::ClientConfig) -> Result<Dialled, quinn::ConnectionError> {
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    dial_with(address, config)
}

/// The same, with a QUIC of the test's choice.
pub fn dial_with(
    address: SocketAddr,
    config: quinn::ClientConfig,
) -> Result<Dialled, quinn::ConnectionError> {
    let handle = runtime();
    let _inside = handle.enter();
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let connecting = endpoint.connect_with(config, address, SERVER_NAME).unwrap();
    let connection = handle.block_on(async { tokio::time::timeout(PATIENCE, connecting).await.unwrap() })?;
    Ok(Dialled {
        connection,
        _endpoint: endpoint,
    })
}

/// The configuration of an honest sender.
pub fn tls(pair: &Pair, identity: &Identity) -> rustls::ClientConfig {
    sender_config(identity, pair.receiver.fingerprint(), &[ALPN_MIRROR]).unwrap()
}

/// Why a connection ended; waits for it.
pub fn closed(connection: &quinn::Connection) -> Closed {
    let error = runtime().block_on(async { tokio::time::timeout(PATIENCE, connection.closed()).await });
    reason(&error.expect("the connection stays open"))
}

pub fn reason(error: &quinn::ConnectionError) -> Closed {
    match error {
        quinn::ConnectionError::ApplicationClosed(close) => {
            let text = String::from_utf8_lossy(&close.reason).into_owned();
            (CloseCode::from_number(close.error_code.into_inner()), text)
        }
        other => panic!("not closed by the receiver: {other:?}"),
    }
}

impl Packed {
    pub fn new(stream: quinn::SendStream, window_log: u32) -> Packed {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(window_log).unwrap();
        Packed { stream, encoder }
    }

    pub fn id(&self) -> quinn::StreamId {
        self.stream.id()
    }

    /// Writes bytes as they are. An error is a connection that has ended, which is what most tests wait for.
    pub fn send_plain(&mut self, bytes: &[u8]) {
        let _ = runtime().block_on(self.stream.write_all(bytes));
    }

    /// Compresses and sends bytes.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.encoder.write_all(bytes).unwrap();
        self.encoder.flush().unwrap();
        let packed = std::mem::take(self.encoder.get_mut());
        self.send_plain(&packed);
    }

    /// Sends a message that was encoded by whatever means.
    pub fn send_message(&mut self, message: &[u8]) {
        let mut frame = u32::try_from(message.len()).unwrap().to_be_bytes().to_vec();
        frame.extend_from_slice(message);
        self.send_bytes(&frame);
    }

    pub fn finish(mut self) {
        let _ = self.stream.finish();
        // Kept until the peer has everything.
        let _ = runtime().block_on(async { tokio::time::timeout(PATIENCE, self.stream.stopped()).await });
    }

    pub fn reset(mut self) {
        let _ = self.stream.reset(7u32.into());
    }
}

/// An opening that is right.
pub fn opening(module: &[u8], mirror: u128) -> Open {
    Open {
        purpose: Purpose::Mirror,
        module: ModuleName(module.to_vec()),
        path: RelPath::root(),
        mirror,
        source: "the peer of the tests".into(),
        incarnation: 1,
        carried: Carried {
            owner: false,
            ..Carried::default()
        },
        sum: None,
        protects: false,
        sparing: Default::default(),
        whole_files: false,
        recheck: Recheck::Nothing,
        upstream: Relays::default(),
        engine: None,
    }
}

impl Peer {
    /// Shakes hands and exchanges hellos.
    pub fn greet(dialled: Dialled) -> Result<Peer, Closed> {
        let connection = dialled.connection.clone();
        let greeted = runtime().block_on(async {
            let (mut send, mut receive) = connection.open_bi().await.ok()?;
            send.write_all(&Hello::OURS.to_bytes()).await.ok()?;
            let mut bytes = [0; HELLO_BYTES];
            receive.read_exact(&mut bytes).await.ok()?;
            Hello::from_bytes(&bytes).unwrap();
            Some((send, receive))
        });
        let Some((send, receive)) = greeted else {
            return Err(closed(&connection));
        };
        let number = send.id().index();
        let (messages, incoming) = unbounded();
        runtime().spawn(unpack(receive, move |message: ToSender| {
            messages.send(message).is_ok()
        }));
        let control = Packed::new(send, 20);
        let (failed, needs) = (HashMap::new(), Vec::new());
        Ok(Peer {
            dialled,
            number,
            control,
            incoming,
            failed,
            applied: 0,
            durable: 0,
            needs,
        })
    }

    /// One more session on the same connection, not opened yet.
    pub fn beside(&self) -> Result<Peer, Closed> {
        Peer::greet(self.dialled.clone())
    }

    /// Notes about sessions, as they come.
    pub fn notes(&self) -> Receiver<Note> {
        let (told, notes) = unbounded();
        let connection = self.dialled.connection.clone();
        runtime().spawn(async move {
            let mut stream = connection.accept_uni().await.ok()?;
            let mut kind = [0];
            stream.read_exact(&mut kind).await.ok()?;
            assert_eq!(kind, [StreamKind::Notes as u8]);
            let mut frames = FrameReader::default();
            while let Ok(Some(chunk)) = stream.read_chunk(64 << 10, true).await {
                frames.push(&chunk.bytes);
                while let Some(note) = frames.next().unwrap() {
                    told.send(note).ok()?;
                }
            }
            Some(())
        });
        notes
    }

    /// Opens a session of an allowed peer; waits while the session before it still holds the module.
    pub fn open(pair: &Pair, address: SocketAddr, open: &Open) -> Result<(Peer, Opened), Closed> {
        Peer::open_as(pair, &pair.sender, address, open)
    }

    pub fn open_as(
        pair: &Pair,
        identity: &Identity,
        address: SocketAddr,
        open: &Open,
    ) -> Result<(Peer, Opened), Closed> {
        wait_until_some("the session before has ended", || {
            let mut peer = match Peer::greet(dial(address, tls(pair, identity)).unwrap()) {
                Ok(peer) => peer,
                Err(closed) => return Some(Err(closed)),
            };
            peer.send(&ToReceiver::Open(open.clone()));
            match peer.next() {
                Some(ToSender::Opened(opened)) => Some(Ok((peer, opened))),
                Some(other) => panic!("{other:?} in place of an answer to the opening"),
                None => match peer.closed() {
                    (CloseCode::Busy, text) if text.contains("is in use") => None,
                    closed => Some(Err(closed)),
                },
            }
        })
    }

    pub fn send(&mut self, message: &ToReceiver) {
        self.control.send_bytes(&encode_frame(message).unwrap());
    }

    /// The next message; none at the end of the connection. Signs of life may come at any time and say nothing.
    pub fn next(&mut self) -> Option<ToSender> {
        loop {
            match self.incoming.recv_timeout(PATIENCE) {
                Ok(message) if message == ToSender::SIGN_OF_LIFE => {}
                Ok(message) => return Some(message),
                Err(crossbeam_channel::RecvTimeoutError::Disconnected) => return None,
                Err(error) => panic!("the receiver says nothing: {error}"),
            }
        }
    }

    pub fn closed(&self) -> Closed {
        closed(&self.dialled.connection)
    }

    /// A new unidirectional stream whose first bytes are these.
    pub fn stream(&mut self, first: &[u8], window_log: u32) -> Packed {
        let stream = runtime().block_on(self.dialled.connection.open_uni()).unwrap();
        let mut packed = Packed::new(stream, window_log);
        packed.send_plain(first);
        packed
    }

    /// A stream of ops.
    pub fn op_stream(&mut self) -> Packed {
        self.stream(&head(StreamKind::Ops, self.number), 20)
    }

    /// Sends ops, numbered from `first`, on a stream.
    pub fn send_ops(
        &mut self,
        stream: &mut Packed,
        first: u64,
        bodies: impl IntoIterator<Item = OpBody>,
    ) -> u64 {
        let mut number = first;
        let mut frame = Vec::new();
        for body in bodies {
            // Each after all before it, so that what the test says is what is done.
            frame.push(OpMessage::Op(Op {
                number,
                after: 0,
                barrier: true,
                body,
                xattrs: Xattrs::default(),
            }));
            number += 1;
        }
        stream.send_message(&encode(&OpFrame(frame)).unwrap());
        number
    }

    pub fn seal(&mut self, stream: &mut Packed, seal: SealOp) {
        stream.send_message(&encode(&OpFrame(vec![OpMessage::Seal(seal)])).unwrap());
    }

    /// Sends ranges on a bulk stream of their own.
    pub fn send_ranges(&mut self, ranges: &[BulkFrame]) {
        let mut stream = self.stream(&head(StreamKind::Bulk, self.number), 20);
        for range in ranges {
            stream.send_plain(&encode_frame(range).unwrap());
        }
        stream.finish();
    }

    /// Reads until a condition holds.
    pub fn wait(&mut self, what: &str, until: impl Fn(&Peer) -> bool) {
        while !until(self) {
            match self.next() {
                Some(ToSender::Failed { number, kind, .. }) => {
                    self.failed.insert(number, kind);
                }
                Some(ToSender::Progress(progress)) => {
                    assert!(progress.applied >= self.applied && progress.durable >= self.durable);
                    assert!(progress.durable <= progress.applied);
                    (self.applied, self.durable) = (progress.applied, progress.durable);
                }
                Some(ToSender::Need { number, basis }) => self.needs.push((number, basis)),
                Some(_) => {}
                None => panic!("waiting for {what}: closed with {:?}", self.closed()),
            }
        }
    }

    pub fn wait_applied(&mut self, number: u64) {
        self.wait(&format!("op {number}"), |peer| peer.applied >= number);
    }

    /// Ends the session politely and waits until the connection is gone.
    pub fn leave(self) {
        self.dialled.connection.close(0u32.into(), b"");
        runtime().block_on(self.dialled._endpoint.wait_idle());
    }
}

/// Hands on the messages of a packed stream until it ends, or nobody takes them.
pub async fn unpack<M: Message>(mut stream: quinn::RecvStream, mut take: impl FnMut(M) -> bool) {
    let mut decoder = Decoder::new().unwrap();
    let mut frames = FrameReader::default();
    let mut inflated = vec![0; 64 << 10];
    while let Ok(Some(chunk)) = stream.read_chunk(64 << 10, true).await {
        let mut input = InBuffer::around(&chunk.bytes);
        loop {
            let mut output = OutBuffer::around(&mut inflated[..]);
            decoder.run(&mut input, &mut output).unwrap();
            let made = output.pos();
            frames.push(&inflated[..made]);
            while let Some(message) = frames.next().unwrap() {
                if !take(message) {
                    return;
                }
            }
            if input.pos() == chunk.bytes.len() && made < inflated.len() {
                break;
            }
        }
    }
}
