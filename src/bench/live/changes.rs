//! Changes and how soon they are visible: single files, a burst of them, a rename, an append.

use super::super::BenchError;
use super::super::corpus::{self, Kind, Rng, Text, set_time, stamp};
use super::super::plan::Plan;
use super::super::tool::Run;
use super::Bed;
use super::figures::{Figures, Latency};
use super::follower::Follower;
use super::observe::{ARRIVAL_RESOLUTION_MS, Arrival, Patience, Wanted, all_visible, until};
use super::scenario::scaled;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// Size of a small file.
pub(super) const SMALL: usize = 1024;
/// Files in a directory of many.
pub(super) const FILES_PER_DIRECTORY: u64 = 1000;
/// Files of a burst, and of a directory that is renamed.
const MANY: u64 = 20_000;
const MANY_LEAST: u64 = 200;
/// As many of a renamed directory's files are looked for.
const LOOKED_FOR: usize = 500;

/// How many files a burst and a renamed directory have.
pub(super) fn many(plan: &Plan) -> u64 {
    scaled(plan, MANY, MANY_LEAST)
}

pub(super) fn prepare_latency(bed: &Bed<'_>) -> io::Result<()> {
    corpus::source_tree(&bed.source, bed.plan.seed, bed.plan.size / 8)?;
    fs::create_dir(bed.source.join("live"))
}

pub(super) fn restore_latency(bed: &Bed<'_>) -> io::Result<()> {
    for entry in fs::read_dir(bed.source.join("live"))? {
        fs::remove_file(entry?.path())?;
    }
    Ok(())
}

/// Creates files one by one; the next one when the last one is there.
pub(super) fn latency(
    bed: &mut Bed<'_>,
    tool: &mut dyn Follower,
    run: &mut Run,
) -> Result<Figures, BenchError> {
    let (wanted, most) = if bed.plan.quick {
        (10, Duration::from_secs(3))
    } else {
        (100, Duration::from_secs(30))
    };
    let copy = tool.copies()[0].join("live");
    let mut arrival = Arrival::watch(&copy)?;
    let health = || tool.health();
    let (text, mut rng) = (Text::new(bed.plan.seed), Rng::new(bed.plan.seed, 1000 + bed.run));
    let (began, mut all) = (Instant::now(), Vec::new());
    while all.len() < wanted && (began.elapsed() < most || all.len() < 3) {
        bed.pause(20, 120);
        let name = format!("{}-{}", bed.run, all.len());
        let (path, content) = (bed.source.join("live").join(&name), text.block(&mut rng, SMALL));
        let since = Instant::now();
        fs::write(&path, &content).map_err(|error| BenchError::io("write", &path, &error))?;
        let seen = arrival.wait(
            &copy.join(&name),
            &content,
            &mut Patience::new(bed.patience(), &health),
        )?;
        all.push(milliseconds(seen - since));
    }
    single_changes(all, run)
}

pub(super) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Half of the changes took at most what is told as the run's time.
pub(super) fn single_changes(all_ms: Vec<f64>, run: &mut Run) -> Result<Figures, BenchError> {
    let latency = Latency::of(all_ms, ARRIVAL_RESOLUTION_MS)
        .ok_or_else(|| BenchError::new("there was no time for a single change"))?;
    run.wall_s = latency.p50_ms / 1e3;
    Ok(Figures {
        latency: Some(latency),
        ..Figures::default()
    })
}

pub(super) fn prepare_burst(bed: &Bed<'_>) -> io::Result<()> {
    corpus::source_tree(&bed.source, bed.plan.seed, bed.plan.size / 64)
}

pub(super) fn restore_burst(bed: &Bed<'_>) -> io::Result<()> {
    match fs::remove_dir_all(bed.source.join("burst")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Creates many small files in new directories as fast as one thread can; gives them in that order, and when the last one
/// was begun.
fn make_many(root: &Path, seed: u64, count: u64) -> io::Result<(Vec<Wanted>, Instant)> {
    let (mut rng, mut noise) = (Rng::new(seed, 7), [0; SMALL]);
    rng.fill(&mut noise);
    fs::create_dir(root)?;
    let (mut made, mut last) = (Vec::new(), Instant::now());
    for index in 0..count {
        let directory = root.join(format!("d{:02}", index / FILES_PER_DIRECTORY));
        if index % FILES_PER_DIRECTORY == 0 {
            fs::create_dir(&directory)?;
        }
        let path = directory.join(format!("f{index:05}"));
        let size = 100 + rng.below(SMALL as u64 - 100);
        last = Instant::now();
        fs::write(&path, &noise[..size as usize])?;
        made.push(Wanted { path, size });
    }
    Ok((made, last))
}

/// The same files below another directory.
pub(super) fn moved(files: &[Wanted], from: &Path, to: &Path) -> Vec<Wanted> {
    let move_one = |file: &Wanted| {
        let rest = file.path.strip_prefix(from).unwrap_or(&file.path);
        Wanted {
            path: to.join(rest),
            size: file.size,
        }
    };
    files.iter().map(move_one).collect()
}

pub(super) fn burst(
    bed: &mut Bed<'_>,
    tool: &mut dyn Follower,
    run: &mut Run,
) -> Result<Figures, BenchError> {
    let (mark, root) = (tool.durable_mark(), bed.source.join("burst"));
    let (made, last) = make_many(&root, bed.plan.seed, many(bed.plan))
        .map_err(|error| BenchError::io("make files in", &root, &error))?;
    let health = || tool.health();
    let mut patience = Patience::new(bed.patience(), &health);
    let wanted = moved(&made, &bed.source, &tool.copies()[0]);
    let applied = all_visible(&wanted, &mut patience)?;
    run.wall_s = (applied - last).as_secs_f64();
    let mut durable_s = None;
    if let Some(mark) = mark.filter(|mark| tool.durable_since(*mark).is_some()) {
        let is_durable = &mut || Ok(tool.durable_since(mark) == Some(true));
        let durable = until(
            &mut patience,
            &|| "everything to be durable".to_owned(),
            is_durable,
        )?;
        durable_s = Some((durable - last).as_secs_f64());
    }
    Ok(Figures {
        durable_s,
        ..Figures::default()
    })
}

pub(super) fn prepare_rename(bed: &Bed<'_>) -> io::Result<()> {
    make_many(&folder(bed, 0), bed.plan.seed, many(bed.plan)).map(|_| ())
}

/// The directory that is renamed, as it is called after so many runs.
fn folder(bed: &Bed<'_>, run: u64) -> std::path::PathBuf {
    bed.source.join(format!("folder-{run}"))
}

pub(super) fn rename(
    bed: &mut Bed<'_>,
    tool: &mut dyn Follower,
    run: &mut Run,
) -> Result<Figures, BenchError> {
    let failed = |error: io::Error| BenchError::io("rename", &bed.source, &error);
    // A run that failed before its rename leaves an older name.
    let old = (0..bed.run)
        .rev()
        .map(|run| folder(bed, run))
        .find(|path| path.exists());
    let old = old.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
    let (new, copy) = (folder(bed, bed.run), tool.copies()[0].clone());
    let on_copy = |path: &Path| copy.join(path.file_name().unwrap_or_default());
    let (gone, wanted) = (on_copy(&old), some_files(&old).map_err(failed)?);
    let wanted = moved(&wanted, &old, &on_copy(&new));
    let mut arrival = Arrival::watch(&copy)?;
    let health = || tool.health();
    let mut patience = Patience::new(bed.patience(), &health);
    let since = Instant::now();
    fs::rename(&old, &new).map_err(failed)?;
    let what = || format!("{} on the target", new.display());
    arrival.wait_until(&mut patience, &what, &mut || on_copy(&new).exists())?;
    all_visible(&wanted, &mut patience)?;
    let what = || format!("{} to be gone", gone.display());
    let seen = until(&mut patience, &what, &mut || Ok(!gone.exists()))?;
    run.wall_s = (seen - since).as_secs_f64();
    Ok(Figures::default())
}

/// Some files of a directory, evenly spread, in the order of their names.
fn some_files(root: &Path) -> io::Result<Vec<Wanted>> {
    let mut found = Vec::new();
    for path in corpus::walk(root)? {
        let meta = path.symlink_metadata()?;
        if meta.is_file() {
            found.push(Wanted {
                size: meta.len(),
                path,
            });
        }
    }
    let step = found.len().div_ceil(LOOKED_FOR).max(1);
    Ok(found.into_iter().rev().step_by(step).collect())
}

pub(super) fn prepare_append(bed: &Bed<'_>) -> io::Result<()> {
    corpus::file(&bed.source.join("log"), bed.plan.seed, Kind::Log, bed.plan.size)
}

pub(super) fn restore_append(bed: &Bed<'_>) -> io::Result<()> {
    let path = bed.source.join("log");
    OpenOptions::new()
        .write(true)
        .open(&path)?
        .set_len(bed.plan.size)?;
    // Another time than any before, so that nobody takes it for unchanged.
    set_time(&path, stamp(bed.run, 1))
}

pub(super) fn append(
    bed: &mut Bed<'_>,
    tool: &mut dyn Follower,
    run: &mut Run,
) -> Result<Figures, BenchError> {
    let path = bed.source.join("log");
    let mut line = [0; SMALL];
    Rng::new(bed.plan.seed, 2000 + bed.run).fill(&mut line);
    let wanted = Wanted {
        path: tool.copies()[0].join("log"),
        size: bed.plan.size + SMALL as u64,
    };
    let health = || tool.health();
    let since = Instant::now();
    OpenOptions::new()
        .append(true)
        .open(&path)
        .and_then(|mut file| file.write_all(&line))
        .map_err(|error| BenchError::io("append to", &path, &error))?;
    let seen = all_visible(&[wanted], &mut Patience::new(bed.patience(), &health))?;
    run.wall_s = (seen - since).as_secs_f64();
    Ok(Figures::default())
}
