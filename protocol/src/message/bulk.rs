//! The content of offered files, on bulk streams.

use super::lists::{DeltaParts, RangeBytes};
use super::op::check_size;
use crate::codec::checked;
use crate::limits::RANGE_BYTES_MAX;
use bincode::{Decode, Encode};

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
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
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
    /// The bytes of a span that the receiver told of in [`ToSender::Held`](super::ToSender::Held): they are right.
    Held,
}

/// A part of a delta.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
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
