//! What survives a crash, a power cut, a failing disk: every path is its old or its new self, nothing that was called
//! durable is lost, and what could not be done is told, tried again, and done.
//!
//! The budgets are short; `DRIFTLESS_SOAK=n` makes them n times as long (crash points: from 10 on, every one), and
//! `DRIFTLESS_SEED=n` takes other seeds. The ids in the comments are those of `docs/reliability.md`.

mod crash_points;
mod errors;
mod flips;
mod forgetful;
mod keeping;
mod lacking;
mod logged;
mod orders;
mod power;
mod publish;
mod rig;
mod space;
#[path = "../support/mod.rs"]
mod support;

/// A number from the environment.
fn number(name: &str) -> Option<usize> {
    std::env::var(name).ok()?.parse().ok()
}

/// How many times the usual budget.
fn soak() -> usize {
    number("DRIFTLESS_SOAK").unwrap_or(1).max(1)
}

/// The seed of a run, changed by `DRIFTLESS_SEED`.
fn seed(of_this_test: u64) -> u64 {
    of_this_test + 1_000 * number("DRIFTLESS_SEED").unwrap_or(0) as u64
}
