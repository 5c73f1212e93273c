//! Queues, watches and descriptors that run out.

use crate::mirror::{Mirror, identities, watched_by};
use crate::scaled;
use crate::support::Pair;
use crate::support::{PATIENCE, is_root, skip};
use driftless::daemon::WatchChoice;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// The queue holds 64 events and much more happens: that is said, everything is looked at again, and what nothing
/// happened to is not touched.
#[test]
fn d_11_a_queue_that_overflows_costs_a_look_and_nothing_else() {
    for choice in [WatchChoice::Auto, WatchChoice::Inotify] {
        let mut pair = Pair::new();
        watched_by(&mut pair, choice);
        pair.watch.fanotify.queue_events = 64;
        let src = pair.src();
        for directory in ["calm", "busy", "gone"] {
            fs::create_dir(src.join(directory)).unwrap();
            for number in 0..100 {
                fs::write(src.join(format!("{directory}/{number}")), directory).unwrap();
            }
        }
        let mirror = Mirror::start(pair);
        let before = identities(&mirror.pair.dst());
        // Some four events each, and on until a reader that is quicker than usual has lost some.
        let deadline = Instant::now() + PATIENCE;
        let mut round = 0;
        while round < scaled(40) || mirror.said().rescans == 0 {
            assert!(Instant::now() < deadline, "{choice:?}: no queue ran over");
            for number in 0..30 {
                let name = src.join(format!("busy/{}", number + 30 * (round % 3)));
                fs::write(&name, format!("{round} {number}")).unwrap();
                fs::write(src.join("busy/passing"), b"passing").unwrap();
                fs::remove_file(src.join("busy/passing")).unwrap();
            }
            round += 1;
        }
        fs::remove_dir_all(src.join("gone")).unwrap();
        mirror.settle();
        let said = mirror.said();
        assert!(
            said.warnings.iter().any(|text| text.contains("events were lost")),
            "{choice:?}: {:?}",
            said.warnings
        );
        let after = identities(&mirror.pair.dst());
        for (path, identity) in before.iter().filter(|(path, _)| path.starts_with("calm")) {
            assert_eq!(after.get(path), Some(identity), "{} was touched", path.display());
        }
        assert!(!after.keys().any(|path| path.starts_with("gone")));
        mirror.end_and_compare();
    }
}

/// Runs one test of this binary again under a shell's limits, in a user namespace of its own. False if there are none here.
fn again(test: &str, limits: &str) -> bool {
    let possible = Command::new("unshare").args(["-Ur", "true"]).output();
    if !possible.is_ok_and(|output| output.status.success()) {
        skip("no user namespaces");
        return false;
    }
    let script = format!("{limits} && exec \"$0\" --exact \"$1\" --nocapture --test-threads 1");
    let output = Command::new("unshare")
        .args(["-Ur", "sh", "-c", &script])
        .arg(std::env::current_exe().unwrap())
        .arg(test)
        .env("DRIFTLESS_TEST_LIMITED", "1")
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "under {limits}:\n{text}"
    );
    true
}

fn is_limited() -> bool {
    std::env::var_os("DRIFTLESS_TEST_LIMITED").is_some()
}

fn fill(root: &Path, directories: usize) {
    for number in 0..directories {
        fs::create_dir(root.join(number.to_string())).unwrap();
        fs::write(root.join(format!("{number}/file")), number.to_string()).unwrap();
    }
}

/// A hundred watches for many more directories, and no privilege for fanotify: the rest is polled, and that is said.
#[test]
fn d_12_with_too_few_watches_the_rest_is_polled() {
    if !is_limited() {
        again(
            "limits::d_12_with_too_few_watches_the_rest_is_polled",
            "echo 100 > /proc/sys/user/max_inotify_watches",
        );
        return;
    }
    let directories = scaled(400).min(10_000);
    let mut pair = Pair::new();
    watched_by(&mut pair, WatchChoice::Auto);
    fill(&pair.src(), directories);
    let mirror = Mirror::start(pair);
    let said = mirror.said();
    assert_eq!(said.watcher, "inotify");
    let words = "max_inotify_watches, which is 100";
    for told in [&said.warnings, &said.degradations] {
        assert!(told.iter().any(|text| text.contains(words)), "{said:?}");
    }
    for number in (0..directories).step_by(7) {
        let directory = mirror.pair.src().join(number.to_string());
        fs::write(directory.join("file"), "changed").unwrap();
        fs::create_dir(directory.join("new")).unwrap();
        fs::write(directory.join("new/file"), "new").unwrap();
    }
    mirror.settle();
    for number in (0..directories).step_by(5) {
        fs::remove_dir_all(mirror.pair.src().join(number.to_string())).unwrap();
    }
    mirror.settle();
    mirror.end_and_compare();
}

/// Fewer descriptors than directories.
#[test]
fn d_12_with_few_descriptors_everything_arrives() {
    if !is_limited() {
        again(
            "limits::d_12_with_few_descriptors_everything_arrives",
            "ulimit -n 300",
        );
        return;
    }
    let mut pair = Pair::new();
    watched_by(&mut pair, WatchChoice::Auto);
    fill(&pair.src(), 600);
    // The receiver that follows walks as many.
    assert!(pair.seed().is_ok_and(|summary| summary.in_sync));
    let mut mirror = Mirror::start(pair);
    for number in 0..600 {
        fs::write(mirror.pair.src().join(format!("{number}/more")), "more").unwrap();
    }
    mirror.settle();
    mirror.pause().unwrap();
    fs::write(mirror.pair.src().join("599/file"), "changed").unwrap();
    mirror.resume();
    mirror.settle();
    let said = mirror.said();
    assert!(said.warnings.is_empty(), "{said:?}");
    mirror.end_and_compare();
}

/// Without privilege fanotify says why it cannot be had, and inotify watches.
#[test]
fn d_12_without_privilege_inotify_watches_and_that_is_said() {
    if is_root() && !is_limited() {
        again(
            "limits::d_12_without_privilege_inotify_watches_and_that_is_said",
            "true",
        );
        return;
    }
    let mirror = Mirror::start(Pair::new());
    let said = mirror.said();
    assert_eq!(said.watcher, "inotify", "{said:?}");
    assert!(
        said.degradations.iter().any(|text| text.contains("fanotify")),
        "{said:?}"
    );
    fs::create_dir(mirror.pair.src().join("d")).unwrap();
    fs::write(mirror.pair.src().join("d/file"), b"file").unwrap();
    mirror.settle();
    mirror.end();
}
