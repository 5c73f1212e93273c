//! Whole transfers over simulated lines. Rates count content only: quinn's packets carry about 95.5 % of it, with the
//! headers of IP and UDP.

use super::simulation::{Line, Outcome, Transfer, run};
use super::{Congestion, PathMemory, bdp::Bdp};
use quinn::TransportConfig;
use quinn::congestion::Controller;
use std::sync::Arc;
use std::time::{Duration, Instant};

const ENDLESS: u64 = 1 << 50;

fn transport(congestion: Congestion) -> Arc<TransportConfig> {
    remembering(congestion, None)
}

fn remembering(congestion: Congestion, path: Option<PathMemory>) -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    config
        .stream_receive_window(24_000_000u32.into())
        .receive_window(48_000_000u32.into())
        .send_window(48_000_000)
        .max_idle_timeout(None)
        .congestion_controller_factory(congestion.factory(path, Arc::default()));
    Arc::new(config)
}

/// Megabits per second, round trip in milliseconds, queue in bandwidth-delay products, losses in a million packets.
fn line(rate: u64, round_trip: u64, queue: f64, loss: u64) -> Line {
    let line = Line {
        rate: rate * 1_000_000,
        round_trip: Duration::from_millis(round_trip),
        queue: 0,
        loss,
    };
    let queue = ((line.bdp() as f64 * queue) as u64).max(30_000);
    Line { queue, ..line }
}

fn alone(line: Line, bytes: u64) -> Outcome {
    let transfer = Transfer {
        transport: transport(Congestion::Auto),
        start: Duration::ZERO,
        bytes,
    };
    run(line, vec![transfer], Duration::from_secs(120)).remove(0)
}

/// Shares of the line that two endless transfers have between seconds 15 and 45, the second 3 s later than the first.
fn shares(line: Line, first: Congestion, second: Congestion) -> (f64, f64) {
    let transfers = [(first, 0), (second, 3)].map(|(congestion, start)| Transfer {
        transport: transport(congestion),
        start: Duration::from_secs(start),
        bytes: ENDLESS,
    });
    let outcomes = run(line, transfers.into(), Duration::from_secs(45));
    let share = |outcome: &Outcome| outcome.rate_between(15, 45) / line.rate as f64;
    (share(&outcomes[0]), share(&outcomes[1]))
}

#[test]
fn a_line_is_filled_whatever_is_lost_at_random() {
    for (loss, rate, round_trip) in [
        (0, 200, 80),
        (1_000, 200, 80),
        (10_000, 200, 80),
        (10_000, 100, 200),
    ] {
        let line = line(rate, round_trip, 1.0, loss);
        let outcome = alone(line, ENDLESS.min(line.rate / 8 * 15));
        // From the fourth second on: the start has a test of its own.
        let share = outcome.rate_between(4, 14) / line.rate as f64;
        assert!(share >= 0.9, "{line:?}: {share}");
        let lost = outcome.lost_packets as f64 / outcome.packets as f64;
        let random = loss as f64 / 1e6;
        assert!(
            lost < random * 1.2 + 0.005,
            "{line:?}: {lost} of the packets were sent again"
        );
    }
}

#[test]
fn the_start_is_over_before_the_queue_overflows() {
    for (rate, round_trip) in [(200, 80), (100, 200), (1_000, 30), (20, 40)] {
        let line = line(rate, round_trip, 1.0, 0);
        let outcome = alone(line, line.rate / 8 * 2);
        assert!(outcome.overhead() < 1.06, "{line:?}: {outcome:?}");
        let took = outcome.took.unwrap().as_secs_f64();
        // Two seconds' worth of bytes; the handshake and the way to full speed are some eight round trips.
        let allowed = 2.0 / 0.93 + 8.0 * line.round_trip.as_secs_f64();
        assert!(took < allowed, "{line:?}: {took} s, allowed are {allowed}");
    }
}

#[test]
fn slow_lines_shallow_and_deep_queues() {
    for (line, at_least) in [
        (line(5, 30, 2.0, 0), 0.9),
        (line(2, 50, 1.5, 0), 0.8),
        (line(20, 40, 4.0, 0), 0.9),
        (line(1_000, 1, 4.0, 1_000), 0.9),
        (line(200, 80, 0.2, 0), 0.85),
    ] {
        let outcome = alone(line, line.rate / 8 * 10);
        let took = outcome.took.unwrap().as_secs_f64();
        assert!(10.0 / took >= at_least, "{line:?}: {took} s");
        assert!(outcome.overhead() < 1.09, "{line:?}: {}", outcome.overhead());
    }
}

#[test]
fn a_queue_that_others_fill_does_not_push_it_aside_nor_the_others() {
    let line = line(100, 40, 1.0, 0);
    for other in [Congestion::Cubic, Congestion::NewReno] {
        let (ours, theirs) = shares(line, Congestion::Bdp, other);
        assert!(
            ours > 0.2 && theirs > 0.1 && ours + theirs > 0.85,
            "{other}: {ours} and {theirs}"
        );
        let (theirs, ours) = shares(line, other, Congestion::Bdp);
        assert!(
            ours > 0.2 && theirs > 0.1 && ours + theirs > 0.85,
            "{other} first: {ours} and {theirs}"
        );
    }
}

#[test]
fn two_of_its_kind_share() {
    let line = line(100, 40, 1.0, 0);
    let (first, second) = shares(line, Congestion::Bdp, Congestion::Bdp);
    assert!(first + second > 0.88, "{first} and {second}");
    assert!(first.min(second) > 0.2, "{first} and {second}");
}

#[test]
fn after_a_silence_of_a_path_it_starts_again() {
    let mut controller = Bdp::new(1_200, None);
    let before = controller.window();
    controller.on_congestion_event(Instant::now(), Instant::now(), true, 100_000);
    assert!(controller.window() < before / 10, "{}", controller.window());
    assert!(controller.window() >= 2 * 1_200);
}

#[test]
fn a_remembered_path_is_faster_and_one_that_got_slower_is_not_flooded() {
    let line = line(200, 80, 1.0, 0);
    let took = |rate: Option<u64>, line: Line| {
        let path = rate.map(|rate| PathMemory {
            rate,
            round_trip: line.round_trip,
        });
        let transfer = Transfer {
            transport: remembering(Congestion::Auto, path),
            start: Duration::ZERO,
            bytes: 2_000_000,
        };
        run(line, vec![transfer], Duration::from_secs(60)).remove(0)
    };
    let (first, again) = (took(None, line), took(Some(25_000_000), line));
    assert!(
        again.took.unwrap() < first.took.unwrap() * 3 / 4,
        "{first:?} {again:?}"
    );
    // A tenth of what it was.
    let slower = Line {
        rate: line.rate / 10,
        queue: line.queue / 10,
        ..line
    };
    let (first, again) = (took(None, slower), took(Some(25_000_000), slower));
    assert!(
        again.took.unwrap() < first.took.unwrap() * 5 / 4,
        "{first:?} {again:?}"
    );
    assert!(again.overhead() < 1.6, "{again:?}");
}

#[test]
fn names_are_read_as_they_are_written() {
    for (name, congestion) in Congestion::ALL {
        assert_eq!(name.parse(), Ok(congestion));
        assert_eq!(congestion.to_string(), name);
    }
    assert!("reno".parse::<Congestion>().unwrap_err().contains("newreno"));
}
