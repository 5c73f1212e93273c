//! `driftless transport`: the process that speaks to the network for a confined receiver. Not for users.

use super::text::escaped;
use super::{Cli, CliError, Command, DONE, Shown};
use crate::confine::outside;
use crate::fs::{become_nobody, raise_descriptor_limit};
use crate::net::separation::{Door, Lacking, Outside, OutsideOptions, StartError, Transport, doors};
use crate::net::{keep_time_zone, listening_socket};
use clap::{Args, Parser};
use driftless_certs::Identity;
use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

/// What it is told by its environment: where the time zone is, and what it logs.
const ENVIRONMENT: [&str; 3] = ["TZ", "RUST_LOG", "RUST_BACKTRACE"];
/// The longest line of its log that is taken over, in bytes; the rest is the next one.
const LINE_BYTES_MAX: u64 = 2_048;
/// So many lines of it are taken over in a minute.
const LINES_MAX: u32 = 1_000;
/// How long it may take to tell its peers that it ends.
const END_PATIENCE: Duration = Duration::from_secs(5);
/// And to be gone once it was killed.
const KILL_PATIENCE: Duration = Duration::from_secs(1);

/// Speak to the network for a confined receiver
#[derive(Debug, Args)]
pub(super) struct TransportArgs {
    /// The directory of the key
    #[arg(long)]
    identity: PathBuf,
    /// The command line of the receiver
    #[arg(last = true, required = true)]
    line: Vec<OsString>,
}

impl TransportArgs {
    pub(super) fn run(&self) -> Result<u8, CliError> {
        outside::drop_inherited();
        let door = || io::stdin().as_fd().try_clone_to_owned().map(Door::from);
        let (Ok(door), Ok(told)) = (door(), door()) else {
            return Err(CliError::failed("standard input is no door"));
        };
        // The other process says it to the user.
        if let Err(error) = self.serve(door) {
            let (text, is_usage) = match error {
                CliError::Failed(text) => (text, false),
                CliError::Usage(text) => (text, true),
            };
            Outside::fail(&told, &text, is_usage);
        }
        Ok(DONE)
    }

    fn serve(&self, door: Door) -> Result<(), CliError> {
        let cli = Cli::try_parse_from(&self.line).map_err(|error| CliError::usage(error.to_string()))?;
        let Command::Shown(command) = &cli.command else {
            return Err(CliError::usage("this is for `driftless receive` only"));
        };
        let Shown::Receive(receive) = &**command else {
            return Err(CliError::usage("this is for `driftless receive` only"));
        };
        let identity = Identity::load_or_create(&self.identity)?;
        let (listen, callee, hosts, link) = receive.outside()?;
        let listen = listen.map(listening_socket).transpose();
        let listen = listen.map_err(|error| CliError::failed(error.to_string()))?;
        keep_time_zone();
        raise_descriptor_limit();
        become_nobody();
        outside::enter();
        let runtime = runtime()
            .map_err(|error| CliError::failed(format!("cannot start the network's threads: {error}")))?;
        let options = OutsideOptions {
            identity,
            listen,
            admit: Arc::new(move |remote| hosts.admit(remote)),
            link,
            callee,
        };
        let confine = || {
            let lacking = outside::close().into_iter().chain(outside::rights_left());
            let told = lacking.map(|(measure, reason)| Lacking {
                measure: measure.name().to_owned(),
                reason,
            });
            told.collect()
        };
        let served = Outside::serve(door, runtime.handle(), options, confine);
        runtime.shutdown_background();
        served.map_err(CliError::failed)
    }
}

/// The network's threads. Who started this process ends it: a signal that was sent to both is that one's to obey.
fn runtime() -> io::Result<Runtime> {
    let threads = std::thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 4));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name("net")
        .enable_all()
        .build()?;
    let inside = runtime.enter();
    for kind in [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
    ] {
        // What is never waited for is ignored.
        drop(signal(kind)?);
    }
    drop(inside);
    Ok(runtime)
}

/// The process that speaks to the network, for the one that started it.
pub(super) struct Running {
    pub(super) transport: Transport,
    child: Child,
}

/// Starts it, and waits until it listens. To be called before this process confines itself.
pub(super) fn start(identity: &Path, verbose: u8) -> Result<(Running, Vec<Lacking>), StartFault> {
    let (door, theirs) = doors()?;
    let mut child = std::process::Command::new(std::env::current_exe()?)
        .args(std::iter::repeat_n("-v", verbose.into()))
        .args(["--log-format", "journal", "transport", "--identity"])
        .arg(identity)
        .arg("--")
        .args(std::env::args_os())
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .env_clear()
        .envs(environment())
        .current_dir("/")
        // A Ctrl-C is for who answers it.
        .process_group(0)
        .spawn()?;
    match Transport::greet(door) {
        Ok((transport, lacking)) => Ok((Running { transport, child }, lacking)),
        Err(error) => {
            // It has ended, or has nobody to speak to any more.
            let _ = child.wait();
            if let Some(stderr) = child.stderr.take() {
                relay(stderr, WHOSE, tell);
            }
            Err(StartFault::Said(error))
        }
    }
}

fn environment() -> impl Iterator<Item = (&'static str, OsString)> {
    let is_set = |value: &OsString| value != OsStr::new("");
    ENVIRONMENT
        .into_iter()
        .filter_map(move |name| Some((name, std::env::var_os(name).filter(is_set)?)))
}

/// Why there is no such process.
pub(super) enum StartFault {
    /// It could not be started.
    Spawn(io::Error),
    /// It ended again, or said nothing.
    Said(StartError),
}

impl From<io::Error> for StartFault {
    fn from(error: io::Error) -> StartFault {
        StartFault::Spawn(error)
    }
}

impl From<StartError> for CliError {
    fn from(error: StartError) -> CliError {
        match error {
            StartError::Refused { text, is_usage: true } => CliError::usage(text),
            error => CliError::failed(error.to_string()),
        }
    }
}

impl Running {
    /// Takes its log over, on a thread of its own.
    pub(super) fn listen_to_log(&mut self) -> io::Result<()> {
        let Some(stderr) = self.child.stderr.take() else {
            return Ok(());
        };
        let thread = std::thread::Builder::new().name("transport-log".to_owned());
        thread.spawn(move || relay(stderr, WHOSE, tell)).map(drop)
    }

    /// Has it end. None if it does not.
    pub(super) fn end(mut self) -> Option<ExitStatus> {
        if !self.transport.end(END_PATIENCE) {
            return None;
        }
        // That it has left does not mean that it has ended, if somebody took it over.
        let status = reap(&mut self.child, END_PATIENCE);
        if status.is_none() {
            tracing::error!(
                "the process that speaks to the network (pid {}) does not end and cannot be killed: look at it",
                self.child.id()
            );
        }
        status
    }
}

/// Waits for a process to end, and kills it if it does not in time. None if it cannot be killed, which may not be up to one that
/// has given up most of what root may do; the kernel then does it when this one ends.
fn reap(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    wait_for(child, patience).or_else(|| {
        let _ = child.kill();
        wait_for(child, KILL_PATIENCE)
    })
}

/// There is nothing to wait on with a limit: a descriptor of a process cannot be opened under confinement.
fn wait_for(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + patience;
    loop {
        match child.try_wait() {
            Ok(None) if Instant::now() < deadline => std::thread::park_timeout(Duration::from_millis(10)),
            Ok(status) => return status,
            Err(_) => return None,
        }
    }
}

/// Whose log it is, for [`relay`].
const WHOSE: &str = "the process that speaks to the network";

/// Makes the lines of another process's log lines of this one's, as long as it says a sensible number of them.
pub(super) fn relay(stderr: ChildStderr, whose: &str, tell: fn(u8, &[u8])) {
    let mut lines = BufReader::new(stderr);
    let mut allowance = (Instant::now(), 0);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut limited = Read::take(&mut lines, LINE_BYTES_MAX);
        match limited.read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let (since, count) = &mut allowance;
        if since.elapsed() >= Duration::from_secs(60) {
            (*since, *count) = (Instant::now(), 0);
        }
        *count += 1;
        if *count <= LINES_MAX {
            let line = line.strip_suffix(b"\n").unwrap_or(&line);
            // A line begins with its priority, as journald wants it; that of a panic has none.
            match line {
                [b'<', priority @ b'0'..=b'7', b'>', text @ ..] => tell(*priority, text),
                text => tell(b'3', text),
            }
        } else if *count == LINES_MAX + 1 {
            tracing::warn!("{whose} says more than {LINES_MAX} lines in a minute");
        }
    }
}

fn tell(priority: u8, text: &[u8]) {
    let text = escaped(OsStr::from_bytes(text));
    match priority {
        b'0'..=b'3' => tracing::error!("{text}"),
        b'4' => tracing::warn!("{text}"),
        b'5' | b'6' => tracing::info!("{text}"),
        _ => tracing::debug!("{text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    fn program(name: &str, argument: &str) -> Child {
        std::process::Command::new(name).arg(argument).spawn().unwrap()
    }

    #[test]
    fn who_does_not_end_is_killed() {
        let mut stays = program("sleep", "600");
        let status = reap(&mut stays, Duration::from_millis(50)).unwrap();
        assert_eq!(status.signal(), Some(9));
        let mut ends = program("sleep", "0");
        assert_eq!(reap(&mut ends, Duration::from_secs(60)).unwrap().code(), Some(0));
    }
}
