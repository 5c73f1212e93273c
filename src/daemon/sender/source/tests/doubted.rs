//! Which files are read again, whatever `stat` says of them.

use super::*;

fn renamed(from: &str, to: &str) -> WatchEvent {
    WatchEvent::Renamed {
        from: (ObjectId::ROOT, name(from)),
        to: (ObjectId::ROOT, name(to)),
        is_directory: false,
    }
}

#[test]
fn a_write_that_is_told_of_after_the_file_was_read_has_it_read_again() {
    let mut bench = Bench::new(&[]);
    let file = bench.settled_file("file");
    let before = bench.entry(file).sequence;
    for (hint, is_doubted) in [
        (Hint::Closed, false),
        (Hint::Attributes, false),
        (Hint::Modified, true),
    ] {
        bench.tell("file", hint);
        bench.look(&[(ObjectId::ROOT, "file")]);
        assert_eq!(bench.is_stale(file), is_doubted, "{hint:?}");
    }
    assert!(bench.entry(file).sequence > before);
    // That was looked at.
    bench.settle("file");
    bench.look(&[(ObjectId::ROOT, "file")]);
    assert!(!bench.is_stale(file));
}

#[test]
fn what_is_written_through_another_name_is_noticed_under_a_name_that_was_renamed() {
    for keeps_other in [true, false] {
        let mut bench = Bench::new(&[]);
        bench.settled_file("one");
        fs::hard_link(bench.path("one"), bench.path("two")).unwrap();
        bench.source.scan().unwrap();
        bench.settle("one");
        bench.settle("two");
        bench.rewrite("two");
        fs::rename(bench.path("one"), bench.path("three")).unwrap();
        if !keeps_other {
            fs::remove_file(bench.path("two")).unwrap();
        }
        // The rename is looked at before the write is told of.
        bench.look(&[(ObjectId::ROOT, "three"), (ObjectId::ROOT, "one")]);
        bench.tell("two", Hint::Modified);
        bench.look(&[(ObjectId::ROOT, "two")]);
        let three = bench.object("three");
        assert!(bench.is_stale(three), "with the other name: {keeps_other}");
    }
}

/// A name that is not in doubt would stand for the others, which then become links to an older content.
#[test]
fn a_file_that_is_in_doubt_under_one_name_is_under_all() {
    let mut bench = Bench::new(&[]);
    bench.settled_file("one");
    fs::hard_link(bench.path("one"), bench.path("two")).unwrap();
    bench.source.scan().unwrap();
    let names = [bench.settle("one"), bench.settle("two")];
    bench.tell("one", Hint::Modified);
    bench.look(&[(ObjectId::ROOT, "one")]);
    assert!(names.map(|name| bench.is_stale(name)).iter().all(|&stale| stale));

    // What may be written to through a mapping is noted under the name that was read, and found out by a scan.
    for hidden in ["one", "two"] {
        let names = [bench.settle("one"), bench.settle("two")];
        let catalog = bench.source.catalog.clone();
        let hidden = bench.object(hidden);
        let hide = |t: &mut Tables<'_>| {
            let mut entry = t.get(hidden)?.unwrap();
            entry.flags |= flags::HIDES;
            bench.source.put(t, &entry)
        };
        catalog.update(false, hide).unwrap();
        // As after a restart.
        bench.source.linked.clear();
        bench.source.scan().unwrap();
        assert!(names.map(|name| bench.is_stale(name)).iter().all(|&stale| stale));
    }
}

#[test]
fn what_is_told_late_of_a_renamed_file_brings_its_new_names_into_doubt_too() {
    let mut bench = Bench::new(&[]);
    bench.settled_file("one");
    fs::rename(bench.path("one"), bench.path("two")).unwrap();
    bench.source.touched.note(&renamed("one", "two"));
    bench.look(&[(ObjectId::ROOT, "two"), (ObjectId::ROOT, "one")]);
    fs::hard_link(bench.path("two"), bench.path("three")).unwrap();
    bench.source.scan().unwrap();
    let names = [bench.settle("two"), bench.settle("three")];
    bench.tell("one", Hint::Modified);
    bench.look(&[(ObjectId::ROOT, "one")]);
    assert!(names.map(|name| bench.is_stale(name)).iter().all(|&stale| stale));
}

/// The look at a file that was renamed takes over its times, and they may be those of a write that nobody hears of any more.
#[test]
fn a_file_that_was_renamed_is_read_again_unless_all_was_heard_before_the_end() {
    for (is_heard, is_killed) in [(false, true), (true, true), (false, false)] {
        let mut bench = Bench::new(&[]);
        bench.settled_file("one");
        bench.source.scan().unwrap();
        let file = bench.settle("one");
        fs::rename(bench.path("one"), bench.path("two")).unwrap();
        bench.source.touched.note(&renamed("one", "two"));
        bench.rewrite("two");
        bench.look(&[(ObjectId::ROOT, "two"), (ObjectId::ROOT, "one")]);
        assert_eq!(bench.object("two"), file);
        assert!(!bench.is_stale(file));
        if is_heard {
            assert!(bench.source.touched.unheard.is_answered());
            bench.source.handle_heard().unwrap();
        }
        match is_killed {
            true => bench = bench.restarted(),
            false => {
                bench.source.touched.note(&WatchEvent::Overflow);
                bench.source.scan().unwrap();
            }
        }
        assert_eq!(
            bench.is_stale(file),
            !is_heard,
            "heard: {is_heard}, killed: {is_killed}"
        );
        // It is in doubt once.
        bench.settle("two");
        let bench = bench.restarted();
        assert!(!bench.is_stale(file));
    }
}

/// The name under which it was written to is empty again when it is looked at, or has something else.
#[test]
fn doubt_is_not_lost_with_a_name_that_a_file_only_passed_through() {
    for is_taken in [false, true] {
        let mut bench = Bench::new(&[]);
        bench.settled_file("one");
        bench.settled_file("other");
        bench.source.scan().unwrap();
        let file = bench.settle("one");
        bench.settle("other");
        fs::rename(bench.path("one"), bench.path("passed")).unwrap();
        bench.source.touched.note(&renamed("one", "passed"));
        bench.rewrite("passed");
        bench.tell("passed", Hint::Modified);
        fs::rename(bench.path("passed"), bench.path("two")).unwrap();
        if is_taken {
            fs::rename(bench.path("other"), bench.path("passed")).unwrap();
        }
        bench.look(&[(ObjectId::ROOT, "passed")]);
        bench.source.touched.note(&renamed("passed", "two"));
        bench.look(&[(ObjectId::ROOT, "two"), (ObjectId::ROOT, "one")]);
        assert_eq!(bench.object("two"), file);
        assert!(bench.is_stale(file), "taken: {is_taken}");
    }
}

/// Under a name that is not mirrored a file can rest for any time, and everything that was told is heard meanwhile.
#[test]
fn doubt_is_not_lost_while_a_file_has_a_name_that_is_not_mirrored() {
    let mut bench = Bench::new(&[]);
    bench.settled_file("one");
    bench.source.scan().unwrap();
    let file = bench.settle("one");
    let private = ".driftless-private";
    fs::rename(bench.path("one"), bench.path(private)).unwrap();
    bench.rewrite(private);
    bench.source.touched.note(&renamed("one", private));
    bench.tell(private, Hint::Modified);
    // The old name is looked at later.
    bench.look(&[(ObjectId::ROOT, private)]);
    bench.source.handle_heard().unwrap();
    fs::rename(bench.path(private), bench.path("two")).unwrap();
    bench.source.touched.note(&renamed(private, "two"));
    bench.look(&[(ObjectId::ROOT, "two"), (ObjectId::ROOT, "one")]);
    assert_eq!(bench.object("two"), file);
    assert!(bench.is_stale(file));
}

#[test]
fn what_was_written_in_a_new_directory_before_it_was_watched_is_noticed() {
    let mut bench = Bench::new(&[]);
    let file = bench.settled_file("file");
    fs::create_dir(bench.path("new")).unwrap();
    fs::rename(bench.path("file"), bench.path("new/file")).unwrap();
    bench.rewrite("new/file");
    bench.look(&[(ObjectId::ROOT, "new"), (ObjectId::ROOT, "file")]);
    assert_eq!(bench.object("new/file"), file);
    assert!(bench.is_stale(file));
}
