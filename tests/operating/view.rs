//! `driftless status --watch`, by somebody who sits in front of it.

use crate::pty::Pty;
use crate::site::{Daemon, Site, until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs;
use std::sync::Mutex;

/// A daemon with one mirror that holds back more than five deletions.
fn mirrored() -> (Site, Daemon) {
    let site = Site::new(&["src/many", "dst"]);
    for number in 0..30 {
        site.write(&format!("src/many/{number}"), "x");
    }
    site.configure(&site.mirror("www", "src", &["dst"], "max-delete = '5'"));
    let daemon = Daemon::start(&site, "daemon --json");
    site.run("wait --timeout 60s", 0);
    (site, daemon)
}

#[test]
fn a_mirror_is_paused_resumed_scanned_and_approved_by_keys() {
    let (site, _daemon) = mirrored();
    let mut pty = Pty::open(110, 30);
    let before = pty.modes();
    let child = pty.spawn(&site.command("status --watch"));
    pty.until("it is seen", |seen| {
        seen.contains("1 of 1 target in sync") && seen.contains("> www")
    });
    assert!(pty.screen().alternate_screen() && pty.screen().hide_cursor());
    assert_ne!(pty.modes(), before);

    pty.write("p");
    pty.until("it is paused", |seen| {
        seen.contains("the mirror www is paused: its tree is watched") && seen.contains("0 of 1 target")
    });
    pty.write("r");
    pty.until("it goes on", |seen| {
        seen.contains("the mirror www goes on") && seen.contains("1 of 1 target in sync")
    });
    let evil = "new\x1b[2J\x07";
    site.write(&format!("src/{evil}"), "1");
    pty.until("the change is told, and does nothing to the terminal", |seen| {
        seen.contains("put new\\x1b[2J\\x07 (1 B)") && seen.contains("1 of 1 target in sync")
    });
    assert_eq!(site.read(&format!("dst/{evil}")).as_deref(), Some("1"));
    pty.write("s");
    pty.until("it looks again", |seen| {
        seen.contains("looking at everything again")
    });

    // At once: what is removed one after the other may go in part before it is too much.
    fs::rename(site.path("src/many"), site.path("gone")).unwrap();
    pty.until("it holds the deletions back", |seen| {
        let is_held = |line: &str| line.starts_with("> www") && line.contains(" held ");
        seen.lines().any(is_held) && seen.contains("held back: 31 deletions")
    });
    pty.write("a");
    pty.until("it asks", |seen| seen.contains("Delete 31 entries on "));
    pty.write("n");
    pty.until("it was refused", |seen| seen.contains("nothing was approved"));
    assert!(site.path("dst/many/3").exists());
    pty.write("ay");
    pty.until("it is done", |seen| {
        seen.contains("approved: 31 deletions") && seen.contains("1 of 1 target in sync")
    });
    assert!(!site.path("dst/many").exists());

    pty.resize(50, 12);
    pty.until("it fits", |seen| {
        seen.lines()
            .any(|line| line.starts_with("> www > ") && line.contains("in sync"))
            && seen.lines().all(|line| line.chars().count() <= 50)
    });
    pty.write("q");
    assert_eq!(pty.end(child).code(), Some(0));
    assert!(!pty.screen().alternate_screen() && !pty.screen().hide_cursor());
    assert_eq!(pty.modes(), before);
}

/// Whatever ends it: the terminal is as it was.
#[test]
fn ctrl_c_and_signals_give_the_terminal_back() {
    let site = Site::new(&["src"]);
    for (how, status) in [
        (None, 0),
        (Some(Signal::TERM), 143),
        (Some(Signal::INT), 130),
        (Some(Signal::HUP), 129),
    ] {
        let mut pty = Pty::open(80, 24);
        let before = pty.modes();
        let child = pty.spawn(&site.command("status --watch"));
        pty.until("it is seen", |seen| {
            seen.contains("no driftless daemon of this home is running")
        });
        match how {
            None => pty.write("\x03"),
            Some(signal) => kill_process(Pid::from_child(&child), signal).unwrap(),
        }
        assert_eq!(pty.end(child).code(), Some(status), "{how:?}");
        assert!(!pty.screen().alternate_screen() && !pty.screen().hide_cursor());
        assert_eq!(pty.modes(), before, "{how:?}");
        assert!(pty.seen().ends_with("\x1b[?25h"), "{:?}", pty.seen());
    }
}

/// Nobody sends a signal to who is not at home in a session; and nobody is there to give the terminal back to.
#[test]
fn it_ends_with_a_terminal_that_hangs_up() {
    let site = Site::new(&["src"]);
    let mut pty = Pty::open(80, 24);
    let child = Mutex::new(pty.spawn_beside(site.command("status --watch")));
    pty.until("it is seen", |seen| {
        seen.contains("no driftless daemon of this home is running")
    });
    drop(pty);
    let ended = || child.lock().unwrap().try_wait().unwrap();
    until("it ends", || ended().is_some());
    assert_eq!(ended().unwrap().code(), Some(129));
}

/// A daemon that starts later is found, and so is what happens in it.
#[test]
fn without_a_terminal_there_are_lines() {
    let site = Site::new(&["src", "dst"]);
    site.configure(&site.mirror("www", "src", &["dst"], ""));
    let mut lines = Daemon::listening(site.command("status --watch"));
    lines.wait(|line| line.starts_with("driftless: no driftless daemon of this home is running"));
    let mut objects = Daemon::listening(site.command("status --watch --json"));
    objects.event(|status| status["daemons"] == Value::Array(Vec::new()));
    let daemon = Daemon::start(&site, "daemon --json");
    let line = lines.wait(|line| line.contains(": in sync"));
    assert!(
        line.contains(" www to ") && !line.contains('\x1b') && line.as_bytes()[2] == b':',
        "{line}"
    );
    let status = objects.event(|status| status["daemons"][0]["phase"] == "in-sync");
    assert_eq!(
        (&status["version"], &status["daemons"][0]["mirror"]),
        (&1.into(), &"www".into())
    );
    site.run("pause www", 0);
    lines.wait(|line| line.contains(": paused"));
    objects.event(|status| status["daemons"][0]["phase"] == "paused");
    // Nothing changes, nothing is said: but for what waits to be told, all lines differ.
    let said = objects.said_now();
    assert!(said.windows(2).all(|pair| pair[0] != pair[1]), "{said:#?}");
    daemon.stop();
    lines.wait(|line| line.contains(": gone"));
    // Somebody who has read enough.
    let mut child = site.command("status --watch").spawn().unwrap();
    drop((child.stdout.take(), child.stderr.take()));
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
