//! The live scenarios: their names, what the source is, and what happens to it.

use super::super::BenchError;
use super::super::link::Link;
use super::super::measure::Room;
use super::super::plan::Plan;
use super::super::tool::Run;
use super::Bed;
use super::beside::Program;
use super::figures::Figures;
use super::follower::Follower;
use super::meter::Meter;
use super::{away, changes, large_tree, quiet, transfers};
use Selection::{Named, Quick, Usual};

/// What all counts of files and sizes are scaled by.
const FULL_SIZE: u64 = 256 << 20;
/// Targets of the fan-out.
pub(super) const TARGETS: usize = 3;
/// Tools that are compared: driftless and two ways of lsyncd, or one of rsync.
const TOOLS: u64 = 3;
/// Room that a small file takes.
const CLUSTER: u64 = 4096;

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Latency,
    Burst,
    Rename,
    Append,
    BigBesideSmall,
    Idle,
    Neighbour,
    FanOut,
    Resume,
    /// The link carries nothing for a while.
    Outage,
    /// As [`Kind::Latency`], among very many files.
    LargeTree,
    /// The source changes while there is no target.
    TargetAway,
    /// A program works in the source.
    Beside(Program),
}

/// What driftless is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rivals {
    Lsyncd,
    /// rsync, started again until it succeeds.
    RsyncLoop,
    /// lsyncd, and the source without any tool.
    LsyncdAndNobody,
    None,
}

/// Which runs a scenario is part of without being named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Selection {
    /// All.
    Quick,
    /// All but quick ones.
    Usual,
    /// None.
    Named,
}

/// A row of the table of live scenarios.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// What it is, in words.
    pub what: &'static str,
    pub(super) kind: Kind,
    selection: Selection,
}

const fn scenario(name: &'static str, what: &'static str, kind: Kind, selection: Selection) -> Scenario {
    Scenario {
        name,
        what,
        kind,
        selection,
    }
}

const SCENARIOS: &[Scenario] = &[
    scenario(
        "live-latency",
        "files of 1 KiB created now and then; time: what half of them took at most",
        Kind::Latency,
        Quick,
    ),
    scenario(
        "live-burst",
        "many files created at once; from the last one to all visible",
        Kind::Burst,
        Quick,
    ),
    scenario(
        "live-rename",
        "a directory with many files gets another name",
        Kind::Rename,
        Usual,
    ),
    scenario(
        "live-append",
        "1 KiB appended to a large log",
        Kind::Append,
        Usual,
    ),
    scenario(
        "live-big-beside-small",
        "a file of 1 KiB edited again and again while a large one is sent; time: what half of the edits took at most",
        Kind::BigBesideSmall,
        Usual,
    ),
    scenario(
        "idle",
        "nothing happens; CPU: that of the window",
        Kind::Idle,
        Usual,
    ),
    scenario(
        "neighbour",
        "another directory of the same file system changes all the time; CPU: that of the window",
        Kind::Neighbour,
        Usual,
    ),
    scenario(
        "fan-out",
        "a tree appears in the source of three targets; to all visible on all",
        Kind::FanOut,
        Usual,
    ),
    scenario(
        "resume",
        "the receiving end is killed in the middle of a large file and back after 1 s; from then to all visible",
        Kind::Resume,
        Usual,
    ),
    scenario(
        "outage",
        "the link carries nothing for 5 s in the middle of a large file; from its return to all visible",
        Kind::Outage,
        Usual,
    ),
    scenario(
        "target-away",
        "5,000 operations a second in the source while the receiving end is away; CPU: that of the window",
        Kind::TargetAway,
        Usual,
    ),
    scenario(
        "beside-build",
        "a build in the source; time: that of the build",
        Kind::Beside(Program::Build),
        Usual,
    ),
    scenario(
        "beside-writes",
        "pages of a file in the source written at random and flushed; time: that of the writer",
        Kind::Beside(Program::Writes),
        Usual,
    ),
    scenario(
        "beside-untar",
        "an archive unpacked into the source; time: that of unpacking",
        Kind::Beside(Program::Untar),
        Usual,
    ),
    scenario(
        "live-large-tree",
        "as live-latency, but among very many empty files; time: what half of the changes took at most",
        Kind::LargeTree,
        Named,
    ),
];

/// Names of all live scenarios.
pub fn names() -> impl Iterator<Item = &'static str> {
    SCENARIOS.iter().map(|scenario| scenario.name)
}

/// The live scenarios of a plan, in their own order. Between two machines there are none: both ends must be watched.
#[must_use]
pub fn chosen(plan: &Plan) -> Vec<&'static Scenario> {
    let is_named = |scenario: &Scenario| plan.scenarios.iter().any(|name| name == scenario.name);
    let is_usual = |scenario: &Scenario| {
        plan.scenarios.is_empty()
            && match scenario.selection {
                Quick => true,
                Usual => !plan.quick,
                Named => false,
            }
    };
    SCENARIOS
        .iter()
        .filter(|scenario| plan.remote.is_none() && (is_named(scenario) || is_usual(scenario)))
        // There is no link to cut.
        .filter(|scenario| scenario.kind != Kind::Outage || plan.link != Link::Loop)
        .collect()
}

/// Why a scenario that was asked for is not in the table.
pub fn left_out(plan: &Plan) -> Option<String> {
    let is_wanted = plan.scenarios.iter().any(|name| name == "outage");
    (is_wanted && plan.link == Link::Loop).then(|| {
        "outage cuts an emulated link, and the loopback device is none: choose one with --link, as root"
            .to_owned()
    })
}

/// So many of `full` as the size asked for is of the usual one, but at least `least`.
pub(super) fn scaled(plan: &Plan, full: u64, least: u64) -> u64 {
    let scaled = u128::from(full) * u128::from(plan.size) / u128::from(FULL_SIZE);
    u64::try_from(scaled).unwrap_or(full).clamp(least, full)
}

/// The size of a file whose transfer takes some seconds.
pub(super) fn large(plan: &Plan) -> u64 {
    match plan.link {
        Link::Loop => plan.size.saturating_mul(2).max(128 << 20),
        Link::Wan(_) => plan.size.max(8 << 20),
    }
}

impl Scenario {
    /// What it may need.
    pub(in crate::bench) fn room(&self, plan: &Plan) -> Room {
        let bytes = match self.kind {
            Kind::Latency | Kind::Neighbour => plan.size / 8,
            Kind::Burst => plan.size / 64 + changes::many(plan) * CLUSTER,
            Kind::Rename => changes::many(plan) * CLUSTER,
            Kind::Append | Kind::Idle => plan.size,
            Kind::BigBesideSmall | Kind::Resume | Kind::Outage => large(plan),
            Kind::FanOut => plan.size / 64 + plan.size / 4,
            Kind::LargeTree => large_tree::room(plan),
            Kind::TargetAway => plan.size / 8 + away::files_at_most(plan) * CLUSTER,
            Kind::Beside(program) => program.room(plan),
        };
        // Sizes scatter.
        Room::of(bytes + bytes / 4, TOOLS * self.kind.targets() as u64)
    }
}

impl Kind {
    pub(super) fn rivals(self) -> Rivals {
        match self {
            // A transfer is broken off in the middle.
            Kind::Resume | Kind::Outage => Rivals::RsyncLoop,
            Kind::Beside(_) => Rivals::LsyncdAndNobody,
            Kind::TargetAway => Rivals::None,
            _ => Rivals::Lsyncd,
        }
    }

    /// Whether the copies are made before the first run: what daemons hold that just made them tells nothing about those that
    /// have followed for a while.
    pub(super) fn needs_copies(self) -> bool {
        self == Kind::LargeTree
    }

    /// How many copies there are.
    pub(super) fn targets(self) -> usize {
        if self == Kind::FanOut { TARGETS } else { 1 }
    }

    /// Makes the source, once.
    pub(super) fn prepare(self, bed: &Bed<'_>) -> Result<(), BenchError> {
        let made = match self {
            Kind::Latency => changes::prepare_latency(bed),
            Kind::Burst => changes::prepare_burst(bed),
            Kind::Rename => changes::prepare_rename(bed),
            Kind::Append => changes::prepare_append(bed),
            Kind::BigBesideSmall | Kind::Resume | Kind::Outage => transfers::prepare_large(bed),
            Kind::FanOut => transfers::prepare_fan_out(bed),
            Kind::Idle => quiet::prepare_idle(bed),
            Kind::Neighbour => quiet::prepare_neighbour(bed),
            Kind::LargeTree => large_tree::prepare(bed),
            Kind::TargetAway => away::prepare(bed),
            Kind::Beside(program) => program.prepare(bed),
        };
        made.map_err(|error| BenchError::io("make the corpus in", &bed.source, &error))
    }

    /// Brings the source back to what it was before the last run, while nobody follows it.
    pub(super) fn restore(self, bed: &Bed<'_>) -> Result<(), BenchError> {
        let restored = match self {
            Kind::Latency | Kind::LargeTree => changes::restore_latency(bed),
            Kind::Burst => changes::restore_burst(bed),
            Kind::Append => changes::restore_append(bed),
            Kind::BigBesideSmall | Kind::Resume | Kind::Outage => transfers::restore_large(bed),
            Kind::FanOut => transfers::restore_fan_out(bed),
            Kind::TargetAway => away::restore(bed),
            Kind::Beside(program) => program.restore(bed),
            Kind::Rename | Kind::Idle | Kind::Neighbour => Ok(()),
        };
        restored.map_err(|error| BenchError::io("restore the corpus in", &bed.source, &error))
    }

    /// Lets it happen, and measures.
    pub(super) fn measure(
        self,
        bed: &mut Bed<'_>,
        tool: &mut dyn Follower,
        meter: &mut Meter,
        run: &mut Run,
    ) -> Result<Figures, BenchError> {
        match self {
            Kind::Latency => changes::latency(bed, tool, run),
            Kind::Burst => changes::burst(bed, tool, run),
            Kind::Rename => changes::rename(bed, tool, run),
            Kind::Append => changes::append(bed, tool, run),
            Kind::BigBesideSmall => transfers::big_beside_small(bed, tool, run),
            Kind::FanOut => transfers::fan_out(bed, tool, run),
            Kind::Resume => transfers::resume(bed, tool, meter, run),
            Kind::Outage => transfers::outage(bed, tool, meter, run),
            Kind::Idle => quiet::idle(bed, tool, run),
            Kind::Neighbour => quiet::neighbour(bed, tool, run),
            Kind::LargeTree => large_tree::latency(bed, tool, run),
            Kind::TargetAway => away::away(bed, tool, meter, run),
            Kind::Beside(program) => program.measure(bed, tool, run),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::plan::{Cache, TargetFs};
    use super::*;

    #[test]
    fn what_takes_long_runs_only_when_it_is_named() {
        let chosen = |quick, name: &str| {
            let plan = Plan {
                link: Link::Loop,
                scenarios: [name]
                    .map(str::to_owned)
                    .into_iter()
                    .filter(|name| !name.is_empty())
                    .collect(),
                size: FULL_SIZE,
                runs: 1,
                tree: None,
                seed: 1,
                quick,
                tcp: Vec::new(),
                cache: Cache::Warm,
                target_fs: TargetFs::Dir,
                remote: None,
            };
            chosen(&plan)
                .into_iter()
                .map(|scenario| scenario.name)
                .collect::<Vec<_>>()
        };
        assert_eq!(chosen(true, ""), ["live-latency", "live-burst"]);
        let usual = chosen(false, "");
        assert_eq!(usual.len(), SCENARIOS.len() - 2, "all but these two: {usual:?}");
        assert!(!usual.contains(&"live-large-tree") && !usual.contains(&"outage"));
        for name in ["live-large-tree", "target-away", "beside-build"] {
            assert_eq!(chosen(true, name), [name]);
        }
    }
}
