//! Fencing: a module that was promoted takes nothing from senders, so that what is written to it locally is the truth.
//!
//! Whether a module is promoted stands in a file beside its state. `driftless promote` and `demote` write that file, whether a
//! receiver runs or not, and then have running receivers look at it; a receiver also looks when a sender comes, twice: before it
//! touches the tree, and again when everybody can see that the sender works there. Whoever writes the file and then looks for
//! sessions therefore finds each one, or that one finds the file. A file that cannot be read refuses senders.
//!
//! A demotion leaves a mark. Until a sender has brought a module path in sync after it, that sender is told so: what only this
//! side has by then may be the work of days, so the sender asks before it deletes, as at first contact.

use super::home::Home;
use super::status::unix_now;
use super::upstream;
use driftless_protocol::RelPath;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Its name in the directory of the module's state.
const FILE: &str = "fence.json";
/// Says in the directory of a module path's state which demotion its sender knows of.
const SETTLED: &str = "fence-settled";

/// What was last decided about a module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// The module's name.
    pub module: String,
    /// Senders are refused; else it was demoted again.
    pub is_promoted: bool,
    /// When that was decided, in seconds since 1970.
    pub since: u64,
    /// Tells one decision from the next.
    token: u64,
}

/// One demotion, told from every other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demotion(u64);

impl Fence {
    fn new(module: &str, is_promoted: bool) -> io::Result<Fence> {
        Ok(Fence {
            module: module.to_owned(),
            is_promoted,
            since: unix_now(),
            token: getrandom::u64().map_err(io::Error::other)?,
        })
    }
}

/// What was decided about a module, if anything was.
pub fn read(home: &Home, module: &str) -> io::Result<Option<Fence>> {
    read_in(&home.module_place(module, &RelPath::root()))
}

/// All modules of a home that are promoted, in the order of their names, whether a receiver offers them or not.
pub fn promoted(home: &Home) -> Vec<Fence> {
    let directories = home.module_dirs().into_iter();
    let fences = directories.filter_map(|directory| read_in(&directory).ok().flatten());
    let mut found: Vec<_> = fences.filter(|fence| fence.is_promoted).collect();
    found.sort_by(|one, other| one.module.cmp(&other.module));
    found
}

/// Has senders of a module refused from now on, durably. One that is promoted already stays as it is.
pub fn promote(home: &Home, module: &str) -> io::Result<Fence> {
    if let Ok(Some(fence)) = read(home, module)
        && fence.is_promoted
    {
        return Ok(fence);
    }
    let fence = Fence::new(module, true)?;
    write(home, &fence)?;
    Ok(fence)
}

/// Makes a module a replica again, durably; gives what it was, or nothing if it was not promoted.
pub fn demote(home: &Home, module: &str) -> io::Result<Option<Fence>> {
    let was = match read(home, module) {
        Ok(Some(fence)) if fence.is_promoted => fence,
        Ok(_) => return Ok(None),
        // Whoever demotes it says what holds from now on.
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Fence::new(module, true)?,
        Err(error) => return Err(error),
    };
    write(home, &Fence::new(module, false)?)?;
    Ok(Some(was))
}

/// Why the sender of a module path has to ask before it deletes: the module was demoted since the path was last in sync.
pub fn asks(home: &Home, module: &str, path: &RelPath) -> io::Result<Option<Demotion>> {
    let Some(fence) = read(home, module)?.filter(|fence| !fence.is_promoted) else {
        return Ok(None);
    };
    let is_settled = match fs::read_to_string(home.module_place(module, path).join(SETTLED)) {
        Ok(token) => token == fence.token.to_string(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(error),
    };
    Ok((!is_settled).then_some(Demotion(fence.token)))
}

/// Whether a sender is connected to a module, or what it sent is still being flushed, in whichever process its receiver is. Also
/// true for a session of a process that cannot be asked.
pub fn is_written_to(home: &Home, module: &str) -> bool {
    upstream::is_written_to(home, module)
}

/// Notes that a sender which was told of a demotion has brought a module path in sync. Another demotion may have come since, of
/// which it knows nothing: that one is asked about all the same.
pub fn settle(home: &Home, module: &str, path: &RelPath, Demotion(token): Demotion) -> io::Result<()> {
    store(
        &home.module_place(module, path),
        SETTLED,
        token.to_string().as_bytes(),
    )
}

fn read_in(directory: &Path) -> io::Result<Option<Fence>> {
    let text = match fs::read(directory.join(FILE)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let fence = serde_json::from_slice(&text);
    fence
        .map(Some)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

fn write(home: &Home, fence: &Fence) -> io::Result<()> {
    let directory: PathBuf = home.module_dir(&fence.module, &RelPath::root());
    store(&directory, FILE, &serde_json::to_vec(fence)?)
}

/// Replaces a file in one step; it is on stable storage when this returns.
fn store(directory: &Path, name: &str, text: &[u8]) -> io::Result<()> {
    let aside = directory.join(format!("{name}.new"));
    let mut file = File::create(&aside)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&aside, directory.join(name))?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_holds_until_the_next_one() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::at(directory.path());
        let root = RelPath::root();
        assert_eq!((read(&home, "m").unwrap(), promoted(&home)), (None, Vec::new()));
        assert_eq!(demote(&home, "m").unwrap(), None);
        assert_eq!(asks(&home, "m", &root).unwrap(), None);
        let first = promote(&home, "m").unwrap();
        assert_eq!(promote(&home, "m").unwrap(), first);
        assert_eq!(promoted(&home), std::slice::from_ref(&first));
        assert_eq!(asks(&home, "m", &root).unwrap(), None);
        assert_eq!(demote(&home, "m").unwrap(), Some(first));
        assert!(promoted(&home).is_empty());
        for round in 0..2 {
            let demotion = asks(&home, "m", &root).unwrap();
            settle(&home, "m", &root, demotion.unwrap()).unwrap();
            assert_eq!(asks(&home, "m", &root).unwrap(), None, "round {round}");
            promote(&home, "m").unwrap();
            demote(&home, "m").unwrap();
        }
    }

    /// A session may end after its module was promoted and demoted once more: what it brought in sync was before that.
    #[test]
    fn in_sync_after_an_earlier_demotion_settles_no_later_one() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::at(directory.path());
        let root = RelPath::root();
        promote(&home, "m").unwrap();
        demote(&home, "m").unwrap();
        let first = asks(&home, "m", &root).unwrap().unwrap();
        promote(&home, "m").unwrap();
        demote(&home, "m").unwrap();
        settle(&home, "m", &root, first).unwrap();
        let second = asks(&home, "m", &root).unwrap();
        assert!(second.is_some_and(|second| second != first), "{second:?}");
    }

    #[test]
    fn what_cannot_be_read_is_no_permission() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::at(directory.path());
        promote(&home, "m").unwrap();
        fs::write(home.module_dir("m", &RelPath::root()).join(FILE), "{").unwrap();
        assert!(read(&home, "m").is_err() && asks(&home, "m", &RelPath::root()).is_err());
        // Deciding anew mends it.
        assert!(demote(&home, "m").unwrap().is_some());
        assert!(!read(&home, "m").unwrap().unwrap().is_promoted);
    }
}
