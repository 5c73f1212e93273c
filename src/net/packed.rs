//! Packed streams: frames inside one zstd stream that lasts as long as the QUIC stream.
//!
//! One side is a thread that encodes and compresses, the other a thread that inflates and decodes; a tokio task moves
//! the bytes. Each end stops when the channel on its other side closes.

use super::compression::{Compression, Queue, Steering};
use crossbeam_channel::{Receiver, Sender};
use driftless_protocol::codec::{self, CodecFault, FrameReader, Message};
use driftless_protocol::limits::COMPRESSION_WINDOW_LOG_MAX;
use std::io::Write;
use tokio::sync::mpsc;
use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation, OutBuffer};

/// Window of our own compressed streams, as a power of two: 4 MiB.
const WINDOW_LOG: u32 = 22;
/// Pieces between a thread and its tokio task.
const PIECES: usize = 4;
/// What is compressed at one level at least, since a change of level forgets what could be referred to.
const LEVEL_BYTES_MIN: usize = 4 << 20;
const PIECE_BYTES: usize = 64 << 10;

/// Bytes on their way to or from a tokio task.
pub type Pieces = mpsc::Receiver<Vec<u8>>;

/// A channel of bytes towards a tokio task.
pub fn pieces() -> (mpsc::Sender<Vec<u8>>, Pieces) {
    mpsc::channel(PIECES)
}

/// Compresses messages until there are no more, or the stream is gone. `collect` turns one message and whatever else
/// is waiting into one frame's message.
pub fn pack<T, M: Message>(
    waiting: &Receiver<T>,
    stream: &mpsc::Sender<Vec<u8>>,
    compression: Compression,
    prefix: &[u8],
    mut collect: impl FnMut(T, &Receiver<T>) -> M,
) -> std::io::Result<()> {
    if !prefix.is_empty() && stream.blocking_send(prefix.to_vec()).is_err() {
        return Ok(());
    }
    let steering = Steering::new(compression);
    let mut level = steering.framing_level();
    let mut encoder = encoder(Vec::new(), level)?;
    let mut at_this_level = 0;
    while let Ok(first) = waiting.recv() {
        let mut next = Some(first);
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
            steering.observe(Queue::of(stream.capacity(), stream.max_capacity()));
        }
        let wanted = steering.framing_level();
        if wanted != level && at_this_level >= LEVEL_BYTES_MIN {
            // zstd takes a new level with a new frame only, which knows nothing of what was before.
            (level, at_this_level) = (wanted, 0);
            let ended = encoder.finish()?;
            encoder = self::encoder(ended, level)?;
        }
        let packed = std::mem::take(encoder.get_mut());
        if stream.blocking_send(packed).is_err() {
            return Ok(());
        }
    }
    Ok(())
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

/// Turns the bytes of a packed stream into messages; in memory that the window and one frame bound, whatever comes.
pub struct Unpacker {
    decoder: Decoder<'static>,
    frames: FrameReader,
    inflated: Vec<u8>,
}

impl Unpacker {
    /// At the beginning of a stream.
    pub fn new() -> Result<Unpacker, UnpackError> {
        let mut decoder = Decoder::new().map_err(UnpackError::Zstd)?;
        decoder
            .set_parameter(DParameter::WindowLogMax(COMPRESSION_WINDOW_LOG_MAX))
            .map_err(UnpackError::Zstd)?;
        Ok(Unpacker {
            decoder,
            frames: FrameReader::default(),
            inflated: vec![0; PIECE_BYTES],
        })
    }

    /// Hands on the messages that are complete with the next bytes of the stream. False once nobody takes them.
    pub fn push<M: Message>(
        &mut self,
        piece: &[u8],
        take: &mut impl FnMut(M) -> bool,
    ) -> Result<bool, UnpackError> {
        let mut input = InBuffer::around(piece);
        loop {
            let mut output = OutBuffer::around(&mut self.inflated[..]);
            self.decoder
                .run(&mut input, &mut output)
                .map_err(UnpackError::Zstd)?;
            let made = output.pos();
            // Frame by frame, so that a bomb meets the frame limit before it has grown.
            self.frames.push(&self.inflated[..made]);
            while let Some(message) = self.frames.next::<M>()? {
                if !take(message) {
                    return Ok(false);
                }
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

/// Writes what the thread packed to the QUIC stream.
pub async fn write_pieces(mut stream: quinn::SendStream, mut pieces: Pieces) {
    while let Some(piece) = pieces.recv().await {
        if stream.write_chunk(piece.into()).await.is_err() {
            return;
        }
    }
    let _ = stream.finish();
}

/// Reads the QUIC stream for the thread that unpacks. False if the peer reset it.
pub async fn read_pieces(mut stream: quinn::RecvStream, pieces: mpsc::Sender<Vec<u8>>) -> bool {
    loop {
        match stream.read_chunk(PIECE_BYTES, true).await {
            Ok(Some(chunk)) if pieces.send(chunk.bytes.to_vec()).await.is_ok() => {}
            Err(quinn::ReadError::Reset(_)) => return false,
            _ => return true,
        }
    }
}
