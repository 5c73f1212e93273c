//! How far listings run ahead of what takes them.

use super::*;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Generous: others use this machine, too.
const PATIENCE: Duration = Duration::from_secs(60);

/// Directories with three names each, and visits of them.
fn siblings(count: usize) -> (tempfile::TempDir, Vec<Visit>) {
    let directory = tempfile::tempdir().unwrap();
    for number in 0..count {
        let inner = directory.path().join(format!("{number}"));
        fs::create_dir(&inner).unwrap();
        (0..3).for_each(|name| fs::write(inner.join(format!("{name}")), "").unwrap());
    }
    let root = Arc::new(Directory::open_root(directory.path()).unwrap());
    let visits = (0..count).map(|number| Visit {
        object: ObjectId(number as u64),
        handle: root.clone(),
        name: Some(Name::new(format!("{number}").into_bytes()).unwrap()),
    });
    let visits = visits.collect();
    (directory, visits)
}

/// Whoever takes the first listing is as slow as can be: the threads come as far as they ever will.
#[test]
fn listings_that_nobody_took_yet_are_few_if_they_are_large() {
    let (_directory, visits) = siblings(12);
    let held = Held::new(3);
    let (begun, taken) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let most = AtomicUsize::new(0);
    let list = |visit: Visit| {
        let ahead = begun.fetch_add(1, Ordering::SeqCst) + 1 - taken.load(Ordering::SeqCst);
        most.fetch_max(ahead, Ordering::SeqCst);
        visit.list()
    };
    let outcome = visit_with(&held, list, visits, |visited, _| {
        assert_eq!(entries_of(&visited), 3);
        let end = Instant::now() + PATIENCE;
        while taken.load(Ordering::SeqCst) == 0
            && begun.load(Ordering::SeqCst) <= LISTING_THREADS
            && lock(&held.state).waiting < LISTING_THREADS
        {
            assert!(Instant::now() < end, "no thread waits for room, none goes on");
            std::thread::yield_now();
        }
        taken.fetch_add(1, Ordering::SeqCst);
        Ok::<_, Infallible>(())
    });
    let Ok(()) = outcome;
    assert_eq!(taken.into_inner(), 12);
    let most = most.into_inner();
    assert!(most <= LISTING_THREADS, "{most} were held");
    assert_eq!(lock(&held.state).entries, 0);
}

/// With threads that wait for room.
#[test]
fn an_error_ends_a_walk_whose_threads_wait() {
    let (_directory, visits) = siblings(12);
    let held = Held::new(1);
    let outcome = visit_with(&held, Visit::list, visits, |_, _| {
        let end = Instant::now() + PATIENCE;
        while lock(&held.state).waiting < LISTING_THREADS {
            assert!(Instant::now() < end, "no thread waits for room");
            std::thread::yield_now();
        }
        Err("told")
    });
    assert_eq!(outcome, Err("told"));
}
