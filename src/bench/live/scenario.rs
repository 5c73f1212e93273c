//! The live scenarios: their names, what the source is, and what happens to it.

use super::super::BenchError;
use super::super::link::Link;
use super::super::measure::Room;
use super::super::plan::Plan;
use super::super::tool::Run;
use super::Bed;
use super::figures::Figures;
use super::follower::Follower;
use super::meter::Meter;
use super::{changes, quiet, transfers};

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
}

/// A row of the table of live scenarios.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// What it is, in words.
    pub what: &'static str,
    pub(super) kind: Kind,
    /// Whether it is part of a quick run.
    quick: bool,
}

const fn scenario(name: &'static str, what: &'static str, kind: Kind, quick: bool) -> Scenario {
    Scenario {
        name,
        what,
        kind,
        quick,
    }
}

const SCENARIOS: &[Scenario] = &[
    scenario(
        "live-latency",
        "files of 1 KiB created now and then; time: what half of them took at most",
        Kind::Latency,
        true,
    ),
    scenario(
        "live-burst",
        "many files created at once; from the last one to all visible",
        Kind::Burst,
        true,
    ),
    scenario(
        "live-rename",
        "a directory with many files gets another name",
        Kind::Rename,
        false,
    ),
    scenario(
        "live-append",
        "1 KiB appended to a large log",
        Kind::Append,
        false,
    ),
    scenario(
        "live-big-beside-small",
        "a file of 1 KiB edited again and again while a large one is sent; time: what half of the edits took at most",
        Kind::BigBesideSmall,
        false,
    ),
    scenario(
        "idle",
        "nothing happens; CPU: that of the window",
        Kind::Idle,
        false,
    ),
    scenario(
        "neighbour",
        "another directory of the same file system changes all the time; CPU: that of the window",
        Kind::Neighbour,
        false,
    ),
    scenario(
        "fan-out",
        "a tree appears in the source of three targets; to all visible on all",
        Kind::FanOut,
        false,
    ),
    scenario(
        "resume",
        "the receiving end is killed in the middle of a large file and back after 1 s; from then to all visible",
        Kind::Resume,
        false,
    ),
    scenario(
        "outage",
        "the link carries nothing for 5 s in the middle of a large file; from its return to all visible",
        Kind::Outage,
        false,
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
    let is_usual = |scenario: &Scenario| plan.scenarios.is_empty() && (scenario.quick || !plan.quick);
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
        };
        // Sizes scatter.
        Room::of(bytes + bytes / 4, TOOLS * self.kind.targets() as u64)
    }
}

impl Kind {
    /// Whether a transfer is broken off in the middle.
    pub(super) fn is_interrupted(self) -> bool {
        matches!(self, Kind::Resume | Kind::Outage)
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
        };
        made.map_err(|error| BenchError::io("make the corpus in", &bed.source, &error))
    }

    /// Brings the source back to what it was before the last run, while nobody follows it.
    pub(super) fn restore(self, bed: &Bed<'_>) -> Result<(), BenchError> {
        let restored = match self {
            Kind::Latency => changes::restore_latency(bed),
            Kind::Burst => changes::restore_burst(bed),
            Kind::Append => changes::restore_append(bed),
            Kind::BigBesideSmall | Kind::Resume | Kind::Outage => transfers::restore_large(bed),
            Kind::FanOut => transfers::restore_fan_out(bed),
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
        }
    }
}
