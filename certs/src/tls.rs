//! The TLS configurations of both sides.
//!
//! TLS 1.3 with the ring provider, Ed25519 on both sides, and nothing that shortens a handshake:
//!
//! - **No resumption.** A resumed session skips the verifiers, so a peer that was removed would come in again with its
//!   old ticket. The receiver sends no tickets and stores no sessions; the sender keeps none.
//! - **No early data**, which could be replayed.
//! - **No key log**, whatever `SSLKEYLOGFILE` says.
//! - **No names.** The sender sends no server name, so an observer learns none; the one it must pass to the API,
//!   [`SERVER_NAME`], is ignored.
//!
//! The receiver lets everyone through who proves to have some Ed25519 key, since who may do what is known only together
//! with the module asked for; the fingerprint is looked up after the handshake.

mod verify;

use std::fmt;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::server::NoServerSessionStorage;
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};

use crate::certificate::{self, Flaw, MAX_CERTIFICATE_BYTES, PROVIDER, PeerKey};
use crate::fingerprint::Fingerprint;
use crate::identity::Identity;
use verify::{AnySender, PinnedReceiver};

/// What to pass where a server name is required (quinn's `connect`). It is neither sent nor compared with anything.
pub const SERVER_NAME: &str = "driftless";

/// The configuration of a receiver, which listens.
///
/// Every sender with an Ed25519 key gets through the handshake: ask [`peer_fingerprint`] who it is, and
/// [`TrustStore::allows`](crate::TrustStore::allows) or [`Invites::redeem`](crate::Invites::redeem) what it may do,
/// before anything else. `alpn` are the protocol names spoken, the preferred first.
pub fn receiver_config(identity: &Identity, alpn: &[&[u8]]) -> Result<ServerConfig, TlsError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsError::Config)?
        .with_client_cert_verifier(Arc::new(AnySender))
        .with_single_cert(vec![identity.certificate().clone()], identity.private_key())
        .map_err(TlsError::Config)?;
    config.alpn_protocols = owned(alpn);
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    Ok(config)
}

/// The configuration of a sender, which connects to the receiver with the fingerprint `expected` and no other.
///
/// `alpn` are the protocol names spoken, the preferred first. Pass [`SERVER_NAME`] where a name is asked for.
pub fn sender_config(
    identity: &Identity,
    expected: Fingerprint,
    alpn: &[&[u8]],
) -> Result<ClientConfig, TlsError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsError::Config)?
        // "Dangerous" to rustls is any verifier that is not the web's; ours pins one key.
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PinnedReceiver::new(expected)))
        .with_client_auth_cert(vec![identity.certificate().clone()], identity.private_key())
        .map_err(TlsError::Config)?;
    config.alpn_protocols = owned(alpn);
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = false;
    Ok(config)
}

/// The fingerprint of the peer, from the certificates it presented in a finished handshake.
///
/// With quinn these are what `Connection::peer_identity` holds, a `Vec<CertificateDer<'static>>`.
pub fn peer_fingerprint(certificates: &[CertificateDer<'_>]) -> Result<Fingerprint, TlsError> {
    match certificates {
        [] => Err(TlsError::NoCertificate),
        [first, more @ ..] => peer_key(first, more).map(|key| key.fingerprint()),
    }
}

/// The key in a chain of exactly one acceptable certificate.
fn peer_key(first: &CertificateDer<'_>, more: &[CertificateDer<'_>]) -> Result<PeerKey, TlsError> {
    if !more.is_empty() {
        return Err(TlsError::Chain {
            found: 1 + more.len(),
        });
    }
    certificate::check(first).map_err(|flaw| match flaw {
        Flaw::TooLarge(bytes) => TlsError::TooLarge { bytes },
        Flaw::Malformed(reason) => TlsError::Malformed { reason },
        Flaw::NotEd25519 => TlsError::NotEd25519,
    })
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(PROVIDER.clone())
}

fn owned(alpn: &[&[u8]]) -> Vec<Vec<u8>> {
    alpn.iter().map(|name| name.to_vec()).collect()
}

/// Why a configuration cannot be made, or what is wrong with a peer's certificate.
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// rustls does not take the configuration.
    #[error("cannot set up TLS: {0} (this is a defect, please report it)")]
    Config(rustls::Error),
    /// The peer presented nothing.
    #[error("the peer has no certificate (it is not driftless, or the handshake is not finished)")]
    NoCertificate,
    /// The peer presented a chain.
    #[error("the peer has {found} certificates instead of a single self-signed one")]
    Chain {
        /// Certificates found.
        found: usize,
    },
    /// The certificate is too large.
    #[error("the peer's certificate has {bytes} bytes, more than the {MAX_CERTIFICATE_BYTES} allowed")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// It is not a self-signed X.509 certificate.
    #[error("the peer's certificate is malformed: {reason}")]
    Malformed {
        /// What is wrong.
        reason: &'static str,
    },
    /// It is one for another kind of key.
    #[error("the peer's certificate is not for an Ed25519 key")]
    NotEd25519,
    /// It is another receiver than the one that was to be reached.
    #[error(
        "the receiver is {found}, but {expected} was expected (check the address; if the receiver has a new identity, pair again)"
    )]
    WrongReceiver {
        /// The pinned fingerprint.
        expected: Fingerprint,
        /// The fingerprint of who answered.
        found: Fingerprint,
    },
}

/// The message, because rustls shows the errors of verifiers to the user by their `Debug` form.
impl fmt::Debug for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests;
