//! A source tree that somebody works in, and the events that the kernel would tell of it.

use super::tree::{self, Past, Tree};
use super::world::left::LEFT;
use crate::engine::pending::{Hint, WatchEvent};
use crate::watch::{WatchError, Watcher};
use crossbeam_channel::{Receiver, Sender, unbounded};
use driftless_protocol::{Name, ObjectId};
use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The directories that a sender watches, and where it hears of them.
#[derive(Debug, Default)]
pub struct Watched(Mutex<Watching>);

#[derive(Debug, Default)]
struct Watching {
    numbers: BTreeMap<u64, ObjectId>,
    teller: Option<Sender<WatchEvent>>,
    /// How much is not told yet.
    untold: usize,
    /// Who waits for all that had happened by then to be told, and how much of that is not.
    listeners: Vec<(usize, Sender<()>)>,
}

impl Watched {
    fn lock(&self) -> MutexGuard<'_, Watching> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new watcher, which watches nothing yet.
    pub fn watcher(self: &Arc<Watched>) -> Box<dyn Watcher> {
        let (teller, events) = unbounded();
        *self.lock() = Watching {
            teller: Some(teller),
            ..Watching::default()
        };
        let watched = self.clone();
        Box::new(Simulated { watched, events })
    }

    /// Nobody watches any more.
    pub fn end(&self) {
        *self.lock() = Watching::default();
    }

    /// Says something to whoever watches.
    pub fn tell(&self, event: WatchEvent) {
        let mut watching = self.lock();
        if let Some(teller) = &watching.teller {
            let _ = teller.send(event);
        }
        watching.listeners.retain_mut(|(untold, _)| {
            *untold = untold.saturating_sub(1);
            *untold > 0
        });
    }

    /// So much is not told yet. It is less than before if something was lost.
    pub fn note_untold(&self, untold: usize) {
        let mut watching = self.lock();
        watching.untold = untold;
        watching.listeners.retain_mut(|(left, _)| {
            *left = untold.min(*left);
            *left > 0
        });
    }

    fn number(&self, directory: &Path) -> Option<ObjectId> {
        let inode = fs::symlink_metadata(directory).ok()?.ino();
        self.lock().numbers.get(&inode).copied()
    }
}

struct Simulated {
    watched: Arc<Watched>,
    events: Receiver<WatchEvent>,
}

impl Watcher for Simulated {
    fn watch(&mut self, directory: ObjectId, handle: BorrowedFd<'_>) -> Result<(), WatchError> {
        let Ok(stat) = rustix::fs::fstat(handle) else {
            return Ok(());
        };
        let mut watching = self.watched.lock();
        watching.numbers.retain(|_, number| *number != directory);
        watching.numbers.insert(stat.st_ino, directory);
        Ok(())
    }

    fn unwatch(&mut self, directory: ObjectId) {
        self.watched
            .lock()
            .numbers
            .retain(|_, number| *number != directory);
    }

    fn name(&self) -> &'static str {
        "simulated"
    }

    fn hear(&mut self, done: Sender<()>) {
        let mut watching = self.watched.lock();
        let untold = watching.untold;
        if untold > 0 {
            watching.listeners.push((untold, done));
        }
    }

    fn watched(&self) -> usize {
        self.watched.lock().numbers.len()
    }

    fn events(&self) -> Receiver<WatchEvent> {
        self.events.clone()
    }
}

/// Somebody who works in a tree.
pub struct Editor {
    root: PathBuf,
    watched: Arc<Watched>,
    past: Arc<Mutex<Past>>,
    /// What the kernel has not told yet.
    pub untold: VecDeque<WatchEvent>,
    /// Since both sides were at rest something was not told, or its catalog forgot it.
    is_track_lost: bool,
    /// Names, since then, that were given to another file while the one that they led to had other names.
    renamed_over: Vec<PathBuf>,
    /// Objects that were removed, and not replaced: in which directory, and under which name.
    pub removed: BTreeMap<u64, (u64, OsString)>,
    /// What stood at any time since both sides were at rest, by directory and name and by path: objects, and how many each was with
    /// all below it.
    stood: BTreeMap<(u64, OsString), BTreeMap<u64, usize>>,
    stood_at: BTreeMap<PathBuf, BTreeMap<u64, usize>>,
    /// How many versions there were.
    version: u64,
    /// Whether files get several names.
    links: bool,
    /// Kinds of edits that there are.
    kinds: usize,
}

/// All kinds of edits.
pub const KINDS: usize = 17;

/// Names that entries get.
pub const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
/// Stays where it is, so that the tree is never empty: that would be for the user to confirm.
pub const LASTING: &str = "lasting";

impl Editor {
    /// Begins with a tree of a file.
    pub fn new(
        root: PathBuf,
        watched: Arc<Watched>,
        past: Arc<Mutex<Past>>,
        (links, kinds): (bool, usize),
    ) -> io::Result<Editor> {
        let mut editor = Editor {
            root,
            watched,
            past,
            untold: VecDeque::new(),
            is_track_lost: false,
            renamed_over: Vec::new(),
            removed: BTreeMap::new(),
            stood: BTreeMap::new(),
            stood_at: BTreeMap::new(),
            version: 0,
            links,
            kinds,
        };
        let lasting = editor.root.join(LASTING);
        editor.write(&lasting, 1)?;
        editor.note()?;
        Ok(editor)
    }

    /// The tree now.
    pub fn look(&self) -> io::Result<Tree> {
        tree::look(&self.root)
    }

    /// One change, whatever `random` (a number below another) chooses. The answer says which.
    pub fn edit(&mut self, random: &mut dyn FnMut(usize) -> usize) -> io::Result<String> {
        let tree = self.look()?;
        let directories: Vec<PathBuf> = std::iter::once(PathBuf::new())
            .chain(
                tree.iter()
                    .filter(|(path, node)| node.what == tree::What::Directory && path.iter().count() < 4)
                    .filter(|(path, _)| !path.starts_with(LEFT))
                    .map(|(path, _)| path.clone()),
            )
            .collect();
        let entries: Vec<(PathBuf, bool)> = tree
            .iter()
            .filter(|(path, _)| path.as_os_str() != LASTING && !path.starts_with(LEFT))
            .map(|(path, node)| (path.clone(), node.what == tree::What::Directory))
            .collect();
        let at = self
            .root
            .join(&directories[random(directories.len())])
            .join(NAMES[random(NAMES.len())]);
        let old = (!entries.is_empty()).then(|| entries[random(entries.len())].clone());
        let old = old.map(|(path, is_directory)| (self.root.join(path), is_directory));
        let told = match (random(self.kinds), old) {
            (0..=3, _) | (_, None) => self.write_file(&at, random)?,
            (4, _) => self.replace(&at, random)?,
            (5 | 6, _) => self.make_directory(&at)?,
            (7, Some((old, _))) => self.remove(&old)?,
            (8..=10, Some((old, is_directory))) => self.rename(&old, &at, is_directory)?,
            (11, _) => self.make_link(&at, random)?,
            (12, Some((old, is_directory))) => self.change_mode(&old, is_directory, random)?,
            (14, Some((old, is_directory))) => self.write_alike(&old, is_directory)?,
            (15, Some((old, is_directory))) => self.exchange(&old, &at, is_directory)?,
            (16, Some((old, is_directory))) => self.pass(&old, &at, is_directory)?,
            (_, Some((old, is_directory))) if self.links => self.link(&old, &at, is_directory)?,
            _ => self.replace(&at, random)?,
        };
        self.note()?;
        Ok(told)
    }

    /// The sender ends, or is not told what was done. A file that got a second name before another one was renamed over its first
    /// looks then like one that was renamed, so its first name may be absent on the target for a moment.
    pub fn lose_track(&mut self) {
        self.untold.clear();
        self.is_track_lost = true;
        self.excuse_renamed_over();
    }

    fn excuse_renamed_over(&mut self) {
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        for path in self.renamed_over.drain(..) {
            past.lasting.remove(&path);
        }
    }

    /// So many entries stood, at some time, where this removed object did.
    pub fn successors(&self, inode: u64, path: &Path) -> usize {
        let in_place = self.removed.get(&inode).and_then(|place| self.stood.get(place));
        let others = [in_place, self.stood_at.get(path)]
            .into_iter()
            .flatten()
            .flatten();
        others
            .filter(|(other, _)| **other != inode)
            .map(|(_, count)| *count)
            .max()
            .unwrap_or(0)
    }

    /// Whether a directory that had something in it, and is gone, stood at a path since both sides were at rest.
    pub fn has_lost_a_tree(&self, path: &Path) -> bool {
        let stood = self.stood_at.get(path);
        stood.is_some_and(|stood| {
            stood
                .iter()
                .any(|(inode, most)| *most > 1 && self.removed.contains_key(inode))
        })
    }

    /// Whether another tree, of as many entries at least, took the place of one that something was in. Where that could not be followed, it
    /// counts as the return of that.
    pub fn was_outgrown(&self, path: &Path, then: &Tree) -> bool {
        path.ancestors().skip(1).any(|above| {
            let Some((was, stood)) = then.get(above).zip(self.stood_at.get(above)) else {
                return false;
            };
            let count = then.keys().filter(|below| below.starts_with(above)).count();
            stood
                .iter()
                .any(|(inode, most)| *inode != was.inode && *most >= count)
        })
    }

    /// Where an object has stood since both sides were at rest.
    pub fn places_of(&self, inode: u64) -> impl Iterator<Item = &PathBuf> {
        let stood = self
            .stood_at
            .iter()
            .filter(move |(_, stood)| stood.contains_key(&inode));
        stood.map(|(path, _)| path)
    }

    /// Whether anything stood at a path since both sides were at rest.
    pub fn has_stood(&self, path: &Path) -> bool {
        self.stood_at.contains_key(path)
    }

    fn note_standing(&mut self, tree: &Tree) -> io::Result<()> {
        let root = fs::symlink_metadata(&self.root)?.ino();
        for (path, node) in tree {
            let count = tree.keys().filter(|below| below.starts_with(path)).count();
            let above = path.parent().and_then(|above| tree.get(above));
            let place = (
                above.map_or(root, |above| above.inode),
                path.file_name().unwrap_or_default().to_owned(),
            );
            for stood in [
                self.stood.entry(place).or_default(),
                self.stood_at.entry(path.clone()).or_default(),
            ] {
                let most = stood.entry(node.inode).or_default();
                *most = count.max(*most);
            }
        }
        Ok(())
    }

    /// Both sides are at rest.
    pub fn rest(&mut self) {
        self.stood.clear();
        self.stood_at.clear();
        self.is_track_lost = false;
        self.renamed_over.clear();
    }

    /// What the tree is now is part of its past.
    fn note(&mut self) -> io::Result<()> {
        let tree = self.look()?;
        self.note_standing(&tree)?;
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        past.lasting.retain(|path| tree.contains_key(path));
        past.versions.extend(tree.into_values().map(|node| node.what));
        Ok(())
    }

    fn write(&mut self, path: &Path, size: usize) -> io::Result<()> {
        self.version += 1;
        let mut bytes = format!("version {} ", self.version).into_bytes();
        let mut state = self.version;
        while bytes.len() < size {
            bytes.extend(crate::fs::simulated::next_random(&mut state).to_le_bytes());
        }
        fs::write(path, bytes)?;
        self.stamp(path)
    }

    /// What has changed, and its directory, gets a time that no clock decides.
    fn stamp(&mut self, path: &Path) -> io::Result<()> {
        self.version += 1;
        let time = (1_700_000_000 + self.version as i64, 0);
        for path in [Some(path), path.parent()].into_iter().flatten() {
            if fs::symlink_metadata(path).is_ok_and(|meta| !meta.is_symlink()) {
                tree::set_mtime(path, time)?;
            }
        }
        Ok(())
    }

    fn size(random: &mut dyn FnMut(usize) -> usize) -> usize {
        match random(24) {
            0 => 300_000 + random(50_000),
            1 => 70_000 + random(50_000),
            2 => 0,
            _ => 1 + random(3_000),
        }
    }

    fn write_file(&mut self, at: &Path, random: &mut dyn FnMut(usize) -> usize) -> io::Result<String> {
        let is_new = match fs::symlink_metadata(at) {
            Ok(meta) if meta.is_file() => false,
            Ok(_) => return Ok("nothing".to_owned()),
            Err(_) => true,
        };
        self.write(at, Self::size(random))?;
        if is_new {
            self.tell(at, Hint::Created, false);
        }
        self.tell(at, Hint::Modified, false);
        self.tell(at, Hint::Closed, false);
        Ok(format!("write {}", at.display()))
    }

    /// Other content of the same length, and the time of before: nothing but the ctime tells of it.
    fn write_alike(&mut self, old: &Path, is_directory: bool) -> io::Result<String> {
        let before = fs::symlink_metadata(old)?;
        if is_directory || before.is_symlink() {
            return Ok("nothing".to_owned());
        }
        self.version += 1;
        let mut bytes = format!("alike {:04}", self.version).into_bytes();
        let mut state = self.version;
        while (bytes.len() as u64) < before.len() {
            bytes.extend(crate::fs::simulated::next_random(&mut state).to_le_bytes());
        }
        bytes.truncate(before.len() as usize);
        fs::write(old, bytes)?;
        let changed = |meta: &fs::Metadata| (meta.ctime(), meta.ctime_nsec());
        // The clock of a file system may go by ticks.
        loop {
            tree::set_mtime(old, (before.mtime(), before.mtime_nsec()))?;
            if changed(&fs::symlink_metadata(old)?) != changed(&before) {
                break;
            }
        }
        self.tell(old, Hint::Modified, false);
        self.tell(old, Hint::Closed, false);
        Ok(format!("write alike {}", old.display()))
    }

    fn replace(&mut self, at: &Path, random: &mut dyn FnMut(usize) -> usize) -> io::Result<String> {
        if fs::symlink_metadata(at).is_ok_and(|meta| meta.is_dir()) {
            return Ok("nothing".to_owned());
        }
        let aside = at.with_file_name("aside");
        self.write(&aside, Self::size(random))?;
        self.note()?;
        self.tell(&aside, Hint::Created, false);
        self.tell(&aside, Hint::Closed, false);
        self.rename(&aside, at, false)
    }

    fn make_directory(&mut self, at: &Path) -> io::Result<String> {
        if fs::symlink_metadata(at).is_ok() {
            return Ok("nothing".to_owned());
        }
        fs::create_dir(at)?;
        self.stamp(at)?;
        self.tell(at, Hint::Created, true);
        Ok(format!("mkdir {}", at.display()))
    }

    fn make_link(&mut self, at: &Path, random: &mut dyn FnMut(usize) -> usize) -> io::Result<String> {
        if fs::symlink_metadata(at).is_ok() {
            return Ok("nothing".to_owned());
        }
        symlink(NAMES[random(NAMES.len())], at)?;
        self.stamp(at)?;
        self.tell(at, Hint::Created, false);
        Ok(format!("symlink {}", at.display()))
    }

    fn remove(&mut self, old: &Path) -> io::Result<String> {
        let meta = fs::symlink_metadata(old)?;
        if meta.is_dir() {
            let inside = tree::look(old)?;
            for (path, node) in inside.iter().rev() {
                let is_directory = node.what == tree::What::Directory;
                self.take_away(&old.join(path), is_directory)?;
            }
        }
        self.take_away(old, meta.is_dir())?;
        Ok(format!("remove {}", old.display()))
    }

    fn take_away(&mut self, path: &Path, is_directory: bool) -> io::Result<()> {
        if let (Some(above), Some(name)) = (path.parent(), path.file_name()) {
            let inode = |path: &Path| fs::symlink_metadata(path).map(|meta| meta.ino());
            self.removed
                .insert(inode(path)?, (inode(above)?, name.to_owned()));
        }
        if is_directory {
            if let Some(directory) = self.watched.number(path) {
                self.untold.push_back(WatchEvent::Gone { directory });
            }
            fs::remove_dir(path)?;
        } else {
            fs::remove_file(path)?;
        }
        self.tell(path, Hint::Vanished, is_directory);
        self.stamp(path)
    }

    fn rename(&mut self, old: &Path, at: &Path, is_directory: bool) -> io::Result<String> {
        let in_the_way = fs::symlink_metadata(at).ok();
        let is_possible = match &in_the_way {
            Some(meta) => !is_directory && !meta.is_dir(),
            None => true,
        };
        let links = in_the_way.as_ref().map_or(0, |meta| meta.nlink());
        let is_one = in_the_way
            .is_some_and(|there| fs::symlink_metadata(old).is_ok_and(|here| here.ino() == there.ino()));
        if !is_possible || is_one || at.starts_with(old) {
            return Ok("nothing".to_owned());
        }
        fs::rename(old, at)?;
        if links > 1 {
            let path = at.strip_prefix(&self.root).unwrap_or(at);
            self.renamed_over.push(path.to_owned());
            if self.is_track_lost {
                self.excuse_renamed_over();
            }
        }
        self.stamp(old)?;
        if let Some(parent) = at.parent() {
            self.version += 1;
            tree::set_mtime(parent, (1_700_000_000 + self.version as i64, 0))?;
        }
        self.tell(old, Hint::Vanished, is_directory);
        match (self.place(old), self.place(at)) {
            (Some(from), Some(to)) => self.untold.push_back(WatchEvent::Renamed {
                from,
                to,
                is_directory,
            }),
            (None, Some(_)) => self.tell(at, Hint::MovedIn, is_directory),
            _ => {}
        }
        if is_directory && let Some(directory) = self.watched.number(at) {
            self.untold.push_back(WatchEvent::Gone { directory });
        }
        Ok(format!("rename {} to {}", old.display(), at.display()))
    }

    /// Two change places by way of a third name.
    fn exchange(&mut self, old: &Path, at: &Path, is_directory: bool) -> io::Result<String> {
        let there = fs::symlink_metadata(at).map(|meta| meta.is_dir());
        let Ok(is_other_directory) = there else {
            return Ok("nothing".to_owned());
        };
        if at.starts_with(old) || old.starts_with(at) {
            return Ok("nothing".to_owned());
        }
        let aside = self.root.join("aside");
        self.rename(old, &aside, is_directory)?;
        self.note()?;
        self.rename(at, old, is_other_directory)?;
        self.note()?;
        self.rename(&aside, at, is_directory)?;
        Ok(format!("exchange {} and {}", old.display(), at.display()))
    }

    /// A file is renamed twice, and between that written to so that its size and time stay.
    fn pass(&mut self, old: &Path, at: &Path, is_directory: bool) -> io::Result<String> {
        if is_directory || fs::symlink_metadata(at).is_ok() {
            return Ok("nothing".to_owned());
        }
        // As if nobody watched, if it was one of several names: they come and go before anybody looks.
        self.is_track_lost |= self.links;
        if self.links {
            self.excuse_renamed_over();
        }
        let aside = at.with_file_name("aside");
        self.rename(old, &aside, false)?;
        self.note()?;
        self.write_alike(&aside, false)?;
        self.note()?;
        self.rename(&aside, at, false)?;
        Ok(format!("pass {} to {}", old.display(), at.display()))
    }

    fn change_mode(
        &mut self,
        old: &Path,
        is_directory: bool,
        random: &mut dyn FnMut(usize) -> usize,
    ) -> io::Result<String> {
        if fs::symlink_metadata(old)?.is_symlink() {
            return Ok("nothing".to_owned());
        }
        let mode = [0o755, 0o750, 0o700, 0o711][random(4)];
        fs::set_permissions(old, fs::Permissions::from_mode(mode))?;
        if is_directory && let Some(directory) = self.watched.number(old) {
            self.untold.push_back(WatchEvent::Itself { directory });
        }
        self.tell(old, Hint::Attributes, is_directory);
        Ok(format!("mode {mode:o} {}", old.display()))
    }

    fn link(&mut self, old: &Path, at: &Path, is_directory: bool) -> io::Result<String> {
        if is_directory || fs::symlink_metadata(at).is_ok() || fs::symlink_metadata(old)?.is_symlink() {
            return Ok("nothing".to_owned());
        }
        fs::hard_link(old, at)?;
        self.stamp(at)?;
        self.tell(old, Hint::Attributes, false);
        self.tell(at, Hint::Created, false);
        Ok(format!("link {} to {}", old.display(), at.display()))
    }

    fn place(&self, path: &Path) -> Option<(ObjectId, Name)> {
        let directory = self.watched.number(path.parent()?)?;
        Some((directory, Name::new(path.file_name()?.as_bytes()).ok()?))
    }

    fn tell(&mut self, path: &Path, hint: Hint, is_directory: bool) {
        if let Some((directory, name)) = self.place(path) {
            self.untold.push_back(WatchEvent::At {
                directory,
                name,
                hint,
                is_directory,
            });
        }
    }
}
