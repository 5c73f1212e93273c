//! `driftless approve`: let a daemon delete what it held back, or take another root for the one of before.

use super::text::{count, escaped};
use super::{CliError, DONE, output};
use crate::daemon::home::Home;
use crate::daemon::{control, roots};
use clap::Args;
use std::path::Path;

/// Let a daemon delete what it held back because it was much, or accept a root that was refused
#[derive(Debug, Args)]
pub(super) struct ApproveArgs {
    /// The source or the target of the mirror, as `driftless status` shows it; with --root, the directory that was refused
    mirror: String,
    /// How many entries may be deleted, at most; `driftless status` says how many wait
    #[arg(long, value_name = "N", required_unless_present = "root")]
    deletes: Option<u64>,
    /// The directory is the right one, although it is empty or another than before. The next try goes on with it: a source
    /// is sent as it is, a target is a first contact. A daemon tries by itself
    #[arg(long, conflicts_with = "deletes")]
    root: bool,
}

impl ApproveArgs {
    pub(super) fn run(&self) -> Result<u8, CliError> {
        let home = Home::discover()?;
        let Some(deletes) = self.deletes else {
            return self.approve_root(&home);
        };
        let mut approved = control::approve(&home, &self.mirror, deletes)?;
        // Daemons know their sources by absolute paths.
        if approved.is_err()
            && let Ok(path) = Path::new(&self.mirror).canonicalize()
            && let Ok(number) = control::approve(&home, &escaped(&path), deletes)?
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

    fn approve_root(&self, home: &Home) -> Result<u8, CliError> {
        let outcome = roots::approve(home, &self.mirror);
        let outcome = outcome.map_err(|error| CliError::failed(format!("cannot approve a root: {error}")))?;
        let approved = outcome.map_err(|others| {
            let others = match others.is_empty() {
                true => "none was".to_owned(),
                false => format!("these were: {}", others.join(", ")),
            };
            CliError::failed(format!(
                "no root called {} was refused in the home {home}; {others}",
                escaped(&self.mirror)
            ))
        })?;
        for root in approved {
            output::line(&format!("approved: the root {root}, as it is now"));
        }
        Ok(DONE)
    }
}
