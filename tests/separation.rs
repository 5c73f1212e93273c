//! A receiver in two processes: what each of them has, what becomes of one without the other, and that all is as with one.

#[path = "operating/site.rs"]
#[allow(dead_code, reason = "shared with the tests of operating")]
mod site;
mod support;

use rustix::process::{Pid, Signal, kill_process};
use site::{Daemon, PATIENCE, Site, contents, free_port, until};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use support::is_root;

/// The processes that another one has started and that run, by the first word of their command.
fn children(parent: u32, command: &str) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("children")).ok());
    let all: String = lists.collect();
    let all = all.split_whitespace().filter_map(|pid| pid.parse().ok());
    let is_it = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0)
            .any(|word| word == command.as_bytes())
    };
    all.filter(is_it).collect()
}

/// The process that speaks to the network for a receiver.
#[track_caller]
fn transport(receiver: &Daemon) -> u32 {
    let found = children(receiver.process(), "transport");
    assert_eq!(found.len(), 1, "{found:?}");
    found[0]
}

fn runs(pid: u32) -> bool {
    let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    state
        .rsplit(')')
        .next()
        .is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
}

/// The inodes of the sockets that a process has.
fn sockets(pid: u32) -> Vec<String> {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let links = open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    links
        .filter_map(|link| {
            Some(
                link.to_str()?
                    .strip_prefix("socket:[")?
                    .strip_suffix(']')?
                    .to_owned(),
            )
        })
        .collect()
}

/// How many of the sockets of a process are of UDP.
fn udp_sockets(pid: u32) -> usize {
    let own = sockets(pid);
    let tables = ["udp", "udp6"].map(|table| fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap());
    let inodes = tables.iter().flat_map(|table| table.lines().skip(1));
    let inodes: Vec<_> = inodes.filter_map(|line| line.split_whitespace().nth(9)).collect();
    own.iter()
        .filter(|inode| inodes.contains(&inode.as_str()))
        .count()
}

fn field(pid: u32, name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(&format!("{name}:")));
    line.unwrap().trim().to_owned()
}

fn kill(pid: u32) {
    let pid = Pid::from_raw(pid.cast_signed()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
}

/// A sender that follows.
fn follow(site: &Site, target: &str) -> Daemon {
    Daemon::listening(site.command(&format!("send src {target} --delete always --json")))
}

fn fill(site: &Site, megabytes: usize) {
    fs::create_dir_all(site.path("src/sub")).unwrap();
    for number in 0..100 {
        site.write(
            &format!("src/sub/{number}"),
            format!("file {number}\n").repeat(number),
        );
    }
    let mut state = 1_u64;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    let bytes: Vec<u8> = (0..megabytes << 20).map(|_| noise()).collect();
    site.write("src/large", bytes);
}

#[track_caller]
fn wait_equal(site: &Site, one: &str, other: &str) {
    until(&format!("{one} is like {other}"), || {
        contents(&site.path(one)) == contents(&site.path(other))
    });
}

#[test]
fn one_process_has_the_network_and_the_other_the_files() {
    let site = Site::new(&["src"]);
    fill(&site, 12);
    let (receiver, target) = site.receiver("dst");
    let (inside, outside) = (receiver.process(), transport(&receiver));
    let mut sender = follow(&site, &target);
    wait_equal(&site, "src", "dst");
    // Live, in both directions of the control stream, with a patch of a large file.
    site.write("src/sub/new", "new");
    fs::remove_file(site.path("src/sub/7")).unwrap();
    let mut large = fs::read(site.path("src/large")).unwrap();
    large[5 << 20] ^= 1;
    site.write("src/large", &large);
    wait_equal(&site, "src", "dst");
    site.run("wait --level durable --targets all --timeout 60s", 0);
    assert_eq!(site.run(&format!("verify src {target}"), 0).1, "");

    assert_eq!(udp_sockets(inside), 0);
    assert_eq!(udp_sockets(outside), 1);
    // The one outside has nothing open that lies on a disk.
    let open = fs::read_dir(format!("/proc/{outside}/fd")).unwrap();
    for entry in open {
        let Ok(link) = fs::read_link(entry.unwrap().path()) else {
            continue;
        };
        let is_known = ["socket:[", "pipe:[", "anon_inode:", "/dev/null"];
        let text = link.to_str().unwrap();
        assert!(is_known.iter().any(|known| text.starts_with(known)), "{text}");
    }
    assert_eq!(field(outside, "NoNewPrivs"), "1");
    assert_eq!(field(outside, "Seccomp"), "2");
    if is_root() {
        assert!(field(outside, "Uid").starts_with("65534"));
        assert_eq!(field(outside, "CapEff"), "0000000000000000");
        // As the one inside sees it, the directory of the key is empty.
        let key = site.path("home-dst/identity");
        assert!(key.join("identity.key").exists());
        let seen = Path::new("/proc").join(inside.to_string()).join("root");
        let seen = seen.join(key.strip_prefix("/").unwrap());
        assert_eq!(fs::read_dir(seen).unwrap().count(), 0);
        let home = fs::metadata(site.path("home-dst/identity/identity.key")).unwrap();
        assert_eq!((home.uid(), home.mode() & 0o777), (0, 0o600));
    }
    assert_eq!(sender.status(), None);
    assert_eq!(sender.stop(), Some(0));
    assert_eq!(receiver.stop(), Some(0));
    until("both are gone", || !runs(outside));
}

#[test]
fn without_confinement_there_is_one_process() {
    let site = Site::new(&["src", "dst", "home-dst"]);
    site.write("src/a", "a");
    let line = format!(
        "receive dst --listen 127.0.0.1:{} --allow {} --json --confine off",
        free_port(),
        site.fingerprint("home")
    );
    let receiver = Daemon::spawn(site.command_in("home-dst", &line));
    assert!(children(receiver.process(), "transport").is_empty());
    assert_eq!(udp_sockets(receiver.process()), 1);
    assert_eq!(receiver.stop(), Some(0));
}

#[test]
fn a_receiver_whose_network_is_killed_ends_and_loses_nothing() {
    let site = Site::new(&["src"]);
    fill(&site, 48);
    let (mut receiver, target) = site.receiver("dst");
    let line = receive_again(&site, &target);
    let sender = follow(&site, &target);
    // In the middle of the large file.
    until("something has come", || {
        partial(&site.path("dst")) || site.path("dst/large").exists()
    });
    kill(transport(&receiver));
    receiver.hear(|line| {
        line.contains("the process that speaks to the network has ended") && line.contains("signal: 9")
    });
    assert_eq!(receiver.ended(), Some(1));
    let again = Daemon::spawn(site.command_in("home-dst", &line));
    wait_equal(&site, "src", "dst");
    site.run("wait --level durable --targets all --timeout 60s", 0);
    assert_eq!(sender.stop(), Some(0));
    assert_eq!(again.stop(), Some(0));
}

/// The command line of the receiver of a target.
fn receive_again(site: &Site, target: &str) -> String {
    let address = target.split(['@', '/']).nth(3).unwrap();
    format!(
        "receive dst --listen {address} --allow {} --json",
        site.fingerprint("home")
    )
}

/// Whether a file on its way is there.
fn partial(dst: &Path) -> bool {
    let names = fs::read_dir(dst).unwrap().map(|entry| entry.unwrap().file_name());
    names
        .into_iter()
        .any(|name: std::ffi::OsString| name.to_string_lossy().starts_with(".driftless-"))
}

#[test]
fn the_network_of_a_receiver_that_is_killed_ends() {
    let site = Site::new(&["src"]);
    fill(&site, 2);
    let (receiver, target) = site.receiver("dst");
    let line = receive_again(&site, &target);
    let sender = follow(&site, &target);
    wait_equal(&site, "src", "dst");
    let outside = transport(&receiver);
    kill(receiver.process());
    until("the other process is gone", || !runs(outside));
    // Its port is free, too.
    let again = Daemon::spawn(site.command_in("home-dst", &line));
    site.write("src/later", "later");
    wait_equal(&site, "src", "dst");
    site.run("wait --level durable --targets all --timeout 60s", 0);
    assert_eq!(sender.stop(), Some(0));
    assert_eq!(again.stop(), Some(0));
}

#[test]
fn who_is_paired_and_revoked_is_decided_inside() {
    let site = Site::new(&["src", "dst", "home-dst"]);
    site.write("src/a", "a");
    let port = free_port();
    let line = format!("receive dst --listen 127.0.0.1:{port} --json");
    let mut receiver = Daemon::spawn(site.command_in("home-dst", &line));
    let target = format!(
        "driftless://{}@127.0.0.1:{port}/dst",
        site.fingerprint("home-dst")
    );
    let (_, refused) = site.run(&format!("seed src {target}"), 1);
    assert!(
        refused.contains("not allow") || refused.contains("does not let"),
        "{refused}"
    );
    receiver.hear(|line| line.contains("an unknown peer was refused"));
    // A wrong code, then the right one.
    let (code, _) = site.run_in(
        "home-dst",
        &format!("invite --module dst --address 127.0.0.1:{port}"),
        0,
    );
    let line = code
        .lines()
        .find_map(|line| line.trim().strip_prefix("driftless "))
        .unwrap()
        .to_owned();
    site.run(&line, 0);
    site.run(&line, 1);
    receiver.hear(|line| line.contains("pairing refused"));
    site.run(&format!("seed src {target} --delete always"), 0);
    wait_equal(&site, "src", "dst");

    let mut sender = follow(&site, &target);
    site.write("src/b", "b");
    wait_equal(&site, "src", "dst");
    let (peers, _) = site.run_in("home-dst", "peers list --json", 0);
    let peers: serde_json::Value = serde_json::from_str(&peers).unwrap();
    let name = peers["peers"][0]["name"].as_str().unwrap().to_owned();
    site.run_in("home-dst", &format!("peers remove {name}"), 0);
    receiver.hear(|line| line.contains("no longer allowed here"));
    until("the sender has halted, or is gone after that", || {
        let status = site.command("status --json").output().unwrap().stdout;
        let status: serde_json::Value = serde_json::from_slice(&status).unwrap();
        let sender = &status["daemons"][0];
        sender.is_null() || sender["phase"] == "halted"
    });
    site.write("src/c", "c");
    site.run(&format!("seed src {target}"), 1);
    assert!(!site.path("dst/c").exists());
    let _ = sender.said_now();
    sender.signal(Signal::TERM);
    sender.ended();
    assert_eq!(receiver.stop(), Some(0));
}

#[test]
fn a_new_key_is_taken_at_the_next_start() {
    let site = Site::new(&["src", "dst", "home-dst"]);
    site.write("src/a", "a");
    let line = format!(
        "receive dst --listen 127.0.0.1:{} --allow {} --json",
        free_port(),
        site.fingerprint("home")
    );
    let old = site.fingerprint("home-dst");
    let told = |receiver: &Daemon| {
        let (status, _) = site.run_in("home-dst", "status --json", 0);
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        assert_eq!(status["daemons"][0]["pid"], receiver.process());
        status["daemons"][0]["identity"].as_str().unwrap().to_owned()
    };
    let receiver = Daemon::spawn(site.command_in("home-dst", &line));
    assert_eq!(told(&receiver), old);
    site.run_in("home-dst", "id --rotate", 0);
    let new = site.fingerprint("home-dst");
    assert_ne!(new, old);
    // As a receiver in one process does, it stays who it was until then.
    assert_eq!(told(&receiver), old);
    assert_eq!(receiver.stop(), Some(0));
    let receiver = Daemon::spawn(site.command_in("home-dst", &line));
    assert_eq!(told(&receiver), new);
    assert_eq!(receiver.stop(), Some(0));
}

#[test]
fn what_keeps_the_network_from_starting_is_told_as_ever() {
    let site = Site::new(&["dst", "home-dst", "other", "home-other"]);
    let port = free_port();
    let receiver = Daemon::spawn(site.command_in(
        "home-dst",
        &format!("receive dst --listen 127.0.0.1:{port} --json"),
    ));
    let (_, text) = site.run_in(
        "home-other",
        &format!("receive other --listen 127.0.0.1:{port}"),
        1,
    );
    assert!(
        text.contains("cannot listen on UDP") && text.contains("--listen"),
        "{text}"
    );
    assert_eq!(receiver.stop(), Some(0));
    // A key that others could have read is none.
    let key = site.path("home-dst/identity/identity.key");
    fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let (_, text) = site.run_in("home-dst", "receive dst --listen 127.0.0.1:0", 2);
    assert!(text.contains("identity.key"), "{text}");
}

/// What is left to the process that speaks to the network, tried by a process that gave up the same.
#[test]
fn nothing_leads_to_a_file() {
    const CHILD: &str = "DRIFTLESS_TEST_OUTSIDE";
    if std::env::var_os(CHILD).is_none() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("file"), "secret").unwrap();
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "nothing_leads_to_a_file",
                "--exact",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(CHILD, directory.path())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && text.contains("1 passed"),
            "{text}\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(fs::read(directory.path().join("file")).unwrap(), b"secret");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        return;
    }
    let directory = PathBuf::from(std::env::var_os(CHILD).unwrap());
    let file = directory.join("file");
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    driftless::confine::outside::enter();
    assert_eq!(driftless::confine::outside::close(), []);
    let refused = |what: &str, failed: bool| assert!(failed, "{what} was possible");
    refused("open", fs::read(&file).is_err());
    refused("list", fs::read_dir(&directory).is_err());
    refused("make", fs::write(directory.join("new"), "x").is_err());
    refused("remove", fs::remove_file(&file).is_err());
    refused("rename", fs::rename(&file, directory.join("x")).is_err());
    refused("link", fs::hard_link(&file, directory.join("x")).is_err());
    refused(
        "symlink",
        std::os::unix::fs::symlink("x", directory.join("x")).is_err(),
    );
    refused("own memory", fs::read("/proc/self/maps").is_err());
    refused("UDP", std::net::UdpSocket::bind("127.0.0.1:0").is_err());
    refused("TCP", std::net::TcpStream::connect("127.0.0.1:1").is_err());
    refused("pair", std::os::unix::net::UnixStream::pair().is_err());
    refused(
        "run",
        std::process::Command::new(OsStr::new("/bin/true"))
            .output()
            .is_err(),
    );
    let parent = rustix::process::getppid().unwrap();
    refused(
        "signal",
        rustix::process::test_kill_process(parent) == Err(rustix::io::Errno::PERM),
    );
    refused("stat", fs::symlink_metadata(&file).is_err());
    refused(
        "chmod",
        fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o777)).is_err(),
    );
    let kept = rustix::process::set_parent_process_death_signal(None);
    refused("outliving its parent", kept.is_err());
    // What it is for still works.
    let address = socket.local_addr().unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let sent = std::thread::spawn(move || {
        socket.send_to(b"packet", address).unwrap();
        let mut buffer = [0; 16];
        socket.recv_from(&mut buffer).unwrap().0
    });
    assert_eq!(sent.join().unwrap(), 6);
}
