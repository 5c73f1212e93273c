//! What the compared tools have in common, and what one run of a tool comes to.

use super::BenchError;
use super::link::Side;
use super::runner::Stage;
use serde::Serialize;
use std::path::Path;
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
    /// The copy.
    fn copy(&self) -> &Path;
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
    /// Makes the copy equal.
    ///
    /// # Errors
    /// When the tool fails.
    fn sync(&mut self, stage: &Stage, source: &Path) -> Result<Run, BenchError>;
}

impl Stage {
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
