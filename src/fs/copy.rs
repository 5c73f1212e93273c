//! Copying from a basis into a staged file: by reference where the file system can, holes kept as holes.

use super::device::size;
use super::error::{FsErrorKind, Result};
use super::read::read_full_at;
use super::stage::Staged;
use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::{Errno, retry_on_intr};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;

const COPY: &str = "copy to";

/// Smallest unit that any file system shares between files.
const SHARE_BYTES: u64 = 4_096;

/// Copied at once where bytes must pass through memory.
const COPY_BYTES: u64 = 256 << 10;

impl Staged {
    /// Copies `length` bytes at `from` in `basis` to `to` in this file. A basis that ends before is a
    /// [`FsErrorKind::ShortBasis`]; some of it may have been copied then.
    pub fn copy_from(&self, basis: &File, from: u64, to: u64, length: u64) -> Result<()> {
        let (Some(end), Some(_)) = (from.checked_add(length), to.checked_add(length)) else {
            return Err(self.failed(COPY)(Errno::OVERFLOW));
        };
        let stat = retry_on_intr(|| rustix::fs::fstat(basis)).map_err(self.failed(COPY))?;
        let is_device =
            rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::BlockDevice;
        let size = match is_device {
            true => size(basis).map_err(self.failed(COPY))?,
            false => u64::try_from(stat.st_size).unwrap_or(0),
        };
        if end > size {
            return Err(self.short());
        }
        if length == 0 || self.share(basis, from, to, length, size)? {
            return Ok(());
        }
        // Allocated blocks are counted in 512 bytes, whatever the file system's own are.
        if is_device || u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512) >= size {
            return self.copy_data(basis, from, to, length);
        }
        self.copy_sparse(basis, from, to, length)
    }

    /// Tries to make both files share the blocks; `false` when the bytes must be copied.
    fn share(&self, basis: &File, from: u64, to: u64, length: u64, size: u64) -> Result<bool> {
        let aligned = from.is_multiple_of(SHARE_BYTES)
            && to.is_multiple_of(SHARE_BYTES)
            && (length.is_multiple_of(SHARE_BYTES) || from + length == size);
        if !aligned || self.cannot_clone.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let range = libc::file_clone_range {
            src_fd: basis.as_raw_fd().into(),
            src_offset: from,
            src_length: length,
            dest_offset: to,
        };
        // SAFETY: the kernel only reads the structure, which is what this request takes; both handles live through it.
        let answer = unsafe { libc::ioctl(self.file.as_raw_fd(), libc::FICLONERANGE, &range) };
        if answer == 0 {
            return Ok(true);
        }
        match super::directory::errno_of(&std::io::Error::last_os_error()) {
            errno @ (Errno::NOSPC | Errno::DQUOT) => Err(self.failed(COPY)(errno)),
            // The ends may just not fit this file system's blocks.
            Errno::INVAL | Errno::INTR | Errno::AGAIN => Ok(false),
            _ => {
                self.cannot_clone.store(true, Ordering::Relaxed);
                Ok(false)
            }
        }
    }

    /// Copies what is data and leaves or makes holes where the basis has holes.
    fn copy_sparse(&self, basis: &File, from: u64, to: u64, length: u64) -> Result<()> {
        let end = from + length;
        let mut at = from;
        while at < end {
            let data = match rustix::fs::seek(basis, SeekFrom::Data(at)) {
                Ok(data) => data.min(end),
                // Only a hole is left (or the basis was cut meanwhile: the digest of the result will tell).
                Err(Errno::NXIO) => end,
                Err(_) => return self.copy_data(basis, at, to + (at - from), end - at),
            };
            if data > at {
                self.make_hole(to + (at - from), data - at)?;
            }
            if data < end {
                let hole = match rustix::fs::seek(basis, SeekFrom::Hole(data)) {
                    Ok(hole) if hole > data => hole.min(end),
                    _ => end,
                };
                self.copy_data(basis, data, to + (data - from), hole - data)?;
                at = hole;
            } else {
                at = end;
            }
        }
        Ok(())
    }

    /// Makes `length` bytes at `to` read as zeros, without taking up space where the file system can.
    pub fn make_hole(&self, to: u64, length: u64) -> Result<()> {
        let size = self.stat()?.size;
        if size < to + length && length > 0 {
            // To set the length would cut what another thread writes behind it meanwhile.
            self.write_all_at(&[0], to + length - 1)?;
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match retry_on_intr(|| rustix::fs::fallocate(&self.file, flags, to, length)) {
            Err(_) if size <= to => Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => self.write_zeros(to, length),
            other => other.map_err(self.failed(COPY)),
        }
    }

    fn write_zeros(&self, to: u64, length: u64) -> Result<()> {
        let zeros = vec![0; buffer_len(length)];
        let mut done = 0;
        while done < length {
            let part = &zeros[..buffer_len(length - done)];
            self.write_all_at(part, to + done)?;
            done += part.len() as u64;
        }
        Ok(())
    }

    fn copy_data(&self, basis: &File, from: u64, to: u64, length: u64) -> Result<()> {
        let (mut source, mut sink) = (from, to);
        let end = from + length;
        while source < end {
            let wanted = usize::try_from(end - source).unwrap_or(usize::MAX).min(1 << 30);
            match rustix::fs::copy_file_range(basis, Some(&mut source), &self.file, Some(&mut sink), wanted) {
                // Some file systems answer 0 for what they cannot copy; reading tells whether the file ended.
                Ok(0) => break,
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno @ (Errno::NOSPC | Errno::DQUOT | Errno::IO | Errno::FBIG)) => {
                    return Err(self.failed(COPY)(errno));
                }
                Err(_) => break,
            }
        }
        self.copy_through_memory(basis, source, sink, end - source)
    }

    pub(super) fn copy_through_memory(&self, basis: &File, from: u64, to: u64, length: u64) -> Result<()> {
        let mut buffer = vec![0; buffer_len(length)];
        let mut done = 0;
        while done < length {
            let part = &mut buffer[..buffer_len(length - done)];
            if read_full_at(basis, part, from + done).map_err(self.failed("read the basis of"))? < part.len()
            {
                return Err(self.short());
            }
            self.write_all_at(part, to + done)?;
            done += part.len() as u64;
        }
        Ok(())
    }

    fn short(&self) -> super::error::FsError {
        self.failed(COPY)(Errno::NODATA)
            .explained(FsErrorKind::ShortBasis, "the basis is shorter than expected")
    }
}

fn buffer_len(left: u64) -> usize {
    // At most COPY_BYTES, so it fits.
    left.min(COPY_BYTES) as usize
}
