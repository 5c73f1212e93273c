//! What only fanotify has: foreign events, silent directories, several file systems. What all back ends have in common is
//! in `watch/tests`.

use super::super::tests::{Bench, LONG, fanotify, name, wait_until};
use super::*;
use crate::engine::pending::Hint;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};

const ROOT: ObjectId = ObjectId::ROOT;

impl Fanotify {
    /// From the first mark on, renames are told in two events, as they are before Linux 5.17.
    pub(in crate::watch) fn pretend_without_renames(&self) {
        self.group.shared.has_rename.store(false, Ordering::Relaxed);
    }
}

fn options() -> FanotifyOptions {
    FanotifyOptions {
        noisy_events: 50,
        ..FanotifyOptions::default()
    }
}

/// A bench, and what its watcher shares with its threads.
fn bench() -> Option<(Bench, Arc<Shared>)> {
    let (watcher, directory) = fanotify(&options())?;
    let shared = watcher.group.shared.clone();
    Some((Bench::new(watcher, directory), shared))
}

/// Makes events in a directory outside until it is silent.
fn make_noise(bench: &Bench, shared: &Shared, below: &str) {
    let before = shared.noise().silent();
    let (one, other) = (
        bench.outside(below).join("one"),
        bench.outside(below).join("other"),
    );
    wait_until("the directory is silenced", || {
        for path in [&one, &other] {
            fs::write(path, "").unwrap();
            fs::remove_file(path).unwrap();
        }
        shared.noise().silent() > before
    });
}

#[test]
fn noisy_neighbours_are_silenced_and_heard_again_in_the_tree() {
    let Some((mut bench, shared)) = bench() else {
        return;
    };
    fs::create_dir_all(bench.outside("noisy/below")).unwrap();
    make_noise(&bench, &shared, "noisy");
    if shared.noise().is_unsupported {
        return super::super::tests::skip("ignore marks need Linux 6.0");
    }
    // Nothing of it is told any more.
    bench.told();
    let before = shared.foreign.load(Ordering::Relaxed);
    for _ in 0..2_000 {
        fs::write(bench.outside("noisy/one"), "").unwrap();
        fs::set_permissions(bench.outside("noisy/one"), Permissions::from_mode(0o600)).unwrap();
        fs::remove_file(bench.outside("noisy/one")).unwrap();
    }
    bench.told();
    let foreign = shared.foreign.load(Ordering::Relaxed) - before;
    // Others work on this file system, too.
    assert!(
        foreign < 2_000 || std::env::var_os("DRIFTLESS_TEST_NO_SKIP").is_none(),
        "{foreign} foreign events"
    );

    // A file that leaves it for the tree is told, and so is the directory itself.
    symlink("x", bench.outside("noisy/link")).unwrap();
    fs::rename(bench.outside("noisy/link"), bench.path("link")).unwrap();
    bench.expect(&[(1, b"link", &[Hint::MovedIn])]);
    fs::rename(bench.outside("noisy"), bench.path("noisy")).unwrap();
    bench.expect(&[(1, b"noisy", &[Hint::MovedIn])]);
    bench.watch(2, "noisy");
    fs::write(bench.path("noisy/a"), "text").unwrap();
    bench.expect(&[(2, b"a", &[Hint::Created, Hint::Modified, Hint::Closed])]);
    // And stays so: no second look at its former noise silences it.
    for _ in 0..200 {
        fs::write(bench.path("noisy/a"), "text").unwrap();
    }
    bench.expect(&[(2, b"a", &[Hint::Modified, Hint::Closed])]);
}

/// The directory that the root stands in may be silent; that the root leaves it is told all the same.
#[test]
fn a_root_in_a_silent_directory_is_still_gone() {
    let Some((mut bench, shared)) = bench() else {
        return;
    };
    fs::create_dir(bench.outside("noisy")).unwrap();
    fs::create_dir(bench.outside("noisy/root")).unwrap();
    let handle = File::open(bench.outside("noisy/root")).unwrap();
    bench.watcher.watch(ROOT, handle.as_fd()).unwrap();
    make_noise(&bench, &shared, "noisy");
    fs::rename(bench.outside("noisy/root"), bench.outside("elsewhere")).unwrap();
    while bench.next() != (WatchEvent::Gone { directory: ROOT }) {}
}

/// Silencing and watching at the same time: whoever wins, a watched directory is heard.
#[test]
fn a_directory_is_never_watched_and_silent() {
    let Some((mut bench, shared)) = bench() else {
        return;
    };
    for round in 0..100 {
        let directory = bench.outside(round.to_string());
        fs::create_dir(&directory).unwrap();
        // Enough for it to be on its way to being silenced, and no wait for that.
        for _ in 0..30 {
            fs::write(directory.join("a"), "").unwrap();
            fs::remove_file(directory.join("a")).unwrap();
        }
        let handle = File::open(&directory).unwrap();
        bench.watcher.watch(ObjectId(2), handle.as_fd()).unwrap();
        fs::write(directory.join("b"), "").unwrap();
        let told = bench.told();
        assert!(told.is_told(2, b"b"), "round {round}: {told:?}");
    }
    drop(shared);
}

/// With the reader held up, the kernel's own queue overflows.
#[test]
fn an_overflow_of_the_kernel_is_told() {
    let Some((bench, shared)) = bench() else { return };
    let limit: u32 = fs::read_to_string("/proc/sys/fs/fanotify/max_queued_events")
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let held = shared.directories();
    // The reader takes one buffer before it is held up. Links are told one by one.
    for number in 0..limit + 8_192 {
        symlink("x", bench.path(number.to_string())).unwrap();
    }
    drop(held);
    while bench.next() != WatchEvent::Overflow {}
    symlink("x", bench.path("last")).unwrap();
    let last = WatchEvent::At {
        directory: ROOT,
        name: name(b"last"),
        hint: Hint::Created,
        is_directory: false,
    };
    while bench.next() != last {}
}

/// Trees on one file system have one group and one reader; each is told of its own, and of what they have in common.
#[test]
fn trees_on_one_file_system_share_a_group() {
    let Some((_, directory)) = fanotify(&options()) else {
        return;
    };
    let join = |path: &std::path::Path| {
        let (outgoing, events) = Outgoing::new(100);
        let root = File::open(path).unwrap();
        let mut watcher = Fanotify::join(&options(), root.as_fd(), outgoing, events.clone()).unwrap();
        watcher.watch(ROOT, root.as_fd()).unwrap();
        (watcher, events)
    };
    let created = |name: &[u8], directory| WatchEvent::At {
        directory,
        name: super::super::tests::name(name),
        hint: Hint::Created,
        is_directory: false,
    };
    let [outer, inner] = ["outer", "outer/inner"].map(|below| directory.path().join(below));
    fs::create_dir_all(&inner).unwrap();
    let (mut first, of_first) = join(&outer);
    let (second, of_second) = join(&inner);
    assert!(Arc::ptr_eq(&first.group, &second.group));
    let handle = File::open(&inner).unwrap();
    first.watch(ObjectId(2), handle.as_fd()).unwrap();
    symlink("x", inner.join("both")).unwrap();
    assert_eq!(of_first.recv_timeout(LONG), Ok(created(b"both", ObjectId(2))));
    assert_eq!(of_second.recv_timeout(LONG), Ok(created(b"both", ROOT)));
    // Between two directories of one tree it is a rename; to the other one, something came.
    fs::rename(inner.join("both"), outer.join("one")).unwrap();
    let place = |directory, text: &[u8]| (directory, name(text));
    let is_rename = |event: &WatchEvent| {
        matches!(event, WatchEvent::Renamed { from, to, .. }
            if (from, to) == (&place(ObjectId(2), b"both"), &place(ROOT, b"one")))
    };
    while !is_rename(&of_first.recv_timeout(LONG).unwrap()) {}
    assert!(matches!(
        of_second.recv_timeout(LONG),
        Ok(WatchEvent::At {
            hint: Hint::Vanished,
            ..
        })
    ));
    // The root of the inner tree stands in the outer one, which is told itself.
    fs::rename(&inner, outer.join("elsewhere")).unwrap();
    let gone = WatchEvent::Gone { directory: ROOT };
    assert_eq!(of_second.recv_timeout(LONG).as_ref(), Ok(&gone));
    // Who leaves takes nothing along.
    drop(first);
    symlink("x", outer.join("elsewhere/late")).unwrap();
    // That something left is said for both sides of a rename.
    let mut told = of_second.recv_timeout(LONG).unwrap();
    while told == gone {
        told = of_second.recv_timeout(LONG).unwrap();
    }
    assert_eq!(told, created(b"late", ROOT));
    assert_eq!(second.watched(), 1);
}

/// Our own queue is never longer than asked, and what did not fit is told.
#[test]
fn a_full_queue_overflows() {
    let options = FanotifyOptions {
        queue_events: 8,
        ..options()
    };
    let Some((watcher, directory)) = fanotify(&options) else {
        return;
    };
    let bench = Bench::new(watcher, directory);
    for number in 0..100 {
        symlink("x", bench.path(number.to_string())).unwrap();
    }
    wait_until("the queue is full", || bench.events.len() >= 9);
    let first: Vec<_> = (0..9).map(|_| bench.next()).collect();
    assert!(first[..8].iter().all(|event| *event != WatchEvent::Overflow));
    assert_eq!(first[8], WatchEvent::Overflow);
}

/// What is no directory, or has no handle, is refused with a reason.
#[test]
fn refusals_say_what_and_why() {
    let Some((mut bench, _shared)) = bench() else {
        return;
    };
    fs::write(bench.path("a\nb"), "").unwrap();
    let file = File::open(bench.path("a\nb")).unwrap();
    let error = bench.watcher.watch(ObjectId(2), file.as_fd()).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("a\\nb: ") && text.to_lowercase().contains("not a directory"),
        "{text}"
    );
    let proc = File::open("/proc").unwrap();
    let error = bench.watcher.watch(ObjectId(2), proc.as_fd()).unwrap_err();
    assert!(matches!(error, WatchError::Unsupported { .. }), "{error}");
    assert_eq!(bench.watcher.watched(), 1);
    assert!(bench.events.recv_timeout(LONG).is_ok());
}

/// Not a test but a measurement, printed: `DRIFTLESS_SOAK=1 cargo test --release --lib what_it_costs -- --nocapture`. Without
/// the variable it does nothing: it takes half a minute, and tells nothing on a busy machine.
#[test]
fn what_it_costs() {
    if std::env::var_os("DRIFTLESS_SOAK").is_none() {
        return;
    }
    const EVENTS: u64 = 200_000;
    const DIRECTORIES: u64 = 10_000;
    let Some((watcher, directory)) = fanotify(&FanotifyOptions {
        noisy_events: u32::MAX,
        ..options()
    }) else {
        return;
    };
    let shared = watcher.group.shared.clone();
    let mut bench = Bench::new(watcher, directory);
    // Foreign events, spread over directories like those of a compiler at work.
    for number in 0..20 {
        fs::create_dir(bench.outside(number.to_string())).unwrap();
    }
    bench.told();
    let (before, busy) = (shared.foreign.load(Ordering::Relaxed), cpu_of("fanotify"));
    for number in 0..EVENTS / 2 {
        let path = bench.outside(format!("{}/{number}", number % 20));
        symlink("x", &path).unwrap();
        fs::remove_file(&path).unwrap();
    }
    let told = bench.told();
    let foreign = shared.foreign.load(Ordering::Relaxed) - before;
    let each = (cpu_of("fanotify") - busy) / foreign.max(1);
    println!("{foreign} foreign events: {each} ns of the reader each; {told:?}");

    // Watching, against inotify on the same directories.
    let handles: Vec<File> = (0..DIRECTORIES)
        .map(|number| {
            fs::create_dir(bench.path(number.to_string())).unwrap();
            if number % 1_000 == 0 {
                bench.told();
            }
            File::open(bench.path(number.to_string())).unwrap()
        })
        .collect();
    let mut inotify = super::super::Inotify::start().unwrap();
    for round in 0..3 {
        let watchers: [(&str, &mut dyn Watcher); 2] =
            [("fanotify", bench.watcher.as_mut()), ("inotify", &mut inotify)];
        for (name, watcher) in watchers {
            let start = std::time::Instant::now();
            for (number, handle) in (2..).zip(&handles) {
                watcher.watch(ObjectId(number), handle.as_fd()).unwrap();
            }
            let each = start.elapsed().as_nanos() / u128::from(DIRECTORIES);
            println!("round {round}: watching by {name}: {each} ns a directory");
        }
    }

    let before = resident_bytes();
    let mut directories = Directories::default();
    for number in 0..1_000_000u64 {
        let handle = HandleRef {
            file_system: [1; 8],
            kind: 1,
            bytes: &number.to_ne_bytes(),
        };
        directories
            .insert(Member(0), &handle, 1, ObjectId(number + 2))
            .unwrap();
    }
    let each = (resident_bytes() - before) / 1_000_000;
    println!("{} directories: {each} bytes each", directories.len(Member(0)));
}

/// Nanoseconds of processor that this process's thread of this name has used.
fn cpu_of(thread: &str) -> u64 {
    fs::read_dir("/proc/self/task")
        .unwrap()
        .map(|task| task.unwrap().path())
        .filter(|task| fs::read_to_string(task.join("comm")).unwrap().trim() == thread)
        .map(|task| fs::read_to_string(task.join("schedstat")).unwrap())
        .map(|text| text.split(' ').next().unwrap().parse::<u64>().unwrap())
        .sum()
}

fn resident_bytes() -> u64 {
    let text = fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4_096
}
