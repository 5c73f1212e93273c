//! Pairing connections: one request, one reply.

use super::link::{Shared, dial_and_greet};
use super::separation::Guest;
use super::transport::{ConnectError, LinkOptions, connect_error};
use driftless_certs::Fingerprint;
use driftless_protocol::CloseCode;
use driftless_protocol::codec::{FRAME_PREFIX_BYTES, Message, decode, encode_frame};
use driftless_protocol::message::{PairReply, PairRequest};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// The receiver's end.
#[derive(Debug)]
pub struct PairLink {
    peer: Fingerprint,
    way: Way,
}

/// Where the other side is.
#[derive(Debug)]
enum Way {
    Network {
        runtime: tokio::runtime::Handle,
        shared: Shared,
        send: quinn::SendStream,
        receive: quinn::RecvStream,
        deadline: Duration,
    },
    /// Another process speaks to it, and has heard its request.
    Apart(Arc<Guest>, Option<PairRequest>),
}

impl PairLink {
    pub(super) fn new(
        runtime: tokio::runtime::Handle,
        shared: Shared,
        peer: Fingerprint,
        send: quinn::SendStream,
        receive: quinn::RecvStream,
        deadline: Duration,
    ) -> PairLink {
        let way = Way::Network {
            runtime,
            shared,
            send,
            receive,
            deadline,
        };
        PairLink { peer, way }
    }

    /// Of somebody to whom another process speaks.
    pub(super) fn apart(guest: Arc<Guest>, peer: Fingerprint, request: PairRequest) -> PairLink {
        let way = Way::Apart(guest, Some(request));
        PairLink { peer, way }
    }

    /// Whose key is on the other side.
    pub fn peer(&self) -> Fingerprint {
        self.peer
    }

    /// The request; none if it does not come in time or is wrong. Blocks.
    pub fn request(&mut self) -> Option<PairRequest> {
        let (runtime, shared, receive, deadline) = match &mut self.way {
            Way::Network {
                runtime,
                shared,
                receive,
                deadline,
                ..
            } => (runtime, shared, receive, *deadline),
            Way::Apart(_, request) => return request.take(),
        };
        let read = read_message(receive);
        let request = runtime.block_on(async { tokio::time::timeout(deadline, read).await });
        let request = request.ok().flatten();
        if request.is_none() {
            shared.close(CloseCode::Violation, "no pairing request came");
        }
        request
    }

    /// The peer's address; none for one in this process.
    pub fn remote_address(&self) -> Option<IpAddr> {
        self.remote_socket().map(|remote| remote.ip())
    }

    /// The same with the port.
    pub(super) fn remote_socket(&self) -> Option<SocketAddr> {
        match &self.way {
            Way::Network { shared, .. } => shared.remote_socket(),
            Way::Apart(guest, _) => Some(guest.remote()),
        }
    }

    /// Accepts, and ends the connection once the peer has the reply.
    pub fn reply(self, reply: &PairReply) {
        let (runtime, shared, mut send, deadline) = match self.way {
            Way::Network {
                runtime,
                shared,
                send,
                deadline,
                ..
            } => (runtime, shared, send, deadline),
            Way::Apart(guest, _) => return guest.reply(reply),
        };
        let Ok(frame) = encode_frame(reply) else { return };
        let _ = runtime.block_on(async {
            send.write_all(&frame).await.ok()?;
            send.finish().ok()?;
            tokio::time::timeout(deadline, send.stopped()).await.ok()
        });
        shared.close(CloseCode::Done, "");
    }

    /// Refuses.
    pub fn refuse(self, text: &str) {
        self.end(CloseCode::Pairing, text);
    }

    /// Ends it, for any reason.
    pub(super) fn end(self, code: CloseCode, text: &str) {
        match self.way {
            Way::Network { shared, .. } => shared.close(code, text),
            Way::Apart(guest, _) => guest.refuse(code, text),
        }
    }
}

/// Redeems a pairing code's secret at the first address that answers. Blocks; not for threads of the runtime.
pub fn pair(
    runtime: &tokio::runtime::Handle,
    tls: rustls::ClientConfig,
    addresses: &[SocketAddr],
    request: &PairRequest,
    options: &LinkOptions,
) -> Result<PairReply, ConnectError> {
    let mut last = ConnectError::Failed("there is no address to connect to".to_owned());
    for &address in addresses {
        match runtime.block_on(redeem(tls.clone(), address, request, options)) {
            Ok(reply) => return Ok(reply),
            // Whoever answered has decided; asking elsewhere would only spend the code.
            Err(error @ (ConnectError::Refused { .. } | ConnectError::WrongPeer { .. })) => {
                return Err(error);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn redeem(
    tls: rustls::ClientConfig,
    address: SocketAddr,
    request: &PairRequest,
    options: &LinkOptions,
) -> Result<PairReply, ConnectError> {
    let (_endpoint, connection, mut send, mut receive) = dial_and_greet(tls, address, options).await?;
    let frame = encode_frame(request).map_err(|fault| ConnectError::Failed(fault.to_string()))?;
    let _ = send.write_all(&frame).await;
    let _ = send.finish();
    match tokio::time::timeout(options.hello_timeout, read_message(&mut receive)).await {
        Ok(Some(reply)) => {
            connection.close(CloseCode::Done.number().into(), b"");
            Ok(reply)
        }
        _ => match connection.close_reason() {
            Some(error) => Err(connect_error(&error, address, options)),
            None => Err(ConnectError::Failed(
                "the receiver did not answer the pairing request".to_owned(),
            )),
        },
    }
}

/// One message in a plain frame; none if it is none of this kind.
pub(super) async fn read_message<M: Message>(stream: &mut quinn::RecvStream) -> Option<M> {
    let mut prefix = [0; FRAME_PREFIX_BYTES];
    stream.read_exact(&mut prefix).await.ok()?;
    let length = u32::from_be_bytes(prefix) as usize;
    if length > M::BYTES_MAX {
        return None;
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    decode(&body).ok()
}
