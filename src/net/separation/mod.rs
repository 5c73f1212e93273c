//! A receiver in two processes: one speaks to the network and has no files, the other has the files and no network.
//!
//! The one *outside* owns the UDP socket, the identity's key, TLS, QUIC and what unpacks streams; [`Outside`] is all that it
//! does. The one *inside* has the modules, their databases, the trust store and all decisions; it knows the other as a
//! [`Transport`], and each connection as a [`ReceiverLink`](super::ReceiverLink) like any other.
//!
//! Between them is the *door*, a pair of Unix sockets on which whole messages pass (`door`, `messages`): who has knocked, who may
//! come in, how a connection ended. Each connection has three pairs of sockets of its own beside it (`frames`): control messages in
//! both directions, ops, and ranges, in the frames of the protocol's codec. Sockets are bounded, so a session that takes nothing
//! stops its own peer by QUIC's windows, and nobody else. The pairs are made inside and handed out; nothing that was opened
//! outside is ever taken in.
//!
//! The process inside believes the other one thing: that a connection proved the fingerprint that is named. Each frame is
//! measured before there is memory for it, and decoded and checked as if it came from the peer itself. Whatever else is said or
//! done wrongly ends the connection, or, on the door, all of them.

mod door;
mod frames;
mod inside;
mod messages;
mod outside;

pub use door::{Door, doors};
pub(super) use inside::{Guest, Wire};
pub use inside::{StartError, Transport};
pub use messages::Lacking;
pub use outside::{Callee, Outside, OutsideOptions};

#[cfg(test)]
mod tests;
