//! Reading the configuration of another program: lsyncd's, which is a program itself.
//!
//! It is not parsed but run, because people loop over lists of servers and build tables from tables. Running it decides
//! nothing and reaches nothing: a process that can neither open a file nor start a program (`apart`) runs it in a Lua
//! state without anything that could ask for that (`sandbox`), and gives back which calls of `settings` and `sync` were
//! made, as plain values (`value`). All that follows is a function of these: layers are merged as lsyncd merges them
//! (`layers`), each key becomes one of ours or a finding that says why not (`keys`, `rsync`, `translate`), and the
//! result is written (`write`, `report`).
//!
//! A mirror that would do something else to its target than lsyncd did is written, but as a comment.

mod apart;
mod keys;
mod layers;
mod lines;
mod place;
mod report;
mod rsync;
mod sandbox;
mod translate;
mod value;
mod write;

#[cfg(test)]
mod tests;

pub use apart::{SOURCE_BYTES_MAX, evaluate, serve};
pub use keys::table;
pub use report::{json, text};
pub use translate::{Draft, Finding, Import, Outcome, Vocabulary, translate};
pub use value::{Evaluation, Failure};
pub use write::{Written, toml};

/// A configuration of lsyncd, and where it was read.
#[derive(Debug, Clone)]
pub struct Source {
    /// The path as it was given; for messages, and for configurations that ask for it.
    pub path: String,
    /// What is in the file.
    pub text: Vec<u8>,
}
