//! What happens to a corpus between two runs. Deterministic: a seed and a round give the same edit.

use super::corpus::{PAGE, Rng, SOURCE_FILE_BYTES, Text, log_lines, restamp, stamp, walk};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// One part in so many of the content changes from one release to the next.
const RELEASE_PART: u64 = 33;

/// The next release in place: some 3 % of the content in files that changed, came or went; every time is new.
///
/// # Errors
/// When the tree cannot be changed.
pub fn next_release(root: &Path, seed: u64, round: u64) -> io::Result<()> {
    let (text, mut rng) = (Text::new(seed), Rng::new(seed, 100 + round));
    let files = regular_files(root)?;
    let total: u64 = files.iter().map(|(_, bytes)| bytes).sum();
    let mut left = (total / RELEASE_PART) as i64;
    while left > 0 && !files.is_empty() {
        let (path, bytes) = &files[rng.below(files.len() as u64) as usize];
        if !path.exists() {
            continue;
        }
        left -= (*bytes).max(512) as i64;
        match rng.below(20) {
            0 => fs::remove_file(path)?,
            1 => {
                let new = path.with_file_name(format!("new_{round}_{}", rng.below(1 << 30)));
                fs::write(new, text.block(&mut rng, SOURCE_FILE_BYTES as usize))?;
            }
            2..6 => fs::write(path, text.block(&mut rng, *bytes as usize))?,
            _ => {
                let mut content = fs::read(path)?;
                for _ in 0..1 + rng.below(5) {
                    let at = rng.below(content.len() as u64 + 1) as usize;
                    let mut line = Vec::new();
                    text.line(&mut rng, &mut line);
                    content.splice(at..at, line);
                }
                fs::write(path, content)?;
            }
        }
    }
    restamp(root, round)
}

/// The same content with new times.
///
/// # Errors
/// When a time cannot be set.
pub fn new_times(root: &Path, round: u64) -> io::Result<()> {
    restamp(root, round)
}

/// Rewrites `count` random pages of a file.
///
/// # Errors
/// When the file cannot be changed.
pub fn random_pages(path: &Path, seed: u64, round: u64, count: u64) -> io::Result<()> {
    let mut rng = Rng::new(seed, 200 + round);
    let file = OpenOptions::new().write(true).open(path)?;
    let pages = (file.metadata()?.len() / PAGE as u64).max(1);
    let mut page = [0; PAGE];
    for _ in 0..count {
        rng.fill(&mut page);
        file.write_all_at(&page, rng.below(pages) * PAGE as u64)?;
    }
    file.set_modified(stamp(round, 1))
}

/// Inserts some hundred bytes at `count` places of a file, which shifts what follows.
///
/// # Errors
/// When the file cannot be read or written.
pub fn insertions(path: &Path, seed: u64, round: u64, count: u64) -> io::Result<()> {
    let mut rng = Rng::new(seed, 300 + round);
    let old = fs::read(path)?;
    let mut places: Vec<usize> = (0..count).map(|_| rng.below(old.len() as u64) as usize).collect();
    places.sort_unstable();
    let mut out = io::BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut from = 0;
    for place in places {
        out.write_all(&old[from..place])?;
        let mut insert = vec![0; 100 + rng.below(400) as usize];
        rng.fill(&mut insert);
        out.write_all(&insert)?;
        from = place;
    }
    out.write_all(&old[from..])?;
    out.into_inner()
        .map_err(io::IntoInnerError::into_error)?
        .set_modified(stamp(round, 1))
}

/// Appends log lines to a file.
///
/// # Errors
/// When the file cannot be written.
pub fn append(path: &Path, seed: u64, round: u64, bytes: u64) -> io::Result<()> {
    let (text, mut rng) = (Text::new(seed), Rng::new(seed, 400 + round));
    let mut file = OpenOptions::new().append(true).open(path)?;
    let mut lines = vec![0; bytes as usize];
    log_lines(&mut lines, &text, &mut rng, file.metadata()?.len());
    file.write_all(&lines)?;
    file.set_modified(stamp(round, 1))
}

/// Renames the largest folder of the top level, counted by its files; gives the old and the new path.
///
/// # Errors
/// When there is no folder or it cannot be renamed.
pub fn rename_folder(root: &Path, round: u64) -> io::Result<(PathBuf, PathBuf)> {
    let mut largest = (0, PathBuf::new());
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            largest = largest.max((walk(&entry.path())?.len(), entry.path()));
        }
    }
    let old = largest.1;
    if largest.0 == 0 {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            "it has no folder to rename",
        ));
    }
    let new = root.join(format!("renamed{round}"));
    fs::rename(&old, &new)?;
    Ok((old, new))
}

/// Regular files with their sizes, in a fixed order.
fn regular_files(root: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
    let mut files = Vec::new();
    for path in walk(root)? {
        let meta = path.symlink_metadata()?;
        if meta.is_file() {
            files.push((path, meta.len()));
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::check::Tree;
    use crate::bench::corpus::{Kind, file, source_tree};

    #[test]
    fn edits_are_deterministic_and_change_about_what_they_say() {
        let directory = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let root = directory.path().join(name);
            fs::create_dir(&root).unwrap();
            source_tree(&root, 1, 2 << 20).unwrap();
            file(&root.join("big"), 1, Kind::Log, 300_000).unwrap();
            let before = Tree::read(&root).unwrap();
            next_release(&root, 1, 1).unwrap();
            let changed = before.changed_bytes(&Tree::read(&root).unwrap());
            random_pages(&root.join("big"), 1, 2, 3).unwrap();
            insertions(&root.join("big"), 1, 3, 3).unwrap();
            append(&root.join("big"), 1, 4, 1000).unwrap();
            rename_folder(&root, 5).unwrap();
            restamp(&root, 6).unwrap();
            (before.bytes(), changed, Tree::read(&root).unwrap())
        };
        let (one, same) = (make("a"), make("b"));
        assert_eq!(one.2.difference(&same.2), None);
        let part = one.1 as f64 / one.0 as f64;
        assert!((0.005..0.2).contains(&part), "{part} of the content changed");
    }
}
