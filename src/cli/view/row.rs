//! The lines of the table: what there is to see of each mirror and target, and of each module.

use super::rates::{Counted, Rate, Rates};
use crate::cli::status::{keeping_lines, module_state, publish_lines, sender_lines, session_lines};
use crate::cli::text::{bytes, grouped, span};
use crate::daemon::status::{DaemonStatus, ModuleStatus, ReceiverStatus, SenderStatus, SessionReport};
use std::fmt::Write;
use std::time::Duration;

/// What a text means, for its colour. The words say it, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    /// Nothing in particular.
    Plain,
    /// As it should be.
    Good,
    /// On its way there.
    Busy,
    /// Not as it should be, but it goes on by itself.
    Warning,
    /// Somebody has to do something.
    Bad,
    /// Not wanted for now.
    Quiet,
}

/// What tells lines apart from one look to the next.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pid: u32,
    one: String,
    other: String,
}

/// A mirror and target that orders can be given for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subject {
    /// What the configuration calls the mirror.
    pub(super) mirror: Option<String>,
    /// The tree.
    pub(super) source: String,
    /// Where to.
    pub(super) target: String,
}

impl Subject {
    /// For people.
    pub(super) fn shown(&self) -> String {
        format!(
            "{} to {}",
            self.mirror.as_ref().unwrap_or(&self.source),
            self.target
        )
    }
}

/// One line, and what is told when it is selected.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) key: Key,
    /// The mirror, or the module.
    pub(super) name: String,
    /// The target, or who sends.
    pub(super) other: String,
    pub(super) state: String,
    pub(super) tone: Tone,
    /// Why it waits or is halted.
    pub(super) reason: Option<String>,
    pub(super) lag: String,
    pub(super) to_go: String,
    pub(super) rate: String,
    /// Entries in error.
    pub(super) failed: u64,
    pub(super) title: String,
    pub(super) details: Vec<(Tone, String)>,
    /// Of a sender.
    pub(super) subject: Option<Subject>,
    /// Deletions that wait for approval.
    pub(super) held: Option<u64>,
}

/// The lines of all daemons: mirrors by name, then modules.
pub(super) fn rows(daemons: &[DaemonStatus], rates: &Rates, now: u64) -> Vec<Row> {
    let mut rows = Vec::new();
    for daemon in daemons {
        match daemon {
            DaemonStatus::Sender(sender) => rows.push(sender_row(sender, rates, now)),
            DaemonStatus::Receiver(receiver) => {
                for module in &receiver.modules {
                    rows.extend(module_rows(receiver, module, rates, now));
                }
            }
        }
    }
    rows.sort_by(|a, b| {
        let order = |row: &Row| (row.subject.is_none(), row.name.clone(), row.other.clone());
        order(a).cmp(&order(b))
    });
    rows
}

fn sender_key(sender: &SenderStatus) -> Key {
    Key {
        pid: sender.pid,
        one: format!(
            "{}\n{}",
            sender.mirror.as_deref().unwrap_or_default(),
            sender.source
        ),
        other: sender.target.clone(),
    }
}

fn session_key(receiver: &ReceiverStatus, module: &ModuleStatus, session: Option<&SessionReport>) -> Key {
    let other = session.map_or_else(String::new, |session| {
        format!("{}\n{}", session.peer, session.path)
    });
    Key {
        pid: receiver.pid,
        one: module.name.clone(),
        other,
    }
}

/// The counters of everything that has any.
pub(super) fn counted(daemons: &[DaemonStatus]) -> Vec<(Key, Counted)> {
    let mut found = Vec::new();
    for daemon in daemons {
        match daemon {
            DaemonStatus::Sender(sender) => {
                let counter = |name: &str| sender.counters.get(name).copied().unwrap_or_default();
                let counted = Counted {
                    ops: counter("ops_done"),
                    bytes: counter("content_bytes"),
                };
                found.push((sender_key(sender), counted));
            }
            DaemonStatus::Receiver(receiver) => {
                for module in &receiver.modules {
                    for session in &module.sessions {
                        let counted = Counted {
                            ops: session.applied,
                            bytes: session.bytes,
                        };
                        found.push((session_key(receiver, module, Some(session)), counted));
                    }
                }
            }
        }
    }
    found
}

fn sender_row(sender: &SenderStatus, rates: &Rates, now: u64) -> Row {
    let key = sender_key(sender);
    let subject = Subject {
        mirror: sender.mirror.clone(),
        source: sender.source.clone(),
        target: sender.target.clone(),
    };
    let failed = sender.counters.get("failed").copied().unwrap_or_default();
    // Who it is stands in the title already.
    let details = sender_lines(sender, now).into_iter().skip(2);
    Row {
        name: visible(sender.mirror.as_ref().unwrap_or(&sender.source)),
        other: visible(&sender.target),
        state: state(&sender.phase),
        tone: tone(&sender.phase),
        reason: sender.reason.as_deref().map(visible),
        lag: lag(sender),
        to_go: to_go(sender),
        rate: rates.of(&key).map_or_else(String::new, described),
        failed,
        title: format!("{} to {}", visible(&sender.source), visible(&sender.target)),
        details: details.map(toned).collect(),
        subject: Some(subject),
        held: sender.held,
        key,
    }
}

fn module_rows(receiver: &ReceiverStatus, module: &ModuleStatus, rates: &Rates, now: u64) -> Vec<Row> {
    let row = |session: Option<&SessionReport>| {
        let key = session_key(receiver, module, session);
        let mut lines = match session {
            Some(session) => session_lines(session, now),
            None => vec![format!("in {}{}", module.path, module_state(module, now))],
        };
        lines.extend(publish_lines(&module.publishing, now));
        lines.extend(keeping_lines(&module.keeping));
        let place = match session {
            Some(session) if session.path != "." => format!("/{}", session.path),
            _ => String::new(),
        };
        Row {
            name: visible(&format!("module {}{place}", module.name)),
            other: session.map_or_else(String::new, |session| {
                visible(&format!("from {}", session.source))
            }),
            state: match (session, module.promoted_since) {
                (_, Some(_)) => "promoted",
                (Some(_), None) => "receiving",
                (None, None) => "idle",
            }
            .to_owned(),
            reason: None,
            tone: if session.is_some() {
                Tone::Good
            } else {
                Tone::Quiet
            },
            lag: String::new(),
            to_go: String::new(),
            rate: rates.of(&key).map_or_else(String::new, described),
            failed: session.map_or(0, |session| session.failed),
            title: visible(&match receiver.address {
                Some(address) => format!("module {} in {}, on {address}", module.name, module.path),
                None => format!("module {} in {}", module.name, module.path),
            }),
            details: lines.into_iter().map(toned).collect(),
            subject: None,
            held: None,
            key,
        }
    };
    match module.sessions.as_slice() {
        [] => vec![row(None)],
        sessions => sessions.iter().map(|session| row(Some(session))).collect(),
    }
}

/// A phase for people.
pub(super) fn state(phase: &str) -> String {
    match phase {
        "in-sync" => "in sync".to_owned(),
        other => visible(other),
    }
}

/// What a phase means.
pub(super) fn tone(phase: &str) -> Tone {
    match phase {
        "in-sync" => Tone::Good,
        "waiting" => Tone::Warning,
        "held" | "halted" | "ended" => Tone::Bad,
        "paused" | "stopped" => Tone::Quiet,
        _ => Tone::Busy,
    }
}

fn lag(sender: &SenderStatus) -> String {
    let oldest = sender.behind.oldest_ms;
    oldest.map_or_else(String::new, |oldest| span(Duration::from_millis(oldest)))
}

fn to_go(sender: &SenderStatus) -> String {
    match (sender.behind.entries, sender.behind.bytes) {
        (0, _) => String::new(),
        (entries, 0) => grouped(entries),
        (entries, content) => format!("{}, {}", grouped(entries), bytes(content)),
    }
}

/// Bytes a second; changes a second where there is no content.
pub(super) fn described(rate: Rate) -> String {
    let round = |number: f64| number.round().clamp(0.0, u64::MAX as f64) as u64;
    match (round(rate.bytes), round(rate.ops)) {
        (0, 0) => String::new(),
        (0, ops) => format!("{} ops/s", grouped(ops)),
        (content, _) => format!("{}/s", bytes(content)),
    }
}

fn toned(line: String) -> (Tone, String) {
    let is_bad = ["last error", "guard given up"]
        .iter()
        .any(|start| line.trim_start().starts_with(start));
    (if is_bad { Tone::Warning } else { Tone::Plain }, visible(&line))
}

/// A text without anything that a terminal obeys. What daemons tell is escaped already; this does not rely on it.
pub(super) fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_whitespace() {
            // Some reasons have more than one line.
            out.push(' ');
        } else if c.is_control() || driftless_protocol::name::is_bidirectional(c) {
            let mut buffer = [0; 4];
            for byte in c.encode_utf8(&mut buffer).bytes() {
                // Writing into a string cannot fail.
                let _ = write!(out, "\\x{byte:02x}");
            }
        } else {
            out.push(c);
        }
    }
    out
}
