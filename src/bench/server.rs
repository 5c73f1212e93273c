//! The far end of rsync on this machine: a private sshd, or an rsync daemon. Nothing of the user's configuration is used,
//! and nothing outside the workspace is changed.

use super::BenchError;
use super::link::{Link, Side};
use super::runner::{Daemon, Stage, find_program, free_port};
use super::shared::SharedDirectory;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

/// Where sshd of Debian and its relatives wants an empty directory, which may not outlive a restart of the machine.
const PRIVILEGE_SEPARATION: &str = "/run/sshd";
/// How often to look for another port, when someone else was faster.
const TRIES: usize = 5;

/// How rsync reaches the far end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// Through ssh, encrypted.
    Ssh,
    /// To a daemon, in the clear.
    Daemon,
}

impl Carrier {
    /// Its name in the table.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Carrier::Ssh => "rsync+ssh",
            Carrier::Daemon => "rsync daemon",
        }
    }

    /// A port in a network of our own.
    fn private_port(self) -> u16 {
        match self {
            Carrier::Ssh => 2222,
            Carrier::Daemon => 2223,
        }
    }
}

/// A running server for one carrier.
#[derive(Debug)]
pub struct Server {
    daemon: Daemon,
    port: u16,
    /// The word for `-e`.
    shell: Option<String>,
    /// What stands before the path of a copy relative to `copies`.
    prefix: String,
}

/// All servers, as far as they can be had.
#[derive(Debug, Default)]
pub struct Servers {
    ssh: Option<Rc<Server>>,
    daemon: Option<Rc<Server>>,
}

impl Servers {
    /// Starts one for each carrier. What cannot be started is noted.
    #[must_use]
    pub fn start(stage: &Stage, copies: &Path, notes: &mut Vec<String>) -> Servers {
        let mut start = |carrier: Carrier| match Server::start(stage, carrier, copies) {
            Ok(server) => Some(Rc::new(server)),
            Err(error) => {
                notes.push(format!("{} is left out: {error}", carrier.name()));
                None
            }
        };
        Servers {
            ssh: start(Carrier::Ssh),
            daemon: start(Carrier::Daemon),
        }
    }

    /// That of a carrier.
    #[must_use]
    pub fn of(&self, carrier: Carrier) -> Option<Rc<Server>> {
        match carrier {
            Carrier::Ssh => self.ssh.clone(),
            Carrier::Daemon => self.daemon.clone(),
        }
    }
}

impl Server {
    /// Starts a private sshd, or an rsync daemon, for the directory `copies`.
    ///
    /// # Errors
    /// When the program is missing or does not come up.
    pub fn start(stage: &Stage, carrier: Carrier, copies: &Path) -> Result<Server, BenchError> {
        match carrier {
            Carrier::Ssh => start_sshd(stage, copies),
            Carrier::Daemon => start_rsyncd(stage, copies),
        }
    }

    /// The process.
    #[must_use]
    pub fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    /// The TCP port that it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The remote shell for rsync's `-e`, if there is one.
    #[must_use]
    pub fn shell(&self) -> Option<&str> {
        self.shell.as_deref()
    }

    /// The destination of a copy, in rsync's words.
    #[must_use]
    pub fn destination(&self, folder: &str) -> String {
        format!("{}/{folder}/", self.prefix)
    }
}

/// Starts a daemon on a port of its own. On the machine's network a port that is free now can be taken a moment later, by
/// another bench for example.
fn start_on_free_port(
    stage: &Stage,
    carrier: Carrier,
    start: impl Fn(u16) -> Result<Daemon, BenchError>,
) -> Result<(Daemon, u16), BenchError> {
    let on = |port: u16| {
        let mut daemon = start(port)?;
        daemon.wait_for_port(port)?;
        Ok((daemon, port))
    };
    if stage.emulator.link() != Link::Loop {
        return on(carrier.private_port());
    }
    let mut last = on(free_port()?);
    for _ in 1..TRIES {
        match &last {
            Err(error) if error.to_string().contains("in use") => last = on(free_port()?),
            _ => break,
        }
    }
    last
}

fn start_sshd(stage: &Stage, copies: &Path) -> Result<Server, BenchError> {
    let program = |name: &str| {
        find_program(name)
            .ok_or_else(|| BenchError::new(format!("{name} is not installed (package openssh-server)")))
    };
    let (sshd, ssh) = (program("sshd")?, program("ssh")?);
    let home = stage.workspace.directory("ssh")?;
    make_keys(stage, &program("ssh-keygen")?, &home)?;
    let start = |port: u16| {
        write_configuration(stage, &home, port)?;
        let mut command = Command::new(&sshd);
        command.args(["-D", "-e", "-f"]).arg(home.join("sshd_config"));
        stage.daemon(Side::B, "sshd", command)
    };
    let hold = || {
        if !stage.workspace.is_keeping()
            && let Some(shared) = SharedDirectory::join(Path::new(PRIVILEGE_SEPARATION))
        {
            stage.workspace.keep(shared);
        }
    };
    hold();
    let (daemon, port) = start_on_free_port(stage, Carrier::Ssh, start).or_else(|error| {
        let text = error.to_string();
        let missing = text
            .split_once("Missing privilege separation directory: ")
            .and_then(|(_, rest)| SharedDirectory::make(Path::new(rest.lines().next()?.trim())).ok());
        match missing {
            Some(shared) => {
                stage.workspace.keep(shared);
                start_on_free_port(stage, Carrier::Ssh, start)
            }
            None => Err(error),
        }
    })?;
    // Another bench may have made it just before sshd looked for it, and takes it away when nobody else holds it.
    hold();
    // A login that is refused is better found here.
    let mut command = Command::new(&ssh);
    command.arg("-F").arg(home.join("config")).args(["bench", "true"]);
    stage.run(command).map_err(|error| {
        BenchError::new(format!(
            "the private sshd lets nobody in: {error}; it said: {}",
            daemon.complaints()
        ))
    })?;
    Ok(Server {
        daemon,
        port,
        shell: Some(format!("{} -F '{}/config'", ssh.display(), home.display())),
        prefix: format!("bench:{}", copies.display()),
    })
}

/// A key of the host and one of the user, and the files that let one in to the other.
fn make_keys(stage: &Stage, keygen: &Path, home: &Path) -> Result<(), BenchError> {
    for key in ["host", "user"] {
        let mut command = Command::new(keygen);
        command
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(home.join(key));
        stage.run(command)?;
    }
    let read = |name: &str| fs::read_to_string(home.join(name)).map_err(|e| BenchError::io("read", home, &e));
    write(home, "authorized", &read("user.pub")?)?;
    write(home, "known", &format!("bench {}", read("host.pub")?))
}

fn write_configuration(stage: &Stage, home: &Path, port: u16) -> Result<(), BenchError> {
    let (address, place) = (stage.emulator.side(Side::B).address(), home.display());
    let server = format!(
        "ListenAddress {address}:{port}\nHostKey \"{place}/host\"\nAuthorizedKeysFile \"{place}/authorized\"\n\
         PidFile none\nStrictModes no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
         PermitRootLogin yes\nUseDNS no\nPrintMotd no\nLogLevel INFO\n"
    );
    let client = format!(
        "Host bench\n HostName {address}\n Port {port}\n IdentityFile \"{place}/user\"\n IdentitiesOnly yes\n \
         IdentityAgent none\n HostKeyAlias bench\n UserKnownHostsFile \"{place}/known\"\n \
         StrictHostKeyChecking yes\n BatchMode yes\n LogLevel ERROR\n"
    );
    write(home, "sshd_config", &server)?;
    write(home, "config", &client)
}

/// Writes a file that only its owner may read, which ssh insists on.
fn write(home: &Path, name: &str, text: &str) -> Result<(), BenchError> {
    let path: PathBuf = home.join(name);
    fs::write(&path, text)
        .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o600)))
        .map_err(|error| BenchError::io("write", &path, &error))
}

fn start_rsyncd(stage: &Stage, copies: &Path) -> Result<Server, BenchError> {
    let home = stage.workspace.directory("rsyncd")?;
    let address = stage.emulator.side(Side::B).address();
    let root = if rustix::process::geteuid().is_root() {
        "uid = 0\ngid = 0\n"
    } else {
        ""
    };
    let start = |port: u16| {
        let text = format!(
            "port = {port}\naddress = {address}\nuse chroot = no\nmunge symlinks = no\nlog file = /dev/stderr\n{root}\
             [copies]\npath = {}\nread only = no\n",
            copies.display()
        );
        write(&home, "rsyncd.conf", &text)?;
        let mut command = Command::new("rsync");
        command
            .args(["--daemon", "--no-detach"])
            .arg(format!("--config={}", home.join("rsyncd.conf").display()));
        stage.daemon(Side::B, "rsyncd", command)
    };
    let (daemon, port) = start_on_free_port(stage, Carrier::Daemon, start)?;
    Ok(Server {
        daemon,
        port,
        shell: None,
        prefix: format!("rsync://{address}:{port}/copies"),
    })
}
