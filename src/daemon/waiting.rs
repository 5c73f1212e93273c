//! Where the threads that decide wait for what comes next.
//!
//! All of them wait here, so that a simulation can take their place at each wait: it decides then who goes on, and when.

use super::Stop;
#[cfg(test)]
use super::simulation;
use crossbeam_channel::{Receiver, Select, TryRecvError};
use std::time::Instant;

/// Blocks until one of the channels is ready, or until a moment if there is one.
pub fn ready(select: &mut Select<'_>, until: Option<Instant>) {
    #[cfg(test)]
    if simulation::wait(|| select.try_ready().is_ok(), until) {
        return;
    }
    match until {
        Some(until) => {
            let _ = select.ready_deadline(until);
        }
        None => {
            select.ready();
        }
    }
}

/// Blocks until there is a message, or until a moment if there is one. None if none came, or none can any more.
pub fn receive<T>(from: &Receiver<T>, until: Option<Instant>) -> Option<T> {
    let mut select = Select::new();
    select.recv(from);
    loop {
        ready(&mut select, until);
        match from.try_recv() {
            Ok(message) => return Some(message),
            Err(TryRecvError::Disconnected) => return None,
            Err(TryRecvError::Empty) if until.is_some_and(|until| Instant::now() >= until) => return None,
            // To be ready is no promise.
            Err(TryRecvError::Empty) => {}
        }
    }
}

/// Blocks until there is a message. None if none can come any more, or if stopping is asked.
pub fn receive_or_stop<T>(from: &Receiver<T>, stop: &Stop) -> Option<T> {
    let stopping = stop.channel();
    let mut select = Select::new();
    select.recv(from);
    select.recv(&stopping);
    while !stop.is_requested() {
        match from.try_recv() {
            Ok(message) => return Some(message),
            Err(TryRecvError::Disconnected) => return None,
            Err(TryRecvError::Empty) => ready(&mut select, None),
        }
    }
    None
}
