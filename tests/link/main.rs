//! The emulated link between real sockets, where this is permitted: rates, delays and losses that come out as given. A
//! program of its own, because what else is tested beside it takes the processors that it measures with.

mod real;
mod transfer;
#[path = "../support/waiting.rs"]
mod waiting;
