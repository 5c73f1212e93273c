//! Metrics in Prometheus' text format, made from the status when they are asked for: nothing is counted twice, and nothing
//! at all while nobody asks.
//!
//! Format: <https://prometheus.io/docs/instrumenting/exposition_formats/>, version 0.0.4. Names follow its rules for
//! naming: a prefix, base units (seconds, bytes), `_total` for what only grows. Lag comes first, because it is what matters.

mod server;

pub use server::MetricsServer;

use super::status::{DaemonStatus, ReceiverStatus, SenderStatus};
use std::fmt::Write;

/// The media type of [`render`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a number is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Gauge,
    Counter,
}

/// A metric of a sender.
struct SenderMetric {
    name: &'static str,
    kind: Type,
    help: &'static str,
    value: fn(&SenderStatus) -> Option<f64>,
}

/// A metric of one sender that is connected to a receiver here.
struct SessionMetric {
    name: &'static str,
    kind: Type,
    help: &'static str,
    value: fn(&super::status::SessionReport) -> f64,
}

fn counter(status: &SenderStatus, name: &str) -> f64 {
    status.counters.get(name).copied().unwrap_or(0) as f64
}

fn flag(holds: bool) -> f64 {
    if holds { 1.0 } else { 0.0 }
}

const SENDER: &[SenderMetric] = &[
    SenderMetric {
        name: "driftless_lag_seconds",
        kind: Type::Gauge,
        help: "Age of the oldest change that is not on the target; 0 if all are",
        value: |status| Some(status.behind.oldest_ms.unwrap_or(0) as f64 / 1_000.0),
    },
    SenderMetric {
        name: "driftless_in_sync",
        kind: Type::Gauge,
        help: "1 if both trees were equal, durably, when the sender last looked",
        value: |status| Some(flag(status.phase == "in-sync")),
    },
    SenderMetric {
        name: "driftless_last_in_sync_timestamp_seconds",
        kind: Type::Gauge,
        help: "When both trees were last equal, durably; absent before the first time in this run",
        value: |status| status.in_sync_at.map(|at| at.at as f64),
    },
    SenderMetric {
        name: "driftless_connected",
        kind: Type::Gauge,
        help: "1 if the sender has a connection",
        value: |status| Some(flag(status.connected)),
    },
    SenderMetric {
        name: "driftless_paused",
        kind: Type::Gauge,
        help: "1 if somebody paused or stopped the mirror",
        value: |status| Some(flag(matches!(status.phase.as_str(), "paused" | "stopped"))),
    },
    SenderMetric {
        name: "driftless_halted",
        kind: Type::Gauge,
        help: "1 if the sender gave up until somebody decides",
        value: |status| Some(flag(matches!(status.phase.as_str(), "halted" | "ended"))),
    },
    SenderMetric {
        name: "driftless_backlog_entries",
        kind: Type::Gauge,
        help: "Entries that have to be put, removed or looked at",
        value: |status| Some(status.behind.entries as f64),
    },
    SenderMetric {
        name: "driftless_backlog_bytes",
        kind: Type::Gauge,
        help: "Content that has to be read for them, as far as known",
        value: |status| Some(status.behind.bytes as f64),
    },
    SenderMetric {
        name: "driftless_ops_in_flight",
        kind: Type::Gauge,
        help: "Ops that were sent and have not ended",
        value: |status| Some(status.behind.in_flight as f64),
    },
    SenderMetric {
        name: "driftless_failed_entries",
        kind: Type::Gauge,
        help: "Entries in error, which are tried again",
        value: |status| Some(counter(status, "failed")),
    },
    SenderMetric {
        name: "driftless_held_deletions",
        kind: Type::Gauge,
        help: "Deletions that wait for approval",
        value: |status| Some(status.held.unwrap_or(0) as f64),
    },
    SenderMetric {
        name: "driftless_guards_given_up",
        kind: Type::Gauge,
        help: "Guards of the target that its options give up",
        value: |status| Some(status.protections.iter().filter(|guard| !guard.holds).count() as f64),
    },
    SenderMetric {
        name: "driftless_watch_degradations",
        kind: Type::Gauge,
        help: "Parts of the source that are watched less well than they could be",
        value: |status| {
            status
                .watcher
                .as_ref()
                .map(|watcher| watcher.degradations.len() as f64)
        },
    },
    SenderMetric {
        name: "driftless_source_entries",
        kind: Type::Gauge,
        help: "Entries of the source when it was last walked",
        value: |status| Some(counter(status, "entries")),
    },
    SenderMetric {
        name: "driftless_ops_total",
        kind: Type::Counter,
        help: "Ops that ended",
        value: |status| Some(counter(status, "ops_done")),
    },
    SenderMetric {
        name: "driftless_files_sent_total",
        kind: Type::Counter,
        help: "Files whose content was sent or offered",
        value: |status| Some(counter(status, "files_sent")),
    },
    SenderMetric {
        name: "driftless_content_read_bytes_total",
        kind: Type::Counter,
        help: "Content that was read for the target",
        value: |status| Some(counter(status, "content_bytes")),
    },
    SenderMetric {
        name: "driftless_wire_sent_bytes_total",
        kind: Type::Counter,
        help: "UDP payload sent",
        value: |status| Some(counter(status, "wire_bytes_sent")),
    },
    SenderMetric {
        name: "driftless_wire_received_bytes_total",
        kind: Type::Counter,
        help: "UDP payload received",
        value: |status| Some(counter(status, "wire_bytes_received")),
    },
    SenderMetric {
        name: "driftless_rescans_total",
        kind: Type::Counter,
        help: "How often the whole tree was walked again because events were lost",
        value: |status| Some(counter(status, "rescans")),
    },
];

const SESSION: &[SessionMetric] = &[
    SessionMetric {
        name: "driftless_receiver_applied_ops_total",
        kind: Type::Counter,
        help: "Ops that this connection had applied here",
        value: |session| session.applied as f64,
    },
    SessionMetric {
        name: "driftless_receiver_failed_ops_total",
        kind: Type::Counter,
        help: "Ops of this connection that failed here",
        value: |session| session.failed as f64,
    },
    SessionMetric {
        name: "driftless_receiver_written_bytes_total",
        kind: Type::Counter,
        help: "Content that this connection had written here",
        value: |session| session.bytes as f64,
    },
];

/// A metric of the scrub of one module path.
struct ScrubMetric {
    name: &'static str,
    kind: Type,
    help: &'static str,
    value: fn(&super::upkeep::ScrubReport) -> Option<f64>,
}

const SCRUB: &[ScrubMetric] = &[
    ScrubMetric {
        name: "driftless_receiver_corrupt_files_total",
        kind: Type::Counter,
        help: "Files whose content was found rotten or unreadable",
        value: |scrub| Some(scrub.corrupt as f64),
    },
    ScrubMetric {
        name: "driftless_receiver_edited_files_total",
        kind: Type::Counter,
        help: "Files that the scrub found changed by somebody else",
        value: |scrub| Some(scrub.edited as f64),
    },
    ScrubMetric {
        name: "driftless_receiver_scrub_read_bytes",
        kind: Type::Gauge,
        help: "Content that was read in the present round",
        value: |scrub| Some(scrub.bytes as f64),
    },
    ScrubMetric {
        name: "driftless_receiver_scrub_finished_timestamp_seconds",
        kind: Type::Gauge,
        help: "When the last complete round ended; absent before the first",
        value: |scrub| scrub.finished.map(|at| at as f64),
    },
];

/// The metrics of all daemons of this process.
pub fn render(daemons: &[DaemonStatus]) -> String {
    let mut text = String::new();
    let senders: Vec<&SenderStatus> = daemons
        .iter()
        .filter_map(|daemon| match daemon {
            DaemonStatus::Sender(sender) => Some(&**sender),
            DaemonStatus::Receiver(_) => None,
        })
        .collect();
    for metric in SENDER {
        let values = senders
            .iter()
            .filter_map(|status| Some((sender_labels(status), (metric.value)(status)?)));
        family(&mut text, metric.name, metric.kind, metric.help, values);
    }
    let receivers: Vec<&ReceiverStatus> = daemons
        .iter()
        .filter_map(|daemon| match daemon {
            DaemonStatus::Receiver(receiver) => Some(receiver),
            DaemonStatus::Sender(_) => None,
        })
        .collect();
    let modules = || receivers.iter().flat_map(|receiver| &receiver.modules);
    let connections =
        modules().map(|module| (labels(&[("module", &module.name)]), module.sessions.len() as f64));
    let help = "Senders that are connected to a module here";
    family(
        &mut text,
        "driftless_receiver_connections",
        Type::Gauge,
        help,
        connections,
    );
    for metric in SESSION {
        let values = modules().flat_map(|module| {
            module.sessions.iter().map(|session| {
                let labels = labels(&[
                    ("module", &module.name),
                    ("path", &session.path),
                    ("peer", &session.peer),
                ]);
                (labels, (metric.value)(session))
            })
        });
        family(&mut text, metric.name, metric.kind, metric.help, values);
    }
    for metric in SCRUB {
        let values = modules().flat_map(|module| {
            module.scrubs.iter().filter_map(|scrub| {
                let labels = labels(&[("module", &module.name), ("path", &scrub.path)]);
                Some((labels, (metric.value)(scrub)?))
            })
        });
        family(&mut text, metric.name, metric.kind, metric.help, values);
    }
    let edits = modules().flat_map(|module| {
        let label = |path| labels(&[("module", &module.name), ("path", path)]);
        module
            .drift
            .iter()
            .map(move |drift| (label(&drift.path), drift.edits as f64))
    });
    let help = "Local edits that were seen in a module path that is watched";
    family(
        &mut text,
        "driftless_receiver_local_edits_total",
        Type::Counter,
        help,
        edits,
    );
    let build = labels(&[("version", env!("CARGO_PKG_VERSION"))]);
    let help = "Always 1; the version is in the label";
    family(
        &mut text,
        "driftless_build_info",
        Type::Gauge,
        help,
        [(build, 1.0)],
    );
    process(&mut text);
    text
}

fn sender_labels(status: &SenderStatus) -> String {
    let mirror = status.mirror.as_ref().unwrap_or(&status.source);
    labels(&[
        ("mirror", mirror),
        ("source", &status.source),
        ("target", &status.target),
    ])
}

/// What every Prometheus client tells of its process, under the names that all use.
fn process(text: &mut String) {
    let none = String::new;
    let since = super::status::process_start() as f64;
    let help = "When the process started";
    family(
        text,
        "process_start_time_seconds",
        Type::Gauge,
        help,
        [(none(), since)],
    );
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|text| text.split_whitespace().nth(1)?.parse::<f64>().ok());
    let bytes = pages.map(|pages| pages * rustix::param::page_size() as f64);
    let help = "Resident memory";
    family(
        text,
        "process_resident_memory_bytes",
        Type::Gauge,
        help,
        bytes.map(|bytes| (none(), bytes)),
    );
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let seconds = used.tv_sec as f64 + used.tv_nsec as f64 / 1e9;
    let help = "Processor time used";
    family(
        text,
        "process_cpu_seconds_total",
        Type::Counter,
        help,
        [(none(), seconds)],
    );
}

/// Writes all samples of one metric; nothing if there are none.
fn family(
    text: &mut String,
    name: &str,
    kind: Type,
    help: &str,
    samples: impl IntoIterator<Item = (String, f64)>,
) {
    let mut samples = samples.into_iter().peekable();
    if samples.peek().is_none() {
        return;
    }
    let kind = match kind {
        Type::Gauge => "gauge",
        Type::Counter => "counter",
    };
    // Writing to a string does not fail.
    let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    for (labels, value) in samples {
        let _ = writeln!(text, "{name}{labels} {value}");
    }
}

fn labels(pairs: &[(&str, &str)]) -> String {
    let mut text = String::from("{");
    for (at, (name, value)) in pairs.iter().enumerate() {
        if at > 0 {
            text.push(',');
        }
        let value = value
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', "\\n");
        let _ = write!(text, "{name}=\"{value}\"");
    }
    text.push('}');
    text
}

#[cfg(test)]
mod tests;
