//! The half that has the files: connections of the other process as links of this one.

use super::door::{Door, SOCKETS};
use super::frames::{FrameFault, Frames, write_waiting};
use super::messages::{ADDRESSES_MAX, CALLS_FROM, Encoded, Lacking, Order, Report, limited};
use crate::net::endpoint::{Accepted, Authorise, Verdict};
use crate::net::link::{
    CONTROL_QUEUE, Line, LinkEnd, PackedBulk, RECEIVED_FRAMES, Range, ReceiverLink, Shared, thread,
};
use crate::net::pair::PairLink;
use crate::net::seats::{CONNECTIONS_MAX, PAIRINGS_MAX};
use crate::net::shift::Outlet;
use crate::net::silence::{HostName, LookUp, Named, Silence, watch_names};
use crate::net::transport::ConnectError;
use crossbeam_channel::{Receiver, Sender, bounded, select, unbounded};
use driftless_certs::Fingerprint;
use driftless_protocol::CloseCode;
use driftless_protocol::codec::encode_frame;
use driftless_protocol::message::{ModuleName, OpFrame, PairReply, PairRequest, ToReceiver, ToSender};
use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::fmt;
use std::io::{self, BufReader};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// What is read of small messages at once.
const READ_BYTES: usize = 16 << 10;
/// The end of a connection is told on another socket than its messages; it is waited for so long at most.
const END_PATIENCE: Duration = Duration::from_secs(5);
/// More than the process outside may need to find out whether a peer answers, beyond the patience that was asked for.
const ANSWER_PATIENCE: Duration = Duration::from_secs(30);
/// What became of connections whose process has ended.
const GONE: &str = "the process that speaks to the network has ended";

/// The process that speaks to the network, as the one sees it that started it.
#[derive(Clone)]
pub struct Transport(Arc<Inner>);

/// Why the other process is of no use.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It says so itself.
    #[error("{text}")]
    Refused {
        /// In words.
        text: String,
        /// Whether that is a matter of usage or configuration.
        is_usage: bool,
    },
    /// It said nothing that could be understood.
    #[error("the process that is to speak to the network did not start; its log says why")]
    Silent,
}

struct Inner {
    door: Door,
    identity: Fingerprint,
    address: Option<SocketAddr>,
    state: Mutex<State>,
    /// Disconnected once the other process is gone.
    gone: Receiver<Infallible>,
}

struct State {
    /// Taken when the other process is gone.
    present: Option<Sender<Infallible>>,
    /// Where connections go, while there is somebody who takes them.
    hall: Option<Hall>,
    wires: HashMap<u64, Weak<Wire>>,
    /// Connections for pairing; their numbers have no wire.
    guests: HashMap<u64, Weak<Guest>>,
    calls: HashMap<u64, Sender<Result<SocketAddr, ConnectError>>>,
    questions: HashMap<u64, Sender<bool>>,
    next: u64,
    /// The other process was told to end.
    is_stopping: bool,
}

/// Who may come, and where to.
#[derive(Clone)]
struct Hall {
    authorise: Authorise,
    accepting: Sender<Accepted>,
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Transport({})", self.0.identity)
    }
}

impl Transport {
    /// Waits for the first words of a process that was given the other end of the door, and tells which measures it lacks. What it
    /// says of itself is believed: it has spoken to nobody yet. Starts no thread.
    pub fn greet(door: Door) -> Result<(Transport, Vec<Lacking>), StartError> {
        let first = door.receive().map_err(|_| StartError::Silent)?;
        match first {
            Some(Report::Ready {
                identity,
                address,
                lacking,
            }) => {
                let (present, gone) = bounded(0);
                let state = State {
                    present: Some(present),
                    hall: None,
                    wires: HashMap::new(),
                    guests: HashMap::new(),
                    calls: HashMap::new(),
                    questions: HashMap::new(),
                    next: CALLS_FROM,
                    is_stopping: false,
                };
                let inner = Inner {
                    door,
                    identity,
                    address,
                    state: Mutex::new(state),
                    gone,
                };
                Ok((Transport(Arc::new(inner)), lacking))
            }
            Some(Report::Failed { text, is_usage }) => Err(StartError::Refused { text, is_usage }),
            _ => Err(StartError::Silent),
        }
    }

    /// Takes what the other process says from now on. To be called once, when this process may have threads.
    pub fn attend(&self) -> io::Result<()> {
        let inner = self.0.clone();
        thread("door", move || inner.attend())
    }

    /// Who this receiver is to its peers: the key is in the other process.
    pub fn identity(&self) -> Fingerprint {
        self.0.identity
    }

    /// Where the other process listens, if it does.
    pub fn address(&self) -> Option<SocketAddr> {
        self.0.address
    }

    /// Disconnected once the other process is gone, with all connections.
    pub fn gone(&self) -> &Receiver<Infallible> {
        &self.0.gone
    }

    /// Lets peers come, and gives those that may.
    pub(in crate::net) fn listen(&self, authorise: Authorise) -> Receiver<Accepted> {
        let (accepting, accepted) = unbounded();
        let mut state = self.0.state();
        // Nobody comes if nobody is there any more: the channel ends at once.
        if state.present.is_some() {
            state.hall = Some(Hall { authorise, accepting });
            drop(state);
            let _ = self.0.tell(&Order::Listen, &[]);
        }
        accepted
    }

    /// Ends all connections, and the other process.
    pub(in crate::net) fn stop(&self) {
        let mut state = self.0.state();
        state.hall = None;
        state.is_stopping = true;
        drop(state);
        let _ = self.0.tell(&Order::Stop, &[]);
    }

    /// Ends the other process, and waits for that. True if it ended in time.
    pub fn end(&self, patience: Duration) -> bool {
        self.stop();
        let ended = self.0.gone.recv_timeout(patience);
        ended == Err(crossbeam_channel::RecvTimeoutError::Disconnected)
    }

    /// Connects to the first address that answers with this key, and asks for a tree. Blocks.
    pub fn call(
        &self,
        peer: Fingerprint,
        addresses: &[SocketAddr],
        tree: &ModuleName,
    ) -> Result<ReceiverLink, ConnectError> {
        let gone = || ConnectError::Failed(GONE.to_owned());
        let (told, outcome) = bounded(1);
        let number = self.0.number();
        self.0.state().calls.insert(number, told);
        let order = Order::Call {
            number,
            peer,
            addresses: addresses[..addresses.len().min(ADDRESSES_MAX)].to_vec(),
            tree: tree.0.clone(),
        };
        let sent = self.0.tell(&order, &[]);
        let outcome = sent.ok().and_then(|()| {
            select! {
                recv(outcome) -> outcome => outcome.ok(),
                recv(self.0.gone) -> _ => None,
            }
        });
        self.0.state().calls.remove(&number);
        let remote = outcome.ok_or_else(gone)??;
        let link = self.0.open(number, peer, remote);
        link.map_err(|error| {
            let text = "the receiver cannot serve a connection";
            self.0.close(number, CloseCode::Unable, text);
            ConnectError::Failed(error.to_string())
        })
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the other process something. If it does not listen, all is over: connections are cut here, where it cannot hinder that.
    fn tell(&self, order: &Order, sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
        let told = self.door.send(order, sockets);
        if matches!(&told, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
            tracing::error!("the process that speaks to the network does not listen any more");
            self.cut();
            // Whoever attends it sees its end.
            self.door.shut();
        }
        told
    }

    /// Ends all that there is, without a word to the other process.
    fn cut(&self) {
        let mut state = self.state();
        state.present = None;
        state.hall = None;
        state.calls.clear();
        state.questions.clear();
        let wires = std::mem::take(&mut state.wires);
        let end = match state.is_stopping {
            true => LinkEnd::Closed {
                code: CloseCode::Done,
                text: String::new(),
                by_peer: false,
            },
            false => LinkEnd::Lost {
                text: GONE.to_owned(),
            },
        };
        drop(state);
        for wire in wires.values().filter_map(Weak::upgrade) {
            wire.end(end.clone());
            wire.hang_up();
        }
    }

    /// A number that no other question or call of this side has.
    fn number(&self) -> u64 {
        let mut state = self.state();
        state.next += 1;
        state.next
    }

    /// Until the other process ends, or says what it may not.
    fn attend(self: Arc<Inner>) {
        let broken = loop {
            match self.door.receive::<Report>() {
                Ok(Some(report)) => {
                    if let Err(text) = self.take(report) {
                        break Some(text.to_owned());
                    }
                }
                Ok(None) => break None,
                Err(error) => break Some(error.to_string()),
            }
        };
        self.cut();
        if let Some(text) = broken {
            tracing::error!("the process that speaks to the network is not believed any more: {text}");
            let _ = self.door.send(&Order::Stop, &[]);
        }
        self.door.shut();
    }

    /// An error is the end of all.
    fn take(self: &Arc<Inner>, report: Report) -> Result<(), &'static str> {
        match report {
            Report::Ready { .. } | Report::Failed { .. } => return Err("it said again that it is ready"),
            Report::Asks { question, peer, alpn } => {
                let state = self.state();
                // A no would be for good; to stop tells the peer that it may come again.
                if state.is_stopping {
                    return Ok(());
                }
                let hall = state.hall.clone();
                drop(state);
                let verdict = hall.map_or(Verdict::Unknown, |hall| (hall.authorise)(peer, alpn));
                let _ = self.tell(&Order::Answer { question, verdict }, &[]);
            }
            Report::Mirror { number, peer, remote } => {
                let Some(hall) = self.admit(number)? else {
                    return Ok(());
                };
                match self.open(number, peer, remote) {
                    Ok(link) => drop(hall.accepting.send(Accepted::Mirror(link))),
                    Err(error) => {
                        tracing::error!("cannot serve a connection: {error}");
                        self.close(
                            number,
                            CloseCode::Unable,
                            "the receiver cannot serve a connection",
                        );
                    }
                }
            }
            Report::Pair {
                number,
                peer,
                remote,
                request,
            } => {
                let Some(hall) = self.admit(number)? else {
                    return Ok(());
                };
                let request = request.message::<PairRequest>();
                let request = request.ok_or("a pairing request cannot be read")?;
                let guest = Arc::new(Guest {
                    inner: self.clone(),
                    number,
                    remote,
                    is_answered: AtomicBool::new(false),
                });
                self.state().guests.insert(number, Arc::downgrade(&guest));
                let link = PairLink::apart(guest, peer, request);
                let _ = hall.accepting.send(Accepted::Pair(link));
            }
            Report::Called { number, outcome } => {
                let call = self.state().calls.remove(&number);
                let call = call.ok_or("it answered a call that nobody made")?;
                let _ = call.send(outcome.map_err(ConnectError::from));
            }
            Report::Silent { number, is_silent } => {
                let wire = self.state().wires.get(&number).and_then(Weak::upgrade);
                match (wire, is_silent) {
                    (Some(wire), true) => wire.silence.begin(),
                    (Some(wire), false) => wire.silence.end(),
                    (None, _) => {}
                }
            }
            Report::Ended { number, end } => {
                // It may have been forgotten here already.
                let wire = self.state().wires.get(&number).and_then(Weak::upgrade);
                if let Some(wire) = wire {
                    wire.end(end.into());
                }
            }
            Report::Alive { question, yes } => {
                if let Some(asked) = self.state().questions.remove(&question) {
                    let _ = asked.send(yes);
                }
            }
        }
        Ok(())
    }

    /// Where one more connection goes; it is ended if nobody takes it. A wrong number is the end of all.
    fn admit(&self, number: u64) -> Result<Option<Hall>, &'static str> {
        let mut state = self.state();
        state.wires.retain(|_, wire| wire.strong_count() > 0);
        state.guests.retain(|_, guest| guest.strong_count() > 0);
        if number >= CALLS_FROM || state.wires.contains_key(&number) || state.guests.contains_key(&number) {
            return Err("it gave two connections one number");
        }
        // Sessions may flush for a while after their connections have ended outside, so more than there may be is no fault.
        let is_full = state.wires.len() + state.guests.len() >= CONNECTIONS_MAX + PAIRINGS_MAX;
        let hall = state.hall.clone().filter(|_| !is_full);
        drop(state);
        if hall.is_none() {
            self.close(number, CloseCode::Limit, "the receiver has too many connections");
        }
        Ok(hall)
    }

    fn close(&self, number: u64, code: CloseCode, text: &str) {
        let order = Order::Close {
            number,
            code: code.number(),
            text: limited(text),
        };
        let _ = self.tell(&order, &[]);
    }

    /// Makes the sockets of a connection, hands out their other ends, and starts what reads and writes them.
    fn open(
        self: &Arc<Inner>,
        number: u64,
        peer: Fingerprint,
        remote: SocketAddr,
    ) -> io::Result<ReceiverLink> {
        let [(control, control_out), (ops, ops_out), (bulk, bulk_out)] =
            [UnixStream::pair()?, UnixStream::pair()?, UnixStream::pair()?];
        let (present, gone) = bounded(0);
        let wire = Arc::new(Wire {
            inner: self.clone(),
            number,
            remote,
            sockets: [control, ops, bulk],
            end: Mutex::default(),
            has_ended: Condvar::new(),
            is_over: watch::channel(false).0,
            silence: Silence::default(),
            name: OnceLock::new(),
            present: Mutex::new(Some(present)),
            gone,
        });
        self.state().wires.insert(number, Arc::downgrade(&wire));
        let theirs = [control_out.as_fd(), ops_out.as_fd(), bulk_out.as_fd()];
        self.tell(&Order::Take { number }, &theirs)?;
        let (messages, incoming) = bounded::<ToReceiver>(CONTROL_QUEUE);
        let (op_frames, ops) = bounded::<OpFrame>(RECEIVED_FRAMES);
        let (ranges, bulk) = bounded::<Range>(RECEIVED_FRAMES);
        let (outgoing, waiting) = bounded::<ToSender>(CONTROL_QUEUE);
        wire.read("control-in", CONTROL, messages, |frames| {
            frames.next::<ToReceiver>()
        })?;
        wire.read("ops-in", OPS, op_frames, |frames| frames.next::<OpFrame>())?;
        wire.read("bulk-in", BULK, ranges, |frames| {
            let frame = frames.next_range()?;
            Ok(frame.map(|frame| Range {
                frame,
                sum: None,
                origin: None,
                spare: None,
            }))
        })?;
        let writing = wire.clone();
        thread("control-out", move || writing.write(&waiting))?;
        Ok(ReceiverLink {
            shared: Shared::new(Line::Apart(wire)),
            peer,
            control: Outlet::to(outgoing),
            incoming,
            ops,
            bulk,
            packed_bulk: PackedBulk::default(),
        })
    }
}

/// Reads the messages of a socket.
type SocketFrames<'a> = Frames<BufReader<&'a UnixStream>>;

/// The sockets of a connection, by what they are for.
const CONTROL: usize = 0;
const OPS: usize = 1;
const BULK: usize = 2;

/// A connection of the other process.
pub(in crate::net) struct Wire {
    inner: Arc<Inner>,
    number: u64,
    remote: SocketAddr,
    sockets: [UnixStream; SOCKETS],
    end: Mutex<Option<LinkEnd>>,
    has_ended: Condvar,
    is_over: watch::Sender<bool>,
    silence: Silence,
    /// By which name the peer was found.
    name: OnceLock<HostName>,
    /// Taken when this side has hung up, which those see that wait for `gone`.
    present: Mutex<Option<Sender<Infallible>>>,
    gone: Receiver<Infallible>,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Wire({} to {})", self.number, self.remote)
    }
}

impl Wire {
    /// Where the peer was when it was let in.
    pub(in crate::net) fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// Ends the connection. What was not written yet is lost, as it is with a connection of this process.
    pub(in crate::net) fn close(&self, code: CloseCode, text: &str) {
        let is_first = self.end(LinkEnd::Closed {
            code,
            text: text.to_owned(),
            by_peer: false,
        });
        // First what nobody can hold up.
        self.hang_up();
        if is_first {
            self.inner.close(self.number, code, text);
        }
    }

    /// How the connection ended, if it did.
    pub(in crate::net) fn ended(&self) -> Option<LinkEnd> {
        self.lock_end().clone()
    }

    /// Has the connection end if the other process says that its peer is silent, and this name leads elsewhere by then.
    pub(in crate::net) fn follow_name(
        self: &Arc<Wire>,
        runtime: &tokio::runtime::Handle,
        name: HostName,
        look_up: LookUp,
    ) {
        if self.name.set(name).is_ok() {
            runtime.spawn(watch_names(self.clone(), look_up));
        }
    }

    /// Whether the peer answers within `patience`, or four round trips if that is longer. Blocks.
    pub(in crate::net) fn answers(&self, patience: Duration) -> bool {
        if self.ended().is_some() {
            return false;
        }
        let question = self.inner.number();
        let (asked, answer) = bounded(1);
        self.inner.state().questions.insert(question, asked);
        let order = Order::Probe {
            number: self.number,
            question,
            patience_millis: u64::try_from(patience.as_millis()).unwrap_or(u64::MAX),
        };
        let sent = self.inner.tell(&order, &[]);
        let answers = sent.is_ok() && answer.recv_timeout(patience + ANSWER_PATIENCE) == Ok(true);
        self.inner.state().questions.remove(&question);
        answers
    }

    /// Notes how the connection ended. False if that is known.
    fn end(&self, how: LinkEnd) -> bool {
        let mut end = self.lock_end();
        let is_first = end.is_none();
        end.get_or_insert(how);
        self.has_ended.notify_all();
        self.is_over.send_replace(true);
        is_first
    }

    /// Waits until it is known how the connection ended, of which nothing more comes.
    fn settle(&self) {
        let deadline = Instant::now() + END_PATIENCE;
        let mut end = self.lock_end();
        while end.is_none() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                end.get_or_insert(LinkEnd::Lost {
                    text: "the process that speaks to the network does not say why".to_owned(),
                });
                drop(end);
                let text = "the receiver lost this connection";
                return self.inner.close(self.number, CloseCode::Unable, text);
            } else {
                let waited = self.has_ended.wait_timeout(end, left);
                end = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }

    /// Wakes all that read, write or wait.
    fn hang_up(&self) {
        self.present.lock().unwrap_or_else(PoisonError::into_inner).take();
        for socket in &self.sockets {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    fn lock_end(&self) -> MutexGuard<'_, Option<LinkEnd>> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts what decodes the messages of a socket.
    fn read<T: Send + 'static>(
        self: &Arc<Wire>,
        name: &str,
        socket: usize,
        to: Sender<T>,
        next: impl Fn(&mut SocketFrames<'_>) -> Result<Option<T>, FrameFault> + Send + 'static,
    ) -> io::Result<()> {
        let wire = self.clone();
        thread(name, move || {
            let outcome = wire.take_messages(socket, &to, next);
            if let Err(fault @ (FrameFault::Cut | FrameFault::Codec(_))) = outcome
                && wire.ended().is_none()
            {
                tracing::error!("what the process that speaks to the network handed on is wrong: {fault}");
                wire.close(CloseCode::Violation, &fault.to_string());
            }
            // Whoever takes them must not see their end before it is said why.
            wire.settle();
            drop(to);
        })
    }

    fn take_messages<T>(
        &self,
        socket: usize,
        to: &Sender<T>,
        next: impl Fn(&mut SocketFrames<'_>) -> Result<Option<T>, FrameFault>,
    ) -> Result<(), FrameFault> {
        let mut frames = Frames::new(BufReader::with_capacity(READ_BYTES, &self.sockets[socket]));
        while let Some(message) = next(&mut frames)? {
            let is_taken = select! {
                send(to, message) -> sent => sent.is_ok(),
                recv(self.gone) -> _ => false,
            };
            if !is_taken {
                break;
            }
        }
        Ok(())
    }

    /// Writes what this side says, until either side has hung up.
    fn write(&self, waiting: &Receiver<ToSender>) {
        loop {
            let first = select! {
                recv(waiting) -> first => first.ok(),
                recv(self.gone) -> _ => None,
            };
            let Some(first) = first else { return };
            let mut socket = &self.sockets[CONTROL];
            match write_waiting(&mut socket, first, waiting, encode_frame) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    return self.close(CloseCode::Violation, &format!("cannot encode: {error}"));
                }
                // The other side has hung up; that has a reason, which the readers wait for.
                Err(_) => return,
            }
        }
    }
}

impl Named for Wire {
    fn silence(&self) -> &Silence {
        &self.silence
    }

    async fn over(&self) {
        let mut is_over = self.is_over.subscribe();
        // The sender of the channel is in `self`.
        let _ = is_over.wait_for(|&is_over| is_over).await;
    }

    fn remote(&self) -> SocketAddr {
        self.remote
    }

    fn names(&self) -> BTreeSet<HostName> {
        self.name.get().cloned().into_iter().collect()
    }

    fn leave(&self, _: &HostName, text: &str) {
        self.close(CloseCode::Busy, text);
    }
}

/// Somebody of the other process who wants to pair.
pub(in crate::net) struct Guest {
    inner: Arc<Inner>,
    number: u64,
    remote: SocketAddr,
    is_answered: AtomicBool,
}

impl fmt::Debug for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Guest({} at {})", self.number, self.remote)
    }
}

impl Guest {
    pub(in crate::net) fn remote(&self) -> SocketAddr {
        self.remote
    }

    pub(in crate::net) fn reply(&self, reply: &PairReply) {
        let number = self.number;
        self.is_answered.store(true, Ordering::Relaxed);
        match Encoded::of(reply) {
            Some(reply) => drop(self.inner.tell(&Order::Reply { number, reply }, &[])),
            None => self.refuse(CloseCode::Unable, "the receiver's reply cannot be encoded"),
        }
    }

    pub(in crate::net) fn refuse(&self, code: CloseCode, text: &str) {
        self.is_answered.store(true, Ordering::Relaxed);
        self.inner.close(self.number, code, text);
    }
}

impl Drop for Guest {
    /// Nobody waits outside for an answer that does not come.
    fn drop(&mut self) {
        if !self.is_answered.load(Ordering::Relaxed) {
            let text = "the receiver does not answer";
            self.inner.close(self.number, CloseCode::Unable, text);
        }
    }
}
