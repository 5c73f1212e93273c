//! Deletes are guarded: how many go unasked, when they go at all, and who has to be asked.

mod support;

use driftless::daemon::{Deletes, Observer, Phase, Stop, Turns, sender};
use driftless::engine::compare::Compare;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use support::settled::wait_settled;
use support::waiting::wait_until;
use support::{Following, Pair, runtime};

/// Directories of ten files each.
fn fill(pair: &Pair, directories: usize) {
    for directory in 0..directories {
        let path = pair.src().join(format!("data/d{directory}"));
        fs::create_dir_all(&path).unwrap();
        for file in 0..10 {
            fs::write(path.join(format!("f{file}")), format!("{directory} {file}")).unwrap();
        }
    }
}

/// A pair whose fuse is this one, with the end that approves.
fn guarded(limit: &str) -> (Pair, crossbeam_channel::Sender<u64>) {
    let mut pair = Pair::new();
    pair.delete_limit = Some(limit.parse().unwrap());
    let (approve, approvals) = crossbeam_channel::unbounded();
    pair.approvals = Some(approvals);
    (pair, approve)
}

fn wait_held(following: &Following) -> u64 {
    match following
        .watching
        .wait_for(|phase| matches!(phase, Phase::Held { .. }))
    {
        Phase::Held { deletions, text } => {
            assert!(
                text.contains(&deletions.to_string()) && text.contains("driftless approve"),
                "{text}"
            );
            deletions
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_removed_tree_stays_on_the_target_until_it_is_approved_and_all_else_goes_on() {
    let (pair, approve) = guarded("20,25%");
    fill(&pair, 10);
    let receiver = pair.receive();
    let following = Following::start(pair.sender_options(receiver.address(), true));
    following.watching.wait_in_sync();
    fs::remove_dir_all(pair.src().join("data")).unwrap();
    let kept = || walk_count(&pair.dst().join("data"));
    // As `rm` works in a stream, it is too much before all of it is gone.
    wait_until("all that is gone is held back", || {
        wait_held(&following) == kept() as u64 + 1
    });
    let (held, before) = (wait_held(&following), kept());
    // And some of it may have passed before it was too much: a quarter of all 112 entries.
    assert!((83..=111).contains(&held), "{held}");
    // What is new arrives meanwhile, but not where the removed tree stands.
    fs::write(pair.src().join("news"), "news").unwrap();
    fs::create_dir(pair.src().join("data")).unwrap();
    fs::write(pair.src().join("data/new"), "new").unwrap();
    wait_until("the new file arrives", || pair.dst().join("news").exists());
    assert_eq!(kept(), before);
    assert!(!pair.dst().join("data/new").exists());
    // Too few are approved: nothing happens.
    approve.send(held - 20).unwrap();
    fs::write(pair.src().join("more"), "more").unwrap();
    wait_until("another one arrives", || pair.dst().join("more").exists());
    assert_eq!(kept(), before);
    approve.send(held).unwrap();
    wait_settled(&pair, &following);
    assert!(pair.dst().join("data/new").exists());
    following.stop().unwrap();
    receiver.stop();
}

fn walk_count(path: &std::path::Path) -> usize {
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    entries
        .map(|entry| {
            let entry = entry.unwrap();
            let is_dir = entry.file_type().unwrap().is_dir();
            1 + if is_dir { walk_count(&entry.path()) } else { 0 }
        })
        .sum()
}

#[test]
fn what_comes_back_needs_no_approval() {
    let (pair, _approve) = guarded("20,25%");
    fill(&pair, 10);
    let receiver = pair.receive();
    let following = Following::start(pair.sender_options(receiver.address(), true));
    following.watching.wait_in_sync();
    let outside = pair.path("outside");
    fs::rename(pair.src().join("data"), &outside).unwrap();
    assert_eq!(wait_held(&following), 111);
    fs::rename(&outside, pair.src().join("data")).unwrap();
    wait_settled(&pair, &following);
    following.stop().unwrap();
    receiver.stop();
}

#[test]
fn what_is_copied_back_needs_no_approval() {
    let (pair, _approve) = guarded("20,25%");
    fill(&pair, 10);
    let receiver = pair.receive();
    let following = Following::start(pair.sender_options(receiver.address(), true));
    following.watching.wait_in_sync();
    // Entry by entry: the directories of what goes first are gone, too, when it is judged.
    fs::remove_dir_all(pair.src().join("data")).unwrap();
    wait_held(&following);
    fill(&pair, 10);
    wait_settled(&pair, &following);
    following.stop().unwrap();
    receiver.stop();
}

#[test]
fn deletions_still_wait_for_an_approval_after_a_break_and_keep_nobody_elses_turn() {
    let (pair, approve) = guarded("20,25%");
    fill(&pair, 10);
    let receiver = pair.receive();
    let mut options = pair.sender_options(receiver.address(), true);
    options.transfers = Turns::at_most(1);
    let (gate, turns) = (options.gate.clone(), options.transfers.clone());
    let following = Following::start(options);
    following.watching.wait_in_sync();
    fs::rename(pair.src().join("data"), pair.path("outside")).unwrap();
    assert_eq!(wait_held(&following), 111);
    for _ in 0..2 {
        assert!(gate.set_closed(true));
        following
            .watching
            .wait_for(|phase| matches!(phase, Phase::Paused));
        assert!(gate.set_closed(false));
        assert_eq!(wait_held(&following), 111);
        assert!(
            turns.try_take().is_some(),
            "a mirror that waits for somebody has the turn"
        );
    }
    approve.send(111).unwrap();
    wait_settled(&pair, &following);
    following.stop().unwrap();
    receiver.stop();
}

#[test]
fn a_run_with_nobody_to_ask_ends_and_deletes_nothing() {
    let mut pair = Pair::new();
    fill(&pair, 10);
    pair.seed().unwrap();
    fs::remove_dir_all(pair.src().join("data")).unwrap();
    fs::write(pair.src().join("left"), "left").unwrap();
    pair.delete_limit = Some("20,25%".parse().unwrap());
    let error = pair.seed().unwrap_err().to_string();
    assert!(
        error.contains("111 of") && error.contains("--max-delete none"),
        "{error}"
    );
    assert_eq!(walk_count(&pair.dst().join("data")), 110);
    pair.delete_limit = None;
    pair.seed().unwrap();
    pair.assert_equal();
}

/// As `rsync --max-delete` does: only the deletions are left out.
#[test]
fn a_refused_run_sends_all_else_before_it_ends() {
    let mut pair = Pair::new();
    fill(&pair, 10);
    for name in ["one", "two"] {
        fs::create_dir(pair.src().join(name)).unwrap();
        fs::write(pair.src().join(name).join("inside"), name).unwrap();
    }
    pair.seed().unwrap();
    fs::remove_dir_all(pair.src().join("data")).unwrap();
    let (one, two) = (pair.src().join("one"), pair.src().join("two"));
    fs::rename(&one, pair.src().join("aside")).unwrap();
    fs::rename(&two, &one).unwrap();
    fs::rename(pair.src().join("aside"), &two).unwrap();
    write_news(&pair);
    pair.delete_limit = Some("20".parse().unwrap());
    for _ in 0..2 {
        let error = pair.seed().unwrap_err().to_string();
        assert!(error.contains("111 of"), "{error}");
        assert_eq!(walk_count(&pair.dst().join("data")), 110);
        assert_eq!(walk_count(&pair.dst().join("news")), 400);
        for (name, content) in [("one", "two"), ("two", "one")] {
            let inside = pair.dst().join(name).join("inside");
            assert_eq!(fs::read_to_string(inside).unwrap(), content);
        }
    }
}

/// What a comparison found has no record of its own: what takes the place of a directory later waits all the same.
#[test]
fn what_a_comparison_found_stays_when_something_takes_its_place_later() {
    let mut pair = Pair::new();
    fill(&pair, 10);
    fs::write(pair.src().join("left"), "left").unwrap();
    pair.seed().unwrap();
    fs::remove_dir_all(pair.src().join("data")).unwrap();
    pair.compare = Compare::Contents;
    let (approve, approvals) = crossbeam_channel::unbounded();
    pair.delete_limit = Some("20".parse().unwrap());
    pair.approvals = Some(approvals);
    let receiver = pair.receive();
    let following = Following::start(pair.sender_options(receiver.address(), true));
    assert_eq!(wait_held(&following), 111);
    fs::write(pair.src().join("data"), "a file by now").unwrap();
    fs::write(pair.src().join("more"), "more").unwrap();
    wait_until("another one arrives", || pair.dst().join("more").exists());
    // Both were told together, and the first of them in the tree is looked at first.
    assert_eq!(walk_count(&pair.dst().join("data")), 110);
    approve.send(111).unwrap();
    wait_settled(&pair, &following);
    following.stop().unwrap();
    receiver.stop();
}

/// The directory that took the place of the removed one has on the target what was in that, and moves with it.
#[test]
fn what_is_refused_stays_in_a_directory_that_moves() {
    let mut pair = Pair::new();
    let old = pair.src().join("b");
    fs::create_dir_all(old.join("x")).unwrap();
    fs::write(pair.src().join("left"), "left").unwrap();
    for file in 0..7 {
        fs::write(old.join(format!("g{file}")), "beside").unwrap();
        fs::write(old.join(format!("x/f{file}")), "inside").unwrap();
    }
    pair.seed().unwrap();
    fs::remove_dir_all(&old).unwrap();
    fs::create_dir(&old).unwrap();
    fs::write(old.join("new"), "new").unwrap();
    pair.delete_limit = Some("1".parse().unwrap());
    for _ in 0..2 {
        pair.seed().unwrap_err();
    }
    fs::rename(&old, pair.src().join("a")).unwrap();
    std::os::unix::fs::symlink("nowhere", pair.src().join("a/x")).unwrap();
    for _ in 0..3 {
        pair.seed().unwrap_err();
        let (a, b) = (pair.dst().join("a"), pair.dst().join("b"));
        // Of each, wherever the directory is by now: itself, `x`, fourteen files and what is new.
        assert!(walk_count(&a) + walk_count(&b) >= 16, "some of it was deleted");
    }
    pair.delete_limit = None;
    pair.seed().unwrap();
    pair.assert_equal();
}

/// It is gone under another name than that which it has on the target, where something else is to stand by now.
#[test]
fn what_moved_before_it_was_removed_stays_where_the_target_has_it() {
    let mut pair = Pair::new();
    fill(&pair, 10);
    fs::write(pair.src().join("left"), "left").unwrap();
    pair.seed().unwrap();
    let (data, other) = (pair.src().join("data"), pair.src().join("other"));
    fs::rename(&data, &other).unwrap();
    let stop = Stop::default();
    let nobody = pair.sender_options("127.0.0.1:9".parse().unwrap(), false);
    let mute = Arc::new(Mute(stop.clone()));
    let _ = sender::run(&nobody, &runtime(), mute, &stop);
    fs::remove_dir_all(&other).unwrap();
    fs::create_dir(&data).unwrap();
    fs::write(data.join("new"), "new").unwrap();
    pair.delete_limit = Some("20".parse().unwrap());
    for _ in 0..3 {
        pair.seed().unwrap_err();
        assert!(walk_count(&pair.dst().join("data")) >= 110, "it was deleted");
    }
    pair.delete_limit = None;
    pair.seed().unwrap();
    pair.assert_equal();
}

#[test]
fn a_refused_run_ends_while_a_file_is_written_to_all_the_time() {
    let mut pair = Pair::new();
    fill(&pair, 10);
    let log = pair.src().join("log");
    fs::write(&log, "begin").unwrap();
    pair.seed().unwrap();
    fs::remove_dir_all(pair.src().join("data")).unwrap();
    pair.delete_limit = Some("20".parse().unwrap());
    let (end, ended) = crossbeam_channel::bounded::<()>(0);
    let writer = std::thread::spawn(move || {
        use std::io::Write;
        let mut log = fs::OpenOptions::new().append(true).open(log).unwrap();
        let every = std::time::Duration::from_millis(2);
        while ended.recv_timeout(every) == Err(crossbeam_channel::RecvTimeoutError::Timeout) {
            log.write_all(b"one more line of a log\n").unwrap();
        }
    });
    let error = pair.seed().unwrap_err().to_string();
    drop(end);
    writer.join().unwrap();
    assert!(error.contains("111 of"), "{error}");
    assert_eq!(walk_count(&pair.dst().join("data")), 110);
}

#[test]
fn few_deletions_and_many_small_ones_of_a_large_tree_pass() {
    let (pair, _approve) = guarded("20,25%");
    fill(&pair, 20);
    let receiver = pair.receive();
    let following = Following::start(pair.sender_options(receiver.address(), true));
    following.watching.wait_in_sync();
    for directory in 0..4 {
        fs::remove_dir_all(pair.src().join(format!("data/d{directory}"))).unwrap();
    }
    wait_settled(&pair, &following);
    following.stop().unwrap();
    receiver.stop();
}

/// Programs make and remove files by the thousand: nothing is lost with what was not there before.
#[test]
fn files_that_come_and_go_count_for_nothing() {
    let (pair, _approve) = guarded("20,25%");
    fill(&pair, 3);
    let receiver = pair.receive();
    let following = Following::start(pair.sender_options(receiver.address(), true));
    following.watching.wait_in_sync();
    let temporary = |number: usize| pair.src().join(format!("tmp{number}"));
    for _ in 0..2 {
        // Alone, and in a directory that goes with them.
        fs::create_dir(temporary(0)).unwrap();
        for number in 1..30 {
            fs::write(temporary(number), "short-lived").unwrap();
            fs::write(temporary(0).join(number.to_string()), "short-lived").unwrap();
        }
        wait_settled(&pair, &following);
        (1..30).for_each(|number| fs::remove_file(temporary(number)).unwrap());
        fs::remove_dir_all(temporary(0)).unwrap();
        wait_settled(&pair, &following);
    }
    // What was there before is guarded as ever.
    fs::remove_dir_all(pair.src().join("data")).unwrap();
    wait_held(&following);
    following.stop().unwrap();
    receiver.stop();
}

/// What was there ten minutes ago is guarded, whatever was done to it since.
#[test]
fn what_was_replaced_or_moved_is_guarded_as_what_it_was() {
    let (pair, _approve) = guarded("20,25%");
    fill(&pair, 10);
    let receiver = pair.receive();
    let following = Following::start(pair.sender_options(receiver.address(), true));
    following.watching.wait_in_sync();
    // Half of them are new files, which were there under other names before they took their places.
    let (data, staged) = (pair.src().join("data"), pair.src().join("staged"));
    fs::create_dir(&staged).unwrap();
    for directory in 0..5 {
        for file in 0..10 {
            fs::write(staged.join(format!("{directory}.{file}")), "replaced").unwrap();
        }
    }
    wait_settled(&pair, &following);
    for directory in 0..5 {
        for file in 0..10 {
            let place = data.join(format!("d{directory}/f{file}"));
            fs::rename(staged.join(format!("{directory}.{file}")), place).unwrap();
        }
    }
    wait_settled(&pair, &following);
    // The other half is moved to a directory that is new.
    let moved = pair.src().join("moved");
    fs::create_dir(&moved).unwrap();
    for directory in 5..10 {
        fs::rename(
            data.join(format!("d{directory}")),
            moved.join(directory.to_string()),
        )
        .unwrap();
    }
    wait_settled(&pair, &following);
    for path in [&data, &moved] {
        fs::remove_dir_all(path).unwrap();
    }
    // A quarter may have passed before it was too much; all the rest of these 111 counts.
    let is_guarded = |phase: &Phase| matches!(phase, Phase::Held { deletions, .. } if *deletions >= 80);
    following.watching.wait_for(is_guarded);
    let kept = walk_count(&pair.dst().join("data")) + walk_count(&pair.dst().join("moved"));
    assert!(kept >= 80, "{kept}");
    following.stop().unwrap();
    receiver.stop();
}

/// Enough that nothing is refused before anything is sent.
fn write_news(pair: &Pair) {
    let news = pair.src().join("news");
    fs::create_dir_all(&news).unwrap();
    for file in 0..400 {
        fs::write(news.join(file.to_string()), vec![b'n'; 10_000]).unwrap();
    }
}

/// Stops the run that it watches before that can say anything to anybody.
struct Mute(Stop);

impl Observer for Mute {
    fn phase(&self, phase: &Phase) {
        if matches!(phase, Phase::Connecting) {
            self.0.request();
        }
    }
}

/// What was found out about the source is in the catalog by then, and nothing about what waits for what.
#[test]
fn what_is_refused_by_one_run_after_the_other_stays_where_it_is() {
    let mut pair = Pair::new();
    fill(&pair, 1);
    fs::rename(pair.src().join("data"), pair.src().join("other")).unwrap();
    fs::write(pair.src().join("other/d0/f0"), "of the other tree").unwrap();
    fill(&pair, 10);
    pair.seed().unwrap();
    let dst = pair.dst();
    let inode = |path: &str| fs::metadata(dst.join(path)).unwrap().ino();
    let (old, new) = (inode("data/d0/f0"), inode("other/d0/f0"));
    fs::remove_dir_all(pair.src().join("data")).unwrap();
    fs::rename(pair.src().join("other"), pair.src().join("data")).unwrap();
    write_news(&pair);
    let stop = Stop::default();
    let nobody = pair.sender_options("127.0.0.1:9".parse().unwrap(), false);
    let mute = Arc::new(Mute(stop.clone()));
    let _ = sender::run(&nobody, &runtime(), mute, &stop);
    pair.delete_limit = Some("20".parse().unwrap());
    for _ in 0..3 {
        let error = pair.seed().unwrap_err().to_string();
        assert!(error.contains("99 of"), "{error}");
        assert_eq!((inode("data/d0/f0"), inode("other/d0/f0")), (old, new));
    }
    pair.delete_limit = None;
    pair.seed().unwrap();
    pair.assert_equal();
    assert_eq!(inode("data/d0/f0"), new, "it was sent again");
}

/// What a comparison found is known by the next run, whichever way it begins.
#[test]
fn what_is_refused_after_a_comparison_stays_where_it_is() {
    let mut pair = Pair::new();
    fill(&pair, 1);
    fs::rename(pair.src().join("data"), pair.src().join("other")).unwrap();
    fill(&pair, 10);
    pair.seed().unwrap();
    let root = fs::File::open(pair.src()).unwrap();
    let modified = root.metadata().unwrap().modified().unwrap();
    fs::remove_dir_all(pair.src().join("data")).unwrap();
    fs::rename(pair.src().join("other"), pair.src().join("data")).unwrap();
    // So that nothing at all changes on the target by the first run.
    root.set_modified(modified).unwrap();
    pair.delete_limit = Some("20".parse().unwrap());
    for compare in [Compare::Contents, Compare::default(), Compare::default()] {
        pair.compare = compare;
        let error = pair.seed().unwrap_err().to_string();
        assert!(error.contains("99 of"), "{error}");
        for (path, entries) in [("data", 110), ("other", 11)] {
            assert_eq!(walk_count(&pair.dst().join(path)), entries, "{path}");
        }
        write_news(&pair);
    }
}

/// What stands on the target where the source has something of another kind is found by a comparison, too.
#[test]
fn a_refused_tree_whose_place_a_link_takes_stays_for_run_after_run() {
    let mut pair = Pair::new();
    fill(&pair, 10);
    pair.seed().unwrap();
    fs::remove_dir_all(pair.src().join("data")).unwrap();
    std::os::unix::fs::symlink("elsewhere", pair.src().join("data")).unwrap();
    write_news(&pair);
    pair.delete_limit = Some("20".parse().unwrap());
    for _ in 0..3 {
        let error = pair.seed().unwrap_err().to_string();
        assert!(error.contains("110 of"), "{error}");
        assert_eq!(walk_count(&pair.dst().join("data")), 110);
    }
    pair.delete_limit = None;
    pair.seed().unwrap();
    pair.assert_equal();
}

/// It waits where it is, in what is held back, and comes out of that before it goes.
#[test]
fn what_takes_the_place_of_the_directory_that_it_was_in_is_counted_and_not_sent_again() {
    let (pair, approve) = guarded("20,25%");
    fill(&pair, 10);
    let receiver = pair.receive();
    let options = pair.sender_options(receiver.address(), true);
    let gate = options.gate.clone();
    let following = Following::start(options);
    following.watching.wait_in_sync();
    let inode = |path: &str| fs::metadata(pair.dst().join(path)).unwrap().ino();
    let before = inode("data/d0/f0");
    assert!(gate.set_closed(true));
    following
        .watching
        .wait_for(|phase| matches!(phase, Phase::Paused));
    let data = pair.src().join("data");
    fs::rename(data.join("d0"), pair.src().join("beside")).unwrap();
    fs::remove_dir_all(&data).unwrap();
    fs::rename(pair.src().join("beside"), &data).unwrap();
    assert!(gate.set_closed(false));
    // Of what was in it, what that one has may count as back, if it is not found out name by name.
    wait_until("what it held counts", || {
        (89..=99).contains(&wait_held(&following))
    });
    approve.send(99).unwrap();
    wait_settled(&pair, &following);
    assert_eq!(inode("data/f0"), before, "it was sent again");
    following.stop().unwrap();
    receiver.stop();
}

#[test]
fn deletes_startup_deletes_what_it_finds_and_keeps_what_goes_later() {
    let mut pair = Pair::new();
    fs::write(pair.dst().join("old"), "old").unwrap();
    for name in ["keep", "stay"] {
        fs::write(pair.src().join(name), name).unwrap();
    }
    pair.deletes = Deletes::Startup;
    let receiver = pair.receive();
    let following = Following::start(pair.sender_options(receiver.address(), true));
    following.watching.wait_in_sync();
    assert!(!pair.dst().join("old").exists());
    fs::remove_file(pair.src().join("keep")).unwrap();
    fs::write(pair.src().join("new"), "new").unwrap();
    wait_until("the new file arrives", || pair.dst().join("new").exists());
    following.watching.wait_in_sync();
    assert!(pair.dst().join("keep").exists());
    following.stop().unwrap();
    receiver.stop();
}

#[test]
fn deletes_running_keeps_what_it_finds_and_deletes_what_goes_later() {
    let mut pair = Pair::new();
    fs::write(pair.dst().join("old"), "old").unwrap();
    for name in ["gone", "offline", "stay"] {
        fs::write(pair.src().join(name), name).unwrap();
    }
    pair.deletes = Deletes::Running;
    let receiver = pair.receive();
    let following = Following::start(pair.sender_options(receiver.address(), true));
    following.watching.wait_in_sync();
    fs::remove_file(pair.src().join("gone")).unwrap();
    wait_until("it is deleted", || !pair.dst().join("gone").exists());
    following.watching.wait_in_sync();
    following.stop().unwrap();
    // What is removed while nobody looks is not deleted at the next start.
    fs::remove_file(pair.src().join("offline")).unwrap();
    let following = Following::start(pair.sender_options(receiver.address(), true));
    following.watching.wait_in_sync();
    for name in ["old", "offline", "stay"] {
        assert!(pair.dst().join(name).exists(), "{name}");
    }
    following.stop().unwrap();
    receiver.stop();
}

/// What the target keeps is not displaced by what takes its place here, with a limit or without.
#[test]
fn what_the_target_keeps_stays_when_something_takes_its_place() {
    for deletes in [Deletes::Never, Deletes::Startup] {
        for is_link in [false, true] {
            let (mut pair, _approve) = guarded("20,25%");
            pair.deletes = deletes;
            fill(&pair, 10);
            fs::create_dir(pair.src().join("few")).unwrap();
            fs::write(pair.src().join("few/one"), "one").unwrap();
            let receiver = pair.receive();
            let options = pair.sender_options(receiver.address(), true);
            let gate = options.gate.clone();
            let following = Following::start(options);
            following.watching.wait_in_sync();
            for name in ["data", "few"] {
                let path = pair.src().join(name);
                fs::rename(&path, pair.path(&format!("{name}-outside"))).unwrap();
                match is_link {
                    true => std::os::unix::fs::symlink("elsewhere", &path).unwrap(),
                    false => {
                        fs::create_dir(&path).unwrap();
                        fs::write(path.join("new"), "new").unwrap();
                    }
                }
            }
            fs::write(pair.src().join("last"), "last").unwrap();
            wait_until("what else is new arrives", || pair.dst().join("last").exists());
            if !is_link {
                for name in ["data/new", "few/new"] {
                    wait_until("the new file arrives", || pair.dst().join(name).exists());
                }
            }
            // What is displaced goes with the next connection.
            assert!(gate.set_closed(true));
            let is_paused = |phase: &Phase| matches!(phase, Phase::Paused);
            following.watching.wait_for(is_paused);
            assert!(gate.set_closed(false));
            following.watching.wait_in_sync();
            fs::write(pair.src().join("later"), "later").unwrap();
            wait_until("what comes later arrives", || pair.dst().join("later").exists());
            let kept = walk_count(&pair.dst().join("data"));
            assert!(kept >= 110, "{kept} {deletes:?} {is_link}");
            assert!(pair.dst().join("few/one").exists(), "{deletes:?} {is_link}");
            let summary = following.stop().unwrap();
            assert_eq!(summary.failed.len(), if is_link { 2 } else { 0 }, "{summary:?}");
            receiver.stop();
        }
    }
}

/// Where a receiver that is stopped leaves a directory that has to make room.
const PARKED: &str = ".driftless-0123456789abcdef-parked";

#[test]
fn what_is_copied_back_needs_no_approval_if_the_old_one_was_making_room() {
    let mut pair = Pair::new();
    fill(&pair, 3);
    pair.seed().unwrap();
    // Ten files and their directory would be too many.
    pair.delete_limit = Some("5".parse().unwrap());
    let (src, dst) = (pair.src().join("data"), pair.dst().join("data"));
    fs::rename(src.join("d0"), pair.path("old")).unwrap();
    fs::create_dir(src.join("d0")).unwrap();
    for file in 0..10 {
        fs::copy(
            pair.path(&format!("old/f{file}")),
            src.join(format!("d0/f{file}")),
        )
        .unwrap();
    }
    fs::rename(dst.join("d0"), dst.join(PARKED)).unwrap();
    fs::create_dir(dst.join("d0")).unwrap();
    pair.seed().unwrap();
    pair.assert_equal();
    // One less comes back.
    fs::remove_dir_all(src.join("d1")).unwrap();
    fs::rename(dst.join("d1"), dst.join(PARKED)).unwrap();
    let refused = pair.seed().unwrap_err().to_string();
    assert!(refused.contains("11 of"), "{refused}");
    let is_seen = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().unwrap();
        name.starts_with("driftless-parked-") && entry.path().join("f9").exists()
    };
    let mut left = fs::read_dir(&dst).unwrap().map(Result::unwrap);
    assert!(left.any(is_seen), "what is refused is there");
    pair.delete_limit = None;
    pair.seed().unwrap();
    pair.assert_equal();
}

/// The target loses power when one of three directories that changed places in a circle had come to its own, and has the catalog of before.
#[test]
fn a_circle_that_was_cut_off_deletes_nothing() {
    let mut pair = Pair::new();
    fill(&pair, 3);
    pair.delete_limit = Some("0".parse().unwrap());
    pair.seed().unwrap();
    let (home, before) = (pair.path("home-r"), pair.path("home-before"));
    copy_tree(&home, &before);
    let generation = pair.dst().join(".driftless-generation");
    let was_generation = fs::read(&generation).unwrap();
    let (src, dst) = (pair.src().join("data"), pair.dst().join("data"));
    let inodes = || ["d0", "d1", "d2"].map(|name| dst.join(name).metadata().unwrap().ino());
    let was = inodes();
    let rename = |root: &std::path::Path, names: [(&str, &str); 4]| {
        for (from, to) in names {
            fs::rename(root.join(from), root.join(to)).unwrap();
        }
    };
    rename(&src, [("d2", "x"), ("d1", "d2"), ("d0", "d1"), ("x", "d0")]);
    pair.seed().unwrap();
    assert_eq!(inodes(), [was[2], was[0], was[1]]);
    rename(&dst, [("d2", PARKED), ("d0", "d2"), ("d1", "x"), ("x", "d1")]);
    fs::remove_dir_all(&home).unwrap();
    fs::rename(before, &home).unwrap();
    fs::write(&generation, was_generation).unwrap();
    pair.seed().unwrap();
    pair.assert_equal();
    assert_eq!(
        inodes(),
        [was[2], was[0], was[1]],
        "they were moved, not filled anew"
    );
}

fn copy_tree(from: &std::path::Path, to: &std::path::Path) {
    fs::create_dir(to).unwrap();
    fs::set_permissions(to, from.metadata().unwrap().permissions()).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => copy_tree(&entry.path(), &to),
            kind if kind.is_file() => drop(fs::copy(entry.path(), to).unwrap()),
            _ => {}
        }
    }
}
