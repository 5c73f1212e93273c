//! The content of offered files, on bulk streams.

use super::lists::{DeltaParts, RangeBytes};
use super::op::check_size;
use crate::codec::{self, CodecFault, Message, checked};
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
    |frame: &BulkFrame| check_range(frame.offset, frame.length)
);

fn check_range(offset: u64, length: u32) -> Result<(), &'static str> {
    let length = u64::from(length);
    if length > RANGE_BYTES_MAX as u64 {
        return Err("a range is longer than its limit");
    }
    check_size(offset.saturating_add(length))
}

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

/// What stands in a frame before the bytes of a [`RangeBody::Raw`]: for whoever has the bytes where they are needed and would only copy
/// them into a [`BulkFrame`], or out of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawHead {
    /// The op that offered the file.
    pub number: u64,
    /// Where the range begins in the target file, in bytes.
    pub offset: u64,
    /// Its length in the target file, in bytes.
    pub length: u32,
}

/// Number, offset, length, which body it is, and how many bytes follow.
type RawFields = (u64, u64, u32, u32, u64);

/// The first of [`RangeBody`].
const RAW: u32 = 0;

impl RawHead {
    /// The most that it takes of a frame.
    pub const BYTES_MAX: usize = 9 + 9 + 5 + 5 + 9;

    /// What [`encode_frame`](crate::codec::encode_frame) makes of the range, up to its bytes, of which there are so many.
    pub fn encode_frame(&self, bytes: usize) -> Result<Vec<u8>, CodecFault> {
        check_range(self.offset, self.length).map_err(|cause| CodecFault::Malformed {
            what: BulkFrame::NAME,
            cause: cause.to_owned(),
        })?;
        if bytes > RANGE_BYTES_MAX {
            return Err(CodecFault::TooLong {
                what: BulkFrame::NAME,
                bytes,
                limit: RANGE_BYTES_MAX,
            });
        }
        let fields: RawFields = (self.number, self.offset, self.length, RAW, bytes as u64);
        codec::encode_start(&fields, bytes)
    }

    /// Reads it from the start of a frame of so many bytes: what it says, and where the range's bytes begin, which go on to the end of
    /// the frame. `start` is as much of the frame as there is, up to [`RawHead::BYTES_MAX`]. `None` for any other frame, and for one
    /// that [`decode`](crate::codec::decode) refuses.
    pub fn decode(start: &[u8], frame: usize) -> Option<(RawHead, usize)> {
        let (fields, used) = codec::decode_start::<RawFields>(start)?;
        let (number, offset, length, body, bytes) = fields;
        let fits = bytes <= RANGE_BYTES_MAX as u64 && frame <= BulkFrame::BYTES_MAX;
        let is_whole = fits && used + bytes as usize == frame;
        let head = RawHead {
            number,
            offset,
            length,
        };
        (body == RAW && is_whole && check_range(offset, length).is_ok()).then_some((head, used))
    }
}
