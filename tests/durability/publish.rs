//! Release trees that are published at once, and a receiver that is killed before any of its calls, or whose calls fail: whoever looks
//! then finds one release, whole, and whoever is told that all is done finds the new one.

use crate::crash_points::kill_receiver_of;
use crate::errors::{STORM, Storm};
use crate::rig::{Note, Rig, wait_until};
use crate::support::random::Random;
use crate::support::supervised::Verdict;
use crate::{seed, soak};
use rustix::io::Errno;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Writes a release whose files say which one it is, and how many there are.
fn write(release: &Path, version: usize) {
    fs::create_dir_all(release.join("sub")).unwrap();
    let files = 4 + version % 3;
    for number in 0..7 {
        let path = release.join(match number % 2 {
            0 => format!("f{number}"),
            _ => format!("sub/f{number}"),
        });
        match number < files {
            true => fs::write(path, format!("{version} {files}")).unwrap(),
            false => _ = fs::remove_file(path),
        }
    }
}

/// All releases that can be seen are whole.
fn check(rig: &Rig) {
    let Ok(releases) = fs::read_dir(rig.module.join("releases")) else {
        return;
    };
    for release in releases {
        let release = release.unwrap().path();
        if release
            .file_name()
            .unwrap()
            .to_string_lossy()
            .starts_with(".driftless")
        {
            continue;
        }
        let mut said = Vec::new();
        for directory in [release.clone(), release.join("sub")] {
            for entry in fs::read_dir(&directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_file() {
                    said.push(fs::read_to_string(path).unwrap());
                }
            }
        }
        let first = said
            .first()
            .unwrap_or_else(|| panic!("{} is empty", release.display()));
        assert!(
            said.iter().all(|other| other == first),
            "{}: {said:?}",
            release.display()
        );
        let files: usize = first.split(' ').nth(1).unwrap().parse().unwrap();
        assert_eq!(said.len(), files, "{}: {said:?}", release.display());
    }
}

/// Changes the releases of the source, each time in another way.
fn deploy(rig: &Rig, version: &Cell<usize>) {
    version.set(version.get() + 1);
    let releases = rig.src().join("releases");
    let current = releases.join("current");
    match version.get() % 3 {
        // Written to, where it stands.
        0 => write(&current, version.get()),
        // Made beside it, and renamed.
        1 => {
            let next = releases.join("next");
            write(&next, version.get());
            if current.exists() {
                fs::remove_dir_all(&current).unwrap();
            }
            fs::rename(next, current).unwrap();
        }
        // One of a new name, and one that goes.
        _ => {
            for old in fs::read_dir(&releases).unwrap() {
                let old = old.unwrap().path();
                if old != current {
                    fs::remove_dir_all(old).unwrap();
                }
            }
            write(&releases.join(format!("v{}", version.get())), version.get());
        }
    }
}

fn rig() -> Rig {
    let mut rig = Rig::new();
    rig.options = &["--publish", "releases/*"];
    rig
}

#[test]
fn a_release_is_whole_whenever_the_receiver_is_killed() {
    let version = Cell::new(0);
    let deploy = |rig: &Rig| deploy(rig, &version);
    kill_receiver_of(rig(), seed(6), false, deploy, deploy, check);
}

/// Whatever fails, whenever: what can be seen is whole, and an end in sync is true.
#[test]
fn a_release_is_whole_whatever_fails() {
    let version = Cell::new(0);
    let mut rig = rig();
    deploy(&rig, &version);
    let receiver = rig.receive();
    rig.converge();
    drop(receiver);
    let told = Arc::default();
    let mut outcomes = BTreeMap::new();
    for run in 0..12 * soak() {
        let _note = Note(format!("seed {}, run {run}", seed(7)));
        deploy(&rig, &version);
        rig.expect_source();
        let mut storm = Storm {
            random: Random(seed(7) ^ (run as u64) << 20),
            rarity: [60, 25, 8][run % 3],
            told: Arc::clone(&told),
        };
        let calm = Arc::new(AtomicBool::new(true));
        let (is_calm, place) = (calm.clone(), rig.module.clone());
        let receiver =
            rig.receive_under(
                move |call| match is_calm.load(Ordering::Relaxed) || !call.is_in(&place) {
                    true => Verdict::Pass,
                    false => storm.judge(call),
                },
            );
        calm.store(false, Ordering::Relaxed);
        let sending = rig.send();
        let began = Instant::now();
        while !sending.is_finished() && began.elapsed() < STORM {
            std::thread::park_timeout(Duration::from_millis(5));
        }
        let outcome = match sending.stop() {
            Ok(summary) if summary.in_sync && summary.failed.is_empty() => {
                rig.check_equal();
                "in sync"
            }
            Ok(_) => "with errors",
            Err(_) => "failed",
        };
        *outcomes.entry(outcome).or_insert(0) += 1;
        check(&rig);
        calm.store(true, Ordering::Relaxed);
        rig.converge();
        check(&rig);
        drop(receiver);
    }
    println!("runs: {outcomes:?}; calls: {:?}", told.lock().unwrap());
    assert!(outcomes.len() > 1, "{outcomes:?}");
}

/// Where a directory does not get its time back after an old tree in it was taken apart, nobody hears that the trees are equal before it
/// has it after all.
#[test]
fn a_time_that_was_not_restored_is_set_before_an_end_in_sync() {
    let version = Cell::new(0);
    let mut rig = rig();
    deploy(&rig, &version);
    let receiver = rig.receive();
    rig.converge();
    drop(receiver);
    // Where it stands.
    version.set(2);
    deploy(&rig, &version);
    let releases = rig.module.join("releases");
    let failures = Arc::new(AtomicUsize::new(0));
    let (failed, mut has_removed) = (failures.clone(), false);
    let _receiver = rig.receive_under(move |call| {
        if call.path().as_ref() != Some(&releases) {
            return Verdict::Pass;
        }
        has_removed |= call.name == "unlinkat";
        if call.name == "utimensat" && has_removed && failed.load(Ordering::Relaxed) == 0 {
            failed.fetch_add(1, Ordering::Relaxed);
            return Verdict::Fail(Errno::PERM);
        }
        Verdict::Pass
    });
    rig.converge();
    assert_eq!(failures.load(Ordering::Relaxed), 1);
}

/// Exchanges that fail end the session, with the reason, and the sender never believes that it is done.
#[test]
fn an_exchange_that_fails_is_never_told_as_done() {
    let version = Cell::new(2);
    let mut rig = rig();
    deploy(&rig, &version);
    let fails = Arc::new(AtomicBool::new(false));
    let (is_failing, module) = (fails.clone(), rig.module.clone());
    let _receiver = rig.receive_under(move |call| {
        let fails = is_failing.load(Ordering::Relaxed) && call.name == "renameat2" && call.is_in(&module);
        match fails {
            true => Verdict::Fail(Errno::IO),
            false => Verdict::Pass,
        }
    });
    rig.converge();
    write(&rig.src().join("releases/current"), 6);
    fails.store(true, Ordering::Relaxed);
    let sending = rig.send();
    wait_until("the reason is told", || {
        rig.log().contains("releases/current is not published")
    });
    let first = fs::read_to_string(rig.module.join("releases/current/f0")).unwrap();
    assert!(first.starts_with("3 "), "{first}");
    check(&rig);
    if let Ok(summary) = sending.stop() {
        assert!(!summary.in_sync, "{summary:?}");
    }
    fails.store(false, Ordering::Relaxed);
    rig.converge();
}

#[test]
fn a_file_system_that_cannot_exchange_names_is_refused() {
    let rig = rig();
    let module = rig.module.clone();
    let receiver = rig.try_receive_under(
        move |call| match call.name == "renameat2" && call.is_in(&module) {
            true => Verdict::Fail(Errno::INVAL),
            false => Verdict::Pass,
        },
    );
    assert!(receiver.is_none());
    for wanted in ["cannot exchange two names", "leave that out"] {
        assert!(rig.log().contains(wanted), "{}", rig.log());
    }
}

/// There are file systems without hard links, and a process that is not root may not link everything.
#[test]
fn where_nothing_can_have_two_names_files_are_copied() {
    let version = Cell::new(2);
    let mut rig = rig();
    deploy(&rig, &version);
    let module = rig.module.clone();
    let refused = Arc::new(AtomicUsize::new(0));
    let count = refused.clone();
    // Without unnamed files no link is needed to publish one.
    let _receiver = rig.receive_under(move |call| match call.name {
        "openat" if call.is_in(&module) => Verdict::Fail(Errno::OPNOTSUPP),
        "linkat" if call.is_in(&module) => {
            count.fetch_add(1, Ordering::Relaxed);
            Verdict::Fail(Errno::PERM)
        }
        _ => Verdict::Pass,
    });
    rig.converge();
    for version in 4..7 {
        write(&rig.src().join("releases/current"), version);
        rig.converge();
        check(&rig);
    }
    assert!(refused.load(Ordering::Relaxed) > 0);
}
