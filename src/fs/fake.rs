//! What a process may not give an object, kept in attributes of it (rsync's `--fake-super`).
//!
//! A device, a FIFO or a symbolic link is a regular file then; its type, and whatever of owner and mode the object itself cannot
//! have, is in `user.rsync.%stat` (`set_stat_xattr` in rsync's `xattrs.c`): the mode with its type in octal, the major and minor
//! number of a device, owner and group, as in `104755 0,0 1000:1000`. ACLs are in `user.rsync.%aacl` and `user.rsync.%dacl`, and
//! attributes of other namespaces have `user.rsync.` in front of their names. rsync reads what is written here, and the other
//! way round.

use super::error::{FsError, FsErrorKind};
use super::meta::{Applied, Handle, MetaFault, Metadata, set_mode, set_mtime};
use super::stat::{FileType, Stat, stat_handle};
use super::xattr::{self, FoundXattrs, Plan, Target, XattrFault};
use driftless_protocol::entry::Special;
use driftless_protocol::xattr::{ACL_ACCESS, ACL_DEFAULT};
use driftless_protocol::{Xattr, XattrClasses, Xattrs};
use rustix::io::Errno;

const STAT: &[u8] = b"user.rsync.%stat";
const ACCESS: &[u8] = b"user.rsync.%aacl";
const DEFAULT: &[u8] = b"user.rsync.%dacl";
/// In front of names of other namespaces.
const PREFIX: &[u8] = b"user.rsync.";
/// In front of what rsync keeps for itself.
const RESERVED: &[u8] = b"user.rsync.%";

/// Whether a tree has such attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FakeSuper {
    /// It is what it is.
    #[default]
    Off,
    /// It is read with them. Real symbolic links, which can have none, are what they are.
    Read,
    /// It is written with them, and real symbolic links have no place in it.
    Kept,
}

const TYPE: u32 = libc::S_IFMT;

/// Why what is kept cannot be used.
pub(super) enum FakeFault {
    Kernel(Errno),
    Corrupt,
}

impl FakeFault {
    pub(super) fn into_error(self, operation: &'static str, path: String) -> FsError {
        match self {
            FakeFault::Kernel(errno) => FsError::new(operation, path, errno),
            FakeFault::Corrupt => FsError::new(operation, path, Errno::INVAL).explained(
                FsErrorKind::Unsupported,
                "its attribute user.rsync.%stat is not one that --fake-super writes; mend it or remove it (setfattr -x)",
            ),
        }
    }
}

/// What `user.rsync.%stat` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kept {
    /// With the type.
    mode: u32,
    device: (u32, u32),
    owner: (u32, u32),
}

impl Kept {
    fn parse(bytes: &[u8]) -> Option<Kept> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut words = text.split_ascii_whitespace();
        let mode = u32::from_str_radix(words.next()?, 8).ok()?;
        let (major, minor) = words.next()?.split_once(',')?;
        let (uid, gid) = words.next()?.split_once(':')?;
        Some(Kept {
            mode,
            device: (major.parse().ok()?, minor.parse().ok()?),
            owner: (number(uid)?, number(gid)?),
        })
    }

    fn format(self) -> Vec<u8> {
        let ((major, minor), (uid, gid)) = (self.device, self.owner);
        format!("{:o} {major},{minor} {uid}:{gid}", self.mode).into_bytes()
    }

    fn file_type(self) -> Option<FileType> {
        let (major, minor) = self.device;
        Some(match self.mode & TYPE {
            libc::S_IFREG => FileType::Regular,
            libc::S_IFDIR => FileType::Directory,
            libc::S_IFLNK => FileType::Symlink,
            libc::S_IFIFO => FileType::Special(Special::Fifo),
            libc::S_IFCHR => FileType::Special(Special::CharDevice { major, minor }),
            libc::S_IFBLK => FileType::Special(Special::BlockDevice { major, minor }),
            libc::S_IFSOCK => FileType::Other("socket"),
            _ => return None,
        })
    }
}

/// rsync prints owners as signed numbers.
fn number(text: &str) -> Option<u32> {
    text.parse()
        .ok()
        .or_else(|| text.parse::<i32>().ok().map(|number| number as u32))
}

/// The type bits, and the numbers of a device.
fn type_bits(file_type: FileType) -> (u32, (u32, u32)) {
    match file_type {
        FileType::Directory => (libc::S_IFDIR, (0, 0)),
        FileType::Symlink => (libc::S_IFLNK, (0, 0)),
        FileType::Special(Special::Fifo) => (libc::S_IFIFO, (0, 0)),
        FileType::Special(Special::CharDevice { major, minor }) => (libc::S_IFCHR, (major, minor)),
        FileType::Special(Special::BlockDevice { major, minor }) => (libc::S_IFBLK, (major, minor)),
        FileType::Regular | FileType::Other(_) => (libc::S_IFREG, (0, 0)),
    }
}

/// What an object is taken for, given what it is.
pub(super) fn overlay(target: &Target<'_>, raw: Stat) -> Result<Stat, FakeFault> {
    if !matches!(raw.file_type, FileType::Regular | FileType::Directory) {
        return Ok(raw);
    }
    let Some(kept) = read(target)? else {
        return Ok(raw);
    };
    let file_type = kept.file_type().ok_or(FakeFault::Corrupt)?;
    if (file_type == FileType::Directory) != (raw.file_type == FileType::Directory) {
        return Err(FakeFault::Corrupt);
    }
    let mut stat = Stat { file_type, ..raw };
    stat.attributes.mode = match file_type {
        FileType::Symlink => 0,
        _ => (kept.mode & 0o7777) as u16,
    };
    (stat.attributes.uid, stat.attributes.gid) = kept.owner;
    if let FileType::Special(_) = file_type {
        stat.size = 0;
    }
    Ok(stat)
}

fn read(target: &Target<'_>) -> Result<Option<Kept>, FakeFault> {
    match xattr::get(target, STAT, 256) {
        Ok(bytes) => Kept::parse(&bytes).map(Some).ok_or(FakeFault::Corrupt),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(Errno::RANGE) => Err(FakeFault::Corrupt),
        Err(errno) => Err(FakeFault::Kernel(errno)),
    }
}

/// The attributes of these classes that an object of this mode is taken to have.
pub(super) fn xattrs(
    target: &Target<'_>,
    mode: u16,
    classes: XattrClasses,
) -> Result<FoundXattrs, XattrFault> {
    let stored = xattr::read_all(target, XattrClasses::USER)?.xattrs;
    let mut others = 0;
    let shown = stored.iter().filter_map(|stored| shown(stored, mode));
    let shown = shown.filter(|xattr| {
        let is_wanted = classes.admits(&xattr.name);
        others += u32::from(!is_wanted);
        is_wanted
    });
    let xattrs = Xattrs::new(shown.collect()).map_err(XattrFault::TooMany)?;
    Ok(FoundXattrs { xattrs, others })
}

/// As what a stored attribute is shown, if it is one.
fn shown(stored: &Xattr, mode: u16) -> Option<Xattr> {
    let acl = |name: &[u8], value: Option<Vec<u8>>| {
        value.map(|value| Xattr {
            name: name.to_vec(),
            value,
        })
    };
    match stored.name.as_slice() {
        ACCESS => acl(ACL_ACCESS, acl_from_rsync(&stored.value, mode)),
        DEFAULT => acl(ACL_DEFAULT, acl_from_rsync(&stored.value, mode)),
        name if name.starts_with(RESERVED) => None,
        name => {
            let foreign = name
                .strip_prefix(PREFIX)
                .filter(|rest| !matches!(XattrClasses::of(rest), XattrClasses::NONE | XattrClasses::USER));
            Some(Xattr {
                name: foreign.unwrap_or(name).to_vec(),
                value: stored.value.clone(),
            })
        }
    }
}

/// As what an attribute is stored; `None` if it cannot be.
fn stored(xattr: &Xattr, mode: u16) -> Option<Xattr> {
    let name = match xattr.name.as_slice() {
        ACL_ACCESS => ACCESS.to_vec(),
        ACL_DEFAULT => DEFAULT.to_vec(),
        name if name.starts_with(RESERVED) => return None,
        name if XattrClasses::USER.admits(name) => name.to_vec(),
        name => [PREFIX, name].concat(),
    };
    let value = match xattr.name.as_slice() {
        ACL_ACCESS => acl_to_rsync(&xattr.value, Some(mode))?,
        ACL_DEFAULT => acl_to_rsync(&xattr.value, None)?,
        _ => xattr.value.clone(),
    };
    Some(Xattr { name, value })
}

/// Makes an object one that is taken for `file_type` with these attributes. `now` is what it is, and not what it is taken for.
pub(super) fn apply(
    handle: Handle<'_>,
    now: &Stat,
    file_type: FileType,
    wanted: &Metadata<'_>,
    shown: impl Fn() -> String,
) -> Result<Applied, MetaFault> {
    let Metadata {
        attributes,
        carried,
        owner,
        ..
    } = *wanted;
    if attributes.mode > 0o7777 {
        return Err(MetaFault::Value("the mode has bits that are no permissions"));
    }
    let target = Target::Handle(handle);
    // What it said before is of no use if it is not right.
    let before = read(&target).unwrap_or(None);
    let own = (now.attributes.uid, now.attributes.gid);
    let (bits, device) = type_bits(file_type);
    let mode = match file_type {
        FileType::Symlink => 0o777,
        _ => attributes.mode,
    };
    let kept = Kept {
        mode: bits | u32::from(mode),
        device,
        owner: match carried.owner {
            true => (owner.uid, owner.gid),
            false => before.map_or(own, |before| before.owner),
        },
    };
    // Its owner reads and writes it always.
    let floor = match now.file_type {
        FileType::Directory => 0o700,
        _ => 0o600,
    };
    let on_disk = mode & 0o777 | floor;
    let between = now.attributes.mode & on_disk | floor;
    if now.attributes.mode != between {
        set_mode(handle, between)?;
    }
    let is_what_it_is =
        kept.owner == own && mode == on_disk && matches!(file_type, FileType::Regular | FileType::Directory);
    let entry = (!is_what_it_is).then(|| Xattr {
        name: STAT.to_vec(),
        value: kept.format(),
    });
    let refused = match wanted.xattrs.as_deref() {
        Some(xattrs) => set_all(handle, xattrs, entry, mode)?,
        None => {
            match entry {
                Some(entry) => xattr::set(handle, STAT, &entry.value)?,
                None if before.is_some() => xattr::remove(handle, STAT)?,
                None => {}
            }
            None
        }
    };
    if between != on_disk {
        set_mode(handle, on_disk)?;
    }
    if now.attributes.mtime != attributes.mtime {
        set_mtime(handle, attributes.mtime)?;
    }
    let stat = match overlay(&target, stat_handle(handle.fd())?) {
        Ok(stat) => stat,
        Err(FakeFault::Kernel(errno)) => return Err(errno.into()),
        Err(FakeFault::Corrupt) => return Err(MetaFault::Value("its attribute user.rsync.%stat is corrupt")),
    };
    let refused = refused.map(|(name, errno)| {
        tracing::debug!(name = %name.escape_ascii(), %errno, "an extended attribute was refused");
        let digest = xattrs(&target, mode, carried.xattrs).ok();
        let digest = digest.and_then(|found| found.xattrs.digest());
        (
            FsError::new("set the extended attributes of", shown(), errno),
            digest,
        )
    });
    Ok(Applied { stat, refused })
}

/// Stores all attributes; answers the first that could not be. `entry` is the one for type, mode and owner, which has to be.
fn set_all(
    handle: Handle<'_>,
    wanted: &Xattrs,
    entry: Option<Xattr>,
    mode: u16,
) -> Result<Option<(Vec<u8>, Errno)>, MetaFault> {
    let mut refused = None;
    let mut all = Vec::from_iter(entry);
    for xattr in wanted.iter() {
        match stored(xattr, mode) {
            Some(stored) => all.push(stored),
            None => drop(refused.get_or_insert((xattr.name.clone(), Errno::INVAL))),
        }
    }
    let all = Xattrs::new(all).map_err(|_| MetaFault::Kernel(Errno::TOOBIG))?;
    let plan = match Plan::new(handle, &all, XattrClasses::USER) {
        Ok(plan) => plan,
        Err(XattrFault::Kernel(errno)) => return Err(errno.into()),
        Err(XattrFault::TooMany(_)) => return Err(MetaFault::Kernel(Errno::TOOBIG)),
    };
    for name in plan.remove {
        if let Err(errno) = xattr::remove(handle, &name) {
            refused.get_or_insert((name, errno));
        }
    }
    for Xattr { name, value } in plan.set_first {
        match xattr::set(handle, &name, &value) {
            Ok(()) => {}
            Err(errno) if name == STAT => return Err(errno.into()),
            Err(errno) => drop(refused.get_or_insert((name, errno))),
        }
    }
    Ok(refused)
}

const USER_OBJ: u16 = 1;
const USER: u16 = 2;
const GROUP_OBJ: u16 = 4;
const GROUP: u16 = 8;
const MASK: u16 = 16;
const OTHER: u16 = 32;
/// The kernel's number for entries that name nobody.
const NOBODY: u32 = u32::MAX;
/// rsync's permissions of an entry that is not there, or is as the mode says (`NO_ENTRY` in its `acls.c`).
const NO_ENTRY: u32 = 0x80;
/// rsync's mark of an entry for a user (`NAME_IS_USER`).
const IS_USER: u32 = 1 << 31;

/// An ACL of the kernel's form in that of rsync: four numbers for owner, group, mask and others, then number and permissions of
/// each that is named, all in 32 bits, little endian. With a mode, what that says is left out. `None` if it is no ACL.
fn acl_to_rsync(acl: &[u8], mode: Option<u16>) -> Option<Vec<u8>> {
    let (version, entries) = acl.split_first_chunk::<4>()?;
    let (entries, rest) = entries.as_chunks::<8>();
    if u32::from_le_bytes(*version) != 2 || !rest.is_empty() {
        return None;
    }
    let mut base = [NO_ENTRY; 4];
    let mut named = Vec::new();
    for entry in entries {
        let tag = u16::from_le_bytes([entry[0], entry[1]]);
        let permissions = u32::from(u16::from_le_bytes([entry[2], entry[3]]));
        let id = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
        if permissions > 7 {
            return None;
        }
        match tag {
            USER_OBJ => base[0] = permissions,
            GROUP_OBJ => base[1] = permissions,
            MASK => base[2] = permissions,
            OTHER => base[3] = permissions,
            USER => named.extend([id, permissions | IS_USER]),
            GROUP => named.extend([id, permissions]),
            _ => return None,
        }
    }
    if let Some(mode) = mode.map(u32::from) {
        let said = [mode >> 6 & 7, mode >> 3 & 7, NO_ENTRY, mode & 7];
        for (entry, said) in base.iter_mut().zip(said) {
            if *entry == said {
                *entry = NO_ENTRY;
            }
        }
    }
    Some(base.into_iter().chain(named).flat_map(u32::to_le_bytes).collect())
}

/// The other way round, for an object of this mode.
fn acl_from_rsync(acl: &[u8], mode: u16) -> Option<Vec<u8>> {
    let (numbers, rest) = acl.as_chunks::<4>();
    let numbers: Vec<u32> = numbers.iter().map(|number| u32::from_le_bytes(*number)).collect();
    let (base, named) = numbers.split_first_chunk::<4>()?;
    let (named, odd) = named.as_chunks::<2>();
    if !rest.is_empty() || !odd.is_empty() {
        return None;
    }
    let or_mode = |entry: u32, shift: u16| match entry {
        NO_ENTRY => Some(mode >> shift & 7),
        permissions => u16::try_from(permissions)
            .ok()
            .filter(|permissions| *permissions <= 7),
    };
    let mut entries = vec![
        (USER_OBJ, or_mode(base[0], 6)?, NOBODY),
        (GROUP_OBJ, or_mode(base[1], 3)?, NOBODY),
    ];
    if base[2] != NO_ENTRY || !named.is_empty() {
        entries.push((MASK, or_mode(base[2], 3)?, NOBODY));
    }
    entries.push((OTHER, or_mode(base[3], 0)?, NOBODY));
    for [id, access] in named {
        let tag = match access & IS_USER {
            0 => GROUP,
            _ => USER,
        };
        let permissions = u16::try_from(access & !IS_USER)
            .ok()
            .filter(|permissions| *permissions <= 7)?;
        entries.push((tag, permissions, *id));
    }
    // The kernel's order: by tag, and by number.
    entries.sort_unstable_by_key(|(tag, _, id)| (*tag, *id));
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut bytes = 2u32.to_le_bytes().to_vec();
        for (tag, permissions, id) in entries {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(permissions.to_le_bytes());
            bytes.extend(id.to_le_bytes());
        }
        bytes
    }

    fn rsync(numbers: &[u32]) -> Vec<u8> {
        numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
    }

    /// What rsync 3.5.0 wrote.
    #[test]
    fn acls_are_kept_as_rsync_keeps_them() {
        let named = kernel(&[
            (USER_OBJ, 7, NOBODY),
            (USER, 6, 77),
            (GROUP_OBJ, 5, NOBODY),
            (GROUP, 4, 88),
            (MASK, 5, NOBODY),
            (OTHER, 5, NOBODY),
        ]);
        let kept = rsync(&[0x80, 0x80, 5, 0x80, 77, 6 | IS_USER, 88, 4]);
        assert_eq!(acl_to_rsync(&named, Some(0o4755)), Some(kept.clone()));
        assert_eq!(acl_from_rsync(&kept, 0o4755), Some(named));
        let masked = kernel(&[
            (USER_OBJ, 6, NOBODY),
            (GROUP_OBJ, 7, NOBODY),
            (MASK, 4, NOBODY),
            (OTHER, 0, NOBODY),
        ]);
        let kept = rsync(&[0x80, 7, 4, 0x80]);
        assert_eq!(acl_to_rsync(&masked, Some(0o640)), Some(kept.clone()));
        assert_eq!(acl_from_rsync(&kept, 0o640), Some(masked));
        let default = kernel(&[
            (USER_OBJ, 7, NOBODY),
            (USER, 7, 11),
            (GROUP_OBJ, 5, NOBODY),
            (MASK, 7, NOBODY),
            (OTHER, 0, NOBODY),
        ]);
        let kept = rsync(&[7, 5, 7, 0, 11, 7 | IS_USER]);
        assert_eq!(acl_to_rsync(&default, None), Some(kept.clone()));
        assert_eq!(acl_from_rsync(&kept, 0o3770), Some(default));
    }

    #[test]
    fn what_is_no_acl_is_none() {
        for bytes in [
            &b""[..],
            b"\x02\0\0",
            b"\x01\0\0\0",
            b"\x02\0\0\0\x01\0\x09\0\0\0\0\0",
        ] {
            assert_eq!(acl_to_rsync(bytes, Some(0o644)), None, "{bytes:?}");
        }
        for numbers in [
            &[0x80, 0x80, 0x80][..],
            &[0x80, 0x80, 0x80, 0x80, 1],
            &[9, 0, 0, 0],
            &[7, 7, 7, 7, 1, 9],
        ] {
            assert_eq!(acl_from_rsync(&rsync(numbers), 0o644), None, "{numbers:?}");
        }
    }

    #[test]
    fn the_line_is_the_one_of_rsync() {
        for (line, mode, device, owner) in [
            ("104755 0,0 1234:2345", 0o104_755, (0, 0), (1234, 2345)),
            ("60644 259,70000 0:0", 0o60_644, (259, 70_000), (0, 0)),
        ] {
            let kept = Kept { mode, device, owner };
            assert_eq!(Kept::parse(line.as_bytes()), Some(kept));
            assert_eq!(kept.format(), line.as_bytes());
        }
        assert_eq!(
            Kept::parse(b"100644 0,0 -2:-1").map(|kept| kept.owner),
            Some((u32::MAX - 1, u32::MAX))
        );
        for line in [
            &b""[..],
            b"100644",
            b"100644 0,0",
            b"x 0,0 0:0",
            b"100644 0 0:0",
            b"100644 0,0 a:b",
            b"\xff",
        ] {
            assert_eq!(Kept::parse(line), None, "{line:?}");
        }
    }
}
