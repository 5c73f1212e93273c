//! `driftless accounts`: the process that a confined receiver asks for the numbers of users and groups. Not for users.

use super::{CliError, DONE};
use crate::fs::{become_nobody, serve_accounts};
use clap::Args;
use std::io;

/// Answer a confined receiver what numbers users and groups have
#[derive(Debug, Args)]
pub(super) struct AccountsArgs {}

impl AccountsArgs {
    pub(super) fn run(&self) -> Result<u8, CliError> {
        become_nobody();
        serve_accounts(io::stdin().lock(), io::stdout().lock())
            .map(|()| DONE)
            .map_err(|error| CliError::failed(format!("cannot answer a receiver: {error}")))
    }
}

/// What starts it.
pub(super) fn program() -> io::Result<std::process::Command> {
    let mut program = std::process::Command::new(std::env::current_exe()?);
    program.arg("accounts");
    Ok(program)
}
