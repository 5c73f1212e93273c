//! The control socket: how `driftless status` asks the daemons of its home what they do.
//!
//! Each process has a Unix socket `<role>-<pid>.sock` in the run directory of its home. A client writes one line,
//! `{"version":1,"command":"status"}` or `{"version":1,"command":"approve","mirror":"...","deletions":N}`, and gets one line,
//! `{"version":1,"daemons":[...]}`, `{"version":1,"approved":N}` or `{"version":1,"error":"..."}`; then the connection ends.
//! `driftless daemon` also takes the commands of [`Order`], `{"version":1,"command":"pause","mirror":"..."}`, and answers
//! `{"version":1,"done":"..."}`.
//!
//! Who may connect is decided by the directory (mode 0700) and the socket (mode 0600). Even so a client cannot hold
//! anything up: a connection has two seconds in each direction, a request 16 KiB, and beyond sixteen connections new
//! ones are dropped. Those that wait ([`wait()`]) or listen ([`listen()`]) are counted apart, and refused beyond sixty-four. The daemon's own threads never touch a connection.
//!
//! A process that was killed leaves its socket behind. Clients remove it when nobody listens on it *and* there is no such
//! process, since between binding and listening a live one refuses, too.

mod ask;
mod forget;
mod listen;
mod verify;
mod wait;

pub use ask::{Answer, Ask, Which, ask_senders};
pub use forget::{ForgetModule, forget_module};
pub use listen::{Ears, listen};
pub use verify::{Verified, VerifyWish, verify};
pub use wait::{Enough, WaitOptions, WaitState, Waited, wait};

use super::barrier::Level;
use super::forget::Cleared;
use super::home::Home;
use super::status::{DaemonStatus, STATUS_VERSION, StatusBoard, TargetLabel};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, Permissions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use thiserror::Error;

/// How long one direction of a connection may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long a client waits for the answer. A receiver that opens a large module answers late.
const CLIENT_PATIENCE: Duration = Duration::from_secs(5);

/// How long a process waits for the answers of its senders.
const SENDER_PATIENCE: Duration = Duration::from_secs(4);

/// Connections that stay open at a time: those that wait, and those that listen.
const STREAMS_MAX: usize = 64;

/// Connections at a time.
const CONNECTIONS_MAX: usize = 16;

/// Bytes of a request.
const REQUEST_BYTES_MAX: u64 = 16 << 10;

/// Bytes of an answer that a client reads.
const REPLY_BYTES_MAX: u64 = 16 << 20;

/// Socket addresses hold 108 bytes, the terminator included.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// How long a client waits for an order to be carried out: mirrors that stop finish what they are at.
const ORDER_PATIENCE: Duration = Duration::from_secs(120);

/// What `driftless daemon` can be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Read the configuration again.
    Reload,
    /// Send nothing of a mirror for now, but watch on.
    Pause(String),
    /// End a pause.
    Resume(String),
    /// Stop a mirror, and release its directories.
    Stop(String),
    /// Start a mirror that was stopped, or that failed.
    Start(String),
    /// Look whether a module was promoted or demoted, and act on that. Receivers take it, too.
    Fence(String),
}

impl Order {
    /// As it is called on the command line and in requests.
    pub fn name(&self) -> &'static str {
        match self {
            Order::Reload => "reload",
            Order::Pause(_) => "pause",
            Order::Resume(_) => "resume",
            Order::Stop(_) => "stop",
            Order::Start(_) => "start",
            Order::Fence(_) => "fence",
        }
    }

    /// Which mirror it is for, or which module.
    pub fn mirror(&self) -> Option<&str> {
        match self {
            Order::Reload => None,
            Order::Pause(mirror)
            | Order::Resume(mirror)
            | Order::Stop(mirror)
            | Order::Start(mirror)
            | Order::Fence(mirror) => Some(mirror),
        }
    }

    fn parse(command: &str, mirror: Option<&str>) -> Option<Order> {
        let mirror = mirror.map(str::to_owned);
        match command {
            "reload" => Some(Order::Reload),
            "pause" => mirror.map(Order::Pause),
            "resume" => mirror.map(Order::Resume),
            "stop" => mirror.map(Order::Stop),
            "start" => mirror.map(Order::Start),
            "fence" => mirror.map(Order::Fence),
            _ => None,
        }
    }
}

/// How an order ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obeyed {
    /// What was done, for people.
    Done(String),
    /// Why not, for people.
    Failed(String),
    /// Why not: the configuration is wrong.
    Misconfigured(String),
    /// There is no such mirror here, or nobody who takes orders.
    Unknown,
}

impl Obeyed {
    /// How looking at the fence of a module ended; `None` if the module is not one of the process.
    pub fn of_fence(outcome: Option<Result<(), String>>) -> Obeyed {
        match outcome {
            Some(Ok(())) => Obeyed::Done("what was decided about the module is in force".to_owned()),
            Some(Err(text)) => Obeyed::Failed(text),
            None => Obeyed::Unknown,
        }
    }
}

/// What a process can be asked. Called on the control threads.
pub trait Controlled: Send + Sync {
    /// The status of all its daemons.
    fn status(&self) -> Vec<DaemonStatus>;

    /// The boards of all senders, through which they can be asked.
    fn boards(&self) -> Vec<Arc<StatusBoard>> {
        Vec::new()
    }

    /// Approves so many deletions of a mirror, named by its source or target. `None` if it is not here; otherwise how many
    /// waited, or why that was not right.
    fn approve(&self, _mirror: &str, _deletions: u64) -> Option<Result<u64, String>> {
        None
    }

    /// Forgets a module. `None` if it is not offered here; otherwise what was done, or why not.
    fn forget_module(&self, _module: &ForgetModule) -> Option<Result<Cleared, String>> {
        None
    }

    /// Carries out an order. Only `driftless daemon` takes any, but for [`Order::Fence`].
    fn obey(&self, _order: &Order) -> Obeyed {
        Obeyed::Unknown
    }
}

impl Controlled for Vec<Arc<StatusBoard>> {
    fn status(&self) -> Vec<DaemonStatus> {
        let status = |board: &Arc<StatusBoard>| DaemonStatus::Sender(Box::new(board.status()));
        self.iter().map(status).collect()
    }

    fn boards(&self) -> Vec<Arc<StatusBoard>> {
        self.clone()
    }

    fn approve(&self, mirror: &str, deletions: u64) -> Option<Result<u64, String>> {
        let mut named = self.iter().filter(|board| board.is_named(mirror));
        let board = named.next()?;
        if named.next().is_some() {
            return Some(Err(format!("{mirror} has several targets: name one of them")));
        }
        Some(board.approve(deletions))
    }
}

impl<F: Fn() -> Vec<DaemonStatus> + Send + Sync> Controlled for F {
    fn status(&self) -> Vec<DaemonStatus> {
        self()
    }
}

/// Why there is no control socket, or why none can be asked.
#[derive(Debug, Error)]
#[error("cannot {action} {}: {cause}", .path.display())]
pub struct ControlError {
    action: &'static str,
    path: PathBuf,
    cause: io::Error,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Request {
    version: u32,
    command: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mirror: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    deletions: Option<u64>,
    /// An absolute path, its bytes in hexadecimal: not all paths are text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    level: Option<Level>,
    /// Of a checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// Whether what was kept for people goes with a module that is forgotten.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    with_kept: bool,
    /// How to verify.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    verify: Option<VerifyWish>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Reply {
    version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    daemons: Option<Vec<DaemonStatus>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    approved: Option<u64>,
    /// What senders answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    answers: Option<Vec<Answer>>,
    /// Who is waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    waiting: Option<Vec<TargetLabel>>,
    /// Who is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reached: Option<wait::Told>,
    /// Who never will be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refused: Option<wait::Told>,
    /// What an order did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    done: Option<String>,
    /// What was done in the tree of a module that was forgotten.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cleared: Option<Cleared>,
    /// The error is one of the configuration.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    misconfigured: bool,
    /// The mirror is not one of this process.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    unknown_mirror: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// A listening control socket. Dropping it ends it and removes it.
#[derive(Debug)]
pub struct ControlServer {
    path: PathBuf,
    /// To end the listening.
    listener: UnixStream,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl ControlServer {
    /// Listens on the socket of this process in the home's run directory.
    pub fn start(
        home: &Home,
        role: &str,
        daemons: Arc<dyn Controlled>,
    ) -> Result<ControlServer, ControlError> {
        let dir = home.run_dir();
        let path = dir.join(format!("{role}-{}.sock", std::process::id()));
        let failed = |action| {
            let path = path.clone();
            move |cause| ControlError { action, path, cause }
        };
        // One there is from a dead process that had our number.
        let _ = fs::remove_file(&path);
        let listener = short(&path, |short| UnixListener::bind(short)).map_err(failed("listen on"))?;
        fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(failed("set the mode of"))?;
        let handle = listener.try_clone().map_err(failed("listen on"))?;
        let stopping = Arc::new(AtomicBool::new(false));
        let thread = std::thread::Builder::new()
            .name("control".to_owned())
            .spawn({
                let stopping = stopping.clone();
                move || accept(&listener, &daemons, &stopping)
            })
            .map_err(failed("start a thread for"))?;
        let listener = UnixStream::from(OwnedFd::from(handle));
        Ok(ControlServer {
            path,
            listener,
            stopping,
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        let _ = fs::remove_file(&self.path);
        // On Linux this ends a waiting `accept`.
        if self.listener.shutdown(std::net::Shutdown::Both).is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

fn accept(listener: &UnixListener, daemons: &Arc<dyn Controlled>, stopping: &AtomicBool) {
    let (open, streams) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    loop {
        let accepted = listener.accept();
        if stopping.load(Ordering::Acquire) {
            return;
        }
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("cannot accept a control connection: {error}");
                // Out of descriptors, most likely: it passes, but not faster by asking again at once.
                std::thread::sleep(Duration::from_millis(200));
                continue;
            }
        };
        let slot = Slot(open.clone());
        if open.fetch_add(1, Ordering::AcqRel) >= CONNECTIONS_MAX {
            continue;
        }
        let (daemons, streams) = (daemons.clone(), streams.clone());
        let spawned = std::thread::Builder::new()
            .name("control-answer".to_owned())
            .spawn(move || {
                if let Err(error) = answer(stream, &*daemons, slot, &streams) {
                    tracing::debug!("a control connection broke: {error}");
                }
            });
        if let Err(error) = spawned {
            tracing::warn!("cannot start a thread for a control connection: {error}");
        }
    }
}

/// A connection that is counted until it ends, however it does.
struct Slot(Arc<AtomicUsize>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

fn answer(
    mut stream: UnixStream,
    daemons: &dyn Controlled,
    slot: Slot,
    streams: &Arc<AtomicUsize>,
) -> io::Result<()> {
    let line = read_line(&stream, PATIENCE, REQUEST_BYTES_MAX)?;
    let error = |text: String| Reply {
        version: STATUS_VERSION,
        error: Some(text),
        ..Reply::default()
    };
    let reply = match serde_json::from_slice::<Request>(&line) {
        Ok(request) if request.version != STATUS_VERSION => error(format!(
            "this daemon speaks version {STATUS_VERSION} only (use the same driftless for both)"
        )),
        Ok(request) if request.command == "status" => Reply {
            version: STATUS_VERSION,
            daemons: Some(daemons.status()),
            ..Reply::default()
        },
        Ok(request) if matches!(request.command.as_str(), "wait" | "events" | "verify") => {
            let stays = Slot(streams.clone());
            drop(slot);
            if streams.fetch_add(1, Ordering::AcqRel) < STREAMS_MAX {
                let served = match request.command.as_str() {
                    "wait" => wait::serve(stream, daemons, &request),
                    "verify" => verify::serve(stream, daemons, &request),
                    _ => listen::serve(stream, &request),
                };
                drop(stays);
                return served;
            }
            error("too many clients wait or listen already; end some, or try again later".to_owned())
        }
        Ok(Request {
            command,
            mirror: Some(mirror),
            deletions: Some(deletions),
            ..
        }) if command == "approve" => match daemons.approve(&mirror, deletions) {
            Some(Ok(approved)) => Reply {
                version: STATUS_VERSION,
                approved: Some(approved),
                ..Reply::default()
            },
            Some(Err(text)) => error(text),
            None => Reply {
                unknown_mirror: true,
                ..error(format!("there is no mirror {mirror:?} here"))
            },
        },
        Ok(request) if request.command == ForgetModule::COMMAND => {
            let outcome = ForgetModule::parse(&request).and_then(|wanted| daemons.forget_module(&wanted));
            match outcome {
                Some(Ok(cleared)) => Reply {
                    version: STATUS_VERSION,
                    cleared: Some(cleared),
                    ..Reply::default()
                },
                Some(Err(text)) => error(text),
                None => Reply {
                    unknown_mirror: true,
                    ..error("there is no such module here".to_owned())
                },
            }
        }
        Ok(request) => match (
            Ask::parse(&request),
            Order::parse(&request.command, request.mirror.as_deref()),
        ) {
            (Some(question), _) => match ask::answer_all(daemons, &request, &question) {
                Ok(answers) => Reply {
                    version: STATUS_VERSION,
                    answers: Some(answers),
                    ..Reply::default()
                },
                Err(text) => error(text),
            },
            (None, Some(order)) => obeyed(daemons.obey(&order)),
            (None, None) => error(format!("there is no command {:?}", request.command)),
        },
        Err(cause) => error(format!("not a request: {cause}")),
    };
    let mut text = serde_json::to_vec(&reply).map_err(io::Error::other)?;
    text.push(b'\n');
    write_all(&mut stream, &text, PATIENCE)
}

fn obeyed(outcome: Obeyed) -> Reply {
    let mut reply = Reply {
        version: STATUS_VERSION,
        ..Reply::default()
    };
    match outcome {
        Obeyed::Done(text) => reply.done = Some(text),
        Obeyed::Failed(text) => reply.error = Some(text),
        Obeyed::Misconfigured(text) => (reply.error, reply.misconfigured) = (Some(text), true),
        Obeyed::Unknown => {
            reply.error = Some("this process takes no such order".to_owned());
            reply.unknown_mirror = true;
        }
    }
    reply
}

/// Reads up to a line end. The time is for all of it, so that a byte now and then does not extend it.
fn read_line(stream: &UnixStream, patience: Duration, limit: u64) -> io::Result<Vec<u8>> {
    let mut reader = BufReader::new(
        Timed {
            stream,
            until: Instant::now() + patience,
        }
        .take(limit),
    );
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line)?;
    if line.pop() == Some(b'\n') {
        Ok(line)
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

fn write_all(stream: &mut UnixStream, mut bytes: &[u8], patience: Duration) -> io::Result<()> {
    let until = Instant::now() + patience;
    while !bytes.is_empty() {
        stream.set_write_timeout(Some(remaining(until)?))?;
        match stream.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads until a moment.
struct Timed<'a> {
    stream: &'a UnixStream,
    until: Instant,
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(remaining(self.until)?))?;
        self.stream.read(buffer)
    }
}

fn remaining(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        Err(io::ErrorKind::TimedOut.into())
    } else {
        Ok(left)
    }
}

/// What the processes of a home said.
#[derive(Debug, Default)]
pub struct Answers {
    /// How many processes answered. One may have no mirror and no module.
    pub processes: usize,
    /// Their daemons.
    pub daemons: Vec<DaemonStatus>,
    /// Processes that live but did not answer, a line each.
    pub problems: Vec<String>,
}

/// Asks every live process of a home for its status. Sockets of dead ones are removed.
pub fn ask_all(home: &Home) -> Result<Answers, ControlError> {
    let mut answers = Answers::default();
    let request = Request {
        version: STATUS_VERSION,
        command: "status".to_owned(),
        ..Request::default()
    };
    for (pid, path) in sockets(home)? {
        let problem = match ask(&path, &request) {
            Ok(Some(Reply {
                daemons: Some(daemons),
                ..
            })) => {
                answers.processes += 1;
                answers.daemons.extend(daemons);
                continue;
            }
            Ok(None) => {
                forget_dead(pid, &path);
                continue;
            }
            Ok(Some(reply)) => reply.error.unwrap_or_else(|| "an empty answer".to_owned()),
            Err(error) => error.to_string(),
        };
        answers
            .problems
            .push(format!("the driftless process {pid} does not answer: {problem}"));
    }
    Ok(answers)
}

/// Approves deletions of a mirror of this home. The inner error is for people.
pub fn approve(home: &Home, mirror: &str, deletions: u64) -> Result<Result<u64, String>, ControlError> {
    let request = Request {
        version: STATUS_VERSION,
        command: "approve".to_owned(),
        mirror: Some(mirror.to_owned()),
        deletions: Some(deletions),
        ..Request::default()
    };
    let mut refusal = None;
    for (pid, path) in sockets(home)? {
        match ask(&path, &request) {
            Ok(Some(Reply {
                approved: Some(approved),
                ..
            })) => return Ok(Ok(approved)),
            Ok(Some(reply)) if !reply.unknown_mirror => {
                refusal = Some(reply.error.unwrap_or_else(|| "an empty answer".to_owned()));
            }
            Ok(Some(_)) => {}
            Ok(None) => forget_dead(pid, &path),
            Err(error) => refusal = Some(format!("the driftless process {pid} does not answer: {error}")),
        }
    }
    Ok(Err(refusal.unwrap_or_else(|| {
        format!("no running sender of this home has the source or target {mirror:?}; `driftless status` lists them")
    })))
}

/// Gives an order to the daemons of a home: one for a mirror to the one that has it, others to each. Gives what was done
/// and what was not, in the order of the processes; without any answer, no daemon of this home is running.
pub fn order(home: &Home, order: &Order) -> Result<Vec<Obeyed>, ControlError> {
    let request = Request {
        version: STATUS_VERSION,
        command: order.name().to_owned(),
        mirror: order.mirror().map(str::to_owned),
        ..Request::default()
    };
    let mut outcomes = Vec::new();
    for (pid, path) in sockets(home)? {
        // Others would say that they take no orders.
        let takes = |role: &[u8]| {
            path.file_name()
                .is_some_and(|name| name.as_bytes().starts_with(role))
        };
        let is_taken = takes(b"daemon-") || (matches!(order, Order::Fence(_)) && takes(b"receiver-"));
        if !is_taken {
            continue;
        }
        let outcome = match ask_for(&path, &request, ORDER_PATIENCE) {
            Ok(Some(Reply { done: Some(text), .. })) => Obeyed::Done(text),
            Ok(Some(reply)) if reply.unknown_mirror => Obeyed::Unknown,
            Ok(Some(reply)) => {
                let text = reply.error.unwrap_or_else(|| "an empty answer".to_owned());
                if reply.misconfigured {
                    Obeyed::Misconfigured(text)
                } else {
                    Obeyed::Failed(text)
                }
            }
            Ok(None) => {
                forget_dead(pid, &path);
                continue;
            }
            Err(error) => Obeyed::Failed(format!("the driftless process {pid} does not answer: {error}")),
        };
        outcomes.push(outcome);
    }
    Ok(outcomes)
}

fn forget_dead(pid: i32, path: &Path) {
    if !is_alive(pid) {
        let _ = fs::remove_file(path);
    }
}

/// The control sockets of a home, with the numbers of the processes that made them.
fn sockets(home: &Home) -> Result<Vec<(i32, PathBuf)>, ControlError> {
    let mut paths = Vec::new();
    for dir in home.run_dirs() {
        let failed = |cause| ControlError {
            action: "list the control sockets in",
            path: dir.clone(),
            cause,
        };
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                continue;
            }
            Err(error) => return Err(failed(error)),
        };
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            if let Some(pid) = process_of(&path) {
                paths.push((pid, path));
            }
        }
    }
    paths.sort_unstable();
    Ok(paths)
}

/// What the process behind a socket answers; nothing if nobody listens.
fn ask(path: &Path, request: &Request) -> io::Result<Option<Reply>> {
    ask_for(path, request, CLIENT_PATIENCE)
}

fn ask_for(path: &Path, request: &Request, patience: Duration) -> io::Result<Option<Reply>> {
    let Some(mut stream) = connect(path)? else {
        return Ok(None);
    };
    let mut text = serde_json::to_vec(request).map_err(io::Error::other)?;
    text.push(b'\n');
    write_all(&mut stream, &text, CLIENT_PATIENCE)?;
    let line = read_line(&stream, patience, REPLY_BYTES_MAX)?;
    serde_json::from_slice(&line).map(Some).map_err(io::Error::other)
}

/// A connection to a process; nothing if nobody listens.
fn connect(path: &Path) -> io::Result<Option<UnixStream>> {
    match short(path, |short| UnixStream::connect(short)) {
        Ok(stream) => Ok(Some(stream)),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Reads a line of a stream that stays open, whenever it comes. Nothing at its end.
fn read_line_of<T: serde::de::DeserializeOwned>(reader: &mut impl BufRead) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    reader.take(REPLY_BYTES_MAX).read_until(b'\n', &mut line)?;
    if line.pop() != Some(b'\n') {
        return Ok(None);
    }
    serde_json::from_slice(&line).map(Some).map_err(io::Error::other)
}

/// Whether the other end of a connection, which has said all that it has to say, was closed.
fn is_gone(stream: &UnixStream) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut waiting = [PollFd::new(stream, PollFlags::RDHUP)];
    let polled = poll(&mut waiting, Some(&Timespec::default()));
    polled.is_err() || !waiting[0].revents().is_empty()
}

/// The process number in the name of a socket.
fn process_of(path: &Path) -> Option<i32> {
    let stem = path.file_name()?.to_str()?.strip_suffix(".sock")?;
    let (_, pid) = stem.rsplit_once('-')?;
    pid.parse().ok().filter(|pid| *pid > 0)
}

fn is_alive(pid: i32) -> bool {
    let Some(pid) = rustix::process::Pid::from_raw(pid) else {
        return false;
    };
    rustix::process::test_kill_process(pid) != Err(Errno::SRCH)
}

/// Uses a path as a socket address, also one that is too long for one: then by way of its open directory.
fn short<T>(path: &Path, operation: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    match (path.parent(), path.file_name()) {
        (Some(dir), Some(name)) if path.as_os_str().as_bytes().len() > SOCKET_PATH_BYTES_MAX => {
            let dir = File::open(dir)?;
            operation(
                &Path::new("/proc/self/fd")
                    .join(dir.as_raw_fd().to_string())
                    .join(name),
            )
        }
        _ => operation(path),
    }
}

#[cfg(test)]
mod tests;
