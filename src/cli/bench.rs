//! `driftless bench`: a comparison with rsync that anyone can run.

use super::{CliError, DONE, FAILED, output};
use crate::bench::cleanup::Workspace;
use crate::bench::link::Link;
use crate::bench::runner::Stage;
use crate::bench::scenario::{self, Plan};
use crate::bench::{BenchError, delta, html};
use clap::Args;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Size of a corpus, and of one of a quick run.
const SIZE: u64 = 256 << 20;
const SIZE_QUICK: u64 = 16 << 20;

/// Compare driftless with rsync on this machine
///
/// Makes its own data, runs both in turn, checks every copy, and prints what driftless loses as well. Everything is in
/// one temporary directory, which is removed in the end.
#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    /// The link: loop, w0 (80 ms, 200 Mbit/s), w1 (the same with 0.1 % loss), w2 (200 ms, 100 Mbit/s, 1 % loss), or
    /// settings as in rtt=80ms,rate=200mbit,loss=0.1%. All but loop need root
    #[arg(long, value_name = "LINK", default_value = "loop")]
    link: Link,
    /// Only this scenario; may be repeated
    #[arg(long, value_name = "NAME")]
    scenario: Vec<String>,
    /// Size of a corpus, as in 64MiB [default: 256MiB, with --quick 16MiB]
    #[arg(long, value_name = "BYTES", value_parser = parse_size)]
    size: Option<u64>,
    /// Runs of each tool [default: 3, with --quick 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1000))]
    runs: Option<u64>,
    /// Use a copy of this tree in place of the source-like one
    #[arg(long, value_name = "PATH")]
    tree: Option<PathBuf>,
    /// Less than a minute: small data, few runs, fewer variants of rsync
    #[arg(long)]
    quick: bool,
    /// Where the data is [default: the directory for temporary files]; the report names its file system
    #[arg(long, value_name = "PATH")]
    dir: Option<PathBuf>,
    /// TCP congestion control of rsync on an emulated link [default: bbr if the kernel has it]
    #[arg(long, value_name = "NAME")]
    tcp: Option<String>,
    /// Seed of the data
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Write all results as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a page with charts
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// Only measure deltas from one file to another, in one thread
    #[arg(long, value_names = ["OLD", "NEW"], num_args = 2, conflicts_with_all = ["quick", "tree", "scenario"])]
    delta: Option<Vec<PathBuf>>,
}

impl From<BenchError> for CliError {
    fn from(error: BenchError) -> CliError {
        CliError::failed(error.to_string())
    }
}

impl BenchArgs {
    pub(super) fn run(&self) -> Result<u8, CliError> {
        if let Some([old, new]) = self.delta.as_deref() {
            return self.measure_delta(old, new);
        }
        let mut notes = Vec::new();
        if cfg!(debug_assertions) {
            notes.push("driftless was built without optimisation: its numbers mean nothing".to_owned());
        }
        let (emulator, link) = scenario::start_link(self.link, &mut notes)?;
        notes.iter().for_each(|note| output::note(note));
        let plan = self.plan(link);
        let parent = self.dir.clone().unwrap_or_else(std::env::temp_dir);
        let stage = Stage {
            emulator,
            workspace: Workspace::create(&parent)?,
        };
        let report = scenario::run(&plan, &stage, notes, &|text| output::note(text))?;
        drop(stage);
        output::raw(&report.table());
        if let Some(file) = &self.json {
            let text =
                serde_json::to_string_pretty(&report).map_err(|error| CliError::failed(error.to_string()))?;
            write(file, &(text + "\n"))?;
        }
        if let Some(file) = &self.report {
            write(file, &html::page(&report))?;
        }
        Ok(if report.all_verified() { DONE } else { FAILED })
    }

    fn plan(&self, link: Link) -> Plan {
        let has_bbr = || {
            let known = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_available_congestion_control");
            known
                .is_ok_and(|names| names.split_whitespace().any(|name| name == "bbr"))
                .then(|| "bbr".to_owned())
        };
        Plan {
            link,
            scenarios: self.scenario.clone(),
            size: self.size.unwrap_or(if self.quick { SIZE_QUICK } else { SIZE }),
            runs: self.runs.unwrap_or(if self.quick { 2 } else { 3 }),
            tree: self.tree.clone(),
            seed: self.seed,
            quick: self.quick,
            tcp: self.tcp.clone().or_else(has_bbr),
            sabotage: std::env::var_os("DRIFTLESS_BENCH_SABOTAGE").is_some_and(|value| value == "1"),
        }
    }

    fn measure_delta(&self, old: &Path, new: &Path) -> Result<u8, CliError> {
        let rates = delta::measure(old, new)?;
        let line = |name: &str, signature: f64, diff: f64, made: u64, of: &str| {
            output::line(&format!(
                "{name:<12} signature {signature:>7.0} MB/s  diff {diff:>7.0} MB/s  {made} bytes of {of}"
            ));
        };
        line(
            "driftless",
            rates.ours_signature,
            rates.ours_diff,
            rates.ours_literals,
            "literals",
        );
        line(
            "fast_rsync",
            rates.plain_signature,
            rates.plain_diff,
            rates.plain_delta,
            "delta",
        );
        if let Some(file) = &self.json {
            write(
                file,
                &(json!({"schema": "driftless-bench-delta", "version": 1, "rates": rates}).to_string()
                    + "\n"),
            )?;
        }
        Ok(DONE)
    }
}

fn write(file: &Path, text: &str) -> Result<(), CliError> {
    std::fs::write(file, text)
        .map_err(|error| CliError::failed(format!("cannot write {}: {error}", super::text::escaped(file))))
}

fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        _ => return Err("write a number with KiB, MiB or GiB, as in 64MiB".to_owned()),
    };
    let number: u64 = digits
        .parse()
        .map_err(|_| "write a number with KiB, MiB or GiB, as in 64MiB".to_owned())?;
    number
        .checked_mul(factor)
        .filter(|bytes| (1 << 16..1 << 40).contains(bytes))
        .ok_or_else(|| "a corpus has at least 64KiB and less than 1024GiB".to_owned())
}
