//! lsyncd as strong as it honestly gets: no delay, and over ssh one connection that stays open. Its configuration is
//! written here; nothing of the user's is used.

use super::super::BenchError;
use super::super::cleanup;
use super::super::link::{Link, Side};
use super::super::runner::{Daemon, Stage, find_program};
use super::super::server::Server;
use super::follower::Follower;
use super::observe::{Patience, until};
use std::ffi::OsStr;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

/// How to get it.
pub(super) const INSTALL: &str = "lsyncd is not installed, so live scenarios have nothing to compare with: install it with \
    `apt-get install lsyncd`, `dnf install lsyncd` or `pacman -S lsyncd`";
/// How long the ssh connection may take to come up.
const READY: Duration = Duration::from_secs(20);
/// The longest path of a Unix socket, less what ssh appends while it makes one.
const SOCKET_PATH_MAX: usize = 107 - 17;

/// How lsyncd reaches the far end.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Way {
    /// `default.rsyncssh`: renames and removals are carried out by commands over ssh. The words of the ssh command.
    Ssh(Vec<String>),
    /// `default.rsync` to an rsync daemon at this URL, in the clear.
    Daemon(String),
}

/// The configuration: one source and its targets, directories at the far end or below the URL. To compress is worth it on
/// every link of this bench but the loopback device.
fn configuration(source: &Path, targets: &[PathBuf], way: &Way, compress: bool) -> Vec<u8> {
    let mut out = b"settings { nodaemon = true }\n".to_vec();
    for target in targets {
        let mut put = |text: &str| out.extend_from_slice(text.as_bytes());
        // Same attributes as everywhere else in this bench; --stats tells the bytes, which lsyncd does not.
        let rsync = format!(
            "archive = true, hard_links = true, acls = true, xattrs = true, compress = {compress}, _extra = {{ \"--stats\" }}"
        );
        match way {
            Way::Ssh(words) => {
                let shell: Vec<String> = words.iter().map(|word| shell_word(word)).collect();
                put("sync { default.rsyncssh, host = \"bench\", targetdir = ");
                put(&lua(target.as_os_str()));
                put(", ssh = { binary = ");
                put(&lua(OsStr::new(&words[0])));
                put(", _extra = { ");
                let extra: Vec<String> = words[1..].iter().map(|word| lua(OsStr::new(word))).collect();
                put(&extra.join(", "));
                put(&format!(
                    " }} }}, rsync = {{ {rsync}, rsh = {} }}",
                    lua(OsStr::new(&shell.join(" ")))
                ));
            }
            Way::Daemon(url) => {
                let mut address = url.clone().into_bytes();
                address.extend_from_slice(target.as_os_str().as_bytes());
                put("sync { default.rsync, target = ");
                put(&lua(OsStr::from_bytes(&address)));
                put(&format!(", rsync = {{ {rsync} }}"));
            }
        }
        put(", source = ");
        put(&lua(source.as_os_str()));
        put(", delay = 0, maxProcesses = 1 }\n");
    }
    out
}

/// A string of Lua. Whatever might mean something in one, and every byte that is not ASCII, is written as its number.
fn lua(text: &OsStr) -> String {
    let mut out = "\"".to_owned();
    for byte in text.as_bytes() {
        if byte.is_ascii_alphanumeric() || b" /._-+=:,@'%[]".contains(byte) {
            out.push(char::from(*byte));
        } else {
            // Writing into a string cannot fail. Three digits, or a digit that follows would belong to it.
            let _ = write!(out, "\\{byte:03}");
        }
    }
    out.push('"');
    out
}

/// A word in the command that rsync is given with `--rsh`: rsync splits it at spaces outside of quotes, and takes a quote
/// that is doubled inside of quotes for itself.
fn shell_word(word: &str) -> String {
    format!("'{}'", word.replace('\'', "''"))
}

/// Whether a line of the log says that the first comparison with a target has ended well. Its two modes say it differently.
fn is_startup_end(line: &str) -> bool {
    line.contains("Startup of ") && (line.ends_with(" finished.") || line.ends_with(" finished: 0"))
}

/// A running lsyncd, and its connection.
struct Running {
    daemon: Daemon,
    /// The ssh connection that all its commands share.
    connection: Option<Daemon>,
}

/// lsyncd in one variant.
pub(super) struct Lsyncd {
    name: &'static str,
    program: PathBuf,
    server: Rc<Server>,
    copies_root: PathBuf,
    copies: Vec<PathBuf>,
    running: Option<Running>,
}

impl Lsyncd {
    /// Over that server, with `targets` empty copies below `copies`.
    pub(super) fn new(server: Rc<Server>, copies: &Path, targets: usize) -> Result<Lsyncd, BenchError> {
        let program = find_program("lsyncd").ok_or_else(|| BenchError::new(INSTALL))?;
        let (name, folder) = if server.shell().is_some() {
            ("lsyncd+ssh", "live-lsyncd-ssh")
        } else {
            ("lsyncd+rsync daemon", "live-lsyncd-daemon")
        };
        let make = |index| {
            let path = copies.join(format!("{folder}-{index}"));
            std::fs::create_dir_all(&path).map_err(|error| BenchError::io("make", &path, &error))?;
            Ok(path)
        };
        Ok(Lsyncd {
            name,
            program,
            server,
            copies_root: copies.to_owned(),
            copies: (0..targets).map(make).collect::<Result<_, BenchError>>()?,
            running: None,
        })
    }

    /// Starts the connection that stays open, if it goes through ssh; gives the words of the ssh command.
    fn connect(&self, stage: &Stage) -> Result<(Vec<String>, Option<Daemon>), BenchError> {
        stage.workspace.renew_shared();
        let home = stage.workspace.path().join("ssh");
        let text = |path: &Path| {
            path.to_str().map(str::to_owned).ok_or_else(|| {
                BenchError::new(format!(
                    "lsyncd cannot be given the path {}: it is not UTF-8",
                    path.display()
                ))
            })
        };
        let ssh = find_program("ssh").ok_or_else(|| BenchError::new("ssh is not installed"))?;
        let mut words = vec![text(&ssh)?, "-F".to_owned(), text(&home.join("config"))?];
        let socket = home.join("m");
        if socket.as_os_str().len() > SOCKET_PATH_MAX {
            return Err(BenchError::new(format!(
                "the path {} is too long for ssh's socket (choose a shorter --dir)",
                socket.display()
            )));
        }
        words.extend(["-S".to_owned(), text(&socket)?]);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args(["-M", "-N", "bench"]);
        let mut connection = stage.daemon(Side::A, "live-ssh", command)?;
        connection.wait_until(READY, |_| socket.exists().then_some(()))?;
        Ok((words, Some(connection)))
    }

    fn way(&self, stage: &Stage) -> Result<(Way, Option<Daemon>), BenchError> {
        if self.server.shell().is_some() {
            let (words, connection) = self.connect(stage)?;
            return Ok((Way::Ssh(words), connection));
        }
        let address = stage.emulator.side(Side::B).address();
        let url = format!("rsync://{address}:{}/copies/", self.server.port());
        Ok((Way::Daemon(url), None))
    }

    fn log(&self) -> String {
        self.running
            .as_ref()
            .map(|running| running.daemon.output())
            .unwrap_or_default()
    }
}

impl Follower for Lsyncd {
    fn name(&self) -> &str {
        self.name
    }

    fn copies(&self) -> &[PathBuf] {
        &self.copies
    }

    fn reset(&mut self) -> Result<(), BenchError> {
        self.stop();
        self.copies.iter().try_for_each(|copy| cleanup::empty(copy))
    }

    fn start(
        &mut self,
        stage: &Stage,
        source: &Path,
        targets: usize,
        patience: Duration,
    ) -> Result<(), BenchError> {
        let (way, connection) = self.way(stage)?;
        let targets: Vec<PathBuf> = self.copies[..targets]
            .iter()
            .map(|copy| match way {
                Way::Ssh(_) => copy.clone(),
                Way::Daemon(_) => copy.strip_prefix(&self.copies_root).unwrap_or(copy).to_owned(),
            })
            .collect();
        let (file, compress) = (
            stage.workspace.path().join("lsyncd.lua"),
            stage.emulator.link() != Link::Loop,
        );
        std::fs::write(&file, configuration(source, &targets, &way, compress))
            .map_err(|error| BenchError::io("write", &file, &error))?;
        let mut command = Command::new(&self.program);
        command.arg(&file);
        let daemon = stage.daemon(Side::A, "lsyncd", command)?;
        self.running = Some(Running { daemon, connection });
        let health = || self.health();
        let mut patience = Patience::new(patience, &health);
        let what = || format!("lsyncd's first comparison: {}", self.complaints());
        // It says so once for each target, when that one's first rsync has ended well.
        let is_ready = || {
            let log = self.log();
            log.lines().filter(|line| is_startup_end(line)).count() >= targets.len()
        };
        until(&mut patience, &what, &mut || Ok(is_ready())).map(|_| ())
    }

    fn stop(&mut self) {
        self.running = None;
    }

    fn senders(&self) -> Vec<u32> {
        let running = self.running.iter();
        running
            .flat_map(|running| {
                [
                    Some(running.daemon.id()),
                    running.connection.as_ref().map(Daemon::id),
                ]
            })
            .flatten()
            .collect()
    }

    fn receivers(&self) -> Vec<u32> {
        vec![self.server.daemon().id()]
    }

    /// It tells nothing about that; but without a delay it works as long as it has anything to do.
    fn settle(&self, _patience: Duration) -> Result<(), BenchError> {
        if let Some(running) = &self.running {
            running.daemon.wait_for_children();
        }
        Ok(())
    }

    /// It starts anew then.
    fn rescans(&self) -> Option<u64> {
        self.running.as_ref()?;
        Some(self.log().matches("OVERFLOW in event queue").count() as u64)
    }

    /// As rsync tells; commands over ssh are not among it.
    fn counted(&self) -> (Option<u64>, Option<u64>) {
        let log = self.log();
        let sum = |label: &str| {
            let numbers = log.lines().filter_map(|line| line.strip_prefix(label));
            let digits = numbers.map(|text| text.chars().filter(char::is_ascii_digit).collect::<String>());
            Some(digits.filter_map(|digits| digits.parse::<u64>().ok()).sum())
        };
        (sum("Total bytes sent:"), sum("Total bytes received:"))
    }

    fn complaints(&self) -> String {
        let Some(running) = &self.running else {
            return String::new();
        };
        let mut said = running.daemon.complaints();
        if said.is_empty() {
            let log = running.daemon.output();
            let lines: Vec<&str> = log.lines().rev().take(4).collect();
            said = lines.into_iter().rev().collect::<Vec<_>>().join("\n    ");
        }
        said
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_cannot_end_early_or_mean_something_else() {
        let quoted = |text: &[u8]| lua(OsStr::from_bytes(text));
        assert_eq!(quoted(b"/srv/a b/c-1.x"), "\"/srv/a b/c-1.x\"");
        assert_eq!(quoted(b"a\"b\\n\n1"), "\"a\\034b\\092n\\0101\"");
        assert_eq!(quoted("\u{e4}".as_bytes()), "\"\\195\\164\"");
        assert_eq!(
            quoted(b"]] .. os.execute('x')"),
            "\"]] .. os.execute\\040'x'\\041\""
        );
    }

    #[test]
    fn both_modes_say_when_they_have_started() {
        for (line, ended) in [
            (
                "07:15:43 Normal: Startup of /a b/ -> rsync://h/m/ finished.",
                true,
            ),
            ("07:30:19 Normal: Startup of \"/a b/\" finished: 0", true),
            ("07:30:19 Normal: Startup of \"/a b/\" finished: 23", false),
            ("07:15:43 Normal: recursive startup rsync: /a/ -> /b/", false),
            ("07:15:43 Normal: Retrying startup of \"/a/\": 255", false),
        ] {
            assert_eq!(is_startup_end(line), ended, "{line}");
        }
    }

    #[test]
    fn words_stay_words() {
        assert_eq!(shell_word("/a b/c"), "'/a b/c'");
        assert_eq!(shell_word("it's"), "'it''s'");
    }

    #[test]
    fn each_target_has_its_sync_without_delay() {
        let targets = [PathBuf::from("/c/one"), PathBuf::from("/c/t\"wo")];
        let words = ["/usr/bin/ssh", "-F", "/w x/config", "-S", "/w x/m"].map(str::to_owned);
        let text = configuration(Path::new("/src"), &targets, &Way::Ssh(words.to_vec()), true);
        let text = String::from_utf8(text).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(
            lines[1],
            "sync { default.rsyncssh, host = \"bench\", targetdir = \"/c/one\", ssh = { binary = \"/usr/bin/ssh\", _extra = { \
             \"-F\", \"/w x/config\", \"-S\", \"/w x/m\" } }, rsync = { archive = true, hard_links = true, acls = true, \
             xattrs = true, compress = true, _extra = { \"--stats\" }, rsh = \"'/usr/bin/ssh' '-F' '/w x/config' '-S' '/w x/m'\" }, source = \
             \"/src\", delay = 0, maxProcesses = 1 }"
        );
        assert!(lines[2].contains("targetdir = \"/c/t\\034wo\""), "{}", lines[2]);
        let way = Way::Daemon("rsync://127.0.0.1:1/copies/".to_owned());
        let text = String::from_utf8(configuration(Path::new("/src"), &["x".into()], &way, false)).unwrap();
        assert!(
            text.contains("default.rsync, target = \"rsync://127.0.0.1:1/copies/x\", rsync = {"),
            "{text}"
        );
    }
}
