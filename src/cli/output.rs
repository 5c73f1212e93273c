//! The only place that writes to standard output and standard error.
//!
//! A reader that went away (`driftless status | head -1`) is no error, and never a panic: what would follow is dropped.
//! Other failures to write, such as a full disk, are remembered and end the command with status 1.

use super::text;
use crate::daemon::status::StatusBoard;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Lines that wait to be written before they are dropped. A sender must not wait for a terminal that is on hold.
const LINES_WAITING_MAX: usize = 4096;

/// How often the progress bar moves.
const TICK: Duration = Duration::from_millis(100);

/// What one change counts for in the bar, as if it were bytes: a round through both file systems.
const WORK_PER_OP: u64 = 16 << 10;

/// Nobody reads standard output any more.
static IS_CLOSED: AtomicBool = AtomicBool::new(false);

/// A picture is on the terminal, which no line of the log may run through.
static IS_MUTED: AtomicBool = AtomicBool::new(false);

static FAILURE: Mutex<Option<io::Error>> = Mutex::new(None);

/// Writes a line of data.
pub(super) fn line(text: &str) {
    let mut out = io::stdout().lock();
    let written = out
        .write_all(text.as_bytes())
        .and_then(|()| out.write_all(b"\n"))
        .and_then(|()| out.flush());
    note_failure(written);
}

/// Writes a text as it is.
pub(super) fn raw(text: &str) {
    let mut out = io::stdout().lock();
    note_failure(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}

/// Writes a value as one line of JSON.
pub(super) fn json(value: &impl Serialize) {
    match serde_json::to_string(value) {
        Ok(text) => line(&text),
        Err(error) => note_failure(Err(io::Error::other(error))),
    }
}

/// Writes a line for the person at the terminal. There is nowhere to report that this failed.
pub(super) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "driftless: {text}");
}

/// Writes a text for the person at the terminal as it is.
pub(super) fn plain_note(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Whether nobody reads standard output any more, as far as a write has found out.
pub(super) fn is_closed() -> bool {
    IS_CLOSED.load(Ordering::Relaxed)
}

/// Keeps the log off the terminal, or lets it back.
pub(super) fn mute(is_muted: bool) {
    IS_MUTED.store(is_muted, Ordering::Relaxed);
}

/// Whether the log has to be silent.
pub(super) fn is_muted() -> bool {
    IS_MUTED.load(Ordering::Relaxed)
}

/// What went wrong with standard output, other than that nobody reads it any more.
pub(super) fn failure() -> Option<io::Error> {
    FAILURE.lock().unwrap_or_else(PoisonError::into_inner).take()
}

fn note_failure(written: io::Result<()>) {
    let Err(error) = written else { return };
    if error.kind() == io::ErrorKind::BrokenPipe {
        IS_CLOSED.store(true, Ordering::Relaxed);
    } else {
        FAILURE
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(error);
    }
}

enum Line {
    Out(String),
    Err(String),
}

impl Line {
    fn write(&self) {
        match self {
            Line::Out(text) => line(text),
            Line::Err(text) => note(text),
        }
    }
}

/// Writes lines on a thread of its own, and draws a progress bar if there is one. Dropping it writes what still waits.
pub(super) struct Printer {
    lines: Option<Sender<Line>>,
    dropped: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Printer {
    /// A printer, with a bar that follows a sender if a board is given.
    pub(super) fn start(bar: Option<Arc<StatusBoard>>) -> Printer {
        let (sender, receiver) = bounded(LINES_WAITING_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let spawned = std::thread::Builder::new().name("printer".to_owned()).spawn({
            let dropped = dropped.clone();
            move || print(&receiver, &dropped, bar.map(Bar::new))
        });
        Printer {
            lines: Some(sender),
            dropped,
            thread: spawned.ok(),
        }
    }

    /// A line of data.
    pub(super) fn line(&self, text: String) {
        self.send(Line::Out(text));
    }

    /// A line for the person at the terminal.
    pub(super) fn note(&self, text: String) {
        self.send(Line::Err(text));
    }

    fn send(&self, line: Line) {
        if let Some(lines) = &self.lines
            && let Err(TrySendError::Full(_)) = lines.try_send(line)
        {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Printer {
    fn drop(&mut self) {
        self.lines = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn print(lines: &Receiver<Line>, dropped: &AtomicU64, mut bar: Option<Bar>) {
    loop {
        let line_or_tick = match &bar {
            Some(_) => lines.recv_timeout(TICK),
            None => lines.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        let (waiting, is_over) = match line_or_tick {
            Ok(line) => (Some(line), false),
            Err(error) => (None, error == RecvTimeoutError::Disconnected),
        };
        match (&mut bar, waiting) {
            (Some(bar), Some(line)) => bar.bar.suspend(|| line.write()),
            (Some(bar), None) => bar.tick(),
            (None, Some(line)) => line.write(),
            (None, None) => {}
        }
        let dropped = dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            note(&format!(
                "{} not shown: the output is too slow",
                text::count(dropped, "line", "lines")
            ));
        }
        if is_over {
            if let Some(bar) = bar {
                bar.bar.finish_and_clear();
            }
            return;
        }
    }
}

/// Progress of a sender on standard error.
struct Bar {
    bar: ProgressBar,
    board: Arc<StatusBoard>,
    /// When and at how many bytes the rate was measured last, and what it was.
    rate: (Instant, u64, f64),
}

impl Bar {
    fn new(board: Arc<StatusBoard>) -> Bar {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
        Bar {
            bar,
            board,
            rate: (Instant::now(), 0, 0.0),
        }
    }

    fn tick(&mut self) {
        let status = self.board.status();
        let counter = |name: &str| status.counters.get(name).copied().unwrap_or_default();
        let (sent, total) = (counter("content_bytes"), counter("content_bytes_total"));
        let (done, ops) = (counter("ops_done"), counter("ops_total"));
        let (at, before, rate) = self.rate;
        if at.elapsed() >= Duration::from_secs(1) {
            let now = sent.saturating_sub(before) as f64 / at.elapsed().as_secs_f64();
            self.rate = (
                Instant::now(),
                sent,
                if rate == 0.0 { now } else { 0.7 * rate + 0.3 * now },
            );
        }
        let counted = status.phase == "sending" && ops > 0;
        let template = if counted {
            "{wide_bar} {percent:>3} %  {msg}  {eta} left"
        } else {
            "{spinner} {msg}  {elapsed}"
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style);
        }
        let text = if counted {
            self.bar.set_length(total.max(sent) + WORK_PER_OP * ops);
            self.bar.set_position(sent + WORK_PER_OP * done);
            let (done, ops) = (text::grouped(done), text::grouped(ops));
            let (sent, total) = (text::bytes(sent), text::bytes(total));
            let rate = text::bytes(self.rate.2 as u64);
            format!("{done} of {ops} entries, {sent} of {total}, {rate}/s")
        } else {
            let entries = text::count(counter("entries"), "entry", "entries");
            format!("{}: {entries}", status.phase)
        };
        self.bar.set_message(text);
        self.bar.tick();
    }
}
