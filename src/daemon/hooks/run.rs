//! Running a program: its input, its end, its time.

use super::Hook;
use super::streams::Streams;
use crate::daemon::Stop;
use rustix::process::{Pid, Signal, kill_process_group};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long one that runs may go on when its mirror is stopped.
const MOMENT: Duration = Duration::from_secs(5);
/// How long one may take to end that was killed. The kernel may need some time for the memory of a large one.
const KILL_PATIENCE: Duration = Duration::from_secs(2);
/// The longest time between two looks at a program that runs.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How many programs may run at once.
#[derive(Debug)]
pub struct Slots {
    free: Mutex<usize>,
    changed: Condvar,
}

/// A place that is given back when this is dropped.
pub struct Slot(Arc<Slots>);

impl Slots {
    /// So many, at least one.
    pub fn new(count: usize) -> Arc<Slots> {
        Arc::new(Slots {
            free: Mutex::new(count.max(1)),
            changed: Condvar::new(),
        })
    }

    /// Waits for a place. None if there is still none a moment after it was asked to stop: at the end many want one at once, and most
    /// take no time.
    pub fn take(self: &Arc<Slots>, stop: &Stop) -> Option<Slot> {
        let mut free = self.free();
        while *free == 0 {
            if stop.requested_at().is_some_and(|at| at.elapsed() >= MOMENT) {
                return None;
            }
            free = match self.changed.wait_timeout(free, LOOK_EVERY) {
                Ok((free, _)) => free,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        *free -= 1;
        Some(Slot(self.clone()))
    }

    fn free(&self) -> MutexGuard<'_, usize> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        *self.0.free() += 1;
        self.0.changed.notify_one();
    }
}

/// The processes of one hook that outlive their runs, because they cannot be killed: they are of another user, or wait for a disk.
#[derive(Debug, Default)]
pub(super) struct Outliving(Arc<()>);

impl Outliving {
    /// Whether there is none, or none any more.
    pub(super) fn is_empty(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }

    /// Leaves a process to a thread that waits for it as long as it takes, and for which nobody waits.
    fn add(&self, mut child: Child) {
        let one = self.0.clone();
        let thread = std::thread::Builder::new().name("hook-left".to_owned());
        // Without a thread nobody notices its end but init, when this process has ended.
        let _ = thread.spawn(move || {
            let _ = child.wait();
            drop(one);
        });
    }
}

/// Runs a hook to its end, or until its time is over; if it then cannot be killed, it is left behind. An error says what went wrong, to
/// be read after "the ... hook".
pub(super) fn run(
    hook: &Hook,
    variables: &[(&str, String)],
    input: Vec<u8>,
    stop: &Stop,
    outliving: &Outliving,
) -> Result<(), String> {
    run_with(hook, variables, input, stop, outliving, kill)
}

fn run_with(
    hook: &Hook,
    variables: &[(&str, String)],
    input: Vec<u8>,
    stop: &Stop,
    outliving: &Outliving,
    kill: fn(&mut Child) -> io::Result<()>,
) -> Result<(), String> {
    let Some((program, arguments)) = hook.command.split_first() else {
        return Err("has no command".to_owned());
    };
    let shown = program.to_string_lossy().into_owned();
    let failed = |error: io::Error| format!("{shown} cannot be run: {error}");
    // What it prints belongs into the log; standard output is for events.
    let (output, printing) = std::io::pipe().map_err(failed)?;
    let mut child = Command::new(program)
        .args(arguments)
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::piped())
        .stdout(Stdio::from(printing.try_clone().map_err(failed)?))
        .stderr(Stdio::from(printing))
        .process_group(0)
        .spawn()
        .map_err(failed)?;
    let mut streams = match Streams::new(&shown, child.stdin.take(), input, output) {
        Ok(streams) => streams,
        Err(error) => {
            let _ = end(child, outliving, kill);
            return Err(failed(error));
        }
    };
    let ended = wait(&mut child, &mut streams, hook.timeout, stop);
    let outcome = match ended {
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(format!("{shown} failed: {status}")),
        None => {
            let fate = end(child, outliving, kill);
            let fate = fate.map_or_else(|fault| fault, |()| "was killed".to_owned());
            let time = hook.timeout.as_secs_f64();
            Err(format!("{shown} {fate}: it had not ended after {time} s"))
        }
    };
    streams.finish();
    outcome
}

/// None if its time is over.
fn wait(child: &mut Child, streams: &mut Streams<'_>, timeout: Duration, stop: &Stop) -> Option<ExitStatus> {
    // One that would be later than the clock can say never comes.
    let mut until = Instant::now().checked_add(timeout);
    let mut was_stopped = false;
    let mut pause = Duration::from_millis(1);
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        let now = Instant::now();
        if stop.is_requested() && !std::mem::replace(&mut was_stopped, true) {
            let soon = now + MOMENT;
            until = Some(until.map_or(soon, |until| until.min(soon)));
        }
        let left = until.map_or(LOOK_EVERY, |until| until.saturating_duration_since(now));
        if left.is_zero() {
            return None;
        }
        streams.turn(pause.min(left));
        pause = (pause * 2).min(LOOK_EVERY);
    }
}

/// Kills it, and waits for its end no longer than that may take. An error says why it goes on, as a predicate.
fn end(
    mut child: Child,
    outliving: &Outliving,
    kill: fn(&mut Child) -> io::Result<()>,
) -> Result<(), String> {
    let killed = kill(&mut child);
    let deadline = Instant::now() + KILL_PATIENCE;
    while let Ok(None) = child.try_wait() {
        // One that may not be killed may just have been about to end.
        if Instant::now() < deadline {
            std::thread::park_timeout(Duration::from_millis(10));
            continue;
        }
        let process = child.id();
        outliving.add(child);
        let why = match killed {
            Ok(()) => "was killed, but does not end".to_owned(),
            Err(error) => format!("cannot be killed ({error})"),
        };
        return Err(format!(
            "{why}, and the hook does not run again before pid {process} has ended"
        ));
    }
    Ok(())
}

/// Kills it and what it started.
fn kill(child: &mut Child) -> io::Result<()> {
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    if let Some(group) = group {
        // Fails when all of them have just ended, or none may be killed.
        let _ = kill_process_group(group, Signal::KILL);
    }
    child.kill()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::hooks::Occasion;
    use crate::engine::filter::FileSet;

    fn hook(command: &[&str], timeout: Duration) -> Hook {
        Hook {
            on: Occasion::InSync,
            paths: FileSet::default(),
            command: command.iter().map(Into::into).collect(),
            timeout,
        }
    }

    #[test]
    fn arguments_are_no_shell_and_the_input_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let long = vec![b'x'; 1 << 20];
        let script = "printf '%s|%s|' \"$1\" \"$DRIFTLESS_X\" > \"$0\"; wc -c >> \"$0\"";
        let out_text = out.to_str().unwrap();
        let command = [
            "/bin/sh",
            "-c",
            script,
            out_text,
            "$(touch /tmp/never); 'a' \"b\"",
        ];
        run(
            &hook(&command, Duration::from_secs(60)),
            &[("DRIFTLESS_X", "y z".to_owned())],
            long,
            &Stop::default(),
            &Outliving::default(),
        )
        .unwrap();
        let text = std::fs::read_to_string(out).unwrap();
        assert_eq!(
            text.split_whitespace().collect::<Vec<_>>().join(" "),
            "$(touch /tmp/never); 'a' \"b\"|y z|1048576"
        );
        // One that reads nothing of much input is no failure.
        run(
            &hook(&["/bin/true"], Duration::from_secs(60)),
            &[],
            vec![0; 1 << 20],
            &Stop::default(),
            &Outliving::default(),
        )
        .unwrap();
    }

    #[test]
    fn what_goes_wrong_is_said_and_what_hangs_is_killed_with_its_children() {
        let outliving = Outliving::default();
        let run = |command: &[&str], timeout| {
            let stop = Stop::default();
            run(&hook(command, timeout), &[], Vec::new(), &stop, &outliving)
        };
        let error = run(&["/no/such/program"], Duration::from_secs(9)).unwrap_err();
        assert!(
            error.starts_with("/no/such/program cannot be run: No such file"),
            "{error}"
        );
        let error = run(&["/bin/false"], Duration::from_secs(9)).unwrap_err();
        assert_eq!(error, "/bin/false failed: exit status: 1");
        let dir = tempfile::tempdir().unwrap();
        let pid = dir.path().join("pid");
        let began = Instant::now();
        let command = [
            "/bin/sh",
            "-c",
            "sleep 600 & echo $! > \"$0\"; wait",
            pid.to_str().unwrap(),
        ];
        let error = run(&command, Duration::from_secs(1)).unwrap_err();
        assert!(
            error.contains("was killed: it had not ended after 1 s"),
            "{error}"
        );
        assert!(began.elapsed() < Duration::from_secs(60) && outliving.is_empty());
        let pid: i32 = std::fs::read_to_string(pid).unwrap().trim().parse().unwrap();
        // Nobody of ours waits for it: it is gone, or a zombie that is not reaped yet. A busy machine takes its time to kill it.
        let lives = || {
            let state = std::fs::read_to_string(format!("/proc/{pid}/stat"));
            state.is_ok_and(|text| !text.contains(") Z "))
        };
        while lives() {
            assert!(began.elapsed() < Duration::from_secs(60), "it lives on");
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    #[test]
    fn what_may_not_be_killed_is_left_behind_and_said() {
        /// Of another user, so to speak.
        fn may_not(_: &mut Child) -> io::Result<()> {
            Err(io::ErrorKind::PermissionDenied.into())
        }
        let outliving = Outliving::default();
        let began = Instant::now();
        let hook = hook(&["/bin/sleep", "600"], Duration::from_millis(10));
        let error = run_with(&hook, &[], Vec::new(), &Stop::default(), &outliving, may_not).unwrap_err();
        assert!(began.elapsed() < Duration::from_secs(60) && !outliving.is_empty());
        let (said, rest) = error.split_once(" pid ").unwrap();
        assert_eq!(
            said,
            "/bin/sleep cannot be killed (permission denied), and the hook does not run again before"
        );
        let (pid, rest) = rest.split_once(' ').unwrap();
        assert_eq!(rest, "has ended: it had not ended after 0.01 s");
        let pid = Pid::from_raw(pid.parse().unwrap()).unwrap();
        rustix::process::kill_process(pid, Signal::KILL).unwrap();
        while !outliving.is_empty() {
            assert!(
                began.elapsed() < Duration::from_secs(120),
                "its end is not noticed"
            );
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    #[test]
    fn a_mirror_that_stops_does_not_wait_for_a_program_for_long() {
        let stop = Stop::default();
        let began = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                run(
                    &hook(&["/bin/sleep", "600"], Duration::from_secs(600)),
                    &[],
                    Vec::new(),
                    &stop,
                    &Outliving::default(),
                )
                .unwrap_err()
            });
            stop.request();
        });
        assert!(began.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn so_many_run_at_once_and_no_more() {
        let slots = Slots::new(2);
        let stop = Stop::default();
        let (one, two) = (slots.take(&stop), slots.take(&stop));
        assert!(one.is_some() && two.is_some());
        stop.request();
        assert!(slots.take(&stop).is_none());
        assert!(stop.requested_at().unwrap().elapsed() >= MOMENT);
        drop(one);
        assert!(slots.take(&stop).is_some());
    }
}
