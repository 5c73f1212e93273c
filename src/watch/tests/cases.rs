//! The cases.

use super::super::*;
use super::walker::Walker;
use super::{Bench, LONG, ROOT};
use crate::engine::pending::Hint::*;
use rustix::fs::{CWD, RenameFlags, XattrFlags};
use std::ffi::OsStr;
use std::fs::{File, FileTimes, OpenOptions, Permissions};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime};

pub(super) fn a_file_is_made_written_and_closed(mut bench: Bench) {
    fs::write(bench.path("a"), "text").unwrap();
    bench.expect(&[(1, b"a", &[Created, Modified, Closed])]);
    fs::write(bench.path("a"), "other text").unwrap();
    bench.expect(&[(1, b"a", &[Modified, Closed])]);
}

/// What lets the core wait until the writer has done.
pub(super) fn a_write_under_an_open_writer_is_no_close(mut bench: Bench) {
    let mut open = File::create(bench.path("a")).unwrap();
    bench.expect(&[(1, b"a", &[Created])]);
    open.write_all(b"text").unwrap();
    bench.expect(&[(1, b"a", &[Modified])]);
    open.write_all(b"text").unwrap();
    bench.expect(&[(1, b"a", &[Modified])]);
    drop(open);
    bench.expect(&[(1, b"a", &[Closed])]);
    drop(OpenOptions::new().append(true).open(bench.path("a")).unwrap());
    bench.expect(&[(1, b"a", &[Closed])]);
}

pub(super) fn patience_loses_nothing(mut bench: Bench) {
    for is_patient in [true, false, true] {
        bench.watcher.set_patient(is_patient);
        fs::write(bench.path("a"), "text").unwrap();
        bench.expect(&[(1, b"a", &[Created, Modified, Closed])]);
        fs::remove_file(bench.path("a")).unwrap();
        bench.expect(&[(1, b"a", &[Vanished])]);
    }
}

pub(super) fn a_rename_is_told_at_both_names(mut bench: Bench) {
    symlink("x", bench.path("a")).unwrap();
    bench.told();
    fs::rename(bench.path("a"), bench.path("b")).unwrap();
    bench.expect(&[(1, b"a", &[Vanished]), (1, b"b", &[MovedIn])]);
}

pub(super) fn a_rename_between_directories_is_told_in_both(mut bench: Bench) {
    symlink("x", bench.path("a")).unwrap();
    fs::create_dir(bench.path("d")).unwrap();
    bench.watch(2, "d");
    bench.told();
    fs::rename(bench.path("a"), bench.path("d/b")).unwrap();
    bench.expect(&[(1, b"a", &[Vanished]), (2, b"b", &[MovedIn])]);
}

pub(super) fn a_move_from_outside_is_told_by_its_new_name_only(mut bench: Bench) {
    let open = File::create(bench.outside("a")).unwrap();
    fs::rename(bench.outside("a"), bench.path("b")).unwrap();
    bench.expect(&[(1, b"b", &[MovedIn])]);
    drop(open);
    bench.expect(&[(1, b"b", &[Closed])]);
    fs::create_dir_all(bench.outside("d/e")).unwrap();
    fs::rename(bench.outside("d"), bench.path("d")).unwrap();
    bench.expect(&[(1, b"d", &[MovedIn])]);
}

pub(super) fn a_move_to_outside_is_told_by_its_old_name_only(mut bench: Bench) {
    symlink("x", bench.path("a")).unwrap();
    fs::create_dir_all(bench.path("d/e")).unwrap();
    bench.told();
    fs::rename(bench.path("a"), bench.outside("b")).unwrap();
    fs::rename(bench.path("d"), bench.outside("d")).unwrap();
    bench.expect(&[(1, b"a", &[Vanished]), (1, b"d", &[Vanished])]);
}

pub(super) fn a_rename_over_another_is_told_at_both_names(mut bench: Bench) {
    fs::write(bench.path("a"), "new").unwrap();
    fs::write(bench.path("b"), "old").unwrap();
    bench.told();
    fs::rename(bench.path("a"), bench.path("b")).unwrap();
    bench.expect(&[(1, b"a", &[Vanished]), (1, b"b", &[MovedIn])]);
}

pub(super) fn an_exchange_is_told_at_both_names_twice(mut bench: Bench) {
    symlink("x", bench.path("a")).unwrap();
    fs::create_dir(bench.path("d")).unwrap();
    bench.told();
    exchange(&bench.path("a"), &bench.path("d"));
    bench.expect(&[(1, b"a", &[MovedIn, Vanished]), (1, b"d", &[MovedIn, Vanished])]);
}

pub(super) fn a_further_link_is_told_by_its_own_name_only(mut bench: Bench) {
    fs::write(bench.path("a"), "text").unwrap();
    fs::write(bench.outside("b"), "text").unwrap();
    bench.told();
    // Not a word about `a`, whose link count changed.
    fs::hard_link(bench.path("a"), bench.path("c")).unwrap();
    fs::hard_link(bench.outside("b"), bench.path("d")).unwrap();
    bench.expect(&[(1, b"c", &[Created]), (1, b"d", &[Created])]);
    // A write is told under the name that was opened, and under no other.
    fs::write(bench.outside("b"), "x").unwrap();
    fs::write(bench.path("c"), "x").unwrap();
    bench.expect(&[(1, b"c", &[Modified, Closed])]);
}

pub(super) fn a_symbolic_link_is_made(mut bench: Bench) {
    symlink("x", bench.path("a")).unwrap();
    bench.expect(&[(1, b"a", &[Created])]);
}

pub(super) fn attributes_and_sizes(mut bench: Bench) {
    for file in ["mode", "xattr", "times", "mtime", "cut", "long"] {
        fs::write(bench.path(file), "text").unwrap();
    }
    bench.told();
    fs::set_permissions(bench.path("mode"), Permissions::from_mode(0o600)).unwrap();
    rustix::fs::setxattr(bench.path("xattr"), "user.a", b"b", XattrFlags::empty()).unwrap();
    let past = FileTimes::new().set_modified(SystemTime::UNIX_EPOCH);
    let set_times = |name, times| File::open(bench.path(name)).unwrap().set_times(times).unwrap();
    set_times("times", past.set_accessed(SystemTime::UNIX_EPOCH));
    // The kernel takes this for the end of a write.
    set_times("mtime", past);
    bench.expect(&[
        (1, b"mode", &[Attributes]),
        (1, b"mtime", &[Modified]),
        (1, b"times", &[Attributes]),
        (1, b"xattr", &[Attributes]),
    ]);
    File::create(bench.path("cut")).unwrap();
    OpenOptions::new()
        .write(true)
        .open(bench.path("long"))
        .unwrap()
        .set_len(1 << 20)
        .unwrap();
    bench.expect(&[
        (1, b"cut", &[Modified, Closed]),
        (1, b"long", &[Modified, Closed]),
    ]);
}

pub(super) fn attributes_of_a_watched_directory(mut bench: Bench) {
    fs::create_dir(bench.path("d")).unwrap();
    bench.watch(2, "d");
    bench.told();
    let mode = Permissions::from_mode(0o700);
    let past = FileTimes::new().set_modified(SystemTime::UNIX_EPOCH);
    for (number, below) in [(2, "d"), (1, "")] {
        let path = bench.path(below);
        let changes: [&dyn Fn(); 3] = [
            &|| fs::set_permissions(&path, mode.clone()).unwrap(),
            &|| rustix::fs::setxattr(&path, "user.a", b"b", XattrFlags::empty()).unwrap(),
            &|| File::open(&path).unwrap().set_times(past).unwrap(),
        ];
        for change in changes {
            change();
            let told = bench.told();
            assert!(told.is_itself(number), "{told:?}");
            // Some say it at the name in its parent as well.
            assert!(told.without(1, "d").shown().is_empty());
        }
    }
}

pub(super) fn removals(mut bench: Bench) {
    fs::write(bench.path("a"), "text").unwrap();
    symlink("x", bench.path("b")).unwrap();
    bench.told();
    fs::remove_file(bench.path("a")).unwrap();
    fs::remove_file(bench.path("b")).unwrap();
    bench.expect(&[(1, b"a", &[Vanished]), (1, b"b", &[Vanished])]);
}

pub(super) fn directories_come_and_go(mut bench: Bench) {
    fs::create_dir(bench.path("d")).unwrap();
    bench.expect(&[(1, b"d", &[Created])]);
    bench.watch(2, "d");
    assert_eq!(bench.watcher.watched(), 2);
    fs::write(bench.path("d/a"), "").unwrap();
    bench.expect(&[(2, b"a", &[Created, Closed])]);
    fs::remove_dir_all(bench.path("d")).unwrap();
    bench.expect(&[(1, b"d", &[Vanished]), (2, b"a", &[Vanished])]);
    bench.watcher.unwatch(ObjectId(2));
    assert_eq!(bench.watcher.watched(), 1);
    // Its inode may come again, its number does not.
    fs::create_dir(bench.path("e")).unwrap();
    symlink("x", bench.path("e/a")).unwrap();
    bench.expect(&[(1, b"e", &[Created])]);
}

pub(super) fn a_moved_directory_keeps_its_number(mut bench: Bench) {
    fs::create_dir(bench.path("d")).unwrap();
    fs::create_dir(bench.path("f")).unwrap();
    bench.watch(2, "d");
    bench.watch(3, "f");
    bench.told();
    fs::rename(bench.path("d"), bench.path("f/e")).unwrap();
    bench.expect(&[(1, b"d", &[Vanished]), (3, b"e", &[MovedIn])]);
    symlink("x", bench.path("f/e/a")).unwrap();
    bench.expect(&[(2, b"a", &[Created])]);
}

pub(super) fn the_handle_counts_and_not_the_path(mut bench: Bench) {
    fs::create_dir(bench.path("d")).unwrap();
    let handle = File::open(bench.path("d")).unwrap();
    fs::rename(bench.path("d"), bench.path("e")).unwrap();
    fs::create_dir(bench.path("d")).unwrap();
    bench.watcher.watch(ObjectId(2), handle.as_fd()).unwrap();
    bench.told();
    symlink("x", bench.path("d/wrong")).unwrap();
    symlink("x", bench.path("e/right")).unwrap();
    bench.expect(&[(2, b"right", &[Created])]);
}

pub(super) fn unwatched_is_silent_and_can_be_watched_again(mut bench: Bench) {
    fs::create_dir(bench.path("d")).unwrap();
    bench.watch(2, "d");
    bench.told();
    for object in [2, 2, 99] {
        bench.watcher.unwatch(ObjectId(object));
    }
    assert_eq!(bench.watcher.watched(), 1);
    symlink("x", bench.path("d/a")).unwrap();
    bench.expect(&[]);
    bench.watch(2, "d");
    symlink("x", bench.path("d/b")).unwrap();
    bench.expect(&[(2, b"b", &[Created])]);
}

pub(super) fn the_last_number_of_a_directory_counts(mut bench: Bench) {
    fs::create_dir(bench.path("d")).unwrap();
    fs::create_dir(bench.path("e")).unwrap();
    bench.watch(2, "d");
    bench.watch(3, "d");
    assert_eq!(bench.watcher.watched(), 2);
    bench.told();
    // Its former number means nothing now, and must not take the watch away.
    bench.watcher.unwatch(ObjectId(2));
    symlink("x", bench.path("d/a")).unwrap();
    bench.expect(&[(3, b"a", &[Created])]);
    // And a number that moves to another directory leaves the former.
    bench.watch(3, "e");
    assert_eq!(bench.watcher.watched(), 2);
    symlink("x", bench.path("d/b")).unwrap();
    symlink("x", bench.path("e/c")).unwrap();
    bench.expect(&[(3, b"c", &[Created])]);
}

pub(super) fn odd_names_arrive_to_the_byte(mut bench: Bench) {
    use std::os::unix::ffi::OsStrExt;
    for name in [
        &b"a\nb"[..],
        b"\xff\xfe",
        b" ",
        b"-rf",
        b"...",
        &[b'x'; 255],
        b"tab\tand\x1b[31m",
    ] {
        let path = bench.path(OsStr::from_bytes(name));
        symlink("x", &path).unwrap();
        bench.expect(&[(1, name, &[Created])]);
        fs::rename(&path, bench.path("to")).unwrap();
        bench.expect(&[(1, name, &[Vanished]), (1, b"to", &[MovedIn])]);
        fs::remove_file(bench.path("to")).unwrap();
        bench.expect(&[(1, b"to", &[Vanished])]);
    }
}

pub(super) fn reading_is_silent(mut bench: Bench) {
    fs::write(bench.path("a"), "text").unwrap();
    fs::create_dir(bench.path("d")).unwrap();
    bench.watch(2, "d");
    bench.told();
    fs::read(bench.path("a")).unwrap();
    fs::read_dir(bench.path("d")).unwrap().for_each(drop);
    fs::metadata(bench.path("a")).unwrap();
    // And what happens elsewhere.
    fs::write(bench.outside("a"), "text").unwrap();
    bench.expect(&[]);
}

pub(super) fn a_root_that_is_moved_away_is_gone(bench: Bench) {
    fs::rename(bench.path(""), bench.outside("root")).unwrap();
    expect_root_gone(&bench);
}

pub(super) fn a_root_that_is_exchanged_is_gone(bench: Bench) {
    exchange(&bench.path(""), &bench.outside(""));
    expect_root_gone(&bench);
}

pub(super) fn a_root_that_is_removed_is_gone(bench: Bench) {
    fs::remove_dir(bench.path("")).unwrap();
    expect_root_gone(&bench);
}

fn expect_root_gone(bench: &Bench) {
    loop {
        match bench.next() {
            WatchEvent::Gone { directory: ROOT } => return,
            WatchEvent::Itself { directory: ROOT } => {}
            event => panic!("{event:?}"),
        }
    }
}

/// Directories are made, filled, moved in and moved around as fast as possible, while a walker watches each before
/// listing it. Nothing is between the listing and the events.
pub(super) fn deep_trees_that_grow_quickly_are_seen_whole(mut bench: Bench) {
    let (root, outside) = (bench.path(""), bench.outside(""));
    let writer = std::thread::spawn(move || {
        for round in 0..60 {
            let deep = (0..8).fold(root.join(round.to_string()), |path, level| {
                path.join(level.to_string())
            });
            fs::create_dir_all(&deep).unwrap();
            fs::write(deep.join("file"), "").unwrap();
            let made = outside.join(round.to_string());
            fs::create_dir_all(made.join("in/side")).unwrap();
            fs::rename(&made, root.join(format!("moved-{round}"))).unwrap();
            fs::write(root.join(format!("moved-{round}/in/side/late")), "").unwrap();
            fs::rename(root.join(format!("moved-{round}/in")), deep.join("in")).unwrap();
        }
    });
    let mut walker = Walker::new(&mut bench);
    walker.follow_until(|| writer.is_finished());
    writer.join().unwrap();
    walker.expect_all();
}

pub(super) fn the_reader_ends_with_its_owner(bench: Bench) {
    let Bench {
        watcher,
        events,
        directory,
        ..
    } = bench;
    let start = Instant::now();
    drop(watcher);
    assert!(start.elapsed() < LONG);
    File::create(directory.path().join("root/a")).unwrap();
    assert!(
        events
            .recv_timeout(LONG)
            .is_err_and(|error| error.is_disconnected())
    );
}

/// While others write, watches come and go: nothing hangs, and no more than the last number of each is kept.
pub(super) fn watches_come_and_go_under_load(mut bench: Bench) {
    let busy = bench.path("");
    let done = Arc::new(AtomicBool::new(false));
    let writer = std::thread::spawn({
        let done = done.clone();
        move || {
            let mut round = 0u64;
            while !done.load(Ordering::Relaxed) {
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
    for round in 0..10_000u64 {
        if let Ok(handle) = File::open(bench.path((round % 8).to_string())) {
            match bench.watcher.watch(ObjectId(2 + round % 64), handle.as_fd()) {
                Ok(()) | Err(WatchError::Removed { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        bench.watcher.unwatch(ObjectId(2 + (round * 7) % 64));
        let _ = bench.events.try_recv();
    }
    done.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    assert!(bench.watcher.watched() <= 65);
}

fn exchange(one: &std::path::Path, other: &std::path::Path) {
    rustix::fs::renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
}
