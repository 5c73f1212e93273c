//! Sockets that the connections of a process share: 500 mirrors need no more than one for each family of addresses.

use super::limit::Limiter;
use super::sharing::Trunks;
use super::transport::endpoint;
use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Endpoints for connecting, opened when they are needed. For one runtime.
#[derive(Clone, Default)]
pub struct Sockets {
    open: Arc<Mutex<HashMap<bool, quinn::Endpoint>>>,
    limiter: Option<Arc<Limiter>>,
    trunks: Trunks,
}

impl fmt::Debug for Sockets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sockets")
    }
}

impl Sockets {
    /// Sockets for links that have this limiter, if any.
    pub fn limited(limiter: Option<Arc<Limiter>>) -> Sockets {
        Sockets {
            limiter,
            ..Sockets::default()
        }
    }

    pub(super) fn are_limited(&self) -> bool {
        self.limiter.is_some()
    }

    /// The connections that are shared.
    pub(super) fn trunks(&self) -> &Trunks {
        &self.trunks
    }

    /// Opens those of both families as far as there are both, for a process that can open none later on.
    pub fn open_all(&self, runtime: &tokio::runtime::Handle) -> std::io::Result<()> {
        let _inside = runtime.enter();
        let any: [SocketAddr; 2] = [([0u16; 8], 0).into(), ([0u8; 4], 0).into()];
        let [six, four] = any.map(|address| self.endpoint_for(address));
        four.or(six).map(drop)
    }

    /// The one that reaches an address. Must be called inside the runtime.
    pub(super) fn endpoint_for(&self, address: SocketAddr) -> std::io::Result<quinn::Endpoint> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(endpoint) = open.get(&address.is_ipv6()) {
            return Ok(endpoint.clone());
        }
        let opened = endpoint(any(address), None, None, self.limiter.clone())?;
        open.insert(address.is_ipv6(), opened.clone());
        Ok(opened)
    }

    /// Gives up one that failed: the next to connect opens another.
    pub(super) fn forget(&self, address: SocketAddr) {
        self.open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&address.is_ipv6());
    }
}

/// Any address of the family of another, and any port.
pub(super) fn any(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(_) => ([0u8; 4], 0).into(),
        SocketAddr::V6(_) => ([0u16; 8], 0).into(),
    }
}
