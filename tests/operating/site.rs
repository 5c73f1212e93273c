//! A sender's home with a configuration, receivers with homes of their own, and trees for all of them.

use driftless::daemon::home::Home;
use serde_json::Value;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long anything may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Site(TempDir);

impl Site {
    /// `home` is the sender's.
    pub fn new(directories: &[&str]) -> Site {
        let site = Site(tempfile::tempdir().unwrap());
        for name in directories.iter().chain(&["home"]) {
            fs::create_dir_all(site.path(name)).unwrap();
        }
        fs::set_permissions(site.path("home"), fs::Permissions::from_mode(0o700)).unwrap();
        site
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn home(&self) -> Home {
        Home::at(self.path("home"))
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).unwrap();
    }

    pub fn read(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.path(name)).ok()
    }

    /// A mirror of the configuration; targets with a colon are written as they are, others are directories of the site.
    pub fn mirror(&self, name: &str, source: &str, targets: &[&str], more: &str) -> String {
        let targets: Vec<String> = targets
            .iter()
            .map(|target| match target.contains(':') {
                true => format!("'{target}'"),
                false => format!("'{}'", self.path(target).display()),
            })
            .collect();
        format!(
            "[[mirror]]\nname = '{name}'\nsource = '{}'\ntargets = [{}]\ndelete = 'always'\n{more}\n",
            self.path(source).display(),
            targets.join(", ")
        )
    }

    pub fn configure(&self, text: &str) {
        self.write("home/driftless.toml", text);
    }

    pub fn command_in(&self, home: &str, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_driftless"));
        command
            .args(line.split_whitespace().map(OsStr::new))
            .env("DRIFTLESS_HOME", self.path(home))
            .env_remove("RUST_LOG")
            .env_remove("NOTIFY_SOCKET")
            .current_dir(self.0.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub fn command(&self, line: &str) -> Command {
        self.command_in("home", line)
    }

    #[track_caller]
    pub fn run_in(&self, home: &str, line: &str, status: i32) -> (String, String) {
        let Output {
            status: ended,
            stdout,
            stderr,
        } = self.command_in(home, line).output().unwrap();
        let texts = (
            String::from_utf8(stdout).unwrap(),
            String::from_utf8(stderr).unwrap(),
        );
        assert_eq!(ended.code(), Some(status), "{line}: {texts:?}");
        texts
    }

    #[track_caller]
    pub fn run(&self, line: &str, status: i32) -> (String, String) {
        self.run_in("home", line, status)
    }

    #[track_caller]
    pub fn json(&self, line: &str, status: i32) -> Value {
        serde_json::from_str(&self.run(line, status).0).unwrap()
    }

    /// The status of the sender of a mirror to a target that has this in its name.
    #[track_caller]
    pub fn sender(&self, mirror: &str, target: &str) -> Value {
        let status = self.json("status --json", 0);
        let found = status["daemons"].as_array().unwrap().iter().find(|daemon| {
            daemon["mirror"] == mirror && daemon["target"].as_str().is_some_and(|own| own.contains(target))
        });
        found
            .cloned()
            .unwrap_or_else(|| panic!("no {mirror} to {target} in {status}"))
    }

    pub fn fingerprint(&self, home: &str) -> String {
        let (out, _) = self.run_in(home, "id", 0);
        out.split_whitespace().last().unwrap().to_owned()
    }

    /// A receiver process with a home of its own that lets the sender in, and the target that means it.
    pub fn receiver(&self, name: &str) -> (Daemon, String) {
        self.receiver_with(name, "")
    }

    /// The same, with more options.
    pub fn receiver_with(&self, name: &str, more: &str) -> (Daemon, String) {
        let home = format!("home-{name}");
        fs::create_dir_all(self.path(&home)).unwrap();
        fs::set_permissions(self.path(&home), fs::Permissions::from_mode(0o700)).unwrap();
        fs::create_dir_all(self.path(name)).unwrap();
        let port = free_port();
        let target = format!("driftless://{}@127.0.0.1:{port}/{name}", self.fingerprint(&home));
        let line = format!(
            "receive {name} --listen 127.0.0.1:{port} --allow {} --json {more}",
            self.fingerprint("home")
        );
        (Daemon::spawn(self.command_in(&home, &line)), target)
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    let socket = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
    socket.local_addr().unwrap().port()
}

/// Waits until something holds.
#[track_caller]
pub fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "still not: {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// A running process, and all that it says.
pub struct Daemon {
    child: Child,
    lines: Receiver<String>,
    said: Vec<String>,
}

impl Daemon {
    pub fn start(site: &Site, line: &str) -> Daemon {
        Daemon::spawn(site.command(line))
    }

    pub fn spawn(command: Command) -> Daemon {
        let mut daemon = Daemon::listening(command);
        daemon.wait(|line| line.contains("\"event\":\"ready\""));
        daemon
    }

    /// One that need not say that it is ready.
    pub fn listening(mut command: Command) -> Daemon {
        let mut child = command.spawn().unwrap();
        let (sender, lines) = channel();
        let streams: [Box<dyn Read + Send>; 2] = [
            Box::new(child.stdout.take().unwrap()),
            Box::new(child.stderr.take().unwrap()),
        ];
        for stream in streams {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    let _ = sender.send(line);
                }
            });
        }
        Daemon {
            child,
            lines,
            said: Vec::new(),
        }
    }

    /// The next line that is like this; those before it are passed by.
    #[track_caller]
    pub fn wait(&mut self, mut is_it: impl FnMut(&str) -> bool) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("it was never said: {:#?}", self.said);
            };
            self.said.push(line.clone());
            if is_it(&line) {
                return line;
            }
        }
    }

    /// A line like this, also if it was passed by: the two streams are not in step.
    #[track_caller]
    pub fn hear(&mut self, is_it: impl Fn(&str) -> bool) {
        if !self.said.iter().any(|line| is_it(line)) {
            self.wait(is_it);
        }
    }

    /// The next event like this.
    #[track_caller]
    pub fn event(&mut self, is_it: impl Fn(&Value) -> bool) -> Value {
        let line = self.wait(|line| serde_json::from_str::<Value>(line).is_ok_and(|event| is_it(&event)));
        serde_json::from_str(&line).unwrap()
    }

    /// Everything that it has said so far.
    pub fn said_now(&mut self) -> Vec<String> {
        self.said.extend(self.lines.try_iter());
        self.said.clone()
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).unwrap();
    }

    /// The number of the process.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Hears and says nothing, as one that is cut off, until [`Daemon::come_back`].
    pub fn cut_off(&self) {
        self.signal_all(rustix::process::Signal::STOP);
    }

    pub fn come_back(&self) {
        self.signal_all(rustix::process::Signal::CONT);
    }

    /// Also to those that it has started: one of them may speak to the network for it.
    fn signal_all(&self, signal: rustix::process::Signal) {
        self.signal(signal);
        for task in fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap() {
            let children = fs::read_to_string(task.unwrap().path().join("children")).unwrap_or_default();
            for child in children.split_whitespace().filter_map(|pid| pid.parse().ok()) {
                // It may have ended.
                let _ = rustix::process::kill_process(rustix::process::Pid::from_raw(child).unwrap(), signal);
            }
        }
    }

    /// Its exit status, if it has ended by itself.
    #[allow(dead_code, reason = "not all tests that share this wait for that")]
    pub fn status(&mut self) -> Option<Option<i32>> {
        self.child.try_wait().unwrap().map(|status| status.code())
    }

    /// Stops it as a service manager does, and gives its status.
    pub fn stop(self) -> Option<i32> {
        self.signal(rustix::process::Signal::TERM);
        self.ended()
    }

    /// Waits for its end, and gives its status.
    pub fn ended(mut self) -> Option<i32> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < until, "it does not stop: {:#?}", self.said);
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The names and contents of a small tree.
pub fn contents(root: &Path) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    let mut found = Vec::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_owned();
            if name.as_os_str().as_encoded_bytes().starts_with(b".driftless") {
                continue;
            }
            if path.is_dir() {
                directories.push(path);
                found.push((name, None));
            } else {
                found.push((name, fs::read(&path).ok()));
            }
        }
    }
    found.sort();
    found
}
