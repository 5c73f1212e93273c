//! BLAKE3 digests put together from spans: what was not touched is not hashed again.
//!
//! BLAKE3 is a tree over chunks of 1 KiB (BLAKE3 paper, section 2.1): any aligned run of `2^n` chunks has a *chaining
//! value* that depends on its bytes and its place only, and the digest of a file is a function of these. So whoever
//! keeps the chaining values of a file's 1 MiB spans (32 bytes each, 3.2 MB for 100 GiB) can hash spans on several
//! threads and in any order, go on where an interrupted read stopped, and after an append or a change of some pages
//! hash only the spans that were touched: one parent node a span is all that the rest costs.
//!
//! A catalog that keeps them has to bind them to the stamp of the file (size, times, inode) like the digest itself:
//! they say what the file *was*. Who may have changed a span is the caller's knowledge; a span that is not set anew
//! keeps its old value.
//!
//! One case is special: a file of one span has no parent above it, and the value of a root is not the chaining value
//! of the same bytes. [`RangeSums`] keeps the digest itself then.

use blake3::Hasher;
use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use thiserror::Error;

/// Bytes of a span as kept for files: 1 MiB, so that hashing runs at full speed within it and the values of a large
/// file stay below a thirty-thousandth of it.
pub const SPAN_BYTES: u64 = driftless_protocol::limits::SPAN_BYTES;

/// A use of [`RangeSums`] that cannot give a right digest.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RangeSumFault {
    /// The bytes of a span are fewer or more than it has.
    #[error("span {span} has {wanted} bytes, not {given}")]
    Length {
        /// Which span.
        span: u64,
        /// How long it is.
        wanted: u64,
        /// How many bytes were given.
        given: u64,
    },
    /// A span without a value: it was never set, or its length changed since.
    #[error("span {0} is not known")]
    Unknown(u64),
    /// There is no such span in the file.
    #[error("span {span} lies beyond the file's {bytes} bytes")]
    Beyond {
        /// Which span.
        span: u64,
        /// Length of the file.
        bytes: u64,
    },
    /// Stored values that do not belong to a file of that length.
    #[error("{given} bytes are not the sums of a file of {bytes} bytes")]
    Stored {
        /// How many bytes were given.
        given: usize,
        /// Length of the file.
        bytes: u64,
    },
}

/// The values of a file's spans, from which its digest follows.
///
/// ```
/// use driftless::engine::rangesum::{RangeSums, SPAN_BYTES};
/// let mut file = vec![7; 3 << 20];
/// let mut sums = RangeSums::new(file.len() as u64);
/// for (span, bytes) in file.chunks(SPAN_BYTES as usize).enumerate() {
///     sums.set(span as u64, bytes)?;
/// }
/// file[1 << 20] = 8;
/// sums.set(1, &file[1 << 20..2 << 20])?; // only this span is hashed again
/// assert_eq!(sums.digest()?, *blake3::hash(&file).as_bytes());
/// # Ok::<(), driftless::engine::rangesum::RangeSumFault>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeSums {
    bytes: u64,
    sums: Vec<Option<[u8; 32]>>,
}

impl RangeSums {
    /// Of a file of `bytes`; no span is known yet but the one of an empty file.
    pub fn new(bytes: u64) -> RangeSums {
        let mut sums = RangeSums {
            bytes: 0,
            sums: Vec::new(),
        };
        sums.resize(bytes);
        sums
    }

    /// Length of the file.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The file has another length now, its beginning unchanged. Spans whose bytes are other than before become
    /// unknown; of an append that is the last span if it was partial, of a truncation the one that is partial now.
    pub fn resize(&mut self, bytes: u64) {
        let spans = |bytes: u64| bytes.div_ceil(SPAN_BYTES);
        if bytes == self.bytes && !self.sums.is_empty() {
            return;
        }
        let kept = bytes.min(self.bytes);
        // A file of one span keeps a root's value, which is worth nothing to a longer file, and the other way round.
        let was_root = spans(self.bytes) <= 1;
        let is_root = spans(bytes) <= 1;
        let whole = if was_root || is_root { 0 } else { kept / SPAN_BYTES };
        self.sums.truncate(whole as usize);
        self.sums.resize(spans(bytes).max(1) as usize, None);
        self.bytes = bytes;
        if bytes == 0 {
            self.sums[0] = Some(*blake3::hash(&[]).as_bytes());
        }
    }

    /// Length of one span of the file.
    pub fn span_bytes(&self, span: u64) -> u64 {
        let start = span.saturating_mul(SPAN_BYTES);
        self.bytes.saturating_sub(start).min(SPAN_BYTES)
    }

    /// The value of a span, if it is known.
    pub fn sum(&self, span: u64) -> Option<[u8; 32]> {
        let sum = usize::try_from(span).ok().and_then(|at| self.sums.get(at));
        sum.copied().flatten()
    }

    /// The spans that have to be read before there is a digest.
    pub fn unknown(&self) -> impl Iterator<Item = u64> + '_ {
        let unknown = |(span, sum): (usize, &Option<[u8; 32]>)| sum.is_none().then_some(span as u64);
        self.sums.iter().enumerate().filter_map(unknown)
    }

    /// The bytes of one span.
    pub fn set(&mut self, span: u64, bytes: &[u8]) -> Result<(), RangeSumFault> {
        let sum = self.sum_of(span, bytes)?;
        self.insert(span, sum)
    }

    /// The value of one span, to be inserted later: what threads compute beside each other.
    pub fn sum_of(&self, span: u64, bytes: &[u8]) -> Result<[u8; 32], RangeSumFault> {
        if span >= self.sums.len() as u64 {
            let bytes = self.bytes;
            return Err(RangeSumFault::Beyond { span, bytes });
        }
        let (wanted, given) = (self.span_bytes(span), bytes.len() as u64);
        if wanted != given {
            return Err(RangeSumFault::Length { span, wanted, given });
        }
        if self.bytes <= SPAN_BYTES {
            return Ok(*blake3::hash(bytes).as_bytes());
        }
        Ok(subtree(span * SPAN_BYTES, bytes))
    }

    /// Puts a value that [`RangeSums::sum_of`] made for the same length of file.
    pub fn insert(&mut self, span: u64, sum: [u8; 32]) -> Result<(), RangeSumFault> {
        let bytes = self.bytes;
        let place = usize::try_from(span).ok().and_then(|at| self.sums.get_mut(at));
        *place.ok_or(RangeSumFault::Beyond { span, bytes })? = Some(sum);
        Ok(())
    }

    /// BLAKE3 of the whole file. Costs one compression a span, whatever the file's length.
    pub fn digest(&self) -> Result<[u8; 32], RangeSumFault> {
        let mut tree = Tree::default();
        for (span, sum) in self.sums.iter().enumerate() {
            let sum = sum.ok_or(RangeSumFault::Unknown(span as u64))?;
            if self.bytes <= SPAN_BYTES {
                return Ok(sum);
            }
            tree.push(0, sum);
        }
        Ok(tree.root().expect("a file of two spans has a parent node"))
    }

    /// For the catalog: 32 bytes a span, in order; none while a span is unknown.
    pub fn to_bytes(&self) -> Option<Vec<u8>> {
        let known: Option<Vec<[u8; 32]>> = self.sums.iter().copied().collect();
        known.map(|sums| sums.concat())
    }

    /// What [`RangeSums::to_bytes`] made of a file of that length.
    pub fn from_bytes(bytes: u64, stored: &[u8]) -> Result<RangeSums, RangeSumFault> {
        let (sums, rest) = stored.as_chunks::<32>();
        if !rest.is_empty() || sums.len() as u64 != bytes.div_ceil(SPAN_BYTES).max(1) {
            let given = stored.len();
            return Err(RangeSumFault::Stored { given, bytes });
        }
        let sums = sums.iter().copied().map(Some).collect();
        Ok(RangeSums { bytes, sums })
    }
}

/// The chaining value of `bytes`, which lie at `offset` of a longer input. The offset is a multiple of the next power
/// of two not below their number, and of 1,024; they are followed by others or preceded by some.
pub fn subtree(offset: u64, bytes: &[u8]) -> ChainingValue {
    let mut hasher = Hasher::new();
    hasher.set_input_offset(offset);
    hasher.update(bytes);
    hasher.finalize_non_root()
}

/// Joins the chaining values of adjacent subtrees, from the first to the last, in any mixture of sizes as long as each
/// lies at a multiple of its own. Holds one value a level.
#[derive(Debug, Default, Clone)]
pub struct Tree {
    /// Subtrees from left to right with the logarithm of their size in leaves. The last may be partial.
    stack: Vec<(u32, ChainingValue)>,
}

impl Tree {
    /// The next subtree of `2^level` leaves; only the last one may be shorter than that.
    pub fn push(&mut self, level: u32, value: ChainingValue) {
        // Now that something follows, what lies complete to the left is no root.
        while let [.., (left, a), (right, b)] = self.stack[..]
            && left == right
        {
            self.stack.truncate(self.stack.len() - 2);
            self.stack
                .push((left + 1, merge_subtrees_non_root(&a, &b, Mode::Hash)));
        }
        self.stack.push((level, value));
    }

    /// The root above all of them; none above fewer than two, whose root is not made of chaining values.
    pub fn root(mut self) -> Option<[u8; 32]> {
        let mut right = self.stack.pop()?.1;
        while let Some((_, left)) = self.stack.pop() {
            if self.stack.is_empty() {
                return Some(*merge_subtrees_root(&left, &right, Mode::Hash).as_bytes());
            }
            right = merge_subtrees_non_root(&left, &right, Mode::Hash);
        }
        None
    }
}

/// The value of a whole subtree of `values.len()` (a power of two) equal ones.
pub fn merge(values: &[ChainingValue]) -> ChainingValue {
    match values {
        [one] => *one,
        _ => {
            let (left, right) = values.split_at(values.len() / 2);
            merge_subtrees_non_root(&merge(left), &merge(right), Mode::Hash)
        }
    }
}

#[cfg(test)]
mod tests;
