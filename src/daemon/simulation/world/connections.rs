//! Connections between the two, and what is under way on them.

use super::*;

/// What both processes are given.
pub struct Services {
    /// What the sender watches.
    pub watched: Arc<Watched>,
    pub(super) exchange: Mutex<Exchange>,
}

/// Where connections begin.
pub struct Exchange {
    /// There is a way to the receiver, and it runs.
    pub(super) is_open: bool,
    pub(super) dialled: Vec<Connection>,
    pub(super) accepted: VecDeque<ReceiverLink>,
}

impl Services {
    /// Where connections begin.
    pub fn exchange(&self) -> MutexGuard<'_, Exchange> {
        self.exchange.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Exchange {
    /// A connection to the receiver; none if it cannot be reached.
    pub fn dial(&mut self) -> Option<SenderLink> {
        if !self.is_open {
            return None;
        }
        let ((near_link, near), (far_link, far)) = ends(identities().0.fingerprint());
        self.dialled.push(Connection {
            near: Some(near),
            far: Some(far),
            ..Connection::default()
        });
        self.accepted.push_back(far_link);
        Some(near_link)
    }
}

/// A connection, and what is under way on it.
#[derive(Default)]
pub(super) struct Connection {
    pub(super) near: Option<SenderSide>,
    pub(super) far: Option<ReceiverSide>,
    pub(super) forth: VecDeque<ToReceiver>,
    pub(super) ops: [VecDeque<OpMessage>; 2],
    pub(super) ranges: Vec<Range>,
    pub(super) back: VecDeque<ToSender>,
    /// Nothing passes any more.
    pub(super) is_broken: bool,
}

impl Connection {
    pub(super) fn is_empty(&self) -> bool {
        self.forth.is_empty()
            && self.ops.iter().all(VecDeque::is_empty)
            && self.ranges.is_empty()
            && self.back.is_empty()
    }

    /// Takes what the daemons sent.
    pub(super) fn collect(&mut self, random: &mut Random) {
        if let Some(near) = &self.near {
            self.forth.extend(near.control.try_iter());
            for message in near.ops.try_iter() {
                self.ops[random.below(2)].push_back(message);
            }
            self.ranges.extend(near.ranges.try_iter());
        }
        if let Some(far) = &self.far {
            self.back.extend(far.control.try_iter());
        }
    }

    /// Brings something to where it goes, in the order of its stream. Who is to be woken.
    pub(super) fn deliver(&mut self, random: &mut Random) -> Option<Role> {
        let first = random.below(5);
        for at in (first..5).chain(0..first) {
            let is_sent = match at {
                0 => self.forth.pop_front().map(|message| {
                    arrive(self.far.as_ref().map(|far| &far.arrive), message);
                    Role::Receiver
                }),
                1 | 2 => {
                    let queue = &mut self.ops[at - 1];
                    let most = queue.len().min(1 + random.below(4));
                    let frame: Vec<OpMessage> = queue.drain(..most).collect();
                    (!frame.is_empty()).then(|| {
                        arrive(self.far.as_ref().map(|far| &far.ops), OpFrame(frame));
                        Role::Receiver
                    })
                }
                3 if self.ranges.is_empty() => None,
                3 => {
                    let range = self.ranges.swap_remove(random.below(self.ranges.len()));
                    arrive(self.far.as_ref().map(|far| &far.ranges), range);
                    Some(Role::Receiver)
                }
                _ => self.back.pop_front().map(|message| {
                    arrive(self.near.as_ref().map(|near| &near.arrive), message);
                    Role::Sender
                }),
            };
            if is_sent.is_some() {
                return is_sent;
            }
        }
        None
    }
}

/// A message reaches an end, if that is still there.
fn arrive<T>(end: Option<&Sender<T>>, message: T) {
    if let Some(end) = end {
        // A daemon that is about to end takes nothing any more.
        let _ = end.send(message);
    }
}
