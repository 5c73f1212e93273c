//! An observer that also tells the hooks of its mirror and target.

use crate::cli::narrate::Narrator;
use crate::daemon::barrier::Checkpoint;
use crate::daemon::events::AppliedChange;
use crate::daemon::hooks::{Occasion, SenderHooks};
use crate::daemon::{Backlog, FailedEntry, Observer, Phase, SendCounters};
use crossbeam_channel::Receiver;
use std::sync::{Arc, Mutex, PoisonError};

pub(in crate::cli) struct Hooked {
    narrator: Arc<Narrator>,
    hooks: SenderHooks,
    failed: Mutex<Vec<FailedEntry>>,
}

impl Hooked {
    pub(in crate::cli) fn new(narrator: Arc<Narrator>, hooks: SenderHooks) -> Hooked {
        Hooked {
            narrator,
            hooks,
            failed: Mutex::default(),
        }
    }

    /// Lets the hooks run that were told of something, and waits for them.
    pub(in crate::cli) fn finish(self) {
        self.hooks.finish();
    }

    /// Something is wrong with the mirror as a whole.
    fn tell_trouble(&self, error: &str) {
        let (path, error) = (String::new(), error.to_owned());
        self.hooks.handle_errors(&[FailedEntry { path, error }]);
    }
}

impl Observer for Hooked {
    fn phase(&self, phase: &Phase) {
        self.narrator.phase(phase);
        match phase {
            Phase::InSync { sequence } => self.hooks.handle_in_sync(*sequence),
            Phase::Held { text, .. } => self.tell_trouble(text),
            Phase::Halted { error } => self.tell_trouble(error),
            _ => {}
        }
    }

    fn failed(&self, entries: &[FailedEntry]) {
        self.narrator.failed(entries);
        if self.hooks.has(Occasion::Error) {
            let mut known = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
            let new: Vec<_> = entries
                .iter()
                .filter(|entry| !known.contains(entry))
                .cloned()
                .collect();
            *known = entries.to_vec();
            drop(known);
            if !new.is_empty() {
                self.hooks.handle_errors(&new);
            }
        }
    }

    fn wants_all_changes(&self) -> bool {
        self.narrator.wants_all_changes() || self.hooks.has(Occasion::AfterBatch)
    }

    fn batch(&self, applied: u64, changes: &[AppliedChange]) {
        self.narrator.batch(applied, changes);
        self.hooks.handle_batch(changes);
    }

    fn before_batch(&self) -> Option<Receiver<()>> {
        self.hooks.handle_leaving()
    }

    fn counters(&self, counters: &SendCounters) {
        self.narrator.counters(counters);
    }

    fn backlog(&self, backlog: &Backlog) {
        self.narrator.backlog(backlog);
    }

    fn applied(&self, verb: &'static str, path: &str) {
        self.narrator.applied(verb, path);
    }

    fn drift(&self) {
        self.narrator.drift();
    }

    fn rescan(&self) {
        self.narrator.rescan();
    }

    fn watcher(&self, name: &str, degradations: &[String]) {
        self.narrator.watcher(name, degradations);
    }

    fn checkpoints(&self, checkpoints: &[Checkpoint]) {
        self.narrator.checkpoints(checkpoints);
    }

    fn warning(&self, text: &str) {
        self.narrator.warning(text);
    }
}
