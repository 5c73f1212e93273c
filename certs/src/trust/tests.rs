use super::*;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::Barrier;

fn fingerprint(n: u8) -> Fingerprint {
    Fingerprint::from_bytes([n; 32])
}

fn peer(name: &str, n: u8, modules: &[&str]) -> Peer {
    Peer {
        name: name.to_owned(),
        fingerprint: fingerprint(n),
        modules: modules.iter().map(|module| Grant::all(*module)).collect(),
        added: 1000,
        expires: None,
        address: None,
    }
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

struct Fixture {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("driftless/peers.toml");
    Fixture { _dir: dir, path }
}

fn with_text(text: &str) -> (Fixture, Result<TrustStore, TrustError>) {
    let fixture = fixture();
    fs::create_dir(fixture.path.parent().unwrap()).unwrap();
    fs::write(&fixture.path, text).unwrap();
    let store = TrustStore::open(&fixture.path);
    (fixture, store)
}

#[test]
fn keeps_what_is_added_and_forgets_what_is_removed() {
    let f = fixture();
    let mut store = TrustStore::open(&f.path).unwrap();
    assert!(store.peers().is_empty());
    let laptop = Peer {
        expires: Some(2000),
        ..peer("laptop", 1, &["b", "a", "b"])
    };
    let nas = Peer {
        address: Some("nas.lan:4873".to_owned()),
        ..peer("nas", 2, &[])
    };
    let modules = store.add(laptop).unwrap().modules;
    assert_eq!(modules, [Grant::all("a"), Grant::all("b")]);
    store.add(nas.clone()).unwrap();

    let mut again = TrustStore::open(&f.path).unwrap();
    assert_eq!(again.peers(), store.peers());
    assert_eq!(again.find(&fingerprint(2)), Some(&nas));
    assert_eq!(again.find_by_text("nas"), Some(&nas));
    assert_eq!(fs::metadata(&f.path).unwrap().mode() & 0o777, 0o600);

    assert_eq!(again.remove("nobody").unwrap(), None);
    assert_eq!(
        again.remove("laptop").unwrap().unwrap().fingerprint,
        fingerprint(1)
    );
    assert_eq!(
        again.remove(&fingerprint(2).to_string().to_uppercase()).unwrap(),
        Some(nas)
    );
    assert!(TrustStore::open(&f.path).unwrap().peers().is_empty());
}

#[test]
fn allows_by_fingerprint_module_and_time() {
    let f = fixture();
    let mut store = TrustStore::open(&f.path).unwrap();
    store
        .add(Peer {
            expires: Some(2000),
            ..peer("guest", 1, &["photos"])
        })
        .unwrap();
    store.add(peer("admin", 2, &["*"])).unwrap();
    store.add(peer("receiver", 3, &[])).unwrap();
    let allows = |n, module: &str, seconds| store.allows(&fingerprint(n), module, at(seconds)).map(|_| ());

    assert_eq!(allows(1, "photos", 1999), Ok(()));
    let name = || "guest".to_owned();
    assert_eq!(
        allows(1, "photos", 2000),
        Err(Refusal::Expired {
            name: name(),
            expires: 2000
        })
    );
    assert_eq!(
        allows(1, "music", 1999),
        Err(Refusal::NotForModule {
            name: name(),
            module: "music".to_owned()
        })
    );
    // No patterns: what is not the same name is another module.
    assert!(matches!(
        allows(1, "photos/raw", 1999),
        Err(Refusal::NotForModule { .. })
    ));
    assert!(matches!(allows(1, "*", 1999), Err(Refusal::NotForModule { .. })));
    assert_eq!(allows(2, "anything", u64::MAX / 4), Ok(()));
    assert!(matches!(
        allows(3, "photos", 0),
        Err(Refusal::NotForModule { .. })
    ));
    assert_eq!(
        allows(4, "photos", 0),
        Err(Refusal::Unknown {
            fingerprint: fingerprint(4)
        })
    );
    assert_eq!(
        store.allows(&fingerprint(1), "photos", UNIX_EPOCH - Duration::from_secs(1)),
        Ok(Rights::ALL)
    );
}

fn grant(module: &str, words: &str) -> Grant {
    let rights = words.parse().unwrap();
    Grant {
        module: module.to_owned(),
        rights,
    }
}

#[test]
fn rights_are_those_of_the_module_or_of_all() {
    let f = fixture();
    let mut store = TrustStore::open(&f.path).unwrap();
    let mut limited = peer("limited", 1, &[]);
    limited.modules = vec![grant("*", "verify"), grant("photos", "push,no-devices")];
    store.add(limited).unwrap();
    let store = TrustStore::open(&f.path).unwrap();
    let words = |module: &str| store.allows(&fingerprint(1), module, at(0)).unwrap().to_string();
    assert_eq!(words("photos"), "push, no-devices");
    assert_eq!(words("music"), "verify");
    // The text of the file can be read and written by hand.
    let text = fs::read_to_string(&f.path).unwrap();
    assert!(
        text.contains("no-devices") && text.contains("module = \"*\""),
        "{text}"
    );
}

#[test]
fn what_is_said_last_of_a_module_counts() {
    let f = fixture();
    let mut store = TrustStore::open(&f.path).unwrap();
    store.add(peer("one", 1, &["a", "b"])).unwrap();
    let narrower = Peer {
        modules: vec![grant("a", "verify")],
        ..peer("one", 1, &[])
    };
    let merged = store.add(narrower).unwrap();
    assert_eq!(merged.modules, [grant("a", "verify"), Grant::all("b")]);
    let merged = store.add(peer("one", 1, &["a"])).unwrap();
    assert_eq!(merged.modules, [Grant::all("a"), Grant::all("b")]);
}

#[test]
fn a_tree_and_a_module_of_one_name_are_two_things() {
    let f = fixture();
    let mut store = TrustStore::open(&f.path).unwrap();
    let with = |modules: Vec<Grant>, expires| Peer {
        modules,
        expires,
        added: 1500,
        ..peer("one", 1, &[])
    };
    store.add(with(vec![grant("www", "push")], Some(2000))).unwrap();
    // To let it pull takes nothing away, and does not let it push for longer.
    let merged = store.add(with(vec![Grant::pull("www")], None)).unwrap();
    assert_eq!(merged.modules, [grant("www", "push,pull")]);
    assert_eq!(merged.expires, Some(2000));
    assert!(
        merged.may_pull("www", at(1999))
            && !merged.may_pull("www", at(2000))
            && !merged.may_pull("ww", at(0))
    );
    // What is said last about the module says nothing about the tree.
    let merged = store.add(with(vec![Grant::all("www")], None)).unwrap();
    assert_eq!(
        (merged.modules, merged.expires),
        (vec![grant("www", "push,delete,verify,pull")], Some(2000))
    );
    // All modules are no tree, and all trees are no module.
    let all = with(vec![Grant::all("*"), Grant::pull("music")], None);
    assert!(all.may_pull("music", at(0)) && !all.may_pull("photos", at(0)) && all.may_pull_any(at(0)));
    assert_eq!(all.rights_in("music"), Some(Rights::ALL));
    let all = with(vec![Grant::pull("*")], None);
    assert!(all.may_pull("photos", at(0)));
    assert_eq!(all.rights_in("photos"), None);
    assert!(!with(vec![Grant::all("*")], None).may_pull_any(at(0)));
    assert_eq!(fs::read_to_string(&f.path).unwrap().matches("pull").count(), 1);
}

#[test]
fn adding_again_merges_and_never_prolongs_a_module() {
    type Case<'a> = (
        &'a [&'a str],
        Option<u64>,
        &'a [&'a str],
        Option<u64>,
        &'a [&'a str],
        Option<u64>,
    );
    let cases: &[Case<'_>] = &[
        // present, expires; added at 1500, expires; result, expires
        (&["a"], None, &["b"], None, &["a", "b"], None),
        (&["a"], None, &["*"], None, &["*"], None),
        (&["*"], None, &["a"], None, &["*"], None),
        // the new entry speaks about all of the present one
        (&["a"], Some(2000), &["a"], Some(3000), &["a"], Some(3000)),
        (&["a"], Some(2000), &["a", "b"], None, &["a", "b"], None),
        (&["a"], None, &["a"], Some(2000), &["a"], Some(2000)),
        // it speaks about something else
        (&["a"], Some(2000), &["b"], None, &["a", "b"], Some(2000)),
        (&["a"], None, &["b"], Some(2000), &["a", "b"], Some(2000)),
        (&["a"], Some(3000), &["b"], Some(2000), &["a", "b"], Some(2000)),
        (&["*"], Some(2000), &["b"], None, &["*"], Some(2000)),
        // the present one is over
        (&["a"], Some(1500), &["b"], None, &["b"], None),
        (&["*"], Some(1400), &["b"], Some(2000), &["b"], Some(2000)),
    ];
    for (present, until, added, new_until, modules, expires) in cases {
        let f = fixture();
        let mut store = TrustStore::open(&f.path).unwrap();
        store
            .add(Peer {
                expires: *until,
                ..peer("one", 1, present)
            })
            .unwrap();
        let newer = Peer {
            expires: *new_until,
            added: 1500,
            ..peer("other", 1, added)
        };
        let merged = store.add(newer).unwrap();
        assert_eq!(
            merged,
            Peer {
                expires: *expires,
                ..peer("one", 1, modules)
            }
        );
        assert_eq!(TrustStore::open(&f.path).unwrap().peers(), [merged]);
    }
}

#[test]
fn a_new_address_replaces_the_old_and_none_keeps_it() {
    let f = fixture();
    let mut store = TrustStore::open(&f.path).unwrap();
    let address = |text: &str| Some(text.to_owned());
    store
        .add(Peer {
            address: address("a:1"),
            ..peer("nas", 1, &[])
        })
        .unwrap();
    assert_eq!(store.add(peer("nas", 1, &[])).unwrap().address, address("a:1"));
    assert_eq!(
        store
            .add(Peer {
                address: address("b:2"),
                ..peer("nas", 1, &[])
            })
            .unwrap()
            .address,
        address("b:2")
    );
}

#[test]
fn names_are_unique_and_harmless() {
    let f = fixture();
    let mut store = TrustStore::open(&f.path).unwrap();
    store.add(peer("laptop", 1, &[])).unwrap();
    let mut fault = |peer| match store.add(peer).unwrap_err() {
        TrustError::Refused { fault, .. } => fault,
        other => panic!("{other}"),
    };
    assert_eq!(
        fault(peer("laptop", 2, &[])),
        EntryFault::SameName {
            name: "laptop".to_owned(),
            fingerprint: fingerprint(1)
        }
    );
    assert_eq!(
        fault(peer(&fingerprint(9).to_string(), 2, &[])),
        EntryFault::NameIsFingerprint
    );
    assert_eq!(fault(peer("", 2, &[])), EntryFault::Name(NameError::Empty));
    assert_eq!(fault(peer("x", 2, &[""])), EntryFault::Module(NameError::Empty));
    assert!(matches!(
        fault(peer("\u{1b}[2J", 2, &[])),
        EntryFault::Name(NameError::Unprintable { .. })
    ));
    let nowhere = Peer {
        address: Some("nas".to_owned()),
        ..peer("nas", 2, &[])
    };
    assert!(matches!(fault(nowhere), EntryFault::Address { .. }));

    assert_eq!(store.free_name("desk"), "desk");
    assert_eq!(store.free_name("laptop"), "laptop-2");
    store.add(peer("laptop-2", 2, &[])).unwrap();
    assert_eq!(store.free_name("laptop"), "laptop-3");
}

#[test]
fn adding_at_once_loses_nobody() {
    let f = fixture();
    let start = Barrier::new(8);
    std::thread::scope(|scope| {
        for n in 0..8 {
            let (f, start) = (&f, &start);
            scope.spawn(move || {
                // Opened before the others write, so that each starts from an outdated view.
                let mut store = TrustStore::open(&f.path).unwrap();
                start.wait();
                store.add(peer(&format!("peer{n}"), n, &["a"])).unwrap();
                store.add(peer("any", 100, &[&format!("m{n}")])).unwrap();
            });
        }
    });
    let store = TrustStore::open(&f.path).unwrap();
    assert_eq!(store.peers().len(), 9);
    assert_eq!(store.find(&fingerprint(100)).unwrap().modules.len(), 8);
}

#[test]
fn a_file_others_can_change_is_refused() {
    let f = fixture();
    let mut store = TrustStore::open(&f.path).unwrap();
    store.add(peer("laptop", 1, &["*"])).unwrap();
    for mode in [0o620, 0o602, 0o666] {
        fs::set_permissions(&f.path, Permissions::from_mode(mode)).unwrap();
        for error in [
            TrustStore::open(&f.path).unwrap_err(),
            store.remove("laptop").unwrap_err(),
        ] {
            assert!(
                matches!(error, TrustError::File(FileError::Exposed { .. })),
                "{error}"
            );
        }
    }
    fs::set_permissions(&f.path, Permissions::from_mode(0o644)).unwrap();
    assert_eq!(TrustStore::open(&f.path).unwrap().peers().len(), 1);
    if std::os::unix::fs::chown(&f.path, Some(12345), None).is_ok() {
        let error = TrustStore::open(&f.path).unwrap_err();
        assert!(
            matches!(
                error,
                TrustError::File(FileError::ForeignOwner { owner: 12345, .. })
            ),
            "{error}"
        );
    }
}

#[test]
fn a_hand_edited_file_is_checked() {
    let entry = |name: &str, n: u8, more: &str| {
        let fingerprint = fingerprint(n);
        format!(
            "[[peer]]\nname = \"{name}\"\nfingerprint = \"{fingerprint}\"\nmodules = [\"a\"]\nadded = 1\n{more}\n"
        )
    };
    let (_f, store) = with_text(&format!(
        "# by hand\n{}{}",
        entry("a", 1, "expires = 5"),
        entry("b", 2, "")
    ));
    assert_eq!(store.unwrap().peers().len(), 2);

    let wrong = [
        (entry("a", 1, "expire = 5"), "expire"),
        ("version = 2\n".to_owned(), "version"),
        (entry("a", 1, "expires = \"tomorrow\""), "expires"),
        (entry("a", 1, "expires = -5"), "expires"),
        ("[[peer]]\nname = \"a\"\n".to_owned(), "fingerprint"),
        ("[[peer]]\nfingerprint = \"short\"\n".to_owned(), "52"),
        (format!("{}{}", entry("a", 1, ""), entry("b", 1, "")), "twice"),
        (
            format!("{}{}", entry("a", 1, ""), entry("a", 2, "")),
            "is called \"a\"",
        ),
        (entry(" a", 1, ""), "space"),
        (
            entry("a", 1, "").replace("[\"a\"]", "[{ module = \"a\", rights = [\"root\"] }]"),
            "no right",
        ),
        (
            entry("a", 1, "").replace("[\"a\"]", "[{ module = \"a\", rights = [] }]"),
            "leave the module out",
        ),
        (
            entry("a", 1, "").replace("[\"a\"]", "[{ module = \"a\", right = [] }]"),
            "right",
        ),
        (entry("a", 1, "address = \"nas\""), "port"),
        ("not toml".to_owned(), "correct the file"),
    ];
    for (text, expected) in wrong {
        let (f, store) = with_text(&text);
        let message = store.unwrap_err().to_string();
        assert!(
            message.contains(expected) && message.contains("peers.toml"),
            "{text}: {message}"
        );
        // What cannot be read is not overwritten either.
        assert_eq!(fs::read_to_string(&f.path).unwrap(), text);
    }
}

#[test]
fn the_largest_date_survives() {
    let f = fixture();
    let mut store = TrustStore::open(&f.path).unwrap();
    let endless = store
        .add(Peer {
            expires: Some(u64::MAX),
            ..peer("a", 1, &[])
        })
        .unwrap();
    assert_eq!(TrustStore::open(&f.path).unwrap().peers(), [endless]);
}
