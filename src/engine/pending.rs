//! Which places are waiting to be looked at: watch events in, places to look at out.
//!
//! Events are hints about where to look, never the truth, so all that is kept of them is *where* and *when*. There is
//! one slot for each (directory, name), whatever happens there and however often. A slot is in one of three states:
//!
//! | state | comes from | may leave |
//! | --- | --- | --- |
//! | writing | a file was created, or written while its writer has it open | `settle` after the last such hint, `max_delay` after the first |
//! | asked | [`Pending::handle_look`] | at the time that was asked for |
//! | asked | a name vanished | `pairing` later: if it was renamed, its new name is heard of first, and the object is recognised there instead of being buried here |
//! | ready | any other hint, or the time above has come | at once |
//!
//! What is ready stays ready until it leaves; a hint after that opens a new slot. An event overrules the time that
//! was asked for: the core finds out for itself whether it was too early.
//!
//! With a `delay`, what is ready waits for a window to close. It opens with the first pending change and closes
//! `delay` later, or as soon as `batch_max` places are ready; then everything that is ready leaves as one batch. What
//! is still being written then opens the next window when the first of it gets ready. So a change leaves no later
//! than `max_delay + delay` after its first hint.
//!
//! Memory is bounded. Above `capacity` slots, all of them collapse to their directories, each to be listed as a whole;
//! above `capacity` directories, these collapse to one rescan of everything. An overflow of the event queue does
//! that at once. What is pending and covers an event (a directory to be listed, a rescan) swallows it, because
//! the listing will begin after the event. A listing compares by stat: a core that asked for looks at files which
//! stat cannot tell apart (a writable mapping) keeps its own list of them, and asks again afterwards.
//!
//! Pure: no clock, no kernel. Every call that takes `now` wants it no earlier than in the call before.

mod event;
mod marks;
#[cfg(test)]
mod tests;

pub use event::{Hint, WatchEvent};

use driftless_protocol::{Name, ObjectId};
use marks::{Marks, in_order};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How [`Pending`] waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingOptions {
    /// How long a file that was created or written, but not closed, has to be quiet.
    pub settle: Duration,
    /// How long a file that is written all the time waits at most.
    pub max_delay: Duration,
    /// How long a name that vanished waits for the other half of a rename.
    pub pairing: Duration,
    /// How long changes are gathered into a batch, counted from the first; zero for not at all.
    pub delay: Duration,
    /// How many ready places end the gathering early. Looked at when something is handled or polled: files that
    /// settle do not bring the deadline forward by their number.
    pub batch_max: usize,
    /// How many names, and how many directories, may be pending one by one.
    pub capacity: usize,
    /// Which events say that a file's content may leave.
    pub writes: Writes,
}

/// Which events count for files that are written in place (lsyncd's `inotifyMode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Writes {
    /// Both: at once when it is closed, and while it stays open after `settle` or `max_delay`.
    #[default]
    Both,
    /// Only that it was closed: a file that stays open is left alone.
    Closed,
    /// Only the writes themselves, settled; that it was closed says no more than another write.
    Settled,
}

impl Default for PendingOptions {
    fn default() -> PendingOptions {
        PendingOptions {
            settle: Duration::from_millis(50),
            max_delay: Duration::from_secs(1),
            pairing: Duration::from_millis(5),
            delay: Duration::ZERO,
            batch_max: 1_000,
            capacity: 100_000,
            writes: Writes::Both,
        }
    }
}

/// What may be looked at now. Each place is listed once, and what became pending first comes first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ready {
    /// Look at these names.
    pub names: Vec<(ObjectId, Name)>,
    /// List these directories again, with everything directly in them.
    pub directories: Vec<ObjectId>,
    /// Look at the attributes of these directories themselves.
    pub attributes: Vec<ObjectId>,
    /// Find out what became of these directories and all below them: removed, moved or unmounted.
    pub gone: Vec<ObjectId>,
    /// Look at everything again. All else is empty then.
    pub rescan: bool,
}

impl Ready {
    /// Whether there is nothing to look at.
    pub fn is_empty(&self) -> bool {
        *self == Ready::default()
    }
}

/// The places that are waiting to be looked at. See the [module](self).
#[derive(Debug, Clone)]
pub struct Pending {
    options: PendingOptions,
    /// By the number that tells which came first.
    slots: BTreeMap<u64, Slot>,
    index: HashMap<ObjectId, HashMap<Arc<Name>, u64>>,
    /// The slots that may leave, as far as `advance` has looked.
    ready: BTreeSet<u64>,
    /// All other slots, by when they may leave. Exact: a slot whose time changes is moved.
    waiting: BTreeSet<(Instant, u64)>,
    marks: Marks,
    rescan: bool,
    /// When the window opened that gathers a batch, or will open.
    window: Option<Instant>,
    /// When the first of what is ready now got ready.
    ready_since: Option<Instant>,
    /// What is ready leaves without waiting for the window.
    is_expedited: bool,
    next: u64,
}

#[derive(Debug, Clone)]
struct Slot {
    directory: ObjectId,
    name: Arc<Name>,
    since: Instant,
    state: State,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Writing { first: Instant, due: Instant },
    Asked { due: Instant },
    Ready,
}

impl Pending {
    /// Nothing is pending.
    pub fn new(options: PendingOptions) -> Pending {
        Pending {
            options,
            slots: BTreeMap::new(),
            index: HashMap::new(),
            ready: BTreeSet::new(),
            waiting: BTreeSet::new(),
            marks: Marks::default(),
            rescan: false,
            window: None,
            ready_since: None,
            is_expedited: false,
            next: 0,
        }
    }

    /// Takes in an event.
    pub fn handle_event(&mut self, now: Instant, event: &WatchEvent) {
        self.advance(now);
        if self.rescan {
            return;
        }
        match event {
            WatchEvent::Renamed { to, is_directory, .. } => {
                let (directory, name) = to.clone();
                let event = WatchEvent::At {
                    directory,
                    name,
                    hint: Hint::MovedIn,
                    is_directory: *is_directory,
                };
                return self.handle_event(now, &event);
            }
            WatchEvent::At {
                directory,
                name,
                hint,
                is_directory,
            } => {
                if self.marks.listing.contains_key(directory)
                    || (*hint == Hint::Modified && self.options.writes == Writes::Closed)
                {
                    return;
                }
                let writing = match hint {
                    Hint::Created => !is_directory,
                    Hint::Modified => true,
                    Hint::Closed => self.options.writes == Writes::Settled,
                    Hint::MovedIn | Hint::Vanished | Hint::Attributes => false,
                };
                self.open_window(now);
                let (number, old) = self.slot(now, *directory, name);
                let state = match (old, writing) {
                    (Some(State::Ready), _) => State::Ready,
                    (old, false) if *hint == Hint::Vanished => {
                        let pairing = later(now, self.options.pairing);
                        let due = match old {
                            Some(State::Asked { due }) => due.min(pairing),
                            _ => pairing,
                        };
                        State::Asked { due }
                    }
                    (_, false) => State::Ready,
                    (Some(State::Writing { first, .. }), true) => self.writing(first, now),
                    (Some(State::Asked { .. }) | None, true) => self.writing(now, now),
                };
                self.set_state(now, number, old, state);
            }
            WatchEvent::Listing { directory } => self.mark(now, *directory, |marks| &mut marks.listing),
            WatchEvent::Itself { directory } => self.mark(now, *directory, |marks| &mut marks.attributes),
            WatchEvent::Gone { directory } => self.mark(now, *directory, |marks| &mut marks.gone),
            WatchEvent::Overflow => {
                self.open_window(now);
                self.collapse_to_rescan(now);
            }
        }
        self.bound(now);
    }

    /// Asks that a name be looked at again, not before `not_before`. When something else makes it ready earlier,
    /// that look is the one that is meant, and no second one follows.
    pub fn handle_look(&mut self, now: Instant, directory: ObjectId, name: &Name, not_before: Instant) {
        self.advance(now);
        if self.rescan || self.marks.listing.contains_key(&directory) {
            return;
        }
        let asked = not_before.max(now);
        self.open_window(asked);
        let (number, old) = self.slot(now, directory, name);
        let state = match old {
            Some(state @ (State::Writing { .. } | State::Ready)) => state,
            Some(State::Asked { due }) => State::Asked { due: due.min(asked) },
            None => State::Asked { due: asked },
        };
        self.set_state(now, number, old, state);
        self.bound(now);
    }

    /// Has everything that is pending be ready now, whatever it waits for: files under open writers, halves of renames,
    /// the window that gathers a batch. What is told later waits again.
    pub fn expedite(&mut self, now: Instant) {
        self.advance(now);
        while let Some((_, number)) = self.waiting.pop_first() {
            self.ready.insert(number);
            if let Some(slot) = self.slots.get_mut(&number) {
                slot.state = State::Ready;
            }
        }
        if self.ready_count() > 0 {
            self.note_ready(now);
            self.is_expedited = true;
        }
    }

    /// Takes out everything that may be looked at now.
    pub fn poll_ready(&mut self, now: Instant) -> Ready {
        self.advance(now);
        if self.leaves_at().is_none_or(|at| at > now) {
            return Ready::default();
        }
        let names = std::mem::take(&mut self.ready)
            .into_iter()
            .filter_map(|number| self.remove(number))
            .map(|slot| (slot.directory, Arc::unwrap_or_clone(slot.name)))
            .collect();
        let marks = std::mem::take(&mut self.marks);
        self.ready_since = None;
        self.is_expedited = false;
        self.window = self.waiting.first().map(|&(due, _)| due);
        Ready {
            names,
            directories: in_order(marks.listing),
            attributes: in_order(marks.attributes),
            gone: in_order(marks.gone),
            rescan: std::mem::take(&mut self.rescan),
        }
    }

    /// When [`Pending::poll_ready`] will next have something, if nothing else happens; a time in the past when it
    /// has something now, `None` when nothing is pending.
    pub fn poll_deadline(&self) -> Option<Instant> {
        match self.leaves_at() {
            Some(at) => Some(at),
            None => {
                let &(due, _) = self.waiting.first()?;
                Some(self.closes_at().map_or(due, |closes| closes.max(due)))
            }
        }
    }

    /// How many places are pending: names, directories, and one for a rescan.
    pub fn len(&self) -> usize {
        self.slots.len() + self.marks.len() + usize::from(self.rescan)
    }

    /// Whether nothing is pending.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// When the oldest of what is pending was first heard of.
    pub fn oldest(&self) -> Option<Instant> {
        let slot = self.slots.first_key_value().map(|(_, slot)| slot.since);
        slot.into_iter().chain(self.marks.since).min()
    }

    /// Drops all that is pending in or about a directory, because it is no longer part of the tree. A rescan stays.
    pub fn forget_directory(&mut self, directory: ObjectId) {
        for number in self
            .index
            .remove(&directory)
            .into_iter()
            .flat_map(HashMap::into_values)
        {
            if let Some(slot) = self.slots.remove(&number) {
                match slot.state {
                    State::Writing { due, .. } | State::Asked { due } => self.waiting.remove(&(due, number)),
                    State::Ready => self.ready.remove(&number),
                };
            }
        }
        self.marks.forget(directory);
        if self.marks.len() == 0 && !self.rescan {
            self.marks.since = None;
        }
        if self.ready_count() == 0 {
            self.is_expedited = false;
            self.ready_since = None;
        }
        if self.is_empty() {
            self.window = None;
        }
    }

    /// Makes ready what has waited long enough. Each slot passes here at most once.
    fn advance(&mut self, now: Instant) {
        while let Some(&(due, number)) = self.waiting.first()
            && due <= now
        {
            self.waiting.pop_first();
            self.ready.insert(number);
            if let Some(slot) = self.slots.get_mut(&number) {
                slot.state = State::Ready;
            }
            self.note_ready(due);
        }
    }

    /// The slot of a place, and the state it is in; `None` for a new one, whose state must be set next.
    fn slot(&mut self, now: Instant, directory: ObjectId, name: &Name) -> (u64, Option<State>) {
        let names = self.index.entry(directory).or_default();
        if let Some(&number) = names.get(name) {
            return (number, self.slots.get(&number).map(|slot| slot.state));
        }
        let number = self.next;
        self.next += 1;
        let name = Arc::new(name.clone());
        names.insert(name.clone(), number);
        self.slots.insert(
            number,
            Slot {
                directory,
                name,
                since: now,
                state: State::Ready,
            },
        );
        (number, None)
    }

    fn set_state(&mut self, now: Instant, number: u64, old: Option<State>, new: State) {
        if let Some(State::Writing { due, .. } | State::Asked { due }) = old {
            self.waiting.remove(&(due, number));
        }
        match new {
            State::Writing { due, .. } | State::Asked { due } if due > now => {
                self.waiting.insert((due, number));
                self.slots.entry(number).and_modify(|slot| slot.state = new);
            }
            _ => {
                self.ready.insert(number);
                self.slots
                    .entry(number)
                    .and_modify(|slot| slot.state = State::Ready);
                self.note_ready(now);
            }
        }
    }

    fn writing(&self, first: Instant, now: Instant) -> State {
        let due = later(now, self.options.settle).min(later(first, self.options.max_delay));
        State::Writing { first, due }
    }

    fn mark(&mut self, now: Instant, directory: ObjectId, of: fn(&mut Marks) -> &mut HashMap<ObjectId, u64>) {
        self.open_window(now);
        self.note_ready(now);
        self.marks.since.get_or_insert(now);
        of(&mut self.marks).entry(directory).or_insert(self.next);
        self.next += 1;
    }

    /// Keeps memory bounded. Costs nothing until a bound is passed, and then what it drops has been paid for.
    fn bound(&mut self, now: Instant) {
        if self.slots.len() > self.options.capacity {
            self.marks.since = self.oldest();
            for (number, slot) in std::mem::take(&mut self.slots) {
                self.marks.listing.entry(slot.directory).or_insert(number);
            }
            self.clear_slots();
            self.note_ready(now);
        }
        if self.marks.len() > self.options.capacity {
            self.collapse_to_rescan(now);
        }
    }

    fn collapse_to_rescan(&mut self, now: Instant) {
        let since = self.oldest().unwrap_or(now);
        self.slots.clear();
        self.clear_slots();
        self.marks = Marks {
            since: Some(since),
            ..Marks::default()
        };
        self.rescan = true;
        self.note_ready(now);
    }

    fn clear_slots(&mut self) {
        self.index.clear();
        self.ready.clear();
        self.waiting.clear();
    }

    fn remove(&mut self, number: u64) -> Option<Slot> {
        let slot = self.slots.remove(&number)?;
        if let Some(names) = self.index.get_mut(&slot.directory) {
            names.remove(&*slot.name);
            if names.is_empty() {
                self.index.remove(&slot.directory);
            }
        }
        Some(slot)
    }

    fn open_window(&mut self, at: Instant) {
        self.window = Some(self.window.map_or(at, |window| window.min(at)));
    }

    fn note_ready(&mut self, at: Instant) {
        self.ready_since = Some(self.ready_since.map_or(at, |since| since.min(at)));
    }

    fn ready_count(&self) -> usize {
        self.ready.len() + self.marks.len() + usize::from(self.rescan)
    }

    /// When the present window closes; `None` when there is none to wait for.
    fn closes_at(&self) -> Option<Instant> {
        let open = self.options.delay > Duration::ZERO
            && self.ready_count() < self.options.batch_max
            && !self.is_expedited;
        self.window
            .filter(|_| open)
            .map(|window| later(window, self.options.delay))
    }

    /// When what is ready leaves; `None` when nothing is ready.
    fn leaves_at(&self) -> Option<Instant> {
        let since = self.ready_since?;
        Some(self.closes_at().map_or(since, |closes| closes.max(since)))
    }
}

/// `at + by`, or a time that never comes.
fn later(at: Instant, by: Duration) -> Instant {
    const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
    at.checked_add(by.min(NEVER)).unwrap_or(at)
}
