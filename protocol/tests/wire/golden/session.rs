//! What is said on the control stream.

use super::*;

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
        ToReceiver::InSync { sequence: 300 },
        "0a          # ToReceiver::InSync
         fb 2c 01    # the number of the journal",
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
