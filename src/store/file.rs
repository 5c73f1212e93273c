//! Opening a redb file without trusting it.
//!
//! redb checks the pages of a file by their checksums when it was not closed properly, not otherwise, and a few of
//! its checks are panics. So every open here verifies the whole file (a sequential read) and runs inside
//! `catch_unwind`; after that a damaged page can only be one that went bad since.

use super::StoreError;
use super::error::is_damage;
use redb::{Builder, Database, DatabaseError, StorageError};
use std::cell::Cell;
use std::fs::{File, OpenOptions};
use std::io;
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

/// Opens `path`, readable by its owner only, verifies it, and lets `probe` look at the tables before anybody else
/// does. A missing file is made if `create`; an empty one becomes an empty database if `create`.
pub(super) fn open<T>(
    path: &Path,
    create: bool,
    cache_bytes: usize,
    probe: impl FnOnce(&Database) -> Result<T, Fault>,
) -> Result<(Database, T), Fault> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(create)
        .mode(0o600)
        .open(path)
        .map_err(Fault::Io)?;
    let length = file.metadata().map_err(Fault::Io)?.len();
    if length == 0 && !create {
        return Err(Fault::Damaged("the file is empty".into()));
    }
    // Everything that may panic, and the drop of what did, stays inside.
    catch_unwind(AssertUnwindSafe(|| {
        open_file(file, length > 0, cache_bytes, probe)
    }))
    .unwrap_or_else(|panic| Err(Fault::Damaged(panic_text(&*panic))))
}

fn open_file<T>(
    file: File,
    verify: bool,
    cache_bytes: usize,
    probe: impl FnOnce(&Database) -> Result<T, Fault>,
) -> Result<(Database, T), Fault> {
    let repaired = Rc::new(Cell::new(false));
    let mut database = Builder::new()
        .set_cache_size(cache_bytes)
        .set_repair_callback({
            let repaired = repaired.clone();
            move |_| repaired.set(true)
        })
        .create_file(file)?;
    // A repair after a crash has verified everything already.
    if verify && !repaired.get() && !database.check_integrity()? {
        return Err(Fault::Damaged("pages do not have their checksums".into()));
    }
    let found = probe(&database)?;
    Ok((database, found))
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or(panic.downcast_ref::<&str>().copied())
        .unwrap_or("no reason given");
    format!("the database code panicked: {text}")
}
