//! Listing a directory.

use super::directory::Directory;
use super::error::{FsError, FsErrorKind, Result, shown};
use super::stat::{Stat, stat_at};
use driftless_protocol::name::{Name, RESERVED_PREFIX};
use rustix::fs::{FileType, Mode, OFlags, RawDir, ResolveFlags};
use rustix::io::Errno;

/// Everything in a directory, at about one moment.
#[derive(Debug, Default)]
pub struct Listing {
    /// Names and what they are, in the order of the names' bytes. Without the names that driftless keeps for itself.
    pub entries: Vec<(Name, Stat)>,
    /// Names that could not be looked at or that no mirror can carry. They exist: their absence from `entries` must
    /// not be taken for a deletion.
    pub problems: Vec<(Vec<u8>, FsError)>,
    /// Names that driftless keeps for itself stand there, too.
    pub has_reserved: bool,
}

/// Bytes of directory entries fetched at once: some 1,000 names.
const BUFFER_BYTES: usize = 32 << 10;

impl Directory {
    /// Lists this directory. Names that vanish meanwhile are left out; when reading the directory fails, so does the
    /// whole call: a listing is never short.
    pub fn list(&self) -> Result<Listing> {
        let mut listing = Listing::default();
        let mut names = Vec::new();
        self.for_each_name(|bytes, _| {
            if bytes.starts_with(RESERVED_PREFIX) {
                listing.has_reserved = true;
                return;
            }
            match Name::new(bytes) {
                Ok(name) => names.push(name),
                Err(_) => {
                    let error = FsError::new("list", shown(self.shown(), bytes), Errno::NAMETOOLONG)
                        .explained(FsErrorKind::Unsupported, "the name is longer than 255 bytes");
                    listing.problems.push((bytes.to_vec(), error));
                }
            }
        })?;
        // One that others do not see yet.
        names.extend(self.diverted());
        names.sort_unstable();
        // A directory that changes while it is read may show one name twice.
        names.dedup();
        listing.entries.reserve_exact(names.len());
        for name in names {
            match stat_at(self, &self.on_disk(name.as_bytes())) {
                Ok(stat) => match self.show_at(&name, stat) {
                    Ok(stat) => listing.entries.push((name, stat)),
                    Err(error) => listing.problems.push((name.as_bytes().to_vec(), error)),
                },
                Err(Errno::NOENT) => {}
                Err(errno) => {
                    let error = self.failed_at("look at", &name)(errno);
                    listing.problems.push((name.as_bytes().to_vec(), error));
                }
            }
        }
        Ok(listing)
    }

    /// Calls `f` with every name (also reserved ones, but not `.` and `..`) and its type as far as the directory
    /// says. Uses a handle of its own, so that two threads can list one directory.
    pub(super) fn for_each_name(&self, mut f: impl FnMut(&[u8], FileType)) -> Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let fd = self
            .open_beneath(
                "list",
                b".",
                flags | OFlags::NOATIME,
                Mode::empty(),
                ResolveFlags::empty(),
            )
            .or_else(|error| match error.errno() {
                Errno::PERM => self.open_beneath("list", b".", flags, Mode::empty(), ResolveFlags::empty()),
                _ => Err(error),
            })?;
        let mut buffer = Vec::with_capacity(BUFFER_BYTES);
        let mut entries = RawDir::new(fd, buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            match entry {
                Ok(entry) => match entry.file_name().to_bytes() {
                    b"." | b".." => {}
                    name => f(name, entry.file_type()),
                },
                Err(Errno::INTR) => {}
                Err(errno) => return Err(self.failed("list")(errno)),
            }
        }
        Ok(())
    }
}
