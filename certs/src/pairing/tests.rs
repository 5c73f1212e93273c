use super::*;
use crate::Fingerprint;
use crate::files;
use crate::rights::Grant;
use proptest::prelude::*;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

fn code() -> PairingCode {
    let addresses = vec!["nas.lan:4873".to_owned(), "[fd00::7]:4873".to_owned()];
    let fingerprint = Fingerprint::from_bytes([7; 32]);
    PairingCode::new(
        addresses,
        fingerprint,
        "photos".to_owned(),
        Secret([0xab; 16]),
        1_800_000_000,
    )
    .unwrap()
}

fn parse(text: &str) -> CodeError {
    text.parse::<PairingCode>().unwrap_err()
}

/// Printed codes outlive an update of one side: this text may only change together with the prefix.
#[test]
fn a_code_is_one_known_line() {
    let text = code().to_string();
    assert_eq!(
        text,
        "driftless-pair1-absqobyha4dqobyha4dqobyha4dqobyha4dqobyha4dqobyha4dqob5lvov2xk5lvov2xk5lvov2xk5laaaaaadljhjaabtqnbxxi33taiaay3tbomxgyylohi2dqnztaahfwztegayduorxlu5diobxgofp426tq4"
    );
    assert_eq!(text.parse(), Ok(code()));
    assert_eq!(text.to_ascii_uppercase().parse(), Ok(code()));
    assert_eq!(format!("  {text}\r\n").parse(), Ok(code()));
}

#[test]
fn a_cut_code_is_incomplete() {
    let text = code().to_string();
    for end in 1..text.len() {
        assert_eq!(parse(&text[..end]), CodeError::Incomplete, "cut at {end}");
    }
}

#[test]
fn says_what_is_wrong() {
    let text = code().to_string();
    assert_eq!(parse(""), CodeError::NotACode);
    assert_eq!(parse("hello"), CodeError::NotACode);
    assert_eq!(parse("driftless-pair0-abc"), CodeError::NotACode);
    assert_eq!(parse("driftless-pair-abc"), CodeError::NotACode);
    assert_eq!(parse("driftléss-pair1-abc"), CodeError::NotACode);
    assert_eq!(parse("driftless-pair2-whatever"), CodeError::Newer);
    assert_eq!(parse("driftless-pair12-whatever"), CodeError::Newer);
    assert_eq!(parse(&format!("{text}a")), CodeError::TooLong);
    assert_eq!(
        parse(&format!("{text}{}", "a".repeat(1 << 20))),
        CodeError::TooLong
    );
    let wrapped = format!("{}\n{}", &text[..40], &text[40..]);
    assert_eq!(
        parse(&wrapped),
        CodeError::Character {
            character: '\n',
            position: 41
        }
    );
    for text in [
        "the pairing code is incomplete: paste the whole line",
        "mistyped",
        "newer version",
    ] {
        let all = [CodeError::Incomplete, CodeError::Mistyped, CodeError::Newer];
        assert!(all.iter().any(|error| error.to_string().contains(text)));
    }
}

#[test]
fn no_changed_character_parses() {
    let text = code().to_string();
    for index in 0..text.len() {
        for replacement in (b' '..=b'~').map(char::from) {
            if text[index..].starts_with(replacement.to_ascii_lowercase()) {
                continue;
            }
            let changed = format!("{}{replacement}{}", &text[..index], &text[index + 1..]);
            assert!(changed.parse::<PairingCode>().is_err(), "{changed}");
        }
    }
}

#[test]
fn what_cannot_be_read_back_is_not_made() {
    let make = |addresses: Vec<String>, module: &str| {
        PairingCode::new(
            addresses,
            Fingerprint::from_bytes([0; 32]),
            module.to_owned(),
            Secret([0; 16]),
            0,
        )
    };
    let address = || "nas:1".to_owned();
    assert_eq!(make(vec![], "m"), Err(CodeError::AddressCount { found: 0 }));
    assert_eq!(
        make(vec![address(); 9], "m"),
        Err(CodeError::AddressCount { found: 9 })
    );
    assert!(matches!(
        make(vec!["nas".to_owned()], "m"),
        Err(CodeError::Address { .. })
    ));
    assert!(matches!(make(vec![address()], ""), Err(CodeError::Module(_))));
    assert!(matches!(
        make(vec![address()], &"m".repeat(65)),
        Err(CodeError::Module(_))
    ));

    let longest = make(
        vec![format!("{}:65535", "x".repeat(253)); MAX_ADDRESSES],
        &"m".repeat(64),
    )
    .unwrap();
    let text = longest.to_string();
    assert_eq!(text.len(), MAX_CODE_CHARS);
    assert_eq!(text.parse(), Ok(longest));
}

#[test]
fn expires() {
    assert!(!code().has_expired(at(1_799_999_999)));
    assert!(code().has_expired(at(1_800_000_000)));
}

#[test]
fn debug_shows_no_secret() {
    let shown = format!("{:?} {:?}", code(), code().secret());
    assert!(shown.contains("Secret(..)"));
    assert!(
        !shown.contains("171") && !shown.to_lowercase().contains("ab, ab"),
        "{shown}"
    );
}

prop_compose! {
    fn any_code()(
        hosts in prop::collection::vec(("[a-z0-9.-]{1,60}", 1u16..), 1..=MAX_ADDRESSES),
        fingerprint: [u8; 32],
        module in "[a-zA-Z0-9åß/_-]{1,30}",
        secret: [u8; 16],
        expires_at: u64,
    ) -> PairingCode {
        let addresses = hosts.into_iter().map(|(host, port)| format!("{host}:{port}")).collect();
        let fingerprint = Fingerprint::from_bytes(fingerprint);
        PairingCode::new(addresses, fingerprint, module, Secret(secret), expires_at).unwrap()
    }
}

proptest! {
    #[test]
    fn round_trips(code in any_code()) {
        let text = code.to_string();
        prop_assert!(text.len() <= MAX_CODE_CHARS);
        prop_assert_eq!(text.parse(), Ok(code));
    }

    #[test]
    fn no_mutation_parses(code in any_code(), index: prop::sample::Index, replacement in "[a-z2-7]") {
        let text = code.to_string();
        let index = index.index(text.len());
        prop_assume!(text[index..index + 1] != replacement);
        let changed = format!("{}{replacement}{}", &text[..index], &text[index + 1..]);
        prop_assert!(changed.parse::<PairingCode>().is_err());
    }

    #[test]
    fn never_panics(text in "(driftless-pair1-)?\\PC{0,200}") {
        let _ = text.parse::<PairingCode>();
    }
}

// Invites.

const HOUR: Duration = Duration::from_secs(3600);

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn wrong(n: u8) -> Secret {
    Secret([n; 16])
}

fn files_in(dir: &Path, ending: &str) -> usize {
    files::list(dir)
        .unwrap()
        .iter()
        .filter(|name| name.ends_with(ending))
        .count()
}

#[test]
fn an_invite_works_once() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("invites");
    let invites = Invites::open(&dir);
    assert!(matches!(
        invites.redeem(&wrong(1), at(0)),
        Err(RedeemError::Unknown)
    ));
    assert!(!dir.exists());

    let (secret, id) = invites.create(&Grant::all("photos"), HOUR, at(100)).unwrap();
    let (other, _) = invites.create(&Grant::all("music"), HOUR, at(100)).unwrap();
    assert_ne!(secret, other);
    let pending = invites.pending(at(100)).unwrap();
    assert_eq!(pending.len(), 2);
    assert!(pending.contains(&PendingInvite {
        id,
        grant: Grant::all("photos"),
        expires_at: 3700
    }));

    // As another process would.
    let invites = Invites::open(&dir);
    assert_eq!(
        invites.redeem(&secret, at(200)).unwrap(),
        Invite {
            grant: Grant::all("photos")
        }
    );
    assert!(matches!(
        invites.redeem(&secret, at(200)),
        Err(RedeemError::Spent)
    ));
    assert_eq!(
        invites.redeem(&other, at(3699)).unwrap(),
        Invite {
            grant: Grant::all("music")
        }
    );
    assert!(invites.pending(at(3699)).unwrap().is_empty());
}

#[test]
fn the_secret_is_not_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let (secret, id) = Invites::open(dir.path())
        .create(&Grant::all("photos"), HOUR, at(0))
        .unwrap();
    let path = dir.path().join(format!("{id}.invite"));
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    let text = fs::read_to_string(&path).unwrap();
    for form in [
        data_encoding::HEXLOWER.encode(secret.as_bytes()),
        format!("{:?}", secret.as_bytes()),
    ] {
        assert!(!text.contains(&form));
    }
    // The plain hash is not stored either: the context separates it from every other use of BLAKE3.
    assert!(!text.contains(&blake3::hash(secret.as_bytes()).to_hex().to_string()));
}

#[test]
fn redeeming_at_once_succeeds_once() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..20 {
        let (secret, _) = Invites::open(dir.path())
            .create(&Grant::all("photos"), HOUR, at(0))
            .unwrap();
        let start = Barrier::new(4);
        let successes = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        start.wait();
                        Invites::open(dir.path()).redeem(&secret, at(1))
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .filter(Result::is_ok)
                .count()
        });
        assert_eq!(successes, 1);
    }
}

#[test]
fn an_expired_invite_is_refused_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let invites = Invites::open(dir.path());
    let (secret, _) = invites.create(&Grant::all("photos"), HOUR, at(0)).unwrap();
    let (used, _) = invites.create(&Grant::all("photos"), HOUR, at(0)).unwrap();
    invites.redeem(&used, at(1)).unwrap();
    assert!(invites.pending(at(3600)).unwrap().is_empty());
    assert!(matches!(
        invites.redeem(&secret, at(3600)),
        Err(RedeemError::Expired)
    ));
    assert_eq!(
        files_in(dir.path(), ".invite") + files_in(dir.path(), ".spent"),
        0
    );
    // A clock set back does not bring it to life.
    assert!(matches!(
        invites.redeem(&secret, at(1)),
        Err(RedeemError::Unknown)
    ));

    invites.create(&Grant::all("photos"), HOUR, at(0)).unwrap();
    invites.create(&Grant::all("photos"), HOUR, at(4000)).unwrap();
    assert_eq!(files_in(dir.path(), ".invite"), 1);
    // Without an end, rather than an overflow.
    invites
        .create(&Grant::all("photos"), Duration::MAX, at(4000))
        .unwrap();
    assert_eq!(invites.pending(at(4000)).unwrap().len(), 2);
}

#[test]
fn ten_wrong_guesses_drop_all_pending_invites() {
    let dir = tempfile::tempdir().unwrap();
    let invites = Invites::open(dir.path());
    let (used, _) = invites.create(&Grant::all("photos"), HOUR, at(0)).unwrap();
    invites.redeem(&used, at(1)).unwrap();
    let (first, _) = invites.create(&Grant::all("photos"), HOUR, at(0)).unwrap();
    for n in 1..10 {
        assert!(matches!(
            invites.redeem(&wrong(n), at(1)),
            Err(RedeemError::Unknown)
        ));
        // A spent code is no guess.
        assert!(matches!(invites.redeem(&used, at(1)), Err(RedeemError::Spent)));
    }
    // The count goes on while an invite from before is pending.
    let (second, _) = invites.create(&Grant::all("music"), HOUR, at(2)).unwrap();
    assert!(matches!(
        invites.redeem(&wrong(99), at(3)),
        Err(RedeemError::TooManyGuesses { dropped: 2 })
    ));
    for secret in [first, second] {
        assert!(matches!(
            invites.redeem(&secret, at(3)),
            Err(RedeemError::Unknown)
        ));
    }
    // And begins anew with the next.
    let (third, _) = invites.create(&Grant::all("photos"), HOUR, at(4)).unwrap();
    for n in 1..10 {
        assert!(matches!(
            invites.redeem(&wrong(n), at(4)),
            Err(RedeemError::Unknown)
        ));
    }
    assert!(invites.redeem(&third, at(4)).is_ok());
}

#[test]
fn a_stranger_cannot_make_us_write_when_nothing_is_pending() {
    let dir = tempfile::tempdir().unwrap();
    let invites = Invites::open(dir.path());
    let (used, _) = invites.create(&Grant::all("photos"), HOUR, at(0)).unwrap();
    invites.redeem(&used, at(1)).unwrap();
    let before = files::list(dir.path()).unwrap();
    for n in 0..20 {
        assert!(matches!(
            invites.redeem(&wrong(n), at(1)),
            Err(RedeemError::Unknown)
        ));
    }
    assert_eq!(files::list(dir.path()).unwrap(), before);
}

#[test]
fn pending_invites_are_limited() {
    let dir = tempfile::tempdir().unwrap();
    let invites = Invites::open(dir.path());
    assert!(matches!(
        invites.create(&Grant::all(""), HOUR, at(0)),
        Err(InviteError::Module(_))
    ));
    for _ in 0..MAX_PENDING_INVITES {
        invites.create(&Grant::all("photos"), HOUR, at(0)).unwrap();
    }
    assert!(matches!(
        invites.create(&Grant::all("photos"), HOUR, at(0)),
        Err(InviteError::TooMany)
    ));
    assert!(invites.create(&Grant::all("photos"), HOUR, at(3600)).is_ok());
}

#[test]
fn damaged_or_exposed_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let invites = Invites::open(dir.path());
    let (secret, id) = invites.create(&Grant::all("photos"), HOUR, at(0)).unwrap();
    let path = dir.path().join(format!("{id}.invite"));
    fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
    assert!(matches!(
        invites.redeem(&secret, at(1)),
        Err(RedeemError::Store(InviteError::File(_)))
    ));
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    for bad in ["", "secret_hash = 1", &text.replace("grant", "gran"), &text[..30]] {
        fs::write(&path, bad).unwrap();
        let error = invites.redeem(&secret, at(1)).unwrap_err();
        assert!(
            matches!(error, RedeemError::Store(InviteError::Damaged { .. })),
            "{error}"
        );
    }
    fs::write(&path, text).unwrap();
    // A count of wrong guesses that makes no sense counts as full.
    fs::write(dir.path().join("wrong-guesses"), "none").unwrap();
    fs::set_permissions(dir.path().join("wrong-guesses"), Permissions::from_mode(0o600)).unwrap();
    assert!(matches!(
        invites.redeem(&wrong(1), at(1)),
        Err(RedeemError::TooManyGuesses { dropped: 1 })
    ));
}
