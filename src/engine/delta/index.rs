//! Where the blocks of a basis are found by their rolling sum.
//!
//! Two steps. A **filter** is asked for each byte of a target: a word of bits, two of which a block sets, with 32 to 64
//! bits a block in all. It stays in the processor's nearer caches up to a hundred thousand blocks. What passes goes to the **table**:
//! buckets of eight entries that fill one cache line each, compared at once. A sum has its place in two neighbouring
//! buckets; what does not fit there, and more than four blocks of the same sum, is left out. So a look-up costs two
//! cache lines at most, and building the index one pass, whatever a signature holds; blocks left out are still found
//! where they continue a copy.

use super::signature::Signature;

/// So many blocks make an index of some megabytes at most.
const SMALL_BLOCKS: u64 = 1 << 16;
const LANES: usize = 8;
/// Blocks of equal sum that are kept.
const EQUAL_MAX: usize = 4;
const FILTER_LOG_MIN: u32 = 12;
/// Eight megabytes, for signatures of millions of blocks.
const FILTER_LOG_MAX: u32 = 26;
/// Up to here a filter is given 64 bits a block: a part of the second cache of common processors.
const FILTER_LOG_NEAR: u32 = 19;

/// A signature made searchable. Threads may share it.
#[derive(Debug)]
pub struct Index {
    signature: Signature,
    filter: Filter,
    buckets: Vec<Bucket>,
    dropped: u64,
}

/// Words chosen by the bits of a sum from bit 38 on, and in each the bits named by bits 32 to 37 and 58 to 63.
#[derive(Debug)]
pub struct Filter {
    words: Vec<u64>,
}

/// Entries side by side: the lower halves of the sums, and the blocks, counted from 1.
#[derive(Debug, Clone, Copy, Default)]
#[repr(align(64))]
struct Bucket {
    prints: [u32; LANES],
    blocks: [u32; LANES],
}

impl Index {
    /// Makes a signature searchable. Takes up to 35 bytes a block beside the signature itself, of small files 67.
    pub fn new(signature: Signature) -> Index {
        let blocks = signature.shape().full_blocks();
        let log = blocks.next_power_of_two().ilog2();
        let near = (log + 6).clamp(FILTER_LOG_MIN, FILTER_LOG_NEAR);
        let filter_log = near.max(log + 5).min(FILTER_LOG_MAX);
        // Half full or less, and one block in some thousands finds no place; a quarter full where that takes little memory,
        // because in a small file that block counts.
        let share = if blocks <= SMALL_BLOCKS {
            LANES as u64 / 4
        } else {
            LANES as u64 / 2
        };
        let mut index = Index {
            filter: Filter {
                words: vec![0; 1 << (filter_log - 6)],
            },
            // Two buckets at least, for the neighbour.
            buckets: vec![Bucket::default(); (blocks / share).next_power_of_two().max(2) as usize],
            signature,
            dropped: 0,
        };
        for block in 0..blocks {
            index.insert(block);
        }
        index
    }

    /// An index that is not searched: data are compared at the offsets at which the basis has them, and nowhere else.
    pub fn aligned(signature: Signature) -> Index {
        Index {
            signature,
            filter: Filter { words: Vec::new() },
            buckets: Vec::new(),
            dropped: 0,
        }
    }

    /// The signature.
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// The filter; none if the index is not searched.
    pub fn filter(&self) -> Option<&Filter> {
        (!self.buckets.is_empty()).then_some(&self.filter)
    }

    /// Blocks that were left out because too many others are like them.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn insert(&mut self, block: u64) {
        let weak = self.signature.weak(block);
        let home = self.home(weak);
        let print = weak as u32;
        let (near, far) = (&self.buckets[home], &self.buckets[home ^ 1]);
        let equal = near.count(print) + far.count(print);
        let to = if near.length() <= far.length() {
            home
        } else {
            home ^ 1
        };
        let at = self.buckets[to].length();
        // Block numbers fit: a signature is shorter than 2^32 bytes.
        match u32::try_from(block + 1) {
            Ok(number) if at < LANES && equal < EQUAL_MAX => {
                self.buckets[to].prints[at] = print;
                self.buckets[to].blocks[at] = number;
                let sum = weak << (64 - 8 * self.signature.shape().weak_bytes);
                self.filter.set(sum);
            }
            _ => self.dropped += 1,
        }
    }

    #[inline]
    fn home(&self, weak: u64) -> usize {
        let mixed = weak.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        mixed as usize & (self.buckets.len() - 1)
    }

    /// Whether a block may have this rolling sum: the quick answer for what passed the filter.
    #[inline]
    pub fn may_have(&self, sum: u64) -> bool {
        let weak = self.signature.weak_of(sum);
        let home = self.home(weak);
        self.buckets[home].has(weak as u32) | self.buckets[home ^ 1].has(weak as u32)
    }

    /// The blocks that have this rolling sum, at most [`Index::new`]'s four and some of equal lower half.
    pub fn blocks_of(&self, sum: u64) -> impl Iterator<Item = u64> + '_ {
        let weak = self.signature.weak_of(sum);
        let home = self.home(weak);
        [home, home ^ 1]
            .into_iter()
            .flat_map(move |at| self.buckets[at].having(weak as u32))
            .filter(move |&block| self.signature.weak(block) == weak)
    }
}

impl Filter {
    #[inline(always)]
    fn word(&self, sum: u64) -> usize {
        // The mask also spares the check of bounds: there are a power of two of words.
        (sum >> 38) as usize & (self.words.len() - 1)
    }

    fn set(&mut self, sum: u64) {
        let word = self.word(sum);
        self.words[word] |= 1u64.wrapping_shl((sum >> 32) as u32) | 1u64.wrapping_shl((sum >> 58) as u32);
    }

    /// 1 if a block may have this sum, else 0.
    #[inline(always)]
    pub fn bit(&self, sum: u64) -> u64 {
        let word = self.words[self.word(sum)];
        word.wrapping_shr((sum >> 32) as u32) & word.wrapping_shr((sum >> 58) as u32) & 1
    }
}

impl Bucket {
    fn length(&self) -> usize {
        self.blocks.iter().filter(|&&block| block != 0).count()
    }

    fn count(&self, print: u32) -> usize {
        self.having(print).count()
    }

    #[inline]
    fn has(&self, print: u32) -> bool {
        self.prints
            .iter()
            .fold(false, |any, &other| any | (other == print))
    }

    #[inline]
    fn having(&self, print: u32) -> impl Iterator<Item = u64> + '_ {
        let mut mask = 0u32;
        for lane in 0..LANES {
            mask |= u32::from(self.prints[lane] == print && self.blocks[lane] != 0) << lane;
        }
        std::iter::from_fn(move || {
            let lane = mask.trailing_zeros() as usize;
            mask &= mask.wrapping_sub(1);
            (lane < LANES).then(|| u64::from(self.blocks[lane]) - 1)
        })
    }
}
