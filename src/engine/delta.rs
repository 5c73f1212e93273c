//! Rolling-checksum deltas: from a basis's signature and the target's bytes to copies and literals, and back.
//!
//! The receiver has a **basis**, the sender a **target** that is probably much like it. The receiver (or the sender
//! itself, when it had the basis earlier) makes a **signature** of the basis with [`SignatureBuilder`]: for each block a
//! rolling sum and a short hash. The sender makes an [`Index`] of it and sends its target through a [`Matcher`], which
//! finds blocks of the basis at any offset (the rsync algorithm, Tridgell and Mackerras 1996) and gives copies and
//! literals, cut into ranges that fit the wire. The receiver checks them with [`check_parts`] and carries them out.
//!
//! What this promises: any basis, target and signature give a delta that makes the target or (by an accident of 96
//! bits) one whose result the digest of the whole file finds wrong; in memory that does not grow with the target, and
//! in time that grows with its length only. What it does not: the smallest possible delta.
//!
//! Two engines make and match signatures: this one, and fast_rsync's in [`fast_rsync`]. [`engine`] joins them.

pub mod builder;
pub mod coverage;
pub mod engine;
pub mod fast_rsync;
pub mod index;
pub mod matcher;
pub mod patch;
pub mod ranges;
pub mod rolling;
pub mod segments;
pub mod signature;
pub mod strong;

pub use builder::{SignatureBuilder, SignatureOptions, Signed};
pub use coverage::Coverage;
pub use engine::{BasisSigner, Engine, PeerSignature, TargetMatcher};
pub use index::Index;
pub use matcher::{Matcher, Work};
pub use patch::{Patch, PatchCollector};
pub use ranges::{RangeDelta, check_parts};
pub use segments::{Joiner, SegmentDelta, match_segment, overlap_bytes};
pub use signature::{Signature, block_bytes};
pub use strong::StrongKind;

use thiserror::Error;

/// A basis smaller than this is not worth a signature: the file is sent whole.
pub const BASIS_BYTES_MIN: u64 = 16 << 10;

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
    /// The parts do not add up to the range, the literals to their parts, or a basis to its announced length.
    #[error("there are {made} bytes where {wanted} were announced")]
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

#[cfg(test)]
mod tests;
