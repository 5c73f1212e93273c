//! Each limit: what is at it is accepted, what is over it is refused, by both sides.

use crate::lists::{LISTS, lies};
use crate::{dump, values};
use driftless_protocol::codec::{self, CodecFault, Message};
use driftless_protocol::limits::*;
use driftless_protocol::message::*;
use driftless_protocol::{Attributes, Digest, Name, ObjectId, RelPath, Timestamp};
use driftless_protocol::{Xattr, Xattrs};

#[test]
fn s08_lists_and_bytes_stop_at_their_limits() {
    for list in LISTS {
        assert_eq!(
            list.decode(list.max as u64, list.max),
            Ok(()),
            "{} at its limit",
            list.what
        );
        let over = list.decode(list.max as u64 + 1, list.max + 1);
        assert!(over.is_err(), "{} over its limit was accepted", list.what);
    }
}

#[test]
fn x04_counts_that_lie_are_refused() {
    for list in LISTS {
        for count in lies(list.max) {
            for elements in [0, 1, list.max.min(300)] {
                let outcome = list.decode(count, elements);
                assert!(
                    matches!(outcome, Err(CodecFault::Malformed { .. })),
                    "{}: {count}",
                    list.what
                );
            }
        }
        // Lies within the limit, up and down. (More bytes than claimed can still be something else that is legal.)
        assert!(
            list.decode(list.max as u64, list.max - 1).is_err(),
            "{}",
            list.what
        );
        assert!(
            list.decode(list.max as u64 - 1, list.max).is_err(),
            "{}",
            list.what
        );
    }
}

fn refused<M: Message>(message: M, what: &str) {
    assert!(codec::encode(&message).is_err(), "{what} was encoded");
}

fn put_symlink(target: Vec<u8>, attributes: Attributes) -> OpFrame {
    op(OpBody::PutSymlink {
        place: place(),
        object: ObjectId(2),
        attributes,
        target: LinkTarget(target),
    })
}

fn put_file(content: Content) -> OpFrame {
    op(OpBody::PutFile {
        place: place(),
        object: ObjectId(2),
        attributes: Attributes::default(),
        content,
    })
}

fn op(body: OpBody) -> OpFrame {
    OpFrame(vec![OpMessage::Op(Op {
        number: 1,
        after: 0,
        barrier: false,
        body,
        xattrs: Xattrs::default(),
    })])
}

fn place() -> Place {
    Place {
        directory: ObjectId::ROOT,
        name: Name::new(*b"n").unwrap(),
    }
}

fn range(offset: u64, length: u32, body: RangeBody) -> BulkFrame {
    BulkFrame {
        number: 1,
        offset,
        length,
        body,
    }
}

#[test]
fn s08_the_encoder_refuses_what_is_over_a_limit() {
    let over = |max: usize| vec![b'a'; max + 1];
    refused(
        ToReceiver::List(Directories(vec![ObjectId::ROOT; LIST_DIRECTORIES_MAX + 1])),
        "List",
    );
    let deep = RelPath::from_names(vec![Name::new(*b"d").unwrap(); PATH_ELEMENTS_MAX]).unwrap();
    refused(
        ToReceiver::ListDisk(deep.join(&Name::new(*b"d").unwrap())),
        "a deep path",
    );
    refused(ToSender::ListingFailed(Text(over(TEXT_BYTES_MAX))), "Text");
    let part = SignaturePart(over(SIGNATURE_PART_BYTES_MAX));
    refused(
        ToSender::Signature {
            number: 1,
            part,
            last: true,
        },
        "Signature",
    );
    let span = HeldSpan {
        span: 1,
        sum: [0; 32],
    };
    let spans = HeldSpans(vec![span; HELD_SPANS_MAX + 1]);
    refused(ToSender::Held { number: 1, spans }, "Held");
    let rows = Rows(vec![values::longest_row(); LISTING_ROWS_MAX + 1]);
    refused(ToSender::Listing { rows, last: true }, "Listing");
    refused(
        OpFrame(vec![OpMessage::Withdraw { number: 1 }; OPS_PER_FRAME_MAX + 1]),
        "OpFrame",
    );
    refused(
        put_symlink(over(LINK_TARGET_BYTES_MAX), Attributes::default()),
        "LinkTarget",
    );
    let bytes = InlineContent(over(INLINE_CONTENT_BYTES_MAX));
    refused(
        put_file(Content::Inline {
            digest: Digest::default(),
            bytes,
        }),
        "InlineContent",
    );
    refused(
        range(0, 1, RangeBody::Raw(RangeBytes(over(RANGE_BYTES_MAX)))),
        "Raw",
    );
    refused(
        range(0, 1, RangeBody::Zstd(RangeBytes(over(RANGE_BYTES_MAX)))),
        "Zstd",
    );
    let parts = DeltaParts(vec![DeltaPart::Literal { length: 1 }; DELTA_PARTS_MAX + 1]);
    refused(
        range(
            0,
            1,
            RangeBody::Delta {
                parts,
                literals: RangeBytes::default(),
            },
        ),
        "DeltaParts",
    );
    refused(
        PairReply {
            module: ModuleName(over(MODULE_NAME_BYTES_MAX)),
            name: Text::default(),
            is_tree: false,
        },
        "ModuleName",
    );
    refused(
        PullRequest {
            tree: ModuleName(over(MODULE_NAME_BYTES_MAX)),
        },
        "ModuleName",
    );
}

/// the set as a whole has a limit, too, and an order.
#[test]
fn x08_sets_of_extended_attributes_stop_at_their_limits() {
    let set = |count: usize, bytes: usize| {
        let list = (0..count).map(|number| Xattr {
            name: format!("user.{number:04}").into_bytes(),
            value: vec![1; bytes],
        });
        Xattrs::new(list.collect())
    };
    let frame = |xattrs: Xattrs| {
        OpFrame(vec![OpMessage::Op(Op {
            number: 1,
            after: 0,
            barrier: false,
            body: OpBody::Mark { sequence: 0 },
            xattrs,
        })])
    };
    accepted(&frame(set(XATTRS_MAX, 20).unwrap()));
    assert!(set(XATTRS_MAX + 1, 0).is_err());
    let full = XATTR_SET_BYTES_MAX / 4 - b"user.0000".len();
    accepted(&frame(set(4, full).unwrap()));
    assert!(set(4, full + 1).is_err());
    assert!(set(1, XATTR_VALUE_BYTES_MAX).is_ok() && set(1, XATTR_VALUE_BYTES_MAX + 1).is_err());
    // The same from a peer whose encoder does not care: too much in all, out of order, twice, without a name.
    let head = "01 00 01 00 00 08 00";
    let value = format!("fc 00 00 01 00 61*{XATTR_VALUE_BYTES_MAX}");
    let four: String = (b'a'..=b'd')
        .map(|name| format!(" 01 {name:02x} {value}"))
        .collect();
    for body in [
        format!("04 {four}"),
        "02 01 62 00 01 61 00".to_owned(),
        "02 01 61 00 01 61 00".to_owned(),
        "01 00 00".to_owned(),
        "01 01 00 00".to_owned(),
    ] {
        assert!(!is_op_frame(&dump::bytes(&format!("{head} {body}"))));
    }
    assert!(is_op_frame(&dump::bytes(&format!("{head} 02 01 61 00 01 62 00"))));
}

/// S-24: numbers that are out of range, in both directions.
#[test]
fn s24_numbers_stop_at_their_limits() {
    let attributes = |mode| Attributes {
        mode,
        ..Attributes::default()
    };
    let seal = |size| {
        let (digest, attributes) = (Digest::default(), Attributes::default());
        OpFrame(vec![OpMessage::Seal(SealOp {
            number: 1,
            size,
            digest,
            attributes,
        })])
    };
    let row = |size| ToSender::Listing {
        rows: Rows(vec![Row {
            size,
            ..values::longest_row()
        }]),
        last: true,
    };
    let offer = |size| put_file(Content::Offer { size, digest: None });
    let zeros = |offset, length| range(offset, length, RangeBody::Zeros);
    let most = RANGE_BYTES_MAX as u32;

    accepted(&put_symlink(Vec::new(), attributes(MODE_MAX)));
    accepted(&seal(FILE_BYTES_MAX));
    accepted(&row(FILE_BYTES_MAX));
    accepted(&offer(FILE_BYTES_MAX));
    accepted(&zeros(FILE_BYTES_MAX - u64::from(most), most));
    accepted(&zeros(FILE_BYTES_MAX, 0));

    refused(
        put_symlink(Vec::new(), attributes(MODE_MAX + 1)),
        "a mode with a type in it",
    );
    refused(seal(FILE_BYTES_MAX + 1), "a seal's size");
    refused(row(FILE_BYTES_MAX + 1), "a row's size");
    refused(offer(FILE_BYTES_MAX + 1), "an offer's size");
    refused(zeros(0, most + 1), "a range's length");
    refused(zeros(FILE_BYTES_MAX, 1), "a range's end");
    refused(zeros(u64::MAX, 1), "a range's end that overflows");

    // The same from a peer whose encoder does not care.
    let set_attributes = "01 00 01 00 00 03 02";
    type Decides = fn(&[u8]) -> bool;
    let cases: [(&str, Decides); 8] = [
        ("fb 00 10 00 00 00 00", is_op_frame), // mode 0o10000
        ("fb ff ff 00 00 00 00", is_op_frame),
        ("00 00 00 00 fc 00 ca 9a 3b", is_op_frame), // 1,000,000,000 ns
        ("00 00 00 00 fc ff*4", is_op_frame),
        ("01 00 fc 01 00 10 00 02", is_bulk_frame), // length: 2^20 + 1
        ("01 fd ff*8 01 02", is_bulk_frame),
        ("01 fd ff*7 7f 01 02", is_bulk_frame), // offset: 2^63 - 1, length: 1
        ("01 fd 00*7 80 00 02", is_bulk_frame), // offset: 2^63
    ];
    for (number, (body, is_accepted)) in cases.into_iter().enumerate() {
        let (head, tail) = if number < 4 {
            (set_attributes, "00 00 00")
        } else {
            ("", "")
        };
        assert!(
            !is_accepted(&dump::bytes(&format!("{head} {body} {tail}"))),
            "{body}"
        );
    }
    assert!(is_op_frame(&dump::bytes(&format!(
        "{set_attributes} fb ff 0f 00 00 00 fc ff c9 9a 3b 00 00 00"
    ))));
    assert!(is_bulk_frame(&dump::bytes("01 fd ff*7 7f 00 02")));
    let sealed = "01 01 01 fd 00*7 80 00*32 00*7";
    assert!(!is_op_frame(&dump::bytes(sealed)), "a seal of 2^63 bytes");
    let offered = "01 00 01 00 00 01 07 01 6e 02 00*7 01 fd 00*7 80 00 00";
    assert!(!is_op_frame(&dump::bytes(offered)), "an offer of 2^63 bytes");
}

fn is_op_frame(bytes: &[u8]) -> bool {
    codec::decode::<OpFrame>(bytes).is_ok()
}

fn is_bulk_frame(bytes: &[u8]) -> bool {
    codec::decode::<BulkFrame>(bytes).is_ok()
}

fn accepted<M: Message + PartialEq + std::fmt::Debug>(message: &M) -> usize {
    let bytes = codec::encode(message).unwrap();
    assert_eq!(codec::decode::<M>(&bytes).as_ref(), Ok(message));
    bytes.len()
}

/// The limits of parts and those of their messages fit together.
#[test]
fn x01_full_messages_are_accepted() {
    accepted(&ToSender::Listing {
        rows: Rows(vec![values::longest_row(); LISTING_ROWS_MAX]),
        last: false,
    });
    accepted(&ToReceiver::List(Directories(vec![
        ObjectId(u64::MAX);
        LIST_DIRECTORIES_MAX
    ])));
    let part = SignaturePart(vec![0; SIGNATURE_PART_BYTES_MAX]);
    accepted(&ToSender::Signature {
        number: u64::MAX,
        part,
        last: false,
    });
    let span = HeldSpan {
        span: u64::MAX,
        sum: [0xff; 32],
    };
    accepted(&ToSender::Held {
        number: u64::MAX,
        spans: HeldSpans(vec![span; HELD_SPANS_MAX]),
    });
    let bytes = InlineContent(vec![0; INLINE_CONTENT_BYTES_MAX]);
    accepted(&put_file(Content::Inline {
        digest: Digest::default(),
        bytes,
    }));
    let parts = DeltaParts(vec![
        DeltaPart::Copy {
            offset: u64::MAX,
            length: u32::MAX
        };
        DELTA_PARTS_MAX
    ]);
    accepted(&largest_patch(parts.clone()));
    let literals = RangeBytes(vec![0; RANGE_BYTES_MAX]);
    accepted(&BulkFrame {
        number: u64::MAX,
        offset: 0,
        length: RANGE_BYTES_MAX as u32,
        body: RangeBody::Delta { parts, literals },
    });
    accepted(&PairRequest {
        secret: [0xff; PAIRING_SECRET_BYTES],
        name: Text(vec![0xff; TEXT_BYTES_MAX]),
    });
    accepted(&PairReply {
        module: ModuleName(vec![0xff; MODULE_NAME_BYTES_MAX]),
        name: Text(vec![0xff; TEXT_BYTES_MAX]),
        is_tree: true,
    });
    accepted(&PullRequest {
        tree: ModuleName(vec![0xff; MODULE_NAME_BYTES_MAX]),
    });
    accepted(&Note::Ended {
        session: u64::MAX,
        code: u32::MAX,
        text: Text(vec![0xff; TEXT_BYTES_MAX]),
    });
}

/// A frame of one op that has as much of everything as there may be.
fn largest_patch(parts: DeltaParts) -> OpFrame {
    let OpFrame(mut one) = put_file(Content::Patch {
        size: FILE_BYTES_MAX,
        digest: Digest::default(),
        basis: Digest::default(),
        parts,
        literals: PatchLiterals(vec![0; PATCH_LITERALS_BYTES_MAX]),
    });
    let OpMessage::Op(op) = &mut one[0] else {
        panic!("{one:?}")
    };
    let xattr = |number: u8| Xattr {
        name: vec![b'a' + number; 100],
        value: vec![0; XATTR_VALUE_BYTES_MAX - 100],
    };
    op.xattrs = Xattrs::new((0..4).map(xattr).collect()).unwrap();
    OpFrame(one)
}

/// Full by count and nearly full by bytes, as a seed of many small files makes them. bincode's own limit counts numbers
/// by their size in memory, so it must leave room for that.
#[test]
fn x01_a_full_frame_of_small_files_is_accepted() {
    let mut frame = OpFrame(Vec::new());
    for number in 1..=OPS_PER_FRAME_MAX as u64 {
        let body = OpBody::PutFile {
            place: Place {
                directory: ObjectId(1),
                name: Name::new(format!("{number}").into_bytes()).unwrap(),
            },
            object: ObjectId(number + 1),
            attributes: Attributes {
                mode: 0o644,
                uid: 0,
                gid: 0,
                mtime: Timestamp::new(100, 0).unwrap(),
                ..Attributes::default()
            },
            content: Content::Inline {
                digest: Digest::default(),
                bytes: InlineContent(vec![b'x'; 290]),
            },
        };
        frame.0.push(OpMessage::Op(Op {
            number,
            after: 0,
            barrier: false,
            body,
            xattrs: Xattrs::default(),
        }));
    }
    let bytes = accepted(&frame);
    assert!(
        bytes > OP_FRAME_BYTES_MAX * 9 / 10 && bytes <= OP_FRAME_BYTES_MAX,
        "{bytes}"
    );
}

#[test]
fn x01_messages_over_their_own_limit_are_refused() {
    let bytes = InlineContent(vec![0; INLINE_CONTENT_BYTES_MAX]);
    let OpFrame(one) = put_file(Content::Inline {
        digest: Digest::default(),
        bytes,
    });
    let six = OpFrame(one.iter().cycle().take(6).cloned().collect());
    let fault = codec::encode(&six).unwrap_err();
    assert!(
        matches!(
            fault,
            CodecFault::TooLong {
                limit: OP_FRAME_BYTES_MAX,
                ..
            }
        ),
        "{fault:?}"
    );
    let names = vec![Name::new(vec![b'x'; NAME_BYTES_MAX]).unwrap(); PATH_ELEMENTS_MAX];
    refused(
        ToReceiver::ListDisk(RelPath::from_names(names).unwrap()),
        "a path that fills more than a message",
    );

    fn over<M: Message>() {
        let fault = codec::decode::<M>(&vec![0; M::BYTES_MAX + 1]).err();
        assert!(
            matches!(fault, Some(CodecFault::TooLong { .. })),
            "{}: {fault:?}",
            M::NAME
        );
    }
    over::<ToReceiver>();
    over::<ToSender>();
    over::<OpFrame>();
    over::<BulkFrame>();
    over::<PairRequest>();
    over::<PairReply>();
    over::<PullRequest>();
    over::<Note>();
}

#[test]
fn texts_for_people_are_cut_between_characters() {
    for length in TEXT_BYTES_MAX - 3..TEXT_BYTES_MAX + 3 {
        let text = format!("{}\u{1f980}", "a".repeat(length));
        let cut = Text::from(&*text);
        assert!(cut.0.len() <= TEXT_BYTES_MAX && text.as_bytes().starts_with(&cut.0));
        assert!(std::str::from_utf8(&cut.0).is_ok() && cut.0.len() + 4 > text.len().min(TEXT_BYTES_MAX));
    }
    assert_eq!(Text::from("").0, b"");
    assert_eq!(Text::from("caf\u{e9}").0, "caf\u{e9}".as_bytes());
}
