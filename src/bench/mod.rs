//! `driftless bench`: a comparison with rsync and lsyncd that anyone can run: own corpora, own emulated link, separate
//! processes for all tools, and a check of every copy after every run. What driftless loses is printed as a loss.

mod cache;
pub mod chart;
pub mod check;
pub mod cleanup;
pub mod corpus;
pub mod delta;
pub mod edits;
pub mod html;
pub mod link;
pub mod live;
pub mod machine;
pub mod measure;
pub mod ours;
pub mod plan;
pub mod progress;
pub mod remote;
pub mod report;
pub mod rsync;
pub mod runner;
pub mod scenario;
pub mod server;
pub mod shared;
mod table;
pub mod tool;
pub mod volume;

use std::fmt::Display;
use std::path::Path;

/// Why there is no result.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct BenchError(String);

impl BenchError {
    /// An error with that text.
    pub fn new(text: impl Into<String>) -> BenchError {
        BenchError(text.into())
    }

    /// A path that could not be used.
    pub fn io(verb: &str, path: &Path, error: &dyn Display) -> BenchError {
        BenchError(format!("cannot {verb} {}: {error}", path.display()))
    }
}
