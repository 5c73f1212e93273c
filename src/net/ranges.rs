//! Frames of ranges on their way. Their bytes are most of what a connection carries, and are copied as rarely as can be: a sender
//! hands QUIC the memory that a file was read into, and what QUIC received is handed on, or put together, in one go.

use bytes::{Bytes, BytesMut};
use driftless_protocol::codec::{self, CodecFault};
use driftless_protocol::message::{BulkFrame, RangeBody, RangeBytes, RawHead};
use std::io::{self, IoSlice, Write};

/// Smaller pieces are copied together: each piece that stands by itself costs some memory beside its bytes, and holds on to the packets
/// that it came with.
const PIECE_BYTES_MIN: usize = 512;
/// What a piece may hold on to: packets that came at once share their memory.
const HELD_BY_A_PIECE: usize = 64 << 10;
/// Pieces of packets that came at once are as close to each other: headers and tags are between them.
const BETWEEN_PIECES: usize = 512;
/// How many times as much memory as there are bytes a frame may hold on to, beside [`HELD_MORE`].
const HELD_TIMES: usize = 4;
const HELD_MORE: usize = 8 * HELD_BY_A_PIECE;

/// A frame that is to be sent.
#[derive(Debug)]
pub(super) struct Leaving([Bytes; 2]);

impl Leaving {
    /// Encodes a frame, all but the bytes of a raw range.
    pub(super) fn of(frame: BulkFrame) -> Result<Leaving, CodecFault> {
        let head = RawHead {
            number: frame.number,
            offset: frame.offset,
            length: frame.length,
        };
        Ok(Leaving(match frame.body {
            RangeBody::Raw(RangeBytes(bytes)) => [head.encode_frame(bytes.len())?.into(), bytes.into()],
            _ => [codec::encode_frame(&frame)?.into(), Bytes::new()],
        }))
    }

    /// What is to be written, one behind the other.
    pub(super) fn into_parts(self) -> impl Iterator<Item = Bytes> {
        self.0.into_iter().filter(|part| !part.is_empty())
    }
}

/// A frame that has arrived, or a part of it, without its length in front.
#[derive(Debug, Default)]
pub(super) struct Arrived {
    pieces: Vec<Bytes>,
    /// Small pieces, which follow.
    small: BytesMut,
    bytes: usize,
    /// Where the last piece that stands by itself ends.
    end: usize,
    /// In how many places of memory the pieces that stand by themselves are.
    places: usize,
}

impl Arrived {
    /// How much there is.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What it says if it is the length in front of a frame.
    pub(super) fn to_length(&self) -> usize {
        let number = self.join(0, size_of::<u32>()).into_iter();
        number.fold(0, |length, byte| (length << 8) | usize::from(byte))
    }

    /// Takes in what comes next. A peer that sends little in each of many packets gets it copied, so that no more memory is held than a
    /// few times what it sent.
    pub(super) fn push(&mut self, piece: Bytes) {
        self.bytes += piece.len();
        let start = piece.as_ptr() as usize;
        let is_next = start
            .checked_sub(self.end)
            .is_some_and(|gap| gap < BETWEEN_PIECES);
        let places = self.places + usize::from(!is_next);
        let is_worth_it = places * HELD_BY_A_PIECE <= HELD_TIMES * self.bytes + HELD_MORE;
        if piece.len() < PIECE_BYTES_MIN || !is_worth_it {
            return self.small.extend_from_slice(&piece);
        }
        (self.places, self.end) = (places, start + piece.len());
        self.join_small();
        self.pieces.push(piece);
    }

    fn join_small(&mut self) {
        if !self.small.is_empty() {
            self.pieces.push(self.small.split().freeze());
        }
    }

    fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let small = Some(&self.small[..]).filter(|small| !small.is_empty());
        self.pieces.iter().map(|piece| &piece[..]).chain(small)
    }

    /// The bytes from the first on, behind those that are skipped, in one piece: at most so many.
    fn join(&self, skip: usize, most: usize) -> Vec<u8> {
        let (mut skip, mut joined) = (skip, Vec::with_capacity(most.min(self.bytes)));
        for piece in self.pieces() {
            let skipped = skip.min(piece.len());
            skip -= skipped;
            let taken = (piece.len() - skipped).min(most - joined.len());
            joined.extend_from_slice(&piece[skipped..skipped + taken]);
        }
        joined
    }

    /// Decodes it.
    pub(super) fn decode(&self) -> Result<BulkFrame, CodecFault> {
        let start = self.join(0, RawHead::BYTES_MAX);
        match RawHead::decode(&start, self.bytes) {
            Some((head, at)) => Ok(raw(head, self.join(at, self.bytes - at))),
            None => codec::decode(&self.join(0, self.bytes)),
        }
    }

    /// Writes it with its length in front.
    pub(super) fn write_to(&self, to: &mut impl Write) -> io::Result<()> {
        // Frames are limited far below that when they are read.
        let length = u32::try_from(self.bytes).unwrap_or(u32::MAX).to_be_bytes();
        let pieces = std::iter::once(&length[..]).chain(self.pieces());
        let mut slices: Vec<IoSlice<'_>> = pieces.map(IoSlice::new).collect();
        let mut left = &mut slices[..];
        while !left.is_empty() {
            match to.write_vectored(left) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut left, written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// A raw range of these bytes.
pub(super) fn raw(head: RawHead, bytes: Vec<u8>) -> BulkFrame {
    let RawHead {
        number,
        offset,
        length,
    } = head;
    BulkFrame {
        number,
        offset,
        length,
        body: RangeBody::Raw(RangeBytes(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The end of 64 KiB that are shared.
    fn lone(bytes: usize) -> Bytes {
        let packets = Bytes::from(vec![7; HELD_BY_A_PIECE]);
        packets.slice(HELD_BY_A_PIECE - bytes..)
    }

    #[test]
    fn what_is_held_is_a_few_times_what_was_sent() {
        let mut arrived = Arrived::default();
        (0..2_000).for_each(|_| arrived.push(lone(600)));
        assert_eq!(arrived.bytes(), 2_000 * 600);
        assert!(arrived.places * HELD_BY_A_PIECE <= HELD_TIMES * arrived.bytes() + HELD_MORE);
        assert!(arrived.pieces.len() <= 2 * arrived.places + 1);
        assert_eq!(arrived.join(0, usize::MAX), vec![7; 2_000 * 600]);
    }

    #[test]
    fn packets_that_came_at_once_are_not_copied() {
        let mut arrived = Arrived::default();
        let batches: Vec<Bytes> = (0..40_u8)
            .map(|n| Bytes::from(vec![n; HELD_BY_A_PIECE]))
            .collect();
        let pieces = |batch: &Bytes| -> Vec<Bytes> {
            let starts = (0..10).map(|n| n * 6_500 + 40);
            starts.map(|start| batch.slice(start..start + 6_420)).collect()
        };
        let expected: Vec<u8> = batches.iter().flat_map(pieces).flatten().collect();
        batches
            .iter()
            .flat_map(pieces)
            .for_each(|piece| arrived.push(piece));
        assert!(arrived.small.is_empty() && arrived.pieces.len() == 400);
        assert_eq!(arrived.join(0, usize::MAX), expected);
    }
}
