//! What can go wrong with a database, sorted by who can do something about it.

use driftless_protocol::ObjectId;
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why the store could not do it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process, or another part of this one, has the file open.
    #[error("{} is in use by another driftless process", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },

    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },

    /// The database failed at run time, usually for want of space or for an error of the disk.
    #[error("database {} failed: {source}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// What redb says.
        source: Box<redb::Error>,
    },

    /// The catalog holds what it cannot hold. The remedy is [`super::Catalog::set_aside`] and a scan.
    #[error("catalog {} is damaged: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        what: String,
    },

    /// The state file cannot be trusted. It is never recreated.
    #[error(
        "state file {} is damaged ({what}); restore it from a backup, or give this mirror up with `driftless forget`",
        path.display()
    )]
    StateDamaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        what: String,
    },

    /// The state file was written by a later driftless.
    #[error(
        "state file {} has schema {found}, this driftless knows up to {known}; use the newer driftless again, or \
         restore the backup that it made when it migrated",
        path.display()
    )]
    StateNewer {
        /// The file.
        path: PathBuf,
        /// Schema of the file.
        found: u64,
        /// The highest schema this program knows.
        known: u64,
    },

    /// `relabel` to a number that already has a record.
    #[error("object {} is already in the catalog", .object.0)]
    NumberTaken {
        /// The number.
        object: ObjectId,
    },

    /// A place in the journal that another object or tombstone holds.
    #[error("sequence {sequence} of the journal is taken")]
    SequenceTaken {
        /// The sequence.
        sequence: u64,
    },

    /// A counter reached its end. Takes longer than any machine lives, unless a number was made up.
    #[error("no more numbers to give out")]
    NumbersExhausted,
}

impl StoreError {
    /// Damage found in a record or a key; the path is filled in on the way out.
    pub(super) fn damaged(what: impl Into<String>) -> StoreError {
        StoreError::Damaged {
            path: PathBuf::new(),
            what: what.into(),
        }
    }

    /// Completes an error from below with the file that it came from.
    pub(super) fn at(mut self, file: &Path) -> StoreError {
        if let StoreError::Database { path, .. } | StoreError::Damaged { path, .. } = &mut self
            && path.as_os_str().is_empty()
        {
            file.clone_into(path);
        }
        self
    }

    /// As [`StoreError::at`], for the state: damage there has another remedy.
    pub(super) fn at_state(self, file: &Path) -> StoreError {
        match self {
            StoreError::Damaged { what, .. } => StoreError::StateDamaged {
                path: file.to_owned(),
                what,
            },
            other => other.at(file),
        }
    }

    /// Whether the catalog itself is at fault, so that making a new one helps.
    pub fn is_damage(&self) -> bool {
        matches!(self, StoreError::Damaged { .. })
    }
}

impl From<redb::Error> for StoreError {
    fn from(error: redb::Error) -> StoreError {
        use redb::Error as E;
        match error {
            E::Corrupted(what) => StoreError::damaged(what),
            E::TableTypeMismatch { .. }
            | E::TableIsMultimap(_)
            | E::TableIsNotMultimap(_)
            | E::TypeDefinitionChanged { .. }
            | E::TableDoesNotExist(_) => StoreError::damaged(error.to_string()),
            E::Io(ref io) if is_damage(io) => StoreError::damaged(error.to_string()),
            other => StoreError::Database {
                path: PathBuf::new(),
                source: Box::new(other),
            },
        }
    }
}

/// Whether an I/O error says that the file's content is wrong, not that the system is short of something.
pub(super) fn is_damage(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(error.kind(), K::UnexpectedEof | K::InvalidData | K::InvalidInput)
}

macro_rules! from_redb {
    ($($error:ident),*) => {$(
        impl From<redb::$error> for StoreError {
            fn from(error: redb::$error) -> StoreError {
                redb::Error::from(error).into()
            }
        }
    )*};
}
from_redb!(
    StorageError,
    TableError,
    TransactionError,
    CommitError,
    SetDurabilityError
);
