//! The live scenarios: daemons follow a tree that changes, and somebody who belongs to neither tool watches the target.
//!
//! In each round every tool in turn is started on the same source, measured, and stopped again, so that none works while
//! another is measured. A run counts only if both trees are equal once everything is quiet. Every wait has an end: a tool
//! that does not finish voids its row.
//!
//! | module | holds |
//! | --- | --- |
//! | `scenario` | names, data, which scenario does what |
//! | `figures` | what is measured, percentiles |
//! | `follower`, `ours`, `lsyncd`, `rsync_loop`, `nobody` | the tools, and none |
//! | `observe` | when a change is visible |
//! | `process` | what daemons cost |
//! | `meter` | what a run costs from its beginning to its end |
//! | `changes`, `transfers`, `quiet`, `large_tree`, `away`, `beside` | the scenarios |

mod away;
mod beside;
mod changes;
mod cores;
mod figures;
mod follower;
mod large_tree;
mod lsyncd;
mod meter;
mod nobody;
mod observe;
mod ours;
mod process;
mod quiet;
mod rsync_loop;
mod scenario;
mod transfers;

pub use figures::{Figures, Latency, Measure, percentile, summary};
pub use nobody::NOBODY;
pub use scenario::{Scenario, chosen, left_out, names};

use self::follower::Follower;
use self::lsyncd::Lsyncd;
use self::meter::Meter;
use self::nobody::Nobody;
use self::observe::Patience;
use self::ours::Ours;
use self::rsync_loop::RsyncLoop;
use self::scenario::{Kind, Rivals};
use super::BenchError;
use super::check::Tree;
use super::cleanup;
use super::corpus::Rng;
use super::plan::Plan;
use super::progress::Tracker;
use super::report::Row;
use super::runner::{Stage, find_program};
use super::server::{Carrier, Servers};
use super::tool::Run;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What has to be known to read the numbers of live rows.
pub const METHOD: &[&str] = &[
    "Live scenarios: `driftless send` beside `receive`; lsyncd with delay 0 and one process, over ssh with one connection that \
     stays open, or to an rsync daemon, with -z on an emulated link. Each tool is started for its run and stopped after it.",
    "Live times are taken by an observer of the target's files: from before the change is made to when it is visible and \
     complete, which is not yet durable. Single files are noticed within 0.1 ms, others within 0.6 ms, if a processor is free.",
    "Live bytes on loop are those that the tools count: for lsyncd those of rsync, not of commands over ssh. Live CPU is exact \
     for what still runs and in clock ticks for what has ended. CPU, memory and bytes of a live run end when both trees are \
     equal, except for idle and neighbour, which measure a window, and for the sender's CPU of target-away. Of lsyncd's and rsync's copies, times of directories need \
     only be right to the second.",
    "beside-*: the time of a program of one thread that works in the source and has a processor of its own; what the tool runs \
     shares the others. `nobody` is the same without any tool; what a \
     tool's receiving end takes from this machine counts as well.",
];

/// The tree that is followed, in the workspace.
const SOURCE: &str = "live-source";

/// Where a scenario happens.
struct Bed<'a> {
    plan: &'a Plan,
    stage: &'a Stage,
    /// The tree that is followed.
    source: PathBuf,
    /// A directory on the same file system that nobody follows.
    aside: PathBuf,
    rng: Rng,
    /// Entries of the source before the first run.
    entries: u64,
    /// The number of runs so far.
    run: u64,
}

impl Bed<'_> {
    /// The most that any wait may take. On the slowest link of this bench the largest transfer takes a third of it, and the
    /// slowest tool brings some thousands of entries a second.
    fn patience(&self) -> Duration {
        let seconds = if self.plan.quick { 60 } else { 120 };
        Duration::from_secs(seconds + self.plan.size / (2 << 20) + self.entries / 1_000)
    }

    fn pause(&mut self, least_ms: u64, most_ms: u64) {
        let milliseconds = least_ms + self.rng.below(most_ms - least_ms);
        std::thread::sleep(Duration::from_millis(milliseconds));
    }
}

/// A scenario and the tools that take part, driftless first.
pub struct Task {
    scenario: &'static Scenario,
    tools: Vec<Box<dyn Follower>>,
}

/// Chooses the tools for each scenario. Copies will be made below `copies`; what is missing is noted.
///
/// # Errors
/// When directories cannot be made.
pub fn prepare(
    scenarios: &[&'static Scenario],
    plan: &Plan,
    stage: &Stage,
    copies: &Path,
    servers: &Servers,
    notes: &mut Vec<String>,
) -> Result<Vec<Task>, BenchError> {
    let lacks_lsyncd = find_program("lsyncd").is_none();
    let wants_lsyncd = |rivals| matches!(rivals, Rivals::Lsyncd | Rivals::LsyncdAndNobody);
    if lacks_lsyncd
        && scenarios
            .iter()
            .any(|scenario| wants_lsyncd(scenario.kind.rivals()))
    {
        notes.push(lsyncd::INSTALL.to_owned());
    }
    for scenario in scenarios
        .iter()
        .filter(|scenario| scenario.kind.rivals() == Rivals::None)
    {
        notes.push(format!(
            "{} measures driftless alone: the servers that the other tools share cannot be taken away",
            scenario.name
        ));
    }
    let task = |scenario: &&'static Scenario| {
        let targets = scenario.kind.targets();
        let mut tools: Vec<Box<dyn Follower>> = vec![Box::new(Ours::new(stage, copies, targets)?)];
        let (ssh, daemon) = (servers.of(Carrier::Ssh), servers.of(Carrier::Daemon));
        let rivals = scenario.kind.rivals();
        if rivals == Rivals::LsyncdAndNobody {
            tools.push(Box::new(Nobody::new(stage.workspace.directory(SOURCE)?)));
        }
        if rivals == Rivals::RsyncLoop {
            if let Some(server) = ssh {
                tools.push(Box::new(RsyncLoop::new(server, copies)?));
            }
        } else if wants_lsyncd(rivals) && !lacks_lsyncd {
            let daemon = daemon.filter(|_| !plan.quick || ssh.is_none());
            for server in ssh.into_iter().chain(daemon) {
                tools.push(Box::new(Lsyncd::new(server, copies, targets)?));
            }
        }
        Ok(Task { scenario, tools })
    };
    scenarios.iter().map(task).collect()
}

/// How many tools take part in all tasks together.
#[must_use]
pub fn tools(tasks: &[Task]) -> u64 {
    tasks.iter().map(|task| task.tools.len() as u64).sum()
}

/// Runs the tasks.
///
/// # Errors
/// When the data cannot be made. A tool that fails in a scenario only voids its row.
pub(super) fn run(
    tasks: Vec<Task>,
    plan: &Plan,
    stage: &Stage,
    tracker: &mut Tracker<'_>,
) -> Result<Vec<Row>, BenchError> {
    if let (Some(tcp), false) = (plan.tcp.first(), tasks.is_empty()) {
        stage
            .emulator
            .set_congestion_control(tcp)
            .map_err(|error| BenchError::new(error.to_string()))?;
    }
    let mut rows = Vec::new();
    for task in tasks {
        rows.extend(run_one(task, plan, stage, tracker)?);
    }
    Ok(rows)
}

fn run_one(
    task: Task,
    plan: &Plan,
    stage: &Stage,
    tracker: &mut Tracker<'_>,
) -> Result<Vec<Row>, BenchError> {
    let Task { scenario, mut tools } = task;
    tracker.begin(format!("{}: making the data", scenario.name));
    let mut bed = Bed {
        plan,
        stage,
        source: stage.workspace.directory(SOURCE)?,
        aside: stage.workspace.directory("live-aside")?,
        rng: Rng::new(plan.seed, 900),
        entries: 0,
        run: 0,
    };
    cleanup::empty(&bed.source)?;
    cleanup::empty(&bed.aside)?;
    scenario.kind.prepare(&bed)?;
    let tree = read(&bed.source)?;
    bed.entries = tree.len() as u64;
    let mut rows = Vec::new();
    for tool in &mut tools {
        tool.reset()?;
        rows.push(Row {
            ours: tool.is_ours(),
            durable: tool.durable(),
            ..Row::named(scenario.name, scenario.what, tool.name(), &tree)
        });
    }
    // Of a large tree it takes memory that the runs need.
    drop(tree);
    if scenario.kind.needs_copies() {
        for (tool, row) in tools.iter_mut().zip(&mut rows) {
            tracker.begin(format!("{}: {}, before", scenario.name, tool.name()));
            if let Err(error) = make_copies(scenario.kind, &bed, tool.as_mut()) {
                row.spoil(error.to_string());
            }
        }
    }
    for round in 1..=plan.live_runs() {
        for turn in 0..tools.len() {
            // Nobody is always the first, or always after the same one.
            let at = (turn + round as usize - 1) % tools.len();
            let (tool, row) = (tools[at].as_mut(), &mut rows[at]);
            let (name, runs) = (scenario.name, plan.live_runs());
            tracker.begin(format!("{name}: {}, run {round} of {runs}", tool.name()));
            if row.void.is_none() {
                bed.run += 1;
                scenario.kind.restore(&bed)?;
                let outcome = follow(scenario.kind, &mut bed, tool);
                tool.stop();
                match outcome {
                    Ok(run) => row.runs.push(run),
                    Err(error) => row.spoil(error.to_string()),
                }
            }
            tracker.done();
        }
    }
    // The next scenario's copies need the room.
    for tool in &mut tools {
        tool.reset()?;
    }
    Ok(rows)
}

/// Lets a tool copy the source once, so that no run that counts does.
fn make_copies(kind: Kind, bed: &Bed<'_>, tool: &mut dyn Follower) -> Result<(), BenchError> {
    let copied = tool
        .start(bed.stage, &bed.source, kind.targets(), bed.patience())
        .and_then(|()| tool.settle(bed.patience()));
    tool.stop();
    copied
}

/// One run of one tool.
fn follow(kind: Kind, bed: &mut Bed<'_>, tool: &mut dyn Follower) -> Result<Run, BenchError> {
    tool.start(bed.stage, &bed.source, kind.targets(), bed.patience())?;
    let (targets, patience) = (kind.targets(), bed.patience());
    wait_equal(&bed.source, tool, targets, patience)
        .map_err(|error| BenchError::new(format!("before the first change: {error}")))?;
    tool.settle(bed.patience())?;
    // What was written before must not be written out during the run.
    if let Ok(directory) = std::fs::File::open(bed.stage.workspace.path()) {
        let _ = rustix::fs::syncfs(&directory);
    }
    let (mut meter, mut run) = (Meter::start(bed.stage, tool), Run::default());
    let mut figures = kind.measure(bed, tool, &mut meter, &mut run)?;
    wait_equal(&bed.source, tool, targets, patience)?;
    tool.settle(patience)?;
    meter.finish(bed.stage, tool, &mut run)?;
    figures.rescans = tool.rescans();
    run.live = Some(figures);
    run.verified = true;
    Ok(run)
}

fn read(path: &Path) -> Result<Tree, BenchError> {
    Tree::read(path).map_err(|error| BenchError::io("read", path, &error))
}

/// Waits until the first `targets` copies are equal to the source, which nobody changes any more.
fn wait_equal(
    source: &Path,
    tool: &dyn Follower,
    targets: usize,
    patience: Duration,
) -> Result<(), BenchError> {
    let wanted = read(source)?;
    let health = || tool.health();
    let mut patience = Patience::new(patience, &health);
    for copy in &tool.copies()[..targets] {
        loop {
            // A copy that changes while it is read is read again.
            let difference = match Tree::read(copy) {
                Ok(found) if tool.is_ours() => wanted.difference(&found),
                Ok(found) => wanted.difference_beside_fractions(&found),
                Err(error) => Some(format!("it cannot be read: {error}")),
            };
            let Some(difference) = difference else {
                break;
            };
            patience.check(&|| format!("the copy, which is wrong: {difference}"))?;
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A tool that does nothing.
    struct Idle(Vec<PathBuf>);

    impl Follower for Idle {
        fn name(&self) -> &str {
            "idle"
        }

        fn copies(&self) -> &[PathBuf] {
            &self.0
        }

        fn reset(&mut self) -> Result<(), BenchError> {
            Ok(())
        }

        fn start(&mut self, _: &Stage, _: &Path, _: usize, _: Duration) -> Result<(), BenchError> {
            Ok(())
        }

        fn stop(&mut self) {}

        fn senders(&self) -> Vec<u32> {
            Vec::new()
        }

        fn receivers(&self) -> Vec<u32> {
            Vec::new()
        }

        fn settle(&self, _: Duration) -> Result<(), BenchError> {
            Ok(())
        }

        fn counted(&self) -> (Option<u64>, Option<u64>) {
            (None, None)
        }

        fn complaints(&self) -> String {
            String::new()
        }
    }

    #[test]
    fn a_copy_that_stays_wrong_ends_the_run_and_one_that_comes_right_does_not() {
        let root = tempfile::tempdir().unwrap();
        let [source, one, two] = ["source", "one", "two"].map(|name| root.path().join(name));
        let write = |directory: &Path, content: &str| {
            fs::create_dir_all(directory).unwrap();
            let (path, time) = (directory.join("file"), directory.join("time"));
            fs::write(&time, content).unwrap();
            let file = fs::File::open(&time).unwrap();
            file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
            fs::rename(time, path).unwrap();
        };
        write(&source, "right");
        write(&one, "right");
        write(&two, "wrong");
        let tool = Idle(vec![one, two.clone()]);
        let wait =
            |targets, milliseconds| wait_equal(&source, &tool, targets, Duration::from_millis(milliseconds));
        wait(1, 60_000).unwrap();
        let error = wait(2, 100).unwrap_err().to_string();
        assert!(
            error.contains("which is wrong: the content of file differs"),
            "{error}"
        );
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| wait(2, 60_000));
            write(&two, "right");
            waits.join().unwrap().unwrap();
        });
    }
}
