//! The wildcards of rules, for words that are no paths.

use super::wildmatch::{Glob, Start, tokens};

/// A word with wildcards (`*`, `?`, `[...]`).
#[derive(Debug, Clone)]
pub struct Wildcard(Glob);

impl Wildcard {
    /// Reads a pattern. `None` if it is malformed: a class without its end, or a backslash at the end.
    pub fn new(pattern: &[u8]) -> Option<Wildcard> {
        tokens(pattern).map(|tokens| Wildcard(Glob::new(&tokens)))
    }

    /// Whether all of `word` matches.
    pub fn matches(&self, word: &[u8]) -> bool {
        self.0.matches(&[word], Start::Beginning, || ())
    }
}
