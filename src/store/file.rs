//! Opening a redb file without trusting it.
//!
//! redb checks the pages of a file by their checksums when it was not closed properly, not otherwise, and a few of
//! its checks are panics. So every open here verifies the whole file (a sequential read) and runs inside
//! `catch_unwind`; after that a damaged page can only be one that went bad since.
//!
//! What redb finds damaged it also repairs in place where it can, by going back to the commit before. That is fine for
//! a cache. A file that must not be guessed is therefore verified in memory, on a copy, before redb may touch it.

use super::StoreError;
use super::error::is_damage;
use redb::backends::InMemoryBackend;
use redb::{Builder, Database, DatabaseError, StorageBackend, StorageError};
use std::cell::Cell;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::rc::Rc;

/// Why a file did not open.
#[derive(Debug)]
pub(super) enum Fault {
    /// Somebody has it open.
    InUse,
    /// The system refused; the file may be all right.
    Io(io::Error),
    /// The content is wrong.
    Damaged(String),
    /// The content is not for us, though nothing is wrong with it.
    Other(String),
    /// The tables could not be read.
    Probe(StoreError),
}

impl Fault {
    /// The error for a caller who has no better use of it.
    pub(super) fn into_error(self, path: &Path) -> StoreError {
        match self {
            Fault::InUse => StoreError::InUse { path: path.into() },
            Fault::Io(source) => StoreError::Io {
                action: "open",
                path: path.into(),
                source,
            },
            Fault::Damaged(what) | Fault::Other(what) => StoreError::damaged(what).at(path),
            Fault::Probe(error) => error.at(path),
        }
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Fault {
        Fault::Probe(error)
    }
}

impl From<DatabaseError> for Fault {
    fn from(error: DatabaseError) -> Fault {
        match error {
            DatabaseError::DatabaseAlreadyOpen => Fault::InUse,
            DatabaseError::Storage(StorageError::Io(io)) if !is_damage(&io) => Fault::Io(io),
            DatabaseError::Storage(StorageError::Corrupted(what)) => Fault::Damaged(what),
            other => Fault::Damaged(other.to_string()),
        }
    }
}

/// How much a file matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Worth {
    /// It is made if it is missing or empty, and may be repaired in place.
    Cache,
    /// It must be there and whole, and is not written to if it is not. It is read into memory once.
    Precious,
}

/// Opens `path`, readable by its owner only, verifies it, and lets `probe` look at the tables before anybody else
/// does.
pub(super) fn open<T>(
    path: &Path,
    worth: Worth,
    cache_bytes: usize,
    probe: impl FnOnce(&Database) -> Result<T, Fault>,
) -> Result<(Database, T), Fault> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(worth == Worth::Cache)
        .mode(0o600)
        .open(path)
        .map_err(Fault::Io)?;
    let length = file.metadata().map_err(Fault::Io)?.len();
    if length == 0 && worth == Worth::Precious {
        return Err(Fault::Damaged("the file is empty".into()));
    }
    let mut builder = Builder::new();
    builder.set_cache_size(cache_bytes);
    // Everything that may panic, and the drop of what did, stays inside.
    let open = || {
        if worth == Worth::Precious {
            verify_copy(&builder, &file)?;
            let database = create(&builder, file)?;
            let found = probe(&database)?;
            return Ok((database, found));
        }
        let repaired = Rc::new(Cell::new(false));
        let told = repaired.clone();
        builder.set_repair_callback(move |_| told.set(true));
        let mut database = create(&builder, file)?;
        // A repair after a crash has verified everything already.
        if length > 0 && !repaired.get() && !database.check_integrity()? {
            return Err(Fault::Damaged("pages do not have their checksums".into()));
        }
        let found = probe(&database)?;
        Ok((database, found))
    };
    catch_unwind(AssertUnwindSafe(open)).unwrap_or_else(|panic| Err(Fault::Damaged(panic_text(&*panic))))
}

fn create(builder: &Builder, file: File) -> Result<Database, DatabaseError> {
    #[cfg(test)]
    let file = match super::simulated::backend(file) {
        Ok(backend) => return builder.create_with_backend(backend),
        Err(file) => file,
    };
    builder.create_file(file)
}

/// Verifies a file without writing to it.
fn verify_copy(builder: &Builder, mut file: &File) -> Result<(), Fault> {
    // The same lock that redb takes, on the same handle: nobody writes while we read.
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => Fault::InUse,
        TryLockError::Error(error) => Fault::Io(error),
    })?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(Fault::Io)?;
    let copy = InMemoryBackend::new();
    let fill = copy
        .set_len(bytes.len() as u64)
        .and_then(|()| copy.write(0, &bytes));
    fill.map_err(Fault::Io)?;
    drop(bytes);
    let mut database = builder.create_with_backend(copy)?;
    match database.check_integrity()? {
        true => Ok(()),
        false => Err(Fault::Damaged("pages do not have their checksums".into())),
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or(panic.downcast_ref::<&str>().copied())
        .unwrap_or("no reason given");
    format!("the database code panicked: {text}")
}
