//! Notes about the sessions of a connection: which of them have ended, and why, and what may be sent in them.
//!
//! They have a stream of their own, which is read at once, so that a session whose streams nobody reads can be ended all the same.

use super::link::PRIORITY_NOTES;
use driftless_protocol::codec::{FRAME_PREFIX_BYTES, Message, decode, encode_frame};
use driftless_protocol::message::Note;
use driftless_protocol::stream::StreamKind;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Ends that a peer may leave unread: one that begins sessions and does not want to know what becomes of them is cut off.
const WAITING_MAX: usize = 4_096;

/// Notes on their way out.
#[derive(Debug, Default)]
pub(super) struct Notes {
    waiting: Mutex<Waiting>,
    news: Notify,
    /// The peer's stream is being read.
    is_read: AtomicBool,
}

#[derive(Debug, Default)]
struct Waiting {
    ends: VecDeque<Note>,
    /// The latest of each session: it says all that the ones before it said.
    windows: BTreeMap<u64, u64>,
}

impl Notes {
    /// Has a note leave. False if too many wait.
    pub(super) fn push(&self, note: Note) -> bool {
        let mut waiting = self.lock();
        match note {
            Note::Window { session, through } => drop(waiting.windows.insert(session, through)),
            Note::Ended { session, .. } => {
                waiting.windows.remove(&session);
                waiting.ends.push_back(note);
            }
        }
        let is_bearable = waiting.ends.len() <= WAITING_MAX;
        drop(waiting);
        self.news.notify_one();
        is_bearable
    }

    /// Whether nobody reads the peer's notes yet, who then has to.
    pub(super) fn take_turn(&self) -> bool {
        !self.is_read.swap(true, Ordering::AcqRel)
    }

    /// Writes notes as they come, until the connection ends.
    pub(super) async fn write(&self, connection: &quinn::Connection) {
        let Ok(mut stream) = connection.open_uni().await else {
            return;
        };
        let _ = stream.set_priority(PRIORITY_NOTES);
        if stream.write_all(&[StreamKind::Notes as u8]).await.is_err() {
            return;
        }
        loop {
            while let Some(note) = self.next() {
                let Ok(frame) = encode_frame(&note) else { continue };
                if stream.write_all(&frame).await.is_err() {
                    return;
                }
            }
            tokio::select! {
                () = self.news.notified() => {}
                _ = connection.closed() => return,
            }
        }
    }

    fn next(&self) -> Option<Note> {
        let mut waiting = self.lock();
        let window = |(session, through)| Note::Window { session, through };
        waiting
            .ends
            .pop_front()
            .or_else(|| waiting.windows.pop_first().map(window))
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The next note of the peer's; none once the connection has ended. The error is what it did wrong.
pub(super) async fn read(stream: &mut quinn::RecvStream) -> Result<Option<Note>, String> {
    let mut prefix = [0; FRAME_PREFIX_BYTES];
    let cut = |error: quinn::ReadExactError| match error {
        quinn::ReadExactError::ReadError(quinn::ReadError::ConnectionLost(_)) => Ok(None),
        error => Err(format!("the stream of notes broke off: {error}")),
    };
    if let Err(error) = stream.read_exact(&mut prefix).await {
        return cut(error);
    }
    let length = u32::from_be_bytes(prefix) as usize;
    if length > Note::BYTES_MAX {
        return Err(format!("a note of {length} bytes is over its limit"));
    }
    let mut bytes = vec![0; length];
    if let Err(error) = stream.read_exact(&mut bytes).await {
        return cut(error);
    }
    decode(&bytes).map(Some).map_err(|fault| fault.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(session: u64) -> Note {
        Note::Ended {
            session,
            code: 0,
            text: "".into(),
        }
    }

    #[test]
    fn the_latest_window_of_a_session_says_it_all() {
        let notes = Notes::default();
        for through in 1..10_000 {
            assert!(notes.push(Note::Window { session: 1, through }));
            assert!(notes.push(Note::Window { session: 2, through }));
        }
        assert!(notes.push(end(2)));
        assert_eq!(notes.next(), Some(end(2)));
        let (session, through) = (1, 9_999);
        assert_eq!(notes.next(), Some(Note::Window { session, through }));
        assert_eq!(notes.next(), None);
    }

    #[test]
    fn ends_that_nobody_reads_have_a_limit() {
        let notes = Notes::default();
        assert!((0..WAITING_MAX as u64).all(|session| notes.push(end(session))));
        assert!(!notes.push(end(WAITING_MAX as u64)));
    }

    #[test]
    fn there_is_one_turn_to_read() {
        let notes = Notes::default();
        assert!(notes.take_turn() && !notes.take_turn());
    }
}
