//! The calls that change names, or bring something to stable storage: all of them go through here, so that tests can see each
//! of them coming, end a process before it, and know what a loss of power would leave.

#[cfg(test)]
pub(crate) use simulated::{Call, Disk, with_disk};

use rustix::fs::{AtFlags, Dev, FileType, Mode, RenameFlags};
use rustix::io::Result;
use std::os::fd::AsFd;

/// Makes a directory.
pub(super) fn mkdirat(directory: impl AsFd, name: &[u8], mode: Mode) -> Result<()> {
    named(|| rustix::fs::mkdirat(directory, name, mode))
}

/// Makes a pipe or a device.
pub(super) fn mknodat(
    directory: impl AsFd,
    name: &[u8],
    file_type: FileType,
    mode: Mode,
    device: Dev,
) -> Result<()> {
    named(|| rustix::fs::mknodat(directory, name, file_type, mode, device))
}

/// Makes a symbolic link.
pub(super) fn symlinkat(target: &[u8], directory: impl AsFd, name: &[u8]) -> Result<()> {
    named(|| rustix::fs::symlinkat(target, directory, name))
}

/// Gives an object one more name.
pub(super) fn linkat(from: impl AsFd, old: &[u8], to: impl AsFd, new: &[u8], flags: AtFlags) -> Result<()> {
    named(|| rustix::fs::linkat(from, old, to, new, flags))
}

/// Renames, over what is there.
pub(super) fn renameat(from: impl AsFd, old: &[u8], to: impl AsFd, new: &[u8]) -> Result<()> {
    named(|| rustix::fs::renameat(from, old, to, new))
}

/// Renames as the flags say.
pub(super) fn renameat_with(
    from: impl AsFd,
    old: &[u8],
    to: impl AsFd,
    new: &[u8],
    flags: RenameFlags,
) -> Result<()> {
    named(|| rustix::fs::renameat_with(from, old, to, new, flags))
}

/// Removes a name.
pub(super) fn unlinkat(directory: impl AsFd, name: &[u8], flags: AtFlags) -> Result<()> {
    named(|| rustix::fs::unlinkat(directory, name, flags))
}

/// Brings a file or a directory to stable storage.
pub(super) fn fsync(file: impl AsFd) -> Result<()> {
    #[cfg(test)]
    simulated::begin(Call::Flush)?;
    rustix::fs::fsync(&file)?;
    #[cfg(test)]
    simulated::flushed(file.as_fd());
    Ok(())
}

/// Brings everything on a file system to stable storage.
pub(super) fn syncfs(file: impl AsFd) -> Result<()> {
    #[cfg(test)]
    simulated::begin(Call::FlushAll)?;
    rustix::fs::syncfs(&file)?;
    #[cfg(test)]
    simulated::all_flushed();
    Ok(())
}

fn named(call: impl FnOnce() -> Result<()>) -> Result<()> {
    #[cfg(test)]
    simulated::begin(Call::Name)?;
    call()?;
    #[cfg(test)]
    simulated::renamed();
    Ok(())
}

/// What a thread's calls are told to, in a simulation.
#[cfg(test)]
mod simulated {
    use rustix::io::{Errno, Result};
    use std::cell::RefCell;
    use std::os::fd::BorrowedFd;
    use std::rc::Rc;

    /// What a call does.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Call {
        /// It changes a name.
        Name,
        /// It flushes one object.
        Flush,
        /// It flushes all.
        FlushAll,
    }

    /// Who is told of a thread's calls.
    pub trait Disk {
        /// One is about to be made; false if the process has ended, so that it never is.
        fn begin(&self, call: Call) -> bool;
        /// A name was changed.
        fn renamed(&self);
        /// This is on stable storage, and with it every name that was changed before.
        fn flushed(&self, file: BorrowedFd<'_>);
        /// Everything is.
        fn all_flushed(&self);
    }

    thread_local! {
        static DISK: RefCell<Option<Rc<dyn Disk>>> = const { RefCell::new(None) };
    }

    /// Tells this thread's calls to `disk` from now on.
    pub fn with_disk(disk: Rc<dyn Disk>) {
        DISK.set(Some(disk));
    }

    fn disk() -> Option<Rc<dyn Disk>> {
        DISK.try_with(|disk| disk.borrow().clone()).ok().flatten()
    }

    pub(super) fn begin(call: Call) -> Result<()> {
        match disk().is_none_or(|disk| disk.begin(call)) {
            true => Ok(()),
            false => Err(Errno::IO),
        }
    }

    pub(super) fn renamed() {
        if let Some(disk) = disk() {
            disk.renamed();
        }
    }

    pub(super) fn flushed(file: BorrowedFd<'_>) {
        if let Some(disk) = disk() {
            disk.flushed(file);
        }
    }

    pub(super) fn all_flushed() {
        if let Some(disk) = disk() {
            disk.all_flushed();
        }
    }
}
