//! driftless keeps directory trees on other machines identical to the one here, continuously, over any network.
pub mod bench;
pub mod cli;
pub mod confine;
pub mod daemon;
pub mod engine;
pub mod fs;
pub mod import;
pub mod net;
pub mod store;
pub mod watch;
