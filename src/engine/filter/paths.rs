//! A set of files, named by rsync's patterns and nothing else.

use super::pattern::{Origin, Pattern, Subject};
use super::wildmatch::tokens;

/// Files that at least one of some patterns names. None are named by default.
#[derive(Debug, Clone, Default)]
pub struct FileSet(Vec<Pattern>);

impl FileSet {
    /// Adds what a pattern names: with rsync's meaning, so one without a slash is compared with the name, and one that
    /// begins with a slash with the path from the root. The text says why it names nothing.
    pub fn add(&mut self, pattern: &[u8]) -> Result<(), String> {
        if pattern.is_empty() || pattern.ends_with(b"/") {
            return Err("it names no file".to_owned());
        }
        if tokens(pattern).is_none() {
            return Err("a bracket is not closed, or a backslash stands at its end".to_owned());
        }
        self.0.push(Pattern::new(pattern, Origin::Root));
        Ok(())
    }

    /// Whether no file is named.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a file is named, by the path of its directory from the root, without slashes at its ends, and its name.
    pub fn has(&self, directory: &[u8], name: &[u8]) -> bool {
        let subject = Subject {
            directory,
            name,
            is_directory: false,
        };
        self.0.iter().any(|pattern| pattern.matches(subject))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_name_files_as_rules_do() {
        let mut set = FileSet::default();
        assert!(set.is_empty() && !set.has(b"", b"a.log"));
        set.add(b"*.log").unwrap();
        set.add(b"/var/data/**").unwrap();
        assert!(set.has(b"", b"a.log") && set.has(b"x/y", b"a.log") && set.has(b"var/data/x", b"a"));
        assert!(!set.has(b"x", b"a.log.1") && !set.has(b"x/var/data", b"a"));
        for wrong in [&b""[..], b"dir/", b"[a", b"a\\"] {
            assert!(set.add(wrong).is_err(), "{}", wrong.escape_ascii());
        }
    }
}
