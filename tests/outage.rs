//! Networks that fail: N-01, N-03, N-05, N-06, N-07, N-09, N-18, N-20 of `docs/reliability.md`.
//!
//! The budgets are short; with `DRIFTLESS_SOAK=n` outages last n times as long.

mod support;

use driftless::daemon::{Observer, Phase, SenderOptions, Stop, sender};
use driftless::net::{LinkOptions, SenderLink};
use driftless_certs::Identity;
use driftless_protocol::message::ToReceiver;
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use support::rough::{Rough, Weather};
use support::{Following, PATIENCE, Pair, runtime, wait_equal};

/// A wide-area path.
const FAR: Weather = Weather {
    delay: Duration::from_millis(30),
    loss: 0,
    doubled: 0,
    late: 0,
    largest: None,
    deaf_there: false,
    deaf_here: false,
};

/// From the moment when a path is back until both sides go on. One second is asked for; the rest is for busy machines.
const GOES_ON: Duration = Duration::from_millis(2_500);

/// From the moment when a path is back until there is a new connection.
const RECONNECTS: Duration = Duration::from_secs(6);

fn soak() -> u32 {
    let times = std::env::var("DRIFTLESS_SOAK")
        .ok()
        .and_then(|text| text.parse().ok());
    times.unwrap_or(1).max(1)
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

/// Waits until something holds, and answers how long that took.
fn time_until(what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "still not: {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
    began.elapsed()
}

fn pause(time: Duration) {
    let end = Instant::now() + time;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        std::thread::park_timeout(left);
    }
}

/// N-01: the path is dead for a while in the middle of a large file. It goes on at once when the path is back, and hardly
/// anything is sent twice.
#[test]
fn n_01_a_large_file_goes_on_within_a_second_of_the_path() {
    const BYTES: usize = 48 << 20;
    let pair = Pair::new();
    fs::write(pair.src().join("large"), noise(1, BYTES)).unwrap();
    let receiver = pair.receive();
    let rough = Rough::start(receiver.address(), FAR);
    let mut options = pair.sender_options(rough.address(), true);
    options.link.limiter = Some(Arc::new(driftless::net::Limiter::new("6m".parse().unwrap())));
    let following = Following::start(options);
    for (outage, at) in [(5, 8), (3, 20)] {
        time_until("it is under way", || rough.bytes() > at << 20);
        rough.set(FAR.cut(true));
        pause(Duration::from_secs(outage) * soak());
        let before = rough.bytes();
        rough.set(FAR);
        let goes_on = time_until("it goes on", || rough.bytes() > before + (256 << 10));
        println!("after {outage} s it went on after {goes_on:?}");
        assert!(goes_on < GOES_ON, "after {outage} s it went on after {goes_on:?}");
    }
    wait_equal(&pair.src(), &pair.dst());
    let twice = rough.bytes().saturating_sub(BYTES as u64);
    assert!(twice < 12 << 20, "{twice} bytes more than the file has");
    following.stop().unwrap();
    receiver.stop();
}

/// N-01: a small change that is made while the path is dead.
#[test]
fn n_01_a_change_made_in_an_outage_arrives_when_it_ends() {
    let pair = Pair::new();
    fs::write(pair.src().join("file"), b"before").unwrap();
    let receiver = pair.receive();
    let rough = Rough::start(receiver.address(), FAR);
    let following = Following::start(pair.sender_options(rough.address(), true));
    following.watching.wait_in_sync();
    for round in 0..2 {
        rough.set(FAR.cut(true));
        fs::write(pair.src().join("file"), format!("during {round}")).unwrap();
        pause(Duration::from_secs(5) * soak());
        rough.set(FAR);
        let wanted = fs::read(pair.src().join("file")).unwrap();
        let arrives = time_until("it arrives", || {
            fs::read(pair.dst().join("file")).is_ok_and(|bytes| bytes == wanted)
        });
        println!("arrived after {arrives:?}");
        assert!(arrives < GOES_ON, "{arrives:?}");
    }
    following.stop().unwrap();
    receiver.stop();
}

/// N-01, D-17: what comes and goes while the receiver is silent is not even looked at, long before the connection is given up.
#[test]
fn n_01_a_silent_receiver_costs_nothing() {
    const FILES: u64 = 500;
    let pair = Pair::new();
    fs::create_dir(pair.src().join("churn")).unwrap();
    let receiver = pair.receive();
    let rough = Rough::start(receiver.address(), FAR);
    let following = Following::start(pair.sender_options(rough.address(), true));
    following.watching.wait_in_sync();
    rough.set(FAR.cut(true));
    fs::write(pair.src().join("first"), b"shows that nobody answers").unwrap();
    // A silence is known after one second, or two if an earlier packet had just left.
    pause(Duration::from_millis(2_500));
    let before = rough.bytes();
    let path = |number: u64| pair.src().join(format!("churn/{number}"));
    for number in 0..FILES {
        fs::write(path(number), noise(number, 4_096)).unwrap();
    }
    // Time enough for reading them all, should somebody want to.
    pause(Duration::from_millis(500));
    for number in 0..FILES {
        fs::remove_file(path(number)).unwrap();
    }
    fs::write(pair.src().join("last"), b"stays").unwrap();
    rough.set(FAR);
    wait_equal(&pair.src(), &pair.dst());
    following.stop().unwrap();
    let sent = rough.bytes() - before;
    assert!(sent < 256 << 10, "{sent} bytes for two small files");
    receiver.stop();
}

/// N-01, N-20: both sides have given the connection up, and the file changes meanwhile: what had come of the one is not
/// spliced into the other.
#[test]
fn n_01_after_a_long_outage_there_is_a_new_connection_within_seconds() {
    const BYTES: usize = 12 << 20;
    let pair = Pair::new();
    fs::write(pair.src().join("large"), noise(1, BYTES)).unwrap();
    let mut options = pair.receiver_options();
    options.link.idle_timeout = Duration::from_secs(3);
    let receiver = driftless::daemon::receiver::ReceiverDaemon::start(options, &runtime()).unwrap();
    let rough = Rough::start(receiver.address(), FAR);
    let mut options = pair.sender_options(rough.address(), true);
    options.link.limiter = Some(Arc::new(driftless::net::Limiter::new("4m".parse().unwrap())));
    let following = Following::start(options);
    time_until("it is under way", || rough.bytes() > 5 << 20);
    rough.set(FAR.cut(true));
    following
        .watching
        .wait_for(|phase| matches!(phase, Phase::Waiting { .. } | Phase::Connecting));
    fs::write(pair.src().join("large"), noise(2, BYTES)).unwrap();
    pause(Duration::from_secs(8) * soak());
    let before = rough.bytes();
    rough.set(FAR);
    let goes_on = time_until("it goes on", || rough.bytes() > before + (64 << 10));
    println!("connected again after {goes_on:?}");
    assert!(goes_on < RECONNECTS, "{goes_on:?}");
    wait_equal(&pair.src(), &pair.dst());
    following.stop().unwrap();
    receiver.stop();
}

/// N-07: one direction is dead.
#[test]
fn n_07_one_dead_direction_harms_nothing_and_is_got_over_at_once() {
    let pair = Pair::new();
    let receiver = pair.receive();
    let rough = Rough::start(receiver.address(), FAR);
    let following = Following::start(pair.sender_options(rough.address(), true));
    following.watching.wait_in_sync();
    for (name, there) in [("there", true), ("back", false)] {
        let weather = Weather {
            deaf_there: there,
            deaf_here: !there,
            ..FAR
        };
        rough.set(weather);
        for number in 0..30 {
            fs::write(pair.src().join(format!("{name}-{number}")), noise(number, 20_000)).unwrap();
        }
        pause(Duration::from_secs(4) * soak());
        rough.set(FAR);
        let began = Instant::now();
        wait_equal(&pair.src(), &pair.dst());
        println!("{name}: equal after {:?}", began.elapsed());
        assert!(began.elapsed() < GOES_ON * 2, "{name}: {:?}", began.elapsed());
    }
    following.watching.wait_in_sync();
    following.stop().unwrap();
    receiver.stop();
}

/// N-02, N-03: the sender's address changes in the middle of a file, as behind a NAT that was restarted: the same
/// connection goes on.
#[test]
fn n_03_a_new_address_in_the_middle_of_a_file_needs_no_handshake() {
    const BYTES: usize = 16 << 20;
    let pair = Pair::new();
    fs::write(pair.src().join("large"), noise(1, BYTES)).unwrap();
    let receiver = pair.receive();
    let rough = Rough::start(receiver.address(), FAR);
    let mut options = pair.sender_options(rough.address(), true);
    options.link.limiter = Some(Arc::new(driftless::net::Limiter::new("6m".parse().unwrap())));
    let following = Following::start(options);
    let mut handshakes = 0;
    for at in [4, 8] {
        time_until("it is under way", || rough.bytes() > at << 20);
        handshakes = rough.handshakes();
        rough.change_address();
    }
    wait_equal(&pair.src(), &pair.dst());
    assert_eq!(rough.handshakes(), handshakes, "there was another handshake");
    following.stop().unwrap();
    receiver.stop();
}

/// N-05: bad weather of each kind, and all of it at once.
#[test]
fn n_05_loss_delay_doubled_and_late_packets() {
    let kinds = [
        ("loss 5 %", Weather { loss: 5, ..FAR }),
        ("loss 30 %", Weather { loss: 30, ..FAR }),
        ("doubled 10 %", Weather { doubled: 10, ..FAR }),
        ("late 20 %", Weather { late: 20, ..FAR }),
        (
            "everything",
            Weather {
                delay: Duration::from_millis(100),
                loss: 10,
                doubled: 10,
                late: 20,
                ..FAR
            },
        ),
    ];
    for (name, weather) in kinds {
        let pair = Pair::new();
        fs::write(pair.src().join("large"), noise(1, 600_000)).unwrap();
        for number in 0..60 {
            fs::write(pair.src().join(format!("small-{number}")), noise(number, 3_000)).unwrap();
        }
        let receiver = pair.receive();
        let rough = Rough::start(receiver.address(), weather);
        let began = Instant::now();
        let summary = pair.seed_to(rough.address()).unwrap();
        println!("{name}: {:?}", began.elapsed());
        assert!(
            summary.in_sync && summary.failed.is_empty(),
            "{name}: {summary:?}"
        );
        pair.assert_equal();
        receiver.stop();
    }
}

/// N-06: large packets vanish without a word once the handshake is over.
#[test]
fn n_06_a_black_hole_for_large_packets_is_found() {
    const BYTES: usize = 8 << 20;
    let pair = Pair::new();
    fs::write(pair.src().join("large"), noise(1, BYTES)).unwrap();
    let receiver = pair.receive();
    let rough = Rough::start(receiver.address(), FAR);
    let mut options = pair.sender_options(rough.address(), true);
    options.link.limiter = Some(Arc::new(driftless::net::Limiter::new("4m".parse().unwrap())));
    let following = Following::start(options);
    time_until("it is under way", || rough.bytes() > 3 << 20);
    rough.set(Weather {
        largest: Some(1_200),
        ..FAR
    });
    let before = rough.bytes();
    let goes_on = time_until("it goes on", || rough.bytes() > before + (1 << 20));
    println!("went on after {goes_on:?}");
    assert!(goes_on < Duration::from_secs(10), "{goes_on:?}");
    wait_equal(&pair.src(), &pair.dst());
    following.stop().unwrap();
    receiver.stop();
}

/// N-06: an address of this machine need not lead to a receiver on this machine, and what is there may take no larger packets than
/// networks do.
#[test]
fn n_06_behind_a_relay_on_this_machine_may_be_a_network() {
    let pair = Pair::new();
    fs::write(pair.src().join("large"), noise(1, 8 << 20)).unwrap();
    fs::write(pair.src().join("small"), noise(2, 5_000)).unwrap();
    let receiver = pair.receive();
    let network = Weather {
        largest: Some(1_472),
        ..Weather::default()
    };
    let rough = Rough::start(receiver.address(), network);
    let following = Following::start(pair.sender_options(rough.address(), true));
    wait_equal(&pair.src(), &pair.dst());
    following.stop().unwrap();
    receiver.stop();
}

/// N-18: two hundred senders come at once, as after a restart of the receiver; each gets in and is heard. That they all
/// want one module is refused afterwards.
#[test]
fn n_18_two_hundred_senders_at_once_get_in() {
    const SENDERS: usize = 200;
    let pair = Pair::new();
    let identities: Vec<_> = (0..SENDERS).map(|_| Identity::ephemeral().unwrap()).collect();
    let mut options = pair.receiver_options();
    options.allow.extend(identities.iter().map(Identity::fingerprint));
    let receiver = driftless::daemon::receiver::ReceiverDaemon::start(options, &runtime()).unwrap();
    let address = receiver.address();
    let began = Instant::now();
    let tries = Arc::new(AtomicUsize::new(0));
    let links: Vec<SenderLink> = std::thread::scope(|scope| {
        let connecting = identities.iter().map(|identity| {
            let (pair, tries) = (&pair, tries.clone());
            scope.spawn(move || connect(pair, identity, address, &tries))
        });
        let connecting: Vec<_> = connecting.collect();
        connecting
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let took = began.elapsed();
    println!(
        "{SENDERS} senders were in after {took:?}, with {} tries",
        tries.load(Ordering::Relaxed)
    );
    assert!(took < Duration::from_secs(20), "{took:?}");
    drop(links);
    receiver.stop();
}

/// Tries until it is let in.
fn connect(pair: &Pair, identity: &Identity, address: SocketAddr, tries: &AtomicUsize) -> SenderLink {
    let began = Instant::now();
    loop {
        tries.fetch_add(1, Ordering::Relaxed);
        let tls = support::peer::tls(pair, identity);
        let first = vec![ToReceiver::Open(support::peer::opening(b"dst", 1))];
        match SenderLink::connect(&runtime(), tls, &[address], first, &LinkOptions::default()) {
            Ok(link) => return link,
            Err(error) => assert!(began.elapsed() < PATIENCE, "{error}"),
        }
    }
}

/// Counts connections.
#[derive(Default)]
struct Connections(AtomicUsize);

impl Observer for Connections {
    fn phase(&self, phase: &Phase) {
        if matches!(phase, Phase::Comparing | Phase::Sending) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// N-09: a receiver that stands still holds up nobody else, and goes on where it was.
#[test]
fn n_09_a_receiver_that_stands_still_holds_up_nobody() {
    let (stuck, other) = (Pair::new(), Pair::new());
    let home = stuck.path("home-r");
    let identity = driftless::daemon::home::Home::at(&home).identity_dir();
    Identity::import(&identity, &stuck.receiver.export_pem()).unwrap();
    let mut process = std::process::Command::new(env!("CARGO_BIN_EXE_driftless"))
        .env("DRIFTLESS_HOME", &home)
        .args(["receive", "--json", "--listen", "127.0.0.1:0", "--allow"])
        .arg(stuck.sender.fingerprint().to_string())
        .arg(stuck.dst())
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut output = std::io::BufReader::new(process.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut output, &mut line).unwrap();
    let ready: serde_json::Value = serde_json::from_str(&line).unwrap();
    let address = ready["address"].as_str().unwrap().parse().unwrap();
    let signal = |signal| {
        let id = rustix::process::Pid::from_child(&process);
        rustix::process::kill_process(id, signal).unwrap();
    };
    let receiver = other.receive();
    let followings = [
        Following::start(stuck.sender_options(address, true)),
        Following::start(other.sender_options(receiver.address(), true)),
    ];
    for following in &followings {
        following.watching.wait_in_sync();
    }
    signal(rustix::process::Signal::STOP);
    fs::write(stuck.src().join("large"), noise(1, 24 << 20)).unwrap();
    for round in 0..8 * soak() {
        fs::write(other.src().join("file"), format!("round {round}")).unwrap();
        let took = time_until("the other one goes on", || {
            fs::read(other.dst().join("file"))
                .is_ok_and(|bytes| bytes == format!("round {round}").into_bytes())
        });
        assert!(took < Duration::from_secs(2), "round {round}: {took:?}");
        pause(Duration::from_millis(400));
    }
    signal(rustix::process::Signal::CONT);
    wait_equal(&stuck.src(), &stuck.dst());
    for following in followings {
        following.stop().unwrap();
    }
    let _ = process.kill();
    let _ = process.wait();
    receiver.stop();
}

/// A run over a path that dies several times, once in each phase of it, needs no help.
#[test]
fn n_21_a_path_that_is_cut_again_and_again_loses_nothing() {
    let pair = Pair::new();
    for number in 0..120 {
        fs::write(pair.src().join(format!("file-{number}")), noise(number, 8_000)).unwrap();
    }
    let receiver = pair.receive();
    let rough = Rough::start(receiver.address(), FAR);
    let options: SenderOptions = pair.sender_options(rough.address(), false);
    let (observer, stop) = (Arc::new(Connections::default()), Stop::default());
    let summary = std::thread::scope(|scope| {
        let sending = scope.spawn(|| sender::run(&options, &runtime(), observer.clone(), &stop));
        let mut at = 0;
        while !sending.is_finished() && at < 6 {
            time_until("something passes", || {
                rough.bytes() > at * 40_000 || sending.is_finished()
            });
            rough.set(FAR.cut(true));
            pause(Duration::from_millis(400));
            rough.set(FAR);
            at += 1;
        }
        sending.join().unwrap().unwrap()
    });
    assert!(summary.in_sync && summary.failed.is_empty(), "{summary:?}");
    pair.assert_equal();
    receiver.stop();
}
