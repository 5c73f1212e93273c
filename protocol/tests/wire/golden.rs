//! Pinned bytes: at least one value of every variant. A difference here breaks peers that are already deployed, so a
//! dump is never adjusted to the code; new variants get new dumps.

use crate::dump;
use driftless_protocol::codec::{self, Message};
use driftless_protocol::message::*;
use driftless_protocol::{
    Attributes, Called, Carried, Digest, EntrySum, Kind, Name, ObjectId, OwnerHere, OwnerKind, OwnerName,
    OwnerRow, Owners, OwnersHere, RelPath, Special, Timestamp, TreeSum, Xattr, XattrClasses, Xattrs,
};
use std::fmt::Debug;

fn golden<M: Message + PartialEq + Debug>(value: M, pinned: &str) {
    let pinned = dump::bytes(pinned);
    let encoded = codec::encode(&value).unwrap();
    assert_eq!(
        encoded, pinned,
        "{value:?}\n encoded {encoded:02x?}\n pinned  {pinned:02x?}"
    );
    assert_eq!(codec::decode::<M>(&pinned), Ok(value));
}

fn place() -> Place {
    Place {
        directory: ObjectId(7),
        name: Name::new(*b"n").unwrap(),
    }
}

fn attributes() -> Attributes {
    Attributes {
        mode: 0o644,
        uid: 1_000,
        gid: 100,
        mtime: Timestamp::new(-1, 999_999_999).unwrap(),
        ..Attributes::default()
    }
}

fn cursor() -> Cursor {
    Cursor {
        incarnation: u128::MAX,
        sequence: 250,
        sum: TreeSum([0xcc; 32]),
    }
}

/// An op frame that holds just this op; the dump is that of its body.
fn golden_op(body: OpBody, pinned: &str) {
    let op = Op {
        number: 1,
        after: 0,
        barrier: false,
        body,
        xattrs: Xattrs::default(),
    };
    let head = "01         # one message
                00         # OpMessage::Op
                01 00 00   # number, after, barrier\n";
    golden(
        OpFrame(vec![OpMessage::Op(op)]),
        &format!("{head}{pinned}\n00 # xattrs"),
    );
}

/// A bulk frame of op 1, bytes 2 to 5; the dump is that of its body.
fn golden_range(body: RangeBody, pinned: &str) {
    golden(
        BulkFrame {
            number: 1,
            offset: 2,
            length: 3,
            body,
        },
        &format!("01 02 03 # number, offset, length\n{pinned}"),
    );
}

#[test]
fn opening() {
    golden(
        ToReceiver::Open(Open {
            purpose: Purpose::Mirror,
            module: ModuleName(b"docs".to_vec()),
            path: RelPath::parse(b"a/bc").unwrap(),
            mirror: 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10,
            source: "/src".into(),
            incarnation: 5,
            carried: Carried {
                owner: true,
                xattrs: XattrClasses::USUAL,
                devices: true,
                leaves_root: true,
            },
            sum: Some(TreeSum([0xaa; 32])),
            protects: true,
            sparing: Sparing {
                existing: true,
                missing: false,
                newer: true,
            },
            whole_files: true,
            recheck: Recheck::Contents,
            upstream: Relays(vec![Relay {
                peer: [0xbb; 32],
                source: "/a".into(),
            }]),
            engine: Some(DeltaEngine::FastRsync),
        }),
        "00                                                   # ToReceiver::Open
         00                                                   # purpose: Mirror
         04 64 6f 63 73                                       # module: docs
         02 01 61 02 62 63                                    # path: a, bc
         fe 10 0f 0e 0d 0c 0b 0a 09 08 07 06 05 04 03 02 01   # mirror
         04 2f 73 72 63                                       # source: /src
         05                                                   # incarnation
         01 07 01 01                                          # carried: owner, user, ACL, capability, devices; not the root
         01 aa*32                                             # sum
         01                                                   # protects
         01 00 01                                             # sparing: existing, newer
         01                                                   # whole_files
         02                                                   # recheck: Contents
         01 bb*32 02 2f 61                                    # upstream: one, /a
         01 01                                                # engine: fast_rsync",
    );
    golden(
        ToReceiver::Open(Open {
            purpose: Purpose::Verify,
            module: ModuleName::default(),
            path: RelPath::root(),
            mirror: 0,
            source: Text::default(),
            incarnation: 0,
            carried: Carried::default(),
            sum: None,
            protects: false,
            sparing: Sparing::default(),
            whole_files: false,
            recheck: Recheck::Nothing,
            upstream: Relays::default(),
            engine: None,
        }),
        "00 01             # ToReceiver::Open, purpose: Verify
         00 00 00 00 00    # module, path, mirror, source, incarnation
         00*6              # carried, sum, protects
         00*7              # sparing, whole_files, recheck, upstream, engine",
    );
    golden(
        ToSender::Opened(Opened {
            carried: Carried {
                owner: false,
                ..Carried::default()
            },
            bound: true,
            is_empty: false,
            cursor: Some(cursor()),
            sum: TreeSum([0xdd; 32]),
            root: ObjectId(1),
            root_path: "/r".into(),
            may_delete: true,
            demoted: false,
        }),
        "00               # ToSender::Opened
         00 00 00 00      # carried
         01 00            # bound, is_empty
         01               # cursor
           fe ff*16       #   incarnation
           fa             #   sequence: 250
           cc*32          #   sum
         dd*32            # sum
         01               # root
         02 2f 72         # root_path: /r
         01 00            # may_delete: true, demoted: false",
    );
}

#[test]
fn comparing() {
    golden(
        ToReceiver::List(Directories(vec![
            ObjectId(251),
            ObjectId(65_536),
            ObjectId::FIRST_LOCAL,
        ])),
        "01                              # ToReceiver::List
         03                              # 3 directories
         fb fb 00                        # 251
         fc 00 00 01 00                  # 65,536
         fd 00 00 00 00 00 00 00 80      # 2^63",
    );
    golden(
        ToReceiver::Survey {
            path: RelPath::parse(b"\xff").unwrap(),
            xattrs: XattrClasses::USUAL,
            contents: true,
        },
        "05          # ToReceiver::Survey
         01 01 ff    # path
         07 01       # user, ACL, capability; with contents",
    );
    golden(
        ToReceiver::ListDisk(RelPath::parse(b"\xff").unwrap()),
        "02          # ToReceiver::ListDisk
         01 01 ff    # one name of one byte",
    );
    golden(
        ToReceiver::ReadContents {
            path: RelPath::root(),
            names: Names(vec![Name::new(*b"n").unwrap()]),
            rate: 300,
        },
        "08          # ToReceiver::ReadContents
         00          # the root
         01 01 6e    # one name of one byte
         fb 2c 01    # bytes a second",
    );
    golden(
        ToReceiver::Doubt(Paths(vec![RelPath::parse(b"a/b").unwrap()])),
        "09                # ToReceiver::Doubt
         01                # one path
         02 01 61 01 62    # of two names",
    );
    golden(
        ToSender::Contents(Digests(vec![None])),
        "0d          # ToSender::Contents
         01 00       # of one file, which could not be read",
    );
    golden(
        ToSender::Doubted { changed: 1 },
        "0e          # ToSender::Doubted
         01          # changed",
    );
    golden(ToSender::Changed, "0f          # ToSender::Changed");
    let row = |kind, size, digest, below, entries| Row {
        name: Name::new(*b"n").unwrap(),
        object: ObjectId(9),
        kind,
        attributes: attributes(),
        size,
        digest,
        below,
        entries,
    };
    golden(
        ToSender::Listing {
            rows: Rows(vec![
                row(
                    Kind::File,
                    i64::MAX as u64,
                    Some(Digest([0xbb; 32])),
                    TreeSum::default(),
                    0,
                ),
                row(Kind::Directory, 0, None, TreeSum([0xee; 32]), 3),
                row(Kind::Symlink, 1, None, TreeSum::default(), 0),
            ]),
            last: true,
        },
        "01                                        # ToSender::Listing
         03                                        # 3 rows
           01 6e 09 00                             # name, object, Kind::File
           fb a4 01 fb e8 03 64                    # mode, uid, gid
           01 fc ff c9 9a 3b                       # mtime: -1 s, 999,999,999 ns
           00 00                                   # xattrs: none, link_group: none
           fd ff ff ff ff ff ff ff 7f              # size: the largest
           01 bb*32 00*32 00                       # digest, below, entries
           01 6e 09 01                             # name, object, Kind::Directory
           fb a4 01 fb e8 03 64 01 fc ff c9 9a 3b 00 00  # attributes
           00 00 ee*32 03                          # size, digest, below, entries
           01 6e 09 02                             # name, object, Kind::Symlink
           fb a4 01 fb e8 03 64 01 fc ff c9 9a 3b 00 00  # attributes
           01 00 00*32 00                          # size, digest, below, entries
         01                                        # last",
    );
    golden(
        ToSender::ListingFailed("no".into()),
        "02          # ToSender::ListingFailed
         02 6e 6f    # no",
    );
}

#[test]
fn progress() {
    golden(
        ToReceiver::Flush { number: u64::MAX },
        "03           # ToReceiver::Flush
         fd ff*8      # number",
    );
    golden(
        ToReceiver::ConfirmReceived {
            token: 7,
            through: 300,
        },
        "06           # ToReceiver::ConfirmReceived
         07           # token
         fb 2c 01     # through: 300",
    );
    golden(
        ToReceiver::ConfirmDurable { token: 7 },
        "07           # ToReceiver::ConfirmDurable
         07           # token",
    );
    golden(
        ToSender::Confirmed { token: 7 },
        "0b           # ToSender::Confirmed
         07           # token",
    );
    golden(
        ToSender::Diverged {
            path: RelPath::parse(b"d/f").unwrap(),
            what: Diverged::Removed,
            at: Timestamp::new(1, 2).unwrap(),
        },
        "0c           # ToSender::Diverged
         02 01 64 01 66  # path
         03           # what: Removed
         02 02        # at: 1 s, 2 ns",
    );
    golden(
        ToSender::Progress(Progress {
            applied: 300,
            durable: 2,
            cursor: None,
        }),
        "05           # ToSender::Progress
         fb 2c 01     # applied: 300
         02           # durable
         00           # cursor: none",
    );
    golden(
        ToSender::Ended(Runs(vec![Run {
            first: 302,
            last: 400,
        }])),
        "07           # ToSender::Ended
         01           # 1 run
         fb 2e 01     # first: 302
         fb 90 01     # last: 400",
    );
    let kinds = [
        FailureKind::NoSpace,
        FailureKind::Permission,
        FailureKind::Blocked,
        FailureKind::WrongDigest,
        FailureKind::Mismatch,
        FailureKind::Unsupported,
        FailureKind::Io,
        FailureKind::Basis,
        FailureKind::Refused,
        FailureKind::Withheld,
    ];
    for (tag, kind) in kinds.into_iter().enumerate() {
        golden(
            ToSender::Failed {
                number: 8,
                kind,
                text: "x".into(),
                held: Some((ObjectId(4), EntrySum([0x99; 32]))),
            },
            &format!(
                "06          # ToSender::Failed
                 08          # number
                 {tag:02x}   # {kind:?}
                 01 78       # text: x
                 01 04 99*32 # held"
            ),
        );
    }
}

#[test]
fn wanting() {
    golden(
        ToSender::Need {
            number: 8,
            basis: true,
        },
        "03       # ToSender::Need
         08 01    # number, basis",
    );
    golden(
        ToSender::Signature {
            number: 8,
            part: SignaturePart(vec![1, 2, 3]),
            last: false,
        },
        "04            # ToSender::Signature
         08            # number
         03 01 02 03   # part
         00            # last",
    );
    golden(
        ToSender::SurveyRoot {
            root: None,
            may_set_id: true,
            backs_up_beside: false,
        },
        "0a 00 01 00 # ToSender::SurveyRoot: missing, may_set_id, backs_up_beside",
    );
    golden(
        ToSender::Held {
            number: 8,
            spans: HeldSpans(vec![HeldSpan {
                span: 300,
                sum: [7; 32],
            }]),
        },
        "08                # ToSender::Held
         08                # number
         01 fb 2c 01 07*32 # one span: its number, its sum",
    );
}

#[test]
fn ops() {
    golden(OpFrame::default(), "00 # no messages");
    golden(
        OpFrame(vec![OpMessage::Op(Op {
            number: 300,
            after: 299,
            barrier: true,
            body: OpBody::Mark { sequence: 65_535 },
            xattrs: Xattrs::default(),
        })]),
        "01          # one message
         00          # OpMessage::Op
         fb 2c 01    # number: 300
         fb 2b 01    # after: 299
         01          # barrier
         08          # OpBody::Mark
         fb ff ff    # sequence: 65,535
         00          # xattrs: none",
    );
    const ATTRIBUTES: &str = "fb a4 01 fb e8 03 64 01 fc ff c9 9a 3b 00 00 # attributes";
    golden_op(
        OpBody::MakeDirectory {
            place: place(),
            object: ObjectId(2),
            attributes: attributes(),
        },
        &format!("00 07 01 6e 02 # OpBody::MakeDirectory, place, object\n{ATTRIBUTES}"),
    );
    golden_op(
        OpBody::PutFile {
            place: place(),
            object: ObjectId(2),
            attributes: attributes(),
            content: Content::Inline {
                digest: Digest([0xbb; 32]),
                bytes: InlineContent(b"hi".to_vec()),
            },
        },
        &format!(
            "01 07 01 6e 02 # OpBody::PutFile, place, object
             {ATTRIBUTES}
             00 bb*32       # Content::Inline, digest
             02 68 69       # hi"
        ),
    );
    golden_op(
        OpBody::PutFile {
            place: place(),
            object: ObjectId(2),
            attributes: attributes(),
            content: Content::Offer {
                size: 1 << 32,
                digest: None,
            },
        },
        &format!(
            "01 07 01 6e 02                # OpBody::PutFile, place, object
             {ATTRIBUTES}
             01                            # Content::Offer
             fd 00 00 00 00 01 00 00 00    # size: 2^32
             00                            # digest: none"
        ),
    );
    golden_op(
        OpBody::PutFile {
            place: place(),
            object: ObjectId(2),
            attributes: attributes(),
            content: Content::Copy {
                size: 300,
                digest: Digest([0xaa; 32]),
                from: ObjectId(9),
            },
        },
        &format!(
            "01 07 01 6e 02                # OpBody::PutFile, place, object
             {ATTRIBUTES}
             03                            # Content::Copy
             fb 2c 01 aa*32 09             # size, digest, from"
        ),
    );
    golden_op(
        OpBody::PutFile {
            place: place(),
            object: ObjectId(2),
            attributes: attributes(),
            content: Content::Patch {
                size: 300,
                digest: Digest([0xaa; 32]),
                basis: Digest([0xbb; 32]),
                parts: DeltaParts(vec![
                    DeltaPart::Copy {
                        offset: 1,
                        length: 299,
                    },
                    DeltaPart::Literal { length: 1 },
                ]),
                literals: PatchLiterals(vec![0xcc; 2]),
            },
        },
        &format!(
            "01 07 01 6e 02      # OpBody::PutFile, place, object
             {ATTRIBUTES}
             02                  # Content::Patch
             fb 2c 01            # size: 300
             aa*32 bb*32         # digest, basis
             02                  # 2 parts
             00 01 fb 2b 01      # DeltaPart::Copy, offset, length
             01 01               # DeltaPart::Literal, length
             02 cc*2             # literals"
        ),
    );
    golden_op(
        OpBody::PutSymlink {
            place: place(),
            object: ObjectId(2),
            attributes: Attributes::default(),
            target: LinkTarget(b"../t".to_vec()),
        },
        "02 07 01 6e 02     # OpBody::PutSymlink, place, object
         00*7               # attributes: all zero
         04 2e 2e 2f 74     # target: ../t",
    );
    golden_op(
        OpBody::SetAttributes {
            object: ObjectId(2),
            attributes: attributes(),
        },
        &format!("03 02 # OpBody::SetAttributes, object\n{ATTRIBUTES}"),
    );
    golden_op(
        OpBody::Move {
            object: ObjectId(2),
            to: place(),
        },
        "04 02 07 01 6e # OpBody::Move, object, to",
    );
    golden_op(
        OpBody::Remove {
            object: ObjectId(2),
            place: place(),
        },
        "05 02 07 01 6e # OpBody::Remove, object, place",
    );
    golden_op(
        OpBody::Adopt {
            place: place(),
            object: ObjectId(2),
            assumed: true,
        },
        "06 07 01 6e 02 01 # OpBody::Adopt, place, object, assumed",
    );
    golden_op(
        OpBody::Release {
            object: ObjectId(2),
            place: place(),
        },
        "07 02 07 01 6e # OpBody::Release, object, place",
    );
    golden_op(OpBody::Mark { sequence: 0 }, "08 00 # OpBody::Mark, sequence");
    for (special, pinned) in [
        (Special::Fifo, "00 # Special::Fifo"),
        (
            Special::CharDevice { major: 1, minor: 3 },
            "01 01 03 # Special::CharDevice, major, minor",
        ),
        (
            Special::BlockDevice { major: 7, minor: 300 },
            "02 07 fb 2c 01 # Special::BlockDevice, major, minor",
        ),
    ] {
        golden_op(
            OpBody::PutSpecial {
                place: place(),
                object: ObjectId(2),
                attributes: attributes(),
                special,
            },
            &format!("09 07 01 6e 02 # OpBody::PutSpecial, place, object\n{ATTRIBUTES}\n{pinned}"),
        );
    }
    golden_op(
        OpBody::Link {
            place: place(),
            object: ObjectId(3),
            attributes: Attributes {
                link_group: ObjectId(9),
                ..Attributes::default()
            },
            to: ObjectId(2),
            digest: Digest([0xaa; 32]),
        },
        "0a 07 01 6e 03       # OpBody::Link, place, object
         00 00 00 00 00 00 09 # attributes: group 9
         02 aa*32             # to, digest",
    );
    golden(
        OpFrame(vec![
            OpMessage::Seal(SealOp {
                number: 8,
                size: 9,
                digest: Digest([0xbb; 32]),
                attributes: attributes(),
            }),
            OpMessage::Withdraw { number: 8 },
        ]),
        &format!(
            "02             # two messages
             01 08 09 bb*32 # OpMessage::Seal, number, size, digest
             {ATTRIBUTES}
             02 08          # OpMessage::Withdraw, number"
        ),
    );
}

#[test]
fn ranges() {
    golden_range(
        RangeBody::Raw(RangeBytes(vec![1, 2, 3])),
        "00 03 01 02 03 # RangeBody::Raw",
    );
    golden_range(
        RangeBody::Zstd(RangeBytes(vec![0x28])),
        "01 01 28 # RangeBody::Zstd",
    );
    golden_range(RangeBody::Zeros, "02 # RangeBody::Zeros");
    golden_range(
        RangeBody::Delta {
            parts: DeltaParts(vec![
                DeltaPart::Copy {
                    offset: 251,
                    length: 2,
                },
                DeltaPart::Literal { length: 1 },
            ]),
            literals: RangeBytes(vec![9]),
        },
        "03 02           # RangeBody::Delta, two parts
         00 fb fb 00 02  # DeltaPart::Copy, offset, length
         01 01           # DeltaPart::Literal, length
         01 09           # literals",
    );
    golden_range(RangeBody::Held, "04 # RangeBody::Held");
}

#[test]
fn pairing() {
    golden(
        PairRequest {
            secret: *b"0123456789abcdef",
            name: "laptop".into(),
        },
        "30 31 32 33 34 35 36 37 38 39 61 62 63 64 65 66  # secret, without a length
         06 6c 61 70 74 6f 70                             # name: laptop",
    );
    golden(
        PairReply {
            module: ModuleName(b"m".to_vec()),
            name: "nas".into(),
            is_tree: true,
        },
        "01 6d         # module: m
         03 6e 61 73   # name: nas
         01            # is_tree",
    );
}

#[test]
fn pulling() {
    golden(
        PullRequest {
            tree: ModuleName(b"www".to_vec()),
        },
        "03 77 77 77   # tree: www",
    );
}

#[test]
fn notes() {
    golden(
        Note::Ended {
            session: 300,
            code: 6,
            text: "busy".into(),
        },
        "00               # Ended
         fb 2c 01         #   session: 300
         06               #   code: Busy
         04 62 75 73 79   #   text",
    );
    golden(
        Note::Window {
            session: 7,
            through: 1 << 20,
        },
        "01               # Window
         07               #   session
         fc 00 00 10 00   #   through: 1,048,576",
    );
}

/// The prefix of a frame is big endian, unlike the numbers inside messages.
#[test]
fn frame_prefix() {
    let frame = codec::encode_frame(&ToReceiver::Flush { number: 7 }).unwrap();
    assert_eq!(
        frame,
        dump::bytes("00 00 00 02 # length\n03 07 # ToReceiver::Flush")
    );
}

/// The attributes of an op, and the digest of them.
#[test]
fn extended_attributes() {
    let xattr = |name: &[u8], value: &[u8]| Xattr {
        name: name.to_vec(),
        value: value.to_vec(),
    };
    let xattrs = Xattrs::new(vec![xattr(b"user.b", b""), xattr(b"user.a", b"12")]).unwrap();
    let digest = Digest::of(&dump::bytes(
        "00 06 75 73 65 72 2e 61   # length of the name, big endian, and user.a
         00 00 00 02 31 32         # length of the value, big endian, and 12
         00 06 75 73 65 72 2e 62   # user.b
         00 00 00 00               # empty",
    ));
    assert_eq!(xattrs.digest(), Some(digest));
    let op = Op {
        number: 1,
        after: 0,
        barrier: false,
        body: OpBody::SetAttributes {
            object: ObjectId(2),
            attributes: Attributes {
                xattrs: Some(Digest([0xab; 32])),
                ..Attributes::default()
            },
        },
        xattrs,
    };
    golden(
        OpFrame(vec![OpMessage::Op(op)]),
        "01 00 01 00 00 03 02        # one message, Op, number, after, barrier, SetAttributes, object
         00 00 00 00 00 01 ab*32 00  # attributes: xattrs is there, no group
         02                          # two extended attributes
         06 75 73 65 72 2e 61        # user.a
         02 31 32                    # 12
         06 75 73 65 72 2e 62        # user.b
         00                          # empty",
    );
}

/// Sums are compared between versions, too: their input is as much a part of the wire as any message.
#[test]
fn entry_sums() {
    let digest = Digest::of(b"hi");
    let record = |mode: &str, owner: &str| {
        let head = format!("00 {mode} {owner} ff*8 3b 9a c9 ff 00*7 02");
        [dump::bytes(&head), digest.0.to_vec(), vec![0; 40]].concat()
    };
    let carried = |owner| Carried {
        owner,
        ..Carried::default()
    };
    let sum = |owner| EntrySum::of(Kind::File, attributes(), carried(owner), 2, digest);
    let with_owner = record("01 a4", "00 00 03 e8 00 00 00 64");
    assert_eq!(with_owner.len(), 103);
    assert_eq!(sum(true).0, Digest::of(&with_owner).0);
    assert_eq!(sum(false).0, Digest::of(&record("01 a4", "00*8")).0);
    let with_xattrs = Attributes {
        xattrs: Some(Digest([0xcd; 32])),
        ..attributes()
    };
    assert_eq!(
        EntrySum::of(Kind::File, with_xattrs, carried(true), 2, digest),
        sum(true)
    );
    let all = Carried {
        owner: true,
        xattrs: XattrClasses::USER,
        devices: false,
        leaves_root: false,
    };
    let record = [&with_owner[..63], &[0xcd; 32], &[0; 8]].concat();
    assert_eq!(
        EntrySum::of(Kind::File, with_xattrs, all, 2, digest).0,
        Digest::of(&record).0
    );
    let kinds = [
        (Kind::File, 0),
        (Kind::Directory, 1),
        (Kind::Symlink, 2),
        (Kind::Fifo, 3),
        (Kind::CharDevice, 4),
        (Kind::BlockDevice, 5),
    ];
    for (kind, number) in kinds {
        let zero = EntrySum::of(
            kind,
            Attributes::default(),
            Carried::default(),
            0,
            Digest::default(),
        );
        assert_eq!(
            zero.0,
            Digest::of(&dump::bytes(&format!("{number:02x} 00*102"))).0
        );
    }
}

/// What users and groups are called, and what they are on the receiver.
#[test]
fn owners() {
    let name = |name: &str| OwnerName::new(name).unwrap();
    let row = |kind, id, called| OwnerRow { kind, id, called };
    let rows = || {
        Owners(vec![
            row(OwnerKind::User, 1_000, Called::Name(name("ann"))),
            row(OwnerKind::Group, 100, Called::Given(name("g"))),
            row(OwnerKind::User, 0, Called::Number(33)),
        ])
    };
    let pinned = "03                        # three rows
                  00 fb e8 03 00 03 61 6e 6e # User, 1,000, Called::Name: ann
                  01 64 01 01 67            # Group, 100, Called::Given: g
                  00 00 02 21               # User, 0, Called::Number: 33\n";
    golden(
        ToReceiver::Owners(rows()),
        &format!("04 # ToReceiver::Owners\n{pinned}"),
    );
    golden_op(OpBody::Owners(rows()), &format!("0b # OpBody::Owners\n{pinned}"));
    let here = |kind, id, here| OwnerHere { kind, id, here };
    golden(
        ToSender::Owners(OwnersHere(vec![
            here(OwnerKind::User, 7, Some(8)),
            here(OwnerKind::Group, 9, None),
        ])),
        "09           # ToSender::Owners
         02           # two rows
         00 07 01 08  # User, 7: 8
         01 09 00     # Group, 9: none",
    );
    for bad in ["04 01 00 07 00 00", "04 01 00 07 00 02 61 00"] {
        assert!(codec::decode::<ToReceiver>(&dump::bytes(bad)).is_err(), "{bad}");
    }
}
