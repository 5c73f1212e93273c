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

/// Changes that are named in one [`What::ModuleDurable`].
pub const CHANGES_NAMED_MAX: usize = 10_000;
/// And their paths together, in bytes.
pub const CHANGES_BYTES_MAX: usize = 1 << 20;
/// Bytes of changes by name that wait for one listener. It is told of those above that they are left out.
const WAITING_BYTES_MAX: usize = 4 * CHANGES_BYTES_MAX;

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
        /// What they changed, for listeners that want it: see [`listen_to`].
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        changes: Vec<AppliedChange>,
        /// Not everything could be named.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        truncated: bool,
    },
    /// A sender says that its tree and a module here are equal, durably.
    ModuleInSync {
        /// The module.
        module: String,
        /// The sender's fingerprint.
        peer: String,
        /// The number of the sender's journal.
        sequence: u64,
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
    wants_changes: bool,
    is_wanted: Box<dyn Fn(&What) -> bool + Send>,
    /// Bytes of changes by name in its queue.
    waiting_bytes: Arc<AtomicUsize>,
}

static LISTENERS: Mutex<Vec<Listener>> = Mutex::new(Vec::new());
static LISTENING: AtomicUsize = AtomicUsize::new(0);
/// Of them, those that want the names of changes in modules.
static WANTING_CHANGES: AtomicUsize = AtomicUsize::new(0);
static NEXT: AtomicU64 = AtomicU64::new(0);

fn listeners() -> MutexGuard<'static, Vec<Listener>> {
    // The list is whole after every statement that changes it.
    LISTENERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether anybody listens: otherwise events need not be made.
pub fn is_anybody_listening() -> bool {
    LISTENING.load(Ordering::Relaxed) > 0
}

/// Whether anybody wants to know by name what is changed in modules.
pub fn are_changes_wanted() -> bool {
    WANTING_CHANGES.load(Ordering::Relaxed) > 0
}

/// Tells all listeners that want to know. Never waits.
pub fn publish(of: Option<&TargetLabel>, what: What) {
    if !is_anybody_listening() {
        return;
    }
    let event = Event::now(of.cloned(), what);
    for listener in listeners().iter() {
        if !(listener.is_wanted)(&event.what) {
            continue;
        }
        // Where events are missing, that is said in their place.
        let lost = listener.lost.swap(0, Ordering::Relaxed);
        let event = event.for_listener(listener);
        let bytes = event.bytes_of_changes();
        // Before it can be taken.
        listener.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        let gap = (lost > 0).then(|| Event::now(None, What::Lost { events: lost }));
        if gap.is_some_and(|gap| listener.queue.try_send(gap).is_err()) {
            listener.lost.fetch_add(lost + 1, Ordering::Relaxed);
        } else if listener.queue.try_send(event).is_err() {
            listener.lost.fetch_add(1, Ordering::Relaxed);
        } else {
            continue;
        }
        listener.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Has all listeners miss so many events: they are told so with the next one, or at once if nothing waits.
pub fn publish_lost(events: u64) {
    for listener in listeners().iter() {
        listener.lost.fetch_add(events, Ordering::Relaxed);
    }
}

/// Begins to listen. What is told from now on is heard, or counted as lost.
pub fn listen() -> Listening {
    listen_to(false, |_| true)
}

/// As [`listen`], to these events alone: others take no room in the queue, and none of those that are lost is one of them. Whether
/// one is wanted is asked where it is told, for which it must not tell anything itself. With `wants_changes` what is changed in
/// modules is named.
pub fn listen_to(wants_changes: bool, is_wanted: impl Fn(&What) -> bool + Send + 'static) -> Listening {
    let (queue, events) = bounded(WAITING_MAX);
    let (lost, number) = (Arc::new(AtomicU64::new(0)), NEXT.fetch_add(1, Ordering::Relaxed));
    let waiting_bytes = Arc::new(AtomicUsize::new(0));
    let listener = Listener {
        queue,
        lost: lost.clone(),
        number,
        wants_changes,
        is_wanted: Box::new(is_wanted),
        waiting_bytes: waiting_bytes.clone(),
    };
    let mut all = listeners();
    all.push(listener);
    count(&all);
    Listening {
        events,
        lost,
        number,
        waiting_bytes,
    }
}

fn count(all: &[Listener]) {
    let wanting = all.iter().filter(|listener| listener.wants_changes).count();
    WANTING_CHANGES.store(wanting, Ordering::Relaxed);
    LISTENING.store(all.len(), Ordering::Relaxed);
}

/// A listener. Dropping it ends that.
#[derive(Debug)]
pub struct Listening {
    events: Receiver<Event>,
    lost: Arc<AtomicU64>,
    number: u64,
    waiting_bytes: Arc<AtomicUsize>,
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
        let event = self.events.recv_timeout(patience).ok()?;
        self.waiting_bytes
            .fetch_sub(event.bytes_of_changes(), Ordering::Relaxed);
        Some(event)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let mut all = listeners();
        all.retain(|listener| listener.number != self.number);
        count(&all);
    }
}

impl Event {
    /// Without the names of changes for those who did not ask for them, or have too many of them waiting.
    fn for_listener(&self, listener: &Listener) -> Event {
        let What::ModuleDurable {
            module,
            peer,
            applied,
            ..
        } = &self.what
        else {
            return self.clone();
        };
        let waiting = listener.waiting_bytes.load(Ordering::Relaxed);
        if listener.wants_changes && waiting + self.bytes_of_changes() <= WAITING_BYTES_MAX {
            return self.clone();
        }
        Event {
            of: self.of.clone(),
            what: What::ModuleDurable {
                module: module.clone(),
                peer: peer.clone(),
                applied: *applied,
                changes: Vec::new(),
                truncated: listener.wants_changes,
            },
            ..*self
        }
    }

    /// What the changes that it names take in memory, roughly.
    fn bytes_of_changes(&self) -> usize {
        let What::ModuleDurable { changes, .. } = &self.what else {
            return 0;
        };
        let texts = changes.iter().map(|change| change.path.len() + change.verb.len());
        texts.sum::<usize>() + size_of_val(changes.as_slice())
    }

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
    fn names_of_changes_that_nobody_takes_are_bounded_and_left_out_in_the_open() {
        let durable = |module: &str| What::ModuleDurable {
            module: module.to_owned(),
            peer: "p".to_owned(),
            applied: 100,
            changes: (0..100)
                .map(|number| AppliedChange {
                    verb: "put".to_owned(),
                    path: format!("{number}{}", "x".repeat(4_000)),
                    bytes: None,
                })
                .collect(),
            truncated: false,
        };
        let listening = listen_to(true, |_| true);
        let heard = |listening: &Listening| {
            let next = || listening.next(Duration::ZERO).map(|event| event.what);
            let named = std::iter::from_fn(next).filter_map(|what| match what {
                What::ModuleDurable {
                    module,
                    changes,
                    truncated,
                    ..
                } if module == "bounded" => Some((changes.len(), truncated)),
                _ => None,
            });
            named.collect::<Vec<_>>()
        };
        for _ in 0..100 {
            publish(None, durable("bounded"));
        }
        let first = heard(&listening);
        let named = first.iter().filter(|(named, _)| *named == 100).count();
        assert!((5..=10).contains(&named), "{named} of 400 kB each");
        assert!(first.iter().all(|(named, truncated)| (*named == 0) == *truncated));
        // What was taken leaves room.
        publish(None, durable("bounded"));
        assert_eq!(heard(&listening), [(100, false)]);
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
    fn what_a_listener_does_not_want_takes_nothing_from_it() {
        let own = |sequence| What::ModuleInSync {
            module: "wanted".to_owned(),
            peer: "p".to_owned(),
            sequence,
        };
        let listening = listen_to(
            false,
            |what| matches!(what, What::ModuleInSync { module, .. } if module == "wanted"),
        );
        publish(None, own(1));
        for _ in 0..2 * WAITING_MAX {
            publish(None, What::Drift);
        }
        publish(None, own(2));
        let next = || listening.next(Duration::ZERO).map(|event| event.what);
        assert_eq!((next(), next(), next()), (Some(own(1)), Some(own(2)), None));
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
