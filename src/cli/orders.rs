//! What `driftless daemon` can be told while it runs: `reload`, `pause`, `resume`, `stop` and `start`.

use super::{CliError, DONE, FAILED, USAGE, output};
use crate::daemon::control::{Obeyed, Order, order};
use crate::daemon::home::Home;
use clap::Args;

/// Have the daemon read its configuration again
///
/// Mirrors and modules that did not change keep their connections. A configuration with a fault changes nothing.
#[derive(Debug, Args)]
pub(super) struct ReloadArgs {}

/// Send nothing of a mirror until it is resumed
///
/// Its tree is watched on, so that resuming it sends what changed without looking at everything again.
#[derive(Debug, Args)]
pub(super) struct PauseArgs {
    /// Its name in the configuration
    mirror: String,
}

/// End the pause of a mirror
#[derive(Debug, Args)]
pub(super) struct ResumeArgs {
    /// Its name in the configuration
    mirror: String,
}

/// Stop a mirror of the daemon, until it is started or the daemon is
#[derive(Debug, Args)]
pub(super) struct StopArgs {
    /// Its name in the configuration
    mirror: String,
}

/// Start a mirror of the daemon that was stopped; one that failed is tried again at once
#[derive(Debug, Args)]
pub(super) struct StartArgs {
    /// Its name in the configuration
    mirror: String,
}

impl ReloadArgs {
    pub(super) fn run(&self) -> Result<u8, CliError> {
        give(&Order::Reload)
    }
}

impl PauseArgs {
    pub(super) fn run(&self) -> Result<u8, CliError> {
        give(&Order::Pause(self.mirror.clone()))
    }
}

impl ResumeArgs {
    pub(super) fn run(&self) -> Result<u8, CliError> {
        give(&Order::Resume(self.mirror.clone()))
    }
}

impl StopArgs {
    pub(super) fn run(&self) -> Result<u8, CliError> {
        give(&Order::Stop(self.mirror.clone()))
    }
}

impl StartArgs {
    pub(super) fn run(&self) -> Result<u8, CliError> {
        give(&Order::Start(self.mirror.clone()))
    }
}

fn give(wanted: &Order) -> Result<u8, CliError> {
    let home = Home::discover()?;
    let outcomes = order(&home, wanted)?;
    if outcomes.is_empty() {
        return Err(CliError::failed(format!(
            "no `driftless daemon` of this home is running (home {home}; `driftless status` lists what is)"
        )));
    }
    if let Some(mirror) = wanted.mirror()
        && outcomes.iter().all(|outcome| *outcome == Obeyed::Unknown)
    {
        return Err(CliError::usage(format!(
            "the daemon has no mirror called {mirror:?} (`driftless status` lists them; `driftless reload` reads new ones)"
        )));
    }
    let mut status = DONE;
    for outcome in &outcomes {
        status = status.max(tell(outcome));
    }
    Ok(status)
}

fn tell(outcome: &Obeyed) -> u8 {
    match outcome {
        Obeyed::Done(text) => {
            output::line(text);
            DONE
        }
        Obeyed::Failed(text) => {
            output::note(text);
            FAILED
        }
        Obeyed::Misconfigured(text) => {
            text.lines().for_each(output::note);
            USAGE
        }
        Obeyed::Unknown => DONE,
    }
}
