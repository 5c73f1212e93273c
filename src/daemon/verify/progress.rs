//! How far a verification has come, in a file, so that one that was cut off is gone on with.

use driftless_protocol::{Name, RelPath};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

const VERSION: u32 = 1;

/// Where in the order of a walk something is: a directory comes before those in it, which come in the order of their names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Position {
    /// The directory.
    pub directory: RelPath,
    /// What of it is done.
    pub done: Done,
}

/// How much of a directory's own entries is done.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Done {
    /// None.
    #[default]
    Nothing,
    /// Those up to this name, in hexadecimal.
    Through(String),
    /// All of them.
    All,
}

impl Done {
    /// Up to a name.
    pub fn through(name: &Name) -> Done {
        Done::Through(data_encoding::HEXLOWER.encode(name.as_bytes()))
    }

    /// Whether an entry is among them.
    pub fn covers(&self, name: &Name) -> bool {
        match self {
            Done::Nothing => false,
            Done::Through(last) => data_encoding::HEXLOWER
                .decode(last.as_bytes())
                .is_ok_and(|last| name.as_bytes() <= last.as_slice()),
            Done::All => true,
        }
    }
}

/// What of a directory is still to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Share<'a> {
    /// Everything.
    Whole,
    /// Its own entries as far as they are not covered, and all that is below it.
    Rest(&'a Done),
    /// Only what is below it, from this name on.
    From(&'a Name),
}

impl Position {
    /// What is to be done of a directory that is not before this position.
    pub fn share(&self, directory: &RelPath) -> Share<'_> {
        let (own, other) = (self.directory.names(), directory.names());
        if own == other {
            return Share::Rest(&self.done);
        }
        match own.strip_prefix(other).and_then(<[Name]>::first) {
            Some(next) => Share::From(next),
            None => Share::Whole,
        }
    }
}

/// Everything that is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// When it began, in seconds since 1970.
    pub began: u64,
    /// How far it is.
    pub position: Position,
    /// Entries compared.
    pub compared: u64,
    /// Bytes of the source that were read.
    pub bytes: u64,
    /// What differs, by path.
    pub found: BTreeMap<Vec<u8>, BTreeSet<String>>,
    /// What could not be read, and why.
    pub unreadable: BTreeSet<(String, String)>,
    /// Directories that only the target has.
    pub only_there: BTreeSet<Vec<u8>>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    /// Which comparison it is of: the same trees under other rules are another.
    of: String,
    began: u64,
    directory: String,
    done: Done,
    compared: u64,
    bytes: u64,
    found: BTreeMap<String, BTreeSet<String>>,
    unreadable: BTreeSet<(String, String)>,
    only_there: BTreeSet<String>,
}

impl Progress {
    /// What an earlier run of the same comparison left. What cannot be read, or is of another, is as good as nothing.
    pub fn load(file: &Path, of: &str) -> Option<Progress> {
        let stored: Stored = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
        let is_ours = stored.version == VERSION && stored.of == of;
        is_ours.then(|| Progress::of(stored)).flatten()
    }

    fn of(stored: Stored) -> Option<Progress> {
        let bytes = |text: &String| data_encoding::HEXLOWER.decode(text.as_bytes()).ok();
        let found = stored.found.iter();
        Some(Progress {
            began: stored.began,
            position: Position {
                directory: RelPath::parse(&bytes(&stored.directory)?).ok()?,
                done: stored.done,
            },
            compared: stored.compared,
            bytes: stored.bytes,
            found: found
                .map(|(path, what)| Some((bytes(path)?, what.clone())))
                .collect::<Option<_>>()?,
            unreadable: stored.unreadable,
            only_there: stored.only_there.iter().map(bytes).collect::<Option<_>>()?,
        })
    }

    /// Writes it down, in place of what was there.
    pub fn store(&self, file: &Path, of: &str) -> io::Result<()> {
        let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
        let stored = Stored {
            version: VERSION,
            of: of.to_owned(),
            began: self.began,
            directory: hex(&self.position.directory.to_bytes()),
            done: self.position.done.clone(),
            compared: self.compared,
            bytes: self.bytes,
            found: self
                .found
                .iter()
                .map(|(path, what)| (hex(path), what.clone()))
                .collect(),
            unreadable: self.unreadable.clone(),
            only_there: self.only_there.iter().map(|path| hex(path)).collect(),
        };
        let aside = file.with_extension("new");
        fs::write(&aside, serde_json::to_vec(&stored).map_err(io::Error::other)?)?;
        fs::rename(aside, file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::parse(text.as_bytes()).unwrap()
    }

    fn name(text: &[u8]) -> Name {
        Name::new(text).unwrap()
    }

    #[test]
    fn what_is_left_of_a_directory_is_known() {
        let position = Position {
            directory: path("a/m"),
            done: Done::through(&name(b"f\xff")),
        };
        assert_eq!(position.share(&path("")), Share::From(&name(b"a")));
        assert_eq!(position.share(&path("a")), Share::From(&name(b"m")));
        let Share::Rest(done) = position.share(&path("a/m")) else {
            panic!("the directory itself is done in part");
        };
        assert!(done.covers(&name(b"f")) && done.covers(&name(b"f\xff")) && !done.covers(&name(b"g")));
        assert_eq!(position.share(&path("a/m/x")), Share::Whole);
        assert_eq!(position.share(&path("a/n")), Share::Whole);
        assert_eq!(Position::default().share(&path("")), Share::Rest(&Done::Nothing));
    }

    #[test]
    fn what_is_written_is_read_again_by_the_same_comparison_only() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("verify.json");
        let progress = Progress {
            began: 7,
            position: Position {
                directory: path("a/b"),
                done: Done::All,
            },
            compared: 3,
            bytes: 4,
            found: BTreeMap::from([(b"a/\xff".to_vec(), BTreeSet::from(["content".to_owned()]))]),
            unreadable: BTreeSet::from([("x".to_owned(), "y".to_owned())]),
            only_there: BTreeSet::from([b"z".to_vec()]),
        };
        assert_eq!(Progress::load(&file, "one"), None);
        progress.store(&file, "one").unwrap();
        assert_eq!(Progress::load(&file, "one"), Some(progress));
        assert_eq!(Progress::load(&file, "two"), None);
        fs::write(&file, "{").unwrap();
        assert_eq!(Progress::load(&file, "one"), None);
    }
}
