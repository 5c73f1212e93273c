//! On real directories. Every wait is for an event, with a time limit; nothing sleeps.

use super::*;
use crate::engine::pending::Hint;
use driftless_protocol::Name;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions, Permissions};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

const ROOT: ObjectId = ObjectId::ROOT;
const LONG: Duration = Duration::from_secs(20);

struct Bench {
    directory: tempfile::TempDir,
    watcher: Inotify,
    events: Receiver<WatchEvent>,
}

impl Bench {
    fn new() -> Bench {
        Bench::with(&InotifyOptions::default())
    }

    fn with(options: &InotifyOptions) -> Bench {
        let directory = tempfile::tempdir().unwrap();
        let watcher = Inotify::start_with(options).unwrap();
        let events = watcher.events();
        let mut bench = Bench {
            directory,
            watcher,
            events,
        };
        fs::create_dir(bench.path("")).unwrap();
        bench.watch(ROOT, "");
        bench
    }

    fn path(&self, below: impl AsRef<Path>) -> std::path::PathBuf {
        self.directory.path().join("root").join(below)
    }

    fn watch(&mut self, object: ObjectId, below: &str) {
        let handle = File::open(self.path(below)).unwrap();
        self.watcher.watch(object, handle.as_fd()).unwrap();
    }

    fn next(&self) -> WatchEvent {
        self.events.recv_timeout(LONG).expect("an event")
    }

    /// Exactly these come next, in this order.
    fn expect(&self, events: &[WatchEvent]) {
        for (number, event) in events.iter().enumerate() {
            assert_eq!(self.next(), *event, "event {number} of {events:?}");
        }
    }

    /// Nothing has happened but what was taken: the next thing that we do is the next event.
    fn expect_silence(&self) {
        let marker = self.path("marker");
        File::create(&marker).unwrap();
        self.expect(&[file("marker", Hint::Created), file("marker", Hint::Closed)]);
        fs::remove_file(&marker).unwrap();
        self.expect(&[file("marker", Hint::Vanished)]);
    }
}

fn renamed(from: &str, to: &str, is_directory: bool) -> WatchEvent {
    let place = |name: &str| (ROOT, Name::new(name.as_bytes()).unwrap());
    WatchEvent::Renamed {
        from: place(from),
        to: place(to),
        is_directory,
    }
}

fn at(directory: ObjectId, name: &[u8], hint: Hint, is_directory: bool) -> WatchEvent {
    WatchEvent::At {
        directory,
        name: Name::new(name).unwrap(),
        hint,
        is_directory,
    }
}

fn file(name: &str, hint: Hint) -> WatchEvent {
    at(ROOT, name.as_bytes(), hint, false)
}

fn folder(name: &str, hint: Hint) -> WatchEvent {
    at(ROOT, name.as_bytes(), hint, true)
}

#[test]
fn files_from_cradle_to_grave() {
    let bench = Bench::new();
    let mut open = File::create(bench.path("a")).unwrap();
    bench.expect(&[file("a", Hint::Created)]);
    open.write_all(b"text").unwrap();
    bench.expect(&[file("a", Hint::Modified)]);
    drop(open);
    bench.expect(&[file("a", Hint::Closed)]);
    fs::hard_link(bench.path("a"), bench.path("b")).unwrap();
    // Not a word about `a`, whose link count changed.
    bench.expect(&[file("b", Hint::Created)]);
    // A write is told under the name that was opened, and under no other.
    drop(OpenOptions::new().append(true).open(bench.path("b")).unwrap());
    bench.expect(&[file("b", Hint::Closed)]);
    fs::rename(bench.path("a"), bench.path("c")).unwrap();
    bench.expect(&[file("a", Hint::Vanished), renamed("a", "c", false)]);
    fs::set_permissions(bench.path("c"), Permissions::from_mode(0o600)).unwrap();
    bench.expect(&[file("c", Hint::Attributes)]);
    symlink("c", bench.path("link")).unwrap();
    bench.expect(&[file("link", Hint::Created)]);
    fs::remove_file(bench.path("link")).unwrap();
    bench.expect(&[file("link", Hint::Vanished)]);
    File::open(bench.path("c")).unwrap();
    bench.expect_silence();
}

#[test]
fn a_move_from_outside_is_told_by_its_new_name_only() {
    let bench = Bench::new();
    let outside = tempfile::NamedTempFile::new_in(bench.directory.path()).unwrap();
    let open = outside.persist(bench.path("a")).unwrap();
    bench.expect(&[file("a", Hint::MovedIn)]);
    drop(open);
    bench.expect(&[file("a", Hint::Closed)]);
    bench.expect_silence();
}

#[test]
fn an_unlinked_file_is_silent() {
    let bench = Bench::new();
    let mut open = File::create(bench.path("a")).unwrap();
    fs::remove_file(bench.path("a")).unwrap();
    open.write_all(b"nobody will see this").unwrap();
    drop(open);
    loop {
        // Its loss of the last name may be told before the removal.
        match bench.next() {
            event if event == file("a", Hint::Vanished) => break,
            event => assert!(
                [Hint::Created, Hint::Attributes]
                    .map(|hint| file("a", hint))
                    .contains(&event),
                "{event:?}"
            ),
        }
    }
    bench.expect_silence();
}

#[test]
fn directories_and_their_own_attributes() {
    let mut bench = Bench::new();
    fs::create_dir(bench.path("d")).unwrap();
    bench.expect(&[folder("d", Hint::Created)]);
    bench.watch(ObjectId(2), "d");
    assert_eq!(bench.watcher.watched(), 2);
    fs::set_permissions(bench.path("d"), Permissions::from_mode(0o700)).unwrap();
    let mut both = [bench.next(), bench.next()];
    both.sort_by_key(|event| matches!(event, WatchEvent::Itself { .. }));
    assert_eq!(
        both,
        [
            folder("d", Hint::Attributes),
            WatchEvent::Itself {
                directory: ObjectId(2)
            }
        ]
    );

    File::create(bench.path("d/a")).unwrap();
    bench.expect(&[
        at(ObjectId(2), b"a", Hint::Created, false),
        at(ObjectId(2), b"a", Hint::Closed, false),
    ]);
    fs::remove_dir_all(bench.path("d")).unwrap();
    bench.expect(&[
        at(ObjectId(2), b"a", Hint::Vanished, false),
        WatchEvent::Gone {
            directory: ObjectId(2),
        },
        folder("d", Hint::Vanished),
    ]);
    bench.expect_silence();
    assert_eq!(bench.watcher.watched(), 1);
}

/// A root is kept open by those who watch it.
#[test]
fn a_removed_root_is_gone_at_once() {
    let bench = Bench::new();
    let handle = File::open(bench.path("")).unwrap();
    let beside = bench.directory.path().join("beside");
    fs::create_dir(&beside).unwrap();
    File::create(beside.with_extension("file")).unwrap();
    fs::remove_file(beside.with_extension("file")).unwrap();
    bench.expect_silence();
    let gone = WatchEvent::Gone { directory: ROOT };
    fs::remove_dir(&beside).unwrap();
    bench.expect(std::slice::from_ref(&gone));
    fs::remove_dir(bench.path("")).unwrap();
    bench.expect(std::slice::from_ref(&gone));
    drop(handle);
    bench.expect(&[gone]);
}

/// The directory above the root is found below it: one watch for both.
#[test]
fn a_root_above_which_is_watched_below_it() {
    let mut bench = Bench::new();
    let above = File::open(bench.directory.path()).unwrap();
    let number = ObjectId(2);
    bench.watcher.watch(number, above.as_fd()).unwrap();
    let beside = bench.directory.path().join("beside");
    fs::create_dir(&beside).unwrap();
    bench.expect(&[at(number, b"beside", Hint::Created, true)]);
    bench.watch(ROOT, "");
    File::create(beside.with_extension("file")).unwrap();
    bench.expect(&[
        at(number, b"beside.file", Hint::Created, false),
        at(number, b"beside.file", Hint::Closed, false),
    ]);
    // The tree leaves it, the root does not.
    bench.watcher.unwatch(number);
    fs::remove_dir(&beside).unwrap();
    bench.expect(&[WatchEvent::Gone { directory: ROOT }]);
}

#[test]
fn a_removed_directory_is_gone_when_its_last_handle_is_closed() {
    let mut bench = Bench::new();
    fs::create_dir(bench.path("d")).unwrap();
    bench.watch(ObjectId(2), "d");
    let handle = File::open(bench.path("d")).unwrap();
    fs::remove_dir(bench.path("d")).unwrap();
    bench.expect(&[folder("d", Hint::Created), folder("d", Hint::Vanished)]);
    bench.expect_silence();
    drop(handle);
    bench.expect(&[WatchEvent::Gone {
        directory: ObjectId(2),
    }]);
}

#[test]
fn a_moved_directory_keeps_its_watch_and_its_number() {
    let mut bench = Bench::new();
    fs::create_dir(bench.path("d")).unwrap();
    bench.watch(ObjectId(2), "d");
    fs::rename(bench.path("d"), bench.path("e")).unwrap();
    bench.expect(&[
        folder("d", Hint::Created),
        folder("d", Hint::Vanished),
        renamed("d", "e", true),
        WatchEvent::Gone {
            directory: ObjectId(2),
        },
    ]);
    symlink("x", bench.path("e/a")).unwrap();
    bench.expect(&[at(ObjectId(2), b"a", Hint::Created, false)]);
}

#[test]
fn the_handle_counts_and_not_the_path() {
    let mut bench = Bench::new();
    fs::create_dir(bench.path("d")).unwrap();
    let handle = File::open(bench.path("d")).unwrap();
    fs::rename(bench.path("d"), bench.path("e")).unwrap();
    fs::create_dir(bench.path("d")).unwrap();
    bench.watcher.watch(ObjectId(2), handle.as_fd()).unwrap();
    symlink("x", bench.path("d/wrong")).unwrap();
    symlink("x", bench.path("e/right")).unwrap();
    bench.expect(&[
        folder("d", Hint::Created),
        folder("d", Hint::Vanished),
        renamed("d", "e", true),
        folder("d", Hint::Created),
        at(ObjectId(2), b"right", Hint::Created, false),
    ]);
}

#[test]
fn unwatched_is_silent_and_can_be_watched_again() {
    let mut bench = Bench::new();
    fs::create_dir(bench.path("d")).unwrap();
    bench.watch(ObjectId(2), "d");
    bench.watcher.unwatch(ObjectId(2));
    bench.watcher.unwatch(ObjectId(2));
    bench.watcher.unwatch(ObjectId(99));
    assert_eq!(bench.watcher.watched(), 1);
    symlink("x", bench.path("d/a")).unwrap();
    bench.expect(&[folder("d", Hint::Created)]);
    bench.expect_silence();
    bench.watch(ObjectId(2), "d");
    symlink("x", bench.path("d/b")).unwrap();
    bench.expect(&[at(ObjectId(2), b"b", Hint::Created, false)]);
}

#[test]
fn the_last_number_of_a_directory_counts() {
    let mut bench = Bench::new();
    fs::create_dir(bench.path("d")).unwrap();
    fs::create_dir(bench.path("e")).unwrap();
    bench.watch(ObjectId(2), "d");
    bench.watch(ObjectId(3), "d");
    assert_eq!(bench.watcher.watched(), 2);
    // Its former number means nothing now, and must not take the watch away.
    bench.watcher.unwatch(ObjectId(2));
    symlink("x", bench.path("d/a")).unwrap();
    bench.expect(&[folder("d", Hint::Created), folder("e", Hint::Created)]);
    bench.expect(&[at(ObjectId(3), b"a", Hint::Created, false)]);
    // And a number that moves to another directory leaves the former.
    bench.watch(ObjectId(3), "e");
    assert_eq!(bench.watcher.watched(), 2);
    symlink("x", bench.path("d/b")).unwrap();
    symlink("x", bench.path("e/c")).unwrap();
    bench.expect(&[at(ObjectId(3), b"c", Hint::Created, false)]);
}

#[test]
fn odd_names_arrive_to_the_byte() {
    let bench = Bench::new();
    for name in [
        &b"a\nb"[..],
        b"\xff\xfe",
        b" ",
        b"-rf",
        b"...",
        &[b'x'; 255],
        b"tab\tand\x1b[31m",
    ] {
        symlink("x", bench.path(OsStr::from_bytes(name))).unwrap();
        bench.expect(&[at(ROOT, name, Hint::Created, false)]);
    }
}

/// The queue is never longer than asked, and what did not fit is told.
#[test]
fn a_full_queue_overflows() {
    let bench = Bench::with(&InotifyOptions { queue_events: 8 });
    for number in 0..100 {
        symlink("x", bench.path(number.to_string())).unwrap();
    }
    let start = Instant::now();
    while bench.events.len() < 9 {
        assert!(start.elapsed() < LONG, "the queue never fills");
        thread::yield_now();
    }
    let first: Vec<_> = (0..9).map(|_| bench.next()).collect();
    assert!(first[..8].iter().all(|event| *event != WatchEvent::Overflow));
    assert_eq!(first[8], WatchEvent::Overflow);
    // And it goes on: the last thing that happens is told, one way or the other.
    symlink("x", bench.path("last")).unwrap();
    while ![WatchEvent::Overflow, file("last", Hint::Created)].contains(&bench.next()) {}
}

/// With the reader held up, the kernel's own queue overflows.
#[test]
fn an_overflow_of_the_kernel_is_told() {
    let bench = Bench::new();
    let limit = value("fs.inotify.max_queued_events").unwrap();
    File::create(bench.path("a")).unwrap();
    File::create(bench.path("b")).unwrap();
    bench.expect(&[file("a", Hint::Created), file("a", Hint::Closed)]);
    bench.expect(&[file("b", Hint::Created), file("b", Hint::Closed)]);
    let held = bench.watcher.instance.shared.watches();
    // The reader takes one buffer before it is held up. Equal events in a row are one, so two files take turns.
    for _ in 0..limit / 2 + 4_096 {
        for name in ["a", "b"] {
            fs::set_permissions(bench.path(name), Permissions::from_mode(0o600)).unwrap();
        }
    }
    drop(held);
    while bench.next() != WatchEvent::Overflow {}
    assert!(bench.events.try_iter().all(|event| event != WatchEvent::Overflow));
}

#[test]
fn the_reader_ends_with_its_owner() {
    let Bench {
        directory,
        watcher,
        events,
    } = Bench::new();
    let start = Instant::now();
    drop(watcher);
    assert!(start.elapsed() < LONG);
    File::create(directory.path().join("a")).unwrap();
    assert!(
        events
            .recv_timeout(LONG)
            .is_err_and(|error| error.is_disconnected())
    );
}

/// While others write, watches come and go: nothing hangs, and no more than the last number of each is kept.
#[test]
fn watches_come_and_go_under_load() {
    let mut bench = Bench::with(&InotifyOptions { queue_events: 16 });
    let busy = bench.path("");
    let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writer = thread::spawn({
        let done = done.clone();
        move || {
            let mut round = 0u64;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                round += 1;
                let directory = busy.join((round % 8).to_string());
                let _ = fs::create_dir(&directory);
                let _ = OpenOptions::new()
                    .create(true)
                    .append(true)
                    .open(directory.join("f"));
                let _ = fs::remove_dir_all(&directory);
            }
        }
    });
    for round in 0..20_000u64 {
        if let Ok(handle) = File::open(bench.path((round % 8).to_string())) {
            match bench.watcher.watch(ObjectId(2 + round % 64), handle.as_fd()) {
                Ok(()) | Err(WatchError::Removed { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        bench.watcher.unwatch(ObjectId(2 + (round * 7) % 64));
        let _ = bench.events.try_recv();
    }
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    writer.join().unwrap();
    assert!(bench.watcher.watched() <= 65);
}

/// RACE: the directory is removed, and the reader has read so, before the watch is in the map.
#[test]
fn a_watch_that_ends_while_it_is_added_leaves_nothing() {
    let mut watches = Watches {
        ended: Some(HashSet::new()),
        ..Watches::default()
    };
    watches.end(5);
    assert!(watches.ended.unwrap().contains(&5));
    assert!(watches.table.get(&5).is_empty());
}

/// Trees on one device have one instance; a directory of both keeps its watch until both have left it.
#[test]
fn trees_on_one_device_share_an_instance() {
    let directory = tempfile::tempdir().unwrap();
    let handle = File::open(directory.path()).unwrap();
    let device = rustix::fs::fstat(&handle).unwrap().st_dev;
    let mut trees: Vec<_> = (0..3)
        .map(|_| {
            let (outgoing, events) = Outgoing::new(100);
            let mut watcher = Inotify::join(device, outgoing, events.clone()).unwrap();
            watcher.watch(ROOT, handle.as_fd()).unwrap();
            (watcher, events)
        })
        .collect();
    assert!(Arc::ptr_eq(&trees[0].0.instance, &trees[1].0.instance));
    drop(trees.remove(0));
    trees[0].0.unwatch(ROOT);
    assert_eq!((trees[0].0.watched(), trees[1].0.watched()), (0, 1));
    symlink("x", directory.path().join("a")).unwrap();
    assert_eq!(next_told(&trees[1].1), Some(Hint::Created));
    assert_eq!(trees[0].1.try_iter().find_map(|event| hint_of(&event)), None);
    // Nor does one that leaves without having watched it.
    let (left, watch) = (trees.remove(0), trees.remove(0));
    drop(left);
    symlink("x", directory.path().join("b")).unwrap();
    assert_eq!(next_told(&watch.1), Some(Hint::Created));
}

/// What is told of a name. Other tests of this process may share the instance, and let its queue overflow.
fn hint_of(event: &WatchEvent) -> Option<Hint> {
    match event {
        WatchEvent::At { hint, .. } => Some(*hint),
        _ => None,
    }
}

fn next_told(events: &Receiver<WatchEvent>) -> Option<Hint> {
    std::iter::from_fn(|| events.recv_timeout(LONG).ok()).find_map(|event| hint_of(&event))
}

#[test]
fn errors_say_what_to_do() {
    let mut bench = Bench::new();
    let file = File::create(bench.path("a\nb")).unwrap();
    let error = bench
        .watcher
        .watch(ObjectId(2), file.as_fd())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("a\\nb: ") && error.to_lowercase().contains("not a directory"),
        "{error}"
    );
    assert_eq!(bench.watcher.watched(), 1);

    let WatchError::LimitReached { limit, .. } = failed(Errno::NOSPC, file.as_fd()) else {
        panic!("ENOSPC is the limit")
    };
    let system = value("fs.inotify.max_user_watches");
    assert!(
        limit.value.is_some() && limit.value <= system,
        "{limit:?} {system:?}"
    );
    assert!(
        limit.sysctl == "fs.inotify.max_user_watches" || limit.value < system,
        "{limit:?}"
    );
    let shown = Limit {
        sysctl: "fs.inotify.max_user_watches",
        value: Some(8_192),
    }
    .to_string();
    assert_eq!(shown, "fs.inotify.max_user_watches, which is 8192");
}
