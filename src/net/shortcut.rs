//! A mirror connection whose two ends are in one process: without a network, and without what a network asks for.
//!
//! The same messages pass in the same order and under the same limits as over QUIC, so that there is one way to apply; but
//! neither encoded, nor packed, nor encrypted, which would be of no use to anybody. No port is opened.

use super::compression::{Compression, Steering};
use super::endpoint::Accepted;
use super::gather::collect_ops;
use super::lanes::OpSender;
use super::link::{
    BulkSender, BulkWay, Ended, Line, LinkEnd, OP_QUEUE, PackedBulk, RECEIVED_FRAMES, Range, ReceiverLink,
    SenderLink, Shared, thread,
};
use super::shift::Outlet;
use crossbeam_channel::{Receiver, Sender, bounded, select};
use driftless_certs::Fingerprint;
use driftless_protocol::CloseCode;
use driftless_protocol::message::{BulkFrame, ToReceiver};
use driftless_protocol::version::Features;
use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

#[cfg(test)]
pub(crate) mod apart;

/// The way to a receiver in this process. Both ends' options hold the same one.
#[derive(Debug, Clone)]
pub struct Shortcut {
    /// Who the sender is to the receiver.
    sender: Fingerprint,
    way: Arc<Mutex<Way>>,
}

#[derive(Debug, Default)]
struct Way {
    /// To the receiver's acceptor, while there is one.
    accepting: Option<Sender<Accepted>>,
    rooms: Vec<Weak<Room>>,
}

impl Shortcut {
    /// A way for a sender of this identity, to whatever receiver has it in its options.
    pub fn new(sender: Fingerprint) -> Shortcut {
        Shortcut {
            sender,
            way: Arc::default(),
        }
    }

    /// A receiver takes connections from now on.
    pub(super) fn open(&self, accepting: Sender<Accepted>) {
        lock(&self.way).accepting = Some(accepting);
    }

    /// The receiver ends, and all connections with it.
    pub(super) fn close(&self) {
        let way = std::mem::take(&mut *lock(&self.way));
        for room in way.rooms.iter().filter_map(Weak::upgrade) {
            room.close(Side::Receiver, CloseCode::Done, "the receiver stops");
        }
    }

    /// Connects, and sends the first messages. None if there is no receiver.
    pub(super) fn connect(&self, first: Vec<ToReceiver>) -> io::Result<Option<SenderLink>> {
        let mut way = lock(&self.way);
        let Some(accepting) = way.accepting.clone() else {
            return Ok(None);
        };
        let (sender, receiver, room) = ends(self.sender)?;
        way.rooms.retain(|room| room.strong_count() > 0);
        way.rooms.push(Arc::downgrade(&room));
        drop(way);
        if accepting.send(Accepted::Mirror(receiver)).is_err() {
            return Ok(None);
        }
        // Now that somebody takes them: there may be more than a queue holds.
        for message in first {
            let _ = sender.control.send(message);
        }
        Ok(Some(sender))
    }
}

/// The open file that ranges are of. A receiver in the sender's process has the kernel copy their bytes, or share them.
#[derive(Debug, Clone)]
pub struct Origin {
    file: Arc<File>,
    /// What somebody still has to copy.
    _uncopied: Sender<Infallible>,
}

/// Waits until nobody has an [`Origin`] any more.
#[derive(Debug)]
pub struct Copied(Receiver<Infallible>);

impl Origin {
    /// Of ranges that will be sent, and who waits for their copies.
    pub fn new(file: File) -> (Origin, Copied) {
        let (uncopied, copied) = bounded(0);
        let origin = Origin {
            file: Arc::new(file),
            _uncopied: uncopied,
        };
        (origin, Copied(copied))
    }

    /// The file.
    pub fn file(&self) -> &File {
        &self.file
    }
}

impl Copied {
    /// Blocks until all ranges were copied, or dropped because the connection ended.
    pub fn wait(self) {
        let Err(_) = self.0.recv();
    }
}

/// One of the two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Sender,
    Receiver,
}

/// What both ends of a connection share.
#[derive(Debug)]
pub(super) struct Room {
    ended: OnceLock<(Side, CloseCode, String)>,
    /// Taken when the connection ends, which everybody who waits for `gone` sees.
    open: Mutex<Option<Sender<Infallible>>>,
    gone: Receiver<Infallible>,
    /// The way of contents, which nobody forwards. Taken at the end, so that the receiver sees the end of its channel.
    bulk: Mutex<Option<Sender<Range>>>,
    /// Both ends are in the same memory. In a simulated network they are treated as two machines.
    is_near: bool,
    /// Memory of ranges that were taken.
    spare: (Sender<Vec<u8>>, Receiver<Vec<u8>>),
}

/// Messages under way in each direction and half: no window of a network adds to them.
const CONTROL_QUEUE: usize = 1_024;
/// Buffers that are kept for the next ranges: as many as can be under way.
const SPARE_MAX: usize = 2 * RECEIVED_FRAMES;

impl Room {
    /// Whether what is sent is taken from the same memory.
    pub(super) fn is_near(&self) -> bool {
        self.is_near
    }

    /// Ends the connection, if nobody has yet.
    pub(super) fn close(&self, side: Side, code: CloseCode, text: &str) {
        let _ = self.ended.set((side, code, text.to_owned()));
        lock(&self.bulk).take();
        lock(&self.open).take();
    }

    /// How it ended, as one side sees it.
    pub(super) fn ended(&self, side: Side) -> Option<LinkEnd> {
        self.ended.get().map(|(by, code, text)| LinkEnd::Closed {
            code: *code,
            text: text.clone(),
            by_peer: *by != side,
        })
    }

    /// Waits for room; an error once the connection has ended.
    pub(super) fn send_bulk(
        &self,
        frame: BulkFrame,
        sum: Option<[u8; 32]>,
        origin: Option<Origin>,
    ) -> Result<(), Ended> {
        let frames = lock(&self.bulk).clone().ok_or(Ended)?;
        let range = Range {
            frame,
            sum,
            origin,
            spare: Some(self.spare.0.clone()),
        };
        select! {
            send(frames, range) -> sent => sent.map_err(|_| Ended),
            recv(self.gone) -> _ => Err(Ended),
        }
    }

    /// An empty buffer for a range.
    pub(super) fn spare(&self) -> Vec<u8> {
        let mut buffer = self.spare.1.try_recv().unwrap_or_default();
        buffer.clear();
        buffer
    }

    /// Passes messages on until one end is gone.
    fn forward<T: Send + 'static, U: Send + 'static>(
        self: &Arc<Room>,
        name: &str,
        from: Receiver<T>,
        to: Sender<U>,
        mut collect: impl FnMut(T, &Receiver<T>) -> U + Send + 'static,
    ) -> io::Result<()> {
        let room = self.clone();
        thread(name, move || {
            loop {
                let first = select! {
                    recv(from) -> first => first.ok(),
                    recv(room.gone) -> _ => None,
                };
                let Some(first) = first else { return };
                let message = collect(first, &from);
                let is_sent = select! {
                    send(to, message) -> sent => sent.is_ok(),
                    recv(room.gone) -> _ => false,
                };
                if !is_sent {
                    return;
                }
            }
        })
    }
}

/// Both ends of a new connection.
fn ends(sender: Fingerprint) -> io::Result<(SenderLink, ReceiverLink, Arc<Room>)> {
    let (open, gone) = bounded(0);
    let (bulk, ranges) = bounded(RECEIVED_FRAMES);
    let room = Arc::new(Room {
        ended: OnceLock::new(),
        open: Mutex::new(Some(open)),
        gone,
        is_near: true,
        bulk: Mutex::new(Some(bulk)),
        spare: bounded(SPARE_MAX),
    });
    let (to_receiver, forth) = bounded(CONTROL_QUEUE);
    let (at_receiver, from_sender) = bounded(CONTROL_QUEUE);
    let (to_sender, back) = bounded(CONTROL_QUEUE);
    let (at_sender, from_receiver) = bounded(CONTROL_QUEUE);
    let (ops, waiting) = bounded(OP_QUEUE);
    let (op_frames, frames) = bounded(RECEIVED_FRAMES);
    room.forward("control-out", forth, at_receiver, |message, _| message)?;
    room.forward("control-in", back, at_sender, |message, _| message)?;
    room.forward("ops", waiting, op_frames, collect_ops)?;
    let shared = |side| Shared::new(Line::Here(room.clone(), side));
    let sender_link = SenderLink {
        shared: shared(Side::Sender),
        control: Outlet::to(to_receiver),
        incoming: from_receiver,
        ops: OpSender::by(vec![Outlet::to(ops)]),
        bulk: BulkSender {
            way: BulkWay::Here(room.clone()),
            steering: Arc::new(Steering::new(Compression::Off, Arc::default())),
        },
        features: Features::OURS,
        silence: Arc::default(),
    };
    let receiver_link = ReceiverLink {
        shared: shared(Side::Receiver),
        peer: sender,
        control: Outlet::to(to_sender),
        incoming: from_sender,
        ops: frames,
        bulk: ranges,
        packed_bulk: PackedBulk::default(),
    };
    Ok((sender_link, receiver_link, room))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_copied_when_nobody_has_it_any_more() {
        let (origin, copied) = Origin::new(tempfile::tempfile().unwrap());
        let ranges = vec![origin.clone(), origin];
        let (done, told) = bounded(1);
        let waiting = std::thread::spawn(move || {
            copied.wait();
            done.send(()).unwrap();
        });
        assert!(told.try_recv().is_err());
        let mut ranges = ranges.into_iter();
        drop(ranges.next());
        assert!(told.try_recv().is_err());
        drop(ranges);
        assert_eq!(told.recv(), Ok(()));
        waiting.join().unwrap();
    }
}
