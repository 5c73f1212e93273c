//! The handshake and the hellos, as the side that connects sees them.

use super::PRIORITY_CONTROL;
use crate::net::congestion::Permit;
use crate::net::sockets::any;
use crate::net::transport::{
    CONNECTION_WINDOW_BYTES, ConnectError, LinkOptions, connect_error, endpoint, no_answer, transport,
};
use driftless_certs::SERVER_NAME;
use driftless_protocol::CloseCode;
use driftless_protocol::version::{Features, HELLO_BYTES, Hello};
use quinn::crypto::rustls::QuicClientConfig;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

/// Shakes hands. The peer may open so many streams of one direction, and no others.
pub(in crate::net) async fn dial(
    tls: rustls::ClientConfig,
    address: SocketAddr,
    options: &LinkOptions,
    uni_streams: u32,
) -> Result<(quinn::Endpoint, quinn::Connection, Arc<Permit>), ConnectError> {
    let failed = |error: &dyn fmt::Display| ConnectError::Failed(error.to_string());
    let shared = options.sockets.as_ref();
    let shared = shared.filter(|sockets| sockets.are_limited() == options.limiter.is_some());
    let endpoint = match shared {
        Some(sockets) => sockets.endpoint_for(address),
        None => endpoint(any(address), None, None, options.limiter.clone()),
    };
    let endpoint = endpoint.map_err(|error| failed(&error))?;
    let crypto = QuicClientConfig::try_from(tls).map_err(|error| failed(&error))?;
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    let permit = Arc::<Permit>::default();
    let window = CONNECTION_WINDOW_BYTES;
    let transport = transport(options, uni_streams, 0, window, permit.clone(), address.ip());
    config.transport_config(transport);
    let connecting = endpoint
        .connect_with(config, address, SERVER_NAME)
        .map_err(|error| {
            if let Some(sockets) = shared {
                sockets.forget(address);
            }
            failed(&error)
        })?;
    match tokio::time::timeout(options.connect_timeout, connecting).await {
        Ok(Ok(connection)) => Ok((endpoint, connection, permit)),
        Ok(Err(error)) => Err(connect_error(&error, address, options)),
        Err(_) => Err(no_answer(address, options)),
    }
}

/// Opens the control stream with our hello.
pub(in crate::net) async fn say_hello(
    connection: &quinn::Connection,
) -> Result<(quinn::SendStream, quinn::RecvStream), quinn::ConnectionError> {
    let (mut send, receive) = connection.open_bi().await?;
    let _ = send.set_priority(PRIORITY_CONTROL);
    match send.write_all(&Hello::OURS.to_bytes()).await {
        Ok(()) => Ok((send, receive)),
        Err(_) => Err(connection.closed().await),
    }
}

/// Waits for the receiver's hello. QUIC's handshake ends for the sender before the receiver has judged its key; this
/// says that it has.
pub(in crate::net) async fn hear_hello(
    connection: &quinn::Connection,
    receive: &mut quinn::RecvStream,
    address: SocketAddr,
    options: &LinkOptions,
) -> Result<Features, ConnectError> {
    let mut bytes = [0; HELLO_BYTES];
    let hearing = async {
        match receive.read_exact(&mut bytes).await {
            Ok(()) => Ok(()),
            Err(_) => Err(connection.closed().await),
        }
    };
    match tokio::time::timeout(options.hello_timeout, hearing).await {
        Ok(Ok(())) => match Hello::from_bytes(&bytes) {
            Ok(hello) => Ok(hello.features.common(Features::OURS)),
            Err(fault) => {
                connection.close(CloseCode::Version.number().into(), fault.to_string().as_bytes());
                Err(ConnectError::Refused {
                    code: CloseCode::Version,
                    text: fault.to_string(),
                })
            }
        },
        Ok(Err(error)) => Err(connect_error(&error, address, options)),
        Err(_) => Err(no_answer(address, options)),
    }
}

/// Connects for pairing.
pub(in crate::net) async fn dial_and_greet(
    tls: rustls::ClientConfig,
    address: SocketAddr,
    options: &LinkOptions,
) -> Result<
    (
        quinn::Endpoint,
        quinn::Connection,
        quinn::SendStream,
        quinn::RecvStream,
    ),
    ConnectError,
> {
    let (endpoint, connection, _) = dial(tls, address, options, 0).await?;
    let (send, mut receive) = say_hello(&connection)
        .await
        .map_err(|error| connect_error(&error, address, options))?;
    hear_hello(&connection, &mut receive, address, options).await?;
    Ok((endpoint, connection, send, receive))
}
