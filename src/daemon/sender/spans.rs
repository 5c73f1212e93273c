//! The quick way to what changed in a large file: comparing it span by span with what is remembered of the content that
//! the target holds. Each span is hashed once, on several threads, and that is all: no signature is made or searched.

use super::reader::read_full;
use crate::engine::delta::{Patch, PatchCollector, ranges::Output};
use crate::engine::rangesum::SPAN_BYTES;
use crate::engine::spans::{SpanValue, Spans};
use crate::store::{Signatures, content_key};
use driftless_protocol::Digest;
use driftless_protocol::limits::RANGE_BYTES_MAX;
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Of which files the sums are remembered: smaller ones are hashed soon enough, and of larger ones they would fill memory and
/// cache (2 KiB for each MiB).
pub const SPANNED_BYTES: std::ops::RangeInclusive<u64> = 8 << 20..=8 << 30;

const THREADS: usize = 2;

/// A longer run that differs below the old end is worth a search for what moved: an insertion shifts all that follows. What is
/// rewritten in place, as the pages of a database are, is in short runs.
const REPLACED_RUN_BYTES_MAX: usize = 64 << 10;

/// What a comparison found.
#[derive(Debug)]
pub struct Compared {
    /// Of the present content.
    pub digest: Digest,
    /// To be remembered with it, if it is long enough.
    pub spans: Option<Spans>,
    /// From the old content to the present one.
    pub patch: Patch,
}

/// What is remembered of a content.
pub fn remembered(cache: &Signatures, content: &Digest) -> Option<Spans> {
    Spans::from_bytes(&cache.get(content_key(content), content)?)
}

/// Remembers a content, instead of another one if there is one.
pub fn remember(cache: &Signatures, content: &Digest, spans: &Spans, instead_of: Option<&Digest>) {
    let Some(bytes) = spans.to_bytes() else { return };
    if let Some(old) = instead_of.filter(|old| *old != content) {
        cache.remove(content_key(old));
    }
    if let Err(error) = cache.put(content_key(content), content, &bytes) {
        tracing::debug!("cannot keep the sums of a file: {error}");
    }
}

/// What is remembered of a content, to be taken over by another cache.
pub fn export(cache: &Signatures, content: &Digest) -> Option<Vec<u8>> {
    cache.get(content_key(content), content)
}

/// Takes over what another cache remembers of a content, instead of what is remembered of another content.
pub fn import(cache: &Signatures, content: &Digest, spans: &[u8], instead_of: Option<&Digest>) {
    if let Some(old) = instead_of.filter(|old| *old != content) {
        cache.remove(content_key(old));
    }
    if let Err(error) = cache.put(content_key(content), content, spans) {
        tracing::debug!("cannot keep the sums of a file: {error}");
    }
}

/// What a span became: in order, where it is copied from and what is new.
#[derive(Debug, Default)]
struct SpanDelta {
    pieces: Vec<Piece>,
    literal_bytes: usize,
}

#[derive(Debug)]
enum Piece {
    Copy(u64, u64),
    Literal(Vec<u8>),
}

impl Output for SpanDelta {
    fn copy(&mut self, offset: u64, length: u64) {
        match self.pieces.last_mut() {
            Some(Piece::Copy(from, bytes)) if *from + *bytes == offset => *bytes += length,
            _ => self.pieces.push(Piece::Copy(offset, length)),
        }
    }

    fn literal(&mut self, bytes: &[u8]) {
        self.literal_bytes += bytes.len();
        match self.pieces.last_mut() {
            Some(Piece::Literal(literal)) => literal.extend_from_slice(bytes),
            _ => self.pieces.push(Piece::Literal(bytes.to_vec())),
        }
    }
}

impl SpanDelta {
    /// Bytes of the longest run that is new, without those at the end that were appended.
    fn longest_run(&self, appended: usize) -> usize {
        let last = self.pieces.len().saturating_sub(1);
        let run = |(at, piece): (usize, &Piece)| match piece {
            Piece::Literal(bytes) if at == last => bytes.len().saturating_sub(appended),
            Piece::Literal(bytes) => bytes.len(),
            Piece::Copy(..) => 0,
        };
        self.pieces.iter().enumerate().map(run).max().unwrap_or(0)
    }
}

/// One span of the present content.
type Seen = (u64, SpanValue, SpanDelta);

/// Compares a file of `bytes` with an old content. `None` if that is not the way to find what changed: too much differs, or
/// the file got shorter meanwhile.
///
/// Spans before `trusted` bytes are taken to be unchanged, and are not read.
pub fn compare(file: &File, bytes: u64, old: &Spans, trusted: u64) -> io::Result<Option<Compared>> {
    if bytes > *SPANNED_BYTES.end() {
        return Ok(None);
    }
    let Some(mut spans) = old.resized(bytes) else {
        return compare_short(file, bytes as usize, old);
    };
    let first = trusted.min(old.bytes()).min(bytes) / SPAN_BYTES;
    let Some(seen) = scan(file, &spans, old, first)? else {
        return Ok(None);
    };
    let mut patch = PatchCollector::default();
    patch.copy(0, first * SPAN_BYTES);
    for (span, value, delta) in &seen {
        if spans.insert(*span, value).is_err() {
            return Ok(None);
        }
        for piece in &delta.pieces {
            match piece {
                Piece::Copy(offset, length) => patch.copy(*offset, *length),
                Piece::Literal(bytes) => patch.literal(bytes),
            }
        }
    }
    let Ok(digest) = spans.digest() else {
        return Ok(None);
    };
    Ok(patch.finish().map(|patch| Compared {
        digest: Digest(digest),
        spans: Some(spans),
        patch,
    }))
}

/// What was cut to at most a span.
fn compare_short(file: &File, bytes: usize, old: &Spans) -> io::Result<Option<Compared>> {
    let mut content = vec![0; bytes];
    if read_full(file, &mut content, 0)? < bytes {
        return Ok(None);
    }
    let mut patch = PatchCollector::default();
    old.compare(0, &content, &old.value_of(0, &content), &mut patch);
    Ok(patch.finish().map(|patch| Compared {
        digest: Digest::of(&content),
        spans: None,
        patch,
    }))
}

/// Reads all spans from `first` on and compares each; in order. `None` as soon as too much differs.
fn scan(file: &File, new: &Spans, old: &Spans, first: u64) -> io::Result<Option<Vec<Seen>>> {
    let next = AtomicU64::new(first);
    let literals = AtomicUsize::new(0);
    let is_over = AtomicBool::new(false);
    let seen = Mutex::new(Vec::new());
    let failed = Mutex::new(None);
    let work = || {
        let mut buffer = vec![0; SPAN_BYTES as usize];
        while !is_over.load(Ordering::Relaxed) {
            let span = next.fetch_add(1, Ordering::Relaxed);
            if span >= new.count() {
                return;
            }
            let buffer = &mut buffer[..new.span_bytes(span) as usize];
            let offset = span * SPAN_BYTES;
            match read_full(file, buffer, offset) {
                Ok(count) if count == buffer.len() => {}
                Ok(_) => return is_over.store(true, Ordering::Relaxed),
                Err(error) => {
                    is_over.store(true, Ordering::Relaxed);
                    *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    return;
                }
            }
            let value = new.value_of(span, buffer);
            let mut delta = SpanDelta::default();
            old.compare(span, buffer, &value, &mut delta);
            let appended = (offset + buffer.len() as u64).saturating_sub(old.bytes().max(offset)) as usize;
            let literals = literals.fetch_add(delta.literal_bytes, Ordering::Relaxed) + delta.literal_bytes;
            if delta.longest_run(appended) > REPLACED_RUN_BYTES_MAX || literals > RANGE_BYTES_MAX {
                return is_over.store(true, Ordering::Relaxed);
            }
            seen.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push((span, value, delta));
        }
    };
    let spans = new.count().saturating_sub(first);
    std::thread::scope(|scope| {
        for _ in 1..THREADS.min(spans as usize).max(1) {
            scope.spawn(work);
        }
        work();
    });
    let failed = failed.into_inner();
    if let Some(error) = failed.unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    if is_over.into_inner() {
        return Ok(None);
    }
    let mut seen = seen.into_inner().unwrap_or_else(PoisonError::into_inner);
    seen.sort_unstable_by_key(|(span, ..)| *span);
    Ok(Some(seen))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::spans::SpansBuilder;
    use std::io::Write;
    use std::ops::Range;

    const CONTENT_BYTES: usize = 4 << 20;
    const PAGE_BYTES: usize = 4 << 10;

    /// Literal bytes of the patch from some noise to what `edit` makes of it; none if what moved is to be searched for.
    fn literals(edit: impl FnOnce(&mut Vec<u8>)) -> Option<usize> {
        let mut content = vec![0; CONTENT_BYTES];
        blake3::Hasher::new().finalize_xof().fill(&mut content);
        let mut builder = SpansBuilder::new(7);
        builder.push(&content);
        let (_, old) = builder.finish();
        edit(&mut content);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        let compared = compare(&file, content.len() as u64, &old.unwrap(), 0).unwrap()?;
        assert_eq!(compared.digest, Digest::of(&content));
        Some(compared.patch.literals.len())
    }

    fn rewrite(content: &mut [u8], pages: Range<usize>) {
        content[pages.start * PAGE_BYTES..pages.end * PAGE_BYTES].fill(1);
    }

    #[test]
    fn pages_that_are_rewritten_in_place_are_no_shift() {
        let scattered =
            |count: usize| literals(|content| (0..count).for_each(|at| rewrite(content, at * 3..at * 3 + 1)));
        for count in [1, 17, 200, 256] {
            assert_eq!(scattered(count), Some(count * PAGE_BYTES));
        }
        assert_eq!(scattered(257), None, "more than a patch takes");
        assert_eq!(
            literals(|content| rewrite(content, 100..116)),
            Some(16 * PAGE_BYTES)
        );
    }

    #[test]
    fn what_shifts_is_searched_for() {
        assert_eq!(literals(|content| rewrite(content, 100..117)), None);
        let inserted_at = |at: usize| literals(|content| content.insert(at, 1));
        assert_eq!(inserted_at(CONTENT_BYTES / 2), None);
        assert_eq!(inserted_at(CONTENT_BYTES - 17 * PAGE_BYTES), None);
        assert_eq!(
            inserted_at(CONTENT_BYTES - 3 * PAGE_BYTES),
            Some(3 * PAGE_BYTES + 1)
        );
    }

    #[test]
    fn what_was_appended_is_no_shift() {
        for bytes in [1, 100_000, 500_000] {
            let appended = literals(|content| content.extend(vec![3; bytes]));
            assert_eq!(appended, Some(bytes));
        }
        let appended = literals(|content| {
            rewrite(content, 1_023..1_024);
            content.extend(vec![3; 200_000]);
        });
        assert_eq!(appended, Some(PAGE_BYTES + 200_000));
    }
}
