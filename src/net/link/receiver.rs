//! The receiver's end.

use super::{Line, LinkEnd, LinkStatistics, RECEIVED_FRAMES, Range, Shared, thread};
use crate::net::packed::pieces;
use crate::net::ranges::Arrived;
use crate::net::session::{Session, Taken};
use crate::net::shift::Outlet;
use crate::net::silence;
use crate::net::transport::{BULK_STREAMS, LinkOptions};
use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded};
use driftless_certs::Fingerprint;
use driftless_protocol::CloseCode;
use driftless_protocol::codec::FRAME_PREFIX_BYTES;
use driftless_protocol::limits::BULK_FRAME_BYTES_MAX;
use driftless_protocol::message::{OpFrame, ToReceiver, ToSender};
use driftless_protocol::stream::StreamKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

/// Frames of ranges that nobody decodes here, until somebody takes them.
pub(in crate::net) type PackedBulk = Mutex<Option<mpsc::Receiver<Arrived>>>;

/// The receiver's end.
#[derive(Debug)]
pub struct ReceiverLink {
    pub(in crate::net) shared: Shared,
    pub(in crate::net) peer: Fingerprint,
    pub(in crate::net) control: Outlet<ToSender>,
    pub(in crate::net) incoming: Receiver<ToReceiver>,
    pub(in crate::net) ops: Receiver<OpFrame>,
    pub(in crate::net) bulk: Receiver<Range>,
    /// Ranges as they came, if another process is to have them.
    pub(in crate::net) packed_bulk: PackedBulk,
}

impl ReceiverLink {
    /// Begins the receiver's part of a session.
    pub(in crate::net) fn start(
        runtime: &Handle,
        session: &Arc<Session>,
        peer: Fingerprint,
        (send, receive): (quinn::SendStream, quinn::RecvStream),
        options: &LinkOptions,
    ) -> std::io::Result<ReceiverLink> {
        let shared = Shared::new(Line::Network(session.clone()));
        let control = Shared::send_control(runtime, session, send, options.compression);
        let incoming = Shared::receive_control(runtime, session, receive);
        let asking = control.clone();
        session.ask_by(move || asking.try_send(ToSender::SIGN_OF_LIFE).is_ok());
        let (op_frames, ops) = bounded::<OpFrame>(RECEIVED_FRAMES);
        let (bulk_frames, bulk) = bounded::<Range>(RECEIVED_FRAMES);
        let (raw_bulk, raw_frames) = mpsc::channel::<Arrived>(BULK_STREAMS as usize);
        let bulk_shared = shared.clone();
        let mut packed_bulk = None;
        let decode = move |mut raw_frames: mpsc::Receiver<Arrived>| {
            while let Some(frame) = raw_frames.blocking_recv() {
                match frame.decode() {
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
        };
        let unpacking = match options.hands_on {
            true => {
                packed_bulk = Some(raw_frames);
                Ok(())
            }
            false => thread("bulk-in", move || decode(raw_frames)),
        };
        if let Err(error) = unpacking {
            shared.close(CloseCode::Unable, &format!("cannot start a thread: {error}"));
            return Err(error);
        }
        if let Some(streams) = session.handed() {
            runtime.spawn(accept_streams(session.clone(), streams, op_frames, raw_bulk));
        }
        Ok(ReceiverLink {
            shared,
            peer,
            control,
            incoming,
            ops,
            bulk,
            packed_bulk: Mutex::new(packed_bulk),
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
        let remote = self.remote_socket();
        remote.map_or_else(|| "this process".to_owned(), |remote| remote.to_string())
    }

    /// The peer's address; none for a sender in this process.
    pub fn remote_address(&self) -> Option<IpAddr> {
        self.shared.remote_address()
    }

    /// The same with the port.
    pub(in crate::net) fn remote_socket(&self) -> Option<SocketAddr> {
        self.shared.remote_socket()
    }

    /// Frames of ranges without their lengths, in place of [`ReceiverLink::bulk`], if the link was told to hand them on; once.
    pub(in crate::net) fn take_packed_bulk(&self) -> Option<mpsc::Receiver<Arrived>> {
        self.packed_bulk
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
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

    /// Has the link end if its sender is silent and this name, by which it was called, leads elsewhere by then.
    pub fn follow_name(&self, runtime: &Handle, host: &str, port: u16) {
        self.shared.follow_name(runtime, host, port);
    }

    /// Tells when the sender's silences begin and end, until the link does.
    pub(in crate::net) fn tell_silences(&self, runtime: &Handle, tell: impl Fn(bool) + Send + 'static) {
        if let Line::Network(session) = &self.shared.line {
            runtime.spawn(silence::tell(session.clone(), tell));
        }
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
        let ask = || self.control.offer(ToSender::SIGN_OF_LIFE).is_ok();
        self.shared.answers(patience, ask)
    }
}

impl Drop for ReceiverLink {
    fn drop(&mut self) {
        self.shared.close(CloseCode::Done, "");
    }
}

/// Takes the peer's streams of a session. Holding the senders of both channels here keeps them open until the session ends.
async fn accept_streams(
    session: Arc<Session>,
    mut streams: mpsc::UnboundedReceiver<Taken>,
    ops: Sender<OpFrame>,
    bulk: mpsc::Sender<Arrived>,
) {
    loop {
        let taken = tokio::select! {
            taken = streams.recv() => taken,
            () = session.over() => None,
        };
        let Some((kind, stream)) = taken else { return };
        let (session, ops, bulk) = (session.clone(), ops.clone(), bulk.clone());
        tokio::spawn(async move {
            let reading = session.reading();
            if kind == StreamKind::Bulk {
                read_bulk(&session, stream, bulk).await;
                return drop(reading);
            }
            // A session that fails takes no more ops, and waits until nobody can send ranges any more.
            drop(bulk);
            let (to_read, mut read) = pieces();
            let unpacking = Shared::new(Line::Network(session.clone()));
            // The stream counts until its thread has ended, which may be long after its last byte was read.
            let unpack = move || {
                unpacking.unpack_all(&mut read, &ops);
                drop(reading);
            };
            match thread("ops-in", unpack) {
                Ok(()) => session.read_pieces(stream, to_read, true).await,
                Err(error) => session.close(CloseCode::Unable, &format!("cannot start a thread: {error}")),
            }
        });
    }
}

/// Pieces that are taken of a stream at a time.
const CHUNKS: usize = 32;

/// What comes on a stream of ranges, to be cut into frames.
struct Chunks<'a> {
    session: &'a Session,
    stream: quinn::RecvStream,
    read: [Bytes; CHUNKS],
    /// Which of them are not used up.
    waiting: std::ops::Range<usize>,
}

impl Chunks<'_> {
    /// The next so many bytes; fewer at the end of the stream, or once the session has ended.
    async fn take(&mut self, bytes: usize) -> Arrived {
        let mut arrived = Arrived::default();
        while arrived.bytes() < bytes {
            if self.waiting.is_empty() {
                let count = self.session.read_chunks(&mut self.stream, &mut self.read).await;
                self.waiting = 0..count;
                if count == 0 {
                    break;
                }
            }
            let chunk = &mut self.read[self.waiting.start];
            // Nothing stays here of what is used up: a piece holds on to the packets that it came with.
            let missing = bytes - arrived.bytes();
            if chunk.len() > missing {
                arrived.push(chunk.split_to(missing));
            } else {
                arrived.push(std::mem::take(chunk));
                self.waiting.start += 1;
            }
        }
        arrived
    }
}

/// Reads frames until the stream or the session ends.
async fn read_bulk(session: &Session, stream: quinn::RecvStream, frames: mpsc::Sender<Arrived>) {
    let cut = || session.close(CloseCode::Violation, "a bulk stream ended inside a frame");
    let mut chunks = Chunks {
        session,
        stream,
        read: Default::default(),
        waiting: 0..0,
    };
    loop {
        let prefix = chunks.take(FRAME_PREFIX_BYTES).await;
        match prefix.bytes() {
            FRAME_PREFIX_BYTES => {}
            0 => return,
            _ => return cut(),
        }
        let length = prefix.to_length();
        if length > BULK_FRAME_BYTES_MAX {
            let text = format!("a bulk frame of {length} bytes is over its limit");
            return session.close(CloseCode::Violation, &text);
        }
        let frame = chunks.take(length).await;
        if frame.bytes() < length {
            return cut();
        }
        let is_taken = tokio::select! {
            biased;
            sent = frames.send(frame) => sent.is_ok(),
            () = session.over() => false,
        };
        if !is_taken {
            return;
        }
    }
}
