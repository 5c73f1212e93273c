//! The hooks of a module in a process of their own, for a receiver that has given up starting programs.
//!
//! The receiver starts it before it confines itself. Which programs there are is said in the first line, and nothing that comes
//! later adds one: from then on each line is an event of the receiver, which the process tells its own hooks. So whoever has taken
//! over a receiver can have the hooks run that its user chose, with counts and paths of his liking, and no more.

use super::modules::occasion_in;
use super::{Complain, Hook, ModuleHook, Occasion, Slots};
use crate::daemon::Stop;
use crate::daemon::events::{self, Event, Listening, What};
use crate::engine::filter::FileSet;
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Bytes of a line at most. An event names 1 MiB of paths at most, each byte of which can be four when it is escaped.
const LINE_BYTES_MAX: u64 = 8 << 20;
/// How often the receiver's thread looks whether it is to end.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long the process may take to end: what runs has a moment, and what was not told yet runs once more.
const END_PATIENCE: Duration = Duration::from_secs(20);

/// What runs for a module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModulePrograms {
    /// The module.
    pub module: String,
    /// How many may run at once.
    pub at_once: usize,
    /// Each program.
    pub programs: Vec<Program>,
}

/// A hook in a form that can be written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// When it runs.
    pub on: Occasion,
    /// Only for these paths, as patterns; all if there is none.
    pub paths: Vec<String>,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// After this time it is killed, in milliseconds.
    pub timeout_ms: u64,
}

impl Program {
    fn hook(&self) -> io::Result<Hook> {
        let mut paths = FileSet::default();
        for pattern in &self.paths {
            paths.add(pattern.as_bytes()).map_err(io::Error::other)?;
        }
        Ok(Hook {
            on: self.on,
            paths,
            command: self.command.iter().map(Into::into).collect(),
            timeout: Duration::from_millis(self.timeout_ms),
        })
    }
}

/// The process that runs hooks, from the receiver's side. It ends when its input does, also if the receiver was killed.
#[derive(Debug)]
pub struct HookProcess {
    child: Child,
    input: ChildStdin,
    listening: Listening,
}

impl HookProcess {
    /// Starts a program that runs [`serve`] on its standard input, and logs on its standard error (see [`HookProcess::take_log`]). To be
    /// called before the process confines itself; everything that happens from now on is told.
    pub fn start(mut program: Command, wanted: ModulePrograms) -> io::Result<HookProcess> {
        let mut child = program
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // The service manager is told things by the receiver alone.
            .env_remove("NOTIFY_SOCKET")
            .env_remove("WATCHDOG_USEC")
            .env_remove("WATCHDOG_PID")
            .current_dir("/")
            // A Ctrl-C is for who tells it when to end.
            .process_group(0)
            .spawn()?;
        let input = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let needs_changes = wanted.programs.iter().any(|one| one.on == Occasion::AfterBatch);
        let first = wanted.clone();
        let mut process = HookProcess {
            child,
            input,
            listening: events::listen_to(needs_changes, move |what| wanted.wants(what)),
        };
        write_line(&mut process.input, &first)?;
        Ok(process)
    }

    /// Where it logs what hooks print, and what is wrong with them. Whoever does not take it never hears of that.
    pub fn take_log(&mut self) -> Option<ChildStderr> {
        self.child.stderr.take()
    }

    /// Begins to tell it what happens, on a thread of its own. A process that does not read holds up nothing but that thread.
    pub fn follow(self) -> io::Result<Following> {
        let stop = Stop::default();
        let until = stop.clone();
        let HookProcess {
            child,
            mut input,
            listening,
        } = self;
        let thread = std::thread::Builder::new()
            .name("hooks".to_owned())
            .spawn(move || {
                loop {
                    let ends = until.is_requested();
                    let patience = if ends { Duration::ZERO } else { LOOK_EVERY };
                    match listening.next(patience) {
                        Some(event) => {
                            if let Err(error) = write_line(&mut input, &event) {
                                tracing::error!("no hook runs any more: the process that runs them has ended ({error}); start again");
                                return;
                            }
                        }
                        None if ends => return,
                        None => {}
                    }
                }
            })?;
        Ok(Following {
            stop,
            thread: Some(thread),
            child,
        })
    }
}

impl ModulePrograms {
    fn wants(&self, what: &What) -> bool {
        let occasion = occasion_in(&self.module, what);
        self.programs.iter().any(|program| Some(program.on) == occasion)
    }
}

fn write_line(out: &mut impl Write, what: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    out.write_all(&line)?;
    out.flush()
}

/// A receiver that tells its hooks what happens. Dropping it ends that: what was told is told on, and one that runs is given a
/// moment.
#[derive(Debug)]
pub struct Following {
    stop: Stop,
    thread: Option<JoinHandle<()>>,
    child: Child,
}

impl Drop for Following {
    fn drop(&mut self) {
        self.stop.request();
        // With the thread's end the input of the process is closed. A process that was stopped reads nothing.
        let deadline = Instant::now() + END_PATIENCE;
        let mut has_ended = || {
            let is_told = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
            is_told && !matches!(self.child.try_wait(), Ok(None))
        };
        while !has_ended() {
            if Instant::now() >= deadline {
                let process = self.child.id();
                tracing::error!("the process that runs hooks (pid {process}) does not end: look at it");
                return;
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }
}

/// Runs hooks until the input ends. Anything that is no event ends it as well.
pub fn serve(mut input: impl BufRead, complain: &Complain) -> io::Result<()> {
    let Some(wanted) = read_line::<ModulePrograms>(&mut input)? else {
        return Ok(());
    };
    let slots = Slots::new(wanted.at_once);
    let (module, whole) = (wanted.module.clone(), complain.clone());
    let complain: Complain = Arc::new(move |text| whole(&format!("module {module}: {text}")));
    let hooks = wanted.programs.iter().map(Program::hook);
    let hooks: Vec<Hook> = hooks.collect::<io::Result<_>>()?;
    let running: Vec<_> = hooks
        .iter()
        .map(|hook| ModuleHook::start(hook, &wanted.module, &slots, &complain))
        .collect();
    while let Some(Event { of, what, .. }) = read_line::<Event>(&mut input)? {
        match what {
            // Counted here as it was there: whoever listens is told in its place.
            What::Lost { events } => events::publish_lost(events),
            what => events::publish(of.as_ref(), what),
        }
    }
    ModuleHook::end_all(running);
    Ok(())
}

/// The next line; none at the end.
fn read_line<T: for<'a> Deserialize<'a>>(input: &mut impl BufRead) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    input.take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
    match line.last() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(serde_json::from_slice(&line)?)),
        // Cut off: who wrote it was killed, or it has no end.
        Some(_) if (line.len() as u64) < LINE_BYTES_MAX => Ok(None),
        Some(_) => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> ModulePrograms {
        ModulePrograms {
            module: "m".to_owned(),
            at_once: 1,
            programs: vec![Program {
                on: Occasion::InSync,
                paths: vec!["*.conf".to_owned()],
                command: vec!["/bin/true".to_owned()],
                timeout_ms: 5,
            }],
        }
    }

    #[test]
    fn only_what_a_program_waits_for_is_told() {
        let in_sync = |module: &str| What::ModuleInSync {
            module: module.to_owned(),
            peer: "p".to_owned(),
            sequence: 3,
        };
        assert!(wanted().wants(&in_sync("m")));
        assert!(!wanted().wants(&in_sync("n")));
        assert!(!wanted().wants(&What::Drift));
        let corrupt = What::Corrupt {
            module: "m".to_owned(),
            path: String::new(),
            what: String::new(),
        };
        assert!(!wanted().wants(&corrupt), "no program is for that");
        let mut line = Vec::new();
        write_line(&mut line, &wanted()).unwrap();
        assert_eq!(read_line(&mut &line[..]).unwrap(), Some(wanted()));
    }

    #[test]
    fn what_is_no_event_ends_it_and_a_line_has_an_end() {
        let serve = |bytes: Vec<u8>| serve(&bytes[..], &(Arc::new(|_: &str| {}) as Complain));
        let mut first = Vec::new();
        write_line(&mut first, &wanted()).unwrap();
        serve(Vec::new()).unwrap();
        serve(first.clone()).unwrap();
        // Cut off in the middle of a line.
        serve([&first[..], b"{\"version\":1"].concat()).unwrap();
        serve([&first[..], b"nonsense\n"].concat()).unwrap_err();
        serve([&first[..], b"{\"programs\":[]}\n"].concat()).unwrap_err();
        serve(b"{\"module\":\"m\"}\n".to_vec()).unwrap_err();
        let endless = vec![b'x'; usize::try_from(LINE_BYTES_MAX).unwrap()];
        serve([&first[..], &endless].concat()).unwrap_err();
    }
}
