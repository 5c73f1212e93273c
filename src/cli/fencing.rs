//! `driftless promote` and `driftless demote`: which side of a mirror is the truth, decided where it is received.

use super::target::check_module;
use super::text::{ago, quoted};
use super::{CliError, DONE, output};
use crate::daemon::control::{Obeyed, Order, order};
use crate::daemon::fence;
use crate::daemon::home::Home;
use crate::daemon::status::unix_now;
use clap::Args;
use driftless_protocol::RelPath;
use std::fmt::Display;
use std::time::{Duration, Instant};

/// How long the sender of a module that is promoted may take to be gone.
const LEFT_PATIENCE: Duration = Duration::from_secs(30);

/// Make a module the truth: its senders are refused from now on
///
/// Run on the machine that receives, whether a receiver runs or not. When it has ended, nothing of a sender is applied any more,
/// also after restarts, until `driftless demote`: what is written to the module here counts.
#[derive(Debug, Args)]
pub(super) struct PromoteArgs {
    /// The module, as `driftless status` names it
    module: String,
}

/// Make a module that was promoted a replica again
///
/// Its sender goes on by itself, and makes the module like its source: mirror back first what was changed here. Before it
/// deletes what only this side has it asks, as at first contact.
#[derive(Debug, Args)]
pub(super) struct DemoteArgs {
    /// The module
    module: String,
}

impl PromoteArgs {
    pub(super) fn run(&self) -> Result<u8, CliError> {
        let (home, module) = (Home::discover()?, &self.module);
        check(&home, module)?;
        fence::promote(&home, module).map_err(|error| failed("promote", module, &error))?;
        have_it_heeded(&home, module)?;
        wait_until_left(&home, module)?;
        output::line(&format!(
            "promoted {module}: senders are refused, what is written here counts (`driftless demote {}` ends that)",
            quoted(module)
        ));
        Ok(DONE)
    }
}

impl DemoteArgs {
    pub(super) fn run(&self) -> Result<u8, CliError> {
        let (home, module) = (Home::discover()?, &self.module);
        check(&home, module)?;
        let was = fence::demote(&home, module).map_err(|error| failed("demote", module, &error))?;
        have_it_heeded(&home, module)?;
        output::line(&match was {
            Some(was) => format!(
                "demoted {module}, promoted {}: it is a replica again, and its sender goes on within half a minute",
                ago(was.since, unix_now())
            ),
            None => format!("{module} was not promoted: it is a replica"),
        });
        Ok(DONE)
    }
}

/// Nobody should believe that a module is promoted whose name was misspelt.
fn check(home: &Home, module: &str) -> Result<(), CliError> {
    check_module(module).map_err(CliError::usage)?;
    if home.module_place(module, &RelPath::root()).is_dir() {
        return Ok(());
    }
    Err(CliError::usage(format!(
        "no receiver of this home has ever offered a module {module} (home {home}; `driftless status` lists those of running ones)"
    )))
}

/// Has running receivers act on what was decided.
fn have_it_heeded(home: &Home, module: &str) -> Result<(), CliError> {
    let outcomes = order(home, &Order::Fence(module.to_owned()))?;
    let mut problems = outcomes.into_iter().filter_map(|outcome| match outcome {
        Obeyed::Failed(text) | Obeyed::Misconfigured(text) => Some(text),
        Obeyed::Done(_) | Obeyed::Unknown => None,
    });
    match problems.next() {
        None => Ok(()),
        Some(text) => Err(CliError::failed(format!(
            "decided, and kept over restarts, but not yet in force everywhere: {text} (run this again to wait for it)"
        ))),
    }
}

/// A receiver that could not be asked looks by itself every other second.
fn wait_until_left(home: &Home, module: &str) -> Result<(), CliError> {
    let deadline = Instant::now() + LEFT_PATIENCE;
    while fence::is_written_to(home, module) {
        if Instant::now() >= deadline {
            return Err(CliError::failed(format!(
                "the module {module} is promoted, and stays so over restarts, but a receiver still works for its sender (run this \
                 again to wait for it, or end that receiver)"
            )));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn failed(what: &str, module: &str, error: &dyn Display) -> CliError {
    CliError::failed(format!(
        "cannot {what} {module}: its state cannot be written: {error} (nothing was changed)"
    ))
}
