//! A watcher that says what it is told to, for tests of everything that listens to one.

use super::{Limit, WatchError, WatchEvent, Watcher};
use crossbeam_channel::{Receiver, Sender, unbounded};
use driftless_protocol::ObjectId;
use std::collections::BTreeSet;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The watcher's end; its [`Script`] is the test's end.
pub struct Scripted {
    state: Arc<Mutex<State>>,
    receiver: Receiver<WatchEvent>,
}

/// The test's end of a [`Scripted`]. When all clones are gone, the watcher looks as if it had died.
#[derive(Clone)]
pub struct Script {
    state: Arc<Mutex<State>>,
    sender: Sender<WatchEvent>,
}

#[derive(Default)]
struct State {
    watched: BTreeSet<ObjectId>,
    limit: Option<usize>,
}

impl Scripted {
    /// A watcher and what moves it.
    pub fn new() -> (Scripted, Script) {
        let (sender, receiver) = unbounded();
        let state = Arc::new(Mutex::new(State::default()));
        (
            Scripted {
                state: state.clone(),
                receiver,
            },
            Script { state, sender },
        )
    }
}

impl Watcher for Scripted {
    fn watch(&mut self, directory: ObjectId, _handle: BorrowedFd<'_>) -> Result<(), WatchError> {
        let mut state = lock(&self.state);
        if let Some(limit) = state.limit
            && state.watched.len() >= limit
            && !state.watched.contains(&directory)
        {
            let path = format!("object {}", directory.0);
            return Err(WatchError::LimitReached {
                path,
                limit: Limit {
                    sysctl: "a script",
                    value: u64::try_from(limit).ok(),
                },
            });
        }
        state.watched.insert(directory);
        Ok(())
    }

    fn unwatch(&mut self, directory: ObjectId) {
        lock(&self.state).watched.remove(&directory);
    }

    fn name(&self) -> &'static str {
        "scripted"
    }

    fn watched(&self) -> usize {
        lock(&self.state).watched.len()
    }

    fn events(&self) -> Receiver<WatchEvent> {
        self.receiver.clone()
    }
}

impl Script {
    /// Lets the watcher say this, whether or not the directory is watched.
    pub fn send(&self, event: WatchEvent) {
        // When the watcher is gone, nobody is left to hear it.
        let _ = self.sender.send(event);
    }

    /// The directories that are watched.
    pub fn watched(&self) -> Vec<ObjectId> {
        lock(&self.state).watched.iter().copied().collect()
    }

    /// Lets every further watch above `limit` fail as it does when the system's limit is reached.
    pub fn limit(&self, limit: usize) {
        lock(&self.state).limit = Some(limit);
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // The state is whole after every statement that changes it, so a panic elsewhere leaves nothing half done.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn says_what_it_is_told_and_dies_with_its_script() {
        let file = tempfile::tempfile().unwrap();
        let (mut watcher, script) = Scripted::new();
        script.limit(1);
        watcher.watch(ObjectId(1), file.as_fd()).unwrap();
        watcher.watch(ObjectId(1), file.as_fd()).unwrap();
        let error = watcher.watch(ObjectId(2), file.as_fd()).unwrap_err();
        assert!(
            matches!(
                error,
                WatchError::LimitReached {
                    limit: Limit { value: Some(1), .. },
                    ..
                }
            ),
            "{error}"
        );
        assert_eq!(script.watched(), [ObjectId(1)]);
        script.send(WatchEvent::Overflow);
        assert_eq!(watcher.events().recv(), Ok(WatchEvent::Overflow));
        watcher.unwatch(ObjectId(1));
        assert_eq!(watcher.watched(), 0);
        drop(script);
        assert!(watcher.events().recv().is_err());
    }
}
