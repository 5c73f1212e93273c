//! The independent comparison of two trees: a plain walk that reads every byte. It shares no code with either tool.

use super::BenchError;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What is compared of one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    kind: u8,
    mode: u32,
    owner: (u32, u32),
    /// Of files and directories; links have times too, which not every tool carries.
    mtime: Option<(i64, i64)>,
    size: u64,
    content: [u8; 32],
}

/// A tree as it is on the disk. Modes, owners, times (not of the root and of links) and contents count; files whose names
/// begin with `.driftless` are the tool's own.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    entries: BTreeMap<Vec<u8>, Entry>,
}

impl Tree {
    /// Reads a tree.
    ///
    /// # Errors
    /// When anything in it cannot be read.
    pub fn read(root: &Path) -> io::Result<Tree> {
        let mut tree = Tree::default();
        let mut buffer = vec![0; 1 << 20];
        tree.add(root, &mut Vec::new(), &mut buffer)?;
        Ok(tree)
    }

    fn add(&mut self, directory: &Path, prefix: &mut Vec<u8>, buffer: &mut [u8]) -> io::Result<()> {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            if entry.file_name().as_bytes().starts_with(b".driftless") {
                continue;
            }
            let (path, meta, length) = (entry.path(), entry.metadata()?, prefix.len());
            prefix.extend_from_slice(entry.file_name().as_bytes());
            let (kind, size, content) = if meta.is_dir() {
                (b'd', 0, [0; 32])
            } else if meta.is_symlink() {
                (
                    b'l',
                    0,
                    *blake3::hash(fs::read_link(&path)?.as_os_str().as_bytes()).as_bytes(),
                )
            } else if meta.is_file() {
                // Very many files of a large tree are empty: to open each would take longer than all else.
                let content = match meta.len() {
                    0 => *blake3::hash(&[]).as_bytes(),
                    _ => digest(&path, buffer)?,
                };
                (b'f', meta.len(), content)
            } else {
                (b'o', 0, [0; 32])
            };
            let found = Entry {
                kind,
                mode: if kind == b'l' { 0 } else { meta.mode() & 0o7777 },
                owner: (meta.uid(), meta.gid()),
                mtime: (kind != b'l').then(|| (meta.mtime(), meta.mtime_nsec())),
                size,
                content,
            };
            self.entries.insert(prefix.clone(), found);
            if kind == b'd' {
                prefix.push(b'/');
                self.add(&path, prefix, buffer)?;
            }
            prefix.truncate(length);
        }
        Ok(())
    }

    /// The first difference to another tree, in words; `None` when they are equal.
    #[must_use]
    pub fn difference(&self, copy: &Tree) -> Option<String> {
        self.first_difference(copy, |wanted, found| wanted.mtime == found.mtime)
    }

    /// The same, but times of directories need only be in the same second: a directory that rsync finds or makes in the
    /// right second keeps the rest of the time that it has.
    #[must_use]
    pub fn difference_beside_fractions(&self, copy: &Tree) -> Option<String> {
        let second = |entry: &Entry| entry.mtime.map(|(second, _)| second);
        self.first_difference(copy, |wanted, found| {
            wanted.mtime == found.mtime || (wanted.kind == b'd' && second(wanted) == second(found))
        })
    }

    fn first_difference(&self, copy: &Tree, is_same_time: impl Fn(&Entry, &Entry) -> bool) -> Option<String> {
        for (path, wanted) in &self.entries {
            let name = String::from_utf8_lossy(path).into_owned();
            let Some(found) = copy.entries.get(path) else {
                return Some(format!("the copy lacks {name}"));
            };
            let what = if found.kind != wanted.kind {
                "kind"
            } else if found.size != wanted.size || found.content != wanted.content {
                "content"
            } else if found.mode != wanted.mode {
                "mode"
            } else if found.owner != wanted.owner {
                "owner"
            } else if !is_same_time(wanted, found) {
                "modification time"
            } else {
                continue;
            };
            return Some(format!("the {what} of {name} differs"));
        }
        let extra = copy.entries.keys().find(|path| !self.entries.contains_key(*path));
        extra.map(|path| format!("the copy has {} too much", String::from_utf8_lossy(path)))
    }

    /// The first difference to the tree at `copy`, in words.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn difference_on_disk(&self, copy: &Path) -> Result<Option<String>, BenchError> {
        let found = Tree::read(copy).map_err(|error| BenchError::io("read", copy, &error))?;
        Ok(self.difference(&found))
    }

    /// The paths of all entries below the root, as text.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let names = self.entries.keys();
        names
            .map(|path| String::from_utf8_lossy(path).into_owned())
            .collect()
    }

    /// Bytes of content.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.entries.values().map(|entry| entry.size).sum()
    }

    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes in files of `later` whose content is not what it was here.
    #[cfg(test)]
    pub(super) fn changed_bytes(&self, later: &Tree) -> u64 {
        let same = |path: &Vec<u8>, entry: &Entry| {
            self.entries
                .get(path)
                .is_some_and(|old| old.content == entry.content)
        };
        later
            .entries
            .iter()
            .filter(|(path, entry)| !same(path, entry))
            .map(|(_, entry)| entry.size)
            .sum()
    }
}

fn digest(path: &Path, buffer: &mut [u8]) -> io::Result<[u8; 32]> {
    let (mut file, mut hasher) = (File::open(path)?, blake3::Hasher::new());
    loop {
        match file.read(buffer)? {
            0 => return Ok(*hasher.finalize().as_bytes()),
            length => hasher.update(&buffer[..length]),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    #[test]
    fn every_kind_of_difference_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let (a, b) = (directory.path().join("a"), directory.path().join("b"));
        for root in [&a, &b] {
            super::super::corpus::source_tree(root, 1, 1 << 18).unwrap();
            fs::write(root.join("file"), "content").unwrap();
            super::super::corpus::restamp(root, 0).unwrap();
        }
        let wanted = Tree::read(&a).unwrap();
        let says = |what: &str| {
            let difference = wanted.difference_on_disk(&b).unwrap();
            assert_eq!(difference.as_deref(), (!what.is_empty()).then_some(what));
        };
        says("");
        let (file, time) = (
            b.join("file"),
            fs::metadata(b.join("file")).unwrap().modified().unwrap(),
        );
        let stamp = |path: &Path| File::open(path).unwrap().set_modified(time).unwrap();
        // Nothing but one bit tells.
        fs::write(&file, "contenu").unwrap();
        stamp(&file);
        says("the content of file differs");
        fs::write(&file, "content").unwrap();
        says("the modification time of file differs");
        stamp(&file);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o711)).unwrap();
        says("the mode of file differs");
        fs::remove_file(&file).unwrap();
        says("the copy lacks file");
        fs::create_dir(&file).unwrap();
        says("the kind of file differs");
        fs::remove_dir(&file).unwrap();
        fs::write(&file, "content").unwrap();
        stamp(&file);
        fs::set_permissions(&file, fs::metadata(a.join("file")).unwrap().permissions()).unwrap();
        says("");
        // rsync leaves fractions of a second to directories that it makes or finds.
        let (source, copy) = (
            fs::metadata(a.join("d0")).unwrap(),
            File::open(b.join("d0")).unwrap(),
        );
        let modified = source.modified().unwrap();
        for (late, counts) in [(Duration::from_nanos(1), false), (Duration::from_secs(1), true)] {
            copy.set_modified(modified + late).unwrap();
            says("the modification time of d0 differs");
            let found = Tree::read(&b).unwrap();
            assert_eq!(wanted.difference_beside_fractions(&found).is_some(), counts);
        }
        copy.set_modified(modified).unwrap();
        fs::write(b.join("more"), "").unwrap();
        says("the copy has more too much");
    }
}
