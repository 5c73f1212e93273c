//! What happens, as it happens, for whoever listens.
//!
//! There is one list of listeners in a process, as there is one log: whoever listens hears of every mirror and module in it.
//! Telling costs next to nothing while nobody listens, and never waits: each listener has room for [`WAITING_MAX`] events, and one
//! that does not take them loses the newest and is told how many ([`What::Lost`]).

use super::barrier::Checkpoint;
use super::status::{STATUS_VERSION, TargetLabel};
use crossbeam_channel::{Receiver, Sender, bounded};
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Events that wait for one listener.
pub const WAITING_MAX: usize = 1_024;

/// Changes that are named in one [`What::Batch`].
pub const BATCH_NAMED_MAX: usize = 100;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Of the JSON.
    pub version: u32,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// To which mirror and target; none for what happens to a module or to the listener.
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub of: Option<TargetLabel>,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// What can happen. New kinds are added; a reader passes over those that it does not know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum What {
    /// From here on the listener hears everything.
    Listening,
    /// The listener did not take events: so many are missing here.
    Lost {
        /// How many.
        events: u64,
    },
    /// A sender entered a phase, as in the status.
    Phase {
        /// Its name.
        phase: String,
        /// Why, if there is a reason.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// Both trees are equal, durably.
    InSync {
        /// The number of the journal.
        sequence: u64,
    },
    /// They are not any more.
    OutOfSync,
    /// A sender has a connection.
    Connected,
    /// A connection ended.
    Disconnected {
        /// Why, if that is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// Changes are visible on the target.
    Batch {
        /// How many.
        applied: u64,
        /// The first hundred.
        changes: Vec<AppliedChange>,
    },
    /// An entry is in error.
    Error {
        /// Its path, escaped.
        path: String,
        /// Why.
        error: String,
    },
    /// An entry is not in error any more.
    Recovered {
        /// Its path, escaped.
        path: String,
    },
    /// So many deletions that somebody has to approve them.
    Held {
        /// How many.
        deletions: u64,
    },
    /// Trees that were equal differ, though every change was acknowledged: they are compared again.
    Drift,
    /// A target passed a checkpoint.
    Checkpoint(Checkpoint),
    /// Something that somebody should read.
    Warning {
        /// In words.
        text: String,
    },
    /// A sender ended.
    Ended {
        /// Why, if it failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// A sender was let in to a module here.
    SenderConnected {
        /// The module.
        module: String,
        /// Its fingerprint.
        peer: String,
    },
    /// What was applied in a module here is durable.
    ModuleDurable {
        /// The module.
        module: String,
        /// The sender's fingerprint.
        peer: String,
        /// How many ops, since this was last told.
        applied: u64,
    },
    /// A file of a module here is not as it was put: its content is rotten, it cannot be read, or somebody changed it.
    Corrupt {
        /// The module.
        module: String,
        /// Its path, escaped.
        path: String,
        /// What is wrong with it.
        what: String,
    },
    /// Somebody else changed something in a module here that is watched for that.
    LocalEdit {
        /// The module.
        module: String,
        /// The path, escaped.
        path: String,
        /// What was done.
        what: String,
    },
    /// A sender that was let in is gone.
    SenderDisconnected {
        /// The module.
        module: String,
        /// Its fingerprint.
        peer: String,
    },
}

/// A change that is visible on the target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppliedChange {
    /// What was done: `put`, `made`, `removed`, ...
    pub verb: String,
    /// To which path, escaped.
    pub path: String,
    /// Of a file whose content was put, its size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

struct Listener {
    queue: Sender<Event>,
    lost: Arc<AtomicU64>,
    number: u64,
}

static LISTENERS: Mutex<Vec<Listener>> = Mutex::new(Vec::new());
static LISTENING: AtomicUsize = AtomicUsize::new(0);
static NEXT: AtomicU64 = AtomicU64::new(0);

fn listeners() -> MutexGuard<'static, Vec<Listener>> {
    // The list is whole after every statement that changes it.
    LISTENERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether anybody listens: otherwise events need not be made.
pub fn is_anybody_listening() -> bool {
    LISTENING.load(Ordering::Relaxed) > 0
}

/// Tells all listeners. Never waits.
pub fn publish(of: Option<&TargetLabel>, what: What) {
    if !is_anybody_listening() {
        return;
    }
    let event = Event::now(of.cloned(), what);
    for listener in listeners().iter() {
        // Where events are missing, that is said in their place.
        let lost = listener.lost.swap(0, Ordering::Relaxed);
        let gap = (lost > 0).then(|| Event::now(None, What::Lost { events: lost }));
        if gap.is_some_and(|gap| listener.queue.try_send(gap).is_err()) {
            listener.lost.fetch_add(lost + 1, Ordering::Relaxed);
        } else if listener.queue.try_send(event.clone()).is_err() {
            listener.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Begins to listen. What is told from now on is heard, or counted as lost.
pub fn listen() -> Listening {
    let (queue, events) = bounded(WAITING_MAX);
    let (lost, number) = (Arc::new(AtomicU64::new(0)), NEXT.fetch_add(1, Ordering::Relaxed));
    let listener = Listener {
        queue,
        lost: lost.clone(),
        number,
    };
    let mut all = listeners();
    all.push(listener);
    LISTENING.store(all.len(), Ordering::Relaxed);
    Listening { events, lost, number }
}

/// A listener. Dropping it ends that.
#[derive(Debug)]
pub struct Listening {
    events: Receiver<Event>,
    lost: Arc<AtomicU64>,
    number: u64,
}

impl Listening {
    /// The next event; none if nothing happens in this time.
    pub fn next(&self, patience: Duration) -> Option<Event> {
        // Nobody told anything since: the gap is at the end.
        if self.events.is_empty() {
            let lost = self.lost.swap(0, Ordering::Relaxed);
            if lost > 0 {
                return Some(Event::now(None, What::Lost { events: lost }));
            }
        }
        self.events.recv_timeout(patience).ok()
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let mut all = listeners();
        all.retain(|listener| listener.number != self.number);
        LISTENING.store(all.len(), Ordering::Relaxed);
    }
}

impl Event {
    /// An event of now.
    pub fn now(of: Option<TargetLabel>, what: What) -> Event {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Event {
            version: STATUS_VERSION,
            at_ms: since.map_or(0, |since| since.as_millis().try_into().unwrap_or(u64::MAX)),
            of,
            what,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(target: &str) -> TargetLabel {
        TargetLabel {
            mirror: Some("www".to_owned()),
            source: "/srv".to_owned(),
            target: target.to_owned(),
        }
    }

    #[test]
    fn a_listener_that_takes_nothing_is_told_how_much_it_lost() {
        let listening = listen();
        // Other tests of this process may tell something, too.
        let own = label("a listener that takes nothing");
        let told =
            (0..WAITING_MAX as u64 + 500).inspect(|&sequence| publish(Some(&own), What::InSync { sequence }));
        let told = told.count() as u64;
        let (mut heard, mut lost) = (0, 0);
        while let Some(event) = listening.next(Duration::ZERO) {
            match event.what {
                What::Lost { events } => lost += events,
                What::InSync { sequence } if event.of.as_ref() == Some(&own) => {
                    assert_eq!(sequence, heard);
                    heard += 1;
                }
                _ => {}
            }
        }
        assert!(
            heard < told && lost >= told - heard && heard <= WAITING_MAX as u64,
            "{heard} {lost}"
        );
        publish(Some(&own), What::OutOfSync);
        let next = std::iter::from_fn(|| listening.next(Duration::ZERO))
            .find(|event| event.of.as_ref() == Some(&own));
        assert_eq!(next.unwrap().what, What::OutOfSync);
    }

    #[test]
    fn the_json_is_as_it_is_documented() {
        let json = |what| {
            serde_json::to_value(Event {
                version: 1,
                at_ms: 5,
                of: Some(label("t")),
                what,
            })
            .unwrap()
        };
        let changes = vec![AppliedChange {
            verb: "put".to_owned(),
            path: "a".to_owned(),
            bytes: None,
        }];
        assert_eq!(
            json(What::Batch { applied: 1, changes }).to_string(),
            r#"{"applied":1,"at_ms":5,"changes":[{"path":"a","verb":"put"}],"event":"batch","mirror":"www","source":"/srv","target":"t","version":1}"#
        );
        assert_eq!(json(What::OutOfSync)["event"], "out-of-sync");
        let text = serde_json::to_string(&Event::now(None, What::Lost { events: 3 })).unwrap();
        assert_eq!(
            serde_json::from_str::<Event>(&text).unwrap().what,
            What::Lost { events: 3 }
        );
        let text =
            serde_json::to_string(&Event::now(Some(label("t")), What::InSync { sequence: 3 })).unwrap();
        assert_eq!(serde_json::from_str::<Event>(&text).unwrap().of, Some(label("t")));
    }
}
