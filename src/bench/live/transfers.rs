//! Transfers that take a while: small changes beside one, one to several targets, and one that is interrupted.

use super::super::BenchError;
use super::super::corpus::{self, Kind, Rng, Text};
use super::super::tool::Run;
use super::Bed;
use super::changes::{SMALL, milliseconds, moved, single_changes};
use super::figures::Figures;
use super::follower::Follower;
use super::meter::Meter;
use super::observe::{Arrival, Patience, Wanted, all_visible, until};
use super::scenario::{TARGETS, large};
use std::fs;
use std::io;
use std::time::{Duration, Instant};

/// How long the receiving end is away.
const AWAY: Duration = Duration::from_secs(1);
/// How long nothing passes. Connections of either kind survive it.
const OUTAGE: Duration = Duration::from_secs(5);

/// A small tree, and a large file beside the source that is renamed into it: so it appears at once.
pub(super) fn prepare_large(bed: &Bed<'_>) -> io::Result<()> {
    let directory = bed.source.join("small");
    fs::create_dir(&directory)?;
    corpus::small_files(&directory, bed.plan.seed, 20)?;
    fs::create_dir(bed.source.join("notes"))?;
    fs::write(bed.source.join("notes/note"), vec![b'.'; SMALL])?;
    corpus::file(
        &bed.aside.join("large"),
        bed.plan.seed,
        Kind::Media,
        large(bed.plan),
    )
}

pub(super) fn restore_large(bed: &Bed<'_>) -> io::Result<()> {
    back(bed, "large")
}

fn back(bed: &Bed<'_>, name: &str) -> io::Result<()> {
    match fs::rename(bed.source.join(name), bed.aside.join(name)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Lets something appear in the source, and says when.
fn appear(bed: &Bed<'_>, name: &str) -> Result<Instant, BenchError> {
    let (from, since) = (bed.aside.join(name), Instant::now());
    fs::rename(&from, bed.source.join(name)).map_err(|error| BenchError::io("rename", &from, &error))?;
    Ok(since)
}

/// Edits a small file again and again until the large one has arrived.
pub(super) fn big_beside_small(
    bed: &mut Bed<'_>,
    tool: &mut dyn Follower,
    run: &mut Run,
) -> Result<Figures, BenchError> {
    let copy = tool.copies()[0].clone();
    let health = || tool.health();
    let (note, noted) = (bed.source.join("notes/note"), copy.join("notes/note"));
    let (text, mut rng) = (Text::new(bed.plan.seed), Rng::new(bed.plan.seed, 3000 + bed.run));
    let large = Wanted {
        path: copy.join("large"),
        size: large(bed.plan),
    };
    let is_there = || fs::metadata(&large.path).is_ok_and(|meta| meta.len() == large.size);
    let mut arrival = Arrival::watch(&copy.join("notes"))?;
    let (since, mut all) = (appear(bed, "large")?, Vec::new());
    while all.is_empty() || !is_there() {
        bed.pause(20, 120);
        let content = text.block(&mut rng, SMALL);
        let edited = Instant::now();
        fs::write(&note, &content).map_err(|error| BenchError::io("write", &note, &error))?;
        let seen = arrival.wait(&noted, &content, &mut Patience::new(bed.patience(), &health))?;
        all.push(milliseconds(seen - edited));
    }
    let mut patience = Patience::new(bed.patience(), &health);
    let seen = all_visible(std::slice::from_ref(&large), &mut patience)?;
    Ok(Figures {
        // Noticed after an edit only, so at most one edit and one pause late.
        transfer_s: Some((seen - since).as_secs_f64()),
        ..single_changes(all, run)?
    })
}

pub(super) fn prepare_fan_out(bed: &Bed<'_>) -> io::Result<()> {
    corpus::source_tree(&bed.source, bed.plan.seed, bed.plan.size / 64)?;
    let tree = bed.aside.join("tree");
    fs::create_dir(&tree)?;
    corpus::source_tree(&tree, bed.plan.seed + 1, bed.plan.size / 4)
}

pub(super) fn restore_fan_out(bed: &Bed<'_>) -> io::Result<()> {
    back(bed, "tree")
}

pub(super) fn fan_out(
    bed: &mut Bed<'_>,
    tool: &mut dyn Follower,
    run: &mut Run,
) -> Result<Figures, BenchError> {
    let files = corpus::walk(&bed.aside.join("tree"))
        .and_then(|paths| {
            let files = paths.into_iter().map(|path| Ok((path.symlink_metadata()?, path)));
            files.collect::<io::Result<Vec<_>>>()
        })
        .map_err(|error| BenchError::io("read", &bed.aside, &error))?;
    let files: Vec<Wanted> = files
        .into_iter()
        .filter(|(meta, _)| meta.is_file())
        .map(|(meta, path)| Wanted {
            size: meta.len(),
            path,
        })
        .collect();
    let each = tool.copies()[..TARGETS]
        .iter()
        .map(|copy| moved(&files, &bed.aside, copy));
    let wanted: Vec<Wanted> = each.flatten().collect();
    let health = || tool.health();
    let mut patience = Patience::new(bed.patience(), &health);
    let since = appear(bed, "tree")?;
    let seen = all_visible(&wanted, &mut patience)?;
    run.wall_s = (seen - since).as_secs_f64();
    Ok(Figures {
        targets: Some(TARGETS),
        ..Figures::default()
    })
}

/// Breaks the connection when half of the large file has arrived.
pub(super) fn resume(
    bed: &mut Bed<'_>,
    tool: &mut dyn Follower,
    meter: &mut Meter,
    run: &mut Run,
) -> Result<Figures, BenchError> {
    interrupt(bed, tool, meter, run, |bed, tool| {
        let since = Instant::now();
        tool.cut(bed.stage, AWAY).map(|()| since)
    })
}

/// Cuts the link when half of the large file has arrived.
pub(super) fn outage(
    bed: &mut Bed<'_>,
    tool: &mut dyn Follower,
    meter: &mut Meter,
    run: &mut Run,
) -> Result<Figures, BenchError> {
    interrupt(bed, tool, meter, run, |bed, _| {
        let emulator = &bed.stage.emulator;
        emulator.set_cut(true);
        std::thread::sleep(OUTAGE);
        emulator.set_cut(false);
        Ok(Instant::now())
    })
}

/// Lets something happen when half of the large file has arrived, and measures from the moment that `happen` answers to the
/// end of the transfer.
fn interrupt(
    bed: &mut Bed<'_>,
    tool: &mut dyn Follower,
    meter: &mut Meter,
    run: &mut Run,
    happen: impl FnOnce(&Bed<'_>, &mut dyn Follower) -> Result<Instant, BenchError>,
) -> Result<Figures, BenchError> {
    let (size, path) = (large(bed.plan), tool.copies()[0].join("large"));
    let before = tool.arrived("large").unwrap_or_default();
    appear(bed, "large")?;
    tool.nudge(bed.stage, &bed.source)?;
    let mut arrived = 0;
    {
        let health = || tool.health();
        let mut patience = Patience::new(bed.patience(), &health);
        until(
            &mut patience,
            &|| "half of the large file".to_owned(),
            &mut || {
                if path.exists() {
                    return Err(BenchError::new(
                        "the transfer was over before it could be interrupted (use a larger --size)",
                    ));
                }
                let told = tool.arrived("large").unwrap_or_default();
                arrived = told.saturating_sub(before);
                Ok(arrived >= size / 2)
            },
        )?;
    }
    meter.restart_bytes(bed.stage, tool);
    let since = happen(bed, tool)?;
    meter.look_again(tool);
    let health = || tool.health();
    let wanted = [Wanted { path, size }];
    let seen = all_visible(&wanted, &mut Patience::new(bed.patience(), &health))?;
    run.wall_s = (seen - since).as_secs_f64();
    Ok(Figures {
        cut_at: Some(arrived as f64 / size as f64),
        ..Figures::default()
    })
}
