//! Sources that are one file, and `--relative`: by the real binary, with editors at work.

mod support;

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Child, Command};
use support::machine::Machine;
use support::until;

/// A machine with some files in `etc`.
fn desk() -> Machine {
    let desk = Machine::new();
    desk.write("etc/hosts", "first");
    desk.write("etc/other", "not mirrored");
    desk.write("etc/ssh/config", "ssh");
    desk
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Everything below a directory but our own names: mode, inode, time of modification, and content or link text.
fn all(root: &Path) -> BTreeMap<String, (u32, u64, i64, String)> {
    let mut found = BTreeMap::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let shown = path.strip_prefix(root).unwrap().display().to_string();
            if shown.starts_with(".driftless") {
                continue;
            }
            let text = match meta.file_type() {
                kind if kind.is_dir() => {
                    directories.push(path.clone());
                    String::new()
                }
                kind if kind.is_symlink() => fs::read_link(&path).unwrap().display().to_string(),
                _ => fs::read_to_string(&path).unwrap(),
            };
            found.insert(shown, (meta.mode() & 0o7777, meta.ino(), meta.mtime_nsec(), text));
        }
    }
    found
}

fn names(root: &Path) -> Vec<String> {
    all(root).into_keys().collect()
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// As vim does it (the old one is moved to a backup, a new one takes its name), as sed -i and gedit do (a temporary is
/// renamed over it), and in place.
fn edit(path: &Path, how: usize, content: &str) {
    let beside = path.with_file_name(format!(".{how}.swp"));
    match how % 3 {
        0 => {
            fs::rename(path, &beside).unwrap();
            fs::write(path, content).unwrap();
            fs::remove_file(&beside).unwrap();
        }
        1 => {
            fs::write(&beside, content).unwrap();
            fs::rename(&beside, path).unwrap();
        }
        _ => fs::write(path, content).unwrap(),
    }
}

#[test]
fn a_single_file_follows_editors_and_nothing_else_is_touched() {
    let desk = desk();
    let dst = desk.path("dst");
    fs::write(dst.join("other"), "of the target").unwrap();
    fs::create_dir(dst.join("ssh")).unwrap();
    fs::set_permissions(&dst, Permissions::from_mode(0o751)).unwrap();
    fs::set_permissions(desk.path("etc"), Permissions::from_mode(0o700)).unwrap();
    let others = |dst: &Path| {
        let mut found = all(dst);
        found.remove("hosts");
        found
    };
    let before = others(&dst);
    let command = desk.command("mirror etc/hosts dst").spawn().unwrap();
    let running = Running(command);
    let copy = dst.join("hosts");
    until("it is there", || text(&copy) == "first");
    for how in 0..9 {
        let content = format!("edit {how}");
        edit(&desk.path("etc/hosts"), how, &content);
        fs::write(desk.path("etc/other"), &content).unwrap();
        fs::write(desk.path(&format!("etc/new-{how}")), &content).unwrap();
        until("the edit is there", || text(&copy) == content);
        assert_eq!(others(&dst), before, "edit {how}");
    }
    fs::set_permissions(desk.path("etc/hosts"), Permissions::from_mode(0o600)).unwrap();
    until("the mode is there", || {
        copy.metadata().is_ok_and(|meta| meta.mode() & 0o7777 == 0o600)
    });
    fs::remove_file(desk.path("etc/hosts")).unwrap();
    until("it is gone", || !copy.exists());
    fs::write(desk.path("etc/hosts"), "back").unwrap();
    until("it is back", || text(&copy) == "back");
    drop(running);
    assert_eq!(others(&dst), before);
    let mode = dst.metadata().unwrap().mode() & 0o7777;
    assert_eq!(mode, 0o751, "the directory's own attributes are not the source's");
    assert!(desk.succeeds("verify etc/hosts dst").contains("equal"));
}

#[test]
fn a_file_is_put_into_a_directory_or_to_its_own_name() {
    let desk = desk();
    desk.succeeds("mirror --once etc/hosts new/");
    assert_eq!(names(&desk.path("new")), ["hosts"]);
    fs::create_dir(desk.path("deep")).unwrap();
    desk.succeeds("mirror --once etc/hosts deep/hosts");
    assert_eq!(text(&desk.path("deep/hosts")), "first");
    desk.is_usage(
        "mirror --once etc/hosts deep/other-name",
        &["a file keeps its name"],
    );
    assert!(!desk.path("deep/other-name").exists());
    // A second one, into the same directory: the first one stays.
    desk.succeeds("mirror --once etc/other deep");
    assert_eq!(names(&desk.path("deep")), ["hosts", "other"]);
    // A directory beside it is no loop, its own is.
    desk.succeeds("mirror --once etc/hosts etc/ssh");
    assert_eq!(text(&desk.path("etc/ssh/hosts")), "first");
    desk.is_usage("mirror --once etc/hosts etc", &["same directory"]);
    desk.is_usage(
        "mirror --once --files-from etc/other etc/hosts dst",
        &["--files-from"],
    );
    symlink("hosts", desk.path("etc/link")).unwrap();
    desk.succeeds("mirror --once etc/link dst");
    assert_eq!(fs::read_link(desk.path("dst/link")).unwrap(), Path::new("hosts"));
    assert_eq!(desk.run("mirror --once etc/missing dst").0, Some(1));
    // What a dry run tells is what is done: the directory is left alone.
    let told = desk.succeeds("mirror --once -n etc/hosts dst");
    let items: Vec<_> = told.lines().filter(|line| line.ends_with("hosts")).collect();
    assert_eq!(items.len(), 1, "{told}");
    assert!(!told.contains("./\n"), "{told}");
}

#[test]
fn relative_sources_keep_the_path_behind_the_dot() {
    let desk = desk();
    fs::set_permissions(desk.path("etc/ssh"), Permissions::from_mode(0o711)).unwrap();
    desk.succeeds("mirror --once -R ./etc/ssh/config dst");
    assert_eq!(names(&desk.path("dst")), ["etc", "etc/ssh", "etc/ssh/config"]);
    let mode = |path: &str| desk.path(path).metadata().unwrap().mode() & 0o7777;
    assert_eq!(mode("dst/etc/ssh"), 0o711);
    fs::create_dir(desk.path("second")).unwrap();
    desk.succeeds("mirror --once --relative etc/./ssh second");
    assert_eq!(names(&desk.path("second")), ["ssh", "ssh/config"]);
    // As rsync has it.
    for (ours, source) in [("dst", "./etc/ssh/config"), ("second", "etc/./ssh")] {
        let Ok(output) = Command::new("rsync")
            .args(["-aRnic", "--delete", source])
            .arg(format!("{ours}/"))
            .current_dir(desk.root())
            .output()
        else {
            return;
        };
        let told = String::from_utf8(output.stdout).unwrap();
        // The times of `.` are nobody's.
        let told: Vec<_> = told.lines().filter(|line| !line.ends_with(" ./")).collect();
        assert!(told.is_empty(), "{source}: {told:?}");
    }
    // What goes from the source goes, and nothing beside it.
    fs::write(desk.path("second/beside"), "of the target").unwrap();
    fs::remove_file(desk.path("etc/ssh/config")).unwrap();
    desk.succeeds("mirror --once --relative etc/./ssh second");
    assert_eq!(names(&desk.path("second")), ["beside", "ssh"]);
    desk.is_usage("mirror --once -R etc/./ssh/../hosts dst", &["`..`"]);
    desk.is_usage(
        "mirror --once -R --files-from etc/other etc dst",
        &["--files-from"],
    );
}
