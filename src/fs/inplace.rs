//! Writing into a file that has a name already: not atomic, and only where somebody asked for it.

use super::calls;
use super::device::{is_taken_for_file, size};
use super::directory::Directory;
use super::error::{FsError, FsErrorKind, Result};
use super::meta::{self, Applied, Handle, Metadata};
use super::read::read_full_at;
use super::stage::{HOLE_BYTES, Staged};
use super::stat::{FileType, stat_handle};
use super::view::View;
use crate::engine::zeros::is_zero;
use driftless_protocol::name::Name;
use rustix::fs::{FallocateFlags, Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, retry_on_intr};
use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;

/// Compared at once.
const COMPARED_BYTES: usize = 256 << 10;

/// A regular file, or a block device that is taken for one, that is to be written in place.
#[derive(Debug)]
pub struct InPlace {
    file: File,
    shown: String,
    view: Option<Arc<View>>,
    /// How large it is, if it is a block device.
    device_bytes: Option<u64>,
}

impl Directory {
    /// Opens a regular file, or a block device that is taken for one, to be written in place. Nothing of it is changed yet.
    pub fn open_in_place(&self, name: &Name) -> Result<InPlace> {
        const OPERATION: &str = "write in place";
        let found = self.stat(name)?;
        let is_device = found.is_some_and(|stat| stat.is_device);
        // Neither a FIFO nor another device is opened: `NONBLOCK` does not wait, and the look below refuses it.
        let mut flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        if is_device {
            // Not one that is mounted, or part of something else.
            flags |= OFlags::EXCL;
        }
        let fd = self.open_beneath(
            OPERATION,
            name.as_bytes(),
            flags,
            Mode::empty(),
            ResolveFlags::empty(),
        )?;
        let stat = stat_handle(&fd).map_err(self.failed_at(OPERATION, name))?;
        let device_bytes = match is_device && is_taken_for_file(self.view.as_deref(), &stat) {
            true => Some(size(&fd).map_err(self.failed_at(OPERATION, name))?),
            false => None,
        };
        if stat.file_type != FileType::Regular && device_bytes.is_none() {
            let text = stat.file_type.unexpected();
            return Err(FsError::substituted(OPERATION, self.shown_name(name), text));
        }
        Ok(InPlace {
            file: File::from(fd),
            shown: self.shown_name(name),
            view: self.view.clone(),
            device_bytes,
        })
    }
}

impl InPlace {
    /// Takes from others what they may do with the file now, but not with what it is about to become.
    pub fn narrow(&self, wanted: &Metadata<'_>) -> Result<()> {
        let now = stat_handle(&self.file).map_err(self.failed())?.attributes;
        let owner = wanted.owner;
        let same_owner = !wanted.carried.owner || (now.uid, now.gid) == (owner.uid, owner.gid);
        let mode = match same_owner {
            true => now.mode & wanted.attributes.mode & 0o777,
            false => 0o600,
        };
        retry_on_intr(|| rustix::fs::fchmod(&self.file, Mode::from_raw_mode(mode.into())))
            .map_err(self.failed())
    }

    /// Gives the file attributes, in the order and with the care of [`Directory::set_attributes`].
    pub fn set_metadata(&self, wanted: &Metadata<'_>) -> Result<Applied> {
        let now = stat_handle(&self.file).map_err(self.failed())?;
        let shown = || self.shown.clone();
        let handle = Handle::Open(self.file.as_fd());
        meta::give(
            self.view.as_deref(),
            handle,
            &now,
            FileType::Regular,
            wanted,
            shown,
        )
    }

    /// Flushes content and attributes to stable storage.
    pub fn sync(&self) -> Result<()> {
        retry_on_intr(|| calls::fsync(&self.file)).map_err(self.failed())
    }

    /// Gives the file the content of a staged one: only blocks that differ are written, blocks of zeros become holes where
    /// that is possible. Answers how many bytes were written. After an error or a crash the file can have parts of both
    /// contents.
    pub fn take_content(&self, from: &Staged) -> Result<u64> {
        let length = from.stat()?.size;
        let (mut new, mut old) = (vec![0; COMPARED_BYTES], vec![0; COMPARED_BYTES]);
        let (mut at, mut written) = (0, 0);
        match self.device_bytes {
            None => retry_on_intr(|| rustix::fs::ftruncate(&self.file, length)).map_err(self.failed())?,
            Some(bytes) if bytes == length => {}
            Some(_) => {
                let text = "the device has another size than what is to be written to it";
                return Err(self.failed()(Errno::FBIG).explained(FsErrorKind::Unsupported, text));
            }
        }
        while at < length {
            let want = (length - at).min(COMPARED_BYTES as u64) as usize;
            let count = from.read_at(&mut new[..want], at)?;
            let known = read_full_at(&self.file, &mut old[..want], at).map_err(self.failed())?;
            if count < want || known < want {
                return Err(self.failed()(Errno::IO));
            }
            let blocks = new[..want].chunks(HOLE_BYTES).zip(old[..want].chunks(HOLE_BYTES));
            for (number, (new, old)) in blocks.enumerate() {
                if new != old {
                    self.write_block(new, at + (number * HOLE_BYTES) as u64)?;
                    written += new.len() as u64;
                }
            }
            at += want as u64;
        }
        Ok(written)
    }

    fn write_block(&self, mut bytes: &[u8], mut at: u64) -> Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if bytes.len() == HOLE_BYTES
            && self.device_bytes.is_none()
            && is_zero(bytes)
            && rustix::fs::fallocate(&self.file, flags, at, bytes.len() as u64).is_ok()
        {
            return Ok(());
        }
        while !bytes.is_empty() {
            match retry_on_intr(|| rustix::io::pwrite(&self.file, bytes, at)).map_err(self.failed())? {
                0 => return Err(self.failed()(Errno::NOSPC)),
                n => {
                    bytes = &bytes[n..];
                    at += n as u64;
                }
            }
        }
        Ok(())
    }

    fn failed(&self) -> impl FnOnce(Errno) -> FsError + '_ {
        |errno| FsError::new("write in place", self.shown.as_str(), errno)
    }
}
