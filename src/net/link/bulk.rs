//! Ranges of large files, on their way to the bulk streams and from them.

use super::Ended;
use crate::net::compression::{Queue, Steering, Stint};
use crate::net::ranges::Leaving;
use crate::net::shortcut::{Origin, Room};
use crossbeam_channel::Sender;
use driftless_protocol::message::{BulkFrame, RangeBody};
use std::cell::Cell;
use std::sync::Arc;
use tokio::sync::mpsc;

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
    pub(in crate::net) spare: Option<Sender<Vec<u8>>>,
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
    pub(in crate::net) way: BulkWay,
    pub(in crate::net) steering: Arc<Steering>,
}

/// Where ranges go.
#[derive(Debug, Clone)]
pub(in crate::net) enum BulkWay {
    Network(mpsc::Sender<Leaving>),
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

    /// An empty buffer for a range's bytes. Memory comes from ranges that were taken, where that can be: to get it anew from the
    /// kernel takes as long as to hash what is in it.
    pub fn buffer(&self) -> Vec<u8> {
        match &self.way {
            BulkWay::Network(_) => Vec::new(),
            BulkWay::Here(room) => room.spare(),
        }
    }

    /// Waits for room. `sum` is that of the range's bytes, if they are a span and it is known; `origin` is where a receiver
    /// in this process gets them from, and then the frame needs none.
    pub fn send(&self, frame: BulkFrame, sum: Option<[u8; 32]>, origin: Option<Origin>) -> Result<(), Ended> {
        let frames = match &self.way {
            BulkWay::Network(frames) => frames,
            BulkWay::Here(room) => return room.send_bulk(frame, sum, origin),
        };
        let leaving = Leaving::of(frame).map_err(|_| Ended)?;
        let queue = Queue::of(frames.capacity(), frames.max_capacity());
        let had_processor = STINT.get().is_some_and(|stint| stint.had_processor());
        self.steering.observe(queue, had_processor);
        let sent = frames.blocking_send(leaving).map_err(|_| Ended);
        STINT.set(Some(Stint::begin()));
        sent
    }

    /// Whether the receiver is in this process, so that packing its bytes is of no use.
    pub fn is_local(&self) -> bool {
        matches!(&self.way, BulkWay::Here(room) if room.is_near())
    }
}
