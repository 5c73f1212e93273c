//! What the sending side costs while its target is away and the source keeps changing.

use super::super::BenchError;
use super::super::corpus;
use super::super::plan::Plan;
use super::super::tool::Run;
use super::Bed;
use super::changes::moved;
use super::figures::Figures;
use super::follower::Follower;
use super::meter::Meter;
use super::observe::{Patience, Wanted, all_visible};
use super::quiet;
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

/// Operations a second in the source.
const PER_SECOND: u32 = 5_000;
/// What one round of [`churn`] does: create and write, rename, remove.
const OPERATIONS: u64 = 3;
/// In one round of so many the file stays.
const STAYS: u64 = 50;
/// Directories in which that happens.
const DIRECTORIES: u64 = 10;

/// How long changes go on before the window begins, so that the sender has found out that nobody answers.
const NOTICED: Duration = Duration::from_secs(2);

/// How long the target is away, at least.
fn length(plan: &Plan) -> Duration {
    Duration::from_secs(if plan.quick { 3 } else { 5 })
}

/// How many files there would be if all stayed.
pub(super) fn files_at_most(plan: &Plan) -> u64 {
    (NOTICED + length(plan)).as_secs() * u64::from(PER_SECOND) / OPERATIONS
}

pub(super) fn prepare(bed: &Bed<'_>) -> io::Result<()> {
    corpus::source_tree(&bed.source, bed.plan.seed, bed.plan.size / 8)?;
    restore(bed)
}

pub(super) fn restore(bed: &Bed<'_>) -> io::Result<()> {
    let root = bed.source.join("churn");
    match fs::remove_dir_all(&root) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => fs::create_dir(&root)?,
    }
    (0..DIRECTORIES).try_for_each(|number| fs::create_dir(root.join(format!("d{number}"))))
}

/// Takes the target away, changes the source at a steady pace, and brings the target back.
pub(super) fn away(
    bed: &mut Bed<'_>,
    tool: &mut dyn Follower,
    meter: &mut Meter,
    run: &mut Run,
) -> Result<Figures, BenchError> {
    let root = bed.source.join("churn");
    tool.take_away()?;
    let failed = |error: io::Error| BenchError::io("change files in", &root, &error);
    let mut churned = Churned::default();
    churn(&root, NOTICED, &mut churned).map_err(failed)?;
    let (before, mut outcome) = (churned.operations, Ok(()));
    let figures = quiet::window(tool, run, || {
        outcome = churn(&root, length(bed.plan), &mut churned);
    })?;
    outcome.map_err(failed)?;
    tool.bring_back(bed.stage)?;
    let since = Instant::now();
    // There was nobody to measure; what it costs to catch up is known when both trees are equal.
    run.cpu_receiver_s = None;
    meter.look_again(tool);
    let wanted = moved(&churned.staying, &bed.source, &tool.copies()[0]);
    let health = || tool.health();
    let seen = all_visible(&wanted, &mut Patience::new(bed.patience(), &health))?;
    Ok(Figures {
        resident_receiver: None,
        source_per_s: figures
            .window_s
            .map(|seconds| (churned.operations - before) as f64 / seconds),
        caught_up_s: Some((seen - since).as_secs_f64()),
        ..figures
    })
}

/// What [`churn`] did.
#[derive(Default)]
struct Churned {
    operations: u64,
    rounds: u64,
    /// Files that are still there.
    staying: Vec<Wanted>,
}

/// Makes, renames and removes files, each under names of its own, as long as that. Each operation has its time, counted from
/// the beginning: after a delay the next ones follow at once, so that the pace holds if the machine can keep it at all.
fn churn(root: &Path, length: Duration, churned: &mut Churned) -> io::Result<()> {
    let (began, before) = (Instant::now(), churned.operations);
    let mut operate = |operation: &mut dyn FnMut() -> io::Result<()>| {
        let due = began + Duration::from_secs(churned.operations - before) / PER_SECOND;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        churned.operations += 1;
        operation()
    };
    while began.elapsed() < length {
        let round = churned.rounds;
        let directory = root.join(format!("d{}", round % DIRECTORIES));
        let [new, path] = ["new", "file"].map(|name| directory.join(format!("{name}-{round}")));
        let content = format!("round {round}\n").repeat(1 + round as usize % 100);
        operate(&mut || fs::write(&new, &content))?;
        operate(&mut || fs::rename(&new, &path))?;
        if round.is_multiple_of(STAYS) {
            churned.staying.push(Wanted {
                path,
                size: content.len() as u64,
            });
        } else {
            operate(&mut || fs::remove_file(&path))?;
        }
        churned.rounds += 1;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_is_never_exceeded_and_what_stays_is_told() {
        let root = tempfile::tempdir().unwrap();
        for number in 0..DIRECTORIES {
            fs::create_dir(root.path().join(format!("d{number}"))).unwrap();
        }
        let began = Instant::now();
        let mut churned = Churned::default();
        churn(root.path(), Duration::from_millis(100), &mut churned).unwrap();
        let most = began.elapsed().as_secs_f64() * f64::from(PER_SECOND) + 1.0;
        assert!(churned.operations > 0);
        assert!(
            (churned.operations as f64) <= most,
            "{} of {most}",
            churned.operations
        );
        let is_file = |path: &std::path::PathBuf| path.is_file();
        let left = corpus::walk(root.path()).unwrap().into_iter().filter(is_file);
        assert_eq!(left.count(), churned.staying.len());
        for file in churned.staying {
            assert_eq!(fs::metadata(&file.path).unwrap().len(), file.size);
        }
    }
}
