//! Rolling-checksum deltas: from a basis's signature and the target's bytes to copies and literals, and back.
//!
//! The matching is fast_rsync's (the rsync algorithm, Tridgell and Mackerras 1996, in librsync's formats), behind
//! guards that its own interface lacks: it divides by a block size that a peer chose, loops for ever on some
//! signatures, works on whole slices only and matches nothing after 1,024 false hits on one weak sum. So signatures
//! are checked before use, targets are taken in segments, and its delta is parsed into [`DeltaPart`]s which the
//! receiver checks again. Its MD4 can be forged; what decides is the BLAKE3 digest of the whole file.

use driftless_protocol::limits::{DELTA_PARTS_MAX, RANGE_BYTES_MAX, SIGNATURE_BYTES_MAX};
use driftless_protocol::message::DeltaPart;
use fast_rsync::{IndexedSignature, Signature, SignatureOptions};
use thiserror::Error;

/// Bytes of the target that are matched at a time. Each seam costs at most two blocks of literals.
pub const SEGMENT_BYTES: usize = 16 << 20;

/// A basis smaller than this is not worth a signature: the file is sent whole.
pub const BASIS_BYTES_MIN: u64 = 16 << 10;

/// A larger basis is not matched: fast_rsync's 32-bit weak sums no longer tell its blocks apart, and every false hit
/// costs a slow MD4.
pub const BASIS_BYTES_MAX: u64 = 4 << 30;

const BLOCK_BYTES_MIN: u32 = 512;
const BLOCK_BYTES_MAX: u32 = 1 << 20;
const STRONG_BYTES: u32 = 16;
const MAGIC_MD4: u32 = 0x7273_0136;
const HEADER_BYTES: usize = 12;
const ENTRY_BYTES: usize = 4 + STRONG_BYTES as usize;

/// A way in which a signature or a delta is not what it must be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DeltaFault {
    /// The signature's header or length is wrong, or outside the limits.
    #[error("the signature is not usable: {0}")]
    Signature(&'static str),
    /// A copy reaches past the end of the basis.
    #[error("a copy of {length} bytes at {offset} reaches past the basis of {basis_bytes} bytes")]
    CopyPastBasis {
        /// Where the copy begins.
        offset: u64,
        /// Its length.
        length: u64,
        /// Length of the basis.
        basis_bytes: u64,
    },
    /// The parts do not add up to the range, or the literals to their parts.
    #[error("the parts make {made} bytes where {wanted} were announced")]
    Length {
        /// What the parts add up to.
        made: u64,
        /// What was announced.
        wanted: u64,
    },
    /// fast_rsync refused, or made a delta that does not parse.
    #[error("matching failed: {0}")]
    Matching(String),
}

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
    /// A builder for a basis of `basis_bytes`; `None` when the basis is too small or too large to be worth one.
    pub fn new(basis_bytes: u64) -> Option<SignatureBuilder> {
        let block = block_bytes(basis_bytes);
        let length = HEADER_BYTES as u64 + basis_bytes.div_ceil(u64::from(block)) * ENTRY_BYTES as u64;
        let fits = (BASIS_BYTES_MIN..=BASIS_BYTES_MAX).contains(&basis_bytes);
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

/// One range of the target, as copies and literals.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RangeDelta {
    /// Length of the range in the target.
    pub length: u32,
    /// Its parts, in order.
    pub parts: Vec<DeltaPart>,
    /// The literals of all parts, one after the other.
    pub literals: Vec<u8>,
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

/// Collects parts into ranges; merges adjacent copies.
#[derive(Debug, Default)]
struct RangeCutter {
    done: Vec<RangeDelta>,
    current: RangeDelta,
}

impl RangeCutter {
    fn room(&mut self) -> u32 {
        if self.current.length as usize == RANGE_BYTES_MAX || self.current.parts.len() == DELTA_PARTS_MAX {
            self.done.push(std::mem::take(&mut self.current));
        }
        RANGE_BYTES_MAX as u32 - self.current.length
    }

    fn copy(&mut self, mut offset: u64, mut length: u64) {
        while length > 0 {
            let take = u64::from(self.room()).min(length) as u32;
            match self.current.parts.last_mut() {
                Some(DeltaPart::Copy {
                    offset: start,
                    length: so_far,
                }) if *start + u64::from(*so_far) == offset => {
                    *so_far += take;
                }
                _ => self.current.parts.push(DeltaPart::Copy { offset, length: take }),
            }
            self.current.length += take;
            offset += u64::from(take);
            length -= u64::from(take);
        }
    }

    fn literal(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let take = (self.room() as usize).min(bytes.len());
            match self.current.parts.last_mut() {
                Some(DeltaPart::Literal { length }) => *length += take as u32,
                _ => self
                    .current
                    .parts
                    .push(DeltaPart::Literal { length: take as u32 }),
            }
            self.current.length += take as u32;
            self.current.literals.extend_from_slice(&bytes[..take]);
            bytes = &bytes[take..];
        }
    }

    fn finish(mut self) -> Vec<RangeDelta> {
        if self.current.length > 0 {
            self.done.push(self.current);
        }
        self.done
    }
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

/// Checks a peer's delta of one range before any of it is carried out.
pub fn check_parts(
    parts: &[DeltaPart],
    length: u32,
    literal_bytes: usize,
    basis_bytes: u64,
) -> Result<(), DeltaFault> {
    let (mut made, mut literals) = (0u64, 0u64);
    for part in parts {
        match *part {
            DeltaPart::Copy { offset, length } => {
                if offset
                    .checked_add(u64::from(length))
                    .is_none_or(|end| end > basis_bytes)
                {
                    let length = u64::from(length);
                    return Err(DeltaFault::CopyPastBasis {
                        offset,
                        length,
                        basis_bytes,
                    });
                }
                made += u64::from(length);
            }
            DeltaPart::Literal { length } => {
                made += u64::from(length);
                literals += u64::from(length);
            }
        }
    }
    if made != u64::from(length) {
        return Err(DeltaFault::Length {
            made,
            wanted: u64::from(length),
        });
    }
    if literals != literal_bytes as u64 {
        return Err(DeltaFault::Length {
            made: literals,
            wanted: literal_bytes as u64,
        });
    }
    Ok(())
}

/// A set of byte ranges that have arrived, to catch overlaps and to know when a file is complete.
#[derive(Debug, Default, Clone)]
pub struct Coverage {
    /// Start to end, disjoint, never adjacent.
    spans: std::collections::BTreeMap<u64, u64>,
}

impl Coverage {
    /// Adds `[start, start + length)`; false if any of it was there already or the end overflows.
    pub fn add(&mut self, start: u64, length: u64) -> bool {
        let Some(end) = start.checked_add(length) else {
            return false;
        };
        if length == 0 {
            return true;
        }
        let before = self.spans.range(..=start).next_back().map(|(&s, &e)| (s, e));
        let after = self.spans.range(start..).next().map(|(&s, &e)| (s, e));
        if before.is_some_and(|(_, e)| e > start) || after.is_some_and(|(s, _)| s < end) {
            return false;
        }
        let mut span = (start, end);
        if let Some((s, e)) = before.filter(|&(_, e)| e == start) {
            self.spans.remove(&s);
            span.0 = s;
            debug_assert_eq!(e, start);
        }
        if let Some((s, e)) = after.filter(|&(s, _)| s == end) {
            self.spans.remove(&s);
            span.1 = e;
        }
        self.spans.insert(span.0, span.1);
        true
    }

    /// Whether exactly `[0, size)` is covered.
    pub fn is_complete(&self, size: u64) -> bool {
        match self.spans.iter().next() {
            None => size == 0,
            Some((&start, &end)) => self.spans.len() == 1 && start == 0 && end == size,
        }
    }

    /// How many separate spans there are.
    pub fn span_count(&self) -> usize {
        self.spans.len()
    }
}

#[cfg(test)]
mod tests;
