//! How many connections and sessions there may be: of everybody, and of one identity.

use super::endpoint::Alpn;
use super::trunk::FURTHER_WINDOW_BYTES;
use driftless_certs::Fingerprint;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Connections at a time of peers that were let in, each session counted.
pub(super) const CONNECTIONS_MAX: usize = 2_048;
/// Connections for pairing at a time: whoever has a key may open one, so they take no place of those that are let in.
pub(super) const PAIRINGS_MAX: usize = 16;
/// Sessions at a time of one identity, over however many connections: each of its mirrors has one.
const SESSIONS_PER_PEER_MAX: usize = 1_024;
/// So many of them may have as much under way as the streams' windows allow; each further one has [`FURTHER_WINDOW_BYTES`].
const WIDE_SESSIONS_PER_PEER: usize = 4;

/// Who is here.
#[derive(Clone, Default)]
pub(super) struct Seats(Arc<Mutex<Connected>>);

#[derive(Default)]
struct Connected {
    pairing: usize,
    mirroring: HashMap<Fingerprint, usize>,
}

impl Connected {
    fn is_full(&self) -> bool {
        self.mirroring.values().sum::<usize>() >= CONNECTIONS_MAX
    }

    /// Counts one more, if it may come in, and tells how many of its kind the peer has now.
    fn enter(&mut self, peer: Fingerprint, alpn: Alpn) -> Option<usize> {
        match alpn {
            Alpn::Pair if self.pairing < PAIRINGS_MAX => {
                self.pairing += 1;
                Some(1)
            }
            Alpn::Mirror | Alpn::Pull if !self.is_full() => {
                let count = self.mirroring.get(&peer).map_or(1, |count| count + 1);
                if count > SESSIONS_PER_PEER_MAX {
                    return None;
                }
                self.mirroring.insert(peer, count);
                Some(count)
            }
            Alpn::Pair | Alpn::Mirror | Alpn::Pull => None,
        }
    }

    fn leave(&mut self, peer: Fingerprint, alpn: Alpn) {
        if alpn == Alpn::Pair {
            self.pairing -= 1;
        } else if let Some(count) = self.mirroring.get_mut(&peer) {
            *count -= 1;
            if *count == 0 {
                self.mirroring.remove(&peer);
            }
        }
    }
}

impl Seats {
    /// Whether as many peers as may be are here.
    pub(super) fn is_full(&self) -> bool {
        self.lock().is_full()
    }

    /// A seat, if there is one.
    pub(super) fn take(&self, peer: Fingerprint, alpn: Alpn) -> Option<Seat> {
        let count = self.lock().enter(peer, alpn)?;
        let window = match count <= WIDE_SESSIONS_PER_PEER {
            true => 0,
            false => FURTHER_WINDOW_BYTES,
        };
        Some(Seat {
            seats: self.clone(),
            peer,
            alpn,
            window,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Connected> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps count of a peer's connections and sessions.
pub(super) struct Seat {
    seats: Seats,
    peer: Fingerprint,
    alpn: Alpn,
    /// What the peer may have under way in the session before somebody reads; 0 for as much as the streams' windows allow.
    pub(super) window: u32,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.lock().leave(self.peer, self.alpn);
    }
}

/// Seats of sessions of one connection that have ended, for its next ones.
///
/// A connection's window never shrinks (`Trunk::resize`): what it grew by for a session stays with it, and so does the seat.
/// Otherwise an identity could grow one connection after the other, and have far more under way than its seats stand for.
#[derive(Default)]
pub(super) struct Spare(Mutex<Vec<Seat>>);

impl Spare {
    pub(super) fn put(&self, seat: Seat) {
        self.lock().push(seat);
    }

    /// The one with most under way, as far as there is one.
    pub(super) fn take(&self) -> Option<Seat> {
        let mut spare = self.lock();
        let wide = spare.iter().position(|seat| seat.window == 0);
        match wide {
            Some(at) => Some(spare.swap_remove(at)),
            None => spare.pop(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Seat>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use driftless_certs::Identity;

    #[test]
    fn a_connection_keeps_the_seats_that_its_window_grew_for() {
        let (seats, spare) = (Seats::default(), Spare::default());
        let peer = Identity::ephemeral().unwrap().fingerprint();
        let taken: Vec<_> = (0..SESSIONS_PER_PEER_MAX)
            .map(|_| seats.take(peer, Alpn::Mirror).unwrap())
            .collect();
        let wide = taken.iter().filter(|seat| seat.window == 0).count();
        assert_eq!(wide, WIDE_SESSIONS_PER_PEER);
        taken.into_iter().for_each(|seat| spare.put(seat));
        // Sessions of other connections find none; those of this one do, the wide ones first.
        assert!(seats.take(peer, Alpn::Mirror).is_none());
        let again: Vec<_> = std::iter::from_fn(|| spare.take()).collect();
        assert_eq!(again.len(), SESSIONS_PER_PEER_MAX);
        assert!(again[..wide].iter().all(|seat| seat.window == 0));
        // With the connection they are free.
        again.into_iter().for_each(|seat| spare.put(seat));
        drop(spare);
        assert_eq!(seats.take(peer, Alpn::Mirror).unwrap().window, 0);
    }
}
