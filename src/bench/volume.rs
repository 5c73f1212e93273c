//! The file system that the copies are on, when it is to be another than that of the workspace: made for the bench, and
//! mounted where only the bench and what it starts can see it.

use super::BenchError;
use super::cleanup::Workspace;
use super::plan::TargetFs;
use super::runner::find_program;
use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The least that every maker of file systems is content with.
const IMAGE_BYTES_MIN: u64 = 512 << 20;

/// Gives this process a mount namespace of its own, so that what it mounts is gone with it, even after SIGKILL, and never
/// shows anywhere else. Threads that exist already stay behind: to be called before any is started.
///
/// # Errors
/// Without the privilege to mount.
pub fn isolate() -> Result<(), BenchError> {
    let failed = |error: rustix::io::Errno| {
        BenchError::new(format!(
            "cannot have mounts of its own: {error} (--target-fs needs root; --target-fs dir needs nothing)"
        ))
    };
    // SAFETY: only the mount namespace is unshared; the descriptor table, which the condition is about, is not.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.map_err(failed)?;
    // Otherwise what is mounted here would appear outside, where `/` is shared.
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(failed)
}

/// The directory for the copies, with room for `bytes`.
///
/// # Errors
/// When the file system cannot be made or mounted.
pub fn prepare(workspace: &Workspace, fs: TargetFs, bytes: u64) -> Result<PathBuf, BenchError> {
    let copies = workspace.directory("copies")?;
    match fs {
        TargetFs::Dir => {}
        TargetFs::Tmpfs => {
            let options = std::ffi::CString::new(format!("size={bytes},mode=0700")).unwrap_or_default();
            rustix::mount::mount("tmpfs", &copies, "tmpfs", MountFlags::empty(), options.as_c_str())
                .map_err(|error| BenchError::io("mount a tmpfs at", &copies, &error))?;
            workspace.mounted(&copies);
        }
        TargetFs::Ext4 | TargetFs::Xfs | TargetFs::Btrfs => {
            let image = workspace.path().join("copies.img");
            make_image(fs, &image, bytes.max(IMAGE_BYTES_MIN))?;
            // mount(8) finds a free loop device and lets the kernel take it down again with the mount.
            run(Command::new("mount")
                .args(["-t", fs.name(), "-o", "loop"])
                .arg(&image)
                .arg(&copies))?;
            workspace.mounted(&copies);
        }
    }
    Ok(copies)
}

/// An empty file system in a file that takes room only as it fills.
fn make_image(fs: TargetFs, image: &Path, bytes: u64) -> Result<(), BenchError> {
    File::create_new(image)
        .and_then(|file| file.set_len(bytes))
        .map_err(|error| BenchError::io("make", image, &error))?;
    let (name, package) = match fs {
        TargetFs::Xfs => ("mkfs.xfs", "xfsprogs"),
        TargetFs::Btrfs => ("mkfs.btrfs", "btrfs-progs"),
        _ => ("mkfs.ext4", "e2fsprogs"),
    };
    let program = find_program(name)
        .ok_or_else(|| BenchError::new(format!("{name} is not installed (package {package})")))?;
    let mut command = Command::new(program);
    match fs {
        // One inode for 4 KiB; and nothing left to do in the background, which would be measured.
        TargetFs::Ext4 => command.args([
            "-q",
            "-F",
            "-i",
            "4096",
            "-E",
            "lazy_itable_init=0,lazy_journal_init=0",
        ]),
        _ => command.args(["-q", "-f"]),
    };
    run(command.arg(image))
}

fn run(command: &mut Command) -> Result<(), BenchError> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .map_err(|error| BenchError::new(format!("cannot start {name}: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(BenchError::new(format!("{name} failed: {}", said.trim())))
}
