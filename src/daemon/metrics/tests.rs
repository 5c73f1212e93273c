use super::*;
use crate::daemon::home::Home;
use crate::daemon::status::{ModuleStatus, SessionStatus, StatusBoard};
use crate::daemon::upkeep::{DriftReport, ScrubReport};
use crate::daemon::{Backlog, Observer, Phase, SendCounters};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

fn sender(source: &str, target: &str) -> Arc<StatusBoard> {
    let home = Home::at("/h");
    StatusBoard::named(
        Some("w\"w\\w".to_owned()),
        "fp".to_owned(),
        &home,
        source.to_owned(),
        target.to_owned(),
    )
}

/// Two senders and a receiver with connections: every metric there is.
fn everything() -> Vec<DaemonStatus> {
    let (one, two) = (sender("/src", "nas::m"), sender("/src", "other::m"));
    one.phase(&Phase::InSync { sequence: 3 });
    one.set_watcher("inotify", &["late".to_owned()]);
    one.counters(&SendCounters {
        ops_done: 12,
        wire_bytes_sent: 1 << 40,
        ..SendCounters::default()
    });
    two.phase(&Phase::Held {
        deletions: 7,
        text: "many".to_owned(),
    });
    two.backlog(&Backlog {
        oldest: std::time::Instant::now().checked_sub(std::time::Duration::from_millis(2_500)),
        entries: 4,
        bytes: 9,
        in_flight: 1,
        sending: Vec::new(),
    });
    let session = SessionStatus::default();
    session.count_applied();
    let sessions = vec![session.report(".".to_owned(), "peer".to_owned(), "/src".to_owned())];
    let modules = vec![ModuleStatus {
        name: "m".to_owned(),
        path: "/m".to_owned(),
        promoted_since: None,
        sessions,
        keeping: crate::daemon::keeping::KeepingReport::default(),
        scrubs: vec![ScrubReport {
            finished: Some(1),
            ..ScrubReport::default()
        }],
        drift: vec![DriftReport::default()],
        publishing: Vec::new(),
    }];
    let home = Home::at("/h");
    let receiver = ReceiverStatus::new("fp".to_owned(), &home, "[::]:1".parse().unwrap(), modules);
    vec![
        DaemonStatus::Sender(Box::new(one.status())),
        DaemonStatus::Sender(Box::new(two.status())),
        DaemonStatus::Receiver(receiver),
    ]
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    let begins = bytes.next().is_some_and(|b| b.is_ascii_lowercase());
    begins && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// What `promtool check metrics` complains of, and what its parser refuses.
fn lint(text: &str) -> BTreeMap<String, &str> {
    let mut types = BTreeMap::new();
    let (mut helped, mut series) = (BTreeSet::new(), BTreeSet::new());
    let mut current = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(helped.insert(name), "{name} is explained twice");
            assert!(
                !help.is_empty() && !help.ends_with('.') && !help.contains('\\'),
                "{line}"
            );
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(helped.contains(name), "{name} has no help before its type");
            assert!(matches!(kind, "gauge" | "counter"), "{line}");
            assert!(is_name(name), "{name}");
            assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
            for unit in [
                "_ms",
                "_milliseconds",
                "_kb",
                "_mb",
                "_minutes",
                "_hours",
                "_count",
                "_sum",
                "_gauge",
                "_counter",
            ] {
                assert!(
                    !name.trim_end_matches("_total").ends_with(unit),
                    "{name} has no base unit"
                );
            }
            assert!(
                types.insert(name.to_owned(), kind).is_none(),
                "{name} has two types"
            );
            name.clone_into(&mut current);
        } else {
            let (labelled, value) = line.rsplit_once(' ').unwrap();
            let name = labelled.split('{').next().unwrap();
            assert_eq!(name, current, "samples of one metric stand together");
            assert!(series.insert(labelled), "{labelled} comes twice");
            assert!(value.parse::<f64>().unwrap().is_finite(), "{line}");
            if let Some(labels) = labelled.strip_prefix(name).filter(|labels| !labels.is_empty()) {
                assert!(labels.starts_with('{') && labels.ends_with("\"}"), "{line}");
            }
        }
    }
    assert!(text.ends_with('\n'));
    types
}

#[test]
fn a_scraper_can_read_it_and_lag_comes_first() {
    let text = render(&everything());
    let types = lint(&text);
    assert!(text.starts_with("# HELP driftless_lag_seconds "));
    for wanted in [
        "driftless_in_sync{mirror=\"w\\\"w\\\\w\",source=\"/src\",target=\"nas::m\"} 1\n",
        "driftless_in_sync{mirror=\"w\\\"w\\\\w\",source=\"/src\",target=\"other::m\"} 0\n",
        "driftless_held_deletions{mirror=\"w\\\"w\\\\w\",source=\"/src\",target=\"other::m\"} 7\n",
        "driftless_wire_sent_bytes_total{mirror=\"w\\\"w\\\\w\",source=\"/src\",target=\"nas::m\"} 1099511627776\n",
        "driftless_receiver_applied_ops_total{module=\"m\",path=\".\",peer=\"peer\"} 1\n",
        "driftless_receiver_connections{module=\"m\"} 1\n",
    ] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
    let lag = text
        .lines()
        .find(|line| line.starts_with("driftless_lag_seconds{") && line.contains("other::m"));
    let lag: f64 = lag.unwrap().rsplit_once(' ').unwrap().1.parse().unwrap();
    assert!((2.5..60.0).contains(&lag), "{lag}");
    assert_eq!(
        types.len(),
        SENDER.len() + SESSION.len() + SCRUB.len() + 6,
        "{types:?}"
    );
    lint(&render(&[]));
}

/// Whatever a dashboard or an alert asks for is there, by that name.
#[test]
fn dashboard_and_alerts_use_metrics_that_there_are() {
    let text = render(&everything());
    let types = lint(&text);
    let packaging = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging");
    let names = regex::Regex::new(r"\b(?:driftless|process)_[a-z_]+").unwrap();
    for file in ["grafana-dashboard.json", "alerts.yml"] {
        let text = std::fs::read_to_string(packaging.join(file)).unwrap();
        let used: BTreeSet<&str> = names.find_iter(&text).map(|found| found.as_str()).collect();
        assert!(
            used.contains("driftless_lag_seconds") && used.len() >= 5,
            "{used:?}"
        );
        for name in used {
            assert!(
                types.contains_key(name),
                "{file} asks for {name}, which there is not"
            );
        }
    }
    let dashboard = std::fs::read_to_string(packaging.join("grafana-dashboard.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&dashboard).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    assert!(
        panels[0]["targets"][0]["expr"]
            .as_str()
            .unwrap()
            .contains("driftless_lag_seconds")
    );
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len());
    // Counters are rates, and nothing else is.
    let rated = regex::Regex::new(r"\b(rate|increase)\(((?:driftless|process)_[a-z_]+)").unwrap();
    let alerts = std::fs::read_to_string(packaging.join("alerts.yml")).unwrap();
    for text in [dashboard.to_string(), alerts] {
        for found in rated.captures_iter(&text) {
            assert_eq!(types[&found[2]], "counter", "{}", &found[0]);
        }
    }
}
