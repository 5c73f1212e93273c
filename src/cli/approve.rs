//! `driftless approve`: let a daemon delete what it held back.

use super::text::count;
use super::{CliError, DONE, output};
use crate::daemon::control;
use crate::daemon::home::Home;
use clap::Args;

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
        let approved = control::approve(&home, &self.mirror, self.deletes)?.map_err(CliError::failed)?;
        output::line(&format!(
            "approved: {} of {}",
            count(approved, "deletion", "deletions"),
            self.mirror
        ));
        Ok(DONE)
    }
}
