//! The connections that live, and the end of those whose peer has lost its right.
//!
//! Rights are looked at when a connection opens. One that lasts for months would keep a right that was taken away
//! meanwhile, so all of them are looked at again every two seconds. A connection whose peer has other rights by now is
//! ended as well: the peer comes back, and both sides agree anew on what is permitted.

use crate::daemon::Stop;
use crate::net::LinkHandle;
use crossbeam_channel::RecvTimeoutError;
use driftless_certs::{Fingerprint, Rights};
use driftless_protocol::CloseCode;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often rights and fences are looked at.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(2);

/// So many looks in a row at a trust store that cannot be read end everybody's right: one may come between two writes of
/// an editor, but whoever breaks the file while taking a right away must not have left it in force.
pub(in crate::daemon) const UNREADABLE_LOOKS: u32 = 2;

/// What a peer is told that may have a right here, or none. It may come again: the store will be read by then.
pub(in crate::daemon) const NOT_KNOWN: &str =
    "this side cannot find out now who is allowed here; its log says why";

/// What a peer may do in a module at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// This.
    Has(Rights),
    /// Nothing.
    HasNone,
    /// The trust store cannot be read.
    Unknown,
}

/// All connections that were let in.
#[derive(Debug, Default, Clone)]
pub struct Guests(Arc<Mutex<Inside>>);

#[derive(Debug, Default)]
struct Inside {
    next: u64,
    guests: HashMap<u64, Guest>,
}

#[derive(Debug, Clone)]
struct Guest {
    peer: Fingerprint,
    module: String,
    rights: Rights,
    link: LinkHandle,
    /// Looks in a row that told nothing.
    unknown: u32,
}

/// A connection's place among the guests, until dropped.
#[derive(Debug)]
pub struct Seat {
    guests: Guests,
    number: u64,
}

impl Guests {
    /// Notes that a peer was let in to a module with these rights.
    pub fn seat(&self, peer: Fingerprint, module: &str, rights: Rights, link: LinkHandle) -> Seat {
        let mut inside = self.lock();
        inside.next += 1;
        let number = inside.next;
        let guest = Guest {
            peer,
            module: module.to_owned(),
            rights,
            link,
            unknown: 0,
        };
        inside.guests.insert(number, guest);
        let guests = self.clone();
        Seat { guests, number }
    }

    /// Ends the connections of peers that have not the same rights any more, until asked to stop. `tend` is called as often.
    pub fn watch(&self, stop: &Stop, standing: impl Fn(&Fingerprint, &str) -> Standing, tend: impl Fn()) {
        let stop = stop.channel();
        while stop.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
            tend();
            let present: Vec<_> = self
                .lock()
                .guests
                .iter()
                .map(|(at, guest)| (*at, guest.clone()))
                .collect();
            for (number, mut guest) in present {
                let standing = standing(&guest.peer, &guest.module);
                if let Some((code, text)) = guest.judge(standing) {
                    let Guest {
                        peer, module, link, ..
                    } = &guest;
                    tracing::warn!(%peer, module, "{text}: its connection is ended");
                    link.close(code, text);
                }
                if let Some(kept) = self.lock().guests.get_mut(&number) {
                    kept.unknown = guest.unknown;
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guest {
    /// Whether the connection has to end, and with which words.
    fn judge(&mut self, standing: Standing) -> Option<(CloseCode, &'static str)> {
        self.unknown = match standing {
            Standing::Unknown => self.unknown + 1,
            Standing::Has(_) | Standing::HasNone => 0,
        };
        match standing {
            Standing::Has(rights) if rights == self.rights => None,
            // The peer may come back at once.
            Standing::Has(_) => Some((CloseCode::Done, "this peer has other rights now")),
            Standing::HasNone => Some((CloseCode::NotAllowed, "this peer is no longer allowed here")),
            // It may come back, too, and comes in as soon as the store can be read again.
            Standing::Unknown if self.unknown >= UNREADABLE_LOOKS => Some((CloseCode::Unable, NOT_KNOWN)),
            Standing::Unknown => None,
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.guests.lock().guests.remove(&self.number);
    }
}
