//! Reading files that others may be writing.
//!
//! Stat, read, stat again, all on one handle: if neither size, mtime nor ctime moved, then what was read is what the
//! file held at one moment, within the resolution of the file system's clock. Two writes in one tick of that clock (up
//! to 10 ms before Linux 6.13), one before and one during the read, look like one; and stores through a mapping may not show at
//! all ([`StableRead::will_tell`]). The caller re-reads files whose times are as young as that.

use super::directory::{Directory, errno_of};
use super::error::{FsError, Result};
use super::meta::Handle;
use super::stat::{Stat, stat_handle};
use super::view::{View, show_open};
use super::writers::is_uncached;
use driftless_protocol::name::Name;
use rustix::buffer::spare_capacity;
use rustix::fs::Advice;
use rustix::io::{Errno, retry_on_intr};
use std::fs::File;
use std::num::NonZero;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;

/// What [`read_whole`] found.
#[derive(Debug)]
pub enum ReadOutcome {
    /// The whole content, and the stat that it belongs to.
    Content(Vec<u8>, Stat),
    /// The file has more bytes than asked for.
    TooLarge(Stat),
    /// The file changed while it was read; try again when it is quiet.
    Moved,
}

/// Reads a file of at most `max` bytes in one go.
pub fn read_whole(directory: &Directory, name: &Name, max: usize) -> Result<ReadOutcome> {
    StableRead::open(directory, name)?.read_whole(max)
}

/// A file open for reading, with what it was at the start.
#[derive(Debug)]
pub struct StableRead {
    file: File,
    stat: Stat,
    shown: String,
    view: Option<Arc<View>>,
    /// Nothing of it was in memory: nothing is to stay there, in place of what others use.
    was_uncached: bool,
}

impl StableRead {
    /// Opens a regular file; see [`Directory::open_file`].
    pub fn open(directory: &Directory, name: &Name) -> Result<StableRead> {
        let (file, stat) = directory.open_file(name)?;
        Ok(StableRead {
            was_uncached: is_uncached(&file).unwrap_or(false),
            file,
            stat,
            shown: directory.shown_name(name),
            view: directory.view.clone(),
        })
    }

    /// What the file was when it was opened.
    pub fn stat(&self) -> &Stat {
        &self.stat
    }

    /// The open file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Fills `buffer` from `offset` on; fewer bytes only at the end of the file.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        read_full_at(&self.file, buffer, offset)
            .map_err(|errno| FsError::new("read", self.shown.as_str(), errno))
    }

    /// Fills a buffer with so many bytes from `offset` on, in place of what it has; fewer bytes only at the end of the file. Its memory
    /// is not cleared before.
    pub fn read_into(&self, buffer: &mut Vec<u8>, bytes: usize, offset: u64) -> std::io::Result<()> {
        buffer.clear();
        buffer.reserve_exact(bytes);
        while buffer.len() < bytes {
            let at = offset.saturating_add(buffer.len() as u64);
            if retry_on_intr(|| rustix::io::pread(&self.file, spare_capacity(buffer), at))? == 0 {
                break;
            }
        }
        // There may be room for more than was asked for.
        buffer.truncate(bytes);
        Ok(())
    }

    /// Reads all of it in one go, if that is at most `max` bytes.
    pub fn read_whole(self, max: usize) -> Result<ReadOutcome> {
        let size = match usize::try_from(self.stat().size) {
            Ok(size) if size <= max => size,
            _ => return Ok(ReadOutcome::TooLarge(*self.stat())),
        };
        let mut content = Vec::new();
        self.read_into(&mut content, size, 0)
            .map_err(|error| FsError::new("read", self.shown.as_str(), errno_of(&error)))?;
        // A short read means that the file shrank; the second stat would say the same.
        if content.len() < size {
            return Ok(ReadOutcome::Moved);
        }
        self.forget_pages(0);
        Ok(match self.finish()? {
            Some(stat) => ReadOutcome::Content(content, stat),
            None => ReadOutcome::Moved,
        })
    }

    /// Leaves the page cache as it was, as far as the first `end` bytes go (all for 0): what was not in memory before leaves
    /// it again. A file that was there in parts is left alone.
    pub fn forget_pages(&self, end: u64) {
        if self.was_uncached {
            let _ = rustix::fs::fadvise(&self.file, 0, NonZero::new(end), Advice::DontNeed);
        }
    }

    /// Takes the file's stat anew, for another read of all of it.
    pub fn restart(&mut self) -> Result<()> {
        self.stat = self.look()?;
        Ok(())
    }

    fn look(&self) -> Result<Stat> {
        let stat =
            stat_handle(&self.file).map_err(|errno| FsError::new("look at", self.shown.as_str(), errno))?;
        let handle = Handle::Open(self.file.as_fd());
        show_open(self.view.as_deref(), handle, stat, || self.shown.clone())
    }

    /// The stat of everything that was read, or `None` if the file has changed since it was opened.
    pub fn finish(self) -> Result<Option<Stat>> {
        self.check()
    }

    /// Like [`StableRead::finish`], and goes on.
    pub fn check(&self) -> Result<Option<Stat>> {
        let now = self.look()?;
        Ok((now.stamp == self.stat.stamp).then_some(now))
    }
}

/// Writes what is dirty of `length` bytes from `offset` on (0: to the end) to the disk and waits. Afterwards the next
/// store through a mapping moves the file's times again. Makes nothing durable.
pub fn write_out(file: &File, offset: u64, length: u64) -> std::io::Result<()> {
    const FLAGS: libc::c_uint =
        libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    sync_file_range(file, offset, length, FLAGS).map_err(std::io::Error::from)
}

/// `sync_file_range`, which touches data only.
pub(super) fn sync_file_range(
    file: &File,
    offset: u64,
    length: u64,
    flags: libc::c_uint,
) -> Result<(), Errno> {
    let (Ok(offset), Ok(length)) = (i64::try_from(offset), i64::try_from(length)) else {
        return Err(Errno::INVAL);
    };
    // SAFETY: the call takes numbers only, and the handle lives through it.
    match unsafe { libc::sync_file_range(file.as_raw_fd(), offset, length, flags) } {
        0 => Ok(()),
        _ => Err(errno_of(&std::io::Error::last_os_error())),
    }
}

/// Reads until `buffer` is full or the file ends.
pub(super) fn read_full_at(file: &File, buffer: &mut [u8], offset: u64) -> Result<usize, Errno> {
    let mut filled = 0;
    while filled < buffer.len() {
        match retry_on_intr(|| {
            rustix::io::pread(file, &mut buffer[filled..], offset.saturating_add(filled as u64))
        })? {
            0 => break,
            n => filled += n,
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn a_buffer_is_filled_with_what_was_asked_for() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("f");
        std::fs::write(&path, b"0123456789").unwrap();
        let read = open(&path);
        let mut buffer = b"what was there before".to_vec();
        for (bytes, offset, expected) in [
            (4, 3, "3456"),
            (40, 6, "6789"),
            (3, 0, "012"),
            (5, 10, ""),
            (0, 2, ""),
        ] {
            read.read_into(&mut buffer, bytes, offset).unwrap();
            assert_eq!(buffer, expected.as_bytes());
        }
    }

    fn open(path: &Path) -> StableRead {
        let root = Directory::open_root(path.parent().unwrap()).unwrap();
        let name = path.file_name().unwrap().as_encoded_bytes().to_vec();
        StableRead::open(&root, &Name::new(name).unwrap()).unwrap()
    }

    #[test]
    fn what_was_not_in_memory_does_not_stay_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, vec![1; 300_000]).unwrap();
        let file = File::open(&path).unwrap();
        file.sync_all().unwrap();
        // In use: it stays.
        open(&path).read_whole(1 << 20).unwrap();
        if is_uncached(&file) != Some(false) {
            eprintln!("skipped: this kernel does not tell, or this file system keeps no pages");
            return;
        }
        rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).unwrap();
        if is_uncached(&file) != Some(true) {
            eprintln!("skipped: this file system keeps its pages (tmpfs)");
            return;
        }
        open(&path).read_whole(1 << 20).unwrap();
        assert_eq!(is_uncached(&file), Some(true));
        let read = open(&path);
        read.read_at(&mut [0; 4096], 200_000).unwrap();
        assert_eq!(is_uncached(&file), Some(false));
        read.forget_pages(0);
        assert_eq!(is_uncached(&file), Some(true));
    }
}
