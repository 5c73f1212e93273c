//! Lists and bytes of a bounded length.

use super::bulk::DeltaPart;
use super::control::{HeldSpan, Row, Run};
use super::op::OpMessage;
use super::opening::Relay;
use crate::codec::{decode_bytes, decode_list, encode_list};
use crate::entry::{Digest, ObjectId};
use crate::limits::{
    CONTENTS_NAMES_MAX, DELTA_PARTS_MAX, DOUBTED_PATHS_MAX, ENDED_RUNS_MAX, HELD_SPANS_MAX,
    INLINE_CONTENT_BYTES_MAX, LINK_TARGET_BYTES_MAX, LIST_DIRECTORIES_MAX, LISTING_ROWS_MAX,
    MODULE_NAME_BYTES_MAX, OPS_PER_FRAME_MAX, PATCH_LITERALS_BYTES_MAX, RANGE_BYTES_MAX, RELAYS_MAX,
    SIGNATURE_PART_BYTES_MAX, TEXT_BYTES_MAX,
};
use crate::name::{Name, RelPath};
use bincode::Encode;
use bincode::de::{BorrowDecode, BorrowDecoder, Decode, Decoder};
use bincode::enc::Encoder;
use bincode::error::{DecodeError, EncodeError};

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
