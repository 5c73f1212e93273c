//! driftless keeps directory trees on other machines identical to the one here, continuously, over any network.
//!
//! Programs that deploy by way of a mirror can ask its daemons, in whatever process of the same user they run, whether
//! everything that was done before has arrived ([`daemon::control::wait`]), and take checkpoints ([`daemon::control::ask_senders`]):
//!
//! ```no_run
//! use driftless::daemon::barrier::Level;
//! use driftless::daemon::control::{Ask, Enough, WaitOptions, Which, ask_senders, wait};
//! use driftless::daemon::home::Home;
//! use std::time::Duration;
//!
//! fn released() -> Result<bool, Box<dyn std::error::Error>> {
//!     let home = Home::discover()?;
//!     let which = Which {
//!         mirror: Some("www".to_owned()),
//!         path: None,
//!     };
//!     ask_senders(&home, &which, &Ask::Checkpoint("release-7".to_owned()))?;
//!     let waited = wait(
//!         &home,
//!         &WaitOptions {
//!             which,
//!             level: Level::Durable,
//!             targets: Enough::All,
//!             timeout: Duration::from_secs(300),
//!         },
//!     )?;
//!     Ok(waited.is_enough && waited.failed() == 0)
//! }
//! ```
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
