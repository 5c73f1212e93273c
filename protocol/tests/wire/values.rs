//! Strategies for every message type.

use driftless_protocol::codec::{self, Message};
use driftless_protocol::limits::*;
use driftless_protocol::message::*;
use driftless_protocol::{
    Attributes, Carried, Digest, EntrySum, Kind, Name, ObjectId, RelPath, Timestamp, TreeSum,
};
use driftless_protocol::{Called, OwnerHere, OwnerKind, OwnerName, OwnerRow, Owners, OwnersHere};
use driftless_protocol::{Special, Xattr, XattrClasses, Xattrs};
use proptest::prelude::*;

/// How far values may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Only what may be sent.
    Within,
    /// Also what Rust's types hold, but the wire does not.
    Beyond,
}
use Reach::Within;

impl Reach {
    /// The largest length to try where `max` is allowed.
    fn most(self, max: usize) -> usize {
        if self == Within { max } else { max + 2 }
    }
}

fn bytes(max: usize, reach: Reach) -> BoxedStrategy<Vec<u8>> {
    prop_oneof![
        12 => prop::collection::vec(any::<u8>(), 0..=40),
        1 => (max - 1..=reach.most(max), any::<u8>()).prop_map(|(length, byte)| vec![byte; length]),
    ]
    .boxed()
}

fn list<S: Strategy + 'static>(
    element: S,
    max: usize,
    filler: S::Value,
    reach: Reach,
) -> BoxedStrategy<Vec<S::Value>>
where
    S::Value: Clone + 'static,
{
    prop_oneof![
        12 => prop::collection::vec(element, 0..=5),
        1 => (max - 1..=reach.most(max)).prop_map(move |length| vec![filler.clone(); length]),
    ]
    .boxed()
}

/// Numbers of all encoded lengths, and those where the length changes.
fn number() -> BoxedStrategy<u64> {
    let edges = [
        250,
        251,
        252,
        0xffff,
        0x1_0000,
        0xffff_ffff,
        0x1_0000_0000,
        i64::MAX as u64,
        u64::MAX,
    ];
    prop_oneof![0u64..300, prop::sample::select(edges.to_vec()), any::<u64>()].boxed()
}

fn size(reach: Reach) -> BoxedStrategy<u64> {
    number()
        .prop_map(move |size| {
            if reach == Within {
                size & FILE_BYTES_MAX
            } else {
                size
            }
        })
        .boxed()
}

fn object() -> BoxedStrategy<ObjectId> {
    number().prop_map(ObjectId).boxed()
}

fn name() -> BoxedStrategy<Name> {
    prop_oneof![8 => prop::collection::vec(any::<u8>(), 1..12), 1 => Just(vec![b'x'; NAME_BYTES_MAX])]
        .prop_filter_map("not a name", |bytes| Name::new(bytes).ok())
        .boxed()
}

fn path(reach: Reach) -> BoxedStrategy<RelPath> {
    list(name(), PATH_ELEMENTS_MAX, Name::new(*b"d").unwrap(), reach)
        .prop_map(|mut names| {
            let beyond = names.split_off(names.len().min(PATH_ELEMENTS_MAX));
            let path = RelPath::from_names(names).unwrap();
            beyond.iter().fold(path, |path, name| path.join(name))
        })
        .boxed()
}

fn timestamp() -> impl Strategy<Value = Timestamp> + 'static {
    (any::<i64>(), 0u32..1_000_000_000)
        .prop_map(|(seconds, nanoseconds)| Timestamp::new(seconds, nanoseconds).unwrap())
}

fn attributes(reach: Reach) -> BoxedStrategy<Attributes> {
    let mode = if reach == Within {
        0..=MODE_MAX
    } else {
        0..=u16::MAX
    };
    (
        mode,
        any::<u32>(),
        any::<u32>(),
        any::<i64>(),
        0u32..1_000_000_000,
        prop::option::of(digest()),
        object(),
    )
        .prop_map(|(mode, uid, gid, seconds, nanoseconds, xattrs, link_group)| {
            let mtime = Timestamp::new(seconds, nanoseconds).unwrap();
            Attributes {
                mode,
                uid,
                gid,
                mtime,
                xattrs,
                link_group,
            }
        })
        .boxed()
}

fn special() -> BoxedStrategy<Special> {
    let numbers = (any::<u32>(), any::<u32>());
    prop_oneof![
        Just(Special::Fifo),
        numbers.prop_map(|(major, minor)| Special::CharDevice { major, minor }),
        numbers.prop_map(|(major, minor)| Special::BlockDevice { major, minor }),
    ]
    .boxed()
}

fn carried() -> BoxedStrategy<Carried> {
    (any::<bool>(), any::<u8>(), any::<bool>(), any::<bool>())
        .prop_map(|(owner, classes, devices, leaves_root)| Carried {
            owner,
            devices,
            leaves_root,
            xattrs: XattrClasses(classes),
        })
        .boxed()
}

fn xattrs(reach: Reach) -> BoxedStrategy<Xattrs> {
    let name = prop::collection::vec(1u8..=255, 1..9);
    let value = match reach {
        Within => prop::collection::vec(any::<u8>(), 0..20).boxed(),
        _ => prop_oneof![9 => prop::collection::vec(any::<u8>(), 0..20), 1 => Just(vec![7; XATTR_VALUE_BYTES_MAX])].boxed(),
    };
    prop::collection::btree_map(name, value, 0..4)
        .prop_map(|pairs| {
            let list = pairs.into_iter().map(|(name, value)| Xattr { name, value });
            Xattrs::new(list.collect()).unwrap()
        })
        .boxed()
}

fn digest() -> BoxedStrategy<Digest> {
    any::<[u8; 32]>().prop_map(Digest).boxed()
}

fn tree_sum() -> BoxedStrategy<TreeSum> {
    any::<[u8; 32]>().prop_map(TreeSum).boxed()
}

fn text(reach: Reach) -> BoxedStrategy<Text> {
    bytes(TEXT_BYTES_MAX, reach).prop_map(Text).boxed()
}

fn relays(reach: Reach) -> BoxedStrategy<Relays> {
    let relay = (any::<[u8; 32]>(), text(reach)).prop_map(|(peer, source)| Relay { peer, source });
    prop::collection::vec(relay, 0..=RELAYS_MAX)
        .prop_map(Relays)
        .boxed()
}

fn module(reach: Reach) -> BoxedStrategy<ModuleName> {
    bytes(MODULE_NAME_BYTES_MAX, reach).prop_map(ModuleName).boxed()
}

fn place() -> BoxedStrategy<Place> {
    (object(), name())
        .prop_map(|(directory, name)| Place { directory, name })
        .boxed()
}

fn cursor() -> BoxedStrategy<Option<Cursor>> {
    let cursor = (any::<u128>(), number(), tree_sum()).prop_map(|(incarnation, sequence, sum)| Cursor {
        incarnation,
        sequence,
        sum,
    });
    prop::option::of(cursor).boxed()
}

fn open(reach: Reach) -> BoxedStrategy<Open> {
    let purpose = prop_oneof![
        Just(Purpose::Mirror),
        Just(Purpose::Verify),
        Just(Purpose::Survey),
        Just(Purpose::Forget),
        Just(Purpose::Divergence)
    ];
    let recheck = prop_oneof![
        Just(Recheck::Nothing),
        Just(Recheck::Attributes),
        Just(Recheck::Contents)
    ];
    let ids = (any::<u128>(), any::<u128>());
    let engine = prop::option::of(prop_oneof![
        Just(DeltaEngine::Driftless),
        Just(DeltaEngine::FastRsync)
    ]);
    (
        purpose,
        module(reach),
        path(reach),
        ids,
        text(reach),
        carried(),
        prop::option::of(tree_sum()),
        (any::<bool>(), recheck, relays(reach), engine),
        any::<[bool; 4]>(),
    )
        .prop_map(
            |(
                purpose,
                module,
                path,
                (mirror, incarnation),
                source,
                carried,
                sum,
                (protects, recheck, upstream, engine),
                sparing,
            )| Open {
                purpose,
                module,
                path,
                mirror,
                source,
                incarnation,
                carried,
                sum,
                protects,
                sparing: Sparing {
                    existing: sparing[0],
                    missing: sparing[1],
                    newer: sparing[2],
                },
                whole_files: sparing[3],
                recheck,
                upstream,
                engine,
            },
        )
        .boxed()
}

pub(crate) fn to_receiver(reach: Reach) -> BoxedStrategy<ToReceiver> {
    prop_oneof![
        open(reach).prop_map(ToReceiver::Open),
        list(object(), LIST_DIRECTORIES_MAX, ObjectId(u64::MAX), reach)
            .prop_map(|directories| ToReceiver::List(Directories(directories))),
        path(reach).prop_map(ToReceiver::ListDisk),
        number().prop_map(|number| ToReceiver::Flush { number }),
        owners(reach).prop_map(ToReceiver::Owners),
        (path(reach), 0..=XattrClasses::ALL.0, any::<bool>()).prop_map(|(path, xattrs, contents)| {
            ToReceiver::Survey {
                path,
                xattrs: XattrClasses(xattrs),
                contents,
            }
        }),
        (number(), number()).prop_map(|(token, through)| ToReceiver::ConfirmReceived { token, through }),
        number().prop_map(|token| ToReceiver::ConfirmDurable { token }),
        (
            path(reach),
            list(name(), CONTENTS_NAMES_MAX, Name::new(*b"n").unwrap(), reach),
            number()
        )
            .prop_map(|(path, names, rate)| ToReceiver::ReadContents {
                path,
                names: Names(names),
                rate
            }),
        list(path(Reach::Within), DOUBTED_PATHS_MAX, RelPath::root(), reach)
            .prop_map(|paths| ToReceiver::Doubt(Paths(paths))),
        number().prop_map(|sequence| ToReceiver::InSync { sequence }),
    ]
    .boxed()
}

fn owner_kind() -> impl Strategy<Value = OwnerKind> {
    prop::sample::select(vec![OwnerKind::User, OwnerKind::Group])
}

fn owners(reach: Reach) -> BoxedStrategy<Owners> {
    let name = || {
        prop::collection::vec(1u8..=255, 1..=OWNER_NAME_BYTES_MAX)
            .prop_map(|bytes| OwnerName::new(bytes).unwrap())
    };
    let called = prop_oneof![
        name().prop_map(Called::Name),
        name().prop_map(Called::Given),
        any::<u32>().prop_map(Called::Number),
    ];
    let row =
        (owner_kind(), any::<u32>(), called).prop_map(|(kind, id, called)| OwnerRow { kind, id, called });
    let longest = OwnerRow {
        kind: OwnerKind::Group,
        id: u32::MAX,
        called: Called::Given(OwnerName::new(vec![b'x'; OWNER_NAME_BYTES_MAX]).unwrap()),
    };
    list(row, OWNERS_MAX, longest, reach).prop_map(Owners).boxed()
}

fn owners_here(reach: Reach) -> BoxedStrategy<OwnersHere> {
    let row = (owner_kind(), any::<u32>(), any::<Option<u32>>()).prop_map(|(kind, id, here)| OwnerHere {
        kind,
        id,
        here,
    });
    let longest = OwnerHere {
        kind: OwnerKind::Group,
        id: u32::MAX,
        here: Some(u32::MAX),
    };
    list(row, OWNERS_MAX, longest, reach).prop_map(OwnersHere).boxed()
}

fn row(reach: Reach) -> BoxedStrategy<Row> {
    let kind = prop::sample::select(vec![
        Kind::File,
        Kind::Directory,
        Kind::Symlink,
        Kind::Fifo,
        Kind::CharDevice,
        Kind::BlockDevice,
    ]);
    let digest = prop::option::of(digest());
    (
        name(),
        object(),
        kind,
        attributes(reach),
        size(reach),
        digest,
        tree_sum(),
        number(),
    )
        .prop_map(
            |(name, object, kind, attributes, size, digest, below, entries)| Row {
                name,
                object,
                kind,
                attributes,
                size,
                digest,
                below,
                entries,
            },
        )
        .boxed()
}

/// The row with the longest encoding.
pub(crate) fn longest_row() -> Row {
    Row {
        name: Name::new(vec![0xff; NAME_BYTES_MAX]).unwrap(),
        object: ObjectId(u64::MAX),
        kind: Kind::File,
        attributes: Attributes {
            mode: MODE_MAX,
            uid: u32::MAX,
            gid: u32::MAX,
            mtime: Timestamp::new(i64::MIN, 999_999_999).unwrap(),
            xattrs: Some(Digest([0xff; 32])),
            link_group: ObjectId(u64::MAX),
        },
        size: FILE_BYTES_MAX,
        digest: Some(Digest::default()),
        below: TreeSum::default(),
        entries: u64::MAX,
    }
}

fn opened(reach: Reach) -> BoxedStrategy<Opened> {
    (
        carried(),
        any::<(bool, bool, bool, bool)>(),
        cursor(),
        tree_sum(),
        object(),
        text(reach),
    )
        .prop_map(
            |(carried, (bound, is_empty, may_delete, demoted), cursor, sum, root, root_path)| Opened {
                carried,
                bound,
                is_empty,
                cursor,
                sum,
                root,
                root_path,
                may_delete,
                demoted,
            },
        )
        .boxed()
}

fn failed(reach: Reach) -> BoxedStrategy<ToSender> {
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
    let held = prop::option::of((object(), any::<[u8; 32]>().prop_map(EntrySum)));
    (number(), prop::sample::select(kinds.to_vec()), text(reach), held)
        .prop_map(|(number, kind, text, held)| ToSender::Failed {
            number,
            kind,
            text,
            held,
        })
        .boxed()
}

fn held_span() -> impl Strategy<Value = HeldSpan> {
    (number(), any::<[u8; 32]>()).prop_map(|(span, sum)| HeldSpan { span, sum })
}

pub(crate) fn to_sender(reach: Reach) -> BoxedStrategy<ToSender> {
    prop_oneof![
        opened(reach).prop_map(ToSender::Opened),
        (
            list(row(reach), LISTING_ROWS_MAX, longest_row(), reach),
            any::<bool>()
        )
            .prop_map(|(rows, last)| ToSender::Listing {
                rows: Rows(rows),
                last
            }),
        text(reach).prop_map(ToSender::ListingFailed),
        owners_here(reach).prop_map(ToSender::Owners),
        (number(), any::<bool>()).prop_map(|(number, basis)| ToSender::Need { number, basis }),
        (number(), bytes(SIGNATURE_PART_BYTES_MAX, reach), any::<bool>()).prop_map(|(number, part, last)| {
            ToSender::Signature {
                number,
                part: SignaturePart(part),
                last,
            }
        }),
        (number(), number(), cursor()).prop_map(|(applied, durable, cursor)| ToSender::Progress(Progress {
            applied,
            durable,
            cursor
        })),
        failed(reach),
        (prop::option::of(attributes(reach)), any::<bool>(), any::<bool>()).prop_map(
            |(root, may_set_id, backs_up_beside)| ToSender::SurveyRoot {
                root,
                may_set_id,
                backs_up_beside
            }
        ),
        list(
            run(),
            ENDED_RUNS_MAX,
            Run {
                first: u64::MAX,
                last: u64::MAX
            },
            reach
        )
        .prop_map(|runs| ToSender::Ended(Runs(runs))),
        (
            number(),
            list(
                held_span(),
                HELD_SPANS_MAX,
                HeldSpan {
                    span: u64::MAX,
                    sum: [0xff; 32]
                },
                reach
            )
        )
            .prop_map(|(number, spans)| ToSender::Held {
                number,
                spans: HeldSpans(spans)
            }),
        number().prop_map(|token| ToSender::Confirmed { token }),
        (path(reach), diverged(), timestamp()).prop_map(|(path, what, at)| ToSender::Diverged {
            path,
            what,
            at
        }),
        list(prop::option::of(digest()), CONTENTS_NAMES_MAX, None, reach)
            .prop_map(|digests| ToSender::Contents(Digests(digests))),
        number().prop_map(|changed| ToSender::Doubted { changed }),
        Just(ToSender::Changed),
    ]
    .boxed()
}

fn diverged() -> impl Strategy<Value = Diverged> + 'static {
    prop_oneof![
        Just(Diverged::Made),
        Just(Diverged::Changed),
        Just(Diverged::Attributes),
        Just(Diverged::Removed)
    ]
}

fn run() -> impl Strategy<Value = Run> + 'static {
    (1..=u64::MAX, 1..=u64::MAX).prop_map(|(a, b)| Run {
        first: a.min(b),
        last: a.max(b),
    })
}

fn content(reach: Reach) -> BoxedStrategy<Content> {
    prop_oneof![
        (digest(), bytes(INLINE_CONTENT_BYTES_MAX, reach)).prop_map(|(digest, bytes)| Content::Inline {
            digest,
            bytes: InlineContent(bytes)
        }),
        (size(reach), prop::option::of(digest())).prop_map(|(size, digest)| Content::Offer { size, digest }),
        (size(reach), digest(), object()).prop_map(|(size, digest, from)| Content::Copy {
            size,
            digest,
            from
        }),
        (
            size(reach),
            digest(),
            digest(),
            delta_parts(reach),
            bytes(PATCH_LITERALS_BYTES_MAX, reach)
        )
            .prop_map(|(size, digest, basis, parts, literals)| Content::Patch {
                size,
                digest,
                basis,
                parts: DeltaParts(parts),
                literals: PatchLiterals(literals),
            }),
    ]
    .boxed()
}

fn body(reach: Reach) -> BoxedStrategy<OpBody> {
    let put = || (place(), object(), attributes(reach));
    prop_oneof![
        put().prop_map(|(place, object, attributes)| OpBody::MakeDirectory {
            place,
            object,
            attributes
        }),
        (put(), content(reach)).prop_map(|((place, object, attributes), content)| OpBody::PutFile {
            place,
            object,
            attributes,
            content
        }),
        (put(), bytes(LINK_TARGET_BYTES_MAX, reach)).prop_map(|((place, object, attributes), target)| {
            OpBody::PutSymlink {
                place,
                object,
                attributes,
                target: LinkTarget(target),
            }
        }),
        (object(), attributes(reach))
            .prop_map(|(object, attributes)| OpBody::SetAttributes { object, attributes }),
        (object(), place()).prop_map(|(object, to)| OpBody::Move { object, to }),
        (object(), place()).prop_map(|(object, place)| OpBody::Remove { object, place }),
        (place(), object(), any::<bool>()).prop_map(|(place, object, assumed)| OpBody::Adopt {
            place,
            object,
            assumed
        }),
        (object(), place()).prop_map(|(object, place)| OpBody::Release { object, place }),
        number().prop_map(|sequence| OpBody::Mark { sequence }),
        owners(reach).prop_map(OpBody::Owners),
        (place(), object(), attributes(reach), special()).prop_map(|(place, object, attributes, special)| {
            OpBody::PutSpecial {
                place,
                object,
                attributes,
                special,
            }
        }),
        (place(), object(), attributes(reach), object(), digest()).prop_map(
            |(place, object, attributes, to, digest)| OpBody::Link {
                place,
                object,
                attributes,
                to,
                digest,
            }
        ),
    ]
    .boxed()
}

fn op_message(reach: Reach) -> BoxedStrategy<OpMessage> {
    let op = (number(), number(), any::<bool>(), body(reach), xattrs(reach)).prop_map(
        |(number, after, barrier, body, xattrs)| {
            OpMessage::Op(Op {
                number,
                after,
                barrier,
                body,
                xattrs,
            })
        },
    );
    let seal = (number(), size(reach), digest(), attributes(reach)).prop_map(
        |(number, size, digest, attributes)| {
            OpMessage::Seal(SealOp {
                number,
                size,
                digest,
                attributes,
            })
        },
    );
    prop_oneof![8 => op, 1 => seal, 1 => number().prop_map(|number| OpMessage::Withdraw { number })].boxed()
}

pub(crate) fn op_frame(reach: Reach) -> BoxedStrategy<OpFrame> {
    list(
        op_message(reach),
        OPS_PER_FRAME_MAX,
        OpMessage::Withdraw { number: 1 },
        reach,
    )
    .prop_map(OpFrame)
    .boxed()
}

fn delta_parts(reach: Reach) -> BoxedStrategy<Vec<DeltaPart>> {
    let part = prop_oneof![
        (number(), any::<u32>()).prop_map(|(offset, length)| DeltaPart::Copy { offset, length }),
        any::<u32>().prop_map(|length| DeltaPart::Literal { length }),
    ];
    let longest = DeltaPart::Copy {
        offset: u64::MAX,
        length: u32::MAX,
    };
    list(part, DELTA_PARTS_MAX, longest, reach)
}

fn range_body(reach: Reach) -> BoxedStrategy<RangeBody> {
    let bytes = || bytes(RANGE_BYTES_MAX, reach).prop_map(RangeBytes);
    prop_oneof![
        bytes().prop_map(RangeBody::Raw),
        bytes().prop_map(RangeBody::Zstd),
        Just(RangeBody::Zeros),
        Just(RangeBody::Held),
        (delta_parts(reach), bytes()).prop_map(|(parts, literals)| {
            RangeBody::Delta {
                parts: DeltaParts(parts),
                literals,
            }
        }),
    ]
    .boxed()
}

pub(crate) fn bulk_frame(reach: Reach) -> BoxedStrategy<BulkFrame> {
    let most = RANGE_BYTES_MAX as u32;
    let length = if reach == Within { 0..=most } else { 0..=2 * most };
    (number(), size(reach), length, range_body(reach))
        .prop_map(move |(number, offset, length, body)| {
            let last = FILE_BYTES_MAX - u64::from(length);
            let offset = if reach == Within { offset.min(last) } else { offset };
            BulkFrame {
                number,
                offset,
                length,
                body,
            }
        })
        .boxed()
}

pub(crate) fn pair_request(reach: Reach) -> BoxedStrategy<PairRequest> {
    (any::<[u8; PAIRING_SECRET_BYTES]>(), text(reach))
        .prop_map(|(secret, name)| PairRequest { secret, name })
        .boxed()
}

pub(crate) fn pair_reply(reach: Reach) -> BoxedStrategy<PairReply> {
    (module(reach), text(reach), any::<bool>())
        .prop_map(|(module, name, is_tree)| PairReply {
            module,
            name,
            is_tree,
        })
        .boxed()
}

pub(crate) fn pull_request(reach: Reach) -> BoxedStrategy<PullRequest> {
    module(reach).prop_map(|tree| PullRequest { tree }).boxed()
}

pub(crate) fn note(reach: Reach) -> BoxedStrategy<Note> {
    prop_oneof![
        (any::<u64>(), any::<u32>(), text(reach)).prop_map(|(session, code, text)| Note::Ended {
            session,
            code,
            text,
        }),
        (any::<u64>(), any::<u64>()).prop_map(|(session, through)| Note::Window { session, through }),
    ]
    .boxed()
}

/// Valid encodings of any message, by the one decoder that has to take them.
pub(crate) fn encoded() -> BoxedStrategy<Vec<u8>> {
    fn of<M: Message + std::fmt::Debug + 'static>(values: BoxedStrategy<M>) -> BoxedStrategy<Vec<u8>> {
        values
            .prop_filter_map("too long together", |value| codec::encode(&value).ok())
            .boxed()
    }
    prop_oneof![
        of(to_receiver(Within)),
        of(to_sender(Within)),
        of(op_frame(Within)),
        of(bulk_frame(Within)),
        of(pair_request(Within)),
        of(pair_reply(Within)),
        of(pull_request(Within)),
        of(note(Within)),
    ]
    .boxed()
}
