//! Scripted tables: what happens when, and what must come out when.

mod bounds;
mod model;

use super::*;
use Hint::*;

const DIRECTORY: ObjectId = ObjectId(7);

/// A line of a script, with its time in milliseconds.
enum Do {
    Hint(u64, &'static str, Hint),
    MakeDirectory(u64, &'static str),
    Look(u64, &'static str, u64),
    Overflow(u64),
    /// At this time, and not a nanosecond earlier, these leave.
    Leaves(u64, &'static [&'static str]),
    /// At this time nothing leaves.
    Nothing(u64),
    Rescan(u64),
}

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

fn at(text: &str, hint: Hint) -> WatchEvent {
    WatchEvent::At {
        directory: DIRECTORY,
        name: name(text),
        hint,
        is_directory: false,
    }
}

fn names(texts: &[&str]) -> Vec<(ObjectId, Name)> {
    texts.iter().map(|text| (DIRECTORY, name(text))).collect()
}

fn run(title: &str, options: PendingOptions, script: &[Do]) {
    let start = Instant::now();
    let ms = |ms: u64| start + Duration::from_millis(ms);
    let mut pending = Pending::new(options);
    let mut before = start;
    for (line, action) in script.iter().enumerate() {
        let place = format!("{title}, line {}", line + 1);
        match *action {
            Do::Hint(now, text, hint) => pending.handle_event(ms(now), &at(text, hint)),
            Do::MakeDirectory(now, text) => {
                let event = WatchEvent::At {
                    directory: DIRECTORY,
                    name: name(text),
                    hint: Created,
                    is_directory: true,
                };
                pending.handle_event(ms(now), &event);
            }
            Do::Look(now, text, until) => pending.handle_look(ms(now), DIRECTORY, &name(text), ms(until)),
            Do::Overflow(now) => pending.handle_event(ms(now), &WatchEvent::Overflow),
            Do::Leaves(now, texts) => {
                let deadline = pending.poll_deadline().expect(&place);
                assert!(deadline <= before.max(ms(now)), "{place}: the deadline is late");
                if ms(now) > before {
                    assert_eq!(deadline, ms(now), "{place}: deadline");
                    let early = pending.poll_ready(ms(now) - Duration::from_nanos(1));
                    assert_eq!(early, Ready::default(), "{place}: early");
                }
                let ready = pending.poll_ready(ms(now));
                assert_eq!(
                    ready,
                    Ready {
                        names: names(texts),
                        ..Ready::default()
                    },
                    "{place}"
                );
            }
            Do::Nothing(now) => assert_eq!(pending.poll_ready(ms(now)), Ready::default(), "{place}"),
            Do::Rescan(now) => {
                let ready = pending.poll_ready(ms(now));
                assert_eq!(
                    ready,
                    Ready {
                        rescan: true,
                        ..Ready::default()
                    },
                    "{place}"
                );
            }
        }
        let (Do::Hint(now, ..)
        | Do::MakeDirectory(now, _)
        | Do::Look(now, ..)
        | Do::Overflow(now)
        | Do::Leaves(now, _)
        | Do::Nothing(now)
        | Do::Rescan(now)) = *action;
        before = ms(now);
    }
    assert!(pending.is_empty(), "{title}: {pending:?} is left");
    assert_eq!(
        (pending.poll_deadline(), pending.oldest(), pending.len()),
        (None, None, 0),
        "{title}"
    );
    assert!(
        pending.index.is_empty() && pending.waiting.is_empty() && pending.ready.is_empty(),
        "{title}"
    );
}

#[test]
fn without_a_window() {
    let table: &[(&str, &[Do])] = &[
        (
            "close is at once",
            &[Do::Hint(0, "a", Closed), Do::Leaves(0, &["a"])],
        ),
        (
            "rename is at once",
            &[Do::Hint(0, "a", MovedIn), Do::Leaves(0, &["a"])],
        ),
        (
            "removal waits for the other half of a rename",
            &[Do::Hint(0, "a", Vanished), Do::Leaves(5, &["a"])],
        ),
        (
            "both halves of a rename: the new name is first",
            &[
                Do::Hint(0, "old", Vanished),
                Do::Hint(1, "new", MovedIn),
                Do::Leaves(1, &["new"]),
                Do::Leaves(5, &["old"]),
            ],
        ),
        (
            "attributes are at once",
            &[Do::Hint(0, "a", Attributes), Do::Leaves(0, &["a"])],
        ),
        (
            "a directory is at once",
            &[Do::MakeDirectory(0, "a"), Do::Leaves(0, &["a"])],
        ),
        (
            "a link settles",
            &[Do::Hint(0, "a", Created), Do::Leaves(50, &["a"])],
        ),
        (
            "a new file leaves when it is closed",
            &[
                Do::Hint(0, "a", Created),
                Do::Hint(10, "a", Modified),
                Do::Nothing(59),
                Do::Hint(59, "a", Closed),
                Do::Leaves(59, &["a"]),
            ],
        ),
        (
            "writes settle after the last",
            &[
                Do::Hint(0, "a", Modified),
                Do::Hint(40, "a", Modified),
                Do::Leaves(90, &["a"]),
            ],
        ),
        (
            "a rename over a file being written ends the wait",
            &[
                Do::Hint(0, "a", Modified),
                Do::Hint(1, "a", MovedIn),
                Do::Leaves(1, &["a"]),
            ],
        ),
        (
            "what was ready stays ready when it is written again",
            &[
                Do::Hint(0, "a", Closed),
                Do::Hint(0, "a", Modified),
                Do::Leaves(0, &["a"]),
            ],
        ),
        (
            "what was ready by time stays ready though nobody polled",
            &[
                Do::Hint(0, "a", Modified),
                Do::Hint(60, "a", Modified),
                Do::Leaves(60, &["a"]),
            ],
        ),
        (
            "made and removed is one look",
            &[
                Do::Hint(0, "a", Created),
                Do::Hint(1, "a", Vanished),
                Do::Leaves(6, &["a"]),
            ],
        ),
        (
            "first come, first out, whatever made them ready",
            &[
                Do::Hint(0, "c", Created),
                Do::Hint(1, "b", Created),
                Do::Hint(2, "a", Created),
                Do::Hint(3, "b", Closed),
                Do::Hint(3, "c", Closed),
                Do::Leaves(3, &["c", "b"]),
                Do::Leaves(52, &["a"]),
            ],
        ),
        (
            "a look is not before its time",
            &[Do::Look(0, "a", 300), Do::Leaves(300, &["a"])],
        ),
        (
            "a look in the past is at once",
            &[Do::Nothing(10), Do::Look(10, "a", 0), Do::Leaves(10, &["a"])],
        ),
        (
            "of two looks the earlier counts",
            &[
                Do::Look(0, "a", 300),
                Do::Look(0, "a", 200),
                Do::Look(0, "a", 400),
                Do::Leaves(200, &["a"]),
            ],
        ),
        (
            "an event overrules a look",
            &[
                Do::Look(0, "a", 300),
                Do::Hint(1, "a", Modified),
                Do::Leaves(51, &["a"]),
            ],
        ),
        (
            "a look does not hold up a write",
            &[
                Do::Hint(0, "a", Modified),
                Do::Look(1, "a", 300),
                Do::Leaves(50, &["a"]),
            ],
        ),
        (
            "an overflow supersedes everything, also what follows it",
            &[
                Do::Hint(0, "a", Modified),
                Do::Hint(0, "b", Closed),
                Do::Overflow(1),
                Do::Hint(2, "c", Closed),
                Do::Look(2, "d", 3),
                Do::Overflow(3),
                Do::Rescan(4),
            ],
        ),
    ];
    for (title, script) in table {
        run(title, PendingOptions::default(), script);
    }
}

#[test]
fn a_log_that_never_rests_leaves_after_max_delay() {
    let mut script = Vec::new();
    script.extend((0..=24).map(|n| Do::Hint(n * 40, "log", Modified)));
    script.push(Do::Leaves(1_000, &["log"]));
    script.extend((25..50).map(|n| Do::Hint(1_000 + (n - 25) * 40, "log", Modified)));
    script.push(Do::Leaves(2_000, &["log"]));
    run("log", PendingOptions::default(), &script);
}

#[test]
fn with_a_window() {
    let options = PendingOptions {
        delay: Duration::from_secs(5),
        batch_max: 3,
        ..PendingOptions::default()
    };
    let table: &[(&str, &[Do])] = &[
        (
            "one batch, `delay` after the first change",
            &[
                Do::Hint(0, "b", Closed),
                Do::Hint(4_995, "a", Vanished),
                Do::Leaves(5_000, &["b", "a"]),
            ],
        ),
        (
            "the window opens with the first change, ready or not",
            &[Do::Hint(0, "a", Created), Do::Leaves(5_000, &["a"])],
        ),
        (
            "what is still written opens the next window when it gets ready",
            &[
                Do::Hint(0, "a", Closed),
                Do::Hint(4_990, "b", Modified),
                Do::Leaves(5_000, &["a"]),
                Do::Leaves(10_040, &["b"]),
            ],
        ),
        (
            "a change in between opens it earlier",
            &[
                Do::Hint(0, "a", Closed),
                Do::Hint(4_990, "b", Modified),
                Do::Leaves(5_000, &["a"]),
                Do::Hint(5_010, "c", Closed),
                Do::Leaves(10_010, &["b", "c"]),
            ],
        ),
        (
            "many leave early",
            &[
                Do::Hint(0, "a", Closed),
                Do::Hint(1, "b", Closed),
                Do::Nothing(2),
                Do::Hint(2, "c", Closed),
                Do::Leaves(2, &["a", "b", "c"]),
            ],
        ),
        (
            "many settled leave early when somebody asks",
            &[
                Do::Hint(0, "a", Created),
                Do::Hint(0, "b", Created),
                Do::Hint(0, "c", Created),
                Do::Nothing(49),
                Do::Hint(51, "c", Modified),
                Do::Leaves(51, &["a", "b", "c"]),
            ],
        ),
        (
            "a look far ahead opens the window at its own time",
            &[
                Do::Look(0, "a", 60_000),
                Do::Hint(10_000, "b", Closed),
                Do::Leaves(15_000, &["b"]),
                Do::Leaves(65_000, &["a"]),
            ],
        ),
        (
            "a rescan waits too",
            &[Do::Overflow(0), Do::Nothing(4_999), Do::Rescan(5_000)],
        ),
    ];
    for (title, script) in table {
        run(title, options.clone(), script);
    }
}

#[test]
fn directories_themselves() {
    let now = Instant::now();
    let mut pending = Pending::new(PendingOptions::default());
    for number in [3, 2, 3] {
        pending.handle_event(
            now,
            &WatchEvent::Itself {
                directory: ObjectId(number),
            },
        );
        pending.handle_event(
            now,
            &WatchEvent::Gone {
                directory: ObjectId(number + 10),
            },
        );
    }
    assert_eq!(
        (pending.len(), pending.oldest(), pending.poll_deadline()),
        (4, Some(now), Some(now))
    );
    let ready = pending.poll_ready(now);
    let marked = |numbers: &[u64]| numbers.iter().copied().map(ObjectId).collect::<Vec<_>>();
    assert_eq!(ready.attributes, marked(&[3, 2]));
    assert_eq!(ready.gone, marked(&[13, 12]));
    assert!(pending.is_empty() && pending.oldest().is_none());
}

#[test]
fn what_is_expedited_leaves_at_once_and_what_comes_later_waits_again() {
    let start = Instant::now();
    let mut pending = Pending::new(PendingOptions {
        delay: Duration::from_secs(60),
        settle: Duration::from_secs(60),
        max_delay: Duration::from_secs(60),
        ..PendingOptions::default()
    });
    pending.handle_event(start, &at("written", Modified));
    pending.handle_event(start, &at("closed", Closed));
    pending.handle_event(start, &at("gone", Vanished));
    assert!(pending.poll_ready(start).is_empty());
    pending.expedite(start);
    let left: BTreeSet<_> = pending.poll_ready(start).names.into_iter().collect();
    assert_eq!(left, names(&["written", "closed", "gone"]).into_iter().collect());
    pending.handle_event(start, &at("later", Closed));
    assert!(pending.poll_ready(start).is_empty() && pending.poll_deadline() > Some(start));
    // Nothing is hurried by a wish that came when nothing was pending.
    let mut idle = Pending::new(PendingOptions {
        delay: Duration::from_secs(60),
        ..PendingOptions::default()
    });
    idle.expedite(start);
    idle.handle_event(start, &at("later", Closed));
    assert!(idle.poll_ready(start).is_empty());
}
