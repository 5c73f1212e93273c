//! What a receiver keeps of what it replaces and deletes, and of what somebody else changed there: with both daemons, and
//! through the real program.

mod support;

use driftless::daemon::keeping::{Drift, Keeping};
use driftless::daemon::{Deletes, Phase};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use support::machine::Machine;
use support::settled::wait_settled;
use support::waiting::wait_until;
use support::{Following, Pair, assert_no_leftovers};

/// Every file below a directory: path and content, our own places included.
fn files(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                found.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
    }
    found
}

/// What is on a shelf, by former path; several versions in the order in which they came.
fn shelf(root: &Path, name: &str) -> Vec<(String, String)> {
    let prefix = format!("{name}/");
    let on_shelf = files(root).into_iter().filter_map(|(path, content)| {
        let (_, was) = path.strip_prefix(&prefix)?.split_once('/')?;
        Some((was.to_owned(), content))
    });
    let mut found: Vec<_> = on_shelf.collect();
    found.sort();
    found
}

fn pair_of(policy: Drift) -> Pair {
    let mut pair = Pair::new();
    pair.keeping = Keeping {
        drift: policy,
        ..Keeping::default()
    };
    fs::create_dir_all(pair.src().join("etc/app")).unwrap();
    for name in ["etc/app/one", "etc/app/two", "etc/three", "four"] {
        fs::write(pair.src().join(name), format!("{name} as it was")).unwrap();
    }
    pair
}

fn text(pair: (&str, &str)) -> (String, String) {
    (pair.0.to_owned(), pair.1.to_owned())
}

#[test]
fn edits_on_the_target_are_set_aside_when_the_source_changes_the_same() {
    let pair = pair_of(Drift::Keep);
    let receiver = pair.receive();
    let following = Following::start(pair.sender_options(receiver.address(), true));
    following.watching.wait_in_sync();
    // While the mirror is live: content of one, attributes of another, a new file, and one in a directory that goes.
    fs::write(pair.dst().join("four"), "edited there").unwrap();
    fs::set_permissions(pair.dst().join("etc/three"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(pair.dst().join("etc/new"), "made there").unwrap();
    fs::write(pair.dst().join("etc/app/two"), "edited there, too").unwrap();
    fs::write(pair.src().join("four"), "changed here").unwrap();
    fs::write(pair.src().join("etc/three"), "changed here, too").unwrap();
    fs::write(pair.src().join("etc/new"), "made here").unwrap();
    fs::remove_dir_all(pair.src().join("etc/app")).unwrap();
    wait_settled(&pair, &following);
    let wanted = [
        ("etc/app/two", "edited there, too"),
        ("etc/new", "made there"),
        ("four", "edited there"),
    ];
    assert_eq!(shelf(&pair.dst(), ".driftless-kept"), wanted.map(text));
    let status = receiver.status();
    let kept = &status.modules[0].keeping;
    assert_eq!((kept.edits_kept, kept.edits_refused, kept.trashed), (3, 0, 0));
    let latest = &kept.latest_edits;
    assert!(
        latest
            .iter()
            .any(|path| path.starts_with(".driftless-kept/") && path.ends_with("/four")),
        "{latest:?}"
    );
    following.stop().unwrap();
    receiver.stop();
}

#[test]
fn edits_that_a_start_finds_are_set_aside() {
    let pair = pair_of(Drift::Keep);
    assert!(pair.seed().unwrap().in_sync);
    fs::write(pair.dst().join("four"), "edited there").unwrap();
    fs::write(pair.dst().join("etc/three"), "etc/three as it was").unwrap();
    fs::remove_file(pair.src().join("etc/app/one")).unwrap();
    fs::write(pair.dst().join("etc/app/one"), "edited before it went").unwrap();
    let summary = pair.seed().unwrap();
    assert!(summary.in_sync && summary.failed.is_empty(), "{summary:?}");
    pair.assert_equal();
    let wanted = [("etc/app/one", "edited before it went"), ("four", "edited there")];
    assert_eq!(shelf(&pair.dst(), ".driftless-kept"), wanted.map(text));
}

#[test]
fn an_edit_that_is_refused_fails_alone_until_somebody_decides() {
    let pair = pair_of(Drift::Refuse);
    assert!(pair.seed().unwrap().in_sync);
    fs::write(pair.dst().join("four"), "edited there").unwrap();
    fs::write(pair.src().join("four"), "changed here").unwrap();
    // Large enough to be offered; nothing of it is sent in vain.
    let large = "changed here\n".repeat(400_000);
    fs::write(pair.dst().join("etc/three"), "edited there").unwrap();
    fs::write(pair.src().join("etc/three"), &large).unwrap();
    fs::write(pair.dst().join("etc/app/two"), "edited there").unwrap();
    fs::remove_dir_all(pair.src().join("etc/app")).unwrap();
    fs::write(pair.src().join("five"), "new here").unwrap();
    let summary = pair.seed().unwrap();
    assert_eq!(summary.failed.len(), 3, "{:?}", summary.failed);
    for failed in &summary.failed {
        assert!(failed.error.contains("--drift refuse"), "{failed:?}");
    }
    assert!(
        summary.counters.wire_bytes_sent < 1_000_000,
        "{}",
        summary.counters.wire_bytes_sent
    );
    let there = files(&pair.dst());
    for name in ["four", "etc/three", "etc/app/two"] {
        assert_eq!(there[name], "edited there", "{name}");
    }
    assert_eq!(there["five"], "new here");
    assert_no_leftovers(&pair.dst());
    // One is moved away; for the others the answer is another policy.
    fs::rename(pair.dst().join("four"), pair.path("mine")).unwrap();
    assert_eq!(pair.seed().unwrap().failed.len(), 2);
    assert_eq!(
        fs::read_to_string(pair.dst().join("four")).unwrap(),
        "changed here"
    );
    let mut pair = pair;
    pair.keeping.drift = Drift::Keep;
    let summary = pair.seed().unwrap();
    assert!(summary.in_sync && summary.failed.is_empty(), "{summary:?}");
    pair.assert_equal();
    let wanted = [("etc/app/two", "edited there"), ("etc/three", "edited there")];
    assert_eq!(shelf(&pair.dst(), ".driftless-kept"), wanted.map(text));
}

#[test]
fn a_refused_change_does_not_hold_up_a_live_mirror() {
    let pair = pair_of(Drift::Refuse);
    let receiver = pair.receive();
    let following = Following::start(pair.sender_options(receiver.address(), true));
    following.watching.wait_in_sync();
    fs::write(pair.dst().join("four"), "edited there").unwrap();
    fs::write(pair.src().join("four"), "changed here").unwrap();
    wait_until("it is refused", || {
        receiver.status().modules[0].keeping.edits_refused > 0
    });
    fs::write(pair.src().join("etc/three"), "changed later").unwrap();
    wait_until("what came later is there", || {
        fs::read_to_string(pair.dst().join("etc/three")).is_ok_and(|text| text == "changed later")
    });
    following
        .watching
        .wait_for(|phase| matches!(phase, Phase::InSync { .. }));
    let summary = following.stop().unwrap();
    assert_eq!(summary.failed.len(), 1);
    assert_eq!(
        fs::read_to_string(pair.dst().join("four")).unwrap(),
        "edited there"
    );
    receiver.stop();
}

#[test]
fn what_was_there_before_the_mirror_is_nobody_elses_to_lose() {
    for policy in [Drift::Keep, Drift::Refuse] {
        let mut pair = pair_of(policy);
        pair.deletes = Deletes::Always;
        fs::write(pair.dst().join("four"), "theirs").unwrap();
        fs::write(pair.dst().join("extra"), "theirs").unwrap();
        fs::create_dir(pair.dst().join("etc")).unwrap();
        fs::write(pair.dst().join("etc/three"), "etc/three as it was").unwrap();
        let summary = pair.seed().unwrap();
        if policy == Drift::Keep {
            assert!(summary.in_sync && summary.failed.is_empty(), "{summary:?}");
            pair.assert_equal();
            let wanted = [("extra", "theirs"), ("four", "theirs")];
            assert_eq!(shelf(&pair.dst(), ".driftless-kept"), wanted.map(text));
        } else {
            assert_eq!(summary.failed.len(), 2, "{:?}", summary.failed);
            let there = files(&pair.dst());
            assert_eq!((&*there["four"], &*there["extra"]), ("theirs", "theirs"));
            assert_eq!(there["etc/app/one"], "etc/app/one as it was");
        }
    }
}

#[test]
fn the_trash_is_listed_given_back_and_emptied() {
    let machine = Machine::new();
    for name in ["src/etc/app.conf", "src/etc/d/one", "src/etc/d/two"] {
        machine.write(name, "first");
    }
    let mirror = "mirror src dst --once -q --trash 7d --delete always";
    machine.succeeds(mirror);
    assert_eq!(machine.succeeds("trash list dst"), "");
    machine.write("src/etc/app.conf", "second, longer");
    machine.succeeds(mirror);
    machine.write("src/etc/app.conf", "third");
    fs::remove_dir_all(machine.path("src/etc/d")).unwrap();
    machine.succeeds(mirror);
    machine.succeeds("verify src dst");
    let listed = machine.succeeds("trash list dst");
    let lines: Vec<_> = listed.lines().collect();
    assert_eq!(lines.len(), 4, "{listed}");
    assert!(
        lines[0].contains("Z") && lines[0].ends_with("etc/app.conf") && lines[0].contains(" 5 B "),
        "{listed}"
    );
    assert!(
        listed.contains("etc/d/one") && listed.contains("14 B"),
        "{listed}"
    );
    assert_eq!(machine.succeeds("trash list dst etc/d").lines().count(), 2);
    let json: serde_json::Value = serde_json::from_str(&machine.succeeds("trash list dst --json")).unwrap();
    let entries = json["entries"].as_array().unwrap();
    assert_eq!(entries.len(), 4);
    let of_file = |entry: &&serde_json::Value| entry["path"] == "etc/app.conf";
    let versions: Vec<_> = entries.iter().filter(of_file).collect();
    assert_eq!(
        (versions[0]["size"].as_u64(), versions[1]["size"].as_u64()),
        (Some(5), Some(14))
    );

    // Nothing is replaced by what is given back.
    let (status, said) = machine.run("trash restore dst etc/app.conf");
    assert!(
        status == Some(1) && said.contains("nothing is replaced") && said.contains("--to"),
        "{said}"
    );
    assert_eq!(
        fs::read_to_string(machine.path("dst/etc/app.conf")).unwrap(),
        "third"
    );
    machine.succeeds("trash restore dst etc/app.conf --to back");
    assert_eq!(
        fs::read_to_string(machine.path("back")).unwrap(),
        "second, longer"
    );
    let first = versions[0]["from"].as_str().unwrap();
    machine.succeeds(&format!(
        "trash restore dst ./etc/app.conf --from {first} --to older"
    ));
    assert_eq!(fs::read_to_string(machine.path("older")).unwrap(), "first");
    machine.succeeds("trash restore dst etc/d/");
    assert_eq!(
        fs::read_to_string(machine.path("dst/etc/d/two")).unwrap(),
        "first"
    );
    assert_eq!(machine.succeeds("trash list dst"), "");
    for (line, status, word) in [
        ("trash restore dst etc/app.conf", 1, "there is no etc/app.conf"),
        ("trash restore dst ../dst", 2, "`..`"),
        ("trash restore dst /etc/passwd", 2, "absolute"),
        ("trash list nowhere", 1, "nowhere"),
    ] {
        let (ended, said) = machine.run(line);
        assert!(
            ended == Some(status) && said.contains(word),
            "{line}: {ended:?} {said}"
        );
    }

    // Given back there, the mirror takes it away again, to the trash.
    machine.succeeds(mirror);
    assert!(!machine.path("dst/etc/d").exists());
    assert!(
        machine
            .succeeds("trash empty dst --older-than 1d")
            .contains("removed 0")
    );
    assert_eq!(machine.succeeds("trash list dst").lines().count(), 2);
    // The directory of the time, those above, and the two files.
    assert!(machine.succeeds("trash empty dst").contains("removed 5 entries"));
    assert_eq!(machine.succeeds("trash list dst"), "");
}

/// As `rsync -b` leaves it: same names, same contents, whatever was there before.
#[test]
fn backups_are_those_of_rsync() {
    for options in [
        "--backup",
        "--backup --suffix .bak",
        "--backup --backup-dir old",
        "--backup --backup-dir old --suffix .1",
    ] {
        let machine = Machine::new();
        for name in ["a", "b", "d/c", "d/e", "gone/x", "gone/y/z", "kept~"] {
            machine.write(&format!("src/{name}"), &format!("{name} first"));
        }
        let mirror = format!("mirror src dst --once -q --delete always {options}");
        // rsync would delete its own directory of backups, to a backup in it.
        let rsync = || {
            let mut command = Command::new("rsync");
            command
                .args(["-a", "--delete", "--exclude=/old/"])
                .args(options.split(' '));
            assert!(
                command
                    .arg("src/")
                    .arg("theirs/")
                    .current_dir(machine.root())
                    .status()
                    .unwrap()
                    .success()
            );
        };
        let both = |step: &str| {
            machine.succeeds(&mirror);
            rsync();
            let (mut ours, theirs) = (files(&machine.path("dst")), files(&machine.path("theirs")));
            ours.retain(|name, _| !name.starts_with(".driftless"));
            assert_eq!(ours, theirs, "{options}, {step}");
        };
        both("seeded");
        machine.write("src/a", "a second");
        fs::remove_file(machine.path("src/d/e")).unwrap();
        both("changed and deleted");
        machine.write("src/a", "a third");
        machine.write("src/d/e", "e is back");
        both("again");
        fs::remove_dir_all(machine.path("src/gone")).unwrap();
        both("a directory is gone");
        both("nothing");
        // A directory that is gone from the source stays for its backups, there as here.
        let stays = !options.contains("--backup-dir");
        let (status, said) = machine.run(&format!("verify src dst {options}"));
        let wanted = if stays {
            (Some(4), "gone  only on the target")
        } else {
            (Some(0), "equal")
        };
        assert!(status == wanted.0 && said.contains(wanted.1), "{options}: {said}");
        assert_eq!(
            said.matches("differs").count(),
            usize::from(stays),
            "{options}: {said}"
        );
    }
}

#[test]
fn a_directory_of_backups_cannot_be_mirrored_to() {
    let machine = Machine::new();
    machine.write("src/old/x", "x");
    machine.write("src/y", "y");
    let (status, said) = machine.run("mirror src dst --once -q --backup --backup-dir old");
    assert!(
        status == Some(3) && said.contains("keeps backups"),
        "{status:?} {said}"
    );
    assert_eq!(fs::read_to_string(machine.path("dst/y")).unwrap(), "y");
    let said = machine.succeeds("id");
    let target = format!(
        "driftless://{}@127.0.0.1:9/m",
        said.split_whitespace().last().unwrap()
    );
    let (status, said) = machine.run(&format!("mirror src {target} --once --trash 7d"));
    assert!(status == Some(2) && said.contains("driftless receive"), "{said}");
}

/// A child that does not outlive the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn receive(machine: &Machine, address: &str, allow: &str) -> (Running, serde_json::Value) {
    let line = format!("receive dst --module m --listen {address} --allow {allow} --trash 7d --json");
    let mut child = machine
        .command(&line)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut ready = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut ready)
        .unwrap();
    (Running(child), serde_json::from_str(&ready).unwrap())
}

/// A receiver that is killed at any moment has each old version in its trash whose place a new one has.
#[test]
fn a_receiver_that_is_killed_loses_no_old_version() {
    const FILES: usize = 300;
    let machine = Machine::new();
    let name = |file: usize| format!("d{}/f{file}", file % 7);
    let content = |file: usize, version: usize| format!("{file} in version {version}");
    let fill = |version: usize| {
        for file in 0..FILES {
            machine.write(&format!("src/{}", name(file)), &content(file, version));
        }
    };
    fill(0);
    let said = machine.succeeds("id");
    let allow = said.split_whitespace().last().unwrap();
    let (mut receiver, ready) = receive(&machine, "127.0.0.1:0", allow);
    let (identity, address) = (
        ready["identity"].as_str().unwrap(),
        ready["address"].as_str().unwrap(),
    );
    let target = format!("driftless://{identity}@{address}/m");
    machine.succeeds(&format!("seed src {target}"));
    for round in 1..5 {
        fill(round);
        let mut sender = Running(
            machine
                .command(&format!("seed src {target}"))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap(),
        );
        let seen = |file: usize| fs::read_to_string(machine.path("dst").join(name(file))).unwrap();
        let arrived = || {
            (0..FILES)
                .filter(|&file| seen(file) == content(file, round))
                .count()
        };
        wait_until("some have arrived", || arrived() >= round * 40);
        receiver.0.kill().unwrap();
        receiver.0.wait().unwrap();
        let _ = sender.0.kill();
        let _ = sender.0.wait();
        receiver = receive(&machine, address, allow).0;
        assert_no_displaced(&machine.path("dst"));
        let trash = shelf(&machine.path("dst"), ".driftless-trash");
        for file in 0..FILES {
            let now = seen(file);
            let version = (0..=round)
                .find(|&version| now == content(file, version))
                .expect(&now);
            // Every version was visible once, since each round but the last was sent to its end.
            for old in 0..version {
                let old = (name(file), content(file, old));
                assert_eq!(
                    trash.iter().filter(|found| **found == old).count(),
                    1,
                    "{old:?} of {now}"
                );
            }
        }
        machine.succeeds(&format!("seed src {target}"));
    }
    machine.succeeds(&format!("verify src {target}"));
}

fn assert_no_displaced(root: &Path) {
    let left = files(root)
        .into_keys()
        .find(|name| name.contains(".driftless-old-"));
    assert_eq!(left, None);
}
