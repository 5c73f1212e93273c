//! A sender that follows: whatever is done to the source, and whenever, both trees end up equal.

mod support;

use driftless::daemon::receiver::ReceiverDaemon;
use driftless::daemon::{Deletes, Phase, ReceiverOptions, WatchChoice};
use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};
use support::{Following, Pair, assert_no_leftovers, differences, runtime};

/// How long both trees may differ once nothing changes any more.
const SETTLES: Duration = Duration::from_secs(30);

/// Waits until both trees are equal and the sender believes so too; a halted sender fails at once.
fn wait_settled(pair: &Pair, following: &Following) {
    let deadline = Instant::now() + SETTLES;
    loop {
        let phase = following.watching.wait_for(|_| true);
        assert!(!matches!(phase, Phase::Halted { .. }), "{phase:?}");
        // A receiver's tree that changes while it is read makes the comparison panic; that is only another round.
        let Ok(found) = std::panic::catch_unwind(|| differences(&pair.src(), &pair.dst())) else {
            continue;
        };
        if found.is_empty() {
            break;
        }
        let first = &found[..found.len().min(8)];
        assert!(
            Instant::now() < deadline,
            "{} differences, first: {first:#?}",
            found.len()
        );
        std::thread::park_timeout(Duration::from_millis(20));
    }
    let phase = following
        .watching
        .wait_for(|phase| matches!(phase, Phase::InSync { .. } | Phase::Halted { .. }));
    assert!(matches!(phase, Phase::InSync { .. }), "{phase:?}");
    pair.assert_equal();
}

/// splitmix64: the whole run follows from one number.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// Mostly small, sometimes large enough for offers and deltas.
    fn bytes(&mut self) -> Vec<u8> {
        let size = match self.below(20) {
            0 => 0,
            1 => 200_000 + self.below(400_000),
            2..=4 => 20_000 + self.below(60_000),
            _ => 1 + self.below(3_000),
        };
        let mut out = vec![0; size];
        blake3::Hasher::new()
            .update(&self.next().to_le_bytes())
            .finalize_xof()
            .fill(&mut out);
        out
    }

    fn pick<'a>(&mut self, from: &'a [PathBuf]) -> Option<&'a PathBuf> {
        from.get(self.below(from.len()))
    }
}

/// Says what led to a failure.
struct OnPanic(String, Vec<String>);

impl Drop for OnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let last = self.1.len().saturating_sub(40);
            eprintln!("{}; last operations: {:#?}", self.0, &self.1[last..]);
        }
    }
}

#[derive(Default)]
struct Found {
    files: Vec<PathBuf>,
    links: Vec<PathBuf>,
    /// Without the root.
    directories: Vec<PathBuf>,
}

fn look(root: &Path) -> Found {
    let mut found = Found::default();
    let mut queue = vec![root.to_owned()];
    while let Some(directory) = queue.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let entry = entry.unwrap();
            match entry.file_type().unwrap() {
                kind if kind.is_dir() => {
                    queue.push(entry.path());
                    found.directories.push(entry.path());
                }
                kind if kind.is_symlink() => found.links.push(entry.path()),
                _ => found.files.push(entry.path()),
            }
        }
    }
    found.files.sort();
    found.links.sort();
    found.directories.sort();
    found
}

/// Changes a tree at random. Files with several hard links are only ever replaced, never written in place.
struct Churn {
    root: PathBuf,
    outside: PathBuf,
    random: Random,
    number: u64,
    log: Vec<String>,
}

impl Churn {
    fn new(pair: &Pair, seed: u64) -> Churn {
        let outside = pair.path("outside");
        fs::create_dir_all(&outside).unwrap();
        Churn {
            root: pair.src(),
            outside,
            random: Random(seed),
            number: 0,
            log: Vec::new(),
        }
    }

    fn many(&mut self, operations: usize) {
        for _ in 0..operations {
            self.step();
        }
    }

    fn fresh(&mut self, directories: &[PathBuf]) -> PathBuf {
        self.number += 1;
        let root = self.root.clone();
        let parent = if self.random.one_in(4) {
            &root
        } else {
            self.random.pick(directories).unwrap_or(&root)
        };
        // Few names, so that they are used again, by other kinds too; a fresh number where one is taken.
        let name = parent.join(format!("n{}", self.random.below(60)));
        if name.symlink_metadata().is_ok() {
            parent.join(format!("m{}", self.number))
        } else {
            name
        }
    }

    fn step(&mut self) {
        let Found {
            files,
            links,
            directories,
        } = look(&self.root);
        let everything: Vec<_> = files.iter().chain(&links).chain(&directories).cloned().collect();
        let new = self.fresh(&directories);
        let r = &mut self.random;
        let (file, other) = (r.pick(&files).cloned(), r.pick(&files).cloned());
        let (directory, any, second) = (
            r.pick(&directories).cloned(),
            r.pick(&everything).cloned(),
            r.pick(&everything).cloned(),
        );
        let mut note = |text: String| self.log.push(text);
        let name = |path: &Path| {
            path.strip_prefix(&self.root)
                .unwrap_or(path)
                .display()
                .to_string()
        };
        // A tree that grew large shrinks.
        let choice = if everything.len() > 300 && r.one_in(3) {
            9
        } else {
            r.below(22)
        };
        match (choice, file, directory) {
            (0 | 1, ..) => {
                note(format!("create {}", name(&new)));
                fs::write(&new, r.bytes()).unwrap();
            }
            (2, Some(file), _) => {
                note(format!("overwrite {}", name(&file)));
                fs::write(&file, r.bytes()).unwrap();
            }
            (3, Some(file), _) => {
                note(format!("write inside {}", name(&file)));
                let mut open = fs::OpenOptions::new().write(true).open(&file).unwrap();
                let size = open.metadata().unwrap().len() as usize;
                open.seek(SeekFrom::Start(r.below(size) as u64)).unwrap();
                open.write_all(&r.next().to_le_bytes()).unwrap();
            }
            (4, Some(file), _) => {
                note(format!("append {}", name(&file)));
                let mut open = fs::OpenOptions::new().append(true).open(&file).unwrap();
                for _ in 0..r.below(4) {
                    open.write_all(&r.bytes()).unwrap();
                }
            }
            (5, Some(file), _) => {
                note(format!("truncate {}", name(&file)));
                let open = fs::OpenOptions::new().write(true).open(&file).unwrap();
                let size = open.metadata().unwrap().len() as usize;
                open.set_len(r.below(size) as u64).unwrap();
            }
            (6, Some(file), _) => {
                note(format!("rename file {} to {}", name(&file), name(&new)));
                fs::rename(file, new).unwrap();
            }
            (7, _, Some(directory)) if !new.starts_with(&directory) => {
                note(format!("rename directory {} to {}", name(&directory), name(&new)));
                fs::rename(directory, new).unwrap();
            }
            (8, Some(file), _) => {
                let other = other.unwrap();
                note(format!("rename {} over {}", name(&file), name(&other)));
                fs::rename(file, other).unwrap();
            }
            (9, _, Some(directory)) => {
                note(format!("remove directory {}", name(&directory)));
                fs::remove_dir_all(directory).unwrap();
            }
            (10, ..) => {
                let (Some(any), Some(second)) = (any, second) else {
                    return;
                };
                if any.starts_with(&second) || second.starts_with(&any) {
                    return;
                }
                note(format!("exchange {} and {}", name(&any), name(&second)));
                exchange(&any, &second);
            }
            (11 | 12, ..) => {
                note(format!("make directories {}/deep/er", name(&new)));
                fs::create_dir_all(new.join("deep/er")).unwrap();
                fs::write(new.join("deep/file"), r.bytes()).unwrap();
            }
            (13, ..) => {
                note(format!("link {}", name(&new)));
                symlink(format!("to/{}", r.below(1_000)), new).unwrap();
            }
            (14, ..) => {
                let Some(any) = any.filter(|any| !any.is_symlink()) else {
                    return;
                };
                let mode = 0o600 | r.below(0o100) as u32 | if any.is_dir() { 0o700 } else { 0 };
                note(format!("chmod {mode:o} {}", name(&any)));
                fs::set_permissions(any, fs::Permissions::from_mode(mode)).unwrap();
            }
            (15, ..) => {
                let Some(any) = any.filter(|any| !any.is_symlink()) else {
                    return;
                };
                note(format!("touch {}", name(&any)));
                let time = SystemTime::UNIX_EPOCH
                    + Duration::new(r.below(1 << 31) as u64, r.below(1_000_000_000) as u32);
                fs::File::open(any).unwrap().set_modified(time).unwrap();
            }
            (16, ..) => {
                let Some(any) = any else { return };
                if any.is_dir() && !any.is_symlink() {
                    fs::remove_dir_all(&any).unwrap()
                } else {
                    fs::remove_file(&any).unwrap()
                }
                let kind = r.below(3);
                note(format!("{} becomes kind {kind}", name(&any)));
                match kind {
                    0 => fs::write(any, r.bytes()).unwrap(),
                    1 => fs::create_dir(any).unwrap(),
                    _ => symlink("somewhere", any).unwrap(),
                }
            }
            (17, Some(file), _) => {
                note(format!(
                    "hard link {} to {}, the old name goes later",
                    name(&file),
                    name(&new)
                ));
                fs::hard_link(&file, &new).unwrap();
                // The way editors and dotlock do it: the second name stays, the first is written anew.
                let aside = self.outside.join("anew");
                fs::write(&aside, r.bytes()).unwrap();
                fs::rename(aside, file).unwrap();
            }
            (18, ..) => {
                let Some(any) = any else { return };
                self.number += 1;
                note(format!("move out {}", name(&any)));
                fs::rename(any, self.outside.join(format!("o{}", self.number))).unwrap();
            }
            (19, ..) => {
                let Some(entry) = fs::read_dir(&self.outside).unwrap().next() else {
                    return;
                };
                let entry = entry.unwrap();
                note(format!(
                    "move in {} as {}",
                    entry.file_name().display(),
                    name(&new)
                ));
                fs::rename(entry.path(), &new).unwrap();
            }
            (20, Some(file), _) => {
                note(format!("remove {}", name(&file)));
                fs::remove_file(file).unwrap();
            }
            (21, Some(file), _) => {
                note(format!("replace {} by a written-aside file", name(&file)));
                let aside = file.with_file_name("aside.tmp");
                if aside.symlink_metadata().is_ok() {
                    return;
                }
                fs::write(&aside, r.bytes()).unwrap();
                fs::rename(aside, file).unwrap();
            }
            _ => {}
        }
        // Now and then the daemons get to see a half-way state.
        if self.random.one_in(25) {
            std::thread::park_timeout(Duration::from_micros(self.random.below(30_000) as u64));
        }
    }
}

fn exchange(left: &Path, right: &Path) {
    let c = |path: &Path| CString::new(path.as_os_str().as_bytes()).unwrap();
    let (left, right) = (c(left), c(right));
    // SAFETY: both are valid C strings for the whole call.
    let outcome = unsafe {
        libc::renameat2(
            libc::AT_FDCWD,
            left.as_ptr(),
            libc::AT_FDCWD,
            right.as_ptr(),
            libc::RENAME_EXCHANGE,
        )
    };
    assert_eq!(outcome, 0, "{}", std::io::Error::last_os_error());
}

/// A thousand operations, all kinds, under a sender that follows.
fn churned(seed: u64) {
    churned_and_watched(seed, WatchChoice::Auto);
}

fn churned_and_watched(seed: u64, choice: WatchChoice) {
    let mut pair = Pair::new();
    pair.watch.choice = choice;
    // For what is polled: many rounds within the time that trees have to become equal.
    pair.watch.poll.interval = Duration::from_millis(200);
    pair.watch.poll.directories_per_second = 5_000;
    let mut churn = Churn::new(&pair, seed);
    let mut guard = OnPanic(
        format!("seed {seed}, tree in {}", pair.directory.path().display()),
        Vec::new(),
    );
    churn.many(100);
    let receiver = pair.receive();
    let following = Following::start(pair.sender_options(receiver.address(), true));
    following.watching.wait_in_sync();
    for _ in 0..4 {
        churn.many(250);
        guard.1.append(&mut churn.log);
        wait_settled(&pair, &following);
    }
    let summary = following.stop().unwrap();
    assert!(summary.failed.is_empty(), "{summary:?}");
    receiver.stop();
    assert_no_leftovers(&pair.dst());
    // What was believed is what a fresh comparison finds.
    let again = pair.seed().unwrap();
    assert!(again.in_sync && again.failed.is_empty(), "{again:?}");
    pair.assert_equal();
}

#[test]
fn a_thousand_random_changes_arrive_seed_1() {
    churned(1);
}

#[test]
fn a_thousand_random_changes_arrive_seed_2() {
    churned(2);
}

#[test]
fn a_thousand_random_changes_arrive_seed_3() {
    churned(3);
}

/// The others take the best watcher, which is fanotify for root.
#[test]
fn a_thousand_random_changes_arrive_by_inotify() {
    churned_and_watched(4, WatchChoice::Inotify);
}

/// With nothing but listings: what changes between two of them, and changes back, need not be told.
#[test]
fn a_thousand_random_changes_arrive_by_polling() {
    churned_and_watched(5, WatchChoice::Poll);
}

/// `DRIFTLESS_SOAK=n` runs n more seeds, from `DRIFTLESS_SEED` on.
#[test]
fn more_random_changes_arrive_when_asked() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let first = number("DRIFTLESS_SEED").unwrap_or(100);
    for seed in first..first + number("DRIFTLESS_SOAK").unwrap_or(0) {
        churned(seed);
    }
}

#[test]
fn a_sender_that_starts_in_the_middle_of_changes_misses_none() {
    let pair = Pair::new();
    let receiver = pair.receive();
    let mut churn = Churn::new(&pair, 17);
    let mut guard = OnPanic("seed 17".to_owned(), Vec::new());
    churn.many(50);
    for _round in 0..20 {
        let options = pair.sender_options(receiver.address(), true);
        let changing = std::thread::spawn(move || {
            churn.many(60);
            churn
        });
        let following = Following::start(options);
        churn = changing.join().unwrap();
        guard.1.append(&mut churn.log);
        wait_settled(&pair, &following);
        following.stop().unwrap();
    }
    receiver.stop();
}

fn receive_at(pair: &Pair, listen: std::net::SocketAddr) -> ReceiverDaemon {
    let options = ReceiverOptions {
        listen,
        ..pair.receiver_options()
    };
    ReceiverDaemon::start(options, &runtime()).unwrap()
}

#[test]
fn a_receiver_that_restarts_in_the_middle_of_changes_loses_none() {
    let pair = Pair::new();
    let mut receiver = pair.receive();
    let address = receiver.address();
    let mut churn = Churn::new(&pair, 23);
    let mut guard = OnPanic("seed 23".to_owned(), Vec::new());
    churn.many(100);
    let following = Following::start(pair.sender_options(address, true));
    following.watching.wait_in_sync();
    for _round in 0..5 {
        let changing = std::thread::spawn(move || {
            churn.many(150);
            churn
        });
        receiver.stop();
        receiver = receive_at(&pair, address);
        churn = changing.join().unwrap();
        guard.1.append(&mut churn.log);
        wait_settled(&pair, &following);
    }
    following.stop().unwrap();
    receiver.stop();
    assert_no_leftovers(&pair.dst());
}

#[test]
fn a_receiver_that_comes_later_gets_everything() {
    let pair = Pair::new();
    let mut churn = Churn::new(&pair, 29);
    churn.many(100);
    // A port that was just free; nobody listens there now.
    let receiver = pair.receive();
    let address = receiver.address();
    receiver.stop();
    let following = Following::start(pair.sender_options(address, true));
    following
        .watching
        .wait_for(|phase| matches!(phase, Phase::Waiting { .. }));
    churn.many(100);
    let receiver = receive_at(&pair, address);
    wait_settled(&pair, &following);
    following.stop().unwrap();
    receiver.stop();
}

#[test]
fn three_thousand_files_at_once_arrive() {
    let pair = Pair::new();
    let receiver = pair.receive();
    let following = Following::start(pair.sender_options(receiver.address(), true));
    following.watching.wait_in_sync();
    for n in 0..3_000 {
        let directory = pair.src().join(format!("d{}", n % 30));
        if n < 30 {
            fs::create_dir(&directory).unwrap();
        }
        fs::write(directory.join(format!("f{n}")), format!("content {n}")).unwrap();
    }
    wait_settled(&pair, &following);
    fs::remove_dir_all(pair.src().join("d7")).unwrap();
    wait_settled(&pair, &following);
    let summary = following.stop().unwrap();
    assert!(summary.failed.is_empty(), "{summary:?}");
    receiver.stop();
}

#[test]
fn renaming_a_directory_costs_next_to_nothing() {
    let pair = Pair::new();
    let receiver = pair.receive();
    let old = pair.src().join("old/name");
    fs::create_dir_all(&old).unwrap();
    for n in 0..500 {
        fs::write(old.join(format!("f{n}")), Random(n).bytes()).unwrap();
    }
    assert!(pair.seed_to(receiver.address()).unwrap().in_sync);
    let following = Following::start(pair.sender_options(receiver.address(), true));
    following.watching.wait_in_sync();
    let inodes = |root: &Path| {
        use std::os::unix::fs::MetadataExt;
        let found = fs::read_dir(root)
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().ino());
        found.collect::<BTreeSet<_>>()
    };
    let before = inodes(&pair.dst().join("old/name"));
    fs::rename(&old, pair.src().join("renamed")).unwrap();
    wait_settled(&pair, &following);
    assert_eq!(
        inodes(&pair.dst().join("renamed")),
        before,
        "the files themselves stayed"
    );
    let counters = following.stop().unwrap().counters;
    let moved = counters.wire_bytes_sent + counters.wire_bytes_received;
    assert!(moved < 40_000, "a handshake and a rename moved {moved} bytes");
    assert_eq!(counters.files_sent, 0);
    assert_eq!(counters.files_read, 0);
    receiver.stop();
}

#[test]
fn no_rename_is_taken_for_a_new_file() {
    let pair = Pair::new();
    let receiver = pair.receive();
    for directory in ["a", "b"] {
        fs::create_dir(pair.src().join(directory)).unwrap();
    }
    for n in 0..50 {
        fs::write(pair.src().join(format!("a/{n}")), Random(n).bytes()).unwrap();
    }
    assert!(pair.seed_to(receiver.address()).unwrap().in_sync);
    let following = Following::start(pair.sender_options(receiver.address(), true));
    following.watching.wait_in_sync();
    for (from, to) in [("a", "b"), ("b", "a"), ("a", "b"), ("b", "a")] {
        for n in 0..50 {
            let name = |directory: &str| pair.src().join(format!("{directory}/{n}"));
            fs::rename(name(from), name(to)).unwrap();
            // The two halves of a rename reach the sender apart from each other, now and then.
            std::thread::yield_now();
        }
        wait_settled(&pair, &following);
    }
    let counters = following.stop().unwrap().counters;
    assert_eq!((counters.files_sent, counters.files_read), (0, 0));
    receiver.stop();
}

#[test]
fn deletes_never_keeps_what_the_source_removes() {
    let mut pair = Pair::new();
    pair.deletes = Deletes::Never;
    let receiver = pair.receive();
    let (src, dst) = (pair.src(), pair.dst());
    for name in ["a/b/one", "a/two", "three"] {
        fs::create_dir_all(src.join(name).parent().unwrap()).unwrap();
        fs::write(src.join(name), name).unwrap();
    }
    let following = Following::start(pair.sender_options(receiver.address(), true));
    wait_settled(&pair, &following);
    fs::remove_dir_all(src.join("a")).unwrap();
    fs::remove_file(src.join("three")).unwrap();
    // What comes after the removals tells that they have been dealt with.
    fs::write(src.join("last"), b"last").unwrap();
    let deadline = Instant::now() + SETTLES;
    while !dst.join("last").exists() {
        assert!(Instant::now() < deadline, "the last file did not arrive");
        std::thread::park_timeout(Duration::from_millis(5));
    }
    following.watching.wait_in_sync();
    // The name of something kept is used again.
    fs::write(src.join("three"), b"anew").unwrap();
    while fs::read(dst.join("three")).unwrap() != b"anew" {
        assert!(Instant::now() < deadline, "a kept name was not written again");
        std::thread::park_timeout(Duration::from_millis(5));
    }
    following.watching.wait_in_sync();
    following.stop().unwrap();
    receiver.stop();
    assert_eq!(fs::read(dst.join("a/b/one")).unwrap(), b"a/b/one");
    assert_eq!(fs::read(dst.join("a/two")).unwrap(), b"a/two");
}
