//! A file whose content is on its way: ranges in any order, a sum for each span that is complete, and the check in the end.
//!
//! Sums are taken of what was written while it is still in memory, or read back where it was copied from a basis. So in
//! the end nothing is read again, and a transfer that is cut off leaves the sums of what it had.

use super::apply::{CopySource, StagedFile, settled};
use super::kept::Kept;
use super::owners::Terms;
use super::replica::ApplyError;
use super::spans;
use super::staging::digest_of;
use crate::engine::delta::{self, Coverage};
use crate::engine::rangesum::RangeSums;
use crate::engine::span_sums::{self, SpanSum, SpanSums};
use crate::engine::zeros::ZEROS;
use crate::fs::{Directory, FsErrorKind, Staged};
use crate::store::Signatures;
use driftless_protocol::limits::{RANGE_BYTES_MAX, SPAN_BYTES};
use driftless_protocol::message::{BulkFrame, DeltaPart, FailureKind, RangeBody, SealOp};
use driftless_protocol::{Attributes, Digest, Xattrs};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Separate spans that a file may arrive in at a time; an honest sender leaves as many gaps as it has streams.
const RUNS_MAX: usize = 4_096;

/// Large files are written to the disk in steps of so many bytes, as they come.
const WRITEOUT_BYTES: u64 = 8 << 20;

/// A larger file is flushed by the thread that checks it.
const FLUSH_HERE_BYTES_MIN: u64 = 1 << 20;

/// A file whose content is on its way.
#[derive(Debug)]
pub struct Incoming {
    /// Before the file itself, which it looks at when both are dropped.
    kept: Option<Kept>,
    staged: Staged,
    basis: Option<(File, u64)>,
    /// Its size, as it was offered; the seal decides.
    offered: u64,
    /// The extended attributes that it gets.
    xattrs: Arc<Xattrs>,
    /// It has no bytes but those of this transfer.
    is_blank: bool,
    arrival: Arc<Mutex<Arrival>>,
    /// Set once, by whoever sees the last range or the seal, or by a failure.
    closed: AtomicBool,
}

/// What has arrived.
#[derive(Debug, Default)]
pub struct Arrival {
    coverage: Coverage,
    seal: Option<SealOp>,
    /// Of spans that are complete.
    pub sums: SpanSums,
    /// Of spans that an earlier transfer left, and of which nothing has come yet.
    pub held: SpanSums,
}

impl Incoming {
    /// A file of about `offered` bytes that comes in ranges.
    pub fn new(staged: Staged, basis: Option<(File, u64)>, offered: u64, xattrs: Arc<Xattrs>) -> Incoming {
        // Only so that holes stay free of what file systems reserve behind the end; the seal says how long it is.
        let _ = staged.set_len(offered);
        Incoming {
            kept: None,
            staged,
            basis,
            offered,
            xattrs,
            is_blank: true,
            arrival: Arc::default(),
            closed: AtomicBool::new(false),
        }
    }

    /// As [`Incoming::new`], on top of what an earlier transfer left, if one did, and to be left again.
    pub fn resumed(
        staged: Staged,
        basis: Option<(File, u64)>,
        offered: u64,
        xattrs: Arc<Xattrs>,
        held: Option<SpanSums>,
        keep: impl FnOnce(&Arc<Mutex<Arrival>>) -> Option<Kept>,
    ) -> Incoming {
        let is_blank = held.is_none();
        let arrival = Arc::new(Mutex::new(Arrival {
            held: held.unwrap_or_default(),
            ..Arrival::default()
        }));
        // See `new`. What is there already is not cut: the file may grow to hold it again.
        if staged.stat().is_ok_and(|stat| stat.size < offered) {
            let _ = staged.set_len(offered);
        }
        Incoming {
            kept: keep(&arrival),
            staged,
            basis,
            offered,
            xattrs,
            is_blank,
            arrival,
            closed: AtomicBool::new(false),
        }
    }

    /// Reserves the space that it needs, if it does not share what it will have with a basis.
    pub fn preallocate(&self) -> Result<(), ApplyError> {
        if self.basis.is_some() {
            return Ok(());
        }
        self.staged.preallocate(self.offered).map_err(|error| {
            self.discard();
            error.into()
        })
    }

    /// Writes bytes, and leaves blocks of zeros out as holes.
    fn write(&self, bytes: &[u8], offset: u64) -> Result<(), ApplyError> {
        if !self.is_blank {
            self.staged.make_hole(offset, bytes.len() as u64)?;
        }
        Ok(self.staged.write_sparse_at(bytes, offset)?)
    }

    fn lock(&self) -> MutexGuard<'_, Arrival> {
        self.arrival.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing more is to be done with it.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Notes the seal.
    pub fn set_seal(&self, seal: SealOp) {
        self.lock().seal = Some(seal);
    }

    /// The seal, to whoever is the first to ask when everything has arrived.
    pub fn is_complete(&self) -> Option<SealOp> {
        let arrival = self.lock();
        let seal = arrival
            .seal
            .filter(|seal| arrival.coverage.is_complete(seal.size))?;
        (!self.closed.swap(true, Ordering::AcqRel)).then_some(seal)
    }

    /// What arrived is worth nothing: it is not to be kept.
    pub fn discard(&self) {
        if let Some(kept) = &self.kept {
            kept.discard();
        }
        self.staged.discard();
    }

    /// Takes a range. `known` is the sum of its bytes, if they are a span, from whoever has summed the very same memory, or the
    /// same part of `origin`, from which its bytes are to be copied.
    pub fn take(
        &self,
        frame: &BulkFrame,
        known: Option<[u8; 32]>,
        origin: Option<&File>,
    ) -> Result<(), ApplyError> {
        let length = u64::from(frame.length);
        if frame.length as usize > RANGE_BYTES_MAX || frame.offset > i64::MAX as u64 - length {
            return Err(wrong("a range is over its limits"));
        }
        let fits = |bytes: &[u8]| match bytes.len() == frame.length as usize {
            true => Ok(()),
            false => Err(wrong("a range has another length")),
        };
        if frame.body == RangeBody::Held {
            return self.take_held(frame);
        }
        // Before the first byte is written: whoever is cut off now must not believe the old sum.
        if self.kept.is_some() {
            self.lock().held.forget(frame.offset, length);
        }
        let mut sum = None;
        match &frame.body {
            RangeBody::Raw(_) if let Some(origin) = origin => {
                if self.copy(origin, frame.offset, length)? {
                    sum = known.and_then(|sum| self.whole_span_of(frame.offset, frame.length, sum));
                }
            }
            RangeBody::Raw(bytes) => {
                fits(&bytes.0)?;
                self.write(&bytes.0, frame.offset)?;
                sum = self.whole_span(frame.offset, &bytes.0, known);
            }
            RangeBody::Zstd(bytes) => {
                let bytes = inflate(&bytes.0)?;
                fits(&bytes)?;
                self.write(&bytes, frame.offset)?;
                sum = self.whole_span(frame.offset, &bytes, None);
            }
            // It is empty where nothing is written; the length is set at the end.
            RangeBody::Zeros => {
                if !self.is_blank {
                    self.staged.make_hole(frame.offset, length)?;
                }
                sum = self.whole_span(frame.offset, &ZEROS[..frame.length as usize], known);
            }
            RangeBody::Delta { parts, literals } => {
                self.build(frame.offset, length, &parts.0, &inflate(&literals.0)?)?;
            }
            RangeBody::Held => {}
        }
        let step = (frame.offset + length) / WRITEOUT_BYTES;
        if step > frame.offset / WRITEOUT_BYTES {
            // While the rest is still coming, and not all at once in the end.
            let start = (step - 1) * WRITEOUT_BYTES;
            self.staged.start_writeout(start, WRITEOUT_BYTES);
        }
        self.note(frame.offset, length, sum)
    }

    /// The bytes of a span that an earlier transfer left are right.
    fn take_held(&self, frame: &BulkFrame) -> Result<(), ApplyError> {
        let span = frame.offset / SPAN_BYTES;
        let held = match frame.offset.is_multiple_of(SPAN_BYTES) {
            true => self.lock().held.take(span, frame.length),
            false => None,
        };
        let sum = held.ok_or_else(|| wrong("a range refers to bytes that are not held"))?;
        self.note(frame.offset, frame.length.into(), Some((span, sum)))
    }

    /// Copies bytes from the same place of another file. False if it has become too short for them: its sender sees that,
    /// too, and never seals what it saw before.
    fn copy(&self, origin: &File, offset: u64, length: u64) -> Result<bool, ApplyError> {
        match self.staged.copy_from(origin, offset, offset, length) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == FsErrorKind::ShortBasis => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The sum of a range that is a span from end to end.
    fn whole_span(&self, offset: u64, bytes: &[u8], known: Option<[u8; 32]>) -> Option<(u64, SpanSum)> {
        let (span, length) = (offset / SPAN_BYTES, bytes.len() as u32);
        match known {
            Some(sum) => self.whole_span_of(offset, length, sum),
            None => (self.is_whole_span(offset, length)).then(|| (span, SpanSum::of(span, bytes))),
        }
    }

    /// As [`Incoming::whole_span`], of a range whose sum is known.
    fn whole_span_of(&self, offset: u64, bytes: u32, sum: [u8; 32]) -> Option<(u64, SpanSum)> {
        let span = offset / SPAN_BYTES;
        self.is_whole_span(offset, bytes)
            .then_some((span, SpanSum { bytes, sum }))
    }

    fn is_whole_span(&self, offset: u64, bytes: u32) -> bool {
        offset.is_multiple_of(SPAN_BYTES)
            && self.offered > SPAN_BYTES
            && bytes == span_sums::span_bytes(offset / SPAN_BYTES, self.offered)
    }

    /// Notes that a range has arrived, and the sums of the spans that it completes.
    fn note(&self, offset: u64, length: u64, sum: Option<(u64, SpanSum)>) -> Result<(), ApplyError> {
        let mut completed = Vec::new();
        {
            let mut arrival = self.lock();
            if !arrival.coverage.add(offset, length) {
                return Err(wrong("a range came twice"));
            }
            if arrival.coverage.span_count() > RUNS_MAX {
                return Err(wrong("the ranges of a file are scattered"));
            }
            if let Some((span, sum)) = sum {
                arrival.sums.insert(span, sum);
            } else if self.offered > SPAN_BYTES {
                completed.extend(span_sums::touched(offset, length).filter(|&span| {
                    let bytes = span_sums::span_bytes(span, self.offered);
                    bytes > 0 && arrival.coverage.contains(span * SPAN_BYTES, bytes.into())
                }));
            }
        }
        for &span in &completed {
            let bytes = span_sums::span_bytes(span, self.offered);
            // What is shorter than it should be, because it ends with zeros, is summed in the end.
            if let Some(sum) = read_sum(self.staged.file(), span, bytes)? {
                self.lock().sums.insert(span, sum);
            }
        }
        if let Some(kept) = &self.kept {
            let arrival = self.lock();
            let noted = sum.map(|(span, _)| span).into_iter().chain(completed);
            for span in noted {
                if let Some(sum) = arrival.sums.get(span, span_sums::span_bytes(span, self.offered)) {
                    kept.note(span, &sum);
                }
            }
        }
        Ok(())
    }

    /// Builds all of it from its basis; the literals are compressed.
    pub fn build_whole(&self, size: u64, parts: &[DeltaPart], literals: &[u8]) -> Result<(), ApplyError> {
        self.build(0, size, parts, &inflate(literals)?)
    }

    /// Notes sums that need not be taken: those of spans that are as they were in the basis.
    pub fn trust(&self, sums: SpanSums) {
        self.lock().sums = sums;
    }

    /// Builds `length` bytes from `offset` on.
    fn build(
        &self,
        offset: u64,
        length: u64,
        parts: &[DeltaPart],
        literals: &[u8],
    ) -> Result<(), ApplyError> {
        let (basis, basis_bytes) = self
            .basis
            .as_ref()
            .ok_or_else(|| wrong("a delta came for a file without basis"))?;
        delta::check_parts(parts, length, literals.len(), *basis_bytes)
            .map_err(|fault| wrong(fault.to_string()))?;
        let (mut at, mut literals) = (offset, literals);
        for part in parts {
            match *part {
                DeltaPart::Copy { offset, length } => {
                    self.staged.copy_from(basis, offset, at, u64::from(length))?;
                    at += u64::from(length);
                }
                DeltaPart::Literal { length } => {
                    let (now, later) = literals.split_at(length as usize);
                    self.write(now, at)?;
                    at += u64::from(length);
                    literals = later;
                }
            }
        }
        Ok(())
    }

    /// Checks that it is what was sealed, and gives it its attributes. The sums of its spans are remembered, instead of those
    /// of another content if there is one that it replaces.
    pub fn verify(
        self,
        seal: &SealOp,
        terms: &Terms,
        memory: &Signatures,
        instead_of: Option<&Digest>,
    ) -> Result<StagedFile, ApplyError> {
        let outcome = self.check(seal);
        if outcome.is_err() {
            self.discard();
        }
        if let Some(sums) = outcome? {
            spans::remember(memory, &seal.digest, &sums, instead_of);
        }
        // Closes the record of what is kept, while the file is still as the record says.
        drop(self.kept);
        let staged = self.staged;
        // Those that came with the op are those that it gets, whatever the seal says.
        let wanted = Attributes {
            xattrs: self.xattrs.digest(),
            ..seal.attributes
        };
        let applied = staged.set_metadata(&terms.metadata(&wanted, Some(&self.xattrs))?)?;
        let device = applied.stat.stamp.device;
        let (attributes, refused) = settled(wanted, applied);
        // Here, and not where batches are committed: small changes must not wait for a large file's flush.
        let is_flushed = seal.size > FLUSH_HERE_BYTES_MIN;
        if is_flushed {
            staged.sync()?;
        }
        Ok(StagedFile {
            staged,
            size: seal.size,
            digest: seal.digest,
            attributes,
            refused,
            device,
            is_flushed,
        })
    }

    fn check(&self, seal: &SealOp) -> Result<Option<RangeSums>, ApplyError> {
        self.staged.set_len(seal.size)?;
        self.staged.start_writeout(0, 0);
        let (digest, sums) = self.digest(seal.size)?;
        if digest != seal.digest {
            return Err(wrong("the rebuilt content does not have the promised digest"));
        }
        if self.kept.is_some() {
            // While nobody else may open it: until it has its attributes, it can be gone on with.
            self.staged.sync()?;
        }
        Ok(sums)
    }

    /// The digest, from the sums of spans, and these; those that are not known are read back.
    fn digest(&self, size: u64) -> Result<(Digest, Option<RangeSums>), ApplyError> {
        let arrival = self.lock();
        let file = self.staged.file();
        let mut all = spans::unknown(size);
        let made = span_sums::digest(size, |span, bytes| {
            let sum = match arrival.sums.get(span, bytes) {
                Some(known) => known,
                None => read_sum(file, span, bytes)?
                    .ok_or_else(|| wrong("the rebuilt content is shorter than promised"))?,
            };
            if all.as_mut().is_some_and(|all| all.insert(span, sum.sum).is_err()) {
                all = None;
            }
            Ok::<_, ApplyError>(sum.sum)
        })?;
        match made {
            Some(digest) => Ok((Digest(digest), all)),
            None => {
                let digest = digest_of(file).map_err(|error| cannot_read_back(&error))?;
                Ok((digest, None))
            }
        }
    }
}

/// The sum of a span of a file; none if the file is shorter.
pub fn read_sum(file: &File, span: u64, bytes: u32) -> Result<Option<SpanSum>, ApplyError> {
    let mut buffer = vec![0; bytes as usize];
    match file.read_exact_at(&mut buffer, span * SPAN_BYTES) {
        Ok(()) => Ok(Some(SpanSum::of(span, &buffer))),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(cannot_read_back(&error)),
    }
}

fn cannot_read_back(error: &std::io::Error) -> ApplyError {
    ApplyError {
        kind: FailureKind::Io,
        text: format!("cannot read back: {error}"),
    }
}

fn wrong(text: impl Into<String>) -> ApplyError {
    ApplyError {
        kind: FailureKind::WrongDigest,
        text: text.into(),
    }
}

/// Copies a file, by reference where the file system can. Whoever writes to it meanwhile is noticed by the digest.
pub fn copied(
    directory: Arc<Directory>,
    source: &CopySource,
    seal: &SealOp,
    xattrs: Arc<Xattrs>,
    terms: &Terms,
    memory: &Signatures,
) -> Result<StagedFile, ApplyError> {
    let file = source.open()?;
    let staged = Staged::create(directory)?;
    let incoming = Incoming::new(staged, None, seal.size, xattrs);
    let changed = |error: ApplyError| match error.kind {
        FailureKind::NoSpace | FailureKind::Permission => error,
        _ => ApplyError {
            kind: FailureKind::Basis,
            text: format!("the copy is not what it should be: {}", error.text),
        },
    };
    incoming
        .staged
        .copy_from(&file, 0, 0, seal.size)
        .map_err(|error| changed(error.into()))?;
    incoming.verify(seal, terms, memory, None).map_err(changed)
}

/// One zstd frame of at most a range's bytes, whatever it claims.
fn inflate(bytes: &[u8]) -> Result<Vec<u8>, ApplyError> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    zstd::bulk::decompress(bytes, RANGE_BYTES_MAX)
        .map_err(|error| wrong(format!("a range does not decompress: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use driftless_protocol::message::RangeBytes;

    const BYTES: usize = 3 * SPAN_BYTES as usize + 500;

    /// A file of its size that is to be staged, and one to be copied from.
    fn files(origin: &[u8]) -> (tempfile::TempDir, Incoming, File) {
        let home = tempfile::tempdir().unwrap();
        let root = Directory::open_root(home.path()).unwrap();
        let path = home.path().join("origin");
        std::fs::write(&path, origin).unwrap();
        let staged = Staged::create(Arc::new(root)).unwrap();
        let incoming = Incoming::new(staged, None, BYTES as u64, Arc::default());
        (home, incoming, File::open(path).unwrap())
    }

    fn ranges() -> impl Iterator<Item = BulkFrame> {
        (0..BYTES).step_by(SPAN_BYTES as usize).map(|at| BulkFrame {
            number: 1,
            offset: at as u64,
            length: (BYTES - at).min(SPAN_BYTES as usize) as u32,
            body: RangeBody::Raw(RangeBytes(Vec::new())),
        })
    }

    fn content() -> Vec<u8> {
        let mut content = vec![0; BYTES];
        blake3::Hasher::new().finalize_xof().fill(&mut content);
        content[1_100_000..1_900_000].fill(0);
        content
    }

    #[test]
    fn ranges_are_copied_from_where_they_stand() {
        let content = content();
        let (_home, incoming, origin) = files(&content);
        for range in ranges() {
            let at = range.offset as usize;
            let span = SpanSum::of(
                range.offset / SPAN_BYTES,
                &content[at..at + range.length as usize],
            );
            let known = (range.length == SPAN_BYTES as u32).then_some(span.sum);
            incoming.take(&range, known, Some(&origin)).unwrap();
        }
        let (digest, _) = incoming.digest(BYTES as u64).unwrap();
        assert_eq!(digest, Digest::of(&content));
        assert_eq!(digest_of(incoming.staged.file()).unwrap(), Digest::of(&content));
    }

    /// Whoever sends it finds out that it was cut, and seals nothing; what is there is nobody's content.
    #[test]
    fn what_is_cut_meanwhile_has_no_sum_that_was_told_before() {
        let content = content();
        let (_home, incoming, origin) = files(&content[..BYTES / 2]);
        for range in ranges() {
            incoming.take(&range, Some([7; 32]), Some(&origin)).unwrap();
        }
        assert!(
            incoming
                .lock()
                .sums
                .get(2, SPAN_BYTES as u32)
                .is_none_or(|sum| sum.sum != [7; 32])
        );
        assert_eq!(
            incoming.lock().sums.get(0, SPAN_BYTES as u32).unwrap().sum,
            [7; 32]
        );
    }
}
