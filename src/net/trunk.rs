//! A QUIC connection, and the sessions on it.
//!
//! A session is what one mirror and its target say to each other: a control stream, streams of ops and streams of ranges. The
//! senders of a process share a connection to a receiver (`sharing`). What belongs to the path is the connection's: congestion
//! control, signs of life, silence. What belongs to a mirror is the session's: its end, its share of the windows, its bytes.
//!
//! A connection that only ever had one session ends with it, by a CONNECTION_CLOSE with the session's reason. Otherwise sessions
//! end by notes (`notes`): the side that dialled closes the connection with the last one, the other side if that takes it long.

#[cfg(test)]
mod tests;

use super::congestion::Permit;
use super::link::LinkEnd;
use super::notes::{self, Notes};
use super::session::Session;
use super::silence::{self, HostName, LookUp, Named, Silence};
use super::transport::{
    BULK_STREAMS, CONNECTION_WINDOW_BYTES, NOTE_STREAMS, OP_STREAMS, STREAM_WINDOW_BYTES, escaped,
};
use driftless_protocol::CloseCode;
use driftless_protocol::limits::TEXT_BYTES_MAX;
use driftless_protocol::message::Note;
use driftless_protocol::stream::{StreamKind, varint, varint_bytes};
use quinn::VarInt;
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;

/// What a sender may have under way in a session that has a window of its own, before somebody reads, so that one with very many
/// sessions cannot have the receiver hold 45 MB for each.
pub(super) const FURTHER_WINDOW_BYTES: u32 = 1 << 20;
/// What such a session has of the connection's window: its own, and what its control stream may need.
const FURTHER_SHARE_BYTES: u32 = FURTHER_WINDOW_BYTES + (256 << 10);
/// One-way streams that a peer may have open in a session: those it needs, and as many more as QUIC may not have told it yet that
/// have come to their end.
pub(super) const STREAMS_PER_SESSION: u32 = (OP_STREAMS + BULK_STREAMS) * 4 / 3;
/// Sessions that a peer may begin before it hears that there may be more: so many, and as many again as there are.
const SESSIONS_AHEAD: u32 = 16;
/// How long a connection may be without a session before the side that did not dial closes it.
const EMPTY_GRACE: Duration = Duration::from_secs(10);

/// What this side is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// It dialled, begins sessions, and sends.
    Sender,
    /// It listens, and receives.
    Receiver,
    /// There is one session only, whoever dialled and whoever sends: for pairing, and for receivers that pull. The peer may open
    /// so many one-way streams.
    Sole(u32),
}

/// A connection.
pub(super) struct Trunk {
    runtime: Handle,
    connection: quinn::Connection,
    permit: Arc<Permit>,
    role: Role,
    notes: Notes,
    sessions: Mutex<Sessions>,
    /// Bytes on the streams of all sessions.
    sent: AtomicU64,
    received: AtomicU64,
    silence: Silence,
    /// Of this connection alone, or shared.
    _endpoint: Option<quinn::Endpoint>,
}

#[derive(Debug, Default)]
struct Sessions {
    open: HashMap<u64, Arc<Session>>,
    /// Those that are about to be opened here.
    beginning: usize,
    /// The first number that no session has had.
    next: u64,
    /// How many there ever were.
    ever: u64,
    /// How many control streams the peer may have open, at most so far.
    ahead: u32,
    /// Sessions that the peer has begun and ended before this side came to their control streams, and the codes. No more than
    /// `ahead`.
    ended_early: HashMap<u64, CloseCode>,
    /// What the peer may have under way, at most so far, in bytes.
    window: u64,
    has_notes: bool,
    is_closing: bool,
    /// Somebody waits for whether the connection stays without a session.
    is_watched: bool,
    /// Somebody looks the peer's names up in a silence.
    is_followed: bool,
}

impl Sessions {
    fn count(&self) -> usize {
        self.open.len() + self.beginning
    }

    /// Whether the peer may have begun a session of this number, and this side not have come to it yet: control streams are
    /// taken one after the other, and notes at once.
    fn may_come(&self, number: u64) -> bool {
        let ahead = number.checked_sub(self.next);
        // The handshake allows one, before the first session comes.
        ahead.is_some_and(|ahead| ahead < self.ahead.max(1).into())
    }

    /// The window to be set for what sessions need now; none if it stays.
    ///
    /// It never shrinks. QUIC cannot take back what a peer was allowed, so quinn deducts what a window shrinks by from what is
    /// read later, but does not set that off against growth: with every session that comes and goes the peer could have more
    /// under way, for good.
    fn widen(&mut self, needed: u64) -> Option<VarInt> {
        if needed <= self.window {
            return None;
        }
        self.window = needed;
        Some(VarInt::from_u64(needed).unwrap_or(VarInt::MAX))
    }
}

/// A place for a session that is about to be opened.
#[derive(Debug)]
pub(super) struct Place(Arc<Trunk>);

impl Place {
    pub(super) fn trunk(&self) -> &Arc<Trunk> {
        &self.0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut sessions = self.0.lock();
        sessions.beginning -= 1;
        self.0.settle(&mut sessions);
    }
}

impl fmt::Debug for Trunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Trunk({:?} to {})",
            self.role,
            self.connection.remote_address()
        )
    }
}

impl Trunk {
    /// Of a new connection, whose streams are taken from now on.
    pub(super) fn new(
        runtime: &Handle,
        connection: quinn::Connection,
        permit: Arc<Permit>,
        role: Role,
        endpoint: Option<quinn::Endpoint>,
    ) -> Arc<Trunk> {
        let trunk = Arc::new(Trunk {
            runtime: runtime.clone(),
            connection,
            permit,
            role,
            notes: Notes::default(),
            sessions: Mutex::default(),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            silence: Silence::default(),
            _endpoint: endpoint,
        });
        runtime.spawn(trunk.clone().take_streams());
        trunk
    }

    pub(super) fn connection(&self) -> &quinn::Connection {
        &self.connection
    }

    pub(super) fn permit(&self) -> &Arc<Permit> {
        &self.permit
    }

    /// Whether there is more than one session.
    pub(super) fn is_shared(&self) -> bool {
        self.lock().count() > 1
    }

    /// Whether the end of a session may be told apart from that of the connection. That there was one session only says nothing
    /// about it: the peer may have begun another one that has not come yet.
    pub(super) fn has_notes(&self) -> bool {
        !matches!(self.role, Role::Sole(_))
    }

    /// A place for one more session; none if the connection ends.
    pub(super) fn join(self: &Arc<Trunk>) -> Option<Place> {
        let mut sessions = self.lock();
        if sessions.is_closing || self.connection.close_reason().is_some() {
            return None;
        }
        sessions.beginning += 1;
        self.resize(&mut sessions);
        Some(Place(self.clone()))
    }

    /// Begins the session whose control stream has this number. `window` is what its sender may have under way, 0 for as much as
    /// QUIC allows.
    pub(super) fn begin(self: &Arc<Trunk>, number: u64, window: u32) -> Arc<Session> {
        let session = Arc::new(Session::new(self.clone(), number, window));
        let mut sessions = self.lock();
        sessions.next = sessions.next.max(number + 1);
        sessions.ever += 1;
        if let Some(code) = sessions.ended_early.remove(&number) {
            session.note_end(LinkEnd::Closed {
                code,
                text: String::new(),
                by_peer: true,
            });
            session.finish();
            return session;
        }
        sessions.open.insert(number, session.clone());
        self.resize(&mut sessions);
        if self.connection.close_reason().is_some() {
            session.finish();
        }
        if self.silence.is_now() {
            session.silence().begin();
        }
        session
    }

    /// Ends a session, for a reason of ours.
    pub(super) fn end(self: &Arc<Trunk>, session: &Session, code: CloseCode, text: &str) {
        let end = LinkEnd::Closed {
            code,
            text: text.to_owned(),
            by_peer: false,
        };
        self.end_as(session, end, (code, text));
    }

    /// Ends a session that the peer has left without a word, which it is told is an offence, should it still hear.
    pub(super) fn lose(self: &Arc<Trunk>, session: &Session, text: &str) {
        let end = LinkEnd::Lost {
            text: text.to_owned(),
        };
        self.end_as(session, end, (CloseCode::Violation, text));
    }

    fn end_as(self: &Arc<Trunk>, session: &Session, end: LinkEnd, (code, text): (CloseCode, &str)) {
        let mut sessions = self.lock();
        let is_open = sessions.open.remove(&session.number()).is_some();
        session.forget();
        if is_open && self.connection.close_reason().is_none() {
            session.note_end(end);
            self.tell_end(&mut sessions, session.number(), code, text);
        }
        session.finish();
        self.settle(&mut sessions);
    }

    /// Tells the peer that a session, which is not among the open ones any more, was ended here.
    fn tell_end(self: &Arc<Trunk>, sessions: &mut Sessions, session: u64, code: CloseCode, text: &str) {
        let is_last = sessions.count() == 0;
        let is_alone = match self.role {
            Role::Sole(_) => true,
            // Notes that have not left by now tell no more than that this side is done, and so does the end of the connection.
            Role::Sender => is_last,
            // The sender may be about to begin another session, which has nothing to do with the reason for this end.
            Role::Receiver => is_last && sessions.ever == 1,
        };
        if is_alone {
            return self.close(sessions, code, text);
        }
        let text = text.into();
        let code = code.number();
        if !self.notes.push(Note::Ended { session, code, text }) {
            self.fail(sessions, CloseCode::Limit, "notes about sessions are not read");
        }
        self.write_notes(sessions);
    }

    /// Lets the peer send more of a session's ops and ranges.
    pub(super) fn grant(self: &Arc<Trunk>, session: u64, through: u64) {
        let mut sessions = self.lock();
        if sessions.open.contains_key(&session) {
            self.notes.push(Note::Window { session, through });
            self.write_notes(&mut sessions);
        }
    }

    /// Has notes leave, from the first one on.
    fn write_notes(self: &Arc<Trunk>, sessions: &mut Sessions) {
        if !std::mem::replace(&mut sessions.has_notes, true) {
            let trunk = self.clone();
            self.runtime.spawn(async move {
                trunk.notes.write(&trunk.connection).await;
            });
        }
    }

    /// After sessions have come or left: what the peer may do follows, and with the last one the connection ends.
    fn settle(self: &Arc<Trunk>, sessions: &mut Sessions) {
        if sessions.is_closing || self.connection.close_reason().is_some() {
            return;
        }
        self.resize(sessions);
        if sessions.count() > 0 {
            return;
        }
        if self.role != Role::Receiver {
            return self.close(sessions, CloseCode::Done, "");
        }
        if std::mem::replace(&mut sessions.is_watched, true) {
            return;
        }
        let (trunk, mut ever) = (self.clone(), sessions.ever);
        self.runtime.spawn(async move {
            loop {
                tokio::select! {
                    () = tokio::time::sleep(EMPTY_GRACE) => {}
                    _ = trunk.connection.closed() => return,
                }
                let mut sessions = trunk.lock();
                if sessions.count() > 0 {
                    sessions.is_watched = false;
                    return;
                }
                if sessions.ever == ever {
                    return trunk.close(&mut sessions, CloseCode::Done, "");
                }
                ever = sessions.ever;
            }
        });
    }

    fn close(&self, sessions: &mut Sessions, code: CloseCode, text: &str) {
        sessions.is_closing = true;
        let text = &text[..text.floor_char_boundary(TEXT_BYTES_MAX)];
        self.connection.close(code.number().into(), text.as_bytes());
    }

    /// Ends the connection, and with it all sessions.
    fn fail(&self, sessions: &mut Sessions, code: CloseCode, text: &str) {
        let open = std::mem::take(&mut sessions.open);
        for session in open.values() {
            session.forget();
            session.note_end(LinkEnd::Closed {
                code,
                text: text.to_owned(),
                by_peer: false,
            });
        }
        self.close(sessions, code, text);
        open.values().for_each(|session| session.finish());
    }

    /// Ends the connection, and with it all sessions: the peer broke a rule that is about no session, or may not be here.
    pub(super) fn refuse(&self, code: CloseCode, text: &str) {
        self.fail(&mut self.lock(), code, text);
    }

    /// What the peer may do grows with the number of sessions, so that none of them takes what another one needs.
    fn resize(&self, sessions: &mut Sessions) {
        let count = u32::try_from(sessions.count()).unwrap_or(u32::MAX);
        let share = |session: &Arc<Session>| match session.window() {
            0 => u64::from(CONNECTION_WINDOW_BYTES),
            _ => u64::from(FURTHER_SHARE_BYTES),
        };
        let shares: u64 = sessions.open.values().map(share).sum();
        let shares = shares + sessions.beginning as u64 * u64::from(CONNECTION_WINDOW_BYTES);
        match self.role {
            Role::Sole(_) => {}
            Role::Sender => {
                let control = u64::from(STREAM_WINDOW_BYTES) * u64::from(count.saturating_add(1));
                let window = control.max(CONNECTION_WINDOW_BYTES.into());
                if let Some(window) = sessions.widen(window) {
                    self.connection.set_receive_window(window);
                }
                self.connection
                    .set_send_window(shares.max(CONNECTION_WINDOW_BYTES.into()));
            }
            Role::Receiver if count > 0 => {
                if let Some(window) = sessions.widen(shares) {
                    self.connection.set_receive_window(window);
                }
                let ahead = count.saturating_mul(2).saturating_add(SESSIONS_AHEAD);
                sessions.ahead = sessions.ahead.max(ahead);
                self.connection.set_max_concurrent_bi_streams(ahead.into());
                self.poke_at(count);
            }
            Role::Receiver => {}
        }
    }

    /// Has no other effect than that the connection looks whether it can send what waits.
    pub(super) fn poke(&self) {
        let count = self.lock().count();
        self.poke_at(u32::try_from(count).unwrap_or(u32::MAX));
    }

    fn poke_at(&self, sessions: u32) {
        let streams = match self.role {
            Role::Sole(streams) => streams,
            Role::Sender => NOTE_STREAMS,
            Role::Receiver => sessions
                .saturating_add(1)
                .saturating_mul(STREAMS_PER_SESSION)
                .saturating_add(NOTE_STREAMS),
        };
        self.connection.set_max_concurrent_uni_streams(streams.into());
    }

    /// Has a session say something that means nothing and has to be acknowledged; one whose queue is full would say nothing new.
    pub(super) fn ask(&self) {
        let sessions: Vec<_> = self.lock().open.values().cloned().collect();
        for session in sessions {
            if session.ask() {
                return;
            }
        }
    }

    /// Tells all sessions whether the peer is silent.
    pub(super) fn note_silent(&self, is_silent: bool) {
        let sessions = self.lock();
        let silences = sessions.open.values().map(|session| &**session.silence());
        for silence in silences.chain([&self.silence]) {
            match is_silent {
                true => silence.begin(),
                false => silence.end(),
            }
        }
    }

    /// Has a session end if the peer is silent and this name, by which it was found, leads elsewhere by then.
    pub(super) fn follow_name(self: &Arc<Trunk>, session: &Session, name: HostName, look_up: LookUp) {
        session.note_name(name);
        if !std::mem::replace(&mut self.lock().is_followed, true) {
            self.runtime.spawn(silence::watch_names(self.clone(), look_up));
        }
    }

    /// Counts what a session has sent and received on its streams.
    pub(super) fn count(&self, sent: u64, received: u64) {
        self.sent.fetch_add(sent, Ordering::Relaxed);
        self.received.fetch_add(received, Ordering::Relaxed);
    }

    /// Bytes of all sessions on their streams: sent, received.
    pub(super) fn counted(&self) -> (u64, u64) {
        let [sent, received] = [&self.sent, &self.received].map(|count| count.load(Ordering::Relaxed));
        (sent, received)
    }

    /// Takes the peer's one-way streams until the connection ends.
    async fn take_streams(self: Arc<Trunk>) {
        while let Ok(stream) = self.connection.accept_uni().await {
            tokio::spawn(self.clone().take_stream(stream));
        }
        let sessions: Vec<_> = self.lock().open.values().cloned().collect();
        sessions.iter().for_each(|session| session.finish());
    }

    async fn take_stream(self: Arc<Trunk>, mut stream: quinn::RecvStream) {
        let Some((kind, number, length)) = read_head(&mut stream).await else {
            return;
        };
        match (StreamKind::from_byte(kind), self.role) {
            (Some(StreamKind::Notes), Role::Sender | Role::Receiver) => self.take_notes(stream).await,
            (Some(kind @ (StreamKind::Ops | StreamKind::Bulk)), Role::Receiver | Role::Sole(_)) => {
                let (session, next) = {
                    let sessions = self.lock();
                    (sessions.open.get(&number).cloned(), sessions.next)
                };
                match session {
                    Some(session) => {
                        session.note_read(length, true);
                        session.hand_over(kind, stream);
                    }
                    // Sent before the sender heard of the end.
                    None if number < next => {}
                    None => self.refuse(
                        CloseCode::Violation,
                        &format!("a stream of session {number}, which nobody began"),
                    ),
                }
            }
            _ => self.refuse(
                CloseCode::Violation,
                &format!("there is no stream of kind {kind}"),
            ),
        }
    }

    async fn take_notes(self: &Arc<Trunk>, mut stream: quinn::RecvStream) {
        if !self.notes.take_turn() {
            return self.refuse(CloseCode::Violation, "a second stream of notes");
        }
        let text = loop {
            match notes::read(&mut stream).await {
                Ok(Some(note)) => {
                    if !self.handle_note(note) {
                        break "a note about a session that nobody began".to_owned();
                    }
                }
                Ok(None) => return,
                Err(text) => break text,
            }
        };
        self.refuse(CloseCode::Violation, &text);
    }

    /// False if there never was such a session, nor may be.
    fn handle_note(self: &Arc<Trunk>, note: Note) -> bool {
        let mut sessions = self.lock();
        let (Note::Ended { session: number, .. } | Note::Window { session: number, .. }) = note;
        match note {
            Note::Ended { session, code, text } => {
                if let Some(session) = sessions.open.remove(&session) {
                    session.forget();
                    session.note_end(LinkEnd::Closed {
                        code: CloseCode::from_number(code.into()),
                        text: escaped(&text.0),
                        by_peer: true,
                    });
                    session.finish();
                    self.settle(&mut sessions);
                } else if self.role == Role::Receiver && sessions.may_come(number) {
                    let code = CloseCode::from_number(code.into());
                    sessions.ended_early.insert(number, code);
                    return true;
                }
            }
            Note::Window { session, through } => {
                if let Some(session) = sessions.open.get(&session) {
                    session.allow(through);
                }
            }
        }
        number < sessions.next
    }

    fn lock(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Named for Trunk {
    fn silence(&self) -> &Silence {
        &self.silence
    }

    async fn over(&self) {
        self.connection.closed().await;
    }

    fn remote(&self) -> SocketAddr {
        self.connection.remote_address()
    }

    fn names(&self) -> BTreeSet<HostName> {
        let sessions = self.lock();
        let names = sessions.open.values().filter_map(|session| session.name());
        names.cloned().collect()
    }

    fn leave(&self, name: &HostName, text: &str) {
        let sessions: Vec<_> = self.lock().open.values().cloned().collect();
        for session in sessions.iter().filter(|session| session.name() == Some(name)) {
            session.close(CloseCode::Busy, text);
        }
    }
}

/// What a stream carries, the number of its session, 0 for notes, and how many bytes say so; none if the stream ends before.
async fn read_head(stream: &mut quinn::RecvStream) -> Option<(u8, u64, usize)> {
    let mut kind = [0];
    stream.read_exact(&mut kind).await.ok()?;
    if !matches!(
        StreamKind::from_byte(kind[0]),
        Some(StreamKind::Ops | StreamKind::Bulk)
    ) {
        return Some((kind[0], 0, 1));
    }
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes[..1]).await.ok()?;
    let length = varint_bytes(bytes[0]);
    stream.read_exact(&mut bytes[1..length]).await.ok()?;
    Some((kind[0], varint(&bytes[..length])?, 1 + length))
}
