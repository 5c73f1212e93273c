//! A UDP socket that sends no faster than its limiter allows.

use super::Limiter;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;
use tokio::time::{Sleep, sleep_until};

/// Largest packet that path discovery ends at.
const PACKET_BYTES: u64 = 1_452;

/// Wraps another socket.
#[derive(Debug)]
pub struct LimitedSocket {
    inner: Arc<dyn AsyncUdpSocket>,
    limiter: Arc<Limiter>,
}

impl LimitedSocket {
    /// Receiving is not limited.
    pub fn new(inner: Arc<dyn AsyncUdpSocket>, limiter: Arc<Limiter>) -> LimitedSocket {
        LimitedSocket { inner, limiter }
    }
}

impl AsyncUdpSocket for LimitedSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(LimitedPoller {
            inner: self.inner.clone().create_io_poller(),
            limiter: self.limiter.clone(),
            sleep: None,
        })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let now = Instant::now();
        if self.limiter.admit(now).is_err() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.inner.try_send(transmit)?;
        self.limiter.charge(now, transmit.contents.len());
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.inner.poll_recv(cx, buffers, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        let batch = self.limiter.batch(Instant::now(), PACKET_BYTES);
        self.inner.max_transmit_segments().min(batch)
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

/// Waits for the limiter, then for the socket.
#[derive(Debug)]
struct LimitedPoller {
    inner: Pin<Box<dyn UdpPoller>>,
    limiter: Arc<Limiter>,
    /// There is a timer only while something waits.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl UdpPoller for LimitedPoller {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Err(when) = self.limiter.admit(Instant::now()) {
            let sleep = self.sleep.insert(Box::pin(sleep_until(when.into())));
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
        self.sleep = None;
        self.inner.as_mut().poll_writable(cx)
    }
}
