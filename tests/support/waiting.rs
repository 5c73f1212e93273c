//! Waiting for what something else brings about.
#![allow(dead_code, reason = "each test file uses its part")]

use std::time::{Duration, Instant};

/// How long anything may take in a test before it counts as stuck.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How often is looked.
const PACE: Duration = Duration::from_millis(2);

/// Waits until something holds.
#[track_caller]
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    wait_until_some(what, || holds().then_some(()));
}

/// Waits until there is something.
#[track_caller]
pub fn wait_until_some<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < deadline, "still not: {what}");
        std::thread::park_timeout(PACE);
    }
}
