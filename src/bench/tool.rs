//! What the compared tools have in common, and what one run of a tool comes to.

use super::BenchError;
use super::check::Tree;
use super::link::Side;
use super::runner::{Daemon, Stage};
use serde::Serialize;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// One measured run.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Run {
    /// Seconds from start to end.
    pub wall_s: f64,
    /// Bytes that the sending side sent.
    pub bytes_up: Option<u64>,
    /// Bytes that the receiving side sent.
    pub bytes_down: Option<u64>,
    /// Processor seconds of the sending side's programs.
    pub cpu_sender_s: Option<f64>,
    /// Processor seconds of the receiving side's programs.
    pub cpu_receiver_s: Option<f64>,
    /// Peak memory of the largest process of the sending side, in bytes.
    pub peak_sender: Option<u64>,
    /// Peak memory of the largest process of the receiving side, in bytes.
    pub peak_receiver: Option<u64>,
    /// Whether the copy was compared with the source after the run, and was equal.
    pub verified: bool,
    /// Whether the link emulator itself kept up.
    pub link_sound: bool,
    /// What only live scenarios measure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub live: Option<super::live::Figures>,
}

/// A tool that makes a copy of a tree equal to the tree, once per call.
pub trait Tool {
    /// Name in the table.
    fn name(&self) -> &str;
    /// Whether what it reports as done would survive a power cut.
    fn durable(&self) -> bool;
    /// Whether this is driftless.
    fn is_ours(&self) -> bool {
        false
    }
    /// Empties the copy and forgets everything: the next run is the first contact.
    ///
    /// # Errors
    /// When that fails.
    fn reset(&mut self, stage: &Stage) -> Result<(), BenchError>;
    /// Forgets everything, but keeps the copy.
    ///
    /// # Errors
    /// When that fails.
    fn forget(&mut self, stage: &Stage) -> Result<(), BenchError>;
    /// Makes the copy equal, unmeasured and, where both ends are here, without the link between.
    ///
    /// # Errors
    /// When the tool fails.
    fn prepare(&mut self, stage: &Stage, source: &Path) -> Result<(), BenchError>;
    /// Makes the copy equal.
    ///
    /// # Errors
    /// When the tool fails.
    fn sync(&mut self, stage: &Stage, source: &Path) -> Result<Run, BenchError>;
    /// The first difference of the copy to the source, in words. `wanted` is the source as it is on the disk.
    ///
    /// # Errors
    /// When they cannot be compared.
    fn difference(
        &mut self,
        stage: &Stage,
        source: &Path,
        wanted: &Tree,
    ) -> Result<Option<String>, BenchError>;
}

impl Stage {
    /// Runs a command on the sending side and measures it together with the far end, if that is on this machine. `counted`
    /// finds in the command's output how many bytes it sent and received, which is used where no link counts them.
    ///
    /// # Errors
    /// When the command fails, with what the far end said.
    pub fn measure(
        &self,
        command: Command,
        far_end: Option<&Daemon>,
        counted: impl FnOnce(&str) -> (Option<u64>, Option<u64>),
    ) -> Result<Run, BenchError> {
        let watched = far_end.map(|daemon| (daemon.watch_memory(), daemon.cpu(), daemon));
        self.count_bytes();
        let finished = self
            .run(command)
            .map_err(|error| match far_end.map(Daemon::complaints) {
                Some(said) if !said.is_empty() => {
                    BenchError::new(format!("{error}; the far end said: {said}"))
                }
                _ => error,
            })?;
        let mut run = Run {
            wall_s: finished.wall.as_secs_f64(),
            cpu_sender_s: Some(finished.cpu.as_secs_f64()),
            peak_sender: finished.peak,
            ..Run::default()
        };
        if let Some((memory, before, daemon)) = watched {
            daemon.wait_for_children();
            run.cpu_receiver_s = Some(daemon.cpu().saturating_sub(before).as_secs_f64());
            run.peak_receiver = memory.finish();
        }
        self.finish_run(&mut run, counted(&finished.output))?;
        Ok(run)
    }

    /// Starts to count bytes.
    pub fn count_bytes(&self) {
        self.emulator.reset_counters();
    }

    /// Bytes both ways over the emulated link since, and whether the emulator kept up; `None` on loop. Waits for what
    /// is still under way.
    ///
    /// # Errors
    /// When the emulator failed.
    pub fn bytes(&self) -> Result<Option<(u64, u64, bool)>, BenchError> {
        let super::link::Link::Wan(spec) = self.emulator.link() else {
            return Ok(None);
        };
        std::thread::sleep(spec.rtt + Duration::from_millis(20));
        let counters = self
            .emulator
            .counters()
            .map_err(|error| BenchError::new(error.to_string()))?;
        Ok(Some((
            counters.sent_by(Side::A).bytes_in,
            counters.sent_by(Side::B).bytes_in,
            counters.sound(),
        )))
    }

    /// Puts the bytes into a run: those of the link, or on loop those that the tool counted itself.
    ///
    /// # Errors
    /// When the emulator failed.
    pub fn finish_run(&self, run: &mut Run, counted: (Option<u64>, Option<u64>)) -> Result<(), BenchError> {
        let measured = self.bytes()?;
        (run.bytes_up, run.bytes_down) = measured.map_or(counted, |(up, down, _)| (Some(up), Some(down)));
        run.link_sound = measured.is_none_or(|(_, _, sound)| sound);
        Ok(())
    }
}
