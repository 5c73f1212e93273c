//! `driftless send`: the sender daemon.

use super::daemon::HEAPS;
use super::deadline::Deadline;
use super::ending::EndingArgs;
use super::launch::{End, SendArgs, Session, target};
use super::looking::LookingArgs;
use super::narrate::{Detail, Narrator, Stopped, Style, conclude};
use super::origin::Origin;
use super::output::Printer;
use super::text::escaped;
use super::{CliError, DONE, FAILED, USAGE, output};
use crate::daemon::sender::Readings;
use crate::daemon::status::StatusBoard;
use crate::daemon::survey::FarEnd;
use crate::daemon::{SenderOptions, TargetOptions};
use crate::engine::filter::Filter;
use crate::fs::limit_heaps;
use clap::Args;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// Send SRC to every TARGET and follow its changes: the sender daemon
#[derive(Debug, Args)]
pub(super) struct SendCommandArgs {
    /// The tree, or a single file
    src: PathBuf,
    /// HOST::MODULE[/PATH] or driftless://[FINGERPRINT@]HOST:PORT/MODULE[/PATH]
    #[arg(required = true, value_name = "TARGET")]
    targets: Vec<OsString>,
    /// Print JSON, one event per line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    send: SendArgs,
    #[command(flatten)]
    looking: LookingArgs,
    #[command(flatten)]
    ending: EndingArgs,
}

impl SendCommandArgs {
    pub(super) fn run(&self, verbose: u8) -> Result<u8, CliError> {
        let origin = self.send.origin("send", &self.src)?;
        let filter = self.send.filter(&origin)?;
        self.send.check_far()?;
        self.send.priority.apply()?;
        limit_heaps(HEAPS);
        self.looking.check_following()?;
        self.ending.check(!self.looking.is_dry_run())?;
        let session = Session::open()?;
        let targets = self.targets(&session, &origin)?;
        let link = self.send.link();
        let detail = if verbose == 0 {
            Detail::Milestones
        } else {
            Detail::All
        };
        let style = Style {
            detail,
            json: self.json,
            follow: true,
            name_target: true,
        };
        if self.looking.is_dry_run() {
            return self.preview(&session, &origin, &filter, &targets, style);
        }
        let shown = escaped(origin.path());
        let identity = session.identity.fingerprint().to_string();
        let boards: Vec<Arc<StatusBoard>> = targets
            .iter()
            .map(|target| {
                StatusBoard::new(
                    identity.clone(),
                    &session.home,
                    shown.clone(),
                    target.display.clone(),
                )
            })
            .collect();
        let control = session.control("sender", Arc::new(boards.clone()));
        let readings = Readings::default();
        let quiet = self.ending.quiet(targets.len());
        let printer = Arc::new(Printer::start(None));
        let statuses: Vec<u8> = std::thread::scope(|scope| {
            let senders: Vec<_> = targets
                .iter()
                .zip(&boards)
                .map(|(target, board)| {
                    let end = End {
                        identity: &session.identity,
                        target,
                        link: &link,
                    };
                    let options = SenderOptions {
                        readings: (targets.len() > 1).then(|| readings.clone()),
                        quiet: quiet.clone(),
                        ..self.send.options(&session, end, &origin, &filter, true)
                    };
                    let narrator =
                        Narrator::new(board.clone(), printer.clone(), style, target.display.clone());
                    let session = &session;
                    let ending = &self.ending;
                    let run = move || run_one(session, &options, (narrator, ending), board, style);
                    (
                        target,
                        std::thread::Builder::new()
                            .name("sender".to_owned())
                            .spawn_scoped(scope, run),
                    )
                })
                .collect();
            let ended =
                senders
                    .into_iter()
                    .map(|(target, sender)| match sender.map(|sender| sender.join()) {
                        Ok(Ok(status)) => status,
                        Ok(Err(_)) => {
                            output::note(&format!(
                                "{target}: its thread failed (this is a defect, please report it)"
                            ));
                            FAILED
                        }
                        Err(error) => {
                            output::note(&format!("{target}: cannot start a thread: {error}"));
                            FAILED
                        }
                    });
            ended.collect()
        });
        drop(control);
        Ok(worst(&statuses))
    }

    /// Follows the source, and tells what would be done at each target.
    fn preview(
        &self,
        session: &Session,
        origin: &Origin,
        filter: &Filter,
        targets: &[TargetOptions],
        style: Style,
    ) -> Result<u8, CliError> {
        let link = self.send.link();
        let look = |target: &TargetOptions| {
            let end = End {
                identity: &session.identity,
                target,
                link: &link,
            };
            let options = self.send.options(session, end, origin, filter, true);
            let far = FarEnd::Target(session.handle());
            let outcome = self.looking.preview_following(session, &options, far, style);
            outcome.map_err(|error| session.explain(error))
        };
        let outcomes: Vec<_> = std::thread::scope(|scope| {
            let looks: Vec<_> = targets
                .iter()
                .map(|target| scope.spawn(|| look(target)))
                .collect();
            looks
                .into_iter()
                .map(std::thread::ScopedJoinHandle::join)
                .collect()
        });
        let statuses = targets
            .iter()
            .zip(outcomes)
            .map(|(target, outcome)| match outcome {
                Ok(Ok(status)) => status,
                Ok(Err(CliError::Failed(text))) => complain(target, &text, FAILED),
                Ok(Err(CliError::Usage(text))) => complain(target, &text, USAGE),
                Err(_) => complain(
                    target,
                    "its thread failed (this is a defect, please report it)",
                    FAILED,
                ),
            });
        Ok(worst(&statuses.collect::<Vec<_>>()))
    }

    fn targets(&self, session: &Session, origin: &Origin) -> Result<Vec<TargetOptions>, CliError> {
        let mut targets: Vec<TargetOptions> = Vec::new();
        for word in &self.targets {
            let target = target(word, self.send.port(), &session.home)?;
            let target = origin.target_of(target, word)?;
            let place =
                |target: &TargetOptions| (target.fingerprint, target.module.clone(), target.path.clone());
            if let Some(same) = targets.iter().find(|other| place(other) == place(&target)) {
                let text = format!("{target} and {same} are the same place (name it once)");
                return Err(CliError::usage(text));
            }
            targets.push(target);
        }
        Ok(targets)
    }
}

fn complain(target: &TargetOptions, text: &str, status: u8) -> u8 {
    output::note(&format!("{target}: {text}"));
    status
}

/// Runs one sender to its end. The others go on, whatever happens to it.
fn run_one(
    session: &Session,
    options: &SenderOptions,
    (narrator, ending): (Arc<Narrator>, &EndingArgs),
    board: &StatusBoard,
    style: Style,
) -> u8 {
    let target = &options.target.display;
    let began = Instant::now();
    let told = ending.observer(narrator, board);
    let outcome = session.send(options, told.observer(), board);
    if let Some(quiet) = &options.quiet {
        quiet.leave();
    }
    told.finish();
    match &outcome {
        Ok(summary) => board.finish(Ok(summary)),
        Err(error) => board.finish(Err(&error.to_string())),
    }
    let outcome = outcome.map_err(|error| session.explain(CliError::from(error)));
    let (text, status) = match conclude(
        target,
        outcome,
        began.elapsed(),
        style,
        Stopped::by(&session.stop, &Deadline::default()),
    ) {
        Ok(status) => return status,
        Err(CliError::Failed(text)) => (text, FAILED),
        Err(CliError::Usage(text)) => (text, USAGE),
    };
    output::note(&format!("{target}: {text}"));
    status
}

/// What counts of several ends: a failure more than a wrong call, and that more than entries in error.
pub(super) fn worst(statuses: &[u8]) -> u8 {
    statuses
        .iter()
        .copied()
        .filter(|status| *status != DONE)
        .min()
        .unwrap_or(DONE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::SOME_FAILED;

    #[test]
    fn the_worst_end_counts() {
        assert_eq!(worst(&[]), DONE);
        assert_eq!(worst(&[DONE, SOME_FAILED, DONE]), SOME_FAILED);
        assert_eq!(worst(&[SOME_FAILED, FAILED, USAGE]), FAILED);
    }
}
