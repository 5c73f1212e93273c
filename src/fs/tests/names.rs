//! Looking: stat, listing, reading.

use super::*;
use driftless_protocol::entry::Kind;

#[test]
fn stat_says_what_each_thing_is_and_never_follows() {
    let place = Place::new();
    place.write("file", "12345");
    place.mkdir("dir");
    place.symlink("dir", "link");
    place.fifo("fifo");
    let _socket = std::os::unix::net::UnixListener::bind(place.path().join("socket")).unwrap();
    let stat = |n: &str| place.dir.stat(&name(n)).unwrap().unwrap();

    let file = stat("file");
    assert_eq!((file.file_type, file.size, file.links), (FileType::Regular, 5, 1));
    assert_eq!(file.file_type.kind(), Some(Kind::File));
    assert_eq!(file.stamp.mtime, file.attributes.mtime);
    assert_eq!(
        (stat("dir").file_type, stat("dir").size),
        (FileType::Directory, 0)
    );
    let link = stat("link");
    assert_eq!(
        (link.file_type, link.size, link.attributes.mode),
        (FileType::Symlink, 3, 0)
    );
    assert_eq!(
        stat("fifo").file_type,
        FileType::Special(driftless_protocol::Special::Fifo)
    );
    assert_eq!(stat("socket").file_type, FileType::Other("socket"));
    assert_eq!(place.dir.stat(&name("absent")).unwrap(), None);
    assert!(
        place
            .dir
            .open_dir(&name("dir"))
            .unwrap()
            .stat_self()
            .unwrap()
            .stamp
            .same_object(&stat("dir").stamp)
    );
}

#[test]
fn a_stamp_tells_a_changed_object_and_another_object() {
    let place = Place::new();
    place.write("a", "1");
    place.write("b", "1");
    let stamp = |n: &str| place.dir.stat(&name(n)).unwrap().unwrap().stamp;
    let before = stamp("a");
    place.write("a", "22");
    assert!(before.same_object(&stamp("a")) && before != stamp("a"));
    assert!(!before.same_object(&stamp("b")));
}

#[test]
fn odd_names_are_listed_to_the_byte_and_in_order() {
    let place = Place::new();
    let long = [b'x'; 255];
    let mut names: Vec<&[u8]> = vec![
        b"\xff\xfe",
        b"new\nline",
        &long,
        b"-rf",
        b"...",
        b" ",
        b"a",
        b"a.",
        b"\x01",
        b"\\",
    ];
    for (at, n) in names.iter().enumerate() {
        let staged = place.staged(&vec![b'.'; at]);
        staged.publish(&name(n)).unwrap();
    }
    names.sort_unstable();
    let listing = place.dir.list().unwrap();
    assert!(listing.problems.is_empty());
    assert_eq!(
        listing
            .entries
            .iter()
            .map(|(n, _)| n.as_bytes())
            .collect::<Vec<_>>(),
        names
    );
    for (n, stat) in &listing.entries {
        assert_eq!(place.dir.stat(n).unwrap(), Some(*stat));
    }
}

#[test]
fn listing_skips_reserved_names_and_only_those() {
    let place = Place::new();
    for n in [
        ".driftless",
        ".driftless-generation",
        ".driftless-0123456789abcdef",
        ".driftles",
        ".dr",
    ] {
        place.write(n, "");
    }
    let names: Vec<_> = place
        .dir
        .list()
        .unwrap()
        .entries
        .into_iter()
        .map(|(n, _)| n.to_string())
        .collect();
    assert_eq!(names, [".dr", ".driftles"]);
}

#[test]
fn many_names_are_listed_by_two_threads_at_once() {
    let place = Place::new();
    for at in 0..3_000 {
        place.write(&format!("{at:04}"), "");
    }
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..5 {
                    assert_eq!(place.dir.list().unwrap().entries.len(), 3_000);
                }
            });
        }
    });
}

#[test]
fn listing_a_directory_that_was_removed_is_an_error() {
    let place = Place::new();
    let gone = place.dir.make_dir(&name("gone")).unwrap();
    place.dir.remove_dir(&name("gone")).unwrap();
    let listed = gone.list();
    // The kernel may also answer with an empty listing, which is what a removed directory holds.
    assert!(listed.is_err_and(|e| e.kind() == FsErrorKind::NotFound));
}

#[test]
fn a_listing_that_others_change_names_nothing_twice() {
    let place = Place::new();
    for at in 0..500 {
        place.write(&format!("stays-{at}"), "");
    }
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut at = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                place.write(&format!("comes-{at}"), "");
                let _ = std::fs::remove_file(place.path().join(format!("comes-{}", at - 20)));
                at += 1;
            }
        });
        for _ in 0..50 {
            let listing = place.dir.list().unwrap();
            assert!(listing.problems.is_empty(), "{:?}", listing.problems);
            assert!(listing.entries.is_sorted_by(|a, b| a.0 < b.0));
            let stays = listing
                .entries
                .iter()
                .filter(|(n, _)| n.as_bytes().starts_with(b"stays"));
            assert_eq!(stays.count(), 500);
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn links_are_read_to_the_byte() {
    let place = Place::new();
    // XFS holds no more than 1,024 bytes.
    let target: Vec<u8> = (1..=255u8).cycle().take(1_000).collect();
    for target in [&target[..], b"../../etc/passwd", b"/"] {
        place
            .dir
            .make_symlink(
                target,
                &name("l"),
                &Metadata::plain(&Attributes::default(), NO_OWNER),
            )
            .unwrap();
        assert_eq!(place.dir.read_link(&name("l")).unwrap(), target);
    }
    place.write("file", "");
    assert_eq!(
        place.dir.read_link(&name("file")).unwrap_err().kind(),
        FsErrorKind::Substituted
    );
    assert_eq!(
        place.dir.read_link(&name("none")).unwrap_err().kind(),
        FsErrorKind::NotFound
    );
}

#[test]
fn small_files_are_read_whole_and_large_ones_are_not() {
    let place = Place::new();
    place.write("f", "content");
    place.write("empty", "");
    match read_whole(&place.dir, &name("f"), 7).unwrap() {
        ReadOutcome::Content(content, stat) => assert_eq!((&content[..], stat.size), (&b"content"[..], 7)),
        other => panic!("{other:?}"),
    }
    assert!(
        matches!(read_whole(&place.dir, &name("f"), 6).unwrap(), ReadOutcome::TooLarge(s) if s.size == 7)
    );
    assert!(
        matches!(read_whole(&place.dir, &name("empty"), 0).unwrap(), ReadOutcome::Content(c, _) if c.is_empty())
    );
    assert_eq!(
        read_whole(&place.dir, &name("none"), 9).unwrap_err().kind(),
        FsErrorKind::NotFound
    );
}

#[test]
fn a_change_during_a_read_is_noticed() {
    let place = Place::new();
    place.write("f", "content");
    let read = StableRead::open(&place.dir, &name("f")).unwrap();
    let mut buffer = [0; 9];
    assert_eq!(read.read_at(&mut buffer, 0).unwrap(), 7);
    assert_eq!(read.check().unwrap(), Some(*read.stat()));
    place.write("f", "changed!");
    assert_eq!(read.check().unwrap(), None);
    // Same size and time, but set afterwards: the ctime tells.
    place.write("g", "content");
    let read = StableRead::open(&place.dir, &name("g")).unwrap();
    let old = std::fs::metadata(place.path().join("g"))
        .unwrap()
        .modified()
        .unwrap();
    let before = read.stat().stamp.ctime;
    let stamp_moved = || {
        place.write("g", "CONTENT");
        let file = std::fs::File::options().write(true).open(place.path().join("g"));
        file.unwrap().set_modified(old).unwrap();
        place.dir.stat(&name("g")).unwrap().unwrap().stamp.ctime != before
    };
    // The clock of the file system has ticks, within which nothing can tell.
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !stamp_moved() {
        assert!(std::time::Instant::now() < until, "the clock stands still");
        std::thread::yield_now();
    }
    assert_eq!(read.finish().unwrap(), None);
}

#[test]
fn a_write_out_is_harmless() {
    let place = Place::new();
    place.write("f", vec![1; 100_000]);
    let (file, _) = place.dir.open_file(&name("f")).unwrap();
    write_out(&file, 0, 0).unwrap();
    assert!(write_out(&file, u64::MAX, 0).is_err());
}

#[test]
fn free_space_and_flushes_answer() {
    let place = Place::new();
    assert!(place.dir.free_bytes().unwrap() > 0);
    place.dir.sync().unwrap();
    place.dir.sync_filesystem().unwrap();
    assert!(place.dir.try_clone().unwrap().stat_self().unwrap().file_type == FileType::Directory);
}

#[test]
fn reading_does_not_move_the_access_time() {
    use std::os::unix::fs::MetadataExt;
    let place = Place::new();
    place.write("f", "x");
    let path = place.path().join("f");
    let past = std::time::UNIX_EPOCH + std::time::Duration::from_secs(5);
    let times = std::fs::FileTimes::new().set_accessed(past);
    std::fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_times(times)
        .unwrap();
    assert!(matches!(
        read_whole(&place.dir, &name("f"), 10).unwrap(),
        ReadOutcome::Content(..)
    ));
    assert_eq!(std::fs::metadata(&path).unwrap().atime(), 5);
}
