//! Ops and the content that belongs to them.

use super::*;

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
