//! Writing contents aside: small ones from their ops, large ones from ranges as they come, and signatures of what is
//! there already. All of it runs on plain threads beside the session.

use super::apply::{CopySource, StagedFile, settled};
use super::incoming::{Incoming, copied};
use super::kept::Keep;
use super::owners::Terms;
use super::replica::ApplyError;
use super::spans;
#[cfg(test)]
use crate::daemon::simulation::Work;
use crate::engine::delta::{BasisSigner, Engine};
use crate::engine::span_sums::SpanSums;
use crate::fs::{Directory, FsError, Metadata, Staged};
use crate::net::{Origin, Outlet, Range};
use crate::store::Signatures;
use crossbeam_channel::{Receiver, Sender};
use driftless_protocol::limits::{HELD_SPANS_MAX, HELD_SPANS_TOTAL_MAX, SIGNATURE_PART_BYTES_MAX};
use driftless_protocol::message::{
    DeltaPart, FailureKind, HeldSpan, HeldSpans, SealOp, SignaturePart, ToSender,
};
use driftless_protocol::{Attributes, Digest, Xattrs};
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The files that the sender was asked for, by op number.
#[derive(Debug, Default, Clone)]
pub struct Wanted(Arc<Mutex<HashMap<u64, Arc<Incoming>>>>);

/// Something for a staging thread to do.
#[derive(Debug)]
pub enum Job {
    /// Write a small file.
    Inline {
        /// The op.
        number: u64,
        /// The target's directory.
        directory: Arc<Directory>,
        /// The promised digest.
        digest: Digest,
        /// The content.
        bytes: Vec<u8>,
        /// What it gets.
        attributes: Attributes,
        /// And of extended attributes.
        xattrs: Arc<Xattrs>,
    },
    /// Digest the basis; if it is the offered content, nothing needs to travel.
    CompareBasis {
        /// The op.
        number: u64,
        /// The present file.
        basis: File,
        /// The offered digest.
        digest: Digest,
    },
    /// Ask for content, with the signature of the basis if there is one.
    Want {
        /// The op.
        number: u64,
        /// The target's directory.
        directory: Arc<Directory>,
        /// The present file and its size.
        basis: Option<(File, u64)>,
        /// The size that was offered, in bytes.
        size: u64,
        /// How to keep it, if it is large.
        keep: Option<Keep>,
        /// The extended attributes that it gets.
        xattrs: Arc<Xattrs>,
    },
    /// Build a file from the present one and a patch.
    Patch {
        /// What it must be.
        seal: SealOp,
        /// The target's directory.
        directory: Arc<Directory>,
        /// The present file and its size.
        basis: (File, u64),
        /// What it has.
        basis_digest: Digest,
        /// Copies and literals.
        parts: Vec<DeltaPart>,
        /// The literals, compressed.
        literals: Vec<u8>,
        /// The extended attributes that it gets.
        xattrs: Arc<Xattrs>,
    },
    /// Copy a file that has the content already.
    Copy {
        /// What it must be.
        seal: SealOp,
        /// The target's directory.
        directory: Arc<Directory>,
        /// The file that has it.
        source: CopySource,
        /// The extended attributes that it gets.
        xattrs: Arc<Xattrs>,
    },
    /// End this thread.
    Stop,
    /// Check a complete file and give it its attributes.
    Verify {
        /// What it must be.
        seal: SealOp,
        /// The file.
        incoming: Arc<Incoming>,
    },
}

/// What a staging thread has to say.
#[derive(Debug)]
pub enum Done {
    /// The file is ready to be published.
    Staged(u64, StagedFile),
    /// The present content is (true) or is not (false) what was offered.
    Compared(u64, bool),
    /// The op failed.
    Failed(u64, ApplyError),
    /// A flush of the file system for these has ended, well or not.
    Flushed(Vec<(u64, StagedFile)>, Result<(), FsError>),
}

/// What every staging thread of a session shares.
#[derive(Debug, Clone)]
pub struct Staging {
    /// Files on their way.
    pub wanted: Wanted,
    /// Results for the session.
    pub done: Sender<Done>,
    /// Work that is soon done.
    pub jobs: Sender<Job>,
    /// Work on whole files of any size: a queue of its own, so that small changes never wait behind it.
    pub file_jobs: Sender<Job>,
    /// To the sender.
    pub control: Outlet<ToSender>,
    /// What is carried, and whose things are here.
    pub terms: Terms,
    /// Who makes signatures.
    pub engine: Engine,
    /// Sums of contents that were found to be right, see [`spans`].
    pub spans: Arc<Signatures>,
    /// Nobody asks what has changed in a file: the sender does not want to know, or it is in this process, and to find out
    /// would take longer than to copy it.
    pub takes_whole: bool,
    /// The sender is in this process: contents inside ops are in the memory in which it digested them.
    pub is_near: bool,
    /// The space of files that come whole is reserved.
    pub preallocates: bool,
}

impl Wanted {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Incoming>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a file up; true if it was wanted.
    pub fn withdraw(&self, number: u64) -> bool {
        let taken = self.lock().remove(&number);
        taken.is_some_and(|incoming| {
            incoming.close();
            true
        })
    }
}

impl Staging {
    /// Builds a file from the present one and a patch.
    fn patch(
        &self,
        incoming: Incoming,
        (basis_digest, basis_bytes): (Digest, u64),
        seal: &SealOp,
        parts: &[DeltaPart],
        literals: &[u8],
    ) -> Result<StagedFile, ApplyError> {
        incoming.build_whole(seal.size, parts, literals)?;
        let known = spans::carried_over(&self.spans, &basis_digest, basis_bytes, seal.size, parts);
        incoming.trust(known);
        incoming.verify(seal, &self.terms, &self.spans, Some(&basis_digest))
    }

    /// Runs jobs until the channel closes.
    pub fn work(&self, jobs: &Receiver<Job>) {
        for job in jobs {
            if !self.carry_out(job) {
                return;
            }
        }
    }

    /// Does one job; false if there are to be no others.
    fn carry_out(&self, job: Job) -> bool {
        let done = match job {
            Job::Stop => return false,
            Job::Inline {
                number,
                directory,
                digest,
                bytes,
                attributes,
                xattrs,
            } => {
                let wanted = self.terms.metadata(&attributes, Some(&xattrs));
                let outcome = wanted.and_then(|wanted| {
                    if !self.is_near {
                        check_digest(digest, &bytes)?;
                    }
                    stage_inline(directory, digest, &bytes, &wanted, self.preallocates)
                });
                Some(report(number, outcome))
            }
            Job::CompareBasis {
                number,
                basis,
                digest,
            } => {
                let same = digest_of(&basis).is_ok_and(|found| found == digest);
                Some(Done::Compared(number, same))
            }
            Job::Want {
                number,
                directory,
                basis,
                size,
                keep,
                xattrs,
            } => self
                .want(number, directory, basis, size, keep, xattrs)
                .err()
                .map(|error| Done::Failed(number, error)),
            Job::Patch {
                seal,
                directory,
                basis,
                basis_digest,
                parts,
                literals,
                xattrs,
            } => {
                let known = (basis_digest, basis.1);
                let outcome = Staged::create(directory).map_err(ApplyError::from);
                let outcome = outcome.and_then(|staged| {
                    let incoming = Incoming::new(staged, Some(basis), seal.size, xattrs);
                    self.patch(incoming, known, &seal, &parts, &literals)
                });
                Some(report(seal.number, outcome))
            }
            Job::Copy {
                seal,
                directory,
                source,
                xattrs,
            } => Some(report(
                seal.number,
                copied(directory, &source, &seal, xattrs, &self.terms, &self.spans),
            )),
            Job::Verify { seal, incoming } => Some(match Arc::try_unwrap(incoming) {
                Ok(incoming) => report(
                    seal.number,
                    incoming.verify(&seal, &self.terms, &self.spans, None),
                ),
                // A range thread still holds it for an instant; look again after the others.
                Err(incoming) => {
                    std::thread::yield_now();
                    return self.file_jobs.send(Job::Verify { seal, incoming }).is_ok();
                }
            }),
        };
        done.is_none_or(|done| self.done.send(done).is_ok())
    }

    /// Takes ranges until the link ends.
    pub fn take_ranges(&self, ranges: &Receiver<Range>) {
        for range in ranges {
            self.take_range(&range);
        }
    }

    fn take_range(&self, range: &Range) {
        let number = range.frame.number;
        let incoming = self.wanted.lock().get(&number).cloned();
        // A file that failed here may still have ranges under way.
        let Some(incoming) = incoming else { return };
        match incoming.take(&range.frame, range.sum, range.origin.as_ref().map(Origin::file)) {
            Ok(()) => self.close_if_complete(number, incoming),
            Err(error) => {
                incoming.discard();
                self.fail(number, error);
            }
        }
    }

    /// What [`Staging::work`] does, one job at a call.
    #[cfg(test)]
    pub fn simulated_work(self, jobs: Receiver<Job>) -> Work {
        Box::new(move || jobs.try_recv().is_ok_and(|job| self.carry_out(job)))
    }

    /// What [`Staging::take_ranges`] does, one range at a call.
    #[cfg(test)]
    pub fn simulated_ranges(self, ranges: Receiver<Range>) -> Work {
        Box::new(move || ranges.try_recv().map(|range| self.take_range(&range)).is_ok())
    }

    /// The sender has said all about a file.
    pub fn handle_seal(&self, seal: SealOp) {
        let Some(incoming) = self.wanted.lock().get(&seal.number).cloned() else {
            return;
        };
        incoming.set_seal(seal);
        self.close_if_complete(seal.number, incoming);
    }

    fn close_if_complete(&self, number: u64, incoming: Arc<Incoming>) {
        if let Some(seal) = incoming.is_complete() {
            self.wanted.lock().remove(&number);
            let _ = self.file_jobs.send(Job::Verify { seal, incoming });
        }
    }

    fn fail(&self, number: u64, error: ApplyError) {
        if self.wanted.withdraw(number) {
            let _ = self.done.send(Done::Failed(number, error));
        }
    }

    fn want(
        &self,
        number: u64,
        directory: Arc<Directory>,
        basis: Option<(File, u64)>,
        size: u64,
        keep: Option<Keep>,
        xattrs: Arc<Xattrs>,
    ) -> Result<(), ApplyError> {
        let signature = match &basis {
            Some((file, size)) if !self.takes_whole => signature_of(file, *size, self.engine),
            _ => None,
        };
        let basis = basis.filter(|_| signature.is_some());
        let (incoming, held) = match keep {
            Some(keep) => keep.start(&directory, basis, size, xattrs)?,
            None => {
                let staged = Staged::create(directory)?;
                (Incoming::new(staged, basis, size, xattrs), SpanSums::default())
            }
        };
        if self.preallocates {
            incoming.preallocate()?;
        }
        self.wanted.lock().insert(number, Arc::new(incoming));
        self.tell_held(number, &held);
        let _ = self.control.send(ToSender::Need {
            number,
            basis: signature.is_some(),
        });
        let signature = signature.unwrap_or_default();
        let mut parts = signature.chunks(SIGNATURE_PART_BYTES_MAX).peekable();
        while let Some(part) = parts.next() {
            let (part, last) = (SignaturePart(part.to_vec()), parts.peek().is_none());
            let _ = self.control.send(ToSender::Signature { number, part, last });
        }
        Ok(())
    }

    /// Tells what an earlier transfer left.
    fn tell_held(&self, number: u64, held: &SpanSums) {
        let spans: Vec<HeldSpan> = held
            .iter()
            .take(HELD_SPANS_TOTAL_MAX)
            .map(|(span, held)| HeldSpan { span, sum: held.sum })
            .collect();
        for spans in spans.chunks(HELD_SPANS_MAX) {
            let spans = HeldSpans(spans.to_vec());
            let _ = self.control.send(ToSender::Held { number, spans });
        }
    }
}

fn report(number: u64, outcome: Result<StagedFile, ApplyError>) -> Done {
    match outcome {
        Ok(file) => Done::Staged(number, file),
        Err(error) => Done::Failed(number, error),
    }
}

fn check_digest(digest: Digest, bytes: &[u8]) -> Result<(), ApplyError> {
    match Digest::of(bytes) == digest {
        true => Ok(()),
        false => Err(ApplyError {
            kind: FailureKind::WrongDigest,
            text: "the content does not have the promised digest".to_owned(),
        }),
    }
}

fn stage_inline(
    directory: Arc<Directory>,
    digest: Digest,
    bytes: &[u8],
    wanted: &Metadata<'_>,
    preallocates: bool,
) -> Result<StagedFile, ApplyError> {
    let staged = Staged::create_with_mode(directory, wanted.attributes.mode)?;
    match preallocates {
        true => {
            staged.preallocate(bytes.len() as u64)?;
            staged.write_all_at(bytes, 0)?;
        }
        false => staged.write_whole_sparse(bytes)?,
    }
    let applied = staged.set_metadata(wanted)?;
    let device = applied.stat.stamp.device;
    let (attributes, refused) = settled(*wanted.attributes, applied);
    Ok(StagedFile {
        staged,
        size: bytes.len() as u64,
        digest,
        attributes,
        refused,
        device,
        is_flushed: false,
    })
}

/// BLAKE3 of a whole file, read from its beginning whatever its position.
pub fn digest_of(file: &File) -> std::io::Result<Digest> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 256 << 10];
    let mut at = 0;
    loop {
        match file.read_at(&mut buffer, at) {
            Ok(0) => return Ok(Digest(hasher.finalize().into())),
            Ok(count) => {
                hasher.update(&buffer[..count]);
                at += count as u64;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The signature of a basis; none if it is of no use, shrank, or cannot be read.
fn signature_of(basis: &File, size: u64, engine: Engine) -> Option<Vec<u8>> {
    // Under a key that nobody knew before, so that nobody could prepare blocks that look alike.
    let mut key = [0; 32];
    getrandom::fill(&mut key).ok()?;
    let mut signer = BasisSigner::new(engine, size, key)?;
    let mut buffer = vec![0; signer.step().min(size as usize)];
    let mut at = 0;
    while at < size {
        let want = (size - at).min(buffer.len() as u64) as usize;
        basis.read_exact_at(&mut buffer[..want], at).ok()?;
        signer.push(&buffer[..want]);
        at += want as u64;
    }
    signer.finish().ok().map(|(signature, _)| signature)
}
