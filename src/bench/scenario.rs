//! The scenarios, and the loop that runs them: all tools in turn, round by round, on the same source.

use super::BenchError;
use super::check::{self, Tree};
use super::corpus::{self, Kind};
use super::edits;
use super::link::{Emulator, Link};
use super::machine::Machine;
use super::ours::Ours;
use super::report::{Report, Row};
use super::rsync::{Carrier, INSTALL, Rsync, Server, Variant};
use super::runner::{Stage, find_program};
use super::tool::{Run, Tool};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// What is run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The link.
    pub link: Link,
    /// Names of scenarios; empty for all.
    pub scenarios: Vec<String>,
    /// Bytes of a corpus.
    pub size: u64,
    /// Rounds.
    pub runs: u64,
    /// A tree to use in place of the source-like one.
    pub tree: Option<PathBuf>,
    /// Seed of all corpora.
    pub seed: u64,
    /// Fewer variants of rsync.
    pub quick: bool,
    /// TCP congestion control on an emulated link.
    pub tcp: Option<String>,
    /// Corrupts one byte of our first copies, to show that this is noticed.
    pub sabotage: bool,
}

/// What the source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Base {
    Source,
    Small,
    File(Kind),
}

/// What happens to source and copies before each round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The copy is emptied: first contact.
    Fresh,
    /// Nothing; both ends remember.
    Nothing,
    /// Both ends forget; the copy stays.
    Stranger,
    NewTimes,
    Release,
    Pages,
    Insert,
    Append,
    Rename,
}

/// A row of the table of scenarios.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// What it is, in words.
    pub what: &'static str,
    base: Base,
    step: Step,
}

const fn scenario(name: &'static str, what: &'static str, base: Base, step: Step) -> Scenario {
    Scenario {
        name,
        what,
        base,
        step,
    }
}

/// All scenarios.
pub const SCENARIOS: &[Scenario] = &[
    scenario(
        "seed",
        "source tree to an empty target, first contact",
        Base::Source,
        Step::Fresh,
    ),
    scenario(
        "nothing-changed",
        "the same tree again, both ends remember",
        Base::Source,
        Step::Nothing,
    ),
    scenario(
        "stranger",
        "equal trees, but neither end remembers",
        Base::Source,
        Step::Stranger,
    ),
    scenario(
        "new-mtimes",
        "every time is new, no content",
        Base::Source,
        Step::NewTimes,
    ),
    scenario(
        "next-release",
        "3 % of the content changed in place, every time new",
        Base::Source,
        Step::Release,
    ),
    scenario(
        "rename-folder",
        "the largest folder has another name",
        Base::Source,
        Step::Rename,
    ),
    scenario(
        "many-small",
        "files of 4 KiB to an empty target, first contact",
        Base::Small,
        Step::Fresh,
    ),
    scenario(
        "big-file",
        "one incompressible file to an empty target",
        Base::File(Kind::Media),
        Step::Fresh,
    ),
    scenario(
        "random-pages",
        "pages of a disk image rewritten",
        Base::File(Kind::Image),
        Step::Pages,
    ),
    scenario(
        "database",
        "pages of a database rewritten",
        Base::File(Kind::Database),
        Step::Pages,
    ),
    scenario(
        "insertions",
        "10 insertions into a file",
        Base::File(Kind::Image),
        Step::Insert,
    ),
    scenario(
        "append",
        "1 part in 256 appended to a log",
        Base::File(Kind::Log),
        Step::Append,
    ),
];

impl Scenario {
    /// Whether the first run of a round counts, or one that brings the copy into the state before.
    fn needs_base(self) -> bool {
        self.step != Step::Fresh
    }

    fn make(self, plan: &Plan, source: &Path) -> Result<(), BenchError> {
        let made = match (self.base, &plan.tree) {
            (Base::Source, Some(tree)) => copy_tree(tree, source),
            (Base::Source, None) => corpus::source_tree(source, plan.seed, plan.size),
            (Base::Small, _) => corpus::small_files(
                source,
                plan.seed,
                (plan.size / corpus::SMALL_FILE_BYTES).clamp(20, 2000),
            ),
            (Base::File(kind), _) => corpus::file(&source.join("file"), plan.seed, kind, plan.size),
        };
        made.map_err(|error| BenchError::io("make the corpus in", source, &error))
    }

    fn edit(self, plan: &Plan, source: &Path, round: u64) -> Result<(), BenchError> {
        let (file, seed) = (source.join("file"), plan.seed);
        let edited = match self.step {
            Step::Fresh | Step::Nothing | Step::Stranger => Ok(()),
            Step::NewTimes => edits::new_times(source, round),
            Step::Release => edits::next_release(source, seed, round),
            Step::Pages => edits::random_pages(&file, seed, round, (plan.size >> 20).clamp(4, 200)),
            Step::Insert => edits::insertions(&file, seed, round, 10),
            Step::Append => edits::append(&file, seed, round, (plan.size / 256).max(1024)),
            Step::Rename => edits::rename_folder(source, round).map(|_| ()),
        };
        edited.map_err(|error| BenchError::io("edit the corpus in", source, &error))
    }
}

/// The user's tree is only read.
fn copy_tree(from: &Path, to: &Path) -> std::io::Result<()> {
    let mut source = from.as_os_str().to_owned();
    source.push("/.");
    let status = std::process::Command::new("cp")
        .args(["-a", "--reflink=auto", "--"])
        .arg(source)
        .arg(to)
        .status()?;
    if status.success() {
        Ok(())
    } else {
        Err(std::io::Error::other("cp failed"))
    }
}

/// The tools that can run here, driftless first; what is missing is told.
fn tools(
    plan: &Plan,
    stage: &Stage,
    copies: &Path,
    notes: &mut Vec<String>,
) -> Result<Vec<Box<dyn Tool>>, BenchError> {
    let mut tools: Vec<Box<dyn Tool>> = vec![Box::new(Ours::new(stage, copies)?)];
    if find_program("rsync").is_none() {
        notes.push(INSTALL.to_owned());
        return Ok(tools);
    }
    for carrier in [Carrier::Ssh, Carrier::Daemon] {
        match Server::start(stage, carrier, copies) {
            Ok(server) => {
                let server = Rc::new(server);
                for variant in Variant::all(plan.quick)
                    .into_iter()
                    .filter(|variant| variant.carrier == carrier)
                {
                    tools.push(Box::new(Rsync::new(variant, server.clone(), copies)?));
                }
            }
            Err(error) => notes.push(format!("{carrier:?} is left out: {error}")),
        }
    }
    Ok(tools)
}

/// Runs a plan in a workspace. `tell` hears about progress.
///
/// # Errors
/// When the plan names what does not exist, or a tool cannot be prepared. A tool that fails in a scenario only voids its row.
pub fn run(
    plan: &Plan,
    stage: &Stage,
    mut notes: Vec<String>,
    tell: &dyn Fn(&str),
) -> Result<Report, BenchError> {
    for name in &plan.scenarios {
        if !SCENARIOS.iter().any(|scenario| scenario.name == name) {
            let known: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
            return Err(BenchError::new(format!(
                "there is no scenario {name}; there are: {}",
                known.join(", ")
            )));
        }
    }
    if let (Some(name), Link::Wan(_)) = (&plan.tcp, plan.link) {
        stage
            .emulator
            .set_congestion_control(name)
            .map_err(|error| BenchError::new(error.to_string()))?;
    }
    let machine = Machine::look(&stage.emulator, stage.workspace.path());
    let copies = stage.workspace.directory("copies")?;
    let mut tools = tools(plan, stage, &copies, &mut notes)?;
    let mut rows = Vec::new();
    for scenario in SCENARIOS {
        if plan.scenarios.is_empty() || plan.scenarios.iter().any(|name| name == scenario.name) {
            rows.extend(measure(scenario, plan, stage, &mut tools, tell)?);
        }
    }
    Ok(Report::new(plan, machine, rows, notes))
}

fn measure(
    scenario: &Scenario,
    plan: &Plan,
    stage: &Stage,
    tools: &mut [Box<dyn Tool>],
    tell: &dyn Fn(&str),
) -> Result<Vec<Row>, BenchError> {
    tell(&format!("{}: making the data", scenario.name));
    let source = stage.workspace.directory("source")?;
    super::cleanup::empty(&source)?;
    scenario.make(plan, &source)?;
    let read = |path: &Path| Tree::read(path).map_err(|error| BenchError::io("read", path, &error));
    let mut wanted = read(&source)?;
    let mut rows: Vec<Row> = tools
        .iter()
        .map(|tool| Row::new(scenario, tool.as_ref(), &wanted))
        .collect();
    for (tool, row) in tools.iter_mut().zip(&mut rows) {
        tool.reset(stage)?;
        if scenario.needs_base() {
            tell(&format!(
                "{}: {}: making the first copy",
                scenario.name,
                tool.name()
            ));
            if let Err(error) = tool.sync(stage, &source) {
                row.spoil(error.to_string());
            }
        }
    }
    for round in 1..=plan.runs {
        scenario.edit(plan, &source, round)?;
        if scenario.step != Step::Fresh {
            wanted = read(&source)?;
        }
        for (tool, row) in tools.iter_mut().zip(&mut rows) {
            if row.void.is_some() {
                continue;
            }
            tell(&format!(
                "{}: {}, run {round} of {}",
                scenario.name,
                tool.name(),
                plan.runs
            ));
            match scenario.step {
                Step::Fresh => tool.reset(stage)?,
                Step::Stranger => tool.forget(stage)?,
                _ => {}
            }
            // What was written before must not be written out during the run.
            if let Ok(directory) = std::fs::File::open(stage.workspace.path()) {
                let _ = rustix::fs::syncfs(&directory);
            }
            let outcome = tool.sync(stage, &source).and_then(|run| {
                if plan.sabotage && tool.is_ours() && round == 1 {
                    check::sabotage(tool.copy())
                        .map_err(|error| BenchError::io("corrupt", tool.copy(), &error))?;
                }
                Ok((run, read(tool.copy())?))
            });
            match outcome {
                Ok((run, copy)) => match wanted.difference(&copy) {
                    None => row.runs.push(Run {
                        verified: true,
                        ..run
                    }),
                    Some(difference) => {
                        row.runs.push(run);
                        row.spoil(format!("the copy is wrong: {difference}"));
                    }
                },
                Err(error) => row.spoil(error.to_string()),
            }
        }
    }
    Ok(rows)
}

/// Makes the link, or says why it is not to be had and takes the loopback device.
///
/// # Errors
/// When even that fails.
pub fn start_link(link: Link, notes: &mut Vec<String>) -> Result<(Emulator, Link), BenchError> {
    match Emulator::start(link) {
        Ok(emulator) => Ok((emulator, link)),
        Err(error) => {
            notes.push(format!(
                "the link {link} is not to be had, so everything ran on loop: {error}"
            ));
            let emulator = Emulator::start(Link::Loop).map_err(|error| BenchError::new(error.to_string()))?;
            Ok((emulator, Link::Loop))
        }
    }
}
