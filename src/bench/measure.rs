//! The loop that runs the scenarios: all tools in turn, round by round, on the same source.

use super::check::Tree;
use super::link::{Emulator, Link};
use super::machine::Machine;
use super::ours::Ours;
use super::plan::{Plan, TargetFs};
use super::remote::{RemoteOurs, RemoteRsync};
use super::report::{Report, Row};
use super::rsync::{INSTALL, Lacks, Rsync, Variant};
use super::runner::{Stage, find_program};
use super::scenario::{self, Scenario, Step};
use super::server::{Carrier, Server};
use super::tool::{Run, Tool};
use super::{BenchError, cache, volume};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Room that a file system needs beside the content, for each copy.
const OVERHEAD: u64 = 32 << 20;

/// How far a bench is.
#[derive(Debug, Clone)]
pub struct Progress {
    /// Runs that are done, counted or not.
    pub done: u64,
    /// All runs.
    pub total: u64,
    /// What is under way.
    pub what: String,
}

/// A bench at work.
struct Bench<'a> {
    plan: &'a Plan,
    stage: &'a Stage,
    source: PathBuf,
    copies: PathBuf,
    tools: Vec<Box<dyn Tool>>,
    notes: Vec<String>,
    tell: &'a dyn Fn(Progress),
    progress: Progress,
}

/// Runs a plan in a workspace. `tell` hears about progress.
///
/// # Errors
/// When the plan names what does not exist, or nothing can be prepared. A tool that fails in a scenario only voids its row.
pub fn run(
    plan: &Plan,
    stage: &Stage,
    notes: Vec<String>,
    tell: &dyn Fn(Progress),
) -> Result<Report, BenchError> {
    let mut scenarios = scenario::chosen(&plan.scenarios)?;
    if plan.remote.is_some() {
        scenarios.retain(|scenario| scenario.step != Step::Stranger);
    }
    let tree_bytes = match &plan.tree {
        Some(tree) => size_of(tree)?,
        None => 0,
    };
    let largest = scenarios
        .iter()
        .map(|scenario| scenario.bytes_at_most(plan, tree_bytes))
        .max()
        .unwrap_or_default();
    let copies = prepare_room(plan, stage, largest)?;
    let mut bench = Bench {
        plan,
        stage,
        source: stage.workspace.directory("source")?,
        copies,
        tools: Vec::new(),
        notes,
        tell,
        progress: Progress {
            done: 0,
            total: 0,
            what: "starting the tools".to_owned(),
        },
    };
    bench.tell(None);
    bench.start_tools()?;
    bench.progress.total = scenarios
        .iter()
        .map(|scenario| bench.tools.len() as u64 * (plan.runs + u64::from(scenario.needs_base())))
        .sum();
    let mut rows = Vec::new();
    for scenario in scenarios {
        rows.extend(bench.measure(scenario)?);
    }
    if plan.remote.is_some() {
        bench.empty_remote();
    }
    let machine = Machine::look(
        &stage.emulator,
        stage.workspace.path(),
        &bench.copies,
        plan.tcp.first(),
    );
    Ok(Report::new(plan, machine, rows, bench.notes))
}

/// Bytes of content in a tree.
fn size_of(tree: &Path) -> Result<u64, BenchError> {
    let paths = super::corpus::walk(tree).map_err(|error| BenchError::io("list", tree, &error))?;
    let sizes = paths.iter().filter_map(|path| path.symlink_metadata().ok());
    Ok(sizes.filter(|meta| meta.is_file()).map(|meta| meta.len()).sum())
}

/// The directory for the copies. `bytes` is what one of them may come to.
fn prepare_room(plan: &Plan, stage: &Stage, bytes: u64) -> Result<PathBuf, BenchError> {
    let workspace = &stage.workspace;
    let tools = 1 + match &plan.remote {
        Some(_) => 0,
        None => Variant::all(plan.quick, &plan.tcp).len() as u64,
    };
    // A tool may keep a second copy of a file while it replaces the first.
    let copies = tools * (bytes + OVERHEAD) + bytes;
    let (needed_here, needed_memory) = match plan.target_fs {
        _ if plan.remote.is_some() => (bytes, 0),
        TargetFs::Tmpfs => (bytes, copies),
        _ => (bytes + copies, 0),
    };
    let mib = |bytes: u64| bytes >> 20;
    let free = rustix::fs::statvfs(workspace.path()).map(|stat| stat.f_bavail * stat.f_frsize);
    if let Ok(free) = free
        && free < needed_here
    {
        return Err(BenchError::new(format!(
            "this may need {} MiB in {}, and {} MiB are free (choose a smaller --size, or another place with --dir)",
            mib(needed_here),
            workspace.path().display(),
            mib(free)
        )));
    }
    if let Some(available) = super::machine::available_memory()
        && needed_memory > available
    {
        return Err(BenchError::new(format!(
            "the copies may need {} MiB of memory, and {} MiB are available (choose a smaller --size, or another --target-fs)",
            mib(needed_memory),
            mib(available)
        )));
    }
    // Journals and allocation groups want more than the content.
    volume::prepare(workspace, plan.target_fs, copies * 2)
}

impl Bench<'_> {
    fn tell(&mut self, what: Option<String>) {
        if let Some(what) = what {
            self.progress.what = what;
        }
        (self.tell)(self.progress.clone());
    }

    /// The tools that can run here, driftless first; what is missing is noted.
    fn start_tools(&mut self) -> Result<(), BenchError> {
        let ours: Box<dyn Tool> = match &self.plan.remote {
            Some(remote) => Box::new(RemoteOurs::new(self.stage, remote, &self.source)?),
            None => Box::new(Ours::new(self.stage, &self.copies)?),
        };
        self.tools.push(ours);
        if find_program("rsync").is_none() {
            self.note(Some(INSTALL.to_owned()));
            return Ok(());
        }
        let lacks = Lacks::ask();
        let (variants, old): (Vec<Variant>, Vec<Variant>) = Variant::all(self.plan.quick, &self.plan.tcp)
            .into_iter()
            .partition(|variant| lacks.allows(variant));
        for variant in old {
            let name = variant.name();
            self.note(Some(format!(
                "{name} is left out: the installed rsync is too old for it"
            )));
        }
        match &self.plan.remote {
            Some(remote) => self.start_remote(remote.rsync.as_deref(), variants),
            None => [Carrier::Ssh, Carrier::Daemon]
                .into_iter()
                .try_for_each(|carrier| self.start_carrier(carrier, &variants)),
        }
    }

    /// rsync to another machine, by which way its destination says.
    fn start_remote(&mut self, destination: Option<&str>, variants: Vec<Variant>) -> Result<(), BenchError> {
        let Some(destination) = destination else {
            self.note(Some(
                "no rsync beside it, which --remote-rsync would add".to_owned(),
            ));
            return Ok(());
        };
        for variant in variants {
            if variant.carrier == Carrier::Ssh {
                let tool = RemoteRsync::new(self.stage, variant, destination)?;
                self.tools.push(Box::new(tool));
            }
        }
        Ok(())
    }

    /// The variants of rsync that share a server.
    fn start_carrier(&mut self, carrier: Carrier, variants: &[Variant]) -> Result<(), BenchError> {
        let server = match Server::start(self.stage, carrier, &self.copies) {
            Ok(server) => Rc::new(server),
            Err(error) => {
                self.note(Some(format!("{} is left out: {error}", carrier.name())));
                return Ok(());
            }
        };
        for variant in variants.iter().filter(|variant| variant.carrier == carrier) {
            let tcp = self.plan.tcp.first();
            let tool = Rsync::new(variant.clone(), server.clone(), &self.copies, tcp)?;
            self.tools.push(Box::new(tool));
        }
        Ok(())
    }

    /// Leaves nothing in the directories on another machine.
    fn empty_remote(&mut self) {
        for at in 0..self.tools.len() {
            if let Err(error) = self.tools[at].reset(self.stage) {
                let name = self.tools[at].name().to_owned();
                self.note(Some(format!("the last copy of {name} is still there: {error}")));
            }
        }
    }

    fn measure(&mut self, scenario: &'static Scenario) -> Result<Vec<Row>, BenchError> {
        let name = scenario.name;
        self.tell(Some(format!("{name}: making the data")));
        super::cleanup::empty(&self.source)?;
        self.note(scenario.make(self.plan, &self.source)?);
        let mut wanted = self.read_source()?;
        let mut rows: Vec<Row> = self
            .tools
            .iter()
            .map(|tool| Row::new(scenario, tool.as_ref(), &wanted))
            .collect();
        for (tool, row) in rows.iter_mut().enumerate() {
            if let Err(error) = self.make_base(scenario, tool) {
                row.spoil(error.to_string());
            }
        }
        for round in 1..=self.plan.runs {
            scenario.edit(self.plan, &self.source, round)?;
            if scenario.step != Step::Fresh {
                wanted = self.read_source()?;
            }
            for turn in 0..rows.len() {
                // Nobody is always the first, or always after the same one.
                let tool = (turn + round as usize - 1) % rows.len();
                let row = &mut rows[tool];
                let what = format!("{name}: {}, run {round} of {}", row.tool, self.plan.runs);
                self.tell(Some(what));
                if row.void.is_none()
                    && let Err(error) = self.run_once(scenario, tool, &wanted, row)
                {
                    row.spoil(error.to_string());
                }
                self.progress.done += 1;
            }
        }
        Ok(rows)
    }

    /// Brings a tool's copy into the state before the first round.
    fn make_base(&mut self, scenario: &Scenario, tool: usize) -> Result<(), BenchError> {
        let what = format!("{}: {}, before", scenario.name, self.tools[tool].name());
        self.tell(Some(what));
        let tool = &mut self.tools[tool];
        tool.reset(self.stage)?;
        if scenario.needs_base() {
            tool.prepare(self.stage, &self.source)?;
            self.progress.done += 1;
        }
        Ok(())
    }

    fn run_once(
        &mut self,
        scenario: &Scenario,
        tool: usize,
        wanted: &Tree,
        row: &mut Row,
    ) -> Result<(), BenchError> {
        let (stage, source) = (self.stage, &self.source);
        let tool = &mut self.tools[tool];
        match scenario.step {
            Step::Fresh => tool.reset(stage)?,
            Step::Stranger => tool.forget(stage)?,
            _ => {}
        }
        let coldness = cache::prepare(stage, self.plan.cache, source, &self.copies)?;
        let run = tool.sync(stage, source)?;
        let difference = tool.difference(stage, source, wanted)?;
        row.runs.push(Run {
            verified: difference.is_none(),
            ..run
        });
        if let Some(difference) = difference {
            row.spoil(format!("the copy is wrong: {difference}"));
        }
        self.note(coldness.map(str::to_owned));
        Ok(())
    }

    fn read_source(&self) -> Result<Tree, BenchError> {
        Tree::read(&self.source).map_err(|error| BenchError::io("read", &self.source, &error))
    }

    /// Notes something once.
    fn note(&mut self, note: Option<String>) {
        if let Some(note) = note
            && !self.notes.contains(&note)
        {
            self.notes.push(note);
        }
    }
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

/// The congestion controls for rsync: those that were asked for, or the kernel's best and its usual one.
///
/// # Errors
/// When the kernel lacks one that was asked for.
pub fn choose_tcp(
    emulator: &Emulator,
    asked: &[String],
    notes: &mut Vec<String>,
) -> Result<Vec<String>, BenchError> {
    if emulator.link() == Link::Loop {
        if !asked.is_empty() {
            notes.push(
                "the congestion control is the machine's own, which the bench leaves alone: only an emulated link has its own"
                    .to_owned(),
            );
        }
        return Ok(Vec::new());
    }
    let settings = emulator
        .side(super::link::Side::A)
        .tcp_settings()
        .map_err(|error| BenchError::new(error.to_string()))?;
    if asked.is_empty() {
        let usual = ["bbr", "cubic"].map(str::to_owned);
        return Ok(usual
            .into_iter()
            .filter(|name| settings.available.contains(name))
            .collect());
    }
    match asked.iter().find(|name| !settings.available.contains(name)) {
        None => Ok(asked.to_vec()),
        Some(name) => Err(BenchError::new(format!(
            "this kernel has no TCP congestion control {name}; it has {}",
            settings.available.join(", ")
        ))),
    }
}
