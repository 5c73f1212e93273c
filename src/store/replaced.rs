//! Records of trees that are about to be replaced by others in one step, so that a process that ends before it has taken an old one
//! apart is not the end of what somebody else put into it.
//!
//! A file for each, which is on stable storage before the tree is replaced and goes when nothing is left of that. It says where the
//! old tree is found then, which one it is, and what is known of what is in it. One that is damaged was never finished, and so is the
//! replacing: nothing has happened yet.
//!
//! Bytes, integers big endian: `drrepl` and version 2 (8 in all); 64 stamp of the old tree's top; 2 number of names, and each of them: 2
//! length, bytes: first the private name at which the old tree is, then the path of what it was, from the root; 8 number of stamps, 64
//! each; 8 number of spots, 16 path and 8 inode each; 32 BLAKE3 of everything before.

use super::record::{STAMP_BYTES, Stamp};
use driftless_protocol::Name;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

const MAGIC: &[u8; 8] = b"drrepl\0\x02";
const DIGEST_BYTES: usize = 32;

/// The records of one module path.
#[derive(Debug)]
pub struct Replacements {
    directory: PathBuf,
}

/// A tree that is replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replacement {
    /// The private name that it has after that, in the directory in which it stood.
    pub aside: Name,
    /// Where it stood, from the root; not empty.
    pub path: Vec<Name>,
    /// Which directory it is.
    pub top: Stamp,
    /// What is known of the objects in it.
    pub known: Vec<Stamp>,
    /// Where they stood: a sum of the path, and an inode.
    pub spots: Vec<Spot>,
}

/// A sum of a path, and the inode that stood there.
type Spot = ([u8; 16], u64);
const SPOT_BYTES: usize = 24;

impl Replacements {
    /// The records in a directory, which is made with the first of them.
    pub fn at(directory: PathBuf) -> Replacements {
        Replacements { directory }
    }

    /// Writes one down, durably.
    pub fn write(&self, replacement: &Replacement) -> io::Result<()> {
        if !self.directory.is_dir() {
            fs::create_dir_all(&self.directory)?;
            if let Some(above) = self.directory.parent() {
                File::open(above)?.sync_all()?;
            }
        }
        let mut file = File::create(self.file_of(&replacement.aside))?;
        file.write_all(&to_bytes(replacement))?;
        file.sync_all()?;
        File::open(&self.directory)?.sync_all()
    }

    /// Forgets one. One that stays says what is not so any more, and does no harm.
    pub fn forget(&self, aside: &Name) {
        let _ = fs::remove_file(self.file_of(aside));
    }

    /// All that were written and not forgotten. What is damaged goes.
    pub fn read(&self) -> io::Result<Vec<Replacement>> {
        let files = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            files => files?,
        };
        let mut found = Vec::new();
        for file in files {
            let path = file?.path();
            match from_bytes(&fs::read(&path)?) {
                Some(replacement) if self.file_of(&replacement.aside) == path => found.push(replacement),
                _ => fs::remove_file(path)?,
            }
        }
        Ok(found)
    }

    /// Private names are plain ASCII without a slash.
    fn file_of(&self, aside: &Name) -> PathBuf {
        self.directory.join(Path::new(&aside.to_string()))
    }
}

fn to_bytes(replacement: &Replacement) -> Vec<u8> {
    let Replacement {
        aside,
        path,
        top,
        known,
        spots,
    } = replacement;
    let mut bytes = Vec::with_capacity(256 + known.len() * STAMP_BYTES + spots.len() * SPOT_BYTES);
    bytes.extend(MAGIC);
    bytes.extend(top);
    bytes.extend((path.len() as u16 + 1).to_be_bytes());
    for name in [aside].into_iter().chain(path) {
        bytes.extend((name.as_bytes().len() as u16).to_be_bytes());
        bytes.extend(name.as_bytes());
    }
    bytes.extend((known.len() as u64).to_be_bytes());
    known.iter().for_each(|stamp| bytes.extend(stamp));
    bytes.extend((spots.len() as u64).to_be_bytes());
    for (path, inode) in spots {
        bytes.extend(path);
        bytes.extend(inode.to_be_bytes());
    }
    let digest = blake3::hash(&bytes);
    bytes.extend(digest.as_bytes());
    bytes
}

fn from_bytes(bytes: &[u8]) -> Option<Replacement> {
    let (bytes, digest) = bytes.split_at_checked(bytes.len().checked_sub(DIGEST_BYTES)?)?;
    if blake3::hash(bytes).as_bytes() != digest {
        return None;
    }
    let rest = bytes.strip_prefix(MAGIC)?;
    let (top, rest) = rest.split_first_chunk::<STAMP_BYTES>()?;
    let (names, mut rest) = rest.split_first_chunk::<2>()?;
    let mut path = Vec::new();
    for _ in 0..u16::from_be_bytes(*names) {
        let (length, after) = rest.split_first_chunk::<2>()?;
        let (name, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        path.push(Name::new(name).ok()?);
        rest = after;
    }
    let (number, rest) = rest.split_first_chunk::<8>()?;
    let length = usize::try_from(u64::from_be_bytes(*number)).ok()?;
    let (known, rest) = rest.split_at_checked(length.checked_mul(STAMP_BYTES)?)?;
    let (known, _) = known.as_chunks::<STAMP_BYTES>();
    let (number, rest) = rest.split_first_chunk::<8>()?;
    let (spots, []) = rest.as_chunks::<SPOT_BYTES>() else {
        return None;
    };
    if path.len() < 2 || spots.len() as u64 != u64::from_be_bytes(*number) {
        return None;
    }
    let spot = |bytes: &[u8; SPOT_BYTES]| {
        let (path, inode) = bytes.split_first_chunk::<16>()?;
        Some((*path, u64::from_be_bytes(inode.try_into().ok()?)))
    };
    Some(Replacement {
        aside: path.remove(0),
        path,
        top: *top,
        known: known.to_vec(),
        spots: spots.iter().map(spot).collect::<Option<_>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_what_is_damaged_goes() {
        let dir = tempfile::tempdir().unwrap();
        let records = Replacements::at(dir.path().join("in/replaced"));
        assert_eq!(records.read().unwrap(), []);
        let name = |bytes: &[u8]| Name::new(bytes).unwrap();
        let one = Replacement {
            aside: name(b".driftless-0123456789abcdef"),
            path: vec![name(b"releases"), name(b"v\xff")],
            top: [7; STAMP_BYTES],
            known: vec![[1; STAMP_BYTES], [2; STAMP_BYTES]],
            spots: vec![([3; 16], 4), ([5; 16], u64::MAX)],
        };
        let other = Replacement {
            aside: name(b".driftless-fedcba9876543210"),
            path: vec![name(b"current")],
            known: Vec::new(),
            spots: Vec::new(),
            ..one.clone()
        };
        records.write(&one).unwrap();
        records.write(&other).unwrap();
        let mut read = records.read().unwrap();
        read.sort_by_key(|record| record.aside.to_string());
        assert_eq!(read, [one.clone(), other.clone()]);
        records.forget(&other.aside);
        let file = dir.path().join("in/replaced").join(one.aside.to_string());
        let bytes = fs::read(&file).unwrap();
        for length in [0, 1, 100, bytes.len() - 1] {
            fs::write(&file, &bytes[..length]).unwrap();
            assert_eq!(records.read().unwrap(), []);
            assert!(!file.exists(), "of {length} bytes");
        }
    }
}
