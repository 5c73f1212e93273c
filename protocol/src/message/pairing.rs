//! Pairing, and asking for a tree to pull.

use super::lists::{ModuleName, Text};
use crate::limits::PAIRING_SECRET_BYTES;
use bincode::{Decode, Encode};

/// On a pairing connection, sender to receiver.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct PairRequest {
    /// The secret of the code.
    pub secret: [u8; PAIRING_SECRET_BYTES],
    /// What the sender calls itself.
    pub name: Text,
}

impl std::fmt::Debug for PairRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PairRequest")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// On a pairing connection, the receiver's answer. A refusal is a close code instead.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct PairReply {
    /// The module that the sender may push to now, or the tree that it may pull.
    pub module: ModuleName,
    /// What the receiver calls itself.
    pub name: Text,
    /// Whether it is not a module but a tree, which the peer may pull now.
    pub is_tree: bool,
}

/// On a connection that the receiver opened, its one message that says which tree it wants. A refusal is a close code.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct PullRequest {
    /// The tree.
    pub tree: ModuleName,
}
