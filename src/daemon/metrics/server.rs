//! Serves the metrics over HTTP: `GET /metrics` and nothing else.
//!
//! Each scraper has a thread, two seconds in all, and a request of 8 KiB; beyond [`CONNECTIONS_MAX`] at a time connections are
//! dropped, so that none that is slow holds up another. What it tells is no secret
//! of contents, but it names paths and peers, and nobody is asked who they are: it belongs on the loopback device, or behind
//! something that asks.

use super::{CONTENT_TYPE, render};
use crate::daemon::control::Controlled;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long one scraper may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Connections at a time.
const CONNECTIONS_MAX: usize = 16;

/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 8 << 10;

/// A listening endpoint. Dropping it ends it.
#[derive(Debug)]
pub struct MetricsServer {
    address: SocketAddr,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl MetricsServer {
    /// Listens. Port 0 takes a free one.
    pub fn start(address: SocketAddr, daemons: Arc<dyn Controlled>) -> io::Result<MetricsServer> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let stopping = Arc::new(AtomicBool::new(false));
        let thread = std::thread::Builder::new().name("metrics".to_owned()).spawn({
            let stopping = stopping.clone();
            move || {
                let open = Arc::new(AtomicUsize::new(0));
                for stream in listener.incoming() {
                    if stopping.load(Ordering::Acquire) {
                        return;
                    }
                    match stream {
                        Ok(stream) => answer_apart(stream, &daemons, &open),
                        // Out of descriptors, most likely: it passes, but not faster by asking again at once.
                        Err(_) => std::thread::sleep(Duration::from_millis(200)),
                    }
                }
            }
        })?;
        Ok(MetricsServer {
            address,
            stopping,
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for MetricsServer {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        let mut own = self.address;
        if own.ip().is_unspecified() {
            own.set_ip(match own {
                SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
            });
        }
        // Wakes the thread. Where that fails it ends with the process.
        if TcpStream::connect_timeout(&own, PATIENCE).is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

/// A connection that is counted until it ends, however it does.
struct Slot(Arc<AtomicUsize>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

fn answer_apart(stream: TcpStream, daemons: &Arc<dyn Controlled>, open: &Arc<AtomicUsize>) {
    let slot = Slot(open.clone());
    if open.fetch_add(1, Ordering::AcqRel) >= CONNECTIONS_MAX {
        return;
    }
    let daemons = daemons.clone();
    let spawned = std::thread::Builder::new()
        .name("metrics-answer".to_owned())
        .spawn(move || {
            if let Err(error) = answer(&stream, &*daemons) {
                tracing::debug!("a scraper was not answered: {error}");
            }
            drop(slot);
        });
    if let Err(error) = spawned {
        tracing::warn!("cannot start a thread for a scraper: {error}");
    }
}

fn answer(stream: &TcpStream, daemons: &dyn Controlled) -> io::Result<()> {
    let until = Instant::now() + PATIENCE;
    let head = read_head(stream, until)?;
    let mut words = head.split(|&byte| matches!(byte, b' ' | b'\r' | b'\n'));
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = target.split(|&byte| byte == b'?').next().unwrap_or_default();
    let (status, kind, body) = match (method, path) {
        (b"GET" | b"HEAD", b"/metrics") => ("200 OK", CONTENT_TYPE, render(&daemons.status())),
        (b"GET" | b"HEAD", _) => (
            "404 Not Found",
            "text/plain",
            "the metrics are at /metrics\n".to_owned(),
        ),
        _ => (
            "405 Method Not Allowed",
            "text/plain",
            "only GET is answered\n".to_owned(),
        ),
    };
    let length = body.len();
    let mut reply = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    if method != b"HEAD" {
        reply.push_str(&body);
    }
    write_all(stream, reply.as_bytes(), until)?;
    stream.shutdown(Shutdown::Write)
}

/// Reads up to the empty line. The time is for all of it, so that a byte now and then does not extend it.
fn read_head(mut stream: &TcpStream, until: Instant) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    let mut buffer = [0; 1_024];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if head.len() > HEAD_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        stream.set_read_timeout(Some(remaining(until)?))?;
        match stream.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => head.extend_from_slice(&buffer[..length]),
        }
    }
    Ok(head)
}

fn write_all(mut stream: &TcpStream, mut bytes: &[u8], until: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.set_write_timeout(Some(remaining(until)?))?;
        match stream.write(bytes)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => bytes = &bytes[written..],
        }
    }
    Ok(())
}

fn remaining(until: Instant) -> io::Result<Duration> {
    match until.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(io::ErrorKind::TimedOut.into()),
        left => Ok(left),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(server: &MetricsServer, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(server.address()).unwrap();
        stream.write_all(request).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    /// Nothing if the connection was dropped.
    fn try_get(server: &MetricsServer, request: &[u8]) -> String {
        let mut text = String::new();
        if let Ok(mut stream) = TcpStream::connect(server.address()) {
            let _ = stream.write_all(request);
            let _ = stream.read_to_string(&mut text);
        }
        text
    }

    /// Whoever says nothing has a thread of its own, and is still there when others have their answer. (On a machine so busy that
    /// the time of all of them ends before, it is tried again.)
    #[test]
    fn a_slow_client_does_not_stall_the_others() {
        let server = MetricsServer::start("127.0.0.1:0".parse().unwrap(), Arc::new(Vec::new())).unwrap();
        let is_answered_beside = |_: &i32| {
            let mut silent: Vec<_> = (0..4)
                .map(|_| TcpStream::connect(server.address()).unwrap())
                .collect();
            assert!(get(&server, b"GET /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 200"));
            let is_open = |stream: &mut TcpStream| {
                stream.set_nonblocking(true).unwrap();
                stream
                    .read(&mut [0])
                    .is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
            };
            silent.iter_mut().any(is_open)
        };
        assert!((0..20).any(|at| is_answered_beside(&at)));
    }

    #[test]
    fn only_the_metrics_are_served_and_nobody_holds_it_up() {
        let daemons: Arc<dyn Controlled> = Arc::new(Vec::new());
        let server = MetricsServer::start("127.0.0.1:0".parse().unwrap(), daemons.clone()).unwrap();
        let reply = get(&server, b"GET /metrics?x=1 HTTP/1.1\r\nHost: x\r\n\r\n");
        let (head, body) = reply.split_once("\r\n\r\n").unwrap();
        assert!(
            head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains(CONTENT_TYPE),
            "{head}"
        );
        assert!(
            head.contains(&format!("Content-Length: {}\r\n", body.len())),
            "{head}"
        );
        assert!(body.contains("driftless_build_info{version="));
        assert!(get(&server, b"GET / HTTP/1.0\r\n\r\n").starts_with("HTTP/1.1 404"));
        assert!(get(&server, b"POST /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405"));
        let reply = get(&server, b"HEAD /metrics HTTP/1.1\r\n\r\n");
        assert!(
            reply.ends_with("\r\n\r\n") && !reply.contains("Content-Length: 0"),
            "{reply}"
        );
        // One that says nothing, and one that never ends.
        let silent = TcpStream::connect(server.address()).unwrap();
        let mut endless = TcpStream::connect(server.address()).unwrap();
        let _ = endless.write_all(&vec![b'x'; HEAD_BYTES_MAX * 4]);
        assert!(get(&server, b"GET /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 200"));
        drop(silent);
        // As many as may be there at a time, none of which says anything: one more is not kept waiting, and their time ends.
        let silent: Vec<_> = (0..CONNECTIONS_MAX)
            .map(|_| TcpStream::connect(server.address()).unwrap())
            .collect();
        let began = Instant::now();
        while !try_get(&server, b"GET /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 200") {
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "nobody is answered any more"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        drop(silent);
        let taken = MetricsServer::start(server.address(), daemons).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        let address = server.address();
        drop(server);
        assert!(TcpStream::connect(address).is_err());
    }
}
