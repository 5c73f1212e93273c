//! Verifying through the process that mirrors: with the rules of the mirror, by a connection beside its own, while it goes on.
//!
//! `{"version":1,"command":"verify","verify":{...}}`, with `"mirror"` (a name, a source or a target) and `"path"` (the source, in hexadecimal)
//! to say which, is answered by a line with their number and one for each target that is meant, as it is done. It ends when the client is gone; the next one goes on from there.

use super::ask::{from_hex, to_hex};
use super::{
    CLIENT_PATIENCE, ControlError, Controlled, Request, connect, forget_dead, is_gone, read_line_of, sockets,
    write_all,
};
use crate::daemon::barrier::{BarrierRequest, Level, Request as Wish};
use crate::daemon::home::Home;
use crate::daemon::status::{STATUS_VERSION, StatusBoard, TargetLabel};
use crate::daemon::verify::{self, How, VerifyReport};
use crate::daemon::{DaemonError, Silent, Stop};
use crossbeam_channel::{RecvTimeoutError, bounded};
use driftless_protocol::RelPath;
use serde::{Deserialize, Serialize};
use std::io::{self, BufReader};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a mirror may be without a connection before nothing counts as being on its way.
const ALONE: Duration = Duration::from_secs(5);
/// How often somebody looks whether the client is still there, or the sender is stuck.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How to verify, as it is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyWish {
    /// How fast each end may read, as `--bwlimit` takes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<String>,
    /// Whether what differs is to be mended.
    #[serde(default)]
    pub repair: bool,
    /// Whether to begin anew.
    #[serde(default)]
    pub restart: bool,
}

/// What became of one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Which.
    pub of: TargetLabel,
    /// What was found, or why nothing.
    pub outcome: Result<VerifyReport, String>,
    /// How long it took.
    pub time: Duration,
}

/// A line of the answer.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Line {
    version: u32,
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    of: Option<TargetLabel>,
    /// How many targets are meant; the first line has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    targets: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    report: Option<VerifyReport>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    milliseconds: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Has the running senders of a home verify what they mirror: those of `mirror` (a name, a source or a target) whose source is
/// `source`, if one is given. Nobody is in the answer if no running process has such a mirror. Ends early when `stop` is requested.
pub fn verify(
    home: &Home,
    mirror: &str,
    source: Option<&Path>,
    wish: &VerifyWish,
    stop: &Stop,
) -> Result<Vec<Verified>, ControlError> {
    let request = Request {
        version: STATUS_VERSION,
        command: "verify".to_owned(),
        mirror: Some(mirror.to_owned()),
        path: source.map(to_hex),
        verify: Some(wish.clone()),
        ..Request::default()
    };
    let mut verified = Vec::new();
    for (pid, socket) in sockets(home)? {
        match ask(&socket, &request, stop, &mut verified) {
            Ok(true) => {}
            Ok(false) => forget_dead(pid, &socket),
            Err(error) => tracing::warn!("the driftless process {pid} does not answer: {error}"),
        }
    }
    Ok(verified)
}

/// Asks one process; false if nobody listens on its socket.
fn ask(socket: &Path, request: &Request, stop: &Stop, verified: &mut Vec<Verified>) -> io::Result<bool> {
    let Some(mut stream) = connect(socket)? else {
        return Ok(false);
    };
    let mut text = serde_json::to_vec(request).map_err(io::Error::other)?;
    text.push(b'\n');
    write_all(&mut stream, &text, CLIENT_PATIENCE)?;
    stream.set_read_timeout(None)?;
    let (lines, read) = bounded(16);
    let reading = stream.try_clone()?;
    std::thread::Builder::new()
        .name("verify".to_owned())
        .spawn(move || {
            let mut reader = BufReader::new(reading);
            while let Ok(Some(line)) = read_line_of::<Line>(&mut reader) {
                if lines.send(line).is_err() {
                    return;
                }
            }
        })?;
    let mut is_stopping = false;
    loop {
        if stop.is_requested() && !std::mem::replace(&mut is_stopping, true) {
            // It sees that nothing more is said, and answers with what it has.
            stream.shutdown(std::net::Shutdown::Write)?;
        }
        let line = match read.recv_timeout(LOOK_EVERY) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return Ok(true),
        };
        let Some(of) = line.of else { continue };
        let outcome = match (line.report, line.error) {
            (Some(report), _) => Ok(report),
            (None, Some(error)) => Err(error),
            (None, None) => continue,
        };
        let time = Duration::from_millis(line.milliseconds.unwrap_or(0));
        verified.push(Verified { of, outcome, time });
    }
}

/// Serves one connection.
pub(super) fn serve(mut stream: UnixStream, daemons: &dyn Controlled, request: &Request) -> io::Result<()> {
    let wish = request.verify.clone().unwrap_or_default();
    let source = request.path.as_deref().map(from_hex).transpose();
    let source = source.map_err(io::Error::other)?;
    let mut boards = daemons.boards();
    boards.retain(|board| {
        let is_of_source = |source: &Path| board.relative(source).is_some_and(|below| below.is_root());
        request
            .mirror
            .as_ref()
            .is_none_or(|mirror| board.is_named(mirror))
            && source.as_deref().is_none_or(is_of_source)
    });
    write_line(
        &mut stream,
        &Line {
            targets: Some(boards.len()),
            ..Line::default()
        },
    )?;
    for board in boards {
        let began = Instant::now();
        let outcome = run_watched(&stream, &board, &wish);
        let is_cut_off = outcome.as_ref().is_ok_and(|report| report.cut_off);
        let (report, error) = match outcome {
            Ok(report) => (Some(report), None),
            Err(error) => (None, Some(error.to_string())),
        };
        let line = Line {
            of: Some(board.label()),
            report,
            error,
            milliseconds: u64::try_from(began.elapsed().as_millis()).ok(),
            ..Line::default()
        };
        write_line(&mut stream, &line)?;
        if is_cut_off {
            return Ok(());
        }
    }
    Ok(())
}

fn write_line(stream: &mut UnixStream, line: &Line) -> io::Result<()> {
    let line = Line {
        version: STATUS_VERSION,
        of: line.of.clone(),
        targets: line.targets,
        report: line.report.clone(),
        milliseconds: line.milliseconds,
        error: line.error.clone(),
    };
    let mut text = serde_json::to_vec(&line).map_err(io::Error::other)?;
    text.push(b'\n');
    write_all(stream, &text, CLIENT_PATIENCE)
}

/// Verifies on a thread of its own, and stops that when the client has gone or has said that it wants no more.
fn run_watched(
    stream: &UnixStream,
    board: &StatusBoard,
    wish: &VerifyWish,
) -> Result<VerifyReport, DaemonError> {
    let stop = Stop::default();
    std::thread::scope(|scope| {
        let running = scope.spawn(|| run(board, wish, &stop));
        while !running.is_finished() {
            std::thread::sleep(LOOK_EVERY);
            if is_gone(stream) {
                stop.request();
            }
        }
        running.join().unwrap_or_else(|_| {
            Err(DaemonError::failed(
                "its thread failed (this is a defect, please report it)",
            ))
        })
    })
}

fn run(board: &StatusBoard, wish: &VerifyWish, stop: &Stop) -> Result<VerifyReport, DaemonError> {
    let Some((options, runtime)) = board.sender() else {
        return Err(DaemonError::failed(
            "its sender does not run (`driftless status` says why)",
        ));
    };
    let rate = wish.rate.as_deref().map(str::parse).transpose();
    let rate = rate.map_err(|error: crate::net::ScheduleError| DaemonError::Usage(error.to_string()))?;
    let settled = || settle(board, stop).map(|_| ());
    let repair = || match settle(board, stop)? {
        true => Ok(()),
        false => {
            let reason = board.status().reason.unwrap_or_default();
            Err(DaemonError::failed(format!(
                "nothing is mended while the mirror has no connection to its target ({reason})"
            )))
        }
    };
    let how = How {
        rate,
        restart: wish.restart,
        progress: verify::progress_file(&options),
        settle: Some(&settled),
        repair: if wish.repair { Some(&repair) } else { None },
        stop,
    };
    verify::run(&options, &how, &runtime, &Silent)
}

/// Waits until what changed up to now is on the target, durably: times of directories are set last. False if the mirror waits
/// to be let in, or for an answer for longer than [`ALONE`]: then nothing is on its way, and what differs does.
fn settle(board: &StatusBoard, stop: &Stop) -> Result<bool, DaemonError> {
    let mut last_connected = Instant::now();
    let asker = Arc::new(());
    let (answer, told) = bounded(1);
    let request = BarrierRequest::new(RelPath::root(), Level::Durable, answer, &asker);
    if !board.request(Wish::Barrier(request)) {
        return Err(DaemonError::failed(
            "too many questions wait for its sender already",
        ));
    }
    loop {
        match told.recv_timeout(LOOK_EVERY) {
            Ok(_) | Err(RecvTimeoutError::Disconnected) => return Ok(true),
            Err(RecvTimeoutError::Timeout) if stop.is_requested() => return Ok(true),
            Err(RecvTimeoutError::Timeout) => {}
        }
        let status = board.status();
        match status.phase.as_str() {
            "waiting" => return Ok(false),
            "connecting" if last_connected.elapsed() > ALONE => return Ok(false),
            "connecting" => {}
            _ => last_connected = Instant::now(),
        }
        if matches!(
            status.phase.as_str(),
            "held" | "paused" | "halted" | "ended" | "stopped"
        ) {
            let reason = status
                .reason
                .map_or_else(String::new, |reason| format!(" ({reason})"));
            return Err(DaemonError::failed(format!(
                "what differs cannot be told from what is on its way while the mirror is {}{reason}",
                status.phase
            )));
        }
    }
}
