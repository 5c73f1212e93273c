//! Ending a mirror so that nothing of ours is left: in the trees, and in the homes of both ends.
//!
//! What a sender knows of a mirror is one directory of its home. What a receiver knows of a module path is one directory of its
//! home, and what it keeps in the tree has names of its own: the generation at the root, temporaries anywhere, and, in the root,
//! the marker of a version that is not complete and the shelves of old versions and of local edits. Those hold what people may want back, so they go only if that is said, and by
//! who has the disk: never over the wire.

use super::DaemonError;
use super::SenderOptions;
use super::fence;
use super::home::Home;
use super::keeping::{KEPT, TRASH};
use super::receiver::VERSION_BEGUN;
use super::sender::{end_link, question};
use crate::fs::{
    Directory, FsError, FsErrorKind, Shelf, TreeLock, displaced_from, is_parked_name, is_private_name,
};
use crate::store::State;
use driftless_protocol::message::{Open, Purpose};
use driftless_protocol::{Name, RelPath};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// The file with the generation, in the root of a module path.
const GENERATION: &[u8] = b".driftless-generation";

/// What was done in a tree.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cleared {
    /// Names of ours that were taken away.
    pub removed: u64,
    /// What was left, a sentence each: what people may want back, and what could not be removed.
    pub left: Vec<String>,
    /// Shelves among what was left, with how many entries.
    pub shelves: u64,
}

/// Takes everything of ours out of a tree, and sets the times of the directories back. Shelves go only with `with_kept`. A
/// directory that is a module path of its own is not entered; its path is answered.
///
/// Whoever works in the tree must have ended: a living temporary looks like a dead one.
pub fn clear_tree(root: &Arc<Directory>, with_kept: bool) -> Result<(Cleared, Vec<RelPath>), FsError> {
    let (mut cleared, mut others) = (Cleared::default(), Vec::new());
    let mut waiting: Vec<(Arc<Directory>, Vec<Name>)> = vec![(root.clone(), Vec::new())];
    while let Some((parent, path)) = waiting.pop() {
        // Opened when its turn comes: a level can have more directories than a process descriptors.
        let directory = match path.last() {
            None => parent,
            Some(name) => match parent.open_dir_same_mount(name) {
                Ok(directory) => Arc::new(directory),
                Err(error) => {
                    if !matches!(error.kind(), FsErrorKind::NotFound | FsErrorKind::CrossDevice) {
                        cleared.left.push(format!("not looked into: {error}"));
                    }
                    continue;
                }
            },
        };
        let ours = directory.reserved_names()?;
        if !path.is_empty() && ours.iter().any(|name| name.as_bytes() == GENERATION) {
            others.extend(RelPath::from_names(path));
            continue;
        }
        clear_directory(&directory, &ours, path.is_empty(), with_kept, &mut cleared)?;
        for (name, stat) in directory.list()?.entries {
            if stat.file_type == crate::fs::FileType::Directory {
                let path = path.iter().cloned().chain([name]).collect();
                waiting.push((directory.clone(), path));
            }
        }
    }
    Ok((cleared, others))
}

fn clear_directory(
    directory: &Arc<Directory>,
    ours: &[Name],
    is_root: bool,
    with_kept: bool,
    cleared: &mut Cleared,
) -> Result<(), FsError> {
    if ours.is_empty() {
        return Ok(());
    }
    let mtime = directory.stat_self()?.attributes.mtime;
    let before = cleared.removed;
    for name in ours {
        // Also where a path was a module path that is forgotten already.
        let is_shelf = [TRASH.as_bytes(), KEPT.as_bytes()].contains(&name.as_bytes());
        let is_generation = is_root && name.as_bytes() == GENERATION;
        let is_marker = is_root && name.as_bytes() == VERSION_BEGUN.as_bytes();
        if is_shelf && !with_kept {
            let entries = count_shelf(directory, name)?;
            if entries > 0 {
                cleared.shelves += 1;
                let shown = directory.shown_name(name);
                cleared.left.push(format!(
                    "{shown} stays: {entries} old {} that people may want back",
                    if entries == 1 { "version" } else { "versions" }
                ));
                continue;
            }
        } else if displaced_from(name).is_some() {
            cleared.left.push(only_copy(directory, name));
            continue;
        } else if !(is_shelf || is_generation || is_marker || is_private_name(name)) {
            // A home of ours may lie in a tree, and belongs to nobody's mirror.
            continue;
        }
        let outcome = match is_private_name(name) {
            true => directory.remove_left(name),
            false => directory.remove_tree(name).map(drop),
        };
        match outcome {
            Ok(()) => cleared.removed += 1,
            Err(error) if error.kind() == FsErrorKind::NotFound => {}
            Err(error) if error.kind() == FsErrorKind::NotEmpty && is_parked_name(name) => {
                cleared.left.push(only_copy(directory, name));
            }
            Err(error) => cleared.left.push(error.to_string()),
        }
    }
    if cleared.removed > before {
        directory.set_self_mtime(mtime)?;
        directory.sync()?;
    }
    Ok(())
}

fn only_copy(directory: &Directory, name: &Name) -> String {
    format!(
        "{} stays: it stood in the way of something and may be the only copy",
        directory.shown_name(name)
    )
}

/// Entries of a shelf.
fn count_shelf(root: &Arc<Directory>, name: &Name) -> Result<u64, FsError> {
    let shelf = Shelf::new(root.clone(), &name.to_string());
    let mut entries = 0;
    for batch in shelf.batches()? {
        shelf.for_each(&batch, &mut |_| {
            entries += 1;
            Ok(())
        })?;
    }
    Ok(entries)
}

/// Ends what a module, or a directory on this machine that was mirrored to, is to this home: everything of ours in its tree,
/// and the state of each of its paths. Nobody may work in it.
pub fn module(home: &Home, name: &str, path: &Path, with_kept: bool) -> Result<Cleared, DaemonError> {
    let failed =
        |error: &dyn std::fmt::Display| DaemonError::failed(format!("cannot forget {name}: {error}"));
    if fence::read(home, name).map_or(true, |fence| fence.is_some_and(|fence| fence.is_promoted)) {
        return Err(failed(&format!(
            "it is promoted, and its sender would overwrite what was done there since (run `driftless demote {name}` first)"
        )));
    }
    let root = Arc::new(Directory::open_root(path).map_err(|error| failed(&error))?);
    let _lock = TreeLock::acquire_on(&root).map_err(|error| failed(&error))?;
    let mut all = Cleared::default();
    let mut waiting = vec![RelPath::root()];
    while let Some(below) = waiting.pop() {
        let mut directory = root.clone();
        for name in below.names() {
            directory = Arc::new(directory.open_dir(name).map_err(|error| failed(&error))?);
        }
        // The state goes last: while it is there, this can be tried again.
        let (cleared, others) = clear_tree(&directory, with_kept).map_err(|error| failed(&error))?;
        for other in others {
            let names = below.names().iter().chain(other.names()).cloned().collect();
            let inner = RelPath::from_names(names).ok();
            // Others have a generation of their own there, which is none of our business.
            let (ours, theirs): (Vec<_>, Vec<_>) = inner
                .into_iter()
                .partition(|inner| home.module_place(name, inner).is_dir());
            waiting.extend(ours);
            let shown = theirs.iter().map(|inner| format!("{}/{inner}", path.display()));
            all.left
                .extend(shown.map(|shown| format!("what another mirror keeps in {shown}")));
        }
        all.removed += cleared.removed;
        all.shelves += cleared.shelves;
        all.left.extend(cleared.left);
        drop_state(home, name, &below).map_err(|error| failed(&error))?;
    }
    Ok(all)
}

/// Removes what a receiver's home has of a module path.
pub fn drop_state(home: &Home, module: &str, path: &RelPath) -> io::Result<()> {
    remove(&home.module_place(module, path))
}

/// What a sender's home has of a mirror.
#[derive(Debug)]
pub struct SenderState {
    directory: std::path::PathBuf,
    /// The number of the mirror; none if it was lost.
    pub mirror: Option<u128>,
}

impl SenderState {
    /// Looks for it; none if there is none. Fails while a sender runs.
    pub fn find(home: &Home, source: &Path, target: &str) -> Result<Option<SenderState>, DaemonError> {
        let directory = home.mirror_place(&Home::mirror_key(source, target));
        if !directory.exists() {
            return Ok(None);
        }
        let state = directory.join("state.redb");
        let mirror = match state.exists() {
            true => {
                let state = State::open(&state).map_err(|error| DaemonError::failed(error.to_string()))?;
                let mirror = state.mirror_id();
                Some(mirror.map_err(|error| DaemonError::failed(error.to_string()))?)
            }
            false => None,
        };
        Ok(Some(SenderState { directory, mirror }))
    }

    /// Removes it: catalog, signatures, cursors and all.
    pub fn remove(self) -> Result<(), DaemonError> {
        remove(&self.directory).map_err(|error| {
            DaemonError::failed(format!("cannot remove {}: {error}", self.directory.display()))
        })
    }
}

fn remove(directory: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Has the receiver end the binding of the target, take its own names out of the tree and drop what its home has of it. Gives
/// what it says that it left.
pub fn ask(
    options: &SenderOptions,
    mirror: u128,
    runtime: &tokio::runtime::Handle,
) -> Result<String, DaemonError> {
    let open = Open {
        mirror,
        ..question(options, Purpose::Forget)
    };
    end_link(options, runtime, open).map_err(|error| DaemonError::failed(error.text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn only_what_is_ours_goes_and_times_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let private = ".driftless-0123456789abcdef";
        for made in [
            "a/b",
            &format!("a/{private}-parked"),
            "other/deep",
            ".driftless-trash/20260101T000000Z/a",
            ".driftless-state/x",
            ".driftless-version-begun",
        ] {
            fs::create_dir_all(path(made)).unwrap();
        }
        for (name, content) in [
            (".driftless-generation", "3\n"),
            (private, "x"),
            (&format!("a/b/{private}"), "x"),
            ("a/b/file", "x"),
            (&format!("a/{private}-parked/inside"), "held"),
            (&format!("a/b/{private}-parked"), "x"),
            ("a/.driftless-old-name-0123456789abcdef", "kept"),
            (".driftless-trash/20260101T000000Z/a/old", "old"),
            ("other/.driftless-generation", "1\n"),
            (&format!("other/deep/{private}"), "another's"),
        ] {
            fs::write(path(name), content).unwrap();
        }
        let time = |name: &str| {
            let meta = path(name).metadata().unwrap();
            (meta.mtime(), meta.mtime_nsec())
        };
        let before = [time("."), time("a"), time("a/b"), time("other/deep")];
        let root = Arc::new(Directory::open_root(dir.path()).unwrap());
        let (cleared, others) = clear_tree(&root, false).unwrap();
        assert_eq!(
            (cleared.removed, cleared.shelves, cleared.left.len()),
            (5, 1, 3),
            "{cleared:?}"
        );
        assert_eq!(others, [RelPath::parse(b"other").unwrap()]);
        let (cleared, _) = clear_tree(&root, true).unwrap();
        assert_eq!((cleared.removed, cleared.left.len()), (1, 2), "{cleared:?}");
        assert!(!path(".driftless-trash").exists() && path(".driftless-state/x").exists());
        assert!(path(&format!("a/{private}-parked/inside")).exists());
        assert!(path("a/b/file").exists() && path(&format!("other/deep/{private}")).exists());
        assert_eq!([time("."), time("a"), time("a/b"), time("other/deep")], before);
    }
}
