//! What passed over a link.

use serde::Serialize;

use super::Side;

/// What one direction of a link did. Bytes are those of whole IP packets, headers included.
///
/// `packets_in` is the sum of delivered, lost, queue-full and refused packets and of those under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Counters {
    /// Packets the sending side put into the link.
    pub packets_in: u64,
    /// Bytes the sending side put into the link.
    pub bytes_in: u64,
    /// Packets handed to the receiving side.
    pub packets_delivered: u64,
    /// Bytes handed to the receiving side.
    pub bytes_delivered: u64,
    /// Packets lost at random.
    pub packets_lost: u64,
    /// Bytes lost at random.
    pub bytes_lost: u64,
    /// Packets dropped as the queue was full.
    pub packets_queue_full: u64,
    /// Bytes dropped as the queue was full.
    pub bytes_queue_full: u64,
    /// Packets the receiving side's kernel refused; not part of the specified link, zero in a sound run.
    pub packets_refused: u64,
    /// Packets the sending side's kernel dropped before the emulator saw them, as the emulator did not keep up
    /// reading. Not part of the specified link and in no other counter; zero in a sound run.
    pub packets_unread: u64,
    /// Packets delivered more than 1 ms after they were due; near zero in a sound run.
    pub packets_late: u64,
    /// The most a packet was delivered after it was due, in nanoseconds.
    pub max_late_nanos: u64,
    /// The largest backlog of the queue in bytes.
    pub max_backlog_bytes: u64,
    /// The most by which jitter or reordering made a packet due before half the round trip time was over, in nanoseconds.
    pub max_sooner_nanos: u64,
    /// The most by which jitter made one due after that, in nanoseconds.
    pub max_later_nanos: u64,
}

impl Counters {
    /// Adds what was counted since.
    pub(super) fn add(&mut self, since: Counters) {
        self.packets_in += since.packets_in;
        self.bytes_in += since.bytes_in;
        self.packets_delivered += since.packets_delivered;
        self.bytes_delivered += since.bytes_delivered;
        self.packets_lost += since.packets_lost;
        self.bytes_lost += since.bytes_lost;
        self.packets_queue_full += since.packets_queue_full;
        self.bytes_queue_full += since.bytes_queue_full;
        self.packets_refused += since.packets_refused;
        self.packets_unread += since.packets_unread;
        self.packets_late += since.packets_late;
        self.max_late_nanos = self.max_late_nanos.max(since.max_late_nanos);
        self.max_backlog_bytes = self.max_backlog_bytes.max(since.max_backlog_bytes);
        self.max_sooner_nanos = self.max_sooner_nanos.max(since.max_sooner_nanos);
        self.max_later_nanos = self.max_later_nanos.max(since.max_later_nanos);
    }
}

/// The counters of both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct LinkCounters {
    /// What side A sent.
    pub a_to_b: Counters,
    /// What side B sent.
    pub b_to_a: Counters,
}

impl LinkCounters {
    /// The counters of the direction in which `side` sends.
    #[must_use]
    pub fn sent_by(&self, side: Side) -> &Counters {
        match side {
            Side::A => &self.a_to_b,
            Side::B => &self.b_to_a,
        }
    }

    /// Whether the emulator itself kept up: the kernel dropped nothing beside it and it delivered at most one
    /// packet in a hundred more than 1 ms late. A measurement from a run where it did not is doubtful.
    #[must_use]
    pub fn sound(&self) -> bool {
        [self.a_to_b, self.b_to_a].iter().all(|way| {
            way.packets_unread == 0
                && way.packets_refused == 0
                && way.packets_late * 100 <= way.packets_delivered
        })
    }
}
