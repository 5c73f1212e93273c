//! Pure decisions: no file, no socket, no clock, no thread. Time and bytes are arguments.
#![forbid(unsafe_code)]

pub mod ages;
pub mod compare;
pub mod delta;
pub mod filter;
pub mod fuse;
pub mod hosts;
pub mod itemize;
pub mod links;
pub mod mode;
pub mod newcomers;
pub mod numbers;
pub mod order;
pub mod out_format;
pub mod owners;
pub mod path_pattern;
pub mod pending;
pub mod rangesum;
pub mod span_sums;
pub mod spans;
pub mod sum;
pub mod zeros;
