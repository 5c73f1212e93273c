//! The loop that runs the scenarios: all tools in turn, round by round, on the same source.

use super::check::Tree;
use super::link::{Emulator, Link};
use super::machine::Machine;
use super::ours::Ours;
use super::plan::{Plan, TargetFs};
use super::progress::{Progress, Tracker};
use super::remote::{RemoteOurs, RemoteRsync};
use super::report::{Report, Row};
use super::rsync::{INSTALL, Lacks, Rsync, Variant};
use super::runner::{Stage, find_program};
use super::scenario::{self, Scenario, Step};
use super::server::{Carrier, Servers};
use super::tool::{Run, Tool};
use super::{BenchError, cache, cleanup, live, volume};
use std::path::{Path, PathBuf};

/// Room that a file system needs beside the content, for each copy.
const OVERHEAD: u64 = 32 << 20;

/// A bench at work.
struct Bench<'a> {
    plan: &'a Plan,
    stage: &'a Stage,
    source: PathBuf,
    copies: PathBuf,
    servers: Servers,
    tools: Vec<Box<dyn Tool>>,
    notes: Vec<String>,
    tracker: Tracker<'a>,
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
    check_names(plan)?;
    let (scenarios, live) = (scenario::chosen(plan), live::chosen(plan));
    let tree_bytes = match &plan.tree {
        Some(tree) => size_of(tree)?,
        None => 0,
    };
    let room = scenarios
        .iter()
        .map(|scenario| room_for(scenario, plan, tree_bytes));
    let room = room.chain(live.iter().map(|scenario| scenario.room(plan)));
    let copies = prepare_room(plan, stage, room.fold(Room::default(), Room::max))?;
    let mut bench = Bench {
        plan,
        stage,
        source: stage.workspace.directory("source")?,
        copies,
        servers: Servers::default(),
        tools: Vec::new(),
        notes,
        tracker: Tracker::new(tell),
    };
    bench.tracker.begin("starting the tools".to_owned());
    bench.start_servers();
    if !scenarios.is_empty() {
        bench.start_tools()?;
    }
    let live = live::prepare(
        &live,
        plan,
        stage,
        &bench.copies,
        &bench.servers,
        &mut bench.notes,
    )?;
    let runs = scenarios
        .iter()
        .map(|scenario| bench.tools.len() as u64 * (plan.runs + u64::from(scenario.needs_base())));
    bench
        .tracker
        .expect(runs.sum::<u64>() + live::tools(&live) * plan.live_runs());
    let mut rows = Vec::new();
    for scenario in scenarios {
        rows.extend(bench.measure(scenario)?);
    }
    bench.clear();
    rows.extend(live::run(live, plan, stage, &mut bench.tracker)?);
    let machine = Machine::look(
        &stage.emulator,
        stage.workspace.path(),
        &bench.copies,
        plan.tcp.first(),
    );
    bench.notes.extend(live::left_out(plan));
    bench.notes.extend(machine.caution());
    Ok(Report::new(plan, machine, rows, bench.notes))
}

/// Refuses scenarios that do not exist, or not with that plan.
fn check_names(plan: &Plan) -> Result<(), BenchError> {
    let known = || {
        scenario::SCENARIOS
            .iter()
            .map(|scenario| scenario.name)
            .chain(live::names())
    };
    if let Some(name) = plan
        .scenarios
        .iter()
        .find(|name| known().all(|known| known != **name))
    {
        let known: Vec<&str> = known().collect();
        return Err(BenchError::new(format!(
            "there is no scenario {name}; there are: {}",
            known.join(", ")
        )));
    }
    let needs_both_ends =
        |name: &&String| **name == scenario::STRANGER || live::names().any(|live| live == **name);
    match plan.scenarios.iter().find(needs_both_ends) {
        Some(name) if plan.remote.is_some() => Err(BenchError::new(format!(
            "the scenario {name} needs both ends on this machine: leave out --remote"
        ))),
        _ => Ok(()),
    }
}

/// Bytes of content in a tree.
fn size_of(tree: &Path) -> Result<u64, BenchError> {
    let paths = super::corpus::walk(tree).map_err(|error| BenchError::io("list", tree, &error))?;
    let sizes = paths.iter().filter_map(|path| path.symlink_metadata().ok());
    Ok(sizes.filter(|meta| meta.is_file()).map(|meta| meta.len()).sum())
}

/// Bytes that a scenario may need.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Room {
    /// Of the source, and of what is kept beside it.
    pub(super) source: u64,
    /// Of all copies together.
    pub(super) copies: u64,
}

impl Room {
    /// For a source of so many bytes and that many copies of it.
    pub(super) fn of(bytes: u64, copies: u64) -> Room {
        Room {
            source: bytes,
            // A tool may keep a second copy of a file while it replaces the first.
            copies: copies * (bytes + OVERHEAD) + bytes,
        }
    }

    /// Enough for one as for the other: what was for the one is removed before the other begins.
    fn max(self, other: Room) -> Room {
        Room {
            source: self.source.max(other.source),
            copies: self.copies.max(other.copies),
        }
    }
}

fn room_for(scenario: &Scenario, plan: &Plan, tree_bytes: u64) -> Room {
    let tools = 1 + match &plan.remote {
        Some(_) => 0,
        None => Variant::all(plan.quick, &plan.tcp).len() as u64,
    };
    Room::of(scenario.bytes_at_most(plan, tree_bytes), tools)
}

/// The directory for the copies, if there is room for them.
fn prepare_room(plan: &Plan, stage: &Stage, room: Room) -> Result<PathBuf, BenchError> {
    let workspace = &stage.workspace;
    let (needed_here, needed_memory) = match plan.target_fs {
        _ if plan.remote.is_some() => (room.source, 0),
        TargetFs::Tmpfs => (room.source, room.copies),
        _ => (room.source + room.copies, 0),
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
    volume::prepare(workspace, plan.target_fs, room.copies * 2)
}

impl Bench<'_> {
    /// What rsync and lsyncd connect to; what is missing is noted.
    fn start_servers(&mut self) {
        if find_program("rsync").is_none() {
            self.note(Some(INSTALL.to_owned()));
        } else if self.plan.remote.is_none() {
            self.servers = Servers::start(self.stage, &self.copies, &mut self.notes);
        }
    }

    /// The tools that can run here, driftless first; what is missing is noted.
    fn start_tools(&mut self) -> Result<(), BenchError> {
        let ours: Box<dyn Tool> = match &self.plan.remote {
            Some(remote) => Box::new(RemoteOurs::new(self.stage, remote, &self.source)?),
            None => Box::new(Ours::new(self.stage, &self.copies)?),
        };
        self.tools.push(ours);
        if find_program("rsync").is_none() {
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
            None => variants
                .into_iter()
                .try_for_each(|variant| self.start_local(variant)),
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

    /// rsync on this machine, if there is the server for it.
    fn start_local(&mut self, variant: Variant) -> Result<(), BenchError> {
        if let Some(server) = self.servers.of(variant.carrier) {
            let tool = Rsync::new(variant, server, &self.copies, self.plan.tcp.first())?;
            self.tools.push(Box::new(tool));
        }
        Ok(())
    }

    /// Removes source and copies. Without that, what is on another machine would stay; on this one they take up room.
    fn clear(&mut self) {
        let mut tools = std::mem::take(&mut self.tools);
        for tool in &mut tools {
            if let Err(error) = tool.reset(self.stage) {
                let name = tool.name();
                self.note(Some(format!("the last copy of {name} is still there: {error}")));
            }
        }
        if let Err(error) = cleanup::empty(&self.source) {
            self.note(Some(format!("the last source is still there: {error}")));
        }
    }

    fn measure(&mut self, scenario: &'static Scenario) -> Result<Vec<Row>, BenchError> {
        let name = scenario.name;
        self.tracker.begin(format!("{name}: making the data"));
        cleanup::empty(&self.source)?;
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
                self.tracker.begin(what);
                if row.void.is_none()
                    && let Err(error) = self.run_once(scenario, tool, &wanted, row)
                {
                    row.spoil(error.to_string());
                }
                self.tracker.done();
            }
        }
        Ok(rows)
    }

    /// Brings a tool's copy into the state before the first round.
    fn make_base(&mut self, scenario: &Scenario, tool: usize) -> Result<(), BenchError> {
        let what = format!("{}: {}, before", scenario.name, self.tools[tool].name());
        self.tracker.begin(what);
        let tool = &mut self.tools[tool];
        tool.reset(self.stage)?;
        if scenario.needs_base() {
            tool.prepare(self.stage, &self.source)?;
            self.tracker.done();
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
