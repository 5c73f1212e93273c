//! The text form of a link.

use std::time::Duration;

use super::super::{Emulator, Fraction, Link, LinkError, LinkSpec, Queue, Side, SpecError};

fn parse(text: &str) -> LinkSpec {
    text.parse().unwrap_or_else(|error| panic!("`{text}`: {error}"))
}

fn error(text: &str) -> SpecError {
    text.parse::<Link>().expect_err(text)
}

#[test]
fn full_specification_is_read() {
    let spec = parse("rtt=80ms,rate=200mbit,loss=0.1%,jitter=5ms,reorder=1%,queue=65536,seed=42");
    assert_eq!(spec.rtt, Duration::from_millis(80));
    assert_eq!(spec.rate, 200_000_000);
    assert_eq!(spec.loss, Fraction::per_million(1_000));
    assert_eq!(spec.jitter, Duration::from_millis(5));
    assert_eq!(spec.reorder, Fraction::per_million(10_000));
    assert_eq!(spec.queue, Queue::Bytes(65_536));
    assert_eq!(spec.seed, 42);
}

#[test]
fn units_are_exact() {
    assert_eq!(parse("rtt=1.5ms,rate=8kbit").rtt, Duration::from_micros(1500));
    assert_eq!(parse("rtt=250us,rate=8kbit").rtt, Duration::from_micros(250));
    assert_eq!(parse("rtt=0.25s,rate=1.5gbit"), parse("rtt=250ms,rate=1500mbit"));
    assert_eq!(parse("w0,queue=2MB").queue_bytes(), 2_000_000);
    assert_eq!(parse("w0,queue=2MiB").queue_bytes(), 2 << 20);
    assert_eq!(parse("w0,queue=64kB").queue_bytes(), 64_000);
    assert_eq!(parse("w0,queue=64KiB").queue_bytes(), 65_536);
    assert_eq!(parse("w0,loss=0.0000001%").loss.parts_per_billion(), 1);
    assert_eq!(parse("w0,loss=100%").loss.parts_per_billion(), 1_000_000_000);
}

#[test]
fn presets_are_as_published() {
    assert_eq!(parse("w0"), parse("rtt=80ms,rate=200mbit"));
    assert_eq!(parse("w1"), parse("rtt=80ms,rate=200mbit,loss=0.1%"));
    assert_eq!(parse("w2"), parse("rtt=200ms,rate=100mbit,loss=1%"));
    assert_eq!(parse("w1,loss=0%,seed=1"), LinkSpec::W0);
    assert_eq!(LinkSpec::W0.queue_bytes(), 2_000_000);
    assert_eq!(LinkSpec::W2.queue_bytes(), 2_500_000);
    assert_eq!("loop".parse(), Ok(Link::Loop));
    // A product too small to hold a few packets is no queue at all.
    assert_eq!(parse("rtt=0ms,rate=1gbit").queue_bytes(), 15_000);
}

#[test]
fn canonical_form_reads_back() {
    for (text, canonical) in [
        ("w0", "rtt=80ms,rate=200mbit"),
        (" w2 , seed=9", "rtt=200ms,rate=100mbit,loss=1%,seed=9"),
        ("w1,queue=bdp,seed=1", "rtt=80ms,rate=200mbit,loss=0.1%"),
        (
            "rate=1250kbit,rtt=1500us,jitter=0.000001s",
            "rtt=1.5ms,rate=1.25mbit,jitter=1us",
        ),
        (
            "rtt=0ms,rate=8kbit,queue=1MiB",
            "rtt=0us,rate=8kbit,queue=1048576",
        ),
        (
            "w0,loss=0.0000001%,reorder=100%",
            "rtt=80ms,rate=200mbit,loss=0.0000001%,reorder=100%",
        ),
        ("loop", "loop"),
    ] {
        let link: Link = text.parse().unwrap();
        assert_eq!(link.to_string(), canonical);
        assert_eq!(canonical.parse(), Ok(link));
    }
}

#[test]
fn errors_name_the_key_and_what_is_accepted() {
    for (text, parts) in [
        ("w0,delay=3ms", &["`delay`", "rtt, rate, loss"][..]),
        ("w3", &["`w3`", "loop, w0, w1, w2"]),
        ("", &["neither a preset"]),
        ("w0,", &["neither a preset"]),
        ("rtt=80ms,w0", &["`w0`", "only as the first item"]),
        ("rtt=80ms", &["`rate` is missing"]),
        ("rate=1mbit", &["`rtt` is missing"]),
        ("w0,loss=1%,loss=2%", &["`loss` is given twice"]),
        ("w0,rtt=80", &["`80`", "`rtt`", "us, ms, s"]),
        ("w0,rtt=-1ms", &["`-1ms`", "`rtt`"]),
        ("w0,rtt=11s", &["`11s`", "`rtt`", "10s"]),
        ("w0,rtt=0.0001us", &["`rtt`"]),
        ("w0,rate=200Mbit", &["`200Mbit`", "`rate`", "kbit, mbit, gbit"]),
        ("w0,rate=.5mbit", &["`rate`"]),
        ("w0,rate=5.mbit", &["`rate`"]),
        ("w0,rate=1.2.3mbit", &["`rate`"]),
        ("w0,rate=0mbit", &["`0mbit`", "8kbit"]),
        ("w0,rate=99999999999999999999gbit", &["`rate`"]),
        ("w0,loss=0.001", &["`loss`", "percentage"]),
        ("w0,loss=101%", &["`101%`", "`loss`"]),
        ("w0,loss=0.00000001%", &["`loss`", "7 decimals"]),
        ("w0,reorder=x%", &["`reorder`"]),
        ("w0,jitter=41ms", &["`41ms`", "`jitter`", "half the rtt"]),
        ("w0,queue=1kb", &["`1kb`", "`queue`", "kB, MB, KiB, MiB"]),
        ("w0,queue=100", &["`100`", "`queue`", "15000"]),
        ("w0,seed=+1", &["`+1`", "`seed`"]),
        ("w0,seed=", &["`seed`"]),
        ("loop,rtt=3ms", &["`loop`", "`rtt=3ms`"]),
    ] {
        let message = error(text).to_string();
        for part in parts {
            assert!(message.contains(part), "`{text}`: {message} (lacks {part})");
        }
    }
}

#[test]
fn values_set_by_hand_are_checked_too() {
    let spec = LinkSpec {
        jitter: Duration::from_secs(1),
        ..LinkSpec::W0
    };
    assert!(matches!(
        spec.validate(),
        Err(SpecError::BadValue { key: "jitter", .. })
    ));
    assert!(matches!(Emulator::start(spec), Err(LinkError::Spec(_))));
}

#[test]
fn loop_needs_nothing() {
    let emulator = Emulator::start(Link::Loop).unwrap();
    assert_eq!(emulator.side(Side::B).address(), std::net::Ipv4Addr::LOCALHOST);
    assert!(emulator.command(Side::A, "true").status().unwrap().success());
    assert_eq!(emulator.run_in(Side::A, || 7).unwrap().join().unwrap(), 7);
    assert_eq!(emulator.counters().unwrap(), Default::default());
    assert!(matches!(
        emulator.set_congestion_control("cubic"),
        Err(LinkError::LoopSettings)
    ));
}
