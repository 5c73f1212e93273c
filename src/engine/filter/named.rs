//! Paths named one by one: `--files-from`, a source that is a single file, and the `/./` of `--relative`.

use super::compile::{fault_at, normal_path};
use super::error::{FilterError, RuleFault, RulePlace, RuleSource};
use super::pattern::Subject;
use driftless_protocol::RelPath;
use std::collections::HashMap;

/// The entries that a list names, and the directories above them.
#[derive(Debug, Clone, Default)]
pub struct NamedPaths {
    entries: HashMap<Vec<u8>, Mark>,
    /// Everything below a named directory belongs to it.
    recursive: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Mark {
    Parent,
    Listed,
    /// Listed with a slash behind: its entries belong to it, if it is a directory.
    WithContents,
}

/// What a list says about an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Named {
    Outside,
    Parent,
    Listed,
    Below,
}

impl NamedPaths {
    /// Parses a `--files-from` list: a path per line, or per zero byte with `zeros`; `#` and `;` start comments. As in
    /// rsync a leading slash is dropped and `..` is resolved; unlike there, it may not lead above the source.
    /// `recursive`: a named directory stands for all below it (rsync: `-r` was given, too); otherwise for itself,
    /// and with a slash behind for its direct entries, too.
    pub fn parse(content: &[u8], zeros: bool, recursive: bool) -> Result<NamedPaths, FilterError> {
        let source = RuleSource::Option("--files-from");
        NamedPaths::parse_from(source, content, zeros, recursive)
    }

    /// As [`NamedPaths::parse`], for messages that name where the list is from.
    pub fn parse_from(
        source: RuleSource,
        content: &[u8],
        zeros: bool,
        recursive: bool,
    ) -> Result<NamedPaths, FilterError> {
        let place = RulePlace::whole(source);
        let mut paths = NamedPaths {
            entries: HashMap::new(),
            recursive,
        };
        let is_end = |byte: &u8| {
            if zeros {
                *byte == 0
            } else {
                matches!(byte, b'\n' | b'\r')
            }
        };
        for (number, line) in (1..).zip(content.split(is_end)) {
            if !line.is_empty() && !matches!(line[0], b'#' | b';') {
                let bad = |_| fault_at(&place.at(number), RuleFault::BadPath);
                let path = normal_path(b"", line).ok_or(()).map_err(bad)?;
                RelPath::parse(&path).map_err(|_| ()).map_err(bad)?;
                let has_contents = line.ends_with(b"/") || line.ends_with(b"/.") || path.is_empty();
                paths.add(
                    path,
                    if has_contents {
                        Mark::WithContents
                    } else {
                        Mark::Listed
                    },
                );
            }
        }
        Ok(paths)
    }

    /// A source that is one entry of its directory.
    pub fn single(path: &RelPath) -> NamedPaths {
        let mut paths = NamedPaths {
            entries: HashMap::new(),
            recursive: true,
        };
        paths.add(path.to_bytes(), Mark::Listed);
        paths
    }

    fn add(&mut self, path: Vec<u8>, mark: Mark) {
        for (at, _) in path.iter().enumerate().filter(|&(_, &byte)| byte == b'/') {
            self.entries.entry(path[..at].to_vec()).or_insert(Mark::Parent);
        }
        let known = self.entries.entry(path).or_insert(mark);
        *known = mark.max(*known);
    }

    pub(super) fn find(&self, subject: Subject<'_>) -> Named {
        match self.entries.get(&subject.path()) {
            Some(Mark::Parent) if !self.is_below(subject.directory) => Named::Parent,
            Some(_) => Named::Listed,
            None if self.is_below(subject.directory) => Named::Below,
            None => Named::Outside,
        }
    }

    /// Whether the entries of a directory belong to a named one.
    fn is_below(&self, directory: &[u8]) -> bool {
        if self.entries.get(directory) == Some(&Mark::WithContents) {
            return true;
        }
        if !self.recursive {
            return false;
        }
        let mut above = directory;
        loop {
            if self.entries.get(above).is_some_and(|mark| *mark > Mark::Parent) {
                return true;
            }
            match above.iter().rposition(|&byte| byte == b'/') {
                Some(at) => above = &above[..at],
                None if above.is_empty() => return false,
                None => above = b"",
            }
        }
    }

    /// The named paths in their order, each with the number of its mark; for the fingerprint.
    pub(super) fn canonical(&self) -> (bool, Vec<(&[u8], u8)>) {
        let mut entries: Vec<_> = self
            .entries
            .iter()
            .map(|(path, mark)| (&**path, *mark as u8))
            .collect();
        entries.sort_unstable();
        (self.recursive, entries)
    }
}

/// Splits a source argument at its first `/./`, which in rsync's `--relative` separates the directory that is only
/// gone to from the path that is also made on the target. Without one the first part is empty for a relative path and
/// `/` for an absolute one.
///
/// ```
/// # use driftless::engine::filter::split_relative_root;
/// assert_eq!(split_relative_root(b"/srv/./www/a"), (&b"/srv"[..], &b"www/a"[..]));
/// assert_eq!(split_relative_root(b"/srv/www"), (&b"/"[..], &b"srv/www"[..]));
/// ```
pub fn split_relative_root(source: &[u8]) -> (&[u8], &[u8]) {
    let trim = |rest: &'static [u8]| rest;
    let strip = |mut rest: &[u8]| -> usize {
        let before = rest.len();
        while let Some(after) = rest.strip_prefix(b"/").or_else(|| rest.strip_prefix(b"./")) {
            rest = after;
        }
        before - rest.len()
    };
    match source.windows(3).position(|part| part == b"/./") {
        Some(0) => (trim(b"/"), &source[3 + strip(&source[3..])..]),
        Some(at) => (&source[..at], &source[at + 3 + strip(&source[at + 3..])..]),
        None if source.starts_with(b"/") => (trim(b"/"), &source[strip(source)..]),
        None => (trim(b""), &source[strip(source)..]),
    }
}
