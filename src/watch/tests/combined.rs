//! Which back end is taken for what, and what is told of it.

use super::super::fanotify::FanotifyOptions;
use super::super::poll::PollOptions;
use super::*;

fn options(choice: WatchChoice) -> WatchOptions {
    WatchOptions {
        choice,
        fanotify: FanotifyOptions::default(),
        poll: PollOptions {
            interval: Duration::from_millis(10),
            directories_per_second: 1_000,
        },
        audit: None,
    }
}

fn start(choice: WatchChoice, directory: &Path) -> Combined {
    open(&options(choice), File::open(directory).unwrap().as_fd()).unwrap()
}

fn watch(watcher: &mut Combined, object: u64, path: &Path) {
    watcher
        .watch(ObjectId(object), File::open(path).unwrap().as_fd())
        .unwrap();
}

#[test]
fn polling_asks_for_every_directory_in_turn() {
    let directory = tempfile::tempdir().unwrap();
    let mut watcher = start(WatchChoice::Poll, directory.path());
    assert_eq!(watcher.name(), "poll");
    for object in [1, 2, 3] {
        watch(&mut watcher, object, directory.path());
    }
    watcher.unwatch(ObjectId(2));
    let told = watcher.degradations();
    assert_eq!(watcher.shortfall(), None);
    assert!(
        told.len() == 1 && told[0].starts_with("2 directories are only looked at every 1 s"),
        "{told:?}"
    );
    let events = watcher.events();
    let mut listed = Vec::new();
    let mut gone = 0;
    while listed.len() < 8 {
        match events.recv_timeout(LONG).unwrap() {
            WatchEvent::Listing { directory } => listed.push(directory.0),
            WatchEvent::Gone { directory: ROOT } => gone += 1,
            event => panic!("{event:?}"),
        }
    }
    // Turns may have been taken before the last was watched, and before the second was given up.
    let listed = listed.split_off(4);
    assert!(
        !listed.contains(&2) && listed.windows(2).all(|pair| pair[0] != pair[1]),
        "{listed:?}"
    );
    // Whether the root is in its place has to be looked at as well.
    assert!(gone >= 2);
}

#[test]
fn inotify_is_taken_when_it_is_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let mut watcher = start(WatchChoice::Inotify, directory.path());
    watch(&mut watcher, 1, directory.path());
    assert_eq!(watcher.name(), "inotify");
    assert_eq!(watcher.degradations(), Vec::<String>::new());
}

/// D-12: what cannot be watched is looked at, and it is told; and when it can be watched again, that ends.
#[test]
fn what_cannot_be_watched_is_polled_until_it_can() {
    let directory = tempfile::tempdir().unwrap();
    let mut watcher = start(WatchChoice::Inotify, directory.path());
    watch(&mut watcher, 1, directory.path());
    // No directory: inotify refuses it as it does a directory above the limit.
    let file = tempfile::NamedTempFile::new_in(&directory).unwrap();
    watch(&mut watcher, 2, file.path());
    let told = watcher.degradations();
    let reason = file.path().display().to_string();
    assert!(
        told.len() == 1 && told[0].contains("1 directory") && told[0].contains(&reason),
        "{told:?}"
    );
    assert_eq!(watcher.shortfall(), told.first().cloned());
    let events = watcher.events();
    while events.recv_timeout(LONG).unwrap()
        != (WatchEvent::Listing {
            directory: ObjectId(2),
        })
    {}
    watch(&mut watcher, 2, directory.path());
    assert_eq!(watcher.degradations(), Vec::<String>::new());
    assert_eq!(watcher.watched(), 1);
}

/// Where fanotify refuses the root, inotify watches, and the reason is told in words.
#[test]
fn a_refused_root_falls_back_and_says_why() {
    // The kernel itself makes these files up: no handles, no events, for anybody.
    let proc = File::open("/proc/self").unwrap();
    let Err(WatchError::Unsupported { reason, .. }) = open(&options(WatchChoice::Fanotify), proc.as_fd())
    else {
        panic!("fanotify marks /proc")
    };
    let watcher = open(&options(WatchChoice::Auto), proc.as_fd()).unwrap();
    assert_eq!(watcher.name(), "inotify");
    assert_eq!(watcher.degradations(), [reason.to_string()]);
}

/// A file system below the root that cannot be marked is watched by inotify, the rest is not.
#[test]
fn a_refused_directory_falls_back_alone() {
    let Some((probe, directory)) = super::fanotify(&FanotifyOptions::default()) else {
        return;
    };
    drop(probe);
    let mut watcher = start(WatchChoice::Auto, directory.path());
    assert_eq!(watcher.name(), "fanotify");
    watch(&mut watcher, 1, directory.path());
    assert_eq!(watcher.degradations(), Vec::<String>::new());
    watch(&mut watcher, 2, Path::new("/proc"));
    assert_eq!(watcher.name(), "fanotify");
    let told = watcher.degradations();
    assert!(
        told.len() == 1 && told[0].starts_with("/proc and what is below it is watched by inotify"),
        "{told:?}"
    );
    assert_eq!(watcher.watched(), 2);
    watcher.unwatch(ObjectId(2));
    assert_eq!(watcher.degradations(), Vec::<String>::new());
    // Both tell it through the one channel.
    watch(&mut watcher, 2, Path::new("/proc"));
    symlink("x", directory.path().join("a")).unwrap();
    // Whoever removes a directory beside the root may have removed the root, as far as the kernel tells.
    let beside = WatchEvent::Gone { directory: ROOT };
    let mut events = std::iter::from_fn(|| watcher.events().recv_timeout(LONG).ok());
    let event = events.find(|event| *event != beside).unwrap();
    let created = WatchEvent::At {
        directory: ROOT,
        name: name(b"a"),
        hint: Hint::Created,
        is_directory: false,
    };
    assert_eq!(event, created);
}

#[test]
fn reasons_are_sentences() {
    let reasons = [
        Unsupported::NotPermitted { capability: None },
        Unsupported::NotPermitted {
            capability: Some("CAP_SYS_ADMIN"),
        },
        Unsupported::Subvolume,
        Unsupported::Remote { kind: "NFS" },
        Unsupported::Other { errno: 5 },
    ];
    let texts: BTreeSet<String> = reasons.iter().map(ToString::to_string).collect();
    assert_eq!(texts.len(), reasons.len());
    assert!(texts.contains("fanotify cannot mark btrfs subvolumes"));
    assert!(
        texts.iter().all(|text| text.starts_with("fanotify ")),
        "{texts:?}"
    );
}

#[test]
fn an_audit_lists_what_is_watched_and_is_no_shortfall() {
    let directory = tempfile::tempdir().unwrap();
    let audited = WatchOptions {
        audit: Some(Duration::from_millis(10)),
        ..options(WatchChoice::Inotify)
    };
    let root = File::open(directory.path()).unwrap();
    let mut watcher = open(&audited, root.as_fd()).unwrap();
    watcher.watch(ObjectId(5), root.as_fd()).unwrap();
    let listing = WatchEvent::Listing {
        directory: ObjectId(5),
    };
    let events = watcher.events();
    assert!(std::iter::from_fn(|| events.recv_timeout(LONG).ok()).any(|event| event == listing));
    assert_eq!((watcher.shortfall(), watcher.degradations()), (None, Vec::new()));
    watcher.unwatch(ObjectId(5));
    assert_eq!(watcher.watched(), 0);
}

/// What was done before a flush is in the channel when the flush is over, though nobody waits for events.
#[test]
fn a_flush_leaves_nothing_earlier_in_the_kernel() {
    for choice in [WatchChoice::Auto, WatchChoice::Inotify, WatchChoice::Poll] {
        let directory = tempfile::tempdir().unwrap();
        let slow = WatchOptions {
            poll: PollOptions {
                interval: Duration::from_secs(3_600),
                directories_per_second: 1_000,
            },
            ..options(choice)
        };
        let mut watcher = open(&slow, File::open(directory.path()).unwrap().as_fd()).unwrap();
        watch(&mut watcher, 1, directory.path());
        watch(&mut watcher, 2, directory.path());
        watcher.set_patient(true);
        let events = watcher.events();
        for round in 0..50 {
            // More than fits into one read, now and then.
            let files = if round % 10 == 0 { 4_000 } else { 3 };
            (0..files).for_each(|file| {
                let path = directory.path().join(format!("{round}-{file}"));
                File::create(path).unwrap();
            });
            let (done, flushed) = crossbeam_channel::bounded::<()>(0);
            watcher.flush(done);
            assert!(
                flushed
                    .recv_timeout(LONG)
                    .is_err_and(|error| error.is_disconnected())
            );
            let told: Vec<_> = events.try_iter().collect();
            let last = Name::new(format!("{round}-{}", files - 1).into_bytes()).unwrap();
            let is_covered = told.iter().any(|event| match event {
                WatchEvent::At { name, .. } => *name == last,
                WatchEvent::Listing { .. } => choice == WatchChoice::Poll,
                WatchEvent::Overflow => true,
                _ => false,
            });
            assert!(is_covered, "{choice:?}, round {round}: {} events", told.len());
        }
    }
}
