//! A slow link without privileges: a UDP relay in this process that passes so many bytes a second each way.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Bytes that may wait in each direction; more are dropped, as by a router.
const QUEUE_BYTES: u64 = 128 << 10;

/// The relay; dropping it ends it.
pub struct Relay {
    address: SocketAddr,
    back: Arc<UdpSocket>,
    passed: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Relay {
    /// Passes what comes on to `target`, and its answers back.
    pub fn start(target: SocketAddr, bytes_per_second: u64) -> Relay {
        let bind = || {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            Arc::new(socket)
        };
        let (front, back) = (bind(), bind());
        back.connect(target).unwrap();
        let relay = Relay {
            address: front.local_addr().unwrap(),
            back: back.clone(),
            passed: Arc::default(),
            stop: Arc::default(),
        };
        let client = Arc::new(Mutex::new(None));
        let (to_client, from) = (client.clone(), front.clone());
        let out = Arc::clone(&back);
        relay.spawn(
            bytes_per_second,
            move |buffer| {
                let (length, peer) = from.recv_from(buffer).ok()?;
                *client.lock().unwrap() = Some(peer);
                Some(length)
            },
            move |packet| {
                let _ = out.send(packet);
            },
        );
        relay.spawn(
            bytes_per_second,
            move |buffer| back.recv(buffer).ok(),
            move |packet| {
                if let Some(peer) = *to_client.lock().unwrap() {
                    let _ = front.send_to(packet, peer);
                }
            },
        );
        relay
    }

    /// Where to send to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on passes to another target, and only its answers.
    pub fn retarget(&self, target: SocketAddr) {
        self.back.connect(target).unwrap();
    }

    /// Bytes passed so far, both ways.
    pub fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }

    fn spawn(
        &self,
        bytes_per_second: u64,
        receive: impl Fn(&mut [u8]) -> Option<usize> + Send + 'static,
        send: impl Fn(&[u8]) + Send + 'static,
    ) {
        let (stop, passed) = (self.stop.clone(), self.passed.clone());
        let time_of = move |bytes: u64| Duration::from_secs_f64(bytes as f64 / bytes_per_second as f64);
        let (packets, queue) = std::sync::mpsc::channel::<(Instant, Vec<u8>)>();
        std::thread::spawn(move || {
            for (due, packet) in queue {
                // The time on the line is what this relay is for.
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                send(&packet);
                passed.fetch_add(packet.len() as u64, Ordering::Relaxed);
            }
        });
        std::thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            let mut free_at = Instant::now();
            while !stop.load(Ordering::Relaxed) {
                let Some(length) = receive(&mut buffer) else {
                    continue;
                };
                let now = Instant::now();
                free_at = free_at.max(now);
                if free_at - now < time_of(QUEUE_BYTES) {
                    free_at += time_of(length as u64);
                    if packets.send((free_at, buffer[..length].to_vec())).is_err() {
                        return;
                    }
                }
            }
        });
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
