//! What happened, in a line each.

use super::row::{Tone, visible};
use crate::cli::text::{bytes, count, grouped};
use crate::daemon::events::{AppliedChange, Event, What};
use jiff::tz::TimeZone;

/// A line of the list of what happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    /// The time of day.
    pub(super) time: String,
    /// To what.
    pub(super) about: String,
    pub(super) tone: Tone,
    pub(super) text: String,
}

/// The lines that an event is worth; the phases stand in the table.
pub(super) fn changes(event: &Event, zone: &TimeZone) -> Vec<Change> {
    let about = match (&event.of, &event.what) {
        (Some(of), _) => format!("{} to {}", of.mirror.as_ref().unwrap_or(&of.source), of.target),
        (None, What::SenderConnected { module, .. } | What::SenderDisconnected { module, .. }) => {
            format!("module {module}")
        }
        _ => String::new(),
    };
    let told = said(&event.what).into_iter().map(|(tone, text)| Change {
        time: time_of_day(event.at_ms / 1_000, zone),
        about: visible(&about),
        tone,
        text: visible(&text),
    });
    told.collect()
}

/// The time of day of a moment in unix seconds.
pub(super) fn time_of_day(seconds: u64, zone: &TimeZone) -> String {
    let moment = jiff::Timestamp::from_second(i64::try_from(seconds).unwrap_or(0)).unwrap_or_default();
    moment.to_zoned(zone.clone()).strftime("%H:%M:%S").to_string()
}

fn said(what: &What) -> Vec<(Tone, String)> {
    let one = |tone, text: String| vec![(tone, text)];
    let because = |reason: &Option<String>| {
        reason
            .as_ref()
            .map_or_else(String::new, |reason| format!(": {reason}"))
    };
    match what {
        What::Batch { applied, changes } => batch(*applied, changes),
        What::InSync { .. } => one(Tone::Good, "in sync".to_owned()),
        What::Connected => one(Tone::Plain, "connected".to_owned()),
        What::Disconnected { reason } => one(Tone::Warning, format!("disconnected{}", because(reason))),
        What::Error { path, error } => one(Tone::Bad, format!("error: {path}: {error}")),
        What::Recovered { path } => one(Tone::Good, format!("no error any more: {path}")),
        What::Held { deletions } => one(
            Tone::Bad,
            format!(
                "held back: {} (a approves)",
                count(*deletions, "deletion", "deletions")
            ),
        ),
        What::Drift => one(
            Tone::Warning,
            "the trees differ; they are compared again".to_owned(),
        ),
        What::Checkpoint(checkpoint) => one(Tone::Good, format!("passed checkpoint {}", checkpoint.name)),
        What::Warning { text } => one(Tone::Warning, text.clone()),
        What::Ended { error } => one(
            if error.is_some() { Tone::Bad } else { Tone::Plain },
            format!("ended{}", because(error)),
        ),
        What::SenderConnected { peer, .. } => one(Tone::Plain, format!("{peer} connected")),
        What::SenderDisconnected { peer, .. } => one(Tone::Plain, format!("{peer} disconnected")),
        What::Lost { events } => one(
            Tone::Warning,
            format!("{} missed here", count(*events, "event was", "events were")),
        ),
        _ => Vec::new(),
    }
}

fn batch(applied: u64, changes: &[AppliedChange]) -> Vec<(Tone, String)> {
    let mut lines: Vec<_> = changes
        .iter()
        .map(|change| {
            let size = change
                .bytes
                .map_or_else(String::new, |size| format!(" ({})", bytes(size)));
            (Tone::Plain, format!("{} {}{size}", change.verb, change.path))
        })
        .collect();
    let unnamed = applied.saturating_sub(changes.len() as u64);
    if unnamed > 0 {
        let more = if changes.is_empty() { "" } else { " more" };
        let noun = if unnamed == 1 { "change" } else { "changes" };
        lines.push((Tone::Plain, format!("{}{more} {noun}", grouped(unnamed))));
    }
    lines
}
