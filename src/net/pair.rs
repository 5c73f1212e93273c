//! Pairing connections: one request, one reply.

use super::link::{Shared, dial_and_greet};
use super::transport::{ConnectError, LinkOptions, connect_error};
use driftless_certs::Fingerprint;
use driftless_protocol::CloseCode;
use driftless_protocol::codec::{FRAME_PREFIX_BYTES, Message, decode, encode_frame};
use driftless_protocol::message::{PairReply, PairRequest};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// The receiver's end.
#[derive(Debug)]
pub struct PairLink {
    runtime: tokio::runtime::Handle,
    shared: Shared,
    peer: Fingerprint,
    send: quinn::SendStream,
    receive: quinn::RecvStream,
    deadline: Duration,
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
        PairLink {
            runtime,
            shared,
            peer,
            send,
            receive,
            deadline,
        }
    }

    /// Whose key is on the other side.
    pub fn peer(&self) -> Fingerprint {
        self.peer
    }

    /// The request; none if it does not come in time or is wrong. Blocks.
    pub fn request(&mut self) -> Option<PairRequest> {
        let read = read_message(&mut self.receive);
        let request = self
            .runtime
            .block_on(async { tokio::time::timeout(self.deadline, read).await });
        let request = request.ok().flatten();
        if request.is_none() {
            self.shared.close(CloseCode::Violation, "no pairing request came");
        }
        request
    }

    /// The peer's address; none for one in this process.
    pub fn remote_address(&self) -> Option<IpAddr> {
        self.shared.remote_address()
    }

    /// Accepts, and ends the connection once the peer has the reply.
    pub fn reply(mut self, reply: &PairReply) {
        let Ok(frame) = encode_frame(reply) else { return };
        let _ = self.runtime.block_on(async {
            self.send.write_all(&frame).await.ok()?;
            self.send.finish().ok()?;
            tokio::time::timeout(self.deadline, self.send.stopped())
                .await
                .ok()
        });
        self.shared.close(CloseCode::Done, "");
    }

    /// Refuses.
    pub fn refuse(self, text: &str) {
        self.shared.close(CloseCode::Pairing, text);
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
