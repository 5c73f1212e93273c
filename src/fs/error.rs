//! What went wrong, with which operation, on which path.

use driftless_protocol::name::escape;
use rustix::io::Errno;
use std::fmt;

/// What the calls of this layer answer.
pub type Result<T, E = FsError> = std::result::Result<T, E>;

/// A file system call that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FsError {
    operation: &'static str,
    path: String,
    errno: Errno,
    kind: FsErrorKind,
    cause: Option<&'static str>,
}

/// Who can do something about an [`FsError`], and what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FsErrorKind {
    /// Nothing has that name.
    NotFound,
    /// The disk or a quota is full.
    NoSpace,
    /// Not permitted, or the file system is read-only.
    Permission,
    /// A directory that still holds something.
    NotEmpty,
    /// Something stands at that name.
    Exists,
    /// Another object, or an object of another type, than the one meant: a symbolic link where a directory should be,
    /// a FIFO where a file should be.
    Substituted,
    /// This kernel or file system cannot do or hold that.
    Unsupported,
    /// The two places are on different file systems, or a mount point stands in the way.
    CrossDevice,
    /// In use just now; later it may work.
    Busy,
    /// No file descriptor left, here or in the whole system.
    TooManyOpen,
    /// A basis that is shorter than the range to copy from it.
    ShortBasis,
    /// None of the above, such as an error of the disk.
    Other,
}

impl FsError {
    /// An error of the kernel.
    pub(super) fn new(operation: &'static str, path: impl Into<String>, errno: Errno) -> FsError {
        FsError {
            operation,
            path: path.into(),
            errno,
            kind: FsErrorKind::of(errno),
            cause: None,
        }
    }

    /// The same error, sorted otherwise and with a clearer cause.
    pub(super) fn explained(self, kind: FsErrorKind, cause: &'static str) -> FsError {
        FsError {
            kind,
            cause: Some(cause),
            ..self
        }
    }

    /// The same error, sorted otherwise.
    pub(super) fn sorted(self, kind: FsErrorKind) -> FsError {
        FsError { kind, ..self }
    }

    /// An object is not of the type that was meant.
    pub(super) fn substituted(
        operation: &'static str,
        path: impl Into<String>,
        cause: &'static str,
    ) -> FsError {
        FsError::new(operation, path, Errno::LOOP).explained(FsErrorKind::Substituted, cause)
    }

    /// What kind of failure this is.
    pub fn kind(&self) -> FsErrorKind {
        self.kind
    }

    /// What was tried, as a verb phrase: `open`, `set the attributes of`.
    pub fn operation(&self) -> &'static str {
        self.operation
    }

    /// On which path, escaped for display.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What the kernel said.
    pub fn errno(&self) -> Errno {
        self.errno
    }
}

impl fmt::Display for FsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} {}: ", self.operation, self.path)?;
        match self.cause {
            Some(cause) => f.write_str(cause),
            None => {
                f.write_str(&describe(self.errno))?;
                remedy(self.errno).map_or(Ok(()), |remedy| write!(f, "; {remedy}"))
            }
        }
    }
}

impl std::error::Error for FsError {}

impl FsErrorKind {
    fn of(errno: Errno) -> FsErrorKind {
        match errno {
            Errno::NOENT => FsErrorKind::NotFound,
            Errno::NOSPC | Errno::DQUOT => FsErrorKind::NoSpace,
            Errno::ACCESS | Errno::PERM | Errno::ROFS => FsErrorKind::Permission,
            Errno::NOTEMPTY => FsErrorKind::NotEmpty,
            Errno::EXIST => FsErrorKind::Exists,
            // A device without driver and a socket answer an open with these.
            Errno::NOTDIR | Errno::LOOP | Errno::ISDIR | Errno::NXIO | Errno::NODEV => {
                FsErrorKind::Substituted
            }
            Errno::OPNOTSUPP | Errno::NOSYS | Errno::NAMETOOLONG | Errno::ILSEQ => FsErrorKind::Unsupported,
            Errno::XDEV => FsErrorKind::CrossDevice,
            Errno::AGAIN | Errno::BUSY | Errno::TXTBSY => FsErrorKind::Busy,
            Errno::MFILE | Errno::NFILE => FsErrorKind::TooManyOpen,
            _ => FsErrorKind::Other,
        }
    }
}

/// What to do about an error that is not about one path.
fn remedy(errno: Errno) -> Option<&'static str> {
    Some(match errno {
        Errno::NOSPC => "free space or inodes on that file system",
        Errno::DQUOT => "free space or raise the quota there",
        Errno::ROFS => "find out why (the kernel's log says so), and mount it writable again",
        Errno::MFILE => "raise the limit of open files (LimitNOFILE of the service, or ulimit -n)",
        Errno::NFILE => "raise the system's limit of open files (sysctl fs.file-max)",
        Errno::FBIG => {
            "raise the limit of file sizes (LimitFSIZE of the service, or ulimit -f), or use a file system that holds such files"
        }
        Errno::MLINK => "that file system holds no more names of one file, or directories in one",
        Errno::IO => "the kernel's log has more; check the disk",
        _ => return None,
    })
}

/// The system's words for an error: without the number, and starting small as a cause should.
fn describe(errno: Errno) -> String {
    let text = std::io::Error::from(errno).to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (Some(first), Some(second)) if second.is_lowercase() => {
            first.to_lowercase().chain([second]).chain(chars).collect()
        }
        _ => text.to_owned(),
    }
}

/// Longest path that a message shows; deeper ones lose their end.
const SHOWN_BYTES_MAX: usize = 4_096;

/// A path for messages: `directory` (already escaped) and a name in it.
pub(super) fn shown(directory: &str, name: &[u8]) -> String {
    let mut text = String::with_capacity(directory.len() + 1 + name.len());
    text.push_str(directory);
    if text.len() > SHOWN_BYTES_MAX {
        if !text.ends_with('…') {
            text.push('…');
        }
        return text;
    }
    if !text.ends_with('/') {
        text.push('/');
    }
    // Writing to a string cannot fail.
    let _ = escape(name, &mut text);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_say_what_on_which_path_and_why() {
        let error = FsError::new("open", shown("/srv", b"a\n\xff"), Errno::NOENT);
        assert_eq!(
            error.to_string(),
            "cannot open /srv/a\\n\\xff: no such file or directory"
        );
        assert_eq!(error.kind(), FsErrorKind::NotFound);
        assert_eq!(
            FsError::new("write", "x", Errno::DQUOT).kind(),
            FsErrorKind::NoSpace
        );
        assert_eq!(
            FsError::new("read", "x", Errno::IO).to_string(),
            "cannot read x: input/output error; the kernel's log has more; check the disk"
        );
    }

    #[test]
    fn paths_in_messages_are_bounded() {
        let mut path = String::from("/");
        for _ in 0..3_000 {
            path = shown(&path, b"0123456789");
        }
        assert!(path.len() < SHOWN_BYTES_MAX + 300 && path.ends_with('…'));
        assert_eq!(shown("/", b"a"), "/a");
    }
}
