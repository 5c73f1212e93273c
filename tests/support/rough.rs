//! A bad network without privileges: a UDP relay that delays, loses, doubles and reorders datagrams, drops large ones,
//! goes deaf in one direction or both, and changes the sender's address as a NAT does.

use super::random::Random;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How often a thread that waits for datagrams looks whether it shall end, or has another socket.
const LOOK: Duration = Duration::from_millis(20);

/// What the network does, in each direction alike unless it says otherwise.
#[derive(Debug, Clone, Copy, Default)]
pub struct Weather {
    /// One way.
    pub delay: Duration,
    /// Percent that vanish.
    pub loss: usize,
    /// Percent that come twice.
    pub doubled: usize,
    /// Percent that come later than those sent after them.
    pub late: usize,
    /// Larger datagrams vanish.
    pub largest: Option<usize>,
    /// Nothing arrives at the receiver.
    pub deaf_there: bool,
    /// Nothing arrives at the sender.
    pub deaf_here: bool,
}

impl Weather {
    pub fn cut(self, is_cut: bool) -> Weather {
        Weather {
            deaf_there: is_cut,
            deaf_here: is_cut,
            ..self
        }
    }
}

/// What passed towards the receiver.
#[derive(Debug, Default)]
struct Passed {
    bytes: AtomicU64,
    /// Packets with a long header: handshakes.
    handshakes: AtomicU64,
}

/// The relay; dropping it ends it.
pub struct Rough {
    address: SocketAddr,
    target: SocketAddr,
    back: Arc<Mutex<Arc<UdpSocket>>>,
    weather: Arc<Mutex<Weather>>,
    passed: Arc<Passed>,
    stop: Arc<AtomicBool>,
}

fn bind() -> Arc<UdpSocket> {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(LOOK)).unwrap();
    // Bursts must not be lost here, but where the weather says.
    let _ = rustix::net::sockopt::set_socket_recv_buffer_size(&socket, 4 << 20);
    Arc::new(socket)
}

impl Rough {
    pub fn start(target: SocketAddr, weather: Weather) -> Rough {
        let front = bind();
        let rough = Rough {
            address: front.local_addr().unwrap(),
            target,
            back: Arc::new(Mutex::new(bind())),
            weather: Arc::new(Mutex::new(weather)),
            passed: Arc::default(),
            stop: Arc::default(),
        };
        let sender = Arc::new(Mutex::new(None));
        rough.carry_there(&front, &sender);
        rough.carry_back(front, sender);
        rough
    }

    /// Where to send to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn set(&self, weather: Weather) {
        *self.weather.lock().unwrap() = weather;
    }

    /// From now on the receiver sees the sender at another port.
    pub fn change_address(&self) {
        *self.back.lock().unwrap() = bind();
    }

    /// Bytes that went on to the receiver.
    pub fn bytes(&self) -> u64 {
        self.passed.bytes.load(Ordering::Relaxed)
    }

    /// Packets of handshakes that went on to the receiver.
    pub fn handshakes(&self) -> u64 {
        self.passed.handshakes.load(Ordering::Relaxed)
    }

    fn carry_there(&self, front: &Arc<UdpSocket>, sender: &Arc<Mutex<Option<SocketAddr>>>) {
        let (back, target, passed) = (self.back.clone(), self.target, self.passed.clone());
        let deliver = move |packet: &[u8]| {
            passed.bytes.fetch_add(packet.len() as u64, Ordering::Relaxed);
            let is_long = packet.first().is_some_and(|first| first & 0x80 != 0);
            passed.handshakes.fetch_add(u64::from(is_long), Ordering::Relaxed);
            let back = back.lock().unwrap().clone();
            let _ = back.send_to(packet, target);
        };
        let (front, sender) = (front.clone(), sender.clone());
        let take = move |buffer: &mut [u8]| {
            let (length, peer) = front.recv_from(buffer).ok()?;
            *sender.lock().unwrap() = Some(peer);
            Some(length)
        };
        self.carry(1, |weather| weather.deaf_there, take, deliver);
    }

    fn carry_back(&self, front: Arc<UdpSocket>, sender: Arc<Mutex<Option<SocketAddr>>>) {
        let back = self.back.clone();
        let take = move |buffer: &mut [u8]| {
            let back = back.lock().unwrap().clone();
            back.recv(buffer).ok()
        };
        let deliver = move |packet: &[u8]| {
            if let Some(sender) = *sender.lock().unwrap() {
                let _ = front.send_to(packet, sender);
            }
        };
        self.carry(2, |weather| weather.deaf_here, take, deliver);
    }

    fn carry(
        &self,
        seed: u64,
        is_deaf: fn(&Weather) -> bool,
        take: impl Fn(&mut [u8]) -> Option<usize> + Send + 'static,
        deliver: impl Fn(&[u8]) + Send + 'static,
    ) {
        let (weather, stop) = (self.weather.clone(), self.stop.clone());
        let (packets, queue) = channel();
        std::thread::spawn(move || deliver_when_due(&queue, &deliver));
        std::thread::spawn(move || {
            let (mut buffer, mut random) = (vec![0; 65_536], Random(seed));
            while !stop.load(Ordering::Relaxed) {
                let Some(length) = take(&mut buffer) else { continue };
                let weather = *weather.lock().unwrap();
                let mut happens = |percent| random.below(100) < percent;
                if is_deaf(&weather)
                    || weather.largest.is_some_and(|most| length > most)
                    || happens(weather.loss)
                {
                    continue;
                }
                let late = match happens(weather.late) {
                    true => Duration::from_millis(5) + weather.delay / 4,
                    false => Duration::ZERO,
                };
                let due = Instant::now() + weather.delay + late;
                for _ in 0..1 + usize::from(happens(weather.doubled)) {
                    send(&packets, due, &buffer[..length]);
                }
            }
        });
    }
}

impl Drop for Rough {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn send(packets: &Sender<(Instant, Vec<u8>)>, due: Instant, packet: &[u8]) {
    let _ = packets.send((due, packet.to_vec()));
}

/// Delivers by the time when each is due, and in the order of arrival where that is the same.
fn deliver_when_due(queue: &Receiver<(Instant, Vec<u8>)>, deliver: &impl Fn(&[u8])) {
    let mut waiting = BinaryHeap::<Reverse<(Instant, u64, Vec<u8>)>>::new();
    let mut arrived = 0_u64;
    loop {
        let now = Instant::now();
        while let Some(Reverse((due, _, _))) = waiting.peek()
            && *due <= now
        {
            let Some(Reverse((_, _, packet))) = waiting.pop() else {
                break;
            };
            deliver(&packet);
        }
        let pause = waiting
            .peek()
            .map_or(LOOK, |Reverse((due, _, _))| due.saturating_duration_since(now));
        match queue.recv_timeout(pause) {
            Ok((due, packet)) => {
                arrived += 1;
                waiting.push(Reverse((due, arrived, packet)));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}
