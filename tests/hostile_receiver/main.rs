//! A receiver that lies, against a real sender: S-06, S-07, S-25 and S-29, by subject.
//!
//! Beside the source stands a *canary*, to which its links and the names of the peer lead. Nobody may even open it.

mod answers;
mod failures;
mod liar;
mod scene;
mod secrets;
#[path = "../support/mod.rs"]
mod support;
