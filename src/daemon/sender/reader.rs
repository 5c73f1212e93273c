//! Reading contents: small files whole, large ones as a run of ranges. Runs on plain threads beside the session.

use super::readings::{Purpose, Reader, Reading, Readings, Turn, Wanted};
use super::session::{CLOCK_TICK, is_within_tick};
use super::spans::{self, Compared, SPANNED_BYTES};
use super::work::DELTA_BYTES_MIN;
use crate::engine::delta::{
    Index, Matcher, Patch, PatchCollector, PeerSignature, RangeDelta, Signature, SignatureBuilder,
    SignatureOptions, TargetMatcher,
};
use crate::engine::rangesum::subtree;
use crate::engine::spans::SpansBuilder;
use crate::engine::zeros::{ZEROS, is_zero};
use crate::fs::{Directory, FsError, FsErrorKind, ReadOutcome, StableRead, Stamp, Stat};
use crate::net::{BulkSender, Copied, Origin};
use crate::store::Signatures;
use crossbeam_channel::Sender;
use driftless_protocol::limits::{
    INLINE_CONTENT_BYTES_MAX, RANGE_BYTES_MAX, SIGNATURE_BYTES_MAX, SPAN_BYTES,
};
use driftless_protocol::message::{BulkFrame, DeltaParts, RangeBody, RangeBytes};
use driftless_protocol::{Digest, Name, ObjectId};
use std::collections::HashMap;
use std::fs::File;
use std::ops::Deref;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// A range is compressed if its first bytes shrink below this share (in percent).
const WORTH_COMPRESSING_PERCENT: usize = 90;
/// Smaller files get a signature when they change for the first time: most never do.
const SIGNED_AT_FIRST_BYTES_MIN: u64 = 1 << 20;
const SAMPLE_BYTES: usize = 16 << 10;
/// How much of a file is read at a time when it is matched against a basis.
const MATCHED_BYTES: usize = 4 << 20;

/// A file of the source.
#[derive(Debug, Clone)]
pub struct FileRef {
    /// Its number.
    pub object: ObjectId,
    /// Its directory.
    pub directory: Arc<Directory>,
    /// Its name there.
    pub name: Name,
    /// The number in the journal of the change that is to be read.
    pub sequence: u64,
    /// Its times did not tell of all that was written to it when it was last read: it is written out first.
    pub hides: bool,
    /// It only grows: what the target holds of it is not read. Cleared if it was read all the same.
    pub only_grows: bool,
    /// What the catalog knows of it.
    pub stamp: Option<Stamp>,
    /// It was read within a tick of its last change, by another target: it has to be read again.
    pub is_young: bool,
}

/// What is remembered of contents that the target holds.
#[derive(Debug)]
pub struct Memory {
    /// By object.
    pub signatures: Arc<Signatures>,
    /// By content, see [`spans`].
    pub spans: Arc<Signatures>,
    /// What other targets of the tree read, if there are any.
    pub readings: Option<Readings>,
}

/// Something to read.
#[derive(Debug)]
pub enum ReadJob {
    /// Read a small file whole, digest it.
    Whole(FileRef),
    /// Only digest a file of any size, and find out what changed since it had the content of `basis`.
    Digest {
        /// The file.
        file: FileRef,
        /// The content that the target holds.
        basis: Option<Digest>,
    },
    /// Send the ranges of a file that the receiver asked for.
    Stream {
        /// The op.
        number: u64,
        /// The file.
        file: FileRef,
        /// The signature of the receiver's basis, if it has one.
        signature: Option<Vec<u8>>,
        /// Spans that the receiver has from an earlier transfer, by number, with their sums.
        held: HashMap<u64, [u8; 32]>,
        /// It never changed under a read: a receiver in this process may have it copied instead of handed over.
        is_steady: bool,
    },
}

/// What came of it.
#[derive(Debug)]
pub enum ReadDone {
    /// The times of a file that is being read will (false) or may not (true) tell of all that is written to it.
    Hides(ObjectId, bool),
    /// A small file's content, and its digest.
    Whole(FileRef, Vec<u8>, Digest, Stat),
    /// A file's digest, and what changed since its basis, if that is known and little.
    Digest(FileRef, Digest, Stat, Option<(Digest, Patch)>),
    /// The file is too large to travel inside an op.
    TooLarge(FileRef, Stat),
    /// It changed while it was read.
    Moved(FileRef),
    /// It is not there any more, or is no file.
    Vanished(ObjectId),
    /// It cannot be read.
    Unreadable(ObjectId, String),
    /// All ranges of a file were handed over: its digest and size, what `stat` said before, and whether it held still.
    Streamed(u64, ObjectId, Digest, u64, Stat, bool),
    /// The ranges of an op cannot be completed.
    Abandoned(u64, ObjectId, Option<String>),
}

impl ReadDone {
    /// The object of a job that was not asked for by the receiver.
    pub fn read_ahead(&self) -> Option<ObjectId> {
        match self {
            ReadDone::Whole(file, ..)
            | ReadDone::Digest(file, ..)
            | ReadDone::TooLarge(file, _)
            | ReadDone::Moved(file) => Some(file.object),
            ReadDone::Vanished(object) | ReadDone::Unreadable(object, _) => Some(*object),
            ReadDone::Hides(..) | ReadDone::Streamed(..) | ReadDone::Abandoned(..) => None,
        }
    }
}

/// Does a job.
pub fn read_file(job: ReadJob, done: &Sender<ReadDone>, bulk: &BulkSender, memory: &Memory) {
    let result = match job {
        ReadJob::Whole(file) => whole(file, memory, done),
        ReadJob::Digest { file, basis } => digest(file, basis, memory, done),
        ReadJob::Stream {
            number,
            file,
            signature,
            held,
            is_steady,
        } => {
            let wanted = Transfer {
                number,
                signature,
                held,
                is_steady,
            };
            stream(wanted, file, bulk, memory, done)
        }
    };
    // Nobody takes it when the session has ended.
    let _ = done.send(result);
}

/// Opens a file, and finds out whether its times will tell of what is written to it. Notes what has changed in that.
fn open(file: &mut FileRef, done: &Sender<ReadDone>) -> Result<StableRead, FsError> {
    let read = StableRead::open(&file.directory, &file.name)?;
    let hides = !read.will_tell(file.hides);
    if hides != file.hides {
        file.hides = hides;
        // Nobody to tell: nobody reads the result either.
        let _ = done.send(ReadDone::Hides(file.object, hides));
    }
    Ok(read)
}

/// What another target of the tree has read of a file; or the duty to read it for them, too. Neither if there is no other, or if
/// the file has to be read anew in any case.
fn shared(file: &FileRef, purpose: Purpose, memory: &Memory) -> Option<Turn> {
    let (readings, stamp) = (memory.readings.as_ref()?, file.stamp?);
    let is_told = !file.hides && !file.only_grows;
    is_told.then(|| readings.find(Wanted { stamp, purpose }))
}

/// Keeps what was read for everybody else who knows the file by the same stamp.
fn keep(reader: Option<Reader>, file: &FileRef, stat: &Stat, reading: impl FnOnce() -> Reading) {
    if let Some(reader) = reader
        && !file.hides
        && file.stamp == Some(stat.stamp)
    {
        reader.keep(
            Arc::new(reading()),
            is_within_tick(&stat.stamp).then_some(CLOCK_TICK),
        );
    }
}

fn whole(mut file: FileRef, memory: &Memory, done: &Sender<ReadDone>) -> ReadDone {
    let reader = match shared(&file, Purpose::Whole, memory) {
        Some(Turn::Found(reading, is_young)) => match &*reading {
            Reading::Whole(bytes, digest, stat) => {
                file.is_young = is_young;
                return ReadDone::Whole(file, bytes.clone(), *digest, *stat);
            }
            Reading::Digest { .. } => None,
        },
        Some(Turn::Read(reader)) => Some(reader),
        None => None,
    };
    match open(&mut file, done).and_then(|read| read.read_whole(INLINE_CONTENT_BYTES_MAX)) {
        Ok(ReadOutcome::Content(bytes, stat)) => {
            let digest = Digest::of(&bytes);
            keep(reader, &file, &stat, || {
                Reading::Whole(bytes.clone(), digest, stat)
            });
            ReadDone::Whole(file, bytes, digest, stat)
        }
        Ok(ReadOutcome::TooLarge(stat)) => ReadDone::TooLarge(file, stat),
        Ok(ReadOutcome::Moved) => ReadDone::Moved(file),
        Err(error) => unreadable(file.object, &error),
    }
}

/// The digest of a file and what changed in it, found by this target or by another one.
fn digest(mut file: FileRef, basis: Option<Digest>, memory: &Memory, done: &Sender<ReadDone>) -> ReadDone {
    let reader = match shared(&file, Purpose::Digest(basis), memory) {
        Some(Turn::Found(reading, is_young)) => match &*reading {
            Reading::Digest {
                digest,
                stat,
                patch,
                signature,
                spans,
            } => {
                take_over(
                    memory,
                    file.object,
                    digest,
                    signature.as_deref(),
                    spans.as_deref(),
                    basis,
                );
                file.is_young = is_young;
                return ReadDone::Digest(file, *digest, *stat, patch.clone());
            }
            Reading::Whole(..) => None,
        },
        Some(Turn::Read(reader)) => Some(reader),
        None => None,
    };
    let found = find_digest(file, basis, memory, done);
    if let ReadDone::Digest(file, digest, stat, patch) = &found {
        keep(reader, file, stat, || Reading::Digest {
            digest: *digest,
            stat: *stat,
            patch: patch.clone(),
            signature: memory.signatures.get(file.object, digest),
            spans: spans::export(&memory.spans, digest),
        });
    }
    found
}

/// Remembers of a content what another target remembers of it.
fn take_over(
    memory: &Memory,
    object: ObjectId,
    digest: &Digest,
    signature: Option<&[u8]>,
    spans: Option<&[u8]>,
    basis: Option<Digest>,
) {
    if let Some(Err(error)) = signature.map(|signature| memory.signatures.put(object, digest, signature)) {
        tracing::debug!("cannot keep a signature: {error}");
    }
    if let Some(spans) = spans {
        spans::import(&memory.spans, digest, spans, basis.as_ref());
    }
}

/// Reads a file once: its digest, its signature for the next time, and what changed since the last time.
fn find_digest(
    mut file: FileRef,
    basis: Option<Digest>,
    memory: &Memory,
    done: &Sender<ReadDone>,
) -> ReadDone {
    let read = match open(&mut file, done) {
        Ok(read) => read,
        Err(error) => return unreadable(file.object, &error),
    };
    if let Some(done) = compare(&file, &read, basis, memory) {
        return done;
    }
    file.only_grows = false;
    let remembered = basis.and_then(|basis| {
        let signature = Signature::parse(memory.signatures.get(file.object, &basis)?).ok()?;
        Some((basis, Index::new(signature)))
    });
    let mut changes = remembered
        .as_ref()
        .map(|(_, index)| Matcher::with_output(index, PatchCollector::default()));
    let size = read.stat().size;
    let mut signer = signer(size);
    let mut hasher = Hashing::new(size);
    let read_all = read_pieces(&read, size, MATCHED_BYTES, 0, Vec::new, |piece| {
        hasher.push(&piece);
        if let Some(signer) = &mut signer {
            signer.push(&piece);
        }
        changes = changes.take().filter(|changes| !changes.output().is_too_large());
        if let Some(changes) = &mut changes {
            changes.take_in(&piece);
        }
        true
    });
    match read_all {
        Ok(at) if at == size => {}
        Ok(_) => return ReadDone::Moved(file),
        Err(error) => {
            return ReadDone::Unreadable(file.object, format!("cannot read {}: {error}", file.name));
        }
    }
    let Ok(Some(stat)) = read.finish() else {
        return ReadDone::Moved(file);
    };
    let digest = hasher.finish(memory);
    // What was remembered is of this content, if only its times are new.
    let is_remembered = remembered.as_ref().is_some_and(|(basis, _)| *basis == digest);
    if let Some(signer) = signer.filter(|_| !is_remembered) {
        remember(memory, file.object, &digest, signer);
    }
    let patch = changes.and_then(|changes| changes.end_with_output().finish());
    let patch = remembered.as_ref().map(|(basis, _)| *basis).zip(patch);
    ReadDone::Digest(file, digest, stat, patch)
}

/// For files that are worth a delta.
fn signer(bytes: u64) -> Option<SignatureBuilder> {
    let mut key = [0; 32];
    if bytes < DELTA_BYTES_MIN || getrandom::fill(&mut key).is_err() {
        return None;
    }
    let options = SignatureOptions {
        digest: false,
        ..SignatureOptions::remembered(key, SIGNATURE_BYTES_MAX)
    };
    SignatureBuilder::new(bytes, &options)
}

/// Keeps the signature of a file that was read to its end.
fn remember(memory: &Memory, object: ObjectId, digest: &Digest, signer: SignatureBuilder) {
    // A file that was cut short under the read is read again anyway.
    let Ok(signed) = signer.finish() else { return };
    if let Err(error) = memory.signatures.put(object, digest, &signed.signature) {
        tracing::debug!("cannot keep a signature: {error}");
    }
}

/// What was read of a file.
enum Piece<'a> {
    /// In memory of somebody else: the zeros of a hole, a part of more.
    Lent(&'a [u8]),
    /// In a buffer of its own, which may be kept.
    Own(&'a mut Vec<u8>),
}

impl Deref for Piece<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Piece::Lent(zeros) => zeros,
            Piece::Own(bytes) => bytes,
        }
    }
}

impl Piece<'_> {
    /// The bytes for good, in the memory that they were read into.
    fn into_bytes(self) -> Vec<u8> {
        match self {
            Piece::Lent(zeros) => zeros.to_vec(),
            Piece::Own(bytes) => std::mem::take(bytes),
        }
    }
}

/// Reads `size` bytes in pieces, until the file ends or `take` has enough; tells how many there were. The last `behind` of them
/// stay in memory. What `take` keeps is read into another buffer for the next, from `fresh`.
fn read_pieces(
    read: &StableRead,
    size: u64,
    step: usize,
    behind: u64,
    fresh: impl Fn() -> Vec<u8>,
    mut take: impl FnMut(Piece<'_>) -> bool,
) -> std::io::Result<u64> {
    let mut buffer = Vec::new();
    let mut holes = read.holes();
    let mut at = 0;
    while at < size {
        let left = size - at;
        let zeros = &ZEROS[..left.min(ZEROS.len() as u64) as usize];
        if holes.covers(at, zeros.len() as u64) {
            at += zeros.len() as u64;
            if !take(Piece::Lent(zeros)) {
                break;
            }
            continue;
        }
        if buffer.capacity() == 0 {
            buffer = fresh();
        }
        read.read_into(&mut buffer, left.min(step as u64) as usize, at)?;
        let count = buffer.len() as u64;
        at += count;
        if at > behind {
            read.forget_pages(at - behind);
        }
        if count == 0 || !take(Piece::Own(&mut buffer)) {
            break;
        }
    }
    Ok(at)
}

fn unreadable(object: ObjectId, error: &FsError) -> ReadDone {
    match error.kind() {
        FsErrorKind::NotFound | FsErrorKind::Substituted => ReadDone::Vanished(object),
        _ => ReadDone::Unreadable(object, error.to_string()),
    }
}

/// What the receiver asked for, see [`ReadJob::Stream`].
struct Transfer {
    number: u64,
    signature: Option<Vec<u8>>,
    held: HashMap<u64, [u8; 32]>,
    is_steady: bool,
}

/// How far the kernel's copy of a file may be behind the read of it: more than there can be ranges on their way.
const COPY_BEHIND_BYTES: u64 = 64 << 20;

/// Where a receiver in this process copies a file from, and when it has. None if it has to be given the very bytes that were
/// read: what is copied later may be something else, and only the file's times tell.
fn origin(file: &FileRef, read: &StableRead, is_steady: bool, bulk: &BulkSender) -> Option<(Origin, Copied)> {
    let stat = read.stat();
    let tells = is_steady && !file.hides && !stat.is_device && !is_within_tick(&stat.stamp);
    let open = || read.file().try_clone().ok().map(Origin::new);
    (bulk.is_local() && tells).then(open).flatten()
}

/// Reads a file once: digest, delta and ranges come from the same bytes.
fn stream(
    wanted: Transfer,
    mut file: FileRef,
    bulk: &BulkSender,
    memory: &Memory,
    done: &Sender<ReadDone>,
) -> ReadDone {
    let (number, object) = (wanted.number, file.object);
    let abandoned = |error: Option<String>| ReadDone::Abandoned(number, object, error);
    let mut read = match open(&mut file, done) {
        Ok(read) => read,
        Err(error) if matches!(error.kind(), FsErrorKind::NotFound | FsErrorKind::Substituted) => {
            return abandoned(None);
        }
        Err(error) => return abandoned(Some(error.to_string())),
    };
    // A signature that does not parse is a receiver's mistake; the whole file is always an answer.
    let signature = wanted
        .signature
        .and_then(|bytes| PeerSignature::parse(bytes).ok());
    let (origin, copied) = origin(&file, &read, wanted.is_steady, bulk).unzip();
    let mut sender = RangeSender {
        number,
        bulk,
        basis: signature.as_ref(),
        matcher: None,
        held: &wanted.held,
        origin,
        at: 0,
        read: 0,
        summed: None,
    };
    let before = *read.stat();
    let mut hasher = Hashing::new(before.size);
    // Within a process nobody looks for what moved: to copy it takes less time.
    let is_worth_it = !bulk.is_local() && (signature.is_some() || before.size >= SIGNED_AT_FIRST_BYTES_MIN);
    let mut signer = signer(before.size).filter(|_| is_worth_it);
    let step = if sender.basis.is_some() {
        MATCHED_BYTES
    } else {
        RANGE_BYTES_MAX
    };
    let behind = if copied.is_some() { COPY_BEHIND_BYTES } else { 0 };
    let mut is_cut_off = false;
    // What is appended after the first look belongs to the next version.
    let fresh = || bulk.buffer();
    let at = read_pieces(&read, before.size, step, behind, fresh, |piece| {
        hasher.push(&piece);
        sender.summed = hasher.last();
        if let Some(signer) = &mut signer {
            signer.push(&piece);
        }
        is_cut_off = sender.send(piece).is_err();
        !is_cut_off
    });
    let at = match at {
        Ok(at) => at,
        Err(error) => return abandoned(Some(format!("cannot read {}: {error}", file.name))),
    };
    if is_cut_off || sender.end_run().is_err() {
        return abandoned(None);
    }
    drop(sender);
    let is_copied = copied.map(Copied::wait).is_some();
    if is_copied {
        read.forget_pages(0);
    }
    let digest = hasher.finish(memory);
    if let Some(signer) = signer {
        remember(memory, file.object, &digest, signer);
    }
    let still = match is_copied {
        // Whatever moved the times meanwhile: a second read could not tell what was copied.
        true => read
            .check()
            .map(|stat| at == before.size && stat.is_some())
            .map_err(|error| error.to_string()),
        false => held_still(&mut read, digest, at),
    };
    match still {
        Ok(still) => ReadDone::Streamed(number, file.object, digest, at, *read.stat(), still),
        Err(error) => abandoned(Some(error)),
    }
}

/// Whether what was sent is what the file held at one moment. Size and mtime alone do not tell, because mtime can be
/// set back; but a rename or a change of mode in the course of a long transfer is no reason to send it all again: then
/// the file is read once more.
fn held_still(read: &mut StableRead, sent: Digest, sent_bytes: u64) -> Result<bool, String> {
    let text = |error: FsError| error.to_string();
    let before = *read.stat();
    if sent_bytes != before.size {
        return Ok(false);
    }
    if read.check().map_err(text)?.is_some() {
        return Ok(true);
    }
    read.restart().map_err(text)?;
    let now = read.stat();
    if (now.size, now.stamp.mtime) != (before.size, before.stamp.mtime) {
        return Ok(false);
    }
    let found = crate::daemon::receiver::digest_of(read.file()).map_err(|error| error.to_string())?;
    Ok(found == sent && read.check().map_err(text)?.is_some())
}

/// How a file differs from the content that the target holds, if the sums of that are remembered and not much does.
fn compare(file: &FileRef, read: &StableRead, basis: Option<Digest>, memory: &Memory) -> Option<ReadDone> {
    let basis = basis?;
    let size = read.stat().size;
    let old = spans::remembered(&memory.spans, &basis)?;
    let trusted = if file.only_grows { old.bytes() } else { 0 };
    let compared = spans::compare(read.file(), size, &old, trusted);
    read.forget_pages(0);
    let Compared { digest, spans, patch } = compared.ok()??;
    let Ok(Some(stat)) = read.check() else {
        return Some(ReadDone::Moved(file.clone()));
    };
    if let Some(spans) = spans.filter(|_| digest != basis) {
        spans::remember(&memory.spans, &digest, &spans, Some(&basis));
    }
    Some(ReadDone::Digest(file.clone(), digest, stat, Some((basis, patch))))
}

/// Digests what is read from a file's beginning to its end; of large files the sums are remembered.
enum Hashing {
    Whole(Box<blake3::Hasher>),
    Spans(SpansBuilder),
}

impl Hashing {
    fn new(size: u64) -> Hashing {
        let mut seed = [0; 8];
        if !SPANNED_BYTES.contains(&size) || getrandom::fill(&mut seed).is_err() {
            return Hashing::Whole(Box::default());
        }
        Hashing::Spans(SpansBuilder::new(u64::from_le_bytes(seed)))
    }

    fn push(&mut self, piece: &[u8]) {
        match self {
            Hashing::Whole(hasher) => _ = hasher.update(piece),
            Hashing::Spans(builder) => builder.push(piece),
        }
    }

    /// The last span that was summed up, and its sum.
    fn last(&self) -> Option<(u64, [u8; 32])> {
        match self {
            Hashing::Whole(_) => None,
            Hashing::Spans(builder) => builder.last(),
        }
    }

    fn finish(self, memory: &Memory) -> Digest {
        match self {
            Hashing::Whole(hasher) => Digest(hasher.finalize().into()),
            Hashing::Spans(builder) => {
                let (digest, spans) = builder.finish();
                let digest = Digest(digest);
                if let Some(spans) = spans {
                    spans::remember(&memory.spans, &digest, &spans, None);
                }
                digest
            }
        }
    }
}

pub(super) fn read_full(file: &File, buffer: &mut [u8], at: u64) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], at + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

struct RangeSender<'a> {
    number: u64,
    bulk: &'a BulkSender,
    /// What the receiver's basis is made of.
    basis: Option<&'a PeerSignature>,
    /// Matches the present run of bytes that the receiver does not hold.
    matcher: Option<TargetMatcher<'a>>,
    held: &'a HashMap<u64, [u8; 32]>,
    /// Where a receiver in this process copies ranges from.
    origin: Option<Origin>,
    /// Where the next range begins. What the matcher has not decided lies behind.
    at: u64,
    /// How much of the file was handed over, spans that the receiver holds among it.
    read: u64,
    /// A span of what was read last, and its sum.
    summed: Option<(u64, [u8; 32])>,
}

impl RangeSender<'_> {
    /// The next bytes: whole spans, until the last.
    fn send(&mut self, bytes: Piece<'_>) -> Result<(), crate::net::Ended> {
        if self.held.is_empty() && self.basis.is_none() && bytes.len() <= RANGE_BYTES_MAX {
            let length = bytes.len() as u32;
            self.read += u64::from(length);
            let body = self.literal(bytes);
            return self.send_range(length, body);
        }
        if self.held.is_empty() {
            return self.send_new(&bytes);
        }
        bytes.chunks(SPAN_BYTES as usize).try_for_each(|span| {
            let held = self.held.get(&(self.read / SPAN_BYTES));
            // Whatever version it is of: equal sums are equal bytes.
            if held.is_none_or(|held| *held != subtree(self.read, span)) {
                return self.send_new(span);
            }
            self.end_run()?;
            self.read += span.len() as u64;
            self.send_range(span.len() as u32, RangeBody::Held)
        })
    }

    fn send_new(&mut self, bytes: &[u8]) -> Result<(), crate::net::Ended> {
        self.read += bytes.len() as u64;
        let Some(basis) = self.basis else {
            let mut ranges = bytes.chunks(RANGE_BYTES_MAX);
            return ranges.try_for_each(|range| {
                let body = self.literal(Piece::Lent(range));
                self.send_range(range.len() as u32, body)
            });
        };
        let ranges = self.matcher.get_or_insert_with(|| basis.matcher()).push(bytes);
        ranges.into_iter().try_for_each(|range| self.send_delta(range))
    }

    /// Sends what the matcher still has.
    fn end_run(&mut self) -> Result<(), crate::net::Ended> {
        let ranges = self.matcher.take().map(TargetMatcher::finish);
        let mut ranges = ranges.into_iter().flatten();
        ranges.try_for_each(|range| self.send_delta(range))
    }

    fn send_delta(&mut self, range: RangeDelta) -> Result<(), crate::net::Ended> {
        if range.is_literal() {
            let mut literals = range.literals;
            let body = self.literal(Piece::Own(&mut literals));
            return self.send_range(range.length, body);
        }
        let mut literals = Vec::new();
        if !range.literals.is_empty() {
            let packed = zstd::bulk::compress(&range.literals, self.bulk.framing_level());
            match packed.ok().filter(|packed| packed.len() <= RANGE_BYTES_MAX) {
                Some(packed) => literals = packed,
                // What zstd cannot hold in a range's bytes travels raw, without the copies.
                None => {
                    let mut alone = range.into_single_parts().into_iter();
                    return alone.try_for_each(|part| self.send_delta(part));
                }
            }
        }
        let body = RangeBody::Delta {
            parts: DeltaParts(range.parts),
            literals: RangeBytes(literals),
        };
        self.send_range(range.length, body)
    }

    fn literal(&self, bytes: Piece<'_>) -> RangeBody {
        if is_zero(&bytes) {
            return RangeBody::Zeros;
        }
        if self.origin.is_some() {
            return RangeBody::Raw(RangeBytes(Vec::new()));
        }
        let level = self.bulk.level().filter(|_| !self.bulk.is_local());
        match level.and_then(|level| packed(&bytes, level)) {
            Some(packed) => RangeBody::Zstd(RangeBytes(packed)),
            None => RangeBody::Raw(RangeBytes(bytes.into_bytes())),
        }
    }

    fn send_range(&mut self, length: u32, body: RangeBody) -> Result<(), crate::net::Ended> {
        let (number, offset) = (self.number, self.at);
        self.at += u64::from(length);
        let is_summed = |(span, _): &(u64, _)| span * SPAN_BYTES == offset && u64::from(length) == SPAN_BYTES;
        let sum = self.summed.filter(is_summed).map(|(_, sum)| sum);
        let frame = BulkFrame {
            number,
            offset,
            length,
            body,
        };
        let origin = self.origin.clone();
        let origin = origin.filter(|_| matches!(frame.body, RangeBody::Raw(_)));
        self.bulk.send(frame, sum, origin)
    }
}

/// A range of plain bytes, compressed, if that is worth it.
fn packed(bytes: &[u8], level: i32) -> Option<Vec<u8>> {
    let shrinks = |from: &[u8], to: usize| to * 100 < from.len() * WORTH_COMPRESSING_PERCENT;
    let sample = &bytes[..bytes.len().min(SAMPLE_BYTES)];
    let sampled = zstd::bulk::compress(sample, 1).ok()?;
    if !shrinks(sample, sampled.len()) {
        return None;
    }
    let packed = zstd::bulk::compress(bytes, level).ok()?;
    shrinks(bytes, packed.len()).then_some(packed)
}

#[cfg(test)]
mod tests;
