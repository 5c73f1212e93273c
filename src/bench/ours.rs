//! driftless as its users run it: `receive` and `seed` as separate processes with homes of their own.

use super::BenchError;
use super::check::Tree;
use super::cleanup;
use super::link::Side;
use super::runner::{Daemon, Stage};
use super::tool::{Run, Tool};
use serde_json::Value;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How long the receiver may take to be ready.
const PATIENCE: Duration = Duration::from_secs(20);

/// Its name in the table.
pub const NAME: &str = "driftless";

/// Which home is whose.
const SENDER: usize = 0;
const RECEIVER: usize = 1;

/// The program under test.
#[derive(Debug)]
pub struct Ours {
    program: PathBuf,
    homes: [PathBuf; 2],
    copy: PathBuf,
    receiver: Option<Receiver>,
}

impl Ours {
    /// This executable, with an empty copy below `copies`.
    ///
    /// # Errors
    /// When the directories cannot be made or the executable is not known.
    pub fn new(stage: &Stage, copies: &Path) -> Result<Ours, BenchError> {
        let program = program()?;
        let homes = [
            stage.workspace.directory("home-s")?,
            stage.workspace.directory("home-r")?,
        ];
        let copy = copies.join("driftless");
        std::fs::create_dir_all(&copy).map_err(|error| BenchError::io("make", &copy, &error))?;
        Ok(Ours {
            program,
            homes,
            copy,
            receiver: None,
        })
    }

    fn command(&mut self, stage: &Stage, source: &Path) -> Result<Command, BenchError> {
        let target = self.target(stage)?;
        Ok(seed(
            stage,
            &self.program,
            &self.homes[SENDER],
            source,
            target.as_ref(),
        ))
    }

    /// Starts the receiver if it does not run; gives its target.
    fn target(&mut self, stage: &Stage) -> Result<String, BenchError> {
        if let Some(receiver) = &self.receiver {
            return Ok(receiver.target.clone());
        }
        let sender = fingerprint(stage, &self.program, &self.homes[SENDER])?;
        let command = invocation(&self.program, &self.homes[RECEIVER]);
        let receiver = Receiver::start(stage, "receive", command, &self.copy, None, &sender)?;
        let target = receiver.target.clone();
        self.receiver = Some(receiver);
        Ok(target)
    }
}

/// What a sender with that home is called.
///
/// # Errors
/// When the program does not say.
pub(super) fn fingerprint(stage: &Stage, program: &Path, home: &Path) -> Result<String, BenchError> {
    let mut command = invocation(program, home);
    command.args(["id", "--json"]);
    text_of(&stage.run(command)?.output, "fingerprint")
        .ok_or_else(|| BenchError::new("`driftless id` gave no fingerprint"))
}

/// A receiver that runs.
#[derive(Debug)]
pub(super) struct Receiver {
    pub(super) daemon: Daemon,
    /// IP and port.
    pub(super) address: String,
    /// What senders are given.
    pub(super) target: String,
}

impl Receiver {
    /// Starts one that keeps `copy`, on `listen` (IP and port) or any free port. `invocation` is the program with its home,
    /// `name` is for files with what it says.
    ///
    /// # Errors
    /// When it does not come up.
    pub(super) fn start(
        stage: &Stage,
        name: &str,
        mut invocation: Command,
        copy: &Path,
        listen: Option<&str>,
        sender: &str,
    ) -> Result<Receiver, BenchError> {
        let any = format!("{}:0", stage.emulator.side(Side::B).address());
        invocation
            .arg("receive")
            .arg(copy)
            .args(["--module", "copy", "--json", "--listen", listen.unwrap_or(&any)])
            .args(["--allow", sender])
            .args(congestion(stage));
        let mut daemon = stage.daemon(Side::B, name, invocation)?;
        let (address, target) = daemon.wait_until(PATIENCE, |output| {
            let line = output.lines().next().filter(|_| output.contains('\n'))?;
            let address = text_of(line, "address")?;
            let target = format!("driftless://{}@{address}/copy", text_of(line, "identity")?);
            Some((address, target))
        })?;
        Ok(Receiver {
            daemon,
            address,
            target,
        })
    }
}

fn text_of(json: &str, field: &str) -> Option<String> {
    let value: Value = serde_json::from_str(json.trim()).ok()?;
    Some(value.get(field)?.as_str()?.to_owned())
}

/// A command that makes `target` like `source`.
#[must_use]
pub fn seed(stage: &Stage, program: &Path, home: &Path, source: &Path, target: &OsStr) -> Command {
    let mut command = invocation(program, home);
    command
        .arg("seed")
        .arg(source)
        .arg(target)
        .args(["--json", "--delete", "always"])
        .args(congestion(stage));
    command
}

/// How both ends are told their congestion control.
pub(super) fn congestion(stage: &Stage) -> [String; 2] {
    ["--congestion".to_owned(), stage.congestion.to_string()]
}

/// What `seed` counted itself: bytes sent and received, as UDP payload.
#[must_use]
pub fn counted(output: &str) -> (Option<u64>, Option<u64>) {
    let summary: Value = output
        .lines()
        .last()
        .and_then(|line| serde_json::from_str(line).ok())
        .unwrap_or_default();
    let counter = |name: &str| summary["counters"][name].as_u64();
    (counter("wire_bytes_sent"), counter("wire_bytes_received"))
}

/// The file of this program.
///
/// # Errors
/// When the system does not know it.
pub fn program() -> Result<PathBuf, BenchError> {
    std::env::current_exe()
        .map_err(|error| BenchError::new(format!("cannot find this program's own file: {error}")))
}

/// A command of driftless with a home of its own.
#[must_use]
pub fn invocation(program: &Path, home: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("DRIFTLESS_HOME", home).env_remove("RUST_LOG");
    command
}

impl Tool for Ours {
    fn name(&self) -> &str {
        NAME
    }

    fn durable(&self) -> bool {
        true
    }

    fn is_ours(&self) -> bool {
        true
    }

    fn reset(&mut self, stage: &Stage) -> Result<(), BenchError> {
        self.forget(stage)?;
        cleanup::empty(&self.copy)
    }

    fn forget(&mut self, _stage: &Stage) -> Result<(), BenchError> {
        self.receiver = None;
        self.homes.iter().try_for_each(|home| cleanup::empty(home))?;
        // It keeps a number there, by which it knows the copy again.
        for entry in std::fs::read_dir(&self.copy).into_iter().flatten().flatten() {
            if entry.file_name().as_bytes().starts_with(b".driftless") {
                let _ = std::fs::remove_file(entry.path());
            }
        }
        Ok(())
    }

    fn prepare(&mut self, stage: &Stage, source: &Path) -> Result<(), BenchError> {
        let command = self.command(stage, source)?;
        stage.run_on(Side::B, command).map(drop)
    }

    fn sync(&mut self, stage: &Stage, source: &Path) -> Result<Run, BenchError> {
        let command = self.command(stage, source)?;
        let receiver = self.receiver.as_ref().map(|receiver| &receiver.daemon);
        stage.measure(command, receiver, counted)
    }

    fn difference(
        &mut self,
        _stage: &Stage,
        _source: &Path,
        wanted: &Tree,
    ) -> Result<Option<String>, BenchError> {
        wanted.difference_on_disk(&self.copy)
    }
}
