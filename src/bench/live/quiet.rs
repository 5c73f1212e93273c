//! What daemons cost while nothing happens in the source.

use super::super::BenchError;
use super::super::corpus;
use super::super::tool::Run;
use super::Bed;
use super::figures::{Figures, Measure};
use super::follower::Follower;
use super::meter;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Daemons are at rest when they use less than this in [`REST_WINDOW`].
const REST: Duration = Duration::from_millis(5);
const REST_WINDOW: Duration = Duration::from_millis(500);
/// After this they count as at rest, whatever they do: that is what they do at rest.
const REST_PATIENCE: Duration = Duration::from_secs(10);
/// What one round of [`churn`] does to a directory: create, write, close, rename, remove.
const OPERATIONS: u64 = 5;

pub(super) fn prepare_idle(bed: &Bed<'_>) -> io::Result<()> {
    corpus::source_tree(&bed.source, bed.plan.seed, bed.plan.size)
}

pub(super) fn prepare_neighbour(bed: &Bed<'_>) -> io::Result<()> {
    corpus::source_tree(&bed.source, bed.plan.seed, bed.plan.size / 8)
}

pub(super) fn idle(bed: &mut Bed<'_>, tool: &mut dyn Follower, run: &mut Run) -> Result<Figures, BenchError> {
    let length = Duration::from_secs(if bed.plan.quick { 3 } else { 10 });
    window(tool, run, || std::thread::sleep(length))
}

pub(super) fn neighbour(
    bed: &mut Bed<'_>,
    tool: &mut dyn Follower,
    run: &mut Run,
) -> Result<Figures, BenchError> {
    let length = Duration::from_secs(if bed.plan.quick { 2 } else { 5 });
    let directory = bed.aside.join("churn");
    fs::create_dir_all(&directory).map_err(|error| BenchError::io("make", &directory, &error))?;
    let (mut rounds, stop) = (Ok(0), AtomicBool::new(false));
    let mut figures = window(tool, run, || {
        std::thread::scope(|scope| {
            let churn = scope.spawn(|| churn(&directory, &stop));
            std::thread::sleep(length);
            stop.store(true, Ordering::Relaxed);
            rounds = churn
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        });
    })?;
    let rounds = rounds.map_err(|error| BenchError::io("change files in", &directory, &error))?;
    let seconds = figures.window_s.unwrap_or(1.0);
    figures.foreign_per_s = Some((rounds * OPERATIONS) as f64 / seconds);
    Ok(figures)
}

/// Makes, renames and removes files until it is stopped; says how often.
fn churn(directory: &Path, stop: &AtomicBool) -> io::Result<u64> {
    let (one, other) = (directory.join("one"), directory.join("other"));
    let mut rounds = 0;
    while !stop.load(Ordering::Relaxed) {
        fs::write(&one, b"churn")?;
        fs::rename(&one, &other)?;
        fs::remove_file(&other)?;
        rounds += 1;
    }
    Ok(rounds)
}

/// What a tool's processes use while `pass` lets time pass.
pub(super) fn window(
    tool: &mut dyn Follower,
    run: &mut Run,
    pass: impl FnOnce(),
) -> Result<Figures, BenchError> {
    wait_for_rest(tool);
    tool.health()?;
    let (before, since) = (meter::cpu(tool), Instant::now());
    pass();
    let (after, length) = (meter::cpu(tool), since.elapsed());
    tool.health()?;
    let [sender, receiver] = [0, 1].map(|side| after[side].saturating_sub(before[side]).as_secs_f64());
    (run.cpu_sender_s, run.cpu_receiver_s) = (Some(sender), Some(receiver));
    run.wall_s = length.as_secs_f64();
    Ok(Figures {
        measure: Measure::Cpu,
        window_s: Some(run.wall_s),
        ..meter::held(tool)
    })
}

/// Waits until the daemons have nothing to do any more, or for some seconds.
pub(super) fn wait_for_rest(tool: &dyn Follower) {
    let began = Instant::now();
    loop {
        let before: Duration = meter::cpu(tool).into_iter().sum();
        std::thread::sleep(REST_WINDOW);
        let after: Duration = meter::cpu(tool).into_iter().sum();
        if after.saturating_sub(before) < REST || began.elapsed() > REST_PATIENCE {
            return;
        }
    }
}
