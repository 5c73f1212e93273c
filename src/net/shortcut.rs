//! Contents between two ends in one process: beside the connection, not through it.
//!
//! The connection orders everything and carries all messages, so that there is one way to apply; but to encrypt the bytes of a
//! file for oneself, and to pack them, is of no use to anybody.

use crossbeam_channel::Sender;
use driftless_protocol::message::BulkFrame;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The way in for contents, of the present connection of a receiver in this process. Both ends' options hold the same one.
#[derive(Debug, Clone, Default)]
pub struct Shortcut(Arc<Mutex<Option<Way>>>);

/// A connection, and the way to its receiver.
type Way = (usize, Sender<BulkFrame>);

impl Shortcut {
    /// A connection has begun.
    pub(super) fn open(&self, connection: usize, frames: Sender<BulkFrame>) {
        *self.lock() = Some((connection, frames));
    }

    /// A connection has ended: its receiver shall see the end of its channel.
    pub(super) fn close(&self, connection: usize) {
        let mut present = self.lock();
        if present.as_ref().is_some_and(|(other, _)| *other == connection) {
            *present = None;
        }
    }

    /// Waits for room; an error if there is no connection any more.
    pub(super) fn send(&self, frame: BulkFrame) -> Result<(), super::Ended> {
        let frames = self.lock().as_ref().map(|(_, frames)| frames.clone());
        let frames = frames.ok_or(super::Ended)?;
        frames.send(frame).map_err(|_| super::Ended)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Way>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
