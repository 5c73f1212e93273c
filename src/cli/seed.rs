//! `driftless seed`: one full-tree sync with progress.

use super::deadline::DeadlineArgs;
use super::launch::{End, SendArgs, Session, target};
use super::looking::{LookingArgs, Plan};
use super::narrate::{Detail, Narrator, Stopped, Style, conclude};
use super::output::Printer;
use super::text::escaped;
use super::{CliError, INTERRUPTED, TIMED_OUT};
use crate::daemon::SenderOptions;
use crate::daemon::status::StatusBoard;
use crate::daemon::survey::FarEnd;
use clap::Args;
use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// Bring TARGET into sync with SRC once, with progress; ends when in sync
#[derive(Debug, Args)]
pub(super) struct SeedArgs {
    /// The tree, or a single file
    src: PathBuf,
    /// HOST::MODULE[/PATH] or driftless://[FINGERPRINT@]HOST:PORT/MODULE[/PATH]
    target: OsString,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    send: SendArgs,
    #[command(flatten)]
    looking: LookingArgs,
    #[command(flatten)]
    deadline: DeadlineArgs,
}

impl SeedArgs {
    pub(super) fn run(&self, verbose: u8) -> Result<u8, CliError> {
        let origin = self.send.origin("send", &self.src)?;
        let filter = self.send.filter(&origin)?;
        self.send.check_far()?;
        self.send.priority.apply()?;
        let session = Session::open()?;
        let deadline = self.deadline.start(&session)?;
        let target = target(&self.target, self.send.port(), &session.home)?;
        let target = origin.target_of(target, &self.target)?;
        let link = self.send.link();
        let end = End {
            identity: &session.identity,
            target: &target,
            link: &link,
        };
        let options = self.send.options(&session, end, &origin, &filter, false);
        let (looking, far) = (&self.looking, FarEnd::Target(session.handle()));
        // Until the end only warnings are told, and those not as JSON.
        let silent = Style {
            detail: if verbose > 0 { Detail::All } else { Detail::Quiet },
            json: false,
            follow: false,
            name_target: false,
        };
        let style = Style {
            detail: Detail::Milestones,
            json: self.json,
            ..silent
        };
        if looking.is_dry_run() {
            session.exit_when_stopped(move || {
                if deadline.has_passed() {
                    TIMED_OUT
                } else {
                    INTERRUPTED
                }
            });
            let previewed = looking.preview(&options, far, style);
            return previewed.map_err(|error| session.explain(error));
        }
        let plan = looking.plan(&options, far, style);
        let plan = plan.map_err(|error| session.explain(error))?;
        let options = SenderOptions {
            look_again: plan.is_some(),
            ..options
        };
        let identity = session.identity.fingerprint().to_string();
        let board = StatusBoard::new(
            identity,
            &session.home,
            escaped(origin.path()),
            target.display.clone(),
        );
        let _control = session.control("sender", Arc::new(vec![board.clone()]));
        let is_quiet = verbose == 0 && plan.is_none();
        let bar = (is_quiet && std::io::stderr().is_terminal()).then(|| board.clone());
        let printer = Arc::new(Printer::start(bar));
        let narrator = Narrator::new(board.clone(), printer.clone(), silent, target.display.clone());
        let began = Instant::now();
        let outcome = session.send(&options, Plan::observer(plan.as_ref(), narrator), &board);
        drop(printer);
        if let Some(plan) = &plan {
            plan.conclude(&options, far, outcome.as_ref());
        }
        let outcome = outcome.map_err(|error| session.explain(CliError::from(error)));
        conclude(
            &target.display,
            outcome,
            began.elapsed(),
            style,
            Stopped::by(&session.stop, &deadline),
        )
    }
}
