//! The one kind of certificate driftless makes and accepts, and nothing of which is believed but the public key.

use std::sync::LazyLock;

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use rustls::SignatureScheme;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::Fingerprint;

/// The largest certificate taken from a peer. Ours have under 500 bytes; the room is for ones made with other tools.
pub(crate) const MAX_CERTIFICATE_BYTES: usize = 4096;

/// Every Ed25519 `SubjectPublicKeyInfo` is these bytes and the 32 of the key. Comparing with them leaves one encoding,
/// so that one key cannot have two fingerprints.
const ED25519_SPKI_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// A certificate with an Ed25519 signature ends with the name of the algorithm and the head of a bit string, which are
/// these bytes, and the 64 of the signature. Compared as bytes because the parser is not strict here.
const ED25519_SIGNATURE_PREFIX: [u8; 10] = [0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x41, 0x00];

/// The ring provider. Always passed explicitly: a process-wide default could be something else.
pub(crate) static PROVIDER: LazyLock<CryptoProvider> = LazyLock::new(rustls::crypto::ring::default_provider);

/// What is wrong with a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    TooLarge(usize),
    Malformed(&'static str),
    NotEd25519,
}

/// An Ed25519 public key out of a certificate that passed [`check`].
pub(crate) struct PeerKey {
    spki: [u8; 44],
}

impl PeerKey {
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of_spki(&self.spki)
    }

    pub(crate) fn spki_der(&self) -> SubjectPublicKeyInfoDer<'_> {
        SubjectPublicKeyInfoDer::from(&self.spki[..])
    }

    fn raw(&self) -> &[u8] {
        &self.spki[ED25519_SPKI_PREFIX.len()..]
    }
}

/// Checks that a certificate is a well-formed, self-signed Ed25519 one, and takes the key out of it.
///
/// Names, dates and extensions are not looked at: no authority stands behind them. The signature is no proof of anything
/// either (the handshake's is); it is checked because a certificate that fails it was damaged or never made to be used.
pub(crate) fn check(certificate: &CertificateDer<'_>) -> Result<PeerKey, Flaw> {
    if certificate.len() > MAX_CERTIFICATE_BYTES {
        return Err(Flaw::TooLarge(certificate.len()));
    }
    let (rest, parsed) = X509Certificate::from_der(certificate)
        .map_err(|_| Flaw::Malformed("it is not an X.509 certificate"))?;
    if !rest.is_empty() {
        return Err(Flaw::Malformed("it is followed by other bytes"));
    }
    let spki: [u8; 44] = parsed
        .tbs_certificate
        .subject_pki
        .raw
        .try_into()
        .map_err(|_| Flaw::NotEd25519)?;
    if !spki.starts_with(&ED25519_SPKI_PREFIX) {
        return Err(Flaw::NotEd25519);
    }
    let key = PeerKey { spki };
    let signature = ed25519_signature(certificate).ok_or(Flaw::NotEd25519)?;
    if parsed.tbs_certificate.issuer.as_raw() != parsed.tbs_certificate.subject.as_raw() {
        return Err(Flaw::Malformed("it is not self-signed"));
    }
    ed25519()
        .verify_signature(key.raw(), parsed.tbs_certificate.as_ref(), signature)
        .map_err(|_| Flaw::Malformed("its own signature does not verify"))?;
    Ok(key)
}

fn ed25519_signature<'a>(certificate: &'a CertificateDer<'_>) -> Option<&'a [u8; 64]> {
    let (head, signature) = certificate.split_last_chunk::<64>()?;
    head.ends_with(&ED25519_SIGNATURE_PREFIX).then_some(signature)
}

fn ed25519() -> &'static dyn SignatureVerificationAlgorithm {
    let (_, algorithms) = PROVIDER
        .signature_verification_algorithms
        .mapping
        .iter()
        .find(|(scheme, _)| *scheme == SignatureScheme::ED25519)
        .expect("the ring provider verifies Ed25519");
    algorithms[0]
}

/// Makes the certificate of a key. The same key always gives the same bytes: Ed25519 signatures have no random part, and
/// the dates are fixed, because nobody here looks at them and a "valid until" would only be a promise to break.
pub(crate) fn make(key: &KeyPair) -> Result<CertificateDer<'static>, rcgen::Error> {
    let mut spki = ED25519_SPKI_PREFIX.to_vec();
    spki.extend_from_slice(key.public_key_raw());
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, "driftless");
    // For people with openssl or wireshark; driftless itself computes the fingerprint from the key.
    params
        .distinguished_name
        .push(DnType::CommonName, Fingerprint::of_spki(&spki).to_string());
    params.not_before = date_time_ymd(2000, 1, 1);
    params.not_after = date_time_ymd(9999, 12, 31);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    Ok(params.self_signed(key)?.der().clone())
}
