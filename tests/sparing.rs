//! What is left as it is on the target: `--ignore-existing`, `--existing`, `--update`, compared with rsync, and live.

mod support;

use driftless::daemon::{Deletes, Summary};
use driftless_protocol::message::Sparing;
use std::fs::{self, File, FileTimes};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};
use support::waiting::wait_until;
use support::{Following, Pair, assert_equal, differences};

const EXISTING: Sparing = Sparing {
    existing: true,
    missing: false,
    newer: false,
};
const MISSING: Sparing = Sparing {
    existing: false,
    missing: true,
    newer: false,
};
const NEWER: Sparing = Sparing {
    existing: false,
    missing: false,
    newer: true,
};

fn options(sparing: Sparing) -> Vec<&'static str> {
    [
        (sparing.existing, "--ignore-existing"),
        (sparing.missing, "--existing"),
        (sparing.newer, "--update"),
    ]
    .into_iter()
    .filter_map(|(is_given, option)| is_given.then_some(option))
    .collect()
}

/// A file that was modified so many seconds ago.
fn write(root: &Path, name: &str, content: &str, age: u64) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, content).unwrap();
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 - age);
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_times(FileTimes::new().set_modified(time))
        .unwrap();
}

fn copy(from: &Path, to: &Path) {
    assert!(
        Command::new("cp")
            .arg("-a")
            .arg(from)
            .arg(to)
            .status()
            .unwrap()
            .success()
    );
}

/// Both trees filled, and a third one like the target, for rsync.
fn pair(sparing: Sparing) -> Pair {
    let mut pair = Pair::new();
    pair.sparing = sparing;
    pair.deletes = Deletes::Always;
    let (src, dst) = (pair.src(), pair.dst());
    for (name, theirs) in [
        ("older", 10),
        ("newer", 30),
        ("same-age", 20),
        ("d/older", 10),
        ("d/e/newer", 30),
    ] {
        write(&src, name, "the source's", theirs);
        write(&dst, name, "here before", 20);
    }
    write(&src, "equal", "equal", 5);
    write(&dst, "equal", "equal", 5);
    write(&src, "touched", "touched", 5);
    write(&dst, "touched", "touched", 50);
    for name in ["new", "new-dir/a", "new-dir/b/c", "d/new"] {
        write(&src, name, "only in the source", 1);
    }
    write(&dst, "extra", "only there", 1);
    write(&src, "was-dir", "a file", 30);
    write(&dst, "was-dir/inside", "a directory's", 1);
    write(&src, "was-file/inside", "a directory's", 30);
    write(&dst, "was-file", "a file", 1);
    std::os::unix::fs::symlink("here", src.join("link")).unwrap();
    std::os::unix::fs::symlink("there", dst.join("link")).unwrap();
    copy(&dst, &pair.path("theirs"));
    pair
}

/// Runs both, and compares what they leave.
fn both(pair: &Pair, step: &str) -> Summary {
    let summary = pair.seed().unwrap();
    assert!(
        summary.in_sync && summary.failed.is_empty(),
        "{step}: {summary:?}"
    );
    let mut rsync = Command::new("rsync");
    rsync.args(["-a", "--delete"]).args(options(pair.sparing));
    rsync
        .arg("src/")
        .arg("theirs/")
        .current_dir(pair.directory.path());
    let said = rsync.output().unwrap();
    // It says so when it leaves out what is below a file.
    assert!(matches!(said.status.code(), Some(0 | 23)), "{said:?}");
    let found = differences(&pair.dst(), &pair.path("theirs"));
    // Times of directories that neither was to write to are the source's here. And rsync gives a file the time of the
    // directory that it was not replaced by, and a link that it replaces with --existing no time at all.
    let found: Vec<_> = found
        .iter()
        .filter(|line| !line.contains("kind: 'd'"))
        .filter(|line| !(pair.sparing.existing && line.starts_with("was-file differs")))
        .filter(|line| !line.contains("kind: 'l'"))
        .collect();
    let link = |root: &Path| fs::read_link(root.join("link")).unwrap();
    assert_eq!(link(&pair.dst()), link(&pair.path("theirs")), "{step}");
    if pair.sparing.existing {
        assert_eq!(fs::read_to_string(pair.dst().join("was-file")).unwrap(), "a file");
    }
    assert!(
        found.is_empty(),
        "{:?}, {step}: {found:#?}",
        options(pair.sparing)
    );
    summary
}

#[test]
fn a_target_that_was_filled_before_is_left_as_rsync_leaves_it() {
    let both_of = |a: Sparing, b: Sparing| Sparing {
        existing: a.existing || b.existing,
        missing: a.missing || b.missing,
        newer: a.newer || b.newer,
    };
    for (sparing, withheld) in [
        (EXISTING, 11),
        (MISSING, 7),
        (NEWER, 2),
        (both_of(EXISTING, MISSING), 17),
    ] {
        let pair = pair(sparing);
        let first = both(&pair, "first");
        assert_eq!(first.counters.withheld, withheld, "{sparing:?}");
        let second = both(&pair, "nothing to do");
        assert_eq!(
            (second.counters.withheld, second.counters.files_sent),
            (withheld, 0),
            "{sparing:?}"
        );
        // What changes, comes and goes later.
        write(&pair.src(), "older", "changed at the source", 0);
        write(&pair.src(), "newer", "changed at the source", 0);
        write(&pair.src(), "later", "new", 0);
        fs::remove_file(pair.src().join("same-age")).unwrap();
        fs::remove_dir_all(pair.src().join("d/e")).unwrap();
        fs::rename(pair.src().join("equal"), pair.src().join("moved")).unwrap();
        both(&pair, "changed");
        both(&pair, "nothing to do again");
    }
}

#[test]
fn the_policy_may_change_and_then_everything_is_compared_again() {
    let mut pair = pair(EXISTING);
    assert!(both(&pair, "existing").counters.withheld > 0);
    pair.sparing = NEWER;
    both(&pair, "newer");
    pair.sparing = Sparing::default();
    let last = both(&pair, "all");
    assert_eq!(last.counters.withheld, 0);
    assert_equal(&pair.src(), &pair.dst());
    pair.sparing = MISSING;
    write(&pair.src(), "another", "x", 0);
    assert_eq!(both(&pair, "missing").counters.withheld, 1);
}

#[test]
fn a_live_mirror_leaves_the_same_things() {
    for sparing in [EXISTING, MISSING, NEWER] {
        let pair = pair(sparing);
        let receiver = pair.receive();
        let following = Following::start(pair.sender_options(receiver.address(), true));
        following.watching.wait_in_sync();
        let there = |name: &str| fs::read_to_string(pair.dst().join(name)).ok();
        let (src, dst) = (pair.src(), pair.dst());
        match sparing {
            EXISTING => {
                // Somebody is quicker than the source; and what this run put there is brought to its end.
                write(&dst, "both", "theirs", 0);
                write(&src, "both", "ours", 0);
                write(&src, "growing", "begun", 0);
                wait_until("it is begun", || there("growing").as_deref() == Some("begun"));
                write(&src, "growing", "begun and ended", 0);
                wait_until("it is ended", || {
                    there("growing").as_deref() == Some("begun and ended")
                });
                // Another file that is there, too, takes the place of one: what has the place stays, and nothing waits for it.
                for name in ["both", "growing"] {
                    write(&src, "another", "another", 0);
                    wait_until("the other is there", || there("another").is_some());
                    fs::rename(src.join("another"), src.join(name)).unwrap();
                    wait_until("the other is gone", || there("another").is_none());
                }
                following.watching.wait_in_sync();
                // This one came from the source in this run: it is the other's by a rename that was seen as two changes.
                let growing = there("growing");
                assert!(
                    matches!(growing.as_deref(), Some("begun and ended" | "another")),
                    "{growing:?}"
                );
                assert_eq!(there("both").as_deref(), Some("theirs"));
                assert_eq!(there("older").as_deref(), Some("here before"));
                // What is left as it is goes with the source's.
                fs::remove_file(src.join("older")).unwrap();
                wait_until("it is deleted", || there("older").is_none());
            }
            MISSING => {
                fs::create_dir(src.join("made")).unwrap();
                write(&src, "made/inside", "x", 0);
                write(&src, "older", "changed", 0);
                fs::rename(src.join("touched"), src.join("elsewhere")).unwrap();
                wait_until("the change is there", || {
                    there("older").as_deref() == Some("changed")
                });
                wait_until("it is gone", || there("touched").is_none());
                assert!(!dst.join("made").exists() && !dst.join("elsewhere").exists());
                // A new file over an old one, as editors save.
                write(&src, "older.tmp", "saved", 0);
                fs::rename(src.join("older.tmp"), src.join("older")).unwrap();
                wait_until("it is saved", || there("older").as_deref() == Some("saved"));
            }
            _ => {
                write(&dst, "older", "edited later", 0);
                write(&src, "older", "changed before", 5);
                write(&src, "newer", "changed after", 0);
                wait_until("the newer one is there", || {
                    there("newer").as_deref() == Some("changed after")
                });
                wait_until("the older is judged", || {
                    receiver.status().modules[0]
                        .sessions
                        .iter()
                        .any(|session| session.failed > 0)
                });
                assert_eq!(there("older").as_deref(), Some("edited later"));
                let now = SystemTime::now();
                fs::write(src.join("older"), "changed last").unwrap();
                assert!(
                    fs::metadata(src.join("older")).unwrap().modified().unwrap()
                        > now - Duration::from_secs(60)
                );
                wait_until("it is newer now", || {
                    there("older").as_deref() == Some("changed last")
                });
            }
        }
        following.watching.wait_in_sync();
        let summary = following.stop().unwrap();
        assert!(summary.in_sync, "{sparing:?}: {summary:?}");
        assert!(summary.failed.is_empty(), "{sparing:?}: {:?}", summary.failed);
        receiver.stop();
    }
}
