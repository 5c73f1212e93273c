//! What is remembered of a large file's content so that a change in place, or an append, is found by comparing spans.
//!
//! [`RangeSums`] says which spans of 1 MiB are unchanged and what the digest of the whole is; within a span that did
//! change, sums of 4 KiB blocks under a seed of their own say which part. Nothing that moved is found, that takes a
//! [signature](super::delta::Signature). The block sums only choose what travels: what they miss shows in the digest.

use super::delta::ranges::Output;
use super::rangesum::{RangeSumFault, RangeSums, SPAN_BYTES, subtree};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Bytes of a block.
pub const BLOCK_BYTES: usize = 4 << 10;

const SPAN_BLOCKS: usize = SPAN_BYTES as usize / BLOCK_BYTES;

/// The sums of a content of more than one span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spans {
    seed: u64,
    sums: RangeSums,
    /// Of each block, the last of which may be short.
    blocks: Vec<u64>,
}

/// What [`Spans::value_of`] finds out about one span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpanValue {
    bytes: u64,
    sum: [u8; 32],
    blocks: Vec<u64>,
}

impl SpanValue {
    fn of(seed: u64, span: u64, bytes: &[u8]) -> SpanValue {
        let sums = bytes.chunks(BLOCK_BYTES);
        SpanValue {
            bytes: bytes.len() as u64,
            sum: subtree(span * SPAN_BYTES, bytes),
            blocks: sums.map(|block| xxh3_64_with_seed(block, seed)).collect(),
        }
    }
}

impl Spans {
    /// Of a content of `bytes`, which must be more than a span; nothing of it is known yet. The seed is a secret of whoever
    /// keeps the sums.
    pub fn new(bytes: u64, seed: u64) -> Option<Spans> {
        let blocks = usize::try_from(bytes.div_ceil(BLOCK_BYTES as u64)).ok()?;
        (bytes > SPAN_BYTES).then(|| Spans {
            seed,
            sums: RangeSums::new(bytes),
            blocks: vec![0; blocks],
        })
    }

    /// Length of the content.
    pub fn bytes(&self) -> u64 {
        self.sums.bytes()
    }

    /// How many spans there are.
    pub fn count(&self) -> u64 {
        self.bytes().div_ceil(SPAN_BYTES)
    }

    /// Length of a span.
    pub fn span_bytes(&self, span: u64) -> u64 {
        self.sums.span_bytes(span)
    }

    /// The same content, longer or shorter: spans of another length are not known. `None` if that is at most a span.
    pub fn resized(&self, bytes: u64) -> Option<Spans> {
        let mut resized = Spans::new(bytes, self.seed)?;
        resized.sums = self.sums.clone();
        resized.sums.resize(bytes);
        let kept = self.blocks.len().min(resized.blocks.len());
        resized.blocks[..kept].copy_from_slice(&self.blocks[..kept]);
        Some(resized)
    }

    /// Finds out about one span, given its bytes: that of this content, or of another of any length.
    pub fn value_of(&self, span: u64, bytes: &[u8]) -> SpanValue {
        SpanValue::of(self.seed, span, bytes)
    }

    /// Takes in what [`Spans::value_of`] found out.
    pub fn insert(&mut self, span: u64, value: &SpanValue) -> Result<(), RangeSumFault> {
        let (wanted, given) = (self.span_bytes(span), value.bytes);
        if wanted != given {
            return Err(RangeSumFault::Length { span, wanted, given });
        }
        self.sums.insert(span, value.sum)?;
        let first = span as usize * SPAN_BLOCKS;
        self.blocks[first..first + value.blocks.len()].copy_from_slice(&value.blocks);
        Ok(())
    }

    /// BLAKE3 of the whole content, when every span is known.
    pub fn digest(&self) -> Result<[u8; 32], RangeSumFault> {
        self.sums.digest()
    }

    /// Tells how a span of another content comes from this one, and whether it is the same. `value` is that of the
    /// span under the seed of this.
    pub fn compare(&self, span: u64, bytes: &[u8], value: &SpanValue, output: &mut impl Output) -> bool {
        let offset = span * SPAN_BYTES;
        let old_bytes = self.span_bytes(span) as usize;
        let known = self.sums.sum(span);
        if old_bytes == bytes.len() && known == Some(value.sum) {
            output.copy(offset, bytes.len() as u64);
            return true;
        }
        // What was appended begins within a block, as a rule.
        if (1..bytes.len()).contains(&old_bytes) && known == Some(subtree(offset, &bytes[..old_bytes])) {
            output.copy(offset, old_bytes as u64);
            output.literal(&bytes[old_bytes..]);
            return false;
        }
        let first = span as usize * SPAN_BLOCKS;
        for (at, (block, sum)) in bytes.chunks(BLOCK_BYTES).zip(&value.blocks).enumerate() {
            let start = at * BLOCK_BYTES;
            let is_whole = start + block.len() == (start + BLOCK_BYTES).min(old_bytes);
            if is_whole && self.blocks.get(first + at) == Some(sum) {
                output.copy(offset + start as u64, block.len() as u64);
            } else {
                output.literal(block);
            }
        }
        false
    }

    /// To be stored; none while a span is unknown.
    pub fn to_bytes(&self) -> Option<Vec<u8>> {
        let mut bytes = [self.seed.to_le_bytes(), self.bytes().to_le_bytes()].concat();
        bytes.extend(self.sums.to_bytes()?);
        bytes.extend(self.blocks.iter().flat_map(|sum| sum.to_le_bytes()));
        Some(bytes)
    }

    /// What [`Spans::to_bytes`] made.
    pub fn from_bytes(stored: &[u8]) -> Option<Spans> {
        let (seed, rest) = stored.split_first_chunk()?;
        let (bytes, rest) = rest.split_first_chunk()?;
        let bytes = u64::from_le_bytes(*bytes);
        // Before anything is allocated.
        let wanted = bytes.div_ceil(SPAN_BYTES).checked_mul(32)?;
        let (sums, blocks) = rest.split_at_checked(usize::try_from(wanted).ok()?)?;
        let (blocks, more) = blocks.as_chunks::<8>();
        let fits = blocks.len() as u64 == bytes.div_ceil(BLOCK_BYTES as u64) && more.is_empty();
        (fits && bytes > SPAN_BYTES).then_some(())?;
        Some(Spans {
            seed: u64::from_le_bytes(*seed),
            sums: RangeSums::from_bytes(bytes, sums).ok()?,
            blocks: blocks.iter().map(|sum| u64::from_le_bytes(*sum)).collect(),
        })
    }
}

/// Sums a content up as it comes, from its beginning: its digest, and its [`Spans`].
#[derive(Debug)]
pub struct SpansBuilder {
    seed: u64,
    done: Vec<SpanValue>,
    /// Of a span; not summed up before more follows, as the only span of a content has no sum of this kind.
    pending: Vec<u8>,
}

impl SpansBuilder {
    /// Nothing yet.
    pub fn new(seed: u64) -> SpansBuilder {
        SpansBuilder {
            seed,
            done: Vec::new(),
            pending: Vec::with_capacity(SPAN_BYTES as usize),
        }
    }

    /// The next bytes.
    pub fn push(&mut self, mut piece: &[u8]) {
        const SPAN: usize = SPAN_BYTES as usize;
        while !piece.is_empty() {
            if self.pending.len() == SPAN {
                self.end_span();
            }
            // A whole span that is not the only one is summed where it lies.
            if self.pending.is_empty() && piece.len() >= SPAN && (piece.len() > SPAN || !self.done.is_empty())
            {
                let (span, later) = piece.split_at(SPAN);
                self.sum_up(span);
                piece = later;
                continue;
            }
            let room = SPAN - self.pending.len();
            let (now, later) = piece.split_at(piece.len().min(room));
            self.pending.extend_from_slice(now);
            piece = later;
        }
    }

    /// The last span that was summed up, and its sum.
    pub fn last(&self) -> Option<(u64, [u8; 32])> {
        let value = self.done.last()?;
        Some((self.done.len() as u64 - 1, value.sum))
    }

    fn end_span(&mut self) {
        let mut span = std::mem::take(&mut self.pending);
        self.sum_up(&span);
        span.clear();
        self.pending = span;
    }

    fn sum_up(&mut self, span: &[u8]) {
        let number = self.done.len() as u64;
        self.done.push(SpanValue::of(self.seed, number, span));
    }

    /// The digest of all that came, and what is to be remembered if it is more than a span.
    pub fn finish(mut self) -> ([u8; 32], Option<Spans>) {
        if self.done.is_empty() {
            return (*blake3::hash(&self.pending).as_bytes(), None);
        }
        let bytes = self.done.len() as u64 * SPAN_BYTES + self.pending.len() as u64;
        if !self.pending.is_empty() {
            self.end_span();
        }
        let mut spans = Spans::new(bytes, self.seed).expect("more than one span came");
        for (span, value) in self.done.iter().enumerate() {
            spans.insert(span as u64, value).expect("each lies within");
        }
        let digest = spans.digest().expect("each was inserted");
        (digest, Some(spans))
    }
}

#[cfg(test)]
mod tests;
