//! The two engines behind one interface. A signature tells by its first bytes which one made it, and that one matches.

use super::builder::{SignatureBuilder, SignatureOptions};
use super::index::Index;
use super::matcher::Matcher;
use super::ranges::RangeDelta;
use super::signature::Signature;
use super::{BASIS_BYTES_MIN, DeltaFault, fast_rsync};
use driftless_protocol::message::DeltaEngine;
use std::fmt;
use std::str::FromStr;

/// Who makes signatures and matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Engine {
    /// This program's own.
    #[default]
    Driftless,
    /// The fast_rsync crate, behind guards. A basis above 4 GiB is not matched.
    FastRsync,
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Engine::Driftless => "driftless",
            Engine::FastRsync => "fast_rsync",
        })
    }
}

impl FromStr for Engine {
    type Err = String;

    fn from_str(name: &str) -> Result<Engine, String> {
        match name {
            "driftless" => Ok(Engine::Driftless),
            "fast_rsync" => Ok(Engine::FastRsync),
            _ => Err("no such delta engine: driftless and fast_rsync are known".to_owned()),
        }
    }
}

impl From<DeltaEngine> for Engine {
    fn from(engine: DeltaEngine) -> Engine {
        match engine {
            DeltaEngine::Driftless => Engine::Driftless,
            DeltaEngine::FastRsync => Engine::FastRsync,
        }
    }
}

impl From<Engine> for DeltaEngine {
    fn from(engine: Engine) -> DeltaEngine {
        match engine {
            Engine::Driftless => DeltaEngine::Driftless,
            Engine::FastRsync => DeltaEngine::FastRsync,
        }
    }
}

/// Makes the signature of a basis for the peer, and the digest of the basis if that costs nothing.
#[derive(Debug)]
pub enum BasisSigner {
    /// By [`Engine::Driftless`].
    Driftless(Box<SignatureBuilder>),
    /// By [`Engine::FastRsync`].
    FastRsync(fast_rsync::SignatureBuilder),
}

impl BasisSigner {
    /// For a basis of `basis_bytes`, under a fresh random key; none if it is too small to be worth a signature, or too
    /// large for the engine.
    pub fn new(engine: Engine, basis_bytes: u64, key: [u8; 32]) -> Option<BasisSigner> {
        if basis_bytes < BASIS_BYTES_MIN {
            return None;
        }
        match engine {
            Engine::Driftless => {
                let builder = SignatureBuilder::new(basis_bytes, &SignatureOptions::exchanged(key))?;
                Some(BasisSigner::Driftless(Box::new(builder)))
            }
            Engine::FastRsync => fast_rsync::SignatureBuilder::new(basis_bytes).map(BasisSigner::FastRsync),
        }
    }

    /// How many bytes each call of [`BasisSigner::push`] takes, but for the last.
    pub fn step(&self) -> usize {
        match self {
            BasisSigner::Driftless(_) => 1 << 20,
            BasisSigner::FastRsync(builder) => builder.step(),
        }
    }

    /// The next bytes of the basis.
    pub fn push(&mut self, piece: &[u8]) {
        match self {
            BasisSigner::Driftless(builder) => builder.push(piece),
            BasisSigner::FastRsync(builder) => builder.push(piece),
        }
    }

    /// The signature, and BLAKE3 of the basis if it is known now. An error if the basis was shorter than announced.
    pub fn finish(self) -> Result<(Vec<u8>, Option<[u8; 32]>), DeltaFault> {
        match self {
            BasisSigner::Driftless(builder) => builder.finish().map(|made| (made.signature, made.digest)),
            BasisSigner::FastRsync(builder) => Ok((builder.finish(), None)),
        }
    }
}

/// A peer's signature, checked and of either engine.
#[derive(Debug)]
pub enum PeerSignature {
    /// Of [`Engine::Driftless`], ready to be searched.
    Driftless(Box<Index>),
    /// Of [`Engine::FastRsync`].
    FastRsync(::fast_rsync::Signature),
}

impl PeerSignature {
    /// Checks a signature and makes it searchable.
    pub fn parse(bytes: Vec<u8>) -> Result<PeerSignature, DeltaFault> {
        if bytes.starts_with(&fast_rsync::MAGIC_MD4.to_be_bytes()) {
            return fast_rsync::parse_signature(bytes).map(PeerSignature::FastRsync);
        }
        let index = Index::new(Signature::parse(bytes)?);
        Ok(PeerSignature::Driftless(Box::new(index)))
    }

    /// A matcher for one target.
    pub fn matcher(&self) -> TargetMatcher<'_> {
        match self {
            PeerSignature::Driftless(index) => TargetMatcher::Driftless(Box::new(Matcher::new(index))),
            PeerSignature::FastRsync(signature) => {
                TargetMatcher::FastRsync(fast_rsync::Segments::new(signature))
            }
        }
    }
}

/// Matches a target that comes in pieces.
#[derive(Debug)]
pub enum TargetMatcher<'a> {
    /// By [`Engine::Driftless`].
    Driftless(Box<Matcher<'a>>),
    /// By [`Engine::FastRsync`].
    FastRsync(fast_rsync::Segments<'a>),
}

impl TargetMatcher<'_> {
    /// The next bytes of the target. Returns the ranges that are complete by now.
    pub fn push(&mut self, piece: &[u8]) -> Vec<RangeDelta> {
        match self {
            TargetMatcher::Driftless(matcher) => {
                matcher.push(piece);
                matcher.ranges()
            }
            TargetMatcher::FastRsync(segments) => segments.push(piece),
        }
    }

    /// The remaining ranges.
    pub fn finish(self) -> Vec<RangeDelta> {
        match self {
            TargetMatcher::Driftless(matcher) => matcher.finish(),
            TargetMatcher::FastRsync(segments) => segments.finish(),
        }
    }
}
