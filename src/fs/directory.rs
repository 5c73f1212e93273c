//! A directory held by handle, and what is done to the names in it.

use super::calls;
use super::divert::Diversions;
use super::error::{FsError, FsErrorKind, Result, shown};
use super::follow::Above;
use super::litter::Litter;
use super::meta::Handle;
use super::private::{displaced_from, is_parked_name, is_private_name, parked_name};
use super::read::read_full_at;
use super::stat::{FileType, Stat, stat_at, stat_handle};
use super::view::View;
use driftless_protocol::name::{Name, RESERVED_PREFIX};
use rustix::fs::{AtFlags, IFlags, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::{Errno, retry_on_intr};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

/// An open directory. Share it through an `Arc`; all calls take `&self` and none moves a position that another sees.
///
/// The handle follows the directory when that is renamed; the path in messages does not.
#[derive(Debug)]
pub struct Directory {
    fd: OwnedFd,
    shown: String,
    /// As what it shows itself, if not as what it is.
    pub(super) view: Option<Arc<View>>,
    /// How many levels it is below the root, as it was opened.
    pub(super) depth: usize,
    /// What could not be removed below the root.
    pub(super) litter: Arc<Litter>,
    /// Names that lead elsewhere below the root.
    pub(super) diversions: Arc<Diversions>,
    /// Itself and what it was opened below, where links are followed.
    pub(super) trace: Option<Arc<Above>>,
}

/// What [`Directory::rename`] and [`Directory::hard_link`] do when the new name is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RenameMode {
    /// Fail with [`FsErrorKind::Exists`].
    NoReplace,
    /// Take its place: a file or link that of a file or link, a directory that of an empty directory.
    Replace,
    /// Both names must exist; they swap what they lead to.
    Exchange,
}

/// What [`Directory::sweep`] found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// What it removed.
    pub removed: Vec<Name>,
    /// What was displaced and never dealt with.
    pub displaced: Vec<Name>,
    /// Directories that make room for something, or were to take its place, and hold something: they have their names still.
    pub parked: Vec<Name>,
}

/// How every name below a root is looked up: one step down, through no link of any kind.
const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS);

/// As many bytes as the text of a link has at most.
const LINK_TEXT_BYTES_MAX: u64 = 4_095;

const OPEN_DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW);

impl Directory {
    /// Opens the directory that a tree starts at. Follows symbolic links in `path`: it is the administrator's choice.
    pub fn open_root(path: &Path) -> Result<Directory> {
        let shown = shown_path(path);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = retry_on_intr(|| rustix::fs::open(path, flags, Mode::empty()))
            .map_err(|errno| FsError::new("open the directory", shown.as_str(), errno))?;
        let view = None;
        let depth = 0;
        let directory = Directory {
            fd,
            shown,
            view,
            depth,
            litter: Arc::default(),
            diversions: Arc::default(),
            trace: None,
        };
        // Finds out now, and not at the first file, whether this kernel can do what all the rest needs.
        directory.open_beneath(
            "open the directory",
            b".",
            OPEN_DIRECTORY,
            Mode::empty(),
            ResolveFlags::empty(),
        )?;
        Ok(directory)
    }

    /// The path as it was opened, escaped for messages.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// The path of a name in this directory, escaped for messages.
    pub fn shown_name(&self, name: &Name) -> String {
        shown(&self.shown, name.as_bytes())
    }

    /// Whether a path still leads to this directory. It does not once that was moved, replaced, or covered by a mount; what
    /// cannot be found out is taken for yes.
    pub fn stands_at(&self, path: &Path) -> bool {
        match (rustix::fs::stat(path), rustix::fs::fstat(&self.fd)) {
            (Ok(there), Ok(here)) => (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino),
            (Err(Errno::NOENT | Errno::NOTDIR), _) => false,
            _ => true,
        }
    }

    /// What this directory itself is.
    pub fn stat_self(&self) -> Result<Stat> {
        let stat = stat_handle(&self.fd).map_err(self.failed("look at"))?;
        self.show_open(Handle::Open(self.fd.as_fd()), stat)
    }

    /// Opens a directory in this one. Fails with [`FsErrorKind::Substituted`] if `name` is something else.
    ///
    /// Mount points are entered; compare [`Stamp::device`](super::Stamp::device) to notice.
    pub fn open_dir(&self, name: &Name) -> Result<Directory> {
        self.open_dir_how(name, ResolveFlags::empty())
    }

    /// Like [`Directory::open_dir`], but refuses mount points with [`FsErrorKind::CrossDevice`].
    pub fn open_dir_same_mount(&self, name: &Name) -> Result<Directory> {
        self.open_dir_how(name, ResolveFlags::NO_XDEV)
    }

    fn open_dir_how(&self, name: &Name, resolve: ResolveFlags) -> Result<Directory> {
        let open = |flags| {
            self.open_beneath(
                "open the directory",
                name.as_bytes(),
                flags,
                Mode::empty(),
                resolve,
            )
        };
        let fd = match without_atime(|extra| open(OPEN_DIRECTORY | extra)) {
            Err(error) if error.kind() == FsErrorKind::Substituted => {
                self.open_followed(name, OPEN_DIRECTORY)?.ok_or(error)?
            }
            other => other?,
        };
        Ok(Directory {
            trace: self.trace_to(&fd, name)?,
            fd,
            shown: self.shown_name(name),
            view: self.view.clone(),
            depth: self.depth + 1,
            litter: self.litter.clone(),
            diversions: self.diversions.clone(),
        })
    }

    /// What `name` is; `None` when nothing has that name. Follows no link, unless the view of this tree says so.
    pub fn stat(&self, name: &Name) -> Result<Option<Stat>> {
        match stat_at(&self.fd, &self.on_disk(name.as_bytes())) {
            Ok(stat) => self.show_at(name, stat).map(Some),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(self.failed_at("look at", name)(errno)),
        }
    }

    /// The text of a symbolic link.
    pub fn read_link(&self, name: &Name) -> Result<Vec<u8>> {
        let text = self.link_text(name)?;
        match self.shows_link(&text) {
            true => Ok(self.shown_text(text)),
            // Another than when it was looked at.
            false => Err(FsError::substituted(
                "read the link",
                self.shown_name(name),
                "it is one that is left out",
            )),
        }
    }

    pub(super) fn link_text(&self, name: &Name) -> Result<Vec<u8>> {
        match retry_on_intr(|| rustix::fs::readlinkat(&self.fd, &*self.on_disk(name.as_bytes()), Vec::new()))
        {
            // A real one has no place there, and is shown as one that no sender can have.
            Ok(text) if self.keeps_fakes() => Ok([b"\0", text.as_bytes()].concat()),
            Ok(text) => Ok(text.into_bytes()),
            Err(Errno::INVAL) if self.fakes_super() => self.fake_link_text(name),
            Err(Errno::INVAL) => Err(FsError::substituted(
                "read the link",
                self.shown_name(name),
                "it is not a symbolic link",
            )),
            Err(errno) => Err(self.failed_at("read the link", name)(errno)),
        }
    }

    /// The text of a link that is a file here.
    fn fake_link_text(&self, name: &Name) -> Result<Vec<u8>> {
        const OPERATION: &str = "read the link";
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = self.open_beneath(
            OPERATION,
            name.as_bytes(),
            flags,
            Mode::empty(),
            ResolveFlags::empty(),
        )?;
        let stat = stat_handle(&fd).map_err(self.failed_at(OPERATION, name))?;
        let taken_for = self.overlaid(Handle::Open(fd.as_fd()), stat)?.file_type;
        if stat.file_type != FileType::Regular || taken_for != FileType::Symlink {
            let cause = "it is not a symbolic link";
            return Err(FsError::substituted(OPERATION, self.shown_name(name), cause));
        }
        // No longer than the kernel's own, whatever the file has.
        let mut text = vec![0; stat.size.min(LINK_TEXT_BYTES_MAX) as usize];
        let read = read_full_at(&File::from(fd), &mut text, 0).map_err(self.failed_at(OPERATION, name))?;
        text.truncate(read);
        Ok(text)
    }

    /// Opens a regular file for reading, without touching its access time where that is permitted. Neither waits for
    /// nor opens anything that is not a regular file, or shown as one.
    pub fn open_file(&self, name: &Name) -> Result<(File, Stat)> {
        // Opening a device or a FIFO can have effects, so look first. RACE: somebody may put a FIFO here in between;
        // O_NONBLOCK keeps the open from waiting, and the look at the handle below refuses it.
        let before =
            stat_at(&self.fd, &self.on_disk(name.as_bytes())).map_err(self.failed_at("open", name))?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let followed = match before.file_type {
            FileType::Symlink => self.open_followed(name, flags)?,
            _ => None,
        };
        let is_followed = followed.is_some();
        let fd = match followed {
            Some(fd) => fd,
            None => {
                let before = match self.fakes_super() || self.takes_devices_for_files() {
                    true => self.show_at(name, before)?,
                    false => before,
                };
                self.expect_regular(name, &before)?;
                without_atime(|extra| {
                    self.open_beneath(
                        "open",
                        name.as_bytes(),
                        flags | extra,
                        Mode::empty(),
                        ResolveFlags::empty(),
                    )
                })?
            }
        };
        let stat = stat_handle(&fd).map_err(self.failed_at("look at", name))?;
        let shown = self.show_open(Handle::Open(fd.as_fd()), stat)?;
        self.expect_regular(name, &shown)?;
        Ok((File::from(fd), Stat { is_followed, ..shown }))
    }

    fn expect_regular(&self, name: &Name, stat: &Stat) -> Result<()> {
        match stat.file_type {
            FileType::Regular => Ok(()),
            other => Err(FsError::substituted(
                "open",
                self.shown_name(name),
                other.unexpected(),
            )),
        }
    }

    /// Makes a directory that only the owner may enter (mode 0700), and opens it.
    ///
    /// RACE: who may write to this directory can put another directory in the place of the new one before it is opened.
    pub fn make_dir(&self, name: &Name) -> Result<Directory> {
        calls::mkdirat(&self.fd, &self.on_disk(name.as_bytes()), Mode::RWXU)
            .map_err(self.failed_at("create the directory", name))?;
        self.open_dir(name)
    }

    /// Renames `from` in this directory to `to` in `to_dir`, in one step.
    ///
    /// Where the file system knows no flags, [`RenameMode::NoReplace`] is a look and a plain rename (RACE: what
    /// appears at `to` in between is replaced), and [`RenameMode::Exchange`] fails with [`FsErrorKind::Unsupported`].
    /// When both names are links of one object, [`RenameMode::Replace`] takes `from` away, which rename(2) does not.
    pub fn rename(&self, from: &Name, to_dir: &Directory, to: &Name, mode: RenameMode) -> Result<()> {
        let failed = |errno| to_dir.failed_at("rename to", to)(errno);
        let (old, new) = (self.on_disk(from.as_bytes()), to_dir.on_disk(to.as_bytes()));
        let (old, new) = (&*old, &*new);
        let plain = || calls::renameat(&self.fd, old, &to_dir.fd, new);
        let flagged = |flags| calls::renameat_with(&self.fd, old, &to_dir.fd, new, flags);
        match mode {
            RenameMode::NoReplace => match flagged(RenameFlags::NOREPLACE) {
                Err(Errno::INVAL) => match stat_at(&to_dir.fd, new) {
                    Ok(_) => Err(failed(Errno::EXIST)),
                    Err(Errno::NOENT) => plain().map_err(failed),
                    Err(errno) => Err(failed(errno)),
                },
                other => other.map_err(failed),
            },
            RenameMode::Exchange => flagged(RenameFlags::EXCHANGE).map_err(|errno| match errno {
                Errno::INVAL => failed(errno).explained(
                    FsErrorKind::Unsupported,
                    "the file system cannot exchange two names, or one lies inside the other",
                ),
                _ => failed(errno),
            }),
            RenameMode::Replace => {
                plain().map_err(|errno| match errno {
                    // Another word for it: nothing else can be in the way here.
                    Errno::EXIST => {
                        failed(errno).explained(FsErrorKind::NotEmpty, "a directory there is not empty")
                    }
                    _ => failed(errno),
                })?;
                if let (Ok(left), Ok(there)) = (stat_at(&self.fd, old), stat_at(&to_dir.fd, new))
                    && left.links > 1
                    && left.stamp.same_object(&there.stamp)
                    && !self.same_entry(from, to_dir, to)?
                {
                    self.remove_file(from)?;
                }
                Ok(())
            }
        }
    }

    /// Swaps what two names in this directory lead to. Where the file system cannot do that in one step `name` is absent for a
    /// moment, and after a crash in that moment what it led to has a private name.
    pub fn swap(&self, aside: &Name, name: &Name) -> Result<()> {
        match self.rename(aside, self, name, RenameMode::Exchange) {
            Err(error) if error.kind() == FsErrorKind::Unsupported => {}
            outcome => return outcome,
        }
        let third = parked_name();
        self.rename(name, self, &third, RenameMode::NoReplace)?;
        if let Err(error) = self.rename(aside, self, name, RenameMode::NoReplace) {
            let _ = self.rename(&third, self, name, RenameMode::NoReplace);
            return Err(error);
        }
        self.rename(&third, self, aside, RenameMode::NoReplace)
    }

    /// Whether two names may be one entry of one directory: the same bytes, or any where case makes no difference.
    fn same_entry(&self, name: &Name, other_dir: &Directory, other: &Name) -> Result<bool> {
        if !self.stat_self()?.stamp.same_object(&other_dir.stat_self()?.stamp) {
            return Ok(false);
        }
        // FS_CASEFOLD_FL, which rustix has no name for.
        let casefold = IFlags::from_bits_retain(0x4000_0000);
        let folds_case = || rustix::fs::ioctl_getflags(&self.fd).is_ok_and(|flags| flags.contains(casefold));
        Ok(name == other || folds_case())
    }

    /// Takes a name away from anything but a directory.
    pub fn remove_file(&self, name: &Name) -> Result<()> {
        calls::unlinkat(&self.fd, &self.on_disk(name.as_bytes()), AtFlags::empty())
            .map_err(self.failed_at("remove", name))
    }

    /// Removes an empty directory.
    pub fn remove_dir(&self, name: &Name) -> Result<()> {
        calls::unlinkat(&self.fd, &self.on_disk(name.as_bytes()), AtFlags::REMOVEDIR).map_err(|errno| {
            let error = self.failed_at("remove the directory", name)(errno);
            if errno == Errno::EXIST {
                error.sorted(FsErrorKind::NotEmpty)
            } else {
                error
            }
        })
    }

    /// Removes what crashed runs left in this directory (not below it) but for what is `kept`. What was displaced is only
    /// found: see [`displaced_name`](super::displaced_name), [`parked_name`](super::parked_name).
    ///
    /// Call it before anything is staged here: it cannot tell a living temporary from a dead one.
    pub fn sweep(&self, kept: impl Fn(&Name) -> bool) -> Result<Swept> {
        let mut swept = Vec::new();
        let (mut displaced, mut parked) = (Vec::new(), Vec::new());
        let mut first_error = None;
        self.for_each_name(|bytes, _| {
            if !bytes.starts_with(RESERVED_PREFIX) {
                return;
            }
            match Name::new(bytes) {
                Ok(name) if is_private_name(&name) && !kept(&name) => swept.push(name),
                Ok(name) if displaced_from(&name).is_some() => displaced.push(name),
                _ => {}
            }
        })?;
        swept.retain(|name| match self.remove_left(name) {
            Ok(()) => true,
            Err(error) if error.kind() == FsErrorKind::NotEmpty && is_parked_name(name) => {
                parked.push(name.clone());
                false
            }
            Err(error) => {
                if error.kind() != FsErrorKind::NotFound {
                    first_error.get_or_insert(error);
                }
                false
            }
        });
        let swept = Swept {
            removed: swept,
            displaced,
            parked,
        };
        first_error.map_or(Ok(swept), Err)
    }

    /// Removes what has a private name and is of no use any more. A directory that is parked ([`parked_name`](super::parked_name)) only
    /// if it holds nothing: [`FsErrorKind::NotEmpty`] otherwise.
    pub fn remove_left(&self, name: &Name) -> Result<()> {
        let is_directory = |stat: Stat| stat.file_type == FileType::Directory;
        match is_parked_name(name) && self.stat(name)?.is_some_and(is_directory) {
            true => self.remove_dir(name),
            false => self.remove_tree(name).map(drop),
        }
    }

    /// The names in this directory that driftless keeps for itself, whatever for.
    pub fn reserved_names(&self) -> Result<Vec<Name>> {
        let mut found = Vec::new();
        self.for_each_name(|bytes, _| {
            if bytes.starts_with(RESERVED_PREFIX) {
                found.extend(Name::new(bytes).ok());
            }
        })?;
        Ok(found)
    }

    /// The error of a flush that is not tried, because one before failed: if it succeeded now, that would say nothing.
    pub fn unflushed(&self) -> FsError {
        self.failed("flush")(Errno::IO)
    }

    /// Flushes this directory: what was linked, renamed and removed in it before is then on stable storage.
    pub fn sync(&self) -> Result<()> {
        match retry_on_intr(|| calls::fsync(&self.fd)) {
            // Some file systems flush files only.
            Err(Errno::INVAL) => self.sync_filesystem(),
            other => other.map_err(self.failed("flush")),
        }
    }

    /// Flushes everything on this directory's file system.
    pub fn sync_filesystem(&self) -> Result<()> {
        retry_on_intr(|| calls::syncfs(&self.fd)).map_err(self.failed("flush the file system of"))
    }

    /// Bytes that an unprivileged user could still write on this file system.
    pub fn free_bytes(&self) -> Result<u64> {
        let stat = retry_on_intr(|| rustix::fs::fstatvfs(&self.fd))
            .map_err(self.failed("look at the free space of"))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// A second handle of the same open directory.
    pub fn try_clone(&self) -> Result<Directory> {
        let fd = self
            .fd
            .try_clone()
            .map_err(|e| self.failed("open")(errno_of(&e)))?;
        Ok(Directory {
            fd,
            shown: self.shown.clone(),
            view: self.view.clone(),
            depth: self.depth,
            litter: self.litter.clone(),
            diversions: self.diversions.clone(),
            trace: self.trace.clone(),
        })
    }

    /// Opens what `name` is without the right to read or write it, links included.
    pub(super) fn open_path(&self, operation: &'static str, name: &Name) -> Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        self.open_beneath(
            operation,
            name.as_bytes(),
            flags,
            Mode::empty(),
            ResolveFlags::empty(),
        )
    }

    /// The parent of this directory, as it is now. The caller must check that it is the one expected.
    pub(super) fn open_parent(&self, shown: String) -> Result<Directory> {
        let flags = OPEN_DIRECTORY | OFlags::CLOEXEC;
        let fd = retry_on_intr(|| rustix::fs::openat(&self.fd, "..", flags, Mode::empty()))
            .map_err(self.failed("open the parent of"))?;
        let view = None;
        let depth = 0;
        Ok(Directory {
            fd,
            shown,
            view,
            depth,
            litter: Arc::default(),
            diversions: Arc::default(),
            trace: None,
        })
    }

    /// Opens `name` (one element, or `.`) below this directory.
    pub(super) fn open_beneath(
        &self,
        operation: &'static str,
        name: &[u8],
        flags: OFlags,
        mode: Mode,
        resolve: ResolveFlags,
    ) -> Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC;
        let there = self.on_disk(name);
        retry_on_intr(|| rustix::fs::openat2(&self.fd, &*there, flags, mode, BENEATH | resolve)).map_err(
            |errno| {
                let path = if name == b"." {
                    self.shown.clone()
                } else {
                    shown(&self.shown, name)
                };
                let error = FsError::new(operation, path, errno);
                match errno {
                    Errno::NOSYS => error.explained(
                        FsErrorKind::Unsupported,
                        "this kernel has no openat2; Linux 5.6 or later is needed",
                    ),
                    Errno::LOOP => error.explained(FsErrorKind::Substituted, FileType::Symlink.unexpected()),
                    // Only a mount point can be meant: the name is one step down.
                    Errno::XDEV => {
                        error.explained(FsErrorKind::CrossDevice, "a file system is mounted there")
                    }
                    _ => error,
                }
            },
        )
    }

    /// The error that a name in this directory is of no use for what is to be done.
    pub fn unusable(&self, operation: &'static str, name: &Name, cause: &'static str) -> FsError {
        self.failed_at(operation, name)(Errno::INVAL).explained(FsErrorKind::Unsupported, cause)
    }

    /// Makes an error about this directory.
    pub(super) fn failed(&self, operation: &'static str) -> impl FnOnce(Errno) -> FsError + '_ {
        move |errno| FsError::new(operation, self.shown.as_str(), errno)
    }

    /// Makes an error about a name in this directory.
    pub(super) fn failed_at<'a>(
        &'a self,
        operation: &'static str,
        name: &'a Name,
    ) -> impl FnOnce(Errno) -> FsError + 'a {
        move |errno| FsError::new(operation, self.shown_name(name), errno)
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Opens with `O_NOATIME`, and without where only the owner may.
pub(super) fn without_atime(open: impl Fn(OFlags) -> Result<OwnedFd>) -> Result<OwnedFd> {
    match open(OFlags::NOATIME) {
        Err(error) if error.errno() == Errno::PERM => open(OFlags::empty()),
        other => other,
    }
}

/// A path that the administrator gave, escaped for messages.
pub(super) fn shown_path(path: &Path) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = driftless_protocol::name::escape(path.as_os_str().as_bytes(), &mut text);
    text
}

/// The number behind an error of the standard library.
pub(super) fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
