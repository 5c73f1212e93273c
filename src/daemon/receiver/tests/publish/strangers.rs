//! What somebody else does while the next state is made, and calls that fail: nothing is lost, and nothing told that is not so.

use super::*;
use crate::daemon::receiver::tests::failing::{fail, judge, nothing_fails};
use crate::fs::Call;
use std::cell::RefCell;
use std::os::unix::fs::symlink;
use std::rc::Rc;
use std::time::SystemTime;

impl Bench {
    /// Where the only tree of a private name in `releases` is.
    fn aside(&self) -> String {
        let names = self.names().into_iter();
        let mut aside =
            names.filter(|name| name.starts_with("releases/.driftless-") && !name[20..].contains('/'));
        let found = aside.next().expect("a tree of a private name");
        assert_eq!(aside.next(), None);
        found
    }

    fn kept(&self) -> Vec<String> {
        let names = self.names().into_iter();
        names
            .filter(|name| name.starts_with(".driftless-kept/"))
            .collect()
    }
}

#[test]
fn what_vanishes_while_it_is_carried_over_holds_nothing_up() {
    let mut bench = bench();
    bench.release();
    bench.put_staged(12, place(11, "a"), "2");
    let upload = bench.path("releases/v1/upload");
    fs::write(&upload, "theirs").unwrap();
    fs::create_dir(bench.path("releases/v1/made")).unwrap();
    let made = bench.path("releases/v1/made");
    judge(move |_| {
        // After it was listed, before it is linked.
        let _ = fs::remove_file(&upload);
        let _ = fs::remove_dir(&made);
        true
    });
    assert_eq!(bench.publish(), 1);
    assert_eq!(bench.both("v1"), "21");
    assert!(!bench.path("releases/v1/upload").exists());
}

#[test]
fn what_cannot_be_carried_over_leaves_what_is_visible_and_is_told() {
    let mut bench = bench();
    bench.release();
    bench.put_staged(12, place(11, "a"), "2");
    fs::write(bench.path("releases/v1/upload"), "theirs").unwrap();
    judge(|call| call != Call::Name);
    let error = bench.replica.prepare_publishing(false).unwrap_err();
    for wanted in ["releases/v1 is not published", "/upload: ", "mend that"] {
        assert!(error.text.contains(wanted), "{}", error.text);
    }
    assert_eq!(bench.both("v1"), "11");
    assert!(bench.replica.publishing.is_awaited());
    nothing_fails();
    bench.publish();
    assert_eq!(bench.both("v1"), "21");
    assert_eq!(bench.read("releases/v1/upload"), "theirs");
}

#[test]
fn an_exchange_that_fails_leaves_what_is_visible_and_is_told() {
    let mut bench = bench();
    bench.release();
    bench.put_staged(12, place(11, "a"), "2");
    bench.make_staged(51, place(10, "other"));
    let ready = bench.replica.prepare_publishing(false).unwrap();
    assert_eq!(ready.len(), 2);
    // `other` is new: it appears with its second call, and the third is the exchange of `v1`.
    fail(&[3]);
    let published = bench.replica.publish(ready);
    let error = published.outcome.unwrap_err();
    assert!(
        error.text.contains("releases/v1 is not published"),
        "{}",
        error.text
    );
    assert!(published.replaced.is_empty() && bench.path("releases/other").exists());
    assert_eq!(bench.both("v1"), "11");
    // The first of two that are replaced is disposed of all the same.
    nothing_fails();
    bench.put_staged(52, place(51, "x"), "2");
    let ready = bench.replica.prepare_publishing(false).unwrap();
    fail(&[2]);
    let published = bench.replica.publish(ready);
    assert!(published.outcome.is_err());
    assert_eq!(published.replaced.len(), 1);
    assert_eq!(
        (bench.read("releases/other/x"), bench.both("v1")),
        ("2".into(), "11".into())
    );
}

#[test]
fn a_working_tree_that_somebody_removes_takes_nothing_visible_with_it() {
    let mut bench = bench();
    bench.release();
    bench.put_staged(12, place(11, "a"), "2");
    fs::remove_dir_all(bench.path(&bench.aside())).unwrap();
    let ready = bench.replica.prepare_publishing(false).unwrap();
    let published = bench.replica.publish(ready);
    let error = published.outcome.unwrap_err();
    assert!(error.text.contains("somebody removed it"), "{}", error.text);
    assert_eq!(bench.both("v1"), "11");
}

#[test]
fn what_somebody_puts_where_the_mirror_removed_something_stays() {
    let mut bench = bench();
    bench.release();
    bench.remove_staged(11);
    fs::rename(bench.path("releases/v1"), bench.path("moved-away")).unwrap();
    fs::create_dir(bench.path("releases/v1")).unwrap();
    fs::write(bench.path("releases/v1/x"), "theirs").unwrap();
    bench.publish();
    assert_eq!(bench.read("releases/v1/x"), "theirs");
}

/// The walk at the start did not see it: what is moved is what is on the disk.
#[test]
fn a_directory_with_what_nobody_catalogued_is_not_moved_in() {
    let mut bench = bench();
    bench.release();
    bench.make_staged(61, place(1, "build"));
    bench.make_staged(62, place(61, "deep"));
    fs::write(bench.path("build/deep/theirs"), "only here").unwrap();
    let moved = bench.shift_staged(61, place(10, "v2")).unwrap_err();
    // It comes under another op, too, if it is known by its number.
    let body = OpBody::MakeDirectory {
        place: place(10, "v2"),
        object: ObjectId(61),
        attributes: attributes(),
    };
    let made = bench.stage(&body).unwrap_err();
    for error in [moved, made] {
        assert_eq!(error.kind, FailureKind::Unsupported);
        assert!(
            error.text.contains("build/deep/theirs is not part"),
            "{}",
            error.text
        );
    }
    assert_eq!(bench.read("build/deep/theirs"), "only here");
    fs::remove_file(bench.path("build/deep/theirs")).unwrap();
    bench.shift_staged(61, place(10, "v2")).unwrap();
    bench.publish();
    assert!(bench.path("releases/v2/deep").exists());
    bench.check_rest();
}

/// In the working tree the first call makes the top, the next one links `a`, and so on; a copy gets its name by a call of its own.
const LINKS: &[usize] = &[2, 5];

#[test]
fn what_can_have_no_second_name_is_copied() {
    let mut bench = bench();
    bench.release();
    let inode = |bench: &Bench| bench.path("releases/v1/sub/b").metadata().unwrap().ino();
    let before = inode(&bench);
    fail(LINKS);
    bench.put_staged(15, place(13, "c"), "2");
    nothing_fails();
    bench.publish();
    assert_eq!(bench.both("v1") + &bench.read("releases/v1/sub/c"), "112");
    assert_ne!(inode(&bench), before, "it is a copy");
    bench.check_rest();
}

#[test]
fn an_edit_of_what_was_copied_is_not_taken_for_a_change_of_the_mirror() {
    let mut bench = bench();
    bench.release();
    fail(LINKS);
    bench.put_staged(15, place(13, "c"), "2");
    nothing_fails();
    // Written in place, and as an editor does.
    fs::write(bench.path("releases/v1/a"), "edit in place").unwrap();
    fs::write(bench.path("releases/v1/edited"), "edit").unwrap();
    fs::rename(bench.path("releases/v1/edited"), bench.path("releases/v1/sub/b")).unwrap();
    bench.publish();
    assert_eq!(bench.both("v1"), "edit in placeedit");
    assert_eq!(bench.kept(), Vec::<String>::new());
}

#[test]
fn what_is_written_where_it_stands_is_in_both_trees() {
    let mut bench = bench();
    bench.release();
    bench.put_staged(12, place(11, "a"), "2");
    fs::write(bench.path("releases/v1/sub/b"), "edit in place").unwrap();
    bench.publish();
    assert_eq!(bench.both("v1"), "2edit in place");
    assert_eq!(bench.kept(), Vec::<String>::new());
}

#[test]
fn what_comes_between_the_look_and_the_end_of_the_old_tree_is_moved_over() {
    let mut bench = bench();
    bench.release();
    bench.put_staged(12, place(11, "a"), "2");
    let (names, replaced) = bench.exchange();
    assert_eq!(names, 1);
    // Whoever had the old tree open writes there.
    let old = bench.path(&bench.aside());
    fs::write(old.join("late"), "theirs").unwrap();
    fs::write(old.join("sub/late"), "theirs").unwrap();
    fs::create_dir_all(old.join("made/deep")).unwrap();
    fs::write(old.join("made/deep/x"), "theirs").unwrap();
    let _socket = UnixListener::bind(old.join("socket")).unwrap();
    // One that the mirror left as it was, and one that it has changed.
    for name in ["sub/b", "a"] {
        fs::write(old.join("edited"), "late edit").unwrap();
        fs::rename(old.join("edited"), old.join(name)).unwrap();
    }
    let time = bench
        .path("releases/v1/sub")
        .metadata()
        .unwrap()
        .modified()
        .unwrap();
    // And some more while it is taken apart.
    let mut more = 0;
    judge(move |call| {
        if call == Call::Name && more < 5 && old.join("sub").exists() {
            more += 1;
            fs::write(old.join(format!("sub/more-{more}")), "theirs").unwrap();
        }
        true
    });
    bench.replica.dispose_of(replaced).unwrap();
    nothing_fails();
    assert_eq!(bench.both("v1"), "2late edit");
    let more = (1..6).map(|number| format!("sub/more-{number}"));
    for name in ["late", "sub/late", "made/deep/x"]
        .map(str::to_owned)
        .into_iter()
        .chain(more)
    {
        assert_eq!(bench.read(&format!("releases/v1/{name}")), "theirs", "{name}");
    }
    assert!(bench.path("releases/v1/socket").exists());
    assert_eq!(
        bench
            .path("releases/v1/sub")
            .metadata()
            .unwrap()
            .modified()
            .unwrap(),
        time
    );
    let kept = bench.kept();
    let kept: Vec<_> = kept.iter().filter(|name| bench.path(name).is_file()).collect();
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert!(kept[0].ends_with("releases/v1/a") && bench.read(kept[0]) == "late edit");
    assert!(
        !bench
            .names()
            .iter()
            .any(|name| name.starts_with("releases/.driftless"))
    );
}

/// An old tree that cannot be taken apart, and something in it that came late.
fn undisposed() -> Bench {
    let mut bench = bench();
    bench.release();
    bench.put_staged(12, place(11, "a"), "2");
    let (_, replaced) = bench.exchange();
    fs::write(bench.path(&bench.aside()).join("sub/late"), "theirs").unwrap();
    fail(&[1]);
    bench.replica.dispose_of(replaced).unwrap();
    nothing_fails();
    assert!(!bench.replica.is_disposal_due(), "not with each flush");
    bench.replica.commit_durably(None, false).unwrap();
    assert_eq!(bench.both("v1"), "21");
    bench
}

#[test]
fn what_cannot_be_taken_apart_is_not_swept_by_the_next_process() {
    let bench = undisposed().reopen(&Keeping::default());
    assert_eq!(bench.both("v1"), "21");
    assert_eq!(bench.read("releases/v1/sub/late"), "theirs");
    assert!(bench.kept().is_empty());
    assert!(!bench.names().iter().any(|name| name.contains(".driftless")));
}

/// Killed between the exchange and the end of the old tree.
#[test]
fn an_old_tree_is_taken_apart_by_the_next_process() {
    let mut bench = bench();
    bench.release();
    bench.put_staged(12, place(11, "a"), "2");
    bench.remove_staged(14);
    let (_, replaced) = bench.exchange();
    drop(replaced);
    let old = bench.path(&bench.aside());
    fs::write(old.join("late"), "theirs").unwrap();
    // The mirror removed one, and changed the other.
    assert!(old.join("sub/b").exists());
    fs::write(old.join("edited"), "late edit").unwrap();
    fs::rename(old.join("edited"), old.join("a")).unwrap();
    let time = bench.path("releases").metadata().unwrap().modified().unwrap();
    let bench = bench.reopen(&Keeping::default());
    assert!(!old.exists() && !bench.path("releases/v1/sub/b").exists());
    assert_eq!(
        (bench.read("releases/v1/a"), bench.read("releases/v1/late")),
        ("2".into(), "theirs".into())
    );
    let kept = bench.kept();
    let kept = kept.iter().find(|name| name.ends_with("releases/v1/a")).unwrap();
    assert_eq!(bench.read(kept), "late edit");
    assert_eq!(
        bench.path("releases").metadata().unwrap().modified().unwrap(),
        time
    );
    let records = bench.directory.path().join("home/replaced");
    assert_eq!(fs::read_dir(records).unwrap().count(), 0);
}

/// Killed between the note and the exchange: what is under the private name is the new tree then.
#[test]
fn what_was_to_be_exchanged_and_was_not_is_swept() {
    let mut bench = bench();
    bench.release();
    bench.put_staged(12, place(11, "a"), "2");
    let ready = bench.replica.prepare_publishing(false).unwrap();
    fail(&[1]);
    assert!(bench.replica.publish(ready).outcome.is_err());
    nothing_fails();
    let records = bench.directory.path().join("home/replaced");
    assert_eq!(fs::read_dir(&records).unwrap().count(), 1);
    let bench = bench.reopen(&Keeping::default());
    assert_eq!((bench.both("v1"), bench.kept()), ("11".into(), Vec::new()));
    assert!(!bench.names().iter().any(|name| name.contains(".driftless")));
    assert_eq!(fs::read_dir(records).unwrap().count(), 0);
}

#[test]
fn what_cannot_be_taken_apart_is_tried_again() {
    let mut bench = undisposed();
    let minutes = |minutes: u64| vec![Duration::from_secs(60 * minutes)];
    let aside = bench.path(&bench.aside());
    bench.replica.dispose_of(Vec::new()).unwrap();
    assert!(aside.exists(), "it is not due");
    assert_eq!(bench.replica.hurry_disposals(), minutes(1));
    fail(&[1]);
    bench.replica.dispose_of(Vec::new()).unwrap();
    nothing_fails();
    assert!(aside.exists() && !bench.replica.is_disposal_due());
    assert_eq!(bench.replica.hurry_disposals(), minutes(2));
    assert!(bench.replica.is_disposal_due());
    bench.replica.dispose_of(Vec::new()).unwrap();
    assert!(bench.replica.hurry_disposals().is_empty());
    assert!(!aside.exists() && bench.kept().is_empty());
    assert_eq!(bench.read("releases/v1/sub/late"), "theirs");
    assert!(
        !bench
            .names()
            .iter()
            .any(|name| name.starts_with("releases/.driftless"))
    );
}

#[test]
fn directories_that_the_catalog_does_not_have_are_finished_and_flushed() {
    let mut bench = bench();
    bench.release();
    // One of before, one of meanwhile.
    let make = |bench: &Bench, name: &str| {
        let path = bench.path(&format!("releases/v1/{name}"));
        fs::create_dir(&path).unwrap();
        fs::write(path.join("x"), "theirs").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o550)).unwrap();
        let past = SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000);
        fs::File::open(&path).unwrap().set_modified(past).unwrap();
    };
    make(&bench, "before");
    bench.put_staged(12, place(11, "a"), "2");
    make(&bench, "meanwhile");
    let seen = |bench: &Bench| {
        ["before", "meanwhile"].map(|name| {
            let meta = bench.path(&format!("releases/v1/{name}")).metadata().unwrap();
            (
                meta.permissions().mode() & 0o7777,
                meta.modified().unwrap(),
                meta.uid(),
            )
        })
    };
    let before = seen(&bench);
    let ready = bench.replica.prepare_publishing(false).unwrap();
    bench.replica.finish_directories(&HashSet::new()).unwrap();
    let calls: Rc<RefCell<Vec<Call>>> = Rc::default();
    let noted = calls.clone();
    judge(move |call| {
        noted.borrow_mut().push(call);
        true
    });
    let published = bench.replica.publish(ready);
    assert_eq!(
        calls.borrow()[..2],
        [Call::FlushAll, Call::Name],
        "all is flushed, then exchanged"
    );
    nothing_fails();
    published.outcome.unwrap();
    bench.replica.dispose_of(published.replaced).unwrap();
    assert_eq!(seen(&bench), before);
    for name in ["before", "meanwhile"] {
        assert_eq!(bench.read(&format!("releases/v1/{name}/x")), "theirs");
    }
}

#[test]
fn an_entry_in_error_of_which_nobody_knows_the_place_keeps_everything_as_it_is() {
    let mut bench = bench();
    bench.release();
    bench.put_staged(12, place(11, "a"), "2");
    let note = |bench: &mut Bench, object: u64, at: Place| {
        let catalog = bench.replica.catalog.clone();
        let noted = catalog.read(|view| {
            bench.replica.note_failed(view, Some(ObjectId(object)), Some(&at));
            Ok(())
        });
        noted.unwrap();
    };
    note(&mut bench, 90, place(1, "elsewhere"));
    note(&mut bench, 99, place(98, "in a directory that failed"));
    assert_eq!(bench.publish(), 0);
    let reports = bench.replica.publishing.reports();
    assert_eq!((reports.len(), reports[0].in_error), (1, 1));
    assert_eq!(
        (reports[0].path.as_str(), bench.both("v1").as_str()),
        ("releases/v1", "11")
    );
    bench.replica.publishing.note_done(ObjectId(99));
    assert_eq!(bench.publish(), 1);
    // Its sender says that nothing is in error.
    bench.put_staged(12, place(11, "a"), "3");
    note(&mut bench, 14, place(13, "b"));
    assert!(bench.replica.prepare_publishing(false).unwrap().is_empty());
    let ready = bench.replica.prepare_publishing(true).unwrap();
    assert_eq!(ready.len(), 1);
    bench.replica.publish(ready).outcome.unwrap();
    assert_eq!(bench.both("v1"), "31");
}

/// What a service does with what is its own: an upload gets its name, a log is rotated, a cache is renamed, a file removed.
#[test]
fn what_a_service_renames_meanwhile_has_its_new_name() {
    let mut bench = bench();
    bench.release();
    let at = |bench: &Bench, name: &str| bench.path("releases/v1").join(name);
    let (begun, done) = ("releases/v1/sub/up.part", "releases/v1/sub/up.jpg");
    fs::write(bench.path(begun), "upload").unwrap();
    for (name, text) in [("app.log", "first"), ("app.log.1", "zeroth"), ("removed", "gone")] {
        fs::write(at(&bench, name), text).unwrap();
    }
    fs::create_dir(at(&bench, "cache")).unwrap();
    fs::write(at(&bench, "cache/x"), "cached").unwrap();
    bench.put_staged(12, place(11, "a"), "2");
    fs::rename(bench.path(begun), bench.path(done)).unwrap();
    fs::rename(at(&bench, "app.log.1"), at(&bench, "app.log.2")).unwrap();
    fs::rename(at(&bench, "app.log"), at(&bench, "app.log.1")).unwrap();
    fs::write(at(&bench, "app.log"), "second").unwrap();
    fs::rename(at(&bench, "cache"), at(&bench, "cache-2")).unwrap();
    fs::remove_file(at(&bench, "removed")).unwrap();
    // One that the mirror has is there twice: it comes back, and the copy stays.
    fs::rename(at(&bench, "sub/b"), at(&bench, "sub/mine")).unwrap();
    bench.publish();
    assert_eq!(bench.both("v1"), "21");
    let read = |name: &str| fs::read_to_string(at(&bench, name)).unwrap();
    assert_eq!(bench.read(done), "upload");
    assert_eq!(
        ["app.log", "app.log.1", "app.log.2"].map(read),
        ["second", "first", "zeroth"]
    );
    assert_eq!(["cache-2/x", "sub/mine"].map(read), ["cached", "1"]);
    assert!(!bench.path(begun).exists() && !at(&bench, "removed").exists());
    assert_eq!(bench.kept(), Vec::<String>::new());
}

/// The same after it was looked for, by whoever has the old tree open.
#[test]
fn what_a_service_renames_late_has_its_new_name() {
    for is_killed in [false, true] {
        let mut bench = bench();
        bench.release();
        for name in ["up.part", "log", "other"] {
            fs::write(bench.path("releases/v1").join(name), name).unwrap();
        }
        fs::create_dir(bench.path("releases/v1/cache")).unwrap();
        fs::write(bench.path("releases/v1/cache/x"), "cached").unwrap();
        bench.put_staged(12, place(11, "a"), "2");
        let (_, replaced) = bench.exchange();
        let old = bench.path(&bench.aside());
        fs::rename(old.join("up.part"), old.join("up.jpg")).unwrap();
        // Over something that the mirror left alone, and over what it has changed.
        fs::rename(old.join("log"), old.join("sub/b")).unwrap();
        fs::rename(old.join("other"), old.join("a")).unwrap();
        fs::rename(old.join("cache"), old.join("cache-2")).unwrap();
        let bench = match is_killed {
            true => bench.reopen(&Keeping::default()),
            false => {
                bench.replica.dispose_of(replaced).unwrap();
                bench
            }
        };
        assert!(!old.exists());
        assert_eq!(bench.both("v1"), "2log");
        assert_eq!(bench.read("releases/v1/up.jpg"), "up.part");
        assert_eq!(bench.read("releases/v1/cache-2/x"), "cached");
        let kept = bench.kept();
        let kept: Vec<_> = kept.iter().filter(|name| bench.path(name).is_file()).collect();
        assert_eq!(kept.len(), 1, "{kept:?}");
        assert!(kept[0].ends_with("releases/v1/a") && bench.read(kept[0]) == "other");
    }
}

/// What matches itself, and is no directory: whatever somebody else put there meanwhile is not the mirror's to remove.
#[test]
fn a_link_that_somebody_switched_is_set_aside() {
    for is_killed in [false, true] {
        for is_removed in [false, true] {
            let mut bench = bench();
            bench.release();
            bench.link_staged(40, place(1, "current"), "releases/v1");
            bench.publish();
            match is_removed {
                true => bench.remove_staged(40),
                false => bench.link_staged(40, place(1, "current"), "releases/v2"),
            }
            if !is_removed {
                fs::remove_file(bench.path("current")).unwrap();
                symlink("theirs", bench.path("current")).unwrap();
            }
            let (_, replaced) = bench.exchange();
            let bench = match is_killed {
                true => bench.reopen(&Keeping::default()),
                false => {
                    bench.replica.dispose_of(replaced).unwrap();
                    bench
                }
            };
            let there = fs::read_link(bench.path("current")).ok();
            assert_eq!(there, (!is_removed).then(|| "releases/v2".into()));
            let kept = bench.kept();
            let kept = kept.iter().find(|name| name.ends_with("/current"));
            let kept = kept.map(|name| fs::read_link(bench.path(name)).unwrap());
            assert_eq!(kept, (!is_removed).then(|| "theirs".into()));
            assert!(
                !bench
                    .names()
                    .iter()
                    .any(|name| name.starts_with(".driftless-") && name.len() == 27)
            );
        }
    }
}

fn open_again(bench: Bench) -> (tempfile::TempDir, Result<Replica, String>) {
    let Bench { directory, replica } = bench;
    drop(replica);
    let (root, home) = (directory.path().join("root"), directory.path().join("home"));
    let opened = open(&root, &home).map(|(replica, _)| replica);
    (directory, opened.map_err(|error| error.to_string()))
}

/// After a flush that failed nobody knows which of the trees a loss of power leaves: neither goes before one succeeds.
#[test]
fn an_old_tree_stays_until_the_exchange_is_on_stable_storage() {
    let mut bench = bench();
    bench.release();
    bench.put_staged(12, place(11, "a"), "2");
    let (_, replaced) = bench.exchange();
    drop(replaced);
    let old = bench.path(&bench.aside());
    judge(|call| call == Call::Name);
    let (directory, opened) = open_again(bench);
    nothing_fails();
    opened.unwrap_err();
    assert_eq!(fs::read_to_string(old.join("a")).unwrap(), "1");
    assert_eq!(fs::read_to_string(old.join("sub/b")).unwrap(), "1");
    let (root, home) = (directory.path().join("root"), directory.path().join("home"));
    let (replica, _) = open(&root, &home).unwrap();
    let bench = Bench { directory, replica };
    assert_eq!((bench.both("v1"), old.exists()), ("21".into(), false));
}

/// Whatever the catalog says of its top: it may hold what only somebody else has.
#[test]
fn an_old_tree_that_cannot_be_taken_apart_after_a_crash_is_set_aside() {
    let mut bench = bench();
    bench.release();
    let old = bench.path("releases/v1").metadata().unwrap().ino();
    let mut before = None;
    bench
        .apply(|_, t| {
            before = t.get(ObjectId(11))?.unwrap().stamp;
            Ok(())
        })
        .unwrap();
    bench.put_staged(12, place(11, "a"), "2");
    let (_, replaced) = bench.exchange();
    drop(replaced);
    let aside = bench.path(&bench.aside());
    fs::write(aside.join("sub/late"), "theirs").unwrap();
    // As if the catalog had not been stored since.
    bench
        .apply(|replica, t| {
            let mut entry = t.get(ObjectId(11))?.unwrap();
            entry.stamp = before;
            replica.put(t, &entry).map_err(ApplyError::from)
        })
        .unwrap();
    assert_eq!(aside.metadata().unwrap().ino(), old);
    let mut has_failed = false;
    judge(move |call| {
        let fails = call == Call::Name && !has_failed;
        has_failed |= fails;
        !fails
    });
    let (directory, opened) = open_again(bench);
    nothing_fails();
    let replica = opened.unwrap();
    let bench = Bench { directory, replica };
    assert!(!aside.exists());
    let kept = bench.kept();
    let kept = kept.iter().find(|name| name.ends_with("releases/v1/sub/late"));
    assert_eq!(bench.read(kept.unwrap()), "theirs");
}

/// It would be missing in one of them, or there twice.
#[test]
fn a_move_between_two_trees_that_fails_keeps_both_back() {
    let mut bench = bench();
    bench.release();
    bench.make_staged(21, place(10, "v2"));
    bench.publish();
    bench.put_staged(12, place(11, "a"), "2");
    bench.put_staged(22, place(21, "a"), "2");
    let note = |bench: &mut Bench, at: Place| {
        let catalog = bench.replica.catalog.clone();
        let noted = catalog.read(|view| {
            bench.replica.note_failed(view, Some(ObjectId(14)), Some(&at));
            Ok(())
        });
        noted.unwrap();
    };
    note(&mut bench, place(21, "b"));
    assert_eq!(bench.publish(), 0);
    // Another failure of the same object somewhere else takes nothing from that.
    note(&mut bench, place(13, "c"));
    assert_eq!(bench.publish(), 0);
    bench.replica.publishing.note_done(ObjectId(14));
    assert_eq!(bench.publish(), 2);
}

/// It has no other name than that in the working tree.
#[test]
fn what_was_moved_into_a_tree_that_goes_is_kept() {
    let keeping = Keeping {
        old: OldVersions::Trash {
            retention: Duration::from_secs(86_400),
        },
        ..Keeping::default()
    };
    let mut bench = bench_keeping(&keeping);
    bench.release();
    bench.put_staged(60, place(1, "big"), "big");
    bench.shift_staged(60, place(11, "big")).unwrap();
    bench.remove_staged(10);
    assert!(!bench.path("releases").exists() && !bench.replica.publishing.is_awaited());
    let names = bench.names();
    let in_trash = |end: &str| names.iter().find(|name| name.ends_with(end)).cloned();
    let big = in_trash("releases/v1/big").unwrap_or_else(|| panic!("{names:?}"));
    assert_eq!(bench.read(&big), "big");
    assert_eq!(bench.read(&in_trash("releases/v1/a").unwrap()), "1");
}
