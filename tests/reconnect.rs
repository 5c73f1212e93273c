//! A connection that died without a word does not keep its own sender out; one that lives keeps a copy out.

#[path = "operating/site.rs"]
#[allow(dead_code, reason = "shared with the tests of operating")]
mod site;
mod support;

use driftless::daemon::Phase;
use driftless::daemon::receiver::ReceiverDaemon;
use driftless_certs::{Grant, Peer as Trusted, TrustStore};
use driftless_protocol::CloseCode;
use driftless_protocol::message::{Open, ToReceiver, ToSender};
use site::{Daemon, Site, free_port};
use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};
use support::peer::{Peer, dial, opening, tls};
use support::relay::Relay;
use support::waiting::wait_until;
use support::{Following, PATIENCE, Pair, is_root, skip, wait_equal};

/// Below the idle timeout of a connection (30 s), which would end it in any case.
const SOON: Duration = Duration::from_secs(15);

fn open(incarnation: u128) -> Open {
    Open {
        incarnation,
        ..opening(b"dst", 7)
    }
}

#[test]
fn a_sender_whose_last_connection_died_unheard_gets_in() {
    let pair = Pair::new();
    let receiver = pair.receive();
    for next in [1, 2] {
        let relay = Relay::start(receiver.address(), 100 << 20);
        let (silenced, _) = Peer::open(&pair, relay.address(), &open(1)).unwrap();
        drop(relay);
        let began = Instant::now();
        let (peer, _) = Peer::open(&pair, receiver.address(), &open(next)).unwrap();
        assert!(
            began.elapsed() < SOON,
            "incarnation {next}: {:?}",
            began.elapsed()
        );
        peer.leave();
        drop(silenced);
    }
    receiver.stop();
}

/// C-26: what is sent while the module's directory is somewhere else is not called safe, and comes when it is back or there is
/// another one.
#[test]
fn a_module_that_is_moved_away_is_not_written_elsewhere_unnoticed() {
    let pair = Pair::new();
    fs::write(pair.src().join("old"), "old").unwrap();
    let receiver = pair.receive();
    let following = Following::start(pair.sender_options(receiver.address(), true));
    following.watching.wait_in_sync();
    let away = pair.path("away");
    for (round, is_put_back) in [(0, true), (1, false)] {
        fs::rename(pair.dst(), &away).unwrap();
        let name = format!("new-{round}");
        fs::write(pair.src().join(&name), &name).unwrap();
        let told = following
            .watching
            .wait_for(|phase| matches!(phase, Phase::Waiting { error, .. } if error.contains("dst")));
        println!("{told:?}");
        match is_put_back {
            true => fs::rename(&away, pair.dst()).unwrap(),
            false => fs::create_dir(pair.dst()).unwrap(),
        }
        wait_equal(&pair.src(), &pair.dst());
        following.watching.wait_in_sync();
    }
    following.stop().unwrap();
    receiver.stop();
}

#[test]
fn a_receiver_that_died_and_came_back_is_found_at_once() {
    let pair = Pair::new();
    let first = pair.receive();
    let relay = Relay::start(first.address(), 100 << 20);
    let following = Following::start(pair.sender_options(relay.address(), true));
    following.watching.wait_in_sync();
    // Nobody hears the last words of the first.
    let nowhere = UdpSocket::bind("127.0.0.1:0").unwrap();
    relay.retarget(nowhere.local_addr().unwrap());
    first.stop();
    let second = pair.receive();
    relay.retarget(second.address());
    let began = Instant::now();
    std::fs::write(pair.src().join("file"), b"content").unwrap();
    support::wait_equal(&pair.src(), &pair.dst());
    assert!(began.elapsed() < SOON, "found after {:?}", began.elapsed());
    following.stop().unwrap();
    second.stop();
}

#[test]
fn a_peer_that_is_removed_is_cut_off() {
    let pair = Pair::new();
    let mut options = pair.receiver_options();
    options.allow.clear();
    let mut trust = TrustStore::open(&options.home.peers_file()).unwrap();
    trust
        .add(Trusted {
            name: "sender".to_owned(),
            fingerprint: pair.sender.fingerprint(),
            modules: vec![Grant::all("dst")],
            added: 0,
            expires: None,
            address: None,
        })
        .unwrap();
    let receiver = ReceiverDaemon::start(options, &support::runtime()).unwrap();
    let following = Following::start(pair.sender_options(receiver.address(), true));
    following.watching.wait_in_sync();
    trust.remove("sender").unwrap();
    let began = Instant::now();
    let phase = following
        .watching
        .wait_for(|phase| matches!(phase, Phase::Halted { .. }));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(format!("{phase:?}").contains("no longer allowed"), "{phase:?}");
    assert!(following.stop().is_err());
    receiver.stop();
}

#[test]
fn a_copy_of_a_running_sender_is_refused() {
    let pair = Pair::new();
    let receiver = pair.receive();
    let (running, _) = Peer::open(&pair, receiver.address(), &open(1)).unwrap();
    let mut copy = Peer::greet(dial(receiver.address(), tls(&pair, &pair.sender)).unwrap()).unwrap();
    copy.send(&ToReceiver::Open(open(2)));
    assert_eq!(copy.next(), None, "the copy was let in");
    let (code, text) = copy.closed();
    assert_eq!(code, CloseCode::Busy);
    assert!(
        text.contains("in use by the mirror of the peer of the tests"),
        "{text}"
    );
    // What the running one was asked is no message to act upon.
    assert_eq!(
        running.incoming.recv_timeout(PATIENCE),
        Ok(ToSender::SIGN_OF_LIFE)
    );
    running.leave();
    receiver.stop();
}

/// The name by which a receiver is called that has another address tomorrow.
const NAME: &str = "receiver.example";

/// From the start of a receiver at its new address until it has what changed meanwhile.
const MOVES: Duration = Duration::from_secs(10);

/// N-04: the name in a target leads elsewhere after the receiver was moved, and the sender looks it up anew.
#[test]
fn n_04_a_receiver_that_moved_is_found_by_its_name() {
    if !is_root() {
        return skip("a file of hosts of one's own needs root");
    }
    let site = Site::new(&["src", "dst"]);
    let (port, own) = (free_port(), site.fingerprint("home-r"));
    site.write("hosts", format!("127.0.0.1 {NAME}\n"));
    let receive = |address: &str| {
        let line = format!(
            "receive dst --listen {address}:{port} --allow {} --json",
            site.fingerprint("home")
        );
        Daemon::spawn(site.command_in("home-r", &line))
    };
    let mut receiver = receive("127.0.0.1");
    let line = format!("send src driftless://{own}@{NAME}:{port}/dst --delete always --json");
    let _sender = Daemon::listening(with_hosts(&site, site.command(&line)));
    for (round, address, is_killed) in [(1, "127.0.0.7", false), (2, "127.0.0.8", true)] {
        site.write("src/before", format!("{round}"));
        wait_until("it is in sync", || {
            site.read("dst/before") == Some(format!("{round}"))
        });
        match is_killed {
            true => drop(receiver),
            false => assert_eq!(receiver.stop(), Some(0)),
        }
        site.write("src/meanwhile", format!("{round}"));
        // The same file, which the sender sees: nothing takes its place.
        site.write("hosts", format!("{address} {NAME}\n"));
        let began = Instant::now();
        receiver = receive(address);
        wait_until("it has what changed", || {
            site.read("dst/meanwhile") == Some(format!("{round}"))
        });
        println!("killed {is_killed}: there after {:?}", began.elapsed());
        assert!(began.elapsed() < MOVES, "{:?}", began.elapsed());
    }
}

/// N-04: the same where the receiver calls. It hears nothing of a sender that died but by its own signs of life.
#[test]
fn n_04_a_sender_that_moved_is_found_by_receivers_that_call_it_by_its_name() {
    if !is_root() {
        return skip("a file of hosts of one's own needs root");
    }
    let site = Site::new(&["src", "dst", "dst-d", "home-r", "home-d"]);
    for home in ["home-r", "home-d"] {
        fs::set_permissions(site.path(home), fs::Permissions::from_mode(0o700)).unwrap();
        let line = format!("peers add {} --name {home} --tree www", site.fingerprint(home));
        site.run(&line, 0);
    }
    let (port, own) = (free_port(), site.fingerprint("home"));
    let word = format!("driftless://{own}@{NAME}:{port}/www");
    site.write("hosts", format!("127.0.0.1 {NAME}\n"));
    let serve = |address: &str| {
        Daemon::start(
            &site,
            &format!("serve src --tree www --listen {address}:{port} --json"),
        )
    };
    let sender = serve("127.0.0.1");
    // One of two processes, of which the one with the network knows no names, and one of one process.
    let line = format!("receive dst --from {word} --json");
    let _apart = Daemon::listening(with_hosts(&site, site.command_in("home-r", &line)));
    let module = format!(
        "[[module]]\nname = 'www'\npath = '{}'\nfrom = '{word}'\n",
        site.path("dst-d").display()
    );
    site.write("home-d/driftless.toml", module);
    let _daemon = Daemon::listening(with_hosts(&site, site.command_in("home-d", "daemon --json")));
    let wait_for = |name: &str| {
        wait_until(&format!("both have {name}"), || {
            ["dst", "dst-d"]
                .iter()
                .all(|dst| site.path(&format!("{dst}/{name}")).exists())
        });
    };
    site.write("src/before", "");
    wait_for("before");
    // Nobody hears of its end.
    drop(sender);
    site.write("src/meanwhile", "");
    site.write("hosts", format!("127.0.0.7 {NAME}\n"));
    let began = Instant::now();
    let _sender = serve("127.0.0.7");
    wait_for("meanwhile");
    println!("there after {:?}", began.elapsed());
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

/// A command that finds the site's `hosts` in the place of the machine's.
fn with_hosts(site: &Site, command: Command) -> Command {
    let mut own = Command::new("unshare");
    own.args(["-m", "sh", "-c", "mount --bind \"$0\" /etc/hosts && exec \"$@\""])
        .arg(site.path("hosts"))
        .arg(command.get_program())
        .args(command.get_args())
        .current_dir(site.path(""))
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => own.env(name, value),
            None => own.env_remove(name),
        };
    }
    own
}
