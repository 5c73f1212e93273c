//! The one place that turns values into bytes and back.
//!
//! The encoding is bincode 2 with its standard configuration (variable-length integers, little endian) through its
//! own derive, always with a limit: a list whose claimed length exceeds the limit of its message is refused before
//! anything is allocated for it. bincode is no longer developed (RUSTSEC-2025-0141); everything that would have to
//! change to leave it is in this file and in the derives of [`crate::message`].

use crate::limits;
use crate::message::{BulkFrame, OpFrame, PairReply, PairRequest, ToReceiver, ToSender};
use bincode::config;
use bincode::de::{Decode, Decoder};
use bincode::enc::Encode;
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
    PairRequest, 4 << 10, "pairing request";
    PairReply, 4 << 10, "pairing reply";
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

/// Encodes a message; refuses what [`decode`] would refuse for its length.
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
    // bincode wants the limit as a constant; the largest message's bounds allocation, the exact one is checked here.
    const LIMIT: usize = limits::BULK_FRAME_BYTES_MAX;
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

/// Decodes a list of at most `max` elements, growing as they arrive instead of trusting the count.
pub(crate) fn decode_list<T, C, D>(decoder: &mut D, max: usize) -> Result<Vec<T>, DecodeError>
where
    T: Decode<C>,
    D: Decoder<Context = C>,
{
    let count = u64::decode(decoder)?;
    if count > max as u64 {
        return Err(DecodeError::LimitExceeded);
    }
    let mut list = Vec::with_capacity((count as usize).min(64));
    for _ in 0..count {
        list.push(T::decode(decoder)?);
    }
    Ok(list)
}

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
