//! Tells the user what senders do, and how they ended.

use super::deadline::Deadline;
use super::output::{self, Printer};
use super::text;
use super::{CliError, DONE, FAILED, SOME_FAILED, TIMED_OUT};
use crate::daemon::barrier::Checkpoint;
use crate::daemon::events::AppliedChange;
use crate::daemon::status::{STATUS_VERSION, StatusBoard, describe};
use crate::daemon::{Backlog, FailedEntry, Observer, Phase, SendCounters, Stop, Summary};
use serde_json::json;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How much of it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Detail {
    /// Warnings and errors.
    Quiet,
    /// Also when it comes into sync, and goes out of touch.
    Milestones,
    /// Also every change that is applied after it first came into sync.
    Changes,
    /// Everything.
    All,
}

/// What is told, and in which form.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    pub(super) detail: Detail,
    /// JSON, a line per event.
    pub(super) json: bool,
    /// Whether the sender follows changes once in sync.
    pub(super) follow: bool,
    /// Whether to name the target in each line.
    pub(super) name_target: bool,
}

/// Observes one sender: keeps its status and tells the user.
pub(super) struct Narrator {
    board: Arc<StatusBoard>,
    printer: Arc<Printer>,
    style: Style,
    target: String,
    /// What lines begin with: the target, and the mirror if it has a name.
    label: String,
    was_in_sync: AtomicBool,
    /// The last reason for waiting, which is told once and not with every try.
    last_wait: Mutex<Option<String>>,
}

impl Narrator {
    /// An observer that writes to `printer`.
    pub(super) fn new(
        board: Arc<StatusBoard>,
        printer: Arc<Printer>,
        style: Style,
        target: String,
    ) -> Arc<Narrator> {
        let label = labelled(board.mirror(), &target);
        let (was_in_sync, last_wait) = (AtomicBool::new(false), Mutex::default());
        Arc::new(Narrator {
            board,
            printer,
            style,
            target,
            label,
            was_in_sync,
            last_wait,
        })
    }

    fn say(&self, text: &str) {
        if self.style.name_target {
            self.printer.line(format!("{}: {text}", self.label));
        } else {
            self.printer.line(text.to_owned());
        }
    }

    /// An event of this sender, without what is special of it.
    fn event(&self, name: &str) -> serde_json::Value {
        let mut event = json!({"version": STATUS_VERSION, "event": name, "target": self.target});
        if let Some(mirror) = self.board.mirror() {
            event["mirror"] = mirror.into();
        }
        event
    }

    fn tell_in_sync(&self, sequence: u64) {
        let first = !self.was_in_sync.swap(true, Ordering::Relaxed);
        let back = self
            .last_wait
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
            .is_some();
        if !self.style.follow || self.style.detail < Detail::Milestones {
            return;
        }
        if first {
            let by = self
                .board
                .watcher()
                .map_or_else(|| "for changes".to_owned(), |name| format!("by {name}"));
            self.say(&format!("in sync; watching {by}; Ctrl-C ends"));
        } else if back {
            self.say("in sync again");
        } else if self.style.detail == Detail::All {
            self.say(&format!("in sync at {sequence}"));
        }
    }
}

impl Observer for Narrator {
    fn watcher(&self, name: &str, degradations: &[String]) {
        self.board.set_watcher(name, degradations);
    }

    fn failed(&self, entries: &[FailedEntry]) {
        self.board.failed(entries);
    }

    fn batch(&self, applied: u64, changes: &[AppliedChange]) {
        self.board.batch(applied, changes);
    }

    fn drift(&self) {
        self.board.drift();
    }

    fn backlog(&self, backlog: &Backlog) {
        self.board.backlog(backlog);
    }

    fn checkpoints(&self, checkpoints: &[Checkpoint]) {
        self.board.checkpoints(checkpoints);
    }

    fn phase(&self, phase: &Phase) {
        self.board.phase(phase);
        if self.style.json {
            if self.style.detail >= Detail::Milestones {
                let (name, reason) = describe(phase);
                let mut event = self.event("phase");
                event["phase"] = name.into();
                if let Phase::InSync { sequence } = phase {
                    event["sequence"] = (*sequence).into();
                }
                if let Some(reason) = reason {
                    event["reason"] = reason.into();
                }
                self.printer.line(event.to_string());
            }
            if matches!(phase, Phase::InSync { .. }) {
                self.was_in_sync.store(true, Ordering::Relaxed);
            }
            return;
        }
        match phase {
            Phase::InSync { sequence } => self.tell_in_sync(*sequence),
            Phase::Waiting { error, seconds } => {
                let mut last = self.last_wait.lock().unwrap_or_else(PoisonError::into_inner);
                if last.as_ref() != Some(error) {
                    let again = match seconds {
                        0 => String::new(),
                        seconds => format!("; trying again in {seconds} s"),
                    };
                    self.printer.note(format!("{}: {error}{again}", self.label));
                    *last = Some(error.clone());
                }
            }
            Phase::Held { text, .. } => self.printer.note(format!("{}: {text}", self.label)),
            // The sender returns this error, too, and who called it tells.
            Phase::Halted { .. } => {}
            Phase::Paused => self.say("paused"),
            Phase::Scanning | Phase::Connecting | Phase::Comparing | Phase::Sending | Phase::Queued => {
                if self.style.detail == Detail::All {
                    self.say(describe(phase).0);
                }
            }
        }
    }

    fn counters(&self, counters: &SendCounters) {
        self.board.counters(counters);
    }

    fn applied(&self, verb: &'static str, path: &str) {
        self.board.applied(verb, path);
        let told = match self.style.detail {
            Detail::Quiet | Detail::Milestones => false,
            Detail::Changes => self.was_in_sync.load(Ordering::Relaxed),
            Detail::All => true,
        };
        if !told {
            return;
        }
        if self.style.json {
            let mut event = self.event("applied");
            (event["verb"], event["path"]) = (verb.into(), path.into());
            self.printer.line(event.to_string());
        } else {
            self.say(&format!("{verb}  {path}"));
        }
    }

    fn wants_all_changes(&self) -> bool {
        self.style.detail == Detail::All
    }

    fn warning(&self, text: &str) {
        self.board.warning(text);
        self.printer.note(format!("{}: {text}", self.label));
    }
}

/// What lines about a sender begin with.
fn labelled(mirror: Option<&str>, target: &str) -> String {
    mirror.map_or_else(|| target.to_owned(), |mirror| format!("{mirror} to {target}"))
}

/// Whether somebody wanted a run to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stopped {
    /// Nobody.
    No,
    /// The user, by a signal.
    ByUser,
    /// The time was up.
    ByTime,
}

impl Stopped {
    /// By whom.
    pub(super) fn by(stop: &Stop, deadline: &Deadline) -> Stopped {
        match (deadline.has_passed(), stop.is_requested()) {
            (true, _) => Stopped::ByTime,
            (false, true) => Stopped::ByUser,
            (false, false) => Stopped::No,
        }
    }
}

/// How a sender ended, for the user; gives the exit status.
pub(super) fn conclude(
    target: &str,
    outcome: Result<Summary, CliError>,
    time: Duration,
    style: Style,
    stopped: Stopped,
) -> Result<u8, CliError> {
    conclude_named(None, target, outcome, time, style, stopped)
}

/// The same for a mirror that may have a name.
pub(super) fn conclude_named(
    mirror: Option<&str>,
    target: &str,
    outcome: Result<Summary, CliError>,
    time: Duration,
    style: Style,
    stopped: Stopped,
) -> Result<u8, CliError> {
    let summary = outcome?;
    let status = match (exit_status(&summary), stopped) {
        (FAILED, Stopped::ByTime) => TIMED_OUT,
        (status, _) => status,
    };
    if style.json {
        let mut event = json!({"version": STATUS_VERSION, "event": "summary", "target": target, "status": status,
            "seconds": time.as_secs_f64()});
        if let Some(mirror) = mirror {
            event["mirror"] = mirror.into();
        }
        if let (Some(event), Ok(serde_json::Value::Object(fields))) =
            (event.as_object_mut(), serde_json::to_value(&summary))
        {
            event.extend(fields);
        }
        output::json(&event);
        return Ok(status);
    }
    if style.detail >= Detail::Milestones && (summary.in_sync || !style.follow) {
        output::line(&sentence(&labelled(mirror, target), &summary, time));
    }
    for entry in &summary.failed {
        output::note(&format!("failed  {}  {}", entry.path, entry.error));
    }
    if !summary.in_sync {
        let why = match stopped {
            Stopped::No => "it ended before",
            Stopped::ByUser => "it was stopped before",
            Stopped::ByTime => "its time was up before",
        };
        output::note(&format!(
            "{} is not in sync: {why} everything was sent (the next run goes on from there)",
            labelled(mirror, target)
        ));
    }
    Ok(status)
}

fn exit_status(summary: &Summary) -> u8 {
    let in_error =
        !summary.failed.is_empty() || summary.counters.failed > 0 || summary.counters.unreadable > 0;
    match (summary.in_sync, in_error) {
        (true, false) => DONE,
        (true, true) => SOME_FAILED,
        (false, _) => FAILED,
    }
}

fn sentence(target: &str, summary: &Summary, time: Duration) -> String {
    let counters = &summary.counters;
    let state = match (summary.in_sync, exit_status(summary)) {
        (true, DONE) => "in sync",
        (true, _) => "in sync but for what is in error",
        (false, _) => "not in sync",
    };
    let entries = text::count(counters.entries, "entry", "entries");
    let files = text::count(counters.files_sent, "file", "files");
    let (content, time) = (text::bytes(counters.content_bytes), text::span(time));
    let (out, back) = (
        text::bytes(counters.wire_bytes_sent),
        text::bytes(counters.wire_bytes_received),
    );
    let mut line = format!(
        "{target}: {state}, {entries}; {files} sent with {content} of content, {out} out and {back} back on the wire, in {time}"
    );
    for (number, what) in [
        (counters.extras_kept, "extra kept"),
        (counters.failed, "failed"),
        (counters.unreadable, "unreadable"),
        (
            counters.skipped,
            "skipped (sockets, and devices and links that are left out)",
        ),
        (
            counters.foreign_xattrs,
            "with extended attributes that are not carried",
        ),
        (counters.excluded, "excluded"),
    ] {
        if number > 0 {
            line.push_str(&format!(", {} {what}", text::grouped(number)));
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_0_means_in_sync_without_any_error() {
        let counters = SendCounters::default();
        let fine = Summary {
            in_sync: true,
            ..Summary::default()
        };
        assert_eq!(exit_status(&fine), DONE);
        assert_eq!(exit_status(&Summary::default()), FAILED);
        let unreadable = Summary {
            counters: SendCounters {
                unreadable: 1,
                ..counters
            },
            ..fine.clone()
        };
        assert_eq!(exit_status(&unreadable), SOME_FAILED);
        let failed = vec![FailedEntry {
            path: "a".to_owned(),
            error: "denied".to_owned(),
        }];
        assert_eq!(
            exit_status(&Summary {
                failed: failed.clone(),
                ..fine
            }),
            SOME_FAILED
        );
        assert_eq!(
            exit_status(&Summary {
                failed,
                ..Summary::default()
            }),
            FAILED
        );
    }

    #[test]
    fn what_is_in_error_is_not_in_sync() {
        let mut summary = Summary {
            in_sync: true,
            ..Summary::default()
        };
        summary.counters.failed = 2;
        let told = sentence("nas::m", &summary, Duration::from_secs(1));
        assert!(
            told.starts_with("nas::m: in sync but for what is in error, ") && told.ends_with(", 2 failed")
        );
    }

    #[test]
    fn the_summary_says_what_was_done() {
        let counters = SendCounters {
            entries: 1234,
            files_sent: 1,
            content_bytes: 2_000_000,
            wire_bytes_sent: 1500,
            extras_kept: 214,
            ..SendCounters::default()
        };
        let summary = Summary {
            counters,
            in_sync: true,
            ..Summary::default()
        };
        assert_eq!(
            sentence("nas::m", &summary, Duration::from_millis(810)),
            "nas::m: in sync, 1,234 entries; 1 file sent with 2.0 MB of content, 1.5 kB out and 0 B back on the wire, \
             in 0.81 s, 214 extra kept"
        );
    }
}
