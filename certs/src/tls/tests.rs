use super::*;
use rcgen::{CertificateParams, CustomExtension, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, CipherSuite, ClientConnection, Error, HandshakeKind, ProtocolVersion, ServerConnection,
    SignatureScheme,
};

const ALPN: &[&[u8]] = &[b"driftless/1"];

fn identity() -> Identity {
    Identity::ephemeral().unwrap()
}

/// A client and a server whose bytes go through memory.
#[derive(Debug)]
struct Connected {
    client: ClientConnection,
    server: ServerConnection,
}

/// Carries bytes to and fro until nobody has more to say. The error is that of the side that refused; its alert has been
/// shown to the other.
fn connect(client: ClientConfig, server: ServerConfig) -> Result<Connected, Error> {
    connect_shared(&Arc::new(client), &Arc::new(server))
}

fn connect_shared(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> Result<Connected, Error> {
    let name = ServerName::try_from(SERVER_NAME).unwrap();
    let mut client = ClientConnection::new(client.clone(), name)?;
    let mut server = ServerConnection::new(server.clone())?;
    loop {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let sent = bytes.len();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets()?;
        }
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets()?;
        }
        if sent == 0 && bytes.is_empty() {
            assert!(!client.is_handshaking() && !server.is_handshaking());
            return Ok(Connected { client, server });
        }
    }
}

/// What [`TlsError`] a verifier gave rustls, as text.
fn refusal(error: Error) -> String {
    match error {
        Error::InvalidCertificate(CertificateError::Other(other)) => other.0.to_string(),
        other => panic!("not refused by a verifier of ours: {other:?}"),
    }
}

fn ed25519(edit: impl FnOnce(&mut CertificateParams)) -> CertifiedKey {
    certified(KeyPair::generate_for(&PKCS_ED25519).unwrap(), edit)
}

fn certified(pair: KeyPair, edit: impl FnOnce(&mut CertificateParams)) -> CertifiedKey {
    let mut params = CertificateParams::default();
    edit(&mut params);
    let certificate = params.self_signed(&pair).unwrap().der().clone();
    CertifiedKey::new(vec![certificate], signing_key(&pair))
}

fn signing_key(pair: &KeyPair) -> Arc<dyn rustls::sign::SigningKey> {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pair.serialize_der()));
    rustls::crypto::ring::sign::any_supported_type(&key).unwrap()
}

/// Presents whatever it is told to.
#[derive(Debug)]
struct Presents(Arc<CertifiedKey>);

impl rustls::client::ResolvesClientCert for Presents {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl rustls::server::ResolvesServerCert for Presents {
    fn resolve(&self, _hello: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

/// Connects a sender that presents `key`.
fn connect_sender_with(key: CertifiedKey) -> Result<Connected, Error> {
    let receiver = identity();
    let mut client = sender_config(&identity(), receiver.fingerprint(), ALPN).unwrap();
    client.client_auth_cert_resolver = Arc::new(Presents(Arc::new(key)));
    connect(client, receiver_config(&receiver, ALPN).unwrap())
}

/// Connects to a receiver that presents `key`, expecting `expected`.
fn connect_receiver_with(key: CertifiedKey, expected: Fingerprint) -> Result<Connected, Error> {
    let mut server = receiver_config(&identity(), ALPN).unwrap();
    server.cert_resolver = Arc::new(Presents(Arc::new(key)));
    connect(sender_config(&identity(), expected, ALPN).unwrap(), server)
}

#[test]
fn the_right_peers_see_each_other() {
    let (sender, receiver) = (identity(), identity());
    let Connected { client, server } = connect(
        sender_config(&sender, receiver.fingerprint(), ALPN).unwrap(),
        receiver_config(&receiver, &[b"driftless/2", ALPN[0]]).unwrap(),
    )
    .unwrap();
    assert_eq!(
        peer_fingerprint(client.peer_certificates().unwrap()).unwrap(),
        receiver.fingerprint()
    );
    assert_eq!(
        peer_fingerprint(server.peer_certificates().unwrap()).unwrap(),
        sender.fingerprint()
    );
    assert_eq!(server.alpn_protocol(), Some(ALPN[0]));
    assert_eq!(server.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(server.server_name(), None);
}

#[test]
fn another_receiver_is_refused() {
    let (receiver, expected) = (identity(), identity().fingerprint());
    let error = connect(
        sender_config(&identity(), expected, ALPN).unwrap(),
        receiver_config(&receiver, ALPN).unwrap(),
    )
    .unwrap_err();
    // Both forms: quinn passes on the `Display` of the rustls error, which has the `Debug` of ours in it.
    for text in [error.to_string(), refusal(error)] {
        assert!(
            text.contains(&format!("the receiver is {}", receiver.fingerprint())),
            "{text}"
        );
        assert!(text.contains(&format!("but {expected} was expected")), "{text}");
    }
}

#[test]
fn a_sender_without_a_certificate_is_refused() {
    let receiver = identity();
    let client = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PinnedReceiver::new(receiver.fingerprint())));
    let mut client = client.with_no_client_auth();
    client.alpn_protocols = owned(ALPN);
    let error = connect(client, receiver_config(&receiver, ALPN).unwrap()).unwrap_err();
    assert_eq!(error, Error::NoCertificatesPresented);
}

/// A stolen certificate is no identity: it is public. The handshake must be signed with its key.
#[test]
fn a_certificate_without_its_key_is_refused() {
    let victim = identity();
    let stolen = || {
        let other_key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        CertifiedKey::new(vec![victim.certificate().clone()], signing_key(&other_key))
    };
    let bad_signature = Error::InvalidCertificate(CertificateError::BadSignature);
    assert_eq!(connect_sender_with(stolen()).unwrap_err(), bad_signature);
    assert_eq!(
        connect_receiver_with(stolen(), victim.fingerprint()).unwrap_err(),
        bad_signature
    );
}

#[test]
fn tls_1_2_is_refused_by_both() {
    let (sender, receiver) = (identity(), identity());
    let old = [&rustls::version::TLS12];
    let client = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&old)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PinnedReceiver::new(receiver.fingerprint())))
        .with_client_auth_cert(vec![sender.certificate().clone()], sender.private_key())
        .unwrap();
    let error = connect(client, receiver_config(&receiver, ALPN).unwrap()).unwrap_err();
    assert!(matches!(error, Error::PeerIncompatible(_)), "{error:?}");

    let server = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&old)
        .unwrap()
        .with_client_cert_verifier(Arc::new(AnySender))
        .with_single_cert(vec![receiver.certificate().clone()], receiver.private_key())
        .unwrap();
    let client = sender_config(&sender, receiver.fingerprint(), ALPN).unwrap();
    let error = connect(client, server).unwrap_err();
    assert!(matches!(error, Error::PeerIncompatible(_)), "{error:?}");
}

#[test]
fn another_protocol_is_refused() {
    let receiver = identity();
    let client = sender_config(&identity(), receiver.fingerprint(), &[b"h3"]).unwrap();
    let error = connect(client, receiver_config(&receiver, ALPN).unwrap()).unwrap_err();
    assert_eq!(error, Error::NoApplicationProtocol);
}

#[test]
fn a_chain_is_refused() {
    let chain = || {
        let mut key = ed25519(|_| ());
        key.cert.push(identity().certificate().clone());
        key
    };
    let expected = "the peer has 2 certificates instead of a single self-signed one";
    assert_eq!(refusal(connect_sender_with(chain()).unwrap_err()), expected);
    let key = chain();
    let fingerprint = peer_fingerprint(&key.cert[..1]).unwrap();
    assert_eq!(
        refusal(connect_receiver_with(key, fingerprint).unwrap_err()),
        expected
    );
    assert!(matches!(
        peer_fingerprint(&chain().cert),
        Err(TlsError::Chain { found: 2 })
    ));
    assert!(matches!(peer_fingerprint(&[]), Err(TlsError::NoCertificate)));
}

#[test]
fn an_oversize_certificate_is_refused() {
    let padded = |bytes: usize| {
        ed25519(|params| {
            let padding = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 1], vec![0; bytes]);
            params.custom_extensions.push(padding);
        })
    };
    let error = refusal(connect_sender_with(padded(MAX_CERTIFICATE_BYTES)).unwrap_err());
    assert!(error.contains("more than the 4096 allowed"), "{error}");
    let error = connect_receiver_with(padded(MAX_CERTIFICATE_BYTES), identity().fingerprint()).unwrap_err();
    assert!(refusal(error).contains("more than the 4096 allowed"));
    connect_sender_with(padded(MAX_CERTIFICATE_BYTES / 2)).unwrap();
}

#[test]
fn other_kinds_of_keys_are_refused() {
    let ecdsa = || certified(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap(), |_| ());
    // As the receiver names no other scheme than Ed25519, such a peer has nothing to sign with.
    assert!(connect_sender_with(ecdsa()).is_err());
    assert!(connect_receiver_with(ecdsa(), identity().fingerprint()).is_err());
    // And if it did not care, the verifiers would.
    let rsa = CertificateDer::from_pem_slice(include_bytes!("../../testdata/rsa.crt")).unwrap();
    for certificate in [rsa, ecdsa().cert[0].clone()] {
        assert!(matches!(
            peer_fingerprint(std::slice::from_ref(&certificate)),
            Err(TlsError::NotEd25519)
        ));
        let error = AnySender
            .verify_client_cert(&certificate, &[], UnixTime::now())
            .unwrap_err();
        assert!(refusal(error).contains("not for an Ed25519 key"));
    }
}

#[test]
fn malformed_certificates_are_refused() {
    let good = identity().certificate().to_vec();
    let check = |bytes: Vec<u8>| peer_fingerprint(&[CertificateDer::from(bytes)]);
    assert!(check(good.clone()).is_ok());
    assert!(matches!(
        check([&good[..], &[0]].concat()),
        Err(TlsError::Malformed { .. })
    ));
    for len in 0..good.len() {
        assert!(check(good[..len].to_vec()).is_err(), "cut to {len}");
    }
    // Everything is signed, so any damage shows.
    for index in 0..good.len() {
        let mut damaged = good.clone();
        damaged[index] ^= 0x01;
        assert!(check(damaged.clone()).is_err(), "damaged at {index}");
    }
    // Signed by another Ed25519 key.
    let issuer_key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let issuer = rcgen::Issuer::new(CertificateParams::default(), issuer_key);
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let signed = CertificateParams::default().signed_by(&key, &issuer).unwrap();
    assert!(matches!(
        check(signed.der().to_vec()),
        Err(TlsError::Malformed { .. })
    ));
}

/// rustls would gladly resume: the second connection is a full handshake because neither side keeps anything.
#[test]
fn a_second_connection_is_not_resumed() {
    let receiver = identity();
    let server = Arc::new(receiver_config(&receiver, ALPN).unwrap());
    let mut client = sender_config(&identity(), receiver.fingerprint(), ALPN).unwrap();
    let connect_twice = |client: &ClientConfig, server: &Arc<ServerConfig>| {
        let client = Arc::new(client.clone());
        let first = connect_shared(&client, server).unwrap();
        assert_eq!(
            first.client.tls13_tickets_received(),
            server.send_tls13_tickets as u32
        );
        connect_shared(&client, server).unwrap().server.handshake_kind()
    };
    assert_eq!(connect_twice(&client, &server), Some(HandshakeKind::Full));

    // A sender of someone else's making that does keep tickets gets none.
    client.resumption = Resumption::in_memory_sessions(8);
    assert_eq!(connect_twice(&client, &server), Some(HandshakeKind::Full));

    // That this test could fail: with tickets and storage on, it is resumed.
    let mut careless = ServerConfig::clone(&server);
    careless.send_tls13_tickets = 2;
    careless.session_storage = rustls::server::ServerSessionMemoryCache::new(8);
    assert_eq!(
        connect_twice(&client, &Arc::new(careless)),
        Some(HandshakeKind::Resumed)
    );
}

/// A change here would be noticed only as connections that fail, or do not fail, somewhere else.
#[test]
fn nothing_else_is_switched_on() {
    let identity = identity();
    let server = receiver_config(&identity, ALPN).unwrap();
    let client = sender_config(&identity, identity.fingerprint(), ALPN).unwrap();
    assert_eq!((server.send_tls13_tickets, server.max_early_data_size), (0, 0));
    assert!(!server.session_storage.can_cache() && !server.ticketer.enabled());
    assert!(!client.enable_early_data && !client.enable_sni);
    assert!(!server.key_log.will_log("CLIENT_RANDOM") && !client.key_log.will_log("CLIENT_RANDOM"));
    // QUIC encrypts its first packets with this suite, whatever is negotiated later.
    for provider in [server.crypto_provider(), client.crypto_provider()] {
        let suites = &provider.cipher_suites;
        let initial = suites
            .iter()
            .find(|suite| suite.suite() == CipherSuite::TLS13_AES_128_GCM_SHA256);
        assert!(initial.and_then(|suite| suite.tls13()?.quic).is_some());
    }
}

/// The configurations with the framing of QUIC, where both sides insist on a protocol name.
#[test]
fn works_inside_quic() {
    use rustls::quic::{ClientConnection, ServerConnection, Version};
    fn written(write: impl FnOnce(&mut Vec<u8>) -> bool) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let changed_keys = write(&mut bytes);
        (changed_keys || !bytes.is_empty()).then_some(bytes)
    }
    let (sender, receiver) = (identity(), identity());
    let connect = |client_alpn| {
        let client = Arc::new(sender_config(&sender, receiver.fingerprint(), client_alpn)?);
        let server = Arc::new(receiver_config(&receiver, ALPN)?);
        let name = ServerName::try_from(SERVER_NAME).unwrap();
        let failed = TlsError::Config;
        let mut client = ClientConnection::new(client, Version::V1, name, vec![1]).map_err(failed)?;
        let mut server = ServerConnection::new(server, Version::V1, vec![2]).map_err(failed)?;
        while client.is_handshaking() || server.is_handshaking() {
            // One level of encryption at a time, as QUIC delivers them.
            while let Some(bytes) = written(|buffer| client.write_hs(buffer).is_some()) {
                server.read_hs(&bytes).map_err(failed)?;
            }
            while let Some(bytes) = written(|buffer| server.write_hs(buffer).is_some()) {
                client.read_hs(&bytes).map_err(failed)?;
            }
        }
        peer_fingerprint(server.peer_certificates().unwrap_or_default())
    };
    assert_eq!(connect(ALPN).unwrap(), sender.fingerprint());
    assert!(matches!(
        connect(&[]),
        Err(TlsError::Config(Error::NoApplicationProtocol))
    ));
    assert!(matches!(
        connect(&[b"h3"]),
        Err(TlsError::Config(Error::NoApplicationProtocol))
    ));
}
