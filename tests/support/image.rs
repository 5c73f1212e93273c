//! File systems to test on: images on loop devices, mounted for as long as a test lasts, and tmpfs. Needs root.

use super::{is_root, skip};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// What is tried; all have file handles, so fanotify watches them.
pub const FILE_SYSTEMS: [&str; 4] = ["ext4", "xfs", "btrfs", "tmpfs"];

/// Enough for the smallest that each will make; as the file is sparse, little of it is used.
const IMAGE_BYTES: u64 = 512 << 20;

/// How often unmounting is tried: another thread's child process may hold a descriptor for the moment before it starts.
const UNMOUNT_TRIES: u32 = 50;

/// A file system of its own, empty; unmounted when it is dropped. Drop what is open on it first.
pub struct Image {
    directory: TempDir,
    is_mounted: bool,
}

impl Image {
    /// Makes and mounts one. `None`, with the reason printed, where that is not possible.
    pub fn new(kind: &str) -> Option<Image> {
        if !is_root() {
            skip(&format!("mounting {kind} needs root"));
            return None;
        }
        let mut image = Image {
            directory: tempfile::tempdir().unwrap(),
            is_mounted: false,
        };
        std::fs::create_dir(image.path()).unwrap();
        match image.make(kind) {
            Ok(()) => Some(image),
            Err(reason) => {
                skip(&format!("no {kind}: {reason}"));
                None
            }
        }
    }

    fn make(&mut self, kind: &str) -> Result<(), String> {
        if kind == "tmpfs" {
            return self.mount(&["-t", "tmpfs", "-o", "size=256m", "tmpfs"]);
        }
        let file = self.directory.path().join("image");
        File::create(&file)
            .and_then(|image| image.set_len(IMAGE_BYTES))
            .map_err(|error| error.to_string())?;
        let quiet: &[&str] = match kind {
            "ext4" => &["-q", "-F", "-E", "lazy_itable_init=1"],
            _ => &["-q", "-f"],
        };
        let mut make = Command::new(format!("mkfs.{kind}"));
        run(make.args(quiet).arg(&file))?;
        let file = file.display().to_string();
        self.mount(&["-t", kind, "-o", "loop", &file])
    }

    fn mount(&mut self, how: &[&str]) -> Result<(), String> {
        run(Command::new("mount").args(how).arg(self.path()))?;
        self.is_mounted = true;
        Ok(())
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("mounted")
    }

    /// A directory on it, which goes when it is dropped.
    pub fn directory(&self) -> TempDir {
        tempfile::tempdir_in(self.path()).unwrap()
    }

    /// Unmounts it at once, even if it is in use.
    pub fn detach(&mut self) {
        if std::mem::take(&mut self.is_mounted) {
            run(Command::new("umount").arg("-l").arg(self.path())).unwrap();
        }
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        for _ in 0..UNMOUNT_TRIES {
            if !self.is_mounted {
                return;
            }
            self.is_mounted = run(Command::new("umount").arg(self.path())).is_err();
            if self.is_mounted {
                std::thread::park_timeout(Duration::from_millis(100));
            }
        }
        eprintln!("{} is still in use", self.path().display());
        self.detach();
    }
}

/// A bind mount, unmounted when it is dropped.
pub struct Mounted(PathBuf);

impl Mounted {
    /// Unmounts it, which nobody may keep from happening.
    pub fn unmount(self) {
        run(Command::new("umount").arg(&self.0)).unwrap();
        std::mem::forget(self);
    }
}

impl Mounted {
    /// Mounts what `how` says on a directory; needs root.
    pub fn new(how: &[&str], at: &Path) -> Result<Mounted, String> {
        run(Command::new("mount").args(how).arg(at))?;
        Ok(Mounted(at.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = run(Command::new("umount").arg("-l").arg(&self.0)) {
            eprintln!("{error}");
        }
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    ))
}
