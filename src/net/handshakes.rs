//! Handshakes under way, counted by where they come from.
//!
//! A handshake costs the receiver a signature, memory and time, and whoever asks for it need not even be known. So only a
//! few may be under way from one address, and beyond a small number an address has to prove first that it is where the
//! packets come from (a retry token costs one hash). What is too much is dropped without an answer: an honest peer's
//! QUIC asks again after a second, and a forger can make us send nothing.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Under way at a time, from everywhere.
const HANDSHAKES_MAX: usize = 512;
/// Under way at a time, from one address (of IPv6, from one network of 64 bits).
const PER_ADDRESS_MAX: usize = 32;
/// With more than this under way, addresses have to prove themselves first.
const UNPROVEN_MAX: usize = 32;

/// What to do with somebody who knocks.
#[derive(Debug)]
pub enum Knock {
    /// Shake hands; the place is held until this is dropped.
    Admit(Place),
    /// Let it prove its address.
    Prove,
    /// Say nothing.
    Ignore,
}

/// All handshakes under way.
#[derive(Debug, Clone, Default)]
pub struct Handshakes(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    by_origin: HashMap<IpAddr, usize>,
}

/// One handshake's place.
#[derive(Debug)]
pub struct Place {
    handshakes: Handshakes,
    origin: IpAddr,
}

impl Handshakes {
    /// Decides about a handshake from an address, which was proven or not.
    pub fn knock(&self, address: IpAddr, is_proven: bool) -> Knock {
        let origin = origin(address);
        let mut counts = self.lock();
        if counts.all >= UNPROVEN_MAX && !is_proven {
            return Knock::Prove;
        }
        let here = counts.by_origin.get(&origin).copied().unwrap_or(0);
        if counts.all >= HANDSHAKES_MAX || here >= PER_ADDRESS_MAX {
            return Knock::Ignore;
        }
        counts.all += 1;
        counts.by_origin.insert(origin, here + 1);
        Knock::Admit(Place {
            handshakes: self.clone(),
            origin,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.handshakes.lock();
        counts.all -= 1;
        if let Some(here) = counts.by_origin.get_mut(&self.origin) {
            *here -= 1;
            if *here == 0 {
                counts.by_origin.remove(&self.origin);
            }
        }
    }
}

/// What counts as one origin. A network of 64 bits is what a single IPv6 subscriber has.
fn origin(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from(u128::from(v6) >> 64 << 64).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_address_has_a_share_and_gets_it_back() {
        let handshakes = Handshakes::default();
        let admitted = |text: &str, proven| match handshakes.knock(address(text), proven) {
            Knock::Admit(place) => Some(place),
            _ => None,
        };
        let mut places: Vec<_> = (0..PER_ADDRESS_MAX)
            .map(|_| admitted("192.0.2.1", true).unwrap())
            .collect();
        // The same address in another notation is no other address.
        assert!(admitted("::ffff:192.0.2.1", true).is_none());
        assert!(admitted("192.0.2.2", true).is_some());
        places.pop();
        assert!(admitted("192.0.2.1", true).is_some());
        drop(places);
        assert_eq!(handshakes.lock().all, 0);
        assert!(handshakes.lock().by_origin.is_empty());
    }

    #[test]
    fn a_network_of_ipv6_is_one_origin() {
        assert_eq!(
            origin(address("2001:db8::1")),
            origin(address("2001:db8::ffff:2"))
        );
        assert_ne!(origin(address("2001:db8::1")), origin(address("2001:db8:0:1::1")));
    }

    #[test]
    fn under_load_addresses_prove_themselves_and_there_is_an_end() {
        let handshakes = Handshakes::default();
        let mut places = Vec::new();
        for n in 0..HANDSHAKES_MAX {
            let from = IpAddr::from([10, 0, (n / 16) as u8, 1]);
            if n >= UNPROVEN_MAX {
                assert!(matches!(handshakes.knock(from, false), Knock::Prove));
            }
            match handshakes.knock(from, n >= UNPROVEN_MAX) {
                Knock::Admit(place) => places.push(place),
                other => panic!("{n}: {other:?}"),
            }
        }
        assert!(matches!(
            handshakes.knock(address("192.0.2.9"), true),
            Knock::Ignore
        ));
    }
}
