//! A disk for the databases of a simulated process: it knows what was written and not flushed, ends its process before a chosen
//! flush, and loses some of the former when the power goes.

use redb::StorageBackend;
use std::cell::RefCell;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What has been written to files and not flushed.
pub struct Disk {
    unflushed: Mutex<Vec<Write>>,
    /// A flush is about to be made; false if the process has ended.
    begin: Box<dyn Fn() -> bool + Send + Sync>,
    /// Whether it has ended.
    has_ended: Box<dyn Fn() -> bool + Send + Sync>,
}

/// How to undo a write.
struct Write {
    inode: u64,
    file: Arc<File>,
    offset: u64,
    /// What was there before.
    bytes: Vec<u8>,
    /// How long the file was, if that has changed.
    length: Option<u64>,
}

thread_local! {
    static DISK: RefCell<Option<Arc<Disk>>> = const { RefCell::new(None) };
}

impl Disk {
    /// A disk on which nothing waits to be flushed.
    pub fn new(
        begin: impl Fn() -> bool + Send + Sync + 'static,
        has_ended: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Disk {
        Disk {
            unflushed: Mutex::default(),
            begin: Box::new(begin),
            has_ended: Box::new(has_ended),
        }
    }

    /// The same disk for the next process: what the last one did not flush may still be lost.
    pub fn pass_on(
        &self,
        begin: impl Fn() -> bool + Send + Sync + 'static,
        has_ended: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Disk {
        let disk = Disk::new(begin, has_ended);
        disk.lock().append(&mut self.lock());
        disk
    }

    /// The databases of this thread are on this disk from now on.
    pub fn install(self: &Arc<Disk>) {
        DISK.set(Some(self.clone()));
    }

    /// The power goes: of what was not flushed, `is_lost` says of each write whether it is lost.
    pub fn lose(&self, mut is_lost: impl FnMut() -> bool) -> io::Result<()> {
        for write in std::mem::take(&mut *self.lock()).into_iter().rev() {
            if is_lost() {
                if let Some(length) = write.length {
                    write.file.set_len(length)?;
                }
                write.file.write_all_at(&write.bytes, write.offset)?;
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Write>> {
        self.unflushed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The file on this thread's simulated disk, if it has one.
pub(super) fn backend(file: File) -> Result<Backend, File> {
    let Some(disk) = DISK.with_borrow(Clone::clone) else {
        return Err(file);
    };
    // A handle of its own: the lock goes with the process, what was written stays longer.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    match File::options().read(true).write(true).open(path) {
        Ok(own) => Ok(Backend {
            file: Arc::new(own),
            disk,
        }),
        Err(_) => Err(file),
    }
}

/// A file on such a disk.
pub(super) struct Backend {
    file: Arc<File>,
    disk: Arc<Disk>,
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Backend({:?})", self.file)
    }
}

impl Backend {
    fn note(&self, offset: u64, length: usize, new_length: Option<u64>) -> io::Result<()> {
        if (self.disk.has_ended)() {
            return Err(io::Error::other("the process has ended"));
        }
        let meta = self.file.metadata()?;
        let mut bytes = vec![0; length.min(meta.len().saturating_sub(offset) as usize)];
        self.file.read_exact_at(&mut bytes, offset)?;
        self.disk.lock().push(Write {
            inode: meta.ino(),
            file: self.file.clone(),
            offset,
            bytes,
            length: new_length.map(|_| meta.len()),
        });
        Ok(())
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let present = self.len()?;
        self.note(length, present.saturating_sub(length) as usize, Some(length))?;
        self.file.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        if !(self.disk.begin)() {
            return Err(io::Error::other("the process has ended"));
        }
        let inode = self.file.metadata()?.ino();
        self.disk.lock().retain(|write| write.inode != inode);
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.note(offset, bytes.len(), None)?;
        self.file.write_all_at(bytes, offset)
    }
}
