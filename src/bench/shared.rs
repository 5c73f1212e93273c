//! A directory at a fixed place outside the workspace that several benches may need at the same time.
//!
//! It is there for sshd: run by root, it wants a directory that on some systems only its package's service makes, and wants
//! it again for each connection. Each bench holds a shared lock on it; the last one removes it, if a bench made it.

use rustix::fs::{FlockOperation, XattrFlags};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Marks what a bench has made.
const MARK: &str = "trusted.driftless-bench";

/// A directory, kept as long as this is.
#[derive(Debug)]
pub struct SharedDirectory {
    path: PathBuf,
    lock: File,
}

impl SharedDirectory {
    /// Makes the directory, unless it is there.
    ///
    /// # Errors
    /// When it can neither be made nor opened.
    pub fn make(path: &Path) -> io::Result<SharedDirectory> {
        loop {
            let made = match fs::DirBuilder::new().mode(0o755).create(path) {
                Ok(()) => true,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
                Err(error) => return Err(error),
            };
            let held = match SharedDirectory::hold(path) {
                Ok(held) => held,
                // Another bench ended in between.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if !held.is_current() {
                continue;
            }
            if made {
                // Without the mark it stays, which is the lesser evil.
                let _ = rustix::fs::fsetxattr(&held.lock, MARK, b"1", XattrFlags::empty());
            }
            return Ok(held);
        }
    }

    /// The directory as it is there, whoever made it.
    #[must_use]
    pub fn join(path: &Path) -> Option<SharedDirectory> {
        SharedDirectory::hold(path)
            .ok()
            .filter(SharedDirectory::is_current)
    }

    /// Makes it again if it is gone: the service that made it may have been stopped.
    pub fn renew(&mut self) {
        if !self.is_current()
            && let Ok(again) = SharedDirectory::make(&self.path)
        {
            *self = again;
        }
    }

    fn hold(path: &Path) -> io::Result<SharedDirectory> {
        let lock = File::open(path)?;
        rustix::fs::flock(&lock, FlockOperation::LockShared)?;
        Ok(SharedDirectory {
            path: path.to_owned(),
            lock,
        })
    }

    fn is_marked(&self) -> bool {
        rustix::fs::fgetxattr(&self.lock, MARK, &mut [0; 8]).is_ok()
    }

    /// Whether the path still leads to what is held.
    fn is_current(&self) -> bool {
        let identity = |meta: fs::Metadata| (meta.dev(), meta.ino());
        let held = self.lock.metadata().map(identity).ok();
        held.is_some() && held == self.path.symlink_metadata().map(identity).ok()
    }
}

impl Drop for SharedDirectory {
    fn drop(&mut self) {
        let is_last = rustix::fs::flock(&self.lock, FlockOperation::NonBlockingLockExclusive).is_ok();
        if is_last && self.is_marked() && self.is_current() {
            let _ = fs::remove_dir(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In memory, which has attributes of that kind everywhere.
    fn place() -> Option<tempfile::TempDir> {
        let directory = tempfile::tempdir_in("/dev/shm").ok()?;
        let probe = File::open(directory.path()).ok()?;
        rustix::fs::fsetxattr(&probe, MARK, b"1", XattrFlags::empty()).ok()?;
        Some(directory)
    }

    #[test]
    fn the_last_user_removes_what_a_user_made_and_nothing_else() {
        let Some(place) = place() else {
            assert!(
                std::env::var_os("DRIFTLESS_TEST_NO_SKIP").is_none(),
                "needs root and /dev/shm"
            );
            return;
        };
        let path = place.path().join("sshd");
        let (one, two) = (
            SharedDirectory::make(&path).unwrap(),
            SharedDirectory::join(&path).unwrap(),
        );
        drop(one);
        assert!(path.exists(), "the other one still uses it");
        drop(two);
        assert!(!path.exists());

        fs::create_dir(&path).unwrap();
        drop(SharedDirectory::join(&path).unwrap());
        drop(SharedDirectory::make(&path).unwrap());
        assert!(path.exists(), "no user made it");

        let mut held = SharedDirectory::join(&path).unwrap();
        fs::remove_dir(&path).unwrap();
        held.renew();
        assert!(path.exists());
        drop(held);
        assert!(!path.exists(), "then a user made it");
    }
}
