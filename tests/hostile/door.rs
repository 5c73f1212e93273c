//! Before and at the opening: keys, protocols, first bytes, silence.

use super::bench::*;

/// What a stranger gets: the way the connection ended, and not one byte before.
fn knock(bench: &Bench, tls: rustls::ClientConfig) -> Result<Closed, quinn::ConnectionError> {
    let dialled = dial(bench.address(), tls)?;
    runtime().block_on(async {
        let Ok((mut send, mut receive)) = dialled.connection.open_bi().await else {
            return;
        };
        let _ = send.write_all(&Hello::OURS.to_bytes()).await;
        let mut byte = [0];
        let read = receive.read(&mut byte).await;
        assert!(matches!(read, Err(_) | Ok(None)), "a byte came: {read:?}");
    });
    match runtime().block_on(dialled.connection.closed()) {
        error @ quinn::ConnectionError::ApplicationClosed(_) => Ok(crate::support::peer::reason(&error)),
        error => Err(error),
    }
}

#[derive(Debug)]
struct NoCertificate;

impl rustls::client::ResolvesClientCert for NoCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

fn trust(bench: &Bench, identity: &Identity, modules: &[&str], expires: Option<u64>) -> String {
    let mut store = TrustStore::open(&bench.options.home.peers_file()).unwrap();
    let name = store.free_name("peer");
    let modules = modules.iter().map(|&name| Grant::all(name)).collect();
    let fingerprint = identity.fingerprint();
    store
        .add(Trusted {
            name: name.clone(),
            fingerprint,
            modules,
            added: 1,
            expires,
            address: None,
        })
        .unwrap();
    name
}

#[test]
fn s14_strangers_learn_nothing() {
    let bench = Bench::new();
    let stranger = Identity::ephemeral().unwrap();
    let mut bare = tls(&bench.pair, &stranger);
    bare.client_auth_cert_resolver = Arc::new(NoCertificate);
    assert!(knock(&bench, bare).is_err(), "the handshake itself must fail");
    let refused = knock(&bench, tls(&bench.pair, &stranger)).unwrap();
    assert_eq!(refused.0, CloseCode::NotAllowed);

    let (one_module, expired, removed) = (
        Identity::ephemeral().unwrap(),
        Identity::ephemeral().unwrap(),
        Identity::ephemeral().unwrap(),
    );
    trust(&bench, &one_module, &["third"], None);
    trust(&bench, &expired, &["*"], Some(2));
    let name = trust(&bench, &removed, &["dst"], None);
    let open = |identity, module: &[u8]| {
        Peer::open_as(&bench.pair, identity, bench.address(), &opening(module, MIRROR)).map(|(peer, _)| peer)
    };
    for (identity, module) in [
        (&one_module, &b"dst"[..]),
        (&one_module, b"no such"),
        (&expired, b"dst"),
    ] {
        assert_eq!(
            open(identity, module).err(),
            Some(refused.clone()),
            "told apart from a stranger"
        );
    }
    open(&one_module, b"third").unwrap().leave();
    open(&removed, b"dst").unwrap().leave();
    TrustStore::open(&bench.options.home.peers_file())
        .unwrap()
        .remove(&name)
        .unwrap();
    assert_eq!(open(&removed, b"dst").err(), Some(refused));
    let unknown = bench.try_open(&opening(b"no such", MIRROR)).err().unwrap();
    assert_eq!(unknown.0, CloseCode::NoModule);
    bench.check();
}

#[test]
fn s14_wrong_protocols_and_wrong_keys_end_the_handshake() {
    let bench = Bench::new();
    let pinned = bench.pair.receiver.fingerprint();
    for alpn in [&b"h3"[..], b"driftless/2", b"driftless/"] {
        let tls = sender_config(&bench.pair.sender, pinned, &[alpn]).unwrap();
        assert!(dial(bench.address(), tls).is_err());
    }
    let tls = sender_config(
        &bench.pair.sender,
        bench.pair.sender.fingerprint(),
        &[ALPN_MIRROR],
    )
    .unwrap();
    assert!(dial(bench.address(), tls).is_err());
    let mut options = bench.pair.sender_options(bench.address(), false);
    options.target.fingerprint = bench.pair.sender.fingerprint();
    let outcome = driftless::daemon::sender::run(
        &options,
        &runtime(),
        Arc::new(driftless::daemon::Silent),
        &driftless::daemon::Stop::default(),
    );
    let text = outcome.unwrap_err().to_string();
    assert!(text.contains(&pinned.to_string()), "{text}");
    // On a pairing connection nothing else can be said.
    let tls = sender_config(&bench.pair.sender, pinned, &[ALPN_PAIR]).unwrap();
    let mut peer = Peer::greet(dial(bench.address(), tls).unwrap()).unwrap();
    peer.send(&ToReceiver::Open(opening(b"dst", MIRROR)));
    assert_eq!(peer.closed().0, CloseCode::Violation);
    bench.check_empty();
    bench.check();
}

#[test]
fn first_bytes_that_are_not_a_hello() {
    let bench = Bench::new();
    let mut older = Hello::OURS.to_bytes();
    older[8..12].copy_from_slice(&[0, 9, 0, 2]);
    for (bytes, code) in [
        ([b'G'; HELLO_BYTES], CloseCode::Violation),
        (older, CloseCode::Version),
    ] {
        let dialled = dial(bench.address(), tls(&bench.pair, &bench.pair.sender)).unwrap();
        let _streams = runtime().block_on(async {
            let (mut send, receive) = dialled.connection.open_bi().await.unwrap();
            send.write_all(&bytes).await.unwrap();
            (send, receive)
        });
        assert_eq!(closed(&dialled.connection).0, code);
    }
    bench.check();
}

#[test]
fn n10_silence_is_dropped() {
    // On a busy machine an honest handshake takes a while, too.
    let bench = Bench::with(|_, options| options.link.hello_timeout = Duration::from_secs(2));
    let dialled = dial(bench.address(), tls(&bench.pair, &bench.pair.sender)).unwrap();
    assert_eq!(
        closed(&dialled.connection).0,
        CloseCode::Limit,
        "after the handshake"
    );
    let half = dial(bench.address(), tls(&bench.pair, &bench.pair.sender)).unwrap();
    let _streams = runtime().block_on(async {
        let (mut send, receive) = half.connection.open_bi().await.unwrap();
        send.write_all(&Hello::OURS.to_bytes()[..7]).await.unwrap();
        (send, receive)
    });
    assert_eq!(closed(&half.connection).0, CloseCode::Limit, "inside the hello");
    let peer = Peer::greet(dial(bench.address(), tls(&bench.pair, &bench.pair.sender)).unwrap()).unwrap();
    assert_eq!(peer.closed().0, CloseCode::Limit, "after the hello");
    bench.check();
}

#[test]
fn another_first_message_than_an_opening() {
    let bench = Bench::new();
    let mut peer = Peer::greet(dial(bench.address(), tls(&bench.pair, &bench.pair.sender)).unwrap()).unwrap();
    peer.send(&ToReceiver::SIGN_OF_LIFE);
    peer.send(&ToReceiver::Flush { number: 1 });
    let (code, text) = peer.closed();
    assert_eq!(code, CloseCode::Violation);
    assert!(text.contains("not an opening"), "{text}");
    bench.check();
}

/// What the receiver keeps for itself in a module is not to be had by naming it.
#[test]
fn s18_names_of_the_receivers_own_are_refused() {
    use driftless_protocol::message::Purpose;
    let bench = Bench::new();
    for name in [".driftless-trash", ".driftless-kept", ".driftless-home"] {
        for purpose in [Purpose::Mirror, Purpose::Verify, Purpose::Forget] {
            let path = RelPath::parse(format!("a/{name}").as_bytes()).unwrap();
            let open = Open {
                path,
                purpose,
                ..opening(b"dst", 1)
            };
            let Err((code, text)) = Peer::open(&bench.pair, bench.address(), &open) else {
                panic!("{name} was opened");
            };
            assert_eq!(code, CloseCode::NotAllowed, "{text}");
        }
    }
}
