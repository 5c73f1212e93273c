//! Pairing: how a sender and a receiver come to trust each other with one pasted line.
//!
//! The receiver makes an invite ([`Invites::create`]) and prints it as a [`PairingCode`]: where it is, its fingerprint,
//! the module, and a secret. The person carries the line to the sender by a way the two machines do not have (a shell, a
//! chat). The sender connects, pins the fingerprint of the code, so that the secret is told to nobody else, and sends
//! the secret. The receiver redeems it once ([`Invites::redeem`]) and puts the fingerprint *it* saw in the handshake
//! into its trust store.
//!
//! Whoever reads the line before it is used can pair in the sender's place, therefore codes expire, work once, and the
//! receiver keeps only a hash of the secret: reading its disk or a backup of it yields no code.

mod code;
mod invites;

use std::fmt;

pub use code::{CodeError, MAX_ADDRESSES, MAX_CODE_CHARS, PAIRING_PREFIX, PairingCode};
pub use invites::{
    Invite, InviteError, InviteId, Invites, MAX_PENDING_INVITES, MAX_WRONG_GUESSES, PendingInvite,
    RedeemError,
};

/// The secret of a pairing code: 128 random bits.
///
/// It has no `Display` and its `Debug` is blank, so that it gets into no log by accident.
#[derive(Clone, Copy)]
pub struct Secret([u8; 16]);

impl Secret {
    /// A secret as received from a peer.
    pub fn from_bytes(bytes: [u8; 16]) -> Secret {
        Secret(bytes)
    }

    /// The bytes, to be sent to the receiver whose fingerprint is in the code and to nobody else.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// What may be stored. The hash needs no salt or stretching: nobody can try 2^128 secrets.
    fn hash(&self) -> blake3::Hash {
        blake3::Hash::from(blake3::derive_key(
            "driftless 2026-01 pairing invite secret v1",
            &self.0,
        ))
    }
}

/// In constant time.
impl PartialEq for Secret {
    fn eq(&self, other: &Secret) -> bool {
        self.hash() == other.hash()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests;
