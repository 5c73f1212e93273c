//! rsync as it is usually run: over ssh with a private sshd, and to an rsync daemon. Nothing of the user's
//! configuration is used, and nothing outside the workspace is changed.

use super::BenchError;
use super::cleanup;
use super::link::{Link, Side};
use super::runner::{Daemon, Stage, find_program, free_port};
use super::tool::{Run, Tool};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How to get it.
pub const INSTALL: &str = "rsync is not installed, so there is nothing to compare with: install it with `apt-get install \
    rsync openssh-server`, `dnf install rsync openssh-server` or `pacman -S rsync openssh`";

/// How rsync reaches the far end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// Through ssh, encrypted.
    Ssh,
    /// To a daemon, in the clear.
    Daemon,
}

/// A way to run rsync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variant {
    /// How it reaches the far end.
    pub carrier: Carrier,
    /// With `-z --zc=zstd`.
    pub compress: bool,
    /// With `--fsync`.
    pub fsync: bool,
}

impl Variant {
    /// Its name in the table.
    #[must_use]
    pub fn name(self) -> String {
        let carrier = if self.carrier == Carrier::Ssh {
            "rsync+ssh"
        } else {
            "rsync daemon"
        };
        let compress = if self.compress { " -z" } else { "" };
        let fsync = if self.fsync { " --fsync" } else { "" };
        format!("{carrier}{compress}{fsync}")
    }

    /// The variants that a run compares with, the usual one first.
    #[must_use]
    pub fn all(quick: bool) -> Vec<Variant> {
        let variant = |carrier, compress, fsync| Variant {
            carrier,
            compress,
            fsync,
        };
        let mut all = vec![
            variant(Carrier::Ssh, true, false),
            variant(Carrier::Ssh, true, true),
        ];
        if !quick {
            all.push(variant(Carrier::Ssh, false, false));
            all.push(variant(Carrier::Daemon, true, false));
        }
        all.push(variant(Carrier::Daemon, false, false));
        all
    }
}

/// A running server for one carrier.
#[derive(Debug)]
pub struct Server {
    daemon: Daemon,
    port: u16,
    /// The word for `-e`.
    shell: Option<String>,
}

impl Server {
    /// Starts a private sshd, or an rsync daemon that offers the directory `copies`.
    ///
    /// # Errors
    /// When the program is missing or does not come up.
    pub fn start(stage: &Stage, carrier: Carrier, copies: &Path) -> Result<Server, BenchError> {
        let port = if stage.emulator.link() == Link::Loop {
            free_port()?
        } else {
            2222
        };
        let port = if carrier == Carrier::Daemon && port == 2222 {
            2223
        } else {
            port
        };
        match carrier {
            Carrier::Ssh => Server::sshd(stage, port),
            Carrier::Daemon => Server::rsyncd(stage, port, copies),
        }
    }

    fn sshd(stage: &Stage, port: u16) -> Result<Server, BenchError> {
        let missing = |name: &str| BenchError::new(format!("{name} is not installed (package openssh)"));
        let sshd = find_program("sshd").ok_or_else(|| missing("sshd"))?;
        find_program("ssh").ok_or_else(|| missing("ssh"))?;
        let keygen = find_program("ssh-keygen").ok_or_else(|| missing("ssh-keygen"))?;
        let home = stage.workspace.directory("ssh")?;
        let address = stage.emulator.side(Side::B).address();
        for key in ["host", "user"] {
            let mut command = Command::new(&keygen);
            command
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(home.join(key));
            stage.run(command)?;
        }
        let read =
            |name: &str| fs::read_to_string(home.join(name)).map_err(|e| BenchError::io("read", &home, &e));
        let write = |name: &str, text: &str| {
            let path = home.join(name);
            fs::write(&path, text)
                .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o600)))
                .map_err(|error| BenchError::io("write", &path, &error))
        };
        let (host, user, place) = (read("host.pub")?, read("user.pub")?, home.display());
        write("authorized", &user)?;
        write("known", &format!("bench {host}"))?;
        write(
            "sshd_config",
            &format!(
                "ListenAddress {address}:{port}\nHostKey \"{place}/host\"\nAuthorizedKeysFile \"{place}/authorized\"\n\
                 PidFile none\nStrictModes no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
                 PermitRootLogin yes\nUseDNS no\nPrintMotd no\nLogLevel ERROR\n"
            ),
        )?;
        write(
            "config",
            &format!(
                "Host bench\n HostName {address}\n Port {port}\n IdentityFile \"{place}/user\"\n IdentitiesOnly yes\n \
                 IdentityAgent none\n HostKeyAlias bench\n UserKnownHostsFile \"{place}/known\"\n \
                 StrictHostKeyChecking yes\n BatchMode yes\n LogLevel ERROR\n"
            ),
        )?;
        let start = || -> Result<Daemon, BenchError> {
            let mut command = Command::new(&sshd);
            command.args(["-D", "-e", "-f"]).arg(home.join("sshd_config"));
            let mut daemon = stage.daemon(Side::B, "sshd", command)?;
            daemon.wait_for_port(port)?;
            Ok(daemon)
        };
        // Run by root, sshd wants an empty directory that only its package's service makes.
        let daemon = start().or_else(|error| {
            let text = error.to_string();
            let directory = text
                .split_once("Missing privilege separation directory: ")
                .map(|(_, rest)| rest.trim());
            match directory {
                Some(path) if stage.workspace.directory_outside(Path::new(path)).is_ok() => start(),
                _ => Err(error),
            }
        })?;
        let shell = format!("ssh -F '{place}/config'");
        let server = Server {
            daemon,
            port,
            shell: Some(shell.clone()),
        };
        // A login that is refused is better found here.
        let mut command = Command::new("ssh");
        command.arg("-F").arg(home.join("config")).args(["bench", "true"]);
        stage
            .run(command)
            .map_err(|error| BenchError::new(format!("the private sshd lets nobody in: {error}")))?;
        Ok(server)
    }

    fn rsyncd(stage: &Stage, port: u16, copies: &Path) -> Result<Server, BenchError> {
        let home = stage.workspace.directory("rsyncd")?;
        let address = stage.emulator.side(Side::B).address();
        let root = if rustix::process::geteuid().is_root() {
            "uid = 0\ngid = 0\n"
        } else {
            ""
        };
        let text = format!(
            "port = {port}\naddress = {address}\nuse chroot = no\nlog file = {}\n{root}[copies]\npath = {}\nread only = no\n",
            home.join("log").display(),
            copies.display()
        );
        let config = home.join("rsyncd.conf");
        fs::write(&config, text).map_err(|error| BenchError::io("write", &config, &error))?;
        let mut command = Command::new("rsync");
        command
            .args(["--daemon", "--no-detach"])
            .arg(format!("--config={}", config.display()));
        let mut daemon = stage.daemon(Side::B, "rsyncd", command)?;
        daemon.wait_for_port(port)?;
        Ok(Server {
            daemon,
            port,
            shell: None,
        })
    }
}

/// rsync in one variant.
#[derive(Debug)]
pub struct Rsync {
    variant: Variant,
    name: String,
    server: std::rc::Rc<Server>,
    copies: PathBuf,
    folder: String,
    copy: PathBuf,
}

impl Rsync {
    /// A variant with an empty copy below `copies`.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn new(variant: Variant, server: std::rc::Rc<Server>, copies: &Path) -> Result<Rsync, BenchError> {
        let name = variant.name();
        let folder = name.replace([' ', '+'], "-");
        let copy = copies.join(&folder);
        fs::create_dir_all(&copy).map_err(|error| BenchError::io("make", &copy, &error))?;
        Ok(Rsync {
            variant,
            name,
            server,
            copies: copies.to_owned(),
            folder,
            copy,
        })
    }
}

impl Tool for Rsync {
    fn name(&self) -> &str {
        &self.name
    }

    fn durable(&self) -> bool {
        self.variant.fsync
    }

    fn copy(&self) -> &Path {
        &self.copy
    }

    fn reset(&mut self, _stage: &Stage) -> Result<(), BenchError> {
        cleanup::empty(&self.copy)
    }

    fn forget(&mut self, _stage: &Stage) -> Result<(), BenchError> {
        // It remembers nothing.
        Ok(())
    }

    fn sync(&mut self, stage: &Stage, source: &Path) -> Result<Run, BenchError> {
        let mut command = Command::new("rsync");
        command
            .args(["-aHAX", "--delete", "--stats"])
            .env_remove("RSYNC_RSH");
        if self.variant.compress {
            command.args(["-z", "--zc=zstd"]);
        }
        if self.variant.fsync {
            command.arg("--fsync");
        }
        let mut from = source.as_os_str().to_owned();
        from.push("/");
        command.arg(from);
        match &self.server.shell {
            Some(shell) => {
                let path = self.copies.join(&self.folder);
                command
                    .args(["-e", shell])
                    .arg(format!("bench:{}/", path.display()));
            }
            None => {
                let address = stage.emulator.side(Side::B).address();
                command.arg(format!(
                    "rsync://{address}:{}/copies/{}/",
                    self.server.port, self.folder
                ));
            }
        }
        let (memory, before) = (self.server.daemon.watch_memory(), self.server.daemon.cpu());
        stage.count_bytes();
        let finished = stage.run(command)?;
        self.server.daemon.wait_for_children();
        let mut run = Run {
            wall_s: finished.wall.as_secs_f64(),
            cpu_sender_s: Some(finished.cpu.as_secs_f64()),
            cpu_receiver_s: Some((self.server.daemon.cpu() - before).as_secs_f64()),
            peak_sender: Some(finished.peak),
            peak_receiver: Some(memory.finish()),
            ..Run::default()
        };
        let total = |label: &str| {
            let line = finished
                .output
                .lines()
                .find_map(|line| line.strip_prefix(label))?;
            line.chars()
                .filter(char::is_ascii_digit)
                .collect::<String>()
                .parse()
                .ok()
        };
        stage.finish_run(
            &mut run,
            (total("Total bytes sent:"), total("Total bytes received:")),
        )?;
        Ok(run)
    }
}
