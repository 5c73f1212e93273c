//! C-08, C-18, C-19: system calls that fail, and a reader that looks all the time.

use crate::flips::Flips;
use crate::rig::{Note, Rig, What, look};
use crate::support::random::Random;
use crate::support::supervised::{Call, Verdict};
use crate::{seed, soak};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

/// What the kernel may answer to a call.
fn errors(call: &str) -> &'static [Errno] {
    match call {
        "pwrite64" | "write" | "copy_file_range" => &[Errno::NOSPC, Errno::IO, Errno::DQUOT],
        "fsync" | "fdatasync" | "syncfs" => &[Errno::IO, Errno::NOSPC],
        "openat" | "openat2" => &[Errno::NOSPC, Errno::MFILE, Errno::ROFS, Errno::IO],
        "unlinkat" => &[Errno::IO, Errno::ROFS],
        "ftruncate" | "fallocate" => &[Errno::IO, Errno::NOSPC],
        "fchmod" | "fchmodat" | "fchmodat2" | "fchown" | "fchownat" | "utimensat" => {
            &[Errno::IO, Errno::ROFS, Errno::PERM]
        }
        _ => &[Errno::NOSPC, Errno::IO, Errno::ROFS],
    }
}

/// How long a run may be under it: connections that break off are made again at growing intervals.
pub const STORM: Duration = Duration::from_millis(700);

/// Fails, cuts short and lets pass at random.
pub struct Storm {
    pub random: Random,
    /// One call in so many fails.
    pub rarity: usize,
    pub told: Arc<Mutex<BTreeMap<(&'static str, &'static str), usize>>>,
}

impl Storm {
    pub fn judge(&mut self, call: &Call) -> Verdict {
        if !self.random.one_in(self.rarity) {
            return Verdict::Pass;
        }
        let count = |what| *self.told.lock().unwrap().entry((call.name, what)).or_insert(0) += 1;
        if call.name == "pwrite64" && self.random.one_in(2) {
            count("short");
            return Verdict::Halve;
        }
        count("failed");
        let errors = errors(call.name);
        Verdict::Fail(errors[self.random.below(errors.len())])
    }
}

/// C-18: whatever fails, whenever: nothing wrong is ever visible, an end in sync is true, and the next run converges.
#[test]
fn c_18_calls_that_fail_at_random_cause_no_harm() {
    const RUNS: usize = 24;
    let mut rig = Rig::new();
    let mut flips = Flips::new(rig.src());
    let receiver = rig.receive();
    rig.converge();
    drop(receiver);
    let told = Arc::default();
    let mut outcomes = BTreeMap::new();
    for run in 0..RUNS * soak() {
        let _note = Note(format!("seed {}, run {run}", seed(5)));
        flips.flip();
        rig.expect_source();
        // If their exchange fails, they are moved one after the other.
        rig.may_be_absent(&["x/one", "x/two"]);
        // Every third run the databases suffer, too, which ends connections.
        let place = match run % 3 {
            0 => rig.home.clone(),
            _ => rig.module.clone(),
        };
        let mut storm = Storm {
            random: Random(seed(5) ^ (run as u64) << 20),
            rarity: [60, 25, 8][run / 3 % 3],
            told: Arc::clone(&told),
        };
        let calm = Arc::new(AtomicBool::new(true));
        let is_calm = calm.clone();
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
                // What could not be cleared away is, as soon as that is possible again: by the run in the calm.
                rig.check_equal();
                "in sync"
            }
            Ok(summary) => {
                assert!(
                    summary.failed.iter().all(|failed| !failed.error.is_empty()),
                    "{summary:?}"
                );
                "with errors"
            }
            Err(_) => "failed",
        };
        *outcomes.entry(outcome).or_insert(0) += 1;
        rig.check_old_or_new();
        calm.store(true, Ordering::Relaxed);
        // What failed is tried again by the same receiver: it needs no restart.
        rig.converge();
        drop(receiver);
    }
    println!("runs: {outcomes:?}; calls: {:?}", told.lock().unwrap());
    assert!(outcomes.len() > 1, "{outcomes:?}");
}

/// The file that is flushed or linked: inode numbers are used again, so with its birth.
pub fn inode(call: &Call) -> Option<(u64, SystemTime)> {
    let metadata = fs::metadata(call.first_descriptor()).ok()?;
    let born = metadata.created().ok()?;
    metadata.is_file().then(|| (metadata.ino(), born))
}

/// C-19: a flush that failed once condemns the file: its content is fetched again, into another one.
#[test]
fn c_19_a_file_whose_flush_failed_is_never_flushed_again_nor_published() {
    let mut rig = Rig::new();
    let mut flips = Flips::new(rig.src());
    let receiver = rig.receive();
    rig.converge();
    drop(receiver);
    flips.flip();
    let condemned = Arc::new(Mutex::new((HashSet::new(), Vec::new())));
    let (noted, module) = (condemned.clone(), rig.module.clone());
    let mut flushes = 0;
    let is_ready = Arc::new(AtomicBool::new(false));
    let fails = is_ready.clone();
    let _receiver = rig.receive_under(move |call| {
        let is_ours = fails.load(Ordering::Relaxed) && call.is_in(&module);
        let Some(inode) = is_ours.then(|| inode(call)).flatten() else {
            return Verdict::Pass;
        };
        let (condemned, faults) = &mut *noted.lock().unwrap();
        if condemned.contains(&inode) && matches!(call.name, "fsync" | "fdatasync" | "linkat") {
            faults.push(call.name);
        }
        if call.name == "fsync" {
            flushes += 1;
            if flushes % 2 == 1 && flushes < 12 {
                condemned.insert(inode);
                return Verdict::Fail(Errno::IO);
            }
        }
        Verdict::Pass
    });
    is_ready.store(true, Ordering::Relaxed);
    rig.converge();
    let (condemned, faults) = &*condemned.lock().unwrap();
    assert!(
        condemned.len() >= 4 && faults.is_empty(),
        "{condemned:?} {faults:?}"
    );
}

/// C-19: a flush of the whole file system that failed tells it once, and of more than the files that it was for: from then
/// on each file is flushed by itself before it is visible.
#[test]
fn c_19_after_a_failed_flush_of_everything_each_file_is_flushed_by_itself() {
    // More than two batches.
    const FILES: usize = 2_600;
    let mut rig = Rig::new();
    for number in 0..FILES {
        fs::write(rig.src().join(format!("many-{number}")), number.to_string()).unwrap();
    }
    #[derive(Default)]
    struct Seen {
        failures: usize,
        flushed: HashSet<(u64, SystemTime)>,
        published: usize,
        faults: usize,
        is_over: bool,
    }
    let seen = Arc::new(Mutex::new(Seen::default()));
    let (noted, module) = (seen.clone(), rig.module.clone());
    let _receiver = rig.receive_under(move |call| {
        let seen = &mut *noted.lock().unwrap();
        if !call.is_in(&module) || seen.is_over {
            return Verdict::Pass;
        }
        match call.name {
            "syncfs" if seen.failures == 0 => {
                seen.failures += 1;
                return Verdict::Fail(Errno::IO);
            }
            // Of the next session, which begins with what came after the failure.
            "syncfs" => seen.is_over = true,
            "fsync" => seen.flushed.extend(inode(call)),
            "linkat" if seen.failures > 0 => {
                let Some(inode) = inode(call) else {
                    return Verdict::Pass;
                };
                seen.published += 1;
                seen.faults += usize::from(!seen.flushed.contains(&inode));
            }
            _ => {}
        }
        Verdict::Pass
    });
    rig.converge();
    let seen = &*seen.lock().unwrap();
    let (failures, published, faults) = (seen.failures, seen.published, seen.faults);
    assert!(
        failures == 1 && published >= 1_000 && faults == 0,
        "{failures} failed, {published} were published then, {faults} of them unflushed"
    );
}

/// C-19: a directory whose flush failed is not durable before a flush of it, or of everything, has succeeded.
#[test]
fn c_19_a_directory_whose_flush_failed_is_flushed_before_anything_is_durable() {
    let mut rig = Rig::new();
    let mut flips = Flips::new(rig.src());
    let receiver = rig.receive();
    rig.converge();
    drop(receiver);
    flips.flip();
    let open = Arc::new(Mutex::new((HashSet::<PathBuf>::new(), 0)));
    let (noted, module) = (open.clone(), rig.module.clone());
    let _receiver = rig.receive_under(move |call| {
        let path = call
            .path()
            .filter(|path| path.starts_with(&module) && path.is_dir());
        let Some(path) = path else { return Verdict::Pass };
        let (open, failures) = &mut *noted.lock().unwrap();
        match call.name {
            "syncfs" => open.clear(),
            "fsync" if *failures < 3 && path != module => {
                *failures += 1;
                open.insert(path);
                return Verdict::Fail(Errno::IO);
            }
            "fsync" => {
                open.remove(&path);
            }
            _ => {}
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

/// C-08: somebody reads every path all the time while contents and names change. What both states have is never absent,
/// and only ever whole.
#[test]
fn c_08_a_reader_sees_whole_versions_only_and_never_nothing() {
    const FLIPS: usize = 12;
    let mut rig = Rig::new();
    let mut flips = Flips::new(rig.src());
    let _receiver = rig.receive();
    rig.converge();
    let known = Arc::new(Mutex::new(HashMap::<Vec<u8>, BTreeSet<What>>::new()));
    let learn = |known: &Mutex<HashMap<Vec<u8>, BTreeSet<What>>>, rig: &Rig| {
        for (path, what) in look(&rig.src()) {
            known.lock().unwrap().entry(path).or_default().insert(what);
        }
    };
    learn(&known, &rig);
    let lasting: BTreeSet<Vec<u8>> = {
        let (before, _) = (look(&rig.src()), flips.flip());
        let after = look(&rig.src());
        before
            .into_keys()
            .filter(|path| after.contains_key(path))
            .collect()
    };
    learn(&known, &rig);
    let (stop, looks) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let reader = std::thread::spawn({
        let (known, stop, looks, module) = (known.clone(), stop.clone(), looks.clone(), rig.module.clone());
        move || {
            while !stop.load(Ordering::Relaxed) {
                for path in &lasting {
                    looks.fetch_add(1, Ordering::Relaxed);
                    let shown = String::from_utf8(path.clone()).unwrap();
                    let what = see(&module.join(&shown)).unwrap_or_else(|error| panic!("{shown}: {error}"));
                    let is_known = known.lock().unwrap()[path].contains(&what);
                    assert!(is_known, "{shown} is none of its versions");
                }
            }
        }
    });
    for _ in 0..FLIPS * soak() {
        rig.converge();
        flips.flip();
        learn(&known, &rig);
    }
    rig.converge();
    stop.store(true, Ordering::Relaxed);
    reader.join().unwrap();
    println!("{} looks", looks.load(Ordering::Relaxed));
}

/// What stands at a path. A kind that changes between two looks is looked at again.
fn see(path: &Path) -> std::io::Result<What> {
    use std::os::unix::ffi::OsStrExt;
    loop {
        let kind = fs::symlink_metadata(path)?.file_type();
        let seen = match kind {
            kind if kind.is_dir() => Ok(('d', Vec::new())),
            kind if kind.is_symlink() => {
                fs::read_link(path).map(|text| ('l', text.as_os_str().as_bytes().to_vec()))
            }
            _ => fs::read(path).map(|bytes| ('f', blake3::hash(&bytes).as_bytes().to_vec())),
        };
        match seen {
            Err(error) if fs::symlink_metadata(path)?.file_type() != kind => drop(error),
            seen => return seen,
        }
    }
}
