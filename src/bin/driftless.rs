//! The command line program; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    driftless::cli::main(std::env::args_os())
}
