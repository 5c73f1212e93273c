//! `driftless status`: what the daemons of this home are doing.

use super::text::{ago, bytes, count, grouped, span};
use super::{CliError, DONE, FAILED, output, view};
use crate::daemon::control::{Answers, ask_all};
use crate::daemon::fence;
use crate::daemon::home::Home;
use crate::daemon::keeping::KeepingReport;
use crate::daemon::status::{
    Behind, DaemonStatus, ModuleStatus, ProtectionStatus, PublishReport, ReceiverStatus, STATUS_VERSION,
    SenderStatus, SessionReport, unix_now,
};
use crate::daemon::upkeep::{DriftReport, Finding, ScrubReport};
use clap::Args;
use serde_json::json;
use std::time::Duration;

/// Say what the daemons of this home are doing
#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Show it as it changes, until Ctrl-C: on a terminal with keys for orders, elsewhere in lines
    #[arg(long)]
    watch: bool,
}

impl StatusArgs {
    pub(super) fn run(&self) -> Result<u8, CliError> {
        let home = Home::discover()?;
        if self.watch {
            return view::watch(&home, self.json);
        }
        let Answers {
            processes,
            daemons,
            problems,
        } = ask_all(&home)?;
        if self.json {
            output::json(&object(&home, &daemons, &problems));
        } else {
            let now = unix_now();
            daemons
                .iter()
                .for_each(|daemon| output::raw(&describe(daemon, now)));
            promoted_lines(&home, &daemons, now)
                .iter()
                .for_each(|line| output::line(line));
        }
        problems.iter().for_each(|problem| output::note(problem));
        if daemons.is_empty() && processes > 0 {
            output::note(&nothing_to_do(processes));
        } else if daemons.is_empty() {
            if problems.is_empty() {
                output::note(&format!(
                    "no driftless daemon of this home is running (home {home})"
                ));
            }
            return Ok(FAILED);
        }
        Ok(DONE)
    }
}

/// What is said of processes that run and have nothing to do.
pub(super) fn nothing_to_do(processes: usize) -> String {
    let running = match processes {
        1 => "a driftless daemon of this home is".to_owned(),
        many => format!("{many} driftless daemons of this home are"),
    };
    format!("{running} running, without any mirror or module")
}

/// What `driftless status --json` prints.
pub(super) fn object(home: &Home, daemons: &[DaemonStatus], problems: &[String]) -> serde_json::Value {
    let promoted = fence::promoted(home).into_iter();
    let promoted = promoted.map(|fence| json!({"module": fence.module, "since": fence.since}));
    json!({
        "version": STATUS_VERSION,
        "home": home.to_string(),
        "daemons": daemons,
        "problems": problems,
        "promoted": promoted.collect::<Vec<_>>(),
    })
}

/// The status of several daemons, with the time of day.
pub(super) fn described_all(daemons: &[DaemonStatus]) -> String {
    let now = unix_now();
    let time = jiff::Timestamp::from_second(i64::try_from(now).unwrap_or(0)).unwrap_or_default();
    let mut text = format!("driftless status at {time}\n\n");
    daemons.iter().for_each(|daemon| text += &describe(daemon, now));
    text
}

fn describe(daemon: &DaemonStatus, now: u64) -> String {
    let lines = match daemon {
        DaemonStatus::Receiver(receiver) => receiver_lines(receiver, now),
        DaemonStatus::Sender(sender) => sender_lines(sender, now),
    };
    let mut text = lines.join("\n  ");
    text.push('\n');
    text
}

fn receiver_lines(receiver: &ReceiverStatus, now: u64) -> Vec<String> {
    let ReceiverStatus {
        address,
        pid,
        identity,
        since,
        protections,
        trees,
        ..
    } = receiver;
    let on = address.map_or_else(String::new, |address| format!(" on {address}"));
    let what = if receiver.modules.is_empty() && !trees.is_empty() {
        "offer"
    } else {
        "receiver"
    };
    let mut lines = vec![
        format!("{what}{on} (process {pid}, started {})", ago(*since, now)),
        format!("identity {identity}"),
    ];
    lines.extend(protection_lines(protections));
    if !trees.is_empty() {
        lines.push(format!("offers for pulling: {}", trees.join(", ")));
    }
    for module in &receiver.modules {
        let state = module_state(module, now);
        lines.push(format!("module {} in {}{state}", module.name, module.path));
        lines.extend(
            receiver
                .pulls
                .iter()
                .filter(|pull| pull.module == module.name)
                .map(|pull| {
                    let why = pull
                        .error
                        .as_ref()
                        .map_or_else(String::new, |error| format!(": {error}"));
                    format!(
                        "  pulls {}, {} (since {}){why}",
                        pull.from,
                        pull.phase,
                        ago(pull.since, now)
                    )
                }),
        );
        for session in &module.sessions {
            lines.extend(session_lines(session, now));
        }
        lines.extend(publish_lines(&module.publishing, now));
        lines.extend(keeping_lines(&module.keeping));
        lines.extend(module.scrubs.iter().flat_map(|scrub| scrub_lines(scrub, now)));
        lines.extend(module.drift.iter().flat_map(|drift| drift_lines(drift, now)));
    }
    lines
}

/// What is told of a module beside its sessions, behind its place.
pub(super) fn module_state(module: &ModuleStatus, now: u64) -> String {
    match module.promoted_since {
        Some(since) => format!(": promoted {}, senders are refused", ago(since, now)),
        None if module.sessions.is_empty() => ": nobody is connected".to_owned(),
        None => String::new(),
    }
}

/// Modules that are promoted and that no receiver offers now: their senders hear nothing, and nobody else tells it.
fn promoted_lines(home: &Home, daemons: &[DaemonStatus], now: u64) -> Vec<String> {
    let is_offered = |name: &str| {
        daemons.iter().any(|daemon| match daemon {
            DaemonStatus::Receiver(receiver) => receiver.modules.iter().any(|module| module.name == name),
            DaemonStatus::Sender(_) => false,
        })
    };
    let promoted = fence::promoted(home).into_iter();
    promoted
        .filter(|fence| !is_offered(&fence.module))
        .map(|fence| {
            format!(
                "module {}: promoted {}; no receiver offers it now",
                fence.module,
                ago(fence.since, now)
            )
        })
        .collect()
}

fn protection_lines(protections: &[ProtectionStatus]) -> Vec<String> {
    let (held, missing): (Vec<_>, Vec<_>) = protections.iter().partition(|protection| protection.holds);
    let held: Vec<_> = held.iter().map(|protection| protection.name.as_str()).collect();
    let mut lines = Vec::new();
    if !held.is_empty() {
        lines.push(format!("confined by {}", held.join(", ")));
    }
    lines.extend(missing.iter().map(|protection| {
        let reason = protection.reason.as_deref().unwrap_or("unknown");
        format!("  but not by {}: {reason}", protection.name)
    }));
    lines
}

/// How far the scrub of a module path is, and what it found.
fn scrub_lines(scrub: &ScrubReport, now: u64) -> Vec<String> {
    let place = match scrub.path.as_str() {
        "" | "." => String::new(),
        path => format!(" of {path}"),
    };
    let round = match (scrub.rests, scrub.finished) {
        (true, Some(at)) => format!("done {}: {} read", ago(at, now), bytes(scrub.bytes)),
        _ => format!(
            "began {}: {} of {} read",
            ago(scrub.began, now),
            bytes(scrub.bytes),
            bytes(scrub.bytes_total)
        ),
    };
    let found = match (scrub.corrupt, scrub.edited) {
        (0, 0) => ", nothing found".to_owned(),
        (corrupt, edited) => format!(
            ", found {} corrupt and {} edited",
            grouped(corrupt),
            grouped(edited)
        ),
    };
    let mut lines = vec![format!("  scrub{place} {round}{found}")];
    lines.extend(scrub.latest.iter().map(|finding| finding_line(finding, now)));
    lines
}

/// What was found in a module path, and when.
fn finding_line(finding: &Finding, now: u64) -> String {
    format!(
        "    {} ({}): {}",
        finding.path,
        ago(finding.at, now),
        finding.what
    )
}

/// How a module path is watched for local edits, and which there were.
fn drift_lines(drift: &DriftReport, now: u64) -> Vec<String> {
    let watcher = match drift.watcher.as_str() {
        "" => "not watched for local edits yet",
        watcher => &format!("watched for local edits by {watcher}"),
    };
    let place = match drift.path.as_str() {
        "" | "." => String::new(),
        path => format!("{path} "),
    };
    let mut lines = vec![format!("  {place}{watcher}, {} seen", grouped(drift.edits))];
    lines.extend(drift.degradations.iter().map(|text| format!("    {text}")));
    lines.extend(drift.latest.iter().map(|finding| finding_line(finding, now)));
    lines
}

/// What a module makes aside, to publish it at once.
pub(super) fn publish_lines(publishing: &[PublishReport], now: u64) -> Vec<String> {
    let line = |report: &PublishReport| {
        let waits = match report.in_error {
            0 => "visible when all that was sent is here".to_owned(),
            number => format!(
                "visible stays what was, because of {} in error",
                count(number, "entry", "entries")
            ),
        };
        format!(
            "  making {} aside, begun {}: {waits}",
            report.path,
            ago(report.since, now)
        )
    };
    publishing.iter().map(line).collect()
}

/// What a module kept of what it replaced or removed.
pub(super) fn keeping_lines(kept: &KeepingReport) -> Vec<String> {
    let counted = [
        (kept.edits_kept, "local edits set aside"),
        (kept.edits_refused, "changes refused for a local edit"),
        (kept.trashed, "moved to the trash"),
        (kept.backups, "backups made"),
    ];
    let counted: Vec<_> = counted
        .into_iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, what)| format!("{} {what}", grouped(number)))
        .collect();
    let mut lines = Vec::new();
    if !counted.is_empty() {
        lines.push(format!("  since its start: {}", counted.join(", ")));
    }
    let edits = kept.latest_edits.iter();
    lines.extend(edits.map(|path| format!("  local edit, now at {path}")));
    lines
}

/// What is told of a sender that is connected here.
pub(super) fn session_lines(session: &SessionReport, now: u64) -> Vec<String> {
    let SessionReport {
        peer,
        source,
        since,
        path,
        ..
    } = session;
    let place = if path == "." {
        String::new()
    } else {
        format!(" to {path}")
    };
    let sequence = session
        .sequence
        .map_or(String::new(), |sequence| format!(", durable at {sequence}"));
    let mut lines = vec![
        format!("  from {source}{place}, connected {}", ago(*since, now)),
        format!("  peer {peer}"),
        format!(
            "  {} applied, {} failed, {} written{sequence}",
            grouped(session.applied),
            grouped(session.failed),
            bytes(session.bytes)
        ),
    ];
    if let Some(error) = &session.last_error {
        lines.push(format!("  last error ({}): {}", ago(error.at, now), error.text));
    }
    lines
}

/// What is told of a sender; who it is in the first two lines.
pub(super) fn sender_lines(sender: &SenderStatus, now: u64) -> Vec<String> {
    let SenderStatus {
        source,
        target,
        pid,
        since,
        identity,
        ..
    } = sender;
    let counter = |name: &str| sender.counters.get(name).copied().unwrap_or_default();
    let name = sender
        .mirror
        .as_ref()
        .map_or_else(String::new, |name| format!("mirror {name}: "));
    let mut lines = vec![
        format!(
            "sender of {name}{source} to {target} (process {pid}, started {})",
            ago(*since, now)
        ),
        format!("identity {identity}"),
        phase_line(sender, now),
    ];
    lines.extend(behind_lines(&sender.behind));
    lines.push(format!(
        "{}, {} sent, {} of content; wire: {} out, {} back",
        count(counter("entries"), "entry", "entries"),
        count(counter("files_sent"), "file", "files"),
        bytes(counter("content_bytes")),
        bytes(counter("wire_bytes_sent")),
        bytes(counter("wire_bytes_received")),
    ));
    if let Some(watcher) = &sender.watcher {
        lines.push(format!("watching by {}", watcher.name));
        lines.extend(watcher.degradations.iter().map(|text| format!("  but {text}")));
    }
    if counter("initial_skipped") > 0 {
        lines.push(
            "the first comparison was skipped (initial = skip): what differed then is left as it is until it changes"
                .to_owned(),
        );
    }
    for (name, what) in [
        ("failed", "failed"),
        ("unreadable", "unreadable"),
        ("skipped", "skipped"),
        ("foreign_xattrs", "with extended attributes that are not carried"),
        ("excluded", "excluded"),
        ("withheld", "left as they are on the target, as was asked for"),
    ] {
        if counter(name) > 0 {
            lines.push(format!("{} {what}", grouped(counter(name))));
        }
    }
    lines.extend(
        sender
            .failed
            .iter()
            .map(|entry| format!("  {}  {}", entry.path, entry.error)),
    );
    lines.extend(
        sender
            .protections
            .iter()
            .filter_map(|guard| guard.reason.as_ref())
            .map(|reason| format!("guard given up: {reason}")),
    );
    if let Some(error) = &sender.last_error
        && sender.reason.as_ref() != Some(&error.text)
    {
        lines.push(format!("last error ({}): {}", ago(error.at, now), error.text));
    }
    lines
}

fn behind_lines(behind: &Behind) -> Vec<String> {
    let Some(oldest) = behind.oldest_ms else {
        return Vec::new();
    };
    let oldest = span(Duration::from_millis(oldest));
    let mut lines = vec![match behind.entries {
        0 => format!("behind by up to {oldest}"),
        entries => format!(
            "behind by {} and {}, {} of content to go, {} on their way",
            oldest,
            count(entries, "entry", "entries"),
            bytes(behind.bytes),
            grouped(behind.in_flight)
        ),
    }];
    lines.extend(behind.sending.iter().map(|path| format!("  sending {path}")));
    lines
}

fn phase_line(sender: &SenderStatus, now: u64) -> String {
    let since = ago(sender.phase_since, now);
    let extras = match sender.counters.get("extras_kept") {
        Some(&kept) if kept > 0 => format!(", {} extra kept", grouped(kept)),
        _ => String::new(),
    };
    match (sender.phase.as_str(), sender.in_sync_at, &sender.reason) {
        ("in-sync", Some(at), _) => format!("in sync at {}{extras} ({})", at.sequence, ago(at.at, now)),
        (phase, _, Some(reason)) => format!("{phase} (since {since}): {reason}"),
        (phase, Some(at), None) => {
            format!(
                "{phase} (since {since}); was in sync at {} {}",
                at.sequence,
                ago(at.at, now)
            )
        }
        (phase, None, None) => format!("{phase} (since {since})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::status::{ModuleStatus, SessionStatus, StatusBoard};
    use crate::daemon::{Backlog, Observer, Phase, SendCounters};

    #[test]
    fn people_can_read_it() {
        let home = Home::at("/h");
        let (source, target) = ("/src".to_owned(), "nas::m".to_owned());
        let board = StatusBoard::named(Some("www".to_owned()), "fp".to_owned(), &home, source, target);
        assert!(["www", "/src", "nas::m"].iter().all(|name| board.is_named(name)) && !board.is_named("ww"));
        board.phase(&Phase::InSync { sequence: 12 });
        board.counters(&SendCounters {
            entries: 1234,
            extras_kept: 214,
            ..SendCounters::default()
        });
        board.set_watcher("inotify", &["writes through mappings are found late".to_owned()]);
        let text = describe(&DaemonStatus::Sender(Box::new(board.status())), unix_now());
        for wanted in [
            "sender of mirror www: /src to nas::m",
            "in sync at 12, 214 extra kept",
            "1,234 entries",
            "watching by inotify",
        ] {
            assert!(text.contains(wanted), "{text}");
        }
        board.counters(&SendCounters {
            ops_total: 3,
            ..SendCounters::default()
        });
        board.backlog(&Backlog {
            oldest: Some(std::time::Instant::now()),
            entries: 3,
            bytes: 2_000_000,
            in_flight: 1,
            sending: vec!["big".to_owned()],
        });
        board.phase(&Phase::Waiting {
            error: "no answer".to_owned(),
            seconds: 1,
        });
        let text = describe(&DaemonStatus::Sender(Box::new(board.status())), unix_now());
        assert!(
            text.contains("): no answer")
                && text.contains(" and 3 entries, 2.0 MB of content to go, 1 on their way\n  "),
            "{text}"
        );

        let session = SessionStatus::default();
        session.count_failed("no space");
        let sessions = vec![session.report("a".to_owned(), "fp2".to_owned(), "/src".to_owned())];
        let modules = vec![
            ModuleStatus {
                name: "m".to_owned(),
                path: "/m".to_owned(),
                promoted_since: None,
                sessions,
                keeping: KeepingReport {
                    edits_kept: 1_200,
                    trashed: 3,
                    latest_edits: vec![".driftless-kept/T/a".to_owned()],
                    ..KeepingReport::default()
                },
                scrubs: Vec::new(),
                drift: ["", "sub/path"]
                    .map(|path| DriftReport {
                        path: path.to_owned(),
                        watcher: "inotify".to_owned(),
                        edits: 1,
                        ..DriftReport::default()
                    })
                    .into(),
                publishing: [0, 2]
                    .map(|in_error| PublishReport {
                        path: format!("releases/v{in_error}"),
                        since: unix_now(),
                        in_error,
                    })
                    .into(),
            },
            ModuleStatus {
                name: "idle".to_owned(),
                path: "/i".to_owned(),
                promoted_since: None,
                sessions: vec![],
                keeping: KeepingReport::default(),
                scrubs: Vec::new(),
                drift: Vec::new(),
                publishing: Vec::new(),
            },
        ];
        let mut receiver = ReceiverStatus::new("fp".to_owned(), &home, "[::]:4433".parse().unwrap(), modules);
        let protection = |name: &str, reason: Option<&str>| ProtectionStatus {
            name: name.to_owned(),
            holds: reason.is_none(),
            reason: reason.map(str::to_owned),
        };
        receiver.protections = vec![
            protection("landlock", None),
            protection("sockets", Some("no seccomp")),
        ];
        let text = describe(&DaemonStatus::Receiver(receiver), unix_now());
        for wanted in [
            "receiver on [::]:4433",
            "from /src to a",
            "peer fp2",
            "no space",
            "nobody is connected",
            "confined by landlock\n",
            "but not by sockets: no seccomp",
            "since its start: 1,200 local edits set aside, 3 moved to the trash",
            "now at .driftless-kept/T/a",
            "  watched for local edits by inotify, 1 seen",
            "  sub/path watched for local edits by inotify, 1 seen",
            "  making releases/v0 aside, begun ",
            "visible when all that was sent is here",
            "because of 2 entries in error",
        ] {
            assert!(text.contains(wanted), "{text}");
        }
    }
}
