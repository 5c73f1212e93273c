//! Senders that end by themselves when nothing changes any more.

use crate::site::{Daemon, PATIENCE, Site, contents, until};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

/// Long enough for a busy machine to write several files in a row.
const QUIET: &str = "3s";

fn program(site: &Site, name: &str, script: &str) -> String {
    site.write(name, format!("#!/bin/sh\n{script}\n"));
    fs::set_permissions(site.path(name), fs::Permissions::from_mode(0o755)).unwrap();
    site.path(name).display().to_string()
}

/// Waits until a process has ended by itself; gives its status.
fn ended(mut sender: Daemon) -> (Option<i32>, Vec<String>) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let said = sender.said_now();
        if let Some(status) = sender.status() {
            return (status, sender.said_now());
        }
        assert!(Instant::now() < deadline, "it did not end: {said:#?}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

#[test]
fn it_ends_when_every_target_has_everything() {
    let site = Site::new(&["src/d"]);
    let (_one, first) = site.receiver("one");
    let (two, second) = site.receiver("two");
    site.write("src/d/a", "1");
    // It takes its time, and is waited for.
    let noted = site.path("noted");
    let hook = program(
        &site,
        "hook",
        &format!(
            "sleep 1; printf '%s %s\\n' \"$DRIFTLESS_HOOK\" \"$DRIFTLESS_SEQUENCE\" >> '{}'",
            noted.display()
        ),
    );
    let line = format!("send src {first} {second} --exit-when-quiet {QUIET} --hook in-sync={hook} --json");
    let mut sender = Daemon::listening(site.command(&line));
    until("both have it", || {
        ["one/d/a", "two/d/a"]
            .iter()
            .all(|path| site.read(path).as_deref() == Some("1"))
    });
    // One that is busy keeps the other from ending, for as long as it takes.
    two.cut_off();
    site.write("src/d/b", "2");
    until("one has it", || site.read("one/d/b").is_some());
    let long = Instant::now() + Duration::from_secs(8);
    while Instant::now() < long {
        std::thread::park_timeout(Duration::from_millis(100));
        assert_eq!(sender.status(), None, "{:#?}", sender.said_now());
    }
    // And what changes meanwhile is not missed.
    site.write("src/d/c", "3");
    two.come_back();
    let (status, said) = ended(sender);
    assert_eq!(status, Some(0), "{said:#?}");
    for target in ["one", "two"] {
        assert_eq!(
            contents(&site.path("src")),
            contents(&site.path(target)),
            "{said:#?}"
        );
    }
    let summaries = said
        .iter()
        .filter(|line| line.contains("\"event\":\"summary\""))
        .count();
    assert_eq!(summaries, 2, "{said:#?}");
    let noted = site.read("noted").unwrap_or_default();
    assert!(
        noted.lines().count() >= 2 && noted.lines().all(|line| line.starts_with("in-sync ")),
        "{noted:?}"
    );
}

#[test]
fn a_mirror_to_a_directory_ends_too() {
    let site = Site::new(&["src", "dst"]);
    site.write("src/a", "1");
    let sender = Daemon::listening(site.command(&format!("mirror src dst --exit-when-quiet {QUIET}")));
    until("it is there", || site.read("dst/a").is_some());
    site.write("src/b", "2");
    let (status, said) = ended(sender);
    assert_eq!(status, Some(0), "{said:#?}");
    assert_eq!(contents(&site.path("src")), contents(&site.path("dst")));
}

#[test]
fn it_is_for_runs_that_follow() {
    let site = Site::new(&["src", "dst"]);
    for line in [
        "mirror src dst --once --exit-when-quiet 1s",
        "mirror src dst -n --exit-when-quiet 1s",
        "mirror src dst --once --hook in-sync=/bin/true",
        "mirror src dst --exit-when-quiet 0s",
        "mirror src dst --hook in-sync=true",
        "mirror src dst --hook sometimes=/bin/true",
    ] {
        site.run(line, 2);
    }
    site.configure(&site.mirror("m", "src", &["dst"], "exit-when-quiet = '30s'"));
    let (_, err) = site.run("config check", 2);
    assert!(err.contains("has no meaning for a daemon"), "{err}");
}
