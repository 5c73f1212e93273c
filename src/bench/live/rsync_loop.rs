//! What people do who have to bring one large file over a bad line: rsync with `--partial`, started again until it succeeds.

use super::super::BenchError;
use super::super::cleanup;
use super::super::link::Side;
use super::super::runner::{Daemon, Stage, family};
use super::super::server::Server;
use super::follower::Follower;
use super::observe::{Patience, until};
use super::process;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

/// rsync over ssh in a loop. It follows nothing: it is started when there is something to do.
pub(super) struct RsyncLoop {
    server: Rc<Server>,
    copies: Vec<PathBuf>,
    running: Option<Daemon>,
}

impl RsyncLoop {
    /// Over that server, which must be reached through ssh, with an empty copy below `copies`.
    pub(super) fn new(server: Rc<Server>, copies: &Path) -> Result<RsyncLoop, BenchError> {
        let copy = copies.join("live-rsync");
        std::fs::create_dir_all(&copy).map_err(|error| BenchError::io("make", &copy, &error))?;
        Ok(RsyncLoop {
            server,
            copies: vec![copy],
            running: None,
        })
    }

    fn rsync(&self, source: &Path) -> Command {
        let mut from = source.as_os_str().to_owned();
        from.push("/");
        // The pause between two tries is as long as the receiving side is away.
        let mut command = Command::new("sh");
        command.args(["-c", "until \"$@\"; do sleep 1; done", "rsync-loop"]);
        command
            .args(["rsync", "-aHAX", "--delete", "--stats", "--partial"])
            .args(["-e", self.server.shell().unwrap_or("ssh")]);
        command
            .arg(from)
            .arg(format!("bench:{}/", self.copies[0].display()));
        command
    }
}

impl Follower for RsyncLoop {
    fn name(&self) -> &str {
        "rsync+ssh --partial"
    }

    fn copies(&self) -> &[PathBuf] {
        &self.copies
    }

    fn reset(&mut self) -> Result<(), BenchError> {
        self.stop();
        self.copies.iter().try_for_each(|copy| cleanup::empty(copy))
    }

    fn start(
        &mut self,
        stage: &Stage,
        source: &Path,
        _targets: usize,
        _patience: Duration,
    ) -> Result<(), BenchError> {
        stage.workspace.renew_shared();
        stage.run(self.rsync(source)).map(|_| ())
    }

    fn stop(&mut self) {
        self.running = None;
    }

    fn senders(&self) -> Vec<u32> {
        self.running.iter().map(Daemon::id).collect()
    }

    fn receivers(&self) -> Vec<u32> {
        vec![self.server.daemon().id()]
    }

    fn nudge(&mut self, stage: &Stage, source: &Path) -> Result<(), BenchError> {
        self.running = Some(stage.daemon(Side::A, "live-rsync", self.rsync(source))?);
        Ok(())
    }

    fn settle(&self, patience: Duration) -> Result<(), BenchError> {
        if let Some(running) = &self.running {
            let fine = || Ok(());
            let mut patience = Patience::new(patience, &fine);
            let has_ended = &mut || Ok(!process::is_running(running.id()));
            until(&mut patience, &|| "rsync to end".to_owned(), has_ended)?;
        }
        self.server.daemon().wait_for_children();
        Ok(())
    }

    /// What the last try, the one that succeeded, counted: the others end without a word.
    fn counted(&self) -> (Option<u64>, Option<u64>) {
        let log = self.running.as_ref().map(Daemon::output).unwrap_or_default();
        let last = |label: &str| {
            let line = log.lines().rev().find_map(|line| line.strip_prefix(label))?;
            let digits: String = line.chars().filter(char::is_ascii_digit).collect();
            digits.parse().ok()
        };
        (last("Total bytes sent:"), last("Total bytes received:"))
    }

    /// The size of what it writes aside, or of what an earlier try left under the name.
    fn arrived(&self, name: &str) -> Option<u64> {
        let hidden = format!(".{name}.");
        let entries = std::fs::read_dir(&self.copies[0]).ok()?.flatten();
        let sizes = entries
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(&hidden))
            .filter_map(|entry| Some(entry.metadata().ok()?.len()));
        Some(sizes.max().unwrap_or_default())
    }

    /// Kills the ssh session at the far end. rsync there notices, and keeps what it has; were it killed itself, it could not.
    fn cut(&mut self, _stage: &Stage, _pause: Duration) -> Result<(), BenchError> {
        let server = self.server.daemon().id();
        let all = family(server).into_iter().filter(|id| *id != server);
        for id in all.filter(|id| process::program(*id).starts_with("sshd")) {
            // SAFETY: plain system call; the process was found among the descendants of our own sshd just now.
            unsafe { libc::kill(id as libc::pid_t, libc::SIGKILL) };
        }
        Ok(())
    }

    fn complaints(&self) -> String {
        self.running.as_ref().map(Daemon::complaints).unwrap_or_default()
    }

    fn health(&self) -> Result<(), BenchError> {
        // The loop ends when it is done; whoever waits for its result sees that.
        Ok(())
    }
}
