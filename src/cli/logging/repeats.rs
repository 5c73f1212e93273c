//! The same line again and again: after some in a minute the rest is counted, and told in one line.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tracing::callsite::Identifier;
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// So many of a line within [`WINDOW`] are written.
pub(super) const REPEATS_MAX: u32 = 10;
const WINDOW: Duration = Duration::from_secs(60);
/// Lines that are told apart; more are all written.
const LINES_MAX: usize = 4_096;
/// What is told of repeats is no repeat itself, and a change that is audited is one of its own.
const EXEMPT: [&str; 2] = ["driftless::repeats", "driftless::audit"];

/// Leaves out what is repeated.
#[derive(Debug, Default)]
pub(super) struct Repeats(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    /// When the present window began.
    since: Option<Instant>,
    /// How often a line came, by its place in the program and its text.
    seen: HashMap<(Identifier, u64), (u32, String)>,
}

impl Counts {
    /// Whether a line is to be written; and what is to be told of a window that is over.
    fn note(&mut self, now: Instant, place: Identifier, text: &str) -> (bool, Vec<(u32, String)>) {
        let mut told = Vec::new();
        let is_over = |since: Instant| now.saturating_duration_since(since) >= WINDOW;
        if self.since.is_none_or(is_over) {
            self.since = Some(now);
            let seen = std::mem::take(&mut self.seen).into_values();
            told.extend(seen.filter_map(|(count, text)| {
                let more = count.checked_sub(REPEATS_MAX).filter(|more| *more > 0)?;
                Some((more, text))
            }));
        }
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let key = (place, hasher.finish());
        if self.seen.len() >= LINES_MAX && !self.seen.contains_key(&key) {
            return (true, told);
        }
        let (count, known) = self.seen.entry(key).or_default();
        *count = count.saturating_add(1);
        if *count > REPEATS_MAX && known.is_empty() {
            text.clone_into(known);
        }
        (*count <= REPEATS_MAX, told)
    }
}

impl<S: Subscriber> Layer<S> for Repeats {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let meta = event.metadata();
        if EXEMPT.contains(&meta.target()) {
            return true;
        }
        let (_, text) = super::line_of(event);
        let (is_written, told) = {
            let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            counts.note(Instant::now(), meta.callsite(), &text)
        };
        for (more, text) in told {
            tracing::warn!(target: "driftless::repeats", "{more} more times within a minute: {text}");
        }
        is_written
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::Callsite;

    struct Place;
    impl Callsite for Place {
        fn set_interest(&self, _: tracing::subscriber::Interest) {}
        fn metadata(&self) -> &tracing::Metadata<'_> {
            unreachable!("nobody asks")
        }
    }
    static PLACE: Place = Place;

    #[test]
    fn repeats_are_counted_and_told_when_their_minute_is_over() {
        let (start, place) = (Instant::now(), || Identifier(&PLACE));
        let mut counts = Counts::default();
        for round in 0..REPEATS_MAX + 5 {
            assert_eq!(
                counts.note(start, place(), "again"),
                (round < REPEATS_MAX, Vec::new())
            );
        }
        // Another text is another line.
        assert!(counts.note(start, place(), "once").0);
        let told = counts.note(start + WINDOW, place(), "again");
        assert_eq!(told, (true, vec![(5, "again".to_owned())]));
        assert_eq!(
            counts.note(start + 2 * WINDOW, place(), "again"),
            (true, Vec::new())
        );
    }
}
