//! ACLs name users and groups, too.

use super::{NOBODY, OwnerMap, Unmapped};
use driftless_protocol::xattr::{ACL_ACCESS, ACL_DEFAULT};
use driftless_protocol::{OwnerKind, Xattr, Xattrs};
use std::borrow::Cow;
use std::convert::Infallible;

/// The users and groups whom ACLs among these attributes name.
pub fn acl_owners(xattrs: &Xattrs) -> Vec<(OwnerKind, u32)> {
    let mut found = Vec::new();
    for (_, entry) in acls(xattrs).flat_map(|acl| entries(&acl.value)) {
        found.extend(named(entry));
    }
    found
}

impl OwnerMap {
    /// Attributes of the sender's, with the users and groups in ACLs as they are here.
    pub fn xattrs_here<'a>(&self, xattrs: &'a Xattrs) -> Result<Cow<'a, Xattrs>, Unmapped> {
        mapped(xattrs, self.is_empty(), |kind, id| {
            self.one(kind, id).ok_or(Unmapped { kind, id })
        })
    }

    /// Attributes found here, with the users and groups in ACLs as the sender numbers them: the lowest where several are
    /// one here.
    pub fn xattrs_theirs<'a>(&self, xattrs: &'a Xattrs) -> Cow<'a, Xattrs> {
        let theirs = |kind, id| {
            let map = match kind {
                OwnerKind::User => &self.users,
                OwnerKind::Group => &self.groups,
            };
            Ok::<_, Infallible>(map.theirs(id, NOBODY))
        };
        match mapped(xattrs, self.is_empty(), theirs) {
            Ok(mapped) => mapped,
            Err(never) => match never {},
        }
    }
}

fn mapped<E>(
    xattrs: &Xattrs,
    is_same: bool,
    map: impl Fn(OwnerKind, u32) -> Result<u32, E>,
) -> Result<Cow<'_, Xattrs>, E> {
    if is_same || acls(xattrs).next().is_none() {
        return Ok(Cow::Borrowed(xattrs));
    }
    let mut changed: Vec<Xattr> = xattrs.iter().cloned().collect();
    for acl in changed.iter_mut().filter(|xattr| is_acl(&xattr.name)) {
        let value = acl.value.clone();
        for (at, entry) in entries(&value) {
            if let Some((kind, id)) = named(entry) {
                acl.value[at + 4..at + 8].copy_from_slice(&map(kind, id)?.to_le_bytes());
            }
        }
    }
    // As many and as long as before.
    Ok(Xattrs::new(changed).map_or(Cow::Borrowed(xattrs), Cow::Owned))
}

fn acls(xattrs: &Xattrs) -> impl Iterator<Item = &Xattr> {
    xattrs.iter().filter(|xattr| is_acl(&xattr.name))
}

fn is_acl(name: &[u8]) -> bool {
    name == ACL_ACCESS || name == ACL_DEFAULT
}

/// The entries of an ACL in the form that the kernel takes, and where they begin: a version (4 bytes), then tag (2),
/// permissions (2) and id (4), little endian. None if the bytes are no ACL.
fn entries(acl: &[u8]) -> impl Iterator<Item = (usize, &[u8; 8])> {
    let rows = acl.get(4..).map_or(&[][..], |rows| rows.as_chunks::<8>().0);
    rows.iter().enumerate().map(|(number, row)| (4 + 8 * number, row))
}

/// Whom an entry names.
fn named(entry: &[u8; 8]) -> Option<(OwnerKind, u32)> {
    const USER: u16 = 2;
    const GROUP: u16 = 8;
    let id = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
    match u16::from_le_bytes([entry[0], entry[1]]) {
        USER => Some((OwnerKind::User, id)),
        GROUP => Some((OwnerKind::Group, id)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use driftless_protocol::OwnerHere;

    fn acl(user: u32, group: u32) -> Xattrs {
        let none = u32::MAX;
        let rows = [
            (1, none),
            (2, user),
            (4, none),
            (8, group),
            (16, none),
            (32, none),
        ];
        let mut value = 2u32.to_le_bytes().to_vec();
        for (tag, id) in rows {
            value.extend(u16::to_le_bytes(tag));
            value.extend(6u16.to_le_bytes());
            value.extend(u32::to_le_bytes(id));
        }
        let (name, other) = (ACL_ACCESS.to_vec(), b"user.a".to_vec());
        let kept = value.clone();
        Xattrs::new(vec![
            Xattr { name, value },
            Xattr {
                name: other,
                value: kept,
            },
        ])
        .unwrap()
    }

    #[test]
    fn those_whom_acls_name_are_mapped_there_and_back() {
        let mut map = OwnerMap::default();
        assert_eq!(map.xattrs_here(&acl(5, 6)).unwrap().as_ref(), &acl(5, 6));
        for (kind, id, here) in [(OwnerKind::User, 5, Some(50)), (OwnerKind::Group, 6, Some(60))] {
            map.set(OwnerHere { kind, id, here });
        }
        let (theirs, here) = (acl(5, 6), acl(50, 60));
        let found = map.xattrs_here(&theirs).unwrap();
        assert_eq!(found.get(ACL_ACCESS), here.get(ACL_ACCESS));
        // What looks like one and is none stays.
        assert_eq!(found.get(b"user.a"), theirs.get(b"user.a"));
        assert_eq!(map.xattrs_theirs(&found).as_ref(), &theirs);
        assert_eq!(acl_owners(&theirs), [(OwnerKind::User, 5), (OwnerKind::Group, 6)]);
        map.set(OwnerHere {
            kind: OwnerKind::User,
            id: 5,
            here: None,
        });
        assert_eq!(map.xattrs_here(&theirs).unwrap_err().id, 5);
    }

    #[test]
    fn bytes_that_are_no_acl_are_left_alone() {
        let mut map = OwnerMap::default();
        map.set(OwnerHere {
            kind: OwnerKind::User,
            id: 1,
            here: Some(2),
        });
        for value in [&b""[..], b"\x02", b"\x02\0\0\0\x02\0"] {
            let name = ACL_DEFAULT.to_vec();
            let value = value.to_vec();
            let xattrs = Xattrs::new(vec![Xattr { name, value }]).unwrap();
            assert_eq!(map.xattrs_here(&xattrs).unwrap().as_ref(), &xattrs);
            assert!(acl_owners(&xattrs).is_empty());
        }
    }
}
