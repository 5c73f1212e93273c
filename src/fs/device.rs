//! Block devices that are taken for files: their content is what counts.

use super::directory::Directory;
use super::error::Result;
use super::meta::{Handle, proc_path};
use super::stat::{FileType, Stat};
use super::view::View;
use driftless_protocol::Name;
use driftless_protocol::entry::Special;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, SeekFrom};
use rustix::io::{Errno, retry_on_intr};
use std::os::fd::{AsFd, OwnedFd};

/// Opening for a look must not wait, nor become the terminal of this process.
const LOOK: OFlags = OFlags::RDONLY
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

/// Whether a view takes something for a file that is a block device.
pub(super) fn is_taken_for_file(view: Option<&View>, stat: &Stat) -> bool {
    view.is_some_and(|view| view.devices_are_files)
        && matches!(stat.file_type, FileType::Special(Special::BlockDevice { .. }))
}

/// What a block device is taken for, by a handle of it.
pub(super) fn as_file(handle: Handle<'_>, stat: Stat) -> Result<Stat, Errno> {
    let bytes = match handle {
        Handle::Open(fd) => size(fd)?,
        Handle::Path(fd) => {
            let opened: OwnedFd =
                retry_on_intr(|| rustix::fs::openat(CWD, proc_path(fd), LOOK, Mode::empty()))?;
            size(&opened)?
        }
    };
    Ok(Stat {
        file_type: FileType::Regular,
        size: bytes,
        is_device: true,
        ..stat
    })
}

/// Bytes of an open block device.
pub(super) fn size(device: impl AsFd) -> Result<u64, Errno> {
    rustix::fs::seek(device, SeekFrom::End(0))
}

impl Directory {
    /// What a block device of this name is taken for.
    pub(super) fn device_as_file(&self, name: &Name, stat: Stat) -> Result<Stat> {
        const OPERATION: &str = "look at the device";
        let flags = LOOK | OFlags::NOFOLLOW;
        let fd = self.open_beneath(
            OPERATION,
            name.as_bytes(),
            flags,
            Mode::empty(),
            ResolveFlags::empty(),
        )?;
        as_file(Handle::Open(fd.as_fd()), stat).map_err(self.failed_at(OPERATION, name))
    }

    /// Whether block devices are taken for files below this directory.
    pub fn takes_devices_for_files(&self) -> bool {
        self.view.as_ref().is_some_and(|view| view.devices_are_files)
    }
}
