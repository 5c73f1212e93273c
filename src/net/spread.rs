//! Over how many bulk streams ranges are spread.
//!
//! The window of a stream has an upper limit (see `transport`), so a long and fast path takes many streams to fill. On any other path
//! they would be filled all the same: with what waits on either side for nothing, megabytes for each stream. So there are as many
//! as the congestion window asks for.

use super::session::Session;
use super::transport::{BULK_STREAMS, STREAM_WINDOW_BYTES};
use std::sync::Arc;
use tokio::sync::watch;

/// Streams that are used on any path.
const STREAMS_MIN: u32 = 4;
/// So many congestion windows have to fit: what is in flight, what the other side has not read yet, and room for a window that
/// doubles in a round trip.
const CONGESTION_WINDOWS: u64 = 4;

/// How many bulk streams a session uses. The number only grows.
#[derive(Debug)]
pub(super) struct Spread {
    session: Arc<Session>,
    streams: watch::Sender<u32>,
}

impl Spread {
    /// Of a new session.
    pub(super) fn of(session: Arc<Session>) -> Spread {
        let (streams, _) = watch::channel(STREAMS_MIN);
        Spread { session, streams }
    }

    /// Waits until the stream of this number, from 0 on, is one of those to be used, or the session ends.
    pub(super) async fn wait_for(&self, stream: u32) {
        let mut streams = self.streams.subscribe();
        tokio::select! {
            _ = streams.wait_for(|&streams| stream < streams) => {}
            () = self.session.over() => {}
        }
    }

    /// To be called now and then while something is sent.
    pub(super) fn follow(&self) {
        let wanted = streams_for(self.session.trunk().connection().stats().path.cwnd);
        self.streams.send_if_modified(|streams| {
            let grows = *streams < wanted;
            *streams = wanted.max(*streams);
            grows
        });
    }
}

fn streams_for(congestion_window: u64) -> u32 {
    let wanted = congestion_window
        .saturating_mul(CONGESTION_WINDOWS)
        .div_ceil(u64::from(STREAM_WINDOW_BYTES));
    u32::try_from(wanted)
        .unwrap_or(u32::MAX)
        .clamp(STREAMS_MIN, BULK_STREAMS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_as_the_path_asks_for() {
        assert_eq!(streams_for(64 << 10), STREAMS_MIN);
        // 200 Mbit/s at 80 ms, and 1 Gbit/s at 300 ms.
        assert_eq!(streams_for(3_000_000), 5);
        assert_eq!(streams_for(37_000_000), BULK_STREAMS);
        assert_eq!(streams_for(u64::MAX), BULK_STREAMS);
    }
}
