//! Users and groups that are named: how many, where, and when.

use super::bench::*;
use driftless_protocol::{Called, OwnerKind, OwnerRow, Owners};

/// Users and groups are counted, and are named where they may be: before the opening, in ops, and for `verify`.
#[test]
fn n10_too_many_owners_end_the_connection() {
    let bench = Bench::new();
    let row = |id: usize| OwnerRow {
        kind: OwnerKind::User,
        id: u32::try_from(id).unwrap(),
        called: Called::Number(7),
    };
    let rows = || Owners((0..OWNERS_MAX).map(row).collect());
    let greet = || Peer::greet(dial(bench.address(), tls(&bench.pair, &bench.pair.sender)).unwrap()).unwrap();
    let mut peer = greet();
    for _ in 0..=OWNERS_TOTAL_MAX / OWNERS_MAX {
        peer.send(&ToReceiver::Owners(rows()));
    }
    assert_eq!(peer.closed().0, CloseCode::Limit, "before the opening");
    let open = || bench.open();
    let mut peer = open();
    let mut stream = peer.op_stream();
    let mut number = 1;
    for _ in 0..=OWNERS_TOTAL_MAX / OWNERS_MAX {
        number = peer.send_ops(&mut stream, number, [OpBody::Owners(rows())]);
    }
    assert_eq!(peer.closed().0, CloseCode::Limit, "in ops");
    let mut peer = open();
    peer.send(&ToReceiver::Owners(rows()));
    assert_eq!(peer.closed().0, CloseCode::Violation, "beside ops");
    // As many as are allowed are taken.
    let mut peer = open();
    let mut stream = peer.op_stream();
    peer.send_ops(
        &mut stream,
        1,
        [OpBody::Owners(rows()), directory(place(1, "d"), 11)],
    );
    peer.wait_applied(2);
    peer.leave();
    bench.check();
}

/// Nothing but an opening ends the wait for one.
#[test]
fn n10_owners_without_an_opening_are_silence() {
    let bench = Bench::with(|_, options| options.link.hello_timeout = Duration::from_secs(2));
    let mut peer = Peer::greet(dial(bench.address(), tls(&bench.pair, &bench.pair.sender)).unwrap()).unwrap();
    let deadline = std::time::Instant::now() + crate::support::PATIENCE;
    while peer.dialled.connection.close_reason().is_none() {
        assert!(std::time::Instant::now() < deadline, "it may go on for ever");
        peer.send(&ToReceiver::Owners(Owners::default()));
        std::thread::park_timeout(Duration::from_millis(20));
    }
    assert_eq!(peer.closed().0, CloseCode::Limit);
    bench.check();
}
