//! Real programs at work on a source while it is mirrored.

use crate::mirror::Mirror;
use crate::scaled;
use crate::support::random::Random;
use crate::support::waiting::wait_until;
use crate::support::{Pair, skip};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::Command;

/// Runs a program to its end.
fn run(directory: &Path, program: &str, arguments: &[&str]) {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(directory)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn has(program: &str) -> bool {
    let found = Command::new(program)
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success());
    if !found {
        skip(&format!("no {program} here"));
    }
    found
}

#[test]
fn d_26_git_works_on_a_source() {
    if !has("git") {
        return;
    }
    let mirror = Mirror::start(Pair::new());
    let (origin, work) = (mirror.pair.path("origin"), mirror.pair.src().join("work"));
    let git = |directory: &Path, line: &str| {
        let who = ["-c", "user.name=t", "-c", "user.email=t@example.org"];
        let arguments: Vec<_> = who.into_iter().chain(line.split(' ')).collect();
        run(directory, "git", &arguments);
    };
    fs::create_dir(&origin).unwrap();
    git(&origin, "init --quiet --initial-branch=main");
    let mut random = Random(26);
    for commit in 0..4 {
        for number in 0..30 {
            let path = origin.join(format!("d{}/e{}/f{number}", number % 3, number % 5));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            // Some of it text that a diff can do something with.
            let text = format!("{commit} {number}\n").repeat(1 + random.below(200));
            fs::write(&path, text).unwrap();
        }
        git(&origin, "add --all");
        git(&origin, &format!("commit --quiet -m c{commit}"));
        git(&origin, &format!("tag t{commit}"));
    }
    git(
        mirror.pair.directory.path(),
        "clone --quiet --no-hardlinks origin src/work",
    );
    mirror.settle();
    for round in 0..scaled(3) {
        git(&work, &format!("checkout --quiet t{}", round % 4));
        git(&work, &format!("checkout --quiet -B branch{round}"));
        fs::write(work.join("d0/e0/f0"), format!("edited in {round}")).unwrap();
        git(&work, &format!("commit --quiet -a -m round{round}"));
        git(&work, "repack -q");
        git(&work, "checkout --quiet main");
        git(&work, "gc --quiet --prune=now");
    }
    mirror.settle();
    // The copy is a repository in good order.
    let copy = mirror.pair.dst().join("work");
    git(&copy, "-c safe.directory=* fsck --strict");
    git(&work, "rm -r --quiet d1");
    mirror.settle();
    mirror.end_and_compare();
}

#[test]
fn d_26_an_archive_is_extracted() {
    if !has("tar") {
        return;
    }
    let mirror = Mirror::start(Pair::new());
    let (packed, src) = (mirror.pair.path("packed"), mirror.pair.src());
    let mut random = Random(27);
    for number in 0..scaled(300) {
        let path = packed.join(format!("d{}/d{}/f{number}", number % 7, number % 11));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, random.bytes()).unwrap();
    }
    fs::hard_link(packed.join("d0/d0/f0"), packed.join("linked")).unwrap();
    std::os::unix::fs::symlink("d0/d0", packed.join("link")).unwrap();
    fs::create_dir(packed.join("closed")).unwrap();
    fs::write(packed.join("closed/inner"), b"inner").unwrap();
    fs::set_permissions(
        packed.join("closed"),
        std::os::unix::fs::PermissionsExt::from_mode(0o555),
    )
    .unwrap();
    run(&packed, "tar", &["-czf", "../archive.tar.gz", "."]);
    let archive = mirror.pair.path("archive.tar.gz").display().to_string();
    // Modes and times come last, at directories that are full by then.
    run(&src, "tar", &["-xzpf", &archive]);
    mirror.settle();
    run(&src, "tar", &["-xzpf", &archive, "--overwrite"]);
    mirror.settle();
    mirror.end_and_compare();
}

#[test]
fn d_26_packages_are_installed_and_upgraded() {
    if !has("dpkg-deb") || !has("dpkg") {
        return;
    }
    let mirror = Mirror::start(Pair::new());
    let (src, place) = (mirror.pair.src(), mirror.pair.path("packages"));
    let mut random = Random(28);
    let package = |version: usize, random: &mut Random| {
        let tree = place.join(version.to_string());
        for name in ["DEBIAN", "usr/bin", "usr/share/doc/sample", "etc"] {
            fs::create_dir_all(tree.join(name)).unwrap();
        }
        let control = format!(
            "Package: sample\nVersion: {version}\nArchitecture: all\nMaintainer: t <t@example.org>\n\
             Description: sample\n"
        );
        fs::write(tree.join("DEBIAN/control"), control).unwrap();
        for number in 0..60 {
            // Each version has files that the other lacks.
            let name = format!("usr/share/doc/sample/f{}", number + 20 * version);
            fs::write(tree.join(name), random.bytes()).unwrap();
        }
        fs::write(tree.join("usr/bin/sample"), random.exactly(300_000)).unwrap();
        let archive = place.join(format!("{version}.deb"));
        let (from, to) = (tree.display().to_string(), archive.display().to_string());
        run(&place, "dpkg-deb", &["--root-owner-group", "--build", &from, &to]);
        to
    };
    fs::create_dir(&place).unwrap();
    for version in 1..=scaled(2) {
        let archive = package(version, &mut random);
        let root = src.join("root").display().to_string();
        // A root and a database of its own, in the source as well: nothing on this machine is installed.
        fs::create_dir_all(src.join("root/var/lib/dpkg/info")).unwrap();
        fs::create_dir_all(src.join("root/var/lib/dpkg/updates")).unwrap();
        for name in ["status", "available"] {
            let path = src.join("root/var/lib/dpkg").join(name);
            OpenOptions::new().create(true).append(true).open(path).unwrap();
        }
        let (root, log) = (format!("--root={root}"), format!("--log={root}/log"));
        run(
            &src,
            "dpkg",
            &[
                &root,
                &log,
                "--force-not-root",
                "--force-bad-path",
                "-i",
                &archive,
            ],
        );
        run(
            &src,
            "dpkg-deb",
            &["-x", &archive, &src.join("extracted").display().to_string()],
        );
    }
    mirror.settle();
    assert!(mirror.pair.dst().join("root/usr/bin/sample").exists());
    mirror.end_and_compare();
}

const WRITE_DATABASE: &str = "
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute('pragma journal_mode=wal')
db.execute('create table if not exists t (id integer primary key, text text)')
for round in range(int(sys.argv[2])):
    with db:
        db.executemany('insert into t (text) values (?)', [(str(i) * 50,) for i in range(40)])
        db.execute('update t set text = ? where id % 7 = ?', (str(round), round % 7))
        db.execute('delete from t where id % 11 = ?', (round % 11,))
    if round % 10 == 9:
        db.execute('pragma wal_checkpoint(truncate)')
# Not closed: the log stays beside the database, as with a program that goes on.
import os
os._exit(0)
";

const CHECK_DATABASE: &str = "
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
assert db.execute('pragma integrity_check').fetchall() == [('ok',)]
print(db.execute('select count(*), sum(id), max(text) from t').fetchall())
";

/// A copy taken when all is quiet opens cleanly, with its log.
#[test]
fn d_26_a_database_with_a_log() {
    if !has("python3") {
        return;
    }
    let python = |script: &str, arguments: &[&str]| {
        let output = Command::new("python3")
            .args(["-c", script])
            .args(arguments)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{text}");
        String::from_utf8(output.stdout).unwrap()
    };
    let mirror = Mirror::start(Pair::new());
    let src = mirror.pair.src();
    let database = src.join("db").display().to_string();
    for _ in 0..2 {
        python(WRITE_DATABASE, &[&database, &scaled(45).to_string()]);
        // Its index of the log is a mapping, which is of no use to a copy: SQLite makes it anew.
        wait_until("the database and its log", || {
            ["db", "db-wal"]
                .iter()
                .all(|name| fs::read(src.join(name)).ok() == fs::read(mirror.pair.dst().join(name)).ok())
        });
    }
    assert!(mirror.pair.src().join("db-wal").exists(), "it left no log");
    // Opened in another place: whoever opens a database writes to it.
    let open = |from: &Path, name: &str| {
        let place = mirror.pair.path(name);
        fs::create_dir(&place).unwrap();
        for file in ["db", "db-wal"] {
            fs::copy(from.join(file), place.join(file)).unwrap();
        }
        python(CHECK_DATABASE, &[&place.join("db").display().to_string()])
    };
    let (ours, theirs) = (
        open(&mirror.pair.src(), "ours"),
        open(&mirror.pair.dst(), "theirs"),
    );
    assert_eq!(ours, theirs);
    fs::remove_file(src.join("db-shm")).unwrap();
    mirror.settle();
    mirror.end_and_compare();
}

/// The ways in which editors save, each of them often, and one after the other without a pause.
#[test]
fn d_26_editors_save_in_their_ways() {
    let mirror = Mirror::start(Pair::new());
    let src = mirror.pair.src();
    let path = src.join("text");
    let beside = |suffix: &str| src.join(format!("text{suffix}"));
    fs::write(&path, b"first").unwrap();
    let text = |round: usize, way: &str| format!("{way} {round}\n").repeat(50);
    for round in 0..scaled(15) {
        // vim with `backupcopy=no`: the old file becomes the backup, and goes when the new one is written.
        fs::write(beside(".swp"), b"swap").unwrap();
        fs::rename(&path, beside("~")).unwrap();
        fs::write(&path, text(round, "backup and rename")).unwrap();
        fs::remove_file(beside("~")).unwrap();
        fs::remove_file(beside(".swp")).unwrap();
        // vim with `backupcopy=yes`, nano: truncate and write.
        fs::copy(&path, beside("~")).unwrap();
        fs::write(&path, text(round, "truncate and write")).unwrap();
        // gedit, VS Code with atomic saves: a new file is renamed over the old.
        fs::write(beside(".tmp"), text(round, "rename over")).unwrap();
        fs::File::open(beside(".tmp")).unwrap().sync_all().unwrap();
        fs::rename(beside(".tmp"), &path).unwrap();
        // emacs: a link to nowhere as lock, the backup a hard link.
        std::os::unix::fs::symlink("user@host.1:1", beside(".lock")).unwrap();
        fs::hard_link(&path, beside(".backup")).unwrap();
        fs::write(beside(".new"), text(round, "link and rename")).unwrap();
        fs::rename(beside(".new"), &path).unwrap();
        fs::remove_file(beside(".backup")).unwrap();
        fs::remove_file(beside(".lock")).unwrap();
        // In several writes.
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        for part in 0..3 {
            writeln!(file, "and part {part}").unwrap();
        }
        drop(file);
        if round % 5 == 4 {
            mirror.settle();
        }
    }
    mirror.settle();
    mirror.end_and_compare();
}
