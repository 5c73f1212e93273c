//! The stream of events and the metrics, seen by those who rely on them.

use crate::site::{Daemon, PATIENCE, Site, free_port, until};
use driftless::daemon::barrier::Level;
use driftless::daemon::control::{Enough, WaitOptions, Which, wait};
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::Duration;

fn metrics(port: u16) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// The value of a metric of the mirror to a target.
fn metric(port: u16, name: &str, target: &str) -> f64 {
    let text = metrics(port);
    let line = text.lines().find(|line| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{'))
            && line.contains(&format!("/{target}\"}}"))
    });
    let line = line.unwrap_or_else(|| panic!("no {name} of {target} in {text}"));
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

fn is(event: &Value, name: &str, target: &str) -> bool {
    event["event"] == name && event["target"].as_str().is_some_and(|own| own.ends_with(target))
}

/// A deploy script waits for two targets of which one is cut off; whoever watches sees why, and sees it end.
#[test]
fn a_deploy_is_watched_by_events_and_metrics() {
    let site = Site::new(&["src"]);
    let ((_one, to_one), (two, to_two)) = (site.receiver("one"), site.receiver("two"));
    let port = std::net::TcpListener::bind(("127.0.0.1", 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    site.configure(
        &(format!("[settings]\nmetrics = {port}\n") + &site.mirror("www", "src", &[&to_one, &to_two], "")),
    );
    let _daemon = Daemon::start(&site, "daemon --json");
    site.run("wait --timeout 60s", 0);
    let mut events = Daemon::listening(site.command("events"));
    let first = events.event(|event| event["event"] == "listening");
    assert_eq!(first["version"], 1);
    let mut nobody = Daemon::listening(site.command("events --mirror other"));
    nobody.event(|event| event["event"] == "listening");

    two.cut_off();
    fs::create_dir(site.path("src/release")).unwrap();
    site.write("src/release/index", "new");
    site.run("wait src/release --level durable --timeout 2s", 5);
    let batch = events.event(|event| is(event, "batch", "/one"));
    assert!(batch["at_ms"].as_u64() > Some(1_700_000_000_000), "{batch}");
    assert_eq!(
        (batch["mirror"].as_str(), batch["changes"][0]["verb"].as_str()),
        (Some("www"), Some("made")),
        "{batch}"
    );
    assert_eq!(batch["changes"][0]["path"], "release");
    until("the metrics tell that it lags", || {
        metric(port, "driftless_lag_seconds", "two") > 1.5
    });
    assert!(metric(port, "driftless_backlog_entries", "two") >= 2.0);
    assert_eq!(metric(port, "driftless_in_sync", "two"), 0.0);
    until("the other is in sync", || {
        metric(port, "driftless_in_sync", "one") == 1.0
    });
    assert_eq!(metric(port, "driftless_lag_seconds", "one"), 0.0);

    two.come_back();
    site.run("wait src/release --level durable --timeout 60s", 0);
    assert_eq!(site.read("two/release/index").as_deref(), Some("new"));
    let batch = events.event(|event| is(event, "batch", "/two"));
    assert!(batch["applied"].as_u64() >= Some(1), "{batch}");
    let in_sync = events.event(|event| is(event, "in-sync", "/two"));
    assert!(in_sync["sequence"].as_u64() > Some(0), "{in_sync}");
    until("the metrics tell that, too", || {
        metric(port, "driftless_in_sync", "two") == 1.0
    });
    assert_eq!(metric(port, "driftless_lag_seconds", "two"), 0.0);
    assert!(metric(port, "driftless_ops_total", "two") >= 2.0);

    // A target that is gone, and a checkpoint that only the other passes.
    drop(two);
    let gone = events.event(|event| is(event, "disconnected", "/two"));
    assert!(gone["reason"].is_string(), "{gone}");
    site.run("checkpoint v2", 0);
    let passed = events.event(|event| is(event, "checkpoint", "/one"));
    assert_eq!(
        (passed["name"].as_str(), passed["failed"].as_u64()),
        (Some("v2"), Some(0)),
        "{passed}"
    );
    assert_eq!(metric(port, "driftless_connected", "two"), 0.0);
    let said: Vec<String> = nobody.said_now();
    assert_eq!(said.len(), 1, "{said:?}");
}

#[test]
fn deletions_that_are_held_back_are_told() {
    let site = Site::new(&["src/many", "dst"]);
    for number in 0..30 {
        site.write(&format!("src/many/{number}"), "x");
    }
    let port = free_port();
    site.configure(
        &(format!("[settings]\nmetrics = '127.0.0.1:{port}'\n")
            + &site.mirror("www", "src", &["dst"], "max-delete = '5'")),
    );
    let _daemon = Daemon::start(&site, "daemon --json");
    site.run("wait --timeout 60s", 0);
    let mut events = Daemon::listening(site.command("events --mirror www"));
    events.event(|event| event["event"] == "listening");
    fs::remove_dir_all(site.path("src/many")).unwrap();
    let held = events.event(|event| event["event"] == "held" && event["deletions"] == 31);
    assert_eq!(held["mirror"], "www");
    assert_eq!(metric(port, "driftless_held_deletions", "dst"), 31.0);
    let (_, err) = site.run("wait --timeout 1s", 5);
    assert!(err.contains("(held: 31 of "), "{err}");
    let target = site.path("dst");
    site.run(&format!("approve {} --deletes 31", target.display()), 0);
    site.run("wait --timeout 60s", 0);
    assert!(!site.path("dst/many").exists());
}

/// Somebody who does not read holds up nobody, and learns how much he missed.
#[test]
fn a_slow_reader_misses_events_and_is_told_how_many() {
    let site = Site::new(&["src", "dst"]);
    site.configure(&site.mirror("www", "src", &["dst"], ""));
    let _daemon = Daemon::start(&site, "daemon --json");
    site.run("wait --timeout 60s", 0);
    let socket = fs::read_dir(site.path("home/run"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let mut slow = std::os::unix::net::UnixStream::connect(socket).unwrap();
    slow.write_all(b"{\"version\":1,\"command\":\"events\"}\n")
        .unwrap();
    // Some events a round, far more in all than a socket and the queue hold.
    let options = WaitOptions {
        which: Which::default(),
        level: Level::Applied,
        targets: Enough::All,
        timeout: PATIENCE,
    };
    for round in 0..1_200 {
        site.write(&format!("src/{}-{round}", "long".repeat(50)), "x");
        assert!(wait(&site.home(), &options).unwrap().is_enough);
    }
    slow.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let (mut text, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
    let lost = loop {
        let length = slow.read(&mut buffer).unwrap();
        assert!(length > 0);
        text.extend_from_slice(&buffer[..length]);
        let whole = text
            .iter()
            .rposition(|&byte| byte == b'\n')
            .map_or(0, |at| at + 1);
        let lines = String::from_utf8(text[..whole].to_vec()).unwrap();
        let events = lines
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        if let Some(lost) = events.into_iter().find(|event| event["event"] == "lost") {
            break lost;
        }
    };
    assert!(lost["events"].as_u64() > Some(0), "{lost}");
}

#[test]
fn a_port_that_is_taken_is_one_line_and_the_rest_goes_on() {
    let site = Site::new(&["src", "dst"]);
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = taken.local_addr().unwrap();
    site.write("src/file", "1");
    site.configure(&site.mirror("www", "src", &["dst"], ""));
    let mut command = site.command(&format!("daemon --metrics {address}"));
    command.stderr(Stdio::piped());
    let mut daemon = Daemon::listening(command);
    daemon.wait(|line| {
        line.starts_with(&format!(
            "driftless: no metrics are served at {address}: Address already in use"
        ))
    });
    daemon.hear(|line| line.starts_with("running 1 mirror"));
    site.run("wait --timeout 60s", 0);
    assert_eq!(site.read("dst/file").as_deref(), Some("1"));
    site.configure("[settings]\nmetrics = 'everywhere'\n");
    let (_, err) = site.run("config check", 2);
    assert!(
        err.contains("driftless.toml:2: metrics: \"everywhere\" is not an address"),
        "{err}"
    );
    let (_, err) = site.run("events --mirror x --json", 2);
    assert!(err.contains("--json"), "{err}");
}

/// What a look finds gone in a tree that was in sync until then is held back, and stays so.
#[test]
fn what_a_rescan_finds_gone_can_be_approved() {
    let site = Site::new(&["src/many", "dst"]);
    for number in 0..30 {
        site.write(&format!("src/many/{number}"), "x");
    }
    // Nothing tells of it but the look.
    site.configure(&site.mirror("www", "src", &["dst"], "max-delete = '5'\nwatch = 'poll'"));
    let _daemon = Daemon::start(&site, "daemon --json");
    site.run("wait --timeout 60s", 0);
    fs::remove_dir_all(site.path("src/many")).unwrap();
    site.run(&format!("rescan {}", site.path("src").display()), 0);
    until("deletions are held back", || {
        site.sender("www", "dst")["last_error"]["text"]
            .as_str()
            .is_some_and(|text| text.starts_with("31 of "))
    });
    site.run("wait --timeout 1s", 5);
    assert_eq!(site.sender("www", "dst")["held"], 31);
    // Another connection, the same question.
    site.run("pause www", 0);
    until("it is paused", || site.sender("www", "dst")["phase"] == "paused");
    site.run("resume www", 0);
    until("they are held back still", || {
        site.sender("www", "dst")["held"] == 31
    });
    site.run(&format!("approve {} --deletes 31", site.path("dst").display()), 0);
    site.run("wait --timeout 60s", 0);
    assert!(!site.path("dst/many").exists());
}
