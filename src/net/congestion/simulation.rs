//! A bottleneck in simulated time, with real QUIC connections over it.
//!
//! quinn-proto has no clock and no sockets of its own, so whole transfers, with its pacer, loss detection and
//! acknowledgements, run in steps of simulated time, many times faster than in real time and always the same way.

use bytes::{Bytes, BytesMut};
use driftless_certs::{Identity, SERVER_NAME, receiver_config, sender_config};
use quinn_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, DatagramEvent, Dir, Endpoint, EndpointConfig, Event,
    ServerConfig, StreamEvent, StreamId, TransportConfig,
};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// IPv4 and UDP.
const HEADER_BYTES: u64 = 28;
/// A runtime's timers are this coarse.
const TIMER: Duration = Duration::from_millis(1);
const STREAMS: usize = 4;
const BATCH_PACKETS: usize = 10;

/// A line with a drop-tail queue before it; what comes back meets the delay and the loss only.
#[derive(Debug, Clone, Copy)]
pub struct Line {
    /// Bits per second.
    pub rate: u64,
    /// Both ways, without any queue.
    pub round_trip: Duration,
    /// Bytes that wait at most.
    pub queue: u64,
    /// Packets in a million that vanish, each way.
    pub loss: u64,
}

impl Line {
    /// Bytes that fill the line.
    pub fn bdp(&self) -> u64 {
        (self.rate as f64 / 8.0 * self.round_trip.as_secs_f64()) as u64
    }
}

/// One transfer.
pub struct Transfer {
    /// Of both ends.
    pub transport: Arc<TransportConfig>,
    /// When it begins.
    pub start: Duration,
    /// Of its content.
    pub bytes: u64,
}

/// What became of a transfer.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// When the last byte arrived, from its start; none if the time was over before.
    pub took: Option<Duration>,
    /// Bytes of content that arrived.
    pub arrived: u64,
    /// Bytes of content that had arrived at the end of each second of the simulation.
    pub seconds: Vec<u64>,
    /// UDP payload that was sent.
    pub sent: u64,
    /// Packets that were found lost, and all that were sent.
    pub lost_packets: u64,
    /// All that were sent.
    pub packets: u64,
    /// Dropped by the full queue.
    pub dropped: u64,
    /// Congestion window at the end.
    pub window: u64,
}

impl Outcome {
    /// Bytes sent for each byte of content.
    pub fn overhead(&self) -> f64 {
        self.sent as f64 / self.arrived.max(1) as f64
    }

    /// Content per second between two seconds of the simulation, in bits.
    pub fn rate_between(&self, from: usize, to: usize) -> f64 {
        let at = |second: usize| match second {
            0 => 0,
            second => self
                .seconds
                .get(second - 1)
                .or(self.seconds.last())
                .copied()
                .unwrap_or(0),
        };
        (at(to) - at(from)) as f64 * 8.0 / (to - from) as f64
    }
}

struct End {
    endpoint: Endpoint,
    handle: ConnectionHandle,
    connection: Option<Connection>,
    wake: Option<Instant>,
}

struct Flow {
    ends: [End; 2],
    transfer: Transfer,
    client: Option<ClientConfig>,
    streams: Vec<StreamId>,
    unsent: u64,
    outcome: Outcome,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    Start,
    Wake(usize),
    Arrive(usize, Vec<u8>),
}

/// Runs all transfers over one line until they are done or `limit` is over.
pub fn run(line: Line, transfers: Vec<Transfer>, limit: Duration) -> Vec<Outcome> {
    let mut simulation = Simulation {
        line,
        epoch: Instant::now(),
        free: Duration::ZERO,
        random: 7,
        events: BinaryHeap::new(),
        flows: Vec::new(),
        count: 0,
    };
    for transfer in transfers {
        let start = transfer.start;
        let number = simulation.flows.len();
        simulation.flows.push(flow(number, transfer));
        simulation.at(start, number, Happening::Start);
    }
    simulation.run(limit);
    simulation.flows.into_iter().map(|flow| flow.outcome).collect()
}

fn flow(number: usize, transfer: Transfer) -> Flow {
    let (sender, receiver) = (Identity::ephemeral().unwrap(), Identity::ephemeral().unwrap());
    let alpn: &[&[u8]] = &[b"simulation"];
    let tls = sender_config(&sender, receiver.fingerprint(), alpn).unwrap();
    let mut client = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    client.transport_config(transfer.transport.clone());
    let tls = receiver_config(&receiver, alpn).unwrap();
    let mut server = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
    server.transport_config(transfer.transport.clone());
    let mut config = EndpointConfig::default();
    config.rng_seed(Some([number as u8; 32]));
    let end = |server| End {
        endpoint: Endpoint::new(Arc::new(config.clone()), server, true, None),
        handle: ConnectionHandle(0),
        connection: None,
        wake: None,
    };
    Flow {
        ends: [end(None), end(Some(Arc::new(server)))],
        unsent: transfer.bytes,
        transfer,
        client: Some(client),
        streams: Vec::new(),
        outcome: Outcome::default(),
    }
}

struct Simulation {
    line: Line,
    epoch: Instant,
    /// When the line has sent all that waits.
    free: Duration,
    random: u64,
    events: BinaryHeap<Reverse<(Duration, u64, usize, Happening)>>,
    flows: Vec<Flow>,
    count: u64,
}

impl Simulation {
    fn at(&mut self, time: Duration, flow: usize, what: Happening) {
        self.count += 1;
        self.events.push(Reverse((time, self.count, flow, what)));
    }

    fn run(&mut self, limit: Duration) {
        let mut second = 1;
        while let Some(Reverse((time, _, flow, what))) = self.events.pop() {
            while Duration::from_secs(second) <= time.min(limit) {
                second += 1;
                for flow in &mut self.flows {
                    flow.outcome.seconds.push(flow.outcome.arrived);
                }
            }
            if time > limit || self.flows.iter().all(|flow| flow.outcome.took.is_some()) {
                break;
            }
            let now = self.epoch + time;
            match what {
                Happening::Start => self.start(flow, now),
                Happening::Wake(side) => {
                    let end = &mut self.flows[flow].ends[side];
                    if end.wake.is_none_or(|wake| wake > now) {
                        continue;
                    }
                    end.wake = None;
                    if let Some(connection) = &mut end.connection {
                        connection.handle_timeout(now);
                    }
                    self.drive(flow, side, now);
                }
                Happening::Arrive(side, packet) => {
                    self.arrive(flow, side, now, &packet);
                    self.drive(flow, side, now);
                }
            }
        }
    }

    fn start(&mut self, number: usize, now: Instant) {
        let flow = &mut self.flows[number];
        let client = flow.client.take().unwrap();
        let (handle, connection) = flow.ends[0]
            .endpoint
            .connect(now, client, address(1), SERVER_NAME)
            .unwrap();
        flow.ends[0].handle = handle;
        flow.ends[0].connection = Some(connection);
        self.drive(number, 0, now);
    }

    fn arrive(&mut self, flow: usize, side: usize, now: Instant, packet: &[u8]) {
        let end = &mut self.flows[flow].ends[side];
        let mut answer = Vec::new();
        let event = end.endpoint.handle(
            now,
            address(1 - side),
            None,
            None,
            BytesMut::from(packet),
            &mut answer,
        );
        match event {
            Some(DatagramEvent::ConnectionEvent(_, event)) => {
                if let Some(connection) = &mut end.connection {
                    connection.handle_event(event);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => {
                let (handle, connection) = end
                    .endpoint
                    .accept(incoming, now, &mut answer, None)
                    .map_err(|error| error.cause)
                    .unwrap();
                (end.handle, end.connection) = (handle, Some(connection));
            }
            _ => {}
        }
    }

    /// Lets one end do all that it can at this moment.
    fn drive(&mut self, number: usize, side: usize, now: Instant) {
        loop {
            let flow = &mut self.flows[number];
            let End {
                endpoint,
                handle,
                connection: Some(connection),
                ..
            } = &mut flow.ends[side]
            else {
                return;
            };
            while let Some(event) = connection.poll_endpoint_events() {
                if let Some(event) = endpoint.handle_event(*handle, event) {
                    connection.handle_event(event);
                }
            }
            let mut buffer = Vec::new();
            if side == 0 {
                write(connection, &mut flow.streams, &mut flow.unsent);
            } else {
                flow.outcome.arrived += read(connection);
                if flow.outcome.arrived >= flow.transfer.bytes && flow.outcome.took.is_none() {
                    flow.outcome.took = Some(now - self.epoch - flow.transfer.start);
                }
            }
            let mut packets = Vec::new();
            while let Some(transmit) = connection.poll_transmit(now, BATCH_PACKETS, &mut buffer) {
                let size = transmit.segment_size.unwrap_or(transmit.size);
                packets.extend(buffer[..transmit.size].chunks(size).map(<[u8]>::to_vec));
                buffer.clear();
            }
            if side == 0 {
                let statistics = connection.stats();
                flow.outcome.sent = statistics.udp_tx.bytes;
                flow.outcome.packets = statistics.udp_tx.datagrams;
                flow.outcome.lost_packets = statistics.path.lost_packets;
                flow.outcome.window = statistics.path.cwnd;
            }
            if packets.is_empty() {
                self.sleep(number, side);
                return;
            }
            for packet in packets {
                self.carry(number, side, now - self.epoch, packet);
            }
        }
    }

    fn sleep(&mut self, number: usize, side: usize) {
        let end = &mut self.flows[number].ends[side];
        let Some(connection) = &mut end.connection else {
            return;
        };
        let Some(wake) = connection.poll_timeout() else {
            return;
        };
        let ticks = (wake.saturating_duration_since(self.epoch))
            .as_nanos()
            .div_ceil(TIMER.as_nanos());
        let time = TIMER * u32::try_from(ticks).unwrap();
        if end.wake != Some(self.epoch + time) {
            end.wake = Some(self.epoch + time);
            self.at(time, number, Happening::Wake(side));
        }
    }

    fn carry(&mut self, number: usize, side: usize, now: Duration, packet: Vec<u8>) {
        let mut leaves = now;
        if side == 0 {
            let bytes = packet.len() as u64 + HEADER_BYTES;
            let waiting = self.free.saturating_sub(now).as_secs_f64() * self.line.rate as f64 / 8.0;
            if waiting + bytes as f64 > self.line.queue as f64 {
                self.flows[number].outcome.dropped += 1;
                return;
            }
            self.free =
                self.free.max(now) + Duration::from_secs_f64(bytes as f64 * 8.0 / self.line.rate as f64);
            leaves = self.free;
        }
        // Knuth's linear congruential generator; its upper bits are random enough.
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        if (self.random >> 33) % 1_000_000 < self.line.loss {
            return;
        }
        self.at(
            leaves + self.line.round_trip / 2,
            number,
            Happening::Arrive(1 - side, packet),
        );
    }
}

fn address(side: usize) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, side as u8 + 1], 4433))
}

fn write(connection: &mut Connection, streams: &mut Vec<StreamId>, unsent: &mut u64) {
    static CONTENT: [u8; 64 << 10] = [0; 64 << 10];
    while connection.poll().is_some() {}
    if connection.is_handshaking() {
        return;
    }
    while streams.len() < STREAMS {
        let Some(stream) = connection.streams().open(Dir::Uni) else {
            break;
        };
        streams.push(stream);
    }
    // In turn, as far as their windows allow.
    let mut stuck = 0;
    while *unsent > 0 && stuck < streams.len() {
        let stream = streams.remove(0);
        streams.push(stream);
        let most = (CONTENT.len() as u64).min(*unsent) as usize;
        match connection
            .send_stream(stream)
            .write_chunks(&mut [Bytes::from_static(&CONTENT[..most])])
        {
            Ok(written) => (*unsent, stuck) = (*unsent - written.bytes as u64, 0),
            Err(_) => stuck += 1,
        }
    }
}

fn read(connection: &mut Connection) -> u64 {
    let mut bytes = 0;
    let mut readable = Vec::new();
    while let Some(event) = connection.poll() {
        match event {
            Event::Stream(StreamEvent::Opened { .. }) => {
                while let Some(stream) = connection.streams().accept(Dir::Uni) {
                    readable.push(stream);
                }
            }
            Event::Stream(StreamEvent::Readable { id }) => readable.push(id),
            _ => {}
        }
    }
    for stream in readable {
        let mut stream = connection.recv_stream(stream);
        let Ok(mut chunks) = stream.read(true) else {
            continue;
        };
        while let Ok(Some(chunk)) = chunks.next(usize::MAX) {
            bytes += chunk.bytes.len() as u64;
        }
        let _ = chunks.finalize();
    }
    bytes
}
