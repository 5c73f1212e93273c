//! The source without any tool, to compare with what its programs lose when there is one.

use super::super::BenchError;
use super::super::runner::Stage;
use super::follower::Follower;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Its name in the table.
pub const NOBODY: &str = "nobody";

/// Follows nothing: its only copy is the source.
pub(super) struct Nobody {
    source: [PathBuf; 1],
}

impl Nobody {
    pub(super) fn new(source: PathBuf) -> Nobody {
        Nobody { source: [source] }
    }
}

impl Follower for Nobody {
    fn name(&self) -> &str {
        NOBODY
    }

    fn copies(&self) -> &[PathBuf] {
        &self.source
    }

    /// There is nothing to forget, and the copy is not one.
    fn reset(&mut self) -> Result<(), BenchError> {
        Ok(())
    }

    fn start(&mut self, _: &Stage, _: &Path, _: usize, _: Duration) -> Result<(), BenchError> {
        Ok(())
    }

    fn stop(&mut self) {}

    fn senders(&self) -> Vec<u32> {
        Vec::new()
    }

    fn receivers(&self) -> Vec<u32> {
        Vec::new()
    }

    fn settle(&self, _: Duration) -> Result<(), BenchError> {
        Ok(())
    }

    fn counted(&self) -> (Option<u64>, Option<u64>) {
        (None, None)
    }

    fn complaints(&self) -> String {
        String::new()
    }
}
