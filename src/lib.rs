//! driftless keeps directory trees on other machines identical to the one here, continuously, over any network.
pub mod engine;
