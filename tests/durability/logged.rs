//! A disk that notes what is written to it and when it is flushed: a file that this process serves by FUSE, for a loop device to
//! show. From the notes every state can be made that a loss of power may leave. Needs root.

use crate::support::image::Mounted;
use rustix::mount::{MountFlags, mount};
use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// What the kernel sent to the disk.
#[derive(Debug, Clone)]
pub enum Event {
    Write(u64, Vec<u8>),
    /// All writes before it are on the disk.
    Flush,
}

type Log = Arc<Mutex<Vec<Event>>>;

/// A file system with one file in it, the disk.
pub struct LoggedDisk {
    log: Log,
    directory: PathBuf,
    /// Unmounted when it is dropped, which ends the server.
    _mounted: Mounted,
}

/// Numbers of FUSE's messages (`linux/fuse.h`).
mod call {
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const STATFS: u32 = 17;
    pub const RELEASE: u32 = 18;
    pub const FSYNC: u32 = 20;
    pub const FLUSH: u32 = 25;
    pub const INIT: u32 = 26;
    pub const OPENDIR: u32 = 27;
    pub const RELEASEDIR: u32 = 29;
    pub const BATCH_FORGET: u32 = 42;
}

const HEADER: usize = 40;
const ROOT: u64 = 1;
const DISK: u64 = 2;
/// So much the kernel may write at once.
const WRITE_MAX: u32 = 1 << 20;

impl LoggedDisk {
    /// Serves `content` as the file `disk` in `directory`, which is made. The error says why that is not possible here.
    pub fn serve(content: File, directory: &Path) -> Result<LoggedDisk, String> {
        std::fs::create_dir(directory).unwrap();
        let fuse = OpenOptions::new().read(true).write(true).open("/dev/fuse");
        let fuse = fuse.map_err(|error| format!("/dev/fuse: {error}"))?;
        let how = format!("fd={},rootmode=40000,user_id=0,group_id=0", fuse.as_raw_fd());
        let how = CString::new(how).unwrap();
        mount(
            "disk",
            directory,
            "fuse",
            MountFlags::empty(),
            Some(how.as_c_str()),
        )
        .map_err(|error| format!("mounting FUSE: {error}"))?;
        let log = Log::default();
        let server = Server {
            fuse,
            size: content.metadata().unwrap().len(),
            content,
            log: Arc::clone(&log),
        };
        std::thread::spawn(move || server.run());
        Ok(LoggedDisk {
            log,
            directory: directory.to_owned(),
            _mounted: Mounted::at(directory),
        })
    }

    pub fn file(&self) -> PathBuf {
        self.directory.join("disk")
    }

    /// How much was noted so far.
    pub fn noted(&self) -> usize {
        self.log.lock().unwrap().len()
    }

    pub fn log(&self) -> Vec<Event> {
        self.log.lock().unwrap().clone()
    }
}

struct Server {
    fuse: File,
    content: File,
    size: u64,
    log: Log,
}

/// A little-endian number in a message.
fn number<const N: usize>(message: &[u8], at: usize) -> [u8; N] {
    message[at..at + N].try_into().unwrap()
}

impl Server {
    fn run(mut self) {
        let mut message = vec![0; HEADER + 4096 + WRITE_MAX as usize];
        // Fails when it was unmounted.
        while let Ok(length) = self.fuse.read(&mut message) {
            let message = &message[..length];
            let what = u32::from_le_bytes(number(message, 4));
            if matches!(what, call::FORGET | call::BATCH_FORGET) {
                continue;
            }
            let (error, body) = match self.answer(what, message) {
                Ok(body) => (0, body),
                Err(error) => (-error, Vec::new()),
            };
            let mut answer = ((16 + body.len()) as u32).to_le_bytes().to_vec();
            answer.extend(error.to_le_bytes());
            answer.extend(number::<8>(message, 8));
            answer.extend(body);
            let _ = self.fuse.write(&answer);
        }
    }

    fn answer(&self, what: u32, message: &[u8]) -> Result<Vec<u8>, i32> {
        let node = u64::from_le_bytes(number(message, 16));
        let body = &message[HEADER..];
        Ok(match what {
            call::INIT => {
                let (big_writes, many_pages) = (1u32 << 5, 1u32 << 22);
                let mut out = Vec::new();
                for word in [7, 31, 1 << 17, big_writes | many_pages] {
                    out.extend(u32::to_le_bytes(word));
                }
                out.extend([16, 0, 12, 0]);
                out.extend(WRITE_MAX.to_le_bytes());
                out.extend(1u32.to_le_bytes());
                out.extend(((WRITE_MAX / 4096) as u16).to_le_bytes());
                out.resize(64, 0);
                out
            }
            call::LOOKUP if body == b"disk\0" => {
                let mut out = [DISK.to_le_bytes(), [0; 8], [0; 8], [0; 8], [0; 8]].concat();
                out.extend(self.attributes(DISK));
                out
            }
            call::LOOKUP => return Err(libc::ENOENT),
            call::GETATTR | call::SETATTR => {
                let mut out = vec![0; 16];
                out.extend(self.attributes(node));
                out
            }
            call::OPEN | call::OPENDIR => vec![0; 16],
            call::STATFS => vec![0; 80],
            call::RELEASE | call::RELEASEDIR | call::FLUSH => Vec::new(),
            call::READ => {
                let offset = u64::from_le_bytes(number(body, 8));
                let length = u64::from(u32::from_le_bytes(number(body, 16)));
                let mut out = vec![0; length.min(self.size.saturating_sub(offset)) as usize];
                self.content
                    .read_exact_at(&mut out, offset)
                    .map_err(|_| libc::EIO)?;
                out
            }
            call::WRITE => {
                let offset = u64::from_le_bytes(number(body, 8));
                let length = u32::from_le_bytes(number(body, 16));
                let data = &body[40..40 + length as usize];
                self.content.write_all_at(data, offset).map_err(|_| libc::EIO)?;
                self.log.lock().unwrap().push(Event::Write(offset, data.to_vec()));
                [length.to_le_bytes(), [0; 4]].concat()
            }
            call::FSYNC => {
                self.log.lock().unwrap().push(Event::Flush);
                Vec::new()
            }
            _ => return Err(libc::ENOSYS),
        })
    }

    fn attributes(&self, node: u64) -> Vec<u8> {
        let (mode, size) = match node {
            ROOT => (0o40_700, 0),
            _ => (0o100_600, self.size),
        };
        let mut out = Vec::new();
        // The number, the size, blocks, and three times.
        for long in [node, size, size / 512, 0, 0, 0] {
            out.extend(u64::to_le_bytes(long));
        }
        // Parts of the times; mode, names, owners, device, block size, flags.
        for word in [0, 0, 0, mode, 1, 0, 0, 0, 4096, 0] {
            out.extend(u32::to_le_bytes(word));
        }
        out
    }
}
