//! `driftless mirror`: a tree kept like another, in the foreground, without any set-up.

use super::CliError;
use super::keeping::KEEPING_THERE;
use super::launch::{Destination, End, LocalEnd, SendArgs, Session, destination, existing_directory};
use super::narrate::{Detail, Narrator, Style, conclude};
use super::output::Printer;
use super::text::{escaped, quoted};
use super::writing::WritingArgs;
use crate::daemon::status::StatusBoard;
use crate::engine::filter::Filter;
use clap::Args;
use std::ffi::OsString;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// Keep DST like SRC, in the foreground
///
/// DST is a directory on this machine, or a TARGET. Without --once, it goes on following changes until Ctrl-C.
#[derive(Debug, Args)]
pub(super) struct MirrorArgs {
    /// The tree
    src: PathBuf,
    /// A directory (made if it is missing), or a TARGET
    dst: OsString,
    /// End when in sync
    #[arg(long)]
    once: bool,
    /// Print JSON, one event per line
    #[arg(long)]
    json: bool,
    /// Print warnings and errors only
    #[arg(short, long, conflicts_with = "verbose")]
    quiet: bool,
    #[command(flatten)]
    send: SendArgs,
    #[command(flatten)]
    writing: WritingArgs,
}

impl MirrorArgs {
    pub(super) fn run(&self, verbose: u8) -> Result<u8, CliError> {
        let source = existing_directory("mirror", &self.src)?;
        let filter = self.send.filter(&source)?;
        self.writing.check()?;
        self.send.priority.apply()?;
        let session = Session::open()?;
        let link = self.send.link();
        match destination(&self.dst, self.send.port(), &session.home)? {
            Destination::Directory(path) => {
                let path = prepare(&source, &path)?;
                let local = LocalEnd::start(&session, &path, &link, &self.writing)?;
                let status = self.follow(&session, local.end(), &source, &filter, verbose);
                local.stop();
                status
            }
            Destination::Target(_) if self.writing.keeping.is_given() => Err(CliError::usage(KEEPING_THERE)),
            Destination::Target(target) => {
                let end = End {
                    identity: &session.identity,
                    target: &target,
                    link: &link,
                };
                self.follow(&session, end, &source, &filter, verbose)
                    .map_err(|error| session.explain(error))
            }
        }
    }

    fn follow(
        &self,
        session: &Session,
        end: End<'_>,
        source: &Path,
        filter: &Filter,
        verbose: u8,
    ) -> Result<u8, CliError> {
        let detail = match (self.quiet, verbose) {
            (true, _) => Detail::Quiet,
            (false, 0) => Detail::Changes,
            (false, _) => Detail::All,
        };
        let style = Style {
            detail,
            json: self.json,
            follow: !self.once,
            name_target: false,
        };
        let target = end.target.display.clone();
        let options = self.send.options(session, end, source, filter, !self.once);
        let identity = end.identity.fingerprint().to_string();
        let board = StatusBoard::new(identity, &session.home, escaped(source), target.clone());
        let _control = session.control("sender", Arc::new(vec![board.clone()]));
        let printer = Arc::new(Printer::start(None));
        let narrator = Narrator::new(board.clone(), printer.clone(), style, target.clone());
        let began = Instant::now();
        let outcome = session.send(&options, narrator.clone(), &board);
        // What was told so far comes out before the conclusion.
        drop((narrator, printer));
        conclude(
            &target,
            outcome.map_err(CliError::from),
            began.elapsed(),
            style,
            session.stop.is_requested(),
        )
    }
}

/// The canonical path of the directory to write to, which is made if it is missing. Nothing is made if it cannot be right.
pub(super) fn prepare(source: &Path, path: &Path) -> Result<PathBuf, CliError> {
    let failed = |cause: &dyn std::fmt::Display| {
        CliError::failed(format!("cannot mirror to {}: {cause}", escaped(path)))
    };
    let (found, is_missing) = match path.canonicalize() {
        Ok(found) => (found, false),
        // Also a link to nothing: to make what it points to would be a guess.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && path.symlink_metadata().is_err() => {
            let name = path.file_name().ok_or_else(|| failed(&error))?;
            let parent = path
                .parent()
                .filter(|parent| !parent.as_os_str().is_empty())
                .unwrap_or(Path::new("."));
            let parent = parent.canonicalize().map_err(|_| {
                let (shown, command) = (escaped(parent), quoted(parent));
                failed(&format!(
                    "there is no directory {shown} to make it in (run `mkdir -p {command}` if that is right)"
                ))
            })?;
            (parent.join(name), true)
        }
        Err(error) => return Err(failed(&error)),
    };
    check_apart(source, &found)?;
    if is_missing {
        DirBuilder::new()
            .mode(0o700)
            .create(&found)
            .map_err(|error| failed(&error))?;
    } else if !found.is_dir() {
        return Err(failed(&"it is not a directory"));
    }
    Ok(found)
}

/// Refuses a tree that would be mirrored into itself; both paths are canonical.
fn check_apart(source: &Path, destination: &Path) -> Result<(), CliError> {
    let how = if source == destination {
        "they are the same directory"
    } else if destination.starts_with(source) {
        "the destination is inside the source, and would be mirrored into itself for ever"
    } else if source.starts_with(destination) {
        "the source is inside the destination, and would be deleted as something that the source lacks"
    } else {
        return Ok(());
    };
    let (source, destination) = (escaped(source), escaped(destination));
    Err(CliError::usage(format!(
        "cannot mirror {source} to {destination}: {how} (use a directory elsewhere)"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn message(error: CliError) -> (bool, String) {
        match error {
            CliError::Failed(text) => (false, text),
            CliError::Usage(text) => (true, text),
        }
    }

    #[test]
    fn a_missing_destination_is_made_but_not_its_parents() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let source = root.join("src");
        fs::create_dir(&source).unwrap();
        assert_eq!(prepare(&source, &root.join("dst")).unwrap(), root.join("dst"));
        assert!(root.join("dst").is_dir());
        assert_eq!(prepare(&source, &root.join("dst")).unwrap(), root.join("dst"));
        let (usage, text) = message(prepare(&source, &root.join("no/dst")).unwrap_err());
        assert!(!usage && text.contains("mkdir -p"), "{text}");
        assert!(!root.join("no").exists());
        symlink(root.join("nowhere"), root.join("link")).unwrap();
        assert!(prepare(&source, &root.join("link")).is_err());
        assert!(!root.join("nowhere").exists());
        fs::write(root.join("file"), "").unwrap();
        assert!(
            message(prepare(&source, &root.join("file")).unwrap_err())
                .1
                .contains("not a directory")
        );
    }

    #[test]
    fn a_tree_is_never_mirrored_into_itself() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let source = root.join("a/src");
        fs::create_dir_all(source.join("in")).unwrap();
        symlink(&source, root.join("link")).unwrap();
        for path in [
            "a/src",
            "a/src/in",
            "a/src/new",
            "link/new",
            "a",
            "",
            "a/src/in/../..",
        ] {
            let (usage, text) = message(prepare(&source, &root.join(path)).unwrap_err());
            assert!(usage, "{path}: {text}");
        }
        assert!(!source.join("new").exists());
        // A common beginning of the name is not a directory in common.
        prepare(&source, &root.join("a/src-2")).unwrap();
    }
}
