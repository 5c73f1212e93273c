//! Running a program: its input, its end, its time.

use super::Hook;
use crate::daemon::Stop;
use rustix::process::{Pid, Signal, kill_process_group};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long one that runs may go on when its mirror is stopped.
const MOMENT: Duration = Duration::from_secs(5);
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

    /// Waits for a place; none when asked to stop.
    pub fn take(self: &Arc<Slots>, stop: &Stop) -> Option<Slot> {
        let mut free = self.free();
        while *free == 0 {
            if stop.is_requested() {
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

/// Runs a hook to its end. An error says what went wrong, to be read after "the ... hook".
pub(super) fn run(
    hook: &Hook,
    variables: &[(&str, String)],
    input: Vec<u8>,
    stop: &Stop,
) -> Result<(), String> {
    let Some((program, arguments)) = hook.command.split_first() else {
        return Err("has no command".to_owned());
    };
    let shown = program.to_string_lossy().into_owned();
    let failed = |error: std::io::Error| format!("{shown} cannot be run: {error}");
    // What it prints belongs into the log; standard output is for events.
    let log = std::io::stderr().as_fd().try_clone_to_owned().map_err(failed)?;
    let mut child = Command::new(program)
        .args(arguments)
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::piped())
        .stdout(Stdio::from(log))
        .stderr(Stdio::inherit())
        .process_group(0)
        .spawn()
        .map_err(failed)?;
    // On a thread of its own: a program may read late, or not at all, and ends all the same.
    let feeder = child.stdin.take().map(|mut stdin| {
        std::thread::Builder::new()
            .name("hook-input".to_owned())
            .spawn(move || stdin.write_all(&input))
    });
    let ended = wait(&mut child, hook.timeout, stop);
    if ended.is_none() {
        kill(&mut child);
    }
    // The pipe is broken by now, unless something that it started and left behind holds it.
    drop(feeder);
    match ended {
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(format!("{shown} failed: {status}")),
        None => Err(format!(
            "{shown} was killed: it had not ended after {} s",
            hook.timeout.as_secs_f64()
        )),
    }
}

/// None if its time is over.
fn wait(child: &mut Child, timeout: Duration, stop: &Stop) -> Option<ExitStatus> {
    let mut until = Instant::now() + timeout;
    let stopping = stop.channel();
    let mut was_stopped = false;
    let mut pause = Duration::from_millis(1);
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        if stop.is_requested() && !std::mem::replace(&mut was_stopped, true) {
            until = until.min(Instant::now() + MOMENT);
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        // Ends at once when stopping was asked: then the pause is only slept.
        if was_stopped
            || stopping
                .recv_timeout(pause.min(left))
                .is_err_and(|e| e.is_disconnected())
        {
            std::thread::sleep(pause.min(left));
        }
        pause = (pause * 2).min(LOOK_EVERY);
    }
}

/// Kills it and what it started.
fn kill(child: &mut Child) {
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    if let Some(group) = group {
        // Fails when all of them have just ended.
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = child.kill();
    let _ = child.wait();
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
        )
        .unwrap();
    }

    #[test]
    fn what_goes_wrong_is_said_and_what_hangs_is_killed_with_its_children() {
        let run = |command: &[&str], timeout| run(&hook(command, timeout), &[], Vec::new(), &Stop::default());
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
        assert!(began.elapsed() < Duration::from_secs(60));
        let pid: i32 = std::fs::read_to_string(pid).unwrap().trim().parse().unwrap();
        // Nobody of ours waits for it: it is gone, or a zombie that is not reaped yet.
        let state = std::fs::read_to_string(format!("/proc/{pid}/stat"));
        assert!(
            state.is_err() || state.is_ok_and(|text| text.contains(") Z ")),
            "it lives on"
        );
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
        drop(one);
        assert!(slots.take(&stop).is_some());
    }
}
