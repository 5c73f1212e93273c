//! The scheduler with virtual time.

use super::super::{Direction, Flow, LinkSpec, Verdict};

const MS: u64 = 1_000_000;

fn direction(spec: &str) -> Direction<u64> {
    Direction::new(&spec.parse::<LinkSpec>().unwrap(), Flow::AToB)
}

/// Sends `count` packets of `bytes` bytes, one every `gap` nanoseconds; returns the verdicts and the
/// deliveries, as time and number.
fn send(
    direction: &mut Direction<u64>,
    count: u64,
    bytes: usize,
    gap: u64,
) -> (Vec<Verdict>, Vec<(u64, u64)>) {
    let verdicts = (0..count).map(|n| direction.push(n * gap, bytes, n)).collect();
    let mut deliveries = Vec::new();
    while let Some(due) = direction.next_due() {
        assert_eq!(direction.pop_due(due - 1), None, "delivered before it was due");
        deliveries.push((due, direction.pop_due(due).unwrap()));
    }
    (verdicts, deliveries)
}

#[test]
fn a_lone_packet_takes_its_serialisation_and_half_the_round_trip() {
    let mut way = direction("rtt=80ms,rate=12mbit");
    // 1500 bytes at 12 Mbit/s are one millisecond.
    assert_eq!(way.push(5 * MS, 1500, 0), Verdict::Accepted);
    assert_eq!(way.next_due(), Some((5 + 1 + 40) * MS));
    assert_eq!(way.packets_under_way(), 1);
}

#[test]
fn rate_is_exact_over_many_packets() {
    // A rate at which no packet takes a whole number of nanoseconds.
    let mut way = direction("rtt=0ms,rate=0.7gbit,queue=1000MB");
    let (_, deliveries) = send(&mut way, 100_000, 1447, 0);
    let expected = 100_000_u128 * 1447 * 8 * 1_000_000_000 / 700_000_000;
    assert_eq!(u128::from(deliveries.last().unwrap().0), expected);
}

#[test]
fn an_idle_line_earns_no_credit() {
    let mut way = direction("rtt=0ms,rate=12mbit");
    way.push(0, 1500, 0);
    for n in 0..3 {
        way.push(1000 * MS, 1500, n);
    }
    let due: Vec<u64> = std::iter::from_fn(|| {
        let due = way.next_due()?;
        way.pop_due(due).map(|_| due)
    })
    .collect();
    assert_eq!(due, [MS, 1001 * MS, 1002 * MS, 1003 * MS]);
}

#[test]
fn a_full_queue_drops_what_arrives_and_recovers_as_it_drains() {
    let mut way = direction("rtt=10ms,rate=12mbit,queue=15000");
    let verdicts: Vec<Verdict> = (0..12).map(|n| way.push(0, 1500, n)).collect();
    assert!(verdicts[..10].iter().all(|verdict| *verdict == Verdict::Accepted));
    assert!(
        verdicts[10..]
            .iter()
            .all(|verdict| *verdict == Verdict::QueueFull)
    );
    assert_eq!(way.backlog_bytes(0), 15_000);
    // Half a packet has been sent: still no room. A small one fits, though.
    assert_eq!(way.push(MS / 2, 1500, 12), Verdict::QueueFull);
    assert_eq!(way.push(MS / 2, 750, 13), Verdict::Accepted);
    assert_eq!(way.push(2 * MS, 1500, 14), Verdict::Accepted);
    let counters = way.take_counters();
    assert_eq!((counters.packets_in, counters.packets_queue_full), (15, 3));
    assert_eq!(
        (counters.bytes_in, counters.bytes_queue_full),
        (14 * 1500 + 750, 4500)
    );
    assert_eq!(counters.max_backlog_bytes, 15_000);
    assert_eq!(way.packets_under_way(), 12);
    assert_eq!(way.take_counters(), Default::default());
}

#[test]
fn overload_passes_exactly_the_rate() {
    // Twice the rate for ten seconds.
    let mut way = direction("rtt=100ms,rate=12mbit");
    let (_, deliveries) = send(&mut way, 20_000, 1500, MS / 2);
    // What arrived in 10 s, and then the queue of 150 000 bytes.
    let expected = 10_000 + 100;
    assert!(deliveries.len().abs_diff(expected) <= 1, "{}", deliveries.len());
}

#[test]
fn same_seed_same_fate() {
    let run = |spec: &str, flow| {
        let mut way = Direction::new(&spec.parse::<LinkSpec>().unwrap(), flow);
        send(&mut way, 20_000, 1200, 60_000)
    };
    let spec = "w0,loss=1%,jitter=5ms,reorder=2%,seed=3";
    assert_eq!(run(spec, Flow::AToB), run(spec, Flow::AToB));
    let lost = |spec, flow| -> Vec<usize> {
        let (verdicts, _) = run(spec, flow);
        (0..verdicts.len())
            .filter(|n| verdicts[*n] == Verdict::Lost)
            .collect()
    };
    let reference = lost(spec, Flow::AToB);
    assert_ne!(
        reference,
        lost("w0,loss=1%,jitter=5ms,reorder=2%,seed=4", Flow::AToB),
        "another seed"
    );
    assert_ne!(reference, lost(spec, Flow::BToA), "the other direction");
    // Which packets are lost depends on nothing but the seed and their number.
    assert_eq!(reference, lost("rtt=1ms,rate=1gbit,loss=1%,seed=3", Flow::AToB));
    let queue_drops = "rtt=1ms,rate=100mbit,loss=1%,seed=3,queue=15000";
    let survivors_lost = lost(queue_drops, Flow::AToB);
    assert!(survivors_lost.len() < reference.len());
    assert!(survivors_lost.iter().all(|n| reference.contains(n)));
}

#[test]
fn loss_is_as_frequent_as_asked_and_uses_the_line() {
    let mut way = direction("rtt=0ms,rate=12mbit,loss=1%,queue=1000MB");
    let (_, deliveries) = send(&mut way, 100_000, 1500, 0);
    let counters = way.take_counters();
    assert_eq!(counters.packets_lost + counters.packets_delivered, 100_000);
    // Four standard deviations of a binomial distribution around 1000.
    assert!(
        counters.packets_lost.abs_diff(1000) < 126,
        "{}",
        counters.packets_lost
    );
    assert_eq!(counters.bytes_lost, counters.packets_lost * 1500);
    assert_eq!(deliveries.len() as u64, counters.packets_delivered);
    let (at, last) = *deliveries.last().unwrap();
    assert_eq!(at, (last + 1) * MS, "lost packets take their time on the line");
    assert_eq!(send(&mut direction("w0,loss=100%"), 50, 1500, MS).1, []);
}

#[test]
fn jitter_keeps_order_stays_in_bounds_and_leaves_the_mean() {
    let mut way = direction("rtt=80ms,rate=1gbit,jitter=5ms,seed=5");
    let gap = MS / 10;
    let (_, deliveries) = send(&mut way, 100_000, 125, gap);
    assert!(
        deliveries.is_sorted_by(|a, b| a.0 < b.0 && a.1 < b.1),
        "order is kept"
    );
    // 125 bytes take a microsecond.
    let delays: Vec<u64> = deliveries.iter().map(|(due, n)| due - n * gap - 1000).collect();
    let (least, most) = (*delays.iter().min().unwrap(), *delays.iter().max().unwrap());
    assert!((35 * MS..36 * MS).contains(&least), "{least}");
    assert!((44 * MS..=45 * MS).contains(&most), "{most}");
    let mean = delays.iter().sum::<u64>() / 100_000;
    assert!(mean.abs_diff(40 * MS) < MS / 2, "{mean}");
}

#[test]
fn reordered_packets_overtake_their_neighbours_and_no_others() {
    let mut way = direction("rtt=80ms,rate=120mbit,reorder=1%,seed=8");
    let (_, deliveries) = send(&mut way, 50_000, 1500, MS / 10);
    assert_eq!(deliveries.len(), 50_000, "nothing is lost");
    let place: Vec<usize> = {
        let mut place = vec![0; deliveries.len()];
        deliveries
            .iter()
            .enumerate()
            .for_each(|(at, (_, n))| place[*n as usize] = at);
        place
    };
    let overtaking = (1..place.len()).filter(|n| place[*n] < place[*n - 1]).count();
    // Four standard deviations around 500; a run of early packets counts once.
    assert!(overtaking.abs_diff(495) < 90, "{overtaking}");
    // One millisecond is ten packets here.
    let furthest = (0..place.len())
        .map(|n| n.saturating_sub(place[n]))
        .max()
        .unwrap();
    assert_eq!(furthest, 10);
    // The others are exactly where they would have been.
    let on_time = deliveries
        .iter()
        .filter(|(due, n)| *due == n * (MS / 10) + MS / 10 + 40 * MS)
        .count();
    assert!(on_time.abs_diff(49_500) < 90, "{on_time}");
}

#[test]
fn reordering_never_beats_the_line() {
    let mut way = direction("rtt=0.5ms,rate=12mbit,reorder=100%");
    way.push(0, 1500, 0);
    assert_eq!(way.next_due(), Some(MS));
}

#[test]
fn lateness_is_counted() {
    let mut way = direction("rtt=10ms,rate=12mbit");
    way.push(0, 1500, 0);
    way.push(0, 1500, 1);
    assert_eq!(way.pop_due(6 * MS), Some(0));
    assert_eq!(way.pop_due(6 * MS), None);
    assert_eq!(way.pop_due(9 * MS), Some(1));
    let counters = way.take_counters();
    assert_eq!((counters.packets_late, counters.max_late_nanos), (1, 2 * MS));
}

#[test]
fn a_clock_that_steps_back_does_no_harm() {
    let mut way = direction("rtt=10ms,rate=12mbit");
    way.push(50 * MS, 1500, 0);
    way.push(10 * MS, 1500, 1);
    assert_eq!(way.next_due(), Some(56 * MS));
}
