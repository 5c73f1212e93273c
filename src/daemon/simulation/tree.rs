//! Trees as they are at one moment, and a tree whose disk may lose its power.

use super::process::Listener;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// A directory.
    Directory,
    /// A file, and its content.
    File(Arc<[u8]>),
    /// A symbolic link, and its text.
    Link(PathBuf),
    /// Something that no simulation makes.
    Other,
}

/// An entry of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// What it is.
    pub what: What,
    /// Its inode.
    pub inode: u64,
    /// Its permissions.
    pub mode: u32,
    /// Its time of change, in seconds and nanoseconds.
    pub mtime: (i64, i64),
}

/// All entries of a tree, by path.
pub type Tree = BTreeMap<PathBuf, Node>;

/// Looks at a tree.
pub fn look(root: &Path) -> io::Result<Tree> {
    let mut tree = Tree::new();
    let mut waiting = vec![PathBuf::new()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(root.join(&directory))? {
            let path = directory.join(entry?.file_name());
            let full = root.join(&path);
            let meta = fs::symlink_metadata(&full)?;
            let what = match meta.file_type() {
                kind if kind.is_dir() => {
                    waiting.push(path.clone());
                    What::Directory
                }
                kind if kind.is_symlink() => What::Link(fs::read_link(&full)?),
                kind if kind.is_file() => What::File(fs::read(&full)?.into()),
                kind if kind.is_fifo() => What::Other,
                _ => What::Other,
            };
            let node = Node {
                what,
                inode: meta.ino(),
                mode: meta.mode() & 0o7777,
                mtime: (meta.mtime(), meta.mtime_nsec()),
            };
            tree.insert(path, node);
        }
    }
    Ok(tree)
}

/// Whether a path is, or is below, one of driftless's own.
pub fn is_private(path: &Path) -> bool {
    path.iter()
        .any(|name| name.to_string_lossy().starts_with(".driftless"))
}

/// The first difference of two trees that should be equal; private names do not count.
pub fn difference(source: &Tree, target: &Tree) -> Option<String> {
    let paths: BTreeSet<&PathBuf> = source.keys().chain(target.keys()).collect();
    for path in paths.into_iter().filter(|path| !is_private(path)) {
        let told = |what: &str| Some(format!("{}: {what}", path.display()));
        let (Some(ours), Some(theirs)) = (source.get(path), target.get(path)) else {
            return told(if source.contains_key(path) {
                "missing"
            } else {
                "left over"
            });
        };
        if ours.what != theirs.what {
            return told(&format!("{:?} is {:?}", short(&theirs.what), short(&ours.what)));
        }
        let is_link = matches!(ours.what, What::Link(_));
        if !is_link && ours.mode != theirs.mode {
            return told(&format!(
                "mode {:o} is {:o} at the source",
                theirs.mode, ours.mode
            ));
        }
        if !is_link && ours.mtime != theirs.mtime {
            return told(&format!(
                "time {:?} is {:?} at the source",
                theirs.mtime, ours.mtime
            ));
        }
        if first_name(source, ours) != first_name(target, theirs) {
            return told("another name of something else than at the source");
        }
    }
    None
}

fn first_name<'a>(tree: &'a Tree, node: &Node) -> Option<&'a PathBuf> {
    let same = |other: &Node| other.inode == node.inode;
    tree.iter().find(|(_, other)| same(other)).map(|(path, _)| path)
}

impl What {
    /// What it is, cut short.
    pub fn told(&self) -> String {
        short(self)
    }
}

fn short(what: &What) -> String {
    match what {
        What::File(bytes) => {
            let head = String::from_utf8_lossy(&bytes[..bytes.len().min(24)]).into_owned();
            format!("{} bytes {head}", bytes.len())
        }
        other => format!("{other:?}"),
    }
}

/// What the source had so far, which is all that a target may show.
#[derive(Debug, Default)]
pub struct Past {
    /// Every content and link text that there ever was.
    pub versions: BTreeSet<What>,
    /// Paths that were there at every moment since both trees were equal.
    pub lasting: BTreeSet<PathBuf>,
}

/// The tree of a receiver, and what of it is on stable storage.
///
/// The model is that of a file system with an ordered log: changes of names reach the disk in their order, all before a flushed
/// directory; contents when they are flushed themselves. A loss of power takes any number of the last changes of names, and of
/// each content that was not flushed all, nothing or a part.
pub struct TreeDisk {
    root: PathBuf,
    scratch: PathBuf,
    state: Mutex<Disk>,
    past: Arc<Mutex<Past>>,
}

#[derive(Default)]
struct Disk {
    /// The tree after every change of names since the last flush of a directory, and before the first.
    names: Vec<Arc<Tree>>,
    /// Files whose content is flushed, beside all whose number is below `flushed_below`.
    flushed: BTreeSet<u64>,
    flushed_below: u64,
    /// The tree when the sender was last in sync, and after every change since.
    since_in_sync: Vec<Arc<Tree>>,
    /// What must not be, and was.
    violations: Vec<String>,
    /// A loss of power brought a file back as another object, since it had no name any more: what is kept because of that is no failure.
    made_anew: bool,
}

impl TreeDisk {
    /// The tree below `root`, all of it flushed. `scratch` is a directory on the same file system.
    pub fn new(root: PathBuf, scratch: PathBuf, past: Arc<Mutex<Past>>) -> io::Result<TreeDisk> {
        let now = Arc::new(look(&root)?);
        let disk = TreeDisk {
            root,
            scratch,
            state: Mutex::new(Disk {
                names: vec![now],
                ..Disk::default()
            }),
            past,
        };
        disk.all_flushed();
        Ok(disk)
    }

    /// The tree now.
    pub fn look(&self) -> io::Result<Tree> {
        look(&self.root)
    }

    /// The sender was told that everything is durable.
    pub fn note_in_sync(&self) {
        let now = self.look().map(Arc::new);
        if let Ok(now) = now {
            self.lock().since_in_sync = vec![now];
        }
    }

    /// Whether a file was brought back as another object, which a real disk does not do.
    pub fn has_made_anew(&self) -> bool {
        self.lock().made_anew
    }

    /// What was wrong so far.
    pub fn violations(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().violations)
    }

    /// The power goes. The answer says how many changes of names were lost, and of how many files the content.
    pub fn lose(&self, random: &mut dyn FnMut(usize) -> usize) -> io::Result<(usize, usize)> {
        let mut disk = self.lock();
        let kept = random(disk.names.len());
        let lost_names = disk.names.len() - 1 - kept;
        let mut left = (*disk.names[kept]).clone();
        let mut lost_contents = BTreeMap::new();
        for node in left.values_mut() {
            if let What::File(bytes) = &node.what
                && node.inode >= disk.flushed_below
                && !disk.flushed.contains(&node.inode)
            {
                let whole = bytes.clone();
                let length = lost_contents
                    .entry(node.inode)
                    .or_insert_with(|| [0, whole.len() / 2, whole.len()][random(3)]);
                node.what = What::File(whole[..*length].into());
            }
        }
        disk.made_anew |= put(&self.root, &self.scratch, &left)?;
        let now = Arc::new(look(&self.root)?);
        let mut violations = self.judge(&now);
        if let Some(in_sync) = disk.since_in_sync.first() {
            let paths: BTreeSet<&PathBuf> = in_sync.keys().chain(now.keys()).collect();
            for path in paths.into_iter().filter(|path| !is_private(path)) {
                let what = |tree: &Tree| tree.get(path).map(|node| node.what.clone());
                if !disk.since_in_sync.iter().any(|tree| what(tree) == what(&now)) {
                    violations.push(format!("{} was durable, and is lost", path.display()));
                }
            }
        }
        disk.violations.extend(violations);
        disk.names = vec![now];
        drop(disk);
        self.all_flushed();
        Ok((lost_names, lost_contents.len()))
    }

    /// What a tree shows that the source never had, or lacks that it always had.
    fn judge(&self, tree: &Tree) -> Vec<String> {
        let past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        let mut violations = Vec::new();
        for (path, node) in tree.iter().filter(|(path, _)| !is_private(path)) {
            if node.what != What::Directory && !past.versions.contains(&node.what) {
                violations.push(format!(
                    "{} shows {}, which the source never had",
                    path.display(),
                    short(&node.what)
                ));
            }
        }
        let absent = past.lasting.iter().filter(|path| !tree.contains_key(*path));
        violations
            .extend(absent.map(|path| format!("{} is absent, and never was at the source", path.display())));
        violations
    }

    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listener for TreeDisk {
    fn renamed(&self) {
        let Ok(now) = self.look().map(Arc::new) else {
            return;
        };
        let violations = self.judge(&now);
        let mut disk = self.lock();
        disk.violations.extend(violations);
        disk.since_in_sync.push(now.clone());
        disk.names.push(now);
    }

    fn flushed(&self, inode: u64, is_directory: bool) {
        let mut disk = self.lock();
        if is_directory {
            let last = disk.names.len() - 1;
            disk.names.drain(..last);
        } else {
            disk.flushed.insert(inode);
        }
    }

    fn all_flushed(&self) {
        // Numbers of inodes only grow on tmpfs: every file that is there, with a name or without, has a smaller one.
        let probe = self.scratch.join("probe");
        let number = fs::write(&probe, b"").and_then(|()| fs::metadata(&probe));
        let mut disk = self.lock();
        disk.flushed_below = number.map_or(disk.flushed_below, |meta| meta.ino());
        let last = disk.names.len() - 1;
        disk.names.drain(..last);
        drop(disk);
        let _ = fs::remove_file(&probe);
    }
}

/// Makes a tree what it was. What is there is the same object as before, at whatever name it has been since: only what had no name
/// any more is made anew; whether a file was. `limbo` is an empty directory on the same file system.
fn put(root: &Path, limbo: &Path, wanted: &Tree) -> io::Result<bool> {
    let mut made_anew = false;
    let present = look(root)?;
    let is_same = |path: &Path, node: &Node| {
        let wanted = wanted.get(path);
        wanted.is_some_and(|wanted| wanted.inode == node.inode && wanted.what == node.what)
    };
    let stays = |path: &Path| {
        let above = path.ancestors().filter(|path| !path.as_os_str().is_empty());
        above
            .into_iter()
            .all(|path| present.get(path).is_some_and(|node| is_same(path, node)))
    };
    // Where an object is, whatever its name was.
    let mut places: BTreeMap<u64, PathBuf> = BTreeMap::new();
    for (path, node) in present.iter().rev() {
        let place = match stays(path) {
            true => root.join(path),
            false => limbo.join(node.inode.to_string()),
        };
        if !stays(path) {
            // Another name of what is there already is no more than taken away by this.
            fs::rename(root.join(path), &place)?;
            if fs::symlink_metadata(root.join(path)).is_ok() {
                fs::remove_file(root.join(path))?;
            }
        }
        places.insert(node.inode, place);
    }
    for (path, node) in wanted {
        let full = root.join(path);
        if fs::symlink_metadata(&full).is_ok() {
            continue;
        }
        match (&node.what, places.get(&node.inode)) {
            (What::Directory, Some(place)) => fs::rename(place, &full)?,
            (_, Some(place)) => fs::hard_link(place, &full)?,
            (What::Directory, None) => fs::create_dir(&full)?,
            (What::File(_), None) => {
                made_anew = true;
                fs::write(&full, b"")?;
            }
            (What::Link(text), None) => symlink(text, &full)?,
            (What::Other, None) => {}
        }
        if let What::File(bytes) = &node.what
            && fs::read(&full)? != **bytes
        {
            fs::write(&full, bytes)?;
        }
        places.insert(node.inode, full);
    }
    for entry in fs::read_dir(limbo)? {
        let path = entry?.path();
        match fs::symlink_metadata(&path)?.is_dir() {
            true => fs::remove_dir(path)?,
            false => fs::remove_file(path)?,
        }
    }
    for (path, node) in wanted.iter().rev() {
        let full = root.join(path);
        if !matches!(node.what, What::Link(_) | What::Other) {
            fs::set_permissions(&full, fs::Permissions::from_mode(node.mode))?;
            set_mtime(&full, node.mtime)?;
        }
    }
    Ok(made_anew)
}

/// Sets the time of change of a file or directory.
pub fn set_mtime(path: &Path, (seconds, nanoseconds): (i64, i64)) -> io::Result<()> {
    let time = UNIX_EPOCH + Duration::new(seconds.max(0) as u64, nanoseconds as u32);
    fs::File::open(path)?.set_modified(time)
}

#[test]
fn what_is_put_back_is_the_same_object() {
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = |name: &str| directory.path().join(name);
    for name in ["root", "root/a", "root/b", "limbo"] {
        fs::create_dir(path(name)).unwrap();
    }
    fs::write(path("root/a/file"), "x").unwrap();
    fs::hard_link(path("root/a/file"), path("root/b/file")).unwrap();
    fs::write(path("root/b/more"), "y").unwrap();
    let before = look(&path("root")).unwrap();
    for (from, to) in [("a", "c"), ("b", "a"), ("c", "b")] {
        fs::rename(path("root").join(from), path("root").join(to)).unwrap();
    }
    fs::remove_file(path("root/a/more")).unwrap();
    fs::write(path("root/b/file"), "z").unwrap();
    assert!(put(&path("root"), &path("limbo"), &before).unwrap());
    let now = look(&path("root")).unwrap();
    assert_eq!(difference(&before, &now), None);
    for name in ["a", "b", "a/file", "b/file"].map(Path::new) {
        assert_eq!(now[name].inode, before[name].inode, "{}", name.display());
    }
    assert_eq!(fs::read_dir(path("limbo")).unwrap().count(), 0);
}
