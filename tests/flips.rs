//! Races with a local user: S-03 and S-04. Another uid exchanges what stands at a name, as fast as it can, with a link that
//! leads to a *canary*: a tree like the mirrored one, which only root may change. Both daemons run as root.
//!
//! `DRIFTLESS_RACE_SECONDS` sets the length of each race (default 2; a soak takes 30 and more).

mod support;

use driftless::daemon::Deletes;
use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, RenameFlags};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use support::{Following, Pair, is_root, skip, wait_equal};

const USER: u32 = 65_534;
const SECRET: &str = "OUTSIDE-CONTENT";
const SECRET_NAME: &str = "OUTSIDE-NAME";

fn budget() -> Duration {
    let seconds = std::env::var("DRIFTLESS_RACE_SECONDS").map_or(2, |text| text.parse().unwrap());
    Duration::from_secs(seconds)
}

/// Two names that one user exchanges all the time.
struct Flipper {
    stop: Arc<AtomicBool>,
    flips: Arc<AtomicU64>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Flipper {
    fn start(one: PathBuf, other: PathBuf) -> Flipper {
        let (stop, flips) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let thread = std::thread::spawn({
            let (stop, flips) = (stop.clone(), flips.clone());
            move || {
                // SAFETY: numbers only; past the C library it is for this thread alone, which ends with it.
                let answer = unsafe { libc::syscall(libc::SYS_setresuid, USER, USER, USER) };
                assert_eq!(answer, 0);
                while !stop.load(Ordering::Relaxed) {
                    // Fails while the receiver has one of them elsewhere.
                    if rustix::fs::renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE).is_ok() {
                        flips.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        });
        Flipper {
            stop,
            flips,
            thread: Some(thread),
        }
    }

    /// How often it exchanged them.
    fn stop(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        self.flips.load(Ordering::Relaxed)
    }
}

impl Drop for Flipper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Everything about the canary that somebody could have changed.
fn state_of(root: &Path) -> BTreeMap<PathBuf, (u32, u32, i64, i64, Vec<u8>)> {
    let mut seen = BTreeMap::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for path in fs::read_dir(&directory)
            .unwrap()
            .map(|entry| entry.unwrap().path())
        {
            let meta = fs::symlink_metadata(&path).unwrap();
            let mut content = Vec::new();
            if meta.is_dir() {
                directories.push(path.clone());
            } else if meta.is_file() {
                content = fs::read(&path).unwrap();
                let mut value = [0; 64];
                let length = rustix::fs::lgetxattr(&path, "user.mark", &mut value[..]).unwrap_or(0);
                content.extend_from_slice(&value[..length]);
            }
            seen.insert(
                path,
                (meta.mode(), meta.uid(), meta.mtime(), meta.mtime_nsec(), content),
            );
        }
    }
    seen
}

/// A tree below `home`, in which the user may rename; the same names stand in the canary.
fn lay_out(pair: &Pair) {
    for (root, text) in [(pair.src(), "inside"), (pair.path("canary"), SECRET)] {
        let x = root.join("home/x");
        fs::create_dir_all(x.join("sub")).unwrap();
        for name in ["f", "g", "sub/h"] {
            fs::write(x.join(name), text.repeat(50)).unwrap();
        }
        symlink("text", x.join("l")).unwrap();
    }
    fs::write(pair.path("canary/home/x").join(SECRET_NAME), SECRET).unwrap();
    for name in ["home", "home/x", "home/x/sub"] {
        chown(pair.src().join(name), Some(USER), Some(USER)).unwrap();
    }
}

/// One round of all that a receiver does with names in a directory.
fn churn(x: &Path, round: u64) {
    let (f, sub) = (x.join("f"), x.join("sub"));
    fs::write(&f, format!("inside {round}").repeat(30)).unwrap();
    fs::set_permissions(&f, fs::Permissions::from_mode(0o600 | (round as u32 & 0o77))).unwrap();
    chown(&f, Some(round as u32 % 100 + 1), None).unwrap();
    let _ = rustix::fs::lsetxattr(
        &f,
        "user.mark",
        &round.to_le_bytes(),
        rustix::fs::XattrFlags::empty(),
    );
    let times = rustix::fs::Timestamps {
        last_access: rustix::fs::Timespec {
            tv_sec: 1,
            tv_nsec: 0,
        },
        last_modification: rustix::fs::Timespec {
            tv_sec: round as i64,
            tv_nsec: 5,
        },
    };
    rustix::fs::utimensat(CWD, x.join("g"), &times, AtFlags::empty()).unwrap();
    match round % 4 {
        0 => fs::remove_dir_all(&sub).unwrap_or_default(),
        1 => {
            let _ = fs::create_dir(&sub);
            // A directory that is moved elsewhere has to be its mover's.
            chown(&sub, Some(USER), Some(USER)).unwrap();
            fs::write(sub.join("h"), round.to_string()).unwrap();
        }
        2 => {
            let _ = fs::remove_file(x.join("l"));
            symlink(format!("text {round}"), x.join("l")).unwrap();
            lchown(x.join("l"), Some(7), None).unwrap();
        }
        _ => {
            let _ = fs::rename(x.join("g"), x.join("k")).and_then(|()| fs::rename(x.join("k"), x.join("g")));
            // Large enough to be staged by parts.
            fs::write(x.join("big"), vec![round as u8; 300 << 10]).unwrap();
        }
    }
}

/// S-03: while a user of the receiver's machine exchanges `flipped` with something else, nothing outside changes.
fn receiver_race(flipped: &str, plant: impl Fn(&Pair, &Path)) {
    if !is_root() {
        return skip("another uid needs root");
    }
    let mut pair = Pair::new();
    // Others may enter, or the user could not play.
    fs::set_permissions(pair.directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    lay_out(&pair);
    let receiver = pair.receive();
    let following = Following::start(pair.sender_options(receiver.address(), true));
    following.watching.wait_in_sync();
    let before = state_of(&pair.path("canary"));
    let planted = pair.dst().join("home/planted");
    plant(&pair, &planted);
    lchown(&planted, Some(USER), Some(USER)).unwrap();
    let flipper = Flipper::start(pair.dst().join(flipped), planted.clone());
    let began = Instant::now();
    let mut round = 0;
    while began.elapsed() < budget() {
        churn(&pair.src().join("home/x"), round);
        round += 1;
        std::thread::park_timeout(Duration::from_millis(20));
    }
    let flips = flipper.stop();
    assert_eq!(state_of(&pair.path("canary")), before, "after {flips} flips");
    assert!(flips > 100, "only {flips} flips: that was no race");
    let _ = following.stop();
    receiver.stop();
    // With the user gone, the next comparison puts everything right.
    pair.deletes = Deletes::Always;
    assert!(pair.seed().unwrap().in_sync);
    pair.assert_equal();
    assert_eq!(state_of(&pair.path("canary")), before);
}

#[test]
fn s03_a_parent_that_becomes_a_link() {
    receiver_race("home/x", |pair, planted| {
        symlink(pair.path("canary/home/x"), planted).unwrap()
    });
}

#[test]
fn s03_a_leaf_that_becomes_a_link() {
    // The leaf stands in a directory of the user's.
    receiver_race("home/x/f", |pair, planted| {
        symlink(pair.path("canary/home/x/f"), planted).unwrap()
    });
}

#[test]
fn s03_a_directory_to_remove_that_becomes_a_link() {
    receiver_race("home/x/sub", |pair, planted| {
        symlink(pair.path("canary/home/x/sub"), planted).unwrap()
    });
}

#[test]
fn s03_a_leaf_that_becomes_a_fifo() {
    receiver_race("home/x/f", |_, planted| {
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(CWD, planted, kind, 0o600.into(), 0).unwrap();
    });
}

/// S-04: while a user of the sender's machine exchanges entries with links that lead outside, nothing of what is outside
/// leaves.
fn sender_race(flipped: &str, target: &str) {
    if !is_root() {
        return skip("another uid needs root");
    }
    let pair = Pair::new();
    fs::set_permissions(pair.directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    lay_out(&pair);
    let receiver = pair.receive();
    let following = Following::start(pair.sender_options(receiver.address(), true));
    following.watching.wait_in_sync();
    let planted = pair.src().join("home/planted");
    symlink(pair.path(target), &planted).unwrap();
    lchown(&planted, Some(USER), Some(USER)).unwrap();
    let flipper = Flipper::start(pair.src().join(flipped), planted);
    let began = Instant::now();
    while began.elapsed() < budget() {
        assert!(!leaks(&pair.dst()), "something from outside arrived");
        std::thread::park_timeout(Duration::from_millis(10));
    }
    let flips = flipper.stop();
    assert!(flips > 100, "only {flips} flips: that was no race");
    fs::write(pair.src().join("home/last"), "last").unwrap();
    wait_equal(&pair.src(), &pair.dst());
    assert!(!leaks(&pair.dst()));
    following.stop().unwrap();
    receiver.stop();
}

/// Whether a name or content of the canary is in a tree. By handles, and through no link: the links are mirrored, and the tree changes
/// while it is read.
fn leaks(root: &Path) -> bool {
    leaks_in(open(CWD, root).unwrap())
}

fn open(at: impl AsFd, path: impl rustix::path::Arg) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::openat(at, path, flags, Mode::empty())
}

fn leaks_in(directory: OwnedFd) -> bool {
    let secrets = [SECRET.repeat(50), SECRET.to_owned()];
    let entries = Dir::read_from(&directory).unwrap().filter_map(Result::ok);
    entries
        .filter(|entry| !matches!(entry.file_name().to_bytes(), b"." | b".."))
        .any(|entry| {
            let name = entry.file_name().to_bytes();
            if name
                .windows(SECRET_NAME.len())
                .any(|part| part == SECRET_NAME.as_bytes())
            {
                return true;
            }
            // A link, or gone meanwhile.
            let Ok(opened) = open(&directory, entry.file_name()) else {
                return false;
            };
            let mode = rustix::fs::fstat(&opened).unwrap().st_mode;
            match rustix::fs::FileType::from_raw_mode(mode) {
                rustix::fs::FileType::Directory => leaks_in(opened),
                rustix::fs::FileType::RegularFile => {
                    let mut content = Vec::new();
                    File::from(opened).read_to_end(&mut content).unwrap();
                    secrets.iter().any(|secret| secret.as_bytes() == content)
                }
                _ => false,
            }
        })
}

#[test]
fn s04_a_directory_of_the_source_that_becomes_a_link() {
    sender_race("home/x", "canary/home/x");
}

#[test]
fn s04_a_file_of_the_source_that_becomes_a_link() {
    sender_race("home/x/f", "canary/home/x/f");
}
