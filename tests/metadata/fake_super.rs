//! What may not be set is kept in attributes, as rsync's `--fake-super` does: judged by rsync in both directions.

use crate::objects::{device, fifo};
use crate::support::waiting::wait_until;
use crate::support::{Following, Pair, is_root, runtime, skip};
use crate::values::{acl, capability, remove_xattr, set_time, set_xattr};
use driftless::daemon::{Deletes, Silent, Stop, sender};
use driftless_protocol::XattrClasses;
use rustix::fs::FileType;
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";
const STAT: &str = "user.rsync.%stat";
const NOBODY: u32 = 65_534;

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Everything that only root may set.
fn fill(src: &Path) {
    fs::create_dir_all(src.join("dir/inner")).unwrap();
    fs::write(src.join("plain"), "plain").unwrap();
    fs::write(src.join("set-id"), "set-id").unwrap();
    chown(src.join("set-id"), Some(1_234), Some(2_345)).unwrap();
    mode(&src.join("set-id"), 0o6755);
    fs::write(src.join("closed"), "nobody may read it").unwrap();
    mode(&src.join("closed"), 0);
    fs::write(src.join("guarded"), "guarded").unwrap();
    set_xattr(&src.join("guarded"), ACCESS, &acl(2_001, 6, 0, 4));
    fs::write(src.join("program"), "program").unwrap();
    set_xattr(&src.join("program"), "security.capability", &capability());
    set_xattr(&src.join("program"), "trusted.note", b"trusted");
    set_xattr(&src.join("program"), "user.note", b"user");
    device(&src.join("null"), FileType::CharacterDevice, 1, 3);
    device(&src.join("disk"), FileType::BlockDevice, 259, 70_000);
    chown(src.join("disk"), Some(7), Some(8)).unwrap();
    fifo(&src.join("pipe"), 0o640);
    symlink("../where", src.join("link")).unwrap();
    lchown(src.join("link"), Some(77), Some(88)).unwrap();
    set_time(&src.join("link"), 1_000_000, 5);
    fs::hard_link(src.join("set-id"), src.join("dir/same")).unwrap();
    set_xattr(&src.join("dir"), DEFAULT, &acl(2_000, 7, 1, 7));
    chown(src.join("dir/inner"), Some(5), Some(6)).unwrap();
    mode(&src.join("dir/inner"), 0o3770);
    fs::write(src.join("dir/inner/file"), vec![7; 300_000]).unwrap();
    set_time(&src.join("dir"), -5, 123);
}

fn faking() -> Pair {
    let mut pair = Pair::new();
    pair.deletes = Deletes::Always;
    pair.xattrs = XattrClasses::ALL;
    pair.kept_as.fake_super = true;
    pair
}

fn rsync(options: &[&str], from: &Path, to: &Path) -> Option<String> {
    let output = Command::new("rsync")
        // An rsync was seen to write to a name that was none of ours, where it was started.
        .current_dir(to.parent().unwrap())
        .args(["-aHAX", "--delete", "--exclude=.driftless*"])
        .args(options)
        .args([format!("{}/", from.display()), format!("{}/", to.display())])
        .output();
    match output {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{options:?}: {text}{errors}");
            Some(text)
        }
        Err(error) => {
            skip(&format!("no rsync: {error}"));
            None
        }
    }
}

/// rsync has nothing to do on the target, whose attributes say what it is.
#[track_caller]
fn assert_rsync_agrees(pair: &Pair) {
    if let Some(text) = rsync(&["-nic", "-M--fake-super"], &pair.src(), &pair.dst()) {
        assert_eq!(text, "");
    }
}

#[track_caller]
fn seed(pair: &Pair) -> u64 {
    let summary = pair.seed().unwrap();
    assert!(summary.in_sync && summary.failed.is_empty(), "{summary:?}");
    summary.counters.files_sent
}

fn kept(path: &Path) -> Option<String> {
    let mut value = [0; 256];
    let length = rustix::fs::getxattr(path, STAT, &mut value).ok()?;
    Some(String::from_utf8_lossy(&value[..length]).into_owned())
}

#[test]
fn what_may_not_be_set_is_kept_as_rsync_keeps_it() {
    if !is_root() {
        return skip("needs root to make what is kept");
    }
    let pair = faking();
    fill(&pair.src());
    seed(&pair);
    let dst = pair.dst();
    for (name, wanted) in [
        ("set-id", Some("106755 0,0 1234:2345")),
        ("null", Some("20640 1,3 0:0")),
        ("disk", Some("60640 259,70000 7:8")),
        ("link", Some("120777 0,0 77:88")),
        ("closed", Some("100000 0,0 0:0")),
        ("dir/inner", Some("43770 0,0 5:6")),
        ("plain", None),
    ] {
        assert_eq!(kept(&dst.join(name)).as_deref(), wanted, "{name}");
        let meta = fs::symlink_metadata(dst.join(name)).unwrap();
        assert_eq!((meta.uid(), meta.mode() & 0o7000), (0, 0), "{name}");
        assert!(meta.is_file() || meta.is_dir(), "{name}");
    }
    assert_eq!(fs::read(dst.join("link")).unwrap(), b"../where");
    assert_rsync_agrees(&pair);
    crate::assert_verified(&pair);
    assert_eq!(seed(&pair), 0);
    // What rsync kept is ours, and nothing of it is sent or changed.
    let adopting = faking();
    fs::remove_dir(adopting.src()).unwrap();
    fs::rename(pair.src(), adopting.src()).unwrap();
    if rsync(&["-M--fake-super"], &adopting.src(), &adopting.dst()).is_some() {
        let before = kept(&adopting.dst().join("set-id"));
        assert_eq!(seed(&adopting), 0);
        assert_eq!(kept(&adopting.dst().join("set-id")), before);
        assert_rsync_agrees(&adopting);
        crate::assert_verified(&adopting);
    }
}

/// A tree that is kept like that is a source, whoever wrote it.
#[test]
fn what_was_kept_comes_back() {
    if !is_root() {
        return skip("needs root to make what is kept");
    }
    let first = faking();
    fill(&first.src());
    seed(&first);
    for by_rsync in [false, true] {
        let mut back = Pair::new();
        back.deletes = Deletes::Always;
        back.xattrs = XattrClasses::ALL;
        back.taken_as.fake_super = true;
        fs::remove_dir(back.src()).unwrap();
        if by_rsync {
            if rsync(&["-M--fake-super"], &first.src(), &back.src()).is_none() {
                return;
            }
        } else {
            assert!(
                Command::new("cp")
                    .args(["-a", "--"])
                    .args([first.dst(), back.src()])
                    .status()
                    .unwrap()
                    .success()
            );
        }
        seed(&back);
        let meta = fs::symlink_metadata(back.dst().join("disk")).unwrap();
        assert!(meta.file_type().is_block_device() && meta.uid() == 7);
        assert!(kept(&back.dst().join("set-id")).is_none());
        if let Some(text) = rsync(&["-nic"], &first.src(), &back.dst()) {
            assert_eq!(text, "", "by rsync: {by_rsync}");
        }
        crate::assert_verified(&back);
    }
}

#[test]
fn changes_are_kept_live() {
    if !is_root() {
        return skip("needs root to make what is kept");
    }
    let pair = faking();
    let (src, dst) = (pair.src(), pair.dst());
    fill(&src);
    let receiver = pair.receive();
    let following = Following::start(pair.sender_options(receiver.address(), true));
    following.watching.wait_in_sync();
    chown(src.join("plain"), Some(11), Some(12)).unwrap();
    mode(&src.join("set-id"), 0o600);
    remove_xattr(&src.join("guarded"), ACCESS);
    mode(&src.join("guarded"), 0o644);
    remove_xattr(&src.join("program"), "security.capability");
    set_xattr(&src.join("program"), "trusted.note", b"another");
    fs::remove_file(src.join("null")).unwrap();
    symlink("now a link", src.join("null")).unwrap();
    fs::remove_file(src.join("link")).unwrap();
    fs::create_dir(src.join("link")).unwrap();
    fs::rename(src.join("disk"), src.join("dir/disk")).unwrap();
    fs::hard_link(src.join("pipe"), src.join("dir/pipe")).unwrap();
    wait_until("owners", || {
        kept(&dst.join("plain")).as_deref() == Some("100644 0,0 11:12")
    });
    wait_until("modes", || {
        kept(&dst.join("set-id")).as_deref() == Some("100600 0,0 1234:2345")
    });
    wait_until("what needs nothing kept any more", || {
        kept(&dst.join("guarded")).is_none() && dst.join("link").is_dir()
    });
    wait_until("kinds", || {
        kept(&dst.join("null")).as_deref() == Some("120777 0,0 0:0")
    });
    wait_until("a move", || {
        kept(&dst.join("dir/disk")).is_some() && !dst.join("disk").exists()
    });
    wait_until("a name more", || {
        fs::metadata(dst.join("dir/pipe")).is_ok_and(|meta| meta.nlink() == 2)
    });
    // Equal again, once all of it has come.
    following.watching.wait_in_sync();
    assert!(following.stop().unwrap().failed.is_empty());
    receiver.stop();
    seed(&pair);
    assert_rsync_agrees(&pair);
    crate::assert_verified(&pair);
    // What somebody broke is told, and left until it is mended.
    set_xattr(&dst.join("set-id"), STAT, b"nonsense");
    fs::write(src.join("set-id"), "another content").unwrap();
    let summary = pair.seed().unwrap();
    let is_told = summary
        .failed
        .iter()
        .any(|entry| entry.error.contains("user.rsync.%stat"));
    assert!(is_told, "{summary:?}");
    remove_xattr(&dst.join("set-id"), STAT);
    seed(&pair);
    assert_rsync_agrees(&pair);
}

/// A process that ends with this.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A process without any privilege keeps what root has, and gives it back to root.
#[test]
fn nobody_keeps_what_root_has() {
    if !is_root() {
        return skip("needs root to make what is kept");
    }
    let mut pair = faking();
    fill(&pair.src());
    mode(pair.directory.path(), 0o755);
    fs::create_dir(pair.path("home-n")).unwrap();
    for name in ["dst", "home-n"] {
        chown(pair.path(name), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    mode(&pair.path("home-n"), 0o700);
    let receiver = Command::new(env!("CARGO_BIN_EXE_driftless"))
        .args([
            "receive",
            "--json",
            "--fake-super",
            "--allow-xattrs",
            "security,trusted",
        ])
        .args(["--module", "dst", "--listen", "127.0.0.1:0", "--allow"])
        .arg(pair.sender.fingerprint().to_string())
        .arg(pair.dst())
        .env("DRIFTLESS_HOME", pair.path("home-n"))
        .env_remove("NOTIFY_SOCKET")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .uid(NOBODY)
        .gid(NOBODY)
        .spawn();
    let mut receiver = match receiver {
        Ok(receiver) => Killed(receiver),
        Err(error) => return skip(&format!("nobody may not run it: {error}")),
    };
    let mut line = String::new();
    BufReader::new(receiver.0.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let ready: serde_json::Value = serde_json::from_str(&line).unwrap();
    let address = ready["address"].as_str().unwrap().parse().unwrap();
    let mut options = pair.sender_options(address, false);
    options.target.fingerprint = ready["identity"].as_str().unwrap().parse().unwrap();
    let summary = sender::run(&options, &runtime(), Arc::new(Silent), &Stop::default());
    drop(receiver);
    let summary = summary.unwrap();
    assert!(summary.in_sync && summary.failed.is_empty(), "{summary:?}");
    assert_eq!(
        kept(&pair.dst().join("disk")).as_deref(),
        Some("60640 259,70000 7:8")
    );
    let meta = fs::metadata(pair.dst().join("disk")).unwrap();
    assert_eq!((meta.uid(), meta.mode() & 0o7777), (NOBODY, 0o640));
    assert_rsync_agrees(&pair);
    // And back, by root.
    pair.kept_as.fake_super = false;
    pair.taken_as.fake_super = true;
    pair.accept_root = true;
    let original = pair.path("original");
    fs::rename(pair.src(), &original).unwrap();
    fs::rename(pair.dst(), pair.src()).unwrap();
    fs::create_dir(pair.dst()).unwrap();
    seed(&pair);
    if let Some(text) = rsync(&["-nic"], &original, &pair.dst()) {
        assert_eq!(text, "");
    }
}
