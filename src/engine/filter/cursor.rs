//! Asking about paths anywhere in the tree: events, `explain`, and what a change of rules affects.

use super::Filter;
use super::compile::RuleFiles;
use super::directory::{Deletion, DirRules, Role};
use super::error::{FilterError, RulePlace};
use super::rule::RuleRef;
use driftless_protocol::{Kind, Name, RelPath};
use std::fmt;

/// Answers for whole paths, directories above included. It keeps the rules of the directories on the way to the last
/// path, so paths in the order of a walk cost one step each.
///
/// It does not notice that a per-directory file has changed: make a new one then.
#[derive(Debug)]
pub struct Cursor {
    filter: Filter,
    role: Role,
    names: Vec<Name>,
    /// What is known about the root, and then about each of `names`.
    levels: Vec<Level>,
}

#[derive(Debug)]
struct Level {
    rules: DirRules,
    standing: Standing,
}

/// What holds for everything below a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Standing {
    /// It is not walked: this directory (by its depth) stopped it.
    cut: Option<(usize, Option<Reason>)>,
    /// It is protected as a whole: the directory itself is not on the source, and protected.
    kept: Option<(usize, Option<Reason>)>,
    /// The directory is to be removed.
    is_removed: bool,
}

/// The rule behind a decision, kept for later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// Whether it includes rather than excludes.
    pub includes: bool,
    /// Its pattern as written.
    pub pattern: Vec<u8>,
    /// Where it stands.
    pub place: RulePlace,
    shown: String,
}

impl From<RuleRef<'_>> for Reason {
    fn from(rule: RuleRef<'_>) -> Reason {
        Reason {
            includes: rule.includes(),
            pattern: rule.pattern(),
            place: rule.place(),
            shown: rule.to_string(),
        }
    }
}

impl fmt::Display for Reason {
    /// Such as `- *.o (/etc/driftless/excludes, line 3)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

/// What happens to a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// It is part of the mirror.
    pub transfer: bool,
    /// A directory that is walked into.
    pub descend: bool,
    /// A directory whose events count.
    pub watch: bool,
    /// What becomes of it on a receiver whose source lacks it.
    pub delete: Deletion,
    /// The path or the directory above it that decided about `transfer`.
    pub at: RelPath,
    /// The rule behind `transfer`; `None` if none matched there.
    pub by: Option<Reason>,
    /// The rule behind `delete`.
    pub delete_by: Option<Reason>,
}

impl Cursor {
    /// A cursor in the root.
    pub fn new(filter: &Filter, role: Role) -> Cursor {
        Cursor {
            filter: filter.clone(),
            role,
            names: Vec::new(),
            levels: Vec::new(),
        }
    }

    /// What happens to `path`. The root itself is always part of the mirror.
    pub fn explain(
        &mut self,
        path: &RelPath,
        kind: Kind,
        files: &mut dyn RuleFiles,
    ) -> Result<Explanation, FilterError> {
        let Some((name, above)) = path.names().split_last() else {
            return Ok(Explanation {
                transfer: true,
                descend: true,
                watch: true,
                delete: Deletion::Protected,
                at: RelPath::root(),
                by: None,
                delete_by: None,
            });
        };
        self.go_to(above, files)?;
        let Some(level) = self.levels.last() else {
            unreachable!("going somewhere leaves at least the root's level");
        };
        let (depth, standing) = (above.len() + 1, &level.standing);
        let verdict = match standing.is_removed {
            true => level.rules.verdict_in_removed(name, kind),
            false => level.rules.verdict(name, kind),
        };
        let own = |rule: Option<RuleRef<'_>>| rule.map(Reason::from);
        let (at, by) = standing.cut.clone().unwrap_or_else(|| (depth, own(verdict.by)));
        let (_, delete_by) = standing
            .kept
            .clone()
            .unwrap_or_else(|| (depth, own(verdict.delete_by)));
        let is_reached = standing.cut.is_none();
        Ok(Explanation {
            transfer: is_reached && verdict.transfer,
            descend: is_reached && verdict.descend,
            watch: is_reached && verdict.watch,
            delete: match standing.kept {
                Some(_) => Deletion::Protected,
                None => verdict.delete,
            },
            at: prefix(path, at),
            by,
            delete_by,
        })
    }

    /// Makes `levels` those of a directory.
    fn go_to(&mut self, directory: &[Name], files: &mut dyn RuleFiles) -> Result<(), FilterError> {
        let common = self
            .names
            .iter()
            .zip(directory)
            .take_while(|(a, b)| a == b)
            .count();
        self.names.truncate(common);
        self.levels.truncate(common + 1);
        if self.levels.is_empty() {
            self.levels.push(Level {
                rules: self.filter.root(self.role, files)?,
                standing: Standing {
                    cut: None,
                    kept: None,
                    is_removed: false,
                },
            });
        }
        for name in &directory[common..] {
            let next = self.levels[self.names.len()].enter(name, self.names.len() + 1, files)?;
            self.levels.push(next);
            self.names.push(name.clone());
        }
        Ok(())
    }
}

impl Level {
    fn enter(&self, name: &Name, depth: usize, files: &mut dyn RuleFiles) -> Result<Level, FilterError> {
        let verdict = match self.standing.is_removed {
            true => self.rules.verdict_in_removed(name, Kind::Directory),
            false => self.rules.verdict(name, Kind::Directory),
        };
        let reason = |rule: Option<RuleRef<'_>>| rule.map(Reason::from);
        let mut standing = self.standing.clone();
        if !verdict.descend && standing.cut.is_none() {
            standing.cut = Some((depth, reason(verdict.by)));
        }
        // A directory that is not sent is one that the receiver has too much: it goes as a whole, or stays.
        let is_extra = standing.cut.is_some();
        if is_extra && verdict.delete == Deletion::Protected && standing.kept.is_none() {
            standing.kept = Some((depth, reason(verdict.delete_by)));
        }
        standing.is_removed = is_extra;
        Ok(Level {
            rules: self.rules.enter(name, files)?,
            standing,
        })
    }
}

fn prefix(path: &RelPath, elements: usize) -> RelPath {
    RelPath::from_names(path.names()[..elements].to_vec()).unwrap_or_default()
}

/// A path whose fate a change of rules changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The path.
    pub path: RelPath,
    /// Its kind.
    pub kind: Kind,
    /// Under the old rules.
    pub before: Explanation,
    /// Under the new rules.
    pub after: Explanation,
}

/// Those of `entries` that `old` and `new` decide differently about: whether they are sent, walked, watched or
/// protected. Parents before children is the fastest order; any is right.
pub fn changes(
    old: &Filter,
    new: &Filter,
    role: Role,
    entries: impl IntoIterator<Item = (RelPath, Kind)>,
    files: &mut dyn RuleFiles,
) -> Result<Vec<Change>, FilterError> {
    let (mut old, mut new) = (Cursor::new(old, role), Cursor::new(new, role));
    let mut found = Vec::new();
    for (path, kind) in entries {
        let (before, after) = (old.explain(&path, kind, files)?, new.explain(&path, kind, files)?);
        let fate = |it: &Explanation| (it.transfer, it.descend, it.watch, it.delete);
        if fate(&before) != fate(&after) {
            found.push(Change {
                path,
                kind,
                before,
                after,
            });
        }
    }
    Ok(found)
}
