//! `driftless verify`: both trees are read and compared, and mended if that is wanted.

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
use crate::daemon::control::{self, Verified, VerifyWish};
use crate::daemon::divergence::{between_machines, on_this_machine};
use crate::daemon::status::{STATUS_VERSION, StatusBoard};
use crate::daemon::verify::{self, How, VerifyReport};
use crate::daemon::{DaemonError, Deletes, ModuleOptions, SenderOptions, Silent, sender};
use crate::engine::filter::Filter;
use crate::net::{LinkOptions, Schedule};
use clap::{Args, ValueEnum};
use serde_json::json;
use std::ffi::{OsStr, OsString};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Compare contents with a target or directory, by digests of everything on both disks
///
/// Changes nothing without --repair, and nothing at the source ever. Ends with status 4 if they differ, and names each difference.
/// While a mirror of both is running here it is asked to do it, beside its work and by its rules; what is on its way is no
/// difference. A run that was cut off is gone on with.
#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// The tree, or a single file
    #[arg(required_unless_present = "mirror", requires = "target")]
    src: Option<PathBuf>,
    /// A TARGET, or a directory
    target: Option<OsString>,
    /// What a running mirror of this name, source or target keeps, with all of its targets
    #[arg(long, value_name = "MIRROR", conflicts_with_all = ["src", "target"])]
    mirror: Option<String>,
    /// Have what differs on the target mended: by the mirror that is running, or by one run from SRC
    #[arg(long)]
    repair: bool,
    /// What --repair does with what only the target has, where no mirror of both is running: `always` deletes it, `never` keeps it
    /// [default: what was decided when they first met]
    #[arg(
        long,
        value_name = "WHEN",
        value_enum,
        requires = "repair",
        conflicts_with = "mirror",
        hide_possible_values = true
    )]
    delete: Option<DeleteWhen>,
    /// Read so much a second at most, on each end: KiB, or as in 500k, 1.5m or 100MB; or by the time of day, as in
    /// "08:00-18:00 2m, else 0". 0 is no limit
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    bwlimit: Option<String>,
    /// Begin anew, although an earlier run was cut off
    #[arg(long)]
    restart: bool,
    /// List instead what each side changed by itself since both were last equal, and when, by what their catalogs know: after a
    /// failover for example. The mirror must not run; no contents are read
    #[arg(long, conflicts_with_all = ["mirror", "repair", "bwlimit", "restart"])]
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum DeleteWhen {
    Always,
    Never,
}

/// Told again to whoever verifies, which may be another process.
fn parse_rate(text: &str) -> Result<String, String> {
    let schedule: Result<Schedule, _> = text.parse();
    schedule
        .map(|_| text.to_owned())
        .map_err(|error| error.to_string())
}

impl VerifyArgs {
    pub(super) fn run(&self) -> Result<u8, CliError> {
        let session = Session::open()?;
        if let Some(mirror) = &self.mirror {
            let verified = self.ask(&session, mirror, None)?;
            return match verified.is_empty() {
                true => Err(CliError::failed(format!(
                    "no running sender of this home has the name, source or target {mirror:?}; `driftless status` lists them"
                ))),
                false => self.conclude(&verified),
            };
        }
        let (Some(src), Some(word)) = (&self.src, &self.target) else {
            return Err(CliError::usage("verify takes SRC and TARGET, or --mirror"));
        };
        let origin = self.filtering.origin("verify", src)?;
        let filter = self.filtering.filter(&origin)?;
        if self.divergence {
            return self.diverged(&session, word, &origin, &filter);
        }
        let destination = destination(word, self.port, &session.home)?;
        let shown = match &destination {
            Destination::Directory(path) => {
                escaped(existing_directory("verify", &origin.directory_of(path)?)?)
            }
            Destination::Target(_) if self.keeping.is_given() => return Err(CliError::usage(KEEPING_THERE)),
            Destination::Target(target) => target.display.clone(),
        };
        // With rules of its own, or of one name only, it is another comparison than the mirror's.
        let is_whole = filter.passes_everything() && !origin.is_named();
        if is_whole && !self.keeping.is_given() && !self.appearance.is_given() {
            let verified = self.ask(&session, &shown, Some(&origin.root))?;
            if !verified.is_empty() {
                return self.conclude(&verified);
            }
        }
        let link = LinkOptions::default();
        match destination {
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
            Destination::Target(target) => {
                self.appearance.check_far()?;
                let target = origin.target_of(target, word)?;
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
        word: &OsStr,
        origin: &Origin,
        filter: &Filter,
    ) -> Result<u8, CliError> {
        let link = LinkOptions::default();
        let options = |end: End<'_>| SenderOptions {
            modes: self.appearance.modes(),
            links: self.appearance.links(),
            taken_as: self.appearance.taken_as(),
            ..SendArgs::default().options(session, end, origin, filter, false)
        };
        let end = |target| End {
            identity: &session.identity,
            target,
            link: &link,
        };
        let place = destination(word, self.port, &session.home)?;
        session.exit_when_stopped(|| INTERRUPTED);
        let (target, found) = match place {
            Destination::Directory(path) => {
                let path = existing_directory("verify", &origin.directory_of(&path)?)?;
                let target = local_target(&path, session.identity.fingerprint(), 0);
                let state = session.home.module_place(&target.module, &target.path);
                let writing = WritingArgs {
                    keeping: self.keeping.clone(),
                    ..WritingArgs::default()
                };
                let module = writing.module(target.module.clone(), path)?;
                let module = ModuleOptions {
                    kept_as: self.appearance.kept_as(module.kept_as),
                    ..module
                };
                let found = on_this_machine(&options(end(&target)), &module, &state);
                (target.display, found?)
            }
            Destination::Target(_) if self.keeping.is_given() => return Err(CliError::usage(KEEPING_THERE)),
            Destination::Target(target) => {
                self.appearance.check_far()?;
                let target = origin.target_of(target, word)?;
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

    /// Asks whoever mirrors it now.
    fn ask(&self, session: &Session, mirror: &str, source: Option<&Path>) -> Result<Vec<Verified>, CliError> {
        let wish = VerifyWish {
            rate: self.bwlimit.clone(),
            repair: self.repair,
            restart: self.restart,
        };
        let verified = control::verify(&session.home, mirror, source, &wish, &session.stop)?;
        if self.delete.is_some() && !verified.is_empty() {
            output::note("--delete means nothing here: the mirror that is running has its own decision");
        }
        Ok(verified)
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
            deletes: match self.delete {
                Some(DeleteWhen::Always) => Deletes::Always,
                Some(DeleteWhen::Never) => Deletes::Never,
                None => Deletes::Ask,
            },
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
        let narrator = Narrator::new(board.clone(), printer.clone(), style, target);
        let began = Instant::now();
        let repair = || -> Result<(), DaemonError> {
            sender::run(&options, session.handle(), Arc::new(Silent), &session.stop).map(drop)
        };
        let how = How {
            rate: self.bwlimit.as_deref().and_then(|text| text.parse().ok()),
            restart: self.restart,
            progress: verify::progress_file(&options),
            settle: None,
            repair: if self.repair { Some(&repair) } else { None },
            stop: &session.stop,
        };
        let report = verify::run(&options, &how, session.handle(), &*narrator);
        drop((narrator, printer));
        self.conclude(&[Verified {
            of: board.label(),
            outcome: Ok(report?),
            time: began.elapsed(),
        }])
    }

    /// Tells what was found; the worst of all targets is the status.
    fn conclude(&self, verified: &[Verified]) -> Result<u8, CliError> {
        let mut worst = DONE;
        let mut listed = Vec::new();
        for Verified { of, outcome, time } in verified {
            let report = match outcome {
                Ok(report) => report,
                Err(error) => return Err(CliError::failed(format!("{}: {error}", of.target))),
            };
            worst = worse(worst, exit_status(report));
            if self.json {
                listed.push(as_json(&of.target, report, *time));
                continue;
            }
            if let Some(began) = report.resumed {
                let now = crate::daemon::status::unix_now();
                output::note(&format!(
                    "{}: gone on with the run that began {} (--restart begins anew)",
                    of.target,
                    text::ago(began, now)
                ));
            }
            for difference in &report.differences {
                output::line(&format!("differs  {}  {}", difference.path, difference.what));
            }
            for difference in &report.repaired {
                output::line(&format!("repaired  {}  {}", difference.path, difference.what));
            }
            for entry in &report.unreadable {
                output::note(&format!("unreadable  {}  {}", entry.path, entry.error));
            }
            output::line(&sentence(&of.target, report, *time));
        }
        match (self.json, listed.len()) {
            (false, _) => {}
            (true, 1) if self.mirror.is_none() => output::json(&listed[0]),
            (true, _) => output::json(&json!({"version": STATUS_VERSION, "targets": listed})),
        }
        Ok(worst)
    }
}

/// Stopped before the end, different, unreadable, equal: what is certain counts more.
fn worse(one: u8, other: u8) -> u8 {
    let order = [INTERRUPTED, DIFFERENT, SOME_FAILED];
    let found = order.into_iter().find(|status| [one, other].contains(status));
    found.unwrap_or(DONE)
}

/// A difference is certain, an unreadable entry is not; certainty counts more.
fn exit_status(report: &VerifyReport) -> u8 {
    if report.cut_off {
        return INTERRUPTED;
    }
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
        0 if report.cut_off => "stopped before the end, no difference yet".to_owned(),
        0 => "equal".to_owned(),
        found => text::count(found, "difference", "differences"),
    };
    let mut more = String::new();
    let mut add = |found: u64, what: &str| {
        if found > 0 {
            more += &format!(", {} {what}", text::grouped(found));
        }
    };
    add(number(report.repaired.len()), "repaired");
    add(report.changing, "changing all the time");
    add(number(report.unreadable.len()), "unreadable");
    let next = match report.cut_off {
        true => "; the next run goes on from here",
        false => "",
    };
    format!(
        "{target}: {result}{more}; compared {entries} with {bytes} of content in {}{next}",
        text::span(time)
    )
}

fn as_json(target: &str, report: &VerifyReport, time: Duration) -> serde_json::Value {
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
        "differences": report.differences,
        "repaired": report.repaired,
        "changing": report.changing,
        "unreadable": unreadable.collect::<Vec<_>>(),
        "resumed": report.resumed,
        "cut_off": report.cut_off,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_of_all_targets_is_the_status() {
        assert_eq!(worse(DONE, DONE), DONE);
        assert_eq!(worse(SOME_FAILED, DIFFERENT), DIFFERENT);
        assert_eq!(worse(DONE, SOME_FAILED), SOME_FAILED);
        assert_eq!(worse(DIFFERENT, INTERRUPTED), INTERRUPTED);
    }

    #[test]
    fn what_was_repaired_is_no_difference_any_more() {
        let mut report = VerifyReport {
            repaired: vec![verify::Difference {
                path: "a".to_owned(),
                what: "content".to_owned(),
            }],
            ..VerifyReport::default()
        };
        assert_eq!(exit_status(&report), DONE);
        assert!(
            sentence("t", &report, Duration::ZERO).starts_with("t: equal, 1 repaired; compared 0 entries")
        );
        report.differences = report.repaired.clone();
        assert_eq!(exit_status(&report), DIFFERENT);
        report.cut_off = true;
        assert_eq!(exit_status(&report), INTERRUPTED);
    }
}
