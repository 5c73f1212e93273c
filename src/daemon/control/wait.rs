//! Waiting until a point in time is on the targets.
//!
//! `{"version":1,"command":"wait","level":"durable","path":"<hex>"}` is answered by several lines: first
//! `{"version":1,"waiting":[...]}`, the mirrors and targets that are meant; then, for each of them as it comes,
//! `{"version":1,"reached":{"source":...,"target":...,"failed":0}}` or `{"version":1,"refused":{...,"error":"..."}}`. The connection
//! ends after the last. A client that has heard enough ends it earlier, and nothing of the wish is left.

use super::ask::{Which, meant, to_hex};
use super::{
    CLIENT_PATIENCE, ControlError, Controlled, PATIENCE, Reply, Request, connect, forget_dead, is_gone,
    read_line_of, sockets, write_all,
};
use crate::daemon::barrier::{BarrierEnd, BarrierRequest, Level, Request as Wish};
use crate::daemon::home::Home;
use crate::daemon::status::{STATUS_VERSION, StatusBoard, TargetLabel};
use crossbeam_channel::{Receiver, RecvTimeoutError, Select, Sender, TryRecvError, bounded, unbounded};
use driftless_protocol::RelPath;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::io::{self, BufReader};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often a connection looks whether the client is still there, and whether a sender that ended runs again.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Targets at which a point in time has to arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enough {
    /// All targets of each mirror.
    All,
    /// One target of each mirror.
    Any,
    /// So many targets of each mirror.
    Number(usize),
}

/// What to wait for.
#[derive(Debug, Clone)]
pub struct WaitOptions {
    /// Which mirrors, and which part of them: everything below the path.
    pub which: Which,
    /// What has to be true of it on a target.
    pub level: Level,
    /// At how many targets.
    pub targets: Enough,
    /// How long to wait.
    pub timeout: Duration,
}

/// How it stands with one target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum WaitState {
    /// Everything is there but for entries in error.
    Reached {
        /// How many of these there are.
        failed: u64,
    },
    /// Not yet.
    Late,
    /// It never will be, and why.
    Refused {
        /// In words.
        error: String,
    },
}

/// How a wait ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waited {
    /// Each target that was meant.
    pub targets: BTreeMap<TargetLabel, WaitState>,
    /// Whether enough targets of every mirror were reached in time.
    pub is_enough: bool,
}

impl Waited {
    /// Entries in error on the targets that were reached.
    pub fn failed(&self) -> u64 {
        let failed = |state: &WaitState| match state {
            WaitState::Reached { failed } => *failed,
            _ => 0,
        };
        self.targets.values().map(failed).sum()
    }

    /// Why a target that was asked will never have it, if that is so.
    pub fn refusal(&self) -> Option<&str> {
        self.targets.values().find_map(|state| match state {
            WaitState::Refused { error } => Some(error.as_str()),
            _ => None,
        })
    }
}

/// One target in a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Told {
    #[serde(flatten)]
    of: TargetLabel,
    #[serde(default)]
    failed: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Waits until everything that was done in the meant trees before this call is on enough of their targets, or until the time is
/// over. With no target at all nobody mirrors what was named.
///
/// It holds for what the kernel tells of: what was written, closed, renamed, removed or given other attributes by a call that
/// returned before this one. Stores through a memory mapping count when the file is closed or its times have moved, and
/// what other machines change on a network file system when its directories have been listed, which this asks for.
/// A daemon that is started again meanwhile is asked again.
pub fn wait(home: &Home, options: &WaitOptions) -> Result<Waited, ControlError> {
    let until = Instant::now() + options.timeout;
    for path in options.which.candidates() {
        let mut watch = Watch::new(home, options, path);
        watch.ask_everybody(until)?;
        if !watch.targets.is_empty() {
            return watch.run(until);
        }
    }
    Ok(Waited {
        targets: BTreeMap::new(),
        is_enough: false,
    })
}

/// What a connection to a process says.
enum Heard {
    Line(PathBuf, Box<Reply>),
    Ended(PathBuf),
}

/// A wait in progress.
struct Watch<'a> {
    home: &'a Home,
    options: &'a WaitOptions,
    path: Option<PathBuf>,
    targets: BTreeMap<TargetLabel, WaitState>,
    /// Processes with which a connection is open.
    open: HashSet<PathBuf>,
    streams: Vec<UnixStream>,
    heard: (Sender<Heard>, Receiver<Heard>),
}

impl<'a> Watch<'a> {
    fn new(home: &'a Home, options: &'a WaitOptions, path: Option<PathBuf>) -> Watch<'a> {
        Watch {
            home,
            options,
            path,
            targets: BTreeMap::new(),
            open: HashSet::new(),
            streams: Vec::new(),
            heard: unbounded(),
        }
    }

    /// Asks all processes with which there is no connection, and waits for the first answer of each.
    fn ask_everybody(&mut self, until: Instant) -> Result<(), ControlError> {
        let mut unanswered = HashSet::new();
        for (pid, socket) in sockets(self.home)? {
            if self.open.contains(&socket) {
                continue;
            }
            match self.ask(&socket) {
                Ok(true) => _ = unanswered.insert(socket),
                Ok(false) => forget_dead(pid, &socket),
                Err(error) => tracing::debug!("the driftless process {pid} does not answer: {error}"),
            }
        }
        let patience = until.min(Instant::now() + CLIENT_PATIENCE);
        while !unanswered.is_empty() {
            let left = patience.saturating_duration_since(Instant::now());
            let Ok(heard) = self.heard.1.recv_timeout(left) else {
                break;
            };
            let (Heard::Line(socket, _) | Heard::Ended(socket)) = &heard;
            unanswered.remove(socket);
            self.handle(heard);
        }
        Ok(())
    }

    /// False if nobody listens.
    fn ask(&mut self, socket: &Path) -> io::Result<bool> {
        let Some(mut stream) = connect(socket)? else {
            return Ok(false);
        };
        let request = Request {
            version: STATUS_VERSION,
            command: "wait".to_owned(),
            mirror: self.options.which.mirror.clone(),
            path: self.path.as_deref().map(to_hex),
            level: Some(self.options.level),
            ..Request::default()
        };
        let mut text = serde_json::to_vec(&request).map_err(io::Error::other)?;
        text.push(b'\n');
        write_all(&mut stream, &text, CLIENT_PATIENCE)?;
        let (reading, socket, heard) = (stream.try_clone()?, socket.to_owned(), self.heard.0.clone());
        reading.set_read_timeout(None)?;
        self.open.insert(socket.clone());
        self.streams.push(stream);
        std::thread::Builder::new()
            .name("wait".to_owned())
            .spawn(move || {
                let mut reader = BufReader::new(reading);
                while let Ok(Some(reply)) = read_line_of::<Reply>(&mut reader) {
                    if heard.send(Heard::Line(socket.clone(), Box::new(reply))).is_err() {
                        return;
                    }
                }
                let _ = heard.send(Heard::Ended(socket));
            })?;
        Ok(true)
    }

    fn run(mut self, until: Instant) -> Result<Waited, ControlError> {
        let mut look = Instant::now() + LOOK_EVERY;
        while !self.is_enough() && self.could_be_enough() {
            let now = Instant::now();
            if now >= until {
                break;
            }
            if now >= look {
                look = now + LOOK_EVERY;
                if self.is_orphaned() {
                    self.ask_everybody(until)?;
                    continue;
                }
            }
            match self
                .heard
                .1
                .recv_timeout(until.min(look).saturating_duration_since(now))
            {
                Ok(heard) => self.handle(heard),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
        }
        let is_enough = self.is_enough();
        for stream in &self.streams {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        Ok(Waited {
            is_enough,
            targets: std::mem::take(&mut self.targets),
        })
    }

    fn handle(&mut self, heard: Heard) {
        let reply = match heard {
            Heard::Line(_, reply) => reply,
            Heard::Ended(socket) => {
                self.open.remove(&socket);
                return;
            }
        };
        for label in reply.waiting.unwrap_or_default() {
            self.targets.entry(label).or_insert(WaitState::Late);
        }
        if let Some(Told { of, failed, .. }) = reply.reached {
            self.targets.insert(of, WaitState::Reached { failed });
        }
        if let Some(Told { of, error, .. }) = reply.refused {
            let error = error.unwrap_or_default();
            self.targets.insert(of, WaitState::Refused { error });
        }
    }

    /// Whether there is something to wait for that nobody works on: its process ended.
    fn is_orphaned(&self) -> bool {
        self.open.is_empty() && self.targets.values().any(|state| *state == WaitState::Late)
    }

    /// How many targets of each mirror there are, are reached, and can still be.
    fn mirrors(&self) -> BTreeMap<&str, (usize, usize, usize)> {
        let mut mirrors = BTreeMap::<&str, (usize, usize, usize)>::new();
        for (label, state) in &self.targets {
            let counts = mirrors
                .entry(label.mirror.as_ref().unwrap_or(&label.source))
                .or_default();
            counts.0 += 1;
            counts.1 += usize::from(matches!(state, WaitState::Reached { .. }));
            counts.2 += usize::from(!matches!(state, WaitState::Refused { .. }));
        }
        mirrors
    }

    fn needed(&self, all: usize) -> usize {
        match self.options.targets {
            Enough::All => all,
            Enough::Any => 1,
            Enough::Number(number) => number,
        }
    }

    fn is_enough(&self) -> bool {
        let mut mirrors = self.mirrors().into_values();
        mirrors.all(|(all, reached, _)| reached >= self.needed(all))
    }

    fn could_be_enough(&self) -> bool {
        let mut mirrors = self.mirrors().into_values();
        mirrors.all(|(all, _, possible)| possible >= self.needed(all))
    }
}

/// One target for which a connection waits.
struct Waiting {
    board: Arc<StatusBoard>,
    below: RelPath,
    /// For as long as it lives, the sender knows that somebody waits.
    _asker: Arc<()>,
    end: Receiver<BarrierEnd>,
}

impl Waiting {
    /// Asks the sender. If it cannot be asked now, the channel is disconnected, and it is asked again later.
    fn ask(board: Arc<StatusBoard>, below: RelPath, level: Level) -> Waiting {
        let asker = Arc::new(());
        let (answer, end) = bounded(1);
        board.request(Wish::Barrier(BarrierRequest::new(
            below.clone(),
            level,
            answer,
            &asker,
        )));
        Waiting {
            board,
            below,
            _asker: asker,
            end,
        }
    }
}

/// Serves one connection of a client that waits.
pub(super) fn serve(mut stream: UnixStream, daemons: &dyn Controlled, request: &Request) -> io::Result<()> {
    let level = request.level.unwrap_or(Level::Durable);
    let say = |reply: Reply, stream: &mut UnixStream| {
        let mut text = serde_json::to_vec(&Reply {
            version: STATUS_VERSION,
            ..reply
        })
        .map_err(io::Error::other)?;
        text.push(b'\n');
        write_all(stream, &text, PATIENCE)
    };
    let meant = match meant(daemons, request) {
        Ok(meant) => meant,
        Err(text) => {
            let error = Some(text);
            return say(
                Reply {
                    error,
                    ..Reply::default()
                },
                &mut stream,
            );
        }
    };
    let mut waiting: Vec<_> = meant
        .into_iter()
        .map(|(board, below)| Waiting::ask(board, below, level))
        .collect();
    let labels = waiting.iter().map(|waiting| waiting.board.label()).collect();
    let first = Reply {
        waiting: Some(labels),
        ..Reply::default()
    };
    say(first, &mut stream)?;
    while !waiting.is_empty() && !is_gone(&stream) {
        let at = {
            let mut select = Select::new();
            for waiting in &waiting {
                select.recv(&waiting.end);
            }
            select.ready_timeout(LOOK_EVERY).ok()
        };
        let Some(at) = at else { continue };
        let of = waiting[at].board.label();
        let told = |failed, error| Some(Told { of, failed, error });
        match waiting[at].end.try_recv() {
            Ok(BarrierEnd::Reached { failed }) => {
                let reached = told(failed, None);
                say(
                    Reply {
                        reached,
                        ..Reply::default()
                    },
                    &mut stream,
                )?;
                waiting.remove(at);
            }
            Ok(BarrierEnd::Refused(error)) => {
                let refused = told(0, Some(error));
                say(
                    Reply {
                        refused,
                        ..Reply::default()
                    },
                    &mut stream,
                )?;
                waiting.remove(at);
            }
            Err(TryRecvError::Empty) => {}
            // Its sender ended, and may be started again. A later point in time holds for an earlier one, too.
            Err(TryRecvError::Disconnected) => {
                std::thread::sleep(LOOK_EVERY);
                let Waiting { board, below, .. } = waiting.remove(at);
                waiting.push(Waiting::ask(board, below, level));
            }
        }
    }
    Ok(())
}
