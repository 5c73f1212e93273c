//! Pinned bytes: at least one value of every variant. A difference here breaks peers that are already deployed, so a
//! dump is never adjusted to the code; new variants get new dumps.

mod connection;
mod ops;
mod parts;
mod session;

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
