//! Which processors run what: a program whose time is taken has one of its own, so that what it loses is what following the
//! source costs it, and not that there are more threads than processors.

use super::super::runner::family;
use super::follower::Follower;
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::fs;

/// While this lives, this thread has a processor of its own.
pub(super) struct OwnCore {
    before: CpuSet,
    tool: Vec<Pid>,
}

impl OwnCore {
    /// Takes one from the tool, and its processes from that. `None` where there is only one processor.
    pub(super) fn take(tool: &dyn Follower) -> Option<OwnCore> {
        let before = sched_getaffinity(None).ok()?;
        let allowed: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|cpu| before.is_set(*cpu)).collect();
        let (&own, others) = allowed.split_last()?;
        if others.is_empty() {
            return None;
        }
        sched_setaffinity(None, &set(&[own])).ok()?;
        let tool = threads(tool);
        place(&tool, &set(others));
        Some(OwnCore { before, tool })
    }
}

impl Drop for OwnCore {
    fn drop(&mut self) {
        place(&self.tool, &self.before);
        // It was so before, so it can be so again.
        let _ = sched_setaffinity(None, &self.before);
    }
}

/// All threads of a tool's processes, and of what these started.
fn threads(tool: &dyn Follower) -> Vec<Pid> {
    let ids = [tool.senders(), tool.receivers()]
        .concat()
        .into_iter()
        .flat_map(family);
    let tasks = ids.filter_map(|id| fs::read_dir(format!("/proc/{id}/task")).ok());
    let numbers = tasks
        .flatten()
        .filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok());
    numbers.filter_map(Pid::from_raw).collect()
}

/// What they start later comes there as well. One that has ended is no loss.
fn place(threads: &[Pid], processors: &CpuSet) {
    for thread in threads {
        let _ = sched_setaffinity(Some(*thread), processors);
    }
}

fn set(processors: &[usize]) -> CpuSet {
    let mut set = CpuSet::new();
    processors.iter().for_each(|cpu| set.set(*cpu));
    set
}
