//! When a reader thread has read everything that the kernel held at some moment.
//!
//! An event is in the kernel's queue before the call that caused it returns. So whoever wants to know that everything up
//! to now has been told asks how much is queued, and waits until that much has been read; what is queued later is of no
//! concern, however busy the file system is. A queue that was found empty settles everything that was asked before.

use crossbeam_channel::Sender;
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

/// The wishes that a reader has not seen yet.
pub(super) struct Wishes {
    /// Readable while there are any.
    bell: OwnedFd,
    waiting: Mutex<Option<Vec<Sender<()>>>>,
}

impl Wishes {
    pub(super) fn new() -> Result<Wishes, Errno> {
        Ok(Wishes {
            bell: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            waiting: Mutex::new(Some(Vec::new())),
        })
    }

    /// Adds one. It is dropped at once if nobody reads any more.
    pub(super) fn add(&self, done: Sender<()>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waiting) = &mut *waiting {
            waiting.push(done);
            // Fails only if the counter is full, and then it rings already.
            let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
        }
    }

    /// Takes all there are.
    fn take(&self) -> Vec<Sender<()>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // Empty when nobody rang.
        let _ = rustix::io::read(&self.bell, &mut [0; 8]);
        waiting.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The reader ended: whoever waits is not left waiting. That no events come any more is told by the channel of events.
    fn close(&self) {
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl AsFd for Wishes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

/// A reader's account of what was wished. Amounts are in whatever unit the reader counts.
pub(super) struct Flushes<'a> {
    wishes: &'a Wishes,
    read: u64,
    /// What has to be read first, in the order of the wishes.
    open: Vec<(u64, Vec<Sender<()>>)>,
}

impl<'a> Flushes<'a> {
    pub(super) fn new(wishes: &'a Wishes) -> Flushes<'a> {
        Flushes {
            wishes,
            read: 0,
            open: Vec::new(),
        }
    }

    /// Takes in new wishes; `queued` says how much the kernel holds now, `None` if that cannot be known.
    pub(super) fn take(&mut self, queued: impl FnOnce() -> Option<u64>) {
        let new = self.wishes.take();
        if !new.is_empty() {
            let until = queued().map_or(u64::MAX, |queued| self.read.saturating_add(queued));
            self.open.push((until, new));
        }
    }

    /// So much was read, and passed on.
    pub(super) fn note_read(&mut self, amount: u64) {
        self.read = self.read.saturating_add(amount);
        self.open.retain(|(until, _)| *until > self.read);
    }

    /// Nothing was left to read.
    pub(super) fn note_empty(&mut self) {
        self.open.clear();
    }
}

impl Drop for Flushes<'_> {
    fn drop(&mut self) {
        self.wishes.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::{TryRecvError, bounded};

    #[test]
    fn a_wish_is_granted_when_what_was_queued_before_it_is_read() {
        let wishes = Wishes::new().unwrap();
        let mut flushes = Flushes::new(&wishes);
        let (done, flushed) = bounded::<()>(0);
        flushes.note_read(10);
        wishes.add(done);
        flushes.take(|| Some(3));
        flushes.note_read(2);
        assert_eq!(flushed.try_recv(), Err(TryRecvError::Empty));
        flushes.note_read(5);
        assert_eq!(flushed.try_recv(), Err(TryRecvError::Disconnected));

        let (done, flushed) = bounded::<()>(0);
        wishes.add(done);
        flushes.take(|| None);
        flushes.note_read(1_000);
        assert_eq!(flushed.try_recv(), Err(TryRecvError::Empty));
        flushes.note_empty();
        assert_eq!(flushed.try_recv(), Err(TryRecvError::Disconnected));

        // An empty queue says nothing about a wish that was not taken in before it was found empty.
        let (done, flushed) = bounded::<()>(0);
        wishes.add(done);
        flushes.note_empty();
        assert_eq!(flushed.try_recv(), Err(TryRecvError::Empty));
        drop(flushes);
        assert_eq!(flushed.try_recv(), Err(TryRecvError::Disconnected));
        let (done, flushed) = bounded::<()>(0);
        wishes.add(done);
        assert_eq!(flushed.try_recv(), Err(TryRecvError::Disconnected));
    }
}
