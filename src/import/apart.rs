//! The process in which a configuration runs, seen from both ends.
//!
//! A configuration is as hostile as whoever wrote it: it may loop in a place where Lua asks nobody (a pattern that
//! backtracks), and Lua itself is a C program. So the time is kept by a thread beside it, memory and processor time have
//! limits of the kernel's, system calls beyond computing fail, and the process that asked waits no longer than a little
//! more. What comes back is data of limited size.

use super::Source;
use super::sandbox::Sandbox;
use super::value::{Evaluation, Failure};
use crate::confine;
use rustix::process::{Resource, Rlimit, setrlimit};
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

/// The longest configuration that is read.
pub const SOURCE_BYTES_MAX: usize = 1 << 20;
/// How long a configuration may run. A real one takes milliseconds.
const TIME_MAX: Duration = Duration::from_secs(5);
/// After this the process is killed, whatever it does.
const PATIENCE: Duration = Duration::from_secs(30);
/// What comes back at most. Text grows by its escapes.
const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// Lua's own limit of calls within calls of C functions takes a fraction of this.
const STACK_BYTES: usize = 8 << 20;
/// Address space of the process: its program and stacks, too.
const ADDRESS_SPACE_MAX: u64 = 2 << 30;
const PROCESSOR_SECONDS_MAX: u64 = 10;

/// Runs a configuration in a process of its own. `command` has to start [`serve`] with the path of the source.
pub fn evaluate(mut command: Command, source: &Source) -> Result<Evaluation, Failure> {
    let cannot =
        |what: &str, error: std::io::Error| Failure::new(None, format!("cannot {what} the process: {error}"));
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| cannot("start", error))?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let text = source.text.clone();
    // It may stop reading at any time; then its answer says why.
    let writer = thread::spawn(move || stdin.map(|mut pipe| pipe.write_all(&text)));
    let (sender, answer) = channel();
    let reader = thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = stdout.map(|pipe| pipe.take(ANSWER_BYTES_MAX + 1).read_to_end(&mut bytes));
        let _ = sender.send((read, bytes));
    });
    let answer = answer.recv_timeout(PATIENCE);
    let ended = end(&mut child).map_err(|error| cannot("wait for", error));
    let _ = (writer.join(), reader.join());
    match answer {
        Ok((_, bytes)) if !bytes.is_empty() => understand(&bytes),
        Ok(_) => Err(Failure::new(
            None,
            format!("its process ended without an answer ({})", ended?),
        )),
        Err(_) => Err(too_long(None, PATIENCE)),
    }
}

/// Ends a process that has said what it had to say, or never will.
fn end(child: &mut Child) -> std::io::Result<std::process::ExitStatus> {
    if let Some(status) = child.try_wait()? {
        return Ok(status);
    }
    child.kill()?;
    child.wait()
}

fn understand(bytes: &[u8]) -> Result<Evaluation, Failure> {
    if bytes.len() as u64 > ANSWER_BYTES_MAX {
        return Err(Failure::new(None, "it says more than a configuration has to say"));
    }
    serde_json::from_slice(bytes)
        .unwrap_or_else(|error| Err(Failure::new(None, format!("its process gave no answer: {error}"))))
}

fn too_long(line: Option<u32>, limit: Duration) -> Failure {
    Failure::new(
        line,
        format!("it did not come to its end within {} s", limit.as_secs()),
    )
}

/// The other end: runs what comes from standard input, and writes what came of it to standard output.
pub fn serve(path: &str) -> std::io::Result<()> {
    let mut source = Source {
        path: path.to_owned(),
        text: Vec::new(),
    };
    std::io::stdin()
        .take(SOURCE_BYTES_MAX as u64)
        .read_to_end(&mut source.text)?;
    limit_resources();
    let answer = serde_json::to_vec(&run_in_time(source))?;
    std::io::stdout().write_all(&answer)
}

fn run_in_time(source: Source) -> Result<Evaluation, Failure> {
    let line = Arc::new(AtomicU32::new(0));
    let (sender, outcome) = channel();
    let seen = line.clone();
    let thread = thread::Builder::new()
        .name("lua".to_owned())
        .stack_size(STACK_BYTES);
    let spawned = thread.spawn(move || {
        let sandbox = Sandbox::new(&source.path, seen);
        // Where the kernel cannot do this, all the other limits still hold.
        let _ = confine::compute_only();
        let _ = sender.send(sandbox.and_then(|sandbox| sandbox.run(&source)));
    });
    if let Err(error) = spawned {
        return Err(Failure::new(None, format!("cannot start a thread: {error}")));
    }
    match outcome.recv_timeout(TIME_MAX) {
        Ok(outcome) => outcome,
        Err(RecvTimeoutError::Timeout) => Err(too_long(Some(line.load(Ordering::Relaxed)), TIME_MAX)),
        Err(RecvTimeoutError::Disconnected) => Err(Failure::new(
            Some(line.load(Ordering::Relaxed)),
            "Lua failed (this is a defect, please report it)",
        )),
    }
}

/// Limits of the kernel's, behind those that are kept here.
fn limit_resources() {
    let limits = [
        (Resource::As, ADDRESS_SPACE_MAX),
        (Resource::Cpu, PROCESSOR_SECONDS_MAX),
        (Resource::Fsize, 0),
        (Resource::Core, 0),
    ];
    for (resource, most) in limits {
        let limit = Rlimit {
            current: Some(most),
            maximum: Some(most),
        };
        // Lowering a limit is always permitted; a lower one that holds already is as good.
        let _ = setrlimit(resource, limit);
    }
}
