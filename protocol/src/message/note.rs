//! What is said of the sessions that share a connection.

use super::lists::Text;
use bincode::{Decode, Encode};

/// On a stream of notes: what is said of one of several sessions of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Note {
    /// This side has ended the session: nothing of it is taken any more, and its streams are given up.
    Ended {
        /// Which.
        session: u64,
        /// Why, by the number of its close code.
        code: u32,
        /// In words.
        text: Text,
    },
    /// By the receiver of a session whose hello had a window: the sender may send its ops and ranges up to this byte, all
    /// streams of the session counted together.
    Window {
        /// Which.
        session: u64,
        /// Bytes since the session began. It only grows.
        through: u64,
    },
}
