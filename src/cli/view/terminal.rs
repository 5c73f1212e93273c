//! The terminal: taken over and given back, whatever happens in between.

use super::draw::draw;
use super::feed::Feed;
use super::row::Tone;
use super::screen::{Screen, Wish};
use crate::cli::{CliError, DONE, output};
use crate::daemon::status::unix_now;
use crossbeam_channel::{Receiver, bounded};
use jiff::tz::TimeZone;
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::event::{self, Event};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use std::io;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// How late news may be seen. Keys are seen at once.
const TICK: Duration = Duration::from_millis(100);

/// The exit status when the terminal is gone: that of a process that SIGHUP has ended.
const HANGUP: u8 = 129;

/// Whether the terminal has to be given back.
static IS_TAKEN: AtomicBool = AtomicBool::new(false);

/// A terminal that was taken over. Dropping this gives it back; a panic on any thread does so, too, before its message is written.
#[derive(Debug)]
pub(super) struct Taken(());

impl Taken {
    /// Takes the terminal over: no lines, no echo, no cursor, and a screen of its own.
    pub(super) fn take() -> io::Result<Taken> {
        give_back_on_panic();
        enable_raw_mode()?;
        IS_TAKEN.store(true, Ordering::Release);
        output::mute(true);
        let taken = Taken(());
        execute!(io::stdout(), EnterAlternateScreen, Hide)?;
        Ok(taken)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        give_back();
    }
}

/// Leaves the terminal as it was found. Does nothing if it has been given back.
fn give_back() {
    if IS_TAKEN.swap(false, Ordering::AcqRel) {
        // Nobody could be told; each is worth trying.
        let _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
        let _ = disable_raw_mode();
        output::mute(false);
    }
}

fn give_back_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let told = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back();
            told(panic);
        }));
    });
}

/// Shows what a feed says until somebody ends it. Gives the exit status.
pub(super) fn show(taken: Taken, feed: &Feed) -> Result<u8, CliError> {
    let ended = run(feed);
    drop(taken);
    ended.map_err(|error| CliError::failed(format!("the terminal cannot be used any more: {error}")))
}

fn run(feed: &Feed) -> io::Result<u8> {
    let signals = signals()?;
    end_on_hangup()?;
    let mut screen = Screen::new(TimeZone::system(), unix_now());
    let mut terminal = Terminal::new(CrosstermBackend::new(io::stdout()))?;
    let mut is_changed = true;
    loop {
        if let Ok(status) = signals.try_recv() {
            return Ok(status);
        }
        // Somebody else's panic has ended the picture.
        if !IS_TAKEN.load(Ordering::Acquire) {
            return Err(io::Error::other("a thread of this program has panicked"));
        }
        let now = unix_now();
        is_changed |= take_news(&mut screen, feed, now) | screen.set_time(now);
        if std::mem::take(&mut is_changed) {
            terminal.draw(|frame| draw(&screen, frame.area(), frame.buffer_mut()))?;
        }
        let mut patience = TICK;
        while event::poll(patience)? {
            patience = Duration::ZERO;
            is_changed = true;
            // Of a new size the next drawing finds out by itself.
            let Event::Key(key) = event::read()? else {
                continue;
            };
            match screen.press(key) {
                Some(Wish::Quit) => return Ok(DONE),
                Some(Wish::Act(action)) if !feed.ask(action.clone()) => {
                    let text = "too much was asked that is not done yet; try again later".to_owned();
                    screen.message = Some((Tone::Bad, text));
                }
                Some(Wish::Act(_)) | None => {}
            }
        }
    }
}

/// Ends this process when nobody is at the other end of the terminal any more. No signal tells of that where it is not the
/// controlling one, and whoever reads keys then gets an end of file, again and again, without a pause and without coming back.
fn end_on_hangup() -> io::Result<()> {
    let wait = || {
        let input = io::stdin();
        let mut waiting = [PollFd::new(&input, PollFlags::empty())];
        let gone = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
        while !waiting[0].revents().intersects(gone) {
            match rustix::event::poll(&mut waiting, None) {
                Ok(_) | Err(Errno::INTR) => {}
                // Then the signal has to do.
                Err(_) => return,
            }
        }
        std::process::exit(HANGUP.into());
    };
    thread::Builder::new()
        .name("hangup".to_owned())
        .spawn(wait)
        .map(|_| ())
}

/// Whether there were any.
fn take_news(screen: &mut Screen, feed: &Feed, now: u64) -> bool {
    let before = (feed.updates.len(), feed.events.len());
    // No more than there were, so that a flood of them keeps nobody from the keys.
    feed.updates
        .try_iter()
        .take(before.0)
        .for_each(|update| screen.apply(update, now));
    feed.events
        .try_iter()
        .take(before.1)
        .for_each(|event| screen.hear(&event));
    before != (0, 0)
}

/// Signals that end a process would leave the terminal as it is. Gives the exit status that tells of one.
fn signals() -> io::Result<Receiver<u8>> {
    let (told, heard) = bounded(1);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let mut kinds = {
        let _context = runtime.enter();
        let signals = [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
        ]
        .map(signal);
        let [interrupt, terminate, hangup] = signals;
        (interrupt?, terminate?, hangup?)
    };
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            loop {
                let status = tokio::select! {
                    _ = kinds.0.recv() => 130,
                    _ = kinds.1.recv() => 143,
                    _ = kinds.2.recv() => HANGUP,
                };
                if told.try_send(status).is_err() {
                    // Asked twice, and nobody looked: the terminal does not take anything.
                    give_back();
                    std::process::exit(status.into());
                }
            }
        });
    })?;
    Ok(heard)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::view::tests::pty::Pty;
    use std::process::Command;

    /// Run by the other test, on a terminal of its own.
    #[test]
    fn child_that_panics_with_the_terminal_taken() {
        if std::env::var_os("DRIFTLESS_TEST_PANICS").is_none() {
            return;
        }
        let _taken = Taken::take().unwrap();
        panic!("on purpose");
    }

    #[test]
    fn a_panic_gives_the_terminal_back_and_can_be_read() {
        let mut pty = Pty::open(80, 24);
        let before = pty.modes();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args([
                "--exact",
                "--nocapture",
                "cli::view::terminal::tests::child_that_panics_with_the_terminal_taken",
            ])
            .env("DRIFTLESS_TEST_PANICS", "1");
        let child = pty.spawn(&command);
        assert!(!pty.end(child).success());
        let seen = pty.seen();
        let at = |wanted: &str| {
            seen.find(wanted)
                .unwrap_or_else(|| panic!("no {wanted:?} in {seen:?}"))
        };
        assert!(at("\x1b[?1049h") < at("\x1b[?1049l"), "{seen:?}");
        assert!(
            at("\x1b[?1049l") < at("on purpose"),
            "the message would vanish: {seen:?}"
        );
        assert!(at("\x1b[?25l") < at("\x1b[?25h"), "{seen:?}");
        assert_eq!(pty.modes(), before, "it is still raw");
    }
}
