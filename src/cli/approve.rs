//! `driftless approve`: let a daemon delete what it held back.

use super::text::{count, escaped};
use super::{CliError, DONE, output};
use crate::daemon::control;
use crate::daemon::home::Home;
use clap::Args;
use std::path::Path;

/// Let a daemon delete what it held back because it was much
#[derive(Debug, Args)]
pub(super) struct ApproveArgs {
    /// The source or the target of the mirror, as `driftless status` shows it
    mirror: String,
    /// How many entries may be deleted, at most; `driftless status` says how many wait
    #[arg(long, value_name = "N")]
    deletes: u64,
}

impl ApproveArgs {
    pub(super) fn run(&self) -> Result<u8, CliError> {
        let home = Home::discover()?;
        let mut approved = control::approve(&home, &self.mirror, self.deletes)?;
        // Daemons know their sources by absolute paths.
        if approved.is_err()
            && let Ok(path) = Path::new(&self.mirror).canonicalize()
            && let Ok(number) = control::approve(&home, &escaped(&path), self.deletes)?
        {
            approved = Ok(number);
        }
        let approved = approved.map_err(CliError::failed)?;
        output::line(&format!(
            "approved: {} of {}",
            count(approved, "deletion", "deletions"),
            self.mirror
        ));
        Ok(DONE)
    }
}
