//! The connections that live, and the end of those whose peer has lost its right.
//!
//! Rights are looked at when a connection opens. One that lasts for months would keep a right that was taken away
//! meanwhile, so all of them are looked at again every two seconds.

use crate::daemon::Stop;
use crate::net::LinkHandle;
use crossbeam_channel::RecvTimeoutError;
use driftless_certs::Fingerprint;
use driftless_protocol::CloseCode;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

const LOOK_EVERY: Duration = Duration::from_secs(2);

/// All connections that were let in.
#[derive(Debug, Default, Clone)]
pub struct Guests(Arc<Mutex<Inside>>);

#[derive(Debug, Default)]
struct Inside {
    next: u64,
    guests: HashMap<u64, (Fingerprint, String, LinkHandle)>,
}

/// A connection's place among the guests, until dropped.
#[derive(Debug)]
pub struct Seat {
    guests: Guests,
    number: u64,
}

impl Guests {
    /// Notes that a peer was let in to a module.
    pub fn seat(&self, peer: Fingerprint, module: &str, link: LinkHandle) -> Seat {
        let mut inside = self.lock();
        inside.next += 1;
        let number = inside.next;
        inside.guests.insert(number, (peer, module.to_owned(), link));
        let guests = self.clone();
        Seat { guests, number }
    }

    /// Ends the connections of peers that are no longer allowed, until asked to stop.
    pub fn watch(&self, stop: &Stop, is_allowed: impl Fn(&Fingerprint, &str) -> bool) {
        let stop = stop.channel();
        while stop.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
            let present: Vec<_> = self.lock().guests.values().cloned().collect();
            for (peer, module, link) in present {
                if !is_allowed(&peer, &module) {
                    tracing::warn!(%peer, module, "this peer is no longer allowed: its connection is ended");
                    link.close(CloseCode::NotAllowed, "this peer is no longer allowed here");
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.guests.lock().guests.remove(&self.number);
    }
}
