//! The micro mode: what delta engines make of two files, in one thread, without a network.

use super::corpus::{self, Kind};
use super::rsync;
use super::runner::{cpu_of, find_program};
use super::{BenchError, edits};
use crate::engine::delta::fast_rsync::block_bytes;
use crate::engine::delta::{
    Index, Matcher, RangeDelta, Signature, SignatureBuilder, SignatureOptions, StrongKind,
};
use driftless_protocol::limits::SIGNATURE_BYTES_MAX;
use driftless_protocol::message::DeltaPart;
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use std::fmt::{Display, Write};
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Name of the JSON's schema.
pub const SCHEMA: &str = "driftless-bench-delta";
/// Rounds, of which the fastest counts.
const ROUNDS: usize = 3;
/// A delta above that is no gain any more, and fast_rsync may go on for a long time.
const FAST_RSYNC_MAX: usize = 1 << 30;

/// What is handed to our engine at a time.
const PIECE_BYTES: usize = 4 << 20;
/// The key of our signatures, which is random elsewhere.
const KEY: [u8; 32] = [5; 32];

/// A way to make deltas.
struct Engine {
    name: &'static str,
    /// The program it needs, without which it is left out.
    program: Option<&'static str>,
    measure: fn(&Files<'_>) -> Result<Figures, BenchError>,
}

/// To compare with another engine, add it here.
const ENGINES: &[Engine] = &[
    Engine {
        name: "driftless XXH3 remembered",
        program: None,
        measure: |files| measure_ours(files, StrongKind::SeededXxh3),
    },
    Engine {
        name: "driftless keyed BLAKE3",
        program: None,
        measure: |files| measure_ours(files, StrongKind::KeyedBlake3),
    },
    Engine {
        name: "fast_rsync",
        program: None,
        measure: measure_fast_rsync,
    },
    Engine {
        name: "rsync",
        program: Some("rsync"),
        measure: measure_rsync,
    },
];

/// Two files and what is in them.
struct Files<'a> {
    old_path: &'a Path,
    new_path: &'a Path,
    old: Vec<u8>,
    new: Vec<u8>,
    /// A place for files.
    scratch: &'a Path,
}

/// What an engine made of two files. Rates are in MB (10^6 bytes) of the file that is read per second of CPU time.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Figures {
    /// The signature of the old file.
    pub signature_rate: Option<f64>,
    /// Its size in bytes.
    pub signature_bytes: Option<u64>,
    /// The delta of the new file.
    pub diff_rate: Option<f64>,
    /// Signature, delta and new file together, where they cannot be told apart.
    pub whole_rate: Option<f64>,
    /// Bytes of the new file that the old one does not give.
    pub literal_bytes: Option<u64>,
}

/// What one engine came to.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// The engine.
    pub engine: &'static str,
    /// Its figures, if it was measured; the delta was carried out and gave the new file.
    pub figures: Option<Figures>,
    /// Why there are none.
    pub void: Option<String>,
}

/// All engines on one pair of files.
#[derive(Debug, Clone, Serialize)]
pub struct Case {
    /// What the files are.
    pub what: String,
    /// Bytes of the old file.
    pub old_bytes: u64,
    /// Bytes of the new file.
    pub new_bytes: u64,
    /// In the order of the table.
    pub outcomes: Vec<Outcome>,
}

/// Measures the way from `old` to `new`.
///
/// # Errors
/// When a file cannot be read. An engine that cannot do it only has no figures.
pub fn measure(what: &str, old: &Path, new: &Path, scratch: &Path) -> Result<Case, BenchError> {
    let read = |path: &Path| fs::read(path).map_err(|error| BenchError::io("read", path, &error));
    let files = Files {
        old_path: old,
        new_path: new,
        old: read(old)?,
        new: read(new)?,
        scratch,
    };
    let is_there = |engine: &&Engine| engine.program.is_none_or(|name| find_program(name).is_some());
    let outcomes = ENGINES.iter().filter(is_there).map(|engine| {
        let (figures, void) = match (engine.measure)(&files) {
            Ok(figures) => (Some(figures), None),
            Err(error) => (None, Some(error.to_string())),
        };
        Outcome {
            engine: engine.name,
            figures,
            void,
        }
    });
    Ok(Case {
        what: what.to_owned(),
        old_bytes: files.old.len() as u64,
        new_bytes: files.new.len() as u64,
        outcomes: outcomes.collect(),
    })
}

/// Measures files of our own making: as good as equal, shifted, grown, and without anything in common.
///
/// # Errors
/// When they cannot be made.
pub fn measure_corpora(seed: u64, bytes: u64, scratch: &Path) -> Result<Vec<Case>, BenchError> {
    type Edit = fn(&Path, u64) -> std::io::Result<()>;
    let cases: [(&str, Kind, Edit); 5] = [
        ("disk image, unchanged", Kind::Image, |_, _| Ok(())),
        ("disk image, 100 random pages", Kind::Image, |path, seed| {
            edits::random_pages(path, seed, 1, 100)
        }),
        ("disk image, 100 insertions", Kind::Image, |path, seed| {
            edits::insertions(path, seed, 1, 100)
        }),
        ("log, 1 MiB appended", Kind::Log, |path, seed| {
            edits::append(path, seed, 1, 1 << 20)
        }),
        ("media, nothing in common", Kind::Media, |path, seed| {
            let bytes = fs::metadata(path)?.len();
            corpus::file(path, seed + 1, Kind::Media, bytes)
        }),
    ];
    let (old, new) = (scratch.join("old"), scratch.join("new"));
    cases
        .into_iter()
        .map(|(what, kind, edit)| {
            corpus::file(&old, seed, kind, bytes)
                .and_then(|()| fs::copy(&old, &new))
                .and_then(|_| edit(&new, seed))
                .map_err(|error| BenchError::io("make files in", scratch, &error))?;
            measure(what, &old, &new, scratch)
        })
        .collect()
}

/// The table for people.
#[must_use]
pub fn table(cases: &[Case]) -> String {
    let mut out = String::new();
    let rate = |rate: Option<f64>| rate.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.0}"));
    let count = |count: Option<u64>| count.map_or_else(|| "-".to_owned(), |count| count.to_string());
    for case in cases {
        // Writing into a string cannot fail.
        let _ = writeln!(
            out,
            "{} ({} to {} bytes)\n  {:<25} {:>15} {:>15} {:>15} {:>12} {:>12}",
            case.what,
            case.old_bytes,
            case.new_bytes,
            "",
            "signature MB/s",
            "delta MB/s",
            "together MB/s",
            "signature B",
            "literals B"
        );
        for outcome in &case.outcomes {
            let _ = match (&outcome.figures, &outcome.void) {
                (Some(figures), _) => writeln!(
                    out,
                    "  {:<25} {:>15} {:>15} {:>15} {:>12} {:>12}",
                    outcome.engine,
                    rate(figures.signature_rate),
                    rate(figures.diff_rate),
                    rate(figures.whole_rate),
                    count(figures.signature_bytes),
                    count(figures.literal_bytes)
                ),
                (None, why) => writeln!(
                    out,
                    "  {:<25} VOID: {}",
                    outcome.engine,
                    why.as_deref().unwrap_or_default()
                ),
            };
        }
    }
    out.push_str(
        "\nMB are 10^6 bytes per second of CPU time, the best of 3 runs. `together` is all of rsync's work, on a local copy \
         without --whole-file: its three processes cannot be told apart. Every delta was carried out and compared.\n",
    );
    out
}

/// The best rate of a few runs over `bytes`, and what the last of them made.
fn best<T>(bytes: usize, mut work: impl FnMut() -> Result<T, BenchError>) -> Result<(f64, T), BenchError> {
    let cpu = || {
        let now = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
    };
    let mut run = || {
        let began = cpu();
        let made = black_box(work()?);
        Ok::<_, BenchError>((cpu().saturating_sub(began), made))
    };
    let (mut fastest, mut made) = run()?;
    for _ in 1..ROUNDS {
        let (time, again) = run()?;
        (fastest, made) = (fastest.min(time), again);
    }
    Ok((rate_of(bytes, fastest), made))
}

fn rate_of(bytes: usize, time: Duration) -> f64 {
    bytes as f64 / 1e6 / time.as_secs_f64().max(1e-9)
}

fn fail(error: impl Display) -> BenchError {
    BenchError::new(error.to_string())
}

/// Refuses a delta that does not give the new file.
fn check(made: &[u8], wanted: &[u8]) -> Result<(), BenchError> {
    if made == wanted {
        Ok(())
    } else {
        Err(fail("the delta does not make the new file"))
    }
}

/// As the sender remembers a file (XXH3), or as a receiver describes one to a peer (keyed BLAKE3). Both signatures come with
/// the digest of the old file, and the rate includes it. The rate of the delta includes reading the signature.
fn measure_ours(files: &Files<'_>, kind: StrongKind) -> Result<Figures, BenchError> {
    let (old, new) = (&files.old, &files.new);
    let options = match kind {
        StrongKind::SeededXxh3 => SignatureOptions::remembered(KEY, SIGNATURE_BYTES_MAX),
        StrongKind::KeyedBlake3 => SignatureOptions::exchanged(KEY),
    };
    let (signature_rate, bytes) = best(old.len(), || {
        let mut builder = SignatureBuilder::new(old.len() as u64, &options)
            .ok_or_else(|| fail("the old file is too large for a signature"))?;
        old.chunks(PIECE_BYTES).for_each(|piece| builder.push(piece));
        Ok(builder.finish().map_err(fail)?.signature)
    })?;
    let (diff_rate, ranges) = best(new.len(), || {
        let index = Index::new(Signature::parse(bytes.clone()).map_err(fail)?);
        let (mut matcher, mut ranges) = (Matcher::new(&index), Vec::new());
        for piece in new.chunks(PIECE_BYTES) {
            matcher.push(piece);
            ranges.append(&mut matcher.ranges());
        }
        ranges.append(&mut matcher.finish());
        Ok(ranges)
    })?;
    let (made, literal_bytes) = carry_out(old, &ranges)?;
    check(&made, new)?;
    Ok(Figures {
        signature_rate: Some(signature_rate),
        signature_bytes: Some(bytes.len() as u64),
        diff_rate: Some(diff_rate),
        literal_bytes: Some(literal_bytes),
        ..Figures::default()
    })
}

/// What a delta makes of the old file, and how many bytes of that are literals.
fn carry_out(old: &[u8], ranges: &[RangeDelta]) -> Result<(Vec<u8>, u64), BenchError> {
    let (mut made, mut literal_bytes) = (Vec::new(), 0);
    for range in ranges {
        let mut literals = &range.literals[..];
        literal_bytes += literals.len() as u64;
        for part in &range.parts {
            match *part {
                DeltaPart::Copy { offset, length } => {
                    let found = old
                        .get(offset as usize..)
                        .and_then(|rest| rest.get(..length as usize));
                    made.extend_from_slice(found.ok_or_else(|| fail("the delta copies from nowhere"))?);
                }
                DeltaPart::Literal { length } => {
                    let (now, later) = literals
                        .split_at_checked(length as usize)
                        .ok_or_else(|| fail("the delta lacks literals"))?;
                    made.extend_from_slice(now);
                    literals = later;
                }
            }
        }
    }
    Ok((made, literal_bytes))
}

fn measure_fast_rsync(files: &Files<'_>) -> Result<Figures, BenchError> {
    let (old, new) = (&files.old, &files.new);
    if old.len() > FAST_RSYNC_MAX || old.is_empty() {
        return Err(fail("not measured with an empty file or one above 1 GiB"));
    }
    // Blocks as `--delta-engine fast_rsync` chooses them: about as large as those of our exchanged signatures.
    let options = || fast_rsync::SignatureOptions {
        block_size: block_bytes(old.len() as u64),
        crypto_hash_size: 16,
    };
    let (signature_rate, signature) =
        best(old.len(), || Ok(fast_rsync::Signature::calculate(old, options())))?;
    let (diff_rate, delta) = best(new.len(), || {
        let (index, mut delta) = (signature.index(), Vec::new());
        fast_rsync::diff(&index, new, &mut delta).map_err(fail)?;
        Ok(delta)
    })?;
    let mut made = Vec::with_capacity(new.len());
    fast_rsync::apply_limited(old, &delta, &mut made, new.len()).map_err(fail)?;
    check(&made, new)?;
    Ok(Figures {
        signature_rate: Some(signature_rate),
        signature_bytes: Some(signature.serialized().len() as u64),
        diff_rate: Some(diff_rate),
        // Its delta also holds the commands, which are few.
        literal_bytes: Some(delta.len() as u64),
        ..Figures::default()
    })
}

/// All of rsync's work on a local copy. Reading and writing the files is in it, and starting three processes.
fn measure_rsync(files: &Files<'_>) -> Result<Figures, BenchError> {
    let copy = files.scratch.join("rsync-copy");
    let (mut fastest, mut literal_bytes) = (Duration::MAX, None);
    for _ in 0..ROUNDS {
        fs::copy(files.old_path, &copy).map_err(|error| BenchError::io("write", &copy, &error))?;
        let mut command = Command::new("rsync");
        command
            .args(["--no-whole-file", "--ignore-times", "--stats"])
            .arg(files.new_path)
            .arg(&copy);
        let (cpu, output) = cpu_of(command)?;
        fastest = fastest.min(cpu);
        literal_bytes = rsync::number_after(&output, "Literal data:");
    }
    let made = fs::read(&copy).map_err(|error| BenchError::io("read", &copy, &error))?;
    check(&made, &files.new)?;
    Ok(Figures {
        whole_rate: Some(rate_of(files.new.len(), fastest)),
        literal_bytes,
        ..Figures::default()
    })
}
