//! A receiver that is a process of its own, and can be killed; a sender in this one; and what each path may be.

use crate::support::supervised::{Call, Supervised, Verdict};
pub use crate::support::waiting::wait_until;
use crate::support::{Pair, assert_no_leftovers_but, differences, runtime, tree};
use driftless::daemon::{DaemonError, SenderOptions, Silent, Stop, Summary, sender};
use driftless_certs::Identity;
use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use tempfile::TempDir;

/// What stands at a path: its kind, and the digest of its content or its text.
pub type What = (char, Vec<u8>);

/// What each path is.
pub type Tree = BTreeMap<Vec<u8>, What>;

/// Reads a tree; metadata and our private names are left out.
pub fn look(root: &Path) -> Tree {
    let seen = tree(root).into_iter();
    seen.map(|(path, seen)| (path, (seen.kind, seen.content)))
        .collect()
}

/// A program that a test may kill; it does not outlive the test.
pub struct Receiver {
    process: Supervised,
}

impl Receiver {
    /// SIGKILL; returns once the process is gone.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Whether it ended by itself, or was killed by its supervisor.
    pub fn has_ended(&mut self) -> bool {
        self.process.child.try_wait().unwrap().is_some()
    }
}

/// A sender that runs once, on a thread of its own.
pub struct Sending {
    stop: Stop,
    thread: Option<JoinHandle<Result<Summary, DaemonError>>>,
}

impl Sending {
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_some_and(JoinHandle::is_finished)
    }

    /// Waits for its end.
    pub fn join(mut self) -> Result<Summary, DaemonError> {
        self.thread.take().unwrap().join().unwrap()
    }

    pub fn stop(self) -> Result<Summary, DaemonError> {
        self.stop.request();
        self.join()
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.stop.request();
    }
}

/// Both ends. The sender's half and, unless it is put elsewhere, the receiver's, are in one temporary directory.
pub struct Rig {
    pub pair: Pair,
    /// Where the receiver puts the mirror.
    pub module: PathBuf,
    /// The receiver's home.
    pub home: PathBuf,
    /// What the receiver is told besides.
    pub options: &'static [&'static str],
    /// What each path may be on the receiver, since it was last known for certain; `None` is absent.
    possible: BTreeMap<Vec<u8>, BTreeSet<Option<What>>>,
    listen: OnceCell<SocketAddr>,
    /// A tree beside the module, which nobody may touch.
    canary: Tree,
}

impl Rig {
    pub fn new() -> Rig {
        let directory = tempfile::tempdir().unwrap();
        let receiver = directory.path().to_owned();
        Rig::at(directory, &receiver, &receiver)
    }

    /// The module is made in `module`, the receiver's home in `home`.
    pub fn at(directory: TempDir, module: &Path, home: &Path) -> Rig {
        let mut pair = Pair::in_directory(directory);
        let (module, home) = (module.join("dst"), home.join("home-r"));
        for directory in [&module, &home] {
            fs::create_dir_all(directory).unwrap();
        }
        let output = driftless(&home).arg("id").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let identity = driftless::daemon::home::Home::at(&home).identity_dir();
        pair.receiver = Identity::load_or_create(&identity).unwrap();
        let outside = module.with_file_name("canary");
        fs::create_dir_all(outside.join("inner")).unwrap();
        for name in ["file", "inner/file"] {
            fs::write(outside.join(name), "nobody touches this").unwrap();
        }
        rustix::fs::syncfs(fs::File::open(&outside).unwrap()).unwrap();
        let canary = look(&outside);
        Rig {
            pair,
            module,
            home,
            options: &[],
            possible: BTreeMap::new(),
            listen: OnceCell::new(),
            canary,
        }
    }

    pub fn src(&self) -> PathBuf {
        self.pair.src()
    }

    /// Starts the receiver, always on the same port: a target is known by what the user wrote.
    pub fn receive(&self) -> Receiver {
        self.receive_under(|_| Verdict::Pass)
    }

    /// Starts the receiver, of whose calls `judge` decides.
    pub fn receive_under(&self, judge: impl FnMut(&Call) -> Verdict + Send + 'static) -> Receiver {
        self.try_receive_under(judge)
            .unwrap_or_else(|| panic!("the receiver does not start: {}", self.log()))
    }

    /// Like [`Rig::receive_under`]; none if it ends before it listens.
    pub fn try_receive_under(
        &self,
        judge: impl FnMut(&Call) -> Verdict + Send + 'static,
    ) -> Option<Receiver> {
        let mut command = driftless(&self.home);
        let listen = self
            .listen
            .get()
            .map_or("127.0.0.1:0".to_owned(), SocketAddr::to_string);
        command
            .arg("receive")
            .arg(&self.module)
            .args(["--json", "--listen", &listen, "--allow"])
            .arg(self.pair.sender.fingerprint().to_string())
            .args(self.options)
            .stdout(Stdio::piped())
            .stderr(fs::File::create(self.log_file()).unwrap());
        let mut process = Supervised::start(&mut command, judge).unwrap();
        let mut line = String::new();
        BufReader::new(process.child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let ready: serde_json::Value = serde_json::from_str(&line).ok()?;
        let address = ready["address"].as_str().unwrap().parse().unwrap();
        self.listen.get_or_init(|| address);
        Some(Receiver { process })
    }

    fn log_file(&self) -> PathBuf {
        self.pair.path("receiver.log")
    }

    /// What the receiver said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    pub fn sender_options(&self, follow: bool) -> SenderOptions {
        self.pair.sender_options(*self.listen.get().unwrap(), follow)
    }

    /// The module, as a command line names it.
    pub fn target(&self) -> String {
        let (peer, address) = (self.pair.receiver.fingerprint(), self.listen.get().unwrap());
        format!("driftless://{peer}@{address}/dst")
    }

    /// Starts a sender that ends when in sync.
    pub fn send(&self) -> Sending {
        let (options, stop) = (self.sender_options(false), Stop::default());
        let thread = std::thread::spawn({
            let stop = stop.clone();
            move || sender::run(&options, &runtime(), Arc::new(Silent), &stop)
        });
        Sending {
            stop,
            thread: Some(thread),
        }
    }

    /// One run that nobody disturbs, with a receiver that is there. Afterwards everything is known for certain.
    pub fn converge(&mut self) {
        let summary = self.send().join();
        let summary = summary.unwrap_or_else(|error| panic!("{error}\n{}", self.log()));
        assert!(
            summary.in_sync && summary.failed.is_empty(),
            "{summary:?}\n{}",
            self.log()
        );
        self.check_converged();
    }

    /// Both sides are equal, and nothing else is left.
    pub fn check_converged(&mut self) {
        self.check_equal();
        let shelves: &[&str] = match self.options.contains(&"--trash") {
            true => &[".driftless-trash", ".driftless-kept"],
            false => &[],
        };
        let _note = Note(self.log());
        assert_no_leftovers_but(&self.module, shelves);
    }

    /// Both sides are equal, though private names may be left.
    pub fn check_equal(&mut self) {
        let found = differences(&self.src(), &self.module);
        assert!(found.is_empty(), "{found:#?}\n{}", self.log());
        self.check_canary();
        self.know(&look(&self.src()));
    }

    /// Every path is known to be what it is in this tree: it was said to be durable.
    pub fn know(&mut self, durable: &Tree) {
        let certain = |(path, what): (&Vec<u8>, &What)| (path.clone(), BTreeSet::from([Some(what.clone())]));
        self.possible = durable.iter().map(certain).collect();
    }

    /// Every path may also be what it is in the source now.
    pub fn expect_source(&mut self) {
        let now = look(&self.src());
        let paths: BTreeSet<_> = now.keys().chain(self.possible.keys()).cloned().collect();
        for path in paths {
            let what = now.get(&path).cloned();
            // A path that was unknown before may still be absent.
            let absent = || BTreeSet::from([None]);
            self.possible.entry(path).or_insert_with(absent).insert(what);
        }
    }

    /// These may also be absent.
    pub fn may_be_absent(&mut self, paths: &[&str]) {
        for path in paths {
            self.possible
                .entry(path.as_bytes().to_vec())
                .or_default()
                .insert(None);
        }
    }

    /// Every path is what it may be, whole.
    pub fn check_old_or_new(&self) {
        self.check_canary();
        if let Some(fault) = self.first_fault() {
            panic!("{fault}\n{}", self.log());
        }
    }

    /// The first path that is not what it may be.
    pub fn first_fault(&self) -> Option<String> {
        let found = look(&self.module);
        let strange = found.keys().filter(|path| !self.possible.contains_key(*path));
        let strange = strange
            .map(|path| format!("{} is nobody's", path.escape_ascii()))
            .next();
        strange.or_else(|| {
            self.possible.iter().find_map(|(path, possible)| {
                let what = found.get(path);
                (!possible.contains(&what.cloned())).then(|| {
                    let shown = what.map(|(kind, content)| (kind, content.escape_ascii().to_string()));
                    format!("{} is {shown:?}, none of {possible:?}", path.escape_ascii())
                })
            })
        })
    }

    fn check_canary(&self) {
        assert_eq!(
            look(&self.module.with_file_name("canary")),
            self.canary,
            "the canary"
        );
    }
}

pub fn driftless(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_driftless"));
    command.env("DRIFTLESS_HOME", home).stdin(Stdio::null());
    command
}

/// Says what led to a failure.
pub struct Note(pub String);

impl Drop for Note {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.0);
        }
    }
}
