//! `driftless trash`: what a receiver kept of what it replaced or deleted.
//!
//! Works on the directory, beside a running receiver or without one: entries leave the trash by one rename each.

use super::launch::existing_directory;
use super::text::{bytes, count, escaped, parse_span, quoted};
use super::{CliError, DONE, output};
use crate::daemon::keeping::{KEPT, TRASH};
use crate::daemon::status::{STATUS_VERSION, unix_now};
use crate::fs::{Directory, FileType, FsError, FsErrorKind, Shelf, ShelfBatch, Shelved};
use clap::{Args, Subcommand};
use driftless_protocol::{Name, RelPath};
use serde_json::json;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// List, give back or remove what a receiver moved to its trash
#[derive(Debug, Args)]
pub(super) struct TrashArgs {
    #[command(subcommand)]
    command: TrashCommand,
}

#[derive(Debug, Subcommand)]
enum TrashCommand {
    List(ListArgs),
    Restore(RestoreArgs),
    Empty(EmptyArgs),
}

/// Which trash.
#[derive(Debug, Args)]
struct Which {
    /// The directory that is mirrored to
    dir: PathBuf,
    /// The local edits that `--drift keep` set aside, instead of the trash
    #[arg(long)]
    kept: bool,
}

/// Print what is there, oldest first: when it came, its size, and where it stood
#[derive(Debug, Args)]
struct ListArgs {
    #[command(flatten)]
    which: Which,
    /// Only what stood at or below this path
    path: Option<OsString>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Move something back; nothing is ever replaced by it
///
/// A mirror that deletes takes it away again, if the source lacks it: put it into the source, or elsewhere with --to.
#[derive(Debug, Args)]
struct RestoreArgs {
    #[command(flatten)]
    which: Which,
    /// Where it stood, below DIR
    path: OsString,
    /// Which version, by the time that `list` prints [default: the last]
    #[arg(long, value_name = "TIME")]
    from: Option<OsString>,
    /// Where to [default: where it stood]; on the same file system
    #[arg(long, value_name = "PATH")]
    to: Option<PathBuf>,
}

/// Remove what is there for good
#[derive(Debug, Args)]
struct EmptyArgs {
    #[command(flatten)]
    which: Which,
    /// Only what came before this, as in 7d
    #[arg(long, value_name = "TIME", value_parser = parse_span)]
    older_than: Option<Duration>,
}

impl TrashArgs {
    pub(super) fn run(&self) -> Result<u8, CliError> {
        match &self.command {
            TrashCommand::List(args) => args.run(),
            TrashCommand::Restore(args) => args.run(),
            TrashCommand::Empty(args) => args.run(),
        }
    }
}

impl Which {
    fn name(&self) -> &'static str {
        match self.kept {
            true => KEPT,
            false => TRASH,
        }
    }

    /// The directory and the shelf in it.
    fn open(&self) -> Result<(Arc<Directory>, Shelf), CliError> {
        let path = existing_directory("look for a trash in", &self.dir)?;
        let root = Arc::new(Directory::open_root(&path)?);
        let shelf = Shelf::new(root.clone(), self.name());
        Ok((root, shelf))
    }
}

impl ListArgs {
    fn run(&self) -> Result<u8, CliError> {
        let (_, shelf) = self.which.open()?;
        let below = match &self.path {
            Some(path) => parse_path(path)?,
            None => RelPath::root(),
        };
        let mut listed = Vec::new();
        for batch in shelf.batches()? {
            let mut each = |shelved: Shelved| {
                if shelved.path.starts_with(below.names()) {
                    match self.json {
                        true => listed.push(as_json(&batch, &shelved)),
                        false => output::line(&line(&batch, &shelved)),
                    }
                }
                Ok(())
            };
            shelf.for_each(&batch, &mut each)?;
        }
        if self.json {
            output::json(&json!({"version": STATUS_VERSION, "entries": listed}));
        }
        Ok(DONE)
    }
}

impl RestoreArgs {
    fn run(&self) -> Result<u8, CliError> {
        let (root, shelf) = self.which.open()?;
        let path = parse_path(&self.path)?;
        let dir = escaped(&self.which.dir);
        let mut found = None;
        for batch in shelf.batches()?.into_iter().rev() {
            let is_meant = self
                .from
                .as_ref()
                .is_none_or(|from| from.as_bytes() == batch.label.as_bytes());
            if is_meant && shelf.look(&batch, path.names())?.is_some() {
                found = Some(batch);
                break;
            }
        }
        let Some(batch) = found else {
            return Err(CliError::failed(format!(
                "there is no {path} in {dir}/{}{} (see `driftless trash list {}`)",
                self.which.name(),
                self.from
                    .as_ref()
                    .map_or(String::new(), |from| format!(" of {}", escaped(from))),
                quoted(&self.which.dir),
            )));
        };
        let (directory, name, shown) = match &self.to {
            Some(to) => destination(to)?,
            None => self.former_place(&root, &path)?,
        };
        match shelf.take(&batch, path.names(), &directory, &name) {
            Ok(true) => {
                output::line(&format!("restored {path} of {} to {shown}", batch.label));
                Ok(DONE)
            }
            Ok(false) => Err(CliError::failed(format!("{path} is gone from {dir} meanwhile"))),
            Err(error) if error.kind() == FsErrorKind::Exists => Err(CliError::failed(format!(
                "{shown} exists, and nothing is replaced (choose another place with --to)"
            ))),
            Err(error) if error.kind() == FsErrorKind::CrossDevice => Err(CliError::failed(format!(
                "{shown} is on another file system (copy it: cp -a {} {shown})",
                quoted(
                    self.which
                        .dir
                        .join(self.which.name())
                        .join(OsStr::from_bytes(batch.label.as_bytes()))
                        .join(&self.path)
                ),
            ))),
            Err(error) => Err(error.into()),
        }
    }

    /// Where it stood. Directories on the way that are gone are made, open to their owner only.
    fn former_place(
        &self,
        root: &Arc<Directory>,
        path: &RelPath,
    ) -> Result<(Arc<Directory>, Name, String), CliError> {
        let Some((last, above)) = path.names().split_last() else {
            return Err(CliError::usage(
                "the path is the directory itself (name something in it)",
            ));
        };
        let mut directory = root.clone();
        for name in above {
            directory = Arc::new(directory.enter_or_make(name)?);
        }
        let shown = format!("{}/{path}", escaped(&self.which.dir));
        Ok((directory, last.clone(), shown))
    }
}

impl EmptyArgs {
    fn run(&self) -> Result<u8, CliError> {
        let (_, shelf) = self.which.open()?;
        let removed = match self.older_than {
            Some(age) => shelf.expire(unix_now().saturating_sub(age.as_secs()))?.0,
            None => shelf
                .batches()?
                .iter()
                .map(|batch| shelf.discard(batch))
                .sum::<Result<u64, _>>()?,
        };
        output::line(&format!(
            "removed {} from {}/{}",
            count(removed, "entry", "entries"),
            escaped(&self.which.dir),
            self.which.name()
        ));
        Ok(DONE)
    }
}

/// The directory and the name that a path of the user's leads to.
fn destination(to: &Path) -> Result<(Arc<Directory>, Name, String), CliError> {
    let shown = escaped(to);
    let name = to.file_name().and_then(|name| Name::new(name.as_bytes()).ok());
    let name = name.ok_or_else(|| CliError::usage(format!("--to {shown} ends in no name")))?;
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = existing_directory("restore into", parent.unwrap_or(Path::new(".")))?;
    Ok((Arc::new(Directory::open_root(&parent)?), name, shown))
}

fn parse_path(path: &OsStr) -> Result<RelPath, CliError> {
    let bytes = path.as_bytes();
    let bytes = bytes.strip_prefix(b"./").unwrap_or(bytes);
    RelPath::parse(bytes.strip_suffix(b"/").unwrap_or(bytes)).map_err(|fault| {
        CliError::usage(format!(
            "cannot look for {}: {fault} (give a path below the directory, as `driftless trash list` prints it)",
            escaped(path)
        ))
    })
}

fn path_of(shelved: &Shelved) -> String {
    let names: Vec<_> = shelved.path.iter().map(Name::to_string).collect();
    let end = match shelved.stat.file_type {
        FileType::Directory => "/",
        _ => "",
    };
    names.join("/") + end
}

fn line(batch: &ShelfBatch, shelved: &Shelved) -> String {
    format!(
        "{}  {:>9}  {}",
        batch.label,
        bytes(shelved.stat.size),
        path_of(shelved)
    )
}

fn as_json(batch: &ShelfBatch, shelved: &Shelved) -> serde_json::Value {
    json!({
        "from": batch.label.to_string(),
        "time": batch.time,
        "path": path_of(shelved),
        "size": shelved.stat.size,
    })
}

impl From<FsError> for CliError {
    fn from(error: FsError) -> CliError {
        CliError::failed(error.to_string())
    }
}
