//! Every maximum of the wire. Both ends check each of them: the encoder refuses what the decoder would.

/// Bytes in one element of a path (`NAME_MAX` of Linux).
pub const NAME_BYTES_MAX: usize = 255;

/// Elements in a relative path. Deeper trees are walked by directory handle; only `verify` and targets name paths.
pub const PATH_ELEMENTS_MAX: usize = 4_096;

/// Bytes in the text of a symbolic link (`PATH_MAX` of Linux, less the terminator).
pub const LINK_TARGET_BYTES_MAX: usize = 4_095;

/// Bytes in the name of an extended attribute (`XATTR_NAME_MAX` of Linux).
pub const XATTR_NAME_BYTES_MAX: usize = 255;

/// Bytes in the value of an extended attribute (`XATTR_SIZE_MAX` of Linux).
pub const XATTR_VALUE_BYTES_MAX: usize = 64 << 10;

/// Extended attributes of one object.
pub const XATTRS_MAX: usize = 1_024;

/// Bytes in the names and values of all extended attributes of one object.
pub const XATTR_SET_BYTES_MAX: usize = 256 << 10;

/// Bytes in the name of a user or group.
pub const OWNER_NAME_BYTES_MAX: usize = 255;

/// Users and groups in one `Owners` message or op.
pub const OWNERS_MAX: usize = 2_048;

/// Users and groups that a sender names in one connection.
pub const OWNERS_TOTAL_MAX: usize = 65_536;

/// Bytes in the name of a module.
pub const MODULE_NAME_BYTES_MAX: usize = 64;

/// Bytes of human text in a refusal or a failed outcome.
pub const TEXT_BYTES_MAX: usize = 1_024;

/// Bytes of one control message, encoded, before compression.
pub const CONTROL_MESSAGE_BYTES_MAX: usize = 1 << 20;

/// Bytes of one frame on an op stream, encoded, before compression.
pub const OP_FRAME_BYTES_MAX: usize = (1 << 20) + (400 << 10);

/// Confirmations asked for and not answered.
pub const CONFIRMS_MAX: usize = 1_024;

/// Ops in one frame of an op stream.
pub const OPS_PER_FRAME_MAX: usize = 4_096;

/// Bytes of file content that may travel inside an op; larger contents are offered and travel as ranges.
pub const INLINE_CONTENT_BYTES_MAX: usize = 256 << 10;

/// Bytes of the literals of a patch inside an op, compressed: a range of noise, and what zstd adds to it. With as many parts
/// and extended attributes as there may be they fit an op frame.
pub const PATCH_LITERALS_BYTES_MAX: usize = RANGE_BYTES_MAX + (8 << 10);

/// Bytes of the target file that one range may cover.
pub const RANGE_BYTES_MAX: usize = 1 << 20;

/// Bytes of one frame on a bulk stream, encoded.
pub const BULK_FRAME_BYTES_MAX: usize = RANGE_BYTES_MAX + (128 << 10);

/// Parts (copies and literals) in the delta of one range. A range of 1 MiB made of 512-byte blocks needs 2,048
/// copies with a literal between each two.
pub const DELTA_PARTS_MAX: usize = 4_100;

/// Rows in one `Listing` message; a larger directory takes several.
pub const LISTING_ROWS_MAX: usize = 2_048;

/// Directories asked for in one `List` message.
pub const LIST_DIRECTORIES_MAX: usize = 4_096;

/// Files whose digests one `ReadContents` asks for.
pub const CONTENTS_NAMES_MAX: usize = 1_024;

/// Paths in one `Doubt`. Their sender keeps the message within its limit in bytes, too.
pub const DOUBTED_PATHS_MAX: usize = 1_024;

/// Bytes of signature in one `Signature` message.
pub const SIGNATURE_PART_BYTES_MAX: usize = 256 << 10;

/// Bytes of a span: what a receiver that kept a part of a file tells of it, in sums of aligned runs of this length.
pub const SPAN_BYTES: u64 = 1 << 20;

/// Spans in one `Held` message.
pub const HELD_SPANS_MAX: usize = 8_192;

/// Spans of one file that a receiver tells of in all (256 GiB); what it holds beyond them is sent again.
pub const HELD_SPANS_TOTAL_MAX: usize = 256 << 10;

/// Bytes of a whole signature. A basis that would need more is sent whole.
pub const SIGNATURE_BYTES_MAX: usize = 64 << 20;

/// Ops that a sender may have in flight (sent, not yet ended by an outcome).
pub const OPS_IN_FLIGHT_MAX: usize = 65_536;

/// Runs of op numbers in one `Ended` message.
pub const ENDED_RUNS_MAX: usize = 512;

/// Trees that the source of a mirror is a copy of, one from the other, in an [`Open`](crate::message::Open).
pub const RELAYS_MAX: usize = 16;

/// Bytes of content inside ops in flight: what a receiver has to hold in memory. A sender stays below half of it.
pub const INLINE_IN_FLIGHT_BYTES_MAX: usize = 64 << 20;

/// Files whose contents may be wanted (asked for by `Need`) at one time.
pub const WANTED_FILES_MAX: usize = 256;

/// Bytes of one message on a pairing connection, encoded.
pub const PAIRING_MESSAGE_BYTES_MAX: usize = 4 << 10;

/// Bytes of the request on a pull connection, encoded.
pub const PULL_MESSAGE_BYTES_MAX: usize = 256;

/// Bytes of one note about a session, encoded.
pub const NOTE_BYTES_MAX: usize = 2 << 10;

/// Bytes in a pairing secret.
pub const PAIRING_SECRET_BYTES: usize = 16;

/// Permission bits with set-id and sticky: no other bit is an attribute.
pub const MODE_MAX: u16 = 0o7777;

/// Largest window of a compressed stream, as a power of two (8 MiB). A decoder refuses more before it allocates.
pub const COMPRESSION_WINDOW_LOG_MAX: u32 = 23;

/// Bytes of the largest file that is described: `i64::MAX`, what a Linux file offset can hold.
pub const FILE_BYTES_MAX: u64 = i64::MAX as u64;
