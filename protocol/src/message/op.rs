//! Ops: the instructions that change the target.

use super::lists::{DeltaParts, InlineContent, LinkTarget, PatchLiterals};
use super::opening::Place;
use crate::codec::checked;
use crate::entry::{Attributes, Digest, ObjectId, Special};
use crate::limits::FILE_BYTES_MAX;
use crate::owner::Owners;
use crate::xattr::Xattrs;
use bincode::{Decode, Encode};

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
    /// Bytes that count against [`INLINE_IN_FLIGHT_BYTES_MAX`](crate::limits::INLINE_IN_FLIGHT_BYTES_MAX): what a receiver has to hold until the op has ended.
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

/// Refuses a size that no file can have.
pub(super) fn check_size(bytes: u64) -> Result<(), &'static str> {
    if bytes > FILE_BYTES_MAX {
        Err("a file is larger than a file can be")
    } else {
        Ok(())
    }
}

/// The deed of an op. Every op is idempotent: where its result already stands, applying it again changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
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
    /// Make a place another name of what is there already: a hard link. Fails with [`FailureKind::Mismatch`](super::FailureKind::Mismatch) if that
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
    /// What users and groups are called that were not among those told before [`Open`](super::Open). Until it has ended, an op that
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
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
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
    /// fails with [`FailureKind::Basis`](super::FailureKind::Basis).
    Patch {
        /// Size in bytes.
        size: u64,
        /// BLAKE3 of the content that this makes.
        digest: Digest,
        /// BLAKE3 of the content that it is made from.
        basis: Digest,
        /// Copies and literals, in order; together `size` bytes.
        parts: DeltaParts,
        /// The bytes of all literals, as one zstd frame of at most [`RANGE_BYTES_MAX`](crate::limits::RANGE_BYTES_MAX) bytes of content.
        literals: PatchLiterals,
    },
    /// The same as that of another file, which the receiver last acknowledged with this digest. If that has another content,
    /// or is gone, the op fails with [`FailureKind::Basis`](super::FailureKind::Basis).
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
    /// Bytes that count against [`INLINE_IN_FLIGHT_BYTES_MAX`](crate::limits::INLINE_IN_FLIGHT_BYTES_MAX): what a receiver has to hold until the op has ended.
    pub fn held_bytes(&self) -> usize {
        match self {
            Content::Inline { bytes, .. } => bytes.0.len(),
            Content::Offer { .. } | Content::Copy { .. } => 0,
            Content::Patch { parts, literals, .. } => literals.0.len() + 16 * parts.0.len(),
        }
    }
}

/// What travels on an op stream.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
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
