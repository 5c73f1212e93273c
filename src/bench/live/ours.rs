//! driftless as a daemon: `send` beside one `receive` for each target, all with homes of their own.

use super::super::BenchError;
use super::super::cleanup;
use super::super::link::Side;
use super::super::ours::{NAME, Receiver, congestion, fingerprint, invocation, program};
use super::super::runner::{Daemon, Stage};
use super::follower::Follower;
use super::observe::{Patience, until};
use super::process;
use crate::daemon::control::ask_all;
use crate::daemon::home::Home;
use crate::daemon::status::{DaemonStatus, SenderStatus};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The program under test.
pub(super) struct Ours {
    program: PathBuf,
    sender_home: PathBuf,
    receiver_homes: Vec<PathBuf>,
    copies: Vec<PathBuf>,
    /// IP and port of each receiver that ran since the reset: a target at another port is another mirror to a sender.
    addresses: Vec<String>,
    /// Of the sender's identity, once it was started.
    fingerprint: String,
    sender: Option<Daemon>,
    receivers: Vec<Receiver>,
}

impl Ours {
    /// This executable, with `targets` empty copies below `copies`.
    pub(super) fn new(stage: &Stage, copies: &Path, targets: usize) -> Result<Ours, BenchError> {
        let numbered = |what: &str| {
            let make = |index| {
                let path = copies.join(format!("{what}-{index}"));
                std::fs::create_dir_all(&path).map_err(|error| BenchError::io("make", &path, &error))?;
                Ok(path)
            };
            (0..targets).map(make).collect::<Result<Vec<_>, BenchError>>()
        };
        let homes = (0..targets).map(|index| stage.workspace.directory(&format!("live-r{index}")));
        Ok(Ours {
            program: program()?,
            sender_home: stage.workspace.directory("live-s")?,
            receiver_homes: homes.collect::<Result<_, _>>()?,
            copies: numbered("live-driftless")?,
            addresses: Vec::new(),
            fingerprint: String::new(),
            sender: None,
            receivers: Vec::new(),
        })
    }

    fn receive(
        &self,
        stage: &Stage,
        index: usize,
        listen: Option<&str>,
        sender: &str,
    ) -> Result<Receiver, BenchError> {
        let command = invocation(&self.program, &self.receiver_homes[index]);
        let name = format!("live-receive-{index}");
        Receiver::start(stage, &name, command, &self.copies[index], listen, sender)
    }

    /// What the sender's process says about each of its targets.
    fn statuses(&self) -> Vec<SenderStatus> {
        let Some(sender) = &self.sender else {
            return Vec::new();
        };
        let answers = ask_all(&Home::at(&self.sender_home)).unwrap_or_default();
        let mine = answers.daemons.into_iter().filter_map(|daemon| match daemon {
            DaemonStatus::Sender(status) if status.pid == sender.id() => Some(*status),
            _ => None,
        });
        mine.collect()
    }

    /// A counter of the sender, of all targets together.
    fn counter(&self, name: &str) -> Option<u64> {
        let statuses = self.statuses();
        let found = statuses.iter().map(|status| status.counters.get(name).copied());
        found.sum::<Option<u64>>().filter(|_| !statuses.is_empty())
    }

    fn are_in_sync(&self) -> bool {
        let statuses = self.statuses();
        statuses.len() == self.receivers.len() && statuses.iter().all(|status| status.phase == "in-sync")
    }

    fn wait_in_sync(&self, patience: Duration) -> Result<(), BenchError> {
        let health = || self.health();
        let mut patience = Patience::new(patience, &health);
        let what = || {
            let phases: Vec<String> = self
                .statuses()
                .into_iter()
                .map(|status| format!("{} {}", status.phase, status.reason.unwrap_or_default()))
                .collect();
            format!(
                "driftless to be in sync; it is: {}; {}",
                phases.join(", "),
                self.complaints()
            )
        };
        until(&mut patience, &what, &mut || Ok(self.are_in_sync())).map(|_| ())
    }
}

impl Follower for Ours {
    fn name(&self) -> &str {
        NAME
    }

    fn is_ours(&self) -> bool {
        true
    }

    fn durable(&self) -> bool {
        true
    }

    fn copies(&self) -> &[PathBuf] {
        &self.copies
    }

    fn reset(&mut self) -> Result<(), BenchError> {
        self.stop();
        self.addresses.clear();
        let all = self
            .copies
            .iter()
            .chain(&self.receiver_homes)
            .chain([&self.sender_home]);
        all.into_iter().try_for_each(|path| cleanup::empty(path))
    }

    fn start(
        &mut self,
        stage: &Stage,
        source: &Path,
        targets: usize,
        patience: Duration,
    ) -> Result<(), BenchError> {
        self.fingerprint = fingerprint(stage, &self.program, &self.sender_home)?;
        for index in 0..targets {
            let listen = self.addresses.get(index).map(String::as_str);
            let receiver = self.receive(stage, index, listen, &self.fingerprint)?;
            if index == self.addresses.len() {
                self.addresses.push(receiver.address.clone());
            }
            self.receivers.push(receiver);
        }
        let mut command = invocation(&self.program, &self.sender_home);
        command
            .arg("send")
            .arg(source)
            .args(self.receivers.iter().map(|receiver| &receiver.target));
        // The bench takes its own files away between runs, as many as it made.
        command
            .args(["--json", "--delete", "always", "--max-delete", "none"])
            .args(congestion(stage))
            .args(&stage.send_with);
        self.sender = Some(stage.daemon(Side::A, "live-send", command)?);
        self.wait_in_sync(patience)
    }

    fn stop(&mut self) {
        self.sender = None;
        self.receivers.clear();
    }

    fn senders(&self) -> Vec<u32> {
        self.sender.iter().map(Daemon::id).collect()
    }

    fn receivers(&self) -> Vec<u32> {
        self.receivers
            .iter()
            .map(|receiver| receiver.daemon.id())
            .collect()
    }

    fn settle(&self, patience: Duration) -> Result<(), BenchError> {
        self.wait_in_sync(patience)
    }

    fn durable_mark(&self) -> Option<u64> {
        self.statuses().first()?.in_sync_at.map(|at| at.sequence)
    }

    fn durable_since(&self, mark: u64) -> Option<bool> {
        let statuses = self.statuses();
        let is_past = |status: &SenderStatus| status.in_sync_at.is_some_and(|at| at.sequence > mark);
        Some(self.are_in_sync() && statuses.iter().all(is_past))
    }

    fn rescans(&self) -> Option<u64> {
        self.counter("rescans")
    }

    fn counted(&self) -> (Option<u64>, Option<u64>) {
        (
            self.counter("wire_bytes_sent"),
            self.counter("wire_bytes_received"),
        )
    }

    /// What the receiver has written: it counts files when they are complete, and databases write little.
    fn arrived(&self, _name: &str) -> Option<u64> {
        process::written(self.receivers.first()?.daemon.id())
    }

    /// The receivers are killed and started again, with the same addresses.
    fn cut(&mut self, stage: &Stage, pause: Duration) -> Result<(), BenchError> {
        self.take_away()?;
        std::thread::sleep(pause);
        self.bring_back(stage)
    }

    fn take_away(&mut self) -> Result<(), BenchError> {
        self.receivers
            .drain(..)
            .for_each(|receiver| receiver.daemon.kill());
        Ok(())
    }

    fn bring_back(&mut self, stage: &Stage) -> Result<(), BenchError> {
        for (index, address) in self.addresses.iter().enumerate() {
            let receiver = self.receive(stage, index, Some(address), &self.fingerprint)?;
            self.receivers.push(receiver);
        }
        Ok(())
    }

    fn complaints(&self) -> String {
        let daemons = self
            .sender
            .iter()
            .chain(self.receivers.iter().map(|receiver| &receiver.daemon));
        let said: Vec<String> = daemons
            .map(Daemon::complaints)
            .filter(|said| !said.is_empty())
            .collect();
        said.join("; ")
    }
}
