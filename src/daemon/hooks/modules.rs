//! The hooks of modules, told by what happens in the process.

use super::run::Outliving;
use super::{Complain, GATHER, Hook, LOOK_EVERY, Occasion, Runner, Slots};
use crate::daemon::events::{
    self, AppliedChange, CHANGES_BYTES_MAX, CHANGES_NAMED_MAX, Event, Listening, What,
};
use crate::daemon::status::{STATUS_VERSION, TargetLabel};
use crate::daemon::{FailedEntry, Stop};
use serde_json::json;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Senders that one run is told.
const PEERS_MAX: usize = 1_000;

/// The hook of a module, at work. It is told what was done, and by whom. It runs at once, and then once in a second at most: a
/// sender decides how often something happens, and must not decide how many programs are started.
///
/// Dropping it ends it: it runs a last time if something happened that it was not told, and has a moment for that.
pub struct ModuleHook {
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

impl ModuleHook {
    /// Starts its thread, which listens to what happens in this process.
    pub fn start(hook: &Hook, module: &str, slots: &Arc<Slots>, complain: &Complain) -> ModuleHook {
        let stop = Stop::default();
        let runner = Runner {
            hook: hook.clone(),
            of: TargetLabel {
                mirror: None,
                source: String::new(),
                target: module.to_owned(),
            },
            slots: slots.clone(),
            complain: complain.clone(),
            stop: stop.clone(),
            lost: Arc::default(),
            outliving: Outliving::default(),
        };
        // From here on nothing is missed.
        let (on, module) = (hook.on, module.to_owned());
        let listening = events::listen_to(on == Occasion::AfterBatch, move |what| {
            occasion_in(&module, what) == Some(on)
        });
        let thread = std::thread::Builder::new()
            .name("hook".to_owned())
            .spawn(move || runner.follow(&listening));
        match thread {
            Ok(thread) => ModuleHook {
                stop,
                thread: Some(thread),
            },
            Err(error) => {
                complain(&format!("cannot start a thread for a hook: {error}"));
                ModuleHook { stop, thread: None }
            }
        }
    }

    /// Ends these, all at the same time.
    pub fn end_all(hooks: Vec<ModuleHook>) {
        for hook in &hooks {
            hook.stop.request();
        }
        drop(hooks);
    }
}

impl Drop for ModuleHook {
    fn drop(&mut self) {
        self.stop.request();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The hooks of a module that an event is for; none if it is about something else.
pub(super) fn occasion_in(own: &str, what: &What) -> Option<Occasion> {
    match what {
        What::ModuleDurable { module, .. } if module == own => Some(Occasion::AfterBatch),
        What::ModuleInSync { module, .. } if module == own => Some(Occasion::InSync),
        What::Corrupt { module, .. } | What::LocalEdit { module, .. } if module == own => {
            Some(Occasion::Error)
        }
        _ => None,
    }
}

/// What was done in a module since the last run.
#[derive(Default)]
struct ModuleBatch {
    applied: u64,
    changes: Vec<AppliedChange>,
    peers: Vec<String>,
    /// What the last sender said that was in sync.
    sequence: Option<u64>,
    errors: Vec<FailedEntry>,
    error_count: u64,
    /// Of the paths that are named.
    bytes: usize,
    /// What happened is not known in full.
    is_truncated: bool,
    is_due: bool,
}

impl ModuleBatch {
    fn take(&mut self, event: Event, runner: &Runner) {
        let (own, on) = (&runner.of.target, runner.hook.on);
        match event.what {
            What::ModuleDurable {
                module,
                peer,
                applied,
                changes,
                truncated,
            } if module == *own && on == Occasion::AfterBatch => {
                let is_for_all = runner.hook.paths.is_empty();
                let named = changes.into_iter().filter(|change| runner.is_meant(&change.path));
                let named: Vec<_> = named.collect();
                // One that is not named may be meant.
                if is_for_all || truncated || !named.is_empty() {
                    self.applied += if is_for_all { applied } else { named.len() as u64 };
                    self.is_truncated |= truncated;
                    for change in named {
                        if self.has_room(self.changes.len(), change.path.len()) {
                            self.changes.push(change);
                        }
                    }
                    self.note_peer(peer);
                }
            }
            What::ModuleInSync {
                module,
                peer,
                sequence,
            } if module == *own && on == Occasion::InSync => {
                self.sequence = Some(sequence);
                self.note_peer(peer);
            }
            What::Corrupt { module, path, what } | What::LocalEdit { module, path, what }
                if module == *own && on == Occasion::Error && runner.is_meant(&path) =>
            {
                self.error_count += 1;
                self.is_due = true;
                if self.has_room(self.errors.len(), path.len() + what.len()) {
                    self.errors.push(FailedEntry { path, error: what });
                }
            }
            // Something was changed that nobody can name now. But that trees are equal, or that something is wrong, is for others to
            // say: no hook is told so because it may have been said.
            What::Lost { .. } => {
                self.is_truncated = true;
                self.is_due |= on == Occasion::AfterBatch;
            }
            _ => {}
        }
    }

    /// Whether one more can be named, of so many bytes. If not, that is noted.
    fn has_room(&mut self, named: usize, bytes: usize) -> bool {
        let has_room = named < CHANGES_NAMED_MAX && self.bytes + bytes <= CHANGES_BYTES_MAX;
        match has_room {
            true => self.bytes += bytes,
            false => self.is_truncated = true,
        }
        has_room
    }

    fn note_peer(&mut self, peer: String) {
        self.is_due = true;
        if self.peers.contains(&peer) {
            return;
        }
        match self.peers.len() < PEERS_MAX {
            true => self.peers.push(peer),
            false => self.is_truncated = true,
        }
    }
}

impl Runner {
    fn follow(&self, listening: &Listening) {
        let mut batch = ModuleBatch::default();
        let mut may_run_at = Instant::now();
        loop {
            let ends = self.stop.is_requested();
            let now = Instant::now();
            let patience = match batch.is_due {
                _ if ends => Duration::ZERO,
                true => may_run_at.saturating_duration_since(now).min(LOOK_EVERY),
                false => LOOK_EVERY,
            };
            let mut next = listening.next(patience);
            while let Some(event) = next {
                batch.take(event, self);
                next = listening.next(Duration::ZERO);
            }
            let now = Instant::now();
            if batch.is_due && (ends || now >= may_run_at) {
                may_run_at = now + GATHER;
                self.run_for_module(&std::mem::take(&mut batch));
            }
            if ends {
                return;
            }
        }
    }

    fn run_for_module(&self, batch: &ModuleBatch) {
        let module = &self.of.target;
        let mut input = json!({"version": STATUS_VERSION, "hook": self.hook.on.name(), "module": module});
        let counted = match self.hook.on {
            Occasion::Error => {
                input["errors"] = json!(batch.errors);
                ("DRIFTLESS_ERRORS", batch.error_count.to_string())
            }
            Occasion::InSync => {
                input["sequence"] = batch.sequence.into();
                input["peers"] = json!(batch.peers);
                let text = batch.sequence.map(|sequence| sequence.to_string());
                ("DRIFTLESS_SEQUENCE", text.unwrap_or_default())
            }
            _ => {
                input["applied"] = batch.applied.into();
                input["changes"] = json!(batch.changes);
                input["peers"] = json!(batch.peers);
                ("DRIFTLESS_APPLIED", batch.applied.to_string())
            }
        };
        if batch.is_truncated {
            input["truncated"] = true.into();
        }
        let variables = [
            ("DRIFTLESS_HOOK", self.hook.on.name().to_owned()),
            ("DRIFTLESS_MODULE", module.clone()),
            counted,
        ];
        self.start(&variables, &input);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::filter::FileSet;
    use std::path::Path;

    /// A hook of a module that only this test knows, which notes what it is told, a line a run.
    fn start(module: &str, on: Occasion, out: &Path) -> ModuleHook {
        let hook = Hook {
            on,
            paths: FileSet::default(),
            command: [
                "/bin/sh",
                "-c",
                "cat >> \"$0\"; echo >> \"$0\"",
                out.to_str().unwrap(),
            ]
            .iter()
            .map(Into::into)
            .collect(),
            timeout: Duration::from_secs(60),
        };
        let complain: Complain = Arc::new(|text| panic!("{text}"));
        ModuleHook::start(&hook, module, &Slots::new(1), &complain)
    }

    fn runs(out: &Path) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(out).unwrap_or_default();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    fn durable(module: &str, path: &str) -> What {
        let change = AppliedChange {
            verb: "put".to_owned(),
            path: path.to_owned(),
            bytes: None,
        };
        What::ModuleDurable {
            module: module.to_owned(),
            peer: "p".to_owned(),
            applied: 1,
            changes: vec![change],
            truncated: false,
        }
    }

    #[test]
    fn a_sender_does_not_decide_how_often_it_runs_and_the_end_leaves_nothing_untold() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let began = Instant::now();
        let hook = start("often", Occasion::AfterBatch, &out);
        let mut told = 0;
        // So slowly that a program would be done with each of them.
        while told < 60 || runs(&out).is_empty() {
            events::publish(None, durable("often", &told.to_string()));
            told += 1;
            std::thread::park_timeout(Duration::from_millis(20));
        }
        drop(hook);
        let runs = runs(&out);
        let most = began.elapsed().as_secs() as usize + 2;
        assert!(runs.len() <= most, "{} runs in {:?}", runs.len(), began.elapsed());
        let changes = runs.iter().flat_map(|run| run["changes"].as_array().unwrap());
        let heard: Vec<_> = changes.map(|change| change["path"].as_str().unwrap()).collect();
        let all: Vec<_> = (0..told).map(|number| number.to_string()).collect();
        assert_eq!(heard, all, "each is told once, also what came last");
    }

    fn runner(on: Occasion) -> Runner {
        Runner {
            hook: Hook {
                on,
                paths: FileSet::default(),
                command: vec!["/bin/true".into()],
                timeout: Duration::from_secs(1),
            },
            of: TargetLabel {
                mirror: None,
                source: String::new(),
                target: "m".to_owned(),
            },
            slots: Slots::new(1),
            complain: Arc::new(|_| {}),
            stop: Stop::default(),
            lost: Arc::default(),
            outliving: Outliving::default(),
        }
    }

    #[test]
    fn all_that_are_due_at_the_end_run_if_there_is_time_also_one_after_the_other() {
        let dir = tempfile::tempdir().unwrap();
        let slots = Slots::new(1);
        // Held until the end has come, so that both are due then.
        let slot = slots.take(&Stop::default());
        let outs = ["a", "b"].map(|name| dir.path().join(name));
        let hooks = outs.iter().map(|out| {
            // It takes longer than the time between two looks at the places.
            let command = ["/bin/sh", "-c", "sleep 0.3; cat > \"$0\"", out.to_str().unwrap()];
            let hook = Hook {
                on: Occasion::AfterBatch,
                paths: FileSet::default(),
                command: command.iter().map(Into::into).collect(),
                timeout: Duration::from_secs(60),
            };
            let complain: Complain = Arc::new(|text| panic!("{text}"));
            ModuleHook::start(&hook, "the end", &slots, &complain)
        });
        let hooks: Vec<_> = hooks.collect();
        events::publish(None, durable("the end", "path"));
        for hook in &hooks {
            hook.stop.request();
        }
        drop(slot);
        ModuleHook::end_all(hooks);
        for out in outs {
            assert_eq!(runs(&out)[0]["changes"][0]["path"], "path", "{}", out.display());
        }
    }

    #[test]
    fn only_changes_can_have_been_what_was_lost() {
        let after = |on| {
            let mut batch = ModuleBatch::default();
            batch.take(Event::now(None, What::Lost { events: 3 }), &runner(on));
            (batch.is_due, batch.is_truncated)
        };
        assert_eq!(after(Occasion::InSync), (false, true));
        assert_eq!(after(Occasion::Error), (false, true));
        assert_eq!(after(Occasion::AfterBatch), (true, true));
    }

    #[test]
    fn what_one_run_is_told_is_bounded_in_bytes() {
        let runner = runner(Occasion::AfterBatch);
        let mut batch = ModuleBatch::default();
        let long = "x".repeat(4_000);
        for _ in 0..1_000 {
            batch.take(Event::now(None, durable("m", &long)), &runner);
        }
        let bytes: usize = batch.changes.iter().map(|change| change.path.len()).sum();
        assert!(
            bytes <= CHANGES_BYTES_MAX && bytes > CHANGES_BYTES_MAX / 2,
            "{bytes}"
        );
        assert_eq!((batch.applied, batch.is_truncated), (1_000, true));
    }
}
