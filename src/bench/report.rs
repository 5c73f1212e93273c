//! The result: rows with their statistics, as a table and as JSON.

use super::check::Tree;
use super::live::{self, Measure};
use super::machine::Machine;
use super::plan::{Cache, Plan};
use super::scenario::Scenario;
use super::tool::{Run, Tool};
use serde::Serialize;

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
    /// No difference worth the name, or driftless was faster in some rounds only.
    Even,
    /// driftless was slower.
    Loss,
}

impl Verdict {
    /// What a ratio means. The rule is harder on driftless: it wins only if it was faster in every round.
    fn of(ratio: Spread) -> Verdict {
        if ratio.median < 1.0 - EVEN {
            Verdict::Loss
        } else if ratio.median > 1.0 + EVEN && ratio.min > 1.0 {
            Verdict::Win
        } else {
            Verdict::Even
        }
    }
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
    /// The tool's wall time (or what a live scenario compares) by that of driftless in the same round; above 1 driftless is
    /// better.
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
            ours: tool.is_ours(),
            durable: tool.durable(),
            ..Row::named(scenario.name, scenario.what, tool.name(), tree)
        }
    }

    /// A row without runs, of a tool other than driftless that promises nothing about power cuts.
    #[must_use]
    pub fn named(scenario: &'static str, what: &'static str, tool: &str, tree: &Tree) -> Row {
        Row {
            scenario,
            what,
            entries: tree.len(),
            content_bytes: tree.bytes(),
            tool: tool.to_owned(),
            ours: false,
            durable: false,
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

    /// What is compared between tools.
    pub(super) fn measure(&self) -> Measure {
        self.runs.first().map_or(Measure::Time, |run| run.compared().1)
    }

    /// The figures that are compared; `None` if the row does not count.
    pub(super) fn compared(&self) -> Option<Spread> {
        self.wall_s?;
        Spread::of(self.runs.iter().map(|run| run.compared().0))
    }

    /// The middle of a figure of all runs.
    pub(super) fn median(&self, value: impl Fn(&Run) -> Option<f64>) -> Option<f64> {
        Spread::of(self.runs.iter().filter_map(value)).map(|spread| spread.median)
    }
}

/// Something that driftless did worse than another tool.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Loss {
    /// The scenario.
    pub scenario: &'static str,
    /// The tool that did better.
    pub tool: String,
    /// At what.
    pub measure: &'static str,
    /// The figure of driftless by that of the tool, medians of all runs; above 1.
    pub ratio: f64,
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
    /// The link, or the far end of a real one.
    pub link: String,
    /// What the page cache held when a run began.
    pub cache: String,
    /// What the copies were on.
    pub target_fs: String,
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
    /// What driftless did worse, in the order of the rows.
    pub losses: Vec<Loss>,
}

/// What has to be known to read the numbers.
const METHOD: &[&str] = &[
    "All tools run in turn on the same source, one copy each; each round another one is the first. The ratio compares runs of \
     the same round.",
    "driftless: `seed` beside a running `receive`; it ends when both trees are equal and durable. rsync: -aHAX --delete, -z means \
     -z --zc=zstd. Without --fsync what rsync wrote may be lost in a power cut; with it, it flushes each file, though no \
     directory.",
    "Before each run everything dirty is written out, outside the measured time.",
    "Bytes: IP packets on an emulated link. Otherwise what each tool counted: UDP payload with encryption for driftless, \
     rsync's own protocol without that of ssh for rsync.",
    "CPU: programs of each side; the far end's in clock ticks of 10 ms. Memory: the largest process of each side.",
];
/// Where the cache is warm; how it became cold is noted by whoever did it.
const WARM: &str = "Warm cache: the source was just written or read, and the copy was just written.";
/// Where both ends are here.
const ON_ONE_MACHINE: &str = "Both ends and the link emulator share this machine, so everything that is computed counts twice. \
    Every copy was compared with the source after every run by a separate walk that reads all of it; \
    directories' times of rsync's copies to the second, because rsync leaves one alone that is in the right second.";
/// Where they are not.
const ON_TWO_MACHINES: &str = "The far end's processor and memory are not known. On first contact the target \
    is empty, but both ends have met. Every copy was compared with the source after \
    every run by each tool's own full comparison: `driftless verify` and `rsync -nc`.";

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
        }
        let doubtful = rows
            .iter()
            .filter(|row| row.runs.iter().any(|run| !run.link_sound));
        let doubtful: Vec<String> = doubtful
            .map(|row| format!("{} of {}", row.scenario, row.tool))
            .collect();
        if !doubtful.is_empty() {
            notes.push(format!(
                "doubtful, since the link emulator did not keep up (is the machine busy?): {}",
                doubtful.join(", ")
            ));
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
                .map(|(theirs, ours)| theirs.compared().0 / ours.compared().0.max(1e-9));
            row.ratio = Spread::of(pairs);
            row.verdict = row.ratio.map(Verdict::of);
        }
        let place = if plan.remote.is_some() {
            ON_TWO_MACHINES
        } else {
            ON_ONE_MACHINE
        };
        let warm = (plan.cache == Cache::Warm).then_some(WARM);
        let is_live = |row: &Row| row.runs.iter().any(|run| run.live.is_some());
        let live = if rows.iter().any(is_live) {
            live::METHOD
        } else {
            &[]
        };
        let method = METHOD.iter().copied().chain(warm).chain([place]);
        let method = method.chain(live.iter().copied()).collect();
        Report {
            schema: SCHEMA,
            version: SCHEMA_VERSION,
            machine,
            link: plan.link_name(),
            cache: plan.cache.to_string(),
            target_fs: plan.target_fs.to_string(),
            size: plan.size,
            runs: plan.runs,
            seed: plan.seed,
            method,
            notes,
            losses: losses(&rows),
            rows,
        }
    }

    /// Whether every row counts.
    #[must_use]
    pub fn all_verified(&self) -> bool {
        self.rows.iter().all(|row| row.verified)
    }
}

/// What driftless did worse than other tools, beyond what counts as even.
fn losses(rows: &[Row]) -> Vec<Loss> {
    let mut losses = Vec::new();
    for theirs in rows.iter().filter(|row| !row.ours && row.verified) {
        let ours = rows
            .iter()
            .find(|row| row.ours && row.verified && row.scenario == theirs.scenario);
        let Some(ours) = ours else { continue };
        if let Some(ratio) = theirs.ratio.filter(|_| theirs.verdict == Some(Verdict::Loss)) {
            let measure = match theirs.measure() {
                Measure::Time => "wall time",
                Measure::Cpu => "CPU of the sending side",
            };
            losses.push(theirs.loss(measure, 1.0 / ratio.median));
        }
        for (measure, least, value) in COSTS {
            if let (Some(our), Some(their)) = (ours.median(value), theirs.median(value))
                && our > their * (1.0 + EVEN)
                && our - their >= *least
            {
                losses.push(theirs.loss(measure, our / their.max(*least)));
            }
        }
    }
    losses
}

/// Sums two figures of which both are known.
fn sum<T: Into<f64>>(a: Option<T>, b: Option<T>) -> Option<f64> {
    Some(a?.into() + b?.into())
}

/// What a run costs beside time, and from which difference on it is more than noise.
type Cost = (&'static str, f64, fn(&Run) -> Option<f64>);
const COSTS: &[Cost] = &[
    ("bytes", 512.0, |run| {
        sum(run.bytes_up.map(|n| n as f64), run.bytes_down.map(|n| n as f64))
    }),
    ("99th percentile", 1.0, |run| {
        Some(run.live.as_ref()?.latency.as_ref()?.p99_ms)
    }),
    ("CPU", 0.02, |run| sum(run.cpu_sender_s, run.cpu_receiver_s)),
    ("memory", 1e6, |run| {
        sum(
            run.peak_sender.map(|n| n as f64),
            run.peak_receiver.map(|n| n as f64),
        )
    }),
];

impl Row {
    fn loss(&self, measure: &'static str, ratio: f64) -> Loss {
        Loss {
            scenario: self.scenario,
            tool: self.tool.clone(),
            measure,
            ratio,
        }
    }
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
    fn a_win_is_one_in_every_round_and_a_loss_one_in_the_middle() {
        let verdict = |min, median, max| Verdict::of(Spread { min, median, max });
        assert_eq!(verdict(1.1, 2.0, 3.0), Verdict::Win);
        assert_eq!(verdict(0.9, 2.0, 3.0), Verdict::Even);
        assert_eq!(verdict(1.0, 1.02, 1.1), Verdict::Even);
        assert_eq!(verdict(0.5, 0.9, 3.0), Verdict::Loss);
    }
}
