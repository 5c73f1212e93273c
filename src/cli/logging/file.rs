//! The log in a file, beside standard error.
//!
//! The file is appended to, and opened anew when it is not at its path any more: after `logrotate` moved it nothing has to be told to
//! the process. It looks for that once a second at most, and only when there is something to write.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A file that lines are appended to.
#[derive(Debug, Clone)]
pub(super) struct LogFile(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    file: File,
    looked: Instant,
}

impl LogFile {
    /// Opens it, and makes it if it is missing.
    pub(super) fn open(path: &Path) -> io::Result<LogFile> {
        // A daemon may be somewhere else later.
        let path = std::path::absolute(path)?;
        Ok(LogFile(Arc::new(Mutex::new(Inner {
            file: opened(&path)?,
            path,
            looked: Instant::now(),
        }))))
    }
}

fn opened(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)
}

impl Inner {
    /// Opens it anew where it was moved away. A process that may not, because it confined itself, goes on with what it has.
    fn follow(&mut self) {
        let is_there = |file: &File, path: &Path| -> io::Result<bool> {
            let (ours, there) = (file.metadata()?, std::fs::metadata(path)?);
            Ok((ours.dev(), ours.ino()) == (there.dev(), there.ino()))
        };
        if !is_there(&self.file, &self.path).unwrap_or(false)
            && let Ok(file) = opened(&self.path)
        {
            self.file = file;
        }
    }
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.looked.elapsed() >= LOOK_EVERY {
            inner.looked = Instant::now();
            inner.follow();
        }
        // A full disk must not be the end of a daemon, nor make it say so in a log that it cannot write.
        let _ = inner.file.write_all(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_moved_away_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let (path, aside) = (dir.path().join("log"), dir.path().join("log.1"));
        std::fs::write(&path, "before\n").unwrap();
        let mut log = LogFile::open(&path).unwrap();
        log.write_all(b"one\n").unwrap();
        std::fs::rename(&path, &aside).unwrap();
        log.0.lock().unwrap().follow();
        log.write_all(b"two\n").unwrap();
        assert_eq!(std::fs::read_to_string(&aside).unwrap(), "before\none\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two\n");
        // One that cannot be made anew goes on.
        std::fs::remove_dir_all(dir.path()).unwrap();
        log.0.lock().unwrap().follow();
        log.write_all(b"three\n").unwrap();
        assert!(LogFile::open(&path).is_err());
    }
}
