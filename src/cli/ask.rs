//! What senders are asked while they run: `checkpoint`, `explain` and `rescan`.

use super::text::{ago, count, escaped};
use super::wait::nobody;
use super::{CliError, DONE, FAILED, output};
use crate::daemon::barrier::{Checkpoint, Explanation};
use crate::daemon::control::{Answer, Ask, Which, ask_all, ask_senders};
use crate::daemon::home::Home;
use crate::daemon::status::{DaemonStatus, STATUS_VERSION, TargetLabel, unix_now};
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

/// Give the present state of mirrors a name, and learn when it was on their targets
///
/// Returns at once. A target has passed the checkpoint when everything that was done in the tree before it is durable there.
/// Without NAME, lists all checkpoints with the times at which they were passed. They outlive the daemon.
#[derive(Debug, Args)]
pub(super) struct CheckpointArgs {
    /// The name; one that is taken already is taken anew
    name: Option<String>,
    /// Only this mirror, by its name, its source or its target [default: all mirrors of this home]
    #[arg(long, value_name = "MIRROR")]
    mirror: Option<String>,
    /// Forget the checkpoint
    #[arg(long, requires = "name")]
    remove: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl CheckpointArgs {
    pub(super) fn run(&self) -> Result<u8, CliError> {
        let home = Home::discover()?;
        let Some(name) = &self.name else {
            return self.list(&home);
        };
        if let Err(text) = crate::daemon::barrier::check_name(name) {
            return Err(CliError::usage(text));
        }
        let which = self.which();
        let question = match self.remove {
            true => Ask::ForgetCheckpoint(name.clone()),
            false => Ask::Checkpoint(name.clone()),
        };
        let answers = asked(&home, &which, &question)?;
        if self.remove && answers.iter().all(|answer| answer.forgot == Some(false)) {
            return Err(CliError::failed(format!(
                "there is no checkpoint called {name:?}"
            )));
        }
        tell(&answers, self.json, |answer| {
            let taken = answer
                .checkpoint
                .as_ref()
                .map(|_| format!("checkpoint {name} taken"));
            let forgot = answer.forgot.map(|was_there| match was_there {
                true => format!("checkpoint {name} removed"),
                false => format!("there was no checkpoint {name}"),
            });
            taken.or(forgot).into_iter().collect()
        })
    }

    fn which(&self) -> Which {
        Which {
            mirror: self.mirror.clone(),
            path: None,
        }
    }

    fn list(&self, home: &Home) -> Result<u8, CliError> {
        let is_meant = |label: &TargetLabel| {
            let names = [Some(&label.source), Some(&label.target), label.mirror.as_ref()];
            let mirror = self.mirror.as_ref();
            mirror.is_none_or(|mirror| names.into_iter().flatten().any(|own| own == mirror))
        };
        let mut senders: Vec<(TargetLabel, Vec<Checkpoint>)> = Vec::new();
        for daemon in ask_all(home)?.daemons {
            if let DaemonStatus::Sender(sender) = daemon {
                let label = TargetLabel {
                    mirror: sender.mirror,
                    source: sender.source,
                    target: sender.target,
                };
                if is_meant(&label) {
                    senders.push((label, sender.checkpoints));
                }
            }
        }
        if senders.is_empty() {
            return Err(nobody(home, &self.which()));
        }
        if self.json {
            let listed: Vec<_> = senders
                .iter()
                .map(|(label, checkpoints)| {
                    let mut value = json!(label);
                    value["checkpoints"] = json!(checkpoints);
                    value
                })
                .collect();
            output::json(&json!({"version": STATUS_VERSION, "targets": listed}));
            return Ok(DONE);
        }
        let now = unix_now();
        for (label, checkpoints) in &senders {
            for checkpoint in checkpoints {
                output::line(&format!("{}: {}", shown(label), described(checkpoint, now)));
            }
        }
        Ok(DONE)
    }
}

fn described(checkpoint: &Checkpoint, now: u64) -> String {
    let Checkpoint {
        name,
        taken,
        completed,
        failed,
    } = checkpoint;
    let state = match completed {
        None => "not passed yet".to_owned(),
        Some(at) => format!("passed {}, after {} s", ago(*at, now), at.saturating_sub(*taken)),
    };
    let failed = match failed {
        0 => String::new(),
        failed => format!(" ({} in error)", count(*failed, "entry", "entries")),
    };
    format!("{name}: taken {}, {state}{failed}", ago(*taken, now))
}

/// Say what becomes of a path, and why
///
/// For each mirror and target whose source holds PATH: whether the filter has it and by which rule, whether the target has it
/// as it is here, its version, and what went wrong.
#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// A file or directory in the source of a mirror; it need not exist any more
    path: PathBuf,
    /// Only this mirror, by its name, its source or its target
    #[arg(long, value_name = "MIRROR")]
    mirror: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl ExplainArgs {
    pub(super) fn run(&self) -> Result<u8, CliError> {
        let which = Which {
            mirror: self.mirror.clone(),
            path: Some(self.path.clone()),
        };
        let answers = asked(&Home::discover()?, &which, &Ask::Explain)?;
        tell(&answers, self.json, |answer| {
            answer
                .explanation
                .as_ref()
                .map(explanation_lines)
                .unwrap_or_default()
        })
    }
}

fn explanation_lines(told: &Explanation) -> Vec<String> {
    let mut lines = vec![format!("{} is {}: {}", told.path, told.state, told.reason)];
    let mut more = |name: &str, value: Option<String>| {
        lines.extend(value.map(|value| format!("  {name}: {value}")));
    };
    more("rule", told.rule.clone());
    more("kind", told.kind.clone());
    more("size", told.size.map(|size| count(size, "byte", "bytes")));
    more(
        "content",
        told.digest.as_ref().map(|digest| format!("BLAKE3 {digest}")),
    );
    more(
        "version",
        told.version
            .map(|version| format!("change {version} of the journal")),
    );
    let tries = told.tries.map_or_else(String::new, |tries| {
        format!(" (tried {})", count(u64::from(tries), "time", "times"))
    });
    more(
        "error",
        told.error.as_ref().map(|error| format!("{error}{tries}")),
    );
    lines
}

/// Look again at everything below a path, and try again what is in error there
///
/// Changes are noticed by themselves; this is for what nothing tells of. It does not read contents of files whose times did not
/// move: `driftless verify` does.
#[derive(Debug, Args)]
pub(super) struct RescanArgs {
    /// A file or directory in the source of a mirror
    path: PathBuf,
    /// Only this mirror, by its name, its source or its target
    #[arg(long, value_name = "MIRROR")]
    mirror: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl RescanArgs {
    pub(super) fn run(&self) -> Result<u8, CliError> {
        let which = Which {
            mirror: self.mirror.clone(),
            path: Some(self.path.clone()),
        };
        let answers = asked(&Home::discover()?, &which, &Ask::Rescan)?;
        tell(&answers, self.json, |answer| {
            let told = answer.retried.map(|retried| {
                let retried = match retried {
                    0 => String::new(),
                    retried => format!(
                        "; {} tried again",
                        count(retried, "entry in error is", "entries in error are")
                    ),
                };
                format!("looking again at {}{retried}", escaped(&self.path))
            });
            told.into_iter().collect()
        })
    }
}

fn asked(home: &Home, which: &Which, question: &Ask) -> Result<Vec<Answer>, CliError> {
    let answers = ask_senders(home, which, question)?;
    match answers.is_empty() {
        true => Err(nobody(home, which)),
        false => Ok(answers),
    }
}

/// Prints answers; the status says whether all senders answered.
fn tell(answers: &[Answer], is_json: bool, lines: impl Fn(&Answer) -> Vec<String>) -> Result<u8, CliError> {
    if is_json {
        output::json(&json!({"version": STATUS_VERSION, "answers": answers}));
    }
    let mut status = DONE;
    for answer in answers {
        if let Some(error) = &answer.error {
            status = FAILED;
            output::note(&format!("{}: {error}", shown(&answer.of)));
        }
        for line in lines(answer).into_iter().filter(|_| !is_json) {
            output::line(&format!("{}: {line}", shown(&answer.of)));
        }
    }
    Ok(status)
}

fn shown(label: &TargetLabel) -> String {
    let mirror = label.mirror.as_ref().unwrap_or(&label.source);
    format!("{mirror} to {}", label.target)
}
