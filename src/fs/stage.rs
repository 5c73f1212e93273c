//! Files written aside and published in one step.
//!
//! A staged file has no name (`O_TMPFILE` in the directory of its target), so a crash leaves nothing, and nobody else
//! can open it. Where the file system has no unnamed files it gets a private name, which [`Directory::sweep`] knows, and
//! mode 0600. It inherits what the directory hands down: label, default ACL, group, project quota.

use super::calls;
use super::directory::Directory;
use super::error::{FsError, FsErrorKind, Result};
use super::link::link_handle;
use super::meta::{Applied, Handle, Metadata};
use super::private::{displaced_from, displaced_name, private_name};
use super::read::{read_full_at, sync_file_range};
use super::stat::{FileType, Stat, stat_at, stat_handle};
use crate::engine::zeros::is_zero;
use driftless_protocol::entry::{Attributes, Carried};
use driftless_protocol::name::Name;
use rustix::fs::{FallocateFlags, Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, retry_on_intr};
use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A file that nobody sees until it is published. Dropped before, it leaves nothing.
#[derive(Debug)]
pub struct Staged {
    pub(super) file: File,
    directory: Arc<Directory>,
    /// Its private name, where the file system has no unnamed files.
    name: Option<Name>,
    /// Dropped unpublished, it keeps its private name.
    is_kept: AtomicBool,
    /// A flush failed: what is on the disk is unknown, and a second flush would not tell (the kernel forgets).
    condemned: AtomicBool,
    pub(super) cannot_clone: AtomicBool,
}

/// What [`Staged::publish`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// The published object, after the last change to it.
    pub stat: Stat,
    /// Something else had the name before.
    pub replaced: bool,
}

/// What [`Staged::publish_exchanging`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Displaced {
    /// The published object, after the last change to it.
    pub stat: Stat,
    /// What had the name before, now at this [`displaced_name`] in the same directory; `None` if nothing had it.
    pub displaced: Option<(Name, Stat)>,
}

impl Staged {
    /// A new empty file in `directory`, readable and writable by its owner only.
    pub fn create(directory: Arc<Directory>) -> Result<Staged> {
        Staged::create_unnamed(directory, Mode::RUSR | Mode::WUSR)
    }

    /// A new empty file that is going to have these permissions (bits beyond them come when it gets its attributes). It has them from
    /// the beginning if it has no name, by which nobody else can open it: that saves setting them. The process's umask applies.
    pub fn create_with_mode(directory: Arc<Directory>, mode: u16) -> Result<Staged> {
        Staged::create_unnamed(directory, Mode::from_bits_truncate(u32::from(mode & 0o777)))
    }

    /// With a private name instead, and for nobody else, where the file system has no unnamed files.
    fn create_unnamed(directory: Arc<Directory>, mode: Mode) -> Result<Staged> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        match retry_on_intr(|| rustix::fs::openat(&directory, ".", flags, mode)) {
            Ok(fd) => Ok(Staged::new(File::from(fd), directory, None)),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT | Errno::INVAL) => {
                Staged::create_named(directory)
            }
            Err(errno) => Err(directory.failed("stage a file in")(errno)),
        }
    }

    /// The way for file systems without unnamed files.
    pub(super) fn create_named(directory: Arc<Directory>) -> Result<Staged> {
        let name = private_name();
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW;
        let mode = Mode::RUSR | Mode::WUSR;
        let fd = directory.open_beneath(
            "stage a file at",
            name.as_bytes(),
            flags,
            mode,
            ResolveFlags::empty(),
        )?;
        Ok(Staged::new(File::from(fd), directory, Some(name)))
    }

    /// A new empty file under a private name, which stays there when this is dropped unpublished: for contents that take
    /// long to arrive. [`Staged::reopen`] goes on with it, [`Directory::sweep`] removes it.
    pub fn create_kept(directory: Arc<Directory>) -> Result<Staged> {
        let staged = Staged::create_named(directory)?;
        staged.is_kept.store(true, Ordering::Relaxed);
        Ok(staged)
    }

    /// Goes on with a file that [`Staged::create_kept`] made, and answers what it was before anything was touched. It must
    /// be as that left it: our own, with one name, and closed to everybody else, so that nobody can write to it any more.
    pub fn reopen(directory: Arc<Directory>, name: Name) -> Result<(Staged, Stat)> {
        const OPERATION: &str = "go on with";
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let mode = Mode::empty();
        let fd = directory.open_beneath(OPERATION, name.as_bytes(), flags, mode, ResolveFlags::empty())?;
        let failed = |errno| directory.failed_at(OPERATION, &name)(errno);
        let stat = stat_handle(&fd).map_err(failed)?;
        let is_ours =
            stat.attributes.uid == rustix::process::geteuid().as_raw() && stat.attributes.mode == 0o600;
        if stat.file_type != FileType::Regular || stat.links != 1 || !is_ours {
            let text = "it is not the file that was left there";
            return Err(FsError::substituted(OPERATION, directory.shown_name(&name), text));
        }
        let staged = Staged::new(File::from(fd), directory, Some(name));
        staged.is_kept.store(true, Ordering::Relaxed);
        Ok((staged, stat))
    }

    /// Its private name, if it has one.
    pub fn private_name(&self) -> Option<&Name> {
        self.name.as_ref()
    }

    /// Dropped unpublished, it is gone, however it was made.
    pub fn discard(&self) {
        self.is_kept.store(false, Ordering::Relaxed);
    }

    fn new(file: File, directory: Arc<Directory>, name: Option<Name>) -> Staged {
        Staged {
            file,
            directory,
            name,
            is_kept: AtomicBool::new(false),
            condemned: AtomicBool::new(false),
            cannot_clone: AtomicBool::new(false),
        }
    }

    /// Writes all of `bytes` at `offset`.
    pub fn write_all_at(&self, mut bytes: &[u8], mut offset: u64) -> Result<()> {
        while !bytes.is_empty() {
            match retry_on_intr(|| rustix::io::pwrite(&self.file, bytes, offset))
                .map_err(self.failed("write"))?
            {
                0 => return Err(self.failed("write")(Errno::NOSPC)),
                n => {
                    bytes = &bytes[n..];
                    offset += n as u64;
                }
            }
        }
        Ok(())
    }

    /// Like [`Staged::write_all_at`], but leaves whole blocks of zeros out, as holes: for parts of the file that nothing
    /// was written to yet. The length is not set by a hole at the end; see [`Staged::set_len`].
    pub fn write_sparse_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        let first = (HOLE_BYTES - (offset % HOLE_BYTES as u64) as usize) % HOLE_BYTES;
        let (head, blocks) = bytes.split_at(first.min(bytes.len()));
        // Data that has not been written yet, up to the block at hand.
        let (mut from, mut at) = (0, head.len());
        for block in blocks.chunks(HOLE_BYTES) {
            if block.len() == HOLE_BYTES && is_zero(block) {
                self.write_all_at(&bytes[from..at], offset + from as u64)?;
                from = at + block.len();
            }
            at += block.len();
        }
        self.write_all_at(&bytes[from..], offset + from as u64)
    }

    /// Like [`Staged::write_sparse_at`], for all that the file will have; sets its length, too.
    pub fn write_whole_sparse(&self, bytes: &[u8]) -> Result<()> {
        if !bytes.chunks_exact(HOLE_BYTES).any(is_zero) {
            return self.write_all_at(bytes, 0);
        }
        // The length first: file systems reserve blocks behind the end of a file that grows, which would fill its holes.
        self.set_len(bytes.len() as u64)?;
        self.write_sparse_at(bytes, 0)
    }

    /// Fills `buffer` from `offset` on; fewer bytes only at the end of the file. Answers how many.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        read_full_at(&self.file, buffer, offset).map_err(self.failed("read back"))
    }

    /// Cuts the file, or lengthens it by a hole.
    pub fn set_len(&self, length: u64) -> Result<()> {
        retry_on_intr(|| rustix::fs::ftruncate(&self.file, length)).map_err(self.failed("set the length of"))
    }

    /// Reserves the space of the first `length` bytes, without writing them. File systems that cannot do that are left to
    /// run full later.
    pub fn preallocate(&self, length: u64) -> Result<()> {
        let reserve = || rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, 0, length);
        match retry_on_intr(reserve) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            // Nothing to reserve.
            Err(Errno::INVAL) if length == 0 => Ok(()),
            outcome => outcome.map_err(self.failed("reserve space for")),
        }
    }

    /// The open file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// What the file is now.
    pub fn stat(&self) -> Result<Stat> {
        let stat = stat_handle(&self.file).map_err(self.failed("look at"))?;
        self.directory.show_open(Handle::Open(self.file.as_fd()), stat)
    }

    /// Whether attributes say what it is to be taken for.
    pub(super) fn fakes_super(&self) -> bool {
        self.directory.fakes_super()
    }

    /// Gives the file these attributes, in the order and with the care of [`Directory::set_attributes`].
    pub fn set_attributes(&self, a: &Attributes, carried: Carried) -> Result<Stat> {
        self.set_metadata(&Metadata::plain(a, carried))
            .map(|applied| applied.stat)
    }

    /// Like [`Staged::set_attributes`], with extended attributes.
    pub fn set_metadata(&self, wanted: &Metadata<'_>) -> Result<Applied> {
        let now = stat_handle(&self.file).map_err(self.failed("look at"))?;
        let handle = Handle::Open(self.file.as_fd());
        self.directory
            .give(handle, &now, FileType::Regular, wanted, || self.shown())
    }

    /// Flushes content and attributes to stable storage. After a failure the file can only be dropped.
    pub fn sync(&self) -> Result<()> {
        self.refuse_condemned("flush")?;
        retry_on_intr(|| calls::fsync(&self.file)).map_err(|errno| {
            self.condemned.store(true, Ordering::Relaxed);
            self.discard();
            self.failed("flush")(errno)
        })
    }

    /// Starts writing to the disk what is dirty of `length` bytes from `offset` on (0: to the end), so that a later flush
    /// waits less. A hint: failures show at the flush.
    pub fn start_writeout(&self, offset: u64, length: u64) {
        let _ = sync_file_range(&self.file, offset, length, libc::SYNC_FILE_RANGE_WRITE);
    }

    /// Puts the file at `name` in one step, where it replaces anything but a directory: that is an
    /// [`FsErrorKind::Exists`]. At no moment is neither the old nor the new there. Durable only if the file was
    /// flushed before and the directory is after ([`Staged::sync`], [`Directory::sync`]).
    pub fn publish(mut self, name: &Name) -> Result<Published> {
        self.refuse_condemned(PUBLISH)?;
        if self.name.is_none() {
            match link_handle(PUBLISH, self.file.as_fd(), &self.directory, name) {
                Ok(()) => {
                    return Ok(Published {
                        stat: self.stat()?,
                        replaced: false,
                    });
                }
                Err(error) if error.kind() == FsErrorKind::Exists => self.link_to(private_name())?,
                Err(error) => return Err(error),
            }
        }
        let aside = self.private()?;
        let before = self.directory.stat(name)?;
        if before.is_some_and(|stat| stat.file_type == FileType::Directory) {
            return Err(occupied(&self.directory, name));
        }
        let stat = self
            .directory
            .put_in_place(PUBLISH, &aside, name, self.file.as_fd())?;
        self.name = None;
        Ok(Published {
            stat,
            replaced: before.is_some(),
        })
    }

    /// Like [`Staged::publish`], but keeps what had the name, so that the caller can look at what was really replaced
    /// before it is gone. It may be of any type, also a directory, and has a [`displaced_name`] then.
    ///
    /// Fails with [`FsErrorKind::Unsupported`] where the file system cannot exchange names. After a crash either of the
    /// two can have the displaced name, which [`Directory::sweep`] leaves alone.
    pub fn publish_exchanging(mut self, name: &Name) -> Result<Displaced> {
        use super::directory::RenameMode::{Exchange, NoReplace};
        self.refuse_condemned(PUBLISH)?;
        if self.name.is_none() {
            match link_handle(PUBLISH, self.file.as_fd(), &self.directory, name) {
                Ok(()) => {
                    return Ok(Displaced {
                        stat: self.stat()?,
                        displaced: None,
                    });
                }
                Err(error) if error.kind() == FsErrorKind::Exists => {
                    self.link_to(displaced_name(name))?;
                }
                Err(error) => return Err(error),
            }
        }
        let mut aside = self.private()?;
        let directory = Arc::clone(&self.directory);
        if displaced_from(&aside).is_none() {
            let displaced = displaced_name(name);
            directory.rename(&aside, &directory, &displaced, NoReplace)?;
            self.name = Some(displaced.clone());
            // Under this name nobody would find it to go on with.
            self.discard();
            aside = displaced;
        }
        let displaced = match directory.rename(&aside, &directory, name, Exchange) {
            Ok(()) => {
                self.name = None;
                directory.stat(&aside)?.map(|stat| (aside, stat))
            }
            Err(error) if error.kind() == FsErrorKind::NotFound => {
                directory.rename(&aside, &directory, name, NoReplace)?;
                self.name = None;
                None
            }
            Err(error) => return Err(error),
        };
        let stat = self.stat()?;
        match stat_at(&directory, &directory.on_disk(name.as_bytes())) {
            Ok(there) if there.stamp.same_object(&stat.stamp) => Ok(Displaced { stat, displaced }),
            _ => Err(FsError::substituted(
                PUBLISH,
                directory.shown_name(name),
                "something else took its place",
            )),
        }
    }

    fn link_to(&mut self, aside: Name) -> Result<()> {
        link_handle(PUBLISH, self.file.as_fd(), &self.directory, &aside)?;
        self.name = Some(aside);
        Ok(())
    }

    /// The private name, after a look that it is still ours.
    fn private(&self) -> Result<Name> {
        let Some(name) = &self.name else {
            return Err(self.failed(PUBLISH)(Errno::NOENT));
        };
        let mine = self.stat()?.stamp;
        match self.directory.stat(name)? {
            Some(there) if there.stamp.same_object(&mine) => Ok(name.clone()),
            _ => Err(FsError::substituted(
                PUBLISH,
                self.shown(),
                "its private name was taken away",
            )),
        }
    }

    fn refuse_condemned(&self, operation: &'static str) -> Result<()> {
        if self.condemned.load(Ordering::Relaxed) {
            let error = self.failed(operation)(Errno::IO);
            return Err(error.explained(
                FsErrorKind::Other,
                "an earlier flush failed, so its content is unknown",
            ));
        }
        Ok(())
    }

    fn shown(&self) -> String {
        match &self.name {
            Some(name) => self.directory.shown_name(name),
            None => format!("a new file in {}", self.directory.shown()),
        }
    }

    pub(super) fn failed(&self, operation: &'static str) -> impl FnOnce(Errno) -> FsError + '_ {
        move |errno| FsError::new(operation, self.shown(), errno)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Some(name) = self
            .name
            .as_ref()
            .filter(|_| !self.is_kept.load(Ordering::Relaxed))
        {
            // What stays is noted.
            let _ = self.directory.remove_private(name);
        }
    }
}

const PUBLISH: &str = "publish";

/// What makes a hole: the smallest block of most file systems.
pub(super) const HOLE_BYTES: usize = 4_096;

fn occupied(directory: &Directory, name: &Name) -> FsError {
    FsError::new(PUBLISH, directory.shown_name(name), Errno::EXIST)
        .explained(FsErrorKind::Exists, FileType::Directory.unexpected())
}
