//! Hooks of `driftless receive`, and `driftless hooks`: the process that runs them for a receiver that is confined. The latter is not
//! for users.

use super::hooks::{When, parse_pattern, parse_timeout};
use super::text::escaped;
use super::transport::relay;
use super::{CliError, DONE};
use crate::daemon::hooks::{self, Complain, Following, HookProcess, ModulePrograms, Program};
use clap::{Args, ValueEnum};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

/// How many of them run at once.
pub(super) const HOOKS_AT_ONCE: usize = 4;

/// A program and its occasion, as they are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HookWord {
    pub(super) on: When,
    pub(super) program: String,
}

pub(super) fn parse_hook(text: &str) -> Result<HookWord, String> {
    let wrong = || {
        let names = When::value_variants().iter().filter_map(When::to_possible_value);
        let names: Vec<_> = names.map(|value| value.get_name().to_owned()).collect();
        format!(
            "takes WHEN=PROGRAM with the path of a program, WHEN being one of {}",
            names.join(", ")
        )
    };
    let (on, program) = text.split_once('=').ok_or_else(wrong)?;
    let on = When::from_str(on, false).map_err(|_| wrong())?;
    if !Path::new(program).is_absolute() {
        return Err(format!(
            "{program:?} is not the path of a program that begins with a slash"
        ));
    }
    Ok(HookWord {
        on,
        program: program.to_owned(),
    })
}

fn parse_module_hook(text: &str) -> Result<HookWord, String> {
    let word = parse_hook(text)?;
    match word.on {
        When::BeforeBatch => {
            Err("before-batch is for the end that sends: what leaves is known there".to_owned())
        }
        _ => Ok(word),
    }
}

/// What a receiver runs. A daemon's modules have a `[[hook]]`.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Hooks")]
pub(super) struct ReceiverHooksArgs {
    /// Run PROGRAM, without arguments, `after-batch`, when `in-sync`, or on an `error`; may be repeated. It is told what happened as
    /// the hooks of a module are, and runs in a process that was started before this one was confined
    #[arg(long, value_name = "WHEN=PROGRAM", value_parser = parse_module_hook)]
    hook: Vec<HookWord>,
    /// Run it only for changes of these paths, and errors with them; may be repeated
    #[arg(long, value_name = "PATTERN", requires = "hook", value_parser = parse_pattern)]
    hook_paths: Vec<String>,
    /// After this time it is killed [default: 30s]
    #[arg(long, value_name = "TIME", requires = "hook", value_parser = parse_timeout)]
    hook_timeout: Option<Duration>,
}

impl ReceiverHooksArgs {
    /// Starts the process that will run them, if there are any. To be called before this one is confined.
    pub(super) fn start(&self, module: &str) -> Result<Option<HookProcess>, CliError> {
        if self.hook.is_empty() {
            return Ok(None);
        }
        let timeout = self.hook_timeout.unwrap_or(super::hooks::TIMEOUT);
        let programs = self.hook.iter().map(|word| Program {
            on: word.on.occasion(),
            paths: self.hook_paths.clone(),
            command: vec![word.program.clone()],
            timeout_ms: timeout.as_millis().try_into().unwrap_or(u64::MAX),
        });
        let wanted = ModulePrograms {
            module: module.to_owned(),
            at_once: HOOKS_AT_ONCE,
            programs: programs.collect(),
        };
        let started = program().and_then(|program| HookProcess::start(program, wanted));
        started
            .map(Some)
            .map_err(|error| CliError::failed(format!("cannot start the process that runs hooks: {error}")))
    }
}

/// What starts it.
fn program() -> io::Result<std::process::Command> {
    let mut program = std::process::Command::new(std::env::current_exe()?);
    program.args(["--log-format", "journal", "hooks"]);
    Ok(program)
}

/// Has it told what happens from now on, and its log taken over. To be called when this process may have threads.
pub(super) fn follow(mut process: HookProcess) -> Result<Following, CliError> {
    let failed = |error: io::Error| CliError::failed(format!("cannot start a thread for hooks: {error}"));
    if let Some(log) = process.take_log() {
        let thread = std::thread::Builder::new().name("hooks-log".to_owned());
        let relayed = thread.spawn(move || relay(log, "the process that runs hooks", tell));
        relayed.map_err(failed)?;
    }
    process.follow().map_err(failed)
}

/// What hooks print was escaped there.
fn tell(priority: u8, text: &[u8]) {
    let text = match std::str::from_utf8(text) {
        Ok(text) if !text.contains(char::is_control) => text.to_owned(),
        _ => escaped(OsStr::from_bytes(text)),
    };
    match priority {
        b'0'..=b'3' => tracing::error!(target: hooks::LOG, "{text}"),
        b'4' => tracing::warn!(target: hooks::LOG, "{text}"),
        _ => tracing::info!(target: hooks::LOG, "{text}"),
    }
}

/// Run the hooks of a confined receiver
#[derive(Debug, Args)]
pub(super) struct HooksArgs {}

impl HooksArgs {
    pub(super) fn run(&self) -> Result<u8, CliError> {
        let failed =
            |error: io::Error| CliError::failed(format!("cannot follow a receiver for its hooks: {error}"));
        let complain: Complain = Arc::new(|text| tracing::warn!(target: hooks::LOG, "{text}"));
        let _handlers = outlive_signals().map_err(failed)?;
        hooks::serve(io::stdin().lock(), &complain)
            .map(|()| DONE)
            .map_err(failed)
    }
}

/// A signal that was sent to the receiver and to this process is the receiver's to obey: it still has things to tell. The signals are
/// handled, and not ignored, because programs would inherit that.
fn outlive_signals() -> io::Result<Runtime> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let inside = runtime.enter();
    for kind in [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
    ] {
        // What is never waited for does nothing.
        drop(signal(kind)?);
    }
    drop(inside);
    Ok(runtime)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hooks_are_an_occasion_and_a_program() {
        let read = parse_hook("in-sync=/bin/a=b").unwrap();
        assert_eq!((read.on, read.program.as_str()), (When::InSync, "/bin/a=b"));
        for wrong in [
            "",
            "in-sync",
            "in-sync=",
            "in-sync=true",
            "never=/bin/true",
            "=/bin/true",
        ] {
            assert!(parse_hook(wrong).is_err(), "{wrong}");
            assert!(parse_module_hook(wrong).is_err(), "{wrong}");
        }
        assert!(parse_hook("before-batch=/bin/true").is_ok());
        assert!(parse_module_hook("before-batch=/bin/true").is_err());
    }
}
