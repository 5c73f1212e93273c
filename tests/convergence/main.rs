//! Whatever is done to a source, and whenever: the target ends up equal. Each test has the number of its requirement in
//! its name.
//!
//! The budgets are short; `DRIFTLESS_SOAK=n` makes them n times as long, and `DRIFTLESS_SEED=n` takes other seeds.

mod attributes;
mod content;
mod generated;
mod kinds;
mod limits;
mod links;
mod mapping;
mod mirror;
mod names;
mod programs;
mod roots;
#[path = "../support/mod.rs"]
mod support;

fn number(name: &str) -> Option<usize> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// A budget, `DRIFTLESS_SOAK` times.
fn scaled(budget: usize) -> usize {
    budget * number("DRIFTLESS_SOAK").unwrap_or(1).max(1)
}

/// The first seed of a test.
fn seed(default: u64) -> u64 {
    number("DRIFTLESS_SEED").map_or(default, |seed| seed as u64)
}
