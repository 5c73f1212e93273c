//! The ops that were sent and have not ended, and what the next one has to wait for.
//!
//! The receiver may carry out ops in any order but for `after` and `barrier`. So an op names what its place depends
//! on: the op that puts its directory in place, the last op at the same place, and the last move. Waiting for several
//! is said by a barrier, which offered files never hold up; an offered file at the same place is named instead.

use crate::daemon::sender::work::InFlight;
use driftless_protocol::message::{Content, Op, OpBody, Place, Run};
use driftless_protocol::{ObjectId, Xattrs};
use std::collections::{BTreeMap, HashMap};

/// How far the content of an offered file has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// Nobody asked for it yet.
    Made,
    /// It is being sent.
    Asked,
    /// All of it was sent, or it was withdrawn.
    Closed,
}

/// An op that has not ended.
#[derive(Debug)]
pub struct Sent {
    /// What it does.
    pub flight: InFlight,
    /// For a file whose content is not inside the op.
    pub offer: Option<Offer>,
    place: Option<Place>,
    inline_bytes: usize,
}

/// All ops of a connection that have not ended.
#[derive(Debug, Default)]
pub struct Window {
    /// What comes to a place that a removal frees waits for that: the receiver displaces nothing.
    pub awaits_removals: bool,
    issued: u64,
    ops: BTreeMap<u64, Sent>,
    /// The ops that put directories in place.
    placed: HashMap<ObjectId, u64>,
    /// The last op at each place.
    places: HashMap<Place, u64>,
    last_move: u64,
    inline_bytes: usize,
    offers: usize,
}

impl Window {
    /// Numbers an op and finds out what it has to wait for.
    pub fn issue(&mut self, body: OpBody, xattrs: Xattrs, flight: InFlight) -> Op {
        self.issued += 1;
        let number = self.issued;
        let place = target_place(&body).cloned();
        let is_move = matches!(body, OpBody::Move { .. });
        let waits_for_all = is_move || matches!(body, OpBody::Remove { .. } | OpBody::Release { .. });
        let (after, barrier) = self.dependencies(&body, place.as_ref(), waits_for_all);
        if let OpBody::MakeDirectory { object, .. } | OpBody::Adopt { object, .. } = &body {
            self.placed.insert(*object, number);
        }
        if let Some(place) = &place {
            self.places.insert(place.clone(), number);
        }
        if is_move {
            self.last_move = number;
        }
        let mut offer = None;
        if let OpBody::PutFile { content, .. } = &body {
            offer = match content {
                Content::Inline { .. } | Content::Copy { .. } => None,
                Content::Offer { .. } => Some(Offer::Made),
                // It holds nothing up at the receiver either, and there is nothing to withdraw.
                Content::Patch { .. } => Some(Offer::Closed),
            };
        }
        let freed = freed_place(&body)
            .filter(|place| self.awaits_removals && !self.places.contains_key(place))
            .cloned();
        if let Some(place) = &freed {
            self.places.insert(place.clone(), number);
        }
        let place = place.or(freed);
        let op = Op {
            number,
            after,
            barrier,
            body,
            xattrs,
        };
        let inline_bytes = op.held_bytes();
        self.inline_bytes += inline_bytes;
        self.offers += usize::from(offer.is_some());
        let sent = Sent {
            flight,
            offer,
            place,
            inline_bytes,
        };
        self.ops.insert(number, sent);
        op
    }

    fn dependencies(&self, body: &OpBody, place: Option<&Place>, waits_for_all: bool) -> (u64, bool) {
        let placed = |object: ObjectId| self.placed.get(&object).copied();
        let at_place = place.and_then(|place| self.places.get(place).copied());
        // It may be put elsewhere than where it is to be adopted.
        let object = match body {
            OpBody::SetAttributes { object, .. }
            | OpBody::MakeDirectory { object, .. }
            | OpBody::PutFile { object, .. }
            | OpBody::PutSymlink { object, .. }
            | OpBody::PutSpecial { object, .. }
            | OpBody::Link { object, .. } => placed(*object),
            _ => None,
        };
        let directory = place.and_then(|place| placed(place.directory));
        let last_move = Some(self.last_move).filter(|_| !matches!(body, OpBody::Mark { .. }));
        let mut offered = 0;
        let mut others: Vec<u64> = Vec::new();
        for number in [at_place, object, directory, last_move].into_iter().flatten() {
            match self.ops.get(&number) {
                Some(Sent { offer: Some(_), .. }) => offered = number,
                // A move waits for all before it, so who waits for the last move needs to name no earlier op.
                Some(_) if number >= self.last_move => others.push(number),
                _ => {}
            }
        }
        others.sort_unstable();
        others.dedup();
        match (waits_for_all, others.as_slice()) {
            (true, _) => (offered, true),
            (false, []) => (offered, false),
            (false, [one]) if offered == 0 => (*one, false),
            (false, _) => (offered, true),
        }
    }

    /// An op ended.
    pub fn end(&mut self, number: u64) -> Option<Sent> {
        let sent = self.ops.remove(&number)?;
        self.inline_bytes -= sent.inline_bytes;
        self.offers -= usize::from(sent.offer.is_some());
        if let Some(place) = &sent.place
            && self.places.get(place) == Some(&number)
        {
            self.places.remove(place);
        }
        if let InFlight::Make { object, .. } | InFlight::Adopt { object } = &sent.flight
            && self.placed.get(object) == Some(&number)
        {
            self.placed.remove(object);
        }
        Some(sent)
    }

    /// All ops up to a number ended, and those of these runs.
    pub fn end_all(&mut self, through: u64, runs: &[Run]) -> Vec<InFlight> {
        let mut numbers: Vec<u64> = self.ops.range(..=through).map(|(&number, _)| number).collect();
        for run in runs.iter().filter(|run| run.first <= run.last) {
            numbers.extend(self.ops.range(run.first..=run.last).map(|(&number, _)| number));
        }
        let ended = numbers.into_iter().filter_map(|number| self.end(number));
        ended.map(|sent| sent.flight).collect()
    }

    /// An op that has not ended.
    pub fn get_mut(&mut self, number: u64) -> Option<&mut Sent> {
        self.ops.get_mut(&number)
    }

    /// Withdraws an offer, if its content is not all sent. The op ends without effect; who tells the receiver is the
    /// caller.
    pub fn withdraw(&mut self, number: u64, object: ObjectId) -> bool {
        match self.ops.get_mut(&number) {
            Some(sent) if sent.offer.is_some_and(|offer| offer != Offer::Closed) => {
                sent.offer = Some(Offer::Closed);
                sent.flight = InFlight::Withdrawn { object };
                true
            }
            _ => false,
        }
    }

    /// The object whose file is being sent to a place, and the op.
    pub fn sending_to(&self, place: &Place) -> Option<(u64, ObjectId)> {
        let number = *self.places.get(place)?;
        let sent = self.ops.get(&number)?;
        let is_open = sent.offer == Some(Offer::Asked);
        is_open
            .then(|| sent.flight.object().map(|object| (number, object)))
            .flatten()
    }

    /// The files that are being sent, by op.
    pub fn sending(&self) -> Vec<(u64, ObjectId)> {
        let open = |sent: &Sent| sent.offer == Some(Offer::Asked);
        let sending = self.ops.iter().filter(|(_, sent)| open(sent));
        sending
            .filter_map(|(&number, sent)| Some((number, sent.flight.object()?)))
            .collect()
    }

    /// The objects that are being moved.
    pub fn moves(&self) -> impl Iterator<Item = ObjectId> {
        self.ops.values().filter_map(|sent| match &sent.flight {
            InFlight::Move { object, .. } => Some(*object),
            _ => None,
        })
    }

    /// The objects that are being removed, and from where.
    pub fn removals(&self) -> impl Iterator<Item = (ObjectId, &Place)> {
        self.ops.values().filter_map(|sent| match &sent.flight {
            InFlight::Remove { object, place, .. } => Some((*object, place)),
            _ => None,
        })
    }

    /// The last of the ops that remove these; 0 for none.
    pub fn last_removal(&self, objects: &HashMap<ObjectId, Place>) -> u64 {
        let removes = |sent: &Sent| matches!(&sent.flight, InFlight::Remove { object, .. } if objects.contains_key(object));
        let last = self.ops.iter().rev().find(|(_, sent)| removes(sent));
        last.map_or(0, |(&number, _)| number)
    }

    /// The op that puts the content of an object as it was under this number of the journal, or later.
    pub fn content_of(&self, object: ObjectId, since: u64) -> Option<u64> {
        let is_wanted = |sent: &Sent| match &sent.flight {
            InFlight::Content {
                object: own,
                sequence,
                ..
            } => *own == object && *sequence >= since,
            _ => false,
        };
        let found = self.ops.iter().find(|(_, sent)| is_wanted(sent));
        found.map(|(&number, _)| number)
    }

    /// Whether an op that puts this directory in place is on its way.
    pub fn is_being_placed(&self, object: ObjectId) -> bool {
        self.placed.contains_key(&object)
    }

    /// How many ops have not ended.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// How many of these are offered files.
    pub fn offers(&self) -> usize {
        self.offers
    }

    /// Bytes of content inside these ops.
    pub fn inline_bytes(&self) -> usize {
        self.inline_bytes
    }

    /// Whether every op has ended.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }
}

/// Where an op puts something.
fn target_place(body: &OpBody) -> Option<&Place> {
    match body {
        OpBody::MakeDirectory { place, .. }
        | OpBody::PutFile { place, .. }
        | OpBody::PutSymlink { place, .. }
        | OpBody::PutSpecial { place, .. }
        | OpBody::Link { place, .. }
        | OpBody::Adopt { place, .. }
        | OpBody::Move { to: place, .. } => Some(place),
        OpBody::SetAttributes { .. }
        | OpBody::Remove { .. }
        | OpBody::Release { .. }
        | OpBody::Mark { .. }
        | OpBody::Owners(_) => None,
    }
}

/// Where an op takes something away.
fn freed_place(body: &OpBody) -> Option<&Place> {
    match body {
        OpBody::Remove { place, .. } | OpBody::Release { place, .. } => Some(place),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use driftless_protocol::message::InlineContent;
    use driftless_protocol::{Attributes, Digest, Name};

    fn place(directory: u64, name: &str) -> Place {
        Place {
            directory: ObjectId(directory),
            name: Name::new(name.as_bytes()).unwrap(),
        }
    }

    fn make(window: &mut Window, object: u64, at: Place) -> Op {
        let (object, attributes) = (ObjectId(object), Attributes::default());
        let body = OpBody::MakeDirectory {
            place: at,
            object,
            attributes,
        };
        window.issue(body, Xattrs::default(), InFlight::Make { object, attributes })
    }

    fn put(window: &mut Window, object: u64, at: Place, content: Content) -> Op {
        let attributes = Attributes::default();
        let body = OpBody::PutFile {
            place: at.clone(),
            object: ObjectId(object),
            attributes,
            content,
        };
        let flight = InFlight::Content {
            object: ObjectId(object),
            sequence: 1,
            place: at,
            digest: None,
            stamp: None,
            attributes,
        };
        window.issue(body, Xattrs::default(), flight)
    }

    fn inline(bytes: &[u8]) -> Content {
        Content::Inline {
            digest: Digest::of(bytes),
            bytes: InlineContent(bytes.to_vec()),
        }
    }

    fn offered() -> Content {
        Content::Offer {
            size: 1 << 30,
            digest: None,
        }
    }

    fn relocate(window: &mut Window, object: u64, to: Place) -> Op {
        let (object, at) = (ObjectId(object), to.clone());
        window.issue(
            OpBody::Move { object, to },
            Xattrs::default(),
            InFlight::Move { object, place: at },
        )
    }

    fn waits(op: &Op) -> (u64, bool) {
        (op.after, op.barrier)
    }

    #[test]
    fn an_op_waits_for_its_directory_and_for_nothing_else() {
        let mut window = Window::default();
        make(&mut window, 10, place(1, "a"));
        let other = make(&mut window, 11, place(1, "b"));
        assert_eq!(waits(&other), (0, false));
        let inside = put(&mut window, 12, place(10, "file"), inline(b"x"));
        assert_eq!(waits(&inside), (1, false));
        window.end(1);
        let later = put(&mut window, 13, place(10, "file2"), inline(b"x"));
        assert_eq!(waits(&later), (0, false));
    }

    #[test]
    fn another_object_at_the_same_place_waits_for_the_first() {
        let mut window = Window::default();
        put(&mut window, 10, place(1, "a"), inline(b"x"));
        assert_eq!(waits(&make(&mut window, 11, place(1, "a"))), (1, false));
        window.end(1);
        assert_eq!(
            waits(&put(&mut window, 12, place(1, "a"), inline(b"y"))),
            (2, false)
        );
    }

    /// Otherwise it could get its number where it is no more, after its content came elsewhere.
    #[test]
    fn what_is_put_elsewhere_waits_until_it_is_adopted() {
        let mut window = Window::default();
        make(&mut window, 20, place(1, "b"));
        let (object, at) = (ObjectId(10), place(1, "a"));
        let body = OpBody::Adopt {
            place: at,
            object,
            assumed: false,
        };
        window.issue(body, Xattrs::default(), InFlight::Adopt { object });
        let content = put(&mut window, 10, place(1, "c"), inline(b"x"));
        assert_eq!(waits(&content), (2, false));
        // And for its directory.
        let inside = put(&mut window, 10, place(20, "c"), inline(b"x"));
        assert_eq!(waits(&inside), (0, true));
    }

    #[test]
    fn moves_wait_for_all_and_all_wait_for_the_last_move() {
        let mut window = Window::default();
        make(&mut window, 10, place(1, "a"));
        assert_eq!(waits(&relocate(&mut window, 20, place(10, "b"))), (0, true));
        // The directory's op is before the move, so the move alone has to be named.
        assert_eq!(
            waits(&put(&mut window, 12, place(10, "c"), inline(b"x"))),
            (2, false)
        );
        make(&mut window, 30, place(1, "d"));
        assert_eq!(
            waits(&put(&mut window, 13, place(30, "e"), inline(b"x"))),
            (0, true)
        );
    }

    #[test]
    fn an_offer_is_named_where_its_place_is_taken_and_holds_nothing_else_up() {
        let mut window = Window::default();
        put(&mut window, 10, place(1, "big"), offered());
        assert_eq!(
            waits(&put(&mut window, 11, place(1, "small"), inline(b"x"))),
            (0, false)
        );
        assert_eq!(waits(&relocate(&mut window, 20, place(1, "big"))), (1, true));
        assert_eq!(window.offers(), 1);
    }

    #[test]
    fn what_comes_to_a_freed_place_waits_for_the_removal() {
        let mut window = Window {
            awaits_removals: true,
            ..Window::default()
        };
        let (object, at) = (ObjectId(10), place(1, "a"));
        let flight = InFlight::Remove {
            object,
            place: at.clone(),
            kind: driftless_protocol::Kind::File,
            is_left: false,
        };
        window.issue(
            OpBody::Remove {
                object,
                place: at.clone(),
            },
            Xattrs::default(),
            flight,
        );
        assert_eq!(waits(&put(&mut window, 11, at, inline(b"x"))), (1, false));
        window.end_all(2, &[]);
        assert!(window.places.is_empty());
    }

    #[test]
    fn only_what_is_being_sent_can_be_withdrawn() {
        let mut window = Window::default();
        put(&mut window, 10, place(1, "big"), offered());
        assert_eq!(window.sending_to(&place(1, "big")), None);
        window.get_mut(1).unwrap().offer = Some(Offer::Asked);
        assert_eq!(window.sending_to(&place(1, "big")), Some((1, ObjectId(10))));
        assert!(window.withdraw(1, ObjectId(10)) && !window.withdraw(1, ObjectId(10)));
        assert!(window.sending().is_empty());
    }

    #[test]
    fn what_ended_leaves_nothing_behind() {
        let mut window = Window::default();
        make(&mut window, 10, place(1, "a"));
        put(&mut window, 11, place(10, "b"), inline(b"four"));
        put(&mut window, 12, place(10, "c"), offered());
        put(&mut window, 13, place(10, "d"), inline(b"x"));
        assert_eq!(window.inline_bytes(), 5);
        let ended = window.end_all(2, &[Run { first: 4, last: 9 }]);
        assert_eq!((ended.len(), window.len(), window.inline_bytes()), (3, 1, 0));
        window.end_all(3, &[]);
        assert!(window.is_empty() && window.placed.is_empty() && window.places.is_empty());
        assert_eq!(window.offers(), 0);
    }
}
