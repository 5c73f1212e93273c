//! C-03, C-11: power cuts. The file system is shut down without its journal being flushed, the receiver is killed, and
//! the image is mounted again: what a machine finds after it lost power.

use crate::flips::Flips;
use crate::rig::{Note, Rig, look};
use crate::support::image::{Image, cut_power};
use crate::support::random::Random;
use crate::support::supervised::Verdict;
use crate::{seed, soak};
use std::path::Path;
use std::time::Duration;

/// File systems and the mount options that change what a crash leaves.
const KINDS: [(&str, &str); 4] = [
    ("ext4", ""),
    ("ext4", "noauto_da_alloc"),
    ("ext4", "data=writeback,noauto_da_alloc"),
    ("xfs", ""),
];

/// Cuts at random moments of each kind.
const RANDOM_CUTS: usize = 10;
/// Cuts at a call of the receiver, of each kind.
const CHOSEN_CUTS: usize = 8;

/// In so many cuts a receiver that does not flush must lose something: the kernel may flush by itself meanwhile.
const TRIES: usize = 6;

/// Where the receiver's home is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Home {
    /// On the same file system: it loses power, too.
    Beside,
    /// On another one that keeps everything.
    Elsewhere,
}

/// A mirror on a file system that can lose power.
struct Site {
    rig: Rig,
    flips: Flips,
    image: Image,
}

impl Site {
    fn new(kind: &str, options: &str, home: Home) -> Option<Site> {
        let image = Image::with(kind, options, &[])?;
        let ours = tempfile::tempdir().unwrap();
        let beside = ours.path().to_owned();
        let home = match home {
            Home::Beside => image.path(),
            Home::Elsewhere => beside,
        };
        let mut rig = Rig::at(ours, &image.path(), &home);
        let flips = Flips::new(rig.src());
        let receiver = rig.receive();
        rig.converge();
        drop(receiver);
        Some(Site { rig, flips, image })
    }

    /// The power is cut; what is on the disk is checked; a new receiver starts and both sides converge.
    fn come_back(&mut self) {
        self.image.mount_again();
        self.rig.check_old_or_new();
        let _receiver = self.rig.receive();
        self.rig.converge();
    }

    /// A cut at a random moment of a transfer, or after it.
    fn cut_at_random(&mut self, random: &mut Random) {
        let mut receiver = self.rig.receive();
        self.flips.flip();
        self.rig.expect_source();
        let sending = self.rig.send();
        let pause = match random.below(4) {
            // In the instant after durable was told.
            0 => None,
            _ => Some(Duration::from_micros(random.below(250_000) as u64)),
        };
        match pause {
            Some(pause) => std::thread::park_timeout(pause),
            None => crate::rig::wait_until("sent", || sending.is_finished()),
        }
        let told = sending.is_finished().then(|| look(&self.rig.src()));
        self.image.cut_power();
        receiver.kill();
        let outcome = sending.stop();
        if let Some(durable) = told.filter(|_| outcome.is_ok_and(|summary| summary.in_sync)) {
            self.rig.know(&durable);
        }
        self.come_back();
    }

    /// A cut while the receiver is about to make its n-th mutating call in the module. False if it made fewer.
    fn cut_at_call(&mut self, n: usize) -> bool {
        let (mounted, module) = (self.image.path(), self.rig.module.clone());
        let mut left = n;
        let mut receiver = self.rig.receive_under(move |call| {
            if !call.is_in(&module) {
                return Verdict::Pass;
            }
            if left > 1 {
                left -= 1;
                return Verdict::Pass;
            }
            // Calls of other threads may come before the process is gone.
            if std::mem::take(&mut left) == 1 {
                cut_power(&mounted);
            }
            Verdict::Kill
        });
        self.flips.flip();
        self.rig.expect_source();
        let sending = self.rig.send();
        crate::rig::wait_until("sent or cut", || sending.is_finished() || receiver.has_ended());
        if sending.stop().is_ok_and(|summary| summary.in_sync) && !receiver.has_ended() {
            self.rig.check_converged();
            receiver.kill();
            return false;
        }
        // The half that speaks to the network says good-bye a moment before all of the receiver has ended.
        crate::rig::wait_until("cut", || receiver.has_ended());
        self.come_back();
        true
    }
}

#[test]
fn c_03_what_was_durable_survives_a_power_cut_at_any_moment() {
    let mut cuts = 0;
    for (kind, options) in KINDS {
        for home in [Home::Beside, Home::Elsewhere] {
            let Some(mut site) = Site::new(kind, options, home) else {
                return;
            };
            let mut random = Random(seed(3));
            for round in 0..RANDOM_CUTS / 2 * soak() {
                let _note = Note(format!(
                    "{kind} {options} {home:?}, seed {}, round {round}",
                    seed(3)
                ));
                site.cut_at_random(&mut random);
                cuts += 1;
            }
        }
    }
    println!("{cuts} power cuts at random moments, nothing lost");
}

#[test]
fn c_03_a_power_cut_at_any_call_leaves_old_or_new() {
    let mut cuts = 0;
    for (kind, options) in KINDS {
        let Some(mut site) = Site::new(kind, options, Home::Beside) else {
            return;
        };
        let mut random = Random(seed(4));
        for _ in 0..CHOSEN_CUTS * soak() {
            // A run makes some 170 calls in the module.
            let n = 1 + random.below(165);
            let _note = Note(format!("{kind} {options}, before call {n}"));
            cuts += usize::from(site.cut_at_call(n));
        }
    }
    println!("{cuts} power cuts at chosen calls, nothing lost");
}

/// What is lost by a receiver that leaves out the flushes that `is_left_out` says: the first fault after a cut. None
/// where power cannot be cut.
fn fault_without(home: Home, is_left_out: fn(&str, bool) -> bool) -> Option<Option<String>> {
    let mut site = Site::new("ext4", "noauto_da_alloc", home)?;
    for _ in 0..TRIES {
        let module = site.rig.module.clone();
        let mut receiver = site.rig.receive_under(move |call| {
            let is_flush = matches!(call.name, "fsync" | "fdatasync" | "syncfs");
            let is_directory = call.path().is_some_and(|path| path.is_dir());
            match is_flush && is_left_out(call.name, is_directory) && call.is_in(&module) {
                true => Verdict::LeaveOut,
                false => Verdict::Pass,
            }
        });
        site.flips.flip();
        site.rig.converge();
        site.image.cut_power();
        receiver.kill();
        site.image.mount_again();
        if let Some(fault) = site.rig.first_fault() {
            return Some(Some(fault));
        }
    }
    Some(None)
}

/// The test above would notice: without its flushes the same receiver loses what it called durable.
#[test]
fn c_03_a_receiver_that_does_not_flush_files_is_caught() {
    let Some(fault) = fault_without(Home::Beside, |_, is_directory| !is_directory) else {
        return;
    };
    let fault = fault.expect("a receiver that does not flush files lost nothing");
    println!("caught: {fault}");
}

#[test]
fn c_03_a_receiver_that_does_not_flush_directories_is_caught() {
    let Some(fault) = fault_without(Home::Elsewhere, |name, is_directory| {
        is_directory || name == "syncfs"
    }) else {
        return;
    };
    let fault = fault.expect("a receiver that does not flush directories lost nothing");
    println!("caught: {fault}");
}

/// Not a fault of the receiver, but of what the test believes: a cut must lose what was not flushed.
#[test]
fn c_03_a_power_cut_loses_what_was_not_flushed() {
    for (kind, options) in KINDS {
        let Some(mut image) = Image::with(kind, options, &[]) else {
            return;
        };
        let file = image.path().join("file");
        std::fs::write(&file, b"never flushed").unwrap();
        image.cut_power();
        assert!(std::fs::write(&file, b"too late").is_err());
        image.mount_again();
        let is_whole = |path: &Path| std::fs::read(path).is_ok_and(|bytes| bytes == b"never flushed");
        assert!(!is_whole(&file), "{kind} {options}");
    }
}
