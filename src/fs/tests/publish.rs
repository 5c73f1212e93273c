//! Old or new, never between.

use super::*;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
fn a_new_file_appears_complete_and_private() {
    let place = Place::new();
    let staged = place.staged(b"hello");
    assert_eq!(place.names(), [""; 0]);
    let published = staged.publish(&name("f")).unwrap();
    assert!(!published.replaced);
    assert_eq!(place.dir.stat(&name("f")).unwrap(), Some(published.stat));
    assert_eq!((published.stat.attributes.mode, published.stat.links), (0o600, 1));
    assert_eq!(place.read("f"), b"hello");
    assert_eq!(place.names(), ["f"]);
}

#[test]
fn what_is_dropped_unpublished_leaves_nothing() {
    let place = Place::new();
    drop(place.staged(b"x"));
    let named = Staged::create_named(Arc::clone(&place.dir)).unwrap();
    assert_eq!(place.names().len(), 1);
    drop(named);
    assert_eq!(place.names(), [""; 0]);
}

/// Both ways of staging, over everything that may have the name.
#[test]
fn publishing_replaces_files_and_links_but_no_directory() {
    for create in [Staged::create, Staged::create_named] {
        let place = Place::new();
        place.write("file", "old");
        place.write("other", "other");
        std::fs::hard_link(place.path().join("other"), place.path().join("hard")).unwrap();
        place.symlink("other", "link");
        place.symlink("nowhere", "dangling");
        place.fifo("fifo");
        place.mkdir("dir");
        place.mkdir("full");
        place.write("full/x", "x");
        for n in ["file", "hard", "link", "dangling", "fifo", "new"] {
            let staged = create(Arc::clone(&place.dir)).unwrap();
            staged.write_all_at(b"new", 0).unwrap();
            staged.sync().unwrap();
            let published = staged.publish(&name(n)).unwrap();
            assert_eq!(published.replaced, n != "new");
            assert_eq!(place.dir.stat(&name(n)).unwrap(), Some(published.stat), "{n}");
            assert_eq!(published.stat.links, 1);
            assert_eq!(place.read(n), b"new");
        }
        for n in ["dir", "full"] {
            let staged = create(Arc::clone(&place.dir)).unwrap();
            let error = staged.publish(&name(n)).unwrap_err();
            assert_eq!(error.kind(), FsErrorKind::Exists, "{error}");
        }
        assert_eq!(place.read("other"), b"other");
        let all = [
            "dangling", "dir", "fifo", "file", "full", "hard", "link", "new", "other",
        ];
        assert_eq!(place.names(), all);
    }
}

#[test]
fn publishing_over_a_hard_link_of_itself_leaves_one_name() {
    let place = Place::new();
    let staged = Staged::create_named(Arc::clone(&place.dir)).unwrap();
    staged.write_all_at(b"x", 0).unwrap();
    std::fs::hard_link(place.path().join(&place.names()[0]), place.path().join("f")).unwrap();
    let published = staged.publish(&name("f")).unwrap();
    assert_eq!(place.names(), ["f"]);
    assert_eq!(place.read("f"), b"x");
    assert!(
        published
            .stat
            .stamp
            .same_object(&place.dir.stat(&name("f")).unwrap().unwrap().stamp)
    );
}

#[test]
fn a_stolen_private_name_is_noticed() {
    let place = Place::new();
    place.write("f", "old");
    let staged = Staged::create_named(Arc::clone(&place.dir)).unwrap();
    let aside = place.path().join(place.names().remove(0));
    std::fs::remove_file(&aside).unwrap();
    std::fs::write(&aside, "forged").unwrap();
    assert_eq!(
        staged.publish(&name("f")).unwrap_err().kind(),
        FsErrorKind::Substituted
    );
    assert_eq!(place.read("f"), b"old");
}

#[test]
fn a_parked_directory_is_swept_if_it_holds_nothing() {
    let place = Place::new();
    let [file, empty, full] = [parked_name(), parked_name(), parked_name()];
    place.write(&file.to_string(), "made to replace a directory");
    place.mkdir(&empty.to_string());
    place.mkdir(&full.to_string());
    place.write(&format!("{full}/{}", private_name()), "whatever it is");
    let swept = place.dir.sweep(|_| false).unwrap();
    let mut removed = swept.removed.clone();
    removed.sort();
    let mut expected = vec![file, empty];
    expected.sort();
    assert_eq!((removed, swept.parked), (expected, vec![full.clone()]));
    assert_eq!(place.names(), [full.to_string()]);
}

#[test]
fn an_exchange_hands_out_what_was_displaced() {
    let place = Place::new();
    let published = place.staged(b"new").publish_exchanging(&name("f")).unwrap();
    assert_eq!(published.displaced, None);
    let published = place.staged(b"newer").publish_exchanging(&name("f")).unwrap();
    let (aside, stat) = published.displaced.unwrap();
    assert_eq!(place.read(&aside.to_string()), b"new");
    assert_eq!(place.dir.stat(&aside).unwrap(), Some(stat));
    assert_eq!(place.read("f"), b"newer");
    place.dir.remove_file(&aside).unwrap();

    place.mkdir("d");
    place.write("d/x", "x");
    let published = place.staged(b"file").publish_exchanging(&name("d")).unwrap();
    let (aside, stat) = published.displaced.unwrap();
    assert_eq!(stat.file_type, FileType::Directory);
    assert_eq!(displaced_from(&aside), Some(name("d")));
    let swept = place.dir.sweep(|_| false).unwrap();
    assert_eq!((swept.removed, swept.displaced), (vec![], vec![aside.clone()]));
    place.dir.remove_tree(&aside).unwrap();
    assert_eq!(place.names(), ["d", "f"]);

    // Also what was staged under a private name, to be gone on with.
    let staged = Staged::create_kept(Arc::clone(&place.dir)).unwrap();
    let displaced = staged.publish_exchanging(&name("f")).unwrap().displaced;
    let (aside, _) = displaced.unwrap();
    assert_eq!(
        (displaced_from(&aside), place.read("f")),
        (Some(name("f")), vec![])
    );
    assert_eq!(place.read(&aside.to_string()), b"newer");
}

/// C-08: a reader that opens a path all the time finds it, with one whole content.
#[test]
fn c08_a_reader_never_sees_anything_but_old_or_new() {
    for (create, rounds) in [
        (Staged::create as fn(Arc<Directory>) -> Result<Staged>, 2_000u32),
        (Staged::create_named, 500),
    ] {
        let place = Place::new();
        let content = |round: u32| [round.to_be_bytes()].concat().repeat(600);
        place.write("f", content(0));
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut seen = 0;
                while !done.load(Ordering::Relaxed) {
                    let read = std::fs::read(place.path().join("f")).expect("the path is always there");
                    let round = u32::from_be_bytes(read[..4].try_into().unwrap());
                    assert!(read == content(round), "partial content");
                    seen += 1;
                }
                seen
            });
            for round in 1..=rounds {
                let staged = create(Arc::clone(&place.dir)).unwrap();
                staged.write_all_at(&content(round), 0).unwrap();
                match round % 3 {
                    0 => {
                        let (aside, _) = staged.publish_exchanging(&name("f")).unwrap().displaced.unwrap();
                        place.dir.remove_file(&aside).unwrap();
                    }
                    _ => drop(staged.publish(&name("f")).unwrap()),
                }
            }
            done.store(true, Ordering::Relaxed);
            assert!(reader.join().unwrap() > 0);
        });
        assert_eq!(place.names(), ["f"]);
    }
}

#[test]
fn c08_a_link_is_replaced_without_a_gap() {
    let place = Place::new();
    place.symlink("t0", "l");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let text = std::fs::read_link(place.path().join("l")).expect("the link is always there");
                assert!(text.to_str().unwrap().starts_with('t'));
            }
        });
        for round in 1..1_000 {
            let (target, wanted) = (format!("t{round}"), ours(0, time(round, 7)));
            let stat = place
                .dir
                .make_symlink(target.as_bytes(), &name("l"), &Metadata::plain(&wanted, OWNER))
                .unwrap()
                .stat;
            assert_eq!((stat.attributes, stat.file_type), (wanted, FileType::Symlink));
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(place.names(), ["l"]);
}

#[test]
fn a_link_replaces_a_file_but_no_directory() {
    let place = Place::new();
    place.write("f", "f");
    place.mkdir("d");
    place
        .dir
        .make_symlink(
            b"t",
            &name("f"),
            &Metadata::plain(&Attributes::default(), NO_OWNER),
        )
        .unwrap();
    assert_eq!(place.dir.read_link(&name("f")).unwrap(), b"t");
    let made = place.dir.make_symlink(
        b"t",
        &name("d"),
        &Metadata::plain(&Attributes::default(), NO_OWNER),
    );
    assert_eq!(made.unwrap_err().kind(), FsErrorKind::Exists);
    for bad in [&b""[..], &[b'a'; 5_000], b"a\0b"] {
        assert!(
            place
                .dir
                .make_symlink(
                    bad,
                    &name("g"),
                    &Metadata::plain(&Attributes::default(), NO_OWNER)
                )
                .is_err()
        );
    }
    assert_eq!(place.names(), ["d", "f"]);
}

#[test]
fn hard_links_join_names_of_one_object() {
    let place = Place::new();
    let dir = &place.dir;
    place.write("a", "a");
    place.write("b", "b");
    place.mkdir("d");
    let sub = dir.open_dir(&name("d")).unwrap();
    let stamp = dir.stat(&name("a")).unwrap().unwrap().stamp;
    let linked = dir
        .hard_link(&name("a"), Some(&stamp), &sub, &name("c"), RenameMode::NoReplace)
        .unwrap();
    assert_eq!(linked.links, 2);
    let taken = dir.hard_link(&name("a"), None, dir, &name("b"), RenameMode::NoReplace);
    assert_eq!(taken.unwrap_err().kind(), FsErrorKind::Exists);
    let other = dir.hard_link(&name("b"), Some(&stamp), dir, &name("x"), RenameMode::Replace);
    assert_eq!(other.unwrap_err().kind(), FsErrorKind::Substituted);
    let linked = dir
        .hard_link(&name("a"), None, dir, &name("b"), RenameMode::Replace)
        .unwrap();
    assert_eq!(linked.links, 3);
    // Once more changes nothing.
    assert_eq!(
        dir.hard_link(&name("a"), None, dir, &name("b"), RenameMode::Replace)
            .unwrap(),
        linked
    );
    for n in ["d", "x"] {
        assert!(
            dir.hard_link(&name(n), None, dir, &name("y"), RenameMode::NoReplace)
                .is_err()
        );
    }
    let onto = dir.hard_link(&name("a"), None, dir, &name("d"), RenameMode::Replace);
    assert_eq!(onto.unwrap_err().kind(), FsErrorKind::Exists);
    let exchanged = dir.hard_link(&name("a"), None, dir, &name("new"), RenameMode::Exchange);
    assert_eq!(exchanged.unwrap_err().kind(), FsErrorKind::Unsupported);
    place.symlink("a", "l");
    let aside = dir.link_aside(&name("l")).unwrap();
    assert_eq!(dir.read_link(&aside).unwrap(), b"a");
    dir.remove_file(&aside).unwrap();
    assert_eq!(place.names(), ["a", "b", "d", "l"]);
    assert_eq!(std::fs::metadata(place.path().join("b")).unwrap().nlink(), 3);
}

#[test]
fn renames_do_what_their_mode_says() {
    let place = Place::new();
    let dir = &place.dir;
    let names = |a: &str, b: &str| (name(a), name(b));
    place.write("a", "a");
    place.write("b", "b");
    place.mkdir("d");
    place.mkdir("full/x");
    let (a, b) = names("a", "b");
    assert_eq!(
        dir.rename(&a, dir, &b, RenameMode::NoReplace).unwrap_err().kind(),
        FsErrorKind::Exists
    );
    dir.rename(&a, dir, &b, RenameMode::Exchange).unwrap();
    assert_eq!((place.read("a"), place.read("b")), (b"b".to_vec(), b"a".to_vec()));
    dir.rename(&a, dir, &b, RenameMode::Replace).unwrap();
    assert_eq!(place.names(), ["b", "d", "full"]);
    dir.rename(&b, &dir.open_dir(&name("d")).unwrap(), &a, RenameMode::NoReplace)
        .unwrap();
    assert_eq!(place.read("d/a"), b"b");
    let (d, full) = names("d", "full");
    assert_eq!(
        dir.rename(&d, dir, &full, RenameMode::Replace)
            .unwrap_err()
            .kind(),
        FsErrorKind::NotEmpty
    );
    assert_eq!(
        dir.rename(&a, dir, &b, RenameMode::Exchange).unwrap_err().kind(),
        FsErrorKind::NotFound
    );
    let inside = dir.open_dir(&d).unwrap();
    assert!(dir.rename(&d, &inside, &b, RenameMode::NoReplace).is_err());

    // Two names of one object: rename(2) would leave both.
    place.write("one", "1");
    std::fs::hard_link(place.path().join("one"), place.path().join("two")).unwrap();
    let (one, two) = names("one", "two");
    dir.rename(&one, dir, &two, RenameMode::Replace).unwrap();
    assert_eq!(place.names(), ["d", "full", "two"]);
    std::fs::hard_link(place.path().join("two"), place.path().join("one")).unwrap();
    dir.rename(&two, dir, &two, RenameMode::Replace).unwrap();
    assert_eq!(place.names(), ["d", "full", "one", "two"]);
}

#[test]
fn directories_are_made_private_and_once() {
    let place = Place::new();
    let made = place.dir.make_dir(&name("d")).unwrap();
    assert_eq!(made.stat_self().unwrap().attributes.mode & 0o777, 0o700);
    assert_eq!(made.shown(), format!("{}/d", place.dir.shown()));
    assert_eq!(
        place.dir.make_dir(&name("d")).unwrap_err().kind(),
        FsErrorKind::Exists
    );
}

#[test]
fn a_sweep_takes_leftovers_and_nothing_else() {
    let place = Place::new();
    for n in [
        ".driftless-0000000000000001",
        ".driftless-generation",
        ".driftless-00000000000000zz",
        "f",
    ] {
        place.write(n, "");
    }
    place.mkdir(".driftless-0000000000000002/deep/er");
    place.symlink("/", ".driftless-0000000000000003");
    let mut swept = place.dir.sweep(|_| false).unwrap().removed;
    swept.sort();
    let digits: Vec<_> = swept.iter().map(|n| n.as_bytes()[26]).collect();
    assert_eq!(digits, b"123");
    assert_eq!(
        place.names(),
        [".driftless-00000000000000zz", ".driftless-generation", "f"]
    );
}

/// What a crash leaves, made by a process that is killed between staging and publishing.
#[test]
fn c08_a_killed_process_leaves_the_old_content_and_no_litter() {
    let place = Place::new();
    place.write("f", "old");
    // SAFETY: the child only makes system calls on what exists already, and ends by a signal.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let staged = Staged::create(Arc::clone(&place.dir));
        let _ = staged.map(|staged| staged.write_all_at(b"half", 0).is_ok() && kill_self());
        // SAFETY: ends the process at once, without running what belongs to the parent.
        unsafe { libc::_exit(1) };
    }
    let mut status = 0;
    // SAFETY: `status` outlives the call.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert!(libc::WIFSIGNALED(status));
    assert_eq!(place.read("f"), b"old");
    assert_eq!(place.names(), ["f"]);
}

fn kill_self() -> bool {
    // SAFETY: a signal to this very process, which ends it.
    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) == 0 }
}
