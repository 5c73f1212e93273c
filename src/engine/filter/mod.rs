//! Which entries of a tree are mirrored, and which of those that only the receiver has may be deleted.
//!
//! One compiled matcher serves the scan, the watcher and the receiver, so they can't disagree. It reads no file: the
//! contents of rule files are given through [`RuleFiles`]. The rules are rsync's (man page of rsync 3.5, "FILTER RULES"),
//! with regular expressions, clsync's rules, lsyncd's excludes and gitignore files as further kinds in the same ordered
//! list; the first rule that matches decides.
//!
//! | to do | use |
//! | --- | --- |
//! | make a filter | [`FilterBuilder`], one call per option in the order given |
//! | walk a tree | [`Filter::root`], [`DirRules::enter`], [`DirRules::verdict`] |
//! | judge one path (an event, `explain`) | [`Cursor`] |
//! | find what a changed rule set affects | [`changes`] |
//! | agree with a peer | [`Filter::fingerprint`] |
//!
//! Where this differs from rsync 3.5, on purpose:
//!
//! - A per-directory file that exists but can't be read, or holds a faulty rule, is an error for its directory. rsync
//!   ignores the first and ends on the second.
//! - A per-directory file can't name files outside of the tree. rsync follows absolute names and `..`.
//! - Rules of a file that a per-directory file merges keep their side, and are anchored at that directory. rsync loses
//!   both.
//! - Wildcard bytes in the names of *directories* have no meaning. rsync builds anchored per-directory rules by writing
//!   the directory's path in front of the pattern.
//! - A `dir-merge` with a path in front of its name inside a per-directory file searches no directories above.
//! - With `w`, `- foo + bar` is two rules, as rsync's man page says; rsync 3.5 reports a fault.
//! - Each `-C` makes its list with its own modifiers. rsync makes it once, with those of the first.
//! - `-C` with an argument, and a `dir-merge` name that ends in a slash, are faults; rsync ignores the one and
//!   turns the other into "directories only".
//! - Rules are never dropped for their length: a pattern above 4,096 bytes is a fault.

mod build;
mod clsync;
mod compile;
mod cursor;
mod directory;
mod error;
mod expression;
mod fingerprint;
mod gitignore;
mod lsyncd;
mod named;
mod parse;
mod paths;
mod pattern;
mod rule;
mod size;
#[cfg(test)]
mod tests;
mod wildcard;
mod wildmatch;

pub use build::FilterBuilder;
pub use compile::{NoRuleFiles, RuleFiles};
pub use cursor::{Change, Cursor, Explanation, changes};
pub use directory::{Deletion, DirRules, Role, Verdict};
pub use error::{FilterError, ReadFault, RuleFault, RulePlace, RuleSource};
pub use lsyncd::differs_from_rsync;
pub use named::{NamedPaths, split_relative_root};
pub use paths::FileSet;
pub use rule::RuleRef;
pub use size::{SizeFault, SizeUnit, parse_size};
pub use wildcard::Wildcard;

use compile::{Common, Slots};
use driftless_protocol::{Kind, Name};
use rule::{Item, Only, Scope};
use std::sync::Arc;

/// Rules in one list (the options, or one per-directory file).
pub const RULES_MAX: usize = 100_000;

/// Bytes in a pattern: as many as in a path (`PATH_MAX` of Linux).
pub const PATTERN_BYTES_MAX: usize = 4_096;

/// Bytes in a file of rules.
pub const RULE_FILE_BYTES_MAX: usize = 16 << 20;

/// Merge files that name each other, one inside the other.
pub const MERGE_DEPTH_MAX: usize = 32;

/// Different names of per-directory files in force at one place.
pub const DIR_MERGES_MAX: usize = 64;

/// A compiled filter. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Filter {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    common: Common,
    items: Vec<Item>,
    slots: Slots,
    named: Option<NamedPaths>,
    min_size: u64,
    max_size: Option<u64>,
    one_file_system: bool,
    /// Some rules are for one side only, or may turn out to be.
    has_sides: bool,
    /// Some rules decide about walking and watching apart from sending.
    has_actions: bool,
    fingerprint: [u8; 32],
}

impl Filter {
    /// The filter that lets everything pass.
    pub fn everything() -> Filter {
        let mut inner = Inner::default();
        inner.fingerprint = fingerprint::fingerprint(&inner);
        Filter {
            inner: Arc::new(inner),
        }
    }

    /// Whether every entry is part of the mirror and at risk, so that nothing need be asked.
    pub fn passes_everything(&self) -> bool {
        let inner = &*self.inner;
        inner.items.is_empty() && inner.named.is_none() && inner.max_size.is_none() && inner.min_size == 0
    }

    /// The rules in the root of the tree.
    pub fn root(&self, role: Role, files: &mut dyn RuleFiles) -> Result<DirRules, FilterError> {
        DirRules::root(self, role, files)
    }

    /// Whether `--min-size` and `--max-size` let a regular file of this size be sent. That is no matter of rules: a
    /// file which is too large or too small is still part of the mirror, and is not deleted on a target.
    pub fn admits_size(&self, bytes: u64) -> bool {
        bytes >= self.inner.min_size && self.inner.max_size.is_none_or(|most| bytes <= most)
    }

    /// Whether `--min-size` or `--max-size` was given.
    pub fn has_size_limits(&self) -> bool {
        self.inner.max_size.is_some() || self.inner.min_size > 0
    }

    /// Whether this filter could keep anything that only a target has, so that a directory there must not be removed
    /// without looking into it. It errs to the side of yes.
    pub fn may_protect(&self) -> bool {
        let inner = &*self.inner;
        let protects = |item: &Item| match item {
            Item::Rule(rule) => {
                !rule.include && rule.only != Only::Xattrs && rule.scope.covers(Scope::DELETE)
            }
            // What a per-directory file will say is not known.
            Item::DirMerge(_, scope) | Item::Cvs(scope, _) => scope.covers(Scope::DELETE),
            Item::Git(rules) => rules.scope().covers(Scope::DELETE),
        };
        inner.one_file_system
            || inner.named.is_some()
            || self.has_size_limits()
            || inner.items.iter().any(protects)
    }

    /// Whether a walk stays on the file system of the root.
    pub fn one_file_system(&self) -> bool {
        self.inner.one_file_system
    }

    /// Whether there are rules for extended attributes (modifier `x`). Without any, the caller's default holds.
    pub fn has_xattr_rules(&self) -> bool {
        self.xattr_rules().next().is_some()
    }

    /// Whether an extended attribute is sent (`receiving` false), or may be removed from an object that the source has
    /// without it (`receiving` true).
    pub fn admits_xattr(&self, name: &Name, receiving: bool) -> bool {
        let entry = rule::Entry {
            subject: pattern::Subject {
                directory: b"",
                name: name.as_bytes(),
                is_directory: false,
            },
            is_regular: false,
        };
        let question = if receiving { Scope::DELETE } else { Scope::TRANSFER };
        self.xattr_rules()
            .find(|rule| rule.scope.covers(question) && rule.matches(entry))
            .is_none_or(|rule| rule.include)
    }

    /// The rules with the modifier `x`; those of per-directory files do not count.
    fn xattr_rules(&self) -> impl Iterator<Item = &rule::Rule> {
        self.inner.items.iter().filter_map(|item| match item {
            Item::Rule(rule) if rule.only == Only::Xattrs => Some(rule),
            _ => None,
        })
    }

    /// A hash of the rules, in their order, and of the other settings. Two filters with the same one decide alike about
    /// trees with the same per-directory files; comments, file names and spellings do not count. For the handshake.
    pub fn fingerprint(&self) -> [u8; 32] {
        self.inner.fingerprint
    }

    /// What happens to one path, and why; for `explain`. Reads the per-directory files on the way.
    pub fn explain(
        &self,
        role: Role,
        path: &driftless_protocol::RelPath,
        kind: Kind,
        files: &mut dyn RuleFiles,
    ) -> Result<Explanation, FilterError> {
        Cursor::new(self, role).explain(path, kind, files)
    }
}
