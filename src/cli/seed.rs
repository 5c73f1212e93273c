//! `driftless seed`: one full-tree sync with progress.

use super::CliError;
use super::launch::{End, SendArgs, Session, existing_directory, target};
use super::narrate::{Detail, Narrator, Style, conclude};
use super::output::Printer;
use super::text::escaped;
use crate::daemon::status::StatusBoard;
use clap::Args;
use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// Bring TARGET into sync with SRC once, with progress; ends when in sync
#[derive(Debug, Args)]
pub(super) struct SeedArgs {
    /// The tree
    src: PathBuf,
    /// HOST::MODULE[/PATH] or driftless://[FINGERPRINT@]HOST:PORT/MODULE[/PATH]
    target: OsString,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    send: SendArgs,
}

impl SeedArgs {
    pub(super) fn run(&self) -> Result<u8, CliError> {
        let source = existing_directory("send", &self.src)?;
        let filter = self.send.filter(&source)?;
        self.send.priority.apply()?;
        let session = Session::open()?;
        let target = target(&self.target, self.send.port(), &session.home)?;
        let link = self.send.link();
        let end = End {
            identity: &session.identity,
            target: &target,
            link: &link,
        };
        let options = self.send.options(&session, end, &source, &filter, false);
        let identity = session.identity.fingerprint().to_string();
        let board = StatusBoard::new(identity, &session.home, escaped(&source), target.display.clone());
        let _control = session.control("sender", Arc::new(vec![board.clone()]));
        let bar = std::io::stderr().is_terminal().then(|| board.clone());
        let printer = Arc::new(Printer::start(bar));
        // Until the end only warnings are told, and those not as JSON.
        let silent = Style {
            detail: Detail::Quiet,
            json: false,
            follow: false,
            name_target: false,
        };
        let narrator = Narrator::new(board.clone(), printer.clone(), silent, target.display.clone());
        let began = Instant::now();
        let outcome = session.send(&options, narrator.clone(), &board);
        drop((narrator, printer));
        let style = Style {
            detail: Detail::Milestones,
            json: self.json,
            ..silent
        };
        let outcome = outcome.map_err(|error| session.explain(CliError::from(error)));
        conclude(
            &target.display,
            outcome,
            began.elapsed(),
            style,
            session.stop.is_requested(),
        )
    }
}
