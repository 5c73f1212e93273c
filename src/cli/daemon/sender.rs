//! One mirror to one target, in the daemon: kept going, whatever happens to it.

use super::hooked::Hooked;
use crate::cli::config::Mirror;
use crate::cli::launch::{Destination, End, LocalEnd, Session, destination, existing_directory};
use crate::cli::mirror::locate;
use crate::cli::narrate::{Narrator, Stopped, Style, conclude_named};
use crate::cli::origin::Origin;
use crate::cli::output::{self, Printer};
use crate::cli::text::escaped;
use crate::cli::{CliError, FAILED, USAGE};
use crate::daemon::hooks::{SenderHooks, Slots};
use crate::daemon::offers::Caller;
use crate::daemon::sender::Readings;
use crate::daemon::status::StatusBoard;
use crate::daemon::{Gate, Observer, Phase, SenderOptions, Stop, Summary, TargetOptions, Turns};
use crate::net::LinkOptions;
use driftless_protocol::RelPath;
use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The first wait after a failure; each one doubles it.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// The longest wait where nothing was done yet, as with a source that is not mounted: trying costs nothing.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// The longest wait where the sender itself gave up: trying walks the tree.
const RETRY_WALK_MAX: Duration = Duration::from_secs(300);

/// What the senders of a daemon have in common.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) session: Arc<Session>,
    pub(super) printer: Arc<Printer>,
    pub(super) style: Style,
    /// For hooks that run.
    pub(super) slots: Arc<Slots>,
    /// At walking trees.
    pub(super) walks: Turns,
    /// At bringing targets in sync.
    pub(super) transfers: Turns,
}

/// What the targets of a mirror have in common.
#[derive(Clone)]
pub(super) struct Common {
    /// All share its limit.
    pub(super) link: LinkOptions,
    pub(super) gate: Gate,
    /// What they read together.
    pub(super) readings: Readings,
}

/// Where a sender sends to.
#[derive(Clone)]
pub(super) enum Far {
    /// What the configuration says.
    Target(OsString),
    /// A receiver that connects itself.
    Caller(Caller),
}

impl Far {
    /// In a word, which is also the key of its state.
    pub(super) fn word(&self) -> OsString {
        match self {
            Far::Target(word) => word.clone(),
            Far::Caller(caller) => OsString::from(caller.to_string()),
        }
    }
}

/// A running sender.
pub(super) struct Sender {
    pub(super) target: OsString,
    pub(super) board: Arc<StatusBoard>,
    stop: Stop,
    thread: Option<JoinHandle<u8>>,
}

impl Sender {
    /// Starts one on a thread of its own.
    pub(super) fn start(shared: &Shared, mirror: &Arc<Mirror>, far: &Far, common: &Common) -> Sender {
        let (session, target) = (&shared.session, &far.word());
        let board = StatusBoard::named(
            Some(mirror.name.clone()),
            session.identity.fingerprint().to_string(),
            &session.home,
            escaped(&mirror.source),
            escaped(target),
        );
        let stop = Stop::default();
        let work = Work {
            narrator: Narrator::new(
                board.clone(),
                shared.printer.clone(),
                shared.style,
                escaped(target),
            ),
            shared: shared.clone(),
            mirror: mirror.clone(),
            target: target.clone(),
            far: far.clone(),
            common: common.clone(),
            stop: stop.clone(),
            board: board.clone(),
        };
        let spawned = std::thread::Builder::new()
            .name("sender".to_owned())
            .spawn(move || work.run());
        if let Err(error) = &spawned {
            let text = format!("cannot start a thread: {error}");
            shared.printer.note(format!("{}: {text}", mirror.name));
            board.finish(Err(&text));
        }
        Sender {
            target: target.clone(),
            board,
            stop,
            thread: spawned.ok(),
        }
    }

    /// Stops all, and keeps their boards, which say how they ended.
    pub(super) fn halt_all(senders: &mut [Sender]) {
        senders.iter().for_each(|sender| sender.stop.request());
        for thread in senders.iter_mut().filter_map(|sender| sender.thread.take()) {
            let _ = thread.join();
        }
    }

    /// Whether it waits to try again, or has no thread.
    pub(super) fn is_idle(&self) -> bool {
        self.thread.is_none() || self.board.is_waiting()
    }

    /// Asks all to stop, waits for them, and gives their exit statuses.
    pub(super) fn stop_all(senders: Vec<Sender>) -> Vec<u8> {
        senders.iter().for_each(|sender| sender.stop.request());
        let end = |sender: Sender| match sender.thread.map(JoinHandle::join) {
            Some(Ok(status)) => status,
            Some(Err(_)) => {
                let target = escaped(&sender.target);
                output::note(&format!(
                    "{target}: its thread failed (this is a defect, please report it)"
                ));
                FAILED
            }
            None => FAILED,
        };
        senders.into_iter().map(end).collect()
    }
}

struct Work {
    shared: Shared,
    mirror: Arc<Mirror>,
    target: OsString,
    far: Far,
    common: Common,
    stop: Stop,
    board: Arc<StatusBoard>,
    narrator: Arc<Narrator>,
}

/// How a try ended that nobody asked to end.
struct Failure {
    error: CliError,
    /// Whether the sender ran at all.
    has_run: bool,
}

impl Work {
    /// Runs it until it is asked to stop.
    fn run(&self) -> u8 {
        let began = Instant::now();
        let mut failures = 0;
        loop {
            let try_began = Instant::now();
            let outcome = self.attempt();
            if self.stop.is_requested() {
                return self.end(outcome, began);
            }
            if try_began.elapsed() > RETRY_WALK_MAX {
                failures = 0;
            }
            let (error, longest) = match outcome {
                Err(Failure {
                    error,
                    has_run: false,
                }) => (error, RETRY_MAX),
                Err(Failure { error, has_run: true }) => (error, RETRY_WALK_MAX),
                Ok(_) => (
                    CliError::failed("the sender ended although nobody asked it to"),
                    RETRY_WALK_MAX,
                ),
            };
            let delay = RETRY_FIRST
                .saturating_mul(1 << u32::min(failures, 16))
                .min(longest);
            failures += 1;
            let (CliError::Failed(error) | CliError::Usage(error)) = error;
            let seconds = delay.as_secs();
            self.narrator.phase(&Phase::Waiting { error, seconds });
            // Ends early when the last sender of the channel is gone, which is when stopping is asked.
            let _ = self.stop.channel().recv_timeout(delay);
            if self.stop.is_requested() {
                return self.end(
                    Err(Failure::early(CliError::failed("it was stopped before"))),
                    began,
                );
            }
        }
    }

    /// Everything from the beginning: what was missing may be there now.
    fn attempt(&self) -> Result<Summary, Failure> {
        let (session, mirror) = (&self.shared.session, &self.mirror);
        let send = &mirror.options.send;
        let origin = send.origin("send", &mirror.source).map_err(Failure::early)?;
        let filter = send.filter(&origin).map_err(Failure::early)?;
        let options = |end: End<'_>| SenderOptions {
            mirror: Some(mirror.name.clone()),
            gate: self.common.gate.clone(),
            walks: self.shared.walks.clone(),
            transfers: self.shared.transfers.clone(),
            readings: (mirror.targets.len() > 1).then(|| self.common.readings.clone()),
            ..send.options(session, end, &origin, &filter, true)
        };
        let word = match &self.far {
            Far::Target(word) => word,
            Far::Caller(caller) => return self.send(&self.answering(caller, options)),
        };
        let place = destination(word, mirror.port_for(word), &session.home);
        match place.map_err(Failure::early)? {
            Destination::Directory(path) => {
                let path = self.directory(&origin, &path).map_err(Failure::early)?;
                let (writing, send) = (&mirror.options.writing, &mirror.options.send);
                let kept_as = |kept_as| send.kept_as(kept_as);
                let local = LocalEnd::start(session, &path, &self.common.link, writing, kept_as)
                    .map_err(Failure::early)?;
                let outcome = self.send(&options(local.end()));
                local.stop();
                outcome
            }
            Destination::Target(target) => {
                let given = &mirror.options;
                let checked = given.send.check_far().and_then(|()| given.writing.check_far());
                checked.map_err(Failure::early)?;
                let target = origin.target_of(target, &self.target).map_err(Failure::early)?;
                self.send(&options(End {
                    identity: &session.identity,
                    target: &target,
                    link: &self.common.link,
                }))
            }
        }
    }

    /// The options for a receiver that connects itself.
    fn answering(&self, caller: &Caller, options: impl FnOnce(End<'_>) -> SenderOptions) -> SenderOptions {
        let target = TargetOptions {
            display: escaped(&self.target),
            // Nobody is looked up and nothing is dialled.
            host: String::new(),
            port: 0,
            fingerprint: caller.peer,
            module: caller.tree.clone(),
            path: RelPath::root(),
        };
        let link = LinkOptions {
            calls: Some(caller.calls.clone()),
            // Its socket is the endpoint's.
            limiter: None,
            ..self.common.link.clone()
        };
        let several = self.common.readings.clone();
        SenderOptions {
            readings: Some(several),
            ..options(End {
                identity: &self.shared.session.identity,
                target: &target,
                link: &link,
            })
        }
    }

    /// A directory has to exist: one that a daemon makes may be where a file system is not mounted.
    fn directory(&self, origin: &Origin, path: &Path) -> Result<std::path::PathBuf, CliError> {
        let path = origin.directory_of(path)?;
        existing_directory("mirror to", &path)?;
        locate(origin, &path).map(|place| place.path)
    }

    fn send(&self, options: &SenderOptions) -> Result<Summary, Failure> {
        let observer = self.observer();
        let session = &self.shared.session;
        session
            .send_until(options, observer, &self.board, &self.stop)
            .map_err(|error| Failure {
                error: session.explain(CliError::from(error)),
                has_run: true,
            })
    }

    /// Who is told: the narrator, and the hooks of the mirror if it has any.
    fn observer(&self) -> Arc<dyn Observer> {
        let hooks: Vec<_> = self.mirror.hooks.iter().map(|hook| hook.options.hook()).collect();
        if hooks.is_empty() {
            return self.narrator.clone();
        }
        let narrator = self.narrator.clone();
        let complain: Arc<dyn Fn(&str) + Send + Sync> = Arc::new(move |text| narrator.warning(text));
        let hooks = SenderHooks::start(&hooks, &self.board.label(), &self.shared.slots, &complain);
        Arc::new(Hooked::new(self.narrator.clone(), hooks))
    }

    fn end(&self, outcome: Result<Summary, Failure>, began: Instant) -> u8 {
        let outcome = outcome.map_err(|failure| failure.error);
        match &outcome {
            Ok(summary) => self.board.finish(Ok(summary)),
            Err(CliError::Failed(text) | CliError::Usage(text)) => self.board.finish(Err(text)),
        }
        let (mirror, target) = (&self.mirror.name, escaped(&self.target));
        let (time, style) = (began.elapsed(), self.shared.style);
        let (text, status) =
            match conclude_named(Some(mirror), &target, outcome, time, style, Stopped::ByUser) {
                Ok(status) => return status,
                Err(CliError::Failed(text)) => (text, FAILED),
                Err(CliError::Usage(text)) => (text, USAGE),
            };
        self.shared
            .printer
            .note(format!("{mirror} to {target} is not in sync: {text}"));
        status
    }
}

impl Failure {
    fn early(error: CliError) -> Failure {
        Failure {
            error,
            has_run: false,
        }
    }
}
