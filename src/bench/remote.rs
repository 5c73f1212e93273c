//! A real pair: a receiver that runs on another machine, and rsync over the user's own ssh beside it.
//!
//! Each bench has a new directory of its own below both destinations, so nothing of the user's is replaced. A receiver binds
//! such a directory to one mirror for good, therefore the sender keeps its state from run to run, and a copy is made empty by
//! sending an empty tree. Nothing is known of the far end's processor and memory, and its copy cannot be read from here: it
//! is compared by each tool's own full comparison (`driftless verify`, `rsync -nc`).

use super::BenchError;
use super::check::Tree;
use super::ours;
use super::plan::Remote;
use super::rsync::{self, Variant};
use super::runner::Stage;
use super::tool::{Run, Tool};
use crate::daemon::home::Home;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The directory below a destination that is this bench's own.
fn own_name(stage: &Stage) -> String {
    let name = stage.workspace.path().file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// The directory `name` below a destination of rsync, which may be the user's home (`HOST:`).
fn below(destination: &str, name: &str) -> String {
    let separator = if destination.ends_with([':', '/']) {
        ""
    } else {
        "/"
    };
    format!("{destination}{separator}{name}/")
}

/// driftless to a receiver that runs already.
#[derive(Debug)]
pub struct RemoteOurs {
    program: PathBuf,
    /// The user's identity and trust, but a state of its own.
    home: PathBuf,
    target: OsString,
    source: PathBuf,
}

impl RemoteOurs {
    /// Takes the user's identity along and tries the target. All is sent from `source`.
    ///
    /// # Errors
    /// When there is no identity or the target cannot be reached.
    pub fn new(stage: &Stage, remote: &Remote, source: &Path) -> Result<RemoteOurs, BenchError> {
        let mut target = remote.target.clone();
        target.push(format!("/{}", own_name(stage)));
        let home = stage.workspace.directory("home-s")?;
        link_identity(&home)?;
        let mut tool = RemoteOurs {
            program: ours::program()?,
            home,
            target,
            source: source.to_owned(),
        };
        tool.reset(stage)?;
        Ok(tool)
    }

    fn seed(&self, stage: &Stage) -> Result<Run, BenchError> {
        let mut command = ours::seed(stage, &self.program, &self.home, &self.source, &self.target);
        // The source may be another directory than before, which the bench does on purpose.
        command.arg("--accept-root");
        stage.measure(command, None, ours::counted)
    }
}

/// Makes `home` that of the same identity, which trusts the same peers. The key is not copied, so none can be left behind.
fn link_identity(home: &Path) -> Result<(), BenchError> {
    let user = Home::discover().map_err(|error| BenchError::new(error.to_string()))?;
    let own = Home::at(home);
    let link = |from: &Path, to: &Path| {
        symlink(from, to).map_err(|error| BenchError::io("make a link to", from, &error))
    };
    link(&user.identity_dir(), &own.identity_dir())?;
    if user.peers_file().exists() {
        link(&user.peers_file(), &own.peers_file())?;
    }
    Ok(())
}

impl Tool for RemoteOurs {
    fn name(&self) -> &str {
        ours::NAME
    }

    fn durable(&self) -> bool {
        true
    }

    fn is_ours(&self) -> bool {
        true
    }

    /// Sends nothing in place of the source, from the same path: that is what tells one mirror from another.
    fn reset(&mut self, stage: &Stage) -> Result<(), BenchError> {
        let aside = self.source.with_extension("aside");
        let swap = |error| BenchError::io("put aside", &self.source, &error);
        fs::rename(&self.source, &aside)
            .and_then(|()| fs::create_dir(&self.source))
            .map_err(swap)?;
        let emptied = self.seed(stage);
        fs::remove_dir(&self.source)
            .and_then(|()| fs::rename(&aside, &self.source))
            .map_err(swap)?;
        emptied.map(drop)
    }

    fn forget(&mut self, _stage: &Stage) -> Result<(), BenchError> {
        Err(BenchError::new(
            "a receiver on another machine cannot be made to forget",
        ))
    }

    fn prepare(&mut self, stage: &Stage, _source: &Path) -> Result<(), BenchError> {
        self.seed(stage).map(drop)
    }

    fn sync(&mut self, stage: &Stage, _source: &Path) -> Result<Run, BenchError> {
        self.seed(stage)
    }

    fn difference(
        &mut self,
        stage: &Stage,
        source: &Path,
        _wanted: &Tree,
    ) -> Result<Option<String>, BenchError> {
        let mut command = ours::invocation(&self.program, &self.home);
        command.arg("verify").arg(source).arg(&self.target);
        let verified = stage.run(command);
        Ok(verified.err().map(|error| format!("verify: {error}")))
    }
}

/// rsync over the user's ssh, or to a daemon, as the destination says.
#[derive(Debug)]
pub struct RemoteRsync {
    variant: Variant,
    name: String,
    destination: String,
    empty: PathBuf,
}

impl RemoteRsync {
    /// Makes the directory below `destination`, and tries it by that.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub fn new(stage: &Stage, variant: Variant, destination: &str) -> Result<RemoteRsync, BenchError> {
        let mut tool = RemoteRsync {
            name: variant.name(),
            destination: below(destination, &format!("{}-{}", own_name(stage), variant.folder())),
            variant,
            empty: stage.workspace.directory("empty")?,
        };
        tool.reset(stage)?;
        Ok(tool)
    }

    fn command(&self, flags: &[&str], source: &Path) -> Command {
        rsync::command(flags, None, source, &self.destination)
    }

    /// The first thing that a full comparison would change below the root.
    fn changes(&self, stage: &Stage, source: &Path) -> Result<Option<String>, BenchError> {
        let finished = stage.run(self.command(&["-nc", "--out-format=%i %n"], source))?;
        let changes = |line: &&str| {
            let is_change = line.starts_with(['<', '>', 'c', '.', 'h', '*']) && line.contains(' ');
            // A dot in front is an attribute only; the root itself does not count.
            is_change && !line.ends_with(" ./") && !line.starts_with("created ")
        };
        Ok(finished.output.lines().find(changes).map(str::to_owned))
    }
}

impl Tool for RemoteRsync {
    fn name(&self) -> &str {
        &self.name
    }

    fn durable(&self) -> bool {
        self.variant.fsync
    }

    fn reset(&mut self, stage: &Stage) -> Result<(), BenchError> {
        stage.run(self.command(&[], &self.empty)).map(drop)
    }

    fn forget(&mut self, _stage: &Stage) -> Result<(), BenchError> {
        Ok(())
    }

    fn prepare(&mut self, stage: &Stage, source: &Path) -> Result<(), BenchError> {
        stage.run(self.command(&[], source)).map(drop)
    }

    fn sync(&mut self, stage: &Stage, source: &Path) -> Result<Run, BenchError> {
        stage.measure(self.command(&self.variant.flags(), source), None, rsync::counted)
    }

    fn difference(
        &mut self,
        stage: &Stage,
        source: &Path,
        _wanted: &Tree,
    ) -> Result<Option<String>, BenchError> {
        let change = self.changes(stage, source)?;
        Ok(change.map(|change| format!("rsync would still do: {change}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_below_what_the_user_named() {
        assert_eq!(below("a@b:/srv", "x"), "a@b:/srv/x/");
        assert_eq!(below("a@b:/srv/", "x"), "a@b:/srv/x/");
        assert_eq!(below("a@b:", "x"), "a@b:x/");
    }
}
