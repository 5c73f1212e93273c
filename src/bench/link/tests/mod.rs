//! Tests of the link: its text form, and its scheduler with virtual time. The real thing is in `tests/link`.

mod direction;
mod spec;
