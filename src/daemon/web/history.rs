//! How it went of late: some numbers of each target every ten seconds, and what happened. All of it is bounded, and in memory
//! only.

use crate::daemon::control::Controlled;
use crate::daemon::events::{self, Event, What};
use crate::daemon::status::{DaemonStatus, TargetLabel, unix_now};
use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often numbers are noted.
pub(super) const SAMPLE_EVERY: Duration = Duration::from_secs(10);

/// Samples of a target: an hour.
pub(super) const SAMPLES_MAX: usize = 360;

/// Targets that have a history; the others have a status only.
pub(super) const TARGETS_MAX: usize = 64;

/// Events of a kind that are kept.
pub(super) const EVENTS_MAX: usize = 50;

/// Changes that are named of one batch.
const NAMED_MAX: usize = 10;

/// How late an end is noticed.
const TICK: Duration = Duration::from_millis(200);

/// Numbers of a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Sample {
    /// Unix seconds.
    pub(super) at: u64,
    /// The age of the oldest change that is not on the target, in milliseconds; 0 if all are.
    pub(super) lag_ms: u64,
    /// Content read for the target since its sender started.
    pub(super) bytes: u64,
    /// Ops that ended since then.
    pub(super) ops: u64,
}

/// How it went with a target.
#[derive(Debug, Clone, Serialize)]
pub(super) struct TargetHistory {
    #[serde(flatten)]
    pub(super) of: TargetLabel,
    pub(super) samples: VecDeque<Sample>,
}

/// What happened last, the oldest first.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Recent {
    /// What was put, made and removed.
    pub(super) changes: VecDeque<Event>,
    /// Everything else: connections, errors, warnings.
    pub(super) incidents: VecDeque<Event>,
}

#[derive(Debug, Default)]
pub(super) struct Past {
    targets: BTreeMap<TargetLabel, VecDeque<Sample>>,
    recent: Recent,
}

impl Past {
    /// Notes the numbers of now. Targets that are not there any more are forgotten.
    pub(super) fn sample(&mut self, daemons: &[DaemonStatus], at: u64) {
        let mut before = std::mem::take(&mut self.targets);
        for daemon in daemons {
            let DaemonStatus::Sender(sender) = daemon else {
                continue;
            };
            if self.targets.len() == TARGETS_MAX {
                break;
            }
            let of = TargetLabel {
                mirror: sender.mirror.clone(),
                source: sender.source.clone(),
                target: sender.target.clone(),
            };
            let counter = |name: &str| sender.counters.get(name).copied().unwrap_or_default();
            let mut samples = before.remove(&of).unwrap_or_default();
            if samples.len() == SAMPLES_MAX {
                samples.pop_front();
            }
            samples.push_back(Sample {
                at,
                lag_ms: sender.behind.oldest_ms.unwrap_or(0),
                bytes: counter("content_bytes"),
                ops: counter("ops_done"),
            });
            self.targets.insert(of, samples);
        }
    }

    /// Notes what happened. Phases are in the status, and change often.
    pub(super) fn note(&mut self, mut event: Event) {
        let kept = match &mut event.what {
            What::Phase { .. }
            | What::InSync { .. }
            | What::OutOfSync
            | What::ModuleDurable { .. }
            | What::ModuleInSync { .. }
            | What::Listening => return,
            What::Batch { changes, .. } => {
                changes.truncate(NAMED_MAX);
                &mut self.recent.changes
            }
            _ => &mut self.recent.incidents,
        };
        if kept.len() == EVENTS_MAX {
            kept.pop_front();
        }
        kept.push_back(event);
    }

    pub(super) fn targets(&self) -> Vec<TargetHistory> {
        let targets = self.targets.iter().map(|(of, samples)| TargetHistory {
            of: of.clone(),
            samples: samples.clone(),
        });
        targets.collect()
    }

    pub(super) fn recent(&self) -> Recent {
        self.recent.clone()
    }
}

/// A thread that notes. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Recorder {
    past: Arc<Mutex<Past>>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Recorder {
    pub(super) fn start(daemons: Arc<dyn Controlled>) -> io::Result<Recorder> {
        let (past, stopping) = (Arc::<Mutex<Past>>::default(), Arc::<AtomicBool>::default());
        // From here on, and not from when the thread gets to it.
        let listening = events::listen();
        let thread = std::thread::Builder::new()
            .name("web-history".to_owned())
            .spawn({
                let (past, stopping) = (past.clone(), stopping.clone());
                move || {
                    let mut due = Instant::now();
                    while !stopping.load(Ordering::Acquire) {
                        if Instant::now() >= due {
                            let status = daemons.status();
                            lock(&past).sample(&status, unix_now());
                            due = Instant::now() + SAMPLE_EVERY;
                        }
                        if let Some(event) = listening.next(TICK) {
                            lock(&past).note(event);
                        }
                    }
                }
            })?;
        Ok(Recorder {
            past,
            stopping,
            thread: Some(thread),
        })
    }

    /// The samples of all targets.
    pub(super) fn history(&self) -> Vec<TargetHistory> {
        lock(&self.past).targets()
    }

    /// What happened last.
    pub(super) fn recent(&self) -> Recent {
        lock(&self.past).recent()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock(past: &Mutex<Past>) -> MutexGuard<'_, Past> {
    // Whole after every statement that changes it.
    past.lock().unwrap_or_else(PoisonError::into_inner)
}
