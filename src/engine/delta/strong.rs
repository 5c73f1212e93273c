//! Block hashes: what tells two blocks of equal rolling sum apart.
//!
//! Two kinds. **Keyed BLAKE3** is for signatures that a peer sees: each is made under a fresh random key, so nobody can
//! prepare two blocks with the same short hash. It is computed as BLAKE3 under the key of the block's *chaining value*
//! at its place in the basis (see [`crate::engine::rangesum`]): the expensive part is the very work that the digest of
//! the basis needs, so one pass makes both. **Seeded XXH3** is for signatures that never leave this machine.
//!
//! Hashes are cut to 8 bytes as a rule. That suffices: a false match needs an accident of at least 96 bits (rolling
//! sum and hash) among the pairs that are compared, and the digest of the whole file finds it.
//!
//! Blocks of zeros have one fixed hash wherever they lie, which costs a scan for zeros and no hashing.

use crate::engine::rangesum::subtree;
use crate::engine::zeros::is_zero;
use blake3::hazmat::ChainingValue;
use xxhash_rust::xxh3::xxh3_128_with_seed;

/// Which hash tells blocks apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StrongKind {
    /// For signatures that a peer sees.
    KeyedBlake3,
    /// For signatures that stay here.
    SeededXxh3,
}

/// The bytes of a hash, of which a signature keeps the first ones.
pub type StrongSum = [u8; 16];

/// A kind with its key.
#[derive(Debug, Clone)]
pub struct Strong {
    kind: StrongKind,
    key: [u8; 32],
    seed: u64,
    zeros: StrongSum,
}

impl Strong {
    /// The kind under a key.
    pub fn new(kind: StrongKind, key: [u8; 32]) -> Strong {
        let mut strong = Strong {
            kind,
            key,
            seed: word(&key, 0),
            zeros: [0; 16],
        };
        // No chaining value of real bytes is known to be zero; a collision here would cost what any other does.
        strong.zeros = strong.of_chaining_value(&[0; 32]);
        strong
    }

    /// The kind.
    pub fn kind(&self) -> StrongKind {
        self.kind
    }

    /// The number that the rolling sum's base is made of.
    pub fn rolling_seed(&self) -> u64 {
        word(&self.key, 8)
    }

    /// The hash of a block of zeros of any length.
    pub fn of_zeros(&self) -> StrongSum {
        self.zeros
    }

    /// The hash of the block, or of the aligned group of blocks, that lies at `offset` of the basis.
    pub fn of_block(&self, offset: u64, bytes: &[u8]) -> StrongSum {
        if is_zero(bytes) {
            return self.zeros;
        }
        match self.kind {
            StrongKind::KeyedBlake3 => self.of_chaining_value(&subtree(offset, bytes)),
            StrongKind::SeededXxh3 => xxh3_128_with_seed(bytes, self.seed).to_le_bytes(),
        }
    }

    /// The hash of a block, not of zeros, whose chaining value is known.
    pub fn of_chaining_value(&self, value: &ChainingValue) -> StrongSum {
        let mut sum = [0; 16];
        sum.copy_from_slice(&blake3::keyed_hash(&self.key, value).as_bytes()[..16]);
        sum
    }

    /// The seed of XXH3.
    pub fn seed(&self) -> u64 {
        self.seed
    }
}

fn word(key: &[u8; 32], at: usize) -> u64 {
    u64::from_le_bytes(key[at..at + 8].try_into().expect("eight bytes of a key"))
}
