//! Whose files these are: the sender's numbers of users and groups, and those of the receiver's disk.
//!
//! Attributes, catalogs and sums have the sender's numbers. An [`OwnerMap`] stands between them and the receiver's
//! disk, and is used in both directions: what is to be set, and what was found. Several numbers of the sender's may be one
//! here, so what was found is read with what was expected: it only counts as another owner if it is one.

mod acl;
mod rules;

pub use acl::acl_owners;
pub use rules::{OwnerRules, OwnerRulesError};

use driftless_protocol::{OwnerHere, OwnerKind};
use std::collections::BTreeMap;
use thiserror::Error;

/// A number that nobody has: an owner on the disk who is none of the sender's.
pub const NOBODY: u32 = u32::MAX;

/// User and group, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Owner {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

/// The sender's user or group has no counterpart here, and must have one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "the {kind} that is to stand for the sender's number {id} does not exist here: make it, or map it to another"
)]
pub struct Unmapped {
    /// User or group.
    pub kind: OwnerKind,
    /// The sender's number.
    pub id: u32,
}

/// Numbers of the sender's, and what they are here. Those that are not in it mean themselves.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct IdMap {
    here: BTreeMap<u32, Option<u32>>,
    /// The lowest number of the sender's for each that is here.
    theirs: BTreeMap<u32, u32>,
}

impl IdMap {
    fn set(&mut self, id: u32, here: Option<u32>) {
        // That a number means itself is no news, so that maps which mean the same are equal.
        let before = match here == Some(id) {
            true => self.here.remove(&id),
            false => self.here.insert(id, here),
        };
        if here == Some(id) && before.is_none() {
            return;
        }
        if before.is_some_and(|before| before != here) {
            // Rare, and not worth an index of all.
            let all = std::mem::take(&mut self.here);
            self.theirs.clear();
            all.into_iter().for_each(|(id, here)| self.set(id, here));
        } else if let Some(here) = here {
            let lowest = self.theirs.entry(here).or_insert(id);
            *lowest = id.min(*lowest);
        }
    }

    fn here(&self, id: u32) -> Option<u32> {
        self.here.get(&id).copied().unwrap_or(Some(id))
    }

    fn theirs(&self, here: u32, expected: u32) -> u32 {
        if self.here(expected) == Some(here) {
            return expected;
        }
        match self.theirs.get(&here) {
            Some(&id) => id,
            None if self.here.contains_key(&here) => NOBODY,
            None => here,
        }
    }
}

/// How the sender's owners are mapped to those of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OwnerMap {
    users: IdMap,
    groups: IdMap,
}

impl OwnerMap {
    /// Says what a number of the sender's is here.
    pub fn set(&mut self, row: OwnerHere) {
        match row.kind {
            OwnerKind::User => self.users.set(row.id, row.here),
            OwnerKind::Group => self.groups.set(row.id, row.here),
        }
    }

    /// What one of the sender's numbers is here; none if it must have a name that is missing here.
    pub fn one(&self, kind: OwnerKind, id: u32) -> Option<u32> {
        match kind {
            OwnerKind::User => self.users.here(id),
            OwnerKind::Group => self.groups.here(id),
        }
    }

    /// What an owner of the sender's is on this disk.
    pub fn here(&self, theirs: Owner) -> Result<Owner, Unmapped> {
        let one = |kind, id| self.one(kind, id).ok_or(Unmapped { kind, id });
        Ok(Owner {
            uid: one(OwnerKind::User, theirs.uid)?,
            gid: one(OwnerKind::Group, theirs.gid)?,
        })
    }

    /// Whose something on this disk is, in the sender's numbers: `expected` if that is right, otherwise the lowest that was
    /// [set](OwnerMap::set), or the number itself if it is none of the sender's others, or [`NOBODY`]. Expect nobody where
    /// nothing is known.
    pub fn theirs(&self, here: Owner, expected: Owner) -> Owner {
        Owner {
            uid: self.users.theirs(here.uid, expected.uid),
            gid: self.groups.theirs(here.gid, expected.gid),
        }
    }

    /// How many numbers are in it.
    pub fn len(&self) -> usize {
        self.users.here.len() + self.groups.here.len()
    }

    /// Whether all numbers mean themselves.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A form for storing: for each number, kind (1 byte), the sender's (4, big endian), whether there is one here (1), and
    /// which (4).
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(10 * self.len());
        for (kind, map) in [(0, &self.users), (1, &self.groups)] {
            for (id, here) in &map.here {
                bytes.push(kind);
                bytes.extend_from_slice(&id.to_be_bytes());
                bytes.push(u8::from(here.is_some()));
                bytes.extend_from_slice(&here.unwrap_or(0).to_be_bytes());
            }
        }
        bytes
    }

    /// Reads what [`OwnerMap::to_bytes`] wrote; `None` for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Option<OwnerMap> {
        let mut map = OwnerMap::default();
        let (rows, rest) = bytes.as_chunks::<10>();
        for &[kind, a, b, c, d, known, e, f, g, h] in rows {
            let here = Some(u32::from_be_bytes([e, f, g, h])).filter(|_| known == 1);
            let kind = match kind {
                0 => OwnerKind::User,
                1 => OwnerKind::Group,
                _ => return None,
            };
            let id = u32::from_be_bytes([a, b, c, d]);
            map.set(OwnerHere { kind, id, here });
        }
        rest.is_empty().then_some(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(rows: &[(u32, Option<u32>)]) -> OwnerMap {
        let mut map = OwnerMap::default();
        for &(id, here) in rows {
            map.set(OwnerHere {
                kind: OwnerKind::User,
                id,
                here,
            });
        }
        map
    }

    fn user(uid: u32) -> Owner {
        Owner { uid, gid: 5 }
    }

    #[test]
    fn numbers_without_a_row_mean_themselves() {
        let map = map(&[(1_000, Some(2_000))]);
        assert_eq!(map.here(user(7)), Ok(user(7)));
        assert_eq!(map.here(user(1_000)), Ok(user(2_000)));
        assert_eq!(map.theirs(user(7), user(9)), user(7));
        assert_eq!(map.theirs(user(2_000), user(9)), user(1_000));
    }

    /// The number of somebody here that is another's there stands for nobody there.
    #[test]
    fn who_is_none_of_the_sender_s_is_nobody() {
        let map = map(&[(1_000, Some(2_000))]);
        assert_eq!(map.theirs(user(1_000), user(1_000)), user(NOBODY));
    }

    #[test]
    fn of_several_that_are_one_here_the_expected_one_is_found() {
        let map = map(&[(3, Some(9)), (1, Some(9)), (2, Some(8))]);
        assert_eq!(map.theirs(user(9), user(3)), user(3));
        assert_eq!(map.theirs(user(9), user(1)), user(1));
        assert_eq!(map.theirs(user(9), user(2)), user(1));
        // Also the one that means itself.
        assert_eq!(map.theirs(user(9), user(9)), user(9));
    }

    #[test]
    fn a_row_that_changes_leaves_nothing_behind() {
        let mut map = map(&[(1, Some(9)), (2, Some(9))]);
        map.set(OwnerHere {
            kind: OwnerKind::User,
            id: 1,
            here: Some(7),
        });
        assert_eq!(map.theirs(user(9), user(0)), user(2));
        assert_eq!(map.theirs(user(7), user(0)), user(1));
    }

    #[test]
    fn a_missing_name_is_said_and_nothing_is_its_owner_s() {
        let map = map(&[(1, None)]);
        let unmapped = map.here(user(1)).unwrap_err();
        assert_eq!((unmapped.kind, unmapped.id), (OwnerKind::User, 1));
        assert_eq!(map.theirs(user(1), user(1)), user(NOBODY));
    }

    #[test]
    fn maps_are_stored_and_read_back() {
        let mut map = map(&[(1, None), (2, Some(u32::MAX - 1))]);
        map.set(OwnerHere {
            kind: OwnerKind::Group,
            id: 2,
            here: Some(3),
        });
        assert_eq!(OwnerMap::from_bytes(&map.to_bytes()), Some(map.clone()));
        assert_eq!(OwnerMap::from_bytes(&map.to_bytes()[1..]), None);
        assert_eq!(OwnerMap::from_bytes(b""), Some(OwnerMap::default()));
    }
}
