//! How far the target is behind, for whoever asks.

use super::*;

/// How often it is told.
const TELL_EVERY: Duration = Duration::from_millis(500);

impl Session<'_, '_> {
    /// Tells how far the target is behind, if that is due.
    pub(super) fn tell_backlog(&mut self, now: bool) {
        if !now && self.last_backlog.elapsed() < TELL_EVERY {
            self.is_report_due = true;
            return;
        }
        self.last_backlog = Instant::now();
        // A database that cannot be read is found out, and told, by what needs it.
        if let Ok(backlog) = self.backlog() {
            self.context.observer.backlog(&backlog.0);
            self.context.backlog = backlog;
        }
    }

    fn backlog(&mut self) -> Result<(Backlog, u64), StoreError> {
        self.forget_settled()?;
        let is_removing = !self.removes.is_empty() || self.window.removals().next().is_some();
        self.removals_since = match is_removing {
            true => Some(self.removals_since.unwrap_or_else(Instant::now)),
            false => None,
        };
        let context = &self.context;
        let last = context.source.catalog.read(|view| view.last_sequence())?;
        let unread = last.saturating_sub(self.scanned);
        let next = (unread > 0)
            .then(|| context.ages.since(self.scanned + 1))
            .flatten();
        let waiting = context.ages.oldest().map(|(since, _)| since);
        let all = [waiting, next, context.pending.oldest(), self.removals_since];
        let counters = &context.counters;
        let is_in_sync = self.in_sync && context.is_calm();
        let backlog = Backlog {
            oldest: all.into_iter().flatten().min().filter(|_| !is_in_sync),
            entries: match is_in_sync {
                true => 0,
                false => {
                    let known = context.ages.waiting() + self.removes.len() + context.pending.len();
                    known as u64 + if next.is_some() { unread } else { 0 }
                }
            },
            bytes: counters
                .content_bytes_total
                .saturating_sub(counters.content_bytes),
            in_flight: self.window.len() as u64,
            sending: self
                .window
                .sending()
                .into_iter()
                .take(Backlog::SENDING_MAX)
                .map(|(_, object)| context.source.path_of(object))
                .collect(),
        };
        Ok((backlog, last))
    }

    /// What is first in the list of ages may be done without an op that told so: removed, or found unchanged.
    fn forget_settled(&mut self) -> Result<(), StoreError> {
        while let Some((_, object)) = self.context.ages.oldest() {
            if self.busy.contains(&object) {
                break;
            }
            let entry = self.context.source.catalog.read(|view| view.get(object))?;
            let is_open = |entry: &Entry| !matches!(work::next(entry, false), Next::Nothing);
            if !self.context.failed.contains_key(&object) && entry.as_ref().is_some_and(is_open) {
                break;
            }
            self.context.ages.handle_done(object);
        }
        Ok(())
    }
}

/// Tells how far the target is behind while there is no connection: what was left when it ended, and what came since.
pub fn tell_backlog_apart(context: &Context<'_>, told: &mut Option<Instant>) {
    let pending = context.pending.oldest();
    if told.is_some_and(|at| at.elapsed() < TELL_EVERY) {
        return;
    }
    *told = Some(Instant::now());
    let (left, sequence) = &context.backlog;
    let last = context
        .source
        .catalog
        .read(|view| view.last_sequence())
        .unwrap_or(*sequence);
    let since = context.ages.since(sequence + 1).filter(|_| last > *sequence);
    let backlog = Backlog {
        oldest: [left.oldest, pending, since].into_iter().flatten().min(),
        entries: left.entries + last.saturating_sub(*sequence) + context.pending.len() as u64,
        bytes: left.bytes,
        in_flight: 0,
        sending: Vec::new(),
    };
    context.observer.backlog(&backlog);
}
