//! `driftless bench`: a comparison with rsync and lsyncd that anyone can run.

use super::text::parse_bytes;
use super::{CliError, DONE, FAILED, output};
use crate::bench::cleanup::Workspace;
use crate::bench::link::Link;
use crate::bench::measure;
use crate::bench::plan::{Cache, Plan, Remote, TargetFs};
use crate::bench::progress::Progress;
use crate::bench::runner::Stage;
use crate::bench::{BenchError, chart, delta, html, volume};
use crate::net::Congestion;
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use serde_json::json;
use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Size of a corpus, of one of a quick run, and of the files of the micro mode.
const SIZE: u64 = 256 << 20;
const SIZE_QUICK: u64 = 4 << 20;
const SIZE_DELTA: u64 = 64 << 20;

/// Compare driftless with rsync and lsyncd on this machine
///
/// Makes its own data, runs all in turn, compares every copy with its source, and prints what driftless loses as well.
/// Everything is in one temporary directory, which is removed in the end. docs/bench.md has the method.
#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    /// The link: loop, w0 (80 ms, 200 Mbit/s), w1 (the same with 0.1 % loss), w2 (200 ms, 100 Mbit/s, 1 % loss), or
    /// settings as in rtt=80ms,rate=200mbit,loss=0.1%. All but loop need root
    #[arg(long, value_name = "LINK", default_value = "loop")]
    link: Link,
    /// Only this scenario; may be repeated
    #[arg(long, value_name = "NAME")]
    scenario: Vec<String>,
    /// Size of a corpus, as in 64MiB [default: 256MiB, with --quick 4MiB]
    #[arg(long, value_name = "BYTES", value_parser = parse_size)]
    size: Option<u64>,
    /// Runs of each tool [default: 3, with --quick 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1000))]
    runs: Option<u64>,
    /// Use a copy of this tree in place of the source-like one
    #[arg(long, value_name = "PATH")]
    tree: Option<PathBuf>,
    /// Less than a minute: small data, few runs, fewer variants of rsync and lsyncd, two live scenarios
    #[arg(long)]
    quick: bool,
    /// Where the data is [default: the directory for temporary files]; the report names its file system
    #[arg(long, value_name = "PATH")]
    dir: Option<PathBuf>,
    /// What the copies are on: dir (beside the source), tmpfs, ext4, xfs or btrfs. All but dir need root
    #[arg(long, value_name = "FS", default_value = "dir")]
    target_fs: TargetFs,
    /// What the page cache holds when a run begins, but a live one: warm or cold. As root, cold empties the cache of the whole machine
    #[arg(long, value_name = "STATE", default_value = "warm")]
    cache: Cache,
    /// TCP congestion control of rsync on an emulated link; further ones add rows [default: bbr and cubic]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    tcp_congestion: Vec<String>,
    /// Congestion control of driftless: auto, bdp, bbr, cubic or newreno
    #[arg(long, value_name = "NAME", default_value_t)]
    congestion: Congestion,
    /// A further option of `driftless send` in live scenarios, as in --send-with=--append-only=log; may be repeated
    #[arg(long, value_name = "OPTION")]
    send_with: Vec<String>,
    /// Use this running receiver. All is in a new directory there, which is empty in the end
    #[arg(long, value_name = "TARGET", conflicts_with_all = ["link", "target_fs", "tcp_congestion"])]
    remote: Option<OsString>,
    /// Beside it rsync over your own ssh, in a new directory below PATH, which is empty in the end
    #[arg(long, value_name = "USER@HOST:PATH", requires = "remote")]
    remote_rsync: Option<String>,
    /// Seed of the data
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Write all results as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write charts: a page (.html) or one picture (.svg, .png); may be repeated
    #[arg(long, value_name = "FILE", value_parser = parse_report)]
    report: Vec<ReportFile>,
    /// Only measure delta engines, in one thread: from OLD to NEW, or on files of its own
    #[arg(long, value_names = ["OLD", "NEW"], num_args = 0..=2,
        conflicts_with_all = ["quick", "tree", "scenario", "runs", "link", "remote", "cache", "target_fs", "report"])]
    delta: Option<Vec<PathBuf>>,
}

/// A file for charts.
#[derive(Debug, Clone)]
struct ReportFile {
    path: PathBuf,
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Html,
    Svg,
    Png,
}

impl From<BenchError> for CliError {
    fn from(error: BenchError) -> CliError {
        CliError::failed(error.to_string())
    }
}

impl BenchArgs {
    pub(super) fn run(&self) -> Result<u8, CliError> {
        let mut notes = Vec::new();
        if cfg!(debug_assertions) {
            notes.push("driftless was built without optimisation: its numbers mean nothing".to_owned());
        }
        if let Some(files) = &self.delta {
            notes.iter().for_each(|note| output::note(note));
            return self.measure_delta(files);
        }
        if self.target_fs != TargetFs::Dir {
            // First of all: threads that exist already would stay outside.
            volume::isolate()?;
        }
        let (emulator, link) = measure::start_link(self.link, &mut notes)?;
        let tcp = measure::choose_tcp(&emulator, &self.tcp_congestion, &mut notes)?;
        notes.iter().for_each(|note| output::note(note));
        let plan = self.plan(link, tcp);
        if self.congestion != Congestion::default() {
            notes.push(format!("driftless ran with --congestion {}", self.congestion));
        }
        if !self.send_with.is_empty() {
            notes.push(format!("driftless send ran with {}", self.send_with.join(" ")));
        }
        let stage = Stage {
            congestion: self.congestion,
            send_with: self.send_with.clone(),
            emulator,
            workspace: self.workspace()?,
        };
        let teller = Teller::new();
        let report = measure::run(&plan, &stage, notes, &|progress| teller.tell(&progress))?;
        drop((teller, stage));
        output::raw(&report.table());
        if let Some(file) = &self.json {
            write_json(file, &report)?;
        }
        for file in &self.report {
            let content = match file.format {
                Format::Html => html::page(&report)?.into_bytes(),
                Format::Svg => chart::svg(&report)?.into_bytes(),
                Format::Png => chart::png(&report)?,
            };
            write(&file.path, &content)?;
        }
        Ok(if report.all_verified() { DONE } else { FAILED })
    }

    fn plan(&self, link: Link, tcp: Vec<String>) -> Plan {
        Plan {
            link,
            scenarios: self.scenario.clone(),
            size: self.size.unwrap_or(if self.quick { SIZE_QUICK } else { SIZE }),
            runs: self.runs.unwrap_or(if self.quick { 2 } else { 3 }),
            tree: self.tree.clone(),
            seed: self.seed,
            quick: self.quick,
            tcp,
            cache: self.cache,
            target_fs: self.target_fs,
            remote: self.remote.clone().map(|target| Remote {
                target,
                rsync: self.remote_rsync.clone(),
            }),
        }
    }

    fn workspace(&self) -> Result<Workspace, BenchError> {
        Workspace::create(&self.dir.clone().unwrap_or_else(std::env::temp_dir))
    }

    fn measure_delta(&self, files: &[PathBuf]) -> Result<u8, CliError> {
        let workspace = self.workspace()?;
        let cases = match files {
            [] => delta::measure_corpora(self.seed, self.size.unwrap_or(SIZE_DELTA), workspace.path())?,
            [old, new] => {
                let what = format!("{} to {}", super::text::escaped(old), super::text::escaped(new));
                vec![delta::measure(&what, old, new, workspace.path())?]
            }
            _ => return Err(CliError::usage("--delta takes two files, OLD and NEW, or none")),
        };
        drop(workspace);
        output::raw(&delta::table(&cases));
        if let Some(file) = &self.json {
            write_json(
                file,
                &json!({"schema": delta::SCHEMA, "version": 1, "cases": cases}),
            )?;
        }
        let is_void = |case: &delta::Case| case.outcomes.iter().any(|outcome| outcome.void.is_some());
        Ok(if cases.iter().any(is_void) { FAILED } else { DONE })
    }
}

/// Progress on standard error: a line that changes on a terminal, otherwise a line for each run.
struct Teller {
    bar: Option<ProgressBar>,
}

impl Teller {
    fn new() -> Teller {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
            if let Ok(style) =
                ProgressStyle::with_template("{pos}/{len} runs, {elapsed}, {eta} left  {wide_msg}")
            {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Teller { bar }
    }

    fn tell(&self, progress: &Progress) {
        match &self.bar {
            Some(bar) => {
                bar.set_length(progress.total);
                bar.set_position(progress.done);
                bar.set_message(progress.what.clone());
            }
            None if progress.total == 0 => output::note(&progress.what),
            None => output::note(&format!(
                "[{}/{}] {}",
                progress.done, progress.total, progress.what
            )),
        }
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn write_json(file: &Path, value: &impl Serialize) -> Result<(), CliError> {
    let text = serde_json::to_string_pretty(value).map_err(|error| CliError::failed(error.to_string()))?;
    write(file, (text + "\n").as_bytes())
}

fn write(file: &Path, content: &[u8]) -> Result<(), CliError> {
    std::fs::write(file, content)
        .map_err(|error| CliError::failed(format!("cannot write {}: {error}", super::text::escaped(file))))
}

fn parse_report(text: &str) -> Result<ReportFile, String> {
    let path = PathBuf::from(text);
    let format = match path.extension().and_then(|extension| extension.to_str()) {
        Some("html" | "htm") => Format::Html,
        Some("svg") => Format::Svg,
        Some("png") => Format::Png,
        _ => return Err("the name must end in .html, .svg or .png".to_owned()),
    };
    Ok(ReportFile { path, format })
}

/// Sizes between which a corpus can be made.
fn parse_size(text: &str) -> Result<u64, String> {
    let bytes = parse_bytes(text)?;
    if (1 << 16..1 << 40).contains(&bytes) {
        Ok(bytes)
    } else {
        Err("a corpus has at least 64KiB and less than 1024GiB".to_owned())
    }
}
