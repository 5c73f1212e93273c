//! A file with the number of the process, locked for as long as it lives.

use crate::cli::CliError;
use crate::cli::text::escaped;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The file, which is removed when this is dropped.
#[derive(Debug)]
pub(super) struct PidFile {
    path: PathBuf,
    /// Holds the lock.
    file: File,
}

impl PidFile {
    /// Writes the file. One that a living process holds is refused; one of a process that was killed is taken over.
    pub(super) fn create(path: &Path) -> Result<PidFile, CliError> {
        let failed = |error: io::Error| {
            CliError::failed(format!("cannot write the pid file {}: {error}", escaped(path)))
        };
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(CliError::failed(format!(
                    "cannot write the pid file {}: another process holds it (is the daemon running already? see `driftless \
                     status`)",
                    escaped(path)
                )));
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        file.set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(failed)?;
        let path = std::path::absolute(path).map_err(failed)?;
        Ok(PidFile { path, file })
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Somebody may have put another in its place.
        let place = |found: &std::fs::Metadata| (found.dev(), found.ino());
        let ours = self.file.metadata().ok().as_ref().map(place);
        if ours.is_some() && std::fs::symlink_metadata(&self.path).ok().as_ref().map(place) == ours {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_held_by_one_and_removed_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        // Left behind by a process that was killed.
        std::fs::write(&path, "1234567890123\n").unwrap();
        let held = PidFile::create(&path).unwrap();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            format!("{}\n", std::process::id())
        );
        let Err(CliError::Failed(text)) = PidFile::create(&path) else {
            panic!("it was taken twice")
        };
        assert!(text.contains("another process holds it"), "{text}");
        drop(held);
        assert!(!path.exists());
        std::os::unix::fs::symlink("target", &path).unwrap();
        assert!(PidFile::create(&path).is_err() && !dir.path().join("target").exists());
    }
}
