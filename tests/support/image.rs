//! File systems to test on: images on loop devices, mounted for as long as a test lasts, and tmpfs. Needs root.

use super::{is_root, skip};
use std::fs::File;
use std::os::fd::AsRawFd;
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
    /// The arguments of mount, but for where.
    how: Vec<String>,
}

impl Image {
    /// Makes and mounts one. `None`, with the reason printed, where that is not possible.
    pub fn new(kind: &str) -> Option<Image> {
        Image::with(kind, "", &[])
    }

    /// Like [`Image::new`], with mount options (`a,b`; for tmpfs they replace the usual size) and arguments of mkfs.
    pub fn with(kind: &str, options: &str, make: &[&str]) -> Option<Image> {
        if !is_root() {
            skip(&format!("mounting {kind} needs root"));
            return None;
        }
        let mut image = Image {
            directory: tempfile::tempdir().unwrap(),
            is_mounted: false,
            how: Vec::new(),
        };
        std::fs::create_dir(image.path()).unwrap();
        match image.make(kind, options, make) {
            Ok(()) => Some(image),
            Err(reason) => {
                skip(&format!("no {kind}: {reason}"));
                None
            }
        }
    }

    fn make(&mut self, kind: &str, options: &str, arguments: &[&str]) -> Result<(), String> {
        if kind == "tmpfs" {
            let options = if options.is_empty() { "size=256m" } else { options };
            self.how = ["-t", "tmpfs", "-o", options, "tmpfs"]
                .map(str::to_owned)
                .to_vec();
            return self.mount();
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
        run(make.args(quiet).args(arguments).arg(&file))?;
        let options = match options {
            "" => "loop".to_owned(),
            options => format!("loop,{options}"),
        };
        self.how = ["-t", kind, "-o", &options].map(str::to_owned).to_vec();
        self.how.push(file.display().to_string());
        self.mount()
    }

    fn mount(&mut self) -> Result<(), String> {
        run(Command::new("mount").args(&self.how).arg(self.path()))?;
        self.is_mounted = true;
        Ok(())
    }

    /// What a power cut leaves: from now on nothing reaches the image any more, neither data nor the journal in memory.
    /// Only ext4 and xfs can do that.
    pub fn cut_power(&self) {
        cut_power(&self.path());
    }

    /// Unmounts it and mounts it again, as after a boot: the journal is replayed.
    pub fn mount_again(&mut self) {
        self.unmount();
        assert!(!self.is_mounted, "{} is still in use", self.path().display());
        assert!(
            self.is_released(),
            "{} is mounted elsewhere",
            self.path().display()
        );
        self.mount().unwrap();
    }

    /// Whether nobody, as in another mount namespace, has the file system any more; waits some seconds for that, as one who
    /// is just starting has all mounts for a moment. Else mounting again would give the file system as it is in memory.
    pub fn is_released(&self) -> bool {
        let file = self.directory.path().canonicalize().unwrap().join("image");
        (0..UNMOUNT_TRIES).any(|attempt| {
            if attempt > 0 {
                std::thread::park_timeout(Duration::from_millis(100));
            }
            !backing_files().contains(&file)
        })
    }

    /// Changes mount options while it is in use.
    pub fn set_options(&self, options: &str) {
        let how = format!("remount,{options}");
        run(Command::new("mount").args(["-o", &how]).arg(self.path())).unwrap();
    }

    /// Unmounts it, with patience for who is just about to let go of it.
    pub fn unmount(&mut self) {
        for _ in 0..UNMOUNT_TRIES {
            if !self.is_mounted {
                return;
            }
            self.is_mounted = run(Command::new("umount").arg(self.path())).is_err();
            if self.is_mounted {
                std::thread::park_timeout(Duration::from_millis(100));
            }
        }
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

/// The files that loop devices show.
fn backing_files() -> Vec<PathBuf> {
    let shown = |device: std::fs::DirEntry| {
        let text = std::fs::read_to_string(device.path().join("loop/backing_file")).ok()?;
        Some(PathBuf::from(text.trim_end()))
    };
    let devices = std::fs::read_dir("/sys/block").into_iter().flatten();
    devices.filter_map(|device| shown(device.ok()?)).collect()
}

impl Drop for Image {
    fn drop(&mut self) {
        self.unmount();
        if self.is_mounted {
            eprintln!("{} is still in use", self.path().display());
            self.detach();
        }
    }
}

/// See [`Image::cut_power`].
pub fn cut_power(mounted: &Path) {
    /// `EXT4_IOC_SHUTDOWN` and `XFS_IOC_GOINGDOWN` are one number.
    const SHUTDOWN: libc::Ioctl = 0x8004_587d;
    /// Nothing is flushed before, not even the log.
    const NO_LOG_FLUSH: u32 = 2;
    let root = File::open(mounted).unwrap();
    let how = NO_LOG_FLUSH;
    // SAFETY: the number lives across the call.
    let outcome = unsafe { libc::ioctl(root.as_raw_fd(), SHUTDOWN, &raw const how) };
    assert_eq!(outcome, 0, "{}", std::io::Error::last_os_error());
}

/// A bind mount, unmounted when it is dropped.
pub struct Mounted(PathBuf);

impl Mounted {
    /// Unmounts it, which nobody may keep from happening for long: what is listed just now is let go of.
    pub fn unmount(self) {
        let unmount = || run(Command::new("umount").arg(&self.0));
        let tried = (1..UNMOUNT_TRIES).any(|_| {
            let done = unmount().is_ok();
            if !done {
                std::thread::park_timeout(Duration::from_millis(100));
            }
            done
        });
        if !tried {
            unmount().unwrap();
        }
        std::mem::forget(self);
    }
}

impl Mounted {
    /// Mounts what `how` says on a directory; needs root.
    pub fn new(how: &[&str], at: &Path) -> Result<Mounted, String> {
        run(Command::new("mount").args(how).arg(at))?;
        Ok(Mounted(at.to_owned()))
    }

    /// What is mounted already.
    #[allow(dead_code, reason = "each test file uses its part")]
    pub fn at(at: &Path) -> Mounted {
        Mounted(at.to_owned())
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
