//! Messages of a connection between the two processes: the frames of the protocol's codec, one behind the other.

use crate::net::ranges::raw;
use crossbeam_channel::Receiver;
use driftless_protocol::codec::{self, CodecFault, FRAME_PREFIX_BYTES, Message};
use driftless_protocol::message::{BulkFrame, RawHead};
use std::io::{self, Read, Write};

/// Memory of a message that is kept for the next: connections are many, and most of them rest.
const KEPT_BYTES: usize = 16 << 10;
/// What small messages are gathered to before they are written.
const GATHERED_BYTES: usize = 64 << 10;

/// Why nothing more can be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameFault {
    /// The socket failed, or was shut.
    #[error("cannot read from the process that speaks to the network: {0}")]
    Io(#[from] io::Error),
    /// It ended too early.
    #[error("a message broke off")]
    Cut,
    /// A frame is wrong.
    #[error(transparent)]
    Codec(#[from] CodecFault),
}

/// Reads frames; the memory of a small one is used for the next.
#[derive(Debug)]
pub(super) struct Frames<R> {
    from: R,
    body: Vec<u8>,
}

impl<R: Read> Frames<R> {
    pub(super) fn new(from: R) -> Frames<R> {
        let body = Vec::new();
        Frames { from, body }
    }

    /// The next message; none at the end. A length over the limit is refused before there is memory for it.
    pub(super) fn next<M: Message>(&mut self) -> Result<Option<M>, FrameFault> {
        let Some(length) = self.next_length::<M>()? else {
            return Ok(None);
        };
        let mut body = std::mem::take(&mut self.body);
        body.resize(length, 0);
        let read = self.fill(&mut body)?;
        if read < length {
            return Err(FrameFault::Cut);
        }
        let message = codec::decode(&body)?;
        if body.capacity() <= KEPT_BYTES {
            self.body = body;
        }
        Ok(Some(message))
    }

    /// As [`Frames::next`], of a range. Bytes that are given raw are read to where they stay, into memory that nobody has cleared.
    pub(super) fn next_range(&mut self) -> Result<Option<BulkFrame>, FrameFault> {
        let Some(length) = self.next_length::<BulkFrame>()? else {
            return Ok(None);
        };
        let mut start = [0; RawHead::BYTES_MAX];
        let start = &mut start[..length.min(RawHead::BYTES_MAX)];
        if self.fill(start)? < start.len() {
            return Err(FrameFault::Cut);
        }
        let head = RawHead::decode(start, length);
        let at = head.map_or(0, |(_, at)| at);
        let mut bytes = Vec::with_capacity(length - at);
        bytes.extend_from_slice(&start[at..]);
        let missing = (length - start.len()) as u64;
        if self.from.by_ref().take(missing).read_to_end(&mut bytes)? < length - start.len() {
            return Err(FrameFault::Cut);
        }
        Ok(Some(match head {
            Some((head, _)) => raw(head, bytes),
            None => codec::decode(&bytes)?,
        }))
    }

    /// The length of the next message; none at the end.
    fn next_length<M: Message>(&mut self) -> Result<Option<usize>, FrameFault> {
        let mut prefix = [0; FRAME_PREFIX_BYTES];
        match self.fill(&mut prefix)? {
            0 => return Ok(None),
            FRAME_PREFIX_BYTES => {}
            _ => return Err(FrameFault::Cut),
        }
        let length = u32::from_be_bytes(prefix) as usize;
        if length > M::BYTES_MAX {
            let (what, limit) = (M::NAME, M::BYTES_MAX);
            let bytes = length;
            return Err(CodecFault::TooLong { what, bytes, limit }.into());
        }
        Ok(Some(length))
    }

    /// Reads until the buffer is full or all is read.
    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.from.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

/// Writes a message and those that wait behind it, small ones together. `frame` encodes one.
pub(super) fn write_waiting<T>(
    to: &mut impl Write,
    first: T,
    waiting: &Receiver<T>,
    frame: impl Fn(&T) -> Result<Vec<u8>, CodecFault>,
) -> io::Result<()> {
    let wrong = |fault: CodecFault| io::Error::new(io::ErrorKind::InvalidData, fault);
    let mut gathered = frame(&first).map_err(wrong)?;
    while gathered.len() < GATHERED_BYTES
        && let Ok(next) = waiting.try_recv()
    {
        gathered.extend_from_slice(&frame(&next).map_err(wrong)?);
    }
    to.write_all(&gathered)
}
