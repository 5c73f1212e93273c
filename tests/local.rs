//! Both ends in one process: no network is used, everything else is as ever.

mod support;

use driftless::daemon::receiver::ReceiverDaemon;
use driftless::daemon::{ReceiverOptions, SenderOptions, Silent, Stop, sender};
use driftless::net::{LinkOptions, Shortcut};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use support::{Following, Pair, assert_no_leftovers, runtime, until};

fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut out = vec![0; bytes];
    blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut out);
    out
}

struct Local {
    pair: Pair,
    link: LinkOptions,
}

impl Local {
    fn new() -> Local {
        let pair = Pair::new();
        let link = LinkOptions {
            shortcut: Some(Shortcut::new(pair.sender.fingerprint())),
            ..LinkOptions::default()
        };
        Local { pair, link }
    }

    fn receive(&self) -> ReceiverDaemon {
        let options = ReceiverOptions {
            link: self.link.clone(),
            ..self.pair.receiver_options()
        };
        ReceiverDaemon::start(options, &runtime()).unwrap()
    }

    fn sender_options(&self, address: SocketAddr, follow: bool) -> SenderOptions {
        SenderOptions {
            links: Default::default(),
            modes: Default::default(),
            owners: Default::default(),
            link: self.link.clone(),
            ..self.pair.sender_options(address, follow)
        }
    }

    /// Makes both sides equal, and tells how many bytes passed a network.
    fn mirror(&self) -> u64 {
        let receiver = self.receive();
        let options = self.sender_options(receiver.address(), false);
        let summary = sender::run(&options, &runtime(), Arc::new(Silent), &Stop::default()).unwrap();
        assert!(summary.in_sync && summary.failed.is_empty(), "{summary:?}");
        receiver.stop();
        self.pair.assert_equal();
        assert_no_leftovers(&self.pair.dst());
        summary.counters.wire_bytes_sent
    }
}

#[test]
fn nothing_passes_a_network() {
    let local = Local::new();
    let src = local.pair.src();
    for (n, bytes) in [300_000, 1 << 20, 3_000_001, 20 << 20].into_iter().enumerate() {
        fs::write(src.join(format!("file{n}")), noise(bytes, n as u64)).unwrap();
    }
    let mut sparse = vec![0; 12 << 20];
    sparse[5_000_000..6_000_000].copy_from_slice(&noise(1_000_000, 9));
    fs::write(src.join("sparse"), &sparse).unwrap();
    let passed = local.mirror();
    assert_eq!(passed, 0);
    // Another version of each, in place of the old one.
    sparse[11_000_000] = 1;
    sparse.truncate(11_500_000);
    fs::write(src.join("sparse"), &sparse).unwrap();
    fs::write(src.join("file2"), noise(4_000_000, 20)).unwrap();
    assert_eq!(local.mirror(), 0);
}

/// A file that is written to all the time is copied, or read, again until it holds still.
#[test]
fn what_changes_while_it_is_copied_arrives_as_it_is_in_the_end() {
    let local = Local::new();
    let path = local.pair.src().join("large");
    let mut content = noise(24 << 20, 3);
    fs::write(&path, &content).unwrap();
    let receiver = local.receive();
    let following = Following::start(local.sender_options(receiver.address(), true));
    for round in 0..40u8 {
        let at = usize::from(round) * 600_000;
        content[at..at + 5].fill(round);
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(&content[at..at + 5], at as u64).unwrap();
    }
    content.truncate(20_000_001);
    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(20_000_001)
        .unwrap();
    until("all of it has arrived", || {
        fs::read(local.pair.dst().join("large")).is_ok_and(|arrived| arrived == content)
    });
    following.stop().unwrap();
    receiver.stop();
    local.mirror();
}

/// A receiver that ends in the middle ends the sender's connection, and both can be stopped.
#[test]
fn an_end_in_the_middle_leaves_nobody_waiting() {
    let local = Local::new();
    fs::write(local.pair.src().join("large"), noise(200 << 20, 1)).unwrap();
    for _ in 0..3 {
        let receiver = local.receive();
        let following = Following::start(local.sender_options(receiver.address(), true));
        until("a part has arrived", || {
            local.pair.dst().join("large").exists() || fs::read_dir(local.pair.dst()).unwrap().count() > 1
        });
        receiver.stop();
        following.stop().unwrap();
    }
    local.mirror();
}
