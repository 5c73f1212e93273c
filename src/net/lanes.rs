//! Which op stream an op leaves by.
//!
//! Each stream is one solid zstd stream, so what is alike belongs together: files go by the extension of their names. On source
//! trees two streams sorted like that take as few bytes as one of all files would, and 7 % less than two that take files in
//! turn. A stream that does not come round to what it should take loses it to the other one, so that both work whatever the
//! extensions are. A mark goes by the stream of what was sent before it: after a lone change, both fit one packet.

use super::link::Ended;
use super::shift::Outlet;
use driftless_protocol::Name;
use driftless_protocol::message::{OpBody, OpMessage};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Hands ops to the op streams.
#[derive(Debug, Clone)]
pub struct OpSender {
    lanes: Vec<Outlet<OpMessage>>,
    /// Which took the last message.
    last: Arc<AtomicUsize>,
}

impl OpSender {
    /// By these streams, or ways to the other end.
    pub(super) fn by(lanes: Vec<Outlet<OpMessage>>) -> OpSender {
        OpSender {
            lanes,
            last: Arc::default(),
        }
    }

    /// Waits for room.
    pub fn send(&self, message: OpMessage) -> Result<(), Ended> {
        self.lane(&message).send(message)
    }

    /// Does not wait: a message for which there is no room, or nobody any more, comes back.
    #[expect(clippy::result_large_err, reason = "it is the message that comes back")]
    pub fn try_send(&self, message: OpMessage) -> Result<(), OpMessage> {
        self.lane(&message).try_send(message)
    }

    /// The stream that a message belongs to, or if that is full, one that is not.
    fn lane(&self, message: &OpMessage) -> &Outlet<OpMessage> {
        let own = match is_mark(message) {
            true => self.last.load(Ordering::Relaxed),
            false => lane_of(message, self.lanes.len()),
        };
        let others = (0..self.lanes.len()).filter(|&lane| lane != own);
        let has_room = |&lane: &usize| self.lanes[lane].has_room();
        let lane = [own].into_iter().chain(others).find(has_room);
        let lane = lane.unwrap_or(own);
        self.last.store(lane, Ordering::Relaxed);
        &self.lanes[lane]
    }
}

fn is_mark(message: &OpMessage) -> bool {
    matches!(message, OpMessage::Op(op) if matches!(op.body, OpBody::Mark { .. }))
}

/// Where a message goes if there is room everywhere. What carries no content is alike, whatever its name.
fn lane_of(message: &OpMessage, lanes: usize) -> usize {
    let name = match message {
        OpMessage::Op(op) if op.held_bytes() > 0 => match &op.body {
            OpBody::PutFile { place, .. } => Some(&place.name),
            _ => None,
        },
        _ => None,
    };
    name.map_or(0, |name| extension_hash(name) as usize % lanes)
}

/// FNV-1a (Fowler, Noll and Vo) of what follows the last dot.
fn extension_hash(name: &Name) -> u32 {
    let name = name.as_bytes();
    let extension = name
        .iter()
        .rposition(|&byte| byte == b'.')
        .map_or(&[][..], |dot| &name[dot..]);
    let step = |hash: u32, &byte: &u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    let hash = extension.iter().fold(0x811c_9dc5, step);
    // The lowest bits alone know too little of the bytes before the last.
    hash ^ (hash >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::bounded;
    use driftless_protocol::message::{Content, InlineContent, Op, Place};
    use driftless_protocol::{Attributes, Digest, ObjectId, Xattrs};

    fn put(name: &str, bytes: usize) -> OpMessage {
        let bytes = vec![7; bytes];
        OpMessage::Op(Op {
            number: 1,
            after: 0,
            barrier: false,
            body: OpBody::PutFile {
                place: Place {
                    directory: ObjectId(2),
                    name: Name::new(name.as_bytes()).unwrap(),
                },
                object: ObjectId(3),
                attributes: Attributes::default(),
                content: Content::Inline {
                    digest: Digest::of(&bytes),
                    bytes: InlineContent(bytes),
                },
            },
            xattrs: Xattrs::default(),
        })
    }

    #[test]
    fn what_is_alike_leaves_by_one_stream() {
        let lane = |name: &str| lane_of(&put(name, 10), 2);
        assert_eq!(lane("main.rs"), lane("lib.rs"));
        assert_eq!(lane("a.b.rs"), lane("lib.rs"));
        assert_eq!(lane("README"), lane("LICENSE"));
        let used = |extensions: &[&str]| {
            let lanes = extensions.iter().map(|extension| lane(&format!("x.{extension}")));
            lanes.collect::<std::collections::BTreeSet<_>>().len()
        };
        assert_eq!(used(&["rs", "c", "h", "py", "js", "html", "json", "txt"]), 2);
        // Without content they are alike.
        assert_eq!(lane_of(&put("main.rs", 0), 2), lane_of(&put("README", 0), 2));
        assert_eq!(lane_of(&OpMessage::Withdraw { number: 1 }, 2), 0);
        assert_eq!(lane_of(&put("main.rs", 10), 1), 0);
    }

    #[test]
    fn what_has_no_room_comes_back() {
        let (queues, waiting): (Vec<_>, Vec<_>) = (0..2).map(|_| bounded(1)).unzip();
        let lanes = OpSender::by(queues.into_iter().map(Outlet::to).collect());
        assert_eq!(lanes.try_send(put("lib.rs", 10)), Ok(()));
        assert_eq!(lanes.try_send(put("main.rs", 20)), Ok(()), "by the other stream");
        assert_eq!(lanes.try_send(put("mod.rs", 30)), Err(put("mod.rs", 30)));
        waiting[1].recv().unwrap();
        assert_eq!(lanes.try_send(put("mod.rs", 30)), Ok(()));
        drop(waiting);
        assert_eq!(lanes.try_send(put("mod.rs", 30)), Err(put("mod.rs", 30)));
    }

    #[test]
    fn a_mark_follows_what_was_sent_before_it() {
        let (queues, waiting): (Vec<_>, Vec<_>) = (0..2).map(|_| bounded(4)).unzip();
        let lanes = OpSender::by(queues.into_iter().map(Outlet::to).collect());
        let mark = || {
            OpMessage::Op(Op {
                number: 2,
                after: 0,
                barrier: false,
                body: OpBody::Mark { sequence: 5 },
                xattrs: Xattrs::default(),
            })
        };
        let names = ["x.rs", "x.c", "x.h", "x.py", "x.js", "x.html"];
        for (lane, waiting) in waiting.iter().enumerate() {
            let name = names
                .iter()
                .find(|name| lane_of(&put(name, 10), 2) == lane)
                .unwrap();
            lanes.send(put(name, 10)).unwrap();
            lanes.send(mark()).unwrap();
            let sent: Vec<_> = waiting.try_iter().collect();
            assert_eq!(sent, [put(name, 10), mark()]);
        }
    }

    #[test]
    fn a_stream_that_has_room_takes_what_another_has_not() {
        let (queues, waiting): (Vec<_>, Vec<_>) = (0..2).map(|_| bounded(3)).unzip();
        let lanes = OpSender::by(queues.into_iter().map(Outlet::to).collect());
        let own = lane_of(&put("main.rs", 10), 2);
        for _ in 0..3 {
            lanes.send(put("main.rs", 10)).unwrap();
        }
        assert_eq!((waiting[own].len(), waiting[1 - own].len()), (3, 0));
        for _ in 0..3 {
            lanes.send(put("main.rs", 10)).unwrap();
        }
        assert_eq!((waiting[own].len(), waiting[1 - own].len()), (3, 3));
        drop(waiting);
        assert_eq!(lanes.send(put("main.rs", 10)), Err(Ended));
    }
}
