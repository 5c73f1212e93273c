//! Waiting until a mirror has nothing left to do.

use super::{Following, Pair, differences};
use driftless::daemon::Phase;
use std::time::{Duration, Instant};

/// How long both trees may differ once nothing changes any more.
pub const SETTLES: Duration = Duration::from_secs(30);

/// Waits until both trees are equal and the sender believes so too; a halted sender fails at once.
pub fn wait_settled(pair: &Pair, following: &Following) {
    let deadline = Instant::now() + SETTLES;
    loop {
        let phase = following.watching.wait_for(|_| true);
        assert!(!matches!(phase, Phase::Halted { .. }), "{phase:?}");
        // A receiver's tree that changes while it is read makes the comparison panic; that is only another round.
        let Ok(found) = std::panic::catch_unwind(|| differences(&pair.src(), &pair.dst())) else {
            continue;
        };
        if found.is_empty() {
            break;
        }
        let first = &found[..found.len().min(8)];
        assert!(
            Instant::now() < deadline,
            "{} differences, first: {first:#?}",
            found.len()
        );
        std::thread::park_timeout(Duration::from_millis(20));
    }
    let phase = following
        .watching
        .wait_for(|phase| matches!(phase, Phase::InSync { .. } | Phase::Halted { .. }));
    assert!(matches!(phase, Phase::InSync { .. }), "{phase:?}");
    pair.assert_equal();
}
