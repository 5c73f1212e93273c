//! What the page cache holds when a run begins.

use super::BenchError;
use super::corpus::walk;
use super::plan::Cache;
use super::runner::Stage;
use rustix::fs::{Advice, fadvise, syncfs};
use std::fs::{self, File};
use std::path::Path;

/// What was done to make it cold.
const BY_KERNEL: &str =
    "cold cache: before each run the kernel dropped pages, directory entries and inodes of the whole machine";
const BY_FILE: &str = "cold cache: before each run the contents of all files of source and copies were dropped from the page \
    cache; directory entries and inodes were not, which needs root";

/// Writes out what is dirty, so that it is not written out during the run, and empties the cache if it is to be cold. Gives
/// a sentence for the report in that case.
///
/// # Errors
/// When the trees cannot be listed.
pub fn prepare(
    stage: &Stage,
    cache: Cache,
    source: &Path,
    copies: &Path,
) -> Result<Option<&'static str>, BenchError> {
    for place in [stage.workspace.path(), copies] {
        if let Ok(directory) = File::open(place) {
            // Only noise is at stake.
            let _ = syncfs(&directory);
        }
    }
    if cache == Cache::Warm {
        return Ok(None);
    }
    if fs::write("/proc/sys/vm/drop_caches", "3").is_ok() {
        return Ok(Some(BY_KERNEL));
    }
    for root in [source, copies] {
        for path in walk(root).map_err(|error| BenchError::io("list", root, &error))? {
            if path.symlink_metadata().is_ok_and(|meta| meta.is_file())
                && let Ok(file) = File::open(&path)
            {
                let _ = fadvise(&file, 0, None, Advice::DontNeed);
            }
        }
    }
    Ok(Some(BY_FILE))
}
