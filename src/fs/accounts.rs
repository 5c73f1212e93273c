//! The users and groups of this machine, wherever they are kept: `/etc/passwd`, LDAP, or what else the C library asks.

use super::account_helper;
use driftless_protocol::{OwnerKind, OwnerName};
use std::ffi::{CStr, CString, c_char, c_int};
use std::io;
use std::ptr::null_mut;

/// A group of very many members needs that much.
const BUFFER_BYTES_MAX: usize = 16 << 20;

/// The bits that this process leaves out of the modes of new files. Reading them the old way would change them for a moment.
pub fn umask() -> u16 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let text = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    text.and_then(|text| u16::from_str_radix(text.trim(), 8).ok())
        .unwrap_or(0o022)
}

/// The name of a user or group; none if it has none. May ask a server, and so take long or fail.
pub fn owner_name(kind: OwnerKind, id: u32) -> io::Result<Option<OwnerName>> {
    let name = match kind {
        OwnerKind::User => {
            // SAFETY: all pointers are good for the call, and `length` bytes are behind `buffer`.
            look_up(|entry: *mut libc::passwd, buffer, length, found| unsafe {
                libc::getpwuid_r(id, entry, buffer, length, found)
            })?
            .map(|(_, name)| name)
        }
        OwnerKind::Group => {
            // SAFETY: as above.
            look_up(|entry: *mut libc::group, buffer, length, found| unsafe {
                libc::getgrgid_r(id, entry, buffer, length, found)
            })?
            .map(|(_, name)| name)
        }
    };
    // One that cannot be carried is as good as none.
    Ok(name.and_then(|name| OwnerName::new(name).ok()))
}

/// The number of a user or group of this name; none if there is no such. May ask a server, and so take long or fail.
pub fn owner_id(kind: OwnerKind, name: &OwnerName) -> io::Result<Option<u32>> {
    account_helper::ask(kind, name).unwrap_or_else(|| find_id(kind, name))
}

/// As [`owner_id`], by this process itself.
pub(super) fn find_id(kind: OwnerKind, name: &OwnerName) -> io::Result<Option<u32>> {
    let name = CString::new(name.as_bytes()).map_err(io::Error::from)?;
    let id = match kind {
        OwnerKind::User => {
            // SAFETY: as above, and `name` ends in zero.
            look_up(|entry: *mut libc::passwd, buffer, length, found| unsafe {
                libc::getpwnam_r(name.as_ptr(), entry, buffer, length, found)
            })?
            .map(|(entry, _)| entry.pw_uid)
        }
        OwnerKind::Group => {
            // SAFETY: as above, and `name` ends in zero.
            look_up(|entry: *mut libc::group, buffer, length, found| unsafe {
                libc::getgrnam_r(name.as_ptr(), entry, buffer, length, found)
            })?
            .map(|(entry, _)| entry.gr_gid)
        }
    };
    Ok(id)
}

/// What the four calls fill in.
trait Account {
    fn name(&self) -> *const c_char;
}

impl Account for libc::passwd {
    fn name(&self) -> *const c_char {
        self.pw_name
    }
}

impl Account for libc::group {
    fn name(&self) -> *const c_char {
        self.gr_name
    }
}

/// Calls one of the four, with a buffer that is large enough, and answers the entry and a copy of its name. The pointers in
/// the entry lead nowhere any more.
fn look_up<E: Account>(
    call: impl Fn(*mut E, *mut c_char, usize, *mut *mut E) -> c_int,
) -> io::Result<Option<(E, Vec<u8>)>> {
    let mut buffer = vec![0 as c_char; 1_024];
    loop {
        let mut entry = std::mem::MaybeUninit::<E>::uninit();
        let mut found = null_mut();
        let errno = call(entry.as_mut_ptr(), buffer.as_mut_ptr(), buffer.len(), &mut found);
        match errno {
            libc::ERANGE if buffer.len() < BUFFER_BYTES_MAX => {
                let longer = buffer.len() * 4;
                buffer.resize(longer, 0);
            }
            libc::EINTR => {}
            // How this C library or that says that there is none; see getpwnam(3).
            0 | libc::ENOENT | libc::ESRCH | libc::EBADF | libc::EPERM if found.is_null() => return Ok(None),
            0 => {
                // SAFETY: `found` is not null, so the call has filled the entry in.
                let entry = unsafe { entry.assume_init() };
                // SAFETY: its name ends in zero, in `buffer`, which still lives.
                let name = unsafe { CStr::from_ptr(entry.name()) }.to_bytes().to_vec();
                return Ok(Some((entry, name)));
            }
            errno => return Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_those_of_the_databases() {
        for (kind, file) in [(OwnerKind::User, "/etc/passwd"), (OwnerKind::Group, "/etc/group")] {
            let text = std::fs::read_to_string(file).unwrap();
            for line in text.lines().filter(|line| !line.starts_with(['#', '+', '-'])) {
                let mut fields = line.split(':');
                let (Some(name), Some(id)) = (fields.next(), fields.nth(1)) else {
                    continue;
                };
                let (Ok(name), Ok(id)) = (OwnerName::new(name), id.parse::<u32>()) else {
                    continue;
                };
                // Two lines may have one name or number; then the first counts.
                let known = owner_id(kind, &name).unwrap().unwrap();
                assert!(
                    known == id || text.matches(&format!("{name}:")).count() > 1,
                    "{line}"
                );
                let back = owner_name(kind, id).unwrap().unwrap();
                assert_eq!(owner_id(kind, &back).unwrap(), Some(id), "{line}");
            }
            assert_eq!(owner_id(kind, &OwnerName::new("root").unwrap()).unwrap(), Some(0));
            let nobody = OwnerName::new("driftless-nobody-has-this-name").unwrap();
            assert_eq!(owner_id(kind, &nobody).unwrap(), None);
            assert_eq!(owner_name(kind, 3_999_999_999).unwrap(), None);
        }
    }
}
