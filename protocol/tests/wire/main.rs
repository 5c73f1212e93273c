//! The wire: what each value looks like in bytes, and what bytes are refused.
//!
//! Test names carry the ids of the project's reliability list: S-01 odd names, S-08 hostile lengths and counts, X-01
//! maximal lengths, X-04 lengths that lie. (`tests/allocation.rs` measures the memory that they take.)

mod dump;
mod frames;
mod golden;
mod hostile;
mod limits;
mod lists;
mod names;
mod raw;
mod round_trip;
mod spec;
mod values;
