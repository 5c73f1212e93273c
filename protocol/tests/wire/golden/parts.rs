//! Values that several messages hold.

use super::*;

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
