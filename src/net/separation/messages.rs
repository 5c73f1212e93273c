//! What the two processes tell each other on the door.

use crate::net::endpoint::{Alpn, Verdict};
use crate::net::link::LinkEnd;
use crate::net::transport::ConnectError;
use driftless_certs::Fingerprint;
use driftless_protocol::CloseCode;
use driftless_protocol::codec::{self, Message};
use driftless_protocol::limits::TEXT_BYTES_MAX;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// Numbers of connections that are opened from inside begin here; those that were accepted have lower ones.
pub(super) const CALLS_FROM: u64 = 1 << 63;
/// Addresses that are tried for one call.
pub(super) const ADDRESSES_MAX: usize = 32;

/// From the process inside.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Order {
    /// Let peers come from now on.
    Listen,
    /// Whether one that asked may come in.
    Answer { question: u64, verdict: Verdict },
    /// Here are the sockets of a connection.
    Take { number: u64 },
    /// End a connection.
    Close { number: u64, code: u32, text: String },
    /// Find out whether the peer of a connection answers.
    Probe {
        number: u64,
        question: u64,
        patience_millis: u64,
    },
    /// The reply to somebody who pairs, as the codec has it.
    Reply { number: u64, reply: Encoded },
    /// Connect to a sender that offers trees.
    Call {
        number: u64,
        peer: Fingerprint,
        addresses: Vec<SocketAddr>,
        tree: Vec<u8>,
    },
    /// End all connections, and yourself.
    Stop,
}

/// From the process outside.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Report {
    /// The first, if all went well.
    Ready {
        identity: Fingerprint,
        /// Where it listens, if it is to.
        address: Option<SocketAddr>,
        lacking: Vec<Lacking>,
    },
    /// The first, otherwise; no other follows.
    Failed { text: String, is_usage: bool },
    /// Somebody proved this key: may he come in?
    Asks {
        question: u64,
        peer: Fingerprint,
        alpn: Alpn,
    },
    /// A connection for mirroring and verifying waits for its sockets.
    Mirror {
        number: u64,
        peer: Fingerprint,
        remote: SocketAddr,
    },
    /// Somebody wants to pair, and said so: a request as the codec has it.
    Pair {
        number: u64,
        peer: Fingerprint,
        remote: SocketAddr,
        request: Encoded,
    },
    /// What became of a call. A connection waits for its sockets.
    Called {
        number: u64,
        outcome: Result<SocketAddr, CallFault>,
    },
    /// Whether the peer of a connection that was opened from inside is silent, at each change.
    Silent { number: u64, is_silent: bool },
    /// How a connection ended. All that it brought has been written before.
    Ended { number: u64, end: End },
    /// Whether the peer of a connection answers.
    Alive { question: u64, yes: bool },
}

/// A measure that the process outside could not take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lacking {
    /// Its name.
    pub measure: String,
    /// Why not.
    pub reason: String,
}

/// A message of the protocol in hexadecimal digits.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Encoded(String);

/// It may have a secret.
impl std::fmt::Debug for Encoded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Encoded({} bytes)", self.0.len() / 2)
    }
}

impl Encoded {
    pub(super) fn of(message: &impl Message) -> Option<Encoded> {
        let bytes = codec::encode(message).ok()?;
        Some(Encoded(data_encoding::HEXLOWER.encode(&bytes)))
    }

    pub(super) fn message<M: Message>(&self) -> Option<M> {
        let bytes = data_encoding::HEXLOWER.decode(self.0.as_bytes()).ok()?;
        codec::decode(&bytes).ok()
    }
}

/// A [`LinkEnd`] on its way.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum End {
    Closed { code: u32, text: String, by_peer: bool },
    Lost { text: String },
}

impl From<LinkEnd> for End {
    fn from(end: LinkEnd) -> End {
        match end {
            LinkEnd::Closed { code, text, by_peer } => End::Closed {
                code: code.number(),
                text: limited(&text),
                by_peer,
            },
            LinkEnd::Lost { text } => End::Lost { text: limited(&text) },
        }
    }
}

impl From<End> for LinkEnd {
    fn from(end: End) -> LinkEnd {
        match end {
            End::Closed { code, text, by_peer } => LinkEnd::Closed {
                code: CloseCode::from_number(code.into()),
                text: shown(&text),
                by_peer,
            },
            End::Lost { text } => LinkEnd::Lost { text: shown(&text) },
        }
    }
}

/// A [`ConnectError`] on its way.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum CallFault {
    NoAnswer { address: SocketAddr, seconds: f32 },
    Refused { code: u32, text: String },
    WrongPeer { text: String },
    Failed { text: String },
}

impl From<ConnectError> for CallFault {
    fn from(error: ConnectError) -> CallFault {
        match error {
            ConnectError::NoAnswer { address, seconds, .. } => CallFault::NoAnswer { address, seconds },
            ConnectError::Refused { code, text } => CallFault::Refused {
                code: code.number(),
                text: limited(&text),
            },
            ConnectError::WrongPeer { text } => CallFault::WrongPeer { text: limited(&text) },
            ConnectError::Failed(text) => CallFault::Failed { text: limited(&text) },
        }
    }
}

impl From<CallFault> for ConnectError {
    fn from(fault: CallFault) -> ConnectError {
        match fault {
            CallFault::NoAnswer { address, seconds } => ConnectError::NoAnswer {
                address,
                port: address.port(),
                seconds,
            },
            CallFault::Refused { code, text } => ConnectError::Refused {
                code: CloseCode::from_number(code.into()),
                text: shown(&text),
            },
            CallFault::WrongPeer { text } => ConnectError::WrongPeer { text: shown(&text) },
            CallFault::Failed { text } => ConnectError::Failed(shown(&text)),
        }
    }
}

/// A text that fits a message.
pub(super) fn limited(text: &str) -> String {
    text[..text.floor_char_boundary(TEXT_BYTES_MAX)].to_owned()
}

/// A text from outside, safe to show. What was escaped there already stays as it is.
fn shown(text: &str) -> String {
    let is_safe = |c: char| !c.is_control();
    let safe: String = text
        .chars()
        .map(|c| if is_safe(c) { c } else { '\u{fffd}' })
        .collect();
    limited(&safe)
}
