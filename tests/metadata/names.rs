//! Two machines with users of their own: the real program, in two mount namespaces with other `/etc/passwd`s.

use crate::support::{PATIENCE, is_root, skip};
use crate::values::{acl, set_xattr};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Gives a command the users of `$1` and the groups of `$2`.
const MACHINE: &str =
    r#"mount --bind "$1" /etc/passwd && mount --bind "$2" /etc/group && shift 2 && exec "$@""#;

struct Machines {
    directory: TempDir,
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.0.wait();
    }
}

fn accounts(list: &[(&str, u32)]) -> (String, String) {
    let row = |kind: &str| {
        let rows = list.iter().map(|(name, id)| match kind {
            "passwd" => format!("{name}:x:{id}:{id}::/:/bin/false\n"),
            _ => format!("{name}:x:{id}:\n"),
        });
        rows.collect::<String>()
    };
    (row("passwd"), row("group"))
}

impl Machines {
    fn new() -> Machines {
        let machines = Machines {
            directory: tempfile::tempdir().unwrap(),
        };
        for name in ["src", "dst", "by-rsync", "home-a", "home-b"] {
            fs::create_dir(machines.path(name)).unwrap();
        }
        machines
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Who there is on machine `a` or `b`. In place: that is how a running program sees it.
    fn populate(&self, machine: &str, list: &[(&str, u32)]) {
        let (passwd, group) = accounts(list);
        fs::write(self.path(&format!("passwd-{machine}")), passwd).unwrap();
        fs::write(self.path(&format!("group-{machine}")), group).unwrap();
    }

    fn on(&self, machine: &str, program: &str, words: &[&str]) -> Command {
        let mut command = Command::new("unshare");
        command
            .args(["-m", "sh", "-c", MACHINE, "sh"])
            .arg(self.path(&format!("passwd-{machine}")))
            .arg(self.path(&format!("group-{machine}")))
            .arg(program)
            .args(words)
            .env("DRIFTLESS_HOME", self.path(&format!("home-{machine}")))
            .current_dir(self.directory.path())
            .stdin(Stdio::null());
        command
    }

    fn driftless(&self, machine: &str, line: &str) -> Command {
        let words: Vec<&str> = line.split_whitespace().collect();
        self.on(machine, env!("CARGO_BIN_EXE_driftless"), &words)
    }

    fn output(&self, machine: &str, line: &str) -> (Option<i32>, String) {
        let output = self.driftless(machine, line).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    }

    fn succeed(&self, machine: &str, line: &str) -> String {
        let (status, text) = self.output(machine, line);
        assert_eq!(status, Some(0), "{line}: {text}");
        text
    }

    /// A receiver on machine `b`, and its URL.
    fn receive(&self) -> (Running, String) {
        let sender = self.succeed("a", "id");
        let sender = sender.split_whitespace().last().unwrap();
        let line = format!("receive dst --module m --listen 127.0.0.1:0 --json --allow {sender}");
        let mut command = self.driftless("b", &line);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut ready)
            .unwrap();
        let ready: serde_json::Value = serde_json::from_str(&ready).unwrap();
        let text = |key: &str| ready[key].as_str().unwrap().to_owned();
        let url = format!("driftless://{}@{}/m", text("identity"), text("address"));
        (Running(child), url)
    }

    fn owner(&self, tree: &str, name: &str) -> Option<(u32, u32)> {
        let meta = fs::symlink_metadata(self.path(tree).join(name)).ok()?;
        Some((meta.uid(), meta.gid()))
    }

    /// What rsync makes of the same users, over a remote shell that goes no further than the other namespace.
    fn assert_rsync_agrees(&self, options: &[&str], with_acls: bool) {
        let shell = self.path("shell");
        let script = format!(
            "shift\nexec unshare -m sh -c '{MACHINE}' sh {} {} sh -c \"$*\"\n",
            self.path("passwd-b").display(),
            self.path("group-b").display()
        );
        fs::write(&shell, script).unwrap();
        let remote = format!("sh {}", shell.display());
        let mut words = vec!["-aA", "--delete", "-e", &remote];
        words.extend(options);
        let to = format!("machine:{}/", self.path("by-rsync").display());
        words.extend(["src/", &to]);
        match self.on("a", "rsync", &words).output() {
            Ok(output) if output.status.success() => {}
            output => return skip(&format!("rsync: {output:?}")),
        }
        for entry in fs::read_dir(self.path("src")).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert_eq!(self.owner("dst", &name), self.owner("by-rsync", &name), "{name}");
            if name == "nameless" && with_acls {
                let acl = |tree: &str| named_in_acl(&self.path(tree).join("nameless"));
                assert_eq!(acl("dst"), acl("by-rsync"));
            }
        }
    }
}

fn put(path: &Path, uid: u32, gid: u32) {
    fs::write(path, format!("{uid} {gid}")).unwrap();
    chown(path, Some(uid), Some(gid)).unwrap();
}

/// The user and the group whom an ACL names.
fn named_in_acl(path: &Path) -> (u32, u32) {
    let mut value = [0; 64];
    let length = rustix::fs::lgetxattr(path, "system.posix_acl_access", &mut value[..]).unwrap();
    let entries = value[4..length].chunks_exact(8);
    let id = |tag: u8| {
        let entry = entries.clone().find(|entry| entry[0] == tag).unwrap();
        u32::from_le_bytes(entry[4..8].try_into().unwrap())
    };
    (id(2), id(8))
}

fn can_run() -> bool {
    let works = Command::new("unshare").args(["-m", "true"]).status();
    let works = is_root() && works.is_ok_and(|status| status.success());
    if !works {
        skip("mount namespaces need root");
    }
    works
}

const SENDER: [(&str, u32); 5] = [
    ("root", 0),
    ("ann", 1000),
    ("bob", 1001),
    ("eve", 1002),
    ("dora", 1003),
];

#[test]
fn d_27_owners_go_by_name() {
    if !can_run() {
        return;
    }
    let machines = Machines::new();
    machines.populate("a", &SENDER);
    // ann is another number; that of bob, who is not known here, is carl's; eve has ann's number of the other machine.
    machines.populate(
        "b",
        &[
            ("root", 0),
            ("ann", 5000),
            ("carl", 1001),
            ("eve", 1000),
            ("dora", 7003),
        ],
    );
    let src = machines.path("src");
    put(&src.join("ann"), 1000, 1001);
    put(&src.join("bob"), 1001, 1000);
    put(&src.join("eve"), 1002, 1002);
    put(&src.join("nameless"), 1234, 4321);
    put(&src.join("root"), 0, 0);
    // For user 1000 and group 1001.
    set_xattr(
        &src.join("nameless"),
        "system.posix_acl_access",
        &acl(1000, 6, 4, 7),
    );
    let (_receiver, url) = machines.receive();
    let seed = |options: &str| machines.succeed("a", &format!("seed src {url} {options}"));
    let verify = |options: &str| machines.succeed("a", &format!("verify src {url} {options}"));
    let owner = |name: &str| machines.owner("dst", name).unwrap();
    seed("");
    assert_eq!(owner("ann"), (5000, 1001));
    assert_eq!(owner("bob"), (1001, 5000));
    assert_eq!(owner("eve"), (1000, 1000));
    assert_eq!(owner("nameless"), (1234, 4321));
    assert_eq!(owner("root"), (0, 0));
    machines.assert_rsync_agrees(&[], true);
    assert_eq!(named_in_acl(&machines.path("dst/nameless")), (5000, 1001));
    verify("");
    // Somebody gets another number on the target: the next connection sees to it, once.
    machines.populate(
        "b",
        &[
            ("root", 0),
            ("ann", 6000),
            ("bob", 6001),
            ("eve", 1000),
            ("dora", 7003),
        ],
    );
    assert_eq!(machines.output("a", &format!("verify src {url}")).0, Some(4));
    seed("");
    assert_eq!(owner("ann"), (6000, 6001));
    assert_eq!(owner("bob"), (6001, 6000));
    assert_eq!(owner("eve"), (1000, 1000));
    machines.assert_rsync_agrees(&[], false);
    verify("");
    let again: serde_json::Value = serde_json::from_str(&seed("--json")).unwrap();
    // The mark of the new run.
    assert!(again["counters"]["ops_done"].as_u64().unwrap() <= 1, "{again}");
    // Somebody changes his name here.
    machines.populate(
        "a",
        &[
            ("root", 0),
            ("ann", 1000),
            ("eve", 1001),
            ("bob", 1002),
            ("dora", 1003),
        ],
    );
    seed("");
    assert_eq!(owner("bob"), (1000, 6000));
    assert_eq!(owner("eve"), (6001, 6001));
    machines.assert_rsync_agrees(&[], false);
    for options in [
        "--numeric-ids",
        "--usermap=a*:dora,1234:eve",
        "--numeric-ids --groupmap=1000-1001:bob",
        "--chown=dora:ann",
    ] {
        seed(options);
        let words: Vec<&str> = options.split(' ').collect();
        machines.assert_rsync_agrees(&words, false);
        verify(options);
    }
    let (status, text) = machines.output("a", &format!("seed src {url} --chown=carl"));
    assert!(status == Some(1) && text.contains("no user carl"), "{text}");
}

#[test]
fn d_27_new_owners_go_by_name_under_a_live_mirror() {
    if !can_run() {
        return;
    }
    let machines = Machines::new();
    machines.populate("a", &SENDER);
    machines.populate("b", &[("root", 0), ("ann", 5000), ("bob", 1000), ("dora", 7003)]);
    put(&machines.path("src/ann"), 1000, 1000);
    let (_receiver, url) = machines.receive();
    let mut command = machines.driftless("a", &format!("send src {url}"));
    let _sender = Running(command.stdout(Stdio::null()).spawn().unwrap());
    let arrives = |name: &str, uid: u32, gid: u32| {
        let deadline = Instant::now() + PATIENCE;
        while machines.owner("dst", name) != Some((uid, gid)) {
            assert!(
                Instant::now() < deadline,
                "{name}: {:?}",
                machines.owner("dst", name)
            );
            std::thread::park_timeout(Duration::from_millis(5));
        }
    };
    arrives("ann", 5000, 5000);
    put(&machines.path("src/bob"), 1001, 1003);
    arrives("bob", 1000, 7003);
    chown(machines.path("src/ann"), Some(1003), Some(1001)).unwrap();
    arrives("ann", 7003, 1000);
    machines.succeed("a", &format!("verify src {url}"));
}

#[test]
fn d_27_bad_maps_are_refused_before_anything_is_done() {
    let machines = Machines::new();
    for (option, says) in [
        ("--usermap=ann", "no colon"),
        ("--groupmap=:", "behind the colon"),
        ("--usermap=5-2:ann", "no number or range"),
        ("--chown=:", "neither a user nor a group"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_driftless"))
            .args(["mirror", "--once", "src", "made", option])
            .env("DRIFTLESS_HOME", machines.path("home-a"))
            .current_dir(machines.directory.path())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.code() == Some(2) && text.contains(says),
            "{option}: {text}"
        );
        assert!(!machines.path("made").exists());
    }
}
