//! What is served, and to whom.

use super::guard::is_own;
use super::history::{EVENTS_MAX, Past, SAMPLES_MAX, TARGETS_MAX};
use super::{PAGE, SCRIPT, STYLE, WebServer};
use crate::daemon::control::Controlled;
use crate::daemon::events::{AppliedChange, Event, What};
use crate::daemon::home::Home;
use crate::daemon::status::{DaemonStatus, StatusBoard, TargetLabel};
use crate::daemon::{Observer, Phase, SendCounters};
use serde_json::Value;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

fn get(address: SocketAddr, path: &str, host: &str) -> String {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
}

fn status(reply: &str) -> &str {
    reply.split(' ').nth(1).unwrap_or_default()
}

fn json(reply: &str) -> Value {
    serde_json::from_str(reply.split_once("\r\n\r\n").unwrap().1).unwrap()
}

fn board(target: &str) -> Arc<StatusBoard> {
    let (mirror, home) = (Some("www".to_owned()), Home::at("/h"));
    StatusBoard::named(
        mirror,
        "fp".to_owned(),
        &home,
        "/srv".to_owned(),
        target.to_owned(),
    )
}

fn statuses(boards: &[Arc<StatusBoard>]) -> Vec<DaemonStatus> {
    boards.to_vec().status()
}

#[test]
fn only_own_names_are_answered_and_every_answer_is_fenced_in() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let boards = vec![board("nas::m")];
    let any = "127.0.0.1:0".parse().unwrap();
    let server = WebServer::start(any, Arc::new(boards.clone()), runtime.handle()).unwrap();
    let address = server.address();
    let own = address.to_string();
    for (path, kind, body) in [
        ("/", "text/html; charset=utf-8", PAGE),
        ("/style.css", "text/css; charset=utf-8", STYLE),
        ("/page.js", "text/javascript; charset=utf-8", SCRIPT),
    ] {
        let reply = get(address, path, &own);
        assert_eq!(status(&reply), "200", "{reply}");
        let (head, sent) = reply.split_once("\r\n\r\n").unwrap();
        assert_eq!(sent, body);
        assert!(head.contains(&format!("content-type: {kind}\r\n")), "{head}");
    }
    boards[0].phase(&Phase::InSync { sequence: 7 });
    let told = json(&get(address, "/status.json?x", "LocalHost"));
    assert_eq!(
        (&told["version"], &told["daemons"][0]["phase"]),
        (&1.into(), &"in-sync".into())
    );
    // The first sample is taken by a thread.
    let sampled = || json(&get(address, "/history.json", &own))["targets"][0]["samples"][0]["at"].as_u64();
    while sampled().is_none() {
        std::thread::yield_now();
    }
    for (request, wanted) in [
        (get(address, "/nothing", &own), "404"),
        (get(address, "/../Cargo.toml", &own), "404"),
        (get(address, "/", "evil.example"), "421"),
        (get(address, "/status.json", "localhost.evil.example"), "421"),
        (ask(address, "GET /status.json HTTP/1.0\r\n\r\n"), "421"),
        (
            ask(
                address,
                "GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
            ),
            "421",
        ),
        (
            ask(
                address,
                &format!("POST /status.json HTTP/1.1\r\nHost: {own}\r\nContent-Length: 0\r\n\r\n"),
            ),
            "405",
        ),
        (
            ask(address, &format!("DELETE / HTTP/1.1\r\nHost: {own}\r\n\r\n")),
            "405",
        ),
    ] {
        assert_eq!(status(&request), wanted, "{request}");
        assert!(
            request.contains("content-security-policy: default-src 'none'; script-src 'self'; "),
            "{request}"
        );
        for header in [
            "x-content-type-options: nosniff",
            "cache-control: no-store",
            "referrer-policy: no-referrer",
        ] {
            assert!(request.contains(header), "{request}");
        }
        assert!(!request.contains("access-control-allow"), "{request}");
    }
    let reply = ask(
        address,
        &format!("HEAD /status.json HTTP/1.1\r\nHost: {own}\r\n\r\n"),
    );
    assert!(status(&reply) == "200" && reply.ends_with("\r\n\r\n"), "{reply}");
    // Those who say nothing hold up nobody.
    let silent: Vec<_> = (0..8).map(|_| TcpStream::connect(address).unwrap()).collect();
    assert_eq!(status(&get(address, "/", &own)), "200");
    drop(silent);
    let taken = WebServer::start(address, Arc::new(boards), runtime.handle()).unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::AddrInUse);
}

#[test]
fn a_host_is_an_address_or_localhost() {
    for host in [
        "localhost",
        "localhost:80",
        "127.0.0.1",
        "127.0.0.1:9000",
        "[::1]",
        "[::1]:1",
        "192.168.1.9:80",
    ] {
        assert!(is_own(host), "{host}");
    }
    for host in [
        "",
        ":80",
        "evil.example",
        "localhost.evil.example",
        "localhost:x",
        "localhost:",
        "127.0.0.1.evil.example",
        "::1",
        "[::1].evil",
        "[evil]",
        "[127.0.0.1]",
        "127.1",
        "0x7f.1",
        "a@localhost",
    ] {
        assert!(!is_own(host), "{host}");
    }
}

/// No tag, attribute or call of ours needs more than the policy allows, and nothing is fetched from elsewhere.
#[test]
fn the_page_keeps_its_own_policy() {
    for text in [PAGE, STYLE, SCRIPT] {
        for never in [
            "http://",
            "https://",
            "//cdn",
            "style=",
            "onclick",
            "onload",
            "javascript:",
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "@import",
            "url(",
        ] {
            // The name of a namespace is no address.
            let text = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!text.contains(never), "{never}");
        }
    }
    assert!(!PAGE.contains("<style") && PAGE.matches("<script").count() == 1);
    assert_eq!(
        PAGE.matches("<th ").count(),
        PAGE.matches("scope=\"col\"").count()
    );
    for wanted in [
        "<html lang=\"en\">",
        "<header>",
        "<main>",
        "<footer>",
        "name=\"viewport\"",
    ] {
        assert!(PAGE.contains(wanted), "{wanted}");
    }
    assert!(STYLE.contains("prefers-color-scheme: dark"));
}

#[test]
fn the_past_is_bounded() {
    let mut past = Past::default();
    let boards: Vec<_> = (0..TARGETS_MAX + 9)
        .map(|number| board(&format!("nas::{number}")))
        .collect();
    for at in 0..SAMPLES_MAX as u64 + 5 {
        boards[0].counters(&SendCounters {
            content_bytes: at * 100,
            ops_done: at,
            ..SendCounters::default()
        });
        past.sample(&statuses(&boards), at);
    }
    let targets = past.targets();
    assert_eq!(targets.len(), TARGETS_MAX);
    let samples = &targets[0].samples;
    assert_eq!(
        (samples.len(), samples[0].at, samples[0].bytes),
        (SAMPLES_MAX, 5, 500)
    );
    past.sample(&statuses(&boards[..1]), 1_000);
    assert_eq!(past.targets().len(), 1, "what is not there any more is forgotten");

    let of = TargetLabel {
        mirror: None,
        source: "/s".to_owned(),
        target: "t".to_owned(),
    };
    let change = |path: usize| AppliedChange {
        verb: "put".to_owned(),
        path: path.to_string(),
        bytes: None,
    };
    for number in 0..EVENTS_MAX + 7 {
        let changes = (0..100).map(change).collect();
        past.note(Event::now(
            Some(of.clone()),
            What::Batch {
                applied: number as u64,
                changes,
            },
        ));
        past.note(Event::now(Some(of.clone()), What::InSync { sequence: 1 }));
    }
    past.note(Event::now(Some(of), What::Warning { text: "w".to_owned() }));
    let recent = past.recent();
    assert_eq!((recent.changes.len(), recent.incidents.len()), (EVENTS_MAX, 1));
    match &recent.changes[0].what {
        What::Batch { applied: 7, changes } => assert_eq!(changes.len(), 10),
        other => panic!("{other:?}"),
    }
}
