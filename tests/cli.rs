//! The real binary: exit statuses, what it says when something is wrong, and the ways of the handbook from end to end.

mod support;

use driftless_certs::{Grant, Invites, PairingCode, Rights, Secret};
use std::ffi::OsStr;
use std::fs::{self, File, FileTimes};
use std::io::{BufRead, BufReader, Read};
use std::net::UdpSocket;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use support::waiting::wait_until_some;
use support::{PATIENCE, assert_equal, assert_no_leftovers};
use tempfile::TempDir;

const NOBODY: u32 = 65_534;

/// How a run ended, and what it said.
#[derive(Debug)]
struct Ended {
    status: Option<i32>,
    out: String,
    err: String,
}

impl Ended {
    /// The status, and one complaint that has all the words.
    #[track_caller]
    fn complains(&self, status: i32, words: &[&str]) {
        assert_eq!(self.status, Some(status), "{self:#?}");
        let complaints: Vec<_> = self
            .err
            .lines()
            .filter(|line| line.starts_with("driftless: "))
            .collect();
        assert_eq!(complaints.len(), 1, "{self:#?}");
        for word in words {
            assert!(complaints[0].contains(word), "no {word:?} in {self:#?}");
        }
        assert!(!self.err.contains("panicked"), "{self:#?}");
    }

    #[track_caller]
    fn succeeds(self) -> Ended {
        assert_eq!(self.status, Some(0), "{self:#?}");
        self
    }
}

/// A directory with a home; several share the machine.
struct Machine {
    directory: TempDir,
}

impl Machine {
    fn new() -> Machine {
        let machine = Machine {
            directory: tempfile::tempdir().unwrap(),
        };
        for name in ["src", "dst", "home"] {
            fs::create_dir(machine.path(name)).unwrap();
        }
        fs::set_permissions(machine.path("home"), fs::Permissions::from_mode(0o700)).unwrap();
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self, arguments: &[&OsStr]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_driftless"));
        self.prepare(&mut command);
        command.args(arguments);
        command
    }

    fn prepare(&self, command: &mut Command) {
        command
            .env("DRIFTLESS_HOME", self.path("home"))
            .env_remove("RUST_LOG")
            .current_dir(self.directory.path());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
    }

    fn run(&self, line: &str) -> Ended {
        let words: Vec<&OsStr> = line.split(' ').map(OsStr::new).collect();
        end(self.command(&words))
    }

    fn fingerprint(&self) -> String {
        let told = self.run("id").succeeds().out;
        told.split_whitespace().last().unwrap().to_owned()
    }

    fn receive(&self, more: &str) -> Receiver {
        let line = format!("receive dst --module m --listen 127.0.0.1:0 --json {more}");
        let words: Vec<&OsStr> = line.split_whitespace().map(OsStr::new).collect();
        let mut child = self.command(&words).stderr(Stdio::null()).spawn().unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut ready)
            .unwrap();
        let ready: serde_json::Value = serde_json::from_str(&ready).unwrap();
        let text = |key: &str| ready[key].as_str().unwrap().to_owned();
        Receiver {
            url: format!("driftless://{}@{}/m", text("identity"), text("address")),
            child: Stopped(child),
        }
    }

    /// A little of everything.
    fn fill(&self) {
        let src = self.path("src");
        fs::create_dir_all(src.join("a/b")).unwrap();
        for n in 0..40 {
            fs::write(src.join(format!("a/f{n}")), format!("file {n}\n").repeat(n * 50)).unwrap();
        }
        fs::write(src.join("a/b/large"), vec![7; 700_000]).unwrap();
        symlink("../a", src.join("a/link")).unwrap();
        fs::set_permissions(src.join("a/f1"), fs::Permissions::from_mode(0o600)).unwrap();
    }
}

/// A child that is asked to stop, and killed if it does not.
struct Stopped(Child);

impl Stopped {
    fn stop(&mut self) -> Option<i32> {
        if let Ok(Some(status)) = self.0.try_wait() {
            return status.code();
        }
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        wait(&mut self.0)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

struct Receiver {
    url: String,
    child: Stopped,
}

fn wait(child: &mut Child) -> Option<i32> {
    struct Guard<'a>(&'a mut Child);
    impl Drop for Guard<'_> {
        fn drop(&mut self) {
            // One that has ended is not there any more to be killed.
            let _ = self.0.kill();
        }
    }
    let guard = Guard(child);
    wait_until_some("the program ends", || guard.0.try_wait().unwrap()).code()
}

fn end(mut command: Command) -> Ended {
    let mut child = command.spawn().unwrap();
    let drain = |pipe: Option<Box<dyn Read + Send>>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            pipe.map(|mut pipe| pipe.read_to_end(&mut bytes));
            String::from_utf8_lossy(&bytes).into_owned()
        })
    };
    let out = drain(child.stdout.take().map(|pipe| Box::new(pipe) as _));
    let err = drain(child.stderr.take().map(|pipe| Box::new(pipe) as _));
    let status = wait(&mut child);
    Ended {
        status,
        out: out.join().unwrap(),
        err: err.join().unwrap(),
    }
}

/// A test that cannot run here says so, and fails where everything has to run.
fn skip(reason: &str) {
    assert!(
        std::env::var_os("DRIFTLESS_TEST_NO_SKIP").is_none_or(|value| value != "1"),
        "skipped: {reason}"
    );
    eprintln!("skipped: {reason}");
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn has(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok()
}

/// What another program thinks of the two trees; none without rsync.
fn rsync_differences(src: &Path, dst: &Path) -> Option<String> {
    if !has("rsync") {
        skip("there is no rsync");
        return None;
    }
    let slash = |path: &Path| format!("{}/", path.display());
    let output = Command::new("rsync")
        .args([
            "-anic",
            "--delete",
            "--omit-dir-times",
            "--exclude=.driftless*",
            &slash(src),
            &slash(dst),
        ])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn assert_rsync_agrees(src: &Path, dst: &Path) {
    if let Some(found) = rsync_differences(src, dst) {
        assert_eq!(found, "");
    }
}

#[test]
fn wrong_calls_are_told_in_one_line() {
    let machine = Machine::new();
    fs::write(machine.path("file"), "f").unwrap();
    let url = format!("driftless://{}@127.0.0.1:9/m", machine.fingerprint());
    for command in ["seed", "send", "verify", "mirror"] {
        machine
            .run(&format!("{command} nothing {url}"))
            .complains(1, &["nothing", "No such file"]);
        machine
            .run(&format!("{command} file/ {url}"))
            .complains(1, &["file", "Not a directory"]);
        machine
            .run(&format!("{command} src nas:/path"))
            .complains(2, &["nas:/path", "nas::"]);
        machine
            .run(&format!("{command} src nas::m"))
            .complains(2, &["nas", "invite"]);
    }
    machine.run("receive nothing").complains(1, &["nothing"]);
    machine.run("receive file").complains(1, &["file"]);
    for dst in ["src/in", "src", "."] {
        machine
            .run(&format!("mirror src {dst} --once"))
            .complains(2, &["src"]);
    }
    assert!(!machine.path("src/in").exists());
    for line in ["frobnicate", "seed", "mirror src dst --delete sometimes"] {
        assert_eq!(machine.run(line).status, Some(2), "{line}");
    }
}

#[test]
fn homes_and_keys_that_are_not_private() {
    let machine = Machine::new();
    machine.run("id").succeeds();
    let key = machine.path("home/identity/identity.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    for line in ["id", "mirror src dst --once", "receive dst --listen 127.0.0.1:0"] {
        machine.run(line).complains(2, &["identity.key", "chmod 0600"]);
    }
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    machine.run("id").succeeds();
    if !is_root() {
        return skip("only root can make another user's home");
    }
    chown(machine.path("home"), Some(NOBODY), Some(NOBODY)).unwrap();
    for line in ["id", "mirror src dst --once", "status", "peers list"] {
        machine.run(line).complains(2, &["home", "65534"]);
    }
}

#[test]
fn places_that_are_taken() {
    let machine = Machine::new();
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    machine
        .run(&format!("receive dst --listen {address}"))
        .complains(1, &["listen", &address]);

    fs::create_dir(machine.path("dst/in")).unwrap();
    let _receiver = machine.receive("");
    let other = Machine::new();
    for (dir, words) in [
        ("dst", "is in use by another driftless"),
        ("dst/in", "lies inside"),
        (".", "a directory inside"),
    ] {
        let dir = machine.path(dir);
        let dir = dir.display();
        other
            .run(&format!("receive {dir} --module m --listen 127.0.0.1:0"))
            .complains(1, &[words]);
        // The parent holds the other's home as well, which is its own reason.
        other
            .run(&format!("mirror src {dir} --once"))
            .complains(1, &[words]);
    }
}

#[test]
fn receivers_that_do_not_answer_or_refuse() {
    let (sender, machine) = (Machine::new(), Machine::new());
    fs::write(sender.path("src/f"), "f").unwrap();
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (port, fingerprint) = (silent.local_addr().unwrap().port(), machine.fingerprint());
    let began = Instant::now();
    let url = format!("driftless://{fingerprint}@127.0.0.1:{port}/m");
    let ended = sender.run(&format!("seed src {url}"));
    ended.complains(1, &["no answer", "UDP", &port.to_string(), "firewall"]);
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());

    let receiver = machine.receive("");
    for command in ["seed", "verify"] {
        let ended = sender.run(&format!("{command} src {}", receiver.url));
        // With all that the user of the receiver has to type.
        let command = format!("driftless peers add {} --module m", sender.fingerprint());
        ended.complains(1, &["does not allow", &command, "driftless invite"]);
    }
    let wrong = receiver.url.replace(&fingerprint, &sender.fingerprint());
    sender
        .run(&format!("seed src {wrong}"))
        .complains(1, &["another receiver", &fingerprint]);
    drop(receiver);

    let receiver = machine.receive(&format!("--allow {}", sender.fingerprint()));
    let unknown = format!("{}unknown", receiver.url.strip_suffix('m').unwrap());
    sender
        .run(&format!("seed src {unknown}"))
        .complains(1, &["unknown", "no module"]);
    sender.run(&format!("seed src {}", receiver.url)).succeeds();
    assert_equal(&sender.path("src"), &machine.path("dst"));
}

#[test]
fn pairing_codes_work_once_and_in_time() {
    let (sender, machine) = (Machine::new(), Machine::new());
    let receiver = machine.receive("");
    let invite = |more: &str| {
        let line = machine.run(&format!("invite --module m{more}")).succeeds().out;
        line.trim().strip_prefix("driftless pair ").unwrap().to_owned()
    };
    sender.run("pair nonsense").complains(2, &["code"]);
    let code = invite("");
    let mut cut = code.clone();
    cut.truncate(code.len() - 4);
    sender.run(&format!("pair {cut}")).complains(2, &["code"]);
    let good: PairingCode = code.parse().unwrap();
    let forged = PairingCode::new(
        good.addresses().to_vec(),
        good.fingerprint(),
        "m".to_owned(),
        Secret::from_bytes([9; 16]),
        u64::from(u32::MAX),
    );
    sender
        .run(&format!("pair {}", forged.unwrap()))
        .complains(1, &["wrong or was used", "driftless invite"]);
    sender.run(&format!("pair {code}")).succeeds();
    sender.run(&format!("pair {code}")).complains(1, &["used before"]);
    // As `driftless invite --expires 1s` made it an hour ago.
    let grant = Grant {
        module: "m".to_owned(),
        rights: Rights::default(),
    };
    let hour_ago = SystemTime::now() - Duration::from_secs(3_600);
    let invites = Invites::open(&machine.path("home/invites"));
    let (secret, _) = invites.create(&grant, Duration::from_secs(1), hour_ago).unwrap();
    let ends = hour_ago.duration_since(UNIX_EPOCH).unwrap().as_secs() + 1;
    // A sender whose clock says otherwise is told by the receiver.
    for (ends, who) in [(ends, "the sender"), (u64::from(u32::MAX), "the receiver")] {
        let secret = Secret::from_bytes(*secret.as_bytes());
        let addresses = good.addresses().to_vec();
        let code = PairingCode::new(addresses, good.fingerprint(), "m".to_owned(), secret, ends);
        let ended = sender.run(&format!("pair {}", code.unwrap()));
        assert!(ended.err.contains("expired"), "{who}: {ended:#?}");
        ended.complains(1, &["expired"]);
    }
    drop(receiver);
}

#[test]
fn receive_invite_pair_seed_verify() {
    let (sender, machine) = (Machine::new(), Machine::new());
    sender.fill();
    let mut receiver = machine.receive("");
    let code = machine.run("invite").succeeds().out;
    let paired = sender
        .run(code.trim().strip_prefix("driftless ").unwrap())
        .succeeds();
    let command = paired.out.lines().last().unwrap().to_owned();
    let target = command.strip_prefix("driftless seed SRC ").unwrap();
    sender.run(&format!("seed src {target}")).succeeds();
    assert_equal(&sender.path("src"), &machine.path("dst"));
    assert_rsync_agrees(&sender.path("src"), &machine.path("dst"));
    sender.run(&format!("verify src {target}")).succeeds();

    // What no scan can see: one byte, with size and time as before.
    let damaged = machine.path("dst/a/b/large");
    let meta = fs::metadata(&damaged).unwrap();
    let file = File::options().write(true).open(&damaged).unwrap();
    file.write_all_at(b"!", 350_000).unwrap();
    file.set_times(FileTimes::new().set_modified(meta.modified().unwrap()))
        .unwrap();
    drop(file);
    assert_eq!(fs::metadata(&damaged).unwrap().mtime_nsec(), meta.mtime_nsec());
    let before = fs::read(&damaged).unwrap();
    let ended = sender.run(&format!("verify src {target}"));
    assert_eq!(ended.status, Some(4), "{ended:#?}");
    let named: Vec<_> = ended
        .out
        .lines()
        .filter(|line| line.starts_with("differs"))
        .collect();
    assert_eq!(named.len(), 1, "{ended:#?}");
    assert!(named[0].contains("a/b/large"));
    let json = sender.run(&format!("verify src {target} --json"));
    let json: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(
        (&json["equal"], &json["differences"][0]["path"]),
        (&false.into(), &"a/b/large".into())
    );
    assert_eq!(fs::read(&damaged).unwrap(), before, "verify changed the target");
    assert_eq!(receiver.child.stop(), Some(0));
    assert_no_leftovers(&machine.path("dst"));
}

#[test]
fn mirror_once_and_again() {
    let machine = Machine::new();
    machine.fill();
    let (src, dst) = (machine.path("src"), machine.path("new"));
    machine.run("mirror src new --once").succeeds();
    assert_equal(&src, &dst);
    assert_rsync_agrees(&src, &dst);
    machine.run("mirror src new --once").succeeds();
    fs::remove_file(src.join("a/f3")).unwrap();
    fs::rename(src.join("a/f4"), src.join("a/b/f4")).unwrap();
    fs::write(src.join("a/f5"), "new content").unwrap();
    machine.run("mirror src new --once").succeeds();
    assert_equal(&src, &dst);
    assert_rsync_agrees(&src, &dst);
    assert_no_leftovers(&dst);
    machine.run("verify src new").succeeds();
}

#[test]
fn status_tells_of_a_running_sender() {
    let (sender, machine) = (Machine::new(), Machine::new());
    sender.fill();
    let nothing = sender.run("status --json").out;
    let nothing: serde_json::Value = serde_json::from_str(&nothing).unwrap();
    assert_eq!(nothing["daemons"].as_array().unwrap().len(), 0);
    let receiver = machine.receive(&format!("--allow {}", sender.fingerprint()));
    let words = ["send", "src", &receiver.url].map(OsStr::new);
    let mut child = sender.command(&words);
    let mut child = Stopped(child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let deadline = Instant::now() + PATIENCE;
    loop {
        let told = sender.run("status --json").out;
        let told: serde_json::Value = serde_json::from_str(&told).unwrap();
        let found = told["daemons"].as_array().unwrap();
        if found.iter().any(|daemon| daemon["in_sync_at"].is_object()) {
            assert_eq!(found.len(), 1, "{told:#}");
            assert_eq!(found[0]["pid"], child.0.id(), "{told:#}");
            assert_eq!(found[0]["behind"]["ops"], 0, "{told:#}");
            break;
        }
        assert!(Instant::now() < deadline, "never in sync: {told:#}");
    }
    assert_equal(&sender.path("src"), &machine.path("dst"));
    let told = machine.run("status --json").succeeds().out;
    assert!(told.contains(&sender.fingerprint()), "{told}");
    assert_eq!(child.stop(), Some(0));
}

#[test]
fn an_unreadable_entry_is_an_error_of_its_own() {
    let machine = Machine::new();
    machine.fill();
    let closed = machine.path("src/a/f7");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    let mut command = if is_root() {
        if !has("setpriv") {
            return skip("there is no setpriv to become another user");
        }
        let program = machine.path("driftless");
        fs::copy(env!("CARGO_BIN_EXE_driftless"), &program).unwrap();
        let all = Command::new("chown")
            .args(["-R", "65534:65534"])
            .arg(machine.directory.path())
            .status();
        assert!(all.unwrap().success());
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(program);
        command
    } else {
        Command::new(env!("CARGO_BIN_EXE_driftless"))
    };
    machine.prepare(&mut command);
    command.args(["mirror", "src", "dst", "--once"]);
    let ended = end(command);
    assert_eq!(ended.status, Some(3), "{ended:#?}");
    assert!(
        ended.err.contains("a/f7") && ended.err.contains("permission denied"),
        "{ended:#?}"
    );
    let directory = File::open(machine.path("src/a")).unwrap();
    let before = directory.metadata().unwrap().modified().unwrap();
    fs::remove_file(closed).unwrap();
    directory
        .set_times(FileTimes::new().set_modified(before))
        .unwrap();
    assert_equal(&machine.path("src"), &machine.path("dst"));
}

/// A file system of its own, gone when dropped.
struct Mount(PathBuf);

impl Mount {
    fn new(path: PathBuf, size: &str) -> Option<Mount> {
        let options = format!("size={size}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(&path)
            .status();
        mounted
            .is_ok_and(|status| status.success())
            .then_some(Mount(path))
    }

    fn resize(&self, size: &str) {
        let options = format!("remount,size={size}");
        assert!(
            Command::new("mount")
                .args(["-o", &options])
                .arg(&self.0)
                .status()
                .unwrap()
                .success()
        );
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_publishes_nothing_half() {
    let machine = Machine::new();
    let Some(mount) = Mount::new(machine.path("dst"), "1m") else {
        return skip("cannot mount a tmpfs");
    };
    let (src, dst) = (machine.path("src"), machine.path("dst"));
    fs::write(src.join("small"), "small").unwrap();
    fs::write(src.join("medium"), vec![1; 200_000]).unwrap();
    for n in 0..5 {
        fs::write(src.join(format!("large{n}")), vec![n; 900_000]).unwrap();
    }
    let ended = machine.run("mirror src dst --once");
    assert!(matches!(ended.status, Some(1 | 3)), "{ended:#?}");
    let said = ended.err.to_lowercase();
    assert!(
        said.contains("no space") || said.contains("is full"),
        "{ended:#?}"
    );
    assert!(!ended.err.contains("panicked"), "{ended:#?}");
    for entry in fs::read_dir(&dst).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        if !name.starts_with(".driftless") {
            assert!(
                fs::read(entry.path()).unwrap() == fs::read(src.join(&name)).unwrap(),
                "{name} is not whole"
            );
        }
    }
    mount.resize("20m");
    machine.run("mirror src dst --once").succeeds();
    assert_equal(&src, &dst);
    assert_rsync_agrees(&src, &dst);
    assert_no_leftovers(&dst);
}

/// D-12: with fewer watches than directories the rest is looked at instead, and that is said.
#[test]
fn a_limit_of_watches_is_told_and_nothing_is_left_out() {
    let machine = Machine::new();
    for number in 0..40 {
        fs::create_dir(machine.path(&format!("src/{number}"))).unwrap();
        fs::write(machine.path(&format!("src/{number}/file")), "text").unwrap();
    }
    // The limit of a user namespace is its own.
    let script = "echo 10 > /proc/sys/user/max_inotify_watches && exec \"$0\" mirror --once src dst";
    let mut command = Command::new("unshare");
    machine.prepare(&mut command);
    command.args(["-Ur", "sh", "-c", script, env!("CARGO_BIN_EXE_driftless")]);
    let possible = Command::new("unshare").args(["-Ur", "true"]).output();
    if !possible.is_ok_and(|output| output.status.success()) {
        return skip("no user namespaces");
    }
    let ended = end(command);
    assert_eq!(ended.status, Some(0), "{ended:?}");
    for words in [
        "directories are only looked at every",
        "max_inotify_watches, which is 10",
    ] {
        assert!(ended.err.contains(words), "{ended:?}");
    }
    for number in 0..40 {
        assert!(machine.path(&format!("dst/{number}/file")).exists());
    }
}

#[test]
fn the_watcher_can_be_chosen() {
    let machine = Machine::new();
    machine.fill();
    for how in ["auto", "inotify", "poll"] {
        machine
            .run(&format!("mirror --once --watch {how} src dst"))
            .succeeds();
    }
    let ended = machine.run("mirror --once --watch sometimes src dst");
    assert!(
        ended.status == Some(2) && ended.err.contains("sometimes"),
        "{ended:?}"
    );
}

/// The flags of filters, in the order given, on every command that takes them.
#[test]
fn filters_on_the_command_line() {
    let machine = Machine::new();
    let (src, dst) = (machine.path("src"), machine.path("dst"));
    for path in ["a.c", "a.o", "keep.o", "log", "d/b.o", "d/.git"] {
        fs::create_dir_all(src.join(path).parent().unwrap()).unwrap();
        fs::write(src.join(path), path).unwrap();
    }
    fs::write(src.join(".gitignore"), "log\n").unwrap();
    fs::write(dst.join("old.o"), "").unwrap();
    let rules = "--include=keep.o --exclude *.o --gitignore -C --max-size=1k";
    let ended = machine
        .run(&format!("mirror src dst --once --json {rules}"))
        .succeeds();
    let last: serde_json::Value = serde_json::from_str(ended.out.lines().last().unwrap()).unwrap();
    assert!(last.to_string().contains("\"excluded\":3"), "{last}");
    let there = |path: &str| dst.join(path).exists();
    assert!(there("a.c") && there("keep.o") && there("d") && there("old.o") && there("d/.git"));
    assert!(!there("a.o") && !there("log") && !there("d/b.o"));
    // Without the rules they differ, with them they do not.
    machine.run(&format!("verify src dst {rules}")).succeeds();
    let ended = machine.run("verify src dst");
    assert_eq!(ended.status, Some(4), "{ended:#?}");
    assert!(
        ended.out.contains("old.o") && ended.out.contains("missing on the target"),
        "{ended:#?}"
    );
    fs::write(dst.join("d/extra"), "").unwrap();
    let ended = machine.run(&format!("verify src dst {rules}"));
    assert!(
        ended.status == Some(4) && ended.out.contains("d/extra"),
        "{ended:#?}"
    );
    machine
        .run(&format!("mirror src dst --once --delete-excluded {rules}"))
        .succeeds();
    assert!(!there("old.o") && !there("d/extra"));
}

#[test]
fn faulty_filters_are_usage_errors_before_anything_happens() {
    let machine = Machine::new();
    fs::write(machine.path("rules"), "- *.o\npassword hunter2\n").unwrap();
    for (line, words) in [
        ("mirror src new --once --filter=.,rules", &["rules, line 2"][..]),
        (
            "mirror src new --once --exclude-from=missing",
            &["missing", "does not exist"],
        ),
        (
            "mirror src new --once --files-from=missing",
            &["missing", "--files-from"],
        ),
        ("verify src dst --exclude-re=(", &["--exclude-re"]),
        (
            "mirror src new --once --delete never --delete-excluded",
            &["--delete-excluded"],
        ),
    ] {
        let line: Vec<String> = line.split(' ').map(|word| word.replace(".,", ". ")).collect();
        let words_of_line: Vec<&OsStr> = line.iter().map(OsStr::new).collect();
        let ended = end(machine.command(&words_of_line));
        ended.complains(2, words);
        assert!(!ended.err.contains("hunter2"), "{ended:#?}");
    }
    assert!(!machine.path("new").exists());
}

#[test]
fn mount_points_are_entered_unless_one_file_system_is_asked_for() {
    let machine = Machine::new();
    let (src, dst) = (machine.path("src"), machine.path("dst"));
    fs::create_dir(src.join("m")).unwrap();
    let Some(_mount) = Mount::new(src.join("m"), "1m") else {
        return skip("cannot mount a tmpfs");
    };
    fs::write(src.join("m/inside"), "").unwrap();
    fs::write(src.join("x"), "").unwrap();
    machine.run("mirror src dst --once -x").succeeds();
    assert!(dst.join("m").is_dir() && !dst.join("m/inside").exists() && dst.join("x").exists());
    machine.run("verify src dst -x").succeeds();
    machine.run("mirror src dst --once").succeeds();
    assert!(dst.join("m/inside").exists());
    // What was there stays: it may be what is mounted there.
    machine.run("mirror src dst --once -x").succeeds();
    assert!(dst.join("m/inside").exists());
}
