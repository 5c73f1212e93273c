//! `driftless status --watch`: the status as it changes, on a terminal ([`terminal`]) or as lines ([`lines`]).
//!
//! What the daemons say arrives from threads of their own ([`feed`]) and becomes a [`screen::Screen`], which also says what a
//! key means; [`draw`] makes a picture of it. These two know no terminal, no clock and no daemon.

mod change;
mod draw;
mod feed;
mod lines;
mod rates;
mod row;
mod screen;
mod terminal;
#[cfg(test)]
mod tests;

use super::{CliError, output};
use crate::daemon::home::Home;
use feed::Feed;
use std::io::IsTerminal;

/// Shows the status of the daemons of a home until somebody ends it. Gives the exit status.
pub(super) fn watch(home: &Home, json: bool) -> Result<u8, CliError> {
    let failed = |error| CliError::failed(format!("cannot start a thread: {error}"));
    if json {
        return Ok(lines::objects(home, &Feed::start(home, false).map_err(failed)?));
    }
    if is_screen() {
        match terminal::Taken::take() {
            Ok(taken) => return terminal::show(taken, &Feed::start(home, true).map_err(failed)?),
            Err(error) => output::note(&format!("this terminal shows lines only: {error}")),
        }
    }
    Ok(lines::sentences(home, &Feed::start(home, false).map_err(failed)?))
}

/// Whether standard output is a terminal that can place text.
fn is_screen() -> bool {
    let can_place = std::env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb");
    std::io::stdout().is_terminal() && can_place
}
