//! Reading and replacing the few small files this crate keeps, safely.
//!
//! Reading: what others could have written is refused, not merely reported, because each of these files decides who may
//! do what. The checks that matter are made on the opened file, so that exchanging the path in between gains nothing.
//!
//! Writing: only through [`LockedDir`], so that "read, change, write" by two processes never loses an entry. A file is
//! written aside, synced, renamed into place, and the directory is synced: after a power cut there is the old file or
//! the new one, never a mix, and once a function here has returned it is the new one.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// The lock beside the files; its content means nothing and it is never removed (removing it would let two processes
/// hold "the" lock at once).
const LOCK_NAME: &str = ".lock";

/// A failed or refused operation on one of the files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The operating system said no. The cause is part of the message and not repeated as its source.
    #[error("cannot {operation} {}: {cause}{}", .path.display(), remedy(.cause))]
    Io {
        /// What was attempted, as a verb.
        operation: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the operating system answered.
        cause: io::Error,
    },
    /// It belongs to a user who could put anything in it.
    #[error("refusing {what} {}: it is owned by user {owner}, but this process runs as user {user} (run driftless as \
        its owner, or give it over with `chown {user} {}`)", .path.display(), .path.display())]
    ForeignOwner {
        /// What it is, such as "the file" or "the symbolic link".
        what: &'static str,
        /// Where it is.
        path: PathBuf,
        /// The numeric id of its owner.
        owner: u32,
        /// The effective user id of this process.
        user: u32,
    },
    /// Its mode gives group or others more than it should.
    #[error("refusing {what} {}: its mode {mode:04o} lets other users {verb} it (run `chmod {remedy:04o} {}`)",
        .path.display(), .path.display())]
    Exposed {
        /// What it is, such as "the file" or "the directory".
        what: &'static str,
        /// Where it is.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// What others can do with it: "read" or "change".
        verb: &'static str,
        /// The mode it should have.
        remedy: u32,
    },
    /// It is a directory, a pipe, a device, or, where a directory is needed, not one.
    #[error("cannot use {}: it is not {expected} (move it away)", .path.display())]
    WrongKind {
        /// Where it is.
        path: PathBuf,
        /// What it should be.
        expected: &'static str,
    },
    /// Larger than driftless ever makes it.
    #[error("refusing {}: it is larger than {limit} bytes, so driftless did not write it (move it away)",
        .path.display())]
    TooLarge {
        /// Where it is.
        path: PathBuf,
        /// The limit in bytes.
        limit: u64,
    },
}

fn remedy(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::PermissionDenied => " (check owner and mode of it and of its directory)",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => " (free some space and try again)",
        io::ErrorKind::ReadOnlyFilesystem => " (use a directory on a writable file system)",
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            " (check that its directory exists, and what it points to if it is a link)"
        }
        _ => " (check the file system it is on)",
    }
}

fn io_error<'a>(operation: &'static str, path: &'a Path) -> impl Fn(io::Error) -> FileError + 'a {
    move |cause| FileError::Io {
        operation,
        path: path.to_owned(),
        cause,
    }
}

/// Who may be able to read or write a file before we believe it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Ours alone: owned by the effective user, nothing for group and others.
    Secret,
    /// Anyone may read; only the effective user or root can change it.
    Guarded,
}

/// What the checks look at, apart from the file itself so that they can be tested for any user.
#[derive(Clone, Copy)]
struct Facts {
    owner: u32,
    mode: u32,
}

fn check_access(
    path: &Path,
    what: &'static str,
    access: Access,
    found: Facts,
    user: u32,
) -> Result<(), FileError> {
    // Root can replace any file anyway, so a root-owned file is no weaker than our own; a *secret* of root's that we
    // can read is one that was given to more than one user.
    if found.owner != user && !(access == Access::Guarded && found.owner == 0) {
        return Err(FileError::ForeignOwner {
            what,
            path: path.to_owned(),
            owner: found.owner,
            user,
        });
    }
    let mode = found.mode & 0o7777;
    let exposed = |verb, remedy| FileError::Exposed {
        what,
        path: path.to_owned(),
        mode,
        verb,
        remedy,
    };
    match access {
        Access::Secret if mode & 0o077 != 0 => {
            Err(exposed(if mode & 0o022 != 0 { "change" } else { "read" }, 0o600))
        }
        Access::Guarded if mode & 0o022 != 0 => Err(exposed("change", mode & !0o022)),
        _ => Ok(()),
    }
}

fn effective_user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Reads a whole file of at most `limit` bytes after checking who else has access; `None` if there is none.
pub(crate) fn read(path: &Path, access: Access, limit: u64) -> Result<Option<Vec<u8>>, FileError> {
    let user = effective_user();
    let is_link = match fs::symlink_metadata(path) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => {
            let found = other.map_err(io_error("look at", path))?;
            // A link of someone else's can be pointed elsewhere at any time. RACE: it could appear after this look; the
            // checks on the opened file still hold then, so at worst one of our own files is read in place of another.
            if found.is_symlink() && found.uid() != user {
                let (what, path) = ("the symbolic link", path.to_owned());
                return Err(FileError::ForeignOwner {
                    what,
                    path,
                    owner: found.uid(),
                    user,
                });
            }
            found.is_symlink()
        }
    };
    // Not blocking, or a pipe put there would hang us before it can be refused.
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        // Removed since the look. A link to nothing is not "no file", though: what it points to may be on a disk that is
        // not mounted yet, and to make a new identity then would be wrong.
        Err(cause) if cause.kind() == io::ErrorKind::NotFound && !is_link => return Ok(None),
        other => other.map_err(io_error("open", path))?,
    };
    let facts = file.metadata().map_err(io_error("look at", path))?;
    if !facts.is_file() {
        return Err(FileError::WrongKind {
            path: path.to_owned(),
            expected: "a regular file",
        });
    }
    check_access(
        path,
        "the file",
        access,
        Facts {
            owner: facts.uid(),
            mode: facts.mode(),
        },
        user,
    )?;
    let mut bytes = Vec::new();
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(io_error("read", path))?;
    if bytes.len() as u64 > limit {
        return Err(FileError::TooLarge {
            path: path.to_owned(),
            limit,
        });
    }
    Ok(Some(bytes))
}

/// Checks that nobody else can put files into `dir`, exchange them or take them away.
fn check_dir(dir: &Path) -> Result<(), FileError> {
    let facts = fs::metadata(dir).map_err(io_error("look at", dir))?;
    if !facts.is_dir() {
        return Err(FileError::WrongKind {
            path: dir.to_owned(),
            expected: "a directory",
        });
    }
    let found = Facts {
        owner: facts.uid(),
        mode: facts.mode(),
    };
    check_access(dir, "the directory", Access::Guarded, found, effective_user())
}

/// A directory of ours that no other process of ours changes while this value lives.
pub(crate) struct LockedDir {
    path: PathBuf,
    /// Closing it lets the next process in.
    _lock: File,
}

impl LockedDir {
    /// Makes the directory with mode 0700 if it is missing, checks it, and waits for its lock.
    pub(crate) fn lock(path: &Path) -> Result<LockedDir, FileError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(io_error("create", path))?;
        check_dir(path)?;
        let lock_path = path.join(LOCK_NAME);
        // Opened for writing because NFS gives an exclusive lock to nothing else.
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(&lock_path)
            .map_err(io_error("open", &lock_path))?;
        lock.lock().map_err(io_error("lock", &lock_path))?;
        Ok(LockedDir {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// Puts `bytes` under `name` in one step, replacing what is there.
    pub(crate) fn write(&self, name: &str, mode: u32, bytes: &[u8]) -> Result<(), FileError> {
        let path = self.path.join(name);
        // One fixed name is enough under the lock, and a crash leaves at most one file, which the next write removes.
        let temporary = self.path.join(format!(".{name}.tmp"));
        self.remove_path(&temporary)?;
        let written = write_new(&temporary, mode, bytes)
            .and_then(|()| fs::rename(&temporary, &path).map_err(io_error("replace", &path)));
        if let Err(error) = written {
            // The first error is the one to report; the leftover is harmless and goes with the next write.
            let _ = fs::remove_file(&temporary);
            return Err(error);
        }
        self.sync()
    }

    /// Renames within the directory; false if there is no `from`.
    pub(crate) fn rename(&self, from: &str, to: &str) -> Result<bool, FileError> {
        let from = self.path.join(from);
        match fs::rename(&from, self.path.join(to)) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(false),
            other => other.map_err(io_error("rename", &from))?,
        }
        self.sync()?;
        Ok(true)
    }

    /// Removes a file; one that is gone already is fine.
    pub(crate) fn remove(&self, name: &str) -> Result<(), FileError> {
        self.remove_path(&self.path.join(name))?;
        self.sync()
    }

    fn remove_path(&self, path: &Path) -> Result<(), FileError> {
        match fs::remove_file(path) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(io_error("remove", path)),
        }
    }

    fn sync(&self) -> Result<(), FileError> {
        File::open(&self.path)
            .and_then(|dir| dir.sync_all())
            .map_err(io_error("sync", &self.path))
    }
}

/// Creates a file that was not there, with its mode from the first moment, and syncs it.
fn write_new(path: &Path, mode: u32, bytes: &[u8]) -> Result<(), FileError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .map_err(io_error("create", path))?;
    file.write_all(bytes).map_err(io_error("write", path))?;
    file.sync_all().map_err(io_error("sync", path))
}

/// The names in a directory that are UTF-8 (ours all are), sorted; empty if there is no directory.
pub(crate) fn list(dir: &Path) -> Result<Vec<String>, FileError> {
    let entries = match fs::read_dir(dir) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(io_error("list", dir))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(io_error("list", dir))?;
        names.extend(entry.file_name().into_string());
    }
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
mod tests;
