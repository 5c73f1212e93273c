//! `driftless wait`: until what was done up to now is on the targets.

use super::text::{count, parse_span, span};
use super::{CliError, DONE, FAILED, SOME_FAILED, TIMED_OUT, output};
use crate::daemon::barrier::Level;
use crate::daemon::control::{Enough, WaitOptions, WaitState, Waited, Which, ask_all, wait};
use crate::daemon::home::Home;
use crate::daemon::status::{DaemonStatus, STATUS_VERSION, SenderStatus, TargetLabel};
use clap::Args;
use serde_json::json;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Wait until everything that was done in a tree before is on its targets
///
/// Counts what was written, renamed, removed or changed by calls that returned before this command began, also of files that are
/// still open for writing. Ends with status 0 when it is there, with 5 when the time is over before.
#[derive(Debug, Args)]
pub(super) struct WaitArgs {
    /// Only what is below PATH, in whatever mirror it is [default: everything in all mirrors of this home]
    path: Option<PathBuf>,
    /// Only this mirror, by its name, its source or its target
    #[arg(long, value_name = "MIRROR")]
    mirror: Option<String>,
    /// What has to be true on a target: `received`, `applied` (visible) or `durable` (survives a power cut)
    #[arg(long, value_name = "LEVEL", default_value = "durable")]
    level: Level,
    /// On how many targets of each mirror: `all`, `any`, or a number
    #[arg(long, value_name = "N", default_value = "all", value_parser = parse_enough)]
    targets: Enough,
    /// How long to wait at most, such as 30s or 5m
    #[arg(long, value_name = "TIME", value_parser = parse_span)]
    timeout: Duration,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn parse_enough(text: &str) -> Result<Enough, String> {
    match text {
        "all" => Ok(Enough::All),
        "any" => Ok(Enough::Any),
        text => match text.parse() {
            Ok(number) if number > 0 => Ok(Enough::Number(number)),
            _ => Err("takes all, any, or a number from 1 on".to_owned()),
        },
    }
}

impl WaitArgs {
    pub(super) fn run(&self) -> Result<u8, CliError> {
        let home = Home::discover()?;
        let began = Instant::now();
        let options = WaitOptions {
            which: Which {
                mirror: self.mirror.clone(),
                path: self.path.clone(),
            },
            level: self.level,
            targets: self.targets,
            timeout: self.timeout,
        };
        let waited = wait(&home, &options)?;
        if waited.targets.is_empty() {
            return Err(nobody(&home, &options.which));
        }
        if let Enough::Number(wanted) = self.targets {
            check_number(&waited, wanted)?;
        }
        let status = exit_status(&waited);
        let late = match status {
            TIMED_OUT => ask_all(&home).map(|answers| answers.daemons).unwrap_or_default(),
            _ => Vec::new(),
        };
        if self.json {
            let targets: Vec<_> = waited
                .targets
                .iter()
                .map(|(label, state)| described(label, state, &late))
                .collect();
            output::json(
                &json!({"version": STATUS_VERSION, "level": self.level, "status": status,
                "seconds": began.elapsed().as_secs_f64(), "targets": targets}),
            );
        } else {
            self.tell(&waited, status, &late, began.elapsed());
        }
        Ok(status)
    }

    fn tell(&self, waited: &Waited, status: u8, late: &[DaemonStatus], time: Duration) {
        for (label, state) in &waited.targets {
            match state {
                WaitState::Reached { failed: 0 } => {}
                WaitState::Reached { failed } => output::note(&format!(
                    "{}: {} in error (`driftless status` lists them)",
                    name_of(label),
                    count(*failed, "entry is", "entries are")
                )),
                WaitState::Refused { error } => output::note(error),
                WaitState::Late if status == TIMED_OUT => {
                    let standing = standing(label, late).map_or_else(String::new, |status| {
                        let reason = status
                            .reason
                            .map_or_else(String::new, |reason| format!(": {reason}"));
                        format!(" ({}{reason})", status.phase)
                    });
                    output::note(&format!(
                        "{} does not have it after {}{standing}",
                        name_of(label),
                        span(self.timeout)
                    ));
                }
                WaitState::Late => {}
            }
        }
        let reached = |state: &&WaitState| matches!(state, WaitState::Reached { .. });
        let reached = waited.targets.values().filter(reached).count() as u64;
        if waited.is_enough {
            output::line(&format!(
                "{} on {}, after {}",
                self.level,
                count(reached, "target", "targets"),
                span(time)
            ));
        }
    }
}

fn exit_status(waited: &Waited) -> u8 {
    match (waited.is_enough, waited.failed()) {
        (true, 0) => DONE,
        (true, _) => SOME_FAILED,
        (false, _) if waited.refusal().is_some() => FAILED,
        (false, _) => TIMED_OUT,
    }
}

fn described(label: &TargetLabel, state: &WaitState, late: &[DaemonStatus]) -> serde_json::Value {
    let mut value = json!(label);
    if let (Some(fields), Ok(serde_json::Value::Object(more))) =
        (value.as_object_mut(), serde_json::to_value(state))
    {
        fields.extend(more);
    }
    if *state == WaitState::Late
        && let Some(status) = standing(label, late)
    {
        value["phase"] = status.phase.into();
        value["reason"] = status.reason.into();
    }
    value
}

/// What a sender says of itself.
fn standing(label: &TargetLabel, daemons: &[DaemonStatus]) -> Option<SenderStatus> {
    daemons.iter().find_map(|daemon| match daemon {
        DaemonStatus::Sender(sender)
            if sender.mirror == label.mirror
                && sender.source == label.source
                && sender.target == label.target =>
        {
            Some((**sender).clone())
        }
        _ => None,
    })
}

fn name_of(label: &TargetLabel) -> String {
    let mirror = label.mirror.as_ref().unwrap_or(&label.source);
    format!("{mirror} to {}", label.target)
}

fn check_number(waited: &Waited, wanted: usize) -> Result<(), CliError> {
    let mut targets = std::collections::BTreeMap::<&str, usize>::new();
    for label in waited.targets.keys() {
        *targets
            .entry(label.mirror.as_ref().unwrap_or(&label.source))
            .or_default() += 1;
    }
    match targets.into_iter().find(|(_, count)| *count < wanted) {
        Some((mirror, there)) => Err(CliError::usage(format!(
            "--targets {wanted}: {mirror} has {} only",
            count(there as u64, "target", "targets")
        ))),
        None => Ok(()),
    }
}

/// The failure of a question that is nobody's.
pub(super) fn nobody(home: &Home, which: &Which) -> CliError {
    let about = match (&which.mirror, &which.path) {
        (Some(mirror), _) => format!("no running sender of this home is called {mirror:?}"),
        (None, Some(path)) => format!(
            "no running sender of this home has a source with {}",
            super::text::escaped(path)
        ),
        (None, None) => "no sender of this home is running".to_owned(),
    };
    CliError::failed(format!("{about} (home {home}; `driftless status` lists them)"))
}
