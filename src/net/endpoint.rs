//! The receiver's endpoint: handshakes, authorisation, limits.

use super::call::Call;
use super::congestion::Permit;
use super::handshakes::{Handshakes, Knock, Place};
use super::link::{Line, PRIORITY_CONTROL, ReceiverLink, Shared};
use super::pair::{PairLink, read_message};
use super::seats::{CONNECTIONS_MAX, Seat, Seats, Spare};
use super::separation::Transport;
use super::session::Session;
use super::shortcut::Shortcut;
use super::silence;
use super::transport::{CONNECTION_WINDOW_BYTES, LinkOptions, endpoint_over, socket, transport};
use super::trunk::{FURTHER_WINDOW_BYTES, Role, Trunk};
use crossbeam_channel::{Receiver, Sender, unbounded};
use driftless_certs::{Fingerprint, peer_fingerprint};
use driftless_protocol::CloseCode;
use driftless_protocol::message::PullRequest;
use driftless_protocol::version::{ALPN_PAIR, ALPN_PULL, Features, HELLO_BYTES, Hello, HelloFault};
use quinn::crypto::rustls::{HandshakeData, QuicServerConfig};
use std::fmt;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Instant;
use thiserror::Error;

/// After this time it is told again that an address is not answered.
const TELL_AGAIN: std::time::Duration = std::time::Duration::from_secs(60);
/// How long a taken port is tried again.
const BIND_PATIENCE: std::time::Duration = std::time::Duration::from_secs(1);
/// How long a process that ends waits until its peers were told.
const FAREWELL: std::time::Duration = std::time::Duration::from_millis(300);
/// What a peer may send before it is known whether it is allowed here: its hello and its first message fit several times.
const STRANGER_WINDOW_BYTES: u32 = 64 << 10;

/// What a connection is for, by its ALPN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Alpn {
    /// Mirroring and verifying.
    Mirror,
    /// Pairing.
    Pair,
    /// Mirroring, opened by the receiver.
    Pull,
}

/// A connection that passed the handshake and the authorisation.
#[derive(Debug)]
pub enum Accepted {
    /// For mirroring and verifying.
    Mirror(ReceiverLink),
    /// For pairing.
    Pair(PairLink),
    /// A receiver that wants a tree.
    Call(Call),
}

/// Whether a peer may connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It may.
    Allowed,
    /// It may not.
    Refused,
    /// That cannot be found out now: it is to come again.
    Unknown,
}

impl Verdict {
    /// Of what was found out.
    pub fn of(is_allowed: bool) -> Verdict {
        match is_allowed {
            true => Verdict::Allowed,
            false => Verdict::Refused,
        }
    }
}

/// Decides about a peer, after the handshake and before anything is sent.
pub type Authorise = Arc<dyn Fn(Fingerprint, Alpn) -> Verdict + Send + Sync>;

/// Whether anybody at an address is answered at all.
pub type Admit = Arc<dyn Fn(IpAddr) -> bool + Send + Sync>;

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
    /// From another process, which speaks to the network.
    Apart(Transport),
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
        (admit, authorise): (Admit, Authorise),
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
        let socket = listening_socket(listen)?;
        let (endpoint, open) =
            ReceiverEndpoint::over(runtime, tls, socket, secret, options, (admit, authorise)).map_err(
                |source| BindError {
                    address: listen,
                    source,
                },
            )?;
        open();
        Ok(endpoint)
    }

    /// The same with a socket that listens already. Nobody is answered before the second is called.
    pub(super) fn over(
        runtime: &tokio::runtime::Handle,
        tls: rustls::ServerConfig,
        socket: UdpSocket,
        secret: &[u8; 32],
        options: &LinkOptions,
        (admit, authorise): (Admit, Authorise),
    ) -> std::io::Result<(ReceiverEndpoint, impl FnOnce() + use<>)> {
        let crypto = QuicServerConfig::try_from(tls).map_err(std::io::Error::other)?;
        let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        config
            .max_incoming(CONNECTIONS_MAX * 2)
            .incoming_buffer_size(64 << 10)
            .incoming_buffer_size_total(4 << 20);
        let _inside = runtime.enter();
        let endpoint = endpoint_over(
            socket,
            Some(config.clone()),
            Some(secret),
            options.limiter.clone(),
        )?;
        let address = endpoint.local_addr()?;
        let (accepting, accepted) = unbounded();
        let door = Door {
            runtime: runtime.clone(),
            options: options.clone(),
            config,
            admit,
            authorise,
            accepting,
            seats: Seats::default(),
            handshakes: Handshakes::default(),
        };
        let (runtime, opened) = (runtime.clone(), endpoint.clone());
        let open = move || drop(runtime.spawn(accept(opened, door)));
        let listening = Listening::Network(endpoint);
        Ok((
            ReceiverEndpoint {
                listening,
                accepted,
                address,
            },
            open,
        ))
    }

    /// Takes those that another process lets in; it listens from now on.
    pub fn apart(transport: &Transport, listen: SocketAddr, authorise: Authorise) -> ReceiverEndpoint {
        ReceiverEndpoint {
            accepted: transport.listen(authorise),
            address: transport.address().unwrap_or(listen),
            listening: Listening::Apart(transport.clone()),
        }
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
            Listening::Apart(transport) => transport.stop(),
        }
    }

    /// Waits until the peers of a closed endpoint were told so, for a moment at most.
    pub(super) async fn say_farewell(&self) {
        if let Listening::Network(endpoint) = &self.listening {
            let _ = tokio::time::timeout(FAREWELL, endpoint.wait_idle()).await;
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
    admit: Admit,
    authorise: Authorise,
    accepting: Sender<Accepted>,
    seats: Seats,
    handshakes: Handshakes,
}

async fn accept(endpoint: quinn::Endpoint, door: Door) {
    let mut told = None;
    while let Some(incoming) = endpoint.accept().await {
        let remote = incoming.remote_address().ip();
        if !(door.admit)(remote) {
            if !told.is_some_and(|(ip, at): (IpAddr, Instant)| at.elapsed() < TELL_AGAIN && ip == remote) {
                told = Some((remote, Instant::now()));
                tracing::warn!(%remote, "not answered: hosts-allow and hosts-deny let no module be reached from there");
            }
            incoming.ignore();
            continue;
        }
        if door.seats.is_full() {
            incoming.refuse();
            continue;
        }
        let is_proven = incoming.remote_address_validated();
        match door.handshakes.knock(remote, is_proven) {
            Knock::Admit(place) => drop(tokio::spawn(door.clone().admit(incoming, place))),
            // An unproven `Incoming` may be retried; the error gives it back, and it is dropped, which refuses it.
            Knock::Prove => drop(incoming.retry()),
            Knock::Ignore => incoming.ignore(),
        }
    }
}

impl Door {
    /// Shakes hands and greets, each within its deadline. The place is free again when the peer is let in, from where on its seat counts,
    /// or sent away.
    async fn admit(self, incoming: quinn::Incoming, place: Place) {
        let deadline = self.options.hello_timeout;
        let permit = Arc::<Permit>::default();
        let mut config = self.config.clone();
        config.transport_config(transport(
            &self.options,
            0,
            1,
            STRANGER_WINDOW_BYTES,
            permit.clone(),
            incoming.remote_address().ip(),
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
        match self.judge(peer, alpn).await {
            Verdict::Allowed => {}
            Verdict::Refused => {
                tracing::warn!(%peer, remote = %connection.remote_address(), "an unknown peer was refused");
                return connection.close(CloseCode::NotAllowed.number().into(), NOT_ALLOWED);
            }
            Verdict::Unknown => {
                return connection.close(CloseCode::Unable.number().into(), NOT_KNOWN.as_bytes());
            }
        }
        let Some(seat) = self.seats.take(peer, alpn) else {
            tracing::warn!(%peer, remote = %connection.remote_address(), "there is no room for another connection");
            return connection.close(CloseCode::Limit.number().into(), NO_SEAT);
        };
        drop(place);
        if alpn == Alpn::Mirror {
            let trunk = Trunk::new(&self.runtime, connection.clone(), permit, Role::Receiver, None);
            self.runtime.spawn(silence::watch(trunk.clone()));
            return self.serve_sessions(&trunk, peer, seat).await;
        }
        if alpn == Alpn::Pull {
            let window = match seat.window {
                0 => CONNECTION_WINDOW_BYTES,
                window => window,
            };
            connection.set_receive_window(window.into());
        }
        let greeted = tokio::time::timeout(deadline, greet(&connection)).await;
        let (send, mut receive, features) = match greeted {
            Ok(Ok(streams)) => streams,
            Ok(Err((code, text))) => return connection.close(code.number().into(), text.as_bytes()),
            Err(_) => return connection.close(CloseCode::Limit.number().into(), NO_HELLO.as_bytes()),
        };
        let watched = connection.clone();
        tokio::spawn(async move {
            watched.closed().await;
            drop(seat);
        });
        let accepted = if alpn == Alpn::Pair {
            let trunk = Trunk::new(&self.runtime, connection, permit, Role::Sole(0), None);
            Accepted::Pair(PairLink::new(
                self.runtime.clone(),
                Shared::new(Line::Network(trunk.begin(0, 0))),
                peer,
                send,
                receive,
                deadline,
            ))
        } else {
            let request = tokio::time::timeout(deadline, read_message(&mut receive)).await;
            let Ok(Some(PullRequest { tree })) = request else {
                let text = b"it was not said which tree is wanted";
                return connection.close(CloseCode::Violation.number().into(), text);
            };
            Accepted::Call(Call {
                connection,
                peer,
                tree,
                features,
                send,
                receive,
                permit,
            })
        };
        let _ = self.accepting.send(accepted);
    }

    async fn judge(&self, peer: Fingerprint, alpn: Alpn) -> Verdict {
        let authorise = self.authorise.clone();
        let judging = tokio::task::spawn_blocking(move || authorise(peer, alpn));
        judging.await.unwrap_or(Verdict::Unknown)
    }

    /// Takes the sessions of a connection as its peer begins them; the first has to come in time.
    async fn serve_sessions(self, trunk: &Arc<Trunk>, peer: Fingerprint, seat: Seat) {
        let connection = trunk.connection();
        let first = tokio::time::timeout(self.options.hello_timeout, connection.accept_bi()).await;
        let streams = match first {
            Ok(Ok(streams)) => streams,
            Ok(Err(_)) => return,
            Err(_) => return trunk.refuse(CloseCode::Limit, NO_HELLO),
        };
        let session = trunk.begin(streams.1.id().index(), seat.window);
        let spare = Arc::new(Spare::default());
        let first = self.clone().serve_session(session, seat, (peer, &spare), streams);
        first.await;
        let trunk = trunk.clone();
        tokio::spawn(async move {
            while let Ok(streams) = trunk.connection().accept_bi().await {
                self.admit_session(&trunk, (peer, &spare), streams).await;
            }
        });
    }

    /// Judges a further session: rights may have changed since the connection was made.
    async fn admit_session(
        &self,
        trunk: &Arc<Trunk>,
        (peer, spare): (Fingerprint, &Arc<Spare>),
        streams: Streams,
    ) {
        let seat = spare.take().or_else(|| self.seats.take(peer, Alpn::Mirror));
        let window = seat.as_ref().map_or(FURTHER_WINDOW_BYTES, |seat| seat.window);
        let session = trunk.begin(streams.1.id().index(), window);
        let Some(seat) = seat else {
            return session.close(
                CloseCode::Limit,
                "there is no room for another session of this identity",
            );
        };
        match self.judge(peer, Alpn::Mirror).await {
            Verdict::Allowed => {}
            Verdict::Refused => {
                tracing::warn!(%peer, "a peer that is not known any more was refused");
                return trunk.refuse(CloseCode::NotAllowed, &String::from_utf8_lossy(NOT_ALLOWED));
            }
            // Nothing is known against the sessions that live.
            Verdict::Unknown => {
                spare.put(seat);
                return session.close(CloseCode::Unable, NOT_KNOWN);
            }
        }
        let (door, spare) = (self.clone(), spare.clone());
        tokio::spawn(async move { door.serve_session(session, seat, (peer, &spare), streams).await });
    }

    /// Exchanges hellos in a session and hands it to who serves it. When it has ended, its seat is for the
    /// next one of the connection.
    async fn serve_session(
        self,
        session: Arc<Session>,
        seat: Seat,
        (peer, spare): (Fingerprint, &Arc<Spare>),
        (send, receive): Streams,
    ) {
        let window = seat.window;
        // The connection's: once it has ended nobody keeps a seat for it.
        let (seated, spare) = (session.clone(), Arc::downgrade(spare));
        tokio::spawn(async move {
            seated.over().await;
            if let Some(spare) = spare.upgrade() {
                spare.put(seat);
            }
        });
        let greeting = greet_session(&session, send, receive, window);
        let streams = match tokio::time::timeout(self.options.hello_timeout, greeting).await {
            Ok(Ok(streams)) => streams,
            Ok(Err((code, text))) => return session.close(code, &text),
            Err(_) => return session.close(CloseCode::Limit, NO_HELLO),
        };
        match ReceiverLink::start(&self.runtime, &session, peer, streams, &self.options) {
            Ok(link) => drop(self.accepting.send(Accepted::Mirror(link))),
            Err(error) => tracing::error!("cannot serve a connection: {error}"),
        }
    }
}

/// The socket to listen on. A daemon that was just stopped may hold its port for another moment.
pub fn listening_socket(listen: SocketAddr) -> Result<UdpSocket, BindError> {
    let deadline = Instant::now() + BIND_PATIENCE;
    loop {
        match socket(listen) {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            outcome => {
                return outcome.map_err(|source| BindError {
                    address: listen,
                    source,
                });
            }
        }
    }
}

/// The same words for everybody: a stranger must not learn what is known here.
const NOT_ALLOWED: &[u8] = b"this peer is not allowed here";

const NO_SEAT: &[u8] = b"there is no room for another connection";

const NOT_KNOWN: &str = "this side cannot find out now who is allowed here; its log says why";

fn who(connection: &quinn::Connection) -> Option<(Fingerprint, Alpn)> {
    let identity = connection.peer_identity()?;
    let certificates = identity
        .downcast::<Vec<rustls::pki_types::CertificateDer<'static>>>()
        .ok()?;
    let peer = peer_fingerprint(&certificates).ok()?;
    let handshake = connection.handshake_data()?.downcast::<HandshakeData>().ok()?;
    let alpn = match handshake.protocol.as_deref()? {
        name if name == ALPN_PAIR => Alpn::Pair,
        name if name == ALPN_PULL => Alpn::Pull,
        _ => Alpn::Mirror,
    };
    Some((peer, alpn))
}

/// A control stream.
type Streams = (quinn::SendStream, quinn::RecvStream);

/// Not an offence: who slept, or whose network failed it, may come again.
const NO_HELLO: &str = "no hello in time";

/// Exchanges hellos on a connection that has one session.
async fn greet(
    connection: &quinn::Connection,
) -> Result<(quinn::SendStream, quinn::RecvStream, Features), (CloseCode, String)> {
    let (mut send, mut receive) = connection.accept_bi().await.map_err(|_| no_hello())?;
    let _ = send.set_priority(PRIORITY_CONTROL);
    let mut bytes = [0; HELLO_BYTES];
    receive.read_exact(&mut bytes).await.map_err(|_| no_hello())?;
    let hello = read_hello(&bytes)?;
    send.write_all(&Hello::OURS.to_bytes())
        .await
        .map_err(|_| no_hello())?;
    Ok((send, receive, hello.features.common(Features::OURS)))
}

/// Exchanges hellos in a session whose sender may have so much under way.
async fn greet_session(
    session: &Session,
    mut send: quinn::SendStream,
    mut receive: quinn::RecvStream,
    window: u32,
) -> Result<Streams, (CloseCode, String)> {
    let _ = send.set_priority(PRIORITY_CONTROL);
    let mut bytes = [0; HELLO_BYTES];
    tokio::select! {
        read = receive.read_exact(&mut bytes) => read.map_err(|_| no_hello())?,
        () = session.over() => return Err(no_hello()),
    }
    session.note_read(HELLO_BYTES, false);
    read_hello(&bytes)?;
    let ours = Hello {
        window,
        ..Hello::OURS
    };
    match session.write(&mut send, ours.to_bytes().to_vec(), false).await {
        true => Ok((send, receive)),
        false => Err(no_hello()),
    }
}

fn no_hello() -> (CloseCode, String) {
    (CloseCode::Violation, "the hello is missing".to_owned())
}

fn read_hello(bytes: &[u8; HELLO_BYTES]) -> Result<Hello, (CloseCode, String)> {
    Hello::from_bytes(bytes).map_err(|fault| match fault {
        HelloFault::NotDriftless => (CloseCode::Violation, fault.to_string()),
        HelloFault::NoCommonVersion { .. } => (CloseCode::Version, fault.to_string()),
    })
}
