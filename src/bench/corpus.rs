//! Deterministic corpora: the same seed and size give the same bytes, names, modes and times on every machine.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// What times of entries start from: a moment that is in the past everywhere.
const EPOCH_SECONDS: u64 = 1_600_000_000;
/// Mean file size of the source-like tree, which is that of a large kernel source tree.
pub(super) const SOURCE_FILE_BYTES: u64 = 16 << 10;
/// No source file is larger.
const SOURCE_FILE_MAX: u64 = 1 << 20;
/// Size of one of the many small files.
pub(super) const SMALL_FILE_BYTES: u64 = 4 << 10;
/// Pages of the image and of the database.
pub(super) const PAGE: usize = 4096;

/// A small generator of numbers (SplitMix64): fast, and the same everywhere.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// A generator; each pair of seed and stream has its own numbers.
    #[must_use]
    pub fn new(seed: u64, stream: u64) -> Rng {
        let mut rng = Rng(seed ^ stream.wrapping_mul(0xd6e8_feb8_6659_fd93));
        rng.number();
        rng
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, or 0 for 0.
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.number()) * u128::from(n)) >> 64) as u64
    }

    /// A number from 0 to 1.
    pub fn fraction(&mut self) -> f64 {
        (self.number() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Fills a buffer with incompressible bytes.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.number().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}

/// Writes lines that look and compress like program text.
pub(super) struct Text {
    words: Vec<String>,
}

impl Text {
    pub(super) fn new(seed: u64) -> Text {
        const PARTS: [&str; 24] = [
            "get", "set", "node", "buf", "len", "ctx", "dev", "page", "lock", "map", "list", "init", "state",
            "flag", "mem", "reg", "irq", "queue", "entry", "hash", "net", "sock", "inode", "file",
        ];
        let mut rng = Rng::new(seed, 1);
        let part = |rng: &mut Rng| PARTS[rng.below(PARTS.len() as u64) as usize];
        let words = (0..4096).map(|_| {
            let mut word = part(&mut rng).to_owned();
            for _ in 0..rng.below(3) {
                word.push('_');
                word.push_str(part(&mut rng));
            }
            if rng.below(3) == 0 {
                word.push_str(&rng.below(100).to_string());
            }
            word
        });
        Text {
            words: words.collect(),
        }
    }

    fn word(&self, rng: &mut Rng) -> &str {
        // Few words are frequent, most are rare.
        let at = rng.fraction().powi(3) * self.words.len() as f64;
        &self.words[at as usize]
    }

    /// One line.
    pub(super) fn line(&self, rng: &mut Rng, out: &mut Vec<u8>) {
        let indent = rng.below(4) as usize;
        out.extend_from_slice(&b"\t\t\t"[..indent]);
        let mut put = |text: &str| out.extend_from_slice(text.as_bytes());
        match rng.below(8) {
            0 => {
                put("/* ");
                for _ in 0..3 + rng.below(8) {
                    put(self.word(rng));
                    put(" ");
                }
                put("*/\n");
            }
            1 => put("}\n\n"),
            2 => {
                for part in ["if (", self.word(rng), "->", self.word(rng), " & ", "0x"] {
                    put(part);
                }
                put(&format!("{:x}) {{\n", rng.below(4096)));
            }
            3 | 4 => {
                for part in [self.word(rng), "(", self.word(rng), ", &", self.word(rng), ");\n"] {
                    put(part);
                }
            }
            _ => {
                for part in [self.word(rng), "->", self.word(rng), " = ", self.word(rng), ";\n"] {
                    put(part);
                }
            }
        }
    }

    /// Text of exactly `size` bytes.
    pub(super) fn block(&self, rng: &mut Rng, size: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(size + 256);
        while out.len() < size {
            self.line(rng, &mut out);
        }
        out.truncate(size);
        out
    }
}

/// The time of the `index`th entry in a `round`.
pub(super) fn stamp(round: u64, index: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH
        + Duration::new(
            EPOCH_SECONDS + round * 86_400 + index % 80_000,
            (index % 997) as u32 * 1_000_003,
        )
}

/// Sets the modification time of a file or a directory.
pub(super) fn set_time(path: &Path, time: SystemTime) -> io::Result<()> {
    File::open(path)?.set_modified(time)
}

/// A tree like that of a program's source: files of 16 KiB in the mean, most of them smaller, in nested directories,
/// with some links and programs.
///
/// # Errors
/// When the tree cannot be written.
pub fn source_tree(root: &Path, seed: u64, bytes: u64) -> io::Result<()> {
    let (text, mut rng) = (Text::new(seed), Rng::new(seed, 2));
    let count = (bytes / SOURCE_FILE_BYTES).max(20);
    for index in 0..count {
        let directory = directory_of(root, index / 12);
        if index % 12 == 0 {
            fs::create_dir_all(&directory)?;
        }
        let path = directory.join(format!(
            "{}_{index}.{}",
            text.word(&mut rng),
            ["c", "h", "rs", "txt"][rng.below(4) as usize]
        ));
        let content = text.block(
            &mut rng,
            source_size(bytes_left_scale(bytes, count), index, count),
        );
        fs::write(&path, content)?;
        if rng.below(50) == 0 {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        }
        if rng.below(100) == 0 {
            symlink(
                path.file_name().unwrap_or_default(),
                directory.join(format!("link_{index}")),
            )?;
        }
    }
    restamp(root, 0)
}

/// A directory in a tree of width 6.
fn directory_of(root: &Path, mut number: u64) -> PathBuf {
    let mut names = vec![format!("d{number}")];
    while number >= 6 {
        number /= 6;
        names.push(format!("d{number}"));
    }
    names
        .iter()
        .rev()
        .fold(root.to_owned(), |path, name| path.join(name))
}

/// How much larger or smaller than usual files are, so that few files make up the size that was asked for.
fn bytes_left_scale(bytes: u64, count: u64) -> f64 {
    bytes as f64 / (count * SOURCE_FILE_BYTES) as f64
}

/// Sizes whose logarithms are near a normal distribution, by its quantiles: the sum is the same for every seed.
fn source_size(scale: f64, index: u64, count: u64) -> usize {
    // A fixed walk through all quantiles; the step shares no factor with most counts.
    let place = (index.wrapping_mul(7919) % count) as f64 + 0.5;
    let quantile = place / count as f64;
    // Logistic instead of normal: the tails are a little longer, as in real trees.
    let logit = (quantile / (1.0 - quantile)).ln();
    let size = 5600.0 * (0.75 * logit).exp() * scale;
    (size as u64).min(SOURCE_FILE_MAX) as usize
}

/// Many files of 4 KiB in a few directories.
///
/// # Errors
/// When the tree cannot be written.
pub fn small_files(root: &Path, seed: u64, count: u64) -> io::Result<()> {
    let (text, mut rng) = (Text::new(seed), Rng::new(seed, 3));
    for index in 0..count {
        let directory = root.join(format!("s{}", index / 500));
        if index % 500 == 0 {
            fs::create_dir_all(&directory)?;
        }
        // Half of the files are text; the rest does not compress.
        let mut content = text.block(&mut rng, SMALL_FILE_BYTES as usize);
        if index % 2 == 1 {
            rng.fill(&mut content);
        }
        fs::write(directory.join(format!("f{index}")), content)?;
    }
    restamp(root, 0)
}

/// What one large file is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Incompressible, like a film.
    Media,
    /// A virtual machine's disk: runs of zeros, text and incompressible data.
    Image,
    /// Lines with times and addresses.
    Log,
    /// Pages with a header, records, and free space.
    Database,
}

/// Writes a file of that kind and size.
///
/// # Errors
/// When it cannot be written.
pub fn file(path: &Path, seed: u64, kind: Kind, bytes: u64) -> io::Result<()> {
    let (text, mut rng) = (Text::new(seed), Rng::new(seed, 4 + kind as u64));
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let (mut piece, mut written) = (vec![0; 64 << 10], 0);
    while written < bytes {
        match kind {
            Kind::Media => rng.fill(&mut piece),
            Kind::Image => match rng.below(10) {
                0..4 => piece.fill(0),
                4..7 => piece = text.block(&mut rng, 64 << 10),
                _ => rng.fill(&mut piece),
            },
            Kind::Log => log_lines(&mut piece, &text, &mut rng, written),
            Kind::Database => piece
                .chunks_mut(PAGE)
                .for_each(|page| database_page(page, &text, &mut rng)),
        }
        let length = (piece.len() as u64).min(bytes - written);
        out.write_all(&piece[..length as usize])?;
        written += length;
    }
    out.into_inner()
        .map_err(|error| error.into_error())?
        .set_modified(stamp(0, 1))
}

/// Fills a piece of fixed length with lines of a log.
pub(super) fn log_lines(piece: &mut Vec<u8>, text: &Text, rng: &mut Rng, at: u64) {
    let length = piece.len();
    piece.clear();
    let mut clock = EPOCH_SECONDS * 1000 + at / 100;
    while piece.len() < length {
        clock += rng.below(5);
        let (a, b) = (rng.below(256), rng.below(65_536));
        piece
            .extend_from_slice(format!("{clock} INFO peer=10.0.{a}.{} port={b} ", rng.below(256)).as_bytes());
        text.line(rng, piece);
    }
    piece.truncate(length);
}

fn database_page(page: &mut [u8], text: &Text, rng: &mut Rng) {
    page.fill(0);
    let number = rng.number();
    page[..8].copy_from_slice(&number.to_le_bytes());
    // Pages are two thirds full.
    let mut at = 24;
    while at + 96 < page.len() * 2 / 3 {
        rng.fill(&mut page[at..at + 16]);
        let record = text.block(rng, 64);
        page[at + 16..at + 80].copy_from_slice(&record);
        at += 80;
    }
}

/// Gives everything below `root` the times of a round; children first, as writing them moves their directories' times.
///
/// # Errors
/// When a directory cannot be listed or a time cannot be set.
pub fn restamp(root: &Path, round: u64) -> io::Result<()> {
    for (index, path) in walk(root)?.into_iter().enumerate().rev() {
        if !path.is_symlink() {
            set_time(&path, stamp(round, index as u64))?;
        }
    }
    set_time(root, stamp(round, 0))
}

/// Everything below `root`, in an order that depends on names only; directories before what is in them.
pub(super) fn walk(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut entries = fs::read_dir(root)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        found.push(entry.path());
        if entry.file_type()?.is_dir() {
            found.extend(walk(&entry.path())?);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::check::Tree;

    #[test]
    fn the_same_seed_gives_the_same_tree_and_another_seed_another() {
        let directory = tempfile::tempdir().unwrap();
        let make = |name: &str, seed: u64| {
            let root = directory.path().join(name);
            fs::create_dir(&root).unwrap();
            source_tree(&root, seed, 1 << 20).unwrap();
            small_files(&root, seed, 20).unwrap();
            for (index, kind) in [Kind::Media, Kind::Image, Kind::Log, Kind::Database]
                .into_iter()
                .enumerate()
            {
                file(&root.join(format!("file{index}")), seed, kind, 100_000).unwrap();
            }
            restamp(&root, 0).unwrap();
            Tree::read(&root).unwrap()
        };
        let (one, same, other) = (make("a", 7), make("b", 7), make("c", 8));
        assert_eq!(one.difference(&same), None);
        assert!(one.difference(&other).is_some());
    }

    #[test]
    fn a_source_tree_has_about_the_size_that_was_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        source_tree(directory.path(), 1, 8 << 20).unwrap();
        let bytes = Tree::read(directory.path()).unwrap().bytes();
        assert!((6 << 20..=11 << 20).contains(&bytes), "{bytes}");
    }

    #[test]
    fn text_compresses_like_a_program_and_media_does_not() {
        let mut rng = Rng::new(1, 1);
        let text = Text::new(1).block(&mut rng, 1 << 20);
        let ratio = text.len() as f64 / zstd::bulk::compress(&text, 3).unwrap().len() as f64;
        assert!((3.0..9.0).contains(&ratio), "{ratio}");
    }
}
