//! Crashes and failing flushes where something is kept of what is replaced and deleted, or files are written in place.

use crate::crash_points::points;
use crate::flips::Flips;
use crate::rig::{Note, Rig, wait_until};
use crate::seed;
use crate::support::supervised::{Call, Verdict};
use rustix::io::Errno;
use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// Digests of all that is below a directory and is a file, under whatever name, ours included.
fn contents(root: &Path) -> BTreeSet<[u8; 32]> {
    let mut found = BTreeSet::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let kind = fs::symlink_metadata(&path).unwrap().file_type();
            if kind.is_dir() {
                directories.push(path);
            } else if kind.is_file() {
                found.insert(*blake3::hash(&fs::read(path).unwrap()).as_bytes());
            }
        }
    }
    found
}

/// Runs a sender once against a receiver that is killed before one of its calls in the module. Answers how many it made.
fn run(rig: &mut Rig, kill_at: usize) -> usize {
    let (calls, place) = (Arc::new(AtomicUsize::new(0)), rig.module.clone());
    let counted = calls.clone();
    let judge =
        move |call: &Call| match call.is_in(&place) && counted.fetch_add(1, Ordering::Relaxed) == kill_at {
            true => Verdict::Kill,
            false => Verdict::Pass,
        };
    if let Some(mut receiver) = rig.try_receive_under(judge) {
        let sending = rig.send();
        wait_until("sent or killed", || sending.is_finished() || receiver.has_ended());
        // The half that speaks to the network says good-bye a moment before all of the receiver has ended.
        if !sending.stop().is_ok_and(|summary| summary.in_sync) {
            wait_until("killed", || receiver.has_ended());
        }
        receiver.kill();
    }
    calls.load(Ordering::Relaxed)
}

/// C-01, with a trash: every path is old or new, and every version that was there is still somewhere, at every moment.
#[test]
fn c_01_a_receiver_with_a_trash_loses_no_version_before_any_call() {
    let mut rig = Rig::new();
    rig.options = &["--trash", "1h", "--drift", "keep"];
    let mut flips = Flips::new(rig.src());
    let receiver = rig.receive();
    rig.converge();
    drop(receiver);
    let mut flip_and_run = |rig: &mut Rig, kill_at: usize| {
        let before = contents(&rig.src());
        flips.flip();
        rig.expect_source();
        let made = run(rig, kill_at);
        rig.check_old_or_new();
        let lost: Vec<_> = before.difference(&contents(&rig.module)).copied().collect();
        assert!(lost.is_empty(), "after the crash {} are lost", lost.len());
        let _receiver = rig.receive();
        rig.converge();
        let lost: Vec<_> = before.difference(&contents(&rig.module)).copied().collect();
        assert!(lost.is_empty(), "in the end {} are lost", lost.len());
        made
    };
    let calls = flip_and_run(&mut rig, usize::MAX).max(flip_and_run(&mut rig, usize::MAX));
    let points = points(calls, seed(11));
    let mut crashes = 0;
    for &point in &points {
        let _note = Note(format!("killed before call {point} of {calls}"));
        crashes += usize::from(flip_and_run(&mut rig, point) > point);
    }
    println!("{crashes} crashes of the receiver before one of its {calls} mutating calls");
    assert!(crashes * 10 >= points.len() * 8, "{crashes} of {}", points.len());
}

/// What is written in place can be anything after a crash, but the next run mends it.
#[test]
fn c_01_what_a_crash_leaves_of_a_file_written_in_place_is_mended() {
    let mut rig = Rig::new();
    rig.options = &["--inplace"];
    let mut flips = Flips::new(rig.src());
    let receiver = rig.receive();
    rig.converge();
    drop(receiver);
    flips.flip();
    let calls = run(&mut rig, usize::MAX);
    rig.check_converged();
    let points = points(calls, seed(12));
    for &point in &points {
        let _note = Note(format!("killed before call {point} of {calls}"));
        flips.flip();
        run(&mut rig, point);
        let _receiver = rig.receive();
        rig.converge();
    }
}

/// C-19, in place: a file whose flush failed is not believed to have its content: another takes its place.
#[test]
fn c_19_a_file_in_place_whose_flush_failed_is_replaced() {
    let mut rig = Rig::new();
    rig.options = &["--inplace"];
    let mut flips = Flips::new(rig.src());
    let receiver = rig.receive();
    rig.converge();
    drop(receiver);
    let number = |rig: &Rig, name: &str| fs::metadata(rig.module.join(name)).unwrap().ino();
    let names = ["a/large", "a/small-0"];
    let before = names.map(|name| number(&rig, name));
    flips.flip();
    let failing: HashSet<PathBuf> = names.iter().map(|name| rig.module.join(name)).collect();
    let failed = Arc::new(Mutex::new(Vec::new()));
    let noted = failed.clone();
    let _receiver = rig.receive_under(move |call| match call.path() {
        Some(path) if call.name == "fsync" && failing.contains(&path) => {
            noted.lock().unwrap().push(path);
            Verdict::Fail(Errno::IO)
        }
        _ => Verdict::Pass,
    });
    rig.converge();
    assert_eq!(failed.lock().unwrap().len(), names.len(), "each was flushed once");
    for (name, before) in names.into_iter().zip(before) {
        assert_ne!(
            number(&rig, name),
            before,
            "{name} was flushed again, or not at all"
        );
    }
    let content = fs::read(rig.src().join("a/small-3")).unwrap();
    assert_eq!(fs::read(rig.module.join("a/small-3")).unwrap(), content);
}

/// C-19: a directory of the trash whose flush failed is not durable before everything was flushed anew.
#[test]
fn c_19_a_trash_whose_flush_failed_is_not_flushed_again_but_with_everything() {
    let mut rig = Rig::new();
    rig.options = &["--trash", "1h"];
    let mut flips = Flips::new(rig.src());
    let receiver = rig.receive();
    rig.converge();
    drop(receiver);
    flips.flip();
    let open = Arc::new(Mutex::new((HashSet::<PathBuf>::new(), 0)));
    let (noted, trash) = (open.clone(), rig.module.join(".driftless-trash"));
    let _receiver = rig.receive_under(move |call| {
        let (open, failures) = &mut *noted.lock().unwrap();
        if call.name == "syncfs" {
            open.clear();
        } else if call.name == "fsync" && *failures < 3 && call.is_in(&trash) {
            *failures += 1;
            open.extend(call.path());
            return Verdict::Fail(Errno::IO);
        }
        Verdict::Pass
    });
    rig.converge();
    let (open, failures) = &*open.lock().unwrap();
    assert!(
        *failures > 0 && open.is_empty(),
        "{failures} failures, {open:?} were not flushed"
    );
}
