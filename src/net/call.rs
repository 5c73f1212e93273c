//! Connections that the receiver opens: it calls a sender that offers trees, and from then on both have the roles that they
//! always have.

use super::congestion::Permit;
use super::link::{ReceiverLink, SenderLink, Shared, dial, hear_hello, say_hello};
use super::shift::Outlet;
use super::silence;
use super::transport::{BULK_STREAMS, ConnectError, LinkOptions, OP_STREAMS, connect_error};
use super::trunk::{Role, Trunk};
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use driftless_certs::Fingerprint;
use driftless_protocol::CloseCode;
use driftless_protocol::codec::encode_frame;
use driftless_protocol::message::{ModuleName, PullRequest, ToReceiver};
use driftless_protocol::version::Features;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a receiver may take to answer before its connection counts as dead and another one of it takes its place.
const PROBE_PATIENCE: Duration = Duration::from_secs(2);

/// How often a receiver says that it is there, at least. It has nothing else to say when the sender has nothing to tell it, and so finds
/// out by this alone that nobody is there any more.
const CALL_KEEP_ALIVE: Duration = Duration::from_secs(4);

/// A receiver that has said which tree it wants, and waits for the sender.
pub struct Call {
    pub(super) connection: quinn::Connection,
    pub(super) peer: Fingerprint,
    pub(super) tree: ModuleName,
    pub(super) features: Features,
    pub(super) send: quinn::SendStream,
    pub(super) receive: quinn::RecvStream,
    pub(super) permit: Arc<Permit>,
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Call({} for {})", self.peer, self.tree)
    }
}

impl Call {
    /// Whose key is on the other side.
    pub fn peer(&self) -> Fingerprint {
        self.peer
    }

    /// What it asks for.
    pub fn tree(&self) -> &ModuleName {
        &self.tree
    }

    /// Where it is, for messages.
    pub fn remote(&self) -> SocketAddr {
        self.connection.remote_address()
    }

    /// Ends it.
    pub fn refuse(self, code: CloseCode, text: &str) {
        self.connection.close(code.number().into(), text.as_bytes());
    }
}

/// Where the calls of one receiver for one tree arrive. The sender that answers them has it in its options, in place of an
/// address.
#[derive(Debug, Clone)]
pub struct Calls(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    put: Sender<Call>,
    waiting: Receiver<Call>,
    /// The connection that was answered last.
    answered: Mutex<Option<Answered>>,
}

#[derive(Debug, Clone)]
struct Answered {
    shared: Shared,
    control: Outlet<ToReceiver>,
}

impl Default for Calls {
    /// Nobody has called.
    fn default() -> Calls {
        let (put, waiting) = bounded(1);
        let answered = Mutex::default();
        Calls(Arc::new(Inner {
            put,
            waiting,
            answered,
        }))
    }
}

impl Calls {
    /// Has a call wait for the sender. It takes the place of an earlier one; while one is answered that is alive, it is refused.
    /// Blocks for a moment to find that out.
    pub fn put(&self, mut call: Call) {
        let answered = self.answered().clone();
        if let Some(answered) = answered.filter(|answered| answered.shared.ended().is_none()) {
            let ask = || answered.control.offer(ToReceiver::SIGN_OF_LIFE).is_ok();
            if answered.shared.answers(PROBE_PATIENCE, ask) {
                let text = "this tree is being pulled over another connection of the same identity";
                return call.refuse(CloseCode::Busy, text);
            }
            answered.shared.close(CloseCode::Busy, REPLACED);
        }
        while let Err(TrySendError::Full(back) | TrySendError::Disconnected(back)) = self.0.put.try_send(call)
        {
            call = back;
            if let Ok(earlier) = self.0.waiting.try_recv() {
                earlier.refuse(CloseCode::Busy, REPLACED);
            }
        }
    }

    /// Calls that wait, to be waited for: one at most.
    pub fn waiting(&self) -> &Receiver<Call> {
        &self.0.waiting
    }

    /// Ends the connection that is there, and the one that waits.
    pub fn hang_up(&self, code: CloseCode, text: &str) {
        if let Ok(call) = self.0.waiting.try_recv() {
            call.refuse(code, text);
        }
        if let Some(answered) = self.answered().take() {
            answered.shared.close(code, text);
        }
    }

    /// Answers the call that waits.
    pub(super) fn answer(
        &self,
        runtime: &tokio::runtime::Handle,
        first: Vec<ToReceiver>,
        options: &LinkOptions,
    ) -> Result<SenderLink, ConnectError> {
        let call = self.0.waiting.try_recv();
        let call = call.map_err(|_| ConnectError::Failed("the receiver has not called".to_owned()))?;
        let link = SenderLink::answer(runtime, call, first, options);
        *self.answered() = Some(Answered {
            shared: link.shared.clone(),
            control: link.control.clone(),
        });
        Ok(link)
    }

    fn answered(&self) -> MutexGuard<'_, Option<Answered>> {
        self.0.answered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const REPLACED: &str = "replaced by a newer connection of the same identity";

impl SenderLink {
    /// Begins the session on a connection that the receiver opened. One that is gone says why when it is used.
    fn answer(
        runtime: &tokio::runtime::Handle,
        call: Call,
        first: Vec<ToReceiver>,
        options: &LinkOptions,
    ) -> SenderLink {
        let trunk = Trunk::new(runtime, call.connection, call.permit, Role::Sole(0), None);
        runtime.spawn(silence::watch(trunk.clone()));
        let session = trunk.begin(0, 0);
        let control = Shared::send_control(runtime, &session, call.send, options.compression);
        for message in first {
            let _ = control.send(message);
        }
        SenderLink::start(runtime, &session, (control, call.receive), call.features, options)
    }
}

impl ReceiverLink {
    /// Connects to the first address that answers, and asks for a tree. Blocks; not for threads of the runtime. The options need
    /// sockets, which outlive the link.
    pub fn call(
        runtime: &tokio::runtime::Handle,
        tls: rustls::ClientConfig,
        (peer, addresses): (Fingerprint, &[SocketAddr]),
        tree: ModuleName,
        options: &LinkOptions,
    ) -> Result<ReceiverLink, ConnectError> {
        let request = PullRequest { tree };
        let failed = |error: &dyn fmt::Display| ConnectError::Failed(error.to_string());
        let request = encode_frame(&request).map_err(|fault| failed(&fault))?;
        let mut last = failed(&"there is no address to connect to");
        for &address in addresses {
            match runtime.block_on(ask(tls.clone(), address, &request, options)) {
                Ok((connection, permit, send, receive)) => {
                    let role = Role::Sole(OP_STREAMS + BULK_STREAMS);
                    let trunk = Trunk::new(runtime, connection, permit, role, None);
                    runtime.spawn(silence::watch(trunk.clone()));
                    return ReceiverLink::start(runtime, &trunk.begin(0, 0), peer, (send, receive), options)
                        .map_err(|error| failed(&error));
                }
                // Whoever answered has decided.
                Err(error @ (ConnectError::Refused { .. } | ConnectError::WrongPeer { .. })) => {
                    return Err(error);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

type Asked = (
    quinn::Connection,
    Arc<Permit>,
    quinn::SendStream,
    quinn::RecvStream,
);

/// Shakes hands and sends the request right behind our hello.
async fn ask(
    tls: rustls::ClientConfig,
    address: SocketAddr,
    request: &[u8],
    options: &LinkOptions,
) -> Result<Asked, ConnectError> {
    let options = &LinkOptions {
        keep_alive: options.keep_alive.min(CALL_KEEP_ALIVE),
        ..options.clone()
    };
    let (_endpoint, connection, permit) = dial(tls, address, options, OP_STREAMS + BULK_STREAMS).await?;
    let (mut send, mut receive) = say_hello(&connection)
        .await
        .map_err(|error| connect_error(&error, address, options))?;
    // A connection that is gone by now says why when the hello is waited for.
    let _ = send.write_all(request).await;
    hear_hello(&connection, &mut receive, address, options).await?;
    Ok((connection, permit, send, receive))
}
