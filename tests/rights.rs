//! What a peer may do where: S-14, S-15 and S-19, by the trust store's rights, against honest senders and one that lies.

mod support;

use driftless::daemon::keeping::{Backup, Drift, Keeping, OldVersions};
use driftless::daemon::receiver::ReceiverDaemon;
use driftless::daemon::survey::{self, FarEnd};
use driftless::daemon::{
    Deletes, FailedEntry, ModuleOptions, Phase, ReceiverOptions, SenderOptions, Silent, Stop, sender,
};
use driftless::engine::compare::Compare;
use driftless_certs::{Grant, Peer as Trusted, TrustStore};
use driftless_protocol::message::*;
use driftless_protocol::{Attributes, Carried, CloseCode, Digest, Name, ObjectId, RelPath, XattrClasses};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::peer::{Closed, Peer, opening};
use support::{Following, Pair, runtime};

/// A receiver that knows its sender by its trust store only.
struct Bench {
    pair: Pair,
    options: ReceiverOptions,
    daemon: Option<ReceiverDaemon>,
}

impl Bench {
    fn new(rights: &str) -> Bench {
        Bench::with(rights, |_| ())
    }

    fn with(rights: &str, change: impl FnOnce(&mut ModuleOptions)) -> Bench {
        let pair = Pair::new();
        let mut options = pair.receiver_options();
        options.allow.clear();
        change(&mut options.modules[0]);
        let daemon = Some(ReceiverDaemon::start(options.clone(), &runtime()).unwrap());
        let bench = Bench {
            pair,
            options,
            daemon,
        };
        bench.grant(rights);
        bench
    }

    fn address(&self) -> std::net::SocketAddr {
        self.daemon.as_ref().unwrap().address()
    }

    fn trust(&self) -> TrustStore {
        TrustStore::open(&self.options.home.peers_file()).unwrap()
    }

    /// Gives the sender these rights, in place of those that it has.
    fn grant(&self, rights: &str) {
        let (module, rights) = ("dst".to_owned(), rights.parse().unwrap());
        let peer = Trusted {
            name: "sender".to_owned(),
            fingerprint: self.pair.sender.fingerprint(),
            modules: vec![Grant { module, rights }],
            added: 1,
            expires: None,
            address: None,
        };
        self.trust().add(peer).unwrap();
    }

    fn open(&self, purpose: Purpose) -> Result<(Peer, Opened), Closed> {
        let carried = Carried {
            owner: true,
            devices: true,
            xattrs: XattrClasses::ALL,
            leaves_root: false,
        };
        let open = Open {
            purpose,
            carried,
            ..opening(b"dst", 7)
        };
        Peer::open(&self.pair, self.address(), &open)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.stop();
        }
    }
}

fn place(directory: u64, name: &str) -> Place {
    Place {
        directory: ObjectId(directory),
        name: Name::new(name.as_bytes()).unwrap(),
    }
}

fn with_mode(mode: u16) -> Attributes {
    Attributes {
        mode,
        ..Attributes::default()
    }
}

fn file(name: &str, object: u64, mode: u16, content: Content) -> OpBody {
    OpBody::PutFile {
        place: place(1, name),
        object: ObjectId(object),
        attributes: with_mode(mode),
        content,
    }
}

fn inline(text: &str) -> Content {
    Content::Inline {
        digest: Digest::of(text.as_bytes()),
        bytes: InlineContent(text.into()),
    }
}

#[test]
fn who_may_not_delete_leaves_everything_where_it_is() {
    let bench = Bench::new("push,verify");
    let (src, dst) = (bench.pair.src(), bench.pair.dst());
    fs::write(dst.join("there before"), "x").unwrap();
    fs::create_dir(src.join("d")).unwrap();
    for name in ["a", "d/b"] {
        fs::write(src.join(name), name).unwrap();
    }
    let following = Following::start(bench.pair.sender_options(bench.address(), true));
    // No question at first contact: nothing can be deleted anyway.
    following.watching.wait_in_sync();
    fs::remove_file(src.join("a")).unwrap();
    fs::remove_dir_all(src.join("d")).unwrap();
    fs::write(src.join("c"), "c").unwrap();
    support::until("c arrived", || {
        fs::read(dst.join("c")).is_ok_and(|text| text == b"c")
    });
    following.watching.wait_in_sync();
    let said = following.watching.said();
    assert!(
        said.warnings.iter().any(|text| text.contains("may not delete")),
        "{said:?}"
    );
    let summary = following.stop().unwrap();
    assert!(summary.in_sync && summary.failed.is_empty(), "{summary:?}");
    for name in ["a", "d/b", "c", "there before"] {
        assert!(dst.join(name).exists(), "{name} was removed");
    }

    // One who asks for it all the same is refused, whichever way he takes.
    let other = Bench::new("push");
    let (mut peer, opened) = other.open(Purpose::Mirror).unwrap();
    assert!(!opened.may_delete);
    let mut ops = peer.op_stream();
    let directory = |at, object: u64| OpBody::MakeDirectory {
        place: at,
        object: ObjectId(object),
        attributes: with_mode(0o755),
    };
    let remove = |at, object: u64| OpBody::Remove {
        object: ObjectId(object),
        place: at,
    };
    let next = peer.send_ops(
        &mut ops,
        1,
        [
            directory(place(1, "d"), 10),
            file("f", 11, 0o644, inline("f")),
            OpBody::PutFile {
                place: place(10, "inside"),
                object: ObjectId(12),
                attributes: with_mode(0o644),
                content: inline("inside"),
            },
            remove(place(1, "f"), 11),
            remove(place(10, "inside"), 12),
            remove(place(1, "d"), 10),
            // Over a directory that holds something.
            file("d", 13, 0o644, inline("instead")),
            OpBody::Move {
                object: ObjectId(11),
                to: place(1, "d"),
            },
        ],
    );
    peer.wait_applied(next - 1);
    for number in 4..7 {
        assert_eq!(
            peer.failed.get(&number),
            Some(&FailureKind::Permission),
            "op {number}"
        );
    }
    peer.leave();
    let content = fs::read(other.pair.dst().join("d/inside"));
    let moved = fs::read(other.pair.dst().join("f/inside"));
    assert!(content.or(moved).is_ok_and(|text| text == b"inside"));
}

/// What a receiver keeps is no way around: neither of the ops, nor of what they displace, goes to a trash or a backup in
/// place of being deleted.
/// C-14: nobody was asked what becomes of what only the target has, and all the same the two have met: a time that was put back is not
/// believed of a file of which both lost their notes.
#[test]
fn c_14_who_may_not_delete_reads_what_both_lost_their_notes_of() {
    let mut bench = Bench::new("push,verify");
    let seed = |bench: &mut Bench| {
        let daemon = ReceiverDaemon::start(bench.options.clone(), &runtime()).unwrap();
        let summary = bench.pair.seed_to(daemon.address()).unwrap();
        daemon.stop();
        assert!(summary.in_sync && summary.failed.is_empty(), "{summary:?}");
    };
    bench.daemon.take().unwrap().stop();
    fs::write(bench.pair.src().join("old"), "old").unwrap();
    seed(&mut bench);
    let homes = ["home-s", "home-r"].map(|home| bench.pair.path(home));
    let older = homes.each_ref().map(|home| home.with_extension("older"));
    for (home, older) in homes.iter().zip(&older) {
        let mut copy = std::process::Command::new("cp");
        assert!(copy.arg("-a").args([home, older]).status().unwrap().success());
    }
    let file = bench.pair.src().join("new");
    fs::write(&file, "what the target has").unwrap();
    seed(&mut bench);
    let written = fs::metadata(&file).unwrap().modified().unwrap();
    fs::write(&file, "what the source has").unwrap();
    fs::File::open(&file).unwrap().set_modified(written).unwrap();
    for (home, older) in homes.iter().zip(&older) {
        fs::remove_dir_all(home).unwrap();
        fs::rename(older, home).unwrap();
    }
    seed(&mut bench);
    assert_eq!(
        fs::read(bench.pair.dst().join("new")).unwrap(),
        b"what the source has"
    );
}

#[test]
fn who_may_not_delete_may_not_do_so_by_what_is_kept() {
    let trash = OldVersions::Trash {
        retention: Duration::from_secs(3_600),
    };
    let backup = |directory: Option<&[u8]>| {
        OldVersions::Backup(Backup {
            directory: directory.map(|name| Name::new(name).unwrap()),
            suffix: b"~".to_vec(),
        })
    };
    let policies = [
        (Drift::Overwrite, OldVersions::Discard, true),
        (Drift::Overwrite, trash.clone(), false),
        (Drift::Keep, trash, false),
        (Drift::Keep, OldVersions::Discard, false),
        (Drift::Refuse, OldVersions::Discard, true),
        (Drift::Overwrite, backup(None), false),
        (Drift::Keep, backup(Some(b"old")), false),
    ];
    for (drift, old, inplace) in policies {
        let what = format!("{drift:?} {old:?}");
        let bench = Bench::with("push", |module| {
            module.keeping = Keeping { drift, old };
            module.inplace = inplace;
        });
        let dst = bench.pair.dst();
        let (mut peer, opened) = bench.open(Purpose::Mirror).unwrap();
        assert!(!opened.may_delete);
        let mut ops = peer.op_stream();
        let inside = |directory: u64, object: u64| OpBody::PutFile {
            place: place(directory, "inside"),
            object: ObjectId(object),
            attributes: with_mode(0o644),
            content: inline("inside"),
        };
        let next = peer.send_ops(
            &mut ops,
            1,
            [
                OpBody::MakeDirectory {
                    place: place(1, "d"),
                    object: ObjectId(10),
                    attributes: with_mode(0o755),
                },
                inside(10, 12),
                file("f", 11, 0o644, inline("f")),
                file("a", 20, 0o644, inline("a")),
            ],
        );
        peer.wait_applied(next - 1);
        // Somebody puts a directory where the peer has a file; the peer then has its file elsewhere.
        fs::remove_file(dst.join("a")).unwrap();
        fs::create_dir(dst.join("a")).unwrap();
        fs::write(dst.join("a/precious"), "precious").unwrap();
        let remove = |at, object: u64| OpBody::Remove {
            object: ObjectId(object),
            place: at,
        };
        let removals = next..next + 3;
        let next = peer.send_ops(
            &mut ops,
            next,
            [
                remove(place(1, "f"), 11),
                remove(place(10, "inside"), 12),
                remove(place(1, "d"), 10),
                file("b", 20, 0o644, inline("b")),
                file("a", 21, 0o644, inline("over a directory")),
                OpBody::Move {
                    object: ObjectId(11),
                    to: place(1, "a"),
                },
                file("d", 13, 0o644, inline("over another")),
            ],
        );
        peer.wait_applied(next - 1);
        for number in removals {
            let kind = peer.failed.get(&number);
            assert_eq!(kind, Some(&FailureKind::Permission), "{what}: op {number}");
        }
        peer.leave();
        // It may move directories, but not to where they are kept for a time.
        for name in ["precious", "inside"] {
            let stays = ["a", "d", "f"].iter().any(|at| dst.join(at).join(name).exists());
            assert!(stays, "{what}: {name} is gone");
        }
    }
}

#[test]
fn who_may_only_verify_may_not_push_and_the_other_way_round() {
    let bench = Bench::new("verify");
    fs::write(bench.pair.src().join("f"), "f").unwrap();
    let (code, text) = bench.open(Purpose::Mirror).err().unwrap();
    assert_eq!(code, CloseCode::NotAllowed);
    assert!(text.contains("may verify"), "{text}");
    bench.open(Purpose::Verify).unwrap().0.leave();
    assert!(bench.pair.seed_to(bench.address()).is_err());
    assert_eq!(fs::read_dir(bench.pair.dst()).unwrap().count(), 0);
    bench.grant("push");
    assert!(bench.pair.seed_to(bench.address()).unwrap().in_sync);
    let (code, text) = bench.open(Purpose::Verify).err().unwrap();
    assert_eq!(code, CloseCode::NotAllowed);
    assert!(text.contains("not verify"), "{text}");
}

/// One directory, from the disk.
fn look(contents: bool) -> ToReceiver {
    ToReceiver::Survey {
        path: RelPath::root(),
        xattrs: XattrClasses::NONE,
        contents,
    }
}

fn digests(peer: &mut Peer) -> Vec<Option<Digest>> {
    let answer = peer.next();
    let Some(ToSender::Listing { rows, last: true }) = answer else {
        panic!("{answer:?}");
    };
    rows.0.into_iter().map(|row| row.digest).collect()
}

#[test]
fn who_may_verify_or_push_may_look_and_nobody_else() {
    let bench = Bench::new("verify");
    fs::write(bench.pair.dst().join("f"), "f").unwrap();
    let may_set_id = |peer: &mut Peer| match peer.next() {
        Some(ToSender::SurveyRoot {
            root: Some(_),
            may_set_id,
            ..
        }) => may_set_id,
        other => panic!("{other:?}"),
    };
    let (mut peer, opened) = bench.open(Purpose::Survey).unwrap();
    assert!(!opened.may_delete && may_set_id(&mut peer));
    peer.send(&look(false));
    assert_eq!(digests(&mut peer), [None]);
    peer.send(&look(true));
    assert_eq!(digests(&mut peer), [Some(Digest::of(b"f"))]);
    // Nothing but looking.
    let mut ops = peer.op_stream();
    peer.send_ops(&mut ops, 1, [file("g", 11, 0o644, inline("g"))]);
    assert_eq!(peer.closed().0, CloseCode::Violation);
    assert!(!bench.pair.dst().join("g").exists());

    // What is in files a push does not tell either.
    bench.grant("push,no-set-id");
    let (mut peer, opened) = bench.open(Purpose::Survey).unwrap();
    assert!(!opened.may_delete && !may_set_id(&mut peer));
    peer.send(&look(false));
    assert_eq!(digests(&mut peer), [None]);
    peer.send(&look(true));
    let (code, text) = peer.closed();
    assert_eq!(code, CloseCode::NotAllowed);
    assert!(text.contains("may not verify"), "{text}");

    bench.grant("push,delete");
    let (mut peer, opened) = bench.open(Purpose::Survey).unwrap();
    assert!(opened.may_delete && may_set_id(&mut peer));
    peer.leave();

    // Without any right, nothing is learnt, not even whether there is such a module.
    bench.trust().remove("sender").unwrap();
    let refusal = bench.open(Purpose::Survey).err().unwrap();
    assert_eq!(refusal.0, CloseCode::NotAllowed);
    let elsewhere = Open {
        purpose: Purpose::Survey,
        ..opening(b"nowhere", 7)
    };
    assert_eq!(
        Peer::open(&bench.pair, bench.address(), &elsewhere)
            .err()
            .unwrap(),
        refusal
    );
}

/// What the run will not be let do is not announced.
#[test]
fn a_dry_run_knows_the_rights() {
    let bench = Bench::new("push,no-set-id");
    let (src, dst) = (bench.pair.src(), bench.pair.dst());
    fs::write(src.join("f"), "f").unwrap();
    fs::write(src.join("s"), "s").unwrap();
    fs::set_permissions(src.join("s"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::write(dst.join("there before"), "x").unwrap();
    let options = SenderOptions {
        deletes: Deletes::Always,
        ..bench.pair.sender_options(bench.address(), false)
    };
    let look = |options: &SenderOptions| {
        let mut told = Vec::new();
        let report = survey::run(options, FarEnd::Target(&runtime()), &mut |item| {
            told.push(item.shown());
        });
        // Whether its time is another depends on how fast this test is.
        told.retain(|path| path != "./");
        report.map(|report| (told, report))
    };
    let (told, report) = look(&options).unwrap();
    assert_eq!(told, ["f"]);
    assert_eq!(report.totals.extras_kept, 1);
    let failed =
        |entries: &[FailedEntry]| -> Vec<String> { entries.iter().map(|entry| entry.path.clone()).collect() };
    assert_eq!(failed(&report.unreadable), ["s"]);
    let summary = sender::run(&options, &runtime(), Arc::new(Silent), &Stop::default()).unwrap();
    assert_eq!(failed(&summary.failed), ["s"]);
    assert!(dst.join("f").exists() && !dst.join("s").exists() && dst.join("there before").exists());

    let contents = SenderOptions {
        compare: Compare::Contents,
        ..options.clone()
    };
    let error = look(&contents).unwrap_err().to_string();
    assert!(error.contains("may not verify"), "{error}");
    bench.grant("push,delete,verify");
    assert_eq!(look(&contents).unwrap().0, ["s", "there before"]);
}

/// S-19: what metadata is not granted is not agreed on, and refused if it comes all the same.
#[test]
fn s19_metadata_is_taken_as_far_as_it_is_granted() {
    let all = Bench::new("push,delete,verify");
    let (peer, everything) = all.open(Purpose::Mirror).unwrap();
    peer.leave();
    let bench = Bench::new("no-owner,no-devices,no-user-xattrs,no-capabilities,no-set-id");
    let (mut peer, opened) = bench.open(Purpose::Mirror).unwrap();
    assert!(!opened.carried.owner && !opened.carried.devices);
    let refused = XattrClasses::USER.union(XattrClasses::CAPABILITY);
    assert!(opened.carried.xattrs.common(refused).is_empty());
    assert_eq!(
        opened
            .carried
            .xattrs
            .union(refused)
            .common(everything.carried.xattrs),
        everything.carried.xattrs
    );
    let mut ops = peer.op_stream();
    let offer = |size| Content::Offer { size, digest: None };
    let next = peer.send_ops(
        &mut ops,
        1,
        [
            file("set-uid", 10, 0o4755, inline("x")),
            file("set-gid", 11, 0o2755, inline("x")),
            file("plain", 12, 0o755, inline("x")),
            OpBody::SetAttributes {
                object: ObjectId(12),
                attributes: with_mode(0o6755),
            },
            // A directory hands its group down, which harms nobody.
            OpBody::MakeDirectory {
                place: place(1, "d"),
                object: ObjectId(13),
                attributes: with_mode(0o2755),
            },
            OpBody::SetAttributes {
                object: ObjectId(13),
                attributes: with_mode(0o2775),
            },
            file("offered", 14, 0o4755, offer(5)),
        ],
    );
    peer.wait_applied(next - 1);
    for number in [1, 2, 4, 7] {
        assert_eq!(
            peer.failed.get(&number),
            Some(&FailureKind::Permission),
            "op {number}"
        );
    }
    assert_eq!(peer.failed.len(), 4, "{:?}", peer.failed);
    // A file whose offer was harmless, and whose seal is not.
    peer.send_ops(&mut ops, next, [file("sealed", 15, 0o755, offer(5))]);
    peer.wait("need", |peer| peer.needs.iter().any(|need| need.0 == next));
    peer.seal(
        &mut ops,
        SealOp {
            number: next,
            size: 5,
            digest: Digest::of(b"12345"),
            attributes: with_mode(0o4755),
        },
    );
    peer.send_ranges(&[BulkFrame {
        number: next,
        offset: 0,
        length: 5,
        body: RangeBody::Raw(RangeBytes(b"12345".to_vec())),
    }]);
    peer.wait_applied(next);
    assert_eq!(peer.failed.get(&next), Some(&FailureKind::Permission));
    // The session goes on.
    peer.send_ops(&mut ops, next + 1, [file("after", 16, 0o644, inline("after"))]);
    peer.wait_applied(next + 1);
    peer.leave();
    let mode = |name: &str| fs::metadata(bench.pair.dst().join(name)).map(|meta| meta.permissions().mode());
    assert_eq!(mode("plain").unwrap() & 0o7777, 0o755);
    assert_eq!(mode("d").unwrap() & 0o7777, 0o2775);
    for name in ["set-uid", "set-gid", "offered", "sealed"] {
        assert!(mode(name).is_err(), "{name} is there");
    }
}

/// S-15: a live connection is ended when its rights change, and its sender comes back with the new ones.
#[test]
fn s15_other_rights_count_within_five_seconds() {
    let bench = Bench::new("push,delete,verify");
    let (src, dst) = (bench.pair.src(), bench.pair.dst());
    fs::write(src.join("kept"), "x").unwrap();
    let following = Following::start(bench.pair.sender_options(bench.address(), true));
    following.watching.wait_in_sync();
    let (verifier, _) = bench.open(Purpose::Verify).unwrap();
    let began = Instant::now();
    bench.grant("push");
    assert_eq!(verifier.closed().0, CloseCode::Done);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    following
        .watching
        .wait_for(|phase| !matches!(phase, Phase::InSync { .. }));
    following.watching.wait_in_sync();
    fs::remove_file(src.join("kept")).unwrap();
    fs::write(src.join("new"), "new").unwrap();
    support::until("new arrived", || dst.join("new").exists());
    following.watching.wait_in_sync();
    assert!(dst.join("kept").exists(), "deleted without the right to");
    following.stop().unwrap();
}

/// S-15: who breaks the file while taking a right away has not left the right in force.
#[test]
fn s15_a_trust_store_that_cannot_be_read_fails_closed() {
    let bench = Bench::new("push,delete,verify");
    let (live, _) = bench.open(Purpose::Mirror).unwrap();
    let began = Instant::now();
    fs::write(bench.options.home.peers_file(), "[[peer]]\nname = \"sender\n").unwrap();
    let (code, text) = live.closed();
    assert_eq!(code, CloseCode::Unable, "{text}");
    assert!(began.elapsed() < Duration::from_secs(7), "{:?}", began.elapsed());
    // Nobody comes in, and nobody is told that he never will: the file may be whole again the next moment.
    assert_eq!(bench.open(Purpose::Mirror).err().unwrap().0, CloseCode::Unable);
}

/// A peer whose time is over loses a connection that is open.
#[test]
fn s14_an_expiry_ends_a_live_connection() {
    let bench = Bench::new("verify");
    let now = driftless::daemon::status::unix_now();
    let mut peer = bench.trust().peers()[0].clone();
    peer.expires = Some(now + 2);
    bench.trust().add(peer).unwrap();
    let (live, _) = bench.open(Purpose::Verify).unwrap();
    assert_eq!(live.closed().0, CloseCode::NotAllowed);
    let late = driftless::daemon::status::unix_now().saturating_sub(now + 2);
    assert!(late < 5, "{late} s late");
    assert_eq!(
        bench.open(Purpose::Verify).err().unwrap().0,
        CloseCode::NotAllowed
    );
}

fn driftless(home: &Path, words: &[&str]) -> (bool, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_driftless"))
        .args(words)
        .env("DRIFTLESS_HOME", home)
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_command_line_gives_and_shows_rights() {
    let directory = tempfile::tempdir().unwrap();
    let home = directory.path();
    let fingerprint = Pair::new().sender.fingerprint().to_string();
    let add = |words: &[&str]| {
        driftless(
            home,
            &[&["peers", "add", &fingerprint, "--name", "nas"], words].concat(),
        )
    };
    let (done, text, _) = add(&["--module", "m", "--rights", "push,no-devices", "--expires", "30d"]);
    assert!(done && text.contains("may use m (push, no-devices)"), "{text}");
    let (_, text, _) = driftless(home, &["peers", "list"]);
    assert!(
        text.contains("may use m (push, no-devices)") && text.contains("expires in"),
        "{text}"
    );
    let (_, text, _) = driftless(home, &["peers", "list", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let peer = &json["peers"][0];
    assert_eq!(peer["modules"], serde_json::json!(["m"]));
    assert_eq!(
        peer["rights"][0]["rights"],
        serde_json::json!(["push", "no-devices"])
    );
    // The word of the owner replaces what he said before.
    let (done, text, _) = add(&["--module", "m"]);
    assert!(
        done && text.contains("may use m") && !text.contains("no-devices"),
        "{text}"
    );
    for (words, wanted) in [
        (
            &["--module", "m", "--rights", "everything"][..],
            "there is no right",
        ),
        (
            &["--module", "m", "--rights", "delete"],
            "without the right to push",
        ),
        (&["--rights", "push"], "--module"),
    ] {
        let (done, _, text) = add(words);
        assert!(!done && text.contains(wanted), "{words:?}: {text}");
    }
}

/// A peer that paired by an invite has the rights of that invite.
#[test]
fn an_invite_can_be_limited() {
    let directory = tempfile::tempdir().unwrap();
    let words = [
        "invite",
        "--module",
        "m",
        "--rights",
        "verify",
        "--address",
        "127.0.0.1:1",
        "--json",
    ];
    let (done, _, error) = driftless(directory.path(), &words);
    assert!(done, "{error}");
    let invites = driftless_certs::Invites::open(&directory.path().join("invites"));
    let pending = invites.pending(std::time::SystemTime::now()).unwrap();
    let wanted = Grant {
        module: "m".to_owned(),
        rights: "verify".parse().unwrap(),
    };
    assert_eq!(pending[0].grant, wanted);
}

/// S-16: the code can come by standard input, where no list of processes shows it.
#[test]
fn s16_a_code_need_not_be_an_argument() {
    use std::io::Write;
    let directory = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_driftless"))
        .args(["pair", "-"])
        .env("DRIFTLESS_HOME", directory.path())
        .stdin(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"driftless pair driftless-pair1-damaged\n")
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("code") && !text.contains("damaged"), "{text}");
}
