//! Single changes in a source of very many files: what a change, and a tool at rest, cost by the size of the tree.

use super::super::BenchError;
use super::super::plan::Plan;
use super::super::tool::Run;
use super::Bed;
use super::changes::{self, FILES_PER_DIRECTORY};
use super::figures::Figures;
use super::follower::Follower;
use super::meter;
use super::scenario::scaled;
use std::fs::{self, File};
use std::io;

/// Files of the source.
const FILES: u64 = 1_000_000;
const FILES_LEAST: u64 = 1_000;
/// Room that an empty file takes: an inode and a name, and what a tool remembers of it. Generous, since a new ext4 for the
/// copies gets its inodes by this as well.
const ROOM_PER_FILE: u64 = 1536;

/// How many files the source has.
fn files(plan: &Plan) -> u64 {
    scaled(plan, FILES, FILES_LEAST)
}

/// Bytes that the source may take.
pub(super) fn room(plan: &Plan) -> u64 {
    files(plan) * ROOM_PER_FILE
}

pub(super) fn prepare(bed: &Bed<'_>) -> io::Result<()> {
    fs::create_dir(bed.source.join("live"))?;
    let (root, files) = (bed.source.join("many"), files(bed.plan));
    fs::create_dir(&root)?;
    for number in 0..files.div_ceil(FILES_PER_DIRECTORY) {
        let directory = root.join(format!("d{number:03}"));
        fs::create_dir(&directory)?;
        let first = number * FILES_PER_DIRECTORY;
        for index in first..files.min(first + FILES_PER_DIRECTORY) {
            File::create_new(directory.join(format!("f{index:06}")))?;
        }
    }
    Ok(())
}

/// Creates files one by one, and looks at what the daemons hold in the end.
pub(super) fn latency(
    bed: &mut Bed<'_>,
    tool: &mut dyn Follower,
    run: &mut Run,
) -> Result<Figures, BenchError> {
    let Figures { latency, .. } = changes::latency(bed, tool, run)?;
    Ok(Figures {
        latency,
        entries: Some(bed.entries),
        ..meter::held(tool)
    })
}
