//! One session of a connection: its end, its bytes, and what it may have under way.
//!
//! A session with a window is kept to it by its sender: it writes no more of ops and ranges, on all of their streams together, than
//! the receiver has said (`Note::Window`). So one that the receiver does not read holds no more of the connection's window than
//! its share, and the others go on. (WebTransport has the same: WT_MAX_DATA.)

use super::link::{LinkEnd, LinkStatistics, link_end};
use super::silence::{HostName, Silence};
use super::trunk::{STREAMS_PER_SESSION, Trunk};
use bytes::Bytes;
use driftless_protocol::CloseCode;
use driftless_protocol::stream::StreamKind;
use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// What is written at a time in a session with a window.
const PART_BYTES: usize = 64 << 10;
/// How much is read of a stream at a time.
const READ_BYTES: usize = 64 << 10;
/// How long after a stream was cut off may be told that its session has ended: the two are told on different streams.
const END_GRACE: Duration = Duration::from_secs(2);
/// The error code of streams that are given up with their session, whose reason is told elsewhere.
const GIVEN_UP: u32 = 0;

/// A stream of the peer's, and what it carries.
pub(super) type Taken = (StreamKind, quinn::RecvStream);

/// Says something that has to be acknowledged; false if nothing can be said any more.
type Ask = Arc<dyn Fn() -> bool + Send + Sync>;

/// A session.
pub(super) struct Session {
    trunk: Arc<Trunk>,
    number: u64,
    end: OnceLock<LinkEnd>,
    is_over: watch::Sender<bool>,
    sent: AtomicU64,
    received: AtomicU64,
    /// The most that was told of both: what the connection adds may come and go.
    told: [AtomicU64; 2],
    /// What may be under way; 0 for as much as QUIC allows.
    window: AtomicU32,
    /// What may be sent since the beginning, and what was.
    allowed: watch::Sender<u64>,
    used: AtomicU64,
    /// What was taken since the beginning, and up to where the peer may send.
    taken: AtomicU64,
    granted: AtomicU64,
    /// Streams of the peer's, on their way to who takes them.
    handing: mpsc::UnboundedSender<Taken>,
    handed: Mutex<Option<mpsc::UnboundedReceiver<Taken>>>,
    /// Those that are being read.
    streams: AtomicU32,
    silence: Arc<Silence>,
    /// By which name the peer was found, if it may lead elsewhere one day.
    name: OnceLock<HostName>,
    ask: Mutex<Option<Ask>>,
}

/// Counts a stream that is being read.
pub(super) struct Reading(Arc<Session>);

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::AcqRel);
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({} of {:?})", self.number, self.trunk)
    }
}

impl Session {
    pub(super) fn new(trunk: Arc<Trunk>, number: u64, window: u32) -> Session {
        let (handing, handed) = mpsc::unbounded_channel();
        Session {
            trunk,
            number,
            end: OnceLock::new(),
            is_over: watch::channel(false).0,
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            told: Default::default(),
            window: AtomicU32::new(window),
            allowed: watch::channel(u64::MAX).0,
            used: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            granted: AtomicU64::new(window.into()),
            handing,
            handed: Mutex::new(Some(handed)),
            streams: AtomicU32::new(0),
            silence: Arc::default(),
            name: OnceLock::new(),
            ask: Mutex::default(),
        }
    }

    pub(super) fn trunk(&self) -> &Arc<Trunk> {
        &self.trunk
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn silence(&self) -> &Arc<Silence> {
        &self.silence
    }

    /// The name by which the peer was found.
    pub(super) fn note_name(&self, name: HostName) {
        let _ = self.name.set(name);
    }

    pub(super) fn name(&self) -> Option<&HostName> {
        self.name.get()
    }

    pub(super) fn window(&self) -> u32 {
        self.window.load(Ordering::Relaxed)
    }

    /// How it ended, if it did.
    pub(super) fn ended(&self) -> Option<LinkEnd> {
        let closed = || self.trunk.connection().close_reason();
        self.end
            .get()
            .cloned()
            .or_else(|| closed().map(|error| link_end(&error)))
    }

    /// How it ended, if it did apart from the connection.
    pub(super) fn told_end(&self) -> Option<LinkEnd> {
        self.end.get().cloned()
    }

    /// Ends it, if nobody has yet.
    pub(super) fn close(&self, code: CloseCode, text: &str) {
        self.trunk.end(self, code, text);
    }

    /// How it ended, which nobody acts upon before [`Session::finish`].
    pub(super) fn note_end(&self, end: LinkEnd) {
        let _ = self.end.set(end);
    }

    /// It has ended: its streams are given up. The peer has to be told before, or it takes that for the offence.
    pub(super) fn finish(&self) {
        self.is_over.send_replace(true);
        self.silence.end();
    }

    /// Waits until it has ended.
    pub(super) async fn over(&self) {
        let mut is_over = self.is_over.subscribe();
        // The sender of the channel is in `self`.
        let _ = is_over.wait_for(|&is_over| is_over).await;
    }

    /// A stream was cut off by the peer: rightly so if the session has ended, of which may be heard a little later. If it is heard
    /// much later, or never, the session is over all the same: it is lost, and this side may begin another.
    pub(super) async fn handle_cut(&self, code: quinn::VarInt, text: &str) {
        if self.trunk.has_notes() && code == GIVEN_UP.into() {
            tokio::select! {
                () = self.over() => return,
                () = tokio::time::sleep(END_GRACE) => {}
            }
            return self.trunk.lose(self, text);
        }
        self.close(CloseCode::Violation, text);
    }

    /// What to do when something has to be said.
    pub(super) fn ask_by(&self, ask: impl Fn() -> bool + Send + Sync + 'static) {
        *self.ask.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(ask));
        if *self.is_over.borrow() {
            self.forget();
        }
    }

    /// Says something that has to be acknowledged. False if nothing can be said.
    pub(super) fn ask(&self) -> bool {
        // Not under the lock: what asks may find that it cannot, and end the session.
        let ask = self.ask.lock().unwrap_or_else(PoisonError::into_inner).clone();
        ask.is_some_and(|ask| ask())
    }

    /// Lets go of what holds this session itself.
    pub(super) fn forget(&self) {
        let ask = self.ask.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(ask);
    }

    /// What was moved. What a connection takes beside its streams counts for the session that it was opened for.
    pub(super) fn statistics(&self) -> LinkStatistics {
        let statistics = self.trunk.connection().stats();
        let own = [&self.sent, &self.received].map(|count| count.load(Ordering::Relaxed));
        let (sent, received) = self.trunk.counted();
        let udp = [statistics.udp_tx.bytes, statistics.udp_rx.bytes];
        let bytes = |way: usize, all: u64| match self.number {
            0 => {
                let others = all.saturating_sub(own[way]);
                let now = udp[way].saturating_sub(others);
                now.max(self.told[way].fetch_max(now, Ordering::Relaxed))
            }
            _ => own[way],
        };
        LinkStatistics {
            bytes_sent: bytes(0, sent),
            bytes_received: bytes(1, received),
            packets_lost: statistics.path.lost_packets,
            round_trip: statistics.path.rtt,
        }
    }

    /// As the receiver's hello says; 0 for no window.
    pub(super) fn set_window(&self, window: u32) {
        self.window.store(window, Ordering::Relaxed);
        self.allowed.send_replace(match window {
            0 => u64::MAX,
            window => window.into(),
        });
    }

    /// The peer lets so much be sent, since the beginning.
    pub(super) fn allow(&self, through: u64) {
        self.allowed.send_if_modified(|allowed| {
            let grows = *allowed < through;
            *allowed = through.max(*allowed);
            grows
        });
    }

    /// Waits until so many more bytes may be sent.
    async fn spend(&self, bytes: usize) {
        let through = self.used.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        let mut allowed = self.allowed.subscribe();
        // The sender of the channel is in `self`.
        let _ = allowed.wait_for(|&allowed| allowed >= through).await;
    }

    /// Writes to a stream; ops and ranges as far as the session's window allows. False once nothing more can be written, and then
    /// the session has ended.
    pub(super) async fn write(
        &self,
        stream: &mut quinn::SendStream,
        bytes: impl Into<Bytes>,
        is_windowed: bool,
    ) -> bool {
        let mut bytes = bytes.into();
        let length = bytes.len() as u64;
        let writing = async {
            if !is_windowed || self.window() == 0 {
                return stream.write_chunk(bytes).await;
            }
            while !bytes.is_empty() {
                let part = bytes.split_to(bytes.len().min(PART_BYTES));
                self.spend(part.len()).await;
                stream.write_chunk(part).await?;
            }
            Ok(())
        };
        let written = tokio::select! {
            biased;
            () = self.over() => None,
            written = writing => Some(written),
        };
        match written {
            Some(Ok(())) => {
                self.sent.fetch_add(length, Ordering::Relaxed);
                self.trunk.count(length, 0);
                return true;
            }
            Some(Err(quinn::WriteError::Stopped(code))) => {
                self.handle_cut(code, "a stream was stopped").await;
            }
            Some(Err(_)) | None => {}
        }
        let _ = stream.reset(GIVEN_UP.into());
        false
    }

    /// Opens a one-way stream, as soon as there may be one more. None once the session has ended.
    pub(super) async fn open_uni(&self) -> Option<quinn::SendStream> {
        tokio::select! {
            opened = self.trunk.connection().open_uni() => opened.ok(),
            () = self.over() => None,
        }
    }

    /// Nothing more is written: the stream ends, or is given up with the session.
    pub(super) fn leave(&self, mut stream: quinn::SendStream) {
        if *self.is_over.borrow() {
            let _ = stream.reset(GIVEN_UP.into());
        } else {
            let _ = stream.finish();
        }
    }

    /// Notes bytes that were read from a stream of ops or ranges, or of control.
    pub(super) fn note_read(&self, bytes: usize, is_windowed: bool) {
        let bytes = bytes as u64;
        self.received.fetch_add(bytes, Ordering::Relaxed);
        self.trunk.count(0, bytes);
        let window = u64::from(self.window());
        if !is_windowed || window == 0 {
            return;
        }
        let through = self.taken.fetch_add(bytes, Ordering::AcqRel) + bytes + window;
        let granted = self.granted.load(Ordering::Acquire);
        // A note for every quarter of the window.
        if through >= granted + window / 4 && self.granted.fetch_max(through, Ordering::AcqRel) < through {
            self.trunk.grant(self.number, through);
        }
    }

    /// Takes what comes next on a stream of ranges, as it came: how many pieces there are. None at its end, or once nothing more is to
    /// be read, and then the session has ended. What is read counts at once: many streams may have a part of something each.
    pub(super) async fn read_chunks(&self, stream: &mut quinn::RecvStream, chunks: &mut [Bytes]) -> usize {
        let read = tokio::select! {
            biased;
            read = stream.read_chunks(chunks) => read,
            () = self.over() => {
                let _ = stream.stop(GIVEN_UP.into());
                return 0;
            }
        };
        match read {
            Ok(Some(count)) => {
                let bytes = chunks.iter().take(count).map(Bytes::len).sum();
                self.note_read(bytes, true);
                count
            }
            Err(quinn::ReadError::Reset(code)) => {
                self.handle_cut(code, "a stream was reset").await;
                0
            }
            _ => 0,
        }
    }

    /// Reads what comes next on a stream: `None` at its end, or once nothing more is to be read, and then the session has ended.
    pub(super) async fn read(&self, stream: &mut quinn::RecvStream, is_windowed: bool) -> Option<Vec<u8>> {
        let chunk = tokio::select! {
            biased;
            chunk = stream.read_chunk(READ_BYTES, true) => chunk,
            () = self.over() => {
                let _ = stream.stop(GIVEN_UP.into());
                return None;
            }
        };
        match chunk {
            Ok(Some(chunk)) => {
                self.note_read(chunk.bytes.len(), is_windowed);
                Some(chunk.bytes.to_vec())
            }
            Err(quinn::ReadError::Reset(code)) => {
                self.handle_cut(code, "a stream was reset").await;
                None
            }
            _ => None,
        }
    }

    /// Passes what comes on a stream on, until it ends or nobody takes it.
    pub(super) async fn read_pieces(
        &self,
        mut stream: quinn::RecvStream,
        pieces: mpsc::Sender<Vec<u8>>,
        is_windowed: bool,
    ) {
        while let Some(piece) = self.read(&mut stream, is_windowed).await {
            let is_taken = tokio::select! {
                biased;
                sent = pieces.send(piece) => sent.is_ok(),
                () = self.over() => false,
            };
            if !is_taken {
                return;
            }
        }
    }

    /// The peer has opened a stream in this session.
    pub(super) fn hand_over(&self, kind: StreamKind, stream: quinn::RecvStream) {
        if self.streams.fetch_add(1, Ordering::AcqRel) >= STREAMS_PER_SESSION {
            return self.close(CloseCode::Violation, "more streams than a session may have");
        }
        // Nobody takes it any more if the session has ended.
        let _ = self.handing.send((kind, stream));
    }

    /// The streams of the peer's, for the one who takes them.
    pub(super) fn handed(&self) -> Option<mpsc::UnboundedReceiver<Taken>> {
        self.handed.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Counts a stream that was handed over until what is given is dropped.
    pub(super) fn reading(self: &Arc<Session>) -> Reading {
        Reading(self.clone())
    }
}
