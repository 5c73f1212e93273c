//! What the two sides say on the control stream while a session lasts.

use super::lists::{Digests, Directories, HeldSpans, Names, Paths, Rows, Runs, SignaturePart, Text};
use super::op::check_size;
use super::opening::{Cursor, Diverged, Open, Opened};
use crate::codec::checked;
use crate::entry::{Attributes, Digest, EntrySum, Kind, ObjectId, Timestamp, TreeSum};
use crate::name::{Name, RelPath};
use crate::owner::{Owners, OwnersHere};
use crate::xattr::XattrClasses;
use bincode::{Decode, Encode};

/// Sender to receiver on the control stream.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
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
    /// Both trees are equal, durably, at this number of the sender's journal. For who looks on at the receiver; not answered.
    InSync {
        /// The number.
        sequence: u64,
    },
}

impl ToReceiver {
    /// Asks for what is promised already: it says nothing, but has to be acknowledged. It may come at any time, even before `Open`.
    pub const SIGN_OF_LIFE: ToReceiver = ToReceiver::Flush { number: 0 };
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct HeldSpan {
    /// Which: it begins at this many times [`SPAN_BYTES`](crate::limits::SPAN_BYTES).
    pub span: u64,
    /// BLAKE3 chaining value of its bytes at that place, as in a file of more than one span.
    pub sum: [u8; 32],
}

/// Why an op failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
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
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
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
    /// its `Need`. The sender gives [`RangeBody::Held`](super::RangeBody::Held) for those that are still right, whatever version they are of.
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

impl ToSender {
    /// Names no op: it says nothing, but has to be acknowledged. It may come at any time, even before `Opened`.
    pub const SIGN_OF_LIFE: ToSender = ToSender::Ended(Runs(Vec::new()));

    /// Which message it is, for people. Nothing of what is in it.
    pub fn kind(&self) -> &'static str {
        match self {
            ToSender::Opened(_) => "Opened",
            ToSender::Listing { .. } => "Listing",
            ToSender::ListingFailed(_) => "ListingFailed",
            ToSender::Need { .. } => "Need",
            ToSender::Signature { .. } => "Signature",
            ToSender::Progress(_) => "Progress",
            ToSender::Failed { .. } => "Failed",
            ToSender::Ended(_) => "Ended",
            ToSender::Held { .. } => "Held",
            ToSender::Owners(_) => "Owners",
            ToSender::SurveyRoot { .. } => "SurveyRoot",
            ToSender::Confirmed { .. } => "Confirmed",
            ToSender::Diverged { .. } => "Diverged",
            ToSender::Contents(_) => "Contents",
            ToSender::Doubted { .. } => "Doubted",
            ToSender::Changed => "Changed",
        }
    }
}
