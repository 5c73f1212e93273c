//! What the source's own programs lose while it is followed. Each of them has one thread, a processor of its own, and always the
//! same work; its time is compared with that of the same work beside no tool at all.

use super::super::BenchError;
use super::super::corpus::{self, PAGE, Rng, Text, stamp};
use super::super::plan::Plan;
use super::super::tool::Run;
use super::Bed;
use super::cores::OwnCore;
use super::figures::Figures;
use super::follower::Follower;
use super::quiet;
use super::scenario::scaled;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// A program that works in the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Program {
    /// Compiles some hundred files, and links them.
    Build,
    /// Writes pages of a large file and flushes them, like a database.
    Writes,
    /// Unpacks an archive.
    Untar,
}

/// Files that are compiled, and headers that each of them includes.
const SOURCES: (u64, u64) = (400, 100);
const HEADERS: u64 = 60;
const HEADER_BYTES: usize = 4 << 10;
const SOURCE_BYTES: usize = 12 << 10;
const OBJECT_BYTES: usize = 20_000;
/// How often a compilation goes over what it has read: with BLAKE3 at 3.6 GB/s it takes some 3 ms.
const PASSES: u32 = 40;
/// Size of the file of pages, and how many are written.
const DATA_BYTES: (u64, u64) = (64 << 20, 4 << 20);
const PAGES: (u64, u64) = (16_384, 2_048);
/// So many pages are flushed together.
const FLUSH: u64 = 64;
/// Files of an archive, the least and the most bytes of one, and how many are in a directory.
const FILES: (u64, u64) = (6_000, 1_000);
const FILE_BYTES: (u64, u64) = (1_000, 20_000);
const FILES_PER_DIRECTORY: u64 = 100;
/// What their contents are taken from.
const TEXT_BYTES: usize = 1 << 20;

fn size(plan: &Plan, (full, least): (u64, u64)) -> u64 {
    scaled(plan, full, least)
}

impl Program {
    /// Bytes that the source may take.
    pub(super) fn room(self, plan: &Plan) -> u64 {
        match self {
            // The program is as large as all objects.
            Program::Build => {
                let each = SOURCE_BYTES + 2 * OBJECT_BYTES + 4096;
                size(plan, SOURCES) * each as u64 + HEADERS * HEADER_BYTES as u64
            }
            Program::Writes => size(plan, DATA_BYTES),
            Program::Untar => size(plan, FILES) * (FILE_BYTES.1 + 4096),
        }
    }

    pub(super) fn prepare(self, bed: &Bed<'_>) -> io::Result<()> {
        match self {
            Program::Build => {
                let (text, mut rng) = (Text::new(bed.plan.seed), Rng::new(bed.plan.seed, 4000));
                for (name, count, bytes) in [
                    ("include", HEADERS, HEADER_BYTES),
                    ("src", size(bed.plan, SOURCES), SOURCE_BYTES),
                ] {
                    let directory = bed.source.join(name);
                    fs::create_dir(&directory)?;
                    for index in 0..count {
                        let path = directory.join(format!("{index:03}.c"));
                        fs::write(path, text.block(&mut rng, bytes))?;
                    }
                }
                Ok(())
            }
            Program::Writes => corpus::file(
                &bed.source.join("data"),
                bed.plan.seed,
                corpus::Kind::Database,
                size(bed.plan, DATA_BYTES),
            ),
            Program::Untar => fs::write(bed.source.join("README"), "unpacked here\n"),
        }
    }

    /// Takes away what it made. Pages stay: the next run writes others.
    pub(super) fn restore(self, bed: &Bed<'_>) -> io::Result<()> {
        let made = match self {
            Program::Build => "build",
            Program::Untar => "unpacked",
            Program::Writes => return Ok(()),
        };
        match fs::remove_dir_all(bed.source.join(made)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Lets it work once while nothing else is to be done.
    pub(super) fn measure(
        self,
        bed: &mut Bed<'_>,
        tool: &mut dyn Follower,
        run: &mut Run,
    ) -> Result<Figures, BenchError> {
        quiet::wait_for_rest(tool);
        tool.health()?;
        let core = OwnCore::take(tool);
        let worked = match self {
            Program::Build => build(&bed.source, bed.run),
            Program::Writes => writes(bed),
            Program::Untar => untar(bed),
        };
        drop(core);
        let time = worked.map_err(|error| BenchError::io("work in", &bed.source, &error))?;
        run.wall_s = time.as_secs_f64();
        tool.health()?;
        Ok(Figures::default())
    }
}

/// Each source is read with all headers, worked on, and becomes an object; in the end all objects become one program. Every
/// run makes other objects of the same sizes.
fn build(root: &Path, run: u64) -> io::Result<Duration> {
    let list = |name: &str| corpus::walk(&root.join(name));
    let (headers, sources, out) = (list("include")?, list("src")?, root.join("build"));
    let (began, mut objects) = (Instant::now(), Vec::new());
    fs::create_dir(&out)?;
    for (index, source) in sources.iter().enumerate() {
        let mut unit = Vec::new();
        for path in headers.iter().chain([source]) {
            unit.extend(fs::read(path)?);
        }
        let mut object = [0; OBJECT_BYTES];
        let mut compiler = blake3::Hasher::new();
        compiler.update(&run.to_le_bytes());
        (0..PASSES).for_each(|_| {
            compiler.update(&unit);
        });
        compiler.finalize_xof().fill(&mut object);
        let path = out.join(format!("{index:03}.o"));
        fs::write(&path, object)?;
        objects.push(path);
    }
    let mut program = File::create_new(out.join("program"))?;
    for path in objects {
        program.write_all(&fs::read(path)?)?;
    }
    drop(program);
    Ok(began.elapsed())
}

/// Pages at random places, each flushed with some others before the next.
fn writes(bed: &Bed<'_>) -> io::Result<Duration> {
    let file = OpenOptions::new().write(true).open(bed.source.join("data"))?;
    let pages = file.metadata()?.len() / PAGE as u64;
    let (mut rng, mut page) = (Rng::new(bed.plan.seed, 5000 + bed.run), [0; PAGE]);
    let began = Instant::now();
    for written in 1..=size(bed.plan, PAGES) {
        rng.fill(&mut page);
        file.write_all_at(&page, rng.below(pages) * PAGE as u64)?;
        if written % FLUSH == 0 {
            file.sync_data()?;
        }
    }
    drop(file);
    Ok(began.elapsed())
}

/// Files with contents and times, as fast as one thread makes them. Every run has other contents of the same sizes.
fn untar(bed: &Bed<'_>) -> io::Result<Duration> {
    let (mut sizes, mut places) = (
        Rng::new(bed.plan.seed, 6000),
        Rng::new(bed.plan.seed, 7000 + bed.run),
    );
    let text = Text::new(bed.plan.seed).block(&mut places, TEXT_BYTES);
    let (root, began) = (bed.source.join("unpacked"), Instant::now());
    fs::create_dir(&root)?;
    for index in 0..size(bed.plan, FILES) {
        let directory = root.join(format!("d{:02}", index / FILES_PER_DIRECTORY));
        if index % FILES_PER_DIRECTORY == 0 {
            fs::create_dir(&directory)?;
        }
        let size = FILE_BYTES.0 + sizes.below(FILE_BYTES.1 - FILE_BYTES.0);
        let place = places.below(TEXT_BYTES as u64 - FILE_BYTES.1) as usize;
        let mut file = File::create_new(directory.join(format!("f{index:04}")))?;
        file.write_all(&text[place..place + size as usize])?;
        file.set_modified(stamp(0, index))?;
    }
    Ok(began.elapsed())
}
