//! The one place that turns values into bytes and back.
//!
//! The encoding is bincode 2 with its standard configuration (variable-length integers, little endian) through its
//! own derive. Lists and bytes go through `encode_list`, `decode_list` and `decode_bytes`, which check their
//! maximum on both sides: a length over it is refused before anything is allocated for it. bincode is no longer
//! developed (RUSTSEC-2025-0141); everything that would have to change to leave it is in this file and in the derives
//! of [`crate::message`].

use crate::limits;
use crate::message::{BulkFrame, Note, OpFrame, PairReply, PairRequest, PullRequest, ToReceiver, ToSender};
use bincode::config;
use bincode::de::read::Reader;
use bincode::de::{Decode, Decoder};
use bincode::enc::{Encode, Encoder};
use bincode::error::{DecodeError, EncodeError};
use thiserror::Error;

/// A value that travels in a frame of its own.
pub trait Message: Encode + Decode<()> {
    /// Its largest encoding in bytes.
    const BYTES_MAX: usize;
    /// What it is called in errors.
    const NAME: &'static str;
}

macro_rules! message {
    ($($type:ty, $max:expr, $name:literal;)*) => {
        $(impl Message for $type {
            const BYTES_MAX: usize = $max;
            const NAME: &'static str = $name;
        })*
    };
}

message! {
    ToReceiver, limits::CONTROL_MESSAGE_BYTES_MAX, "control message";
    ToSender, limits::CONTROL_MESSAGE_BYTES_MAX, "control message";
    OpFrame, limits::OP_FRAME_BYTES_MAX, "op frame";
    BulkFrame, limits::BULK_FRAME_BYTES_MAX, "bulk frame";
    PairRequest, limits::PAIRING_MESSAGE_BYTES_MAX, "pairing request";
    PairReply, limits::PAIRING_MESSAGE_BYTES_MAX, "pairing reply";
    PullRequest, limits::PULL_MESSAGE_BYTES_MAX, "pull request";
    Note, limits::NOTE_BYTES_MAX, "note";
}

/// Why a value could not be read or written.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CodecFault {
    /// The bytes are not a value of this type.
    #[error("a {what} can't be read: {cause}")]
    Malformed {
        /// The message.
        what: &'static str,
        /// What bincode found.
        cause: String,
    },
    /// Bytes were left over behind the value.
    #[error("a {what} is followed by {bytes} unexpected bytes")]
    Trailing {
        /// The message.
        what: &'static str,
        /// How many.
        bytes: usize,
    },
    /// The value, or the frame that announces it, is over its limit.
    #[error("a {what} of {bytes} bytes is over its limit of {limit}")]
    TooLong {
        /// The message.
        what: &'static str,
        /// Its length.
        bytes: usize,
        /// What is allowed.
        limit: usize,
    },
}

/// Encodes a message; refuses what [`decode`] would refuse.
pub fn encode<M: Message>(message: &M) -> Result<Vec<u8>, CodecFault> {
    let bytes = bincode::encode_to_vec(message, config::standard()).map_err(|error: EncodeError| {
        CodecFault::Malformed {
            what: M::NAME,
            cause: error.to_string(),
        }
    })?;
    check_length::<M>(bytes.len())?;
    Ok(bytes)
}

/// Decodes a message that fills `bytes` exactly.
pub fn decode<M: Message>(bytes: &[u8]) -> Result<M, CodecFault> {
    // A net below our own checks. bincode counts a number by its size in memory, which is up to 16 times its size on
    // the wire; with a smaller limit it would refuse full frames of small ops.
    const LIMIT: usize = 16 * limits::BULK_FRAME_BYTES_MAX;
    check_length::<M>(bytes.len())?;
    let (value, used) =
        bincode::decode_from_slice(bytes, config::standard().with_limit::<LIMIT>()).map_err(|error| {
            CodecFault::Malformed {
                what: M::NAME,
                cause: error.to_string(),
            }
        })?;
    match bytes.len() - used {
        0 => Ok(value),
        left => Err(CodecFault::Trailing {
            what: M::NAME,
            bytes: left,
        }),
    }
}

fn check_length<M: Message>(bytes: usize) -> Result<(), CodecFault> {
    if bytes > M::BYTES_MAX {
        return Err(CodecFault::TooLong {
            what: M::NAME,
            bytes,
            limit: M::BYTES_MAX,
        });
    }
    Ok(())
}

/// Encodes a list or bytes of at most `max` elements.
pub(crate) fn encode_list<T: Encode + 'static, E: Encoder>(
    encoder: &mut E,
    list: &[T],
    max: usize,
) -> Result<(), EncodeError> {
    if list.len() > max {
        return Err(EncodeError::Other("a list or bytes longer than their limit"));
    }
    list.encode(encoder)
}

/// Decodes a list of at most `max` elements, growing as they arrive instead of trusting the count.
pub(crate) fn decode_list<T, C, D>(decoder: &mut D, max: usize) -> Result<Vec<T>, DecodeError>
where
    T: Decode<C>,
    D: Decoder<Context = C>,
{
    let count = decode_count(decoder, max)?;
    let mut list = Vec::with_capacity(count.min(64));
    for _ in 0..count {
        list.push(T::decode(decoder)?);
    }
    Ok(list)
}

/// Decodes at most `max` bytes, in one piece.
pub(crate) fn decode_bytes<D: Decoder>(decoder: &mut D, max: usize) -> Result<Vec<u8>, DecodeError> {
    let count = decode_count(decoder, max)?;
    decoder.claim_bytes_read(count)?;
    let mut bytes = vec![0; count];
    decoder.reader().read(&mut bytes)?;
    Ok(bytes)
}

fn decode_count<D: Decoder>(decoder: &mut D, max: usize) -> Result<usize, DecodeError> {
    match u64::decode(decoder)? {
        count if count > max as u64 => Err(DecodeError::LimitExceeded),
        count => Ok(count as usize),
    }
}

/// Implements encoding and decoding of a struct, field by field, with a check of the whole on both sides.
macro_rules! checked {
    ($type:ident { $($field:ident),+ $(,)? }, $check:expr) => {
        impl bincode::Encode for $type {
            fn encode<E: bincode::enc::Encoder>(&self, encoder: &mut E) -> Result<(), bincode::error::EncodeError> {
                $check(self).map_err(bincode::error::EncodeError::Other)?;
                $(self.$field.encode(encoder)?;)+
                Ok(())
            }
        }

        impl<C> bincode::Decode<C> for $type {
            fn decode<D: bincode::de::Decoder<Context = C>>(
                decoder: &mut D,
            ) -> Result<Self, bincode::error::DecodeError> {
                let value = $type { $($field: bincode::Decode::decode(decoder)?),+ };
                $check(&value).map_err(bincode::error::DecodeError::Other)?;
                Ok(value)
            }
        }

        impl<'de, C> bincode::BorrowDecode<'de, C> for $type {
            fn borrow_decode<D: bincode::de::BorrowDecoder<'de, Context = C>>(
                decoder: &mut D,
            ) -> Result<Self, bincode::error::DecodeError> {
                bincode::Decode::decode(decoder)
            }
        }
    };
}
pub(crate) use checked;

/// Length of the prefix of a frame in bytes: a 32-bit length, big endian.
pub const FRAME_PREFIX_BYTES: usize = 4;

/// Encodes a message with its length in front.
pub fn encode_frame<M: Message>(message: &M) -> Result<Vec<u8>, CodecFault> {
    let body = encode(message)?;
    let mut frame = Vec::with_capacity(FRAME_PREFIX_BYTES + body.len());
    frame.extend_from_slice(&(body.len() as u32).to_be_bytes());
    frame.extend_from_slice(&body);
    Ok(frame)
}

/// Encodes what a message starts with, with the length of the message in front, of which so many bytes follow.
pub(crate) fn encode_start<T: Encode>(start: &T, following: usize) -> Result<Vec<u8>, CodecFault> {
    let mut frame = vec![0; FRAME_PREFIX_BYTES];
    bincode::encode_into_std_write(start, &mut frame, config::standard()).map_err(|error| {
        CodecFault::Malformed {
            what: BulkFrame::NAME,
            cause: error.to_string(),
        }
    })?;
    let length = frame.len() - FRAME_PREFIX_BYTES + following;
    check_length::<BulkFrame>(length)?;
    frame[..FRAME_PREFIX_BYTES].copy_from_slice(&(length as u32).to_be_bytes());
    Ok(frame)
}

/// Decodes what bytes start with, and tells how many of them that was.
pub(crate) fn decode_start<T: Decode<()>>(bytes: &[u8]) -> Option<(T, usize)> {
    bincode::decode_from_slice(bytes, config::standard()).ok()
}

/// Cuts a stream of bytes into messages. "Need more bytes" is `Ok(None)`, never an error.
#[derive(Debug, Default)]
pub struct FrameReader {
    buffer: Vec<u8>,
    start: usize,
}

impl FrameReader {
    /// Adds bytes that arrived. The buffer holds at most what was pushed and not yet read: callers read all whole
    /// frames before they push again.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message, if it has arrived. An announced length over the limit is refused at once.
    #[expect(
        clippy::should_implement_trait,
        reason = "the type of message is the caller's to say, frame by frame"
    )]
    pub fn next<M: Message>(&mut self) -> Result<Option<M>, CodecFault> {
        let waiting = &self.buffer[self.start..];
        let Some((prefix, rest)) = waiting.split_at_checked(FRAME_PREFIX_BYTES) else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([prefix[0], prefix[1], prefix[2], prefix[3]]) as usize;
        check_length::<M>(length)?;
        let Some(body) = rest.get(..length) else {
            return Ok(None);
        };
        let message = decode(body)?;
        self.start += FRAME_PREFIX_BYTES + length;
        Ok(Some(message))
    }

    /// Whether no part of a frame is waiting.
    pub fn is_empty(&self) -> bool {
        self.start == self.buffer.len()
    }
}
