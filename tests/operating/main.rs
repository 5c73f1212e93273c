//! What somebody who operates driftless asks of it, through the real daemons: whether changes have arrived, how far it is
//! behind, what happened.

mod events;
mod failover;
mod hooks;
mod logs;
mod page;
#[path = "../support/pty.rs"]
mod pty;
mod publish;
mod receiver_hooks;
mod repair;
mod site;
mod status;
mod view;
mod wait;
