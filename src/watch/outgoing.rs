//! The bounded queue between reader threads, which must never wait, and whoever takes the events.

use super::WatchEvent;
use super::table::Member;
use crossbeam_channel::{Receiver, Sender, unbounded};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long events gather before they are read while nobody waits for them. Most of what one costs is to be woken for it.
const PATIENCE: Duration = Duration::from_millis(20);

/// The sending end, shared by the threads that say something. When the queue is full, events are dropped and one
/// [`WatchEvent::Overflow`] takes the place of all of them.
///
/// Nobody holds the lock while it waits for anything, so taking it is not waiting.
#[derive(Clone)]
pub(super) struct Outgoing {
    queue: Arc<Mutex<Option<Queue>>>,
    is_patient: Arc<AtomicBool>,
}

/// The queue itself, while somebody has it to themselves.
///
/// There is one place more than ordinary events may fill, so an overflow always finds room: it stands in the queue
/// where the first loss happened. While it stands there unread, further losses need no other: the rescan
/// that it asks for begins after it was read, and so after those events happened. Whether it is unread is known
/// without asking, because the queue is in order: it is, while the queue holds more than what was sent after it.
///
/// The channel itself knows no bound: one that does would take memory for all its places from the start, four megabytes for
/// a tree where nothing happens.
pub(super) struct Queue {
    sender: Sender<WatchEvent>,
    capacity: usize,
    /// How many events were sent after the last overflow; `None` when there was none.
    after_overflow: Option<usize>,
}

/// One thread's turn at the queue.
pub(super) struct Turn<'a>(MutexGuard<'a, Option<Queue>>);

impl Outgoing {
    /// A queue for `capacity` events, at least one.
    pub(super) fn new(capacity: usize) -> (Outgoing, Receiver<WatchEvent>) {
        let (queue, receiver) = Queue::new(capacity);
        let outgoing = Outgoing {
            queue: Arc::new(Mutex::new(Some(queue))),
            is_patient: Arc::default(),
        };
        (outgoing, receiver)
    }

    /// Whether whoever takes the events can wait for them; see [`super::Watcher::set_patient`].
    pub(super) fn set_patient(&self, is_patient: bool) {
        self.is_patient.store(is_patient, Ordering::Relaxed);
    }

    /// How long events are to gather before the next are read.
    pub(super) fn patience(&self) -> Option<Duration> {
        self.is_patient.load(Ordering::Relaxed).then_some(PATIENCE)
    }

    /// Takes the queue for a batch of events.
    pub(super) fn turn(&self) -> Turn<'_> {
        // The queue is whole after every statement that changes it.
        Turn(self.queue.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Says that events were lost, and that no more will come: the channel is disconnected.
    pub(super) fn close(&self) {
        let mut turn = self.turn();
        turn.send(WatchEvent::Overflow);
        *turn.0 = None;
    }
}

/// The queues of all trees that share a reader.
#[derive(Default)]
pub(super) struct Audience {
    queues: HashMap<Member, Outgoing>,
    /// Who comes next. Numbers are not used again, so that nobody gets the events of who left.
    next: u32,
}

impl Audience {
    /// Takes in one more.
    pub(super) fn join(&mut self, queue: Outgoing) -> Member {
        let member = Member(self.next);
        self.next = self.next.wrapping_add(1);
        self.queues.insert(member, queue);
        member
    }

    /// Lets one go.
    pub(super) fn leave(&mut self, member: Member) {
        self.queues.remove(&member);
    }

    /// Tells one of them. Never waits.
    pub(super) fn tell(&self, member: Member, event: WatchEvent) {
        if let Some(queue) = self.queues.get(&member) {
            queue.turn().send(event);
        }
    }

    /// Tells all that events were lost.
    pub(super) fn tell_of_loss(&self) {
        for queue in self.queues.values() {
            queue.turn().send(WatchEvent::Overflow);
        }
    }

    /// Tells all that events were lost and that no more will come.
    pub(super) fn close(&self) {
        self.queues.values().for_each(Outgoing::close);
    }

    /// How long events are to gather before the next are read: while anybody waits for them, not at all.
    pub(super) fn patience(&self) -> Option<Duration> {
        let is_patient = |queue: &Outgoing| queue.patience().is_some();
        self.queues.values().all(is_patient).then_some(PATIENCE)
    }
}

impl Turn<'_> {
    /// Sends an event, or tells that it was lost. Never waits.
    pub(super) fn send(&mut self, event: WatchEvent) {
        if let Some(queue) = &mut *self.0 {
            queue.send(event);
        }
    }

    /// Whether events of others would still find room after this many more.
    pub(super) fn has_room(&self, events: usize) -> bool {
        let room = |queue: &Queue| queue.capacity.saturating_sub(queue.sender.len());
        self.0.as_ref().is_none_or(|queue| room(queue) > events)
    }
}

impl Queue {
    fn new(capacity: usize) -> (Queue, Receiver<WatchEvent>) {
        let capacity = capacity.max(1);
        let (sender, receiver) = unbounded();
        let queue = Queue {
            sender,
            capacity,
            after_overflow: None,
        };
        (queue, receiver)
    }

    fn send(&mut self, event: WatchEvent) {
        // RACE: the taker may make room after this look. Then an event is dropped that had room: an early overflow.
        if event == WatchEvent::Overflow || self.sender.len() >= self.capacity {
            self.overflow();
        } else {
            // Nobody else sends. A failure means that nobody will ever take it.
            let _ = self.sender.send(event);
            self.after_overflow = self.after_overflow.map(|sent| sent.saturating_add(1));
        }
    }

    fn overflow(&mut self) {
        // RACE: the taker may take the overflow after this look. It was unread when the lost event had happened, so
        // the rescan will see it.
        if self.after_overflow.is_some_and(|sent| self.sender.len() > sent) {
            return;
        }
        let _ = self.sender.send(WatchEvent::Overflow);
        self.after_overflow = Some(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use driftless_protocol::ObjectId;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    fn event(number: u64) -> WatchEvent {
        WatchEvent::Itself {
            directory: ObjectId(number),
        }
    }

    #[test]
    fn a_full_queue_ends_with_one_overflow_and_goes_on_when_there_is_room() {
        let (mut queue, events) = Queue::new(2);
        (0..100).for_each(|number| queue.send(event(number)));
        let taken: Vec<_> = events.try_iter().collect();
        assert_eq!(taken, [event(0), event(1), WatchEvent::Overflow]);
        queue.send(event(100));
        assert_eq!(events.try_recv(), Ok(event(100)));
        assert!(events.is_empty());
    }

    #[test]
    fn losses_after_the_overflow_was_read_are_told_again() {
        let (mut queue, events) = Queue::new(1);
        queue.send(event(0));
        queue.send(event(1));
        assert_eq!(events.try_recv(), Ok(event(0)));
        assert_eq!(events.try_recv(), Ok(WatchEvent::Overflow));
        queue.send(event(2));
        queue.send(event(3));
        let taken: Vec<_> = events.try_iter().collect();
        assert_eq!(taken, [event(2), WatchEvent::Overflow]);
    }

    #[test]
    fn an_overflow_of_the_kernel_is_told_once_while_it_is_unread() {
        let (mut queue, events) = Queue::new(3);
        queue.send(WatchEvent::Overflow);
        queue.send(WatchEvent::Overflow);
        queue.send(event(0));
        queue.send(WatchEvent::Overflow);
        let taken: Vec<_> = events.try_iter().collect();
        assert_eq!(taken, [WatchEvent::Overflow, event(0)]);
        queue.send(WatchEvent::Overflow);
        assert_eq!(events.try_recv(), Ok(WatchEvent::Overflow));
    }

    #[test]
    fn a_closed_queue_tells_the_loss_and_takes_no_more() {
        let (queue, events) = Outgoing::new(4);
        let other = queue.clone();
        queue.turn().send(event(0));
        assert!(queue.turn().has_room(2) && !queue.turn().has_room(3));
        queue.close();
        other.turn().send(event(1));
        let taken: Vec<_> = events.try_iter().collect();
        assert_eq!(taken, [event(0), WatchEvent::Overflow]);
        assert!(events.try_recv().is_err_and(|error| error.is_disconnected()));
    }

    proptest! {
        /// Whatever the pace of the taker: for each event, either it comes out, or an overflow comes out after it was
        /// sent.
        #[test]
        fn no_loss_is_silent(capacity in 1usize..5, steps in prop::collection::vec(any::<bool>(), 0..200)) {
            let (mut queue, events) = Queue::new(capacity);
            let mut unseen = VecDeque::new();
            let take = |unseen: &mut VecDeque<u64>| match events.try_recv() {
                Ok(WatchEvent::Overflow) => unseen.clear(),
                Ok(WatchEvent::Itself { directory }) => unseen.retain(|&number| number != directory.0),
                _ => {}
            };
            for (number, sends) in (0..).zip(steps) {
                if sends {
                    unseen.push_back(number);
                    queue.send(event(number));
                    prop_assert!(queue.sender.len() <= capacity + 1);
                } else {
                    take(&mut unseen);
                }
            }
            while !events.is_empty() {
                take(&mut unseen);
            }
            prop_assert!(unseen.is_empty(), "lost {unseen:?}");
        }
    }
}
