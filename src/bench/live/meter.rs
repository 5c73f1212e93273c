//! What a run costs from its beginning to its end: bytes, processor time, memory.

use super::super::BenchError;
use super::super::runner::{MemoryWatch, Stage};
use super::super::tool::Run;
use super::figures::Figures;
use super::follower::Follower;
use super::process;
use std::time::Duration;

/// Counts while a tool works.
pub(super) struct Meter {
    cpu: [Duration; 2],
    memory: [Vec<MemoryWatch>; 2],
    counted: (Option<u64>, Option<u64>),
}

/// Processor time so far of the sending and of the receiving side's processes.
pub(super) fn cpu(tool: &dyn Follower) -> [Duration; 2] {
    [tool.senders(), tool.receivers()].map(|ids| ids.into_iter().map(process::cpu).sum())
}

/// What the daemons hold now: memory, and watches in the kernel.
pub(super) fn held(tool: &dyn Follower) -> Figures {
    let sum = |ids: Vec<u32>, value: fn(u32) -> u64| Some(ids.into_iter().map(value).sum());
    Figures {
        resident_sender: sum(tool.senders(), process::resident),
        resident_receiver: sum(tool.receivers(), process::resident),
        watches: sum(tool.senders(), process::watches),
        ..Figures::default()
    }
}

impl Meter {
    pub(super) fn start(stage: &Stage, tool: &dyn Follower) -> Meter {
        stage.count_bytes();
        Meter {
            cpu: cpu(tool),
            memory: [tool.senders(), tool.receivers()].map(watch),
            counted: tool.counted(),
        }
    }

    /// Only bytes from now on count.
    pub(super) fn restart_bytes(&mut self, stage: &Stage, tool: &dyn Follower) {
        stage.count_bytes();
        self.counted = tool.counted();
    }

    /// Only processor time from now on counts, and that of what runs now; its memory is watched too.
    pub(super) fn look_again(&mut self, tool: &dyn Follower) {
        self.cpu = cpu(tool);
        self.memory[0].extend(watch(tool.senders()));
        self.memory[1].extend(watch(tool.receivers()));
    }

    /// Puts everything into a run; what the scenario measured itself stays.
    pub(super) fn finish(self, stage: &Stage, tool: &dyn Follower, run: &mut Run) -> Result<(), BenchError> {
        let since = |now: Option<u64>, then: Option<u64>| {
            // A program that was started anew counts anew.
            now.map(|now| now.checked_sub(then.unwrap_or_default()).unwrap_or(now))
        };
        let now = tool.counted();
        let counted = (since(now.0, self.counted.0), since(now.1, self.counted.1));
        stage.finish_run(run, counted)?;
        let now = cpu(tool);
        // Where nobody is, nothing is measured, not even nothing.
        let has_daemons = [tool.senders(), tool.receivers()].map(|ids| !ids.is_empty());
        let used = |side: usize| {
            let time = now[side].saturating_sub(self.cpu[side]);
            has_daemons[side].then_some(time.as_secs_f64())
        };
        run.cpu_sender_s = run.cpu_sender_s.or(used(0));
        run.cpu_receiver_s = run.cpu_receiver_s.or(used(1));
        let peak = |watches: Vec<MemoryWatch>| watches.into_iter().filter_map(MemoryWatch::finish).max();
        let [senders, receivers] = self.memory;
        (run.peak_sender, run.peak_receiver) = (peak(senders), peak(receivers));
        Ok(())
    }
}

/// Watches the memory of processes from now on.
fn watch(ids: Vec<u32>) -> Vec<MemoryWatch> {
    let one = |id| {
        // Starts the high-water mark anew.
        let _ = std::fs::write(format!("/proc/{id}/clear_refs"), "5");
        MemoryWatch::start(id)
    };
    ids.into_iter().map(one).collect()
}
