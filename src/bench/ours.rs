//! driftless as its users run it: `receive` and `seed` as separate processes with homes of their own.

use super::BenchError;
use super::cleanup;
use super::link::Side;
use super::runner::{Daemon, Stage};
use super::tool::{Run, Tool};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How long the receiver may take to be ready.
const PATIENCE: Duration = Duration::from_secs(20);

/// The program under test.
#[derive(Debug)]
pub struct Ours {
    program: PathBuf,
    homes: [PathBuf; 2],
    copy: PathBuf,
    receiver: Option<(Daemon, String)>,
}

impl Ours {
    /// This executable, with an empty copy below `copies`.
    ///
    /// # Errors
    /// When the directories cannot be made or the executable is not known.
    pub fn new(stage: &Stage, copies: &Path) -> Result<Ours, BenchError> {
        let program = std::env::current_exe()
            .map_err(|error| BenchError::new(format!("cannot find this program's own file: {error}")))?;
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

    fn command(&self, home: usize) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env("DRIFTLESS_HOME", &self.homes[home])
            .env_remove("RUST_LOG");
        command
    }

    /// Starts the receiver if it does not run; gives its target.
    fn target(&mut self, stage: &Stage) -> Result<String, BenchError> {
        if let Some((_, target)) = &self.receiver {
            return Ok(target.clone());
        }
        let mut command = self.command(0);
        command.args(["id", "--json"]);
        let answer = stage.run(command)?.output;
        let sender = text_of(&answer, "fingerprint")
            .ok_or_else(|| BenchError::new("`driftless id` gave no fingerprint"))?;
        let mut command = self.command(1);
        command
            .arg("receive")
            .arg(&self.copy)
            .args(["--module", "copy", "--json", "--listen"]);
        command
            .arg(format!("{}:0", stage.emulator.side(Side::B).address()))
            .args(["--allow", &sender]);
        let mut daemon = stage.daemon(Side::B, "receive", command)?;
        let target = daemon.wait_until(PATIENCE, |output| {
            let line = output.lines().next().filter(|_| output.contains('\n'))?;
            Some(format!(
                "driftless://{}@{}/copy",
                text_of(line, "identity")?,
                text_of(line, "address")?
            ))
        })?;
        self.receiver = Some((daemon, target.clone()));
        Ok(target)
    }
}

fn text_of(json: &str, field: &str) -> Option<String> {
    let value: Value = serde_json::from_str(json.trim()).ok()?;
    Some(value.get(field)?.as_str()?.to_owned())
}

impl Tool for Ours {
    fn name(&self) -> &str {
        "driftless"
    }

    fn durable(&self) -> bool {
        true
    }

    fn is_ours(&self) -> bool {
        true
    }

    fn copy(&self) -> &Path {
        &self.copy
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
            if std::os::unix::ffi::OsStrExt::as_bytes(entry.file_name().as_os_str())
                .starts_with(b".driftless")
            {
                let _ = std::fs::remove_file(entry.path());
            }
        }
        Ok(())
    }

    fn sync(&mut self, stage: &Stage, source: &Path) -> Result<Run, BenchError> {
        let target = self.target(stage)?;
        let mut command = self.command(0);
        command
            .arg("seed")
            .arg(source)
            .arg(target)
            .args(["--json", "--delete", "always"]);
        let Some((receiver, _)) = &self.receiver else {
            return Err(BenchError::new("the receiver is gone"));
        };
        let (memory, before) = (receiver.watch_memory(), receiver.cpu());
        stage.count_bytes();
        let finished = stage.run(command).map_err(|error| {
            BenchError::new(format!("{error}; the receiver said: {}", receiver.complaints()))
        })?;
        let mut run = Run {
            wall_s: finished.wall.as_secs_f64(),
            cpu_sender_s: Some(finished.cpu.as_secs_f64()),
            cpu_receiver_s: Some((receiver.cpu() - before).as_secs_f64()),
            peak_sender: Some(finished.peak),
            peak_receiver: Some(memory.finish()),
            ..Run::default()
        };
        let summary: Value = finished
            .output
            .lines()
            .last()
            .and_then(|line| serde_json::from_str(line).ok())
            .unwrap_or_default();
        let counted = |name: &str| summary["counters"][name].as_u64();
        stage.finish_run(
            &mut run,
            (counted("wire_bytes_sent"), counted("wire_bytes_received")),
        )?;
        Ok(run)
    }
}
