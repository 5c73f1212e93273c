//! A sender that lies, against a real receiver: S-01, S-02, S-14, N-10, X-03 and X-04.
//!
//! Beside the module stands a *canary*, a tree that links, names and numbers of the peer point to. It must never change.

mod support;

use driftless::daemon::receiver::ReceiverDaemon;
use driftless::daemon::{ModuleOptions, ReceiverOptions};
use driftless_certs::{Grant, Identity, Peer as Trusted, TrustStore, sender_config};
use driftless_protocol::codec::encode;
use driftless_protocol::limits::*;
use driftless_protocol::message::*;
use driftless_protocol::version::{ALPN_MIRROR, ALPN_PAIR, HELLO_BYTES, Hello};
use driftless_protocol::{Attributes, CloseCode, Digest, Name, ObjectId, RelPath, Timestamp};
use driftless_protocol::{Special, Xattr, XattrClasses, Xattrs};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use support::peer::{Closed, Packed, Peer, closed, dial, opening, tls};
use support::{Pair, Seen, assert_equal, runtime, tree};

const MIRROR: u128 = 77;

/// A receiver with a module to attack, one for an honest sender, and a canary beside them.
struct Bench {
    pair: Pair,
    daemon: Option<ReceiverDaemon>,
    canary: BTreeMap<Vec<u8>, Seen>,
    options: ReceiverOptions,
}

impl Bench {
    fn new() -> Bench {
        Bench::with(|_, _| ())
    }

    fn with(change: impl FnOnce(&Pair, &mut ReceiverOptions)) -> Bench {
        let pair = Pair::new();
        for name in ["canary", "canary/d", "canary/q", "honest", "third"] {
            fs::create_dir(pair.path(name)).unwrap();
        }
        for name in ["canary/secret", "canary/d/f", "canary/q/f"] {
            fs::write(
                pair.path(name),
                format!("{name} is nobody's business").repeat(2000),
            )
            .unwrap();
        }
        fs::write(pair.src().join("honest"), "honest content").unwrap();
        let mut options = pair.receiver_options();
        for name in ["honest", "third"] {
            options.modules.push(ModuleOptions {
                name: name.to_owned(),
                path: pair.path(name),
                xattrs: XattrClasses::USUAL,
                devices: true,
            });
        }
        change(&pair, &mut options);
        let daemon = Some(ReceiverDaemon::start(options.clone(), &runtime()).unwrap());
        let canary = outside(&pair);
        Bench {
            pair,
            daemon,
            canary,
            options,
        }
    }

    fn address(&self) -> std::net::SocketAddr {
        self.daemon.as_ref().unwrap().address()
    }

    fn restart(&mut self) {
        self.daemon.take().unwrap().stop();
        self.daemon = Some(ReceiverDaemon::start(self.options.clone(), &runtime()).unwrap());
    }

    fn dst(&self, name: &str) -> PathBuf {
        self.pair.dst().join(name)
    }

    fn open(&self) -> Peer {
        self.try_open(&opening(b"dst", MIRROR)).unwrap().0
    }

    fn try_open(&self, open: &Open) -> Result<(Peer, Opened), Closed> {
        Peer::open(&self.pair, self.address(), open)
    }

    /// The canary is as it was, and an honest sender is served.
    fn check(&self) {
        self.check_canary();
        let mut options = self.pair.sender_options(self.address(), false);
        options.target.module = "honest".to_owned();
        let summary = driftless::daemon::sender::run(
            &options,
            &runtime(),
            Arc::new(driftless::daemon::Silent),
            &driftless::daemon::Stop::default(),
        );
        assert!(summary.unwrap().in_sync);
        assert_equal(&self.pair.src(), &self.pair.path("honest"));
    }

    fn check_canary(&self) {
        assert_eq!(
            outside(&self.pair),
            self.canary,
            "something outside the module changed"
        );
    }

    fn check_empty(&self) {
        assert!(
            tree(&self.pair.dst()).is_empty(),
            "{:?}",
            tree(&self.pair.dst()).keys()
        );
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.stop();
        }
    }
}

/// Everything beside the module: the canary, and which names there are.
fn outside(pair: &Pair) -> BTreeMap<Vec<u8>, Seen> {
    let mut seen = tree(&pair.path("canary"));
    for entry in fs::read_dir(pair.directory.path()).unwrap() {
        let name = entry.unwrap().file_name();
        let (mode, owner, mtime) = (0, (0, 0), (0, 0));
        let key = [b"../", name.as_bytes()].concat();
        seen.insert(
            key,
            Seen {
                kind: 'n',
                mode,
                owner,
                mtime,
                content: Vec::new(),
            },
        );
    }
    seen
}

fn attributes(mode: u16) -> Attributes {
    Attributes {
        mode,
        mtime: Timestamp::new(1_700_000_000, 5).unwrap(),
        ..Attributes::default()
    }
}

fn place(directory: u64, name: &str) -> Place {
    Place {
        directory: ObjectId(directory),
        name: Name::new(name.as_bytes()).unwrap(),
    }
}

fn directory(at: Place, object: u64) -> OpBody {
    OpBody::MakeDirectory {
        place: at,
        object: ObjectId(object),
        attributes: attributes(0o755),
    }
}

fn inline(at: Place, object: u64, text: &str) -> OpBody {
    let content = Content::Inline {
        digest: Digest::of(text.as_bytes()),
        bytes: InlineContent(text.into()),
    };
    OpBody::PutFile {
        place: at,
        object: ObjectId(object),
        attributes: attributes(0o644),
        content,
    }
}

fn offer(at: Place, object: u64, size: u64, digest: Option<Digest>) -> OpBody {
    let content = Content::Offer { size, digest };
    OpBody::PutFile {
        place: at,
        object: ObjectId(object),
        attributes: attributes(0o644),
        content,
    }
}

fn link(at: Place, object: u64, target: &str) -> OpBody {
    let target = LinkTarget(target.into());
    OpBody::PutSymlink {
        place: at,
        object: ObjectId(object),
        attributes: attributes(0),
        target,
    }
}

fn special(at: Place, object: u64, special: Special) -> OpBody {
    OpBody::PutSpecial {
        place: at,
        object: ObjectId(object),
        attributes: attributes(0o644),
        special,
    }
}

/// Another name of something with the content `x`.
fn hard_link(at: Place, object: u64, to: u64) -> OpBody {
    OpBody::Link {
        place: at,
        object: ObjectId(object),
        attributes: Attributes {
            link_group: ObjectId(77),
            ..attributes(0o644)
        },
        to: ObjectId(to),
        digest: Digest::of(b"x"),
    }
}

fn remove(at: Place, object: u64) -> OpBody {
    OpBody::Remove {
        object: ObjectId(object),
        place: at,
    }
}

fn set(object: u64, mode: u16) -> OpBody {
    OpBody::SetAttributes {
        object: ObjectId(object),
        attributes: attributes(mode),
    }
}

fn every_position(at: &Place) -> Vec<OpBody> {
    let object = ObjectId(900);
    vec![
        directory(at.clone(), 900),
        inline(at.clone(), 900, "x"),
        offer(at.clone(), 900, 5, None),
        link(at.clone(), 900, "x"),
        special(at.clone(), 900, Special::Fifo),
        hard_link(at.clone(), 901, 900),
        OpBody::Move {
            object,
            to: at.clone(),
        },
        remove(at.clone(), 900),
        OpBody::Adopt {
            place: at.clone(),
            object,
        },
        OpBody::Release {
            object,
            place: at.clone(),
        },
    ]
}

fn frame_of(number: u64, body: OpBody) -> OpFrame {
    OpFrame(vec![OpMessage::Op(Op {
        number,
        after: 0,
        barrier: false,
        body,
        xattrs: Xattrs::default(),
    })])
}

/// A name that stands for a worse one, which no checked value can hold.
const STAND_IN: &str = "QZQZQZQZ";

fn with_name(message: &[u8], name: &[u8]) -> Vec<u8> {
    let held = [&[STAND_IN.len() as u8], STAND_IN.as_bytes()].concat();
    let at = message
        .windows(held.len())
        .position(|window| window == held)
        .unwrap();
    let length = match name.len() {
        short @ 0..=250 => vec![short as u8],
        long => [&[0xfb], &(long as u16).to_le_bytes()[..]].concat(),
    };
    [&message[..at], &length, name, &message[at + held.len()..]].concat()
}

#[test]
fn s01_odd_names_end_the_connection_wherever_they_stand() {
    let bench = Bench::new();
    let long = [b'n'; 256];
    let canary = bench.pair.path("canary/x");
    let names: [&[u8]; 11] = [
        b"../x",
        b"..",
        b".",
        b"",
        b"a/b",
        b"/",
        b"x/",
        b"../canary/secret",
        b"a\0b",
        &long,
        canary.as_os_str().as_bytes(),
    ];
    let violated = |peer: &Peer, what: &str| {
        let (code, text) = peer.closed();
        assert_eq!(code, CloseCode::Violation, "{what}: {text}");
    };
    for name in names {
        let shown = name.escape_ascii().to_string();
        for body in every_position(&place(1, STAND_IN)) {
            let what = format!("{shown} in {body:?}");
            let message = with_name(&encode(&frame_of(1, body)).unwrap(), name);
            let mut peer = bench.open();
            peer.op_stream().send_message(&message);
            violated(&peer, &what);
        }
        let path = RelPath::from_names(vec![Name::new(STAND_IN.as_bytes()).unwrap()]).unwrap();
        let verify = Open {
            purpose: Purpose::Verify,
            ..opening(b"dst", MIRROR)
        };
        let mut peer = bench.try_open(&verify).unwrap().0;
        let asking = ToReceiver::ListDisk(path.clone());
        peer.control
            .send_message(&with_name(&encode(&asking).unwrap(), name));
        violated(&peer, &format!("{shown} in ListDisk"));
        let mut peer =
            Peer::greet(dial(bench.address(), tls(&bench.pair, &bench.pair.sender)).unwrap()).unwrap();
        let open = ToReceiver::Open(Open {
            path,
            ..opening(b"dst", MIRROR)
        });
        peer.control
            .send_message(&with_name(&encode(&open).unwrap(), name));
        violated(&peer, &format!("{shown} in Open"));
    }
    bench.check_empty();
    bench.check();
}

#[test]
fn s01_what_came_before_an_odd_name_stands() {
    let bench = Bench::new();
    let mut peer = bench.open();
    let mut ops = peer.op_stream();
    peer.send_ops(&mut ops, 1, [inline(place(1, "legal"), 10, "legal")]);
    peer.wait_applied(1);
    let good = encode(&OpFrame(vec![
        OpMessage::Op(Op {
            number: 2,
            after: 0,
            barrier: false,
            body: inline(place(1, "beside"), 11, "x"),
            xattrs: Xattrs::default(),
        }),
        OpMessage::Op(Op {
            number: 3,
            after: 0,
            barrier: false,
            body: inline(place(1, STAND_IN), 12, "x"),
            xattrs: Xattrs::default(),
        }),
    ]));
    ops.send_message(&with_name(&good.unwrap(), b".."));
    assert_eq!(peer.closed().0, CloseCode::Violation);
    bench.open().leave();
    let names: Vec<_> = tree(&bench.pair.dst()).into_keys().collect();
    assert_eq!(
        names,
        [b"legal"],
        "nothing of the offending message is carried out"
    );
    bench.check();
}

#[test]
fn s02_a_link_is_no_directory() {
    let bench = Bench::new();
    let mut peer = bench.open();
    let mut ops = peer.op_stream();
    let next = peer.send_ops(
        &mut ops,
        1,
        [
            link(place(1, "l"), 10, "../canary"),
            inline(place(1, "f"), 11, "f"),
            directory(place(1, "d"), 12),
        ],
    );
    peer.wait_applied(next - 1);
    let through = [
        directory(place(10, "new"), 20),
        inline(place(10, "secret"), 21, "x"),
        offer(place(10, "secret"), 22, 5, None),
        link(place(10, "secret"), 23, "x"),
        OpBody::Move {
            object: ObjectId(11),
            to: place(10, "secret"),
        },
        OpBody::Move {
            object: ObjectId(12),
            to: place(10, "e"),
        },
        OpBody::Adopt {
            place: place(10, "secret"),
            object: ObjectId(24),
        },
    ];
    let last = peer.send_ops(&mut ops, next, through);
    peer.wait_applied(last - 1);
    for number in next..last {
        assert_eq!(
            peer.failed.get(&number),
            Some(&FailureKind::Mismatch),
            "op {number}"
        );
    }
    // These change nothing and so may succeed: what they name is not there.
    let last = peer.send_ops(
        &mut ops,
        last,
        [
            remove(place(10, "secret"), 25),
            OpBody::Release {
                object: ObjectId(26),
                place: place(10, "d"),
            },
        ],
    );
    peer.wait_applied(last - 1);
    peer.leave();
    assert_eq!(fs::read_link(bench.dst("l")).unwrap().to_str(), Some("../canary"));
    bench.check();
}

#[test]
fn s02_a_listing_follows_no_link() {
    let bench = Bench::new();
    let mut peer = bench.open();
    let mut ops = peer.op_stream();
    peer.send_ops(&mut ops, 1, [link(place(1, "l"), 10, "../canary")]);
    peer.wait_applied(1);
    peer.leave();
    let verify = Open {
        purpose: Purpose::Verify,
        ..opening(b"dst", MIRROR)
    };
    let (mut peer, _) = bench.try_open(&verify).unwrap();
    for path in ["l", "l/d"] {
        peer.send(&ToReceiver::ListDisk(RelPath::parse(path.as_bytes()).unwrap()));
        loop {
            match peer.next() {
                Some(ToSender::ListingFailed(_)) => break,
                Some(ToSender::Listing { rows, .. }) => panic!("{path} was listed: {rows:?}"),
                Some(_) => {}
                None => panic!("{:?}", peer.closed()),
            }
        }
    }
    // Nor does the path of an opening.
    peer.leave();
    for purpose in [Purpose::Mirror, Purpose::Verify] {
        let path = RelPath::parse(b"l/d").unwrap();
        let outcome = bench.try_open(&Open {
            path,
            purpose,
            ..opening(b"dst", MIRROR + 1)
        });
        assert_eq!(outcome.err().map(|closed| closed.0), Some(CloseCode::Unable));
    }
    bench.check();
}

#[test]
fn s02_a_name_that_is_link_and_directory_at_once() {
    let bench = Bench::new();
    let mut peer = bench.open();
    let mut ops = peer.op_stream();
    let last = peer.send_ops(
        &mut ops,
        1,
        [
            link(place(1, "x"), 20, "../canary/d"),
            directory(place(1, "x"), 21),
            inline(place(21, "f"), 22, "x"),
            remove(place(1, "x"), 20),
            directory(place(1, "y"), 30),
            link(place(1, "y"), 31, "../canary/d"),
            inline(place(30, "f"), 32, "x"),
            inline(place(31, "f"), 33, "x"),
        ],
    );
    peer.wait_applied(last - 1);
    assert_eq!(peer.failed.keys().copied().collect::<Vec<_>>(), [8]);
    peer.leave();
    assert!(fs::symlink_metadata(bench.dst("x")).unwrap().is_dir());
    assert_eq!(fs::read_to_string(bench.dst("x/f")).unwrap(), "x");
    assert!(fs::symlink_metadata(bench.dst("y")).unwrap().is_symlink());
    bench.check();
}

#[test]
fn s02_links_that_a_local_user_planted() {
    let mut bench = Bench::new();
    let mut peer = bench.open();
    let mut ops = peer.op_stream();
    let texts = ["leaf", "gone", "attributes", "hard", "hard-attributes", "big"];
    let files = texts
        .iter()
        .zip(50..)
        .map(|(name, object)| inline(place(1, name), object, name));
    let directories = [
        directory(place(1, "d"), 40),
        directory(place(1, "p"), 41),
        directory(place(41, "q"), 42),
        directory(place(1, "live"), 43),
    ];
    let last = peer.send_ops(&mut ops, 1, directories.into_iter().chain(files));
    peer.wait_applied(last - 1);
    peer.leave();
    // So that no handle of before is left; the walk sees everything as it should be.
    bench.restart();
    let mut peer = bench.open();
    let mut ops = peer.op_stream();
    let next = peer.send_ops(&mut ops, 1, [inline(place(43, "f"), 60, "before")]);
    peer.wait_applied(1);
    for (name, target) in [("d", "canary/d"), ("p", "canary"), ("live", "canary/d")] {
        fs::rename(bench.dst(name), bench.dst(&format!("{name}-away"))).unwrap();
        symlink(bench.pair.path(target), bench.dst(name)).unwrap();
    }
    for name in ["leaf", "gone", "attributes", "big"] {
        fs::remove_file(bench.dst(name)).unwrap();
        symlink(bench.pair.path("canary/secret"), bench.dst(name)).unwrap();
    }
    fs::remove_file(bench.dst("hard")).unwrap();
    fs::hard_link(bench.pair.path("canary/secret"), bench.dst("hard")).unwrap();
    let last = peer.send_ops(
        &mut ops,
        next,
        [
            inline(place(40, "f"), 70, "x"),
            directory(place(40, "n"), 71),
            inline(place(42, "f"), 72, "x"),
            remove(place(42, "f"), 73),
            set(40, 0o777),
            inline(place(43, "f"), 60, "after"),
            inline(place(1, "leaf"), 50, "new leaf"),
            remove(place(1, "gone"), 51),
            set(52, 0o777),
            inline(place(1, "hard"), 53, "new hard"),
            offer(place(1, "big"), 55, 3_000_000, None),
        ],
    );
    peer.wait("the offer", |peer| !peer.needs.is_empty());
    assert!(!peer.needs[0].1, "the signature of a file outside was offered");
    ops.send_message(&encode(&OpFrame(vec![OpMessage::Withdraw { number: last - 1 }])).unwrap());
    peer.wait_applied(last - 1);
    bench.check_canary();
    for number in [2, 3, 4] {
        assert_eq!(
            peer.failed.get(&number),
            Some(&FailureKind::Mismatch),
            "op {number}: {:?}",
            peer.failed
        );
    }
    for (name, text) in [("leaf", "new leaf"), ("hard", "new hard")] {
        assert!(fs::symlink_metadata(bench.dst(name)).unwrap().is_file());
        assert_eq!(fs::read_to_string(bench.dst(name)).unwrap(), text);
    }
    assert!(fs::symlink_metadata(bench.dst("gone")).is_err());
    peer.leave();
    bench.restart();
    bench.check();
}

#[test]
fn s02_attributes_never_reach_a_hard_link_from_outside() {
    let bench = Bench::new();
    let mut peer = bench.open();
    let mut ops = peer.op_stream();
    let next = peer.send_ops(&mut ops, 1, [inline(place(1, "hard"), 50, "x")]);
    peer.wait_applied(1);
    fs::remove_file(bench.dst("hard")).unwrap();
    fs::hard_link(bench.pair.path("canary/secret"), bench.dst("hard")).unwrap();
    let last = peer.send_ops(&mut ops, next, [set(50, 0o666)]);
    peer.wait_applied(last - 1);
    assert_eq!(peer.failed.get(&2), Some(&FailureKind::Mismatch));
    bench.check();
}

/// S-19: what was not agreed on is neither made nor set, whatever a sender sends.
#[test]
fn s19_devices_and_attributes_that_were_not_agreed_on_are_refused() {
    let bench = Bench::new();
    let mut peer = bench.open();
    let mut ops = peer.op_stream();
    let next = peer.send_ops(&mut ops, 1, [inline(place(1, "f"), 50, "x")]);
    let null = Special::CharDevice { major: 1, minor: 3 };
    let disk = Special::BlockDevice { major: 8, minor: 0 };
    let next = peer.send_ops(
        &mut ops,
        next,
        [
            special(place(1, "null"), 51, null),
            special(place(1, "disk"), 52, disk),
        ],
    );
    let names = [
        "user.a",
        "trusted.a",
        "security.capability",
        "security.a",
        "system.posix_acl_access",
        "odd",
    ];
    for (number, name) in (next..).zip(names) {
        let xattrs = Xattrs::new(vec![Xattr {
            name: name.into(),
            value: b"1".to_vec(),
        }])
        .unwrap();
        let body = OpBody::SetAttributes {
            object: ObjectId(50),
            attributes: Attributes {
                xattrs: xattrs.digest(),
                ..attributes(0o600)
            },
        };
        let op = Op {
            number,
            after: 0,
            barrier: true,
            body,
            xattrs,
        };
        ops.send_message(&encode(&OpFrame(vec![OpMessage::Op(op)])).unwrap());
    }
    let last = next + names.len() as u64;
    // Attributes that are promised and do not come.
    let promised = OpBody::SetAttributes {
        object: ObjectId(50),
        attributes: Attributes {
            xattrs: Some(Digest::of(b"never sent")),
            ..attributes(0o600)
        },
    };
    peer.send_ops(&mut ops, last, [promised]);
    peer.wait_applied(last);
    for number in 2..last {
        assert_eq!(
            peer.failed.get(&number),
            Some(&FailureKind::Unsupported),
            "op {number}"
        );
    }
    assert_eq!(peer.failed.get(&last), Some(&FailureKind::WrongDigest));
    let file = bench.dst("f");
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o644);
    assert_eq!(rustix::fs::llistxattr(&file, &mut [0; 100][..]), Ok(0));
    assert!(!bench.dst("null").exists() && !bench.dst("disk").exists());
    peer.leave();
    bench.check();
}

/// A second name is given to what the sender put there, and to nothing else.
#[test]
fn s02_links_lead_to_what_the_sender_knows() {
    let bench = Bench::new();
    fs::write(bench.dst("local"), "x").unwrap();
    let mut peer = bench.open();
    let mut ops = peer.op_stream();
    let in_group = |body: OpBody| match body {
        OpBody::PutFile {
            place,
            object,
            content,
            ..
        } => OpBody::PutFile {
            place,
            object,
            attributes: Attributes {
                link_group: ObjectId(77),
                ..attributes(0o644)
            },
            content,
        },
        other => other,
    };
    let next = peer.send_ops(
        &mut ops,
        1,
        [
            in_group(inline(place(1, "f"), 50, "x")),
            in_group(inline(place(1, "g"), 51, "y")),
            inline(place(1, "h"), 52, "x"),
            directory(place(1, "d"), 53),
            hard_link(place(53, "good"), 60, 50),
        ],
    );
    peer.wait_applied(next - 1);
    assert!(peer.failed.is_empty(), "{:?}", peer.failed);
    // Somebody puts a link to a file from outside in the place of one.
    fs::remove_file(bench.dst("f")).unwrap();
    fs::hard_link(bench.pair.path("canary/secret"), bench.dst("f")).unwrap();
    let bad = [
        hard_link(place(1, "n"), 61, 50),      // not what was put there
        hard_link(place(1, "n"), 61, 51),      // of another content
        hard_link(place(1, "n"), 61, 52),      // of no group
        hard_link(place(1, "n"), 61, 53),      // a directory
        hard_link(place(1, "n"), 61, 61),      // itself
        hard_link(place(1, "n"), 61, 99),      // nothing
        hard_link(place(1, "n"), 61, 1 << 63), // found here, of no group
        hard_link(place(1, "d"), 53, 60),      // a number that a directory has
        hard_link(place(1, "n"), 1, 60),
    ];
    let last = peer.send_ops(&mut ops, next, bad);
    peer.wait_applied(last - 1);
    for number in next..last {
        assert_eq!(
            peer.failed.get(&number),
            Some(&FailureKind::Mismatch),
            "op {number}"
        );
    }
    assert!(!bench.dst("n").exists() && bench.dst("d").is_dir());
    assert_eq!(fs::read(bench.dst("d/good")).unwrap(), b"x");
    peer.leave();
    bench.check();
}

#[test]
fn reserved_names_are_unsupported_in_every_position() {
    let bench = Bench::new();
    let mut peer = bench.open();
    let mut ops = peer.op_stream();
    let mut next = peer.send_ops(
        &mut ops,
        1,
        [directory(place(1, "d"), 899), inline(place(1, "f"), 900, "f")],
    );
    peer.wait_applied(next - 1);
    let generation = bench.dst(".driftless-generation");
    let (before, inode) = (
        fs::read(&generation).unwrap(),
        fs::metadata(&generation).unwrap().ino(),
    );
    for name in [
        ".driftless-generation",
        ".driftless",
        ".driftless-generation.new",
        ".driftless-0123",
    ] {
        for at in [place(1, name), place(899, name)] {
            let last = peer.send_ops(&mut ops, next, every_position(&at));
            peer.wait_applied(last - 1);
            for number in next..last {
                assert_eq!(
                    peer.failed.get(&number),
                    Some(&FailureKind::Unsupported),
                    "{name}, op {number}"
                );
            }
            next = last;
        }
    }
    assert_eq!(fs::read(&generation).unwrap(), before);
    assert_eq!(fs::metadata(&generation).unwrap().ino(), inode);
    peer.leave();
    bench.check();
}

#[test]
fn numbers_that_are_not_the_senders_to_give() {
    let bench = Bench::new();
    fs::write(bench.dst("local"), "local").unwrap();
    let mut peer = bench.open();
    let mut ops = peer.op_stream();
    let next = peer.send_ops(
        &mut ops,
        1,
        [
            directory(place(1, "d"), 10),
            inline(place(10, "f"), 11, "f"),
            inline(place(1, "g"), 12, "g"),
        ],
    );
    peer.wait_applied(next - 1);
    let (local, root) = (1 << 63, ObjectId::ROOT);
    let bad = vec![
        directory(place(1, "n"), local + 5),
        inline(place(1, "n"), local + 5, "n"),
        offer(place(1, "n"), local + 5, 9, None),
        link(place(1, "n"), local + 5, "n"),
        OpBody::Adopt {
            place: place(1, "g"),
            object: ObjectId(local + 5),
        },
        inline(place(1, "n"), 1, "n"),
        link(place(1, "n"), 1, "n"),
        inline(place(1, "n"), 0, "n"),
        OpBody::Move {
            object: root,
            to: place(10, "n"),
        },
        OpBody::Remove {
            object: root,
            place: place(0, "root"),
        },
        OpBody::Release {
            object: root,
            place: place(0, "root"),
        },
        OpBody::Adopt {
            place: place(0, "root"),
            object: ObjectId(13),
        },
        inline(place(0, "root"), 14, "n"),
        // Taken by another kind; a directory must not vanish for a file.
        inline(place(1, "n"), 10, "n"),
        link(place(1, "n"), 10, "n"),
        directory(place(1, "n"), 12),
        // No such directory.
        inline(place(99, "n"), 15, "n"),
        directory(place(11, "n"), 16),
    ];
    let last = peer.send_ops(&mut ops, next, bad);
    peer.wait_applied(last - 1);
    for number in next..last {
        assert_eq!(
            peer.failed.get(&number),
            Some(&FailureKind::Mismatch),
            "op {number}"
        );
    }
    // A directory into itself is refused by the kernel.
    let end = peer.send_ops(
        &mut ops,
        last,
        [OpBody::Move {
            object: ObjectId(10),
            to: place(10, "n"),
        }],
    );
    peer.wait_applied(end - 1);
    assert!(peer.failed.contains_key(&last));
    peer.leave();
    let names: Vec<_> = tree(&bench.pair.dst()).into_keys().collect();
    assert_eq!(names, [&b"d"[..], b"d/f", b"g", b"local"]);
    bench.check();
}

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
        error @ quinn::ConnectionError::ApplicationClosed(_) => Ok(support::peer::reason(&error)),
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

/// Each must end the connection as a violation, and leave nothing behind.
#[test]
fn x03_x04_frames_and_streams_that_lie() {
    type Lie = (&'static str, fn(&mut Peer) -> Option<Packed>);
    let bench = Bench::new();
    let lies: &[Lie] = &[
        ("op frame over its limit", |peer| {
            let mut ops = peer.op_stream();
            ops.send_bytes(&(OP_FRAME_BYTES_MAX as u32 + 1).to_be_bytes());
            Some(ops)
        }),
        ("control frame of 4 GB", |peer| {
            peer.control.send_bytes(&u32::MAX.to_be_bytes());
            None
        }),
        ("bulk frame over its limit", |peer| {
            let length = (BULK_FRAME_BYTES_MAX as u32 + 1).to_be_bytes();
            Some(peer.stream(&[&[2], &length[..]].concat(), 20))
        }),
        ("bomb of 300 MB of zeros inside frames", |peer| {
            let mut ops = peer.op_stream();
            let mut bytes = (OP_FRAME_BYTES_MAX as u32).to_be_bytes().to_vec();
            bytes.resize(300_000_000, 0);
            ops.send_bytes(&bytes);
            Some(ops)
        }),
        ("window of 2^27", |peer| {
            let mut ops = peer.stream(&[1], 27);
            ops.send_message(&encode(&frame_of(1, OpBody::Mark { sequence: 1 })).unwrap());
            Some(ops)
        }),
        ("garbage in place of zstd", |peer| {
            Some(peer.stream(&[&[1], &[0xa5; 64][..]].concat(), 20))
        }),
        ("garbage in a frame", |peer| {
            let mut ops = peer.op_stream();
            ops.send_message(&[0xff; 64]);
            Some(ops)
        }),
        ("empty frame", |peer| {
            let mut ops = peer.op_stream();
            ops.send_message(&[]);
            Some(ops)
        }),
        ("count of messages over its limit", |peer| {
            let mut ops = peer.op_stream();
            ops.send_message(&[0xfd, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]);
            Some(ops)
        }),
        ("bytes left over", |peer| {
            let mut ops = peer.op_stream();
            let mut message = encode(&frame_of(1, OpBody::Mark { sequence: 1 })).unwrap();
            message.push(0);
            ops.send_message(&message);
            Some(ops)
        }),
        ("garbage on a bulk stream", |peer| {
            Some(peer.stream(&[&[2, 0, 0, 0, 9], &[0xff; 9][..]].concat(), 20))
        }),
        ("unknown kind of stream", |peer| Some(peer.stream(&[9], 20))),
        ("op stream that ends inside a frame", |peer| {
            let mut ops = peer.op_stream();
            ops.send_bytes(&[0, 0, 1]);
            ops.finish();
            None
        }),
        ("bulk stream that ends inside a frame", |peer| {
            peer.stream(&[2, 0, 0, 1, 0, 7], 20).finish();
            None
        }),
        ("op stream that is reset", |peer| {
            let mut ops = peer.op_stream();
            peer.send_ops(&mut ops, 1, [OpBody::Mark { sequence: 1 }]);
            peer.wait_applied(1);
            ops.reset();
            None
        }),
        ("second opening", |peer| {
            peer.send(&ToReceiver::Open(opening(b"dst", MIRROR)));
            None
        }),
    ];
    for (what, lie) in lies {
        let mut peer = bench.open();
        let held = lie(&mut peer);
        let (code, text) = peer.closed();
        assert_eq!(code, CloseCode::Violation, "{what}: {text}");
        assert!(!text.is_empty(), "{what}");
        drop(held);
    }
    bench.check_empty();
    bench.check();
}

#[test]
fn numbers_of_ops_that_break_the_rules() {
    let bench = Bench::new();
    let op = |number, after| Op {
        number,
        after,
        barrier: false,
        body: directory(place(1, "d"), 10),
        xattrs: Xattrs::default(),
    };
    let window = OPS_IN_FLIGHT_MAX as u64;
    for ops in [
        vec![op(0, 0)],
        vec![op(u64::MAX, 0)],
        vec![op(window + 1, 0)],
        vec![op(2, 2)],
        vec![op(2, 3)],
        vec![op(5, 0), op(5, 0)],
    ] {
        let what = format!("{ops:?}");
        let mut peer = bench.open();
        let mut stream = peer.op_stream();
        stream.send_message(&encode(&OpFrame(ops.into_iter().map(OpMessage::Op).collect())).unwrap());
        assert_eq!(peer.closed().0, CloseCode::Violation, "{what}");
    }
    let mut peer = bench.open();
    let mut stream = peer.op_stream();
    peer.send_ops(&mut stream, 1, [OpBody::Mark { sequence: 1 }]);
    peer.wait_applied(1);
    peer.send_ops(&mut stream, 1, [OpBody::Mark { sequence: 1 }]);
    assert_eq!(peer.closed().0, CloseCode::Violation, "used again after it ended");
    bench.check();
}

/// Only what the mirror itself put there under that number, with that content, is copied.
#[test]
fn copies_of_what_is_not_there_as_told_fail() {
    let bench = Bench::new();
    fs::write(bench.dst("local"), "of another").unwrap();
    let mut peer = bench.open();
    let mut ops = peer.op_stream();
    let text = "x".repeat(1_000);
    let mut next = peer.send_ops(&mut ops, 1, [inline(place(1, "known"), 2, &text)]);
    peer.wait_applied(1);
    let (right, secret) = (Digest::of(text.as_bytes()), Digest::of(b"of another"));
    for (digest, size, from, works) in [
        (right, 1_000, 2, true),
        (right, 999, 2, false),
        (Digest::of(b"other"), 1_000, 2, false),
        (right, 1_000, 99, false),
        (right, 0, 1, false),
        (secret, 10, 1 << 63, false),
    ] {
        let name = format!("copy{next}");
        let from = ObjectId(from);
        let body = OpBody::PutFile {
            place: place(1, &name),
            object: ObjectId(10 + next),
            attributes: attributes(0o644),
            content: Content::Copy { size, digest, from },
        };
        let number = next;
        next = peer.send_ops(&mut ops, next, [body]);
        peer.wait_applied(number);
        let kind = peer.failed.get(&number).copied();
        assert_eq!(kind, (!works).then_some(FailureKind::Basis), "{size} of {from:?}");
        assert_eq!(bench.dst(&name).exists(), works);
    }
    peer.leave();
}

#[test]
fn patches_that_do_not_fit_never_replace_a_file() {
    let bench = Bench::new();
    let old = "the old content ".repeat(10_000);
    let mut peer = bench.open();
    let mut ops = peer.op_stream();
    let mut next = peer.send_ops(&mut ops, 1, [inline(place(1, "f"), 10, &old)]);
    peer.wait_applied(next - 1);
    let size = old.len() as u64;
    let zstd = |bytes: &[u8]| zstd::bulk::compress(bytes, 1).unwrap();
    let all = || DeltaPart::Copy {
        offset: 0,
        length: size as u32,
    };
    let past = DeltaPart::Copy {
        offset: 1,
        length: size as u32,
    };
    let literal = |length| DeltaPart::Literal { length };
    let (right, wrong) = (Digest::of(old.as_bytes()), Digest::of(b"something else"));
    let bomb = zstd(&vec![0; 8 << 20]);
    let (basis, broken) = (FailureKind::Basis, FailureKind::WrongDigest);
    for (what, object, size, digest, from, parts, literals, kind) in [
        (
            "another basis",
            10,
            size,
            right,
            wrong,
            vec![all()],
            vec![],
            basis,
        ),
        (
            "another object",
            11,
            size,
            right,
            right,
            vec![all()],
            vec![],
            basis,
        ),
        (
            "a copy past the end",
            10,
            size,
            right,
            right,
            vec![past],
            vec![],
            broken,
        ),
        (
            "parts that fall short",
            10,
            size + 1,
            right,
            right,
            vec![all()],
            vec![],
            broken,
        ),
        (
            "literals that lack",
            10,
            size + 1,
            right,
            right,
            vec![all(), literal(1)],
            vec![],
            broken,
        ),
        (
            "literals left over",
            10,
            size,
            right,
            right,
            vec![all()],
            zstd(b"x"),
            broken,
        ),
        (
            "no zstd frame",
            10,
            4,
            right,
            right,
            vec![literal(4)],
            b"xxxx".to_vec(),
            broken,
        ),
        (
            "a bomb",
            10,
            8 << 20,
            right,
            right,
            vec![literal(8 << 20)],
            bomb,
            broken,
        ),
        (
            "another digest",
            10,
            1,
            wrong,
            right,
            vec![literal(1)],
            zstd(b"x"),
            broken,
        ),
    ] {
        let content = Content::Patch {
            size,
            digest,
            basis: from,
            parts: DeltaParts(parts),
            literals: PatchLiterals(literals),
        };
        let body = OpBody::PutFile {
            place: place(1, "f"),
            object: ObjectId(object),
            attributes: attributes(0o644),
            content,
        };
        next = peer.send_ops(&mut ops, next, [body]);
        let number = next - 1;
        peer.wait(what, |peer| peer.failed.contains_key(&number));
        assert_eq!(peer.failed[&number], kind, "{what}");
        assert_eq!(
            fs::read(bench.pair.dst().join("f")).unwrap(),
            old.as_bytes(),
            "{what}"
        );
    }
    peer.leave();
    bench.check();
}

#[test]
fn contents_that_do_not_add_up_never_replace_a_file() {
    let bench = Bench::new();
    let old = "the old content ".repeat(10_000);
    let mut peer = bench.open();
    let mut ops = peer.op_stream();
    let mut next = peer.send_ops(&mut ops, 1, [inline(place(1, "f"), 10, &old)]);
    peer.wait_applied(next - 1);
    let new = vec![b'n'; 100_000];
    let zstd = |bytes: &[u8]| RangeBytes(zstd::bulk::compress(bytes, 1).unwrap());
    let raw = |range: std::ops::Range<usize>| {
        (
            range.start as u64,
            range.len() as u32,
            RangeBody::Raw(RangeBytes(new[range].to_vec())),
        )
    };
    let delta = |length: u32, parts: Vec<DeltaPart>, literals: RangeBytes| {
        vec![(
            0,
            length,
            RangeBody::Delta {
                parts: DeltaParts(parts),
                literals,
            },
        )]
    };
    let (size, basis) = (new.len() as u32, old.len() as u64);
    type Ranges = Vec<(u64, u32, RangeBody)>;
    let cases: Vec<(&str, Ranges)> = vec![
        ("overlap", vec![raw(0..60_000), raw(50_000..100_000)]),
        ("twice", vec![raw(0..60_000), raw(0..60_000)]),
        (
            "other length",
            vec![(0, size, RangeBody::Raw(RangeBytes(vec![0; 99_999])))],
        ),
        (
            "other length packed",
            vec![(0, size, RangeBody::Zstd(zstd(&new[1..])))],
        ),
        (
            "bomb",
            vec![(0, size, RangeBody::Zstd(zstd(&vec![0; 300_000_000])))],
        ),
        (
            "garbage",
            vec![(0, size, RangeBody::Zstd(RangeBytes(vec![7; 100])))],
        ),
        ("wrong bytes", vec![(0, size, RangeBody::Zeros)]),
        ("bytes that are not held", vec![(0, size, RangeBody::Held)]),
        (
            "copy past the basis",
            delta(
                size,
                vec![DeltaPart::Copy {
                    offset: basis - 5,
                    length: size,
                }],
                RangeBytes(vec![]),
            ),
        ),
        (
            "copy that overflows",
            delta(
                size,
                vec![DeltaPart::Copy {
                    offset: u64::MAX,
                    length: size,
                }],
                RangeBytes(vec![]),
            ),
        ),
        (
            "parts too short",
            delta(
                size,
                vec![DeltaPart::Copy { offset: 0, length: 5 }],
                RangeBytes(vec![]),
            ),
        ),
        (
            "literals missing",
            delta(size, vec![DeltaPart::Literal { length: size }], zstd(b"few")),
        ),
        (
            "literals left over",
            delta(5, vec![DeltaPart::Copy { offset: 0, length: 5 }], zstd(b"more")),
        ),
        (
            "delta with wrong result",
            delta(
                size,
                vec![DeltaPart::Copy {
                    offset: 0,
                    length: size,
                }],
                RangeBytes(vec![]),
            ),
        ),
    ];
    for (what, ranges) in cases {
        let number = next;
        next = peer.send_ops(
            &mut ops,
            number,
            [offer(place(1, "f"), 10, u64::from(size), Some(Digest::of(&new)))],
        );
        peer.wait(what, |peer| peer.needs.iter().any(|need| need.0 == number));
        let ranges: Vec<_> = ranges
            .into_iter()
            .map(|(offset, length, body)| BulkFrame {
                number,
                offset,
                length,
                body,
            })
            .collect();
        let (digest, attributes) = (Digest::of(&new), attributes(0o644));
        peer.seal(
            &mut ops,
            SealOp {
                number,
                size: u64::from(size),
                digest,
                attributes,
            },
        );
        peer.send_ranges(&ranges);
        peer.wait_applied(number);
        assert_eq!(
            peer.failed.get(&number),
            Some(&FailureKind::WrongDigest),
            "{what}"
        );
        assert_eq!(fs::read_to_string(bench.dst("f")).unwrap(), old, "{what}");
    }
    // Past the end of the sealed size: never complete, so never published; the sender may withdraw.
    let number = next;
    next = peer.send_ops(&mut ops, number, [offer(place(1, "f"), 10, 5, None)]);
    peer.wait("past the end", |peer| {
        peer.needs.iter().any(|need| need.0 == number)
    });
    peer.seal(
        &mut ops,
        SealOp {
            number,
            size: 5,
            digest: Digest::of(&new[..5]),
            attributes: attributes(0o644),
        },
    );
    let (offset, length, body) = raw(0..100);
    peer.send_ranges(&[BulkFrame {
        number,
        offset,
        length,
        body,
    }]);
    peer.send_ops(&mut ops, next, [inline(place(1, "g"), 11, "g")]);
    std::thread::sleep(Duration::from_millis(100));
    ops.send_message(&encode(&OpFrame(vec![OpMessage::Withdraw { number }])).unwrap());
    peer.wait_applied(next);
    assert_eq!(fs::read_to_string(bench.dst("f")).unwrap(), old);
    // An inline content with another digest.
    let content = Content::Inline {
        digest: Digest::of(b"y"),
        bytes: InlineContent(b"x".to_vec()),
    };
    let lie = OpBody::PutFile {
        place: place(1, "f"),
        object: ObjectId(10),
        attributes: attributes(0o644),
        content,
    };
    let last = peer.send_ops(&mut ops, next + 1, [lie]);
    peer.wait_applied(last - 1);
    assert_eq!(peer.failed.get(&(last - 1)), Some(&FailureKind::WrongDigest));
    // Ranges, seals and withdrawals of what has ended or never was are ignored.
    let digest = Digest::of(b"");
    for number in [1, 5_000] {
        peer.seal(
            &mut ops,
            SealOp {
                number,
                size: 0,
                digest,
                attributes: attributes(0),
            },
        );
        ops.send_message(&encode(&OpFrame(vec![OpMessage::Withdraw { number }])).unwrap());
        peer.send_ranges(&[BulkFrame {
            number,
            offset: 0,
            length: 1,
            body: RangeBody::Zeros,
        }]);
    }
    let end = peer.send_ops(&mut ops, last, [inline(place(1, "h"), 12, "h")]);
    peer.wait_applied(end - 1);
    assert_eq!(fs::read_to_string(bench.dst("f")).unwrap(), old);
    peer.leave();
    support::assert_no_leftovers(&bench.pair.dst());
    bench.check();
}

#[test]
fn withdrawing_what_was_never_offered_does_not_stop_the_session() {
    let bench = Bench::new();
    let mut peer = bench.open();
    let mut ops = peer.op_stream();
    let body = inline(place(1, "f"), 10, &"x".repeat(200_000));
    let op = OpMessage::Op(Op {
        number: 1,
        after: 0,
        barrier: false,
        body,
        xattrs: Xattrs::default(),
    });
    ops.send_message(&encode(&OpFrame(vec![op])).unwrap());
    ops.send_message(&encode(&OpFrame(vec![OpMessage::Withdraw { number: 1 }])).unwrap());
    peer.send_ops(&mut ops, 2, [inline(place(1, "g"), 11, "g")]);
    peer.wait_applied(2);
    assert!(bench.dst("f").exists() && bench.dst("g").exists());
    peer.leave();
    bench.check();
}

#[test]
fn files_are_wanted_within_the_limit() {
    let bench = Bench::new();
    let mut peer = bench.open();
    let mut ops = peer.op_stream();
    let count = 3 * WANTED_FILES_MAX as u64;
    let bodies = (0..count).map(|n| offer(place(1, &format!("f{n}")), 100 + n, 10, None));
    let frame = bodies.zip(1..).map(|(body, number)| {
        OpMessage::Op(Op {
            number,
            after: 0,
            barrier: false,
            body,
            xattrs: Xattrs::default(),
        })
    });
    ops.send_message(&encode(&OpFrame(frame.collect())).unwrap());
    peer.wait("some needs", |peer| peer.needs.len() >= 20);
    while let Ok(message) = peer.incoming.recv_timeout(Duration::from_millis(300)) {
        if let ToSender::Need { number, basis } = message {
            peer.needs.push((number, basis));
        }
    }
    assert!(
        peer.needs.len() <= WANTED_FILES_MAX,
        "{} wanted at a time",
        peer.needs.len()
    );
    // Those that are withdrawn make room for the others.
    let mut answered = 0;
    while answered < count as usize {
        peer.wait("more needs", |peer| peer.needs.len() > answered);
        let withdrawn = peer.needs[answered..]
            .iter()
            .map(|&(number, _)| OpMessage::Withdraw { number })
            .collect::<Vec<_>>();
        answered = peer.needs.len();
        ops.send_message(&encode(&OpFrame(withdrawn)).unwrap());
    }
    peer.wait_applied(count);
    peer.leave();
    bench.check_empty();
    bench.check();
}

#[test]
fn verify_changes_nothing() {
    let bench = Bench::new();
    fs::write(bench.dst("f"), "f").unwrap();
    let before = tree(&bench.pair.dst());
    for (number, body) in every_position(&place(1, "f"))
        .into_iter()
        .chain([OpBody::Mark { sequence: 1 }])
        .enumerate()
    {
        let verify = Open {
            purpose: Purpose::Verify,
            ..opening(b"dst", MIRROR + number as u128)
        };
        let (mut peer, opened) = bench.try_open(&verify).unwrap();
        assert!(!opened.bound, "a verification bound the module");
        let mut ops = peer.op_stream();
        peer.send_ops(&mut ops, 1, [body]);
        let (code, text) = peer.closed();
        assert_eq!(code, CloseCode::Violation, "{text}");
    }
    let path = RelPath::parse(b"no/such").unwrap();
    let missing = Open {
        purpose: Purpose::Verify,
        path,
        ..opening(b"dst", MIRROR)
    };
    assert_eq!(bench.try_open(&missing).err().unwrap().0, CloseCode::Unable);
    let (peer, opened) = bench.try_open(&opening(b"dst", MIRROR)).unwrap();
    assert!(!opened.bound && opened.cursor.is_none());
    peer.leave();
    assert_eq!(tree(&bench.pair.dst()), before);
    bench.check();
}

#[test]
fn a_second_mirror_is_told_who_has_the_module() {
    let bench = Bench::new();
    bench.open().leave();
    let other = Open {
        source: "another tree of the same peer".into(),
        ..opening(b"dst", MIRROR + 1)
    };
    let (code, text) = bench.try_open(&other).err().unwrap();
    assert_eq!(code, CloseCode::Busy);
    let owner = bench.pair.sender.fingerprint().to_string();
    assert!(
        text.contains("the peer of the tests") && text.contains(&owner),
        "{text}"
    );
    bench.open().leave();
    bench.check();
}

#[test]
fn a_flush_ahead_of_its_op_is_remembered() {
    let bench = Bench::new();
    let mut peer = bench.open();
    peer.send(&ToReceiver::Flush { number: 3 });
    peer.send(&ToReceiver::Flush { number: u64::MAX });
    peer.send(&ToReceiver::Flush { number: 1 });
    let mut ops = peer.op_stream();
    peer.send_ops(
        &mut ops,
        1,
        [
            inline(place(1, "a"), 10, "a"),
            directory(place(1, "d"), 11),
            set(11, 0o700),
        ],
    );
    peer.wait("durable", |peer| peer.durable >= 3);
    peer.leave();
    bench.check();
}

#[test]
fn n10_silence_is_dropped() {
    let bench = Bench::with(|_, options| options.link.hello_timeout = Duration::from_millis(700));
    let dialled = dial(bench.address(), tls(&bench.pair, &bench.pair.sender)).unwrap();
    assert_eq!(
        closed(&dialled.connection).0,
        CloseCode::Violation,
        "after the handshake"
    );
    let half = dial(bench.address(), tls(&bench.pair, &bench.pair.sender)).unwrap();
    let _streams = runtime().block_on(async {
        let (mut send, receive) = half.connection.open_bi().await.unwrap();
        send.write_all(&Hello::OURS.to_bytes()[..7]).await.unwrap();
        (send, receive)
    });
    assert_eq!(
        closed(&half.connection).0,
        CloseCode::Violation,
        "inside the hello"
    );
    let peer = Peer::greet(dial(bench.address(), tls(&bench.pair, &bench.pair.sender)).unwrap()).unwrap();
    assert_eq!(peer.closed().0, CloseCode::Violation, "after the hello");
    let mut other =
        Peer::greet(dial(bench.address(), tls(&bench.pair, &bench.pair.sender)).unwrap()).unwrap();
    other.send(&ToReceiver::Flush { number: 1 });
    assert_eq!(other.closed().0, CloseCode::Violation, "another first message");
    bench.check();
}
