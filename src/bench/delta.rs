//! The micro mode: the rate of the delta engine on two files beside that of fast_rsync by itself, in one thread.

use super::BenchError;
use crate::engine::delta;
use fast_rsync::{Signature, SignatureOptions};
use serde::Serialize;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

/// Rounds, of which the fastest counts.
const ROUNDS: usize = 3;
/// How much is matched at a time.
const SEGMENT: usize = 16 << 20;

/// Rates in MB (10^6 bytes) a second.
#[derive(Debug, Clone, Serialize)]
pub struct Rates {
    /// Bytes of both files.
    pub bytes: (u64, u64),
    /// Our signature of the first file.
    pub ours_signature: f64,
    /// Our delta of the second file.
    pub ours_diff: f64,
    /// Literals in our delta, in bytes.
    pub ours_literals: u64,
    /// fast_rsync's signature.
    pub plain_signature: f64,
    /// fast_rsync's delta.
    pub plain_diff: f64,
    /// Size of fast_rsync's delta.
    pub plain_delta: u64,
}

fn best<T>(bytes: usize, mut work: impl FnMut() -> Result<T, BenchError>) -> Result<(f64, T), BenchError> {
    let mut fastest = Duration::MAX;
    let mut last = None;
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let made = work()?;
        fastest = fastest.min(began.elapsed());
        last = Some(black_box(made));
    }
    let made = last.ok_or_else(|| BenchError::new("nothing was run"))?;
    Ok((bytes as f64 / 1e6 / fastest.as_secs_f64().max(1e-9), made))
}

/// Measures the way from `old` to `new`.
///
/// # Errors
/// When a file cannot be read or is outside the sizes that deltas are made for.
pub fn measure(old: &Path, new: &Path) -> Result<Rates, BenchError> {
    let read = |path: &Path| std::fs::read(path).map_err(|error| BenchError::io("read", path, &error));
    let (old, new) = (read(old)?, read(new)?);
    let fail = |error: &dyn std::fmt::Display| BenchError::new(error.to_string());
    let (ours_signature, signature) = best(old.len(), || {
        let mut builder = delta::SignatureBuilder::new(old.len() as u64)
            .ok_or_else(|| BenchError::new("the first file is too small or too large for a delta"))?;
        old.chunks(builder.step()).for_each(|piece| builder.push(piece));
        Ok(builder.finish())
    })?;
    let signature = delta::parse_signature(signature).map_err(|error| fail(&error))?;
    let index = signature.index();
    let (ours_diff, ours_literals) = best(new.len(), || {
        new.chunks(SEGMENT).try_fold(0, |sum, segment| {
            let ranges = delta::diff(&index, segment).map_err(|error| fail(&error))?;
            Ok(sum
                + ranges
                    .iter()
                    .map(|range| range.literals.len() as u64)
                    .sum::<u64>())
        })
    })?;
    let block_size = delta::block_bytes(old.len() as u64);
    let options = || SignatureOptions {
        block_size,
        crypto_hash_size: 16,
    };
    let (plain_signature, signature) = best(old.len(), || Ok(Signature::calculate(&old, options())))?;
    let index = signature.index();
    let (plain_diff, made) = best(new.len(), || {
        let mut made = Vec::new();
        fast_rsync::diff(&index, &new, &mut made).map_err(|error| fail(&error))?;
        Ok(made)
    })?;
    let bytes = (old.len() as u64, new.len() as u64);
    let plain_delta = made.len() as u64;
    Ok(Rates {
        bytes,
        ours_signature,
        ours_diff,
        ours_literals,
        plain_signature,
        plain_diff,
        plain_delta,
    })
}
