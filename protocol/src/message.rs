//! The messages of a mirror connection.
//!
//! Tags are the positions of the variants: new ones are appended, none is reordered or reused. No type here contains
//! itself, so that no message can make a decoder recurse.
//!
//! A session, from the sender's side: [`Open`] is answered by [`Opened`]. Equal sums end it there. Otherwise the
//! sender asks for listings of the receiver's directories where sums differ, and sends [`Op`]s on op streams. A
//! file's content is inside its op when small; else the op is an offer, the receiver asks with [`ToSender::Need`]
//! when it is ready for the content (giving the signature of its basis if it has one), and ranges follow on bulk
//! streams until a [`SealOp`] closes the file. Every op ends in exactly one outcome: applied (told in bulk by
//! [`Progress`]), or failed ([`ToSender::Failed`]).

use crate::codec::{checked, decode_bytes, decode_list, encode_list};
use crate::entry::{Attributes, Carried, Digest, EntrySum, Kind, ObjectId, Special, Timestamp, TreeSum};
use crate::limits::*;
use crate::name::{Name, RelPath};
use crate::owner::{Owners, OwnersHere};
use crate::xattr::{XattrClasses, Xattrs};
use bincode::de::{BorrowDecode, BorrowDecoder, Decode, Decoder};
use bincode::enc::Encoder;
use bincode::error::{DecodeError, EncodeError};
use bincode::{Decode as DeriveDecode, Encode};

/// A list wrapper that checks its own maximum, encoding and decoding; `$with` reads the list.
macro_rules! bounded {
    ($(#[$doc:meta])* $name:ident, $element:ty, $max:expr) => {
        bounded! { $(#[$doc])* $name, $element, $max, decode_list }
    };
    ($(#[$doc:meta])* $name:ident, $element:ty, $max:expr, $with:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Default)]
        pub struct $name(pub Vec<$element>);

        impl Encode for $name {
            fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
                encode_list(encoder, &self.0, $max)
            }
        }

        impl<C> Decode<C> for $name {
            fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
                $with(decoder, $max).map($name)
            }
        }

        impl<'de, C> BorrowDecode<'de, C> for $name {
            fn borrow_decode<D: BorrowDecoder<'de, Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
                Self::decode(decoder)
            }
        }
    };
}

/// As `bounded`, for bytes: read in one piece, after the length was checked.
macro_rules! bounded_bytes {
    ($(#[$doc:meta])* $name:ident, $max:expr) => {
        bounded! { $(#[$doc])* $name, u8, $max, decode_bytes }
    };
}

bounded_bytes! {
    /// The content of a small file.
    InlineContent, INLINE_CONTENT_BYTES_MAX
}
bounded_bytes! {
    /// The literals of a patch.
    PatchLiterals, PATCH_LITERALS_BYTES_MAX
}
bounded_bytes! {
    /// The text of a symbolic link.
    LinkTarget, LINK_TARGET_BYTES_MAX
}
bounded_bytes! {
    /// Text for people, escaped before it is shown.
    Text, TEXT_BYTES_MAX
}
bounded_bytes! {
    /// The name of a module: bytes that need not be a file name.
    ModuleName, MODULE_NAME_BYTES_MAX
}
bounded_bytes! {
    /// A piece of a signature.
    SignaturePart, SIGNATURE_PART_BYTES_MAX
}
bounded_bytes! {
    /// Bytes of a range, possibly compressed.
    RangeBytes, RANGE_BYTES_MAX
}
bounded! {
    /// Directories, by the receiver's numbers.
    Directories, ObjectId, LIST_DIRECTORIES_MAX
}
bounded! {
    /// Rows of a listing.
    Rows, Row, LISTING_ROWS_MAX
}
bounded! {
    /// The delta of one range.
    DeltaParts, DeltaPart, DELTA_PARTS_MAX
}
bounded! {
    /// Spans of a file that the receiver kept.
    HeldSpans, HeldSpan, HELD_SPANS_MAX
}
bounded! {
    /// Names in one directory.
    Names, Name, CONTENTS_NAMES_MAX
}
bounded! {
    /// Digests of contents; none where one could not be read.
    Digests, Option<Digest>, CONTENTS_NAMES_MAX
}
bounded! {
    /// Paths below the root of a module path.
    Paths, RelPath, DOUBTED_PATHS_MAX
}
bounded! {
    /// Where the content of a source comes from, in any order.
    Relays, Relay, RELAYS_MAX
}
bounded! {
    /// Op numbers, as runs in rising order that neither touch nor overlap.
    Runs, Run, ENDED_RUNS_MAX
}
bounded! {
    /// What one frame of an op stream holds.
    OpFrame, OpMessage, OPS_PER_FRAME_MAX
}

impl From<&str> for Text {
    fn from(text: &str) -> Text {
        let most = text.len().min(TEXT_BYTES_MAX);
        let end = (0..=most)
            .rev()
            .find(|&at| text.is_char_boundary(at))
            .unwrap_or(0);
        Text(text.as_bytes()[..end].to_vec())
    }
}

impl std::fmt::Display for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        crate::name::escape(&self.0, f)
    }
}

impl std::fmt::Display for ModuleName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        crate::name::escape(&self.0, f)
    }
}

/// Where an object stands: a directory and a name in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, DeriveDecode)]
pub struct Place {
    /// The directory.
    pub directory: ObjectId,
    /// The name.
    pub name: Name,
}

/// How far a receiver has come in a sender's journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, DeriveDecode)]
pub struct Cursor {
    /// The run of the sender in which this was acknowledged.
    pub incarnation: u128,
    /// Every change up to this number is in the receiver.
    pub sequence: u64,
    /// The receiver's tree sum at that moment.
    pub sum: TreeSum,
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, DeriveDecode)]
pub enum Purpose {
    /// Keep the module path like the sender's tree.
    Mirror,
    /// Only compare: nothing on the receiver is changed.
    Verify,
    /// Only look at names and attributes, as a dry run does, with [`ToReceiver::Survey`]: nothing on the receiver is changed,
    /// and a module path that is missing is not made.
    Survey,
    /// End the mirror: the receiver drops what it has of its own in the tree and in its home, and closes with
    /// [`CloseCode::Forgotten`](crate::CloseCode::Forgotten) and a text that says what it left, in the place of an [`Opened`].
    Forget,
    /// Only hear what others than the mirror changed on the receiver, by [`ToSender::Diverged`]: nothing is changed.
    Divergence,
}

/// What became of an entry by somebody's hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, DeriveDecode)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, DeriveDecode)]
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
#[derive(Debug, Clone, PartialEq, Eq, Encode, DeriveDecode)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, DeriveDecode)]
pub enum DeltaEngine {
    /// This protocol's own format.
    Driftless,
    /// rsync's algorithm in librsync's format.
    FastRsync,
}

/// What a sender wants left as it is on the receiver, whatever the source has. The op fails with
/// [`FailureKind::Withheld`], and what stands there is none of the mirror's any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, DeriveDecode)]
pub struct Sparing {
    /// What stands there and was not put there under the number of the op, but for a directory where a directory is to be.
    pub existing: bool,
    /// Places at which nothing stands.
    pub missing: bool,
    /// Regular files that were modified later than the file that is to take their place.
    pub newer: bool,
}

/// A tree, and the identity of the sender that reads it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, DeriveDecode)]
pub struct Relay {
    /// The fingerprint.
    pub peer: [u8; 32],
    /// What the sender calls its source.
    pub source: Text,
}

/// Answer to [`Open`]. A refusal is a close code instead.
#[derive(Debug, Clone, PartialEq, Eq, Encode, DeriveDecode)]
pub struct Opened {
    /// The attributes carried: the common part of what both sides can.
    pub carried: Carried,
    /// Whether this mirror has been here before.
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

/// Sender to receiver on the control stream.
#[derive(Debug, Clone, PartialEq, Eq, Encode, DeriveDecode)]
pub enum ToReceiver {
    /// First of all.
    Open(Open),
    /// Asks for the listings of directories, by the receiver's numbers, answered in order.
    List(Directories),
    /// `verify`: asks for the listing of one directory as it is on the disk now. Files have no digests in it.
    ListDisk(RelPath),
    /// Asks for a [`Progress`] with `durable` up to this op as soon as that is true.
    Flush {
        /// An op number.
        number: u64,
    },
    /// What users and groups are called: before `Open`, which is the first message but for these, and, for `verify`, before
    /// a `ListDisk`. There it is answered with [`ToSender::Owners`].
    Owners(Owners),
    /// `Purpose::Survey`: asks for the listing of one directory as it is on the disk now.
    Survey {
        /// The directory.
        path: RelPath,
        /// The extended attributes that the digests in the rows are to be of.
        xattrs: XattrClasses,
        /// Whether the contents of files are to be read, for their digests.
        contents: bool,
    },
    /// Asks for a [`ToSender::Confirmed`] as soon as every op up to a number has arrived with all of its content, or has
    /// ended.
    ConfirmReceived {
        /// What the answer will name.
        token: u64,
        /// An op number.
        through: u64,
    },
    /// Asks for a [`ToSender::Confirmed`] when everything that is visible now is on stable storage.
    ConfirmDurable {
        /// What the answer will name.
        token: u64,
    },
    /// `verify`: asks for the digests of files in one directory, read from the disk now.
    ReadContents {
        /// The directory.
        path: RelPath,
        /// The files.
        names: Names,
        /// Bytes to read in a second at most; 0 for as fast as it goes.
        rate: u64,
    },
    /// `verify`: what stands at these paths is not what the sender has. The receiver looks at them again and believes no content
    /// that it knew of there; the mirror that it belongs to is told to compare.
    Doubt(Paths),
}

/// One entry of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its name.
    pub name: Name,
    /// Its number on the receiver.
    pub object: ObjectId,
    /// What it is.
    pub kind: Kind,
    /// Its attributes.
    pub attributes: Attributes,
    /// Size in bytes; 0 for directories.
    pub size: u64,
    /// Digest of the content or of the link text; none for directories and where it is not known.
    pub digest: Option<Digest>,
    /// For a directory, the sum over everything below it; zero otherwise.
    pub below: TreeSum,
    /// For a directory, how many entries are below it; 0 otherwise.
    pub entries: u64,
}

checked!(
    Row {
        name,
        object,
        kind,
        attributes,
        size,
        digest,
        below,
        entries
    },
    |row: &Row| check_size(row.size)
);

/// How far ops have come. All numbers only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, DeriveDecode)]
pub struct Progress {
    /// Every op up to this number has an outcome and is visible.
    pub applied: u64,
    /// Every op up to this number is on stable storage.
    pub durable: u64,
    /// The cursor that belongs to `durable`, if a mark was passed.
    pub cursor: Option<Cursor>,
}

/// A run of consecutive op numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The first; not 0.
    pub first: u64,
    /// The last; not below the first.
    pub last: u64,
}

checked!(Run { first, last }, |run: &Run| {
    if run.first == 0 || run.last < run.first {
        Err("a run of op numbers is empty or begins at 0")
    } else {
        Ok(())
    }
});

/// A span of a file that the receiver kept when an earlier transfer was cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, DeriveDecode)]
pub struct HeldSpan {
    /// Which: it begins at this many times [`SPAN_BYTES`].
    pub span: u64,
    /// BLAKE3 chaining value of its bytes at that place, as in a file of more than one span.
    pub sum: [u8; 32],
}

/// Why an op failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, DeriveDecode)]
pub enum FailureKind {
    /// The disk, an inode table or a quota is full.
    NoSpace,
    /// The receiver may not do it.
    Permission,
    /// What the op builds on failed before.
    Blocked,
    /// The content that arrived does not have the digest that was promised.
    WrongDigest,
    /// The object or place is not as the sender believes; a reconcile is due.
    Mismatch,
    /// The receiver's file system cannot store such an entry.
    Unsupported,
    /// Any other error of the receiver's system.
    Io,
    /// The present content is not the basis that a patch was made against.
    Basis,
    /// Somebody else changed or made what stands there, and the receiver's policy is to leave it.
    Refused,
    /// The sender wants it left as it is ([`Open::sparing`]).
    Withheld,
}

/// Receiver to sender on the control stream.
#[derive(Debug, Clone, PartialEq, Eq, Encode, DeriveDecode)]
pub enum ToSender {
    /// Answer to `Open`.
    Opened(Opened),
    /// Part of the listing of a directory.
    Listing {
        /// Rows in byte order of their names.
        rows: Rows,
        /// Whether this ends the directory.
        last: bool,
    },
    /// `ListDisk` failed: the path is missing or unreadable.
    ListingFailed(Text),
    /// The receiver wants the content of an offered file.
    Need {
        /// The op that offered it.
        number: u64,
        /// Whether `Signature` parts follow: the receiver has a basis worth a delta.
        basis: bool,
    },
    /// Part of the signature of a basis.
    Signature {
        /// The op.
        number: u64,
        /// The next bytes.
        part: SignaturePart,
        /// Whether this ends the signature.
        last: bool,
    },
    /// How far ops have come.
    Progress(Progress),
    /// An op failed; it still counts as ended.
    Failed {
        /// The op.
        number: u64,
        /// What kind of failure.
        kind: FailureKind,
        /// The error, for people.
        text: Text,
        /// The sum of what stands at the place instead, so that the sender's sum can allow for it.
        held: Option<(ObjectId, EntrySum)>,
    },
    /// Ops above [`Progress::applied`] that have an outcome and are visible, each told once: a large file on its way
    /// does not hold back the acknowledgement of what overtook it.
    Ended(Runs),
    /// What the receiver kept of an offered file when an earlier transfer of it was cut off; several may come, all before
    /// its `Need`. The sender gives [`RangeBody::Held`] for those that are still right, whatever version they are of.
    Held {
        /// The op that offered it.
        number: u64,
        /// Some of the spans.
        spans: HeldSpans,
    },
    /// `verify`: what the users and groups of a [`ToReceiver::Owners`] are on the receiver's disk.
    Owners(OwnersHere),
    /// Follows `Opened` on a connection for a survey: the attributes of the root of the module path; none if it is missing.
    SurveyRoot {
        /// The attributes.
        root: Option<Attributes>,
        /// Whether this peer may give files set-user-ID and set-group-ID bits.
        may_set_id: bool,
        /// Whether a backup is left beside each file that is removed, and so the directory around it.
        backs_up_beside: bool,
    },
    /// Answer to [`ToReceiver::ConfirmReceived`] and [`ToReceiver::ConfirmDurable`].
    Confirmed {
        /// As it was asked.
        token: u64,
    },
    /// `Purpose::Divergence`: an entry is not as the mirror left it. The last of them is followed by a `Listing` without rows, or by
    /// `ListingFailed`.
    Diverged {
        /// Where.
        path: RelPath,
        /// What became of it.
        what: Diverged,
        /// When, by the receiver's clock.
        at: Timestamp,
    },
    /// Answer to [`ToReceiver::ReadContents`], in the order of its names.
    Contents(Digests),
    /// Answer to [`ToReceiver::Doubt`].
    Doubted {
        /// How many of the paths are not known any more as they were.
        changed: u64,
    },
    /// Something in the module path is not as it was acknowledged: the sender is to compare.
    Changed,
}

/// One instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Op {
    /// Its number in this connection: 1, 2, 3, … in the order in which the sender made them. Streams may reorder
    /// them; the receiver restores what order is needed.
    pub number: u64,
    /// An op that must have ended first; 0 for none.
    pub after: u64,
    /// Whether all ops with lower numbers must have ended first, but for offered and patched files: these have only to be
    /// known, so that a large file holds nothing up.
    pub barrier: bool,
    /// The deed.
    pub body: OpBody,
    /// The extended attributes whose digest is in the attributes of the deed.
    pub xattrs: Xattrs,
}

impl Op {
    /// Bytes that count against [`INLINE_IN_FLIGHT_BYTES_MAX`]: what a receiver has to hold until the op has ended.
    pub fn held_bytes(&self) -> usize {
        let content = match &self.body {
            OpBody::PutFile { content, .. } => content.held_bytes(),
            _ => 0,
        };
        content + self.xattrs.bytes()
    }
}

checked!(
    Op {
        number,
        after,
        barrier,
        body,
        xattrs
    },
    |op: &Op| match op.body {
        OpBody::PutFile {
            content: Content::Offer { size, .. } | Content::Patch { size, .. } | Content::Copy { size, .. },
            ..
        } => check_size(size),
        _ => Ok(()),
    }
);

fn check_size(bytes: u64) -> Result<(), &'static str> {
    if bytes > FILE_BYTES_MAX {
        Err("a file is larger than a file can be")
    } else {
        Ok(())
    }
}

/// The deed of an op. Every op is idempotent: where its result already stands, applying it again changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Encode, DeriveDecode)]
pub enum OpBody {
    /// Make a directory, or give an existing one at this place the number and the attributes.
    MakeDirectory {
        /// Where.
        place: Place,
        /// Its number.
        object: ObjectId,
        /// Its attributes; its time is set again after each batch that touched the directory.
        attributes: Attributes,
    },
    /// Create or replace a file.
    PutFile {
        /// Where.
        place: Place,
        /// Its number.
        object: ObjectId,
        /// Its attributes.
        attributes: Attributes,
        /// The content.
        content: Content,
    },
    /// Create or replace a symbolic link.
    PutSymlink {
        /// Where.
        place: Place,
        /// Its number.
        object: ObjectId,
        /// Its attributes.
        attributes: Attributes,
        /// Its text.
        target: LinkTarget,
    },
    /// Set the attributes of an object that is otherwise as it should be.
    SetAttributes {
        /// Which.
        object: ObjectId,
        /// What.
        attributes: Attributes,
    },
    /// Move an object, with everything below it, to a place. What stands there is set aside until its own op comes.
    Move {
        /// Which.
        object: ObjectId,
        /// Where to.
        to: Place,
    },
    /// Remove an object, with everything below it, if it still stands at this place.
    Remove {
        /// Which.
        object: ObjectId,
        /// Where.
        place: Place,
    },
    /// What stands at the place is, by the listing, what it should be; it gets the sender's number.
    Adopt {
        /// Where.
        place: Place,
        /// Its number from now on.
        object: ObjectId,
        /// It is a file whose size and time are right: if its content is not known, [`Digest::assumed`] stands for it.
        assumed: bool,
    },
    /// Leave an object where it stands, with everything below it, but count it no longer as part of the mirror (the
    /// source removed it, and the user wants nothing deleted).
    Release {
        /// Which.
        object: ObjectId,
        /// Where.
        place: Place,
    },
    /// Everything up to this number of the journal is among the ops up to this one.
    Mark {
        /// A number of the journal.
        sequence: u64,
    },
    /// Create or replace a pipe or a device.
    PutSpecial {
        /// Where.
        place: Place,
        /// Its number.
        object: ObjectId,
        /// Its attributes.
        attributes: Attributes,
        /// What it is.
        special: Special,
    },
    /// Make a place another name of what is there already: a hard link. Fails with [`FailureKind::Mismatch`] if that
    /// has not this content or is in another group.
    Link {
        /// Where.
        place: Place,
        /// Its number.
        object: ObjectId,
        /// The attributes of all names of the group.
        attributes: Attributes,
        /// Another name of the group.
        to: ObjectId,
        /// The digest of its content, text or device number.
        digest: Digest,
    },
    /// What users and groups are called that were not among those told before [`Open`]. Until it has ended, an op that
    /// gives something to one of them waits for it.
    Owners(Owners),
}

impl OpBody {
    /// The attributes that this gives to an object.
    pub fn attributes(&self) -> Option<&Attributes> {
        match self {
            OpBody::MakeDirectory { attributes, .. }
            | OpBody::PutFile { attributes, .. }
            | OpBody::PutSymlink { attributes, .. }
            | OpBody::PutSpecial { attributes, .. }
            | OpBody::Link { attributes, .. }
            | OpBody::SetAttributes { attributes, .. } => Some(attributes),
            _ => None,
        }
    }

    /// As [`OpBody::attributes`], to be changed.
    pub fn attributes_mut(&mut self) -> Option<&mut Attributes> {
        match self {
            OpBody::MakeDirectory { attributes, .. }
            | OpBody::PutFile { attributes, .. }
            | OpBody::PutSymlink { attributes, .. }
            | OpBody::PutSpecial { attributes, .. }
            | OpBody::Link { attributes, .. }
            | OpBody::SetAttributes { attributes, .. } => Some(attributes),
            _ => None,
        }
    }
}

/// The content of a file, as its op gives it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, DeriveDecode)]
pub enum Content {
    /// All of it.
    Inline {
        /// BLAKE3 of the bytes.
        digest: Digest,
        /// The bytes.
        bytes: InlineContent,
    },
    /// It comes when the receiver asks.
    Offer {
        /// Size in bytes, as of the offer; the seal decides.
        size: u64,
        /// The digest, where the sender knows it already: a receiver that has this content asks for nothing.
        digest: Option<Digest>,
    },
    /// All of it, as a delta against the content that the receiver last acknowledged. One whose content is another
    /// fails with [`FailureKind::Basis`].
    Patch {
        /// Size in bytes.
        size: u64,
        /// BLAKE3 of the content that this makes.
        digest: Digest,
        /// BLAKE3 of the content that it is made from.
        basis: Digest,
        /// Copies and literals, in order; together `size` bytes.
        parts: DeltaParts,
        /// The bytes of all literals, as one zstd frame of at most [`RANGE_BYTES_MAX`] bytes of content.
        literals: PatchLiterals,
    },
    /// The same as that of another file, which the receiver last acknowledged with this digest. If that has another content,
    /// or is gone, the op fails with [`FailureKind::Basis`].
    Copy {
        /// Size in bytes.
        size: u64,
        /// BLAKE3 of the content.
        digest: Digest,
        /// The file to copy, wherever it stands.
        from: ObjectId,
    },
}

impl Content {
    /// Bytes that count against [`INLINE_IN_FLIGHT_BYTES_MAX`]: what a receiver has to hold until the op has ended.
    pub fn held_bytes(&self) -> usize {
        match self {
            Content::Inline { bytes, .. } => bytes.0.len(),
            Content::Offer { .. } | Content::Copy { .. } => 0,
            Content::Patch { parts, literals, .. } => literals.0.len() + 16 * parts.0.len(),
        }
    }
}

/// What travels on an op stream.
#[derive(Debug, Clone, PartialEq, Eq, Encode, DeriveDecode)]
pub enum OpMessage {
    /// An instruction.
    Op(Op),
    /// The content of an offered file is complete.
    Seal(SealOp),
    /// The offered file vanished or would not hold still; its op ends without effect.
    Withdraw {
        /// The op.
        number: u64,
    },
}

/// Ends the content of an offered file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealOp {
    /// The op.
    pub number: u64,
    /// Size in bytes.
    pub size: u64,
    /// BLAKE3 of the whole content.
    pub digest: Digest,
    /// The attributes as they were when the content was read; they replace those of the offer. The extended ones are
    /// those of the offer.
    pub attributes: Attributes,
}

checked!(
    SealOp {
        number,
        size,
        digest,
        attributes
    },
    |seal: &SealOp| check_size(seal.size)
);

/// One range of a file's content, on a bulk stream. Ranges of a file may arrive in any order and on any stream;
/// together they cover it exactly once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BulkFrame {
    /// The op that offered the file.
    pub number: u64,
    /// Where the range begins in the target file, in bytes.
    pub offset: u64,
    /// Its length in the target file, in bytes, at most [`RANGE_BYTES_MAX`].
    pub length: u32,
    /// How it is given.
    pub body: RangeBody,
}

checked!(
    BulkFrame {
        number,
        offset,
        length,
        body
    },
    |frame: &BulkFrame| {
        let length = u64::from(frame.length);
        if length > RANGE_BYTES_MAX as u64 {
            return Err("a range is longer than its limit");
        }
        check_size(frame.offset.saturating_add(length))
    }
);

/// How a range is given.
#[derive(Debug, Clone, PartialEq, Eq, Encode, DeriveDecode)]
pub enum RangeBody {
    /// The bytes.
    Raw(RangeBytes),
    /// The bytes, as one zstd frame.
    Zstd(RangeBytes),
    /// Nothing but zero bytes: a hole where the receiver can make one.
    Zeros,
    /// Built from the basis whose signature the receiver sent. Literals come one after the other from `literals`,
    /// which is one zstd frame.
    Delta {
        /// Copies and literals, in order.
        parts: DeltaParts,
        /// The bytes of all literals, as one zstd frame.
        literals: RangeBytes,
    },
    /// The bytes of a span that the receiver told of in [`ToSender::Held`]: they are right.
    Held,
}

/// A part of a delta.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, DeriveDecode)]
pub enum DeltaPart {
    /// Bytes of the basis.
    Copy {
        /// Where they begin.
        offset: u64,
        /// How many.
        length: u32,
    },
    /// The next bytes of the literals.
    Literal {
        /// How many.
        length: u32,
    },
}

/// On a pairing connection, sender to receiver.
#[derive(Clone, PartialEq, Eq, Encode, DeriveDecode)]
pub struct PairRequest {
    /// The secret of the code.
    pub secret: [u8; PAIRING_SECRET_BYTES],
    /// What the sender calls itself.
    pub name: Text,
}

impl std::fmt::Debug for PairRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PairRequest")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// On a pairing connection, the receiver's answer. A refusal is a close code instead.
#[derive(Debug, Clone, PartialEq, Eq, Encode, DeriveDecode)]
pub struct PairReply {
    /// The module that the sender may push to now, or the tree that it may pull.
    pub module: ModuleName,
    /// What the receiver calls itself.
    pub name: Text,
    /// Whether it is not a module but a tree, which the peer may pull now.
    pub is_tree: bool,
}

/// On a connection that the receiver opened, its one message that says which tree it wants. A refusal is a close code.
#[derive(Debug, Clone, PartialEq, Eq, Encode, DeriveDecode)]
pub struct PullRequest {
    /// The tree.
    pub tree: ModuleName,
}

/// On a stream of notes: what is said of one of several sessions of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Encode, DeriveDecode)]
pub enum Note {
    /// This side has ended the session: nothing of it is taken any more, and its streams are given up.
    Ended {
        /// Which.
        session: u64,
        /// Why, by the number of its close code.
        code: u32,
        /// In words.
        text: Text,
    },
    /// By the receiver of a session whose hello had a window: the sender may send its ops and ranges up to this byte, all
    /// streams of the session counted together.
    Window {
        /// Which.
        session: u64,
        /// Bytes since the session began. It only grows.
        through: u64,
    },
}
