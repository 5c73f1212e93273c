//! Ending by itself when nothing changes any more.
//!
//! A session is at rest when the trees have been equal at one point of the journal for the time that was asked for. When all
//! senders of the tree are, each asks the kernel for what it has not told yet, and ends if that changes nothing.

use super::Session;
use crate::daemon::quiet::Share;
use crossbeam_channel::{Receiver, Select, TryRecvError, bounded};
use std::time::Instant;

/// Whether a session may end by itself, and what it waits for.
#[derive(Debug, Default)]
pub(super) struct Rest {
    share: Option<Share>,
    /// The point of the journal at which the trees are equal, and since when.
    at: Option<(u64, Instant)>,
    is_at_rest: bool,
    /// Disconnects when everything is in the channel that the kernel had to tell when all came to rest.
    flushed: Option<Receiver<()>>,
    is_flushed: bool,
}

impl Rest {
    /// For a session that ends by itself only if it has a share in that.
    pub(super) fn new(share: Option<Share>) -> Rest {
        Rest {
            share,
            ..Rest::default()
        }
    }

    /// The trees are not equal.
    pub(super) fn handle_busy(&mut self) {
        if std::mem::take(&mut self.is_at_rest)
            && let Some(share) = &mut self.share
        {
            share.set_at_rest(false);
        }
        (self.flushed, self.is_flushed) = (None, false);
    }

    /// Notes whether the kernel has told everything. Ask before its events are taken.
    pub(super) fn note_flushed(&mut self) {
        let is_flushed = |flushed: &Receiver<()>| flushed.try_recv() == Err(TryRecvError::Disconnected);
        self.is_flushed |= self.flushed.as_ref().is_some_and(is_flushed);
    }

    /// When to look again, if nothing happens before.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let share = self.share.as_ref().filter(|_| !self.is_at_rest)?;
        self.at.map(|(_, since)| since + share.time())
    }

    /// Adds what a thread has to wait for.
    pub(super) fn register<'a>(&'a self, select: &mut Select<'a>, over: Option<&'a Receiver<()>>) {
        if let Some(over) = over.filter(|_| self.is_at_rest && self.flushed.is_none()) {
            select.recv(over);
        }
        if let Some(flushed) = self.flushed.as_ref().filter(|_| !self.is_flushed) {
            select.recv(flushed);
        }
    }

    /// Disconnects when all senders of the tree are at rest.
    pub(super) fn over(&self) -> Option<Receiver<()>> {
        self.share.as_ref().map(Share::channel)
    }
}

impl Session<'_, '_> {
    /// The trees are equal, durably, at a point of the journal. Whether that is the end.
    pub(super) fn is_quiet(&mut self, sequence: u64) -> bool {
        if self.rest.share.is_none() {
            return false;
        }
        let since = match self.rest.at {
            Some((at, since)) if at == sequence => since,
            _ => {
                self.rest.handle_busy();
                self.rest.at = Some((sequence, Instant::now()));
                return false;
            }
        };
        let Some(share) = self.rest.share.as_mut() else {
            return false;
        };
        if since.elapsed() < share.time() {
            return false;
        }
        self.rest.is_at_rest = true;
        if !share.set_at_rest(true) {
            return false;
        }
        if self.rest.flushed.is_none() {
            let (done, flushed) = bounded(0);
            self.context.source.flush_events(done);
            self.rest.flushed = Some(flushed);
        }
        self.rest.is_flushed
    }
}
