//! Pictures of made-up daemons, and what keys mean.

// Shared with the tests of the whole program, which need more of it.
#[allow(dead_code)]
#[path = "../../../tests/support/pty.rs"]
pub(super) mod pty;

use super::draw::draw;
use super::feed::{Action, Update};
use super::lines::Teller;
use super::row::{Subject, Tone};
use super::screen::{Screen, Wish};
use crate::daemon::control::Answers;
use crate::daemon::events::Event;
use crate::daemon::status::DaemonStatus;
use jiff::tz::TimeZone;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// 2026-03-04 05:06:07 UTC.
const NOW: u64 = 1_772_600_767;

fn sender(mirror: &str, target: &str, more: Value) -> Value {
    let mut value = json!({
        "role": "sender", "pid": 100, "identity": "fp", "home": "/h", "since": NOW - 3_700, "mirror": mirror,
        "source": format!("/srv/{mirror}"), "target": target, "phase": "in-sync", "phase_since": NOW - 90, "reason": null,
        "connected": true, "in_sync_at": {"sequence": 42, "at": NOW - 90},
        "behind": {"ops": 0, "oldest_ms": null}, "counters": {"entries": 1_234, "ops_done": 10, "content_bytes": 5_000_000},
        "failed": [], "last_error": null, "watcher": {"name": "fanotify", "degradations": []},
    });
    for (key, field) in more.as_object().unwrap() {
        value[key] = field.clone();
    }
    value
}

fn receiver(sessions: Value) -> Value {
    json!({"role": "receiver", "pid": 200, "identity": "fp", "home": "/h", "since": NOW - 60, "address": "[::]:4433",
        "modules": [{"name": "photos", "path": "/srv/photos", "sessions": sessions}, {"name": "idle", "path": "/i", "sessions": []}]})
}

/// One that is fine, one that sends, one that holds deletions back, one whose target is away, and modules.
fn daemons() -> Vec<Value> {
    let sending = json!({
        "phase": "sending", "counters": {"entries": 1_234, "ops_done": 10, "content_bytes": 5_000_000, "failed": 2},
        "behind": {"ops": 7, "oldest_ms": 3_210, "entries": 12, "bytes": 34_000_000, "in_flight": 7, "sending": ["big.iso"]},
        "failed": [{"path": "secret", "error": "permission denied"}, {"path": "a/b", "error": "no space on the target"}],
    });
    let held = json!({"phase": "held", "held": 31, "reason": "31 of 40 entries would be deleted: approve that, or bring them back",
        "behind": {"ops": 0, "oldest_ms": 61_000, "entries": 31}});
    let away = json!({"phase": "waiting", "connected": false, "reason": "backup.example does not answer",
        "behind": {"ops": 0, "oldest_ms": 7_500_000, "entries": 1_500, "bytes": 9_000_000_000_u64}});
    let session = json!([{"path": ".", "peer": "fp2", "source": "/home/photos", "since": NOW - 30, "applied": 100, "failed": 0,
        "wanted": 3, "bytes": 1_000_000, "applied_to": 1, "durable_to": 1, "sequence": 7, "last_error": null}]);
    vec![
        receiver(session),
        sender("www", "web1.example::www", json!({})),
        sender("www", "web2.example::www", sending),
        sender("mail", "spare::mail", held),
        sender("mail", "backup.example::mail", away),
    ]
}

fn answers(daemons: &[Value]) -> Answers {
    let parse = |value: &Value| serde_json::from_value::<DaemonStatus>(value.clone()).unwrap();
    Answers {
        processes: usize::from(!daemons.is_empty()),
        daemons: daemons.iter().map(parse).collect(),
        problems: Vec::new(),
    }
}

fn event(at: u64, mirror: &str, target: &str, what: Value) -> Event {
    let mut value =
        json!({"version": 1, "at_ms": at * 1_000, "mirror": mirror, "source": "/s", "target": target});
    for (key, field) in what.as_object().unwrap() {
        value[key] = field.clone();
    }
    serde_json::from_value(value).unwrap()
}

/// A screen that has seen all of that twice, two seconds apart.
fn screen() -> Screen {
    let mut screen = Screen::new(TimeZone::UTC, NOW);
    let mut daemons = daemons();
    let began = Instant::now();
    screen.apply(Update::Status(answers(&daemons), began), NOW);
    daemons[2]["counters"]["content_bytes"] = json!(21_000_000);
    daemons[2]["counters"]["ops_done"] = json!(11);
    daemons[0]["modules"][0]["sessions"][0]["applied"] = json!(160);
    screen.apply(
        Update::Status(answers(&daemons), began + Duration::from_secs(2)),
        NOW,
    );
    let put = json!({"event": "batch", "applied": 3, "changes": [{"verb": "put", "path": "index.html", "bytes": 1_200},
        {"verb": "removed", "path": "old"}]});
    screen.hear(&event(NOW - 3, "www", "web1.example::www", put));
    let gone = json!({"event": "disconnected", "reason": "no answer for 30 s"});
    screen.hear(&event(NOW - 2, "mail", "backup.example::mail", gone));
    for (module, peer) in [("photos", "fp3"), ("local-1234", "fp4")] {
        let came = json!({"version": 1, "at_ms": (NOW - 2) * 1_000, "event": "sender-connected", "module": module, "peer": peer});
        screen.hear(&serde_json::from_value(came).unwrap());
    }
    screen.hear(&event(
        NOW - 1,
        "www",
        "web1.example::www",
        json!({"event": "in-sync", "sequence": 43}),
    ));
    screen
}

fn picture(screen: &Screen, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal
        .draw(|frame| draw(screen, frame.area(), frame.buffer_mut()))
        .unwrap();
    let buffer = terminal.backend().buffer();
    let mut text = String::new();
    for y in 0..height {
        let line: String = (0..width).map(|x| buffer[(x, y)].symbol()).collect();
        text += line.trim_end();
        text.push('\n');
    }
    text
}

#[track_caller]
fn assert_is(picture: &str, golden: &str, name: &str) {
    assert!(
        picture == golden,
        "not as in src/cli/view/tests/{name}:\n{picture}"
    );
}

fn press(screen: &mut Screen, code: KeyCode) -> Option<Wish> {
    screen.press(KeyEvent::new(code, KeyModifiers::NONE))
}

fn letters(screen: &mut Screen, keys: &str) -> Option<Wish> {
    keys.chars()
        .map(|key| press(screen, KeyCode::Char(key)))
        .last()
        .flatten()
}

#[test]
fn a_terminal_of_usual_size_shows_all_of_it() {
    let mut screen = screen();
    press(&mut screen, KeyCode::End);
    letters(&mut screen, "kk");
    let golden = include_str!("tests/80x24.txt");
    assert_is(&picture(&screen, 80, 24), golden, "80x24.txt");
    let documented = include_str!("../../../docs/views.md");
    assert!(documented.contains(golden), "docs/views.md shows another picture");
}

#[test]
fn a_wide_terminal_has_room_for_more_columns() {
    assert_is(
        &picture(&screen(), 132, 30),
        include_str!("tests/132x30.txt"),
        "132x30.txt",
    );
}

#[test]
fn a_narrow_terminal_shows_what_matters_most() {
    assert_is(
        &picture(&screen(), 44, 14),
        include_str!("tests/44x14.txt"),
        "44x14.txt",
    );
}

/// No size panics, and the selected row is always to be seen.
#[test]
fn any_size_can_be_drawn() {
    let mut screen = screen();
    for steps in [0, 5] {
        for width in 0..=100 {
            for height in 0..=40 {
                let seen = picture(&screen, width, height);
                if width >= 20 && height >= 4 {
                    assert_eq!(
                        seen.lines().filter(|line| line.starts_with('>')).count(),
                        1,
                        "{width}x{height}:\n{seen}"
                    );
                }
            }
        }
        (0..steps).for_each(|_| drop(press(&mut screen, KeyCode::Down)));
        press(&mut screen, KeyCode::PageDown);
    }
    let empty = Screen::new(TimeZone::UTC, NOW);
    assert!(picture(&empty, 80, 24).contains("asking"));
    let mut nobody = Screen::new(TimeZone::UTC, NOW);
    nobody.apply(Update::Status(Answers::default(), Instant::now()), NOW);
    assert!(picture(&nobody, 80, 24).contains("no driftless daemon of this home is running"));
}

/// Names are a peer's to choose; wide characters take two columns.
#[test]
fn nothing_that_a_terminal_obeys_gets_through() {
    let evil = "a\x1b[2J\u{7}\u{202e}\u{9b}31mb";
    let mut screen = Screen::new(TimeZone::UTC, NOW);
    let bad = sender(
        evil,
        evil,
        json!({"reason": evil, "phase": evil, "failed": [{"path": evil, "error": evil}],
        "last_error": {"text": evil, "at": NOW}, "watcher": {"name": evil, "degradations": [evil]}}),
    );
    let session = json!([{"path": evil, "peer": evil, "source": evil, "since": NOW, "applied": 0, "failed": 0, "wanted": 0,
        "bytes": 0, "applied_to": 0, "durable_to": 0, "sequence": null, "last_error": {"text": evil, "at": NOW}}]);
    let mut told = answers(&[bad, receiver(session), sender("写真", "網::写真写真", json!({}))]);
    told.problems.push(evil.to_owned());
    screen.apply(Update::Status(told, Instant::now()), NOW);
    let changes = json!({"event": "batch", "applied": 1, "changes": [{"verb": evil, "path": evil}]});
    screen.hear(&event(NOW, evil, evil, changes));
    screen.hear(&event(NOW, evil, evil, json!({"event": "warning", "text": evil})));
    for step in ["", "j", "j", "p", "a"] {
        letters(&mut screen, step);
        screen.apply(Update::Outcome(Err(evil.to_owned())), NOW);
        for size in [(80, 40), (40, 20), (200, 60)] {
            let seen = picture(&screen, size.0, size.1);
            let is_harmful = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}');
            assert!(!seen.contains(is_harmful), "{seen:?}");
            assert!(seen.contains("a\\x1b[2J"), "{seen}");
        }
    }
}

#[test]
fn keys_speak_of_the_selected_target() {
    let mut screen = screen();
    let www = Subject {
        mirror: Some("www".to_owned()),
        source: "/srv/www".to_owned(),
        target: "web1.example::www".to_owned(),
    };
    letters(&mut screen, "jj");
    let act = |action: fn(Subject) -> Action| Some(Wish::Act(action(www.clone())));
    assert_eq!(letters(&mut screen, "p"), act(Action::Pause));
    assert_eq!(letters(&mut screen, "r"), act(Action::Resume));
    assert_eq!(letters(&mut screen, "s"), act(Action::Rescan));
    assert_eq!(letters(&mut screen, "a"), None);
    assert!(
        screen
            .message
            .as_ref()
            .is_some_and(|(tone, text)| *tone == Tone::Bad && text.contains("no deletions"))
    );
    // Modules take no orders.
    press(&mut screen, KeyCode::End);
    assert_eq!(letters(&mut screen, "p"), None);
    assert!(screen.message.is_some());
    // A row that comes in above does not move the choice; one that goes does.
    press(&mut screen, KeyCode::Home);
    let before = screen.selected().unwrap().other.clone();
    let mut more = daemons();
    more.push(sender("aaa", "first::aaa", json!({})));
    screen.apply(Update::Status(answers(&more), Instant::now()), NOW);
    assert_eq!(
        (screen.selected_at(), &screen.selected().unwrap().other),
        (1, &before)
    );
    more.retain(|daemon| daemon["target"] != before.as_str());
    screen.apply(Update::Status(answers(&more), Instant::now()), NOW);
    assert_eq!(screen.selected_at(), 1);
    for (key, modifiers) in [
        ('q', KeyModifiers::NONE),
        ('c', KeyModifiers::CONTROL),
        ('d', KeyModifiers::CONTROL),
    ] {
        assert_eq!(
            screen.press(KeyEvent::new(KeyCode::Char(key), modifiers)),
            Some(Wish::Quit)
        );
    }
}

/// What is approved is the number that was shown, and only `y` approves it.
#[test]
fn an_approval_is_asked_for() {
    let mut screen = screen();
    letters(&mut screen, "j");
    assert_eq!(letters(&mut screen, "a"), None);
    assert!(picture(&screen, 80, 24).contains("Delete 31 entries on spare::mail? y/n"));
    assert_eq!(letters(&mut screen, "q"), None, "any other key only means no");
    assert!(picture(&screen, 80, 24).contains("nothing was approved"));
    match letters(&mut screen, "ay") {
        Some(Wish::Act(Action::Approve(subject, 31))) => assert_eq!(subject.target, "spare::mail"),
        other => panic!("{other:?}"),
    }
    // The target is gone before the answer: then the answer is to nothing.
    letters(&mut screen, "a");
    let left = answers(&daemons()[1..3]);
    screen.apply(Update::Status(left, Instant::now()), NOW);
    assert_eq!(letters(&mut screen, "y"), None);
}

#[test]
fn lines_are_told_when_a_state_changes() {
    let mut teller = Teller::new(TimeZone::UTC);
    let mut told = daemons();
    let began = Instant::now();
    let first = teller.lines(&answers(&told), began, NOW);
    assert_eq!(first.len(), 6, "{first:#?}");
    assert!(first.contains(&"05:06:07 www to web1.example::www: in sync".to_owned()));
    assert!(
        first.contains(
            &"05:06:07 mail to backup.example::mail: waiting: backup.example does not answer; behind by 2 h 5 min; \
              to go: 1,500, 9.0 GB"
                .to_owned()
        ),
        "{first:#?}"
    );
    told[2]["behind"]["oldest_ms"] = json!(4_000);
    let later = began + Duration::from_secs(1);
    assert_eq!(
        teller.lines(&answers(&told), later, NOW + 1),
        Vec::<String>::new()
    );
    told[2]["phase"] = json!("halted");
    assert_eq!(
        teller.lines(&answers(&told), later, NOW + 2),
        [
            "05:06:09 www to web2.example::www: halted, 2 entries in error; behind by 4.00 s; to go: 12, 34.0 MB"
        ]
    );
    // What lags is told again after a while, what does not is not.
    let again = teller.lines(&answers(&told), later, NOW + 31);
    assert!(
        again.iter().any(|line| line.contains("mail to backup")) && again.len() == 2,
        "{again:#?}"
    );
    told.pop();
    assert_eq!(
        teller.lines(&answers(&told), later, NOW + 31),
        ["05:06:38 mail to backup.example::mail: gone"]
    );
}
