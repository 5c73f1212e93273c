//! `kill -9` at random moments, through the real binary: every path is its old or its new self, and the next run ends
//! in sync.

mod support;

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use support::{assert_equal, assert_no_leftovers};
use tempfile::TempDir;

const FILES: usize = 240;
/// Rounds by default, over all tests together.
const ROUNDS: usize = 50;
/// How long one run of the sender may take.
const RUN: Duration = Duration::from_secs(30);

/// splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}

/// A child that does not outlive the test.
struct Running(Child);

impl Running {
    /// SIGKILL; returns once the process is gone.
    fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

fn driftless(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_driftless"));
    command.env("DRIFTLESS_HOME", home).stdin(Stdio::null());
    command
}

/// The content of a version of a file: text that names both, followed by noise that only fits to them.
fn content(name: &str, version: usize) -> Vec<u8> {
    let head = format!("{name} version {version}\n").into_bytes();
    let mut hasher = blake3::Hasher::new();
    hasher.update(&head);
    let number = u64::from_le_bytes(hasher.finalize().as_bytes()[..8].try_into().unwrap());
    let size = match number % 30 {
        0 => 1_500_000,
        1..=4 => 90_000,
        _ => 100 + number as usize % 5_000,
    };
    // Most of a large file stays from version to version, so that deltas are sent.
    let (mut out, stable) = (head.clone(), size.min(400_000) / 2);
    let mut noise = vec![0; size];
    blake3::Hasher::new()
        .update(name.as_bytes())
        .finalize_xof()
        .fill(&mut noise[..stable]);
    hasher.finalize_xof().fill(&mut noise[stable..]);
    out.extend(noise);
    out
}

/// Two processes, and what the tree looked like before and after a round's changes: path to version.
struct Rig {
    directory: TempDir,
    random: Random,
    version: usize,
    now: BTreeMap<String, usize>,
    /// What each path may be on the receiver: every version since both were last equal; `None` is absent.
    possible: BTreeMap<String, BTreeSet<Option<usize>>>,
    sender: String,
    receiver: String,
    /// The port that the first receiver was given. A target is known by what the user wrote, so it has to stay.
    listen: OnceCell<String>,
}

impl Rig {
    fn new(seed: u64) -> Rig {
        let directory = tempfile::tempdir().unwrap();
        for name in ["src", "dst", "home-s", "home-r"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        let id = |home: &str| {
            let output = driftless(&directory.path().join(home))
                .arg("id")
                .output()
                .unwrap();
            assert!(output.status.success(), "{output:?}");
            let text = String::from_utf8(output.stdout).unwrap();
            text.split_whitespace().last().unwrap().to_owned()
        };
        let (sender, receiver) = (id("home-s"), id("home-r"));
        let mut rig = Rig {
            directory,
            random: Random(seed),
            version: 0,
            now: BTreeMap::new(),
            possible: BTreeMap::new(),
            sender,
            receiver,
            listen: OnceCell::new(),
        };
        for n in 0..FILES {
            rig.put(format!("d{}/e{}/f{n}", n % 6, n % 4));
        }
        rig
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn put(&mut self, name: String) {
        let path = self.path("src").join(&name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content(&name, self.version)).unwrap();
        self.now.insert(name, self.version);
    }

    /// Adds what the source has now to what the receiver may have.
    fn note_possible(&mut self) {
        let names: BTreeSet<_> = self.now.keys().chain(self.possible.keys()).cloned().collect();
        for name in names {
            let version = self.now.get(&name).copied();
            // A name that was unknown when both were last equal may still be absent.
            let absent = || BTreeSet::from([None]);
            self.possible.entry(name).or_insert_with(absent).insert(version);
        }
    }

    /// A third of the files becomes another version; a few come and go.
    fn change(&mut self) {
        self.version += 1;
        let names: Vec<_> = self.now.keys().cloned().collect();
        for name in names {
            match self.random.below(60) {
                0 => {
                    fs::remove_file(self.path("src").join(&name)).unwrap();
                    self.now.remove(&name);
                }
                1..=20 => self.put(name),
                _ => {}
            }
        }
        for n in 0..4 {
            let directory = self.random.below(6);
            self.put(format!("d{directory}/new{}/f{n}", self.version));
        }
        self.note_possible();
    }

    /// Starts a receiver and waits until it says where it listens.
    fn receive(&self) -> (Running, String) {
        let mut command = driftless(&self.path("home-r"));
        command
            .arg("receive")
            .arg(self.path("dst"))
            .args(["--json", "--allow", &self.sender]);
        command.args([
            "--listen",
            self.listen.get().map_or("127.0.0.1:0", String::as_str),
        ]);
        let log = fs::File::create(self.path("receiver.log")).unwrap();
        let mut child = Running(command.stdout(Stdio::piped()).stderr(log).spawn().unwrap());
        let mut line = String::new();
        BufReader::new(child.0.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let log = || fs::read_to_string(self.path("receiver.log")).unwrap();
        let ready: serde_json::Value =
            serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}, {}", log()));
        let address = ready["address"].as_str().unwrap().to_owned();
        (child, self.listen.get_or_init(|| address).clone())
    }

    fn seed(&self, address: &str) -> Running {
        let target = format!("driftless://{}@{address}/dst", self.receiver);
        let mut command = driftless(&self.path("home-s"));
        command.arg("seed").arg(self.path("src")).arg(target);
        let log = fs::File::create(self.path("sender.log")).unwrap();
        Running(command.stdout(Stdio::null()).stderr(log).spawn().unwrap())
    }

    /// One run that nobody disturbs.
    fn converge(&mut self) {
        let (_receiver, address) = self.receive();
        let mut seed = self.seed(&address);
        let deadline = Instant::now() + RUN;
        let status = loop {
            if let Some(status) = seed.0.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "the sender hangs: {}", self.logs());
            std::thread::park_timeout(Duration::from_millis(5));
        };
        assert!(status.success(), "{status}: {}", self.logs());
        assert_equal(&self.path("src"), &self.path("dst"));
        assert_no_leftovers(&self.path("dst"));
        let equal = |(name, version): (&String, &usize)| (name.clone(), BTreeSet::from([Some(*version)]));
        self.possible = self.now.iter().map(equal).collect();
    }

    fn logs(&self) -> String {
        let log = |name: &str| fs::read_to_string(self.path(name)).unwrap_or_default();
        format!(
            "sender said:\n{}\nreceiver said:\n{}",
            log("sender.log"),
            log("receiver.log")
        )
    }

    /// Changes, a seed, and the end of one side or both in the middle of it.
    fn crash(&mut self, whom: Whom) {
        self.change();
        let (mut receiver, address) = self.receive();
        let mut sender = self.seed(&address);
        let delay = Duration::from_micros(self.random.below(400_000) as u64);
        std::thread::sleep(delay);
        if whom != Whom::Sender {
            receiver.kill();
        }
        if whom != Whom::Receiver {
            sender.kill();
        }
        // A receiver that lives on may finish what it has.
        drop((sender, receiver));
        self.check_old_or_new();
    }

    /// Every path is complete, and absent only where it was or shall be.
    fn check_old_or_new(&self) {
        for (name, possible) in &self.possible {
            match fs::read(self.path("dst").join(name)) {
                Ok(bytes) => {
                    let fits = possible
                        .iter()
                        .flatten()
                        .any(|&version| bytes == content(name, version));
                    let size = bytes.len();
                    assert!(
                        fits,
                        "{name} is neither version of {possible:?}: {size} bytes\n{}",
                        self.logs()
                    );
                }
                Err(_) => assert!(possible.contains(&None), "{name} is missing\n{}", self.logs()),
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whom {
    Sender,
    Receiver,
    Both,
}

fn rounds(seed: u64, whom: Whom, share: usize) {
    let soak: usize = std::env::var("DRIFTLESS_SOAK")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1);
    let mut rig = Rig::new(seed);
    rig.converge();
    for round in 0..share * soak {
        let note = Note(format!("seed {seed}, round {round}, {whom:?}"));
        rig.crash(whom);
        // Sometimes it happens again before anything was repaired.
        if rig.random.below(3) > 0 {
            rig.converge();
        }
        drop(note);
    }
    rig.converge();
}

/// Says which round failed.
struct Note(String);

impl Drop for Note {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.0);
        }
    }
}

#[test]
fn a_killed_receiver_leaves_old_or_new_and_the_next_run_converges() {
    rounds(1, Whom::Receiver, ROUNDS / 2);
}

#[test]
fn a_killed_sender_leaves_old_or_new_and_the_next_run_converges() {
    rounds(2, Whom::Sender, ROUNDS * 3 / 10);
}

#[test]
fn both_killed_leave_old_or_new_and_the_next_run_converges() {
    rounds(3, Whom::Both, ROUNDS / 5);
}

/// The rig would notice: a torn file is neither version.
#[test]
#[should_panic(expected = "neither version")]
fn the_check_notices_a_torn_file() {
    let mut rig = Rig::new(4);
    rig.converge();
    let before = rig.now.clone();
    rig.change();
    let name = before
        .keys()
        .find(|name| rig.now.contains_key(*name))
        .unwrap()
        .clone();
    let bytes = content(&name, rig.version);
    fs::write(rig.path("dst").join(&name), &bytes[..bytes.len() / 2]).unwrap();
    rig.check_old_or_new();
}
