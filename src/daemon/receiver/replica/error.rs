//! Why a module path cannot be opened, and why an op could not be carried out.

use super::*;

/// A module path that could not be opened.
#[derive(Debug, Error)]
pub enum ReplicaError {
    /// The disk.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// The databases.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another daemon works here.
    #[error("{0}")]
    Locked(String),
    /// Another directory stands at its path.
    #[error("{0}")]
    OtherRoot(String),
    /// It cannot begin as a version of another.
    #[error("{0}")]
    Version(String),
    /// The entries of an earlier mirror could not be let go.
    #[error("cannot let go of the entries of the mirror before: {0}")]
    Disown(String),
    /// Its home cannot be used.
    #[error("cannot use {path}: {source}")]
    Home {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Why an op could not be carried out.
#[derive(Debug, Clone)]
pub struct ApplyError {
    /// For the sender's decision.
    pub kind: FailureKind,
    /// For people.
    pub text: String,
}

impl ApplyError {
    /// The receiver's catalog is not as the sender believes.
    pub fn mismatch(text: impl Into<String>) -> ApplyError {
        ApplyError {
            kind: FailureKind::Mismatch,
            text: text.into(),
        }
    }
}

impl From<FsError> for ApplyError {
    fn from(error: FsError) -> ApplyError {
        let kind = match error.kind() {
            FsErrorKind::NoSpace => FailureKind::NoSpace,
            FsErrorKind::Permission => FailureKind::Permission,
            FsErrorKind::NotFound | FsErrorKind::Substituted | FsErrorKind::Exists => FailureKind::Mismatch,
            FsErrorKind::Unsupported => FailureKind::Unsupported,
            _ => FailureKind::Io,
        };
        ApplyError {
            kind,
            text: error.to_string(),
        }
    }
}

impl From<StoreError> for ApplyError {
    fn from(error: StoreError) -> ApplyError {
        ApplyError {
            kind: FailureKind::Io,
            text: error.to_string(),
        }
    }
}
