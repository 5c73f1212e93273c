//! QUIC endpoints and framed streams.
//!
//! tokio drives the network only. Encoding and compression run on plain threads, and a daemon talks to a link through
//! bounded channels: not reading them stops the peer, by QUIC's flow control, so memory stays bounded on both sides.
//!
//! A session has one bidirectional control stream, op streams and bulk streams, and a connection carries as many sessions as there
//! are mirrors between the two processes; see the protocol's specification for their layout.

mod call;
mod compression;
mod congestion;
mod endpoint;
mod gather;
mod handshakes;
mod hosts;
mod lanes;
mod limit;
mod link;
mod notes;
mod packed;
mod pair;
mod ranges;
mod seats;
pub mod separation;
mod session;
mod sharing;
mod shift;
mod shortcut;
mod silence;
mod sockets;
mod spread;
mod transport;
mod trunk;

pub use call::{Call, Calls};
pub use compression::Compression;
pub use congestion::{Congestion, PathMemory};
pub use endpoint::{
    Accepted, Admit, Alpn, Authorise, BindError, ReceiverEndpoint, Verdict, listening_socket,
};
pub use hosts::{delegate_hosts, serve_hosts};
pub use lanes::OpSender;
pub use limit::{Limiter, Schedule, ScheduleError, keep_time_zone};
pub use link::{
    Ahead, BulkSender, Ended, LinkEnd, LinkHandle, LinkStatistics, Range, ReceiverLink, SenderLink,
};
pub use packed::{UnpackError, Unpacker, rests};
pub use pair::{PairLink, pair};
pub use shift::Outlet;
#[cfg(test)]
pub(crate) use shortcut::apart;
pub use shortcut::{Copied, Origin, Shortcut};
pub use silence::Silence;
pub use sockets::Sockets;
pub use transport::{ConnectError, LinkOptions, Parties, resolve};
