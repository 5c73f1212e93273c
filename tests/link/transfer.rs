//! Bulk transfers over the real link.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::real::{check, measured_well, start, udp};
use driftless::bench::link::{Emulator, Link, LinkCounters, Side};

/// What was received in a stretch of time, and what the link counted in it.
struct Measured {
    payload_rate: f64,
    counters: LinkCounters,
    seconds: f64,
    cpu: f64,
}

/// Lets a transfer that adds to `received` go on for `warm_up`, then measures it for `time`.
fn measure(emulator: &Emulator, received: &AtomicU64, warm_up: Duration, time: Duration) -> Measured {
    thread::sleep(warm_up);
    emulator.reset_counters();
    let cpu = emulator.cpu_time();
    let (start, bytes) = (Instant::now(), received.load(Ordering::Relaxed));
    thread::sleep(time);
    let (bytes, seconds) = (
        received.load(Ordering::Relaxed) - bytes,
        start.elapsed().as_secs_f64(),
    );
    let counters = emulator.counters().unwrap();
    let cpu = (emulator.cpu_time() - cpu).as_secs_f64() / seconds;
    println!(
        "{}: payload {:.2} Mbit/s, on the wire {:.2} Mbit/s, relay {:.1} % of a processor (real-time: {})",
        emulator.link(),
        bytes as f64 * 8e-6 / seconds,
        counters.a_to_b.bytes_delivered as f64 * 8e-6 / seconds,
        cpu * 100.0,
        emulator.realtime(),
    );
    println!("  forth {:?}\n  back {:?}", counters.a_to_b, counters.b_to_a);
    Measured {
        payload_rate: bytes as f64 * 8.0 / seconds,
        counters,
        seconds,
        cpu,
    }
}

fn rate(emulator: &Emulator) -> f64 {
    let Link::Wan(spec) = emulator.link() else {
        panic!("an emulated link")
    };
    spec.rate as f64
}

/// A TCP transfer from A to B as fast as it goes.
fn tcp(emulator: &Emulator, warm_up: Duration, time: Duration) -> Measured {
    let address = emulator.side(Side::B).address();
    let bind = move || TcpListener::bind((address, 0)).unwrap();
    let listener = emulator.run_in(Side::B, bind).unwrap().join().unwrap();
    let to = listener.local_addr().unwrap();
    let (received, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let count = Arc::clone(&received);
    let receive = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = vec![0; 1 << 17];
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            count.fetch_add(length as u64, Ordering::Relaxed);
        }
    });
    let stop = Arc::clone(&done);
    let send = move || {
        let mut stream = TcpStream::connect(to).unwrap();
        let buffer = vec![0x5a; 1 << 17];
        while !stop.load(Ordering::Relaxed) && stream.write_all(&buffer).is_ok() {}
    };
    let send = emulator.run_in(Side::A, send).unwrap();
    let measured = measure(emulator, &received, warm_up, time);
    done.store(true, Ordering::Relaxed);
    send.join().unwrap();
    receive.join().unwrap();
    measured
}

/// Datagrams of `payload` bytes from A to B, at `factor` times the link's rate counted in IP bytes.
fn udp_bulk(emulator: &Emulator, payload: usize, factor: f64, time: Duration) -> Measured {
    let (a, b) = (udp(emulator, Side::A), udp(emulator, Side::B));
    a.connect(b.local_addr().unwrap()).unwrap();
    let (received, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let count = Arc::clone(&received);
    let receive = thread::spawn(move || {
        let mut buffer = vec![0; 65_536];
        while let Ok(length) = b.recv(&mut buffer) {
            count.fetch_add(length as u64, Ordering::Relaxed);
        }
    });
    let per_second = rate(emulator) * factor / (8.0 * (payload + 28) as f64);
    let stop = Arc::clone(&done);
    let send = thread::spawn(move || {
        let (start, buffer, mut sent) = (Instant::now(), vec![0; payload], 0);
        while !stop.load(Ordering::Relaxed) {
            while sent < (start.elapsed().as_secs_f64() * per_second) as u64 {
                a.send(&buffer).unwrap();
                sent += 1;
            }
            thread::sleep(Duration::from_millis(1));
        }
    });
    let measured = measure(emulator, &received, Duration::from_millis(600), time);
    done.store(true, Ordering::Relaxed);
    send.join().unwrap();
    receive.join().unwrap();
    measured
}

fn close(measured: f64, expected: f64) -> bool {
    (measured - expected).abs() <= 0.05 * expected
}

#[test]
fn tcp_gets_the_rate() {
    for control in ["cubic", "bbr"] {
        let Some((emulator, _alone)) = start("w0") else {
            return;
        };
        if let Err(error) = emulator.set_congestion_control(control) {
            eprintln!("skipped: {error}");
            continue;
        }
        println!("{control}");
        // The link's rate counts whole IP packets. Each full one of 1500 bytes carries 1448 bytes of payload:
        // 20 bytes are IP header, 20 TCP header and 12 the timestamp option.
        let expected = rate(&emulator) * 1448.0 / 1500.0;
        measured_well(|| {
            let measured = tcp(&emulator, Duration::from_secs(3), Duration::from_secs(4));
            let (payload, way) = (measured.payload_rate, measured.counters.a_to_b);
            let wire = way.bytes_delivered as f64 * 8.0 / measured.seconds;
            check(close(payload, expected), || {
                format!("{control}: payload {payload}")
            })?;
            check(close(wire, rate(&emulator)), || format!("{control}: wire {wire}"))?;
            check(way.packets_unread == 0, || {
                format!("the relay did not keep up: {way:?}")
            })?;
            check(measured.cpu < 0.8, || {
                format!("the relay takes too much of the machine: {}", measured.cpu)
            })
        });
    }
}

#[test]
fn udp_gets_the_rate_and_no_more() {
    for link in ["w0", "rtt=20ms,rate=50mbit,queue=100kB"] {
        let Some((emulator, _alone)) = start(link) else {
            return;
        };
        // 1472 bytes of payload, 8 of UDP header and 20 of IP header are one full packet of 1500 bytes.
        let expected = rate(&emulator) * 1472.0 / 1500.0;
        measured_well(|| {
            let measured = udp_bulk(&emulator, 1472, 1.3, Duration::from_secs(2));
            let (payload, way) = (measured.payload_rate, measured.counters.a_to_b);
            check(close(payload, expected), || format!("{link}: {payload}"))?;
            let dropped = way.packets_in as f64 * 0.3 / 1.3;
            check(
                close(way.packets_queue_full as f64, dropped) && way.packets_unread == 0,
                || format!("{way:?}"),
            )?;
            assert_eq!(way.packets_lost, 0, "{way:?}");
            Ok(())
        });
    }
}

#[test]
fn a_lossless_load_below_the_rate_passes_whole() {
    let Some((emulator, _alone)) = start("w0") else {
        return;
    };
    let expected = rate(&emulator) * 0.8 * 1172.0 / 1200.0;
    measured_well(|| {
        let measured = udp_bulk(&emulator, 1172, 0.8, Duration::from_secs(1));
        let (payload, way) = (measured.payload_rate, measured.counters.a_to_b);
        check(close(payload, expected), || payload.to_string())?;
        check(way.packets_queue_full == 0, || format!("{way:?}"))
    });
}

#[test]
fn loss_is_as_specified_under_load() {
    let Some((emulator, _alone)) = start("w1") else {
        return;
    };
    let way = udp_bulk(&emulator, 1172, 0.8, Duration::from_secs(3))
        .counters
        .a_to_b;
    let expected = way.packets_in as f64 * 0.001;
    // Four standard deviations of a binomial distribution.
    assert!(
        (way.packets_lost as f64 - expected).abs() < 4.0 * expected.sqrt(),
        "{way:?}"
    );
}
