//! `--link-dest` and `--copy-dest`: a row of versions of a tree, with rsync's as the measure.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, FileTimes, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};
use support::image::Image;
use support::{assert_equal, skip, tree};
use tempfile::TempDir;

struct Desk {
    directory: TempDir,
}

impl Desk {
    fn new() -> Desk {
        let desk = Desk {
            directory: tempfile::tempdir().unwrap(),
        };
        fs::create_dir(desk.path("home")).unwrap();
        fs::set_permissions(desk.path("home"), Permissions::from_mode(0o700)).unwrap();
        fs::create_dir_all(desk.path("src/a/b")).unwrap();
        for n in 0..20 {
            desk.write(&format!("a/file-{n}"), &format!("content {n}"));
            desk.write(&format!("a/b/deep-{n}"), &"x".repeat(n * 10_000));
        }
        symlink("file-1", desk.path("src/a/link")).unwrap();
        symlink("file-2", desk.path("src/a/other-link")).unwrap();
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Everything is a day old: nothing depends on how fast the test is.
    fn write(&self, name: &str, content: &str) {
        let path = self.path("src").join(name);
        fs::write(&path, content).unwrap();
        let day = SystemTime::now() - Duration::from_secs(86_400);
        let times = FileTimes::new().set_modified(day);
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_times(times)
            .unwrap();
    }

    /// One change of each kind, and much that stays.
    fn change(&self) {
        self.write("a/file-3", "another content");
        self.write("a/b/deep-7", "another size");
        self.write("a/new", "new");
        let src = self.path("src/a");
        fs::set_permissions(src.join("file-4"), Permissions::from_mode(0o600)).unwrap();
        let times = FileTimes::new().set_modified(SystemTime::now() - Duration::from_secs(40));
        File::options()
            .write(true)
            .open(src.join("file-5"))
            .unwrap()
            .set_times(times)
            .unwrap();
        fs::remove_file(src.join("file-6")).unwrap();
        fs::rename(src.join("b/deep-8"), src.join("b/moved")).unwrap();
        fs::remove_file(src.join("other-link")).unwrap();
        symlink("file-9", src.join("other-link")).unwrap();
    }

    fn run(&self, line: &str) -> (Option<i32>, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_driftless"))
            .args(line.split_whitespace())
            .env("DRIFTLESS_HOME", self.path("home"))
            .env_remove("RUST_LOG")
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.code(), text)
    }

    #[track_caller]
    fn succeed(&self, line: &str) -> String {
        let (status, text) = self.run(line);
        assert_eq!(status, Some(0), "{line}: {text}");
        text
    }

    fn rsync(&self, line: &str) -> Option<String> {
        let output = Command::new("rsync")
            .args(line.split_whitespace())
            .current_dir(self.directory.path())
            .output()
            .ok()?;
        assert!(output.status.success(), "{line}: {output:?}");
        Some(String::from_utf8(output.stdout).unwrap())
    }
}

/// Inodes of all that is no directory, by path.
fn inodes(root: &Path) -> BTreeMap<PathBuf, u64> {
    let mut found = BTreeMap::new();
    for path in tree(root).into_keys() {
        let path = PathBuf::from(String::from_utf8(path).unwrap());
        let meta = fs::symlink_metadata(root.join(&path)).unwrap();
        if !meta.is_dir() {
            found.insert(path, meta.ino());
        }
    }
    found
}

/// Paths that are the same object in both trees.
fn shared(one: &Path, other: &Path) -> BTreeSet<PathBuf> {
    let other = inodes(other);
    let same = inodes(one).into_iter();
    same.filter(|(path, inode)| other.get(path) == Some(inode))
        .map(|(path, _)| path)
        .collect()
}

#[test]
fn versions_share_what_rsync_shares() {
    let desk = Desk::new();
    desk.succeed("mirror --once src v1");
    let has_rsync = desk.rsync("-a src/ r1/").is_some();
    let first = tree(&desk.path("v1"));
    desk.change();
    let src = desk.path("src");
    desk.succeed("mirror --once --link-dest ../v1 src v2");
    assert_equal(&src, &desk.path("v2"));
    assert_eq!(tree(&desk.path("v1")), first, "the earlier version was changed");
    let sharing = shared(&desk.path("v1"), &desk.path("v2"));
    assert!(sharing.len() > 30, "{sharing:?}");
    if has_rsync {
        desk.rsync("-a --link-dest=../r1 src/ r2/").unwrap();
        assert_eq!(sharing, shared(&desk.path("r1"), &desk.path("r2")));
        let told = desk
            .rsync("-anic --delete --exclude=.driftless* src/ v2/")
            .unwrap();
        assert_eq!(told, "");
    } else {
        skip("rsync is not installed");
    }
    // Nothing changed: all of it is shared, with all before, also when it is looked at again.
    for _ in 0..2 {
        desk.succeed("mirror --once --link-dest ../v2 src v3");
        assert_eq!(inodes(&desk.path("v2")), inodes(&desk.path("v3")));
    }
    assert!(desk.succeed("verify src v3").contains("equal"));
    // Only attributes change: the version's are not touched.
    let second = tree(&desk.path("v2"));
    fs::set_permissions(src.join("a/file-1"), Permissions::from_mode(0o640)).unwrap();
    desk.succeed("mirror --once --link-dest ../v3 src v3b");
    desk.succeed("mirror --once --link-dest ../v2 src v3");
    for version in ["v3", "v3b"] {
        assert_equal(&src, &desk.path(version));
    }
    assert_eq!(tree(&desk.path("v2")), second);
    assert_eq!(tree(&desk.path("v1")), first);
    // A version may go without a trace in the others.
    fs::remove_dir_all(desk.path("v2")).unwrap();
    assert_equal(&src, &desk.path("v3"));
}

#[test]
fn copies_share_no_object() {
    let desk = Desk::new();
    desk.succeed("mirror --once src v1");
    let first = tree(&desk.path("v1"));
    desk.change();
    desk.succeed("mirror --once --copy-dest ../v1 src v2");
    assert_equal(&desk.path("src"), &desk.path("v2"));
    assert_eq!(shared(&desk.path("v1"), &desk.path("v2")), BTreeSet::new());
    assert_eq!(tree(&desk.path("v1")), first);
}

/// Files that have several names within the tree keep them, and no change of them reaches the version before.
#[test]
fn groups_of_names_stay_groups() {
    let desk = Desk::new();
    let src = desk.path("src");
    fs::hard_link(src.join("a/file-10"), src.join("a/b/second")).unwrap();
    fs::hard_link(src.join("a/file-10"), src.join("third")).unwrap();
    desk.succeed("mirror --once src v1");
    let first = tree(&desk.path("v1"));
    for (version, mode) in [("v2", 0o644), ("v3", 0o600)] {
        fs::set_permissions(src.join("third"), Permissions::from_mode(mode)).unwrap();
        desk.succeed(&format!("mirror --once --link-dest ../v1 src {version}"));
        assert_equal(&src, &desk.path(version));
        let found = inodes(&desk.path(version));
        let names = ["a/file-10", "a/b/second", "third"].map(|name| found[Path::new(name)]);
        assert_eq!(names, [names[0]; 3], "{version}");
        assert_eq!(tree(&desk.path("v1")), first, "{version}");
    }
}

#[test]
fn what_cannot_be_is_refused_and_a_first_version_needs_none() {
    let desk = Desk::new();
    let told = desk.succeed("mirror --once --link-dest ../latest src v1");
    assert!(told.contains("does not exist"), "{told}");
    assert_equal(&desk.path("src"), &desk.path("v1"));
    for line in [
        "mirror --link-dest ../v1 src v2",
        "mirror --once --inplace --link-dest ../v1 src v2",
        "mirror --once -n --link-dest ../v1 src v2",
        "mirror --once --link-dest ../v1 --copy-dest ../v1 src v2",
        "mirror --once --link-dest . src v2",
        "mirror --once --link-dest ../src src v2",
        "mirror --once --link-dest ../v1 src driftless://localhost:1/m",
    ] {
        let (status, text) = desk.run(line);
        assert_eq!(status, Some(2), "{line}: {text}");
    }
    // What is there and nobody began is somebody else's: it is asked about.
    fs::create_dir(desk.path("mine")).unwrap();
    fs::write(desk.path("mine/precious"), "mine").unwrap();
    let (status, text) = desk.run("mirror --once --link-dest ../v1 src mine");
    assert!(status == Some(1) && text.contains("--delete always"), "{text}");
    assert!(desk.path("mine/precious").exists());
    let Some(image) = Image::new("ext4") else { return };
    let (status, text) = desk.run(&format!(
        "mirror --once --link-dest {} src {}/v2",
        desk.path("v1").display(),
        image.path().display()
    ));
    assert!(status == Some(1) && text.contains("--copy-dest"), "{text}");
    desk.succeed(&format!(
        "mirror --once --copy-dest {} src {}/v2",
        desk.path("v1").display(),
        image.path().display()
    ));
    assert_equal(&desk.path("src"), &image.path().join("v2"));
}

/// A later run that writes in place does not write through to the versions before.
/// What a cut-off run of a version leaves at the root means nothing to a mirror that is none, and would make the next version take
/// all that is there for its own.
#[test]
fn a_plain_run_takes_over_from_a_version_that_was_cut_off() {
    let desk = Desk::new();
    let marker = desk.path("dst/.driftless-version-begun");
    fs::create_dir_all(&marker).unwrap();
    let (status, told) = desk.run("mirror src dst --once");
    assert_eq!(status, Some(0), "{told}");
    assert!(!marker.exists());
    assert_equal(&desk.path("src"), &desk.path("dst"));
}

#[test]
fn a_version_is_never_written_in_place() {
    let desk = Desk::new();
    desk.succeed("mirror --once src v1");
    desk.succeed("mirror --once --link-dest ../v1 src v2");
    let first = tree(&desk.path("v1"));
    desk.change();
    desk.succeed("mirror --once --inplace --delete always src v2");
    assert_equal(&desk.path("src"), &desk.path("v2"));
    assert_eq!(tree(&desk.path("v1")), first, "the earlier version was changed");
}
