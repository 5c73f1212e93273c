//! What a receiver gives up, and that it can still do its work: S-16 and S-22.

mod support;

use driftless::confine::{Measure, Needs, enter};
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use support::image::Image;
use support::kernel::without;
use support::{assert_equal, is_root, skip, tree};

const CHILD: &str = "DRIFTLESS_TEST_CONFINED";

/// Runs one test of this program again, in a process of its own, with a directory.
fn in_a_process(test: &str, directory: &Path) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, directory)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    assert!(text.contains("1 passed"), "{text}");
}

fn lay_out(directory: &Path) {
    for name in ["module/a", "module/b", "home", "canary"] {
        fs::create_dir_all(directory.join(name)).unwrap();
    }
    fs::write(directory.join("canary/file"), "secret").unwrap();
    symlink("file", directory.join("canary/link")).unwrap();
    fs::set_permissions(directory.join("canary/file"), fs::Permissions::from_mode(0o640)).unwrap();
}

/// S-22: whatever is tried, nothing outside is opened, made or changed, and nothing is started.
#[test]
fn s22_nothing_leads_out() {
    let Some(directory) = std::env::var_os(CHILD).map(PathBuf::from) else {
        if !is_root() {
            return skip("mounts of its own need root");
        }
        let directory = tempfile::tempdir().unwrap();
        lay_out(directory.path());
        let before = tree(&directory.path().join("canary"));
        let ctime = |path: &Path| {
            let meta = fs::symlink_metadata(path).unwrap();
            (meta.ctime(), meta.ctime_nsec())
        };
        let canary = directory.path().join("canary/file");
        let changed = ctime(&canary);
        in_a_process("s22_nothing_leads_out", directory.path());
        assert_eq!(tree(&directory.path().join("canary")), before);
        assert_eq!(ctime(&canary), changed);
        return;
    };
    let path = |name: &str| directory.join(name);
    let mut confined = enter(Needs {
        writable: vec![path("module"), path("home")],
        readable: vec![],
        devices: true,
        privileged_xattrs: false,
        low_port: false,
        ..Needs::default()
    });
    confined.close();
    for protection in confined.protections() {
        assert_eq!(protection.missing, None, "{}", protection.measure);
    }
    assert_eq!(confined.protections().len(), Measure::ALL.len());

    let (canary, link) = (path("canary/file"), path("canary/link"));
    refused("open", fs::read(&canary));
    refused("open by a link", fs::read(&link));
    refused("write", fs::write(&canary, "x"));
    refused("make", fs::write(path("canary/new"), "x"));
    refused("make a directory", fs::create_dir(path("canary/new")));
    refused("make a link", symlink("x", path("canary/new")));
    refused("remove", fs::remove_file(&canary));
    refused("rename out", fs::rename(path("module/a"), path("canary/a")));
    refused("rename in", fs::rename(&canary, path("module/file")));
    refused("link in", fs::hard_link(&canary, path("module/file")));
    refused(
        "mode",
        fs::set_permissions(&canary, fs::Permissions::from_mode(0o777)),
    );
    refused("owner", std::os::unix::fs::chown(&canary, Some(1), Some(1)));
    refused(
        "owner of a link",
        std::os::unix::fs::lchown(&link, Some(1), Some(1)),
    );
    let omit = rustix::fs::Timestamps {
        last_access: rustix::fs::Timespec {
            tv_sec: 1,
            tv_nsec: 1,
        },
        last_modification: rustix::fs::Timespec {
            tv_sec: 1,
            tv_nsec: 1,
        },
    };
    let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    refused(
        "times",
        rustix::fs::utimensat(rustix::fs::CWD, &canary, &omit, flags),
    );
    let set = rustix::fs::lsetxattr(&canary, "user.x", b"x", rustix::fs::XattrFlags::empty());
    refused("attributes", set);
    refused("execute", Command::new("/bin/true").output());
    refused("TCP", TcpListener::bind("127.0.0.1:0"));
    refused("UDP", UdpSocket::bind("127.0.0.1:0"));
    // SAFETY: numbers only.
    let forked = unsafe { libc::fork() };
    assert_eq!(forked, -1, "a process was started");
    let other_thread = std::thread::spawn(move || fs::read(canary).is_err());
    assert!(other_thread.join().unwrap(), "another thread could read it");

    work(&directory.join("module"));
    fs::write(path("home/state"), "state").unwrap();
}

fn refused<T, E: std::fmt::Display>(what: &str, outcome: Result<T, E>) {
    assert!(outcome.is_err(), "{what} was possible");
}

/// What a receiver does all day.
fn work(module: &Path) {
    let path = |name: &str| module.join(name);
    fs::write(path("a/file"), "content").unwrap();
    fs::set_permissions(path("a/file"), fs::Permissions::from_mode(0o4755)).unwrap();
    std::os::unix::fs::chown(path("a/file"), Some(12345), Some(12345)).unwrap();
    fs::rename(path("a/file"), path("b/file")).unwrap();
    fs::hard_link(path("b/file"), path("a/other")).unwrap();
    symlink("nowhere", path("a/link")).unwrap();
    let xattr = rustix::fs::lsetxattr(path("b/file"), "user.x", b"x", rustix::fs::XattrFlags::empty());
    assert!(
        matches!(xattr, Ok(()) | Err(rustix::io::Errno::OPNOTSUPP)),
        "{xattr:?}"
    );
    for (name, kind) in [
        ("a/fifo", rustix::fs::FileType::Fifo),
        ("a/null", rustix::fs::FileType::CharacterDevice),
    ] {
        let device = rustix::fs::makedev(1, 3);
        rustix::fs::mknodat(rustix::fs::CWD, path(name), kind, 0o600.into(), device).unwrap();
    }
    fs::remove_file(path("a/fifo")).unwrap();
    fs::remove_dir_all(path("b")).unwrap();
    assert_eq!(fs::read(path("a/other")).unwrap(), b"content");
}

/// A receiver as a process of its own, ended with its value.
struct Receiver {
    child: Child,
    home: PathBuf,
    address: String,
    identity: String,
}

/// The calls of a kernel that has none of these.
const LANDLOCK: &[libc::c_long] = &[libc::SYS_landlock_create_ruleset];
const MOUNTS: &[libc::c_long] = &[libc::SYS_open_tree, libc::SYS_mount_setattr];
const SECCOMP: &[libc::c_long] = &[libc::SYS_seccomp];

fn command(directory: &Path, confine: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_driftless"));
    command
        .arg("receive")
        .arg(directory.join("module"))
        .args(["--listen", "127.0.0.1:0", "--json", "--confine", confine])
        .env("DRIFTLESS_HOME", directory.join("home-r"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

impl Receiver {
    fn start(directory: &Path, missing: &'static [libc::c_long]) -> Receiver {
        Receiver::start_with(directory, missing, &[])
    }

    fn start_with(directory: &Path, missing: &'static [libc::c_long], options: &[&str]) -> Receiver {
        let mut command = command(directory, "auto");
        command
            .args(options)
            .stderr(Stdio::null())
            .args(["--allow", &sender(directory)]);
        without(&mut command, missing);
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        let ready: serde_json::Value = serde_json::from_str(&line)
            .unwrap_or_else(|error| panic!("{error}: {line:?}, {:?}", child.wait()));
        Receiver {
            child,
            home: directory.join("home-r"),
            address: ready["address"].as_str().unwrap().to_owned(),
            identity: ready["identity"].as_str().unwrap().to_owned(),
        }
    }

    /// Brings the module into sync with the directory `src`, and compares.
    fn seed(&self, directory: &Path) {
        self.seed_only(directory);
        assert_equal(&directory.join("src"), &directory.join("module"));
    }

    fn seed_only(&self, directory: &Path) {
        let target = format!("driftless://{}@{}/module", self.identity, self.address);
        let output = driftless(
            &directory.join("home-s"),
            &[
                "seed".as_ref(),
                directory.join("src").as_os_str(),
                target.as_ref(),
                "--delete=always".as_ref(),
            ],
        );
        assert_eq!(output.0, Some(0), "{}", output.2);
    }

    /// The names of the measures that hold, and those that do not.
    fn protections(&self) -> (Vec<String>, Vec<String>) {
        let (_, text, _) = driftless(&self.home, &["status".as_ref(), "--json".as_ref()]);
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        let all = json["daemons"][0]["protections"].as_array().unwrap().clone();
        let names = |holds: bool| {
            let some = all.iter().filter(|one| one["holds"] == holds);
            some.map(|one| one["name"].as_str().unwrap().to_owned()).collect()
        };
        (names(true), names(false))
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn driftless(home: &Path, words: &[&OsStr]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_driftless"))
        .args(words)
        .env("DRIFTLESS_HOME", home)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn sender(directory: &Path) -> String {
    let (_, text, error) = driftless(&directory.join("home-s"), &["id".as_ref()]);
    text.split_whitespace()
        .last()
        .unwrap_or_else(|| panic!("{error}"))
        .to_owned()
}

fn trees() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for name in ["src/d/e", "module", "home-s", "home-r"] {
        fs::create_dir_all(directory.path().join(name)).unwrap();
    }
    let src = directory.path().join("src");
    fs::write(src.join("d/small"), "small").unwrap();
    fs::write(src.join("large"), vec![3; 9 << 20]).unwrap();
    symlink("d/small", src.join("link")).unwrap();
    fs::hard_link(src.join("d/small"), src.join("second")).unwrap();
    directory
}

fn change(src: &Path) {
    let mut large = fs::read(src.join("large")).unwrap();
    large[5 << 20] = 4;
    fs::write(src.join("large"), large).unwrap();
    fs::rename(src.join("d/small"), src.join("d/e/moved")).unwrap();
    fs::remove_file(src.join("link")).unwrap();
    fs::create_dir(src.join("link")).unwrap();
}

fn status_field(pid: u32, task: &str, field: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{task}/status")).unwrap();
    let line = text
        .lines()
        .find(|line| line.starts_with(&format!("{field}:")))
        .unwrap();
    line.split_once(':').unwrap().1.trim().to_owned()
}

/// All measures hold on this kernel, for every thread, and everything can be received under them.
#[test]
fn s22_a_confined_receiver_does_all_its_work() {
    let directory = trees();
    let receiver = Receiver::start(directory.path(), &[]);
    receiver.seed(directory.path());
    change(&directory.path().join("src"));
    receiver.seed(directory.path());
    let (held, missing) = receiver.protections();
    if !is_root() {
        assert!(!held.is_empty());
        return skip("mounts of its own need root");
    }
    assert!(missing.is_empty(), "{missing:?}");
    assert_eq!(held.len(), Measure::ALL.len() + Measure::APART.len());
    let pid = receiver.child.id();
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let tasks: Vec<_> = tasks
        .map(|task| task.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(tasks.len() > 3);
    for task in tasks {
        assert_eq!(status_field(pid, &task, "NoNewPrivs"), "1", "thread {task}");
        assert_eq!(status_field(pid, &task, "Seccomp"), "2", "thread {task}");
        let kept = u64::from_str_radix(&status_field(pid, &task, "CapEff"), 16).unwrap();
        // Owners, modes, access, capabilities of files, and devices.
        let known: u64 = [0, 1, 3, 4, 27, 31].map(|bit| 1 << bit).iter().sum();
        assert_eq!(kept, known, "thread {task}: {kept:x}");
    }
    // S-16: nobody but root reads its memory.
    assert_eq!(fs::metadata(format!("/proc/{pid}/environ")).unwrap().uid(), 0);
    let (_, text, _) = driftless(&receiver.home, &["status".as_ref()]);
    assert!(
        text.contains("confined by no-new-privileges, read-only-system"),
        "{text}"
    );
}

/// What is kept of what is replaced and deleted is inside the module, where a confined receiver may write.
#[test]
fn s22_a_confined_receiver_keeps_what_it_replaces() {
    for (options, kept) in [
        (&["--trash", "1h", "--drift", "keep"][..], ".driftless-trash"),
        (&["--backup", "--backup-dir", "old"], "old"),
        (&["--inplace", "--preallocate"], ""),
    ] {
        let directory = trees();
        let receiver = Receiver::start_with(directory.path(), &[], options);
        let (src, module) = (directory.path().join("src"), directory.path().join("module"));
        receiver.seed_only(directory.path());
        assert_eq!(fs::metadata(module.join("large")).unwrap().len(), 9 << 20);
        change(&src);
        receiver.seed_only(directory.path());
        assert_eq!(
            fs::read(module.join("large")).unwrap(),
            fs::read(src.join("large")).unwrap()
        );
        let (_, missing) = receiver.protections();
        assert!(missing.is_empty() || !is_root(), "{missing:?}");
        assert!(module.join(kept).is_dir(), "{options:?}");
    }
}

/// Where a kernel lacks a measure, the others hold, everything works, and status tells the truth.
#[test]
fn s22_what_a_kernel_lacks_is_told() {
    if !is_root() {
        return skip("mounts of its own need root");
    }
    for (calls, lacking) in [
        (LANDLOCK, &["landlock"][..]),
        (MOUNTS, &["read-only-system", "hidden-key"]),
        (
            SECCOMP,
            &["system-calls", "transport-calls", "sockets", "no-network"],
        ),
    ] {
        let directory = trees();
        let receiver = Receiver::start(directory.path(), calls);
        receiver.seed(directory.path());
        let (held, missing) = receiver.protections();
        assert_eq!(missing, lacking);
        assert_eq!(
            held.len() + missing.len(),
            Measure::ALL.len() + Measure::APART.len()
        );
        drop(receiver);
        let mut command = command(directory.path(), "require");
        without(&mut command, calls);
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(
            text.contains(lacking[0]) && text.contains("--confine auto"),
            "{text}"
        );
    }
}

/// A file system that the receiver has no business with can be unmounted, and is gone then, while it runs.
#[test]
fn s22_other_file_systems_are_not_kept_busy() {
    let Some(mut image) = Image::new("ext4") else {
        return;
    };
    let directory = trees();
    let receiver = Receiver::start(directory.path(), &[]);
    image.unmount();
    assert!(image.is_released());
    receiver.seed(directory.path());
}

/// An own mount does not keep a local mirror, which has no peer, from reading and writing wherever it is told to.
#[test]
fn a_local_mirror_is_not_confined() {
    let directory = trees();
    let (src, dst) = (directory.path().join("src"), directory.path().join("module"));
    let words = [
        "mirror".as_ref(),
        src.as_os_str(),
        dst.as_os_str(),
        "--once".as_ref(),
    ];
    let (code, _, text) = driftless(&directory.path().join("home-r"), &words);
    assert_eq!(code, Some(0), "{text}");
    assert_equal(&src, &dst);
}
