//! Which directory of which file system has which number.

use super::super::table::{Member, Table};
use super::records::HandleRef;
use driftless_protocol::ObjectId;
use std::collections::HashMap;

/// How many file systems one watcher looks at.
pub(super) const FILE_SYSTEMS_MAX: usize = 64;

/// Handles up to this length are kept in place; those of ext4 have 8 bytes, of xfs and tmpfs 12, of btrfs 20.
const INLINE_BYTES: usize = 20;

/// The watched directories by their handles, for all trees that share a group.
#[derive(Debug, Default)]
pub(super) struct Directories {
    table: Table<Key>,
    file_systems: Vec<FileSystem>,
    /// The directories that the roots of trees stand in. What is renamed or removed there may be the root.
    above_roots: HashMap<Member, Key>,
}

#[derive(Debug)]
struct FileSystem {
    id: [u8; 8],
    device: u64,
    directories: usize,
}

/// A file handle and the place of its file system in [`Directories::file_systems`]. 24 bytes, since there is one (in
/// each of the table's maps) for every directory of a tree.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// A handle that fits.
    Inline {
        file_system: u8,
        kind: u8,
        length: u8,
        bytes: [u8; INLINE_BYTES],
    },
    /// Any other.
    Long(Box<LongKey>),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct LongKey {
    file_system: u8,
    kind: i32,
    bytes: Vec<u8>,
}

/// Why a file system cannot be taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// There are as many as there may be.
    TooMany,
    /// Another file system has the same id: their events could not be told apart.
    SameId,
}

impl Directories {
    /// The key of a handle; `None` if nothing on its file system is watched.
    pub(super) fn key(&self, handle: &HandleRef<'_>) -> Option<Key> {
        let index = self
            .file_systems
            .iter()
            .position(|known| known.id == handle.file_system)?;
        Some(Key::new(index as u8, handle))
    }

    /// Who watches a directory, under which number.
    pub(super) fn get(&self, key: &Key) -> &[(Member, ObjectId)] {
        self.table.get(key)
    }

    /// The trees whose roots stand in this directory.
    pub(super) fn roots_in<'a>(&'a self, key: &'a Key) -> impl Iterator<Item = Member> + 'a {
        let above = self.above_roots.iter().filter(move |(_, above)| *above == key);
        above.map(|(member, _)| *member)
    }

    /// Notes a directory that is on the device `device`.
    pub(super) fn insert(
        &mut self,
        member: Member,
        handle: &HandleRef<'_>,
        device: u64,
        directory: ObjectId,
    ) -> Result<(), Refused> {
        let index = self.file_system(handle.file_system, device)?;
        let key = Key::new(index, handle);
        if self.table.get(&key).is_empty() {
            self.file_systems[usize::from(index)].directories += 1;
        }
        if let Some(former) = self.table.insert(member, key, directory) {
            self.count_down(&former);
        }
        Ok(())
    }

    /// Notes the directory that the root stands in, unless it is on a file system of which nothing is watched.
    pub(super) fn set_above_root(&mut self, member: Member, handle: Option<&HandleRef<'_>>) {
        match handle.and_then(|handle| self.key(handle)) {
            Some(key) => _ = self.above_roots.insert(member, key),
            None => _ = self.above_roots.remove(&member),
        }
    }

    /// Forgets a directory of a tree.
    pub(super) fn remove(&mut self, member: Member, directory: ObjectId) {
        if directory == ObjectId::ROOT {
            self.above_roots.remove(&member);
        }
        if let Some(key) = self.table.remove(member, directory) {
            self.count_down(&key);
        }
    }

    /// Forgets a tree.
    pub(super) fn remove_member(&mut self, member: Member) {
        self.above_roots.remove(&member);
        for key in self.table.remove_member(member) {
            self.count_down(&key);
        }
    }

    /// How many directories of a tree are watched.
    pub(super) fn len(&self, member: Member) -> usize {
        self.table.len(member)
    }

    /// The place of a file system, which takes that of one without directories when all are taken.
    fn file_system(&mut self, id: [u8; 8], device: u64) -> Result<u8, Refused> {
        let known = self.file_systems.iter().position(|known| known.id == id);
        let index = match known {
            Some(index) => {
                let known = &self.file_systems[index];
                if known.device != device && known.directories > 0 {
                    return Err(Refused::SameId);
                }
                index
            }
            None if self.file_systems.len() < FILE_SYSTEMS_MAX => {
                self.file_systems.push(FileSystem {
                    id,
                    device,
                    directories: 0,
                });
                self.file_systems.len() - 1
            }
            None => self
                .file_systems
                .iter()
                .position(|known| known.directories == 0)
                .ok_or(Refused::TooMany)?,
        };
        let place = &mut self.file_systems[index];
        (place.id, place.device) = (id, device);
        Ok(index as u8)
    }

    fn count_down(&mut self, key: &Key) {
        let place = &mut self.file_systems[usize::from(key.file_system())];
        place.directories = place.directories.saturating_sub(1);
    }
}

impl Key {
    fn new(file_system: u8, handle: &HandleRef<'_>) -> Key {
        let length = handle.bytes.len();
        match u8::try_from(handle.kind) {
            Ok(kind) if length <= INLINE_BYTES => {
                let mut bytes = [0; INLINE_BYTES];
                bytes[..length].copy_from_slice(handle.bytes);
                Key::Inline {
                    file_system,
                    kind,
                    length: length as u8,
                    bytes,
                }
            }
            _ => Key::Long(Box::new(LongKey {
                file_system,
                kind: handle.kind,
                bytes: handle.bytes.to_vec(),
            })),
        }
    }

    fn file_system(&self) -> u8 {
        match self {
            Key::Inline { file_system, .. } => *file_system,
            Key::Long(key) => key.file_system,
        }
    }

    /// The kind and the bytes of the handle.
    pub(super) fn handle(&self) -> (i32, &[u8]) {
        match self {
            Key::Inline {
                kind, length, bytes, ..
            } => (i32::from(*kind), &bytes[..usize::from(*length)]),
            Key::Long(key) => (key.kind, &key.bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: Member = Member(3);

    fn handle(file_system: u8, bytes: &[u8]) -> HandleRef<'_> {
        HandleRef {
            file_system: [file_system; 8],
            kind: 0x81,
            bytes,
        }
    }

    #[test]
    fn handles_of_every_length_are_told_apart() {
        let mut directories = Directories::default();
        let bytes = [0; 128];
        for length in 0..=128 {
            let object = ObjectId(1 + length as u64);
            directories
                .insert(TREE, &handle(1, &bytes[..length]), 9, object)
                .unwrap();
            let other = HandleRef {
                kind: 0x1_0081,
                ..handle(1, &bytes[..length])
            };
            directories
                .insert(TREE, &other, 9, ObjectId(1_000 + length as u64))
                .unwrap();
        }
        assert_eq!(directories.len(TREE), 258);
        for length in 0..=128 {
            let key = directories.key(&handle(1, &bytes[..length])).unwrap();
            assert_eq!(directories.get(&key), [(TREE, ObjectId(1 + length as u64))]);
            assert_eq!(key.handle(), (0x81, &bytes[..length]));
        }
        assert_eq!(size_of::<Key>(), 24);
    }

    #[test]
    fn file_systems_are_bounded_and_places_are_given_again() {
        let mut directories = Directories::default();
        for number in 0..FILE_SYSTEMS_MAX as u8 {
            directories
                .insert(
                    TREE,
                    &handle(number, b"a"),
                    u64::from(number),
                    ObjectId(u64::from(number)),
                )
                .unwrap();
        }
        let late = handle(200, b"a");
        assert_eq!(
            directories.insert(TREE, &late, 200, ObjectId(200)),
            Err(Refused::TooMany)
        );
        assert_eq!(directories.key(&late), None);
        directories.remove(TREE, ObjectId(7));
        directories.remove(TREE, ObjectId(7));
        directories.insert(TREE, &late, 200, ObjectId(200)).unwrap();
        let key = directories.key(&late).unwrap();
        assert_eq!(directories.get(&key), [(TREE, ObjectId(200))]);
        assert_eq!(directories.key(&handle(7, b"a")), None);
    }

    #[test]
    fn two_file_systems_with_one_id_are_refused() {
        let mut directories = Directories::default();
        directories
            .insert(TREE, &handle(1, b"a"), 10, ObjectId(2))
            .unwrap();
        let copy = handle(1, b"b");
        assert_eq!(
            directories.insert(TREE, &copy, 11, ObjectId(3)),
            Err(Refused::SameId)
        );
        // A number that moves to another directory leaves the former, and nothing is left of its file system.
        directories
            .insert(TREE, &handle(2, b"a"), 12, ObjectId(2))
            .unwrap();
        directories.insert(TREE, &copy, 11, ObjectId(3)).unwrap();
        assert_eq!(directories.len(TREE), 2);
    }
    #[test]
    fn trees_share_directories_and_leave_them_one_by_one() {
        let (mut directories, other) = (Directories::default(), Member(4));
        let (inner, outer) = (handle(1, b"in"), handle(1, b"out"));
        directories.insert(TREE, &inner, 9, ObjectId(2)).unwrap();
        directories.insert(other, &inner, 9, ObjectId::ROOT).unwrap();
        directories.insert(other, &outer, 9, ObjectId(2)).unwrap();
        directories.set_above_root(other, Some(&outer));
        let [key, above] = [inner, outer].map(|handle| directories.key(&handle).unwrap());
        assert_eq!(
            directories.get(&key),
            [(TREE, ObjectId(2)), (other, ObjectId::ROOT)]
        );
        assert!(directories.roots_in(&above).eq([other]) && directories.roots_in(&key).next().is_none());
        directories.remove_member(other);
        assert!(directories.roots_in(&above).next().is_none() && directories.get(&above).is_empty());
        assert_eq!(directories.get(&key), [(TREE, ObjectId(2))]);
        directories.remove_member(TREE);
        // Nothing is watched there any more, so another file system may have its place.
        let again = handle(1, b"in");
        directories.insert(other, &again, 10, ObjectId(2)).unwrap();
    }
}
