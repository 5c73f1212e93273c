//! Building a signature, and with it the digest of the basis, from one read.

use super::DeltaFault;
use super::rolling::Rolling;
use super::signature::{BLOCK_BYTES_MAX, BLOCK_BYTES_MIN, Shape, block_bytes};
use super::strong::{Strong, StrongKind, StrongSum};
use crate::engine::rangesum::{Tree, merge, subtree};
use crate::engine::zeros::is_zero;
use blake3::Hasher;
use blake3::hazmat::{ChainingValue, HasherExt};
use driftless_protocol::limits::SIGNATURE_BYTES_MAX;
use xxhash_rust::xxh3::Xxh3;

/// What a signature shall be like.
#[derive(Debug, Clone)]
pub struct SignatureOptions {
    /// The kind of block hash.
    pub kind: StrongKind,
    /// For signatures that a peer sees: fresh random bytes for each.
    pub key: [u8; 32],
    /// Size of blocks, a power of two; chosen by the length of the basis if not given. Grows until the signature fits.
    pub block_bytes: Option<u64>,
    /// Bytes that the signature may have.
    pub signature_bytes_max: usize,
    /// Whether the digest of the basis is wanted too. It costs nothing with keyed BLAKE3, but that holes are hashed.
    pub digest: bool,
}

impl SignatureOptions {
    /// For a peer: keyed BLAKE3, with the digest.
    pub fn exchanged(key: [u8; 32]) -> SignatureOptions {
        SignatureOptions {
            kind: StrongKind::KeyedBlake3,
            key,
            block_bytes: None,
            signature_bytes_max: SIGNATURE_BYTES_MAX,
            digest: true,
        }
    }

    /// To be kept on this machine: seeded XXH3 over pages of 4 KiB, with the digest.
    pub fn remembered(key: [u8; 32], signature_bytes_max: usize) -> SignatureOptions {
        SignatureOptions {
            kind: StrongKind::SeededXxh3,
            key,
            block_bytes: Some(4 << 10),
            signature_bytes_max: signature_bytes_max.min(SIGNATURE_BYTES_MAX),
            digest: true,
        }
    }
}

/// What one pass over a basis made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// The signature.
    pub signature: Vec<u8>,
    /// BLAKE3 of the basis, if it was asked for.
    pub digest: Option<[u8; 32]>,
}

/// Takes a basis from front to back in pieces of any size. Pieces of a megabyte or more are the fastest.
#[derive(Debug)]
pub struct SignatureBuilder {
    shape: Shape,
    strong: Strong,
    rolling: Rolling,
    digest: Digesting,
    /// Bytes taken.
    at: u64,
    block: Block,
    /// Chaining values of the blocks of the group that is not complete. Zeros have none unless the digest wants it.
    group: Vec<Option<ChainingValue>>,
    group_is_zero: bool,
    weak: Vec<u8>,
    hashes: Vec<u8>,
    groups: Vec<u8>,
}

/// The block that is not complete.
#[derive(Debug)]
struct Block {
    /// Zeros at its beginning that were only counted. Until something else comes, they are all of it.
    zeros: u64,
    /// Bytes that went into the sums.
    hashed: u64,
    weak: u64,
    hasher: BlockHasher,
}

enum BlockHasher {
    Blake3(Box<Hasher>),
    Xxh3(Box<Xxh3>),
}

impl std::fmt::Debug for BlockHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            BlockHasher::Blake3(_) => "Blake3",
            BlockHasher::Xxh3(_) => "Xxh3",
        })
    }
}

/// How the digest comes about.
#[derive(Debug)]
enum Digesting {
    No,
    /// From the blocks' chaining values.
    Tree(Tree),
    /// On its own.
    Own(Box<Hasher>),
}

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

impl SignatureBuilder {
    /// A builder for a basis of `basis_bytes`; none if no block size makes its signature small enough.
    pub fn new(basis_bytes: u64, options: &SignatureOptions) -> Option<SignatureBuilder> {
        let max = options.signature_bytes_max;
        let mut block = block_bytes(basis_bytes, options.kind, max)?;
        if let Some(wanted) = options.block_bytes {
            let wanted = wanted.clamp(BLOCK_BYTES_MIN, BLOCK_BYTES_MAX).next_power_of_two();
            let fits = |log: &u32| Shape::new(options.kind, *log, basis_bytes).length() <= max as u64;
            block = 1 << (wanted.ilog2()..=BLOCK_BYTES_MAX.ilog2()).find(fits)?;
        }
        let shape = Shape::new(options.kind, block.ilog2(), basis_bytes);
        let strong = Strong::new(options.kind, options.key);
        let hasher = match options.kind {
            StrongKind::KeyedBlake3 => BlockHasher::Blake3(Box::new(Hasher::new())),
            StrongKind::SeededXxh3 => BlockHasher::Xxh3(Box::new(Xxh3::with_seed(strong.seed()))),
        };
        let blocks = shape.blocks() as usize;
        // The header's place is kept free, so that the columns are joined without moving the first.
        let mut weak = Vec::with_capacity(shape.length() as usize);
        weak.extend_from_slice(&shape.header(&options.key));
        Some(SignatureBuilder {
            rolling: Rolling::new(strong.rolling_seed(), block),
            digest: match (options.digest, options.kind) {
                (false, _) => Digesting::No,
                (true, StrongKind::KeyedBlake3) => Digesting::Tree(Tree::default()),
                (true, StrongKind::SeededXxh3) => Digesting::Own(Box::default()),
            },
            at: 0,
            block: Block {
                zeros: 0,
                hashed: 0,
                weak: 0,
                hasher,
            },
            group: Vec::with_capacity(shape.group_blocks() as usize),
            group_is_zero: true,
            weak,
            hashes: Vec::with_capacity(blocks * shape.strong_bytes),
            groups: Vec::with_capacity(shape.groups() as usize * shape.strong_bytes),
            shape,
            strong,
        })
    }

    /// Bytes in a block.
    pub fn block_bytes(&self) -> u64 {
        self.shape.block_bytes()
    }

    /// The next bytes of the basis.
    pub fn push(&mut self, mut piece: &[u8]) {
        if let Digesting::Own(hasher) = &mut self.digest {
            hasher.update(piece);
        }
        while !piece.is_empty() {
            let room = (self.block_bytes() - self.block.length()) as usize;
            let (now, later) = piece.split_at(room.min(piece.len()));
            self.fill(now);
            piece = later;
        }
    }

    /// As many zeros as a hole has. Without a digest whole blocks of them cost next to nothing.
    pub fn push_zeros(&mut self, mut count: u64) {
        if let Digesting::Own(hasher) = &mut self.digest {
            let mut left = count;
            while left > 0 {
                let take = left.min(ZEROS.len() as u64);
                hasher.update(&ZEROS[..take as usize]);
                left -= take;
            }
        }
        while count > 0 {
            let take = count.min(self.block_bytes() - self.block.length());
            if self.block.hashed == 0 {
                self.block.zeros += take;
                self.close_if_full();
            } else {
                let take = take.min(ZEROS.len() as u64);
                self.fill(&ZEROS[..take as usize]);
                count -= take;
                continue;
            }
            count -= take;
        }
    }

    /// Bytes that belong to one block.
    fn fill(&mut self, bytes: &[u8]) {
        if self.block.hashed == 0 && is_zero(bytes) {
            self.block.zeros += bytes.len() as u64;
        } else {
            self.hash_counted_zeros();
            self.hash(bytes);
        }
        self.close_if_full();
    }

    fn hash_counted_zeros(&mut self) {
        while self.block.zeros > 0 {
            let take = self.block.zeros.min(ZEROS.len() as u64);
            self.hash(&ZEROS[..take as usize]);
            self.block.zeros -= take;
        }
    }

    fn hash(&mut self, bytes: &[u8]) {
        let start = self.at;
        let block = &mut self.block;
        match &mut block.hasher {
            BlockHasher::Blake3(hasher) => {
                if block.hashed == 0 {
                    hasher.set_input_offset(start);
                }
                hasher.update(bytes);
            }
            BlockHasher::Xxh3(hasher) => hasher.update(bytes),
        }
        block.weak = self.rolling.extend(block.weak, bytes);
        block.hashed += bytes.len() as u64;
    }

    fn close_if_full(&mut self) {
        if self.block.length() == self.block_bytes() {
            self.close_block();
        }
    }

    /// Writes down the block, which is full or the last.
    fn close_block(&mut self) {
        let length = self.block.length();
        let is_zero = self.block.hashed == 0;
        let only = self.at == 0 && self.at + length == self.shape.basis_bytes;
        if is_zero && matches!(self.digest, Digesting::Tree(_)) {
            self.hash_counted_zeros();
        }
        let mut sum = self.strong.of_zeros();
        let mut value = None;
        if self.block.hashed > 0 {
            match &mut self.block.hasher {
                BlockHasher::Blake3(hasher) => {
                    let found = hasher.finalize_non_root();
                    if only && let Digesting::Tree(_) = self.digest {
                        self.digest = Digesting::Own(hasher.clone());
                    }
                    // `reset` would keep the offset.
                    **hasher = Hasher::new();
                    if !is_zero {
                        sum = self.strong.of_chaining_value(&found);
                    }
                    value = Some(found);
                }
                BlockHasher::Xxh3(hasher) => {
                    sum = hasher.digest128().to_le_bytes();
                    hasher.reset();
                }
            }
        }
        self.write(length, self.block.weak, &sum);
        self.close_group(length, is_zero, value);
        self.at += length;
        (self.block.zeros, self.block.hashed, self.block.weak) = (0, 0, 0);
    }

    fn write(&mut self, length: u64, weak: u64, sum: &StrongSum) {
        debug_assert!(length > 0);
        let upper = weak >> (64 - 8 * self.shape.weak_bytes);
        self.weak
            .extend_from_slice(&upper.to_le_bytes()[..self.shape.weak_bytes]);
        self.hashes.extend_from_slice(&sum[..self.shape.strong_bytes]);
    }

    /// Counts a block into its group, and its chaining value into the tree.
    fn close_group(&mut self, length: u64, is_zero: bool, value: Option<ChainingValue>) {
        let group_blocks = self.shape.group_blocks() as usize;
        let is_full = length == self.block_bytes();
        self.group_is_zero &= is_zero;
        if group_blocks == 0 || !is_full {
            self.flush_group();
            if let (Digesting::Tree(tree), Some(value)) = (&mut self.digest, value) {
                tree.push(0, value);
            }
            return;
        }
        self.group.push(value);
        if self.group.len() < group_blocks {
            return;
        }
        let known = !self.group_is_zero || matches!(self.digest, Digesting::Tree(_));
        let merged = known.then(|| self.merge_group());
        let sum = match &merged {
            Some(value) if !self.group_is_zero => self.strong.of_chaining_value(value),
            _ => self.strong.of_zeros(),
        };
        self.groups.extend_from_slice(&sum[..self.shape.strong_bytes]);
        // A root is made of two subtrees: the only group of a basis is not one.
        if self.shape.blocks() == group_blocks as u64 {
            self.flush_group();
        } else if let (Digesting::Tree(tree), Some(value)) = (&mut self.digest, merged) {
            tree.push(group_blocks.ilog2(), value);
        }
        self.group.clear();
        self.group_is_zero = true;
    }

    fn merge_group(&self) -> ChainingValue {
        let block = self.block_bytes();
        let start = self.at + block - self.group.len() as u64 * block;
        let known = |(number, value): (usize, &Option<ChainingValue>)| {
            value.unwrap_or_else(|| subtree(start + number as u64 * block, &ZEROS[..block as usize]))
        };
        merge(&self.group.iter().enumerate().map(known).collect::<Vec<_>>())
    }

    /// The blocks of a group that will not be complete go into the tree one by one.
    fn flush_group(&mut self) {
        if let Digesting::Tree(tree) = &mut self.digest {
            let known = self.group.drain(..).flatten();
            known.for_each(|value| tree.push(0, value));
        }
    }

    /// The signature, and the digest if it was asked for. An error if the basis was not as long as announced.
    pub fn finish(mut self) -> Result<Signed, DeltaFault> {
        if self.block.length() > 0 {
            self.close_block();
        }
        if self.at != self.shape.basis_bytes {
            return Err(DeltaFault::Length {
                made: self.at,
                wanted: self.shape.basis_bytes,
            });
        }
        self.flush_group();
        let digest = match self.digest {
            Digesting::No => None,
            Digesting::Own(hasher) => Some(*hasher.finalize().as_bytes()),
            // Without any block the basis is empty.
            Digesting::Tree(tree) => Some(tree.root().unwrap_or_else(|| *blake3::hash(&[]).as_bytes())),
        };
        let mut signature = self.weak;
        signature.append(&mut self.hashes);
        signature.append(&mut self.groups);
        Ok(Signed { signature, digest })
    }
}

impl Block {
    fn length(&self) -> u64 {
        self.zeros + self.hashed
    }
}
