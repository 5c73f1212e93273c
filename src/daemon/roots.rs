//! Which directory the root of a tree is, and what somebody said about another one at its path.
//!
//! A root that is not the one of before is refused: most often a file system is not mounted, and what was seen last is below
//! it or elsewhere. The refusal is noted beside the state ([`refuse`]); `driftless approve PATH --root` turns the note into
//! an approval ([`approve`]) of exactly the directory that was refused, so that nothing else that may stand there by the
//! next try is let through. Both are files, because who approves is another process than the one that holds the state.

use super::home::Home;
use crate::fs::{Directory, FsError};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const REFUSED: &str = "root-refused.json";
const APPROVED: &str = "root-approved.json";

/// By what a root is recognised when it is met again, also after a reboot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootIdentity {
    /// Of the file system, where it can be known; hexadecimal.
    file_system: Option<String>,
    /// The device's number, which another disk may have after a reboot.
    device: u64,
    inode: u64,
    /// Seconds and nanoseconds, where the file system knows.
    birth: Option<(i64, u32)>,
}

impl RootIdentity {
    /// That of an open directory.
    pub fn of(root: &Directory) -> Result<RootIdentity, FsError> {
        let stamp = root.stat_self()?.stamp;
        Ok(RootIdentity {
            file_system: root.file_system_id().map(|id| HEXLOWER.encode(&id)),
            device: stamp.device,
            inode: stamp.inode,
            birth: stamp.birth.map(|birth| (birth.seconds(), birth.nanoseconds())),
        })
    }

    /// A form for storing.
    pub fn to_bytes(&self) -> Vec<u8> {
        // A few numbers always have one.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads what [`RootIdentity::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8]) -> Option<RootIdentity> {
        serde_json::from_slice(bytes).ok()
    }

    /// Whether both are of the same directory, as far as both are known. Device numbers do not count: they change at a
    /// reboot.
    pub fn is_of(&self, other: &RootIdentity) -> bool {
        let agree = |a: Option<bool>| a.unwrap_or(true);
        let births = self.birth.zip(other.birth).map(|(a, b)| a == b);
        let systems = (self.file_system.as_ref())
            .zip(other.file_system.as_ref())
            .map(|(a, b)| a == b);
        self.inode == other.inode && agree(births) && agree(systems)
    }

    /// Whether both are on one file system; `None` if that cannot be known.
    pub fn shares_file_system(&self, other: &RootIdentity) -> Option<bool> {
        match (&self.file_system, &other.file_system) {
            (Some(a), Some(b)) => Some(a == b),
            _ => (self.device == other.device).then_some(true),
        }
    }

    /// Whether it was made after a moment, given in seconds and nanoseconds.
    pub fn is_younger_than(&self, moment: (i64, u32)) -> bool {
        self.birth.is_some_and(|birth| birth > moment)
    }
}

/// A root that was refused, or approved after that.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    /// What people call it: the first is its path.
    names: Vec<String>,
    root: RootIdentity,
}

/// Notes in a directory of states that a root was refused. Without the note nobody can approve it; the state is as good.
pub fn refuse(home: &Path, names: &[String], root: &RootIdentity) {
    let note = Note {
        names: names.to_vec(),
        root: root.clone(),
    };
    let text = serde_json::to_vec(&note).unwrap_or_default();
    if let Err(error) = fs::write(home.join(REFUSED), text) {
        tracing::warn!(
            "cannot note in {} that a root was refused: {error}",
            home.display()
        );
    }
}

/// Whether somebody approved this root.
pub fn is_approved(home: &Path, root: &RootIdentity) -> bool {
    note_in(&home.join(APPROVED)).is_some_and(|note| note.root == *root)
}

/// Forgets what was refused or approved: the root is known.
pub fn settle(home: &Path) {
    for name in [REFUSED, APPROVED] {
        match fs::remove_file(home.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!("cannot remove {name} in {}: {error}", home.display());
            }
            _ => {}
        }
    }
}

/// Approves every root that was refused and is called `name`. Says what it is the root of; or, if there is none, which
/// others were refused.
pub fn approve(home: &Home, name: &str) -> io::Result<Result<Vec<String>, Vec<String>>> {
    let (mut approved, mut others) = (Vec::new(), Vec::new());
    for place in home.mirror_dirs().into_iter().chain(home.module_dirs()) {
        let Some(note) = note_in(&place.join(REFUSED)) else {
            continue;
        };
        if !note.names.iter().any(|known| is_called(known, name)) {
            others.extend(note.names.first().cloned());
            continue;
        }
        fs::rename(place.join(REFUSED), place.join(APPROVED))?;
        approved.push(note.names.join(", "));
    }
    Ok(match approved.is_empty() {
        true => Err(others),
        false => Ok(approved),
    })
}

/// By the same words, or by another way to the same directory.
fn is_called(known: &str, name: &str) -> bool {
    let there = |text: &str| -> Option<PathBuf> { Path::new(text).canonicalize().ok() };
    known == name || (known.starts_with('/') && there(known).is_some_and(|known| there(name) == Some(known)))
}

fn note_in(path: &Path) -> Option<Note> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(inode: u64) -> RootIdentity {
        RootIdentity {
            file_system: Some("aa".to_owned()),
            device: 7,
            inode,
            birth: Some((100, 5)),
        }
    }

    #[test]
    fn what_is_unknown_on_one_side_tells_nothing() {
        let known = identity(2);
        let other_disk = RootIdentity {
            file_system: Some("bb".to_owned()),
            ..known.clone()
        };
        let silent = RootIdentity {
            file_system: None,
            birth: None,
            device: 8,
            ..known.clone()
        };
        assert!(known.is_of(&known) && known.is_of(&silent));
        assert!(!known.is_of(&identity(3)) && !known.is_of(&other_disk));
        assert_eq!(known.shares_file_system(&identity(3)), Some(true));
        assert_eq!(known.shares_file_system(&other_disk), Some(false));
        assert_eq!(known.shares_file_system(&silent), None);
        let moved = RootIdentity {
            birth: Some((100, 6)),
            ..known.clone()
        };
        assert!(!known.is_of(&moved));
        assert!(moved.is_younger_than((100, 5)) && !known.is_younger_than((100, 5)));
        assert!(!silent.is_younger_than((0, 0)));
        assert_eq!(RootIdentity::from_bytes(&known.to_bytes()), Some(known));
        assert_eq!(RootIdentity::from_bytes(b"?"), None);
    }

    #[test]
    fn only_what_was_refused_is_approved() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::at(directory.path());
        let (one, two) = (home.mirror_dir("one"), home.mirror_dir("two"));
        refuse(
            &one,
            &["/srv/one".to_owned(), "nas::one".to_owned()],
            &identity(1),
        );
        refuse(&two, &["/srv/two".to_owned()], &identity(2));
        let unknown = approve(&home, "/srv/three").unwrap().unwrap_err();
        assert_eq!(unknown.len(), 2);
        assert!(!is_approved(&one, &identity(1)));
        assert_eq!(
            approve(&home, "nas::one").unwrap().unwrap(),
            ["/srv/one, nas::one"]
        );
        assert!(is_approved(&one, &identity(1)));
        assert!(!is_approved(&one, &identity(2)) && !is_approved(&two, &identity(2)));
        settle(&one);
        assert!(!is_approved(&one, &identity(1)));
        assert_eq!(approve(&home, "nas::one").unwrap().unwrap_err(), ["/srv/two"]);
    }
}
