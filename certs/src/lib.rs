//! Who is who in driftless: the only crate of the project that knows TLS and identities.
//!
//! A machine is an Ed25519 key ([`Identity`]); its public name is the hash of the public key ([`Fingerprint`]). There
//! are no certificate authorities, host names or validity dates: a sender *pins* the one fingerprint it wants to
//! reach, and a receiver looks the sender's fingerprint up in its [`TrustStore`] after the handshake. Pairing codes
//! ([`PairingCode`], [`Invites`]) exist so that nobody has to type fingerprints.
//!
//! What the handshake promises, and what it does not:
//!
//! - Both sides hold the private key of the fingerprint that [`peer_fingerprint`] reports. Nothing else in a
//!   certificate is believed.
//! - It does **not** say that a sender may do anything. Every stranger with an Ed25519 key completes a handshake with a
//!   receiver; [`TrustStore::allows`] must be asked before anything is read from or written to disk for it.
//! - No handshake is ever shortened: without tickets and early data the verifiers run on every connection, so removing a
//!   peer from the trust store takes effect on its next connection.
//!
//! All file functions block (they lock and sync); an async caller runs them on a blocking thread. This crate never
//! reads the clock: where time matters it is an argument.

#![forbid(unsafe_code)]

mod certificate;
mod faults;
mod files;
mod fingerprint;
mod identity;
mod names;
mod pairing;
mod rights;
mod tls;
mod trust;

pub use files::FileError;
pub use fingerprint::{Fingerprint, FingerprintError};
pub use identity::{Identity, IdentityError, KeyFault, Rotation};
pub use names::NameError;
pub use pairing::{
    CodeError, Invite, InviteError, InviteId, Invites, MAX_ADDRESSES, MAX_CODE_CHARS, MAX_PENDING_INVITES,
    MAX_WRONG_GUESSES, PAIRING_PREFIX, PairingCode, PendingInvite, RedeemError, Secret,
};
pub use rights::{Grant, Right, Rights, RightsError};
pub use tls::{SERVER_NAME, TlsError, peer_fingerprint, receiver_config, sender_config};
pub use trust::{EntryFault, Peer, Refusal, TrustError, TrustStore};
