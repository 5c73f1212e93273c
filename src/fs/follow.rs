//! Symbolic links that are taken for what they lead to, and the way there.
//!
//! Only where the [`View`](super::View) of a tree says so, which is the user's decision: what such a link leads to may lie
//! anywhere. Links of `/proc` that lead to what a process has open are never followed.
//!
//! RACE: a link is judged by its text and then followed; who may write to its directory can put another link there in between,
//! and could have had that mirrored just as well.

use super::device::is_taken_for_file;
use super::directory::{Directory, without_atime};
use super::error::{FsError, FsErrorKind, Result};
use super::stat::{FileType, Stamp, Stat, stat_at, stat_handle};
use super::view::View;
use driftless_protocol::Name;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, retry_on_intr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// As what a link is shown that is to be followed and cannot be.
pub(super) const NOWHERE: FileType = FileType::Other("symbolic link that leads nowhere");
/// As what a directory is shown that would contain itself.
pub(super) const CIRCLE: FileType =
    FileType::Other("directory that it stands in itself, by way of a symbolic link");

const FOLLOW: &str = "follow the symbolic link";
/// As many links as the kernel follows on one way.
const HOPS_MAX: usize = 40;
/// Steps of a way that is written down: as many as fit into the links that are followed.
const STEPS_MAX: usize = 8_192;

/// A directory, and those that it was opened below.
#[derive(Debug)]
pub(super) struct Above {
    device: u64,
    inode: u64,
    above: Option<Arc<Above>>,
}

impl Drop for Above {
    /// Level by level: a tree can be deeper than a stack.
    fn drop(&mut self) {
        let mut next = self.above.take();
        while let Some(mut above) = next.and_then(Arc::into_inner) {
            next = above.above.take();
        }
    }
}

/// Where a link leads.
pub(super) enum Leads {
    /// To this, which may not be read through the handle.
    To(OwnedFd, Stat),
    /// To nothing that is there.
    Nowhere,
}

/// A name that is looked up on the way to what a link leads to. If something happens to it, the link may lead elsewhere.
#[derive(Debug)]
pub struct Hop {
    /// Its directory, open for reading.
    pub directory: OwnedFd,
    /// That directory's device and inode.
    pub inode: (u64, u64),
    /// The name in it, which may not be there.
    pub name: Name,
}

impl Directory {
    /// Whether links may be followed below this directory.
    pub fn follows_links(&self) -> bool {
        self.follower().is_some()
    }

    pub(super) fn follower(&self) -> Option<&View> {
        self.view.as_deref().filter(|view| view.follows.any())
    }

    /// What a link is to be taken for, if it is not to be shown as a link.
    pub(super) fn followed(&self, view: &View, name: &Name, text: &[u8]) -> Result<Option<Leads>> {
        if view.follows.admits(text, self.depth) {
            return self.follow(name).map(Some);
        }
        if !view.follows.to_directories {
            return Ok(None);
        }
        // One of which that cannot be told stays a link.
        Ok(match self.follow(name) {
            Ok(
                leads @ Leads::To(
                    _,
                    Stat {
                        file_type: FileType::Directory,
                        ..
                    },
                ),
            ) => Some(leads),
            _ => None,
        })
    }

    fn follow(&self, name: &Name) -> Result<Leads> {
        match self.open_following(name, OFlags::PATH) {
            Ok(fd) => {
                let stat = stat_handle(&fd).map_err(self.failed_at(FOLLOW, name))?;
                Ok(Leads::To(fd, stat))
            }
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(Leads::Nowhere),
            Err(errno) => Err(self.failed_at(FOLLOW, name)(errno)),
        }
    }

    fn open_following(&self, name: &Name, flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags.difference(OFlags::NOFOLLOW) | OFlags::CLOEXEC;
        retry_on_intr(|| {
            rustix::fs::openat2(
                self,
                name.as_bytes(),
                flags,
                Mode::empty(),
                ResolveFlags::NO_MAGICLINKS,
            )
        })
    }

    /// Opens what a link leads to that is taken for that. `None` if it is none of these.
    pub(super) fn open_followed(&self, name: &Name, flags: OFlags) -> Result<Option<OwnedFd>> {
        let Some(view) = self.follower() else {
            return Ok(None);
        };
        let text = match self.link_text(name) {
            Ok(text) => text,
            Err(error) if error.kind() == FsErrorKind::Substituted => return Ok(None),
            Err(error) => return Err(error),
        };
        // Looked at first: to open a device can have effects.
        match self.followed(view, name, &text)? {
            None => Ok(None),
            Some(Leads::Nowhere) => Err(FsError::substituted(
                FOLLOW,
                self.shown_name(name),
                "it leads nowhere",
            )),
            Some(Leads::To(_, stat)) if !opens(view, &stat, flags) => Err(FsError::substituted(
                FOLLOW,
                self.shown_name(name),
                stat.file_type.unexpected(),
            )),
            Some(Leads::To(..)) => without_atime(|extra| {
                self.open_following(name, flags | extra)
                    .map_err(self.failed_at(FOLLOW, name))
            })
            .map(Some),
        }
    }

    /// A handle on what a link leads to that is taken for that, without the right to read it. `None` if it is none of these.
    pub(super) fn open_followed_path(&self, name: &Name) -> Result<Option<OwnedFd>> {
        let Some(view) = self.follower() else {
            return Ok(None);
        };
        let Ok(text) = self.link_text(name) else {
            return Ok(None);
        };
        Ok(match self.followed(view, name, &text)? {
            Some(Leads::To(fd, _)) => Some(fd),
            Some(Leads::Nowhere) | None => None,
        })
    }

    /// What a directory that was opened in this one is below, with itself; fails if it would contain itself.
    pub(super) fn trace_to(&self, fd: impl AsFd, name: &Name) -> Result<Option<Arc<Above>>> {
        if !self.follows_links() {
            return Ok(None);
        }
        let own = match &self.trace {
            Some(own) => own.clone(),
            None => {
                let stat = stat_handle(self).map_err(self.failed("look at"))?;
                Arc::new(above(&stat.stamp, None))
            }
        };
        let stat = stat_handle(fd).map_err(self.failed_at("look at", name))?;
        if self.would_contain_itself(&stat)? {
            return Err(FsError::substituted(
                "open the directory",
                self.shown_name(name),
                "it would contain itself by way of a symbolic link",
            ));
        }
        Ok(Some(Arc::new(above(&stat.stamp, Some(own)))))
    }

    /// Whether a directory that is found in this one is this one itself, or one above it.
    pub(super) fn would_contain_itself(&self, stat: &Stat) -> Result<bool> {
        let place = (stat.stamp.device, stat.stamp.inode);
        if self.trace.is_none() {
            let own = stat_handle(self).map_err(self.failed("look at"))?.stamp;
            return Ok((own.device, own.inode) == place);
        }
        let mut at = self.trace.as_ref();
        while let Some(above) = at {
            if (above.device, above.inode) == place {
                return Ok(true);
            }
            at = above.above.as_ref();
        }
        Ok(false)
    }

    /// The names that are looked up on the way to what a link leads to, as far as it can be gone. The error says why no further,
    /// or in which directories they cannot be watched.
    pub fn trail(&self, name: &Name) -> (Vec<Hop>, Option<FsError>) {
        let mut hops = Vec::new();
        let error = self.note_trail(name, &mut hops).err();
        (hops, error.map(|errno| self.failed_at(FOLLOW, name)(errno)))
    }

    fn note_trail(&self, name: &Name, hops: &mut Vec<Hop>) -> Result<(), Errno> {
        let read = |fd: BorrowedFd<'_>, name: &[u8]| {
            retry_on_intr(|| rustix::fs::readlinkat(fd, name, Vec::new())).map(std::ffi::CString::into_bytes)
        };
        let mut at = self.as_fd().try_clone_to_owned().map_err(|_| Errno::MFILE)?;
        let mut ahead = steps(&read(at.as_fd(), name.as_bytes())?);
        let (mut links, mut count, mut unwatched) = (1, 0, None);
        while let Some(step) = ahead.pop() {
            count += 1;
            if count > STEPS_MAX {
                return Err(Errno::LOOP);
            }
            // Which step of the way is another one tomorrow, nobody knows.
            if let Err(errno) = hop(&at, &step).map(|hop| hops.extend(hop)) {
                unwatched.get_or_insert(errno);
            }
            let stat = match stat_at(&at, &step) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => break,
                Err(errno) => return Err(errno),
            };
            match stat.file_type {
                FileType::Symlink => {
                    links += 1;
                    if links > HOPS_MAX {
                        return Err(Errno::LOOP);
                    }
                    ahead.extend(steps(&read(at.as_fd(), &step)?));
                }
                FileType::Directory if !ahead.is_empty() => {
                    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    at = rustix::fs::openat(&at, step.as_slice(), flags, Mode::empty())?;
                }
                _ => break,
            }
        }
        unwatched.map_or(Ok(()), Err)
    }
}

/// Whether what a link leads to may be opened: a directory as one, anything else only if it is a file, or taken for one.
fn opens(view: &View, stat: &Stat, flags: OFlags) -> bool {
    match flags.contains(OFlags::DIRECTORY) {
        true => stat.file_type == FileType::Directory,
        false => stat.file_type == FileType::Regular || is_taken_for_file(Some(view), stat),
    }
}

fn above(stamp: &Stamp, above: Option<Arc<Above>>) -> Above {
    Above {
        device: stamp.device,
        inode: stamp.inode,
        above,
    }
}

/// The steps of a link's text, the last one first. An absolute one begins at `/`.
fn steps(text: &[u8]) -> Vec<Vec<u8>> {
    let parts = text.split(|&byte| byte == b'/');
    let parts = parts.filter(|part| !part.is_empty() && *part != b".");
    let mut steps: Vec<_> = parts.map(<[u8]>::to_vec).collect();
    if text.first() == Some(&b'/') {
        steps.insert(0, b"/".to_vec());
    }
    steps.reverse();
    steps
}

/// A name in a directory, if it is one that can change: neither `/` nor `..`.
fn hop(directory: &OwnedFd, name: &[u8]) -> Result<Option<Hop>, Errno> {
    let Ok(name) = Name::new(name) else {
        return Ok(None);
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(directory, ".", flags, Mode::empty())?;
    let stamp = stat_handle(&directory)?.stamp;
    Ok(Some(Hop {
        directory,
        inode: (stamp.device, stamp.inode),
        name,
    }))
}
