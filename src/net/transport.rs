//! Windows, timeouts and sockets: what both kinds of endpoint share.

use super::call::Calls;
use super::compression::Compression;
use super::congestion::{Congestion, PathMemory, Permit};
use super::hosts::look_up;
use super::limit::{LimitedSocket, Limiter};
use super::shortcut::Shortcut;
use super::sockets::Sockets;
use driftless_certs::Fingerprint;
use driftless_protocol::CloseCode;
use quinn::crypto::{CryptoError, HmacKey};
use quinn::{
    AsyncUdpSocket, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, Runtime, TokioRuntime, TransportConfig,
    TransportErrorCode, VarInt,
};
use quinn_proto::HashedConnectionIdGenerator;
use socket2::{Domain, Protocol, Socket, Type};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;

/// Op streams of a connection.
pub const OP_STREAMS: u32 = 2;
/// Bulk streams of a connection. Sixteen windows of 2.4 MB together fill 1 Gbit/s at 300 ms.
pub const BULK_STREAMS: u32 = 16;
/// Streams of notes about sessions, in each direction of a connection.
pub const NOTE_STREAMS: u32 = 1;
/// With one huge window on one stream quinn closes the whole connection under burst loss (1,024 gaps in a stream's
/// reassembly); an honest sender of full packets cannot leave that many gaps in this window.
pub const STREAM_WINDOW_BYTES: u32 = 2_400_000;
/// What all streams of a connection may have under way: the sum of their windows, so that bulk streams that nobody
/// reads for a while never use up what the control stream needs.
pub const CONNECTION_WINDOW_BYTES: u32 = (1 + OP_STREAMS + BULK_STREAMS) * STREAM_WINDOW_BYTES;
const SOCKET_BUFFER_BYTES: usize = 4 << 20;
/// Largest packet (UDP payload) to a peer on this machine, where a packet costs much and may be as long as 64 KiB. quinn hands ten of a
/// size to the kernel at a time, which refuses more than 65,507 bytes of them as too long: all ten would be lost.
const NEAR_PACKET_BYTES: u16 = 6_500;

/// How a link behaves.
#[derive(Debug, Clone)]
pub struct LinkOptions {
    /// A peer that says nothing for so long is gone.
    pub idle_timeout: Duration,
    /// How often the sender says that it is there.
    pub keep_alive: Duration,
    /// How long to wait for an answer on one address.
    pub connect_timeout: Duration,
    /// How long a peer may take for the handshake and its first message.
    pub hello_timeout: Duration,
    /// How hard to compress.
    pub compression: Compression,
    /// Congestion control.
    pub congestion: Congestion,
    /// What an earlier connection to this peer found out about the path.
    pub remembered: Option<PathMemory>,
    /// What may leave in a second, together with all others that hold the same.
    pub limiter: Option<Arc<Limiter>>,
    /// Sockets to connect by, if there are some to be shared; a link with a limiter has one of its own.
    pub sockets: Option<Sockets>,
    /// Whose links may share a connection, over shared sockets: those of one process to one peer; none for a link that is to have a
    /// connection of its own.
    pub sharing: Option<Parties>,
    /// The way to the other end, if that is in this process; nothing else here counts then.
    pub shortcut: Option<Shortcut>,
    /// Where the receiver calls, if it is the one that connects.
    pub calls: Option<Calls>,
    /// An end that listens may come to send much: it finds out how large packets may be, which costs some of them.
    pub probes_size: bool,
    /// The receiver is another process: what needs not be looked at on the way to it is not.
    pub hands_on: bool,
}

impl Default for LinkOptions {
    fn default() -> Self {
        LinkOptions {
            idle_timeout: Duration::from_secs(30),
            // Two of them may be lost; mappings of NATs live for longer.
            keep_alive: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(5),
            hello_timeout: Duration::from_secs(10),
            compression: Compression::default(),
            congestion: Congestion::default(),
            remembered: None,
            limiter: None,
            sockets: None,
            sharing: None,
            shortcut: None,
            calls: None,
            probes_size: false,
            hands_on: false,
        }
    }
}

/// The two ends of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Parties {
    /// Who this is.
    pub own: Fingerprint,
    /// Who is wanted.
    pub peer: Fingerprint,
}

/// Why a sender could not connect.
#[derive(Debug, Clone, Error)]
pub enum ConnectError {
    /// Nothing came back.
    #[error(
        "no answer from {address} on UDP within {seconds} s: is the receiver running, and does a firewall let UDP \
         port {port} through?"
    )]
    NoAnswer {
        /// Who was asked last.
        address: SocketAddr,
        /// Its port.
        port: u16,
        /// How long.
        seconds: f32,
    },
    /// The receiver said no.
    #[error("the receiver refused: {text}")]
    Refused {
        /// The kind of refusal.
        code: CloseCode,
        /// Its words.
        text: String,
    },
    /// Another key than the pinned one answers there.
    #[error("another receiver answers there: {text}")]
    WrongPeer {
        /// What TLS found.
        text: String,
    },
    /// Anything else.
    #[error("cannot connect: {0}")]
    Failed(String),
}

/// Looks up a host.
pub fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, ConnectError> {
    let found = look_up(host, port)
        .map_err(|error| ConnectError::Failed(format!("cannot look up the host {host}: {error}")))?;
    if found.is_empty() {
        return Err(ConnectError::Failed(format!("the host {host} has no address")));
    }
    Ok(found)
}

/// The transport parameters of both sides, for one connection, whose permit it is: how many streams the peer may open, and
/// how much it may send, in bytes, before somebody reads. A receiver (whose peer opens the one two-way stream) lets a peer
/// do more once it knows who it is. The address of the `peer` says how far away it is.
pub fn transport(
    options: &LinkOptions,
    uni_streams: u32,
    bidi_streams: u32,
    window: u32,
    permit: Arc<Permit>,
    peer: IpAddr,
) -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    config
        .max_concurrent_uni_streams(uni_streams.into())
        .max_concurrent_bidi_streams(bidi_streams.into())
        .stream_receive_window(STREAM_WINDOW_BYTES.into())
        .receive_window(VarInt::from_u32(window))
        .send_window(u64::from(CONNECTION_WINDOW_BYTES))
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(IdleTimeout::try_from(options.idle_timeout).ok());
    config.congestion_controller_factory(options.congestion.factory(options.remembered, permit));
    if bidi_streams == 0 {
        config.keep_alive_interval(Some(options.keep_alive));
    }
    let sends_much = (bidi_streams == 0 && uni_streams <= NOTE_STREAMS) || options.probes_size;
    // A limiter counts in packets of the usual size.
    let is_near = peer.to_canonical().is_loopback() && options.limiter.is_none();
    let mut probing = MtuDiscoveryConfig::default();
    if sends_much && is_near {
        // Nothing is to be found out, unless such packets turn out to be lost: then small ones go, and now and then a probe of this size.
        probing.upper_bound(NEAR_PACKET_BYTES);
        probing.minimum_change(NEAR_PACKET_BYTES / 2);
        config.initial_mtu(NEAR_PACKET_BYTES);
        config.mtu_discovery_config(Some(probing));
    } else if sends_much {
        // Coarser steps cost fewer full-size probes: a connection that finds both sides equal stays below 10 KB.
        probing.minimum_change(64);
        config.mtu_discovery_config(Some(probing));
    } else {
        // The receiver sends acknowledgements and listings; probing for large packets would cost more than it brings.
        config.mtu_discovery_config(None);
    }
    Arc::new(config)
}

/// A UDP socket with large buffers; an IPv6 wildcard takes IPv4 as well.
pub fn socket(address: SocketAddr) -> std::io::Result<UdpSocket> {
    let domain = if address.is_ipv6() {
        Domain::IPV6
    } else {
        Domain::IPV4
    };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    // Best effort: the kernel caps them by sysctl.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Opens an endpoint. Must be called inside the runtime.
///
/// With a `secret` that is the same after a restart, the new process answers packets of the old one's connections with
/// a stateless reset (RFC 9000, section 10.3), so that their peers need not wait for a timeout.
pub fn endpoint(
    address: SocketAddr,
    server: Option<quinn::ServerConfig>,
    secret: Option<&[u8; 32]>,
    limiter: Option<Arc<Limiter>>,
) -> std::io::Result<quinn::Endpoint> {
    endpoint_over(socket(address)?, server, secret, limiter)
}

/// The same over a socket that is there.
pub fn endpoint_over(
    socket: UdpSocket,
    server: Option<quinn::ServerConfig>,
    secret: Option<&[u8; 32]>,
    limiter: Option<Arc<Limiter>>,
) -> std::io::Result<quinn::Endpoint> {
    let mut config = secret.map_or_else(EndpointConfig::default, |secret| {
        let mut config = EndpointConfig::new(Arc::new(ResetKey(*secret)));
        // A connection id is checked before a reset is sent, so its key has to outlive the process as well.
        let of_ids = blake3::derive_key("driftless 2026-11 connection ids v1", secret);
        let of_ids = u64::from_le_bytes(of_ids[..8].try_into().unwrap_or_default());
        config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(of_ids)));
        config
    });
    // Takes 13 MB of address space for what may come at once, of which no more is used than comes. Sockets that come and go with their
    // connections do without: what is freed in one piece of such a size teaches the allocator to keep as much for itself.
    if server.is_some() || limiter.is_none() {
        config
            .max_udp_payload_size(NEAR_PACKET_BYTES)
            .map_err(std::io::Error::other)?;
    }
    let runtime = Arc::new(TokioRuntime);
    let mut socket = runtime.wrap_udp_socket(socket)?;
    if let Some(limiter) = limiter {
        socket = Arc::new(LimitedSocket::new(socket, limiter)) as Arc<dyn AsyncUdpSocket>;
    }
    quinn::Endpoint::new_with_abstract_socket(config, server, socket, runtime)
}

/// Makes the tokens of stateless resets.
struct ResetKey([u8; 32]);

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], out: &mut [u8]) {
        blake3::Hasher::new_keyed(&self.0)
            .update(data)
            .finalize_xof()
            .fill(out);
    }

    fn signature_len(&self) -> usize {
        32
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let made = blake3::keyed_hash(&self.0, data);
        // `Hash` compares in constant time.
        match <[u8; 32]>::try_from(signature) {
            Ok(given) if made == given => Ok(()),
            _ => Err(CryptoError),
        }
    }
}

/// A handshake or a first message that failed, as a sender sees it.
pub fn connect_error(
    error: &quinn::ConnectionError,
    address: SocketAddr,
    options: &LinkOptions,
) -> ConnectError {
    match error {
        quinn::ConnectionError::TimedOut => no_answer(address, options),
        quinn::ConnectionError::ApplicationClosed(close) => ConnectError::Refused {
            code: CloseCode::from_number(close.error_code.into_inner()),
            text: escaped(&close.reason),
        },
        quinn::ConnectionError::ConnectionClosed(close) if close.error_code == no_common_protocol() => {
            ConnectError::Refused {
                code: CloseCode::Version,
                text: "it speaks none of the protocols of this driftless: upgrade the older side".to_owned(),
            }
        }
        quinn::ConnectionError::TransportError(error) if error.reason.contains("the receiver is") => {
            ConnectError::WrongPeer {
                text: escaped(error.reason.as_bytes()),
            }
        }
        error => ConnectError::Failed(error.to_string()),
    }
}

/// TLS's `no_application_protocol` (RFC 7301), as QUIC tells it: an incompatible version has another ALPN.
fn no_common_protocol() -> TransportErrorCode {
    TransportErrorCode::crypto(120)
}

/// Nobody answered in time.
pub fn no_answer(address: SocketAddr, options: &LinkOptions) -> ConnectError {
    let seconds = options.connect_timeout.as_secs_f32();
    ConnectError::NoAnswer {
        address,
        port: address.port(),
        seconds,
    }
}

/// A peer's text, safe to show.
pub fn escaped(bytes: &[u8]) -> String {
    let mut text = String::new();
    let _ = driftless_protocol::name::escape(bytes, &mut text);
    text
}
