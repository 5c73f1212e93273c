//! `driftless mirror`: a tree kept like another, in the foreground, without any set-up.

use super::deadline::{Deadline, DeadlineArgs};
use super::ending::{EndingArgs, Told};
use super::keeping::KEEPING_THERE;
use super::launch::{Destination, End, LocalEnd, SendArgs, Session, destination, local_target};
use super::looking::{LookingArgs, Plan};
use super::narrate::{Detail, Narrator, Stopped, Style, conclude};
use super::origin::Origin;
use super::output::Printer;
use super::previous::PreviousArgs;
use super::text::{escaped, quoted};
use super::writing::WritingArgs;
use super::{CliError, INTERRUPTED, TIMED_OUT};
use crate::daemon::status::StatusBoard;
use crate::daemon::survey::FarEnd;
use crate::daemon::{DaemonError, Deletes, ModuleOptions, SenderOptions, Summary};
use crate::engine::filter::Filter;
use clap::Args;
use std::ffi::OsString;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Keep DST like SRC, in the foreground
///
/// DST is a directory on this machine, or a TARGET. Without --once, it goes on following changes until Ctrl-C.
#[derive(Debug, Args)]
pub(super) struct MirrorArgs {
    /// The tree, or a single file
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
    looking: LookingArgs,
    #[command(flatten)]
    deadline: DeadlineArgs,
    #[command(flatten)]
    ending: EndingArgs,
    #[command(flatten)]
    writing: WritingArgs,
    #[command(flatten)]
    previous: PreviousArgs,
}

impl MirrorArgs {
    pub(super) fn run(&self, verbose: u8) -> Result<u8, CliError> {
        let origin = self.send.origin("mirror", &self.src)?;
        let filter = self.send.filter(&origin)?;
        self.writing.check()?;
        self.send.priority.apply()?;
        let looking = &self.looking;
        self.ending.check(!self.once && !looking.is_dry_run())?;
        if !self.once {
            looking.check_following()?;
            if self.deadline.is_set() {
                let text = "--stop-after and --stop-at are for a run that ends (add --once)";
                return Err(CliError::usage(text));
            }
        }
        let session = Session::open()?;
        let deadline = self.deadline.start(&session)?;
        if looking.is_dry_run() && self.once {
            let deadline = deadline.clone();
            session.exit_when_stopped(move || {
                if deadline.has_passed() {
                    TIMED_OUT
                } else {
                    INTERRUPTED
                }
            });
        }
        let link = self.send.link();
        let what = What {
            origin: &origin,
            filter: &filter,
            style: self.style(verbose),
            deadline: &deadline,
        };
        match destination(&self.dst, self.send.port(), &session.home)? {
            Destination::Directory(path) => {
                let place = locate(&origin, &origin.directory_of(&path)?)?;
                let target = local_target(&place.path, session.identity.fingerprint(), 0);
                let module = self.writing.module(target.module.clone(), place.path.clone())?;
                let kept_as = self.send.kept_as(module.kept_as);
                let module = ModuleOptions { kept_as, ..module };
                let end = End {
                    identity: &session.identity,
                    target: &target,
                    link: &link,
                };
                let far = FarEnd::Directory(&module);
                let Some(plan) = self.look(&session, end, far, &what)? else {
                    return self.preview(&session, end, far, &what);
                };
                place.make()?;
                let begun = self.previous.begin(&origin.path(), &place);
                let begun = begun.inspect_err(|_| place.unmake())?;
                let previous = begun.as_ref().and_then(|begun| begun.previous.clone());
                let local =
                    LocalEnd::version(&session, &place.path, &link, &self.writing, |_| kept_as, previous)
                        .inspect_err(|_| place.unmake())?;
                let is_fresh = begun.as_ref().is_some_and(|begun| begun.is_fresh);
                let ended = self.follow(&session, local.end(), &what, plan.as_ref(), is_fresh);
                local.stop();
                if let Some(begun) = begun.filter(|_| ended.is_in_sync()) {
                    begun.conclude()?;
                }
                ended.tell(&session, far, &what, plan.as_ref())
            }
            Destination::Target(_) if self.previous.is_given() => Err(CliError::usage(
                "--link-dest and --copy-dest are for a directory on this machine (run the mirror there, or see \
                 docs/recipes.md)",
            )),
            Destination::Target(_) if self.writing.is_given_there() => Err(CliError::usage(KEEPING_THERE)),
            Destination::Target(target) => {
                self.send.check_far()?;
                self.writing.check_far()?;
                let target = origin.target_of(target, &self.dst)?;
                let end = End {
                    identity: &session.identity,
                    target: &target,
                    link: &link,
                };
                let far = FarEnd::Target(session.handle());
                let outcome = match self.look(&session, end, far, &what) {
                    Ok(Some(plan)) => {
                        let ended = self.follow(&session, end, &what, plan.as_ref(), false);
                        ended.tell(&session, far, &what, plan.as_ref())
                    }
                    Ok(None) => self.preview(&session, end, far, &what),
                    Err(error) => Err(error),
                };
                outcome.map_err(|error| session.explain(error))
            }
        }
    }

    fn style(&self, verbose: u8) -> Style {
        let detail = match (self.quiet, verbose) {
            (true, _) => Detail::Quiet,
            (false, 0) => Detail::Changes,
            (false, _) => Detail::All,
        };
        Style {
            detail,
            json: self.json,
            follow: !self.once,
            name_target: false,
        }
    }

    /// What is going to be done, as far as that is to be told; `None` for a dry run.
    fn look(
        &self,
        session: &Session,
        end: End<'_>,
        far: FarEnd<'_>,
        what: &What<'_>,
    ) -> Result<Option<Option<Arc<Plan>>>, CliError> {
        if self.looking.is_dry_run() {
            return Ok(None);
        }
        let options = self.send.options(session, end, what.origin, what.filter, false);
        self.looking.plan(&options, far, what.style).map(Some)
    }

    fn preview(
        &self,
        session: &Session,
        end: End<'_>,
        far: FarEnd<'_>,
        what: &What<'_>,
    ) -> Result<u8, CliError> {
        let options = self
            .send
            .options(session, end, what.origin, what.filter, !self.once);
        match self.once {
            true => self.looking.preview(&options, far, what.style),
            false => self.looking.preview_following(session, &options, far, what.style),
        }
    }

    /// `is_fresh`: what the target has was put there for this, so that deletions need nobody's approval.
    fn follow(
        &self,
        session: &Session,
        end: End<'_>,
        what: &What<'_>,
        plan: Option<&Arc<Plan>>,
        is_fresh: bool,
    ) -> Ended {
        let (origin, style) = (what.origin, what.style);
        let target = end.target.display.clone();
        let options = SenderOptions {
            // A directory here was walked just now, when it was opened.
            look_again: plan.is_some() && end.link.shortcut.is_none(),
            quiet: self.ending.quiet(1),
            ..self.send.options(session, end, origin, what.filter, !self.once)
        };
        let options = match is_fresh {
            true => SenderOptions {
                deletes: Deletes::Always,
                delete_limit: None,
                ..options
            },
            false => options,
        };
        let identity = end.identity.fingerprint().to_string();
        let board = StatusBoard::new(identity, &session.home, escaped(origin.path()), target.clone());
        let _control = session.control("sender", Arc::new(vec![board.clone()]));
        let printer = Arc::new(Printer::start(None));
        let narrator = Narrator::new(board.clone(), printer.clone(), style, target);
        let began = Instant::now();
        let told = match plan {
            None => self.ending.observer(narrator, &board),
            Some(plan) => Told::Planned(Plan::observer(Some(plan), narrator)),
        };
        let outcome = session.send(&options, told.observer(), &board);
        told.finish();
        // Dropping the printer brings out what was told so far.
        drop(printer);
        Ended {
            options,
            outcome,
            time: began.elapsed(),
        }
    }
}

/// How a run ended.
struct Ended {
    options: SenderOptions,
    outcome: Result<Summary, DaemonError>,
    time: Duration,
}

impl Ended {
    fn is_in_sync(&self) -> bool {
        self.outcome.as_ref().is_ok_and(|summary| summary.in_sync)
    }

    fn tell(
        self,
        session: &Session,
        far: FarEnd<'_>,
        what: &What<'_>,
        plan: Option<&Arc<Plan>>,
    ) -> Result<u8, CliError> {
        if let Some(plan) = plan {
            plan.conclude(&self.options, far, self.outcome.as_ref());
        }
        conclude(
            &self.options.target.display,
            self.outcome.map_err(CliError::from),
            self.time,
            what.style,
            Stopped::by(&session.stop, what.deadline),
        )
    }
}

/// What is mirrored, and how that is told.
struct What<'a> {
    origin: &'a Origin,
    filter: &'a Filter,
    style: Style,
    deadline: &'a Deadline,
}

/// A directory to write to.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) path: PathBuf,
    is_missing: bool,
}

impl Place {
    /// Makes it if it is missing.
    fn make(&self) -> Result<(), CliError> {
        if !self.is_missing {
            return Ok(());
        }
        let made = DirBuilder::new().mode(0o700).create(&self.path);
        made.map_err(|error| CliError::failed(format!("cannot mirror to {}: {error}", escaped(&self.path))))
    }

    /// Removes it again if it was made and is not written to: where it was made, a file system may have to be mounted.
    fn unmake(&self) {
        if self.is_missing {
            // What is not empty was not made by us alone.
            let _ = std::fs::remove_dir(&self.path);
        }
    }
}

/// The canonical path of the directory to write to, which need not be there yet. Refused if it cannot be right.
pub(super) fn locate(origin: &Origin, path: &Path) -> Result<Place, CliError> {
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
    check_apart(origin, &found)?;
    if !is_missing && !found.is_dir() {
        return Err(failed(&"it is not a directory"));
    }
    Ok(Place {
        path: found,
        is_missing,
    })
}

/// Refuses a tree that would be mirrored into itself; both paths are canonical.
fn check_apart(origin: &Origin, destination: &Path) -> Result<(), CliError> {
    let source = &*origin.path();
    let how = if origin.root == destination {
        "they are the same directory"
    } else if destination.starts_with(source) {
        "the destination is inside the source, and would be mirrored into itself for ever"
    } else if source.starts_with(destination) && !origin.is_named() {
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

    fn prepare(source: &Path, path: &Path) -> Result<PathBuf, CliError> {
        let place = locate(&Origin::whole(source.to_owned()), path)?;
        place.make()?;
        Ok(place.path)
    }

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
