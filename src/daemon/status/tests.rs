use super::*;
use driftless_protocol::TreeSum;
use driftless_protocol::message::{Cursor, Progress};

fn board() -> Arc<StatusBoard> {
    StatusBoard::new(
        "fp".to_owned(),
        &Home::at("/h"),
        "/src".to_owned(),
        "nas::photos".to_owned(),
    )
}

#[test]
fn a_board_follows_its_sender() {
    let board = board();
    assert_eq!(board.status().phase, "starting");
    board.phase(&Phase::Sending);
    board.counters(&SendCounters {
        ops_total: 5,
        ops_done: 2,
        ..SendCounters::default()
    });
    let status = board.status();
    assert_eq!((status.phase.as_str(), status.behind.ops), ("sending", 3));
    assert!(status.behind.oldest_ms.is_some() && status.in_sync_at.is_none());
    assert_eq!(status.counters["ops_total"], 5);
    board.counters(&SendCounters {
        ops_total: 5,
        ops_done: 5,
        ..SendCounters::default()
    });
    assert_eq!(board.in_sync(), None);
    board.phase(&Phase::InSync { sequence: 9 });
    assert_eq!(board.in_sync(), Some(9));
    let status = board.status();
    assert_eq!(status.behind, Behind::default());
    assert_eq!(status.in_sync_at.unwrap().sequence, 9);
    board.phase(&Phase::Waiting {
        error: "no answer".to_owned(),
        seconds: 2,
    });
    let status = board.status();
    assert_eq!(
        (status.phase.as_str(), status.reason.as_deref()),
        ("waiting", Some("no answer"))
    );
    assert_eq!(status.last_error.unwrap().text, "no answer");
}

#[test]
fn the_list_of_failed_entries_is_bounded() {
    let board = board();
    let failed: Vec<_> = (0..1000)
        .map(|n| FailedEntry {
            path: format!("f{n}"),
            error: "denied".to_owned(),
        })
        .collect();
    let counters = SendCounters {
        failed: 1000,
        ..SendCounters::default()
    };
    board.finish(Ok(&Summary {
        counters,
        failed,
        ..Summary::default()
    }));
    let status = board.status();
    assert_eq!(
        (status.failed.len(), status.counters["failed"]),
        (FAILED_LISTED_MAX, 1000)
    );
    assert_eq!(status.phase, "ended");
    board.finish(Err("broken"));
    assert_eq!(board.status().last_error.unwrap().text, "broken");
}

#[test]
fn a_session_counts_and_keeps_its_last_error() {
    let session = SessionStatus::default();
    session.count_applied();
    session.count_applied();
    session.count_wanted();
    session.count_bytes(10);
    session.count_failed("no space");
    session.set_progress(&Progress {
        applied: 4,
        durable: 3,
        cursor: None,
    });
    let report = session.report(".".to_owned(), "peer".to_owned(), "/a".to_owned());
    assert_eq!(
        (report.applied, report.failed, report.wanted, report.bytes),
        (2, 1, 1, 10)
    );
    assert_eq!(
        (report.applied_to, report.durable_to, report.sequence),
        (4, 3, None)
    );
    assert_eq!(report.last_error.unwrap().text, "no space");
    let cursor = Some(Cursor {
        incarnation: 1,
        sequence: 0,
        sum: TreeSum::default(),
    });
    session.set_progress(&Progress {
        applied: 4,
        durable: 4,
        cursor,
    });
    assert_eq!(
        session
            .report(String::new(), String::new(), String::new())
            .sequence,
        Some(0)
    );
}

/// Scripts read this: a change here is a change of the contract.
#[test]
fn the_json_keeps_its_shape_and_readers_ignore_what_is_new() {
    let board = board();
    board.phase(&Phase::InSync { sequence: 3 });
    board.set_watcher("inotify", &["mmap writes".to_owned()]);
    let status = DaemonStatus::Sender(Box::new(board.status()));
    let json = serde_json::to_value(&status).unwrap();
    let keys: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        [
            "behind",
            "checkpoints",
            "connected",
            "counters",
            "failed",
            "home",
            "identity",
            "in_sync_at",
            "last_error",
            "phase",
            "phase_since",
            "pid",
            "protections",
            "reason",
            "role",
            "since",
            "source",
            "target",
            "watcher"
        ]
    );
    assert_eq!(json["role"], "sender");
    assert_eq!(json["watcher"]["name"], "inotify");
    let mut newer = json;
    newer["something-new"] = 1.into();
    assert_eq!(serde_json::from_value::<DaemonStatus>(newer).unwrap(), status);

    let session = SessionStatus::default().report(".".to_owned(), "p".to_owned(), "/s".to_owned());
    let module = ModuleStatus {
        keeping: KeepingReport::default(),
        scrubs: Vec::new(),
        drift: Vec::new(),
        publishing: Vec::new(),
        name: "m".to_owned(),
        path: "/m".to_owned(),
        promoted_since: None,
        sessions: vec![session],
    };
    let address = "127.0.0.1:4433".parse().unwrap();
    let status = DaemonStatus::Receiver(ReceiverStatus::new(
        "fp".to_owned(),
        &Home::at("/h"),
        address,
        vec![module],
    ));
    let json = serde_json::to_value(&status).unwrap();
    assert_eq!(
        (&json["role"], &json["address"]),
        (&"receiver".into(), &"127.0.0.1:4433".into())
    );
    assert_eq!(json["modules"][0]["sessions"][0]["peer"], "p");
    assert_eq!(serde_json::from_value::<DaemonStatus>(json).unwrap(), status);
}
