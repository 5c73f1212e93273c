//! Queues of messages to the network, and those who pack them: they come when there is something to do, and go when there
//! has been nothing for a while.

use super::link::{Ended, Shared, thread};
use super::packed::{Packer, Pause};
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use driftless_protocol::CloseCode;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Takes messages on their way out.
pub struct Outlet<T> {
    queue: Sender<T>,
    /// Those who pack what is in the queue; nobody has to be called if the other end is in this process.
    shift: Option<Arc<Shift<T>>>,
}

impl<T> Clone for Outlet<T> {
    fn clone(&self) -> Outlet<T> {
        Outlet {
            queue: self.queue.clone(),
            shift: self.shift.clone(),
        }
    }
}

impl<T> fmt::Debug for Outlet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Outlet({} waiting)", self.queue.len())
    }
}

impl<T> Outlet<T> {
    /// Somebody takes what is in the queue, whether called or not.
    pub(super) fn to(queue: Sender<T>) -> Outlet<T> {
        Outlet { queue, shift: None }
    }
}

impl<T: Send + 'static> Outlet<T> {
    /// An outlet with room for `capacity` messages, and the streams that they leave by. `pack` has one stream take what waits
    /// until there is nothing for a while.
    pub(super) fn new(
        name: &'static str,
        capacity: usize,
        streams: Vec<Packer>,
        shared: Shared,
        pack: Pack<T>,
    ) -> Outlet<T> {
        let (queue, waiting) = bounded(capacity);
        let state = State {
            waiting: Some(waiting),
            free: streams,
        };
        let shift = Arc::new(Shift {
            name,
            shared,
            pack,
            state: Mutex::new(state),
        });
        Outlet {
            queue,
            shift: Some(shift),
        }
    }

    /// Waits for room.
    pub fn send(&self, message: T) -> Result<(), Ended> {
        self.queue.send(message).map_err(|_| Ended)?;
        self.call();
        Ok(())
    }

    /// Sends what need not be sent if there is no room.
    pub(super) fn offer(&self, message: T) -> Result<(), Ended> {
        match self.queue.try_send(message) {
            Ok(()) => self.call(),
            Err(TrySendError::Full(_)) => {}
            Err(TrySendError::Disconnected(_)) => return Err(Ended),
        }
        Ok(())
    }

    /// Does not wait: a message for which there is no room, or nobody any more, comes back.
    pub(super) fn try_send(&self, message: T) -> Result<(), T> {
        self.queue
            .try_send(message)
            .map_err(TrySendError::into_inner)
            .inspect(|()| self.call())
    }

    /// Whether there is room now.
    pub(super) fn has_room(&self) -> bool {
        !self.queue.is_full()
    }

    fn call(&self) {
        if let Some(shift) = &self.shift {
            shift.call();
        }
    }
}

/// What packs what waits for a stream.
pub(super) type Pack<T> = fn(&mut Packer, &Receiver<T>) -> io::Result<Pause>;

/// The streams of an outlet, and a thread for each that has something to pack.
struct Shift<T> {
    name: &'static str,
    shared: Shared,
    pack: Pack<T>,
    state: Mutex<State<T>>,
}

struct State<T> {
    /// Taken when the streams are gone, so that whoever waits for room in the queue hears of it.
    waiting: Option<Receiver<T>>,
    /// Streams that nobody works for.
    free: Vec<Packer>,
}

impl<T: Send + 'static> Shift<T> {
    /// Sees to it that somebody takes what is in the queue.
    fn call(self: &Arc<Shift<T>>) {
        let mut state = self.state();
        let Some(waiting) = state.waiting.clone().filter(|waiting| !waiting.is_empty()) else {
            return;
        };
        let Some(stream) = state.free.pop() else { return };
        drop(state);
        let shift = self.clone();
        if let Err(error) = thread(self.name, move || shift.work(&waiting, stream)) {
            self.shared
                .close(CloseCode::Unable, &format!("cannot start a thread: {error}"));
            self.state().waiting = None;
        }
    }

    fn work(&self, waiting: &Receiver<T>, mut stream: Packer) {
        loop {
            match (self.pack)(&mut stream, waiting) {
                Ok(Pause::Idle) => {
                    let mut state = self.state();
                    // Under the lock, so that whoever brings one now finds the stream free.
                    if waiting.is_empty() {
                        return state.free.push(stream);
                    }
                }
                Ok(Pause::Ended) => return self.state().waiting = None,
                Err(error) => {
                    self.shared
                        .close(CloseCode::Violation, &format!("cannot encode: {error}"));
                    return self.state().waiting = None;
                }
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
