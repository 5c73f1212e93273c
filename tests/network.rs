//! How the network is used: `--bwlimit`, `--congestion`, `--compress`.

mod support;

use driftless::daemon::{SenderOptions, Silent, Stop, Summary, sender};
use driftless::net::{Compression, Congestion, Limiter, Schedule};
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::relay::Relay;
use support::{PATIENCE, Pair, runtime};

fn incompressible(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

fn limiter(text: &str) -> Option<Arc<Limiter>> {
    let schedule: Schedule = text.parse().unwrap();
    Some(Arc::new(Limiter::new(schedule)))
}

/// When the relay had passed so many bytes.
fn when_passed(relay: &Relay, bytes: u64) -> Instant {
    let deadline = Instant::now() + PATIENCE;
    while relay.passed() < bytes {
        assert!(Instant::now() < deadline, "only {} bytes passed", relay.passed());
        std::thread::park_timeout(Duration::from_millis(1));
    }
    Instant::now()
}

fn seed(pair: &Pair, change: impl FnOnce(&mut SenderOptions)) -> Summary {
    let receiver = pair.receive();
    let mut options = pair.sender_options(receiver.address(), false);
    change(&mut options);
    let summary = sender::run(&options, &runtime(), silent(), &Stop::default()).unwrap();
    receiver.stop();
    assert!(summary.in_sync);
    pair.assert_equal();
    summary
}

fn silent() -> Arc<Silent> {
    Arc::new(Silent)
}

#[test]
fn no_more_is_sent_than_the_limit_allows_and_hardly_less() {
    const RATE: f64 = (2 << 20) as f64;
    let pair = Pair::new();
    fs::write(pair.src().join("file"), incompressible(9 << 20)).unwrap();
    let receiver = pair.receive();
    let relay = Relay::start(receiver.address(), 1 << 30);
    let mut options = pair.sender_options(relay.address(), false);
    options.link.limiter = limiter("2m");
    let (begin, end) = std::thread::scope(|scope| {
        let sending = scope.spawn(|| sender::run(&options, &runtime(), silent(), &Stop::default()));
        let seen = (when_passed(&relay, 1 << 20), when_passed(&relay, 8 << 20));
        assert!(sending.join().unwrap().unwrap().in_sync);
        seen
    });
    receiver.stop();
    // What comes back passed as well: acknowledgements, 1 or 2 %.
    let share = (7 << 20) as f64 / (end - begin).as_secs_f64() / RATE;
    assert!((0.95..=1.05).contains(&share), "{share} of the limit");
    pair.assert_equal();
}

#[test]
fn two_senders_share_a_limit() {
    let pairs = [Pair::new(), Pair::new()];
    let limit = limiter("2m");
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for pair in &pairs {
            fs::write(pair.src().join("file"), incompressible(2 << 20)).unwrap();
            let limit = limit.clone();
            scope.spawn(move || seed(pair, |options| options.link.limiter = limit));
        }
    });
    // 4 MiB at 2 MiB a second; a limit for each would take one second.
    let took = begin.elapsed().as_secs_f64();
    assert!(took >= 1.95, "{took} s");
}

#[test]
fn a_receiver_that_answers_slowly_is_no_failure() {
    let pair = Pair::new();
    for number in 0..200 {
        fs::write(pair.src().join(format!("file-{number}")), incompressible(1_000)).unwrap();
    }
    let mut options = pair.receiver_options();
    options.link.limiter = limiter("16k");
    let receiver = driftless::daemon::receiver::ReceiverDaemon::start(options, &runtime()).unwrap();
    let summary = pair.seed_to(receiver.address()).unwrap();
    receiver.stop();
    assert!(summary.in_sync);
    pair.assert_equal();
}

#[test]
fn every_congestion_control_carries_a_tree() {
    for (name, congestion) in Congestion::ALL {
        let pair = Pair::new();
        fs::write(pair.src().join(name), incompressible(3 << 20)).unwrap();
        seed(&pair, |options| options.link.congestion = congestion);
    }
}

#[test]
fn compression_is_as_hard_as_was_asked() {
    let line: Vec<u8> = (0..200_000)
        .flat_map(|number| format!("{}\n", number % 977).into_bytes())
        .collect();
    let sent = |compression: Compression| {
        let pair = Pair::new();
        fs::write(pair.src().join("large"), &line).unwrap();
        for number in 0..20 {
            fs::write(
                pair.src().join(format!("small-{number}")),
                &line[number..number + 20_000],
            )
            .unwrap();
        }
        seed(&pair, |options| options.link.compression = compression)
            .counters
            .wire_bytes_sent
    };
    let (off, auto, hard) = (
        sent(Compression::Off),
        sent(Compression::Auto),
        sent(Compression::Level(19)),
    );
    assert!(off > line.len() as u64, "{off}");
    assert!(auto < off / 4, "{auto} of {off}");
    assert!(hard < off / 4, "{hard} of {off}");
}
