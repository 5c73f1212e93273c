//! The other engine: fast_rsync's matching (the rsync algorithm, Tridgell and Mackerras 1996, in librsync's formats),
//! behind guards that its own interface lacks.
//!
//! It divides by a block size that a peer chose, loops for ever on some signatures, works on whole slices only and
//! matches nothing after 1,024 false hits on one weak sum. So signatures are checked before use, targets are taken in
//! segments, and its delta is parsed into [`DeltaPart`](driftless_protocol::message::DeltaPart)s which the receiver
//! checks again. Its MD4 can be forged; what decides is the BLAKE3 digest of the whole file.

use super::DeltaFault;
use super::ranges::{Output, RangeCutter, RangeDelta};
use driftless_protocol::limits::SIGNATURE_BYTES_MAX;
use fast_rsync::{IndexedSignature, Signature, SignatureOptions};

/// Bytes of the target that are matched at a time. Each seam costs at most two blocks of literals.
pub const SEGMENT_BYTES: usize = 16 << 20;

/// A larger basis is not matched: 32-bit weak sums no longer tell its blocks apart, and every false hit costs a slow
/// MD4.
pub const BASIS_BYTES_MAX: u64 = 4 << 30;

/// The first bytes of a signature, as a number in big endian.
pub const MAGIC_MD4: u32 = 0x7273_0136;
const BLOCK_BYTES_MIN: u32 = 512;
const BLOCK_BYTES_MAX: u32 = 1 << 20;
const STRONG_BYTES: u32 = 16;
const HEADER_BYTES: usize = 12;
const ENTRY_BYTES: usize = 4 + STRONG_BYTES as usize;

/// Block size for a basis of `bytes`: its square root, which balances the signature against the literals around
/// each edit; never a power of two, at which fast_rsync's weak sum of constant blocks takes only two values.
pub fn block_bytes(bytes: u64) -> u32 {
    let root = (bytes as f64).sqrt() as u32;
    let size = root.clamp(704, 64 << 10).next_multiple_of(8);
    if size.is_power_of_two() { size + 8 } else { size }
}

/// Builds the signature of a basis that is read from front to back.
#[derive(Debug)]
pub struct SignatureBuilder {
    block: u32,
    bytes: Vec<u8>,
}

impl SignatureBuilder {
    /// A builder for a basis of `basis_bytes`; `None` when the basis is empty or too large.
    pub fn new(basis_bytes: u64) -> Option<SignatureBuilder> {
        SignatureBuilder::with_block(basis_bytes, block_bytes(basis_bytes))
    }

    /// The same with blocks of a size of 512 bytes to 1 MiB.
    pub fn with_block(basis_bytes: u64, block: u32) -> Option<SignatureBuilder> {
        let length = HEADER_BYTES as u64 + basis_bytes.div_ceil(u64::from(block)) * ENTRY_BYTES as u64;
        let fits = (1..=BASIS_BYTES_MAX).contains(&basis_bytes);
        (fits && length <= SIGNATURE_BYTES_MAX as u64).then(|| SignatureBuilder {
            block,
            bytes: Vec::with_capacity(length as usize),
        })
    }

    /// How many bytes each call of [`SignatureBuilder::push`] takes, but for the last: a whole number of blocks.
    pub fn step(&self) -> usize {
        let block = self.block as usize;
        (4 << 20) / block * block
    }

    /// The next bytes of the basis. Signatures of block-aligned pieces, less their headers, add up to the signature
    /// of the whole.
    pub fn push(&mut self, piece: &[u8]) {
        let options = SignatureOptions {
            block_size: self.block,
            crypto_hash_size: STRONG_BYTES,
        };
        let signature = Signature::calculate(piece, options);
        let serialized = signature.serialized();
        let from = if self.bytes.is_empty() { 0 } else { HEADER_BYTES };
        self.bytes.extend_from_slice(&serialized[from..]);
    }

    /// The signature.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// Checks a peer's signature and makes it usable.
pub fn parse_signature(bytes: Vec<u8>) -> Result<Signature, DeltaFault> {
    if bytes.len() > SIGNATURE_BYTES_MAX {
        return Err(DeltaFault::Signature("it is too long"));
    }
    let Some((header, entries)) = bytes.split_at_checked(HEADER_BYTES) else {
        return Err(DeltaFault::Signature("its header is cut off"));
    };
    let word = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    if word(0) != MAGIC_MD4 {
        return Err(DeltaFault::Signature("it is not of the MD4 kind"));
    }
    if !(BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX).contains(&word(4)) {
        return Err(DeltaFault::Signature("its block size is out of range"));
    }
    if word(8) != STRONG_BYTES {
        return Err(DeltaFault::Signature("its strong sums are not 16 bytes long"));
    }
    if entries.len() % ENTRY_BYTES != 0 {
        return Err(DeltaFault::Signature("its last entry is cut off"));
    }
    Signature::deserialize(bytes).map_err(|_| DeltaFault::Signature("it does not parse"))
}

/// Matches one segment of the target (at most [`SEGMENT_BYTES`]) and cuts the result into ranges that fit the wire.
pub fn diff(index: &IndexedSignature<'_>, segment: &[u8]) -> Result<Vec<RangeDelta>, DeltaFault> {
    let mut delta = Vec::new();
    fast_rsync::diff(index, segment, &mut delta).map_err(|error| DeltaFault::Matching(error.to_string()))?;
    let mut cutter = RangeCutter::default();
    parse_librsync(&delta, &mut cutter)?;
    let ranges = cutter.finish();
    let made: u64 = ranges.iter().map(|range| u64::from(range.length)).sum();
    if made != segment.len() as u64 {
        return Err(DeltaFault::Length {
            made,
            wanted: segment.len() as u64,
        });
    }
    Ok(ranges)
}

/// Reads librsync's delta format (`doc/formats.md` of librsync): a magic, then commands, then a zero byte.
fn parse_librsync(delta: &[u8], cutter: &mut RangeCutter) -> Result<(), DeltaFault> {
    let broken = || DeltaFault::Matching("the delta does not parse".to_owned());
    let mut rest = delta.get(4..).ok_or_else(broken)?;
    let take = |count: usize, rest: &mut &[u8]| -> Result<u64, DeltaFault> {
        let (number, left) = rest.split_at_checked(count).ok_or_else(broken)?;
        *rest = left;
        Ok(number.iter().fold(0, |value, &byte| value << 8 | u64::from(byte)))
    };
    loop {
        match take(1, &mut rest)? as u8 {
            0 => return Ok(()),
            command @ 1..=0x44 => {
                let length = match command {
                    short @ 1..=0x40 => u64::from(short),
                    0x41 => take(1, &mut rest)?,
                    0x42 => take(2, &mut rest)?,
                    0x43 => take(4, &mut rest)?,
                    _ => take(8, &mut rest)?,
                };
                let literal = usize::try_from(length)
                    .ok()
                    .and_then(|length| rest.split_at_checked(length));
                let (bytes, left) = literal.ok_or_else(broken)?;
                cutter.literal(bytes);
                rest = left;
            }
            command @ 0x45..=0x54 => {
                let widths = [1, 2, 4, 8];
                let code = usize::from(command - 0x45);
                let offset = take(widths[code / 4], &mut rest)?;
                let length = take(widths[code % 4], &mut rest)?;
                cutter.copy(offset, length);
            }
            _ => return Err(broken()),
        }
    }
}

/// Collects a target into segments and matches each.
pub struct Segments<'a> {
    index: IndexedSignature<'a>,
    segment: Vec<u8>,
}

impl<'a> Segments<'a> {
    /// Matches against a signature that was checked.
    pub fn new(signature: &'a Signature) -> Segments<'a> {
        Segments {
            index: signature.index(),
            segment: Vec::new(),
        }
    }

    /// The next bytes of the target. Returns the ranges of the segments that are complete.
    pub fn push(&mut self, mut piece: &[u8]) -> Vec<RangeDelta> {
        let mut ranges = Vec::new();
        while !piece.is_empty() {
            let take = piece.len().min(SEGMENT_BYTES - self.segment.len());
            let (now, later) = piece.split_at(take);
            self.segment.extend_from_slice(now);
            piece = later;
            if self.segment.len() == SEGMENT_BYTES {
                ranges.append(&mut self.match_segment());
                self.segment.clear();
            }
        }
        ranges
    }

    /// The ranges of the last segment.
    pub fn finish(self) -> Vec<RangeDelta> {
        self.match_segment()
    }

    /// Where matching fails, literals are always an answer.
    fn match_segment(&self) -> Vec<RangeDelta> {
        diff(&self.index, &self.segment).unwrap_or_else(|_| {
            let mut cutter = RangeCutter::default();
            cutter.literal(&self.segment);
            cutter.finish()
        })
    }
}

impl std::fmt::Debug for Segments<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Segments").finish_non_exhaustive()
    }
}
