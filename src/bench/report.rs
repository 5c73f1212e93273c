//! The result: rows with their statistics, as a table and as JSON.

use super::check::Tree;
use super::machine::Machine;
use super::scenario::{Plan, Scenario};
use super::tool::{Run, Tool};
use serde::Serialize;
use std::fmt::Write;

/// Name of the JSON's schema.
pub const SCHEMA: &str = "driftless-bench";
/// Its version: grows when a field changes its meaning or goes.
pub const SCHEMA_VERSION: u32 = 1;
/// Ratios nearer to 1 than this count as even.
const EVEN: f64 = 0.03;

/// Smallest, middle and largest of some numbers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// The smallest.
    pub min: f64,
    /// The middle.
    pub median: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of some numbers; `None` if there are none.
    #[must_use]
    pub fn of(numbers: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut sorted: Vec<f64> = numbers.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let half = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[half]
        } else {
            (sorted[half - 1] + sorted[half]) / 2.0
        };
        Some(Spread { min, median, max })
    }
}

/// How driftless stands to another tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// driftless was faster.
    Win,
    /// No difference worth the name.
    Even,
    /// driftless was slower.
    Loss,
}

/// One tool in one scenario.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// The scenario.
    pub scenario: &'static str,
    /// What it is.
    pub what: &'static str,
    /// Entries of the tree at the beginning.
    pub entries: usize,
    /// Bytes of content at the beginning.
    pub content_bytes: u64,
    /// The tool.
    pub tool: String,
    /// Whether this is driftless.
    pub ours: bool,
    /// Whether what was reported as done would survive a power cut.
    pub durable: bool,
    /// Why the row does not count.
    pub void: Option<String>,
    /// Whether every copy was compared and equal.
    pub verified: bool,
    /// Wall seconds.
    pub wall_s: Option<Spread>,
    /// The tool's wall time by that of driftless in the same round; above 1 driftless is faster.
    pub ratio: Option<Spread>,
    /// What that means.
    pub verdict: Option<Verdict>,
    /// All runs.
    pub runs: Vec<Run>,
}

impl Row {
    /// A row without runs.
    #[must_use]
    pub fn new(scenario: &Scenario, tool: &dyn Tool, tree: &Tree) -> Row {
        Row {
            scenario: scenario.name,
            what: scenario.what,
            entries: tree.len(),
            content_bytes: tree.bytes(),
            tool: tool.name().to_owned(),
            ours: tool.is_ours(),
            durable: tool.durable(),
            void: None,
            verified: false,
            wall_s: None,
            ratio: None,
            verdict: None,
            runs: Vec::new(),
        }
    }

    /// The row does not count any more.
    pub fn spoil(&mut self, why: String) {
        self.void.get_or_insert(why);
    }

    fn median(&self, value: impl Fn(&Run) -> Option<f64>) -> Option<f64> {
        Spread::of(self.runs.iter().filter_map(value)).map(|spread| spread.median)
    }
}

/// All results.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// [`SCHEMA_VERSION`].
    pub version: u32,
    /// What it ran on.
    pub machine: Machine,
    /// The link.
    pub link: String,
    /// Bytes of a corpus, as asked.
    pub size: u64,
    /// Rounds.
    pub runs: u64,
    /// Seed of the corpora.
    pub seed: u64,
    /// How it was measured.
    pub method: Vec<&'static str>,
    /// What was left out, and why.
    pub notes: Vec<String>,
    /// The rows.
    pub rows: Vec<Row>,
}

/// What has to be known to read the numbers.
const METHOD: &[&str] = &[
    "Both ends, all tools and the link emulator share this machine. All tools run in turn on the same source, one copy each; \
     caches are warm.",
    "driftless: `seed` beside a running `receive`; it ends when both trees are equal and durable. rsync: -aHAX --delete, \
     -z means -z --zc=zstd; without --fsync what it wrote may be lost in a power cut.",
    "Bytes: IP packets on an emulated link; on loop what each tool counted: UDP payload for driftless, rsync's own protocol \
     without ssh's overhead for rsync.",
    "CPU: programs of each side; the far end's in clock ticks of 10 ms. Memory: the largest process of each side.",
    "Every copy was compared with the source after every run by a separate walk that reads all of it.",
];

impl Report {
    /// Computes the statistics of rows.
    #[must_use]
    pub fn new(plan: &Plan, machine: Machine, mut rows: Vec<Row>, mut notes: Vec<String>) -> Report {
        for row in &mut rows {
            row.verified =
                row.void.is_none() && !row.runs.is_empty() && row.runs.iter().all(|run| run.verified);
            if row.void.is_none() {
                row.wall_s = Spread::of(row.runs.iter().map(|run| run.wall_s));
            }
            if row.runs.iter().any(|run| !run.link_sound) {
                notes.push(format!(
                    "{}, {}: the link emulator did not keep up; doubtful",
                    row.scenario, row.tool
                ));
            }
        }
        let ours: Vec<Row> = rows
            .iter()
            .filter(|row| row.ours && row.verified)
            .cloned()
            .collect();
        for row in rows.iter_mut().filter(|row| !row.ours && row.verified) {
            let Some(ours) = ours.iter().find(|ours| ours.scenario == row.scenario) else {
                continue;
            };
            let pairs = row
                .runs
                .iter()
                .zip(&ours.runs)
                .map(|(theirs, ours)| theirs.wall_s / ours.wall_s.max(1e-9));
            row.ratio = Spread::of(pairs);
            row.verdict = row.ratio.map(|ratio| match ratio.median {
                median if median > 1.0 + EVEN => Verdict::Win,
                median if median < 1.0 - EVEN => Verdict::Loss,
                _ => Verdict::Even,
            });
        }
        Report {
            schema: SCHEMA,
            version: SCHEMA_VERSION,
            machine,
            link: plan.link.to_string(),
            size: plan.size,
            runs: plan.runs,
            seed: plan.seed,
            method: METHOD.to_vec(),
            notes,
            rows,
        }
    }

    /// Whether every row counts.
    #[must_use]
    pub fn all_verified(&self) -> bool {
        self.rows.iter().all(|row| row.verified)
    }

    /// The table for people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut out = String::new();
        // Writing into a string cannot fail.
        let _ = self.write_table(&mut out);
        out
    }

    fn write_table(&self, out: &mut String) -> std::fmt::Result {
        let machine = &self.machine;
        writeln!(
            out,
            "link {}, {} runs each, {}, kernel {}, {}, TCP {}",
            self.link, self.runs, machine.processor, machine.kernel, machine.file_system, machine.tcp
        )?;
        let versions = [machine.rsync.as_deref(), machine.ssh.as_deref()];
        let versions: Vec<&str> = versions.into_iter().flatten().collect();
        writeln!(out, "driftless {}; {}", machine.driftless, versions.join("; "))?;
        let mut scenario = "";
        for row in &self.rows {
            if row.scenario != scenario {
                scenario = row.scenario;
                let (entries, bytes) = (row.entries, bytes(Some(row.content_bytes as f64)));
                writeln!(out, "\n{scenario}: {} ({entries} entries, {bytes})", row.what)?;
                writeln!(
                    out,
                    "  {:<20} {:>7} {:>7} {:>7} {:>9} {:>9} {:>11} {:>15} {:>7}  driftless is",
                    "", "min s", "median", "max", "up", "down", "CPU s", "memory", "durable"
                )?;
            }
            row.write(out)?;
        }
        writeln!(out)?;
        for line in self
            .method
            .iter()
            .copied()
            .chain(self.notes.iter().map(String::as_str))
        {
            writeln!(out, "- {line}")?;
        }
        Ok(())
    }
}

impl Row {
    fn write(&self, out: &mut String) -> std::fmt::Result {
        if let Some(why) = &self.void {
            return writeln!(out, "  {:<20} VOID: {why}", self.tool);
        }
        let Some(wall) = self.wall_s else {
            return writeln!(out, "  {:<20} no runs", self.tool);
        };
        let pair = |a: String, b: String| format!("{a}+{b}");
        let seconds =
            |value: Option<f64>| value.map_or_else(|| "?".to_owned(), |value| format!("{value:.2}"));
        let count = |value: Option<u64>| value.map(|value| value as f64);
        let up = bytes(self.median(|run| count(run.bytes_up)));
        let down = bytes(self.median(|run| count(run.bytes_down)));
        let cpu = pair(
            seconds(self.median(|run| run.cpu_sender_s)),
            seconds(self.median(|run| run.cpu_receiver_s)),
        );
        let memory = pair(
            bytes(self.median(|run| count(run.peak_sender))),
            bytes(self.median(|run| count(run.peak_receiver))),
        );
        let durable = if self.durable { "yes" } else { "no" };
        let verdict = match (self.ratio, self.verdict) {
            (Some(ratio), Some(verdict)) => {
                let spread = format!("({:.2} to {:.2})", ratio.min, ratio.max);
                match verdict {
                    Verdict::Win => format!("{:.2}x faster {spread}", ratio.median),
                    Verdict::Even => format!("even, {:.2}x {spread}", ratio.median),
                    Verdict::Loss => format!("SLOWER, LOSES: {:.2}x {spread}", ratio.median),
                }
            }
            _ => String::new(),
        };
        writeln!(
            out,
            "  {:<20} {:>7.3} {:>7.3} {:>7.3} {up:>9} {down:>9} {cpu:>11} {memory:>15} {durable:>7}  {verdict}",
            self.tool, wall.min, wall.median, wall.max
        )
    }
}

/// Bytes in decimal units, short.
pub(super) fn bytes(number: Option<f64>) -> String {
    let Some(mut value) = number else {
        return "?".to_owned();
    };
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 999.5 {
            return if unit == "B" || value >= 99.5 {
                format!("{value:.0}{unit}")
            } else {
                format!("{value:.1}{unit}")
            };
        }
        value /= 1000.0;
    }
    format!("{value:.1}TB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_is_the_middle() {
        let spread = |numbers: &[f64]| Spread::of(numbers.iter().copied());
        assert_eq!(spread(&[]), None);
        assert_eq!(
            spread(&[3.0, 1.0, 2.0]),
            Some(Spread {
                min: 1.0,
                median: 2.0,
                max: 3.0
            })
        );
        assert_eq!(
            spread(&[1.0, 2.0]),
            Some(Spread {
                min: 1.0,
                median: 1.5,
                max: 2.0
            })
        );
    }

    #[test]
    fn bytes_are_short() {
        let text = |number: f64| bytes(Some(number));
        assert_eq!(
            [0.0, 999.0, 1000.0, 123_456.0, 1.5e9].map(text),
            ["0B", "999B", "1.0kB", "123kB", "1.5GB"]
        );
    }
}
