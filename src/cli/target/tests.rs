use super::*;
use std::path::Path;

const FP: &str = "v4jutopv7gq2nicajxvdnxgjjgn4wjojvxarfn6mtkj4vza7gjra";

fn parse(text: &str) -> Result<Target, TargetError> {
    Target::parse(text.as_ref())
}

fn fault(text: &str) -> String {
    parse(text)
        .map(|target| format!("{target:?}"))
        .expect_err(text)
        .to_string()
}

fn fingerprint(seed: u8) -> Fingerprint {
    Fingerprint::from_bytes([seed; 32])
}

fn store(dir: &Path, peers: &[(&str, u8, Option<&str>)]) -> TrustStore {
    let mut trust = TrustStore::open(&dir.join("peers.toml")).unwrap();
    for (name, seed, address) in peers {
        let (name, fingerprint) = ((*name).to_owned(), fingerprint(*seed));
        let address = address.map(str::to_owned);
        trust
            .add(Peer {
                name,
                fingerprint,
                modules: vec![],
                added: 1,
                expires: None,
                address,
            })
            .unwrap();
    }
    trust
}

#[test]
fn the_short_form_is_read() {
    let cases = [
        ("nas::photos", "nas", "photos", ""),
        ("nas::photos/", "nas", "photos", ""),
        ("nas.lan::photos/2024/05", "nas.lan", "photos", "2024/05"),
        ("nas::photos/2024//", "nas", "photos", "2024"),
        ("10.0.0.1::a b/c d", "10.0.0.1", "a b", "c d"),
        ("[::1]::m", "::1", "m", ""),
        ("[fe80::1%eth0]::m/x", "fe80::1%eth0", "m", "x"),
        ("nas::m/a:b/c::d", "nas", "m", "a:b/c::d"),
        ("nas::m/50%25", "nas", "m", "50%25"),
        ("nas::m/...", "nas", "m", "..."),
    ];
    for (text, host, module, path) in cases {
        let target = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let path = RelPath::parse(path.as_bytes()).unwrap();
        let (host, module) = (host.to_owned(), module.to_owned());
        assert_eq!(
            target,
            Target {
                host,
                port: None,
                fingerprint: None,
                module,
                path
            },
            "{text}"
        );
    }
}

#[test]
fn the_url_is_read() {
    let fp: Fingerprint = FP.parse().unwrap();
    let cases = [
        (
            "driftless://nas:4433/photos".to_owned(),
            "nas",
            Some(4433),
            None,
            "",
        ),
        ("driftless://nas/photos/".to_owned(), "nas", None, None, ""),
        (
            "driftless://[::1]:9/photos/a/b".to_owned(),
            "::1",
            Some(9),
            None,
            "a/b",
        ),
        ("driftless://[::1]/photos".to_owned(), "::1", None, None, ""),
        (
            format!("driftless://{FP}@nas:5000/photos/a"),
            "nas",
            Some(5000),
            Some(fp),
            "a",
        ),
        (
            format!("driftless://{}@nas/photos", FP.to_uppercase()),
            "nas",
            None,
            Some(fp),
            "",
        ),
        (
            "driftless://nas:1/photos/a%20b%25?c#d".to_owned(),
            "nas",
            Some(1),
            None,
            "a b%?c#d",
        ),
    ];
    for (text, host, port, fingerprint, path) in cases {
        let target = parse(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let path = RelPath::parse(path.as_bytes()).unwrap();
        let (host, module) = (host.to_owned(), "photos".to_owned());
        assert_eq!(
            target,
            Target {
                host,
                port,
                fingerprint,
                module,
                path
            },
            "{text}"
        );
    }
}

#[test]
fn paths_are_bytes() {
    let target = Target::parse(OsStr::from_bytes(b"nas::m/\xff")).unwrap();
    assert_eq!(target.path.to_bytes(), b"\xff");
    assert_eq!(parse("driftless://nas/m/%FF").unwrap().path.to_bytes(), b"\xff");
    assert_eq!(target.display(DEFAULT_PORT), "nas::m/\\xff");
    assert!(
        Target::parse(OsStr::from_bytes(b"\xff::m"))
            .unwrap_err()
            .to_string()
            .contains("not text")
    );
}

#[test]
fn nothing_leaves_the_module() {
    for path in [
        "..",
        ".",
        "../x",
        "a/..",
        "a/../../x",
        "./a",
        "a//b",
        "%2e%2e/x",
        "a%2f..%2f..",
        "%2fetc",
        "a%00b",
    ] {
        assert!(parse(&format!("driftless://nas:1/m/{path}")).is_err(), "{path}");
        if !path.contains('%') {
            assert!(parse(&format!("nas::m/{path}")).is_err(), "{path}");
        }
    }
    for module in [
        "",
        "..",
        ".",
        "a%2fb",
        "%2e%2e",
        "*",
        " a",
        "a%0a",
        &"x".repeat(65),
    ] {
        let text = format!("driftless://nas/{module}/x");
        // A module called `..` is only a name: it never becomes a path on the sender. The receiver knows none so called.
        let only_a_name = matches!(module, ".." | "." | "%2e%2e");
        assert_eq!(parse(&text).is_ok(), only_a_name, "{text}");
    }
}

#[test]
fn broken_notations_say_what_is_wrong() {
    for (text, wanted) in [
        ("::m", "no host"),
        ("nas::", "no name"),
        ("nas::/srv", "no name"),
        ("nas:::m", "cannot name a module"),
        ("me@nas::m", "leave out \"me@\""),
        ("fe80::1::m", "needs brackets"),
        ("::1::m", "needs brackets"),
        ("[::1::m", "not closed"),
        ("[nas]::m", "not an IPv6 address"),
        ("[::1]m", "no `::`"),
        ("-oProxy::m", "not a host name"),
        ("a b::m", "which no host name has"),
        ("driftless://nas", "no module"),
        ("driftless://nas/", "no name"),
        ("driftless:///m", "no host"),
        ("driftless://nas:0/m", "1 to 65535"),
        ("driftless://nas:/m", "1 to 65535"),
        ("driftless://nas:+80/m", "1 to 65535"),
        ("driftless://nas:70000/m", "1 to 65535"),
        ("driftless://::1/m", "needs brackets"),
        ("driftless://me@nas/m", "a fingerprint is expected"),
        ("driftless://nas/m/%zz", "hexadecimal"),
        ("driftless://nas/m/%2", "hexadecimal"),
        ("rsync://nas/m", "does not speak rsync"),
        ("ssh://me@nas/m", "does not speak ssh"),
        ("nas::m\u{1b}[2J", "cannot name a module"),
    ] {
        let message = fault(text);
        assert!(message.contains(wanted), "{text}: {message}");
        assert!(!message.contains('\u{1b}'), "{message:?}");
    }
}

#[test]
fn the_notation_of_remote_shells_is_answered_with_the_right_one() {
    let message = fault("me@nas:/srv/photos");
    assert!(
        message.contains("`driftless receive /srv/photos --module photos` on nas"),
        "{message}"
    );
    assert!(message.contains("give nas::photos here"), "{message}");
    assert!(fault("nas:/srv/my photos/").contains("`driftless receive '/srv/my photos/' --module NAME`"));
    assert!(fault("nas:").contains("`driftless receive DIR --module NAME` on nas"));
    assert!(fault("[::1]:/x").contains("[::1]::x"));
    assert!(fault("nas:~").contains("nas::NAME"));
    assert!(fault("C:dir").contains("write ./C:dir"));
}

#[test]
fn directories_and_targets_are_told_apart_by_what_comes_first() {
    for word in [
        "nas::m",
        "nas:/x",
        "driftless://nas/m",
        "a:b",
        "[::1]::m",
        "rsync://x/y",
        "::m",
    ] {
        assert!(is_target(word.as_ref()), "{word}");
    }
    for word in ["/srv/a:b", "./a:b", "../a::b", "dir", "dir/a::b", "", "."] {
        assert!(!is_target(word.as_ref()), "{word}");
    }
}

#[test]
fn the_trust_store_says_who_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let trust = store(
        dir.path(),
        &[
            ("nas", 1, Some("10.0.0.1:5000")),
            ("laptop", 2, Some("Lap.lan:4433")),
            ("six", 3, Some("[fd00::1]:4433")),
            ("bare", 4, None),
        ],
    );
    let resolve = |text: &str, port| parse(text).unwrap().resolve(port, &trust, 10);
    let seen = |text: &str, port| {
        let target = resolve(text, port).unwrap();
        (target.fingerprint, target.host, target.port, target.display)
    };
    let expect = |seed, host: &str, port, display: &str| {
        (fingerprint(seed), host.to_owned(), port, display.to_owned())
    };
    assert_eq!(
        seen("nas::m", None),
        expect(1, "10.0.0.1", 5000, "driftless://nas:5000/m")
    );
    assert_eq!(
        seen("nas::m", Some(6)),
        expect(1, "10.0.0.1", 6, "driftless://nas:6/m")
    );
    assert_eq!(
        seen("10.0.0.1::m", None),
        expect(1, "10.0.0.1", 5000, "driftless://10.0.0.1:5000/m")
    );
    assert_eq!(
        seen("lap.LAN::m/x/", None),
        expect(2, "lap.LAN", 4433, "lap.LAN::m/x")
    );
    assert_eq!(
        seen("[fd00:0::1]::m", None),
        expect(3, "fd00:0::1", 4433, "[fd00:0::1]::m")
    );
    assert_eq!(seen("bare::m", None), expect(4, "bare", 4433, "bare::m"));
    assert_eq!(
        seen("driftless://bare:77/m", None),
        expect(4, "bare", 77, "driftless://bare:77/m")
    );
    let unknown = resolve("other::m", None).unwrap_err().to_string();
    assert!(
        unknown.contains("driftless invite") && unknown.contains("driftless://FINGERPRINT@other:4433/m"),
        "{unknown}"
    );
    assert!(matches!(
        resolve("driftless://nas:1/m", Some(2)),
        Err(TargetError::TwoPorts { .. })
    ));
    assert!(resolve("driftless://nas:2/m", Some(2)).is_ok());
    let pinned = parse(&format!("driftless://{FP}@other/m"))
        .unwrap()
        .resolve(None, &trust, 10)
        .unwrap();
    assert_eq!((pinned.fingerprint.to_string().as_str(), pinned.port), (FP, 4433));
}

#[test]
fn two_receivers_at_one_address_need_the_port() {
    let dir = tempfile::tempdir().unwrap();
    let trust = store(
        dir.path(),
        &[
            ("one", 1, Some("nas:5000")),
            ("two", 2, Some("nas:5001")),
            ("old", 3, Some("nas:5001")),
        ],
    );
    let resolve = |text: &str, port| parse(text).unwrap().resolve(port, &trust, 10);
    let ambiguous = resolve("nas::m", None).unwrap_err().to_string();
    assert!(ambiguous.contains("one, two, old"), "{ambiguous}");
    assert_eq!(resolve("nas::m", Some(5000)).unwrap().fingerprint, fingerprint(1));
    assert!(matches!(
        resolve("nas::m", Some(5001)),
        Err(TargetError::Ambiguous { .. })
    ));
    assert_eq!(resolve("two::m", None).unwrap().fingerprint, fingerprint(2));
}

#[test]
fn expired_trust_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let mut trust = store(dir.path(), &[]);
    let (name, address) = ("nas".to_owned(), None);
    trust
        .add(Peer {
            name,
            fingerprint: fingerprint(1),
            modules: vec![],
            added: 1,
            expires: Some(10),
            address,
        })
        .unwrap();
    let target = parse("nas::m").unwrap();
    assert!(target.resolve(None, &trust, 9).is_ok());
    assert!(matches!(
        target.resolve(None, &trust, 10),
        Err(TargetError::Expired { .. })
    ));
}
