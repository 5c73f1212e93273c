//! New names for complete objects: symbolic links, hard links, and how an open object gets its name.

use super::calls;
use super::directory::{Directory, RenameMode, errno_of};
use super::error::{FsError, FsErrorKind, Result};
use super::meta::{Applied, Handle, Metadata, NO_PROC, proc_path};
use super::private::private_name;
use super::stat::{FileType, Stamp, Stat, stat_at, stat_handle};
use driftless_protocol::entry::Special;
use driftless_protocol::name::Name;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};

impl Directory {
    /// Makes a symbolic link with this text and these attributes, aside, and then puts it at `name`, where it replaces
    /// anything but a directory ([`FsErrorKind::Exists`]). Durable after [`Directory::sync`].
    pub fn make_symlink(&self, target: &[u8], name: &Name, wanted: &Metadata<'_>) -> Result<Applied> {
        const OPERATION: &str = "create the symbolic link";
        let aside = private_name();
        let target = self.text_on_disk(target);
        if self.keeps_fakes() {
            return self.make_fake(FileType::Symlink, &target, name, wanted);
        }
        calls::symlinkat(&target, self, aside.as_bytes()).map_err(self.failed_at(OPERATION, name))?;
        let place = || {
            let fd = self.open_path(OPERATION, &aside)?;
            let made = stat_handle(&fd).map_err(self.failed_at(OPERATION, name))?;
            if made.file_type != FileType::Symlink {
                return Err(FsError::substituted(
                    OPERATION,
                    self.shown_name(name),
                    made.file_type.unexpected(),
                ));
            }
            let shown = || self.shown_name(name);
            let applied = self.give(Handle::Path(fd.as_fd()), &made, made.file_type, wanted, shown)?;
            let stat = self.put_in_place(OPERATION, &aside, name, fd.as_fd())?;
            Ok(Applied { stat, ..applied })
        };
        place().inspect_err(|_| {
            // What stays is noted.
            let _ = self.remove_private(&aside);
        })
    }

    /// Makes a pipe or a device with these attributes, aside, and then puts it at `name`, where it replaces anything but
    /// a directory ([`FsErrorKind::Exists`]). Devices need root. Durable after [`Directory::sync`].
    pub fn make_special(&self, special: Special, name: &Name, wanted: &Metadata<'_>) -> Result<Applied> {
        const OPERATION: &str = "create the pipe or device";
        if self.keeps_fakes() {
            return self.make_fake(FileType::Special(special), b"", name, wanted);
        }
        let aside = private_name();
        let (file_type, device) = match special {
            Special::Fifo => (rustix::fs::FileType::Fifo, 0),
            Special::CharDevice { major, minor } => (
                rustix::fs::FileType::CharacterDevice,
                rustix::fs::makedev(major, minor),
            ),
            Special::BlockDevice { major, minor } => (
                rustix::fs::FileType::BlockDevice,
                rustix::fs::makedev(major, minor),
            ),
        };
        let mode = Mode::RUSR | Mode::WUSR;
        calls::mknodat(self, aside.as_bytes(), file_type, mode, device)
            .map_err(self.failed_at(OPERATION, name))?;
        let place = || {
            let fd = self.open_path(OPERATION, &aside)?;
            let made = stat_handle(&fd).map_err(self.failed_at(OPERATION, name))?;
            if made.file_type != FileType::Special(special) {
                return Err(FsError::substituted(
                    OPERATION,
                    self.shown_name(name),
                    made.file_type.unexpected(),
                ));
            }
            let shown = || self.shown_name(name);
            let applied = self.give(Handle::Path(fd.as_fd()), &made, made.file_type, wanted, shown)?;
            let stat = self.put_in_place(OPERATION, &aside, name, fd.as_fd())?;
            Ok(Applied { stat, ..applied })
        };
        place().inspect_err(|_| {
            // What stays is noted.
            let _ = self.remove_private(&aside);
        })
    }

    /// Makes a file that is taken for something else, aside, and then puts it at `name`.
    fn make_fake(
        &self,
        file_type: FileType,
        content: &[u8],
        name: &Name,
        wanted: &Metadata<'_>,
    ) -> Result<Applied> {
        const OPERATION: &str = "create";
        let aside = private_name();
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW;
        let mode = Mode::RUSR | Mode::WUSR;
        let fd = self.open_beneath(OPERATION, aside.as_bytes(), flags, mode, ResolveFlags::empty())?;
        let place = || {
            let failed = |error: std::io::Error| self.failed_at(OPERATION, name)(errno_of(&error));
            let mut file = File::from(fd.try_clone().map_err(failed)?);
            file.write_all(content).map_err(failed)?;
            let made = stat_handle(&fd).map_err(self.failed_at(OPERATION, name))?;
            let shown = || self.shown_name(name);
            let applied = self.give(Handle::Open(fd.as_fd()), &made, file_type, wanted, shown)?;
            // Its text is content: flushing the directory does not flush that.
            file.sync_all().map_err(failed)?;
            let stat = self.put_in_place(OPERATION, &aside, name, fd.as_fd())?;
            Ok(Applied { stat, ..applied })
        };
        place().inspect_err(|_| {
            // What stays is noted.
            let _ = self.remove_private(&aside);
        })
    }

    /// Gives `from`, which must be no directory, a second name `to` in `to_dir`, and answers what the object then is.
    ///
    /// With `expected`, only if it is the object that this was taken of. [`RenameMode::Replace`] replaces anything
    /// but a directory in one step; [`RenameMode::Exchange`] is not for links and answers
    /// [`FsErrorKind::Unsupported`].
    pub fn hard_link(
        &self,
        from: &Name,
        expected: Option<&Stamp>,
        to_dir: &Directory,
        to: &Name,
        mode: RenameMode,
    ) -> Result<Stat> {
        const OPERATION: &str = "link";
        if mode == RenameMode::Exchange {
            let error = to_dir.failed_at(OPERATION, to)(Errno::INVAL);
            return Err(error.explained(FsErrorKind::Unsupported, "a link cannot be exchanged"));
        }
        let fd = self.open_path(OPERATION, from)?;
        let source = stat_handle(&fd).map_err(self.failed_at(OPERATION, from))?;
        if !matches!(
            source.file_type,
            FileType::Regular | FileType::Symlink | FileType::Special(_)
        ) {
            return Err(FsError::substituted(
                OPERATION,
                self.shown_name(from),
                source.file_type.unexpected(),
            ));
        }
        if expected.is_some_and(|stamp| !stamp.same_object(&source.stamp)) {
            return Err(FsError::substituted(
                OPERATION,
                self.shown_name(from),
                "another object took its place",
            ));
        }
        match (link_handle(OPERATION, fd.as_fd(), to_dir, to), mode) {
            (Ok(()), _) => to_dir.shown_by(OPERATION, fd.as_fd(), to),
            (Err(error), RenameMode::Replace) if error.kind() == FsErrorKind::Exists => {
                let there = to_dir.stat(to)?;
                if there.is_some_and(|there| there.stamp.same_object(&source.stamp)) {
                    return to_dir.shown_by(OPERATION, fd.as_fd(), to);
                }
                let aside = private_name();
                link_handle(OPERATION, fd.as_fd(), to_dir, &aside)?;
                to_dir
                    .put_in_place(OPERATION, &aside, to, fd.as_fd())
                    .inspect_err(|_| {
                        let _ = to_dir.remove_private(&aside);
                    })
            }
            (Err(error), _) => Err(error),
        }
    }

    /// What an object is shown to be that has this name.
    pub(super) fn shown_by(
        &self,
        operation: &'static str,
        object: BorrowedFd<'_>,
        name: &Name,
    ) -> Result<Stat> {
        let stat = stat_handle(object).map_err(self.failed_at(operation, name))?;
        match stat.file_type {
            // Its text counts, too.
            FileType::Symlink => self.show_at(name, stat),
            _ => self.show_open(Handle::Path(object), stat),
        }
    }

    /// Gives the file or symbolic link `name` a second, private name in this directory and answers that.
    pub fn link_aside(&self, name: &Name) -> Result<Name> {
        let aside = private_name();
        self.hard_link(name, None, self, &aside, RenameMode::NoReplace)?;
        Ok(aside)
    }

    /// Renames the private name `aside`, which leads to `object`, over `name`. A directory there is an
    /// [`FsErrorKind::Exists`], and `aside` stays.
    pub(super) fn put_in_place(
        &self,
        operation: &'static str,
        aside: &Name,
        name: &Name,
        object: BorrowedFd<'_>,
    ) -> Result<Stat> {
        let failed = |errno| self.failed_at(operation, name)(errno);
        let there = self.on_disk(name.as_bytes());
        calls::renameat(self, aside.as_bytes(), self, &there).map_err(|errno| match errno {
            Errno::ISDIR => FsError::new(operation, self.shown_name(name), Errno::EXIST)
                .explained(FsErrorKind::Exists, FileType::Directory.unexpected()),
            _ => failed(errno),
        })?;
        let stat = stat_handle(object).map_err(failed)?;
        if stat.links > 1
            && stat_at(self, aside.as_bytes()).is_ok_and(|left| left.stamp.same_object(&stat.stamp))
        {
            // Both were names of one object: rename(2) then does nothing.
            self.remove_private(aside)?;
        }
        // RACE: who may write to this directory could have put something else at the private name. They could have
        // put it at `name` just as well; but then nobody should believe that our object is there.
        match stat_at(self, &there) {
            Ok(there) if there.stamp.same_object(&stat.stamp) => self.show_at(name, there),
            Ok(_) | Err(Errno::NOENT) => Err(FsError::substituted(
                operation,
                self.shown_name(name),
                "something else took its place",
            )),
            Err(errno) => Err(failed(errno)),
        }
    }
}

/// Gives an open object (with or without other names) the name `name`, which must be free.
pub(super) fn link_handle(
    operation: &'static str,
    object: BorrowedFd<'_>,
    directory: &Directory,
    name: &Name,
) -> Result<()> {
    let failed = directory.failed_at(operation, name);
    let there = directory.on_disk(name.as_bytes());
    // By the handle itself: needs a privilege (CAP_DAC_READ_SEARCH) or a recent kernel, but no /proc.
    match calls::linkat(object, b"", directory, &there, AtFlags::EMPTY_PATH) {
        Err(Errno::NOENT | Errno::PERM | Errno::INVAL) => {}
        other => return other.map_err(failed),
    }
    let path = proc_path(object);
    match calls::linkat(CWD, path.as_bytes(), directory, &there, AtFlags::SYMLINK_FOLLOW) {
        // Either the directory is gone, or /proc is not there.
        Err(Errno::NOENT) if rustix::fs::stat("/proc/self/fd").is_err() => {
            Err(failed(Errno::NOENT).explained(FsErrorKind::Unsupported, NO_PROC))
        }
        other => other.map_err(failed),
    }
}
