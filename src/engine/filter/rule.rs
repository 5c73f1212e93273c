//! A compiled rule, and the lists that rules stand in.

use super::error::RulePlace;
use super::gitignore::GitRules;
use super::pattern::{Pattern, Subject};
use driftless_protocol::name::escape;
use regex::bytes::Regex;
use std::fmt;
use std::sync::Arc;

/// What a rule decides about, as a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scope(u8);

impl Scope {
    /// Whether an entry is sent.
    pub(super) const TRANSFER: Scope = Scope(1);
    /// Whether a directory is walked into.
    pub(super) const WALK: Scope = Scope(2);
    /// Whether a directory's events count.
    pub(super) const WATCH: Scope = Scope(4);
    /// Whether an entry that only the receiver has may be deleted.
    pub(super) const DELETE: Scope = Scope(8);
    /// All that rsync calls the sending side.
    pub(super) const SENDER: Scope = Scope(1 | 2 | 4);
    /// Both sides.
    pub(super) const BOTH: Scope = Scope(15);
    pub(super) const NONE: Scope = Scope(0);

    pub(super) const fn with(self, other: Scope) -> Scope {
        Scope(self.0 | other.0)
    }

    pub(super) const fn without(self, other: Scope) -> Scope {
        Scope(self.0 & !other.0)
    }

    pub(super) const fn covers(self, question: Scope) -> bool {
        self.0 & question.0 != 0
    }

    pub(super) const fn bits(self) -> u8 {
        self.0
    }
}

/// Which kinds of entry a rule can match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Only {
    Any,
    Directories,
    RegularFiles,
    /// Names of extended attributes, and no entries.
    Xattrs,
}

/// How a rule recognises entries.
#[derive(Debug, Clone)]
pub(super) enum Matcher {
    /// rsync's patterns.
    Pattern(Pattern),
    /// An expression that is searched in the path from the root, without slashes at its ends.
    Regex(Regex),
    /// An expression that is searched in the path with a slash in front, and behind for a directory.
    Lsyncd(Regex),
}

/// A compiled rule.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) include: bool,
    pub(super) scope: Scope,
    /// Ignored inside directories that are being removed.
    pub(super) perishable: bool,
    /// The rule holds for what does not match.
    pub(super) negate: bool,
    pub(super) only: Only,
    pub(super) matcher: Matcher,
    /// The pattern as written, for `explain` and the fingerprint.
    pub(super) text: Box<[u8]>,
    pub(super) place: RulePlace,
}

impl Rule {
    pub(super) fn matches(&self, entry: Entry<'_>) -> bool {
        let subject = entry.subject;
        let fits = match self.only {
            Only::Any => true,
            Only::Directories => subject.is_directory,
            Only::RegularFiles => entry.is_regular,
            Only::Xattrs => true,
        };
        let found = fits
            && match &self.matcher {
                Matcher::Pattern(pattern) => pattern.matches(subject),
                Matcher::Regex(regex) => regex.is_match(&subject.path()),
                Matcher::Lsyncd(regex) => {
                    let mut path = b"/".to_vec();
                    path.extend_from_slice(&subject.path());
                    if subject.is_directory {
                        path.push(b'/');
                    }
                    regex.is_match(&path)
                }
            };
        found != self.negate
    }
}

/// An entry as rules see it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<'a> {
    pub(super) subject: Subject<'a>,
    pub(super) is_regular: bool,
}

/// An element of a list of rules.
#[derive(Debug, Clone)]
pub(super) enum Item {
    Rule(Rule),
    /// The place where the rules of a per-directory file apply, by the file's number.
    DirMerge(usize, Scope),
    /// The list of CVS, as one rule asked for it.
    Cvs(Scope, Arc<Vec<Item>>),
    /// A file in gitignore syntax.
    Git(Arc<GitRules>),
}

/// The rule that decided, for messages and `explain`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RuleRef<'a> {
    pub(super) include: bool,
    pub(super) place: &'a RulePlace,
    /// The line, if it is not that of the place.
    pub(super) line: u32,
    pub(super) text: &'a [u8],
    pub(super) only_directories: bool,
}

impl<'a> RuleRef<'a> {
    pub(super) fn of(rule: &'a Rule) -> RuleRef<'a> {
        RuleRef {
            include: rule.include,
            place: &rule.place,
            line: rule.place.line,
            text: &rule.text,
            only_directories: matches!(rule.matcher, Matcher::Pattern(_)) && rule.only == Only::Directories,
        }
    }

    /// Whether the rule includes (or puts at risk) rather than excludes (or protects).
    pub fn includes(&self) -> bool {
        self.include
    }

    /// Where it stands.
    pub fn place(&self) -> RulePlace {
        self.place.at(self.line)
    }

    /// Its pattern, with the slash that limits it to directories.
    pub fn pattern(&self) -> Vec<u8> {
        let mut text = self.text.to_vec();
        if self.only_directories {
            text.push(b'/');
        }
        text
    }
}

impl fmt::Display for RuleRef<'_> {
    /// Such as `- *.o (/etc/driftless/excludes, line 3)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.include { "+ " } else { "- " })?;
        escape(&self.pattern(), f)?;
        write!(f, " ({})", self.place())
    }
}

impl fmt::Debug for RuleRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{self}`")
    }
}
