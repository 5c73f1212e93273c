//! The half that speaks to the network, and has nothing else.

use super::door::{Door, SOCKETS};
use super::frames::{Frames, write_waiting};
use super::messages::{CALLS_FROM, CallFault, Encoded, Lacking, Order, Report, limited};
use crate::net::endpoint::{Accepted, Admit, Alpn, Authorise, ReceiverEndpoint, Verdict};
use crate::net::link::{ReceiverLink, thread};
use crate::net::pair::PairLink;
use crate::net::ranges::Arrived;
use crate::net::sockets::Sockets;
use crate::net::transport::{ConnectError, LinkOptions};
use crossbeam_channel::{Receiver, Sender, bounded};
use driftless_certs::{Fingerprint, Identity, receiver_config, sender_config};
use driftless_protocol::CloseCode;
use driftless_protocol::codec::{CodecFault, encode_frame};
use driftless_protocol::message::{ModuleName, PairReply, ToSender};
use driftless_protocol::version::{ALPN_MIRROR, ALPN_PAIR, ALPN_PULL};
use std::collections::HashMap;
use std::io::{self, BufReader};
use std::net::{IpAddr, Shutdown, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;

/// What is read of small messages at once.
const READ_BYTES: usize = 16 << 10;
/// How long the process inside may take to say whether somebody may come in.
const ANSWER_PATIENCE: Duration = Duration::from_secs(60);

/// What the process is given.
pub struct OutsideOptions {
    /// Who this is.
    pub identity: Identity,
    /// The socket to listen on; none for a receiver that calls.
    pub listen: Option<UdpSocket>,
    /// Who is answered at all.
    pub admit: Admit,
    /// Windows, timeouts and the like.
    pub link: LinkOptions,
    /// Whom it calls; nobody, if there is none.
    pub callee: Option<Callee>,
}

/// The sender that a receiver calls, as far as its user said it. The rest is known inside only: a name may lead elsewhere
/// tomorrow, and stand for another key.
#[derive(Debug)]
pub struct Callee {
    /// Its key.
    pub fingerprint: Option<Fingerprint>,
    /// Its address.
    pub ip: Option<IpAddr>,
    /// Its port.
    pub port: Option<u16>,
}

impl Callee {
    pub(super) fn is_meant(&self, peer: Fingerprint, addresses: &[SocketAddr]) -> bool {
        let is_address = |address: &SocketAddr| {
            self.ip.is_none_or(|ip| ip == address.ip()) && self.port.is_none_or(|port| port == address.port())
        };
        self.fingerprint.is_none_or(|wanted| wanted == peer) && addresses.iter().all(is_address)
    }
}

/// The process that speaks to the network.
pub struct Outside {
    door: Door,
    runtime: tokio::runtime::Handle,
    identity: Identity,
    link: LinkOptions,
    callee: Option<Callee>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: u64,
    /// Connections that wait for their sockets, and those that have them.
    links: HashMap<u64, Arc<ReceiverLink>>,
    guests: HashMap<u64, PairLink>,
    questions: HashMap<u64, Sender<Verdict>>,
}

impl Outside {
    /// Tells the other process why this one is of no use.
    pub fn fail(door: &Door, text: &str, is_usage: bool) {
        let text = limited(text);
        let _ = door.send(&Report::Failed { text, is_usage }, &[]);
    }

    /// Serves until the other process says so, or ends. `confine` gives up what is needed no more once all sockets are there, and
    /// tells what it could not.
    pub fn serve(
        door: Door,
        runtime: &tokio::runtime::Handle,
        options: OutsideOptions,
        confine: impl FnOnce() -> Vec<Lacking>,
    ) -> Result<(), String> {
        let identity = options.identity.fingerprint();
        let mut outside = Outside {
            door,
            runtime: runtime.clone(),
            identity: options.identity,
            link: LinkOptions {
                hands_on: true,
                ..options.link
            },
            callee: options.callee,
            state: Mutex::default(),
        };
        let (address, entrance) = match options.listen {
            Some(socket) => {
                let address = socket.local_addr().map_err(|error| error.to_string())?;
                (Some(address), Some((socket, options.admit)))
            }
            None => {
                let sockets = Sockets::limited(outside.link.limiter.clone());
                let opened = sockets.open_all(runtime);
                opened.map_err(|error| format!("cannot open a socket: {error}"))?;
                outside.link.sockets = Some(sockets);
                (None, None)
            }
        };
        let outside = Arc::new(outside);
        let mut endpoint = None;
        let mut opening = None;
        if let Some((socket, admit)) = entrance {
            let (ready, open) = outside.entrance(socket, admit)?;
            (endpoint, opening) = (Some(ready), Some(open));
        }
        let lacking = confine();
        let ready = Report::Ready {
            identity,
            address,
            lacking,
        };
        let sent = outside.door.send(&ready, &[]);
        sent.map_err(|error| format!("cannot speak to the process inside: {error}"))?;
        let is_told = outside.obey(endpoint.as_ref(), opening);
        if let Some(endpoint) = endpoint.filter(|_| is_told) {
            endpoint.close();
            runtime.block_on(endpoint.say_farewell());
        }
        Ok(())
    }

    /// Gets the endpoint ready; the second answers nobody before it is called.
    fn entrance(
        self: &Arc<Outside>,
        socket: UdpSocket,
        admit: Admit,
    ) -> Result<(ReceiverEndpoint, impl FnOnce() + use<>), String> {
        let tls = receiver_config(&self.identity, &[ALPN_MIRROR, ALPN_PAIR, ALPN_PULL]);
        let tls = tls.map_err(|error| error.to_string())?;
        let asking = self.clone();
        let authorise: Authorise = Arc::new(move |peer, alpn| asking.ask(peer, alpn));
        let secret = self.identity.derive_secret("driftless 2026-11 endpoint v1");
        ReceiverEndpoint::over(
            &self.runtime,
            tls,
            socket,
            &secret,
            &self.link,
            (admit, authorise),
        )
        .map_err(|error| error.to_string())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn report(&self, report: &Report) {
        let told = self.door.send(report, &[]);
        // Otherwise the other process is gone, and with it soon this one. What it was not told would never be known there.
        if matches!(&told, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
            tracing::error!("the process inside does not listen any more");
            self.door.shut();
        }
    }

    /// Has the other process decide about a peer. Blocks.
    fn ask(&self, peer: Fingerprint, alpn: Alpn) -> Verdict {
        let (answer, answered) = bounded(1);
        let question = {
            let mut state = self.state();
            state.next += 1;
            let question = state.next;
            state.questions.insert(question, answer);
            question
        };
        self.report(&Report::Asks { question, peer, alpn });
        let verdict = answered.recv_timeout(ANSWER_PATIENCE);
        self.state().questions.remove(&question);
        verdict.unwrap_or(Verdict::Unknown)
    }

    /// Does what it is told until it is told to end; false if nobody is there any more. Nothing here may block on a peer.
    fn obey(
        self: &Arc<Outside>,
        endpoint: Option<&ReceiverEndpoint>,
        opening: Option<impl FnOnce()>,
    ) -> bool {
        let mut opening = opening;
        loop {
            let (order, sockets) = match self.door.receive_sockets::<Order>() {
                Ok(Some(received)) => received,
                Ok(None) => return false,
                Err(error) => {
                    tracing::error!("cannot hear the process inside: {error}");
                    return false;
                }
            };
            match order {
                Order::Listen => {
                    let (Some(open), Some(endpoint)) = (opening.take(), endpoint) else {
                        continue;
                    };
                    open();
                    let (outside, accepted) = (self.clone(), endpoint.accept().clone());
                    self.start("acceptor", move || {
                        for link in accepted {
                            outside.introduce(link);
                        }
                    });
                }
                Order::Answer { question, verdict } => {
                    if let Some(asked) = self.state().questions.remove(&question) {
                        let _ = asked.send(verdict);
                    }
                }
                Order::Take { number } => self.connect(number, sockets),
                Order::Close { number, code, text } => {
                    self.close(number, CloseCode::from_number(code.into()), &text);
                }
                Order::Probe {
                    number,
                    question,
                    patience_millis,
                } => self.probe(number, question, Duration::from_millis(patience_millis)),
                Order::Reply { number, reply } => {
                    let guest = self.state().guests.remove(&number);
                    if let (Some(guest), Some(reply)) = (guest, reply.message::<PairReply>()) {
                        self.start("pairing", move || guest.reply(&reply));
                    }
                }
                Order::Call {
                    number,
                    peer,
                    addresses,
                    tree,
                } => {
                    let outside = self.clone();
                    self.start("connect", move || {
                        outside.call(number, peer, &addresses, ModuleName(tree));
                    });
                }
                Order::Stop => return true,
            }
        }
    }

    fn start(&self, name: &str, work: impl FnOnce() + Send + 'static) {
        if let Err(error) = thread(name, work) {
            tracing::error!("cannot start a thread: {error}");
        }
    }

    /// A peer has come in.
    fn introduce(self: &Arc<Outside>, accepted: Accepted) {
        match accepted {
            Accepted::Mirror(link) => {
                let Some(remote) = link.remote_socket() else {
                    return;
                };
                let peer = link.peer();
                let number = self.hold(Arc::new(link));
                self.report(&Report::Mirror { number, peer, remote });
            }
            Accepted::Pair(link) => {
                let outside = self.clone();
                self.start("pairing", move || outside.introduce_guest(link));
            }
            Accepted::Call(call) => call.refuse(CloseCode::NotAllowed, "this peer is not allowed here"),
        }
    }

    /// Waits for what a peer says that wants to pair.
    fn introduce_guest(&self, mut link: PairLink) {
        let Some(request) = link.request() else { return };
        let (Some(remote), Some(request)) = (link.remote_socket(), Encoded::of(&request)) else {
            return;
        };
        let peer = link.peer();
        let number = {
            let mut state = self.state();
            state.next += 1;
            let number = state.next;
            state.guests.insert(number, link);
            number
        };
        self.report(&Report::Pair {
            number,
            peer,
            remote,
            request,
        });
    }

    fn hold(&self, link: Arc<ReceiverLink>) -> u64 {
        let mut state = self.state();
        state.next += 1;
        let number = state.next;
        state.links.insert(number, link);
        number
    }

    fn call(self: &Arc<Outside>, number: u64, peer: Fingerprint, addresses: &[SocketAddr], tree: ModuleName) {
        let failed = |text: String| ConnectError::Failed(text);
        let callee = self.callee.as_ref();
        let connected = callee
            .filter(|callee| callee.is_meant(peer, addresses))
            .ok_or_else(|| failed("this receiver was not started to call this peer there".to_owned()))
            .and_then(|_| {
                sender_config(&self.identity, peer, &[ALPN_PULL]).map_err(|error| failed(error.to_string()))
            })
            .and_then(|tls| ReceiverLink::call(&self.runtime, tls, (peer, addresses), tree, &self.link))
            .and_then(|link| {
                let remote = link.remote_socket();
                let remote = remote.ok_or_else(|| failed("the peer has no address".to_owned()))?;
                Ok((Arc::new(link), remote))
            });
        let outcome = match connected {
            Ok((link, remote)) if number >= CALLS_FROM => {
                let outside = self.clone();
                // What the peer's name means is known inside only.
                link.tell_silences(&self.runtime, move |is_silent| {
                    outside.report(&Report::Silent { number, is_silent });
                });
                self.state().links.insert(number, link);
                Ok(remote)
            }
            Ok(_) => Err(CallFault::from(failed("this is no number of a call".to_owned()))),
            Err(error) => Err(CallFault::from(error)),
        };
        self.report(&Report::Called { number, outcome });
    }

    fn close(&self, number: u64, code: CloseCode, text: &str) {
        let mut state = self.state();
        let (link, guest) = (state.links.remove(&number), state.guests.remove(&number));
        drop(state);
        if let Some(link) = link {
            link.close(code, text);
        }
        if let Some(guest) = guest {
            guest.end(code, text);
        }
    }

    fn probe(self: &Arc<Outside>, number: u64, question: u64, patience: Duration) {
        let handle = self.state().links.get(&number).map(|link| link.handle());
        let outside = self.clone();
        self.start("probe", move || {
            let yes = handle.is_some_and(|handle| handle.is_alive(patience));
            outside.report(&Report::Alive { question, yes });
        });
    }

    /// Joins a connection and its sockets.
    fn connect(self: &Arc<Outside>, number: u64, sockets: Vec<OwnedFd>) {
        let link = self.state().links.get(&number).cloned();
        let sockets = <[OwnedFd; SOCKETS]>::try_from(sockets);
        let (Some(link), Ok(sockets)) = (link, sockets) else {
            // It ended meanwhile; dropped, the sockets say so.
            return;
        };
        let [control, ops, bulk] = sockets.map(|socket| Arc::new(UnixStream::from(socket)));
        let (outside, writing) = (self.clone(), (link.clone(), control.clone()));
        self.start("to-control", move || {
            let (link, control) = writing;
            pass_on(link.incoming(), &control, encode_frame);
            outside.tell_end(number, &link);
            // Whoever still waits for messages of the other process holds it, too.
            let _ = control.shutdown(Shutdown::Both);
        });
        let writing = link.clone();
        self.start("to-ops", move || pass_on(writing.ops(), &ops, encode_frame));
        let writing = link.clone();
        self.start("to-bulk", move || {
            if let Some(frames) = writing.take_packed_bulk() {
                hand_on(frames, &bulk);
            }
        });
        self.start("from-control", move || take_all(&control, &link));
    }

    /// Tells how a connection ended. If it did not, then the other process has hung up, and says so on the door.
    fn tell_end(&self, number: u64, link: &ReceiverLink) {
        if let Some(end) = link.ended() {
            self.state().links.remove(&number);
            self.report(&Report::Ended {
                number,
                end: end.into(),
            });
        }
    }
}

/// Writes frames that were not decoded until there are no more, or nobody reads. Who reads them decodes them in any case.
fn hand_on(mut frames: mpsc::Receiver<Arrived>, mut socket: &UnixStream) {
    while let Some(frame) = frames.blocking_recv() {
        if frame.write_to(&mut socket).is_err() {
            return;
        }
    }
}

/// Hands the peer what is said to it, until there is no more.
pub(super) fn take_all(control: &UnixStream, link: &ReceiverLink) {
    let mut frames = Frames::new(BufReader::with_capacity(READ_BYTES, control));
    // Its end says nothing: why a connection is closed is told on the door.
    while let Ok(Some(message)) = frames.next::<ToSender>() {
        // After the end of the connection it is lost, but taken all the same: a session that could not get it off would not
        // take what the peer said last, and the end is told behind that.
        let _ = link.control().send(message);
    }
}

/// Writes what comes until nothing does, or nobody reads.
fn pass_on<T>(
    from: &Receiver<T>,
    socket: &UnixStream,
    frame: impl Fn(&T) -> Result<Vec<u8>, CodecFault> + Copy,
) {
    let mut to = socket;
    while let Ok(first) = from.recv() {
        match write_waiting(&mut to, first, from, frame) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return tracing::error!("cannot hand on what was decoded: {error}");
            }
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::door::doors;
    use super::*;
    use std::time::Instant;

    /// What it cannot tell would never be known inside. So it ends, and both are started again.
    #[test]
    fn a_report_that_nobody_takes_ends_the_process() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (inside, ours) = doors().unwrap();
        let outside = Arc::new(Outside {
            door: Door::from(ours),
            runtime: runtime.handle().clone(),
            identity: Identity::ephemeral().unwrap(),
            link: LinkOptions::default(),
            callee: None,
            state: Mutex::default(),
        });
        let obeying = outside.clone();
        let obeying = std::thread::spawn(move || obeying.obey(None, None::<fn()>));
        let deadline = Instant::now() + Duration::from_secs(60);
        while !obeying.is_finished() {
            assert!(Instant::now() < deadline, "it goes on without being heard");
            outside.report(&Report::Alive {
                question: 1,
                yes: true,
            });
        }
        assert!(!obeying.join().unwrap(), "nobody has told it to end");
        drop(inside);
    }
}
