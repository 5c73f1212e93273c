//! The scenarios: what the source is, and what happens to it before each round.

use super::BenchError;
use super::corpus::{self, Kind};
use super::edits;
use super::plan::Plan;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// What the source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Base {
    Source,
    Small,
    File(Kind),
}

/// What happens to source and copies before each round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// The copy is emptied: first contact.
    Fresh,
    /// Nothing; both ends remember.
    Nothing,
    /// Both ends forget; the copy stays.
    Stranger,
    NewTimes,
    /// The next release replaces the one before.
    Release,
    /// The next release comes into a directory beside it.
    Beside,
    /// As many small files again.
    MoreSmall,
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
    pub(super) step: Step,
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
        STRANGER,
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
        "release-beside",
        "the same in a new directory beside the old release",
        Base::Source,
        Step::Beside,
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
        "more-small",
        "as many again in new folders, both ends remember",
        Base::Small,
        Step::MoreSmall,
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

/// What needs both ends on this machine, since a receiver on another one cannot be made to forget.
pub(super) const STRANGER: &str = "stranger";

/// The scenarios of a plan, in their own order.
#[must_use]
pub fn chosen(plan: &Plan) -> Vec<&'static Scenario> {
    let is_chosen = |scenario: &&Scenario| {
        (plan.scenarios.is_empty() || plan.scenarios.iter().any(|name| name == scenario.name))
            && (plan.remote.is_none() || scenario.step != Step::Stranger)
    };
    SCENARIOS.iter().filter(is_chosen).collect()
}

impl Scenario {
    /// Whether a run that does not count brings the copy into the state before.
    pub(super) fn needs_base(self) -> bool {
        self.step != Step::Fresh
    }

    /// Makes the source. Gives what the user should know about it.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(super) fn make(self, plan: &Plan, source: &Path) -> Result<Option<String>, BenchError> {
        let root = match self.step {
            Step::Beside => release(source, 0),
            _ => source.to_owned(),
        };
        let make = || -> io::Result<Option<String>> {
            std::fs::create_dir_all(&root)?;
            match (self.base, &plan.tree) {
                (Base::Source, Some(tree)) => return copy_tree(tree, &root),
                (Base::Source, None) => corpus::source_tree(&root, plan.seed, self.once(plan, 0))?,
                (Base::Small, _) => corpus::small_files(&root, plan.seed, small_count(plan))?,
                (Base::File(kind), _) => corpus::file(&root.join("file"), plan.seed, kind, plan.size)?,
            }
            Ok(None)
        };
        make().map_err(|error| BenchError::io("make the corpus in", source, &error))
    }

    /// What happens to the source before a round.
    ///
    /// # Errors
    /// When it cannot be changed.
    pub(super) fn edit(self, plan: &Plan, source: &Path, round: u64) -> Result<(), BenchError> {
        let (file, seed) = (source.join("file"), plan.seed);
        let edited = match self.step {
            Step::Fresh | Step::Nothing | Step::Stranger => Ok(()),
            Step::NewTimes => edits::new_times(source, round),
            Step::Release => edits::next_release(source, seed, round),
            Step::Beside => copy(&release(source, round - 1), &release(source, round))
                .and_then(|()| edits::next_release(&release(source, round), seed, round)),
            Step::MoreSmall => {
                let root = source.join(format!("more-{round}"));
                std::fs::create_dir(&root)
                    .and_then(|()| corpus::small_files(&root, seed + round, small_count(plan)))
            }
            Step::Pages => edits::random_pages(&file, seed, round, (plan.size >> 20).clamp(4, 200)),
            Step::Insert => edits::insertions(&file, seed, round, 10),
            Step::Append => edits::append(&file, seed, round, (plan.size / 256).max(1024)),
            Step::Rename => edits::rename_folder(source, round).map(|_| ()),
        };
        edited.map_err(|error| BenchError::io("edit the corpus in", source, &error))
    }

    /// How many bytes the source may come to in the last round. `tree_bytes` is the size of the user's own tree, if there is one.
    pub(super) fn bytes_at_most(self, plan: &Plan, tree_bytes: u64) -> u64 {
        let once = self.once(plan, tree_bytes);
        // Sizes scatter, and edits add a little.
        let most = once + once / 4;
        match self.step {
            Step::Beside | Step::MoreSmall => most * (plan.runs + 1),
            _ => most,
        }
    }

    /// Bytes that are made, or added in a round.
    fn once(self, plan: &Plan, tree_bytes: u64) -> u64 {
        match (self.base, self.step) {
            (Base::Source, _) if tree_bytes > 0 => tree_bytes,
            (Base::Small, _) => small_count(plan) * corpus::SMALL_FILE_BYTES,
            // As it grows with each round.
            (_, Step::Beside) => plan.size / 4,
            _ => plan.size,
        }
    }
}

fn small_count(plan: &Plan) -> u64 {
    let most = if plan.quick { 500 } else { 2000 };
    (plan.size / corpus::SMALL_FILE_BYTES).clamp(20, most)
}

fn release(source: &Path, round: u64) -> PathBuf {
    source.join(format!("release-{round}"))
}

/// A copy with everything that the user may see of it.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::create_dir_all(to)?;
    let mut source = from.as_os_str().to_owned();
    source.push("/.");
    let output = std::process::Command::new("cp")
        .args(["-a", "--reflink=auto", "--"])
        .arg(source)
        .arg(to)
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("cp: {}", said.trim())))
}

/// A copy of the user's tree that can be edited; the tree is only read. What no tool carries here, or driftless does not
/// carry at all, is left out and told.
fn copy_tree(from: &Path, to: &Path) -> io::Result<Option<String>> {
    copy(from, to)?;
    let mut left_out = 0;
    // Inner entries first: a directory may become writable only here.
    for path in corpus::walk(to)?.into_iter().rev() {
        let meta = path.symlink_metadata()?;
        if meta.is_file() || meta.is_dir() {
            let mode = meta.permissions().mode() | if meta.is_dir() { 0o700 } else { 0o600 };
            if mode != meta.permissions().mode() {
                let modified = meta.modified()?;
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))?;
                corpus::set_time(&path, modified)?;
            }
        } else if !meta.is_symlink() {
            std::fs::remove_file(&path)?;
            left_out += 1;
        }
    }
    Ok((left_out > 0).then(|| {
        format!(
            "{left_out} sockets, FIFOs and devices of the tree were left out: driftless does not carry them"
        )
    }))
}
