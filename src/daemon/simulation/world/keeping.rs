//! Mirrors that may not delete as they like: with a limit of deletions, and with `--delete never`.

use super::super::edits::NAMES;
use super::super::tree::{Node, Tree, What, is_private};
use super::*;
use crate::engine::fuse::{DeleteLimit, WINDOW};
use crossbeam_channel::unbounded;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What may be deleted on the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deleting {
    /// All that the source has not.
    All,
    /// Nothing (`--delete never`).
    Never,
    /// What somebody approves (`--max-delete 0`), who is there to be asked.
    Approved,
    /// What a run without a limit deletes: nobody is there to be asked, and every other run ends without it.
    Allowed,
}

/// What must be kept, and who decides.
pub(super) struct Keeping {
    pub(super) deleting: Deleting,
    /// How the process that runs hears of approvals.
    approvals: Option<Sender<u64>>,
    /// Both trees when they were last equal, or as equal as they can be.
    equal: (Tree, Tree),
    /// Since then somebody approved something.
    is_approved: bool,
    /// The next sender may delete what it likes.
    is_allowed: bool,
    /// So many senders ended since the last edit, as they would have deleted too much.
    refusals: u32,
}

/// How often somebody approves until it has to be enough.
const APPROVALS_MAX: u32 = 20;

/// Makes a tree of which much can be lost.
pub(super) fn fill(source: &Path) -> io::Result<()> {
    for directory in ["a", "b", "b/c", "d"] {
        fs::create_dir(source.join(directory))?;
    }
    let mut time = 1_600_000_000;
    for directory in ["a", "b/c", "d"] {
        for name in NAMES {
            let path = source.join(directory).join(name);
            fs::write(&path, format!("{name} of {directory}"))?;
            // One of the same size and time is taken for equal where nothing else is known.
            time += 1;
            tree::set_mtime(&path, (time, 0))?;
        }
    }
    Ok(())
}

impl Keeping {
    pub(super) fn new(deleting: Deleting) -> Keeping {
        Keeping {
            deleting,
            approvals: None,
            equal: Default::default(),
            is_approved: false,
            is_allowed: false,
            refusals: 0,
        }
    }

    /// What a sender is started with.
    pub(super) fn start(&mut self, options: SenderOptions) -> SenderOptions {
        let nothing = DeleteLimit {
            entries: 0,
            percent: 0,
        };
        let (approvals, approved) = unbounded();
        self.approvals = Some(approvals);
        let limited = SenderOptions {
            delete_limit: Some(nothing),
            ..options.clone()
        };
        match self.deleting {
            Deleting::All => options,
            Deleting::Never => SenderOptions {
                deletes: Deletes::Never,
                ..options
            },
            Deleting::Approved => SenderOptions {
                approvals: Some(approved),
                ..limited
            },
            Deleting::Allowed if self.is_allowed => options,
            Deleting::Allowed => limited,
        }
    }

    /// Whether a sender ended as it would have deleted too much.
    pub(super) fn note_end(&mut self, outcome: &str) -> bool {
        let is_refused = outcome.contains("more than may be deleted unasked");
        self.refusals += u32::from(is_refused);
        is_refused
    }

    pub(super) fn note_edit(&mut self) {
        self.refusals = 0;
    }

    /// Another run would say the same: the last one has seen all that was done.
    pub(super) fn is_refused(&self) -> bool {
        self.refusals >= 2
    }
}

impl World {
    /// Some rounds, in some of which what is gone may be deleted.
    pub(super) fn run_keeping(&mut self) -> Result<Counts, String> {
        self.come_to_rest(0, 0)?;
        self.note_equal()?;
        let rounds = 2 + self.random.below(3);
        for round in 0..rounds {
            let (edits, faults) = (1 + self.random.below(10), self.random.below(4));
            self.come_to_rest(edits, faults)?;
            self.check_kept()?;
            let is_asked = round + 1 == rounds || self.random.below(3) == 0;
            for _ in 0..APPROVALS_MAX {
                if self.is_held() && is_asked {
                    self.approve()?;
                    self.come_to_rest(0, 0)?;
                }
            }
            if self.is_held() && is_asked {
                return Err(self.failure("is approved, and held"));
            }
            if !self.is_held() {
                self.note_equal()?;
            }
        }
        Ok(self.counts.clone())
    }

    /// What is in error is tried again and again: where a directory is kept, for ever.
    pub(super) fn tries_for_ever(&self) -> bool {
        self.keeping.deleting == Deleting::Never && !self.told.lock().failed.is_empty()
    }

    /// Whether something that is gone waits to be deleted.
    pub(super) fn is_held(&self) -> bool {
        self.keeping.is_refused() || self.told.lock().held.is_some()
    }

    fn approve(&mut self) -> Result<(), String> {
        self.counts.approvals += 1;
        self.keeping.is_approved = true;
        let held = self.told.lock().held;
        self.say(|| format!("approved: {held:?}"));
        match (held, &self.keeping.approvals) {
            (Some(deletions), Some(approvals)) => {
                let _ = approvals.send(deletions);
                self.told.lock().held = None;
            }
            _ => {
                self.keeping.is_allowed = true;
                self.keeping.refusals = 0;
            }
        }
        self.baton.wake(Role::Sender);
        Ok(())
    }

    /// Where this object would be now if it had not been removed.
    fn last_place(&self, inode: u64, alive: &BTreeMap<u64, &PathBuf>) -> Option<PathBuf> {
        let (above, name) = self.editor.removed.get(&inode)?;
        let directory = match alive.get(above) {
            Some(path) => (*path).clone(),
            // That of the root is in no tree.
            None if self.editor.removed.contains_key(above) => self.last_place(*above, alive)?,
            None => PathBuf::new(),
        };
        Some(directory.join(name))
    }

    /// What is held holds up nothing else, but for what is to take the place of a directory that waits.
    fn check_sent(&mut self, source: &Tree, target: &Tree) -> Result<(), String> {
        let (ours, theirs) = &self.keeping.equal;
        let then: BTreeMap<u64, &PathBuf> = theirs.iter().map(|(path, node)| (node.inode, path)).collect();
        let is_another = |path: &Path| {
            let (Some(here), Some(there)) = (source.get(path), target.get(path)) else {
                return false;
            };
            // One that came since then may be any.
            let was = then.get(&there.inode).and_then(|path| ours.get(*path));
            there.what == What::Directory && was.is_none_or(|was| was.inode != here.inode)
        };
        let is_there =
            |path: &Path, node: &Node| target.get(path).is_some_and(|there| there.what == node.what);
        let missing = source.iter().find(|(path, node)| {
            // A directory that was there for a while, and went, may have come to the target before that.
            let waits = |path| is_another(path) || self.editor.has_lost_a_tree(path);
            !is_there(path, node) && !path.ancestors().any(waits)
        });
        match missing {
            Some((path, node)) => {
                let there = target.get(path).map(|there| there.what.told());
                let text = format!("{} is {there:?} and not {}", path.display(), node.what.told());
                Err(self.failure(&text))
            }
            None => Ok(()),
        }
    }

    /// Both trees are as equal as they can be.
    fn note_equal(&mut self) -> Result<(), String> {
        let look = |error: io::Error| error.to_string();
        match self.keeping.deleting {
            Deleting::Never => self.compare_never()?,
            _ => self.compare()?,
        }
        let source = self.editor.look().map_err(look)?;
        let mut target = self.disk.look().map_err(look)?;
        if !self.told.lock().failed.is_empty() {
            // What could not go where it belongs is there under no name, or under that which it had.
            target.retain(|path, _| source.contains_key(path));
        }
        self.keeping.equal = (source, target);
        self.keeping.is_approved = false;
        if std::mem::take(&mut self.keeping.is_allowed) {
            // Whoever ran it without a limit runs it with one again.
            self.places[Role::Sender as usize].life.end();
            self.after_turn(Role::Sender)?;
        }
        // What came just now may go unasked.
        self.now += WINDOW.as_nanos() as u64;
        Ok(())
    }

    /// All that the source has is on the target, but for what is in error, which is the place of something that is kept.
    fn compare_never(&mut self) -> Result<(), String> {
        let look = |error: io::Error| error.to_string();
        let source = self.editor.look().map_err(look)?;
        let mut target = self.disk.look().map_err(look)?;
        let failed = self.told.lock().failed.clone();
        if self.publishes() && !failed.is_empty() {
            // It is shown when all of it is there.
            return Ok(());
        }
        let is_in_error = |path: &Path| failed.iter().any(|entry| path.starts_with(&entry.path));
        let held: Tree = source
            .into_iter()
            .filter(|(path, _)| !is_in_error(path))
            .collect();
        target.retain(|path, _| held.contains_key(path));
        for entry in &failed {
            // Each try leaves a new time there.
            let above = Path::new(&entry.path).parent().unwrap_or(Path::new(""));
            if let (Some(here), Some(there)) = (held.get(above), target.get_mut(above)) {
                there.mtime = here.mtime;
            }
        }
        if let Some(text) = tree::difference(&held, &target) {
            return Err(self.failure(&format!("in sync, but {text}")));
        }
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        past.lasting = held.into_keys().collect();
        drop(past);
        self.editor.rest();
        self.counts.rests += 1;
        Ok(())
    }

    /// What may not be deleted is there.
    fn check_kept(&mut self) -> Result<(), String> {
        let look = |error: io::Error| error.to_string();
        let source = self.editor.look().map_err(look)?;
        let target = self.disk.look().map_err(look)?;
        if self.is_told {
            let tree = |tree: &Tree| -> Vec<String> {
                tree.iter()
                    .map(|(path, node)| format!("{} {}", path.display(), node.inode))
                    .collect()
            };
            println!(
                "source {:?}\ntarget {:?}\nbefore {:?}",
                tree(&source),
                tree(&target),
                tree(&self.keeping.equal.1)
            );
        }
        if self.keeping.is_approved || self.disk.has_made_anew() {
            return Ok(());
        }
        let (ours, theirs) = &self.keeping.equal;
        let alive: BTreeMap<u64, &PathBuf> = source.iter().map(|(path, node)| (node.inode, path)).collect();
        let there: BTreeMap<u64, &PathBuf> = target.iter().map(|(path, node)| (node.inode, path)).collect();
        let is_gone = |path: &PathBuf| {
            ours.get(path)
                .is_none_or(|node| self.editor.removed.contains_key(&node.inode))
        };
        let mut lost = Vec::new();
        let mut heirs = 0;
        for (path, node) in theirs
            .iter()
            .filter(|(path, _)| !is_private(path) && is_gone(path))
        {
            // By where its directory went there, or here: what is published is another object each time.
            let mut places = [place_of(path, theirs, &there), place_of(path, ours, &alive)]
                .into_iter()
                .flatten();
            let stands = places.find(|path| target.contains_key(path));
            let is_kept = there.contains_key(&node.inode)
                // Where it was when it went, or at any time: that its directory moved after that may not have been seen.
                || ours.get(path).is_some_and(|node| {
                    let last = self.last_place(node.inode, &alive);
                    let stood = self.editor.places_of(node.inode);
                    last.iter().chain(stood).any(|path| target.contains_key(path))
                })
                || match self.keeping.deleting {
                    // A file is replaced; a directory is not, but for an empty one.
                    Deleting::Never => {
                        let has_any = theirs
                            .keys()
                            .any(|below| below != path && below.starts_with(path));
                        let moved_along = self.publishes()
                            && theirs
                                .iter()
                                .filter(|(below, node)| {
                                    node.what != What::Directory && below.starts_with(path)
                                })
                                .any(|(_, node)| there.contains_key(&node.inode));
                        let is_directory = |path| target[path].what == What::Directory;
                        let must_be_one = node.what == What::Directory && has_any;
                        // What took its place may have gone again.
                        let was_replaced = !must_be_one && self.editor.has_stood(path);
                        was_replaced
                            || moved_along
                            || stands
                                .as_ref()
                                .is_some_and(|path| !must_be_one || is_directory(path))
                    }
                    _ => stands.is_some_and(|path| !source.contains_key(&path)),
                };
            heirs += ours
                .get(path)
                .map_or(0, |node| self.editor.successors(node.inode, path));
            if !is_kept {
                lost.push(path.clone());
            }
        }
        let allowed = match self.keeping.deleting {
            Deleting::Never => 0,
            _ => {
                lost.retain(|path| !self.editor.was_outgrown(path, ours));
                heirs
            }
        };
        if lost.len() > allowed {
            return Err(self.failure(&format!("lost unasked: {lost:?}, {allowed} had a successor")));
        }
        if self.is_held() {
            self.counts.kept += 1;
            // What is published at once is so when all of it is there, deletions too.
            if !self.publishes() {
                self.check_sent(&source, &target)?;
            }
        }
        Ok(())
    }
}

/// Where something of this tree would be now if it had not moved in its directory, by where all is now.
fn place_of(path: &Path, then: &Tree, now: &BTreeMap<u64, &PathBuf>) -> Option<PathBuf> {
    let above = path.parent().filter(|above| !above.as_os_str().is_empty());
    let directory = match above {
        None => PathBuf::new(),
        Some(above) => {
            let inode = then.get(above).map(|node: &Node| node.inode)?;
            match now.get(&inode) {
                Some(path) => (*path).clone(),
                // It is gone itself, or another took its place.
                None => place_of(above, then, now)?,
            }
        }
    };
    Some(directory.join(path.file_name()?))
}
