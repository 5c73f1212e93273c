//! Tests of this layer on a real file system: that of `TMPDIR`.

mod attributes;
mod confinement;
mod copy;
mod guessed;
mod inplace;
mod lock;
mod names;
mod publish;
mod remove;
mod shelf;

use super::*;
use driftless_protocol::XattrClasses;
use driftless_protocol::entry::{Attributes, Carried, Timestamp};
use driftless_protocol::name::Name;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

/// A fresh directory on disk and a handle to it.
struct Place {
    temp: TempDir,
    dir: Arc<Directory>,
}

impl Place {
    fn new() -> Place {
        let temp = tempfile::tempdir().unwrap();
        let dir = Arc::new(Directory::open_root(temp.path()).unwrap());
        Place { temp, dir }
    }

    fn path(&self) -> &Path {
        self.temp.path()
    }

    fn write(&self, at: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path().join(at), content).unwrap();
    }

    fn read(&self, at: &str) -> Vec<u8> {
        std::fs::read(self.path().join(at)).unwrap()
    }

    fn mkdir(&self, at: &str) {
        std::fs::create_dir_all(self.path().join(at)).unwrap();
    }

    fn symlink(&self, target: impl AsRef<Path>, at: &str) {
        std::os::unix::fs::symlink(target, self.path().join(at)).unwrap();
    }

    fn fifo(&self, at: &str) {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        mknodat(CWD, self.path().join(at), FileType::Fifo, Mode::RWXU, 0).unwrap();
    }

    fn staged(&self, content: &[u8]) -> Staged {
        let staged = Staged::create(Arc::clone(&self.dir)).unwrap();
        staged.write_all_at(content, 0).unwrap();
        staged
    }

    /// All names, also reserved ones.
    fn names(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.path()).unwrap();
        let mut names: Vec<_> = names
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn name(bytes: impl AsRef<[u8]>) -> Name {
    Name::new(bytes.as_ref()).unwrap()
}

fn time(seconds: i64, nanoseconds: u32) -> Timestamp {
    Timestamp::new(seconds, nanoseconds).unwrap()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The attributes of something that we own.
fn ours(mode: u16, mtime: Timestamp) -> Attributes {
    let (uid, gid) = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    Attributes {
        mode,
        uid,
        gid,
        mtime,
        ..Attributes::default()
    }
}

const OWNER: Carried = Carried {
    owner: true,
    xattrs: XattrClasses::NONE,
    devices: false,
    leaves_root: false,
};
const NO_OWNER: Carried = Carried {
    owner: false,
    xattrs: XattrClasses::NONE,
    devices: false,
    leaves_root: false,
};
