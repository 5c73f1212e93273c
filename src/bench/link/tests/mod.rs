//! Tests of the link: its text form and its scheduler with virtual time, and the real thing between real
//! sockets where this is permitted.

mod direction;
mod real;
mod spec;
mod transfer;
