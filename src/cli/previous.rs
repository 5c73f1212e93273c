//! `--link-dest` and `--copy-dest`: a directory that begins as a version of another one.

use super::launch::existing_directory;
use super::mirror::Place;
use super::text::escaped;
use super::{CliError, output};
use crate::daemon::receiver::{Previous, conclude_version, is_fresh_version};
use crate::fs::Directory;
use clap::Args;
use std::path::{Path, PathBuf};

/// Which version a directory on this machine begins as.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Versions")]
pub(super) struct PreviousArgs {
    /// Begin an empty DST with hard links to what is in DIR, an earlier version: what SRC did not change since then takes no
    /// space. A relative DIR is relative to DST, as with rsync
    #[arg(
        long,
        value_name = "DIR",
        requires = "once",
        conflicts_with_all = ["copy_dest", "inplace", "dry_run", "itemize_changes"]
    )]
    link_dest: Option<PathBuf>,
    /// The same with copies, which share their blocks where the file system can do that (btrfs, xfs, bcachefs)
    #[arg(
        long,
        value_name = "DIR",
        requires = "once",
        conflicts_with_all = ["dry_run", "itemize_changes"]
    )]
    copy_dest: Option<PathBuf>,
}

/// A version that is being made.
#[derive(Debug)]
pub(super) struct Begun {
    /// What it begins as; none if that is missing.
    pub(super) previous: Option<Previous>,
    /// Nothing in the directory is anybody else's, so that what the source lacks can go unasked.
    pub(super) is_fresh: bool,
    path: PathBuf,
}

impl PreviousArgs {
    /// Whether anything was asked for.
    pub(super) fn is_given(&self) -> bool {
        self.link_dest.is_some() || self.copy_dest.is_some()
    }

    /// What was asked for, for a directory that is there; `source` is what is mirrored.
    pub(super) fn begin(&self, source: &Path, place: &Place) -> Result<Option<Begun>, CliError> {
        let (option, given, copies) = match (&self.link_dest, &self.copy_dest) {
            (Some(given), _) => ("--link-dest", given, false),
            (None, Some(given)) => ("--copy-dest", given, true),
            (None, None) => return Ok(None),
        };
        let found = place.path.join(given);
        let is_fresh = Directory::open_root(&place.path).and_then(|root| is_fresh_version(&root));
        let is_fresh = is_fresh.map_err(|error| CliError::failed(error.to_string()))?;
        let mut begun = Begun {
            previous: None,
            is_fresh,
            path: place.path.clone(),
        };
        if !found.exists() {
            // As rsync does it: the first of a row of versions has none before it.
            output::note(&format!(
                "{option} {} does not exist: {} begins empty",
                escaped(&found),
                escaped(&place.path)
            ));
            return Ok(Some(begun));
        }
        let path = existing_directory("begin with", &found)?;
        let overlap = |other: &Path| path.starts_with(other) || other.starts_with(&path);
        if overlap(&place.path) || overlap(source) {
            return Err(CliError::usage(format!(
                "{option} {} cannot be used: an earlier version is neither the source nor the destination, nor within one \
                 of them (give the directory of the last run)",
                escaped(&path)
            )));
        }
        begun.previous = Some(Previous { path, copies });
        Ok(Some(begun))
    }
}

impl Begun {
    /// The version is in sync with the source: what happens to it later is another matter.
    pub(super) fn conclude(&self) -> Result<(), CliError> {
        conclude_version(&self.path).map_err(|error| CliError::failed(error.to_string()))
    }
}
