//! S-01: no odd name gets past the decoder, wherever a message has one.

use crate::dump;
use driftless_protocol::Xattrs;
use driftless_protocol::codec::{self, CodecFault};
use driftless_protocol::message::*;
use driftless_protocol::{Attributes, Digest, Name, ObjectId};

/// Stands where the odd name will be.
const STAND_IN: &[u8] = b"STAND-IN";

fn ops() -> Vec<OpBody> {
    let place = || Place {
        directory: ObjectId::ROOT,
        name: Name::new(STAND_IN).unwrap(),
    };
    let (object, attributes) = (ObjectId(2), Attributes::default());
    let inline = Content::Inline {
        digest: Digest::default(),
        bytes: InlineContent(b"x".to_vec()),
    };
    let offer = Content::Offer {
        size: 1,
        digest: None,
    };
    vec![
        OpBody::MakeDirectory {
            place: place(),
            object,
            attributes,
        },
        OpBody::PutFile {
            place: place(),
            object,
            attributes,
            content: inline,
        },
        OpBody::PutFile {
            place: place(),
            object,
            attributes,
            content: offer,
        },
        OpBody::PutSymlink {
            place: place(),
            object,
            attributes,
            target: LinkTarget(b"t".to_vec()),
        },
        OpBody::Move { object, to: place() },
        OpBody::Remove {
            object,
            place: place(),
        },
        OpBody::Adopt {
            place: place(),
            object,
            assumed: false,
        },
        OpBody::Release {
            object,
            place: place(),
        },
    ]
}

fn odd_names() -> Vec<Vec<u8>> {
    let odd = [
        &b""[..],
        b".",
        b"..",
        b"/",
        b"//",
        b"a/b",
        b"/a",
        b"a/",
        b"../a",
        b"a/..",
        b"./a",
        b"a/.",
        b"\0",
        b"a\0",
        b"\0a",
        b"a\0b",
        b"/etc/passwd",
        b"../../../etc/passwd",
    ];
    let long = [256, 257, 4_096, 70_000].map(|length| vec![b'a'; length]);
    odd.iter().map(|name| name.to_vec()).chain(long).collect()
}

fn with_name(encoded: &[u8], name: &[u8]) -> Vec<u8> {
    let stand_in = [&dump::number(STAND_IN.len() as u64), STAND_IN].concat();
    let found: Vec<_> = (0..encoded.len())
        .filter(|&at| encoded[at..].starts_with(&stand_in))
        .collect();
    let &[at] = &*found else {
        panic!("{} stand-ins", found.len())
    };
    [
        &encoded[..at],
        &dump::number(name.len() as u64),
        name,
        &encoded[at + stand_in.len()..],
    ]
    .concat()
}

#[test]
fn s01_odd_names_in_ops_are_refused() {
    for body in ops() {
        let neighbour = OpMessage::Withdraw { number: 1 };
        let op = OpMessage::Op(Op {
            number: 2,
            after: 0,
            barrier: false,
            body: body.clone(),
            xattrs: Xattrs::default(),
        });
        let encoded = codec::encode(&OpFrame(vec![neighbour.clone(), op, neighbour])).unwrap();
        assert!(codec::decode::<OpFrame>(&with_name(&encoded, STAND_IN)).is_ok());
        for name in odd_names() {
            let outcome = codec::decode::<OpFrame>(&with_name(&encoded, &name));
            let is_fault = matches!(outcome, Err(CodecFault::Malformed { .. }));
            assert!(
                is_fault,
                "{body:?} with {:?}: {outcome:?}",
                name.escape_ascii().to_string()
            );
        }
    }
}

#[test]
fn s01_odd_names_in_listings_and_paths_are_refused() {
    let row = Row {
        name: Name::new(STAND_IN).unwrap(),
        ..crate::values::longest_row()
    };
    let listing = codec::encode(&ToSender::Listing {
        rows: Rows(vec![row]),
        last: true,
    })
    .unwrap();
    let names = |names: &[&[u8]]| names.iter().map(|&name| Name::new(name).unwrap()).collect();
    let path = |parts: &[&[u8]]| driftless_protocol::RelPath::from_names(names(parts)).unwrap();
    let paths = [
        path(&[STAND_IN]),
        path(&[STAND_IN, b"a"]),
        path(&[b"a", STAND_IN]),
        path(&[b"a", STAND_IN, b"b"]),
    ];
    for name in odd_names() {
        let shown = name.escape_ascii().to_string();
        assert!(
            codec::decode::<ToSender>(&with_name(&listing, &name)).is_err(),
            "a row named {shown:?}"
        );
        for path in &paths {
            let open = ToReceiver::Open(Open {
                purpose: Purpose::Mirror,
                module: ModuleName(b"m".to_vec()),
                path: path.clone(),
                mirror: 1,
                source: Text::default(),
                incarnation: 1,
                carried: Default::default(),
                sum: None,
                protects: false,
                sparing: Default::default(),
                whole_files: false,
                recheck: Recheck::Nothing,
                upstream: Relays::default(),
                engine: None,
            });
            let survey = ToReceiver::Survey {
                path: path.clone(),
                xattrs: Default::default(),
                contents: false,
            };
            for message in [open, survey, ToReceiver::ListDisk(path.clone())] {
                let encoded = codec::encode(&message).unwrap();
                assert!(codec::decode::<ToReceiver>(&with_name(&encoded, STAND_IN)).is_ok());
                let outcome = codec::decode::<ToReceiver>(&with_name(&encoded, &name));
                assert!(outcome.is_err(), "{path} with {shown:?}: {outcome:?}");
            }
        }
    }
}

/// what looks odd and is legal arrives to the byte.
#[test]
fn x07_legal_names_arrive_to_the_byte() {
    let place = Place {
        directory: ObjectId::ROOT,
        name: Name::new(STAND_IN).unwrap(),
    };
    let body = OpBody::Adopt {
        place,
        object: ObjectId(2),
        assumed: false,
    };
    let op = OpMessage::Op(Op {
        number: 1,
        after: 0,
        barrier: false,
        body,
        xattrs: Xattrs::default(),
    });
    let encoded = codec::encode(&OpFrame(vec![op])).unwrap();
    let names = [
        &b"..."[..],
        b"..a",
        b" ",
        b"-rf",
        b"a\nb",
        b"\x1b[31m",
        b"\xff\xfe",
        b"%s",
        b"a\\b",
        b"*",
        &[b'x'; 255],
    ];
    for name in names {
        let OpFrame(messages) = codec::decode(&with_name(&encoded, name)).unwrap();
        let [
            OpMessage::Op(Op {
                body: OpBody::Adopt { place, .. },
                ..
            }),
        ] = &*messages
        else {
            panic!("{messages:?}");
        };
        assert_eq!(place.name.as_bytes(), name);
    }
}
