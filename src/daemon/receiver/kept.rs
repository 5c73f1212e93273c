//! Large files that arrive in part are kept: under a private name beside their target, with a record of their spans.
//!
//! What was kept is never believed for its name, its age or its size. Its spans count if nothing was written since they
//! were summed (the record was closed in this boot, and the file's stamp is the one in the record), or else if their
//! bytes are read and have the sums of the record. The sender compares the sums with those of the content that it has
//! now, so it does not matter which version was on its way then.

use super::incoming::{Arrival, Incoming, read_sum};
use super::replica::{ApplyError, Replica};
use crate::engine::span_sums::{SpanSum, SpanSums};
use crate::fs::{Directory, RenameMode, Staged, private_name, stat_open};
use crate::store::{CatalogRead, PartialClaim, PartialLog};
use driftless_protocol::message::Place;
use driftless_protocol::{ObjectId, Xattrs};
use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};

/// Smaller files are sent anew: that takes less time than it would take to notice.
pub const KEPT_BYTES_MIN: u64 = 8 << 20;

/// What is needed to keep a file, and to go on with what was kept of it.
#[derive(Debug)]
pub struct Keep {
    /// Nobody else works on it.
    pub claim: PartialClaim,
    /// The number of the directory that it goes to.
    pub target: ObjectId,
    /// The directory in which an earlier transfer left it.
    pub left_in: Option<Arc<Directory>>,
}

/// The record of a file that is on its way. Dropped, it says what is there.
#[derive(Debug)]
pub struct Kept {
    log: Option<PartialLog>,
    discarded: std::sync::atomic::AtomicBool,
    file: File,
    arrival: Arc<Mutex<Arrival>>,
}

impl Keep {
    /// Goes on with what was left, or begins anew.
    pub fn start(
        self,
        directory: &Arc<Directory>,
        basis: Option<(File, u64)>,
        offered: u64,
        xattrs: Arc<Xattrs>,
    ) -> Result<(Incoming, SpanSums), ApplyError> {
        let (staged, held) = match self.reopen(directory) {
            Some((staged, held)) => (staged, Some(held)),
            None => (Staged::create_kept(directory.clone())?, None),
        };
        let told = held.clone().unwrap_or_default();
        let incoming = match self.begin(&staged, &told) {
            Some((log, file)) => Incoming::resumed(staged, basis, offered, xattrs, held, |arrival| {
                Some(Kept {
                    log: Some(log),
                    discarded: false.into(),
                    file,
                    arrival: arrival.clone(),
                })
            }),
            // Without a record it would never be found again.
            None => {
                staged.discard();
                drop(staged);
                return Ok((
                    Incoming::new(Staged::create(directory.clone())?, basis, offered, xattrs),
                    SpanSums::default(),
                ));
            }
        };
        Ok((incoming, told))
    }

    fn begin(self, staged: &Staged, held: &SpanSums) -> Option<(PartialLog, File)> {
        let place = Place {
            directory: self.target,
            name: staged.private_name()?.clone(),
        };
        let file = staged.file().try_clone().ok()?;
        let log = self.claim.begin(place, held);
        log.inspect_err(|error| tracing::debug!("cannot note what arrives of a file: {error}"))
            .ok()
            .map(|log| (log, file))
    }

    /// The file that was left, in its new directory, and those of its spans that are right.
    fn reopen(&self, directory: &Arc<Directory>) -> Option<(Staged, SpanSums)> {
        let left_in = self.left_in.as_ref()?;
        let Some(partial) = self.claim.load() else {
            let _ = left_in.remove_private(&self.claim.place()?.name);
            return None;
        };
        let mut name = partial.place.name;
        if partial.place.directory != self.target {
            let aside = private_name();
            let moved = left_in.rename(&name, directory, &aside, RenameMode::NoReplace);
            if moved.is_err() {
                let _ = left_in.remove_private(&name);
                return None;
            }
            name = aside;
        }
        let (staged, stat) = match Staged::reopen(directory.clone(), name.clone()) {
            Ok(opened) => opened,
            Err(error) => {
                tracing::debug!("what was left of a file is of no use: {error}");
                let _ = directory.remove_private(&name);
                return None;
            }
        };
        // A rename moves ctime; what it leads to is the same.
        let unmoved = partial.place.directory == self.target;
        if unmoved && partial.stamp == Some(stat.stamp.to_bytes()) {
            return Some((staged, partial.spans));
        }
        let right = |&(span, sum): &(u64, SpanSum)| {
            read_sum(staged.file(), span, sum.bytes).is_ok_and(|found| found == Some(sum))
        };
        let spans = partial.spans.iter().filter(right).collect();
        Some((staged, spans))
    }
}

impl Kept {
    /// Notes that a span is complete.
    pub fn note(&self, span: u64, sum: &SpanSum) {
        if let Some(log) = &self.log {
            log.note(span, sum);
        }
    }

    /// What arrived is worth nothing.
    pub fn discard(&self) {
        self.discarded.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let Some(log) = self.log.take() else { return };
        if *self.discarded.get_mut() {
            return log.forget();
        }
        let arrival = self.arrival.lock().unwrap_or_else(PoisonError::into_inner);
        let spans: SpanSums = arrival.held.iter().chain(arrival.sums.iter()).collect();
        let stamp = stat_open(&self.file).ok().map(|stat| stat.stamp.to_bytes());
        log.close(&spans, stamp.as_ref());
    }
}

impl Replica {
    /// The right to keep a file of an object that goes to this directory, if it is large enough and nobody else has it.
    pub fn keep(
        &mut self,
        catalog: &impl CatalogRead,
        object: ObjectId,
        target: ObjectId,
        bytes: u64,
    ) -> Option<Keep> {
        if bytes < KEPT_BYTES_MIN {
            return None;
        }
        let claim = self.partials.claim(object)?;
        let left_in = claim
            .place()
            .and_then(|place| self.directory(catalog, place.directory).ok());
        Some(Keep {
            claim,
            target,
            left_in,
        })
    }

    /// Removes what was kept of an object, which now has its content or is gone.
    pub fn drop_kept(&mut self, catalog: &impl CatalogRead, object: ObjectId) {
        let Some(place) = self.partials.forget(object) else {
            return;
        };
        if let Ok(directory) = self.directory(catalog, place.directory) {
            // Published, it has left this name.
            let _ = directory.remove_private(&place.name);
        }
    }

    /// Removes everything that was kept in a directory.
    pub fn drop_kept_in(&mut self, catalog: &impl CatalogRead, directory: ObjectId) {
        for (object, place) in self.partials.places() {
            if place.directory == directory {
                self.drop_kept(catalog, object);
            }
        }
    }

    /// Removes what was kept and not asked for any more; or everything, when the mirror it was of is none any more.
    pub fn drop_stale_kept(&mut self, all: bool) {
        let objects = match all {
            true => self
                .partials
                .places()
                .into_iter()
                .map(|(object, _)| object)
                .collect(),
            false => self.partials.stale(std::time::SystemTime::now()),
        };
        let catalog = self.catalog.clone();
        for object in objects {
            let dropped = catalog.read(|view| {
                self.drop_kept(view, object);
                Ok(())
            });
            if let Err(error) = dropped {
                tracing::warn!("{error}");
            }
        }
    }
}
