//! The real link: delay, loss, isolation and clean-up, between real sockets.

use std::collections::BTreeSet;
use std::fs;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::waiting::{wait_until, wait_until_some};
use driftless::bench::link::{Direction, Emulator, Flow, Link, LinkError, LinkSpec, Side, Verdict};

/// One at a time: what is measured here suffers when two of these tests share the processors.
static ALONE: Mutex<()> = Mutex::new(());

/// An emulator of `link`, or `None`, with the reason printed, where this user or kernel cannot have one. With
/// `DRIFTLESS_TEST_NO_SKIP=1` in the environment that is a failure.
pub(super) fn start(link: &str) -> Option<(Emulator, MutexGuard<'static, ()>)> {
    let guard = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    match Emulator::start(link.parse::<Link>().unwrap()) {
        Ok(emulator) => Some((emulator, guard)),
        Err(error @ (LinkError::NotPermitted { .. } | LinkError::NoTun(_) | LinkError::NoNamespaces(_))) => {
            let no_skip = std::env::var_os("DRIFTLESS_TEST_NO_SKIP").is_some_and(|value| value == "1");
            assert!(!no_skip, "{error}");
            eprintln!("skipped: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Measures until the figures are good, three times at most, for what else a machine does makes them bad now and then. A link that
/// is wrong is wrong each time.
pub(super) fn measured_well(mut measure: impl FnMut() -> Result<(), String>) {
    let mut spoiled = Vec::new();
    while let Err(what) = measure() {
        println!("not good: {what}");
        spoiled.push(what);
        assert!(spoiled.len() < 3, "three measurements of three: {spoiled:#?}");
    }
}

/// `Err` with `what`, where `good` does not hold.
pub(super) fn check(good: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if good { Ok(()) } else { Err(what()) }
}

/// A UDP socket on `side`, at any port, with room for what comes while its reader does not get to run: what a
/// socket drops would look like the link's doing.
pub(super) fn udp(emulator: &Emulator, side: Side) -> UdpSocket {
    let address = emulator.side(side).address();
    let socket = emulator
        .run_in(side, move || UdpSocket::bind((address, 0)).unwrap())
        .unwrap()
        .join()
        .unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, 16 << 20).unwrap();
    socket
}

/// Round-trip times of `count` pings of one every `gap`, echoed by side B, ascending.
fn ping(emulator: &Emulator, count: usize, gap: Duration) -> Vec<Duration> {
    let (a, b) = (udp(emulator, Side::A), udp(emulator, Side::B));
    a.connect(b.local_addr().unwrap()).unwrap();
    let echo = std::thread::spawn(move || {
        let mut buffer = [0; 64];
        for _ in 0..count {
            let (length, from) = b.recv_from(&mut buffer).unwrap();
            b.send_to(&buffer[..length], from).unwrap();
        }
    });
    let receiver = a.try_clone().unwrap();
    let start = Instant::now();
    let receive = std::thread::spawn(move || {
        let mut buffer = [0; 16];
        let mut times = Vec::new();
        for _ in 0..count {
            assert_eq!(receiver.recv(&mut buffer).unwrap(), 16);
            let sent = u128::from_le_bytes(buffer);
            times.push(start.elapsed() - Duration::from_nanos(u64::try_from(sent).unwrap()));
        }
        times.sort_unstable();
        times
    });
    for _ in 0..count {
        a.send(&start.elapsed().as_nanos().to_le_bytes()).unwrap();
        std::thread::sleep(gap);
    }
    echo.join().unwrap();
    receive.join().unwrap()
}

#[test]
fn ping_takes_the_round_trip_time() {
    for (link, rtt) in [
        ("w0", 80.0),
        ("rtt=10ms,rate=100mbit", 10.0),
        ("w2,loss=0%", 200.0),
    ] {
        let Some((emulator, _alone)) = start(link) else {
            return;
        };
        measured_well(|| {
            emulator.reset_counters();
            let times = ping(&emulator, 100, Duration::from_millis(5));
            let ms = |time: Duration| time.as_secs_f64() * 1e3;
            let (least, median, p95) = (ms(times[0]), ms(times[50]), ms(times[95]));
            let counters = emulator.counters().unwrap();
            let late = ms(Duration::from_nanos(
                counters.a_to_b.max_late_nanos.max(counters.b_to_a.max_late_nanos),
            ));
            println!(
                "{link}: round trip min {least:.3} median {median:.3} p95 {p95:.3} ms, relay at most {late:.3} ms late"
            );
            assert!(least >= rtt, "faster than light: {least} ms");
            // Four threads are woken for each ping, which takes a busy or virtual machine some tenths of a millisecond each.
            check(median < 1.05 * rtt + 1.0, || format!("{link}: {median} ms"))
        });
    }
}

#[test]
fn jitter_spreads_pings_around_the_round_trip_time() {
    let Some((emulator, _alone)) = start("rtt=40ms,rate=100mbit,jitter=4ms") else {
        return;
    };
    let ms = Duration::from_millis;
    let times = ping(&emulator, 300, ms(5));
    let (least, median, p90) = (times[0], times[150], times[270]);
    println!("round trip min {least:?} median {median:?} p90 {p90:?}");
    // A busy machine makes pings slower, never faster. How late they may be is asked of the relay, which decides by its own clock.
    assert!((ms(32)..ms(37)).contains(&least), "{least:?}");
    assert!(median >= ms(38), "{median:?}");
    assert!(p90 >= ms(42), "{p90:?}");
    let counters = emulator.counters().unwrap();
    for side in [Side::A, Side::B] {
        let way = counters.sent_by(side);
        let spread = [way.max_sooner_nanos, way.max_later_nanos].map(Duration::from_nanos);
        assert!(
            spread.iter().all(|moved| (ms(3)..=ms(4)).contains(moved)),
            "{side:?}: {spread:?}"
        );
    }
}

/// Datagrams that sockets of side B had no room for.
fn receive_buffer_drops(emulator: &Emulator) -> u64 {
    let output = emulator
        .command(Side::B, "cat")
        .arg("/proc/self/net/snmp")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut rows = text
        .lines()
        .filter(|line| line.starts_with("Udp:"))
        .map(str::split_whitespace);
    let (mut names, mut values) = (rows.next().unwrap(), rows.next().unwrap());
    let column = names.position(|name| name == "RcvbufErrors").unwrap();
    values.nth(column).unwrap().parse().unwrap()
}

/// Sends `count` numbered packets of 200 bytes to side B, in bursts of 100, at 50 to 80 Mbit/s, and says which arrived. A queue of
/// 125,000 bytes never fills of that.
fn send_numbered(emulator: &Emulator, count: u32) -> BTreeSet<u32> {
    let (a, b) = (udp(emulator, Side::A), udp(emulator, Side::B));
    a.connect(b.local_addr().unwrap()).unwrap();
    b.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let receive = std::thread::spawn(move || {
        let mut seen = BTreeSet::new();
        let mut buffer = [0; 256];
        while b.recv(&mut buffer).is_ok() {
            assert!(
                seen.insert(u32::from_le_bytes(buffer[..4].try_into().unwrap())),
                "delivered twice"
            );
        }
        seen
    });
    let mut buffer = [0; 172];
    for n in 0..count {
        if n % 100 == 0 {
            std::thread::sleep(Duration::from_millis(2));
        }
        buffer[..4].copy_from_slice(&n.to_le_bytes());
        a.send(&buffer).unwrap();
    }
    receive.join().unwrap()
}

#[test]
fn exactly_the_packets_counted_as_lost_are_missing() {
    const COUNT: u32 = 20_000;
    let spec: LinkSpec = "rtt=10ms,rate=100mbit,loss=2%,seed=11".parse().unwrap();
    measured_well(|| {
        let Some((emulator, _alone)) = start(&spec.to_string()) else {
            return Ok(());
        };
        let seen = send_numbered(&emulator, COUNT);
        let missing: Vec<u32> = (0..COUNT).filter(|n| !seen.contains(n)).collect();
        let counters = emulator.counters().unwrap();
        let way = counters.sent_by(Side::A);
        println!("{} of {COUNT} packets missing; {way:?}", missing.len());
        // The relay did not get to run for long, or this test's reader did not.
        let dropped = (
            way.packets_queue_full,
            way.packets_unread,
            receive_buffer_drops(&emulator),
        );
        check(dropped == (0, 0, 0), || format!("{way:?}"))?;
        assert_eq!(
            (way.packets_in, way.bytes_in),
            (COUNT.into(), u64::from(COUNT) * 200)
        );
        assert_eq!(way.packets_refused, 0);
        assert_eq!(way.packets_lost, missing.len() as u64);
        assert_eq!(way.packets_delivered, seen.len() as u64);
        // Four standard deviations around 400.
        assert!(way.packets_lost.abs_diff(400) < 80);
        assert_eq!(counters.sent_by(Side::B).packets_in, 0);
        // And they are the ones that the scheduler chooses for this seed in virtual time.
        let mut scheduler = Direction::new(&spec, Flow::AToB);
        let predicted =
            (0..COUNT).filter(|n| scheduler.push(u64::from(*n) * 1_000_000, 200, ()) == Verdict::Lost);
        assert!(predicted.eq(missing));
        Ok(())
    });
}

#[test]
fn counters_start_anew() {
    let Some((emulator, _alone)) = start("rtt=20ms,rate=10mbit") else {
        return;
    };
    assert_eq!(ping(&emulator, 3, Duration::from_millis(1)).len(), 3);
    // What has arrived is counted a moment later.
    let counters = wait_until_some("all are counted", || {
        let counters = emulator.counters().unwrap();
        let delivered = [&counters.a_to_b, &counters.b_to_a].map(|way| way.packets_delivered);
        (delivered == [3, 3]).then_some(counters)
    });
    // 16 bytes, UDP header 8, IP header 20.
    assert_eq!(
        (counters.a_to_b.packets_delivered, counters.a_to_b.bytes_delivered),
        (3, 132)
    );
    assert_eq!(
        (counters.b_to_a.packets_delivered, counters.b_to_a.bytes_delivered),
        (3, 132)
    );
    assert_eq!(
        [&counters.a_to_b, &counters.b_to_a].map(|way| way.packets_unread + way.packets_refused),
        [0, 0]
    );
    emulator.reset_counters();
    assert_eq!(emulator.counters().unwrap(), Default::default());
}

#[test]
fn reordering_reaches_the_receiver() {
    let Some((emulator, _alone)) = start("rtt=10ms,rate=100mbit,reorder=5%") else {
        return;
    };
    let (a, b) = (udp(&emulator, Side::A), udp(&emulator, Side::B));
    a.connect(b.local_addr().unwrap()).unwrap();
    for n in 0..100_u8 {
        let mut packet = [0; 1200];
        packet[0] = n;
        a.send(&packet).unwrap();
    }
    let mut buffer = [0; 2000];
    let order: Vec<u8> = (0..100)
        .map(|_| b.recv(&mut buffer).map(|_| buffer[0]).unwrap())
        .collect();
    assert!(!order.is_sorted(), "{order:?}");
}

#[test]
fn sides_are_isolated_networks_with_loopback() {
    let Some((emulator, _alone)) = start("w0") else {
        return;
    };
    let own = fs::read_link("/proc/self/ns/net").unwrap();
    let mut seen = vec![own.to_string_lossy().into_owned()];
    for side in [Side::A, Side::B] {
        let output = emulator
            .command(side, "readlink")
            .arg("/proc/self/ns/net")
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        seen.push(String::from_utf8(output.stdout).unwrap().trim().to_owned());
        let devices = emulator
            .command(side, "cat")
            .arg("/proc/self/net/dev")
            .output()
            .unwrap();
        assert!(String::from_utf8(devices.stdout).unwrap().contains("wan0:"));
        // Loopback works and does not cross the link.
        let loopback = move || {
            let listener = TcpListener::bind(("127.0.0.1", 47_123)).unwrap();
            TcpStream::connect(listener.local_addr().unwrap()).map(|_| listener)
        };
        emulator.run_in(side, loopback).unwrap().join().unwrap().unwrap();
    }
    assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), 3, "{seen:?}");
    assert_eq!(
        emulator.counters().unwrap(),
        Default::default(),
        "nothing but programs' packets"
    );
    // A second link beside the first has the same addresses and knows nothing of it.
    let second = Emulator::start(LinkSpec::W1).unwrap();
    assert_eq!(second.side(Side::A).address(), emulator.side(Side::A).address());
    assert!(ping(&second, 1, Duration::ZERO)[0] >= Duration::from_millis(80));
    assert_eq!(emulator.counters().unwrap(), Default::default());
}

#[test]
fn tcp_settings_fit_the_link() {
    let Some((emulator, _alone)) = start("w2") else {
        return;
    };
    for side in [Side::A, Side::B] {
        let settings = emulator.side(side).tcp_settings().unwrap();
        println!("{settings:?}");
        // Link and queue hold 2.5 MB each.
        assert!(settings.wmem[2] >= 20_000_000 && settings.rmem[2] >= 20_000_000);
        assert!(settings.wmem[0] <= settings.wmem[1] && settings.wmem[1] <= settings.wmem[2]);
        assert!(settings.available.contains(&settings.congestion_control));
    }
    let machine = || fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").unwrap();
    let before = machine();
    emulator.set_congestion_control("reno").unwrap();
    for side in [Side::A, Side::B] {
        assert_eq!(
            emulator.side(side).tcp_settings().unwrap().congestion_control,
            "reno"
        );
    }
    assert_eq!(machine(), before, "the machine's own setting is left alone");
    let error = emulator
        .set_congestion_control("tachyon")
        .unwrap_err()
        .to_string();
    assert!(error.contains("`tachyon`") && error.contains("reno"), "{error}");
}

#[test]
fn dropping_the_emulator_leaves_nothing() {
    let Some((emulator, _alone)) = start("w0") else {
        return;
    };
    let namespaces = || -> BTreeSet<String> {
        let entries = fs::read_dir("/proc/self/fd").unwrap().flatten();
        let targets = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
        targets
            .map(|target| target.to_string_lossy().into_owned())
            .filter(|target| {
                target.starts_with("net:") || target == "/dev/net/tun" || target.contains("net/dev")
            })
            .collect()
    };
    let threads = || {
        let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
        let names = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
        names
            .filter(|name| ["link-relay", "link-side", "link-setup"].contains(&name.trim()))
            .count()
    };
    assert!(namespaces().len() >= 4, "{:?}", namespaces());
    assert!(threads() >= 1);
    // Also with packets under way.
    udp(&emulator, Side::A)
        .send_to(b"x", (emulator.side(Side::B).address(), 9))
        .unwrap();
    drop(emulator);
    assert_eq!(namespaces(), BTreeSet::new());
    // A joined thread may still be on its way out of /proc.
    wait_until("no thread is left", || threads() == 0);
}

#[test]
fn nothing_passes_a_cut_and_everything_after_it_does() {
    let Some((emulator, _alone)) = start("rtt=20ms,rate=100mbit") else {
        return;
    };
    let (a, b) = (udp(&emulator, Side::A), udp(&emulator, Side::B));
    let target = b.local_addr().unwrap();
    let mut buffer = [0; 16];
    a.send_to(b"before", target).unwrap();
    assert_eq!(b.recv(&mut buffer).unwrap(), 6);
    emulator.set_cut(true);
    a.send_to(b"lost", target).unwrap();
    b.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(b.recv(&mut buffer).is_err());
    emulator.set_cut(false);
    a.send_to(b"mended", target).unwrap();
    b.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let length = b.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"mended");
}
