//! The barriers of a sender, from the wish to the answer.
//!
//! | stage | ends when |
//! | --- | --- |
//! | flushing | the watcher's threads have read everything that the kernel held when the wish came, and it has been taken |
//! | looking | everything that was told of has been looked at, without waiting for writers or windows. From here on the journal has all that happened before |
//! | catching up | the session has taken the journal to its end once, so that what is not on the target is in its lists |
//! | owing | each object in those lists is done: the target has it as it was then, or later |
//! | confirming | the receiver says that it is received or durable |
//!
//! An object that changes all the time is never without something to send. It is done when an op ended that was made from its
//! state at the beginning of *owing* or later; of contents that is known by the sequence number under which they were read.
//! When a connection ends, its lists are gone, and *catching up* begins again on the next.

use super::work::InFlight;
use crate::daemon::barrier::{BarrierEnd, BarrierRequest, Checkpoint, Level, Request};
use crossbeam_channel::{Receiver, Select, TryRecvError};
use driftless_protocol::message::Place;
use driftless_protocol::{ObjectId, RelPath};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Above this many objects they are not looked through at each turn.
const OFTEN_MAX: usize = 1_000;
/// But so often.
const CHECK_EVERY: Duration = Duration::from_millis(20);

/// The barriers of a sender, and what else it was asked.
#[derive(Debug, Default)]
pub struct Barriers {
    requests: Option<Receiver<Request>>,
    active: Vec<Barrier>,
    tokens: u64,
    checked: Option<Instant>,
    /// The checkpoints of this target.
    pub checkpoints: Vec<Checkpoint>,
}

/// Who is told.
#[derive(Debug)]
pub enum Asker {
    /// Somebody waits.
    Waits(BarrierRequest),
    /// It is the checkpoint of this name.
    Checkpoint(String),
}

/// One point in time.
#[derive(Debug)]
pub struct Barrier {
    asker: Asker,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Flushing(Receiver<()>),
    Looking,
    CatchingUp,
    Owing(Owing),
}

/// What has to end first.
#[derive(Debug, Default)]
pub struct Owing {
    /// Objects that have to be put, and at which state at least.
    pub objects: HashMap<ObjectId, Owed>,
    /// Objects that have to be removed, and from where.
    pub removals: HashMap<ObjectId, Place>,
    confirm: Confirm,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Confirm {
    #[default]
    NotAsked,
    Asked(u64),
    Given,
}

/// An object that has to be put.
#[derive(Debug, Clone)]
pub struct Owed {
    /// The number of its last change when it was noted.
    pub sequence: u64,
    /// Where it stood.
    pub place: Place,
    /// The op under way that will do.
    pub sent: Option<u64>,
}

impl Owed {
    /// Whether an op does for it; `is_later` says that the op was made after the object was noted.
    fn is_met_by(&self, flight: &InFlight, is_later: bool) -> bool {
        match flight {
            InFlight::Content { sequence, .. } | InFlight::HardLink { sequence, .. } => {
                *sequence >= self.sequence
            }
            // These come when nothing else is left to do for the object.
            InFlight::Make { .. } | InFlight::Attributes { .. } | InFlight::Link { .. } => is_later,
            InFlight::Move { .. }
            | InFlight::Withdrawn { .. }
            | InFlight::Remove { .. }
            | InFlight::Adopt { .. }
            | InFlight::Owners { .. }
            | InFlight::Mark => false,
        }
    }
}

/// What the receiver has to be asked for a barrier to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// Whether all ops up to a number have arrived.
    Received {
        /// The token.
        token: u64,
        /// The number.
        through: u64,
    },
    /// Whether all is durable.
    Durable {
        /// The token.
        token: u64,
    },
}

impl Barriers {
    /// None yet; requests come from `requests`, if they can come at all.
    pub fn new(requests: Option<Receiver<Request>>) -> Barriers {
        Barriers {
            requests,
            ..Barriers::default()
        }
    }

    /// The next request.
    pub fn poll_request(&self) -> Option<Request> {
        self.requests.as_ref()?.try_recv().ok()
    }

    /// Adds what a thread has to wait for.
    pub fn register<'a>(&'a self, select: &mut Select<'a>) {
        if let Some(requests) = &self.requests {
            select.recv(requests);
        }
        for barrier in &self.active {
            if let Stage::Flushing(flushed) = &barrier.stage {
                select.recv(flushed);
            }
        }
    }

    /// When a barrier has to be looked at, if nothing happens before.
    pub fn deadline(&self) -> Option<Instant> {
        let is_due = self.active.iter().any(|barrier| match &barrier.stage {
            Stage::Owing(owing) => owing.objects.len() > OFTEN_MAX,
            _ => false,
        });
        self.checked.filter(|_| is_due).map(|at| at + CHECK_EVERY)
    }

    /// A new one. `flushed` disconnects when all events up to now are in the channel.
    pub fn add(&mut self, asker: Asker, flushed: Receiver<()>) {
        self.active.push(Barrier {
            asker,
            stage: Stage::Flushing(flushed),
        });
    }

    /// Drops those for which nobody waits any more.
    pub fn drop_abandoned(&mut self) {
        self.active.retain(|barrier| match &barrier.asker {
            Asker::Waits(request) => request.asker.strong_count() > 0,
            Asker::Checkpoint(_) => true,
        });
    }

    /// Forgets the barrier of a checkpoint.
    pub fn forget_checkpoint(&mut self, name: &str) {
        self.active
            .retain(|barrier| !matches!(&barrier.asker, Asker::Checkpoint(own) if own == name));
    }

    /// Which of them have all their events in the channel. Ask before taking these.
    pub fn flushed(&self) -> Vec<usize> {
        let is_flushed = |barrier: &Barrier| match &barrier.stage {
            Stage::Flushing(flushed) => flushed.try_recv() == Err(TryRecvError::Disconnected),
            _ => false,
        };
        (0..self.active.len())
            .filter(|&at| is_flushed(&self.active[at]))
            .collect()
    }

    /// Their events were taken.
    pub fn handle_flushed(&mut self, flushed: &[usize]) {
        for &at in flushed {
            self.active[at].stage = Stage::Looking;
        }
    }

    /// Whether everything that is pending has to be looked at without delay: somebody waits for that, or for removals, which
    /// are sent when nothing is pending.
    pub fn is_looking(&self) -> bool {
        self.active.iter().any(|barrier| match &barrier.stage {
            Stage::Looking => true,
            Stage::Owing(owing) => !owing.removals.is_empty(),
            Stage::Flushing(_) | Stage::CatchingUp => false,
        })
    }

    /// Whether removals are owed.
    pub fn owe_removals(&self) -> bool {
        let owes =
            |barrier: &Barrier| matches!(&barrier.stage, Stage::Owing(owing) if !owing.removals.is_empty());
        self.active.iter().any(owes)
    }

    /// Everything that was told of has been looked at.
    pub fn handle_looked(&mut self) {
        for barrier in &mut self.active {
            if matches!(barrier.stage, Stage::Looking) {
                barrier.stage = Stage::CatchingUp;
            }
        }
    }

    /// The connection ended.
    pub fn handle_disconnected(&mut self) {
        for barrier in &mut self.active {
            if matches!(barrier.stage, Stage::Owing(_)) {
                barrier.stage = Stage::CatchingUp;
            }
        }
    }

    /// Answers may have been missed: they are asked for again.
    pub fn ask_again(&mut self) {
        for owing in self.owing() {
            if owing.confirm != Confirm::Given {
                owing.confirm = Confirm::NotAsked;
            }
        }
    }

    /// Whether there is anything for a session to do.
    pub fn concern_session(&self) -> bool {
        self.active
            .iter()
            .any(|barrier| matches!(barrier.stage, Stage::CatchingUp | Stage::Owing(_)))
    }

    /// Whether it is time to look at them.
    pub fn is_check_due(&mut self, now: Instant) -> bool {
        let is_due = self.deadline().is_none_or(|due| due <= now);
        if is_due {
            self.checked = Some(now);
        }
        is_due
    }

    /// Those that wait for the end of the journal.
    pub fn catching_up(&self) -> Vec<usize> {
        let is_catching_up = |at: &usize| matches!(self.active[*at].stage, Stage::CatchingUp);
        (0..self.active.len()).filter(is_catching_up).collect()
    }

    /// What one is about.
    pub fn below(&self, at: usize) -> RelPath {
        match &self.active[at].asker {
            Asker::Waits(request) => request.below.clone(),
            Asker::Checkpoint(_) => RelPath::root(),
        }
    }

    /// The session caught up, and owes this.
    pub fn set_owing(&mut self, at: usize, owing: Owing) {
        self.active[at].stage = Stage::Owing(owing);
    }

    /// What is owed, of each of those that know it.
    pub fn owing(&mut self) -> impl Iterator<Item = &mut Owing> {
        self.active
            .iter_mut()
            .filter_map(|barrier| match &mut barrier.stage {
                Stage::Owing(owing) => Some(owing),
                _ => None,
            })
    }

    /// Whether an object is owed to anybody.
    pub fn wants(&self, object: ObjectId) -> bool {
        self.active.iter().any(|barrier| match &barrier.stage {
            Stage::Owing(owing) => owing.objects.contains_key(&object),
            _ => false,
        })
    }

    /// An op was sent.
    pub fn handle_sent(&mut self, number: u64, flight: &InFlight) {
        let Some(object) = flight.object() else { return };
        for owing in self.owing() {
            if let Some(owed) = owing.objects.get_mut(&object) {
                owed.sent = owed.is_met_by(flight, true).then_some(number);
            }
        }
    }

    /// An op was applied.
    pub fn handle_applied(&mut self, flight: &InFlight) {
        let Some(object) = flight.object() else { return };
        for owing in self.owing() {
            if let Some(owed) = owing.objects.get_mut(&object) {
                if owed.is_met_by(flight, owed.sent.is_some()) {
                    owing.objects.remove(&object);
                } else {
                    owed.sent = None;
                }
            }
        }
    }

    /// What was sent of an object comes to nothing.
    pub fn handle_given_up(&mut self, object: ObjectId) {
        for owing in self.owing() {
            if let Some(owed) = owing.objects.get_mut(&object) {
                owed.sent = None;
            }
        }
    }

    /// The receiver confirmed something.
    pub fn handle_confirmed(&mut self, token: u64) {
        for owing in self.owing() {
            if owing.confirm == Confirm::Asked(token) {
                owing.confirm = Confirm::Given;
            }
        }
    }

    /// What the receiver has to be asked now. `sent_removals` says up to which op those removals were sent, none if they were
    /// not all.
    pub fn poll_question(
        &mut self,
        sent_removals: impl Fn(&HashMap<ObjectId, Place>) -> Option<u64>,
    ) -> Option<Question> {
        let token = self.tokens + 1;
        for barrier in &mut self.active {
            let level = barrier.level();
            let Stage::Owing(owing) = &mut barrier.stage else {
                continue;
            };
            if owing.confirm != Confirm::NotAsked {
                continue;
            }
            let question = match level {
                Level::Applied => None,
                Level::Durable => owing.is_done().then_some(Question::Durable { token }),
                Level::Received if owing.is_done() => None,
                Level::Received => owing
                    .sent(&sent_removals)
                    .map(|through| Question::Received { token, through }),
            };
            if question.is_some() {
                owing.confirm = Confirm::Asked(token);
                self.tokens = token;
                return question;
            }
        }
        None
    }

    /// Takes out those that are reached.
    pub fn take_reached(&mut self) -> Vec<Asker> {
        let reached = self.active.extract_if(.., |barrier| {
            let level = barrier.level();
            match &barrier.stage {
                Stage::Owing(owing) => match level {
                    Level::Received => owing.confirm == Confirm::Given || owing.is_done(),
                    Level::Applied => owing.is_done(),
                    Level::Durable => owing.confirm == Confirm::Given,
                },
                _ => false,
            }
        });
        reached.map(|barrier| barrier.asker).collect()
    }

    /// Takes out one that makes no sense.
    pub fn refuse(&mut self, at: usize, text: String) {
        if let Asker::Waits(request) = self.active.remove(at).asker {
            let _ = request.answer.try_send(BarrierEnd::Refused(text));
        }
    }
}

impl Barrier {
    fn level(&self) -> Level {
        match &self.asker {
            Asker::Waits(request) => request.level,
            Asker::Checkpoint(_) => Level::Durable,
        }
    }
}

impl Owing {
    fn is_done(&self) -> bool {
        self.objects.is_empty() && self.removals.is_empty()
    }

    /// The highest op that has to arrive, if all were sent.
    fn sent(&self, sent_removals: &impl Fn(&HashMap<ObjectId, Place>) -> Option<u64>) -> Option<u64> {
        let mut through = sent_removals(&self.removals)?;
        for owed in self.objects.values() {
            through = through.max(owed.sent?);
        }
        Some(through)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::bounded;
    use driftless_protocol::{Attributes, Name};
    use std::sync::Arc;

    fn place() -> Place {
        Place {
            directory: ObjectId::ROOT,
            name: Name::new(b"a".as_slice()).unwrap(),
        }
    }

    fn content(object: u64, sequence: u64) -> InFlight {
        InFlight::Content {
            object: ObjectId(object),
            sequence,
            place: place(),
            digest: None,
            stamp: None,
            attributes: Attributes::default(),
        }
    }

    fn attributes(object: u64) -> InFlight {
        InFlight::Attributes {
            object: ObjectId(object),
            attributes: Attributes::default(),
        }
    }

    fn owed(sequence: u64) -> Owed {
        Owed {
            sequence,
            place: place(),
            sent: None,
        }
    }

    /// A barrier that owes an object of a sequence, and the wish behind it.
    fn one(level: Level, sequence: u64) -> (Barriers, Arc<()>, Receiver<BarrierEnd>) {
        let mut barriers = Barriers::default();
        let (asker, (answer, end)) = (Arc::new(()), bounded(1));
        let (reader, flushed) = bounded(0);
        let request = BarrierRequest::new(RelPath::root(), level, answer, &asker);
        barriers.add(Asker::Waits(request), flushed);
        assert!(barriers.flushed().is_empty());
        drop(reader);
        let flushed = barriers.flushed();
        barriers.handle_flushed(&flushed);
        assert!(barriers.is_looking() && !barriers.concern_session());
        barriers.handle_looked();
        assert_eq!(barriers.catching_up(), [0]);
        let mut owing = Owing::default();
        owing.objects.insert(ObjectId(7), owed(sequence));
        barriers.set_owing(0, owing);
        (barriers, asker, end)
    }

    #[test]
    fn what_was_read_before_does_not_count_and_what_was_read_later_does() {
        let (mut barriers, _asker, _) = one(Level::Applied, 10);
        barriers.handle_applied(&content(7, 9));
        barriers.handle_applied(&content(8, 99));
        // Sent before the object was noted.
        barriers.handle_applied(&attributes(7));
        assert!(barriers.take_reached().is_empty());
        barriers.handle_applied(&content(7, 10));
        assert_eq!(barriers.take_reached().len(), 1);
        let (mut barriers, _asker, _) = one(Level::Applied, 10);
        barriers.handle_sent(1, &attributes(7));
        barriers.handle_applied(&attributes(7));
        assert_eq!(barriers.take_reached().len(), 1);
    }

    #[test]
    fn durable_is_asked_for_when_all_is_applied() {
        let (mut barriers, _asker, _) = one(Level::Durable, 10);
        assert_eq!(barriers.poll_question(|_| Some(0)), None);
        barriers.handle_applied(&content(7, 10));
        assert_eq!(
            barriers.poll_question(|_| Some(0)),
            Some(Question::Durable { token: 1 })
        );
        assert_eq!(barriers.poll_question(|_| Some(0)), None);
        barriers.handle_confirmed(2);
        assert!(barriers.take_reached().is_empty());
        barriers.ask_again();
        assert_eq!(
            barriers.poll_question(|_| Some(0)),
            Some(Question::Durable { token: 2 })
        );
        barriers.handle_confirmed(2);
        assert_eq!(barriers.take_reached().len(), 1);
    }

    #[test]
    fn received_is_asked_for_when_all_is_sent() {
        let (mut barriers, _asker, _) = one(Level::Received, 10);
        barriers.handle_sent(4, &content(7, 9));
        assert_eq!(barriers.poll_question(|_| Some(0)), None);
        barriers.handle_sent(5, &content(7, 11));
        assert_eq!(barriers.poll_question(|_| None), None);
        let question = barriers.poll_question(|_| Some(9));
        assert_eq!(question, Some(Question::Received { token: 1, through: 9 }));
        barriers.handle_confirmed(1);
        assert_eq!(barriers.take_reached().len(), 1);
    }

    #[test]
    fn a_lost_connection_begins_again_and_nobody_is_waited_for_in_vain() {
        let (mut barriers, asker, _) = one(Level::Applied, 10);
        assert!(barriers.wants(ObjectId(7)));
        barriers.handle_disconnected();
        assert_eq!(barriers.catching_up(), [0]);
        barriers.drop_abandoned();
        assert!(barriers.concern_session());
        drop(asker);
        barriers.drop_abandoned();
        assert!(!barriers.concern_session());
    }
}
