//! `driftless events`: what happens, as it happens.

use super::{CliError, FAILED, output};
use crate::daemon::control::listen;
use crate::daemon::home::Home;
use clap::Args;

/// Tell what happens in the daemons of this home, a line of JSON for each event
///
/// Ends when the last of them ends. Whoever reads too slowly misses events, and is told how many by an event called `lost`; the daemons
/// do not wait.
#[derive(Debug, Args)]
pub(super) struct EventsArgs {
    /// Only those of this mirror, by its name, its source or its target
    #[arg(long, value_name = "MIRROR")]
    mirror: Option<String>,
}

impl EventsArgs {
    pub(super) fn run(&self) -> Result<u8, CliError> {
        let home = Home::discover()?;
        let Some(events) = listen(&home, self.mirror.as_deref())? else {
            return Err(CliError::failed(format!(
                "no driftless daemon of this home is running (home {home})"
            )));
        };
        for event in events {
            output::json(&event);
            if output::is_closed() {
                return Ok(super::DONE);
            }
        }
        output::note("the last daemon of this home has ended");
        Ok(FAILED)
    }
}
