//! The receiver's endpoint: handshakes, authorisation, limits.

use super::congestion::Permit;
use super::limit::Limiter;
use super::link::{Line, ReceiverLink, Shared};
use super::pair::PairLink;
use super::shortcut::Shortcut;
use super::transport::{BULK_STREAMS, LinkOptions, OP_STREAMS, endpoint, transport};
use crossbeam_channel::{Receiver, Sender, unbounded};
use driftless_certs::{Fingerprint, peer_fingerprint};
use driftless_protocol::CloseCode;
use driftless_protocol::version::{ALPN_PAIR, HELLO_BYTES, Hello, HelloFault};
use quinn::crypto::rustls::{HandshakeData, QuicServerConfig};
use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use thiserror::Error;

/// Connections at a time, of all peers.
const CONNECTIONS_MAX: usize = 256;
/// Connections at a time of one identity.
const CONNECTIONS_PER_PEER_MAX: usize = 8;
/// How long a taken port is tried again.
const BIND_PATIENCE: std::time::Duration = std::time::Duration::from_secs(1);
/// With more handshakes than this under way, addresses have to prove themselves first.
const UNPROVEN_MAX: usize = 32;

/// What a connection is for, by its ALPN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alpn {
    /// Mirroring and verifying.
    Mirror,
    /// Pairing.
    Pair,
}

/// A connection that passed the handshake and the authorisation.
#[derive(Debug)]
pub enum Accepted {
    /// For mirroring and verifying.
    Mirror(ReceiverLink),
    /// For pairing.
    Pair(PairLink),
}

/// Whether a peer may connect, asked after the handshake and before anything is sent.
pub type Authorise = Arc<dyn Fn(Fingerprint, Alpn) -> bool + Send + Sync>;

/// The receiver's address could not be taken.
#[derive(Debug, Error)]
#[error("cannot listen on UDP {address}: {source}; give another address with --listen, or stop what uses it")]
pub struct BindError {
    address: SocketAddr,
    source: std::io::Error,
}

/// Listens for senders.
pub struct ReceiverEndpoint {
    listening: Listening,
    accepted: Receiver<Accepted>,
    address: SocketAddr,
}

/// Where senders come from.
enum Listening {
    Network(quinn::Endpoint),
    /// From this process alone.
    Here(Shortcut),
}

impl fmt::Debug for ReceiverEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReceiverEndpoint({})", self.address)
    }
}

impl ReceiverEndpoint {
    /// Listens on a UDP address. `secret` is this receiver's alone, and the same after a restart. With a shortcut in the
    /// options nothing is opened: only the sender of this process that has it, too, can connect.
    pub fn bind(
        runtime: &tokio::runtime::Handle,
        tls: rustls::ServerConfig,
        listen: SocketAddr,
        secret: &[u8; 32],
        options: &LinkOptions,
        authorise: Authorise,
    ) -> Result<ReceiverEndpoint, BindError> {
        if let Some(shortcut) = &options.shortcut {
            let (accepting, accepted) = unbounded();
            shortcut.open(accepting);
            return Ok(ReceiverEndpoint {
                listening: Listening::Here(shortcut.clone()),
                accepted,
                address: listen,
            });
        }
        let failed = |source| BindError {
            address: listen,
            source,
        };
        let other = |error: &dyn fmt::Display| failed(std::io::Error::other(error.to_string()));
        let crypto = QuicServerConfig::try_from(tls).map_err(|error| other(&error))?;
        let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        config
            .max_incoming(CONNECTIONS_MAX * 2)
            .incoming_buffer_size(64 << 10)
            .incoming_buffer_size_total(4 << 20);
        let _inside = runtime.enter();
        let endpoint =
            bind_patiently(listen, config.clone(), secret, options.limiter.clone()).map_err(failed)?;
        let address = endpoint.local_addr().map_err(failed)?;
        let (accepting, accepted) = unbounded();
        let door = Door {
            runtime: runtime.clone(),
            options: options.clone(),
            config,
            authorise,
            accepting,
            connected: Arc::default(),
        };
        runtime.spawn(accept(endpoint.clone(), door));
        Ok(ReceiverEndpoint {
            listening: Listening::Network(endpoint),
            accepted,
            address,
        })
    }

    /// Where it listens.
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// Connections as they come; disconnected once the endpoint is closed.
    pub fn accept(&self) -> &Receiver<Accepted> {
        &self.accepted
    }

    /// Ends all connections.
    pub fn close(&self) {
        match &self.listening {
            Listening::Network(endpoint) => {
                endpoint.close(CloseCode::Done.number().into(), b"the receiver stops");
            }
            Listening::Here(shortcut) => shortcut.close(),
        }
    }
}

impl Drop for ReceiverEndpoint {
    fn drop(&mut self) {
        self.close();
    }
}

#[derive(Clone)]
struct Door {
    runtime: tokio::runtime::Handle,
    options: LinkOptions,
    /// Of connections, but for the transport's, which each has for itself.
    config: quinn::ServerConfig,
    authorise: Authorise,
    accepting: Sender<Accepted>,
    connected: Arc<Mutex<HashMap<Fingerprint, usize>>>,
}

/// Keeps count of a peer's connections.
struct Seat {
    connected: Arc<Mutex<HashMap<Fingerprint, usize>>>,
    peer: Fingerprint,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut connected = self.connected.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = connected.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                connected.remove(&self.peer);
            }
        }
    }
}

async fn accept(endpoint: quinn::Endpoint, door: Door) {
    while let Some(incoming) = endpoint.accept().await {
        if endpoint.open_connections() >= CONNECTIONS_MAX {
            incoming.refuse();
        } else if endpoint.open_connections() >= UNPROVEN_MAX && !incoming.remote_address_validated() {
            // An `Incoming` that may be retried; the error gives it back, and it is dropped, which refuses it.
            let _ = incoming.retry();
        } else {
            tokio::spawn(door.clone().admit(incoming));
        }
    }
}

impl Door {
    async fn admit(self, incoming: quinn::Incoming) {
        let deadline = self.options.hello_timeout;
        let permit = Arc::<Permit>::default();
        let mut config = self.config.clone();
        config.transport_config(transport(
            &self.options,
            OP_STREAMS + BULK_STREAMS,
            1,
            permit.clone(),
        ));
        let Ok(connecting) = incoming.accept_with(Arc::new(config)) else {
            return;
        };
        let Ok(Ok(connection)) = tokio::time::timeout(deadline, connecting).await else {
            return;
        };
        let Some((peer, alpn)) = who(&connection) else {
            return connection.close(CloseCode::NotAllowed.number().into(), NOT_ALLOWED);
        };
        let authorise = self.authorise.clone();
        let allowed = tokio::task::spawn_blocking(move || authorise(peer, alpn))
            .await
            .unwrap_or(false);
        let seat = if allowed { self.seat(peer) } else { None };
        let Some(seat) = seat else {
            tracing::warn!(%peer, remote = %connection.remote_address(), "an unknown peer was refused");
            return connection.close(CloseCode::NotAllowed.number().into(), NOT_ALLOWED);
        };
        let greeted = tokio::time::timeout(deadline, greet(&connection)).await;
        let (send, receive) = match greeted {
            Ok(Ok(streams)) => streams,
            Ok(Err((code, text))) => return connection.close(code.number().into(), text.as_bytes()),
            Err(_) => return connection.close(CloseCode::Violation.number().into(), b"no hello in time"),
        };
        let watched = connection.clone();
        tokio::spawn(async move {
            watched.closed().await;
            drop(seat);
        });
        let accepted = match alpn {
            Alpn::Pair => Ok(Accepted::Pair(PairLink::new(
                self.runtime.clone(),
                Shared::new(Line::Network(connection)),
                peer,
                send,
                receive,
                deadline,
            ))),
            Alpn::Mirror => {
                let (runtime, options) = (&self.runtime, &self.options);
                ReceiverLink::start(runtime, connection, peer, send, receive, options, permit)
                    .map(Accepted::Mirror)
            }
        };
        match accepted {
            Ok(accepted) => {
                let _ = self.accepting.send(accepted);
            }
            Err(error) => tracing::error!("cannot serve a connection: {error}"),
        }
    }

    fn seat(&self, peer: Fingerprint) -> Option<Seat> {
        let mut connected = self.connected.lock().unwrap_or_else(PoisonError::into_inner);
        let count = connected.entry(peer).or_insert(0);
        if *count >= CONNECTIONS_PER_PEER_MAX {
            return None;
        }
        *count += 1;
        Some(Seat {
            connected: self.connected.clone(),
            peer,
        })
    }
}

/// A daemon that was just stopped may hold its port for another moment.
fn bind_patiently(
    listen: SocketAddr,
    config: quinn::ServerConfig,
    secret: &[u8; 32],
    limiter: Option<Arc<Limiter>>,
) -> std::io::Result<quinn::Endpoint> {
    let deadline = std::time::Instant::now() + BIND_PATIENCE;
    loop {
        match endpoint(listen, Some(config.clone()), Some(secret), limiter.clone()) {
            Err(error)
                if error.kind() == std::io::ErrorKind::AddrInUse && std::time::Instant::now() < deadline =>
            {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            outcome => return outcome,
        }
    }
}

/// The same words for everybody: a stranger must not learn what is known here.
const NOT_ALLOWED: &[u8] = b"this peer is not allowed here";

fn who(connection: &quinn::Connection) -> Option<(Fingerprint, Alpn)> {
    let identity = connection.peer_identity()?;
    let certificates = identity
        .downcast::<Vec<rustls::pki_types::CertificateDer<'static>>>()
        .ok()?;
    let peer = peer_fingerprint(&certificates).ok()?;
    let handshake = connection.handshake_data()?.downcast::<HandshakeData>().ok()?;
    let alpn = if handshake.protocol.as_deref()? == ALPN_PAIR {
        Alpn::Pair
    } else {
        Alpn::Mirror
    };
    Some((peer, alpn))
}

async fn greet(
    connection: &quinn::Connection,
) -> Result<(quinn::SendStream, quinn::RecvStream), (CloseCode, String)> {
    let gone = |_| (CloseCode::Violation, "the hello is missing".to_owned());
    let (mut send, mut receive) = connection.accept_bi().await.map_err(|_| gone(()))?;
    let _ = send.set_priority(2);
    let mut bytes = [0; HELLO_BYTES];
    receive.read_exact(&mut bytes).await.map_err(|_| gone(()))?;
    Hello::from_bytes(&bytes).map_err(|fault| match fault {
        HelloFault::NotDriftless => (CloseCode::Violation, fault.to_string()),
        HelloFault::NoCommonVersion { .. } => (CloseCode::Version, fault.to_string()),
    })?;
    send.write_all(&Hello::OURS.to_bytes())
        .await
        .map_err(|_| gone(()))?;
    Ok((send, receive))
}
