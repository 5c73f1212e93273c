//! A sender that lies, against a real receiver: S-01, S-02, S-14, S-19, N-10, X-03 and X-04, by subject.
//!
//! Beside the module stands a *canary*, a tree that links, names and numbers of the peer point to. It must never change.

mod bench;
mod contents;
mod door;
mod links;
mod names;
mod numbers;
mod owners;
mod sessions;
mod sharing;
#[path = "../support/mod.rs"]
mod support;
mod wire;
