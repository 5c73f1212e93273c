//! Where a file has holes: what is in them is known without reading them, which would fill the page cache with zeros.

use super::read::StableRead;
use rustix::fs::SeekFrom;
use rustix::io::Errno;
use std::fs::File;
use std::os::unix::fs::MetadataExt;

/// File systems that count what is only in memory as data: ext4, xfs, btrfs, f2fs, tmpfs. (ZFS has told of holes where
/// there was data that it had not written yet.)
const TRUSTED: [u64; 5] = [0xef53, 0x5846_5342, 0x9123_683e, 0xf2f5_2010, 0x0102_1994];

/// The holes of an open file, asked for from its beginning to its end. What is written into one meanwhile moves the file's
/// times, like any other write.
#[derive(Debug)]
pub struct Holes<'a> {
    /// None where nothing is known: everything is read.
    file: Option<&'a File>,
    /// The last stretch that was found, and whether it is a hole.
    start: u64,
    end: u64,
    is_hole: bool,
}

impl StableRead {
    /// Where it has holes.
    pub fn holes(&self) -> Holes<'_> {
        let file = self.file();
        // Allocated blocks are counted in 512 bytes, whatever the file system's own are.
        let is_sparse = file
            .metadata()
            .is_ok_and(|metadata| metadata.blocks().saturating_mul(512) < metadata.size());
        let is_trusted = || {
            rustix::fs::fstatfs(file)
                .is_ok_and(|found| TRUSTED.contains(&(found.f_type as u64 & 0xffff_ffff)))
        };
        Holes {
            file: (is_sparse && is_trusted()).then_some(file),
            start: 0,
            end: 0,
            is_hole: false,
        }
    }
}

impl Holes<'_> {
    /// Whether all of `length` bytes at `at` are in a hole.
    pub fn covers(&mut self, at: u64, length: u64) -> bool {
        let Some(file) = self.file else { return false };
        if !(self.start..self.end).contains(&at) {
            match stretch(file, at) {
                Some((end, is_hole)) => (self.start, self.end, self.is_hole) = (at, end, is_hole),
                None => self.file = None,
            }
        }
        self.file.is_some() && self.is_hole && at.saturating_add(length) <= self.end
    }
}

/// To where a file goes on as it is at `at`, and whether that is a hole.
fn stretch(file: &File, at: u64) -> Option<(u64, bool)> {
    match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Ok(data) if data > at => Some((data, true)),
        Ok(_) => Some((
            rustix::fs::seek(file, SeekFrom::Hole(at))
                .ok()
                .filter(|&hole| hole > at)?,
            false,
        )),
        // No data behind it.
        Err(Errno::NXIO) => Some((u64::MAX, true)),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use crate::fs::{Directory, StableRead};
    use driftless_protocol::Name;
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    #[test]
    fn holes_are_told_from_data() {
        const MIB: u64 = 1 << 20;
        let directory = tempfile::tempdir().unwrap();
        let file = File::create(directory.path().join("file")).unwrap();
        file.set_len(10 * MIB).unwrap();
        file.write_all_at(&[1; 5000], 4 * MIB).unwrap();
        let root = Directory::open_root(directory.path()).unwrap();
        let read = StableRead::open(&root, &Name::new(*b"file").unwrap()).unwrap();
        let mut holes = read.holes();
        if !holes.covers(0, 1) {
            eprintln!("skipped: this file system makes or tells no holes");
            return;
        }
        let found: Vec<bool> = (0..10).map(|at| holes.covers(at * MIB, MIB)).collect();
        let mut wanted = vec![true; 10];
        wanted[4] = false;
        assert_eq!(found, wanted);
        assert!(holes.covers(0, 4 * MIB) && !holes.covers(0, 4 * MIB + 1));
        assert!(!holes.covers(4 * MIB + 10, 10));
        // Not flushed, and data all the same.
        file.write_all_at(&[1], 8 * MIB).unwrap();
        assert!(!read.holes().covers(8 * MIB, 10));
        file.write_all_at(&vec![1; 10 * MIB as usize], 0).unwrap();
        assert!(!read.holes().covers(0, 1));
    }
}
