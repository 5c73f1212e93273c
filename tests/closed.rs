//! S-31: what is safe must go on working: trees below directories that can only be searched, roots that are reached by a link,
//! directories that not even their owner may list, the root of a file system.

mod support;

use driftless::daemon::{Deletes, Silent, Stop, Summary, sender};
use serde_json::Value;
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use support::image::Image;
use support::{Pair, is_root, runtime, skip, tree};

/// A user without any privilege.
const NOBODY: u32 = 65_534;

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn mode_of(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

fn give_to_nobody(path: &Path) {
    chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
}

/// The program, with a home of its own.
fn driftless(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_driftless"));
    command
        .env("DRIFTLESS_HOME", home)
        .env_remove("NOTIFY_SOCKET")
        .current_dir("/")
        .stdin(Stdio::null());
    command
}

/// A receiver that runs as nobody, of the directory `dst` of a pair; killed when it is dropped.
struct Unprivileged {
    process: Child,
    address: SocketAddr,
    identity: String,
}

impl Unprivileged {
    /// None, with the reason printed, where nobody may not run the program.
    fn start(pair: &Pair) -> Option<Unprivileged> {
        let started = driftless(&pair.path("home-n"))
            .args(["receive", "--json", "--module", "dst"])
            .args(["--listen", "127.0.0.1:0", "--allow"])
            .arg(pair.sender.fingerprint().to_string())
            .arg(pair.dst())
            .stdout(Stdio::piped())
            .uid(NOBODY)
            .gid(NOBODY)
            .spawn();
        let mut process = match started {
            Ok(process) => process,
            Err(error) => {
                skip(&format!("nobody may not run it: {error}"));
                return None;
            }
        };
        let mut line = String::new();
        let output = process.stdout.take().unwrap();
        BufReader::new(output).read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap();
        Some(Unprivileged {
            process,
            address: ready["address"].as_str().unwrap().parse().unwrap(),
            identity: ready["identity"].as_str().unwrap().to_owned(),
        })
    }

    /// One run of the pair's sender.
    fn seed(&self, pair: &Pair) -> Summary {
        let mut options = pair.sender_options(self.address, false);
        options.target.fingerprint = self.identity.parse().unwrap();
        let summary = sender::run(&options, &runtime(), Arc::new(Silent), &Stop::default()).unwrap();
        assert!(summary.in_sync && summary.failed.is_empty(), "{summary:?}");
        summary
    }
}

impl Drop for Unprivileged {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Paths, modes and contents, which is what nobody can have of root's files.
fn seen(root: &Path) -> Vec<(PathBuf, u32, Option<Vec<u8>>)> {
    let names = tree(root).into_keys();
    let paths = names.map(|name| PathBuf::from(std::ffi::OsString::from(String::from_utf8(name).unwrap())));
    let mut seen: Vec<_> = paths
        .map(|path| {
            let full = root.join(&path);
            (path, mode_of(&full), fs::read(&full).ok())
        })
        .collect();
    seen.sort();
    seen
}

/// Makes a pair whose receiver can be [`Unprivileged`]. None if that needs root.
fn pair_for_nobody() -> Option<Pair> {
    if !is_root() {
        skip("running as another user needs root");
        return None;
    }
    let mut pair = Pair::new();
    pair.deletes = Deletes::Always;
    mode(pair.directory.path(), 0o711);
    fs::create_dir(pair.path("home-n")).unwrap();
    for name in ["dst", "home-n"] {
        give_to_nobody(&pair.path(name));
    }
    Some(pair)
}

/// The owner of a directory of mode 0300, 0111 or 0 cannot open it, but may change that for as long as it takes.
#[test]
fn s_31_directories_that_their_owner_may_not_list_are_filled_changed_and_moved() {
    const MODES: [(&str, u32); 5] = [
        ("write-only", 0o300),
        ("search-only", 0o111),
        ("read-only", 0o555),
        ("closed", 0),
        ("others-only", 0o077),
    ];
    let Some(pair) = pair_for_nobody() else { return };
    let src = pair.src();
    for (name, bits) in MODES {
        let inner = src.join(name).join("inner");
        fs::create_dir_all(&inner).unwrap();
        for file in [
            src.join(name).join("file"),
            inner.join("file"),
            inner.join("gone"),
        ] {
            fs::write(file, "first").unwrap();
        }
        mode(&inner, bits);
        mode(&src.join(name), bits);
    }
    fs::create_dir(src.join("elsewhere")).unwrap();
    fs::create_dir_all(src.join("unchanged/inner")).unwrap();
    mode(&src.join("unchanged"), 0o555);
    let Some(receiver) = Unprivileged::start(&pair) else {
        return;
    };
    receiver.seed(&pair);
    assert_eq!(seen(&pair.dst()), seen(&src));

    for (name, _) in MODES {
        fs::write(src.join(name).join("inner/file"), "second").unwrap();
        fs::remove_file(src.join(name).join("inner/gone")).unwrap();
    }
    receiver.seed(&pair);
    assert_eq!(seen(&pair.dst()), seen(&src));

    // Another receiver has no handle of any of them.
    drop(receiver);
    let receiver = Unprivileged::start(&pair).unwrap();
    for (name, _) in MODES {
        fs::write(src.join(name).join("inner/file"), "the third").unwrap();
        fs::rename(src.join(name), src.join("elsewhere").join(name)).unwrap();
    }
    fs::rename(src.join("unchanged"), src.join("elsewhere/unchanged")).unwrap();
    receiver.seed(&pair);
    assert_eq!(seen(&pair.dst()), seen(&src));
}

/// What moves over a directory of somebody else trades places with it only where that may be written to. To replace it takes no more
/// than the directory that it is in.
#[test]
fn s_31_a_directory_moves_to_where_an_empty_one_of_somebody_else_is() {
    let Some(pair) = pair_for_nobody() else { return };
    let src = pair.src();
    fs::create_dir_all(src.join("a/tree")).unwrap();
    fs::create_dir_all(src.join("b/to")).unwrap();
    fs::write(src.join("a/tree/file"), "inside").unwrap();
    let Some(receiver) = Unprivileged::start(&pair) else {
        return;
    };
    receiver.seed(&pair);
    chown(pair.dst().join("b/to"), Some(0), Some(0)).unwrap();
    fs::remove_dir(src.join("b/to")).unwrap();
    fs::rename(src.join("a/tree"), src.join("b/to")).unwrap();
    receiver.seed(&pair);
    assert_eq!(seen(&pair.dst()), seen(&src));
}

/// Runs `driftless mirror --once` and expects that it comes to its end.
fn mirror(command: &mut Command, source: &Path, target: &Path) {
    let output = command.args(["mirror", "--once"]).arg(source).arg(target);
    let output = output.output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// Whoever may not list the directories above a tree can mirror it, and to such a place; and by a link of his own.
#[test]
fn s_31_trees_below_directories_that_can_only_be_searched() {
    let Some(pair) = pair_for_nobody() else { return };
    for (above, bits, is_nobodys) in [
        ("of-root", 0o711, false),
        ("locked-of-root", 0o111, false),
        ("own", 0o711, true),
        ("locked-own", 0o111, true),
    ] {
        let above = pair.path(above);
        let (source, target) = (above.join("source"), above.join("target"));
        for directory in [&source, &target] {
            fs::create_dir_all(directory).unwrap();
            give_to_nobody(directory);
        }
        fs::write(source.join("file"), "first").unwrap();
        give_to_nobody(&source.join("file"));
        if is_nobodys {
            give_to_nobody(&above);
        }
        mode(&above, bits);
        let link = pair.dst().join(above.file_name().unwrap());
        symlink(&target, &link).unwrap();
        std::os::unix::fs::lchown(&link, Some(NOBODY), Some(NOBODY)).unwrap();
        for (text, target) in [("first", &target), ("second", &link)] {
            fs::write(source.join("file"), text).unwrap();
            let mut program = driftless(&pair.path("home-n"));
            mirror(program.uid(NOBODY).gid(NOBODY), &source, target);
            assert_eq!(fs::read_to_string(above.join("target/file")).unwrap(), text);
        }
        assert!(link.is_symlink());
    }
}

/// Root's receiver gives up most privileges, and still reaches a tree in a directory that is closed to everybody but its owner.
#[test]
fn s_31_roots_trees_in_somebody_elses_closed_directory() {
    let Some(pair) = pair_for_nobody() else { return };
    let (source, target) = (pair.path("theirs/source"), pair.path("theirs/target"));
    for directory in [&source, &target] {
        fs::create_dir_all(directory).unwrap();
        give_to_nobody(directory);
    }
    for closed in ["theirs", "theirs/source", "theirs/target"] {
        give_to_nobody(&pair.path(closed));
        mode(&pair.path(closed), 0o700);
    }
    for text in ["first", "second version"] {
        fs::write(source.join("file"), text).unwrap();
        give_to_nobody(&source.join("file"));
        mode(&source.join("file"), 0o600);
        mirror(&mut driftless(&pair.path("home-s")), &source, &target);
        assert_eq!(fs::read_to_string(target.join("file")).unwrap(), text);
        assert_eq!(fs::metadata(target.join("file")).unwrap().uid(), NOBODY);
    }
}

/// A tree that starts where a file system is mounted, at both ends.
#[test]
fn s_31_the_root_of_a_file_system() {
    for kind in ["tmpfs", "ext4"] {
        let (Some(source), Some(target)) = (Image::new(kind), Image::new(kind)) else {
            return;
        };
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(source.path().join("directory")).unwrap();
        for text in ["first", "second version"] {
            fs::write(source.path().join("directory/file"), text).unwrap();
            mirror(&mut driftless(home.path()), &source.path(), &target.path());
            let found = fs::read_to_string(target.path().join("directory/file")).unwrap();
            assert_eq!(found, text);
        }
    }
}
