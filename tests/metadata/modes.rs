//! `--chmod`, judged by rsync with the same changes.

use crate::objects::fifo;
use crate::support::waiting::wait_until;
use crate::support::{Following, Pair, is_root, skip};
use crate::values::{acl, set_xattr};
use driftless::engine::mode::ModeChanges;
use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

const MODES: [u32; 12] = [
    0o644, 0o600, 0o755, 0o700, 0o640, 0o4755, 0o2711, 0o6775, 0o1777, 0o444, 0o666, 0o610,
];

fn fill(src: &Path) {
    for mode in MODES {
        let (file, directory) = (src.join(format!("f{mode:o}")), src.join(format!("d{mode:o}")));
        fs::write(&file, "program").unwrap();
        fs::create_dir(&directory).unwrap();
        if mode & 0o500 == 0o500 || is_root() {
            fs::write(directory.join("inner"), "x").unwrap();
            fs::set_permissions(&directory, Permissions::from_mode(mode)).unwrap();
        }
        fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
    }
    fifo(&src.join("pipe"), 0o620);
    symlink("f644", src.join("link")).unwrap();
}

fn modes(root: &Path) -> BTreeMap<PathBuf, u32> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(path) = waiting.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let name = path.strip_prefix(root).unwrap().to_owned();
        if name.to_string_lossy().starts_with(".driftless") {
            continue;
        }
        if meta.is_dir() {
            waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        found.insert(name, meta.permissions().mode() & 0o7777);
    }
    found
}

fn umask() -> u16 {
    driftless::fs::umask()
}

fn by_rsync(pair: &Pair, changes: &str) -> Option<BTreeMap<PathBuf, u32>> {
    let to = pair.path("by-rsync");
    let outcome = Command::new("rsync")
        .args(["-a", &format!("--chmod={changes}")])
        .args([format!("{}/", pair.src().display()), format!("{}/", to.display())])
        .status();
    if !outcome.is_ok_and(|status| status.success()) {
        skip("no rsync");
        return None;
    }
    let found = modes(&to);
    fs::remove_dir_all(&to).unwrap();
    Some(found)
}

/// One mirror, with one list after the other: each arrives without any content.
#[test]
fn d_28_modes_are_those_that_rsync_would_give() {
    if !is_root() {
        return skip("trees that their owner may not read need root");
    }
    let mut pair = Pair::new();
    fill(&pair.src());
    for (number, changes) in [
        "F644,D755",
        "Dg+s,ug+w,Fo-w,+X",
        "u=rwX,go=rX",
        "a-s,+t",
        "=rw",
        "u=rws,g=s",
        "g-w,o=,Fa-X",
        "ug+s,F-t",
        "=",
        "7777",
        "Do+t,a+rX,a-X,u+X",
        "+s,Fug-x,+x",
    ]
    .into_iter()
    .enumerate()
    {
        pair.modes = ModeChanges::parse(changes, umask()).unwrap();
        let summary = pair.seed().unwrap();
        assert!(
            summary.in_sync && summary.failed.is_empty(),
            "{changes}: {summary:?}"
        );
        if number > 0 {
            assert_eq!(summary.counters.files_sent, 0, "{changes}: {summary:?}");
        }
        if let Some(expected) = by_rsync(&pair, changes) {
            assert_eq!(modes(&pair.dst()), expected, "{changes}");
        }
        crate::assert_verified(&pair);
    }
}

/// What changes later, and what has an ACL, whose mask is a part of the mode.
#[test]
fn d_28_modes_are_changed_under_a_live_mirror_and_with_acls() {
    let mut pair = Pair::new();
    pair.modes = ModeChanges::parse("go-w,Fo=", umask()).unwrap();
    let (src, dst) = (pair.src(), pair.dst());
    for name in ["guarded", "large"] {
        fs::write(
            src.join(name),
            vec![7; if name == "large" { 700_000 } else { 10 }],
        )
        .unwrap();
    }
    set_xattr(
        &src.join("guarded"),
        "system.posix_acl_access",
        &acl(1_234, 6, 4, 7),
    );
    let receiver = pair.receive();
    let following = Following::start(pair.sender_options(receiver.address(), true));
    let arrives = |name: &str, mode: u32| {
        wait_until(name, || {
            fs::symlink_metadata(dst.join(name)).is_ok_and(|meta| meta.permissions().mode() & 0o7777 == mode)
        });
    };
    arrives("guarded", 0o650);
    fs::write(src.join("new"), "x").unwrap();
    fs::set_permissions(src.join("new"), Permissions::from_mode(0o666)).unwrap();
    arrives("new", 0o640);
    fs::set_permissions(src.join("large"), Permissions::from_mode(0o777)).unwrap();
    arrives("large", 0o750);
    fs::create_dir(src.join("directory")).unwrap();
    fs::set_permissions(src.join("directory"), Permissions::from_mode(0o777)).unwrap();
    arrives("directory", 0o755);
    assert!(following.stop().unwrap().failed.is_empty());
    receiver.stop();
    crate::assert_verified(&pair);
    // Without changes the ACL is again what it is here.
    pair.modes = ModeChanges::default();
    let summary = pair.seed().unwrap();
    assert!(summary.in_sync && summary.failed.is_empty(), "{summary:?}");
    pair.assert_equal();
    crate::assert_verified(&pair);
}

#[test]
fn d_28_bad_changes_are_refused_before_anything_is_done() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("src")).unwrap();
    for (changes, says) in [
        ("u+z", "behind +, - and ="),
        ("DF644", "exclude each other"),
        ("8", "stand before"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_driftless"))
            .args(["mirror", "--once", "src", "made"])
            .arg(format!("--chmod={changes}"))
            .env("DRIFTLESS_HOME", directory.path().join("home"))
            .current_dir(directory.path())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.code() == Some(2) && text.contains(says),
            "{changes}: {text}"
        );
        assert!(!directory.path().join("made").exists());
    }
}
