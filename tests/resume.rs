//! A large file whose transfer is cut off goes on where it stopped: the bytes on the link tell.

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use support::relay::Relay;
use support::{Following, Pair, assert_equal, assert_no_leftovers, until};

/// Slow enough that a transfer of [`SIZE`] can be cut in the middle.
const BYTES_PER_SECOND: u64 = 16 << 20;
const SIZE: usize = 40 << 20;
const MIB: u64 = 1 << 20;
/// What everything but the missing content may cost: handshakes, retransmissions, ranges that were on their way.
const SLACK: u64 = 6 * MIB;

fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut out = vec![0; bytes];
    blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut out);
    out
}

/// The records of kept files below a receiver's home.
fn records(home: &Path) -> Vec<PathBuf> {
    let (mut found, mut directories) = (Vec::new(), vec![home.to_owned()]);
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if directory.ends_with("partials") {
                found.push(path);
            }
        }
    }
    found
}

/// The files that were left in part below a module.
fn left_in(directory: &Path) -> Vec<PathBuf> {
    let names = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    names
        .filter(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.starts_with(".driftless-") && name != ".driftless-generation"
        })
        .collect()
}

/// Waits until so many spans are noted, of 44 bytes each.
fn wait_for_spans(home: &Path, spans: u64) {
    until("a part of the file has arrived", || {
        let lengths = records(home)
            .into_iter()
            .map(|path| fs::metadata(path).unwrap().len());
        lengths.max().unwrap_or(0) > 44 * spans
    });
}

/// Sends `file` until a half of it has arrived, and stops the sender.
fn send_half(pair: &Pair, relay: &Relay) {
    let following = Following::start(pair.sender_options(relay.address(), true));
    wait_for_spans(&pair.path("home-r"), (SIZE as u64 / MIB) / 2);
    following.stop().unwrap();
}

/// Sends the rest, and tells how many bytes passed.
fn send_rest(pair: &Pair, relay: &Relay) -> u64 {
    let before = relay.passed();
    let summary = pair.seed_to(relay.address()).unwrap();
    assert!(summary.in_sync && summary.failed.is_empty(), "{summary:?}");
    pair.assert_equal();
    assert_no_leftovers(&pair.dst());
    assert_eq!(records(&pair.path("home-r")), Vec::<PathBuf>::new());
    relay.passed() - before
}

#[test]
fn a_transfer_goes_on_after_the_sender_stopped() {
    let pair = Pair::new();
    fs::write(pair.src().join("file"), noise(SIZE, 1)).unwrap();
    let receiver = pair.receive();
    let relay = Relay::start(receiver.address(), BYTES_PER_SECOND);
    send_half(&pair, &relay);
    until("the receiver has closed the record", || {
        left_in(&pair.dst()).len() == 1 && !pair.dst().join("file").exists()
    });
    let passed = send_rest(&pair, &relay);
    assert!(passed < SIZE as u64 / 2 + SLACK, "{passed} bytes passed");
    receiver.stop();
}

#[test]
fn a_transfer_goes_on_after_the_receiver_restarted_and_sends_only_what_changed_meanwhile() {
    let pair = Pair::new();
    let mut content = noise(SIZE, 2);
    fs::write(pair.src().join("file"), &content).unwrap();
    let receiver = pair.receive();
    let relay = Relay::start(receiver.address(), BYTES_PER_SECOND);
    send_half(&pair, &relay);
    receiver.stop();
    // Another version: two bytes within what has arrived, and another end.
    content[3_000_000] ^= 1;
    content[9_000_000] ^= 1;
    content.truncate(SIZE - 777);
    fs::write(pair.src().join("file"), &content).unwrap();
    let receiver = pair.receive();
    relay.retarget(receiver.address());
    let passed = send_rest(&pair, &relay);
    assert!(passed < SIZE as u64 / 2 + SLACK, "{passed} bytes passed");
    assert!(passed > SIZE as u64 / 4, "more than a half had arrived: {passed}");
    receiver.stop();
}

/// Where there was data when the transfer was cut off, there may be a hole now.
#[test]
fn holes_are_kept_in_a_file_that_is_gone_on_with() {
    let pair = Pair::new();
    let mut content = noise(SIZE, 7);
    for span in content.chunks_mut(MIB as usize) {
        span[256 << 10..512 << 10].fill(0);
    }
    fs::write(pair.src().join("file"), &content).unwrap();
    let receiver = pair.receive();
    let relay = Relay::start(receiver.address(), BYTES_PER_SECOND);
    send_half(&pair, &relay);
    for span in content.chunks_mut(MIB as usize).take(8) {
        span[512 << 10..1_000 << 10].fill(0);
    }
    fs::write(pair.src().join("file"), &content).unwrap();
    let passed = send_rest(&pair, &relay);
    assert!(
        passed < SIZE as u64 / 2 + 8 * MIB + SLACK,
        "{passed} bytes passed"
    );
    let allocated = fs::metadata(pair.dst().join("file")).unwrap().blocks() * 512;
    let data = SIZE as u64 * 3 / 4 - 8 * (488 << 10);
    assert!(allocated < data + MIB, "{allocated} bytes are taken by {data}");
    receiver.stop();
}

/// What is kept is only as good as its bytes: a changed, shortened, replaced or removed one, and a damaged record.
#[test]
fn what_was_tampered_with_is_not_believed() {
    let pair = Pair::new();
    let receiver = pair.receive();
    let relay = Relay::start(receiver.address(), 2 * BYTES_PER_SECOND);
    let mut receiver = Some(receiver);
    type Tamper<'a> = (&'a str, &'a dyn Fn(&Path));
    let tamper: [Tamper<'_>; 5] = [
        ("changed", &|left| {
            use std::os::unix::fs::FileExt;
            let file = fs::OpenOptions::new().write(true).open(left).unwrap();
            file.write_all_at(b"not what was sent", 1_500_000).unwrap();
        }),
        ("shortened", &|left| {
            let file = fs::OpenOptions::new().write(true).open(left).unwrap();
            file.set_len(2 * MIB + 5).unwrap();
        }),
        ("replaced", &|left| {
            fs::remove_file(left).unwrap();
            fs::write(left, noise(SIZE, 77)).unwrap();
        }),
        ("gone", &|left| fs::remove_file(left).unwrap()),
        ("record", &|_| {
            let record = records(&pair.path("home-r")).remove(0);
            let mut bytes = fs::read(&record).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(&record, bytes).unwrap();
        }),
    ];
    for (round, (what, tamper)) in tamper.into_iter().enumerate() {
        fs::write(pair.src().join("file"), noise(SIZE, 10 + round as u64)).unwrap();
        let _ = fs::remove_file(pair.dst().join("file"));
        send_half(&pair, &relay);
        receiver.take().unwrap().stop();
        let left = left_in(&pair.dst());
        assert_eq!(left.len(), 1, "{what}: {left:?}");
        tamper(&left[0]);
        let again = pair.receive();
        relay.retarget(again.address());
        receiver = Some(again);
        send_rest(&pair, &relay);
    }
    receiver.unwrap().stop();
}

#[test]
fn a_kept_file_does_not_keep_its_directory_and_moves_along_with_it() {
    let pair = Pair::new();
    fs::write(pair.src().join("other"), b"is never removed").unwrap();
    fs::create_dir(pair.src().join("one")).unwrap();
    let content = noise(SIZE, 3);
    fs::write(pair.src().join("one/file"), &content).unwrap();
    let receiver = pair.receive();
    let relay = Relay::start(receiver.address(), BYTES_PER_SECOND);
    send_half(&pair, &relay);
    fs::rename(pair.src().join("one"), pair.src().join("two")).unwrap();
    let passed = send_rest(&pair, &relay);
    assert!(passed < SIZE as u64 / 2 + SLACK, "{passed} bytes passed");
    fs::write(pair.src().join("two/file"), noise(SIZE, 4)).unwrap();
    send_half(&pair, &relay);
    until("it was left", || left_in(&pair.dst().join("two")).len() == 1);
    fs::remove_dir_all(pair.src().join("two")).unwrap();
    send_rest(&pair, &relay);
    assert!(!pair.dst().join("two").exists());
    receiver.stop();
}

/// A child that does not outlive the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Processes {
    directory: tempfile::TempDir,
    sender: String,
    receiver: String,
}

impl Processes {
    fn new() -> Processes {
        let directory = tempfile::tempdir().unwrap();
        for name in ["src", "dst", "home-s", "home-r"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        let id = |home: &str| {
            let output = Self::driftless(directory.path(), home)
                .arg("id")
                .output()
                .unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            text.split_whitespace().last().unwrap().to_owned()
        };
        let (sender, receiver) = (id("home-s"), id("home-r"));
        Processes {
            directory,
            sender,
            receiver,
        }
    }

    fn driftless(directory: &Path, home: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_driftless"));
        command
            .env("DRIFTLESS_HOME", directory.join(home))
            .stdin(Stdio::null());
        command
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn receive(&self) -> (Running, SocketAddr) {
        let mut command = Self::driftless(self.directory.path(), "home-r");
        command.arg("receive").arg(self.path("dst"));
        command.args(["--json", "--allow", &self.sender, "--listen", "127.0.0.1:0"]);
        let mut child = Running(command.stdout(Stdio::piped()).spawn().unwrap());
        let mut line = String::new();
        BufReader::new(child.0.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let ready: serde_json::Value = serde_json::from_str(&line).unwrap();
        (child, ready["address"].as_str().unwrap().parse().unwrap())
    }

    fn seed(&self, address: SocketAddr) -> Running {
        let mut command = Self::driftless(self.directory.path(), "home-s");
        command.arg("seed").arg(self.path("src"));
        command.arg(format!("driftless://{}@{address}/dst", self.receiver));
        Running(command.stdout(Stdio::null()).spawn().unwrap())
    }
}

/// SIGKILL of both: the record was never closed, and every span in it is checked.
#[test]
fn a_transfer_goes_on_after_both_ends_were_killed() {
    let processes = Processes::new();
    fs::write(processes.path("src").join("file"), noise(SIZE, 5)).unwrap();
    let (receiver, address) = processes.receive();
    let relay = Relay::start(address, BYTES_PER_SECOND);
    let sender = processes.seed(relay.address());
    wait_for_spans(&processes.path("home-r"), (SIZE as u64 / MIB) / 2);
    drop((receiver, sender));
    let (_receiver, address) = processes.receive();
    assert_eq!(
        left_in(&processes.path("dst")).len(),
        1,
        "the start swept it away"
    );
    relay.retarget(address);
    let before = relay.passed();
    let mut sender = processes.seed(relay.address());
    assert!(sender.0.wait().unwrap().success());
    let passed = relay.passed() - before;
    assert_equal(&processes.path("src"), &processes.path("dst"));
    assert_no_leftovers(&processes.path("dst"));
    assert!(passed < SIZE as u64 / 2 + SLACK, "{passed} bytes passed");
}
