//! What driftless peers say to each other: bytes in, checked values out.
//!
//! `SPEC.md` beside this crate is the written specification; this crate is its reference implementation. It knows
//! no sockets, no files, no clock and no runtime, so that every rule of the wire can be tested on slices of bytes.
//!
//! After decoding there are only good values: a [`Name`] can't climb, a [`Timestamp`] has at most 999,999,999
//! nanoseconds, a list is never longer than its constant in [`limits`]. The same limits are checked when encoding,
//! so that a peer of the same version never refuses what we send.
//!
//! | module | holds |
//! | --- | --- |
//! | [`version`] | the ALPN, the first bytes of a connection, named features |
//! | [`limits`] | every maximum |
//! | [`name`] | names and relative paths |
//! | [`entry`] | objects, attributes, digests, sums |
//! | [`message`] | control messages, ops, bulk ranges |
//! | [`stream`] | the first bytes of one-way streams |
//! | [`owner`] | what users and groups are called |
//! | [`codec`] | the one place that turns values into bytes and back |
//! | [`xattr`] | extended attributes |
//! | [`close`] | why a connection ended |
#![forbid(unsafe_code)]

pub mod close;
pub mod codec;
pub mod entry;
pub mod limits;
pub mod message;
pub mod name;
pub mod owner;
pub mod stream;
pub mod version;
pub mod xattr;

pub use close::CloseCode;
pub use entry::{Attributes, Carried, Digest, EntrySum, Kind, ObjectId, Special, Timestamp, TreeSum};
pub use name::{Name, NameFault, RelPath};
pub use owner::{Called, OwnerHere, OwnerKind, OwnerName, OwnerRow, Owners, OwnersHere};
pub use xattr::{Xattr, XattrClasses, Xattrs};
