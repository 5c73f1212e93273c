//! `driftless verify`: both trees are read and compared.

use super::appearance::AppearanceArgs;
use super::filtering::FilteringArgs;
use super::keeping::{KEEPING_THERE, KeepingArgs};
use super::launch::{
    Destination, End, LocalEnd, PortArg, SendArgs, Session, destination, existing_directory, local_target,
};
use super::narrate::{Detail, Narrator, Style};
use super::origin::Origin;
use super::output::{self, Printer};
use super::text::{self, escaped};
use super::writing::WritingArgs;
use super::{CliError, DIFFERENT, DONE, INTERRUPTED, SOME_FAILED, divergence};
use crate::daemon::SenderOptions;
use crate::daemon::divergence::{between_machines, on_this_machine};
use crate::daemon::status::{STATUS_VERSION, StatusBoard};
use crate::daemon::verify::{self, VerifyReport};
use crate::engine::filter::Filter;
use crate::net::LinkOptions;
use clap::Args;
use serde_json::json;
use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Compare contents with a target or directory, by digests of everything on both disks
///
/// Changes nothing. Ends with status 4 if they differ, and names each difference.
#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// The tree, or a single file
    src: PathBuf,
    /// A TARGET, or a directory
    target: OsString,
    /// List instead what each side changed by itself since both were last equal, and when, by what their catalogs know: after a
    /// failover for example. The mirror must not run; no contents are read
    #[arg(long)]
    divergence: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    filtering: FilteringArgs,
    #[command(flatten)]
    appearance: AppearanceArgs,
    #[command(flatten)]
    keeping: KeepingArgs,
    #[command(flatten)]
    port: PortArg,
}

impl VerifyArgs {
    pub(super) fn run(&self) -> Result<u8, CliError> {
        let origin = self.filtering.origin("verify", &self.src)?;
        let filter = self.filtering.filter(&origin)?;
        let session = Session::open()?;
        let link = LinkOptions::default();
        if self.divergence {
            return self.diverged(&session, &link, &origin, &filter);
        }
        match destination(&self.target, self.port, &session.home)? {
            Destination::Directory(path) => {
                let path = existing_directory("verify", &origin.directory_of(&path)?)?;
                let writing = WritingArgs {
                    keeping: self.keeping.clone(),
                    ..WritingArgs::default()
                };
                let local = LocalEnd::start(&session, &path, &link, &writing, |kept_as| {
                    self.appearance.kept_as(kept_as)
                })?;
                let status = self.compare(&session, local.end(), &origin, &filter);
                local.stop();
                status
            }
            Destination::Target(_) if self.keeping.is_given() => Err(CliError::usage(KEEPING_THERE)),
            Destination::Target(target) => {
                self.appearance.check_far()?;
                let target = origin.target_of(target, &self.target)?;
                let end = End {
                    identity: &session.identity,
                    target: &target,
                    link: &link,
                };
                self.compare(&session, end, &origin, &filter)
                    .map_err(|error| session.explain(error))
            }
        }
    }

    fn diverged(
        &self,
        session: &Session,
        link: &LinkOptions,
        origin: &Origin,
        filter: &Filter,
    ) -> Result<u8, CliError> {
        if self.keeping.is_given() {
            return Err(divergence::refuse("keeping options"));
        }
        let options = |end: End<'_>| SenderOptions {
            modes: self.appearance.modes(),
            links: self.appearance.links(),
            taken_as: self.appearance.taken_as(),
            ..SendArgs::default().options(session, end, origin, filter, false)
        };
        let end = |target| End {
            identity: &session.identity,
            target,
            link,
        };
        let place = destination(&self.target, self.port, &session.home)?;
        session.exit_when_stopped(|| INTERRUPTED);
        let (target, found) = match place {
            Destination::Directory(path) => {
                let path = existing_directory("verify", &origin.directory_of(&path)?)?;
                let target = local_target(&path, session.identity.fingerprint(), 0);
                let module = session.home.module_place(&target.module, &target.path);
                let found = on_this_machine(&options(end(&target)), &path, &module);
                (target.display, found?)
            }
            Destination::Target(target) => {
                let target = origin.target_of(target, &self.target)?;
                let found = between_machines(&options(end(&target)), session.handle());
                let found = found.map_err(|error| session.explain(error.into()))?;
                (target.display, found)
            }
        };
        Ok(divergence::tell(
            &escaped(origin.path()),
            &target,
            &found,
            self.json,
        ))
    }

    fn compare(
        &self,
        session: &Session,
        end: End<'_>,
        origin: &Origin,
        filter: &Filter,
    ) -> Result<u8, CliError> {
        let options = SenderOptions {
            owners: self.appearance.rules(),
            modes: self.appearance.modes(),
            links: self.appearance.links(),
            taken_as: self.appearance.taken_as(),
            ..SendArgs::default().options(session, end, origin, filter, false)
        };
        let target = end.target.display.clone();
        let identity = end.identity.fingerprint().to_string();
        let board = StatusBoard::new(identity, &session.home, escaped(origin.path()), target.clone());
        let bar = std::io::stderr().is_terminal().then(|| board.clone());
        let printer = Arc::new(Printer::start(bar));
        let style = Style {
            detail: Detail::Quiet,
            json: false,
            follow: false,
            name_target: false,
        };
        let narrator = Narrator::new(board, printer.clone(), style, target.clone());
        let began = Instant::now();
        session.exit_when_stopped(|| INTERRUPTED);
        let report = verify::run(&options, session.handle(), &*narrator);
        drop((narrator, printer));
        let report = report?;
        if self.json {
            output::json(&as_json(&target, &report, began.elapsed()));
        } else {
            for difference in &report.differences {
                output::line(&format!("differs  {}  {}", difference.path, difference.what));
            }
            for entry in &report.unreadable {
                output::note(&format!("unreadable  {}  {}", entry.path, entry.error));
            }
            output::line(&sentence(&target, &report, began.elapsed()));
        }
        Ok(exit_status(&report))
    }
}

/// A difference is certain, an unreadable entry is not; certainty counts more.
fn exit_status(report: &VerifyReport) -> u8 {
    match (report.differences.is_empty(), report.unreadable.is_empty()) {
        (false, _) => DIFFERENT,
        (true, false) => SOME_FAILED,
        (true, true) => DONE,
    }
}

fn sentence(target: &str, report: &VerifyReport, time: Duration) -> String {
    let number = |list: usize| u64::try_from(list).unwrap_or(u64::MAX);
    let (entries, bytes) = (
        text::count(report.compared, "entry", "entries"),
        text::bytes(report.bytes),
    );
    let result = match number(report.differences.len()) {
        0 => "equal".to_owned(),
        found => text::count(found, "difference", "differences"),
    };
    let unreadable = match number(report.unreadable.len()) {
        0 => String::new(),
        found => format!(", {} unreadable", text::grouped(found)),
    };
    format!(
        "{target}: {result}{unreadable}; compared {entries} with {bytes} of content in {}",
        text::span(time)
    )
}

fn as_json(target: &str, report: &VerifyReport, time: Duration) -> serde_json::Value {
    let differences = report
        .differences
        .iter()
        .map(|found| json!({"path": found.path, "what": found.what}));
    let unreadable = report
        .unreadable
        .iter()
        .map(|found| json!({"path": found.path, "error": found.error}));
    json!({
        "version": STATUS_VERSION,
        "target": target,
        "equal": exit_status(report) == DONE,
        "compared": report.compared,
        "bytes": report.bytes,
        "seconds": time.as_secs_f64(),
        "differences": differences.collect::<Vec<_>>(),
        "unreadable": unreadable.collect::<Vec<_>>(),
    })
}
