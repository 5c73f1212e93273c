//! Packed streams: frames inside one zstd stream that lasts as long as the QUIC stream.
//!
//! One side is a thread that encodes and compresses, the other a thread that inflates and decodes; a tokio task moves
//! the bytes. Each end stops when the channel on its other side closes.

use super::compression::{Compression, Queue, Steering, Stint};
use super::congestion::Permit;
use super::link::Control;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use driftless_protocol::codec::{self, CodecFault, FrameReader, Message};
use driftless_protocol::limits::COMPRESSION_WINDOW_LOG_MAX;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation, OutBuffer};

/// Window of our own compressed op streams, as a power of two: 8 MiB, which is 5 % less on source trees than 4. Both sides have
/// that much memory for each stream on which so much has passed.
const WINDOW_LOG: u32 = COMPRESSION_WINDOW_LOG_MAX;
/// Pieces between a thread and its tokio task.
const PIECES: usize = 4;
/// What is compressed at one level at least, since a change of level forgets what could be referred to.
const LEVEL_BYTES_MIN: usize = 4 << 20;
const PIECE_BYTES: usize = 64 << 10;
/// How long there is nothing to say before a stream rests. What comes later cannot refer to what was before.
const REST: Duration = Duration::from_secs(2);

/// Bytes on their way to or from a tokio task.
pub type Pieces = mpsc::Receiver<Vec<u8>>;

/// A channel of bytes towards a tokio task.
pub fn pieces() -> (mpsc::Sender<Vec<u8>>, Pieces) {
    mpsc::channel(PIECES)
}

/// How often a stream of this process came to rest, and its memory was freed.
static RESTS: AtomicU64 = AtomicU64::new(0);

/// How often a stream of this process came to rest since it began: a change tells that megabytes were freed, which the
/// allocator may keep.
pub fn rests() -> u64 {
    RESTS.load(Ordering::Relaxed)
}

/// How a run of [`Packer::pack`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pause {
    /// Nobody will send anything more, or the stream is gone.
    Ended,
    /// There was nothing to send for a while.
    Idle,
}

/// Compresses messages for a stream.
///
/// What compresses has a megabyte of tables, and is made anew after a rest: most streams of a process with hundreds of
/// mirrors have nothing to say.
#[derive(Debug)]
pub struct Packer {
    stream: mpsc::Sender<Vec<u8>>,
    compression: Compression,
    /// What the level follows.
    link: Arc<Permit>,
    /// Said first; empty once it was.
    prefix: Vec<u8>,
}

impl Packer {
    /// For a stream that begins with `prefix`. Nothing is sent before there is a message.
    pub fn new(
        stream: mpsc::Sender<Vec<u8>>,
        compression: Compression,
        link: Arc<Permit>,
        prefix: &[u8],
    ) -> Packer {
        Packer {
            stream,
            compression,
            link,
            prefix: prefix.to_vec(),
        }
    }

    /// Compresses messages until there is none for a while. `collect` turns one message and whatever else is waiting into
    /// one frame's message.
    pub fn pack<T, M: Message>(
        &mut self,
        waiting: &Receiver<T>,
        collect: impl FnMut(T, &Receiver<T>) -> M,
    ) -> std::io::Result<Pause> {
        match waiting.recv_timeout(REST) {
            Ok(first) => self.pack_after(first, waiting, collect),
            Err(RecvTimeoutError::Timeout) => Ok(Pause::Idle),
            Err(RecvTimeoutError::Disconnected) => Ok(Pause::Ended),
        }
    }

    fn pack_after<T, M: Message>(
        &mut self,
        first: T,
        waiting: &Receiver<T>,
        mut collect: impl FnMut(T, &Receiver<T>) -> M,
    ) -> std::io::Result<Pause> {
        let prefix = std::mem::take(&mut self.prefix);
        if !prefix.is_empty() && self.stream.blocking_send(prefix).is_err() {
            return Ok(Pause::Ended);
        }
        let steering = Steering::new(self.compression, self.link.clone());
        let mut level = steering.framing_level();
        let mut encoder = encoder(Vec::new(), level)?;
        let mut at_this_level = 0;
        let mut first = Some(first);
        while let Some(item) = first.take() {
            let mut next = Some(item);
            let stint = Stint::begin();
            // Everything that waits goes into one flush, within a piece's bytes.
            while let Some(item) = next.take() {
                let frame = codec::encode_frame(&collect(item, waiting))
                    .map_err(|fault| std::io::Error::new(std::io::ErrorKind::InvalidData, fault))?;
                encoder.write_all(&frame)?;
                at_this_level += frame.len();
                if encoder.get_ref().len() < PIECE_BYTES {
                    next = waiting.try_recv().ok();
                }
            }
            encoder.flush()?;
            // A lone message tells nothing: only what has more behind it can be too slow.
            if !waiting.is_empty() {
                let queue = Queue::of(self.stream.capacity(), self.stream.max_capacity());
                steering.observe(queue, stint.had_processor());
            }
            let wanted = steering.framing_level();
            if wanted != level && at_this_level >= LEVEL_BYTES_MIN {
                // zstd takes a new level with a new frame only, which knows nothing of what was before.
                (level, at_this_level) = (wanted, 0);
                let ended = encoder.finish()?;
                encoder = self::encoder(ended, level)?;
            }
            let packed = std::mem::take(encoder.get_mut());
            if self.stream.blocking_send(packed).is_err() {
                return Ok(Pause::Ended);
            }
            match waiting.recv_timeout(REST) {
                Ok(message) => first = Some(message),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(Pause::Ended),
            }
        }
        // The end of the frame lets the other side forget its window, too.
        let rest = encoder.finish()?;
        RESTS.fetch_add(1, Ordering::Relaxed);
        Ok(match self.stream.blocking_send(rest) {
            Ok(()) => Pause::Idle,
            Err(_) => Pause::Ended,
        })
    }
}

fn encoder(into: Vec<u8>, level: i32) -> std::io::Result<zstd::stream::write::Encoder<'static, Vec<u8>>> {
    let mut encoder = zstd::stream::write::Encoder::new(into, level)?;
    encoder.window_log(WINDOW_LOG)?;
    Ok(encoder)
}

/// Why a packed stream cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// A frame is wrong.
    #[error(transparent)]
    Codec(#[from] CodecFault),
    /// The compressed bytes are wrong, or want a larger window than allowed.
    #[error("the compressed stream is damaged: {0}")]
    Zstd(std::io::Error),
    /// It ended too early.
    #[error("a stream ended inside a frame")]
    Cut,
}

/// Inflates and decodes a stream until it ends, or nobody takes the messages any more.
pub fn unpack<M: Message>(pieces: &mut Pieces, messages: &Sender<M>) -> Result<(), UnpackError> {
    let mut unpacker = Unpacker::new()?;
    while let Some(piece) = pieces.blocking_recv() {
        if !unpacker.push(&piece, &mut |message| messages.send(message).is_ok())? {
            return Ok(());
        }
    }
    unpacker.finish()
}

/// Signs of life in one piece of a stream: two a second are sent.
const SIGNS_OF_LIFE_MAX: u32 = 64;

/// The same for a control stream, which mostly rests: there is a thread only while there is something to inflate, or while nobody
/// takes the messages. Signs of life have done their work once they are here.
pub async fn unpack_now_and_then<M: Control>(
    mut pieces: Pieces,
    messages: &Sender<M>,
) -> Result<(), UnpackError> {
    let mut unpacker = Unpacker::new()?;
    while let Some(piece) = pieces.recv().await {
        let messages = messages.clone();
        let pushing = tokio::task::spawn_blocking(move || {
            let mut signs = 0;
            let mut take = |message| {
                signs += u32::from(message == M::SIGN_OF_LIFE);
                // More than honest peers send wait for whoever takes the messages, as those do.
                let is_dropped = message == M::SIGN_OF_LIFE && signs <= SIGNS_OF_LIFE_MAX;
                is_dropped || messages.send(message).is_ok()
            };
            let is_taken = unpacker.push(&piece, &mut take);
            (unpacker, is_taken)
        });
        let is_taken;
        // Fails when the runtime ends, or after a defect in the decoder, which then ends the link as well.
        (unpacker, is_taken) = pushing.await.map_err(|_| UnpackError::Cut)?;
        if !is_taken? {
            return Ok(());
        }
    }
    unpacker.finish()
}

/// Turns the bytes of a packed stream into messages; in memory that the window and one frame bound, whatever comes.
pub struct Unpacker {
    /// None at the beginning of a zstd frame: what was before cannot be referred to.
    inflater: Option<Inflater>,
    frames: FrameReader,
}

struct Inflater {
    decoder: Decoder<'static>,
    inflated: Vec<u8>,
}

impl Inflater {
    fn new() -> Result<Inflater, UnpackError> {
        let mut decoder = Decoder::new().map_err(UnpackError::Zstd)?;
        decoder
            .set_parameter(DParameter::WindowLogMax(COMPRESSION_WINDOW_LOG_MAX))
            .map_err(UnpackError::Zstd)?;
        Ok(Inflater {
            decoder,
            inflated: vec![0; PIECE_BYTES],
        })
    }
}

impl Unpacker {
    /// At the beginning of a stream.
    pub fn new() -> Result<Unpacker, UnpackError> {
        Ok(Unpacker {
            inflater: None,
            frames: FrameReader::default(),
        })
    }

    /// Hands on the messages that are complete with the next bytes of the stream. False once nobody takes them.
    pub fn push<M: Message>(
        &mut self,
        piece: &[u8],
        take: &mut impl FnMut(M) -> bool,
    ) -> Result<bool, UnpackError> {
        if piece.is_empty() {
            return Ok(true);
        }
        let inflater = match &mut self.inflater {
            Some(inflater) => inflater,
            none => none.insert(Inflater::new()?),
        };
        let mut input = InBuffer::around(piece);
        loop {
            let mut output = OutBuffer::around(&mut inflater.inflated[..]);
            let wanted = inflater
                .decoder
                .run(&mut input, &mut output)
                .map_err(UnpackError::Zstd)?;
            let made = output.pos();
            // Frame by frame, so that a bomb meets the frame limit before it has grown.
            self.frames.push(&inflater.inflated[..made]);
            while let Some(message) = self.frames.next::<M>()? {
                if !take(message) {
                    return Ok(false);
                }
            }
            if input.pos() == piece.len() && wanted == 0 {
                self.inflater = None;
                RESTS.fetch_add(1, Ordering::Relaxed);
                return Ok(true);
            }
            if input.pos() == piece.len() && made < PIECE_BYTES {
                return Ok(true);
            }
        }
    }

    /// At the end of the stream.
    pub fn finish(self) -> Result<(), UnpackError> {
        match self.frames.is_empty() {
            true => Ok(()),
            false => Err(UnpackError::Cut),
        }
    }
}

impl std::fmt::Debug for Unpacker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Unpacker(..)")
    }
}
