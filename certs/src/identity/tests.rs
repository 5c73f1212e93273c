use super::*;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::Barrier;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

#[test]
fn makes_an_identity_once() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("config/driftless");
    let made = Identity::load_or_create(&dir).unwrap();
    let loaded = Identity::load_or_create(&dir).unwrap();
    assert_eq!(made.fingerprint(), loaded.fingerprint());
    assert_eq!(made.certificate(), loaded.certificate());
    assert_eq!(mode(&dir), 0o700);
    assert_eq!(mode(&dir.join(KEY_NAME)), 0o600);
    assert_eq!(files::list(&dir).unwrap(), [".lock", CERTIFICATE_NAME, KEY_NAME]);
    let text = fs::read_to_string(dir.join(KEY_NAME)).unwrap();
    assert_eq!(text.lines().count(), 3);
    assert!(!format!("{made:?}").contains(text.lines().nth(1).unwrap()));
}

#[test]
fn starting_many_at_once_makes_one_identity() {
    let dir = tempfile::tempdir().unwrap();
    let start = Barrier::new(8);
    let fingerprints: Vec<Fingerprint> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    start.wait();
                    Identity::load_or_create(dir.path()).unwrap().fingerprint()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(fingerprints.iter().all(|found| *found == fingerprints[0]));
    assert_eq!(
        Identity::load_or_create(dir.path()).unwrap().fingerprint(),
        fingerprints[0]
    );
}

#[test]
fn a_key_others_can_read_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    Identity::load_or_create(dir.path()).unwrap();
    let path = dir.path().join(KEY_NAME);
    for exposed in [0o640, 0o604, 0o666] {
        fs::set_permissions(&path, Permissions::from_mode(exposed)).unwrap();
        let message = Identity::load_or_create(dir.path()).unwrap_err().to_string();
        assert!(
            message.contains("chmod 0600") && message.contains("identity.key"),
            "{message}"
        );
    }
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    Identity::load_or_create(dir.path()).unwrap();
}

#[test]
fn a_key_of_another_user_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    Identity::load_or_create(dir.path()).unwrap();
    let path = dir.path().join(KEY_NAME);
    // Only root can give a file away; for others `files` tests the decision alone.
    if std::os::unix::fs::chown(&path, Some(12345), None).is_ok() {
        let error = Identity::load_or_create(dir.path()).unwrap_err();
        assert!(
            matches!(
                error,
                IdentityError::File(FileError::ForeignOwner { owner: 12345, .. })
            ),
            "{error}"
        );
    }
}

#[test]
fn a_file_that_is_no_ed25519_key_is_refused_and_kept() {
    let ecdsa = KeyPair::generate().unwrap();
    let ecdsa = pem("PRIVATE KEY", ecdsa.serialized_der());
    let mut damaged = Identity::ephemeral().unwrap().export_pem();
    damaged.replace_range(30..34, "AAAA");
    for (text, expected) in [
        ("", KeyFault::NotPem),
        ("hello", KeyFault::NotPem),
        ("-----BEGIN PRIVATE KEY-----\nMC4C\n", KeyFault::NotPem),
        (&ecdsa, KeyFault::NotEd25519),
        (&damaged, KeyFault::NotEd25519),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(KEY_NAME);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let error = Identity::load_or_create(dir.path()).unwrap_err();
        assert!(
            matches!(error, IdentityError::Key { fault, .. } if fault == expected),
            "{text:?}: {error}"
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        let error = Identity::import(dir.path(), text).unwrap_err();
        assert!(
            matches!(error, IdentityError::Import(fault) if fault == expected),
            "{text:?}: {error}"
        );
    }
}

#[test]
fn the_certificate_is_made_anew_from_the_key() {
    let dir = tempfile::tempdir().unwrap();
    let made = Identity::load_or_create(dir.path()).unwrap();
    let path = dir.path().join(CERTIFICATE_NAME);
    let good = fs::read_to_string(&path).unwrap();
    let foreign = pem("CERTIFICATE", Identity::ephemeral().unwrap().certificate());
    for bad in [
        None,
        Some(""),
        Some("no certificate"),
        Some(&good[..100]),
        Some(&foreign),
    ] {
        match bad {
            None => fs::remove_file(&path).unwrap(),
            Some(text) => fs::write(&path, text).unwrap(),
        }
        let loaded = Identity::load_or_create(dir.path()).unwrap();
        assert_eq!(loaded.fingerprint(), made.fingerprint());
        assert_eq!(fs::read_to_string(&path).unwrap(), good);
    }
}

#[test]
fn moves_to_another_directory_but_never_over_another_identity() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let identity = Identity::load_or_create(from.path()).unwrap();
    let pem = identity.export_pem();
    for _ in 0..2 {
        assert_eq!(
            Identity::import(to.path(), &pem).unwrap().fingerprint(),
            identity.fingerprint()
        );
    }
    assert_eq!(
        Identity::load_or_create(to.path()).unwrap().fingerprint(),
        identity.fingerprint()
    );
    assert_eq!(mode(&to.path().join(KEY_NAME)), 0o600);

    let other = Identity::ephemeral().unwrap().export_pem();
    let error = Identity::import(to.path(), &other).unwrap_err();
    assert!(
        matches!(error, IdentityError::Exists { fingerprint, .. } if fingerprint == identity.fingerprint())
    );
    assert_eq!(
        Identity::load_or_create(to.path()).unwrap().fingerprint(),
        identity.fingerprint()
    );
}

/// The example of RFC 8410, section 10.3, in the form that `openssl genpkey -algorithm ed25519` writes too.
#[test]
fn takes_a_key_of_openssl() {
    let text = "a note\n-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
    let dir = tempfile::tempdir().unwrap();
    let identity = Identity::import(dir.path(), text).unwrap();
    assert_eq!(format!("a note\n{}", identity.export_pem()), text);
    // The public key that belongs to it.
    let spki = BASE64
        .decode(b"MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=")
        .unwrap();
    assert_eq!(identity.fingerprint(), Fingerprint::of_spki(&spki));
}

#[test]
fn a_rotation_keeps_the_old_key() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("none");
    assert!(matches!(
        Identity::rotate(&missing),
        Err(IdentityError::Missing { .. })
    ));
    assert!(!missing.exists());

    let before = Identity::load_or_create(dir.path()).unwrap();
    let rotation = Identity::rotate(dir.path()).unwrap();
    let after = Identity::load_or_create(dir.path()).unwrap();
    assert_eq!(
        rotation,
        Rotation {
            old: before.fingerprint(),
            new: after.fingerprint()
        }
    );
    assert_ne!(rotation.old, rotation.new);
    let old = dir.path().join(OLD_KEY_NAME);
    assert_eq!(mode(&old), 0o600);
    assert_eq!(fs::read_to_string(old).unwrap(), before.export_pem());
    assert!(read_certificate(dir.path(), &after).unwrap());
}

/// The certificate is made anew on every load: if that gave other bytes, tools that compare them would be misled.
#[test]
fn a_key_has_one_certificate() {
    let identity = Identity::ephemeral().unwrap();
    let again = Identity::from_pem(identity.export_pem().as_bytes()).unwrap();
    assert_eq!(identity.certificate(), again.certificate());
    assert!(identity.certificate().len() < 1024);
}
