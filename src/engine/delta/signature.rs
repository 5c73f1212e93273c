//! Signatures: what is known of a basis whose bytes are elsewhere, or are overwritten by now.
//!
//! ```text
//! offset  bytes
//!  0      4      magic "drsg"
//!  4      1      version, 1
//!  5      1      kind of block hash: 1 keyed BLAKE3, 2 seeded XXH3
//!  6      1      logarithm (to base 2) of the block size, 10 to 24
//!  7      1      bytes of a rolling sum, 4 to 8: the upper ones
//!  8      1      bytes of a block hash, 8 to 16: the first ones
//!  9      7      zero
//! 16      8      length of the basis
//! 24      32     key
//! 56             rolling sums of all blocks, the last of which may be short
//!                block hashes of all blocks
//!                hashes of all whole groups of blocks, for keyed BLAKE3 with blocks below 64 KiB:
//!                a group is as many blocks as make 64 KiB
//! ```
//!
//! Numbers are little endian. Columns come one after the other because they are read at different times: the rolling
//! sums once, for the index; the hashes one by one as blocks are compared. The length follows from the header, so a
//! signature that lies about its blocks is found before anything is allocated.
//!
//! **Block size**: the power of two nearest to the square root of the basis. With it the signature (12 to 14 bytes a
//! block) and the literals around some ten edits are about equally large, and whatever the basis, the index stays within
//! the processor's caches (100 GiB: 400,000 blocks of 256 KiB). It is a power of two because then a changed page costs
//! one block and not two, copies can share extents on the disk, and a block is a subtree of BLAKE3.
//!
//! **Groups** are hashed in one go while data follows the basis: BLAKE3 needs some 16 KiB at a time to use all lanes of
//! the processor.

use super::DeltaFault;
use super::rolling::Rolling;
use super::strong::{Strong, StrongKind, StrongSum};
use driftless_protocol::limits::SIGNATURE_BYTES_MAX;

/// The first bytes of every signature of this engine.
pub const MAGIC: [u8; 4] = *b"drsg";
/// The version written and read.
pub const VERSION: u8 = 1;
/// Bytes before the first rolling sum.
pub const HEADER_BYTES: usize = 56;
/// Smallest block: a chunk of BLAKE3.
pub const BLOCK_BYTES_MIN: u64 = 1 << BLOCK_LOG_MIN;
/// Largest block: what a matcher has to hold at least twice.
pub const BLOCK_BYTES_MAX: u64 = 1 << BLOCK_LOG_MAX;
const BLOCK_LOG_MIN: u32 = 10;
const BLOCK_LOG_MAX: u32 = 24;
/// Hashed in one go while data follows the basis.
const GROUP_BYTES: u64 = 64 << 10;

/// The size of blocks for a basis of `bytes`, which also keeps the signature within `signature_bytes_max`; none if no
/// block size does.
pub fn block_bytes(bytes: u64, kind: StrongKind, signature_bytes_max: usize) -> Option<u64> {
    let root = bytes.isqrt().clamp(BLOCK_BYTES_MIN, BLOCK_BYTES_MAX);
    // The nearest power of two by ratio: 1.5 of one and 0.75 of the next.
    let mut log = root.ilog2() + u32::from(root * root >= 2 << (2 * root.ilog2()));
    while log <= BLOCK_LOG_MAX {
        let shape = Shape::new(kind, log, bytes);
        if shape.length() <= signature_bytes_max as u64 {
            return Some(1 << log);
        }
        log += 1;
    }
    None
}

/// What a signature's header says, and what follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// The kind of block hash.
    pub kind: StrongKind,
    /// Logarithm of the block size.
    pub block_log: u32,
    /// Bytes of a rolling sum.
    pub weak_bytes: usize,
    /// Bytes of a block hash.
    pub strong_bytes: usize,
    /// Length of the basis.
    pub basis_bytes: u64,
}

impl Shape {
    /// The shape that this version gives to a new signature.
    ///
    /// False hits of the rolling sum cost about `basis / 2^bits` hashed bytes for each byte that is searched; the sum
    /// grows with the basis so that this stays below a sixty-fourth.
    pub fn new(kind: StrongKind, block_log: u32, basis_bytes: u64) -> Shape {
        const MIB: u64 = 1 << 20;
        const GIB: u64 = 1 << 30;
        let weak_bytes = match basis_bytes {
            small if small <= 64 * MIB => 4,
            middle if middle <= 16 * GIB => 5,
            _ => 6,
        };
        Shape {
            kind,
            block_log,
            weak_bytes,
            strong_bytes: 8,
            basis_bytes,
        }
    }

    /// Bytes in a block.
    pub fn block_bytes(&self) -> u64 {
        1 << self.block_log
    }

    /// Blocks of full size.
    pub fn full_blocks(&self) -> u64 {
        self.basis_bytes >> self.block_log
    }

    /// Bytes in the short block at the end; 0 if there is none.
    pub fn tail_bytes(&self) -> u64 {
        self.basis_bytes & (self.block_bytes() - 1)
    }

    /// Blocks, the short one included.
    pub fn blocks(&self) -> u64 {
        self.basis_bytes.div_ceil(self.block_bytes())
    }

    /// Blocks in a group; 0 if there are no groups.
    pub fn group_blocks(&self) -> u64 {
        match self.kind {
            StrongKind::KeyedBlake3 if self.block_bytes() < GROUP_BYTES => GROUP_BYTES >> self.block_log,
            _ => 0,
        }
    }

    /// Whole groups.
    pub fn groups(&self) -> u64 {
        self.full_blocks().checked_div(self.group_blocks()).unwrap_or(0)
    }

    /// Bytes of the signature.
    pub fn length(&self) -> u64 {
        let blocks = self
            .blocks()
            .saturating_mul((self.weak_bytes + self.strong_bytes) as u64);
        let groups = self.groups().saturating_mul(self.strong_bytes as u64);
        (HEADER_BYTES as u64)
            .saturating_add(blocks)
            .saturating_add(groups)
    }

    /// The header of a signature under a key.
    pub fn header(&self, key: &[u8; 32]) -> [u8; HEADER_BYTES] {
        let mut header = [0; HEADER_BYTES];
        header[..4].copy_from_slice(&MAGIC);
        header[4] = VERSION;
        header[5] = match self.kind {
            StrongKind::KeyedBlake3 => 1,
            StrongKind::SeededXxh3 => 2,
        };
        header[6] = self.block_log as u8;
        header[7] = self.weak_bytes as u8;
        header[8] = self.strong_bytes as u8;
        header[16..24].copy_from_slice(&self.basis_bytes.to_le_bytes());
        header[24..].copy_from_slice(key);
        header
    }

    fn parse(header: &[u8; HEADER_BYTES]) -> Result<Shape, DeltaFault> {
        let fault = |what| Err(DeltaFault::Signature(what));
        if header[..4] != MAGIC {
            return fault("it does not begin with its magic");
        }
        if header[4] != VERSION {
            return fault("its version is not known");
        }
        let kind = match header[5] {
            1 => StrongKind::KeyedBlake3,
            2 => StrongKind::SeededXxh3,
            _ => return fault("its kind of block hash is not known"),
        };
        let block_log = u32::from(header[6]);
        if !(BLOCK_LOG_MIN..=BLOCK_LOG_MAX).contains(&block_log) {
            return fault("its block size is out of range");
        }
        let (weak_bytes, strong_bytes) = (usize::from(header[7]), usize::from(header[8]));
        if !(4..=8).contains(&weak_bytes) {
            return fault("its rolling sums are not 4 to 8 bytes long");
        }
        if !(8..=16).contains(&strong_bytes) {
            return fault("its block hashes are not 8 to 16 bytes long");
        }
        if header[9..16] != [0; 7] {
            return fault("reserved bytes are not zero");
        }
        let basis_bytes = u64::from_le_bytes(header[16..24].try_into().expect("eight bytes"));
        if i64::try_from(basis_bytes).is_err() {
            return fault("its basis is longer than any file");
        }
        Ok(Shape {
            kind,
            block_log,
            weak_bytes,
            strong_bytes,
            basis_bytes,
        })
    }
}

/// A signature that was checked.
#[derive(Debug, Clone)]
pub struct Signature {
    shape: Shape,
    strong: Strong,
    rolling: Rolling,
    bytes: Vec<u8>,
}

impl Signature {
    /// Checks a signature, a peer's or a stored one. Takes time and memory that do not depend on what it says.
    pub fn parse(bytes: Vec<u8>) -> Result<Signature, DeltaFault> {
        if bytes.len() > SIGNATURE_BYTES_MAX {
            return Err(DeltaFault::Signature("it is too long"));
        }
        let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(DeltaFault::Signature("its header is cut off"));
        };
        let shape = Shape::parse(header)?;
        if shape.length() != bytes.len() as u64 {
            return Err(DeltaFault::Signature("its length is not what its header says"));
        }
        let key = *header.last_chunk().expect("the key is the header's end");
        let strong = Strong::new(shape.kind, key);
        let rolling = Rolling::new(strong.rolling_seed(), shape.block_bytes());
        Ok(Signature {
            shape,
            strong,
            rolling,
            bytes,
        })
    }

    /// What the header says.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The block hash, under this signature's key.
    pub fn strong(&self) -> &Strong {
        &self.strong
    }

    /// The rolling sum for windows of this signature's block size.
    pub fn rolling(&self) -> &Rolling {
        &self.rolling
    }

    /// The signature as it travels or is kept.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The upper bits of a rolling sum, as far as this signature has them, as a number.
    #[inline]
    pub fn weak_of(&self, sum: u64) -> u64 {
        sum >> (64 - 8 * self.shape.weak_bytes)
    }

    /// The rolling sum of a block.
    pub fn weak(&self, block: u64) -> u64 {
        let width = self.shape.weak_bytes;
        let from = HEADER_BYTES + block as usize * width;
        let mut number = [0; 8];
        number[..width].copy_from_slice(&self.bytes[from..from + width]);
        u64::from_le_bytes(number)
    }

    /// Whether this is the hash of a block.
    pub fn is_block(&self, block: u64, sum: &StrongSum) -> bool {
        self.is_entry(block, sum)
    }

    /// Whether this is the hash of a group.
    pub fn is_group(&self, group: u64, sum: &StrongSum) -> bool {
        self.is_entry(self.shape.blocks() + group, sum)
    }

    fn is_entry(&self, entry: u64, sum: &StrongSum) -> bool {
        let width = self.shape.strong_bytes;
        let column = HEADER_BYTES + self.shape.blocks() as usize * self.shape.weak_bytes;
        let from = column + entry as usize * width;
        self.bytes[from..from + width] == sum[..width]
    }
}
