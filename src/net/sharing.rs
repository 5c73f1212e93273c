//! Which links share a connection: those of one process to the same address and peer, with the same settings of what belongs to a
//! connection.
//!
//! Several that want a connection at a time wait for one of them to dial, and share its failure, too.

use super::congestion::Congestion;
use super::transport::{ConnectError, LinkOptions, Parties};
use super::trunk::{Place, Trunk};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::OnceCell;

/// What is alike for all sessions of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    address: SocketAddr,
    parties: Parties,
    congestion: Congestion,
    idle_timeout: Duration,
    keep_alive: Duration,
    probes_size: bool,
}

impl Key {
    /// None for a link that has a connection of its own.
    pub(super) fn of(address: SocketAddr, options: &LinkOptions) -> Option<Key> {
        Some(Key {
            address,
            // A limiter is one mirror's.
            parties: options.sharing.filter(|_| options.limiter.is_none())?,
            congestion: options.congestion,
            idle_timeout: options.idle_timeout,
            keep_alive: options.keep_alive,
            probes_size: options.probes_size,
        })
    }
}

/// What came of dialling.
type Dialled = OnceCell<Result<Weak<Trunk>, ConnectError>>;

/// The connections of a process that are shared.
#[derive(Debug, Clone, Default)]
pub(super) struct Trunks(Arc<Mutex<HashMap<Key, Arc<Dialled>>>>);

/// A place on a connection.
#[derive(Debug)]
pub(super) struct Reached {
    pub(super) place: Place,
    /// It was dialled before, for others or ahead.
    pub(super) is_joined: bool,
}

impl Trunks {
    /// A place on the connection of this key, which is dialled if there is none. Who dials has a place on it before anybody else has
    /// the connection, so that it does not end meanwhile.
    pub(super) async fn reach<D: Future<Output = Result<Place, ConnectError>>>(
        &self,
        key: &Key,
        dial: impl Fn() -> D,
    ) -> Result<Reached, ConnectError> {
        loop {
            let dialled = self.dialled(key);
            let mut own = None;
            let outcome = dialled
                .get_or_init(|| async {
                    let place = own.insert(dial().await?);
                    Ok(Arc::downgrade(place.trunk()))
                })
                .await
                .clone();
            if let Some(place) = own {
                let is_joined = false;
                return Ok(Reached { place, is_joined });
            }
            let trunk = outcome.inspect_err(|_| self.forget(key, &dialled))?;
            match trunk.upgrade().and_then(|trunk| trunk.join()) {
                Some(place) => {
                    let is_joined = true;
                    return Ok(Reached { place, is_joined });
                }
                None => self.forget(key, &dialled),
            }
        }
    }

    /// The next one dials anew: on this connection nobody answers. Its sessions may find that out for themselves.
    pub(super) fn give_up(&self, key: &Key, trunk: &Arc<Trunk>) {
        let is_it = |dialled: &Arc<Dialled>| {
            let known = dialled.get().and_then(|outcome| outcome.as_ref().ok());
            known.is_some_and(|known| known.as_ptr() == Arc::as_ptr(trunk))
        };
        let mut all = self.lock();
        if all.get(key).is_some_and(is_it) {
            all.remove(key);
        }
    }

    #[cfg(test)]
    pub(super) fn knows(&self, key: &Key) -> bool {
        self.lock().contains_key(key)
    }

    #[cfg(test)]
    pub(super) fn trunk(&self, key: &Key) -> Option<Arc<Trunk>> {
        let dialled = self.lock().get(key).cloned()?;
        dialled.get()?.as_ref().ok()?.upgrade()
    }

    fn dialled(&self, key: &Key) -> Arc<Dialled> {
        let mut all = self.lock();
        if let Some(dialled) = all.get(key) {
            return dialled.clone();
        }
        all.retain(|_, dialled| match dialled.get() {
            Some(Ok(trunk)) => trunk.strong_count() > 0,
            Some(Err(_)) => false,
            None => true,
        });
        all.entry(key.clone()).or_default().clone()
    }

    fn forget(&self, key: &Key, dialled: &Arc<Dialled>) {
        let mut all = self.lock();
        if all.get(key).is_some_and(|present| Arc::ptr_eq(present, dialled)) {
            all.remove(key);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Arc<Dialled>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
