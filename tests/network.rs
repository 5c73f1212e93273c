//! How the network is used: `--bwlimit`, `--congestion`, `--compress`.

mod support;

use driftless::daemon::{Observer, SendCounters, SenderOptions, Stop, Summary, sender};
use driftless::net::{Compression, Congestion, Limiter, Schedule};
use std::fs;
use std::sync::{Arc, Mutex};
use std::time::Instant;
use support::{Pair, runtime};

fn incompressible(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

fn limiter(text: &str) -> Option<Arc<Limiter>> {
    let schedule: Schedule = text.parse().unwrap();
    Some(Arc::new(Limiter::new(schedule)))
}

/// When so many bytes had been sent.
#[derive(Default)]
struct Meter(Mutex<Vec<(Instant, u64)>>);

impl Observer for Meter {
    fn counters(&self, counters: &SendCounters) {
        let seen = (Instant::now(), counters.wire_bytes_sent);
        self.0.lock().unwrap().push(seen);
    }
}

fn seed(pair: &Pair, change: impl FnOnce(&mut SenderOptions), observer: Arc<dyn Observer>) -> Summary {
    let receiver = pair.receive();
    let mut options = pair.sender_options(receiver.address(), false);
    change(&mut options);
    let summary = sender::run(&options, &runtime(), observer, &Stop::default()).unwrap();
    receiver.stop();
    assert!(summary.in_sync);
    pair.assert_equal();
    summary
}

fn silent() -> Arc<dyn Observer> {
    Arc::new(driftless::daemon::Silent)
}

#[test]
fn no_more_is_sent_than_the_limit_allows_and_hardly_less() {
    const RATE: f64 = (2 << 20) as f64;
    let pair = Pair::new();
    fs::write(pair.src().join("file"), incompressible(9 << 20)).unwrap();
    let meter = Arc::new(Meter::default());
    seed(
        &pair,
        |options| options.link.limiter = limiter("2m"),
        meter.clone(),
    );
    let seen = meter.0.lock().unwrap();
    // Neither the beginning, when there is little to send, nor the end.
    let within = |bytes: u64| bytes > 1 << 20 && bytes < 8 << 20;
    let seen: Vec<_> = seen.iter().filter(|(_, bytes)| within(*bytes)).collect();
    let (first, last) = (seen.first().unwrap(), seen.last().unwrap());
    let seconds = (last.0 - first.0).as_secs_f64();
    assert!(seconds > 2.0, "only {seconds} s were seen");
    let share = (last.1 - first.1) as f64 / seconds / RATE;
    assert!((0.95..=1.05).contains(&share), "{share} of the limit");
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
            scope.spawn(move || seed(pair, |options| options.link.limiter = limit, silent()));
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
        seed(&pair, |options| options.link.congestion = congestion, silent());
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
        seed(&pair, |options| options.link.compression = compression, silent())
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
