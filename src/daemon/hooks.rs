//! Programs that run when something happens to a mirror or a module.
//!
//! A hook is a program and its arguments, never a line for a shell. What happened comes as environment variables and as one
//! object of JSON on standard input. Each hook of each target has a thread, runs once at a time, and is told of everything that
//! came meanwhile at its next run: a program that reloads a server is run as often as it can keep up with, and no more.
//! How many run at once in the process is limited, and one that takes too long is killed with all that it started. Nothing a
//! hook does, or does not do, holds up a mirror, but for [`Occasion::BeforeBatch`], which is there for that.

mod apart;
mod modules;
mod run;
mod streams;

pub use apart::{Following, HookProcess, ModulePrograms, Program, serve};
pub use modules::ModuleHook;
pub use run::Slots;

use self::run::Outliving;
use super::events::{AppliedChange, CHANGES_NAMED_MAX};
use super::status::{STATUS_VERSION, TargetLabel};
use super::{FailedEntry, Stop};
use crate::engine::filter::FileSet;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Messages that wait for a hook's thread.
const WAITING_MAX: usize = 4_096;
/// How long changes gather for one run if the trees do not come into sync before.
const GATHER: Duration = Duration::from_secs(1);
/// What hooks print, and what is wrong with them, is logged under this, and always: somebody wants to know.
pub const LOG: &str = "driftless::hook";
/// How often a thread looks whether it is to end.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// When a hook runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Occasion {
    /// Before changes leave that come when a target was in sync. They wait for it.
    BeforeBatch,
    /// When changes are visible on the target; of a module, when they are durable in it.
    AfterBatch,
    /// When both trees are equal, durably; of a module, when its sender says so.
    InSync,
    /// When entries are in error, deletions are held back, or the sender gave up.
    Error,
}

impl Occasion {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Occasion::BeforeBatch => "before-batch",
            Occasion::AfterBatch => "after-batch",
            Occasion::InSync => "in-sync",
            Occasion::Error => "error",
        }
    }
}

/// A program and when it runs.
#[derive(Debug, Clone)]
pub struct Hook {
    /// When.
    pub on: Occasion,
    /// Only for changes of these paths; all if it is empty.
    pub paths: FileSet,
    /// The program and its arguments; not empty.
    pub command: Vec<OsString>,
    /// After this time it is killed.
    pub timeout: Duration,
}

/// Who is told what went wrong with a run.
pub type Complain = Arc<dyn Fn(&str) + Send + Sync>;

/// What a hook's thread is told.
#[derive(Debug)]
enum Told {
    Batch(Vec<AppliedChange>),
    InSync(u64),
    Errors(Vec<FailedEntry>),
    Before(Sender<()>),
}

/// The hooks of one mirror and target, at work. Dropping them ends them: one that runs is given a moment.
pub struct SenderHooks {
    stop: Stop,
    threads: Vec<(Occasion, Sender<Told>, JoinHandle<()>)>,
    lost: Arc<AtomicU64>,
}

impl SenderHooks {
    /// Starts a thread for each hook. `complain` is told what went wrong with a run.
    pub fn start(hooks: &[Hook], of: &TargetLabel, slots: &Arc<Slots>, complain: &Complain) -> SenderHooks {
        let (stop, lost) = (Stop::default(), Arc::new(AtomicU64::new(0)));
        let mut threads = Vec::new();
        for hook in hooks {
            let (told, inbox) = bounded(WAITING_MAX);
            let runner = Runner {
                hook: hook.clone(),
                of: of.clone(),
                slots: slots.clone(),
                complain: complain.clone(),
                stop: stop.clone(),
                lost: lost.clone(),
                outliving: Outliving::default(),
            };
            match std::thread::Builder::new()
                .name("hook".to_owned())
                .spawn(move || runner.serve(&inbox))
            {
                Ok(thread) => threads.push((hook.on, told, thread)),
                Err(error) => complain(&format!("cannot start a thread for a hook: {error}")),
            }
        }
        SenderHooks { stop, threads, lost }
    }

    /// Whether there is one for this occasion.
    pub fn has(&self, on: Occasion) -> bool {
        self.threads.iter().any(|(own, ..)| *own == on)
    }

    /// Changes are visible on the target.
    pub fn handle_batch(&self, changes: &[AppliedChange]) {
        self.tell(Occasion::AfterBatch, || Told::Batch(changes.to_vec()));
    }

    /// Both trees are equal.
    pub fn handle_in_sync(&self, sequence: u64) {
        self.tell(Occasion::AfterBatch, || Told::InSync(sequence));
        self.tell(Occasion::InSync, || Told::InSync(sequence));
    }

    /// Something is in error.
    pub fn handle_errors(&self, errors: &[FailedEntry]) {
        self.tell(Occasion::Error, || Told::Errors(errors.to_vec()));
    }

    /// Changes are about to leave. The channel disconnects when they may.
    pub fn handle_leaving(&self) -> Option<Receiver<()>> {
        let (done, wait) = bounded(0);
        self.tell(Occasion::BeforeBatch, || Told::Before(done.clone()));
        self.has(Occasion::BeforeBatch).then_some(wait)
    }

    /// Lets the hooks run that were told of something and have not run for it yet, and waits for them: at most as long as
    /// each may take.
    pub fn finish(mut self) {
        for (_, queue, thread) in self.threads.drain(..) {
            drop(queue);
            let _ = thread.join();
        }
    }

    fn tell(&self, on: Occasion, told: impl Fn() -> Told) {
        for (own, queue, _) in &self.threads {
            if *own == on && queue.try_send(told()).is_err() {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl Drop for SenderHooks {
    fn drop(&mut self) {
        self.stop.request();
        for (_, queue, thread) in self.threads.drain(..) {
            drop(queue);
            let _ = thread.join();
        }
    }
}

/// One hook of one target.
struct Runner {
    hook: Hook,
    of: TargetLabel,
    slots: Arc<Slots>,
    complain: Complain,
    stop: Stop,
    lost: Arc<AtomicU64>,
    outliving: Outliving,
}

/// What the next run will be told.
#[derive(Default)]
struct Gathered {
    since: Option<Instant>,
    changes: Vec<AppliedChange>,
    applied: u64,
    errors: Vec<FailedEntry>,
    error_count: u64,
    sequence: Option<u64>,
    is_due: bool,
}

impl Gathered {
    fn is_truncated(&self) -> bool {
        self.applied > self.changes.len() as u64 || self.error_count > self.errors.len() as u64
    }
}

impl Runner {
    fn serve(&self, inbox: &Receiver<Told>) {
        let mut gathered = Gathered::default();
        loop {
            let patience = match gathered.since {
                Some(since) => GATHER.saturating_sub(since.elapsed()).min(LOOK_EVERY),
                None => LOOK_EVERY,
            };
            match inbox.recv_timeout(patience) {
                Ok(told) => self.take(told, &mut gathered),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    if gathered.since.is_some() && !self.stop.is_requested() {
                        self.run(&gathered);
                    }
                    return;
                }
            }
            while let Ok(told) = inbox.try_recv() {
                self.take(told, &mut gathered);
            }
            if self.stop.is_requested() {
                return;
            }
            let is_due = gathered.is_due || gathered.since.is_some_and(|since| since.elapsed() >= GATHER);
            if is_due {
                self.run(&std::mem::take(&mut gathered));
            }
        }
    }

    fn take(&self, told: Told, gathered: &mut Gathered) {
        match told {
            Told::Batch(changes) => {
                for change in changes.into_iter().filter(|change| self.is_meant(&change.path)) {
                    gathered.since.get_or_insert_with(Instant::now);
                    gathered.applied += 1;
                    if gathered.changes.len() < CHANGES_NAMED_MAX {
                        gathered.changes.push(change);
                    }
                }
            }
            Told::InSync(sequence) => {
                gathered.sequence = Some(sequence);
                gathered.is_due |= self.hook.on == Occasion::InSync || gathered.applied > 0;
            }
            Told::Errors(errors) => {
                for error in errors.into_iter().filter(|error| self.is_meant(&error.path)) {
                    gathered.since.get_or_insert_with(Instant::now);
                    gathered.error_count += 1;
                    if gathered.errors.len() < CHANGES_NAMED_MAX {
                        gathered.errors.push(error);
                    }
                }
            }
            Told::Before(done) => {
                self.run(&Gathered::default());
                drop(done);
            }
        }
    }

    /// Paths are compared as they are shown; one that is empty is about the mirror as a whole.
    fn is_meant(&self, path: &str) -> bool {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        self.hook.paths.is_empty()
            || path.is_empty()
            || self.hook.paths.has(directory.as_bytes(), name.as_bytes())
    }

    fn run(&self, gathered: &Gathered) {
        let on = self.hook.on;
        let lost = self.lost.swap(0, Ordering::Relaxed);
        let mut input = json!(self.of);
        let mut add = |name: &str, value: Value| input[name] = value;
        add("version", STATUS_VERSION.into());
        add("hook", on.name().into());
        let mut variables = vec![
            ("DRIFTLESS_HOOK", on.name().to_owned()),
            ("DRIFTLESS_SOURCE", self.of.source.clone()),
            ("DRIFTLESS_TARGET", self.of.target.clone()),
        ];
        variables.extend(self.of.mirror.clone().map(|mirror| ("DRIFTLESS_MIRROR", mirror)));
        match on {
            Occasion::AfterBatch => {
                add("applied", gathered.applied.into());
                add("changes", json!(gathered.changes));
                variables.push(("DRIFTLESS_APPLIED", gathered.applied.to_string()));
            }
            Occasion::Error => {
                add("errors", json!(gathered.errors));
                variables.push(("DRIFTLESS_ERRORS", gathered.error_count.to_string()));
            }
            Occasion::InSync => {
                let sequence = gathered.sequence.unwrap_or(0);
                add("sequence", sequence.into());
                variables.push(("DRIFTLESS_SEQUENCE", sequence.to_string()));
            }
            Occasion::BeforeBatch => {}
        }
        if gathered.is_truncated() || lost > 0 {
            add("truncated", true.into());
        }
        self.start(&variables, &input);
    }

    fn start(&self, variables: &[(&str, String)], input: &Value) {
        let on = self.hook.on.name();
        // One that is not killable would otherwise become many.
        if !self.outliving.is_empty() {
            (self.complain)(&format!(
                "the {on} hook is left out: its last run cannot be killed and has not ended"
            ));
            return;
        }
        let Some(_slot) = self.slots.take(&self.stop) else {
            (self.complain)(&format!(
                "the {on} hook is left out: others still run, and there is no time left"
            ));
            return;
        };
        let input = input.to_string().into_bytes();
        let outcome = run::run(&self.hook, variables, input, &self.stop, &self.outliving);
        if let Err(text) = outcome {
            (self.complain)(&format!("the {on} hook {text}"));
        }
    }
}
