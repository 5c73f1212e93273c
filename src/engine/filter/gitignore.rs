//! Files in gitignore syntax, through the `ignore` crate.
//!
//! git's rules fit into the list: the last pattern of a file that matches decides for the file, and a file with no
//! match leaves the decision to the next rule. As in git, nothing below an ignored directory can be brought back.

use super::compile::fault_at;
use super::error::{FilterError, RuleFault, RulePlace};
use super::pattern::Subject;
use super::rule::{RuleRef, Scope};
use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A compiled file.
#[derive(Debug)]
pub(super) struct GitRules {
    set: Gitignore,
    /// The line of each pattern; the last, if it stands there twice.
    lines: HashMap<String, u32>,
    /// The length of the path of the directory to which the patterns are relative.
    base: usize,
    scope: Scope,
    place: RulePlace,
}

impl GitRules {
    pub(super) fn new(
        content: &[u8],
        base: usize,
        scope: Scope,
        place: &RulePlace,
    ) -> Result<GitRules, FilterError> {
        let mut builder = GitignoreBuilder::new("");
        let mut lines = HashMap::new();
        for (number, line) in (1..).zip(content.split(|&byte| byte == b'\n')) {
            let fail = |fault| fault_at(&place.at(number), fault);
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let line = std::str::from_utf8(line).map_err(|_| fail(RuleFault::NotText))?;
            builder
                .add_line(None, line)
                .map_err(|_| fail(RuleFault::BadGitignore))?;
            lines.insert(line.to_owned(), number);
            lines.insert(line.trim_end().to_owned(), number);
        }
        let set = builder
            .build()
            .map_err(|_| fault_at(place, RuleFault::BadGitignore))?;
        Ok(GitRules {
            set,
            lines,
            base,
            scope,
            place: place.clone(),
        })
    }

    pub(super) fn scope(&self) -> Scope {
        self.scope
    }

    /// The patterns in their order, for the fingerprint.
    pub(super) fn patterns(&self) -> Vec<&str> {
        let mut patterns: Vec<_> = self
            .lines
            .iter()
            .map(|(text, line)| (*line, text.as_str()))
            .collect();
        patterns.sort_unstable();
        patterns
            .into_iter()
            .map(|(_, text)| text)
            .filter(|text| !text.is_empty() && !text.starts_with('#'))
            .collect()
    }

    pub(super) fn decide(&self, subject: Subject<'_>, question: Scope) -> Option<RuleRef<'_>> {
        if !self.scope.covers(question) {
            return None;
        }
        let path = subject.path_below(self.base);
        let path = Path::new(OsStr::from_bytes(&path));
        let (include, pattern) = match self.set.matched(path, subject.is_directory) {
            Match::None => return None,
            Match::Ignore(pattern) => (false, pattern.original()),
            Match::Whitelist(pattern) => (true, pattern.original()),
        };
        Some(RuleRef {
            include,
            place: &self.place,
            line: self.lines.get(pattern).copied().unwrap_or(0),
            text: pattern.as_bytes(),
            only_directories: false,
        })
    }
}
