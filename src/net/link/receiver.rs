//! The receiver's end.

use super::{BULK_STREAM, Line, LinkEnd, LinkStatistics, OP_STREAM, RECEIVED_FRAMES, Range, Shared, thread};
use crate::net::congestion::Permit;
use crate::net::packed::pieces;
use crate::net::shift::Outlet;
use crate::net::silence;
use crate::net::transport::{BULK_STREAMS, LinkOptions, OP_STREAMS};
use crossbeam_channel::{Receiver, Sender, bounded};
use driftless_certs::Fingerprint;
use driftless_protocol::CloseCode;
use driftless_protocol::codec::{self, FRAME_PREFIX_BYTES};
use driftless_protocol::limits::BULK_FRAME_BYTES_MAX;
use driftless_protocol::message::{OpFrame, Runs, ToReceiver, ToSender};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// The receiver's end.
#[derive(Debug)]
pub struct ReceiverLink {
    pub(in crate::net) shared: Shared,
    pub(in crate::net) peer: Fingerprint,
    pub(in crate::net) control: Outlet<ToSender>,
    pub(in crate::net) incoming: Receiver<ToReceiver>,
    pub(in crate::net) ops: Receiver<OpFrame>,
    pub(in crate::net) bulk: Receiver<Range>,
}

impl ReceiverLink {
    pub(in crate::net) fn start(
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
