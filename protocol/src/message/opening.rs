//! How a session is opened, and what its two sides say of themselves.

use super::lists::{ModuleName, Relays, Text};
use crate::entry::{Carried, ObjectId, TreeSum};
use crate::name::{Name, RelPath};
use bincode::{Decode, Encode};

/// Where an object stands: a directory and a name in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Place {
    /// The directory.
    pub directory: ObjectId,
    /// The name.
    pub name: Name,
}

/// How far a receiver has come in a sender's journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Cursor {
    /// The run of the sender in which this was acknowledged.
    pub incarnation: u128,
    /// Every change up to this number is in the receiver.
    pub sequence: u64,
    /// The receiver's tree sum at that moment.
    pub sum: TreeSum,
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Purpose {
    /// Keep the module path like the sender's tree.
    Mirror,
    /// Only compare: nothing on the receiver is changed.
    Verify,
    /// Only look at names and attributes, as a dry run does, with [`ToReceiver::Survey`](super::ToReceiver::Survey): nothing on the receiver is changed,
    /// and a module path that is missing is not made.
    Survey,
    /// End the mirror: the receiver drops what it has of its own in the tree and in its home, and closes with
    /// [`CloseCode::Forgotten`](crate::CloseCode::Forgotten) and a text that says what it left, in the place of an [`Opened`].
    Forget,
    /// Only hear what others than the mirror changed on the receiver, by [`ToSender::Diverged`](super::ToSender::Diverged): nothing is changed.
    Divergence,
}

/// What became of an entry by somebody's hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Diverged {
    /// It was not there before, under this name.
    Made,
    /// Its content was changed, or another object took its place.
    Changed,
    /// Its attributes were.
    Attributes,
    /// It is gone, with all that was in it.
    Removed,
}

/// What a receiver looks at anew before it answers an [`Open`], because the sender was told not to go by catalogs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub enum Recheck {
    /// Nothing: it knows what it has.
    #[default]
    Nothing,
    /// Names and attributes: the tree is walked.
    Attributes,
    /// Also contents: no digest of a file is believed.
    Contents,
}

/// First message of a sender.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Open {
    /// What for.
    pub purpose: Purpose,
    /// The module.
    pub module: ModuleName,
    /// The directory below the module's root; made if missing.
    pub path: RelPath,
    /// The mirror's identity: random, made once by the sender for this source and target.
    pub mirror: u128,
    /// What the sender calls its source, for messages to people.
    pub source: Text,
    /// The sender's present run.
    pub incarnation: u128,
    /// The attributes that the sender can carry.
    pub carried: Carried,
    /// Sum of the sender's whole tree, when it knows all digests already.
    pub sum: Option<TreeSum>,
    /// Some of what only the receiver has may be protected: it removes no directory that holds anything, and puts nothing
    /// in the place of one.
    pub protects: bool,
    /// What is left as it is.
    pub sparing: Sparing,
    /// Changed files travel whole: the receiver needs to make no signatures.
    pub whole_files: bool,
    /// What the receiver is to look at anew.
    pub recheck: Recheck,
    /// The trees that the source is itself a copy of, if it is one.
    pub upstream: Relays,
    /// Which engine is to make the receiver's signatures; none leaves it to the receiver.
    pub engine: Option<DeltaEngine>,
}

/// What makes signatures. A signature tells by its first bytes which one did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum DeltaEngine {
    /// This protocol's own format.
    Driftless,
    /// rsync's algorithm in librsync's format.
    FastRsync,
}

/// What a sender wants left as it is on the receiver, whatever the source has. The op fails with
/// [`FailureKind::Withheld`](super::FailureKind::Withheld), and what stands there is none of the mirror's any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub struct Sparing {
    /// What stands there and was not put there under the number of the op, but for a directory where a directory is to be.
    pub existing: bool,
    /// Places at which nothing stands.
    pub missing: bool,
    /// Regular files that were modified later than the file that is to take their place.
    pub newer: bool,
}

/// A tree, and the identity of the sender that reads it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Relay {
    /// The fingerprint.
    pub peer: [u8; 32],
    /// What the sender calls its source.
    pub source: Text,
}

/// Answer to [`Open`]. A refusal is a close code instead.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Opened {
    /// The attributes carried: the common part of what both sides can.
    pub carried: Carried,
    /// Whether this mirror has been here before, and has sent an op.
    pub bound: bool,
    /// Whether the module path holds any entry.
    pub is_empty: bool,
    /// How far the receiver has come.
    pub cursor: Option<Cursor>,
    /// The receiver's present tree sum.
    pub sum: TreeSum,
    /// The number of the receiver's root directory.
    pub root: ObjectId,
    /// The name by which the receiver wants to be known in messages (its module root).
    pub root_path: Text,
    /// Whether `Remove` is permitted to this peer.
    pub may_delete: bool,
    /// The module was promoted and demoted since this path was last in sync: what only the receiver has is no leftover, and is
    /// treated as at first contact.
    pub demoted: bool,
}
