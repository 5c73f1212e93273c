//! The pending set against a model that is slow, short and says what the module's documentation says.

use super::super::*;
use proptest::prelude::*;

/// Scans everything on every call.
struct Model {
    options: PendingOptions,
    slots: Vec<ModelSlot>,
    /// Each with the number of what made it pending.
    listing: Vec<(u64, ObjectId)>,
    attributes: Vec<ObjectId>,
    gone: Vec<ObjectId>,
    rescan: bool,
    window: Option<Instant>,
    next: u64,
}

struct ModelSlot {
    number: u64,
    place: (ObjectId, Name),
    /// First and last write, while it is being written.
    writes: Option<(Instant, Instant)>,
    asked: Option<Instant>,
    ready: bool,
}

impl Model {
    fn due(&self, slot: &ModelSlot) -> Option<Instant> {
        match slot.writes {
            Some((first, last)) => Some((last + self.options.settle).min(first + self.options.max_delay)),
            None => slot.asked,
        }
    }

    fn settle(&mut self, now: Instant) {
        for at in 0..self.slots.len() {
            if self.due(&self.slots[at]).is_some_and(|due| due <= now) {
                self.slots[at].ready = true;
            }
        }
    }

    fn slot(&mut self, directory: ObjectId, name: &Name) -> &mut ModelSlot {
        let place = (directory, name.clone());
        let at = self
            .slots
            .iter()
            .position(|slot| slot.place == place)
            .unwrap_or_else(|| {
                self.next += 1;
                self.slots.push(ModelSlot {
                    number: self.next,
                    place,
                    writes: None,
                    asked: None,
                    ready: false,
                });
                self.slots.len() - 1
            });
        &mut self.slots[at]
    }

    fn is_listed(&self, directory: ObjectId) -> bool {
        self.listing.iter().any(|(_, listed)| *listed == directory)
    }

    fn list(&mut self, number: u64, directory: ObjectId) {
        if !self.is_listed(directory) {
            self.listing.push((number, directory));
        }
    }

    /// What became pending first comes first.
    fn take_listing(&mut self) -> Vec<ObjectId> {
        let mut listing = std::mem::take(&mut self.listing);
        listing.sort();
        listing.into_iter().map(|(_, directory)| directory).collect()
    }

    fn handle(&mut self, now: Instant, action: &Action) {
        self.settle(now);
        if self.rescan {
            return;
        }
        let opens = match action {
            Action::Look(.., wait) => now + *wait,
            _ => now,
        };
        match action {
            Action::Event(WatchEvent::At { directory, .. }) | Action::Look(directory, ..)
                if self.is_listed(*directory) =>
            {
                return;
            }
            Action::Look(directory, name, _) => {
                let slot = self.slot(*directory, name);
                slot.asked = Some(slot.asked.map_or(opens, |asked| asked.min(opens)));
            }
            Action::Event(WatchEvent::At {
                directory,
                name,
                hint,
                is_directory,
            }) => {
                let writes = self.options.writes;
                let waits = match hint {
                    Hint::Modified if writes == Writes::Closed => return,
                    Hint::Modified => true,
                    Hint::Created => !is_directory,
                    Hint::Closed => writes == Writes::Settled,
                    _ => false,
                };
                let pairing = now + self.options.pairing;
                let slot = self.slot(*directory, name);
                if *hint == Hint::Vanished {
                    // What was asked for while it was written is forgotten: the write decided.
                    let asked = slot.asked.filter(|_| slot.writes.is_none());
                    slot.writes = None;
                    slot.asked = Some(asked.map_or(pairing, |asked| asked.min(pairing)));
                } else if waits {
                    slot.writes = Some((slot.writes.map_or(now, |(first, _)| first), now));
                } else {
                    slot.ready = true;
                }
            }
            // Its old place is told by an event of its own.
            Action::Event(WatchEvent::Renamed { to, .. }) if self.is_listed(to.0) => return,
            Action::Event(WatchEvent::Renamed { to, .. }) => self.slot(to.0, &to.1).ready = true,
            Action::Event(WatchEvent::Listing { directory }) => {
                self.next += 1;
                self.list(self.next, *directory);
            }
            Action::Event(WatchEvent::Itself { directory }) => once(&mut self.attributes, *directory),
            Action::Event(WatchEvent::Gone { directory }) => once(&mut self.gone, *directory),
            Action::Event(WatchEvent::Overflow) => self.rescan = true,
            Action::Wait(_) | Action::Poll => return,
        }
        self.window = Some(self.window.map_or(opens, |window| window.min(opens)));
        self.settle(now);
        if self.slots.len() > self.options.capacity {
            for slot in std::mem::take(&mut self.slots) {
                self.list(slot.number, slot.place.0);
            }
        }
        if self.listing.len() + self.attributes.len() + self.gone.len() > self.options.capacity || self.rescan
        {
            self.rescan = true;
            self.slots.clear();
            self.listing.clear();
            self.attributes.clear();
            self.gone.clear();
        }
    }

    fn poll(&mut self, now: Instant) -> Ready {
        self.settle(now);
        let slots = self.slots.iter().filter(|slot| slot.ready).count();
        let count =
            slots + self.listing.len() + self.attributes.len() + self.gone.len() + usize::from(self.rescan);
        let closed = self.options.delay.is_zero()
            || count >= self.options.batch_max
            || self
                .window
                .is_some_and(|window| window + self.options.delay <= now);
        if count == 0 || !closed {
            return Ready::default();
        }
        let (ready, rest) = std::mem::take(&mut self.slots)
            .into_iter()
            .partition(|slot| slot.ready);
        self.slots = rest;
        self.window = self.slots.iter().filter_map(|slot| self.due(slot)).min();
        let ready: Vec<ModelSlot> = ready;
        Ready {
            names: ready.into_iter().map(|slot| slot.place).collect(),
            directories: self.take_listing(),
            attributes: std::mem::take(&mut self.attributes),
            gone: std::mem::take(&mut self.gone),
            rescan: std::mem::take(&mut self.rescan),
        }
    }

    fn len(&self) -> usize {
        self.slots.len()
            + self.listing.len()
            + self.attributes.len()
            + self.gone.len()
            + usize::from(self.rescan)
    }
}

fn once(list: &mut Vec<ObjectId>, directory: ObjectId) {
    if !list.contains(&directory) {
        list.push(directory);
    }
}

#[derive(Debug, Clone)]
enum Action {
    Event(WatchEvent),
    Look(ObjectId, Name, Duration),
    Wait(Duration),
    Poll,
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let directory = || (1u64..4).prop_map(ObjectId);
    let name = || "[a-d]".prop_map(|text| Name::new(text.as_bytes()).unwrap());
    let hint = prop::sample::select(vec![
        Hint::Created,
        Hint::MovedIn,
        Hint::Vanished,
        Hint::Closed,
        Hint::Modified,
        Hint::Modified,
        Hint::Attributes,
    ]);
    let ms = |range: std::ops::Range<u64>| range.prop_map(Duration::from_millis);
    let at = (directory(), name(), hint, prop::bool::weighted(0.1)).prop_map(
        |(directory, name, hint, is_directory)| {
            Action::Event(WatchEvent::At {
                directory,
                name,
                hint,
                is_directory,
            })
        },
    );
    let renamed = ((directory(), name()), (directory(), name())).prop_map(|(from, to)| {
        Action::Event(WatchEvent::Renamed {
            from,
            to,
            is_directory: false,
        })
    });
    let action = prop_oneof![
        20 => at,
        3 => renamed,
        4 => (directory(), name(), ms(0..200)).prop_map(|(directory, name, wait)| Action::Look(directory, name, wait)),
        1 => directory().prop_map(|directory| Action::Event(WatchEvent::Listing { directory })),
        1 => directory().prop_map(|directory| Action::Event(WatchEvent::Itself { directory })),
        1 => directory().prop_map(|directory| Action::Event(WatchEvent::Gone { directory })),
        1 => Just(Action::Event(WatchEvent::Overflow)),
        12 => ms(0..70).prop_map(Action::Wait),
        6 => Just(Action::Poll),
    ];
    prop::collection::vec(action, 0..120)
}

fn options() -> impl Strategy<Value = PendingOptions> {
    let delay = prop::sample::select(vec![0, 0, 30, 400]);
    (
        delay,
        prop::sample::select(vec![2, 5, usize::MAX]),
        prop::sample::select(vec![1, 3, 100]),
        prop::sample::select(vec![Writes::Both, Writes::Both, Writes::Closed, Writes::Settled]),
    )
        .prop_map(|(delay, batch_max, capacity, writes)| PendingOptions {
            writes,
            max_delay: Duration::from_millis(150),
            delay: Duration::from_millis(delay),
            batch_max,
            capacity,
            ..PendingOptions::default()
        })
}

/// The deadline is the first moment at which something leaves, if nothing else happens.
fn check_deadline(pending: &Pending, now: Instant) -> Result<(), TestCaseError> {
    let Some(deadline) = pending.poll_deadline() else {
        prop_assert!(pending.is_empty());
        return Ok(());
    };
    prop_assert!(!pending.clone().poll_ready(deadline.max(now)).is_empty());
    // A batch that fills up by settling may leave earlier, to whoever asks.
    if deadline > now && (pending.options.batch_max == usize::MAX || pending.options.delay.is_zero()) {
        let early = (deadline - Duration::from_nanos(1)).max(now);
        prop_assert_eq!(pending.clone().poll_ready(early), Ready::default());
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn does_what_the_model_does(options in options(), actions in actions()) {
        let mut now = Instant::now();
        let mut pending = Pending::new(options.clone());
        let mut model = Model {
            options,
            slots: Vec::new(),
            listing: Vec::new(),
            attributes: Vec::new(),
            gone: Vec::new(),
            rescan: false,
            window: None,
            next: 0,
        };
        for action in &actions {
            match action {
                Action::Event(event) => pending.handle_event(now, event),
                Action::Look(directory, name, wait) => pending.handle_look(now, *directory, name, now + *wait),
                Action::Wait(time) => now += *time,
                Action::Poll => prop_assert_eq!(pending.poll_ready(now), model.poll(now)),
            }
            model.handle(now, action);
            prop_assert_eq!(pending.len(), model.len());
            prop_assert_eq!(pending.oldest().is_some(), !pending.is_empty());
            check_deadline(&pending, now)?;
        }
        // Nothing stays for ever.
        while let Some(deadline) = pending.poll_deadline() {
            now = now.max(deadline);
            let ready = pending.poll_ready(now);
            prop_assert!(!ready.is_empty());
            prop_assert_eq!(ready, model.poll(now));
        }
        prop_assert_eq!(model.len(), 0);
    }
}
