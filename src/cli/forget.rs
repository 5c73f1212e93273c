//! `driftless forget`: ends a mirror so that nothing of ours is left on either side.

use super::config::{FileArg, load};
use super::launch::{Destination, End, SendArgs, Session, destination, local_module, local_target};
use super::origin::Origin;
use super::target::is_target;
use super::text::{count, escaped, quoted};
use super::{CliError, DONE, SOME_FAILED, output};
use crate::daemon::control::{ForgetModule, Obeyed, Order, ask_all, forget_module, order};
use crate::daemon::forget::{self, Cleared, SenderState};
use crate::daemon::home::Home;
use crate::daemon::status::{DaemonStatus, STATUS_VERSION, SenderStatus};
use crate::daemon::{DaemonError, TargetOptions};
use crate::engine::filter::Filter;
use crate::net::LinkOptions;
use clap::Args;
use serde_json::json;
use std::ffi::{OsStr, OsString};
use std::io::{BufRead, IsTerminal};
use std::path::{Path, PathBuf};

/// End a mirror, and leave nothing of driftless in its trees and in the homes of both ends
///
/// What the trees hold stays as it is, with all times. A mirror of the daemon is stopped first. The receiver is asked, and does its
/// part if the mirror is this machine's; what it leaves, and what cannot be reached, is said. Keys and trust stay: see `driftless
/// peers`.
#[derive(Debug, Args)]
pub(super) struct ForgetArgs {
    /// The name of a mirror of the configuration, or SRC and TARGET of one
    #[arg(
        value_name = "MIRROR|SRC",
        required_unless_present = "module",
        conflicts_with = "module"
    )]
    mirror: Option<OsString>,
    /// Only this target [default: all targets of MIRROR]
    target: Option<OsString>,
    /// On the receiver: end what this module is to whoever sends to it
    #[arg(long, value_name = "NAME")]
    module: Option<String>,
    /// The directory of the module [default: where a running receiver or the configuration has it]
    #[arg(long, value_name = "DIR", requires = "module")]
    dir: Option<PathBuf>,
    /// Also remove what was kept in directories here: old versions and local edits that were set aside. Without it a terminal
    /// is asked, and everybody else keeps them
    #[arg(long)]
    with_trash: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    file: FileArg,
    #[command(flatten)]
    port: super::launch::PortArg,
}

/// What was forgotten, and what was not.
#[derive(Debug, Default)]
struct Told {
    done: Vec<String>,
    left: Vec<String>,
}

impl ForgetArgs {
    pub(super) fn run(&self) -> Result<u8, CliError> {
        let mut told = Told::default();
        match &self.module {
            Some(name) => self.forget_module(name, &mut told)?,
            None => self.forget_mirror(&mut told)?,
        }
        if self.json {
            output::json(&json!({"version": STATUS_VERSION, "forgotten": told.done, "left": told.left}));
        } else {
            told.done.iter().for_each(|line| output::line(line));
            told.left.iter().for_each(|line| output::note(line));
        }
        Ok(match told.left.is_empty() {
            true => DONE,
            false => SOME_FAILED,
        })
    }

    fn forget_mirror(&self, told: &mut Told) -> Result<(), CliError> {
        let session = Session::open()?;
        let word = self.mirror.clone().unwrap_or_default();
        let (name, source, targets) = match &self.target {
            Some(target) => (None, root_of(Path::new(&word)), vec![target.clone()]),
            None => configured(&self.file.path(&session.home), &word)?,
        };
        for word in &targets {
            let target = match destination(word, self.port, &session.home) {
                Ok(Destination::Directory(path)) => {
                    let path = path.canonicalize().unwrap_or(path);
                    local_target(&path, session.identity.fingerprint(), 0)
                }
                Ok(Destination::Target(target)) => target,
                // Its receiver is unknown by now; what is here is found by how the target is written.
                Err(error) if is_target(word) => {
                    self.forget_here(&session, &source, &escaped(word), None, told)?;
                    let (CliError::Failed(text) | CliError::Usage(text)) = error;
                    told.left.push(format!("not asked to forget: {text}"));
                    continue;
                }
                Err(error) => return Err(error),
            };
            stop_sender(&session.home, &source, &[&target.display, &escaped(word)], told)?;
            let state = SenderState::find(&session.home, &source, &target.display)?;
            let is_here = !is_target(word);
            let mirror = state.as_ref().and_then(|state| state.mirror);
            if is_here {
                self.forget_directory(&session.home, Path::new(word), told)?;
            } else {
                ask_receiver(&session, &source, &target, mirror.unwrap_or(0), told);
            }
            self.forget_here(&session, &source, &target.display, state, told)?;
        }
        if let Some(name) = name {
            told.done.push(format!(
                "take [[mirror]] {name} out of {}, or it begins anew when the daemon is started or reloaded",
                escaped(self.file.path(&session.home))
            ));
        }
        Ok(())
    }

    /// What this home has of it.
    fn forget_here(
        &self,
        session: &Session,
        source: &Path,
        target: &str,
        state: Option<SenderState>,
        told: &mut Told,
    ) -> Result<(), CliError> {
        let state = match state {
            Some(state) => Some(state),
            None => SenderState::find(&session.home, source, target)?,
        };
        let (source, home) = (escaped(source), &session.home);
        match state {
            Some(state) => {
                state.remove()?;
                told.done
                    .push(format!("forgot {source} to {target} in the home {home}"));
            }
            None => told
                .done
                .push(format!("the home {home} knows nothing of {source} to {target}")),
        }
        Ok(())
    }

    /// A directory on this machine that was mirrored to.
    fn forget_directory(&self, home: &Home, path: &Path, told: &mut Told) -> Result<(), CliError> {
        let path = super::launch::existing_directory("forget", path)?;
        let clear =
            |with_kept| forget::module(home, &local_module(&path), &path, with_kept).map_err(CliError::from);
        self.clear(&escaped(&path), clear, told)
    }

    fn forget_module(&self, name: &str, told: &mut Told) -> Result<(), CliError> {
        let home = Home::discover()?;
        let running = |with_kept| -> Result<Option<Cleared>, CliError> {
            match forget_module(
                &home,
                &ForgetModule {
                    name: name.to_owned(),
                    with_kept,
                },
            )? {
                Some(Ok(cleared)) => Ok(Some(cleared)),
                Some(Err(text)) => Err(CliError::failed(text)),
                None => Ok(None),
            }
        };
        if let Some(cleared) = running(self.with_trash)? {
            let mut first = Some(cleared);
            let clear = |with_kept| match first.take() {
                Some(cleared) => Ok(cleared),
                None => Ok(running(with_kept)?.unwrap_or_default()),
            };
            self.clear(&format!("module {name}"), clear, told)?;
            told.done.push(format!(
                "{name} is offered on: its sender begins anew if it comes back (end it there, or see `driftless peers remove`)"
            ));
            return Ok(());
        }
        let path = match &self.dir {
            Some(path) => path.clone(),
            None => module_path(&self.file.path(&home), name).ok_or_else(|| {
                CliError::usage(format!(
                    "no receiver of this home offers a module {name}, and {} has none: say where it was with --dir DIR",
                    escaped(self.file.path(&home))
                ))
            })?,
        };
        let path = super::launch::existing_directory("forget", &path)?;
        let clear = |with_kept| forget::module(&home, name, &path, with_kept).map_err(CliError::from);
        self.clear(&format!("module {name} in {}", escaped(&path)), clear, told)
    }

    /// Clears a tree, and asks before what was kept for people goes.
    fn clear(
        &self,
        what: &str,
        mut clear: impl FnMut(bool) -> Result<Cleared, CliError>,
        told: &mut Told,
    ) -> Result<(), CliError> {
        let mut cleared = clear(self.with_trash)?;
        if cleared.shelves > 0 && !self.with_trash && !self.json && wants_it_gone(&cleared) {
            let more = clear(true)?;
            cleared.removed += more.removed;
            cleared.left = more.left;
            cleared.shelves = 0;
        }
        told.done.push(format!(
            "forgot {what}: {} of driftless removed from the tree",
            count(cleared.removed, "name", "names")
        ));
        if cleared.shelves > 0 {
            cleared.left.push("`--with-trash` removes that".to_owned());
        }
        told.left.extend(cleared.left);
        Ok(())
    }
}

/// Asks on a terminal whether what was kept is to go. Nobody there means no.
fn wants_it_gone(cleared: &Cleared) -> bool {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return false;
    }
    cleared.left.iter().for_each(|line| output::note(line));
    output::note("remove it for good? [y/N]");
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
}

/// The path by which the state of a source is found, also when it is gone.
fn source_of(path: &Path) -> PathBuf {
    path.canonicalize()
        .or_else(|_| std::path::absolute(path))
        .unwrap_or_else(|_| path.to_owned())
}

/// The root of the tree, where the source is a file in it.
fn root_of(path: &Path) -> PathBuf {
    let found = Origin::find("forget", path, false);
    found.map_or_else(|_| source_of(path), |origin| origin.root)
}

/// Name, source and targets of a mirror of the configuration.
fn configured(file: &Path, word: &OsStr) -> Result<(Option<String>, PathBuf, Vec<OsString>), CliError> {
    let source = source_of(Path::new(word));
    let configuration = match load(file) {
        Ok(configuration) => Some(configuration),
        Err(faults) if file.exists() => {
            let faults: Vec<_> = faults.into_iter().map(|fault| fault.0).collect();
            return Err(CliError::usage(faults.join("\n")));
        }
        Err(_) => None,
    };
    let found = configuration.and_then(|configuration| {
        let mut mirrors = configuration.mirrors.into_iter();
        mirrors.find(|mirror| OsStr::new(&mirror.name) == word || source_of(&mirror.source) == source)
    });
    match found {
        Some(mirror) => Ok((Some(mirror.name), root_of(&mirror.source), mirror.targets)),
        None => Err(CliError::usage(format!(
            "{} has no mirror {} (give SRC and TARGET as they were given to `send` or `mirror`)",
            escaped(file),
            escaped(word)
        ))),
    }
}

fn module_path(file: &Path, name: &str) -> Option<PathBuf> {
    let configuration = load(file).ok()?;
    let mut modules = configuration.modules.into_iter();
    modules
        .find(|module| module.name == name)
        .map(|module| module.path)
}

/// Has the daemon stop a mirror. A sender of its own is its user's to end.
fn stop_sender(home: &Home, source: &Path, target: &[&str], told: &mut Told) -> Result<(), CliError> {
    let shown = escaped(source);
    // A configuration may write a target in another way than messages do.
    let is_it = |status: &&SenderStatus| status.source == shown && target.contains(&&*status.target);
    let daemons = ask_all(home)?.daemons;
    let senders = daemons.iter().filter_map(|daemon| match daemon {
        DaemonStatus::Sender(status) => Some(&**status),
        DaemonStatus::Receiver(_) => None,
    });
    for status in senders.filter(is_it) {
        let Some(name) = &status.mirror else {
            return Err(CliError::failed(format!(
                "a sender of {shown} to {} is running (end it first, by Ctrl-C or its service)",
                status.target
            )));
        };
        if status.phase == "stopped" {
            continue;
        }
        let outcomes = order(home, &Order::Stop(name.clone()))?;
        match outcomes.into_iter().find(|outcome| *outcome != Obeyed::Unknown) {
            Some(Obeyed::Done(text)) => told.done.push(text),
            Some(Obeyed::Failed(text) | Obeyed::Misconfigured(text)) => return Err(CliError::failed(text)),
            Some(Obeyed::Unknown) | None => {}
        }
    }
    Ok(())
}

/// Has the receiver do its part. If it does not, what is to be done there is said.
fn ask_receiver(session: &Session, source: &Path, target: &TargetOptions, mirror: u128, told: &mut Told) {
    let link = LinkOptions::default();
    let end = End {
        identity: &session.identity,
        target,
        link: &link,
    };
    let origin = Origin::whole(source.to_owned());
    let options = SendArgs::default().options(session, end, &origin, &Filter::everything(), false);
    match forget::ask(&options, mirror, session.handle()) {
        Ok(left) => {
            told.done.push(format!("{target} forgot it"));
            if !left.is_empty() {
                told.left.push(format!("{target}: {left}"));
            }
        }
        Err(DaemonError::Failed(text) | DaemonError::Usage(text)) => told.left.push(format!(
            "{text}\n  it was not reached or did not do it: on the receiver, run `driftless forget --module {}`",
            quoted(&target.module)
        )),
    }
}
