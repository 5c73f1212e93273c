//! Directories that are listed again and again, because nothing tells what happens in them.
//!
//! The last resort: for what no other back end can watch, and for file systems that other machines change. It finds
//! what `stat` shows, up to a minute late, and costs reads in proportion to the tree; a [`Plan`] spreads them.

mod plan;

pub use plan::{Plan, PollOptions};

use super::outgoing::{Outgoing, Turn};
use super::{WatchError, WatchEvent, Watcher};
use crossbeam_channel::{Receiver, Sender};
use driftless_protocol::ObjectId;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Looks that are due within this time of each other are asked for together, unless the round is short: a processor that
/// sleeps is woken less.
const TICK: Duration = Duration::from_secs(1);

/// A watcher that says [`WatchEvent::Listing`] of every directory in turn.
pub struct Poll {
    shared: Arc<Shared>,
    receiver: Receiver<WatchEvent>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    outgoing: Outgoing,
}

struct State {
    plan: Plan,
    is_stopped: bool,
}

impl Poll {
    /// Starts with nothing to look at.
    pub fn start_with(options: PollOptions, queue_events: usize) -> Result<Poll, WatchError> {
        let (outgoing, receiver) = Outgoing::new(queue_events);
        Poll::start_into(options, outgoing, receiver)
    }

    /// Starts with nothing to look at, and asks for looks through a queue that others may use as well.
    pub(super) fn start_into(
        options: PollOptions,
        outgoing: Outgoing,
        receiver: Receiver<WatchEvent>,
    ) -> Result<Poll, WatchError> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                plan: Plan::new(options),
                is_stopped: false,
            }),
            changed: Condvar::new(),
            outgoing,
        });
        let thread = thread::Builder::new()
            .name("poll".to_owned())
            .spawn({
                let shared = shared.clone();
                move || run(&shared)
            })
            .map_err(|source| WatchError::Start {
                name: "polling",
                source,
            })?;
        Ok(Poll {
            shared,
            receiver,
            thread: Some(thread),
        })
    }

    /// How long a round takes: no change is found later than that, plus the time that looking takes.
    pub fn round(&self) -> Duration {
        self.shared.state().plan.round()
    }
}

impl Watcher for Poll {
    fn watch(&mut self, directory: ObjectId, _handle: BorrowedFd<'_>) -> Result<(), WatchError> {
        let mut state = self.shared.state();
        let is_first = state.plan.is_empty();
        state.plan.add(Instant::now(), directory);
        drop(state);
        if is_first {
            self.shared.changed.notify_one();
        }
        Ok(())
    }

    fn unwatch(&mut self, directory: ObjectId) {
        self.shared.state().plan.remove(directory);
    }

    fn name(&self) -> &'static str {
        "poll"
    }

    fn watched(&self) -> usize {
        self.shared.state().plan.len()
    }

    fn events(&self) -> Receiver<WatchEvent> {
        self.receiver.clone()
    }

    /// Asks for a look at every directory now. More than the queue holds end in one look at everything.
    fn flush(&mut self, _done: Sender<()>) {
        let state = self.shared.state();
        let mut turn = self.shared.outgoing.turn();
        for directory in state.plan.directories() {
            look(&mut turn, directory);
        }
    }
}

impl Drop for Poll {
    fn drop(&mut self) {
        self.shared.state().is_stopped = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // The plan is whole after every statement that changes it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn run(shared: &Shared) {
    let mut state = shared.state();
    while !state.is_stopped {
        let now = Instant::now();
        ask(&mut state.plan, now, &shared.outgoing);
        let wait = state.plan.poll_deadline().map(|due| {
            due.saturating_duration_since(now)
                .max(TICK.min(state.plan.round() / 10))
        });
        state = match wait {
            Some(wait) => match shared.changed.wait_timeout(state, wait) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            },
            None => shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
        };
    }
}

/// Asks for the looks that are due. Those for which there is no room are asked for later: events of others, which cannot
/// wait, go first.
fn ask(plan: &mut Plan, now: Instant, outgoing: &Outgoing) {
    let mut turn = outgoing.turn();
    while turn.has_room(2) {
        let Some(directory) = plan.poll_due(now) else {
            return;
        };
        look(&mut turn, directory);
    }
}

fn look(turn: &mut Turn<'_>, directory: ObjectId) {
    // Whether the root is still where it was, no listing shows.
    if directory == ObjectId::ROOT {
        turn.send(WatchEvent::Gone { directory });
    }
    turn.send(WatchEvent::Listing { directory });
}
