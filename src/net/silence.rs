//! Notices that a peer acknowledges nothing any more, and asks again and again until it does.
//!
//! See [`super::congestion::Permit`] for why QUIC's own probes are not enough. Each end does so for what it sent itself.
//! One packet in [`ASK_EVERY`] is less than any congestion control would allow, and it ends with the connection, which
//! a silent peer loses at the idle timeout.

use super::congestion::Permit;
use quinn::{Connection, VarInt};
use std::sync::Arc;
use std::time::Duration;

/// So long without an acknowledgement, or three round trips, is a silence.
const SILENCE: Duration = Duration::from_secs(1);
/// How often is asked in a silence.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// What a connection has sent and heard, as far as it shows whether somebody is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Heard {
    /// Frames that the peer has to acknowledge.
    asked: u64,
    /// Acknowledgements of something that was not acknowledged before.
    answered: u64,
    /// Bytes that were in flight after the last of these.
    open: u64,
}

impl Heard {
    fn of(connection: &Connection, permit: &Permit) -> Heard {
        let sent = connection.stats().frame_tx;
        let streams = sent.stream + sent.reset_stream + sent.stop_sending + sent.crypto;
        let windows = sent.max_data + sent.max_stream_data + sent.max_streams_uni + sent.max_streams_bidi;
        let blocked = sent.data_blocked + sent.stream_data_blocked + sent.streams_blocked_uni;
        let ids = sent.new_connection_id + sent.retire_connection_id;
        Heard {
            // QUIC's own probes are `immediate_ack`.
            asked: streams + windows + blocked + ids + sent.ping + sent.immediate_ack,
            answered: permit.acknowledged(),
            open: permit.open(),
        }
    }
}

/// Watches a connection until it ends. `say` hands something to the connection that the peer has to acknowledge.
/// `uni_streams` is how many the peer may open.
pub async fn watch(connection: Connection, permit: Arc<Permit>, uni_streams: u32, say: impl Fn()) {
    let mut before = Heard::of(&connection, &permit);
    // The estimate of the round trip is no help after an outage: late acknowledgements count as a long one.
    let mut shortest = connection.rtt();
    while connection.close_reason().is_none() {
        tokio::select! {
            () = permit.departed() => {}
            _ = connection.closed() => return,
        }
        shortest = shortest.min(connection.rtt());
        let mut pause = SILENCE.max(3 * shortest);
        loop {
            tokio::time::sleep(pause).await;
            if connection.close_reason().is_some() {
                return;
            }
            let now = Heard::of(&connection, &permit);
            if now.answered != before.answered || (now.asked == before.asked && before.open == 0) {
                before = now;
                if now.open == 0 {
                    break;
                }
                continue;
            }
            tracing::debug!(peer = %connection.remote_address(), "nothing is acknowledged; asking");
            permit.give();
            say();
            // Has no other effect than that the connection looks whether it can send what waits.
            connection.set_max_concurrent_uni_streams(VarInt::from_u32(uni_streams));
            pause = ASK_EVERY;
        }
    }
}
