//! rsync as it is usually run.

use super::BenchError;
use super::check::Tree;
use super::cleanup;
use super::link::Side;
use super::runner::{Stage, version};
use super::server::{Carrier, Server};
use super::tool::{Run, Tool};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

/// How to get it.
pub const INSTALL: &str = "rsync is not installed, so there is nothing to compare with: install it with `apt-get install \
    rsync openssh-server`, `dnf install rsync openssh-server` or `pacman -S rsync openssh`";

/// What all variants do: carry what driftless carries and more, and delete what the source lacks.
const FLAGS: [&str; 3] = ["-aHAX", "--delete", "--stats"];

/// A way to run rsync.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variant {
    /// How it reaches the far end.
    pub carrier: Carrier,
    /// With `-z --zc=zstd`.
    pub compress: bool,
    /// With `--fsync`.
    pub fsync: bool,
    /// The TCP congestion control, if it is not that of all.
    pub tcp: Option<String>,
}

impl Variant {
    fn new(carrier: Carrier, compress: bool, fsync: bool) -> Variant {
        Variant {
            carrier,
            compress,
            fsync,
            tcp: None,
        }
    }

    /// Its name in the table.
    #[must_use]
    pub fn name(&self) -> String {
        let compress = if self.compress { " -z" } else { "" };
        let fsync = if self.fsync { " --fsync" } else { "" };
        let tcp = self.tcp.as_ref().map(|tcp| format!(" {tcp}")).unwrap_or_default();
        format!("{}{compress}{fsync}{tcp}", self.carrier.name())
    }

    /// The name of its copy, which is its own.
    #[must_use]
    pub fn folder(&self) -> String {
        self.name().replace([' ', '+'], "-")
    }

    /// The variants to compare with, the usual one first. `tcp` are the congestion controls on an emulated link.
    #[must_use]
    pub fn all(quick: bool, tcp: &[String]) -> Vec<Variant> {
        let usual = Variant::new(Carrier::Ssh, true, false);
        let bare = Variant::new(Carrier::Daemon, false, false);
        if quick {
            return vec![usual, bare];
        }
        let mut all = vec![
            usual.clone(),
            Variant::new(Carrier::Ssh, true, true),
            Variant::new(Carrier::Ssh, false, false),
            Variant::new(Carrier::Daemon, true, false),
            bare,
        ];
        all.extend(tcp.iter().skip(1).map(|name| Variant {
            tcp: Some(name.clone()),
            ..usual.clone()
        }));
        all
    }

    /// The flags by which it differs from others.
    #[must_use]
    pub fn flags(&self) -> Vec<&'static str> {
        let mut flags = Vec::new();
        if self.compress {
            flags.extend(["-z", "--zc=zstd"]);
        }
        if self.fsync {
            flags.push("--fsync");
        }
        flags
    }
}

/// What the installed rsync lacks of what the variants want; older ones lack both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lacks {
    zstd: bool,
    fsync: bool,
}

impl Lacks {
    /// Asks the program.
    #[must_use]
    pub fn ask() -> Lacks {
        let says = |argument: &str, word: &str| {
            let output = Command::new("rsync").arg(argument).output();
            output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(word))
        };
        Lacks {
            zstd: !says("--version", "zstd"),
            fsync: !says("--help", "--fsync"),
        }
    }

    /// Whether it can run a variant.
    #[must_use]
    pub fn allows(self, variant: &Variant) -> bool {
        !(variant.compress && self.zstd || variant.fsync && self.fsync)
    }
}

/// What rsync counted itself: bytes sent and received.
#[must_use]
pub fn counted(output: &str) -> (Option<u64>, Option<u64>) {
    let total = |label| number_after(output, label);
    (total("Total bytes sent:"), total("Total bytes received:"))
}

/// The number in the line of `--stats` that begins with `label`. Its digits may be grouped.
#[must_use]
pub fn number_after(output: &str, label: &str) -> Option<u64> {
    let line = output.lines().find_map(|line| line.strip_prefix(label))?;
    let digits: String = line.chars().filter(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// A command that makes `destination` like `source`.
#[must_use]
pub fn command(flags: &[&str], shell: Option<&str>, source: &Path, destination: &str) -> Command {
    let mut command = Command::new("rsync");
    command.args(FLAGS).args(flags);
    if let Some(shell) = shell {
        command.args(["-e", shell]);
    }
    let mut from = source.as_os_str().to_owned();
    from.push("/");
    command.arg(from).arg(destination);
    command
}

/// The version, for the report.
#[must_use]
pub fn installed() -> Option<String> {
    version("rsync", &["--version"])
}

/// rsync in one variant, to a copy on this machine.
#[derive(Debug)]
pub struct Rsync {
    variant: Variant,
    name: String,
    server: Rc<Server>,
    folder: String,
    copy: PathBuf,
    /// The congestion control of both sides, on an emulated link.
    tcp: Option<String>,
}

impl Rsync {
    /// A variant with an empty copy below `copies`. `tcp` is what it runs with unless the variant has its own.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn new(
        variant: Variant,
        server: Rc<Server>,
        copies: &Path,
        tcp: Option<&String>,
    ) -> Result<Rsync, BenchError> {
        let name = variant.name();
        let folder = variant.folder();
        let copy = copies.join(&folder);
        fs::create_dir_all(&copy).map_err(|error| BenchError::io("make", &copy, &error))?;
        let tcp = variant.tcp.as_ref().or(tcp).cloned();
        Ok(Rsync {
            variant,
            name,
            server,
            folder,
            copy,
            tcp,
        })
    }
}

impl Rsync {
    fn command(&self, stage: &Stage, source: &Path) -> Command {
        stage.workspace.renew_shared();
        let destination = self.server.destination(&self.folder);
        let mut command = command(&self.variant.flags(), self.server.shell(), source, &destination);
        command.env_remove("RSYNC_RSH");
        command
    }
}

impl Tool for Rsync {
    fn name(&self) -> &str {
        &self.name
    }

    fn durable(&self) -> bool {
        self.variant.fsync
    }

    fn reset(&mut self, _stage: &Stage) -> Result<(), BenchError> {
        cleanup::empty(&self.copy)
    }

    fn forget(&mut self, _stage: &Stage) -> Result<(), BenchError> {
        // It remembers nothing.
        Ok(())
    }

    fn prepare(&mut self, stage: &Stage, source: &Path) -> Result<(), BenchError> {
        stage.run_on(Side::B, self.command(stage, source)).map(drop)
    }

    fn sync(&mut self, stage: &Stage, source: &Path) -> Result<Run, BenchError> {
        if let Some(tcp) = &self.tcp {
            stage
                .emulator
                .set_congestion_control(tcp)
                .map_err(|error| BenchError::new(error.to_string()))?;
        }
        stage.measure(self.command(stage, source), Some(self.server.daemon()), counted)
    }

    fn difference(
        &mut self,
        _stage: &Stage,
        _source: &Path,
        wanted: &Tree,
    ) -> Result<Option<String>, BenchError> {
        let found = Tree::read(&self.copy).map_err(|error| BenchError::io("read", &self.copy, &error))?;
        Ok(wanted.difference_beside_fractions(&found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grouped_numbers_are_read() {
        let output = "Number of files: 3\nTotal bytes sent: 1,234,567\nTotal bytes received: 89\n";
        assert_eq!(counted(output), (Some(1_234_567), Some(89)));
        assert_eq!(counted(""), (None, None));
    }

    #[test]
    fn variants_have_names_of_their_own() {
        let all = Variant::all(false, &["bbr".to_owned(), "cubic".to_owned()]);
        let names: std::collections::BTreeSet<String> = all.iter().map(Variant::name).collect();
        assert_eq!(names.len(), all.len());
        assert!(names.contains("rsync+ssh -z --fsync") && names.contains("rsync+ssh -z cubic"));
    }
}
