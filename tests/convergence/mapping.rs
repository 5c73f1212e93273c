//! A file mapped into memory, shared and writable.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

pub struct Mapping {
    file: File,
    address: *mut libc::c_void,
    length: usize,
}

impl Mapping {
    pub fn open(path: &Path) -> Mapping {
        let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
        let length = file.metadata().unwrap().len() as usize;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address that the kernel chooses; the handle is open.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                access,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        assert_ne!(address, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        Mapping {
            file,
            address,
            length,
        }
    }

    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the mapping is that long and lives as long as self; nobody makes the file shorter, and this process
        // has no other reference into it.
        unsafe { std::slice::from_raw_parts_mut(self.address.cast(), self.length) }
    }

    /// Has what was stored written to the disk.
    pub fn write_out(&self) {
        self.file.sync_all().unwrap();
    }

    /// Whether a store moves the times of a file here (on tmpfs it does not).
    pub fn moves_times(probe: &Path) -> bool {
        std::fs::write(probe, b"probe").unwrap();
        let file = File::options().write(true).open(probe).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        let mut mapping = Mapping::open(probe);
        mapping.bytes()[0] = b'P';
        drop(mapping);
        let moved = file.metadata().unwrap().mtime() != 0;
        std::fs::remove_file(probe).unwrap();
        moved
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this is the mapping that was made, and no reference into it outlives self.
        unsafe { libc::munmap(self.address, self.length) };
    }
}
