//! The two ends of a connection with nothing between them: whoever made them carries the messages, loses them, and ends the
//! connection at either end.

use super::*;
use crossbeam_channel::unbounded;
use driftless_protocol::message::{OpFrame, OpMessage, ToSender};

/// What leaves the sender's end and comes in there.
pub struct SenderSide {
    /// Control messages, on their way out.
    pub control: Receiver<ToReceiver>,
    /// Ops, on their way out.
    pub ops: Receiver<OpMessage>,
    /// Ranges, on their way out.
    pub ranges: Receiver<Range>,
    /// Messages that arrive. Dropped, the connection has ended here.
    pub arrive: Sender<ToSender>,
    room: Arc<Room>,
}

/// What leaves the receiver's end and comes in there.
pub struct ReceiverSide {
    /// Messages on their way out.
    pub control: Receiver<ToSender>,
    /// Control messages that arrive. All three dropped, the connection has ended here.
    pub arrive: Sender<ToReceiver>,
    /// Frames of ops that arrive.
    pub ops: Sender<OpFrame>,
    /// Ranges that arrive.
    pub ranges: Sender<Range>,
    room: Arc<Room>,
}

impl SenderSide {
    /// The connection ends here, for whatever reason.
    pub fn end(self, code: CloseCode, text: &str) {
        self.room.close(Side::Receiver, code, text);
    }

    /// How this end was closed.
    pub fn reason(&self) -> Option<(CloseCode, String)> {
        self.room.ended.get().map(|(_, code, text)| (*code, text.clone()))
    }
}

impl ReceiverSide {
    /// The connection ends here, for whatever reason.
    pub fn end(self, code: CloseCode, text: &str) {
        self.room.close(Side::Sender, code, text);
    }

    /// How this end was closed.
    pub fn reason(&self) -> Option<(CloseCode, String)> {
        self.room.ended.get().map(|(_, code, text)| (*code, text.clone()))
    }
}

fn room() -> (Arc<Room>, Receiver<Range>) {
    let (open, gone) = bounded(0);
    let (bulk, ranges) = unbounded();
    let room = Room {
        ended: OnceLock::new(),
        open: Mutex::new(Some(open)),
        gone,
        is_near: false,
        bulk: Mutex::new(Some(bulk)),
        spare: bounded(SPARE_MAX),
    };
    (Arc::new(room), ranges)
}

/// Both ends of a new connection, and what is between them.
pub fn ends(sender: Fingerprint) -> ((SenderLink, SenderSide), (ReceiverLink, ReceiverSide)) {
    let ((near, ranges_out), (far, _)) = (room(), room());
    let (ranges, bulk) = unbounded();
    let (to_receiver, control_out) = unbounded();
    let (arrive_at_receiver, incoming_at_receiver) = unbounded();
    let (to_sender, control_back) = unbounded();
    let (arrive_at_sender, incoming_at_sender) = unbounded();
    let (ops_out, ops_leaving) = unbounded();
    let (op_frames, frames) = unbounded();
    let sender_link = SenderLink {
        shared: Shared::new(Line::Here(near.clone(), Side::Sender)),
        control: Outlet::to(to_receiver),
        incoming: incoming_at_sender,
        ops: OpSender::by(vec![Outlet::to(ops_out)]),
        bulk: BulkSender {
            way: BulkWay::Here(near.clone()),
            steering: Arc::new(Steering::new(Compression::Off, Arc::default())),
        },
        features: Features::OURS,
        silence: Arc::default(),
    };
    let receiver_link = ReceiverLink {
        shared: Shared::new(Line::Here(far.clone(), Side::Receiver)),
        peer: sender,
        control: Outlet::to(to_sender),
        incoming: incoming_at_receiver,
        ops: frames,
        bulk,
        packed_bulk: PackedBulk::default(),
    };
    let sender_side = SenderSide {
        control: control_out,
        ops: ops_leaving,
        ranges: ranges_out,
        arrive: arrive_at_sender,
        room: near,
    };
    let receiver_side = ReceiverSide {
        control: control_back,
        arrive: arrive_at_receiver,
        ops: op_frames,
        ranges,
        room: far,
    };
    ((sender_link, sender_side), (receiver_link, receiver_side))
}
