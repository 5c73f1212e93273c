//! `driftless lookups`: the process that a confined receiver asks for the addresses of the sender that it pulls from. Not for users.

use super::{CliError, DONE};
use crate::fs::become_nobody;
use crate::net::serve_hosts;
use clap::Args;
use std::io;

/// Answer a confined receiver what addresses hosts have
#[derive(Debug, Args)]
pub(super) struct LookupsArgs {}

impl LookupsArgs {
    pub(super) fn run(&self) -> Result<u8, CliError> {
        become_nobody();
        serve_hosts(io::stdin().lock(), io::stdout().lock())
            .map(|()| DONE)
            .map_err(|error| CliError::failed(format!("cannot answer a receiver: {error}")))
    }
}

/// What starts it.
pub(super) fn program() -> io::Result<std::process::Command> {
    let mut program = std::process::Command::new(std::env::current_exe()?);
    program.arg("lookups");
    Ok(program)
}
