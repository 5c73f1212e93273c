use super::*;
use crate::daemon::status::StatusBoard;
use tempfile::TempDir;

fn board() -> Arc<StatusBoard> {
    StatusBoard::new(
        "fp".to_owned(),
        &Home::at("/h"),
        "/src".to_owned(),
        "nas::photos".to_owned(),
    )
}

fn source() -> Arc<dyn Controlled> {
    Arc::new(vec![board()])
}

fn started() -> (TempDir, Home, ControlServer) {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::at(dir.path().join("h"));
    let server = ControlServer::start(&home, "sender", source()).unwrap();
    (dir, home, server)
}

fn exchange(server: &ControlServer, request: &[u8]) -> String {
    let mut stream = UnixStream::connect(server.path()).unwrap();
    stream.write_all(request).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_live_process_is_asked_and_its_socket_goes_with_it() {
    let (_dir, home, server) = started();
    let path = server.path().to_owned();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(
        fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777,
        0o700
    );
    let answers = ask_all(&home).unwrap();
    assert!(answers.problems.is_empty(), "{answers:?}");
    let [DaemonStatus::Sender(sender)] = &answers.daemons[..] else {
        panic!("{answers:?}")
    };
    assert_eq!((sender.source.as_str(), sender.pid), ("/src", std::process::id()));
    drop(server);
    assert!(!path.exists());
    assert!(ask_all(&home).unwrap().daemons.is_empty());
}

#[test]
fn the_protocol_is_a_line_for_a_line() {
    let (_dir, _home, server) = started();
    let reply = exchange(&server, b"{\"version\":1,\"command\":\"status\"}\n");
    assert!(
        reply.starts_with("{\"version\":1,\"daemons\":[{\"role\":\"sender\","),
        "{reply}"
    );
    assert_eq!(reply.matches('\n').count(), 1);
    for (request, wanted) in [
        (
            &b"{\"version\":1,\"command\":\"explode\"}\n"[..],
            "there is no command",
        ),
        (b"{\"version\":2,\"command\":\"status\"}\n", "version 1 only"),
        (b"hello\n", "not a request"),
    ] {
        let reply = exchange(&server, request);
        assert!(
            reply.starts_with("{\"version\":1,\"error\":") && reply.contains(wanted),
            "{reply}"
        );
    }
}

#[test]
fn silent_and_talkative_clients_do_not_hold_it_up() {
    let (_dir, home, server) = started();
    let connect = || UnixStream::connect(server.path()).unwrap();
    let silent: Vec<UnixStream> = (0..CONNECTIONS_MAX).map(|_| connect()).collect();
    // A request without an end is cut off at its limit. All slots may be taken until then.
    let mut endless = connect();
    let _ = endless.write_all(&vec![b'x'; 1 << 20]);
    drop(endless);
    for mut stream in silent {
        // Dropped when its time is over, without an answer.
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    }
    assert_eq!(ask_all(&home).unwrap().daemons.len(), 1);
}

#[test]
fn sockets_of_dead_processes_are_removed_and_other_files_kept() {
    let (_dir, home, _server) = started();
    let dead = home.run_dir().join("receiver-2147483647.sock");
    drop(UnixListener::bind(&dead).unwrap());
    let other = home.run_dir().join("notes.txt");
    fs::write(&other, "x").unwrap();
    assert_eq!(ask_all(&home).unwrap().daemons.len(), 1);
    assert!(!dead.exists() && other.exists());
}

#[test]
fn a_home_deeper_than_a_socket_address_is_no_obstacle() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::at(dir.path().join("d".repeat(150)));
    let server = ControlServer::start(&home, "receiver", source()).unwrap();
    assert_eq!(ask_all(&home).unwrap().daemons.len(), 1);
    drop(server);
    assert_eq!(fs::read_dir(home.run_dir()).unwrap().count(), 0);
}

#[test]
fn deletions_are_approved_by_source_or_target_and_only_as_many_as_wait() {
    use crate::daemon::{Observer, Phase};
    let dir = tempfile::tempdir().unwrap();
    let home = Home::at(dir.path().join("h"));
    let (one, other) = (board(), board());
    let alone: Arc<dyn Controlled> = Arc::new(vec![one.clone()]);
    let server = ControlServer::start(&home, "sender", alone).unwrap();
    let refused = |mirror: &str, deletions| approve(&home, mirror, deletions).unwrap().unwrap_err();
    assert!(refused("/elsewhere", 5).contains("no running sender"));
    assert!(refused("/src", 5).contains("no deletions"));
    one.phase(&Phase::Held {
        deletions: 5,
        text: String::new(),
    });
    assert!(refused("/src", 4).contains("5 deletions wait, more than 4"));
    assert!(one.approvals().is_empty());
    for name in ["/src", "nas::photos"] {
        assert_eq!(approve(&home, name, 7).unwrap(), Ok(5));
        assert_eq!(one.approvals().try_recv(), Ok(7));
    }
    drop(server);
    let both: Arc<dyn Controlled> = Arc::new(vec![one.clone(), other]);
    let _server = ControlServer::start(&home, "sender", both).unwrap();
    assert!(refused("/src", 7).contains("several targets"));
}
