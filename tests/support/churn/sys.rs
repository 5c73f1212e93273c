//! What the standard library has no call for.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{CWD, FallocateFlags, FileType, Mode, RenameFlags};

/// Two names change places.
pub fn exchange(left: &Path, right: &Path) {
    rustix::fs::renameat_with(CWD, left, CWD, right, RenameFlags::EXCHANGE).unwrap();
}

/// Makes a FIFO.
pub fn fifo(path: &Path) {
    rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::from(0o640), 0).unwrap();
}

/// Makes a hole; where the file system cannot, zeros, which read the same.
pub fn punch_hole(file: &File, offset: u64, length: u64) {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    if rustix::fs::fallocate(file, flags, offset, length).is_err() {
        let end = file.metadata().unwrap().len().min(offset + length);
        file.write_all_at(&vec![0; end.saturating_sub(offset) as usize], offset)
            .unwrap();
    }
}

/// Reserves blocks, and makes the file larger if it is shorter.
pub fn allocate(file: &File, offset: u64, length: u64) {
    if rustix::fs::fallocate(file, FallocateFlags::empty(), offset, length).is_err() {
        let size = file.metadata().unwrap().len();
        file.set_len(size.max(offset + length)).unwrap();
    }
}
