//! What each side checks of the other during the handshake.
//!
//! Both verifiers take the key from the certificate with our own strict check and verify the signature of the handshake
//! with *that* key, rather than let rustls parse the certificate once more: two parsers could find two keys in it.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::verify_tls13_signature_with_raw_key;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, PeerIncompatible,
    PeerMisbehaved, SignatureScheme,
};

use super::{TlsError, peer_key};
use crate::certificate::PROVIDER;
use crate::fingerprint::Fingerprint;

/// Accepts every sender that has an Ed25519 key; what it may do is decided after the handshake.
#[derive(Debug)]
pub(super) struct AnySender;

/// Accepts the one receiver with the pinned key.
///
/// Name and dates are ignored on purpose: the pin says exactly which key it must be, so neither could add anything, and
/// both could only refuse the right machine, say after its clock was lost.
#[derive(Debug)]
pub(super) struct PinnedReceiver {
    expected: Fingerprint,
}

impl PinnedReceiver {
    pub(super) fn new(expected: Fingerprint) -> PinnedReceiver {
        PinnedReceiver { expected }
    }
}

impl ClientCertVerifier for AnySender {
    fn client_auth_mandatory(&self) -> bool {
        true
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        peer_key(end_entity, intermediates).map_err(refuse)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

impl ServerCertVerifier for PinnedReceiver {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let found = peer_key(end_entity, intermediates).map_err(refuse)?.fingerprint();
        if found != self.expected {
            return Err(refuse(TlsError::WrongReceiver {
                expected: self.expected,
                found,
            }));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

fn verify_signature(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    if signature.scheme != SignatureScheme::ED25519 {
        return Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into());
    }
    let key = peer_key(certificate, &[]).map_err(refuse)?;
    let algorithms = &PROVIDER.signature_verification_algorithms;
    verify_tls13_signature_with_raw_key(message, &key.spki_der(), signature, algorithms)
}

/// The error in the form rustls passes on to the user of the connection.
fn refuse(error: TlsError) -> Error {
    CertificateError::Other(OtherError(Arc::new(error))).into()
}

/// Unreachable with our configurations, which know TLS 1.3 only.
fn no_tls12() -> Error {
    PeerIncompatible::Tls12NotOffered.into()
}
