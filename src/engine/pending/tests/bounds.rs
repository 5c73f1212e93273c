//! Memory stays bounded, whatever happens.

use super::*;

#[test]
fn a_million_events_on_one_name_are_one_slot() {
    let start = Instant::now();
    let mut pending = Pending::new(PendingOptions::default());
    let mut looks = 0;
    for n in 0..1_000_000u64 {
        let now = start + Duration::from_micros(n * 10);
        pending.handle_event(now, &at("log", Modified));
        assert!(pending.slots.len() == 1 && pending.waiting.len() + pending.ready.len() == 1);
        looks += pending.poll_ready(now).names.len();
    }
    assert_eq!(looks, 9, "10 s of writing, a look each second");
    assert_eq!(
        (pending.index.len(), pending.index[&DIRECTORY].capacity() < 8),
        (1, true)
    );
}

#[test]
fn above_capacity_names_become_directories_and_these_a_rescan() {
    let now = Instant::now();
    let second = Duration::from_secs(1);
    let event = |directory, text: &str| WatchEvent::At {
        directory: ObjectId(directory),
        name: name(text),
        hint: Created,
        is_directory: false,
    };
    let mut pending = Pending::new(PendingOptions {
        capacity: 4,
        ..PendingOptions::default()
    });
    for (n, directory) in [9, 8, 9, 8].into_iter().enumerate() {
        pending.handle_event(now, &event(directory, &n.to_string()));
    }
    assert_eq!(pending.len(), 4);
    pending.handle_event(now + second / 100, &event(9, "one too many"));
    assert_eq!((pending.len(), pending.oldest()), (2, Some(now)));
    pending.handle_event(now + second / 100, &event(8, "covered"));
    pending.handle_event(now + second / 100, &event(5, "not covered"));
    assert_eq!(pending.len(), 3);
    let ready = pending.poll_ready(now + second / 100);
    assert_eq!(
        ready,
        Ready {
            directories: vec![ObjectId(9), ObjectId(8)],
            ..Ready::default()
        }
    );
    assert_eq!(pending.len(), 1);

    (0..4).for_each(|n| pending.handle_event(now + second, &event(n, "x")));
    assert_eq!(pending.poll_deadline(), Some(now + second / 100 + second / 20));
    let ready = pending.poll_ready(now + second);
    assert_eq!(
        ready,
        Ready {
            rescan: true,
            ..Ready::default()
        }
    );
    assert_eq!((pending.len(), pending.oldest()), (0, None));
}

#[test]
fn a_forgotten_directory_leaves_nothing() {
    let now = Instant::now();
    for delay in [Duration::ZERO, Duration::from_secs(5)] {
        let mut pending = Pending::new(PendingOptions {
            delay,
            ..PendingOptions::default()
        });
        for hint in [Created, Modified, Closed] {
            pending.handle_event(now, &at(&format!("{hint:?}"), hint));
        }
        pending.handle_look(now, DIRECTORY, &name("look"), now + Duration::from_secs(9));
        pending.handle_event(now, &WatchEvent::Gone { directory: DIRECTORY });
        pending.handle_event(now, &WatchEvent::Itself { directory: DIRECTORY });
        pending.forget_directory(DIRECTORY);
        assert_eq!(
            (pending.len(), pending.poll_deadline(), pending.oldest()),
            (0, None, None)
        );
        assert!(pending.poll_ready(now + Duration::from_secs(20)).is_empty());

        pending.handle_event(now, &WatchEvent::Overflow);
        pending.forget_directory(DIRECTORY);
        assert_eq!((pending.len(), pending.oldest()), (1, Some(now)));
        assert!(pending.poll_ready(now + delay).rescan);
    }
}

#[test]
fn absurd_options_do_no_harm() {
    let now = Instant::now();
    let mut pending = Pending::new(PendingOptions {
        settle: Duration::MAX,
        max_delay: Duration::MAX,
        pairing: Duration::MAX,
        delay: Duration::MAX,
        batch_max: 0,
        capacity: 0,
        writes: Writes::Both,
    });
    pending.handle_event(now, &at("a", Modified));
    assert!(pending.poll_ready(now).rescan);
    pending.handle_look(now, DIRECTORY, &name("a"), now);
    assert!(pending.poll_ready(now).rescan);
}
